"""`preset = "reference"` gives the two routing designs as first described, with their defaults."""

from __future__ import annotations

from typing import Any

import pytest

from leastwise.ladder import REFERENCE_LADDER, Code, Complexity, Decision, Ladder, Task, Tier
from leastwise.routing import Policy, Router, Signals

ROUTER = Router(REFERENCE_LADDER, Policy.reference())

SIMPLE = (
    "classify",
    "is this",
    "yes or no",
    "true or false",
    "extract the",
    "what is the sentiment",
    "detect the language",
    "which category",
    "spam or not",
    "positive or negative",
    "label this",
    "tag this",
    "is it a",
)
COMPLEX = (
    "implement",
    "build",
    "design",
    "architect",
    "analyze in depth",
    "multi-step",
    "comprehensive",
    "research",
    "compare and contrast",
    "write a complete",
    "full implementation",
    "debug this complex",
)


def decide(prompt: str = "text", task: Task | None = None, **members: Any) -> Decision:
    turn = {"role": "user", "content": prompt}
    return ROUTER.decide({"model": "auto", "max_tokens": 8192, "messages": [turn], **members}, task)


# --- way 1: task routing -----------------------------------------------------------------------------


def test_ids() -> None:
    names = [(tier.name, tier.model) for tier in REFERENCE_LADDER]

    assert [
        ("haiku", "claude-haiku-4-5"),
        ("sonnet", "claude-sonnet-4-6"),
        ("opus", "claude-opus-4-6"),
    ] == names


@pytest.mark.parametrize(
    ("complexity", "model", "max_tokens"),
    [
        ("simple", "claude-haiku-4-5", 50),
        ("standard", "claude-sonnet-4-6", 1024),
        ("complex", "claude-opus-4-6", 4096),
    ],
)
def test_forced_complexity_gives_tier_and_max_tokens(
    complexity: Complexity, model: str, max_tokens: int
) -> None:
    decision = decide("classify this", Task("implement it", complexity=complexity))

    assert (complexity, model, max_tokens) == (decision.complexity, decision.model, decision.max_tokens)


@pytest.mark.parametrize("phrase", SIMPLE)
@pytest.mark.parametrize("form", ["{}", "Please {} text.", "IMPLEMENT: {}!"])
def test_simple_phrases_in_the_description(phrase: str, form: str) -> None:
    assert ("simple", "haiku", 50) == facts(decide(task=Task(form.format(phrase))))


@pytest.mark.parametrize("phrase", COMPLEX)
@pytest.mark.parametrize("form", ["{}", "Please {} text."])
def test_complex_phrases_in_the_description(phrase: str, form: str) -> None:
    assert ("complex", "opus", 4096) == facts(decide(task=Task(form.format(phrase))))


@pytest.mark.parametrize(
    "description", ["write a poem", "rebuild the building", "a redesigned researcher", "reclassify"]
)
def test_everything_else_is_standard_and_words_are_whole(description: str) -> None:
    decision = decide("classify and implement", Task(description))

    assert ("standard", "sonnet", 1024) == facts(decision)
    assert Code.STANDARD == decision.reasons[0].code


def test_the_description_decides_and_the_prompt_does_not() -> None:
    assert "simple" == decide("design and build it", Task("classify the mail")).complexity
    assert "complex" == decide("is this spam or not?", Task("design a filter")).complexity


def test_the_ask_decides_where_nothing_is_described() -> None:
    assert "simple" == decide("is this proof right?").complexity
    assert "complex" == decide("design a filter").complexity


def test_size_does_not_move_what_the_lists_say() -> None:
    decision = decide("word " * 5000, Task("classify it", has_code=True, has_tools=True))

    assert ("simple", "haiku", 50) == facts(decision)


def facts(decision: Decision) -> tuple[str | None, str, int | None]:
    return decision.complexity, decision.tier, decision.max_tokens


# --- way 2: signals ----------------------------------------------------------------------------------


def test_thresholds() -> None:
    assert (500, 3000, 100, 1000) == (
        Signals().small_input_tokens,
        Signals().large_input_tokens,
        Signals().small_output_tokens,
        Signals().large_output_tokens,
    )


@pytest.mark.parametrize(
    ("words", "task", "members", "tier"),
    [
        (10, Task(expected_output_tokens=100), {}, "haiku"),
        (10, Task(expected_output_tokens=101), {}, "sonnet"),
        (10, Task(expected_output_words=77), {}, "haiku"),  # 100.1, rounded
        (10, Task(expected_output_words=78), {}, "sonnet"),
        (10, Task(), {}, "sonnet"),  # an answer of untold size is not small
        (384, Task(expected_output_tokens=5), {}, "haiku"),  # 499.2 tokens
        (385, Task(expected_output_tokens=5), {}, "sonnet"),  # 500.5 tokens
        (10, Task(expected_output_tokens=5, has_code=True), {}, "sonnet"),
        (10, Task(expected_output_tokens=5, has_tools=True), {}, "sonnet"),
        (10, Task(expected_output_tokens=5), {"tools": [{"name": "t"}]}, "sonnet"),
        (10, Task(expected_output_tokens=5, has_tools=False), {"tools": [{"name": "t"}]}, "haiku"),
        (9000, Task(), {}, "sonnet"),  # the reference never reaches its top tier here
        (10, Task(expected_output_tokens=50_000, has_code=True), {}, "sonnet"),
    ],
)
def test_signals(words: int, task: Task, members: dict[str, Any], tier: str) -> None:
    decision = decide("word " * words, task, **members)

    assert (tier, Code.SIGNALS) == (decision.tier, decision.reasons[0].code)


@pytest.mark.parametrize(
    "code", ["```x```", "def f(x):", "class Foo:", "function f() {}", "import os", "<div>"]
)
def test_code_is_found(code: str) -> None:
    assert "sonnet" == decide(f"see\n{code}", Task(expected_output_tokens=5)).tier


def test_the_reason_names_the_numbers() -> None:
    decision = decide("word " * 10, Task(expected_output_tokens=20))

    assert "signals: ~13 tokens in, 20 out, no code, no tools" == decision.reason


@pytest.mark.parametrize(("expected", "max_tokens"), [(None, 256), (5, 50), (50, 50), (99, 99), (5000, 4096)])
def test_way_two_clamps_the_expected_size(expected: int | None, max_tokens: int) -> None:
    assert max_tokens == decide("word", Task(expected_output_tokens=expected)).max_tokens


# --- the clamp, under the truncation rule ------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "clamped"),
    [
        ({}, 50),
        ({"max_tokens": 51}, 50),
        ({"max_tokens": 50}, None),
        ({"max_tokens": 10}, None),
        ({"max_tokens": None}, 50),
        ({"stream": True}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, 50),
    ],
)
def test_the_clamp_only_lowers_and_only_where_nothing_is_lost(
    members: dict[str, Any], clamped: int | None
) -> None:
    assert clamped == decide("x", Task("classify"), **members).max_tokens


def test_a_model_that_thinks_by_default_is_not_clamped() -> None:
    router = Router(policy=Policy.reference())

    assert router.decide("is this spam?").max_tokens is None


def test_an_unknown_model_is_not_clamped() -> None:
    ladder = Ladder((Tier("haiku", "my-own"), *REFERENCE_LADDER.tiers[1:]))

    assert Router(ladder, Policy.reference()).decide("is this spam?").max_tokens is None


def test_a_tier_forced_by_name_is_not_clamped() -> None:
    assert ROUTER.decide({"model": "haiku", "max_tokens": 900, "messages": []}).max_tokens is None


def test_no_clamp_outside_the_preset() -> None:
    assert Router(REFERENCE_LADDER).decide("is this spam?").max_tokens is None


def test_what_is_only_observed_is_not_clamped() -> None:
    turn = {"role": "user", "content": "is this spam?"}
    asked = {"model": "claude-opus-4-6", "max_tokens": 900, "messages": [turn]}

    observed = ROUTER.decide(asked)
    enforced = Router(REFERENCE_LADDER, Policy.reference(mode="enforce")).decide(asked)

    assert (None, 50) == (observed.max_tokens, enforced.max_tokens)
