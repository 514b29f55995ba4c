"""Putting a configured Leastwise together.

A `Runtime` is what clients, commands and later the gateway hold: the ledger, the
terms of exchanges, and the configuration, which is read again when its file
changes, so that `leastwise on` and `off` take effect without a restart.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from leastwise import account
from leastwise.attempt import Call, Terms, moment
from leastwise.budget import BudgetRule, limit_of
from leastwise.build.answers import word_on
from leastwise.build.plans import Plans, in_force_hash
from leastwise.build.stores import open_cache, usable_cache, usable_store
from leastwise.build.trials import Trials
from leastwise.cache import NO_CACHE, Caching, key_of
from leastwise.cascade import JUDGE, NO_PLAN
from leastwise.cascade.trials import OpenTrial
from leastwise.catalogue import Catalogue, Row, known_models
from leastwise.client import Desk
from leastwise.compile import fit
from leastwise.config import (
    Config,
    Upstream,
    limits,
    load,
    policy,
    price_book,
)
from leastwise.errors import LeastwiseError
from leastwise.features import AGENT_HEADER, Features
from leastwise.heart import Heart
from leastwise.ladder import (
    AUTO,
    CACHE_USES,
    Adviser,
    CacheUse,
    Code,
    Decision,
    Mode,
    Outcome,
    Reason,
    Task,
    Tier,
)
from leastwise.ledger import Source, new_id
from leastwise.messages import JSON, Facts, Reply, Request
from leastwise.models import canonical
from leastwise.money import show
from leastwise.notify import Seen, watch
from leastwise.prices import check_judge, check_ladder
from leastwise.routing import Known, Router, observing_line
from leastwise.stores import CacheStore, Query, Store, recover
from leastwise.trial import Compare, Pair, no_measure, to_ask, unsuited

_log: Final = logging.getLogger(__name__)

#: The upstream that stands for the client the caller brought.
OWN_UPSTREAM: Final = "anthropic"

#: Modes in which a request is routed, so that the configuration may have it answered from the cache.
_CHOSEN: Final = ("auto", "enforce")
#: What `leastwise-cache` may say: the words of `Task(cache=...)`.
_TOLD: Final[Mapping[str, CacheUse]] = {**{use: use for use in CACHE_USES}, "true": "write", "false": "off"}
_LAST_DRAW: Final = 0.999999  # outside any share that is not the whole
_RELOAD_S: Final = 1.0
_LIST_AGAIN_S: Final = 3600.0
_OBSERVED_S: Final = 7 * 24 * 3600
_RETRIES: Final = 2  # of a pair of a trial

T = TypeVar("T")


class Runtime:
    """A configured Leastwise: its ledger, its policy, and the exchanges that go by them.

    Safe to share between threads, and usable in the child after a fork.

    Args:
        config: The configuration.
        store: The ledger with its budgets; by default the configured ones are opened. Where none are
            configured and the usual place cannot be written, they are kept in memory, with a warning.
        cache: The kept answers; by default the configured ones, unless the cache is off.
        budget_usd: A budget for all that goes through this runtime, beside the configured ones.
        reload: Reads the configuration again; None keeps it for good.
        clock: Seconds since the epoch.
        rng: Draws ids, shares and jitter; the default is safe after a fork.

    Raises:
        ConfigError: the configuration cannot work, such as a ladder whose prices do not rise.
        StoreError: the configured ledger cannot be opened.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store | None = None,
        cache: CacheStore | None = None,
        budget_usd: Decimal | str | float | None = None,
        reload: Callable[[], Config] | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._own = () if budget_usd is None else (self._own_budget(budget_usd),)
        self.store: Store = store if store is not None else usable_store(config, clock)
        self.desk = Desk(self.store, clock, self._cache_of(config, cache))
        self.trials = Trials(self.desk, clock)
        self._heart = Heart(self._beat)
        self._watch = Heart(self._look_after)  # may take longer than a process may be silent
        self._told: dict[str, Seen] = {}
        self._reload = reload
        self._looked_at = clock()
        self._seen = _stamps(config)
        self._others: WeakKeyDictionary[object, dict[Upstream, Any]] = WeakKeyDictionary()
        self._listed_at = -_LIST_AGAIN_S
        self._unsaid = [True]  # popped once, by whoever says it: `list.pop` is atomic
        self._adopt(config)

    @classmethod
    def open(
        cls,
        *,
        mode: Mode | None = None,
        path: Path | None = None,
        budget_usd: Decimal | str | float | None = None,
    ) -> Self:
        """Return the runtime that the environment and the configuration files describe.

        Raises:
            ConfigError: a file or variable is wrong, or `budget_usd` is no amount of dollars.
            StoreError: the ledger cannot be opened.
        """
        arguments: dict[str, object] = {} if mode is None else {"mode": mode}
        read = partial(load, path, os.environ, arguments=arguments)
        return cls(read(), reload=read, budget_usd=budget_usd)

    def _cache_of(self, config: Config, given: CacheStore | None) -> Callable[[], CacheStore]:
        """Return what opens the kept answers; those on a server are opened now, for it must be there."""
        if given is None and config.store.cache and config.cache.on != "off":
            given = open_cache(config, self._clock)
        if given is not None:
            return lambda: given
        return lambda: usable_cache(self.config, self._clock)  # which may have switched it on meanwhile

    def _own_budget(self, usd: Decimal | str | float) -> BudgetRule:
        """Return a budget of this runtime's own, whose name nobody else has."""
        name = f"client-{new_id(self._clock(), self._rng)}"
        return BudgetRule(name, limit_of("budget_usd", usd), window="total")

    def _adopt(self, config: Config) -> None:
        book, models = price_book(config), known_models(config.cache_folder, config.base_urls)
        at = moment(self._clock())
        check_ladder(config.ladder, at, book)
        check_judge(config.cascade.judge, config.ladder, at, book)
        rules = policy(config)
        fits = partial(fit, models=models, is_strict=rules.strict)
        self.router = router = Router(config.ladder, rules, prices=book, models=models, fits=fits)

        def decide(call: Call, read: Features, known: Known, draw: float) -> Decision:
            now, headers = moment(call.at), call.headers
            return router.decide(
                call.request,
                call.task,
                known=known,
                now=now,
                draw=draw,
                headers=headers,
                features=read,
                plan=call.plan,
            )

        named = [rule.header.partition(":")[0].strip().lower() for rule in rules.rules if rule.header]
        if any(rule.role for rule in rules.rules):
            named.append(AGENT_HEADER)
        others = {name: one.base_url for name, one in config.upstreams.items() if name != OWN_UPSTREAM}
        self.plans = Plans(config)
        digest = in_force_hash(router.policy_hash, self.plans.usual)
        in_force = repr((digest, others, config.prices))

        def caching(call: Call) -> Caching:
            use = _use_of_cache(call, config, router)
            if use == "off" or call.plan.key is None:
                return NO_CACHE
            key = key_of(
                call.request,
                call.task,
                tenant=call.tenant,
                origin=call.origin,
                policy_hash=f"{in_force} {call.plan.key}",
                headers=call.headers,
                named=named,
            )
            mode = router.mode_of(call.request, call.task, _LAST_DRAW)
            return Caching(key, reads=use != "refresh", keeps=use != "read", mode=mode)

        def below(call: Call, decision: Decision) -> Tier | None:
            return router.below(call.request, call.task, decision, moment(call.at))

        budgets = limits(config)
        self.config = config
        self.terms = Terms(
            decide=decide,
            fit=fits,
            ladder=config.ladder,
            book=book,
            models=models,
            policy_hash=digest,
            adviser=_adviser(config, router),
            limits=replace(budgets, rules=(*budgets.rules, *self._own)),
            below=below,
            caching=caching,
            clock=self._clock,
            rng=self._rng,
        )

    def _beat(self) -> None:
        """Say that this process lives."""
        self.store.beat()

    def _look_after(self) -> None:
        """Settle what dead processes have left, tell of budgets that run short."""
        for entry in recover(self.store):
            _log.warning(
                "a process died with %s reserved for %s: charged in full until it is known better",
                show(entry.cost_nusd),
                entry.model,
            )
        terms, webhook = self.terms, self.config.notify.webhook
        now = self._clock()
        watch(self.store, terms.limits, terms.ladder, terms.book, webhook, now, seen=self._told)

    def wants_models(self, base_url: str) -> bool:
        """Tell whether an upstream should be asked which models it has; at most once an hour it should.

        Only of an upstream that is configured: its answer would be used for no other.
        """
        now = self._clock()
        if now - self._listed_at < _LIST_AGAIN_S:
            return False
        self._listed_at = now
        known = base_url.rstrip("/") in self.config.base_urls
        kept = Catalogue(self.config.cache_folder)
        return self.config.refresh_models and known and not kept.is_fresh(base_url, now)

    def learn_models(self, base_url: str, rows: Iterable[Row]) -> None:
        """Keep an upstream's listing of its models; calls go by it within a second, in every process."""
        Catalogue(self.config.cache_folder).keep(base_url, rows, self._clock())

    def call(
        self,
        request: Request,
        task: Task,
        *,
        max_retries: int,
        key: str = "",
        headers: Mapping[str, str] | None = None,
        origin: str = "",
    ) -> Call:
        """Return `request` as it enters an exchange, under the configuration now in force."""
        now = self._clock()
        if not 0 <= now - self._looked_at < _RELOAD_S:
            self._looked_at = now
            self._look_again()
        if self._unsaid:
            self._say_if_observing(request)
        if self.terms.limits.rules:
            self._heart.start()
            self._watch.start()
        id_, plan = new_id(now, self._rng), self.plans(task)
        if not task.route or self.router.mode_of(request, task) not in _CHOSEN:
            plan = NO_PLAN  # where nothing is chosen nothing is checked
        return Call(
            id_,
            now,
            request,
            task,
            key=key,
            max_retries=max_retries,
            headers=headers or {},
            origin=origin,
            plan=plan,
        )

    def pair(
        self,
        trial: OpenTrial,
        request: Request,
        message: Mapping[str, JSON],
        *,
        baseline: str = "",
        function: Compare | None = None,
        scores: bool = False,
        waits: bool = True,
    ) -> Pair | str:
        """Return a request with its answer as a pair of a trial, or why it is none.

        Args:
            trial: The trial.
            request: What was asked.
            message: What was answered, as the API's decoded message.
            baseline: The model to be asked where the tier on trial has answered; "" for none.
            function: The user's comparison, if the trial names one.
            scores: Whether the cascade's judge scores the tier's answer, too.
            waits: Whether money that is reserved for others may be waited for.
        """
        given, terms = Reply(message, Facts.read(message), message=message), self.terms
        tier = terms.ladder[trial.tier]
        asked = to_ask(terms, tier, given.facts.model, baseline)
        why = unsuited(request)
        if why:
            return why
        lacks = no_measure(given) if asked is None or asked == tier else ""
        if lacks:
            return f"its answer {lacks}"
        if asked is None:
            return f"answered by {given.facts.model or 'nobody known'}, no dearer than {tier}"
        self._heart.start()
        if not waits:
            terms = replace(terms, limits=replace(terms.limits, wait_s=0.0))
        now = self._clock()
        task = Task(tag=trial.tag)
        plan = self.plans(replace(task, check=JUDGE)) if scores else NO_PLAN
        call = Call(new_id(now, self._rng), now, request, task, max_retries=_RETRIES, plan=plan)
        return Pair(trial, call, terms, given, tier, asked, function, scores)

    def live_pair(
        self, trial: OpenTrial, request: Request, message: Mapping[str, JSON], outcome: Outcome
    ) -> Pair | None:
        """Return what was just answered as a pair of a trial; None where it is none."""
        ladder = self.config.ladder
        is_same = trial.tier in ladder and canonical(ladder[trial.tier].model) == trial.model
        is_off = "off" in (self.config.mode, outcome.mode)
        if is_off or outcome.from_cache or not is_same:
            return None
        made = self.pair(trial, request, message, baseline=outcome.baseline_model, waits=False)
        return made if isinstance(made, Pair) else None

    def _look_again(self) -> None:
        """Adopt the configuration anew when one of its files changed; keep the old one when it is wrong.

        What upstreams list is among the files: whoever keeps it leaves it to the calls to go by it, so
        that no thread puts back a configuration that another has just replaced.
        """
        stamps = _stamps(self.config)
        if stamps == self._seen:
            return
        self._seen = stamps  # taken before reading: what changes meanwhile is read the next time
        try:
            config = self._reload() if self._reload is not None else self.config
            self._adopt(config)
        except (LeastwiseError, OSError, ValueError) as error:
            _log.error("the changed configuration is not used, the one before stays in force: %s", error)
        else:
            _log.info("configuration read again: mode %s, policy %s", config.mode, self.terms.policy_hash)

    def _say_if_observing(self, request: Request) -> None:
        is_ours = request.model in AUTO or request.model in self.config.ladder
        if self.config.mode != "observe" or is_ours:
            return
        with suppress(IndexError):
            self._unsaid.pop()
            sums = self.desk.read(lambda: observed(self.store, self._clock()), None)
            _log.warning("%s", observing_line(self.router.policy.switched_on, sums))

    def other_client(self, upstream: str, owner: object, make: Callable[[Upstream], T]) -> T | None:
        """Return the client for a named upstream; None for the caller's own, `anthropic`.

        Made once for `owner`, and again when the upstream's configuration changes: a client belongs
        to one event loop, or to none.
        """
        if upstream == OWN_UPSTREAM:
            return None
        made = self._others.setdefault(owner, {})
        wanted = self.config.upstreams[upstream]
        if wanted not in made:
            made[wanted] = make(wanted)
        found: T = made[wanted]
        return found

    def others_of(self, owner: object) -> tuple[Any, ...]:
        """Return the clients made for `owner`, and forget them: whoever asks closes them."""
        return tuple(self._others.pop(owner, {}).values())

    def outcome(self, any_id: str) -> Outcome | None:
        """Return what the ledger knows of an exchange id, a `msg_...` id or a `request-id`."""
        story = self.store.find(any_id)
        if story is None:
            return None
        kept = msgspec.json.decode(story.exchange.decision_json)
        reasons = tuple(Reason(Code(code), *rest) for code, *rest in kept["reasons"])
        return account.outcome_of(
            story.exchange,
            list(story.entries),
            reasons,
            self.terms,
            verdicts=story.verdicts,
            trials=self.store.evidence("").trials,
        )

    def feedback(self, any_id: str, *, ok: bool, source: Source = "user", note: str = "") -> None:
        """Keep whether an answer was acceptable: it counts in calibrations, and for or against its tier.

        Args:
            any_id: An exchange id, a `msg_...` id or a `request-id`. Of a kept answer that was given again
                it is said of the call that paid for it.
            ok: Whether it was.
            source: Who says so: `user`, `tests`, or `agreement` with a better answer.
            note: What was said of it.

        Raises:
            StoreError: the ledger knows no such call, nobody answered it, or it cannot be written.
            TypeError: `ok` is neither True nor False.
        """
        if ok not in (True, False):
            message = f"ok={ok!r}: expected True or False"
            raise TypeError(message)
        self.store.flush()
        at, where = self._clock(), self.config.store.shown
        word = word_on(
            self.store, self.config.ladder, any_id, ok=ok, source=source, at=at, note=note, where=where
        )
        self.store.add_feedback(word.feedback)

    def close(self) -> None:
        """Write what is waiting and close the stores."""
        self.trials.close()
        self._watch.stop()
        self._heart.stop()
        self.desk.close()

    def __enter__(self) -> Self:
        """Return this runtime; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _adviser(config: Config, router: Router) -> Adviser | None:
    """Return the small model that the config names, None when it names none."""
    if not config.classifier.llm_tier or config.preset:
        return None
    tier = config.ladder[config.classifier.llm_tier]
    return Adviser(tier.model, tier.upstream, router.teller.kinds)


def _use_of_cache(call: Call, config: Config, router: Router) -> CacheUse:
    """Return what a request does with the cache: as it says, else as configured where it is routed.

    Nothing where all is switched off, nor where a share is routed: the rest must not get its answers.
    """
    told = call.task.cache_use or call.headers.get("leastwise-cache")
    is_on = config.cache.on == "all" or call.task.tag in config.cache.tags
    if config.cache.on == "off" or (told is None and not is_on):
        return "off"
    first, last = (router.mode_of(call.request, call.task, draw) for draw in (0.0, _LAST_DRAW))
    if first != last or last == "off":
        return "off"
    if told is not None:
        return _TOLD.get(told.strip().lower(), "off")
    return "write" if last in _CHOSEN else "off"


def observed(store: Store, now: float) -> tuple[int, int]:
    """Return what observed calls of the last week could have saved and what they cost, in nano-dollars."""
    lines = store.sums(Query(since=now - _OBSERVED_S, by=("mode",)))
    mine = [line for line in lines if line.group == ("observe",)]
    return sum(line.could_nusd for line in mine), sum(line.spent_nusd for line in mine)


def _stamps(config: Config) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of each file of configuration and listings, 0 for one that is gone."""
    listings = filter(None, map(Catalogue(config.cache_folder).file, config.base_urls))
    stamps = []
    for path in (*config.watched, *listings):
        try:
            stat = path.stat()
        except OSError:
            stamps.append((str(path), 0, 0))
        else:
            stamps.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(stamps)
