"""Budgets as values: who pays, which window, how far, and which ceilings hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.budget import (
    MOST_NUSD,
    BudgetRule,
    Ceiling,
    Payer,
    Purse,
    Raise,
    Refusal,
    Standing,
    account_of,
    budget_of,
    named_once,
    window_of,
)
from leastwise.errors import ConfigError
from leastwise.ladder import DEFAULT_LADDER, Ladder, Tier
from leastwise.money import NUSD_PER_USD
from tests.kit import HAIKU, NOW, OPUS

USD = NUSD_PER_USD
HOUR_S, DAY_S = 3600, 86_400
texts = st.text(max_size=12)


def rule(**given: Any) -> BudgetRule:
    return BudgetRule(**{"name": "team", "limit_nusd": 100 * USD, "reserve": Decimal(0), **given})


def at(text: str, tz: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": " "}, "name is empty"),
        ({"limit_nusd": -1}, "limit_usd = "),
        ({"limit_nusd": MOST_NUSD + 1}, "expected from $0 to $9,000,000"),
        ({"critical_limit_nusd": -1}, "critical_limit_usd = "),
        ({"scope": ()}, "expected each once of session, key"),
        ({"scope": ("key", "key")}, "expected each once of"),
        ({"scope": ("team",)}, "expected each once of"),
        ({"scope": ("global", "key")}, "expected global alone"),
        ({"window": "session"}, 'goes with scope = ["session"]'),
        ({"window": "total", "rolling": True}, "a total window does not roll"),
        ({"only": ("x",)}, "names values of one scope"),
        ({"scope": ("key", "tag"), "only": ("x",)}, "names values of one scope"),
        ({"reserve": Decimal(1)}, "reserve = 1"),
        ({"ceilings": (Ceiling(Decimal("0.9"), "haiku"), Ceiling(Decimal("0.7"), "haiku"))}, "rising shares"),
        ({"ceilings": (Ceiling(Decimal(1), "haiku"),)}, "rising shares"),
        ({"tz": "Mars/Olympus"}, "no such time zone"),
        ({"tz": "../etc/passwd"}, "no such time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rule(**given)
    assert said in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        rule(limit_nusd=-1, tz="x", reserve=Decimal(2))
    assert 3 == len(str(refused.value).splitlines())


def test_two_budgets_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'team': two budgets"):
        named_once((rule(), rule(window="day")))
    named_once((rule(), rule(name="other")))


def test_ceilings_must_name_tiers_and_fall() -> None:
    with pytest.raises(ConfigError, match="no tier is named 'gold'"):
        rule(ceilings=(Ceiling(Decimal("0.5"), "gold"),)).check(DEFAULT_LADDER)
    rising = (Ceiling(Decimal("0.5"), "haiku"), Ceiling(Decimal("0.9"), "sonnet"))
    with pytest.raises(ConfigError, match="must not allow a dearer tier"):
        rule(ceilings=rising).check(DEFAULT_LADDER)
    rule().check(DEFAULT_LADDER)


def test_a_tier_is_no_model() -> None:
    with pytest.raises(ConfigError, match=f"only = 'haiku': give the model, '{HAIKU}'"):
        rule(scope=("model",), only=("haiku",)).check(DEFAULT_LADDER)
    rule(scope=("model",), only=(HAIKU,)).check(DEFAULT_LADDER)
    rule(scope=("tag",), only=("haiku",)).check(DEFAULT_LADDER)


def test_an_account_for_each_value_of_the_scope() -> None:
    payer = Payer(session="s1", key="alice", tag="triage", tenant="acme")
    assert "team" == account_of(rule(), payer, HAIKU)
    assert "team|key=alice" == account_of(rule(scope=("key",)), payer, HAIKU)
    assert "team|session=acme/s1" == account_of(rule(scope=("session",)), payer, HAIKU)
    assert f"team|tenant=acme|model={HAIKU}" == account_of(rule(scope=("tenant", "model")), payer, HAIKU)
    assert "team|tag=" == account_of(rule(scope=("tag",)), Payer(), HAIKU)
    assert None is account_of(rule(scope=("tag",), only=("plan",)), payer, HAIKU)
    assert "team|tag=triage" == account_of(rule(scope=("tag",), only=("triage",)), payer, HAIKU)


def test_only_names_sessions_and_models_as_users_do() -> None:
    payer = Payer(session="s1", tenant="acme")
    assert "team|session=acme/s1" == account_of(rule(scope=("session",), only=("s1",)), payer, HAIKU)
    assert None is account_of(rule(scope=("session",), only=("s2",)), payer, HAIKU)
    dated = rule(scope=("model",), only=("claude-haiku-4-5-20251001",))
    assert "team|model=claude-haiku-4-5" == account_of(dated, payer, "claude-haiku-4-5")
    assert None is account_of(dated, payer, HAIKU)


@given(name=texts.filter(str.strip), key=texts, tag=texts)
def test_accounts_of_different_payers_differ_and_can_be_read_back(name: str, key: str, tag: str) -> None:
    made = account_of(rule(name=name, scope=("key", "tag")), Payer(key=key, tag=tag), HAIKU)
    assert made is not None
    assert (name, {"key": key, "tag": tag}) == budget_of(made)


@pytest.mark.parametrize(
    ("window", "tz", "begin", "end"),
    [
        ("hour", "UTC", "2026-11-25T13:00", "2026-11-25T14:00"),
        ("day", "UTC", "2026-11-25", "2026-11-26"),
        ("week", "UTC", "2026-11-23", "2026-11-30"),
        ("month", "UTC", "2026-11-01", "2026-12-01"),
        ("day", "Europe/Vienna", "2026-11-25", "2026-11-26"),
        ("month", "America/New_York", "2026-11-01", "2026-12-01"),
        ("hour", "Asia/Kathmandu", "2026-11-25T13:00", "2026-11-25T14:00"),
    ],
)
def test_calendar_windows_are_those_of_their_zone(window: Any, tz: str, begin: str, end: str) -> None:
    found = window_of(rule(window=window, tz=tz), at("2026-11-25T13:30", tz))
    assert (at(begin, tz), at(end, tz)) == (found.began_at, found.ends_at)
    assert found.key == found.first
    assert found.key == f"{datetime.fromtimestamp(at(begin, tz), UTC):%Y-%m-%dT%H:%MZ}"


def test_the_hour_that_comes_twice_when_summer_ends_is_two_windows() -> None:
    one = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Vienna"))
    hourly = rule(window="hour", tz="Europe/Vienna")
    first, second = (window_of(hourly, one.replace(fold=fold).timestamp()) for fold in (0, 1))
    assert first.key < second.key
    assert first.ends_at == second.began_at


def test_a_day_is_as_long_as_its_calendar_says() -> None:
    longest = window_of(rule(window="day", tz="Europe/Vienna"), at("2026-10-25T12:00", "Europe/Vienna"))
    assert longest.began_at is not None
    assert longest.ends_at is not None
    assert 25 * HOUR_S == longest.ends_at - longest.began_at


def test_windows_without_an_end() -> None:
    for window in ("total", "session"):
        found = window_of(rule(scope=("session",), window=window), NOW)
        assert ("always", "always", None, None) == (found.key, found.first, found.began_at, found.ends_at)


windows = st.sampled_from(["hour", "day", "week", "month"])
zones = st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"])
moments = st.floats(0, 4e9, allow_nan=False)


@given(window=windows, tz=zones, moment=moments)
def test_a_calendar_window_holds_its_moment_and_ends_where_the_next_begins(
    window: Any, tz: str, moment: float
) -> None:
    budget = rule(window=window, tz=tz)
    found = window_of(budget, moment)
    assert found.began_at is not None
    assert found.ends_at is not None
    assert found.began_at <= moment < found.ends_at
    following = window_of(budget, found.ends_at)
    assert found.ends_at == following.began_at
    assert found.key < following.key
    assert found == window_of(budget, found.began_at)


@given(window=windows, moment=moments, later_s=st.floats(0, 40 * DAY_S))
def test_a_rolling_window_counts_all_of_its_length_and_little_more(
    window: Any, moment: float, later_s: float
) -> None:
    spans = {"hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S, "month": 30 * DAY_S}
    slices = {"hour": 60, "day": HOUR_S, "week": 6 * HOUR_S, "month": DAY_S}
    budget = rule(window=window, rolling=True)
    then, now = window_of(budget, moment), window_of(budget, moment + later_s)
    counts = now.first <= then.key
    if later_s <= spans[window]:
        assert counts
    if later_s > spans[window] + slices[window]:
        assert not counts
    assert then.key <= now.key


def purse(*rules: BudgetRule, spent: int = 0, leased: int = 0, **given: Any) -> Purse:
    made = Purse(rules, at=NOW, **given)
    accounts = made.accounts([HAIKU, OPUS])
    return Purse(rules, at=NOW, standings={one.id: Standing(spent, leased) for one in accounts}, **given)


def limit_of(made: Purse) -> int:
    (claim,) = made.claims(HAIKU)
    return claim.limit_nusd


def test_how_far_a_call_may_go() -> None:
    keeping = rule(reserve=Decimal("0.02"))
    assert 98 * USD == limit_of(purse(keeping))
    assert 100 * USD == limit_of(purse(keeping, in_loop=True))
    assert 200 * USD == limit_of(purse(keeping, is_critical=True))
    assert 98 * USD == limit_of(purse(rule(reserve=Decimal("0.02"), cap="block"), is_critical=True))
    assert 103 * USD == limit_of(purse(rule(critical_limit_nusd=3 * USD), is_critical=True))
    assert 150 * USD == limit_of(purse(rule(), raised={"team": 50 * USD, "other": USD}))


def test_claims_are_in_the_order_of_accounts_and_of_the_moment_the_call_came() -> None:
    rules = (rule(name="z"), rule(name="a", scope=("model",)), rule(name="k", window="day"))
    claims = purse(*rules).claims(HAIKU)
    assert [f"a|model={HAIKU}", "k", "z"] == [claim.account.id for claim in claims]
    assert "2026-11-23T00:00Z" == claims[1].account.window.key


def test_accounts_of_every_model_are_asked_about_only_where_a_budget_tells_them_apart() -> None:
    assert ["team"] == [one.id for one in Purse((rule(),), at=NOW).accounts([HAIKU, OPUS])]
    told_apart = Purse((rule(scope=("model",)),), at=NOW).accounts([HAIKU, OPUS])
    assert [f"team|model={HAIKU}", f"team|model={OPUS}"] == [one.id for one in told_apart]


@pytest.mark.parametrize(
    ("spent", "tier"),
    [
        (70 * USD, None),
        (70 * USD + 1, "sonnet"),
        (90 * USD, "sonnet"),
        (90 * USD + 1, "haiku"),
        (300 * USD, "haiku"),
    ],
)
def test_ceilings_look_at_what_is_spent_alone(spent: int, tier: str | None) -> None:
    held = purse(rule(), spent=spent, leased=99 * USD).held(DEFAULT_LADDER, OPUS)
    assert tier == (held.tier if held else None)
    assert None is purse(rule(), spent=spent, is_critical=True).held(DEFAULT_LADDER, OPUS)


def test_the_strictest_ceiling_holds_and_says_why() -> None:
    held = purse(rule(), rule(name="small", limit_nusd=10 * USD), spent=9_500_000_000).held(
        DEFAULT_LADDER, OPUS
    )
    assert held is not None
    assert "budget small at 95% (above 90%): nothing above haiku" == held.words
    assert ("small", "2026-11-01T00:00Z") == (held.account, held.window)


def test_ceilings_are_those_of_the_ladder_unless_configured() -> None:
    two = Ladder((Tier("a", "x"), Tier("b", "y")))
    assert ["a", "a"] == [one.tier for one in rule().ceilings_on(two)]
    assert () == rule().ceilings_on(Ladder((Tier("a", "x"),)))
    own = (Ceiling(Decimal("0.5"), "haiku"),)
    assert own == rule(ceilings=own).ceilings_on(DEFAULT_LADDER)


def test_a_raise_moves_ceilings_too() -> None:
    assert None is purse(rule(), spent=80 * USD, raised={"team": 100 * USD}).held(DEFAULT_LADDER, OPUS)


def test_a_budget_of_nothing_holds_as_soon_as_anything_is_spent() -> None:
    assert None is purse(rule(limit_nusd=0)).held(DEFAULT_LADDER, OPUS)
    held = purse(rule(limit_nusd=0), spent=1).held(DEFAULT_LADDER, OPUS)
    assert held is not None
    assert ("haiku", Decimal(100)) == (held.tier, held.percent)


def test_what_is_left_is_that_of_the_account_with_the_least() -> None:
    assert 4 * USD == purse(rule(), rule(name="small", limit_nusd=10 * USD), spent=6 * USD).remaining_nusd(
        OPUS
    )
    assert None is Purse().remaining_nusd(OPUS)


def test_a_refusal_tells_whether_waiting_could_help() -> None:
    (claim,) = purse(rule()).claims(HAIKU)
    assert Refusal(claim, Standing(60 * USD, 39 * USD)).could_fit(40 * USD)
    assert not Refusal(claim, Standing(60 * USD + 1, 0)).could_fit(40 * USD)


def test_a_raise_is_a_value() -> None:
    given = Raise("team", 5 * USD, NOW + timedelta(days=1).total_seconds(), "launch", "ops", NOW)
    assert given == Raise("team", 5 * USD, NOW + DAY_S, "launch", "ops", NOW)
