"""What a check's scores are worth: how probable it is that an answer is acceptable, and from which score on.

A score is an opinion. A sample of answers that were scored and later turned out acceptable or not makes
two things of it. A *curve*, from score to probability, is an estimate: it orders answers and is shown. A
*threshold* is a promise, with an error and a certainty, and is refused where the sample does not carry it.

The promise: in at least 95 of 100 samples such as this one, at most 5 % of all answers that reach the
threshold are unacceptable. It is about the answers that the check accepts, not about those of the tier
that is asked when it does not; and about answers that come as those of the sample came: the same mixture
of tasks, the same models, prompts and settings, for which the `stamp` stands.

How it is kept (`_threshold`): candidates are tested from the strictest down, each by an exact binomial
test of "more than 5 % of what this accepts is unacceptable", and the first that fails ends it. Because
the order is fixed beforehand, each may be tested at the full 5 %: to go wrong, the first candidate that
is truly too lax must pass. Every number is a candidate; only the scores that occurred tell two apart.

Source: Angelopoulos et al., Learn then Test, https://arxiv.org/abs/2110.01052 (fixed sequence testing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from leastwise.cascade.curves import UNKNOWN, Curve, fitted, levels_of
from leastwise.cascade.intervals import SURE, Rate, at_least, at_most, faultless, interval

#: The share of accepted answers that may be unacceptable where nothing else is said.
TARGET: Final = 0.05
#: Of the sample's answers, one in so many must reach the strictest score that is tested. A test of a few
#: answers fails by chance, and with it all that would follow; a check that accepts fewer seldom pays.
_ONE_IN: Final = 4
#: How sure it must be that planted answers pass too often. They are counted again and again: at 95 % one
#: look in twenty would raise an alarm.
_ALARM: Final = 0.999


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer's score, and whether the answer turned out acceptable."""

    score: float
    ok: bool

    def __post_init__(self) -> None:
        """Refuse a score that has no place in an order.

        Raises:
            ValueError: not a finite number.
        """
        if not math.isfinite(self.score):
            message = f"score={self.score!r}: expected a finite number"
            raise ValueError(message)


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
        check: The check's name.
        stamp: Names the models, prompts and settings for which it holds.
        task_type: The type of task, "" for all.
        threshold: The least score that is accepted; None where no score keeps the promise.
        target: The share of accepted answers that may be unacceptable, from 0 to 1.
        sure: How surely no more are, from 0 to 1.
        n: How many answers it stands on.
        curve: From score to probability.
        rates: What the threshold did to these answers; None where there is no threshold.
        why: What the threshold stands on, or why there is none, in words.
    """

    check: str
    stamp: str
    task_type: str
    threshold: float | None
    target: float = TARGET
    sure: float = SURE
    n: int = 0
    curve: Curve = UNKNOWN
    rates: Rates | None = None
    why: str = ""

    def is_current(self, stamp: str) -> bool:
        """Tell whether it holds for these models, prompts and settings."""
        return self.stamp == stamp

    def probability(self, score: float) -> float:
        """Return how probable it is that an answer of this score is acceptable: an estimate, no promise."""
        return self.curve.at(score)

    def to_json(self) -> bytes:
        """Return it as it is kept."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, kept: bytes | str) -> Calibration:
        """Return what `to_json` gave.

        Raises:
            msgspec.DecodeError: it is something else.
        """
        return msgspec.json.decode(kept, type=cls)


def calibrate(
    scored: Sequence[Scored],
    *,
    check: str,
    stamp: str,
    task_type: str = "",
    target: float = TARGET,
    sure: float = SURE,
) -> Calibration:
    """Return what a check's scores are worth, by answers whose worth is known; their order is of no account.

    Args:
        scored: A sample of the answers that the check will see, not a selection by score. Scores with
            many digits are better rounded down to a few levels: fewer tests, fewer that fail by chance.
        check: The check's name.
        stamp: Names the models, prompts and settings that gave these scores.
        task_type: The type of task, "" for all.
        target: The share of accepted answers that may be unacceptable, between 0 and 1.
        sure: How surely no more are, between 0 and 1.

    Raises:
        ValueError: no such target, or no such certainty.
    """
    threshold, why = _threshold(scored, target, sure)
    return Calibration(
        check,
        stamp,
        task_type,
        threshold,
        target,
        sure,
        len(scored),
        fitted(levels_of((one.score, one.ok) for one in scored)),
        None if threshold is None else rates_at(scored, threshold),
        why,
    )


def _threshold(scored: Sequence[Scored], target: float, sure: float) -> tuple[float | None, str]:
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
    for level in reversed(levels_of((one.score, one.ok) for one in scored)):
        n, bad = n + level.n, bad + level.n - level.ok
        if n < least:
            continue
        if at_most(bad, n, target) > 1 - sure:
            tested = tested or (level.score, n, bad)
            break
        threshold = level.score
        tested = (level.score, n, bad)
    if tested is None:
        few = f"{len(scored):,} answers are too few: at least {needed:,} accepted without a fault are needed"
        return None, f"{few} for {promise}"
    score, n, bad = tested
    words = f"from {score:g} on, {interval(bad, n)} of {n:,} accepted are unacceptable"
    if threshold is None:
        few = "too many" if bad > n * target else "too few answers to tell"
        return None, f"{words}: {few} for {promise}"
    return threshold, f"{words}: no more than {promise}"


def rates_at(scored: Sequence[Scored], threshold: float, sure: float = SURE) -> Rates:
    """Return what a threshold does to a sample, calibrated or not, with intervals that hold so surely.

    The intervals are those of a threshold that was fixed before the sample was seen.
    """
    passed = [one.ok for one in scored if one.score >= threshold]
    good = sum(one.ok for one in scored)
    bad, accepted, rightly = len(scored) - good, len(passed), sum(passed)
    return Rates(
        interval(accepted, len(scored), sure),
        interval(accepted - rightly, accepted, sure),
        interval(accepted - rightly, bad, sure),
        interval(good - rightly, good, sure),
    )


def alarm(accepted: int, asked: int, false_accept: Rate, sure: float = _ALARM) -> str:
    """Return an alarm in words where planted answers, known to be bad, pass too often; "" where they do not.

    Too often is more often than even the upper end of what the calibration says would let them.

    Args:
        accepted: How many planted answers the check accepted.
        asked: How many it was given.
        false_accept: Of the calibration, how often unacceptable answers are accepted.
        sure: How sure an alarm must be, between 0 and 1.
    """
    if at_least(accepted, asked, false_accept.high) > 1 - sure:
        return ""
    return (
        f"accepts answers that are known to be bad: {interval(accepted, asked)} of {asked:,} planted ones, "
        f"where its calibration says at most {100 * false_accept.high:.1f}%"
    )


def _percent(share: float) -> str:
    return f"{100 * share:g}%"
