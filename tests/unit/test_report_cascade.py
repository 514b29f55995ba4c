"""Where the cascade loses: which types pass a tier by, and which judges pass anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from leastwise.cascade import JUDGE, Check, Evidence, Plan, Rung, interval, stamp_of
from leastwise.forecast import Prices
from leastwise.judge import VERSION
from leastwise.ladder import DEFAULT_LADDER
from leastwise.models import load_models
from leastwise.prices import load_prices
from leastwise.report.cascade import (
    NO_CASCADE,
    CascadeReport,
    cascade_json,
    cascade_lines,
    passes_often,
    read_cascade,
)

AT = datetime(2026, 11, 23, tzinfo=UTC)
PRICES = Prices(DEFAULT_LADDER, load_prices(), load_models())
PLAN = Plan(checks=(Check(JUDGE, lambda *_: None, "judge", version=VERSION),), judge=DEFAULT_LADDER["sonnet"])
#: A thousand tokens out of haiku, judged for a third of a cent.
MEAN = Rung(checked=1, answers_nusd=500_000, checks_nusd=3_000_000, output_tokens=1_000)


def rung(checked: int, accepted: int) -> Rung:
    """Return how checks of a tier's answers went."""
    sums = (checked * MEAN.answers_nusd, checked * MEAN.checks_nusd, checked * MEAN.output_tokens)
    return Rung(checked, accepted, *sums)


def read(evidence: Evidence, plan: Plan = PLAN) -> CascadeReport:
    return read_cascade(evidence, plan, PRICES, AT)


def test_a_type_whose_answers_fail_too_often_passes_its_tier_by() -> None:
    rungs = {
        ("summarise", "haiku"): rung(310, 30),
        ("summarise", "opus"): rung(5, 5),
        ("classify", "haiku"): rung(400, 380),
        ("", "haiku"): rung(40, 0),
    }

    report = read(Evidence(rungs=rungs))

    assert [("summarise", "haiku", 310, 30), ("", "haiku", 40, 0)] == [
        (one.task_type, one.tier, one.checked, one.accepted) for one in report.passed_by
    ]
    ((label, text),) = cascade_lines(report)
    assert "! no gain" == label
    assert text.startswith("summarise begins at opus: ")
    assert text.endswith(" (1 more type: --json)")
    assert ["summarise", ""] == [one["type"] for one in cascade_json(report)["passed_by"]]
    alone = replace(report, passed_by=report.passed_by[1:])
    assert cascade_lines(alone)[0][1].startswith("a task of no type begins at opus: ")


def test_a_type_may_climb_no_further_than_the_plan_says() -> None:
    evidence = Evidence(rungs={("summarise", "haiku"): rung(310, 30)})

    first = replace(PLAN, escalate_to="haiku")
    middle = replace(PLAN, escalate_to="sonnet")

    assert () == read(evidence, first).passed_by
    assert ["begins at sonnet"] == [one.words.partition(":")[0] for one in read(evidence, middle).passed_by]
    assert () == read(evidence, replace(PLAN, governs=False)).passed_by


def test_answers_that_cost_less_than_their_own_tokens_had_no_prompt() -> None:
    free = replace(rung(310, 30), answers_nusd=0)

    assert 1 == len(read(Evidence(rungs={("summarise", "haiku"): free})).passed_by)


def test_planted_answers_count_for_the_judge_in_force() -> None:
    stamps = [stamp_of(PLAN, DEFAULT_LADDER[name].model, VERSION) for name in ("haiku", "opus")]
    controls = {stamps[0]: (20, 3), stamps[1]: (11, 1), "before": (100, 100)}

    report = read(Evidence(controls=controls))

    assert (4, 31) == (report.planted.k, report.planted.n)
    assert [("! planted", "the judge accepted 4 of 31 planted bad answers")] == cascade_lines(report)
    assert {"accepted": 4, "asked": 31} == cascade_json(report)["planted"]


@pytest.mark.parametrize(
    ("accepted", "asked", "often"),
    [
        (0, 0, False),
        (0, 500, False),
        (1, 1, False),
        (2, 2, True),
        (1, 3, False),
        (2, 31, False),
        (4, 31, True),
        (9, 300, False),
    ],
)
def test_a_planted_answer_may_pass_by_chance(accepted: int, asked: int, *, often: bool) -> None:
    assert often is passes_often(interval(accepted, asked))


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert [] == cascade_lines(NO_CASCADE)
    assert NO_CASCADE == read(Evidence())
