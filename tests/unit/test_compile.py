"""What a request becomes for another model: each rule, both ways, for every model of the table."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from leastwise import compile as fitting
from leastwise.messages import Request
from leastwise.models import EFFORTS, Model, Models, load_models
from tests.kit import HAIKU, OPUS, SONNET, request

MODELS = load_models()
OLD = "claude-haiku-4-5"
TOOL = {"name": "look", "input_schema": {"type": "object"}}
ASK = {"role": "user", "content": "Hello"}
CALL = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t"}
EMPTY: dict[str, Any] = {"model": "auto", "max_tokens": 2_000, "messages": [ASK]}
LOOP = [ASK, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]


@dataclass(frozen=True)
class Fit:
    """What has to differ, and the request that comes of it."""

    request: Request
    changes: Mapping[str, str]
    misfit: str
    words: str


def fit(asked: Request, target: str, models: Models, *, is_strict: bool = False) -> Fit:
    found = fitting.fit(asked, target, models, is_strict=is_strict)
    return Fit(found.apply(asked), found.changes, found.misfit, found.words)


every = pytest.mark.parametrize("target", list(MODELS), ids=lambda model: model.id)


def to(target: Model | str, asked: str = "some-other-model", /, **members: Any) -> Fit:
    id_ = target if isinstance(target, str) else target.id
    return fit(request(asked, **{"max_tokens": 2_000, **members}), id_, MODELS)


def fits(target: Model | str, asked: str = "some-other-model", /, **members: Any) -> bool:
    return to(target, asked, **members).misfit == ""


def sent(found: Fit) -> Mapping[str, Any]:
    """Return what was changed, beside the model."""
    return {name: value for name, value in found.request.changes.items() if name != "model"}


@every
def test_a_plain_request_goes_everywhere_as_it_is(target: Model) -> None:
    found = to(target, system="Be brief", stop_sequences=["x"], metadata={"user_id": "u"}, stream=True)

    assert ("", {}, target.id) == (found.misfit, found.changes, found.request.model)
    assert {"model": target.id} == found.request.changes


@every
def test_the_asked_model_itself_gets_what_was_received(target: Model) -> None:
    received = request(target.id, container="c", temperature=2, max_tokens=10**9)

    found = fit(received, target.id, MODELS)

    assert found.request is received
    assert ("", {}) == (found.misfit, found.changes)


def test_a_fitted_request_ends_with_the_received_one() -> None:
    def kept() -> int:
        return sum(isinstance(one, Fit) for one in gc.get_objects())

    received = request(OPUS, max_tokens=2_000)
    gc.collect()
    gc.disable()
    try:
        before = kept()
        fit(received, HAIKU, MODELS)
        fit(received, SONNET, MODELS)
        del received
        assert before == kept()
    finally:
        gc.enable()


def test_a_reason_is_no_place_for_long_names() -> None:
    assert 200 == len(to(HAIKU, OPUS, **{"x" * 10_000: 1}).misfit)


def test_what_was_worked_out_once_is_not_worked_out_again() -> None:
    received = request(OPUS, max_tokens=2_000)

    once = fitting.fit(received, HAIKU, MODELS)

    assert once is fitting.fit(received, HAIKU, MODELS)
    assert once is not fitting.fit(received.replace(model="auto"), HAIKU, MODELS)


# --- effort -----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("effort", EFFORTS)
def test_effort_is_kept_lowered_or_left_out(target: Model, effort: str) -> None:
    found = to(target, output_config={"effort": effort})
    lower = [level for level in EFFORTS[: EFFORTS.index(effort) + 1] if level in target.efforts]
    expected: dict[str, Any] = {"output_config": {"effort": lower[-1]}} if lower else {"output_config": ...}

    assert "" == found.misfit
    if effort in target.efforts:
        assert {} == sent(found)
    elif lower:
        assert expected == sent(found)
        assert f"{effort} -> {lower[-1]}" == found.changes["output_config.effort"]
    else:
        assert "output_config" not in found.request
        assert "removed" == found.changes["output_config.effort"]


def test_what_stands_beside_effort_stays() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}

    found = to(OLD, OPUS, output_config={"effort": "high", "format": form, "task_budget": {"total": 9}})

    assert {"output_config": {"format": form}} == sent(found)
    assert {"output_config.effort", "output_config.task_budget"} == found.changes.keys()


def test_an_effort_or_a_setting_nobody_knows_stays() -> None:
    assert "its effort is not known" == to(HAIKU, output_config={"effort": "enormous"}).misfit
    assert "not known to be safe to move: output_config.x" == to(HAIKU, output_config={"x": 1}).misfit


# --- thinking ---------------------------------------------------------------------------------------

BUDGETED = {"type": "enabled", "budget_tokens": 4_096}
TRANSLATED: list[tuple[str, str, str, dict[str, Any], dict[str, Any], dict[str, str]]] = [
    (
        "a budget becomes an effort",
        "claude-opus-4-6",
        HAIKU,
        {"thinking": {**BUDGETED, "display": "summarized"}, "max_tokens": 20_000},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "medium"}},
        {"thinking": "enabled -> adaptive", "output_config.effort": "medium"},
    ),
    (
        "the caller's own effort counts",
        "claude-opus-4-6",
        HAIKU,
        {"thinking": BUDGETED, "output_config": {"effort": "low"}, "max_tokens": 20_000},
        {"thinking": {"type": "adaptive"}},
        {"thinking": "enabled -> adaptive"},
    ),
    (
        "an effort becomes a budget, with room for the answer",
        OPUS,
        OLD,
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}, "max_tokens": 8_000},
        {"thinking": {"type": "enabled", "budget_tokens": 4_000}, "output_config": ...},
        {"thinking": "enabled, at most 4,000 tokens", "output_config.effort": "removed"},
    ),
    (
        "the asked model's default effort becomes a budget",
        OPUS,
        OLD,
        {"thinking": {"type": "adaptive", "display": "omitted"}, "max_tokens": 128_000},
        {"thinking": {"type": "enabled", "budget_tokens": 10_000}, "max_tokens": 64_000},
        {"thinking": "adaptive -> enabled, at most 10,000 tokens", "max_tokens": "128,000 -> 64,000"},
    ),
    (
        "a cap without room for a budget gives thinking up",
        OPUS,
        OLD,
        {"thinking": {"type": "adaptive"}, "max_tokens": 1_024},
        {"thinking": ...},
        {"thinking": "removed"},
    ),
    (
        "a forced tool excludes it there",
        "claude-opus-5",
        OLD,
        {"thinking": {"type": "adaptive"}, "tools": [TOOL], "tool_choice": {"type": "any"}},
        {"thinking": ...},
        {"thinking": "removed"},
    ),
    (
        "calls made without it are answered without",
        OPUS,
        OLD,
        {"thinking": {"type": "adaptive"}, "messages": LOOP, "tools": [TOOL]},
        {"thinking": ...},
        {"thinking": "removed"},
    ),
    (
        "a second turn in a row is the same turn to the API",
        OPUS,
        OLD,
        {"thinking": {"type": "adaptive"}, "messages": [*LOOP, ASK], "tools": [TOOL]},
        {"thinking": ...},
        {"thinking": "removed"},
    ),
    (
        "sonnet has an off switch of its own",
        "claude-opus-5",
        SONNET,
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "between_tools"}},
        {"thinking": "disabled -> between_tools"},
    ),
    (
        "and others have the plain one",
        SONNET,
        HAIKU,
        {"thinking": {"type": "between_tools"}, "output_config": {"effort": "high"}},
        {"thinking": {"type": "disabled"}},
        {"thinking": "between_tools -> disabled"},
    ),
    (
        "opus has none, and is held down",
        "claude-opus-5",
        OPUS,
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}},
        {"thinking": ..., "output_config": {"effort": "low"}},
        {"thinking": "removed", "output_config.effort": "high -> low"},
    ),
    (
        "the highest efforts need thinking",
        "claude-opus-4-8",
        HAIKU,
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
        {"output_config": {"effort": "high"}},
        {"output_config.effort": "max -> high"},
    ),
    (
        "a binding that is no use there goes",
        OPUS,
        "claude-sonnet-5",
        {"thinking": {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}},
        {"thinking": {"type": "adaptive"}},
        {"thinking.block_binding": "removed"},
    ),
    (
        "a budget above a lowered cap is lowered",
        "claude-sonnet-4-6",
        OLD,
        {"thinking": {"type": "enabled", "budget_tokens": 70_000}, "max_tokens": 100_000},
        {"thinking": {"type": "enabled", "budget_tokens": 32_000}, "max_tokens": 64_000},
        {"thinking": "enabled, at most 32,000 tokens", "max_tokens": "100,000 -> 64,000"},
    ),
    (
        "a small cap of a model that does not think",
        OLD,
        HAIKU,
        {"max_tokens": 1_024},
        {"thinking": {"type": "disabled"}},
        {"thinking": "disabled, for the cap leaves it no room"},
    ),
    (
        "the same with an effort",
        "claude-opus-4-6",
        SONNET,
        {"max_tokens": 50, "output_config": {"effort": "max"}},
        {"thinking": {"type": "between_tools"}, "output_config": {"effort": "high"}},
        {"thinking": "between_tools, for the cap leaves it no room", "output_config.effort": "max -> high"},
    ),
    (
        "a small cap of a request that leaves the choice to us",
        "auto",
        HAIKU,
        {"max_tokens": 50},
        {"thinking": {"type": "disabled"}},
        {"thinking": "disabled, for the cap leaves it no room"},
    ),
    ("opus cannot be told", "auto", OPUS, {"max_tokens": 50}, {}, {}),
    ("a model that thinks too knows its cap", OPUS, HAIKU, {"max_tokens": 50}, {}, {}),
    ("there is room", OLD, HAIKU, {"max_tokens": 1_025}, {}, {}),
]


@pytest.mark.parametrize(
    ("asked", "target", "members", "changed", "words"),
    [pytest.param(*rest, id=name) for name, *rest in TRANSLATED],
)
def test_thinking_is_translated(
    asked: str, target: str, members: dict[str, Any], changed: dict[str, Any], words: dict[str, str]
) -> None:
    found = to(target, asked, **members)

    gone = {name for name, value in changed.items() if value is ...}
    kept = {name: value for name, value in changed.items() if value is not ...}
    assert "" == found.misfit
    assert words == found.changes
    assert gone == sent(found).keys() - found.request.names
    assert kept == {name: value for name, value in sent(found).items() if name not in gone}


@pytest.mark.parametrize(
    ("budget", "effort"),
    [
        (1_024, "low"),
        (2_048, "low"),
        (10_000, "medium"),
        (16_000, "high"),
        (32_000, "xhigh"),
        (32_001, "max"),
    ],
)
def test_a_budget_is_worth_an_effort(budget: int, effort: str) -> None:
    thinking = {"type": "enabled", "budget_tokens": budget}

    assert {"effort": effort} == to(HAIKU, OLD, thinking=thinking, max_tokens=64_000).request.get(
        "output_config"
    )


@pytest.mark.parametrize(
    "thinking", [{"type": "deep"}, {}, "on", {"type": "enabled"}, {"type": "enabled", "budget_tokens": "9"}]
)
def test_thinking_that_cannot_be_read_stays(thinking: object) -> None:
    assert "what it says of thinking cannot be read" == to(HAIKU, OPUS, thinking=thinking).misfit


def test_what_thinks_first_needs_room() -> None:
    words = f"{OPUS} thinks first, and max_tokens leaves no room for it"

    assert words == to(OPUS, OLD, max_tokens=1_024).misfit
    assert words == to(OPUS, OLD, thinking={"type": "disabled"}, max_tokens=1_024).misfit
    assert fits(OPUS, OLD, thinking={"type": "disabled"}, max_tokens=1_025)


# --- sampling ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"temperature": 0.5}, {"any": {"temperature"}, "one": {"temperature"}}),
        ({"top_p": 0.5}, {"any": {"top_p"}, "one": {"top_p"}}),
        ({"top_k": 5}, {"any": {"top_k"}, "one": {"top_k"}}),
        ({"temperature": 1}, {"any": {"temperature"}, "one": {"temperature"}, "defaults": {"temperature"}}),
        (
            {"temperature": 1, "top_p": 0.99},
            {"any": {"temperature", "top_p"}, "one": {"temperature"}, "defaults": {"temperature", "top_p"}},
        ),
    ],
)
def test_sampling_goes_where_it_is_taken(
    target: Model, given: dict[str, Any], kept: dict[str, set[str]]
) -> None:
    found = to(target, **given)

    assert "" == found.misfit
    assert kept.get(target.sampling, set()) == given.keys() & found.request.names
    assert dict.fromkeys(given.keys() - found.request.names, "removed") == found.changes


def test_no_sampling_goes_anywhere_under_a_version_that_has_none() -> None:
    asked = Request.of({**EMPTY, "temperature": 1, "top_p": 0.99, "top_k": 3}, version="2026-10-21")

    for target in MODELS:
        found = fit(asked, target.id, MODELS)
        assert dict.fromkeys(("temperature", "top_p", "top_k"), "removed") == found.changes


def test_sampling_beside_thinking_is_what_thinking_allows() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    given = {"temperature": 1, "top_p": 0.9, "top_k": 3}

    assert {"top_p", "top_k"} == to("claude-sonnet-4-6", OLD, thinking=thinking, **given).changes.keys()
    assert {"temperature"} == to(
        "claude-sonnet-4-6", OLD, thinking=thinking, temperature=0, top_p=0.95
    ).changes.keys()


# --- tools ------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("choice", ["auto", "none", "any", "tool"])
def test_a_tool_choice_fits_where_it_may_be_forced(target: Model, choice: str) -> None:
    is_free = choice in {"auto", "none"}
    assert (is_free or target.takes_forced_tool_choice) is fits(
        target, tools=[TOOL], tool_choice={"type": choice, "name": "look"}
    )


@every
@pytest.mark.parametrize(
    "kind",
    [
        "bash_20250124",
        "browser_toolset_20260801",
        "code_execution_20250522",
        "code_execution_20260521",
        "computer_20250124",
        "computer_toolset_20260801",
        "tool_search_tool_bm25_20251119",
        "web_search_20260318",
        "what_comes_next",
    ],
)
def test_a_server_tool_goes_where_its_version_is_taken(target: Model, kind: str) -> None:
    assert target.takes_tool(kind) is fits(target, tools=[TOOL, {"type": kind, "name": "x"}], max_tokens=9)


@pytest.mark.parametrize("tools", [5, {"a": 1}, "look", [5], [{"type": 5}], [{"type": ["x"]}]])
def test_tools_that_cannot_be_read_stay(tools: object) -> None:
    assert "a tool cannot be read" == to(HAIKU, tools=tools).misfit


def test_which_tools_the_tiers_take() -> None:
    haiku, old = MODELS.get(HAIKU), MODELS.get(OLD)

    assert haiku is not None
    assert old is not None
    assert haiku.takes_tool("computer_toolset_20260801")
    assert not haiku.takes_tool("computer_20250124")
    assert haiku.takes_tool("code_execution_20250825")
    assert not haiku.takes_tool("code_execution_20250522")
    assert old.takes_tool("computer_20250124")
    assert not old.takes_tool("browser_toolset_20260801")
    assert (True, False) == (haiku.takes_deferred_tools, old.takes_deferred_tools)


@every
def test_a_deferred_tool_goes_where_tools_can_be_found(target: Model) -> None:
    assert fits(target, tools=[{**TOOL, "type": "custom", "strict": True}])
    assert target.takes_deferred_tools is fits(target, tools=[{**TOOL, "defer_loading": True}])
    assert not fits(target, tools=["x"])


# --- the conversation -------------------------------------------------------------------------------


@every
def test_a_prefill_fits_where_it_is_taken(target: Model) -> None:
    turns = [ASK, {"role": "assistant", "content": "{"}]
    assert target.takes_prefill is fits(target, messages=turns)
    assert fits(target, messages=[*turns, ASK])


@every
def test_a_system_message_in_the_middle_fits_where_it_is_taken(target: Model) -> None:
    turns = [ASK, {"role": "system", "content": "Be brief"}, ASK]
    assert target.takes_mid_system is fits(target, messages=turns)


@pytest.mark.parametrize("kind", ["text", "image", "document", "tool_use", "tool_result", "thinking"])
def test_known_blocks_move(kind: str) -> None:
    turns = [{"role": "user", "content": [{"type": kind}]}]
    assert fits("no-model-of-the-table", messages=turns)
    assert fits(OLD, messages=turns)


@every
def test_what_the_apis_own_tools_left_goes_where_they_are_taken(target: Model) -> None:
    search = {"role": "assistant", "content": [{"type": "server_tool_use"}]}
    assert target.takes_deferred_tools is fits(target, messages=[ASK, search, ASK])
    assert target.takes_mid_system is fits(
        target, messages=[{"role": "user", "content": [{"type": "tool_addition"}]}]
    )
    assert not fits(target, messages=[ASK, search])  # paused


@pytest.mark.parametrize("kind", ["container_upload", "compaction", "fallback", "mcp_tool_use", None, 7])
def test_other_blocks_stay(kind: object) -> None:
    turns = [ASK, {"role": "assistant", "content": [{"type": kind}]}, ASK]
    assert f"the conversation holds a {kind} block" == to(HAIKU, OPUS, messages=turns).misfit


# --- limits -----------------------------------------------------------------------------------------


@every
def test_the_cap_is_lowered_to_the_most_output(target: Model) -> None:
    found = to(target, max_tokens=target.max_output + 1)

    assert target.max_output == found.request.max_tokens
    assert {"max_tokens": f"{target.max_output + 1:,} -> {target.max_output:,}"} == found.changes
    assert {} == to(target, max_tokens=target.max_output).changes


@every
def test_what_only_fills_a_prompt_cache_fills_the_asked_models(target: Model) -> None:
    assert "it only fills a prompt cache, which is the asked model's own" == to(target, max_tokens=0).misfit


@every
def test_the_prompt_and_the_cap_fit_into_the_window(target: Model) -> None:
    ask = {"role": "user", "content": "x" * (2 * target.window - 10_000)}
    assert fits(target, messages=[ask], max_tokens=1_100)
    assert (
        f"the prompt may exceed the window of {target.id}"
        == to(target, messages=[ask], max_tokens=6_000).misfit
    )


# --- members and betas ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["container", "mcp_servers", "thread", "fallbacks", "billing_policy", "compaction", "what_comes_next"],
)
def test_what_is_not_known_to_be_safe_stays(name: str) -> None:
    assert f"not known to be safe to move: {name}" == to(HAIKU, OPUS, **{name: "x"}).misfit


@every
def test_members_that_some_models_lack(target: Model) -> None:
    assert target.has_fast is fits(target, speed="fast")
    assert target.has_priority is fits(target, service_tier="auto")
    assert target.has_geo is fits(target, inference_geo="us")
    assert fits(target, speed="standard", service_tier="standard_only", cache_control={"type": "ephemeral"})
    assert {"diagnostics": "removed"} == to(target, diagnostics={}).changes


def test_context_is_managed_as_far_as_the_model_can() -> None:
    thinking, tools = {"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}

    both = to(OLD, OPUS, context_management={"edits": [thinking, tools]})
    only = to(OLD, OPUS, context_management={"edits": [thinking]})

    assert {"edits": [tools]} == both.request.get("context_management")
    assert "context_management" not in only.request
    assert {"context_management": "removed"} == both.changes == only.changes
    assert {} == to(OLD, OPUS, context_management={"edits": [tools]}).changes
    assert {} == to(HAIKU, OPUS, context_management={"edits": [thinking]}).changes
    compacts = to(OLD, OPUS, context_management={"edits": [{"type": "compact_20260112"}]})
    assert f"{OLD} is not known to take compaction" == compacts.misfit


def with_betas(*betas: str) -> Request:
    return Request.of({"model": OPUS, "max_tokens": 2_000, "messages": [ASK]}, betas=betas)


def test_betas_go_where_they_mean_something() -> None:
    asked = with_betas("effort-2025-11-24", "interleaved-thinking-2025-05-14")

    assert (asked.betas, {}) == (fit(asked, HAIKU, MODELS).request.betas, fit(asked, HAIKU, MODELS).changes)
    old = fit(asked, OLD, MODELS)
    assert ("interleaved-thinking-2025-05-14",) == old.request.betas
    assert {"anthropic-beta.effort-2025-11-24": "removed"} == old.changes
    assert "anthropic-beta.effort-2025-11-24 removed" == old.words


def test_a_beta_nobody_knows_stays() -> None:
    asked = with_betas("what-comes-next-2027-01-01")

    assert "not known to be safe to move: beta what-comes-next-2027-01-01" == fit(asked, HAIKU, MODELS).misfit
    assert "" == fit(asked, OPUS, MODELS).misfit
    assert "not known to be safe to move: beta effort-2025-11-24" == (
        fit(with_betas("effort-2025-11-24"), "llama3.2", MODELS).misfit
    )


# --- strict, and models that nobody knows -----------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (request(OPUS, temperature=0.5), "temperature"),
        (request("claude-sonnet-4-6", output_config={"effort": "high"}), "output_config.effort"),
        (
            request(OPUS, context_management={"edits": [{"type": "clear_thinking_20251015"}]}),
            "context_management",
        ),
        (with_betas("effort-2025-11-24"), "anthropic-beta.effort-2025-11-24"),
    ],
)
def test_strict_refuses_what_would_be_left_out(asked: Request, path: str) -> None:
    target = HAIKU if "temperature" in asked else OLD

    assert f"strict: {path} would have to be left out" == fit(asked, target, MODELS, is_strict=True).misfit


def test_strict_translates_all_the_same() -> None:
    asked = request("claude-opus-5", max_tokens=2_000, thinking={"type": "disabled"})

    assert "" == fit(asked, SONNET, MODELS, is_strict=True).misfit


def test_a_model_off_the_table_is_judged_by_the_request_alone() -> None:
    assert {} == to("llama3.2", temperature=1, max_tokens=10**6).changes
    assert not fits("llama3.2", container="c")


def test_an_id_in_another_spelling_is_the_same_model() -> None:
    assert {"temperature"} == to("us.anthropic.claude-opus-5-5-v1:0", temperature=1).changes.keys()
    assert {} == to("us.anthropic.claude-haiku-4-5-20251001-v1:0", temperature=1).changes


def test_the_bytes_of_the_prompt_are_the_callers_own() -> None:
    turns = b'[{"content":"\\u0048i" ,"role":"user"}]'
    body = b'{ "model":"claude-opus-5-5" ,"max_tokens":2000,"messages":' + turns + b',"top_k":1}'

    found = fit(Request.parse(body), HAIKU, MODELS)

    expected = b'{"model":"claude-haiku-5-5","max_tokens":2000,"messages":' + turns + b"}"
    assert expected == found.request.body()


def test_a_model_that_takes_no_thinking_or_no_low_effort() -> None:
    opus = MODELS.get(OPUS)
    assert opus is not None
    odd = Models(
        [replace(opus, id="odd", accepts_thinking=frozenset({"disabled"}), efforts=frozenset({"high"}))]
    )
    always = Models([replace(opus, id="odd", efforts=frozenset({"high"}))])

    adaptive = fit(request("x", max_tokens=2_000, thinking={"type": "adaptive"}), "odd", odd)
    off = fit(request("x", max_tokens=2_000, thinking={"type": "disabled"}), "odd", always)

    assert "odd is not known to take thinking 'adaptive'" == adaptive.misfit
    assert ("", {"thinking": "removed"}) == (off.misfit, off.changes)
