"""What the user configured of routing, and what the ledger knows of this request: values only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from leastwise.budget import Purse, Standing
from leastwise.cascade import NO_EVIDENCE, Evidence
from leastwise.errors import ConfigError
from leastwise.features import Role
from leastwise.ladder import COMPLEXITIES, MODES, Complexity, Ladder, Mode
from leastwise.money import show
from leastwise.routing.signals import Signals
from leastwise.routing.types import OwnType
from leastwise.routing.warmth import Warmth

BASELINE: Final = "baseline"
PRESETS: Final = ("", "reference")
Preset = Literal["", "reference"]

_ROLES: Final = get_args(Role)
_PERCENT: Final = 100
_DEFAULT_COMPLEXITY: Final[Mapping[Complexity, str]] = MappingProxyType(
    {"simple": "haiku", "standard": "sonnet", "complex": "opus"}
)
_DEFAULT_CLAMPS: Final[Mapping[Complexity, int]] = MappingProxyType(
    {"simple": 50, "standard": 1024, "complex": 4096}
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[rule]]: all conditions given must hold; then a complexity or a tier is chosen.

    A rule that names a tier is obeyed like a forced one; a rule that names a complexity
    may still be raised by signals.

    Args:
        match: A phrase, found as whole words in the description or the ask.
        tag: The task's tag.
        role: `main`, `subagent` or `background`, as read off a coding agent's request.
        header: A request header: its name, or `name: value`.
        complexity: What to take the task for.
        tier: The tier to use.
    """

    match: str = ""
    tag: str = ""
    role: Role = ""
    header: str = ""
    complexity: Complexity | None = None
    tier: str | None = None

    def __post_init__(self) -> None:
        """Refuse a rule without a condition, or without exactly one choice.

        Raises:
            ConfigError: says which.
        """
        if not (self.match.strip() or self.tag or self.role or self.header):
            message = f"[[rule]] {self}: give at least one of match, tag, role, header"
            raise ConfigError(message)
        if (self.complexity is None) == (self.tier is None):
            message = f"[[rule]] {self}: give either complexity or tier"
            raise ConfigError(message)
        if self.complexity is not None and self.complexity not in COMPLEXITIES:
            message = f"[[rule]] complexity = {self.complexity!r}: expected one of {', '.join(COMPLEXITIES)}"
            raise ConfigError(message)
        if self.role not in _ROLES:
            message = f"[[rule]] role = {self.role!r}: expected one of {', '.join(filter(None, _ROLES))}"
            raise ConfigError(message)

    def __str__(self) -> str:
        """Return the conditions as configured."""
        given = {name: getattr(self, name) for name in ("match", "tag", "role", "header")}
        return ", ".join(f"{name} = {value!r}" for name, value in given.items() if value)


@dataclass(frozen=True, slots=True)
class Switch:
    """The mode of one tag, and for `enforce` the share of its calls that is routed."""

    tag: str
    mode: Mode
    percent: float = 100

    def __post_init__(self) -> None:
        """Refuse an unknown mode and a share outside 0 to 100.

        Raises:
            ConfigError: names the value.
        """
        _check_mode(f"switch of tag {self.tag!r}", self.mode, self.percent)


def _check_mode(where: str, mode: str, percent: float) -> None:
    if mode not in MODES:
        message = f"{where}: mode = {mode!r}: expected one of {', '.join(MODES)}"
        raise ConfigError(message)
    if not 0 <= percent <= _PERCENT:
        message = f"{where}: percent = {percent!r}: expected a number from 0 to 100"
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything configured that a decision depends on, but for the ladder and the prices.

    Attributes:
        mode: For requests that name a real model; `off` switches everything off.
        percent: Share of the requests to be enforced that is routed; the rest is observed. A conversation
            with a prompt cache is in it or out of it as a whole.
        switches: Modes of single tags.
        reroute: Patterns (`claude-opus-*`) of real models that are routed even while observing.
        unsure: Where a request goes that nothing tells about: `baseline`, or a tier.
        strict: Whether a tier is unfit where something of the request would have to be left out.
        complexity: The tier for each complexity.
        signals: Thresholds of way 2.
        rules: The user's rules; the first that holds decides.
        learned: Whether the learned classifier tells the type where no phrase does.
        llm_tier: The tier whose model is asked for the type where nothing else tells; "" asks none.
        types: The user's own types of task, known by examples.
        preset: `reference` for the reference's lists, thresholds and estimates.
        allowed_tiers: Tiers that may be chosen; None for all.
        clamp: Whether `max_tokens` may be lowered to what the complexity needs.
        max_tokens: That need, per complexity.
    """

    mode: Mode = "observe"
    percent: float = 100
    switches: tuple[Switch, ...] = ()
    reroute: tuple[str, ...] = ()
    unsure: str = BASELINE
    strict: bool = False
    complexity: Mapping[Complexity, str] = field(default_factory=lambda: _DEFAULT_COMPLEXITY)
    signals: Signals = field(default_factory=Signals)
    rules: tuple[Rule, ...] = ()
    learned: bool = True
    llm_tier: str = ""
    types: tuple[OwnType, ...] = ()
    preset: Preset = ""
    allowed_tiers: tuple[str, ...] | None = None
    clamp: bool = False
    max_tokens: Mapping[Complexity, int] = field(default_factory=lambda: _DEFAULT_CLAMPS)

    def __post_init__(self) -> None:
        """Refuse what can be judged without a ladder.

        Raises:
            ConfigError: names the key and its value.
        """
        _check_mode("mode", self.mode, self.percent)
        if self.preset not in PRESETS:
            message = f"preset = {self.preset!r}: expected reference, or leave it out"
            raise ConfigError(message)
        for key, table in (("complexity", self.complexity), ("max_tokens", self.max_tokens)):
            if set(table) != set(COMPLEXITIES):
                message = f"[{key}] has {', '.join(table)}: give {', '.join(COMPLEXITIES)}"
                raise ConfigError(message)
        names = [each.name for each in self.types]
        for name in names:
            if names.count(name) > 1:
                message = f"[[type]] name = {name!r}: given twice; put all examples into one"
                raise ConfigError(message)
        if self.allowed_tiers is not None and not self.allowed_tiers:
            message = "allowed_tiers is empty: name at least one tier, or leave it out"
            raise ConfigError(message)

    @classmethod
    def reference(cls, **changes: Any) -> Policy:
        """Return the reference's policy: its lists, thresholds and clamps."""
        return cls(**{"preset": "reference", "clamp": True, **changes})

    @property
    def is_reference(self) -> bool:
        """Whether the reference's lists and thresholds decide instead of ours."""
        return self.preset == "reference"

    @property
    def switched_on(self) -> tuple[str, ...]:
        """What is routed although the rest is observed: tags, and patterns of models."""
        tags = tuple(f"tag {switch.tag}" for switch in self.switches if switch.mode == "enforce")
        return (*tags, *self.reroute) if self.mode == "observe" else ()

    def check(self, ladder: Ladder) -> None:
        """Refuse names that are no tier of `ladder`.

        Raises:
            ConfigError: names the tier and those there are.
        """
        names = [*self.complexity.values(), *(self.allowed_tiers or ())]
        names += [rule.tier for rule in self.rules if rule.tier is not None]
        names += [own.tier for own in self.types if own.tier is not None]
        names += [name for name in (self.unsure, self.llm_tier) if name not in (BASELINE, "")]
        for name in names:
            ladder[name]

    def digest(self, ladder: Ladder, *data: str) -> str:
        """Return twelve hexadecimal digits that name this policy with its ladder.

        Args:
            ladder: The tiers.
            data: Digests of what else decides: word lists, weights.
        """
        content = json.dumps([_plain(self), _plain(ladder), *data], sort_keys=True, separators=(",", ":"))
        return sha256(content.encode()).hexdigest()[:12]


def observing_line(switched_on: Sequence[str], sums: tuple[int, int] | None) -> str:
    """Return the line that says nothing is saved yet.

    Args:
        switched_on: What is routed all the same (`Policy.switched_on`).
        sums: What could be saved and what was spent, in nano-dollars; None where neither is known.
    """
    if switched_on:
        line = (
            f"OBSERVING, but for {', '.join(switched_on)}: every other call goes to the model it asked for."
        )
    else:
        line = "OBSERVING: every call goes to the model it asked for."
    if sums is not None and any(sums):
        could, spent = map(show, sums)
        line += f" Up to {could} of {spent} could move, quality unknown."
    return f"{line} Switch on: leastwise on"


def _plain(value: Any) -> Any:
    """Return a configured value as JSON would hold it."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows that a decision needs.

    Attributes:
        pins: Which model made a tool call, by the call's id.
        baseline: The model that this tag's traffic used to ask for.
        corrections: Real over estimated prompt tokens, by tokenizer (`features.learn_correction`).
        opinion: The type of task that a small model took this very ask for, or "".
        ask_key: The ask that it was just paid for; "" where it was known before.
        warmths: What the session has in prompt caches, warm or not, by the model's plain id.
        standings: How the accounts that may pay for it stand, by their ids.
        raised: Money added to budgets for now, by the budget's name.
        purse: What budgets say of it.
        evidence: How its checks went so far.
        floor: The tier that its session escalated to last, or "".
        floor_at: When it did, seconds since the epoch.
    """

    pins: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None
    corrections: Mapping[str, float] = field(default_factory=dict)
    opinion: str = ""
    ask_key: str = ""
    warmths: Mapping[str, Warmth] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    raised: Mapping[str, int] = field(default_factory=dict)
    purse: Purse = field(default_factory=Purse)
    evidence: Evidence = NO_EVIDENCE
    floor: str = ""
    floor_at: float = 0.0
