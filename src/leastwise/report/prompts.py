"""Prompts in a file, read line by line: JSON lines, CSV, or one prompt a line.

A line that cannot be read is told by its number, and the rest is read on. Nothing is
kept: a file of any length passes through.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from io import BufferedReader
from typing import Any, Final, Literal, Self

import msgspec

from leastwise.errors import LogError, RequestError
from leastwise.ladder import AUTO, Task
from leastwise.messages import JSON, Request
from leastwise.report.files import OnBad

Form = Literal["jsonl", "csv", "txt"]

#: What a prompt without a cap of its own is taken to allow.
MAX_TOKENS: Final = 4096
#: Columns that hold the prompt where none is named.
TEXT_COLUMNS: Final = ("text", "prompt")

_BOM: Final = b"\xef\xbb\xbf"
_SUFFIXES: Final[Mapping[str, Form]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".txt": "txt",
}
_HEAD_BYTES: Final = 4096
_TASK_NAMES: Final = tuple(each.name for each in fields(Task))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request of a file: the line it begins on, and what is told of its task."""

    line: int
    request: Request
    task: Task


def request_of(prompt: str, *, model: str = AUTO[0], max_tokens: int = MAX_TOKENS) -> Request:
    """Return a prompt as a request."""
    turn = {"role": "user", "content": prompt}
    return Request.of({"model": model, "max_tokens": max_tokens, "messages": [turn]})


def read_prompts(
    file: BufferedReader,
    name: str,
    on_bad: OnBad,
    *,
    task: Task,
    model: str | None = None,
    text_column: str | None = None,
) -> Iterator[Prompt]:
    """Yield the prompts of a file.

    Lines of JSON are Messages bodies (bare, or as `request` beside anything else), or objects
    with `prompt`, and perhaps `task`: a description, or an object of `Task`'s members.

    Args:
        file: Open for reading bytes.
        name: Its name, for messages; the ending tells the form, else its first character does.
        on_bad: Told each line that cannot be read.
        task: What holds for each prompt; its own `task` comes on top.
        model: Put in place of the model that a body names; None leaves it, `auto` where it names none.
        text_column: The CSV column that holds the prompt.

    Raises:
        LogError: the file is empty, or its header has no such column.
    """
    head = file.peek(_HEAD_BYTES).removeprefix(_BOM).lstrip()
    if not head:
        message = f"{name}: the file is empty"
        raise LogError(message)
    read = _Reader(task, model)
    form = form_of(name, head)
    if form == "csv":
        return _of_csv(file, name, on_bad, read, text_column)
    return _of_lines(file, on_bad, read.json if form == "jsonl" else read.text)


def form_of(name: str, head: bytes) -> Form:
    """Return what a file of this name and beginning is.

    Raises:
        LogError: one JSON array, which cannot be read line by line.
    """
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    form = _SUFFIXES.get(suffix) or ("jsonl" if head.startswith(b"{") else "txt")
    if form == "jsonl" and head.startswith(b"["):
        message = f"{name}: one JSON array; write one object a line: jq -c '.[]' {name}"
        raise LogError(message)
    return form


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns what a line holds into a prompt."""

    task: Task
    model: str | None

    def text(self, number: int, line: bytes) -> Prompt:
        """Read a line that is a prompt."""
        return self._of(number, line.decode("utf-8"), None)

    def json(self, number: int, line: bytes) -> Prompt:
        """Read a line that is a JSON object."""
        value = msgspec.json.decode(line)
        if not isinstance(value, dict):
            message = f"expected an object, got {type(value).__name__}"
            raise ValueError(message)  # noqa: TRY004 - the line's value is wrong, not a caller's type
        body = value.get("request", value)
        if isinstance(body, dict) and "messages" in body:
            task = value.get("task") if body is not value else None
            return Prompt(number, self._body(body), self._task(task))
        text = value.get("prompt", value.get("text"))
        if not isinstance(text, str):
            message = "expected messages, or prompt as a text"
            raise ValueError(message)  # noqa: TRY004 - as above
        return self._of(number, text, value.get("task"))

    def row(self, number: int, text: str | None, task: str | None) -> Prompt:
        """Read a row of a table."""
        text = text or ""
        text.encode()  # bytes that are no UTF-8 came in as lone surrogates
        return self._of(number, text, task or None)

    def _of(self, number: int, text: str, task: JSON) -> Prompt:
        if not text.strip():
            message = "the prompt is empty"
            raise ValueError(message)
        return Prompt(number, request_of(text.strip(), model=self.model or AUTO[0]), self._task(task))

    def _body(self, body: Mapping[str, Any]) -> Request:
        named: dict[str, Any] = {"model": AUTO[0], **body}
        if self.model is not None:
            named["model"] = self.model
        return Request.of(named)

    def _task(self, told: JSON) -> Task:
        if told is None:
            return self.task
        if isinstance(told, str):
            return replace(self.task, description=told)
        if isinstance(told, dict):
            unknown = [name for name in told if name not in _TASK_NAMES]
            if unknown:
                message = f"task: {unknown[0]!r} is not known; known: {', '.join(_TASK_NAMES)}"
                raise ValueError(message)
            return msgspec.convert({**asdict(self.task), **told}, Task)
        message = f"task: expected a text or an object, got {type(told).__name__}"
        raise ValueError(message)


def _fault(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return f"task: {error}"
    return f"not JSON: {error}" if isinstance(error, msgspec.DecodeError) else str(error)


_CELL_CHARS: Final = 2**26
_BAD: Final = (ValueError, RequestError, msgspec.DecodeError)


def _of_lines(file: BufferedReader, on_bad: OnBad, read: Callable[[int, bytes], Prompt]) -> Iterator[Prompt]:
    for number, line in enumerate(file, start=1):
        whole = line.removeprefix(_BOM) if number == 1 else line
        if not whole.strip():
            continue
        try:
            prompt = read(number, whole)
        except _BAD as error:
            on_bad(number, _fault(error))
        else:
            yield prompt


class _Lines:
    """A table's lines as text, counted: the parser does not count those it fails at.

    Bytes that are no UTF-8 pass as lone surrogates, so that they stop no other row.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._file).decode("utf-8", "surrogateescape")
        self.number += 1
        return line.removeprefix("\ufeff") if self.number == 1 else line


def _of_csv(
    file: BufferedReader, name: str, on_bad: OnBad, read: _Reader, text_column: str | None
) -> Iterator[Prompt]:
    lines = _Lines(file)
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARS))  # a prompt may be a whole book
    rows = csv.DictReader(lines)
    try:
        header = [*(rows.fieldnames or ())]
        ",".join(header).encode()
    except (csv.Error, UnicodeError):
        message = f"{name}: its first line is not the header of a CSV file in UTF-8"
        raise LogError(message) from None
    column = next((one for one in ((text_column,) if text_column else TEXT_COLUMNS) if one in header), None)
    if column is None:
        wanted = repr(text_column) if text_column else " or ".join(map(repr, TEXT_COLUMNS))
        message = f"{name}: no column {wanted}; it has {', '.join(header)}. Name one: --text-column NAME"
        raise LogError(message)
    return _of_rows(rows, lines, on_bad, read, column)


def _of_rows(
    rows: csv.DictReader[str], lines: _Lines, on_bad: OnBad, read: _Reader, column: str
) -> Iterator[Prompt]:
    while True:
        number = lines.number + 1
        try:
            row = next(rows)
            if None in row:
                message = "more cells than the header has"
                raise ValueError(message)
            prompt = read.row(number, row[column], row.get("task"))
        except StopIteration:
            return
        except (csv.Error, *_BAD) as error:
            on_bad(number, _fault(error))
        else:
            yield prompt
