"""Rows of a file, JSON lines or CSV, read one by one.

A row that cannot be read is told by its number, and the rest is read on. Nothing is kept: a file of any
length passes through.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from math import isfinite, nan
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

from leastwise.errors import LogError, RequestError
from leastwise.report.files import OnBad

T = TypeVar("T")

Form = Literal["jsonl", "csv", "txt"]
#: Makes something of a row, told the number of the line it begins on; ValueError says what is wrong.
Make = Callable[[int, Mapping[str, Any]], T]

_BOM: Final = b"\xef\xbb\xbf"
_SUFFIXES: Final[Mapping[str, Form]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".txt": "txt",
}
_HEAD_BYTES: Final = 4096
_CELL_CHARS: Final = 2**26
_SHOWN: Final = 60  # characters of a cell in a message
_BAD: Final = (ValueError, RequestError, msgspec.DecodeError)
_YES: Final = frozenset({"true", "yes", "1", "1.0", "ok"})
_NO: Final = frozenset({"false", "no", "0", "0.0", "bad"})


def form_of(file: BufferedReader, name: str) -> Form:
    """Return what a file is, by the ending of its name, else by how it begins.

    Raises:
        LogError: it is empty, or one JSON array, which cannot be read line by line.
    """
    head = file.peek(_HEAD_BYTES).removeprefix(_BOM).lstrip()
    if not head:
        message = f"{name}: the file is empty"
        raise LogError(message)
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    form = _SUFFIXES.get(suffix) or ("jsonl" if head.startswith(b"{") else "txt")
    if form == "jsonl" and head.startswith(b"["):
        message = f"{name}: one JSON array; write one object a line: jq -c '.[]' {name}"
        raise LogError(message)
    return form


def rows(file: BufferedReader, name: str, on_bad: OnBad, needed: Sequence[str], make: Make[T]) -> Iterator[T]:
    """Yield what `make` makes of each row of a table, JSON objects or CSV with a header.

    Args:
        file: Open for reading bytes.
        name: Its name, for messages and for its form.
        on_bad: Told each row that cannot be read, and why.
        needed: Columns that must be there.
        make: Makes something of a row; cells of CSV are text.

    Raises:
        LogError: the file is empty, or is no such table.
    """

    def checked(number: int, row: Mapping[str, Any]) -> T:
        missing = [column for column in needed if row.get(column) in (None, "")]
        if missing:
            message = f"{' and '.join(missing)} missing"
            raise ValueError(message)
        return make(number, row)

    def choose(header: Sequence[str]) -> Make[T]:
        for column in needed:
            if header.count(column) > 1:
                message = f"{name}: {header.count(column)} columns {column!r}; which of them counts?"
                raise LogError(message)
            if column not in header:
                message = f"{name}: no column {column!r}; it has {', '.join(header)}"
                raise LogError(message)
        return checked

    if form_of(file, name) == "jsonl":
        return of_lines(file, on_bad, lambda number, line: checked(number, object_in(line)))
    return of_csv(file, name, on_bad, choose)


def object_in(line: bytes) -> dict[str, Any]:
    """Return the JSON object that a line holds.

    Raises:
        ValueError: it holds none.
    """
    value = msgspec.json.decode(line)
    if not isinstance(value, dict):
        message = f"expected an object, got {type(value).__name__}"
        raise ValueError(message)  # noqa: TRY004 - the line's value is wrong, not a caller's type
    return value


def truth_in(cell: object, column: str) -> bool:
    """Return whether a cell says yes.

    Raises:
        ValueError: it says neither.
    """
    told = str(cell).strip().lower()
    if told not in _YES | _NO:
        message = f"{column} = {_quoted(cell)}: expected true or false, yes or no, 1 or 0, ok or bad"
        raise ValueError(message)
    return told in _YES


def number_in(cell: object, column: str) -> float:
    """Return the number that a cell holds.

    Raises:
        ValueError: it holds none, or one that is not finite.
    """
    try:
        told = float(cell) if isinstance(cell, str | int | float) and not isinstance(cell, bool) else nan
    except (ValueError, OverflowError):
        told = nan
    if not isfinite(told):
        message = f"{column} = {_quoted(cell)}: expected a finite number"
        raise ValueError(message)
    return told


def _quoted(cell: object) -> str:
    shown = repr(cell)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _fault(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return f"not JSON: {error}" if isinstance(error, msgspec.DecodeError) else str(error)


def of_lines(file: BufferedReader, on_bad: OnBad, make: Callable[[int, bytes], T]) -> Iterator[T]:
    """Yield what `make` makes of each line that is not empty."""
    for number, line in enumerate(file, start=1):
        whole = line.removeprefix(_BOM) if number == 1 else line
        if not whole.strip():
            continue
        try:
            made = make(number, whole)
        except _BAD as error:
            on_bad(number, _fault(error))
        else:
            yield made


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


def of_csv(
    file: BufferedReader, name: str, on_bad: OnBad, choose: Callable[[Sequence[str]], Make[T]]
) -> Iterator[T]:
    """Yield what is made of each row of a CSV file.

    Args:
        file: Open for reading bytes.
        name: Its name, for messages.
        on_bad: Told each row that cannot be read, and why.
        choose: Returns what makes something of the rows that have this header.

    Raises:
        LogError: it has no header.
    """
    lines = _Lines(file)
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARS))  # a prompt may be a whole book
    table = csv.DictReader(lines)
    try:
        header = [*(table.fieldnames or ())]
        ",".join(header).encode()
    except (csv.Error, UnicodeError):
        message = f"{name}: its first line is not the header of a CSV file in UTF-8"
        raise LogError(message) from None
    return _of_rows(table, lines, on_bad, choose(header))


def _of_rows(table: csv.DictReader[str], lines: _Lines, on_bad: OnBad, make: Make[T]) -> Iterator[T]:
    while True:
        number = lines.number + 1
        try:
            row = next(table)
            if None in row:
                message = "more cells than the header has"
                raise ValueError(message)
            made = make(number, row)
        except StopIteration:
            return
        except (csv.Error, *_BAD) as error:
            on_bad(number, _fault(error))
        else:
            yield made
