"""What a score is worth: thresholds that keep a promise or are refused, with what they stand on."""

from __future__ import annotations

import pytest

from leastwise.cascade import Calibration, Rate, alarm, interval
from leastwise.cascade.calibration import Scored, calibrate, rates_at
from leastwise.cascade.intervals import at_most


def sample(*levels: tuple[float, int, int]) -> list[Scored]:
    """Return answers: of each score so many acceptable and so many unacceptable ones."""
    return [
        Scored(score, is_ok)
        for score, good, bad in levels
        for is_ok, times in ((True, good), (False, bad))
        for _ in range(times)
    ]


def calibrated(*levels: tuple[float, int, int], target: float = 0.05) -> Calibration:
    return calibrate(sample(*levels), "a1b2", "code", target=target)


def test_the_least_score_that_keeps_the_promise_is_the_threshold() -> None:
    found = calibrated((5, 100, 0), (4, 98, 2), (3, 40, 20), (1, 5, 35))

    assert 4 == found.threshold
    assert "from 4 on, 2 of 200 accepted are unacceptable, so at most 3.2% of all such, 95% sure" == found.why
    assert ("a1b2", "code", 300) == (found.stamp, found.task_type, found.n)


def test_what_a_threshold_does_is_told_apart() -> None:
    found = calibrated((5, 100, 0), (4, 98, 2), (3, 40, 20), (1, 5, 35)).rates

    assert found is not None
    assert (200, 300) == (found.accepted.k, found.accepted.n)
    assert (2, 200) == (found.unacceptable.k, found.unacceptable.n)
    assert (2, 57) == (found.false_accept.k, found.false_accept.n)
    assert (45, 243) == (found.false_reject.k, found.false_reject.n)


def test_a_raw_threshold_has_rates_too() -> None:
    found = rates_at(sample((5, 70, 6), (3, 9, 1), (1, 0, 14)), 3)

    assert interval(7, 21) == found.false_accept
    assert interval(0, 79) == found.false_reject


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
    assert 0.5 == found.curve.at(4)


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        (
            [(1.0, 350, 40), (0.6, 30, 57)],
            "from 1 on, 40 of 390 accepted are unacceptable: too many for 5% at 95%",
        ),
        (
            [(1.0, 155, 5), (0.6, 30, 57)],
            (
                "from 1 on, 5 of 160 accepted are unacceptable, which may be 6.5% of all such: "
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
    assert "at most 1.8% of all such, 50% sure" in calibrate(sample((1, 40, 0)), "", sure=0.5).why
    assert "2.5% at 95%" in calibrated((1, 40, 0), target=0.025).why


@pytest.mark.parametrize("target", [0.0, 1.0, 5.0])
def test_a_target_that_cannot_be_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=f"target={target}"):
        calibrated((1, 40, 0), target=target)


def test_planted_answers_that_pass_too_often_raise_an_alarm() -> None:
    false_accept = interval(2, 57)  # at most 12.1 %

    assert "" == alarm(0, 0, false_accept)
    assert "" == alarm(12, 40, false_accept)
    assert (
        "accepts answers that are known to be bad: 32.5% (18.6 to 49.1) of 40 planted ones, "
        "where its calibration says at most 12.1%"
    ) == alarm(13, 40, false_accept)


@pytest.mark.parametrize("false_accept", [interval(0, 0), interval(3, 3), interval(1, 2)])
def test_where_little_is_known_of_bad_answers_half_of_the_planted_may_pass(false_accept: Rate) -> None:
    # Samples without a bad answer, or without one that was rejected, say that anything may pass.
    assert false_accept.high > 0.98
    assert "" == alarm(9, 9, false_accept)
    assert "" == alarm(28, 40, false_accept)
    assert (
        "accepts answers that are known to be bad: 100.0% (69.2 to 100.0) of 10 planted ones, "
        "where whoever reads them accepts less than 50.0%"
    ) == alarm(10, 10, false_accept)


@pytest.mark.parametrize(("bad", "n"), [(0, 59), (0, 60), (1, 93), (2, 124), (10, 361)])
def test_the_bound_that_is_told_is_the_one_that_was_tested(bad: int, n: int) -> None:
    found = calibrated((1, n - bad, bad))

    told = float(found.why.partition("at most ")[2].partition("%")[0])
    assert told <= 5.0
    assert at_most(bad, n, told / 100) <= 0.05
