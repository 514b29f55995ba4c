"""Whether a calibrated check keeps its word, over many random halves of a table.

On one half the check's threshold is chosen so that, as surely as asked, at most the target share of what it
accepts is unacceptable (`cascade.calibration`), and it is decided whether the cascade pays for itself
(`cascade.governor`). Both are applied to the other half unchanged.

The promise is about the share among *all* tasks such as these. The table's own share stands for it: the
half that was looked at is a sample of the table, without putting back, of which a binomial bound is no less
true. The other half is what one would see next, but it is a small sample itself: its share is above the
target now and then although the true one is not, the more as what one half has of the bad luck the other
lacks. Both are counted; only the first is the promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import sqrt
from statistics import fmean
from typing import Any

from leastwise.cascade.calibration import Scored, threshold_for
from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import (
    ACCEPTABLE,
    Column,
    Course,
    Rows,
    Way,
    course,
    mean,
    paying,
    terms_of,
    verdicts,
)
from leastwise.evaluate.replay import Split


@dataclass(frozen=True, slots=True)
class Promise:
    """What became of a promise over the splits. Means are over the splits that were granted a threshold.

    Attributes:
        check: Name of the check.
        models: The model whose answers it looks at, and the dearest, which is asked otherwise.
        target: The share of accepted answers that may be unacceptable.
        sure: How surely no more are.
        splits: How many.
        allowed: The share of them that may break it: what `sure` leaves, and two standard errors.
        granted: In how many there was a threshold.
        thresholds: How often which.
        broken: In how many of these more than the target of what it accepts in the whole table is bad.
        over: In how many more than the target of what it accepts in the other half is bad.
        accepted: Mean share of the other half's answers that it accepts.
        bad: Mean share of these that is unacceptable.
        quality: Of the cascade on the other half.
        cost_usd: Of it, for a task.
        dearest_quality: Of the dearest model for every task of the other half.
        dearest_cost_usd: Of that.
        governor_lets: In how many of these the governor let the cascade run.
        cost_less: In how many it cost less than the dearest model, on the other half.
        governor_right: In how many the governor's word agrees with that.
    """

    check: str
    models: Way
    target: float
    sure: float
    splits: int
    allowed: float
    granted: int
    thresholds: Mapping[str, int]
    broken: int
    over: int
    accepted: float
    bad: float
    quality: float
    cost_usd: float
    dearest_quality: float
    dearest_cost_usd: float
    governor_lets: int
    cost_less: int
    governor_right: int


def promise(
    outcomes: Outcomes, check: Column, way: Way, splits: Sequence[Split], *, target: float, sure: float
) -> Promise:
    """Return how a promise about the answers that a check accepts is kept.

    Args:
        outcomes: The table.
        check: What it costs; its threshold is chosen anew in each split.
        way: The model whose answers it looks at, and the one that is asked otherwise.
        splits: Halves, as `splits_of` gives them.
        target: The share of accepted answers that may be unacceptable, between 0 and 1.
        sure: How surely no more are, between 0 and 1.

    Raises:
        ConfigError: the table has no such check of the first model's answers.
    """
    low, dearest = way
    said, scores = verdicts(outcomes, low, check), outcomes.scores[low]
    courses = cache(partial(course, outcomes, way))
    terms = cache(partial(terms_of, outcomes, way))
    thresholds: Counter[float] = Counter()
    kept: list[dict[str, Any]] = []
    for train, test in splits:
        scored = [
            Scored(score, scores[row] >= ACCEPTABLE) for row in train if (score := said[row]) is not None
        ]
        threshold, _ = threshold_for(scored, target, sure)
        if threshold is None:
            continue
        thresholds[threshold] += 1
        chosen = replace(check, threshold=threshold)
        done, bad = courses(chosen), partial(_bad, scores, courses(chosen))
        cost, dearest_cost = mean(done.cost, test), mean(outcomes.costs[dearest], test)
        lets = len(paying(outcomes, terms(chosen), train)) > 1
        kept.append(
            {
                "broken": bad(range(len(outcomes))) > target,
                "over": bad(test) > target,
                "accepted": 1 - mean(done.escalated, test),
                "bad": bad(test),
                "quality": mean(done.quality, test),
                "cost_usd": cost,
                "dearest_quality": mean(outcomes.scores[dearest], test),
                "dearest_cost_usd": dearest_cost,
                "governor_lets": lets,
                "cost_less": cost < dearest_cost,
                "governor_right": lets is (cost < dearest_cost),
            }
        )
    counts = ("broken", "over", "governor_lets", "cost_less", "governor_right")
    means = ("accepted", "bad", "quality", "cost_usd", "dearest_quality", "dearest_cost_usd")
    figures: dict[str, Any] = {name: sum(one[name] for one in kept) for name in counts}
    figures |= {name: _mean(one[name] for one in kept) for name in means}
    return Promise(
        check.name,
        way,
        target,
        sure,
        len(splits),
        1 - sure + 2 * sqrt(sure * (1 - sure) / len(splits)),
        len(kept),
        {f"{score:g}": times for score, times in sorted(thresholds.items())},
        **figures,
    )


def _bad(scores: Sequence[float], done: Course, rows: Rows) -> float:
    """Return the share of the accepted answers that is unacceptable; 0 where none is accepted."""
    return _mean(float(scores[row] < ACCEPTABLE) for row in rows if not done.escalated[row])


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else 0.0
