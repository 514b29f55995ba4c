"""Whether promises are kept, counted on a table that can be worked out by hand."""

from __future__ import annotations

from math import sqrt

import pytest

from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import Column
from leastwise.evaluate.promise import Promise, promise
from leastwise.evaluate.replay import Split

#: Of 100 tasks the gate accepts the first 80, of which the small model gets 4 wrong, the last of them.
TABLE = Outcomes(
    name="t.csv",
    models=("small", "large"),
    scores={"small": (1.0,) * 76 + (0.0,) * 24, "large": (1.0,) * 100},
    costs={"small": (1.0,) * 100, "large": (10.0,) * 100},
    kinds=("",) * 100,
    checks={"gate": {"small": (1.0,) * 80 + (0.2,) * 19 + (None,)}},
)
WAY = ("small", "large")
GATE = Column("gate", 0.5)
#: The first sees none of the wrong ones, the second all of them.
LUCKY = Split(range(76), range(76, 100))
UNLUCKY = Split(range(40, 100), range(40))


def test_a_promise_is_counted() -> None:
    found = promise(TABLE, GATE, WAY, [LUCKY, UNLUCKY], target=0.045, sure=0.95)

    assert (
        Promise(
            check="gate",
            models=WAY,
            target=0.045,
            sure=0.95,
            splits=2,
            granted=1,  # 76 without a fault are enough; 4 of 40 are not
            thresholds={"1": 1},
            broken=1,  # 4 of 80
            allowed=found.allowed,
            over=1,  # 4 of 4
            accepted=found.accepted,
            bad=1.0,
            quality=20 / 24,
            cost_usd=(24 * 1 + 20 * 10) / 24,
            dearest_quality=1.0,
            dearest_cost_usd=10.0,
            governor_lets=1,
            cost_less=1,  # 9.33 against 10
            governor_right=1,
        )
        == found
    )
    assert pytest.approx((0.05 + 2 * sqrt(0.05 * 0.95 / 2), 4 / 24)) == (found.allowed, found.accepted)


def test_a_promise_that_holds() -> None:
    found = promise(TABLE, GATE, WAY, [LUCKY], target=0.06, sure=0.9)

    assert (1, 0, 1) == (found.granted, found.broken, found.over)


def test_a_check_that_does_not_pay() -> None:
    found = promise(TABLE, Column("gate", 0.5, cost=9.0), WAY, [LUCKY], target=0.06, sure=0.9)

    assert (1, 0, 0, 1) == (found.granted, found.governor_lets, found.cost_less, found.governor_right)


def test_nothing_is_granted() -> None:
    found = promise(TABLE, GATE, WAY, [UNLUCKY], target=0.05, sure=0.95)

    assert (0, {}, 0, 0.0, 0.0) == (found.granted, found.thresholds, found.broken, found.quality, found.bad)


def test_nothing_is_accepted_elsewhere() -> None:
    found = promise(TABLE, GATE, WAY, [Split(range(76), range(81, 100))], target=0.05, sure=0.95)

    assert (1, 0, 0.0, 0.0) == (found.granted, found.over, found.accepted, found.bad)
