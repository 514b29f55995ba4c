"""Where a cascade begins: worked examples of break-even, its words, and probes.

The prior takes 1 of 4 answers for rejected, so that of 196 checked and 179 accepted (1 + 17) / 200 are
expected to be rejected: 9 %.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from leastwise.cascade import Rung
from leastwise.cascade.governor import Leg, Start, begin, expected, rejected

OPUS = Leg("opus", 900_000)


def haiku(
    accepted: int = 0, checked: int = 0, cost: int = 100_000, check: int = 20_000, barred: str = ""
) -> Leg:
    return Leg("haiku", cost, check, Rung(checked=checked, accepted=accepted), barred)


def said(start: Start) -> tuple[int, str, tuple[int, ...]]:
    return start.index, start.words, start.costs_nusd


def sonnet(accepted: int = 179, checked: int = 196) -> Leg:
    return Leg("sonnet", 400_000, 20_000, Rung(checked=checked, accepted=accepted))


def test_a_tier_that_is_passed_by_is_set_against_the_best_of_those_below() -> None:
    barred = replace(sonnet(), barred="its own judge")

    found = begin([haiku(60, 196), barred, replace(OPUS, answer_nusd=200_000)])

    assert 2 == found.index
    assert found.costs_nusd[0] < found.costs_nusd[1]
    assert found.words.startswith("begins at opus: haiku, 31% of 196 accepted, costs ")


def test_a_cascade_that_pays_begins_low() -> None:
    words = "haiku pays: 91% of 196 accepted; expected $0.000201 against $0.000900 on opus"

    assert (0, words, (201_000, 900_000)) == said(begin([haiku(179, 196), OPUS]))


def test_a_cascade_that_loses_begins_high_and_says_why() -> None:
    # (1 + 66) / 100 are rejected.
    legs = [haiku(30, 96, cost=1_500_000), Leg("opus", 1_800_000)]
    words = (
        "begins at opus: haiku, 31% of 96 accepted, costs $0.002726 with checks against $0.001800 straight"
    )

    assert (1, words, (2_726_000, 1_800_000)) == said(begin(legs))


def test_sums_near_each_other_are_told_apart() -> None:
    # Two tiers of nearly one price: no check makes that pay.
    legs = [haiku(196, 196, cost=10_600_000, check=1_340_000), Leg("opus", 13_400_000)]
    dear = [haiku(196, 196, cost=10_600_000, check=2_800_000), Leg("opus", 13_400_000)]

    assert (
        "haiku pays: 100% of 196 accepted; expected $0.012007 against $0.013400 on opus" == begin(legs).words
    )
    assert 1 == begin(dear, draw=0.0, probes=1.0).index


def test_the_closed_form_of_two_tiers() -> None:
    # 100,000 + 35,000 + p 900,000 < 900,000 while p < 0.85.
    pays, loses = haiku(14, 96, check=35_000), haiku(12, 96, check=35_000)

    assert [0.83, 0.85] == [rejected(pays), rejected(loses)]
    assert [0, 1] == [begin([pays, OPUS]).index, begin([loses, OPUS]).index]


def test_what_costs_the_same_begins_at_the_dearest() -> None:
    legs = [haiku(cost=600_000, check=75_000), OPUS]  # a quarter rejected: 225,000

    assert (900_000, 900_000) == expected(legs)
    assert 1 == begin(legs).index


def test_with_three_tiers_the_whole_climb_is_counted() -> None:
    # sonnet 420,000 + 9 % of 900,000; haiku 120,000 + 9 % of that.
    words = "haiku pays: 91% of 196 accepted; expected $0.000165 against $0.000501 from sonnet"

    assert (0, words, (165_090, 501_000, 900_000)) == said(begin([haiku(179, 196), sonnet(), OPUS]))


def test_what_is_rejected_may_cost_more_than_the_rest() -> None:
    # 700,000 + 20,000 + 9 % of 900,000 pays, 9 % of 2,100,000 does not; straight both cost the same.
    cheap = haiku(179, 196, cost=700_000)

    assert (801_000, 900_000) == expected([cheap, OPUS])
    assert (909_000, 900_000) == expected([cheap, Leg("opus", 900_000, after_nusd=2_100_000)])


def test_the_middle_may_be_the_place_to_begin() -> None:
    # 120,000 + 0.95 * 501,000
    words = (
        "begins at sonnet: haiku, 2% of 96 accepted, "
        "costs $0.000596 with checks against $0.000501 from sonnet"
    )

    assert (1, words, (595_950, 501_000, 900_000)) == said(begin([haiku(2, 96), sonnet(), OPUS]))


def test_where_the_middle_loses_low_pays_against_the_top() -> None:
    found = begin([haiku(179, 196), Leg("sonnet", 890_000, 10_000), OPUS])

    assert (0, (2,)) == (found.index, found.onward)
    assert (201_000, 900_000) == found.costs_nusd[::2]  # as if there were no sonnet
    assert found.words.endswith("against $0.000900 on opus")


def test_a_middle_that_loses_is_no_reason_to_pass_the_lowest_by() -> None:
    # haiku, then opus: 20,000 + 89 % of 900,000. By way of sonnet 1,032,000 would follow, not 900,000.
    legs = [haiku(8, 96, cost=20_000, check=0), Leg("sonnet", 420_000, 0, Rung(96, 29)), OPUS]

    assert (0, (2,)) == (begin(legs).index, begin(legs).onward)
    assert (821_000, 1_032_000, 900_000) == begin(legs).costs_nusd


def test_a_new_cascade_is_tried() -> None:
    words = (
        "haiku pays: 75% accepted as is assumed until 20 are checked (0 so far); "
        "expected $0.000345 against $0.000900 on opus"
    )

    assert words == begin([haiku(), OPUS]).words


@pytest.mark.parametrize(
    ("accepted", "checked", "share"),
    [(0, 3, 0.25), (0, 19, 0.25), (0, 20, 21 / 24), (3, 3, 1 / 7), (20, 20, 1 / 24), (42, 196, 155 / 200)],
)
def test_rejections_count_from_twenty_answers_on(accepted: int, checked: int, share: float) -> None:
    assert share == rejected(haiku(accepted, checked))


def test_a_tier_that_loses_as_it_is_taken_to_be_is_not_tried() -> None:
    assert 1 == begin([haiku(cost=700_000), OPUS]).index


def test_checks_that_may_not_accept_reject_all() -> None:
    barred = haiku(180, 180, barred="haiku would judge its own answers")
    words = (
        "begins at opus: haiku, none accepted (haiku would judge its own answers), "
        "costs $0.001020 with checks against $0.000900 straight"
    )

    assert (1, words, (1_020_000, 900_000)) == said(begin([barred, OPUS]))
    assert begin([barred, OPUS], draw=0.0, probes=1.0).probes  # by what they say it can be calibrated


@pytest.mark.parametrize(("draw", "index"), [(0.0, 0), (0.019, 0), (0.02, 1), (1.0, 1)])
def test_now_and_then_it_is_seen_whether_it_pays_by_now(draw: float, index: int) -> None:
    found = begin([haiku(0, 196), Leg("opus", 400_000)], draw=draw, probes=0.02)

    assert (index, index == 0) == (found.index, found.probes > 0)
    if found.probes:
        assert (
            "tries haiku, as 2% of calls do: haiku, 0% of 196 accepted, "
            "costs $0.000514 with checks against $0.000400 straight"
        ) == found.words


def test_each_tier_that_is_passed_by_is_tried_again() -> None:
    # What got better may be the lowest one, and nobody would know.
    legs = [haiku(0, 196), Leg("sonnet", 400_000, 20_000, Rung(196, 20)), OPUS]
    found = [begin(legs, draw=draw, probes=0.02) for draw in (0.0, 0.0099, 0.01, 0.0199, 0.02)]

    assert [(0, True), (0, True), (1, True), (1, True), (2, False)] == [
        (start.index, start.probes > 0) for start in found
    ]
    assert found[0].words.startswith("tries haiku, as 1% of calls do: haiku, 0% of 196 accepted, costs ")
    dear = replace(legs[1], check_nusd=500_000)  # could not pay if all were accepted
    assert 0 == begin([legs[0], dear, OPUS], draw=0.0199, probes=0.02).index


def test_what_pays_is_no_probe() -> None:
    assert not begin([haiku(), OPUS], draw=0.0, probes=1.0).probes


def test_one_tier_is_no_choice() -> None:
    assert (0, "", (900_000,)) == said(begin([OPUS], draw=0.0, probes=1.0))


def test_a_tier_between_that_is_likely_to_be_paid_in_vain_is_passed_by() -> None:
    between = Leg("sonnet", 450_000, 20_000, barred="it would judge itself")
    start = begin([haiku(290, 300), between, OPUS])

    assert (0, (2,)) == (start.index, start.onward)
    assert (1, 2) == begin([haiku(290, 300), Leg("sonnet", 450_000), OPUS]).onward
    assert () == begin([OPUS]).onward
