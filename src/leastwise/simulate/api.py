"""A Messages API that runs here, costs nothing, and keeps its own books.

`Simulator.handle` takes one HTTP request and returns one HTTP answer; it opens no
socket and never waits. How long a server should wait before the next bytes stands in
`Response.wait_s`. A stream is produced as it is read, and `books` gets its line when
it ends: read to its end, cut by a fault, or closed by a client that hung up, who is
charged for the prompt and for what was produced until then.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import count as counter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from leastwise.messages import JSON
from leastwise.models import Model, load_models
from leastwise.prices import load_prices
from leastwise.simulate import batches, catalogue, rules
from leastwise.simulate.answers import MARK, Answer, Script, scripted
from leastwise.simulate.books import Charge, PromptCache, Tariff, count, read_prompt
from leastwise.simulate.faults import ERROR_TYPES, HEADER, Fault
from leastwise.simulate.response import Body, Response
from leastwise.simulate.rules import Ask, RefusedError, refuse
from leastwise.simulate.wire import ENCODE, Composed, Piece, compose

_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode
_DATED: Final = re.compile(r"-\d{8}$")
_LARGEST_BODY_BYTES: Final = 32 * 1024 * 1024
_MOST: Final = {
    "requests": "4000",
    "tokens": "4000000",
    "input-tokens": "4000000",
    "output-tokens": "4000000",
}
_LIMITS: Final = {
    f"anthropic-ratelimit-{name}-{what}": most
    for name, most in _MOST.items()
    for what in ("limit", "remaining")
}
_RESETS: Final = tuple(f"anthropic-ratelimit-{name}-reset" for name in _MOST)
_NO_RATES: Final[Mapping[str, float]] = MappingProxyType({})
_NO_FAULT: Final = Fault()
#: What queued faults happen to, beside the results of a batch.
_ANSWERS: Final = (("POST", "/v1/messages"), ("POST", "/v1/messages/batches"))


class Seen(NamedTuple):
    """One request as it came in: path with query, headers in lower case, body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Simulator:
    """A simulated Messages API; safe to share between threads.

    Args:
        clock: Seconds since the epoch: ages the prompt cache, dates the prices.
        seed: Part of every id, and of which answers are wrong.
        error_rate: Share of wrong answers, by model id or by line (`haiku`).
        answers: The caller's own script, asked before the built-in answers.
        latency_s: Seconds before an answer begins.
        tokens_per_s: Speed of an answer; 0: at once.
        keep: How many `requests` and `books` lines to keep; None: all.

    Attributes:
        books: What was billed, in the order in which answers ended.
        requests: What came in, refused or not.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
        error_rate: Mapping[str, float] = _NO_RATES,
        answers: Script | None = None,
        latency_s: float = 0.0,
        tokens_per_s: float = 0.0,
        keep: int | None = None,
    ) -> None:
        self.books: list[Charge] = []
        self.requests: list[Seen] = []
        self._clock = clock
        self._seed = seed
        self._error_rate = error_rate
        self._answers = answers
        self._latency_s = latency_s
        self._token_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._keep = keep
        self._models = load_models()
        self._tariff = Tariff(load_prices())
        self._cache = PromptCache()
        self._batches = batches.Batches()
        self._script: deque[Answer] = deque()
        self._faults: deque[Fault] = deque()
        self._numbers = counter(1)
        self._lock = threading.Lock()

    def script(self, *answers: Answer | str) -> None:
        """Give the next answers, in order, before any other source of answers."""
        self._script.extend(_answer(answer) for answer in answers)

    def fail_next(
        self,
        n: int = 1,
        *,
        status: int = 529,
        error_type: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Answer the next `n` messages with an error."""
        self._faults.extend([Fault(status=status, error_type=error_type, headers=headers)] * n)

    def drop_next(self, after_events: int = 0) -> None:
        """Drop the next message's connection after that many events."""
        self._faults.append(Fault(cut_after=after_events))

    def interrupt_next(self, after_events: int = 1) -> None:
        """End the next stream with an `error` event after that many events."""
        self._faults.append(Fault(error_after=after_events))

    def stall_next(self, seconds: float) -> None:
        """Fall silent for so long in the next message."""
        self._faults.append(Fault(stall_s=seconds))

    def truncate_next(self) -> None:
        """End the next message before it is whole, as if it were."""
        self._faults.append(Fault(is_truncated=True))

    def malform_next(self) -> None:
        """Send something that is not JSON in the next message."""
        self._faults.append(Fault(is_malformed=True))

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Answer one HTTP request.

        Args:
            method: HTTP method.
            path: Path with its query.
            headers: In any case.
            body: The whole body.
        """
        seen = Seen(path, {name.lower(): value for name, value in headers.items()}, body)
        self.requests.append(seen)
        self._trim(self.requests)
        request_id = f"req_sim{self._seed:x}n{next(self._numbers):012d}"
        try:
            return self._route(method, seen, request_id)
        except RefusedError as refused:
            return _error(
                refused.status, refused.api_type, str(refused), request_id, {}, details=refused.details
            )

    def _route(self, method: str, seen: Seen, request_id: str) -> Response:
        route, _, query = seen.path.partition("?")
        if (method, route) == ("HEAD", "/"):
            return Response(200, {"request-id": request_id}, Body(iter(())))
        _check_caller(seen.headers)
        is_answer = (method, route) in _ANSWERS or (method == "GET" and route.endswith("/results"))
        fault = self._fault(seen.headers, is_answer=is_answer)
        if fault.status:
            api_type = fault.error_type or ERROR_TYPES.get(fault.status, "api_error")
            return _error(fault.status, api_type, f"{MARK} fault on demand", request_id, fault.headers)
        now = self._clock()
        headers = {"request-id": request_id, **_rate_limits(now)}
        match method, route.removeprefix("/v1/").split("/"):
            case "POST", ["messages"]:
                return self._message(self._read(seen, now), seen.body, fault, headers, now)
            case "POST", ["messages", "count_tokens"]:
                ask = self._read(seen, now, is_count=True)
                found: JSON = {"input_tokens": count(read_prompt(ask).weight_bytes, ask.model)}
            case _, ["messages", "batches", *rest]:
                return self._batch(method, rest, seen, fault, headers=headers, now=now)
            case "GET", ["models"]:
                found = catalogue.page(self._models, query, now)
            case "GET", ["models", name]:
                found = catalogue.describe(self._model(name), now)
            case _, ["messages"] | ["messages", "count_tokens"] | ["models"] | ["models", _]:
                refuse("Method Not Allowed", 405)
            case _:
                refuse("Not Found", 404, "not_found_error")
        return _whole(200, ENCODE(found), headers)

    def _fault(self, headers: Mapping[str, str], *, is_answer: bool) -> Fault:
        if HEADER in headers:
            return Fault.read(headers[HEADER])
        with self._lock:
            return self._faults.popleft() if is_answer and self._faults else _NO_FAULT

    def _batch(
        self, method: str, rest: list[str], seen: Seen, fault: Fault, *, headers: dict[str, str], now: float
    ) -> Response:
        """Answer what is asked of batches."""
        match method, rest:
            case "POST", []:
                url = f"http://{seen.headers.get('host', 'localhost')}"
                body = _decoded(seen.body, batches.LARGEST_BODY_BYTES)

                def answer(params: dict[str, JSON], request_id: str) -> dict[str, JSON]:
                    return self._batched(params, seen, request_id, now)

                found = self._batches.create(body, answer, headers["request-id"], url, now)
            case "GET", []:
                found = self._batches.page(seen.path.partition("?")[2])
            case "GET", [id_]:
                found = self._batches.retrieve(id_)
            case "GET", [id_, "results"]:
                lines = Piece(self._batches.results(id_))
                headers["content-type"] = "application/x-jsonl"
                return Response(200, headers, Body(fault.apply(iter([lines]), is_stream=False)))
            case "POST", [id_, "cancel"]:
                self._batches.cancel(id_)
            case "DELETE", [id_]:
                found = self._batches.delete(id_)
            case _:
                refuse("Method Not Allowed", 405)
        headers["content-type"] = "application/json"
        return Response(200, headers, Body(fault.apply(iter([Piece(ENCODE(found))]), is_stream=False)))

    def _batched(self, params: dict[str, JSON], seen: Seen, request_id: str, now: float) -> dict[str, JSON]:
        """Return the answer to one request of a batch, which is billed."""
        ask = self._ask(params, seen, now)
        if ask.is_stream:
            refuse("stream: a request of a batch cannot be streamed")
        composed = self._composed(ask, ENCODE(params), request_id, now, service_tier="batch")
        nusd = self._tariff.bill(ask.model, composed.usage, now)
        self.books.append(
            Charge(request_id, composed.message["id"], ask.body["model"], composed.usage, nusd, is_cut=False)
        )
        self._trim(self.books)
        return composed.message

    def _read(self, seen: Seen, now: float, *, is_count: bool = False) -> Ask:
        return self._ask(_decoded(seen.body, _LARGEST_BODY_BYTES), seen, now, is_count=is_count)

    def _ask(self, body: dict[str, JSON], seen: Seen, now: float, *, is_count: bool = False) -> Ask:
        if not isinstance(body.get("model"), str):
            refuse("model: Field required")
        model = self._model(body["model"])
        if catalogue.lifecycle(model, now) == "retired":
            refuse(f"model: {model.id} is retired", 404, "not_found_error")
        betas = tuple(
            beta for beta in seen.headers.get("anthropic-beta", "").replace(" ", "").split(",") if beta
        )
        is_beta = bool(betas) or "beta=true" in seen.path
        version = seen.headers["anthropic-version"]
        ask = Ask(body, model, version, is_beta=is_beta, betas=betas, is_count=is_count)
        rules.check(ask)
        return ask

    def _model(self, name: str) -> Model:
        found = self._models.get(name)
        # Ids carry a date up to the old tokenizer's models only; the clouds' spellings are not the API's.
        spelled = _DATED.sub("", name) if found is not None and found.tokenizer == "old" else name
        if found is None or found.id != spelled:
            refuse(f"model: {name}", 404, "not_found_error")
        return found

    def _composed(
        self, ask: Ask, body: bytes, request_id: str, now: float, *, service_tier: str = "standard"
    ) -> Composed:
        """Return the whole answer."""
        prompt = read_prompt(ask)
        tokens = count(prompt.weight_bytes, ask.model)
        if tokens > ask.model.window:
            refuse(f"prompt is too long: {tokens} tokens > {ask.model.window} maximum")
        answer = self._say(ask, body)
        with self._lock:
            usage = replace(self._cache.serve(ask, prompt, now), service_tier=service_tier)
        return compose(ask, answer, prompt, usage, request_id.replace("req_", "msg_"))

    def _message(self, ask: Ask, body: bytes, fault: Fault, headers: dict[str, str], now: float) -> Response:
        request_id = headers["request-id"]
        composed = self._composed(ask, body, request_id, now)

        def settle(produced: int, *, is_cut: bool) -> None:
            made = composed.made(produced)
            nusd = self._tariff.bill(ask.model, made, now)
            self.books.append(
                Charge(request_id, composed.message["id"], ask.body["model"], made, nusd, is_cut)
            )
            self._trim(self.books)

        if fault is _NO_FAULT and not ask.is_stream:
            headers["content-length"] = str(len(composed.body()))
        headers["content-type"] = "text/event-stream; charset=utf-8" if ask.is_stream else "application/json"
        parts = fault.apply(composed.pieces(is_stream=ask.is_stream), is_stream=ask.is_stream)
        output = composed.usage.output_tokens
        begun = min(1, output) if ask.is_stream else output  # a plain answer is made before it is sent
        wait_s = self._latency_s + (0 if ask.is_stream else output * self._token_s + fault.stall_s)
        return Response(200, headers, Body(parts, settle, tokens=begun, wait_s=wait_s, token_s=self._token_s))

    def _say(self, ask: Ask, body: bytes) -> Answer:
        with self._lock:
            if self._script:
                return self._script.popleft()
        is_wrong = self._is_wrong(ask.model, body)
        own = self._answers(ask) if self._answers is not None and not is_wrong else None
        return scripted(ask, is_wrong=is_wrong) if own is None else _answer(own)

    def _is_wrong(self, model: Model, body: bytes) -> bool:
        rate = self._error_rate.get(model.id, self._error_rate.get(model.line, 0.0))
        if not rate:
            return False
        digest = blake2b(body, digest_size=8, key=str(self._seed).encode()).digest()
        return int.from_bytes(digest, "big") < rate * 2**64

    def _trim(self, lines: list[Any]) -> None:
        if self._keep is not None and len(lines) > 2 * self._keep:
            del lines[: len(lines) - self._keep]


def _decoded(body: bytes, most_bytes: int) -> dict[str, JSON]:
    """Return a body's JSON object.

    Raises:
        RefusedError: it is too large, or none.
    """
    if len(body) > most_bytes:
        refuse("Request exceeds the maximum size", 413, "request_too_large")
    try:
        return _DECODE(body)
    except msgspec.DecodeError as error:
        refuse(f"The request body is not valid JSON: {error}")


def _answer(answer: Answer | str) -> Answer:
    return Answer(answer) if isinstance(answer, str) else answer


def _check_caller(headers: Mapping[str, str]) -> None:
    """Refuse a caller without a key or without a version.

    Raises:
        RefusedError: 401 or 400.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
    if not key.strip():
        refuse("x-api-key header is required", 401, "authentication_error")
    if "invalid" in key:
        refuse("invalid x-api-key", 401, "authentication_error")
    version = headers.get("anthropic-version")
    if version is None:
        refuse("anthropic-version: header is required")
    if version not in rules.VERSIONS:
        refuse(f'anthropic-version: "{version}" is not a valid version')


def _rate_limits(now: float) -> dict[str, str]:
    reset = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    return _LIMITS | dict.fromkeys(_RESETS, reset)


def _whole(status: int, body: bytes, headers: dict[str, str]) -> Response:
    headers |= {"content-type": "application/json", "content-length": str(len(body))}
    return Response(status, headers, Body(iter([Piece(body)])))


def _error(
    status: int,
    api_type: str,
    message: str,
    request_id: str,
    headers: Mapping[str, str],
    *,
    details: Mapping[str, JSON] = MappingProxyType({}),
) -> Response:
    said = {"type": api_type, "message": message, **details}
    error = {"type": "error", "error": said, "request_id": request_id}
    return _whole(status, ENCODE(error), {"request-id": request_id, **headers})
