from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from leastwise.errors import ConfigError
from leastwise.ladder import (
    DEFAULT_LADDER,
    REFERENCE_LADDER,
    Baseline,
    Code,
    Decision,
    Ladder,
    Outcome,
    Reason,
    Task,
    Tier,
)

HAIKU, SONNET, OPUS = DEFAULT_LADDER.tiers


def test_a_ladder_is_read_by_name_rank_and_model() -> None:
    assert [HAIKU, SONNET, OPUS] == list(DEFAULT_LADDER)
    assert (SONNET, 1, OPUS) == (DEFAULT_LADDER["sonnet"], DEFAULT_LADDER.rank("sonnet"), DEFAULT_LADDER.top)
    assert "opus" in DEFAULT_LADDER
    assert "claude-opus-5-5" not in DEFAULT_LADDER
    assert OPUS == DEFAULT_LADDER.of_model("claude-opus-5-5")
    assert None is DEFAULT_LADDER.of_model("claude-opus-4-6")
    assert "claude-opus-4-6" == REFERENCE_LADDER.top.model


def test_an_unknown_tier_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^no tier is named 'gpt'; the ladder has haiku, sonnet, opus$"):
        DEFAULT_LADDER["gpt"]
    with pytest.raises(ConfigError, match=r"^no tier is named 'gpt'"):
        DEFAULT_LADDER.rank("gpt")


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ((), "the ladder has no tier"),
        ((Tier("small", "a"), Tier("small", "b")), "two tiers are named 'small'"),
        ((Tier("auto", "a"),), "a tier cannot be named 'auto'"),
        ((Tier("claude-auto", "a"),), "a tier cannot be named 'claude-auto'"),
        ((Tier("", "a"),), "a tier has an empty name"),
    ],
    ids=["empty", "twice", "auto", "claude-auto", "nameless"],
)
def test_a_ladder_that_cannot_be_meant_is_refused(tiers: tuple[Tier, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Ladder(tiers)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"complexity": "hard"}, "complexity='hard': expected one of simple, standard, complex"),
        (
            {"instead_of": "claude-auto"},
            "instead_of='claude-auto': name the model that would have been called",
        ),
        ({"expected_output_tokens": 0}, "expected_output_tokens=0: expected a whole number from 1"),
        ({"expected_output_tokens": True}, "expected_output_tokens=True: expected a whole number from 1"),
        ({"expected_output_words": 2.5}, r"expected_output_words=2\.5: expected a whole number from 1"),
        ({"threshold": "3"}, "threshold='3': expected a number on the check's scale, such as 3"),
        ({"threshold": float("nan")}, "threshold=nan: expected a number on the check's scale"),
    ],
    ids=["complexity", "instead of auto", "zero", "bool", "float", "text", "nan"],
)
def test_a_task_that_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Task(**given)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({}, None),
        ({"expected_output_tokens": 5}, 5),
        ({"expected_output_words": 100}, 130),
        ({"expected_output_tokens": 5, "expected_output_words": 100}, 5),
    ],
    ids=["untold", "tokens", "words", "both"],
)
def test_the_expected_size_in_tokens(given: dict[str, Any], tokens: int | None) -> None:
    assert tokens == Task(**given).output_tokens


def test_codes_are_safe_to_put_into_a_header_and_all_different() -> None:
    assert len(Code) == len({code.value for code in Code})
    assert [] == [code for code in Code if not code.replace("_", "").isalpha() or not code.isascii()]


def test_a_decision_gives_its_reasons_in_words_and_in_order() -> None:
    reasons = (Reason(Code.RULE, "rule 'spam or not'", "", "haiku"), Reason(Code.RAISED, "has an image"))
    decision = Decision(
        model="claude-haiku-5-5",
        tier="haiku",
        upstream="anthropic",
        fallback="claude-haiku-5-5",
        asked="auto",
        mode="auto",
        complexity="simple",
        task_type="",
        is_sure=True,
        would="",
        max_tokens=None,
        reasons=reasons,
        baseline=Baseline("claude-opus-5-5", "assumed"),
        input_tokens=12,
    )

    assert "rule 'spam or not'; has an image" == decision.reason
    assert "has an image" == str(reasons[1])


def outcome(**given: Any) -> Outcome:
    facts: dict[str, Any] = {
        "exchange": "01K", "tier": "haiku", "model": "claude-haiku-5-5", "asked": "auto", "mode": "auto",
        "complexity": "simple", "reasons": (Reason(Code.RULE, "rule 'spam'"),),
        "cost_usd": Decimal("0.000021"), "baseline_usd": Decimal("0.00084"),
        "baseline_model": "claude-opus-5-5", "baseline_how": "asked",
        "saved_usd": Decimal("0.000819"), "could_save_usd": Decimal(0), "would": "",
        "same_quality": "not measured", "input_tokens": 20, "output_tokens": 1, "usage_by_tier": {},
        "certainty": "exact", "result": "ok",
    }  # fmt: skip
    return Outcome(**{**facts, **given})


def test_an_outcome_in_one_line() -> None:
    assert "haiku $0.000021, claude-opus-5-5 $0.000840; rule 'spam'" == str(outcome())
    assert "haiku $0.000021, claude-opus-5-5 $0.000840 (assumed); rule 'spam'" == str(
        outcome(baseline_how="assumed")
    )
    assert "claude-opus-5-5 $0.000840; rule 'spam'" == str(
        outcome(tier="", model="claude-opus-5-5", cost_usd=Decimal("0.00084"))
    )
