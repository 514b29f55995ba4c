"""What ledger and budgets in SQL need of a database: a few methods, and the words that differ.

Statements are written once, in SQL that SQLite and PostgreSQL both understand, with `?` for each value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


class Cursor(Protocol):
    """What a statement did."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""


class Connection(Protocol):
    """A transaction under way."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run a statement."""

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> Cursor:
        """Run a statement once for each of these values."""

    def lock(self, names: Iterable[str], /) -> None:
        """Keep whoever locks one of these names waiting until this transaction ends.

        A transaction that locks for many leases does so once, before anything else: that is one order.
        """


class Database(Protocol):
    """Where the tables are. Safe from any thread, and after a fork in the child.

    Attributes:
        name: What messages call it; holds no password.
        is_near: Whether a call takes microseconds.
    """

    name: str
    is_near: bool

    def transaction(self, *, may_wait: bool = True) -> AbstractContextManager[Connection]:
        """Hold the one write transaction; commit at the end, roll back on any exception.

        Raises:
            BusyError: `may_wait` is false and the transaction would have to wait, or others were in its way.
            StuckError: the database cannot be had for longer than anybody waits; later it may.
            StoreError: the database failed.
        """

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            StoreError: the database failed.
        """

    def checkpoint(self) -> None:
        """Tidy up after many transactions; may take milliseconds."""

    def close(self) -> None:
        """Close this process's connections; using the database again reopens them."""


def insert(table: str, columns: Sequence[str]) -> str:
    """Return the statement that adds a row."""
    named, values = ", ".join(columns), ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({named}) VALUES ({values})"  # noqa: S608 - our own names of columns


@dataclass(frozen=True, slots=True)
class Dialect:
    """What databases say differently.

    Attributes:
        day: The day, in UTC, of `{}` seconds since the epoch.
        hour: The hour of it.
        now: The seconds since the epoch that owners are heard and missed by; `?` for the asking process's.
    """

    day: str
    hour: str
    now: str = "?"
