"""One SQLite file: opening it, transactions, migrations, and its use from threads and across forks.

A `Database` holds one connection, guarded by a lock; SQLite has one writer at a time
anyway, and a thread hop costs more than a read. Who waits to write does not hold the
lock, so reads go on meanwhile. Nothing here knows a table.

A connection must not be open while the process forks: SQLite in the child would count
the parent's file locks as its own, hold none, and lose what it commits when the parent
closes. So it is closed just before a fork, and parent and child each open their own.

`synchronous=NORMAL` in WAL mode keeps every committed transaction through
`kill -9`; a power cut may lose the last ones. `durability="power"` asks for FULL.

Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous,
https://www.sqlite.org/howtocorrupt.html section 2.6
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from leastwise.errors import StoreError

MEMORY = ":memory:"

T = TypeVar("T")

_MEND = 'Name another file with [store] url = "sqlite:////path/leastwise.db" or LEASTWISE_STORE_URL'
_PATIENCE_S = 10.0
_LOG_PAGES = 10_000  # 40 MB
_FIRST_PAUSE_S = 0.0001  # short own pauses beat SQLite's busy handler: worst wait 2-6 ms against 19-79 ms
_LONGEST_PAUSE_S = 0.005


class BusyError(Exception):
    """Another connection is writing, or another thread here is, and the caller cannot wait."""


class StuckError(StoreError):
    """The database could not be had for longer than anybody waits; later it may."""


class Connection(sqlite3.Connection):
    """A connection to the file."""

    def lock(self, names: Iterable[str], /) -> None:
        """Do nothing: who writes is alone anyway."""


class Database:
    """A SQLite file, or `:memory:` for one that ends with the process.

    Args:
        path: The file; its directory is made, both private to the user.
        migrations: SQL scripts; number n brings a file from schema n to n + 1. Only ever appended to.
        durability: `process` survives a kill of any process, `power` a power cut too.
        what: What the file is, in errors.

    Raises:
        StoreError: the file cannot be opened, is not a database, or was written by a newer version.

    Attributes:
        name: What messages call it.
        is_near: Whether a call takes microseconds; a disk that is waited for takes milliseconds.
    """

    def __init__(
        self,
        path: str | Path,
        migrations: Sequence[str],
        *,
        durability: Literal["process", "power"] = "process",
        what: str = "ledger",
    ) -> None:
        self._what = what
        self.path = MEMORY if str(path) == MEMORY else str(Path(path).absolute())  # a daemon moves
        self.name = self.path
        self.is_near = durability == "process"
        self._migrations = tuple(migrations)
        self._synchronous = "FULL" if durability == "power" else "NORMAL"
        self._lock = threading.RLock()
        self._checkpointing = threading.Lock()
        self._connection: Connection | None = None
        self._inherited: list[sqlite3.Connection] = []  # to close one would drop this process's own locks
        at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )
        self._hold()[0].release()

    def _before_fork(self) -> None:
        self._checkpointing.acquire()
        self._lock.acquire()
        if self._connection is not None and self.path != MEMORY and not self._connection.in_transaction:
            self._connection.close()
            self._connection = None

    def _after_fork_in_parent(self) -> None:
        self._lock.release()
        self._checkpointing.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._checkpointing = threading.Lock()
        if self._connection is not None and self.path != MEMORY:
            self._inherited.append(self._connection)
            self._connection = None

    def _hold(self, *, may_wait: bool = True) -> tuple[threading.RLock, Connection]:
        """Take the lock, for the caller to release, and open the connection if need be."""
        lock = self._lock
        if not lock.acquire(blocking=may_wait):
            raise BusyError
        try:
            if self._connection is None:
                self._connection = self._open()
        except BaseException:
            lock.release()
            raise
        return lock, self._connection

    def begin(self, *, may_wait: bool) -> tuple[threading.RLock, Connection]:
        """Take the lock, for the caller to release, and begin to write.

        While another process writes, it is waited for without the lock.
        """
        tries: Iterator[None] | None = None
        while True:
            lock, connection = self._hold(may_wait=may_wait)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                lock.release()
                if not _is_busy(error):
                    raise self.failed(error) from error
                if not may_wait:
                    raise BusyError from error
                if tries is None:
                    tries = _tries()
                    next(tries)
                next(tries)
            else:
                return lock, connection

    def failed(self, error: sqlite3.Error) -> StoreError:
        """Return what to raise for an error of SQLite's."""
        return StoreError(f"the {self._what} {self.path!r} failed: {error}. {_MEND}")

    def _open(self) -> Connection:
        try:
            if self.path != MEMORY:
                _make_private(Path(self.path))
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, factory=Connection
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            message = f"cannot open the {self._what} {self.path!r}: {error}. {_MEND}"
            raise StoreError(message) from error
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        _patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone())
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        # `checkpoint` does it where nobody waits; this is for a process that never comes to it.
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        if _schema_of(connection) == len(self._migrations):
            return
        _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            self._migrate(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # what failed may have rolled back already
                connection.execute("ROLLBACK")
            raise

    def _migrate(self, connection: sqlite3.Connection) -> None:
        found, newest = _schema_of(connection), len(self._migrations)  # another process may have been first
        if found > newest:
            message = (
                f"the {self._what} {self.path!r} has schema {found}, this version of Leastwise knows up to "
                f"{newest}: upgrade Leastwise, or name another file"
            )
            raise StoreError(message)
        for script in self._migrations[found:]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={newest}")

    def transaction(self, *, may_wait: bool = True) -> _Transaction:
        """Hold the one write transaction; commit at the end, roll back on any exception.

        Raises:
            BusyError: `may_wait` is false and somebody else is writing.
            StuckError: somebody else wrote for longer than ten seconds.
            StoreError: SQLite failed.
        """
        return _Transaction(self, may_wait=may_wait)

    def rows(self, sql: str, values: Sequence[object] | dict[str, object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query.

        Raises:
            StoreError: SQLite failed.
        """
        lock, connection = self._hold()
        try:
            cursor = connection.cursor()
            cursor.row_factory = sqlite3.Row
            return _patiently(lambda: cursor.execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise self.failed(error) from error
        finally:
            lock.release()

    def row(self, sql: str, values: Sequence[object] = ()) -> Sequence[Any] | None:
        """Return the first row of a query, or None: what `rows` does, for what is asked all the time.

        Raises:
            StoreError: SQLite failed.
        """
        lock, connection = self._hold()
        try:
            found: Sequence[Any] | None = connection.execute(sql, values).fetchone()
        except sqlite3.Error:  # to be tried again, or told of
            return next(iter(self.rows(sql, values)), None)
        else:
            return found
        finally:
            lock.release()

    def checkpoint(self) -> None:
        """Bring what was committed from the write-ahead log into the file, beside those who write.

        It waits for the disk, for milliseconds: call it where nobody waits. What cannot be
        brought over now stays in the log, for the next time.
        """
        if self.path == MEMORY:
            return
        with self._checkpointing, suppress(sqlite3.Error):
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()

    def close(self) -> None:
        """Close this process's connection; using the database again reopens it."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class _Transaction:
    """What `Database.transaction` returns; a class, for a generator would cost twice as much."""

    __slots__ = ("_connection", "_database", "_lock", "_may_wait")

    def __init__(self, database: Database, *, may_wait: bool) -> None:
        self._database = database
        self._may_wait = may_wait

    def __enter__(self) -> Connection:
        self._lock, self._connection = self._database.begin(may_wait=self._may_wait)
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                try:
                    self._connection.execute("COMMIT")
                except BaseException as failed:  # noqa: BLE001 - raised again below
                    error = failed
                else:
                    return
            with suppress(sqlite3.Error):  # a failed COMMIT may have rolled back already
                self._connection.execute("ROLLBACK")
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise self._database.failed(error) from error
        if kind is None:
            raise error


def at_fork(**methods: Callable[[], None]) -> None:
    """Have these bound methods called around each fork, for as long as their object lives.

    Args:
        methods: By the names of `os.register_at_fork`: `before`, `after_in_parent`, `after_in_child`.
    """
    if sys.platform != "win32":  # pragma: no branch - nothing forks there
        os.register_at_fork(**{when: _weakly(method) for when, method in methods.items()})


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call


def _tries() -> Iterator[None]:
    """Yield before each try, pausing between them; raise `StuckError` after ten seconds."""
    pause_s, waited_s = _FIRST_PAUSE_S, 0.0
    while waited_s < _PATIENCE_S:
        yield
        time.sleep(pause_s)
        waited_s += pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    message = "the file was locked by another process for ten seconds; is one of them stuck?"
    raise StuckError(message)


def _patiently(action: Callable[[], T]) -> T:
    """Return what `action` returns, trying again while another process keeps the file to itself."""
    tries = _tries()
    while True:
        next(tries)
        try:
            return action()
        except sqlite3.Error as error:
            if not _is_busy(error):
                raise


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)  # Python's own errors have none
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _schema_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _make_private(path: Path) -> None:
    """Make the file readable by its owner only, before SQLite writes to it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
