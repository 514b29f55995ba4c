"""The ledger's rows: what one request did, what each attempt cost, which budgets paid.

`Exchange`: one row per request, whatever became of it. `Entry`: one per upstream
attempt that may have cost something. `Charge`: which budget windows paid an entry.
`Reserved`: what is held for an attempt under way. `StepDown`: what a budget made cheaper.
`Feedback`: what somebody who knows says of an answer.
A lease's id, its entry's id and the idempotency key are one ULID. Stores keep
these values (`stores`), reports only read them (`report`); no SQL here.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from leastwise.messages import Usage

Purpose = Literal["answer", "judge", "classifier", "shadow", "retry", "pack", "batch"]
Certainty = Literal["exact", "estimated", "lost"]
Source = Literal["user", "tests", "agreement"]
SOURCES: tuple[Source, ...] = get_args(Source)
#: What a call can be found by, in words.
IDS = "exchange ids, msg_... ids and request-ids"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)  # ten bits each
_RANDOM_BITS = 80
_TIME_BITS = 48


def new_id(now: float, rng: random.Random) -> str:
    """Return a ULID: 48 bits of milliseconds, 80 random bits, as 26 sortable characters.

    Source: https://github.com/ulid/spec
    """
    return _ulid(now, rng.getrandbits(_RANDOM_BITS))


def first_id(at: float) -> str:
    """Return the smallest id of that millisecond: what is older sorts before it."""
    return _ulid(at, 0)


def _ulid(at: float, noise: int) -> str:
    number = (int(at * 1000) & ((1 << _TIME_BITS) - 1)) << _RANDOM_BITS | noise
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in range(120, -1, -10)])


@dataclass(frozen=True, slots=True)
class Charge:
    """One budget window that paid one entry; the window is fixed when the lease is taken."""

    budget_id: str
    window_key: str
    nusd: int


@dataclass(frozen=True, slots=True)
class StepDown:
    """One time that a budget had a request answered by a cheaper tier, or would have.

    Attributes:
        account: The budget's account, such as `team-a|key=alice`.
        window_key: The window of it.
        before: The tier or model chosen first.
        after: The one chosen instead; the same where it was put off to the next human turn.
        percent: How much of the limit was spent, in per cent.
        trigger: `above 70%`, `cap` where a reservation did not fit, or `deferred`.
    """

    account: str
    window_key: str
    before: str
    after: str
    percent: float
    trigger: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One upstream attempt: what it used and what it cost.

    Attributes:
        id: ULID; also the lease's id.
        exchange_id: The request it served.
        parent: The entry it repeats, or "".
        purpose: Why it was made.
        provider: Who billed it.
        model: The model that answered, else the one that was asked.
        asked_at: Seconds since the epoch.
        status: HTTP status, or 0 when no answer came.
        usage: Token counts by class.
        price_row: The dated rate used, or "" when nothing was billed.
        cost_nusd: What it cost.
        worst_nusd: What was reserved for it.
        certainty: `exact` by the upstream's own usage, else `estimated`; `lost` where nobody knows: with its
            process, or for a batch (`is_pending`) until its results have passed.
        message_id: `msg_...`, for a batch `msgbatch_...`, or "".
        request_id: The upstream's `request-id`, or "".
        charges: The budget windows that paid.
    """

    id: str
    exchange_id: str
    purpose: Purpose
    provider: str
    model: str
    asked_at: float
    status: int
    usage: Usage
    price_row: str
    cost_nusd: int
    worst_nusd: int
    certainty: Certainty
    parent: str = ""
    message_id: str = ""
    request_id: str = ""
    charges: tuple[Charge, ...] = ()

    @property
    def is_pending(self) -> bool:
        """Whether it is of a batch that was accepted and whose results nobody has read yet."""
        return self.certainty == "lost" and self.purpose == "batch" and self.message_id != ""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What is held for one attempt until it is settled; enough to write its entry if nobody else does.

    Attributes:
        id: The lease's and the entry's id.
        exchange_id: The request it serves.
        purpose: Why it is made.
        provider: Who will bill it.
        model: The model asked.
        at: When it was reserved, seconds since the epoch.
        worst_nusd: The most that it can cost.
        charges: The budget windows that hold it, with `worst_nusd` each.
        owner: The process that made it, as its store names it; "" where no store has it yet.
    """

    id: str
    exchange_id: str
    purpose: Purpose
    provider: str
    model: str
    at: float
    worst_nusd: int
    charges: tuple[Charge, ...] = ()
    owner: str = ""

    def lost(self) -> Entry:
        """Return the entry for an attempt whose process died: nobody knows what it cost, so the most."""
        return Entry(
            id=self.id,
            exchange_id=self.exchange_id,
            purpose=self.purpose,
            provider=self.provider,
            model=self.model,
            asked_at=self.at,
            status=0,
            usage=Usage(),
            price_row="",
            cost_nusd=self.worst_nusd,
            worst_nusd=self.worst_nusd,
            certainty="lost",
            charges=self.charges,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request's whole life, as one row.

    Attributes:
        id: ULID.
        at: When it began, seconds since the epoch.
        kind: `message`, `batch` or `trial`, later also `pack`.
        mode: `auto`, `observe`, `enforce` or `off`.
        asked: The model named in the request.
        served: The model that answered, or "" when none did.
        tier: Its tier, or "".
        upstream: The upstream that served.
        result: `ok`, `error`, `cut` (the stream broke), `abandoned` (the caller left), or `blocked`
            (a budget had too little left).
        status: HTTP status of the last attempt, 200 for an answer, 0 when no answer came.
        decision_json: Reasons, complexity, features: what `why` shows. Never text of a prompt.
        policy_hash: The policy in force.
        baseline: The model compared with.
        baseline_how: How it is known.
        baseline_nusd: The baseline's price for the tokens used.
        spent_nusd: Everything spent on this request, retries and discarded answers included.
        discarded_nusd: The part of it for answers that nobody got.
        saved_nusd: `baseline_nusd - spent_nusd` where we chose, else 0; signed.
        could_nusd: In observe mode: what the routed model would have saved, quality unknown.
        arm: `treated`, or `kept` for traffic outside the switched-on share.
        latency_s: From the request to its last byte.
        fault: What of ours failed on the way, or "".
        checks_nusd: The part of it for classifiers and judges.
        misfit: The model that refused the request although we took it to fit, or "".
        misfit_field: What of the request it refused, where it said so, or "".
        lost_cache_nusd: The part of `spent_nusd` for reading anew what the session had in the prompt cache
            of the model it was moved from.
        cache: `hit` where an answer was given again, `miss` where none was there, "" where none was
            looked for.
        checked: What the checks said of the answer served: `accept`, `escalate`, `abstain`, or "" where
            nothing was checked.
        escalations: How many tiers it climbed because a check did not accept.
    """

    id: str
    at: float
    tenant: str
    key: str = ""
    session: str = ""
    tag: str = ""
    kind: str
    mode: str
    asked: str
    served: str = ""
    tier: str = ""
    upstream: str
    would: str = ""
    result: str
    status: int
    decision_json: str
    policy_hash: str
    baseline: str
    baseline_how: str
    baseline_nusd: int = 0
    spent_nusd: int = 0
    discarded_nusd: int = 0
    saved_nusd: int = 0
    could_nusd: int = 0
    arm: str = "treated"
    complexity: str = ""
    task_type: str = ""
    certainty: str = "exact"
    input_tokens: int = 0
    output_tokens: int = 0
    latency_s: float
    fault: str = ""
    misfit: str = ""
    misfit_field: str = ""
    lost_cache_nusd: int = 0
    checks_nusd: int = 0
    cache: str = ""
    checked: str = ""
    escalations: int = 0


@dataclass(frozen=True, slots=True)
class Feedback:
    """Whether an answer was acceptable, by somebody or something that knows.

    Attributes:
        exchange_id: The request.
        ok: Whether it was.
        source: `user`, `tests`, or `agreement` with the top tier's answer. Where several spoke, the first
            of these three counts.
        at: When it was said, seconds since the epoch.
        tier: Whose answer to that request is meant; "" for the one that was served.
        note: What was said of it, or "".
    """

    exchange_id: str
    ok: bool
    source: Source
    at: float
    tier: str = ""
    note: str = ""


def strongest(said: Iterable[Feedback]) -> Feedback | None:
    """Return what counts of all that was said of one answer, each source's last word; None for nothing."""
    return min(said, key=lambda one: SOURCES.index(one.source), default=None)


@dataclass(frozen=True, slots=True)
class Measured:
    """A prompt's estimated size beside its real one: corrects later estimates of that tokenizer."""

    tokenizer: str
    estimated: int
    actual: int
