"""The ledger first, then the budgets: what happens when one of them fails, or the process dies between."""

from __future__ import annotations

import gc
import signal
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from leastwise.budget import Account, BudgetRule, Claim, Standing, Window
from leastwise.errors import StoreError
from leastwise.ledger import Charge, Entry, Exchange, Reserved, new_id
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import recover
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.split import Split
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW
from tests.servers import Valkey, age, valkey_url

KEY = "2026-11-01T00:00Z"
CLAIM = Claim(Account("a", Window(KEY, KEY)), 1000, BudgetRule("a", 1000))
rng = Random(20261125)


@pytest.fixture
def url() -> str:
    return valkey_url()


@pytest.fixture
def split(tmp_path: Path, url: str) -> Iterator[Split]:
    with closing(opened(tmp_path, url)) as made:
        yield made


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Return a server that this test may end."""
    server = Valkey()
    yield server
    server.kill()


def opened(folder: Path, url: str) -> Split:
    return Split(SqliteStore(folder / "leastwise.db", keeps_budgets=False), RedisBudgets(url))


def row() -> Exchange:
    facts: dict[str, Any] = {
        each.name: 0 if each.type in ("int", "float") else "" for each in fields(Exchange)
    }
    return Exchange(**{**facts, "id": new_id(NOW, rng), "at": NOW})


def reserve(split: Split, of: Exchange, worst_nusd: int = 100) -> Reserved:
    charges = (Charge("a", KEY, worst_nusd),)
    made = Reserved(new_id(NOW, rng), of.id, "answer", "anthropic", "m", NOW, worst_nusd, charges)
    assert None is split.lease(Lease(made, (CLAIM,), never), may_wait=True)
    return made


def never(_: object) -> tuple[Settle, Record]:
    raise AssertionError


def paid(held: Reserved, nusd: int) -> Entry:
    charges = (Charge("a", KEY, nusd),)
    return replace(held.lost(), cost_nusd=nusd, certainty="exact", status=200, charges=charges)


def stands(split: Split) -> Standing:
    return split.standings([CLAIM.account])["a"]


def agrees(split: Split) -> bool:
    """Tell whether what the ledger's charges add up to is what the budgets have spent."""
    spent = {(line.account, line.window_key): line.standing.spent_nusd for line in split.windows()}
    return spent == split.charged()


def test_who_waits_finds_it_settled(split: Split) -> None:
    made = row()
    split.write(Settle(paid(reserve(split, made), 40)), Record(made), may_wait=True)

    assert Standing(40, 0, 1) == stands(split)
    assert agrees(split)


def stands_again(split: Split) -> Standing:
    """Return how the account stands, once a server that was away answers and what waited is settled."""
    for _ in range(200):
        split.flush()
        try:
            standing = stands(split)
        except StoreError:
            standing = Standing()
        if standing.spent_nusd:
            return standing
        time.sleep(0.05)
    raise AssertionError


def test_who_may_not_wait_waits_for_no_server(tmp_path: Path, valkey: Valkey) -> None:
    with closing(opened(tmp_path, valkey.url())) as split:
        made = row()
        held = reserve(split, made)
        valkey.pause()
        begun = time.monotonic()
        split.write(Settle(paid(held, 40)), Record(made), may_wait=False)
        split.post(Settle(paid(held, 40)))
        assert time.monotonic() - begun < 0.2
        valkey.resume()
        assert Standing(40, 0, 1) == stands_again(split)


def test_who_was_just_told_that_the_budgets_are_away_does_not_wait_for_them_again(
    tmp_path: Path, valkey: Valkey
) -> None:
    with closing(opened(tmp_path, valkey.url())) as split:
        made = row()
        held = reserve(split, made)
        valkey.pause()
        with pytest.raises(StoreError):
            reserve(split, made)
        begun = time.monotonic()
        split.write(Settle(paid(held, 40)), Record(made), may_wait=True)
        assert time.monotonic() - begun < 0.2
        valkey.resume()
        assert Standing(40) == replace(stands_again(split), leased_nusd=0, calls=0)
        assert None is not reserve(split, made)
        split.write(Settle(paid(held, 40)), may_wait=True)
        assert agrees(split)


@pytest.mark.parametrize("again", ["write", "beat", "flush"])
def test_what_cannot_be_settled_now_is_settled_when_the_budgets_are_back(
    tmp_path: Path, valkey: Valkey, again: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opened(tmp_path, valkey.url())) as split:
        made, other = row(), row()
        held, and_held = reserve(split, made), reserve(split, other)
        valkey.kill()
        split.write(Settle(paid(held, 40)), Record(made), may_wait=True)
        split.write(Settle(paid(and_held, 2)), may_wait=False)
        split.write(Record(other), may_wait=True)
        split.flush()
        with pytest.raises(StoreError):
            split.beat()
        assert "a settlement waits for the budgets" in caplog.text
        assert 2 == len(split._worker._again)

        valkey.start()  # with nothing in it
        expected = Standing(42, 0, 2)
        if again == "write":
            third, expected = row(), Standing(542, 0, 3)
            split.write(Settle(paid(reserve(split, third), 500)), Record(third), may_wait=True)
        if again == "beat":
            split.beat()
            until = time.monotonic() + 10
            while not split._worker.is_empty and time.monotonic() < until:
                time.sleep(0.001)
        else:
            split.flush()
        assert (expected, True) == (stands(split), agrees(split))


def test_one_settlement_that_cannot_be_kept_holds_up_no_other(
    split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    good = [row() for _ in range(3)]
    held = [reserve(split, made) for made in good]
    bad = paid(held[0], 2**60)
    entries = [bad, paid(held[1], 1), replace(bad, id=new_id(NOW, rng)), paid(held[2], 2)]
    for entry in entries:
        split.write(Settle(entry), may_wait=False)
    split.flush()
    split.flush()
    split.flush()

    assert Standing(3, 100, 2) == stands(split)
    assert "cannot keep a value" in caplog.text
    assert 2 == len(split._worker._again)
    split._worker._again = []


def test_what_the_ledger_cannot_take_is_paid_for_all_the_same(split: Split) -> None:
    made = row()
    held = reserve(split, made)
    broken = replace(made, tag="\ud800")
    with pytest.raises(StoreError):
        split.write(Settle(paid(held, 40)), Record(broken), may_wait=True)
    split.flush()

    assert Standing(40, 0, 1) == stands(split)


def test_while_the_ledger_is_locked_nothing_is_settled(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("leastwise.stores.outbox._LAST_WAIT_S", 0.05)
    held = reserve(split, row())
    with closing(sqlite3.connect(tmp_path / "leastwise.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        split.write(Settle(paid(held, 40)), may_wait=False)
        split._worker.flush()
        assert Standing(0, 100, 0) == stands(split)
        assert "1 settlements wait for the ledger" in caplog.text
    split.flush()

    assert (Standing(40, 0, 1), True) == (stands(split), agrees(split))


def test_what_no_budget_covers_asks_no_server(tmp_path: Path, valkey: Valkey) -> None:
    with closing(opened(tmp_path, valkey.url())) as split:
        valkey.kill()
        made = row()
        free = Reserved(new_id(NOW, rng), made.id, "answer", "anthropic", "m", NOW, 5)
        assert None is split.lease(Lease(free, (), never), may_wait=True)
        split.write(Settle(replace(paid(free, 5), charges=())), Record(made), may_wait=True)

        assert split.known(Load(), NOW).standings == {}
        story = split.find(made.id)
        assert story is not None
        assert [5] == [entry.cost_nusd for entry in story.entries]
        valkey.start()


# --- a process that dies ---------------------------------------------------------------------------------

DIES = """
import os, signal, sys
from pathlib import Path
from leastwise.steps import Record, Settle
from tests.unit.test_stores_split import opened, paid, reserve, rng, row

folder, url, when = sys.argv[1:]
rng.seed(when)
split = opened(Path(folder), url)
made = row()
held = reserve(split, made)
ledger = split._ledger
if when == "after the row":
    ledger.write(Settle(paid(held, 40)), Record(made), may_wait=True)
elif when == "after the entry":
    ledger.write(Settle(paid(held, 40)), may_wait=True)
elif when == "after nothing was billed":
    ledger.write(Settle(paid(held, 0)), may_wait=True)
elif when == "at the end":
    split.write(Settle(paid(held, 40)), Record(made), may_wait=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize(
    ("when", "expected", "certainty"),
    [
        ("before anything", Standing(100, 0, 1), "lost"),
        ("after the entry", Standing(40, 0, 1), "exact"),
        ("after nothing was billed", Standing(), "exact"),
        ("after the row", Standing(40, 0, 1), "exact"),
        ("at the end", Standing(40, 0, 1), "exact"),
    ],
)
def test_a_crash_between_ledger_and_budgets_is_mended(
    tmp_path: Path, url: str, when: str, expected: Standing, certainty: str
) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), url, when], check=False)  # noqa: S603
    assert -signal.SIGKILL == died.returncode

    with closing(opened(tmp_path, url)) as split:
        age(url, 30)
        ids = [entry.id for entry in recover(split)]
        split.flush()

        assert expected == stands(split)
        assert [certainty] == [entry.certainty for entry in map(split.entry, ids) if entry] or not ids
        assert ([], []) == (split.reserved(), recover(split))
        assert agrees(split)


def test_one_that_was_thought_dead_puts_it_right(tmp_path: Path, url: str, split: Split) -> None:
    made = row()
    held = reserve(split, made)
    with closing(opened(tmp_path, url)) as other:
        age(url, 30)
        assert [held.id] == [entry.id for entry in recover(other)]
        assert Standing(100, 0, 1) == stands(other)
        split.write(Settle(paid(held, 40)), Record(made), may_wait=True)

        assert Standing(40, 0, 1) == stands(other)
        assert agrees(other)


def test_it_ends_with_its_last_user(tmp_path: Path, url: str) -> None:
    split = opened(tmp_path, url)
    made = row()
    split.write(Settle(paid(reserve(split, made), 40)), may_wait=False)
    split.post(Settle(paid(reserve(split, made), 2)))
    thread, gone = split._worker._thread, weakref.ref(split)
    del split
    gc.collect()
    assert None is gone()
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()

    with closing(opened(tmp_path, url)) as again:
        assert Standing(42, 0, 2) == stands(again)
