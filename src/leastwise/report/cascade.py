"""Where the cascade loses: types whose cheap answers fail too often to pay, judges that pass anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from leastwise.cascade import Evidence, Plan, Rung, interval, lower_bound, stamp_of
from leastwise.cascade import Rate as Share
from leastwise.forecast import Prices
from leastwise.judge import VERSION
from leastwise.ladder import Ladder
from leastwise.money import TOKENS_PER_MTOK
from leastwise.prices import Rate
from leastwise.report.table import plural
from leastwise.routing import Known
from leastwise.routing.climbing import Asked, Climber, is_doubted

#: Planted answers do no task at all: a judge that surely passes more than one in fifty reads none of them.
_OFTEN: Final = 0.02
#: How sure that must be: reports are read again and again, and at 95 % a single one would be enough.
_SURE: Final = 0.99
_NO_TYPE: Final = "a task of no type"
_ANY_DRAW: Final = 1.0  # no probe
_NONE: Final = interval(0, 0)


@dataclass(frozen=True, slots=True)
class PassedBy:
    """A type of task whose cascade does not begin at the lowest tier that was tried.

    Attributes:
        task_type: The type, or "".
        tier: That tier.
        checked: How many of its answers were checked lately.
        accepted: How many of these were accepted.
        words: Where calls of this type begin instead, and why.
    """

    task_type: str
    tier: str
    checked: int
    accepted: int
    words: str


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """How the cascade does.

    Attributes:
        passed_by: Types that pass a tier by, most checked first.
        planted: How many planted answers the judge accepted, of all that it was given.
    """

    passed_by: tuple[PassedBy, ...] = ()
    planted: Share = _NONE


NO_CASCADE: Final = CascadeReport()


def read_cascade(evidence: Evidence, plan: Plan, prices: Prices, at: datetime) -> CascadeReport:
    """Return how a cascade does, by what the ledger says.

    Args:
        evidence: How the checks in force went.
        plan: These checks.
        prices: The ladder, and what its answers cost.
        at: Now; must carry a time zone.
    """
    climber, ladder = Climber(prices.book, prices.models), prices.ladder
    tiers = ladder.tiers[: ladder.rank(plan.escalate_to) + 1] if plan.escalate_to else ladder.tiers
    first: dict[str, int] = {}
    for place, tier in reversed([*enumerate(tiers[:-1])] if plan.governs else []):
        first |= {kind: place for kind, name in evidence.rungs if name == tier.name}
    found = []
    for kind, place in first.items():
        tier = tiers[place]
        rung = evidence.rungs[kind, tier.name]
        tokens = _prompt_tokens(rung, prices.book.rate(tier.model, at, provider=tier.upstream))
        is_sure = kind and not is_doubted(evidence, kind, tier)
        asks = plan.unjudged if is_sure else plan
        asked = Asked(asks, Known(evidence=evidence), kind, partial(_same, tokens), None, at)
        start = climber.begin(asked, tiers[place:], _ANY_DRAW)
        if start.index:
            found.append(PassedBy(kind, tier.name, rung.checked, rung.accepted, start.words))
    found.sort(key=lambda one: -one.checked)
    return CascadeReport(tuple(found), planted_of(evidence, plan, ladder))


def _prompt_tokens(rung: Rung, rate: Rate) -> int:
    """Return how long prompts were, by what the answers cost, as if none of them had been cached."""
    prompts = rung.answers_nusd * TOKENS_PER_MTOK - rung.output_tokens * rate.output
    return max(0, prompts) // max(1, rate.input * rung.checked)


def _same(tokens: int, _tokenizer: str) -> int:
    return tokens


def planted_of(evidence: Evidence, plan: Plan, ladder: Ladder) -> Share:
    """Return how many planted answers the judge in force accepted, of all that it was given."""
    stamps = {stamp_of(plan, tier.model, VERSION) for tier in ladder}
    counts = [(asked, passed) for stamp, (asked, passed) in evidence.controls.items() if stamp in stamps]
    return interval(sum(passed for _, passed in counts), sum(asked for asked, _ in counts))


def passes_often(planted: Share) -> bool:
    """Tell whether a judge surely accepts planted answers more often than it may."""
    return planted.k > 0 and lower_bound(planted.k, planted.n, _SURE) > _OFTEN


def cascade_lines(report: CascadeReport) -> list[tuple[str, str]]:
    """Return what is wrong, at most a line of each kind, as a label and its text."""
    lines = []
    if report.passed_by:
        first, *more = report.passed_by
        others = f" ({plural(len(more), 'more type')}: --json)" if more else ""
        lines.append(("! no gain", f"{first.task_type or _NO_TYPE} {first.words}{others}"))
    if passes_often(report.planted):
        lines.append(("! planted", f"the judge accepted {planted_words(report.planted)}"))
    return lines


def planted_words(planted: Share) -> str:
    """Return such as `4 of 31 planted bad answers`."""
    return f"{planted.k:,} of {plural(planted.n, 'planted bad answer')}"


def cascade_json(report: CascadeReport) -> dict[str, Any]:
    """Return how the cascade does as `--json` prints it."""
    return {
        "passed_by": [
            {
                "type": one.task_type,
                "tier": one.tier,
                "checked": one.checked,
                "accepted": one.accepted,
                "words": one.words,
            }
            for one in report.passed_by
        ],
        "planted": {"accepted": report.planted.k, "asked": report.planted.n},
    }
