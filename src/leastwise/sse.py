"""Server-sent events, and the tap that counts a stream without touching it.

`Events` splits bytes into events; `Tap` feeds on the same bytes that are relayed
to the caller and keeps what the ledger needs: who answers, the usage reported so
far, whether the stream ended properly. Any split of the bytes gives the same
result. Content deltas are measured, not decoded: only the few events that carry
facts (`message_start`, `content_block_start`, `message_delta`, `message_stop`,
`error`) are parsed.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from leastwise.messages import JSON, Facts, text_of

_DECODE: Final = msgspec.json.Decoder()
_FACTUAL: Final = frozenset(
    {"message_start", "content_block_start", "message_delta", "message_stop", "error"}
)
_BOM: Final = b"\xef\xbb\xbf"
_DELTA_OVERHEAD_BYTES: Final = len(
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}'
)


class Event(NamedTuple):
    """One event: its name ("" when the stream gives none) and its data, lines joined by a newline."""

    name: str
    data: bytes


class Events:
    """Bytes in, events out; keeps an unfinished event until its end arrives."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._skip_newline = False
        self._is_first_line = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that this chunk completes."""
        events: list[Event] = []
        if self._skip_newline and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF that was split between chunks
            self._skip_newline = False
        elif chunk:
            self._skip_newline = False
        if not chunk:
            return events
        self._skip_newline = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = chunk.split(b"\n")
        self._line += first
        for following in others:
            self._end_line(bytes(self._line), events)
            self._line[:] = following
        return events

    def _end_line(self, line: bytes, events: list[Event]) -> None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(Event(self._name, b"\n".join(self._data)))
            self._name, self._data = "", []
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")


class Tap:
    """Counts an answer that passes by as bytes; `facts` is what is known so far.

    Whatever passes, it never raises: what cannot be read cannot be counted.

    Args:
        is_stream: Whether the bytes are server-sent events; else one JSON message.

    Attributes:
        facts: Known so far.
        error_type: The API's name of an error that the answer reports, or "".
    """

    def __init__(self, *, is_stream: bool = True) -> None:
        self.facts = Facts()
        self.error_type = ""
        self._events = Events() if is_stream else None
        self._body = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Count these bytes."""
        if self._events is None:
            self._body += chunk
            return
        for event in self._events.feed(chunk):
            self._read(event)

    def finish(self) -> Facts:
        """Return the final facts, once no more bytes will come."""
        if self._events is None and not self.facts.is_complete:
            message = _object(bytes(self._body))
            if message.get("type") == "error":
                self._note(message)
            elif message:
                self.facts = Facts.read(message)
        return self.facts

    def _read(self, event: Event) -> None:
        if event.name not in _FACTUAL:
            if event.name == "content_block_delta":
                text_bytes = max(0, len(event.data) - _DELTA_OVERHEAD_BYTES)
                self.facts = replace(self.facts, visible_bytes=self.facts.visible_bytes + text_bytes)
            return
        members = _object(event.data)
        match event.name:
            case "message_start":
                self.facts = replace(Facts.read(_member(members, "message")), is_complete=False)
            case "content_block_start":
                block = _member(members, "content_block")
                if block.get("type") == "tool_use" and text_of(block, "id"):
                    ids = (*self.facts.tool_use_ids, text_of(block, "id"))
                    self.facts = replace(self.facts, tool_use_ids=ids)
            case "message_delta":
                delta = _member(members, "delta")
                self.facts = replace(
                    self.facts,
                    stop_reason=text_of(delta, "stop_reason") or self.facts.stop_reason,
                    usage=self.facts.usage.merge(members.get("usage")),
                )
            case "message_stop":
                self.facts = replace(self.facts, is_complete=True)
            case _:
                self._note(members)

    def _note(self, members: dict[str, JSON]) -> None:
        self.error_type = text_of(_member(members, "error"), "type") or "error"


def _object(data: bytes) -> dict[str, JSON]:
    """Return a JSON object, empty when the data is something else."""
    try:
        value = _DECODE.decode(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _member(members: dict[str, JSON], name: str) -> dict[str, JSON]:
    """Return a member that should be an object, empty when it is something else."""
    value = members.get(name)
    return value if isinstance(value, dict) else {}


def encode(name: str, data: bytes) -> bytes:
    """Return one event as bytes on the wire."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def assemble(body: bytes) -> dict[str, JSON]:
    """Return the message that a whole stream tells, as the API would have given it in one piece.

    Text, tool inputs and thinking are joined from their deltas; a tool input that is no JSON stays text.
    What cannot be read is left out; empty where no message begins.
    """
    message: dict[str, JSON] = {}
    blocks: dict[int, dict[str, JSON]] = {}
    parts: dict[tuple[int, str], list[str]] = {}
    for event in Events().feed(body + b"\n\n"):
        members = _object(event.data)
        match event.name:
            case "message_start":
                message = dict(_member(members, "message"))
            case "content_block_start":
                blocks[_index(members)] = dict(_member(members, "content_block"))
            case "content_block_delta":
                delta = _member(members, "delta")
                name = _GROWS.get(text_of(delta, "type"), "")
                parts.setdefault((_index(members), name), []).append(text_of(delta, name))
            case "message_delta":
                message.update(_member(members, "delta"))
                message["usage"] = {**_member(message, "usage"), **_member(members, "usage")}
            case _:
                continue
    for (index, name), grown in parts.items():
        if name:
            block = blocks.setdefault(index, {})
            block.update(_joined(name, text_of(block, name) + "".join(grown)))
    if message:
        message["content"] = [blocks[index] for index in sorted(blocks)]
    return message


_GROWS: Final = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}


def _index(members: dict[str, JSON]) -> int:
    index = members.get("index")
    return index if isinstance(index, int) else 0


def _joined(name: str, text: str) -> dict[str, JSON]:
    """Return the member that grown parts make: a tool's input is decoded."""
    if name != "partial_json":
        return {name: text}
    try:
        return {"input": _DECODE.decode(text)} if text else {}
    except (ValueError, RecursionError):
        return {"input": text}
