"""The simulated API: as strict as the real one, exact in its books, faulty on demand."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest

from leastwise.messages import Usage
from leastwise.models import load_models
from leastwise.prices import cost, load_prices
from leastwise.simulate import MARK, Answer, Ask, Charge, Response, Simulator, app
from leastwise.simulate.answers import WRONG
from leastwise.sse import Events, Tap
from tests.kit import HAIKU, NOW, OPUS, SONNET, Clock

OLD_HAIKU = "claude-haiku-4-5"
CONTEXT = "context-management-2025-06-27"
CLEAR = {"type": "clear_thinking_20251015"}
HEADERS = {"X-Api-Key": "key", "Anthropic-Version": "2026-10-21"}
BUDGETED = {**HEADERS, "anthropic-beta": "task-budgets-2026-03-13"}
OLDER = {**HEADERS, "Anthropic-Version": "2023-06-01"}
ASK: list[dict[str, Any]] = [{"role": "user", "content": "Is this spam? Win $1000 now!"}]
TOOL = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
        "required": ["city", "unit"],
    },
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo", "unit": "C"}}


def simulator(**settings: Any) -> Simulator:
    return Simulator(**{"clock": Clock(), **settings})


def post(
    upstream: Simulator,
    *,
    path: str = "/v1/messages",
    headers: dict[str, str] = HEADERS,
    **members: Any,
) -> Response:
    body = {"model": OPUS, "max_tokens": 1000, "messages": ASK} | members
    kept = {name: value for name, value in body.items() if value is not ...}
    return upstream.handle("POST", path, headers, json.dumps(kept).encode())


def answer(upstream: Simulator, **members: Any) -> dict[str, Any]:
    response = post(upstream, **members)
    body: dict[str, Any] = json.loads(response.read())
    assert 200 == response.status, body
    return body


def refusal(**members: Any) -> str:
    """Return the words of the 400 that a request gets."""
    response = post(simulator(), **members)
    body = json.loads(response.read())
    assert 400 == response.status, body
    assert "invalid_request_error" == body["error"]["type"]
    return str(body["error"]["message"])


def said(body: dict[str, Any]) -> str:
    return "".join(block.get("text", "") for block in body["content"])


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text, **more}]}


def events(response: Response) -> list[tuple[str, Any]]:
    return [(event.name, json.loads(event.data)) for event in Events().feed(response.read())]


def of_tokens(tokens: int) -> str:
    """Return the longest text of that many tokens under the new tokenizer (beside which `ASK` counts 9)."""
    return "x" * (tokens * 40 // 13)


# --- answers -----------------------------------------------------------------------------------------


def test_answers_whole_with_thinking_first_and_says_that_it_is_simulated() -> None:
    body = answer(simulator())

    assert ["thinking", "text"] == [block["type"] for block in body["content"]]
    assert "" == body["content"][0]["thinking"]
    assert body["content"][0]["signature"]
    assert "[simulated] spam" == said(body)
    assert ("message", "assistant", OPUS, "end_turn") == tuple(
        body[name] for name in ("type", "role", "model", "stop_reason")
    )
    assert 10 == body["usage"]["input_tokens"]  # 28 bytes / 4 x 1.3 = 9.1
    assert 24 + 6 == body["usage"]["output_tokens"]  # thinking; 16 bytes / 4 x 1.3 = 5.2
    assert {"thinking_tokens": 24} == body["usage"]["output_tokens_details"]


def test_counts_a_quarter_of_the_bytes_under_the_old_tokenizer() -> None:
    body = answer(simulator(), model=OLD_HAIKU, messages=[user("x" * 41)], system="ä" * 2)

    assert 12 == body["usage"]["input_tokens"]  # 41 + 4 bytes


def test_a_stream_adds_up_to_the_plain_answer() -> None:
    upstream = simulator()
    plain = answer(upstream, messages=[user("Summarise this, please.")])
    response = post(upstream, messages=[user("Summarise this, please.")], stream=True)

    seen = events(response)

    names = [name for name, _ in seen]
    assert ["message_start", "content_block_start", "ping"] == names[:3]
    assert ["content_block_stop", "message_delta", "message_stop"] == names[-3:]
    text = "".join(
        data["delta"]["text"] for _, data in seen if data.get("delta", {}).get("type") == "text_delta"
    )
    assert said(plain) == text
    assert 1 == seen[0][1]["message"]["usage"]["output_tokens"]
    assert plain["usage"] == seen[-2][1]["usage"]
    assert upstream.books[0].usage == upstream.books[1].usage
    assert upstream.books[0].nusd == upstream.books[1].nusd


@pytest.mark.parametrize("max_tokens", [1, 5, 24])
def test_thinking_eats_a_small_cap(max_tokens: int) -> None:
    body = answer(simulator(), max_tokens=max_tokens)

    assert ("max_tokens", "") == (body["stop_reason"], said(body))
    assert max_tokens == body["usage"]["output_tokens"]


def test_a_cap_of_zero_warms_the_cache_and_says_nothing() -> None:
    upstream = simulator()

    body = answer(
        upstream, max_tokens=0, messages=[user(of_tokens(600), cache_control={"type": "ephemeral"})]
    )

    assert ([], 0) == (body["content"], body["usage"]["output_tokens"])
    assert 600 == body["usage"]["cache_creation_input_tokens"]


def test_a_cap_cuts_the_text_where_the_tokens_end() -> None:
    upstream = simulator()
    upstream.script("€" * 100)

    body = answer(upstream, model=OLD_HAIKU, max_tokens=10)

    assert ("max_tokens", "€" * 13) == (body["stop_reason"], said(body))  # 40 bytes hold 13 of 3


def test_the_first_stop_sequence_ends_the_text() -> None:
    upstream = simulator()
    upstream.script("one STOP two END")

    body = answer(upstream, stop_sequences=["END", "STOP"])

    assert ("one ", "stop_sequence", "STOP") == (said(body), body["stop_reason"], body["stop_sequence"])


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        pytest.param({"model": OLD_HAIKU}, 0, id="off by default"),
        pytest.param({"model": HAIKU}, 24, id="on by default"),
        pytest.param({"model": HAIKU, "thinking": {"type": "disabled"}}, 0, id="disabled"),
        pytest.param({"model": HAIKU, "output_config": {"effort": "low"}}, 0, id="low effort"),
        pytest.param(
            {"model": SONNET, "thinking": {"type": "between_tools"}}, 0, id="between tools, no tool yet"
        ),
        pytest.param({"model": OPUS, "output_config": {"effort": "max"}}, 400, id="always on"),
        pytest.param(
            {"model": OLD_HAIKU, "thinking": {"type": "enabled", "budget_tokens": 1024}}, 60, id="enabled"
        ),
    ],
)
def test_thinks_as_the_model_and_the_request_say(members: dict[str, Any], tokens: int) -> None:
    body = answer(simulator(), **{"max_tokens": 2000, **members})

    assert tokens == body["usage"]["output_tokens_details"]["thinking_tokens"]
    assert (tokens > 0) == (body["content"][0]["type"] == "thinking")


def test_shows_summarised_thinking_on_demand() -> None:
    body = answer(simulator(), thinking={"type": "adaptive", "display": "summarized"})

    assert body["content"][0]["thinking"].startswith(MARK)


def test_a_script_comes_before_the_callers_own_answers_before_the_table() -> None:
    def own(ask: Ask) -> str | None:
        return f"mine: {ask.system}" if ask.system else None

    upstream = simulator(answers=own)
    upstream.script("first")

    assert "first" == said(answer(upstream))
    assert "mine: short" == said(answer(upstream, system="short"))
    assert "[simulated] spam" == said(answer(upstream))


@pytest.mark.parametrize("ask", ["Write a function median(numbers).", "Prove that the sum is odd."])
def test_some_things_are_beyond_a_haiku(ask: str) -> None:
    hasty, sound, sound_too = (
        said(answer(simulator(), model=model, messages=[user(ask)])) for model in (HAIKU, SONNET, OPUS)
    )

    assert sound == sound_too
    assert sound != hasty


def test_a_scripted_refusal_gives_its_details() -> None:
    upstream = simulator()
    upstream.script(Answer("No.", stop_reason="refusal", thinking_tokens=0))

    body = answer(upstream)

    assert ("refusal", "general_harms") == (body["stop_reason"], body["stop_details"]["category"])


def test_the_system_prompt_picks_the_answer_when_the_ask_does_not() -> None:
    body = answer(simulator(), system="Detect the language.", messages=[user("Bonjour")])

    assert "[simulated] English" == said(body)


def test_errs_in_the_share_asked_for_and_always_alike() -> None:
    upstream, again = (simulator(error_rate={HAIKU: 0.25, "sonnet": 1.0}, seed=7) for _ in range(2))
    asks = [[user(f"Is this spam? {number}")] for number in range(400)]

    haiku = [said(answer(upstream, model=HAIKU, messages=ask)) for ask in asks]

    wrong = sum("wrong on purpose" in text for text in haiku)
    assert 70 <= wrong <= 130
    assert haiku == [said(answer(again, model=HAIKU, messages=ask)) for ask in asks]
    assert "wrong on purpose" in said(answer(upstream, model=SONNET))
    assert "wrong on purpose" not in said(answer(upstream, model=OPUS))


def test_calls_a_tool_with_input_that_fits_and_then_says_what_it_answered() -> None:
    upstream = simulator()
    ask = {"role": "user", "content": "What is the weather in Oslo?"}

    call = answer(upstream, tools=[TOOL], messages=[ask])

    used = call["content"][-1]
    assert ("tool_use", "tool_use", "get_weather") == (call["stop_reason"], used["type"], used["name"])
    assert {"city": MARK, "unit": "C"} == used["input"]
    result = {"type": "tool_result", "tool_use_id": used["id"], "content": "18 degrees"}
    turns = [ask, {"role": "assistant", "content": call["content"]}, {"role": "user", "content": [result]}]
    assert "[simulated] The tool says: 18 degrees" == said(answer(upstream, tools=[TOOL], messages=turns))


@pytest.mark.parametrize(
    ("choice", "stop"),
    [
        pytest.param({"type": "any"}, "tool_use", id="any"),
        pytest.param({"type": "tool", "name": "get_weather"}, "tool_use", id="this one"),
        pytest.param({"type": "auto"}, "end_turn", id="auto"),
        pytest.param({"type": "none"}, "end_turn", id="none"),
    ],
)
def test_a_tool_choice_is_obeyed_without_thinking(choice: dict[str, str], stop: str) -> None:
    body = answer(simulator(), model=HAIKU, tools=[TOOL], tool_choice=choice)

    assert stop == body["stop_reason"]
    assert (stop == "tool_use") == (body["usage"]["output_tokens_details"]["thinking_tokens"] == 0)


def test_structured_output_is_the_smallest_instance_of_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["spam", "ham"]},
            "score": {"type": "number", "minimum": 1},
            "who": {"$ref": "#/$defs/who"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "kind": {"const": "mail"},
            "sure": {"type": ["boolean", "null"]},
            "both": {"allOf": [{"$ref": "#/$defs/who"}]},
            "left_out": {"type": "string"},
        },
        "required": ["label", "score", "who", "tags", "note", "kind", "sure", "both"],
        "additionalProperties": False,
        "$defs": {
            "who": {
                "type": "object",
                "properties": {"day": {"type": "string", "format": "date"}},
                "required": ["day"],
                "additionalProperties": False,
            }
        },
    }

    body = answer(simulator(), output_config={"format": {"type": "json_schema", "schema": schema}})

    expected = {"label": "spam", "score": 1, "who": {"day": "2026-11-23"}, "tags": [MARK, MARK], "note": None}
    assert {**expected, "kind": "mail", "sure": True, "both": {"day": "2026-11-23"}} == json.loads(said(body))


def test_a_wrong_structured_answer_is_valid_and_another() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["spam", "ham"]}}, "required": ["label"]}
    form = {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}

    body = answer(simulator(error_rate={"opus": 1.0}), output_config={"format": form})

    assert {"label": "ham"} == json.loads(said(body))


@pytest.mark.parametrize(
    ("content", "better", "wrongly"),
    [
        ({"task": {}, "first": f"{MARK} ok", "second": WRONG}, "first", "second"),
        ({"task": {}, "first": "said by nobody", "second": '{"a": 1}'}, "second", "first"),
        ({"task": {}, "first": f"{MARK} ok", "second": f"{MARK} fine"}, "same", "first"),
        ({"task": {}, "first": MARK, "second": ["x"]}, "second", "first"),
        ("no data, and the first is better", "first", "first"),
        (["no data"], "second", "second"),
    ],
)
def test_a_judge_of_two_answers_finds_the_wrong_one(content: object, better: str, wrongly: str) -> None:
    schema = {"type": "object", "properties": {"better": {"enum": ["first", "second", "same"]}}}
    form = {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    text = content if isinstance(content, str) else json.dumps(content)
    asked = {"messages": [{"role": "user", "content": text}], "output_config": {"format": form}}

    found = [
        json.loads(said(answer(one, **asked))) for one in (simulator(), simulator(error_rate={"opus": 1.0}))
    ]
    assert [{"better": better}, {"better": wrongly}] == found


def test_a_schema_without_a_bottom_ends() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}, "required": ["left"]}
    form = {"type": "json_schema", "schema": {**tree, "additionalProperties": False}}

    body = answer(simulator(), output_config={"format": form})

    assert said(body).startswith('{"left": {"left": ')


def test_a_tool_call_that_does_not_fit_is_left_out() -> None:
    upstream = simulator()
    upstream.script(Answer("Let me look.", (("get_weather", {"city": "x" * 400}),), thinking_tokens=0))

    body = answer(upstream, tools=[TOOL], max_tokens=50)

    assert ("max_tokens", ["text"]) == (body["stop_reason"], [block["type"] for block in body["content"]])


# --- refusals ----------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no max_tokens", {"max_tokens": ...}, "max_tokens: Field required"),
    ("negative max_tokens", {"max_tokens": -1}, "max_tokens: Expected `int` >= 0"),
    ("max_tokens as text", {"max_tokens": "9"}, "max_tokens: Expected `int`, got `str`"),
    ("max_tokens beyond the model", {"model": OLD_HAIKU, "max_tokens": 64_001}, "max_tokens: 64001 > 64000"),
    ("unknown field", {"foo": 1}, "foo: Extra inputs are not permitted"),
    ("beta field without the beta", {"context_management": {}}, "context_management: Extra inputs"),
    ("unknown nested field", {"output_config": {"foo": 1}}, "output_config.foo: Extra inputs"),
    ("no messages", {"messages": ...}, "messages: Field required"),
    ("empty messages", {"messages": []}, "messages: Expected `array` of length >= 1"),
    ("empty text", {"messages": [user("")]}, "messages.0.content.0.text: "),
    (
        "empty content",
        {"messages": [{"role": "user", "content": []}]},
        "messages.0: all messages must have non-empty",
    ),
    (
        "unknown role",
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Invalid value 'tool'",
    ),
    (
        "unknown block",
        {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
        "messages.0.content.0.type: ",
    ),
    (
        "assistant first",
        {"messages": [{"role": "assistant", "content": "x"}, *ASK]},
        "messages: first message must",
    ),
    (
        "result without a call",
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9"}]}]},
        "messages.0: unexpected `tool_use_id` found in `tool_result` blocks: ['toolu_9']",
    ),
    (
        "call without a result",
        {"messages": [*ASK, {"role": "assistant", "content": [CALL]}, *ASK]},
        "messages.2: `tool_use` ids were found without `tool_result` blocks immediately after: ['toolu_1']",
    ),
    (
        "call at the end",
        {"model": OLD_HAIKU, "messages": [*ASK, {"role": "assistant", "content": [CALL]}]},
        "messages: `tool_use` ids were found without `tool_result` blocks: ['toolu_1']",
    ),
    (
        "prefill",
        {"messages": [*ASK, {"role": "assistant", "content": "It is"}]},
        f"messages: {OPUS} does not support",
    ),
    (
        "prefill that ends in a space",
        {"model": OLD_HAIKU, "messages": [*ASK, {"role": "assistant", "content": "It is "}]},
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    (
        "prefill with thinking",
        {
            "model": OLD_HAIKU,
            "max_tokens": 2000,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [*ASK, {"role": "assistant", "content": "It is"}],
        },
        "messages: the last message may not be the assistant's",
    ),
    ("disabled on opus", {"thinking": {"type": "disabled"}}, "thinking.type: 'disabled' is not supported"),
    ("disabled on sonnet", {"model": SONNET, "thinking": {"type": "disabled"}}, "thinking.type: 'disabled'"),
    (
        "adaptive on haiku 4.5",
        {"model": OLD_HAIKU, "thinking": {"type": "adaptive"}},
        "thinking.type: 'adaptive'",
    ),
    ("unknown thinking", {"thinking": {"type": "deep"}}, "thinking.type: Invalid value 'deep'"),
    (
        "small budget",
        {"model": OLD_HAIKU, "thinking": {"type": "enabled", "budget_tokens": 1023}},
        "thinking.budget_tokens: Expected `int` >= 1024",
    ),
    (
        "budget as large as the cap",
        {"model": OLD_HAIKU, "max_tokens": 1024, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        "max_tokens: must be greater than thinking.budget_tokens",
    ),
    (
        "effort on haiku 4.5",
        {"model": OLD_HAIKU, "output_config": {"effort": "low"}},
        "output_config.effort: 'low'",
    ),
    ("unknown effort", {"output_config": {"effort": "huge"}}, "output_config.effort: Invalid"),
    (
        "effort xhigh without thinking",
        {"model": HAIKU, "thinking": {"type": "disabled"}, "output_config": {"effort": "xhigh"}},
        "output_config.effort: 'xhigh' is not supported with thinking 'disabled'",
    ),
    (
        "temperature under the new version",
        {"model": OLD_HAIKU, "temperature": 1},
        "temperature, top_p, top_k: not",
    ),
    (
        "temperature on opus",
        {"headers": OLDER, "temperature": 1},
        "temperature, top_p, top_k: {'temperature': 1}",
    ),
    (
        "temperature on haiku",
        {"headers": OLDER, "model": HAIKU, "temperature": 0.5},
        "temperature, top_p, top_k: {",
    ),
    (
        "temperature and top_p on haiku 4.5",
        {"headers": OLDER, "model": OLD_HAIKU, "temperature": 1, "top_p": 0.9},
        "temperature, top_p, top_k: {",
    ),
    (
        "temperature with thinking",
        {
            "headers": OLDER,
            "model": OLD_HAIKU,
            "max_tokens": 2000,
            "temperature": 0.5,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "temperature, top_p, top_k: {'temperature': 0.5} is not supported when thinking is on",
    ),
    (
        "top_p with thinking",
        {
            "headers": OLDER,
            "model": OLD_HAIKU,
            "max_tokens": 2000,
            "top_p": 0.9,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "temperature, top_p, top_k: {'top_p': 0.9} is not supported when thinking is on",
    ),
    (
        "thinking in a tool loop that began without",
        {
            "model": OLD_HAIKU,
            "max_tokens": 2000,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [
                *ASK,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "x", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
            ],
        },
        "messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`",
    ),
    (
        "a task budget on haiku 4.5",
        {"headers": BUDGETED, "model": OLD_HAIKU, "output_config": {"task_budget": {}}},
        "output_config.task_budget: is not supported",
    ),
    (
        "a task budget without its beta",
        {"path": "/v1/messages?beta=true", "output_config": {"task_budget": {}}},
        "output_config.task_budget: Extra inputs",
    ),
    (
        "a place for inference on haiku 4.5",
        {"model": OLD_HAIKU, "inference_geo": "us"},
        "inference_geo: is not",
    ),
    (
        "fallbacks of haiku 5.5",
        {"path": "/v1/messages?beta=true", "model": HAIKU, "fallbacks": [{"model": OPUS}]},
        "fallbacks: are not supported",
    ),
    (
        "an unknown beta",
        {"headers": {**HEADERS, "anthropic-beta": "x"}},
        "anthropic-beta: Unexpected value(s) `x`",
    ),
    (
        "a beta that means nothing there",
        {"headers": {**HEADERS, "anthropic-beta": "effort-2025-11-24"}, "model": OLD_HAIKU},
        "anthropic-beta: `effort-2025-11-24` is not supported by claude-haiku-4-5",
    ),
    (
        "context management without its beta",
        {"path": "/v1/messages?beta=true", "context_management": {"edits": [CLEAR]}},
        "context_management: Extra inputs",
    ),
    (
        "clearing thinking on haiku 4.5",
        {
            "headers": {**HEADERS, "anthropic-beta": CONTEXT},
            "model": OLD_HAIKU,
            "context_management": {"edits": [CLEAR]},
        },
        "context_management.edits: 'clear_thinking_20251015' is not supported",
    ),
    (
        "another computer",
        {"tools": [{"type": "computer_20250124", "name": "computer"}]},
        "tools.0.type: 'computer_20250124' is not supported by claude-opus-5-5",
    ),
    (
        "a deferred tool on haiku 4.5",
        {"model": OLD_HAIKU, "tools": [{**TOOL, "defer_loading": True}]},
        "tools.0.custom: claude-haiku-4-5 does not support",
    ),
    (
        "a search in the history of haiku 4.5",
        {
            "model": OLD_HAIKU,
            "messages": [*ASK, {"role": "assistant", "content": [{"type": "server_tool_use"}]}, *ASK],
        },
        "messages.1: 'server_tool_use' is not supported",
    ),
    (
        "a tool added to haiku 4.5",
        {"model": OLD_HAIKU, "messages": [{"role": "user", "content": [{"type": "tool_addition"}]}]},
        "messages.0: 'tool_addition' is not supported",
    ),
    (
        "forced tool on opus",
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        "tool_choice.type: 'any' is not",
    ),
    (
        "forced tool with thinking",
        {
            "model": OLD_HAIKU,
            "max_tokens": 2000,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
        },
        "tool_choice.type: 'any' is not supported when thinking is on",
    ),
    ("tool choice without tools", {"tool_choice": {"type": "auto"}}, "tool_choice: may only be specified"),
    (
        "choice of an unknown tool",
        {"model": HAIKU, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}},
        "tool_choice: Tool 'other' not found",
    ),
    ("tool without a schema", {"tools": [{"name": "x"}]}, "tools.0.custom.input_schema: Field required"),
    ("tool without a name", {"tools": [{"input_schema": {"type": "object"}}]}, "tools.0.custom.name: "),
    (
        "tool whose schema is no object",
        {"tools": [{"name": "x", "input_schema": {"type": "string"}}]},
        "tools.0.custom.input_schema.type: Input should be 'object'",
    ),
    ("two tools of one name", {"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    (
        "too many strict tools",
        {"tools": [{**TOOL, "name": f"t{number}", "strict": True} for number in range(21)]},
        "tools: at most 20 strict tools",
    ),
    (
        "system in mid-conversation",
        {"model": OLD_HAIKU, "messages": [*ASK, {"role": "system", "content": "x"}, *ASK]},
        "messages: role 'system' is not supported",
    ),
    ("fast mode", {"model": HAIKU, "speed": "fast"}, "speed: 'fast' is not supported"),
    (
        "five breakpoints",
        {"messages": [user(f"{number}", cache_control={"type": "ephemeral"}) for number in range(5)]},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    (
        "an hour after five minutes",
        {
            "messages": [user("x", cache_control={"type": "ephemeral"})],
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
        "cache_control.ttl: ",
    ),
    (
        "a schema that allows more",
        {"output_config": {"format": {"type": "json_schema", "schema": {"anyOf": [{"type": "object"}]}}}},
        "output_config.format.schema: 'additionalProperties' must be false",
    ),
    ("a blank stop sequence", {"stop_sequences": [" "]}, "stop_sequences.0: Expected `str` matching regex"),
    ("unknown metadata", {"metadata": {"name": "x"}}, "metadata.name: Extra inputs are not permitted"),
    (
        "document in an assistant turn",
        {
            "messages": [
                *ASK,
                {
                    "role": "assistant",
                    "content": [{"type": "document", "source": {"type": "text", "data": "x"}}],
                },
                *ASK,
            ]
        },
        "messages.1: 'document' is not allowed",
    ),
    (
        "citations on the user's text",
        {"messages": [user("x", citations=[{"type": "char_location"}])]},
        "messages.0: citations are not allowed",
    ),
    (
        "a prompt beyond the window",
        {"model": OLD_HAIKU, "messages": [user("x" * 800_001)]},
        "prompt is too long: 200001 tokens > 200000 maximum",
    ),
]


@pytest.mark.parametrize(("members", "words"), [pytest.param(m, w, id=name) for name, m, w in REFUSED])
def test_refuses(members: dict[str, Any], words: str) -> None:
    message = refusal(**members)

    assert words == message[: len(words)]


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("system in mid-conversation", {"messages": [*ASK, {"role": "system", "content": "Be brief."}]}),
    ("two user turns in a row", {"messages": [*ASK, *ASK]}),
    (
        "prefill on haiku 4.5",
        {"model": OLD_HAIKU, "messages": [*ASK, {"role": "assistant", "content": "It is"}]},
    ),
    ("temperature on haiku 4.5", {"headers": OLDER, "model": OLD_HAIKU, "temperature": 0.2}),
    ("temperature 1 on haiku", {"headers": OLDER, "model": HAIKU, "temperature": 1, "top_p": 0.99}),
    ("fast mode on opus", {"speed": "fast"}),
    (
        "context management with its beta",
        {"headers": {**HEADERS, "anthropic-beta": CONTEXT}, "context_management": {"edits": [CLEAR]}},
    ),
    ("beta field with the query", {"path": "/v1/messages?beta=true", "mcp_servers": []}),
    ("a task budget", {"headers": BUDGETED, "output_config": {"task_budget": {"total": 9}}}),
    ("a tool of one's own found by another", {"tools": [{**TOOL, "defer_loading": True}]}),
    ("dated id", {"model": "claude-haiku-4-5-20251001"}),
    ("a tool of the API's", {"tools": [{"type": "web_search_20260318", "name": "web_search"}]}),
    ("an image", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
    ("a bearer token", {"headers": {"Authorization": "Bearer key", "anthropic-version": "2023-06-01"}}),
    (
        "a paused turn",
        {
            "messages": [
                *ASK,
                {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "x"}]},
            ]
        },
    ),
]


@pytest.mark.parametrize("members", [pytest.param(m, id=name) for name, m in ACCEPTED])
def test_accepts(members: dict[str, Any]) -> None:
    assert answer(simulator(), **members)["content"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-9", "model: gpt-9"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "model: us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("claude-opus-5-5-20260922", "model: claude-opus-5-5-20260922"),
        ("claude-opus-4-1", "model: claude-opus-4-1 is retired"),
    ],
)
def test_an_unknown_or_retired_model_is_not_found(model: str, words: str) -> None:
    response = post(simulator(), model=model)

    assert 404 == response.status
    assert {"type": "not_found_error", "message": words} == json.loads(response.read())["error"]


def test_a_model_is_gone_from_the_day_it_retires() -> None:
    clock = Clock(datetime(2026, 11, 29, tzinfo=UTC).timestamp())
    upstream = simulator(clock=clock)

    before = post(upstream, model="claude-sonnet-4-5").status
    clock.now = datetime(2026, 11, 30, tzinfo=UTC).timestamp()

    assert (200, 404) == (before, post(upstream, model="claude-sonnet-4-5").status)


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        pytest.param({}, 401, "x-api-key header is required", id="no key"),
        pytest.param({"x-api-key": "invalid-key"}, 401, "invalid x-api-key", id="invalid key"),
        pytest.param({"x-api-key": "k"}, 400, "anthropic-version: header is required", id="no version"),
        pytest.param(
            {"x-api-key": "k", "anthropic-version": "2020-01-01"},
            400,
            'anthropic-version: "2020-01-01" is not a valid version',
            id="unknown version",
        ),
    ],
)
def test_refuses_a_caller(headers: dict[str, str], status: int, message: str) -> None:
    response = post(simulator(), headers=headers)

    assert (status, message) == (response.status, json.loads(response.read())["error"]["message"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("GET", "/", 404),
        ("GET", "/v1/messages", 405),
        ("DELETE", "/v1/models/claude-haiku-5-5", 405),
        ("POST", "/v1/complete", 404),
        ("GET", "/v1/models/gpt-9", 404),
        ("GET", "/v1/models?limit=0", 400),
        ("GET", "/v1/models?after_id=gpt-9", 400),
    ],
)
def test_answers_every_path(method: str, path: str, status: int) -> None:
    response = simulator().handle(method, path, HEADERS)

    assert status == response.status
    assert response.headers["request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 400), (b"{}", 400), (b" " * (32 * 1024 * 1024 + 1), 413)]
)
def test_refuses_a_body_that_is_no_request(body: bytes, status: int) -> None:
    assert status == simulator().handle("POST", "/v1/messages", HEADERS, body).status


def test_every_answer_has_its_ids_and_its_limits() -> None:
    upstream = simulator(seed=255)

    first, second = post(upstream), post(upstream, foo=1)

    assert "req_simffn000000000001" == first.headers["request-id"]
    assert "msg_simffn000000000001" == json.loads(first.read())["id"]
    assert "4000" == first.headers["anthropic-ratelimit-requests-limit"]
    assert "2026-11-23T12:00:00+00:00" == first.headers["anthropic-ratelimit-tokens-reset"]
    assert second.headers["request-id"] == json.loads(second.read())["request_id"]


def test_keeps_what_came_in() -> None:
    upstream = simulator()

    post(upstream, path="/v1/messages?beta=true")

    assert "/v1/messages?beta=true" == upstream.requests[0].path
    assert "key" == upstream.requests[0].headers["x-api-key"]
    assert OPUS == json.loads(upstream.requests[0].body)["model"]


def test_keeps_no_more_than_it_is_told() -> None:
    upstream = simulator(keep=2)

    for _ in range(5):
        answer(upstream)

    assert ["msg_sim0n000000000004", "msg_sim0n000000000005"] == [c.message_id for c in upstream.books[-2:]]
    assert len(upstream.books) <= 4
    assert len(upstream.requests) <= 4


# --- models and counts -------------------------------------------------------------------------------


def listed(query: str = "", clock: Clock | None = None) -> dict[str, Any]:
    response = simulator(clock=clock or Clock()).handle("GET", f"/v1/models{query}", HEADERS)
    found: dict[str, Any] = json.loads(response.read())
    return found


def test_lists_every_model_newest_first_in_pages() -> None:
    whole = [row["id"] for row in listed("?limit=1000")["data"]]

    first = listed("?limit=2")
    second = listed(f"?limit=2&after_id={first['last_id']}")
    back = listed(f"?limit=2&before_id={whole[4]}")

    assert {model.id for model in load_models()} == set(whole)
    assert (whole[:2], True) == ([row["id"] for row in first["data"]], first["has_more"])
    assert whole[2:4] == [row["id"] for row in second["data"]]
    assert (whole[2:4], True) == ([row["id"] for row in back["data"]], back["has_more"])
    assert not listed(f"?after_id={whole[-2]}")["has_more"]


def test_lists_models_of_a_stage_of_life() -> None:
    after = Clock(datetime(2026, 12, 1, tzinfo=UTC).timestamp())

    assert "claude-sonnet-4-5" not in [row["id"] for row in listed("?limit=99&lifecycle=retired")["data"]]
    assert "claude-sonnet-4-5" in [
        row["id"] for row in listed("?limit=99&lifecycle[]=retired", after)["data"]
    ]


def test_describes_a_model_as_the_api_does() -> None:
    response = simulator().handle("GET", f"/v1/models/{HAIKU}", HEADERS)

    found = json.loads(response.read())

    assert ("model", "haiku", "active") == (found["type"], found["line"], found["lifecycle"])
    assert ("Claude Haiku 5.5", "2026-10-07T00:00:00Z") == (found["display_name"], found["created_at"])
    assert (1_000_000, 128_000) == (found["max_input_tokens"], found["max_tokens"])
    thinking = found["capabilities"]["thinking"]["types"]
    assert {"adaptive", "disabled"} == {name for name, value in thinking.items() if value["supported"]}
    assert {"supported": True} == found["capabilities"]["effort"]["xhigh"]


def test_counts_tokens_as_it_bills_them() -> None:
    upstream = simulator()
    members: dict[str, Any] = {"system": "Be brief.", "tools": [TOOL]}

    response = post(upstream, path="/v1/messages/count_tokens", max_tokens=..., **members)

    counted = json.loads(response.read())["input_tokens"]
    assert answer(upstream, **members)["usage"]["input_tokens"] == counted
    assert 1 == len(upstream.books)  # counting is free


def test_a_count_takes_no_cap() -> None:
    response = post(simulator(), path="/v1/messages/count_tokens")

    assert "max_tokens: Extra inputs are not permitted" == json.loads(response.read())["error"]["message"]


# --- the prompt cache --------------------------------------------------------------------------------

LONG = {"type": "text", "text": of_tokens(1000), "cache_control": {"type": "ephemeral"}}


def classes(body: dict[str, Any]) -> tuple[int, int, int]:
    """Return uncached, read and written tokens."""
    usage = body["usage"]
    return usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]


def test_a_prefix_is_written_then_read() -> None:
    upstream = simulator()

    assert (9, 0, 1000) == classes(answer(upstream, system=[LONG]))
    assert (9, 1000, 0) == classes(answer(upstream, system=[LONG]))
    assert (9, 0, 1000) == classes(answer(upstream, system=[LONG], model=SONNET))


def test_five_minutes_are_counted_from_the_last_use() -> None:
    clock = Clock()
    upstream = simulator(clock=clock)
    answer(upstream, system=[LONG])

    clock.now += 299
    assert (9, 1000, 0) == classes(answer(upstream, system=[LONG]))
    clock.now += 299
    assert (9, 1000, 0) == classes(answer(upstream, system=[LONG]))
    clock.now += 300
    assert (9, 0, 1000) == classes(answer(upstream, system=[LONG]))


def test_an_hour_is_billed_and_kept_as_an_hour() -> None:
    clock = Clock()
    upstream = simulator(clock=clock)
    hour = {**LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    written = answer(upstream, system=[hour])["usage"]["cache_creation"]
    clock.now += 3599

    assert {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1000} == written
    assert (9, 1000, 0) == classes(answer(upstream, system=[hour]))


def test_a_prefix_under_the_models_minimum_is_not_kept() -> None:
    upstream = simulator()
    short = {**LONG, "text": of_tokens(511)}

    assert [(520, 0, 0)] * 2 == [classes(answer(upstream, system=[short])) for _ in range(2)]


def test_a_growing_conversation_reads_what_it_wrote_and_writes_the_rest() -> None:
    upstream = simulator()
    cached = {"cache_control": {"type": "ephemeral"}}
    first = user(of_tokens(1000))
    more = [{"role": "assistant", "content": "Yes, it is, surely so."}, user("And this one? Is it?")]

    one = classes(answer(upstream, messages=[first], **cached))
    two = classes(answer(upstream, messages=[first, *more], **cached))

    assert ((0, 0, 1000), (0, 1000, 14)) == (one, two)


def test_another_effort_drops_cached_turns_but_not_the_system_prompt() -> None:
    upstream = simulator()
    turn = user(of_tokens(2000), cache_control={"type": "ephemeral"})
    members = {"system": [LONG], "messages": [turn]}
    answer(upstream, **members)

    body = answer(upstream, **members, output_config={"effort": "high"})

    assert (0, 1000, 2000) == classes(body)


def test_fast_mode_has_a_cache_of_its_own() -> None:
    upstream = simulator()
    answer(upstream, system=[LONG])

    assert (9, 0, 1000) == classes(answer(upstream, system=[LONG], speed="fast"))


def test_the_cache_forgets_what_expired() -> None:
    clock = Clock()
    upstream = simulator(clock=clock)
    upstream._cache._expiries = dict.fromkeys([(number,) for number in range(10_000)], clock.now)

    answer(upstream, system=[LONG])

    assert 1 == len(upstream._cache._expiries)


# --- replayed thinking -------------------------------------------------------------------------------


def replay(upstream: Simulator, **changes: Any) -> Response:
    first = answer(upstream, system="Be brief.")
    turns = [*ASK, {"role": "assistant", "content": first["content"]}, user("Are you sure?")]
    return post(upstream, **{"system": "Be brief.", "messages": turns} | changes)


def test_replayed_thinking_is_accepted_with_everything_before_it_unchanged() -> None:
    assert 200 == replay(simulator()).status


def test_replayed_thinking_is_refused_when_the_system_prompt_changed() -> None:
    response = replay(simulator(), system="Be verbose.")

    assert 400 == response.status
    assert (
        "messages.1: `thinking` blocks must be sent back" in json.loads(response.read())["error"]["message"]
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"model": HAIKU, "system": "Be verbose."}, id="another model's"),
        pytest.param(
            {
                "system": "Be verbose.",
                "thinking": {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}},
            },
            id="told to drop it",
        ),
    ],
)
def test_replayed_thinking_is_dropped(changes: dict[str, Any]) -> None:
    assert 200 == replay(simulator(), **changes).status


# --- the books ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "nusd"),
    [
        (100_000, 100_000 * 100 + 7 * 500),  # $0.10 and $0.50 per million
        (100_001, 100_001 * 500 + 7 * 2_500),  # the whole request, its output too
    ],
)
def test_the_price_cliff_of_haiku(tokens: int, nusd: int) -> None:
    upstream = simulator()
    upstream.script("x" * 20)

    answer(upstream, model=HAIKU, thinking={"type": "disabled"}, messages=[user(of_tokens(tokens))])

    assert (tokens, 7, nusd) == (
        upstream.books[0].usage.input_tokens,
        upstream.books[0].usage.output_tokens,
        upstream.books[0].nusd,
    )


def test_the_cliff_counts_cached_tokens_too() -> None:
    upstream = simulator()
    long = user(of_tokens(100_001), cache_control={"type": "ephemeral"})

    for _ in range(2):
        upstream.script("x" * 20)
        answer(upstream, model=HAIKU, thinking={"type": "disabled"}, messages=[long])

    assert [100_001 * 625 + 7 * 2_500, 100_001 * 50 + 7 * 2_500] == [charge.nusd for charge in upstream.books]


def test_the_books_and_the_price_list_agree() -> None:
    upstream = simulator()
    settings: list[dict[str, Any]] = [{}, {"inference_geo": "us"}, {"system": [LONG]}, {"system": [LONG]}]
    for model in ("claude-haiku-4-5", HAIKU, SONNET, "claude-opus-4-8", OPUS):
        for members in settings if model != OLD_HAIKU else [{}, *settings[2:]]:
            answer(upstream, model=model, **members)
    answer(upstream, speed="fast", inference_geo="us")

    at, book = datetime.fromtimestamp(NOW, UTC), load_prices()
    expected = [cost(charge.usage, charge.model, at, book).nusd for charge in upstream.books]

    assert 20 == len(upstream.books)
    assert expected == [charge.nusd for charge in upstream.books]


def test_an_older_day_has_its_older_price() -> None:
    day = datetime(2026, 10, 6, tzinfo=UTC)
    upstream = simulator(clock=Clock(day.timestamp()))
    for _ in range(2):
        answer(upstream, model=SONNET, system=[LONG])

    read = upstream.books[1]

    assert 1000 * 200 + 9 * 2_000 + read.usage.output_tokens * 10_000 == read.nusd


def test_a_day_before_all_prices_costs_nothing() -> None:
    upstream = simulator(clock=Clock(0))

    answer(upstream)

    assert [0] == [charge.nusd for charge in upstream.books]


def test_a_refused_request_costs_nothing() -> None:
    upstream = simulator()

    post(upstream, foo=1).read()

    assert [] == upstream.books


def test_a_client_that_hangs_up_pays_for_what_was_produced() -> None:
    upstream = simulator()
    whole = answer(upstream, messages=[user("Design a queue.")])["usage"]["output_tokens"]
    response = post(upstream, messages=[user("Design a queue.")], stream=True)
    tap = Tap()

    for chunk, _ in zip(response.chunks, range(20), strict=False):
        tap.feed(chunk)
    response.close()
    response.close()

    charge = upstream.books[-1]
    assert (2, True) == (len(upstream.books), charge.is_cut)
    assert 96 < charge.usage.output_tokens < whole  # four times 24 tokens of thinking, and some text
    assert (5, 96) == (charge.usage.input_tokens, charge.usage.thinking_tokens)
    assert charge.usage.output_tokens - 96 <= tap.facts.visible_bytes
    assert 5 * 4_000 + charge.usage.output_tokens * 20_000 == charge.nusd


def test_a_stream_that_is_dropped_pays_for_its_prompt() -> None:
    upstream = simulator()

    response = post(upstream, stream=True)
    del response

    assert [(10, 1, True)] == [
        (c.usage.input_tokens, c.usage.output_tokens, c.is_cut) for c in upstream.books
    ]


def test_a_plain_answer_that_nobody_reads_is_paid_in_full() -> None:
    upstream = simulator()

    post(upstream).close()

    assert [(30, True)] == [(charge.usage.output_tokens, charge.is_cut) for charge in upstream.books]


def test_a_stream_is_whole_once_its_last_event_is_out() -> None:
    upstream = simulator()
    response = post(upstream, stream=True)

    for chunk in response.chunks:
        if b"message_stop" in chunk:
            break
    response.close()

    assert [False] == [charge.is_cut for charge in upstream.books]


# --- faults ------------------------------------------------------------------------------------------


def test_fails_as_often_as_told_and_bills_nothing_for_it() -> None:
    upstream = simulator()
    upstream.fail_next(2, status=429, headers={"retry-after": "1"})

    failed = [post(upstream) for _ in range(2)]

    assert [429, 429] == [response.status for response in failed]
    assert "1" == failed[0].headers["retry-after"]
    assert "rate_limit_error" == json.loads(failed[0].read())["error"]["type"]
    assert [] == upstream.books
    assert 200 == post(upstream).status


def test_only_messages_use_up_a_fault() -> None:
    upstream = simulator()
    upstream.fail_next()

    assert 200 == upstream.handle("GET", "/v1/models", HEADERS).status
    assert 529 == post(upstream).status


def collect(response: Response) -> tuple[bytes, str]:
    """Return the bytes that come, and the name of the error that ends them."""
    read = bytearray()
    try:
        for chunk in response.chunks:
            read += chunk
    except ConnectionResetError as error:
        return bytes(read), type(error).__name__
    return bytes(read), ""


ARM: list[tuple[str, Callable[[Simulator], None], str]] = [
    ("drop", lambda upstream: upstream.drop_next(after_events=3), "cut=3"),
    ("interrupt", lambda upstream: upstream.interrupt_next(after_events=3), "error=3"),
    ("truncate", lambda upstream: upstream.truncate_next(), "truncate"),
    ("malform", lambda upstream: upstream.malform_next(), "malformed"),
    ("stall", lambda upstream: upstream.stall_next(2), "stall=2"),
    ("fail", lambda upstream: upstream.fail_next(status=500), "status=500"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(("arm", "header"), [pytest.param(arm, header, id=name) for name, arm, header in ARM])
def test_a_header_does_what_the_method_does(
    arm: Callable[[Simulator], None], header: str, *, stream: bool
) -> None:
    told, asked = simulator(), simulator()
    arm(told)

    first = post(told, stream=stream)
    second = post(asked, stream=stream, headers={**HEADERS, "x-simulate": header})

    assert (first.status, first.wait_s, first.headers) == (second.status, second.wait_s, second.headers)
    assert collect(first) == collect(second)
    assert told.books == asked.books


def test_a_dropped_stream_ends_in_an_error_and_is_billed_as_cut() -> None:
    upstream = simulator()
    upstream.drop_next(after_events=4)

    data, error = collect(post(upstream, stream=True))

    assert (4, "ConnectionResetError") == (data.count(b"event: "), error)
    assert [(24, True)] == [(charge.usage.output_tokens, charge.is_cut) for charge in upstream.books]


def test_a_truncated_stream_just_ends() -> None:
    upstream = simulator()
    upstream.truncate_next()

    data, error = collect(post(upstream, stream=True))

    assert ("", False, False) == (error, b"message_delta" in data, b"message_stop" in data)
    assert [(30, True)] == [(charge.usage.output_tokens, charge.is_cut) for charge in upstream.books]


def test_an_interrupted_stream_ends_in_an_error_event() -> None:
    upstream = simulator()
    upstream.interrupt_next(after_events=2)

    seen = events(post(upstream, stream=True))

    assert ["message_start", "content_block_start", "error"] == [name for name, _ in seen]
    assert "overloaded_error" == seen[-1][1]["error"]["type"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_malformed_answer_is_not_json(*, stream: bool) -> None:
    upstream = simulator()
    upstream.malform_next()

    data, _ = collect(post(upstream, stream=stream))

    bodies = [event.data for event in Events().feed(data)] if stream else [data]
    assert not all(is_json(body) for body in bodies)


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except json.JSONDecodeError:
        return False
    return True


def test_waits_are_told_not_taken() -> None:
    upstream = simulator(latency_s=0.5, tokens_per_s=10)

    plain, stream = post(upstream), post(upstream, stream=True)
    waits = [stream.wait_s for _ in stream.chunks]

    assert 0.5 + 30 / 10 == plain.wait_s
    assert pytest.approx((30 - 1) / 10) == sum(waits)


def test_a_stall_comes_after_the_first_event() -> None:
    upstream = simulator()
    upstream.stall_next(9)

    stream = post(upstream, stream=True)
    before = stream.wait_s
    next(stream.chunks)

    assert (0, 9) == (before, stream.wait_s)


@pytest.mark.parametrize("header", ["status=none", "cut=x", "stall=long"])
def test_an_unreadable_fault_is_refused_with_its_name(header: str) -> None:
    response = post(simulator(), headers={**HEADERS, "x-simulate": header})

    assert 400 == response.status
    assert json.loads(response.read())["error"]["message"].startswith(f"x-simulate: '{header}'")


# --- ASGI --------------------------------------------------------------------------------------------

Message = MutableMapping[str, Any]


class Wire:
    """Both ends of one ASGI connection; the client leaves after `leave_after` messages from the app."""

    def __init__(self, body: bytes, leave_after: int = 1_000_000) -> None:
        self.sent: list[Message] = []
        self._requests: list[Message] = [
            {"type": "http.request", "body": body[:9], "more_body": True},
            {"type": "http.request", "body": body[9:]},
        ]
        self._leave_after = leave_after
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        if self._requests:
            return self._requests.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if len(self.sent) >= self._leave_after:
            self._left.set()

    async def run(self, upstream: Simulator) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "query_string": b"beta=true",
            "headers": [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()],
        }
        await app(upstream)(scope, self.receive, self.send)


def body_of(**members: Any) -> bytes:
    return json.dumps({"model": OPUS, "max_tokens": 4000, "messages": ASK} | members).encode()


def test_the_application_answers_over_asgi() -> None:
    upstream = simulator()
    wire = Wire(body_of())

    asyncio.run(wire.run(upstream))

    assert 200 == wire.sent[0]["status"]
    assert "[simulated] spam" == said(json.loads(b"".join(part["body"] for part in wire.sent[1:])))
    assert "/v1/messages?beta=true" == upstream.requests[0].path
    assert not upstream.books[0].is_cut


def test_the_application_stops_when_the_client_leaves() -> None:
    upstream = simulator()
    wire = Wire(body_of(messages=[user("Design a queue.")], stream=True), leave_after=10)

    asyncio.run(wire.run(upstream))

    assert 10 == len(wire.sent)
    assert [True] == [charge.is_cut for charge in upstream.books]


def test_the_application_stops_waiting_when_the_client_leaves() -> None:
    upstream = simulator(latency_s=3600)
    wire = Wire(body_of())
    wire._left.set()

    asyncio.run(wire.run(upstream))

    assert [] == wire.sent
    assert [Charge] == [type(charge) for charge in upstream.books]


def test_the_application_gives_up_on_a_request_that_never_comes() -> None:
    upstream = simulator()
    wire = Wire(b"")
    wire._requests.clear()
    wire._left.set()

    asyncio.run(wire.run(upstream))

    assert [] == wire.sent
    assert [] == upstream.requests


def test_the_application_has_no_start_and_no_end() -> None:
    wire = Wire(b"")

    asyncio.run(app(simulator())({"type": "lifespan"}, wire.receive, wire.send))

    assert [] == wire.sent


def test_the_usage_it_bills_is_the_usage_it_reports() -> None:
    upstream = simulator()

    body = answer(upstream, system=[LONG])

    assert Usage.read(body["usage"]) == upstream.books[0].usage


# --- batches ----------------------------------------------------------------------------------------------


def batch(upstream: Simulator, *requests: Any, **members: Any) -> tuple[int, dict[str, Any]]:
    body = {"requests": list(requests), **members}
    response = upstream.handle("POST", "/v1/messages/batches", HEADERS, json.dumps(body).encode())
    return response.status, json.loads(response.read())


def item(name: str = "a", **members: Any) -> dict[str, Any]:
    return {"custom_id": name, "params": {"model": OPUS, "max_tokens": 1000, "messages": ASK, **members}}


def asked_of(upstream: Simulator, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    response = upstream.handle(method, f"/v1/messages/batches{path}", {**HEADERS, "host": "here:1"})
    return response.status, json.loads(response.read())


def test_a_batch_ends_at_once_and_is_billed_at_half_the_price() -> None:
    upstream = simulator()
    whole = answer(upstream)
    status, begun = batch(upstream, item("a"), item("b", max_tokens=-1), item("c", stream=True))
    _, ended = asked_of(upstream, f"/{begun['id']}")
    lines = upstream.handle("GET", f"/v1/messages/batches/{begun['id']}/results", HEADERS)

    assert (200, "in_progress", 3, None) == (
        status,
        begun["processing_status"],
        begun["request_counts"]["processing"],
        begun["results_url"],
    )
    assert begun["id"].startswith("msgbatch_")
    assert ("ended", 0, 1, 2) == (
        ended["processing_status"],
        *(ended["request_counts"][name] for name in ("processing", "succeeded", "errored")),
    )
    assert "application/x-jsonl" == lines.headers["content-type"]
    good, bad, streamed = (json.loads(line) for line in lines.read().splitlines())
    assert ["a", "b", "c"] == [line["custom_id"] for line in (good, bad, streamed)]
    assert {**whole["usage"], "service_tier": "batch"} == good["result"]["message"]["usage"]
    for line in (bad, streamed):
        assert ("errored", "invalid_request_error") == (
            line["result"]["type"],
            line["result"]["error"]["error"]["type"],
        )
    first, second = upstream.books
    assert first.nusd == 2 * second.nusd > 0
    usage = Usage.read(good["result"]["message"]["usage"])
    assert (second.usage, second.message_id) == (usage, good["result"]["message"]["id"])
    assert second.nusd == cost(usage, OPUS, datetime.fromtimestamp(NOW, UTC), load_prices()).nusd


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "requests: "),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{**item(), "priority": 1}], "requests.0.priority: Extra inputs are not permitted"),
        ([item("a b")], "requests.0.custom_id: "),
        ([item("x" * 65)], "requests.0.custom_id: "),
        ([item("a"), item("a")], "requests: custom_id must be unique"),
    ],
)
def test_a_batch_of_another_shape_is_refused(requests: list[Any], words: str) -> None:
    upstream = simulator()
    status, said = batch(upstream, *requests)
    assert (400, "invalid_request_error") == (status, said["error"]["type"])
    assert said["error"]["message"].startswith(words)
    assert [] == upstream.books


def test_batches_are_listed_newest_first_and_may_be_deleted_but_not_canceled() -> None:
    upstream = simulator()
    first, second = (batch(upstream, item())[1]["id"] for _ in range(2))
    _, page = asked_of(upstream, "?limit=1")
    assert ([second], True) == ([row["id"] for row in page["data"]], page["has_more"])
    _, page = asked_of(upstream, f"?after_id={second}")
    assert ([first], False) == ([row["id"] for row in page["data"]], page["has_more"])
    assert 400 == asked_of(upstream, "?after_id=none")[0]
    assert (400, f"Batch {first} cannot be canceled: it has ended") == (
        (found := asked_of(upstream, f"/{first}/cancel", "POST"))[0],
        found[1]["error"]["message"],
    )
    assert (200, {"id": first, "type": "message_batch_deleted"}) == asked_of(upstream, f"/{first}", "DELETE")
    for path, method in ((f"/{first}", "GET"), (f"/{first}/results", "GET"), (f"/{first}", "DELETE")):
        assert 404 == asked_of(upstream, path, method)[0]
    assert 405 == asked_of(upstream, f"/{second}", "PUT")[0]


FIRST = """
import sys, threading
from leastwise.simulate.shapes import BetaMessage, misfit

sys.setswitchinterval(1e-6)
turn = {"role": "user", "content": [{"type": "text", "text": "x"}]}
body = {"model": "m", "max_tokens": 1, "messages": [turn]}
start = threading.Barrier(16)

def check():
    start.wait()
    misfit(body, BetaMessage)

threads = [threading.Thread(target=check) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_be_the_first_to_use_it_together() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", FIRST], check=False)  # noqa: S603 - the text above
        assert 0 == done.returncode
