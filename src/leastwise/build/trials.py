"""Trials beside the calls of running clients: which tags are on trial, and what is tried of them.

`leastwise trial` opens one in the store; every client of that store finds it within a second, tries what it
answers, and adds to it, until enough pairs were compared or the money is used up. Nothing of it is in a
caller's way: the answer was given before, and what goes wrong is logged.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from queue import Queue
from typing import Final

from leastwise.cascade import Trial
from leastwise.cascade.trials import MONEY, OpenTrial, Pairs, compared, concluded
from leastwise.client import Desk
from leastwise.ladder import Ladder
from leastwise.money import show
from leastwise.sqlite import at_fork
from leastwise.stores import Store

_log: Final = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 1.0
#: So many pairs at once in one process: a trial must not use up what the upstream lets through.
_MOST_AT_ONCE: Final = 4
#: How long the end of a client or a process waits for what is under way.
_PATIENCE_S: Final = 10.0


class Trials:
    """The open trials, and what is under way for them in this process.

    Args:
        desk: The ledger.
        clock: Seconds since the epoch.

    Attributes:
        tasks: What is under way on event loops, which keep no hold on it.
    """

    def __init__(self, desk: Desk, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._clock = clock
        self._open: Mapping[str, OpenTrial] = {}
        self._looked_at = -_LOOK_AGAIN_S
        self._crew = _Crew()
        self._begin()
        at_fork(after_in_child=self._begin)
        weakref.finalize(self, self._crew.end)

    def _begin(self) -> None:
        self._room = [True] * _MOST_AT_ONCE  # `list.pop` is atomic
        self._crew.begin()
        self.tasks: set[asyncio.Task[None]] = set()

    def of(self, tag: str | None) -> OpenTrial | None:
        """Return the open trial of a tag; of a far store, as it was known a second ago."""
        if not tag:
            return None
        now = self._clock()
        if not 0 <= now - self._looked_at < _LOOK_AGAIN_S:
            self._looked_at = now
            if self._desk.store.is_near:
                self._look()
            else:
                self._crew.put(self._look)
        return self._open.get(tag)

    def _look(self) -> None:
        found: list[OpenTrial] = self._desk.read(self._desk.store.open_trials, [])
        self._open = {trial.tag: trial for trial in found}

    def start(self, work: Callable[[], None]) -> None:
        """Have something tried on another thread, unless enough is under way."""
        if self.enter() and not self._crew.put(partial(self._do, work)):
            self.leave()

    def enter(self) -> bool:
        """Tell whether one more may be tried now; whoever may says `leave` at its end."""
        try:
            return self._room.pop()
        except IndexError:
            return False

    def leave(self) -> None:
        """Make room for another."""
        self._room.append(True)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and nothing depends on it
            note(error)
        finally:
            self.leave()

    def add(self, trial: OpenTrial, pairs: Pairs, ladder: Ladder) -> None:
        """Add what was tried to its trial; end it where it has what it wanted, or no money left.

        Raises:
            StoreError: the ledger cannot be written.
        """
        store = self._desk.store
        sums = store.add_pairs(trial.id, pairs)
        if pairs.how == MONEY or compared(sums).n >= trial.wanted:
            shown = end_trial(store, trial, ladder, self._clock())
            self._open = {tag: one for tag, one in self._open.items() if one.id != trial.id}
            if shown is not None:
                words = f"{shown.agreed:,} of {shown.n:,} as good, {show(shown.cost_nusd)}"
                _log.info("the trial of tag %s on %s is over: %s", trial.tag, trial.tier, words)

    def close(self) -> None:
        """Wait for what is under way on threads, for a while."""
        self._crew.wait()

    async def aclose(self) -> None:
        """Wait for what is under way on this event loop, for a while."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self.tasks if task.get_loop() is loop]
        if mine:
            await asyncio.wait(mine, timeout=_PATIENCE_S)


def end_trial(store: Store, trial: OpenTrial, ladder: Ladder, now: float) -> Trial | None:
    """End a trial and return what it shows; None where that is nothing, or somebody else has ended it.

    Raises:
        StoreError: the ledger cannot be written.
    """
    return store.end_trial(trial.id, lambda sums: concluded(trial, sums, ladder, now))


def note(error: Exception) -> None:
    """Log why something could not be tried; not the error's own words, which may quote a prompt."""
    _log.info("a pair of a trial could not be tried: %s", type(error).__name__)


class _Crew:
    """A few threads that do what they are given: to start one for each would keep the caller waiting."""

    def begin(self) -> None:
        """Begin with no thread; those that a forked child knows of are its parent's."""
        self._jobs: Queue[Callable[[], None] | None] = Queue()
        self._threads: list[threading.Thread] = []

    def put(self, job: Callable[[], None]) -> bool:
        """Have something done; false where the system has no thread left to give."""
        jobs = self._jobs
        if len(self._threads) < min(_MOST_AT_ONCE, jobs.unfinished_tasks + 1):
            thread = threading.Thread(target=_serve, args=(jobs,), name="leastwise-trial", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as at the end of the process
                if not self._threads:
                    return False
            else:
                self._threads.append(thread)
        jobs.put(job)
        return True

    def wait(self) -> None:
        """Wait for what is under way, for a while."""
        jobs = self._jobs
        if threading.current_thread() not in self._threads:
            with jobs.all_tasks_done:
                jobs.all_tasks_done.wait_for(lambda: not jobs.unfinished_tasks, _PATIENCE_S)

    def end(self) -> None:
        """Wait, and have the threads end."""
        self.wait()
        for _ in self._threads:
            self._jobs.put(None)


def _serve(jobs: Queue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job()
        finally:
            del job  # what it holds is not held until the next one comes
            jobs.task_done()
