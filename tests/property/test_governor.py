"""Break-even against counting through every way a cascade can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from leastwise.cascade import Rung
from leastwise.cascade.governor import Leg, begin, rejected

rungs = st.integers(0, 400).flatmap(lambda n: st.builds(Rung, st.just(n), st.integers(0, n)))
ladders = st.lists(
    st.builds(
        Leg,
        st.sampled_from(["haiku", "sonnet", "opus"]),
        st.integers(0, 10**10),
        st.integers(0, 10**9),
        rungs,
        st.sampled_from(["", "", "self"]),
        st.none() | st.integers(0, 10**10),
    ),
    min_size=1,
    max_size=5,
)


def counted_through(legs: Sequence[Leg], first: int) -> Fraction:
    """Return the mean cost over every place where a climb from `first` can end, by the way it goes."""
    mean, spent, reached = Fraction(0), 0, Fraction(1)
    for place in (first, *replace(begin(legs), index=first).onward):
        leg = legs[place]
        is_first, is_last = place == first, place == len(legs) - 1
        spent += leg.answer_nusd if is_first or leg.after_nusd is None else leg.after_nusd
        spent += 0 if is_last else leg.check_nusd
        fails = Fraction(0 if is_last else rejected(leg))
        mean += reached * (1 - fails) * spent
        reached *= fails
    return mean


@given(ladders)
def test_it_begins_where_least_is_paid_over_all_ways_it_can_go(legs: list[Leg]) -> None:
    found = begin(legs)
    costs = [counted_through(legs, first) for first in range(len(legs))]

    assert all(abs(mean - cost) <= len(legs) for mean, cost in zip(costs, found.costs_nusd, strict=True))
    assert costs[found.index] <= min(costs) + 2 * len(legs)


@given(ladders, st.floats(0, 1), st.floats(0, 1))
def test_a_probe_goes_below_where_all_accepted_it_would_pay(
    legs: list[Leg], draw: float, probes: float
) -> None:
    usual, found = begin(legs), begin(legs, draw=draw, probes=probes)
    least = usual.costs_nusd[usual.index]
    could_pay = {at for at in range(usual.index) if legs[at].answer_nusd + legs[at].check_nusd < least}

    assert (found.probes and found.index in could_pay) or found == usual
    assert (found.probes > 0) == (draw < probes and bool(could_pay))
    tried = {begin(legs, draw=step / 100, probes=1.0).index for step in range(100)}
    assert tried == (could_pay or {usual.index})


@given(ladders)
def test_a_tier_that_is_passed_by_on_the_way_adds_nothing(legs: list[Leg]) -> None:
    found = begin(legs)
    kept = [legs[place] for place in (found.index, *found.onward)]
    again = begin(kept)

    assert (0, found.costs_nusd[found.index]) == (again.index, again.costs_nusd[0])


@given(ladders.filter(lambda legs: len(legs) > 1), st.data())
def test_a_tier_of_which_more_is_accepted_is_no_sooner_passed_by(
    legs: list[Leg], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(legs) - 2))
    leg, rung = legs[place], legs[place].rung
    accepted = data.draw(st.integers(rung.accepted, rung.checked))
    better = replace(leg, rung=Rung(rung.checked, accepted))

    if begin(legs).index <= place:
        assert begin([*legs[:place], better, *legs[place + 1 :]]).index <= place
