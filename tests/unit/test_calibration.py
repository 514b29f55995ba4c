"""What a score is worth: thresholds that keep a promise or are refused, with what they stand on."""

from __future__ import annotations

import math

import msgspec
import pytest

from leastwise.cascade import Calibration, Scored, alarm, calibrate, interval, rates_at


def sample(*levels: tuple[float, int, int]) -> list[Scored]:
    """Return answers: of each score so many acceptable and so many unacceptable ones."""
    return [
        Scored(score, is_ok)
        for score, good, bad in levels
        for is_ok, times in ((True, good), (False, bad))
        for _ in range(times)
    ]


def calibrated(*levels: tuple[float, int, int], target: float = 0.05) -> Calibration:
    return calibrate(sample(*levels), check="judge", stamp="a1b2", task_type="code", target=target)


def test_the_least_score_that_keeps_the_promise_is_the_threshold() -> None:
    found = calibrated((5, 100, 0), (4, 98, 2), (3, 40, 20), (1, 5, 35))

    assert 4 == found.threshold
    assert (
        "from 4 on, 1.0% (0.1 to 3.6) of 200 accepted are unacceptable: no more than 5% at 95%" == found.why
    )
    assert ("judge", "a1b2", "code", 300) == (found.check, found.stamp, found.task_type, found.n)


def test_what_a_threshold_does_is_told_apart() -> None:
    found = calibrated((5, 100, 0), (4, 98, 2), (3, 40, 20), (1, 5, 35)).rates

    assert found is not None
    assert (200, 300) == (found.accepted.k, found.accepted.n)
    assert (2, 200) == (found.unacceptable.k, found.unacceptable.n)
    assert (2, 57) == (found.false_accept.k, found.false_accept.n)
    assert (45, 243) == (found.false_reject.k, found.false_reject.n)


def test_a_raw_threshold_has_rates_too() -> None:
    found = rates_at(sample((5, 70, 6), (3, 9, 1), (1, 0, 14)), 3, sure=0.9)

    assert interval(7, 21, 0.9) == found.false_accept
    assert interval(0, 79, 0.9) == found.false_reject


@pytest.mark.parametrize(("count", "threshold"), [(58, None), (59, 1.0)])
def test_thin_data_is_refused_with_how_much_is_needed(count: int, threshold: float | None) -> None:
    found = calibrated((1, count, 0))

    assert threshold == found.threshold
    if threshold is None:
        words = "58 answers are too few: at least 59 accepted without a fault are needed for 5% at 95%"
        assert words == found.why
        assert found.rates is None


def test_nothing_at_all_is_refused_and_knows_nothing() -> None:
    found = calibrated()

    assert found.threshold is None
    assert 0.5 == found.probability(4)


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        (
            [(1.0, 350, 40), (0.6, 30, 57)],
            "from 1 on, 10.3% (7.4 to 13.7) of 390 accepted are unacceptable: too many for 5% at 95%",
        ),
        (
            [(1.0, 155, 5), (0.6, 30, 57)],
            (
                "from 1 on, 3.1% (1.0 to 7.1) of 160 accepted are unacceptable: "
                "too few answers to tell for 5% at 95%"
            ),
        ),
    ],
)
def test_a_promise_that_does_not_hold_is_refused(levels: list[tuple[float, int, int]], why: str) -> None:
    found = calibrated(*levels)

    assert (None, why) == (found.threshold, found.why)


def test_tests_begin_where_a_quarter_of_the_answers_are_accepted() -> None:
    # One fault in the 60 of score 5 would end it at once; a quarter of them reach only score 4.
    found = calibrated((5, 59, 1), (4, 240, 0), (1, 0, 300))

    assert 4 == found.threshold


def test_the_first_candidate_that_fails_ends_it() -> None:
    # All 1,400 together would pass again.
    found = calibrated((3, 400, 0), (2, 170, 30), (1, 800, 0))

    assert 3 == found.threshold


def test_another_target_and_certainty_need_other_samples() -> None:
    assert calibrated((1, 40, 0), target=0.1).threshold == 1
    assert "5% at 50%" in calibrate(sample((1, 40, 0)), check="c", stamp="", sure=0.5).why
    assert "2.5% at 95%" in calibrated((1, 40, 0), target=0.025).why


@pytest.mark.parametrize("target", [0.0, 1.0, 5.0])
def test_a_target_that_cannot_be_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=f"target={target}"):
        calibrated((1, 40, 0), target=target)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_without_a_place_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match=f"score={score}: expected a finite number"):
        Scored(score, ok=True)


def test_it_holds_for_its_stamp_only() -> None:
    found = calibrated((1, 60, 0))

    assert found.is_current("a1b2")
    assert not found.is_current("a1b3")


@pytest.mark.parametrize("levels", [(), ((1, 60, 0),), ((5, 100, 0), (4, 60, 40), (3, 60, 40), (1, 0, 100))])
def test_it_is_kept_as_json(levels: tuple[tuple[float, int, int], ...]) -> None:
    found = calibrated(*levels)

    assert found == Calibration.from_json(found.to_json())


def test_what_is_kept_and_is_something_else_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        Calibration.from_json('{"check": "judge"}')


def test_planted_answers_that_pass_too_often_raise_an_alarm() -> None:
    false_accept = interval(2, 57)  # at most 12.1 %

    assert "" == alarm(0, 0, false_accept)
    assert "" == alarm(12, 40, false_accept)
    assert (
        "accepts answers that are known to be bad: 32.5% (18.6 to 49.1) of 40 planted ones, "
        "where its calibration says at most 12.1%"
    ) == alarm(13, 40, false_accept)


def test_where_nothing_is_known_of_bad_answers_there_is_no_alarm() -> None:
    assert "" == alarm(40, 40, interval(0, 0))
