"""Many identical requests at once, through the core and both drivers, in this process or in one of their own.

Run as a program it says when it is ready, waits for a line, asks, and says what it was answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from leastwise.cache import Caching
from leastwise.client import Desk, Result, run, run_async
from leastwise.exchange import Done, exchange
from leastwise.messages import Reply
from leastwise.sqlite import MEMORY
from leastwise.steps import Send, Steps
from leastwise.stores import CacheStore
from leastwise.stores.answers import SqliteCache
from leastwise.stores.redis import RedisCache
from leastwise.stores.sqlite import SqliteStore
from tests.kit import call, reply, terms

ANSWER: Final = (
    b'{"id":"msg_1","type":"message","model":"claude-haiku-5-5","content":[{"type":"text","text":"no"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":200,"output_tokens":10}}'
)
KEY: Final = sha256(b"what everybody asks").hexdigest()
_CACHING: Final = Caching(KEY, reads=True, keeps=True)
_TAKES_S: Final = 0.3  # long enough for everybody to come meanwhile


class Part(msgspec.Struct, frozen=True):
    """What one process has to do: how many ask, how, of which cache; a `mute` upstream never answers."""

    where: str
    calls: str
    count: int = 1
    is_async: bool = False
    is_mute: bool = False


def open_cache(where: str, clock: Callable[[], float] = time.time) -> CacheStore:
    """Return a cache on a server, or in a file."""
    return RedisCache(where, clock=clock) if "://" in where else SqliteCache(where, clock=clock)


@contextmanager
def desk_of(where: str, clock: Callable[[], float] = time.time) -> Iterator[Desk]:
    """Give a desk with that cache and a ledger of its own."""
    with closing(Desk(SqliteStore(MEMORY), clock, lambda: open_cache(where, clock))) as desk:
        yield desk


def steps(clock: Callable[[], float] = time.time) -> Steps[Done]:
    """Return the request that everybody makes."""
    return exchange(call(at=clock()), replace(terms(), caching=lambda _: _CACHING, clock=clock))


def answered(**changes: object) -> Reply:
    """Return an answer with its bytes."""
    facts = reply(**changes).facts  # type: ignore[arg-type]
    return Reply(ANSWER, facts, body=lambda: ANSWER)


def bytes_of(result: Result) -> bytes:
    """Return what a caller was given."""
    return result.payload if isinstance(result.payload, bytes) else bytes(result.payload.body)


def ask(desk: Desk, count: int, upstream: Callable[[Send], Reply]) -> list[bytes | BaseException]:
    """Have so many threads ask at once; return what each was given."""

    def one(_: int) -> bytes | BaseException:
        try:
            return bytes_of(run(steps(), upstream, desk))
        except OSError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def ask_async(
    desk: Desk, count: int, upstream: Callable[[Send], Awaitable[Reply]]
) -> list[bytes | BaseException]:
    """Have so many tasks ask at once; return what each was given."""

    async def everybody() -> list[Result | BaseException]:
        given = (run_async(steps(), upstream, desk) for _ in range(count))
        return await asyncio.gather(*given, return_exceptions=True)

    found = asyncio.run(everybody())
    return [one if isinstance(one, BaseException) else bytes_of(one) for one in found]


def note(path: str) -> None:
    """Note a call, so that it is seen whatever becomes of this process."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, b"%d\n" % os.getpid())
    os.close(file)


def calls(path: str) -> int:
    """Return how many calls were noted."""
    return len(Path(path).read_bytes().splitlines())


def main() -> None:
    """Do one part."""
    part = msgspec.json.decode(sys.argv[1], type=Part)

    def upstream(_: Send) -> Reply:
        note(part.calls)
        if part.is_mute:
            print("asking", flush=True)  # noqa: T201 - who started it waits for this
            time.sleep(600)
        time.sleep(_TAKES_S)
        return answered()

    async def upstream_async(_: Send) -> Reply:
        note(part.calls)
        await asyncio.sleep(_TAKES_S)
        return answered()

    with desk_of(part.where) as desk:
        assert desk.cache is not None
        print("ready", flush=True)  # noqa: T201 - as above
        sys.stdin.readline()
        if part.is_async:
            found = ask_async(desk, part.count, upstream_async)
        else:
            found = ask(desk, part.count, upstream)
        print(sum(one == ANSWER for one in found), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
