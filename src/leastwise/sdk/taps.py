"""Listening to an SDK response while the caller reads it.

The SDK reads a stream, however the caller asked for it, through its response's
`iter_bytes` (or `aiter_bytes`). `attach` gives the response object a subclass of its
own class in which these tell listeners of every chunk on the way, and of the end.
The objects stay the SDK's own; no byte changes.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any, Protocol

from leastwise.errors import UpstreamFailure


class Listener(Protocol):
    """Hears a response: its bytes, then one end."""

    def feed(self, chunk: bytes) -> None:
        """Hear the next bytes."""

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """Hear that the last byte has passed, or that `failure` cut it short."""

    def leave(self) -> None:
        """Hear that the caller closed the response, read to its end or not."""

    def abandon(self) -> None:
        """Hear that the response was dropped; may come after any other end."""


def attach(response: Any, listener: Listener) -> None:
    """Have `listener` hear `response` from now on."""
    if not isinstance(response, _Tapped):
        kind: type = type(response)
        response.__class__ = _tapped(kind)
        response.leastwise_listeners = []
        response.leastwise_is_pulling = False
        _close_when_dropped(response)
    response.leastwise_listeners.append(listener)
    weakref.finalize(response, listener.abandon)


def _close_when_dropped(response: Any) -> None:
    """Give the connection back when a response that nobody began to read is dropped; the SDK would not."""
    connection: Any = getattr(
        response.stream, "_stream", None
    )  # the transport's own stream knows no response
    if hasattr(connection, "close"):
        weakref.finalize(response, connection.close)


def listeners_of(response: Any) -> list[Listener]:
    """Return who hears `response`."""
    return list(getattr(response, "leastwise_listeners", ()))


@cache
def _tapped(kind: type) -> type:
    return type(kind.__name__, (_Tapped, kind), {})


class _Tapped:
    """Tells the listeners; mixed in before the SDK's response class.

    The library closes a response by itself when its last byte is read, from inside
    the read; `leastwise_is_pulling` tells that close from the caller's.
    """

    leastwise_listeners: list[Listener]
    leastwise_is_pulling: bool

    def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the library's chunks."""
        chunks = super().iter_bytes(*args, **kwargs)  # type: ignore[misc]  # the class mixed with
        while True:
            self.leastwise_is_pulling = True
            try:
                chunk = next(chunks)
            except StopIteration:
                break
            except Exception as error:
                self._tell_end(UpstreamFailure(error))
                raise
            finally:
                self.leastwise_is_pulling = False
            for listener in self.leastwise_listeners:
                listener.feed(chunk)
            yield chunk
        self._tell_end(None)

    async def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        """Yield the library's chunks."""
        chunks = super().aiter_bytes(*args, **kwargs)  # type: ignore[misc]  # the class mixed with
        while True:
            self.leastwise_is_pulling = True
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except Exception as error:
                self._tell_end(UpstreamFailure(error))
                raise
            finally:
                self.leastwise_is_pulling = False
            for listener in self.leastwise_listeners:
                listener.feed(chunk)
            yield chunk
        self._tell_end(None)

    def close(self) -> None:
        """Close, and say so."""
        try:
            super().close()  # type: ignore[misc]  # the class mixed with
        finally:
            self._left()

    async def aclose(self) -> None:
        """Close, and say so."""
        try:
            await super().aclose()  # type: ignore[misc]  # the class mixed with
        finally:
            self._left()

    def _tell_end(self, failure: UpstreamFailure | None) -> None:
        for listener in self.leastwise_listeners:
            listener.finish(failure)

    def _left(self) -> None:
        if not self.leastwise_is_pulling:
            for listener in self.leastwise_listeners:
                listener.leave()
