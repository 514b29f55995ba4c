"""Group commit: what several threads have to write at once becomes one transaction.

Whoever gets the turn does what all who wait have brought, in one transaction, and gives the answers out once
it is committed; the others find theirs there. One alone pays for two uncontended locks. Coroutines cannot
wait so: their jobs join whatever transaction comes next, and somebody calls `serve` to have it come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from leastwise.sqlite import BusyError, StuckError, at_fork
from leastwise.stores.database import Connection, Database
from leastwise.stores.writing import Batch

T = TypeVar("T")

_MOST: Final = 64  # jobs to a transaction: some 3 ms, which is how long a read may have to wait


class _Waiting:
    """A job, and what came of it."""

    __slots__ = ("answer", "error", "is_done", "job", "locks", "sleep")

    def __init__(self, job: Callable[[Batch], Any], locks: Sequence[str]) -> None:
        self.job = job
        self.locks = locks
        self.is_done = False
        self.answer: Any = None
        self.error: Exception | None = None
        self.sleep = threading.Lock()
        self.sleep.acquire()

    def wake(self) -> None:
        """Have its thread look again; needless calls do no harm."""
        with suppress(RuntimeError):  # it has been woken already
            self.sleep.release()


class _Joined(_Waiting):
    """A job that no thread waits for."""

    __slots__ = ("again", "then")

    def __init__(
        self,
        job: Callable[[Batch], Any],
        then: Callable[[Any, Exception | None], None],
        again: Callable[[], None],
        locks: Sequence[str],
    ) -> None:
        self.job = job
        self.locks = locks
        self.is_done = False
        self.answer = self.error = None
        self.then = then
        self.again = again

    def wake(self) -> None:
        """Say what came of it or, while nothing did, have its loop look again."""
        if self.is_done:
            self.then(self.answer, self.error)
        else:
            self.again()


class Group:
    """Jobs that share transactions.

    While another process holds the file, one waits for it and the others for their turn; after a fork
    the child begins anew, and those who wait are the parent's.

    Args:
        database: Where to.
        keeps_budgets: Whether the budgets are kept there, too.
    """

    def __init__(self, database: Database, *, keeps_budgets: bool = True) -> None:
        self._database = database
        self._keeps_budgets = keeps_budgets
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._turn = threading.RLock()
        self._waiting: deque[_Waiting] = deque()
        self._joined: deque[_Waiting] = deque()

    def join(
        self,
        job: Callable[[Batch], T],
        then: Callable[[T, Exception | None], None],
        again: Callable[[], None],
        locks: Sequence[str] = (),
    ) -> None:
        """Have `job` done in the next transaction, whosever it is, with what joins until then, in that order.

        Args:
            job: As for `do`.
            then: Called once it is committed, or failed, on whichever thread did it; must not raise.
            again: Called on whichever thread has just written: `serve` may have the turn by now.
            locks: As for `do`.
        """
        self._joined.append(_Joined(job, then, again, locks))

    @property
    def has_joined(self) -> bool:
        """Whether there is something that nobody waits for."""
        return bool(self._joined)

    def serve(self) -> bool:
        """Do what has joined, without waiting; false where a thread must do it that may wait.

        While a thread of this process writes, nothing is done: once it has written, it calls `again`.
        """
        try:
            while self._joined and self._try(None, may_wait=False):
                pass
        except BusyError:
            return False
        return True

    def do(self, job: Callable[[Batch], T], *, locks: Sequence[str] = (), may_wait: bool = True) -> T:
        """Return what `job` returned, once it is committed; a job that fails changes nothing.

        A job may be run again, in a transaction of its own, when one beside it failed. What jobs are to
        lock is locked before the first of them.

        Raises:
            BusyError: `may_wait` is false and somebody else is writing.
            StuckError: another process wrote for longer than anybody waits.
            StoreError: the database failed.
            Exception: whatever `job` raised.
        """
        mine = _Waiting(job, locks)
        if may_wait:
            self._wait(mine)
        elif not self._try(mine, may_wait=False):
            raise BusyError
        if mine.error is not None:
            raise mine.error
        answer: T = mine.answer
        return answer

    def _wait(self, mine: _Waiting) -> None:
        """Return when this is done, by whomever."""
        self._waiting.append(mine)
        try:
            while not (mine.is_done or (self._try(None, may_wait=True) and mine.is_done)):
                mine.sleep.acquire()
        finally:
            if not mine.is_done:  # interrupted, perhaps when it was its turn
                with suppress(ValueError):
                    self._waiting.remove(mine)
                self._wake_next()

    def _try(self, alone: _Waiting | None, *, may_wait: bool) -> bool:
        """Take the turn, unless somebody has it."""
        turn = self._turn
        if not turn.acquire(blocking=False):
            return False
        try:
            self._serve(alone, may_wait=may_wait)
        finally:
            turn.release()
            self._wake_next()
            if may_wait or alone is not None:  # else it is `serve`, which must not call itself
                with suppress(IndexError):
                    self._joined[0].wake()
        return True

    def _wake_next(self) -> None:
        """Whoever could not have the turn has been waiting by the time that it is given back."""
        with suppress(IndexError):
            self._waiting[0].wake()

    def _serve(self, alone: _Waiting | None, *, may_wait: bool) -> None:
        """Do this one or, where there is none, those who wait by the time that the transaction begins."""
        group = [] if alone is None else [alone]
        try:
            with self._database.transaction(may_wait=may_wait) as connection:
                self._do(group or self._take(group), connection)
        except BusyError:
            raise
        except StuckError as error:
            self._fail(group or self._take(group), error)
        except Exception as error:  # whatever a job raised, or the database
            if len(group) > 1 and not may_wait:
                raise BusyError from error  # to do them one by one takes time
            if len(group) > 1:
                self._one_by_one(group)
            else:
                self._fail(group or self._take(group), error)
        else:
            for one in group:
                one.is_done = True
                one.wake()
        finally:
            for one in reversed(group):  # of those of an interrupted turn the next one takes care
                if not one.is_done and one is not alone:
                    (self._joined if isinstance(one, _Joined) else self._waiting).appendleft(one)

    def _take(self, group: list[_Waiting]) -> list[_Waiting]:
        """Move what has joined, and some of those who wait, into `group`, and return it."""
        with suppress(IndexError):
            while True:
                group.append(self._joined.popleft())
        with suppress(IndexError):
            while len(group) < _MOST:
                group.append(self._waiting.popleft())
        return group

    def _do(self, group: list[_Waiting], connection: Connection) -> None:
        connection.lock([name for one in group for name in one.locks])
        batch = Batch(connection, keeps_budgets=self._keeps_budgets)
        for one in group:
            one.answer = one.job(batch)
        batch.write()

    def _one_by_one(self, group: list[_Waiting]) -> None:
        """Do each in a transaction of its own, so that one that fails does not take the others with it."""
        for one in group:
            try:
                with self._database.transaction() as connection:
                    self._do([one], connection)
            except Exception as error:  # noqa: BLE001 - as above
                one.error = error
            one.is_done = True
            one.wake()

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        for one in group:
            one.error, one.is_done = error, True
            one.wake()
