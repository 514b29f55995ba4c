"""The HTTP upstream: any server that speaks the Messages API, without an SDK.

Used where no SDK client is at hand (`route --send`, `init`, `doctor`). Proxies and
certificates come from the environment, as the operating system's tools take them.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from leastwise.errors import UpstreamFailure
from leastwise.messages import JSON, Facts, Reply, blocks_of, text_of
from leastwise.steps import Send

VERSION: Final = "2023-06-01"
_TIMEOUT_S: Final = 600.0
_CONNECT_TIMEOUT_S: Final = 5.0
_ERROR_FROM: Final = 400
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_NEVER_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    ssl.SSLCertVerificationError,
)


class AnswerError(Exception):
    """An upstream answered with an HTTP error, or with something that is not a message."""


class HttpUpstream:
    """One Messages API over HTTP; an async context manager that owns its connections.

    Args:
        base_url: Such as `https://api.anthropic.com`.
        api_key: Sent as `x-api-key`; empty for servers that want none.
        timeout_s: For a whole answer.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"anthropic-version": VERSION, "content-type": "application/json"}
        if api_key:
            self._headers["x-api-key"] = api_key
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=self._timeout, trust_env=not _is_here(self.base_url)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, step: Send) -> Reply:
        """Send a request that is not a stream.

        Raises:
            UpstreamFailure: no answer, or an error; `cause` tells which.
        """
        request = step.request
        betas = {"anthropic-beta": ",".join(request.betas)} if request.betas else {}
        answer, headers = await self._call("POST", request.endpoint, request.body(), betas)
        request_id = headers.get("request-id", "")
        return Reply(answer, Facts.read(answer), request_id=request_id, read=lambda: answer)

    async def models(self) -> list[dict[str, Any]]:
        """Return the account's models, as `GET /v1/models` lists them.

        Raises:
            UpstreamFailure: no answer, or an error.
        """
        answer, _ = await self._call("GET", "/v1/models?limit=1000", None)
        return blocks_of(answer.get("data"))

    async def _call(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[dict[str, Any], dict[str, str]]:
        assert self._session is not None
        try:
            async with self._session.request(
                method,
                self.base_url + path,
                data=body,
                headers=more,
                allow_redirects=False,  # elsewhere the key is nobody's business
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UpstreamFailure(error, was_sent=not isinstance(error, _NEVER_SENT)) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            answer = msgspec.json.decode(content)
        except msgspec.DecodeError:
            answer = None
        if response.status >= _ERROR_FROM or not isinstance(answer, dict):
            cause = AnswerError(f"{response.status} {_said(answer) or response.reason}")
            status = response.status if response.status >= _ERROR_FROM else None
            raise UpstreamFailure(
                cause,
                status=status,
                headers=headers,
                request_id=headers.get("request-id"),
                message=_said(answer),
            )
        return answer, headers


def _said(answer: JSON) -> str:
    """Return the words of an error: Anthropic's shape, or a bare string as other servers give it."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else text_of(error, "message")


def _is_here(base_url: str) -> bool:
    """Tell whether a server runs on this machine, where no proxy of the environment can help."""
    try:
        host = urlsplit(base_url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
