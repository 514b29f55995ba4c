"""Whatever the table, no policy beats the oracle, and what is dealt at random costs what the policy costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import Column, Policy, Simulated
from leastwise.evaluate.replay import replay, splits_of

MODELS = ("a", "b", "c")
shares = st.sampled_from((0.0, 0.2, 0.5, 0.6, 1.0))
costs = st.sampled_from((0.0, 1e-6, 0.01, 0.5, 2.0))
policies = st.one_of(
    st.sampled_from((Policy("table"), Policy("fixed", ("b",)))),
    st.builds(
        Policy,
        st.just("cascade"),
        st.sampled_from(((), ("a", "c"), ("c", "a", "b"))),
        st.one_of(st.builds(Column, st.just("gate"), shares, shares), st.builds(Simulated, shares, shares)),
        st.booleans(),
    ),
)


@st.composite
def tables(draw: st.DrawFn) -> Outcomes:
    size = draw(st.integers(2, 12))

    def column(values: st.SearchStrategy[float]) -> tuple[float, ...]:
        return tuple(draw(st.lists(values, min_size=size, max_size=size)))

    return Outcomes(
        name="t",
        models=MODELS,
        scores={model: column(shares) for model in MODELS},
        costs={model: column(costs) for model in MODELS},
        kinds=tuple(draw(st.lists(st.sampled_from("xy"), min_size=size, max_size=size))),
        checks={"gate": {model: column(shares) for model in MODELS}},
    )


@given(tables(), policies, st.integers(0, 3))
def test_controls_stand_around_a_policy(outcomes: Outcomes, policy: Policy, seed: int) -> None:
    splits, how = splits_of(outcomes, seed=seed)
    found = replay(outcomes, [policy], splits, how)
    (line,) = found.policies
    singles = {str(one.policy): one for one in found.singles}
    used = [singles[model] for model in line.shares]
    least, most = min(one.cost for one in used), max(one.cost for one in used)

    assert 1.0 == pytest.approx(sum(line.shares.values()))
    assert line.quality <= found.oracle.quality + 1e-12
    assert max(one.quality for one in found.singles) <= found.oracle.quality + 1e-12
    assert pytest.approx(min(max(line.cost, least), most)) == line.shuffled_cost
    assert min(one.quality for one in used) - 1e-12 <= line.shuffled
    assert line.shuffled <= max(one.quality for one in used) + 1e-12
    assert line.low <= line.quality + 0.5 / found.test
    assert line.high >= line.quality - 0.5 / found.test
