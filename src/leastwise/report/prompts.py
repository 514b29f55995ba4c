"""Prompts in a file, read line by line: JSON lines, CSV, or one prompt a line.

A line that cannot be read is told by its number, and the rest is read on. Nothing is
kept: a file of any length passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from io import BufferedReader
from typing import Any, Final

import msgspec

from leastwise.errors import LogError
from leastwise.ladder import AUTO, Task
from leastwise.messages import JSON, Request
from leastwise.report.files import OnBad
from leastwise.report.rows import form_of, object_in, of_csv, of_lines

#: What a prompt without a cap of its own is taken to allow.
MAX_TOKENS: Final = 4096
#: Columns that hold the prompt where none is named.
TEXT_COLUMNS: Final = ("text", "prompt")

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
    read = _Reader(task, model)
    form = form_of(file, name)
    if form == "csv":
        return of_csv(file, name, on_bad, partial(_of_header, name, read, text_column))
    return of_lines(file, on_bad, read.json if form == "jsonl" else read.text)


def _of_header(
    name: str, read: _Reader, text_column: str | None, header: Sequence[str]
) -> Callable[[int, Mapping[str, Any]], Prompt]:
    """Return what reads the rows of a table with this header."""
    column = next((one for one in ((text_column,) if text_column else TEXT_COLUMNS) if one in header), None)
    if column is None:
        wanted = repr(text_column) if text_column else " or ".join(map(repr, TEXT_COLUMNS))
        message = f"{name}: no column {wanted}; it has {', '.join(header)}. Name one: --text-column NAME"
        raise LogError(message)
    return lambda number, row: read.row(number, row[column], row.get("task"))


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
        value = object_in(line)
        body = value.get("request", value)
        if isinstance(body, dict) and "messages" in body:
            task = value.get("task") if body is not value else None
            return Prompt(number, self._body(body), self._task(task))
        text = value.get("prompt", value.get("text"))
        if not isinstance(text, str):
            message = "expected messages, or prompt as a text"
            raise ValueError(message)  # noqa: TRY004 - the line's value is wrong, not a caller's type
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
            try:
                return msgspec.convert({**asdict(self.task), **told}, Task)
            except msgspec.ValidationError as error:
                message = f"task: {error}"
                raise ValueError(message) from None
        message = f"task: expected a text or an object, got {type(told).__name__}"
        raise ValueError(message)
