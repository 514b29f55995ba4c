from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from leastwise import sqlite
from leastwise.errors import StoreError
from leastwise.sqlite import MEMORY, BusyError, Database, StuckError

FIRST = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);\nINSERT INTO t VALUES (1, 'one')"
SECOND = "ALTER TABLE t ADD COLUMN c INTEGER NOT NULL DEFAULT 7"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "leastwise.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with closing(Database(path, [FIRST])) as opened:
        yield opened


def plain(path: Path) -> sqlite3.Connection:
    """Open the file as some other program would."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def numbers(database: Database) -> list[int]:
    return [row["a"] for row in database.rows("SELECT a FROM t ORDER BY a")]


def insert(connection: sqlite3.Connection, *numbers: int) -> None:
    for number in numbers:
        connection.execute("INSERT INTO t (a) VALUES (?)", (number,))


def test_a_file_is_private_to_its_user(database: Database, path: Path) -> None:
    with database.transaction() as connection:
        insert(connection, 2)

    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600} == {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()
    }


def test_a_database_of_this_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Database(MEMORY, [FIRST])) as database:
        assert [1] == numbers(database)
    assert [] == list(tmp_path.iterdir())


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Database("x.db", [FIRST])) as database:
        database.close()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        assert [1] == numbers(database)
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_migrations_run_once_and_in_order(path: Path) -> None:
    for migrations, columns in (([FIRST], ["a", "b"]), ([FIRST, SECOND], ["a", "b", "c"])):
        for _ in range(2):
            with closing(Database(path, migrations)) as database:
                assert columns == [row["name"] for row in database.rows("PRAGMA table_info(t)")]
                assert [1] == numbers(database)
                assert len(migrations) == database.rows("PRAGMA user_version")[0][0]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    Database(path, [FIRST]).close()
    with pytest.raises(StoreError, match="no such table: nowhere"):
        Database(path, [FIRST, "DROP TABLE t;\nINSERT INTO nowhere VALUES (1)"])
    with closing(Database(path, [FIRST])) as database:
        assert [1] == numbers(database)


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    Database(path, [FIRST, SECOND]).close()
    with pytest.raises(StoreError, match=r"has schema 2, this version of Leastwise knows up to 1: upgrade"):
        Database(path, [FIRST])
    with closing(Database(path, [FIRST, SECOND])) as database:
        assert [1] == numbers(database)


def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database " * 100)
    with pytest.raises(
        StoreError, match=r"cannot open the ledger '.*notes\.txt': file is not a database\. Name"
    ):
        Database(notes, [FIRST])

    assert "not a database " * 100 == notes.read_text()


def test_a_path_that_cannot_be_written_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "leastwise.db"):
        with pytest.raises(StoreError) as refused:
            Database(path, [FIRST])

        assert str(refused.value).startswith(f"cannot open the ledger {str(path)!r}: ")
        assert str(refused.value).endswith("or LEASTWISE_STORE_URL")


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_durability_is_asked_of_sqlite(path: Path, durability: str, level: int) -> None:
    with closing(Database(path, [FIRST], durability=durability)) as database:  # type: ignore[arg-type]  # one of the two
        assert level == database.rows("PRAGMA synchronous")[0][0]
        assert "wal" == database.rows("PRAGMA journal_mode")[0][0]


def test_a_transaction_commits_at_its_end(database: Database, path: Path) -> None:
    with database.transaction() as connection:
        insert(connection, 2)
        with closing(plain(path)) as other:
            assert [(1,)] == other.execute("SELECT a FROM t").fetchall()
    with closing(plain(path)) as other:
        assert [(1,), (2,)] == other.execute("SELECT a FROM t").fetchall()


def test_a_transaction_that_fails_is_rolled_back(database: Database) -> None:
    with pytest.raises(StoreError, match="UNIQUE constraint failed"), database.transaction() as connection:
        insert(connection, 2, 1)
    with pytest.raises(OverflowError), database.transaction() as connection:
        insert(connection, 2, 2**64)

    assert [1] == numbers(database)
    with database.transaction() as connection:
        insert(connection, 3)
    assert [1, 3] == numbers(database)


def test_a_transaction_that_sqlite_has_rolled_back_itself_raises_the_first_error(database: Database) -> None:
    with pytest.raises(StoreError, match="UNIQUE"), database.transaction() as connection:
        connection.execute("INSERT OR ROLLBACK INTO t VALUES (1, 'again')")

    assert [1] == numbers(database)


def test_a_nested_transaction_fails_with_the_outer_one(database: Database) -> None:
    def write(connection: sqlite3.Connection) -> None:
        insert(connection, 2)
        with database.transaction():
            insert(connection, 3)

    with pytest.raises(StoreError, match="within a transaction"), database.transaction() as connection:
        write(connection)

    assert [1] == numbers(database)


def test_who_may_not_wait_is_told_at_once_that_another_connection_writes(
    database: Database, path: Path
) -> None:
    with closing(plain(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError), database.transaction(may_wait=False):
            pass
        other.execute("COMMIT")
    with database.transaction(may_wait=False) as connection:
        insert(connection, 2)
    assert [1, 2] == numbers(database)


def test_who_may_not_wait_is_told_at_once_that_another_thread_writes(database: Database) -> None:
    def attempt() -> str:
        try:
            with database.transaction(may_wait=False):
                return "got it"
        except BusyError:
            return "busy"

    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            assert "busy" == pool.submit(attempt).result()
        assert "got it" == pool.submit(attempt).result()


def test_who_may_wait_writes_when_the_other_has_done(database: Database, path: Path) -> None:
    is_free = threading.Event()

    def write() -> None:
        with database.transaction() as connection:
            assert is_free.is_set()
            insert(connection, 2)

    with closing(plain(path)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(write)
        for _ in range(50):  # reads go on while another thread of ours waits to write
            assert [1] == numbers(database)
        is_free.set()
        other.execute("COMMIT")
        waiting.result()
    assert [1, 2] == numbers(database)


def test_nobody_waits_for_ever(database: Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE_S", 0.01)
    with closing(plain(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StuckError, match="locked by another process"), database.transaction():
            pass
        other.execute("ROLLBACK")
    assert [1] == numbers(database)


def test_a_read_waits_for_a_file_that_another_program_keeps_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Database(path, [FIRST]).close()
    with closing(plain(path)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO t VALUES (2, 'two')")
        opening = pool.submit(lambda: Database(path, [FIRST]))
        other.execute("COMMIT")
        other.close()
        with closing(opening.result()) as database:
            assert [1, 2] == numbers(database)


def test_a_row_is_the_first_of_the_rows(database: Database) -> None:
    with database.transaction() as connection:
        insert(connection, 2)

    assert (2,) == database.row("SELECT a FROM t WHERE a > ? ORDER BY a DESC", (0,))
    assert database.row("SELECT a FROM t WHERE a > ?", (2,)) is None


@pytest.mark.parametrize("ask", [Database.rows, Database.row])
def test_errors_of_a_query_name_the_file(
    database: Database, path: Path, ask: Callable[[Database, str], object]
) -> None:
    with pytest.raises(StoreError) as failed:
        ask(database, "SELECT * FROM nowhere")

    assert str(failed.value).startswith(
        f"the ledger {str(path)!r} failed: no such table: nowhere. Name another"
    )


def test_a_closed_database_opens_again(database: Database) -> None:
    connection = database._connection
    assert connection is not None
    database.close()
    database.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    assert [1] == numbers(database)


def test_a_failed_opening_leaves_no_connection(path: Path) -> None:
    Database(path, [FIRST, SECOND]).close()
    with pytest.raises(StoreError):
        Database(path, [FIRST])

    assert [path] == list(path.parent.iterdir())  # the last one to close removes the -wal and -shm beside it


def test_a_fork_leaves_no_connection_to_inherit(database: Database) -> None:
    database._before_fork()
    assert None is database._connection
    database._after_fork_in_parent()

    assert [1] == numbers(database)


def test_a_connection_in_the_middle_of_a_transaction_stays_the_parents(database: Database) -> None:
    with database.transaction() as connection:
        insert(connection, 2)
        database._before_fork()
        database._after_fork_in_child()

        assert [1] == numbers(database)
        assert database._connection is not connection
    assert [1, 2] == numbers(database)
    connection.close()


def test_a_database_that_is_gone_has_no_part_in_a_fork() -> None:
    calls = []

    class Bell:
        def ring(self) -> None:
            calls.append("ring")

    bell = Bell()
    ring = sqlite._weakly(bell.ring)
    ring()
    del bell
    ring()

    assert ["ring"] == calls
