"""Message batches: reserved and charged when they are accepted, set right when their results pass.

A batch is sent as it is: none of its requests goes to another model. Each of its models has an entry in
the ledger and a lease of its own, over all its requests at the batch price: all are granted, or nothing
is sent.

Results come hours later, perhaps to another process, perhaps never. So an accepted batch is charged its
worst case at once, as an attempt of which nobody knows what it cost (`lost`), under the batch's id. Whoever
reads the results to their end settles these entries at what the lines add up to, and writes the batch's
one row. Until then it has none; a batch that was not accepted has one at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from leastwise import features
from leastwise.attempt import Call, Terms, may_retry, moment, note_fault, pause_s
from leastwise.budget import Payer, Purse
from leastwise.errors import (
    BudgetError,
    BudgetExceededError,
    LeastwiseError,
    RequestError,
    UnknownPriceError,
    UpstreamFailure,
)
from leastwise.leasing import check_bounded, refused, reserve, worst_of
from leastwise.ledger import Charge, Entry, Exchange, Reserved, StepDown, new_id
from leastwise.messages import JSON, Facts, Reply, Request, Usage
from leastwise.models import canonical
from leastwise.prices import DEFAULT_PROVIDER, Cost, PriceBook, cost
from leastwise.steps import Lease, Load, Record, Settle, Sleep, Steps, load, send

ENDPOINT: Final = "/v1/messages/batches"

_NO_DECISION: Final = '{"reasons":[]}'


@dataclass(frozen=True, slots=True)
class Accepted:
    """A batch that the API has taken on; what becomes of it is not known yet."""

    reply: Reply
    outcome: None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is to be sent: whose it is, and the most that each of its models can cost."""

    call: Call
    terms: Terms
    purse: Purse
    worst: Mapping[str, int]


def read(call: Call, terms: Terms, *, counts_unpriced: bool) -> Batch:
    """Read a batch's requests, each as strictly as a message; where no budget asks, they may be strange.

    Args:
        call: Its request is the batch's.
        terms: See `Terms`.
        counts_unpriced: Count a model without a price at $0 instead of refusing it.

    Raises:
        UnboundedError: a budget cannot cover what has no bound.
        UnknownPriceError: a model has no price.
        RequestError: it cannot be read, so that no budget can cover it.
    """
    purse = Purse(terms.limits.rules, Payer(key=call.key, tenant=call.tenant), call.at)
    try:
        asked = _requests(call.request)
        if purse.rules and asked:
            session = features.read(asked[0], call.task, call.headers).session
            purse = replace(purse, payer=replace(purse.payer, session=session))
        return Batch(call, terms, purse, _worst(asked, call, terms, purse, counts_unpriced=counts_unpriced))
    except Exception as error:  # a batch that no budget covers passes, whatever we make of it
        if isinstance(error, LeastwiseError) and (purse.rules or not isinstance(error, RequestError)):
            raise
        if purse.rules:
            message = f"requests: cannot be read, so no budget can cover them: {type(error).__name__}"
            raise RequestError(message) from error
        note_fault("reading a batch", error)
        return Batch(call, terms, purse, {})


def _requests(body: Request) -> list[Request]:
    return [
        Request.of(item["params"], version=body.version, betas=body.betas) for item in body.get("requests")
    ]


def _worst(
    asked: Sequence[Request], call: Call, terms: Terms, purse: Purse, *, counts_unpriced: bool
) -> dict[str, int]:
    """Return the most that the requests can cost, by model."""
    is_estimate = terms.limits.unbounded == "estimate"
    claims = {model: purse.claims(model) for model in {canonical(request.model) for request in asked}}
    worst = dict.fromkeys(claims, 0)
    for request in asked:
        model = canonical(request.model)
        if claims[model] and not is_estimate:
            check_bounded(request, claims[model][0].rule.name)
        try:
            worst[model] += worst_of(
                request, DEFAULT_PROVIDER, call.at, terms.book, is_estimate=is_estimate, is_batch=True
            ).nusd
        except UnknownPriceError:
            if not counts_unpriced:
                raise
    return worst


def submit(batch: Batch) -> Steps[Accepted]:
    """Send a batch until it is accepted or may not be tried again.

    Raises:
        UpstreamFailure: it was not accepted; its row is written.
        BudgetExceededError: a budget has too little left; the row is written, nothing was sent.
        BudgetUnavailableError: a budget cannot be asked; the same.
    """
    call, terms = batch.call, batch.terms
    if batch.purse.rules:
        accounts = batch.purse.accounts(batch.worst)
        known = yield from load(Load("", (), call.tenant, accounts=accounts))
        batch = replace(batch, purse=replace(batch.purse, raised=known.raised))
    parents: dict[str, str] = {}
    turn = 0
    while True:
        held = yield from _reserved(batch, parents)
        try:
            reply = yield from send(call.id, DEFAULT_PROVIDER, call.request)
        except UpstreamFailure as failure:
            is_unknown = failure.status is None and failure.was_sent  # it may have been accepted
            for one in held:
                yield _settle(call, _lost(one, parents) if is_unknown else _free(one, parents, failure))
            if turn >= call.max_retries or not may_retry(failure):
                yield _unserved(batch, "error", failure.status or 0)
                raise
            yield Sleep(pause_s(failure.headers, turn, terms.rng, terms.clock()))
            turn += 1
            continue
        for one in held:
            entry = replace(_lost(one, parents), status=200, request_id=reply.request_id)
            yield _settle(call, replace(entry, message_id=reply.facts.message_id))
        return Accepted(reply)


def _reserved(batch: Batch, parents: dict[str, str]) -> Steps[tuple[Reserved, ...]]:
    """Take a lease for each model, the dearest first; where one cannot be had, give back the others."""
    call, terms = batch.call, batch.terms
    held: list[Reserved] = []

    def abandoned(facts: Facts | None) -> tuple[Settle | Record, ...]:
        settled = {entry.id for entry in call.spent}
        left = [one for one in held if one.id not in settled]
        entries = [_free(one, parents) if facts is None else _lost(one, parents) for one in left]
        return (*[_settle(call, entry) for entry in entries], _unserved(batch, "abandoned", 0))

    for model, worst_nusd in sorted(batch.worst.items(), key=lambda item: (-item[1], item[0])):
        claims = batch.purse.claims(model)
        now = terms.clock()
        charges = tuple(Charge(one.account.id, one.account.window.key, worst_nusd) for one in claims)
        reserved = Reserved(
            new_id(now, terms.rng), call.id, "batch", DEFAULT_PROVIDER, model, now, worst_nusd, charges
        )
        mine = {one.account.id: sum(_paid(lease, one.account.id) for lease in held) for one in claims}
        held.append(reserved)
        try:
            refusal = yield from reserve(Lease(reserved, claims, abandoned), terms.limits, call.waited, mine)
            if refusal is not None:
                needed = worst_nusd + mine[refusal.claim.account.id]
                standing = refusal.standing
                others = replace(standing, leased_nusd=standing.leased_nusd + worst_nusd - needed)
                raise refused(replace(refusal, standing=others), needed, terms.limits, terms.ladder, ())
        except BudgetError as error:
            is_asked = isinstance(error, BudgetExceededError)
            for one in held[:-1] if is_asked else held:  # it may have been granted, and the word of it lost
                yield _settle(call, _free(one, parents))
            yield _unserved(batch, "blocked", error.http_status, error)
            raise
    for one in held:
        parents.setdefault(one.model, one.id)
    return tuple(held)


def _paid(reserved: Reserved, account: str) -> int:
    return sum(charge.nusd for charge in reserved.charges if charge.budget_id == account)


def _settle(call: Call, entry: Entry) -> Settle:
    call.spent.append(entry)
    return Settle(entry)


def _lost(one: Reserved, parents: Mapping[str, str]) -> Entry:
    """Return the entry of requests of which nobody knows yet what they cost."""
    first = parents.get(one.model, one.id)
    return replace(one.lost(), parent="" if first == one.id else first)


def _free(one: Reserved, parents: Mapping[str, str], failure: UpstreamFailure | None = None) -> Entry:
    """Return the entry of requests that cost nothing, for they were not sent or not accepted."""
    entry = _at_cost(_lost(one, parents), 0, "", Usage())
    if failure is None:
        return entry
    return replace(entry, status=failure.status or 0, request_id=failure.request_id or "")


def _at_cost(entry: Entry, nusd: int, price_row: str, usage: Usage) -> Entry:
    charges = tuple(replace(charge, nusd=nusd) for charge in entry.charges)
    return replace(
        entry, cost_nusd=nusd, certainty="exact", price_row=price_row, usage=usage, charges=charges
    )


def _unserved(batch: Batch, result: str, status: int, short: BudgetError | None = None) -> Record:
    """Return the row of a batch that was not accepted."""
    call, terms = batch.call, batch.terms
    asked = max(batch.worst, key=lambda model: batch.worst[model], default="")
    spent_nusd = sum(entry.cost_nusd for entry in call.spent)
    row = _row(call.id, call.at, terms, asked, result=result, status=status)
    certainty = "lost" if spent_nusd else "exact"
    row = replace(
        row,
        tenant=call.tenant,
        key=call.key,
        spent_nusd=spent_nusd,
        discarded_nusd=spent_nusd,
        certainty=certainty,
    )
    if short is None or not short.account:
        return Record(row)
    percent = float(short.percent)
    return Record(row, step_downs=(StepDown(short.account, short.window_key, asked, "", percent, "cap"),))


def _row(id_: str, at: float, terms: Terms, asked: str, *, result: str, status: int) -> Exchange:
    """Return the row of a batch of which nothing was used."""
    return Exchange(
        id=id_,
        at=at,
        tenant="local",
        kind="batch",
        mode="off",
        asked=asked,
        upstream=DEFAULT_PROVIDER,
        result=result,
        status=status,
        decision_json=_NO_DECISION,
        policy_hash=terms.policy_hash,
        baseline=asked,
        baseline_how="asked",
        latency_s=max(0.0, terms.clock() - at),
    )


class Results:
    """Adds up what a batch cost, from the bytes of its results as they pass.

    Args:
        batch_id: `msgbatch_...`.
        lost: The entries of which nobody knows what they cost.
        terms: See `Terms`.
    """

    def __init__(self, batch_id: str, lost: Sequence[Entry], terms: Terms) -> None:
        self._entries = {entry.model: entry for entry in lost if entry.message_id == batch_id}
        calls = {entry.exchange_id for entry in self._entries.values()}
        #: Tries before, of which nobody heard whether they were accepted.
        self._before = sum(
            entry.cost_nusd for entry in lost if entry.exchange_id in calls and not entry.message_id
        )
        self._terms = terms
        self._line = bytearray()
        self._used = dict.fromkeys(self._entries, Usage(service_tier="batch"))
        self._costs: dict[str, int] = dict.fromkeys(self._entries, 0)
        self._rows: dict[str, dict[str, None]] = {model: {} for model in self._entries}
        self._lines = self._answers = 0

    def __bool__(self) -> bool:
        """Tell whether there is anything to settle."""
        return bool(self._entries)

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes.

        Raises:
            ValueError: a line is no result.
        """
        self._line += chunk
        if b"\n" in chunk:
            *whole, rest = self._line.split(b"\n")
            self._line = rest
            for line in whole:
                self._read(line)

    def finish(self) -> tuple[Settle | Record, ...]:
        """Return what to write now that all results have passed; nothing where there were none.

        Raises:
            ValueError: the last line is no result.
        """
        self._read(self._line)
        if not self._lines:
            return ()
        settled = [
            _at_cost(entry, self._costs[model], "+".join(self._rows[model]), self._used[model])
            for model, entry in self._entries.items()
        ]
        return (*map(Settle, settled), Record(self._told(settled)))

    def _read(self, line: bytes | bytearray) -> None:
        if not line.strip():
            return
        result = msgspec.json.decode(line, type=_Line).result
        self._lines += 1
        if result.get("type") != "succeeded":
            return  # errored, canceled and expired requests are not billed
        message = result.get("message")
        self._answers += 1
        facts = Facts.read(message if isinstance(message, dict) else {})
        model = canonical(facts.model)
        if model not in self._entries:  # an answer that names itself in a spelling of its own
            model = max(self._entries, key=lambda one: self._entries[one].worst_nusd)
        paid = _price(facts, self._entries[model], self._terms.book)
        self._used[model] = self._used[model].plus(facts.usage)
        self._costs[model] += paid.nusd
        if paid.price_row:
            self._rows[model][paid.price_row] = None

    def _told(self, settled: Sequence[Entry]) -> Exchange:
        """Return the batch's row, under the model that cost the most."""
        dearest = max(settled, key=lambda entry: entry.cost_nusd)
        exact_nusd, terms = sum(entry.cost_nusd for entry in settled), self._terms
        asked_at = min(entry.asked_at for entry in settled)
        result = "ok" if self._answers else "error"
        row = _row(dearest.exchange_id, asked_at, terms, dearest.model, result=result, status=200)
        return replace(
            row,
            served=dearest.model if self._answers else "",
            tier=terms.ladder.serving(dearest.model).name if self._answers else "",
            baseline_nusd=exact_nusd,
            spent_nusd=exact_nusd + self._before,
            discarded_nusd=self._before,
            certainty="lost" if self._before else "exact",
            input_tokens=sum(entry.usage.prompt_tokens for entry in settled),
            output_tokens=sum(entry.usage.output_tokens for entry in settled),
        )


class _Line(msgspec.Struct):
    """One line of a batch's results, as far as it tells of money."""

    result: dict[str, JSON]


def _price(facts: Facts, entry: Entry, book: PriceBook) -> Cost:
    """Return what one result cost; nothing where no price is known, as in `attempt`."""
    at = moment(entry.asked_at)
    model = facts.model if book.has(facts.model, at, entry.provider) else entry.model
    for usage in (facts.usage, replace(facts.usage, iterations=())):
        if usage.iterations or book.has(model, at, entry.provider):
            try:
                return cost(usage, model, at, book, provider=entry.provider, is_batch=True)
            except UnknownPriceError:
                continue
    return Cost(0, "")
