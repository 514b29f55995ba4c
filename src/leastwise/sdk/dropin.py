"""The drop-in for the `anthropic` client: the same calls, the same objects, one exchange each.

`Anthropic` and `AsyncAnthropic` are subclasses of the SDK's own classes; `wrap` gives
any other client of that SDK (Bedrock, Vertex, one you made yourself) such a class.
Every call that posts to `/v1/messages`, however it was made (`create`, `stream`,
`parse`, `beta.messages`, raw and streaming responses), passes the one method
`request` that all of them share, and runs an exchange there. Its body goes out as
the SDK prepared it, but for the members that the decision changes. Batches pass it too: they are
reserved, charged and set right by their results (`batch`), and go out as they are.

Retries are ours (the SDK's are off inside an attempt), by the caller's own
`max_retries`; the SDK's errors reach the caller as they are. A kept answer is read by the SDK, too,
so that it comes in the form that the caller asked for (`responses`).
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import cache, cached_property, partial
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

import anthropic
from anthropic import Omit
from anthropic._resource import AsyncAPIResource  # exported nowhere else
from anthropic.types import Message
from anthropic.types.beta import BetaMessage

from leastwise import batch
from leastwise import client as drivers
from leastwise.build import OWN_UPSTREAM, Runtime
from leastwise.cache import Stored
from leastwise.config import Upstream
from leastwise.errors import BudgetExceededError, ConfigError, UpstreamFailure
from leastwise.exchange import Done, exchange
from leastwise.ladder import Mode, Outcome, Task
from leastwise.ledger import Entry
from leastwise.messages import LEFT_OUT, Facts, Held, Reply, Request, Usage, text_of
from leastwise.sdk import hook
from leastwise.sdk.responses import BudgetStatusError, replaying
from leastwise.sdk.results import hear
from leastwise.sdk.shadows import Beside, Overheard, Read, message_of
from leastwise.sdk.taps import Reading, attach, listeners_of
from leastwise.sse import Tap
from leastwise.steps import Send, Steps

_log: Final = logging.getLogger(__name__)

Client = TypeVar("Client", bound=Any)

_PATH: Final = "/v1/messages"
_BETA: Final = "anthropic-beta"
_PATIENCE_S: Final = 10.0
_OAUTH: Final = "oauth-"  # betas that go with a key, whatever it is used for
_EVENTS: Final = "text/event-stream"
_OURS: Final = "leastwise-"  # names of headers that are for us alone
#: Names of headers that may hold a secret of the caller's: `cookie`, `x-portkey-api-key`, `helicone-auth`;
#: not how many output tokens are expected.
_SECRET: Final = re.compile(
    r"(?<![a-z])(?:auth|authorization|cookie|credential|(?:api)?key|password|secret|(?<!output-)token)s?(?![a-z])",
    re.IGNORECASE,
)
_NAMED: Final = ("api_key", "auth_token", "credentials", "config", "profile")
_REQUIRED: Final = frozenset({"max_tokens", "messages", "model"})
_OUTCOME: Final = "_leastwise_outcome"
_SDKS_OWN: Final = frozenset({"SyncHttpxClientWrapper", "AsyncHttpxClientWrapper"})
_NEVER_SENT: Final = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"}
)


class _Routing:
    """What both clients share; mixed in before the SDK's class."""

    leastwise: Runtime
    _leastwise_connections: Any

    def __init__(
        self,
        *,
        leastwise: Runtime | None = None,
        mode: Mode | None = None,
        budget_usd: Decimal | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a client; see the SDK's class for all other arguments."""
        self.leastwise = _runtime(leastwise, mode, budget_usd)
        super().__init__(**kwargs)
        for name in vars(self).keys() & {"messages", "beta"}:  # Bedrock and Vertex make theirs at once
            _with_tasks(vars(self)[name])

    @cached_property
    def messages(self) -> Any:
        """The messages resource, whose `create`, `stream` and `parse` take a `task`."""
        return _with_tasks(super().messages)  # type: ignore[misc]  # the class mixed with

    @cached_property
    def beta(self) -> Any:
        """The beta resources; `beta.messages` takes a `task` too."""
        return _with_tasks(super().beta)  # type: ignore[misc]  # the class mixed with

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request, on connections of this process."""
        self._leastwise_after_fork()
        return super().request(*args, **kwargs)  # type: ignore[misc]  # the class mixed with

    def _leastwise_after_fork(self) -> None:
        """Give a forked child connections of its own: those it inherited are in the parent's use.

        A caller's own `http_client` is left alone. The inherited client is kept, for closing
        it could wait for a lock that the parent held when it forked.
        """
        state = vars(self)
        if state.setdefault("leastwise_pid", os.getpid()) != os.getpid():
            state["leastwise_pid"] = os.getpid()
            if type(state["_client"]).__name__ in _SDKS_OWN:
                state["leastwise_inherited"] = state["_client"]
                state["_client"] = self._leastwise_connections(timeout=self.timeout)  # type: ignore[attr-defined]  # the SDK's

    def _leastwise_call(self, options: Any, task: Task | None) -> tuple[Request, Steps[Done]]:
        """Return the request that the prepared options hold, and the exchange that answers it."""
        headers, secrets = self._leastwise_headers(options)
        request = Request.of(
            options.json_data, version=headers.get("anthropic-version", ""), betas=betas_in(headers)
        )
        self._leastwise_list_models()
        retries = options.get_max_retries(self.max_retries)  # type: ignore[attr-defined]  # the SDK's
        query = sorted(map(str, (options.params or {}).items()))
        call = self.leastwise.call(
            request,
            task or Task(),
            max_retries=retries,
            headers=headers,
            origin=f"{self.base_url} {query} {secrets}",  # type: ignore[attr-defined]  # the SDK's
        )
        return request, exchange(call, self.leastwise.terms)

    def _leastwise_beside(
        self, options: Any, request: Request, task: Task | None, send: Any
    ) -> Beside | None:
        """Return what tries an answer on another tier, where a trial of its tag is open."""
        trial = self.leastwise.trials.of(task.tag if task is not None and task.route else None)
        if trial is None:
            return None
        ask = partial(self._leastwise_run, options, request, send=send)  # type: ignore[attr-defined]  # of each client
        return Beside(self.leastwise, trial, request, ask)

    def _leastwise_batch(self, options: Any) -> tuple[Request, Steps[batch.Accepted]]:
        """Return the batch that the prepared options hold, and what sends it."""
        (headers, _), retries = self._leastwise_headers(options), options.get_max_retries(self.max_retries)  # type: ignore[attr-defined]  # the SDK's
        request = Request(
            {},
            dict(options.json_data),
            None,
            endpoint=batch.ENDPOINT,
            version=headers.get("anthropic-version", ""),
            betas=betas_in(headers),
        )
        call = self.leastwise.call(request, Task(), max_retries=retries, headers=headers)
        is_off = self.leastwise.config.mode == "off"
        return request, batch.submit(batch.read(call, self.leastwise.terms, counts_unpriced=is_off))

    def _leastwise_lost(self) -> list[Entry]:
        """Return the ledger's entries of which nobody knows what they cost: batches are among them."""
        desk = self.leastwise.desk
        return desk.read(desk.store.lost, [])

    def _leastwise_heard(self, payload: Any, batch_id: str, lost: Sequence[Entry], *, may_wait: bool) -> Any:
        """Return the SDK's object of a batch's results, which settle the batch as they pass."""
        results = batch.Results(batch_id, lost, self.leastwise.terms)
        response = response_of(payload)
        if results and response is not None:
            hear(payload, response, results, partial(self.leastwise.desk.write, may_wait=may_wait))
        return payload

    def _leastwise_headers(self, options: Any) -> tuple[dict[str, str], str]:
        """Return the headers, names in lower case, and a hash of those that are secret.

        The request's own win; secrets stay out.
        """
        own = options.headers if isinstance(options.headers, Mapping) else {}
        given = [*self.default_headers.items(), *own.items()]  # type: ignore[attr-defined]  # the SDK's
        merged = {name.lower(): value for name, value in given}
        found = {name: value for name, value in merged.items() if isinstance(value, str)}
        secrets = sorted((name, found.pop(name)) for name in list(found) if _SECRET.search(name))
        return found, sha256(repr(secrets).encode()).hexdigest()

    def _leastwise_options(self, options: Any, request: Request, step: Send) -> Any:
        """Return options for one attempt: the SDK's own retries off, the decision's members changed."""
        known: Sequence[str] = request.betas
        if step.is_own:
            plain = {name: step.request.get(name) for name in step.request.names}
            is_theirs = step.upstream == OWN_UPSTREAM  # whose key goes along
            of_key = [beta for beta in known if beta.startswith(_OAUTH) and is_theirs]
            needed = dict.fromkeys((*step.request.betas, *of_key))
            return type(options).construct(
                method="post",
                url=_PATH,
                json_data=plain,
                headers=self._leastwise_with_betas({}, [*needed]),
                timeout=options.timeout,
                max_retries=0,
            )
        attempt = copy.copy(options)
        attempt.max_retries = 0
        changed = {**options.json_data, **step.request.changes}
        attempt.json_data = {name: value for name, value in changed.items() if value is not LEFT_OUT}
        has_own = isinstance(options.headers, Mapping)
        headers = dict(options.headers) if has_own else {}
        if step.upstream != OWN_UPSTREAM:
            # The caller's secrets are for the caller's upstream, whose client's own headers stay there too.
            headers = {name: value for name, value in headers.items() if not _SECRET.search(name)}
            _keep_ours(headers)  # that client does not
            known = betas_in(headers)
        if set(known) != set(step.request.betas):
            headers = self._leastwise_with_betas(headers, step.request.betas)
        if has_own or headers:  # an empty one of the caller's must not come back with what was taken out
            attempt.headers = headers
        return attempt

    def _leastwise_with_betas(self, headers: dict[str, Any], betas: Sequence[str]) -> dict[str, Any]:
        """Return headers that ask for these betas and no others, whatever the client's own ask for."""
        given = [*headers, *self.default_headers]  # type: ignore[attr-defined]  # the SDK's
        # SDK 0.x takes another spelling of a name for another header.
        changed = {**headers, **{name: Omit() for name in given if name.lower() == _BETA}}
        changed.pop(_BETA, None)
        return {**changed, _BETA: ",".join(betas) or Omit()}

    def _leastwise_list_models(self) -> None:
        """Have the upstream asked for its models, beside this call, when it is time."""
        own: Any = self
        is_plain = isinstance(self, anthropic.Anthropic | anthropic.AsyncAnthropic)
        if not is_plain or type(own._client).__name__ not in _SDKS_OWN:  # noqa: SLF001 - the SDK's
            return  # a cloud's, or a caller's own way to the upstream, which may be no way for others
        base_url = str(own.base_url)
        named = {name: value for name in ("api_key", "auth_token") if (value := getattr(own, name))}
        if named and self.leastwise.wants_models(base_url):
            ask = partial(_list_models, self.leastwise, base_url, named)
            with suppress(RuntimeError):  # no more threads, as at the end of the process: another time
                threading.Thread(target=ask, name="leastwise-models", daemon=True).start()

    def _leastwise_failure(self, error: Exception) -> UpstreamFailure:
        """Return the SDK's exception as a failed attempt, with the SDK's own word on retrying it."""
        if isinstance(error, anthropic.APIStatusError):
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            should = self._should_retry(error.response)  # type: ignore[attr-defined]  # the SDK's
            headers["x-should-retry"] = "true" if should else "false"
            said = error.body.get("error") if isinstance(error.body, Mapping) else None
            return UpstreamFailure(
                error,
                status=error.status_code,
                headers=headers,
                request_id=error.request_id,
                message=text_of(said, "message"),
            )
        if isinstance(error, anthropic.APIConnectionError):
            was_sent = type(error.__cause__).__name__ not in _NEVER_SENT
            return UpstreamFailure(error, was_sent=was_sent)
        is_ours_to_send = isinstance(error, ConfigError | TypeError | ValueError) and not isinstance(
            error, json.JSONDecodeError
        )
        return UpstreamFailure(error, was_sent=not is_ours_to_send, headers={"x-should-retry": "false"})

    def _leastwise_other(self, upstream: str) -> Any:
        """Return the client of another upstream of the config, or None for this client's own.

        Made once for this client and its copies, which share their connections, too.
        """
        own = self._client  # type: ignore[attr-defined]  # the SDK's
        return self.leastwise.other_client(upstream, own, lambda found: _other_client(self, found))

    def _leastwise_reply(self, error: Exception) -> Reply:
        """Return the answer that the SDK could not make sense of: it was paid for; the error is the caller's.

        Raises:
            UpstreamFailure: there was no answer.
        """
        response = _answer_in(error)
        if response is None or not response.is_stream_consumed:
            raise self._leastwise_failure(error) from error
        return Reply(
            _Unreadable(error), _facts_of(response), request_id=response.headers.get("request-id", "")
        )

    def copy(self, **kwargs: Any) -> Any:
        """Return a copy with other options; see the SDK's `copy`. It stays a Leastwise client."""
        self._leastwise_after_fork()
        extra = {"leastwise": self.leastwise, **kwargs.pop("_extra_kwargs", {})}
        keeps_tokens = getattr(self, "_token_cache", None) is not None and kwargs.keys().isdisjoint(_NAMED)
        if keeps_tokens:  # the SDK hands credentials on to its very own classes only
            kwargs = {"base_url": self.base_url, **kwargs}  # type: ignore[attr-defined]  # the SDK's
            extra["credentials"] = self.credentials  # type: ignore[attr-defined]  # the SDK's
        return super().copy(**kwargs, _extra_kwargs=extra)  # type: ignore[misc]  # the class mixed with

    with_options = copy


class _Unreadable(NamedTuple):
    """What is handed to the caller in a message's place: the SDK's own exception on reading it."""

    error: Exception


def _answer_in(error: Exception) -> Any:
    """Return the HTTP response that the SDK was reading when it raised `error`, None when there was none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_process_response":
            return frame.f_locals.get("response")
    return None


class _SyncRouting(_Routing, hook.Sync):
    """Runs an exchange for each message."""

    _leastwise_connections = anthropic.DefaultHttpxClient

    def close(self) -> None:
        """Close the connections, those to other upstreams too."""
        self.leastwise.trials.close()
        try:
            super().close()  # type: ignore[misc]  # the class mixed with
        finally:
            for other in self.leastwise.others_of(self._client):  # type: ignore[attr-defined]  # the SDK's
                other.close()

    def feedback(self, of: object, *, ok: bool, note: str = "") -> None:
        """Say whether an answer was acceptable: it counts in calibrations, and for or against its tier.

        Args:
            of: A message, a stream that was read, a raw response or an outcome; or an exchange id, a
                `msg_...` id or a `request-id`.
            ok: Whether it was.
            note: What to remember of it; kept in the ledger.

        Raises:
            StoreError: the ledger knows no such call, or cannot be written.
        """
        self.leastwise.feedback(_said_of(of), ok=ok, note=note)

    def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:
        """Answer a message by an exchange."""
        request, steps = self._leastwise_call(options, task)
        payload = self._leastwise_run(options, request, steps, send)
        beside = self._leastwise_beside(options, request, task, send)
        if beside is not None:
            _overheard(payload, beside.on_thread)
        return payload

    def leastwise_batch(self, options: Any, send: Any) -> Any:
        """Have a batch accepted."""

        def send_whole(*args: Any, **how: Any) -> Any:
            payload = send(*args, **how)
            response = response_of(payload)
            if response is not None:  # its id is wanted, however the caller reads it
                response.read()
            return payload

        return self._leastwise_run(options, *self._leastwise_batch(options), send_whole)

    def leastwise_results(self, batch_id: str, send: Any) -> Any:
        """Return a batch's results, and settle it by them."""
        lost = self._leastwise_lost()
        return self._leastwise_heard(send(), batch_id, lost, may_wait=True)

    def _leastwise_run(self, options: Any, request: Request, steps: Steps[drivers.End], send: Any) -> Any:
        """Carry out an exchange."""

        def upstream(step: Send) -> Reply:
            attempt = self._leastwise_options(options, request, step)
            try:
                payload = send(attempt, self._leastwise_other(step.upstream), is_own=step.is_own)
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises reaches the caller
                return self._leastwise_reply(error)
            return _decoded(_reply(payload)) if step.is_own else _reply(payload)

        try:
            result = drivers.run(steps, upstream, self.leastwise.desk)
        except BudgetExceededError as error:
            raise BudgetStatusError(str(error), **vars(error)) from None
        if isinstance(result.payload, Stored):
            return _told(send(copy.copy(options), replaying(result.payload, self)), result.life.outcome)
        return _deliver(result)

    def _prepare_request(self, request: Any) -> None:
        """Make a request ready to be sent, as the SDK does; it comes here before every attempt."""
        _keep_ours(request.headers)
        super()._prepare_request(request)  # type: ignore[misc]  # the class mixed with


class _AsyncRouting(_Routing, hook.Async):
    """The same on an event loop."""

    _leastwise_connections = anthropic.DefaultAsyncHttpxClient

    async def close(self) -> None:
        """Close the connections, those to other upstreams too."""
        await self.leastwise.trials.aclose()
        try:
            await super().close()  # type: ignore[misc]  # the class mixed with
        finally:
            for other in self.leastwise.others_of(self._client):  # type: ignore[attr-defined]  # the SDK's
                await other.close()

    async def feedback(self, of: object, *, ok: bool, note: str = "") -> None:
        """Say whether an answer was acceptable; see `_SyncRouting.feedback`."""
        await asyncio.to_thread(self.leastwise.feedback, _said_of(of), ok=ok, note=note)

    async def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:
        """Answer a message by an exchange."""
        request, steps = self._leastwise_call(options, task)
        payload = await self._leastwise_run(options, request, steps, send)
        beside = self._leastwise_beside(options, request, task, send)
        if beside is not None:
            _overheard(payload, beside.on_loop)
        return payload

    async def leastwise_batch(self, options: Any, send: Any) -> Any:
        """Have a batch accepted; reading a hundred thousand requests must not stop the event loop."""

        async def send_whole(*args: Any, **how: Any) -> Any:
            payload = await send(*args, **how)
            response = response_of(payload)
            if response is not None:  # its id is wanted, however the caller reads it
                await response.aread()
            return payload

        read = await asyncio.to_thread(self._leastwise_batch, options)
        return await self._leastwise_run(options, *read, send_whole)

    async def leastwise_results(self, batch_id: str, send: Any) -> Any:
        """Return a batch's results, and settle it by them."""
        lost = await asyncio.to_thread(self._leastwise_lost)
        return self._leastwise_heard(await send(), batch_id, lost, may_wait=False)

    async def _leastwise_run(
        self, options: Any, request: Request, steps: Steps[drivers.End], send: Any
    ) -> Any:
        """Carry out an exchange."""

        async def upstream(step: Send) -> Reply:
            attempt = self._leastwise_options(options, request, step)
            try:
                payload = await send(attempt, self._leastwise_other(step.upstream), is_own=step.is_own)
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises reaches the caller
                return self._leastwise_reply(error)
            return _decoded(_reply(payload)) if step.is_own else _reply(payload)

        try:
            result = await drivers.run_async(steps, upstream, self.leastwise.desk)
        except BudgetExceededError as error:
            raise BudgetStatusError(str(error), **vars(error)) from None
        if isinstance(result.payload, Stored):
            return _told(await send(copy.copy(options), replaying(result.payload, self)), result.life.outcome)
        return _deliver(result)

    async def _prepare_request(self, request: Any) -> None:
        """Make a request ready to be sent, as the SDK does; it comes here before every attempt."""
        _keep_ours(request.headers)
        await super()._prepare_request(request)  # type: ignore[misc]  # the class mixed with


def _reply(payload: Any) -> Reply:
    """Return what the SDK gave as a `Reply`: a message, a stream, a response around one, or anything else."""
    response = response_of(payload)
    if response is not None:
        request_id = response.headers.get("request-id", "")
        if not response.is_stream_consumed:
            held = Held(payload, Reading(response), is_stream=_is_events(response))
            return Reply(held, request_id=request_id)
        return Reply(payload, _facts_of(response), request_id=request_id, body=lambda: response.content)
    if isinstance(payload, dict):
        return Reply(payload, Facts.read(payload), read=lambda: payload)
    usage: Any = getattr(payload, "usage", None)
    facts = Facts(
        model=str(getattr(payload, "model", "")),
        message_id=str(getattr(payload, "id", "")),
        stop_reason=str(getattr(payload, "stop_reason", "") or ""),
        usage=Usage.read(usage.to_dict() if hasattr(usage, "to_dict") else None),
        tool_use_ids=tuple(
            str(block.id)
            for block in getattr(payload, "content", None) or ()
            if getattr(block, "type", None) == "tool_use"
        ),
        is_complete=hasattr(payload, "content"),
    )
    is_whole = isinstance(payload, Message | BetaMessage)  # a caller's own type may leave things out
    return Reply(
        payload,
        facts,
        request_id=str(getattr(payload, "_request_id", "") or ""),
        body=partial(_body_of, payload) if is_whole else None,
        read=partial(_plain_of, payload) if is_whole else None,
    )


def _plain_of(message: Message | BetaMessage) -> dict[str, Any]:
    """Return a message as the SDK decoded it: all that the API sent and nothing else."""
    parsed = {"content": {"__all__": {"parsed_output"}}}  # the SDK's own, in the caller's type
    return message.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=parsed, warnings=False)


def _body_of(message: Message | BetaMessage) -> bytes:
    """Return a message as JSON: it may be spelt otherwise than it came, but the SDK makes the same of it."""
    return json.dumps(_plain_of(message)).encode()


def _decoded(reply: Reply) -> Reply:
    """Return the answer to a request of ours as the core reads it; what is no message it finds nothing in."""
    payload = reply.payload
    return replace(reply, payload=payload.to_dict() if isinstance(payload, Message) else None)


def _keep_ours(headers: Any) -> None:
    """Take out of a request's headers what is for us alone."""
    for name in [name for name in headers if name.lower().startswith(_OURS)]:
        del headers[name]


def betas_in(headers: Mapping[str, Any]) -> list[str]:
    """Return the betas that headers, names in lower case, ask for."""
    return [beta.strip() for beta in str(headers.get(_BETA) or "").split(",") if beta.strip()]


def _list_models(runtime: Runtime, base_url: str, named: Mapping[str, Any]) -> None:
    """Ask an upstream for its models; a failure is logged, and asked again another time."""
    try:
        with anthropic.Anthropic(base_url=base_url, max_retries=0, timeout=_PATIENCE_S, **named) as plain:
            _keep_ours(plain._custom_headers)  # noqa: SLF001 - the SDK's, from the environment
            rows = [row.to_dict() for row in plain.models.list(limit=1000).data]
        runtime.learn_models(base_url, rows)
    except Exception as error:  # noqa: BLE001 - nobody waits for it, and nothing depends on it
        _log.info("%s did not list its models: %s", base_url, type(error).__name__)


def _facts_of(response: Any) -> Facts:
    """Return the facts of a response that has been read."""
    tap = Tap(is_stream=_is_events(response))
    tap.feed(response.content)
    return tap.finish()


def _is_events(response: Any) -> bool:
    return _EVENTS in response.headers.get("content-type", "")


def response_of(payload: Any) -> Any:
    """Return the HTTP response inside a stream or a raw response, or itself; None for a plain message."""
    if isinstance(payload, anthropic.Stream | anthropic.AsyncStream):
        return payload.response
    if hasattr(payload, "is_stream_consumed"):
        return payload
    return getattr(payload, "http_response", None)


def _deliver(result: drivers.Result) -> Any:
    """Hand the SDK's object to the caller, with what became of the request within reach."""
    if isinstance(result.payload, _Unreadable):
        raise result.payload.error
    if result.is_live:
        attach(response_of(result.payload), result.life)
    else:
        _told(result.payload, result.life.outcome)
    return result.payload


def _told(payload: Any, outcome: Outcome | None) -> Any:
    """Return the SDK's object with what became of the request within reach of `outcome`."""
    response = response_of(payload)
    with suppress(AttributeError, TypeError):  # a caller may ask for plain values: text, a dict
        setattr(payload if response is None else response, _OUTCOME, outcome)
    return payload


def outcome(of: object, *, client: Any = None) -> Outcome | None:
    """Return what became of a request: who answered, why, at what cost, and what was saved.

    Args:
        of: A message, a stream or a raw response of a Leastwise client; or an exchange id,
            a `msg_...` id or a `request-id`, looked up in the ledger. An answer from the cache has the
            ids of the call that paid for it, and so has a message read from a stream or a raw response:
            ask of these themselves.
        client: The client whose ledger is asked for an id; by default the configured one.

    Returns:
        The outcome; None while a stream is still being read, or when nothing is known of it.
    """
    known, any_id = _found_on(of)
    if known is not None:
        return known
    if any_id is None:
        return None
    if client is not None:
        runtime: Runtime = client.leastwise
        return runtime.outcome(any_id)
    with Runtime.open() as runtime:
        return runtime.outcome(any_id)


def _life_of(response: Any) -> drivers.Life | None:
    return next((one for one in listeners_of(response) if isinstance(one, drivers.Life)), None)


def _outcome_in(of: object, response: Any, life: drivers.Life | None) -> Outcome | None:
    for told in (of, response):
        known = getattr(told, _OUTCOME, None)
        if isinstance(known, Outcome):
            return known
    return life.outcome if life is not None else None


def _overheard(payload: Any, tell: Callable[[Read], None]) -> None:
    """Have somebody told the answer that the SDK's object holds: now, or when its stream has been read."""
    response = response_of(payload)
    life = _life_of(response)
    known = _outcome_in(payload, response, life)

    def told(read: Callable[[], bytes]) -> None:
        tell(lambda: (message_of(read()), known or (life.outcome if life is not None else None)))

    if response is None:
        told(partial(_body_of, payload) if isinstance(payload, Message | BetaMessage) else bytes)
    elif response.is_stream_consumed:
        told(lambda: response.content)
    else:
        attach(response, Overheard(lambda body: told(lambda: body)))


def _found_on(of: object) -> tuple[Outcome | None, str | None]:
    """Return the outcome that an object of the SDK's carries, and an id by which the ledger knows it."""
    response = getattr(of, "response", None) or response_of(of)
    life = _life_of(response)
    any_id = of if isinstance(of, str) else life.exchange_id if life is not None else getattr(of, "id", None)
    return _outcome_in(of, response, life), any_id if isinstance(any_id, str) else None


def _said_of(of: object) -> str:
    """Return the id of the request that feedback is of.

    Raises:
        TypeError: it is neither an answer nor an id.
    """
    known, any_id = (of, None) if isinstance(of, Outcome) else _found_on(of)
    if known is not None:
        return known.exchange
    if any_id is None:
        message = f"feedback of {type(of).__name__}: expected a message, a stream, an outcome or an id"
        raise TypeError(message)
    return any_id


class _Tasked:
    """Gives a messages resource the `task` argument; mixed in before the SDK's class."""

    def create(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create a message; `task` tells Leastwise what it is for. Otherwise the SDK's `create`."""
        bound = hook.carrying(self, task)
        create = super(_Tasked, bound).create  # type: ignore[misc]  # the class mixed with
        # Without the SDK's check of its arguments this frame takes its place, and a warning of
        # the SDK's names the caller's line.
        inner = getattr(create, "__wrapped__", None)
        return inner(bound, **kwargs) if inner and kwargs.keys() >= _REQUIRED else create(**kwargs)

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Stream a message; `task` tells Leastwise what it is for. Otherwise the SDK's `stream`."""
        return super(_Tasked, hook.carrying(self, task)).stream(**kwargs)  # type: ignore[misc]  # the class mixed with

    def parse(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create and parse a message; `task` tells Leastwise what it is for. Otherwise the SDK's `parse`."""
        return super(_Tasked, hook.carrying(self, task)).parse(**kwargs)  # type: ignore[misc]  # the class mixed with


class _AsyncTasked(_Tasked):
    """The same on an event loop: libraries ask whether these are coroutine functions."""

    async def create(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create a message; see `_Tasked.create`."""
        return await super().create(task=task, **kwargs)

    async def parse(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create and parse a message; see `_Tasked.parse`."""
        return await super().parse(task=task, **kwargs)


class _ToolRunning(_Tasked):
    """The same for a resource that has a tool runner."""

    def tool_runner(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Run tools in a loop whose every call carries `task`. Otherwise the SDK's `tool_runner`."""
        bound: Any = self
        if task is not None:  # the runner asks its client for the resource, so it gets a client of its own
            client = recast(bound._client, lambda kind: kind)  # noqa: SLF001 - the SDK's
            client.beta.messages = bound = hook.carrying(client.beta.messages, task)
        return super(_Tasked, bound).tool_runner(**kwargs)  # type: ignore[misc]  # the class mixed with


@cache
def _tasked(kind: type) -> type:
    own: tuple[type, ...] = (_AsyncTasked,) if issubclass(kind, AsyncAPIResource) else (_Tasked,)
    if hasattr(kind, "tool_runner"):
        own = (_ToolRunning, *own)
    return type(kind.__name__, (*own, kind), {})


def _with_tasks(resource: Any) -> Any:
    """Give a messages resource, or the one inside `beta`, the `task` argument."""
    if hasattr(resource, "messages"):
        _with_tasks(resource.messages)  # a cached property: the object found here is the one used later
    elif not isinstance(resource, _Tasked):
        kind: type = type(resource)
        resource.__class__ = _tasked(kind)
    return resource


class Anthropic(_SyncRouting, anthropic.Anthropic):
    """The SDK's `Anthropic`; see `leastwise.sdk`."""

    def __init__(
        self,
        *,
        leastwise: Runtime | None = None,
        mode: Mode | None = None,
        budget_usd: Decimal | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a client; see the SDK's `Anthropic` for all other arguments.

        Args:
            leastwise: Shares another client's runtime; by default the configured one is opened.
            mode: Overrides the configured mode for real model ids.
            budget_usd: The most that this client and its copies may spend, in US dollars.
            **kwargs: The SDK's own.
        """
        own = _with_profile(anthropic.Anthropic, kwargs)
        super().__init__(leastwise=leastwise, mode=mode, budget_usd=budget_usd, **own)


class AsyncAnthropic(_AsyncRouting, anthropic.AsyncAnthropic):
    """The SDK's `AsyncAnthropic`; see `leastwise.sdk`."""

    def __init__(
        self,
        *,
        leastwise: Runtime | None = None,
        mode: Mode | None = None,
        budget_usd: Decimal | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a client; see the SDK's `AsyncAnthropic` for all other arguments.

        Args:
            leastwise: Shares another client's runtime; by default the configured one is opened.
            mode: Overrides the configured mode for real model ids.
            budget_usd: The most that this client and its copies may spend, in US dollars.
            **kwargs: The SDK's own.
        """
        own = _with_profile(anthropic.AsyncAnthropic, kwargs)
        super().__init__(leastwise=leastwise, mode=mode, budget_usd=budget_usd, **own)


def _runtime(shared: Runtime | None, mode: Mode | None, budget_usd: Decimal | float | None) -> Runtime:
    """Return the runtime that a client is to have: another client's, or one of its own.

    Raises:
        TypeError: a budget of one client, and a runtime that it shares with others.
    """
    if shared is None:
        return Runtime.open(mode=mode, budget_usd=budget_usd)
    if budget_usd is not None:
        message = "budget_usd is for one client: give it without leastwise=, or put a budget into the config"
        raise TypeError(message)
    return shared


def _with_profile(kind: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return `arguments` with the credentials of a profile; the SDK looks for one for its own class only."""
    in_environment = os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN")
    if in_environment or any(arguments.get(name) is not None for name in _NAMED):
        return arguments
    plain = kind(**arguments)
    credentials = getattr(plain, "credentials", None)
    if credentials is None:
        return arguments
    headers = {**getattr(plain, "_credential_headers", {}), **plain._custom_headers}  # noqa: SLF001 - 1.x: all there
    base_url = arguments.get("base_url") or plain.base_url
    return {**arguments, "credentials": credentials, "base_url": base_url, "default_headers": headers}


def wrap(
    client: Client,
    *,
    mode: Mode | None = None,
    leastwise: Runtime | None = None,
    budget_usd: Decimal | float | None = None,
) -> Client:
    """Return a copy of any client of the `anthropic` SDK that runs every message through an exchange.

    Args:
        client: An `Anthropic`, `AsyncAnthropic`, Bedrock, Vertex or other client; it is left as it was.
        mode: Overrides the configured mode for real model ids.
        leastwise: Shares another client's runtime; by default the configured one is opened.
        budget_usd: The most that the copy and its own copies may spend, in US dollars.

    Raises:
        TypeError: not a client of that SDK.
        ConfigError: the configuration is wrong.
    """
    if isinstance(client, _Routing):
        message = "this client is a Leastwise client already"
        raise TypeError(message)
    wrapped = recast(client, _routed)
    wrapped.leastwise = _runtime(leastwise, mode, budget_usd)
    return wrapped


def recast(client: Client, make: Any) -> Client:
    """Return a copy of `client` of the class that `make` gives for its own, with resources of its own."""
    recast: Client = object.__new__(make(type(client)))
    vars(recast).update(vars(client))
    for name, value in list(vars(recast).items()):
        if getattr(value, "_client", None) is client:  # a resource made for the original
            if isinstance(getattr(type(client), name, None), cached_property):
                del recast.__dict__[name]
            else:
                setattr(recast, name, _with_tasks(type(value)(recast)))
    return recast


@cache
def _routed(kind: type) -> type:
    if hasattr(kind, "_request_api_list") and issubclass(kind, _async_base()):
        return type(kind.__name__, (_AsyncRouting, kind), {})
    if hasattr(kind, "_request_api_list"):
        return type(kind.__name__, (_SyncRouting, kind), {})
    message = f"expected a client of the anthropic SDK, got {kind.__name__}"
    raise TypeError(message)


def _async_base() -> type:
    """Return the SDK's base of all async clients, which it does not export."""
    return anthropic.AsyncAnthropic.__mro__[1]


def _other_client(client: Any, upstream: Upstream) -> Any:
    """Return an SDK client for another upstream, sync or async as `client` is, without routing of its own."""
    kind = anthropic.AsyncAnthropic if isinstance(client, _AsyncRouting) else anthropic.Anthropic
    key = os.environ.get(upstream.api_key_env, "") if upstream.api_key_env else ""
    if upstream.api_key_env and not key:
        message = f"no key for the upstream at {upstream.base_url}: {upstream.api_key_env} is not set"
        raise ConfigError(message)
    other: Any = kind(
        base_url=upstream.base_url, api_key=key or "none", timeout=client.timeout, max_retries=0
    )
    # What else the SDK found in the environment is for the caller's upstream.
    other.auth_token, other._custom_headers = None, {}  # noqa: SLF001 - the SDK's
    return other
