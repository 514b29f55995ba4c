"""Budgets in SQL: accounts, leases, and what was said and given.

`Books` keeps accounts within one write transaction: what a lease asks for is read once, what changes is
added up and written once at the end, however many leases share the transaction. The other functions read,
or write one thing.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from leastwise.budget import Account, Claim, Raise, Refusal, Standing
from leastwise.ledger import Charge, Reserved
from leastwise.steps import Lease
from leastwise.stores import WindowLine
from leastwise.stores.database import Connection, Database, Dialect

#: An owner that did not say for this long that it lives is dead; it says so every five seconds.
DEAD_AFTER_S: Final = 20.0

_ASKED_AT_ONCE: Final = 50  # accounts to a statement
_ONE_STANDING: Final = (
    "SELECT account, spent_nusd, leased_nusd, calls FROM account WHERE account = ? AND window_key = ?"
)
_ROLLING_STANDING: Final = (
    "SELECT account, CAST(SUM(spent_nusd) AS BIGINT), CAST(SUM(leased_nusd) AS BIGINT), "
    "CAST(SUM(calls) AS BIGINT) FROM account "
    "WHERE account = ? AND window_key BETWEEN ? AND ? GROUP BY account"
)
_ADD: Final = (
    "INSERT INTO account (account, window_key, spent_nusd, leased_nusd, calls) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (account, window_key) DO UPDATE SET spent_nusd = account.spent_nusd + excluded.spent_nusd, "
    "leased_nusd = account.leased_nusd + excluded.leased_nusd, calls = account.calls + excluded.calls"
)
_IS_KNOWN: Final = "SELECT 1 FROM entry WHERE id = ? UNION ALL SELECT 1 FROM lease WHERE id = ?"
_LEASE: Final = ("id", "exchange_id", "purpose", "provider", "model", "at", "worst_nusd")
_lease_values: Final = attrgetter(*_LEASE)
_LEASE_COLUMNS: Final = ", ".join(f"lease.{name}" for name in (*_LEASE, "charges_json", "owner"))
#: What is settled or reserved already stays so.
_OPEN: Final = (
    f"INSERT INTO lease ({', '.join(_LEASE)}, charges_json, owner) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? "
    "WHERE NOT EXISTS (SELECT 1 FROM entry WHERE id = ?) ON CONFLICT (id) DO NOTHING"
)
_HELD: Final = "SELECT charges_json FROM lease WHERE id = ?"
_CLOSE: Final = "DELETE FROM lease WHERE id = ?"
_BEAT: Final = (
    "INSERT INTO owner (id, beat) VALUES (?, {}) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"
)
_RAISE: Final = tuple(field.name for field in fields(Raise))
_raise_values: Final = attrgetter(*_RAISE)
_Span = tuple[str, str, str]  # an account, and the windows of it that count: from, to
_NOTHING: Final = (0, 0, 0)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[tuple[str, str, int]]).decode


class Books:
    """The accounts as one transaction sees and changes them; `write` is to be called at its end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: dict[_Span, tuple[int, ...]] = {}
        self._changes: dict[tuple[str, str], list[int]] = {}  # by account and window

    def lease(self, lease: Lease, owner: str) -> Refusal | None:
        """Reserve in all accounts, or in none and say why; what is settled or reserved already stays so."""
        reserved, claims = lease.reserved, lease.claims
        id_, worst_nusd = reserved.id, reserved.worst_nusd
        self._connection.lock(names_of(lease))
        spans = [_span(claim.account) for claim in claims]
        self._ask(spans)
        for span, claim in zip(spans, claims, strict=True):
            spent_nusd, leased_nusd, _ = self._stands(span)
            if spent_nusd + leased_nusd + worst_nusd > claim.limit_nusd:
                is_known = self._connection.execute(_IS_KNOWN, (id_, id_)).fetchone()
                return None if is_known else self._refusal(claims, worst_nusd)
        held = [(account, key, worst_nusd) for account, _, key in spans]
        values = (*_lease_values(reserved), _encode(held).decode(), owner, id_)
        if self._connection.execute(_OPEN, values).rowcount:
            for account, _, key in spans:
                self._add(account, key, 0, worst_nusd, 0)
        return None

    def _refusal(self, claims: Sequence[Claim], worst_nusd: int) -> Refusal:
        """Return the first claim, by account, that does not fit."""
        ordered = sorted(claims, key=lambda claim: claim.account.id)
        stood = ((claim, Standing(*self._stands(_span(claim.account)))) for claim in ordered)
        return next(
            Refusal(claim, stands)
            for claim, stands in stood
            if stands.spent_nusd + stands.leased_nusd + worst_nusd > claim.limit_nusd
        )

    def _ask(self, spans: Sequence[_Span]) -> None:
        """Read what accounts hold that nobody asked for yet in this transaction."""
        missing = [span for span in spans if span not in self._read]
        for sql, values, some in _standing_queries(missing):
            found = {row[0]: tuple(row)[1:] for row in self._connection.execute(sql, values).fetchall()}
            for span in some:
                self._read[span] = found.get(span[0], _NOTHING)

    def _stands(self, span: _Span) -> tuple[int, int, int]:
        """Return what is spent and reserved and how many calls paid, as this transaction has it by now."""
        account, first, last = span
        spent, leased, calls = self._read[span]
        if first == last:
            change = self._changes.get((account, last))
            changes = [] if change is None else [change]
        else:
            changes = [
                change
                for (changed, key), change in self._changes.items()
                if changed == account and first <= key <= last
            ]
        for more_spent, more_leased, more_calls in changes:
            spent, leased, calls = spent + more_spent, leased + more_leased, calls + more_calls
        return spent, leased, calls

    def release(self, id_: str) -> None:
        """Close a lease; does nothing where none is open."""
        self._connection.lock((id_,))  # or one that is being taken would be missed
        row = self._connection.execute(_HELD, (id_,)).fetchone()
        if row:
            self._connection.execute(_CLOSE, (id_,))
            for account, window_key, nusd in _decode(row[0]):
                self._add(account, window_key, 0, -nusd, 0)

    def charge(self, charges: Iterable[Charge], *, sign: int = 1) -> None:
        """Charge accounts, or with a `sign` of -1 give back what was charged."""
        for charge in charges:
            nusd = charge.nusd
            self._add(charge.budget_id, charge.window_key, sign * nusd, 0, sign if nusd else 0)

    def _add(self, account: str, window_key: str, spent_nusd: int, leased_nusd: int, calls: int) -> None:
        change = self._changes.get((account, window_key))
        if change is None:
            self._changes[account, window_key] = [spent_nusd, leased_nusd, calls]
        else:
            change[0] += spent_nusd
            change[1] += leased_nusd
            change[2] += calls

    def write(self) -> None:
        """Write what changed, in the order of accounts: whoever locks rows does so in one order."""
        if self._changes:
            rows = [(*window, *change) for window, change in sorted(self._changes.items())]
            self._connection.executemany(_ADD, rows)
            self._changes.clear()
            self._read.clear()


def names_of(lease: Lease) -> list[str]:
    """Return what a transaction locks to take a lease: what it may find there is what others leave there."""
    return [lease.reserved.id, *(claim.account.id for claim in lease.claims)]


def _span(account: Account) -> _Span:
    window = account.window
    return account.id, window.first, window.key


def _standing_queries(spans: Sequence[_Span]) -> Iterator[tuple[str, list[str], Sequence[_Span]]]:
    """Yield statements that return id, spent, reserved and calls, their values, and whom they are about."""
    for start in range(0, len(spans), _ASKED_AT_ONCE):
        some = spans[start : start + _ASKED_AT_ONCE]
        values = [part for span in some for part in (span if span[1] != span[2] else span[:2])]
        yield _standings_sql(tuple([first != last for _, first, last in some])), values, some


@cache
def _standings_sql(are_rolling: tuple[bool, ...]) -> str:
    return " UNION ALL ".join([_ROLLING_STANDING if rolls else _ONE_STANDING for rolls in are_rolling])


def standings(database: Database, accounts: Sequence[Account]) -> dict[str, Standing]:
    """Return how accounts stand, by id."""
    return {
        row[0]: Standing(row[1], row[2], row[3])
        for sql, values, _ in _standing_queries([_span(account) for account in accounts])
        for row in database.rows(sql, values)
    }


def windows(database: Database, since: str) -> list[WindowLine]:
    """Return every account's windows with that key or a later one, by account and time."""
    sql = "SELECT account, window_key, spent_nusd, leased_nusd, calls FROM account WHERE window_key >= ?"
    rows = sorted(map(tuple, database.rows(sql, (since,))))  # in SQL, it would read all for the order
    return [WindowLine(row[0], row[1], Standing(row[2], row[3], row[4])) for row in rows]


def correct(connection: Connection, account: str, window_key: str, by_nusd: int) -> None:
    """Add to what a window has spent."""
    connection.execute(_ADD, (account, window_key, by_nusd, 0, 0))


def beat(connection: Connection, dialect: Dialect, owner: str, now: float) -> None:
    """Note that an owner lives."""
    connection.execute(_BEAT.format(dialect.now), (owner, *_moment(dialect, now)))


def _moment(dialect: Dialect, now: float) -> list[float]:
    """Return the values of the dialect's `now`."""
    return [now] * dialect.now.count("?")


def reserved(database: Database) -> list[Reserved]:
    """Return every open lease, oldest first."""
    return _leases(database, "", ())


def dead(database: Database, dialect: Dialect, me: str, now: float) -> list[Reserved]:
    """Return the leases of owners, but for `me`, that have been silent for too long."""
    silent = (
        " LEFT JOIN owner ON owner.id = lease.owner "
        f"WHERE lease.owner <> ? AND (owner.id IS NULL OR owner.beat < {dialect.now} - {DEAD_AFTER_S})"
    )
    return _leases(database, silent, (me, *_moment(dialect, now)))


def _leases(database: Database, where: str, values: Sequence[object]) -> list[Reserved]:
    sql = f"SELECT {_LEASE_COLUMNS} FROM lease{where} ORDER BY lease.at, lease.id"
    return [_reserved_of(row) for row in database.rows(sql, values)]


def _reserved_of(row: Sequence[Any]) -> Reserved:
    *head, charges_json, owner = row
    charges = tuple(Charge(*held) for held in _decode(charges_json))
    return Reserved(**dict(zip(_LEASE, head, strict=True)), charges=charges, owner=owner)


def first_to(connection: Connection, account: str, window_key: str, what: str) -> bool:
    """Note that `what` is said of a window; tell whether nobody did before."""
    sql = "INSERT INTO notice (account, window_key, what) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    return connection.execute(sql, (account, window_key, what)).rowcount == 1


def add_raise(connection: Connection, raised: Raise) -> None:
    """Note that a budget was given more."""
    sql = f"INSERT INTO raised ({', '.join(_RAISE)}) VALUES (?, ?, ?, ?, ?, ?)"
    connection.execute(sql, _raise_values(raised))


def raises(database: Database) -> list[Raise]:
    """Return all that was given, oldest first."""
    sql = f"SELECT {', '.join(_RAISE)} FROM raised ORDER BY at"
    return [Raise(*row) for row in database.rows(sql)]


def prune(connection: Connection, windows_before: str, owners_before: float, most: int) -> None:
    """Forget windows that began before that key and hold nothing, and owners long silent that hold nothing.

    A window that never begins anew stays.
    """
    connection.execute(
        "DELETE FROM account WHERE (account, window_key) IN (SELECT account, window_key FROM account "
        "WHERE window_key < ? AND leased_nusd = 0 LIMIT ?)",
        (windows_before, most),
    )
    connection.execute("DELETE FROM charge WHERE entry_id = '' AND window_key < ?", (windows_before,))
    connection.execute("DELETE FROM notice WHERE window_key < ?", (windows_before,))
    connection.execute(
        "DELETE FROM owner WHERE beat < ? AND id NOT IN (SELECT owner FROM lease)", (owners_before,)
    )
