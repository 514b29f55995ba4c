"""What is SQLite's own about kept answers: the file, locks, the writer thread, forks, kills.

What every store of answers must do is in tests/contract/test_cache.py.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leastwise import sqlite
from leastwise.cache import Found, Stored
from leastwise.errors import StoreError
from leastwise.sqlite import StuckError
from leastwise.stores import answers
from leastwise.stores.answers import SqliteCache
from tests.kit import Clock

LEADING, WAITING = Found(is_leading=True), Found()
PREAMBLE = """
import os, sys, threading, time
from leastwise.cache import Stored
from leastwise.stores.answers import SqliteCache

path, name = sys.argv[1:]

def stored(body):
    return Stored(body.encode(), False, "m", "haiku", "anthropic", "01K", "req_1", "t", time.time())

def in_child(work):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

def say(*words):
    os.write(1, b"%s%s" % (" ".join(map(str, words)).encode(), os.linesep.encode()))  # in one piece
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


def stored(body: str = "answer", tag: str = "t") -> Stored:
    return Stored(
        body=body.encode(),
        is_stream=False,
        model="m",
        tier="haiku",
        upstream="anthropic",
        exchange="01K",
        request_id="req_1",
        tag=tag,
        at=Clock().now,
    )


def until(is_so: Callable[[], bool]) -> bool:
    """Tell whether something comes about, within a few seconds."""
    end = time.monotonic() + 5
    while not is_so() and time.monotonic() < end:
        time.sleep(0.002)
    return is_so()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "leastwise-cache.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(path: Path, clock: Clock) -> Iterator[SqliteCache]:
    with closing(SqliteCache(path, clock=clock)) as made:
        yield made


@pytest.fixture
def other(cache: SqliteCache) -> Iterator[sqlite3.Connection]:
    """Another program at the file."""
    with closing(sqlite3.connect(cache.database.path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def locked(other: sqlite3.Connection) -> sqlite3.Connection:
    """Another program in the middle of a write; commits when told so, or at the end."""
    other.execute("BEGIN IMMEDIATE")
    return other


def rows_in(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM answer").fetchone()[0])


# --- the file --------------------------------------------------------------------------------------------


def test_a_file_of_another_kind_is_refused_by_what_it_should_be(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("notes " * 1000)

    with pytest.raises(
        StoreError, match=r"cannot open the cache '.*leastwise-cache\.db': file is not a data"
    ):
        SqliteCache(path)


@pytest.mark.parametrize("tag", [None, "t"])
def test_what_was_cleared_is_gone_from_the_disk(path: Path, tag: str | None) -> None:
    with closing(SqliteCache(path)) as cache:
        cache.save("a", stored("SECRET " * 1000))
        cache.save("b", stored("kept", tag="other"))
        cache.stats()
        assert any(b"SECRET" in file.read_bytes() for file in path.parent.iterdir())
        cache.clear(tag=tag)

        assert not any(b"SECRET" in file.read_bytes() for file in path.parent.iterdir())
        assert (0 if tag is None else 1) == cache.stats().entries


def test_what_somebody_reads_is_cleared_all_the_same(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.01)
    cache.save("a", stored())
    cache.stats()
    other.execute("BEGIN")
    assert 1 == rows_in(other)

    assert 1 == cache.clear()
    other.execute("COMMIT")
    assert 0 == rows_in(other)


def test_the_size_in_the_books_is_that_of_the_rows(path: Path, clock: Clock) -> None:
    with closing(SqliteCache(path, max_mb=0.1, ttl_s=100, clock=clock)) as cache:
        for number in range(100):
            clock.now += 1
            cache.save(str(number % 60), stored("x" * (number * 97 % 3000)))
            if number % 7 == 0:
                cache.prune()
        cache.clear(tag="none")
        sizes = cache.database.rows("SELECT SUM(size) FROM answer")[0][0]

        assert 0 < cache.stats().size_bytes <= 100_000
        assert sizes == cache.stats().size_bytes


def test_names_that_cannot_be_stored_are_an_error_and_hold_nobody_up(cache: SqliteCache) -> None:
    assert cache.look_up("a", leads=True).is_leading
    with pytest.raises(StoreError, match="surrogates not allowed"):
        cache.save("a", stored(tag="\ud800"))

    assert [LEADING] * 2 == [cache.look_up("a", leads=True) for _ in range(2)]


# --- memory ----------------------------------------------------------------------------------------------


def test_copies_in_memory_are_bounded(cache: SqliteCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_FRONT_BYTES", 10_000)
    for number in range(50):
        cache.save(str(number), stored("x" * 1000))
        cache.save(str(number), stored("y" * 1000))

    assert [str(number) for number in range(45, 50)] == list(cache._front)
    assert sum(size for *_, size in cache._front.values()) == cache._front_bytes


def test_a_copy_is_not_trusted_when_the_clock_was_set_back(
    cache: SqliteCache, clock: Clock, other: sqlite3.Connection
) -> None:
    cache.save("a", stored())
    cache.stats()
    other.execute("DELETE FROM answer")
    clock.now -= 3600

    assert WAITING == cache.look_up("a", leads=False)


def test_an_answer_that_waits_is_given_once_its_copy_is_old(
    cache: SqliteCache, clock: Clock, locked: sqlite3.Connection
) -> None:
    cache.save("a", stored())
    clock.now += 10

    assert Found(stored()) == cache.look_up("a", leads=True)
    assert 0 == rows_in(locked)
    locked.execute("COMMIT")
    assert 1 == cache.stats().hits


@pytest.mark.parametrize("is_written", [False, True])
def test_an_answer_that_comes_while_another_claims_is_given(
    cache: SqliteCache, monkeypatch: pytest.MonkeyPatch, *, is_written: bool
) -> None:
    """The leader saves after the second has looked, and before it claims."""
    take_off = cache._writer.take_off

    def saved_first(key: str, now: float) -> object:
        cache.save("a", stored())
        if is_written:
            cache.stats()
        return take_off(key, now)

    monkeypatch.setattr(cache._writer, "take_off", saved_first)
    assert Found(stored()) == cache.look_up("a", leads=True)
    assert {} == cache._writer.flights


def test_the_keys_that_everybody_may_ask_for_are_bounded(
    cache: SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_FREED", 2)
    for key in "abc":
        cache.look_up(key, leads=True)
        cache.land(key, frees=True)

    assert ["c"] == list(cache._writer._freed)
    cache.stats()
    assert [LEADING] * 2 == [cache.look_up("a", leads=True) for _ in range(2)]  # the file knows it still


# --- locks -----------------------------------------------------------------------------------------------


def test_while_another_writes_nobody_leads_and_nobody_waits_long(
    cache: SqliteCache, locked: sqlite3.Connection
) -> None:
    begin = time.monotonic()
    assert [WAITING] * 3 == [cache.look_up("a", leads=True) for _ in range(3)]
    assert 1 > time.monotonic() - begin

    locked.execute("COMMIT")
    assert LEADING == cache.look_up("a", leads=True)


def test_when_another_writes_for_seconds_the_caller_is_told(
    cache: SqliteCache, locked: sqlite3.Connection
) -> None:
    assert WAITING == cache.look_up("a", leads=True)
    assert cache._refusals is not None
    long_ago = cache._refusals[0] - 100
    cache._refusals = (long_ago, long_ago)
    assert WAITING == cache.look_up("a", leads=True)  # who was refused long ago is not refused all the time
    cache._refusals = (long_ago, time.monotonic())
    with pytest.raises(StuckError, match=r"the cache '.*' was locked by another process for seconds"):
        cache.look_up("a", leads=True)

    locked.execute("COMMIT")
    assert LEADING == cache.look_up("a", leads=True)


def test_answers_outlast_a_file_that_is_locked_for_long(
    cache: SqliteCache,
    locked: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.01)
    cache.save("a", stored())
    with pytest.raises(StuckError):
        cache.stats()
    assert until(lambda: "answers wait to be kept" in caplog.text)

    locked.execute("COMMIT")
    assert ["a"] == [key for key, _ in cache.entries()]


def test_answers_that_wait_do_not_pile_up_without_end(
    cache: SqliteCache, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_WAITING_BYTES", 10_000)
    monkeypatch.setattr(answers, "_FRONT_BYTES", 10_000)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for number in range(40):
        cache.save(str(number), stored("x" * 1000))

    locked.execute("COMMIT")
    assert {str(number) for number in range(11)} == {key for key, _ in cache.entries()}
    assert 0 == cache._writer._waiting_bytes


def test_who_saves_does_not_wait_long_for_another_who_writes(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_WAITING_BYTES", 0)
    monkeypatch.setattr(answers, "_LONGEST_STALL_S", 0.001)
    with cache._writer._writing:
        cache.save("a", stored())
        assert 0 == rows_in(other)

    assert 1 == cache.stats().entries


def test_many_answers_are_written_in_batches(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_BATCH", 10)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for number in range(35):
        cache.save(str(number), stored())
    cache._writer._write()
    assert 10 == rows_in(other)

    assert 35 == cache.stats().entries


def test_who_saves_faster_than_the_thread_writes_helps(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_WAITING_BYTES", 0)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for number in range(3):
        cache.save(str(number), stored())

    assert 3 == rows_in(other)


def no_thread(_: threading.Thread) -> None:
    message = "can't start new thread"
    raise RuntimeError(message)


def test_without_a_thread_to_be_had_answers_are_written_by_whoever_asks(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    cache.save("a", stored())
    cache.look_up("a", leads=True)
    assert 0 == rows_in(other)

    assert 1 == cache.stats().hits
    assert 1 == rows_in(other)


def test_what_cannot_be_written_is_said_and_dropped(
    cache: SqliteCache, other: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    other.execute("ALTER TABLE answer RENAME TO elsewhere")
    cache.save("a", stored())
    assert until(lambda: "1 answers were not kept in " in caplog.text)
    assert until(lambda: cache._writer.waiting == {})
    with pytest.raises(StoreError, match="no such table: answer"):
        cache.look_up("b", leads=True)

    other.execute("ALTER TABLE elsewhere RENAME TO answer")
    cache.save("c", stored())
    assert ["c"] == [key for key, _ in cache.entries()]
    assert LEADING == cache.look_up("b", leads=True)


# --- the writer's clock ----------------------------------------------------------------------------------


def test_hits_are_written_in_a_while(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_TICK_S", 0.01)
    cache.save("a", stored())
    for _ in range(7):
        cache.look_up("a", leads=True)

    assert until(lambda: other.execute("SELECT SUM(hits) FROM answer").fetchone()[0] == 7)


def test_hits_on_many_keys_do_not_pile_up(
    cache: SqliteCache, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_MOST_HITS", 3)
    for key in "abc":
        cache.save(key, stored())
        cache.look_up(key, leads=True)

    assert until(lambda: other.execute("SELECT SUM(hits) FROM answer").fetchone()[0] == 3)


def test_a_hit_is_no_transaction(cache: SqliteCache, other: sqlite3.Connection) -> None:
    cache.save("a", stored())
    cache.stats()
    before = other.execute("PRAGMA data_version").fetchone()[0]
    for _ in range(1000):
        cache.look_up("a", leads=True)
    time.sleep(0.05)

    assert before == other.execute("PRAGMA data_version").fetchone()[0]


def test_who_asks_for_long_shows_life(
    cache: SqliteCache, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_TICK_S", 0.01)
    with closing(SqliteCache(path, clock=clock)) as second:
        assert LEADING == cache.look_up("a", leads=True)
        clock.now += 15
        sql = "SELECT until FROM flight"
        assert until(lambda: second.database.rows(sql)[0][0] == clock.now + 20)
        clock.now += 15

        assert WAITING == second.look_up("a", leads=True)


def test_what_is_past_its_time_is_forgotten_in_a_while(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_TICK_S", 0.01)
    monkeypatch.setattr(answers, "_PRUNE_EVERY_S", 0.0)
    monkeypatch.setattr(answers, "_PRUNE_ROWS", 2)
    with closing(SqliteCache(path, ttl_s=100, clock=clock)) as cache:
        for key in "abcde":
            cache.save(key, stored())
        cache.look_up("gone", leads=True)
        cache._writer.flights.clear()
        cache.stats()
        clock.now += 200
        for left in 3, 1, 0:
            cache._writer.hit("a", clock.now)  # who writes tidies up
            assert left == cache.stats().entries

        assert [] == cache.database.rows("SELECT * FROM flight")


def test_the_log_of_writes_stays_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_CHECKPOINT_EVERY", 1)
    log = path.with_name(f"{path.name}-wal")
    with closing(SqliteCache(path)) as cache:
        for number in range(30):
            cache.save(str(number), stored("x" * 100_000))
            assert until(lambda: cache._writer.waiting == {} and cache._writer._batches == 0)

        assert 1_500_000 > log.stat().st_size


# --- the end ---------------------------------------------------------------------------------------------


def test_a_dropped_cache_writes_what_waits_and_leaves_its_lead(path: Path) -> None:
    cache = SqliteCache(path)
    cache.save("a", stored())
    cache.look_up("b", leads=True)
    thread = cache._writer._thread
    del cache
    gc.collect()

    assert thread is not None
    assert not thread.is_alive()
    with closing(sqlite3.connect(path)) as connection:
        assert 1 == rows_in(connection)
        assert [] == connection.execute("SELECT * FROM flight").fetchall()


def test_a_cache_dropped_by_its_own_thread_is_written_to_the_end(path: Path) -> None:
    cache = SqliteCache(path)
    cache.save("a", stored())
    thread, close = cache._writer._thread, cache._writer.close
    assert thread is not None
    writer = cache._writer

    def closes(**_: object) -> None:
        del writer._write_all
        close()

    writer._write_all = closes  # type: ignore[method-assign]
    cache.save("b", stored())
    thread.join(5)

    assert not thread.is_alive()
    cache.close()
    with closing(sqlite3.connect(path)) as connection:
        assert 2 == rows_in(connection)


def test_closing_does_not_wait_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.01)
    cache = SqliteCache(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        cache.save("a", stored())
        cache.close()
        connection.execute("COMMIT")

    assert "answers wait to be kept" in caplog.text


def test_an_answer_may_be_saved_and_landed_by_the_garbage_collector(cache: SqliteCache) -> None:
    class Stream:
        def __init__(self, key: str) -> None:
            self.key = key
            self.itself = self

        def __del__(self) -> None:
            cache.save(self.key, stored())
            cache.land(f"{self.key} led")

    gc.disable()
    try:
        for number in range(20):
            Stream(str(number))
            cache.look_up(f"{number} led", leads=True)
        with cache._lock, cache._writer._lock, cache._writer._writing, cache._writer._starting:
            gc.collect()
    finally:
        gc.enable()

    assert {str(number) for number in range(20)} == {key for key, _ in cache.entries()}
    assert {} == cache._writer.flights


# --- several processes -----------------------------------------------------------------------------------


def test_of_many_processes_and_threads_one_asks(path: Path) -> None:
    program = """
        cache = SqliteCache(path)

        def ask(_):
            while True:
                found = cache.look_up("k", leads=True)
                if found.is_leading:
                    say("asked")
                    time.sleep(0.05)
                    cache.save("k", stored("answer"))
                    return
                if found.stored is not None:
                    say(found.stored.body.decode())
                    return
                time.sleep(0.002)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cache.close()
    """
    said = run(program, path, "p", "q", "r", "s")

    assert ["answer"] * 39 + ["asked"] == sorted(said)


def test_a_killed_leader_is_followed_by_another(path: Path) -> None:
    program = """
        import signal
        cache = SqliteCache(path)
        assert cache.look_up("k", leads=True).is_leading
        child = os.fork()
        if child == 0:  # in its own process: it neither leads nor ends the lead of its parent
            say(cache.look_up("k", leads=True).is_leading)
            cache.land("k")
            cache.close()
            os._exit(0)
        os.waitpid(child, 0)
        say("led")
        if name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    code = PREAMBLE + textwrap.dedent(program)
    command = [sys.executable, "-c", code, str(path), "killed"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ourselves
    assert ("False\nled\n", -9) == (done.stdout, done.returncode)

    clock = Clock(time.time())
    with closing(SqliteCache(path, clock=clock)) as cache:
        assert WAITING == cache.look_up("k", leads=True)
        clock.now += 20
        assert [LEADING, WAITING] == [cache.look_up("k", leads=True) for _ in range(2)]


def test_a_child_begins_anew_and_each_writes_its_own(path: Path) -> None:
    program = """
        cache = SqliteCache(path)
        cache.save("before", stored("before"))
        cache.look_up("before", leads=True)

        def work():
            cache.save("child", stored("child"))
            cache.look_up("child", leads=True)
            cache.close()

        say(in_child(work))
        cache.save("after", stored("after"))
        cache.close()
    """
    assert ["0"] == run(program, path)

    with closing(SqliteCache(path)) as cache:
        assert {"before": 1, "child": 1, "after": 0} == {key: kept.hits for key, kept in cache.entries()}


def test_a_child_has_the_answers_of_a_cache_in_memory(path: Path) -> None:
    program = """
        cache = SqliteCache(":memory:")
        cache.save("a", stored("a"))
        cache.stats()

        def work():
            assert cache.look_up("a", leads=True).stored.body == b"a"
            cache.save("b", stored("b"))
            assert cache.stats().entries == 2

        say(in_child(work), cache.stats().entries)
    """
    assert ["0 1"] == run(program, path)


def test_processes_that_save_look_and_clear_leave_a_whole_file(path: Path) -> None:
    program = """
        import random
        rng = random.Random(name)
        cache = SqliteCache(path, max_mb=0.2)
        for number in range(300):
            key = str(rng.randrange(100))
            found = cache.look_up(key, leads=True)
            assert found.stored is None or found.stored.body.decode().strip() == key
            if found.is_leading:
                cache.save(key, stored(key + " " * rng.randrange(10_000)))
            if number % 60 == 59:
                cache.clear(tag="t" if number % 120 == 59 else None)
        cache.close()
    """
    assert [] == run(program, path, "p", "q", "r")

    with closing(SqliteCache(path)) as cache:
        assert "ok" == cache.database.rows("PRAGMA integrity_check")[0][0]
        assert (
            (cache.database.rows("SELECT COALESCE(SUM(size), 0) FROM answer")[0][0])
            == cache.stats().size_bytes
        )
        assert [] == cache.database.rows("SELECT * FROM flight")
