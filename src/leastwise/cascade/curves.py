"""From a score to the probability that an answer is acceptable: two curves, and which of them fits better.

*Isotonic*: steps that only rise, wherever they may be; right for many answers, or scores that jump.
*Platt*: a logistic curve of two numbers; right for few answers. Both are fitted to Platt's smoothed
outcomes, so that no finite sample makes certain, and neither lets a higher score be worth less.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

_FOLDS: Final = 5
_SMALL: Final = 1e-9
_NEVER: Final = 1e-12  # a curve that called this impossible, and was wrong, is not infinitely wrong


class Level(NamedTuple):
    """The answers of one score: how many, and how many of them are acceptable."""

    score: float
    n: int
    ok: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Rises from score to probability; the default knows nothing.

    Attributes:
        method: Its kind.
        points: Of an isotonic curve scores and their probabilities, rising; of Platt's, slope and intercept.
    """

    method: Literal["isotonic", "platt"] = "platt"
    points: tuple[tuple[float, float], ...] = ((0.0, 0.0),)

    def at(self, score: float) -> float:
        """Return the probability at `score`: between two points of steps, what lies between."""
        if self.method == "platt":
            slope, intercept = self.points[0]
            return _logistic(slope * score + intercept)
        right = bisect_left(self.points, (score, -math.inf))
        if right in (0, len(self.points)):
            return self.points[right and -1][1]
        (before, low), (after, high) = self.points[right - 1 : right + 1]
        return low + (high - low) * (score - before) / (after - before)


UNKNOWN: Final = Curve()


def levels_of(answers: Iterable[tuple[float, bool]]) -> list[Level]:
    """Return scores, each once and rising, with how many answers have it and how many of them are ok."""
    counts: dict[float, tuple[int, int]] = {}
    for score, ok in answers:
        n, good = counts.get(score, (0, 0))
        counts[score] = (n + 1, good + ok)
    return [Level(score, n, ok) for score, (n, ok) in sorted(counts.items())]


def fitted(levels: Sequence[Level]) -> Curve:
    """Return the curve that foretells better the outcomes of answers that it was not fitted to.

    By log-loss over five folds, to which answers are dealt out by score and outcome, so that their order
    is of no account. Platt's where it is the same, or where there are too few answers for folds.

    Args:
        levels: Scores rising.
    """
    answers = [
        (level.score, is_ok)
        for level in levels
        for is_ok, times in ((False, level.n - level.ok), (True, level.ok))
        for _ in range(times)
    ]
    losses = [0.0, 0.0]
    for fold in range(_FOLDS if len(answers) >= _FOLDS else 0):
        others = levels_of(answer for place, answer in enumerate(answers) if place % _FOLDS != fold)
        held = levels_of(answers[fold::_FOLDS])
        losses = [
            loss + _surprise(fit(others), held) for loss, fit in zip(losses, (platt, isotonic), strict=True)
        ]
    return isotonic(levels) if losses[1] < losses[0] else platt(levels)


def isotonic(levels: Sequence[Level]) -> Curve:
    """Return the rising steps that fit best by least squares; each block gives its lowest and highest score.

    Pools adjacent violators, by counts, so that nothing is lost to rounding.

    Args:
        levels: At least one, scores rising.

    Source: Zadrozny and Elkan, https://doi.org/10.1145/775047.775151.
    """
    blocks: list[tuple[int, int, float, float]] = []  # acceptable, all, lowest and highest score
    for score, n, ok in levels:
        block = (ok, n, score, score)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            below = blocks.pop()
            block = (below[0] + block[0], below[1] + block[1], below[2], block[3])
        blocks.append(block)
    bad, good = _outcomes(levels)
    points = {
        score: bad + (good - bad) * ok / n for ok, n, lowest, highest in blocks for score in (lowest, highest)
    }
    return Curve("isotonic", tuple(points.items()))


def platt(levels: Sequence[Level]) -> Curve:
    """Return the logistic curve that fits best by likelihood, flat where it would fall.

    Newton's method on scores brought to one scale, its steps halved until they make the fit better.

    Args:
        levels: Scores rising.

    Source: Lin, Lin and Weng, A note on Platt's probabilistic outputs for support vector machines,
    https://doi.org/10.1007/s10994-007-5018-6; their smoothed outcomes too.
    """
    bad, good = _outcomes(levels)
    n = sum(level.n for level in levels) or 1
    middle = sum(level.n * level.score for level in levels) / n
    spread = math.sqrt(sum(level.n * (level.score - middle) ** 2 for level in levels) / n) or 1.0
    points = [
        _Point((level.score - middle) / spread, level.n, level.n * bad + level.ok * (good - bad))
        for level in levels
    ]
    share = sum(point.ok for point in points) / n or 0.5
    flat = math.log(share / (1 - share))
    slope, intercept = 0.0, flat
    tried = misfit = _misfit(points, slope, intercept)
    while True:
        rise, shift = _step(points, slope, intercept)
        while abs(rise) + abs(shift) > _SMALL:
            tried = _misfit(points, slope + rise, intercept + shift)
            if tried < misfit:
                break
            rise, shift = rise / 2, shift / 2
        else:
            break
        slope, intercept, misfit = slope + rise, intercept + shift, tried
    if slope < 0:
        slope, intercept = 0.0, flat
    return Curve("platt", ((slope / spread, intercept - slope * middle / spread),))


class _Point(NamedTuple):
    """A level on one scale: `ok` of its `n` answers are acceptable, by smoothed outcomes."""

    x: float
    n: int
    ok: float


def _outcomes(levels: Sequence[Level]) -> tuple[float, float]:
    """Return what an unacceptable and an acceptable answer count as: a little more than 0, less than 1."""
    good = sum(level.ok for level in levels)
    bad = sum(level.n for level in levels) - good
    return 1 / (bad + 2), (good + 1) / (good + 2)


def _step(points: Sequence[_Point], slope: float, intercept: float) -> tuple[float, float]:
    """Return Newton's step in slope and intercept."""
    down_slope = down_intercept = both = 0.0
    curve_slope = curve_intercept = _NEVER  # where a curve is all but flat, the step stays finite
    for x, n, ok in points:
        probability = _logistic(slope * x + intercept)
        missing, weight = ok - n * probability, n * probability * (1 - probability)
        down_slope, down_intercept = down_slope + x * missing, down_intercept + missing
        curve_slope += weight * x * x
        curve_intercept += weight
        both += weight * x
    size = curve_slope * curve_intercept - both * both
    return (
        (curve_intercept * down_slope - both * down_intercept) / size,
        (curve_slope * down_intercept - both * down_slope) / size,
    )


def _misfit(points: Sequence[_Point], slope: float, intercept: float) -> float:
    """Return how improbable the outcomes are: minus the logarithm of the likelihood."""
    total = 0.0
    for x, n, ok in points:
        logit = slope * x + intercept
        total += n * (max(logit, 0.0) + math.log1p(math.exp(-abs(logit)))) - ok * logit
    return total


def _surprise(curve: Curve, levels: Sequence[Level]) -> float:
    """Return the log-loss of a curve at these answers."""
    total = 0.0
    for score, n, ok in levels:
        probability = min(max(curve.at(score), _NEVER), 1 - _NEVER)
        total -= ok * math.log(probability) + (n - ok) * math.log(1 - probability)
    return total


def _logistic(logit: float) -> float:
    small = math.exp(-abs(logit))  # never overflows
    return (1.0 if logit >= 0 else small) / (1 + small)
