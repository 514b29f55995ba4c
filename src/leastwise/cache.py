"""The cache: an identical request costs nothing. What identical means, and what may be kept.

The key is made of everything that the answer depends on and the caller chose: tenant, server, endpoint,
API version, betas, the model *asked* for, our own inputs, the policy in force, and the body's
top-level members by name, each with its bytes as they were received. Nothing inside a value is
normalised: a false miss costs cents, a false hit costs trust. Because the policy is in the key and
only what the policy itself would answer is kept, the look-up may stand before routing.

Kept are whole answers only: no error, no truncation, no refusal, nothing of a tool loop, nothing that
a budget made cheaper or that we answered in an escape. What is asked of other servers as well, or in a
container that remembers, is done anew each time. A streamed answer is kept as its events, apart
from one that came whole.

Values and policy only: who keeps the answers is `stores`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from leastwise.ladder import Task
from leastwise.messages import Facts, Request

_WHOLE: Final = frozenset({"end_turn", "stop_sequence"})
_SPACE: Final = re.compile(r"\s+")
#: What a task says that changes its answer; not whose session it is. Who is unsure goes to the baseline, so
#: what that is told to be counts, too.
_INPUTS: Final = (
    "description",
    "complexity",
    "tier",
    "tag",
    "output_tokens",
    "has_code",
    "has_tools",
    "route",
    "critical",
    "instead_of",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer as it is kept, and where it came from.

    Attributes:
        body: Its bytes: a JSON message, or a stream's events.
        is_stream: Which of the two.
        model: The model that was called.
        tier: Its tier, or "".
        upstream: Who served it.
        exchange: The request that paid for it.
        request_id: The upstream's `request-id`, or "".
        tag: The tag of that request.
        at: When it was kept, seconds since the epoch.
        hits: How often it was given again.
    """

    body: bytes
    is_stream: bool
    model: str
    tier: str
    upstream: str
    exchange: str
    request_id: str
    tag: str
    at: float
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up gave: an answer; or nothing, and whether this caller is the one to ask for it.

    Where `is_leading` is false and nothing is stored, another caller is asking for the same just now.
    """

    stored: Stored | None = None
    is_leading: bool = False


@dataclass(frozen=True, slots=True)
class Caching:
    """What one request does with the cache.

    Attributes:
        key: Under which its answer is kept; "" for a request that has nothing to do with the cache.
        reads: Whether it may be answered from there.
        keeps: Whether its answer may be kept.
        mode: The mode that the request is in.
    """

    key: str = ""
    reads: bool = False
    keeps: bool = False
    mode: Literal["auto", "observe", "enforce", "off"] = "auto"


NO_CACHE: Final = Caching()

#: Members of a request that has more done than an answer given: it may not be left undone.
ACTING: Final = frozenset({"mcp_servers", "container"})


def key_of(
    request: Request,
    task: Task,
    *,
    tenant: str,
    origin: str = "",
    policy_hash: str,
    headers: Mapping[str, str],
    named: Sequence[str] = (),
) -> str:
    """Return the 64 hexadecimal digits under which an answer to this request is kept.

    Args:
        request: As received.
        task: What the caller told of it.
        tenant: Whose request.
        origin: The server that the caller names, and with whose key.
        policy_hash: Names everything configured that the answer depends on.
        headers: The caller's headers, names in lower case.
        named: Those of them that rules look at.
    """
    digest = sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8))
        digest.update(part)

    told = [repr(getattr(task, name)) for name in _INPUTS]
    told += [repr(headers.get(name)) for name in named]
    parts = (tenant, origin, request.endpoint, request.version, policy_hash, *request.betas, "", *told)
    for part in parts:
        add(part.encode("utf-8", "surrogatepass"))
    for name in sorted(request.names):
        add(name.encode("utf-8", "surrogatepass"))
        add(request.raw(name))
    return digest.hexdigest()


def may_keep(facts: Facts, *, in_loop: bool) -> bool:
    """Tell whether an answer is one that may be given again: whole, and no part of a tool loop."""
    return facts.is_complete and facts.stop_reason in _WHOLE and not facts.tool_use_ids and not in_loop


def normalised(text: str) -> str:
    r"""Return text for the key of a classification: NFKC, runs of white space as one space, none at the ends.

    >>> normalised(" Win\u00a0 \uff04100 ")
    'Win $100'
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip()
