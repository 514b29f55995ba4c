"""One namespace of a server: reaching it, and telling how it fails, without a word of its password."""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from leastwise.errors import StoreError

#: An owner that has not been heard of for so long is dead.
SILENT_S: Final = 20.0

_SCHEMA: Final = b"1"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DATABASE: Final = re.compile(r"/?\d{0,4}")
_UNREADABLE: Final = (
    "the URL of a store cannot be read; expected redis://[USER:PASSWORD@]HOST:PORT[/DB][?namespace=NAME], "
    "with a name of letters, digits, '_', '.' and '-', and special characters of a password as %XX"
)
_CONNECT_S: Final = 0.25
_ANSWER_S: Final = 0.4  # on a machine that is overloaded a quarter of a second was too short now and then
_CONNECTIONS: Final = 64
#: For so long nobody asks again after no answer came in time: all who wait at once would wait in turn.
_SILENCE_S: Final = 0.25
_QUEUE_S: Final = 0.5  # for a connection, where more threads want one


class Server:
    """One namespace of a server.

    Args:
        url: See the text of the package.
        failure: What is raised when it cannot be asked.

    Attributes:
        where: Host and port, or the socket's path.
        client: Runs commands; safe from any thread, and after a fork.

    Raises:
        StoreError: it cannot be reached now, refuses us, or was written by a newer version.
    """

    def __init__(self, url: str, failure: type[StoreError]) -> None:
        namespace, pool = _opened(url)
        given = pool.connection_kwargs
        self.where = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        self.prefix = f"{{leastwise:{namespace}}}:"
        self.client = redis.Redis(connection_pool=pool)
        self._failure = StoreError
        self._silent_until = 0.0
        self._check()
        self._failure = failure
        weakref.finalize(self, pool.disconnect)

    def _check(self) -> None:
        name = self.key("schema")
        try:
            with self.asking():
                _, found = self.pipeline().set(name, _SCHEMA, nx=True).get(name).execute()
        except TypeError as error:  # redis-py found a setting that it does not know; it quotes no value
            message = f"the URL of the store on {self.where} has a setting that does not exist: {error}"
            raise StoreError(message) from None
        if found != _SCHEMA:
            message = (
                f"the store on {self.where} was written by another version of Leastwise (schema {found!r}, "
                f"here {_SCHEMA!r}): upgrade Leastwise, or name another namespace"
            )
            raise StoreError(message)

    def key(self, name: str) -> str:
        """Return the full name of a key of this namespace."""
        return f"{self.prefix}{name}"

    def pipeline(self, *, is_atomic: bool = False) -> Any:
        """Return a pipeline; Any, for redis-py does not tell what its commands return in one."""
        return self.client.pipeline(transaction=is_atomic)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Have what fails inside raised as ours.

        Raises:
            StoreError: the server cannot be asked, or a value cannot be kept.
        """
        if time.monotonic() < self._silent_until:
            message = f"the store on {self.where} cannot be asked: it did not answer a moment ago"
            raise self._failure(message)
        try:
            yield
        except (redis.RedisError, OSError) as error:
            if isinstance(error, redis.TimeoutError):
                self._silent_until = time.monotonic() + _SILENCE_S
            words = str(error).rstrip(".")
            message = f"the store on {self.where} cannot be asked: {words}. See [store] of the configuration"
            raise self._failure(message) from error
        except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError) as error:
            message = f"the store on {self.where} cannot keep a value: {error}"
            raise StoreError(message) from error

    @property
    def may_lose_keys(self) -> bool:
        """Whether the server, when it is full, throws away what has no end set."""
        with suppress(redis.RedisError):  # some services do not tell
            memory: Any = self.client.info("memory")
            return bool(memory.get("maxmemory")) and str(memory.get("maxmemory_policy")).startswith("allkeys")
        return False

    def close(self) -> None:
        """Close the connections; using the server again reopens them."""
        self.client.connection_pool.disconnect()


def new_owner() -> str:
    """Return a name for this process, which no other has or had."""
    return f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"


def _opened(url: str) -> tuple[str, redis.BlockingConnectionPool]:
    """Return the namespace that a URL names, and its pool, which has connected to nothing yet.

    Raises:
        StoreError: it cannot be read; its own words are left out, for they may be a password's.
    """
    try:
        parts = urlsplit(url)
        settings = dict(parse_qsl(parts.query))
        namespace = settings.pop("namespace", "default")
        if not _NAMESPACE.fullmatch(namespace) or (
            parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path)
        ):
            raise ValueError  # noqa: TRY301 - as urlsplit does
        pool = redis.BlockingConnectionPool.from_url(
            f"{url.partition('?')[0]}?{urlencode(settings)}",
            max_connections=_CONNECTIONS,
            timeout=_QUEUE_S,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_CONNECT_S,
            # Not after a timeout: the next would take as long.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            protocol=2,  # with this and the next two nothing is asked when a connection is made
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:
        raise StoreError(_UNREADABLE) from None
    return namespace, pool
