"""Listening to an SDK response while the caller reads it.

The SDK reads a stream, however the caller asked for it, through its response's
`iter_bytes` (or `aiter_bytes`). `attach` gives the response object a subclass of its
own class in which these tell listeners of every chunk on the way, and of the end.
The objects stay the SDK's own; no byte changes.

`Reading` reads a response before the caller does. The bytes are put back where they came from, below
everything that the SDK and its HTTP library do with them, so the caller's response is as if unread.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import cache
from typing import Any, Protocol

import anthropic

from leastwise.errors import UpstreamFailure
from leastwise.sdk.responses import http


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


class Reading:
    """Reads a response before the caller does, who gets the same bytes again.

    An iterator, sync or async as the response is, of its bytes as `iter_bytes` gives them. At their end
    the connection is given back, and the caller's response stays as it was; `close` closes both.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        self._chunks: Any = None

    def __next__(self) -> bytes:
        if self._chunks is None:
            chunks = self._begin().read()
            self._chunks = self._twin(chunks).iter_bytes() if self._is_encoded else chunks
        try:
            chunk: bytes = next(self._chunks)
        except StopIteration:
            raise
        except Exception as error:
            self._response.stream.close()
            raise self._broken(error) from error
        return chunk

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            chunks = self._begin().aread()
            self._chunks = self._twin(chunks).aiter_bytes() if self._is_encoded else chunks
        try:
            chunk: bytes = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            await self._response.stream.aclose()
            raise self._broken(error) from error
        return chunk

    def close(self) -> None:
        """Close the response: no more bytes are sent."""
        self._response.close()

    async def aclose(self) -> None:
        """Close the response: no more bytes are sent."""
        await self._response.aclose()

    def _broken(self, error: Exception) -> UpstreamFailure:
        request = self._response.request
        if isinstance(error, http.RequestError):
            error.request = request  # as where the caller reads
        told: Exception = error
        if isinstance(error, http.TransportError):  # nobody is reading yet: the SDK's, as of any request
            timed_out = isinstance(error, http.TimeoutException)
            told = (anthropic.APITimeoutError if timed_out else anthropic.APIConnectionError)(request=request)
            told.__cause__ = error
        return UpstreamFailure(told)

    def _begin(self) -> _Ahead:
        self._response.stream = ahead = _Ahead(self._response.stream)
        return ahead

    @property
    def _is_encoded(self) -> bool:
        return "content-encoding" in self._response.headers

    def _twin(self, chunks: Any) -> Any:
        """Return a response of the same bytes, which decodes them as the caller's will."""
        own = self._response
        return http.Response(own.status_code, headers=own.headers, content=chunks, request=own.request)


class _Ahead(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]  # of either library
    """The stream of a response that was read ahead: whoever reads it gets that part again, then the rest."""

    def __init__(self, stream: Any) -> None:
        self._under = stream
        self._source: Any = None
        self._read: deque[bytes] = deque()
        self._error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what else the SDK and its library look for in a stream: timings, a trace."""
        return getattr(self._under, name)

    def read(self) -> Iterator[bytes]:
        """Yield the bytes as they come."""
        self._source = iter(self._under)
        try:
            for chunk in self._source:
                self._read.append(chunk)
                yield chunk
        except Exception as error:
            self._error = error  # for whoever reads this far
            raise
        self._under.close()

    async def aread(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come."""
        self._source = aiter(self._under)
        try:
            async for chunk in self._source:
                self._read.append(chunk)
                yield chunk
        except Exception as error:
            self._error = error  # for whoever reads this far
            raise
        await self._under.aclose()

    def __iter__(self) -> Iterator[bytes]:
        while self._read:
            yield self._read.popleft()
        if self._error is not None:
            raise self._error
        yield from self._source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._read:
            yield self._read.popleft()
        if self._error is not None:
            raise self._error
        async with aclosing(self._source) as rest:
            async for chunk in rest:
                yield chunk

    def close(self) -> None:
        self._under.close()

    async def aclose(self) -> None:
        await self._under.aclose()
