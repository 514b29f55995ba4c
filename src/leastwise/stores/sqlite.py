"""The store in one SQLite file, shared by the processes of one host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from leastwise.sqlite import Database
from leastwise.stores.database import Dialect
from leastwise.stores.schema import MIGRATIONS
from leastwise.stores.sql import SqlStore

_DIALECT: Final = Dialect(
    day="date({}, 'unixepoch')",
    hour="strftime('%Y-%m-%dT%H:00Z', {}, 'unixepoch')",
)


class SqliteStore(SqlStore):
    """A `Store` in one SQLite file.

    Args:
        path: The file, or `:memory:`.
        keep_days: Requests older than this are deleted; roll-ups stay.
        keeps_budgets: See `SqlStore`.
        durability: See `Database`.
        clock: Seconds since the epoch.

    Raises:
        StoreError: the file cannot be used.
    """

    database: Database

    def __init__(
        self,
        path: str | Path,
        *,
        keep_days: int = 400,
        keeps_budgets: bool = True,
        durability: Literal["process", "power"] = "process",
        clock: Callable[[], float] = time.time,
    ) -> None:
        database = Database(path, MIGRATIONS, durability=durability)
        super().__init__(database, _DIALECT, keep_days=keep_days, keeps_budgets=keeps_budgets, clock=clock)
