"""Requests, replies and usage of the Messages API, read without re-declaring it.

The body stays the caller's. A `Request` keeps the top-level members in the order
and bytes received, decodes one only when somebody asks for it, and changes only
what `replace` names: an untouched request goes out as the very bytes that came
in; a changed one is emitted again at its top level, compact, with every other
value's bytes as they were. Unknown members, content blocks and usage fields pass.

A request may also come as keyword arguments (the drop-in client). Then there are
no received bytes, and `changes` tells the adapter which arguments to replace.

Sources: https://docs.claude.com/en/api/messages and .../messages-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Self

import msgspec

from leastwise.errors import RequestError

JSON = Any  # a decoded JSON value whose shape belongs to the API, not to us

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _plain(value: object) -> JSON:
    """Return a value of a subclass of a JSON type (`Markup`, `numpy.float64`) as that type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    message = f"a {type(value).__name__} is no JSON"
    raise TypeError(message)


_ENCODE: Final = msgspec.json.Encoder(enc_hook=_plain)
_DECODE: Final = msgspec.json.Decoder()

#: Stands in `changes` for a member that is to be left out.
LEFT_OUT: Final = msgspec.UNSET

#: More than any one call can use; a larger count is garbage, and would overflow a ledger's sums.
MOST_TOKENS: Final = 10**9


class Request:
    """One Messages request: top-level members, and what surrounds the body.

    Immutable by convention: `replace` makes a changed copy.

    Attributes:
        endpoint: URL path, such as `/v1/messages`.
        version: The caller's `anthropic-version`, "" when unknown.
        betas: The caller's `anthropic-beta` values, sorted.
        changes: Top-level members that differ from what the caller sent, `LEFT_OUT` for one not sent.
        notes: What readers of the prompt have worked out once, for the next of them.
    """

    __slots__ = ("_decoded", "_raw", "_received", "betas", "changes", "endpoint", "notes", "version")

    def __init__(
        self,
        raw: Mapping[str, msgspec.Raw],
        decoded: dict[str, JSON],
        received: bytes | None,
        *,
        endpoint: str = "/v1/messages",
        version: str = "",
        betas: Sequence[str] = (),
        changes: Mapping[str, JSON] | None = None,
    ) -> None:
        self._raw = raw
        self._decoded = decoded
        self._received = received
        self.endpoint = endpoint
        self.version = version
        self.betas = tuple(sorted(betas))
        self.changes: Mapping[str, JSON] = changes or {}
        self.notes: dict[str, Any] = {}

    @classmethod
    def parse(
        cls,
        body: bytes,
        *,
        endpoint: str = "/v1/messages",
        version: str = "",
        betas: Sequence[str] = (),
    ) -> Self:
        """Read a body as received.

        Raises:
            RequestError: not a JSON object, not UTF-8, or a top-level name occurs twice.
        """
        try:
            body.decode()  # the decoder skips over strings without looking at their bytes
            raw = _MEMBERS.decode(body)
        except (ValueError, RecursionError) as error:
            message = f"the body is not a JSON object in UTF-8: {error}"
            raise RequestError(message) from None
        # A compact body that encodes back to itself has no duplicate names; only others are walked.
        if _ENCODE.encode(raw) != body:
            _refuse_duplicates(body)
        request = cls(raw, {}, body, endpoint=endpoint, version=version, betas=betas)
        _check(request)
        return request

    @classmethod
    def of(
        cls,
        params: Mapping[str, JSON],
        *,
        endpoint: str = "/v1/messages",
        version: str = "",
        betas: Sequence[str] = (),
    ) -> Self:
        """Read a request given as already decoded JSON members (the drop-in client's form).

        Raises:
            RequestError: `model` or `messages` is missing or of the wrong kind.
        """
        request = cls({}, dict(params), None, endpoint=endpoint, version=version, betas=betas)
        _check(request)
        return request

    def __contains__(self, name: str) -> bool:
        """Tell whether a top-level member is present."""
        return name in self._decoded or name in self._raw

    def __iter__(self) -> Iterator[str]:
        """Iterate the top-level names, in the order received."""
        return iter(self.names)

    @property
    def names(self) -> KeysView[str]:
        """The top-level names, in the order received."""
        return (self._raw or self._decoded).keys()

    def __repr__(self) -> str:
        """Name the model and the members, never their text."""
        return f"<Request {self.model!r} {sorted(self)}>"

    def get(self, name: str, default: JSON = None) -> JSON:
        """Return a top-level member decoded, or `default` when it is absent.

        Raises:
            RequestError: the member cannot be decoded, such as a number beyond all bounds.
        """
        if name in self._decoded:
            return self._decoded[name]
        raw = self._raw.get(name)
        if raw is None:
            return default
        try:
            value = self._decoded[name] = _DECODE.decode(raw)
        except (ValueError, RecursionError) as error:
            message = f"{name}: cannot be read: {error}"
            raise RequestError(message) from None
        return value

    def size(self, name: str) -> int | None:
        """Return how many bytes a top-level member was received in; None when it did not come as bytes."""
        raw = self._raw.get(name)
        return None if raw is None else memoryview(raw).nbytes

    def raw(self, name: str) -> bytes:
        """Return the bytes of a top-level member: as received, else as they would be sent.

        Raises:
            KeyError: it is absent.
            TypeError: a value that JSON cannot hold.
        """
        raw = self._raw.get(name)
        return _ENCODE.encode(self._decoded[name]) if raw is None else bytes(raw)

    def spells(self, name: str, text: str) -> bool:
        """Tell whether the bytes in which a top-level member was received contain `text`."""
        raw = self._raw.get(name)
        return raw is not None and text.encode() in bytes(raw)

    @property
    def model(self) -> str:
        """The model asked for: a model id, `auto`, or a tier's name; "" of a batch, which has many."""
        model: str = self._decoded.get("model", "")  # decoded when the request was checked
        return model

    @property
    def messages(self) -> list[dict[str, JSON]]:
        """The conversation, decoded."""
        return list(self.get("messages"))

    @property
    def max_tokens(self) -> int | None:
        """The caller's cap on output tokens, thinking included."""
        value = self.get("max_tokens")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def is_stream(self) -> bool:
        """Whether the caller wants server-sent events."""
        return self.get("stream") is True

    def replace(self, *, betas: Sequence[str] | None = None, **changes: JSON) -> Self:
        """Return a copy in which the named top-level members are these, in place, appended or `LEFT_OUT`."""
        decoded = {**self._decoded, **changes}
        raw = dict(self._raw)
        if self._received is not None:
            raw |= {
                name: msgspec.Raw(_ENCODE.encode(value))
                for name, value in changes.items()
                if value is not LEFT_OUT
            }
        for name in [name for name, value in changes.items() if value is LEFT_OUT]:
            decoded.pop(name)
            raw.pop(name, None)
        changed = type(self)(
            raw,
            decoded,
            self._received,
            endpoint=self.endpoint,
            version=self.version,
            betas=self.betas if betas is None else betas,
            changes={**self.changes, **changes},
        )
        if changes.keys() <= _NO_PROMPT:
            changed.notes = self.notes
        return changed

    def body(self) -> bytes:
        """Return the bytes to send: as received when nothing changed (see the module's text)."""
        if self._received is None:
            return _ENCODE.encode(self._decoded)
        return _ENCODE.encode(self._raw) if self.changes else self._received


class _Name(str):
    """A top-level name with a hash of its own, so that a decoded object keeps all of one name."""

    __slots__ = ()
    __hash__ = object.__hash__


#: Members that are no part of the prompt.
_NO_PROMPT: Final = frozenset(
    {
        "context_management",
        "diagnostics",
        "max_tokens",
        "model",
        "output_config",
        "stream",
        "temperature",
        "thinking",
        "top_k",
        "top_p",
    }
)
_NAMES: Final = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=lambda _, name: _Name(name))


def _refuse_duplicates(body: bytes) -> None:
    """Raise when a top-level name occurs twice: two readers could each take another one."""
    seen: set[str] = set()
    for name in map(str, _NAMES.decode(body)):
        if name in seen:
            message = f"the top-level name {name!r} occurs twice; send it once"
            raise RequestError(message)
        seen.add(name)


def _check(request: Request) -> None:
    if not isinstance(request.get("model"), str):
        message = f"model: expected a string, got {request.get('model')!r}"
        raise RequestError(message)
    if not isinstance(request.get("messages"), list):
        message = "messages: expected a list of {role, content}"
        raise RequestError(message)
    for index, turn in enumerate(request.get("messages")):
        if not isinstance(turn, dict) or not isinstance(turn.get("content", ""), str | list):
            message = f"messages[{index}]: expected an object with role and content"
            raise RequestError(message)


def blocks_of(content: JSON) -> list[dict[str, JSON]]:
    """Return content as a list of blocks; a plain string is one text block, strange items are left out."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return [block for block in content if isinstance(block, dict)]
    return []


def answered_calls(messages: Sequence[Mapping[str, JSON]]) -> tuple[str, ...] | None:
    """Return the tool calls that the last user turn answers, or None when it answers none.

    Turns of one role in a row are one turn to the API, and a `system` message between them ends none.
    """
    answered: list[str] = []
    is_loop = False
    for turn in reversed(messages):
        role = turn.get("role")
        if role == "assistant":
            break
        content = turn.get("content")
        if role == "user" and isinstance(content, list):
            for block in content:
                if isinstance(block, dict) and block.get("type") == "tool_result":
                    is_loop = True
                    answered.append(str(block.get("tool_use_id")))
    return tuple(answered) if is_loop else None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the API reports them; `input_tokens` excludes cache reads and writes.

    `iterations` is given where one answer ran in several parts (a server-side fallback,
    compaction): each part names its own model and is priced by it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_search_requests: int = 0
    service_tier: str = "standard"
    speed: str = "standard"
    inference_geo: str = ""
    iterations: tuple[Iteration, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """All input: uncached, read from and written to the prompt cache."""
        return (
            self.input_tokens
            + self.cache_read_input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )

    @classmethod
    def read(cls, usage: Mapping[str, JSON] | None) -> Usage:
        """Read the API's `usage` object; absent, null and garbage counts are 0."""
        return cls().merge(usage)

    def merge(self, later: Mapping[str, JSON] | None) -> Usage:
        """Return this usage overlaid with a later, cumulative report (a stream's `message_delta`).

        What the report leaves out, or gives as null or garbage, stays as it is.
        """
        if not isinstance(later, Mapping):
            return self
        found: dict[str, JSON] = {name: _count(later, name) for name in _PLAIN_COUNTS}
        found["thinking_tokens"] = _count(later.get("output_tokens_details"), "thinking_tokens")
        found["web_search_requests"] = _count(later.get("server_tool_use"), "web_search_requests")
        found |= {name: text_of(later, name) or None for name in ("service_tier", "speed", "inference_geo")}
        found["iterations"] = _iterations(later.get("iterations"))
        found |= self._cache_writes(later)
        return replace(self, **{name: value for name, value in found.items() if value is not None})

    def _cache_writes(self, later: Mapping[str, JSON]) -> dict[str, int]:
        """Return both kinds of cache writes where `later` tells, else nothing."""
        total = _count(later, "cache_creation_input_tokens")
        split = later.get("cache_creation")
        one_hour = _count(split, "ephemeral_1h_input_tokens")
        five_minutes = _count(split, "ephemeral_5m_input_tokens")
        if total is None and one_hour is None and five_minutes is None:
            return {}
        if one_hour is None and five_minutes is None:
            # Only the sum, as older replies give it: what was not said to be for an hour is for five minutes.
            one_hour = min(self.cache_write_1h_tokens, total or 0)
        one_hour = one_hour or 0
        return {
            "cache_write_5m_tokens": max(five_minutes or 0, (total or 0) - one_hour),
            "cache_write_1h_tokens": one_hour,
        }

    def plus(self, other: Usage) -> Usage:
        """Return the sum of all counts, for totals over several attempts."""
        return replace(
            self,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            thinking_tokens=self.thinking_tokens + other.thinking_tokens,
            web_search_requests=self.web_search_requests + other.web_search_requests,
            iterations=(),
        )


@dataclass(frozen=True, slots=True)
class Iteration:
    """One part of an answer: `kind` as the API names it, its model (None: the answer's own), its usage."""

    kind: str
    model: str | None
    usage: Usage


_PLAIN_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens")


def _iterations(parts: JSON) -> tuple[Iteration, ...] | None:
    """Read the parts of an answer; None when there are none. A part has no parts of its own."""
    if not isinstance(parts, list):
        return None
    found = tuple(
        Iteration(
            text_of(part, "type") or "message",
            text_of(part, "model") or None,
            Usage.read({**part, "iterations": None}),
        )
        for part in parts
        if isinstance(part, dict)
    )
    return found or None


def _count(values: JSON, name: str) -> int | None:
    """Return a count, or None when it is absent or garbage."""
    value = values.get(name) if isinstance(values, Mapping) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if is_count else None


def text_of(values: JSON, name: str) -> str:
    """Return a member that should be text, or "" when it is absent or something else."""
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer says of itself, gathered from a whole body or, so far, from a stream.

    Attributes:
        model: The model that answered, as it named itself; "" when not yet known.
        message_id: `msg_...`, or "".
        stop_reason: As the API spells it, or "".
        usage: Counts so far.
        tool_use_ids: Ids of the tool calls the answer makes.
        visible_bytes: Bytes of text, JSON and thinking seen in a stream, JSON escapes included.
        is_complete: The answer arrived whole (for a stream: `message_stop` was seen).
    """

    model: str = ""
    message_id: str = ""
    stop_reason: str = ""
    usage: Usage = Usage()
    tool_use_ids: tuple[str, ...] = ()
    visible_bytes: int = 0
    is_complete: bool = False

    @classmethod
    def read(cls, message: Mapping[str, JSON]) -> Facts:
        """Read a whole message, as decoded JSON; garbage in it counts as absent."""
        return cls(
            model=text_of(message, "model"),
            message_id=text_of(message, "id"),
            stop_reason=text_of(message, "stop_reason"),
            usage=Usage.read(message.get("usage")),
            tool_use_ids=tuple(
                text_of(block, "id")
                for block in blocks_of(message.get("content"))
                if block.get("type") == "tool_use" and text_of(block, "id")
            ),
            is_complete=True,
        )


class Held:
    """Holds a live payload until it is handed over once, and forgets it then.

    A suspended exchange must not keep alive the stream whose end it waits for.

    Args:
        payload: What the caller gets.
        chunks: Its bytes as they come, for who must see them first: an iterator, sync or async as the
            driver is, that raises `UpstreamFailure` and has a `close`, or `aclose`, which stops the
            upstream. What is read here the payload gives again, first. None where it cannot be read ahead.
        is_stream: Whether the bytes are server-sent events; else one JSON message.
    """

    __slots__ = ("_payload", "chunks", "is_stream")

    def __init__(self, payload: Any, chunks: Any = None, *, is_stream: bool = True) -> None:
        self._payload = payload
        self.chunks = chunks
        self.is_stream = is_stream

    def take(self) -> Any:
        """Return the payload and forget it."""
        payload, self._payload, self.chunks = self._payload, None, None
        return payload


_NO_MEMBERS: Final[Mapping[str, JSON]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upstream call gave back.

    Attributes:
        payload: The upstream's own object (an SDK message, or bytes), handed to the caller untouched;
            for a live stream a `Held` of it.
        facts: What it says of itself; for a live stream, nothing yet.
        request_id: The upstream's `request-id`, or "".
        body: Returns the answer's bytes, for one that is to be kept; None where they cannot be had.
        read: Returns the answer as the API's decoded message, where that is cheaper than by its bytes.
        message: The answer as that message, where it was read to be checked; else empty.
    """

    payload: Any
    facts: Facts = Facts()
    request_id: str = ""
    body: Callable[[], bytes] | None = field(default=None, compare=False)
    read: Callable[[], Mapping[str, JSON]] | None = field(default=None, compare=False)
    message: Mapping[str, JSON] = field(default_factory=lambda: _NO_MEMBERS)

    @property
    def is_live(self) -> bool:
        """Whether the answer is a stream that has yet to be read."""
        return isinstance(self.payload, Held)

    @property
    def text(self) -> str:
        """The answer's text: its text blocks, joined; no thinking and no tool calls."""
        return "".join(text_of(block, "text") for block in self._blocks("text"))

    @property
    def tool_calls(self) -> list[dict[str, JSON]]:
        """The answer's `tool_use` blocks, as decoded JSON."""
        return self._blocks("tool_use")

    @property
    def stop_reason(self) -> str:
        """Why it ended, as the API spells it, or ""."""
        return text_of(self.message, "stop_reason") or self.facts.stop_reason

    def _blocks(self, kind: str) -> list[dict[str, JSON]]:
        return [block for block in blocks_of(self.message.get("content")) if block.get("type") == kind]
