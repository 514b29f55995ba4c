"""One request explained, from what the ledger kept of it: never its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import structs

from leastwise.cascade import NO_EVIDENCE, Trial
from leastwise.cascade.trials import quality_of
from leastwise.ladder import DEFAULT_LADDER, Code, Ladder, Verdict
from leastwise.ledger import Entry, Feedback
from leastwise.messages import Usage
from leastwise.models import canonical
from leastwise.money import show, to_usd
from leastwise.report.table import labelled, wrapped
from leastwise.stores import Story

_RESULTS: Final = {
    "error": "nobody answered",
    "cut": "the answer broke off",
    "abandoned": "the caller left before the end",
}
_HOW: Final = {
    "asked": "the model asked for",
    "learned": "learned from this tag's traffic",
    "stated": "stated by the caller",
    "assumed": "assumed: nobody said which model would have been called",
}
_MISFIT: Final = frozenset({400, 404, 413})
_CHECKS: Final = frozenset({"classifier", "judge"})


@dataclass(frozen=True, slots=True)
class Escalation:
    """One answer that was not accepted: whose, who was asked instead, what it had cost, and why."""

    before: str
    after: str
    discarded_nusd: int
    words: str


@dataclass(frozen=True, slots=True)
class Why:
    """A story with its decision read.

    `reasons` are (code, words, before, after), in order; `same_quality` is what is known of the answer.
    """

    story: Story
    reasons: tuple[tuple[str, str, str, str], ...]
    is_sure: bool
    same_quality: str

    @property
    def is_moved(self) -> bool:
        """Whether another model answered than would have without us."""
        row = self.story.exchange
        is_other = row.served != "" and canonical(row.served) != canonical(row.baseline)
        return is_other and not self.is_trial

    @property
    def is_trial(self) -> bool:
        """Whether it is a pair of a trial, whose answer nobody got."""
        return self.story.exchange.kind == "trial"

    @property
    def is_hit(self) -> bool:
        """Whether a kept answer was given again."""
        return self.story.exchange.cache == "hit"

    @property
    def could_move(self) -> bool:
        """Whether it was observed, and routing would have chosen another model."""
        row = self.story.exchange
        return row.would not in ("", row.asked)

    @property
    def escalations(self) -> tuple[Escalation, ...]:
        """Where checks did not accept an answer, in order."""
        return tuple(
            Escalation(before, after, self._paid_for(before), words)
            for code, words, before, after in self.reasons
            if code == Code.ESCALATED
        )

    def _paid_for(self, model: str) -> int:
        """Return what a model's answers to this request cost, in nano-dollars."""
        name = canonical(model)
        answers = (one for one in self.story.entries if one.purpose not in _CHECKS)
        return sum(one.cost_nusd for one in answers if canonical(one.model) == name)

    @property
    def next(self) -> str:
        """What to do where the answer was bad, or the call could have been cheaper."""
        row = self.story.exchange
        which = f" --tag {row.tag}" if row.tag else ""
        if self.is_trial:
            return f"leastwise trial {row.tag} --status"
        if self.is_hit:
            return f"leastwise cache clear{which}"
        if self.is_moved and not self.story.feedback:
            return f"leastwise feedback {row.id} --bad"
        if self.is_moved:
            return f"leastwise off{which}"
        if self.could_move:
            return f"leastwise on{which} --percent 10"
        return "leastwise report --by tag"


def read_why(
    story: Story,
    trials: Mapping[tuple[str, str], Trial] = NO_EVIDENCE.trials,
    ladder: Ladder = DEFAULT_LADDER,
) -> Why:
    """Return a story with its decision read.

    Args:
        story: What the ledger has of it.
        trials: The latest of each tag and tier (`Evidence.trials`).
        ladder: The tiers.
    """
    kept: dict[str, Any] = msgspec.json.decode(story.exchange.decision_json or "{}")
    reasons = tuple((str(code), *map(str, rest)) for code, *rest in kept.get("reasons", ()))
    row = story.exchange
    known = quality_of(
        trials, ladder, tag=row.tag, tier=row.tier, model=row.served or row.baseline, baseline=row.baseline
    )
    return Why(story, reasons, bool(kept.get("sure", True)), known)  # type: ignore[arg-type]  # written as fours


def why_lines(why: Why) -> list[str]:
    """Return the explanation as text."""
    row = why.story.exchange
    answered = row.served or "by nobody"
    lines = wrapped(f"call {row.id}   {time_of(row.at)}")
    lines += labelled("asked", f"{row.asked}    answered {answered}{f' ({row.tier})' if row.tier else ''}")
    lines += labelled("mode", f"{row.mode}, policy {row.policy_hash}")
    lines += labelled("for", _whom(why))
    for number, (code, words, before, after) in enumerate(why.reasons):
        step = f": {before} -> {after}" if before != after else ""
        lines += labelled("" if number else "why", f"{words} [{code}{step}]")
    if why.could_move:
        lines += labelled("would", f"{row.would}, saving {show(row.could_nusd)}, quality unknown")
    if why.is_trial:
        lines += labelled("trial", "nobody got this answer; what it cost is lost among the savings")
    else:
        lines += _check_lines(why)
    lines += _cost_lines(why)
    for number, entry in enumerate(why.story.entries, start=1):
        lines += labelled("tried" if number == 1 else "", f"{number}. {_attempt(why, entry)}")
    if row.result != "ok":
        lines += labelled("ended", f"{_RESULTS.get(row.result, row.result)}, status {row.status}")
    if row.fault:
        lines += labelled("! fault", f"{row.fault}; the call went as asked")
    lines += labelled("took", f"{row.latency_s:.1f} s")
    kept = "not in the ledger; answers that are kept: leastwise cache list" if row.cache else "not kept"
    lines += labelled("text", kept)
    return [*lines, *labelled("do", f"{why.next}    {_what_it_does(why)}")]


def time_of(seconds: float) -> str:
    """Return a moment such as `18 Nov 2026 14:02:11 UTC`."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at.day} {at:%b %Y %H:%M:%S} UTC"


def _whom(why: Why) -> str:
    row = why.story.exchange
    kind = f"type {row.task_type}" if row.task_type else "no type recognised"
    told = "type not looked for" if why.is_hit else f"{kind} ({'sure' if why.is_sure else 'unsure'})"
    facts = [f"tag {row.tag or '(none)'}", told]
    facts += [
        f"{name} {value}" for name, value in (("complexity", row.complexity), ("key", row.key)) if value
    ]
    return ", ".join(facts)


def _check_lines(why: Why) -> list[str]:
    """Return what the checks said of each answer, what is known of its quality, and who spoke of it."""
    same = f"same quality: {why.same_quality}"
    said: dict[str, list[Verdict]] = {}
    for one in why.story.verdicts:
        said.setdefault(one.tier, []).append(one)
    names = dict.fromkeys(one.check for one in why.story.verdicts)
    lines = [] if said else labelled("checks", f"not run; {same}")
    for number, (tier, verdicts) in enumerate(said.items()):
        asked = {one.check for one in verdicts}
        plain = ", ".join(one.check for one in verdicts if _is_plain(one))
        parts = [f"{plain}: accept."] if plain else []
        parts += [_verdict(one) for one in verdicts if not _is_plain(one)]
        parts += [f"{name}: not asked." for name in names if name not in asked]
        lines += labelled("" if number else "checks", f"{tier}   {' '.join(parts)}")
    if said:
        lines += labelled("", same)
    for number, word in enumerate(why.story.feedback):
        text = f"{time_of(word.at)}, {word.tier}'s answer: {said_of(word)}"
        lines += labelled("" if number else "feedback", text)
    return lines


def _is_plain(one: Verdict) -> bool:
    """Tell whether nothing is to be said of a verdict but that it accepts."""
    return one.says == "accept" and one.score is None


def _verdict(one: Verdict) -> str:
    """Return a verdict such as `judge: 2/5 (wrong) -> escalate.`."""
    name = f"{one.check}, given a planted bad answer" if one.is_control else one.check
    own = ", its own judge" if one.is_self and one.says != "abstain" else ""  # which says so itself
    return f"{name}: {one.words} -> {one.says}{own}."


def said_of(word: Feedback) -> str:
    """Return what somebody said of an answer, in a line."""
    note = f": {word.note}" if word.note else ""
    return f"{'ok' if word.ok else 'bad'}, by {word.source}{note}"


def _cost_lines(why: Why) -> list[str]:
    row = why.story.exchange
    saved = f", saved {show(row.saved_nusd)}, re-priced" if why.is_moved or why.is_hit else ""
    text = f"{show(row.spent_nusd)} (as asked {show(row.baseline_nusd)}{saved})"
    judged = sum(entry.cost_nusd for entry in why.story.entries if entry.purpose == "judge")
    if judged:
        text += f"; {show(judged)} of it for judging"
    if row.checks_nusd > judged:
        text += f"; {show(row.checks_nusd - judged)} of it for a small model's advice"
    if row.discarded_nusd:
        text += f"; {show(row.discarded_nusd)} of it for answers nobody got"
    if row.lost_cache_nusd:
        text += f"; {show(row.lost_cache_nusd)} of it for a lost prompt cache"
    if row.certainty != "exact":
        text += f"; {row.certainty}"
    how = _HOW.get(row.baseline_how, row.baseline_how)
    return [*labelled("cost", text), *labelled("baseline", f"{row.baseline}, {how}")]


def _attempt(why: Why, entry: Entry) -> str:
    status = str(entry.status) if entry.status else "no answer"
    has_misfit = any(code == Code.MISFIT for code, *_ in why.reasons)
    misfit = " (misfit)" if has_misfit and entry.status in _MISFIT else ""
    used = entry.usage.prompt_tokens or entry.usage.output_tokens
    tokens = f"{_tokens(entry.usage)}, " if used else ""
    certainty = "" if entry.certainty == "exact" else f" {entry.certainty}"
    ids = " ".join(filter(None, ("", entry.message_id, entry.request_id)))
    return f"{entry.purpose} {entry.model} {status}{misfit}: {tokens}{show(entry.cost_nusd)}{certainty} {ids}"


def _tokens(usage: Usage) -> str:
    cached = usage.cache_read_input_tokens
    read = f" ({cached:,} from the prompt cache)" if cached else ""
    return f"{usage.prompt_tokens:,}{read} + {usage.output_tokens:,} tokens"


def _what_it_does(why: Why) -> str:
    tag = why.story.exchange.tag
    whose = f"calls of tag {tag}" if tag else "all calls"
    if why.is_trial:
        return "how the trial stands"
    if why.is_hit:
        return f"where this answer was bad: kept answers{f' of tag {tag}' if tag else ''} are forgotten"
    if why.is_moved and not why.story.feedback:
        return f"where this answer was bad: it counts against {why.story.exchange.tier or 'that model'}"
    if why.is_moved:
        return f"where answers are bad: {whose} go as asked"
    if why.could_move:
        return f"a tenth of {whose} go to the tier that should do"
    return "where the money goes"


def why_json(why: Why) -> dict[str, Any]:
    """Return the explanation as what `--json` prints."""
    row = why.story.exchange
    return {
        "report": "why",
        "exchange": row.id,
        "at": datetime.fromtimestamp(row.at, UTC),
        "asked": row.asked,
        "served": row.served,
        "tier": row.tier,
        "mode": row.mode,
        "tag": row.tag,
        "key": row.key,
        "session": row.session,
        "complexity": row.complexity,
        "task_type": row.task_type,
        "is_sure": why.is_sure,
        "reasons": [
            {"code": code, "words": words, "before": before, "after": after}
            for code, words, before, after in why.reasons
        ],
        "policy": row.policy_hash,
        "would": row.would if why.could_move else "",
        "could_save_usd": to_usd(row.could_nusd),
        "result": row.result,
        "status": row.status,
        "checks": [_verdict_json(one) for one in why.story.verdicts],
        "checked": row.checked,
        "escalations": [
            {
                "before": one.before,
                "after": one.after,
                "discarded_usd": to_usd(one.discarded_nusd),
                "words": one.words,
            }
            for one in why.escalations
        ],
        "feedback": [asdict(one) | {"at": datetime.fromtimestamp(one.at, UTC)} for one in why.story.feedback],
        "same_quality": why.same_quality,
        "cost_usd": to_usd(row.spent_nusd),
        "checks_usd": to_usd(row.checks_nusd),
        "discarded_usd": to_usd(row.discarded_nusd),
        "lost_cache_usd": to_usd(row.lost_cache_nusd),
        "as_asked_usd": to_usd(row.baseline_nusd),
        "saved_usd": to_usd(row.saved_nusd),
        "baseline": row.baseline,
        "baseline_how": row.baseline_how,
        "certainty": row.certainty,
        "latency_s": row.latency_s,
        "fault": row.fault,
        "text": None,
        "cache": row.cache,
        "attempts": [_entry_json(entry) for entry in why.story.entries],
        "next": why.next,
    }


def _verdict_json(one: Verdict) -> dict[str, Any]:
    value = structs.asdict(one)
    return value | {"cost_usd": to_usd(value.pop("cost_nusd"))}


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "entry": entry.id,
        "purpose": entry.purpose,
        "parent": entry.parent,
        "provider": entry.provider,
        "model": entry.model,
        "at": datetime.fromtimestamp(entry.asked_at, UTC),
        "status": entry.status,
        "message_id": entry.message_id,
        "request_id": entry.request_id,
        "usage": asdict(entry.usage),
        "price_row": entry.price_row,
        "cost_usd": to_usd(entry.cost_nusd),
        "reserved_usd": to_usd(entry.worst_nusd),
        "certainty": entry.certainty,
    }
