"""One request's way through the three phases of a decision.

*Choose*, the first that applies: a tier or complexity that this very request forces; inside
a tool loop the model that made the call; the user's rules; the task's type (`telling`; a short
follow-up such as "yes" is read as the ask before it); sizes, where the caller told the size of
the answer; the type that a small model was paid to tell; else *unsure*, a legal outcome that stays
with the baseline.
*Adjust*, never what was forced or pinned: sizes may raise a simple or standard choice.
*Limit*, always: the allowed tiers, the asked model as ceiling, the ceilings of budgets (critical tasks
are exempt, and inside a tool loop they wait for the next human turn), what fits the request.
Last, among what is within these limits, a move down is weighed against the prompt cache it
would leave: an adjustment, made when it is known where the move would really go. So is where an answer
that is going to be checked begins (`climbing`), and how far it may climb.

Every phase that had a say leaves a `Reason`. Words quote configured phrases and numbers,
never a prompt. No text can raise a caller above the allowed tiers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from fnmatch import translate
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

from leastwise.cascade import NO_PLAN, Plan
from leastwise.compile import Fit
from leastwise.errors import UnknownPriceError
from leastwise.features import Features, estimate_tokens, read, reference_tokens
from leastwise.ladder import (
    AUTO,
    DEFAULT_LADDER,
    Baseline,
    Code,
    Complexity,
    Decision,
    Held,
    Ladder,
    Mode,
    Reason,
    Task,
    Tier,
)
from leastwise.messages import Request
from leastwise.models import Model, Models, canonical, load_models
from leastwise.prices import DEFAULT_PROVIDER, PriceBook, cheaper_tiers, load_prices
from leastwise.routing.classifier import Classifier
from leastwise.routing.climbing import Asked, Climber, is_doubted
from leastwise.routing.policy import BASELINE, Known, Policy, Rule
from leastwise.routing.signals import read_signals, too_much_for_simple, too_much_for_standard
from leastwise.routing.telling import Teller, Told
from leastwise.routing.weighing import Scales, talk_of
from leastwise.routing.words import Lexicon, Scan, Words, load_words

#: Returns what a request becomes for a model, or why it cannot go there.
Fits = Callable[[Request, str], Fit]

_NO_TASK: Final = Task()
_NOTHING_KNOWN: Final = Known()
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_ASSUMED_MAX_TOKENS: Final = 1024  # of a request given as a bare prompt
_OTHER_DRAW: Final = 7919.0  # makes of the draw for a share one for something else
_MOST_REMEMBERED: Final = 256  # asked models come from callers: bound what they can fill
_WHOLE: Final = 100
#: Why a request stays with its model, whatever a budget can cover: a tier that refused it would again.
_STAYS: Final = frozenset({Code.PINNED, Code.OPTED_OUT, Code.OFF, Code.ESCAPED, Code.MISFIT, Code.UNREACHED})
_RAW: Final = "x-stainless-raw-response"  # in it the SDK says that its caller reads as it comes
_FEWEST_TOKENS, _MOST_TOKENS, _USUAL_TOKENS = 50, 4096, 256  # the reference's clamp of way 2


def _always_fits(_request: Request, model: str) -> Fit:
    return Fit({"model": model})


@dataclass(slots=True)
class _Case:
    """One request on its way through the phases; lives for one decision.

    `last` is the asked model, for `auto` the baseline: where doubt and misfits go.
    `choices` are the tiers that may be chosen, cheap to dear.
    """

    request: Request
    task: Task
    features: Features
    known: Known
    headers: Mapping[str, str]
    at: datetime
    is_auto: bool
    last: Tier
    here: Tier
    choices: tuple[Tier, ...] = ()
    complexity: Complexity | None = None
    task_type: str = ""
    is_sure: bool = True
    is_forced: bool = False
    is_pinned: bool = False
    by_signals: bool = False
    held: Held | None = None
    plan: Plan = NO_PLAN
    climbs: tuple[Tier, ...] = ()
    is_judged: bool = True
    is_probe: bool = False
    reasons: list[Reason] = field(default_factory=list)
    description: Scan | None = None
    ask: Scan | None = None

    def go(self, tier: Tier, code: Code, words: str) -> None:
        """Move to `tier` and say why."""
        self.reasons.append(Reason(code, words, str(self.here), str(tier)))
        self.here = tier

    def scan(self) -> tuple[Scan | None, Scan]:
        """Return description (None when not given) and ask, prepared for searching."""
        if self.ask is None:
            self.ask = Scan(self.features.ask)
            self.description = Scan(self.features.description) if self.features.description else None
        return self.description, self.ask


class Router:
    """Decides which model answers a request.

    Args:
        ladder: The tiers, cheap to dear.
        policy: What the user configured.
        prices: Dated rates; the shipped ones by default.
        models: What is known of each model; the shipped facts by default.
        fits: Fits a request to a model, or tells why not; by default every request fits as it is.
        words: Phrases of task types; the shipped ones by default.
        classifier: Tells types where no phrase does; the shipped one by default.

    Attributes:
        ladder: As given.
        policy: As given.
        teller: What tells the type of a request.
        policy_hash: Twelve hexadecimal digits that name policy, ladder, word lists and weights.

    Raises:
        ConfigError: the policy names a tier that the ladder lacks.

    >>> decision = Router().decide("Is this spam? Win $1000 now!!!")
    >>> decision.tier, decision.reason
    ('haiku', 'type: classify ("is this spam")')
    """

    def __init__(
        self,
        ladder: Ladder = DEFAULT_LADDER,
        policy: Policy | None = None,
        *,
        prices: PriceBook | None = None,
        models: Models | None = None,
        fits: Fits = _always_fits,
        words: Words | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        self.ladder = ladder
        self.policy = policy = policy or Policy()
        policy.check(ladder)
        self._prices = prices or load_prices()
        self._models = models or load_models()
        self._scales = Scales(self._prices, self._models)
        self._climber = Climber(self._prices, self._models)
        self._fits = fits
        self._named = {tier.name: tier for tier in ladder}
        self._ranks = {tier.name: rank for rank, tier in enumerate(ladder)}
        self._for = {complexity: ladder[name] for complexity, name in policy.complexity.items()}
        self._may = frozenset(policy.allowed_tiers or self._named)
        self._allowed = tuple(tier for tier in ladder if tier.name in self._may)
        self._switches = {switch.tag: switch for switch in policy.switches}
        self._reroute = re.compile("|".join(map(translate, policy.reroute))) if policy.reroute else None
        self._rule_phrases = Lexicon(rule.match for rule in policy.rules)
        self._cheaper: dict[tuple[str, date], tuple[Tier, ...]] = {}
        lowest = self._models.get(ladder.tiers[0].model)
        self._sized_by = lowest.tokenizer if lowest is not None else "old"
        self.teller = Teller(ladder, policy, words or load_words(), classifier)
        self.policy_hash = policy.digest(ladder, *self.teller.digests)

    def decide(
        self,
        request: Request | Mapping[str, Any] | str,
        task: Task | None = None,
        *,
        known: Known = _NOTHING_KNOWN,
        now: datetime | None = None,
        draw: float = 0.0,
        headers: Mapping[str, str] = _NO_HEADERS,
        features: Features | None = None,
        plan: Plan = NO_PLAN,
    ) -> Decision:
        """Return which model answers, and why.

        Args:
            request: A request, its members, or a bare prompt (which asks for `auto`).
            task: What the caller tells of it.
            known: What the ledger knows of it.
            now: The day whose prices count; must carry a time zone. Today by default.
            draw: A number from 0 to 1, drawn by the caller; below the policy's share is in it.
            headers: The caller's headers, names in lower case.
            features: Those of the request, where they were read already.
            plan: What its answer has to pass.

        Raises:
            ConfigError: the task names a tier that does not exist.
            RequestError: the members are no Messages request.
        """
        request = _as_request(request)
        task = task or _NO_TASK
        if task.tier is not None:
            self.ladder[task.tier]  # refuses a tier that does not exist, in every mode
        features = features or read(request, task, headers)
        if known.evidence.rungs and task.check is None and task.threshold is None:  # by the usual checks
            self.teller.learn(known.evidence.rungs)
        asked = request.model
        is_auto = asked in AUTO or asked in self._named
        if is_auto:
            baseline = baseline_of(task, known, self.ladder)
            here, last = Tier("", asked), self.ladder.serving(baseline.model)
        else:
            baseline = Baseline(asked, "asked")
            here = last = self.ladder.serving(asked)
        case = _Case(request, task, features, known, headers, now or datetime.now(UTC), is_auto, last, here)
        case.plan = plan
        if is_auto:
            return self._decide_auto(case, baseline, draw)
        return self._decide_named(case, baseline, draw)

    # --- which request is ours to decide -------------------------------------------------------------

    def _decide_auto(self, case: _Case, baseline: Baseline, draw: float) -> Decision:
        """Choose among all allowed tiers; switched off, what the tier's name says, else the baseline."""
        case.choices = self._allowed
        is_off = self._mode("", case.task, 0.0)[0] == "off"
        is_routed = not is_off and case.task.route
        if is_routed:
            self._go_through(case, draw)
            self._say_adapted(case)
            return self._decision(case, "auto", baseline, self._last_resort(case).model)
        if case.here.model in self._named:
            case.go(self._named[case.here.model], Code.FORCED_TIER, f"tier {case.here.model} was asked for")
        elif is_off:
            case.go(case.last, Code.OFF, "switched off: the baseline answers")
        else:
            case.go(case.last, Code.OPTED_OUT, "not to be routed: the baseline answers")
        self._keep_allowed(case)
        self._keep_fitting(case)
        self._say_adapted(case)
        return self._decision(case, "auto", baseline, self._last_resort(case).model)

    def _decide_named(self, case: _Case, baseline: Baseline, draw: float) -> Decision:
        """Choose among the tiers cheaper than the asked model; observing, say so and stay."""
        asked = case.last
        mode, is_in_share = self._mode(asked.model, case.task, draw)
        if mode == "off":
            case.go(asked, Code.OFF, "switched off: as asked")
        elif not case.task.route:
            case.go(asked, Code.OPTED_OUT, "not to be routed: as asked")
        if case.reasons:
            return self._decision(case, "off", baseline, asked.model)
        cheaper = self._cheaper_than(asked.model, case.at)
        case.choices = cheaper if self.policy.allowed_tiers is None else self._within(cheaper)
        if mode != "enforce" or not is_in_share:
            case.plan = (
                NO_PLAN  # what is only observed is not checked, and what it would save is told without
            )
        self._go_through(case, draw)
        is_in_loop = case.is_pinned and case.here is not asked  # which ends on the model it began on
        if mode == "enforce" and (is_in_share or is_in_loop):
            self._say_adapted(case)
            return self._decision(case, "enforce", baseline, asked.model)
        would = case.here.model
        could = "" if case.here is asked else f", could go to {case.here}"
        if mode == "enforce":
            case.go(asked, Code.NOT_IN_SHARE, f"outside the share switched on: as asked{could}")
        else:
            case.go(asked, Code.OBSERVED, f"observed: as asked{could}")
        return self._decision(case, "observe", baseline, asked.model, would)

    def _go_through(self, case: _Case, draw: float) -> None:
        """Take a request through the phases."""
        case.is_probe = bool(case.plan.checks) and draw * _OTHER_DRAW % 1 < case.plan.probes
        self._choose(case)
        self._adjust(case)
        self._limit(case)
        self._climb(case, draw)
        self._weigh_cache(case)

    def _within(self, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        return tuple(tier for tier in tiers if tier.name in self._may)

    def _mode(self, asked: str, task: Task, draw: float) -> tuple[Mode, bool]:
        """Return the mode in force and whether the request is in the share that is routed."""
        mode, percent = self.policy.mode, self.policy.percent
        if mode == "off":
            return mode, False  # the kill switch: no tag's switch stands against it
        switch = self._switches.get(task.tag) if task.tag is not None else None
        if switch is not None:
            mode, percent = switch.mode, switch.percent
        if mode == "observe" and self._reroute is not None and self._reroute.match(asked):
            mode = "enforce"
        return mode, percent == _WHOLE or draw * _WHOLE < percent

    def _cheaper_than(self, asked: str, now: datetime) -> tuple[Tier, ...]:
        """Return the tiers below the asked model; none where a price is unknown."""
        key = (asked, now.date())
        found = self._cheaper.get(key)
        if found is None:
            try:
                found = cheaper_tiers(self.ladder, asked, now, self._prices)
            except UnknownPriceError:
                found = ()
            if len(self._cheaper) >= _MOST_REMEMBERED:
                self._cheaper.clear()
            self._cheaper[key] = found
        return found

    # --- choose --------------------------------------------------------------------------------------

    def _choose(self, case: _Case) -> None:
        if self._forced(case):
            return
        if case.features.in_tool_loop:
            self._pinned(case)
            return
        if self._ruled(case) or self._predicted(case) or self._sized(case) or self._advised(case):
            return
        case.is_sure = False
        if case.plan.checks and case.choices:
            names = ", ".join(check.name for check in case.plan.checks)
            case.go(case.choices[0], Code.CASCADE, f"unsure: cheapest first, checked ({names})")
        elif self.policy.unsure == BASELINE:
            kept = "as asked" if not case.is_auto else f"baseline {case.last.model}"
            case.go(case.last, Code.UNSURE, f"unsure, so not cheap: {kept}")
        else:
            case.go(
                self._named[self.policy.unsure], Code.UNSURE, f"unsure: {self.policy.unsure}, as configured"
            )

    def _forced(self, case: _Case) -> bool:
        task = case.task
        name = task.tier or (case.request.model if case.request.model in self._named else None)
        if name is not None:
            case.is_forced = True
            case.go(self.ladder[name], Code.FORCED_TIER, f"tier {name} was asked for")
            return True
        if task.complexity is not None:
            case.is_forced = True
            case.complexity = task.complexity
            case.go(self._for[task.complexity], Code.FORCED_COMPLEXITY, f"the caller says {task.complexity}")
            return True
        return False

    def _pinned(self, case: _Case) -> None:
        """Stay with the model that made the tool call; if unknown, with the one that was to be called."""
        case.is_pinned = True
        pins = case.known.pins
        model = next((pins[call] for call in case.features.tool_use_ids if call in pins), None)
        maker = self.ladder.serving(model) if model is not None else case.last
        if not case.is_auto and maker is not case.last and maker not in case.choices:
            maker = case.last  # the caller has since asked for a cheaper model
        case.go(maker, Code.PINNED, "pinned: answers a tool call")

    def _ruled(self, case: _Case) -> bool:
        if not self.policy.rules:
            return False
        description, ask = case.scan()
        phrases = self._rule_phrases.find(ask)
        if description is not None:
            phrases += self._rule_phrases.find(description)
        for rule in self.policy.rules:
            if self._holds(rule, case, phrases):
                break
        else:
            return False
        if rule.tier is not None:
            case.is_forced = True
            case.go(self._named[rule.tier], Code.RULE, f"rule: {rule}")
        else:
            assert rule.complexity is not None
            case.complexity = rule.complexity
            case.go(self._for[rule.complexity], Code.RULE, f"rule: {rule}")
        return True

    def _holds(self, rule: Rule, case: _Case, phrases: list[str]) -> bool:
        if rule.match and " ".join(rule.match.casefold().split()) not in phrases:
            return False
        if rule.tag and rule.tag != case.task.tag:
            return False
        if rule.role and rule.role != case.features.role:
            return False
        if rule.header:
            name, _, value = rule.header.partition(":")
            sent = case.headers.get(name.strip().lower())
            return sent is not None and value.strip() in ("", sent.strip())
        return True

    def _predicted(self, case: _Case) -> bool:
        """Choose by the task's type."""
        return self._follow(case, self.teller.tell(case.features, *case.scan(), is_probe=case.is_probe))

    def _advised(self, case: _Case) -> bool:
        """Choose by the type that a small model took this ask for, where one was asked."""
        return self._follow(case, self.teller.advised(case.known.opinion))

    def _follow(self, case: _Case, told: Told | None) -> bool:
        if told is None:
            return False
        case.task_type, case.complexity = told.task_type, told.complexity
        case.go(self._named[told.tier], told.code, told.words)
        return True

    def _sized(self, case: _Case) -> bool:
        """Choose by signals, where the caller told the size of the answer; in the preset always."""
        features, is_reference = case.features, self.policy.is_reference
        if features.expected_output_tokens is None and not is_reference:
            return False
        tokens = reference_tokens(case.request) if is_reference else self._tokens(case)
        reading = read_signals(features, tokens, self.policy.signals, is_reference=is_reference)
        if reading.complexity == "simple" and not is_reference and self.teller.has_doubt(case.scan()[1]):
            return False  # a short answer may need long thought
        case.by_signals = True
        case.complexity = reading.complexity
        case.go(self._for[reading.complexity], Code.SIGNALS, f"signals: {reading.words}")
        return True

    def _tokens(self, case: _Case, tokenizer: str | None = None) -> int:
        tokenizer = tokenizer or self._sized_by
        return estimate_tokens(case.features, tokenizer, case.known.corrections.get(tokenizer, 1.0))

    # --- adjust --------------------------------------------------------------------------------------

    def _adjust(self, case: _Case) -> None:
        """Raise what was taken for less than its size and kind say; never what was forced or pinned."""
        if case.is_forced or case.is_pinned:
            return
        self._keep_floor(case)
        if case.by_signals or self.policy.is_reference:
            return
        limits = self.policy.signals
        if case.complexity == "simple":
            self._raise(case, "standard", too_much_for_simple(case.features, self._tokens(case), limits))
        elif case.complexity == "standard":
            self._raise(case, "complex", too_much_for_standard(case.features, limits))

    def _keep_floor(self, case: _Case) -> None:
        """Stay at the tier that the conversation escalated to lately, one lower for each time that passes."""
        known, step_s = case.known, case.plan.floor_s
        if not case.plan.checks or known.floor not in self._ranks or step_s <= 0:
            return
        past_s = max(0.0, case.at.timestamp() - known.floor_at)
        rank = self._ranks[known.floor] - int(past_s / step_s)
        allowed = [tier for tier in case.choices if self._ranks[tier.name] <= rank]
        if allowed and self._ranks[allowed[-1].name] > self._ranks.get(case.here.name, len(self._ranks)):
            words = f"this conversation escalated to {known.floor} {past_s / 60:.0f} min ago"
            case.go(allowed[-1], Code.FLOOR, words)

    def _raise(self, case: _Case, complexity: Complexity, why: str) -> None:
        if not why:
            return
        tier = self._for[complexity]
        if self._ranks[tier.name] > self._ranks[case.here.name]:
            case.complexity = complexity
            case.go(tier, Code.RAISED, f"raised to {complexity}: {why}")

    # --- limit ---------------------------------------------------------------------------------------

    def _limit(self, case: _Case) -> None:
        if case.features.in_tool_loop:
            self._defer_ceiling(case)
        if case.is_pinned:
            return
        if not case.is_auto and case.here.model == case.last.model:
            case.here = case.last
        self._keep_allowed(case)
        self._keep_below_ceilings(case)
        self._keep_fitting(case)

    def _defer_ceiling(self, case: _Case) -> None:
        """Say which ceiling of a budget waits for the tool loop to end."""
        held = self._held(case, case.here)
        if held is not None:
            case.held = held
            case.go(case.here, Code.BUDGET_DEFERRED, f"{held.words}, after this tool loop")

    def _keep_below_ceilings(self, case: _Case) -> None:
        """Step down to the dearest tier that the budgets' ceilings allow; each tier's own budgets count."""
        while not case.features.in_tool_loop and (held := self._held(case, case.here)) is not None:
            most = self._ranks[held.tier]
            below = [tier for tier in case.choices if self._ranks[tier.name] <= most]
            if not below:
                return  # nothing cheaper may be chosen
            case.held = held
            case.go(below[-1], Code.BUDGET_CEILING, held.words)

    def _held(self, case: _Case, tier: Tier) -> Held | None:
        """Return the ceiling of a budget that a tier is above, if any."""
        if not case.known.purse.rules:
            return None
        held = case.known.purse.held(self.ladder, canonical(tier.model))
        if held is None or self._ranks.get(tier.name, len(self._ranks)) <= self._ranks[held.tier]:
            return None
        return held

    def _say_adapted(self, case: _Case) -> None:
        """Say what has to be changed for the model that was chosen in the end."""
        if case.is_auto or case.here is not case.last:
            words = self._fits(case.request, case.here.model).words
            if words:
                case.go(case.here, Code.ADAPTED, f"adapted: {words}")

    def _keep_allowed(self, case: _Case) -> None:
        """Hold the allowed tiers, and for a real model what it costs as the ceiling."""
        here = case.here
        if here in case.choices or (not case.is_auto and here is case.last):
            return
        if not case.is_auto and here.name in self._may:
            case.go(case.last, Code.CEILING, f"the asked model is the ceiling: {here.name} is not cheaper")
            return
        if case.is_auto and self.policy.allowed_tiers is None and here is case.last:
            return  # a baseline off the ladder, where nothing is forbidden
        instead = case.choices[-1] if case.is_auto else case.last
        case.go(self._next(case, here) or instead, Code.NOT_ALLOWED, f"{here} is not allowed")

    def _next(self, case: _Case, here: Tier) -> Tier | None:
        """Return the next dearer tier that may be chosen."""
        rank = self._ranks.get(here.name)
        if rank is None:
            return None
        return next((tier for tier in case.choices if self._ranks[tier.name] > rank), None)

    def _last_resort(self, case: _Case) -> Tier:
        """Return the last resort: the asked model, the baseline, or the dearest allowed tier."""
        if not case.is_auto or self.policy.allowed_tiers is None or case.last.name in self._may:
            return case.last
        return case.choices[-1]

    def _misfit(self, case: _Case, tier: Tier) -> str:
        """Return why the request may not go to a tier, "" when it may: its model takes it and is there."""
        model = self._models.get(tier.model) if tier.upstream == DEFAULT_PROVIDER else None
        if model is not None and model.is_retired(case.at.date()):
            return f"{model.id} is retired"
        return self._fits(case.request, tier.model).misfit

    def _keep_fitting(self, case: _Case) -> None:
        """Move to the next dearer tier that the request can be fitted to; the last resort is not asked."""
        if case.is_forced and case.is_auto:
            why = self._misfit(case, case.here)
            if why and all(self._misfit(case, tier) for tier in case.choices):
                case.go(case.here, Code.UNFIT, f"fits no tier: {why}")  # so by the tier that was asked for
                return
        while case.is_auto or case.here is not case.last:
            here = case.here
            why = self._misfit(case, here)
            if not why:
                return
            tier = self._next(case, here) or self._fitting_below(case) or self._last_resort(case)
            case.go(tier, Code.UNFIT, f"does not fit {here}: {why}")
            if tier.name not in self._ranks or self._ranks[tier.name] <= self._ranks.get(here.name, -1):
                return

    # --- the cascade ---------------------------------------------------------------------------------

    def _climb(self, case: _Case, draw: float) -> None:
        """Begin where a checked answer is expected to cost least, and note which tiers may follow.

        Not inside a tool loop, and where a tier is forced only by a check that this very task asks for.
        What routing is sure of is not judged, for a judge costs about as much as a cheap answer: the free
        checks are enough, and now and then a judgement, by which it is seen whether that holds. Where it
        turns out not to, what follows is judged as what routing is unsure of.
        """
        plan, other_draw = case.plan, draw * _OTHER_DRAW % 1
        is_asked = case.task.check is not None
        is_sure = case.is_sure and not is_doubted(case.known.evidence, case.task_type, case.here)
        if plan.is_judged and plan.governs and is_sure and not is_asked:
            case.is_judged = other_draw < plan.probes
            plan = plan.unjudged
        if case.features.in_tool_loop or case.is_pinned or (case.is_forced and not is_asked):
            return
        if not case.plan.checks and plan.overloaded == "fail":
            return
        dearer = self._dearer(case, plan.escalate_to)
        if dearer and case.plan.checks and plan.governs:
            told = case.features.expected_output_tokens
            is_unseen = case.features.has_images or case.features.has_documents
            tokens = partial(self._tokens, case)
            cap = case.request.max_tokens
            asked = Asked(plan, case.known, case.task_type, tokens, told, case.at, is_unseen, cap)
            tiers = (case.here, *dearer)
            start = self._climber.begin(asked, tiers, other_draw)
            if case.is_forced:
                start = replace(start, index=0)
            elif start.index or start.probes:
                case.go(tiers[start.index], Code.BREAK_EVEN, start.words)
            dearer = [tiers[place] for place in start.onward]
        case.climbs = tuple(dearer)

    # --- the prompt cache ----------------------------------------------------------------------------

    def _weigh_cache(self, case: _Case) -> None:
        """Go where the next turns cost least: on, or to a dearer model whose prompt cache is warm.

        Within the limits, and only for a move down: that a task needs more is never vetoed.
        """
        is_free = not (case.is_forced or case.is_pinned or self.policy.is_reference)
        if not is_free or not case.features.marks_cache:
            return
        talk = talk_of(case.request, case.features, case.known, case.at, self._models)
        dearer = (
            [tier for tier in self._dearer(case) if canonical(tier.model) in talk.warm] if talk.warm else []
        )
        if dearer:
            tier, words = self._scales.weigh(talk, case.here, dearer)
            if words:
                case.go(tier, Code.CACHE, words)
                floor = self._scales.price(tier, case.at)
                case.climbs = tuple(one for one in case.climbs if self._scales.price(one, case.at) > floor)

    def _dearer(self, case: _Case, most: str = "") -> list[Tier]:
        """Return the tiers that may answer, fit, and cost more than the one chosen, cheap to dear.

        Args:
            case: The request.
            most: The dearest of them, "" for any.
        """
        floor = self._scales.price(case.here, case.at)
        last = () if case.is_auto and self._last_resort(case) is not case.last else (case.last,)
        prices = {tier: self._scales.price(tier, case.at) for tier in (*case.choices, *last)}
        top = self._scales.price(self.ladder[most], case.at) if most else max(prices.values(), default=0)
        found = [
            tier
            for tier, price in prices.items()
            if top >= price > floor >= 0
            and self._held(case, tier) is None
            and ((tier is case.last and not case.is_auto) or not self._misfit(case, tier))
        ]
        return sorted(found, key=prices.__getitem__)

    def _fitting_below(self, case: _Case) -> Tier | None:
        """Return, for `auto`, the dearest tier that the request fits, where it fits none from here up."""
        if not case.is_auto or not self._misfit(case, self._last_resort(case)):
            return None
        fitting = (tier for tier in case.choices if not self._misfit(case, tier))
        return max(fitting, key=lambda tier: self._ranks[tier.name], default=None)

    # --- the answer ----------------------------------------------------------------------------------

    def _decision(
        self,
        case: _Case,
        mode: Literal["auto", "observe", "enforce", "off"],
        baseline: Baseline,
        fallback: str,
        would: str = "",
    ) -> Decision:
        tier = case.here
        model = self._models.get(tier.model)
        return Decision(
            model=tier.model,
            tier=tier.name,
            upstream=tier.upstream,
            fallback=fallback,
            asked=case.request.model,
            mode=mode,
            complexity=case.complexity,
            task_type=case.task_type,
            is_sure=case.is_sure,
            would=would,
            max_tokens=self._clamp(case, model)
            if self.policy.clamp and mode in ("auto", "enforce")
            else None,
            reasons=tuple(case.reasons),
            baseline=baseline,
            input_tokens=self._tokens(case, model.tokenizer if model is not None else "old"),
            held=case.held,
            climbs=case.climbs,
            is_judged=case.is_judged,
        )

    def below(self, request: Request, task: Task, decision: Decision, now: datetime) -> Tier | None:
        """Return the next cheaper tier for a decision that a budget cannot cover; None where it must stay.

        Critical tasks stay, answers of tool calls, requests that are only observed, what was not routed
        at all, and what a cheaper tier did not take.
        """
        codes = {reason.code for reason in decision.reasons}
        if task.critical or decision.mode not in ("auto", "enforce") or codes & _STAYS:
            return None
        rank = self._ranks.get(decision.tier, len(self._ranks))
        cheaper = self._allowed
        if decision.mode == "enforce":
            cheaper = self._within(self._cheaper_than(decision.asked, now))
        fitting = (
            tier
            for tier in reversed(cheaper)
            if self._ranks[tier.name] < rank and not self._fits(request, tier.model).misfit
        )
        return next(fitting, None)

    def mode_of(self, request: Request, task: Task, draw: float = 0.0) -> Literal["auto", Mode]:
        """Return the mode that a request is in: `auto`, or the one in force for the real model it names."""
        asked = request.model
        if asked in AUTO or asked in self._named:
            return "off" if self.policy.mode == "off" else "auto"
        mode, is_in_share = self._mode(asked, task, draw)
        return "observe" if mode == "enforce" and not is_in_share else mode

    def _clamp(self, case: _Case, model: Model | None) -> int | None:
        """Return a lower cap on output, or None.

        Never where thinking would count toward it, nor of an answer that is read as it comes, for it
        could not be asked for again.
        The reference's values: 50, 1024, 4096 by complexity; chosen by signals, the expected
        size (256 when untold) within 50 and 4096.
        """
        is_live = case.request.is_stream or case.headers.get(_RAW) == "stream"
        if case.complexity is None or is_live:
            return None
        thinking = case.request.get("thinking")
        is_off = thinking is None or (isinstance(thinking, dict) and thinking.get("type") == "disabled")
        if model is None or model.thinking != "off" or not is_off:
            return None
        cap = self.policy.max_tokens[case.complexity]
        if case.by_signals:
            told = case.features.expected_output_tokens or _USUAL_TOKENS
            cap = min(max(told, _FEWEST_TOKENS), _MOST_TOKENS)
        own = case.request.max_tokens
        return cap if own is None or cap < own else None


def baseline_of(task: Task, known: Known, ladder: Ladder) -> Baseline:
    """Return the model that `auto` stands in for: learned of the tag, else stated, else assumed the top."""
    if known.baseline:
        return Baseline(known.baseline, "learned")
    if task.instead_of:
        is_tier = task.instead_of in ladder
        return Baseline(ladder[task.instead_of].model if is_tier else task.instead_of, "stated")
    return Baseline(ladder.top.model, "assumed")


def _as_request(request: Request | Mapping[str, Any] | str) -> Request:
    if isinstance(request, Request):
        return request
    if isinstance(request, str):
        turn = {"role": "user", "content": request}
        return Request.of({"model": AUTO[0], "max_tokens": _ASSUMED_MAX_TOKENS, "messages": [turn]})
    return Request.of({"model": AUTO[0], **request})
