"""What the core asks of its driver: small frozen values, yielded one by one.

The generators of `exchange` and `attempt` do no I/O. They yield a step and are
sent its answer; a failed upstream call enters by `throw`. The sync and the async
driver (`client`) carry out the same steps. Nothing in a `finally` may yield: when
the caller leaves, the driver calls the last `Lease`'s `on_abandon`, which needs
no driver, and hands what it returns to the ledger's outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from leastwise.errors import UpstreamFailure
from leastwise.ledger import Entry, Exchange, Measured
from leastwise.messages import Facts, Reply, Request
from leastwise.routing import Known, Warmth

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Load:
    """Answer what the ledger knows that routing needs, as a `Known`.

    `session` is "" where no prompt cache is marked: then none is read, whatever the session had.
    `ask_key` is "" where no small model is asked: then no word of one is looked up.
    """

    tag: str
    tool_use_ids: tuple[str, ...]
    tenant: str = "local"
    session: str = ""
    ask_key: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Reserve `worst_nusd` under this id before the attempt is sent.

    `on_abandon` is registered first: it builds what to write when the caller leaves
    before `Record`, from the facts seen until then.
    """

    entry_id: str
    exchange_id: str
    worst_nusd: int
    on_abandon: Callable[[Facts], tuple[Settle, Record]]


@dataclass(frozen=True, slots=True)
class Send:
    """Send `request` to the named upstream; answered by a `Reply`, or throws `UpstreamFailure`.

    `is_own` tells a request of ours (a classifier's) from the caller's: it goes out whole and
    plain, with none of the caller's settings, and is answered by the decoded message.
    """

    entry_id: str
    upstream: str
    request: Request
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Relay:
    """Hand the live reply to the caller; answered by `Relayed` when its last byte has passed."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Relayed:
    """How a live reply ended: what the tap counted, and the failure that cut it short, if any."""

    facts: Facts
    failure: UpstreamFailure | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """Close the lease of this id and write its entry, in one step; twice is as good as once."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Record:
    """Write the request's row, remember which model made these tool calls, learn the token ratio.

    `made_by` is the model as it was asked for, which is how it must be asked for again. `warmth` is
    this call's: its turn and output are added to those of the row's session on that model.
    `opinion` is what a small model was just paid to say of the ask of that key.
    """

    exchange: Exchange
    tool_use_ids: tuple[str, ...] = ()
    made_by: str = ""
    measured: Measured | None = None
    warmth: Warmth | None = None
    ask_key: str = ""
    opinion: str = ""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this long, in seconds, before the next attempt."""

    seconds: float


Step = Load | Lease | Send | Relay | Settle | Record | Sleep
Steps = Generator[Step, object, T]


def load(tag: str, tool_use_ids: tuple[str, ...], tenant: str, session: str, ask_key: str) -> Steps[Known]:
    """Yield `Load` and return its typed answer."""
    known = yield Load(tag, tool_use_ids, tenant, session, ask_key)
    assert isinstance(known, Known)
    return known


def send(entry_id: str, upstream: str, request: Request, *, is_own: bool = False) -> Steps[Reply]:
    """Yield `Send` and return its typed answer."""
    reply = yield Send(entry_id, upstream, request, is_own)
    assert isinstance(reply, Reply)
    return reply


def relay(reply: Reply) -> Steps[Relayed]:
    """Yield `Relay` and return its typed answer."""
    relayed = yield Relay(reply)
    assert isinstance(relayed, Relayed)
    return relayed
