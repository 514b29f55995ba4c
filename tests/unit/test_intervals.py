"""Exact binomial bounds, against values worked out elsewhere.

682 of 925 is Mendel's peas as in the documentation of R's `binom.test`; the others are from printed
tables of Clopper and Pearson's intervals; 59, 93 and 124 are the sample sizes of attribute sampling for
95 % reliability at 95 % confidence with no, one and two failures.
"""

from __future__ import annotations

import pytest

from leastwise.cascade.intervals import (
    Rate,
    at_least,
    at_most,
    faultless,
    interval,
    lower_bound,
    upper_bound,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (682, 925, 0.7076683, 0.7654066),
        (0, 10, 0.0, 0.3084971),
        (1, 10, 0.0025286, 0.4450161),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1.0),
        (3, 20, 0.0320709, 0.3789268),
        (50, 100, 0.3983211, 0.6016789),
        (10, 100, 0.0490047, 0.1762226),
        (0, 1, 0.0, 0.975),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_the_exact_ones(k: int, n: int, low: float, high: float) -> None:
    found = interval(k, n)

    assert (low, high) == pytest.approx((found.low, found.high), abs=5e-8)


@pytest.mark.parametrize(("faults", "n"), [(0, 59), (1, 93), (2, 124)])
def test_so_many_answers_show_at_most_five_per_cent(faults: int, n: int) -> None:
    assert upper_bound(faults, n) <= 0.05 < upper_bound(faults, n - 1)


@pytest.mark.parametrize(
    ("target", "sure", "n"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.1, 0.9, 22), (0.5, 0.75, 2)]
)
def test_so_many_answers_without_a_fault_do(target: float, sure: float, n: int) -> None:
    assert n == faultless(target, sure)


def test_a_lower_bound_is_an_upper_bound_of_the_rest() -> None:
    assert lower_bound(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert lower_bound(0, 59) == 0.0


def test_tails_of_small_counts_are_those_of_pencil_and_paper() -> None:
    assert at_most(1, 3, 0.5) == pytest.approx(4 / 8)
    assert at_least(2, 3, 0.1) == pytest.approx(3 * 0.01 * 0.9 + 0.001)
    assert [0.0, 1.0, 1.0, 0.0, 1.0] == [
        at_most(-1, 3, 0.5),
        at_most(3, 3, 0.5),
        at_most(0, 3, 0.0),
        at_most(2, 3, 1.0),
        at_least(0, 3, 0.5),
    ]


def test_large_counts_are_no_trouble() -> None:
    found = interval(50_000, 1_000_000)

    assert (0.0495734, 0.0504290) == pytest.approx((found.low, found.high), abs=1e-6)


def test_a_rate_reads_as_per_cent() -> None:
    assert "3.1% (1.0 to 7.1)" == str(interval(5, 160))
    assert "100.0% (83.2 to 100.0)" == str(interval(20, 20))
    assert "none" == str(interval(0, 0))
    assert 0.03125 == interval(5, 160).share
    assert 0.0 == Rate(0, 0, 0.0, 1.0).share


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_a_count_that_cannot_be_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}: a count"):
        interval(k, n)


@pytest.mark.parametrize("sure", [0.0, 1.0, 95.0])
def test_a_certainty_that_cannot_be_is_refused(sure: float) -> None:
    with pytest.raises(ValueError, match=f"sure={sure}: expected a number between 0 and 1"):
        upper_bound(1, 3, sure)
    with pytest.raises(ValueError, match=f"target={sure}: expected a number between 0 and 1"):
        faultless(sure)
