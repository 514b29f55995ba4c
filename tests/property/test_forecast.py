"""Forecasts: a straight line is carried on exactly, its crossings are in order, and dollars have no size."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from leastwise.budget import BudgetRule, Standing, Window, window_of
from leastwise.forecast import HOUR_S, Forecast, Prices, Spending, TooLittle, forecast, since_when
from leastwise.ladder import DEFAULT_LADDER
from leastwise.ledger import Entry
from leastwise.messages import Usage
from leastwise.models import load_models
from leastwise.prices import cost, load_prices
from tests.kit import NOW, OPUS

PRICES = Prices(DEFAULT_LADDER, load_prices(), load_models())
_AT = datetime.fromtimestamp(NOW, UTC)
MOST = 9_000_000_000_000

rules = st.builds(
    BudgetRule,
    st.just("b"),
    st.integers(1, MOST),
    window=st.sampled_from(["hour", "day", "week", "month"]),
    rolling=st.booleans(),
    cap=st.sampled_from(["allow_critical", "block"]),
)
moments = st.floats(NOW, NOW + 400 * 24 * HOUR_S)


def seen(rule: BudgetRule, now: float, spent: int, lately: int, calls: int = 10**6) -> Forecast:
    window = window_of(rule, now)
    spending = Spending(since_when(window, now), lately, is_whole=False)
    found = forecast(rule, window, Standing(spent, 0, calls), spending, now, PRICES)
    assert isinstance(found, Forecast)
    return found


@given(rules, moments, st.integers(0, MOST), st.integers(0, MOST))
def test_crossings_lie_ahead_within_the_window_and_in_order(
    rule: BudgetRule, now: float, spent: int, lately: int
) -> None:
    window = window_of(rule, now)
    found = seen(rule, now, spent, lately)

    sums = [one.nusd for one in found.reached]
    times = [one.at for one in found.reached if one.at is not None]
    assert all(spent < nusd for nusd in sums)
    assert sums == sorted(sums)
    assert times == sorted(times)
    assert all(now <= at for at in times)
    assert all(at <= window.ends_at for at in times if window.ends_at is not None)
    assert [one.at for one in found.reached[len(times) :]] == [None] * (len(found.reached) - len(times))


@given(rules, moments, st.integers(1, MOST), st.integers(1, MOST))
def test_a_steady_rate_is_spent_by_the_time_told(
    rule: BudgetRule, now: float, spent: int, lately: int
) -> None:
    calendar = replace(rule, rolling=False)
    span_s = now - since_when(window_of(calendar, now), now)
    found = seen(calendar, now, spent, lately) if span_s else None

    for one in found.reached if found else ():
        if one.at is not None:
            told = spent + lately / span_s * (one.at - now)
            assert abs(told - one.nusd) <= 1e-6 * one.nusd + lately / span_s * 1e-3


@given(rules, moments, st.integers(0, MOST // 1000), st.integers(0, MOST // 1000), st.integers(2, 1000))
def test_a_thousand_times_the_money_changes_no_time(
    rule: BudgetRule, now: float, spent: int, lately: int, more: int
) -> None:
    limit = max(1, rule.limit_nusd // 1_000_000) * 100  # so that each ceiling is a whole sum
    small = replace(rule, limit_nusd=limit)
    large = replace(rule, limit_nusd=limit * more)

    ours = [one.at for one in seen(small, now, spent, lately).reached]
    theirs = [one.at for one in seen(large, now, spent * more, lately * more).reached]
    assert ours == theirs


@given(st.integers(0, 40), st.floats(0, 2 * HOUR_S))
def test_nothing_is_said_of_fewer_calls_than_enough_in_less_than_an_hour(number: int, span_s: float) -> None:
    ran = tuple(_entry(NOW - span_s * one / max(1, number - 1)) for one in reversed(range(number)))
    rule = BudgetRule("b", MOST, window="total")
    spending = Spending(NOW - 30 * 24 * HOUR_S, sum(one.cost_nusd for one in ran), ran)

    found = forecast(rule, Window("k", "k"), Standing(0, 0, number), spending, NOW, PRICES)

    if isinstance(found, TooLittle):
        assert found.calls < 20 or NOW - found.since < 300
        assert NOW - found.since < HOUR_S
    else:
        assert NOW - found.since >= (300 if number >= 20 else HOUR_S)


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=8), st.integers(1, MOST))
def test_on_a_tier_the_rest_lasts_by_what_the_same_tokens_cost_there(tokens: list[int], limit: int) -> None:
    ran = tuple(_entry(NOW - 60 * place, output) for place, output in enumerate(tokens, 1))
    spent = sum(one.cost_nusd for one in ran)
    rule = BudgetRule("b", spent + limit, window="month", ceilings=())
    spending = Spending(NOW - 8 * 24 * HOUR_S, spent, ran, is_whole=False)

    found = forecast(rule, window_of(rule, NOW), Standing(spent, 0, 10**6), spending, NOW, PRICES)

    assert isinstance(found, Forecast)
    hours = {one.tier: (one.until - NOW) / HOUR_S for one in found.lasts if one.until is not None}
    for tier, lasts in hours.items():
        there = sum(cost(one.usage, DEFAULT_LADDER[tier].model, _AT, PRICES.book).nusd for one in ran)
        assert abs(lasts - limit * 8 * 24 / there) <= 1e-6 * lasts + 1e-6
    assert hours.keys() <= {"haiku", "sonnet"}


def _entry(at: float, output: int = 50_000) -> Entry:
    usage = Usage(output_tokens=output)
    nusd = cost(usage, OPUS, _AT, PRICES.book).nusd
    return Entry("e", "x", "answer", "anthropic", OPUS, at, 200, usage, "row", nusd, nusd, "exact")
