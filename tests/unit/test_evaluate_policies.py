"""What comes of policies, on a table of four tasks that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import sqrt

import pytest

from leastwise.errors import ConfigError
from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import (
    Column,
    Course,
    Fitted,
    Policy,
    Rows,
    Simulated,
    Way,
    course,
    fees,
    fit,
    mean,
    oracle,
    paying,
    terms_of,
    undominated,
)

#: The gate lets one wrong answer of the small model pass, the last.
TABLE = Outcomes(
    name="t.csv",
    models=("small", "middle", "large"),
    scores={
        "small": (1.0, 1.0, 0.0, 0.0),
        "middle": (1.0, 0.0, 1.0, 0.0),
        "large": (1.0, 1.0, 1.0, 0.0),
    },
    costs={"small": (1.0,) * 4, "middle": (2.0,) * 4, "large": (10.0, 10.0, 14.0, 6.0)},
    kinds=("",) * 4,
    checks={"gate": {"small": (1.0, 1.0, None, 0.6), "middle": (1.0, 0.2, 1.0, 0.0)}},
)
ALL = range(4)
GATE = Column("gate", 0.6, cost=0.5)


def fitted(policy: Policy, outcomes: Outcomes, train: Rows, pool: Way) -> Fitted:
    return fit(policy, outcomes, train, pool, partial(terms_of, outcomes))


def governed(outcomes: Outcomes, way: Way, check: Column, rows: Rows) -> Way:
    return paying(outcomes, terms_of(outcomes, way, check), rows)


def test_names_of_policies() -> None:
    assert [
        "best fixed model",
        "small",
        "type table, no check",
        "cascade gate >= 0.6",
        "cascade SIMULATED 0.9, governed",
    ] == [
        str(Policy("fixed")),
        str(Policy("fixed", ("small",))),
        str(Policy("table")),
        str(Policy("cascade", check=GATE)),
        str(Policy("cascade", check=Simulated(0.9), is_governed=True)),
    ]


def test_cascades_have_checks() -> None:
    with pytest.raises(ValueError, match="cascade with the check None: a cascade has a check"):
        Policy("cascade")
    with pytest.raises(ValueError, match=r"fixed with the check gate >= 0\.6"):
        Policy("fixed", check=GATE)


def test_dominated_models_are_left_out() -> None:
    assert ("small", "large") == undominated(TABLE, ALL)  # the middle one is no better than the small one
    assert ("small", "middle") == undominated(TABLE, [0, 2])  # and here as good as the large one
    assert ("small",) == undominated(TABLE, [3])  # all fail


def test_a_better_model_of_the_same_cost_comes_first() -> None:
    same = Outcomes("t", ("a", "b"), {"a": (0.0,), "b": (1.0,)}, {"a": (1.0,), "b": (1.0,)}, ("",))

    assert ("b",) == undominated(same, [0])


def test_one_model() -> None:
    assert Course(
        quality=[1.0, 1.0, 0.0, 0.0], cost=[1.0] * 4, escalated=[0.0] * 4, answered={"small": [1.0] * 4}
    ) == course(TABLE, ("small",), None)


def test_a_cascade_pays_for_what_it_does_not_serve() -> None:
    found = course(TABLE, ("small", "large"), GATE)

    assert (
        Course(
            quality=[1.0, 1.0, 1.0, 0.0],
            cost=[1.5, 1.5, 15.5, 1.5],  # the small model, half of that for the check, and once the large one
            escalated=[0.0, 0.0, 1.0, 0.0],
            answered={"small": [1.0, 1.0, 0.0, 1.0], "large": [0.0, 0.0, 1.0, 0.0]},
            may_escalate=True,
        )
        == found
    )


def test_a_cascade_of_three() -> None:
    found = course(TABLE, ("small", "middle", "large"), Column("gate", 0.8))

    assert [1.0, 1.0, 1.0, 0.0] == found.quality
    assert [1.0, 1.0, 3.0, 9.0] == found.cost
    assert [0.0, 0.0, 1.0, 1.0] == found.escalated
    assert [0.0, 0.0, 0.0, 1.0] == found.answered["large"]


def test_a_simulated_judge_is_worked_out() -> None:
    found = course(TABLE, ("small", "large"), Simulated(0.9, cost=0.1, of="large"))

    # A check costs 1, a tenth of what the large model, the best one, costs on average.
    assert pytest.approx([1.0, 1.0, 0.9, 0.0]) == found.quality
    assert pytest.approx([3.0, 3.0, 14.6, 7.4]) == found.cost
    assert pytest.approx([0.1, 0.1, 0.9, 0.9]) == found.escalated
    assert pytest.approx([0.9, 0.9, 0.1, 0.1]) == found.answered["small"]


def test_what_a_check_costs() -> None:
    assert [0.5] * 4 == fees(TABLE, GATE)
    assert [1.0] * 4 == fees(TABLE, Simulated(0.8, cost=0.1, of="large"))


@pytest.mark.parametrize("is_governed", [False, True])
def test_a_simulated_check_costs_a_share_of_the_best_model_of_the_training_part(*, is_governed: bool) -> None:
    def by(check: Simulated) -> Fitted:
        policy = Policy("cascade", ("small", "large"), check, is_governed)
        return fit(policy, TABLE, [0, 2], undominated(TABLE, [0, 2]), partial(terms_of, TABLE))

    assert Simulated(0.9, of="middle") == by(Simulated(0.9)).check  # not the large one, which only rows
    assert Simulated(0.9, of="large") == by(Simulated(0.9, of="large")).check  # to try on show


def test_the_oracle_takes_the_cheapest_of_the_best() -> None:
    found = oracle(TABLE)

    assert [1.0, 1.0, 1.0, 0.0] == found.quality
    assert [1.0, 1.0, 2.0, 1.0] == found.cost
    assert {"small": [1, 1, 0, 1], "middle": [0, 0, 1, 0], "large": [0] * 4} == found.answered


def test_mean() -> None:
    assert 10.0 == mean(TABLE.costs["large"], [0, 2, 3])


# --- fitting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "made"),
    [
        (Policy("fixed"), Fitted(("large",))),
        (Policy("fixed", ("middle",)), Fitted(("middle",))),
        (Policy("cascade", check=GATE), Fitted(("small", "large"), check=GATE)),
        (Policy("cascade", ("middle", "large"), GATE), Fitted(("middle", "large"), check=GATE)),
    ],
)
def test_fitting(policy: Policy, made: Fitted) -> None:
    assert made == fitted(policy, TABLE, ALL, ("small", "large"))


def test_what_the_table_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"t\.csv: no model 'huge'; there are small, middle, large"):
        fitted(Policy("fixed", ("huge",)), TABLE, ALL, ("large",))
    with pytest.raises(
        ConfigError, match=r"t\.csv: no column large\|gate; name another check, or other tiers"
    ):
        course(TABLE, ("large", "small"), GATE)
    with pytest.raises(ConfigError, match=r"t\.csv: no column small\|judge"):
        course(TABLE, ("small", "large"), Column("judge", 0.5))


def of_kinds(*kinds: tuple[str, int, float]) -> Outcomes:
    """Return tasks by type: how many, and what the small model gains over the large one."""
    gains = [(name, gain) for name, count, gain in kinds for _ in range(count)]
    return Outcomes(
        name="t",
        models=("small", "large"),
        scores={
            "small": tuple(float(gain > 0) for _, gain in gains),
            "large": tuple(float(gain < 0) for _, gain in gains),
        },
        costs={"small": (1.0,) * len(gains), "large": (2.0,) * len(gains)},
        kinds=tuple(name for name, _ in gains),
    )


def test_the_table_moves_a_type_where_it_is_sure() -> None:
    outcomes = of_kinds(("a", 30, 1), ("b", 60, -1))
    # Gains overall: mean -1/3, variance 8/9. Of type a: (20 * -1/3 + 30 * 1) / 50 and (20 * 8/9) / 50.
    bound = 0.4667 - 1.645 * sqrt(0.3556 / 30)

    assert bound > 0
    assert Fitted(("large",), {"a": ("small",)}) == fitted(
        Policy("table"), outcomes, range(90), ("small", "large")
    )


def test_the_table_falls_back_where_evidence_is_thin() -> None:
    outcomes = of_kinds(("a", 3, 1), ("b", 60, -1))

    assert Fitted(("large",)) == fitted(Policy("table"), outcomes, range(63), ("small", "large"))


def test_the_table_looks_at_the_training_part_only() -> None:
    outcomes = of_kinds(("a", 30, 1), ("b", 60, -1))

    assert Fitted(("large",)) == fitted(Policy("table"), outcomes, range(25, 90), ("small", "large"))


def test_the_table_turns_to_no_dearer_model() -> None:
    outcomes = of_kinds(("a", 30, -1), ("b", 60, 1))  # large is better at a, small is best

    assert Fitted(("small",)) == fitted(Policy("table"), outcomes, range(90), ("small",))


# --- the governor ------------------------------------------------------------------------------------


def priced(kinds: int, accepted: int, *, large: float = 10.0) -> Outcomes:
    """Return 20 tasks of each type; the gate accepts the small model's answers to so many of each."""
    count = 20 * kinds
    return Outcomes(
        name="t",
        models=("small", "large"),
        scores={"small": (0.0,) * count, "large": (1.0,) * count},
        costs={"small": (1.0,) * count, "large": (large,) * count},
        kinds=tuple(str(row // 20) for row in range(count)),
        checks={"gate": {"small": tuple(float(row % 20 < accepted) for row in range(count))}},
    )


@pytest.mark.parametrize(
    ("accepted", "fee", "way"),
    [
        (10, 0.5, ("small", "large")),  # about 1 + 0.5 + 1/2 * 10 < 10
        (10, 8.0, ("large",)),  # 14
        (0, 5.0, ("large",)),  # 16
        (20, 5.0, ("small", "large")),  # 6
    ],
)
def test_where_the_governor_begins(accepted: int, fee: float, way: tuple[str, ...]) -> None:
    assert way == governed(priced(1, accepted), ("small", "large"), Column("gate", 0.6, cost=fee), range(20))


def test_the_governor_knows_that_hard_tasks_cost_more() -> None:
    alike = priced(1, 10)
    hard = replace(alike, costs={**alike.costs, "large": (2.0,) * 10 + (18.0,) * 10})
    gate = Column("gate", 0.6, cost=1.5)

    assert ("small", "large") == governed(alike, ("small", "large"), gate, range(20))  # about 2.5 + 1/2 * 10
    assert ("large",) == governed(hard, ("small", "large"), gate, range(20))  # about 2.5 + 1/2 * 18


def test_where_it_begins_of_three() -> None:
    # large: 10; middle: 2 + 4 and some of 10; small: 1 + 4 and some of that. A fee of 9 is too much.
    assert TABLE.models == governed(TABLE, TABLE.models, Column("gate", 0.6, cost=4.0), [0, 1])
    assert ("large",) == governed(TABLE, TABLE.models, Column("gate", 0.6, cost=9.0), [0, 1])


def test_it_goes_on_to_where_least_is_expected() -> None:
    two = priced(1, 15)
    middle = {"middle": (0.0,) * 20}
    three = replace(
        two,
        models=("small", "middle", "large"),
        scores={**two.scores, **middle},
        costs={**two.costs, "middle": (6.0,) * 20},
        checks={"gate": {**two.checks["gate"], **middle}},
    )

    # Nothing of the middle one's is accepted: whoever goes there pays it in vain.
    assert ("small", "large") == governed(three, three.models, Column("gate", 0.6), range(20))


def test_it_is_governed_by_type() -> None:
    outcomes = replace(
        priced(2, 20, large=1.5),
        checks={"gate": {"small": (1.0,) * 20 + (0.0,) * 20}},
    )
    gate = Column("gate", 0.5)

    # easy: about 1 < 1.5; hard: about 1 + 1.5 > 1.5; both: about 1 + 1/2 * 1.5 > 1.5.
    assert Fitted(("large",), {"0": ("small", "large"), "1": ("large",)}, gate) == fitted(
        Policy("cascade", check=gate, is_governed=True), outcomes, range(40), ("small", "large")
    )
