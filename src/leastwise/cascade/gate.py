"""Holding a stream back while it is looked at: until its first words pass, or until its end.

The first words are glanced at as they come; whoever objects has the stream dropped, so that no more of
it is paid for. One that may be let go early is, as soon as about fifty tokens of text, or of what a tool is
called with, have passed; what comes before any, such as thinking, is held with it.

A glance may look through all of the text, so one that is held on is looked at ever more seldom: the work
grows with the answer, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from leastwise.cascade.combine import read_finding
from leastwise.cascade.plan import Plan
from leastwise.ladder import Decision, Verdict
from leastwise.messages import Request, text_of
from leastwise.sse import Events

#: How much of an answer's text is looked at before a stream is let go: about fifty tokens.
_FIRST_WORDS: Final = 200
#: By how much the text has grown when it is looked at again after that.
_GROWTH: Final = 1.25
_DECODE: Final = msgspec.json.Decoder()

GateSays = Literal["wait", "commit", "drop"]


@dataclass(slots=True)
class Gate:
    """Holds a stream back while its checks look at it; begins anew with each attempt.

    Attributes:
        request: What was asked.
        plan: The checks.
        may_commit: Whether it may be let go before its end.
        verdict: The objection to the first words, if any.
        is_committed: Whether it was let go.
    """

    request: Request
    plan: Plan
    may_commit: bool
    verdict: Verdict | None = None
    is_committed: bool = False
    _events: Events = field(default_factory=Events)
    _text: list[str] = field(default_factory=list)
    _size: int = 0
    _look_at: float = _FIRST_WORDS

    def begin(self) -> None:
        """Forget what an attempt before has brought: the same is asked for again."""
        self._events, self._text, self._size, self._look_at = Events(), [], 0, _FIRST_WORDS

    def __call__(self, chunk: bytes) -> GateSays:
        """Look at the next bytes of a stream."""
        has_grown = False
        for event in self._events.feed(chunk):
            if event.name == "content_block_delta":
                words, json = _grown_by(event.data)
                has_grown = has_grown or bool(words)
                self._text.append(words)
                self._size += len(words) + len(json)
        if has_grown and (self._size < _FIRST_WORDS or self._size >= self._look_at):
            self._text = ["".join(self._text)]
            self._look_at = max(_FIRST_WORDS, _GROWTH * self._size)
            self.verdict = next(self._objections(self._text[0]), None)
            if self.verdict is not None:
                return "drop"
        self.is_committed = self.may_commit and self._size >= _FIRST_WORDS
        return "commit" if self.is_committed else "wait"

    def _objections(self, text: str) -> Iterator[Verdict]:
        for check in self.plan.checks:
            if check.glance is None:
                continue
            try:
                found = read_finding(check.glance(self.request, text), check.name)
            except Exception:  # noqa: BLE001, S112 - it may still tell by the end, and says then what ails it
                continue
            if found is not None and found.says == "escalate":
                yield found


def _grown_by(data: bytes) -> tuple[str, str]:
    """Return by what text and JSON of a tool's input a delta makes an answer grow."""
    try:
        event = _DECODE.decode(data)
    except (ValueError, RecursionError):
        return "", ""
    delta = event.get("delta") if isinstance(event, dict) else None
    return text_of(delta, "text"), text_of(delta, "partial_json")


def gate_for(plan: Plan, request: Request, decision: Decision) -> Gate | None:
    """Return what holds back the answer of a live reply; None where nothing is checked.

    It may be let go early where the caller or the configuration says so, or, left open, where all checks
    are free and each can tell by the first words that it may become an answer.
    """
    if not plan.checks or not decision.climbs:
        return None
    can_glance = all(check.glance is not None for check in plan.checks)
    is_commit = plan.stream == "commit" or (plan.stream == "auto" and plan.is_free and can_glance)
    return Gate(request, plan, may_commit=is_commit and request.is_stream)
