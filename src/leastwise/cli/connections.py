"""Connections to the configured upstreams, for commands that ask for real."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

from leastwise.config import Upstream
from leastwise.errors import LeastwiseError, UpstreamFailure
from leastwise.messages import Reply
from leastwise.steps import Send
from leastwise.upstream import HttpUpstream


class Connections:
    """One connection for each upstream that is asked; an async context manager.

    Args:
        upstreams: The configured ones, by name.
    """

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams
        self._opened: dict[str, HttpUpstream] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Return this; nothing is opened before it is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what was opened."""
        await self._stack.aclose()

    async def __call__(self, step: Send) -> Reply:
        """Send a request that is not a stream.

        Raises:
            UpstreamFailure: no answer, or an error; or the key is missing, and nothing was sent.
        """
        name = step.upstream
        if name not in self._opened:
            self._opened[name] = await self._stack.enter_async_context(self._connect(name))
        return await self._opened[name](step)

    def _connect(self, name: str) -> HttpUpstream:
        upstream = self._upstreams[name]
        try:
            return HttpUpstream(upstream.base_url, key_of(name, upstream))
        except LeastwiseError as error:
            raise UpstreamFailure(error, was_sent=False, headers={"x-should-retry": "false"}) from error


def key_of(name: str, upstream: Upstream) -> str:
    """Return an upstream's key; "" where it needs none.

    Raises:
        LeastwiseError: it is not set.
    """
    key = os.environ.get(upstream.api_key_env, "") if upstream.api_key_env else ""
    if upstream.api_key_env and not key:
        message = (
            f"no key for upstream {name!r}: {upstream.api_key_env} is not set; "
            f"set it to a key of {upstream.base_url}"
        )
        raise LeastwiseError(message)
    return key
