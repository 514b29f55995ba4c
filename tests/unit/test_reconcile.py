"""Budgets set against the ledger: what differs, what is mended, and what is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leastwise.budget import Account, BudgetRule, Claim, Limits, window_of
from leastwise.errors import ConfigError
from leastwise.forecast import DAY_S
from leastwise.ledger import Reserved
from leastwise.messages import Facts
from leastwise.money import NUSD_PER_USD as USD
from leastwise.reconcile import Difference, correct_one, differences, set_right
from leastwise.steps import Lease, Record, Settle
from leastwise.stores import Store
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, Clock
from tests.paid import paid, settle

DAY = BudgetRule("day", 100 * USD, window="day")
TODAY, YESTERDAY = "2026-11-23T00:00Z", "2026-11-22T00:00Z"
LIMITS = Limits((DAY,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "leastwise.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with closing(SqliteStore(file, clock=Clock())) as opened:
        yield opened


def never(_: Facts | None) -> tuple[Settle, Record]:
    raise AssertionError


def spent(store: Store) -> dict[str, int]:
    return {line.window_key: line.standing.spent_nusd for line in store.windows()}


def test_every_window_is_set_to_what_its_charges_add_up_to(store: Store) -> None:
    settle(store, paid(DAY, NOW, 3), paid(DAY, NOW, 4), paid(DAY, NOW - DAY_S, 5))
    store.correct("day", TODAY, 1 - 7 * USD)
    store.correct("day", YESTERDAY, 4 * USD)

    done = set_right(store, LIMITS, NOW)

    assert (
        Difference("day", YESTERDAY, 9 * USD, 5 * USD),
        Difference("day", TODAY, 1, 7 * USD),
    ) == done.found
    assert () == done.left
    assert {YESTERDAY: 5 * USD, TODAY: 7 * USD} == spent(store)
    assert [] == differences(store, LIMITS, NOW)


def test_a_window_of_now_that_its_store_forgot_is_written_anew(store: Store, file: Path) -> None:
    """One that is over may be forgotten: nobody asks for it any more."""
    settle(store, paid(DAY, NOW, 3), paid(DAY, NOW - DAY_S, 5))
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("DELETE FROM account")

    assert [Difference("day", TODAY, 0, 3 * USD)] == differences(store, LIMITS, NOW)
    assert () == set_right(store, LIMITS, NOW).left
    assert {TODAY: 3 * USD} == spent(store)


def test_what_is_on_its_way_to_the_budgets_is_no_difference(store: Store, file: Path) -> None:
    """As where a ledger here and budgets elsewhere are cut off from each other."""
    entry = paid(DAY, NOW, 3)
    held = Reserved(
        entry.id, entry.exchange_id, "answer", "anthropic", entry.model, NOW, 4 * USD, entry.charges
    )
    rule = LIMITS.rules[0]
    claim = Claim(Account("day", window_of(rule, NOW)), 10 * USD, rule)
    assert None is store.lease(Lease(held, (claim,), never), may_wait=True)
    with closing(SqliteStore(file, keeps_budgets=False, clock=Clock())) as ledger:
        ledger.write(Settle(entry), may_wait=True)

    assert {TODAY: 0} == spent(store)
    assert [] == differences(store, LIMITS, NOW)
    store.correct("day", TODAY, USD)
    assert [Difference("day", TODAY, USD, 0)] == differences(store, LIMITS, NOW)


def test_a_ledger_that_is_not_the_whole_one_says_nothing_of_shared_budgets(store: Store) -> None:
    settle(store, paid(DAY, NOW, 3))
    store.correct("day", TODAY, USD)

    done = set_right(store, LIMITS, NOW, is_whole=False)

    assert ((), False, {TODAY: 4 * USD}) == (done.found, done.is_compared, spent(store))


def test_what_does_not_stay_mended_is_told(store: Store, file: Path) -> None:
    settle(store, paid(DAY, NOW, 3))
    with closing(sqlite3.connect(file)) as other, other:
        other.execute(
            "CREATE TRIGGER stuck AFTER UPDATE ON account BEGIN UPDATE account SET spent_nusd = 7; END"
        )
    store.correct("day", TODAY, 1)

    stuck = Difference("day", TODAY, 7, 3 * USD)
    done = set_right(store, LIMITS, NOW)

    assert ((stuck,), (stuck,)) == (done.found, done.left)


def test_a_lost_entry_gets_its_real_cost_in_every_budget_that_paid(store: Store) -> None:
    lost = paid(DAY, NOW, 3, certainty="lost")
    settle(store, lost, paid(DAY, NOW, 1))

    done = correct_one(store, lost.id, USD // 2)

    assert done.corrected is not None
    assert (USD // 2, "exact") == (done.corrected[1].cost_nusd, done.corrected[1].certainty)
    assert ({TODAY: 3 * USD // 2}, []) == (spent(store), store.lost())
    assert [] == differences(store, LIMITS, NOW)
    with pytest.raises(ConfigError, match=f"--entry {lost.id}: no lost entry has this id"):
        correct_one(store, lost.id, 0)
