"""What checks said, how that went, and what somebody who knows says of it, in SQL.

Each verdict is a row. What they add up to, by type of task and tier, is kept beside them as a `Rung`, for
it is asked for before every checked request, and fades: what a model did long ago says little of it now.
Feedback corrects both: `scored` pairs verdicts with it, and a rung's `accepted` follows it.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import msgspec

from leastwise.cascade import Calibration, Evidence, Rung, Trial
from leastwise.errors import StoreError
from leastwise.ladder import Verdict
from leastwise.ledger import Feedback, first_id, strongest
from leastwise.steps import Record
from leastwise.stores import Scored
from leastwise.stores.database import Connection, Database, insert

#: Answers after which a rung's sums are halved. The shares of 128 to 255 answers are known to 3 to 4.5
#: points, and what changes shows within as many; twice as many would be no more than a point better.
FADE_AT: Final = 256

RungKey = tuple[str, str, str]  # checks, type of task, tier

_VERDICT: Final = Verdict.__struct_fields__
_VERDICT_COLUMNS: Final = tuple(f'"{name}"' for name in _VERDICT)  # "check" is a word of SQL
_RUNG: Final = tuple(field.name for field in fields(Rung))
_FEEDBACK: Final = tuple(field.name for field in fields(Feedback))
_TRIAL: Final = tuple(field.name for field in fields(Trial))
_rung_values: Final = attrgetter(*_RUNG)
_feedback_values: Final = attrgetter(*_FEEDBACK)
_trial_values: Final = attrgetter(*_TRIAL)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Calibration).decode

_INSERT_VERDICT: Final = insert("verdict", ("exchange_id", "place", "checks", "accepted", *_VERDICT_COLUMNS))
_IS_FULL: Final = f"rung.checked + excluded.checked >= {FADE_AT}"
_LATER: Final = "CASE WHEN excluded.at < rung.at THEN rung.at ELSE excluded.at END"
_UPSERT_RUNG: Final = (
    f"{insert('rung', ('checks', 'task_type', 'tier', 'at', *_RUNG))} "
    f"ON CONFLICT (checks, task_type, tier) DO UPDATE SET at = {_LATER}, "
    f"halved_at = CASE WHEN {_IS_FULL} THEN {_LATER} ELSE rung.halved_at END, "
    + ", ".join(
        f"{name} = (rung.{name} + excluded.{name}) / CASE WHEN {_IS_FULL} THEN 2 ELSE 1 END" for name in _RUNG
    )
)
#: An answer from before the last halving weighs half or less by now, and is not corrected.
_CORRECT_RUNG: Final = (
    "UPDATE rung SET accepted = accepted + ? WHERE checks = ? AND task_type = ? AND tier = ? "
    "AND halved_at < ? AND accepted + ? BETWEEN 0 AND checked"
)
_UPSERT_FLOOR: Final = (
    f"{insert('floor', ('tenant', 'session', 'tier', 'at'))} ON CONFLICT (tenant, session) DO UPDATE SET "
    "tier = excluded.tier, at = excluded.at WHERE excluded.at >= floor.at"
)
_UPSERT_FEEDBACK: Final = (
    f"{insert('feedback', _FEEDBACK)} ON CONFLICT (exchange_id, tier, source) DO UPDATE SET "
    "ok = excluded.ok, at = excluded.at, note = excluded.note"
)
_UPSERT_CALIBRATION: Final = (
    f"{insert('calibration', ('stamp', 'task_type', 'at', 'value_json'))} "
    "ON CONFLICT (stamp, task_type) DO UPDATE SET at = excluded.at, value_json = excluded.value_json"
)
_INSERT_TRIAL: Final = insert("trial", _TRIAL)
_ASKED: Final = "SELECT at, task_type, tier, served FROM exchange WHERE id = ?"
_SAID: Final = f"SELECT {', '.join(_FEEDBACK)} FROM feedback WHERE exchange_id = ?"
_SAID_OF_ONE: Final = f"{_SAID} AND tier = ?"
_COUNTED: Final = (
    "SELECT checks, accepted FROM verdict WHERE exchange_id = ? AND tier = ? AND accepted IS NOT NULL"
)

# --- writing -----------------------------------------------------------------------------------------------


def add_verdicts(connection: Connection, step: Record) -> None:
    """Write what checks said of a request's answers, in order.

    The first of each answer that counts in the evidence also says whether it counts as accepted.
    """
    counted = {tier: int(rung.accepted > 0) for tier, rung in step.rungs.items() if rung.checked}
    connection.executemany(
        _INSERT_VERDICT,
        [
            (
                step.exchange.id,
                place,
                step.checks,
                None if one.is_control else counted.pop(one.tier, None),
                *_plain(msgspec.structs.astuple(one)),
            )
            for place, one in enumerate(step.verdicts)
        ],
    )


def _plain(values: Sequence[Any]) -> list[Any]:
    """Return values with numbers for booleans, which not all databases take for a number."""
    return [int(value) if isinstance(value, bool) else value for value in values]


def write_rungs(connection: Connection, rungs: Mapping[RungKey, tuple[float, Rung]]) -> None:
    """Add to the evidence, in the order of its keys, and let it fade."""
    rows = [(*key, at, *_rung_values(rung)) for key, (at, rung) in sorted(rungs.items())]
    connection.executemany(_UPSERT_RUNG, rows)


def raise_floor(connection: Connection, step: Record) -> None:
    """Note to which tier a session escalated; the request that began last counts."""
    row = step.exchange
    connection.execute(_UPSERT_FLOOR, (row.tenant, row.session, step.floor, row.at))


def add_feedback(connection: Connection, feedback: Sequence[Feedback]) -> None:
    """Note what was said of answers; where that changes whether one is accepted, its rung follows.

    Raises:
        StoreError: there is no such request.
    """
    connection.lock(one.exchange_id for one in feedback)
    shifts: Counter[tuple[RungKey, float]] = Counter()
    for one in feedback:
        row = connection.execute(_ASKED, (one.exchange_id,)).fetchone()
        if row is None:
            message = f"the ledger has no request {one.exchange_id!r}, or not yet, that feedback could be of"
            raise StoreError(message)
        at, task_type, tier, model = row
        said = replace(one, tier=one.tier or tier or model)
        for checks, by in _say(connection, said):
            shifts[(checks, task_type, said.tier), at] += by
    connection.executemany(_CORRECT_RUNG, [(by, *key, at, by) for (key, at), by in sorted(shifts.items())])


def _say(connection: Connection, said: Feedback) -> list[tuple[str, int]]:
    """Note one word; return the checks whose count of accepted answers it changes, and by how much.

    The word that counts is compared before and after, so that no answer is counted twice, in whatever order
    words come and however often.
    """
    answer = (said.exchange_id, said.tier)
    known = {one.source: one for one in _feedback(connection.execute(_SAID_OF_ONE, answer).fetchall())}
    if said.source in known and said.at < known[said.source].at:
        return []
    before, after = strongest(known.values()), strongest({**known, said.source: said}.values())
    connection.execute(_UPSERT_FEEDBACK, _plain(_feedback_values(said)))
    counted = connection.execute(_COUNTED, answer).fetchall()
    return [
        (checks, by)
        for checks, accepted in counted
        if (by := _word(after, accepted) - _word(before, accepted))
    ]


def _word(said: Feedback | None, accepted: int) -> int:
    """Return 1 where an answer is acceptable by what was said or, where nothing was, by the checks."""
    return accepted if said is None else int(said.ok)


def put_calibration(connection: Connection, calibration: Calibration, at: float) -> None:
    """Keep a calibration, replacing the one of its stamp and type."""
    value = _encode(calibration).decode()
    connection.execute(_UPSERT_CALIBRATION, (calibration.stamp, calibration.task_type, at, value))


def put_trial(connection: Connection, trial: Trial) -> None:
    """Keep a trial."""
    connection.execute(_INSERT_TRIAL, _trial_values(trial))


def prune(connection: Connection, requests_before: float, floors_before: float, most: int) -> None:
    """Delete what is said of older requests, of a bounded number, and evidence that nothing was added to."""
    for table in ("verdict", "feedback"):  # by their requests' ids, which sort by time
        connection.execute(
            f"DELETE FROM {table} WHERE exchange_id IN (SELECT exchange_id FROM {table} "
            "WHERE exchange_id < ? ORDER BY exchange_id LIMIT ?)",
            (first_id(requests_before), most),
        )
    connection.execute("DELETE FROM rung WHERE at < ?", (requests_before,))
    connection.execute("DELETE FROM floor WHERE at < ?", (floors_before,))


# --- reading -----------------------------------------------------------------------------------------------


def read(database: Database, checks: str) -> Evidence:
    """Return how these checks went lately, and what else is known of checks."""
    return Evidence(rungs(database, checks), calibrations(database), trials(database), controls(database))


def rungs(database: Database, checks: str) -> dict[tuple[str, str], Rung]:
    """Return how these checks went lately, by type of task and tier."""
    sql = f"SELECT task_type, tier, {', '.join(_RUNG)} FROM rung WHERE checks = ?"
    return {(task_type, tier): Rung(*sums) for task_type, tier, *sums in database.rows(sql, (checks,))}


def calibrations(database: Database) -> dict[tuple[str, str], Calibration]:
    """Return every calibration, by stamp and type of task."""
    rows = database.rows("SELECT stamp, task_type, value_json FROM calibration")
    return {(row[0], row[1]): _decode(row[2]) for row in rows}


def trials(database: Database) -> dict[tuple[str, str], Trial]:
    """Return the last trial of each tag and tier."""
    rows = database.rows(f"SELECT {', '.join(_TRIAL)} FROM trial ORDER BY at")
    return {(row[0], row[1]): Trial(*row) for row in rows}


def controls(database: Database) -> dict[str, tuple[int, int]]:
    """Return how many planted answers were judged and how many of them accepted, by stamp."""
    accepted = "SUM(CASE WHEN says = 'accept' THEN 1 ELSE 0 END)"
    sql = f"SELECT stamp, COUNT(*), {accepted} FROM verdict WHERE is_control = 1 GROUP BY stamp"
    return {stamp: (int(asked), int(passed)) for stamp, asked, passed in database.rows(sql)}


def floor(database: Database, tenant: str, session: str) -> tuple[float, str]:
    """Return when a session escalated last and to which tier; 0.0 and "" where it did not."""
    rows = database.rows("SELECT at, tier FROM floor WHERE tenant = ? AND session = ?", (tenant, session))
    return (rows[0][0], rows[0][1]) if rows else (0.0, "")


def verdicts(database: Database, exchange_id: str) -> tuple[Verdict, ...]:
    """Return what checks said of a request's answers, in order."""
    sql = f"SELECT {', '.join(_VERDICT_COLUMNS)} FROM verdict WHERE exchange_id = ? ORDER BY place"
    return tuple(_verdict(row) for row in database.rows(sql, (exchange_id,)))


def _verdict(row: Sequence[Any]) -> Verdict:
    return msgspec.convert(dict(zip(_VERDICT, row, strict=True)), Verdict, strict=False)


def feedback(database: Database, exchange_id: str) -> tuple[Feedback, ...]:
    """Return what was said of a request's answers, oldest first."""
    return tuple(_feedback(database.rows(f"{_SAID} ORDER BY at, tier, source", (exchange_id,))))


def _feedback(rows: Any) -> Iterator[Feedback]:
    for row in rows:
        yield msgspec.convert(dict(zip(_FEEDBACK, row, strict=True)), Feedback, strict=False)


def scored(database: Database, since: float) -> list[Scored]:
    """Return every verdict with a score since then, and what is known of its answer, oldest first."""
    words = {(said.exchange_id, said.tier): said.ok for _, said in _told(database, since)}
    columns = ", ".join(f"verdict.{name}" for name in _VERDICT_COLUMNS)
    sql = (
        f"SELECT exchange.id, exchange.at, exchange.tag, exchange.task_type, {columns} FROM exchange "
        "JOIN verdict ON verdict.exchange_id = exchange.id "
        "WHERE exchange.at >= ? AND verdict.score IS NOT NULL "
        "ORDER BY exchange.at, exchange.id, verdict.place"
    )
    return [_scored(row[:4], _verdict(row[4:]), words) for row in map(tuple, database.rows(sql, (since,)))]


def _scored(head: tuple[Any, ...], verdict: Verdict, words: Mapping[tuple[str, str], bool]) -> Scored:
    exchange_id, at, tag, task_type = head
    ok = False if verdict.is_control else words.get((exchange_id, verdict.tier))
    return Scored(exchange_id, at, tag, task_type, verdict, ok)


def quality(database: Database) -> dict[tuple[str, str], list[int]]:
    """Return checked, accepted, told and told_ok of answers, by type of task and tier: see `TypeLine`."""
    sql = (
        "SELECT exchange.task_type, verdict.tier, COUNT(*), CAST(SUM(verdict.accepted) AS BIGINT) "
        "FROM verdict JOIN exchange ON exchange.id = verdict.exchange_id "
        "WHERE verdict.accepted IS NOT NULL GROUP BY exchange.task_type, verdict.tier"
    )
    found = {(row[0], row[1]): [row[2], row[3], 0, 0] for row in database.rows(sql)}
    for task_type, said in _told(database, 0.0):
        sums = found.setdefault((task_type, said.tier), [0, 0, 0, 0])
        sums[2] += 1
        sums[3] += said.ok
    return {key: sums for key, sums in found.items() if all(key)}


def _told(database: Database, since: float) -> Iterator[tuple[str, Feedback]]:
    """Yield the types of the answers since then of which somebody spoke, and the word that counts of each."""
    columns = ", ".join(f"feedback.{name}" for name in _FEEDBACK)
    sql = (
        f"SELECT {columns}, exchange.task_type FROM feedback JOIN exchange "
        "ON exchange.id = feedback.exchange_id WHERE exchange.at >= ? "
        "ORDER BY feedback.exchange_id, feedback.tier"
    )
    rows = [tuple(row) for row in database.rows(sql, (since,))]
    told = zip(_feedback(row[:-1] for row in rows), (row[-1] for row in rows), strict=True)
    for _, words in groupby(told, lambda one: (one[0].exchange_id, one[0].tier)):
        types = dict(words)
        counts = strongest(types)
        assert counts is not None
        yield types[counts], counts
