"""What is SQLite's own about the ledger: locks, the writer thread, forks, kills, exits.

What every store must do is in tests/contract/test_store.py.
"""

from __future__ import annotations

import gc
import logging
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from leastwise import sqlite
from leastwise.budget import Account, BudgetRule, Claim, Window
from leastwise.cascade import Rung
from leastwise.errors import StoreError
from leastwise.ladder import Verdict
from leastwise.ledger import Charge, Entry, Exchange, Reserved, first_id, new_id
from leastwise.routing import Warmth
from leastwise.sqlite import BusyError, Database
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import Query, outbox, sql
from leastwise.stores.reading import FIND_BY
from leastwise.stores.schema import MIGRATIONS
from leastwise.stores.sqlite import SqliteStore
from leastwise.stores.writing import EXCHANGE_COLUMNS, Batch

NOW = 1_795_435_200.0  # 2026-11-23 12:00 UTC
PREAMBLE = """
import gc, os, signal, sys, threading, time, weakref
from dataclasses import fields
from leastwise.budget import Account, BudgetRule, Claim, Window
from leastwise.ledger import Charge, Entry, Exchange, Reserved
from leastwise.messages import Usage
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores.sqlite import SqliteStore

path, name = sys.argv[1:]
store = SqliteStore(path)

def row(number, who=name):
    facts = {each.name: 0 if each.type in ("int", "float") else "" for each in fields(Exchange)}
    return Exchange(**{**facts, "id": f"{who} {number}", "at": time.time(), "input_tokens": number})

def settled(number, who=name):
    return Settle(Entry(f"{who} {number}", f"{who} {number}", "answer", "p", "m", time.time(), 200, Usage(1),
                        "r", 1, 1, "exact"))

def hold(id_, nusd=5):
    held = Reserved(id_, "X", "answer", "p", "m", time.time(), nusd, (Charge("a", "w", nusd),))
    claims = (Claim(Account("a", Window("w", "w")), 10**9, BudgetRule("b", 1)),)
    assert store.lease(Lease(held, claims, None), may_wait=True) is None
    return id_

def in_child(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def say(word):
    print(word, flush=True)
"""


def run(program: str, path: Path, *names: str) -> list[str]:
    """Run a program, once for each name at the same time; return what was said, line by line."""
    code = PREAMBLE + textwrap.dedent(program)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
        for name in names or ("p",)
    ]
    said = [process.communicate()[0] for process in processes]
    assert [0] * len(processes) == [process.returncode for process in processes]
    return [line for each in said for line in each.splitlines()]


def written(path: Path) -> list[str]:
    """Return the ids of all requests, once the sums agree with them."""
    with closing(SqliteStore(path)) as store:
        found = store.database.rows("SELECT id, input_tokens FROM exchange ORDER BY id")
        sums = store.sums(Query())
        assert [(len(found), sum(row["input_tokens"] for row in found))] == [
            (line.calls, line.input_tokens) for line in sums
        ]
        return [row["id"] for row in found]


def expected(*names: str, count: int) -> list[str]:
    return sorted(f"{name} {number}" for name in names for number in range(count))


def row(id_: str, **given: Any) -> Record:
    facts = {each.name: 0 if each.type in ("int", "float") else "" for each in fields(Exchange)}
    return Record(Exchange(**{**facts, "id": id_, "at": NOW, **given}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "leastwise.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as made:
        made.write(row("0"), may_wait=True)
        made.flush()
        yield made


@pytest.fixture
def locked(store: SqliteStore, path: Path) -> Iterator[sqlite3.Connection]:
    """Another program in the middle of a write; commits when told so, or at the end."""
    assert store.sums(Query())
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_what_waits_to_be_written_warms_its_session_already(
    store: SqliteStore, locked: sqlite3.Connection
) -> None:
    def turn(number: int) -> Record:
        return replace(row(f"w{number}", session="s"), warmth=Warmth("m", NOW + number, number, 0, 10))

    store.write(turn(1), may_wait=False)
    store.write(turn(2), may_wait=False)
    second = Warmth("m", NOW + 2, 2, 0, 20, 2)

    assert {"m": second} == store.known(Load(tenant="", session="s"), NOW).warmths
    locked.execute("COMMIT")
    store.flush()
    assert {"m": second} == store.known(Load(tenant="", session="s"), NOW).warmths


def test_what_other_processes_wrote_of_a_session_is_seen(store: SqliteStore, path: Path) -> None:
    def turn(number: int) -> Record:
        return replace(row(f"w{number}", session="s"), warmth=Warmth("m", NOW + number, number, 0, 10))

    store.write(turn(1), may_wait=True)
    with closing(SqliteStore(path)) as other:
        other.write(turn(2), may_wait=True)

    assert {"m": Warmth("m", NOW + 2, 2, 0, 20, 2)} == store.known(Load(tenant="", session="s"), NOW).warmths


def test_what_other_processes_know_later_of_a_forgotten_session_is_seen(
    store: SqliteStore, path: Path
) -> None:
    def turn(number: int, at: float) -> Record:
        return replace(row(f"w{number}", session="s"), warmth=Warmth("m", at, number, 0, 10))

    store.write(turn(1, NOW), turn(2, NOW + 1), may_wait=True)
    with closing(SqliteStore(path)) as other:
        with other.database.transaction() as connection:
            connection.execute("DELETE FROM warmth")  # as the pruning does after days
        other.write(turn(3, NOW + 2), may_wait=True)

    assert {"m": Warmth("m", NOW + 2, 3, 0, 10, 1)} == store.known(Load(tenant="", session="s"), NOW).warmths


def test_the_sessions_remembered_in_memory_are_bounded(store: SqliteStore) -> None:
    for number in range(10_010):
        step = replace(row(f"w{number}", session=f"s{number}"), warmth=Warmth("m", NOW, 1))
        store._recent.add(step)  # to write ten thousand rows would take seconds

    assert ({}, {"m": Warmth("m", NOW, 1)}) == tuple(
        store.known(Load(tenant="", session=session), NOW).warmths for session in ("s0", "s10009")
    )


def test_what_waits_to_be_written_holds_its_session_up_already(
    store: SqliteStore, locked: sqlite3.Connection
) -> None:
    def floor() -> tuple[str, float]:
        known = store.known(Load(tenant="", talk="s"), NOW)
        return known.floor, known.floor_at

    for to, at in (("sonnet", NOW), ("opus", NOW + 1), ("haiku", NOW - 1)):
        store.write(replace(row(to, session="s", at=at), floor=to), may_wait=False)
    store.write(row("w4", session="s"), may_wait=False)

    assert ("opus", NOW + 1) == floor()
    locked.execute("COMMIT")
    store.flush()
    assert ("opus", NOW + 1) == floor()


def test_the_floors_remembered_in_memory_are_bounded(store: SqliteStore) -> None:
    for number in range(10_010):
        store._recent.add(replace(row(f"w{number}", session=f"s{number}"), floor="opus"))

    assert ["", "opus"] == [
        store.known(Load(tenant="", talk=session), NOW).floor for session in ("s0", "s10009")
    ]


ADDED = ("misfit_field", "lost_cache_nusd", "checks_nusd", "cache", "checked", "escalations")


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(path: Path) -> None:
    with closing(Database(path, MIGRATIONS[:1])) as old:
        old.rows("SELECT 1")
        with old.transaction() as connection:
            columns = [name for name in EXCHANGE_COLUMNS if name not in ADDED]
            values = [getattr(row("old", spent_nusd=7).exchange, name) for name in columns]
            connection.execute(
                f"INSERT INTO exchange ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608 - names of columns
                values,
            )
            connection.execute(f"INSERT INTO hourly VALUES (0{', 1' * 22})")  # noqa: S608 - 23 numbers

    with closing(SqliteStore(path)) as store:
        story = store.find("old")
        assert story is not None
        assert row("old", spent_nusd=7).exchange == story.exchange
        assert [(0, 0)] == [(line.lost_cache_nusd, line.checks_nusd) for line in store.sums(Query())]


def test_what_may_not_wait_is_written_when_the_other_has_done(
    store: SqliteStore, locked: sqlite3.Connection
) -> None:
    for number in range(1, 20):
        store.write(row(str(number)), may_wait=False)  # returns, though the file is locked
    locked.execute("COMMIT")
    store.flush()

    assert 20 == store.sums(Query())[0].calls


def test_what_may_wait_waits(store: SqliteStore, locked: sqlite3.Connection) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.write, row("1"), may_wait=True)
        assert None is store.known(Load("tag", ("toolu_1",)), NOW).baseline  # reads go on meanwhile
        locked.execute("COMMIT")
        waiting.result()

    assert 2 == store.sums(Query())[0].calls


def test_what_is_posted_outlasts_a_file_locked_for_long(
    store: SqliteStore,
    locked: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    has_waited = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "1 ledger rows wait" in record.getMessage():
                has_waited.set()

    listener = Listener()
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.001)
    logging.getLogger(outbox.__name__).addHandler(listener)
    try:
        store.post(row("1"))
        assert has_waited.wait(60)
    finally:
        logging.getLogger(outbox.__name__).removeHandler(listener)
    monkeypatch.undo()
    locked.execute("COMMIT")
    store.flush()

    assert 2 == store.sums(Query())[0].calls
    assert {logging.WARNING} == {record.levelno for record in caplog.records}


def test_rows_that_wait_do_not_pile_up_without_end(
    store: SqliteStore,
    locked: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.001)
    monkeypatch.setattr(outbox, "_MOST_WAITING", 100)
    for number in range(1, 400):
        store.post(row(str(number)))
    store.flush()
    lost = [record for record in caplog.records if record.levelno == logging.ERROR]
    monkeypatch.undo()
    locked.execute("COMMIT")
    store.post(row("after"))

    assert 1 + 1 <= store.sums(Query())[0].calls <= 1 + 100 + 1
    assert lost
    assert all("ledger rows were not written to" in record.getMessage() for record in lost)


def test_closing_does_not_wait_for_ever_and_says_what_was_lost(
    store: SqliteStore,
    locked: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.001)
    for number in range(1, 4):
        store.post(row(str(number)))
    store.close()

    locked.execute("COMMIT")
    assert 1 == store.sums(Query())[0].calls
    assert 3 == sum(
        int(record.getMessage().split()[0]) for record in caplog.records if record.levelno == logging.ERROR
    )


def test_a_flush_that_takes_too_long_says_why(
    store: SqliteStore, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(outbox, "_LAST_WAIT_S", 0.01)
    store.post(row("1"))
    with pytest.raises(StoreError, match="which cannot be had") as failed:
        store.flush()
    monkeypatch.undo()
    locked.execute("COMMIT")
    store.flush()

    assert repr(str(path)) in str(failed.value)
    assert 2 == store.sums(Query())[0].calls


def test_without_a_thread_to_be_had_rows_are_written_by_whoever_asks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)
    store = SqliteStore(path)
    store.write(row("0"), may_wait=False)
    store.post(row("1"))
    assert 2 == store.sums(Query())[0].calls
    store.post(row("2"))
    store.close()

    assert ["0", "1", "2"] == written(path)


def test_a_dropped_store_writes_what_is_posted_and_closes(path: Path) -> None:
    store = SqliteStore(path)
    database, writer = store.database, store._outbox
    store.known(Load(), NOW)
    thread = writer._thread
    assert thread is not None
    for number in range(5):
        store.post(row(str(number)))
    del store
    gc.collect()

    assert not thread.is_alive()
    assert None is database._connection
    assert ["0", "1", "2", "3", "4"] == written(path)


def test_a_store_dropped_by_its_own_writer_is_written_to_the_end(path: Path) -> None:
    store = SqliteStore(path)
    writer = store._outbox
    is_over = threading.Event()
    dropped = [store]
    store.known(Load(), NOW)
    thread = writer._thread
    assert thread is not None

    def drop(_: Batch) -> None:
        is_over.wait(60)
        dropped.clear()

    writer.put(drop)
    for number in range(5):
        store.post(row(str(number)))
    del store
    is_over.set()
    thread.join(60)

    assert not thread.is_alive()
    assert expected("", count=5) == [f" {id_}" for id_ in written(path)]
    writer.close()


@pytest.mark.parametrize("any_id", ["01K", "msg_1", "req_1"])
def test_a_request_is_found_without_reading_the_whole_ledger(store: SqliteStore, any_id: str) -> None:
    plans = [
        line["detail"]
        for sql in FIND_BY
        for line in store.database.rows(f"EXPLAIN QUERY PLAN {sql}", (any_id,))
    ]

    assert plans
    assert [] == [line for line in plans if "SCAN" in line]


def test_of_what_checks_said_only_what_is_asked_for_is_read(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[str] = []
    read = store.database.rows

    def rows(asked: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        plans.extend(line["detail"] for line in read(f"EXPLAIN QUERY PLAN {asked}", values))
        return read(asked, values)

    monkeypatch.setattr(store.database, "rows", rows)
    store.find("0")
    store.known(Load(checks="c", talk="s"), NOW)

    assert {"SCAN ratio", "SCAN calibration", "SCAN trial"} == {line for line in plans if "SCAN" in line}


def test_pruning_takes_a_bounded_bite_a_minute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PRUNE_ROWS", 2)
    now = [NOW]
    left = []
    with closing(SqliteStore(path, keep_days=1, clock=lambda: now[0])) as store:
        store.write(row("first"), may_wait=True)
        store.flush()
        for number in range(5):
            old = row(f"{first_id(NOW - 90_000)}{number}", at=NOW - 90_000)
            store.write(replace(old, verdicts=(Verdict("c", "accept", ""),)), may_wait=True)
        for seconds in (59, 1, 60, 60):
            now[0] += seconds
            store.write(row(f"new {now[0]}"), may_wait=True)
            store.flush()
            rows = store.database.rows(
                "SELECT count(*) FROM exchange WHERE at < ? UNION ALL SELECT count(*) FROM verdict", (NOW,)
            )
            left.append([found[0] for found in rows])

    assert [[5, 5], [3, 3], [1, 1], [0, 0]] == left


def test_pruning_forgets_windows_long_past_and_owners_long_silent(path: Path) -> None:
    now = [NOW]
    with closing(SqliteStore(path, keep_days=1, clock=lambda: now[0])) as store:
        for days, key in ((100, "2026-08-01T00:00Z"), (0, "2026-11-01T00:00Z"), (1, "always")):
            store.settle(spent(first_id(NOW - days * 86_400), Charge("a", key, 5)))
            store.first_to("a", key, "50%")
        store.correct("held", "2026-08-01T00:00Z", 0)
        store.beat()
        hold(store, "held", Charge("held", "2026-08-01T00:00Z", 7))
        with closing(SqliteStore(path, clock=lambda: now[0])) as silent:
            silent.beat()
        now[0] += 2 * 86_400
        store.beat()
        store.write(row("new"), may_wait=True)
        store.flush()

        assert [
            ("a", "2026-11-01T00:00Z"),
            ("a", "always"),
            ("held", "2026-08-01T00:00Z"),
        ] == [(line.account, line.window_key) for line in store.windows()]
        assert {("a", "2026-11-01T00:00Z"): 5, ("a", "always"): 5} == store.charged()
        assert [True, False, False] == [
            store.first_to("a", key, "50%") for key in ("2026-08-01T00:00Z", "2026-11-01T00:00Z", "always")
        ]
        assert 1 == store.database.rows("SELECT count(*) FROM owner")[0][0]


def hold(store: SqliteStore, id_: str, *held: Charge) -> None:
    made = Reserved(id_, "", "answer", "", "", NOW, held[0].nusd, held)
    claims = tuple(
        Claim(Account(one.budget_id, Window(one.window_key, one.window_key)), 10**9, BudgetRule("b", 1))
        for one in held
    )
    assert None is store.lease(Lease(made, claims, lambda _: (Settle(made.lost()), row(id_))), may_wait=True)


def spent(id_: str, *paid: Charge) -> Entry:
    return replace(Reserved(id_, "", "answer", "", "", NOW, 9, paid).lost(), certainty="exact")


def test_a_ledger_whose_budgets_live_elsewhere_writes_charges_only(path: Path) -> None:
    with closing(SqliteStore(path, keeps_budgets=False)) as store:
        lost = replace(spent("one", Charge("a", "w", 5)), certainty="lost")
        store.write(Settle(lost), may_wait=True)
        store.post(Settle(spent("two", Charge("a", "w", 7))))
        store.flush()
        assert {("a", "w"): 12} == store.charged()
        store.write(Settle(spent("one", Charge("a", "w", 3))), may_wait=True)

        assert ({("a", "w"): 10}, []) == (store.charged(), store.windows())


def test_what_processes_add_to_one_evidence_and_say_of_one_answer_adds_up(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        shared = replace(row("shared", served="m"), verdicts=(Verdict("c", "accept", "", tier="m"),))
        store.write(replace(shared, rungs={"m": Rung(1, 1)}), may_wait=True)
    program = """
        from dataclasses import replace
        from leastwise.cascade import Rung
        from leastwise.ledger import Feedback
        for number in range(60):
            store.write(Record(row(number), rungs={"m": Rung(1, 1, 7)}), may_wait=number % 2 == 0)
            store.add_feedback(Feedback("shared", number % 5 == 4, name, number + 1.0))
        store.close()
    """
    run(program, path, "user", "tests", "agreement")

    with closing(SqliteStore(path)) as store:
        assert {("", "m"): Rung(181, 181, 180 * 7)} == store.evidence("").rungs
        story = store.find("shared")
        assert story is not None
        assert [("agreement", True), ("tests", True), ("user", True)] == [
            (one.source, one.ok) for one in story.feedback
        ]


def test_a_child_is_an_owner_of_its_own(path: Path) -> None:
    program = """
        def owner():
            taken = hold(f"{os.getpid()}")
            return [one.owner for one in store.reserved() if one.id == taken][0]

        say(owner())
        assert 0 == ended(in_child(lambda: say(owner())))
        say(owner())
    """
    mine, child, mine_again = run(program, path)

    assert mine == mine_again
    assert mine != child


def test_a_lease_that_may_not_wait_is_told_that_the_file_is_busy(
    store: SqliteStore, locked: sqlite3.Connection
) -> None:
    made = Reserved("held", "", "answer", "", "", NOW, 5, (Charge("a", "w", 5),))
    claims = (Claim(Account("a", Window("w", "w")), 10, BudgetRule("b", 1)),)
    lease = Lease(made, claims, lambda _: (Settle(made.lost()), row("held")))
    with pytest.raises(BusyError):
        store.lease(lease, may_wait=False)
    locked.execute("COMMIT")

    assert None is store.lease(lease, may_wait=False)
    assert ["held"] == [one.id for one in store.reserved()]


def test_a_settlement_that_cannot_be_written_leaves_its_lease_reserved(store: SqliteStore) -> None:
    hold(store, "held", Charge("a", "w", 5))
    bad = replace(spent("held", Charge("a", "w", 5)), request_id="\ud800")
    with pytest.raises(StoreError):
        store.settle(bad)
    store.post(Settle(bad))
    store.flush()

    assert ["held"] == [one.id for one in store.reserved()]
    assert {} == store.charged()


def test_processes_write_each_row_once(path: Path) -> None:
    program = """
        for number in range(300):
            store.write(settled(number), may_wait=number % 3 == 0)
            store.write(Record(row(number)), may_wait=number % 3 == 0)
    """
    run(program, path, "p", "q", "r", "s")

    assert expected("p", "q", "r", "s", count=300) == written(path)
    with closing(SqliteStore(path)) as store:
        assert 1200 == store.database.rows("SELECT count(*) FROM entry")[0][0]


def test_an_interpreter_that_ends_writes_what_is_queued(path: Path) -> None:
    program = """
        for number in range(1000):
            store.post(Record(row(number)))
    """
    run(program, path)

    assert expected("p", count=1000) == written(path)


def test_an_interpreter_that_ends_lets_its_writer_finish(path: Path) -> None:
    program = """
        store.known(Load(), 0.0)  # starts the writer
        for number in range(1000):
            store.post(Record(row(number)))
    """
    run(program, path)

    assert expected("p", count=1000) == written(path)


def test_what_is_posted_by_finalizers_at_the_end_is_written(path: Path) -> None:
    program = """
        class Stream:
            pass

        streams = [Stream() for _ in range(20)]
        for number, stream in enumerate(streams):
            weakref.finalize(stream, store.post, Record(row(number)))
        store.write(settled(0), may_wait=True)
    """
    run(program, path)

    assert expected("p", count=20) == written(path)


def test_parent_and_child_write_their_own_rows_each_once(path: Path) -> None:
    program = """
        for number in range(100):
            store.post(Record(row(number, "parent")))

        def child(who):
            for number in range(50):
                store.post(Record(row(number, who)))
                store.write(settled(number, who), may_wait=False)
            store.close()

        pids = [in_child(lambda: child(who)) for who in ("child a", "child b")]
        for number in range(100, 200):
            store.write(Record(row(number, "parent")), may_wait=False)
        say([ended(pid) for pid in pids])
    """
    assert ["[0, 0]"] == run(program, path)
    assert sorted([*expected("parent", count=200), *expected("child a", "child b", count=50)]) == written(
        path
    )


def test_a_child_that_ends_like_a_program_writes_what_is_queued(path: Path) -> None:
    program = """
        store.write(Record(row(0, "parent")), may_wait=True)
        pid = os.fork()
        if pid == 0:
            for number in range(50):
                store.post(Record(row(number, "child")))
            sys.exit(0)
        say(ended(pid))
        store.post(Record(row(1, "parent")))
    """
    assert ["0"] == run(program, path)
    assert sorted([*expected("parent", count=2), *expected("child", count=50)]) == written(path)


def test_forks_in_the_middle_of_work_lose_nothing(path: Path) -> None:
    program = """
        def work(who):
            for number in range(300):
                if number % 2:
                    store.post(Record(row(number, who)))
                else:
                    store.write(Record(row(number, who)), may_wait=False)

        def child(who):
            for number in range(10):
                store.write(Record(row(number, who)), may_wait=True)
            store.flush()

        threads = [threading.Thread(target=work, args=(who,)) for who in ("t0", "t1")]
        for thread in threads:
            thread.start()
        say([ended(in_child(lambda: child(f"child {number}"))) for number in range(5)])
        for thread in threads:
            thread.join()
    """
    children = [f"child {number}" for number in range(5)]

    assert [str([0] * 5)] == run(program, path)
    assert sorted([*expected(*children, count=10), *expected("t0", "t1", count=300)]) == written(path)


def test_a_killed_process_loses_nothing_that_was_written(path: Path) -> None:
    program = """
        pid = in_child(lambda: None)
        assert 0 == ended(pid)
        def child():
            for number in range(60):
                store.write(settled(number), may_wait=True)
                store.write(Record(row(number)), may_wait=True)
            os.kill(os.getpid(), signal.SIGKILL)
        say(ended(in_child(child)))
    """
    assert ["-9"] == run(program, path)
    assert expected("p", count=60) == written(path)


def test_the_write_ahead_log_stays_short_though_no_caller_waits_for_it(
    store: SqliteStore, path: Path
) -> None:
    for number in range(3_000):
        store.write(row(f"{number}", decision_json="x" * 1_000), may_wait=True)
    store.flush()
    assert path.with_name("leastwise.db-wal").stat().st_size < 60_000_000  # some 100 MB passed through it


def test_a_killed_process_was_told_of_no_lease_that_is_not_there(path: Path) -> None:
    program = """
        def work(who):
            for number in range(10_000):
                os.write(1, f"{hold(f'{who} {number}')}\\n".encode())

        for who in range(8):
            threading.Thread(target=work, args=(who,), daemon=True).start()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    code = PREAMBLE + textwrap.dedent(program)
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", code, str(path), "p"], stdout=subprocess.PIPE, text=True, check=False
    )
    told = done.stdout.splitlines()

    assert -9 == done.returncode
    assert told
    with closing(SqliteStore(path)) as store:
        held = {one.id for one in store.reserved()}
        assert set() == set(told) - held
        assert 5 * len(held) == store.windows()[0].standing.leased_nusd


def test_who_is_interrupted_while_waiting_leaves_the_others_be(path: Path) -> None:
    program = """
        import sqlite3
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=hold, args=(f"before {number}",)) for number in range(3)]
        for thread in threads:
            thread.start()

        def interrupt():
            while len(store._group._waiting) < 4:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us may ignore it
        threading.Thread(target=interrupt).start()
        try:
            hold("mine")
        except KeyboardInterrupt:
            say("interrupted")
        other.execute("COMMIT")
        for thread in threads:
            thread.join()
        hold("after")
        say(sorted(one.id for one in store.reserved()))
    """
    assert ["interrupted", "['after', 'before 0', 'before 1', 'before 2']"] == run(program, path)


def test_a_child_forked_while_threads_wait_does_none_of_their_work(path: Path) -> None:
    program = """
        import sqlite3, subprocess
        lock = (
            "import sqlite3, sys; other = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "other.execute('BEGIN IMMEDIATE'); print('locked', flush=True); input()"
        )
        words = [sys.executable, "-c", lock, path]
        other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        other.stdout.readline()
        threads = [threading.Thread(target=hold, args=(f"parent {number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        while len(store._group._waiting) < 3:
            time.sleep(0.001)
        child = in_child(lambda: hold("child"))
        other.communicate(b"\\n")
        for thread in threads:
            thread.join()
        say(ended(child))
        say(sorted(one.id for one in store.reserved()))
    """
    assert ["0", "['child', 'parent 0', 'parent 1', 'parent 2']"] == run(program, path)


def test_closing_waits_for_what_was_leased_and_written_at_once(path: Path) -> None:
    program = """
        def work(who):
            for number in range(20):
                hold(f"{who} {number}")
                store.write(settled(number, who), Record(row(number, who)), may_wait=True)

        threads = [threading.Thread(target=work, args=(who,)) for who in "abcdef"]
        for thread in threads:
            thread.start()
        for _ in range(10):
            store.close()
        for thread in threads:
            thread.join()
        store.close()
        say([one.id for one in store.reserved()])
    """
    assert ["[]"] == run(program, path)
    assert expected(*"abcdef", count=20) == written(path)


def test_a_row_that_cannot_be_stored_leaves_its_settlement_be(store: SqliteStore) -> None:
    hold(store, "held", Charge("a", "w", 5))
    with pytest.raises(StoreError):
        store.write(Settle(spent("held", Charge("a", "w", 3))), row("x", tag="\ud800"), may_wait=True)
    store.flush()

    assert ([], {("a", "w"): 3}) == (store.reserved(), store.charged())
    assert 1 == store.sums(Query())[0].calls


def test_what_is_past_its_time_when_it_is_written_leaves_no_charge_behind(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        paid = Settle(spent(new_id(0.0, random.Random(1)), Charge("b", "w", 5)))

        def together(batch: Batch) -> None:
            batch.apply(paid)
            sql._prune(1e9, 0.0, batch)

        store._group.do(together)
        assert [] == store.database.rows("SELECT 1 FROM charge WHERE entry_id <> ''")
        assert {("b", "w"): 5} == store.charged()
