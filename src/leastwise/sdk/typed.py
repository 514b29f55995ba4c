"""What type checkers see of the drop-in clients: the SDK's classes, with `task` where it is taken.

Never run: `dropin` does the work. The SDK's own arguments stay as they are by keyword; checkers
take them as they come, because a keyword cannot be added to a signature written elsewhere.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import anthropic
from anthropic.resources.beta import AsyncBeta, Beta, messages

from leastwise.build import Runtime
from leastwise.ladder import Mode, Task

if TYPE_CHECKING:
    from anthropic.lib.streaming import (
        AsyncMessageStreamManager,
        BetaAsyncMessageStreamManager,
        BetaMessageStreamManager,
        MessageStreamManager,
    )
    from anthropic.lib.tools import (
        BetaAsyncStreamingToolRunner,
        BetaAsyncToolRunner,
        BetaStreamingToolRunner,
        BetaToolRunner,
    )
    from anthropic.types import Message, ParsedMessage, RawMessageStreamEvent
    from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
    from anthropic.types.beta.parsed_beta_message import ParsedBetaMessage

T = TypeVar("T")


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
    @overload
    def create(
        self, *, task: Task | None = None, stream: bool, **kwargs: Any
    ) -> Message | anthropic.Stream[RawMessageStreamEvent]: ...
    def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> MessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    def parse(  # type: ignore[empty-body, override]  # as above
        self, *, task: Task | None = None, output_format: type[T], **kwargs: Any
    ) -> ParsedMessage[T]:
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
    @overload
    async def create(
        self, *, task: Task | None = None, stream: bool, **kwargs: Any
    ) -> Message | anthropic.AsyncStream[RawMessageStreamEvent]: ...
    async def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> AsyncMessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    async def parse(  # type: ignore[empty-body, override]  # as above
        self, *, task: Task | None = None, output_format: type[T], **kwargs: Any
    ) -> ParsedMessage[T]:
        """Create and parse a message."""


class BetaMessages(messages.Messages):
    """`beta.messages` with `task`."""

    @overload  # type: ignore[override]  # the SDK's arguments by keyword
    def create(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> BetaMessage: ...
    @overload
    def create(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> anthropic.Stream[BetaRawMessageStreamEvent]: ...
    @overload
    def create(
        self, *, task: Task | None = None, stream: bool, **kwargs: Any
    ) -> BetaMessage | anthropic.Stream[BetaRawMessageStreamEvent]: ...
    def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> BetaMessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    def parse(  # type: ignore[empty-body, override]  # as above
        self, *, task: Task | None = None, output_format: type[T], **kwargs: Any
    ) -> ParsedBetaMessage[T]:
        """Create and parse a message."""

    @overload  # type: ignore[override]  # as above
    def tool_runner(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> BetaToolRunner[Any]: ...
    @overload
    def tool_runner(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> BetaStreamingToolRunner[Any]: ...
    def tool_runner(self, **kwargs: Any) -> Any:
        """Run tools in a loop; each call carries the task."""


class AsyncBetaMessages(messages.AsyncMessages):
    """`beta.messages` with `task`, on an event loop."""

    @overload  # type: ignore[override]  # the SDK's arguments by keyword
    async def create(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> BetaMessage: ...
    @overload
    async def create(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> anthropic.AsyncStream[BetaRawMessageStreamEvent]: ...
    @overload
    async def create(
        self, *, task: Task | None = None, stream: bool, **kwargs: Any
    ) -> BetaMessage | anthropic.AsyncStream[BetaRawMessageStreamEvent]: ...
    async def create(self, **kwargs: Any) -> Any:
        """Create a message."""

    def stream(self, *, task: Task | None = None, **kwargs: Any) -> BetaAsyncMessageStreamManager[Any]:  # type: ignore[empty-body]
        """Stream a message."""

    async def parse(  # type: ignore[empty-body, override]  # as above
        self, *, task: Task | None = None, output_format: type[T], **kwargs: Any
    ) -> ParsedBetaMessage[T]:
        """Create and parse a message."""

    @overload  # type: ignore[override]  # as above
    def tool_runner(
        self, *, task: Task | None = None, stream: Literal[False] = False, **kwargs: Any
    ) -> BetaAsyncToolRunner[Any]: ...
    @overload
    def tool_runner(
        self, *, task: Task | None = None, stream: Literal[True], **kwargs: Any
    ) -> BetaAsyncStreamingToolRunner[Any]: ...
    def tool_runner(self, **kwargs: Any) -> Any:
        """Run tools in a loop; each call carries the task."""


class TaskedBeta(Beta):
    """`beta`, whose `messages` take `task`."""

    @cached_property
    def messages(self) -> BetaMessages:  # type: ignore[empty-body]
        """The beta messages."""


class AsyncTaskedBeta(AsyncBeta):
    """`beta`, whose `messages` take `task`, on an event loop."""

    @cached_property
    def messages(self) -> AsyncBetaMessages:  # type: ignore[empty-body]
        """The beta messages."""


class Anthropic(anthropic.Anthropic):
    """The SDK's `Anthropic`, with `task`, `mode`, `budget_usd` and `feedback`."""

    leastwise: Runtime
    messages: Messages
    beta: TaskedBeta

    def __init__(
        self,
        *,
        leastwise: Runtime | None = None,
        mode: Mode | None = None,
        budget_usd: Decimal | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a client; see the SDK for all other arguments."""

    def feedback(self, of: object, *, ok: bool, note: str = "") -> None:
        """Say whether an answer was acceptable."""


class AsyncAnthropic(anthropic.AsyncAnthropic):
    """The SDK's `AsyncAnthropic`, with `task`, `mode`, `budget_usd` and `feedback`."""

    leastwise: Runtime
    messages: AsyncMessages
    beta: AsyncTaskedBeta

    def __init__(
        self,
        *,
        leastwise: Runtime | None = None,
        mode: Mode | None = None,
        budget_usd: Decimal | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a client; see the SDK for all other arguments."""

    async def feedback(self, of: object, *, ok: bool, note: str = "") -> None:
        """Say whether an answer was acceptable."""
