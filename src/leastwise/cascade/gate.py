"""Holding a stream back while it is looked at: until its first words pass, or until its end.

The first words are glanced at as they come; whoever objects has the stream dropped, so that no more of
it is paid for. One that may be let go early is, as soon as about fifty tokens of text have passed; what
comes before any text, thinking or a tool's name, is held with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from leastwise.cascade.plan import Plan
from leastwise.ladder import Decision, Verdict
from leastwise.messages import Request, text_of
from leastwise.sse import Events

#: How much of an answer's text is looked at before a stream is let go: about fifty tokens.
_FIRST_WORDS: Final = 200
_DECODE: Final = msgspec.json.Decoder()

GateSays = Literal["wait", "commit", "drop"]


@dataclass(slots=True)
class Gate:
    """Holds a stream back while its checks look at it; made anew for each attempt.

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
    _text: str = ""

    def __call__(self, chunk: bytes) -> GateSays:
        """Look at the next bytes of a stream."""
        was = len(self._text)
        for event in self._events.feed(chunk):
            if event.name == "content_block_delta":
                self._text += _words_in(event.data)
        if len(self._text) > was:
            self.verdict = next(self._objections(), None)
            if self.verdict is not None:
                return "drop"
        self.is_committed = self.may_commit and len(self._text) >= _FIRST_WORDS
        return "commit" if self.is_committed else "wait"

    def _objections(self) -> Iterator[Verdict]:
        for check in self.plan.checks:
            try:
                found = check.glance(self.request, self._text) if check.glance is not None else None
            except Exception:  # noqa: BLE001, S112 - it may still tell by the end, and says then what ails it
                continue
            if found is not None and found.says == "escalate":
                yield found


def _words_in(data: bytes) -> str:
    try:
        event = _DECODE.decode(data)
    except (ValueError, RecursionError):
        return ""
    return text_of(event.get("delta") if isinstance(event, dict) else None, "text")


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
