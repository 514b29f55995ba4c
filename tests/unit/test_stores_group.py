"""Group commit: threads that write at once share transactions, and none is told before it is committed."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from leastwise import sqlite
from leastwise.errors import StoreError
from leastwise.sqlite import BusyError, Database, StuckError
from leastwise.stores.group import Group
from leastwise.stores.writing import Batch

MIGRATIONS = ("CREATE TABLE number (value INTEGER PRIMARY KEY)",)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "group.db", MIGRATIONS)) as made:
        yield made


@pytest.fixture
def group(database: Database) -> Group:
    return Group(database)


@pytest.fixture
def locked(database: Database) -> Iterator[sqlite3.Connection]:
    """Another program in the middle of a write."""
    with closing(
        sqlite3.connect(database.path, isolation_level=None, timeout=0, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def put(value: int) -> Callable[[Batch], tuple[int, Batch]]:
    def job(batch: Batch) -> tuple[int, Batch]:
        batch.connection.execute("INSERT INTO number VALUES (?)", (value,))
        return value, batch

    return job


def never() -> None:
    pytest.fail("nobody else wrote")


def numbers(database: Database) -> list[int]:
    return [row[0] for row in database.rows("SELECT value FROM number ORDER BY value")]


def waits(group: Group, count: int) -> None:
    """Return when so many jobs wait, the first of which has the turn."""
    end = time.monotonic() + 60
    while len(group._waiting) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_those_who_wait_share_a_transaction(
    group: Group, database: Database, locked: sqlite3.Connection
) -> None:
    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(group.do, put(value)) for value in range(20)]
        waits(group, 20)
        assert [] == numbers(database)  # reads go on meanwhile
        assert not any(job.done() for job in jobs)
        locked.execute("COMMIT")
        answers = [job.result() for job in jobs]

    assert [*range(20)] == [value for value, _ in answers] == numbers(database)
    assert 1 == len({id(batch) for _, batch in answers})


def test_more_than_fit_into_one_transaction_are_all_done(
    group: Group, database: Database, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.stores.group._MOST", 4)
    with ThreadPoolExecutor(18) as pool:
        jobs = [pool.submit(group.do, put(value)) for value in range(18)]
        waits(group, 18)
        locked.execute("COMMIT")
        answers = [job.result() for job in jobs]

    assert [*range(18)] == numbers(database)
    assert 5 == len({id(batch) for _, batch in answers})


def test_one_that_fails_does_not_take_the_others_with_it(
    group: Group, database: Database, locked: sqlite3.Connection
) -> None:
    def fail(batch: Batch) -> None:
        put(100)(batch)
        raise ZeroDivisionError

    with ThreadPoolExecutor(20) as pool:
        jobs: list[Future[object]] = [
            pool.submit(group.do, fail if value == 7 else put(value % 15)) for value in range(20)
        ]
        waits(group, 20)
        locked.execute("COMMIT")
        errors = [type(job.exception()) for job in jobs if job.exception() is not None]

    assert [value for value in range(15) if value != 7] == numbers(database)
    assert sorted(["ZeroDivisionError", *["StoreError"] * 5]) == sorted(error.__name__ for error in errors)
    assert 30 == group.do(put(30))[0]


def test_nobody_is_told_before_the_commit(group: Group, database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(batch: Batch) -> None:
        put(0)(batch)
        begun.set()
        may_end.wait(60)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(group.do, slow)
        begun.wait(60)
        others = [pool.submit(group.do, put(value)) for value in (1, 2, 3)]
        waits(group, 3)
        with pytest.raises(BusyError):
            group.do(put(4), may_wait=False)
        assert not first.done()
        assert not any(job.done() for job in others)
        may_end.set()
        answers = [job.result() for job in others]

    assert [0, 1, 2, 3] == numbers(database)
    assert 1 == len({id(batch) for _, batch in answers})


def test_what_may_not_wait_is_not_done_later(
    group: Group, database: Database, locked: sqlite3.Connection
) -> None:
    with pytest.raises(BusyError):
        group.do(put(1), may_wait=False)
    locked.execute("COMMIT")
    group.do(put(2))
    group.do(put(3), may_wait=False)

    assert [2, 3] == numbers(database)


def test_all_who_wait_are_told_that_the_file_is_stuck(
    group: Group, database: Database, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.1)
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(group.do, put(value)) for value in range(5)]
        assert [StuckError] * 5 == [type(job.exception()) for job in jobs]
    locked.execute("COMMIT")

    assert 7 == group.do(put(7))[0]
    assert [7] == numbers(database)


def test_when_one_is_interrupted_the_next_takes_its_turn(group: Group, database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()
    seen = []

    def interrupted(batch: Batch) -> None:
        put(0)(batch)
        begun.set()
        may_end.wait(60)
        raise KeyboardInterrupt

    def call() -> None:
        try:
            group.do(interrupted)
        except KeyboardInterrupt:
            seen.append("interrupted")

    thread = threading.Thread(target=call)
    thread.start()
    begun.wait(60)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(group.do, put(value)) for value in (1, 2, 3)]
        waits(group, 3)
        may_end.set()
        assert [1, 2, 3] == [job.result()[0] for job in jobs]
    thread.join()

    assert ["interrupted"] == seen
    assert [1, 2, 3] == numbers(database)


def test_a_database_that_fails_is_said_to_each(group: Group, database: Database) -> None:
    database.close()
    Path(database.path).unlink()
    Path(database.path).mkdir()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(group.do, put(value)) for value in range(4)]

    assert [StoreError] * 4 == [type(job.exception()) for job in jobs]


def test_what_joins_is_done_in_its_order_with_whatever_comes_next(group: Group, database: Database) -> None:
    told: list[tuple[object, Exception | None]] = []

    def then(answer: tuple[int, Batch], error: Exception | None) -> None:
        told.append((answer[0], error))
        assert [1, 2, 3] == numbers(database)  # committed

    group.join(put(2), then, never)
    group.join(put(1), then, never)
    assert 0 == len(told)
    group.do(put(3))

    assert [(2, None), (1, None)] == told
    assert not group.has_joined
    assert group.serve()


def test_what_joined_waits_while_somebody_else_writes(
    group: Group, database: Database, locked: sqlite3.Connection
) -> None:
    told: list[object] = []
    group.join(put(1), lambda answer, _: told.append(answer[0]), never)
    assert not group.serve()
    assert [] == told
    locked.execute("COMMIT")
    assert group.serve()

    assert [1] == told == numbers(database)


def test_when_one_that_joined_fails_the_others_are_done_by_who_may_wait(
    group: Group, database: Database
) -> None:
    told: list[tuple[int, type[Exception] | None]] = []

    def tell(value: int, _: tuple[int, Batch], error: Exception | None) -> None:
        told.append((value, None if error is None else type(error)))

    for value in (1, 1, 2):
        group.join(put(value), partial(tell, value), never)
    assert not group.serve()
    assert [] == told
    group.do(put(3))

    assert [(1, None), (1, StoreError), (2, None)] == told
    assert [1, 2, 3] == numbers(database)


def test_what_joined_an_interrupted_transaction_is_done_by_the_next(group: Group, database: Database) -> None:
    told: list[object] = []
    interrupts = [KeyboardInterrupt()]

    def interrupted(batch: Batch) -> tuple[int, Batch]:
        if interrupts:
            raise interrupts.pop()
        return put(2)(batch)

    group.join(put(1), lambda answer, _: told.append(answer[0]), never)
    group.join(interrupted, lambda answer, _: told.append(answer[0]), never)
    with pytest.raises(KeyboardInterrupt):
        group.serve()
    assert [] == told == numbers(database)
    assert group.serve()

    assert [1, 2] == told == numbers(database)


def test_what_joins_while_a_thread_writes_is_asked_for_again_and_not_waited_for(
    group: Group, database: Database
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    told: list[object] = []
    again: list[bool] = []

    def slow(batch: Batch) -> None:
        put(0)(batch)
        begun.set()
        may_end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(group.do, slow)
        begun.wait(60)
        group.join(put(1), lambda answer, _: told.append(answer[0]), lambda: again.append(group.serve()))
        assert group.serve()
        assert [] == told == again
        may_end.set()
        first.result()

    assert [True] == again
    assert [1] == told
    assert [0, 1] == numbers(database)
