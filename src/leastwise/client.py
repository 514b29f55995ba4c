"""Drivers: they carry out what an exchange asks for, sync and async alike.

A `Life` owns one exchange's generator. It answers by itself the steps that need
only the ledger, and gives the driver those that need the network or time. When
the caller leaves early, by an exception, a cancellation, a dropped stream or the
garbage collector, `abandon` writes what was used so far and closes the generator;
it blocks nowhere and may run anywhere.

The ledger is never a reason to withhold an answer: its failures are logged,
counted in `Desk.faults`, and the request goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from leastwise.errors import UpstreamFailure
from leastwise.exchange import Done
from leastwise.ladder import Outcome
from leastwise.messages import Reply
from leastwise.routing import Known
from leastwise.sse import Tap
from leastwise.steps import Lease, Load, Record, Relay, Relayed, Send, Settle, Sleep, Step, Steps
from leastwise.stores import Store

_log: Final = logging.getLogger(__name__)

Upstream = Callable[[Send], Reply]
AsyncUpstream = Callable[[Send], Awaitable[Reply]]

T = TypeVar("T")


class Desk:
    """The ledger as drivers see it: it answers `Load` and writes, and fails without harm.

    Attributes:
        faults: How often the ledger failed since the start.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.faults = 0
        self._clock = clock

    def known(self, step: Load) -> Known:
        """Answer `Load`; when the ledger fails, nothing is known."""
        return self.read(
            lambda: self.store.known(
                step.tag,
                step.tool_use_ids,
                self._clock(),
                tenant=step.tenant,
                session=step.session,
                ask_key=step.ask_key,
            ),
            Known(),
        )

    def read(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return what `ask` reads; when the ledger fails, `otherwise`."""
        try:
            return ask()
        except Exception:  # noqa: BLE001 - whatever a store raises, it is no reason to withhold an answer
            self._count("reading")
            return otherwise

    def lease(self, step: Lease) -> None:
        """Reserve before sending."""
        self._do(lambda: self.store.lease(step))

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write these steps together."""
        self._do(lambda: self.store.write(*steps, may_wait=may_wait))

    def post(self, step: Settle | Record) -> None:
        """Have a step written soon; blocks nowhere."""
        self._do(lambda: self.store.post(step))

    def _do(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception:  # noqa: BLE001 - as above
            self._count("writing")

    def _count(self, what: str) -> None:
        """Count a failure, and log the first, then ever more seldom: a full disk must not fill the log."""
        self.faults += 1
        if self.faults & (self.faults - 1) == 0:
            _log.exception("%s the ledger failed (%d times so far): the request goes on", what, self.faults)


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

    def __init__(self, steps: Steps[Done], desk: Desk, *, may_wait: bool) -> None:
        self._steps = steps
        self._desk = desk
        self._may_wait = may_wait
        self._lease: Lease | None = None
        self._unwritten: list[Settle | Record] = []  # a settlement waits for the row that follows it
        self._open = [True]  # popped once, by whoever ends this life: `list.pop` is atomic
        self.tap = Tap()
        self.outcome: Outcome | None = None
        self.exchange_id = ""

    def begin(self) -> Send | Sleep | Relay | Done:
        """Run to the first step that needs a driver."""
        return self._run(lambda: next(self._steps))

    def answer(self, value: Reply | Relayed | None) -> Send | Sleep | Relay | Done:
        """Send the answer of the last step; run to the next that needs a driver."""
        return self._run(lambda: self._steps.send(value))

    def fail(self, failure: UpstreamFailure) -> Send | Sleep | Relay | Done:
        """Throw a failed `Send` into the exchange; run to the next step that needs a driver.

        Raises:
            UpstreamFailure: the exchange gives up; its row is written.
        """
        return self._run(lambda: self._steps.throw(failure))

    def _run(self, advance: Callable[[], Step]) -> Send | Sleep | Relay | Done:
        try:
            step = advance()
            while not isinstance(step, Send | Sleep | Relay):
                step = self._steps.send(self._carry_out(step))
            self._write()
        except StopIteration as stop:
            done = stop.value
            assert isinstance(done, Done)
            self.outcome = done.outcome
            return done
        return step

    def _carry_out(self, step: Load | Lease | Settle | Record) -> Known | None:
        if isinstance(step, Load):
            return self._desk.known(step)
        if isinstance(step, Lease):
            self._lease = step  # before the store hears of it: from here on leaving leaves a row
            self.exchange_id = step.exchange_id
            self._desk.lease(step)
            return None
        self._unwritten.append(step)
        if isinstance(step, Record):
            self._write()
            self._lease = None
        return None

    def _write(self) -> None:
        """Write what waits, in one transaction."""
        if self._unwritten:
            self._desk.write(*self._unwritten, may_wait=self._may_wait)
            self._unwritten = []

    def relay(self, *, is_stream: bool) -> None:
        """Begin to count a live reply."""
        self.tap = Tap(is_stream=is_stream)

    def feed(self, chunk: bytes) -> None:
        """Count bytes of a live reply; a stream's last event ends it, whatever the caller does after it."""
        self.tap.feed(chunk)
        if self.tap.facts.is_complete:
            self.finish()

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """End a live reply whose last byte has passed, or that `failure` cut short."""
        if self._claim():
            self.answer(Relayed(self.tap.finish(), failure))

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
            if lease is not None and not any(isinstance(step, Record) for step in steps):
                steps = [*steps, *lease.on_abandon(self.tap.facts)]
            for step in steps:  # written twice is as good as once
                self._desk.post(step)
        finally:
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

    For a live reply the life goes on: whoever hands the payload to the caller calls
    `life.relay`, feeds it, then ends it with `finish`, `leave` or `abandon`.
    """

    payload: Any
    life: Life
    is_live: bool


def run(
    steps: Steps[Done], upstream: Upstream, desk: Desk, *, sleep: Callable[[float], None] = time.sleep
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
                    case Sleep():
                        sleep(step.seconds)
                        step = life.answer(None)
                    case Relay():
                        return Result(step.reply.payload.take(), life, is_live=True)
                    case Done():
                        return Result(step.reply.payload, life, is_live=False)
    except UpstreamFailure as failure:
        cause = failure.cause
    raise cause


async def run_async(
    steps: Steps[Done],
    upstream: AsyncUpstream,
    desk: Desk,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Drive an exchange on an event loop; the same as `run` in every other way."""
    life = Life(steps, desk, may_wait=False)
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
                    case Sleep():
                        await sleep(step.seconds)
                        step = life.answer(None)
                    case Relay():
                        return Result(step.reply.payload.take(), life, is_live=True)
                    case Done():
                        return Result(step.reply.payload, life, is_live=False)
    except UpstreamFailure as failure:
        cause = failure.cause
    raise cause
