"""What the simulated API counts, remembers and bills.

Tokens are a fixed share of bytes, so a test can work them out by hand: a quarter of
the UTF-8 bytes under the old tokenizer, 1.3 times that under the new one, rounded
up. The prompt cache follows the API's rules, per model, on the caller's clock. The
bill is worked out here and not by `prices.cost`, from the same rows, so that
comparing a ledger with these books means something.

Sources: https://platform.claude.com/docs/en/build-with-claude/prompt-caching and
https://platform.claude.com/docs/en/about-claude/pricing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import accumulate
from typing import Final

import msgspec

from leastwise.messages import JSON, Usage, blocks_of
from leastwise.models import Model
from leastwise.money import TOKENS_PER_MTOK, divide_half_even
from leastwise.prices import PriceBook, Rate
from leastwise.simulate.rules import Ask, refuse

_ENCODE: Final = msgspec.json.Encoder(order="sorted").encode
_MEDIA_BYTES: Final = 6_000  # an image or a file weighs as much as this much text
_TTL_S: Final = {"5m": 300.0, "1h": 3600.0}
_LOOKBACK: Final = 20  # blocks before a breakpoint that are looked up in the cache
_SWEEP_AT: Final = 10_000


def count(weight_bytes: int, model: Model) -> int:
    """Return the tokens of that many UTF-8 bytes, rounded up."""
    return -(-weight_bytes // 4) if model.tokenizer == "old" else -(-13 * weight_bytes // 40)


def bytes_within(tokens: int, model: Model) -> int:
    """Return how many UTF-8 bytes fit into that many tokens."""
    return tokens * 4 if model.tokenizer == "old" else tokens * 40 // 13


@dataclass(frozen=True, slots=True)
class Charge:
    """One billed answer.

    Attributes:
        request_id: The answer's `request-id`.
        message_id: The answer's `msg_...`.
        model: The model that answered, as it names itself.
        usage: What was counted until the answer ended.
        nusd: The bill.
        is_cut: Whether the answer did not reach its end: the client left, or a fault cut it.
    """

    request_id: str
    message_id: str
    model: str
    usage: Usage
    nusd: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One cacheable piece of a prompt: a tool, or a block of the system prompt or of a turn.

    Attributes:
        weight_bytes: What it counts.
        digest: Of everything up to and with this part.
        ttl: `5m` or `1h` where a breakpoint stands, else "".
        is_turn: Whether it belongs to `messages`.
    """

    weight_bytes: int
    digest: bytes
    ttl: str
    is_turn: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt, weighed and hashed in the order tools, system, messages."""

    parts: tuple[Part, ...]

    @property
    def weight_bytes(self) -> int:
        """What the whole prompt counts."""
        return sum(part.weight_bytes for part in self.parts)

    @property
    def digest(self) -> bytes:
        """Of the whole prompt."""
        return self.parts[-1].digest


def read_prompt(ask: Ask) -> Prompt:
    """Weigh and hash a prompt; replayed thinking is checked and, where another model's, left out.

    Raises:
        RefusedError: what precedes a thinking block is no longer what it was thought on.
    """
    hasher = blake2b(digest_size=16)
    parts: list[Part] = []

    def add(block: dict[str, JSON], weight: int, *, is_turn: bool) -> None:
        plain = {
            name: value for name, value in block.items() if name != "cache_control" and value is not None
        }
        hasher.update(_ENCODE(plain))
        ttl = (block.get("cache_control") or {}).get("ttl", "5m") if block.get("cache_control") else ""
        parts.append(Part(weight, hasher.digest(), ttl, is_turn))

    for tool in ask.body.get("tools") or ():
        add(tool, len(_ENCODE(tool)), is_turn=False)
    for block in blocks_of(ask.body.get("system")):
        add(block, _weigh(block), is_turn=False)
    for index, turn in enumerate(ask.body["messages"]):
        before = hasher.digest()
        hasher.update(turn["role"].encode())
        for block in blocks_of(turn["content"]):
            is_ours = block["type"] != "thinking" or _is_own_thinking(ask, block, before, index)
            add(block, _weigh(block) if is_ours else 0, is_turn=True)
    if ask.body.get("cache_control") and not parts[-1].ttl:
        last = parts[-1]
        ttl = ask.body["cache_control"].get("ttl", "5m")
        parts[-1] = Part(last.weight_bytes, last.digest, ttl, last.is_turn)
    return Prompt(tuple(parts))


def sign(model: Model, digest: bytes) -> str:
    """Return the signature of thinking done by `model` on the prompt of that digest."""
    return f"simulated:{model.id}:{digest.hex()}"


def _is_own_thinking(ask: Ask, block: dict[str, JSON], before: bytes, index: int) -> bool:
    """Tell whether a replayed thinking block is read, and so billed.

    A block of another model, or signed elsewhere, is dropped without a word, as the API does.
    """
    kind, _, signed = block["signature"].partition(":")
    model, _, digest = signed.partition(":")
    if kind != "simulated" or model != ask.model.id:
        return False
    if not ask.model.binds_thinking_prefix or digest == before.hex():
        return True
    binding = ask.body.get("thinking", {}).get("block_binding") or {}
    if binding.get("prefix_mismatch_behavior") != "drop_block":
        refuse(
            f"messages.{index}: `thinking` blocks must be sent back with everything before them unchanged: "
            f"`system`, `tools` and all earlier `messages`"
        )
    return False


def _weigh(block: dict[str, JSON]) -> int:
    """Return a block's UTF-8 bytes, as far as they count."""
    match block["type"]:
        case "text":
            return len(block["text"].encode())
        case "thinking":
            return len(block["thinking"].encode())
        case "image":
            return _MEDIA_BYTES
        case "document":
            source = block["source"]
            return len(str(source.get("data")).encode()) if source.get("type") == "text" else _MEDIA_BYTES
        case "tool_result":
            return sum(_weigh(inner) for inner in blocks_of(block.get("content")))
        case "tool_use":
            return len(block["name"].encode()) + len(_ENCODE(block["input"]))
        case _:
            return len(_ENCODE(block))


class PromptCache:
    """Prefixes kept per model and speed, each until five minutes or an hour after its last use."""

    def __init__(self) -> None:
        self._expiries: dict[tuple[object, ...], float] = {}

    def serve(self, ask: Ask, prompt: Prompt, now: float) -> Usage:
        """Return the prompt's tokens by class, and keep what its breakpoints ask to keep."""
        totals = [
            count(weight, ask.model) for weight in accumulate(part.weight_bytes for part in prompt.parts)
        ]
        marks = [
            index
            for index, part in enumerate(prompt.parts)
            if part.ttl and totals[index] >= ask.model.cache_minimum_tokens
        ]
        if not marks:
            return Usage(input_tokens=totals[-1])
        keys = [self._key(ask, part) for part in prompt.parts]
        read = self._longest(keys, marks, now)
        done = totals[read] if read >= 0 else 0
        written = {"5m": 0, "1h": 0}
        for mark in marks:
            if mark > read:
                written[prompt.parts[mark].ttl] += totals[mark] - done
                done = totals[mark]
            self._keep(keys[mark], now, now + _TTL_S[prompt.parts[mark].ttl])
        return Usage(
            input_tokens=totals[-1] - done,
            cache_read_input_tokens=totals[read] if read >= 0 else 0,
            cache_write_5m_tokens=written["5m"],
            cache_write_1h_tokens=written["1h"],
        )

    def _key(self, ask: Ask, part: Part) -> tuple[object, ...]:
        # Another effort drops the cached turns, but not the tools and the system prompt before them.
        effort = ask.effort if part.is_turn else ""
        return ask.model.id, ask.body.get("speed") or "standard", effort, part.digest

    def _longest(self, keys: list[tuple[object, ...]], marks: list[int], now: float) -> int:
        """Return the index of the last part read from the cache, or -1."""
        for mark in reversed(marks):
            for index in range(mark, max(mark - _LOOKBACK, 0) - 1, -1):
                if self._expiries.get(keys[index], 0.0) > now:
                    return index
        return -1

    def _keep(self, key: tuple[object, ...], now: float, until: float) -> None:
        if len(self._expiries) >= _SWEEP_AT:
            self._expiries = {kept: expiry for kept, expiry in self._expiries.items() if expiry > now}
        self._expiries[key] = max(until, self._expiries.get(key, 0.0))


class Tariff:
    """Prices answers by the list rates; has its own rule for dates and for long prompts."""

    def __init__(self, book: PriceBook) -> None:
        self._rows: dict[str, list[Rate]] = {}
        for rate in book.rates:
            self._rows.setdefault(rate.model, []).append(rate)

    def bill(self, model: Model, usage: Usage, now: float) -> int:
        """Return the price of an answer given at `now`, in nano-dollars; 0 for a model without a price."""
        day = datetime.fromtimestamp(now, UTC).date()
        rows = [
            row
            for row in self._rows.get(model.id, ())
            if row.since <= day and (row.until is None or day < row.until)
            if usage.prompt_tokens > row.prompt_over or row.prompt_over == 0
        ]
        if not rows:
            return 0
        row = max(rows, key=lambda row: (row.since, row.prompt_over))
        tokens = (
            usage.input_tokens * row.input
            + usage.cache_read_input_tokens * row.cache_read
            + usage.cache_write_5m_tokens * row.cache_write_5m
            + usage.cache_write_1h_tokens * row.cache_write_1h
            + usage.output_tokens * row.output
        )
        if usage.speed == "fast":
            tokens *= 2
        tenths = 11 if usage.inference_geo == "us" else 10
        halves = 1 if usage.service_tier == "batch" else 2
        return divide_half_even(tokens * tenths * halves, 20 * TOKENS_PER_MTOK)


def usage_json(usage: Usage) -> Mapping[str, JSON]:
    """Return usage as the API spells it."""
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.thinking_tokens},
        "service_tier": usage.service_tier,
        "speed": usage.speed,
        "inference_geo": usage.inference_geo,
    }
