"""Drivers: they carry out what an exchange asks for, sync and async alike.

A `Life` owns one exchange's generator. It answers by itself the steps that need
only the ledger, and gives the driver those that need the network, time or the caller's own code. When
the caller leaves early, by an exception, a cancellation, a dropped stream or the
garbage collector, `abandon` writes what was used so far and closes the generator;
it blocks nowhere and may run anywhere.

The ledger and the cache are never a reason to withhold an answer: their failures are logged,
counted in `Desk.faults`, and the request goes on. A budget is: what cannot be reserved is not spent.

On an event loop a store that is far, or near and busy, is asked on a thread. What several exchanges of
a loop ask of the ledger in one turn of it becomes one transaction; one exchange alone waits for no turn.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from leastwise.batch import Accepted
from leastwise.budget import Refusal
from leastwise.cache import Found
from leastwise.cascade import GateSays
from leastwise.errors import BudgetUnavailableError, UpstreamFailure
from leastwise.exchange import Done
from leastwise.ladder import Outcome
from leastwise.messages import Held, Reply
from leastwise.routing import Known
from leastwise.sqlite import BusyError
from leastwise.sse import Tap
from leastwise.steps import (
    Hold,
    Land,
    Lease,
    Load,
    LookUp,
    Record,
    Relay,
    Relayed,
    Run,
    RunFailed,
    Save,
    Send,
    Settle,
    Sleep,
    Step,
    Steps,
)
from leastwise.stores import CacheStore, Store

_log: Final = logging.getLogger(__name__)

Upstream = Callable[[Send], Reply]
AsyncUpstream = Callable[[Send], Awaitable[Reply]]

#: Steps that are a store's to carry out, and that somebody waits for.
AtStore = Load | LookUp | Lease | Save
#: Steps that are the driver's: they need the network, time, or the caller's own code.
Driven = Send | Hold | Relay | Run | Sleep
#: How an exchange ends that was answered.
End = Done | Accepted
#: A step for the driver to carry out, or the end.
Asked = Driven | AtStore | End
#: What a store answers.
Answered = Known | Found | Refusal | BudgetUnavailableError | None

T = TypeVar("T")


class Desk:
    """Ledger, budgets and cache as drivers see them; only a lease that cannot be had stops a request.

    Args:
        store: The ledger with its budgets.
        clock: Seconds since the epoch.
        open_cache: Opens the kept answers when the first request asks for them; None where none are kept.

    Attributes:
        faults: How often ledger or cache failed since the start.
        lives: The exchanges under way on event loops.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        open_cache: Callable[[], CacheStore] | None = None,
    ) -> None:
        self.store = store
        self._open_cache = open_cache
        self._cache: CacheStore | None = None
        self._opening = threading.Lock()
        self.faults = 0
        self.lives: set[Life] = set()  # under way on event loops
        self._clock = clock

    @property
    def cache(self) -> CacheStore | None:
        """The kept answers, opened if need be; None where none are kept."""
        if self._cache is None and self._open_cache is not None:
            with self._opening:
                if self._cache is None:
                    self._cache = self._open_cache()
        return self._cache

    def close(self) -> None:
        """Write what is waiting and close the stores."""
        if self._cache is not None:
            self._cache.close()
        self.store.close()

    def is_near(self, step: AtStore) -> bool:
        """Tell whether a step takes microseconds, so that an event loop may wait for it."""
        if isinstance(step, LookUp | Save):
            cache = self.read(lambda: self.cache, None)
            return cache is None or cache.is_near
        return self.store.is_near or (isinstance(step, Lease) and not step.claims)

    def known(self, step: Load) -> Known:
        """Answer `Load`; when the ledger fails, nothing is known."""
        return self.read(lambda: self.store.known(step, self._clock()), Known())

    def look_up(self, step: LookUp) -> Found:
        """Answer `LookUp`; when the cache fails, nothing is found and nobody waits."""
        nothing = Found(is_leading=True)

        def ask() -> Found:
            cache = self.cache
            return nothing if cache is None else cache.look_up(step.key, leads=step.leads)

        return self.read(ask, nothing)

    def read(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return what `ask` reads; when the ledger fails, `otherwise`."""
        try:
            return ask()
        except Exception:  # noqa: BLE001 - whatever a store raises, it is no reason to withhold an answer
            self._count("reading")
            return otherwise

    def lease(self, step: Lease, *, may_wait: bool) -> Refusal | None:
        """Reserve before sending; without a claim there is nothing to reserve.

        Raises:
            BusyError: `may_wait` is false and the store is busy.
            BudgetUnavailableError: a budget cannot be asked.
        """
        if not step.claims:
            return None
        try:
            return self.store.lease(step, may_wait=may_wait)
        except (BusyError, BudgetUnavailableError):
            raise
        except Exception as error:  # whatever a store raises, what it did not grant is not spent
            raise self._unavailable(step, error) from error

    def _unavailable(self, step: Lease, error: Exception) -> BudgetUnavailableError:
        self._count("asking", "nothing is spent")
        names = ", ".join(dict.fromkeys(claim.rule.name for claim in step.claims))
        message = f"budget {names} cannot be asked, so nothing is spent: {type(error).__name__}: {error}"
        return BudgetUnavailableError(message)

    def may_share(self) -> bool:
        """Tell whether exchanges of event loops are many enough to be worth each other's wait."""
        return len(self.lives) > 1 and self.store.can_join

    async def lease_together(self, step: Lease) -> Refusal | BudgetUnavailableError | None:
        """Reserve in one transaction with whatever else this turn of the event loop asks for."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Refusal | None] = loop.create_future()
        do = self.store.do_joined
        self.store.join_lease(step, partial(_tell, answer, threading.get_ident()), partial(_soon, loop, do))
        loop.call_soon(do)
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 - as in `lease`
            return self._unavailable(step, error)

    def save(self, step: Save) -> None:
        """Keep an answer."""
        cache = self.read(lambda: self.cache, None)
        if cache is not None:
            self._do(lambda: cache.save(step.key, step.stored))

    def land(self, key: str, *, frees: bool = False) -> None:
        """Give up the lead on a key."""
        cache = self._cache
        if cache is not None:
            self._do(lambda: cache.land(key, frees=frees))

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write these steps together; where that fails each by itself, soon.

        A row that cannot be kept must not take a settlement with it, whose lease would stay open.
        """
        try:
            if may_wait or not self._write_together(steps):
                self.store.write(*steps, may_wait=may_wait)
        except Exception:  # noqa: BLE001 - as above
            self._count("writing")
            for step in steps:
                self.post(step)

    def _write_together(self, steps: Sequence[Settle | Record]) -> bool:
        """Have these written at the end of this turn of the event loop; false where they are to be now."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if not self.may_share():
            return False
        do = self.store.do_joined
        self.store.join_write(steps, partial(_soon, loop, do))
        loop.call_soon(do)
        return True

    def post(self, step: Settle | Record) -> None:
        """Have a step written soon; blocks nowhere."""
        self._do(lambda: self.store.post(step))

    def _do(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception:  # noqa: BLE001 - as above
            self._count("writing")

    def _count(self, what: str, and_so: str = "the request goes on") -> None:
        """Count a failure, and log the first, then ever more seldom: a full disk must not fill the log."""
        self.faults += 1
        if self.faults & (self.faults - 1) == 0:
            _log.exception("%s the store failed (%d times so far): %s", what, self.faults, and_so)


def _soon(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    """Have a loop do something, on any thread; where it has been closed, do it."""
    try:
        loop.call_soon_threadsafe(do)
    except RuntimeError:
        do()


def _tell(
    answer: asyncio.Future[Refusal | None], thread: int, refusal: Refusal | None, error: Exception | None
) -> None:
    """Give an answer to a coroutine, on the thread of its loop."""
    with suppress(RuntimeError):  # the loop is closed
        if thread != threading.get_ident():
            answer.get_loop().call_soon_threadsafe(_tell, answer, thread, refusal, error)
        elif answer.done():  # cancelled
            return
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(refusal)


class Life:
    """One exchange under way, from its first step to its row.

    Args:
        steps: The exchange.
        desk: Where it is recorded.
        may_wait: Whether a busy ledger may be waited for; never on an event loop.

    Attributes:
        outcome: What became of it, once it is over and was answered.
        tap: Counts the live reply; `facts` before there is one are empty.
    """

    def __init__(self, steps: Steps[End], desk: Desk, *, may_wait: bool) -> None:
        self._steps = steps
        self._desk = desk
        self._may_wait = may_wait
        self._lease: Lease | None = None
        self._is_sent = False  # since that lease
        self._lead = ""  # the key whose answer others may be waiting for
        self._counted: Held | None = None  # the live reply that the tap counts
        self._ahead = 0  # bytes of it that were counted before the caller has them
        self._is_kept = False
        self._body = bytearray()
        self._unwritten: list[Settle | Record] = []  # a settlement waits for the row that follows it
        self._open = [True]  # popped once, by whoever ends this life: `list.pop` is atomic
        self.tap = Tap()
        self.outcome: Outcome | None = None
        self.exchange_id = ""

    def begin(self) -> Asked:
        """Run to the first step that needs a driver."""
        return self._run(lambda: next(self._steps))

    def answer(self, value: object) -> Asked:
        """Send the answer of the last step; run to the next that needs a driver."""
        return self._run(lambda: self._steps.send(value))

    def fail(self, failure: UpstreamFailure) -> Asked:
        """Throw a failed `Send` into the exchange; run to the next step that needs a driver.

        Raises:
            UpstreamFailure: the exchange gives up; its row is written.
        """
        return self._run(lambda: self._steps.throw(failure))

    def _run(self, advance: Callable[[], Step]) -> Asked:
        try:
            step = advance()
            while True:
                if isinstance(step, Driven):
                    break
                if isinstance(step, AtStore):
                    if isinstance(step, Lease):  # noted before the store hears of it
                        self._write()  # what an attempt before it held is free again
                        self._lease, self._is_sent = step, False
                        self._counted, self.tap = None, Tap()  # what an attempt before it said is not its own
                        self.exchange_id = step.reserved.exchange_id
                    if not self._may_wait and (not self._desk.is_near(step) or self._shares(step)):
                        return step
                    try:
                        value: object = self.ask(step, may_wait=self._may_wait)
                    except BusyError:
                        return step
                else:
                    value = None
                    self._carry_out(step)
                step = self._steps.send(value)
            self._write()
        except StopIteration as stop:
            done = stop.value
            assert isinstance(done, End)
            self.outcome = done.outcome
            self._write()  # what no row followed
            self._land()
            return done
        if isinstance(step, Send):
            self._is_sent = True
        elif isinstance(step, Hold | Relay):
            self._attend(step)
        return step

    def _shares(self, step: AtStore) -> bool:
        """Tell whether a step is done with those of other exchanges."""
        return isinstance(step, Lease) and bool(step.claims) and self._desk.may_share()

    async def ask_async(self, step: AtStore) -> Answered:
        """Have a store carry out a step on behalf of an event loop, and return its answer."""
        if isinstance(step, Lease) and self._shares(step):
            return await self._desk.lease_together(step)
        return await asyncio.to_thread(self.ask, step)

    def ask(self, step: AtStore, *, may_wait: bool = True) -> Answered:
        """Have a store carry out a step, and return its answer; may run on any thread.

        Raises:
            BusyError: `may_wait` is false and the store is busy.
        """
        match step:
            case Load():
                return self._desk.known(step)
            case LookUp():
                found = self._desk.look_up(step)
                if found.is_leading and step.leads:
                    self._lead = step.key
                    if not self._open:  # the caller left meanwhile
                        self._land()
                return found
            case Lease():
                try:
                    return self._desk.lease(step, may_wait=may_wait)
                except BudgetUnavailableError as error:
                    return error
            case Save():
                self._desk.save(step)
                self._lead = ""
                return None

    def _carry_out(self, step: Settle | Record | Land) -> None:
        if isinstance(step, Land):
            self._land(frees=True)
            return
        self._unwritten.append(step)
        if isinstance(step, Record):
            self._write()
            self._lease = None

    def _land(self, *, frees: bool = False) -> None:
        """Let others ask for what this request was asking for."""
        key, self._lead = self._lead, ""
        if key:
            self._desk.land(key, frees=frees)

    def _write(self) -> None:
        """Write what waits, in one transaction."""
        if self._unwritten:
            self._desk.write(*self._unwritten, may_wait=self._may_wait)
            self._unwritten = []

    def _attend(self, step: Hold | Relay) -> None:
        """Begin to count a live reply, or go on with the one that was held."""
        held = step.reply.payload
        assert isinstance(held, Held)
        if held is not self._counted:
            self._counted, self._ahead = held, 0
            self.tap, self._body = Tap(is_stream=held.is_stream), bytearray()
        self._is_kept = isinstance(step, Hold) or step.is_kept
        if not self._is_kept:
            self._body = bytearray()

    def hold(self, chunk: bytes, step: Hold) -> GateSays:
        """Count bytes that the caller does not have yet, and ask the gate what to do."""
        self._ahead += len(chunk)
        self._count(chunk)
        return step.gate(chunk)

    def relayed(self, failure: UpstreamFailure | None) -> Relayed:
        """Return how far a live reply came; what breaks after a stream's last event is no failure."""
        if self.tap.facts.is_complete:
            failure = None
        return Relayed(self.tap.finish(), failure, bytes(self._body))

    def result(self, step: Relay | End) -> Result:
        """Return what the caller gets; a live reply whose last event was seen before has ended."""
        is_live = isinstance(step, Relay)
        payload = step.reply.payload
        if isinstance(payload, Held):
            payload = payload.take()
        if is_live and self.tap.facts.is_complete:
            self.finish()
        return Result(payload, self, is_live)

    def feed(self, chunk: bytes) -> None:
        """Count bytes of a live reply; a stream's last event ends it, whatever the caller does after it."""
        known = min(self._ahead, len(chunk))
        self._ahead -= known
        self._count(chunk[known:])
        if self.tap.facts.is_complete:
            self.finish()

    def _count(self, chunk: bytes) -> None:
        self.tap.feed(chunk)
        if self._is_kept:
            self._body += chunk

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """End a live reply whose last byte has passed, or that `failure` cut short."""
        if self._claim():
            try:
                step = self.answer(self.relayed(failure))
                while isinstance(step, Save):  # at a far store, and nobody who could wait for it
                    step = self._later(step)
                assert isinstance(step, End)  # nobody is there who could send, hold or run anything more
            except BaseException:  # a defect of ours: what was used is written all the same
                self._open.append(True)
                self.abandon()
                raise

    def _later(self, step: Save) -> Asked:
        """Go on without waiting for a far store."""
        self._lead = ""
        threading.Thread(target=self._desk.save, args=(step,), name="leastwise-save", daemon=True).start()
        return self.answer(None)

    def leave(self) -> None:
        """End a live reply that the caller closed: by its own end if that was seen, else abandoned."""
        if self.tap.finish().is_complete or self.tap.error_type:
            self.finish()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Write what was used so far and end; does nothing after the end."""
        if not self._claim():
            return
        lease, steps = self._lease, self._unwritten
        self._lease, self._unwritten = None, []
        try:
            for step in steps:  # written twice is as good as once
                self._desk.post(step)
            if lease is not None and not any(isinstance(step, Record) for step in steps):
                for step in lease.on_abandon(self.tap.facts if self._is_sent else None):
                    self._desk.post(step)
        finally:
            self._land()
            self._steps.close()

    def _claim(self) -> bool:
        try:
            return self._open.pop()
        except IndexError:
            return False

    def __enter__(self) -> Self:
        """Return this life; leaving the block by an exception abandons it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon when an exception leaves the block."""
        if error is not None:
            self.abandon()


@dataclass(frozen=True, slots=True)
class Result:
    """What the caller gets: the upstream's own object, and the life it came from.

    For a live reply the life goes on: whoever hands the payload to the caller feeds it all
    bytes, then ends it with `finish`, `leave` or `abandon`.
    """

    payload: Any
    life: Life
    is_live: bool


def run(
    steps: Steps[End], upstream: Upstream, desk: Desk, *, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Drive an exchange with a blocking upstream.

    Raises:
        Exception: the upstream's own, when no answer could be had.
        LeastwiseError: the request, the task or a price is wrong; nothing was sent.
    """
    life = Life(steps, desk, may_wait=True)
    cause: BaseException
    try:
        with life:
            step = life.begin()
            while True:
                match step:
                    case Send():
                        try:
                            reply = upstream(step)
                        except UpstreamFailure as failure:
                            step = life.fail(failure)
                        else:
                            step = life.answer(reply)
                    case Hold():
                        step = life.answer(_held(life, step))
                    case Run():
                        step = life.answer(_called(step))
                    case Sleep():
                        sleep(step.seconds)
                        step = life.answer(None)
                    case Relay() | Done() | Accepted():
                        return life.result(step)
                    case _:
                        step = life.answer(life.ask(step))
    except UpstreamFailure as failure:
        cause = failure.cause
    raise cause


async def run_async(
    steps: Steps[End],
    upstream: AsyncUpstream,
    desk: Desk,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Drive an exchange on an event loop; the same as `run` in every other way."""
    life = Life(steps, desk, may_wait=False)
    desk.lives.add(life)
    cause: BaseException
    try:
        with life:
            step = life.begin()
            while True:
                match step:
                    case Send():
                        try:
                            reply = await upstream(step)
                        except UpstreamFailure as failure:
                            step = life.fail(failure)
                        else:
                            step = life.answer(reply)
                    case Hold():
                        step = life.answer(await _held_async(life, step))
                    case Run():
                        step = life.answer(await _called_async(step))
                    case Sleep():
                        await sleep(step.seconds)
                        step = life.answer(None)
                    case Relay() | Done() | Accepted():
                        return life.result(step)
                    case _:
                        step = life.answer(await life.ask_async(step))
    except UpstreamFailure as failure:
        cause = failure.cause
    finally:
        desk.lives.discard(life)
    raise cause


def _held(life: Life, step: Hold) -> Relayed:
    """Read a live reply until its gate is content."""
    chunks, says, failure = step.reply.payload.chunks, "wait", None
    try:
        while says == "wait" and (chunk := next(chunks, None)) is not None:
            says = life.hold(chunk, step)
    except UpstreamFailure as broken:
        failure = broken
    except BaseException:
        chunks.close()
        raise
    if says == "drop":
        chunks.close()
    return life.relayed(failure)


async def _held_async(life: Life, step: Hold) -> Relayed:
    """Read a live reply until its gate is content."""
    chunks, says, failure = step.reply.payload.chunks, "wait", None
    try:
        while says == "wait" and (chunk := await anext(chunks, None)) is not None:
            says = life.hold(chunk, step)
    except UpstreamFailure as broken:
        failure = broken
    except Exception:  # whoever is cancelled, or collected, cannot wait: reading ended in `anext`
        await chunks.aclose()
        raise
    if says == "drop":
        await chunks.aclose()
    return life.relayed(failure)


def _called(step: Run) -> object:
    """Call a function of the user's on a thread; one that is `async` on a loop of its own there."""

    def call() -> object:
        value = step.call()
        return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value

    try:
        return _on_thread(call).result(step.timeout_s)
    except TimeoutError:  # the thread's own comes as a value
        return RunFailed()


async def _called_async(step: Run) -> object:
    """Call a function of the user's on a thread; what it asks to have awaited is awaited here."""

    async def call() -> object:
        value = await asyncio.wrap_future(_on_thread(step.call))
        if not inspect.isawaitable(value):
            return value
        try:
            return await value
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the user's, whatever it is
            return _failed(error)

    running = asyncio.ensure_future(call())
    try:
        done, _ = await asyncio.wait({running}, timeout=step.timeout_s)
    finally:
        running.cancel()
    return running.result() if done else RunFailed()


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def _on_thread(call: Callable[[], object]) -> Future[object]:
    """Call a function on a thread of its own, in this context; one that hangs does not keep the process."""
    answer: Future[object] = Future()
    answer.set_running_or_notify_cancel()  # so that who waits no longer does not spoil it

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - it would end this thread, and somebody waits
            value = _failed(error)
        answer.set_result(value)

    thread = threading.Thread(target=copy_context().run, args=(work,), name="leastwise-run", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no more threads
        answer.set_result(RunFailed(error))
    return answer


def _failed(error: BaseException) -> RunFailed:
    return RunFailed(error if isinstance(error, Exception) else RuntimeError(repr(error)))
