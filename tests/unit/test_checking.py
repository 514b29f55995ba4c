"""Cheap first, checked: what becomes of an answer that its checks do not accept, as transcripts."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from leastwise.attempt import Answer
from leastwise.cache import Caching
from leastwise.cascade import Check, Gate, Plan, Rung, as_check
from leastwise.errors import (
    BudgetExceededError,
    BudgetUnavailableError,
    UnboundedError,
    UnknownPriceError,
    UpstreamFailure,
)
from leastwise.exchange import Done, exchange
from leastwise.ladder import Code, Decision, Task, Tier, Verdict
from leastwise.messages import Facts, Held, Reply, Request, Usage
from leastwise.routing import Known
from leastwise.steps import (
    Hold,
    Land,
    Lease,
    Load,
    Record,
    Relay,
    Relayed,
    Run,
    RunFailed,
    Save,
    Send,
    Settle,
    Steps,
)
from tests.kit import HAIKU, OPUS, SONNET, call, decision, reply, request, terms

LADDER = (Tier("haiku", HAIKU), Tier("sonnet", SONNET), Tier("opus", OPUS))
JUDGE = Check("judge", lambda *_: None, "judge", version="1")


def is_long(_request: Request, given: Reply) -> bool:
    return len(given.text) > 3


LONG = Check("long", is_long)
OWN = Check("own", is_long, "run", timeout_s=5)


def plan(*checks: Check, **changes: Any) -> Plan:
    return Plan(checks, judge=LADDER[1], controls=0, **changes)


def cheap(**changes: Any) -> Decision:
    """Return a decision for haiku that may climb the whole ladder."""
    return decision(**{"climbs": LADDER[1:], **changes})


def said(text: str, model: str = HAIKU, *blocks: dict[str, Any], **changes: Any) -> Reply:
    message = {"content": [{"type": "text", "text": text}, *blocks], "stop_reason": "end_turn"}
    return replace(reply(model, **changes), read=lambda: message)


def score(points: int) -> Reply:
    text = json.dumps({"fault": "none", "score": points})
    return replace(reply(SONNET), payload={"content": [{"type": "text", "text": text}]})


def live(request_id: str = "req_l") -> Reply:
    return Reply(Held("stream"), request_id=request_id)


def failure(status: int = 500, **headers: str) -> UpstreamFailure:
    return UpstreamFailure(
        RuntimeError("upstream"), status=status, headers={"x-should-retry": "false", **headers}
    )


def drive(
    steps: Steps[Done], *answers: Any, short_of: str = "", seen: list[Any] | None = None
) -> tuple[list[Any], Done | None]:
    """Answer `Send`, `Hold`, `Relay` and `Run` in turn; return all steps and the end, None for a failure.

    A function is given the step and returns the answer. `short_of` is a model that no budget covers. `seen`
    is given the steps, for one that raises.
    """
    waiting = list(answers)
    seen = [] if seen is None else seen
    done: Done | None = None
    try:
        step = next(steps)
        while True:
            seen.append(step)
            answer: Any = None
            if isinstance(step, Load):
                answer = Known()
            elif isinstance(step, Lease) and step.reserved.model == short_of:
                answer = BudgetExceededError("team-a", budget="team-a", account="team-a")
            elif isinstance(step, Send | Hold | Relay | Run):
                answer = waiting.pop(0)
                answer = answer(step) if callable(answer) else answer
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as stop:
        done = stop.value
    except UpstreamFailure:
        pass
    assert not waiting
    return seen, done


def done_now(step: Run) -> Any:
    return step.call()


def record_of(seen: list[Any]) -> Record:
    (record,) = [step for step in seen if isinstance(step, Record)]
    return record


def sent(seen: list[Any]) -> list[str]:
    return [step.request.model for step in seen if isinstance(step, Send)]


def of(*checks: Check, task: Task | None = None, asked: Request | None = None, **changes: Any) -> Any:
    """Return a call whose answer has to pass these checks."""
    return call(asked, task, plan=plan(*checks, **changes))


def event(name: str, **members: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


def delta(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def whole(text: str, stop_reason: str = "end_turn") -> bytes:
    return b"".join(
        [
            event("message_start", message={"id": "msg_1", "model": HAIKU, "usage": {"input_tokens": 200}}),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            delta(text),
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": stop_reason}, usage={"output_tokens": 10}),
            event("message_stop"),
        ]
    )


FACTS = Facts(
    model=HAIKU,
    message_id="msg_1",
    stop_reason="end_turn",
    usage=Usage(input_tokens=200, output_tokens=10),
    is_complete=True,
)
STREAM = request(stream=True)


def test_an_answer_that_passes_is_served_and_counts_for_its_tier() -> None:
    seen, done = drive(exchange(of(LONG), terms(cheap())), said("a long answer"))

    assert [HAIKU] == sent(seen)
    assert done is not None
    record = record_of(seen)
    assert ("accept", 0) == (record.exchange.checked, record.exchange.escalations)
    assert (
        (Verdict("long", "accept", "returned True", tier="haiku"),) == record.verdicts == done.outcome.checks
    )
    assert {"haiku": Rung(1, 1, 25_000, 0, 10)} == record.rungs
    assert plan(LONG).digest == record.checks
    assert not done.outcome.escalated


def test_one_that_does_not_climbs_the_whole_ladder_and_says_what_each_step_cost_and_why() -> None:
    seen, done = drive(exchange(of(LONG), terms(cheap())), said("no"), said("no", SONNET), said("no", OPUS))

    assert [HAIKU, SONNET, OPUS] == sent(seen)
    assert done is not None
    assert (OPUS, "opus", True) == (done.outcome.model, done.outcome.tier, done.outcome.escalated)
    record = record_of(seen)
    row = record.exchange
    assert (2, "escalate") == (row.escalations, row.checked)
    # 25 us$ for haiku and 500 for sonnet are discarded, 1,000 for opus served
    assert (1_525_000, 525_000, 0) == (row.spent_nusd, row.discarded_nusd, row.checks_nusd)
    assert 1_000_000 - 1_525_000 == row.saved_nusd
    words = [reason.words for reason in done.outcome.reasons if reason.code is Code.ESCALATED]
    assert [
        "haiku not accepted (long returned False): sonnet asked, $0.000025 discarded",
        "sonnet not accepted (long returned False): opus asked, $0.000500 discarded",
    ] == words
    assert ["haiku", "sonnet", "opus"] == [verdict.tier for verdict in record.verdicts]
    assert ["haiku", "sonnet", "opus"] == list(record.rungs)
    assert [0, 0, 0] == [rung.accepted for rung in record.rungs.values()]
    # how long the answers were that followed; none followed the one that is served
    assert [10, 10, 0] == [rung.after_tokens for rung in record.rungs.values()]


def test_the_size_of_a_prompt_is_learned_of_the_model_it_was_estimated_for() -> None:
    """The next tier's model may count in tokens of another kind."""
    seen, _ = drive(exchange(of(LONG), terms(cheap())), said("long enough"))
    assert record_of(seen).measured is not None
    seen, _ = drive(exchange(of(LONG), terms(cheap())), said("no"), said("long enough", SONNET))
    assert record_of(seen).measured is None


def test_nothing_is_checked_where_nothing_may_follow_but_what_is_free() -> None:
    top = decision(OPUS, climbs=())
    seen, done = drive(exchange(of(LONG, OWN, JUDGE), terms(top)), said("long enough", OPUS))

    assert done is not None
    assert [OPUS] == sent(seen)
    assert ["long"] == [verdict.check for verdict in record_of(seen).verdicts]
    assert {} == record_of(seen).rungs  # not all were asked: it counts neither for the tier nor against it


@pytest.mark.parametrize("stop_reason", ["pause_turn", "compaction"])
def test_an_answer_that_is_to_go_on_is_not_held_to_what_its_end_should_be(stop_reason: str) -> None:
    seen, _ = drive(exchange(of(LONG), terms(cheap())), said("no", stop_reason=stop_reason))

    assert [HAIKU] == sent(seen)
    assert ("", ()) == (record_of(seen).exchange.checked, record_of(seen).verdicts)


def test_where_no_check_has_a_word_the_answer_is_served_unchecked() -> None:
    seen, _ = drive(exchange(of(Check("silent", lambda *_: None)), terms(cheap())), said("no"))

    assert [HAIKU] == sent(seen)
    assert ("", ()) == (record_of(seen).exchange.checked, record_of(seen).verdicts)


def test_the_checks_are_asked_in_order_and_whoever_objects_ends_it() -> None:
    answers = [said("long enough"), done_now, score(2), said("x", SONNET), said("long", OPUS)]
    seen, _ = drive(exchange(of(LONG, OWN, JUDGE), terms(cheap())), *answers)

    assert ["long", "own", "judge", "long", "long"] == [v.check for v in record_of(seen).verdicts]
    assert [HAIKU, SONNET, SONNET, OPUS] == sent(seen)  # the second is the judge


def test_a_judge_is_in_what_was_spent_and_in_the_tiers_evidence() -> None:
    seen, done = drive(exchange(of(JUDGE), terms(cheap())), said("good"), score(4))

    row = record_of(seen).exchange
    assert done is not None
    # the judge: 200 x $2 + 10 x $10 per million
    assert (525_000, 500_000, 0) == (row.spent_nusd, row.checks_nusd, row.discarded_nusd)
    assert {"haiku": Rung(1, 1, 25_000, 500_000, 10)} == record_of(seen).rungs
    assert ["answer", "judge"] == [step.entry.purpose for step in seen if isinstance(step, Settle)]
    assert 500_000 == done.outcome.checks[0].cost_nusd


def test_a_judge_that_had_to_be_asked_twice_is_in_the_checks_with_both() -> None:
    lost = UpstreamFailure(ConnectionError())  # it may have been billed
    seen, done = drive(exchange(of(JUDGE), terms(cheap())), said("good"), lost, score(4))

    row = record_of(seen).exchange
    assert done is not None
    entries = [step.entry for step in seen if isinstance(step, Settle)]
    assert ["answer", "judge", "judge"] == [entry.purpose for entry in entries]
    assert entries[1].id == entries[2].parent
    assert (0, sum(entry.cost_nusd for entry in entries[1:])) == (row.discarded_nusd, row.checks_nusd)
    assert row.checks_nusd == done.outcome.checks[0].cost_nusd > 500_000


@pytest.mark.parametrize(
    ("unparsable", "models", "checked"),
    [("escalate", [HAIKU, SONNET, SONNET], ""), ("accept", [HAIKU, SONNET], "accept")],
)
def test_a_score_that_cannot_be_read_escalates_unless_it_is_told_to_accept(
    unparsable: Any, models: list[str], checked: str
) -> None:
    mute = replace(score(1), payload={"content": "hm"})
    above = [said("x", SONNET)] * (len(models) - 2)
    asked = of(JUDGE, unparsable=unparsable)

    seen, _ = drive(exchange(asked, terms(cheap(climbs=LADDER[1:2]))), said("good"), mute, *above)

    assert models == sent(seen)
    assert ("abstain", "the judge gave no score") == (
        record_of(seen).verdicts[0].says,
        record_of(seen).verdicts[0].words,
    )
    assert checked == record_of(seen).exchange.checked


def test_where_routing_is_sure_the_judge_is_not_asked_and_nothing_counts_for_the_tier() -> None:
    sure = cheap(is_judged=False)
    seen, done = drive(exchange(of(LONG, JUDGE), terms(sure)), said("long enough"))
    assert done is not None
    assert [HAIKU] == sent(seen)
    assert ("accept", {}) == (record_of(seen).exchange.checked, record_of(seen).rungs)
    assert plan(LONG, JUDGE).digest == record_of(seen).checks

    seen, _ = drive(exchange(of(LONG, JUDGE), terms(sure)), said("no"), said("long", SONNET))
    assert [HAIKU, SONNET] == sent(seen)


def test_a_judge_out_of_reach_is_no_reason_to_ask_a_dearer_model_there() -> None:
    seen, done = drive(exchange(of(LONG, JUDGE), terms(cheap())), said("good enough"), failure(529))

    assert done is not None
    assert [HAIKU, SONNET] == sent(seen)
    assert "haiku" == done.outcome.tier
    assert "abstain" == record_of(seen).exchange.checked
    assert {} == record_of(seen).rungs


def test_the_users_own_function_runs_off_the_loop_and_one_that_fails_cannot_tell() -> None:
    for answer in (RunFailed(ValueError("quotes the answer")), RunFailed()):
        steps = exchange(of(OWN), terms(cheap(climbs=LADDER[1:2])))
        seen, _ = drive(steps, said("long"), answer, said("x", SONNET))
        (run,) = [step for step in seen if isinstance(step, Run)]
        assert 5 == run.timeout_s
        verdict = record_of(seen).verdicts[0]
        assert "abstain" == verdict.says
        assert "quotes" not in verdict.words
        assert verdict.words in ("failed: ValueError", "not done within 5 s")
        assert [HAIKU, SONNET] == sent(seen)


def test_a_free_check_that_raises_cannot_tell_and_costs_nobody_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> bool:
        raise KeyError

    seen, done = drive(
        exchange(of(Check("broken", broken)), terms(cheap(climbs=LADDER[1:2]))), said("x"), said("x", SONNET)
    )

    assert done is not None
    assert ["failed: KeyError"] * 2 == [verdict.words for verdict in record_of(seen).verdicts]
    for record in caplog.records:
        assert record.message.startswith("check broken failed (KeyError at ")
        assert record.message.endswith("): it cannot tell of this answer")


def test_a_check_may_be_an_inquiry_that_yields_steps_of_its_own() -> None:
    def inquiry(_request: Request, given: Reply) -> Generator[Any, Any, bool]:
        measured = yield Run(lambda: len(given.text), 1.0)
        return bool(measured == 4)

    seen, done = drive(exchange(of(Check("inquiry", inquiry)), terms(cheap())), said("four"), done_now)

    assert done is not None
    assert "accept" == record_of(seen).exchange.checked


@pytest.mark.parametrize("asked", [STREAM, request()], ids=["stream", "message"])
def test_an_inquiry_is_only_looked_at_where_nothing_can_follow(asked: Request) -> None:
    """At the end of a stream nobody is there who could carry out what it wants."""

    def asks(_request: Request, _reply: Reply) -> Generator[Any, Any, bool]:
        yield Run(lambda: True, 1.0)
        return True

    def looks(_request: Request, given: Reply) -> Generator[Any, Any, bool]:
        if not given.text:
            yield Run(lambda: True, 1.0)
        return False

    one = live() if asked.is_stream else said("long enough", OPUS)
    ends = [Relayed(FACTS, body=whole("long enough"))] if asked.is_stream else []
    checks = (Check("asks", asks), Check("looks", looks))
    seen, done = drive(exchange(of(*checks, asked=asked), terms(decision(OPUS, climbs=()))), one, *ends)

    assert done is not None
    assert [("looks", "escalate")] == [(one.check, one.says) for one in record_of(seen).verdicts]


def test_a_function_of_the_users_may_be_called_judge() -> None:
    def judge(_request: Request, given: Reply) -> bool:
        return given.text == "good"

    asked = call(plan=replace(plan(as_check(judge)), controls=1.0))
    seen, done = drive(exchange(asked, terms(cheap())), said("good"), done_now)

    assert done is not None
    assert [HAIKU] == sent(seen)
    assert [("judge", "accept")] == [(one.check, one.says) for one in record_of(seen).verdicts]


def test_a_verdict_that_quotes_what_cannot_be_written_costs_nobody_the_answer() -> None:
    quotes = Check("quotes", lambda *_: Verdict("quotes", "escalate", "no: \ud800"))
    seen, done = drive(exchange(of(quotes), terms(cheap(climbs=LADDER[1:2]))), said("x"), said("x", SONNET))

    assert done is not None
    assert "no: ?" == record_of(seen).verdicts[0].words


def test_a_refusal_is_not_blamed_on_the_tier() -> None:
    refused = Check("refusal", lambda *_: Verdict("refusal", "escalate", "refused", blames=False))
    seen, _ = drive(exchange(of(refused), terms(cheap(climbs=LADDER[1:2]))), said("no"), said("no", SONNET))

    assert [HAIKU, SONNET] == sent(seen)
    assert {} == record_of(seen).rungs


def test_where_a_dearer_tier_fails_the_answer_there_is_is_served_and_is_not_called_accepted() -> None:
    seen, done = drive(exchange(of(LONG), terms(cheap())), said("no"), failure(500))

    assert done is not None
    assert ("haiku", "escalate") == (done.outcome.tier, record_of(seen).exchange.checked)
    reason = done.outcome.reasons[-1]
    assert (Code.NOT_ESCALATED, "sonnet: no answer; haiku's answer is served, not accepted") == (
        reason.code,
        reason.words,
    )


def test_where_a_budget_cannot_cover_it_the_same() -> None:
    seen, done = drive(exchange(of(LONG), terms(cheap())), said("no"), short_of=SONNET)

    assert done is not None
    assert [HAIKU] == sent(seen)
    words = done.outcome.reasons[-1].words
    assert "sonnet: budget team-a cannot cover it; haiku's answer is served, not accepted" == words


def test_where_no_budget_can_be_asked_of_a_dearer_tier_it_says_so() -> None:
    seen, done = drive(
        exchange(of(LONG), terms(cheap())), said("no"), BudgetUnavailableError("the store is away")
    )

    assert done is not None
    assert "sonnet: budgets cannot be asked; haiku's answer is served, not accepted" == reasons_of(done)[-1]
    assert [HAIKU, SONNET] == sent(seen)


def reasons_of(done: Done) -> list[str]:
    return [reason.words for reason in done.outcome.reasons]


@pytest.mark.parametrize("error", [UnboundedError("a tool without max_uses"), UnknownPriceError("x", "y")])
def test_what_a_dearer_tier_cannot_be_asked_for_at_all_leaves_the_answer_there_is(error: Any) -> None:
    seen, done = drive(exchange(of(LONG), terms(cheap())), said("no"), error)

    assert done is not None
    assert ("haiku", "sonnet: no answer; haiku's answer is served, not accepted") == (
        done.outcome.tier,
        reasons_of(done)[-1],
    )
    assert "ok" == record_of(seen).exchange.result


def test_what_was_dropped_is_in_a_row_where_the_dearer_tier_cannot_be_asked_at_all() -> None:
    def drop(step: Hold) -> Relayed:
        assert "drop" == step.gate(delta("Sorry, I cannot"))
        return Relayed(replace(FACTS, is_complete=False))

    steps = exchange(of(GLANCING, asked=STREAM), terms(cheap()))
    seen: list[Any] = []
    answers: list[Any] = [live(), drop, UnboundedError("a tool without max_uses")]
    with pytest.raises(UnboundedError):
        drive(steps, *answers, seen=seen)

    row = record_of(seen).exchange
    assert ("error", 400) == (row.result, row.status)
    assert row.spent_nusd == row.discarded_nusd > 0


@pytest.mark.parametrize("fallback", [HAIKU, OPUS])
def test_a_misfit_above_goes_on_upward_and_never_back_to_what_was_not_accepted(fallback: str) -> None:
    made = cheap(fallback=fallback)
    seen, done = drive(exchange(of(LONG), terms(made)), said("no"), failure(400), said("long", OPUS))

    assert done is not None
    assert ([HAIKU, SONNET, OPUS], "opus") == (sent(seen), done.outcome.tier)
    assert f"refused with 400: sent to {OPUS}" in reasons_of(done)
    assert SONNET == record_of(seen).exchange.misfit

    last = cheap(fallback=fallback, climbs=LADDER[1:2])
    seen, done = drive(exchange(of(LONG), terms(last)), said("no"), failure(400))
    assert done is not None
    assert ([HAIKU, SONNET], "haiku") == (sent(seen), done.outcome.tier)


def test_an_upstream_error_that_another_tier_would_share_asks_no_other_tier() -> None:
    for status in (401, 429, 500, 529):
        seen, done = drive(exchange(of(LONG), terms(cheap())), failure(status))
        assert done is None
        assert [HAIKU] == sent(seen)


def test_an_overloaded_tier_gives_way_to_the_next_where_the_policy_says_so() -> None:
    seen, done = drive(
        exchange(of(LONG, overloaded="next"), terms(cheap())), failure(529), said("long enough", SONNET)
    )

    assert done is not None
    assert [HAIKU, SONNET] == sent(seen)
    (words,) = [reason.words for reason in done.outcome.reasons if reason.code is Code.OVERLOADED]
    assert "haiku is overloaded: sonnet asked" == words
    assert 0 == record_of(seen).exchange.escalations


def test_controls_are_judged_beside_the_answer_and_change_nothing() -> None:
    asked = call(plan=replace(plan(JUDGE), controls=1.0))
    seen, done = drive(exchange(asked, terms(cheap())), said("good"), score(5), score(1))

    assert done is not None
    assert "accept" == record_of(seen).exchange.checked
    assert [False, True] == [verdict.is_control for verdict in record_of(seen).verdicts]
    assert {"haiku": Rung(1, 1, 25_000, 500_000, 10)} == record_of(seen).rungs
    assert 1_000_000 == record_of(seen).exchange.checks_nusd


# --- the cache, sessions -----------------------------------------------------------------------------


def kept(seen: list[Any]) -> bool:
    return any(isinstance(step, Save) for step in seen)


@pytest.mark.parametrize("text", ["a long answer", "no"])
def test_only_accepted_answers_are_kept(text: str) -> None:
    is_kept = text != "no"
    caching = Caching("key", reads=False, keeps=True, mode="auto")
    one = replace(said(text), body=lambda: b'{"content": []}')
    steps = exchange(of(LONG), terms(decision(climbs=()), caching=lambda _: caching))

    seen, _ = drive(steps, one)

    assert is_kept == kept(seen)
    assert is_kept != any(isinstance(step, Land) for step in seen)


def load_of(seen: list[Any]) -> Load:
    (load,) = [step for step in seen if isinstance(step, Load)]
    return load


def test_a_conversation_stays_at_the_tier_it_escalated_to() -> None:
    named = Task(session="chat")
    seen, _ = drive(exchange(of(LONG, task=named), terms(cheap())), said("no"), said("long", SONNET))
    assert "sonnet" == record_of(seen).floor
    assert plan(LONG).digest == load_of(seen).checks
    assert "" != load_of(seen).talk

    seen, _ = drive(exchange(of(LONG), terms(cheap())), said("no"), said("long", SONNET))
    assert "" == record_of(seen).floor  # a call that only begins like others has none
    assert "" == load_of(seen).talk
    seen, _ = drive(exchange(of(LONG, task=named), terms(cheap())), said("long"))
    assert "" == record_of(seen).floor  # nor one that did not escalate


# --- streams -----------------------------------------------------------------------------------------


def test_a_stream_whose_checks_need_its_end_is_held_and_given_again_whole() -> None:
    body = whole("a long answer")
    seen, done = drive(
        exchange(of(LONG, JUDGE, asked=STREAM), terms(cheap())), live(), Relayed(FACTS, body=body), score(5)
    )

    assert done is not None
    assert [] == [step for step in seen if isinstance(step, Relay)]
    assert "stream" == done.reply.payload.take()  # the upstream's own, which gives what was read of it again
    assert "accept" == record_of(seen).exchange.checked


def test_after_an_escalation_the_higher_tiers_stream_is_held_too_and_the_last_goes_live() -> None:
    seen, done = drive(
        exchange(of(LONG, asked=STREAM, stream="buffer"), terms(cheap(climbs=LADDER[1:2]))),
        live(),
        Relayed(FACTS, body=whole("no")),
        live(),
        Relayed(replace(FACTS, model=SONNET)),
    )

    assert done is not None
    kinds = [type(step) for step in seen if isinstance(step, Hold | Relay)]
    assert [Hold, Relay] == kinds
    assert "sonnet" == done.outcome.tier


def glance(_request: Request, text: str) -> Verdict | None:
    return Verdict("glancing", "escalate", "begins badly") if text.startswith("Sorry") else None


GLANCING = Check("glancing", is_long, glance=glance)


def test_a_gate_lets_a_stream_go_when_its_first_words_pass() -> None:
    gate = Gate(STREAM, plan(GLANCING), may_commit=True)
    assert "wait" == gate(event("message_start", message={}))
    assert "wait" == gate(delta("x" * 199)[:50])
    assert "wait" == gate(delta("x" * 199)[50:])
    assert "commit" == gate(delta("y"))
    assert gate.is_committed


def test_a_gate_holds_to_the_end_what_may_not_be_let_go_and_drops_what_begins_badly() -> None:
    gate = Gate(STREAM, plan(GLANCING), may_commit=False)
    assert "wait" == gate(delta("x" * 1_000))
    assert "wait" == gate(b"event: content_block_delta\ndata: [no json\n\n")
    assert not gate.is_committed
    gate = Gate(STREAM, plan(GLANCING), may_commit=True)
    assert "wait" == gate(delta("So"))
    assert "drop" == gate(delta("rry, no"))
    assert gate.verdict is not None


def call_delta(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": text})


def test_a_gate_lets_a_long_call_of_a_tool_go_but_not_what_is_thought_before() -> None:
    thought = event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "h" * 1_000})
    gate = Gate(STREAM, plan(GLANCING), may_commit=True)
    assert "wait" == gate(thought)
    assert "wait" == gate(delta("I look:"))
    assert "wait" == gate(call_delta("x" * 150))
    assert "commit" == gate(call_delta("x" * 50))


def test_what_is_held_on_is_looked_at_ever_more_seldom() -> None:
    seen: list[int] = []
    looking = Check("looking", is_long, glance=lambda _, text: seen.append(len(text)))
    gate = Gate(STREAM, plan(looking), may_commit=False)
    for _ in range(20_000):
        gate(delta("a word of 20 letters"))

    assert [20, 40, 60] == seen[:3]
    assert len(seen) < 60
    assert 400_000 * 0.8 < seen[-1]


def test_a_glance_that_returns_what_it_should_not_is_read_as_a_finding() -> None:
    for odd, says in (
        (False, "drop"),
        (True, "wait"),
        ("what", "wait"),
        (Verdict("x", "accept", ""), "wait"),
    ):
        odd_one = Check("odd", is_long, glance=lambda *_, odd=odd: odd)
        assert says == Gate(STREAM, plan(odd_one), may_commit=True)(delta("x"))


def test_what_was_let_go_has_no_second_answer_but_its_checks_are_recorded() -> None:
    def commit(step: Hold) -> Relayed:
        assert "commit" == step.gate(delta("x" * 200))
        return Relayed(replace(FACTS, is_complete=False))

    def give_body(step: Relay) -> Relayed:
        return Relayed(FACTS, body=whole("no") if step.is_kept else b"")

    steps = exchange(of(GLANCING, asked=STREAM), terms(cheap()))
    seen, done = drive(steps, live(), commit, give_body)

    assert done is not None
    assert [HAIKU] == sent(seen)
    assert ("escalate", 0) == (record_of(seen).exchange.checked, record_of(seen).exchange.escalations)
    assert "haiku" == done.outcome.tier


def test_what_begins_badly_is_dropped_paid_for_and_asked_of_the_next_tier() -> None:
    def drop(step: Hold) -> Relayed:
        assert "drop" == step.gate(delta("Sorry, I cannot"))
        usage = Usage(input_tokens=200)
        return Relayed(replace(FACTS, is_complete=False, usage=usage, visible_bytes=8))

    steps = exchange(of(GLANCING, asked=STREAM), terms(cheap(climbs=LADDER[1:2])))
    seen, done = drive(steps, live(), drop, live(), Relayed(replace(FACTS, model=SONNET)))

    assert done is not None
    assert [HAIKU, SONNET] == sent(seen)
    assert "sonnet" == done.outcome.tier
    first, _ = [step.entry for step in seen if isinstance(step, Settle)]
    assert "estimated" == first.certainty
    assert 1 == record_of(seen).exchange.escalations


def test_an_answer_that_breaks_off_unseen_gives_way_to_the_whole_one_from_below() -> None:
    """It ended without its last event, or with one of an error; what came of it is paid all the same."""
    cut = Relayed(replace(FACTS, is_complete=False, model=SONNET), body=whole("par")[:200])
    call_ = of(LONG, asked=STREAM, stream="buffer")
    seen, done = drive(exchange(call_, terms(cheap())), live("req_1"), held_no(), live("req_2"), cut)

    assert done is not None
    assert ("req_1", "haiku") == (done.reply.request_id, done.outcome.tier)
    assert "sonnet: its answer broke off; haiku's answer is served, not accepted" == reasons_of(done)[-1]
    assert record_of(seen).exchange.discarded_nusd > 0

    seen, done = drive(
        exchange(call_, terms(cheap())), live("req_1"), cut
    )  # the caller may have what there is
    assert done is not None
    assert ("req_1", "cut") == (done.reply.request_id, record_of(seen).exchange.result)


def held_no() -> Relayed:
    return Relayed(FACTS, body=whole("no"))


def test_a_dropped_answer_is_not_served_when_the_dearer_tier_fails() -> None:
    def drop(step: Hold) -> Relayed:
        assert "drop" == step.gate(delta("Sorry, I cannot"))
        return Relayed(replace(FACTS, is_complete=False))

    steps = exchange(of(GLANCING, asked=STREAM), terms(cheap(climbs=LADDER[1:2])))
    seen, done = drive(steps, live(), drop, failure(500))

    assert done is None
    assert "error" == record_of(seen).exchange.result


def test_a_glance_that_raises_has_no_objection() -> None:
    def broken(*_: object) -> Verdict:
        raise KeyError

    gate = Gate(STREAM, plan(Check("broken", is_long, glance=broken)), may_commit=True)
    assert "commit" == gate(delta("x" * 200))


def test_a_stream_that_breaks_while_it_is_held_is_tried_again_for_nobody_has_seen_it() -> None:
    broken = UpstreamFailure(ConnectionError())
    cut = Relayed(replace(FACTS, is_complete=False), broken, b"event: x\n")
    call_ = of(LONG, asked=STREAM, stream="buffer")
    seen, done = drive(
        exchange(call_, terms(cheap())), live(), cut, live(), Relayed(FACTS, body=whole("a long answer"))
    )
    assert done is not None
    assert ["answer", "retry"] == [step.entry.purpose for step in seen if isinstance(step, Settle)]
    assert "estimated" == next(step.entry.certainty for step in seen if isinstance(step, Settle))

    seen, done = drive(exchange(replace(call_, max_retries=0), terms(cheap())), live(), cut)
    assert done is None
    assert "error" == record_of(seen).exchange.result


def test_an_answer_that_is_asked_for_again_is_looked_at_by_itself() -> None:
    seen: list[str] = []
    looking = Check("looking", is_long, glance=lambda _, text: seen.append(text))

    def breaks(step: Hold) -> Relayed:
        step.gate(delta("spam") + delta(" or not")[:40])
        return Relayed(replace(FACTS, is_complete=False), UpstreamFailure(ConnectionError()))

    def ends(step: Hold) -> Relayed:
        assert "wait" == step.gate(whole("not spam"))
        return Relayed(FACTS, body=whole("not spam"))

    seen_steps, done = drive(
        exchange(of(looking, asked=STREAM), terms(cheap())), live(), breaks, live(), ends
    )

    assert done is not None
    assert ["spam", "not spam"] == seen
    assert [HAIKU, HAIKU] == sent(seen_steps)


def test_an_answer_that_cannot_be_read_is_accepted_by_no_check_that_looks_at_it() -> None:
    def unreadable() -> dict[str, Any]:
        raise TypeError

    for odd in (replace(reply(), read=unreadable), replace(reply(), body=lambda: b"[1]"), reply()):
        seen, _ = drive(exchange(of(LONG), terms(cheap(climbs=LADDER[1:2]))), odd, said("long", SONNET))
        assert [HAIKU, SONNET] == sent(seen)


def test_inside_a_tool_loop_and_where_nothing_was_chosen_nothing_is_checked() -> None:
    turns = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "done"}]},
    ]
    loop = request(messages=turns)
    for asked, made in (
        (loop, cheap(climbs=())),
        (request(OPUS), decision(OPUS, mode="observe", asked=OPUS)),
    ):
        seen, _ = drive(exchange(of(LONG, asked=asked), terms(made)), said("no"))
        assert "" == record_of(seen).exchange.checked
        assert () == record_of(seen).verdicts


def test_an_answer_says_whether_the_caller_has_it() -> None:
    assert not Answer(reply(), FACTS, None).is_relayed  # type: ignore[arg-type]  # no entry is read
