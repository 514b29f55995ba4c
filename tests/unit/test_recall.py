"""An answer given again, waited for, or kept: the cache's part in an exchange."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from leastwise.attempt import Terms
from leastwise.cache import Caching, Found, Stored
from leastwise.errors import UpstreamFailure
from leastwise.exchange import Done, exchange
from leastwise.ladder import Code, Decision, Reason, Task
from leastwise.messages import Held, Reply
from leastwise.routing import Known
from leastwise.steps import Land, Load, LookUp, Record, Relay, Relayed, Save, Send, Sleep
from tests.kit import HAIKU, NOW, OPUS, call, decision, reply, request, terms

BODY = (
    b'{"id":"msg_1","type":"message","model":"claude-haiku-5-5","content":[{"type":"text","text":"no"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":200,"output_tokens":10}}'
)
STORED = Stored(BODY, False, HAIKU, "haiku", "anthropic", "FIRST", "req_1", "triage", NOW)  # noqa: FBT003 - not a stream
WRITE = Caching("k", reads=True, keeps=True)
READ, REFRESH = replace(WRITE, keeps=False), replace(WRITE, reads=False)
LEADS = Found(is_leading=True)


def cached(use: Caching = WRITE, made: Decision | None = None) -> Terms:
    return terms(made, caching=lambda _: use)


def answered(**changes: Any) -> Reply:
    return replace(reply(**changes), body=lambda: BODY)


def drive(steps: Any, *answers: object, looks: list[Found] | None = None) -> tuple[list[Any], Done | None]:
    """Answer look-ups and sends in turn; return all steps, and the end."""
    waiting, found, seen = list(answers), list(looks or [LEADS]), []
    try:
        step = next(steps)
        while True:
            seen.append(step)
            match step:
                case LookUp():
                    step = steps.send(found.pop(0))
                case Load():
                    step = steps.send(Known())
                case Send() | Relay():
                    answer = waiting.pop(0)
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                case _:
                    step = steps.send(None)
    except StopIteration as stop:
        return seen, stop.value
    except UpstreamFailure:
        return seen, None


def kinds(seen: list[Any]) -> list[str]:
    return [type(step).__name__ for step in seen]


def test_a_hit_comes_before_routing_costs_nothing_and_saves_the_baselines_price() -> None:
    seen, done = drive(
        exchange(call(task=Task(tag="triage")), cached()), looks=[Found(replace(STORED, hits=3))]
    )
    assert ["LookUp", "Load", "Record"] == kinds(seen)
    assert done is not None
    assert BODY == done.reply.payload.body
    row = seen[-1].exchange
    assert ("ok", 200, "hit", HAIKU, "haiku") == (row.result, row.status, row.cache, row.served, row.tier)
    assert (0, 1_000_000, 1_000_000) == (row.spent_nusd, row.baseline_nusd, row.saved_nusd)
    assert (0, 0) == (row.input_tokens, row.output_tokens)
    outcome = done.outcome
    assert (True, Decimal(0), Decimal("0.001")) == (outcome.from_cache, outcome.cost_usd, outcome.saved_usd)
    assert [Code.CACHED] == [reason.code for reason in outcome.reasons]
    assert "answered before, by call FIRST" == outcome.reasons[0].words


def test_a_hit_for_a_real_model_is_compared_with_that_model() -> None:
    use = replace(WRITE, mode="observe")
    seen, done = drive(exchange(call(request(OPUS)), cached(use)), looks=[Found(STORED)])
    assert done is not None
    assert "observe" == seen[-1].exchange.mode
    assert (OPUS, "asked") == (done.outcome.baseline_model, done.outcome.baseline_how)
    assert 1_000_000 == seen[-1].exchange.saved_nusd


def test_a_miss_is_asked_and_kept_with_where_it_came_from() -> None:
    seen, done = drive(exchange(call(task=Task(tag="triage")), cached()), answered())
    assert ["LookUp", "Load", "Lease", "Send", "Settle", "Save", "Record"] == kinds(seen)
    assert LookUp("k", leads=True) == seen[0]
    (save,) = [step for step in seen if isinstance(step, Save)]
    assert Save("k", replace(STORED, exchange="X")) == save
    assert "miss" == seen[-1].exchange.cache
    assert done is not None
    assert not done.outcome.from_cache


def test_who_only_reads_neither_leads_nor_keeps() -> None:
    seen, _ = drive(exchange(call(), cached(READ)), answered(), looks=[Found()])
    assert LookUp("k", leads=False) == seen[0]
    assert ["LookUp", "Load", "Lease", "Send", "Settle", "Record"] == kinds(seen)


def test_who_refreshes_asks_at_once_and_keeps() -> None:
    seen, _ = drive(exchange(call(), cached(REFRESH)), answered())
    assert ["Load", "Lease", "Send", "Settle", "Save", "Record"] == kinds(seen)
    assert "" == seen[-1].exchange.cache


def test_a_follower_waits_for_the_leaders_answer() -> None:
    seen, done = drive(exchange(call(), cached()), looks=[Found(), Found(), Found(STORED)])
    assert ["LookUp", "Sleep", "LookUp", "Sleep", "LookUp", "Load", "Record"] == kinds(seen)
    assert [0.002, 0.003] == [step.seconds for step in seen if isinstance(step, Sleep)]
    assert done is not None
    assert done.outcome.from_cache


def test_a_follower_takes_over_where_the_leader_gave_up() -> None:
    seen, _ = drive(exchange(call(), cached()), answered(), looks=[Found(), LEADS])
    assert ["LookUp", "Sleep", "LookUp", "Load", "Lease", "Send", "Settle", "Save", "Record"] == kinds(seen)


def test_pauses_stay_short() -> None:
    seen, _ = drive(exchange(call(), cached()), looks=[*[Found()] * 30, Found(STORED)])
    pauses = [step.seconds for step in seen if isinstance(step, Sleep)]
    assert 0.1 == max(pauses)


@pytest.mark.parametrize(("is_stream", "most_s"), [(True, 5.2), (False, 60.2)])
def test_nobody_waits_for_ever_for_a_leader_who_may_never_end(*, is_stream: bool, most_s: float) -> None:
    asked = request(stream=is_stream)
    seen, done = drive(exchange(call(asked), cached()), answered(), looks=[Found()] * 1_000)
    assert done is not None
    assert most_s - 0.4 <= sum(step.seconds for step in seen if isinstance(step, Sleep)) <= most_s
    assert 1 == kinds(seen).count("Send")


def degraded(code: Code) -> Decision:
    made = decision()
    return structs.replace(made, reasons=(*made.reasons, Reason(code, "why", "opus", "haiku")))


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        (answered(stop_reason="max_tokens"), None),
        (answered(stop_reason="refusal"), None),
        (answered(stop_reason="pause_turn"), None),
        (answered(stop_reason="tool_use", tool_use_ids=("t1",)), None),
        (answered(is_complete=False), None),
        (reply(), None),
        (replace(reply(), body=lambda: b""), None),
        (replace(reply(), body=lambda: bytes(1 // 0)), None),
        *[(answered(), degraded(code)) for code in (Code.BUDGET_CAP, Code.UNREACHED, Code.ESCAPED)],
    ],
)
def test_what_is_no_whole_answer_of_the_policy_is_not_kept(answer: Reply, made: Decision | None) -> None:
    seen, done = drive(exchange(call(), cached(made=made)), answer)
    assert done is not None
    assert "payload" == done.reply.payload
    assert ["Settle", "Land", "Record"] == kinds(seen)[-3:]
    assert Land("k") == seen[-2]


def test_an_error_is_not_kept() -> None:
    failed = UpstreamFailure(RuntimeError(), status=401)
    seen, done = drive(exchange(call(), cached()), failed)
    assert done is None
    assert not {"Save", "Land"} & set(kinds(seen))


def test_an_escape_looks_nowhere() -> None:
    def decide(*_: object) -> Decision:
        raise RuntimeError

    seen, _ = drive(exchange(call(), replace(cached(), decide=decide)), answered(model=OPUS))
    assert "Land" in kinds(seen)


def test_a_cache_policy_that_fails_costs_nobody_an_answer() -> None:
    def caching(_: object) -> Caching:
        raise RuntimeError

    seen, done = drive(exchange(call(), terms(caching=caching)), answered())
    assert done is not None
    assert not {"LookUp", "Save", "Land"} & set(kinds(seen))


def test_inside_a_tool_loop_nothing_is_looked_up_or_kept() -> None:
    turns = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]},
    ]
    seen, _ = drive(exchange(call(request(messages=turns)), cached()), answered())
    assert not {"LookUp", "Save", "Land"} & set(kinds(seen))


@pytest.mark.parametrize("more", [{"mcp_servers": [{"url": "https://mail"}]}, {"container": "c1"}])
def test_what_is_to_be_done_is_done_each_time(more: dict[str, Any]) -> None:
    seen, _ = drive(exchange(call(request(**more)), cached()), answered())
    assert not {"LookUp", "Save", "Land"} & set(kinds(seen))


STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-haiku-5-5",'
    b'"content":[],"usage":{"input_tokens":200,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":10}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def streamed(relayed: Relayed) -> list[Any]:
    seen, _ = drive(exchange(call(), cached()), Reply(Held("live"), request_id="req_1"), relayed)
    return seen


def test_a_stream_is_kept_as_its_events() -> None:
    seen = streamed(Relayed(reply().facts, body=STREAM))
    (relay,) = [step for step in seen if isinstance(step, Relay)]
    assert relay.is_kept
    (save,) = [step for step in seen if isinstance(step, Save)]
    assert (STREAM, True) == (save.stored.body, save.stored.is_stream)


def test_a_stream_that_broke_is_not_kept() -> None:
    broken = replace(reply().facts, is_complete=False)
    assert "Land" in kinds(streamed(Relayed(broken, UpstreamFailure(OSError()), STREAM[:40])))


def test_a_stream_given_again_is_read_for_what_it_saves() -> None:
    seen, done = drive(
        exchange(call(), cached()), looks=[Found(replace(STORED, body=STREAM, is_stream=True))]
    )
    assert done is not None
    assert 1_000_000 == seen[-1].exchange.saved_nusd


def test_nobody_asks_for_bytes_that_are_not_to_be_kept() -> None:
    asked: list[int] = []

    def body() -> bytes:
        asked.append(1)
        return BODY

    drive(exchange(call(), terms()), replace(reply(), body=body))
    assert [] == asked
    assert isinstance(drive(exchange(call(), cached()), answered())[0][-1], Record)
