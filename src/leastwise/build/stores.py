"""Opening the configured stores: the one place that knows every implementation.

Redis and PostgreSQL come with extras, and are loaded only where the configuration names them. What is
configured and cannot be reached is refused; only the default place may be done without, aloud.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from leastwise.config import DEFAULT, MEMORY, Config, file_of
from leastwise.errors import ConfigError, StoreError
from leastwise.stores import BudgetStore, CacheStore, Store
from leastwise.stores.answers import SqliteCache
from leastwise.stores.split import Split
from leastwise.stores.sqlite import SqliteStore

_log: Final = logging.getLogger(__name__)

_POSTGRES: Final = "postgresql://"
_CHOICES: Final = ("store.url", "store.ledger", "store.budget")


def open_store(config: Config, clock: Callable[[], float] = time.time) -> Store:
    """Return the configured ledger with its budgets.

    Raises:
        StoreError: one of them cannot be opened or reached.
        ConfigError: one of them needs an extra that is not installed.
    """
    at = config.store
    is_one = at.budget_url == at.ledger_url
    ledger = _open_ledger(config, clock, keeps_budgets=is_one)
    if is_one:
        return ledger
    try:
        return Split(ledger, _open_budgets(config, clock))
    except BaseException:  # the ledger is open, and nobody would close it
        ledger.close()
        raise


def _open_ledger(config: Config, clock: Callable[[], float], *, keeps_budgets: bool) -> Store:
    at = config.store
    if at.path:
        return SqliteStore(
            at.path,
            keep_days=at.keep_days,
            durability=at.durability,
            clock=clock,
            keeps_budgets=keeps_budgets,
        )
    store: Store = _extra("postgres", "PostgresStore")(
        at.ledger_url, keep_days=at.keep_days, keeps_budgets=keeps_budgets, clock=clock
    )
    return store


def _open_budgets(config: Config, clock: Callable[[], float]) -> BudgetStore:
    at = config.store
    file = file_of(at.budget_url)
    if file:
        return SqliteStore(file, durability=at.durability, clock=clock)
    if at.budget_url.startswith(_POSTGRES):
        store: BudgetStore = _extra("postgres", "PostgresStore")(at.budget_url, clock=clock)
    else:
        store = _extra("redis", "RedisBudgets")(at.budget_url)
    return store


def open_cache(config: Config, clock: Callable[[], float] = time.time) -> CacheStore:
    """Return the configured cache.

    Raises:
        StoreError: it cannot be opened or reached.
        ConfigError: it needs an extra that is not installed.
    """
    options, url = config.cache, config.cache_url
    file = file_of(url)
    if file:
        return SqliteCache(file, ttl_s=options.ttl_s, max_mb=options.max_mb, clock=clock)
    cache: CacheStore = _extra("redis", "RedisCache")(url, ttl_s=options.ttl_s, max_mb=options.max_mb)
    return cache


def _extra(name: str, kind: str) -> Any:
    """Return a store of an extra."""
    try:
        return getattr(import_module(f"leastwise.stores.{name}"), kind)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("leastwise"):
            raise
        message = f'this store needs an extra: pip install "leastwise[{name}]"'
        raise ConfigError(message) from error


def usable_store(config: Config, clock: Callable[[], float]) -> Store:
    """Return the configured stores, or one in memory where nobody configured one and none can be kept."""
    try:
        return open_store(config, clock)
    except StoreError as error:
        if any(config.origins.get(key, DEFAULT) != DEFAULT for key in _CHOICES):
            raise
        _log.warning("the ledger is kept in memory and ends with this process: %s", error)
        return SqliteStore(MEMORY, clock=clock)


def usable_cache(config: Config, clock: Callable[[], float]) -> CacheStore:
    """Return the configured cache, or one in memory where nobody configured one and none can be kept."""
    try:
        return open_cache(config, clock)
    except StoreError as error:
        if config.store.cache:
            raise
        _log.warning("answers are kept in memory and end with this process: %s", error)
        return SqliteCache(MEMORY, ttl_s=config.cache.ttl_s, max_mb=config.cache.max_mb, clock=clock)


@contextmanager
def existing_store(config: Config) -> Iterator[Store | None]:
    """Open the configured ledger with its budgets to read them; None where nothing was ever written.

    No file is made then. What other machines wrote to a server is there even where this one has no ledger.

    Raises:
        StoreError: see `open_store`.
    """
    if _is_empty(config.store.ledger_url) and _is_empty(config.store.budget_url):
        yield None
        return
    store = open_store(config)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def existing_cache(config: Config) -> Iterator[CacheStore | None]:
    """Open the configured cache to read it; None where nothing was ever kept, and no file is made.

    Raises:
        StoreError: see `open_cache`.
    """
    if _is_empty(config.cache_url):
        yield None
        return
    cache = open_cache(config)
    try:
        yield cache
    finally:
        cache.close()


def _is_empty(url: str) -> bool:
    """Tell whether a store is a file that was never made, or was in another process's memory."""
    where = file_of(url)
    return where == MEMORY or (where != "" and not Path(where).exists())
