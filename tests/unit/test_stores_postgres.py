"""What is PostgreSQL's own about the store: servers that are gone, many writers, migrations, forks.

What every store must do is in tests/contract/.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import psycopg
import pytest

from leastwise.budget import Account, BudgetRule, Claim, Standing, Window
from leastwise.cascade import Rung
from leastwise.errors import StoreError
from leastwise.ledger import Charge, Entry, Exchange, Measured, Reserved
from leastwise.sqlite import BusyError, StuckError
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import Query
from leastwise.stores.postgres import PostgresStore
from tests import postgres

RULE = BudgetRule("b", 10**9)
PROGRAM = """
import sys, time
from leastwise.budget import Account, BudgetRule, Claim, Window
from leastwise.ledger import Charge, Reserved
from leastwise.steps import Lease
from leastwise.stores.postgres import PostgresStore

url, name = sys.argv[1:]

def lease(id_, *limits, nusd=1):
    held = Reserved(id_, "X", "answer", "p", "m", time.time(), nusd, ())
    accounts = [Account(f"a{at}", Window("w", "w")) for at in range(len(limits))]
    claims = [Claim(account, most, BudgetRule("b", 1)) for account, most in zip(accounts, limits)]
    return Lease(held, tuple(claims), None)
"""


def started(program: str, url: str, name: str = "p") -> subprocess.Popen[str]:
    code = PROGRAM + textwrap.dedent(program)
    command = [sys.executable, "-c", code, url, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


def said(*processes: subprocess.Popen[str]) -> list[str]:
    found = [process.communicate()[0] for process in processes]
    assert [0] * len(processes) == [process.returncode for process in processes]
    return [line for each in found for line in each.splitlines()]


def lease(id_: str, *accounts: str, nusd: int = 1, limit_nusd: int = 10**9) -> Lease:
    paid = tuple(Charge(account, "w", nusd) for account in accounts)
    held = Reserved(id_, "X", "answer", "p", "m", time.time(), nusd, paid)
    claims = tuple(Claim(account_of(account), limit_nusd, RULE) for account in accounts)
    return Lease(held, claims, never)


def never(_: object) -> tuple[Settle, Record]:
    raise AssertionError


def account_of(account: str) -> Account:
    return Account(account, Window("w", "w"))


def entry(taken: Lease, cost_nusd: int) -> Entry:
    paid = tuple(replace(charge, nusd=cost_nusd) for charge in taken.reserved.charges)
    return replace(taken.reserved.lost(), cost_nusd=cost_nusd, certainty="exact", charges=paid)


def row(id_: str, **given: Any) -> Record:
    facts = {each.name: 0 if each.type in ("int", "float") else "" for each in fields(Exchange)}
    return Record(Exchange(**{**facts, "id": id_, "at": time.time(), **given}))


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.database() as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(url)) as made:
        yield made


# --- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("postgresql://me:se/cret@127.0.0.1:1/db", "write @, :, /", id="a slash"),
        pytest.param("postgresql://me:@secret@127.0.0.1:1/db", "write @, :, /", id="an at"),
        pytest.param("postgresql://me:12/secret@127.0.0.1:1/db", "write @, :, /", id="a number and a slash"),
        pytest.param("postgresql://me:secret@127.0.0.1:1/db", "127.0.0.1:1/db: .*refused", id="nobody there"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as failed:
        PostgresStore(url)

    assert "secret" not in "".join(traceback.format_exception(failed.value))


def test_a_wrong_password_is_refused_and_a_right_one_taken(url: str) -> None:
    name = url.rpartition("/")[2]
    right = postgres.server().url(name, role=postgres.ROLE, password=postgres.PASSWORD)
    wrong = postgres.server().url(name, role=postgres.ROLE, password="wrong&secret")
    with closing(PostgresStore(right)) as store:
        assert f"127.0.0.1:{postgres.server().port}/{name}" == store.database.name

    with pytest.raises(StoreError, match=f"{name}: .*password authentication failed") as failed:
        PostgresStore(wrong)
    assert "secret" not in str(failed.value)


# --- servers that are gone ---------------------------------------------------------------------------------


def test_a_server_that_stops_costs_no_row_and_is_used_again_when_it_is_back(store: PostgresStore) -> None:
    taken = lease("1", "a", nusd=5)
    assert None is store.lease(taken, may_wait=True)
    postgres.server().stop()
    try:
        began = time.monotonic()
        with pytest.raises(StuckError, match="cannot reach the ledger"):
            store.lease(lease("2", "a"), may_wait=True)
        with pytest.raises(StuckError, match="cannot reach the ledger"):
            store.write(Settle(entry(taken, 3)), row("1"), may_wait=True)
        with pytest.raises(StuckError, match="cannot reach the ledger"):
            store.known(Load(accounts=(account_of("a"),)), 0.0)
        store.write(row("2"), may_wait=False)
        assert time.monotonic() - began < 1
    finally:
        postgres.server().start()

    store.flush()
    assert {"a": Standing(3, 0, 1)} == store.standings([account_of("a")])
    assert [2] == [line.calls for line in store.sums(Query())]


def test_a_server_that_answers_nothing_is_given_up_within_a_second(store: PostgresStore, url: str) -> None:
    store.beat()
    with postgres.server().halted():
        began = time.monotonic()
        with pytest.raises(StuckError, match=r"no answer within 0\.5 s"):
            store.lease(lease("1", "a"), may_wait=True)
        store.write(row("1"), may_wait=False)
        with pytest.raises(StoreError, match=r"no answer within 0\.5 s"):
            PostgresStore(url)
        assert time.monotonic() - began < 3

    store.flush()  # who asks while another is still being given up is given up with it
    assert None is store.lease(lease("2", "a"), may_wait=True)
    assert [1] == [line.calls for line in store.sums(Query())]


def test_a_statement_may_take_long_on_a_server_that_lives(store: PostgresStore) -> None:
    assert [("",)] == store.database.rows("SELECT CAST(pg_sleep(0.8) AS TEXT)")


def test_connections_that_the_server_ended_are_not_used(store: PostgresStore) -> None:
    store.beat()
    ended = postgres.server().run(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = 'leastwise'"
    )

    assert (True,) in ended
    store.beat()


def test_who_may_not_wait_is_told_at_once(store: PostgresStore) -> None:
    with pytest.raises(BusyError):
        store.lease(lease("1", "a"), may_wait=False)

    assert ({}, False) == (store.standings([account_of("a")]), store.is_near)


# --- many writers ------------------------------------------------------------------------------------------


def test_processes_at_one_limit_are_granted_it_exactly(url: str) -> None:
    program = """
        from concurrent.futures import ThreadPoolExecutor
        from contextlib import closing
        with closing(PostgresStore(url)) as store, ThreadPoolExecutor(4) as pool:
            print(flush=True)
            sys.stdin.readline()
            def take(number):
                order = (200, 10**9) if number % 2 else (10**9, 200)
                return store.lease(lease(f"{name} {number}", 200, 10**9), may_wait=True) is None
            print(sum(pool.map(take, range(150))))
    """
    processes = [started(program, url, name) for name in "ab"]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    granted = said(*processes)

    assert 200 == sum(map(int, granted))
    with closing(PostgresStore(url)) as store:
        assert {"a0": Standing(0, 200, 0)} == store.standings([account_of("a0")])


def test_leases_settlements_and_rows_of_many_never_lock_each_other_out(url: str) -> None:
    stores = [PostgresStore(url), PostgresStore(url)]
    names = ["a", "b", "c"]

    def work(number: int) -> None:
        mine = stores[number % 2]
        for turn in range(15):
            turned = names[(number + turn) % 3 :] + names[: (number + turn) % 3]
            taken = lease(f"{number} {turn}", *turned, nusd=5)
            assert None is mine.lease(taken, may_wait=True)
            rungs = {name: Rung(1, 1) for name in turned}
            record = replace(row(f"{number} {turn}"), measured=Measured(turned[0], 1, 1), rungs=rungs)
            mine.write(Settle(entry(taken, 2)), record, may_wait=True)
            mine.post(replace(row(f"{number} {turn} posted"), measured=Measured(turned[1], 1, 1)))

    before = deadlocks()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for one in stores:
        one.close()

    assert {name: Standing(240, 0, 120) for name in names} == stores[0].standings(
        [account_of(name) for name in names]
    )
    assert {("", name): Rung(120, 120) for name in names} == stores[0].evidence("").rungs
    assert before == deadlocks()
    stores[0].close()


def deadlocks() -> int:
    ((count,),) = postgres.server().run("SELECT CAST(SUM(deadlocks) AS BIGINT) FROM pg_stat_database")
    return int(count)


def test_a_settlement_waits_for_the_lease_that_is_being_taken(store: PostgresStore, url: str) -> None:
    taken = lease("1", "a", nusd=5)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url, autocommit=True) as other:
        with store.database.transaction() as connection:
            connection.lock(["1"])  # as the lease does first
            settling = pool.submit(store.settle, entry(taken, 0))
            wait_for_lock(other)
            connection.execute(
                "INSERT INTO lease VALUES ('1', 'X', 'answer', 'p', 'm', 0, 5, ?, 'me')", ('[["a", "w", 5]]',)
            )
        settling.result()

    assert ([], [-5]) == (store.reserved(), [line.standing.leased_nusd for line in store.windows()])


def wait_for_lock(other: psycopg.Connection[Any]) -> None:
    until = time.monotonic() + 10
    while other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_lease_that_waits_sees_what_the_one_before_it_took(store: PostgresStore, url: str) -> None:
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url, autocommit=True) as other:
        with store.database.transaction() as connection:
            connection.lock(["a"])
            leasing = pool.submit(store.lease, lease("1", "a", nusd=6, limit_nusd=10), may_wait=True)
            wait_for_lock(other)
            connection.execute("INSERT INTO account VALUES ('a', 'w', 0, 5, 0)")
        refusal = leasing.result()

    assert refusal is not None
    assert Standing(0, 5, 0) == refusal.standing


def test_a_lease_that_collides_is_taken_again(store: PostgresStore, url: str) -> None:
    """Another program locks the rows the other way round."""
    for name in "ab":
        assert None is store.lease(lease(name, name), may_wait=True)
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as watching:
        other.execute("SET LOCAL deadlock_timeout = '10s'")  # so that the store is the one that gives in
        other.execute("UPDATE leastwise.account SET calls = 7 WHERE account = 'b'")
        with ThreadPoolExecutor(1) as pool:
            leasing = pool.submit(store.lease, lease("1", "a", "b"), may_wait=True)
            wait_for_lock(watching)
            other.execute("UPDATE leastwise.account SET calls = 8 WHERE account = 'a'")
            other.commit()
            assert None is leasing.result()

    assert {"a": Standing(0, 2, 8), "b": Standing(0, 2, 7)} == store.standings(
        [account_of(name) for name in "ab"]
    )


# --- schema, processes -------------------------------------------------------------------------------------


def test_processes_that_start_at_once_make_the_tables_once() -> None:
    server = postgres.server()
    server.run("CREATE DATABASE race")
    url = server.url("race")
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: PostgresStore(url), range(4)))
    for store in stores:
        store.beat()
        store.close()

    assert [(4,)] == server.run("SELECT COUNT(*) FROM leastwise.owner", "race")
    server.run("UPDATE leastwise.version SET version = 99", "race")
    with pytest.raises(StoreError, match="has schema 99, this version of Leastwise knows up to 4: upgrade"):
        PostgresStore(url)


@pytest.mark.parametrize("text", ["\0", "\ud800"], ids=ascii)
def test_text_that_cannot_be_kept_is_refused_and_nothing_is_told_of_its_row(
    store: PostgresStore, text: str
) -> None:
    with pytest.raises(StoreError, match=r"NUL|surrogates"):
        store.write(row("1", tag=text, session="a secret"), may_wait=True)
    with pytest.raises(StoreError, match=r"NUL|surrogates") as failed:
        store.find(text)

    assert "a secret" not in str(failed.value)
    assert [] == store.sums(Query())


def test_a_child_makes_connections_of_its_own(url: str) -> None:
    program = """
        import os
        store = PostgresStore(url)
        store.beat()
        if os.fork() == 0:
            store.beat()
            assert store.lease(lease("child", 9), may_wait=True) is None
            store.close()
            os._exit(0)
        assert os.wait()[1] == 0
        assert store.lease(lease("parent", 9), may_wait=True) is None
        ((beats,),) = store.database.rows("SELECT COUNT(*) FROM owner")
        print(len({one.owner for one in store.reserved()}), beats)
        store.close()
    """

    assert ["2 2"] == said(started(program, url))


def test_an_owner_is_heard_by_the_servers_clock(url: str) -> None:
    with closing(PostgresStore(url, clock=lambda: 5.0)) as early, closing(PostgresStore(url)) as store:
        early.lease(lease("1", "a"), may_wait=True)
        store.beat()

        assert [] == store.dead() == early.dead()
        postgres.pass_time(url, 21)
        assert ["1"] == [one.id for one in store.dead()]
