"""Retries, hints and estimates of one attempt after another."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.attempt import Answer, attempt, may_retry, moment, pause_s
from leastwise.budget import Purse
from leastwise.errors import UnknownPriceError, UpstreamFailure
from leastwise.ledger import Entry
from leastwise.messages import Facts, Held, Iteration, Reply, Request, Usage
from leastwise.steps import Lease, Record, Relay, Relayed, Send, Settle, Sleep
from tests.kit import HAIKU, NOW, OPUS, Clock, call, reply, request, terms


def never(_: Entry) -> Record:
    raise AssertionError


def failed(status: int | None = 529, **headers: str) -> UpstreamFailure:
    return UpstreamFailure(RuntimeError(), status=status, headers=headers, request_id="req_9")


def drive(
    asked: Request,
    *answers: object,
    clock: Clock | None = None,
    tick: Callable[[], None] = lambda: None,
    **given: Any,
) -> tuple[list[Any], Answer | UpstreamFailure]:
    """Answer each `Send` and `Relay` in turn; return all steps, and the end."""
    waiting = list(answers)
    given = {"abandoned": never, "purse": Purse(), **given}
    steps = attempt(call(asked, max_retries=3), terms(clock=clock), asked, "anthropic", **given)
    seen: list[Any] = []
    try:
        step = next(steps)
        while True:
            seen.append(step)
            if isinstance(step, Send | Relay):
                tick()
                answer = waiting.pop(0)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            else:
                step = steps.send(None)
    except StopIteration as stop:
        return seen, stop.value
    except UpstreamFailure as failure:
        return seen, failure


def entries(seen: list[Any]) -> list[Entry]:
    return [step.entry for step in seen if isinstance(step, Settle)]


def pause(turn: int = 0, /, **headers: str) -> float:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return pause_s(named, turn, random.Random(1), NOW)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "20", "retry_after": "9"}, 0.02),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
        ({"retry_after": "60"}, 60.0),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW + 7, UTC), usegmt=True)}, 7.0),
    ],
)
def test_a_hint_is_obeyed(headers: dict[str, str], expected: float) -> None:
    assert expected == pytest.approx(pause(**headers), abs=1e-6)


@pytest.mark.parametrize(
    "hint",
    [
        "0",
        "-5",
        "61",
        "86400",
        "inf",
        "nan",
        "1e400",
        "soon",
        "",
        "Mon, 32 Foo 2026",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        format_datetime(datetime.fromtimestamp(NOW - 60, UTC), usegmt=True),
    ],
)
def test_an_absurd_hint_is_not_obeyed(hint: str) -> None:
    assert 0.375 <= pause(retry_after=hint) <= 0.5


def test_pauses_double_from_half_a_second_to_eight() -> None:
    for turn, longest in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 8.0]):
        assert 0.75 * longest <= pause(turn) <= longest
    assert 6.0 <= pause(100_000) <= 8.0


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 5000))
def test_whatever_the_hint_the_pause_is_positive_and_short(ms: str, seconds: str, turn: int) -> None:
    headers = {"retry-after-ms": ms, "retry-after": seconds}
    assert 0 < pause_s(headers, turn, random.Random(1), NOW)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, True) for status in (None, 408, 409, 429, 500, 529, 599)),
        *((status, False) for status in (400, 401, 402, 403, 404, 413, 422)),
    ],
)
def test_what_may_be_repeated(status: int | None, expected: bool) -> None:  # noqa: FBT001 - a table
    assert expected is may_retry(failed(status))
    assert may_retry(failed(status, **{"x-should-retry": "true"}))
    assert not may_retry(failed(status, **{"x-should-retry": "false"}))
    assert expected is may_retry(failed(status, **{"x-should-retry": "maybe"}))


def test_each_attempt_has_its_own_lease_which_its_entry_closes() -> None:
    seen, end = drive(request(HAIKU), failed(), failed(), reply())
    leases = [step for step in seen if isinstance(step, Lease)]
    assert [lease.reserved.id for lease in leases] == [entry.id for entry in entries(seen)]
    assert 3 == len({lease.reserved.id for lease in leases})
    assert ["req_9", "req_9", "req_1"] == [entry.request_id for entry in entries(seen)]
    assert isinstance(end, Answer)
    assert 25_000 == end.entry.cost_nusd <= end.entry.worst_nusd


def test_the_upstreams_hint_is_how_long_it_sleeps() -> None:
    seen, _ = drive(request(HAIKU), failed(429, **{"retry-after-ms": "40"}), reply())
    assert [Sleep(0.04)] == [step for step in seen if isinstance(step, Sleep)]


def test_after_the_last_attempt_nobody_sleeps() -> None:
    seen, end = drive(request(HAIKU), *[failed()] * 4)
    assert isinstance(end, UpstreamFailure)
    assert 3 == sum(isinstance(step, Sleep) for step in seen)
    assert isinstance(seen[-1], Settle)


@pytest.mark.parametrize("failure", [failed(529), failed(400), UpstreamFailure(OSError(), was_sent=False)])
def test_what_was_refused_or_never_sent_costs_nothing(failure: UpstreamFailure) -> None:
    seen, _ = drive(request(HAIKU), failure, reply())
    first = entries(seen)[0]
    assert (0, "exact", Usage()) == (first.cost_nusd, first.certainty, first.usage)
    assert failure.status or 0 == first.status


def test_what_was_sent_and_never_answered_is_charged_by_its_bound_and_its_time() -> None:
    clock = Clock()
    asked = request(OPUS, max_tokens=1000)
    seen, _ = drive(asked, failed(None), reply(OPUS), clock=clock, tick=lambda: clock.sleep(2))
    first = entries(seen)[0]
    assert "estimated" == first.certainty
    assert 500 == first.usage.output_tokens  # 2 s at 250 tokens a second
    assert first.usage.input_tokens >= len(asked.body())
    assert 4_000 * first.usage.input_tokens + 20_000 * 500 == first.cost_nusd <= first.worst_nusd


@pytest.mark.parametrize(
    ("facts", "seconds", "input_tokens", "output_tokens"),
    [
        # seen so far: 7 told of, 300 bytes, which are at most 150 tokens, 0.4 s at 250 a second
        (Facts(HAIKU, usage=Usage(input_tokens=9, output_tokens=7), visible_bytes=300), 0.4, 9, 150),
        (Facts(HAIKU, usage=Usage(input_tokens=9, output_tokens=180), visible_bytes=300), 0.4, 9, 180),
        (Facts(HAIKU, usage=Usage(input_tokens=9, output_tokens=7), visible_bytes=30), 0.4, 9, 100),
        # never above the cap, unless the upstream itself said so
        (Facts(HAIKU, usage=Usage(input_tokens=9, output_tokens=7), visible_bytes=30), 900, 9, 200),
        (Facts(HAIKU, usage=Usage(input_tokens=9, output_tokens=250), visible_bytes=30), 900, 9, 250),
    ],
)
def test_a_broken_stream_is_estimated_by_the_largest_bound(
    facts: Facts, seconds: float, input_tokens: int, output_tokens: int
) -> None:
    clock = Clock()
    cut = Relayed(facts, failed(None))
    seen, end = drive(
        request(HAIKU, max_tokens=200),
        Reply(Held("live")),
        cut,
        clock=clock,
        tick=lambda: clock.sleep(seconds / 2),
    )
    (entry,) = entries(seen)
    assert ("estimated", input_tokens, output_tokens) == (
        entry.certainty,
        entry.usage.input_tokens,
        entry.usage.output_tokens,
    )
    assert isinstance(end, Answer)
    assert cut.failure is end.failure


def test_a_whole_answer_that_tells_no_usage_is_estimated_not_free() -> None:
    silent = Reply("payload", Facts(HAIKU, "msg_1", "end_turn", is_complete=True))
    seen, _ = drive(request(HAIKU), silent)
    (entry,) = entries(seen)
    assert "estimated" == entry.certainty
    assert entry.cost_nusd > 0


def test_a_model_without_a_price_is_refused_before_it_is_sent() -> None:
    asked = request("no-such-model")
    with pytest.raises(UnknownPriceError, match="no-such-model"):
        drive(asked, reply("no-such-model"))


def test_off_counts_a_model_without_a_price_at_nothing() -> None:
    seen, end = drive(request("no-such-model"), reply("no-such-model"), counts_unpriced=True)
    (entry,) = entries(seen)
    assert (0, "", "exact") == (entry.cost_nusd, entry.price_row, entry.certainty)
    assert isinstance(end, Answer)


def test_an_answer_that_spells_its_model_otherwise_costs_what_was_asked_for() -> None:
    seen, _ = drive(request(HAIKU), reply("my-own-name-for-it"))
    (entry,) = entries(seen)
    assert (25_000, "my-own-name-for-it") == (entry.cost_nusd, entry.model)


def test_an_answer_in_parts_of_unknown_price_is_not_withheld() -> None:
    usage = Usage(200, 10, iterations=(Iteration("message", "nobody-knows", Usage(200, 10)),))
    seen, end = drive(request(HAIKU), reply(usage=usage))
    assert isinstance(end, Answer)
    assert 25_000 == entries(seen)[0].cost_nusd


def test_an_unreadable_cap_is_reserved_for_as_the_largest() -> None:
    seen, _ = drive(request(HAIKU, max_tokens="many"), reply())
    assert seen[0].reserved.worst_nusd >= 128_000 * 500
    assert moment(NOW).tzinfo is UTC
