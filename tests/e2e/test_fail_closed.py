"""A budget's server that is gone: hard caps are closed at once, all else goes on, nothing is restarted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from leastwise.attempt import Call, Terms
from leastwise.budget import BudgetRule, Limits
from leastwise.client import Desk, run, run_async
from leastwise.errors import BudgetUnavailableError
from leastwise.exchange import exchange
from leastwise.ladder import Task
from leastwise.ledger import new_id
from leastwise.messages import Reply
from leastwise.sqlite import MEMORY
from leastwise.steps import Send
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.split import Split
from leastwise.stores.sqlite import SqliteStore
from tests.kit import call, reply, terms
from tests.servers import Valkey

RULE = BudgetRule("mail", 10**9, scope=("tag",), only=("mail",), window="total")
PROMISED_S, LATEST_S = 1.0, 3.0  # the quickest of three, and each: others keep a machine busy
TICK_S = 0.01
FEWEST_TICKS = 8  # in the half second that a hanging server takes: fifty, or two where the loop stands still
rng = random.SystemRandom()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    with suppress(ProcessLookupError, AttributeError):
        server.resume()
    server.kill()


@pytest.fixture
def desk(valkey: Valkey) -> Iterator[Desk]:
    with closing(Desk(Split(SqliteStore(MEMORY), RedisBudgets(valkey.url())), time.time)) as made:
        yield made


def made_terms() -> Terms:
    return replace(terms(), limits=Limits((RULE,)), clock=time.time, rng=rng)


def asked(tag: str) -> Call:
    now = time.time()
    return call(id=new_id(now, rng), at=now, task=Task(tag=tag))


def send(desk: Desk, tag: str) -> str:
    """Return what becomes of a call, which is known in time."""
    begun = time.monotonic()
    try:
        run(exchange(asked(tag), made_terms()), lambda _: reply(), desk)
    except BudgetUnavailableError:
        return "refused"
    finally:
        assert time.monotonic() - begun < LATEST_S
    return "answered"


async def send_async(desk: Desk, tag: str) -> str:
    """Do the same on an event loop, where another task goes on meanwhile."""

    async def upstream(_: Send) -> Reply:
        await asyncio.sleep(0)
        return reply()

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1

    ticking, begun = asyncio.create_task(tick()), time.monotonic()
    await asyncio.sleep(0)
    try:
        await run_async(exchange(asked(tag), made_terms()), upstream, desk)
    except BudgetUnavailableError:
        return "refused"
    finally:
        took_s = time.monotonic() - begun
        ticking.cancel()
        assert took_s < LATEST_S
        assert ticks >= FEWEST_TICKS or took_s < 2 * FEWEST_TICKS * TICK_S
    return "answered"


Sends = Callable[[Desk, str], str]
SENDS: dict[str, Sends] = {
    "sync": send,
    "async": lambda desk, tag: asyncio.run(send_async(desk, tag)),
}


@pytest.mark.parametrize("how", SENDS)
@pytest.mark.parametrize("fate", ["killed", "hangs"])
def test_hard_caps_are_closed_while_the_server_is_gone(
    how: str, fate: str, valkey: Valkey, desk: Desk
) -> None:
    sends = SENDS[how]
    assert ["answered", "answered"] == [sends(desk, "mail"), sends(desk, "other")]

    (valkey.kill if fate == "killed" else valkey.pause)()
    took_s = []
    for _ in range(3):
        begun = time.monotonic()
        assert "refused" == sends(desk, "mail")
        took_s.append(time.monotonic() - begun)
    assert min(took_s) < PROMISED_S
    assert ["answered"] * 3 == [sends(desk, "other") for _ in range(3)]

    (valkey.start if fate == "killed" else valkey.resume)()
    for _ in range(100):  # a server that hung is left alone for a moment
        if sends(desk, "mail") == "answered":
            break
        time.sleep(TICK_S)
    assert ["answered"] * 3 == [sends(desk, "mail") for _ in range(3)]
    assert "answered" == sends(desk, "other")
    desk.store.beat()  # what could not be settled meanwhile is settled now
    desk.store.flush()
    assert [] == desk.store.reserved()
