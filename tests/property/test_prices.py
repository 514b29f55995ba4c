from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leastwise.messages import Iteration, Usage
from leastwise.models import load_models
from leastwise.prices import PriceBook, baseline_cost, cost, load_prices, worst_case

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOOK = load_prices()
SHORT = 12_000  # tokens a class; two such prompts together stay below the lowest cliff, 100,000

models = st.sampled_from(sorted({rate.model for rate in BOOK.rates}))
books = st.sampled_from(["0", "0.15", "0.333"]).map(lambda share: replace(BOOK, discount=Decimal(share)))
manners = st.fixed_dictionaries(
    {
        "speed": st.sampled_from(["standard", "fast"]),
        "inference_geo": st.sampled_from(["", "global", "us"]),
        "service_tier": st.sampled_from(["standard", "priority", "batch"]),
    }
)


def usages(most: int, searches: int = 3) -> st.SearchStrategy[Usage]:
    tokens = st.integers(0, most)
    return st.builds(
        Usage, tokens, tokens, tokens, tokens, tokens, web_search_requests=st.integers(0, searches)
    )


@given(usages(SHORT), usages(SHORT), manners, models, books)
def test_costs_add_up_below_a_cliff_but_for_the_rounding(
    one: Usage, other: Usage, manner: dict[str, Any], model: str, book: PriceBook
) -> None:
    one, other = replace(one, **manner), replace(other, **manner)
    together = cost(one.plus(other), model, NOW, book).nusd
    apart = cost(one, model, NOW, book).nusd + cost(other, model, NOW, book).nusd

    assert abs(together - apart) <= 1


@given(st.lists(usages(SHORT // 2, searches=0), min_size=1, max_size=4), manners, models, books)
def test_an_answer_in_parts_costs_what_it_costs_whole_below_a_cliff(
    parts: list[Usage], manner: dict[str, Any], model: str, book: PriceBook
) -> None:
    whole = Usage(**manner)
    for part in parts:
        whole = whole.plus(part)
    in_parts = replace(whole, iterations=tuple(Iteration("message", None, part) for part in parts))

    assert cost(whole, model, NOW, book) == cost(in_parts, model, NOW, book)


@given(usages(300_000), manners, models, books, st.booleans())
def test_no_cost_is_negative_and_a_batch_is_never_dearer(
    usage: Usage,
    manner: dict[str, Any],
    model: str,
    book: PriceBook,
    is_batch: bool,  # noqa: FBT001
) -> None:
    usage = replace(usage, **manner)
    price = cost(usage, model, NOW, book, is_batch=is_batch).nusd

    assert 0 <= price <= cost(usage, model, NOW, book).nusd


@given(usages(300_000), manners, models, books, st.tuples(st.integers(0, 50_000), st.integers(0, 5_000)))
def test_the_worst_case_bounds_every_usage_within_it(
    usage: Usage, manner: dict[str, Any], model: str, book: PriceBook, spare: tuple[int, int]
) -> None:
    usage = replace(usage, **manner)
    bound = worst_case(
        usage.prompt_tokens + spare[0],
        usage.output_tokens + spare[1],
        model,
        NOW,
        book,
        is_fast=usage.speed == "fast",
        is_us=usage.inference_geo == "us",
        web_searches=usage.web_search_requests,
    )

    assert cost(usage, model, NOW, book).nusd <= bound.nusd


@given(st.lists(st.integers(0, 300_000), min_size=2, max_size=5).map(sorted), models, books)
def test_the_worst_case_grows_with_its_bounds(sizes: list[int], model: str, book: PriceBook) -> None:
    bounds = [worst_case(size, size, model, NOW, book).nusd for size in sizes]

    assert all(low <= high for low, high in pairwise(bounds))


@given(usages(300_000), manners, models, books)
def test_a_model_is_its_own_baseline(
    usage: Usage, manner: dict[str, Any], model: str, book: PriceBook
) -> None:
    usage = replace(usage, **manner)

    assert cost(usage, model, NOW, book) == baseline_cost(usage, model, model, NOW, book, load_models())


@given(usages(300_000), models, st.fractions(0, 1, max_denominator=1_000))
def test_a_discount_takes_its_share_but_for_the_rounding(usage: Usage, model: str, share: Any) -> None:
    exact = Decimal(share.numerator) / Decimal(share.denominator)
    discounted = cost(usage, model, NOW, replace(BOOK, discount=exact)).nusd

    assert abs(discounted - cost(usage, model, NOW, BOOK).nusd * (1 - exact)) <= 1
