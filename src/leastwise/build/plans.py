"""Which checks a request's answer has to pass: as configured, or as its task says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from operator import attrgetter
from typing import Any, Final, cast

from leastwise.cascade import (
    BUILT_IN,
    HIGHEST_SCORE,
    JUDGE,
    LOWEST_SCORE,
    NO_PLAN,
    Check,
    CheckRow,
    Plan,
    as_check,
    made_of,
)
from leastwise.command import command_check
from leastwise.config import CascadeOptions, Config
from leastwise.errors import ConfigError
from leastwise.judge import VERSION
from leastwise.ladder import Ladder, Streaming, Task, Tier

#: What any answer has to pass, whatever else it is asked: free, and about its form only.
_GATES: Final = ("truncation", "empty", "refusal", "schema", "tools")
_MOST_KEPT: Final = 32  # plans that tasks ask for; functions of theirs are kept with them


class Plans:
    """Makes the plan of each request.

    Args:
        config: The settings in force.
        imports: Whether functions of `[[check]]` are imported: for asking, not for telling what is asked.

    Attributes:
        usual: The plan of a request whose task says nothing; without checks where the cascade is off.

    Raises:
        ConfigError: `[cascade] checks` names a check that does not exist, or a function cannot be imported.
    """

    def __init__(self, config: Config, *, imports: bool = True) -> None:
        options = config.cascade
        judge = _judge_of(options, config.ladder)
        own = {row.name: _made(row, imports=imports) for row in config.checks}
        self._known = {**BUILT_IN, JUDGE: Check(JUDGE, _not_asked, "judge", version=VERSION), **own}
        self._ladder = config.ladder
        is_reference = config.preset == "reference"
        self._base = Plan(
            judge=judge,
            threshold=options.threshold,
            escalate_to=options.escalate_to or (_middle(config.ladder) if is_reference else ""),
            unparsable="accept" if is_reference and _is_untold(config, "unparsable") else options.unparsable,
            stream=options.stream,
            overloaded=options.overloaded if options.enabled else "fail",
            controls=0.0 if is_reference and _is_untold(config, "controls") else options.controls,
            governs=not is_reference,
            trusts_self=is_reference,
            probes=options.probes,
            floor_s=options.floor_s,
        )
        names = options.checks if options.enabled else ()
        self.usual = replace(self._base, checks=tuple(as_check(name, known=self._known) for name in names))
        self._kept = lru_cache(_MOST_KEPT)(self._of)

    def __call__(self, task: Task) -> Plan:
        """Return the plan of a request.

        Raises:
            ConfigError: the task names a check or a tier that does not exist.
        """
        if task.check is None and task.threshold is None and not task.escalate_to and task.stream is None:
            return self.usual
        if task.check is False:
            return NO_PLAN
        told = JUDGE if task.check is True else task.check
        many = told if isinstance(told, Sequence) and not isinstance(told, str) else (told,)
        key = (tuple(many), task.threshold, task.escalate_to, task.stream)
        try:
            hash(key)
        except TypeError:  # a function that is an object of the caller's, which may change
            return self._of(*key)
        return self._kept(*key)

    def _of(
        self,
        told: tuple[Any, ...],
        threshold: float | None,
        escalate_to: str | None,
        stream: Streaming | None,
    ) -> Plan:
        plan = self.usual
        if told != (None,):
            given = (*_GATES, *(one for one in told if one not in _GATES))
            plan = replace(self._base, checks=tuple(as_check(one, known=self._known) for one in given))
        if escalate_to:
            self._ladder[escalate_to]  # refuses a tier that does not exist
        is_run = any(check.kind == "run" for check in plan.checks)  # by its own scale, for all we know
        if threshold is not None and plan.is_judged and not is_run:
            _check_score(threshold)
        return replace(
            plan,
            threshold=plan.threshold if threshold is None else float(threshold),
            escalate_to=escalate_to or plan.escalate_to,
            stream=stream or plan.stream,
        )


def _check_score(threshold: float) -> None:
    if not LOWEST_SCORE <= threshold <= HIGHEST_SCORE:
        message = f"threshold={threshold!r}: the judge's scores go from {LOWEST_SCORE} to {HIGHEST_SCORE}"
        raise ConfigError(message)


def _made(row: CheckRow, *, imports: bool) -> Check:
    """Return the check of a [[check]].

    Raises:
        ConfigError: its function cannot be imported, or is none.
    """
    if row.command:
        return command_check(row)
    if not row.function:
        return made_of(row)
    if not imports:
        return Check(row.name, _not_asked, "run", version=row.function)
    where = f"[[check]] {row.name}: function = {row.function!r}"
    function = imported(row.function, where)
    try:
        check = as_check(function, row.name)
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from None
    return replace(check, version=row.function, timeout_s=row.timeout_s, threshold=row.threshold)


def imported(named: str, whose: str) -> Callable[..., Any]:
    """Return a function of the user's.

    Args:
        named: As `module:name`.
        whose: Where it is named, for messages.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    module, _, name = named.partition(":")
    try:
        found = attrgetter(name)(import_module(module))
    except Exception as error:  # a module of the user's may raise anything
        message = f"{whose} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(message) from error
    if not callable(found):
        message = f"{whose} is a {type(found).__name__}: expected a function"
        raise ConfigError(message)
    return cast("Callable[..., Any]", found)


def _judge_of(options: CascadeOptions, ladder: Ladder) -> Tier:
    """Return who judges: a tier, a model off the ladder, or the lowest tier."""
    if not options.judge:
        return ladder.tiers[0]
    return ladder[options.judge] if options.judge in ladder else ladder.serving(options.judge)


def _is_untold(config: Config, name: str) -> bool:
    return f"cascade.{name}" not in config.origins


def _middle(ladder: Ladder) -> str:
    """Return the tier that the reference escalates to."""
    return ladder.tiers[len(ladder.tiers) // 2].name


def _not_asked(*_: object) -> None:  # pragma: no cover - the core asks the judge itself
    raise AssertionError


def in_force_hash(policy_hash: str, usual: Plan) -> str:
    """Return what names the policy in force together with the checks, where there are any."""
    if not usual.checks:
        return policy_hash
    return sha256(f"{policy_hash} {usual.digest}".encode()).hexdigest()[: len(policy_hash)]
