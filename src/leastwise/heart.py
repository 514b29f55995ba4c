"""What a process does beside its calls while it has budgets: every few seconds it says that it lives.

Beside that it settles what dead processes have left and tells of budgets that run short. One thread for
each of the two and each runtime; they end with it, and begin anew in a forked child.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from weakref import WeakMethod

from leastwise.errors import StoreError
from leastwise.sqlite import at_fork

_log: Final = logging.getLogger(__name__)

BEAT_S: Final = 5.0


class Heart:
    """Calls a bound method again and again, for as long as its object lives.

    Args:
        beat: The method; whatever it raises is logged.
        every_s: Seconds between two calls.
    """

    def __init__(self, beat: Callable[[], None], *, every_s: float = BEAT_S) -> None:
        self._beat = WeakMethod(beat)
        self._every_s = every_s
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have it beating, unless it is already or the system has no thread left to give."""
        if self._thread is None and not self._is_over.is_set():
            with self._starting, suppress(RuntimeError):
                if self._thread is None:
                    thread = threading.Thread(
                        target=_serve,
                        args=(self._beat, self._is_over, self._every_s),
                        name="leastwise-heart",
                        daemon=True,
                    )
                    thread.start()
                    self._thread = thread

    def stop(self) -> None:
        """Stop for good; where it was beating, once more at the end."""
        was_beating = self._thread is not None and not self._is_over.is_set()
        self._is_over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._every_s)
        if was_beating:
            _once(self._beat)


def _serve(beat: WeakMethod[Callable[[], None]], is_over: threading.Event, every_s: float) -> None:
    while not is_over.wait(every_s) and _once(beat):
        pass


def _once(beat: WeakMethod[Callable[[], None]]) -> bool:
    """Call it; tell whether its object is still there."""
    found = beat()
    if found is None:
        return False
    try:
        found()
    except StoreError as error:
        _log.warning("what is done beside the calls failed, and is tried again: %s", error)
    except Exception:  # noqa: BLE001 - the calls go on, and so does the next beat
        _log.warning("what is done beside the calls failed, and is tried again", exc_info=True)
    return True
