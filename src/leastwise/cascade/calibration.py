"""What a check's scores are worth: how probable it is that an answer is acceptable, and from which score on.

A score is an opinion. A sample of answers that were scored and later turned out acceptable or not makes
two things of it. A *curve*, from score to probability, is an estimate: it orders answers and is shown. A
*threshold* is a promise, with an error and a certainty, and is refused where the sample does not carry it.

The promise: in at least 95 of 100 samples such as this one, at most 5 % of all answers that reach the
threshold are unacceptable. It is about the answers that the check accepts, not about those of the tier
that is asked when it does not; and about answers that come as those of the sample came: the same mixture
of tasks, the same models, prompts and settings, for which the `stamp` stands.

How it is kept (`threshold_for`): candidates are tested from the strictest down, each by an exact binomial
test of "more than 5 % of what this accepts is unacceptable", and the first that fails ends it. Because
the order is fixed beforehand, each may be tested at the full 5 %: to go wrong, the first candidate that
is truly too lax must pass. Every number is a candidate; only the scores that occurred tell two apart.

Source: Angelopoulos et al., Learn then Test, https://arxiv.org/abs/2110.01052 (fixed sequence testing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from leastwise.cascade.curves import UNKNOWN, Curve, fitted, levels_of
from leastwise.cascade.intervals import SURE, Rate, at_least, at_most, faultless, interval, upper_bound

#: The share of accepted answers that may be unacceptable where nothing else is said.
TARGET: Final = 0.05
#: Of the sample's answers, one in so many must reach the strictest score that is tested. A test of a few
#: answers fails by chance, and with it all that would follow; a check that accepts fewer seldom pays.
_ONE_IN: Final = 4
#: How sure it must be that planted answers pass too often. They are counted again and again: at 95 % one
#: look in twenty would raise an alarm, at this a judge at the very limit does in 10,000 looks once in fifty.
_ALARM: Final = 0.999
#: Planted answers do no task at all, so that no more than these pass whatever the calibration says. It says
#: anything may where its sample has no unacceptable answer, or none that was rejected.
_MOST_PLANTED: Final = 0.5


class Scored(NamedTuple):
    """An answer's score, a finite number, and whether the answer turned out acceptable."""

    score: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Rates:
    """What a threshold did to a sample.

    Attributes:
        accepted: Of all answers, those that reach it.
        unacceptable: Of these, the unacceptable.
        false_accept: Of the unacceptable answers, those that reach it.
        false_reject: Of the acceptable answers, those that do not.
    """

    accepted: Rate
    unacceptable: Rate
    false_accept: Rate
    false_reject: Rate


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a check's scores are worth for one type of task.

    Attributes:
        stamp: Names the models, prompts and settings for which it holds.
        task_type: The type of task, "" for all.
        threshold: The least score that is accepted; None where no score keeps the promise.
        n: How many answers it stands on.
        curve: From score to the probability that an answer is acceptable: an estimate, no promise.
        rates: What the threshold did to these answers; None where there is no threshold.
        why: What the threshold stands on, or why there is none, in words.
    """

    stamp: str
    task_type: str
    threshold: float | None
    n: int = 0
    curve: Curve = UNKNOWN
    rates: Rates | None = None
    why: str = ""


def calibrate(
    scored: Sequence[Scored],
    stamp: str,
    task_type: str = "",
    *,
    target: float = TARGET,
    sure: float = SURE,
) -> Calibration:
    """Return what a check's scores are worth, by answers whose worth is known; their order is of no account.

    Args:
        scored: A sample of the answers that the check will see, not a selection by score. Scores with
            many digits are better rounded down to a few levels: fewer tests, fewer that fail by chance.
        stamp: Names the models, prompts and settings that gave these scores.
        task_type: The type of task, "" for all.
        target: As in `threshold_for`.
        sure: As in `threshold_for`.

    Raises:
        ValueError: no such target, or no such certainty.
    """
    threshold, why = threshold_for(scored, target, sure)
    rates = None if threshold is None else rates_at(scored, threshold)
    return Calibration(stamp, task_type, threshold, len(scored), fitted(levels_of(scored)), rates, why)


def threshold_for(scored: Sequence[Scored], target: float, sure: float) -> tuple[float | None, str]:
    """Return the least score to accept so that the module's promise holds, or None, and why, in words.

    Testing begins at the strictest score that enough answers reach (a quarter of them, and as many as
    can pass the test at all). It thus depends on how many answers have which score, but not on how good
    they are, and the level holds as long as the scores passed by are no worse than those below them.

    Args:
        scored: The sample.
        target: The share of accepted answers that may be unacceptable, between 0 and 1.
        sure: How surely no more are, between 0 and 1.

    Raises:
        ValueError: no such target, or no such certainty.
    """
    needed = faultless(target, sure)
    least = max(needed, math.ceil(len(scored) / _ONE_IN))
    promise = f"{_percent(target)} at {_percent(sure)}"
    threshold = None
    tested: tuple[float, int, int] | None = None
    n = bad = 0
    for level in reversed(levels_of(scored)):
        n, bad = n + level.n, bad + level.n - level.ok
        if n < least:
            continue
        if at_most(bad, n, target) > 1 - sure:
            tested = tested or (level.score, n, bad)
            break
        threshold = level.score
        tested = (level.score, n, bad)
    if tested is None:
        many = "1 answer is" if len(scored) == 1 else f"{len(scored):,} answers are"
        few = f"{many} too few: at least {needed:,} accepted without a fault are needed"
        return None, f"{few} for {promise}"
    score, n, bad = tested
    words = f"from {score:g} on, {bad:,} of {n:,} accepted are unacceptable"
    most = f"{math.ceil(1000 * upper_bound(bad, n, sure)) / 10:.1f}% of all such"
    if threshold is not None:
        return threshold, f"{words}, so at most {most}, {_percent(sure)} sure"
    if bad > n * target:
        return None, f"{words}: too many for {promise}"
    return None, f"{words}, which may be {most}: too few answers to tell for {promise}"


def rates_at(scored: Sequence[Scored], threshold: float) -> Rates:
    """Return what a threshold does to a sample, calibrated or not.

    The intervals are those of a threshold that was fixed before the sample was seen.
    """
    passed = [one.ok for one in scored if one.score >= threshold]
    good = sum(one.ok for one in scored)
    bad, accepted, rightly = len(scored) - good, len(passed), sum(passed)
    return Rates(
        interval(accepted, len(scored)),
        interval(accepted - rightly, accepted),
        interval(accepted - rightly, bad),
        interval(good - rightly, good),
    )


def alarm(accepted: int, asked: int, false_accept: Rate) -> str:
    """Return an alarm in words where planted answers, known to be bad, pass too often; "" where they do not.

    Too often is more often than even the upper end of what the calibration says would let them, or than
    half of the time.

    Args:
        accepted: How many planted answers the check accepted.
        asked: How many it was given.
        false_accept: Of the calibration, how often unacceptable answers are accepted.
    """
    most = min(false_accept.high, _MOST_PLANTED)
    if accepted <= asked * most or at_least(accepted, asked, most) > 1 - _ALARM:
        return ""
    says = "its calibration says at most" if most < _MOST_PLANTED else "whoever reads them accepts less than"
    return (
        f"accepts answers that are known to be bad: {interval(accepted, asked)} of {asked:,} planted ones, "
        f"where {says} {100 * most:.1f}%"
    )


def _percent(share: float) -> str:
    return f"{100 * share:g}%"
