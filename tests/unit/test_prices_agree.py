"""A second and a third opinion on our price table: `genai-prices` and litellm's price file.

Both are pinned for development only and unused at run time; of litellm only the file is read.
Every rate is compared as `cost` charges it. A disagreement fails, naming model, rate and both
numbers; one that is understood is listed here with its reason, and fails once it is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from leastwise.messages import Usage
from leastwise.models import canonical, load_models
from leastwise.prices import Rate, cost, load_prices

TODAY = date(2026, 11, 23)
BOOK = load_prices()
SHIPPED = {rate.model for rate in BOOK.rates}
CALLABLE = {model.id for model in load_models() if model.lifecycle != "retired"}


class Figure(NamedTuple):
    """One rate: of a model, on a day, for prompts over a length, in a manner of serving."""

    model: str
    day: date
    prompt_over: int
    rate: str
    manner: str = "standard"

    def __str__(self) -> str:
        over = f", prompts over {self.prompt_over:,}" if self.prompt_over else ""
        return f"{self.model} {self.rate} ({self.manner}, {self.day}{over})"


Table = dict[Figure, Decimal]

#: Rate -> field of a usage, genai-prices' name, litellm's name.
RATES = {
    "input": ("input_tokens", "input_mtok", "input_cost_per_token"),
    "output": ("output_tokens", "output_mtok", "output_cost_per_token"),
    "cache_read": ("cache_read_input_tokens", "cache_read_mtok", "cache_read_input_token_cost"),
    "cache_write_5m": ("cache_write_5m_tokens", "cache_write_mtok", "cache_creation_input_token_cost"),
    "cache_write_1h": (
        "cache_write_1h_tokens",
        "cache_write_1h_mtok",
        "cache_creation_input_token_cost_above_1hr",
    ),
}
#: Manner -> what a usage says when served so.
MANNERS: dict[str, dict[str, Any]] = {
    "standard": {},
    "batch": {"service_tier": "batch"},
    "fast": {"speed": "fast"},
    "us": {"inference_geo": "us"},
}

NOT_IN_GENAI_PRICES = {
    "claude-mythos-5": "limited availability, which its importer leaves out",
    "claude-mythos-5-1": "limited availability, which its importer leaves out",
}
NOT_IN_LITELLM = {
    "claude-fable-5-2": "newer than the file",
    "claude-mythos-5-2": "newer than the file",
}
NOT_OURS = {
    "claude-2": "retired in 2025, before prompt caching had a price",
    "claude-v1": "retired in 2024, before prompt caching had a price",
    "claude-3-sonnet": "retired in July 2025",
    "claude-mythos-preview": "by invitation, retired in June 2026; its rates while it ran are in dispute",
}
KNOWN_GENAI_PRICES = {
    Figure("claude-sonnet-5-5", date(2026, 9, 28), 0, "cache_read"): (
        "0.20 until Haiku 5.5 came out on 2026-10-07; genai-prices keeps no older rate"
    ),
}
KNOWN_LITELLM = {
    Figure("claude-sonnet-4-5", TODAY, 200_000, rate): (
        "the beta of the 1M window is over, and the file lists a window of 200,000"
    )
    for rate in RATES
}


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def charged(rate: Rate, name: str, at: datetime, manner: str) -> Decimal:
    """Return dollars per million tokens, as `cost` charges them for a prompt in the row's reach."""
    tokens = 2 * rate.prompt_over or 100_000
    prompt = Usage(tokens if name == "output" else 0, **MANNERS[manner])
    counts: dict[str, Any] = {RATES[name][0]: tokens}
    usage = replace(prompt, **counts)
    nusd = cost(usage, rate.model, at, BOOK).nusd - cost(prompt, rate.model, at, BOOK).nusd
    return Decimal(nusd) / tokens / 1_000


def rows() -> Iterator[tuple[date, str, Rate]]:
    """Yield every row on its first day, and those in force today in each manner on offer."""
    for rate in BOOK.rates:
        yield rate.since, "standard", rate
        newest = max(other.since for other in BOOK.rates if other.model == rate.model)
        if rate.since == newest and rate.model in CALLABLE:
            for manner in MANNERS if rate.has_fast else MANNERS.keys() - {"fast"}:
                yield TODAY, manner, rate


def ours(lacking: Mapping[str, str]) -> Table:
    """Return all our figures of models that the other table does not lack."""
    table = {
        Figure(rate.model, day, rate.prompt_over, name, manner): charged(rate, name, noon(day), manner)
        for day, manner, rate in rows()
        for name in RATES
    }
    searched = {
        Figure(model, TODAY, 0, "web_search"): Decimal(
            cost(Usage(web_search_requests=1_000), model, noon(TODAY), BOOK).nusd
        ).scaleb(-9)
        for model in CALLABLE
    }
    return {figure: price for figure, price in (table | searched).items() if figure.model not in lacking}


def disagreements(ours: Table, theirs: Table) -> dict[Figure, str]:
    return {
        figure: f"{figure}: ours {ours.get(figure)}, theirs {theirs.get(figure)}"
        for figure in ours.keys() | theirs.keys()
        if ours.get(figure) != theirs.get(figure)
    }


def unexplained(found: dict[Figure, str], known: Mapping[Figure, str]) -> list[str]:
    """Return the disagreements without a reason, and the reasons without a disagreement."""
    gone = [f"{figure}: no disagreement any more; remove it here" for figure in known.keys() - found.keys()]
    return sorted([text for figure, text in found.items() if figure not in known] + gone)


# --- genai-prices -----------------------------------------------------------------------------


def genai_models() -> dict[str, ModelInfo]:
    """Return its Claude models, under our ids where we have the model."""
    (anthropic,) = (provider for provider in providers if provider.id == "anthropic")
    named = {model.id: model for model in anthropic.models}
    found = {ours: next((m for m in anthropic.models if m.is_match(ours)), None) for ours in SHIPPED}
    taken = [model.id for model in found.values() if model is not None]
    return {name: model for name, model in found.items() if model is not None} | {
        canonical(name): model for name, model in named.items() if name not in taken
    }


def genai_figures(model: str, day: date, manner: str, prices: ModelPrice) -> Table:
    table: Table = {}
    for rate, (_, name, _) in RATES.items():
        value = getattr(prices, name)
        by_length = (
            {0: value.base} | {tier.start: tier.price for tier in value.tiers}
            if isinstance(value, TieredPrices)
            else {0: value}
        )
        for over, price in by_length.items():
            table[Figure(model, day, over, rate, manner)] = price
    return table


def test_genai_prices_agrees() -> None:
    asked = {
        "standard": {},
        "batch": {"processing": "batch"},
        "fast": {"speed": "fast"},
    }
    mine = {figure: price for figure, price in ours(NOT_IN_GENAI_PRICES).items() if figure.manner in asked}
    models = genai_models()
    theirs: Table = {}
    for model, day, manner in {(figure.model, figure.day, figure.manner) for figure in mine}:
        prices = models[model].get_prices(noon(day), asked[manner])
        theirs |= genai_figures(model, day, manner, prices)
        if day == TODAY and manner == "standard":
            theirs[Figure(model, day, 0, "web_search")] = Decimal(str(prices.web_searches_kcount))

    wrong = unexplained(disagreements(mine, theirs), KNOWN_GENAI_PRICES)
    assert not wrong, "\n".join(wrong)


def test_genai_prices_names_the_same_models() -> None:
    theirs = genai_models().keys()

    assert NOT_IN_GENAI_PRICES.keys() == SHIPPED - theirs
    assert theirs - SHIPPED <= NOT_OURS.keys()


def test_genai_prices_sells_fast_mode_on_the_same_models() -> None:
    fast = {
        name
        for name, model in genai_models().items()
        if any(variant.when == {"speed": "fast"} for variant in model.price_variants or ())
    }

    assert fast == {rate.model for rate in BOOK.rates if rate.has_fast}


# --- litellm ----------------------------------------------------------------------------------


def litellm_models() -> dict[str, dict[str, Any]]:
    """Return its Claude models at Anthropic, by undated id, without importing litellm."""
    spec = find_spec("litellm")
    assert spec is not None, "litellm is not installed: pip install --no-deps -r requirements/test-nodeps.txt"
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "model_prices_and_context_window_backup.json"
    listed = json.loads(path.read_text("utf-8"), parse_float=Decimal)
    return {
        canonical(name): row
        for name, row in sorted(listed.items(), reverse=True)  # undated ids last: they win
        if isinstance(row, dict) and row.get("litellm_provider") == "anthropic"
    }


def litellm_figures(model: str, row: Mapping[str, Any]) -> Table:
    table: Table = {}
    extra = row.get("provider_specific_entry") or {}
    lengths = {0} | {
        int(found[1]) * 1_000 for name in row if (found := re.search(r"_above_(\d+)k_tokens", name))
    }
    for over in lengths:
        above = f"_above_{over // 1_000}k_tokens" if over else ""
        for rate, (_, _, name) in RATES.items():
            standard = Decimal(row[name + above]) * 1_000_000
            table[Figure(model, TODAY, over, rate)] = standard
            if name + above + "_batches" in row:
                batch = Decimal(row[name + above + "_batches"]) * 1_000_000
                table[Figure(model, TODAY, over, rate, "batch")] = batch
            for manner in ("us", "fast"):
                if manner in extra:
                    table[Figure(model, TODAY, over, rate, manner)] = standard * Decimal(extra[manner])
    if "search_context_cost_per_query" in row:
        fee = row["search_context_cost_per_query"]["search_context_size_medium"]
        table[Figure(model, TODAY, 0, "web_search")] = Decimal(fee) * 1_000
    return table


def test_litellm_agrees() -> None:
    models = litellm_models()
    theirs: Table = {}
    for model in CALLABLE - NOT_IN_LITELLM.keys():
        theirs |= litellm_figures(model, models[model])
    # Every standard rate must be there; a multiplier or fee that it does not name, it does not deny.
    mine = {
        figure: price
        for figure, price in ours(NOT_IN_LITELLM).items()
        if figure.day == TODAY
        and (figure in theirs or (figure.manner == "standard" and figure.rate in RATES))
    }

    assert MANNERS.keys() == {figure.manner for figure in mine}
    wrong = unexplained(disagreements(mine, theirs), KNOWN_LITELLM)
    assert not wrong, "\n".join(wrong)


def test_litellm_names_the_same_models() -> None:
    theirs = litellm_models().keys()

    assert NOT_IN_LITELLM.keys() == CALLABLE - theirs
    assert theirs - SHIPPED <= NOT_OURS.keys()


def test_litellm_knows_the_same_windows() -> None:
    models = litellm_models()

    assert [] == [
        model.id
        for model in load_models()
        if model.id in models
        and (model.window, model.max_output, model.cache_minimum_tokens)
        != tuple(
            models[model.id][name]
            for name in ("max_input_tokens", "max_output_tokens", "prompt_cache_min_tokens")
        )
    ]
