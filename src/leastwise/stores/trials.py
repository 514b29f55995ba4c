"""Trials under way, in SQL: which are open, and how their pairs went so far.

Several processes add to one trial. Whoever finds that it has come to its end closes it; that happens once,
and what comes too late for it is in the ledger, but in no trial.
"""

# ruff: noqa: S608 - SQL is put together from the names of columns below; values are always bound

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Final

from leastwise.cascade import Trial
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.stores import evidence
from leastwise.stores.database import Connection, Database, insert

_OPEN: Final = tuple(field.name for field in fields(OpenTrial))
_PAIRS: Final = tuple(field.name for field in fields(Pairs))
_KEY: Final = ("how", "against")
_open_values: Final = attrgetter(*_OPEN)
_pairs_values: Final = attrgetter(*_PAIRS)

_BEGIN: Final = (
    f"{insert('open_trial', _OPEN).partition('VALUES')[0]}SELECT {', '.join('?' * len(_OPEN))} "
    "WHERE NOT EXISTS (SELECT 1 FROM open_trial WHERE tag = ?)"
)
_ADD: Final = (
    f"{insert('trial_pairs', ('trial_id', *_PAIRS))} ON CONFLICT (trial_id, {', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = trial_pairs.{name} + excluded.{name}" for name in _PAIRS if name not in _KEY)
)
_SELECT: Final = (
    f"SELECT {', '.join(_PAIRS)} FROM trial_pairs WHERE trial_id = ? ORDER BY n DESC, how, against"
)
_IS_OPEN: Final = "SELECT 1 FROM open_trial WHERE id = ?"


def begin(connection: Connection, trial: OpenTrial) -> bool:
    """Open a trial; false where one of its tag is open already."""
    connection.lock((f"trial {trial.tag}",))
    return connection.execute(_BEGIN, (*_open_values(trial), trial.tag)).rowcount == 1


def open_trials(database: Database) -> list[OpenTrial]:
    """Return the trials under way, oldest first."""
    rows = database.rows(f"SELECT {', '.join(_OPEN)} FROM open_trial ORDER BY at, id")
    return [OpenTrial(*row) for row in rows]


def add(connection: Connection, trial_id: str, pairs: Pairs) -> list[Pairs]:
    """Add to a trial and return its sums, most pairs first; none where it is over."""
    connection.lock((trial_id,))
    if connection.execute(_IS_OPEN, (trial_id,)).fetchone() is None:
        return []
    connection.execute(_ADD, (trial_id, *_pairs_values(pairs)))
    return [Pairs(*row) for row in connection.execute(_SELECT, (trial_id,)).fetchall()]


def pairs_of(database: Database, trial_id: str) -> list[Pairs]:
    """Return a trial's sums so far, most pairs first."""
    return [Pairs(*row) for row in database.rows(_SELECT, (trial_id,))]


def end(
    connection: Connection, trial_id: str, conclude: Callable[[list[Pairs]], Trial | None]
) -> Trial | None:
    """Close a trial and keep what it shows; None where it shows nothing, or somebody else has closed it."""
    connection.lock((trial_id,))
    if not connection.execute("DELETE FROM open_trial WHERE id = ?", (trial_id,)).rowcount:
        return None
    trial = conclude([Pairs(*row) for row in connection.execute(_SELECT, (trial_id,)).fetchall()])
    connection.execute("DELETE FROM trial_pairs WHERE trial_id = ?", (trial_id,))
    if trial is not None:
        evidence.put_trial(connection, trial)
    return trial
