"""Exchanges of one event loop share transactions, and nothing is lost however loop and caller end."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from leastwise import sqlite
from leastwise.budget import Account, BudgetRule, Claim, Limits, Window
from leastwise.client import Desk, Life, Result, run_async
from leastwise.errors import BudgetUnavailableError
from leastwise.exchange import exchange
from leastwise.ledger import Charge, Entry, Reserved
from leastwise.messages import Held, Reply, Usage
from leastwise.steps import Lease, Send, Settle
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, Clock, call, reply
from tests.kit import terms as plain_terms

MANY = 20
KEY = "2026-11-01T00:00Z"
COST = 25_000  # nano-dollars, of one of these calls


class Counting(SqliteStore):
    """A ledger that counts its transactions, and holds each up by what a test wants to happen before it."""

    def __init__(self, path: Path, durability: Literal["process", "power"] = "process") -> None:
        super().__init__(path, clock=Clock(), durability=durability)
        self.begun = 0
        begin = self.database.begin

        def counted(*, may_wait: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as `begin`
            self.begun += 1
            return begin(may_wait=may_wait)

        self.database.begin = counted  # type: ignore[method-assign]  # counts, and changes nothing


@pytest.fixture(params=["process", "power"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Counting]:
    with closing(Counting(tmp_path / "ledger.db", request.param)) as made:
        made.beat()
        made.flush()
        made.begun = 0
        yield made


async def upstream(_: Send) -> Reply:
    await asyncio.sleep(0.001)
    return reply()


async def ask(desk: Desk, number: int, up: Callable[[Send], object] = upstream) -> Result:
    """Run one exchange with a budget."""
    made = plain_terms(limits=Limits((BudgetRule("all", 10**12),)))
    made.rng.seed(number)
    return await run_async(exchange(call(id=f"X{number}"), made), up, desk)  # type: ignore[arg-type]


def written(path: str | Path, table: str) -> int:
    """Count rows as they are in the file, whatever waits."""
    with closing(sqlite3.connect(path)) as other:
        return int(other.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours


def rows(store: SqliteStore, table: str) -> int:
    return written(store.database.path, table)


def shared(store: SqliteStore) -> Desk:
    """Return a desk with two exchanges under way."""
    desk = Desk(store, Clock())
    desk.lives |= {Life(exchange(call(), plain_terms()), desk, may_wait=False) for _ in range(2)}
    return desk


def lease(id_: str) -> Lease:
    claim = Claim(Account("all", Window(KEY, KEY)), 10**12, BudgetRule("all", 10**12))
    reserved = Reserved(id_, "X", "answer", "p", "m", NOW, 7, (Charge("all", KEY, 7),))
    return Lease(reserved, (claim,), lambda _: pytest.fail("nobody leaves"))


def settled(id_: str, nusd: int = 5) -> Settle:
    charges = (Charge("all", KEY, nusd),)
    return Settle(
        Entry(id_, "X", "answer", "p", "m", NOW, 200, Usage(), "r", nusd, 7, "exact", charges=charges)
    )


def test_exchanges_of_one_loop_share_transactions_and_all_is_written_when_it_ends(store: Counting) -> None:
    desk = Desk(store, Clock())

    async def main() -> None:
        results = await asyncio.gather(*(ask(desk, number) for number in range(MANY)))
        assert ["payload"] * MANY == [result.payload for result in results]

    asyncio.run(main())
    assert set() == desk.lives
    assert 0 == desk.faults
    store.flush()  # where a thread had the turn, it writes what joined
    assert MANY == rows(store, "exchange") == rows(store, "entry")
    assert 2 <= store.begun <= MANY
    (window,) = store.windows()
    assert (MANY * COST, 0) == (window.standing.spent_nusd, window.standing.leased_nusd)


def test_one_exchange_alone_waits_for_no_turn(tmp_path: Path) -> None:
    with closing(Counting(tmp_path / "ledger.db")) as store:
        desk = Desk(store, Clock())

        async def main() -> None:
            for number in range(3):
                await ask(desk, number)
                assert number + 1 == rows(store, "exchange") == rows(store, "entry")

        asyncio.run(main())


def test_a_lease_is_committed_before_anything_is_sent(store: Counting) -> None:
    desk = Desk(store, Clock())

    async def look(step: Send) -> Reply:
        with closing(sqlite3.connect(store.database.path)) as other:
            held = other.execute("SELECT 1 FROM lease WHERE id = ?", (step.entry_id,)).fetchall()
        assert [(1,)] == held
        return await upstream(step)

    async def main() -> None:
        await asyncio.gather(*(ask(desk, number, look) for number in range(MANY)))

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(7))
def test_who_leaves_at_any_turn_leaves_no_lease_and_one_row(store: Counting, turns: int) -> None:
    desk = Desk(store, Clock())

    async def main() -> None:
        tasks = [asyncio.ensure_future(ask(desk, number)) for number in range(MANY)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert [] == store.reserved()
    assert rows(store, "entry") == rows(store, "exchange")
    if store.is_near:  # then all have asked for a lease in their first turn
        assert (MANY if turns else MANY // 2) == rows(store, "exchange")
    (window,) = store.windows()
    assert store.charged() == {("all", window.window_key): window.standing.spent_nusd}
    assert MANY // 2 * COST <= window.standing.spent_nusd


@pytest.mark.parametrize("how", ["flush", "close"])
def test_a_loop_that_is_closed_in_the_middle_loses_nothing(tmp_path: Path, how: str) -> None:
    store = Counting(tmp_path / "ledger.db")
    store.beat()
    desk = shared(store)
    loop = asyncio.new_event_loop()

    async def join() -> None:
        store.join_lease(lease("E1"), lambda *_: None, lambda: None)
        desk.write(settled("E1"), may_wait=False)
        desk.write(settled("E2"), may_wait=False)
        loop.stop()

    task = loop.create_task(join())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert task.done()
    loop.close()
    getattr(store, how)()
    assert (2, 0) == (rows(store, "entry"), rows(store, "lease"))
    store.close()


def test_a_store_dropped_with_its_loop_writes_what_has_joined(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def join() -> None:
        store = SqliteStore(path, clock=Clock())
        store.beat()
        shared(store).write(settled("E1"), may_wait=False)
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(join())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert task.done()
    loop.close()
    gc.collect()
    assert 1 == written(path, "entry")


def test_a_lease_nobody_awaits_any_more_is_answered_to_nobody(store: Counting) -> None:
    desk = Desk(store, Clock())
    loop = asyncio.new_event_loop()
    task = loop.create_task(desk.lease_together(lease("E1")))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not task.done()
    loop._ready.clear()  # type: ignore[attr-defined]  # as if it had stopped before the turn's end
    store.flush()
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert ["E1"] == [one.id for one in store.reserved()]


def test_without_a_loop_one_writes_at_once(store: Counting) -> None:
    shared(store).write(settled("E1"), may_wait=False)
    store.do_joined()
    store.flush()
    assert 1 == rows(store, "entry")
    assert not store._group.has_joined


def test_while_another_process_writes_the_loop_goes_on(store: Counting) -> None:
    desk = Desk(store, Clock())
    with closing(sqlite3.connect(store.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def main() -> None:
            tasks = [asyncio.ensure_future(ask(desk, number)) for number in range(MANY)]
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not any(task.done() for task in tasks)
            other.execute("COMMIT")
            await asyncio.gather(*tasks)

        asyncio.run(main())
    store.flush()
    assert MANY == rows(store, "exchange") == rows(store, "entry")
    assert [] == store.reserved()


def test_a_file_that_stays_locked_spends_nothing(store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.05)
    desk = Desk(store, Clock())
    with closing(sqlite3.connect(store.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def main() -> list[object]:
            return await asyncio.gather(*(ask(desk, number) for number in range(3)), return_exceptions=True)

        assert [BudgetUnavailableError] * 3 == [type(error) for error in asyncio.run(main())]
        other.execute("COMMIT")
    store.flush()
    assert [] == store.reserved()
    assert 3 == rows(store, "exchange")
    assert all(0 == nusd for nusd in store.charged().values())


def test_a_row_that_cannot_be_stored_takes_no_others_with_it(
    store: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    desk = shared(store)

    async def main() -> tuple[object, object]:
        desk.write(settled("E1"), settled("E2", 2**70), settled("E3"), may_wait=False)
        desk.write(settled("E4"), may_wait=False)
        bad, good = lease("bad\ud800"), lease("E5")
        return await asyncio.gather(desk.lease_together(bad), desk.lease_together(good))

    failed, granted = asyncio.run(main())
    assert isinstance(failed, BudgetUnavailableError)
    assert granted is None
    store.flush()
    assert (3, 1) == (rows(store, "entry"), rows(store, "lease"))
    assert "1 ledger rows were not written" in caplog.text


def test_a_live_reply_is_settled_with_others(store: Counting) -> None:
    desk = Desk(store, Clock())

    async def live(_: Send) -> Reply:
        return Reply(Held("live"))

    async def main() -> None:
        others = [asyncio.ensure_future(ask(desk, number)) for number in range(1, 3)]
        result = await ask(desk, 0, live)
        result.life.finish()
        await asyncio.gather(*others)

    asyncio.run(main())
    store.flush()
    assert 3 == rows(store, "exchange")
    assert [] == store.reserved()
