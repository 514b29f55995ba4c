"""The drivers: both do the same, whatever the ledger does, however the caller leaves."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import pytest

from leastwise.attempt import Terms
from leastwise.budget import BudgetRule, Limits, Refusal
from leastwise.cascade import Check, GateSays, Plan
from leastwise.client import Desk, Life, Result, run, run_async
from leastwise.errors import BudgetUnavailableError, StoreError, UpstreamFailure
from leastwise.exchange import Done, exchange
from leastwise.ladder import Task, Tier
from leastwise.messages import Facts, Held, Reply, Request
from leastwise.routing import Known
from leastwise.sqlite import BusyError
from leastwise.steps import (
    Lease,
    Record,
    Relay,
    Relayed,
    Run,
    RunFailed,
    Send,
    Settle,
    Steps,
)
from leastwise.stores import Line, Query, Story, TypeLine
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, OPUS, Clock, after, call, decision, holding, reply, request
from tests.kit import terms as plain_terms

STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-haiku-5-5",'
    b'"content":[],"usage":{"input_tokens":200,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":10}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
BEGUN = STREAM[: STREAM.index(b"event: message_delta")]
ERROR_EVENT = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"later"}}\n\n'
)


class Payload:
    """What a live upstream gives; can be watched for being collected."""


def terms() -> Terms:
    """Return terms with a budget, so that there is something to lease."""
    return plain_terms(limits=Limits((BudgetRule("all", 10**12),)))


class Memory:
    """A ledger in a list, which fails where it is told to; an event loop asks a far one on a thread."""

    def __init__(self, *broken: str, error: BaseException | None = None, is_near: bool = True) -> None:
        self.is_near = is_near
        self.steps: list[Lease | Settle | Record] = []
        self.posted: list[Settle | Record] = []
        self.broken = broken
        self.error = error or sqlite3.OperationalError("disk I/O error")

    def _may_fail(self, name: str) -> None:
        if name in self.broken:
            raise self.error

    def known(self, *_: object, **__: object) -> Known:
        self._may_fail("known")
        return Known()

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:  # noqa: ARG002 - a store's
        self._may_fail("lease")
        self.steps.append(lease)
        return None

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:  # noqa: ARG002 - a store's
        self._may_fail("write")
        for step in steps:
            self._may_fail(type(step).__name__)
        self.steps += steps

    def post(self, step: Settle | Record) -> None:
        self._may_fail("post")
        self.steps.append(step)
        self.posted.append(step)

    def flush(self) -> None:
        """Nothing waits."""

    def misfits(self, since: float) -> dict[tuple[str, str], int]:  # noqa: ARG002 - a store's
        return {}

    def types(self) -> list[TypeLine]:
        raise NotImplementedError

    def find(self, any_id: str) -> Story | None:
        raise NotImplementedError(any_id)

    def sums(self, query: Query) -> list[Line]:
        raise NotImplementedError(query)

    def latencies(self, query: Query) -> dict[tuple[str, ...], tuple[float, float]]:
        raise NotImplementedError(query)

    def close(self) -> None:
        """Nothing is open."""

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)

    @property
    def results(self) -> list[str]:
        return [step.exchange.result for step in self.steps if isinstance(step, Record)]

    @property
    def settled(self) -> list[str]:
        return [step.entry.id for step in self.steps if isinstance(step, Settle)]

    @property
    def leased(self) -> list[str]:
        return [step.reserved.id for step in self.steps if isinstance(step, Lease)]


def failed(status: int | None = 529) -> UpstreamFailure:
    return UpstreamFailure(ConnectionError("the SDK's own"), status=status)


Drive = Callable[..., Result]


def in_sync(steps: Steps[Done], answers: list[Any], desk: Desk, slept: list[float]) -> Result:
    def upstream(_: Send) -> Reply:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        made: Reply = answer
        return made

    return run(steps, upstream, desk, sleep=slept.append)


def in_async(steps: Steps[Done], answers: list[Any], desk: Desk, slept: list[float]) -> Result:
    async def upstream(_: Send) -> Reply:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        made: Reply = answer
        return made

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return asyncio.run(run_async(steps, upstream, desk, sleep=sleep))


both = pytest.mark.parametrize("drive", [in_sync, in_async])


@pytest.mark.parametrize("is_near", [True, False])
def test_a_store_that_is_busy_or_far_is_asked_on_a_thread(*, is_near: bool) -> None:
    asked: list[str] = []

    class Busy(Memory):
        def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
            asked.append(threading.current_thread().name)
            if not may_wait:
                raise BusyError
            return super().lease(lease, may_wait=may_wait)

    store = Busy(is_near=is_near)
    assert "payload" == start(in_async, store, reply()).payload
    expected = [True, False] if is_near else [False]
    assert expected == [name == "MainThread" for name in asked]
    assert store.leased == store.settled


def start(drive: Drive, store: Memory, *answers: object) -> Result:
    desk = Desk(store, Clock())
    return drive(exchange(call(), terms()), list(answers), desk, [])


@both
@pytest.mark.parametrize(
    ("answers", "result", "leases"),
    [
        ([reply()], "ok", 1),
        ([failed(), reply()], "ok", 2),
        ([failed(400), reply()], "ok", 2),
        ([failed(401)], "error", 1),
        ([failed()] * 3, "error", 3),
        ([failed(None)] * 3, "error", 3),
    ],
)
def test_both_drivers_write_the_same(drive: Drive, answers: list[object], result: str, leases: int) -> None:
    store = Memory()
    if result == "ok":
        assert "payload" == start(drive, store, *answers).payload
    else:
        with pytest.raises(ConnectionError, match="the SDK's own"):
            start(drive, store, *answers)
    assert [result] == store.results
    assert leases == len(store.leased)
    assert store.leased == store.settled


@both
def test_a_pause_is_slept(drive: Drive) -> None:
    slept: list[float] = []
    drive(exchange(call(), terms()), [failed(), reply()], Desk(Memory(), Clock()), slept)
    assert 1 == len(slept)
    assert 0.375 <= slept[0] <= 0.5


@both
@pytest.mark.parametrize("broken", [("known",), ("write",), ("known", "write", "post")])
@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("locked"), StoreError("gone"), OSError(28, "full"), ValueError("a defect")],
)
def test_a_ledger_that_fails_never_withholds_an_answer_and_is_counted(
    drive: Drive, broken: tuple[str, ...], error: Exception
) -> None:
    store = Memory(*broken, error=error)
    desk = Desk(store, Clock())
    result = drive(exchange(call(), terms()), [reply()], desk, [])
    assert "payload" == result.payload
    assert result.life.outcome is not None
    posted = 2 * ("post" in broken)  # what could not be written together is posted one by one
    assert sum(name in broken for name in ("known", "write")) + posted == desk.faults
    assert ([] if posted else store.leased) == store.settled


def test_a_row_that_cannot_be_kept_takes_no_settlement_with_it() -> None:
    clock = Clock()
    store = SqliteStore(":memory:", clock=clock)
    unkept = call(task=Task(tag="\ud800"))
    run(exchange(unkept, terms()), lambda _: reply(), Desk(store, clock))
    assert [] == store.reserved()
    assert {("all", "2026-11-01T00:00Z"): 25_000} == store.charged()
    (line,) = store.windows()
    assert (25_000, 0) == (line.standing.spent_nusd, line.standing.leased_nusd)


@both
@pytest.mark.parametrize("is_near", [True, False])
@pytest.mark.parametrize("error", [sqlite3.OperationalError("locked"), StoreError("gone")])
def test_a_budget_that_cannot_be_asked_spends_nothing_and_leaves_a_row(
    drive: Drive, error: Exception, *, is_near: bool
) -> None:
    store = Memory("lease", error=error, is_near=is_near)
    with pytest.raises(BudgetUnavailableError, match="budget all cannot be asked, so nothing is spent"):
        drive(exchange(call(), terms()), [], Desk(store, Clock()), [])
    assert ["blocked"] == store.results
    assert [0] == [step.entry.cost_nusd for step in store.steps if isinstance(step, Settle)]


@both
def test_a_ledger_that_fails_on_leaving_does_not_hide_why_the_caller_left(drive: Drive) -> None:
    store = Memory("post")
    desk = Desk(store, Clock())
    with pytest.raises(KeyboardInterrupt):
        drive(exchange(call(), terms()), [KeyboardInterrupt()], desk, [])
    assert 2 == desk.faults


@both
@pytest.mark.parametrize("left", [KeyboardInterrupt, asyncio.CancelledError, SystemExit, RuntimeError])
@pytest.mark.parametrize("attempts", [0, 1])
def test_who_leaves_while_an_upstream_works_leaves_one_row(
    drive: Drive, left: type[BaseException], attempts: int
) -> None:
    store = Memory()
    steps = exchange(call(), terms())
    with pytest.raises(left):
        drive(steps, [*[failed()] * attempts, left()], Desk(store, Clock()), [])
    assert ["abandoned"] == store.results
    assert store.leased == store.settled
    assert attempts + 1 == len(store.leased)
    assert steps.gi_frame is None  # type: ignore[attr-defined]  # a generator, closed


@both
@pytest.mark.parametrize("left", [KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("at", ["known", "lease", "Settle", "Record"])
def test_who_leaves_while_the_ledger_works_leaves_one_row_of_what_was_sent(
    drive: Drive, left: type[BaseException], at: str
) -> None:
    store = Memory(at, error=left())
    steps = exchange(call(), terms())
    with pytest.raises(left):
        drive(steps, [reply()], Desk(store, Clock()), [])
    assert {"known": [], "lease": ["abandoned"], "Settle": ["ok"], "Record": ["ok"]}[at] == store.results
    assert steps.gi_frame is None  # type: ignore[attr-defined]  # a generator, closed


def test_who_leaves_while_waiting_to_retry_leaves_one_row() -> None:
    store = Memory()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    def upstream(_: Send) -> Reply:
        raise failed()

    with pytest.raises(KeyboardInterrupt):
        run(exchange(call(), terms()), upstream, Desk(store, Clock()), sleep=interrupt)
    assert ["abandoned"] == store.results
    assert 1 == len(set(store.settled))


def test_a_cancelled_task_leaves_one_row_at_every_await() -> None:
    async def cancel_after(turns: int) -> Memory:
        store = Memory()

        async def upstream(_: Send) -> Reply:
            await asyncio.sleep(0)
            raise failed()

        def sleep(_: float) -> Awaitable[None]:
            return asyncio.sleep(0)

        desk = Desk(store, Clock())
        task = asyncio.ensure_future(run_async(exchange(call(), terms()), upstream, desk, sleep=sleep))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return store

    for turns in range(1, 6):
        store = asyncio.run(cancel_after(turns))
        assert ["abandoned"] == store.results
        assert set(store.leased) == set(store.settled)


def live(drive: Drive, store: Memory) -> Life:
    result = start(drive, store, Reply(Held(Payload()), request_id="req_1"))
    assert result.is_live
    return result.life


@both
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_counted_while_it_passes(drive: Drive, size: int) -> None:
    store = Memory()
    life = live(drive, store)
    for at in range(0, len(STREAM), size):
        life.feed(STREAM[at : at + size])
    life.finish()
    assert ["ok"] == store.results
    assert life.outcome is not None
    assert (200, 10) == (life.outcome.input_tokens, life.outcome.output_tokens)


@both
def test_only_the_first_end_of_a_stream_counts(drive: Drive) -> None:
    ends = {(BEGUN, "finish"): "cut", (BEGUN, "leave"): "abandoned", (BEGUN, "abandon"): "abandoned"}
    for (fed, first), result in {**ends, (STREAM, "abandon"): "ok"}.items():
        store = Memory()
        life = live(drive, store)
        life.feed(fed)
        getattr(life, first)()
        for again in (life.finish, life.leave, life.abandon):
            again()
        assert [result] == store.results
        assert store.leased == store.settled


@both
def test_a_stream_closed_half_way_is_abandoned_and_one_that_reported_an_error_is_cut(drive: Drive) -> None:
    store = Memory()
    life = live(drive, store)
    life.feed(BEGUN)
    life.leave()
    assert ["abandoned"] == store.results

    store = Memory()
    life = live(drive, store)
    life.feed(BEGUN + ERROR_EVENT)
    life.leave()
    assert ["cut"] == store.results


@both
def test_a_stream_that_breaks_is_cut(drive: Drive) -> None:
    store = Memory()
    life = live(drive, store)
    life.feed(BEGUN)
    life.finish(failed(None))
    assert ["cut"] == store.results


@both
def test_a_defect_at_the_end_of_a_stream_leaves_no_lease_open(drive: Drive) -> None:
    class Broken(Clock):
        """Fails at the last word of a stream."""

        fails = False

        def __call__(self) -> float:
            fails, self.fails = self.fails, False
            if fails:
                raise ZeroDivisionError
            return super().__call__()

    store, clock = Memory(), Broken()
    made = plain_terms(clock=clock, limits=Limits((BudgetRule("all", 10**12),)))
    result = drive(
        exchange(call(), made), [Reply(Held(Payload()), request_id="req_1")], Desk(store, clock), []
    )
    clock.fails = True
    with pytest.raises(ZeroDivisionError):
        result.life.feed(STREAM)
    assert store.leased == list(dict.fromkeys(store.settled))
    assert ["abandoned"] == store.results


def test_abandoning_from_the_collector_inside_a_lock_does_not_block() -> None:
    """The collector may run while this thread holds the ledger's own lock."""
    lock = threading.Lock()

    class Locked(Memory):
        def write(self, *steps: Settle | Record, may_wait: bool) -> None:
            with lock:
                super().write(*steps, may_wait=may_wait)

    store = Locked()
    life = live(in_sync, store)
    payload = Payload()
    payload.itself = payload  # type: ignore[attr-defined]  # only the collector can end it
    weakref.finalize(payload, life.abandon)
    del payload
    with lock:
        gc.collect()
    assert ["abandoned"] == store.results
    assert 2 == len(store.posted)


def test_a_suspended_exchange_does_not_keep_its_stream_alive() -> None:
    result = start(in_sync, Memory(), Reply(Held(Payload())))
    watched = weakref.ref(result.payload)
    life = result.life
    del result
    assert watched() is None
    life.abandon()


def test_two_threads_that_end_a_stream_end_it_once() -> None:
    for _ in range(50):
        store = Memory()
        life = live(in_sync, store)
        life.feed(STREAM)
        barrier = threading.Barrier(2)

        def end(how: Callable[[], None], barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            how()

        threads = [threading.Thread(target=end, args=(how,)) for how in (life.finish, life.abandon)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 == len(store.results)
        assert store.leased == store.settled


def test_a_life_steps_as_the_exchange_asks() -> None:
    life = Life(exchange(call(request(stream=True)), terms()), Desk(Memory(), Clock(NOW)), may_wait=True)
    assert isinstance(life.begin(), Send)
    assert "X" == life.exchange_id
    assert isinstance(life.answer(Reply(Held("live"))), Relay)
    assert Facts() == life.tap.facts
    assert life.outcome is None
    life.abandon()


# --- what is held back ----------------------------------------------------------------------------------


class Chunks:
    """A live reply's bytes, sync or async; exceptions among them are raised."""

    def __init__(self, *given: bytes | BaseException) -> None:
        self._given = list(given)
        self.is_closed = False

    def __next__(self) -> bytes:
        if not self._given:
            raise StopIteration
        chunk = self._given.pop(0)
        if isinstance(chunk, bytes):
            return chunk
        raise chunk

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.close()


Gate = Callable[[bytes], GateSays]
REST = STREAM[len(BEGUN) :]
WHOLE = (
    b'{"id":"msg_1","model":"claude-haiku-5-5","content":[],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":200,"output_tokens":10}}'
)


def held(*chunks: bytes | BaseException, is_stream: bool = True) -> Reply:
    return Reply(Held("live", Chunks(*chunks), is_stream=is_stream), request_id="req_1")


def hold(
    drive: Drive, store: Memory, gate: Callable[[], Gate], *answers: object, **how: Any
) -> tuple[Result, list[Relayed]]:
    told: list[Relayed] = []
    steps = holding(exchange(call(), terms()), told, gate, **how)
    return drive(steps, list(answers), Desk(store, Clock()), []), told


def tokens(result: Result) -> tuple[int, int]:
    outcome = result.life.outcome
    assert outcome is not None
    return outcome.input_tokens, outcome.output_tokens


@both
@pytest.mark.parametrize("cut", [0, 1, 99, len(BEGUN), len(STREAM) - 1])
def test_what_was_held_is_counted_once_when_the_rest_is_relayed(drive: Drive, cut: int) -> None:
    store = Memory()
    result, told = hold(drive, store, after(cut, "commit"), held(STREAM[:cut], STREAM[cut:]))

    assert (("live", True), STREAM[:cut]) == ((result.payload, result.is_live), told[0].body)
    assert (None, False) == (told[0].failure, told[0].facts.is_complete)
    assert [] == store.results
    for at in range(0, len(STREAM), 100):  # the payload gives all of it, cut as it likes
        result.life.feed(STREAM[at : at + 100])
    assert (["ok"], (200, 10)) == (store.results, tokens(result))


@both
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_relay_after_a_hold_keeps_all_bytes_or_none(drive: Drive, *, is_kept: bool) -> None:
    ended: list[Relayed] = []

    def noting(steps: Steps[Done]) -> Steps[Done]:
        """Note how the relay ended."""
        answer: object = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                done: Done = stop.value
                return done
            if isinstance(step, Relay):
                relayed = yield Relay(step.reply, is_kept=is_kept)
                assert isinstance(relayed, Relayed)
                ended.append(relayed)
                answer = relayed
            else:
                answer = yield step

    steps = noting(holding(exchange(call(), terms()), [], after(1, "commit")))
    result = drive(steps, [held(BEGUN, REST)], Desk(Memory(), Clock()), [])
    result.life.feed(STREAM)
    assert [STREAM if is_kept else b""] == [relayed.body for relayed in ended]


@both
@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
@pytest.mark.parametrize("way", ["done", "relay"])
def test_what_ends_while_it_is_held_is_known_at_once(drive: Drive, body: bytes, way: str) -> None:
    store = Memory()
    answer = held(body[:50], body[50:], is_stream=body is STREAM)
    result, told = hold(drive, store, after(10_000, "commit"), answer, way=way)

    assert [body] == [one.body for one in told]
    assert ("live", way == "relay") == (result.payload, result.is_live)
    assert (True, None) == (told[0].facts.is_complete, told[0].failure)
    if result.is_live:  # what the caller reads later changes nothing
        result.life.feed(told[0].body)
        result.life.leave()
    assert (["ok"], (200, 10)) == (store.results, tokens(result))


@both
def test_what_is_dropped_is_closed_and_the_next_is_counted_anew(drive: Drive) -> None:
    store = Memory()
    dropped = held(BEGUN, REST)
    chunks = dropped.payload.chunks
    gates = iter([after(1, "drop")(), after(1, "commit")()])
    result, told = hold(drive, store, lambda: next(gates), dropped, held(BEGUN[:40], STREAM[40:]))

    assert chunks.is_closed
    assert ([BEGUN, BEGUN[:40]], 2) == ([one.body for one in told], len(store.leased))
    assert Facts() == result.life.tap.facts
    result.life.feed(STREAM)
    assert (["ok"], (200, 10)) == (store.results, tokens(result))
    assert store.leased == store.settled


@both
def test_what_breaks_while_it_is_held_is_told_unless_its_end_was_seen(drive: Drive) -> None:
    store, broken = Memory(), failed(None)
    _, told = hold(drive, store, after(10_000, "commit"), held(BEGUN, broken))
    assert ([broken], BEGUN) == ([one.failure for one in told], told[0].body)
    assert (200, ["cut"]) == (told[0].facts.usage.input_tokens, store.results)

    store = Memory()
    _, told = hold(drive, store, after(10_000, "commit"), held(STREAM, broken))
    assert ([None], ["ok"]) == ([one.failure for one in told], store.results)


@both
@pytest.mark.parametrize("left", [KeyboardInterrupt, asyncio.CancelledError, RuntimeError])
@pytest.mark.parametrize("where", ["upstream", "gate"])
def test_who_leaves_while_an_answer_is_held_is_charged_for_what_came(
    drive: Drive, left: type[BaseException], where: str
) -> None:
    def gate(chunk: bytes) -> GateSays:
        if chunk == REST:
            raise left
        return "wait"

    store = Memory()
    reply = held(BEGUN, left() if where == "upstream" else REST)
    chunks = reply.payload.chunks
    with pytest.raises(left):
        hold(drive, store, lambda: gate, reply)
    (entry,) = {step.entry for step in store.steps if isinstance(step, Settle)}
    assert (["abandoned"], store.leased) == (store.results, store.settled)
    assert (200, "msg_1") == (entry.usage.input_tokens, entry.message_id)
    assert (drive is in_sync or left is RuntimeError) is chunks.is_closed


@both
@pytest.mark.parametrize(("fed", "end"), [(0, "abandon"), (50, "leave"), (50, "finish")])
def test_a_relayed_answer_is_charged_for_what_was_held_however_little_is_read(
    drive: Drive, fed: int, end: str
) -> None:
    store = Memory()
    result, _ = hold(drive, store, after(1, "commit"), held(BEGUN, REST))
    result.life.feed(STREAM[:fed])
    getattr(result.life, end)()
    (entry,) = {step.entry for step in store.steps if isinstance(step, Settle)}
    assert ["cut" if end == "finish" else "abandoned"] == store.results
    assert (200, 1) == (entry.usage.input_tokens, entry.usage.output_tokens)


@both
def test_facts_of_one_attempt_are_not_charged_to_the_next(drive: Drive) -> None:
    store = Memory()
    with pytest.raises(KeyboardInterrupt):
        hold(drive, store, after(1, "drop"), held(BEGUN), KeyboardInterrupt())
    *_, last = [step.entry for step in store.steps if isinstance(step, Settle)]
    assert (["abandoned"], "") == (store.results, last.message_id)


def test_a_plain_generator_can_be_held() -> None:
    def chunks() -> Iterator[bytes]:
        yield BEGUN
        yield REST

    store = Memory()
    result, told = hold(in_sync, store, after(10_000, "commit"), Reply(Held("live", chunks())))
    assert ("live", STREAM, ["ok"]) == (result.payload, told[0].body, store.results)


@both
def test_an_inquiry_of_the_users_that_yields_what_is_no_step_cannot_tell(drive: Drive) -> None:
    def asks(_request: Request, _reply: Reply) -> Iterator[Any]:
        yield True  # a function that was meant to return it

    store = Memory()
    asked = call(plan=Plan((Check("asks", asks, "run"), Check("asks too", asks))))
    decided = plain_terms(decision(climbs=(Tier("opus", OPUS),)))
    result = drive(exchange(asked, decided), [reply(), reply(OPUS)], Desk(store, Clock()), [])

    assert result.life.outcome is not None
    words = [(one.check, one.words) for one in result.life.outcome.checks]
    assert [("asks", "failed: TypeError"), ("asks too", "failed: TypeError")] == words[:2]
    assert ["ok"] == store.results
    assert {Settle, Record} == {type(step) for step in store.steps}


@both
def test_nothing_can_be_asked_of_a_driver_that_has_gone(drive: Drive) -> None:
    def asking(steps: Steps[Done]) -> Steps[Done]:
        """Send again when the relay is over."""
        answer: object = None
        while True:
            step = steps.send(answer)
            answer = yield step
            if isinstance(step, Relay):
                yield Run(int, 1.0)

    store = Memory()
    result = drive(asking(exchange(call(), terms())), [Reply(Held("live"))], Desk(store, Clock()), [])
    with pytest.raises(AssertionError):
        result.life.feed(STREAM)
    assert (["abandoned"], store.leased) == (store.results, store.settled)


# --- functions of the user's ----------------------------------------------------------------------------

NAME = contextvars.ContextVar("NAME", default="nobody")


def ran(drive: Drive, function: Callable[[], Any], timeout_s: float = 30.0) -> object:
    store = Memory()
    told: list[object] = []
    steps = holding(exchange(call(), terms()), told, check=Run(function, timeout_s))
    drive(steps, [reply()], Desk(store, Clock()), [])
    assert (["ok"], store.leased) == (store.results, store.settled)
    (answer,) = told
    return answer


async def ran_later(value: object) -> object:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


@both
@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_of_the_users_runs_beside_the_exchange_in_its_context(
    drive: Drive, *, is_async: bool
) -> None:
    def look() -> object:
        thread = threading.current_thread()
        seen = NAME.get(), thread.daemon, thread is threading.main_thread()
        return ran_later(seen) if is_async else seen

    token = NAME.set("caller")
    try:
        assert ("caller", True, False) == ran(drive, look)
    finally:
        NAME.reset(token)


@both
def test_async_functions_run_on_the_callers_loop_where_there_is_one(drive: Drive) -> None:
    async def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert (drive is in_async) is ran(drive, where)


def refuse(error: BaseException) -> NoReturn:
    raise error


@both
@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("its own"), SystemExit(2)])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_function_raises_is_an_answer(drive: Drive, error: BaseException, *, is_async: bool) -> None:
    if is_async and isinstance(error, SystemExit):
        error = asyncio.CancelledError()  # an event loop ends by the other one
    told = ran(drive, partial(ran_later, error) if is_async else partial(refuse, error))
    assert isinstance(told, RunFailed)
    expected = error if isinstance(error, Exception) else RuntimeError(repr(error))
    assert repr(expected) == repr(told.error)


@both
@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_that_is_not_done_in_time_is_left_alone(drive: Drive, *, is_async: bool) -> None:
    gone = threading.Event()
    waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def wait() -> None:
        waiting.append((asyncio.get_running_loop(), asyncio.Event()))
        await waiting[0][1].wait()

    try:
        assert RunFailed(None) == ran(drive, wait if is_async else gone.wait, timeout_s=0.05)
    finally:
        gone.set()
        for loop, event in waiting:
            with suppress(RuntimeError):  # closed, in the async driver
                loop.call_soon_threadsafe(event.set)


@both
def test_a_function_that_no_thread_can_be_had_for_fails(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", lambda _: refuse(error))
    assert RunFailed(error) == ran(drive, int)


def test_who_is_cancelled_while_a_function_runs_is_charged() -> None:
    store, gone, begun = Memory(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        gone.wait()

    async def main() -> None:
        async def upstream(_: Send) -> Reply:
            return reply()

        steps = holding(exchange(call(), terms()), [], check=Run(wait, 30.0))
        task = asyncio.ensure_future(run_async(steps, upstream, Desk(store, Clock())))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(main())
    finally:
        gone.set()
    assert (["abandoned"], store.leased) == (store.results, store.settled)
