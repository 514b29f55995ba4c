"""`leastwise.Cascade`, as who takes nothing else uses it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from leastwise import Cascade

ANSWERS = {"small": "about 4", "middle": "4, or so", "large": "4"}
TIERS = list(ANSWERS)


def ask(tier: str, _task: Any) -> str:
    return ANSWERS[tier]


def is_short(_task: Any, answer: str) -> bool:
    return len(answer) == 1


def test_it_climbs_until_an_answer_is_accepted() -> None:
    given = Cascade(ask, TIERS, check=is_short).run("2 + 2?")

    assert ("4", "large", True, None) == (given.answer, given.tier, given.escalated, given.score)
    assert ["small", "middle", "large"] == [one.tier for one in given.tried]
    assert [False, False, True] == [one.verdict is None for one in given.tried]


@pytest.mark.parametrize(
    ("found", "unparsable", "tier"),
    [
        (5, "escalate", "small"),
        (2, "escalate", "large"),
        ("yes", "escalate", "large"),
        ("yes", "accept", "small"),
    ],
)
def test_what_a_check_finds_is_held_against_the_threshold(found: object, unparsable: Any, tier: str) -> None:
    cascade = Cascade(ask, TIERS, check=lambda *_: found, threshold=3, unparsable=unparsable)

    given = cascade.run("2 + 2?")

    assert tier == given.tier
    assert (float(found) if isinstance(found, int) else None) == given.score


def test_functions_may_be_coroutine_functions() -> None:
    async def later(tier: str, task: Any) -> str:
        await asyncio.sleep(0)
        return ask(tier, task)

    async def passes(task: Any, answer: str) -> bool:
        await asyncio.sleep(0)
        return is_short(task, answer)

    cascade = Cascade(later, TIERS, check=passes)

    assert "4" == asyncio.run(cascade.run_async("2 + 2?")).answer
    with pytest.raises(TypeError, match="is a coroutine function: await run_async"):
        cascade.run("2 + 2?")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tiers": []}, r"tiers=\[\]: expected a list of at least one, cheap to dear"),
        ({"tiers": "small"}, "tiers='small': expected a list"),
        ({"ask": ANSWERS}, "ask={'small': .*}: expected a function"),
        ({"check": "judge"}, "check='judge': expected a function"),
        ({"threshold": "3"}, "threshold='3': expected a number on the check's scale, such as 3"),
        ({"threshold": float("nan")}, "threshold=nan: expected a number"),
        ({"unparsable": "acept"}, "unparsable='acept': expected one of escalate, accept"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"ask": ask, "tiers": TIERS, "check": is_short, **wrong}
    with pytest.raises((TypeError, ValueError), match=words):
        Cascade(given.pop("ask"), given.pop("tiers"), **given)
