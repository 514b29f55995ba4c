"""What a prompt cache is worth, against worked examples at real prices.

Rates in nano-dollars per token (input, output, read, write): opus-5-5 4,000, 20,000, 200,
5,000; sonnet-5-5 2,000, 10,000, 100, 2,500; haiku-5-5 100, 500, 10, 125, and over 100,000
prompt tokens 500, 2,500, 50, 625; opus-4-6 5,000, 25,000, 500, 6,250; haiku-4-5 1,000,
5,000, 100, 1,250.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from leastwise.ladder import Tier
from leastwise.messages import Iteration, Usage
from leastwise.models import load_models
from leastwise.prices import Rate, load_prices
from leastwise.routing.warmth import (
    HOUR_S,
    MOST_TURNS,
    Card,
    Option,
    Turns,
    Warmth,
    as_read,
    break_even_output,
    break_even_turns,
    cost_of_turns,
    expected_turns,
    is_prefix,
    lost_tokens,
    pays_from,
    warmth_of,
)
from tests.kit import HAIKU, NOW, OPUS, SONNET

BOOK, MODELS = load_prices(), load_models()
AT = datetime(2026, 11, 23, tzinfo=UTC)
PER_MTOK = 1_000_000
OLD_HAIKU, OLD_OPUS = "claude-haiku-4-5", "claude-opus-4-6"
NEVER = 10**9  # a cache minimum that no prompt reaches


def rates(model: str, at: datetime = AT) -> Callable[[int], Rate]:
    return lambda prompt: BOOK.rate(model, at, prompt)


def card(model: str, ttl_s: int = 300, minimum: int = 0) -> Card:
    return Card(rates(model), ttl_s, minimum)


def turns(prefix: int, count: int = 1) -> Turns:
    return Turns(prefix, fresh=500, output=400, count=count)


def usd(cost: int) -> Fraction:
    return Fraction(cost, PER_MTOK * 10**9)


# --- the worked examples -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stay", "switch", "prefix", "writes", "tokens"),
    [
        (OPUS, SONNET, 100_000, False, "180"),
        (OPUS, SONNET, 100_000, True, "230"),
        (OPUS, HAIKU, 150_000, False, "17"),
        (OPUS, HAIKU, 150_000, True, "24"),
        (OLD_OPUS, OLD_HAIKU, 100_000, False, "25"),
        (OLD_OPUS, OLD_HAIKU, 100_000, True, "38"),
    ],
)
def test_the_output_at_which_a_detour_breaks_even(
    stay: str, switch: str, prefix: int, tokens: str, *, writes: bool
) -> None:
    here, there = BOOK.rate(stay, AT, prefix), BOOK.rate(switch, AT, prefix)

    found = break_even_output(prefix, here, there, writes=writes)

    assert tokens == f"{float(found * 1000 / prefix):.0f}"


def test_a_detour_to_what_is_read_cheaper_than_the_cache_always_pays() -> None:
    found = break_even_output(60_000, BOOK.rate(OPUS, AT), BOOK.rate(HAIKU, AT, 60_000))

    assert Fraction(60_000 * (100 - 200), 20_000 - 500) == found


@pytest.mark.parametrize(("output", "is_cheaper"), [(2_571, False), (2_572, True)])
def test_one_turn_above_the_cliff_pays_for_long_answers_only(output: int, *, is_cheaper: bool) -> None:
    once = Turns(150_000, 0, output)  # y* = 150,000 x (500 - 200) / (20,000 - 2,500) = 2,571.4

    there = cost_of_turns(once, card(HAIKU, minimum=NEVER))

    assert is_cheaper == (there < cost_of_turns(once, card(OPUS), once.prefix))


@pytest.mark.parametrize(
    ("stay", "switch", "prefix", "found"),
    [
        (OPUS, SONNET, 100_000, "15.7"),
        (OPUS, SONNET, 20_000, "6.6"),
        (OPUS, HAIKU, 60_000, "0.3"),
        (OPUS, HAIKU, 150_000, "2.7"),
        (OLD_OPUS, OLD_HAIKU, 100_000, "2.3"),
    ],
)
def test_the_turns_after_which_a_move_breaks_even(stay: str, switch: str, prefix: int, found: str) -> None:
    here, there = BOOK.rate(stay, AT, prefix), BOOK.rate(switch, AT, prefix)

    number = break_even_turns(turns(prefix), here, there)

    assert number is not None
    assert found == f"{float(number):.1f}"


def test_a_move_to_what_costs_more_never_breaks_even() -> None:
    assert None is break_even_turns(turns(60_000), BOOK.rate(HAIKU, AT), BOOK.rate(OPUS, AT))


def test_the_rates_are_those_of_the_day() -> None:
    before = datetime(2026, 10, 6, tzinfo=UTC)  # sonnet read its cache at 200, as opus does
    number = break_even_turns(turns(100_000), BOOK.rate(OPUS, before), BOOK.rate(SONNET, before))

    assert Fraction(2_300 * 100_000, 10_000 * 400 + 2_500 * 500) == number


@pytest.mark.parametrize(
    ("stay", "switch", "prefix", "count", "minimum", "costs"),
    [
        (OPUS, SONNET, 100_000, 1, 0, (".031", ".255")),
        (OPUS, SONNET, 100_000, 10, 0, (".313", ".397")),
        (OPUS, SONNET, 100_000, 20, 0, (".644", ".562")),
        (OPUS, HAIKU, 60_000, 1, NEVER, (".0225", ".0063")),
        (OPUS, HAIKU, 60_000, 5, 0, (".114", ".011")),
        (OPUS, HAIKU, 150_000, 1, NEVER, (".041", ".076")),
        (OPUS, HAIKU, 150_000, 1, 0, (".041", ".095")),
        (OPUS, HAIKU, 150_000, 3, 0, (".122", ".113")),
        (OPUS, HAIKU, 150_000, 10, 0, (".413", ".176")),
        (OLD_OPUS, OLD_HAIKU, 100_000, 1, NEVER, (".063", ".103")),
        (OLD_OPUS, OLD_HAIKU, 100_000, 3, 0, (".191", ".153")),
    ],
)
def test_what_turns_cost_here_and_there(
    stay: str, switch: str, prefix: int, *, count: int, minimum: int, costs: tuple[str, str]
) -> None:
    coming = turns(prefix, count)
    found = (
        cost_of_turns(coming, card(stay), coming.prefix),
        cost_of_turns(coming, card(switch, minimum=minimum)),
    )

    for expected, cost in zip(costs, found, strict=True):
        half_a_digit = Fraction(1, 2 * 10 ** len(expected[1:]))
        assert abs(Fraction(f"0{expected}") - usd(cost)) <= half_a_digit


def test_to_the_last_digit() -> None:
    # opus, three turns: reads of 60,000, 60,900, 61,800 at 200; three times 500 x 5,000 + 400 x 20,000
    assert 200 * 182_700 + 3 * 10_500_000 == usd(cost_of_turns(turns(60_000, 3), card(OPUS), 60_000)) * 10**9
    # haiku: 60,500 written at 125; then reads of 60,900, 61,800 at 10, 500 written each; 400 x 500 each
    there = 125 * 60_500 + 10 * 122_700 + 2 * 500 * 125 + 3 * 200_000
    assert there == usd(cost_of_turns(turns(60_000, 3), card(HAIKU))) * 10**9
    # kept for an hour: written at 200
    assert 200 * 60_500 + 200_000 == usd(cost_of_turns(turns(60_000), card(HAIKU, HOUR_S))) * 10**9
    # what it has cached already is read
    there = 10 * 40_000 + 125 * 20_500 + 200_000
    assert there == usd(cost_of_turns(turns(60_000), card(HAIKU), 40_000)) * 10**9


def test_a_conversation_that_crosses_the_cliff_is_paid_by_the_row_of_each_turn() -> None:
    # 99,500 tokens are written at 125; the next prompt has 100,400: reads 99,900 at 50, writes 500 at 625
    there = 125 * 99_500 + 500 * 400 + 50 * 99_900 + 625 * 500 + 2_500 * 400

    assert there == usd(cost_of_turns(turns(99_000, 2), card(HAIKU))) * 10**9


def test_a_prompt_too_short_for_the_cache_is_input_until_it_is_not() -> None:
    # 3,500 and 4,400 tokens, of which haiku-4-5 stores the second only; the third reads 4,800
    short = card(OLD_HAIKU, minimum=4_096)
    there = 1_000 * 3_500 + 1_250 * 4_400 + 100 * 4_800 + 1_250 * 500 + 3 * 5_000 * 400

    assert there == usd(cost_of_turns(turns(3_000, 3), short)) * 10**9


def test_turns_are_told_in_the_tokens_of_each_model() -> None:
    assert Turns(130, 2, 13, 2) == Turns(100, 1, 10, 2).scaled(13, 10)


# --- what is expected --------------------------------------------------------------------------------


def option(model: str, coming: Turns, cached: int = 0) -> Option:
    return Option(Tier("", model), coming, card(model), cached)


@pytest.mark.parametrize(
    ("switch", "prefix", "turn"), [(SONNET, 100_000, 16), (SONNET, 20_000, 7), (HAIKU, 60_000, 1)]
)
def test_the_turn_from_which_a_move_pays_sees_the_prefix_grow(switch: str, prefix: int, turn: int) -> None:
    stay, move = option(OPUS, turns(prefix), prefix), option(switch, turns(prefix))

    assert turn == pays_from(stay, move)
    paid = [
        option(switch, turns(prefix, count)).cost <= option(OPUS, turns(prefix, count), prefix).cost
        for count in range(1, MOST_TURNS + 1)
    ]
    assert [False] * (turn - 1) + [True] * (MOST_TURNS + 1 - turn) == paid


def test_a_move_that_does_not_pay_within_fifty_turns_is_none() -> None:
    assert None is pays_from(option(HAIKU, turns(60_000), 60_000), option(OPUS, turns(60_000)))


def test_lost_is_the_price_of_reading_anew_over_the_price_of_the_cache() -> None:
    assert 60_000 * (125 - 10) == usd(option(HAIKU, turns(60_000)).lost) * 10**9
    assert 20_000 * (125 - 10) == usd(option(HAIKU, turns(60_000), 40_000).lost) * 10**9
    plain = Option(Tier("", HAIKU), turns(60_000), card(HAIKU, minimum=NEVER), 0)
    assert 60_000 * (100 - 10) == usd(plain.lost) * 10**9


def warmth(model: str = OPUS, at: float = NOW, **given: int) -> Warmth:
    facts = {"prefix_tokens": 60_000, "output_tokens": 900, "turns": 3, **given}
    return Warmth(model, at, **facts)


@pytest.mark.parametrize(
    ("found", "told", "expected"),
    [
        ({OPUS: warmth()}, None, (3, 300)),
        ({OPUS: warmth(), HAIKU: warmth(HAIKU, output_tokens=100, turns=1)}, 5, (4, 250)),
        ({OPUS: warmth(output_tokens=0)}, 70, (3, 70)),
        ({OPUS: warmth(output_tokens=0)}, None, (3, 400)),
        ({OPUS: warmth(turns=80, output_tokens=81)}, None, (MOST_TURNS, 2)),
        ({}, None, (1, 400)),
    ],
)
def test_a_session_is_expected_to_last_as_long_again(
    found: dict[str, Warmth], told: int | None, expected: tuple[int, int]
) -> None:
    assert expected == expected_turns(found, told)


def test_a_cache_is_warm_for_its_time_from_its_last_use() -> None:
    known, hour = warmth(), warmth(hour_tokens=60_000)
    assert [known, None] == [known.kept(NOW + late) for late in (299.9, 300)]
    assert [hour, None] == [hour.kept(NOW + late) for late in (3_599.9, 3_600)]


def test_of_a_cache_of_both_kinds_the_part_for_an_hour_outlives_the_other() -> None:
    both, part = warmth(hour_tokens=50_000), warmth(hour_tokens=50_000, prefix_tokens=50_000)

    assert [300, 3_600] == [both.ttl_s, part.ttl_s]
    assert [both, part, part, None] == [both.kept(NOW + late) for late in (299.9, 300, 3_599.9, 3_600)]


@pytest.mark.parametrize(("prompt", "expected"), [(30_000, True), (29_999, False)])
def test_what_has_less_than_half_of_the_prefix_does_not_begin_with_it(prompt: int, *, expected: bool) -> None:
    assert expected == is_prefix(warmth(), prompt)


@pytest.mark.parametrize(
    ("usage", "before", "expected"),
    [
        (Usage(10, 7), None, None),
        (Usage(10, 7, 100, 20), None, (120, 0)),
        (Usage(10, 7, 100, 0, 20), None, (120, 120)),
        (Usage(10, 7, 100, 20, 30), None, (150, 130)),
        (Usage(10, 7, 100), None, (100, 0)),
        (Usage(10, 7, 100), warmth(hour_tokens=90), (100, 90)),
        (Usage(10, 7, 100, 20), warmth(hour_tokens=60_000), (120, 100)),
    ],
)
def test_what_an_answer_tells_of_the_cache(
    usage: Usage, before: Warmth | None, expected: tuple[int, int] | None
) -> None:
    made = Warmth(OPUS, NOW, *expected, 7, 1) if expected is not None else None

    assert made == warmth_of(usage, f"anthropic.{OPUS}-v1:0", NOW, before)


def test_turns_and_output_add_up_and_the_last_call_tells_the_rest() -> None:
    later = Warmth(OPUS, NOW + 9, 61_000, 61_000, 50, 1)
    both = Warmth(OPUS, NOW + 9, 61_000, 61_000, 950, 4)

    assert [both, both] == [warmth().followed_by(later), later.followed_by(warmth())]


# --- what was lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "usage", "served", "lost"),
    [
        ([warmth()], Usage(500, 9, 0, 60_000), HAIKU, 60_000),
        ([warmth()], Usage(500, 9, 45_000, 15_000), HAIKU, 15_000),
        ([warmth()], Usage(500, 9, 60_000), HAIKU, 0),
        ([warmth()], Usage(500, 9, 0, 50_000), HAIKU, 50_500),
        ([warmth()], Usage(500, 9, 0, 20_000), HAIKU, 0),
        ([warmth()], Usage(500, 9, 0, 60_000), OPUS, 0),
        ([warmth(at=NOW - 300)], Usage(500, 9, 0, 60_000), HAIKU, 0),
        ([warmth(at=NOW - 300, hour_tokens=50_000)], Usage(500, 9, 0, 60_000), HAIKU, 50_000),
        ([], Usage(500, 9, 0, 60_000), HAIKU, 0),
        ([warmth(at=NOW - 5), warmth(HAIKU)], Usage(500, 9, 0, 60_000), HAIKU, 0),
        ([warmth(at=NOW - 5), warmth(HAIKU)], Usage(500, 9, 0, 60_000), SONNET, 60_000),
        ([warmth(OLD_OPUS)], Usage(500, 9, 0, 78_000), HAIKU, 78_000),
        ([warmth()], Usage(500, 9, 0, 60_000, iterations=(Iteration("message", OPUS, Usage()),)), HAIKU, 0),
    ],
)
def test_lost_is_what_another_model_had_cached_and_this_one_did_not_read(
    found: list[Warmth], usage: Usage, served: str, lost: int
) -> None:
    assert lost == lost_tokens({each.model: each for each in found}, usage, served, NOW + 1, MODELS)


@pytest.mark.parametrize(
    ("tokens", "read"),
    [
        (0, Usage(50, 9, 5, 100, 30)),
        (70, Usage(50, 9, 75, 30, 30)),
        (120, Usage(50, 9, 125, 0, 10)),
        (150, Usage(30, 9, 155, 0, 0)),
        (999, Usage(0, 9, 185, 0, 0)),
    ],
)
def test_what_counts_as_read_was_written_first_and_then_plain(tokens: int, read: Usage) -> None:
    assert read == as_read(Usage(50, 9, 5, 100, 30), tokens)


def test_what_is_extra_in_the_first_turn_is_new_once() -> None:
    coming = Turns(1_000, 100, 10, 3, extra=500)

    # prompts of 1,600, 1,710 and 1,820: 600 new, then 100 each; read 1,000, 1,610 and 1,720
    expected = [
        1_000 * 200 + 600 * 5_000 + 10 * 20_000,
        1_610 * 200 + 100 * 5_000 + 10 * 20_000,
        1_720 * 200 + 100 * 5_000 + 10 * 20_000,
    ]
    assert sum(expected) * 1_000_000 == cost_of_turns(coming, card(OPUS), coming.prefix)
    assert (1_600, 650) == (coming.prompt, coming.scaled(13, 10).extra)
