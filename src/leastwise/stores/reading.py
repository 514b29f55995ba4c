"""Reading the ledger: what routing needs, single requests, sums over many, in SQL."""

# ruff: noqa: S608 - SQL is put together from the names of columns; values are always bound

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from leastwise.features import learn_correction
from leastwise.ledger import Charge, Entry, Exchange, StepDown, first_id
from leastwise.messages import Usage
from leastwise.routing import Warmth
from leastwise.stores import Line, Query, Story, TypeLine, evidence
from leastwise.stores.database import Database, Dialect
from leastwise.stores.writing import (
    ENTRY_COLUMNS,
    EXCHANGE_COLUMNS,
    HOUR_KEY,
    HOUR_S,
    STEP_DOWN_COLUMNS,
    SUMS,
    USAGE_COLUMNS,
    WARMTH_COLUMNS,
)

_DAY_S: Final = 24 * HOUR_S
_BASELINE_DAYS: Final = 14
_MOST_VALUES: Final = 512  # to a statement: some databases take no more than 999

_EXCHANGE: Final = ", ".join(f"exchange.{name}" for name in EXCHANGE_COLUMNS)
_ENTRY: Final = ", ".join(f"entry.{name}" for name in ENTRY_COLUMNS)
#: How a request is found: by its own id, by an upstream message's, by an upstream request's.
FIND_BY: Final = (
    f"SELECT {_EXCHANGE} FROM exchange WHERE id = ?",
    *(
        f"SELECT {_EXCHANGE} FROM entry JOIN exchange ON exchange.id = entry.exchange_id "
        f"WHERE entry.{column} = ? AND entry.{column} <> '' ORDER BY exchange.at DESC LIMIT 1"
        for column in ("message_id", "request_id")
    ),
)
_WARMTHS: Final = f"SELECT {', '.join(WARMTH_COLUMNS)} FROM warmth WHERE tenant = ? AND session = ?"
_LINE: Final = ", ".join(f"CAST(COALESCE(SUM({name}), 0) AS BIGINT)" for name in SUMS)


def pins(database: Database, tool_use_ids: Sequence[str]) -> dict[str, str]:
    """Return which model made these tool calls."""
    sql = "SELECT tool_use_id, model FROM pin WHERE tool_use_id IN "
    return {row[0]: row[1] for row in _rows_in(database, sql, tool_use_ids)}


def opinion(database: Database, ask_key: str) -> str:
    """Return what a small model took an ask for, or ""."""
    rows = database.rows("SELECT kind FROM opinion WHERE ask_key = ?", (ask_key,))
    return str(rows[0][0]) if rows else ""


def warmths(database: Database, tenant: str, session: str) -> dict[str, Warmth]:
    """Return what a session has in prompt caches, by model."""
    return {row[0]: Warmth(*row) for row in database.rows(_WARMTHS, (tenant, session))}


def usual_model(database: Database, tag: str, now: float) -> str | None:
    """Return the model that a tag's traffic asked for most, by itself."""
    rows = database.rows(
        "SELECT asked FROM hourly WHERE tag = ? AND hour >= ? AND mode NOT IN ('auto', 'trial') "
        "AND result = 'ok' GROUP BY asked ORDER BY SUM(calls) DESC, asked LIMIT 1",
        (tag, int(now - _BASELINE_DAYS * _DAY_S) // HOUR_S),
    )
    return str(rows[0][0]) if rows else None


def corrections(database: Database) -> dict[str, float]:
    """Return real over estimated tokens, by tokenizer."""
    rows = database.rows("SELECT tokenizer, estimated, actual FROM ratio")
    return {row[0]: learn_correction(row[1], row[2]) for row in rows}


def find(database: Database, any_id: str) -> Story | None:
    """Return the request with this exchange id, `msg_...` or `request-id`."""
    rows = next(filter(None, (database.rows(sql, (any_id,)) for sql in FIND_BY)), None)
    if not rows:
        return None
    exchange = Exchange(**dict(zip(EXCHANGE_COLUMNS, rows[0], strict=True)))
    sql = f"SELECT {_ENTRY} FROM entry WHERE exchange_id = ? ORDER BY asked_at, id"
    return Story(
        exchange,
        tuple(_entries(database, sql, (exchange.id,))),
        evidence.verdicts(database, exchange.id),
        evidence.feedback(database, exchange.id),
    )


def entry(database: Database, id_: str) -> Entry | None:
    """Return the attempt with this id."""
    return next(iter(_entries(database, f"SELECT {_ENTRY} FROM entry WHERE id = ?", (id_,))), None)


def lost(database: Database) -> list[Entry]:
    """Return entries whose cost nobody knows, oldest first."""
    return _entries(database, f"SELECT {_ENTRY} FROM entry WHERE certainty = 'lost' ORDER BY asked_at, id")


def entries_of(database: Database, account: str, since: float) -> list[Entry]:
    """Return the entries that an account paid for since then, oldest first."""
    sql = (
        f"SELECT DISTINCT {_ENTRY} FROM charge JOIN entry ON entry.id = charge.entry_id "
        "WHERE charge.entry_id >= ? AND charge.budget_id = ? AND charge.nusd <> 0 "
        "ORDER BY entry.asked_at, entry.id"
    )
    return _entries(database, sql, (first_id(since), account))


def _entries(database: Database, sql: str, values: Sequence[object] = ()) -> list[Entry]:
    rows = [tuple(row) for row in database.rows(sql, values)]
    paid: dict[str, list[Charge]] = {}
    charges = "SELECT entry_id, budget_id, window_key, nusd FROM charge WHERE entry_id IN "
    for row in _rows_in(database, charges, [row[0] for row in rows]):
        paid.setdefault(row[0], []).append(Charge(row[1], row[2], row[3]))
    return [_entry_of(row, paid.get(row[0], ())) for row in rows]


def _entry_of(row: tuple[Any, ...], charges: Iterable[Charge]) -> Entry:
    values = dict(zip(ENTRY_COLUMNS, row, strict=True))
    usage = Usage(**{name: values.pop(name) for name in USAGE_COLUMNS})
    ordered = sorted(charges, key=lambda charge: (charge.budget_id, charge.window_key))
    return Entry(**values, usage=usage, charges=tuple(ordered))


def _rows_in(database: Database, sql: str, values: Sequence[str]) -> Iterator[Any]:
    """Yield the rows of a query that ends in `IN` these values.

    The last is repeated up to a power of two, so that there are few different statements to prepare.
    """
    for start in range(0, len(values), _MOST_VALUES):
        some = list(values[start : start + _MOST_VALUES])
        some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
        yield from database.rows(f"{sql}({', '.join('?' * len(some))})", some)


def charged(database: Database, since: float | None) -> dict[tuple[str, str], int]:
    """Return what the charges add up to, by account and window; of entries since then, if given."""
    sql = (
        "SELECT budget_id, window_key, CAST(SUM(nusd) AS BIGINT) FROM charge WHERE entry_id >= ? "
        "GROUP BY budget_id, window_key"
    )
    rows = database.rows(sql, ("" if since is None else first_id(since),))
    return {(row[0], row[1]): row[2] for row in rows}


def step_downs(database: Database, limit: int) -> list[tuple[float, str, StepDown]]:
    """Return when, in which request and how budgets made requests cheaper; the newest first."""
    sql = f"SELECT {', '.join(STEP_DOWN_COLUMNS)} FROM step_down ORDER BY at DESC, exchange_id DESC LIMIT ?"
    return [(at, id_, StepDown(*rest)) for at, id_, *rest in database.rows(sql, (limit,))]


def types(database: Database) -> list[TypeLine]:
    """Return calls, money and quality by type of task and tier."""
    sql = (
        "SELECT task_type, tier, COUNT(*), CAST(SUM(spent_nusd) AS BIGINT) FROM exchange "
        "WHERE result = 'ok' AND task_type <> '' AND tier <> '' GROUP BY task_type, tier"
    )
    paid = {(row[0], row[1]): (row[2], row[3]) for row in database.rows(sql)}
    quality = evidence.quality(database)
    return [TypeLine(*key, *paid.get(key, (0, 0)), *quality.get(key, ())) for key in {**paid, **quality}]


def misfits(database: Database, since: float) -> dict[tuple[str, str], int]:
    """Return how many requests were refused although they were taken to fit, by model and member."""
    sql = (
        "SELECT misfit, misfit_field, COUNT(*) FROM exchange "
        "WHERE at >= ? AND misfit <> '' GROUP BY misfit, misfit_field"
    )
    return {(row[0], row[1]): row[2] for row in database.rows(sql, (since,))}


def sums(database: Database, dialect: Dialect, query: Query) -> list[Line]:
    """Return sums by group, dearest baseline first."""
    where, values = _where(query, "hour", HOUR_S)
    groups = [_group(name, f"hour * {HOUR_S}", dialect) for name in query.by]
    columns = ", ".join([*groups, _LINE])
    grouped = f" GROUP BY {', '.join(groups)}" if groups else ""
    sql = f"SELECT {columns} FROM hourly{where}{grouped} ORDER BY SUM(baseline_nusd) DESC, SUM(calls) DESC"
    width = len(groups)
    return [
        Line(tuple(str(value) for value in row[:width]), *row[width:])
        for row in map(tuple, database.rows(sql, values))
        if row[width] or groups
    ]


def latencies(
    database: Database, dialect: Dialect, query: Query
) -> dict[tuple[str, ...], tuple[float, float]]:
    """Return p50 and p95 seconds by group, of answered requests."""
    where, values = _where(query, "at", 1)
    columns = ", ".join([*(_group(name, "at", dialect) for name in query.by), "latency_s"])
    answered = "result = 'ok' AND kind = 'message'"  # a batch takes hours
    ok = f" AND {answered}" if where else f" WHERE {answered}"
    seconds: dict[tuple[str, ...], list[float]] = {}
    for row in database.rows(f"SELECT {columns} FROM exchange{where}{ok}", values):
        *group, latency_s = tuple(row)
        seconds.setdefault(tuple(str(value) for value in group), []).append(latency_s)
    return {group: (_quantile(found, 0.50), _quantile(found, 0.95)) for group, found in seconds.items()}


def _group(name: str, seconds: str, dialect: Dialect) -> str:
    """Return the SQL of one of `GROUPS`, where `seconds` is the SQL of a time."""
    if name in HOUR_KEY[1:]:
        return name
    return (dialect.day if name == "day" else dialect.hour).format(seconds)


def _where(query: Query, column: str, unit_s: int) -> tuple[str, list[object]]:
    """Return the conditions as SQL, on a column that counts in units of `unit_s` seconds."""
    conditions: list[tuple[str, object]] = []
    if query.since is not None:
        conditions.append((f"{column} >= ?", query.since if unit_s == 1 else math.ceil(query.since / unit_s)))
    if query.until is not None:
        conditions.append((f"{column} < ?", query.until if unit_s == 1 else math.ceil(query.until / unit_s)))
    if query.tag is not None:
        conditions.append(("tag = ?", query.tag))
    text = " AND ".join(condition for condition, _ in conditions)
    return (f" WHERE {text}" if text else "", [value for _, value in conditions])


def _quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
