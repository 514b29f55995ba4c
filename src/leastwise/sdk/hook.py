"""The one method that every message of an SDK client passes: `request`, sync and async.

A class mixed in before the SDK's own client class overrides `leastwise_message`, and is
given each post to `/v1/messages` with its body as the SDK prepared it, and a function that
sends it or, with `is_own`, a plain message of ours. `leastwise_batch` is given each post of a
batch in the same way, `leastwise_results` the id of each batch whose results are asked for; all
other requests pass. Several may be mixed in: each reaches the next, and the last one the SDK, by `super`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from anthropic import Omit
from anthropic.types import Message

from leastwise.ladder import Task

_MESSAGES: Final = "v1/messages"
_BATCHES: Final = "v1/messages/batches"
_RESULTS: Final = re.compile(r"v1/messages/batches/([^/]+)/results$")
_TASK: Final = "leastwise_task"  # rides in the body from the resource to `request`, where it is taken out
_PREPARE: Final = "_copy_and_prepare"  # SDK 1.0 and later prepare a body here


class Sync:
    """Mixed in before a sync client's class."""

    def request(self, cast_to: Any, options: Any, **how: Any) -> Any:
        """Send a request; a message goes through `leastwise_message`."""
        send = super().request  # type: ignore[misc]  # the class mixed with
        path = _path_of(options)
        if batch := _batch_asked_for(options, path):
            return self.leastwise_results(batch, partial(send, cast_to, options, **how))
        if not _is_post(options) or path not in (_MESSAGES, _BATCHES):
            return send(cast_to, options, **how)
        options, task = _without_task(options)
        options = getattr(self, _PREPARE, _merge_extra)(options)

        def send_one(attempt: Any, other: Any, *, is_own: bool = False) -> Any:
            post = send if other is None else other.request
            return post(Message, attempt) if is_own else post(cast_to, attempt, **how)

        if path == _BATCHES:
            return self.leastwise_batch(options, send_one)
        return self.leastwise_message(options, task, send_one)

    def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:  # noqa: ARG002 - overridden
        """Answer a message; `send(options, other)` sends one, by another client when it is given."""
        return send(options, None)

    def leastwise_batch(self, options: Any, send: Any) -> Any:
        """Have a batch accepted; `send` as for a message."""
        return send(options, None)

    def leastwise_results(self, _batch_id: str, send: Any) -> Any:
        """Return the results of a batch, as `send()` gives them."""
        return send()


class Async:
    """Mixed in before an async client's class."""

    async def request(self, cast_to: Any, options: Any, **how: Any) -> Any:
        """Send a request; a message goes through `leastwise_message`."""
        send = super().request  # type: ignore[misc]  # the class mixed with
        path = _path_of(options)
        if batch := _batch_asked_for(options, path):
            return await self.leastwise_results(batch, partial(send, cast_to, options, **how))
        if not _is_post(options) or path not in (_MESSAGES, _BATCHES):
            return await send(cast_to, options, **how)
        options, task = _without_task(options)
        options = await getattr(self, _PREPARE)(options) if hasattr(self, _PREPARE) else _merge_extra(options)

        async def send_one(attempt: Any, other: Any, *, is_own: bool = False) -> Any:
            post = send if other is None else other.request
            return await (post(Message, attempt) if is_own else post(cast_to, attempt, **how))

        if path == _BATCHES:
            return await self.leastwise_batch(options, send_one)
        return await self.leastwise_message(options, task, send_one)

    async def leastwise_message(self, options: Any, task: Task | None, send: Any) -> Any:  # noqa: ARG002 - overridden
        """Answer a message; `send(options, other)` sends one, by another client when it is given."""
        return await send(options, None)

    async def leastwise_batch(self, options: Any, send: Any) -> Any:
        """Have a batch accepted; `send` as for a message."""
        return await send(options, None)

    async def leastwise_results(self, _batch_id: str, send: Any) -> Any:
        """Return the results of a batch, as `send()` gives them."""
        return await send()


def carrying(resource: Any, task: object) -> Any:
    """Return the messages resource, or a copy of it whose posts carry `task` to `leastwise_message`.

    Raises:
        TypeError: `task` is neither a `Task` nor None.
    """
    if task is None:
        return resource
    if not isinstance(task, Task):
        message = f"task={task!r}: expected a leastwise.Task"
        raise TypeError(message)
    bound = copy.copy(resource)
    post = resource._post  # noqa: SLF001 - the one door every method of the resource goes through

    def carry(path: str, *, body: Any = None, **kwargs: Any) -> Any:
        return post(path, body={**body, _TASK: task}, **kwargs)

    bound._post = carry  # noqa: SLF001 - as above
    return bound


def _path_of(options: Any) -> str:
    return urlsplit(str(options.url)).path.strip("/")


def _is_post(options: Any) -> bool:
    """Tell whether the SDK's request options are a post of a JSON object."""
    return options.method.lower() == "post" and isinstance(options.json_data, Mapping)


def _batch_asked_for(options: Any, path: str) -> str:
    """Return the id of the batch whose results the SDK's request options ask for, or ""."""
    found = _RESULTS.search(path) if options.method.lower() == "get" else None
    return found[1] if found else ""


def _without_task(options: Any) -> tuple[Any, Task | None]:
    """Return a copy of the options without the task that rode in their body, and the task."""
    bare = copy.copy(options)
    bare.json_data = dict(options.json_data)
    return bare, bare.json_data.pop(_TASK, None)


def _merge_extra(options: Any) -> Any:
    """Merge `extra_body` into the body, as SDK 0.x does when it sends; the rest it prepared before."""
    merged = {**options.json_data, **(options.extra_json or {})}
    options.json_data = {name: value for name, value in merged.items() if not isinstance(value, Omit)}
    options.extra_json = None
    return options
