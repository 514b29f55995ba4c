"""Where ledger, budgets and cache live: one module per kind of store, one contract suite per protocol.

One `Store` keeps the ledger and, in the same transactions, the budgets; where budgets are kept elsewhere
(`BudgetStore`), `Split` puts the two together. `CacheStore` keeps answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from leastwise.budget import Account, Raise, Refusal, Standing
from leastwise.cache import Found, Stored
from leastwise.cascade import Calibration, Evidence, Trial
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.ladder import Verdict
from leastwise.ledger import Entry, Exchange, Feedback, Reserved, StepDown
from leastwise.routing import Known
from leastwise.steps import Lease, Load, Record, Settle

__all__ = [
    "GROUPS",
    "BudgetStore",
    "CacheStats",
    "CacheStore",
    "Line",
    "Query",
    "Scored",
    "Store",
    "Story",
    "TypeLine",
    "WindowLine",
    "recover",
]

#: What sums can be grouped by.
GROUPS = ("asked", "day", "hour", "key", "mode", "result", "served", "tag", "tenant", "tier")


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the ledger knows of one request."""

    exchange: Exchange
    entries: tuple[Entry, ...]
    verdicts: tuple[Verdict, ...] = ()
    feedback: tuple[Feedback, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Which hours of the ledger to sum, and by what.

    Attributes:
        since: First second, since the epoch; None for the beginning. Sums count whole hours that begin
            from then on.
        until: First second no longer counted; None for now.
        by: Names among `GROUPS`.
        tag: Only this tag, when given.

    Raises:
        ValueError: `by` names something else.
    """

    since: float | None = None
    until: float | None = None
    by: tuple[str, ...] = ()
    tag: str | None = None

    def __post_init__(self) -> None:
        """Refuse to group by what is unknown."""
        for name in self.by:
            if name not in GROUPS:
                message = f"cannot group by {name!r}; expected one of {', '.join(GROUPS)}"
                raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Line:
    """Sums over one group of requests; `group` has the values of `Query.by`, in order.

    `calls` counts requests, `moved` those answered by another model than the baseline,
    `could_move` those observed that routing would have moved, worth `could_nusd`. `cache_hits` and
    `cache_misses` count look-ups of kept answers, `cache_nusd` is what the hits saved.
    """

    group: tuple[str, ...]
    calls: int
    moved: int
    could_move: int
    failed: int
    estimated: int
    faults: int
    spent_nusd: int
    baseline_nusd: int
    saved_nusd: int
    could_nusd: int
    discarded_nusd: int
    lost_cache_nusd: int
    checks_nusd: int
    assumed_nusd: int
    cache_hits: int
    cache_misses: int
    cache_nusd: int
    input_tokens: int
    output_tokens: int
    checked: int = 0
    escalated: int = 0


@dataclass(frozen=True, slots=True)
class TypeLine:
    """Answered requests of one type of task that one tier served, and what was spent on them.

    `checked` counts its answers, served or not, that are in the evidence of checks (so not what a tier is
    not to blame for), `accepted` those that the checks accepted; `told` those of which somebody who knows
    has spoken, `told_ok` those found acceptable.
    """

    task_type: str
    tier: str
    calls: int
    spent_nusd: int
    checked: int = 0
    accepted: int = 0
    told: int = 0
    told_ok: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """One verdict with a score, and whether that answer was acceptable, where anybody said so.

    `verdict.tier` is whose answer it was. `ok` is None where nobody who knows has spoken; a planted answer
    (`verdict.is_control`) is never acceptable.
    """

    exchange_id: str
    at: float
    tag: str
    task_type: str
    verdict: Verdict
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class WindowLine:
    """One account's window as it is kept: a calendar window, or one slice of a rolling one."""

    account: str
    window_key: str
    standing: Standing


class BudgetStore(Protocol):
    """Keeps accounts exactly. Every method is safe from any thread, and after a fork in the child.

    A lease is granted in all of its accounts or in none, and then holds until it is settled or its owner
    is found dead. The owner is this process; it says every few seconds that it lives (`beat`).

    Attributes:
        is_near: Whether a call takes microseconds, so that an event loop may wait for it.
    """

    is_near: bool

    def standings(self, accounts: Sequence[Account]) -> dict[str, Standing]:
        """Return how the windows of these accounts stand, by account; none for what nothing is known of.

        Spent and calls are summed from a window's `first` key to its `key`.
        """

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        """Reserve in every claim's account, or in none and say why.

        The first claim, by account, that does not fit is refused: spent and reserved from the window's
        `first` key to its `key`, and this lease, may not exceed the claim's limit. A lease that was
        settled already is void: granted, and nothing is held for it.

        Raises:
            BusyError: `may_wait` is false and the store is busy for now.
            StoreError: the store cannot be asked.
        """

    def settle(self, *entries: Entry) -> None:
        """Close these leases and charge what the entries cost; twice is as good as once.

        An entry of a lease that was lost meanwhile corrects what was charged for it; a lost one never
        overrides what is known. What was never leased is charged all the same.

        Raises:
            StoreError: the store cannot be asked; nothing was lost, settle again.
        """

    def reserved(self) -> list[Reserved]:
        """Return every lease that is open, with its owner, oldest first."""

    def beat(self) -> None:
        """Say that this process lives."""

    def dead(self) -> list[Reserved]:
        """Return the leases of owners that have been silent for too long, by the store's own clock."""

    def windows(self, *, since: str = "") -> list[WindowLine]:
        """Return every account's windows with that key or a later one, by account and time."""

    def correct(self, account: str, window_key: str, by_nusd: int) -> None:
        """Add to what a window's account has spent; below zero to take away."""

    def first_to(self, account: str, window_key: str, what: str) -> bool:
        """Tell whether nobody said `what` of that window before: then the caller is to say it."""

    def add_raise(self, raised: Raise) -> None:
        """Give a budget more money until a time."""

    def raises(self) -> list[Raise]:
        """Return all that was ever given, oldest first."""

    def close(self) -> None:
        """Write what is waiting and close."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds: how many answers, their bytes, and how often they were given again."""

    entries: int
    size_bytes: int
    hits: int


class CacheStore(Protocol):
    """Keeps answers. Every method is safe from any thread, and after a fork in the child.

    Attributes:
        is_near: Whether a call takes microseconds, so that an event loop may wait for it.
    """

    is_near: bool

    def look_up(self, key: str, *, leads: bool) -> Found:
        """Return the answer under `key` if it is fresh; else, with `leads`, whether this caller is to ask.

        Who leads holds the key until `save` or `land`; when its process dies, or holds it for longer
        than any call takes, the next to look leads. A hit is counted.
        """

    def save(self, key: str, stored: Stored) -> None:
        """Keep an answer, replacing what was there, and end the lead; evict what is over the size."""

    def land(self, key: str, *, frees: bool = False) -> None:
        """End the lead without an answer: the next to look leads. Blocks nowhere.

        With `frees` everybody who looks within the next minute leads: there is an answer, but none to keep,
        so that to wait for each other would gain nothing.
        """

    def entries(self, *, tag: str | None = None, limit: int = 100) -> list[tuple[str, Stored]]:
        """Return kept answers with their keys, last used first; only of a tag, when given."""

    def get(self, key: str) -> Stored | None:
        """Return the one answer whose key begins so, fresh or not, else None; counts no hit."""

    def stats(self) -> CacheStats:
        """Return what is kept."""

    def clear(self, *, tag: str | None = None) -> int:
        """Forget all answers, or those of a tag; return how many."""

    def prune(self) -> int:
        """Forget what is past its time or over the size; return how many."""

    def close(self) -> None:
        """Write what is waiting and close."""


class Store(BudgetStore, Protocol):
    """A ledger with its budgets. Every method is safe from any thread, and after a fork in the child."""

    def known(self, wanted: Load, now: float) -> Known:
        """Return what routing needs, and what it is asked for."""

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write now, all or none; when somebody else is writing and `may_wait` is false, soon."""

    @property
    def can_join(self) -> bool:
        """Whether `join_lease` and `join_write` may be called now."""

    def join_lease(
        self,
        lease: Lease,
        then: Callable[[Refusal | None, Exception | None], None],
        again: Callable[[], None],
    ) -> None:
        """Reserve as `lease` does, in one transaction with all that joins until somebody says `do_joined`.

        Args:
            lease: What to reserve.
            then: Called with the answer or the error, once it is committed or failed, on any thread.
            again: Called on any thread, where something else was written first: say `do_joined` again.
        """

    def join_write(self, steps: Sequence[Settle | Record], again: Callable[[], None]) -> None:
        """Write as `write` does, with what else joins; `flush` and `close` write it, too."""

    def do_joined(self) -> None:
        """Do what has joined, on this thread or another; never waits for another writer."""

    def post(self, step: Settle | Record) -> None:
        """Write soon; never blocks, and may be called by the garbage collector."""

    def flush(self) -> None:
        """Return once everything posted so far is written."""

    def find(self, any_id: str) -> Story | None:
        """Return the request with this exchange id, `msg_...` or `request-id`."""

    def entry(self, id_: str) -> Entry | None:
        """Return the attempt with this id, whether or not its request's own row is written."""

    def sums(self, query: Query) -> list[Line]:
        """Return sums by group, from the hourly roll-ups."""

    def latencies(self, query: Query) -> dict[tuple[str, ...], tuple[float, float]]:
        """Return p50 and p95 seconds by group, from the requests still kept."""

    def types(self) -> list[TypeLine]:
        """Return calls, money and quality by type of task and tier, from the requests still kept."""

    def evidence(self, checks: str) -> Evidence:
        """Return how these checks went lately, with every calibration and each tag's and tier's last trial.

        "Lately": old counts fade, so that what a model did long ago does not weigh for ever.
        """

    def add_feedback(self, *feedback: Feedback) -> None:
        """Keep what was said of answers, the last word of each source on each answer.

        An answer that checks had accepted and that turns out bad no longer counts as accepted in their
        evidence; one found good that they had not accepted does. What has faded stays as it is. Feedback
        without a tier is kept under that of the answer served.

        Raises:
            StoreError: there is no such request, or its row is not written yet; nothing of this is kept.
        """

    def scored(self, *, since: float = 0.0) -> list[Scored]:
        """Return every verdict with a score since then, oldest first."""

    def put_calibration(self, calibration: Calibration, at: float) -> None:
        """Keep a calibration, replacing the one of its stamp and type."""

    def put_trial(self, trial: Trial) -> None:
        """Keep a trial."""

    def begin_trial(self, trial: OpenTrial) -> bool:
        """Open a trial, for every process to add to; false where one of its tag is open already."""

    def add_pairs(self, trial_id: str, pairs: Pairs) -> list[Pairs]:
        """Add to an open trial, at once; return its sums, most pairs first, none where it is over."""

    def end_trial(self, trial_id: str, conclude: Callable[[list[Pairs]], Trial | None]) -> Trial | None:
        """Close a trial and keep what it shows, together.

        Args:
            trial_id: Which.
            conclude: Returns what its sums show, None for nothing.

        Returns:
            What it shows; None where that is nothing, or somebody else has closed it before.
        """

    def open_trials(self) -> list[OpenTrial]:
        """Return the trials under way, oldest first."""

    def pairs_of(self, trial_id: str) -> list[Pairs]:
        """Return an open trial's sums so far, most pairs first."""

    def misfits(self, since: float) -> dict[tuple[str, str], int]:
        """Return how many requests were refused although they were taken to fit, by model and member."""

    def charged(self, *, since: float | None = None) -> dict[tuple[str, str], int]:
        """Return what the charges add up to, by account and window key; of entries since then, if given."""

    def lost(self) -> list[Entry]:
        """Return entries whose cost nobody knows, for their process died; oldest first."""

    def step_downs(self, limit: int = 100) -> list[tuple[float, str, StepDown]]:
        """Return when, in which request and how budgets made requests cheaper; the newest first."""

    def entries_of(self, account: str, since: float) -> list[Entry]:
        """Return the entries that this account paid for since then, oldest first."""


def recover(store: Store) -> list[Entry]:
    """Settle what dead processes had reserved, at the most it can have cost; return these entries.

    Whoever knows better later corrects them, by settling the same entry.
    """
    lost = [reserved.lost() for reserved in store.dead()]
    for entry in lost:
        store.write(Settle(entry), may_wait=True)
    return lost
