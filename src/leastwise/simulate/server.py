"""The simulated API over HTTP: an ASGI application, and a server in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import uvicorn

from leastwise.simulate.api import Simulator
from leastwise.simulate.response import Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_GRACE_S: Final = 1


def app(simulator: Simulator) -> Application:
    """Return an ASGI application that answers as `simulator` does, at its pace."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if body is None:
            return
        query = scope["query_string"].decode("latin-1")
        path = f"{scope['path']}?{query}" if query else scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        response = simulator.handle(scope["method"], path, headers, body)
        try:
            await _send(response, receive, send)
        finally:
            response.close()

    return answer


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, or None when the client left before sending it."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _send(response: Response, receive: Receive, send: Send) -> None:
    left = asyncio.create_task(_until_left(receive))
    try:
        await _pause(response.wait_s, left)
        if left.done():
            return
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        for chunk in response.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await _pause(response.wait_s, left)
            if left.done():
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        left.cancel()


async def _until_left(receive: Receive) -> None:
    await receive()  # once the body is whole, nothing but a disconnect can come


async def _pause(seconds: float, left: asyncio.Task[None]) -> None:
    """Wait, but not for a client that has left; without a wait, let the loop notice that it left."""
    if seconds > 0:
        await asyncio.wait({left}, timeout=seconds)
    else:
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Server:
    """A simulated API that is being served.

    Attributes:
        url: Its base URL, such as `http://127.0.0.1:49152`.
        simulator: What answers.
    """

    url: str
    simulator: Simulator


@contextmanager
def serve(port: int = 0, host: str = "127.0.0.1", simulator: Simulator | None = None) -> Iterator[Server]:
    """Serve a simulated API from a thread while the context is open; the books are final when it closes.

    Args:
        port: 0 takes a free one.
        host: Address to bind.
        simulator: What answers; by default a new one.

    Raises:
        OSError: the address cannot be bound.
    """
    simulator = simulator or Simulator()
    listener = _listen(host, port)
    # Requests queue in the listening socket until the thread takes them: nothing to wait for here.
    server = uvicorn.Server(_config(simulator))
    thread = threading.Thread(target=server.run, args=([listener],), name="leastwise-simulate", daemon=True)
    thread.start()
    try:
        yield Server(_url(listener), simulator)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def run(
    host: str = "127.0.0.1",
    port: int = 8377,
    simulator: Simulator | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a simulated API until the process is told to stop.

    Args:
        host: Address to bind.
        port: 0 takes a free one.
        simulator: What answers; by default a new one, which keeps the last thousand requests.
        on_ready: Called with the base URL once requests are accepted.

    Raises:
        OSError: the address cannot be bound.
    """
    with _listen(host, port) as listener, suppress(KeyboardInterrupt):
        if on_ready is not None:
            on_ready(_url(listener))
        uvicorn.Server(_config(simulator or Simulator(keep=1_000))).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _config(simulator: Simulator) -> uvicorn.Config:
    return uvicorn.Config(
        app(simulator),
        lifespan="off",
        access_log=False,
        log_level="critical",  # a connection cut on demand is not an error of the server's
        log_config=None,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
