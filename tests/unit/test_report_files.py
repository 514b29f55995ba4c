"""Reports from files: the console's usage export, and Messages requests."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.errors import ConfigError, LogError
from leastwise.ladder import DEFAULT_LADDER
from leastwise.models import load_models
from leastwise.prices import PriceBook, Rate, load_prices
from leastwise.report import messages_log, usage_csv
from leastwise.report.files import kind_of
from leastwise.report.messages_log import (
    MessagesReport,
    messages_json,
    messages_lines,
    messages_rows,
    read_messages,
)
from leastwise.report.usage_csv import UsageReport, read_usage, usage_json, usage_lines, usage_rows
from leastwise.routing import Policy

DATA = Path(__file__).parents[1] / "data"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEADER = (DATA / "usage/november.csv").read_text("utf-8").splitlines()[0]
USD = 1_000_000_000


def usage(path: Path, bad: list[tuple[int, str]] | None = None, book: PriceBook | None = None) -> UsageReport:
    found: list[tuple[int, str]] = [] if bad is None else bad
    return read_usage(
        path,
        lambda line, fault: found.append((line, fault)),
        book=book or load_prices(),
        models=load_models(),
        ladder=DEFAULT_LADDER,
        now=NOW,
    )


def export(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "usage.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def row(
    model: str, *, day: str = "2026-11-02", kind: str = "standard", window: str = "≤ 200k", **counts: int
) -> str:
    names = ("no_cache", "write_5m", "write_1h", "read", "output", "searches")
    return ",".join(
        [day, model, "k", "w", kind, window, *(str(counts.get(name, 0)) for name in names), "global", ""]
    )


# --- which file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (HEADER.encode(), "usage"),
        (b"\xef\xbb\xbf" + HEADER.encode(), "usage"),
        (b'\n {"model": "x"}', "messages"),
    ],
)
def test_the_first_line_tells_what_a_file_is(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert kind_of(path) == kind


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the file is empty"),
        (b"[{}]", "one JSON array; write one object a line: jq -c"),
        (b"\x89PNG\r\n\x1a\n", "begins with"),
        (b"Date,Tokens\n1,2\n", "begins with 'Date,Tokens'. Accepted are the console's usage export"),
    ],
)
def test_an_unknown_file_is_told_what_is_accepted(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(LogError, match=fault) as caught:
        kind_of(path)
    assert "Accepted are" in str(caught.value)


def test_a_file_that_cannot_be_opened_says_which_and_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"

    for read in (kind_of, usage, messages):
        with pytest.raises(LogError, match=r"missing\.csv: No such file or directory; check the path"):
            read(missing)


# --- the console's usage export --------------------------------------------------------------------------


def test_a_usage_export_is_these_lines() -> None:
    # By hand: 10 M x 5 + 1 M x 6.25 + 4 M x 0.50 + 2 M x 25 = 108.25 for claude-opus-4-6. claude-opus-5-5:
    # 40 + (8 + 4 + 8) x 1.1 in the US + 100 searches at 0.01 + (0.4 + 0.4) x 2 in fast mode = 64.60.
    lines = usage_lines(usage(DATA / "usage/november.csv"), "november.csv")

    assert lines == [
        "leastwise report   november.csv   2-4 Nov 2026 UTC   console usage export",
        "spent $194.10 at list, each row at the price of its day, $13.00 of it in batches",
        "share of calls: unknown, this export counts tokens, not calls",
        "",
        "model               tokens in  tokens out  spent $  of money",
        "claude-opus-4-6    15,000,000   2,000,000   108.25       56%",
        "claude-opus-5-5     7,600,000   1,420,000    64.60       33%",
        "claude-sonnet-5-5   8,000,000   1,000,000    13.00        7%",
        "claude-haiku-5-5   40,000,000     500,000     4.25        2%",
        "claude-haiku-4-5    3,000,000     200,000     4.00        2%",
        "",
        "key          tokens in  tokens out  spent $  of money",
        "agent-prod  22,500,000   3,400,000   171.25       88%",
        "nightly     11,000,000   1,200,000    17.00        9%",
        "triage      40,100,000     520,000     5.85        3%",
        "",
        "day          tokens in  tokens out  spent $  of money",
        "2026-11-02  20,000,000   3,000,000   148.25       76%",
        "2026-11-03  10,500,000   1,400,000    36.00       19%",
        "2026-11-04  43,100,000     720,000     9.85        5%",
        "",
        "newest of its line                     list tokens would be $ the same text",
        "claude-opus-4-6    -> claude-opus-5-5  -20%   x1.3     111.54 +3.0%: no saving",
        "claude-haiku-4-5   -> claude-haiku-5-5 -90%   x1.3       0.52 -87.0%",
        "",
        "ceiling: $ saved if this share of the tokens moved down, at list of 23 Nov 2026;",
        "quality unknown",
        "tokens of  to        10%    25%    50%    100%  of the bill",
        "opus       haiku   16.75  41.87  83.73  167.47          86%",
        "opus       sonnet   8.47  21.17  42.34   84.68          44%",
        "sonnet     haiku    1.24   3.09   6.18   12.35           6%",
        "",
        "! prompts    claude-haiku-5-5: long prompts cost more there, and the export does",
        "             not tell their length. Priced as short ones",
        "",
        "no prompts here, so no task mix: record a day, in the program that calls:",
        '  leastwise.record(client, "calls.jsonl")',
    ]


def test_each_row_is_priced_at_the_list_of_its_own_day(tmp_path: Path) -> None:
    before = row("claude-sonnet-5-5", day="2026-10-06", read=1_000_000)
    after = row("claude-sonnet-5-5", day="2026-10-07", read=1_000_000)

    report = usage(export(tmp_path, before, after))

    assert [spent.nusd for spent in report.groups["day"]] == [200_000_000, 100_000_000]


def test_a_days_tokens_are_not_one_long_prompt_unless_the_export_says_so(tmp_path: Path) -> None:
    short = row("claude-sonnet-4-5", no_cache=10_000_000)
    long = row("claude-sonnet-4-5", no_cache=10_000_000, window="> 200k")

    report = usage(export(tmp_path, short, long))

    assert report.total.nusd == (30 + 60) * USD


def test_the_trap_of_the_tokenizer_is_computed(tmp_path: Path) -> None:
    half = row("claude-opus-4-6", no_cache=500_000, output=50_000)

    report = usage(export(tmp_path, half, half))

    (upgrade,) = report.upgrades
    assert (upgrade.move.source, upgrade.move.target) == ("claude-opus-4-6", "claude-opus-5-5")
    assert round(upgrade.rate_change, 4) == -0.2
    assert upgrade.tokens_ratio == 1.3
    # 5 + 2.5 before; 1.3 x (4 + 2) after.
    assert (upgrade.move.spent_nusd, upgrade.move.would_nusd) == (7_500_000_000, 7_800_000_000)
    assert upgrade.move.saved_nusd == -300_000_000


def test_the_ceiling_moves_every_line_down_at_most(tmp_path: Path) -> None:
    report = usage(
        export(
            tmp_path, row("claude-opus-5-5", no_cache=1_000_000), row("claude-sonnet-5-5", output=1_000_000)
        )
    )

    assert [(move.source, move.target, move.spent_nusd, move.would_nusd) for move in report.ceilings] == [
        ("sonnet", "haiku", 10 * USD, USD // 2),
        ("opus", "haiku", 4 * USD, USD // 10),
        ("opus", "sonnet", 4 * USD, 2 * USD),
    ]


def test_a_model_of_unknown_age_is_no_upgrade_of_anything(tmp_path: Path) -> None:
    report = usage(export(tmp_path, row("claude-fable-5-2", no_cache=1_000_000)))

    assert report.upgrades == ()
    assert [move.target for move in report.ceilings] == ["haiku", "sonnet", "opus"]


def test_fast_mode_is_not_charged_where_it_is_not_sold(tmp_path: Path) -> None:
    fast = row("claude-opus-5-5", no_cache=1_000_000) + "fast"

    report = usage(export(tmp_path, fast))

    assert report.total.nusd == 8 * USD
    assert report.ceilings[0].would_nusd == USD // 10


def test_bad_lines_are_told_by_number_and_the_rest_is_counted() -> None:
    bad: list[tuple[int, str]] = []

    report = usage(DATA / "usage/broken.csv", bad)

    assert bad == [
        (3, "usage_date_utc: expected a day such as 2026-11-03, got 'yesterday'"),
        (4, "model_version is empty"),
        (5, "usage_input_tokens_no_cache: expected a whole number from 0, got '1.5e6'"),
        (6, "the line ends before usage_input_tokens_no_cache"),
    ]
    assert report.total.nusd == 12 * USD
    assert report.bad_lines == 4
    assert "! unread     4 lines, named on stderr with the reason" in usage_lines(report, "broken.csv")


def test_a_model_without_a_price_is_listed_and_in_no_sum() -> None:
    report = usage(DATA / "usage/broken.csv")

    assert [(spent.name, spent.rows, spent.input_tokens) for spent in report.unpriced] == [
        ("some-new-model", 1, 700)
    ]
    assert "! no price   some-new-model: 1 row, 750 tokens, in no sum above. Add a [[price]]" in usage_lines(
        report, ""
    )
    free = PriceBook(load_prices().rates, unpriced="allow")
    assert usage(DATA / "usage/broken.csv", book=free).unpriced == report.unpriced


def test_a_file_of_unpriced_models_only_still_says_so(tmp_path: Path) -> None:
    report = usage(export(tmp_path, row("some-new-model", output=5)))

    assert (report.first, report.last) == (None, None)
    assert usage_lines(report, "u.csv")[:2] == [
        "leastwise report   u.csv   no priced row   console usage export",
        "spent $0.00 at list, each row at the price of its day",
    ]


def test_columns_may_be_missing_where_older_exports_lack_them(tmp_path: Path) -> None:
    header = "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens"

    report = usage(export(tmp_path, "2026-11-02,claude-opus-5-5,1000000,0", header=header))

    assert report.total.nusd == 4 * USD
    assert [spent.name for spent in report.groups["key"]] == ["(none)"]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("usage_date_utc,model,token_type,cost_usd", "the console's cost export; download the usage export"),
        (
            "usage_date_utc,model_version,usage_output_tokens",
            "the column usage_input_tokens_no_cache is missing",
        ),
        (HEADER, "no row could be read"),
    ],
)
def test_an_export_without_what_is_needed_is_refused(tmp_path: Path, header: str, fault: str) -> None:
    with pytest.raises(LogError, match=fault):
        usage(export(tmp_path, header=header))


def test_long_lists_are_cut_unless_asked_for(tmp_path: Path) -> None:
    rows = [row("claude-opus-5-5", day=f"2026-11-{day:02}", no_cache=day * 1_000_000) for day in range(1, 12)]

    report = usage(export(tmp_path, *rows))

    assert "... and 3 days more, $24.00: --by day shows all" in usage_lines(report, "")
    in_full = usage_lines(report, "", ["day"])
    assert 11 == sum(line.startswith("2026-11-") for line in in_full)
    assert not any(line.startswith("key") for line in in_full)


def test_usage_groupings_that_do_not_exist_are_refused() -> None:
    assert usage_csv.check_groups(["day", "workspace"]) == ("day", "workspace")
    with pytest.raises(ConfigError, match="--by tag: a usage export is summed by model, key, day, workspace"):
        usage_csv.check_groups(["tag"])


def test_usage_for_machines_has_the_same_sums() -> None:
    report = usage(DATA / "usage/november.csv")

    value = usage_json(report, "november.csv")
    header, first, *_ = usage_rows(report, ["workspace"])

    assert value["total"]["spent_usd"] == Decimal("194.1")
    assert value["share_of_calls"] is None
    assert value["first_day"] == date(2026, 11, 2)
    assert value["upgrades"][0]["list_price_change"] == -0.2
    assert header == list(usage_csv.CSV_COLUMNS)
    assert first == ["workspace", "Default", "6", "71100000", "4720000", "171.1", "13", "0.881504"]


# --- Messages requests -----------------------------------------------------------------------------------


def messages(
    path: Path,
    bad: list[tuple[int, str]] | None = None,
    policy: Policy | None = None,
    book: PriceBook | None = None,
) -> MessagesReport:
    found: list[tuple[int, str]] = [] if bad is None else bad
    return read_messages(
        path,
        lambda line, fault: found.append((line, fault)),
        ladder=DEFAULT_LADDER,
        policy=policy or Policy(),
        book=book or load_prices(),
        models=load_models(),
        now=NOW,
    )


def log(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def asked(model: str = "claude-opus-5-5", text: str = "Is this spam? Win!", **members: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2048, "messages": [{"role": "user", "content": text}], **members}


def answered(model: str = "claude-opus-5-5", *blocks: dict[str, Any]) -> dict[str, Any]:
    used = {"input_tokens": 1000, "output_tokens": 100}
    return {"id": "msg_1", "model": model, "content": list(blocks), "usage": used}


def test_a_file_of_requests_is_these_lines() -> None:
    lines = messages_lines(messages(DATA / "logs/calls.jsonl"), "calls.jsonl")

    assert lines == [
        "leastwise report   calls.jsonl   2-3 Nov 2026 UTC   7 calls",
        "spent $0.11 at list; could save $0.002426 (2%) at list of 23 Nov 2026, quality",
        "unknown",
        "could move   43% of calls, 2% of the money",
        "unsure       14% of calls, 18% of the money: stays as asked",
        "",
        "asked             would go to                calls   %  spent $   % could save $",
        "claude-opus-5-5   haiku                          3 43% 0.002488  2%     0.002426",
        "claude-opus-5-5   stays: the task needs it       1 14% 0.082000 75%     0.000000",
        "claude-opus-5-5   stays: unsure                  1 14% 0.019600 18%     0.000000",
        "claude-opus-5-5   stays: answers a tool call     1 14% 0.003800  3%     0.000000",
        "claude-sonnet-4-6 stays: does not fit            1 14% 0.000750  1%     0.000000",
        "",
        "cannot move  1 call: does not fit sonnet: not known to be safe to move:",
        "             container",
        "! estimated  1 call without an answer in the file, priced by the prompt alone:",
        "             real sums are higher",
        "! undated    1 call, priced at today's list",
        "! failed     1 call ended in an error, in no sum above",
        "! no price   llama3.2: 1 call in no sum above. Add a [[price]] row to",
        "             leastwise.toml",
    ]


def test_bad_lines_of_requests_are_told_by_number() -> None:
    bad: list[tuple[int, str]] = []

    report = messages(DATA / "logs/broken.jsonl", bad)

    assert bad == [
        (2, "not JSON: Input data was truncated"),
        (3, "expected an object, got list"),
        (4, "model: expected a string, got None"),
        (5, "at: expected a time such as 2026-11-03T14:02:11Z, got 'noon'"),
    ]
    assert report.total.calls == 2
    assert (
        messages_lines(report, "broken.jsonl")[-1] == "! unread     4 lines, named on stderr with the reason"
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"request": 7}', "request: expected an object, got int"),
        (b'{"model": "m", "messages": "\xff"}', "not JSON: "),
        (
            b'{"model": "m", "messages": [{"role": "user", "content": 7}]}',
            "messages[0]: expected an object with",
        ),
    ],
)
def test_no_line_stops_the_reading(tmp_path: Path, line: bytes, fault: str) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(line + b"\n" + json.dumps(asked()).encode())
    bad: list[tuple[int, str]] = []

    assert messages(path, bad).total.calls == 1
    ((number, told),) = bad
    assert number == 1
    assert fault in told


def test_a_file_without_one_good_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="not one of 2 lines could be read"):
        messages(log(tmp_path, [], 7))


def test_what_would_move_is_priced_at_todays_list(tmp_path: Path) -> None:
    at = "2026-09-30T00:00:00"  # before haiku 5.5 was sold; a time without a zone is UTC
    report = messages(log(tmp_path, {"at": at, "request": asked(), "response": answered()}))

    (flow,) = report.flows
    assert (flow.asked, flow.goes_to, flow.calls) == ("claude-opus-5-5", "haiku", 1)
    assert (flow.spent_nusd, flow.could_nusd) == (6_000_000, 6_000_000 - 150_000)
    assert report.first == date(2026, 9, 30)


def test_the_rest_of_a_tool_loop_stays_with_the_model_that_would_have_begun_it(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"}
    begun = asked(text="Is this spam? Look it up")
    turns = [
        *begun["messages"],
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    first = {"request": begun, "response": answered("claude-opus-5-5", call)}
    second = {"request": {**begun, "messages": turns}, "response": answered()}

    assert [(flow.goes_to, flow.calls) for flow in messages(log(tmp_path, first, second)).flows] == [
        ("haiku", 2)
    ]
    assert [flow.why for flow in messages(log(tmp_path, second)).flows] == ["answers a tool call"]


def test_only_so_many_tool_calls_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_log, "_MOST_PINS", 1)
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "lookup", "input": {}} for n in range(3)]
    result = {"type": "tool_result", "tool_use_id": "toolu_0", "content": "42"}
    turns = [
        *asked()["messages"],
        {"role": "assistant", "content": calls[:1]},
        {"role": "user", "content": [result]},
    ]
    first = {"request": asked(), "response": answered("claude-opus-5-5", *calls)}
    second = {"request": {**asked(), "messages": turns}, "response": answered()}

    assert [flow.why for flow in messages(log(tmp_path, first, second)).flows] == ["", "answers a tool call"]


def test_a_call_that_was_routed_already_is_asked_of_the_model_that_answered(tmp_path: Path) -> None:
    routed = {"request": asked("auto"), "response": answered("claude-haiku-5-5")}
    unanswered = {"request": asked("auto")}

    flows = messages(log(tmp_path, routed, unanswered)).flows

    assert [(flow.asked, flow.goes_to, flow.why) for flow in flows] == [
        ("claude-opus-5-5", "haiku", ""),
        ("claude-haiku-5-5", "", "its model is cheap enough"),
    ]


def test_calls_without_an_answer_are_priced_by_their_prompt(tmp_path: Path) -> None:
    report = messages(log(tmp_path, asked(), {"request": asked("claude-opus-4-6"), "response": None}))

    assert report.estimated == 2
    assert report.undated == 2
    assert 0 < report.total.spent_nusd < 1_000_000
    assert "no dates, so at today's list" in messages_lines(report, "calls.jsonl")[0]


def test_errors_and_models_without_a_price_are_counted_apart(tmp_path: Path) -> None:
    failed = {"request": asked(), "error": "RateLimitError: 429"}
    local = {"request": asked("llama3.2"), "response": answered("llama3.2")}
    free = PriceBook(load_prices().rates, unpriced="allow")

    for book in (None, free):
        report = messages(log(tmp_path, failed, local, asked()), book=book)
        assert (report.failed, report.unpriced, report.total.calls) == (1, (("llama3.2", 1),), 1)


def test_a_part_of_an_answer_without_a_price_puts_the_call_apart(tmp_path: Path) -> None:
    parts = [{"type": "message", "model": "some-new-model", "input_tokens": 5}]
    answer = answered()
    answer["usage"]["iterations"] = parts

    report = messages(log(tmp_path, {"request": asked(), "response": answer}))

    assert (report.unpriced, report.total.calls) == ((("some-new-model", 1),), 0)
    assert (
        messages_lines(report, "c.jsonl")[0]
        == "leastwise report   c.jsonl   no dates, so at today's list   0 calls"
    )


def test_a_model_that_is_no_longer_sold_stays(tmp_path: Path) -> None:
    shipped = load_prices()
    ended = Rate.read({"model": "gone", "input": 9, "output": 9, "until": date(2026, 11, 10)})
    lines = {"at": "2026-11-02T00:00:00Z", "request": asked("gone"), "response": answered("gone")}

    report = messages(log(tmp_path, lines), book=PriceBook((*shipped.rates, ended)))

    assert [(flow.asked, flow.goes_to, flow.why) for flow in report.flows] == [
        ("gone", "", "its model is cheap enough")
    ]


def test_reasons_that_bar_a_move_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [{**asked(), name: {}} for name in ("container", "mcp_servers", "fallbacks", "thread")]

    report = messages(log(tmp_path, *requests, requests[0]))

    assert report.unfit[0] == ("does not fit sonnet: not known to be safe to move: container", 2)
    assert [flow.why for flow in report.flows] == ["does not fit"]
    assert "             and 1 reason more: --json has all" in messages_lines(report, "")
    monkeypatch.setattr(messages_log, "_MOST_FAULTS", 1)
    assert len(messages(log(tmp_path, *requests)).unfit) == 1


def test_requests_cannot_be_grouped() -> None:
    messages_log.refuse_groups([])
    with pytest.raises(ConfigError, match="--by tag: a file of requests is summed by where they would go"):
        messages_log.refuse_groups(["tag"])


def test_requests_for_machines_have_the_same_sums() -> None:
    report = messages(DATA / "logs/calls.jsonl")

    value = messages_json(report, "calls.jsonl")
    header, *rows = messages_rows(report)

    assert value["total"]["calls"] == sum(flow["calls"] for flow in value["flows"]) == 7
    assert value["total"]["spent_usd"] == sum(flow["spent_usd"] for flow in value["flows"])
    assert value["failed_calls"] == 1
    assert header == list(messages_log.CSV_COLUMNS)
    assert rows[0] == ["claude-opus-5-5", "haiku", "", "3", "0.428571", "0.002488", "0.022902", "0.0024258"]
