"""An HTTP answer that is produced, and billed, as it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from leastwise.simulate.wire import Piece


class Settle(Protocol):
    """What an answer does when it ends."""

    def __call__(self, produced: int, *, is_cut: bool) -> None:
        """Bill this many output tokens; called once."""


class Response:
    """An HTTP answer whose body is produced as it is read.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        chunks: The body; iterate it once, and call `close` when leaving before its end.
    """

    __slots__ = ("chunks", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], chunks: Body) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks

    @property
    def wait_s(self) -> float:
        """Seconds that a server should wait before it takes the next chunk."""
        return self.chunks.wait_s

    def read(self) -> bytes:
        """Return the whole body, or what is left of it."""
        return b"".join(self.chunks)

    def close(self) -> None:
        """Stop producing; what was produced so far is billed."""
        self.chunks.close()


class Body(Iterator[bytes]):
    """The bytes of an answer; tells once, when it ends, how many tokens were produced."""

    def __init__(
        self,
        parts: Iterator[Piece],
        settle: Settle | None = None,
        *,
        tokens: int = 0,
        wait_s: float = 0.0,
        token_s: float = 0.0,
    ) -> None:
        self.wait_s = wait_s
        self._parts = parts
        self._settle = settle
        self._tokens = tokens
        self._token_s = token_s
        self._coming: Piece | Exception | None = None
        self._look(stall_s=wait_s)

    def _look(self, stall_s: float) -> None:
        """Take the coming piece, whose tokens take their time before it can be sent."""
        try:
            self._coming = next(self._parts)
        except (StopIteration, ConnectionResetError) as end:
            self._coming = end
            self.wait_s = stall_s
        else:
            self.wait_s = stall_s + (self._coming.tokens - self._tokens) * self._token_s

    def __next__(self) -> bytes:
        piece = self._coming
        if not isinstance(piece, Piece):
            self.close()
            raise piece or StopIteration
        self._tokens = piece.tokens
        if piece.is_last:
            self._end(is_cut=False)
        self._look(piece.stall_s)
        return piece.data

    def close(self) -> None:
        """Stop; does nothing when the body has ended."""
        self._parts, self._coming = iter(()), None
        self._end(is_cut=True)

    def _end(self, *, is_cut: bool) -> None:
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(self._tokens, is_cut=is_cut)

    def __del__(self) -> None:
        self.close()  # a stream that was dropped is billed like one that was closed
