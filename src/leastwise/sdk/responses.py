"""HTTP responses that no server gave: a kept answer's, and a budget's refusal.

A kept answer is read by the SDK itself: an SDK client whose transport holds the kept bytes
gives whatever the caller asked for, an object, a stream or a raw response. No byte of it
reaches a network, and no key is needed.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Final

import anthropic

from leastwise.cache import Stored
from leastwise.errors import BudgetExceededError

#: The HTTP library below the SDK: `httpx` for 0.x, `httpx2` since 1.0.
http: Final[Any] = import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__)

_URL: Final = "https://api.anthropic.com/v1/messages"
_PAYMENT: Final[Any] = getattr(anthropic, "PaymentRequiredError", anthropic.APIStatusError)  # new in SDK 2.x
_OPTIONS: Final = inspect.signature(anthropic.Anthropic).parameters
#: A kept answer is no call, and must not be traced as one.
_UNTRACED: Final[dict[str, Any]] = {"open_telemetry": False} if "open_telemetry" in _OPTIONS else {}


def replaying(stored: Stored, client: Any) -> Any:
    """Return an SDK client, sync or async as `client` is, that answers whatever it is asked by `stored`."""
    headers = {"content-type": "text/event-stream" if stored.is_stream else "application/json"}
    if stored.request_id:
        headers["request-id"] = stored.request_id
    response = http.Response(200, headers=headers, stream=http.ByteStream(stored.body))
    transport: Any = http.MockTransport(lambda _: response)
    given: dict[str, Any] = {
        "api_key": "none",
        "base_url": client.base_url,
        "max_retries": 0,
        "_strict_response_validation": client._strict_response_validation,  # noqa: SLF001 - the SDK's
        **_UNTRACED,
    }
    if hasattr(client, "__aenter__"):
        connections = anthropic.DefaultAsyncHttpxClient(transport=transport, trust_env=False)
        return anthropic.AsyncAnthropic(http_client=connections, **given)
    return anthropic.Anthropic(
        http_client=anthropic.DefaultHttpxClient(transport=transport, trust_env=False), **given
    )


class BudgetStatusError(BudgetExceededError, _PAYMENT):  # type: ignore[misc]  # the SDK's class, by its version
    """A budget has too little left for this call; as well an error of the SDK, for those who catch these.

    Its `response` is what the API would answer: 402, a `billing_error`, not to be tried again.
    """

    def __init__(self, words: str, **facts: Any) -> None:
        """Make the error that says `words`, with the attributes of the one it stands for."""
        body = {"type": "error", "error": {"type": self.api_type, "message": words}}
        request = http.Request("POST", _URL)
        response = http.Response(self.http_status, headers=self.headers, json=body, request=request)
        _PAYMENT.__init__(self, words, response=response, body=body)
        self.__dict__.update(facts)
