"""The drop-in client's ledger beside the simulated API's own books, to the last digit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.simulate import Server, serve
from tests.kit import HAIKU, OPUS, SONNET

WEATHER: Any = {
    "name": "get_weather",
    "description": "Current weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
LONG: Any = [{"type": "text", "text": "The house rules. " * 2_000, "cache_control": {"type": "ephemeral"}}]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
    config = load(None, environ, cwd=tmp_path, arguments={"mode": "enforce"})
    with Runtime(config, budget_usd=100) as made:
        yield made


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


def plain(client: leastwise.Anthropic, model: str, text: str) -> None:
    client.messages.create(model=model, max_tokens=1024, messages=ask(text))


def streamed(client: leastwise.Anthropic, model: str, text: str) -> None:
    with client.messages.stream(model=model, max_tokens=1024, messages=ask(text)) as stream:
        stream.until_done()


def events(client: leastwise.Anthropic, model: str, text: str) -> None:
    for _ in client.messages.create(model=model, max_tokens=300, messages=ask(text), stream=True):
        pass


def tools(client: leastwise.Anthropic, model: str, text: str) -> None:
    turns = ask(f"{text} What is the weather in Oslo?")
    create = client.messages.create
    called = create(model=model, max_tokens=2048, messages=turns, tools=[WEATHER])
    uses = [block for block in called.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"} for use in uses]
    content: Any = [block.model_dump(exclude_none=True) for block in called.content]
    turns = [*turns, {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    create(model=model, max_tokens=2048, messages=turns, tools=[WEATHER])


def prompt_cached(client: leastwise.Anthropic, model: str, text: str) -> None:
    for question in (text, f"{text} Again?"):
        client.messages.create(model=model, max_tokens=200, system=LONG, messages=ask(question))


SHAPES = (plain, streamed, events, tools, prompt_cached)
TEXTS = ("Is this spam? Win $1000 now!!!", "Prove that there are infinitely many primes.", "Ünïcödé 言葉?")


def test_the_ledger_says_what_was_billed(server: Server, runtime: Runtime) -> None:
    rng = random.Random(4)
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client:
        for number in range(40):
            model = rng.choice(["auto", HAIKU, SONNET, OPUS])
            SHAPES[number % len(SHAPES)](client, model, rng.choice(TEXTS))

    check(server, runtime)


def test_the_ledger_says_what_was_billed_to_many_tasks(server: Server, runtime: Runtime) -> None:
    async def everybody() -> None:
        async with leastwise.AsyncAnthropic(
            api_key="k", base_url=server.url, leastwise=runtime, max_retries=0
        ) as client:

            async def one(number: int) -> None:
                given: Any = {"model": OPUS, "max_tokens": 500, "messages": ask(TEXTS[number % 3])}
                if number % 2:
                    await client.messages.create(**given)
                else:
                    async with client.messages.stream(**given) as stream:
                        await stream.until_done()

            await asyncio.gather(*map(one, range(20)))

    asyncio.run(everybody())
    check(server, runtime)


def check(server: Server, runtime: Runtime) -> None:
    """Compare each entry with the bill of its answer, and the budget with all of them."""
    books = {bill.message_id: bill for bill in server.simulator.books}
    store = runtime.store
    store.flush()
    (window,) = store.windows()
    entries = store.entries_of(window.account, 0.0)

    billed = {id_: bill.nusd for id_, bill in books.items()}
    assert billed == {one.message_id: one.cost_nusd for one in entries}
    assert {"exact"} == {one.certainty for one in entries}
    assert [] == [one for one in entries if one.cost_nusd > one.worst_nusd]
    total_nusd = sum(billed.values())
    assert total_nusd == window.standing.spent_nusd == sum(store.charged().values())
    assert 0 == window.standing.leased_nusd
