"""What type checkers see of the drop-in clients; checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

import anthropic
import pydantic
from anthropic.lib.streaming import (
    AsyncMessageStreamManager,
    BetaMessageStreamManager,
    MessageStreamManager,
)
from anthropic.lib.tools import BetaToolRunner
from anthropic.types import Message, ParsedMessage, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage
from anthropic.types.beta.parsed_beta_message import ParsedBetaMessage

import leastwise

TASK = leastwise.Task("classify", tag="triage", expected_output_tokens=5)


class Verdict(pydantic.BaseModel):
    """What is asked for."""

    is_spam: bool


def sync(client: leastwise.Anthropic, *, streams: bool) -> None:
    """A Leastwise client wherever the SDK's own is taken, and `task` on three methods."""
    plain: anthropic.Anthropic = client
    assert_type(plain.messages.create(model="m", max_tokens=1, messages=[]), Message)

    assert_type(client.messages.create(model="auto", max_tokens=1, messages=[]), Message)
    assert_type(client.messages.create(model="auto", max_tokens=1, messages=[], task=TASK), Message)
    assert_type(client.messages.create(model="auto", max_tokens=1, messages=[], stream=False), Message)
    assert_type(
        client.messages.create(model="auto", max_tokens=1, messages=[], stream=True, task=TASK),
        anthropic.Stream[RawMessageStreamEvent],
    )
    assert_type(
        client.messages.create(model="auto", max_tokens=1, messages=[], stream=streams),
        Message | anthropic.Stream[RawMessageStreamEvent],
    )
    assert_type(
        client.messages.stream(model="auto", max_tokens=1, messages=[], task=TASK), MessageStreamManager[Any]
    )
    parsed = client.messages.parse(model="auto", max_tokens=1, messages=[], output_format=Verdict, task=TASK)
    assert_type(parsed, ParsedMessage[Verdict])
    assert_type(parsed.parsed_output, Verdict | None)
    assert_type(client.beta.messages.create(model="auto", max_tokens=1, messages=[], task=TASK), BetaMessage)
    assert_type(
        client.beta.messages.stream(model="auto", max_tokens=1, messages=[], task=TASK),
        BetaMessageStreamManager[Any],
    )
    assert_type(
        client.beta.messages.parse(model="auto", max_tokens=1, messages=[], output_format=Verdict),
        ParsedBetaMessage[Verdict],
    )
    runner = client.beta.messages.tool_runner(model="auto", max_tokens=1, messages=[], tools=[], task=TASK)
    assert_type(runner, BetaToolRunner[Any])
    assert_type(client.with_options(timeout=1), leastwise.Anthropic)
    assert_type(client.copy(api_key="k"), leastwise.Anthropic)

    client.messages.create(model="auto", max_tokens=1, messages=[], task="classify")  # type: ignore[call-overload]
    leastwise.Anthropic(mode="enfroce")  # type: ignore[arg-type]
    leastwise.AsyncAnthropic(budget_usd=5.00)
    leastwise.Anthropic(budget_usd="5")  # type: ignore[arg-type]

    client.feedback(parsed, ok=True, note="right")
    client.feedback("msg_1")  # type: ignore[call-arg]


async def asynchronous(client: leastwise.AsyncAnthropic) -> None:
    """The same on an event loop."""
    plain: anthropic.AsyncAnthropic = client
    assert_type(await plain.messages.create(model="m", max_tokens=1, messages=[]), Message)

    assert_type(await client.messages.create(model="auto", max_tokens=1, messages=[], task=TASK), Message)
    assert_type(
        await client.messages.create(model="auto", max_tokens=1, messages=[], stream=True),
        anthropic.AsyncStream[RawMessageStreamEvent],
    )
    assert_type(
        client.messages.stream(model="auto", max_tokens=1, messages=[], task=TASK),
        AsyncMessageStreamManager[Any],
    )
    assert_type(
        await client.messages.parse(model="auto", max_tokens=1, messages=[], output_format=Verdict),
        ParsedMessage[Verdict],
    )
    assert_type(
        await client.beta.messages.create(model="auto", max_tokens=1, messages=[], task=TASK), BetaMessage
    )
    assert_type(client.with_options(timeout=1), leastwise.AsyncAnthropic)
    await client.feedback("msg_1", ok=False)


def others(bedrock: anthropic.AnthropicBedrock, vertex: anthropic.AsyncAnthropicVertex) -> None:
    """`wrap` and `record` keep the client's type."""
    assert_type(leastwise.wrap(bedrock), anthropic.AnthropicBedrock)
    assert_type(leastwise.record(vertex, "calls.jsonl"), anthropic.AsyncAnthropicVertex)


def outcomes(message: Message, events: anthropic.Stream[RawMessageStreamEvent]) -> None:
    """What became of a request may not be known yet."""
    assert_type(leastwise.outcome(message), leastwise.Outcome | None)
    assert_type(leastwise.outcome(events), leastwise.Outcome | None)
    assert_type(leastwise.outcome("msg_1"), leastwise.Outcome | None)
