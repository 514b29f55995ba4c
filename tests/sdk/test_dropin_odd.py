"""The drop-in where things are odd: answers, callers, ways to make a client. The SDK alone is the measure."""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime as dt
import gc
import gzip
import json
import logging
import random
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from inspect import iscoroutinefunction
from operator import attrgetter
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.ladder import Adviser, Mode
from leastwise.ledger import Exchange
from leastwise.simulate import Server, Simulator, serve
from leastwise.stores import Story
from tests.kit import HAIKU, OPUS
from tests.sdk.majors import MAJOR, http

ASK = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]
LONG = [{"role": "user", "content": "Is this a summary of a long story? Explain in detail."}]
CONTEXT, FAST = "context-management-2025-06-27", "fast-mode-2026-02-01"  # Haiku has no fast mode
CALL: dict[str, Any] = {"model": OPUS, "max_tokens": 64, "messages": ASK}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": OPUS,
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
#: 10 x 4,000 + 5 x 20,000 nano-dollars
COST = 140_000


class Verdict(pydantic.BaseModel):
    is_spam: bool


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


Make = Callable[..., Runtime]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Runtime] = []

    def make_one(mode: Mode = "observe", config: str = "") -> Runtime:
        file = None
        if config:
            file = tmp_path / "leastwise.toml"
            file.write_text(config)
        environ = {
            "LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/{len(made)}.db",
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        runtime = Runtime(load(file, environ, cwd=tmp_path, arguments={"mode": mode}))
        made.append(runtime)
        return runtime

    yield make_one
    for runtime in made:
        runtime.close()


def canned(content: bytes, kind: str = "application/json", encoding: str = "identity") -> Any:
    """Return an HTTP client that answers everything with these bytes."""
    given = {"content-type": kind, "request-id": "req_x", "content-encoding": encoding}
    answer = http.MockTransport(lambda _: http.Response(200, headers=given, content=content))
    return anthropic.DefaultHttpxClient(transport=answer)


def get_weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


def stories(runtime: Runtime) -> list[Story]:
    runtime.store.flush()
    ids = runtime.store.database.rows("SELECT id FROM exchange ORDER BY id")  # type: ignore[attr-defined]
    return [story for row in ids if (story := runtime.store.find(row["id"])) is not None]


def rows(runtime: Runtime) -> list[Exchange]:
    return [story.exchange for story in stories(runtime)]


Use = Callable[[anthropic.Anthropic], Any]

no_credentials_in_0 = pytest.mark.skipif(
    MAJOR == 0, reason="SDK 0.x knows neither profiles nor `credentials=`"
)


def create(client: anthropic.Anthropic) -> Any:
    return client.messages.create(**CALL)


def read(client: anthropic.Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**CALL) as response:
        return response.read()


def raw(client: anthropic.Anthropic) -> Any:
    return client.messages.with_raw_response.create(**CALL)


def events(client: anthropic.Anthropic) -> Any:
    return list(client.messages.create(**CALL, stream=True))


def parse(client: anthropic.Anthropic) -> Any:
    return client.messages.parse(**CALL, output_format=Verdict)


def posted(path: str, cast_to: Any) -> Use:
    return lambda client: client.post(path, cast_to=cast_to, body=CALL)


def outcome_of(use: Use, client: anthropic.Anthropic) -> tuple[str, str]:
    """Return what using a client gives, or what it raises, to be compared."""
    try:
        with client:
            return "", repr(use(client))
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is the measure
        return type(error).__name__, str(error)


def whole(**changes: Any) -> bytes:
    return json.dumps({**MESSAGE, **changes}).encode()


USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
TOOL_TURNS = (whole(content=[USE], stop_reason="tool_use"), whole(id="msg_2"))

JSON, HTML = "application/json", "text/html"
#: By name: the content, its type, the call, and the row's result and certainty.
ODD_ANSWERS: dict[str, tuple[bytes, str, Use, str, str]] = {
    "html": (b"<html>", HTML, create, "cut", "estimated"),
    "bad json": (b"{oops", JSON, create, "cut", "estimated"),
    "empty": (b"", JSON, create, "cut", "estimated"),
    "null": (b"null", JSON, create, "cut", "estimated"),
    "a list": (b"[1]", JSON, create, "cut", "estimated"),
    "no usage": (whole(usage=None), JSON, create, "ok", "estimated"),
    "usage as text": (whole(usage="many"), JSON, create, "ok", "estimated"),
    "content as text": (whole(content=["x"]), JSON, create, "ok", "exact"),
    "no content": (whole(content=None), JSON, create, "ok", "exact"),
    "raw, bad json": (b"{oops", JSON, raw, "cut", "estimated"),
    "raw, html": (b"<html>", HTML, lambda client: raw(client).parse(), "cut", "estimated"),
    "streamed, bad json": (b"{oops", JSON, read, "cut", "estimated"),
    "a stream that is none": (whole(), JSON, events, "ok", "exact"),
    "parsed in vain": (whole(), JSON, parse, "ok", "exact"),
    "as httpx": (whole(), JSON, posted("/v1/messages", http.Response), "ok", "exact"),
    "as a dict": (whole(), JSON, posted("v1/messages", object), "ok", "exact"),
    "cast in vain": (whole(), JSON, posted("/v1/messages", dict), "ok", "exact"),
}


@pytest.mark.parametrize("name", list(ODD_ANSWERS))
def test_an_odd_answer_is_what_the_sdk_makes_of_it_and_is_paid_for(make: Make, name: str) -> None:
    content, kind, use, result, certainty = ODD_ANSWERS[name]
    runtime = make()
    alone = anthropic.Anthropic(api_key="k", http_client=canned(content, kind), max_retries=0)
    ours = leastwise.Anthropic(
        api_key="k", http_client=canned(content, kind), max_retries=0, leastwise=runtime
    )
    assert outcome_of(use, alone) == outcome_of(use, ours)
    (row,) = rows(runtime)
    assert (result, certainty) == (row.result, row.certainty)
    assert COST == row.spent_nusd if certainty == "exact" else row.spent_nusd > 0


def test_a_compressed_answer_is_counted(make: Make) -> None:
    runtime = make()
    http = canned(gzip.compress(whole()), encoding="gzip")
    with leastwise.Anthropic(api_key="k", http_client=http, leastwise=runtime) as client:
        assert "msg_1" == client.messages.create(**CALL).id
    assert [COST] == [row.spent_nusd for row in rows(runtime)]


ODD_BODIES: dict[str, dict[str, Any]] = {
    "a generator": {"messages": (turn for turn in ASK)},
    "a tuple": {"messages": tuple(ASK)},
    "a date": {"extra_body": {"metadata": {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}}},
    "a set": {"extra_body": {"odd": {1}}},
    "left out": {"extra_body": {"metadata": anthropic.omit}},
    "an image from a file": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "FILE"},
                    },
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ]
    },
}


@pytest.mark.parametrize("name", list(ODD_BODIES))
def test_an_odd_body_goes_out_as_the_sdk_would_send_it(
    server: Server, make: Make, tmp_path: Path, name: str
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")

    def given() -> dict[str, Any]:
        if name == "a generator":
            return {**CALL, "messages": (turn for turn in ASK)}
        arguments = {**CALL, **copy.deepcopy(ODD_BODIES[name])}
        if name == "an image from a file":
            arguments["messages"][0]["content"][0]["source"]["data"] = image
        return arguments

    def sent(client: anthropic.Anthropic) -> tuple[str, bytes | None]:
        """Return what became of it, and the body that arrived; SDK 0.x refuses some itself."""
        before = len(server.simulator.requests)
        with client:
            try:
                end = client.messages.create(**given()).type
            except anthropic.APIStatusError as error:
                end = str(error.status_code)
            except TypeError as error:
                end = str(error)
        arrived = server.simulator.requests[before:]
        return end, arrived[0].body if arrived else None

    alone = sent(anthropic.Anthropic(api_key="k", base_url=server.url))
    assert alone == sent(leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=make()))
    assert name != "an image from a file" or base64.b64encode(image.read_bytes()) in (alone[1] or b"")


def test_extra_query_headers_and_timeouts_pass(server: Server, make: Make) -> None:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=make()) as client:
        client.messages.create(**CALL, extra_query={"a": "1"}, extra_headers={"x-mine": "2"}, timeout=20)
        assert "/v1/messages?a=1" == server.simulator.requests[-1].path
        assert "2" == server.simulator.requests[-1].headers["x-mine"]
        server.simulator.stall_next(5)
        with pytest.raises(anthropic.APITimeoutError):
            client.with_options(max_retries=0).messages.create(**CALL, timeout=0.2)


def test_what_is_given_beside_the_body_works_on_a_copy_too(server: Server, make: Make) -> None:
    runtime = make()
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client:
        patient = client.with_options(max_retries=2)
        server.simulator.fail_next(2, status=529, headers={"retry-after-ms": "1"})
        patient.messages.create(**CALL, extra_body={"metadata": {"user_id": "u"}})
        assert b'"user_id":"u"' in server.simulator.requests[-1].body
        server.simulator.fail_next(2, status=529, headers={"retry-after-ms": "1"})
        with pytest.raises(anthropic.APIStatusError):
            client.messages.create(**CALL)
        with pytest.raises(anthropic.APIStatusError):
            client.messages.create(**CALL)
    assert [3, 1, 1] == [len(story.entries) for story in stories(runtime)]


def test_an_answer_too_long_to_wait_for_is_the_sdks_error_and_no_cost(make: Make) -> None:
    def use(client: anthropic.Anthropic) -> Any:
        return client.messages.create(**{**CALL, "max_tokens": 100_000})

    runtime = make()
    ours = outcome_of(use, leastwise.Anthropic(api_key="k", leastwise=runtime))
    assert outcome_of(use, anthropic.Anthropic(api_key="k")) == ours
    assert "ValueError" == ours[0]
    assert [] == rows(runtime)


# SDK 0.x warns of the only way to ask its `parse` for a model.
@pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("way", ["create", "stream", "parse"])
def test_betas_are_sent_and_known(server: Server, make: Make, way: str) -> None:
    runtime = make()
    task = leastwise.Task(tag="t")
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        method: Any = getattr(client.beta.messages, way)
        form = {"output_format": Verdict} if way == "parse" else {}
        answer = method(**CALL, **form, betas=["context-management-2025-06-27"], task=task)
        if way == "stream":
            with answer as stream:
                answer = stream.get_final_message()
        seen = server.simulator.requests[-1]
    assert OPUS == answer.model
    assert "context-management-2025-06-27" in seen.headers["anthropic-beta"].split(",")
    assert way != "parse" or isinstance(answer.parsed_output, Verdict)
    assert [("ok", "exact", "t")] == [(row.result, row.certainty, row.tag) for row in rows(runtime)]


BATCH: dict[str, Any] = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
    "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
    "created_at": "2026-11-23T12:00:00Z",
    "expires_at": "2026-11-24T12:00:00Z",
    "ended_at": None,
    "archived_at": None,
    "cancel_initiated_at": None,
}


def batches(request: Any) -> Any:
    """Answer as the API of batches does."""
    if request.url.path.endswith("/results"):
        line = {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}
        return http.Response(200, content=json.dumps(line).encode() + b"\n")
    if request.method == "GET" and request.url.path.endswith("/batches"):
        return http.Response(
            200, json={"data": [BATCH], "has_more": False, "first_id": None, "last_id": None}
        )
    return http.Response(200, json=BATCH)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_batches_go_out_as_they_are_and_have_a_row_each(make: Make, *, is_wrapped: bool) -> None:
    runtime, sent = make("enforce"), []

    def answer(request: Any) -> Any:
        sent.append(request.content)
        return batches(request)

    given: Any = {
        "api_key": "k",
        "http_client": anthropic.DefaultHttpxClient(transport=http.MockTransport(answer)),
    }
    with (
        leastwise.wrap(anthropic.Anthropic(**given), leastwise=runtime)
        if is_wrapped
        else leastwise.Anthropic(**given, leastwise=runtime)
    ) as client:
        both: list[Any] = [client.messages, client.beta.messages]
        for messages in both:
            made = messages.batches.create(requests=[{"custom_id": "a", "params": CALL}])
            assert CALL == json.loads(sent[-1])["requests"][0]["params"]
            assert made.id == messages.batches.retrieve(made.id).id
            assert ["msgbatch_1"] == [one.id for one in messages.batches.list()]
            (line,) = messages.batches.results(made.id)
            assert line.result.type == "succeeded"
            assert "msg_1" == line.result.message.id
    assert [("batch", "off"), ("batch", "off")] == [(row.kind, row.mode) for row in rows(runtime)]


def test_async_batches_pass(make: Make) -> None:
    async def work(runtime: Runtime) -> str:
        connections = anthropic.DefaultAsyncHttpxClient(transport=http.MockTransport(batches))
        async with leastwise.AsyncAnthropic(
            api_key="k", http_client=connections, leastwise=runtime
        ) as client:
            made = await client.messages.batches.create(requests=[])
            return made.id

    runtime = make()
    assert "msgbatch_1" == asyncio.run(work(runtime))
    assert [] == rows(runtime)


def test_what_a_turn_gave_may_be_given_back(server: Server, make: Make) -> None:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=make()) as client:
        first = client.messages.create(**CALL)
        turns = [
            *ASK,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": "And now?"},
        ]
        assert OPUS == client.messages.create(**{**CALL, "messages": turns}).model


def test_the_sdks_words_when_there_is_no_key_and_nothing_is_charged(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    runtime = make()
    alone = outcome_of(create, anthropic.Anthropic())
    assert alone == outcome_of(create, leastwise.Anthropic(leastwise=runtime))
    assert "Could not resolve authentication method" in alone[1]
    assert [("error", 0)] == [(row.result, row.spent_nusd) for row in rows(runtime)]


def test_missing_and_unknown_arguments_are_the_sdks_errors(make: Make) -> None:
    for given in ({"model": OPUS}, {**CALL, "temprature": 1}):

        def use(client: anthropic.Anthropic, given: dict[str, Any] = given) -> Any:
            return client.messages.create(**given)

        ours = outcome_of(use, leastwise.Anthropic(api_key="k", leastwise=make()))
        assert outcome_of(use, anthropic.Anthropic(api_key="k")) == ours
        assert "TypeError" == ours[0]


@pytest.mark.parametrize("way", ["create", "parse", "stream", "beta"])
@pytest.mark.parametrize("task", [None, leastwise.Task(tag="t")])
def test_a_warning_of_the_sdk_names_the_callers_line(
    make: Make, way: str, task: leastwise.Task | None
) -> None:
    with leastwise.Anthropic(api_key="k", http_client=canned(whole()), leastwise=make()) as client:
        messages: Any = client.beta.messages if way == "beta" else client.messages
        method = getattr(messages, "create" if way == "beta" else way)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method(**{**CALL, "model": "claude-3-7-sonnet-20250219"}, task=task)
    assert [__file__] == [one.filename for one in caught if one.category is DeprecationWarning]


def test_a_message_is_as_good_as_the_sdks_own(make: Make) -> None:
    with leastwise.Anthropic(api_key="k", http_client=canned(whole()), leastwise=make()) as client:
        message = client.messages.create(**CALL)
    with anthropic.Anthropic(api_key="k", http_client=canned(whole())) as plain:
        alone = plain.messages.create(**CALL)
    assert type(alone) is type(message)
    assert alone == message == copy.deepcopy(message)
    assert (alone.to_json(), repr(alone), alone._request_id) == (
        message.to_json(),
        repr(message),
        message._request_id,
    )
    assert leastwise.outcome(message) == leastwise.outcome(copy.deepcopy(message))


def test_copies_of_every_kind_of_client_stay_leastwise(make: Make) -> None:
    class Mine(leastwise.Anthropic):
        """A client of somebody's own."""

    runtime = make()
    bedrock = anthropic.AnthropicBedrock(api_key="k", aws_region="us-east-1", http_client=canned(whole()))
    vertex = anthropic.AnthropicVertex(
        access_token="t", project_id="p", region="us-east5", http_client=canned(whole())
    )
    kinds: list[tuple[Any, str]] = [
        (Mine(api_key="k", http_client=canned(whole()), leastwise=runtime), OPUS),
        (
            leastwise.wrap(anthropic.Anthropic(api_key="k", http_client=canned(whole())), leastwise=runtime),
            OPUS,
        ),
        (leastwise.wrap(bedrock, leastwise=runtime), "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        (leastwise.wrap(vertex, leastwise=runtime), "claude-haiku-4-5@20251001"),
    ]
    for client, model in kinds:
        with client:
            kept = {"http_client": client._client}  # Bedrock's and Vertex's copies make a new one
            for one in (client, client.with_options(timeout=9, **kept), client.copy(max_retries=1, **kept)):
                assert isinstance(one, type(client))
                assert "msg_1" == one.messages.create(**{**CALL, "model": model}).id
                assert leastwise.outcome("msg_1", client=one) is not None
                beta: Any = one.beta.messages
                assert "msg_1" == beta.create(**{**CALL, "model": model}, task=leastwise.Task(tag="t")).id
    assert ["", "t"] * 12 == [row.tag for row in rows(runtime)]


def sent_key(server: Server) -> str | None:
    """Return the API key that was sent last; since SDK 2.0 it goes as a bearer token."""
    headers = server.simulator.requests[-1].headers
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def test_a_copy_with_another_key_sends_that_key(server: Server, make: Make) -> None:
    with leastwise.Anthropic(api_key="old", base_url=server.url, leastwise=make()) as client:
        client.copy(api_key="new").messages.create(**CALL)
        assert "new" == sent_key(server)
        client.messages.create(**CALL)
        assert "old" == sent_key(server)


@no_credentials_in_0
def test_credentials_of_a_profile_are_found_and_copied(
    server: Server, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    (tmp_path / "configs").mkdir()
    (tmp_path / "credentials").mkdir()
    profile = {
        "version": "1.0",
        "authentication": {"type": "user_oauth"},
        "base_url": server.url,
        "organization_id": "o",
        "workspace_id": "w",
    }
    (tmp_path / "configs" / "default.json").write_text(json.dumps(profile))
    kept = tmp_path / "credentials" / "default.json"
    kept.write_text(json.dumps({"version": "1.0", "type": "oauth_token", "access_token": "from-the-profile"}))
    kept.chmod(0o600)

    def sent() -> tuple[str | None, ...]:
        headers = server.simulator.requests[-1].headers
        return (
            headers.get("authorization"),
            headers.get("anthropic-workspace-id"),
            headers.get("anthropic-beta"),
        )

    with anthropic.Anthropic() as alone:
        alone.messages.create(**CALL)
    expected = sent()
    assert "Bearer from-the-profile" == expected[0]
    with leastwise.Anthropic(leastwise=make()) as client:
        for one in (client, client.with_options(timeout=9)):
            one.messages.create(**CALL)
            assert expected == sent()
        client.copy(api_key="mine", base_url=server.url).messages.create(**CALL)
        assert "mine" == sent_key(server)


@no_credentials_in_0
def test_credentials_that_were_given_are_copied(server: Server, make: Make) -> None:
    def credentials(**_: object) -> Any:
        return anthropic.AccessToken(token="from-a-provider")

    with leastwise.Anthropic(credentials=credentials, base_url=server.url, leastwise=make()) as client:
        for one in (client, client.with_options(timeout=9)):
            one.messages.create(**CALL)
            assert "Bearer from-a-provider" == server.simulator.requests[-1].headers["authorization"]


def answering(*contents: bytes) -> Any:
    """Return an HTTP transport that gives these answers in turn."""
    given = {"content-type": "application/json"}
    answers = iter(contents)
    return http.MockTransport(lambda _: http.Response(200, headers=given, content=next(answers)))


@pytest.mark.parametrize("task", [None, leastwise.Task(tag="t")])
def test_the_sdks_tool_runner_passes_through_exchanges(make: Make, task: leastwise.Task | None) -> None:
    runtime = make()
    connections = anthropic.DefaultHttpxClient(transport=answering(*TOOL_TURNS))
    with leastwise.Anthropic(api_key="k", http_client=connections, leastwise=runtime) as client:
        runner = client.beta.messages.tool_runner(**CALL, tools=[anthropic.beta_tool(get_weather)], task=task)
        assert ["tool_use", "end_turn"] == [message.stop_reason for message in runner]
    assert [(COST, task.tag if task else "")] * 2 == [(row.spent_nusd, row.tag) for row in rows(runtime)]


def test_an_async_tool_runner_passes_through_exchanges(make: Make) -> None:
    async def work(runtime: Runtime) -> list[str | None]:
        async def get_weather(city: str) -> str:
            """Return the weather."""
            return f"sunny in {city}"

        connections = anthropic.DefaultAsyncHttpxClient(transport=answering(*TOOL_TURNS))
        async with leastwise.AsyncAnthropic(
            api_key="k", http_client=connections, leastwise=runtime
        ) as client:
            runner = client.beta.messages.tool_runner(
                **CALL, tools=[anthropic.beta_async_tool(get_weather)], task=leastwise.Task(tag="t")
            )
            return [message.stop_reason async for message in runner]

    runtime = make()
    assert ["tool_use", "end_turn"] == asyncio.run(work(runtime))
    assert [(COST, "t")] * 2 == [(row.spent_nusd, row.tag) for row in rows(runtime)]


def test_a_streaming_tool_runner_passes_through_exchanges(server: Server, make: Make) -> None:
    runtime = make()
    ask = {"role": "user", "content": "What is the weather in Paris? use the tool"}
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        runner = client.beta.messages.tool_runner(
            model=OPUS,
            max_tokens=2048,
            messages=[ask],
            tools=[anthropic.beta_tool(get_weather)],
            stream=True,
            task=leastwise.Task(tag="t"),
        )
        ends = [stream.get_final_message().stop_reason for stream in runner]
    assert ["tool_use", "end_turn"] == ends
    found = [(row.result, row.certainty, row.tag) for row in rows(runtime)]
    # SDK 2.12 first asks for a thread kept by the server, which the simulator refuses.
    assert [("ok", "exact", "t")] * 2 == [row for row in found if row[0] != "error"]
    assert {"t"} == {tag for _, _, tag in found}


def test_a_library_that_asks_is_told_which_methods_are_coroutines(make: Make) -> None:
    client = leastwise.AsyncAnthropic(api_key="k", leastwise=make())
    for messages in (client.messages, client.beta.messages):
        assert [True, True] == [iscoroutinefunction(one) for one in (messages.create, messages.parse)]
        assert not iscoroutinefunction(messages.stream)


def test_a_resource_has_the_methods_that_the_sdk_gives_it(make: Make) -> None:
    with (
        leastwise.Anthropic(api_key="k", leastwise=make()) as ours,
        anthropic.Anthropic(api_key="k") as alone,
    ):
        for path in ("messages", "beta.messages"):
            one, other = attrgetter(path)(ours), attrgetter(path)(alone)
            assert [n for n in dir(other) if n[0] != "_"] == [n for n in dir(one) if n[0] != "_"]


@pytest.mark.parametrize("how", ["iter_lines", "iter_text", "iter_bytes", "read", "parse"])
@pytest.mark.parametrize("extra", [{"stream": True}, {}])
def test_a_response_read_in_any_way_is_counted_exactly(
    server: Server, make: Make, how: str, extra: dict[str, Any]
) -> None:
    runtime = make()
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        with client.messages.with_streaming_response.create(**CALL, **extra) as response:
            got = getattr(response, how)()
            if how.startswith("iter") or (extra and how == "parse"):
                list(got)
        outcome = leastwise.outcome(response)
    assert outcome is not None
    assert ("ok", "exact") == (outcome.result, outcome.certainty)
    assert server.simulator.books[-1].nusd == rows(runtime)[0].spent_nusd


def leave(client: anthropic.Anthropic) -> None:
    message = "mine"
    with client.messages.stream(**CALL) as stream:
        next(iter(stream))
        raise RuntimeError(message)


def test_an_answer_that_is_read_as_it_comes_is_not_cut_by_a_cap_of_ours(server: Server, make: Make) -> None:
    ask = {**CALL, "model": "auto", "max_tokens": 1000, "messages": LONG}
    runtime = make("enforce", 'preset = "reference"')
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        whole = client.messages.create(**ask)
        with client.messages.with_streaming_response.create(**ask) as response:
            read = json.loads(response.read())

    assert [50, 1000, 1000] == [
        json.loads(seen.body)["max_tokens"] for seen in server.simulator.requests[-3:]
    ]
    assert ["end_turn"] * 2 == [whole.stop_reason, read["stop_reason"]]


def test_a_stream_closed_twice_or_left_by_an_exception_leaves_one_row(server: Server, make: Make) -> None:
    runtime = make()
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        stream: Any = client.messages.create(**CALL, stream=True)
        next(stream)
        stream.close()
        stream.close()
        with pytest.raises(RuntimeError, match="mine"):
            leave(client)
        for event in client.messages.create(**CALL, stream=True):
            if event.type == "message_stop":
                break
        server.simulator.interrupt_next(2)
        with pytest.raises(anthropic.APIStatusError):
            list(client.messages.create(**CALL, stream=True))
        gc.collect()  # SDK 0.x lets go of a stream that was broken off when it is collected
        pool = client._client._transport._pool  # type: ignore[attr-defined]
        assert all(connection.is_idle() or connection.is_closed() for connection in pool.connections)
    assert ["abandoned", "abandoned", "ok", "cut"] == [row.result for row in rows(runtime)]


def test_a_stream_that_was_broken_off_after_its_last_event_is_whole(server: Server, make: Make) -> None:
    runtime = make()
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        stream = client.messages.create(**CALL, stream=True)
        for event in stream:
            if event.type == "message_stop":
                break
        outcome = leastwise.outcome(stream)
    assert outcome is not None
    assert ("ok", "exact") == (outcome.result, outcome.certainty)


def test_a_stream_closed_by_another_thread_leaves_one_row(make: Make) -> None:
    runtime = make()
    with (
        serve(simulator=Simulator(tokens_per_s=100)) as slow,
        leastwise.Anthropic(api_key="k", base_url=slow.url, leastwise=runtime, max_retries=0) as client,
    ):
        for _ in range(5):
            stream = client.messages.create(**CALL, stream=True)
            next(stream)
            closer = threading.Thread(target=stream.close)
            closer.start()
            with suppress(http.HTTPError, http.StreamError, ValueError):
                list(stream)
            closer.join()
    assert 5 == len(rows(runtime))


def test_many_async_calls_of_which_some_are_cancelled_leave_a_row_each(make: Make) -> None:
    runtime = make()

    async def work(url: str) -> Counter[str]:
        rng = random.Random(3)
        async with leastwise.AsyncAnthropic(
            api_key="k", base_url=url, leastwise=runtime, max_retries=0
        ) as client:

            async def one(number: int) -> None:
                if number % 2:
                    await client.messages.create(**CALL)
                    return
                async with client.messages.stream(**CALL) as stream:
                    async for _ in stream:
                        pass

            begun = asyncio.Event()
            tasks = [asyncio.ensure_future(one(number)) for number in range(200)]
            asyncio.get_running_loop().call_later(0.3, begun.set)
            await begun.wait()
            for task in rng.sample(tasks, 100):
                await asyncio.sleep(rng.random() * 0.01)
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(20):
                await asyncio.sleep(0.01)
            pool = client._client._transport._pool  # type: ignore[attr-defined]
            is_free = all(connection.is_idle() or connection.is_closed() for connection in pool.connections)
            assert is_free or MAJOR == 0  # SDK 0.x by itself keeps connections of cancelled calls
            assert {asyncio.current_task()} == asyncio.all_tasks()
        return Counter(type(end).__name__ for end in ends)

    with serve(simulator=Simulator(tokens_per_s=60)) as slow:
        ends = asyncio.run(work(slow.url))
    assert {"NoneType", "CancelledError"} == set(ends)
    found = Counter(row.result for row in rows(runtime))
    assert ends["NoneType"] <= found["ok"]
    # a task that never ran has asked nobody anything; every other one left its row
    assert 200 - ends["CancelledError"] <= sum(found.values()) <= 200
    assert {"ok", "abandoned"} == set(found)


class Markup(str):
    """Text as template engines make it."""

    __slots__ = ()


@pytest.mark.parametrize("mode", ["observe", "enforce", "off"])
def test_text_of_a_class_of_its_own_is_text(server: Server, make: Make, mode: Mode) -> None:
    turn = {"role": "user", "content": Markup("Is this spam? Win $1000 now!!!")}
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=make(mode)) as client:
        message = client.messages.create(**{**CALL, "messages": [turn]})
    assert (HAIKU if mode == "enforce" else OPUS) == message.model


def test_a_rule_may_go_by_a_header_of_the_call_or_of_the_client(server: Server, make: Make) -> None:
    runtime = make("enforce", '[[rule]]\nheader = "X-Team: billing"\ntier = "haiku"\n')
    plain = {**CALL, "messages": [{"role": "user", "content": "hello there"}]}
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        assert OPUS == client.messages.create(**plain).model
        assert HAIKU == client.messages.create(**plain, extra_headers={"x-team": "billing"}).model
        billing = client.with_options(default_headers={"X-Team": "billing"})
        assert HAIKU == billing.messages.create(**plain).model


LOCAL = """
[[tier]]
name = "local"
model = "claude-haiku-5-5"
upstream = "local"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[upstream.local]
base_url = "{url}"
[[price]]
provider = "local"
model = "claude-haiku-5-5"
input = 0
output = 0
as_of = 2026-01-01
source = "ours"
"""


def test_another_upstream_serves_sync_and_async_and_never_sees_the_callers_key(
    server: Server, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = "sk-ant-the-marker"
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", marker)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Team: {marker}")
    with serve() as local:
        runtime = make(config=LOCAL.format(url=local.url))

        async def ask() -> str:
            async with leastwise.AsyncAnthropic(
                api_key=marker, base_url=server.url, leastwise=runtime
            ) as client:
                return str((await client.messages.create(**{**CALL, "model": "local"})).model)

        with leastwise.Anthropic(api_key=marker, base_url=server.url, leastwise=runtime) as client:
            names = ("authorization", "x-api-key", "Cookie", "Proxy-Authorization", "Helicone-Auth", "apikey")
            headers = dict.fromkeys(names, f"Bearer {marker}")
            message = client.messages.create(**{**CALL, "model": "local"}, extra_headers=headers)
            assert HAIKU == message.model
            assert [HAIKU] * 2 == [asyncio.run(ask()), asyncio.run(ask())]
            assert OPUS == client.messages.create(**{**CALL, "model": "opus"}).model
        assert 3 == len(local.simulator.requests)
        assert marker not in repr(local.simulator.requests)
    assert [("local", 0)] * 3 == [(row.upstream, row.spent_nusd) for row in rows(runtime)[:3]]


def test_another_upstream_is_told_the_betas_that_the_client_sends_with_every_call(
    server: Server, make: Make
) -> None:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    with serve() as local:
        runtime = make("enforce", LOCAL.format(url=local.url))
        with leastwise.Anthropic(
            api_key="k",
            base_url=server.url,
            leastwise=runtime,
            default_headers={"Anthropic-Beta": CONTEXT, "X-Team": "t"},
        ) as client:
            message = client.beta.messages.create(**CALL, context_management=edits)
        assert [CONTEXT] == [seen.headers["anthropic-beta"] for seen in local.simulator.requests]
    assert HAIKU == message.model
    assert [""] == [row.misfit for row in rows(runtime)]


@pytest.mark.parametrize(
    ("always", "once", "mode", "ours"),
    [
        ({"Anthropic-Beta": f"{FAST} , {CONTEXT}"}, {}, "enforce", [CONTEXT]),
        ({"Anthropic-Beta": FAST}, {}, "enforce", []),
        ({}, {"ANTHROPIC-BETA": f"{CONTEXT},, {FAST},"}, "enforce", [CONTEXT]),
        ({"anthropic-beta": FAST}, {"anthropic-beta": anthropic.Omit()}, "enforce", None),
        ({"anthropic-beta": FAST}, {"anthropic-beta": ""}, "observe", None),
        ({"Anthropic-Beta": FAST}, {"anthropic-beta": CONTEXT}, "observe", None),
    ],
)
def test_betas_that_mean_nothing_to_another_model_are_taken_out_however_they_are_spelt_and_no_others(
    make: Make, always: dict[str, str], once: dict[str, Any], mode: Mode, ours: list[str] | None
) -> None:
    """None: as the SDK alone sends them."""
    seen: list[list[str]] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get_list("anthropic-beta"))
        return http.Response(200, json=MESSAGE)

    def ask(kind: Any, **more: Any) -> Any:
        transport = anthropic.DefaultHttpxClient(transport=http.MockTransport(answer))
        with kind(api_key="k", http_client=transport, default_headers=always, **more) as client:
            return client.messages.create(**CALL, extra_headers=once)

    ask(anthropic.Anthropic)
    outcome = leastwise.outcome(ask(leastwise.Anthropic, leastwise=make(mode)))

    alone, sent = seen
    assert (alone if ours is None else ours) == sent
    assert outcome is not None
    assert mode == "observe" or (ours is not None) is any(FAST in one.words for one in outcome.reasons)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>", "text/html"),
        (b"", "application/json"),
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (json.dumps({**MESSAGE, "content": None}).encode(), "application/json"),
    ],
    ids=["html", "empty", "list", "broken", "no content"],
)
def test_a_small_model_that_answers_nonsense_withholds_no_answer(
    make: Make, content: bytes, kind: str
) -> None:
    """And it is asked plainly: none of the betas of the caller's client, but what belongs to the key."""
    betas: list[str | None] = []

    def answer(request: Any) -> Any:
        betas.append(request.headers.get("anthropic-beta"))
        is_own = "output_config" in json.loads(request.content)
        return http.Response(
            200,
            content=content if is_own else json.dumps(MESSAGE).encode(),
            headers={"content-type": kind if is_own else "application/json"},
        )

    runtime = make("enforce")
    adviser = Adviser(HAIKU, "anthropic", {"classify": "put a text into classes"})
    runtime.terms = replace(runtime.terms, adviser=adviser)
    always = {"Anthropic-Beta": f"{FAST},oauth-2025-04-20"}
    transport = anthropic.DefaultHttpxClient(transport=http.MockTransport(answer))
    with leastwise.Anthropic(
        api_key="k", leastwise=runtime, http_client=transport, default_headers=always
    ) as client:
        message = client.messages.create(
            model=OPUS, max_tokens=2_000, messages=[{"role": "user", "content": "Frobnicate the gimble"}]
        )

    assert OPUS == message.model
    assert ["oauth-2025-04-20", always["Anthropic-Beta"]] == betas
    (story,) = stories(runtime)
    assert ["classifier", "answer"] == [entry.purpose for entry in story.entries]
    assert story.exchange.spent_nusd == sum(entry.cost_nusd for entry in story.entries)


def test_neither_key_nor_prompt_is_in_logs_errors_or_the_ledger(
    make: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    key, prompt = "sk-ant-the-marker", "the-prompt-marker"
    runtime = make("enforce")
    call = {**CALL, "messages": [{"role": "user", "content": f"Is this spam? {prompt}"}], "system": prompt}
    with (
        caplog.at_level(logging.DEBUG, logger="leastwise"),
        serve() as upstream,
        leastwise.Anthropic(api_key=key, base_url=upstream.url, leastwise=runtime, max_retries=1) as client,
    ):
        task = leastwise.Task(f"classify {prompt}", tag="t")
        outcomes = [leastwise.outcome(client.messages.create(**call, task=task))]
        upstream.simulator.fail_next(2, status=529, headers={"retry-after-ms": "1"})
        with pytest.raises(anthropic.APIStatusError) as failed:
            client.messages.create(**call)
        with client.messages.create(**call, stream=True) as stream:
            next(iter(stream))
        broken = {**call, "tools": [{"name": prompt, "input_schema": prompt}], "output_config": prompt}
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**broken)
        outcomes.append(leastwise.outcome(stream))
        shown = [repr(client.leastwise.terms.policy_hash), str(failed.value), repr(outcomes)]
    runtime.store.flush()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("*.db*"))
    for secret in (key, prompt):
        assert secret not in caplog.text
        assert secret not in "".join(shown)
        assert secret.encode() not in stored
    assert 4 == len(rows(runtime))
