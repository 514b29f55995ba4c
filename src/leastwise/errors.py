"""Everything Leastwise raises on purpose.

    LeastwiseError
    ├── ConfigError            a setting, rule, ladder or price row is wrong
    ├── RequestError           a request cannot be read (gateway: 400)
    ├── UnknownPriceError      a model has no price, so it is not called (400)
    ├── StoreError             the ledger, or another store, cannot be opened, read or written
    ├── BudgetError            a budget does not allow this call
    │   ├── BudgetExceededError      it has too little left (402)
    │   └── BudgetUnavailableError   it cannot be asked, so nothing is spent; also a StoreError (503)
    ├── UnboundedError         a budget cannot cover what has no bound (400)
    ├── LogError               a file given to `report`, `route` or `tune` cannot be read
    └── UpstreamFailure        one attempt upstream failed; carries the original

Each class carries the HTTP status and API error type a gateway should answer,
so there is no mapping table elsewhere. Messages say what was wrong, the value,
and what to do; attributes carry the facts, so nobody needs to parse a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
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


class BudgetError(LeastwiseError):
    """A budget does not allow this call; nothing was sent for it.

    Attributes:
        budget: Its name.
        account: The account within it, such as `team-a|key=alice`.
        window_key: Which of its windows.
        spent_usd: Spent in the window so far.
        limit_usd: What this call had to stay within.
        percent: How much of the budget's own limit is spent, in per cent.
    """

    budget = ""
    account = ""
    window_key = ""
    spent_usd = Decimal(0)
    limit_usd = Decimal(0)
    percent = Decimal(100)


class BudgetUnavailableError(BudgetError, StoreError):
    """The store of a budget with a cap cannot be asked, so nothing may be spent."""

    http_status = 503


class BudgetExceededError(BudgetError):
    """A budget has too little left for this call; nothing was sent for it.

    Attributes:
        reserved_usd: Reserved for calls under way.
        needed_usd: The most that this call could have cost.
        resets_at: When the window begins anew; None for one that does not, or that rolls.
        works: Tiers that what is left would still pay for.
        headers: What a gateway adds to the answer: clients must not try again by themselves.
    """

    http_status = 402
    api_type = "billing_error"
    headers: Mapping[str, str] = MappingProxyType({"x-should-retry": "false"})

    def __init__(
        self,
        words: str,
        *,
        budget: str = "",
        account: str = "",
        window_key: str = "",
        spent_usd: Decimal = Decimal(0),
        reserved_usd: Decimal = Decimal(0),
        limit_usd: Decimal = Decimal(0),
        needed_usd: Decimal = Decimal(0),
        percent: Decimal = Decimal(100),
        resets_at: datetime | None = None,
        works: tuple[str, ...] = (),
    ) -> None:
        super().__init__(words)
        self.budget = budget
        self.account = account
        self.window_key = window_key
        self.spent_usd = spent_usd
        self.reserved_usd = reserved_usd
        self.limit_usd = limit_usd
        self.needed_usd = needed_usd
        self.percent = percent
        self.resets_at = resets_at
        self.works = works


class UnboundedError(RequestError):
    """A request has a part whose cost has no bound, and a budget with a cap would pay for it."""


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
