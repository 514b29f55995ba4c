"""A request that is legal where it was meant for, and that `misfit` lets pass, is legal where it goes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leastwise.compile import misfit
from leastwise.messages import Request
from leastwise.models import load_models
from leastwise.simulate import Simulator

MODELS = load_models()
IDS = [model.id for model in MODELS if model.lifecycle != "retired"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CLOSED = {**SCHEMA, "additionalProperties": False}
ASK = {"role": "user", "content": "What is the weather?"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
MARKED = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


conversations = st.sampled_from(
    [
        [ASK],
        [turn("user", MARKED)],
        [turn("user", {"type": "image", "source": PNG}, {"type": "text", "text": "What is this?"})],
        [ASK, turn("assistant", CALL), turn("user", RESULT)],
        [ASK, {"role": "assistant", "content": "Sunny."}, ASK],
        [turn("user", MARKED), {"role": "assistant", "content": "Hi"}, ASK],
        [ASK, {"role": "assistant", "content": "{"}],
        [ASK, {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "Be brief"}, ASK],
        [
            ASK,
            turn("assistant", {"type": "thinking", "thinking": "", "signature": "s"}, CALL),
            turn("user", RESULT),
        ],
    ]
)
thinking = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("adaptive", "disabled", "between_tools")]),
    st.builds(lambda budget: {"type": "enabled", "budget_tokens": budget}, st.sampled_from([1024, 4096])),
)
output = st.fixed_dictionaries(
    {},
    optional={
        "effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
        "format": st.sampled_from([{"type": "json_schema", "schema": CLOSED}]),
    },
)
choices = st.sampled_from(
    [{"type": "auto"}, {"type": "none"}, {"type": "any"}, {"type": "tool", "name": "look"}]
)
bodies = st.fixed_dictionaries(
    {
        "model": st.sampled_from(IDS),
        "max_tokens": st.sampled_from([1, 100, 1024, 1025, 5000, 32_000, 64_000, 64_001, 128_000]),
        "messages": conversations,
    },
    optional={
        "system": st.sampled_from(["Be brief", [MARKED]]),
        "thinking": thinking,
        "output_config": output,
        "tools": st.sampled_from([[{"name": "look", "input_schema": SCHEMA}]]),
        "tool_choice": choices,
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.sampled_from([0.5, 0.99]),
        "top_k": st.sampled_from([5]),
        "stop_sequences": st.just(["stop"]),
        "metadata": st.just({"user_id": "u"}),
        "stream": st.booleans(),
        "service_tier": st.just("auto"),
        "speed": st.just("fast"),
    },
)


def status(body: bytes, version: str) -> int:
    headers = {"x-api-key": "k", "anthropic-version": version}
    return Simulator().handle("POST", "/v1/messages", headers, body).status


@settings(max_examples=600, deadline=None)
@given(bodies, st.sampled_from(IDS), st.sampled_from(["2023-06-01", "2026-10-21"]))
def test_what_fits_is_answered_and_differs_only_in_its_model(
    body: dict[str, Any], target: str, version: str
) -> None:
    received = json.dumps(body).encode()
    asked = Request.parse(received, version=version)
    assume(misfit(asked, target, MODELS) is None)
    assume(200 == status(received, version))

    moved = asked.replace(model=target).body()

    assert 200 == status(moved, version)
    assert {**body, "model": target} == json.loads(moved)
    assert list(body) == list(json.loads(moved))
