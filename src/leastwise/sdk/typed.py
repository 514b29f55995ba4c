"""What type checkers see of the drop-in clients: the SDK's classes, with `task` on three methods.

Never run: `dropin` does the work. The SDK's own arguments stay as they are by keyword; checkers
take them as they come, because a keyword cannot be added to a signature written elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import anthropic
from anthropic.resources.beta import AsyncBeta, Beta

from leastwise.build import Runtime
from leastwise.ladder import Mode, Task

if TYPE_CHECKING:
    from anthropic.lib.streaming import AsyncMessageStreamManager, MessageStreamManager
    from anthropic.types import Message, RawMessageStreamEvent


class Messages(anthropic.resources.Messages):
    """`messages` with `task`."""

    @overload  # type: ignore[override]  # the SDK's arguments by keyword
    def create(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> Message: ...
    @overload
    def create(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> anthropic.Stream[RawMessageStreamEvent]: ...
    def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> MessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    def parse(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create and parse a message."""


class AsyncMessages(anthropic.resources.AsyncMessages):
    """`messages` with `task`, on an event loop."""

    @overload  # type: ignore[override]  # the SDK's arguments by keyword
    async def create(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> Message: ...
    @overload
    async def create(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> anthropic.AsyncStream[RawMessageStreamEvent]: ...
    async def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> AsyncMessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    async def parse(self, *, task: Task | None = None, **kwargs: Any) -> Any:
        """Create and parse a message."""


class Anthropic(anthropic.Anthropic):
    """The SDK's `Anthropic`, with `task` and `mode`."""

    leastwise: Runtime
    messages: Messages
    beta: Beta

    def __init__(self, *, leastwise: Runtime | None = None, mode: Mode | None = None, **kwargs: Any) -> None:
        """Make a client; see the SDK for all other arguments."""


class AsyncAnthropic(anthropic.AsyncAnthropic):
    """The SDK's `AsyncAnthropic`, with `task` and `mode`."""

    leastwise: Runtime
    messages: AsyncMessages
    beta: AsyncBeta

    def __init__(self, *, leastwise: Runtime | None = None, mode: Mode | None = None, **kwargs: Any) -> None:
        """Make a client; see the SDK for all other arguments."""
