"""A ledger in one store with its budgets in another, such as one file here and Redis for all hosts.

The two share no transaction, so there is an order: the ledger first, then the budgets. Whatever happens
between the two, a lease stays open until it is settled: by this process as soon as the budgets can be
asked again or, when this process died, by whoever finds its lease, at what the ledger knows of it.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from leastwise.budget import Raise, Refusal
from leastwise.errors import StoreError
from leastwise.ledger import Entry
from leastwise.routing import Known
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import BudgetStore, Store
from leastwise.stores.recent import Recent
from leastwise.stores.worker import Worker

_log: Final = logging.getLogger(__name__)

_ENOUGH: Final = 2  # failures in a row say that it is not the entry


class Split:
    """A `Store` made of two.

    Args:
        ledger: Keeps the ledger; its own budgets are not used.
        budgets: Keeps the budgets.
    """

    def __init__(self, ledger: Store, budgets: BudgetStore) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._recent = Recent()
        self._is_away = False  # the budgets could not be asked for the last lease
        self._worker = Worker(partial(_settled, ledger, budgets), "leastwise-budgets")
        weakref.finalize(self, self._worker.close)
        self.is_near = budgets.is_near and ledger.is_near
        self.find, self.entry, self.sums = ledger.find, ledger.entry, ledger.sums
        self.latencies, self.types, self.misfits = ledger.latencies, ledger.types, ledger.misfits
        self.charged, self.lost = ledger.charged, ledger.lost
        self.step_downs, self.entries_of = ledger.step_downs, ledger.entries_of
        self.evidence, self.scored, self.add_feedback = ledger.evidence, ledger.scored, ledger.add_feedback
        self.put_calibration, self.put_trial = ledger.put_calibration, ledger.put_trial
        self.begin_trial, self.add_pairs, self.end_trial = (
            ledger.begin_trial,
            ledger.add_pairs,
            ledger.end_trial,
        )
        self.open_trials, self.pairs_of = ledger.open_trials, ledger.pairs_of
        self.standings, self.settle = budgets.standings, budgets.settle
        self.reserved, self.windows, self.correct = budgets.reserved, budgets.windows, budgets.correct
        self.dead, self.first_to, self.raises = budgets.dead, budgets.first_to, budgets.raises

    def known(self, wanted: Load, now: float) -> Known:
        """Return what routing needs: the ledger's part, and how the accounts stand."""
        known = self._ledger.known(replace(wanted, accounts=()), now)
        if not wanted.accounts:
            return known
        raised = self._recent.raised(now, self._budgets.raises)
        return replace(known, standings=self._budgets.standings(wanted.accounts), raised=raised)

    def add_raise(self, raised: Raise) -> None:
        """Give a budget more money until a time."""
        self._budgets.add_raise(raised)
        self._recent.forget_raises()

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        """Reserve; see `BudgetStore.lease`."""
        try:
            refusal = self._budgets.lease(lease, may_wait=may_wait)
        except StoreError:
            self._is_away = True
            raise
        self._is_away = False
        return refusal

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write to the ledger, then settle: now, or soon where we may not wait or budgets cannot be asked."""
        self._worker.start()
        entries = _paid(steps)
        try:
            self._ledger.write(*steps, may_wait=may_wait)
            if may_wait and entries and self._worker.is_empty and not self._is_away:
                entries = _settled_now(self._ledger, self._budgets, entries)
        finally:  # what the ledger could not take is paid for all the same
            self._worker.put(*entries)

    @property
    def can_join(self) -> bool:
        """Never: two stores share no transaction."""
        return False

    def join_lease(
        self,
        lease: Lease,
        then: Callable[[Refusal | None, Exception | None], None],
        again: Callable[[], None],
    ) -> None:
        """Not here."""
        raise NotImplementedError

    def join_write(self, steps: Sequence[Settle | Record], again: Callable[[], None]) -> None:
        """Not here."""
        raise NotImplementedError

    def do_joined(self) -> None:
        """Nothing has joined."""

    def post(self, step: Settle | Record) -> None:
        """Write soon; blocks nowhere."""
        self._ledger.post(step)
        self._worker.put(*_paid((step,)))

    def flush(self) -> None:
        """Return once everything posted so far is written; what cannot be settled for now waits."""
        self._ledger.flush()
        self._worker.flush()

    def beat(self) -> None:
        """Say that this process lives, and settle what waits."""
        if not self._worker.is_empty:
            self._worker.wake()
        self._budgets.beat()

    def close(self) -> None:
        """Write what is waiting and close both."""
        self._worker.close()
        self._ledger.close()
        self._budgets.close()


def _paid(steps: Sequence[Settle | Record]) -> list[Entry]:
    """Return the entries among these that budgets have to do with."""
    return [step.entry for step in steps if isinstance(step, Settle) and step.entry.charges]


def _settled(ledger: Store, budgets: BudgetStore, entries: list[Entry]) -> list[Entry]:
    """Settle what is in the ledger by now; return what has to be tried again."""
    if not entries:
        return []
    try:
        ledger.flush()
    except StoreError as error:
        _log.warning("%d settlements wait for the ledger: %s", len(entries), error)
        return entries
    return _settled_now(ledger, budgets, entries)


def _settled_now(ledger: Store, budgets: BudgetStore, entries: list[Entry]) -> list[Entry]:
    """Settle together or, when that fails, one by one; return what has to be tried again."""
    failed: list[Entry] = []
    groups = [entries]
    while groups and len(failed) < _ENOUGH:
        group = groups.pop(0)
        try:
            budgets.settle(*(_recorded(ledger, entry) for entry in group))
        except StoreError as error:
            if len(group) == 1:
                failed += group
                _log.warning("a settlement waits for the budgets: %s", error)
            else:
                groups = [[entry] for entry in group]
    return [*(entry for group in groups for entry in group), *failed]


def _recorded(ledger: Store, entry: Entry) -> Entry:
    """Return the entry as the ledger has it, where it knows better than that the process died."""
    if entry.certainty != "lost":
        return entry
    return ledger.entry(entry.id) or entry
