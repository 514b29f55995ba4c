"""One attempt after another at one model: lease, send, retry, settle.

An attempt is an entry of the ledger with a lease of its own. A refused or failed
attempt (an HTTP error, a connection never made) settles at 0; one that was cut
after it was sent settles as `estimated`, never below what was billed. Retries are
ours, in this one place, by the caller's own settings and the upstream's hints.

Retry rules follow the official SDK: 408, 409, 429, 5xx and connection errors;
`x-should-retry`, `retry-after-ms` and `retry-after` are obeyed.
Source: https://github.com/anthropics/anthropic-sdk-python `_base_client.py`
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

from leastwise.budget import Claim, Limits, Purse
from leastwise.cache import NO_CACHE, Caching
from leastwise.cascade import NO_PLAN, Gate, Plan
from leastwise.compile import Fit
from leastwise.errors import BudgetUnavailableError, UnknownPriceError, UpstreamFailure
from leastwise.features import Features
from leastwise.ladder import Adviser, Decision, Ladder, Task, Tier
from leastwise.leasing import cap_of, check_bounded, costs_below, refused, reserve, worst_of
from leastwise.ledger import Certainty, Charge, Entry, Purpose, Reserved, new_id
from leastwise.messages import Facts, Reply, Request, Usage
from leastwise.models import Models, canonical
from leastwise.prices import Cost, PriceBook, cost
from leastwise.routing import Known
from leastwise.steps import Lease, Record, Relayed, Settle, Sleep, Steps, hold, relay, send
from leastwise.tally import prompt_bound

_log: Final = logging.getLogger(__name__)

#: How an upstream says that a request does not fit the model.
MISFITS: Final = frozenset({400, 404, 413})

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0
_DOUBLINGS: Final = 4  # from the first pause to the longest
_LONGEST_HINT_S: Final = 60.0
_LONGEST_FOR_A_JUDGE_S: Final = 2.0  # somebody waits for an answer that is there
_JITTER: Final = 0.25

_RETRIED: Final = frozenset({408, 409, 429})
_SERVER_ERROR: Final = 500

#: Faster than any Claude model answers: what an unseen answer may have produced by now.
_TOKENS_PER_S: Final = 250
#: A token of Claude's has more than two bytes in every script measured.
_BYTES_PER_TOKEN: Final = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """What exchanges need from outside; the same for all exchanges of one client.

    Attributes:
        decide: Chooses the model (`Router.decide`).
        fit: Fits a request to a model (`compile.fit`).
        ladder: The tiers.
        book: Dated prices.
        models: What is known of each model.
        policy_hash: Names the policy in force.
        adviser: The small model to ask where nothing else tells what a request is; None to ask none.
        limits: The budgets.
        below: Returns the next cheaper tier that a decision may go to, if any (`Router.below`).
        caching: Returns what a request does with the cache.
        clock: Seconds since the epoch.
        rng: Draws ids, shares and jitter.
    """

    decide: Callable[[Call, Features, Known, float], Decision]
    fit: Callable[[Request, str], Fit]
    ladder: Ladder
    book: PriceBook
    models: Models
    policy_hash: str
    clock: Callable[[], float]
    rng: random.Random
    adviser: Adviser | None = None
    limits: Limits = field(default_factory=Limits)
    below: Callable[[Call, Decision], Tier | None] = lambda _call, _decision: None
    caching: Callable[[Call], Caching] = lambda _call: NO_CACHE


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one caller, as it enters an exchange.

    `headers` are the caller's, names in lower case; `origin` tells which server the caller names, what
    else of the address an answer depends on, and with whose key, as a hash. `plan` is what its answer has
    to pass. `spent` and `waited` fill on the way: its entries, and its pauses for leases.
    """

    id: str
    at: float
    request: Request
    task: Task
    tenant: str = "local"
    key: str = ""
    max_retries: int = 2
    headers: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    plan: Plan = NO_PLAN
    spent: list[Entry] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """A settled attempt: the reply, its final facts, its entry, and what cut it short, if anything.

    `body` returns its bytes, where they were asked for and can be had. `is_relayed` tells that the caller
    has it already: it came live, and was not held back to its end.
    """

    reply: Reply
    facts: Facts
    entry: Entry
    failure: UpstreamFailure | None = None
    body: Callable[[], bytes] | None = None
    is_relayed: bool = False


@dataclass(frozen=True, slots=True)
class _Sent:
    """One attempt under way: enough to write its entry however it ends."""

    call: Call
    terms: Terms
    request: Request
    upstream: str
    purpose: Purpose
    parent: str
    id: str
    at: float
    worst: Cost
    claims: tuple[Claim, ...]

    def reserved(self) -> Reserved:
        """Return what is to be held until the attempt is settled."""
        return Reserved(
            id=self.id,
            exchange_id=self.call.id,
            purpose=self.purpose,
            provider=self.upstream,
            model=self.request.model,
            at=self.at,
            worst_nusd=self.worst.nusd,
            charges=self._charges(self.worst.nusd),
        )

    def _charges(self, nusd: int) -> tuple[Charge, ...]:
        accounts = (claim.account for claim in self.claims)
        return tuple(Charge(account.id, account.window.key, nusd) for account in accounts)

    def released(self) -> Entry:
        """Return the entry for an attempt that was never sent."""
        return self._entry(self.request.model, Usage(), "exact", status=0, facts=Facts(), request_id="")

    def entry(self, facts: Facts, *, status: int, request_id: str = "") -> Entry:
        """Return the entry for an answer: exact when it arrived whole, else estimated upwards."""
        model = facts.model or self.request.model
        is_told = facts.is_complete and facts.usage != Usage()
        certainty: Certainty = "exact" if is_told else "estimated"
        usage = facts.usage if is_told else self._estimate(facts)
        return self._entry(model, usage, certainty, status=status, facts=facts, request_id=request_id)

    def failed(self, failure: UpstreamFailure) -> Entry:
        """Return the entry for an attempt that brought no answer."""
        request_id = failure.request_id or ""
        if failure.status is not None or not failure.was_sent:
            return self._entry(
                self.request.model,
                Usage(),
                "exact",
                status=failure.status or 0,
                facts=Facts(),
                request_id=request_id,
            )
        return self.entry(Facts(), status=0, request_id=request_id)

    def _estimate(self, facts: Facts) -> Usage:
        """Return usage of an answer that broke off or did not tell: input as reported, else its bound.

        Output is the largest of the last report, what was seen, and what the model could
        have produced by now, thinking that is never shown included; at most `max_tokens`.
        """
        elapsed_s = max(0.0, self.terms.clock() - self.at)
        output = max(
            facts.usage.output_tokens,
            facts.visible_bytes // _BYTES_PER_TOKEN,
            int(elapsed_s * _TOKENS_PER_S),
        )
        usage = facts.usage
        if not usage.prompt_tokens:
            usage = Usage(input_tokens=prompt_bound(self.request), speed=_speed(self.request))
        return replace(usage, output_tokens=min(output, max(cap_of(self.request), facts.usage.output_tokens)))

    def _entry(
        self, model: str, usage: Usage, certainty: Certainty, *, status: int, facts: Facts, request_id: str
    ) -> Entry:
        priced = self._price(model, usage)
        return Entry(
            id=self.id,
            exchange_id=self.call.id,
            parent=self.parent,
            purpose=self.purpose,
            provider=self.upstream,
            model=model,
            asked_at=self.at,
            status=status,
            usage=usage,
            price_row=priced.price_row,
            cost_nusd=priced.nusd,
            worst_nusd=self.worst.nusd,
            certainty=certainty,
            message_id=facts.message_id,
            request_id=request_id,
            charges=self._charges(priced.nusd),
        )

    def _price(self, model: str, usage: Usage) -> Cost:
        at = moment(self.at)
        book = self.terms.book
        if not book.has(model, at, self.upstream):
            model = self.request.model  # an answer that names itself in a spelling of its own
        if not usage.iterations and not book.has(model, at, self.upstream):
            return Cost(0, "")  # unpriced models are allowed, or we are off
        try:
            return cost(usage, model, at, book, provider=self.upstream)
        except UnknownPriceError:
            # A part of the answer ran on a model nobody knows: an answer that is paid for is never
            # withheld for want of a price.
            return self._price(model, replace(usage, iterations=()))


def fitted(call: Call, terms: Terms, model: str) -> Fit:
    """Return what has to differ in the call's request for `model`; its name alone, where we fail."""
    try:
        return terms.fit(call.request, model)
    except Exception as error:  # noqa: BLE001 - fitting must never cost the caller an answer
        note_fault("fitting", error)
        return Fit({"model": model})


def note_fault(what: str, error: Exception, so: str = "the request goes where it would have gone") -> str:
    """Log what failed, where, and what follows; not the error's own words, which may quote a prompt."""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    where = frames[-1] if frames else "an unknown place"
    name = type(error).__name__
    _log.error("%s failed (%s at %s): %s", what, name, where, so)
    return f"{what}: {name}"


def attempt(
    call: Call,
    terms: Terms,
    request: Request,
    upstream: str,
    *,
    abandoned: Callable[[Entry], Record],
    purse: Purse,
    purpose: Purpose = "answer",
    counts_unpriced: bool = False,
    is_kept: bool = False,
    gate: Gate | None = None,
) -> Steps[Answer]:
    """Send `request` until it is answered or may not be tried again.

    Args:
        call: The exchange this belongs to; every entry is added to its `spent`.
        terms: See `Terms`.
        request: What to send, its `model` already chosen.
        upstream: Who serves that model.
        abandoned: Builds the request's row when the caller leaves during this attempt.
        purse: The budgets that pay for it.
        purpose: What the ledger calls it; repeats of an answer are `retry`.
        counts_unpriced: Count a model without a price at $0 instead of refusing it, unless a budget pays.
        is_kept: Whether the bytes of the answer are wanted.
        gate: Holds back the answer of a live reply: it may be let go, dropped, or held to its end.

    Raises:
        UpstreamFailure: the last attempt failed before an answer began.
        BudgetExceededError: a budget has too little left; nothing was sent for it.
        UnboundedError: a budget cannot cover what has no bound.
        UnknownPriceError: the model has no price; nothing was sent.
    """
    parent, claims = "", purse.claims(canonical(request.model))
    is_estimate = terms.limits.unbounded == "estimate"
    if claims and not is_estimate:
        check_bounded(request, claims[0].rule.name)
    for turn in range(call.max_retries + 1):
        now = terms.clock()
        sent = _Sent(
            call,
            terms,
            request,
            upstream,
            "retry" if turn and purpose == "answer" else purpose,  # a judge's is still the judge's
            parent,
            id=new_id(now, terms.rng),
            at=now,
            worst=_worst(request, upstream, now, terms, counts_unpriced=counts_unpriced and not claims),
            claims=claims,
        )
        parent = parent or sent.id
        lease = Lease(sent.reserved(), claims, _on_abandon(sent, abandoned))
        try:
            refusal = yield from reserve(lease, terms.limits, call.waited)
        except BudgetUnavailableError:
            yield _settle(call, sent.released())  # it may have been granted, and the word of it lost
            raise
        if refusal is not None:
            costs = costs_below(request, terms.ladder, now, terms.book, is_estimate=is_estimate)
            raise refused(refusal, sent.worst.nusd, terms.limits, terms.ladder, costs)
        try:
            reply = yield from send(sent.id, upstream, request, is_own=purpose != "answer")
        except UpstreamFailure as failure:
            yield _settle(call, sent.failed(failure))
            broken = failure
        else:
            answer = yield from _received(sent, reply, gate, is_kept=is_kept)
            yield _settle(call, answer.entry)
            if answer.failure is None or answer.is_relayed:
                return answer
            broken = answer.failure  # while it was held back: the caller has seen nothing of it
        pause = pause_s(broken.headers, turn, terms.rng, terms.clock())
        is_long = purpose == "judge" and pause > _LONGEST_FOR_A_JUDGE_S
        if turn == call.max_retries or not may_retry(broken) or is_long:
            raise broken
        yield Sleep(pause)
    raise AssertionError


def _received(sent: _Sent, reply: Reply, gate: Gate | None, *, is_kept: bool) -> Steps[Answer]:
    """Return the answer that a reply is: read already, relayed as it comes, or held back first."""
    call, relayed, body, is_relayed = sent.call, Relayed(reply.facts), reply.body, False
    if reply.is_live:
        if gate is not None:
            gate.begin()
            relayed = yield from hold(reply, gate)
        is_relayed = gate is None or gate.is_committed
        if is_relayed:
            relayed = yield from relay(reply, is_kept=is_kept or gate is not None)
        body = partial(bytes, relayed.body)
    entry = sent.entry(relayed.facts, status=200, request_id=reply.request_id)
    if sent.claims and entry.cost_nusd > entry.worst_nusd:
        _log.warning(
            "call %s cost more than was reserved for it: %d of %d nano-dollars",
            call.id,
            entry.cost_nusd,
            entry.worst_nusd,
        )
    return Answer(reply, relayed.facts, entry, relayed.failure, body, is_relayed)


def _settle(call: Call, entry: Entry) -> Settle:
    call.spent.append(entry)
    return Settle(entry)


def _on_abandon(
    sent: _Sent, abandoned: Callable[[Entry], Record]
) -> Callable[[Facts | None], tuple[Settle, Record]]:
    def write(facts: Facts | None) -> tuple[Settle, Record]:
        settled = next((entry for entry in sent.call.spent if entry.id == sent.id), None)
        entry = settled or (sent.released() if facts is None else sent.entry(facts, status=0))
        settle = Settle(settled) if settled else _settle(sent.call, entry)
        return settle, abandoned(settle.entry)

    return write


def _worst(request: Request, upstream: str, now: float, terms: Terms, *, counts_unpriced: bool) -> Cost:
    is_estimate = terms.limits.unbounded == "estimate"
    try:
        return worst_of(request, upstream, now, terms.book, is_estimate=is_estimate)
    except UnknownPriceError:
        if counts_unpriced:
            return Cost(0, "")
        raise


def _speed(request: Request) -> str:
    return "fast" if request.get("speed") == "fast" else "standard"


def moment(seconds: float) -> datetime:
    """Return seconds since the epoch as a time with its zone."""
    return datetime.fromtimestamp(seconds, UTC)


def may_retry(failure: UpstreamFailure) -> bool:
    """Tell whether the same request may be sent again; the upstream's own word comes first."""
    hint = failure.headers.get("x-should-retry")
    if hint in ("true", "false"):
        return hint == "true"
    return failure.status is None or failure.status in _RETRIED or failure.status >= _SERVER_ERROR


def pause_s(headers: Mapping[str, str], turn: int, rng: random.Random, now: float) -> float:
    """Return seconds to wait before retry `turn`: as the upstream asks, else doubling from 0.5 to 8."""
    hinted = _hinted_pause_s(headers, now)
    if hinted is not None and 0 < hinted <= _LONGEST_HINT_S:
        return hinted
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(turn, _DOUBLINGS), _LONGEST_PAUSE_S)
    return pause * (1 - _JITTER * rng.random())


def _hinted_pause_s(headers: Mapping[str, str], now: float) -> float | None:
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return float(text) * scale
        except ValueError:
            pass
        try:
            return parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            continue
    return None
