"""A trial's values: what is tried on whose traffic, how pairs of answers went, and what they show.

A trial asks a cheaper tier what a dearer one was asked, and compares the two answers. What it shows is a
lower bound: with 95 % confidence at least so many of the tag's answers would be as good. It holds for one
tag, the model that the tier had then, and calls that would have gone to the model it was compared with or
to a cheaper one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from leastwise.budget import BudgetRule
from leastwise.cascade.intervals import lower_bound
from leastwise.cascade.plan import Trial
from leastwise.ladder import Ladder
from leastwise.models import canonical

#: How answers can be compared, beside a function of the user's: see `trial.compared_by`.
COMPARISONS: Final = ("auto", "exact", "json", "judge")

#: Why pairs were not compared: what the trial may cost is spent. It is over then.
MONEY: Final = "the trial's money is used up"
#: What begins the cause where the upstream is what failed.
UNANSWERED: Final = "upstream error"

AS_ASKED: Final = "as asked"
NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial under way.

    Attributes:
        id: ULID; its budget is named after it.
        tag: Whose traffic.
        tier: The tier on trial.
        model: The model it has.
        compare: One of `COMPARISONS`, or the name of a function.
        judge: The tier that judges; "" for the one whose answers are the measure.
        wanted: How many pairs are to be compared.
        limit_nusd: What it may cost, in nano-dollars.
        at: When it began, seconds since the epoch.
    """

    id: str
    tag: str
    tier: str
    model: str
    compare: str
    judge: str
    wanted: int
    limit_nusd: int
    at: float

    @property
    def rule(self) -> BudgetRule:
        """The budget that all of its calls are paid from, beside those that pay for everything."""
        name = f"trial-{self.tag}-{self.id}"
        return BudgetRule(name, self.limit_nusd, window="total", ceilings=(), cap="block", reserve=Decimal(0))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a trial that were compared in one way, or were not for one cause.

    Attributes:
        how: The comparison, such as `exact` or `judge by opus`; where not compared, why.
        against: The model whose answers were the measure; "" where not compared.
        n: How many.
        agreed: Those in which the tier's answer was as good.
        spent_nusd: What the trial spent on them.
        measure_nusd: What the answers that were the measure cost.
        tier_nusd: What the tier's answers cost.
    """

    how: str
    against: str = ""
    n: int = 1
    agreed: int = 0
    spent_nusd: int = 0
    measure_nusd: int = 0
    tier_nusd: int = 0

    @property
    def is_compared(self) -> bool:
        """Whether their answers were compared."""
        return self.against != ""

    def plus(self, more: Pairs) -> Pairs:
        """Return both together; of `more` only the sums."""
        return replace(
            self,
            n=self.n + more.n,
            agreed=self.agreed + more.agreed,
            spent_nusd=self.spent_nusd + more.spent_nusd,
            measure_nusd=self.measure_nusd + more.measure_nusd,
            tier_nusd=self.tier_nusd + more.tier_nusd,
        )


def added(sums: Sequence[Pairs], one: Pairs) -> list[Pairs]:
    """Return sums with one more, most pairs first."""
    found = {(pairs.how, pairs.against): pairs for pairs in sums}
    key = (one.how, one.against)
    found[key] = found[key].plus(one) if key in found else one
    return sorted(found.values(), key=lambda pairs: (-pairs.n, pairs.how, pairs.against))


def compared(sums: Sequence[Pairs]) -> Pairs:
    """Return all pairs that were compared, as one; what all pairs cost is in `spent_nusd`."""
    total = Pairs("", n=0)
    for pairs in sums:
        total = total.plus(pairs if pairs.is_compared else replace(pairs, n=0, agreed=0))
    return total


def how_words(sums: Sequence[Pairs]) -> str:
    """Return how pairs were compared: `exact`, or with their numbers where in several ways."""
    numbers: dict[str, int] = {}
    for pairs in sums:
        if pairs.is_compared:
            numbers[pairs.how] = numbers.get(pairs.how, 0) + pairs.n
    if len(numbers) < 2:  # noqa: PLR2004 - nothing to tell apart
        return "".join(numbers)
    return ", ".join(f"{how} {n:,}" for how, n in numbers.items())


def concluded(trial: OpenTrial, sums: Sequence[Pairs], ladder: Ladder, at: float) -> Trial | None:
    """Return what a trial shows at its end; None where nothing was compared."""
    total = compared(sums)
    if not total.n:
        return None
    models = {pairs.against for pairs in sums if pairs.is_compared}
    return Trial(
        tag=trial.tag,
        tier=trial.tier,
        against=min(models, key=lambda model: (_rank(model, ladder), model)),
        compared=how_words(sums),
        n=total.n,
        agreed=total.agreed,
        cost_nusd=total.spent_nusd,
        at=at,
        model=trial.model,
    )


def _rank(model: str, ladder: Ladder) -> int:
    """Return a model's place on the ladder; -1 off it, for then nothing is known to be cheaper."""
    plain = canonical(model)
    return next((place for place, tier in enumerate(ladder) if canonical(tier.model) == plain), -1)


def least_words(agreed: int, n: int) -> str:
    """Return the share that is surely as good, rounded down, such as `>=98.4%`."""
    return f">={math.floor(1000 * lower_bound(agreed, n)) / 10:.1f}%"


def trial_words(trial: Trial) -> str:
    """Return what a trial shows as the *same quality* column has it: `>=98.4% n 2,000`."""
    return f"{least_words(trial.agreed, trial.n)} n {trial.n:,}"


def vouches(trial: Trial, model: str, baseline: str, ladder: Ladder) -> bool:
    """Tell whether a trial says something of calls that `model` answered instead of `baseline`.

    It does for the model that was tried, where it was compared with the baseline or a dearer model.
    """
    if canonical(trial.model) != canonical(model):
        return False
    if canonical(trial.against) == canonical(baseline):
        return True
    return _rank(trial.against, ladder) > _rank(baseline, ladder) >= 0


def quality_of(
    trials: Mapping[tuple[str, str], Trial],
    ladder: Ladder,
    *,
    tag: str,
    tier: str,
    model: str,
    baseline: str,
) -> str:
    """Return what is known of an answer: `as asked`, a trial's words, or `not measured`.

    Args:
        trials: The latest of each tag and tier (`Evidence.trials`).
        ladder: The tiers.
        tag: The call's.
        tier: The tier that answered, or "".
        model: The model that answered.
        baseline: The one that would have.
    """
    if canonical(model) == canonical(baseline):
        return AS_ASKED
    trial = trials.get((tag, tier)) if tag else None
    if trial is None or not vouches(trial, model, baseline, ladder):
        return NOT_MEASURED
    return trial_words(trial)
