"""Reports from the ledger: sums, shares, wording, and what is not said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from leastwise.budget import BudgetRule, Standing, window_of
from leastwise.cascade import interval
from leastwise.errors import ConfigError
from leastwise.forecast import Forecast, Reach
from leastwise.ladder import Verdict
from leastwise.ledger import Entry, Exchange, Feedback
from leastwise.messages import Usage
from leastwise.report.cascade import CascadeReport, PassedBy
from leastwise.report.ledger import (
    CSV_COLUMNS,
    check_groups,
    empty_ledger,
    ledger_json,
    ledger_lines,
    ledger_rows,
    read_ledger,
)
from leastwise.report.table import aligned, dollars, fits, labelled, percent, plural
from leastwise.report.why import read_why, why_json, why_lines
from leastwise.report.window import Window, days_text, read_window
from leastwise.statement import Statement
from leastwise.steps import Record, Settle
from leastwise.stores import Story
from leastwise.stores.sqlite import SqliteStore

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
USD = 1_000_000_000
OBSERVING = "OBSERVING: every call goes to the model it asked for."
WEEK = Window(date(2026, 11, 16), date(2026, 11, 22))

CALL = Exchange(
    id="",
    at=0.0,
    tenant="local",
    key="prod",
    session="",
    tag="",
    kind="message",
    mode="enforce",
    asked=OPUS,
    served=OPUS,
    tier="opus",
    upstream="anthropic",
    would="",
    result="ok",
    status=200,
    decision_json="{}",
    policy_hash="7f3a00c0ffee",
    baseline=OPUS,
    baseline_how="asked",
    baseline_nusd=0,
    spent_nusd=0,
    discarded_nusd=0,
    saved_nusd=0,
    could_nusd=0,
    arm="treated",
    complexity="",
    task_type="",
    certainty="exact",
    input_tokens=100,
    output_tokens=10,
    latency_s=2.0,
    fault="",
)


def second(day: int, hour: int = 12) -> float:
    return datetime(2026, 11, day, hour, tzinfo=UTC).timestamp()


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    opened = SqliteStore(":memory:", clock=lambda: second(23))
    yield opened
    opened.close()


def keep(store: SqliteStore, *calls: Exchange) -> None:
    for number, call in enumerate(calls):
        store.write(Record(replace(call, id=f"{call.tag}-{call.at}-{call.served}-{number}")), may_wait=True)


def moved(
    tag: str, as_asked: int, spent: int, *, to: str = HAIKU, tier: str = "haiku", day: int = 17
) -> Exchange:
    return replace(
        CALL,
        at=second(day),
        tag=tag,
        served=to,
        tier=tier,
        baseline_nusd=as_asked,
        spent_nusd=spent,
        saved_nusd=as_asked - spent,
        latency_s=1.0,
    )


def stayed(tag: str, spent: int, *, day: int = 18) -> Exchange:
    return replace(CALL, at=second(day), tag=tag, baseline_nusd=spent, spent_nusd=spent, latency_s=9.0)


def fill(store: SqliteStore) -> None:
    """Three tags: one moved whole, one that stays, one that lost by discarding answers."""
    keep(store, *[moved("triage", 40 * USD, 1 * USD)] * 9)
    keep(store, *[stayed("plan", 600 * USD)] * 2)
    keep(
        store,
        moved("digest", 100 * USD, 50 * USD, to=SONNET, tier="sonnet", day=19),
        replace(
            stayed("digest", 100 * USD, day=19),
            spent_nusd=170 * USD,
            discarded_nusd=70 * USD,
            saved_nusd=-70 * USD,
        ),
    )


def test_a_report_by_tag_is_these_lines(store: SqliteStore) -> None:
    fill(store)

    report = read_ledger(store, WEEK, mode="enforce", where="/var/lib/leastwise.db")

    assert ledger_lines(report) == [
        "leastwise report   16-22 Nov 2026 UTC   13 calls, all keys   mode: enforce",
        "spent $1,429.00   as asked $1,760.00   saved $331.00 (18.8%)",
        "re-priced at list, net of checks and retries; no holdout, so not a measured sum",
        "tag    calls   % answered by        as asked   %    spent  saved same quality",
        "plan       2 15% opus 100%          1,200.00 68% 1,200.00   0.00 as asked",
        "triage     9 69% haiku 100%           360.00 20%     9.00 351.00 not measured",
        "digest     2 15% opus 50 sonnet 50%   200.00 11%   220.00 -20.00 not measured",
        "answered by  opus 23% of calls, 74% of money; haiku 69% of calls, 20% of money;",
        "             sonnet 8% of calls, 6% of money",
        'in "spent"   checks $0.00   discarded answers $70.00   lost prompt cache $0.00',
        "latency      p50/p95 1.0/9.0 s",
        "a month      like these days: spent $20,997.55, saved $4,863.67",
        "! loss       digest lost $20.00: discarded answers",
        "! unchecked  triage, digest: check it by a trial",
        "store        /var/lib/leastwise.db",
    ]
    assert report.next == "leastwise off --tag digest"


def test_full_budgets_and_the_cache_have_a_line(store: SqliteStore) -> None:
    fill(store)
    keep(store, replace(moved("kept", 3 * USD, 0), cache="hit"), replace(CALL, at=second(17), cache="miss"))
    now, rule = second(23), BudgetRule("team-a", 8_000 * USD)
    account = Statement(rule, "team-a", window_of(rule, now), Standing(6_480 * USD, 0, 13))
    ahead = Forecast(13 * USD, now - 86_400, 9, 1_520 * USD, (Reach("limit", 8_000 * USD, second(28)),))

    report = read_ledger(store, WEEK, budgets=[(account, ahead)], at=now)

    lines = ledger_lines(report)
    place = next(number for number, line in enumerate(lines) if line.startswith("latency"))
    assert [
        "budget       team-a 81% of $8,000.00; at this rate reached on Sat 28 Nov",
        "cache        1 of 2 answered (50.0%), saved $3.00",
    ] == lines[place + 1 : place + 3]
    value = ledger_json(report)
    assert ["team-a"] == [one["budget"] for one in value["budgets"]]
    assert (1, 1, 3) == tuple(value["cache"][name] for name in ("total_hits", "total_misses", "saved_usd"))


def test_days_come_in_order_and_sums_too_wide_lose_their_cents(store: SqliteStore) -> None:
    fill(store)

    lines = ledger_lines(read_ledger(store, WEEK, by=("day",), mode="enforce"))

    assert lines[3:7] == [
        "day        calls   % answered by        as asked   % spent saved same quality",
        "2026-11-17     9 69% haiku 100%              360 20%     9   351 not measured",
        "2026-11-18     2 15% opus 100%             1,200 68% 1,200     0 as asked",
        "2026-11-19     2 15% opus 50 sonnet 50%      200 11%   220   -20 not measured",
    ]


@pytest.mark.parametrize(
    "by", [("tag",), ("tier",), ("key",), ("served",), ("asked",), ("tag", "key", "tier")]
)
def test_no_line_is_longer_than_eighty(store: SqliteStore, by: tuple[str, ...]) -> None:
    fill(store)
    keep(
        store,
        *[moved("a-very-long-name-of-a-tag-that-somebody-thought-good", 123_456 * USD, 3_000 * USD)] * 40,
    )

    lines = ledger_lines(read_ledger(store, WEEK, by=by, mode="enforce"))

    assert [] == [line for line in lines if len(line) > 80]


def test_observing_is_said_first_with_what_could_move(store: SqliteStore) -> None:
    seen = replace(stayed("triage", 8 * USD), mode="observe", would=HAIKU, could_nusd=7 * USD)
    same = replace(stayed("plan", 2 * USD), mode="observe", would=OPUS)
    keep(store, seen, same)

    report = read_ledger(store, WEEK, mode="observe")

    assert ledger_lines(report) == [
        f"{OBSERVING} Up to $7.00 of $10.00",
        "could move, quality unknown. Switch on: leastwise on",
        "leastwise report   16-22 Nov 2026 UTC   2 calls, all keys   mode: observe",
        "spent $10.00   as asked $10.00   saved $0.00 (0.0%)",
        "re-priced at list, net of checks and retries; no holdout, so not a measured sum",
        "tag     calls    %  answered by  as asked    %  spent  could save  same quality",
        "triage      1  50%  opus 100%        8.00  80%   8.00        7.00  as asked",
        "plan        1  50%  opus 100%        2.00  20%   2.00        0.00  as asked",
        "answered by  opus 100% of calls, 100% of money",
        'in "spent"   checks $0.00   discarded answers $0.00   lost prompt cache $0.00',
        "latency      p50/p95 9.0/9.0 s",
        "a month      not said: 1 hour of data, a day is needed",
    ]
    assert report.observed.could_move == 1
    assert report.next == "leastwise on"


def test_what_rests_on_an_assumed_baseline_says_so(store: SqliteStore) -> None:
    guess = replace(moved("triage", 4 * USD, 1 * USD), mode="auto", asked="auto", baseline_how="assumed")
    keep(store, guess, stayed("plan", 6 * USD))

    lines = ledger_lines(read_ledger(store, WEEK, mode="enforce"))

    assert lines[1:8] == [
        "spent $7.00   as asked $10.00 ($4.00 of it assumed)   saved $3.00 (30.0%) in",
        "part assumed",
        "re-priced at list, net of checks and retries; no holdout, so not a measured sum",
        "tag     calls    %  answered by  as asked    %  spent  saved  same quality",
        "plan        1  50%  opus 100%        6.00  60%   6.00   0.00  as asked",
        "triage      1  50%  haiku 100%      4.00*  40%   1.00  3.00*  not measured",
        "* baseline assumed: nobody said which model would have been called; the top tier",
    ]


def test_where_every_baseline_is_assumed_the_sums_say_it_shortly(store: SqliteStore) -> None:
    keep(store, replace(moved("triage", 4 * USD, 1 * USD), mode="auto", asked="auto", baseline_how="assumed"))

    lines = ledger_lines(read_ledger(store, WEEK, mode="enforce"))

    assert lines[1] == "spent $1.00   as asked $4.00 assumed   saved $3.00 (75.0%) assumed"


def test_sums_below_a_dollar_are_told_apart(store: SqliteStore) -> None:
    keep(store, moved("triage", 133_208_000, 6_336_000))

    lines = ledger_lines(read_ledger(store, WEEK, mode="enforce"))

    assert lines[1] == "spent $0.006336   as asked $0.133208   saved $0.126872 (95.2%)"


def test_without_an_answer_there_is_no_latency(store: SqliteStore) -> None:
    keep(store, replace(stayed("plan", 0), result="error", served="", tier=""))

    report = read_ledger(store, WEEK, mode="enforce")

    assert ledger_json(report)["total"]["p50_s"] is None
    assert not any(line.startswith("latency") for line in ledger_lines(report))


def test_failures_estimates_faults_and_what_could_still_move_are_named(store: SqliteStore) -> None:
    keep(
        store,
        replace(stayed("plan", 0), result="error", served="", tier="", baseline_nusd=0),
        replace(stayed("plan", 2 * USD), certainty="estimated", fault="routing: KeyError"),
        replace(stayed("plan", 2 * USD), mode="observe", would=HAIKU, could_nusd=USD, latency_s=3.0),
    )

    lines = ledger_lines(read_ledger(store, WEEK, mode="enforce"))

    assert lines[4:] == [
        "plan     3 100% opus 67 no answer 33%     4.00 100%  4.00  0.00 as asked",
        "answered by  opus 67% of calls, 100% of money; no answer 33% of calls, 0% of",
        "             money",
        'in "spent"   checks $0.00   discarded answers $0.00   lost prompt cache $0.00',
        "could move   33% of calls, worth $1.00, quality unknown",
        "latency      p50/p95 3.0/9.0 s; enforce 9.0/9.0 s; observe 3.0/3.0 s",
        "failed       1 call (33.3%)",
        "estimated    1 call (33.3%), answers that broke off",
        "! faults     1 call went as asked because something of ours failed",
        "a month      not said: 1 hour of data, a day is needed",
    ]


def test_a_loss_without_discarded_answers_is_a_dearer_model(store: SqliteStore) -> None:
    keep(store, moved("", 1 * USD, 3 * USD, to=OPUS, tier="opus"))

    report = read_ledger(store, WEEK, mode="enforce")

    assert "! loss       (none) lost $2.00: dearer models than the baseline" in ledger_lines(report)
    assert report.next == "leastwise why ID"


def test_a_lost_prompt_cache_is_a_part_of_spent_and_a_reason_for_a_loss(store: SqliteStore) -> None:
    row = moved("chat", 1 * USD, 3 * USD, to=SONNET, tier="sonnet")
    keep(store, replace(row, lost_cache_nusd=2 * USD, discarded_nusd=1 * USD))

    report = read_ledger(store, WEEK, mode="enforce")

    assert 'in "spent"   checks $0.00   discarded answers $1.00   lost prompt cache $2.00' in ledger_lines(
        report
    )
    assert "! loss       chat lost $2.00: lost prompt cache" in ledger_lines(report)
    assert [2 * USD] == [group["lost_cache_usd"] * USD for group in ledger_json(report)["groups"]]


def test_an_empty_ledger_says_what_to_do(store: SqliteStore) -> None:
    report = read_ledger(store, WEEK, where="/x.db")

    assert report == empty_ledger(WEEK, by=("tag",), mode="observe", where="/x.db")
    assert ledger_lines(report) == [
        "leastwise report   16-22 Nov 2026 UTC   0 calls, all keys   mode: observe",
        "no call recorded yet. To record, in the program that calls:",
        "  import leastwise",
        "  client = leastwise.Anthropic()     # the anthropic client, same calls",
        "or read the console's usage export: leastwise report usage.csv",
        "store        /x.db",
    ]
    assert report.next == "leastwise demo"


def test_days_without_calls_point_to_others(store: SqliteStore) -> None:
    keep(store, stayed("plan", USD, day=2))

    report = read_ledger(store, WEEK)

    assert ledger_lines(report)[1:] == [
        "no call in these days; the ledger holds calls of others: --days, --since, --month"
    ]
    assert report.next == "leastwise report --days 400"


def test_calls_without_money_divide_by_nothing(store: SqliteStore) -> None:
    keep(store, replace(CALL, at=second(17)))

    lines = ledger_lines(read_ledger(store, WEEK, mode="enforce"))

    assert lines[1] == "spent $0.00   as asked $0.00   saved $0.00 (-)"


def test_csv_has_frozen_columns_after_the_grouping(store: SqliteStore) -> None:
    fill(store)

    header, *rows = ledger_rows(read_ledger(store, WEEK, by=("tag", "tier"), mode="enforce"))

    assert header == ["tag", "tier", *CSV_COLUMNS]
    assert CSV_COLUMNS == (
        "calls",
        "share_of_calls",
        "answered_by",
        "as_asked_usd",
        "share_of_money",
        "assumed_usd",
        "spent_usd",
        "checks_usd",
        "discarded_usd",
        "lost_cache_usd",
        "saved_usd",
        "could_save_usd",
        "moved_calls",
        "could_move_calls",
        "failed_calls",
        "estimated_calls",
        "input_tokens",
        "output_tokens",
        "p50_s",
        "p95_s",
        "same_quality",
        "checked_calls",
        "escalated_calls",
        "trials_usd",
    )
    digest = dict(zip(header, next(row for row in rows if row[:2] == ["digest", "opus"]), strict=True))
    assert digest["saved_usd"] == "-70"
    assert digest["discarded_usd"] == "70"
    assert digest["share_of_calls"] == "0.076923"


def test_json_has_the_same_sums(store: SqliteStore) -> None:
    fill(store)

    value = ledger_json(read_ledger(store, WEEK, mode="enforce", where="/x.db"))

    assert value["total"]["saved_usd"] == Decimal(331)
    assert [group["tag"] for group in value["groups"]] == ["plan", "triage", "digest"]
    assert sum(group["spent_usd"] for group in value["groups"]) == value["total"]["spent_usd"]
    assert sum(group["spent_usd"] for group in value["by_tier"]) == value["total"]["spent_usd"]
    assert value["month"] == {"spent_usd": Decimal("20997.551020408"), "saved_usd": Decimal("4863.673469388")}
    assert value["next"] == "leastwise off --tag digest"


def test_less_than_a_day_is_never_a_month(store: SqliteStore) -> None:
    keep(store, replace(CALL, at=second(17, 1)), replace(CALL, at=second(17, 23)))
    assert read_ledger(store, WEEK).month is None
    assert ledger_json(read_ledger(store, WEEK))["month"] is None

    keep(store, replace(CALL, at=second(18, 0), tag="later"))
    assert read_ledger(store, WEEK).month == (0, 0)


def test_a_grouping_that_does_not_exist_is_refused() -> None:
    assert check_groups([]) == ("tag",)
    assert check_groups(["key", "day", "key"]) == ("key", "day")
    with pytest.raises(ConfigError, match="--by colour: the ledger is summed by tag, tier, key"):
        check_groups(["colour"])


# --- which days ------------------------------------------------------------------------------------------


TODAY = date(2026, 11, 23)


def test_days_are_counted_back_from_the_last() -> None:
    assert read_window(TODAY) == Window(date(2026, 11, 17), TODAY)
    assert read_window(TODAY, days=1) == Window(TODAY, TODAY)
    assert read_window(TODAY, days=3, until=date(2026, 11, 10)) == Window(
        date(2026, 11, 8), date(2026, 11, 10)
    )
    assert read_window(TODAY, since=date(2026, 11, 1)) == Window(date(2026, 11, 1), TODAY)
    assert read_window(TODAY, month="2026-02") == Window(date(2026, 2, 1), date(2026, 2, 28))
    assert read_window(TODAY, month="2026-12") == Window(date(2026, 12, 1), date(2026, 12, 31))


def test_a_window_is_whole_days() -> None:
    assert Window(TODAY, TODAY).until - Window(TODAY, TODAY).since == 24 * 3600
    assert Window(TODAY, TODAY).since == datetime(2026, 11, 23, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"month": "2026-13"}, "--month 2026-13: expected a year and a month"),
        ({"month": "Nov"}, "--month Nov: expected a year and a month"),
        ({"month": "2026-11", "days": 3}, "--month stands alone"),
        ({"since": TODAY, "days": 3}, "--since and --days"),
        ({"days": 0}, "--days 0: expected a whole number from 1"),
        ({"since": TODAY, "until": date(2026, 11, 1)}, "--since 2026-11-23 is after --until 2026-11-01"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_window(TODAY, **options)


def test_days_in_words() -> None:
    assert days_text(TODAY, TODAY) == "23 Nov 2026"
    assert days_text(date(2026, 11, 16), TODAY) == "16-23 Nov 2026"
    assert days_text(date(2026, 10, 28), TODAY) == "28 Oct - 23 Nov 2026"
    assert days_text(date(2025, 12, 30), date(2026, 1, 2)) == "30 Dec 2025 - 2 Jan 2026"


# --- columns ---------------------------------------------------------------------------------------------


def test_columns_close_up_before_a_name_is_cut_and_figures_never_are() -> None:
    rows = [["name", "sum"], ["a long name", "1,000"]]

    assert aligned(rows, "lr") == ["name           sum", "a long name  1,000"]
    assert aligned(rows, "lr", width=17) == ["name          sum", "a long name 1,000"]
    assert aligned(rows, "lr", width=14) == ["name       sum", "a long ~ 1,000"]
    assert aligned(rows, "lr", width=3) == ["name     sum", "a lon~ 1,000"]
    assert fits(rows, width=17)
    assert not fits(rows, width=16)


def test_shares_never_hide_what_is_there() -> None:
    assert percent(0, 0) == "-"
    assert percent(0, 10) == "0%"
    assert percent(1, 1000) == "<1%"
    assert percent(1, 100_000, 1) == "<0.1%"
    assert percent(-173, 1000, 1) == "-17.3%"


def test_amounts_have_cents_where_the_column_has_dollars() -> None:
    assert dollars(12_340_000, 5 * USD) == "0.01"
    assert dollars(12_340_000, 12_340_000) == "0.012340"


def test_words() -> None:
    assert plural(1, "call") == "1 call"
    assert plural(2000, "call") == "2,000 calls"
    assert labelled("note", "one two three", width=22) == ["note         one two", "             three"]
    assert ["a label of many ~ one two"] == labelled("a label of many letters", "one two", width=30)


# --- one call --------------------------------------------------------------------------------------------

ENTRY = Entry(
    id="E1",
    exchange_id="X1",
    purpose="answer",
    provider="anthropic",
    model=HAIKU,
    asked_at=second(18),
    status=200,
    usage=Usage(input_tokens=200, output_tokens=10, cache_read_input_tokens=1000),
    price_row="anthropic/claude-haiku-5-5@2026-10-07",
    cost_nusd=48_000,
    worst_nusd=90_000,
    certainty="exact",
    message_id="msg_01Ab",
    request_id="req_7",
)
MOVED = replace(
    CALL,
    id="X1",
    at=datetime(2026, 11, 18, 14, 2, 11, tzinfo=UTC).timestamp(),
    tag="triage",
    served=HAIKU,
    tier="haiku",
    decision_json='{"complexity":"simple","type":"classify","sure":true,"input_tokens":200,"max_tokens":null,'
    '"reasons":[["type","type: classify (\\"is this spam\\")","claude-opus-5-5","haiku"]]}',
    baseline_nusd=1_920_000,
    spent_nusd=48_000,
    saved_nusd=1_872_000,
    complexity="simple",
    task_type="classify",
)


def test_a_moved_call_is_explained_in_these_lines() -> None:
    assert why_lines(read_why(Story(MOVED, (ENTRY,)))) == [
        "call X1   18 Nov 2026 14:02:11 UTC",
        "asked        claude-opus-5-5    answered claude-haiku-5-5 (haiku)",
        "mode         enforce, policy 7f3a00c0ffee",
        "for          tag triage, type classify (sure), complexity simple, key prod",
        'why          type: classify ("is this spam") [type: claude-opus-5-5 -> haiku]',
        "checks       not run; same quality: not measured",
        "cost         $0.000048 (as asked $0.001920, saved $0.001872, re-priced)",
        "baseline     claude-opus-5-5, the model asked for",
        "tried        1. answer claude-haiku-5-5 200: 1,200 (1,000 from the prompt cache)",
        "             + 10 tokens, $0.000048 msg_01Ab req_7",
        "took         2.0 s",
        "text         not kept",
        "do           leastwise feedback X1 --bad    where this answer was bad: it counts",
        "             against haiku",
    ]


def test_an_observed_call_says_what_would_have_been() -> None:
    row = replace(
        MOVED, mode="observe", served=OPUS, tier="opus", would=HAIKU, could_nusd=1_872_000, tag="", key=""
    )

    why = read_why(Story(row, ()))

    assert why.next == "leastwise on --percent 10"
    assert "would        claude-haiku-5-5, saving $0.001872, quality unknown" in why_lines(why)
    assert why_lines(why)[-2:] == [
        "do           leastwise on --percent 10    a tenth of all calls go to the tier",
        "             that should do",
    ]


def test_a_call_that_stayed_has_nothing_to_undo() -> None:
    why = read_why(Story(replace(CALL, id="X1", would=OPUS), ()))

    assert (why.is_moved, why.could_move, why.next) == (False, False, "leastwise report --by tag")
    assert why_lines(why)[-1] == "do           leastwise report --by tag    where the money goes"


def test_an_answer_given_again_is_explained_as_such() -> None:
    why = '[["cached","answered before, by call X0","claude-opus-5-5","claude-haiku-5-5"]]'
    row = replace(
        MOVED,
        decision_json=f'{{"type":"","sure":true,"reasons":{why}}}',
        spent_nusd=0,
        saved_nusd=1_920_000,
        complexity="",
        task_type="",
        cache="hit",
    )

    assert why_lines(read_why(Story(row, ())))[3:] == [
        "for          tag triage, type not looked for, key prod",
        "why          answered before, by call X0 [cached: claude-opus-5-5 ->",
        "             claude-haiku-5-5]",
        "checks       not run; same quality: not measured",
        "cost         $0.00 (as asked $0.001920, saved $0.001920, re-priced)",
        "baseline     claude-opus-5-5, the model asked for",
        "took         2.0 s",
        "text         not in the ledger; answers that are kept: leastwise cache list",
        "do           leastwise cache clear --tag triage    where this answer was bad:",
        "             kept answers of tag triage are forgotten",
    ]


def test_why_tells_what_a_lost_prompt_cache_cost() -> None:
    why = read_why(Story(replace(MOVED, lost_cache_nusd=6_900), (ENTRY,)))

    assert "$0.000007 of it for a lost prompt cache" in " ".join(" ".join(why_lines(why)).split())
    assert Decimal("0.0000069") == why_json(why)["lost_cache_usd"]


def test_another_spelling_of_the_same_model_is_not_a_move() -> None:
    row = replace(
        CALL, asked="claude-haiku-4-5", baseline="claude-haiku-4-5", served="claude-haiku-4-5-20251001"
    )

    assert read_why(Story(row, ())).same_quality == "as asked"


def test_misfits_retries_cuts_and_faults_are_told_one_by_one() -> None:
    row = replace(
        MOVED,
        served="",
        tier="",
        result="cut",
        certainty="estimated",
        discarded_nusd=5_000,
        fault="reading: ValueError",
        baseline_how="assumed",
        decision_json='{"sure":false,"reasons":[["type","type: classify","opus","haiku"],'
        '["misfit","refused with 400: sent as received","claude-haiku-5-5","claude-opus-5-5"]]}',
    )
    refused = replace(ENTRY, status=400, usage=Usage(), cost_nusd=0, message_id="", request_id="")
    again = replace(ENTRY, id="E2", purpose="retry", parent="E1", status=0, certainty="estimated")

    lines = why_lines(read_why(Story(row, (refused, again))))

    assert lines[1:] == [
        "asked        claude-opus-5-5    answered by nobody",
        "mode         enforce, policy 7f3a00c0ffee",
        "for          tag triage, type classify (unsure), complexity simple, key prod",
        "why          type: classify [type: opus -> haiku]",
        "             refused with 400: sent as received [misfit: claude-haiku-5-5 ->",
        "             claude-opus-5-5]",
        "checks       not run; same quality: as asked",
        "cost         $0.000048 (as asked $0.001920); $0.000005 of it for answers nobody",
        "             got; estimated",
        "baseline     claude-opus-5-5, assumed: nobody said which model would have been",
        "             called",
        "tried        1. answer claude-haiku-5-5 400 (misfit): $0.00",
        "             2. retry claude-haiku-5-5 no answer: 1,200 (1,000 from the prompt",
        "             cache) + 10 tokens, $0.000048 estimated msg_01Ab req_7",
        "ended        the answer broke off, status 200",
        "! fault      reading: ValueError; the call went as asked",
        "took         2.0 s",
        "text         not kept",
        "do           leastwise report --by tag    where the money goes",
    ]


def test_json_of_a_call_has_every_attempt(store: SqliteStore) -> None:
    store.write(Settle(ENTRY), may_wait=True)
    store.write(Record(MOVED), may_wait=True)
    story = store.find("msg_01Ab")
    assert story is not None

    value = why_json(read_why(story))

    assert value["reasons"] == [
        {"code": "type", "words": 'type: classify ("is this spam")', "before": OPUS, "after": "haiku"}
    ]
    assert value["saved_usd"] == Decimal("0.001872")
    assert [attempt["request_id"] for attempt in value["attempts"]] == ["req_7"]
    assert value["attempts"][0]["usage"]["cache_read_input_tokens"] == 1000
    assert value["next"] == "leastwise feedback X1 --bad"


# --- checks ----------------------------------------------------------------------------------


def test_how_much_was_checked_and_escalated_is_one_line(store: SqliteStore) -> None:
    checked = replace(moved("triage", 40 * USD, 1 * USD), checked="accept")
    climbed = replace(moved("digest", 40 * USD, 50 * USD), checked="accept", escalations=1)
    keep(store, *[replace(checked, checks_nusd=USD)] * 6, checked, replace(climbed, checks_nusd=3 * USD))
    keep(store, replace(climbed, saved_nusd=1, tag="plan"), moved("plan", 1, 1))

    report = read_ledger(store, WEEK)
    lines = ledger_lines(report)

    assert "checked      90% of calls; 20% escalated: digest 100%, plan 50%" in lines
    assert "! loss       digest lost $10.00: checks" in lines
    total = ledger_json(report)["total"]
    assert (9, 2, Decimal(9)) == (total["checked_calls"], total["escalated_calls"], total["checks_usd"])
    alone = read_ledger(store, WEEK, by=("key",))
    assert "checked      90% of calls; 20% escalated" in ledger_lines(alone)


def test_a_tag_that_was_only_tried_is_no_share_of_what_escalated(store: SqliteStore) -> None:
    climbed = replace(moved("digest", 40 * USD, 50 * USD), checked="accept", escalations=1)
    tried = replace(CALL, at=second(17), tag="mail", kind="trial", mode="trial", spent_nusd=1_448_000)
    keep(store, climbed, replace(tried, saved_nusd=-1_448_000))

    lines = ledger_lines(read_ledger(store, WEEK))

    assert "checked      100% of calls; 100% escalated" in lines
    ((tag, calls, *_, quality),) = (line.split() for line in lines if line.startswith("mail"))
    assert ("mail", "0", "-") == (tag, calls, quality)


def test_what_is_in_the_sum_spent_is_never_broken_inside_an_item(store: SqliteStore) -> None:
    keep(store, replace(moved("mail", 50_000, 90_000), checks_nusd=1_000, discarded_nusd=50_000))

    lines = ledger_lines(read_ledger(store, WEEK))

    assert 'in "spent"   checks $0.000001   discarded answers $0.000050' in lines
    assert "             lost prompt cache $0.00" in lines


def test_where_the_cascade_loses_is_said_last(store: SqliteStore) -> None:
    fill(store)
    passed_by = PassedBy("summarise", "haiku", 310, 149, "begins at opus: haiku, 48% of 310 accepted")
    cascade = CascadeReport((passed_by,), interval(4, 31))

    report = read_ledger(store, WEEK, cascade=cascade)

    assert [
        "! no gain    summarise begins at opus: haiku, 48% of 310 accepted",
        "! planted    the judge accepted 4 of 31 planted bad answers",
    ] == ledger_lines(report)[-2:]
    assert {"accepted": 4, "asked": 31} == ledger_json(report)["cascade"]["planted"]


ESCALATED = replace(
    MOVED,
    id="X1",
    served=SONNET,
    tier="sonnet",
    checked="accept",
    escalations=1,
    spent_nusd=1_000_000,
    checks_nusd=300_000,
    discarded_nusd=25_000,
    decision_json='{"sure":true,"reasons":[["type","type: classify","auto","haiku"],'
    '["escalated","haiku not accepted (judge 2/5 (wrong)): sonnet asked, $0.000025 discarded",'
    f'"{HAIKU}","{SONNET}"]]}}',
)
VERDICTS = (
    Verdict("truncation", "accept", "not cut off", tier="haiku"),
    Verdict("schema", "accept", "as asked for", tier="haiku"),
    Verdict("judge", "escalate", "2/5 (wrong), 12% acceptable", 2.0, 0.12, 300_000, tier="haiku", stamp="s"),
    Verdict("judge", "escalate", "1/5", 1.0, tier="haiku", is_control=True),
    Verdict("truncation", "accept", "not cut off", tier="sonnet"),
    Verdict("judge", "abstain", "not asked: anthropic answers 500", blames=False, tier="sonnet"),
)
TRIED = (
    replace(ENTRY, model=HAIKU, cost_nusd=25_000),
    replace(ENTRY, model=SONNET, cost_nusd=300_000, purpose="judge"),
    replace(ENTRY, model=SONNET, cost_nusd=675_000),
)


def test_an_escalation_is_explained_check_by_check() -> None:
    why = read_why(Story(ESCALATED, TRIED, VERDICTS))
    lines = why_lines(why)

    assert 80 >= max(map(len, lines))
    assert [
        "checks       haiku   truncation, schema: accept. judge: 2/5 (wrong), 12%",
        "             acceptable -> escalate. judge, given a planted bad answer: 1/5 ->",
        "             escalate.",
        "             sonnet   truncation: accept. judge: not asked: anthropic answers",
        "             500 -> abstain. schema: not asked.",
        "             same quality: not measured",
        "cost         $0.001000 (as asked $0.001920, saved $0.001872, re-priced);",
        "             $0.000300 of it for judging; $0.000025 of it for answers nobody got",
    ] == lines[lines.index("checks       haiku   truncation, schema: accept. judge: 2/5 (wrong), 12%") :][:8]
    assert "do           leastwise feedback X1 --bad    where this answer was bad: it counts" == lines[-2]
    assert (HAIKU, SONNET, 25_000) == (
        why.escalations[0].before,
        why.escalations[0].after,
        why.escalations[0].discarded_nusd,
    )


def test_what_was_said_of_an_answer_is_told_and_then_the_tag_can_go_as_asked() -> None:
    said = (
        Feedback("X1", ok=True, source="tests", at=second(18), tier="haiku"),
        Feedback("X1", ok=False, source="user", at=second(19), tier="sonnet", note="wrong city"),
    )
    why = read_why(Story(ESCALATED, TRIED, VERDICTS, said))
    lines = why_lines(why)

    assert "feedback     18 Nov 2026 12:00:00 UTC, haiku's answer: ok, by tests" in lines
    assert "             19 Nov 2026 12:00:00 UTC, sonnet's answer: bad, by user: wrong city" in lines
    assert "leastwise off --tag triage" == why.next
    assert lines[-2:] == [
        "do           leastwise off --tag triage    where answers are bad: calls of tag",
        "             triage go as asked",
    ]


def test_a_model_that_judged_itself_is_marked_and_advice_is_no_judging() -> None:
    own = Verdict("judge", "accept", "5/5", 5.0, tier="haiku", is_self=True)
    row = replace(MOVED, checks_nusd=300_010, checked="accept", tier="")
    text = " ".join(" ".join(why_lines(read_why(Story(row, TRIED[1:2], (own,))))).split())

    assert "checks haiku judge: 5/5 -> accept, its own judge. same quality" in text
    assert "$0.000300 of it for judging; $0.000000 of it for a small model's advice" in text
    assert "it counts against that model" in text


def test_json_of_an_escalation_has_every_verdict() -> None:
    said = (Feedback("X1", ok=True, source="user", at=second(18), tier="sonnet"),)
    value = why_json(read_why(Story(ESCALATED, TRIED, VERDICTS, said)))

    assert 6 == len(value["checks"])
    assert {
        "check": "judge",
        "says": "escalate",
        "words": "2/5 (wrong), 12% acceptable",
        "score": 2.0,
        "probability": 0.12,
        "cost_usd": Decimal("0.0003"),
        "blames": True,
        "is_self": False,
        "tier": "haiku",
        "is_control": False,
        "stamp": "s",
    } == value["checks"][2]
    assert "accept" == value["checked"]
    assert [
        {
            "before": HAIKU,
            "after": SONNET,
            "discarded_usd": Decimal("0.000025"),
            "words": "haiku not accepted (judge 2/5 (wrong)): sonnet asked, $0.000025 discarded",
        }
    ] == value["escalations"]
    assert [(True, "user", "sonnet", datetime(2026, 11, 18, 12, tzinfo=UTC))] == [
        (one["ok"], one["source"], one["tier"], one["at"]) for one in value["feedback"]
    ]
