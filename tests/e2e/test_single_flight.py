"""However many ask the same at once, one call is made; whoever leads may fail, leave or be killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from leastwise.client import run
from leastwise.errors import UpstreamFailure
from leastwise.messages import Reply
from leastwise.steps import Send
from tests.crowd import ANSWER, Part, answered, ask, ask_async, bytes_of, calls, desk_of, note, steps
from tests.kit import Clock
from tests.servers import age, valkey_url

CROWD: Final = 200


@pytest.fixture(params=["file", "valkey"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return valkey_url() if request.param == "valkey" else str(tmp_path / "cache.db")


@contextmanager
def process(part: Part) -> Iterator[subprocess.Popen[str]]:
    """Run a part in a process of its own, which is ready now."""
    command = [sys.executable, "-m", "tests.crowd", msgspec.json.encode(part).decode()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as running:  # noqa: S603 - ourselves
        try:
            yield running
        finally:
            running.kill()


def heard(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def go(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("go\n")
    running.stdin.flush()


class Upstream:
    """Answers by number of the call, from 0; where it is told to wait, until so many wait together."""

    def __init__(self, answer: Callable[[int], Reply], *, together: int = 0) -> None:
        self.calls = 0
        self._answer = answer
        self._together = together
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(max(1, together))
        self._waiting = 0
        self._all_here: asyncio.Event | None = None

    def _number(self) -> int:
        with self._lock:
            self.calls += 1
            return self.calls - 1

    def __call__(self, _: Send) -> Reply:
        number = self._number()
        if number and self._together:
            self._barrier.wait(20)
        else:
            time.sleep(0.2)
        return self._answer(number)

    async def asynchronously(self, _: Send) -> Reply:
        number = self._number()
        if number and self._together:
            self._all_here = self._all_here or asyncio.Event()
            self._waiting += 1
            if self._waiting == self._together:
                self._all_here.set()
            await asyncio.wait_for(self._all_here.wait(), 20)
        else:
            await asyncio.sleep(0.2)
        return self._answer(number)


def given(where: str, upstream: Upstream, count: int, *, is_async: bool) -> list[bytes | BaseException]:
    with desk_of(where) as desk:
        found = ask_async(desk, count, upstream.asynchronously) if is_async else ask(desk, count, upstream)
        assert 0 == desk.faults
        return found


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_everybody_who_asks_at_once_is_given_the_one_answer(where: str, is_async: bool) -> None:  # noqa: FBT001
    upstream = Upstream(lambda _: answered())
    assert [ANSWER] * CROWD == given(where, upstream, CROWD, is_async=is_async)
    assert 1 == upstream.calls


def test_processes_share_the_one_answer(where: str, tmp_path: Path) -> None:
    noted = str(tmp_path / "calls")
    with ExitStack() as stack:
        running = [
            stack.enter_context(process(Part(where, noted, CROWD // 4, is_async=is_async)))
            for is_async in (False, True, False, True)
        ]
        assert ["ready"] * 4 == [heard(one) for one in running]
        for one in running:
            go(one)
        assert [str(CROWD // 4)] * 4 == [heard(one) for one in running]

    assert 1 == calls(noted)


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_when_the_leader_fails_another_takes_over(where: str, is_async: bool) -> None:  # noqa: FBT001
    def answer(number: int) -> Reply:
        if number == 0:
            raise UpstreamFailure(OSError("no"), status=403)
        return answered()

    upstream = Upstream(answer)
    found = given(where, upstream, CROWD, is_async=is_async)
    assert 2 == upstream.calls
    assert CROWD - 1 == found.count(ANSWER)
    assert ["no"] == [str(one) for one in found if isinstance(one, BaseException)]


def test_when_the_leader_is_cancelled_another_takes_over(where: str) -> None:
    def answer(number: int) -> Reply:
        if number == 0:
            raise asyncio.CancelledError
        return answered()

    upstream = Upstream(answer)
    found = given(where, upstream, CROWD, is_async=True)
    assert 2 == upstream.calls
    assert CROWD - 1 == found.count(ANSWER)
    assert 1 == sum(isinstance(one, asyncio.CancelledError) for one in found)


def test_when_the_leaders_process_is_killed_another_takes_over(where: str, tmp_path: Path) -> None:
    noted = str(tmp_path / "calls")
    with process(Part(where, noted, is_mute=True)) as leader:
        assert "ready" == heard(leader)
        go(leader)
        assert "asking" == heard(leader)
        leader.kill()
        leader.wait()

    begun = time.time()
    clock = Clock(begun)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if "://" in where:
            age(where, seconds)

    def upstream(_: Send) -> Reply:
        note(noted)
        return answered()

    with desk_of(where, clock) as desk:
        assert ANSWER == bytes_of(run(steps(clock), upstream, desk, sleep=sleep))
    assert 2 == calls(noted)
    assert 15 < clock.now - begun < 30  # not before the leader is dead, and soon after


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_when_the_answer_is_none_to_keep_all_ask_together(where: str, is_async: bool) -> None:  # noqa: FBT001
    count = 50
    upstream = Upstream(lambda _: answered(stop_reason="max_tokens"), together=count - 1)
    assert [ANSWER] * count == given(where, upstream, count, is_async=is_async)
    assert count == upstream.calls
