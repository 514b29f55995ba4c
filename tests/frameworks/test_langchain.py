"""LangChain's `ChatAnthropic` through Leastwise, as README shows it: its two clients, wrapped."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any

import pydantic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

import leastwise
from leastwise.build import Runtime
from leastwise.ledger import Exchange
from leastwise.simulate import Server
from tests.kit import HAIKU, OPUS

ASK = "Is this spam? Win $1000 now!!!"


class Chat(ChatAnthropic):  # type: ignore[misc]  # no types of it where mypy runs
    """What a user of LangChain writes, but for `runtime`, which keeps the test's ledger apart."""

    runtime: Any = None

    @cached_property
    def _client(self) -> Any:
        return leastwise.wrap(super()._client, leastwise=self.runtime)

    @cached_property
    def _async_client(self) -> Any:
        return leastwise.wrap(super()._async_client, leastwise=self.runtime)


class Verdict(pydantic.BaseModel):
    """Whether a message is spam."""

    is_spam: bool


@tool  # type: ignore[untyped-decorator]  # as above
def get_weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


@pytest.fixture
def chat(server: Server, runtime: Runtime) -> Chat:
    return Chat(model="auto", base_url=server.url, api_key="k", max_tokens=1024, runtime=runtime)


def rows(runtime: Runtime) -> list[Exchange]:
    runtime.store.flush()
    ids = runtime.store.database.rows("SELECT id FROM exchange ORDER BY id")  # type: ignore[attr-defined]
    found = [runtime.store.find(row["id"]) for row in ids]
    return [story.exchange for story in found if story is not None]


def test_invoke_is_one_exchange(chat: Chat, runtime: Runtime) -> None:
    reply = chat.invoke(ASK, task=leastwise.Task(tag="t"))

    outcome = leastwise.outcome(reply.response_metadata["id"], client=chat._client)
    assert outcome is not None
    assert ("haiku", HAIKU) == (outcome.tier, reply.response_metadata["model_name"])
    assert ["t"] == [row.tag for row in rows(runtime)]


def test_a_stream_is_one_exchange(chat: Chat, runtime: Runtime) -> None:
    assert "[simulated]" in "".join(str(chunk.text) for chunk in chat.stream(ASK))
    assert [("ok", "exact")] == [(row.result, row.certainty) for row in rows(runtime)]


def test_async_is_the_same(chat: Chat, runtime: Runtime) -> None:
    async def work() -> str:
        reply = await chat.ainvoke(ASK)
        async for _ in chat.astream(ASK):
            pass
        await chat._async_client.close()
        return str(reply.response_metadata["model_name"])

    assert HAIKU == asyncio.run(work())
    assert [("ok", "exact")] * 2 == [(row.result, row.certainty) for row in rows(runtime)]


def test_a_tool_loop_stays_on_its_model(server: Server, runtime: Runtime) -> None:
    chat = Chat(model=OPUS, base_url=server.url, api_key="k", max_tokens=1024, runtime=runtime)
    armed = chat.bind_tools([get_weather])
    turns: list[Any] = [HumanMessage("What is the weather in Paris? use the tool")]
    call = armed.invoke(turns)
    (used,) = call.tool_calls
    said = ToolMessage(get_weather.invoke(used["args"]), tool_call_id=used["id"])
    last = armed.invoke([*turns, call, said])

    assert "The tool says: sunny" in str(last.text)
    assert [OPUS, OPUS] == [one.response_metadata["model_name"] for one in (call, last)]
    assert ["ok", "ok"] == [row.result for row in rows(runtime)]


def test_structured_output_is_parsed(server: Server, runtime: Runtime) -> None:
    chat = Chat(model=HAIKU, base_url=server.url, api_key="k", max_tokens=1024, runtime=runtime)
    assert isinstance(chat.with_structured_output(Verdict).invoke(ASK), Verdict)
    assert ["ok"] == [row.result for row in rows(runtime)]
