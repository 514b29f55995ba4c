"""Trying on another tier what was just answered, beside the caller: while a trial of its tag is open.

A message is at hand when it is answered; a stream when the caller has read it to its end. The other answer
is asked for on a thread or, on an event loop, in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from leastwise.build import Runtime
from leastwise.build.trials import note
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.errors import UpstreamFailure
from leastwise.exchange import Done
from leastwise.ladder import Outcome
from leastwise.messages import JSON, Request
from leastwise.sse import assemble
from leastwise.steps import Steps
from leastwise.trial import try_pair

#: Returns the API's decoded message, and what became of its request; None where that is not known.
Read = Callable[[], tuple[Mapping[str, JSON], Outcome | None]]
_decode = msgspec.json.Decoder(dict[str, JSON]).decode


@dataclass(frozen=True, slots=True)
class Beside:
    """What is to be tried beside a caller.

    Attributes:
        runtime: Whose trial it is.
        trial: The trial.
        request: What was asked.
        ask: Carries out the steps of a pair with the caller's client; a coroutine's on an event loop.
    """

    runtime: Runtime
    trial: OpenTrial
    request: Request
    ask: Callable[[Steps[Done]], Any]

    def on_thread(self, read: Read) -> None:
        """Have an answer tried on a thread."""
        self.runtime.trials.start(partial(self._try, read))

    def _try(self, read: Read) -> None:
        steps = self._steps(read)
        if steps is not None:
            self._add(self.ask(steps))

    def on_loop(self, read: Read) -> None:
        """Have an answer tried in a task of the running event loop; where none runs it is not."""
        trials = self.runtime.trials
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if trials.enter():
            task = loop.create_task(self._try_async(read))
            trials.tasks.add(task)
            task.add_done_callback(trials.tasks.discard)

    async def _try_async(self, read: Read) -> None:
        try:
            steps = self._steps(read)
            if steps is not None:
                pairs = await _awaited(self.ask(steps))
                await asyncio.to_thread(self._add, pairs)
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and nothing depends on it
            note(error)
        finally:
            self.runtime.trials.leave()

    def _steps(self, read: Read) -> Steps[Done] | None:
        message, outcome = read()
        if outcome is None:
            return None
        pair = self.runtime.live_pair(self.trial, self.request, message, outcome)
        return None if pair is None else try_pair(pair)

    def _add(self, pairs: Pairs) -> None:
        self.runtime.trials.add(self.trial, pairs, self.runtime.config.ladder)


async def _awaited(pairs: Awaitable[Pairs]) -> Pairs:
    return await pairs


class Overheard:
    """Hears a response, and tells its bytes when it has ended."""

    def __init__(self, told: Callable[[bytes], None]) -> None:
        self._told = told
        self._body = bytearray()
        self._is_open = True

    def feed(self, chunk: bytes) -> None:
        """Keep the next bytes."""
        self._body += chunk

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """Tell what came, unless something cut it short."""
        if self._is_open and failure is None:
            self._told(bytes(self._body))
        self._is_open = False

    def leave(self) -> None:
        """Tell what came until the caller left: all of it, where only the stream's end was left unread."""
        self.finish()

    def abandon(self) -> None:
        """Forget what came."""
        self._is_open = False


def message_of(body: bytes) -> Mapping[str, JSON]:
    """Return the message that an answer's bytes hold, a stream's put together; empty where they hold none."""
    if not body.lstrip().startswith(b"{"):
        return assemble(body)
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
