"""The cache as `leastwise cache` and `report` show it: what is kept, what it saved, single answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from leastwise.cache import Stored
from leastwise.forecast import how_long
from leastwise.money import show, to_usd
from leastwise.report.table import aligned, labelled, percent, plural, share
from leastwise.stores import CacheStats, Line, Query, Store

_KEY_LETTERS: Final = 12
MB: Final = 1_000_000
_NONE: Final = "(none)"


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What is kept, and what it saved.

    Attributes:
        stats: What is kept.
        by_tag: Look-ups by tag, most hits first; only tags that had some.
        where: Where the answers are.
        most_mb: How large they may grow, in megabytes.
    """

    stats: CacheStats
    by_tag: tuple[Line, ...]
    where: str
    most_mb: int

    @property
    def hits(self) -> int:
        """Look-ups that were answered."""
        return sum(line.cache_hits for line in self.by_tag)

    @property
    def misses(self) -> int:
        """Look-ups that were not."""
        return sum(line.cache_misses for line in self.by_tag)

    @property
    def saved_nusd(self) -> int:
        """What the hits saved."""
        return sum(line.cache_nusd for line in self.by_tag)


def looked_up(store: Store | None) -> tuple[Line, ...]:
    """Return the sums of tags that had look-ups, most hits first."""
    lines = store.sums(Query(by=("tag",))) if store is not None else []
    some = [line for line in lines if line.cache_hits + line.cache_misses]
    return tuple(sorted(some, key=lambda line: (-line.cache_hits, -line.cache_misses, line.group)))


def stats_lines(report: CacheReport) -> list[str]:
    """Return what is kept and what it saved as text."""
    stats = report.stats
    size = f"{stats.size_bytes / MB:,.1f} of {report.most_mb:,} MB"
    lines = labelled("kept", f"{plural(stats.entries, 'answer')}, {size}")
    if not report.hits + report.misses:
        words = "none yet; a request looks with Task(cache=True), or where [cache] on or tags say so"
        return [*lines, *labelled("look-ups", words), *labelled("store", report.where)]
    lines += labelled("look-ups", hits_words(report.hits, report.misses, report.saved_nusd))
    rows = [["tag", "look-ups", "hits", "hit rate", "saved"]]
    for line in report.by_tag:
        seen = line.cache_hits + line.cache_misses
        rows.append(
            [
                line.group[0] or _NONE,
                f"{seen:,}",
                f"{line.cache_hits:,}",
                percent(line.cache_hits, seen, 1),
                show(line.cache_nusd),
            ]
        )
    return [*lines, *aligned(rows, "lrrrr"), *labelled("store", report.where)]


def hits_words(hits: int, misses: int, saved_nusd: int) -> str:
    """Return what look-ups came to, such as `300 of 1,000 answered (30.0%), saved $12.34`."""
    seen = hits + misses
    return f"{hits:,} of {seen:,} answered ({percent(hits, seen, 1)}), saved {show(saved_nusd)}"


def stats_json(report: CacheReport) -> dict[str, Any]:
    """Return what is kept and what it saved as `--json` prints it."""
    return {
        "entries": report.stats.entries,
        "size_bytes": report.stats.size_bytes,
        **look_ups_json(report.hits, report.misses, report.saved_nusd),
        "by_tag": [
            {"tag": line.group[0], **look_ups_json(line.cache_hits, line.cache_misses, line.cache_nusd)}
            for line in report.by_tag
        ],
        "store": report.where,
    }


def look_ups_json(hits: int, misses: int, saved_nusd: int) -> dict[str, Any]:
    """Return what look-ups came to as `--json` prints it."""
    return {
        "total_hits": hits,
        "total_misses": misses,
        "hit_rate": share(hits, hits + misses),
        "calls_saved": hits,
        "saved_usd": to_usd(saved_nusd),
    }


# --- single answers ----------------------------------------------------------------------------------


def list_lines(entries: Sequence[tuple[str, Stored]], now: float) -> list[str]:
    """Return answers as text, one a line."""
    rows = [["key", "age", "hits", "kB", "model", "tag"]]
    for key, one in entries:
        size = f"{len(one.body) / 1000:,.1f}"
        cells = [key[:_KEY_LETTERS], how_long(max(0.0, now - one.at)), f"{one.hits:,}", size, one.model]
        rows.append([*cells, one.tag or _NONE])
    return aligned(rows, "lrrrll")


def answer_lines(one: Stored, now: float, ttl_s: int) -> list[str]:
    """Return the facts of one answer as text; not the answer."""
    age_s = max(0.0, now - one.at)
    left_s = ttl_s - age_s
    kind = "stream" if one.is_stream else "message"
    fresh = f"good for {how_long(left_s)} more" if left_s > 0 else "past its time"
    facts = {
        "model": f"{one.model} ({one.tier})" if one.tier else one.model,
        "upstream": one.upstream,
        "kept": f"{_minute(one.at)} UTC, {how_long(age_s)} ago; {fresh}",
        "hits": f"{one.hits:,}",
        "size": f"{len(one.body):,} bytes, a {kind}",
        "tag": one.tag or _NONE,
        "paid by": one.exchange,
        "request-id": one.request_id or _NONE,
    }
    return [line for label, text in facts.items() for line in labelled(label, text)]


def answer_json(key: str, one: Stored) -> dict[str, Any]:
    """Return the facts of one answer as `--json` prints them."""
    return {
        "key": key,
        "at": datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds"),
        "hits": one.hits,
        "size_bytes": len(one.body),
        "stream": one.is_stream,
        "model": one.model,
        "tier": one.tier,
        "upstream": one.upstream,
        "tag": one.tag,
        "exchange": one.exchange,
        "request_id": one.request_id,
    }


def text_of(one: Stored) -> str:
    """Return the text of an answer, put together from its events if it is a stream."""
    if not one.is_stream:
        blocks = json.loads(one.body).get("content") or ()
        return "".join(block.get("text", "") for block in blocks)
    deltas = []
    for line in one.body.splitlines():
        if line.startswith(b"data:"):
            event = json.loads(line.removeprefix(b"data:"))
            deltas.append((event.get("delta") or {}).get("text", ""))
    return "".join(deltas)


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
