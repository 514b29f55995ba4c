from __future__ import annotations

from datetime import date

import pytest

from leastwise.ladder import DEFAULT_LADDER
from leastwise.models import Models, canonical, load_models

EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0:200k", "claude-sonnet-4-5"),
        ("anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("global.anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("claude-opus-5@default", "claude-opus-5"),
        ("claude-opus-4-20250514", "claude-opus-4-0"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4-0"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("gpt-4-20240101", "gpt-4-20240101"),
        ("llama3.2:latest", "llama3.2:latest"),
        ("claude", "claude"),
        ("", ""),
    ],
)
def test_canonical_strips_dates_and_clouds(spelling: str, plain: str) -> None:
    assert plain == canonical(spelling)


def test_canonical_leaves_what_is_canonical() -> None:
    ids = [model.id for model in load_models()]

    assert ids == [canonical(name) for name in ids]


def test_get_finds_every_spelling_and_nothing_else() -> None:
    models = load_models()

    assert models.get("claude-haiku-4-5") is models.get("us.anthropic.claude-haiku-4-5-20251001-v1:0")
    assert models.get("claude-haiku-9") is None
    assert "claude-opus-5-5" in models
    assert "gpt-4" not in models


def test_models_keep_the_order_given() -> None:
    rows = list(load_models())

    assert rows[::-1] == list(Models(rows[::-1]))
    assert len(rows) == len(Models(rows))


@pytest.mark.parametrize(
    ("served", "other", "ratio"),
    [
        ("claude-haiku-4-5", "claude-opus-5-5", (13, 10)),
        ("claude-opus-5-5", "claude-haiku-4-5-20251001", (10, 13)),
        ("claude-haiku-5-5", "claude-opus-4-7", (1, 1)),
        ("claude-haiku-4-5", "claude-opus-4-6", (1, 1)),
        ("claude-haiku-4-5", "llama3", (1, 1)),
        ("llama3", "claude-opus-5-5", (1, 1)),
    ],
)
def test_token_ratio(served: str, other: str, ratio: tuple[int, int]) -> None:
    assert ratio == load_models().token_ratio(served, other)


def test_the_default_ladder_is_known_and_active() -> None:
    assert ["active"] * 3 == [
        model.lifecycle for tier in DEFAULT_LADDER if (model := load_models().get(tier.model))
    ]


def test_haiku_5_5() -> None:
    haiku = load_models().get("claude-haiku-5-5")

    assert haiku is not None
    assert (1_000_000, 128_000, date(2026, 10, 7)) == (haiku.window, haiku.max_output, haiku.released)
    assert haiku.thinking == "on"
    assert frozenset({"adaptive", "disabled"}) == haiku.accepts_thinking
    assert (EFFORTS, "medium") == (haiku.efforts, haiku.default_effort)
    assert (False, False, True) == (
        haiku.takes_sampling,
        haiku.takes_prefill,
        haiku.takes_forced_tool_choice,
    )


def test_opus_5_5_always_thinks_and_sonnet_5_5_has_another_off_switch() -> None:
    models = load_models()
    opus, sonnet = models.get("claude-opus-5-5"), models.get("claude-sonnet-5-5")

    assert opus is not None
    assert sonnet is not None
    assert ("always", "on") == (opus.thinking, sonnet.thinking)
    assert frozenset({"adaptive"}) == opus.accepts_thinking
    assert frozenset({"adaptive", "between_tools"}) == sonnet.accepts_thinking
    assert not opus.takes_forced_tool_choice
    assert not sonnet.takes_forced_tool_choice


def test_sonnet_4_5_is_about_to_go() -> None:
    sonnet = load_models().get("claude-sonnet-4-5")

    assert sonnet is not None
    assert ("deprecated", date(2026, 11, 30)) == (sonnet.lifecycle, sonnet.retires)


def test_who_offers_what() -> None:
    models = list(load_models())

    assert {
        "claude-opus-5-5",
        "claude-opus-5",
        "claude-opus-4-8",
        "claude-fable-5-2",
        "claude-mythos-5-2",
    } == {model.id for model in models if model.has_fast}
    assert {
        "claude-opus-5-5",
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
        "claude-fable-5-1",
        "claude-fable-5-2",
        "claude-mythos-5-1",
        "claude-mythos-5-2",
    } == {model.id for model in models if model.binds_thinking_prefix}
    assert {"claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"} == {
        model.id for model in models if model.takes_prefill and model.lifecycle != "retired"
    }


@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.id)
def test_rows_agree_with_themselves(model: object) -> None:
    row = load_models().get(getattr(model, "id", ""))

    assert row is model
    assert row is not None
    assert row.efforts <= EFFORTS
    assert bool(row.efforts) == (row.default_effort in row.efforts)
    assert (row.thinking == "always") == (row.accepts_thinking == {"adaptive"})
    assert row.max_output < row.window
    assert (row.lifecycle == "active") == (row.retires is None)
    assert row.line in row.id
    # No model took both: prefill went when the tokenizer was still the old one.
    assert not (row.tokenizer == "new" and (row.takes_prefill or row.takes_sampling))
