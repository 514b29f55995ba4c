"""The store in a PostgreSQL database, shared by the processes of many hosts.

Many transactions write at once, each of them alone where it matters: who takes a lease locks its accounts
first, in one order, and reads what they hold only then. Rows that several transactions add to are locked
at their end, in one order, too. What still collides is done again.

A server that is gone is found out by its silence, within a second: `Connection` gives up on it, unless it
lets others in and so is merely busy. What was to be written waits in the outbox; nothing is leased.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen, PQGenConn
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from psycopg.types.numeric import Int8Dumper

from leastwise.budget import Refusal
from leastwise.errors import StoreError
from leastwise.sqlite import BusyError, StuckError, at_fork
from leastwise.steps import Lease
from leastwise.stores.database import Dialect
from leastwise.stores.schema import MIGRATIONS
from leastwise.stores.sql import SqlStore

SCHEMA: Final = "leastwise"  # of its own, so that the database may be shared

_DIALECT: Final = Dialect(
    day="to_char(to_timestamp(floor({})) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    hour="""to_char(to_timestamp(floor({})) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24":00Z"')""",
    now="CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)",  # hosts may disagree
)
#: Words of the migrations, and what they are here. Text sorts by its bytes, as in Python.
_WORDS: Final = {
    "REAL": "DOUBLE PRECISION",
    "INTEGER": "BIGINT",
    "TEXT": 'TEXT COLLATE "C"',
    "WITHOUT ROWID": "",
}
_MEND: Final = 'Start it, or name another with [store] url = "postgresql://user@host/name"'
_MOST_CONNECTIONS: Final = 8
_SILENCE_S: Final = 0.5  # a statement under way; then as long again for a connection that asks what is up
_CONNECT_S: Final = 2  # an attempt in all; psycopg takes no less
_FREE_S: Final = 1.0  # to wait for one of our own connections
_TRIES: Final = 4
_LOCK: Final = (
    "SELECT pg_advisory_xact_lock(key) FROM (SELECT DISTINCT hashtextextended(name, 7310575) AS key "
    "FROM unnest(CAST(? AS TEXT[])) AS name ORDER BY key) AS keys"
)
#: Said once on each connection. A process that is halted in a transaction must not halt all others.
_SETTINGS: Final = (
    f"SET search_path TO {SCHEMA}; SET default_transaction_isolation TO 'read committed'; "
    "SET lock_timeout TO '2s'; SET idle_in_transaction_session_timeout TO '5s'"
)
_DEFAULTS: Final = {
    "application_name": "leastwise",
    "connect_timeout": _CONNECT_S,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 1,
    "tcp_user_timeout": 1000,
}

T = TypeVar("T")

_adapters: Final = AdaptersMap(psycopg.adapters)
_adapters.register_dumper(int, Int8Dumper)  # or each size of a number would be another statement


class SilentError(psycopg.OperationalError):
    """The server did not say anything for too long."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for a server that is gone.

    Attributes:
        ask: Asks what is up when the server is silent; raises when it is gone.
    """

    ask: Callable[[], object] | None = None

    @classmethod
    def _connect_gen(cls, conninfo: str = "", **given: Any) -> PQGenConn[Any]:
        return _heard(super()._connect_gen(conninfo, **given), _give_up)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for the server as long as it is there."""
        return super().wait(_heard(gen, self.ask or _give_up), interval, timeout)


def _heard(steps: Generator[Any, Any, T], ask: Callable[[], object]) -> Generator[Any, Any, T]:
    """Go through psycopg's steps, and `ask` whenever the server was silent for too long."""
    heard_at = time.monotonic()
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > _SILENCE_S:
                ask()
                heard_at = time.monotonic()
            wanted = steps.send(ready)
    except StopIteration as end:
        value: T = end.value
        return value


def _give_up() -> None:
    message = f"no answer within {_SILENCE_S} s"
    raise SilentError(message)


class Transaction:
    """A transaction under way: see `database.Connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._locked: set[str] = set()

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement."""
        return self._connection.execute(_translated(sql), values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement once for each of these values."""
        cursor = self._connection.cursor()
        cursor.executemany(_translated(sql), values)
        return cursor

    def lock(self, names: Iterable[str], /) -> None:
        """Keep whoever locks one of these names waiting; a statement after this one sees what they wrote."""
        missing = {*names} - self._locked
        if missing:
            self.execute(_LOCK, (sorted(missing),))
            self._locked |= missing


@cache
def _translated(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()


class _Pool:
    """Connections of one process: some idle, and room for so many in all."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._next = threading.Lock()

    def wait(self) -> bool:
        """Wait for room, who came first first; tell whether there was some in time."""
        if not self._next.acquire(timeout=_FREE_S):
            return False
        try:
            return self.room.acquire(timeout=_FREE_S)
        finally:
            self._next.release()

    def take(self) -> Connection | None:
        """Return an idle connection that still is one, the last used first."""
        while self.idle:
            connection = self.idle.pop()
            if _is_open(connection):
                return connection
            connection.close()
        return None


def _is_open(connection: Connection) -> bool:
    """Tell whether nothing came since: a server that ends, or was lost, is heard on its idle connections."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


class Database:
    """A PostgreSQL database: see `database.Database`.

    Connections are made when they are needed, up to eight for a process, and dropped when anything
    was wrong with what they did. A child of this process makes its own.

    Args:
        url: Its address, as libpq takes it.

    Raises:
        StoreError: it cannot be reached or used, or was written by a newer version.
    """

    is_near = False

    def __init__(self, url: str) -> None:
        self._given = _parsed(url)
        self.name = _name_of(self._given)
        self._inherited: list[_Pool] = []  # to end one would end the parent's
        self._pool = _Pool()
        at_fork(after_in_child=self._begin)
        with self._connection() as connection:
            _migrate(connection, self.name)

    def _begin(self) -> None:
        self._inherited.append(self._pool)
        self._pool = _Pool()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend a connection, and drop it if anything fails: that ends its transaction as well."""
        pool = self._pool
        if not pool.wait():
            message = f"all {_MOST_CONNECTIONS} connections to {self.name} were busy for {_FREE_S} s"
            raise StuckError(message)
        try:
            connection = pool.take() or self._connect()
            try:
                yield connection
            except BaseException as error:  # nobody knows what state the connection was left in
                connection.close()
                if isinstance(error, psycopg.Error | UnicodeEncodeError):
                    raise self._failed(error) from None  # the driver's own words may tell what is in a row
                raise
            pool.idle.append(connection)
        finally:
            pool.room.release()

    def _connect(self) -> Connection:
        try:
            connection = _connected(self._given)
            connection.execute(_SETTINGS.encode())
        except psycopg.Error as error:
            message = f"cannot reach the ledger at {self.name}: {_words_of(error)}. {_MEND}"
            raise StuckError(message) from None
        connection.ask = partial(_ask, self._given)
        return connection

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
            return BusyError()
        kind = StuckError if isinstance(error, psycopg.OperationalError) else StoreError
        return kind(f"the ledger at {self.name} failed: {_words_of(error)}")

    @contextmanager
    def transaction(self, *, may_wait: bool = True) -> Iterator[Transaction]:
        """Hold a transaction; commit at the end, roll back on any exception.

        Raises:
            BusyError: `may_wait` is false, for a server is far; or other transactions were in its way.
            StuckError: the server is gone, or others keep locked what is needed.
            StoreError: it failed.
        """
        if not may_wait:
            raise BusyError
        with self._connection() as connection:
            connection.execute(b"BEGIN")
            yield Transaction(connection)
            connection.execute(b"COMMIT")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            StuckError: the server is gone.
            StoreError: it failed.
        """
        with self._connection() as connection:
            return connection.execute(_translated(sql), values).fetchall()

    def checkpoint(self) -> None:
        """Do nothing: the server tidies up by itself."""

    def close(self) -> None:
        """Close this process's idle connections; using the database again makes new ones."""
        pool = self._pool
        while connection := pool.take():
            connection.close()


def _parsed(url: str) -> dict[str, Any]:
    """Return what an address says, with our defaults.

    Raises:
        StoreError: it is none; its text is not repeated, for it may hold a password.
    """
    try:
        given = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error:
        given = {"host": "@"}
    if "@" in f"{given.get('host')}{given.get('dbname')}":  # what follows a stray one is of the password
        message = (
            "the address of the ledger is none that PostgreSQL knows: expected postgresql://user@host/name; "
            "write @, :, / and ? of a password as %40, %3A, %2F and %3F"
        )
        raise StoreError(message)
    return given


def _name_of(given: dict[str, Any]) -> str:
    """Return host, port and database: what is given, what libpq's variables say, or its defaults."""
    known = {one.keyword.decode(): (one.val or b"").decode() for one in Conninfo.get_defaults()} | given
    host = known.get("host") or known.get("hostaddr") or "this host"
    return f"{host}:{known.get('port')}/{known.get('dbname') or known.get('user')}"


def _connected(given: dict[str, Any]) -> Connection:
    return Connection.connect(**given, autocommit=True, context=_adapters, client_encoding="utf8")


def _ask(given: dict[str, Any]) -> None:
    """Find out whether the server lets others in.

    Raises:
        psycopg.Error: it does not.
    """
    _connected(given).close()


def _words_of(error: Exception) -> str:
    """Return what happened, without the details, which may tell what is in a row."""
    diagnosed = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((diagnosed or str(error)).split())


def _migrate(connection: Connection, name: str) -> None:
    """Bring the tables up to date, one process at a time."""
    newest = len(MIGRATIONS)
    if _schema_of(connection) == newest:
        return
    connection.execute(b"BEGIN; SET LOCAL lock_timeout TO '60s'")
    connection.execute(b"SELECT pg_advisory_xact_lock(hashtextextended('leastwise schema', 7310575))")
    found = _schema_of(connection)  # another process may have been first
    if found > newest:
        message = (
            f"the ledger at {name} has schema {found}, this version of Leastwise knows up to "
            f"{newest}: upgrade Leastwise, or name another database"
        )
        raise StoreError(message)
    if not found:
        if not connection.execute(b"SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone():
            connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())  # which not everybody may
        connection.execute(b"CREATE TABLE version (version BIGINT NOT NULL); INSERT INTO version VALUES (0)")
    for script in MIGRATIONS[found:]:
        connection.execute(_worded(script).encode())
    connection.execute(b"UPDATE version SET version = %s", (newest,))
    connection.execute(b"COMMIT")


def _schema_of(connection: Connection) -> int:
    # Asked of a table: a function such as `to_regclass` may not have heard of what others made just now.
    is_there = b"SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'version'"
    if not connection.execute(is_there, (SCHEMA,)).fetchone():
        return 0
    row = connection.execute(b"SELECT version FROM version").fetchone()
    return int(row[0]) if row else 0


def _worded(script: str) -> str:
    for word, here in _WORDS.items():
        script = re.sub(rf"\b{word}\b", here, script)
    return script


class PostgresStore(SqlStore):
    """A `Store` in a PostgreSQL database, in a schema of its own.

    Args:
        url: The database, as libpq takes it: `postgresql://user:password@host/name`.
        keep_days: Requests older than this are deleted; roll-ups stay.
        keeps_budgets: See `SqlStore`.
        clock: Seconds since the epoch; who lives is told by the server's.

    Raises:
        StoreError: it cannot be reached or used.
    """

    database: Database

    def __init__(
        self,
        url: str,
        *,
        keep_days: int = 400,
        keeps_budgets: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        database = Database(url)
        super().__init__(database, _DIALECT, keep_days=keep_days, keeps_budgets=keeps_budgets, clock=clock)

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        """Reserve in every claim's account, or in none and say why; committed before it returns.

        Raises:
            BusyError: `may_wait` is false.
            StoreError: the server is gone or failed, or others were in the way again and again.
        """
        for _ in range(_TRIES):
            try:
                return super().lease(lease, may_wait=may_wait)
            except BusyError:
                if not may_wait:
                    raise
        message = f"{_TRIES} times others were in the way at {self.database.name}"
        raise StuckError(message)
