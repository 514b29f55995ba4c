"""What may move to another model: each rule, both ways, for every model of the table."""

from __future__ import annotations

from typing import Any

import pytest

from leastwise.compile import misfit
from leastwise.messages import Request
from leastwise.models import Model, load_models
from tests.kit import HAIKU, OPUS, request

MODELS = load_models()
OLD = "claude-haiku-4-5"
TOOL = {"name": "look", "input_schema": {"type": "object"}}
ASK = {"role": "user", "content": "Hello"}

every = pytest.mark.parametrize("target", list(MODELS), ids=lambda model: model.id)


def fits(target: Model | str, asked: str = "some-other-model", /, **members: Any) -> bool:
    id_ = target if isinstance(target, str) else target.id
    return misfit(request(asked, **{"max_tokens": 2_000, **members}), id_, MODELS) is None


@every
def test_a_plain_request_fits_everywhere(target: Model) -> None:
    assert fits(target)
    assert fits(target, system="Be brief", stop_sequences=["x"], metadata={"user_id": "u"}, stream=True)


@every
def test_the_asked_model_itself_always_fits(target: Model) -> None:
    assert fits(target, target.id, container="c", temperature=2, max_tokens=10**9)


@every
@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max", "enormous"])
def test_effort_fits_where_the_level_is_taken(target: Model, effort: str) -> None:
    assert (effort in target.efforts) is fits(target, output_config={"effort": effort})


@every
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_fits_where_it_is_taken(target: Model, name: str) -> None:
    assert target.takes_sampling is fits(target, **{name: 1})


@every
@pytest.mark.parametrize("choice", ["auto", "none", "any", "tool"])
def test_a_tool_choice_fits_where_it_may_be_forced(target: Model, choice: str) -> None:
    is_free = choice in {"auto", "none"}
    assert (is_free or target.takes_forced_tool_choice) is fits(
        target, tools=[TOOL], tool_choice={"type": choice, "name": "look"}
    )


@every
def test_settings_that_do_not_go_together_everywhere_stay(target: Model) -> None:
    forced = {"tools": [TOOL], "tool_choice": {"type": "any"}}
    thinks = "off" != target.thinking
    takes_both = thinks and target.takes_forced_tool_choice and "adaptive" in target.accepts_thinking
    assert takes_both is fits(target, **forced, thinking={"type": "adaptive"})
    assert not fits(target, temperature=1, top_p=0.5)
    assert not fits(target, thinking={"type": "adaptive"}, temperature=1)
    for effort in ("xhigh", "max"):
        assert not fits(target, thinking={"type": "disabled"}, output_config={"effort": effort})
        assert not fits(target, thinking={"type": "between_tools"}, output_config={"effort": effort})


@every
def test_a_prefill_fits_where_it_is_taken(target: Model) -> None:
    turns = [ASK, {"role": "assistant", "content": "{"}]
    assert target.takes_prefill is fits(target, messages=turns)
    assert fits(target, messages=[*turns, ASK])


@every
def test_a_system_message_in_the_middle_fits_where_it_is_taken(target: Model) -> None:
    turns = [ASK, {"role": "system", "content": "Be brief"}, ASK]
    assert target.takes_mid_system is fits(target, messages=turns)


@every
@pytest.mark.parametrize("kind", ["adaptive", "enabled", "disabled", "between_tools", "deep"])
def test_thinking_fits_where_its_type_is_taken(target: Model, kind: str) -> None:
    assert (kind in target.accepts_thinking) is fits(target, thinking={"type": kind})


@every
def test_what_would_begin_to_think_needs_room(target: Model) -> None:
    assert ("off" == target.thinking or target.id == OLD) is fits(target, OLD, max_tokens=1_024)
    assert fits(target, OLD, max_tokens=1_025)
    assert fits(target, OPUS, max_tokens=1_024)  # which thinks, too


@every
def test_the_cap_fits_up_to_the_most_output(target: Model) -> None:
    assert fits(target, max_tokens=target.max_output)
    assert not fits(target, max_tokens=target.max_output + 1)


@every
def test_the_prompt_and_the_cap_fit_into_the_window(target: Model) -> None:
    ask = {"role": "user", "content": "x" * (target.window - 10_000)}
    assert fits(target, messages=[ask], max_tokens=1_100)
    assert not fits(target, messages=[ask], max_tokens=10_000)


@every
def test_a_server_tool_stays_where_it_is(target: Model) -> None:
    assert fits(target, tools=[TOOL, {**TOOL, "type": "custom"}])
    assert not fits(target, tools=[{"type": "web_search_20260318", "name": "web_search"}])


@pytest.mark.parametrize(
    "name",
    [
        "container",
        "mcp_servers",
        "thread",
        "context_management",
        "fallbacks",
        "service_tier",
        "speed",
        "cache_control",
        "inference_geo",
        "billing_policy",
        "diagnostics",
        "what_comes_next",
    ],
)
def test_what_is_not_known_to_be_safe_stays(name: str) -> None:
    reason = misfit(request(OPUS, **{name: "x"}), HAIKU, MODELS)
    assert f"not known to be safe to move: {name}" == reason


def test_a_beta_stays() -> None:
    asked = Request.of({"model": OPUS, "max_tokens": 9, "messages": [ASK]}, betas=["effort-2025-11-24"])
    assert "not known to be safe to move: beta effort-2025-11-24" == misfit(asked, HAIKU, MODELS)
    assert misfit(asked, OPUS, MODELS) is None


@pytest.mark.parametrize("kind", ["text", "image", "document", "tool_use", "tool_result"])
def test_known_blocks_move(kind: str) -> None:
    turns = [{"role": "user", "content": [{"type": kind}]}]
    assert fits("no-model-of-the-table", messages=turns)


@pytest.mark.parametrize(
    "kind",
    [
        "thinking",
        "redacted_thinking",
        "server_tool_use",
        "container_upload",
        "compaction",
        "fallback",
        None,
        7,
    ],
)
def test_other_blocks_stay(kind: object) -> None:
    turns = [ASK, {"role": "assistant", "content": [{"type": kind}]}, ASK]
    assert f"the conversation holds a {kind} block" == misfit(request(OPUS, messages=turns), HAIKU, MODELS)


def test_a_model_off_the_table_is_judged_by_the_request_alone() -> None:
    assert fits("llama3.2", temperature=1)
    assert not fits("llama3.2", container="c")


def test_an_id_in_another_spelling_is_the_same_model() -> None:
    assert not fits("us.anthropic.claude-opus-5-5-v1:0", temperature=1)
    assert fits("us.anthropic.claude-haiku-4-5-20251001-v1:0", temperature=1)
