"""Giving an answer again that is kept, and keeping one: the cache's part in an exchange.

The first who looks for an answer that is not there leads, and asks for it; whoever looks for the same
meanwhile waits and looks again. When the leader fails the next one leads; when the answer turns out to be
none to keep, or is long in coming, everybody asks for themselves.
"""

from __future__ import annotations

from typing import Final

from leastwise.account import Teller
from leastwise.attempt import Answer, Call, Terms, note_fault
from leastwise.cache import ACTING, NO_CACHE, Caching, Stored, may_keep
from leastwise.features import Features
from leastwise.ladder import AUTO, Baseline, Code, Decision, Outcome, Reason
from leastwise.routing import baseline_of
from leastwise.sse import Tap
from leastwise.steps import Land, Load, Save, Sleep, Steps, load, look_up

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1
_LONGEST_WAIT_S: Final = 60.0
_LONGEST_WAIT_FOR_A_STREAM_S: Final = 5.0  # whoever leads may never read it, or be this very thread
#: What makes an answer another one than the policy would have given by itself.
_DEGRADED: Final = frozenset(
    {
        Code.BUDGET_CEILING,
        Code.BUDGET_DEFERRED,
        Code.BUDGET_CAP,
        Code.ESCAPED,
        Code.UNREACHED,
        Code.TRUNCATED,
        Code.OVERLOADED,
        Code.NOT_ESCALATED,
    }
)


def caching_of(call: Call, terms: Terms, read: Features, fault: str) -> Caching:
    """Return what a request does with the cache: nothing in a tool loop, or where it could not be read.

    Nor where more is to be done than an answer given.
    """
    if fault or read.in_tool_loop or call.request.names & ACTING:
        return NO_CACHE
    try:
        return terms.caching(call)
    except Exception as error:  # noqa: BLE001 - the cache must never cost the caller an answer
        note_fault("caching", error)
        return NO_CACHE


def recall(caching: Caching, *, is_stream: bool) -> Steps[Stored | None]:
    """Return the kept answer, waiting while another caller asks for it; None where this one is to ask."""
    pause_s, left_s = _FIRST_PAUSE_S, _LONGEST_WAIT_FOR_A_STREAM_S if is_stream else _LONGEST_WAIT_S
    while True:
        found = yield from look_up(caching.key, leads=caching.keeps)
        if found.stored is not None or found.is_leading or not caching.keeps or left_s <= 0:
            return found.stored
        yield Sleep(pause_s)
        left_s -= pause_s
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def give_again(call: Call, terms: Terms, read: Features, caching: Caching, stored: Stored) -> Steps[Outcome]:
    """Record that a kept answer is given again, and return what becomes of the request."""
    tap = Tap(is_stream=stored.is_stream)
    tap.feed(stored.body)
    facts = tap.finish()
    known = yield from load(Load(call.task.tag or "", (), call.tenant))
    asked = call.request.model
    is_ours = asked in AUTO or asked in terms.ladder
    decision = Decision(
        model=stored.model,
        tier=stored.tier,
        upstream=stored.upstream,
        fallback=stored.model,
        asked=asked,
        mode=caching.mode,
        complexity=None,
        task_type="",
        is_sure=True,
        would="",
        max_tokens=None,
        reasons=(Reason(Code.CACHED, f"answered before, by call {stored.exchange}", asked, stored.model),),
        baseline=baseline_of(call.task, known, terms.ladder) if is_ours else Baseline(asked, "asked"),
        input_tokens=0,
    )
    tell = Teller(call, terms, read, known, decision, "")
    record = tell.recalled(stored, facts)
    yield record
    return tell.outcome(record)


def keep(caching: Caching, answer: Answer, tell: Teller) -> Save | Land:
    """Return the step that keeps an answer, or says that it is none to keep."""
    decision, entry = tell.decision, answer.entry
    is_whole = answer.failure is None and may_keep(answer.facts, in_loop=tell.read.in_tool_loop)
    is_accepted = tell.checked in ("", "accept")
    is_degraded = (
        not is_accepted or bool(tell.fault) or any(reason.code in _DEGRADED for reason in decision.reasons)
    )
    body = _body_of(answer) if is_whole and not is_degraded else b""
    if not body:
        return Land(caching.key)
    stored = Stored(
        body=body,
        is_stream=not body.lstrip().startswith(b"{"),  # a message may come live, too
        model=decision.model,
        tier=decision.tier,
        upstream=decision.upstream,
        exchange=tell.call.id,
        request_id=entry.request_id,
        tag=tell.call.task.tag or "",
        at=tell.terms.clock(),
    )
    return Save(caching.key, stored)


def _body_of(answer: Answer) -> bytes:
    if answer.body is None:
        return b""
    try:
        return answer.body()
    except Exception as error:  # noqa: BLE001 - as above
        note_fault("keeping", error)
        return b""
