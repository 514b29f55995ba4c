"""The cascade as a plain object, for who takes nothing else: your models, your check.

    cascade = Cascade(ask, ["claude-haiku-5-5", "claude-sonnet-5-5"], check=passes)
    given = cascade.run("Write a haiku about rain.")

It calls nothing but the two functions it is given, keeps nothing, and knows no prices: whether it pays
is for who uses it to see, by `given.tried`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any, Generic, TypeVar, cast

from leastwise.cascade.combine import read_finding
from leastwise.cascade.plan import Unparsable
from leastwise.ladder import Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tried(Generic[T]):
    """One tier's answer and what was said of it; None where it was not checked: the last is not."""

    tier: str
    answer: T
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Climbed(Generic[T]):
    """What a cascade came to.

    Attributes:
        answer: The answer.
        tier: Whose it is.
        tried: Every tier that was asked, in order, with its answer.
    """

    answer: T
    tier: str
    tried: tuple[Tried[T], ...]

    @property
    def escalated(self) -> bool:
        """Whether more than one tier was asked."""
        return len(self.tried) > 1

    @property
    def score(self) -> float | None:
        """The first answer's score; None where its check gave none."""
        verdict = self.tried[0].verdict
        return verdict.score if verdict is not None else None


class Cascade(Generic[T]):
    """Asks the cheapest tier first, checks the answer, and asks the next where it is not accepted.

    Args:
        ask: Called with a tier and the task; returns the answer.
        tiers: Models or tiers, cheap to dear, as `ask` knows them.
        check: Called with the task and an answer; returns whether it is good enough, a score, or a
            `Verdict`. One that raises stops the cascade, as `ask` does.
        threshold: The least score that is good enough; needed where `check` gives scores.
        unparsable: What becomes of an answer of which the check cannot tell.

    Raises:
        ValueError: no tiers.

    >>> given = Cascade(
    ...     lambda tier, task: f"{tier}: {task}",
    ...     ["small", "large"],
    ...     check=lambda _, answer: answer.startswith("large"),
    ... ).run("hello")
    >>> given.answer, given.escalated
    ('large: hello', True)
    """

    def __init__(
        self,
        ask: Callable[[str, Any], T | Awaitable[T]],
        tiers: Sequence[str],
        *,
        check: Callable[[Any, T], Any],
        threshold: float | None = None,
        unparsable: Unparsable = "escalate",
    ) -> None:
        if not tiers:
            message = "tiers is empty: name at least one, cheap to dear"
            raise ValueError(message)
        self._ask, self._check = ask, check
        self._tiers, self._threshold, self._unparsable = tuple(tiers), threshold, unparsable

    def run(self, task: Any) -> Climbed[T]:
        """Return the first answer that is accepted, else the last tier's."""
        steps, value = self._climb(task), None
        try:
            while True:
                value = steps.send(value)()
        except StopIteration as stop:
            return cast("Climbed[T]", stop.value)

    async def run_async(self, task: Any) -> Climbed[T]:
        """Do the same where `ask` or `check` are coroutine functions."""
        steps, value = self._climb(task), None
        try:
            while True:
                value = steps.send(value)()
                value = await value if isawaitable(value) else value
        except StopIteration as stop:
            return cast("Climbed[T]", stop.value)

    def _climb(self, task: Any) -> Generator[Callable[[], Any], Any, Climbed[T]]:
        tried: list[Tried[T]] = []
        for tier in self._tiers[:-1]:
            answer = yield partial(self._ask, tier, task)
            found = yield partial(self._check, task, answer)
            verdict = read_finding(found, "check", self._threshold)
            tried.append(Tried(tier, answer, verdict))
            says = "accept" if verdict is None else verdict.says
            if says == "accept" or (says == "abstain" and self._unparsable == "accept"):
                return Climbed(answer, tier, tuple(tried))
        last = self._tiers[-1]
        answer = yield partial(self._ask, last, task)
        return Climbed(answer, last, (*tried, Tried(last, answer, None)))
