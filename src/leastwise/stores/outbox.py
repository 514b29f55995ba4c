"""What is written soon: jobs that wait for their transaction, and the thread that does them.

Where somebody else is writing and the caller must not wait (an event loop, the garbage collector), a row
comes here, and one thread of the process writes it, many rows to a transaction.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from leastwise.errors import StoreError
from leastwise.sqlite import BusyError, StuckError, at_fork
from leastwise.stores.database import Database
from leastwise.stores.group import Group
from leastwise.stores.writing import Batch

_log: Final = logging.getLogger(__name__)

_BATCH: Final = 128  # some 4 ms, which is how long a read may have to wait
_MOST_WAITING: Final = 10_000  # rows kept while the file is locked, some 20 MB
_PAUSE_S: Final = 0.2  # before a database that cannot be had is asked again
_LAST_WAIT_S: Final = 15.0  # for the writer to end: longer than it waits for a locked file

Job = Callable[[Batch], object]


class Outbox:
    """Jobs waiting for their transaction, and the one thread of this process that does them.

    `put` uses `SimpleQueue`, the one queue whose `put` may run inside the garbage collector.
    After a fork what was waiting is the parent's to write, and the child begins anew. A lease whose
    settlement could not be written stays reserved, which is safe.

    Args:
        database: Where to.
        group: With whom the writer shares its transactions.
    """

    def __init__(self, database: Database, group: Group) -> None:
        self._database = database
        self._group = group
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._queue: queue.SimpleQueue[Job | threading.Event | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_checkpoint_due = False

    def start(self) -> None:
        """Have the writer running, unless the system has no thread left to give."""
        if self._thread is None or not self._thread.is_alive():
            with self._starting, suppress(RuntimeError):
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._serve, name="leastwise-ledger", daemon=True)
                    thread.start()
                    self._thread = thread

    def put(self, job: Job) -> None:
        """Queue `job`."""
        self._queue.put(job)

    def checkpoint(self) -> None:
        """Have the writer keep the write-ahead log short."""
        self._is_checkpoint_due = True
        self._queue.put(_nothing)

    def do_joined(self) -> None:
        """Do what has joined the group or, where that takes time, have the writer do it."""
        if not (self._database.is_near and self._group.serve()):
            self.start()
            self._queue.put(_serve_joined)

    def flush(self) -> None:
        """Return once all that was queued before this call is done.

        Raises:
            StoreError: it takes too long, for the database cannot be had.
        """
        self.start()
        if self._group.has_joined:
            self._queue.put(_serve_joined)
        if self._thread is None or not self._thread.is_alive():
            self._do(self._waiting())
            return
        done = threading.Event()
        self._queue.put(done)
        if not done.wait(_LAST_WAIT_S):
            message = f"rows wait to be written to the ledger {self._database.name!r}, which cannot be had"
            raise StoreError(message)

    def close(self) -> None:
        """Do what is queued, stop the writer and close the file.

        Also the store's finalizer, which may run in any thread, under any lock: the writer
        itself only notes that it is to end, and nobody waits for it for ever.
        """
        thread = self._thread
        if self._group.has_joined:
            self._queue.put(_serve_joined)
        if thread is not None:
            self._is_closing = True
            self._queue.put(None)
            if thread is threading.current_thread():
                return
            thread.join(_LAST_WAIT_S)
            self._thread = None
        self._do(self._waiting())
        self._is_closing = False
        self._database.close()

    def _serve(self) -> None:
        """Do what comes, many jobs to a transaction, until None comes."""
        items: list[Job | threading.Event | None] = []
        while None not in items:
            items = [self._queue.get(), *self._waiting(_BATCH)]
            self._do([item for item in items if item is not _nothing])
            if self._is_checkpoint_due:
                self._is_checkpoint_due = False
                self._database.checkpoint()

    def _waiting(self, most: int = sys.maxsize) -> list[Job | threading.Event | None]:
        """Take up to `most` items that are there now."""
        items: list[Job | threading.Event | None] = []
        with suppress(queue.Empty):
            while len(items) < most:
                items.append(self._queue.get_nowait())
        return items

    def _do(self, items: list[Job | threading.Event | None]) -> None:
        """Do these jobs in one transaction or, when that fails, one by one, and say which events are done.

        The request has long been answered: what cannot be recorded is said, and the writer lives on.
        """
        jobs = [item for item in items if callable(item)]
        error = self._try(jobs) if jobs else None
        if isinstance(error, StuckError):
            items += self._waiting()  # so that nothing piles up without end
            errors: list[Exception] = [error for item in items if callable(item)]
        elif error is not None:  # one bad row must not take others with it
            errors = [error for error in (self._try([job]) for job in jobs) if error is not None]
        else:
            errors = []
        if errors:
            name = self._database.name
            _log.error("%d ledger rows were not written to %s", len(errors), name, exc_info=errors[-1])
        for item in items:
            if isinstance(item, threading.Event):
                item.set()

    def _try(self, jobs: Sequence[Job]) -> Exception | None:
        """Do these jobs in one transaction, however long it takes to get it; return what prevented it."""
        tries = 0
        while True:
            try:
                self._group.do(partial(_do_all, jobs))
            except BusyError:  # others were in the way
                continue
            except StuckError as error:
                if self._is_closing or self._queue.qsize() > _MOST_WAITING:
                    return error
                tries += 1
                if tries & (tries - 1) == 0:  # ever more seldom: an outage must not fill the log
                    _log.warning("%s: %d ledger rows wait", error, len(jobs) + self._queue.qsize())
                time.sleep(_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a row, the writer lives on
                return error
            else:
                return None


def _do_all(jobs: Sequence[Job], steps: Batch) -> None:
    for job in jobs:
        job(steps)


def _serve_joined(_: Batch) -> None:
    """Have a transaction, which takes along what has joined."""


def _nothing(_: Batch) -> None:
    """Wake the writer."""
