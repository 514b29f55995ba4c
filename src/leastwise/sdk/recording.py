"""Writing down what a client sends and receives, and nothing else.

One JSON line per message: `at`, `request`, and `response` or `error`, with the task's `tag` and the `betas`
asked for where there are any; `report FILE` and `trial --from FILE` read them. What cannot be written down
is logged, and the caller gets the answer.
Unlike the ledger it holds the text of prompts and answers: the caller asked for that
by name, and the file is readable by its owner only.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from anthropic import AsyncAnthropic

from leastwise.errors import UpstreamFailure
from leastwise.ladder import Task
from leastwise.messages import JSON
from leastwise.sdk import hook
from leastwise.sdk.dropin import betas_in, recast, response_of
from leastwise.sdk.taps import attach
from leastwise.sse import Events

_log: Final = logging.getLogger(__name__)

Client = TypeVar("Client", bound=Any)

_STREAM_TYPE: Final = "text/event-stream"
_DELTA_TEXT: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def record(client: Client, path: str | Path) -> Client:
    """Return a copy of `client` that also appends every message it sends and receives to a file.

    Args:
        client: Any client of the `anthropic` SDK, a Leastwise client too; it is left as it was.
        path: JSON lines; made with mode 0600, appended to when it exists.

    Raises:
        OSError: the file cannot be written; nothing was sent.
    """
    book = _Book(Path(path))
    book.open()
    recording = recast(client, _recording)
    recording.leastwise_book = book
    return recording


class _Book:
    """The file, appended to one whole line at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the file, readable by its owner only."""
        os.close(os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))

    def write(self, request: Mapping[str, JSON], **what: JSON) -> None:
        """Append one line, unless that fails."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            line = msgspec.json.encode({"at": at, "request": request, **what}, enc_hook=str) + b"\n"
            with self._lock, self._path.open("ab") as file:
                file.write(line)
        except (OSError, TypeError, ValueError) as error:  # the caller paid for the answer and gets it
            _log.error("a message is not recorded in %s: %s", self._path, type(error).__name__)


@cache
def _recording(kind: type) -> type:
    is_async = issubclass(kind, AsyncAnthropic.__mro__[1])
    return type(kind.__name__, (_AsyncRecording if is_async else _SyncRecording, kind), {})


class _Recording:
    """What both clients share; mixed in before the client's class."""

    leastwise_book: _Book

    def copy(self, **kwargs: Any) -> Any:
        """Return a copy with other options, which records too; see the SDK's `copy`."""
        copied = super().copy(**kwargs)  # type: ignore[misc]  # the class mixed with
        copied.leastwise_book = self.leastwise_book
        return copied

    with_options = copy


class _SyncRecording(_Recording, hook.Sync):
    """Writes down each message."""

    def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:
        """Answer a message and write it down."""
        page = _Page(self.leastwise_book, options, task)
        try:
            payload = super().leastwise_message(options, task, send)
        except BaseException as error:
            page.fail(error)
            raise
        return page.answer(payload)


class _AsyncRecording(_Recording, hook.Async):
    """The same on an event loop."""

    async def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:
        """Answer a message and write it down."""
        page = _Page(self.leastwise_book, options, task)
        try:
            payload = await super().leastwise_message(options, task, send)
        except BaseException as error:
            page.fail(error)
            raise
        return page.answer(payload)


class _Page:
    """One message being written down; also hears a live response."""

    def __init__(self, book: _Book, options: Any, task: Task | None) -> None:
        self._book = book
        self._request: Mapping[str, JSON] = options.json_data
        about = {"tag": task.tag if task is not None else None, "betas": _betas_of(options)}
        self._about = {name: value for name, value in about.items() if value}
        self._is_stream = False
        self._body = bytearray()
        self._is_open = True

    def fail(self, error: BaseException) -> None:
        """Write down that no answer came."""
        self._write(error=f"{type(error).__name__}: {error}")

    def answer(self, payload: Any) -> Any:
        """Write down the answer, now or when it has been read; return it."""
        response = response_of(payload)
        if response is None:
            self._write(
                response=payload.to_dict(mode="json", warnings=False)
                if hasattr(payload, "to_dict")
                else payload
            )
        elif response.is_stream_consumed:
            self._write(response=_decoded(response.content))
        else:
            self._is_stream = _STREAM_TYPE in response.headers.get("content-type", "")
            attach(response, self)
        return payload

    def feed(self, chunk: bytes) -> None:
        """Keep the next bytes."""
        self._body += chunk

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """Write down what came."""
        if failure is not None:
            self.fail(failure.cause)
        elif self._is_stream:
            self._write(response=_assembled(bytes(self._body)))
        else:
            self._write(response=_decoded(bytes(self._body)))

    def leave(self) -> None:
        """Write down what came until the caller left."""
        if self._is_open:
            self._write(response=_assembled(bytes(self._body)) if self._is_stream else None)

    abandon = leave

    def _write(self, **what: JSON) -> None:
        if self._is_open:
            self._is_open = False
            self._book.write(self._request, **self._about, **what)


def _betas_of(options: Any) -> list[str]:
    """Return the betas that a request asks for by a header of its own."""
    headers = options.headers if isinstance(options.headers, Mapping) else {}
    return betas_in({name.lower(): value for name, value in headers.items()})


def _decoded(body: bytes) -> JSON:
    """Return decoded JSON, or as text what is none."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _assembled(body: bytes) -> dict[str, JSON]:
    """Return the message that a stream's events add up to, as far as they came."""
    message: dict[str, JSON] = {}
    blocks: dict[int, dict[str, JSON]] = {}
    partial: dict[int, str] = {}
    for event in Events().feed(body):
        data = _decoded(event.data)
        if not isinstance(data, dict):
            continue
        index = data.get("index", 0)
        match event.name:
            case "message_start":
                message = data["message"]
            case "content_block_start":
                blocks[index] = data["content_block"]
            case "content_block_delta" if index in blocks:
                delta = data["delta"]
                if delta["type"] == "input_json_delta":
                    partial[index] = partial.get(index, "") + delta["partial_json"]
                elif delta["type"] in _DELTA_TEXT:
                    name = _DELTA_TEXT[delta["type"]]
                    blocks[index][name] = blocks[index].get(name, "") + delta[name]
            case "message_delta":
                message |= data.get("delta") or {}
                message["usage"] = {**message.get("usage", {}), **(data.get("usage") or {})}
    for index, text in partial.items():
        blocks[index]["input"] = _decoded(text.encode() or b"{}")
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}
