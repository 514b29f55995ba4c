"""The `instructor` package on a Leastwise client: it returns models, and every call is an exchange."""

from __future__ import annotations

import asyncio

import instructor
import pydantic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.simulate import Server
from tests.kit import HAIKU

ASK = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]


class Verdict(pydantic.BaseModel):
    """Whether a message is spam."""

    is_spam: bool


@pytest.mark.parametrize("model", ["haiku", HAIKU])
def test_a_model_is_returned(server: Server, runtime: Runtime, model: str) -> None:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        verdict, message = instructor.from_anthropic(client).create_with_completion(
            model=model,
            max_tokens=1024,
            messages=ASK,
            response_model=Verdict,
            task=leastwise.Task("spam or not spam", tag="t"),
        )
    assert isinstance(verdict, Verdict)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    assert ("haiku", HAIKU) == (outcome.tier, message.model)
    story = runtime.store.find(message.id)
    assert story is not None
    assert "t" == story.exchange.tag


def test_auto_goes_where_its_forced_tool_is_taken(server: Server, runtime: Runtime) -> None:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        _, message = instructor.from_anthropic(client).create_with_completion(
            model="auto",
            max_tokens=1024,
            messages=[{"role": "user", "content": "Design and implement a rate limiter."}],
            response_model=Verdict,
        )
    outcome = leastwise.outcome(message)
    assert outcome is not None
    assert (HAIKU, "unfit") == (message.model, outcome.reasons[1].code)


def test_async_returns_a_model(server: Server, runtime: Runtime) -> None:
    async def work() -> tuple[Verdict, leastwise.Outcome | None]:
        async with leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
            verdict, message = await instructor.from_anthropic(client).create_with_completion(
                model="haiku", max_tokens=1024, messages=ASK, response_model=Verdict
            )
            return verdict, leastwise.outcome(message)

    verdict, outcome = asyncio.run(work())
    assert isinstance(verdict, Verdict)
    assert outcome is not None
    assert "haiku" == outcome.tier


def test_a_partial_model_is_streamed(server: Server, runtime: Runtime) -> None:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        *_, last = instructor.from_anthropic(client).create_partial(
            model="haiku", max_tokens=1024, messages=ASK, response_model=Verdict
        )
    assert last.is_spam in {True, False}
    runtime.store.flush()
    (row,) = runtime.store.database.rows("SELECT result, certainty FROM exchange")  # type: ignore[attr-defined]
    assert ("ok", "exact") == (row["result"], row["certainty"])
