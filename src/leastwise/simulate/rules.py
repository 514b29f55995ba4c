"""What the simulated API refuses beyond the shape of the body, and in which words.

It is as strict as the real one, and where that is not known, stricter: a mock that
accepts what the API refuses hides our faults. `MATRIX` is the one table of what a
model does not take; the rest is the order of the turns, tools and breakpoints. The
exact words of the real 400s are not public; the field they begin with is.

Sources: https://platform.claude.com/docs/en/api/messages and .../errors
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from leastwise.messages import JSON, blocks_of
from leastwise.models import Model
from leastwise.simulate.shapes import BetaMessage, Count, Message, misfit

STRICT_VERSION: Final = "2026-10-21"
VERSIONS: Final = frozenset({"2023-06-01", STRICT_VERSION})

_MOST_BREAKPOINTS: Final = 4
_MOST_STRICT_TOOLS: Final = 20
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_LEAST_TOP_P: Final = 0.95  # while thinking
_DEFERRING: Final = frozenset({"allowed_callers", "defer_loading", "input_examples"})
_OF_SERVER_TOOLS: Final = frozenset({"server_tool_use", "web_search_tool_result", "web_fetch_tool_result"})
_OF_MID_CONVERSATION: Final = frozenset({"tool_addition", "tool_removal"})
_UNTOUCHED: Final = {"temperature": 1, "top_p": 0.99}  # what Haiku 5.5 lets pass


class RefusedError(Exception):
    """The simulated API answers an error; carries its status and type."""

    def __init__(self, message: str, status: int, api_type: str, error_code: str) -> None:
        self.status = status
        self.api_type = api_type
        self.details = {"details": {"error_code": error_code}} if error_code else {}
        super().__init__(message)


def refuse(
    message: str, status: int = 400, api_type: str = "invalid_request_error", error_code: str = ""
) -> NoReturn:
    """Answer an error.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(message, status, api_type, error_code)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to the simulated API.

    Attributes:
        body: The decoded body.
        model: The model it names.
        version: Its `anthropic-version`.
        is_beta: Whether it came with `?beta=true` or an `anthropic-beta` header.
        betas: The values of that header.
        is_count: Whether it only asks for a token count.
    """

    body: dict[str, JSON]
    model: Model
    version: str
    is_beta: bool = False
    betas: tuple[str, ...] = ()
    is_count: bool = False

    def has_beta(self, name: str) -> bool:
        """Tell whether the header names this beta, of whatever date."""
        return any(beta.startswith(f"{name}-") for beta in self.betas)

    @property
    def messages(self) -> list[dict[str, JSON]]:
        """The conversation."""
        messages: list[dict[str, JSON]] = self.body["messages"]
        return messages

    @property
    def is_stream(self) -> bool:
        """Whether the answer is to be a stream."""
        return bool(self.body.get("stream", False))

    @property
    def max_tokens(self) -> int:
        """The cap on the answer, thinking included; 0 for a count."""
        return int(self.body.get("max_tokens", 0))

    @property
    def text(self) -> str:
        """The text of the last user turn."""
        content = next(turn["content"] for turn in reversed(self.messages) if turn["role"] == "user")
        return "\n".join(block["text"] for block in blocks_of(content) if block["type"] == "text")

    @property
    def system(self) -> str:
        """The text of the system prompt."""
        return "\n".join(block["text"] for block in blocks_of(self.body.get("system")))

    @property
    def thinking(self) -> str:
        """The `thinking.type` asked for, "" when the request says nothing of it."""
        return str(self.body.get("thinking", {}).get("type", ""))

    @property
    def effort(self) -> str:
        """The effort asked for, "" when the request says nothing of it."""
        return str(self.body.get("output_config", {}).get("effort") or "")

    @property
    def sampling(self) -> dict[str, JSON]:
        """The sampling parameters asked for."""
        return {name: self.body[name] for name in ("temperature", "top_p", "top_k") if name in self.body}

    @property
    def tool_choice(self) -> str:
        """The `tool_choice.type` asked for, "" when the request says nothing of it."""
        return str((self.body.get("tool_choice") or {}).get("type", ""))

    @property
    def forces_tool(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self.tool_choice in {"any", "tool"}

    @property
    def is_prefilled(self) -> bool:
        """Whether the last turn is the assistant's; one that the API paused itself is not meant."""
        last = self.body["messages"][-1]
        if last["role"] != "assistant":
            return False
        return not any(block["type"] == "server_tool_use" for block in blocks_of(last["content"]))

    @property
    def thinks_on_request(self) -> bool:
        """Whether a model that does not think by itself is told to."""
        return self.model.thinking == "off" and self.thinking in {"adaptive", "enabled"}

    @property
    def has_tool_results(self) -> bool:
        """Whether the last turn answers tool calls."""
        return any(block["type"] == "tool_result" for block in blocks_of(self.messages[-1]["content"]))


def check(ask: Ask) -> None:
    """Refuse what the real API would refuse.

    Raises:
        RefusedError: with the words of the answer.
    """
    beta = BetaMessage if ask.is_beta else Message
    if wrong := misfit(ask.body, Count if ask.is_count else beta):
        refuse(wrong)
    for is_refused, words in MATRIX:
        if is_refused(ask):
            refuse(words.format(ask=ask, model=ask.model))
    _check_betas(ask)
    if ask.body.get("thread"):  # the SDK's tool runner asks, and goes on without when told so
        refuse("thread: conversations are not kept here", error_code="thread_unsupported_request")
    _check_schema(ask)
    _check_context(ask)
    _check_turns(ask)
    _check_tools(ask)
    _check_breakpoints(ask)


def _is_sampling_refused(ask: Ask) -> bool:
    given = ask.sampling
    match ask.model.sampling:
        case "any":
            return False
        case "one":
            return {"temperature", "top_p"} <= given.keys()
        case "defaults":
            return any(value != _UNTOUCHED.get(name) for name, value in given.items())
        case "none":
            return bool(given)


def _is_sampling_refused_thinking(ask: Ask) -> bool:
    given = ask.sampling
    return ask.thinks_on_request and (
        given.get("temperature", 1) != 1 or "top_k" in given or given.get("top_p", 1) < _LEAST_TOP_P
    )


def _begins_without_thinking(ask: Ask) -> bool:
    """Tell whether a tool loop goes on with thinking whose calls were made without."""
    if ask.model.thinking != "off" or ask.thinking != "enabled" or not ask.has_tool_results:
        return False
    calls = next(turn for turn in reversed(ask.messages) if turn["role"] == "assistant")
    first = blocks_of(calls["content"])[0]
    signed = str(first.get("signature", "")).split(":")
    is_own = first["type"] == "thinking" and signed[:2] == ["simulated", ask.model.id]
    return not is_own


#: When a model refuses a request, and how.
MATRIX: Final[tuple[tuple[Callable[[Ask], bool], str], ...]] = (
    (
        lambda ask: ask.max_tokens > ask.model.max_output,
        "max_tokens: {ask.max_tokens} > {model.max_output}, the most output tokens of {model.id}",
    ),
    (
        lambda ask: ask.thinking not in {"", *ask.model.accepts_thinking},
        "thinking.type: {ask.thinking!r} is not supported by {model.id}",
    ),
    (
        lambda ask: (
            not ask.is_count and ask.body.get("thinking", {}).get("budget_tokens", -1) >= ask.max_tokens
        ),
        "max_tokens: must be greater than thinking.budget_tokens",
    ),
    (
        lambda ask: ask.effort not in {"", *ask.model.efforts},
        "output_config.effort: {ask.effort!r} is not supported by {model.id}",
    ),
    (
        lambda ask: (
            ask.model.thinking == "on"
            and ask.thinking in {"disabled", "between_tools"}
            and ask.effort in {"xhigh", "max"}
        ),
        "output_config.effort: {ask.effort!r} is not supported with thinking {ask.thinking!r}",
    ),
    (
        lambda ask: ask.version == STRICT_VERSION and bool(ask.sampling),
        "temperature, top_p, top_k: not accepted under anthropic-version 2026-10-21, got {ask.sampling}",
    ),
    (_is_sampling_refused, "temperature, top_p, top_k: {ask.sampling} is not supported by {model.id}"),
    (
        _is_sampling_refused_thinking,
        "temperature, top_p, top_k: {ask.sampling} is not supported when thinking is on",
    ),
    (
        _begins_without_thinking,
        "messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`, when thinking is on",
    ),
    (
        lambda ask: ask.is_prefilled and not ask.model.takes_prefill,
        "messages: {model.id} does not support assistant message prefill; end with a user message.",
    ),
    (
        lambda ask: ask.is_prefilled and ask.thinks_on_request,
        "messages: the last message may not be the assistant's when thinking is on",
    ),
    (
        lambda ask: ask.forces_tool and not ask.model.takes_forced_tool_choice,
        "tool_choice.type: {ask.tool_choice!r} is not supported by {model.id}",
    ),
    (
        lambda ask: ask.forces_tool and ask.thinks_on_request,
        "tool_choice.type: {ask.tool_choice!r} is not supported when thinking is on",
    ),
    (
        lambda ask: not ask.model.takes_mid_system and any(turn["role"] == "system" for turn in ask.messages),
        "messages: role 'system' is not supported by {model.id}",
    ),
    (
        lambda ask: ask.body.get("speed") == "fast" and not ask.model.has_fast,
        "speed: 'fast' is not supported by {model.id}",
    ),
    (
        lambda ask: "task_budget" in ask.body.get("output_config", {}) and not ask.has_beta("task-budgets"),
        "output_config.task_budget: Extra inputs are not permitted",
    ),
    (
        lambda ask: "task_budget" in ask.body.get("output_config", {}) and not ask.model.takes_task_budget,
        "output_config.task_budget: is not supported by {model.id}",
    ),
    (
        lambda ask: ask.body.get("inference_geo") is not None and not ask.model.has_geo,
        "inference_geo: is not supported by {model.id}",
    ),
    (
        lambda ask: bool(ask.body.get("fallbacks")) and ask.model.id == "claude-haiku-5-5",
        "fallbacks: are not supported by {model.id}",
    ),
)


def _check_betas(ask: Ask) -> None:
    for beta in ask.betas:
        means = ask.model.takes_beta(beta)
        if means is None:
            refuse(f"anthropic-beta: Unexpected value(s) `{beta}`")
        if not means:
            refuse(f"anthropic-beta: `{beta}` is not supported by {ask.model.id}")


def _check_context(ask: Ask) -> None:
    if "context_management" in ask.body and not ask.has_beta("context-management"):
        refuse("context_management: Extra inputs are not permitted")
    for edit in blocks_of((ask.body.get("context_management") or {}).get("edits")):
        if not (ask.model.takes_compaction or str(edit.get("type")).startswith("clear_tool_uses_")):
            refuse(f"context_management.edits: {edit.get('type')!r} is not supported by {ask.model.id}")


def _check_schema(ask: Ask) -> None:
    form = ask.body.get("output_config", {}).get("format")
    for part in _parts(form["schema"]) if form else ():
        if part.get("type") == "object" and part.get("additionalProperties") is not False:
            refuse("output_config.format.schema: 'additionalProperties' must be false for 'object' types")


def _parts(schema: JSON) -> Iterator[dict[str, JSON]]:
    """Iterate a JSON schema and the schemas inside it."""
    if not isinstance(schema, dict):
        return  # `true` or `false` in a schema's place
    yield schema
    named = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    listed = [part for name in ("anyOf", "oneOf", "allOf") for part in schema.get(name, ())]
    for inner in [*named, *listed, schema.get("items")]:
        yield from _parts(inner)


def _check_turns(ask: Ask) -> None:
    messages = ask.messages
    if messages[0]["role"] != "user":
        refuse('messages: first message must use the "user" role')
    called: set[str] = set()
    for index, turn in enumerate(messages):
        if not turn["content"] and not (ask.is_prefilled and index == len(messages) - 1):
            refuse(f"messages.{index}: all messages must have non-empty content")
        if ask.version == STRICT_VERSION:
            _check_strict(turn, f"messages.{index}")
        _check_kinds(turn, ask.model, f"messages.{index}")
        if turn["role"] != "system":
            called = _check_calls(turn, called, f"messages.{index}")
    if called:
        refuse(f"messages: `tool_use` ids were found without `tool_result` blocks: {sorted(called)}")
    ending = [block.get("text", "") for block in blocks_of(messages[-1]["content"])][-1:]
    if ask.is_prefilled and ending != [text.rstrip() for text in ending]:
        refuse("messages: final assistant content cannot end with trailing whitespace")


def _check_kinds(turn: dict[str, JSON], model: Model, where: str) -> None:
    for kind in {block["type"] for block in blocks_of(turn["content"])}:
        if kind in _OF_SERVER_TOOLS and not model.takes_deferred_tools:
            refuse(f"{where}: {kind!r} is not supported by {model.id}")
        if kind in _OF_MID_CONVERSATION and not model.takes_mid_system:
            refuse(f"{where}: {kind!r} is not supported by {model.id}")


def _check_strict(turn: dict[str, JSON], where: str) -> None:
    """Refuse what the version of 2026-10-21 no longer takes."""
    for block in blocks_of(turn["content"]):
        if turn["role"] == "assistant" and block["type"] == "document":
            refuse(f"{where}: 'document' is not allowed in assistant turns")
        if turn["role"] == "user" and block["type"] == "text" and block.get("citations"):
            refuse(f"{where}: citations are not allowed on the user's text")


def _check_calls(turn: dict[str, JSON], called: set[str], where: str) -> set[str]:
    """Match tool results to the calls of the turn before; return the calls this turn makes."""
    blocks = blocks_of(turn["content"])
    answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
    if strange := answered - called:
        refuse(
            f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {sorted(strange)}. Each "
            f"`tool_result` block must have a corresponding `tool_use` block in the previous message."
        )
    if missing := called - answered:
        refuse(
            f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{sorted(missing)}. Each `tool_use` block must have a `tool_result` block in the next message."
        )
    return {block["id"] for block in blocks if block["type"] == "tool_use"}


def _check_tools(ask: Ask) -> None:
    tools = ask.body.get("tools", [])
    for index, tool in enumerate(tools):
        kind = tool.get("type") or "custom"
        if kind == "custom":  # the API's own tools bring no schema
            _check_tool(tool, f"tools.{index}.custom")
            if _DEFERRING & tool.keys() and not ask.model.takes_deferred_tools:
                refuse(f"tools.{index}.custom: {ask.model.id} does not support {_DEFERRING & tool.keys()}")
        elif not ask.model.takes_tool(kind):
            refuse(f"tools.{index}.type: {kind!r} is not supported by {ask.model.id}")
    names = [tool.get("name", tool.get("type")) for tool in tools]
    if len(set(names)) < len(names):
        refuse("tools: Tool names must be unique.")
    if sum(tool.get("strict") is True for tool in tools) > _MOST_STRICT_TOOLS:
        refuse(f"tools: at most {_MOST_STRICT_TOOLS} strict tools are allowed")
    if ask.tool_choice not in {"", "none"} and not tools:
        refuse("tool_choice: may only be specified while providing tools.")
    if ask.tool_choice == "tool" and ask.body["tool_choice"].get("name") not in names:
        refuse(f"tool_choice: Tool {ask.body['tool_choice'].get('name')!r} not found in provided tools")


def _check_tool(tool: dict[str, JSON], where: str) -> None:
    if not _NAME.fullmatch(tool.get("name", "")):
        refuse(f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if "input_schema" not in tool:
        refuse(f"{where}.input_schema: Field required")
    if tool["input_schema"].get("type") != "object":
        refuse(f"{where}.input_schema.type: Input should be 'object'")


def _check_breakpoints(ask: Ask) -> None:
    blocks = [*ask.body.get("tools", ()), *blocks_of(ask.body.get("system"))]
    for turn in ask.messages:
        blocks += blocks_of(turn["content"])
    marks = [mark for block in [*blocks, ask.body] if (mark := block.get("cache_control")) is not None]
    if len(marks) > _MOST_BREAKPOINTS:
        refuse(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    ttls = [mark.get("ttl", "5m") for mark in marks]
    if ttls != sorted(ttls):  # "1h" sorts before "5m"
        refuse("cache_control.ttl: a ttl='1h' block must not come after a ttl='5m' block")
