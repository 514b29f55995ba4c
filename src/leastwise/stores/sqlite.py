"""The ledger in one SQLite file: three tables, hourly roll-ups, pins, prompt caches and token ratios.

A row and its roll-up are one transaction. Writers try at once; where somebody else
is writing and the caller must not wait (an event loop, the garbage collector), the
row goes to an outbox that one thread empties, many rows to a transaction.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

import json
import logging
import math
import queue
import sqlite3
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal

from leastwise.errors import StoreError
from leastwise.features import learn_correction
from leastwise.ledger import Charge, Entry, Exchange, first_id
from leastwise.messages import Usage
from leastwise.routing import Known, Warmth
from leastwise.sqlite import BusyError, Database, StuckError, at_fork
from leastwise.steps import Lease, Record, Settle
from leastwise.stores import Line, Query, Story, TypeLine

_log: Final = logging.getLogger(__name__)

_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_BATCH: Final = 128  # some 4 ms, which is how long a read may have to wait
_MOST_WAITING: Final = 10_000  # rows kept while the file is locked, some 20 MB
_LAST_WAIT_S: Final = 15.0  # for the writer to end: longer than it waits for a locked file
_PRUNE_EVERY_S: Final = 60.0
_CHECKPOINT_EVERY: Final = 200  # transactions: some 6 MB of log
_PRUNE_ROWS: Final = 1000
_PINS_IN_MEMORY: Final = 10_000
_MEMORY_S: Final = 1.0  # how long a shared fact may be served from memory
_BASELINE_DAYS: Final = 14
_PIN_DAYS: Final = 2
_OPINION_DAYS: Final = 28  # longer than a pin

_MIGRATIONS: Final = (
    """
CREATE TABLE exchange (
  id TEXT PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, session TEXT NOT NULL,
  tag TEXT NOT NULL, kind TEXT NOT NULL, mode TEXT NOT NULL, asked TEXT NOT NULL, served TEXT NOT NULL,
  tier TEXT NOT NULL, upstream TEXT NOT NULL, would TEXT NOT NULL, result TEXT NOT NULL,
  status INTEGER NOT NULL,
  decision_json TEXT NOT NULL, policy_hash TEXT NOT NULL, baseline TEXT NOT NULL, baseline_how TEXT NOT NULL,
  baseline_nusd INTEGER NOT NULL, spent_nusd INTEGER NOT NULL, discarded_nusd INTEGER NOT NULL,
  saved_nusd INTEGER NOT NULL, could_nusd INTEGER NOT NULL, arm TEXT NOT NULL, complexity TEXT NOT NULL,
  task_type TEXT NOT NULL, certainty TEXT NOT NULL, latency_s REAL NOT NULL,
  fault TEXT NOT NULL, misfit TEXT NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX exchange_at ON exchange (at);
CREATE TABLE entry (
  id TEXT PRIMARY KEY, exchange_id TEXT NOT NULL, parent TEXT NOT NULL, purpose TEXT NOT NULL,
  provider TEXT NOT NULL, model TEXT NOT NULL, asked_at REAL NOT NULL, status INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
  cache_write_5m_tokens INTEGER NOT NULL, cache_write_1h_tokens INTEGER NOT NULL,
  thinking_tokens INTEGER NOT NULL, web_search_requests INTEGER NOT NULL, service_tier TEXT NOT NULL,
  speed TEXT NOT NULL, inference_geo TEXT NOT NULL, price_row TEXT NOT NULL, cost_nusd INTEGER NOT NULL,
  worst_nusd INTEGER NOT NULL, certainty TEXT NOT NULL, message_id TEXT NOT NULL, request_id TEXT NOT NULL)
  WITHOUT ROWID;
CREATE INDEX entry_exchange ON entry (exchange_id);
CREATE INDEX entry_message ON entry (message_id) WHERE message_id <> '';
CREATE INDEX entry_request ON entry (request_id) WHERE request_id <> '';
CREATE TABLE charge (
  entry_id TEXT NOT NULL, budget_id TEXT NOT NULL, window_key TEXT NOT NULL, nusd INTEGER NOT NULL,
  PRIMARY KEY (entry_id, budget_id, window_key)) WITHOUT ROWID;
CREATE INDEX charge_window ON charge (budget_id, window_key);
CREATE TABLE hourly (
  hour INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, tag TEXT NOT NULL, mode TEXT NOT NULL,
  asked TEXT NOT NULL, served TEXT NOT NULL, tier TEXT NOT NULL, result TEXT NOT NULL,
  calls INTEGER NOT NULL, moved INTEGER NOT NULL, could_move INTEGER NOT NULL, failed INTEGER NOT NULL,
  estimated INTEGER NOT NULL, faults INTEGER NOT NULL,
  spent_nusd INTEGER NOT NULL, baseline_nusd INTEGER NOT NULL,
  saved_nusd INTEGER NOT NULL, could_nusd INTEGER NOT NULL, discarded_nusd INTEGER NOT NULL,
  assumed_nusd INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  PRIMARY KEY (hour, tenant, key, tag, mode, asked, served, tier, result)) WITHOUT ROWID;
CREATE INDEX hourly_tag ON hourly (tag, hour);
CREATE TABLE pin (tool_use_id TEXT PRIMARY KEY, model TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX pin_at ON pin (at);
CREATE TABLE ratio (tokenizer TEXT PRIMARY KEY, estimated INTEGER NOT NULL, actual INTEGER NOT NULL)
""",
    """
CREATE TABLE warmth (
  tenant TEXT NOT NULL, session TEXT NOT NULL, model TEXT NOT NULL, at REAL NOT NULL,
  prefix_tokens INTEGER NOT NULL, hour_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  turns INTEGER NOT NULL,
  PRIMARY KEY (tenant, session, model)) WITHOUT ROWID;
CREATE INDEX warmth_at ON warmth (at);
ALTER TABLE exchange ADD COLUMN misfit_field TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange ADD COLUMN lost_cache_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN lost_cache_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exchange ADD COLUMN checks_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN checks_nusd INTEGER NOT NULL DEFAULT 0;
CREATE TABLE opinion (ask_key TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX opinion_at ON opinion (at)
""",
)

_SUMS: Final = tuple(field.name for field in fields(Line) if field.name != "group")
_GROUPS: Final = {
    **{name: name for name in ("tenant", "key", "tag", "mode", "asked", "served", "tier", "result")},
    "hour": f"strftime('%Y-%m-%dT%H:00Z', hour * {_HOUR_S}, 'unixepoch')",
    "day": f"date(hour * {_HOUR_S}, 'unixepoch')",
}
_ENTRY_HEAD: Final = ("id", "exchange_id", "parent", "purpose", "provider", "model", "asked_at", "status")
_USAGE_COLUMNS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_search_requests",
    "service_tier",
    "speed",
    "inference_geo",
)
_ENTRY_TAIL: Final = ("price_row", "cost_nusd", "worst_nusd", "certainty", "message_id", "request_id")
_EXCHANGE_COLUMNS: Final = tuple(field.name for field in fields(Exchange))
_exchange_values: Final = attrgetter(*_EXCHANGE_COLUMNS)
_entry_values: Final = attrgetter(*_ENTRY_HEAD, *(f"usage.{name}" for name in _USAGE_COLUMNS), *_ENTRY_TAIL)
# Not "OR IGNORE", which would leave out a row with a missing value, too, without a word.
_INSERT_EXCHANGE: Final = (
    f"INSERT INTO exchange ({', '.join(_EXCHANGE_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_EXCHANGE_COLUMNS))}) ON CONFLICT (id) DO NOTHING"
)
_INSERT_ENTRY: Final = f"INSERT INTO entry VALUES ({', '.join('?' * 24)}) ON CONFLICT (id) DO NOTHING"
_HOUR_KEY: Final = ("hour", "tenant", "key", "tag", "mode", "asked", "served", "tier", "result")
_UPSERT_HOUR: Final = (
    f"INSERT INTO hourly ({', '.join((*_HOUR_KEY, *_SUMS))}) "
    f"VALUES ({', '.join('?' * (len(_HOUR_KEY) + len(_SUMS)))}) "
    f"ON CONFLICT ({', '.join(_HOUR_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
_WARMTH_COLUMNS: Final = tuple(field.name for field in fields(Warmth))
_warmth_values: Final = attrgetter(*_WARMTH_COLUMNS)
_UPSERT_WARMTH: Final = (
    f"INSERT INTO warmth (tenant, session, {', '.join(_WARMTH_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (2 + len(_WARMTH_COLUMNS)))}) "
    "ON CONFLICT (tenant, session, model) DO UPDATE SET at = MAX(at, excluded.at), "
    "prefix_tokens = CASE WHEN excluded.at < at THEN prefix_tokens ELSE excluded.prefix_tokens END, "
    "hour_tokens = CASE WHEN excluded.at < at THEN hour_tokens ELSE excluded.hour_tokens END, "
    "output_tokens = output_tokens + excluded.output_tokens, turns = turns + excluded.turns"
)
_SELECT_WARMTH: Final = f"SELECT {', '.join(_WARMTH_COLUMNS)} FROM warmth WHERE tenant = ? AND session = ?"
_FIND_BY: Final = (
    "SELECT * FROM exchange WHERE id = ?",
    *(
        "SELECT exchange.* FROM entry JOIN exchange ON exchange.id = entry.exchange_id "
        f"WHERE entry.{column} = ? AND entry.{column} <> '' ORDER BY at DESC LIMIT 1"
        for column in ("message_id", "request_id")
    ),
)

_Job = Callable[[sqlite3.Connection], None]


class SqliteStore:
    """A `Store` in one SQLite file, shared by the processes of one host.

    Args:
        path: The file, or `:memory:`.
        keep_days: Requests older than this are deleted; roll-ups stay.
        durability: See `Database`.
        clock: Seconds since the epoch.

    Raises:
        StoreError: the file cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keep_days: int = 400,
        durability: Literal["process", "power"] = "process",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = Database(path, _MIGRATIONS, durability=durability)
        self._keep_s = keep_days * _DAY_S
        self._clock = clock
        self._written = 0
        self._pruned_at = 0.0
        self._pins: OrderedDict[str, str] = OrderedDict()
        self._warmths: OrderedDict[tuple[str, str], dict[str, Warmth]] = OrderedDict()
        self._facts: dict[str, tuple[float, Any]] = {}
        self._outbox = _Outbox(self.database)
        weakref.finalize(self, self._outbox.close)

    def known(
        self,
        tag: str,
        tool_use_ids: Sequence[str],
        now: float,
        *,
        tenant: str = "local",
        session: str = "",
        ask_key: str = "",
    ) -> Known:
        """Return what routing needs; facts that change slowly come from memory for a second."""
        self._outbox.start()
        remembered = ((id_, self._pins.get(id_)) for id_ in tool_use_ids)
        pins = {id_: model for id_, model in remembered if model is not None}
        missing = [id_ for id_ in tool_use_ids if id_ not in pins]
        if missing:
            sql = "SELECT tool_use_id, model FROM pin WHERE tool_use_id IN (SELECT value FROM json_each(?))"
            pins |= {
                row["tool_use_id"]: row["model"] for row in self.database.rows(sql, (json.dumps(missing),))
            }
        return Known(
            pins=pins,
            baseline=self._remembered(f"baseline {tag}", now, lambda: self._usual_model(tag, now))
            if tag
            else None,
            corrections=self._remembered("ratios", now, self._ratios),
            opinion=self._opinion(ask_key) if ask_key else "",
            warmths=self._session_warmths(tenant, session) if session else {},
        )

    def _opinion(self, ask_key: str) -> str:
        rows = self.database.rows("SELECT kind FROM opinion WHERE ask_key = ?", (ask_key,))
        return str(rows[0]["kind"]) if rows else ""

    def _session_warmths(self, tenant: str, session: str) -> dict[str, Warmth]:
        """Return the session's caches: rows, but what this process knows better where its rows still wait.

        Of two states of one cache the one used last is the later, then the one with more turns.
        """
        found = {row["model"]: Warmth(*row) for row in self.database.rows(_SELECT_WARMTH, (tenant, session))}
        for model, mine in self._warmths.get((tenant, session), {}).items():
            theirs = found.get(model)
            if theirs is None or (theirs.at, theirs.turns) < (mine.at, mine.turns):
                found[model] = mine
        if found:
            self._keep_warmths((tenant, session), found)
        return found

    def _keep_warmths(self, key: tuple[str, str], warmths: dict[str, Warmth]) -> None:
        self._warmths.pop(key, None)  # to its end; `move_to_end` fails where another thread dropped it
        self._warmths[key] = warmths
        while len(self._warmths) > _PINS_IN_MEMORY:
            self._warmths.popitem(last=False)

    def _remembered(self, name: str, now: float, read: Callable[[], Any]) -> Any:
        until, value = self._facts.get(name, (0.0, None))
        if not until - _MEMORY_S <= now < until:
            if len(self._facts) > _PINS_IN_MEMORY:  # tags come from callers: bound what they can fill
                self._facts.clear()
            value = read()
            self._facts[name] = (now + _MEMORY_S, value)
        return value

    def _usual_model(self, tag: str, now: float) -> str | None:
        rows = self.database.rows(
            "SELECT asked FROM hourly WHERE tag = ? AND hour >= ? AND mode <> 'auto' AND result = 'ok' "
            "GROUP BY asked ORDER BY SUM(calls) DESC, asked LIMIT 1",
            (tag, int(now - _BASELINE_DAYS * _DAY_S) // _HOUR_S),
        )
        return str(rows[0]["asked"]) if rows else None

    def _ratios(self) -> dict[str, float]:
        return {
            row["tokenizer"]: learn_correction(row["estimated"], row["actual"])
            for row in self.database.rows("SELECT * FROM ratio")
        }

    def lease(self, lease: Lease) -> None:
        """Do nothing: without a budget nothing is reserved."""

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write `steps` in one transaction, or post them when the file is busy and we may not wait."""
        self._outbox.start()
        for step in steps:
            self._remember(step)
        try:
            with self.database.transaction(may_wait=may_wait) as connection:
                for step in steps:
                    _apply(step, connection)
        except BusyError:
            for step in steps:
                self.post(step)
        self._prune()
        self._written += 1
        if self._written % _CHECKPOINT_EVERY == 0:
            self._outbox.checkpoint()

    def _remember(self, step: Settle | Record) -> None:
        if not isinstance(step, Record):
            return
        self._pins.update(dict.fromkeys(step.tool_use_ids, step.made_by))
        while len(self._pins) > _PINS_IN_MEMORY:
            self._pins.popitem(last=False)
        if step.warmth is not None:
            key = (step.exchange.tenant, step.exchange.session)
            known = self._warmths.get(key, {})
            before = known.get(step.warmth.model)
            mine = step.warmth if before is None else before.followed_by(step.warmth)
            self._keep_warmths(key, {**known, mine.model: mine})

    def _prune(self) -> None:
        """Post the removal of what is past its time, now and then."""
        now = self._clock()
        if now - self._pruned_at >= _PRUNE_EVERY_S:
            self._pruned_at = now
            self._outbox.put(partial(_prune, now - self._keep_s, now - _PIN_DAYS * _DAY_S))

    def post(self, step: Settle | Record) -> None:
        """Write `step` soon."""
        self._outbox.put(partial(_apply, step))

    def flush(self) -> None:
        """Return once everything posted so far is written, or found not to be writable and logged.

        Raises:
            StoreError: another process keeps the file locked.
        """
        self._outbox.flush()

    def types(self) -> list[TypeLine]:
        """Return calls and money by type of task and tier, from the requests still kept."""
        self.flush()
        sql = (
            "SELECT task_type, tier, COUNT(*), SUM(spent_nusd) FROM exchange "
            "WHERE result = 'ok' AND task_type <> '' AND tier <> '' GROUP BY task_type, tier"
        )
        return [TypeLine(*row) for row in self.database.rows(sql)]

    def misfits(self, since: float) -> dict[tuple[str, str], int]:
        """Return how many requests were refused although they were taken to fit, by model and member."""
        self.flush()
        sql = (
            "SELECT misfit, misfit_field, COUNT(*) AS n FROM exchange "
            "WHERE at >= ? AND misfit <> '' GROUP BY misfit, misfit_field"
        )
        rows = self.database.rows(sql, (since,))
        return {(row["misfit"], row["misfit_field"]): row["n"] for row in rows}

    def close(self) -> None:
        """Write what is posted, stop the writer, close the file."""
        self._outbox.close()

    def find(self, any_id: str) -> Story | None:
        """Return the request with this exchange id, `msg_...` or `request-id`."""
        self.flush()
        rows = next(filter(None, (self.database.rows(sql, (any_id,)) for sql in _FIND_BY)), None)
        if not rows:
            return None
        exchange = Exchange(**dict(rows[0]))
        entries = self.database.rows(
            "SELECT * FROM entry WHERE exchange_id = ? ORDER BY asked_at, id", (exchange.id,)
        )
        return Story(exchange, tuple(self._entry_of(row) for row in entries))

    def _entry_of(self, row: sqlite3.Row) -> Entry:
        values = dict(row)
        usage = Usage(**{name: values.pop(name) for name in _USAGE_COLUMNS})
        paid = self.database.rows(
            "SELECT budget_id, window_key, nusd FROM charge WHERE entry_id = ?", (row["id"],)
        )
        return Entry(**values, usage=usage, charges=tuple(Charge(*charge) for charge in paid))

    def sums(self, query: Query) -> list[Line]:
        """Return sums by group, dearest baseline first."""
        self.flush()
        where, values = _where(query, "hour", _HOUR_S)
        groups = [_GROUPS[name] for name in query.by]
        columns = ", ".join([*groups, *(f"COALESCE(SUM({name}), 0)" for name in _SUMS)])
        grouped = f" GROUP BY {', '.join(groups)}" if groups else ""
        sql = (
            f"SELECT {columns} FROM hourly{where}{grouped} ORDER BY SUM(baseline_nusd) DESC, SUM(calls) DESC"
        )
        width = len(groups)
        return [
            Line(tuple(str(value) for value in row[:width]), *row[width:])
            for row in map(tuple, self.database.rows(sql, values))
            if row[width] or groups
        ]

    def latencies(self, query: Query) -> dict[tuple[str, ...], tuple[float, float]]:
        """Return p50 and p95 seconds by group, of answered requests."""
        self.flush()
        where, values = _where(query, "at", 1)
        groups = [_GROUPS[name].replace(f"hour * {_HOUR_S}", "at") for name in query.by]
        columns = ", ".join([*groups, "latency_s"])
        ok = " AND result = 'ok'" if where else " WHERE result = 'ok'"
        seconds: dict[tuple[str, ...], list[float]] = {}
        for row in self.database.rows(f"SELECT {columns} FROM exchange{where}{ok}", values):
            *group, latency_s = tuple(row)
            seconds.setdefault(tuple(str(value) for value in group), []).append(latency_s)
        return {group: (_quantile(found, 0.50), _quantile(found, 0.95)) for group, found in seconds.items()}


class _Outbox:
    """Jobs waiting for their transaction, and the one thread of this process that does them.

    `put` uses `SimpleQueue`, the one queue whose `put` may run inside the garbage collector.
    After a fork what was waiting is the parent's to write, and the child begins anew.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._queue: queue.SimpleQueue[_Job | threading.Event | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_checkpoint_due = False

    def start(self) -> None:
        """Have the writer running, unless the system has no thread left to give."""
        if self._thread is None or not self._thread.is_alive():
            with self._starting, suppress(RuntimeError):
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._serve, name="leastwise-ledger", daemon=True)
                    thread.start()
                    self._thread = thread

    def put(self, job: _Job) -> None:
        """Queue `job`."""
        self._queue.put(job)

    def checkpoint(self) -> None:
        """Have the writer keep the write-ahead log short."""
        self._is_checkpoint_due = True
        self._queue.put(_nothing)

    def flush(self) -> None:
        """Return once all that was queued before this call is done.

        Raises:
            StoreError: it takes too long, for another process keeps the file locked.
        """
        self.start()
        if self._thread is None or not self._thread.is_alive():
            self._do(self._waiting())
            return
        done = threading.Event()
        self._queue.put(done)
        if not done.wait(_LAST_WAIT_S):
            message = (
                f"rows wait to be written to the ledger {self._database.path!r}: another process locks it"
            )
            raise StoreError(message)

    def close(self) -> None:
        """Do what is queued, stop the writer and close the file.

        Also the store's finalizer, which may run in any thread, under any lock: the writer
        itself only notes that it is to end, and nobody waits for it for ever.
        """
        thread = self._thread
        if thread is not None:
            self._is_closing = True
            self._queue.put(None)
            if thread is threading.current_thread():
                return
            thread.join(_LAST_WAIT_S)
            self._thread = None
        self._do(self._waiting())
        self._is_closing = False
        self._database.close()

    def _serve(self) -> None:
        """Do what comes, many jobs to a transaction, until None comes."""
        items: list[_Job | threading.Event | None] = []
        while None not in items:
            items = [self._queue.get(), *self._waiting(_BATCH)]
            self._do([item for item in items if item is not _nothing])
            if self._is_checkpoint_due:
                self._is_checkpoint_due = False
                self._database.checkpoint()

    def _waiting(self, most: int = sys.maxsize) -> list[_Job | threading.Event | None]:
        """Take up to `most` items that are there now."""
        items: list[_Job | threading.Event | None] = []
        with suppress(queue.Empty):
            while len(items) < most:
                items.append(self._queue.get_nowait())
        return items

    def _do(self, items: list[_Job | threading.Event | None]) -> None:
        """Do these jobs in one transaction or, when that fails, one by one, and say which events are done.

        The request has long been answered: what cannot be recorded is said, and the writer lives on.
        """
        jobs = [item for item in items if callable(item)]
        error = self._try(jobs) if jobs else None
        if isinstance(error, StuckError):
            items += self._waiting()  # so that nothing piles up without end
            errors: list[Exception] = [error for item in items if callable(item)]
        elif error is not None:  # one bad row must not take others with it
            errors = [error for error in (self._try([job]) for job in jobs) if error is not None]
        else:
            errors = []
        if errors:
            path = self._database.path
            _log.error("%d ledger rows were not written to %s", len(errors), path, exc_info=errors[-1])
        for item in items:
            if isinstance(item, threading.Event):
                item.set()

    def _try(self, jobs: Sequence[_Job]) -> Exception | None:
        """Do these jobs in one transaction, however long it takes to get it; return what prevented it."""
        while True:
            try:
                with self._database.transaction() as connection:
                    for job in jobs:
                        job(connection)
            except StuckError as error:
                if self._is_closing or self._queue.qsize() > _MOST_WAITING:
                    return error
                _log.warning("%s: %d ledger rows wait", error, len(jobs) + self._queue.qsize())
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a row, the writer lives on
                return error
            else:
                return None


def _nothing(_: sqlite3.Connection) -> None:
    """Wake the writer."""


def _apply(step: Settle | Record, connection: sqlite3.Connection) -> None:
    """Write one step; the second time it comes it changes nothing.

    Raises:
        StoreError: a value that SQLite cannot hold.
    """
    try:
        if isinstance(step, Settle):
            _settle(step.entry, connection)
        else:
            _record(step, connection)
    except (OverflowError, UnicodeEncodeError) as error:
        message = f"a ledger row holds what cannot be stored: {error}"
        raise StoreError(message) from error


def _settle(entry: Entry, connection: sqlite3.Connection) -> None:
    if connection.execute(_INSERT_ENTRY, _entry_values(entry)).rowcount and entry.charges:
        connection.executemany(
            "INSERT INTO charge VALUES (?, ?, ?, ?)",
            [(entry.id, charge.budget_id, charge.window_key, charge.nusd) for charge in entry.charges],
        )


def _record(step: Record, connection: sqlite3.Connection) -> None:
    row = step.exchange
    if not connection.execute(_INSERT_EXCHANGE, _exchange_values(row)).rowcount:
        return
    connection.execute(_UPSERT_HOUR, _hour_values(row))
    if step.tool_use_ids:
        connection.executemany(
            "INSERT OR REPLACE INTO pin VALUES (?, ?, ?)",
            [(id_, step.made_by, row.at) for id_ in step.tool_use_ids],
        )
    if step.opinion:
        kept = (step.ask_key, step.opinion, row.at)
        connection.execute("INSERT OR REPLACE INTO opinion VALUES (?, ?, ?)", kept)
    if step.warmth is not None:
        connection.execute(_UPSERT_WARMTH, (row.tenant, row.session, *_warmth_values(step.warmth)))
    if step.measured is not None:
        connection.execute(
            "INSERT INTO ratio VALUES (?, ?, ?) ON CONFLICT (tokenizer) DO UPDATE SET "
            "estimated = estimated + excluded.estimated, actual = actual + excluded.actual",
            (step.measured.tokenizer, step.measured.estimated, step.measured.actual),
        )


def _prune(requests_before: float, pins_before: float, connection: sqlite3.Connection) -> None:
    """Delete what is older, a bounded number of rows at a time; roll-ups stay."""
    connection.execute(
        "DELETE FROM exchange WHERE id IN (SELECT id FROM exchange WHERE at < ? ORDER BY at LIMIT ?)",
        (requests_before, _PRUNE_ROWS),
    )
    # By their own ids, which sort by time: a process that was killed left entries without an exchange.
    old = connection.execute(
        "SELECT id FROM entry WHERE id < ? ORDER BY id LIMIT ?", (first_id(requests_before), _PRUNE_ROWS)
    ).fetchall()
    connection.executemany("DELETE FROM charge WHERE entry_id = ?", old)
    connection.executemany("DELETE FROM entry WHERE id = ?", old)
    connection.execute("DELETE FROM pin WHERE at < ?", (pins_before,))
    connection.execute("DELETE FROM warmth WHERE at < ?", (pins_before,))
    connection.execute("DELETE FROM opinion WHERE at < ?", (pins_before - _OPINION_DAYS * _DAY_S,))


def _hour_values(row: Exchange) -> tuple[object, ...]:
    """Return the roll-up's key and this row's share of each sum, in the order of the table."""
    key = (
        int(row.at) // _HOUR_S,
        row.tenant,
        row.key,
        row.tag,
        row.mode,
        row.asked,
        row.served,
        row.tier,
        row.result,
    )
    sums = {
        "calls": 1,
        "moved": int(row.served not in ("", row.baseline)),
        "could_move": int(row.would not in ("", row.asked)),
        "failed": int(row.result == "error"),
        "estimated": int(row.certainty == "estimated"),
        "faults": int(row.fault != ""),
        "spent_nusd": row.spent_nusd,
        "baseline_nusd": row.baseline_nusd,
        "saved_nusd": row.saved_nusd,
        "could_nusd": row.could_nusd,
        "discarded_nusd": row.discarded_nusd,
        "lost_cache_nusd": row.lost_cache_nusd,
        "checks_nusd": row.checks_nusd,
        "assumed_nusd": row.baseline_nusd if row.baseline_how == "assumed" else 0,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
    }
    return (*key, *(sums[name] for name in _SUMS))


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
