"""One file and several processes, as servers, workers and kills have it.

What forks or dies does so in a program of its own, not in the test runner.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from leastwise.sqlite import Database

SCHEMA = ["CREATE TABLE t (a TEXT PRIMARY KEY)"]
PREAMBLE = """
import os, sys, threading
from leastwise.sqlite import Database

path, name = sys.argv[1:]

def opened():
    return Database(path, ["CREATE TABLE t (a TEXT PRIMARY KEY)"])

def insert(database, number, who=name):
    with database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (?)", (f"{who} {number}",))

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def say(word):
    print(word, flush=True)
"""


@contextmanager
def running(program: str, path: Path, name: str = "p") -> Iterator[subprocess.Popen[str]]:
    """Run a program that can be talked to, until it ends or the block does."""
    code = PREAMBLE + textwrap.dedent(program)
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code, str(path), name]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603 - ourselves
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run(program: str, path: Path) -> list[str]:
    """Run a program to its end and return what it said."""
    with running(program, path) as process:
        said, _ = process.communicate()
        assert 0 == process.returncode
        return said.splitlines()


def contents(path: Path) -> list[str]:
    with closing(Database(path, SCHEMA)) as database:
        assert "ok" == database.rows("PRAGMA integrity_check")[0][0]
        return sorted(row["a"] for row in database.rows("SELECT a FROM t"))


def expected(*names: str, count: int) -> list[str]:
    return sorted(f"{name} {number}" for name in names for number in range(count))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "leastwise.db"


def test_processes_started_together_open_one_new_file_and_write_all_they_have(path: Path) -> None:
    program = """
        say("ready")
        sys.stdin.readline()
        database = opened()
        for number in range(50):
            insert(database, number)
    """
    names = ["p", "q", "r", "s"]
    with ExitStack() as stack:
        processes = [stack.enter_context(running(program, path, name)) for name in names]
        assert ["ready"] * 4 == [read_line(process) for process in processes]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [0] * 4 == [process.wait() for process in processes]

    assert expected(*names, count=50) == contents(path)


def test_threads_share_one_database(path: Path) -> None:
    with closing(Database(path, SCHEMA)) as database, ThreadPoolExecutor(8) as pool:

        def write(name: str) -> None:
            for number in range(30):
                with database.transaction() as connection:
                    connection.execute("INSERT INTO t VALUES (?)", (f"{name} {number}",))

        list(pool.map(write, "abcdefgh"))
    assert expected(*"abcdefgh", count=30) == contents(path)


def test_a_killed_writer_loses_nothing_it_committed_and_blocks_nobody(path: Path) -> None:
    program = """
        database = opened()
        for number in range(40):
            insert(database, number)
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES ('not committed')")
            say("in the middle")
            sys.stdin.readline()
    """
    with running(program, path) as process:
        assert "in the middle" == read_line(process)
        process.kill()
        process.wait()

    with closing(Database(path, SCHEMA)) as database, database.transaction(may_wait=False) as connection:
        connection.execute("INSERT INTO t VALUES ('after')")
    assert sorted([*expected("p", count=40), "after"]) == contents(path)


def test_a_kill_at_any_moment_leaves_what_was_said_to_be_committed(path: Path) -> None:
    program = """
        database = opened()
        for number in range(1_000_000):
            insert(database, number)
            say(number)
    """
    with running(program, path) as process:
        said = [read_line(process) for _ in range(200)]
        process.kill()
        assert process.stdout is not None
        *rest, _ = process.stdout.read().split("\n")  # the last line may be half a line
    committed = len(said) + len(rest)

    found = set(contents(path))
    assert found >= set(expected("p", count=committed))
    assert len(found) - committed in (0, 1)  # committed, but killed before it could say so


def test_parent_and_child_each_write_with_a_connection_of_their_own(path: Path) -> None:
    program = """
        database = opened()
        insert(database, 0, "parent")
        pids = []
        for child in range(3):
            pids.append(in_child(lambda: [insert(database, number, f"child{child}") for number in range(30)]))
            insert(database, child + 1, "parent")
        say([ended(pid) for pid in pids])
    """
    assert ["[0, 0, 0]"] == run(program, path)
    assert sorted(
        [*expected("parent", count=4), *expected("child0", "child1", "child2", count=30)]
    ) == contents(path)


def test_what_a_child_commits_outlives_the_parents_closing(path: Path) -> None:
    program = """
        database = opened()
        insert(database, 0, "parent")
        (ready, tell_ready), (go, tell_go) = os.pipe(), os.pipe()

        def child():
            insert(database, 0, "child")
            os.write(tell_ready, b".")
            os.read(go, 1)
            for number in range(1, 5):
                insert(database, number, "child")

        pid = in_child(child)
        os.read(ready, 1)
        insert(database, 1, "parent")
        database.close()
        os.write(tell_go, b".")
        say(ended(pid))
    """
    assert ["0"] == run(program, path)
    assert sorted([*expected("parent", count=2), *expected("child", count=5)]) == contents(path)


def test_a_child_forked_while_other_threads_write_is_not_locked_out(path: Path) -> None:
    program = """
        database = opened()
        is_over = threading.Event()
        counts = {"t": 0, "u": 0}

        def write(who):
            while not is_over.is_set():
                insert(database, counts[who], who)
                counts[who] += 1

        threads = [threading.Thread(target=write, args=(who,)) for who in counts]
        for thread in threads:
            thread.start()
        say([ended(in_child(lambda: insert(database, round_, "child"))) for round_ in range(10)])
        is_over.set()
        for thread in threads:
            thread.join()
        say(counts["t"])
        say(counts["u"])
    """
    codes, t, u = run(program, path)
    assert str([0] * 10) == codes
    assert sorted(
        [*expected("child", count=10), *expected("t", count=int(t)), *expected("u", count=int(u))]
    ) == contents(path)


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(path: Path) -> None:
    program = """
        database = opened()
        insert(database, 0)

        def child():
            assert 1 == len(database.rows("SELECT a FROM t"))
            database.close()

        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES ('p 1')")
            say(ended(in_child(child)))
            connection.execute("INSERT INTO t VALUES ('p 2')")
    """
    assert ["0"] == run(program, path)
    assert expected("p", count=3) == contents(path)


def test_a_child_of_a_child_goes_on_with_a_database_in_memory(path: Path) -> None:
    program = """
        path = ":memory:"
        database = opened()
        insert(database, 0)

        def count():
            insert(database, 1)
            say(len(database.rows("SELECT a FROM t")))

        def child():
            assert 0 == ended(in_child(count))
            count()

        assert 0 == ended(in_child(child))
        say(len(database.rows("SELECT a FROM t")))
    """
    assert ["2", "2", "1"] == run(program, path)


def test_a_database_that_is_gone_does_not_mind_a_fork(path: Path) -> None:
    program = """
        for _ in range(20):
            opened().close()
        database = opened()
        say(ended(in_child(lambda: insert(database, 0))))
    """
    assert ["0"] == run(program, path)
    assert expected("p", count=1) == contents(path)
