"""The cache and the budget as plain objects, for who takes nothing else.

    cache = Cache("answers.db")
    given = cache.call(request, ask)      # asks once, however many ask the same at the same time

    budget = Budget(5.00)
    tier = budget.recommended_tier("opus")
    with budget.reserve(0.04) as held:    # raises `BudgetExceededError` where it does not fit
        held.settle(ask(tier))

Both keep the rules of `cache`, `recall`, `budget` and `leasing`, and their state in a SQLite file that
threads and processes may share, or in memory.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from leastwise.budget import (
    BudgetRule,
    Cap,
    Ceiling,
    Claim,
    Limits,
    Purse,
    Span,
    Standing,
    limit_of,
    percent_of,
)
from leastwise.cache import Caching, Found, Stored, key_of, may_keep
from leastwise.errors import StoreError
from leastwise.heart import Heart
from leastwise.ladder import DEFAULT_LADDER, Ladder, Task
from leastwise.leasing import refused, reserve
from leastwise.ledger import Charge, Entry, Reserved, new_id
from leastwise.messages import JSON, Facts, Request
from leastwise.money import to_nusd, to_usd
from leastwise.recall import recall
from leastwise.sqlite import MEMORY
from leastwise.steps import Lease, Load, LookUp, Record, Settle, Sleep, Step, Steps
from leastwise.stores import recover
from leastwise.stores.answers import SqliteCache
from leastwise.stores.sqlite import SqliteStore

_log: Final = logging.getLogger(__name__)

Usd = Decimal | float | str

_KEPT_LINES: Final = 10_000

T = TypeVar("T")


def _driven(steps: Steps[T], ask: Callable[[Any], object]) -> T:
    """Run a part of the core that only asks a store and sleeps."""
    answer: object = None
    try:
        while True:
            step: Step = steps.send(answer)
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                answer = None
            else:
                answer = ask(step)
    except StopIteration as stop:
        found: T = stop.value
        return found


# --- cache -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """An answer, and whether it came from the cache."""

    answer: Any
    from_cache: bool


@dataclass(frozen=True, slots=True)
class CacheTotals:
    """What a cache holds and has saved.

    Attributes:
        entries: How many answers it holds.
        total_hits: How often an answer was found since this object was made.
        total_misses: How often none was.
        size_bytes: How much it holds.
    """

    entries: int
    total_hits: int
    total_misses: int
    size_bytes: int

    @property
    def hit_rate(self) -> float:
        """The share of look-ups that found an answer; 0 where there was none."""
        looked = self.total_hits + self.total_misses
        return self.total_hits / looked if looked else 0.0

    @property
    def calls_saved(self) -> int:
        """How many calls did not have to be made."""
        return self.total_hits


class Cache:
    """Answers by request: the same request costs nothing.

    Two requests are the same when each of their top-level members is, byte for byte; the order of the
    members does not matter. A message that is no whole answer - cut off, refused, or calling a tool - is
    not kept. Safe from threads, in the child after a fork, and in several processes on one file.

    Args:
        path: A SQLite file, or `:memory:` for answers that end with this object.
        ttl_s: How long an answer may be given again, in seconds.
        max_mb: How much is kept, in megabytes; what was not used for longest goes first.
        clock: Seconds since the epoch.

    Raises:
        StoreError: the file cannot be used.
    """

    def __init__(
        self,
        path: str | Path = MEMORY,
        *,
        ttl_s: float = 86_400,
        max_mb: float = 512,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = SqliteCache(path, ttl_s=ttl_s, max_mb=max_mb, clock=clock)
        self._clock = clock
        self._counting = threading.Lock()
        self._hits = self._misses = 0

    def get(self, request: Request | Mapping[str, JSON], task: Task | None = None) -> Any:
        """Return the answer kept for a request, None where there is none.

        Raises:
            TypeError: the request holds what JSON cannot.
            StoreError: the file cannot be read.
        """
        stored = self._store.look_up(_key(request, task), leads=False).stored
        self._count(is_hit=stored is not None)
        return None if stored is None else _answer(stored)

    def set(self, request: Request | Mapping[str, JSON], answer: Any, task: Task | None = None) -> bool:
        """Keep the answer to a request; tell whether it is one that may be kept.

        Args:
            request: What was asked.
            answer: Bytes, or anything that JSON can hold: a message's `model_dump()`.
            task: What was told beside the request, where that changes the answer.

        Raises:
            TypeError: request or answer hold what JSON cannot.
        """
        return self._keep(_key(request, task), answer)

    def call(
        self, request: Request | Mapping[str, JSON], ask: Callable[[], Any], task: Task | None = None
    ) -> Given:
        """Return the kept answer, or the one that `ask` returns, which is kept.

        Of all who call with the same request at the same time one asks, and the others wait for its
        answer; where it fails, the next one asks. A file that cannot be used is no reason not to answer.

        Raises:
            TypeError: request or answer hold what JSON cannot.
        """
        key = _key(request, task)
        try:
            stored = _driven(recall(Caching(key, reads=True, keeps=True), is_stream=False), self._look_up)
        except StoreError:
            _log.warning("the cache could not be asked", exc_info=True)
            stored = None
        self._count(is_hit=stored is not None)
        if stored is not None:
            return Given(_answer(stored), from_cache=True)
        is_answered = is_kept = False
        try:
            answer = ask()
            is_answered = True
            is_kept = self._keep(key, answer)
        finally:
            if not is_kept:
                self._store.land(key, frees=is_answered)
        return Given(answer, from_cache=False)

    def _look_up(self, step: LookUp) -> Found:
        return self._store.look_up(step.key, leads=step.leads)

    def _keep(self, key: str, answer: Any) -> bool:
        if not _is_whole(answer):
            return False
        is_bytes = isinstance(answer, bytes)
        stored = Stored(
            body=answer if is_bytes else msgspec.json.encode(answer),
            is_stream=is_bytes,  # given again as it is, like a stream's events
            model="",
            tier="",
            upstream="",
            exchange="",
            request_id="",
            tag="",
            at=self._clock(),
        )
        self._store.save(key, stored)
        return True

    def _count(self, *, is_hit: bool) -> None:
        with self._counting:
            self._hits += is_hit
            self._misses += not is_hit

    def stats(self) -> CacheTotals:
        """Return what is kept, and how often it was found."""
        kept = self._store.stats()
        return CacheTotals(kept.entries, self._hits, self._misses, kept.size_bytes)

    def clear(self) -> int:
        """Forget all answers; return how many."""
        return self._store.clear()

    def prune(self) -> int:
        """Forget answers past their time, and those over the size; return how many."""
        return self._store.prune()

    def close(self) -> None:
        """Write what is waiting and close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        """Return this cache; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _key(request: Request | Mapping[str, JSON], task: Task | None) -> str:
    read = request if isinstance(request, Request) else Request({}, dict(request), None)
    return key_of(read, task or Task(), tenant="local", policy_hash="", headers={})


def _answer(stored: Stored) -> Any:
    return stored.body if stored.is_stream else msgspec.json.decode(stored.body)


def _is_whole(answer: Any) -> bool:
    """Tell whether an answer may be given again; what is no message is whatever the caller says it is."""
    is_message = isinstance(answer, Mapping) and answer.get("type") == "message"
    return not is_message or may_keep(Facts.read(answer), in_loop=False)


# --- budget ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepDownLine:
    """One time that a budget recommended a cheaper tier than the preferred one.

    Attributes:
        at: Seconds since the epoch.
        before: The preferred tier.
        after: The recommended one.
        percent: How much of the limit was spent, in per cent.
        trigger: Why, such as `above 70%`.
    """

    at: float
    before: str
    after: str
    percent: float
    trigger: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.before} -> {self.after} at {self.percent:.0f}% ({self.trigger})"


class Reservation:
    """The most that one call can cost, held until it is settled."""

    def __init__(self, reserved: Reserved, settle: Callable[[Entry], None]) -> None:
        self._reserved = reserved
        self._settle = settle
        self.is_open = True

    def settle(self, cost_usd: Usd) -> None:
        """Charge what the call cost, and free the rest.

        Raises:
            ValueError: it is settled already, or `cost_usd` is no amount of dollars.
        """
        self._close(_nusd(cost_usd))

    def release(self) -> None:
        """Free it all: nothing was sent, or nothing will be billed.

        Raises:
            ValueError: it is settled already.
        """
        self._close(0)

    def _close(self, cost_nusd: int) -> None:
        if not self.is_open:
            message = "this reservation is settled already"
            raise ValueError(message)
        charges = tuple(replace(charge, nusd=cost_nusd) for charge in self._reserved.charges)
        entry = replace(self._reserved.lost(), cost_nusd=cost_nusd, charges=charges, certainty="estimated")
        self._settle(entry)
        self.is_open = False


class Budget:
    """A sum that is never overspent, and cheaper tiers as it runs short.

    Above a share of the limit *spent* a cheaper tier is recommended (by default above 70 % the one below
    the top, above 90 % the lowest), but never to a critical call. A reservation is granted while what is
    spent and reserved stays within the limit together, at every instant, over threads and processes on
    one file. A critical call may go on after that, by `critical_limit_usd`.

    Args:
        limit_usd: What may be spent in one window.
        path: A SQLite file, or `:memory:` for a budget that ends with this object.
        name: Budgets of one name on one file are one.
        ceilings: Rising shares and falling tiers; None for the default.
        critical_limit_usd: How much more critical calls may spend; None for the limit once more.
        cap: `allow_critical`, or `block` to stop critical calls at the limit, too.
        window: When it begins anew: `hour`, `day`, `week`, `month`, or `total` for never.
        rolling: Whether the window is the last hour, day, week or 30 days instead of the calendar's.
        tz: The time zone of calendar windows.
        ladder: The tiers, cheap to dear.
        wait_s: How long a reservation that does not fit waits for others to be settled below theirs.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: one of them cannot be meant.
        StoreError: the file cannot be used.
    """

    def __init__(
        self,
        limit_usd: Usd,
        *,
        path: str | Path = MEMORY,
        name: str = "budget",
        ceilings: Sequence[Ceiling] | None = None,
        critical_limit_usd: Usd | None = None,
        cap: Cap = "allow_critical",
        window: Span = "total",
        rolling: bool = False,
        tz: str = "UTC",
        ladder: Ladder = DEFAULT_LADDER,
        wait_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rule = BudgetRule(
            name,
            limit_of("limit_usd", limit_usd),
            window=window,
            rolling=rolling,
            tz=tz,
            ceilings=None if ceilings is None else tuple(ceilings),
            cap=cap,
            critical_limit_nusd=None
            if critical_limit_usd is None
            else limit_of("critical_limit_usd", critical_limit_usd),
            reserve=Decimal(0),  # there is no tool loop to keep anything for
        )
        self.rule.check(ladder)
        self.ladder = ladder
        self._limits = Limits((self.rule,), wait_s=wait_s)
        self._clock = clock
        self._rng = random.SystemRandom()
        self._log: deque[StepDownLine] = deque(maxlen=_KEPT_LINES)
        self._store = SqliteStore(path, clock=clock)
        self._heart = Heart(self._beat)

    def _beat(self) -> None:
        """Say that this process lives, and settle what dead ones have left."""
        self._store.beat()
        recover(self._store)

    def _purse(self, *, critical: bool = False) -> Purse:
        now = self._clock()
        purse = Purse((self.rule,), at=now, is_critical=critical)
        known = self._store.known(Load(accounts=purse.accounts(("",))), now)
        return replace(purse, standings=known.standings, raised=known.raised)

    def recommended_tier(self, preferred: str, critical: bool = False) -> str:  # noqa: FBT001, FBT002 - the reference's words
        """Return the tier to ask: the preferred one, or a cheaper one where the budget runs short.

        Args:
            preferred: A tier's name.
            critical: Whether to keep to it whatever is spent.

        Raises:
            ConfigError: no tier has this name.
        """
        tier = self.ladder[preferred]
        held = self._purse(critical=critical).held(self.ladder, tier.model)
        if held is None or self.ladder.rank(held.tier) >= self.ladder.rank(preferred):
            return preferred
        trigger = f"above {100 * held.above:.0f}%"
        self._log.append(StepDownLine(self._clock(), preferred, held.tier, float(held.percent), trigger))
        return held.tier

    @contextmanager
    def reserve(self, worst_usd: Usd, critical: bool = False) -> Iterator[Reservation]:  # noqa: FBT001, FBT002 - as above
        """Hold the most that a call can cost while the block runs, and settle it there.

        A block that ends without `settle` or `release`, by an exception or not, is charged the whole: the
        call may have been sent, and then nobody knows what it will be billed.

        Raises:
            BudgetExceededError: it does not fit, or did not after `wait_s`; nothing is held.
            StoreError: the file cannot be used; nothing is held.
        """
        claims = self._purse(critical=critical).claims("")
        reserved = self._reserved(_nusd(worst_usd), claims)
        self._heart.start()
        lease = Lease(reserved, claims, _abandoned)
        held = Reservation(reserved, self._store.settle)
        try:
            refusal = _driven(reserve(lease, self._limits, []), partial(self._store.lease, may_wait=True))
        except BaseException:  # it may be granted, and nobody was told
            with suppress(StoreError):
                held.release()
            raise
        if refusal is not None:
            raise refused(refusal, reserved.worst_nusd, self._limits, self.ladder, ())
        try:
            yield held
        finally:
            if held.is_open:
                held.settle(worst_usd)

    def add(self, cost_usd: Usd) -> None:
        """Charge what was spent without a reservation, whether it fits or not: it is spent."""
        reserved = self._reserved(_nusd(cost_usd), self._purse().claims(""))
        Reservation(reserved, self._store.settle).settle(cost_usd)

    def _reserved(self, worst_nusd: int, claims: Sequence[Claim]) -> Reserved:
        charges = tuple(Charge(one.account.id, one.account.window.key, worst_nusd) for one in claims)
        now = self._clock()
        return Reserved(new_id(now, self._rng), "", "answer", "", "", now, worst_nusd, charges)

    @property
    def _standing(self) -> Standing:
        return next(iter(self._purse().standings.values()), Standing())

    @property
    def spent_usd(self) -> Decimal:
        """What was spent in this window."""
        return to_usd(self._standing.spent_nusd)

    @property
    def reserved_usd(self) -> Decimal:
        """What is held for calls under way."""
        return to_usd(self._standing.leased_nusd)

    @property
    def remaining_usd(self) -> Decimal:
        """What is left of the limit; less than nothing where critical calls went on after it."""
        return to_usd(self._purse().remaining_nusd("") or 0)

    @property
    def percent(self) -> float:
        """How much of the limit is spent, in per cent."""
        purse = self._purse()
        left_nusd = purse.remaining_nusd("") or 0
        spent_nusd = next(iter(purse.standings.values()), Standing()).spent_nusd
        return float(percent_of(spent_nusd, spent_nusd + left_nusd))

    @property
    def calls(self) -> int:
        """How many calls were charged in this window."""
        return self._standing.calls

    @property
    def log(self) -> tuple[StepDownLine, ...]:
        """Each time that this object recommended a cheaper tier than the preferred one, oldest first."""
        return tuple(self._log)

    def close(self) -> None:
        """Write what is waiting and close the file."""
        self._heart.stop()
        self._store.close()

    def __enter__(self) -> Self:
        """Return this budget; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _abandoned(_: Facts | None) -> tuple[Settle, Record]:  # pragma: no cover - the block settles by itself
    raise AssertionError


def _nusd(usd: Usd) -> int:
    """Return an amount in whole nano-dollars, rounded up.

    Raises:
        ValueError: it is no amount of dollars.
    """
    try:
        nusd = to_nusd(usd, ROUND_CEILING)
    except ValueError:
        nusd = -1
    if nusd < 0:
        message = f"not an amount of dollars to spend: {usd!r}"
        raise ValueError(message)
    return nusd
