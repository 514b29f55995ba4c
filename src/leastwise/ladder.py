"""Tiers, tasks and decisions: the values that routing, budgets and reports pass around.

A *tier* is a named rung of the *ladder*, cheap to dear: a model and the upstream
that serves it. A *task* is what the caller tells us of a request. A *decision* is
which model runs, which would have run without us (the *baseline*), and the
reasons, one for each step that had a say. What is made anew for every request is
a frozen `msgspec.Struct`: the same as a frozen dataclass, made in a tenth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, get_args

import msgspec

from leastwise.errors import ConfigError

Complexity = Literal["simple", "standard", "complex"]
COMPLEXITIES: tuple[Complexity, ...] = get_args(Complexity)
Mode = Literal["observe", "enforce", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)
HowBaseline = Literal["asked", "learned", "stated", "assumed"]
Says = Literal["accept", "escalate", "abstain"]
SAYS: tuple[Says, ...] = get_args(Says)
#: How a checked stream reaches the caller: held until all checks are done, let go when its first words
#: pass, or one of both by what the checks need.
Streaming = Literal["auto", "buffer", "commit"]
STREAMINGS: tuple[Streaming, ...] = get_args(Streaming)
#: What a request may do with the cache: nothing; be answered from it; also be kept in it; only be kept anew.
CacheUse = Literal["off", "read", "write", "refresh"]
CACHE_USES: tuple[CacheUse, ...] = get_args(CacheUse)

#: Model names that ask us to choose; the second is shown by pickers that list only `claude...`.
AUTO = ("auto", "claude-auto")

WORD_TO_TOKENS = 1.3  # the reference's rule of thumb for sizes given in words


@dataclass(frozen=True, slots=True)
class Tier:
    """A rung of the ladder: its name, its model, and the upstream that serves it."""

    name: str
    model: str
    upstream: str = "anthropic"

    def __str__(self) -> str:
        """Return how it is called in a reason: by its name, off the ladder by its model."""
        return self.name or self.model


@dataclass(frozen=True, slots=True)
class Ladder:
    """Tiers from cheap to dear. That prices rise along it is checked where prices are known (`prices`)."""

    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        """Refuse an empty ladder, a name that is empty or given twice, and one that asks for a choice."""
        if not self.tiers:
            message = "the ladder has no tier; write at least one [[tier]] with name and model"
            raise ConfigError(message)
        names = [tier.name for tier in self.tiers]
        for name in names:
            if not name:
                message = "a tier has an empty name; give each [[tier]] its own name"
                raise ConfigError(message)
            if names.count(name) > 1:
                message = f"two tiers are named {name!r}; give each [[tier]] its own name"
                raise ConfigError(message)
            if name in AUTO:
                message = f"a tier cannot be named {name!r}: that name asks Leastwise to choose"
                raise ConfigError(message)

    def __iter__(self) -> Iterator[Tier]:
        """Iterate tiers, cheapest first."""
        return iter(self.tiers)

    def __contains__(self, name: object) -> bool:
        """Tell whether a tier has this name."""
        return any(tier.name == name for tier in self.tiers)

    def __getitem__(self, name: str) -> Tier:
        """Return the tier of this name.

        Raises:
            ConfigError: there is none; the message lists those there are.
        """
        for tier in self.tiers:
            if tier.name == name:
                return tier
        message = f"no tier is named {name!r}; the ladder has {', '.join(t.name for t in self)}"
        raise ConfigError(message)

    def rank(self, name: str) -> int:
        """Return the tier's place, 0 for the cheapest."""
        return self.tiers.index(self[name])

    def of_model(self, model: str) -> Tier | None:
        """Return the tier that runs `model`, or None when the model is off the ladder."""
        return next((tier for tier in self.tiers if tier.model == model), None)

    def serving(self, model: str) -> Tier:
        """Return the tier that runs `model`; off the ladder one without a name, from where it always came."""
        return self.of_model(model) or Tier("", model)

    @property
    def top(self) -> Tier:
        """The dearest tier."""
        return self.tiers[-1]


@dataclass(frozen=True, slots=True)
class Adviser:
    """The small model that is asked what kind of task a request is (`triage`).

    Attributes:
        model: The model.
        upstream: Who serves it.
        kinds: What it may answer: a type of task -> the work it stands for, in words.
    """

    model: str
    upstream: str
    kinds: Mapping[str, str]


DEFAULT_LADDER = Ladder(
    (
        Tier("haiku", "claude-haiku-5-5"),
        Tier("sonnet", "claude-sonnet-5-5"),
        Tier("opus", "claude-opus-5-5"),
    )
)

#: The ladder of `preset = "reference"`: the models its designs were written for.
REFERENCE_LADDER = Ladder(
    (
        Tier("haiku", "claude-haiku-4-5"),
        Tier("sonnet", "claude-sonnet-4-6"),
        Tier("opus", "claude-opus-4-6"),
    )
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Task:
    """What the caller tells us of one request; every part may be left out.

    Args:
        description: What is to be done, in words; decides before the prompt does.
        complexity: Forces the tier that this complexity maps to.
        tier: Forces a tier by name.
        tag: The caller's name for this kind of traffic; reports and switches go by it.
        session: Names the conversation this request belongs to.
        expected_output_tokens: Size of the answer, in tokens.
        expected_output_words: The same in words (x 1.3); ignored when tokens are given.
        has_code: Whether the request is about code; looked for when None.
        has_tools: Whether the answer may call tools; read off the request when None.
        instead_of: The model that would have been called without Leastwise: the baseline of `auto`.
        route: False sends this request untouched to the model it asks for (`auto`: to the baseline).
        critical: Whether budgets must not step this task down; a cap may let it go on.
        cache: Whether an equal request's answer may be given again and kept: True or False, or
            `read` (given, not kept), `write` (the same as True), `refresh` (asked anew, and kept), `off`.
            None for what the configuration says.
        check: What the answer must pass: a function of (request, reply) that returns True or False, a score
            or a `Verdict`; a check of `leastwise.checks`; the name of one that is configured; or several.
            They come after those that are free and in the judge's place. True for the judge, False for no
            checks at all.
        threshold: The least score, on the check's own scale (the judge's is 1 to 5), that is accepted.
        escalate_to: The dearest tier that may answer when a check does not accept.
        stream: How a checked stream reaches you: `buffer` holds it until all checks are done, `commit` lets
            it go as soon as its first words pass; None for what the configuration says.
    """

    description: str | None = None
    complexity: Complexity | None = field(default=None, kw_only=True)
    tier: str | None = field(default=None, kw_only=True)
    tag: str | None = field(default=None, kw_only=True)
    session: str | None = field(default=None, kw_only=True)
    expected_output_tokens: int | None = field(default=None, kw_only=True)
    expected_output_words: int | None = field(default=None, kw_only=True)
    has_code: bool | None = field(default=None, kw_only=True)
    has_tools: bool | None = field(default=None, kw_only=True)
    instead_of: str | None = field(default=None, kw_only=True)
    route: bool = field(default=True, kw_only=True)
    critical: bool = field(default=False, kw_only=True)
    cache: bool | CacheUse | None = field(default=None, kw_only=True)
    check: Any = field(default=None, kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    escalate_to: str | None = field(default=None, kw_only=True)
    stream: Streaming | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: an unknown complexity or use of the cache, a name that is no text, or a size that
                is not a positive number.
        """
        if self.complexity is not None and self.complexity not in COMPLEXITIES:
            message = f"complexity={self.complexity!r}: expected one of {', '.join(COMPLEXITIES)}"
            raise ValueError(message)
        for name in ("tag", "session"):
            told = getattr(self, name)
            if told is not None and not isinstance(told, str):
                message = f"{name}={told!r}: expected text"
                raise ValueError(message)
        if isinstance(self.cache, str) and self.cache not in CACHE_USES:
            message = f"cache={self.cache!r}: expected True, False or one of {', '.join(CACHE_USES)}"
            raise ValueError(message)
        if self.stream is not None and self.stream not in STREAMINGS:
            message = f"stream={self.stream!r}: expected one of {', '.join(STREAMINGS)}"
            raise ValueError(message)
        if self.threshold is not None and not _is_number(self.threshold):
            message = f"threshold={self.threshold!r}: expected a number on the check's scale, such as 3"
            raise ValueError(message)
        if self.instead_of in AUTO:
            message = f"instead_of={self.instead_of!r}: name the model that would have been called"
            raise ValueError(message)
        for name in ("expected_output_tokens", "expected_output_words"):
            size = getattr(self, name)
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                message = f"{name}={size!r}: expected a whole number from 1"
                raise ValueError(message)

    @property
    def cache_use(self) -> CacheUse | None:
        """What this task says of the cache; None when it says nothing."""
        if isinstance(self.cache, bool):
            return "write" if self.cache else "off"
        return self.cache

    @property
    def output_tokens(self) -> int | None:
        """The expected size of the answer in tokens, from whichever form was given."""
        if self.expected_output_tokens is not None:
            return self.expected_output_tokens
        if self.expected_output_words is not None:
            return round(self.expected_output_words * WORD_TO_TOKENS)
        return None


class Code(StrEnum):
    """Why a decision went as it did; a closed set, safe to count and to compare."""

    # choose: the first of these that applies
    FORCED_TIER = "forced_tier"
    FORCED_COMPLEXITY = "forced_complexity"
    RULE = "rule"
    PINNED = "pinned"
    TYPE = "type"
    SIGNALS = "signals"
    STANDARD = "standard"
    ADVISED = "advised"
    CASCADE = "cascade"
    UNSURE = "unsure"
    # adjust
    RAISED = "raised"
    CACHE = "prompt_cache"
    FLOOR = "session_floor"
    BREAK_EVEN = "break_even"
    # limit
    NOT_ALLOWED = "not_allowed"
    CEILING = "asked_is_ceiling"
    BUDGET_CEILING = "budget_ceiling"
    BUDGET_DEFERRED = "budget_deferred"
    UNFIT = "unfit"
    ADAPTED = "adapted"
    # not routed at all
    OBSERVED = "observed"
    OFF = "off"
    NOT_IN_SHARE = "not_in_share"
    OPTED_OUT = "opted_out"
    # after the decision
    MISFIT = "misfit"
    UNREACHED = "unreached"
    TRUNCATED = "truncated"
    ESCALATED = "escalated"
    NOT_ESCALATED = "not_escalated"
    OVERLOADED = "overloaded"
    BUDGET_CAP = "budget_cap"
    CACHED = "cached"
    ESCAPED = "escaped"
    # no request of a caller's
    TRIAL = "trial"


class Reason(msgspec.Struct, frozen=True):
    """One step of a decision: a code to count, words to read, the tier or model before and after.

    Words never quote a prompt, only configured phrases and numbers.
    """

    code: Code
    words: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        """Return the words."""
        return self.words


def deciding(reasons: Sequence[Reason]) -> Reason:
    """Return the reason that had the last word on where to go; adapting a request moves nothing."""
    return next(reason for reason in reversed(reasons) if reason.code is not Code.ADAPTED)


class Verdict(msgspec.Struct, frozen=True):
    """What one check says of one answer.

    Attributes:
        check: The check's name.
        says: Accept it, escalate to a dearer tier, or abstain: asked, but cannot tell.
        words: Why, in words; never words of the answer.
        score: How good, on the check's own scale (the judge's is 1 to 5); None where it gives none.
        probability: That the answer is acceptable, where the check is calibrated.
        cost_nusd: What asking cost.
        blames: Whether a rejection counts against the tier; a refusal does not.
        is_self: Whether the model that answered was asked about its own answer.
        tier: The tier, or off the ladder the model, that answered.
        is_control: Whether the answer was a planted one that is known to be bad.
        stamp: Names what the score depends on, such as the judge's model, the maker's and the prompt; a
            calibration holds for scores of its own stamp only.
    """

    check: str
    says: Says
    words: str
    score: float | None = None
    probability: float | None = None
    cost_nusd: int = 0
    blames: bool = True
    is_self: bool = False
    tier: str = ""
    is_control: bool = False
    stamp: str = ""


class Baseline(msgspec.Struct, frozen=True):
    """The model that would have been called without us, and how we know."""

    model: str
    how: HowBaseline


@dataclass(frozen=True, slots=True)
class Held:
    """A budget's ceiling in force: the dearest tier that may be chosen, and why."""

    tier: str
    budget: str
    account: str
    window: str
    percent: Decimal
    above: Decimal

    @property
    def words(self) -> str:
        """The reason in words."""
        return (
            f"budget {self.budget} at {self.percent:.0f}% (above {100 * self.above:.0f}%): "
            f"nothing above {self.tier}"
        )


class Decision(msgspec.Struct, frozen=True):
    """Which model runs, instead of which, and why.

    Attributes:
        model: The model to call first.
        tier: Its tier, or "" for a model off the ladder.
        upstream: The upstream that serves it.
        fallback: The model to resend to when a swapped request turns out unfit.
        asked: The model named in the request, `auto` and tier names included.
        mode: `auto`, or the mode in force for a real model id.
        complexity: What the task is taken to need, or None when nothing said so.
        task_type: The type of task recognised, or "".
        is_sure: False when nothing but the configured default decided.
        would: In observe mode, the model that routing would have chosen.
        max_tokens: Our own clamp on output, or None to leave the caller's.
        reasons: One per step that had a say, in order; `deciding` picks the last word.
        baseline: What the cost is compared with.
        input_tokens: Estimated prompt size, in the chosen model's tokens.
        held: The ceiling of a budget that moved it, or will at the next human turn.
        climbs: The tiers that may answer instead, cheap to dear, where a check does not accept the answer;
            none where nothing is checked.
        is_judged: Whether the judge is asked, where the plan has one.
    """

    model: str
    tier: str
    upstream: str
    fallback: str
    asked: str
    mode: Literal["auto", "observe", "enforce", "off"]
    complexity: Complexity | None
    task_type: str
    is_sure: bool
    would: str
    max_tokens: int | None
    reasons: tuple[Reason, ...]
    baseline: Baseline
    input_tokens: int
    held: Held | None = None
    climbs: tuple[Tier, ...] = ()
    is_judged: bool = True

    @property
    def reason(self) -> str:
        """The reasons in words, joined."""
        return "; ".join(reason.words for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request: who answered, why, what it cost and what it saved.

    Dollars are exact Decimals. `saved_usd` is signed and *re-priced*: the baseline's price
    for the tokens that were used, less everything spent on this call.
    """

    exchange: str
    tier: str
    model: str
    asked: str
    mode: str
    complexity: Complexity | None
    reasons: tuple[Reason, ...]
    cost_usd: Decimal
    baseline_usd: Decimal
    baseline_model: str
    baseline_how: HowBaseline
    saved_usd: Decimal
    could_save_usd: Decimal
    would: str
    same_quality: str
    input_tokens: int
    output_tokens: int
    usage_by_tier: Mapping[str, Mapping[str, int]]
    certainty: str
    result: str
    escalated: bool = False
    checks: tuple[Verdict, ...] = ()
    from_cache: bool = False
    budget_remaining_usd: Decimal | None = None

    def __str__(self) -> str:
        """Return one line: who answered at what cost, against what, and why."""
        name = self.tier or self.model
        line = f"{name} ${self.cost_usd:.6f}"
        if self.baseline_model != self.model:
            assumed = " (assumed)" if self.baseline_how == "assumed" else ""
            line += f", {self.baseline_model} ${self.baseline_usd:.6f}{assumed}"
        return f"{line}; {'; '.join(reason.words for reason in self.reasons)}"
