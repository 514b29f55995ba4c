"""What is said of answers: read from a file, and shown with what it counts for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from leastwise.build import Word
from leastwise.ladder import Verdict
from leastwise.ledger import Feedback, strongest
from leastwise.report.files import OnBad
from leastwise.report.rows import rows, truth_in
from leastwise.report.table import labelled
from leastwise.report.why import said_of, time_of


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: the line it begins on, whose call, and what is said of its answer."""

    line: int
    id: str
    ok: bool
    note: str


def read_feedback(file: BufferedReader, name: str, on_bad: OnBad) -> Iterator[Row]:
    """Yield the rows of a table with the columns `id`, `ok` and perhaps `note`.

    Args:
        file: JSON lines or CSV, open for reading bytes.
        name: Its name, for messages.
        on_bad: Told each row that cannot be read.

    Raises:
        LogError: it is no such table.
    """
    return rows(file, name, on_bad, ("id", "ok"), _row)


def _row(line: int, cells: Mapping[str, Any]) -> Row:
    any_id, note = str(cells["id"]).strip(), str(cells.get("note") or "")
    f"{any_id}{note}".encode()  # bytes that are no UTF-8 came in as lone surrogates
    return Row(line, any_id, truth_in(cells["ok"], "ok"), note)


def scores_of(word: Word) -> tuple[Verdict, ...]:
    """Return the scores that checks gave the answer: what it is worth to know is learned from these."""
    tier = word.feedback.tier
    return tuple(
        one
        for one in word.story.verdicts
        if one.tier == tier and one.score is not None and not one.is_control
    )


def goes_before(word: Word) -> Feedback | None:
    """Return what somebody said of the answer before that counts more; None where this word counts."""
    mine = word.feedback
    others = [one for one in word.story.feedback if one.tier == mine.tier and one.source != mine.source]
    counts = strongest((*others, mine))
    return None if counts is mine else counts


def feedback_lines(word: Word) -> list[str]:
    """Return what is known of the call, what is said of it, and what that counts for."""
    feedback, row = word.feedback, word.story.exchange
    kind = f"type {row.task_type}" if row.task_type else "no type recognised"
    call = f"{row.id}   {time_of(row.at)}, {feedback.tier} answered, tag {row.tag or '(none)'}, {kind}"
    return [
        *labelled("call", call),
        *labelled("said", said_of(feedback)),
        *labelled("counts", _counts(word)),
    ]


def _counts(word: Word) -> str:
    feedback, task_type = word.feedback, word.story.exchange.task_type
    before = goes_before(word)
    if before is not None:
        return f"not yet: {said_of(before)} goes before"
    of_type = f" at {task_type}" if task_type else ""
    parts = [f"{'for' if feedback.ok else 'against'} {feedback.tier}{of_type}{_beside_checks(word)}"]
    parts += [f"for calibrating {one.check}, which gave it {one.score:g}" for one in scores_of(word)]
    return "; ".join(parts)


def _beside_checks(word: Word) -> str:
    """Return what the checks had said of the answer."""
    said = [one.says for one in word.story.verdicts if one.tier == word.feedback.tier and not one.is_control]
    if not said:
        return ", whose answer nothing had checked"
    had = "not accepted" if "escalate" in said else "accepted" if "accept" in said else "no word on"
    return f", whose answer the checks had {had}"


def feedback_json(word: Word) -> dict[str, Any]:
    """Return the same as what `--json` prints."""
    feedback, row = word.feedback, word.story.exchange
    return {
        "report": "feedback",
        "exchange": row.id,
        "tier": feedback.tier,
        "tag": row.tag,
        "task_type": row.task_type,
        "ok": feedback.ok,
        "source": feedback.source,
        "note": feedback.note,
        "counts": goes_before(word) is None,
        "scores": [{"check": one.check, "score": one.score, "stamp": one.stamp} for one in scores_of(word)],
    }
