from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from leastwise.ladder import DEFAULT_LADDER
from leastwise.models import Models, canonical, load_betas, load_models
from leastwise.simulate.catalogue import describe

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
        ("anthropic/claude-haiku-4.5", "claude-haiku-4-5"),
        ("openrouter/anthropic/claude-3.5-haiku:beta", "claude-3-5-haiku"),
        ("bedrock/us.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("vertex_ai/claude-opus-5@default", "claude-opus-5"),
        ("projects/p/locations/us/publishers/anthropic/models/claude-opus-5-5", "claude-opus-5-5"),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
            "claude-haiku-4-5",
        ),
        (
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-6",
            "claude-sonnet-4-6",
        ),
        ("claude-opus-5-5[1m]", "claude-opus-5-5"),
        ("anthropic/gpt", "anthropic/gpt"),
        ("ollama/llama3.2", "ollama/llama3.2"),
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
    assert ("defaults", False, True) == (
        haiku.sampling,
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
    assert not (row.tokenizer == "new" and (row.takes_prefill or row.sampling in ("any", "one")))
    assert row.takes_tool("web_search_20250305")
    assert row.takes_task_budget == (row.tokenizer == "new")
    assert row.takes_compaction == row.has_geo == ("adaptive" in row.accepts_thinking)


# --- betas, and what the API lists ------------------------------------------------------------------


def test_betas_by_what_they_need() -> None:
    haiku, old = load_models().get("claude-haiku-5-5"), load_models().get("claude-haiku-4-5")
    betas = [
        "effort-2025-11-24",
        "context-1m-2025-08-07",
        "oauth-2025-04-20",
        "what-comes-next-2027-01-01",
        "",
    ]

    assert haiku is not None
    assert old is not None
    assert [True, True, True, None, None] == [haiku.takes_beta(beta) for beta in betas]
    assert [False, False, True, None, None] == [old.takes_beta(beta) for beta in betas]
    assert all(isinstance(model.takes_beta(beta), bool) for model in load_models() for beta in load_betas())


def test_a_listing_of_what_we_know_changes_nothing() -> None:
    models, at = load_models(), datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    listing = [describe(model, at) for model in models]

    assert list(models) == list(models.refreshed(listing))


def test_a_listing_wins_over_the_table() -> None:
    told = {
        "id": "claude-haiku-5-5",
        "lifecycle": "deprecated",
        "retires_at": "2027-10-07T00:00:00Z",
        "max_input_tokens": 2_000_000,
        "max_tokens": 256_000,
        "capabilities": {
            "effort": {"supported": True, "low": {"supported": True}, "max": {"supported": False}},
            "thinking": {
                "supported": True,
                "types": {"adaptive": {"supported": True}, "disabled": {"supported": False}},
            },
            "context_management": {
                "supported": True,
                "clear_thinking_20251015": {"supported": False},
                "x": {"supported": True},
            },
        },
    }

    haiku = load_models().refreshed([told]).get("claude-haiku-5-5")

    assert haiku is not None
    assert ("deprecated", date(2027, 10, 7), 2_000_000, 256_000) == (
        haiku.lifecycle,
        haiku.retires,
        haiku.window,
        haiku.max_output,
    )
    assert (frozenset({"low"}), frozenset({"adaptive"}), "always", False) == (
        haiku.efforts,
        haiku.accepts_thinking,
        haiku.thinking,
        haiku.takes_compaction,
    )


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"id": 7, "line": "haiku-like"},
        {"id": "claude-haiku-5-5", "lifecycle": "new", "retires_at": "soon", "max_tokens": True},
        {"id": "claude-haiku-5-5", "max_input_tokens": -1, "max_tokens": 10**12, "capabilities": []},
        {
            "id": "claude-haiku-5-5",
            "capabilities": {"thinking": {"types": ["adaptive"]}, "effort": {"low": 1}},
        },
    ],
)
def test_what_is_garbled_in_a_listing_is_passed_over(row: dict[str, object]) -> None:
    assert list(load_models()) == list(load_models().refreshed([row]))


def test_a_model_that_only_the_listing_names_is_taken_for_what_it_tells() -> None:
    row = {"id": "claude-opus-6", "line": "opus", "lifecycle": "active", "max_tokens": 200_000}

    opus = load_models().refreshed([row]).get("claude-opus-6")

    assert opus is not None
    assert ("opus", "active", 200_000, "none", False, ()) == (
        opus.line,
        opus.lifecycle,
        opus.max_output,
        opus.sampling,
        opus.takes_prefill,
        opus.tools,
    )
