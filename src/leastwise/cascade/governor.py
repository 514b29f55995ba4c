"""Where a cascade should begin so that it pays for itself: break-even, on live evidence.

An answer that is checked and rejected was paid for in vain, and so was its check. Whoever begins at a
tier expects to pay its answer, its check and, as often as that rejects, all that going on is expected to
cost: from the dearer tier where that is least, which need not be the next one. Of two tiers the cheap one
pays where

    cheap + check + rejected * dear < dear,  that is where  accepted > (cheap + check) / dear

so that a cascade over tiers of nearly one price loses money however good its checks are. (What is
rejected is harder than the rest, and may cost the dear tier more than its usual answer: see `Leg`.) A tier
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
        costs_nusd: What beginning at each tier is expected to cost, checks and escalations included.
        legs: The tiers.
        probes: How often this tier is tried although it does not pay; 0 where it pays.
    """

    index: int
    costs_nusd: tuple[int, ...]
    legs: tuple[Leg, ...]
    probes: float = 0.0

    @property
    def words(self) -> str:
        """Why, beside what would have been the next best below; "" where there was no choice."""
        legs, costs, last = self.legs, self.costs_nusd, len(self.legs) - 1
        if last == 0:
            return ""
        best = _cheapest_above(-1, costs)
        if best == 0:
            other = _cheapest_above(0, costs)
            cost, against = _shown(costs[0], costs[other])
            where = f"{'on' if other == last else 'from'} {legs[other].tier}"
            return f"{legs[0].tier} pays: {_record(legs[0])}; expected {cost} against {against} {where}"
        below = self.index if self.probes else min(range(best - 1, -1, -1), key=costs.__getitem__)
        leg, (cost, against) = legs[below], _shown(costs[below], costs[best])
        where = "straight" if best == last else f"from {legs[best].tier}"
        why = f"{leg.tier}, {_record(leg)}, costs {cost} with checks against {against} {where}"
        if self.probes:
            return f"tries {leg.tier}, as {round(100 * self.probes, 1):g}% of calls do: {why}"
        return f"begins at {legs[best].tier}: {why}"

    @property
    def onward(self) -> tuple[int, ...]:
        """The places to go on to, one after the other, where an answer is rejected: where least is expected.

        A tier between, whose answer is likely to be paid in vain, is passed by.
        """
        places, last = [self.index], len(self.costs_nusd) - 1
        while places[-1] < last:
            places.append(_cheapest_above(places[-1], self.costs_nusd))
        return tuple(places[1:])


def begin(legs: Sequence[Leg], *, draw: float = 1.0, probes: float = 0.0) -> Start:
    """Return where to begin: where least is expected to be paid, of equals at the dearest.

    Args:
        legs: The tiers that may answer, at least one, cheap to dear. See `Start.onward` for what follows.
        draw: A random number from 0 to 1.
        probes: How often a tier below is tried where it does not pay, from 0 to 1: each as often as another,
            for what changes at one shows nowhere else. One is not that could not pay even if all its
            answers were accepted; one is whose check accepts nothing as yet, for by what it says it can be
            calibrated.
    """
    costs = expected(legs)
    best = _cheapest_above(-1, costs)
    could_pay = [at for at in range(best) if legs[at].answer_nusd + legs[at].check_nusd < costs[best]]
    if could_pay and draw < probes:
        at = min(int(draw / probes * len(could_pay)), len(could_pay) - 1)
        return Start(could_pay[at], costs, tuple(legs), probes / len(could_pay))
    return Start(best, costs, tuple(legs))


def expected(legs: Sequence[Leg]) -> tuple[int, ...]:
    """Return what beginning at each tier is expected to cost, in nano-dollars."""
    costs = [leg.answer_nusd for leg in legs]
    after = [leg.answer_nusd if leg.after_nusd is None else leg.after_nusd for leg in legs]
    for place in range(len(legs) - 2, -1, -1):
        leg = legs[place]
        more = leg.check_nusd + round(rejected(leg) * after[_cheapest_above(place, costs)])
        costs[place] += more
        after[place] += more
    return tuple(costs)


def _cheapest_above(place: int, costs: Sequence[int]) -> int:
    """Return where least is expected to be paid above a place; of equals the dearest tier."""
    return min(range(len(costs) - 1, place, -1), key=costs.__getitem__)


def rejected(leg: Leg) -> float:
    """Return how often a tier's answer is expected to be rejected, from 0 to 1.

    The mean of a beta distribution: of what was seen, drawn towards what is taken for granted.
    """
    if leg.barred:
        return 1.0
    checked = leg.rung.checked
    seen = (PRIOR_REJECTED + checked - leg.rung.accepted) / (PRIOR_CHECKED + checked)
    return seen if checked >= LEAST_CHECKED else min(seen, PRIOR_REJECTED / PRIOR_CHECKED)


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
