"""`GET /v1/models`: the known models with their capabilities, newest first, in pages.

Source: https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import parse_qs

from leastwise.messages import JSON
from leastwise.models import EFFORTS, Model, Models
from leastwise.simulate.rules import refuse

_UNKNOWN_DAY: Final = date(1970, 1, 1)
_PAGE: Final = 20
_LONGEST_PAGE: Final = 1000


def lifecycle(model: Model, now: float) -> str:
    """Return a model's stage of life at `now`: retired from the day announced."""
    return "retired" if model.is_retired(datetime.fromtimestamp(now, UTC).date()) else model.lifecycle


def page(models: Models, query: str, now: float) -> dict[str, JSON]:
    """Return the page that the query asks for.

    Raises:
        RefusedError: `limit` is not 1 to 1000, or a cursor names no model.
    """
    asked = parse_qs(query)
    rows = sorted(models, key=lambda model: model.released or _UNKNOWN_DAY, reverse=True)
    if stages := {*asked.get("lifecycle", ()), *asked.get("lifecycle[]", ())}:
        rows = [model for model in rows if lifecycle(model, now) in stages]
    shown, ends = paged([model.id for model in rows], asked, "model")
    return {"data": [describe(model, now) for model in rows[shown]], **ends}


def paged(ids: list[str], asked: Mapping[str, list[str]], what: str) -> tuple[slice, dict[str, JSON]]:
    """Return which of the rows are shown, and what a page says beside them.

    Raises:
        RefusedError: `limit` is not 1 to 1000, or a cursor names none of them.
    """
    limit = asked.get("limit", [str(_PAGE)])[0]
    if not limit.isdecimal() or not 1 <= int(limit) <= _LONGEST_PAGE:
        refuse(f"limit: {limit!r} is not a whole number from 1 to {_LONGEST_PAGE}")
    start, end = 0, len(ids)
    if "after_id" in asked:
        start = _position(ids, asked["after_id"][0], what) + 1
    if "before_id" in asked:
        end = _position(ids, asked["before_id"][0], what)
        start = max(start, end - int(limit))
    shown = slice(start, min(start + int(limit), end))
    names = ids[shown]
    return shown, {
        "has_more": start + len(names) < end if "before_id" not in asked else start > 0,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def _position(ids: list[str], cursor: str, what: str) -> int:
    if cursor not in ids:
        refuse(f"cursor: no {what} {cursor!r}")
    return ids.index(cursor)


def describe(model: Model, now: float) -> dict[str, JSON]:
    """Return one model as the API does."""
    stage = lifecycle(model, now)
    return {
        "type": "model",
        "id": model.id,
        "display_name": _title(model.id),
        "created_at": _instant(model.released or _UNKNOWN_DAY),
        "lifecycle": stage,
        "line": model.line,
        "deprecated_at": None,  # not in our data
        "retires_at": _instant(model.retires) if model.retires and stage != "active" else None,
        "max_input_tokens": model.window,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model),
    }


def _title(model: str) -> str:
    brand, line, *version = model.split("-")
    return f"{brand.title()} {line.title()} {'.'.join(version)}"


def _instant(day: date) -> str:
    return f"{day}T00:00:00Z"


def _capabilities(model: Model) -> dict[str, JSON]:
    def may(*, yes: bool = True) -> dict[str, bool]:
        return {"supported": yes}

    types = ("adaptive", "between_tools", "disabled", "enabled")
    return {
        "batch": may(),
        "citations": may(),
        "code_execution": may(),
        "context_management": {
            "supported": True,
            "clear_thinking_20251015": may(yes=model.takes_compaction),
            "clear_tool_uses_20250919": may(),
            "compact_20260112": may(yes=model.takes_compaction),
        },
        "effort": {
            "supported": bool(model.efforts),
            **{level: may(yes=level in model.efforts) for level in EFFORTS},
        },
        "image_input": may(),
        "pdf_input": may(),
        "server_tools": {"supported": True, "code_execution": may(), "web_search": may()},
        "structured_outputs": may(),
        "thinking": {
            "supported": True,
            "types": {name: may(yes=name in model.accepts_thinking) for name in types},
        },
    }
