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

from leastwise.cascade.calibration import Scored, calibrate
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
        way: The model whose answers it looks at, and the one that is asked otherwise.
        target: The share of accepted answers that may be unacceptable.
        sure: How surely no more are.
        splits: How many.
        granted: In how many there was a threshold.
        thresholds: How often which.
        broken: In how many of these more than the target of what it accepts in the whole table is bad.
        allowed: The share of all splits that may be: what `sure` leaves, and two standard errors.
        over: In how many more than the target of what it accepts in the other half is bad.
        accepted: Mean share of the other half's answers that it accepts.
        bad: Mean share of these that is unacceptable.
        quality: Of the cascade on the other half.
        cost: Of it, dollars a task.
        dear_quality: Of the second model for every task of the other half.
        dear_cost: Of that.
        governed: In how many of these the governor let the cascade run.
        pays: In how many it cost less than the second model, on the other half.
        right: In how many the governor's word agrees with that.
    """

    check: str
    way: Way
    target: float
    sure: float
    splits: int
    granted: int
    thresholds: Mapping[float, int]
    broken: int
    allowed: float
    over: int
    accepted: float
    bad: float
    quality: float
    cost: float
    dear_quality: float
    dear_cost: float
    governed: int
    pays: int
    right: int


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
    courses = cache(partial(course, outcomes, way))
    terms = cache(partial(terms_of, outcomes, way))
    kept = []
    for split in splits:
        threshold = _threshold(outcomes, check, way[0], split.train, target=target, sure=sure)
        if threshold is not None:
            chosen = replace(check, threshold=threshold)
            lets = len(paying(outcomes, terms(chosen), split.train)) > 1
            kept.append(_kept(outcomes, way, split.test, courses(chosen), threshold=threshold, lets=lets))
    return Promise(
        check=check.name,
        way=way,
        target=target,
        sure=sure,
        splits=len(splits),
        granted=len(kept),
        thresholds=Counter(one.threshold for one in kept),
        broken=sum(one.bad_in_all > target for one in kept),
        allowed=1 - sure + 2 * sqrt(sure * (1 - sure) / len(splits)),
        over=sum(one.bad > target for one in kept),
        accepted=_mean(one.accepted for one in kept),
        bad=_mean(one.bad for one in kept),
        quality=_mean(one.quality for one in kept),
        cost=_mean(one.cost for one in kept),
        dear_quality=_mean(one.dear_quality for one in kept),
        dear_cost=_mean(one.dear_cost for one in kept),
        governed=sum(one.lets for one in kept),
        pays=sum(one.pays for one in kept),
        right=sum(one.pays == one.lets for one in kept),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """One split that was granted a threshold; costs and qualities are those of the other half."""

    threshold: float
    bad_in_all: float
    accepted: float
    bad: float
    quality: float
    cost: float
    dear_quality: float
    dear_cost: float
    lets: bool

    @property
    def pays(self) -> bool:
        return self.cost < self.dear_cost


def _threshold(
    outcomes: Outcomes, check: Column, model: str, train: Rows, *, target: float, sure: float
) -> float | None:
    said, scores = verdicts(outcomes, model, check), outcomes.scores[model]
    scored = [Scored(score, scores[row] >= ACCEPTABLE) for row in train if (score := said[row]) is not None]
    return calibrate(scored, check=check.name, stamp="replay", target=target, sure=sure).threshold


def _kept(outcomes: Outcomes, way: Way, test: Rows, done: Course, *, threshold: float, lets: bool) -> _Kept:
    low, dear = way
    return _Kept(
        threshold=threshold,
        bad_in_all=_bad(outcomes, low, done, range(len(outcomes))),
        accepted=1 - mean(done.escalated, test),
        bad=_bad(outcomes, low, done, test),
        quality=mean(done.quality, test),
        cost=mean(done.cost, test),
        dear_quality=mean(outcomes.scores[dear], test),
        dear_cost=mean(outcomes.costs[dear], test),
        lets=lets,
    )


def _bad(outcomes: Outcomes, model: str, done: Course, rows: Rows) -> float:
    """Return the share of a model's accepted answers that is unacceptable; 0 where none is accepted."""
    accepted = [row for row in rows if not done.escalated[row]]
    return _mean(float(outcomes.scores[model][row] < ACCEPTABLE) for row in accepted)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else 0.0
