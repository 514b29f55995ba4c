"""The real client against the simulated API, over a real loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pydantic
import pytest

from leastwise.simulate import Server, Simulator, serve
from tests.kit import HAIKU, OPUS, Clock
from tests.sdk.majors import http

ASK: Any = [{"role": "user", "content": "Is this spam? Win $1000 now!"}]
DESIGN: Any = [{"role": "user", "content": "Design a queue."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


BODY = b'{"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}'
REQUEST = (
    b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


class Label(pydantic.BaseModel):
    label: Literal["spam", "ham"]
    score: float
    reasons: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(simulator=Simulator(clock=Clock())) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as made:
        yield made


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_create(client: anthropic.Anthropic, server: Server) -> None:
    message = client.messages.create(model=OPUS, max_tokens=100, messages=ASK)

    charge = server.simulator.books[0]
    assert "[simulated] spam" == text_of(message)
    assert (message.id, message._request_id) == (charge.message_id, charge.request_id)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (
        charge.usage.input_tokens,
        charge.usage.output_tokens,
    )
    assert 24 == message.usage.to_dict()["output_tokens_details"]["thinking_tokens"]  # type: ignore[index]


def test_create_asynchronously(server: Server) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="any", max_retries=0) as client:
            create = client.messages.create
            plain = await create(model=OPUS, max_tokens=100, messages=ASK)
            async with client.messages.stream(model=OPUS, max_tokens=100, messages=ASK) as stream:
                streamed = await stream.get_final_message()
        return [text_of(plain), text_of(streamed)]

    assert ["[simulated] spam"] * 2 == asyncio.run(ask())


def test_stream(client: anthropic.Anthropic, server: Server) -> None:
    events = client.messages.create(model=OPUS, max_tokens=4000, messages=DESIGN, stream=True)
    text = "".join(
        event.delta.text
        for event in events
        if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )
    with client.messages.stream(model=OPUS, max_tokens=4000, messages=DESIGN) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text.startswith("[simulated] # Design")
    assert [text, text] == [said, text_of(final)]
    assert [final.usage.output_tokens] * 2 == [
        charge.usage.output_tokens for charge in server.simulator.books
    ]


def test_parse(client: anthropic.Anthropic) -> None:
    message = client.messages.parse(model=HAIKU, max_tokens=200, messages=ASK, output_format=Label)

    assert Label(label="spam", score=0, reasons=[]) == message.parsed_output


def test_tools_there_and_back(client: anthropic.Anthropic) -> None:
    ask: Any = {"role": "user", "content": "What is the weather in Oslo?"}
    call = client.messages.create(model=OPUS, max_tokens=500, messages=[ask], tools=[WEATHER])
    used = call.content[-1]
    assert used.type == "tool_use"

    result: Any = {"type": "tool_result", "tool_use_id": used.id, "content": "18 degrees"}
    final = client.messages.create(
        model=OPUS,
        max_tokens=500,
        tools=[WEATHER],
        messages=[ask, {"role": "assistant", "content": call.content}, {"role": "user", "content": [result]}],
    )

    assert ("tool_use", {"city": "[simulated]"}) == (call.stop_reason, used.input)
    assert ("end_turn", "[simulated] The tool says: 18 degrees") == (final.stop_reason, text_of(final))


def test_streams_a_tool_call(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model=HAIKU, max_tokens=500, messages=ASK, tools=[WEATHER], tool_choice={"type": "any"}
    ) as stream:
        final = stream.get_final_message()

    assert [{"city": "[simulated]"}] == [block.input for block in final.content if block.type == "tool_use"]


def test_beta_messages(client: anthropic.Anthropic) -> None:
    message = client.beta.messages.create(
        model=OPUS,
        max_tokens=100,
        messages=ASK,
        betas=["context-management-2025-06-27"],
        context_management={"edits": []},
    )

    assert "[simulated] spam" == text_of(message)


def test_count_tokens(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=OPUS, messages=ASK, system="Be brief.")

    assert 13 == counted.input_tokens  # 37 bytes / 4 x 1.3 = 12.03


def test_models(client: anthropic.Anthropic) -> None:
    rows = list(client.models.list(limit=5))

    haiku = next(row for row in rows if row.id == HAIKU)
    assert ("haiku", "active", 1_000_000) == (haiku.line, haiku.lifecycle, haiku.max_input_tokens)
    capabilities: Any = haiku.to_dict()["capabilities"]
    assert capabilities["thinking"]["types"]["disabled"]["supported"]
    assert haiku == client.models.retrieve(HAIKU)
    assert len({row.id for row in rows}) == len(rows) > 5


def test_raw_and_streaming_responses(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(model=OPUS, max_tokens=100, messages=ASK)
    with client.messages.with_streaming_response.create(model=OPUS, max_tokens=100, messages=ASK) as streamed:
        parsed = streamed.parse()

    assert raw.headers["request-id"].startswith("req_")
    assert "4000" == raw.headers["anthropic-ratelimit-requests-limit"]
    assert text_of(raw.parse()) == text_of(parsed)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.APIStatusError),
    ],
)
def test_a_fault_becomes_the_clients_error(
    client: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(
            model=OPUS, max_tokens=100, messages=ASK, extra_headers={"x-simulate": f"status={status}"}
        )

    assert status == caught.value.status_code
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")


def test_a_refusal_becomes_the_clients_error(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model=OPUS, max_tokens=100, messages=ASK, thinking={"type": "disabled"})

    assert "invalid_request_error" == caught.value.type
    assert "thinking.type: 'disabled' is not supported by claude-opus-5-5" in str(caught.value)


def test_a_bad_key_is_an_authentication_error(server: Server) -> None:
    with (
        anthropic.Anthropic(base_url=server.url, api_key="invalid") as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model=OPUS, max_tokens=100, messages=ASK)


def test_the_client_retries_what_passes(server: Server) -> None:
    server.simulator.fail_next(headers={"retry-after-ms": "1"})
    with anthropic.Anthropic(base_url=server.url, api_key="any") as client:
        client.messages.create(model=OPUS, max_tokens=100, messages=ASK)

    assert 2 == len(server.simulator.requests)
    assert 1 == len(server.simulator.books)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_dropped_connection(client: anthropic.Anthropic, server: Server, *, stream: bool) -> None:
    def ask() -> None:
        answer: Any = client.messages.create(model=OPUS, max_tokens=100, messages=ASK, stream=stream)
        list(answer)

    server.simulator.drop_next(after_events=3)

    with pytest.raises((http.RemoteProtocolError, anthropic.APIConnectionError)):
        ask()

    assert [True] == [charge.is_cut for charge in server.simulator.books]


def test_a_truncated_stream_ends_without_an_error(client: anthropic.Anthropic, server: Server) -> None:
    server.simulator.truncate_next()

    events = client.messages.create(model=OPUS, max_tokens=100, messages=ASK, stream=True)

    assert "content_block_stop" == [event.type for event in events][-1]


def test_an_error_in_mid_stream(client: anthropic.Anthropic, server: Server) -> None:
    server.simulator.interrupt_next(after_events=3)

    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        list(client.messages.create(model=OPUS, max_tokens=100, messages=ASK, stream=True))


def test_a_stalled_answer_runs_into_the_clients_patience(client: anthropic.Anthropic, server: Server) -> None:
    server.simulator.stall_next(3600)

    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.2).messages.create(model=OPUS, max_tokens=100, messages=ASK)


def test_a_client_that_hangs_up_stops_the_answer_and_pays_for_the_part() -> None:
    slow = Simulator(clock=Clock(), tokens_per_s=20)
    thinking: Any = {"type": "disabled"}
    with (
        serve(simulator=slow) as server,
        anthropic.Anthropic(base_url=server.url, api_key="any") as client,
        client.messages.create(
            model=HAIKU, max_tokens=4000, messages=DESIGN, stream=True, thinking=thinking
        ) as events,
    ):
        next(iter(events))

    charge = slow.books[0]
    assert (1, True) == (len(slow.books), charge.is_cut)
    assert 1 <= charge.usage.output_tokens < 100
    assert 500 * charge.usage.output_tokens + 100 * charge.usage.input_tokens == charge.nusd


def test_closing_the_server_ends_an_answer_that_nobody_ended() -> None:
    arrived = threading.Event()
    slow = Simulator(clock=Clock(), latency_s=3600, answers=lambda _: arrived.set())
    with contextlib.ExitStack() as kept_open, serve(simulator=slow) as server:
        line = kept_open.enter_context(socket.create_connection(address_of(server)))
        line.sendall(REQUEST)
        assert arrived.wait(60)

    assert [True] == [charge.is_cut for charge in slow.books]


def address_of(server: Server) -> tuple[str, int]:
    url = http.URL(server.url)
    assert url.port is not None
    return url.host, url.port


def test_two_servers_do_not_meet(server: Server) -> None:
    with serve() as other, anthropic.Anthropic(base_url=other.url, api_key="any") as client:
        client.messages.create(model=OPUS, max_tokens=100, messages=ASK)

    assert (1, 0) == (len(other.simulator.books), len(server.simulator.books))


def test_a_port_that_is_taken_is_an_error(server: Server) -> None:
    with pytest.raises(OSError, match="in use"), serve(port=address_of(server)[1]):
        pass  # pragma: no cover - not reached


def test_runs_until_it_is_interrupted() -> None:
    program = "from leastwise.simulate import run; run(port=0, on_ready=lambda url: print(url, flush=True))"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        assert process.stdout is not None
        status = http.head(process.stdout.readline().strip()).status_code
        process.send_signal(signal.SIGINT)

    assert (200, 0) == (status, process.returncode)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_serves_over_ipv6_too() -> None:
    with serve(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert 200 == http.head(server.url).status_code
