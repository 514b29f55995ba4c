"""Asking an answer's checks in turn, and what follows: it is served, or a dearer tier is asked.

The free checks come first and cost microseconds; whoever objects ends the asking. The user's own
functions and commands run off the event loop; a judge is an attempt of its own, with a lease and an
entry. A stream whose checks need its end is held back until they are done; one that is only glanced
at is let go when its first words pass, and then there is no second answer: what its checks say at the
end is recorded, and that is all.

A check that fails is one that cannot tell. What nobody could be asked about - the judge's server is out
of reach, no budget covers it - is no reason to ask a dearer model on the same server: the answer is
served, and is not called accepted.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from types import GeneratorType
from typing import Any, Final

import msgspec
from msgspec import structs

from leastwise.account import Teller
from leastwise.attempt import Answer, note_fault
from leastwise.cascade import JUDGE, Check, Gate, inquire, read_finding, settle
from leastwise.judge import CONTROLS, Question, judge
from leastwise.ladder import Verdict
from leastwise.messages import JSON, Reply, Request
from leastwise.sse import assemble
from leastwise.steps import RunFailed, Step, Steps, run

_DECODE: Final = msgspec.json.Decoder()
#: Ends of an answer that the caller has go on: it is not yet what was asked for.
_GOES_ON: Final = frozenset({"pause_turn", "compaction"})


def checked(tell: Teller, request: Request, answer: Answer, gate: Gate | None) -> Steps[Teller]:
    """Return a teller that knows what the checks say of an answer.

    Args:
        tell: The request's, with its decision.
        request: As it was sent.
        answer: What came.
        gate: What has looked at it already, if anything.
    """
    plan = tell.plan
    is_whole = answer.failure is None and answer.facts.is_complete
    is_whole = is_whole and answer.facts.stop_reason not in _GOES_ON
    is_last = not tell.decision.climbs or answer.is_relayed
    if gate is not None and gate.verdict is not None:
        verdicts: tuple[Verdict, ...] = (gate.verdict,)
    elif plan.checks and is_whole and tell.is_ours and not tell.read.in_tool_loop:
        verdicts = yield from _ask_all(tell, request, _read(answer), is_last=is_last)
    else:
        return tell
    if not verdicts:
        return tell  # nothing in it to look at
    tier = tell.decision.tier or tell.decision.model
    verdicts = tuple(structs.replace(verdict, tier=tier) for verdict in verdicts)
    is_all = tell.decision.is_judged and (plan.is_free or not is_last)
    return tell.judged(verdicts, settle(verdicts, plan.unparsable), answer.entry, is_all=is_all)


def _ask_all(tell: Teller, request: Request, reply: Reply, *, is_last: bool) -> Steps[tuple[Verdict, ...]]:
    """Ask one check after the other until one objects; where nothing can follow, only the free ones."""
    said: list[Verdict] = []
    for check in tell.plan.checks:
        if is_last and check.kind != "free":
            continue
        verdict = yield from _ask(tell, check, request, reply, is_last=is_last)
        if verdict is None:
            continue
        said.append(verdict)
        if verdict.says == "escalate":
            break
        if _is_judge(check) and verdict.blames and tell.terms.rng.random() < tell.call.plan.controls:
            planted = tell.terms.rng.choice(CONTROLS)
            control = yield from judge(_question(tell), reply, control=planted)
            said += [control] if control is not None and control.score is not None else []
    return tuple(said)


def _is_judge(check: Check) -> bool:
    return check.kind == "judge" and check.name == JUDGE  # a function of the user's may be called so, too


def _ask(
    tell: Teller, check: Check, request: Request, reply: Reply, *, is_last: bool
) -> Steps[Verdict | None]:
    """Ask one check; one that fails cannot tell."""
    if _is_judge(check):
        return (yield from judge(_question(tell), reply))
    found: Any
    try:
        if check.kind == "run":
            found = yield from run(partial(check.ask, request, reply), check.timeout_s)
        else:
            found = check.ask(request, reply)
        if isinstance(found, GeneratorType) and is_last:
            found = _looked(found)
        elif isinstance(found, GeneratorType):
            ask = partial(_ask, tell, request=request, reply=reply, is_last=False)
            found = yield from inquire(found, ask, Step)
    except Exception as error:  # noqa: BLE001 - whatever a check raises must not cost the caller the answer
        found = RunFailed(error)
    if isinstance(found, RunFailed):
        return Verdict(check.name, "abstain", _failed(check, found))
    threshold = tell.call.task.threshold if check.threshold is None else check.threshold
    return read_finding(found, check.name, threshold)


def _looked(inquiry: Generator[Any, Any, Any]) -> Any:
    """Return what an inquiry finds by looking alone; None where it wants more, for nobody may be there."""
    try:
        next(inquiry)
    except StopIteration as done:
        return done.value
    inquiry.close()
    return None


def _failed(check: Check, failed: RunFailed) -> str:
    """Return why a check has no word; not the error's own words, which may quote the answer."""
    if failed.error is None:
        return f"not done within {check.timeout_s:g} s"
    note_fault(f"check {check.name}", failed.error, "it cannot tell of this answer")
    return f"failed: {type(failed.error).__name__}"


def _question(tell: Teller) -> Question:
    decision = tell.decision
    return Question(
        tell.call,
        tell.terms,
        tell.known,
        decision.model,
        decision.task_type,
        decision.is_sure and tell.call.task.check is None,
        tell.unanswered,
    )


def _read(answer: Answer) -> Reply:
    """Return an answer with its message read; one that cannot be read has none."""
    return replace(answer.reply, facts=answer.facts, message=_message_of(answer))


def _message_of(answer: Answer) -> dict[str, JSON]:
    try:
        if answer.reply.read is not None:
            return dict(answer.reply.read())
        body = answer.body() if answer.body is not None else b""
        if not body.lstrip().startswith(b"{"):
            return assemble(body)
        found = _DECODE.decode(body)
    except Exception as error:  # noqa: BLE001 - as above: an unreadable answer is one no check accepts
        note_fault("reading an answer", error, "its checks see nothing in it")
        return {}
    return found if isinstance(found, dict) else {}
