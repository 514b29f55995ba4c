"""Everything Leastwise raises on purpose.

    LeastwiseError
    ├── ConfigError            a setting, rule, ladder or price row is wrong
    ├── RequestError           a request cannot be read (gateway: 400)
    ├── UnknownPriceError      a model has no price, so it is not called (400)
    ├── StoreError             the ledger cannot be opened, read or written
    ├── LogError               a file given to `report` or `route` cannot be read
    └── UpstreamFailure        one attempt upstream failed; carries the original

Each class carries the HTTP status and API error type a gateway should answer,
so there is no mapping table elsewhere. Messages say what was wrong, the value,
and what to do; attributes carry the facts, so nobody needs to parse a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_FIELD = re.compile(r"([a-z_-]{1,40}(?:\.[a-z0-9_-]{1,40}){0,6}):")
_PLACE = re.compile(r"\.\d+(?=\.|$)")


class LeastwiseError(Exception):
    """Base of all errors that Leastwise raises on purpose."""

    http_status = 500
    api_type = "api_error"


class ConfigError(LeastwiseError):
    """A setting, rule, ladder or price row is wrong; names the key, the value and the mend."""


class RequestError(LeastwiseError):
    """A request body or argument cannot be read as a Messages request."""

    http_status = 400
    api_type = "invalid_request_error"


class UnknownPriceError(LeastwiseError):
    """A model has no price at the time of the call, so the call is not made."""

    http_status = 400
    api_type = "invalid_request_error"

    def __init__(self, model: str, provider: str = "anthropic") -> None:
        super().__init__(model, provider)  # as given, so that it can be pickled
        self.model = model
        self.provider = provider

    def __str__(self) -> str:
        return (
            f"no price for model {self.model!r} of provider {self.provider!r}. Check the spelling, add a "
            f"[[price]] row for it to leastwise.toml (a local model: input = 0, output = 0), or "
            f'allow unpriced models with: unpriced = "allow"'
        )


class StoreError(LeastwiseError):
    """The ledger cannot be opened, read or written; names the file and the mend."""


class LogError(LeastwiseError):
    """A file handed to a command cannot be read at all; single bad lines are reported, not raised."""


class UpstreamFailure(LeastwiseError):  # noqa: N818 - a failed attempt, not a defect of ours
    """One attempt at an upstream failed.

    Never reaches the caller of a drop-in client: drivers raise `cause`, the
    upstream's own error, in its place.

    Attributes:
        status: HTTP status the upstream answered, or None when no answer came.
        headers: Response headers, names in lower case.
        was_sent: Whether the request may have reached the model, and so may be billed.
        cause: The upstream library's own exception.
        request_id: The upstream's `request-id`, when it gave one.
        field: The member of the request that an answered error names, such as `thinking.type`, or "".
    """

    def __init__(
        self,
        cause: BaseException,
        *,
        status: int | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        was_sent: bool = True,
        request_id: str | None = None,
        message: str = "",
    ) -> None:
        self.cause = cause
        self.status = status
        self.headers = headers
        self.was_sent = was_sent
        self.request_id = request_id
        self.field = field_in(message)
        answered = f"status {status}" if status is not None else type(cause).__name__
        super().__init__(f"upstream attempt failed: {answered}")


def field_in(message: str) -> str:
    """Return the member of a request that an API error begins with, places in lists left out; or "".

    >>> field_in("messages.3.content.0: Field required")
    'messages.content'
    """
    found = _FIELD.match(message)
    return _PLACE.sub("", found[1]) if found else ""
