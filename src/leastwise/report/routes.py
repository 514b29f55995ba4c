"""Where prompts would go, and what that would cost: nothing is sent.

A `Route` is one decision with its price: the estimated prompt, and an answer of the size
the caller told, else of one that is assumed and said to be. `Totals` adds up many, in
memory that does not grow with them. Prices are list prices of the day, re-priced for the
baseline in its own tokenizer; whether the cheaper answer is as good is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from functools import partial
from typing import Any, Final

from leastwise.build import Plans
from leastwise.cascade import JUDGE, NO_EVIDENCE, NO_PLAN, Evidence, Plan
from leastwise.catalogue import known_models
from leastwise.compile import fit
from leastwise.config import Config, policy, price_book
from leastwise.features import Features, read
from leastwise.ladder import Code, Decision, Ladder, Task, Tier, deciding
from leastwise.messages import Request, Usage
from leastwise.models import Models
from leastwise.money import show, to_usd
from leastwise.prices import PriceBook, baseline_cost, check_ladder, cost
from leastwise.report.table import aligned, dollars, labelled, percent, plural, wrapped
from leastwise.report.window import days_text
from leastwise.routing import NONE, Explanation, Known, Router
from leastwise.routing.climbing import Asked, Climber

#: Tokens of an answer whose size nobody told.
ASSUMED_OUTPUT_TOKENS: Final = 300

#: The phase that each reason belongs to.
PHASES: Final[Mapping[str, tuple[Code, ...]]] = {
    "choose": (
        Code.FORCED_TIER,
        Code.FORCED_COMPLEXITY,
        Code.RULE,
        Code.PINNED,
        Code.TYPE,
        Code.SIGNALS,
        Code.STANDARD,
        Code.ADVISED,
        Code.CASCADE,
        Code.UNSURE,
    ),
    "adjust": (Code.FLOOR, Code.RAISED),
    "limit": (Code.NOT_ALLOWED, Code.CEILING, Code.BUDGET_CEILING, Code.BUDGET_DEFERRED, Code.UNFIT),
    "begin": (Code.BREAK_EVEN,),
    "cache": (Code.CACHE,),
    "fit": (Code.ADAPTED,),
    "mode": (Code.OBSERVED, Code.OFF, Code.NOT_IN_SHARE, Code.OPTED_OUT),
}
_IDLE: Final = {
    "choose": "not asked",
    "adjust": "nothing speaks against it",
    "limit": "allowed, and it fits",
    "cache": "",
    "fit": "",
    "mode": "",
}
_NOT_MEASURED: Final = "not measured"
#: In any share that is switched on, and no probe of a cascade that does not pay.
_DRAW: Final = 0.0001
#: Of the classifier's likeliest types, and of the features that push them.
_TYPES_SHOWN: Final = 3
_PUSHES_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request would go, and at what price.

    Attributes:
        decision: Which model, and why.
        output_tokens: Size of the answer that is priced.
        is_told: Whether the caller told that size; otherwise it is assumed.
        cost_nusd: Price at the chosen model.
        baseline_nusd: Price at the baseline.
        would_nusd: While observing: price at the model that routing would choose.
        features: What was read off the request.
        plan: What its answer would have to pass.
        begins: Why beginning at this tier pays, where dearer ones may follow and that was asked for.
        weighing: What the classifier made of it, where that was asked for and it is used.
    """

    decision: Decision
    output_tokens: int
    is_told: bool
    cost_nusd: int
    baseline_nusd: int
    would_nusd: int
    features: Features
    plan: Plan = NO_PLAN
    begins: str = ""
    weighing: Explanation | None = None

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks of its answer; none where nothing could follow from them."""
        return tuple(check.name for check in self.plan.checks) if self.decision.climbs else ()


class Planner:
    """Decides and prices requests as a configured client would, without sending them.

    The ledger is not asked: a learned baseline, a pinned tool call and corrected token
    estimates are a client's to know. How checks went so far can be told (`evidence`).

    Args:
        config: The configuration.
        now: The moment whose prices count; must carry a time zone.
        is_on: Takes real model ids for switched on, whatever the mode.
        assume_output_tokens: Size of an answer whose size nobody told.

    Raises:
        ConfigError: the configuration cannot work.
    """

    def __init__(
        self,
        config: Config,
        now: datetime,
        *,
        is_on: bool = False,
        assume_output_tokens: int = ASSUMED_OUTPUT_TOKENS,
    ) -> None:
        rules = policy(config)
        if is_on and rules.mode != "off":
            rules = replace(rules, mode="enforce", percent=100, switches=())
        self.plans = Plans(config, imports=False)
        self.book: PriceBook = price_book(config)
        self.models: Models = known_models(config.cache_folder, config.base_urls)
        check_ladder(config.ladder, now, self.book)
        self.router = Router(
            config.ladder,
            rules,
            prices=self.book,
            models=self.models,
            fits=partial(fit, models=self.models, is_strict=rules.strict),
        )
        self._now = now
        self._assumed = assume_output_tokens

    def route(
        self, request: Request, task: Task, *, weighs: bool = False, evidence: Evidence = NO_EVIDENCE
    ) -> Route:
        """Return where `request` would go.

        Args:
            request: Any request.
            task: What the caller tells of it.
            weighs: Whether to tell what the classifier makes of it, too.
            evidence: How the checks went so far.

        Raises:
            ConfigError: the task names a tier that does not exist.
            UnknownPriceError: a model has no price.
        """
        features, plan = read(request, task), self.plans(task)
        known = Known(evidence=evidence)
        decision = self.router.decide(
            request, task, known=known, now=self._now, features=features, plan=plan, draw=_DRAW
        )
        told = task.output_tokens
        cap = request.max_tokens
        assumed = min(self._assumed, cap) if cap is not None and cap > 0 else self._assumed
        usage = Usage(input_tokens=decision.input_tokens, output_tokens=told or assumed)
        return Route(
            decision=decision,
            output_tokens=usage.output_tokens,
            is_told=told is not None,
            cost_nusd=cost(usage, decision.model, self._now, self.book, provider=decision.upstream).nusd,
            baseline_nusd=self._repriced(usage, decision, decision.baseline.model),
            would_nusd=self._repriced(usage, decision, decision.would) if decision.would else 0,
            features=features,
            plan=plan,
            begins=self._begins(plan, known, decision, told, cap) if weighs else "",
            weighing=self.router.teller.weigh(features) if weighs else None,
        )

    def _begins(
        self, plan: Plan, known: Known, made: Decision, output_tokens: int | None, cap: int | None
    ) -> str:
        if not (plan.checks and plan.governs and made.climbs):
            return ""
        tokens = made.input_tokens
        plan = plan if made.is_judged else plan.unjudged
        asked = Asked(plan, known, made.task_type, lambda _: tokens, output_tokens, self._now, cap=cap)
        tiers = (Tier(made.tier, made.model, made.upstream), *made.climbs)
        return Climber(self.book, self.models).begin(asked, tiers, 1.0).words

    def _repriced(self, usage: Usage, decision: Decision, model: str) -> int:
        tier = self.router.ladder.of_model(model)
        provider = tier.upstream if tier is not None else decision.upstream
        return baseline_cost(
            usage, decision.model, model, self._now, self.book, self.models, provider=provider
        ).nusd

    def list_day(self) -> date:
        """Return the day on which the ladder's prices were last compared with their source."""
        return list_day(self.router.ladder, self.book, self._now)


def list_day(ladder: Ladder, book: PriceBook, at: datetime) -> date:
    """Return the day on which a ladder's prices were last compared with their source."""
    return max(book.rate(tier.model, at, provider=tier.upstream).as_of for tier in ladder)


# --- one request -------------------------------------------------------------------------------------


def route_lines(route: Route) -> list[str]:
    """Return one route as lines."""
    made = route.decision
    size = f"{route.output_tokens:,} tokens of answer" + ("" if route.is_told else " (assumed)")
    lines = [
        *labelled("tier", f"{made.tier}, {made.model}" if made.tier else f"none, {made.model}"),
        *labelled("why", made.reason),
        *labelled("prompt", f"~{made.input_tokens:,} tokens"),
        *labelled("price", f"{show(route.cost_nusd)} with {size}"),
    ]
    if made.would and made.would != made.model:
        lines += labelled("could be", f"{made.would} {show(route.would_nusd)}, quality not measured")
    if made.max_tokens is not None:
        lines += labelled("max_tokens", f"lowered to {made.max_tokens:,}; a cut answer is asked for again")
    return [*lines, *_compared(route)]


def _compared(route: Route) -> list[str]:
    made = route.decision
    if made.model == made.baseline.model:
        return labelled("instead of", f"the same model ({made.baseline.how})")
    text = f"{made.baseline.model} {show(route.baseline_nusd)} ({made.baseline.how})"
    if route.cost_nusd and route.baseline_nusd >= route.cost_nusd:
        text += f", {route.baseline_nusd / route.cost_nusd:.3g} times as much"
    return [*labelled("instead of", text), *labelled("quality", _NOT_MEASURED)]


def explain_lines(route: Route) -> list[str]:
    """Return everything that was read, and what each phase of the decision did."""
    read_off = [[f"  {name}", _shown(value)] for name, value in _features(route.features).items()]
    lines = ["", "read off the request", *aligned(read_off, "ll"), "", "decided"]
    for phase, codes in PHASES.items():
        reasons = [reason for reason in route.decision.reasons if reason.code in codes]
        for reason in reasons:
            moved = f"{reason.before} > {reason.after}" if reason.before != reason.after else reason.after
            lines += labelled(f"  {phase}", f"{reason.words} [{reason.code}] {moved}")
        idle = route.begins if phase == "begin" else _IDLE[phase]
        if not reasons and idle:
            lines += labelled(f"  {phase}", idle)
    if route.checks:
        often = "" if route.decision.is_judged else f", {route.plan.probes:.0%} of such calls"
        judge = f"{JUDGE} ({route.plan.judge}{often})"
        lines += labelled("  checks", ", ".join(judge if name == JUDGE else name for name in route.checks))
        tiers = ", then ".join(map(str, route.decision.climbs))
        lines += labelled("  climbs", f"to {tiers}, where they do not accept the answer")
    return [*lines, *_weighing_lines(route.weighing)] if route.weighing is not None else lines


def _weighing_lines(found: Explanation) -> list[str]:
    """Return the classifier's likeliest types, and the features that pushed them most."""
    types = [name for name in found.types if name != NONE]
    names = [*types[:_TYPES_SHOWN], NONE]
    strongest = sorted(found.pushes, key=lambda one: -max(abs(one[1][name]) for name in names))
    rows = [["  " + found.text, *names]]
    rows.append(["  probability", *(f"{found.types[name]:.0%}" for name in names)])
    rows += [
        [f"  {feature}", *(f"{pushes[name]:+.2f}" for name in names)]
        for feature, pushes in strongest[:_PUSHES_SHOWN]
    ]
    hidden = len(found.pushes) - _PUSHES_SHOWN
    expected = ", ".join(f"{tier} {quality:.0%}" for tier, quality in found.expected.items())
    near = ", ".join(
        f"{name} {of_it:.2f} (near from {least:.2f})"
        for name, (of_it, least) in [*found.own.items()][:_TYPES_SHOWN]
    )
    return [
        "",
        "weighed by the classifier, which decides where no rule, own type or phrase does:",
        f"the likeliest of {len(types)} types, and each feature's push towards them",
        *aligned(rows, "l" + "r" * len(names)),
        *([f"  and {plural(hidden, 'more feature')}, all in --json"] if hidden > 0 else []),
        *labelled("  unknown", f"{found.unknown:.0%} of the words"),
        *labelled("  spread", f"{found.entropy:.2f} of 1"),
        *labelled("  would do", f"{expected}, as assumed of types; wanted {found.target:.0%}"),
        *labelled("  unsure", found.unsure or "no"),
        *(labelled("  own types", near) if found.own else ()),
    ]


_INNER: Final = frozenset({"has_code_told", "opening", "session_told"})


def _features(features: Features) -> dict[str, Any]:
    """Return what a reader wants to see: what is worked out, not what it is worked out from."""
    found = {name: getattr(features, name) for name in features.__struct_fields__ if name not in _INNER}
    if not features.marks_cache:
        del found["human_turns"]  # counted for a prompt cache only
    return {**found, "has_code": features.has_code, "session": features.session}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return repr(value) if value else "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "not told" if value is None else f"{value:,}"


def route_json(route: Route, *, explains: bool = False) -> dict[str, Any]:
    """Return one route as `--json` prints it; with `explains`, the prompt's text is in it."""
    made = route.decision
    value: dict[str, Any] = {
        "tier": made.tier,
        "model": made.model,
        "asked": made.asked,
        "mode": made.mode,
        "complexity": made.complexity,
        "task_type": made.task_type,
        "sure": made.is_sure,
        "reasons": [
            {"code": each.code.value, "words": each.words, "before": each.before, "after": each.after}
            for each in made.reasons
        ],
        "input_tokens": made.input_tokens,
        "output_tokens": route.output_tokens,
        "output_tokens_told": route.is_told,
        "cost_usd": to_usd(route.cost_nusd),
        "baseline_model": made.baseline.model,
        "baseline_how": made.baseline.how,
        "baseline_usd": to_usd(route.baseline_nusd),
        "would": made.would,
        "same_quality": "as asked" if made.model == made.baseline.model else _NOT_MEASURED,
        "checks": list(route.checks),
        "is_judged": route.decision.is_judged,
        "climbs": [str(tier) for tier in made.climbs],
    }
    if not explains:
        return value
    weighing = {"classifier": asdict(route.weighing)} if route.weighing is not None else {}
    return {**value, "features": _features(route.features), **weighing}


# --- many --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sum:
    """Calls, what they would cost, and what the baseline would cost for them."""

    calls: int = 0
    cost_nusd: int = 0
    baseline_nusd: int = 0

    def add(self, route: Route) -> None:
        """Add one."""
        self.calls += 1
        self.cost_nusd += route.cost_nusd
        self.baseline_nusd += route.baseline_nusd


@dataclass(slots=True)
class Totals:
    """Running sums of routes: as large as the number of tiers and codes, however many there are."""

    tiers: dict[str, Sum] = field(default_factory=dict)
    codes: dict[Code, Sum] = field(default_factory=dict)
    baselines: dict[tuple[str, str], Sum] = field(default_factory=dict)
    unsure: Sum = field(default_factory=Sum)
    all: Sum = field(default_factory=Sum)
    told: int = 0
    named: int = 0
    bad_lines: int = 0

    def add(self, route: Route) -> None:
        """Add one route."""
        made = route.decision
        sums = [
            self.all,
            self.tiers.setdefault(made.tier or made.model, Sum()),
            self.codes.setdefault(deciding(made.reasons).code, Sum()),
            self.baselines.setdefault((made.baseline.model, made.baseline.how), Sum()),
        ]
        if not made.is_sure:
            sums.append(self.unsure)
        for each in sums:
            each.add(route)
        self.told += route.is_told
        self.named += made.mode != "auto"


def totals_lines(totals: Totals, planner: Planner, name: str, assumed: int) -> list[str]:
    """Return the table of a file's routes: share of calls and share of money, side by side."""
    whole = totals.all
    rows = [["tier", "calls", "of calls", "of money", "cost $", "baseline $"]]
    rows += [_tier_row(tier, one, whole) for tier, one in _along(totals.tiers, planner)]
    rows.append(_tier_row("total", whole, whole))
    saved = whole.baseline_nusd - whole.cost_nusd
    day = planner.list_day()
    return [
        f"leastwise route    {plural(whole.calls, 'prompt')} of {name}; nothing was sent",
        *aligned(rows, "lrrrrr"),
        *labelled(
            "saved" if saved >= 0 else "lost",
            f"{percent(abs(saved), whole.baseline_nusd, 1)} of what the baseline costs",
        ),
        *labelled("why", ", ".join(_code_shares(totals))),
        *labelled(
            "unsure",
            f"{percent(totals.unsure.calls, whole.calls)} of calls, "
            f"{percent(totals.unsure.baseline_nusd, whole.baseline_nusd)} of money",
        ),
        *labelled("baseline", ", ".join(_baselines(totals))),
        *labelled("quality", _NOT_MEASURED),
        *wrapped(
            f"Of money: of the baseline's. List prices of {days_text(day, day)}, prompt tokens estimated, "
            f"{_answers(totals, assumed)}."
            + (" Models named in the file: as if switched on." if totals.named else "")
        ),
    ]


def _tier_row(title: str, one: Sum, whole: Sum) -> list[str]:
    return [
        title,
        f"{one.calls:,}",
        percent(one.calls, whole.calls),
        percent(one.baseline_nusd, whole.baseline_nusd),
        dollars(one.cost_nusd, whole.baseline_nusd),
        dollars(one.baseline_nusd, whole.baseline_nusd),
    ]


def _along(tiers: Mapping[str, Sum], planner: Planner) -> Iterator[tuple[str, Sum]]:
    """Yield sums along the ladder, then those of models off it."""
    names = [tier.name for tier in planner.router.ladder]
    for name in [*names, *(name for name in tiers if name not in names)]:
        yield name, tiers.get(name, Sum())


def _code_shares(totals: Totals) -> Iterator[str]:
    for code, one in sorted(totals.codes.items(), key=lambda item: -item[1].calls):
        yield f"{code} {percent(one.calls, totals.all.calls)}"


def _baselines(totals: Totals) -> Iterator[str]:
    many = len(totals.baselines) > 1
    for (model, how), one in sorted(totals.baselines.items(), key=lambda item: -item[1].calls):
        yield f"{model} ({how}" + (f", {percent(one.calls, totals.all.calls)})" if many else ")")


def _answers(totals: Totals, assumed: int) -> str:
    if totals.told == totals.all.calls:
        return "answers of the size told"
    return f"answers of {assumed} tokens or their cap (assumed)" + (
        " where no size is told" if totals.told else ""
    )


def totals_json(totals: Totals, planner: Planner, name: str, assumed: int) -> dict[str, Any]:
    """Return a file's routes as `--json` prints them."""

    def plain(one: Sum) -> dict[str, Any]:
        return {
            "calls": one.calls,
            "share_of_calls": _share(one.calls, totals.all.calls),
            "share_of_money": _share(one.baseline_nusd, totals.all.baseline_nusd),
            "cost_usd": to_usd(one.cost_nusd),
            "baseline_usd": to_usd(one.baseline_nusd),
        }

    return {
        "file": name,
        "total": plain(totals.all),
        "tiers": {tier: plain(one) for tier, one in _along(totals.tiers, planner)},
        "reasons": {code.value: plain(one) for code, one in totals.codes.items()},
        "unsure": plain(totals.unsure),
        "baselines": [
            {"model": model, "how": how, "calls": one.calls} for (model, how), one in totals.baselines.items()
        ],
        "assumed_output_tokens": assumed,
        "prices_of": planner.list_day(),
        "bad_lines": totals.bad_lines,
        "same_quality": _NOT_MEASURED,
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
