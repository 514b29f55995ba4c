"""An answer held back and then relayed, dropped or given whole: the caller gets what the SDK alone gives."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.cascade import GateSays
from leastwise.config import load
from leastwise.exchange import Done
from leastwise.ladder import Task
from leastwise.messages import Request
from leastwise.simulate import Server, Simulator, serve
from leastwise.steps import Run, Steps
from leastwise.stores import Story
from tests.kit import OPUS, after, holding
from tests.sdk.majors import http
from tests.sdk.test_replay import (
    CALL,
    EVENTS,
    FORMS,
    STREAM,
    STREAMS,
    WHOLE,
    Chunks,
    Form,
    response_of_stream,
)

ASK: Any = [{"role": "user", "content": "Is this a summary of a long story? Explain in detail."}]
LONG: dict[str, Any] = {"model": OPUS, "max_tokens": 1024, "messages": ASK}
ENDLESS = 10**9

Gates = Callable[[], Callable[[bytes], GateSays]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


class _Holding:
    """What is done with each live answer; mixed in before a client's class."""

    gate: Gates
    way: Any = "done"
    check: Run | None = None
    told: list[Any]

    def _leastwise_call(self, options: Any, task: Task | None) -> tuple[Request, Steps[Done]]:
        request, steps = super()._leastwise_call(options, task)  # type: ignore[misc]  # the class mixed with
        return request, holding(steps, self.told, self.gate, self.check, self.way)


class Sync(_Holding, leastwise.Anthropic):
    """Holds each live answer."""


class Async(_Holding, leastwise.AsyncAnthropic):
    """The same on an event loop."""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
    with Runtime(load(None, environ, cwd=tmp_path, arguments={"mode": "observe"})) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def with_gate(client: Any, gate: Gates, way: str = "done", check: Run | None = None) -> Any:
    client.gate, client.way, client.check, client.told = gate, way, check, []
    return client


def stories(runtime: Runtime) -> list[Story]:
    runtime.store.flush()
    ids = runtime.store.database.rows("SELECT id FROM exchange ORDER BY id")  # type: ignore[attr-defined]
    return [story for row in ids if (story := runtime.store.find(row["id"])) is not None]


# --- what the caller sees -------------------------------------------------------------------------------


class Upstream:
    """An upstream whose answers come in pieces of any size, compressed or not; tells which were closed."""

    def __init__(self, pieces: int = 0, encoding: str = "", *, end: Exception | None = None) -> None:
        self._pieces = pieces
        self._encoding = encoding
        self._end = end
        self.bodies: list[Body] = []

    def __call__(self, request: Any) -> Any:
        is_stream = bool(json.loads(request.content).get("stream"))
        content = STREAM if is_stream else WHOLE
        if self._encoding == "gzip":
            content = gzip.compress(content, mtime=0)
        if self._pieces:
            rng = random.Random(self._pieces)
            ends = sorted(rng.sample(range(1, len(content)), self._pieces))
            chunks = [content[start:end] for start, end in zip([0, *ends], [*ends, None], strict=True)]
        else:
            chunks = EVENTS if is_stream else [content]
        self.bodies.append(Body(chunks, self._end))
        headers = {
            "content-type": "text/event-stream" if is_stream else "application/json",
            **({"content-encoding": self._encoding} if self._encoding else {}),
            "request-id": "req_1",
            "x-other": "kept",
        }
        return http.Response(200, headers=headers, stream=self.bodies[-1])

    def given(self, *, is_async: bool = False) -> dict[str, Any]:
        """Return the arguments of a client that asks this upstream."""
        kind = anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient
        connections = kind(transport=http.MockTransport(self))
        return {"api_key": "k", "http_client": connections, "max_retries": 0}


class Body(Chunks):
    """A body that can break off, and knows how far it was read and whether it was closed."""

    def __init__(self, chunks: list[bytes], end: Exception | None) -> None:
        super().__init__(*chunks)
        self._end = end
        self.read = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.read += 1
            yield chunk
        if self._end is not None:
            raise self._end

    async def __aiter__(self) -> Any:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


RAW = {"raw stream": response_of_stream("raw")}
WAYS = {
    "commits at once": (after(1, "commit"), "done"),
    "commits in the middle": (after(len(STREAM) // 2, "commit"), "done"),
    "commits at the last byte": (after(len(STREAM), "commit"), "done"),
    "held to its end": (after(ENDLESS, "commit"), "done"),
    "held to its end, then live": (after(ENDLESS, "commit"), "relay"),
    "held to its end, then as kept": (after(ENDLESS, "commit"), "stored"),
}
ways = pytest.mark.parametrize(("gate", "way"), WAYS.values(), ids=list(WAYS))


def assert_counted(found: list[Story], name: str) -> None:
    """Assert that each answer was counted as it is; below its decoded bytes nobody hears a response."""
    for one in found if name not in RAW else ():
        (entry,) = one.entries
        assert ("ok", 10, 5) == (one.exchange.result, entry.usage.input_tokens, entry.usage.output_tokens)


@pytest.mark.parametrize("name", [*FORMS, *RAW])
@ways
def test_every_form_is_what_the_sdk_alone_gives(name: str, gate: Gates, way: str, runtime: Runtime) -> None:
    form: Form = {**FORMS, **RAW}[name]
    with Sync(**Upstream().given(), leastwise=runtime) as client:
        assert form.sync(anthropic.Anthropic(**Upstream().given())) == form.sync(with_gate(client, gate, way))
    assert_counted(stories(runtime), name)


@pytest.mark.parametrize("name", [*FORMS, *RAW])
@ways
def test_every_async_form_is_what_the_sdk_alone_gives(
    name: str, gate: Gates, way: str, runtime: Runtime
) -> None:
    form: Form = {**FORMS, **RAW}[name]

    async def main() -> tuple[Any, Any]:
        async with (
            anthropic.AsyncAnthropic(**Upstream().given(is_async=True)) as alone,
            Async(**Upstream().given(is_async=True), leastwise=runtime) as client,
        ):
            return await form.later(alone), await form.later(with_gate(client, gate, way))

    alone, ours = asyncio.run(main())
    assert alone == ours
    assert_counted(stories(runtime), name)


@pytest.mark.parametrize("encoding", ["", "identity", "gzip"])
@pytest.mark.parametrize("name", ["create stream", "bytes", "raw stream", "read", "helper, final"])
@pytest.mark.parametrize("size", [1, 200, 500, ENDLESS])
def test_no_cut_and_no_compression_makes_a_difference(
    encoding: str, name: str, size: int, runtime: Runtime
) -> None:
    form = {**STREAMS, **RAW}[name]
    for pieces in (1, 7, 60):
        upstream = Upstream(pieces, encoding)
        with Sync(**upstream.given(), leastwise=runtime) as client:
            ours = form.sync(with_gate(client, after(size, "commit")))
        assert form.sync(anthropic.Anthropic(**Upstream(pieces, encoding).given())) == ours
        (told,) = client.told
        assert STREAM.startswith(told.body)
        assert size <= len(told.body) or told.facts.is_complete
    assert_counted(stories(runtime), name)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_response_that_was_held_keeps_its_headers_and_its_timing(
    runtime: Runtime, *, is_async: bool
) -> None:
    gate = after(ENDLESS, "commit")

    async def later() -> Any:
        async with Async(**Upstream().given(is_async=True), leastwise=runtime) as client:
            stream = await with_gate(client, gate).messages.create(**CALL, stream=True)
            [event async for event in stream]
            return stream.response

    if is_async:
        response = asyncio.run(later())
    else:
        with Sync(**Upstream().given(), leastwise=runtime) as client:
            stream = with_gate(client, gate).messages.create(**CALL, stream=True)
            list(stream)
            response = stream.response
    assert ("req_1", "kept") == (response.headers["request-id"], response.headers["x-other"])
    assert len(STREAM) == response.num_bytes_downloaded
    assert response.is_closed
    assert response.elapsed.total_seconds() >= 0
    outcome = leastwise.outcome(response)
    assert outcome is not None
    assert 5 == outcome.output_tokens


def test_what_is_held_is_not_read_further_than_the_gate_asks(runtime: Runtime) -> None:
    upstream = Upstream()
    with Sync(**upstream.given(), leastwise=runtime) as client:
        stream = with_gate(client, after(1, "commit")).messages.create(**CALL, stream=True)
        assert (1, 0) == (upstream.bodies[0].read, upstream.bodies[0].closed)
        assert leastwise.outcome(stream) is None
        events = iter(stream)
        next(events)
        assert 1 == upstream.bodies[0].read  # what was read comes first
        next(events)
        assert 2 == upstream.bodies[0].read


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_dropped_is_closed_and_the_next_answer_is_the_callers(
    runtime: Runtime, *, is_async: bool
) -> None:
    def make() -> Callable[[bytes], GateSays]:
        return after(1, "commit" if len(upstream.bodies) > 1 else "drop")()

    upstream = Upstream()
    plain = STREAMS["create stream"].sync(anthropic.Anthropic(**Upstream().given()))

    async def later() -> Any:
        async with Async(**upstream.given(is_async=True), leastwise=runtime) as client:
            trying = client.with_options(max_retries=1)
            return await STREAMS["create stream"].later(with_gate(trying, make))

    if is_async:
        found = asyncio.run(later())
    else:
        with Sync(**upstream.given(), leastwise=runtime) as client:
            trying = client.with_options(max_retries=1)
            found = STREAMS["create stream"].sync(with_gate(trying, make))
    assert plain == found
    dropped, given = upstream.bodies
    assert (1, len(EVENTS)) == (dropped.read, given.read)
    assert dropped.closed
    (one,) = stories(runtime)
    assert [529, 200] == [entry.status for entry in one.entries]
    assert 5 == one.entries[1].usage.output_tokens


@pytest.mark.parametrize("way", ["done", "relay"])
@pytest.mark.parametrize("kind", [http.ReadError, OSError])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_broke_while_it_was_held_breaks_where_it_did(
    runtime: Runtime, way: str, kind: type[Exception], *, is_async: bool
) -> None:
    broken = kind("the line went dead")
    body = [*EVENTS[:3]]

    class Breaking(Upstream):
        def __call__(self, request: Any) -> Any:
            response = super().__call__(request)
            self.bodies[-1].chunks = tuple(body)
            return response

    seen: list[Any] = []
    upstream = Breaking(end=broken)

    async def later() -> None:
        async with Async(**upstream.given(is_async=True), leastwise=runtime) as client:
            stream = await with_gate(client, after(ENDLESS, "commit"), way).messages.create(
                **CALL, stream=True
            )
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - so that those before the failure are kept

    def at_once() -> None:
        with Sync(**upstream.given(), leastwise=runtime) as client:
            stream = with_gate(client, after(ENDLESS, "commit"), way).messages.create(**CALL, stream=True)
            for event in stream:
                seen.append(event)  # noqa: PERF402 - as above

    with pytest.raises(kind, match="the line went dead") as raised:
        asyncio.run(later()) if is_async else at_once()
    assert raised.value is broken
    assert (kind is http.ReadError) is hasattr(broken, "request")
    assert ["message_start", "content_block_start"] == [event.type for event in seen]
    assert upstream.bodies[0].closed
    (one,) = stories(runtime)
    assert ("cut", 10) == (one.exchange.result, one.entries[0].usage.input_tokens)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("kind", "raised"),
    [(http.ReadError, anthropic.APIConnectionError), (http.ReadTimeout, anthropic.APITimeoutError)],
)
def test_what_breaks_before_the_caller_reads_is_an_error_of_the_sdks(
    tmp_path: Path, kind: type[Exception], raised: type[Exception], *, is_async: bool
) -> None:
    """`create` raises it, where the SDK's own errors are caught, and no library's below it."""
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db"}
    given = {"mode": "enforce", "cascade.enabled": True, "cascade.stream": "buffer"}

    async def later(runtime: Runtime) -> None:
        one = leastwise.AsyncAnthropic(**upstream.given(is_async=True), leastwise=runtime)
        async with one as client:
            await client.messages.create(**CALL, stream=True)

    def at_once(runtime: Runtime) -> None:
        with leastwise.Anthropic(**upstream.given(), leastwise=runtime) as client:
            client.messages.create(**CALL, stream=True)

    class Breaking(Upstream):
        def __call__(self, request: Any) -> Any:
            response = super().__call__(request)
            self.bodies[-1].chunks = tuple(EVENTS[:3])
            return response

    upstream = Breaking(end=kind("the line went dead"))
    with Runtime(load(None, environ, cwd=tmp_path, arguments=given)) as runtime:
        with pytest.raises(raised) as told:
            asyncio.run(later(runtime)) if is_async else at_once(runtime)
        assert isinstance(told.value.__cause__, kind)
        assert ["error"] == [one.exchange.result for one in stories(runtime)]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_cannot_be_decoded_is_told_and_closed(runtime: Runtime, *, is_async: bool) -> None:
    def garbled(_: Any) -> Any:
        given = {"content-type": "text/event-stream", "content-encoding": "gzip"}
        return http.Response(200, headers=given, stream=body)

    body = Body([gzip.compress(STREAM)[:50], b"garbled" * 20, b""], None)
    kind = anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient
    given: Any = {"api_key": "k", "http_client": kind(transport=http.MockTransport(garbled))}

    async def later() -> None:
        async with Async(**given, leastwise=runtime) as client:
            await with_gate(client, after(ENDLESS, "commit")).messages.create(**CALL, stream=True)
            (told,) = client.told
            assert isinstance(told.failure.cause, http.DecodingError)

    if is_async:
        asyncio.run(later())
    else:
        with Sync(**given, leastwise=runtime) as client:
            with_gate(client, after(ENDLESS, "commit")).messages.create(**CALL, stream=True)
            (told,) = client.told
            assert isinstance(told.failure.cause, http.DecodingError)
    assert body.closed
    assert ["cut"] == [one.exchange.result for one in stories(runtime)]


# --- on a real port -------------------------------------------------------------------------------------


def sync_client(server: Server, runtime: Runtime, gate: Gates, **how: Any) -> Sync:
    client = Sync(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0)
    found: Sync = with_gate(client, gate, **how)
    return found


def connections(client: Any) -> list[Any]:
    return list(client._client._transport._pool.connections)


def busy(client: Any) -> list[Any]:
    return [one for one in connections(client) if not one.is_idle() and not one.is_closed()]


def read(client: Any) -> None:
    list(client.messages.create(**LONG, stream=True))


def close_early(client: Any) -> None:
    with client.messages.stream(**LONG) as stream:
        next(iter(stream))


def close_unread(client: Any) -> None:
    client.messages.create(**LONG, stream=True).close()


def drop(client: Any) -> None:
    stream = client.messages.create(**LONG, stream=True)
    next(iter(stream))


def drop_unread(client: Any) -> None:
    client.messages.create(**LONG, stream=True)


def drop_raw(client: Any) -> None:
    client.messages.with_raw_response.create(**LONG, stream=True)


ENDS = {
    read: "ok",
    close_early: "abandoned",
    close_unread: "abandoned",
    drop: "abandoned",
    drop_unread: "abandoned",
    drop_raw: "abandoned",
}


@pytest.mark.parametrize(("use", "result"), ENDS.items(), ids=lambda one: getattr(one, "__name__", None))
def test_every_end_of_a_relayed_answer_is_in_the_ledger_and_frees_the_connection(
    runtime: Runtime, use: Callable[[Any], None], result: str
) -> None:
    with serve(simulator=Simulator(tokens_per_s=120)) as server:
        with sync_client(server, runtime, after(600, "commit")) as client:
            use(client)
            gc.collect()
            assert [] == busy(client)
        (one,) = stories(runtime)
        assert result == one.exchange.result
        wait_for(lambda: bool(server.simulator.books))
        (bill,) = server.simulator.books
    assert bill.message_id == one.entries[0].message_id
    assert one.exchange.spent_nusd >= bill.nusd > 0


@pytest.mark.parametrize("use", ["early", "closed", "dropped", "unread"])
def test_every_end_of_an_async_answer_frees_the_connection(runtime: Runtime, use: str) -> None:
    async def main(server: Server) -> list[Any]:
        async with Async(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client:
            with_gate(client, after(600, "commit"))
            stream = await client.messages.create(**LONG, stream=True)
            if use in ("early", "dropped"):
                await anext(stream)
            if use in ("early", "closed"):
                await stream.close()
            del stream
            for _ in range(50):
                if busy(client):  # the loop closes generators that were dropped, and the collector the rest
                    await asyncio.sleep(0.01)
                    gc.collect()
            return busy(client)

    with serve(simulator=Simulator(tokens_per_s=120)) as server:
        assert [] == asyncio.run(main(server))
    (one,) = stories(runtime)
    assert ("abandoned", "estimated") == (one.exchange.result, one.exchange.certainty)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not what() and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert what()


def test_what_ended_while_it_was_held_gives_its_connection_back(server: Server, runtime: Runtime) -> None:
    with sync_client(server, runtime, after(ENDLESS, "commit")) as client:
        streams = [client.messages.create(**LONG, stream=True) for _ in range(3)]
        assert [True] == [one.is_idle() for one in connections(client)]  # one, used three times
        assert {"ok"} == {one.exchange.result for one in stories(runtime)}
        for stream in streams:
            assert "message_stop" == [event.type for event in stream][-1]
            outcome = leastwise.outcome(stream)
            assert outcome is not None
            assert "exact" == outcome.certainty


def test_what_is_dropped_stops_the_upstream(runtime: Runtime) -> None:
    with serve(simulator=Simulator(tokens_per_s=200)) as server:
        with sync_client(server, runtime, after(600, "drop")) as client:
            with pytest.raises(OSError, match="dropped"):
                client.messages.create(**LONG, stream=True)
            assert [] == [one for one in connections(client) if not one.is_closed()]
        wait_for(lambda: bool(server.simulator.books))
        (bill,) = server.simulator.books
        whole = anthropic.Anthropic(api_key="k", base_url=server.url).messages.create(**LONG)
    assert bill.usage.output_tokens < whole.usage.output_tokens


@pytest.mark.parametrize("when", ["held", "checked"])
def test_a_cancelled_call_is_charged_for_what_was_held(runtime: Runtime, when: str) -> None:
    begun, gone = threading.Event(), threading.Event()

    def tell(_: bytes) -> GateSays:
        begun.set()
        return "wait"

    def check() -> None:
        begun.set()
        gone.wait()

    async def main(server: Server) -> None:
        async with Async(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client:
            if when == "held":
                with_gate(client, lambda: tell)
            else:
                with_gate(client, after(ENDLESS, "commit"), check=Run(check, 60.0))
            call = asyncio.ensure_future(client.messages.create(**LONG, stream=True))
            await asyncio.to_thread(begun.wait)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            gone.set()
            assert [] == busy(client)

    speed = 50 if when == "held" else 10**6
    with serve(simulator=Simulator(tokens_per_s=speed)) as server:
        asyncio.run(main(server))
        (one,) = stories(runtime)
        wait_for(lambda: bool(server.simulator.books))
        (bill,) = server.simulator.books
    assert ("abandoned", bill.message_id) == (one.exchange.result, one.entries[0].message_id)
    assert one.exchange.spent_nusd >= bill.nusd > 0


@pytest.mark.parametrize("is_async", [False, True])
def test_a_check_of_the_users_runs_on_what_was_held(
    server: Server, runtime: Runtime, *, is_async: bool
) -> None:
    gate, check = after(ENDLESS, "commit"), Run(lambda: "looked", 60.0)

    async def later() -> tuple[list[Any], list[Any]]:
        async with Async(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client:
            stream = await with_gate(client, gate, check=check).messages.create(**LONG, stream=True)
            return [event async for event in stream], client.told

    if is_async:
        events, told = asyncio.run(later())
    else:
        with sync_client(server, runtime, gate, check=check) as client:
            events, told = list(client.messages.create(**LONG, stream=True)), client.told
    held, said = told
    assert held.facts.is_complete
    assert ("looked", "message_stop") == (said, events[-1].type)


@pytest.mark.parametrize("gate", [after(1, "commit"), after(ENDLESS, "commit")], ids=["relayed", "whole"])
def test_a_recording_hears_every_byte_once(
    server: Server, runtime: Runtime, gate: Gates, tmp_path: Path
) -> None:
    path = tmp_path / "calls.jsonl"
    with sync_client(server, runtime, gate) as client:
        recording: Any = with_gate(leastwise.record(client, path), gate)
        with recording.messages.stream(**LONG) as stream:
            final = stream.get_final_message()
        with recording.messages.with_streaming_response.create(**LONG) as response:
            whole = json.loads(response.read())
    first, second = [json.loads(line)["response"] for line in path.read_text().splitlines()]
    assert [block.text for block in final.content if block.type == "text"] == [
        block["text"] for block in first["content"] if block["type"] == "text"
    ]
    assert (final.usage.output_tokens, whole) == (first["usage"]["output_tokens"], second)
