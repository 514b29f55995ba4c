"""Golden prices. Every expected number is worked out in the comment beside it.

$1 per million tokens is 1,000 nano-dollars (n$) a token.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from leastwise.errors import ConfigError, UnknownPriceError
from leastwise.ladder import DEFAULT_LADDER, Ladder, Tier
from leastwise.messages import Usage
from leastwise.models import load_models
from leastwise.prices import (
    Cost,
    PriceBook,
    Rate,
    baseline_cost,
    cheaper_tiers,
    check_ladder,
    cost,
    load_prices,
    worst_case,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOOK = load_prices()
LOCAL = Rate.read({"provider": "ollama", "model": "llama3", "input": 0, "output": 0})


def nusd(usage: Usage | dict[str, Any], model: str, at: datetime = NOW, *, is_batch: bool = False) -> int:
    counts = usage if isinstance(usage, Usage) else Usage.read(usage)
    return cost(counts, model, at, BOOK, is_batch=is_batch).nusd


# --- whole usage objects, as the API gives them ---------------------------------------------


def test_a_short_answer() -> None:
    usage = {
        "input_tokens": 412,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"thinking_tokens": 40},
        "service_tier": "standard",
        "speed": "standard",
        "inference_geo": "global",
    }

    # 412 x 100 n$ = 41,200; 87 x 500 n$ = 43,500; thinking is part of the 87
    assert Cost(84_700, "anthropic/claude-haiku-5-5@2026-10-07") == cost(
        Usage.read(usage), "claude-haiku-5-5", NOW, BOOK
    )


STARTED = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 3_200,
    "cache_read_input_tokens": 41_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1_200, "ephemeral_1h_input_tokens": 2_000},
    "output_tokens": 1,
    "service_tier": "standard",
}


def test_a_stream_with_both_kinds_of_cache_writes() -> None:
    usage = Usage.read(STARTED).merge({"output_tokens": 655})

    # 12 x 2,000 = 24,000; 5m 1,200 x 2,500 = 3,000,000; 1h 2,000 x 4,000 = 8,000,000;
    # read 41,000 x 100 = 4,100,000; out 655 x 10,000 = 6,550,000
    assert nusd(usage, "claude-sonnet-5-5") == 21_674_000


def test_the_same_stream_before_sonnet_5_5s_cache_reads_were_halved() -> None:
    usage = Usage.read(STARTED).merge({"output_tokens": 655})

    # read 41,000 x 200 = 8,200,000 in place of 4,100,000
    assert nusd(usage, "claude-sonnet-5-5", datetime(2026, 10, 6, 23, 59, tzinfo=UTC)) == 25_774_000
    assert nusd(usage, "claude-sonnet-5-5", datetime(2026, 10, 7, tzinfo=UTC)) == 21_674_000


def test_the_day_is_utcs() -> None:
    usage = Usage(cache_read_input_tokens=1)
    new_york = timezone(timedelta(hours=-5))

    # 20:00 on the 6th in New York is 01:00 on the 7th in UTC
    assert nusd(usage, "claude-sonnet-5-5", datetime(2026, 10, 6, 20, tzinfo=new_york)) == 100
    assert nusd(usage, "claude-sonnet-5-5", datetime(2026, 10, 6, 18, tzinfo=new_york)) == 200


def test_a_write_that_older_replies_do_not_split_is_for_five_minutes() -> None:
    # 1,000 x 6,250 n$
    assert nusd({"cache_creation_input_tokens": 1_000}, "claude-opus-4-5-20251101") == 6_250_000


# 1,000 x 4,000 = 4,000,000 and 500 x 20,000 = 10,000,000: 14,000,000 n$ on Opus 5.5
OPUS_CALL = {"input_tokens": 1_000, "output_tokens": 500}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 14_000_000),
        ({"speed": "fast"}, 28_000_000),  # x 2
        ({"inference_geo": "us"}, 15_400_000),  # x 1.1
        ({"inference_geo": "US"}, 15_400_000),
        ({"inference_geo": "global"}, 14_000_000),
        ({"inference_geo": "not_available"}, 14_000_000),
        ({"speed": "fast", "inference_geo": "us"}, 30_800_000),  # x 2 x 1.1
        ({"service_tier": "batch"}, 7_000_000),  # x 0.5
        ({"service_tier": "priority"}, 14_000_000),
        ({"service_tier": "batch", "inference_geo": "us"}, 7_700_000),  # x 0.5 x 1.1
        ({"server_tool_use": {"web_search_requests": 3}}, 44_000_000),  # + 3 x 10,000,000
        ({"server_tool_use": {"web_search_requests": 3}, "service_tier": "batch"}, 37_000_000),
        ({"server_tool_use": {"web_search_requests": 3}, "speed": "fast"}, 58_000_000),
        ({"server_tool_use": {"web_fetch_requests": 9}}, 14_000_000),  # fetching is free
        ({"a_count_of_next_year": 7}, 14_000_000),
    ],
    ids=str,
)
def test_multipliers_and_fees(more: dict[str, Any], expected: int) -> None:
    assert expected == nusd(OPUS_CALL | more, "claude-opus-5-5")


def test_a_batch_is_told_or_says_so_and_is_halved_once() -> None:
    assert nusd(OPUS_CALL, "claude-opus-5-5", is_batch=True) == 7_000_000
    assert nusd(OPUS_CALL | {"service_tier": "batch"}, "claude-opus-5-5", is_batch=True) == 7_000_000


def test_a_fast_answer_is_doubled_even_where_fast_mode_is_not_listed() -> None:
    assert not BOOK.rate("claude-haiku-4-5", NOW).has_fast
    # 1,000 x 1,000 + 500 x 5,000 = 3,500,000; x 2
    assert nusd(OPUS_CALL | {"speed": "fast"}, "claude-haiku-4-5") == 7_000_000


def test_no_usage_costs_nothing() -> None:
    assert nusd({}, "claude-opus-5-5") == 0


# --- the reference's daily sums: 100,000 classifications of 200 + 10 tokens -------------------


@pytest.mark.parametrize(
    ("model", "is_batch", "dollars"),
    [
        # 200 x 4,000 + 10 x 20,000 = 1,000,000 n$ a call
        ("claude-opus-5-5", False, 100),
        # 200 x 100 + 10 x 500 = 25,000
        ("claude-haiku-5-5", False, "2.5"),
        # 200 x 2,000 + 10 x 10,000 = 500,000
        ("claude-sonnet-5-5", False, 50),
        # 200 x 5,000 + 10 x 25,000 = 1,250,000
        ("claude-opus-4-6", False, 125),
        # 200 x 1,000 + 10 x 5,000 = 250,000
        ("claude-haiku-4-5", False, 25),
        # half of 25,000
        ("claude-haiku-5-5", True, "1.25"),
    ],
)
def test_the_references_day(model: str, is_batch: bool, dollars: int | str) -> None:  # noqa: FBT001
    per_call = nusd(Usage(200, 10), model, is_batch=is_batch)

    assert Decimal(dollars) * 1_000_000_000 == per_call * 100_000


# --- long prompts ---------------------------------------------------------------------------


def test_haiku_5_5s_cliff_moves_the_whole_request() -> None:
    # 100,000 x 100 = 10,000,000 n$; 100,001 x 500 = 50,000,500 n$
    assert nusd(Usage(100_000), "claude-haiku-5-5") == 10_000_000
    assert nusd(Usage(100_001), "claude-haiku-5-5") == 50_000_500
    # and the output with it: 1,000 x 500 below, 1,000 x 2,500 above
    assert nusd(Usage(100_000, 1_000), "claude-haiku-5-5") == 10_500_000
    assert nusd(Usage(100_001, 1_000), "claude-haiku-5-5") == 52_500_500


def test_cached_tokens_count_toward_the_cliff_and_output_does_not() -> None:
    below = Usage(10_000, 90_000, 60_000, 20_000, 10_000)
    above = replace(below, cache_read_input_tokens=60_001)

    # 10,000 x 100 + 90,000 x 500 + 60,000 x 10 + 20,000 x 125 + 10,000 x 200
    #   = 1,000,000 + 45,000,000 + 600,000 + 2,500,000 + 2,000,000
    assert nusd(below, "claude-haiku-5-5") == 51_100_000
    # five times all of it, and one more token read at 50
    assert Cost(255_500_050, "anthropic/claude-haiku-5-5@2026-10-07>100000") == cost(
        above, "claude-haiku-5-5", NOW, BOOK
    )


@pytest.mark.parametrize(
    ("model", "day", "prompt", "expected"),
    [
        ("claude-opus-4-6", (2026, 3, 12), 200_000, 1_000_000_000),  # x 5,000
        ("claude-opus-4-6", (2026, 3, 12), 200_001, 2_000_010_000),  # x 10,000
        ("claude-opus-4-6", (2026, 3, 13), 200_001, 1_000_005_000),  # x 5,000: the premium ended
        ("claude-sonnet-4-6", (2026, 3, 12), 200_001, 1_200_006_000),  # x 6,000
        ("claude-sonnet-4-6", (2026, 3, 13), 200_001, 600_003_000),  # x 3,000
        ("claude-sonnet-4-5", (2026, 1, 5), 200_001, 1_200_006_000),  # x 6,000, the 1M beta
        ("claude-sonnet-5-5", (2026, 11, 1), 900_000, 1_800_000_000),  # x 2,000, flat
    ],
)
def test_older_long_prompts(model: str, day: tuple[int, int, int], prompt: int, expected: int) -> None:
    assert expected == nusd(Usage(prompt), model, datetime(*day, 9, tzinfo=UTC))


# --- answers that ran in parts ----------------------------------------------------------------


def test_a_fallback_is_priced_model_by_model() -> None:
    usage = {
        "input_tokens": 900,
        "output_tokens": 300,
        "iterations": [
            {"type": "message", "model": "claude-fable-5-2", "input_tokens": 900, "output_tokens": 0},
            {
                "type": "fallback_message",
                "model": "claude-opus-5-5",
                "input_tokens": 900,
                "output_tokens": 300,
            },
        ],
    }

    # 900 x 8,000 = 7,200,000; 900 x 4,000 + 300 x 20,000 = 9,600,000; the top level is not added
    assert Cost(
        16_800_000,
        "anthropic/claude-fable-5-2@2026-11-01+anthropic/claude-opus-5-5@2026-09-22",
    ) == cost(Usage.read(usage), "claude-opus-5-5", NOW, BOOK)


COMPACTION = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500}


@pytest.mark.parametrize("lists_the_message", [True, False])
def test_compaction_comes_on_top(lists_the_message: bool) -> None:  # noqa: FBT001
    message = {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000}
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1_000,
        "iterations": [COMPACTION, message] if lists_the_message else [COMPACTION],
    }

    # 180,000 x 4,000 + 3,500 x 20,000 = 790,000,000; 23,000 x 4,000 + 1,000 x 20,000 = 112,000,000
    assert Cost(902_000_000, "anthropic/claude-opus-5-5@2026-09-22") == cost(
        Usage.read(usage), "claude-opus-5-5", NOW, BOOK
    )


def test_each_turn_of_a_server_tool_loop_has_its_own_prompt_length() -> None:
    turn = {"type": "message", "input_tokens": 60_000, "output_tokens": 100}
    usage = {
        "input_tokens": 120_000,
        "output_tokens": 200,
        "server_tool_use": {"web_search_requests": 1},
        "inference_geo": "us",
        "iterations": [turn, turn],
    }

    # twice 60,000 x 100 + 100 x 500 = 6,050,000, below the cliff; x 1.1 = 13,310,000; one search
    assert nusd(usage, "claude-haiku-5-5") == 23_310_000


# --- rounding, discount -------------------------------------------------------------------------


def test_one_rounding_half_to_even() -> None:
    # a 5m write on Haiku 5.5 is 125 n$, in a batch 62.5: rounded to 62; three are 187.5: 188
    assert nusd(Usage(cache_write_5m_tokens=1), "claude-haiku-5-5", is_batch=True) == 62
    assert nusd(Usage(cache_write_5m_tokens=3), "claude-haiku-5-5", is_batch=True) == 188


def test_a_discount_is_applied_inside_the_one_rounding() -> None:
    book = replace(BOOK, discount=Decimal("0.15"))

    # 84,700 x 0.85
    assert cost(Usage(412, 87), "claude-haiku-5-5", NOW, book).nusd == 71_995
    # 62.5 x 0.85 = 53.125
    assert cost(Usage(cache_write_5m_tokens=1), "claude-haiku-5-5", NOW, book, is_batch=True).nusd == 53
    # searches too: 10,000,000 x 0.85
    assert cost(Usage(web_search_requests=1), "claude-haiku-5-5", NOW, book).nusd == 8_500_000


@pytest.mark.parametrize("discount", ["-0.1", "1.1", "15"])
def test_a_discount_is_a_share(discount: str) -> None:
    with pytest.raises(ConfigError, match=rf"discount = {discount}: expected a share"):
        replace(BOOK, discount=Decimal(discount))


# --- finding the row ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "claude-haiku-4-5@20251001",
    ],
)
def test_ids_are_found_in_every_spelling(spelling: str) -> None:
    assert BOOK.rate(spelling, NOW).id == "anthropic/claude-haiku-4-5@2025-10-15"


def test_every_known_model_has_a_price_while_it_can_be_called() -> None:
    days = {model.id: model.released or date(2026, 11, 20) for model in load_models()}

    assert [] == [
        model
        for model, day in days.items()
        if not BOOK.has(model, datetime(*day.timetuple()[:3], tzinfo=UTC))
    ]


def test_row_ids_are_unique() -> None:
    assert len(BOOK.rates) == len({rate.id for rate in BOOK.rates})


def test_an_unknown_model_is_an_error_that_says_how_to_mend_it() -> None:
    with pytest.raises(UnknownPriceError, match=r"no price for model 'claude-opus-9' .* \[\[price\]\] row"):
        cost(Usage(1), "claude-opus-9", NOW, BOOK)
    assert not BOOK.has("claude-opus-9", NOW)


def test_a_model_has_no_price_before_it_came_out() -> None:
    with pytest.raises(UnknownPriceError):
        BOOK.rate("claude-haiku-5-5", datetime(2026, 10, 6, tzinfo=UTC))


def test_unpriced_models_may_be_allowed_aloud() -> None:
    book = replace(BOOK, unpriced="allow")

    assert Cost(0, "anthropic/claude-opus-9@2026-11-23") == cost(Usage(9, 9), "claude-opus-9", NOW, book)
    assert book.rate("claude-opus-9", NOW).source == "unpriced"
    assert not book.has("claude-opus-9", NOW)


def test_a_time_without_a_zone_is_refused() -> None:
    naive = NOW.replace(tzinfo=None)

    with pytest.raises(ValueError, match="no time zone"):
        cost(Usage(1), "claude-opus-5-5", naive, BOOK)
    with pytest.raises(ValueError, match="no time zone"):
        cost(Usage(1), "claude-opus-9", naive, replace(BOOK, unpriced="allow"))


def override(**row: Any) -> Rate:
    return Rate.read({"model": "claude-haiku-5-5", "input": "0.08", "output": "0.40", **row})


def test_configured_rates_win_for_prompts_of_every_length() -> None:
    book = BOOK.with_rates([override()])

    # 1,000 x 80 n$; 200,000 x 80 n$
    assert cost(Usage(1_000), "claude-haiku-5-5", NOW, book).nusd == 80_000
    assert cost(Usage(200_000), "claude-haiku-5-5", NOW, book).nusd == 16_000_000
    assert BOOK.rate("claude-opus-5-5", NOW) == book.rate("claude-opus-5-5", NOW)


def test_a_configured_rate_is_found_by_any_spelling_of_its_model() -> None:
    book = BOOK.with_rates([override(model="claude-haiku-4-5-20251001")])

    assert book.rate("claude-haiku-4-5", NOW).input == 80_000_000


def test_configured_rates_hold_on_their_days_only() -> None:
    book = BOOK.with_rates([override(since=date(2026, 11, 1), until=date(2026, 11, 23))])

    assert [100_000_000, 80_000_000, 100_000_000] == [
        book.rate("claude-haiku-5-5", datetime(2026, month, day, tzinfo=UTC)).input
        for month, day in [(10, 31), (11, 22), (11, 23)]
    ]


def test_among_overrides_the_newer_list_wins_then_the_last_one_given() -> None:
    newer = BOOK.with_rates([override(input="0.07", since=date(2026, 1, 1))]).with_rates([override()])
    last = BOOK.with_rates([override()]).with_rates([override(input="0.06")])

    assert newer.rate("claude-haiku-5-5", NOW).input == 70_000_000
    assert last.rate("claude-haiku-5-5", NOW).input == 60_000_000


def test_a_provider_without_rows_is_charged_as_anthropic_and_one_with_rows_is_not() -> None:
    book = BOOK.with_rates([LOCAL])

    assert BOOK.rate("claude-opus-5-5", NOW) == book.rate("claude-opus-5-5", NOW, provider="proxy")
    assert Cost(0, "ollama/llama3@2020-01-01") == cost(Usage(9, 9), "llama3", NOW, book, provider="ollama")
    assert not book.has("claude-opus-5-5", NOW, "ollama")
    assert not book.has("llama3", NOW)


# --- reading rows -------------------------------------------------------------------------------


def test_a_row_says_all_and_dollars_are_exact() -> None:
    row = {
        "provider": "bedrock",
        "model": "claude-opus-5-5",
        "since": date(2026, 9, 22),
        "until": date(2027, 1, 1),
        "prompt_over": 100,
        "input": "4.4",
        "output": Decimal(22),
        "cache_read": 0.22,
        "cache_write_5m": "5.5",
        "cache_write_1h": "8.8",
        "has_fast": True,
        "source": "the contract",
        "as_of": date(2026, 11, 1),
    }

    rate = Rate.read(row)

    assert (4_400_000_000, 22_000_000_000, 220_000_000) == (rate.input, rate.output, rate.cache_read)
    assert (5_500_000_000, 8_800_000_000) == (rate.cache_write_5m, rate.cache_write_1h)
    assert ("the contract", date(2026, 11, 1), True) == (rate.source, rate.as_of, rate.has_fast)
    assert rate.id == "bedrock/claude-opus-5-5@2026-09-22>100"


def test_a_row_may_leave_the_cache_to_the_usual_multiples() -> None:
    rate = Rate.read({"model": "glm-9", "input": 1, "output": 4})

    assert ("anthropic", "leastwise.toml") == (rate.provider, rate.source)
    assert (1_000_000_000, 1_250_000_000, 2_000_000_000) == (
        rate.cache_read,
        rate.cache_write_5m,
        rate.cache_write_1h,
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input": 1, "output": 2}, "None: model is missing"),
        ({"model": "x", "output": 2}, "'x': input is missing"),
        ({"model": "x", "input": 1, "output": 2, "inputs": 3}, "'x': unknown key 'inputs'; known: provider,"),
        ({"model": "x", "input": 1, "output": 2, "id": "x"}, "'x': unknown key 'id'"),
        ({"model": "x", "input": "free", "output": 2}, "'x': input is not an amount of dollars: 'free'"),
        ({"model": "x", "input": -1, "output": 2}, "'x': input = -1000000000 is not a whole number from 0"),
        ({"model": "x", "input": 1, "output": "1e-10"}, "'x': output is finer than a nano-dollar"),
        ({"model": "x", "input": 1, "output": 2, "prompt_over": "100k"}, "'x': prompt_over = '100k' is not"),
        ({"model": "x", "input": 1, "output": 2, "since": "2026"}, "'x': since = '2026' is not a day"),
        (
            {"model": "x", "input": 1, "output": 2, "since": date(2026, 1, 2), "until": date(2026, 1, 2)},
            "'x': until = 2026-01-02 is not after since = 2026-01-02",
        ),
    ],
    ids=str,
)
def test_a_wrong_row_is_named(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rate.read(row)

    assert str(caught.value).startswith(f"[[price]] {words}")


# --- worst case -----------------------------------------------------------------------------------


def test_the_worst_case_of_a_coding_agents_call() -> None:
    # 60,000 x 8,000 (1h writes) + 128,000 x 20,000 = 3,040,000,000 n$; x 1.1 when it may run in the US
    bound = worst_case(60_000, 128_000, "claude-opus-5-5", NOW, BOOK, is_us=False)

    assert Cost(3_040_000_000, "anthropic/claude-opus-5-5@2026-09-22") == bound
    assert worst_case(60_000, 128_000, "claude-opus-5-5", NOW, BOOK).nusd == 3_344_000_000


def test_the_worst_case_takes_the_dearest_row_in_reach() -> None:
    # 100,000 x 200 + 1,000 x 500; 100,001 x 1,000 + 1,000 x 2,500
    assert worst_case(100_000, 1_000, "claude-haiku-5-5", NOW, BOOK, is_us=False).nusd == 20_500_000
    assert worst_case(100_001, 1_000, "claude-haiku-5-5", NOW, BOOK, is_us=False) == Cost(
        102_501_000, "anthropic/claude-haiku-5-5@2026-10-07>100000"
    )


def test_the_worst_case_reaches_a_dearer_row_for_shorter_prompts() -> None:
    book = BOOK.with_rates([override(), override(prompt_over=10, input="0.01", output="0.01")])

    # 100 x 160 + 10 x 400, although a prompt of 100 would be charged by the cheaper row
    assert worst_case(100, 10, "claude-haiku-5-5", NOW, book, is_us=False).nusd == 20_000


def test_the_worst_case_counts_what_the_request_may_do() -> None:
    # 1 x 8,000 + 1 x 20,000 = 28,000; x 2 fast; two searches
    assert (
        worst_case(1, 1, "claude-opus-5-5", NOW, BOOK, is_fast=True, is_us=False, web_searches=2).nusd
        == 20_056_000
    )


def test_the_worst_case_is_rounded_up() -> None:
    book = replace(BOOK, discount=Decimal("0.999"))

    # 1 x 200 x 0.001 = 0.2
    assert worst_case(1, 0, "claude-haiku-5-5", NOW, book, is_us=False).nusd == 1


# --- baseline -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("served", "baseline", "usage", "expected"),
    [
        # one tokenizer: 200 x 4,000 + 10 x 20,000
        ("claude-haiku-5-5", "claude-opus-5-5", Usage(200, 10), 1_000_000),
        # older to newer: x 1.3
        ("claude-haiku-4-5", "claude-opus-5-5", Usage(200, 10), 1_300_000),
        # newer to older: 1,300 tokens are 1,000; x 5,000
        ("claude-haiku-5-5", "claude-opus-4-6", Usage(1_300), 5_000_000),
        # 1 token is 10/13: 5,000 x 10 / 13 = 3,846.15
        ("claude-haiku-5-5", "claude-opus-4-6", Usage(1), 3_846),
        # 80,000 tokens are 104,000 there, past the cliff: x 500
        ("claude-haiku-4-5", "claude-haiku-5-5", Usage(80_000), 52_000_000),
        # 76,923 are 99,999.9: x 100; 76,924 are 100,001.2: x 500
        ("claude-haiku-4-5", "claude-haiku-5-5", Usage(76_923), 9_999_990),
        ("claude-haiku-4-5", "claude-haiku-5-5", Usage(76_924), 50_000_600),
        # what was read counts as read, what was written as written: 1,000 x 200 + 100 x 5,000 + 10 x 8,000
        ("claude-sonnet-5-5", "claude-opus-5-5", Usage(0, 0, 1_000, 100, 10), 780_000),
        # the request's own multipliers and fees stay: 1,000 x 4,000 / 2 + one search
        (
            "claude-haiku-5-5",
            "claude-opus-5-5",
            Usage(1_000, service_tier="batch", web_search_requests=1),
            12_000_000,
        ),
    ],
)
def test_baseline(served: str, baseline: str, usage: Usage, expected: int) -> None:
    assert expected == baseline_cost(usage, served, baseline, NOW, BOOK, load_models()).nusd


def test_the_baseline_of_parts() -> None:
    usage = Usage.read(
        {
            "iterations": [
                {"type": "message", "input_tokens": 1_300, "output_tokens": 130},
                {
                    "type": "advisor_message",
                    "model": "claude-opus-5-5",
                    "input_tokens": 500,
                    "output_tokens": 7,
                },
                {"type": "message", "model": "claude-haiku-4-5", "input_tokens": 10, "output_tokens": 1},
            ]
        }
    )

    # served Haiku 5.5 -> Opus 4.6 at 10/13: 1,000 x 5,000 + 100 x 25,000 = 7,500,000
    # the advisor as it was: 500 x 4,000 + 7 x 20,000 = 2,140,000
    # a part by Haiku 4.5, whose tokens Opus 4.6 counts alike: 10 x 5,000 + 1 x 25,000 = 75,000
    assert Cost(
        9_715_000, "anthropic/claude-opus-4-6@2026-03-13+anthropic/claude-opus-5-5@2026-09-22"
    ) == baseline_cost(usage, "claude-haiku-5-5", "claude-opus-4-6", NOW, BOOK, load_models())


# --- ladders --------------------------------------------------------------------------------------


def ladder(*models: str, upstream: str = "anthropic") -> Ladder:
    return Ladder(tuple(Tier(model.split("-")[1], model, upstream) for model in models))


def test_the_default_ladder_rises() -> None:
    check_ladder(DEFAULT_LADDER, NOW, BOOK)


def test_a_ladder_that_falls_names_both_models_and_their_rates() -> None:
    with pytest.raises(ConfigError) as caught:
        check_ladder(ladder("claude-haiku-5-5", "claude-opus-5-5", "claude-sonnet-5-5"), NOW, BOOK)

    assert str(caught.value) == (
        "prices do not rise along the ladder: opus before sonnet, but claude-opus-5-5 costs $4 in, $20 out "
        "per million tokens and claude-sonnet-5-5 costs $2 in, $10 out per million tokens. "
        "Write the cheaper [[tier]] first, or leave one out"
    )


def test_equal_prices_do_not_rise() -> None:
    twins = Ladder((Tier("old", "claude-opus-4-7"), Tier("new", "claude-opus-4-8")))

    with pytest.raises(ConfigError, match="do not rise along the ladder: old before new"):
        check_ladder(twins, NOW, BOOK)


def test_free_models_may_come_before_paid_ones_but_not_after() -> None:
    small = Rate.read({"provider": "ollama", "model": "llama3-small", "input": 0, "output": 0})
    book = BOOK.with_rates([LOCAL, small])
    free = (Tier("tiny", "llama3-small", "ollama"), Tier("local", "llama3", "ollama"))
    opus = Tier("opus", "claude-opus-5-5")

    check_ladder(Ladder((*free, opus)), NOW, book)
    with pytest.raises(ConfigError, match=r"opus before local, but .* llama3 costs \$0 in, \$0 out"):
        check_ladder(Ladder((opus, free[1])), NOW, book)


def test_a_tier_without_a_price_is_a_config_error_with_the_mend() -> None:
    unpriced = Ladder((Tier("local", "llama3"), Tier("opus", "claude-opus-5-5")))

    with pytest.raises(
        ConfigError, match=r"tier 'local': no price for model 'llama3' .*input = 0, output = 0"
    ):
        check_ladder(unpriced, NOW, replace(BOOK, unpriced="allow"))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("claude-opus-5-5", ["haiku", "sonnet"]),
        ("claude-sonnet-5-5", ["haiku"]),
        ("claude-haiku-5-5", []),
        ("claude-haiku-4-5-20251001", ["haiku"]),
        ("claude-sonnet-4-6", ["haiku", "sonnet"]),
        ("claude-fable-5-2", ["haiku", "sonnet", "opus"]),
    ],
)
def test_cheaper_tiers(asked: str, names: list[str]) -> None:
    assert names == [tier.name for tier in cheaper_tiers(DEFAULT_LADDER, asked, NOW, BOOK)]


def test_cheaper_means_input_and_output() -> None:
    # 4.00 > 3.90 in, 20 < 30 out
    book = BOOK.with_rates([Rate.read({"model": "talker", "input": "3.90", "output": 30})])

    assert () == cheaper_tiers(ladder("claude-opus-5-5"), "talker", NOW, book)


def test_books_are_equal_by_their_rows() -> None:
    assert PriceBook(BOOK.rates) == BOOK
    assert BOOK.with_rates([LOCAL]) != BOOK
