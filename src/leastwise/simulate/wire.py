"""An answer on the wire: one JSON message, or the server-sent events of a stream.

`compose` makes the final message once, under the caller's cap and stop sequences; the
stream is the same message cut into events, each with the tokens produced so far.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from leastwise.messages import JSON, Usage
from leastwise.simulate.answers import MARK, Answer, thinking_tokens
from leastwise.simulate.books import Prompt, bytes_within, count, sign, usage_json
from leastwise.simulate.rules import Ask
from leastwise.sse import encode as encode_event

ENCODE: Final = msgspec.json.Encoder().encode

_DELTA_CHARS: Final = 40
_REFUSAL: Final = {"type": "refusal", "category": "general_harms", "explanation": f"{MARK} refused."}


class Piece(NamedTuple):
    """Bytes of an answer, with the output tokens produced when they are sent."""

    data: bytes
    tokens: int = 0
    is_last: bool = False
    stall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Composed:
    """A finished answer: its blocks, why it stopped, and what it counts.

    Attributes:
        message: The message as JSON, with its usage.
        usage: The same usage, read.
        weights: Output tokens of each block.
    """

    message: dict[str, JSON]
    usage: Usage
    weights: tuple[int, ...]

    def body(self) -> bytes:
        """Return the message as the body of a plain answer."""
        return ENCODE(self.message)

    def pieces(self, *, is_stream: bool) -> Iterator[Piece]:
        """Yield the answer as the events of a stream, or whole."""
        if is_stream:
            yield from _events(self)
        else:
            yield Piece(self.body(), self.usage.output_tokens, is_last=True)

    def made(self, tokens: int) -> Usage:
        """Return the usage of an answer that ended after so many output tokens."""
        if tokens == self.usage.output_tokens:
            return self.usage
        thought = min(self.usage.thinking_tokens, tokens)
        return replace(self.usage, output_tokens=tokens, thinking_tokens=thought)


def compose(ask: Ask, answer: Answer, prompt: Prompt, usage: Usage, message_id: str) -> Composed:
    """Return the whole answer, within `max_tokens` and before any stop sequence.

    Args:
        ask: The request.
        answer: What to say.
        prompt: Whose digest the thinking is signed with.
        usage: The prompt's tokens by class.
        message_id: The answer's id; ids of tool calls derive from it.
    """
    limit = ask.body.get("thinking", {}).get("budget_tokens", ask.max_tokens)
    thought = min(thinking_tokens(ask, answer), limit, ask.max_tokens)
    blocks = [(_thinking(ask, prompt), thought)] if thought else []
    spoken, stop, sequence = _speak(ask, answer, ask.max_tokens - thought, message_id)
    blocks += spoken
    weights = tuple(weight for _, weight in blocks)
    usage = replace(
        usage,
        output_tokens=sum(weights),
        thinking_tokens=thought,
        speed=ask.body.get("speed") or "standard",
        inference_geo=ask.body.get("inference_geo") or "global",
    )
    stop = answer.stop_reason or stop
    message = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": ask.body["model"],
        "content": [block for block, _ in blocks],
        "stop_reason": stop,
        "stop_sequence": sequence,
        "stop_details": _REFUSAL if stop == "refusal" else None,
        "usage": usage_json(usage),
    }
    return Composed(message, usage, weights)


def _thinking(ask: Ask, prompt: Prompt) -> dict[str, JSON]:
    default = "summarized" if ask.model.thinking == "off" else "omitted"
    display = ask.body.get("thinking", {}).get("display") or default
    text = f"{MARK} The task is plain; answer it." if display == "summarized" else ""
    return {"type": "thinking", "thinking": text, "signature": sign(ask.model, prompt.digest)}


def _speak(
    ask: Ask, answer: Answer, left: int, message_id: str
) -> tuple[list[tuple[dict[str, JSON], int]], str, str | None]:
    """Return the blocks after the thinking with their tokens, why they stop, and at which sequence."""
    if left <= 0:
        return [], "max_tokens", None
    blocks: list[tuple[dict[str, JSON], int]] = []
    text, stop, sequence = _cut(ask, answer.text, left)
    if text:
        blocks.append(({"type": "text", "text": text}, count(len(text.encode()), ask.model)))
    for index, (name, given) in enumerate(answer.tool_calls if stop == "end_turn" else ()):
        weight = count(len(name.encode()) + len(ENCODE(given)), ask.model)
        if weight + sum(taken for _, taken in blocks) > left:
            return blocks, "max_tokens", None
        tool_id = f"toolu_{message_id.removeprefix('msg_')}{index}"
        blocks.append(({"type": "tool_use", "id": tool_id, "name": name, "input": given}, weight))
    return blocks, "tool_use" if stop == "end_turn" and answer.tool_calls else stop, sequence


def _cut(ask: Ask, text: str, tokens: int) -> tuple[str, str, str | None]:
    """Return the text that is said, why it stops, and the stop sequence that ended it."""
    stop, sequence = "end_turn", None
    found = [(text.index(word), word) for word in ask.body.get("stop_sequences", ()) if word in text]
    if found:
        end, sequence = min(found)
        text, stop = text[:end], "stop_sequence"
    data = text.encode()
    if count(len(data), ask.model) > tokens:
        text = data[: bytes_within(tokens, ask.model)].decode("utf-8", "ignore")
        stop, sequence = "max_tokens", None
    return text, stop, sequence


def _events(composed: Composed) -> Iterator[Piece]:
    message = composed.message
    first = min(1, composed.usage.output_tokens)  # the first token is sampled before anything is sent
    start = {**message, "content": [], "stop_reason": None, "stop_details": None, "stop_sequence": None}
    start["usage"] = {
        **message["usage"],
        "output_tokens": first,
        "output_tokens_details": {"thinking_tokens": 0},
    }
    yield Piece(_event("message_start", message=start), first)
    done = first
    before = 0
    for index, (block, weight) in enumerate(zip(message["content"], composed.weights, strict=True)):
        yield Piece(_event("content_block_start", index=index, content_block=_opening(block)), done)
        if index == 0:
            yield Piece(_event("ping"), done)
        deltas = _deltas(block)
        for number, delta in enumerate(deltas, 1):
            done = max(done, before + -(-weight * number // len(deltas)))
            yield Piece(_event("content_block_delta", index=index, delta=delta), done)
        before += weight
        yield Piece(_event("content_block_stop", index=index), done)
    ending = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield Piece(_event("message_delta", delta=ending, usage=message["usage"]), done)
    yield Piece(_event("message_stop"), done, is_last=True)


def _event(name: str, **members: JSON) -> bytes:
    return encode_event(name, ENCODE({"type": name, **members}))


def _opening(block: dict[str, JSON]) -> dict[str, JSON]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {**block, "input": {}}


def _deltas(block: dict[str, JSON]) -> list[dict[str, JSON]]:
    match block["type"]:
        case "text":
            return [{"type": "text_delta", "text": part} for part in _split(block["text"])]
        case "thinking":
            thinking = [{"type": "thinking_delta", "thinking": part} for part in _split(block["thinking"])]
            return [*thinking, {"type": "signature_delta", "signature": block["signature"]}]
        case _:
            given = _split(ENCODE(block["input"]).decode())
            return [{"type": "input_json_delta", "partial_json": part} for part in ["", *given]]


def _split(text: str) -> list[str]:
    return [text[start : start + _DELTA_CHARS] for start in range(0, len(text), _DELTA_CHARS)]
