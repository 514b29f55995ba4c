"""Writing the ledger: what one transaction does for each step, in SQL.

A row, its roll-up and what it does to budgets are one transaction. Sums over many steps of one
transaction, in hours and accounts, are added up first and written once.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

from dataclasses import fields
from operator import add, attrgetter
from typing import Final

from leastwise.budget import Refusal
from leastwise.cascade import Rung
from leastwise.errors import StoreError
from leastwise.ledger import Charge, Entry, Exchange, StepDown, first_id
from leastwise.routing import Warmth
from leastwise.steps import Lease, Record, Settle
from leastwise.stores import Line, evidence
from leastwise.stores.accounts import Books
from leastwise.stores.database import Connection, insert

HOUR_S: Final = 3600

ENTRY_HEAD: Final = ("id", "exchange_id", "parent", "purpose", "provider", "model", "asked_at", "status")
USAGE_COLUMNS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_search_requests",
    "service_tier",
    "speed",
    "inference_geo",
)
ENTRY_TAIL: Final = ("price_row", "cost_nusd", "worst_nusd", "certainty", "message_id", "request_id")
ENTRY_COLUMNS: Final = (*ENTRY_HEAD, *USAGE_COLUMNS, *ENTRY_TAIL)
CHARGE_COLUMNS: Final = ("entry_id", "budget_id", "window_key", "nusd")
EXCHANGE_COLUMNS: Final = tuple(field.name for field in fields(Exchange))
SUMS: Final = tuple(field.name for field in fields(Line) if field.name != "group")
HOUR_KEY: Final = ("hour", "tenant", "key", "tag", "mode", "asked", "served", "tier", "result")
WARMTH_COLUMNS: Final = tuple(field.name for field in fields(Warmth))
STEP_DOWN_COLUMNS: Final = ("at", "exchange_id", *(field.name for field in fields(StepDown)))

_MONEY: Final = frozenset({"spent_nusd", "saved_nusd", "discarded_nusd", "checks_nusd"})

_exchange_values: Final = attrgetter(*EXCHANGE_COLUMNS)
_entry_values: Final = attrgetter(*ENTRY_HEAD, *(f"usage.{name}" for name in USAGE_COLUMNS), *ENTRY_TAIL)
_hour_key: Final = attrgetter(*HOUR_KEY[1:])
_warmth_values: Final = attrgetter(*WARMTH_COLUMNS)
_step_down_values: Final = attrgetter(*STEP_DOWN_COLUMNS[2:])


# Not "OR IGNORE", which would leave out a row with a missing value, too, without a word.
_INSERT_EXCHANGE: Final = f"{insert('exchange', EXCHANGE_COLUMNS)} ON CONFLICT (id) DO NOTHING"
_INSERT_ENTRY: Final = f"{insert('entry', ENTRY_COLUMNS)} ON CONFLICT (id) DO NOTHING"
_INSERT_CHARGE: Final = insert("charge", CHARGE_COLUMNS)
_INSERT_STEP_DOWN: Final = insert("step_down", STEP_DOWN_COLUMNS)
_UPSERT_HOUR: Final = (
    f"{insert('hourly', (*HOUR_KEY, *SUMS))} ON CONFLICT ({', '.join(HOUR_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = hourly.{name} + excluded.{name}" for name in SUMS)
)
_UPSERT_WARMTH: Final = (
    f"{insert('warmth', ('tenant', 'session', *WARMTH_COLUMNS))} "
    "ON CONFLICT (tenant, session, model) DO UPDATE SET "
    + "".join(
        f"{name} = CASE WHEN excluded.at < warmth.at THEN warmth.{name} ELSE excluded.{name} END, "
        for name in ("at", "prefix_tokens", "hour_tokens")
    )
    + "output_tokens = warmth.output_tokens + excluded.output_tokens, turns = warmth.turns + excluded.turns"
)
_UPSERT_PIN: Final = (
    f"{insert('pin', ('tool_use_id', 'model', 'at'))} "
    "ON CONFLICT (tool_use_id) DO UPDATE SET model = excluded.model, at = excluded.at"
)
_UPSERT_OPINION: Final = (
    f"{insert('opinion', ('ask_key', 'kind', 'at'))} "
    "ON CONFLICT (ask_key) DO UPDATE SET kind = excluded.kind, at = excluded.at"
)
_UPSERT_RATIO: Final = (
    f"{insert('ratio', ('tokenizer', 'estimated', 'actual'))} ON CONFLICT (tokenizer) DO UPDATE SET "
    "estimated = ratio.estimated + excluded.estimated, actual = ratio.actual + excluded.actual"
)

#: What the charges of entries that go add up to stays, by budget and window, as charges of no entry.
_CARRY: Final = (
    f"{insert('charge', CHARGE_COLUMNS).partition('VALUES')[0]}"
    "SELECT '', budget_id, window_key, CAST(SUM(nusd) AS BIGINT) FROM charge "
    "WHERE entry_id > '' AND entry_id <= ? GROUP BY budget_id, window_key "
    "ON CONFLICT (entry_id, budget_id, window_key) DO UPDATE SET nusd = charge.nusd + excluded.nusd"
)


class Batch:
    """Steps that are written in one transaction; `write` is to be called at its end.

    Args:
        connection: The transaction.
        keeps_budgets: Whether the budgets are kept here, too.
    """

    def __init__(self, connection: Connection, *, keeps_budgets: bool = True) -> None:
        self.connection = connection
        self._books = Books(connection) if keeps_budgets else None
        self._hours: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._ratios: dict[str, tuple[int, int]] = {}
        self._charges: list[tuple[str, str, str, int]] = []
        self._rungs: dict[evidence.RungKey, tuple[float, Rung]] = {}

    def lease(self, lease: Lease, owner: str) -> Refusal | None:
        """Reserve in all accounts, or in none and say why.

        Raises:
            StoreError: a value that the database cannot hold.
        """
        assert self._books is not None
        try:
            return self._books.lease(lease, owner)
        except (OverflowError, UnicodeEncodeError) as error:
            raise unfit(error) from error

    def apply(self, step: Settle | Record) -> None:
        """Write one step; the second time it comes it changes nothing.

        Raises:
            StoreError: a value that the database cannot hold.
        """
        try:
            if isinstance(step, Settle):
                self._settle(step.entry)
            else:
                self._record(step)
        except (OverflowError, UnicodeEncodeError) as error:
            raise unfit(error) from error

    def _settle(self, entry: Entry) -> None:
        """Close the lease, write the entry and charge for it; what was lost is corrected."""
        values = _entry_values(entry)
        if not self.connection.execute(_INSERT_ENTRY, values).rowcount:
            if entry.certainty == "lost" or not self._take_back(entry.id):
                return
            self.connection.execute(_INSERT_ENTRY, values)
        charges = entry.charges
        self._charges += [(entry.id, one.budget_id, one.window_key, one.nusd) for one in charges]
        if self._books is not None:
            self._books.release(entry.id)
            self._books.charge(charges)

    def _take_back(self, id_: str) -> bool:
        """Remove an entry if it is of one that was lost, with what was charged for it."""
        lost = "DELETE FROM entry WHERE id = ? AND certainty = 'lost'"
        if not self.connection.execute(lost, (id_,)).rowcount:
            return False
        self.write_charges()  # those of this transaction, too
        sql = "SELECT budget_id, window_key, nusd FROM charge WHERE entry_id = ?"
        charged = [Charge(*row) for row in self.connection.execute(sql, (id_,)).fetchall()]
        self.connection.execute("DELETE FROM charge WHERE entry_id = ?", (id_,))
        if self._books is not None:
            self._books.charge(charged, sign=-1)
        return True

    def _record(self, step: Record) -> None:
        row = step.exchange
        if not self.connection.execute(_INSERT_EXCHANGE, _exchange_values(row)).rowcount:
            return
        hour = (int(row.at) // HOUR_S, *_hour_key(row))
        sums = _sums_of(row)
        self._hours[hour] = tuple(map(add, self._hours[hour], sums)) if hour in self._hours else sums
        if step.tool_use_ids:
            self.connection.executemany(
                _UPSERT_PIN, [(id_, step.made_by, row.at) for id_ in step.tool_use_ids]
            )
        if step.opinion:
            self.connection.execute(_UPSERT_OPINION, (step.ask_key, step.opinion, row.at))
        if step.warmth is not None:
            values = (row.tenant, row.session, *_warmth_values(step.warmth))
            self.connection.execute(_UPSERT_WARMTH, values)
        if step.measured is not None:
            measured = step.measured
            estimated, actual = self._ratios.get(measured.tokenizer, (0, 0))
            self._ratios[measured.tokenizer] = estimated + measured.estimated, actual + measured.actual
        if step.step_downs:
            rows = [(row.at, row.id, *_step_down_values(one)) for one in step.step_downs]
            self.connection.executemany(_INSERT_STEP_DOWN, rows)
        if step.verdicts:
            evidence.add_verdicts(self.connection, step)
        if step.rungs:
            self._add_rungs(step)
        if step.floor:
            evidence.raise_floor(self.connection, step)

    def _add_rungs(self, step: Record) -> None:
        for tier, rung in step.rungs.items():
            key = (step.checks, step.exchange.task_type, tier)
            at, before = self._rungs.get(key, (0.0, None))
            self._rungs[key] = max(at, step.exchange.at), rung if before is None else before.plus(rung)

    def write_charges(self) -> None:
        """Write what was charged so far: nobody else waits for these rows, so in no order."""
        if self._charges:
            self.connection.executemany(_INSERT_CHARGE, self._charges)
            self._charges.clear()

    def write(self) -> None:
        """Write what was put off, and the sums in the order of their keys: rows are locked in one order."""
        self.write_charges()
        if self._ratios:
            self.connection.executemany(
                _UPSERT_RATIO, [(name, *sums) for name, sums in sorted(self._ratios.items())]
            )
            self._ratios.clear()
        if self._hours:
            self.connection.executemany(
                _UPSERT_HOUR, [(*hour, *sums) for hour, sums in sorted(self._hours.items())]
            )
            self._hours.clear()
        if self._rungs:
            evidence.write_rungs(self.connection, self._rungs)
            self._rungs.clear()
        if self._books is not None:
            self._books.write()


def unfit(error: Exception) -> StoreError:
    """Return what to raise for a value that the database cannot hold."""
    return StoreError(f"a ledger row holds what cannot be stored: {error}")


def _sums_of(row: Exchange) -> tuple[int, ...]:
    """Return this row's share of each sum, in the order of `Line`; a trial is no call, only money."""
    if row.kind == "trial":
        return tuple(getattr(row, name) if name in _MONEY else 0 for name in SUMS)
    return (
        1,
        int(row.served not in ("", row.baseline)),
        int(row.would not in ("", row.asked)),
        int(row.result == "error"),
        int(row.certainty == "estimated"),
        int(row.fault != ""),
        row.spent_nusd,
        row.baseline_nusd,
        row.saved_nusd,
        row.could_nusd,
        row.discarded_nusd,
        row.lost_cache_nusd,
        row.checks_nusd,
        row.baseline_nusd if row.baseline_how == "assumed" else 0,
        int(row.cache == "hit"),
        int(row.cache == "miss"),
        row.saved_nusd if row.cache == "hit" else 0,
        row.input_tokens,
        row.output_tokens,
        int(row.checked != ""),
        int(row.escalations > 0),
    )


def prune(
    connection: Connection, requests_before: float, pins_before: float, opinions_before: float, most: int
) -> None:
    """Delete what is older, a bounded number of rows; roll-ups and what windows were charged stay."""
    connection.execute(
        "DELETE FROM exchange WHERE id IN (SELECT id FROM exchange WHERE at < ? ORDER BY at LIMIT ?)",
        (requests_before, most),
    )
    # By their own ids, which sort by time: a process that was killed left entries without an exchange.
    old = [
        tuple(row)
        for row in connection.execute(
            "SELECT id FROM entry WHERE id < ? ORDER BY id LIMIT ?", (first_id(requests_before), most)
        ).fetchall()
    ]
    if old:
        connection.execute(_CARRY, old[-1])
        connection.executemany("DELETE FROM charge WHERE entry_id = ?", old)
        connection.executemany("DELETE FROM entry WHERE id = ?", old)
    connection.execute("DELETE FROM step_down WHERE at < ?", (requests_before,))
    connection.execute("DELETE FROM pin WHERE at < ?", (pins_before,))
    connection.execute("DELETE FROM warmth WHERE at < ?", (pins_before,))
    connection.execute("DELETE FROM opinion WHERE at < ?", (opinions_before,))
    evidence.prune(connection, requests_before, pins_before, most)
