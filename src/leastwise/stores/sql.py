"""A `Store` in SQL: the ledger with its budgets, on whatever `Database` it is given.

A row, its roll-up and its part in budgets are one transaction. Writers try at once; where somebody else
is writing and the caller must not wait (an event loop, the garbage collector), the row goes to an outbox
that one thread empties, many rows to a transaction.
"""

from __future__ import annotations

import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from leastwise.budget import Account, Raise, Refusal, Standing
from leastwise.cascade import NO_EVIDENCE, Calibration, Evidence, Trial
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.errors import StoreError
from leastwise.ledger import Entry, Feedback, Reserved, StepDown
from leastwise.routing import Known
from leastwise.sqlite import BusyError, StuckError, at_fork
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import (
    Line,
    Query,
    Scored,
    Story,
    TypeLine,
    WindowLine,
    accounts,
    evidence,
    reading,
    trials,
    writing,
)
from leastwise.stores.database import Connection, Database, Dialect
from leastwise.stores.group import Group
from leastwise.stores.outbox import Outbox
from leastwise.stores.recent import Recent
from leastwise.stores.writing import Batch

_DAY_S: Final = 86_400
_BEAT_S: Final = 5.0  # a lease says anew that its owner lives when nobody did for so long
_PRUNE_EVERY_S: Final = 60.0
_PRUNE_ROWS: Final = 1000
_CHECKPOINT_EVERY: Final = 500  # writes: 3 to 11 MB of SQLite's log, as they come together or alone
_PIN_DAYS: Final = 2
_OPINION_DAYS: Final = _PIN_DAYS + 28
_WINDOW_DAYS: Final = 62  # longer than any window: what was charged to one goes before it does
_OWNER_DAYS: Final = 1


class SqlStore:
    """A `Store` over a database.

    Args:
        database: Where the tables are.
        dialect: How it says what others say differently.
        keep_days: Requests older than this are deleted; roll-ups stay.
        keeps_budgets: False where budgets are kept elsewhere: then charges are written, accounts are not.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        dialect: Dialect,
        *,
        keep_days: int = 400,
        keeps_budgets: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.is_near = database.is_near
        self._dialect = dialect
        self._keep_s = keep_days * _DAY_S
        self._clock = clock
        self._written = 0
        self._pruned_at = 0.0
        self._recent = Recent()
        self._begin()
        self._group = Group(database, keeps_budgets=keeps_budgets)
        self._outbox = Outbox(database, self._group)
        self.do_joined = self._outbox.do_joined
        at_fork(after_in_child=self._begin)
        weakref.finalize(self, self._outbox.close)

    def _begin(self) -> None:
        """Be an owner of leases that nobody was before: this process."""
        self._owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._beaten_at = 0.0

    # --- routing -------------------------------------------------------------------------------------------

    def known(self, wanted: Load, now: float) -> Known:
        """Return what routing needs; facts that change slowly come from memory for a second."""
        self._outbox.start()
        database, recent = self.database, self._recent
        tag, tenant, session, talk = wanted.tag, wanted.tenant, wanted.session, wanted.talk
        pins = recent.pins(wanted.tool_use_ids)
        missing = [id_ for id_ in wanted.tool_use_ids if id_ not in pins]
        if missing:
            pins |= reading.pins(database, missing)
        floor_at, floor = (
            recent.floor(tenant, talk, evidence.floor(database, tenant, talk)) if talk else (0.0, "")
        )
        return Known(
            pins=pins,
            baseline=recent.fact(f"baseline {tag}", now, lambda: reading.usual_model(database, tag, now))
            if tag
            else None,
            corrections=recent.fact("ratios", now, lambda: reading.corrections(database)),
            opinion=reading.opinion(database, wanted.ask_key) if wanted.ask_key else "",
            warmths=recent.warmths(tenant, session, reading.warmths(database, tenant, session))
            if session
            else {},
            standings=self.standings(wanted.accounts) if wanted.accounts else {},
            raised=recent.raised(now, self.raises) if wanted.accounts else {},
            evidence=self._evidence(wanted.checks, tag, now),
            floor=floor,
            floor_at=floor_at,
        )

    def _evidence(self, checks: str, tag: str, now: float) -> Evidence:
        """Return how checks and trials went; of what the last second was asked for, what it was."""
        if not checks and not tag:
            return NO_EVIDENCE
        database, recent = self.database, self._recent
        tried = recent.fact("trials", now, lambda: evidence.trials(database))
        if not checks:
            return Evidence(trials=tried)
        return Evidence(
            recent.fact(f"rungs {checks}", now, lambda: evidence.rungs(database, checks)),
            recent.fact("calibrations", now, lambda: evidence.calibrations(database)),
            tried,
            recent.fact("controls", now, lambda: evidence.controls(database)),
        )

    # --- budgets -------------------------------------------------------------------------------------------

    def standings(self, accounts_: Sequence[Account]) -> dict[str, Standing]:
        """Return how the windows of these accounts stand, by account; without those nothing is known of."""
        return accounts.standings(self.database, accounts_)

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        """Reserve in every claim's account, or in none and say why; committed before it returns.

        Raises:
            BusyError: `may_wait` is false and somebody else is writing.
            StoreError: the database failed.
        """
        if not lease.claims:
            return None
        now = self._clock()
        is_due = not 0 <= now - self._beaten_at < _BEAT_S
        beat = partial(accounts.beat, dialect=self._dialect, owner=self._owner, now=now) if is_due else None
        job = partial(_lease, lease, self._owner, beat)
        refusal = self._group.do(job, locks=accounts.names_of(lease), may_wait=may_wait)
        if is_due and refusal is None:
            self._beaten_at = now
        return refusal

    @property
    def can_join(self) -> bool:
        """Whether leases may join: not while it is to be said that their owner lives."""
        return 0 <= self._clock() - self._beaten_at < _BEAT_S

    def join_lease(
        self,
        lease: Lease,
        then: Callable[[Refusal | None, Exception | None], None],
        again: Callable[[], None],
    ) -> None:
        """Reserve as `lease` does, with what others join."""
        job = partial(_lease, lease, self._owner, None)
        self._group.join(job, then, again, accounts.names_of(lease))

    def join_write(self, steps: Sequence[Settle | Record], again: Callable[[], None]) -> None:
        """Write as `write` does, with what others join."""
        self._note(steps)
        self._group.join(partial(_apply, steps), partial(_post_if_failed, self._outbox, steps), again)

    def settle(self, *entries: Entry) -> None:
        """Close these leases and charge what the entries cost; twice is as good as once."""
        self.write(*map(Settle, entries), may_wait=True)

    def reserved(self) -> list[Reserved]:
        """Return every lease that is open, with its owner, oldest first."""
        self.flush()
        return accounts.reserved(self.database)

    def beat(self) -> None:
        """Say that this process lives."""
        now = self._clock()
        with self.database.transaction() as connection:
            accounts.beat(connection, self._dialect, self._owner, now)
        self._beaten_at = now

    def dead(self) -> list[Reserved]:
        """Return the leases of other owners that have been silent for too long."""
        return accounts.dead(self.database, self._dialect, self._owner, self._clock())

    def windows(self, *, since: str = "") -> list[WindowLine]:
        """Return every account's windows with that key or a later one, by account and time."""
        self.flush()
        return accounts.windows(self.database, since)

    def correct(self, account: str, window_key: str, by_nusd: int) -> None:
        """Add to what a window's account has spent."""
        with self.database.transaction() as connection:
            accounts.correct(connection, account, window_key, by_nusd)

    def first_to(self, account: str, window_key: str, what: str) -> bool:
        """Tell whether nobody said `what` of that window before."""
        with self.database.transaction() as connection:
            return accounts.first_to(connection, account, window_key, what)

    def add_raise(self, raised: Raise) -> None:
        """Give a budget more money until a time."""
        with self.database.transaction() as connection:
            accounts.add_raise(connection, raised)
        self._recent.forget_raises()

    def raises(self) -> list[Raise]:
        """Return all that was ever given, oldest first."""
        return accounts.raises(self.database)

    # --- writing -------------------------------------------------------------------------------------------

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        """Write `steps` in one transaction, or post them where that takes time and we may not wait.

        Raises:
            StoreError: they cannot be written together; each is tried again by itself, soon.
        """
        self._note(steps)
        if may_wait or self.is_near:
            self._write(steps, may_wait=may_wait)
        else:
            self._post(steps)

    def _note(self, steps: Sequence[Settle | Record]) -> None:
        """Remember what is asked for again soon, and have the house kept."""
        self._outbox.start()
        for step in steps:
            if isinstance(step, Record):
                self._recent.add(step)
        self._prune()
        self._written += 1
        if self._written % _CHECKPOINT_EVERY == 0:
            self._outbox.checkpoint()

    def _prune(self) -> None:
        """Post the removal of what is past its time, now and then."""
        now = self._clock()
        if now - self._pruned_at >= _PRUNE_EVERY_S:
            self._pruned_at = now
            self._outbox.put(partial(_prune, now, self._keep_s))

    def _write(self, steps: Sequence[Settle | Record], *, may_wait: bool) -> None:
        try:
            self._group.do(partial(_apply, steps), may_wait=may_wait)
        except BusyError:
            self._post(steps)
        except StoreError as error:
            # What cannot be written now will be; what never can must not keep a settlement from its lease.
            if isinstance(error, StuckError) or len(steps) > 1:
                self._post(steps)
            raise

    def _post(self, steps: Iterable[Settle | Record]) -> None:
        for step in steps:
            self.post(step)

    def post(self, step: Settle | Record) -> None:
        """Write `step` soon."""
        self._outbox.put(partial(_apply, (step,)))

    def flush(self) -> None:
        """Return once everything posted so far is written, or found not to be writable and logged.

        Raises:
            StoreError: another process keeps the file locked.
        """
        self._outbox.flush()

    def close(self) -> None:
        """Write what is posted, stop the writer, close the file; open leases stay."""
        self._outbox.close()

    # --- quality -------------------------------------------------------------------------------------------

    def add_feedback(self, *feedback: Feedback) -> None:
        """Keep what was said of answers, and have the evidence follow; all of it or none.

        Raises:
            StoreError: it is of a request that the ledger does not have, or cannot be stored.
        """
        self.flush()
        with self.database.transaction() as connection:
            try:
                evidence.add_feedback(connection, feedback)
            except (OverflowError, UnicodeEncodeError) as error:
                raise writing.unfit(error) from error

    def put_calibration(self, calibration: Calibration, at: float) -> None:
        """Keep a calibration, replacing the one of its stamp and type."""
        with self.database.transaction() as connection:
            evidence.put_calibration(connection, calibration, at)

    def put_trial(self, trial: Trial) -> None:
        """Keep a trial."""
        with self.database.transaction() as connection:
            evidence.put_trial(connection, trial)

    def begin_trial(self, trial: OpenTrial) -> bool:
        """Open a trial; false where one of its tag is open already."""
        with self.database.transaction() as connection:
            return trials.begin(connection, trial)

    def add_pairs(self, trial_id: str, pairs: Pairs) -> list[Pairs]:
        """Add to a trial and return its sums, most pairs first; none where it is over."""
        with self.database.transaction() as connection:
            return trials.add(connection, trial_id, pairs)

    def end_trial(self, trial_id: str, conclude: Callable[[list[Pairs]], Trial | None]) -> Trial | None:
        """Close a trial and keep what it shows; None where that is nothing, or it was closed before."""
        with self.database.transaction() as connection:
            return trials.end(connection, trial_id, conclude)

    def open_trials(self) -> list[OpenTrial]:
        """Return the trials under way, oldest first."""
        return trials.open_trials(self.database)

    def pairs_of(self, trial_id: str) -> list[Pairs]:
        """Return a trial's sums so far, most pairs first; none where it is over."""
        return trials.pairs_of(self.database, trial_id)

    # --- reading -------------------------------------------------------------------------------------------

    def find(self, any_id: str) -> Story | None:
        """Return the request with this exchange id, `msg_...` or `request-id`."""
        self.flush()
        return reading.find(self.database, any_id)

    def entry(self, id_: str) -> Entry | None:
        """Return the attempt with this id, whether or not its request's own row is written."""
        self.flush()
        return reading.entry(self.database, id_)

    def sums(self, query: Query) -> list[Line]:
        """Return sums by group, dearest baseline first."""
        self.flush()
        return reading.sums(self.database, self._dialect, query)

    def latencies(self, query: Query) -> dict[tuple[str, ...], tuple[float, float]]:
        """Return p50 and p95 seconds by group, of answered requests."""
        self.flush()
        return reading.latencies(self.database, self._dialect, query)

    def types(self) -> list[TypeLine]:
        """Return calls, money and quality by type of task and tier, from the requests still kept."""
        self.flush()
        return reading.types(self.database)

    def evidence(self, checks: str) -> Evidence:
        """Return how these checks went lately, with every calibration and the last trials."""
        self.flush()
        return evidence.read(self.database, checks)

    def scored(self, *, since: float = 0.0) -> list[Scored]:
        """Return every verdict with a score since then, oldest first."""
        self.flush()
        return evidence.scored(self.database, since)

    def misfits(self, since: float) -> dict[tuple[str, str], int]:
        """Return how many requests were refused although they were taken to fit, by model and member."""
        self.flush()
        return reading.misfits(self.database, since)

    def charged(self, *, since: float | None = None) -> dict[tuple[str, str], int]:
        """Return what the charges add up to, by account and window key; of entries since then, if given."""
        self.flush()
        return reading.charged(self.database, since)

    def lost(self) -> list[Entry]:
        """Return entries whose cost nobody knows, for their process died; oldest first."""
        self.flush()
        return reading.lost(self.database)

    def step_downs(self, limit: int = 100) -> list[tuple[float, str, StepDown]]:
        """Return when, in which request and how budgets made requests cheaper; the newest first."""
        self.flush()
        return reading.step_downs(self.database, limit)

    def entries_of(self, account: str, since: float) -> list[Entry]:
        """Return the entries that this account paid for since then, oldest first."""
        self.flush()
        return reading.entries_of(self.database, account, since)


def _lease(
    lease: Lease, owner: str, beat: Callable[[Connection], None] | None, steps: Batch
) -> Refusal | None:
    """Reserve; where it is time to, say that the owner lives."""
    refusal = steps.lease(lease, owner)
    if refusal is None and beat is not None:
        beat(steps.connection)
    return refusal


def _post_if_failed(
    outbox: Outbox, steps: Sequence[Settle | Record], _: None, error: Exception | None
) -> None:
    """Have each step tried again by itself where they could not be written together."""
    if error is not None:
        for step in steps:
            outbox.put(partial(_apply, (step,)))


def _apply(steps: Sequence[Settle | Record], batch: Batch) -> None:
    for step in steps:
        batch.apply(step)


def _prune(now: float, keep_s: float, steps: Batch) -> None:
    """Delete what is past its time, a bounded number of rows."""
    steps.write_charges()  # those put off, too, go with their entries
    kept = now - keep_s
    writing.prune(steps.connection, kept, now - _PIN_DAYS * _DAY_S, now - _OPINION_DAYS * _DAY_S, _PRUNE_ROWS)
    windows_before = datetime.fromtimestamp(max(0.0, kept - _WINDOW_DAYS * _DAY_S), UTC)
    key = windows_before.strftime("%Y-%m-%dT%H:%MZ")
    accounts.prune(steps.connection, key, now - _OWNER_DAYS * _DAY_S, _PRUNE_ROWS)
