"""A request that is legal where it was meant for is answered wherever it goes, and differs as declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from leastwise.client import Desk, run
from leastwise.compile import Fit, fit
from leastwise.errors import UpstreamFailure
from leastwise.exchange import exchange
from leastwise.ladder import Baseline
from leastwise.messages import Facts, Reply, Request
from leastwise.models import load_betas, load_models
from leastwise.simulate import Simulator
from leastwise.steps import Send
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, OPUS, SONNET, Clock, call, decision, terms

MODELS = load_models()
IDS = [model.id for model in MODELS if model.lifecycle != "retired"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CLOSED = {**SCHEMA, "additionalProperties": False}
ASK = {"role": "user", "content": "What is the weather?"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
MARKED = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
#: A turn that the maker of the conversation thought about, put in where it stands.
THOUGHT = {"role": "assistant", "content": "THOUGHT"}
LOOK = {"name": "look", "input_schema": SCHEMA}


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


conversations = st.sampled_from(
    [
        [ASK],
        [turn("user", MARKED)],
        [turn("user", {"type": "image", "source": PNG}, {"type": "text", "text": "What is this?"})],
        [turn("user", PDF, {"type": "text", "text": "What is this?"})],
        [ASK, turn("assistant", CALL), turn("user", RESULT)],
        [
            ASK,
            turn("assistant", CALL),
            turn("user", RESULT),
            turn("assistant", {"type": "text", "text": "Sun"}),
            ASK,
        ],
        [ASK, {"role": "assistant", "content": "Sunny."}, ASK],
        [turn("user", MARKED), {"role": "assistant", "content": "Hi"}, ASK],
        [ASK, {"role": "assistant", "content": "{"}],
        [ASK, {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "Be brief"}, ASK],
        [ASK, turn("assistant", SEARCH, FOUND, {"type": "text", "text": "Sun"}), ASK],
        [ASK, turn("assistant", SEARCH)],
        [ASK, {"role": "assistant", "content": "Hi"}, turn("user", {"type": "tool_addition"}, MARKED)],
        [ASK, THOUGHT, ASK],
        [ASK, THOUGHT, ASK, {"role": "assistant", "content": "Hm"}, ASK],
        [
            ASK,
            turn("assistant", {"type": "thinking", "thinking": "", "signature": "s"}, CALL),
            turn("user", RESULT),
        ],
        [
            ASK,
            turn("assistant", {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Sun"}),
            ASK,
        ],
    ]
)
thinking = st.one_of(
    st.sampled_from(
        [
            {"type": "adaptive"},
            {"type": "adaptive", "display": "summarized"},
            {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}},
            {"type": "disabled"},
            {"type": "between_tools"},
        ]
    ),
    st.builds(
        lambda budget: {"type": "enabled", "budget_tokens": budget},
        st.sampled_from([1024, 2048, 4096, 16_000, 31_999]),
    ),
)
output = st.fixed_dictionaries(
    {},
    optional={
        "effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
        "format": st.sampled_from([{"type": "json_schema", "schema": CLOSED}]),
        "task_budget": st.just({"type": "tokens", "total": 64_000}),
    },
)
choices = st.sampled_from(
    [{"type": "auto"}, {"type": "none"}, {"type": "any"}, {"type": "tool", "name": "look"}]
)
tools = st.sampled_from(
    [
        [LOOK],
        [{**LOOK, "strict": True, "cache_control": {"type": "ephemeral"}}],
        [{**LOOK, "defer_loading": True}, {"type": "tool_search_tool_regex_20251119", "name": "find"}],
        [LOOK, {"type": "web_search_20260318", "name": "web_search"}],
        [LOOK, {"type": "web_search_20250305", "name": "web_search"}],
        [LOOK, {"type": "computer_20250124", "name": "computer"}],
        [LOOK, {"type": "computer_toolset_20260801"}],
        [LOOK, {"type": "code_execution_20250522", "name": "code_execution"}],
    ]
)
edits = st.lists(
    st.sampled_from([{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]), min_size=1
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
        "tools": tools,
        "tool_choice": choices,
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.sampled_from([0.5, 0.99]),
        "top_k": st.sampled_from([5]),
        "stop_sequences": st.just(["stop"]),
        "metadata": st.just({"user_id": "u"}),
        "stream": st.booleans(),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "speed": st.sampled_from(["fast", "standard"]),
        "inference_geo": st.just("us"),
        "diagnostics": st.just({"previous_message_id": None}),
        "cache_control": st.just({"type": "ephemeral"}),
        "context_management": edits.map(lambda found: {"edits": found}),
    },
)
betas = st.lists(st.sampled_from([f"{name}-2025-11-24" for name in load_betas()]), unique=True, max_size=3)


def headers(version: str, names: tuple[str, ...]) -> dict[str, str]:
    return {
        "x-api-key": "k",
        "anthropic-version": version,
        **({"anthropic-beta": ",".join(names)} if names else {}),
    }


def status(body: bytes, version: str, names: tuple[str, ...]) -> int:
    return Simulator().handle("POST", "/v1/messages", headers(version, names), body).status


@cache
def thought(maker: str, prompt: str) -> list[dict[str, Any]]:
    """Return what a model answers to a prompt, thinking and all."""
    body = {"model": maker, "max_tokens": 5000, "thinking": {"type": "adaptive"}, **json.loads(prompt)}
    if "adaptive" not in MODELS.get(maker).accepts_thinking:  # type: ignore[union-attr]  # one of the table
        body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    response = Simulator().handle(
        "POST", "/v1/messages", headers("2023-06-01", ()), json.dumps(body).encode()
    )
    answer = json.loads(response.read())
    found: list[dict[str, Any]] = answer.get("content", [{"type": "text", "text": "Sun"}])
    return found


def with_thought(body: Mapping[str, Any], maker: str) -> dict[str, Any]:
    """Return the body with what its maker thought put in."""
    turns = body["messages"]
    if THOUGHT not in turns:
        return dict(body)
    place = turns.index(THOUGHT)
    prompt = {name: body[name] for name in ("system", "tools") if name in body}
    content = thought(maker, json.dumps({**prompt, "messages": turns[:place]}))
    return {
        **body,
        "messages": [*turns[:place], {"role": "assistant", "content": content}, *turns[place + 1 :]],
    }


def paths(before: Any, after: Any, prefix: str = "", depth: int = 2) -> Iterator[str]:
    """Yield where two bodies differ, one level into objects."""
    if before == after:
        return
    if depth and isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() | after.keys():
            where = f"{prefix}.{name}" if prefix else name
            yield from paths(before.get(name, ...), after.get(name, ...), where, depth - 1)
    else:
        yield prefix


def is_declared(path: str, found: Fit) -> bool:
    """Tell whether a difference is among the changes; an object that went or came is, by its parts."""
    return any(
        path == known or known.startswith(f"{path}.") or path.startswith(f"{known}.")
        for known in found.changes
    )


@settings(max_examples=400, deadline=None)
@given(
    bodies, st.sampled_from(IDS), st.sampled_from(IDS), st.sampled_from(["2023-06-01", "2026-10-21"]), betas
)
@example(
    {
        "model": OPUS,
        "max_tokens": 128_000,
        "messages": [ASK],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "medium"},
    },
    "claude-haiku-4-5",
    OPUS,
    "2023-06-01",
    ["effort-2025-11-24", "interleaved-thinking-2025-05-14"],
)
def test_what_fits_is_answered_and_differs_only_as_declared(
    body: dict[str, Any], target: str, maker: str, version: str, names: list[str]
) -> None:
    received = json.dumps(with_thought(body, maker)).encode()
    asked = Request.parse(received, version=version, betas=names)
    assume(200 == status(received, version, asked.betas))
    is_rebound = THOUGHT in body["messages"] and maker == target != asked.model

    found = fit(asked, target, MODELS)
    assume(not found.misfit)
    fitted = found.apply(asked)
    sent = fitted.body()

    assert is_rebound or 200 == status(sent, version, fitted.betas)
    before, after = json.loads(received), json.loads(sent)
    undeclared = [path for path in paths(before, after) if path != "model" and not is_declared(path, found)]
    assert [] == undeclared
    gone = set(asked.betas) - set(fitted.betas)
    assert {f"anthropic-beta.{beta}" for beta in gone} == {
        path for path in found.changes if path.startswith("anthropic-beta.")
    }
    for name in ("messages", "system", "tools", "metadata"):
        assert asked.size(name) == fitted.size(name)
        assert before.get(name) == after.get(name)
    strict = fit(Request.parse(received, version=version, betas=names), target, MODELS, is_strict=True)
    assert (strict.misfit != "") is any(
        "removed" in words for words in found.changes.values() if words == "removed"
    )


@settings(max_examples=200, deadline=None)
@given(bodies, st.sampled_from(IDS), betas, st.sampled_from(["2023-06-01", "2026-10-21"]))
def test_what_leaves_the_choice_to_us_is_answered_where_it_fits(
    body: dict[str, Any], target: str, names: list[str], version: str
) -> None:
    """A body that some model takes, sent to `auto`: nothing is known of how the caller meant it.

    Sampling parameters of a caller whose version has none are ours to leave out.
    """
    body = with_thought(body, OPUS)
    received = json.dumps(body).encode()
    assume(200 == status(received, "2023-06-01", tuple(sorted(names))))

    auto = json.dumps({**body, "model": "auto"}).encode()
    asked = Request.parse(auto, version=version, betas=names)
    found = fit(asked, target, MODELS)
    assume(not found.misfit)

    fitted = found.apply(asked)
    assert 200 == status(fitted.body(), version, fitted.betas)


class Upstream:
    """The simulated API as an upstream; counts its refusals."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.refused = 0
        self.simulator = Simulator()

    def __call__(self, step: Send) -> Reply:
        sent = step.request
        response = self.simulator.handle(
            "POST", "/v1/messages", headers(self.version, sent.betas), sent.body()
        )
        content = response.read()
        if response.status != 200:
            self.refused += 1
            raise UpstreamFailure(RuntimeError(content.decode()), status=response.status)
        return Reply(content, Facts(model=sent.model, is_complete=True))


@settings(max_examples=120, deadline=None)
@given(
    bodies,
    st.sampled_from([HAIKU, SONNET, OPUS, "claude-haiku-4-5"]),
    st.sampled_from(IDS),
    betas,
    st.sampled_from(["Be brief", "Be long"]),
)
def test_a_swap_never_shows_the_caller_a_refusal(
    body: dict[str, Any], target: str, maker: str, names: list[str], system: str
) -> None:
    """Not even where thinking is bound to a prompt that has changed since, which nobody can see before."""
    body = with_thought(body, maker)
    if "system" in body:
        body["system"] = system
    received = json.dumps({**body, "stream": False}).encode()
    asked = Request.parse(received, betas=names)
    assume(200 == status(received, "2023-06-01", asked.betas))
    assume(not fit(asked, target, MODELS).misfit)
    chosen = decision(
        target,
        fallback=asked.model,
        asked=asked.model,
        mode="enforce",
        baseline=Baseline(asked.model, "asked"),
    )
    upstream, clock = Upstream("2023-06-01"), Clock()
    store = SqliteStore(":memory:", clock=clock)

    result = run(exchange(call(asked, max_retries=0), terms(chosen, clock)), upstream, Desk(store, clock))

    assert result.life.outcome is not None
    assert upstream.refused <= 1
    assert "ok" == result.life.outcome.result
    assert (asked.model if upstream.refused else target) == result.life.outcome.model
    store.close()
