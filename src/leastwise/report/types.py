"""The type table as `leastwise tune table` shows it: quality, mean cost and calls by type and tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from leastwise.money import show, to_usd
from leastwise.report.table import aligned, labelled, percent, wrapped
from leastwise.routing import UNLIKELY, Classifier, Router
from leastwise.stores import TypeLine

_NOTE = (
    "Quality is assumed: a tier at or above the one its type maps to does the task, one below does not. What "
    "checks accepted of its answers lately is set against that, which weighs as much as twenty answers. "
    "Cost is the mean of the calls that the ledger holds."
)

_MEASURED: Final = ("checked", "accepted", "told", "told_ok")


def table_lines(router: Router, seen: Sequence[TypeLine]) -> list[str]:
    """Return the table: a row for each type, and for each tier what is assumed, paid and counted."""
    table = router.teller.table
    found = {(line.task_type, line.tier): line for line in seen if line.calls}
    rows = [["type", *(column for tier in table.tiers for column in (tier, "calls", "mean"))]]
    for name in table.needs:
        cells = []
        for tier in table.tiers:
            line = found.get((name, tier))
            cells += [f"{table.quality(name, tier):.2f}", f"{line.calls:,}" if line else "-"]
            cells.append(show(line.spent_nusd // line.calls) if line else "-")
        rows.append([name, *cells])
    return [
        *aligned(rows, "l" + "rrr" * len(table.tiers)),
        *_measured(table.tiers, seen),
        *wrapped(_NOTE),
        *_weights(router.teller.classifier),
    ]


def _measured(tiers: Sequence[str], seen: Sequence[TypeLine]) -> list[str]:
    """Return how answers fared: what checks accepted of them, and what somebody who knows found good."""
    found: dict[str, list[str]] = {}
    for line in sorted(seen, key=lambda one: (one.task_type, _rank(tiers, one.tier))):
        parts = (
            [f"{percent(line.accepted, line.checked)} of {line.checked:,} checked"] if line.checked else []
        )
        parts += [f"ok {line.told_ok:,} of {line.told:,} told"] if line.told else []
        if parts:
            found.setdefault(line.task_type, []).append(f"{line.tier} {', '.join(parts)}")
    if not found:
        return []
    lines = ["measured: how many answers checks accepted, and how many were said to be ok"]
    for name, parts in found.items():
        lines += labelled(name, "; ".join(parts))
    return lines


def _rank(tiers: Sequence[str], tier: str) -> int:
    return tiers.index(tier) if tier in tiers else len(tiers)


def _weights(classifier: Classifier | None) -> list[str]:
    if classifier is None:
        return wrapped("Types are told by phrases only (learned = false, or the reference preset).")
    return wrapped(
        f"The classifier takes the cheapest tier of which {classifier.target:.2f} is expected over the "
        "types that an ask may be of, and the top one where less than "
        f"{UNLIKELY:.2f} is expected of the one below; between the two it is unsure. "
        f"Weights {classifier.digest[:12]}."
    )


def table_json(router: Router, seen: Sequence[TypeLine]) -> dict[str, Any]:
    """Return the table as `--json` prints it."""
    table = router.teller.table
    found = {(line.task_type, line.tier): line for line in seen if line.calls}
    rows = []
    for name, needs in table.needs.items():
        for tier in table.tiers:
            line = found.get((name, tier))
            rows.append(
                {
                    "type": name,
                    "needs": needs,
                    "tier": tier,
                    "quality": table.quality(name, tier),
                    "quality_is": "assumed, and checked" if (name, tier) in table.seen else "assumed",
                    "calls": line.calls if line else 0,
                    **{name: getattr(line, name, 0) for name in _MEASURED},
                    "mean_cost_usd": to_usd(line.spent_nusd // line.calls) if line else None,
                }
            )
    weights = router.teller.classifier
    return {
        "tiers": list(table.tiers),
        "rows": rows,
        "target": weights.target if weights is not None else None,
        "weights": weights.digest if weights is not None else None,
    }
