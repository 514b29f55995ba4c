"""Curves from score to probability: what they say between, outside and of few answers."""

from __future__ import annotations

import math

import pytest

from leastwise.cascade.curves import UNKNOWN, Curve, Level, fitted, isotonic, levels_of, platt


def test_answers_are_counted_by_score() -> None:
    answers = [(2.0, True), (1.0, False), (2.0, False), (1.5, True)]

    assert [Level(1.0, 1, 0), Level(1.5, 1, 1), Level(2.0, 2, 1)] == levels_of(answers)


def test_steps_are_level_within_blocks_and_rise_between_them() -> None:
    # Of 20 answers 12 are acceptable: they count as 13/14, the others as 1/10.
    found = isotonic([Level(1, 5, 1), Level(2, 5, 2), Level(3, 5, 4), Level(4, 5, 5)])
    bad, rise = 1 / 10, 13 / 14 - 1 / 10

    assert [1, 2, 3, 4] == [score for score, _ in found.points]
    assert [bad + rise * share for share in (0.2, 0.4, 0.8, 1)] == pytest.approx(
        [found.at(score) for score in (1, 2, 3, 4)]
    )
    assert bad + rise * 0.6 == pytest.approx(found.at(2.5))
    assert found.at(1) == found.at(-7)
    assert found.at(4) == found.at(99)


def test_violators_are_pooled() -> None:
    found = isotonic([Level(1, 4, 2), Level(2, 4, 1), Level(3, 2, 0), Level(4, 4, 4)])

    assert [1, 3, 4] == [score for score, _ in found.points]
    assert found.at(1) == found.at(2) == found.at(3) < found.at(4)


def test_a_logistic_curve_is_the_most_likely_one() -> None:
    # Two scores, two numbers: it goes through both smoothed shares (7 of 10 acceptable: 8/9 and 1/5).
    found = platt([Level(0, 5, 2), Level(1, 5, 5)])
    bad, rise = 1 / 5, 8 / 9 - 1 / 5

    assert [bad + rise * 0.4, bad + rise] == pytest.approx([found.at(0), found.at(1)])
    assert [0, 1] == pytest.approx([found.at(-1e6), found.at(1e6)])


def test_a_curve_that_would_fall_is_flat() -> None:
    found = platt([Level(0, 5, 5), Level(1, 5, 2)])

    assert 0.0 == found.points[0][0]
    assert (1 / 5 + (8 / 9 - 1 / 5) * 0.7) == pytest.approx(found.at(3))


@pytest.mark.parametrize("ok", [0, 3])
def test_one_score_and_one_outcome_make_nothing_certain(ok: int) -> None:
    levels = [Level(4, 3, ok)]

    assert platt(levels).at(4) == pytest.approx(isotonic(levels).at(4)) == pytest.approx((ok + 1) / 5)


def test_of_nothing_nothing_is_known() -> None:
    assert UNKNOWN == fitted([]) == Curve()
    assert 0.5 == UNKNOWN.at(3)


def test_few_answers_make_a_logistic_curve() -> None:
    assert "platt" == fitted([Level(1, 2, 0), Level(2, 2, 2)]).method


def test_scores_that_jump_make_steps() -> None:
    jump = [Level(score, 20, 1 if score < 90 else 18) for score in range(0, 100, 5)]

    assert "isotonic" == fitted(jump).method


def test_scores_that_rise_evenly_make_a_logistic_curve() -> None:
    rising = [Level(score, 20, round(20 / (1 + math.exp(5 - score)))) for score in range(11)]

    assert "platt" == fitted(rising).method
