"""What happens to a request: this page is the order of the product.

    read -> cache -> route (a small model advises)
         -> [lease -> compile -> send -> settle -> check -> accept or escalate] per attempt
         -> save -> record

`exchange` is a generator that does no I/O: it yields the steps of `steps` and a
driver carries them out. Whatever of ours fails on the way, the request is still
answered, by the model it asked for or by the baseline, and the fault is counted.
A swapped request that the upstream refuses as unfit is sent once more, as
received; an answer that a cap of ours or the model's own limit cut off is asked for
again with the caller's own cap. Where checks do not accept an answer the next tier is asked, up to the
last that may; where that fails, the answer there is is served. What a budget cannot cover goes to the
next cheaper tier, or is blocked: that alone withholds an answer. All attempts are in the ledger and in
what was spent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Final

from leastwise import features
from leastwise.account import Teller, talk_of
from leastwise.attempt import MISFITS, Answer, Call, Terms, attempt, fitted, note_fault
from leastwise.budget import Payer, Purse
from leastwise.cache import Caching
from leastwise.cascade import gate_for
from leastwise.checking import checked
from leastwise.errors import (
    BudgetError,
    BudgetExceededError,
    LeastwiseError,
    UnboundedError,
    UnknownPriceError,
    UpstreamFailure,
)
from leastwise.features import Features
from leastwise.ladder import AUTO, Baseline, Code, Decision, Outcome, Reason
from leastwise.messages import Reply, Request
from leastwise.models import canonical
from leastwise.recall import caching_of, give_again, keep, recall
from leastwise.routing import Known, baseline_of
from leastwise.steps import Load, Steps, load
from leastwise.triage import advice, key_of, wants_advice

_CLOSED: Final = frozenset({401, 403})
_SERVER_ERROR: Final = 500
_OVERLOADED: Final = 529
_NO_FEATURES: Final = Features()
_DRAW_BYTES: Final = 6  # as much as a float holds exactly


@dataclass(frozen=True, slots=True)
class Done:
    """An exchange that ended with an answer."""

    reply: Reply
    outcome: Outcome


def exchange(call: Call, terms: Terms) -> Steps[Done]:
    """Answer one request with the cheapest model that the decision allows, and record it.

    Raises:
        UpstreamFailure: no answer could be had; the row is written.
        BudgetExceededError: a budget has too little left; the row is written.
        BudgetUnavailableError: a budget cannot be asked; the row is written.
        UnboundedError: a budget cannot cover a part of the request; nothing was sent.
        UnknownPriceError: the model has no price; nothing was sent.
        ConfigError: the task names a tier that does not exist.
    """
    read, fault = _read(call)
    caching = caching_of(call, terms, read, fault)
    is_stream = call.request.is_stream
    stored = (yield from recall(caching, is_stream=is_stream)) if caching.reads else None
    if stored is not None:
        outcome = yield from give_again(call, terms, read, caching, stored)
        return Done(Reply(stored), outcome)
    tell = yield from _routed(call, terms, read, caching, fault)
    ask = partial(attempt, call, terms, purse=tell.known.purse, is_kept=caching.keeps)
    may_be_unpriced = tell.decision.mode == "off"

    held: tuple[Answer, Teller] | None = None  # an answer not good enough, and better than none
    while True:
        sent = _compiled(call, terms, tell.decision)
        gate = gate_for(tell.plan, sent, tell.decision)
        try:
            upstream = tell.decision.upstream
            answer = yield from ask(
                sent, upstream, abandoned=tell.abandoned, counts_unpriced=may_be_unpriced, gate=gate
            )
        except (UpstreamFailure, BudgetError, UnboundedError, UnknownPriceError) as failure:
            instead = _instead(call, terms, tell, failure, has_answer=held is not None)
            if instead is not None:
                tell = instead
                continue
            if held is None:
                yield from _noted(tell, failure)
                raise
            answer, tell = held[0], held[1].unanswered_above(tell, failure)
            break
        if _was_clamped(answer, sent, tell.decision):
            limit = _fitted(call, terms, tell.decision).max_tokens
            held, tell = (answer, tell), tell.truncated(sent, limit)
            continue
        tell = yield from checked(tell, sent, answer, gate)
        if not _climbs(tell, answer):
            answer, tell = _to_serve(tell, answer, held)
            break
        held = (answer, tell) if answer.facts.is_complete else held
        tell = tell.escalated(answer.entry)

    if caching.keeps:
        yield keep(caching, answer, tell)
    record = tell.answered(answer)
    yield record
    return Done(answer.reply, tell.outcome(record))


def _routed(call: Call, terms: Terms, read: Features, caching: Caching, fault: str) -> Steps[Teller]:
    """Decide where the request goes, by what is known of it and, where it counts, a small model's advice."""
    known, ask_key = yield from _known(call, terms, read)
    draw = _draw(call, terms, read)
    decision, fault = _decide(call, terms, read, known, fault, draw=draw)
    tell = Teller(call, terms, read, known, decision, fault, caching)
    if fault or not wants_advice(decision, terms, read):
        return tell
    known = yield from advice(call, terms, read, known, ask_key, abandoned=tell.unanswered)
    decision, fault = _decide(call, terms, read, known, fault, draw=draw)
    return Teller(call, terms, read, known, decision, fault, caching)


def _known(call: Call, terms: Terms, read: Features) -> Steps[tuple[Known, str]]:
    """Return what the ledger knows of the request and what budgets say of it, and the key of its ask."""
    ask_key = key_of(call, terms, read)
    tag, session = call.task.tag or "", read.session if read.marks_cache else ""
    checks = call.plan.digest if call.plan.checks else ""
    talk = talk_of(read) if call.plan.checks and call.plan.floor_s else ""
    step = Load(tag, read.tool_use_ids, call.tenant, session, ask_key, checks=checks, talk=talk)
    if not terms.limits.rules:
        return (yield from load(step)), ask_key
    payer = Payer(read.session, call.key, tag, call.tenant)
    purse = Purse(terms.limits.rules, payer, call.at, call.task.critical, read.in_tool_loop)
    models = (canonical(model) for model in (call.request.model, *(tier.model for tier in terms.ladder)))
    known = yield from load(replace(step, accounts=purse.accounts(models)))
    purse = replace(purse, standings=known.standings, raised=known.raised)
    return replace(known, purse=purse), ask_key


def _read(call: Call) -> tuple[Features, str]:
    try:
        return features.read(call.request, call.task, call.headers), ""
    except Exception as error:  # noqa: BLE001 - our reading must never cost the caller an answer
        return _NO_FEATURES, note_fault("reading", error)


def _draw(call: Call, terms: Terms, read: Features) -> float:
    """Return a number from 0 up to 1, by which a request is in the share switched on or not.

    A conversation with a prompt cache gets the same for all its turns: one that changes sides
    pays for its cache twice. Calls that only share a beginning, with no name and no turn before
    them, are drawn one by one, or a whole pipeline would be on one side.
    """
    is_talk = read.marks_cache and (read.session_told or read.human_turns > 1)
    if not is_talk:
        return terms.rng.random()
    name = f"{call.tenant}\0{read.session}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=_DRAW_BYTES).digest()) / 256**_DRAW_BYTES


def _decide(
    call: Call, terms: Terms, read: Features, known: Known, fault: str, *, draw: float
) -> tuple[Decision, str]:
    try:
        if not fault:
            return terms.decide(call, read, known, draw), ""
    except LeastwiseError:
        raise  # what the caller wrote is wrong, and says so
    except Exception as error:  # noqa: BLE001 - routing must never cost the caller an answer
        fault = note_fault("routing", error)
    return _escape(call, terms, known, fault), fault


def _climbs(tell: Teller, answer: Answer) -> bool:
    """Tell whether a dearer tier is to answer instead: not accepted, and the caller has seen nothing."""
    return tell.checked == "escalate" and bool(tell.decision.climbs) and not answer.is_relayed


def _to_serve(tell: Teller, answer: Answer, held: tuple[Answer, Teller] | None) -> tuple[Answer, Teller]:
    """Return the answer that is served: one that broke off unseen gives way to a whole one from below."""
    if held is None or answer.is_relayed or answer.facts.is_complete:
        return answer, tell
    return held[0], held[1].unanswered_above(tell)


def _noted(tell: Teller, failure: LeastwiseError) -> Steps[None]:
    """Have a request noted that is not answered; one of which nothing was sent needs no row."""
    if tell.call.spent or isinstance(failure, UpstreamFailure | BudgetError):
        yield tell.failed(failure)


def _instead(
    call: Call, terms: Terms, tell: Teller, failure: LeastwiseError, *, has_answer: bool
) -> Teller | None:
    """Return a teller for where else the request may go: the asked model, another tier, or nowhere.

    A tier that is overloaded gives way to the next where the policy says so; what ails all of them does not.
    Where there is an answer from below, it goes nowhere but upward.
    """
    if isinstance(failure, UpstreamFailure):
        if failure.status == _OVERLOADED and call.plan.overloaded == "next" and tell.decision.climbs:
            return tell.overloaded()
        if not _goes_back(failure, tell.decision, terms) or (has_answer and not tell.decision.climbs):
            return None
        return tell.refused(failure, upward=has_answer)
    if has_answer or not isinstance(failure, BudgetExceededError) or tell.read.in_tool_loop:
        return None
    cheaper = terms.below(call, tell.decision)
    return None if cheaper is None else tell.stepped_down(cheaper, failure)


def _goes_back(failure: UpstreamFailure, decision: Decision, terms: Terms) -> bool:
    """Tell whether a swap failed where the asked model need not: unfit there, or its server out of reach."""
    if decision.model == decision.fallback:
        return False
    if failure.status in MISFITS:
        return True
    is_elsewhere = decision.upstream != terms.ladder.serving(decision.fallback).upstream
    is_down = failure.status in _CLOSED or (failure.status or 0) >= _SERVER_ERROR or not failure.was_sent
    is_wrong = isinstance(failure.cause, LeastwiseError)  # a key that is not set: to be mended, not hidden
    return decision.mode == "enforce" and is_elsewhere and is_down and not is_wrong


def _escape(call: Call, terms: Terms, known: Known, fault: str) -> Decision:
    """Return the decision that needs no routing: the asked model, for `auto` the baseline."""
    asked = call.request.model
    is_ours = asked in AUTO or asked in terms.ladder
    baseline = baseline_of(call.task, known, terms.ladder) if is_ours else Baseline(asked, "asked")
    model, tier = baseline.model, terms.ladder.serving(baseline.model)
    return Decision(
        model=model,
        tier=tier.name,
        upstream=tier.upstream,
        fallback=model,
        asked=asked,
        mode="auto" if is_ours else "off",
        complexity=None,
        task_type="",
        is_sure=False,
        would="",
        max_tokens=None,
        reasons=(Reason(Code.ESCAPED, f"not routed ({fault})", asked, model),),
        baseline=baseline,
        input_tokens=0,
    )


def _compiled(call: Call, terms: Terms, decision: Decision) -> Request:
    """Return what goes to the decision's model: fitted to it and clamped; itself where nothing differs."""
    request = _fitted(call, terms, decision)
    if decision.max_tokens is not None and decision.max_tokens != request.max_tokens:
        request = request.replace(max_tokens=decision.max_tokens)
    return request


def _fitted(call: Call, terms: Terms, decision: Decision) -> Request:
    return fitted(call, terms, decision.model).apply(call.request)


def _was_clamped(answer: Answer, sent: Request, decision: Decision) -> bool:
    """Tell whether a cap that is not the caller's cut the answer off, and another one could be had."""
    is_ours = "max_tokens" in sent.changes and not answer.reply.is_live
    has_other = decision.max_tokens is not None or decision.model != decision.fallback
    return is_ours and has_other and answer.facts.stop_reason == "max_tokens"
