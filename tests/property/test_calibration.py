"""Promises over simulated samples; bounds, steps and curves against brute force."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.cascade import interval
from leastwise.cascade.calibration import Scored, calibrate, threshold_for
from leastwise.cascade.curves import Curve, Level, fitted, isotonic, levels_of, platt
from leastwise.cascade.intervals import at_most, faultless, lower_bound, upper_bound

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
certainties = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.975, 0.999])
answers = st.lists(st.builds(Scored, st.sampled_from([1, 2, 2.5, 3, 4, 5]), st.booleans()), max_size=40)


def exactly_at_most(k: int, n: int, share: float) -> Fraction:
    p = Fraction(share)
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


# Intervals.


@given(counts, st.floats(0, 1))
def test_tails_are_the_sums_they_stand_for(count: tuple[int, int], share: float) -> None:
    assert float(exactly_at_most(*count, share)) == pytest.approx(at_most(*count, share), rel=1e-9, abs=1e-13)


@given(counts, certainties)
def test_a_bound_is_where_such_a_count_is_as_rare_as_promised(count: tuple[int, int], sure: float) -> None:
    k, n = count
    high, low = upper_bound(k, n, sure), lower_bound(k, n, sure)

    assert low <= k / n <= high
    if k < n:
        assert 1 - sure == pytest.approx(float(exactly_at_most(k, n, high)))
    if k > 0:
        assert sure == pytest.approx(float(exactly_at_most(k - 1, n, low)))


@given(st.integers(1, 30), st.floats(0.001, 0.999), certainties)
def test_an_interval_misses_the_truth_no_more_often_than_it_says(n: int, share: float, sure: float) -> None:
    found = [interval(k, n, sure) for k in range(n + 1)]
    missed = sum(
        math.comb(n, rate.k) * share**rate.k * (1 - share) ** (n - rate.k)
        for rate in found
        if not rate.low <= share <= rate.high
    )

    assert missed <= 1 - sure + 1e-9


@given(st.floats(0.005, 0.5), certainties)
def test_one_answer_less_would_be_too_few(target: float, sure: float) -> None:
    n = faultless(target, sure)

    assert (1 - target) ** n <= 1 - sure + 1e-12
    assert n == 1 or (1 - target) ** (n - 1) >= 1 - sure - 1e-12


# The promise.

Mixture = Sequence[tuple[float, float]]  # from the strictest score down: its weight, and how many are bad


def drawn(mixture: Mixture, n: int, rng: random.Random) -> list[Scored]:
    weights = [weight for weight, _ in mixture]
    levels = rng.choices(range(len(mixture)), weights, k=n)
    return [Scored(-level, rng.random() >= mixture[level][1]) for level in levels]


def true_error(mixture: Mixture, threshold: float) -> float:
    accepted = mixture[: 1 - round(threshold)]
    return sum(weight * bad for weight, bad in accepted) / sum(weight for weight, _ in accepted)


#: Each has a candidate that is only just too lax.
MIXTURES: dict[str, Mixture] = {
    "a gate just too bad": [(1, 0.0501)],
    "a judge": [(5, 0.01), (3, 0.117), (2, 0.4), (1, 0.9)],
    "a judge whose best score is rare": [(1, 0.0), (2, 0.02), (5, 0.0725), (2, 0.6)],
    "a judge whose best score is worst": [(1, 0.3), (6, 0.009), (2, 0.5)],
    "many scores": [(1, 0.002 * level) for level in range(100)],
    "a fault everywhere": [(1, 0.0501)] * 30,
}


@pytest.mark.parametrize("n", [80, 400])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=list(MIXTURES))
def test_at_most_one_sample_in_twenty_breaks_the_promise(mixture: Mixture, n: int) -> None:
    rng, samples = random.Random(f"{mixture} {n}"), 300
    broken = 0
    for _ in range(samples):
        threshold, _ = threshold_for(drawn(mixture, n, rng), 0.05, 0.95)
        broken += threshold is not None and true_error(mixture, threshold) > 0.05

    assert broken <= samples * 0.05 + 3 * math.sqrt(samples * 0.05 * 0.95)


def test_the_promise_is_not_kept_by_refusing_all() -> None:
    rng, mixture = random.Random(7), [(5, 0.005), (3, 0.02), (2, 0.5), (1, 0.9)]

    thresholds = [calibrate(drawn(mixture, 400, rng), "").threshold for _ in range(50)]

    assert thresholds.count(-1) >= 40


@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_answers_is_of_no_account(scored: list[Scored], rng: random.Random) -> None:
    shuffled = rng.sample(scored, len(scored))

    assert calibrate(scored, "") == calibrate(shuffled, "")


@given(answers.map(lambda scored: scored * 8), st.floats(0.02, 0.4))
def test_a_threshold_is_a_score_whose_accepted_answers_pass_the_exact_test(
    scored: list[Scored], target: float
) -> None:
    found = calibrate(scored, "", target=target)

    if found.threshold is not None:
        assert found.threshold in {one.score for one in scored}
        assert found.rates is not None
        assert upper_bound(found.rates.unacceptable.k, found.rates.unacceptable.n) <= target + 1e-9


# Curves.


def levels(scored: Sequence[Scored]) -> list[Level]:
    return levels_of(scored)


def squares(found: Sequence[Level], values: Sequence[Fraction]) -> Fraction:
    return sum(
        (one.n * (Fraction(one.ok, one.n) - v) ** 2 for one, v in zip(found, values, strict=True)),
        Fraction(0),
    )


def best_rising(found: Sequence[Level]) -> list[Fraction]:
    """Return the best of all ways to cut the levels into blocks whose means rise."""
    best: list[Fraction] = []
    for cuts in (c for size in range(len(found)) for c in combinations(range(1, len(found)), size)):
        blocks = [found[i:j] for i, j in zip((0, *cuts), (*cuts, len(found)), strict=True)]
        means = [Fraction(sum(one.ok for one in block), sum(one.n for one in block)) for block in blocks]
        values = [mean for mean, block in zip(means, blocks, strict=True) for _ in block]
        if values == sorted(values) and (not best or squares(found, values) < squares(found, best)):
            best = values
    return best


@given(answers.filter(bool))
def test_steps_are_the_best_fit_that_rises(scored: list[Scored]) -> None:
    found, good = levels(scored), sum(one.ok for one in scored)
    low, high = 1 / (len(scored) - good + 2), (good + 1) / (good + 2)

    assert [low + (high - low) * float(share) for share in best_rising(found)] == pytest.approx(
        [isotonic(found).at(level.score) for level in found]
    )


@pytest.mark.parametrize("fit", [isotonic, platt, fitted])
@given(
    scored=st.lists(st.builds(Scored, st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=40),
    at=st.lists(st.floats(-1e7, 1e7)),
)
def test_a_higher_score_is_never_worth_less(
    fit: Callable[[Sequence[Level]], Curve], scored: list[Scored], at: list[float]
) -> None:
    curve = fit(levels(scored))
    found = [curve.at(score) for score in sorted(at + [one.score for one in scored])]

    assert all(0 <= low <= high + 1e-12 <= 1 + 1e-12 for low, high in pairwise(found))


@given(answers.filter(bool), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_no_logistic_curve_nearby_is_more_likely(scored: list[Scored], rise: float, shift: float) -> None:
    found = levels(scored)
    good = sum(one.ok for one in scored)
    low, high = 1 / (len(scored) - good + 2), (good + 1) / (good + 2)
    ((slope, intercept),) = platt(found).points

    def likelihood(slope: float, intercept: float) -> float:
        curve, total = Curve("platt", ((slope, intercept),)), 0.0
        for score, n, ok in found:
            target = (n - ok) * low + ok * high
            total += target * math.log(curve.at(score)) + (n - target) * math.log(1 - curve.at(score))
        return total

    nearby = likelihood(max(0.0, slope + rise), intercept + shift)
    assert nearby <= likelihood(slope, intercept) + 1e-9
