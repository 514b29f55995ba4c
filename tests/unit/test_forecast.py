"""Forecasts: rates, times and what they are worked out from, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from leastwise.budget import BudgetRule, Ceiling, Standing, Window, window_of
from leastwise.forecast import (
    DAY_S,
    HOUR_S,
    Forecast,
    Lasts,
    Prices,
    Reach,
    Spending,
    TooLittle,
    forecast,
    how_long,
    since_when,
    when,
)
from leastwise.ladder import DEFAULT_LADDER
from leastwise.ledger import Entry
from leastwise.messages import Usage
from leastwise.models import load_models
from leastwise.money import NUSD_PER_USD as USD
from leastwise.prices import load_prices
from tests.kit import HAIKU, NOW, OPUS

PRICES = Prices(DEFAULT_LADDER, load_prices(), load_models())
#: NOW is noon of the 23rd: 22.5 days of November are over, 7.5 are left.
MONTH = BudgetRule("team-a", 8_000 * USD)
TOTAL = BudgetRule("job", 100 * USD, window="total")


def entry(at: float, usd: Decimal | int = 1, model: str = OPUS, **changes: object) -> Entry:
    """Return a paid attempt, $1 of it on opus: 50,000 tokens out."""
    made = Entry(
        id=f"{at:020.6f}",
        exchange_id="X",
        purpose="answer",
        provider="anthropic",
        model=model,
        asked_at=at,
        status=200,
        usage=Usage(output_tokens=50_000),
        price_row="row",
        cost_nusd=int(usd * USD),
        worst_nusd=int(usd * USD),
        certainty="exact",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def entries(number: int, every_s: float, usd: Decimal | int = 1) -> tuple[Entry, ...]:
    """Return attempts at a steady pace, the last of them now."""
    return tuple(entry(NOW - every_s * (number - 1 - one), usd) for one in range(number))


def made(rule: BudgetRule, standing: Standing, spending: Spending, **changes: int) -> Forecast:
    found = forecast(rule, window_of(rule, NOW), standing, spending, NOW, PRICES, **changes)
    assert isinstance(found, Forecast)
    return found


@pytest.mark.parametrize(
    ("window", "first_at", "since"),
    [
        pytest.param(Window("k", "k", NOW - 20 * DAY_S, NOW), None, NOW - 5 * DAY_S, id="last-quarter"),
        pytest.param(Window("k", "k", NOW - 2 * HOUR_S, NOW), None, NOW - HOUR_S, id="at-least-an-hour"),
        pytest.param(Window("k", "k", NOW - 600, NOW), None, NOW - 600, id="the-window-so-far"),
        pytest.param(Window("k", "k"), None, NOW - 7.5 * DAY_S, id="no-beginning"),
        pytest.param(Window("k", "k"), NOW - 8 * HOUR_S, NOW - 2 * HOUR_S, id="from-the-first"),
        pytest.param(Window("k", "k", NOW - DAY_S), NOW - 2 * DAY_S, NOW - 6 * HOUR_S, id="before-it"),
    ],
)
def test_the_last_quarter_of_the_window_counts(window: Window, first_at: float | None, since: float) -> None:
    assert since == since_when(window, NOW, first_at)


def test_a_month_is_carried_on_to_its_end() -> None:
    spent = Spending(NOW - 5 * DAY_S, 600 * USD, is_whole=False)

    found = made(MONTH, Standing(5_000 * USD, 0, 9_000), spent)

    assert 5 * USD == found.hourly_nusd
    assert (None, 3_000 * USD) == (found.calls, found.left_nusd)
    assert (
        Reach("sonnet", 5_600 * USD, NOW + 5 * DAY_S),
        Reach("haiku", 7_200 * USD, None),  # in 18 days: December has begun anew
        Reach("limit", 8_000 * USD, None),
    ) == found.reached
    assert found.limit_at is None


def test_what_is_crossed_already_is_left_out_and_a_raise_counts() -> None:
    spent = Spending(NOW - 5 * DAY_S, 6_000 * USD, is_whole=False)  # $50 an hour

    found = made(MONTH, Standing(7_300 * USD), spent)
    raised = made(MONTH, Standing(7_300 * USD), spent, raised_nusd=1_000 * USD)

    assert (Reach("limit", 8_000 * USD, NOW + 14 * HOUR_S),) == found.reached
    assert NOW + 34 * HOUR_S == raised.limit_at
    assert 1_700 * USD == raised.left_nusd


def test_over_the_limit_critical_tasks_go_on_to_theirs() -> None:
    spent = Spending(NOW - 5 * DAY_S, 1_200 * USD, is_whole=False)  # $10 an hour

    going_on = made(MONTH, Standing(15_000 * USD), spent)
    blocked = made(replace(MONTH, cap="block"), Standing(8_000 * USD), spent)

    assert (Reach("critical limit", 16_000 * USD, NOW + 100 * HOUR_S),) == going_on.reached
    assert () == blocked.reached
    assert (0, 0) == (going_on.left_nusd, blocked.left_nusd)


def test_a_rolling_window_loses_at_its_other_end_what_it_gains() -> None:
    rolling = BudgetRule("day", 100 * USD, window="day", rolling=True, ceilings=())
    steady = Spending(NOW - 6 * HOUR_S, 12 * USD, is_whole=False)  # $2 an hour, as all day long
    faster = Spending(NOW - 6 * HOUR_S, 36 * USD, is_whole=False)  # $6 an hour: $4 more than drops out

    assert made(rolling, Standing(48 * USD), steady).limit_at is None
    assert NOW + 13 * HOUR_S == made(rolling, Standing(48 * USD), faster).limit_at


def test_a_total_has_no_end() -> None:
    found = made(TOTAL, Standing(10 * USD, 0, 99), Spending(NOW - 8 * DAY_S, USD, is_whole=False))

    assert NOW + 720 * DAY_S == found.limit_at


def test_the_rest_lasts_longer_on_lower_tiers() -> None:
    """50,000 tokens out: $1 on opus, $0.50 on sonnet, $0.025 on haiku."""
    found = made(
        BudgetRule("s", 30 * USD, ceilings=()),
        Standing(20 * USD, 0, 900),
        Spending(NOW - HOUR_S, 5 * USD, entries(5, 600)),
    )

    assert 5 * USD == found.hourly_nusd
    assert (Lasts("haiku", NOW + 80 * HOUR_S), Lasts("sonnet", NOW + 4 * HOUR_S)) == found.lasts


def test_what_a_batch_cost_says_nothing_of_lower_tiers() -> None:
    (one, *_) = paid = entries(5, 600)
    usage = Usage(input_tokens=10**9)  # the sum of many prompts, none of them as long
    batch = replace(one, purpose="batch", usage=usage)
    spent = Spending(NOW - HOUR_S, 5 * USD, (*paid, batch))
    found = made(BudgetRule("s", 30 * USD, ceilings=()), Standing(20 * USD, 0, 900), spent)
    assert (Lasts("haiku", NOW + 80 * HOUR_S), Lasts("sonnet", NOW + 4 * HOUR_S)) == found.lasts


def test_nothing_lasts_longer_where_all_is_answered_by_the_lowest_tier_already() -> None:
    paid = (entry(NOW - 60, Decimal("0.025"), HAIKU),)

    assert () == made(MONTH, Standing(USD, 0, 99), Spending(NOW - 5 * DAY_S, USD, paid)).lasts


def test_an_account_of_one_model_cannot_be_moved() -> None:
    rule = BudgetRule("m", 30 * USD, scope=("model",))

    assert (
        () == made(rule, Standing(20 * USD, 0, 900), Spending(NOW - HOUR_S, 5 * USD, entries(5, 600))).lasts
    )


def test_attempts_whose_tokens_are_not_known_tell_nothing_of_other_tiers() -> None:
    lost = tuple(replace(one, certainty="lost", usage=Usage(), price_row="") for one in entries(5, 600))

    found = made(MONTH, Standing(20 * USD, 0, 900), Spending(NOW - HOUR_S, 5 * USD, lost))

    assert (5 * USD, ()) == (found.hourly_nusd, found.lasts)


def test_an_account_that_began_late_is_measured_from_its_first_attempt() -> None:
    """Ten hours of the day are not part of the rate; the first attempt ends the time before."""
    rule = BudgetRule("day", 100 * USD, window="day")
    ran = entries(41, 60)  # forty minutes

    found = made(rule, Standing(41 * USD, 0, 41), Spending(NOW - 3 * HOUR_S, 41 * USD, ran))

    assert (60 * USD, 41, NOW - 2_400) == (found.hourly_nusd, found.calls, found.since)


@pytest.mark.parametrize(("calls", "is_enough"), [(19, False), (20, True)])
def test_of_too_little_data_nothing_is_said(calls: int, *, is_enough: bool) -> None:
    ran = entries(calls, 60)
    standing, spending = Standing(calls * USD, 0, calls), Spending(NOW - DAY_S, calls * USD, ran)

    found = forecast(MONTH, window_of(MONTH, NOW), standing, spending, NOW, PRICES)

    assert is_enough == isinstance(found, Forecast)
    if not is_enough:
        assert TooLittle(19, NOW - 18 * 60) == found


def test_an_account_nobody_used_is_not_heading_anywhere() -> None:
    found = made(MONTH, Standing(10 * USD, 0, 10), Spending(NOW - 5 * DAY_S, 0))

    assert (0, (), None) == (found.hourly_nusd, found.lasts, found.limit_at)


@pytest.mark.parametrize(
    ("at", "tz", "text"),
    [
        (NOW + 5 * DAY_S, "UTC", "Sat 28 Nov"),
        (NOW + 2 * HOUR_S, "UTC", "Mon 23 Nov 14:00"),
        (NOW + 2 * HOUR_S, "Europe/Vienna", "Mon 23 Nov 15:00"),
        (NOW + 60 * DAY_S, "UTC", "Fri 22 Jan 2027"),
    ],
)
def test_times_are_days_and_hours_where_they_are_near(at: float, tz: str, text: str) -> None:
    assert text == when(at, NOW, tz)


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "0 min"), (3_599, "59 min"), (HOUR_S, "1 h"), (DAY_S * 9, "9 d")]
)
def test_stretches_of_time(seconds: float, text: str) -> None:
    assert text == how_long(seconds)


def test_ceilings_are_those_of_the_rule() -> None:
    rule = replace(MONTH, ceilings=(Ceiling(Decimal("0.5"), "haiku"),))

    assert ["haiku", "limit"] == [
        one.what for one in made(rule, Standing(), Spending(NOW - DAY_S, USD)).reached
    ]
