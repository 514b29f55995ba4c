"""The type table as `leastwise tune table` shows it: quality, mean cost and calls by type and tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leastwise.money import show, to_usd
from leastwise.report.table import aligned, wrapped
from leastwise.routing import UNLIKELY, Classifier, Router
from leastwise.stores import TypeLine

_NOTE = (
    "Quality is assumed: a tier at or above the one its type maps to does the task, one below does not. "
    "Cost is the mean of the calls that the ledger holds."
)


def table_lines(router: Router, seen: Sequence[TypeLine]) -> list[str]:
    """Return the table: a row for each type, and for each tier what is assumed, paid and counted."""
    table = router.teller.table
    found = {(line.task_type, line.tier): line for line in seen}
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
        *wrapped(_NOTE),
        *_weights(router.teller.classifier),
    ]


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
    found = {(line.task_type, line.tier): line for line in seen}
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
                    "quality_is": "assumed",
                    "calls": line.calls if line else 0,
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
