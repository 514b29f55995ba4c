"""The HTTP upstream against the simulated API, and against servers that do worse."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from leastwise.errors import UpstreamFailure
from leastwise.messages import Reply
from leastwise.simulate import Server, serve
from leastwise.steps import Send
from leastwise.upstream import AnswerError, HttpUpstream
from tests.kit import HAIKU, request

T = TypeVar("T")
SEND = Send("E", "anthropic", request(HAIKU))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def using(url: str, use: Callable[[HttpUpstream], Awaitable[T]], key: str = "k") -> T:
    async def run() -> T:
        async with HttpUpstream(url, key, timeout_s=10) as upstream:
            return await use(upstream)

    return asyncio.run(run())


def send(url: str, key: str = "k") -> Reply:
    return using(url, lambda upstream: upstream(SEND), key)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve one connection these very bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join()
    listener.close()


def http(body: str, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    return (head + body).encode()


def failure(answer: bytes) -> UpstreamFailure:
    with answering(answer) as url, pytest.raises(UpstreamFailure) as raised:
        send(url)
    return raised.value


def test_a_message_comes_back_with_its_facts(server: Server) -> None:
    reply = send(server.url + "/")
    assert (HAIKU, True) == (reply.facts.model, reply.facts.is_complete)
    assert reply.facts.message_id == reply.payload["id"]
    assert reply.request_id.startswith("req_")
    assert reply.facts.usage.output_tokens > 0
    assert SEND.request.body() == server.simulator.requests[-1].body


def test_models_are_listed(server: Server) -> None:
    assert HAIKU in {row["id"] for row in using(server.url, lambda upstream: upstream.models())}


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_an_error_keeps_its_status_words_and_hints(server: Server, status: int) -> None:
    server.simulator.fail_next(status=status, headers={"Retry-After": "7"})
    with pytest.raises(UpstreamFailure) as raised:
        send(server.url)
    failed = raised.value
    assert (status, "7") == (failed.status, failed.headers["retry-after"])
    assert failed.request_id == failed.headers["request-id"]
    assert str(failed.cause).startswith(f"{status} [simulated]")


def test_a_missing_key_is_the_servers_to_refuse(server: Server) -> None:
    with pytest.raises(UpstreamFailure) as raised:
        send(server.url, key="")
    assert 401 == raised.value.status
    assert "x-api-key" not in server.simulator.requests[-1].headers


def test_a_refused_connection_was_never_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(UpstreamFailure) as raised:
        send(url)
    assert (None, False) == (raised.value.status, raised.value.was_sent)


@pytest.mark.parametrize("url", ["no-url", "ftp://127.0.0.1", "http://", "http://[::bad"])
def test_what_is_no_address_was_never_sent(url: str) -> None:
    with pytest.raises(UpstreamFailure) as raised:
        send(url)
    assert not raised.value.was_sent


def test_a_dropped_answer_may_have_been_billed(server: Server) -> None:
    server.simulator.drop_next()
    with pytest.raises(UpstreamFailure) as raised:
        send(server.url)
    assert (None, True) == (raised.value.status, raised.value.was_sent)


@pytest.mark.parametrize("body", ["{oops", "", "[]", "null", "<html>"])
def test_an_answer_that_is_no_message_may_have_been_billed(body: str) -> None:
    failed = failure(http(body))
    assert (None, True) == (failed.status, failed.was_sent)
    assert isinstance(failed.cause, AnswerError)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": "model not found"}', "404 model not found"),
        ('{"error": {"message": "gone"}}', "404 gone"),
        ('{"error": {"message": 5}}', "404 Not Found"),
        ('{"error": ["a"]}', "404 Not Found"),
        ('{"detail": "x"}', "404 Not Found"),
        ("<html>", "404 Not Found"),
    ],
)
def test_errors_of_other_servers_are_read_as_far_as_they_go(body: str, words: str) -> None:
    failed = failure(http(body, "404 Not Found"))
    assert (404, words) == (failed.status, str(failed.cause))


def test_a_list_of_models_in_another_shape_is_empty() -> None:
    with answering(http('{"data": 5}')) as url:
        assert [] == using(url, lambda upstream: upstream.models())


def test_a_redirect_does_not_carry_the_key_elsewhere(server: Server) -> None:
    before = len(server.simulator.requests)
    failed = failure(http("", "307 Temporary Redirect", f"location: {server.url}/v1/messages\r\n"))
    assert "307 Temporary Redirect" == str(failed.cause)
    assert before == len(server.simulator.requests)


def test_the_environments_proxy_is_not_asked_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert send(server.url).facts.is_complete
    assert send(server.url.replace("127.0.0.1", "localhost")).facts.is_complete
    with pytest.raises(UpstreamFailure) as raised:
        send("http://upstream.invalid")
    assert "127.0.0.1:9" in str(raised.value.cause)


def test_no_secret_is_in_what_is_raised_or_shown(server: Server) -> None:
    marker = "sk-the-marker"
    upstream = HttpUpstream(server.url, marker)
    server.simulator.fail_next(status=400)
    with pytest.raises(UpstreamFailure) as raised:
        send(server.url, key=marker)
    for shown in (upstream, raised.value, raised.value.cause, raised.value.headers):
        assert marker not in f"{shown!r} {shown}"
