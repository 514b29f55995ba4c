"""Whatever comes in, the simulated API answers it, and bills what it says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leastwise.messages import Usage
from leastwise.simulate import Response, Simulator
from leastwise.sse import Tap
from tests.kit import Clock

HEADERS = {
    "x-api-key": "key",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "context-management-2025-06-27",
}
BODY: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 400,
    "stream": True,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "What is the weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "simulated:claude-opus-4-8:00"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "dry"}]},
                {"type": "image", "source": {"type": "url", "url": "x"}},
                {"type": "document", "source": {"type": "text", "data": "x"}},
            ],
        },
    ],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {
        "effort": "low",
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    },
    "tools": [{"name": "look", "input_schema": {"type": "object", "required": ["a"]}}],
    "tool_choice": {"type": "auto"},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u"},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats(0, 2)
    | st.sampled_from(["", "x", "object", "any"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, part in inner for place in places(part, (*path, name)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def post(upstream: Simulator, body: Any) -> Response:
    return upstream.handle("POST", "/v1/messages", HEADERS, json.dumps(body).encode())


@given(st.lists(st.tuples(st.sampled_from(places(BODY)), JSON), min_size=1, max_size=2))
def test_every_body_is_answered_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    body: Any = BODY
    for path, new in changes:
        if path in places(body):
            body = changed(body, path, new)

    response = post(Simulator(clock=Clock()), body)

    assert response.status in {200, 400, 404}
    assert response.read()


@given(
    text=st.text(min_size=1),
    said=st.text(max_size=300),
    max_tokens=st.integers(0, 120),
    model=st.sampled_from(["claude-haiku-4-5", "claude-haiku-5-5", "claude-opus-5-5"]),
    events=st.integers(0, 30),
)
def test_a_stream_left_anywhere_is_billed_for_no_more_than_was_sent(
    text: str, said: str, max_tokens: int, model: str, events: int
) -> None:
    upstream = Simulator(clock=Clock())
    upstream.script(said, said)
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    plain = json.loads(post(upstream, body).read())
    response = post(upstream, {**body, "stream": True})
    tap = Tap()

    for _, chunk in zip(range(events), response.chunks, strict=False):
        tap.feed(chunk)
    response.close()

    whole, left = upstream.books
    assert Usage.read(plain["usage"]) == whole.usage
    assert whole.usage.output_tokens <= max_tokens
    assert left.usage.output_tokens <= whole.usage.output_tokens
    assert left.usage.input_tokens == whole.usage.input_tokens
    assert (left.usage == whole.usage) or left.is_cut
    if tap.facts.is_complete:
        assert tap.facts.usage == left.usage == whole.usage
    hidden = left.usage.thinking_tokens
    assert left.usage.output_tokens - hidden <= max(tap.facts.visible_bytes, 1)
