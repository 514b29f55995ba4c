"""Budgets set against the ledger: what each window has spent is what the charges of its entries add up to.

They differ only where a store lost what it had acknowledged, such as after a fail-over, or where two
stores were cut off from each other. What dead processes left behind is settled first, at the most it can
have cost; who knows what it did cost says so here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from leastwise.budget import Limits, budget_of, window_of
from leastwise.errors import ConfigError
from leastwise.ledger import Entry
from leastwise.steps import Settle
from leastwise.stores import Store, recover

_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """A window whose account does not say what its charges add up to."""

    account: str
    window_key: str
    spent_nusd: int
    charged_nusd: int


def differences(store: Store, limits: Limits, now: float) -> list[Difference]:
    """Return the windows that differ from their charges.

    Those that calls were settled in while they were read are left out: nothing can be said of them yet.
    What is in the ledger and has still to reach the budgets counts as not charged yet.
    """
    before = store.charged()
    on_the_way = _on_the_way(store)
    spent = {(line.account, line.window_key): line.standing.spent_nusd for line in store.windows()}
    spent |= dict.fromkeys(_missing(before, limits, now) - spent.keys(), 0)
    after, still_on_the_way = store.charged(), _on_the_way(store)
    expected = {window: before.get(window, 0) - on_the_way.get(window, 0) for window in spent}
    seen_later = {window: after.get(window, 0) - still_on_the_way.get(window, 0) for window in spent}
    return [
        Difference(*window, nusd, expected[window])
        for window, nusd in sorted(spent.items())
        if expected[window] == seen_later[window] != nusd
    ]


def _on_the_way(store: Store) -> dict[tuple[str, str], int]:
    """Return what entries of the ledger cost whose leases are still open, by window."""
    found: dict[tuple[str, str], int] = {}
    for entry in filter(None, (store.entry(lease.id) for lease in store.reserved())):
        for charge in entry.charges:
            window = charge.budget_id, charge.window_key
            found[window] = found.get(window, 0) + charge.nusd
    return found


def _missing(charged: dict[tuple[str, str], int], limits: Limits, now: float) -> set[tuple[str, str]]:
    """Return the charged windows that are of now; a store may have forgotten those that are over."""
    rules = {rule.name: window_of(rule, now) for rule in limits.rules}
    return {
        (account, key)
        for account, key in charged
        if (window := rules.get(budget_of(account)[0])) is not None and window.first <= key <= window.key
    }


def mend(store: Store, found: Sequence[Difference], limits: Limits, now: float) -> list[Difference]:
    """Add to each of these windows what it lacks of its charges; return what differs still."""
    for _ in range(_ROUNDS):
        if not found:
            break
        for one in found:
            store.correct(one.account, one.window_key, one.charged_nusd - one.spent_nusd)
        found = differences(store, limits, now)
    return list(found)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was set right, or would be.

    Attributes:
        settled: What dead processes had reserved, now charged at its most.
        found: Windows that differed from their charges.
        left: Those that still do, for calls were settled meanwhile.
        lost: Entries whose cost is not known.
        corrected: An entry whose cost is known now, before and after.
        is_compared: Whether budgets were set against the ledger.
    """

    settled: tuple[Entry, ...] = ()
    found: tuple[Difference, ...] = ()
    left: tuple[Difference, ...] = ()
    lost: tuple[Entry, ...] = ()
    corrected: tuple[Entry, Entry] | None = None
    is_compared: bool = True


def set_right(
    store: Store, limits: Limits, now: float, *, is_dry: bool = False, is_whole: bool = True
) -> Reconciled:
    """Settle what dead processes left, and set budgets by the ledger; with `is_dry` only tell.

    A ledger that is not the whole one, for other machines have theirs, says nothing of budgets they share.
    """
    settled = [reserved.lost() for reserved in store.dead()] if is_dry else recover(store)
    found = differences(store, limits, now) if is_whole else []
    left = [] if is_dry else mend(store, found, limits, now)
    lost = [*store.lost(), *(settled if is_dry else ())]
    return Reconciled(tuple(settled), tuple(found), tuple(left), tuple(lost), is_compared=is_whole)


def correct_one(store: Store, entry_id: str, nusd: int, *, is_dry: bool = False) -> Reconciled:
    """Write what a lost entry did cost, in every window that paid the most for it.

    Raises:
        ConfigError: there is no lost entry of that id.
    """
    lost = store.lost()
    before = next((entry for entry in lost if entry.id == entry_id), None)
    if before is None:
        message = f"--entry {entry_id}: no lost entry has this id; see them: leastwise budget reconcile"
        raise ConfigError(message)
    charges = tuple(replace(charge, nusd=nusd) for charge in before.charges)
    after = replace(before, cost_nusd=nusd, certainty="exact", charges=charges)
    if not is_dry:
        store.write(Settle(after), may_wait=True)
    return Reconciled(lost=tuple(one for one in lost if one is not before), corrected=(before, after))
