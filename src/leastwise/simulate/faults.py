"""Faults on demand: what an upstream can do wrong, once, when a test asks for it.

A fault comes from a method of `Simulator` or, for a client in another process, from
the request header `x-simulate`, such as `status=529; retry-after=1` or `cut=3`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from leastwise.simulate.rules import refuse
from leastwise.simulate.wire import ENCODE, Piece
from leastwise.sse import encode as encode_event

HEADER: Final = "x-simulate"
ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_LAST_EVENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: Answer this status instead; 0: no.
        error_type: The error's type; "": the one that goes with the status.
        headers: Sent with the error, such as `retry-after`.
        cut_after: Drop the connection after that many events (a plain answer: in its body).
        error_after: Send an `error` event after that many events, and end the stream.
        stall_s: Say nothing for so long: after the first event, or before a plain answer.
        is_truncated: End a stream without `message_delta` and `message_stop`; a plain body in its middle.
        is_malformed: Send a body, or one event, that is not JSON.
    """

    status: int = 0
    error_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    error_after: int | None = None
    stall_s: float = 0.0
    is_truncated: bool = False
    is_malformed: bool = False

    @classmethod
    def read(cls, header: str) -> Fault:
        """Read the header's value; what it does not know is a header of the error.

        Raises:
            RefusedError: names the part that makes no sense.
        """
        values = dict(_pair(part) for part in header.split(";") if part.strip())
        try:
            return cls(
                status=int(values.pop("status", "0")),
                error_type=values.pop("type", ""),
                cut_after=_whole(values.pop("cut", None)),
                error_after=_whole(values.pop("error", None)),
                stall_s=float(values.pop("stall", "0")),
                is_truncated=values.pop("truncate", None) is not None,
                is_malformed=values.pop("malformed", None) is not None,
                headers=values,
            )
        except ValueError as error:
            refuse(f"{HEADER}: {header!r}: {error}")

    def apply(self, pieces: Iterator[Piece], *, is_stream: bool) -> Iterator[Piece]:
        """Yield the pieces as this fault lets them through.

        Raises:
            ConnectionResetError: where the connection is to be dropped.
        """
        return self._spoil(pieces) if is_stream else self._spoil_body(next(pieces))

    def _spoil_body(self, whole: Piece) -> Iterator[Piece]:
        half = whole.data[: len(whole.data) // 2]
        if self.cut_after is not None:
            yield Piece(half, whole.tokens)
            raise ConnectionResetError(_CUT)
        yield Piece(half, whole.tokens) if self.is_truncated or self.is_malformed else whole

    def _spoil(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        held: list[Piece] = []
        for number, piece in enumerate(pieces):
            if number == self.cut_after:
                raise ConnectionResetError(_CUT)
            if number == self.error_after:
                yield Piece(_ERROR_EVENT, piece.tokens)
                return
            data = piece.data
            if self.is_malformed and data.startswith(b"event: content_block_delta"):
                data = data.replace(b"}", b"")
            held.append(piece._replace(data=data, stall_s=self.stall_s if number == 0 else 0.0))
            if not self.is_truncated or len(held) > _LAST_EVENTS:
                yield held.pop(0)


_CUT: Final = f"cut on demand ({HEADER})"
_ERROR_EVENT: Final = encode_event(
    "error", ENCODE({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
)


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip()


def _whole(value: str | None) -> int | None:
    return None if value is None else int(value)
