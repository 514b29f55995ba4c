"""What each model did with each task, and what that cost: a table that a policy can be tried on.

One row a task, and for each model M of it `M|score` (0 to 1), `M|cost_usd`, and what checks said of its
answer, such as `M|gate` or `M|judge`, 0 to 1. A row counts only where every model of the pool has a score
and a cost: all policies are compared on the same tasks. A check that said nothing of an answer abstains.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from math import inf, isnan
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import msgspec

from leastwise.errors import LogError

TRAIN, TEST = "train", "test"

SCORE, COST = "score", "cost_usd"
#: Columns of a model that are checks, where no other is named.
CHECKS: Final = ("gate", "judge")
_KINDS: Final = ("benchmark", "subset")
_FEW: Final = 12  # names shown in a message
_MOST_USD: Final = 1e9  # no answer costs as much, and sums of them stay finite
_SHOWN: Final = 60  # characters of a cell in a message
_EXPECTED: Final = (
    "Expected is one row a task with id, and for each model M the columns M|score (0 to 1) and M|cost_usd; "
    "benchmark, subset, fold (train or test) and checks such as M|gate (0 to 1) may be beside them"
)

Column = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Scores and costs of several models on the same tasks.

    Attributes:
        name: Of the file.
        models: Cheap to dear, by mean cost.
        scores: By model: how good each row's answer is, 0 to 1.
        costs: By model: what each row's answer cost, in dollars.
        kinds: Each row's type of task, `benchmark/subset`; "" where the table has neither.
        folds: Each row's part, `train` or `test`; empty where the table does not say.
        checks: By check, then model: what it said of each row's answer, 0 to 1, None where it said nothing.
        left_out: Rows that do not count, because a model has no score or no cost there.
    """

    name: str
    models: tuple[str, ...]
    scores: Mapping[str, Sequence[float]]
    costs: Mapping[str, Sequence[float]]
    kinds: tuple[str, ...]
    folds: tuple[str, ...] = ()
    checks: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.kinds)


def read_outcomes(path: Path, models: Collection[str] = ("*",), checks: Collection[str] = CHECKS) -> Outcomes:
    """Read a table of outcomes.

    Args:
        path: Parquet, CSV, or JSON lines.
        models: Patterns of the names of the models that may be chosen from, such as `claude-*`.
        checks: Names of the checks to read, where the table has them.

    Raises:
        LogError: the file cannot be read, or what it holds is not such a table; says where and the mend.
    """
    wanted = frozenset((SCORE, COST, *checks))
    columns = _columns(path, lambda name: _is_read(name, wanted))
    rows = len(columns.get("id", ()))
    if not rows:
        message = f"{path}: there is no row, or no column id. {_EXPECTED}"
        raise LogError(message)
    pool = _pool(path, columns, models)
    numbers = {
        name: _numbers(path, name, columns[name], _MOST_USD if name.endswith(COST) else 1)
        for name in columns
        if _parts(name)[0] in pool
    }
    needed = {name: numbers[name] for model in pool for name in (f"{model}|{SCORE}", f"{model}|{COST}")}
    kept = [row for row in range(rows) if all(column[row] is not None for column in needed.values())]
    if not kept:
        worst = max(needed, key=lambda name: needed[name].count(None))
        message = (
            f"{path}: no row has a score and a cost of every model; {worst} has none in "
            f"{needed[worst].count(None):,} of {rows:,} rows: choose from fewer models, --models PATTERN"
        )
        raise LogError(message)
    whole: dict[str, tuple[Any, ...]] = {
        name: tuple(column[row] for row in kept) for name, column in numbers.items()
    }
    return Outcomes(
        name=path.name,
        models=tuple(sorted(pool, key=lambda model: (fmean(whole[f"{model}|{COST}"]), model))),
        scores={model: whole[f"{model}|{SCORE}"] for model in pool},
        costs={model: whole[f"{model}|{COST}"] for model in pool},
        kinds=tuple(_kind(columns, row) for row in kept),
        folds=_folds(path, columns, kept),
        checks=_checks(whole),
        left_out=rows - len(kept),
    )


# --- the file ----------------------------------------------------------------------------------------


def _columns(path: Path, is_read: Callable[[str], bool]) -> Mapping[str, Column]:
    """Return the columns whose name `is_read`, by name, all of one length."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _of_parquet(path, is_read)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_of_csv(path, file) if suffix == ".csv" else _of_lines(path, file))
    except OSError as error:
        message = f"{path}: {error.strerror or error}; check the path, and who may read it"
        raise LogError(message) from None
    except UnicodeDecodeError:
        message = f"{path}: not UTF-8; outcomes are read from .parquet, .csv and .jsonl"
        raise LogError(message) from None
    names = dict.fromkeys(name for row in rows for name in row if is_read(name))
    return {name: [row.get(name) for row in rows] for name in names}


def _is_read(name: str, wanted: Collection[str]) -> bool:
    model, what = _parts(name)
    return what in wanted if model else name in ("id", "fold", *_KINDS)


def _parts(name: str) -> tuple[str, str]:
    """Return the model of a column and what it says; no model where it is not of one."""
    model, _, what = name.rpartition("|")
    return model, what


def _of_parquet(path: Path, is_read: Callable[[str], bool]) -> Mapping[str, Column]:
    try:
        read = import_module("leastwise.evaluate.parquet").read_columns
    except ModuleNotFoundError as error:
        if str(error.name).startswith("leastwise"):
            raise
        message = f'{path}: reading parquet needs an extra: pip install "leastwise[parquet]"'
        raise LogError(message) from error
    found: Mapping[str, Column] = read(path, is_read)
    return found


def _of_csv(path: Path, lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**26))  # a prompt may be a whole book
    reader = csv.DictReader(lines)
    try:
        for name in reader.fieldnames or ():
            if (reader.fieldnames or ()).count(name) > 1:
                message = f"{path}: two columns {name!r}; which of them counts?"
                raise LogError(message)
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                message = f"{path}: row {number} has more or fewer cells than the header"
                raise LogError(message)
            yield row
    except csv.Error as error:
        message = f"{path}: line {reader.line_num}: {error}"
        raise LogError(message) from None


def _of_lines(path: Path, lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            message = f"{path}: line {number} is no JSON object: {error}. Outcomes are read from .parquet, "
            message += ".csv, and .jsonl with one object a line"
            raise LogError(message) from None


# --- what it holds -----------------------------------------------------------------------------------


def _pool(path: Path, columns: Mapping[str, Column], patterns: Collection[str]) -> list[str]:
    """Return the models to choose from; each has a score and a cost."""
    known = [model for model, what in map(_parts, columns) if model and what == SCORE]
    if not known:
        message = f"{path}: no column ends in |{SCORE}; there are {_named(columns)}. {_EXPECTED}"
        raise LogError(message)
    pool = [model for model in known if any(fnmatchcase(model, pattern) for pattern in patterns)]
    if len(pool) <= 1:
        message = (
            f"{path}: {' '.join(patterns)} leaves {_named(pool) or 'no model'}: there is nothing to choose "
            f"between. It has {_named(known)}"
        )
        raise LogError(message)
    for model in pool:
        if f"{model}|{COST}" not in columns:
            message = (
                f"{path}: there is no column {model}|{COST}; add it, in dollars, or leave the model out: "
                "--models PATTERN"
            )
            raise LogError(message)
    return pool


def _named(names: Iterable[str]) -> str:
    *found, more = [*names, ""][: _FEW + 1]
    return ", ".join(found) + (" ..." if more else "")


def _numbers(path: Path, name: str, column: Column, most: float) -> list[float | None]:
    """Return a column as numbers, None where it has none.

    Raises:
        LogError: a cell is no number, or not from 0 to `most`.
    """
    found: list[float | None] = []
    for row, cell in enumerate(column, 1):
        try:
            number = float(cell) if cell is not None and cell != "" else None
        except (TypeError, ValueError, OverflowError):
            number = inf
        if number is not None and isnan(number):
            number = None
        if number is not None and not 0 <= number <= most:
            span = "a number from 0 to 1" if most == 1 else f"dollars, from 0 to {most:,.0f}"
            message = f"{path}: row {row}: {name} is {f'{cell!r}'[:_SHOWN]}; expected {span}, or nothing"
            raise LogError(message)
        found.append(number)
    return found


def _kind(columns: Mapping[str, Column], row: int) -> str:
    names = (columns[name][row] for name in _KINDS if name in columns)
    return "/".join(str(name) for name in names if name)


def _folds(path: Path, columns: Mapping[str, Column], kept: Sequence[int]) -> tuple[str, ...]:
    if "fold" not in columns:
        return ()
    folds = tuple(columns["fold"][row] for row in kept)
    for row, fold in zip(kept, folds, strict=True):
        if fold not in (TRAIN, TEST):
            message = (
                f"{path}: row {row + 1}: fold is {fold!r}; expected {TRAIN} or {TEST}, or no such column"
            )
            raise LogError(message)
    if len(set(folds)) == 1:
        message = f"{path}: every fold is {folds[0]}; both parts are needed, or no such column"
        raise LogError(message)
    return folds


def _checks(numbers: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Sequence[float | None]]]:
    found: dict[str, dict[str, Sequence[float | None]]] = {}
    for name, column in numbers.items():
        model, what = _parts(name)
        if what not in (SCORE, COST):
            found.setdefault(what, {})[model] = column
    return found
