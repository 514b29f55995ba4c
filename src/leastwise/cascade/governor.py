"""Where a cascade should begin so that it pays for itself: break-even, on live evidence.

An answer that is checked and rejected was paid for in vain, and so was its check. Whoever begins at a
tier expects to pay its answer, its check and, as often as that rejects, all that the next tier is
expected to cost. Of two tiers the cheap one pays where

    cheap + check + rejected * dear < dear,  that is where  accepted > (cheap + check) / dear

so that a cascade over tiers of nearly one price loses money however good its checks are. (What is
rejected is harder than the rest, and may cost the dear tier more than its usual answer: see `Leg`.) One
that does not pay is passed by; now and then a call goes there all the same, to see when that changes.

Quality is not weighed here: what a check may let pass is the calibration's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from leastwise.cascade.plan import Rung
from leastwise.money import places_of, show

#: What is taken for granted of a tier, as if of so many checked answers so many had been rejected: about
#: what checks reject of a small model's answers to tasks it is meant for. It lets a new cascade be tried,
#: and weighs little once rejections count.
PRIOR_REJECTED: Final = 1
PRIOR_CHECKED: Final = 4
#: From so many checked answers on rejections count against a tier; three bad ones in a row are chance.
LEAST_CHECKED: Final = 20

_UNTRIED: Final = Rung()


@dataclass(frozen=True, slots=True)
class Leg:
    """A tier that may answer, with what it is expected to cost.

    Attributes:
        tier: Its name.
        answer_nusd: What its answer is expected to cost.
        check_nusd: What checking that is expected to cost; the last tier's answer is not checked.
        rung: How checks of its answers went lately.
        barred: Why its checks cannot accept anything, in words; "" where they can.
        after_nusd: What its answer is expected to cost where the tier below was rejected; None for as much
            as any. Real coding tasks on which a small model failed cost a large one twice as much as others.
    """

    tier: str
    answer_nusd: int
    check_nusd: int = 0
    rung: Rung = _UNTRIED
    barred: str = ""
    after_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin.

    Attributes:
        index: The place of the tier.
        words: Why; "" where there was no choice.
        costs_nusd: What beginning at each tier is expected to cost, checks and escalations included.
        is_probe: Whether it is tried although it does not pay.
    """

    index: int
    words: str
    costs_nusd: tuple[int, ...]
    is_probe: bool = False

    @property
    def onward(self) -> tuple[int, ...]:
        """The places to go on to, one after the other, where an answer is rejected: where least is expected.

        A tier between, whose answer is likely to be paid in vain, is passed by.
        """
        places, last = [self.index], len(self.costs_nusd) - 1
        while places[-1] < last:
            places.append(min(range(last, places[-1], -1), key=self.costs_nusd.__getitem__))
        return tuple(places[1:])


def begin(legs: Sequence[Leg], *, draw: float = 1.0, probes: float = 0.0) -> Start:
    """Return where to begin: where least is expected to be paid, of equals at the dearest.

    Args:
        legs: The tiers that may answer, at least one, cheap to dear. A rejected answer goes to the next.
        draw: A random number from 0 to 1.
        probes: How often the tier below is tried where it does not pay, from 0 to 1. It is not where it
            could not pay even if all its answers were accepted; it is where the check accepts nothing as
            yet, for by what it says it can be calibrated.
    """
    costs = expected(legs)
    last = len(legs) - 1
    best = min(range(last, -1, -1), key=costs.__getitem__)  # the first of equals
    if best == 0:
        return Start(0, _pays(legs, costs) if last else "", costs)
    below = legs[best - 1]
    against = "straight" if best == last else f"from {legs[best].tier}"
    cost, other = _shown(costs[best - 1], costs[best])
    why = f"{below.tier}, {_record(below)}, costs {cost} with checks against {other} {against}"
    could_pay = below.answer_nusd + below.check_nusd < costs[best]
    if could_pay and draw < probes:
        words = f"tries {below.tier}, as {100 * probes:g}% of calls do: {why}"
        return Start(best - 1, words, costs, is_probe=True)
    return Start(best, f"begins at {legs[best].tier}: {why}", costs)


def expected(legs: Sequence[Leg]) -> tuple[int, ...]:
    """Return what beginning at each tier is expected to cost, in nano-dollars."""
    costs, after = [legs[-1].answer_nusd], _after(legs[-1])
    for leg in reversed(legs[:-1]):
        more = leg.check_nusd + round(rejected(leg) * after)
        costs.append(leg.answer_nusd + more)
        after = _after(leg) + more
    return tuple(reversed(costs))


def rejected(leg: Leg) -> float:
    """Return how often a tier's answer is expected to be rejected, from 0 to 1.

    The mean of a beta distribution: of what was seen, drawn towards what is taken for granted.
    """
    if leg.barred:
        return 1.0
    checked = leg.rung.checked
    seen = (PRIOR_REJECTED + checked - leg.rung.accepted) / (PRIOR_CHECKED + checked)
    return seen if checked >= LEAST_CHECKED else min(seen, PRIOR_REJECTED / PRIOR_CHECKED)


def _after(leg: Leg) -> int:
    return leg.answer_nusd if leg.after_nusd is None else leg.after_nusd


def _pays(legs: Sequence[Leg], costs: Sequence[int]) -> str:
    last = len(legs) - 1
    least = min(range(1, last + 1), key=costs.__getitem__)
    cost, other = _shown(costs[0], costs[least])
    where = f"{'on' if least == last else 'from'} {legs[least].tier}"
    return f"{legs[0].tier} pays: {_record(legs[0])}; expected {cost} against {other} {where}"


def _record(leg: Leg) -> str:
    if leg.barred:
        return f"none accepted ({leg.barred})"
    checked = leg.rung.checked
    if checked < LEAST_CHECKED:
        share = 100 * (1 - rejected(leg))
        return f"{share:.0f}% accepted as is assumed until {LEAST_CHECKED} are checked ({checked} so far)"
    return f"{100 * leg.rung.accepted / checked:.0f}% of {checked:,} accepted"


def _shown(*sums: int) -> list[str]:
    places = places_of(max(sums))
    return [show(nusd, places) for nusd in sums]
