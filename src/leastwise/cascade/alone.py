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
from inspect import isawaitable, iscoroutine
from math import isfinite
from typing import Any, Generic, TypeVar, cast, get_args

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
        ValueError: no tiers, or `unparsable` is neither.
        TypeError: `ask` or `check` is no function, or `threshold` no number.

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
        if not tiers or isinstance(tiers, str):
            message = f"tiers={tiers!r}: expected a list of at least one, cheap to dear"
            raise ValueError(message)
        functions: dict[str, object] = {"ask": ask, "check": check}
        for name, function in functions.items():
            if not callable(function):
                message = f"{name}={function!r}: expected a function"
                raise TypeError(message)
        told: object = threshold
        if told is not None and not (isinstance(told, int | float) and isfinite(told)):
            message = f"threshold={threshold!r}: expected a number on the check's scale, such as 3"
            raise TypeError(message)
        if unparsable not in get_args(Unparsable):
            message = f"unparsable={unparsable!r}: expected one of {', '.join(get_args(Unparsable))}"
            raise ValueError(message)
        self._ask, self._check = ask, check
        self._tiers, self._threshold, self._unparsable = tuple(tiers), threshold, unparsable

    def run(self, task: Any) -> Climbed[T]:
        """Return the first answer that is accepted, else the last tier's.

        Raises:
            TypeError: `ask` or `check` is a coroutine function.
        """
        steps, value = self._climb(task), None
        try:
            while True:
                value = steps.send(value)()
                if iscoroutine(value):
                    value.close()
                    message = "ask or check is a coroutine function: await run_async(task)"
                    raise TypeError(message)
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
