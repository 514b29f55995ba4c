"""Splits, policies and their controls, on tables that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import Column, Policy, Simulated
from leastwise.evaluate.replay import Line, Split, replay, shuffled, splits_of

TABLE = Outcomes(
    name="t.csv",
    models=("small", "large"),
    scores={"small": (1.0, 1.0, 0.0, 0.0) * 2, "large": (1.0, 1.0, 1.0, 0.0) * 2},
    costs={"small": (1.0,) * 8, "large": (10.0,) * 8},
    kinds=("",) * 8,
    folds=("train",) * 4 + ("test",) * 4,
    checks={"gate": {"small": (1.0, 1.0, 0.0, 0.6) * 2}},
)
GATE = Column("gate", 0.6)
OWN = Split(range(4), range(4, 8))


def test_the_tables_own_split() -> None:
    assert ([Split([0, 1, 2, 3], [4, 5, 6, 7])], "the table's own fold column") == splits_of(TABLE)


def test_random_halves() -> None:
    plain = replace(TABLE, folds=())
    found, how = splits_of(plain, 3, seed=7)

    assert "random halves, seed 7" == how
    assert [[*range(8)]] * 3 == [sorted([*train, *test]) for train, test in found]
    assert [(4, 4)] * 3 == [(len(train), len(test)) for train, test in found]
    assert found[0] != found[1]
    assert found == splits_of(TABLE, 3, seed=7)[0]  # folds are of no account then
    assert found[:1] == splits_of(plain, seed=7)[0]
    assert found != splits_of(plain, 3)[0]


def test_the_larger_half_is_to_fit_on() -> None:
    odd = replace(TABLE, kinds=("",) * 7, folds=())

    assert [(4, 3)] == [(len(train), len(test)) for train, test in splits_of(odd)[0]]


def test_a_policy_beside_its_controls() -> None:
    gate = Policy("cascade", check=GATE)
    found = replay(TABLE, [gate], [OWN], "by hand")

    assert ("by hand", 1, 4, 4, {"large": 1}, {}) == (
        found.how,
        found.splits,
        found.train,
        found.test,
        found.best_models,
        found.dominated,
    )
    (line,) = found.policies
    # One of four is escalated. The same 3.5 a task, without a check, buys the large model for 2.5 of 9 tasks.
    assert (gate, 0.75, 3.5, 0.25, 1.0) == (
        line.policy,
        line.quality,
        line.cost,
        line.escalated,
        line.cascaded,
    )
    assert {"small": 0.75, "large": 0.25} == line.shares
    assert pytest.approx((0.5 + 0.25 * 2.5 / 9, 3.5)) == (line.shuffled, line.shuffled_cost)
    assert pytest.approx((0.1941, 0.9937), abs=1e-4) == (line.low, line.high)  # Clopper and Pearson, 3 of 4
    assert [(0.75, 10.0), (0.5, 1.0), (0.75, 10.0), (0.75, 3.25)] == [
        (one.quality, one.cost) for one in (found.best, *found.singles, found.oracle)
    ]
    assert ["best fixed model", "small", "large", "None"] == [
        str(one.policy) for one in (found.best, *found.singles, found.oracle)
    ]
    assert [0.0, 0.0, 1.0, 0.0, 0.0] == [
        one.broken for one in (line, found.best, *found.singles, found.oracle)
    ]
    assert ("small", "large") == found.fitted[0].otherwise


def test_what_is_governed_may_be_passed_by() -> None:
    dear = Column("gate", 0.6, cost=9.0)
    found = replay(TABLE, [Policy("cascade", check=dear, is_governed=True)], [OWN])

    assert (0.75, 10.0, 0.0, 0.0) == (
        found.policies[0].quality,
        found.policies[0].cost,
        found.policies[0].escalated,
        found.policies[0].cascaded,
    )


def test_types_go_their_ways() -> None:
    outcomes = Outcomes(
        name="t",
        models=("small", "large"),
        scores={"small": (1.0,) * 30 + (0.0,) * 60, "large": (0.0,) * 30 + (1.0,) * 60},
        costs={"small": (1.0,) * 90, "large": (2.0,) * 90},
        kinds=("a",) * 30 + ("b",) * 60,
    )
    found = replay(outcomes, [Policy("table")], [Split(range(90), [0, 1, 2, 89])])
    (line,) = found.policies

    assert (1.0, 1.25, 0.0) == (line.quality, line.cost, line.cascaded)
    assert {"small": 0.75, "large": 0.25} == line.shares
    # Of these four tasks the small model does three, the large one one.
    assert pytest.approx((0.75 * 0.75 + 0.25 * 0.25, 1.25)) == (line.shuffled, line.shuffled_cost)


def test_means_over_splits() -> None:
    other = Split(range(4), [6])
    found = replay(TABLE, [Policy("cascade", check=GATE), Policy("fixed", ("small",))], [OWN, other])
    gate, small = found.policies

    assert (0.875, 7.25, 0.625) == (gate.quality, gate.cost, gate.escalated)
    assert {"small": 0.375, "large": 0.625} == gate.shares
    assert (0.25, 1.0) == (small.quality, small.broken)
    assert {"large": 2} == found.best_models


def test_dominated_models_are_counted() -> None:
    worse = replace(
        TABLE,
        models=("small", "middle", "large"),
        scores={**TABLE.scores, "middle": (0.0,) * 8},
        costs={**TABLE.costs, "middle": (2.0,) * 8},
    )

    assert {"middle": 2} == replay(worse, [], [OWN, OWN]).dominated


def test_simulated_judges_of_two_splits_agree() -> None:
    policies = [Policy("cascade", check=Simulated(0.9))]
    one, two = (replay(TABLE, policies, [OWN] * times).policies for times in (1, 2))

    assert one == two


# --- the same money without skill --------------------------------------------------------------------

MEANS = {"small": (0.5, 1.0), "large": (0.9, 11.0)}


@pytest.mark.parametrize(
    ("shares", "cost", "dealt"),
    [
        ({"small": 0.5, "large": 0.5}, 6.0, (0.7, 6.0)),
        (
            {"small": 0.5, "large": 0.5},
            8.5,
            (0.8, 8.5),
        ),  # half of what the small one had goes to the large one
        ({"small": 0.5, "large": 0.5}, 3.5, (0.6, 3.5)),
        ({"small": 0.5, "large": 0.5}, 20.0, (0.9, 11.0)),  # more than it can spend
        ({"small": 0.5, "large": 0.5}, 0.5, (0.5, 1.0)),
        ({"small": 1.0, "large": 0.0}, 1.0, (0.5, 1.0)),
        ({"small": 0.0, "large": 1.0}, 11.0, (0.9, 11.0)),
    ],
)
def test_shuffled(shares: dict[str, float], cost: float, dealt: tuple[float, float]) -> None:
    assert pytest.approx(dealt) == shuffled(MEANS, shares, cost)


def test_one_model_is_itself_shuffled() -> None:
    line: Line = replay(TABLE, [], [OWN]).best

    assert (line.quality, line.cost) == (line.shuffled, line.shuffled_cost)
