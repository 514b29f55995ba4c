"""What the core asks of its driver: small frozen values, yielded one by one.

The generators of `exchange` and `attempt` do no I/O. They yield a step and are
sent its answer; a failed upstream call enters by `throw`. The sync and the async
driver (`client`) carry out the same steps. Nothing in a `finally` may yield: when
the caller leaves, the driver calls the last `Lease`'s `on_abandon`, which needs
no driver, and hands what it returns to the ledger's outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from leastwise.budget import Account, Claim, Refusal
from leastwise.cache import Found, Stored
from leastwise.cascade import GateSays, Rung
from leastwise.errors import BudgetUnavailableError, UpstreamFailure
from leastwise.ladder import Verdict
from leastwise.ledger import Entry, Exchange, Measured, Reserved, StepDown
from leastwise.messages import Facts, Reply, Request
from leastwise.routing import Known, Warmth

T = TypeVar("T")

_NO_RUNGS: Final[Mapping[str, Rung]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Load:
    """Answer what the ledger knows that routing needs, as a `Known`.

    `session` is "" where no prompt cache is marked: then none is read, whatever the session had.
    `ask_key` is "" where no small model is asked: then no word of one is looked up. `checks` names the
    checks whose evidence is wanted, "" where nothing is checked; `talk` is the session whose floor is, ""
    for none.
    """

    tag: str = ""
    tool_use_ids: tuple[str, ...] = ()
    tenant: str = "local"
    session: str = ""
    ask_key: str = ""
    accounts: tuple[Account, ...] = ()
    checks: str = ""
    talk: str = ""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look for a kept answer under this key; answered by `Found`.

    Where nothing is kept, the first to look with `leads` does: it alone asks, until it saves, lands, or
    its exchange ends.
    """

    key: str
    leads: bool


@dataclass(frozen=True, slots=True)
class Land:
    """Give up the lead on this key: the answer is none to keep, so all who wait may ask for themselves."""

    key: str


@dataclass(frozen=True, slots=True)
class Save:
    """Keep an answer under this key; its body is made when it is kept."""

    key: str
    stored: Stored


@dataclass(frozen=True, slots=True)
class Lease:
    """Reserve the worst case of an attempt before it is sent: in all accounts, or in none.

    Answered by None when granted, else by a `Refusal`. Without claims there is nothing to reserve.
    `on_abandon` is registered first: it builds what to write when the caller leaves before `Record`,
    from the facts seen until then, None when the attempt was never sent.
    """

    reserved: Reserved
    claims: tuple[Claim, ...]
    on_abandon: Callable[[Facts | None], tuple[Settle | Record, ...]]


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
    """Hand the live reply to the caller; answered by `Relayed` when its last byte has passed.

    `is_kept` asks for all of its bytes, to be kept.
    """

    reply: Reply
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Relayed:
    """How a live reply ended: what the tap counted, the failure that cut it short, if any, and its bytes."""

    facts: Facts
    failure: UpstreamFailure | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hold:
    """Read a live reply without handing it on, until `gate` is content; answered by `Relayed`.

    The gate is given every chunk. It answers `wait`; `commit`, and the rest may be relayed (`Relay` the
    same reply next: what was read comes first); or `drop`, and the reply is closed. The answer's
    facts are those so far: complete where it ended first. Then the same reply can be relayed, too, or
    be the reply that an exchange ends with: the caller reads it as if it were live.
    """

    reply: Reply
    gate: Callable[[bytes], GateSays]


@dataclass(frozen=True, slots=True)
class Run:
    """Call a function of the user's that may take time, off the event loop; answered by what it returns.

    Where it raises, or is not done in time, answered by `RunFailed`; it may go on running.
    """

    call: Callable[[], Any]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class RunFailed:
    """Why there is no answer of a `Run`: what it raised, or None where it was not done in time."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """Close the lease of this id and write its entry, in one step; twice is as good as once."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Record:
    """Write the request's row, remember which model made these tool calls, learn the token ratio.

    `made_by` is the model as it was asked for, which is how it must be asked for again. `warmth` is
    this call's: its turn and output are added to those of the row's session on that model.
    `opinion` is what a small model was just paid to say of the ask of that key. `verdicts` are all that
    checks said, in order; `checks` names those checks, `rungs` is what each tier's answer adds to their
    evidence. `floor` is the tier that the row's session escalated to, "" where it did not.
    """

    exchange: Exchange
    tool_use_ids: tuple[str, ...] = ()
    made_by: str = ""
    measured: Measured | None = None
    warmth: Warmth | None = None
    ask_key: str = ""
    opinion: str = ""
    step_downs: tuple[StepDown, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    checks: str = ""
    rungs: Mapping[str, Rung] = field(default_factory=lambda: _NO_RUNGS)
    floor: str = ""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this long, in seconds, before the next attempt."""

    seconds: float


Step = Load | LookUp | Lease | Send | Hold | Relay | Run | Settle | Save | Land | Record | Sleep
Steps = Generator[Step, object, T]


def load(step: Load) -> Steps[Known]:
    """Yield `Load` and return its typed answer."""
    known = yield step
    assert isinstance(known, Known)
    return known


def look_up(key: str, *, leads: bool) -> Steps[Found]:
    """Yield `LookUp` and return its typed answer."""
    found = yield LookUp(key, leads)
    assert isinstance(found, Found)
    return found


def lease(step: Lease) -> Steps[Refusal | None]:
    """Yield `Lease` and return its typed answer.

    Raises:
        BudgetUnavailableError: a budget cannot be asked; it comes as the answer.
    """
    refusal = yield step
    if isinstance(refusal, BudgetUnavailableError):
        raise refusal
    assert refusal is None or isinstance(refusal, Refusal)
    return refusal


def send(entry_id: str, upstream: str, request: Request, *, is_own: bool = False) -> Steps[Reply]:
    """Yield `Send` and return its typed answer."""
    reply = yield Send(entry_id, upstream, request, is_own)
    assert isinstance(reply, Reply)
    return reply


def relay(reply: Reply, *, is_kept: bool = False) -> Steps[Relayed]:
    """Yield `Relay` and return its typed answer."""
    relayed = yield Relay(reply, is_kept)
    assert isinstance(relayed, Relayed)
    return relayed


def hold(reply: Reply, gate: Callable[[bytes], GateSays]) -> Steps[Relayed]:
    """Yield `Hold` and return its typed answer."""
    held = yield Hold(reply, gate)
    assert isinstance(held, Relayed)
    return held


def run(call: Callable[[], Any], timeout_s: float) -> Steps[object]:
    """Yield `Run` and return its answer."""
    return (yield Run(call, timeout_s))
