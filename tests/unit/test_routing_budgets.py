"""Ceilings of budgets while routing: the third phase, softer than a cap."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from leastwise.budget import BudgetRule, Ceiling, Payer, Purse, Standing
from leastwise.compile import Fit
from leastwise.ladder import DEFAULT_LADDER, Code, Decision, Task, Tier
from leastwise.messages import Request
from leastwise.money import NUSD_PER_USD
from leastwise.routing import Known, Policy, Router
from tests.kit import HAIKU, NOW, OPUS, SONNET

LIMIT = 100 * NUSD_PER_USD
RULE = BudgetRule("team", LIMIT)
DAY = datetime.fromtimestamp(NOW, UTC)
LOOP: Any = [
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]},
]


def spent(percent: int, *rules: BudgetRule, accounts: tuple[str, ...] = ("team",), **given: Any) -> Known:
    standings = {account: Standing(percent * LIMIT // 100) for account in accounts}
    return Known(purse=Purse(rules or (RULE,), Payer(), NOW, standings=standings, **given))


def decide(
    known: Known, task: Task | None = None, policy: Policy | None = None, model: str = "auto", **members: Any
) -> Decision:
    asked = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "x"}], **members}
    return Router(policy=policy).decide(Request.of(asked), task, known=known, now=DAY)


def steps(decision: Decision) -> list[tuple[Code, str, str]]:
    return [(one.code, one.before, one.after) for one in decision.reasons]


COMPLEX = Task(complexity="complex")


@pytest.mark.parametrize(
    ("percent", "task", "tier"),
    [
        (70, COMPLEX, "opus"),
        (71, COMPLEX, "sonnet"),
        (91, COMPLEX, "haiku"),
        (250, COMPLEX, "haiku"),
        (71, Task(complexity="standard"), "sonnet"),
        (91, Task(complexity="standard"), "haiku"),
        (99, Task(complexity="simple"), "haiku"),
        (71, Task(tier="opus"), "sonnet"),
        (71, None, "sonnet"),
    ],
)
def test_above_a_share_nothing_above_a_tier(percent: int, task: Task | None, tier: str) -> None:
    assert tier == decide(spent(percent), task).tier


def test_a_step_down_says_which_budget_and_how_far_it_is() -> None:
    made = decide(spent(95), COMPLEX)
    assert (Code.BUDGET_CEILING, "opus", "haiku") == steps(made)[-1]
    assert "budget team at 95% (above 90%): nothing above haiku" == made.reasons[-1].words
    assert made.held is not None
    assert ("team", Decimal(95)) == (made.held.account, made.held.percent)


def test_critical_tasks_are_never_stepped_down() -> None:
    made = decide(spent(95, is_critical=True), COMPLEX)
    assert ("opus", None) == (made.tier, made.held)


def test_inside_a_tool_loop_a_ceiling_waits_for_the_next_human_turn() -> None:
    known = spent(95, in_loop=True)
    pinned = decide(structs_of(known, {"t1": OPUS}), messages=LOOP)
    assert OPUS == pinned.model
    assert (Code.BUDGET_DEFERRED, "opus", "opus") == steps(pinned)[-1]
    assert "after this tool loop" in pinned.reasons[-1].words
    forced = decide(known, Task(tier="opus"), messages=LOOP)
    assert (OPUS, Code.BUDGET_DEFERRED) == (forced.model, steps(forced)[-1][0])


def structs_of(known: Known, pins: dict[str, str]) -> Known:
    return Known(pins=pins, purse=known.purse)


def test_a_real_model_steps_down_only_below_what_it_asked_for() -> None:
    enforce = Policy(mode="enforce")
    assert SONNET == decide(spent(75), COMPLEX, enforce, model=OPUS).model
    assert HAIKU == decide(spent(95), Task(complexity="standard"), enforce, model=SONNET).model
    assert HAIKU == decide(spent(95), COMPLEX, enforce, model=HAIKU).model
    assert SONNET == decide(spent(75), COMPLEX, enforce, model="claude-opus-4-6").model


def test_observing_nothing_moves_and_what_would_is_told() -> None:
    made = decide(spent(95), COMPLEX, model=OPUS)
    assert (OPUS, "observe", HAIKU) == (made.model, made.mode, made.would)
    assert Code.BUDGET_CEILING in [code for code, *_ in steps(made)]


@pytest.mark.parametrize("task", [Task("x", route=False), None])
def test_what_is_not_routed_is_not_stepped_down(task: Task | None) -> None:
    policy = Policy(mode="off") if task is None else None
    assert OPUS == decide(spent(95), task, policy).model


def test_budgets_of_single_models_hold_that_model_alone() -> None:
    ceiling = (Ceiling(Decimal("0.5"), "sonnet"),)
    rule = BudgetRule("big", LIMIT, scope=("model",), only=(OPUS,), ceilings=ceiling)
    known = spent(60, rule, accounts=(f"big|model={OPUS}",))
    assert "sonnet" == decide(known, COMPLEX).tier
    assert "opus" == decide(spent(60, rule, accounts=(f"big|model={SONNET}",)), COMPLEX).tier


def test_each_step_is_held_to_the_budgets_of_the_tier_it_leads_to() -> None:
    to_sonnet = BudgetRule(
        "o", LIMIT, scope=("model",), only=(OPUS,), ceilings=(Ceiling(Decimal(0), "sonnet"),)
    )
    to_haiku = BudgetRule(
        "s", LIMIT, scope=("model",), only=(SONNET,), ceilings=(Ceiling(Decimal(0), "haiku"),)
    )
    known = spent(60, to_sonnet, to_haiku, accounts=(f"o|model={OPUS}", f"s|model={SONNET}"))
    made = decide(known, COMPLEX)
    ceilings = [step[1:] for step in steps(made) if step[0] is Code.BUDGET_CEILING]
    assert [("opus", "sonnet"), ("sonnet", "haiku")] == ceilings


def test_what_does_not_fit_below_stays_above_the_ceiling() -> None:
    def fits(_: Request, model: str) -> Fit:
        return Fit({"model": model}, misfit="too long" if model == HAIKU else "")

    router = Router(fits=fits)
    asked = Request.of({"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    made = router.decide(asked, COMPLEX, known=spent(95), now=DAY)
    assert ("sonnet", Code.UNFIT) == (made.tier, made.reasons[-1].code)


def next_below(made: Decision, task: Task | None = None, policy: Policy | None = None) -> Tier | None:
    asked = Request.of({"model": made.asked, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    return Router(policy=policy).below(asked, task or Task(), made, DAY)


def test_the_next_cheaper_tier_for_what_a_cap_does_not_cover() -> None:
    made = decide(Known(), COMPLEX)
    assert DEFAULT_LADDER["sonnet"] == next_below(made)
    assert DEFAULT_LADDER["haiku"] == next_below(structs.replace(made, tier="sonnet", model=SONNET))
    assert None is next_below(structs.replace(made, tier="haiku", model=HAIKU))
    assert DEFAULT_LADDER["opus"] == next_below(structs.replace(made, tier="", model="claude-opus-4-6"))
    assert DEFAULT_LADDER["haiku"] == next_below(made, policy=Policy(allowed_tiers=("haiku", "opus")))


@pytest.mark.parametrize(
    ("mode", "code", "task"),
    [
        ("observe", Code.OBSERVED, Task()),
        ("off", Code.OFF, Task()),
        ("auto", Code.PINNED, Task()),
        ("auto", Code.OPTED_OUT, Task()),
        ("auto", Code.TYPE, Task(critical=True)),
    ],
)
def test_some_must_stay_where_they_are(mode: Any, code: Code, task: Task) -> None:
    made = decide(Known(), COMPLEX)
    reasons = (structs.replace(made.reasons[0], code=code),)
    assert None is next_below(structs.replace(made, mode=mode, reasons=reasons), task)


def test_an_enforced_model_goes_below_itself_only() -> None:
    policy = Policy(mode="enforce")
    made = decide(Known(), COMPLEX, policy, model=SONNET)
    assert DEFAULT_LADDER["haiku"] == next_below(made, policy=policy)


@pytest.mark.parametrize(
    ("model", "policy", "mode"),
    [
        ("auto", Policy(), "auto"),
        ("opus", Policy(), "auto"),
        ("auto", Policy(mode="off"), "off"),
        (OPUS, Policy(), "observe"),
        (OPUS, Policy(mode="enforce"), "enforce"),
        (OPUS, Policy(mode="enforce", percent=50), "observe"),
        (OPUS, Policy(reroute=("claude-opus-*",)), "enforce"),
    ],
)
def test_the_mode_of_a_request(model: str, policy: Policy, mode: str) -> None:
    asked = Request.of({"model": model, "max_tokens": 9, "messages": []})
    assert mode == Router(policy=policy).mode_of(asked, Task(), draw=0.99)
