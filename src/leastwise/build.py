"""Putting a configured Leastwise together; the one module that knows every implementation.

A `Runtime` is what clients, commands and later the gateway hold: the ledger, the
terms of exchanges, and the configuration, which is read again when its file
changes, so that `leastwise on` and `off` take effect without a restart.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from leastwise import account
from leastwise.attempt import Call, Terms, moment
from leastwise.client import Desk
from leastwise.compile import misfit
from leastwise.config import Config, load, policy, price_book
from leastwise.errors import ConfigError
from leastwise.features import Features
from leastwise.ladder import AUTO, Code, Decision, Mode, Outcome, Reason, Task
from leastwise.ledger import new_id
from leastwise.messages import Request
from leastwise.models import load_models
from leastwise.money import show
from leastwise.prices import check_ladder
from leastwise.routing import Known, Router
from leastwise.stores import Query, Store
from leastwise.stores.sqlite import SqliteStore

_log: Final = logging.getLogger(__name__)

#: The upstream that stands for the client the caller brought.
OWN_UPSTREAM: Final = "anthropic"

_RELOAD_S: Final = 1.0
_OBSERVED_S: Final = 7 * 24 * 3600

T = TypeVar("T")


class Runtime:
    """A configured Leastwise: its ledger, its policy, and the exchanges that go by them.

    Safe to share between threads, and usable in the child after a fork.

    Args:
        config: The configuration.
        store: The ledger; by default the configured one is opened.
        reload: Reads the configuration again; None keeps it for good.
        clock: Seconds since the epoch.
        rng: Draws ids, shares and jitter; the default is safe after a fork.

    Raises:
        ConfigError: the configuration cannot work, such as a ladder whose prices do not rise.
        StoreError: the ledger cannot be opened.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store | None = None,
        reload: Callable[[], Config] | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.store: Store = store if store is not None else open_store(config, clock)
        self.desk = Desk(self.store, clock)
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._reload = reload
        self._looked_at = clock()
        self._seen = _stamps(config)
        self._others: dict[str, Any] = {}
        self._has_said = False
        self._adopt(config)

    @classmethod
    def open(cls, *, mode: Mode | None = None, path: Path | None = None) -> Self:
        """Return the runtime that the environment and the configuration files describe.

        Raises:
            ConfigError: a file or variable is wrong.
            StoreError: the ledger cannot be opened.
        """
        arguments: dict[str, object] = {} if mode is None else {"mode": mode}
        read = partial(load, path, os.environ, arguments=arguments)
        return cls(read(), reload=read)

    def _adopt(self, config: Config) -> None:
        book, models = price_book(config), load_models()
        check_ladder(config.ladder, moment(self._clock()), book)
        rules = policy(config)
        self.router = Router(
            config.ladder,
            rules,
            prices=book,
            models=models,
            fits=lambda request, model: misfit(request, model, models),
        )
        self.config = config
        self.terms = Terms(
            decide=self._decide,
            ladder=config.ladder,
            book=book,
            models=models,
            policy_hash=self.router.policy_hash,
            clock=self._clock,
            rng=self._rng,
        )

    def _decide(  # noqa: PLR0917 - the shape of `Terms.decide`
        self, request: Request, task: Task, read: Features, known: Known, at: datetime, draw: float
    ) -> Decision:
        return self.router.decide(request, task, known=known, now=at, draw=draw, features=read)

    def call(self, request: Request, task: Task, *, max_retries: int, key: str = "") -> Call:
        """Return `request` as it enters an exchange, under the configuration now in force."""
        now = self._clock()
        if self._reload is not None and not 0 <= now - self._looked_at < _RELOAD_S:
            self._looked_at = now
            self._look_again()
        if not self._has_said:
            self._has_said = True
            self._say_if_observing(request)
        return Call(new_id(now, self._rng), now, request, task, key=key, max_retries=max_retries)

    def _look_again(self) -> None:
        """Adopt the configuration anew when one of its files changed; keep the old one when it is wrong."""
        assert self._reload is not None
        if _stamps(self.config) == self._seen:
            return
        try:
            config = self._reload()
            self._adopt(config)
        except (ConfigError, OSError) as error:
            self._seen = _stamps(self.config)
            _log.error("the changed configuration is not used, the one before stays in force: %s", error)
        else:
            self._seen = _stamps(config)
            _log.info("configuration read again: mode %s, policy %s", config.mode, self.terms.policy_hash)

    def _say_if_observing(self, request: Request) -> None:
        is_ours = request.model in AUTO or request.model in self.config.ladder
        if self.config.mode == "observe" and not is_ours:
            _log.warning("%s", observing_line(self.store, self._clock()))

    def other_client(self, upstream: str, make: Callable[[Any], T]) -> T | None:
        """Return the client for a named upstream, made once; None for the caller's own, `anthropic`."""
        if upstream == OWN_UPSTREAM:
            return None
        if upstream not in self._others:
            self._others[upstream] = make(self.config.upstreams[upstream])
        found: T = self._others[upstream]
        return found

    def outcome(self, any_id: str) -> Outcome | None:
        """Return what the ledger knows of an exchange id, a `msg_...` id or a `request-id`."""
        story = self.store.find(any_id)
        if story is None:
            return None
        kept = msgspec.json.decode(story.exchange.decision_json)
        reasons = tuple(Reason(Code(code), *rest) for code, *rest in kept["reasons"])
        return account.outcome_of(story.exchange, list(story.entries), reasons, self.terms)

    def close(self) -> None:
        """Write what is waiting and close the ledger."""
        self.store.close()

    def __enter__(self) -> Self:
        """Return this runtime; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_store(config: Config, clock: Callable[[], float] = time.time) -> Store:
    """Return the configured ledger.

    Raises:
        StoreError: it cannot be opened.
    """
    store = config.store
    return SqliteStore(store.path, keep_days=store.keep_days, durability=store.durability, clock=clock)


def observing_line(store: Store, now: float) -> str:
    """Return the line that says nothing is saved yet, and how much could move."""
    lines = store.sums(Query(since=now - _OBSERVED_S, by=("mode",)))
    observed = [line for line in lines if line.group[0] == "observe"]
    could, spent = sum(line.could_nusd for line in observed), sum(line.spent_nusd for line in observed)
    return (
        f"OBSERVING: every call goes to the model it asked for. Up to {show(could, 2)} of {show(spent, 2)} "
        f"could move, quality unknown. Switch on: leastwise on"
    )


def _stamps(config: Config) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of each configuration file, 0 for one that is gone."""
    stamps = []
    for path in config.watched:
        try:
            stat = path.stat()
        except OSError:
            stamps.append((str(path), 0, 0))
        else:
            stamps.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(stamps)
