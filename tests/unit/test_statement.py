"""How accounts stand, and where they are heading, as a real store knows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest

from leastwise.budget import BudgetRule, Limits, Payer, Raise, Standing, account_of, window_of
from leastwise.forecast import DAY_S, HOUR_S, Forecast, Prices, TooLittle
from leastwise.ladder import DEFAULT_LADDER
from leastwise.models import load_models
from leastwise.money import NUSD_PER_USD as USD
from leastwise.prices import load_prices
from leastwise.sqlite import MEMORY
from leastwise.statement import (
    Statement,
    forecasts,
    fullest,
    heading_words,
    lasting_words,
    measured_words,
    statements,
    usage_words,
)
from leastwise.stores import Store
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, Clock
from tests.paid import paid, reserve, settle

PRICES = Prices(DEFAULT_LADDER, load_prices(), load_models())
ALL = BudgetRule("all", 100 * USD, window="day")
KEYS = BudgetRule("team-a", 8_000 * USD, scope=("key",), tz="Europe/Vienna")


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(SqliteStore(MEMORY, clock=Clock())) as opened:
        yield opened


def stand(store: Store, *rules: BudgetRule, now: float = NOW) -> list[Statement]:
    return statements(store, Limits(rules), DEFAULT_LADDER, now)


def ahead(store: Store, *rules: BudgetRule) -> list[Forecast | TooLittle]:
    return list(forecasts(store, stand(store, *rules), PRICES, NOW))


def test_a_budget_of_all_calls_stands_before_anybody_used_it(store: Store) -> None:
    (one,) = stand(store, ALL, KEYS)

    assert ("all", Standing(), Decimal(0), "") == (one.name, one.standing, one.percent, one.tier)


def test_a_budget_stands_once_whatever_its_name(store: Store) -> None:
    rule = BudgetRule("Büro (a|b)", USD, window="day")
    account = account_of(rule, Payer(), "")
    settle(store, paid(rule, NOW, "0.5", account=account))

    assert [(rule.name, account, Decimal(50))] == [
        (one.name, one.account, one.percent) for one in stand(store, rule)
    ]


def test_a_session_is_covered_by_its_name(store: Store) -> None:
    rule = BudgetRule("s", USD, scope=("session",), window="session", only=("s1",))
    for session in ("s1", "s2"):
        settle(store, paid(rule, NOW, "0.5", account=f"s|session=local/{session}"))

    assert ["s (session s1)"] == [one.name for one in stand(store, rule)]


def test_spent_reserved_and_calls_of_the_window_of_now(store: Store) -> None:
    settle(store, paid(ALL, NOW - 60, 70), paid(ALL, NOW - 30, "1.5"), paid(ALL, NOW - DAY_S, 50))
    reserve(store, ALL, NOW, 3)

    (one,) = stand(store, ALL)

    assert Standing(71_500_000_000, 3 * USD, 2) == one.standing
    assert (Decimal("71.5"), "sonnet", 98 * USD, 200 * USD) == (
        one.percent,
        one.tier,
        one.usual_nusd,
        one.most_nusd,
    )
    assert "24 Nov 00:00 UTC" == one.resets()


def test_accounts_are_those_of_the_scope_the_fullest_first(store: Store) -> None:
    for account, usd in (("team-a|key=bob", 10), ("team-a|key=alice", 20), ("team-a|tag=old", 99), ("x", 1)):
        settle(store, paid(KEYS, NOW, usd, account=account))

    assert ["team-a (key alice)", "team-a (key bob)"] == [one.name for one in stand(store, KEYS)]
    assert ["team-a (key bob)"] == [one.name for one in stand(store, replace(KEYS, only=("bob",)))]
    assert ["team-a (key alice)"] == [one.name for one in fullest(stand(store, KEYS))][:1]


def test_names_that_callers_chose_stay_on_one_line(store: Store) -> None:
    rule = BudgetRule("s", USD, scope=("session", "tag"), window="session")
    settle(store, paid(rule, NOW, "0.5", account="s|session=local/a%0Ab|tag="))

    assert ["s (session a?b, tag (none))"] == [one.name for one in stand(store, rule)]


def test_a_window_that_rolls_is_summed_over_its_slices(store: Store) -> None:
    rolling = replace(ALL, rolling=True)
    for ago_s in (0, 10 * HOUR_S, 23 * HOUR_S, 30 * HOUR_S):
        settle(store, paid(rolling, NOW - ago_s, 10))

    (one,) = stand(store, rolling)

    assert (30 * USD, 3, "") == (one.standing.spent_nusd, one.standing.calls, one.resets())


def test_a_raise_holds_until_its_end(store: Store) -> None:
    settle(store, paid(ALL, NOW, 80))
    store.add_raise(Raise("all", 50 * USD, NOW + HOUR_S, "launch", "me", NOW - 60))
    store.add_raise(Raise("all", 50 * USD, NOW + HOUR_S, "launch", "me", NOW - 30))
    store.add_raise(Raise("other", 50 * USD, NOW + HOUR_S, "launch", "me", NOW - 30))

    (now,), (later,) = stand(store, ALL), stand(store, ALL, now=NOW + HOUR_S)

    assert (200 * USD, 300 * USD, "") == (now.limit_nusd, now.most_nusd, now.tier)
    assert (100 * USD, "sonnet") == (later.limit_nusd, later.tier)


def test_what_was_never_spent_of_nothing_is_nothing() -> None:
    none = BudgetRule("none", 0)
    window = window_of(none, NOW)

    assert 0 == Statement(none, "none", window, Standing()).percent
    assert 100 == Statement(none, "none", window, Standing(1)).percent


def test_few_attempts_are_all_looked_at(store: Store) -> None:
    settle(store, *(paid(ALL, NOW - 60 * minute, "0.5") for minute in range(61)))

    (found,) = ahead(store, ALL)

    assert isinstance(found, Forecast)
    assert (30 * USD, 61, NOW - HOUR_S) == (found.hourly_nusd, found.calls, found.since)
    assert ["haiku", "sonnet"] == [one.tier for one in found.lasts]


def test_of_many_attempts_the_sum_and_the_last_of_them(store: Store) -> None:
    """2,400 calls in the last quarter of twelve hours, of which some 500 are looked at."""
    month = replace(KEYS, scope=("global",))
    every_s = 3 * DAY_S / 2_400
    settle(store, *(paid(month, NOW - every_s * one, "0.5") for one in range(2_400)))
    settle(store, paid(month, NOW - 20 * DAY_S, 100))

    (found,) = ahead(store, month)

    assert isinstance(found, Forecast)
    assert None is found.calls
    assert window_of(month, NOW).began_at is not None
    assert abs(found.hourly_nusd - 1_200 * USD / ((NOW - found.since) / HOUR_S)) <= USD
    assert ["haiku", "sonnet"] == [one.tier for one in found.lasts]


def test_many_attempts_in_few_minutes_are_all_looked_at(store: Store) -> None:
    settle(store, *(paid(ALL, NOW - one, "0.01") for one in range(601)))

    (found,) = ahead(store, ALL)

    assert isinstance(found, Forecast)
    assert (36 * USD, 601, NOW - 600) == (found.hourly_nusd, found.calls, found.since)


def test_in_words(store: Store) -> None:
    settle(store, *(paid(ALL, NOW - 60 * minute, "0.5") for minute in range(61)))
    (one,), (found,) = stand(store, ALL), ahead(store, ALL)

    assert "30% of $100.00" == usage_words(one)
    assert "at this rate reached on Mon 23 Nov 14:19" == heading_words(one, found, NOW)
    assert "$30.00 an hour, over the last 1 h and 61 calls" == measured_words(found, NOW)
    assert [
        "on haiku the remaining $69.50 lasts until Fri 27 Nov",
        "on sonnet the remaining $69.50 lasts until Mon 23 Nov 16:38",
    ] == lasting_words(one, found, NOW)


def test_too_little_data_in_words(store: Store) -> None:
    settle(store, paid(ALL, NOW - 300, 1))
    (one,), (found,) = stand(store, ALL), ahead(store, ALL)

    said = "no forecast: 1 call in 5 min; an hour or 20 calls are needed"
    assert (said, "", []) == (
        measured_words(found, NOW),
        heading_words(one, found, NOW),
        lasting_words(one, found, NOW),
    )


@pytest.mark.parametrize(
    ("spent", "hourly", "window", "words"),
    [
        (100, 10, "day", "used up"),
        (10, 1, "day", "at this rate not reached before it resets"),
        (10, 0, "total", "at this rate not reached"),
    ],
)
def test_where_it_is_heading_in_words(spent: int, hourly: int, window: str, words: str) -> None:
    rule = replace(ALL, window=window)  # type: ignore[arg-type]
    one = Statement(rule, "all", window_of(rule, NOW), Standing(spent * USD))
    found = Forecast(hourly * USD, NOW - HOUR_S, None, (100 - spent) * USD, ())

    assert words == heading_words(one, found, NOW)
