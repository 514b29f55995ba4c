"""Rows of files: what is read, what is told and passed by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leastwise.errors import LogError
from leastwise.report.rows import number_in, rows, truth_in

Read = tuple[list[tuple[int, Any]], list[tuple[int, str]]]


def read(folder: Path, text: bytes, name: str = "labels.csv") -> Read:
    """Return the rows of a table with the columns id and ok, and what was told of the others."""
    told: list[tuple[int, str]] = []

    def make(line: int, cells: Mapping[str, Any]) -> tuple[int, Any]:
        return line, (cells["id"], truth_in(cells["ok"], "ok"))

    path = folder / name
    path.write_bytes(text)
    with path.open("rb") as file:
        found = list(rows(file, name, lambda line, fault: told.append((line, fault)), ("id", "ok"), make))
    return found, told


def test_a_table_may_be_csv_or_json_lines_by_any_name(tmp_path: Path) -> None:
    expected: Read = ([(2, ("a", True)), (3, ("b", False))], [])
    table = b"\xef\xbb\xbfid,note,ok\na,x,yes\nb,,bad\n"

    assert expected == read(tmp_path, table)
    assert expected == read(tmp_path, table, "labels")
    lines = b'\n{"id": "a", "ok": true}\n{"id": "b", "ok": 0}\n'
    assert expected == read(tmp_path, lines, "labels.jsonl")
    assert expected == read(tmp_path, lines, "labels")


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("labels.csv", b",1\n", "id missing"),
        ("labels.csv", b"x\n", "ok missing"),
        (
            "labels.csv",
            b"x,perhaps\n",
            "ok = 'perhaps': expected true or false, yes or no, 1 or 0, ok or bad",
        ),
        ("labels.csv", b"x,1,2\n", "more cells than the header has"),
        ("labels.jsonl", b"[1]\n", "expected an object, got list"),
        ("labels.jsonl", b"{\n", "not JSON: Input data was truncated"),
        ("labels.jsonl", b"{}\n", "id and ok missing"),
        ("labels.jsonl", b'{"id": "\xff", "ok": 1}\n', "not UTF-8"),
    ],
)
def test_a_wrong_row_is_told_and_stops_no_other(tmp_path: Path, name: str, line: bytes, fault: str) -> None:
    first, good = (
        (b"id,ok\n", b"a,1\n")
        if name == "labels.csv"
        else (b'{"id": "b", "ok": 1}\n', b'{"id": "a", "ok": "1.0"}\n')
    )

    found, told = read(tmp_path, first + line + good, name)

    assert (3, ("a", True)) == found[-1]
    assert [2] == [number for number, _ in told]
    assert told[0][1].startswith(fault)


@pytest.mark.parametrize("cell", [5, 5.0, "5e0", " 5 "])
def test_a_number_is_read(cell: object) -> None:
    assert 5.0 == number_in(cell, "score")


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("x", "'x'"),
        ("nan", "'nan'"),
        ("1e400", "'1e400'"),
        ([1], "[1]"),
        ({"a": 1}, "{'a': 1}"),
        (True, "True"),
        (10**400, f"1{'0' * 59}..."),
    ],
)
def test_what_is_no_number_is_refused_and_shown_in_short(cell: object, shown: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"score = {shown}: expected a finite number")):
        number_in(cell, "score")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "labels.csv: the file is empty"),
        (b"id,note\n", "labels.csv: no column 'ok'; it has id, note"),
        (b"id,\xff\n", "labels.csv: its first line is not the header of a CSV file in UTF-8"),
        (b"id,ok,ok\n", "labels.csv: 2 columns 'ok'; which of them counts?"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: bytes, fault: str) -> None:
    with pytest.raises(LogError, match=fault):
        read(tmp_path, text)
