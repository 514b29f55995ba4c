"""Where the ledger lives: one module per kind of store, one contract suite for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leastwise.ledger import Entry, Exchange
from leastwise.routing import Known
from leastwise.steps import Lease, Record, Settle

__all__ = ["GROUPS", "Line", "Query", "Store", "Story", "TypeLine"]

#: What sums can be grouped by.
GROUPS = ("asked", "day", "hour", "key", "mode", "result", "served", "tag", "tenant", "tier")


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the ledger knows of one request."""

    exchange: Exchange
    entries: tuple[Entry, ...]


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
    `could_move` those observed that routing would have moved, worth `could_nusd`.
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
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class TypeLine:
    """Answered requests of one type of task that one tier served, and what was spent on them."""

    task_type: str
    tier: str
    calls: int
    spent_nusd: int


class Store(Protocol):
    """A ledger store. Every method is safe from any thread, and after a fork in the child."""

    def known(
        self,
        tag: str,
        tool_use_ids: Sequence[str],
        now: float,
        *,
        tenant: str = "local",
        session: str = "",
        ask_key: str = "",
    ) -> Known:
        """Return what routing needs: pins of these tool calls, the tag's usual model, token ratios, caches.

        Args:
            tag: The task's, or "".
            tool_use_ids: The calls that the request answers.
            now: Seconds since the epoch.
            tenant: Whose session.
            session: Whose prompt caches are wanted; "" for none.
            ask_key: The ask of which a small model's word is wanted; "" for none.
        """

    def lease(self, lease: Lease) -> None:
        """Reserve before sending; with no budget there is nothing to reserve and nothing to write."""

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write now, all or none; when somebody else is writing and `may_wait` is false, soon."""

    def post(self, step: Settle | Record) -> None:
        """Write soon; never blocks, and may be called by the garbage collector."""

    def flush(self) -> None:
        """Return once everything posted so far is written."""

    def find(self, any_id: str) -> Story | None:
        """Return the request with this exchange id, `msg_...` or `request-id`."""

    def sums(self, query: Query) -> list[Line]:
        """Return sums by group, from the hourly roll-ups."""

    def latencies(self, query: Query) -> dict[tuple[str, ...], tuple[float, float]]:
        """Return p50 and p95 seconds by group, from the requests still kept."""

    def types(self) -> list[TypeLine]:
        """Return calls and money by type of task and tier, from the requests still kept."""

    def misfits(self, since: float) -> dict[tuple[str, str], int]:
        """Return how many requests were refused although they were taken to fit, by model and member."""

    def close(self) -> None:
        """Write what is posted and close."""
