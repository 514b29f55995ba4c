"""An answer that is kept and given again is what the SDK alone would have given, in every form of asking."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import anthropic
import pydantic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.cache import Stored
from leastwise.config import load
from leastwise.errors import BudgetExceededError
from leastwise.sdk.dropin import _reply
from leastwise.sdk.responses import BudgetStatusError, replaying
from leastwise.simulate import serve
from leastwise.sse import encode
from tests.kit import HAIKU, OPUS
from tests.sdk.majors import MAJOR, http

ASK = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]
CALL: dict[str, Any] = {"model": OPUS, "max_tokens": 64, "messages": ASK}
#: A message with what a parser might lose: what it does not know, nulls, numbers, times.
RICH: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": HAIKU,
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [
                {
                    "type": "web_search_result",
                    "url": "u",
                    "title": "t",
                    "encrypted_content": "e",
                    "page_age": None,
                }
            ],
        },
        {"type": "brand_new", "of": {"a": 1}},
        {
            "type": "text",
            "text": '{"is_spam": true}',
            "citations": [
                {
                    "type": "char_location",
                    "cited_text": "c",
                    "document_index": 0,
                    "document_title": None,
                    "start_char_index": 0,
                    "end_char_index": 1,
                    "file_id": None,
                    "more": 2,
                }
            ],
            "extra": 3,
        },
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "container": {"id": "c", "expires_at": "2026-11-23T12:00:00.123456Z", "skills": None},
    "context_management": {
        "applied_edits": [
            {"type": "clear_tool_uses_20250919", "cleared_input_tokens": 1, "cleared_tool_uses": 2}
        ]
    },
    "usage": {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 1},
        "service_tier": "standard",
        "new": 1,
    },
    "odd": {"a": [1, 1.0, 2**60, None, "é"]},
}
WHOLE = json.dumps(RICH).encode()
PLAIN = {**RICH, "content": [{"type": "text", "text": '{"is_spam": true}'}]}


def _events() -> Iterator[bytes]:
    def event(name: str, **members: Any) -> bytes:
        return encode(name, json.dumps({"type": name, **members}).encode())

    start = {**PLAIN, "content": [], "stop_reason": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    yield event("message_start", message=start)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for text in ('{"is_', 'spam": true}'):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    yield event("content_block_stop", index=0)
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": 5})
    yield event("message_stop")


EVENTS = list(_events())
STREAM = b"".join(EVENTS)


class Chunks(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]  # of either library
    """A body that comes piece by piece."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


class Verdict(pydantic.BaseModel):
    is_spam: bool


class Form(NamedTuple):
    """One way to ask, sync and async; both return what can be compared."""

    sync: Callable[[Any], Any]
    later: Callable[[Any], Coroutine[Any, Any, Any]]


def shown(value: Any) -> Any:
    """Return a message with all that a caller sees of it."""
    return type(value), value, repr(value), value._request_id, getattr(value, "parsed_output", None)


def response_shown(response: Any, parsed: Any) -> Any:
    inner = response.http_response
    return type(response), inner.status_code, inner.content, inner.headers["request-id"], shown(parsed)


def ask(path: str, **more: Any) -> Form:
    """Call a method that gives a message."""

    def find(client: Any) -> Any:
        for name in path.split("."):
            client = getattr(client, name)
        return client

    async def later(client: Any) -> Any:
        return shown(await find(client)(**CALL, **more))

    return Form(sync=lambda client: shown(find(client)(**CALL, **more)), later=later)


def _raw(client: Any) -> Any:
    response = client.messages.with_raw_response.create(**CALL)
    return response_shown(response, response.parse())


async def _raw_later(client: Any) -> Any:
    response = await client.messages.with_raw_response.create(**CALL)
    parsed = response.parse()
    return response_shown(response, await parsed if inspect.isawaitable(parsed) else parsed)


def _streamed_whole(client: Any) -> Any:
    with client.messages.with_streaming_response.create(**CALL) as response:
        return json.loads(response.read()), response.headers["content-type"].partition(";")[0]


async def _streamed_whole_later(client: Any) -> Any:
    async with client.messages.with_streaming_response.create(**CALL) as response:
        return json.loads(await response.read()), response.headers["content-type"].partition(";")[0]


async def _posted(client: Any) -> Any:
    return (await client.post("/v1/messages", cast_to=http.Response, body=CALL)).content


MESSAGES: dict[str, Form] = {
    "create": ask("messages.create"),
    "beta": ask("beta.messages.create"),
    "raw": Form(sync=_raw, later=_raw_later),
    "streaming response": Form(sync=_streamed_whole, later=_streamed_whole_later),
    "posted": Form(
        sync=lambda client: client.post("/v1/messages", cast_to=http.Response, body=CALL).content,
        later=_posted,
    ),
}
PARSED: dict[str, Form] = {
    "parse": ask("messages.parse", output_format=Verdict),
    "beta parse": ask("beta.messages.parse", output_format=Verdict),
}


def _create_stream(client: Any) -> Any:
    with client.messages.create(**CALL, stream=True) as stream:
        return list(stream)


async def _create_stream_later(client: Any) -> Any:
    async with await client.messages.create(**CALL, stream=True) as stream:
        return [event async for event in stream]


def helper(messages: Callable[[Any], Any], read: str) -> Form:
    """Read the helper's stream by the method of that name, or its texts."""

    def sync(client: Any) -> Any:
        with messages(client).stream(**CALL) as stream:
            if read == "text_stream":
                return list(stream.text_stream), stream.get_final_message()
            return list(stream) if read == "events" else getattr(stream, read)()

    async def later(client: Any) -> Any:
        async with messages(client).stream(**CALL) as stream:
            if read == "text_stream":
                return [text async for text in stream.text_stream], await stream.get_final_message()
            if read == "events":
                return [event async for event in stream]
            return await getattr(stream, read)()

    return Form(sync=sync, later=later)


def response_of_stream(read: str) -> Form:
    """Read a streaming response by the method of that name."""

    def sync(client: Any) -> Any:
        with client.messages.with_streaming_response.create(**CALL, stream=True) as response:
            found = response.http_response.iter_raw() if read == "raw" else getattr(response, read)()
            return found if isinstance(found, bytes) else _joined(list(found))

    async def later(client: Any) -> Any:
        async with client.messages.with_streaming_response.create(**CALL, stream=True) as response:
            if read == "read":
                return await response.read()
            if read == "parse":
                return [event async for event in await response.parse()]
            raw = response.http_response.aiter_raw() if read == "raw" else getattr(response, read)()
            return _joined([part async for part in raw])

    return Form(sync=sync, later=later)


def _joined(parts: list[Any]) -> Any:
    """Return bytes and texts in one piece: how they are cut is the network's."""
    if parts and isinstance(parts[0], bytes | str):
        return type(parts[0])().join(parts)
    return parts


STREAMS: dict[str, Form] = {
    "create stream": Form(sync=_create_stream, later=_create_stream_later),
    "helper, events": helper(lambda client: client.messages, "events"),
    "helper, texts": helper(lambda client: client.messages, "text_stream"),
    "helper, final": helper(lambda client: client.messages, "get_final_message"),
    "helper, final text": helper(lambda client: client.messages, "get_final_text"),
    "beta helper, final": helper(lambda client: client.beta.messages, "get_final_message"),
    "beta helper, events": helper(lambda client: client.beta.messages, "events"),
    "bytes": response_of_stream("iter_bytes"),
    "lines": response_of_stream("iter_lines"),
    "text": response_of_stream("iter_text"),
    "read": response_of_stream("read"),
    "parsed": response_of_stream("parse"),
}
FORMS = {**MESSAGES, **PARSED, **STREAMS}
pytestmark = [
    # SDK 0.x warns of the only way to ask its `parse` for a model.
    pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated:DeprecationWarning"),
    # And every SDK of blocks that it does not know, when it parses.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


class Upstream:
    """An upstream that answers by what is asked for, and counts."""

    def __init__(self, whole: bytes = WHOLE) -> None:
        self.whole = whole
        self.seen: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.seen.append(request)
        body = json.loads(request.content)
        is_stream = bool(body.get("stream"))
        headers = {
            "content-type": "text/event-stream" if is_stream else "application/json",
            "request-id": "req_1",
        }
        chunks = EVENTS if is_stream else [self.whole]
        return http.Response(200, headers=headers, stream=Chunks(*chunks))

    def given(self, *, is_async: bool = False) -> dict[str, Any]:
        """Return the arguments of a client that asks this upstream."""
        transport = http.MockTransport(self)
        kind = anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient
        return {"api_key": "k", "http_client": kind(transport=transport), "max_retries": 0}


Make = Callable[..., Runtime]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make runtimes that keep every answer, on stores of the test's own."""
    made: list[Runtime] = []

    def make_one(config: str = '[cache]\non = "all"\n') -> Runtime:
        file = tmp_path / "leastwise.toml"
        file.write_text(f'mode = "enforce"\n{config}')
        environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/{len(made)}.db"}
        made.append(Runtime(load(file, environ, cwd=tmp_path)))
        return made[-1]

    yield make_one
    for runtime in made:
        runtime.close()


def stored(body: bytes, *, is_stream: bool = False) -> Stored:
    return Stored(body, is_stream, HAIKU, "haiku", "anthropic", "01X", "req_1", "", 0.0)


def alone(form: Form) -> Any:
    """Return what the SDK alone makes of the upstream's answer."""
    return form.sync(anthropic.Anthropic(**Upstream().given()))


def later(runtime: Runtime, upstream: Upstream, use: Callable[[Any], Awaitable[Any]], times: int = 1) -> Any:
    """Return what an async client gives each time."""

    async def work() -> list[Any]:
        given = upstream.given(is_async=True)
        async with leastwise.AsyncAnthropic(**given, leastwise=runtime) as client:
            return [await use(client) for _ in range(times)]

    return asyncio.run(work())


# --- directly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MESSAGES, *PARSED])
def test_a_message_is_read_from_its_kept_bytes_as_from_the_upstream(name: str) -> None:
    form, plain = FORMS[name], anthropic.Anthropic(api_key="k")
    assert alone(form) == form.sync(replaying(stored(WHOLE), plain))
    assert asyncio.run(
        form.later(anthropic.AsyncAnthropic(**Upstream().given(is_async=True)))
    ) == asyncio.run(form.later(replaying(stored(WHOLE), anthropic.AsyncAnthropic(api_key="k"))))


@pytest.mark.parametrize("name", [*STREAMS, "raw"])
def test_a_stream_is_read_from_its_kept_bytes_as_from_the_upstream(name: str) -> None:
    form = response_of_stream("raw") if name == "raw" else STREAMS[name]
    kept = stored(STREAM, is_stream=True)
    assert alone(form) == form.sync(replaying(kept, anthropic.Anthropic(api_key="k")))
    again = asyncio.run(form.later(replaying(kept, anthropic.AsyncAnthropic(api_key="k"))))
    assert again == asyncio.run(form.later(anthropic.AsyncAnthropic(**Upstream().given(is_async=True))))


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.messages.create(**CALL),
        lambda client: client.beta.messages.create(**CALL),
        lambda client: client.messages.parse(**CALL, output_format=Verdict),
        lambda client: client.beta.messages.parse(**CALL, output_format=Verdict),
        lambda client: client.messages.with_raw_response.create(**CALL),
        lambda client: client.post("/v1/messages", cast_to=http.Response, body=CALL),
    ],
    ids=["create", "beta", "parse", "beta parse", "raw", "posted"],
)
def test_what_is_kept_of_an_answer_is_what_came(use: Callable[[Any], Any]) -> None:
    reply = _reply(use(anthropic.Anthropic(**Upstream().given())))
    assert reply.body is not None
    assert RICH == json.loads(reply.body())


@pytest.mark.parametrize(
    "changes",
    [
        {"content": ["x"]},
        {"content": None},
        {"content": {"a": 1}},
        {"usage": "many"},
        {"stop_reason": 5},
        {"odd": "\ud83d"},  # half a character
    ],
    ids=str,
)
def test_what_is_kept_of_an_odd_answer_is_what_came(changes: dict[str, Any]) -> None:
    odd = {**RICH, **changes}
    upstream = Upstream(json.dumps(odd).encode())
    reply = _reply(anthropic.Anthropic(**upstream.given()).messages.create(**CALL))
    assert reply.body is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert odd == json.loads(reply.body())


def test_a_parsed_value_that_is_no_json_is_not_in_the_way() -> None:
    class Odd(pydantic.BaseModel):
        is_spam: Annotated[bool, pydantic.AfterValidator(lambda _: object())]

    client: Any = anthropic.Anthropic(**Upstream().given())
    reply = _reply(client.messages.parse(**CALL, output_format=Odd))
    assert reply.body is not None
    assert RICH == json.loads(reply.body())


def test_an_answer_of_a_callers_own_type_is_not_kept() -> None:
    """It may leave out what others who ask the same would miss."""

    class Mine(anthropic.BaseModel):
        model_config = pydantic.ConfigDict(extra="ignore")
        id: str

    client = anthropic.Anthropic(**Upstream().given())
    for kind in (Mine, object, str):
        payload: Any = client.post("/v1/messages", cast_to=kind, body=CALL)
        assert _reply(payload).body is None


def test_a_kept_answer_needs_no_network_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    plain = anthropic.Anthropic(api_key="k")
    assert "msg_1" == replaying(stored(WHOLE), plain).messages.create(**CALL).id


def test_a_kept_answer_that_a_strict_client_refuses_is_refused() -> None:
    broken = stored(json.dumps({**RICH, "content": None}).encode())
    strict = anthropic.Anthropic(api_key="k", _strict_response_validation=True)
    with pytest.raises(anthropic.APIResponseValidationError):
        replaying(broken, strict).messages.create(**CALL)


# --- through exchanges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FORMS))
def test_a_hit_is_what_the_miss_was_and_asks_nobody(make: Make, name: str) -> None:
    form, runtime, upstream = FORMS[name], make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        assert [alone(form)] * 3 == [form.sync(client) for _ in range(3)]
    assert 1 == len(upstream.seen)


@pytest.mark.parametrize("name", list(FORMS))
def test_an_async_hit_is_what_the_miss_was_and_asks_nobody(make: Make, name: str) -> None:
    form, runtime, upstream = FORMS[name], make(), Upstream()
    first, *others = later(runtime, upstream, form.later, times=3)
    assert [first] * 2 == others
    assert 1 == len(upstream.seen)


@pytest.mark.parametrize("kept_by", list(MESSAGES))
def test_an_answer_kept_by_one_form_is_given_to_every_other(make: Make, kept_by: str) -> None:
    runtime, upstream = make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        MESSAGES[kept_by].sync(client)
        for name, form in MESSAGES.items():
            if name not in ("raw", "posted"):  # where the bytes show: JSON may be spelt in another order
                assert alone(form)[:2] == form.sync(client)[:2]
        assert RICH == client.messages.with_raw_response.create(**CALL).http_response.json()
        assert RICH == client.post("/v1/messages", cast_to=object, body=CALL)
    assert 1 == len(upstream.seen)


def test_outcome_tells_of_a_hit_at_once(make: Make) -> None:
    runtime, upstream = make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        messages: Any = client.messages
        list(messages.create(**CALL, stream=True))
        first = leastwise.outcome(messages.create(**CALL))
        assert first is not None
        assert not first.from_cache

        given = [
            messages.create(**CALL),
            messages.with_raw_response.create(**CALL),
            messages.create(**CALL, stream=True),
            messages.with_raw_response.create(**CALL, stream=True),
            messages.stream(**CALL).__enter__(),
            messages.with_streaming_response.create(**CALL, stream=True).__enter__(),
        ]
        outcomes = [leastwise.outcome(one) for one in given]
    told = [(one.from_cache, one.cost_usd, one.saved_usd > 0) for one in outcomes if one is not None]
    assert [(True, Decimal(0), True)] * len(given) == told
    assert 2 == len(upstream.seen)


def test_outcome_tells_of_an_async_hit_at_once(make: Make) -> None:
    async def use(client: Any) -> list[bool | None]:
        stream = await client.messages.create(**CALL, stream=True)
        outcomes = [leastwise.outcome(stream), leastwise.outcome(await client.messages.create(**CALL))]
        async for _ in stream:
            pass
        return [None if one is None else one.from_cache for one in outcomes]

    assert [[None, False], [True, True]] == later(make(), Upstream(), use, times=2)


def test_a_replayed_stream_may_be_left_and_asked_for_again(make: Make) -> None:
    runtime, upstream = make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        whole = list(client.messages.create(**CALL, stream=True))
        left = client.messages.create(**CALL, stream=True)
        assert whole[0] == next(left)
        left.close()
        client.messages.create(**CALL, stream=True)  # and never read
        with client.messages.stream(**CALL) as stream:
            next(iter(stream))
        assert whole == list(client.messages.create(**CALL, stream=True))
        assert response_of_stream("raw").sync(client) == STREAM
    assert 1 == len(upstream.seen)


def test_a_stream_that_was_left_is_not_kept(make: Make) -> None:
    runtime, upstream = make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        for _ in range(2):
            with client.messages.create(**CALL, stream=True) as stream:
                next(stream)
        list(client.messages.create(**CALL, stream=True))
        list(client.messages.create(**CALL, stream=True))
    assert 3 == len(upstream.seen)


def test_clients_of_clouds_are_given_hits_too(make: Make) -> None:
    runtime, upstream = make(), Upstream()
    given = {"http_client": upstream.given()["http_client"]}
    clouds: list[tuple[Any, str]] = [
        (
            anthropic.AnthropicBedrock(api_key="k", aws_region="us-east-1", **given),
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        (
            anthropic.AnthropicVertex(access_token="t", project_id="p", region="r", **given),
            "claude-haiku-4-5@20251001",
        ),
    ]
    for plain, model in clouds:
        client = leastwise.wrap(plain, leastwise=runtime)
        ask = {**CALL, "model": model}
        first, second = (client.messages.create(**ask) for _ in range(2))
        assert first.to_dict() == second.to_dict()
        outcome = leastwise.outcome(second)
        assert outcome is not None
        assert outcome.from_cache
    assert 2 == len(upstream.seen)


def test_only_a_task_that_asks_for_it_is_kept_by_default(make: Make) -> None:
    runtime, upstream = make(""), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        for task in (None, leastwise.Task(cache=True), leastwise.Task(cache=True), None):
            client.messages.create(**CALL, task=task)
        for _ in range(2):
            list(client.messages.create(**CALL, stream=True, task=leastwise.Task(cache=True)))
        client.messages.create(**CALL, task=leastwise.Task(cache="refresh"))
    assert 5 == len(upstream.seen)


def test_who_has_another_key_gets_nobody_elses_answer(make: Make) -> None:
    runtime, upstream = make(), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        other = client.with_options(api_key="another")
        for one in (client, other, client, other):
            one.messages.create(**CALL)
        client.messages.create(**CALL, extra_headers={"x-portkey-api-key": "p"})
    assert 3 == len(upstream.seen)


def test_a_header_may_ask_for_the_cache(make: Make) -> None:
    runtime, upstream = make(""), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
        for use in ("write", "write", "refresh", "off", "read"):
            client.messages.create(**CALL, extra_headers={"Leastwise-Cache": use})
    assert 3 == len(upstream.seen)


# --- what a budget says ---------------------------------------------------------------------------------

FACTS: dict[str, Any] = {
    "budget": "team-a",
    "account": "team-a|key=alice",
    "spent_usd": Decimal("4.99"),
    "limit_usd": Decimal(5),
    "works": ("haiku",),
}


def test_a_budgets_refusal_is_an_error_of_ours_and_of_the_sdk() -> None:
    ours = BudgetExceededError("budget team-a has $0.01 left", **FACTS)
    error = BudgetStatusError(str(ours), **vars(ours))
    for one in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - ours
        assert isinstance(one, leastwise.BudgetExceededError)
        assert isinstance(one, anthropic.APIStatusError)
        assert "budget team-a has $0.01 left" == str(one) == one.message
        assert (402, 402, "billing_error") == (one.status_code, one.http_status, one.api_type)
        assert FACTS == {name: getattr(one, name) for name in FACTS}
        said = {"type": "billing_error", "message": str(ours)}
        assert {"type": "error", "error": said} == one.body == one.response.json()
        assert "false" == one.response.headers["x-should-retry"]
        assert 402 == one.response.status_code
        assert "billing_error" == one.type
        assert not anthropic.Anthropic(api_key="k")._should_retry(one.response)


def test_a_budgets_refusal_is_the_sdks_own_kind_for_402() -> None:
    kind = getattr(anthropic, "APIStatusError" if MAJOR < 2 else "PaymentRequiredError")
    assert issubclass(BudgetStatusError, kind)


TIGHT = '[[budget]]\nname = "tight"\nscope = ["global"]\nwindow = "day"\nlimit_usd = 0.0001\ncap = "block"\n'


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_call_that_a_budget_blocks_is_sent_to_nobody_and_not_tried_again(
    make: Make, *, is_async: bool, is_stream: bool
) -> None:
    runtime, upstream = make(TIGHT), Upstream()
    dear = {**CALL, "max_tokens": 4_000, "stream": is_stream}

    def use(client: Any) -> Any:
        return client.with_options(max_retries=2).messages.create(**dear)

    def once() -> Any:
        if is_async:
            return later(runtime, upstream, use)
        with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
            return use(client)

    with pytest.raises(anthropic.APIStatusError) as raised:
        once()
    assert isinstance(raised.value, leastwise.BudgetExceededError)
    assert ("tight", 402) == (raised.value.budget, raised.value.status_code)
    assert [] == upstream.seen


def test_a_client_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEASTWISE_STORE_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    upstream = Upstream(json.dumps(PLAIN).encode())
    clients: list[Any] = [
        leastwise.Anthropic(**upstream.given(), budget_usd=0.0001),
        leastwise.wrap(anthropic.Anthropic(**upstream.given()), budget_usd=Decimal("0.0001")),
    ]
    for client in clients:
        with client, client.leastwise, pytest.raises(leastwise.BudgetExceededError):
            client.with_options(timeout=9).messages.create(**{**CALL, "max_tokens": 4_000})
    assert [] == upstream.seen
    with leastwise.Anthropic(**upstream.given()) as client, client.leastwise:
        client.messages.create(**{**CALL, "max_tokens": 4_000})
    assert 1 == len(upstream.seen)


def test_a_budget_of_one_client_is_not_for_a_runtime_that_it_shares(make: Make) -> None:
    runtime = make()
    with pytest.raises(TypeError, match="budget_usd is for one client"):
        leastwise.Anthropic(api_key="k", leastwise=runtime, budget_usd=5)
    with pytest.raises(TypeError, match="budget_usd is for one client"):
        leastwise.wrap(anthropic.Anthropic(api_key="k"), leastwise=runtime, budget_usd=5)


# --- headers that are for us ----------------------------------------------------------------------------

OURS = {"leastwise-tag": "t", "Leastwise-Key": "lw_1", "LEASTWISE-Expected-Output-Tokens": "5"}

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


def ours_in(seen: list[Any]) -> list[str]:
    return [name for one in seen for name in one.headers if name.lower().startswith("leastwise-")]


def test_our_headers_reach_the_exchange_and_no_upstream(make: Make) -> None:
    runtime, upstream = make(""), Upstream()
    with leastwise.Anthropic(**upstream.given(), leastwise=runtime, default_headers=OURS) as client:
        client.messages.create(**CALL, extra_headers={"leastwise-session": "s"})
        list(client.messages.create(**CALL, extra_headers={"Leastwise-Critical": "true"}, stream=True))
        client.messages.with_raw_response.create(**CALL)
        client.messages.count_tokens(model=OPUS, messages=ASK, extra_headers={"leastwise-mode": "off"})  # type: ignore[arg-type]
        found, _ = client._leastwise_headers(  # type: ignore[attr-defined]  # what the exchange is told
            anthropic.Anthropic(api_key="k")._client.build_request(
                "POST", "/", headers={"leastwise-tier": "haiku"}
            )
        )

    async def use(client: Any) -> None:
        await client.with_options(default_headers=OURS).messages.create(**CALL)

    later(runtime, upstream, use)
    assert 5 == len(upstream.seen)
    assert [] == ours_in(upstream.seen)
    ours = {name: value for name, value in found.items() if name.startswith("leastwise-")}
    assert {"leastwise-tag": "t", "leastwise-expected-output-tokens": "5", "leastwise-tier": "haiku"} == ours


def test_our_headers_reach_no_other_upstream_and_go_with_no_question_of_ours(make: Make) -> None:
    with serve() as local, serve() as server:
        runtime = make(LOCAL.format(url=local.url) + '[classifier]\nllm_tier = "local"\n')
        with leastwise.Anthropic(
            api_key="k", base_url=server.url, leastwise=runtime, default_headers=OURS
        ) as client:
            for model in ("local", "auto", "opus"):
                vague = [{"role": "user", "content": f"Frobnicate the gimble {model}"}]
                headers = {"leastwise-session": "s"}
                client.messages.create(**{**CALL, "model": model, "messages": vague}, extra_headers=headers)
        seen = [*local.simulator.requests, *server.simulator.requests]
    assert len(seen) > 3
    assert [] == ours_in(seen)


def test_our_headers_of_a_wrapped_client_are_kept_back_too(make: Make) -> None:
    upstream = Upstream()
    plain = anthropic.AnthropicBedrock(
        api_key="k",
        aws_region="us-east-1",
        http_client=upstream.given()["http_client"],
        default_headers=OURS,
    )
    client: Any = leastwise.wrap(plain, leastwise=make())
    client.messages.create(**{**CALL, "model": "us.anthropic.claude-haiku-4-5-20251001-v1:0"})
    assert 1 == len(upstream.seen)
    assert [] == ours_in(upstream.seen)
