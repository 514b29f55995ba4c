"""Trying policies on a table of outcomes, with the controls that tell skill from luck and from money.

Policies are fitted on one part of the rows and tried on the other. Beside each stand: the best fixed model,
chosen on the same training part; every single model; the oracle, which no policy can beat; and what the
same money buys without skill, the policy's own models *shuffled*: dealt to tasks at random, in shares that
cost what the policy cost. That control is worked out as the mean over all ways of dealing, not drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random
from statistics import fmean
from typing import Final, NamedTuple

from leastwise.cascade.intervals import interval
from leastwise.errors import ConfigError
from leastwise.evaluate.outcomes import TEST, TRAIN, Outcomes
from leastwise.evaluate.policies import (
    MARGIN,
    Check,
    Course,
    Fitted,
    Policy,
    Rows,
    Way,
    course,
    fit,
    mean,
    oracle,
    terms_of,
    undominated,
)

#: The model that is best on the training part, for every task.
BEST_FIXED: Final = Policy("fixed")


class Split(NamedTuple):
    """The rows that policies are fitted on, and those that they are tried on."""

    train: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one policy, on average over the splits.

    Attributes:
        policy: What was tried; None of the oracle.
        quality: Mean over the tasks of a test part, 0 to 1.
        low: Lower end of the 95 % interval of `quality` for a test part of this size.
        high: Its upper end. Both are binomial, and wide where scores are fractions.
        cost: Mean dollars a task.
        escalated: Share of tasks for which a second model was asked.
        cascaded: Share of tasks for which it could have been: a governed cascade passes others by.
        shares: By model, the share of tasks that it answered.
        shuffled: Quality of the same models dealt out at random for the same money.
        shuffled_cost: Dollars a task of that; less than `cost` where even the dearest of them costs less.
        broken: Share of splits in which it was more than `MARGIN` below the best fixed model.
    """

    policy: Policy | None
    quality: float
    low: float
    high: float
    cost: float
    escalated: float
    cascaded: float
    shares: Mapping[str, float]
    shuffled: float
    shuffled_cost: float
    broken: float


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of all policies on a table.

    Attributes:
        outcomes: The table.
        how: How it was split, in words.
        splits: In how many ways.
        train: Rows to fit on, in each.
        test: Rows to try on, in each.
        best: The best fixed model.
        policies: What was tried.
        singles: Each model for every task.
        oracle: The cheapest of each task's best answers.
        best_models: In how many splits each model was the best on the training part.
        dominated: In how many splits a cheaper model was as good as this one on the training part.
        fitted: What the first split's training part made of each of `policies`.
    """

    outcomes: Outcomes
    how: str
    splits: int
    train: int
    test: int
    best: Line
    policies: tuple[Line, ...]
    singles: tuple[Line, ...]
    oracle: Line
    best_models: Mapping[str, int]
    dominated: Mapping[str, int]
    fitted: tuple[Fitted, ...]


def splits_of(outcomes: Outcomes, count: int = 1, seed: int = 0) -> tuple[list[Split], str]:
    """Return how the rows are parted, and that in words.

    One split follows the table's own folds where it has them; others are random halves.

    Raises:
        ConfigError: one task cannot be parted.
    """
    if len(outcomes) == 1:
        message = f"{outcomes.name}: one task; there must be one to choose by and another to try on"
        raise ConfigError(message)
    rows = range(len(outcomes))
    if count == 1 and outcomes.folds:
        parts = [[row for row in rows if outcomes.folds[row] == fold] for fold in (TRAIN, TEST)]
        return [Split(*parts)], "the table's own fold column"
    rng = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    found = []
    for _ in range(count):
        order = rng.sample(rows, len(rows))
        half = (len(rows) + 1) // 2
        found.append(Split(sorted(order[:half]), sorted(order[half:])))
    return found, f"random halves, seed {seed}"


def replay(outcomes: Outcomes, policies: Sequence[Policy], splits: Sequence[Split], how: str = "") -> Replay:
    """Try policies on every split.

    Args:
        outcomes: The table.
        policies: What to try; controls come by themselves.
        splits: As `splits_of` gives them.
        how: They were made, in words.

    Raises:
        ConfigError: a policy names a model or a check that the table does not have.
    """
    singles = [Policy("fixed", (model,)) for model in outcomes.models]
    everything = [BEST_FIXED, *policies, *singles]
    courses, terms = cache(partial(course, outcomes)), cache(partial(terms_of, outcomes))
    highest_of = oracle(outcomes)
    best_models: Counter[str] = Counter()
    dominated: Counter[str] = Counter()
    first: list[Fitted] = []
    tried: list[list[_Sums]] = []
    for split in splits:
        pool = undominated(outcomes, split.train)
        best_models[pool[-1]] += 1
        dominated.update(set(outcomes.models).difference(pool))
        fits = [fit(policy, outcomes, split.train, pool, terms) for policy in everything]
        first = first or fits
        parts = [[*_parts(outcomes, fitted, split.test, courses)] for fitted in fits]
        tried.append([_sums(outcomes, each) for each in (*parts, [(highest_of, split.test)])])
    best, *others, highest = (
        _line(policy, [one[place] for one in tried], [one[0] for one in tried])
        for place, policy in enumerate([*everything, None])
    )
    return Replay(
        outcomes,
        how,
        len(splits),
        len(splits[0].train),
        len(splits[0].test),
        best,
        tuple(others[: len(policies)]),
        tuple(others[len(policies) :]),
        highest,
        best_models,
        dominated,
        tuple(first[1 : 1 + len(policies)]),
    )


# --- one policy on one test part ---------------------------------------------------------------------


class _Sums(NamedTuple):
    """Means over a test part; `shuffled` is quality and cost of the same money without skill."""

    number: int
    quality: float
    cost: float
    escalated: float
    cascaded: float
    shares: Mapping[str, float]
    shuffled: tuple[float, float]


def _parts(
    outcomes: Outcomes, fitted: Fitted, test: Rows, courses: Callable[[Way, Check | None], Course]
) -> Iterator[tuple[Course, Rows]]:
    """Yield the ways that a fitted policy asks models in, each with the rows that go that way."""
    by_way: dict[Way, list[int]] = {}
    for row in test:
        by_way.setdefault(fitted.ways.get(outcomes.kinds[row], fitted.otherwise), []).append(row)
    for way, rows in by_way.items():
        yield courses(way, fitted.check if len(way) > 1 else None), rows


def _sums(outcomes: Outcomes, parts: Sequence[tuple[Course, Rows]]) -> _Sums:
    test = [row for _, rows in parts for row in rows]
    count = len(test)
    quality, cost, escalated = (
        sum(_sum(getattr(one, name), rows) for one, rows in parts) / count
        for name in ("quality", "cost", "escalated")
    )
    cascaded = sum(len(rows) for one, rows in parts if one.may_escalate) / count
    shares: dict[str, float] = {}
    for one, rows in parts:
        for model, answered in one.answered.items():
            shares[model] = shares.get(model, 0.0) + _sum(answered, rows) / count
    used = {
        model: (mean(outcomes.scores[model], test), mean(outcomes.costs[model], test)) for model in shares
    }
    return _Sums(count, quality, cost, escalated, cascaded, shares, shuffled(used, shares, cost))


def _sum(column: Sequence[float], rows: Rows) -> float:
    return sum(map(column.__getitem__, rows))


def shuffled(
    means: Mapping[str, tuple[float, float]], shares: Mapping[str, float], cost: float
) -> tuple[float, float]:
    """Return mean quality and cost of models dealt out at random in shares that cost `cost` a task.

    The shares begin as given. A cascade pays for checks and for answers that it does not serve; who deals
    out models at random does not, and spends that on the dearest of them; or, where the policy knew which
    tasks are cheap, has to spare, and turns to the cheapest.

    Args:
        means: By model, its mean quality and cost.
        shares: By model, the share of tasks that it answers.
        cost: To be spent on a task, in dollars.
    """
    quality = sum(share * means[model][0] for model, share in shares.items())
    spent = sum(share * means[model][1] for model, share in shares.items())
    turn = max if cost > spent else min
    toward = means[turn(means, key=lambda model: means[model][1])]
    gap = toward[1] - spent
    moved = min(1.0, (cost - spent) / gap) if gap else 0.0
    return quality + moved * (toward[0] - quality), spent + moved * gap


def _line(policy: Policy | None, found: Sequence[_Sums], best: Sequence[_Sums]) -> Line:
    quality, count = fmean(one.quality for one in found), found[0].number
    between = interval(round(quality * count), count)
    models = {model: None for one in found for model in one.shares}
    return Line(
        policy,
        quality,
        between.low,
        between.high,
        fmean(one.cost for one in found),
        fmean(one.escalated for one in found),
        fmean(one.cascaded for one in found),
        {model: fmean(one.shares.get(model, 0.0) for one in found) for model in models},
        fmean(one.shuffled[0] for one in found),
        fmean(one.shuffled[1] for one in found),
        fmean(one.quality < other.quality - MARGIN for one, other in zip(found, best, strict=True)),
    )
