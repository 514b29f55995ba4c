"""Where a checked request begins, and how far it may climb."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from leastwise.budget import BudgetRule, Payer, Purse, Standing
from leastwise.cascade import Calibration, Check, Evidence, Plan, Rung, interval, stamp_of
from leastwise.cascade.calibration import Rates
from leastwise.errors import ConfigError
from leastwise.ladder import DEFAULT_LADDER, Code, Decision, Task
from leastwise.routing import Known, Policy, Router, Rule
from tests.kit import HAIKU, NOW, OPUS, SONNET

VAGUE, SPAM, SUMMARY = "Grumpf zwirbel knotz", "Is this spam? Win $1000 now!!!", "Summarize this article."
HAIKU_TIER, SONNET_TIER, OPUS_TIER = DEFAULT_LADDER
FREE = Check("long", lambda *_: None)
JUDGE = Check("judge", lambda *_: None, "judge", version="1")
AT = datetime.fromtimestamp(NOW).astimezone()


def plan(*checks: Check, **changes: Any) -> Plan:
    return Plan(checks or (FREE,), **{"judge": SONNET_TIER, "probes": 0.0, **changes})


def decide(
    prompt: str = VAGUE,
    task: Task | None = None,
    *,
    model: str = "auto",
    policy: Policy | None = None,
    plan: Plan = plan(),  # noqa: B008 - a frozen value
    max_tokens: int = 500,
    **given: Any,
) -> Decision:
    router = Router(DEFAULT_LADDER, policy or Policy(learned=False, mode="enforce"))
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]}
    return router.decide(body, task, now=AT, plan=plan, **given)


def codes(decision: Decision) -> list[Code]:
    return [reason.code for reason in decision.reasons]


def climbs(decision: Decision) -> list[str]:
    return [tier.name for tier in decision.climbs]


def test_what_nothing_tells_about_begins_at_the_lowest_tier_where_its_answer_is_checked() -> None:
    decision = decide()

    assert ("haiku", ["sonnet", "opus"]) == (decision.tier, climbs(decision))
    assert [Code.CASCADE] == codes(decision)
    assert "unsure: cheapest first, checked (long)" == decision.reason
    assert not decision.is_sure


def test_what_a_type_tells_begins_at_its_tier() -> None:
    assert ("haiku", ["sonnet", "opus"]) == (decide(SPAM).tier, climbs(decide(SPAM)))
    assert ("sonnet", ["opus"]) == (decide(SUMMARY).tier, climbs(decide(SUMMARY)))
    assert ("opus", []) == (
        decide(task=Task(complexity="complex")).tier,
        climbs(decide(task=Task(complexity="complex"))),
    )


def test_a_real_model_is_the_last_that_may_answer() -> None:
    assert ["sonnet"] == climbs(decide(model=SONNET))
    assert ("haiku", Code.CASCADE) == (decide(model=SONNET).tier, codes(decide(model=SONNET))[0])
    off_the_ladder = decide(model="claude-opus-4-6")
    assert [SONNET, OPUS, "claude-opus-4-6"][0] == off_the_ladder.climbs[0].model
    assert "claude-opus-4-6" == off_the_ladder.climbs[-1].model
    lowest = decide(model=HAIKU)
    assert (HAIKU, ()) == (lowest.model, lowest.climbs)


def test_what_a_judge_is_not_shown_does_not_begin_where_it_would_have_to_tell() -> None:
    """It abstains on every tier, so that all of them would be paid for the last one's answer."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    shown = [{"role": "user", "content": [image, {"type": "text", "text": VAGUE}]}]
    body = {"model": "auto", "max_tokens": 500, "messages": shown}
    router = Router(DEFAULT_LADDER, Policy(learned=False))

    decision = router.decide(body, now=AT, plan=plan(JUDGE))
    assert ("opus", []) == (decision.tier, climbs(decision))
    assert "(the judge is not shown images or documents)" in decision.reasons[-1].words
    assert "haiku" == router.decide(body, now=AT, plan=plan()).tier


def test_what_is_only_observed_is_not_checked() -> None:
    for policy in (Policy(learned=False), Policy(learned=False, mode="enforce", percent=0)):
        observed = decide(model=OPUS, policy=policy, draw=0.5)
        assert (OPUS, OPUS, ()) == (observed.model, observed.would, observed.climbs)
    assert () == decide(policy=Policy(mode="off")).climbs
    assert () == decide(task=Task(route=False)).climbs


def test_it_climbs_no_higher_than_the_caller_says() -> None:
    assert ["sonnet"] == climbs(decide(plan=plan(escalate_to="sonnet")))
    assert [] == climbs(decide(SUMMARY, plan=plan(escalate_to="sonnet")))
    with pytest.raises(ConfigError, match="no tier is named 'x'"):
        decide(task=Task(escalate_to="x"), plan=plan(escalate_to="x"))


def test_a_forced_tier_is_checked_only_where_the_task_itself_asks_for_it() -> None:
    forced = Policy(learned=False, rules=(Rule(tag="t", tier="haiku"),))
    assert [] == climbs(decide(task=Task(tier="haiku")))
    assert [] == climbs(decide(task=Task(tag="t"), policy=forced))
    asked = decide(task=Task(tier="haiku", check=lambda *_: True))
    assert ["sonnet", "opus"] == climbs(asked)
    assert [Code.FORCED_TIER] == codes(asked)


def test_inside_a_tool_loop_nothing_climbs() -> None:
    made = {"type": "tool_use", "id": "t1", "name": "t", "input": {}}
    turns = [
        {"role": "user", "content": VAGUE},
        {"role": "assistant", "content": [made]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "done"}]},
    ]
    body = {"model": "auto", "max_tokens": 9, "messages": turns}
    pinned = Router().decide(body, known=Known(pins={"t1": HAIKU}), plan=plan())
    assert (HAIKU, ()) == (pinned.model, pinned.climbs)


def test_without_checks_it_climbs_only_where_an_overloaded_tier_gives_way() -> None:
    assert () == decide(SPAM, plan=Plan()).climbs
    assert ["sonnet", "opus"] == climbs(decide(SPAM, plan=Plan(overloaded="next")))


def test_a_ceiling_of_a_budget_is_a_ceiling_for_escalation_too() -> None:
    rule = BudgetRule("b", 10**10)
    (account,) = Purse((rule,), Payer("", "", "", "local"), NOW).accounts([HAIKU])
    purse = Purse((rule,), Payer("", "", "", "local"), NOW, standings={account.id: Standing(8 * 10**9, 0, 1)})

    assert ["sonnet"] == climbs(decide(known=Known(purse=purse)))


# --- break-even --------------------------------------------------------------------------------------


def evidence(task_type: str = "", tier: str = "haiku", *, checked: int, accepted: int) -> Known:
    return Known(
        evidence=Evidence({(task_type, tier): Rung(checked, accepted, checked * 1000, 0, checked * 300)})
    )


def test_a_cascade_that_loses_begins_higher_and_says_why() -> None:
    lost = decide(known=evidence(checked=300, accepted=3))

    assert ("sonnet", ["opus"]) == (lost.tier, climbs(lost))
    assert Code.BREAK_EVEN == codes(lost)[-1]
    assert "begins at sonnet: haiku, 1% of 300 accepted" in lost.reason
    paying = decide(known=evidence(checked=300, accepted=290))
    assert ("haiku", [Code.CASCADE]) == (paying.tier, codes(paying))
    other = decide(known=evidence("summarise", checked=300, accepted=3))
    assert "haiku" == other.tier  # what one type does says nothing of another


def test_what_follows_a_rejected_answer_is_harder_whichever_tier_it_is() -> None:
    # sonnet would judge itself, so that opus follows haiku: four times as long as what haiku is asked.
    half = Rung(300, 150, 300_000, 0, 300 * 300, 150 * 1200)
    easy, hard = (
        decide(known=Known(evidence=Evidence({("", "haiku"): rung})), plan=plan(JUDGE))
        for rung in (replace(half, after_tokens=150 * 300), half)
    )
    assert ("haiku", ["opus"]) == (easy.tier, climbs(easy))
    assert ("opus", Code.BREAK_EVEN) == (hard.tier, codes(hard)[-1])


def test_a_losing_cascade_is_tried_now_and_then_and_says_so() -> None:
    known = evidence(checked=300, accepted=3)
    tried = [decide(known=known, plan=plan(probes=0.1), draw=draw / 1000) for draw in range(1000)]
    probes = [one for one in tried if one.tier == "haiku"]
    assert 50 < len(probes) < 150
    assert all("tries haiku, as 10% of calls do" in one.reason for one in probes)


def test_the_reference_preset_is_not_governed() -> None:
    lost = decide(known=evidence(checked=300, accepted=3), plan=plan(governs=False))
    assert "haiku" == lost.tier


def test_a_model_that_would_judge_itself_is_passed_by_until_it_is_calibrated() -> None:
    by_haiku = plan(JUDGE, judge=HAIKU_TIER)
    passed_by = decide(plan=by_haiku)
    assert "sonnet" == passed_by.tier
    assert "none accepted (it would be its own judge, not calibrated)" in passed_by.reason
    assert "haiku" == decide(plan=plan(FREE, judge=HAIKU_TIER)).tier
    assert "haiku" == decide(plan=plan(JUDGE, judge=HAIKU_TIER, trusts_self=True)).tier
    assert "haiku" == decide(plan=plan(JUDGE, judge=HAIKU_TIER, unparsable="accept")).tier

    stamp = stamp_of(by_haiku, HAIKU, "1")
    for threshold, tier in ((4.0, "haiku"), (None, "sonnet")):
        known = Known(evidence=Evidence(calibrations={(stamp, ""): Calibration(stamp, "", threshold)}))
        assert tier == decide(known=known, plan=by_haiku).tier


def test_a_model_that_would_judge_itself_is_not_climbed_to_either_unless_it_is_the_last() -> None:
    assert ("haiku", ["opus"]) == (decide(plan=plan(JUDGE)).tier, climbs(decide(plan=plan(JUDGE))))
    assert ["sonnet"] == climbs(decide(plan=plan(JUDGE, escalate_to="sonnet")))
    forced = decide(task=Task(tier="haiku", check="judge"), plan=plan(JUDGE))
    assert ["opus"] == climbs(forced)


def test_the_size_that_the_caller_told_counts_in_what_a_tier_costs() -> None:
    """Opus as the judge reads task and answer at ten times sonnet's and forty times haiku's price."""
    dear = plan(JUDGE, judge=OPUS_TIER)
    sizes = [Task(expected_output_tokens=size, check="judge") for size in (4, 4000)]
    short, long = (decide(task=task, plan=dear) for task in sizes)
    assert ("opus", Code.BREAK_EVEN) == (short.tier, codes(short)[-1])  # to judge four tokens costs more
    assert ("sonnet", [Code.SIGNALS]) == (long.tier, codes(long))


def test_no_answer_is_longer_than_its_cap() -> None:
    judged = plan(JUDGE)
    roomy, tight = (decide(SPAM, Task(check="judge"), plan=judged, max_tokens=cap) for cap in (500, 8))
    assert "haiku" == roomy.tier  # 300 tokens are taken to come: worth a judgement
    assert ("opus", Code.BREAK_EVEN) == (tight.tier, codes(tight)[-1])  # eight are not


def test_what_routing_is_sure_of_is_not_judged_but_now_and_then() -> None:
    judged = plan(FREE, JUDGE, judge=HAIKU_TIER, probes=0.1)
    sure = decide(SPAM, plan=replace(judged, probes=0.0))
    assert ("haiku", ["sonnet", "opus"], False) == (sure.tier, climbs(sure), sure.is_judged)
    assert [Code.TYPE] == codes(sure)  # a judge that could accept nothing is no reason to begin higher
    asked = [decide(SPAM, plan=judged, draw=draw / 1000).is_judged for draw in range(1000)]
    assert 50 < sum(asked) < 150
    for accepted, is_judged in ((280, False), (270, True)):
        known = evidence("classify", checked=300, accepted=accepted)
        assert is_judged == decide(SPAM, known=known, plan=replace(judged, probes=0.0)).is_judged
    own = decide(SPAM, Task(check="judge"), plan=replace(judged, judge=OPUS_TIER))
    assert own.is_judged  # the task asks for it
    assert decide(SPAM, plan=replace(judged, governs=False)).is_judged  # as in the reference
    assert decide(VAGUE, plan=replace(judged, judge=SONNET_TIER)).is_judged


def test_a_judge_that_keeps_no_promise_is_passed_by_too() -> None:
    by_sonnet = plan(JUDGE)
    stamp = stamp_of(by_sonnet, HAIKU, "1")
    refused = Calibration(stamp, "", None)
    decision = decide(known=Known(evidence=Evidence(calibrations={(stamp, ""): refused})), plan=by_sonnet)
    assert "opus" == decision.tier
    assert "keeps no promise" not in decide(plan=by_sonnet).reason


def test_outcomes_feed_the_type_table() -> None:
    router = Router(DEFAULT_LADDER, Policy(mode="enforce"))
    ask, task = "Is the mood of this customer letter good or bad? We waited three weeks.", Task("sort it")
    body = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": ask}]}
    assert 1.0 == router.teller.table.quality("sentiment", "haiku")

    bad = Evidence({(name, "haiku"): Rung(200, 40) for name in router.teller.table.needs})
    router.decide(body, task, known=Known(evidence=bad), plan=plan())

    # 20 taken for granted, and 40 of 200
    assert (20 + 40) / (20 + 200) == router.teller.table.quality("sentiment", "haiku")
    table = router.teller.table
    router.decide(body, task, known=Known(evidence=bad), plan=plan())
    assert table is router.teller.table
    router.decide(body, task, known=Known(), plan=plan())
    assert table is router.teller.table  # what is not asked for says nothing
    for own in (Task("sort it", check=lambda *_: True), Task("sort it", threshold=4)):
        good = Evidence({("sentiment", "haiku"): Rung(200, 200)})  # by checks of that task alone
        router.decide(body, own, known=Known(evidence=good), plan=plan())
        assert table is router.teller.table


def test_a_tier_that_a_type_was_moved_from_is_tried_now_and_then() -> None:
    """Else a run of bad luck, or a model that was replaced, would move it for good."""
    router = Router(DEFAULT_LADDER, Policy(mode="enforce"))
    ask = "Does the writer of this review sound pleased with the hotel, or annoyed about it?"
    body = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": ask}]}
    bad = Known(evidence=Evidence({(name, "haiku"): Rung(100, 88) for name in router.teller.table.needs}))

    def tiers(known: Known, **changes: Any) -> list[str]:
        made = plan(**changes)
        draws = range(1000)
        return [router.decide(body, known=known, plan=made, draw=draw / 1000).tier for draw in draws]

    assert {"haiku"} == set(tiers(Known()))
    assert {"sonnet"} == set(tiers(bad))
    assert 50 < tiers(bad, probes=0.1).count("haiku") < 150


def test_a_judge_that_passes_planted_answers_is_passed_by_too() -> None:
    by_sonnet = plan(JUDGE)
    stamp = stamp_of(by_sonnet, HAIKU, "1")
    rare = interval(2, 100)
    proven = Calibration(stamp, "", 4.0, rates=Rates(rare, rare, rare, rare))
    for passed, tier in ((1, "haiku"), (40, "opus")):
        known = Evidence(calibrations={(stamp, ""): proven}, controls={stamp: (50, passed)})
        assert tier == decide(known=Known(evidence=known), plan=by_sonnet).tier


# --- the floor of a session --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "tier"), [(1, "opus"), (9, "opus"), (11, "sonnet"), (21, "haiku"), (600, "haiku")]
)
def test_a_conversation_stays_where_it_escalated_to_and_comes_down_step_by_step(
    minutes: int, tier: str
) -> None:
    known = Known(floor="opus", floor_at=NOW - 60 * minutes)
    decision = decide(SPAM, known=known)
    assert tier == decision.tier
    is_held = tier != "haiku"
    assert is_held == (Code.FLOOR in codes(decision))
    if is_held:
        assert f"this conversation escalated to opus {minutes} min ago" in decision.reason


def test_a_floor_raises_only_what_is_free_to_be_chosen() -> None:
    known = Known(floor="sonnet", floor_at=NOW)
    assert "haiku" == decide(task=Task(tier="haiku"), known=known).tier
    assert "opus" == decide(task=Task(complexity="complex"), known=known).tier
    assert "haiku" == decide(SPAM, known=known, plan=plan(floor_s=0.0)).tier
    assert "haiku" == decide(SPAM, known=Known(floor="gone", floor_at=NOW)).tier
    assert (
        SONNET == decide(SPAM, model=OPUS, known=Known(floor="opus", floor_at=NOW)).model
    )  # below the asked
