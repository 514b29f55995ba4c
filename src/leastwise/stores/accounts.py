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

from leastwise.budget import Account, Raise, Refusal, Standing
from leastwise.ledger import Charge, Reserved
from leastwise.steps import Lease
from leastwise.stores import WindowLine
from leastwise.stores.database import Connection, Database

#: An owner that did not say for this long that it lives is dead; it says so every five seconds.
DEAD_AFTER_S: Final = 20.0

_ASKED_AT_ONCE: Final = 50  # accounts to a statement
_ONE_STANDING: Final = (
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
_OPEN: Final = (
    f"INSERT INTO lease ({', '.join(_LEASE)}, charges_json, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HELD: Final = "SELECT charges_json FROM lease WHERE id = ?"
_CLOSE: Final = "DELETE FROM lease WHERE id = ?"
_BEAT: Final = (
    "INSERT INTO owner (id, beat) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat"
)
_RAISE: Final = tuple(field.name for field in fields(Raise))
_raise_values: Final = attrgetter(*_RAISE)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[tuple[str, str, int]]).decode


class Books:
    """The accounts as one transaction sees and changes them; `write` is to be called at its end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        self._changes: dict[str, dict[str, list[int]]] = {}  # by account and window

    def lease(self, lease: Lease, owner: str) -> Refusal | None:
        """Reserve in all accounts, or in none and say why; what is settled or reserved already stays so."""
        reserved = lease.reserved
        if self._connection.execute(_IS_KNOWN, (reserved.id, reserved.id)).fetchone():
            return None
        self._ask([claim.account for claim in lease.claims])
        for claim in sorted(lease.claims, key=lambda claim: claim.account.id):
            stands = self._standing(claim.account)
            if stands.spent_nusd + stands.leased_nusd + reserved.worst_nusd > claim.limit_nusd:
                return Refusal(claim, stands)
        held = [(claim.account.id, claim.account.window.key, reserved.worst_nusd) for claim in lease.claims]
        self._connection.execute(_OPEN, (*_lease_values(reserved), _encode(held).decode(), owner))
        for account, window_key, nusd in held:
            self._add(account, window_key, leased_nusd=nusd)
        return None

    def _ask(self, accounts: Sequence[Account]) -> None:
        """Read what accounts hold that nobody asked for yet in this transaction."""
        missing = [account for account in accounts if _span(account) not in self._read]
        for account in missing:
            self._read[_span(account)] = (0, 0, 0)
        for sql, values, some in _standing_queries(missing):
            found = {
                row[0]: (row[1], row[2], row[3]) for row in self._connection.execute(sql, values).fetchall()
            }
            self._read |= {_span(one): found[one.id] for one in some if one.id in found}

    def _standing(self, account: Account) -> Standing:
        id_, first, key = _span(account)
        spent, leased, calls = self._read[id_, first, key]
        for window_key, change in self._changes.get(id_, {}).items():
            if first <= window_key <= key:
                spent, leased, calls = spent + change[0], leased + change[1], calls + change[2]
        return Standing(spent, leased, calls)

    def release(self, id_: str) -> None:
        """Close a lease; does nothing where none is open."""
        row = self._connection.execute(_HELD, (id_,)).fetchone()
        if row:
            self._connection.execute(_CLOSE, (id_,))
            for account, window_key, nusd in _decode(row[0]):
                self._add(account, window_key, leased_nusd=-nusd)

    def charge(self, charges: Iterable[Charge], *, sign: int = 1) -> None:
        """Charge accounts, or with a `sign` of -1 give back what was charged."""
        for charge in charges:
            calls = sign if charge.nusd else 0
            self._add(charge.budget_id, charge.window_key, spent_nusd=sign * charge.nusd, calls=calls)

    def _add(
        self, account: str, window_key: str, *, spent_nusd: int = 0, leased_nusd: int = 0, calls: int = 0
    ) -> None:
        change = self._changes.setdefault(account, {}).setdefault(window_key, [0, 0, 0])
        change[0] += spent_nusd
        change[1] += leased_nusd
        change[2] += calls

    def write(self) -> None:
        """Write what changed, in the order of accounts: whoever locks rows does so in one order."""
        rows = [
            (account, *window) for account, windows in self._changes.items() for window in windows.items()
        ]
        if rows:
            rows.sort()
            self._connection.executemany(_ADD, [(account, key, *change) for account, key, change in rows])
            self._changes.clear()
            self._read.clear()


def _span(account: Account) -> tuple[str, str, str]:
    return account.id, account.window.first, account.window.key


def _standing_queries(
    accounts: Sequence[Account],
) -> Iterator[tuple[str, list[str], Sequence[Account]]]:
    """Yield statements that return id, spent, reserved and calls, their values, and whom they are about."""
    for start in range(0, len(accounts), _ASKED_AT_ONCE):
        some = accounts[start : start + _ASKED_AT_ONCE]
        yield _standings_sql(len(some)), [part for account in some for part in _span(account)], some


@cache
def _standings_sql(count: int) -> str:
    return " UNION ALL ".join([_ONE_STANDING] * count)


def standings(database: Database, accounts: Sequence[Account]) -> dict[str, Standing]:
    """Return how accounts stand, by id."""
    return {
        row[0]: Standing(row[1], row[2], row[3])
        for sql, values, _ in _standing_queries(accounts)
        for row in database.rows(sql, values)
    }


def windows(database: Database, since: str) -> list[WindowLine]:
    """Return every account's windows with that key or a later one, by account and time."""
    sql = "SELECT account, window_key, spent_nusd, leased_nusd, calls FROM account WHERE window_key >= ?"
    rows = sorted(map(tuple, database.rows(sql, (since,))))  # in SQL, it would read all for the order
    return [WindowLine(row[0], row[1], Standing(row[2], row[3], row[4])) for row in rows]


def correct(connection: Connection, account: str, window_key: str, spent_nusd: int) -> None:
    """Set what a window has spent."""
    sql = (
        "INSERT INTO account (account, window_key, spent_nusd, leased_nusd, calls) VALUES (?, ?, ?, 0, 0) "
        "ON CONFLICT (account, window_key) DO UPDATE SET spent_nusd = excluded.spent_nusd"
    )
    connection.execute(sql, (account, window_key, spent_nusd))


def beat(connection: Connection, owner: str, now: float) -> None:
    """Note that an owner lives."""
    connection.execute(_BEAT, (owner, now))


def reserved(database: Database) -> list[Reserved]:
    """Return every open lease, oldest first."""
    return _leases(database, "", ())


def dead(database: Database, me: str, now: float) -> list[Reserved]:
    """Return the leases of owners, but for `me`, that have been silent for too long."""
    silent = (
        " LEFT JOIN owner ON owner.id = lease.owner "
        "WHERE lease.owner <> ? AND (owner.id IS NULL OR owner.beat < ?)"
    )
    return _leases(database, silent, (me, now - DEAD_AFTER_S))


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
