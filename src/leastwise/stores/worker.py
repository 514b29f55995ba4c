"""Things to do soon, and the one thread of this process that does them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from leastwise.sqlite import at_fork

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)

_LAST_WAIT_S: Final = 15.0


class Worker(Generic[T]):
    """Items on their way to a function that may take its time.

    `put` uses `SimpleQueue`, the one queue whose `put` may run inside the garbage collector. After a
    fork what was waiting is the parent's to do, and the child begins anew.

    Args:
        do: Called with what has come, by one thread at a time; returns what is to be tried again with
            what comes next. Must not refer to whoever owns the worker, which could then never end.
        name: The thread's.
        every_s: Call it this often though nothing came; None for never.
    """

    def __init__(self, do: Callable[[list[T]], list[T]], name: str, *, every_s: float | None = None) -> None:
        self._do = do
        self._name = name
        self._every_s = every_s
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._queue: queue.SimpleQueue[T | threading.Event | None] = queue.SimpleQueue()
        self._again: list[T] = []
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, be it new or tried before."""
        return not self._again and self._queue.empty()

    def start(self) -> None:
        """Have the thread running, unless the system has none left to give."""
        if self._thread is None or not self._thread.is_alive():
            with self._starting, suppress(RuntimeError):
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                    thread.start()
                    self._thread = thread

    def put(self, *items: T) -> None:
        """Queue these; blocks nowhere."""
        for item in items:
            self._queue.put(item)

    def wake(self) -> None:
        """Have tried again what is still to be done."""
        self.start()
        self._queue.put(threading.Event())

    def flush(self) -> None:
        """Return once all that was put before this call is done, or was tried in vain."""
        self.start()
        done = threading.Event()
        self._queue.put(done)
        if self._thread is None:
            self._work(None)
        else:
            done.wait(_LAST_WAIT_S)

    def close(self) -> None:
        """Do what waits and end the thread; also a finalizer, so nobody waits for it for ever."""
        thread = self._thread
        if thread is threading.current_thread():
            self._queue.put(None)
            return
        if thread is not None:
            self._queue.put(None)
            thread.join(_LAST_WAIT_S)
            self._thread = None
        elif not self.is_empty:
            self._work(0)
        if self._again:
            _log.error("%s: %d could not be done before the end", self._name, len(self._again))

    def _serve(self) -> None:
        while self._work(self._every_s):
            pass

    def _work(self, wait_s: float | None) -> bool:
        """Wait for something, do all that is there; tell whether to go on."""
        found: list[T | threading.Event | None] = []
        with suppress(queue.Empty):
            found.append(self._queue.get(timeout=wait_s))
            while True:
                found.append(self._queue.get_nowait())
        items = [item for item in found if item is not None and not isinstance(item, threading.Event)]
        try:
            self._again = self._do([*self._again, *items])
        except Exception:  # noqa: BLE001 - whatever is wrong with an item, the thread lives on
            self._again = []
            _log.exception("%s failed", self._name)
        for item in found:
            if isinstance(item, threading.Event):
                item.set()
        return None not in found
