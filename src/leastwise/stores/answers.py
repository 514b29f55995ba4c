"""Answers kept in a SQLite file of their own, with a small copy of the hot ones in memory.

A look-up reads memory, else one row. What is kept, and how often it was given again, waits for one
thread that writes it, many rows to a transaction: nobody waits for the disk, and what is lost with a
killed process is worth one call. Only who is to *ask* for an answer is written at once, as a *flight*:
one row for each key that somebody asks for, so that identical requests of all processes cost one call.
A flight shows every few seconds that its process lives; one that stops, or that takes longer than any
call does, is taken over.

The file is not the ledger's: see docs/decisions/0009-answers-in-a-file-of-their-own.md.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

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
from dataclasses import dataclass, fields
from itertools import count
from operator import attrgetter
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from leastwise.cache import Found, Stored
from leastwise.errors import StoreError
from leastwise.sqlite import BusyError, Database, StuckError, at_fork
from leastwise.stores import CacheStats

_log: Final = logging.getLogger(__name__)

_MB: Final = 1_000_000
_ROW_BYTES: Final = 700  # what a row takes beside its body: names, indexes, half-empty pages
_FRONT_BYTES: Final = 16 * _MB
_TRUST_S: Final = 1.0  # how long a copy is given without asking the row: `clear` elsewhere is seen then
_MOST_HITS: Final = 10_000  # that wait, by key
_TICK_S: Final = 5.0  # how often hits are written, and flights say that they live
_DEAD_S: Final = 20.0  # four ticks
_FREE_S: Final = 60.0
_MOST_FREED: Final = 1000
_LONGEST_FLIGHT_S: Final = 900.0  # longer than any call
_PRUNE_EVERY_S: Final = 60.0
_PRUNE_ROWS: Final = 1000
_BATCH: Final = 256  # some 6 ms, which is how long a read may have to wait
_CHECKPOINT_EVERY: Final = 50  # batches
_MOST_WAITING_BYTES: Final = 32 * _MB
_LAST_WAIT_S: Final = 15.0  # for the writer to end: longer than it waits for a locked file
_PAUSES_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002)  # while others write; an event loop may wait
_PATIENCE_S: Final = 2.0
_LONGEST_STALL_S: Final = 0.05  # for who saves faster than the file takes it

_MIGRATIONS: Final = (
    """
CREATE TABLE answer (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, at REAL NOT NULL, hits INTEGER NOT NULL,
  used REAL NOT NULL, size INTEGER NOT NULL, is_stream INTEGER NOT NULL, model TEXT NOT NULL,
  tier TEXT NOT NULL, upstream TEXT NOT NULL, exchange TEXT NOT NULL, request_id TEXT NOT NULL,
  tag TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX answer_at ON answer (at);
CREATE INDEX answer_used ON answer (used, size, hits);
CREATE TABLE held (bytes INTEGER NOT NULL);
INSERT INTO held VALUES (0);
CREATE TRIGGER kept AFTER INSERT ON answer BEGIN UPDATE held SET bytes = bytes + new.size; END;
CREATE TRIGGER grown AFTER UPDATE OF size ON answer
  BEGIN UPDATE held SET bytes = bytes + new.size - old.size; END;
CREATE TRIGGER gone AFTER DELETE ON answer BEGIN UPDATE held SET bytes = bytes - old.size; END;
CREATE TABLE flight (
  key TEXT PRIMARY KEY, owner TEXT NOT NULL, number INTEGER NOT NULL, began REAL NOT NULL,
  until REAL NOT NULL) WITHOUT ROWID
""",
)
_FACTS: Final = tuple(field.name for field in fields(Stored))
_facts: Final = attrgetter(*_FACTS)
_COLUMNS: Final = ", ".join(_FACTS)
_SELECT: Final = f"SELECT {_COLUMNS} FROM answer WHERE key = ?"
_SAVED: Final = ("key", "used", "size", *_FACTS)
_UPSERT: Final = (
    f"INSERT INTO answer ({', '.join(_SAVED)}) VALUES ({', '.join('?' * len(_SAVED))}) "
    "ON CONFLICT (key) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _SAVED[1:])
)
_HIT: Final = "UPDATE answer SET hits = hits + ?, used = MAX(used, ?) WHERE key = ?"
_EVERYBODY: Final = ""  # owns a flight whose answer is not kept
_LAND: Final = "DELETE FROM flight WHERE key = ? AND number = ? AND owner = ?"
_FREE: Final = "UPDATE flight SET owner = '', until = ? WHERE key = ? AND number = ? AND owner = ?"
_FLIGHT: Final = "SELECT owner, began, until FROM flight WHERE key = ?"
_TAGGED: Final = " WHERE tag = ?"
_LAST_CHARACTER: Final = chr(sys.maxunicode)


@dataclass(frozen=True, slots=True)
class _Flight:
    """What this process is asking for."""

    number: int
    began: float


#: A row in memory: what a look-up answers, from when until when, and its size.
_Copy = tuple[Found, float, float, int]
#: What waits to be written: the key of a saved answer, or a flight that landed: its key, its number, and
#: until when everybody may ask.
_Landed = tuple[str, int, float | None]
_Item = str | _Landed


class SqliteCache:
    """A `CacheStore` in one SQLite file, shared by the processes of one host.

    Args:
        path: The file, or `:memory:`.
        ttl_s: How long an answer may be given again, in seconds.
        max_mb: How much is kept, in megabytes; what was not used for longest goes first.
        clock: Seconds since the epoch.

    Raises:
        StoreError: the file cannot be used.
    """

    is_near = True

    def __init__(
        self,
        path: str | Path,
        *,
        ttl_s: float = 86_400,
        max_mb: float = 512,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = Database(path, _MIGRATIONS, what="cache")
        self._ttl_s = ttl_s
        self._most_bytes = int(max_mb * _MB)
        self._clock = clock
        self._writer = _Writer(self.database, ttl_s, self._most_bytes, clock)
        self._begin()
        at_fork(after_in_child=self._begin)
        weakref.finalize(self, self._writer.close)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # an answer may be saved inside the garbage collector
        self._front: OrderedDict[str, _Copy] = OrderedDict()
        self._front_bytes = 0
        self._refusals: tuple[float, float] | None = None  # the first and the last since a claim was written

    def look_up(self, key: str, *, leads: bool) -> Found:
        """Return the answer under `key` if it is fresh; else, with `leads`, whether this caller is to ask.

        Raises:
            StoreError: the file cannot be read, or for seconds not be written.
        """
        now, writer = self._clock(), self._writer
        copy = self._front.get(key)
        if copy is not None and copy[1] <= now < copy[2]:
            writer.hit(key, now)
            return copy[0]
        found = self._waiting(key, now) if key in writer.waiting else None
        if found is None:
            if leads and key in writer.flights and writer.is_asking(key, now):
                return Found()
            row = self.database.row(_SELECT, (key,))
            found = self._fresh(key, row, now) if row is not None else None
        if found is not None:
            writer.hit(key, now)
            return found
        if not leads:
            return Found()
        return Found(is_leading=True) if writer.is_free(key, now) else self._claim(key, now)

    def _waiting(self, key: str, now: float) -> Found | None:
        """Return an answer that is kept but not written yet."""
        stored = self._writer.waiting.get(key)
        return Found(stored) if stored is not None and now < stored.at + self._ttl_s else None

    def _fresh(self, key: str, row: Sequence[Any], now: float) -> Found | None:
        """Return a row's answer for the caller if it is fresh, and remember it."""
        stored = _stored(row)
        if now >= stored.at + self._ttl_s:
            return None
        found = Found(stored)
        self._remember(key, found, stored, now)
        return found

    def _remember(self, key: str, found: Found, stored: Stored, now: float) -> None:
        size = len(stored.body) + _ROW_BYTES
        until = min(now + _TRUST_S, stored.at + self._ttl_s)
        with self._lock:
            before = self._front.pop(key, None)
            self._front[key] = (found, now, until, size)
            self._front_bytes += size if before is None else size - before[3]
            while self._front_bytes > _FRONT_BYTES:
                self._front_bytes -= self._front.popitem(last=False)[1][3]

    def _claim(self, key: str, now: float) -> Found:
        """Answer who is to ask: exactly one caller in this process, and one process of those on the file."""
        flight = self._writer.take_off(key, now)
        if flight is None:
            return Found()
        is_mine = False
        try:
            found = self._waiting(key, now)  # whoever led may just have saved
            if found is None:
                found, is_mine = self._written_claim(key, flight)
        finally:
            if not is_mine:
                self._writer.flights.pop(key, None)
        if found.stored is not None:
            self._writer.hit(key, now)
        return found

    def _written_claim(self, key: str, flight: _Flight) -> tuple[Found, bool]:
        """Return what the caller is to be told, and whether the flight is now written as this process's."""
        now = flight.began
        if self._is_elsewhere(self.database.rows(_FLIGHT, (key,)), now):
            return Found(), False
        for pause_s in _PAUSES_S:
            try:
                with self.database.transaction(may_wait=False) as connection:
                    found, is_mine = self._claimed(connection, key, flight)
            except BusyError:
                time.sleep(pause_s)
            else:
                self._refusals = None
                return found, is_mine
        self._refused()
        return Found(), False  # look again: somebody else is writing

    def _claimed(self, connection: sqlite3.Connection, key: str, flight: _Flight) -> tuple[Found, bool]:
        now = flight.began
        row = connection.execute(_SELECT, (key,)).fetchone()
        found = self._fresh(key, row, now) if row else None
        if found is not None:
            return found, False
        for owner, began, until in connection.execute(_FLIGHT, (key,)).fetchall():
            if owner != self._writer.owner and _flies(began, until, now):
                return Found(is_leading=owner == _EVERYBODY), False
        values = (key, self._writer.owner, flight.number, now, now + _DEAD_S)
        connection.execute("INSERT OR REPLACE INTO flight VALUES (?, ?, ?, ?, ?)", values)
        return Found(is_leading=True), True

    def _is_elsewhere(self, rows: Sequence[sqlite3.Row], now: float) -> bool:
        """Tell whether another process asks for it; only looking keeps out of the way of those who write."""
        return any(
            owner not in (self._writer.owner, _EVERYBODY) and _flies(began, until, now)
            for owner, began, until in rows
        )

    def _refused(self) -> None:
        """Note that others kept the file to themselves.

        Raises:
            StuckError: they have for seconds; the caller is to ask without us.
        """
        now = time.monotonic()
        first, last = self._refusals or (now, now)
        if now - last > _PATIENCE_S:  # nobody asked in between
            first = now
        self._refusals = (first, now)
        if now - first > _PATIENCE_S:
            message = f"the cache {self.database.path!r} was locked by another process for seconds"
            raise StuckError(message)

    def save(self, key: str, stored: Stored) -> None:
        """Keep an answer, replacing what was there, and end the lead; it is written soon.

        Raises:
            StoreError: its texts cannot be stored.
        """
        may_keep = False
        try:
            _check(stored)
            may_keep = len(stored.body) + _ROW_BYTES <= self._most_bytes
            if may_keep:
                self._writer.save(key, stored)
                self._remember(key, Found(stored), stored, self._clock())
        finally:
            self.land(key, frees=not may_keep)

    def land(self, key: str, *, frees: bool = False) -> None:
        """End the lead without an answer; with `frees` all who look within a minute lead.

        Blocks nowhere, and may be called by the garbage collector.
        """
        self._writer.land(key, frees=frees)

    def entries(self, *, tag: str | None = None, limit: int = 100) -> list[tuple[str, Stored]]:
        """Return kept answers with their keys, last used first; only of a tag, when given."""
        self._writer.flush()
        where, values = (_TAGGED, (tag, limit)) if tag is not None else ("", (limit,))
        sql = f"SELECT key, {_COLUMNS} FROM answer{where} ORDER BY used DESC, id DESC LIMIT ?"
        return [(key, _stored(values)) for key, *values in self.database.rows(sql, values)]

    def get(self, key: str) -> Stored | None:
        """Return the one answer whose key begins so, fresh or not; None where there are none or several."""
        self._writer.flush()
        sql = f"SELECT {_COLUMNS} FROM answer WHERE key >= ? AND key < ? LIMIT 2"
        rows = self.database.rows(sql, (key, key + _LAST_CHARACTER))
        return _stored(rows[0]) if len(rows) == 1 else None

    def stats(self) -> CacheStats:
        """Return what is kept."""
        self._writer.flush()
        sql = "SELECT COUNT(*), (SELECT bytes FROM held), COALESCE(SUM(hits), 0) FROM answer"
        return CacheStats(*self.database.rows(sql)[0])

    def clear(self, *, tag: str | None = None) -> int:
        """Forget all answers, or those of a tag, and give their space back; return how many."""
        self._writer.flush()
        where, values = (_TAGGED, (tag,)) if tag is not None else ("", ())
        with self.database.transaction() as connection:
            cleared = connection.execute(f"DELETE FROM answer{where}", values).rowcount
        with self._lock:
            self._front.clear()
            self._front_bytes = 0
        if cleared:
            with suppress(StoreError):  # somebody reads: what is free is used again
                self.database.rows("VACUUM")
                self.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        return cleared

    def prune(self) -> int:
        """Forget what is past its time or over the size; return how many."""
        self._writer.flush()
        with self.database.transaction() as connection:
            now = self._clock()
            return _prune(connection, now, now - self._ttl_s) + _evict(connection, self._most_bytes)

    def close(self) -> None:
        """Write what is waiting and close; using the cache again reopens it."""
        self._writer.close()


class _Writer:
    """What waits to be written, and the one thread of this process that writes it.

    Nothing that waits here is worth more than one call, so what cannot be written is dropped.
    `save` and `land` may run inside the garbage collector, in the middle of any of these methods.
    """

    def __init__(self, database: Database, ttl_s: float, most_bytes: int, clock: Callable[[], float]) -> None:
        self._database = database
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.owner = token_hex(8)
        self.flights: dict[str, _Flight] = {}
        self.waiting: dict[str, Stored] = {}
        self._waiting_bytes = 0
        self._freed: dict[str, float] = {}  # until when
        self._numbers = count()
        self._hits: dict[str, list[float]] = {}  # how many, and when the last
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_awake = False
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._ticked_at = time.monotonic()
        self._pruned_at = time.monotonic()
        self._batches = 0

    def hit(self, key: str, now: float) -> None:
        """Count a hit."""
        with self._lock:
            seen = self._hits.get(key)
            if seen is not None:
                seen[0] += 1
                seen[1] = now
                return
            self._hits[key] = [1, now]
            number = len(self._hits)
        if number >= _MOST_HITS:
            self._ticked_at = -math.inf
        if number in (1, _MOST_HITS):
            self._wake()

    def is_asking(self, key: str, now: float) -> bool:
        """Tell whether this process asks for it already."""
        flight = self.flights.get(key)
        return flight is not None and _flies(flight.began, now + _DEAD_S, now)

    def take_off(self, key: str, now: float) -> _Flight | None:
        """Return the flight that begins now, or None where this process asks for it already."""
        flight = _Flight(next(self._numbers), now)
        with self._lock:
            if self.is_asking(key, now):
                return None
            self.flights[key] = flight
        self._wake()
        return flight

    def is_free(self, key: str, now: float) -> bool:
        """Tell whether everybody may ask for it, for what was answered is not kept."""
        return key in self._freed and _flies(now, self._freed[key], now)

    def land(self, key: str, *, frees: bool = False) -> None:
        """End a flight."""
        flight = self.flights.pop(key, None)
        if flight is None:
            return
        until = self._clock() + _FREE_S if frees else None
        if until is not None:
            if len(self._freed) >= _MOST_FREED:
                self._freed.clear()
            self._freed[key] = until
        self._items.put((key, flight.number, until))
        self._nudge()

    def save(self, key: str, stored: Stored) -> None:
        """Have an answer written soon."""
        with self._lock:
            self._forget(key, self.waiting.get(key))
            self._hits.pop(key, None)
            self.waiting[key] = stored
            self._waiting_bytes += len(stored.body) + _ROW_BYTES
        self._items.put(key)
        self._wake()
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self._shed(key, stored)

    def _shed(self, key: str, stored: Stored) -> None:
        """Help the thread, which does not keep up; where nobody can write, drop what came last."""
        if self._writing.acquire(timeout=_LONGEST_STALL_S):
            try:
                with suppress(BusyError, StoreError):
                    self._write(may_wait=False)
            finally:
                self._writing.release()
        if self._waiting_bytes > _MOST_WAITING_BYTES + _FRONT_BYTES:
            self._forget(key, stored)

    def _forget(self, key: str, stored: Stored | None) -> None:
        """Take an answer from those that wait, unless another came after it."""
        with self._lock:
            if stored is not None and self.waiting.get(key) is stored:
                del self.waiting[key]
                self._waiting_bytes -= len(stored.body) + _ROW_BYTES

    def _wake(self) -> None:
        """Have the thread running, and look what there is."""
        is_running = self._thread is not None and self._thread.is_alive()
        if not is_running and self._starting.acquire(blocking=False):
            try:
                with suppress(RuntimeError):  # the system may have no thread left to give
                    thread = threading.Thread(target=self._serve, name="leastwise-cache", daemon=True)
                    thread.start()
                    self._thread = thread
            finally:
                self._starting.release()
        self._nudge()

    def _nudge(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wakes.put(None)

    def _serve(self) -> None:
        """Write what comes at once, hits and signs of life every few seconds."""
        is_last = False
        while not is_last:
            with suppress(queue.Empty):
                self._wakes.get(timeout=_TICK_S if self.flights or self._hits else None)
            self._is_awake = False
            is_last = self._is_closing
            try:
                self._write_all(is_due=is_last)
            except StoreError as error:
                _log.warning("answers wait to be kept: %s", error)
            if self._batches >= _CHECKPOINT_EVERY:
                self._batches = 0
                self._database.checkpoint()

    def flush(self) -> None:
        """Return once everything is written, or found not to be writable and logged.

        Raises:
            StuckError: another process keeps the file locked.
        """
        self._write_all(is_due=True)

    def _write_all(self, *, is_due: bool) -> None:
        with self._writing:
            self._write(is_due=is_due or time.monotonic() - self._ticked_at >= _TICK_S)
            while not self._items.empty():
                self._write()

    def _write(self, *, is_due: bool = False, may_wait: bool = True) -> None:
        """Write a batch in one transaction; `is_due` adds hits and signs of life. Holds `_writing`.

        Raises:
            BusyError: `may_wait` is false and somebody else is writing; the batch waits on.
            StuckError: somebody else wrote for longer than anybody waits; the same.
        """
        items = self._next()
        if not items and not (is_due and (self._hits or self.flights)):
            return  # who only looks changes nothing
        saved = {item: self.waiting.get(item) for item in items if isinstance(item, str)}
        rows = [_row(key, stored) for key, stored in saved.items() if stored is not None]
        landed = [item for item in items if isinstance(item, tuple)]
        try:
            with self._database.transaction(may_wait=may_wait) as connection:
                connection.executemany(_UPSERT, rows)
                self._write_landed(connection, landed)
                if is_due or _excess(connection, self._most_bytes) > 0:
                    self._write_hits(connection)
                    _evict(connection, self._most_bytes)
                if is_due:
                    self._tick(connection)
        except (BusyError, StuckError):
            for item in items:
                self._items.put(item)
            raise
        except Exception:  # noqa: BLE001 - whatever is wrong with an answer, the thread lives on
            _log.exception("%d answers were not kept in %s", len(rows), self._database.path)
        for key, stored in saved.items():
            self._forget(key, stored)
        self._batches += 1

    def _next(self) -> list[_Item]:
        items: list[_Item] = []
        with suppress(queue.Empty):
            while len(items) < _BATCH:
                items.append(self._items.get_nowait())
        return items

    def _write_landed(self, connection: sqlite3.Connection, landed: Sequence[_Landed]) -> None:
        ended = [(key, number, self.owner) for key, number, until in landed if until is None]
        freed = [(until, key, number, self.owner) for key, number, until in landed if until is not None]
        connection.executemany(_LAND, ended)
        connection.executemany(_FREE, freed)

    def _write_hits(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            hits, self._hits = self._hits, {}
        connection.executemany(_HIT, [(number, at, key) for key, (number, at) in hits.items()])

    def _tick(self, connection: sqlite3.Connection) -> None:
        """Say that this process lives, where it asks for something; forget now and then what is too old."""
        self._ticked_at, now = time.monotonic(), self._clock()
        if self.flights:
            connection.execute("UPDATE flight SET until = ? WHERE owner = ?", (now + _DEAD_S, self.owner))
        if self._ticked_at - self._pruned_at >= _PRUNE_EVERY_S:
            self._pruned_at = self._ticked_at
            _prune(connection, now, now - self._ttl_s, _PRUNE_ROWS)

    def close(self) -> None:
        """Write what waits, stop the thread and close the file.

        Also the cache's finalizer, which may run in any thread: the thread itself only notes that it
        is to end, and nobody waits for it for ever.
        """
        for key in list(self.flights):
            self.land(key)
        thread = self._thread
        if thread is not None:
            self._is_closing = True
            self._wakes.put(None)
            if thread is threading.current_thread():
                return
            thread.join(_LAST_WAIT_S)
            self._thread, self._is_closing = None, False
        if not self._items.empty() or self._hits:
            with suppress(StoreError):
                self.flush()
        self._database.close()


def _flies(began: float, until: float, now: float) -> bool:
    """Tell whether a flight is still under way; a clock that was set back ends it, too."""
    return now < until <= now + _FREE_S and abs(now - began) < _LONGEST_FLIGHT_S


def _check(stored: Stored) -> None:
    """Refuse texts that SQLite cannot hold.

    Raises:
        StoreError: names what is wrong.
    """
    try:
        "".join([text for text in _facts(stored) if isinstance(text, str)]).encode()
    except UnicodeEncodeError as error:
        message = f"an answer's names cannot be stored: {error.reason}"
        raise StoreError(message) from error


def _row(key: str, stored: Stored) -> tuple[object, ...]:
    return (key, stored.at, len(stored.body) + _ROW_BYTES, *_facts(stored))


def _stored(row: Sequence[Any]) -> Stored:
    body, is_stream, *rest = row
    return Stored(body, bool(is_stream), *rest)


def _prune(connection: sqlite3.Connection, now: float, before: float, most: int = -1) -> int:
    """Forget answers from `before` or earlier, and flights that nobody flies; return how many answers."""
    connection.execute("DELETE FROM flight WHERE until <= ? OR until > ?", (now, now + _FREE_S))
    sql = "DELETE FROM answer WHERE id IN (SELECT id FROM answer WHERE at <= ? ORDER BY at LIMIT ?)"
    return connection.execute(sql, (before, most)).rowcount


def _excess(connection: sqlite3.Connection, most_bytes: int) -> int:
    return int(connection.execute("SELECT bytes FROM held").fetchone()[0]) - most_bytes


def _evict(connection: sqlite3.Connection, most_bytes: int) -> int:
    """Forget what was not used for longest until the rest is small enough; return how many."""
    excess = _excess(connection, most_bytes)
    gone = []
    oldest = connection.execute("SELECT id, size FROM answer ORDER BY used, id") if excess > 0 else ()
    for id_, size in oldest:
        gone.append((id_,))
        excess -= size
        if excess <= 0:
            break
    connection.executemany("DELETE FROM answer WHERE id = ?", gone)
    return len(gone)
