from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from leastwise.compile import Fit
from leastwise.errors import ConfigError, RequestError
from leastwise.ladder import DEFAULT_LADDER, Baseline, Code, Decision, Ladder, Mode, Task, Tier
from leastwise.messages import Request
from leastwise.prices import load_prices
from leastwise.routing import (
    Known,
    Lexicon,
    OwnType,
    Policy,
    Router,
    Rule,
    Signals,
    Switch,
    load_words,
    observing_line,
)
from leastwise.routing.words import Scan

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SPAM = "Is this spam? Win $1000 now!!!"
PROOF = "is this proof right?"
VAGUE = "Grumpf zwirbel knotz"
SUMMARY = "Summarize this article."
BUILD = "Implement a queue."
PHRASES_ONLY = Policy(learned=False)
TOOL = {"name": "t", "input_schema": {"type": "object"}}


def of(prompt: Any, model: str = "auto", **members: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": prompt}], **members}


def loop(model: str = "auto", call: str = "toolu_1") -> dict[str, Any]:
    made = {"type": "tool_use", "id": call, "name": "t", "input": {}}
    answer = {"type": "tool_result", "tool_use_id": call, "content": "done"}
    turns = [
        {"role": "user", "content": SPAM},
        {"role": "assistant", "content": [made]},
        {"role": "user", "content": [answer]},
    ]
    return {"model": model, "max_tokens": 500, "messages": turns, "tools": [TOOL]}


def decide(
    request: Request | Mapping[str, Any] | str,
    task: Task | None = None,
    policy: Policy | None = None,
    **given: Any,
) -> Decision:
    return Router(policy=policy).decide(request, task, now=NOW, **given)


def steps(decision: Decision) -> list[tuple[str, str, str]]:
    return [(reason.code, reason.before, reason.after) for reason in decision.reasons]


# --- choose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "task", "codes", "tier"),
    [
        (SPAM, None, [Code.TYPE], "haiku"),
        (SUMMARY, None, [Code.TYPE], "sonnet"),
        (BUILD, None, [Code.TYPE], "opus"),
        (PROOF, None, [Code.TYPE], "opus"),
        ("hello", None, [Code.TYPE], "haiku"),
        (VAGUE, None, [Code.UNSURE], "opus"),
        ("", None, [Code.UNSURE], "opus"),
        (PROOF, Task(tier="haiku"), [Code.FORCED_TIER], "haiku"),
        (PROOF, Task(complexity="simple"), [Code.FORCED_COMPLEXITY], "haiku"),
        (SPAM, Task(complexity="complex"), [Code.FORCED_COMPLEXITY], "opus"),
        (SPAM, Task(tier="opus", complexity="simple"), [Code.FORCED_TIER], "opus"),
        (VAGUE, Task(expected_output_tokens=20), [Code.SIGNALS], "haiku"),
        (VAGUE, Task(expected_output_tokens=101), [Code.SIGNALS], "sonnet"),
        (VAGUE, Task(expected_output_words=20, has_code=True), [Code.SIGNALS], "sonnet"),
        (VAGUE, Task(expected_output_tokens=1001, has_code=True), [Code.SIGNALS], "opus"),
        (PROOF, Task(expected_output_tokens=5), [Code.TYPE], "opus"),
        (PROOF, Task("which category is it"), [Code.TYPE], "haiku"),
        (SPAM, Task("design the filter"), [Code.TYPE], "opus"),
        (SPAM, Task("whatever it says"), [Code.TYPE], "haiku"),
        (VAGUE, Task("Write a poem about the sea"), [Code.TYPE], "sonnet"),
    ],
)
def test_choose(prompt: str, task: Task | None, codes: list[Code], tier: str) -> None:
    decision = decide(prompt, task)

    assert (codes, tier) == ([reason.code for reason in decision.reasons], decision.tier)


def test_a_whole_decision() -> None:
    decision = decide(SPAM)

    assert (HAIKU, "haiku", "anthropic", OPUS, "auto", "auto", "simple", "classify", True, "", None) == (
        decision.model,
        decision.tier,
        decision.upstream,
        decision.fallback,
        decision.asked,
        decision.mode,
        decision.complexity,
        decision.task_type,
        decision.is_sure,
        decision.would,
        decision.max_tokens,
    )
    assert [("type", "auto", "haiku")] == steps(decision)
    assert 'type: classify ("is this spam")' == decision.reason
    assert Baseline(OPUS, "assumed") == decision.baseline
    assert 16 == decision.input_tokens


def test_unsure_says_so_and_is_not_cheap() -> None:
    decision = decide(VAGUE)

    assert (False, None, OPUS) == (decision.is_sure, decision.complexity, decision.model)
    assert f"unsure, so not cheap: baseline {OPUS}" == decision.reason


def test_a_tier_name_as_model_forces_it() -> None:
    decision = decide(of(PROOF, "haiku"))

    assert ("haiku", "auto", [("forced_tier", "haiku", "haiku")]) == (
        decision.tier,
        decision.mode,
        steps(decision),
    )


@pytest.mark.parametrize("model", ["auto", "claude-auto"])
def test_names_that_ask_us_to_choose(model: str) -> None:
    assert "haiku" == decide(of(SPAM, model)).tier


def test_a_follow_up_goes_where_the_ask_before_it_went() -> None:
    turns = [
        {"role": "user", "content": BUILD},
        {"role": "assistant", "content": "Shall I?"},
        {"role": "user", "content": "yes"},
    ]

    decision = decide({"messages": turns}, Task(instead_of=SONNET))

    assert ("opus", 'type: follow-up to implement ("implement")') == (decision.tier, decision.reason)


def test_unsure_stays_on_a_baseline_off_the_ladder() -> None:
    decision = decide(VAGUE, Task(instead_of="claude-opus-4-6"))

    assert ("claude-opus-4-6", "", "stated") == (decision.model, decision.tier, decision.baseline.how)


def test_unsure_may_be_a_tier() -> None:
    assert "sonnet" == decide(VAGUE, policy=Policy(unsure="sonnet")).tier


@pytest.mark.parametrize(
    ("task", "known", "baseline"),
    [
        (Task(), Known(), Baseline(OPUS, "assumed")),
        (Task(instead_of="claude-sonnet-4-6"), Known(), Baseline("claude-sonnet-4-6", "stated")),
        (Task(instead_of="sonnet"), Known(), Baseline(SONNET, "stated")),
        (Task(instead_of="sonnet"), Known(baseline=HAIKU), Baseline(HAIKU, "learned")),
    ],
)
def test_the_baseline_of_auto(task: Task, known: Known, baseline: Baseline) -> None:
    decision = decide(PROOF, task, known=known)

    assert (baseline, baseline.model) == (decision.baseline, decision.fallback)


# --- pins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "pins", "answers"),
    [
        ("auto", {"toolu_1": HAIKU}, HAIKU),
        ("auto", {"toolu_1": "claude-opus-4-6"}, "claude-opus-4-6"),
        ("auto", {}, OPUS),
        (OPUS, {}, OPUS),
        (OPUS, {"toolu_1": OPUS}, OPUS),
        (OPUS, {"toolu_1": HAIKU}, HAIKU),
        (SONNET, {"toolu_1": OPUS}, SONNET),
    ],
)
def test_a_tool_loop_stays_where_it_began(model: str, pins: dict[str, str], answers: str) -> None:
    rule = Rule(match="spam", tier="haiku")

    decision = decide(loop(model), policy=Policy("enforce", rules=(rule,)), known=Known(pins=pins))

    assert (answers, [Code.PINNED]) == (decision.model, [reason.code for reason in decision.reasons])


def test_this_very_request_may_leave_the_tool_loop() -> None:
    assert "sonnet" == decide(loop(), Task(tier="sonnet"), known=Known(pins={"toolu_1": HAIKU})).tier


def test_a_pin_is_not_moved_by_limits() -> None:
    router = Router(policy=Policy(allowed_tiers=("haiku",)), fits=unfit(HAIKU, SONNET, OPUS))

    assert SONNET == router.decide(loop(), known=Known(pins={"toolu_1": SONNET})).model


# --- rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "task", "headers", "holds"),
    [
        (Rule(match="refund", complexity="simple"), None, {}, True),
        (Rule(match="A  Refund", tier="haiku"), None, {}, True),
        (Rule(match="fund", tier="haiku"), None, {}, False),
        (Rule(match="ticket", tier="haiku"), Task("sort this ticket"), {}, True),
        (Rule(tag="triage", tier="haiku"), Task(tag="triage"), {}, True),
        (Rule(tag="triage", tier="haiku"), Task(tag="other"), {}, False),
        (Rule(tag="triage", match="refund", tier="haiku"), None, {}, False),
        (Rule(header="x-team", tier="haiku"), None, {"x-team": "a"}, True),
        (Rule(header="X-Team: a", tier="haiku"), None, {"x-team": "a"}, True),
        (Rule(header="x-team: b", tier="haiku"), None, {"x-team": "a"}, False),
        (Rule(header="x-team", tier="haiku"), None, {}, False),
        (Rule(role="subagent", tier="haiku"), None, {"x-claude-code-agent-id": "1"}, True),
        (Rule(role="main", tier="haiku"), None, {"x-claude-code-agent-id": "1"}, False),
    ],
    ids=str,
)
def test_rules(rule: Rule, task: Task | None, headers: dict[str, str], *, holds: bool) -> None:
    decision = decide("I want a refund.", task, Policy(rules=(rule,)), headers=headers)

    assert (Code.RULE if holds else Code.UNSURE) == decision.reasons[0].code
    assert ("haiku" if holds else "opus") == decision.tier


def test_the_first_rule_that_holds_decides_and_is_named() -> None:
    rules = (
        Rule(match="zebra", tier="haiku"),
        Rule(match="queue", tier="sonnet"),
        Rule(match="queue", tier="haiku"),
    )

    decision = decide(BUILD, policy=Policy(rules=rules))

    assert ("sonnet", "rule: match = 'queue'") == (decision.tier, decision.reason)


def test_forced_beats_rules() -> None:
    assert "opus" == decide(SPAM, Task(tier="opus"), Policy(rules=(Rule(match="spam", tier="haiku"),))).tier


@pytest.mark.parametrize(
    ("rule", "tier"), [({"complexity": "simple"}, "sonnet"), ({"tier": "haiku"}, "haiku")]
)
def test_signals_raise_a_rule_of_a_complexity_but_not_of_a_tier(rule: dict[str, Any], tier: str) -> None:
    policy = Policy(rules=(Rule(match="spam", **rule),))

    assert tier == decide(of(SPAM, tools=[TOOL]), policy=policy).tier


# --- adjust ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "task", "why"),
    [
        (of(SPAM + " x" * 6000), None, "~4,121 tokens in (over 3,000)"),
        (of(SPAM, tools=[TOOL]), None, "tools"),
        (of(SPAM + " ```x```"), None, "code"),
        (of(SPAM), Task(expected_output_tokens=1001), "1,001 tokens out (over 1,000)"),
        (of(SPAM), Task(has_code=True, has_tools=True), "code, tools"),
        (of([{"type": "text", "text": SPAM}, {"type": "image", "source": {}}]), None, "images"),
        (
            of([{"type": "text", "text": SPAM}, {"type": "document", "source": {}}]),
            None,
            "~3,916 tokens in (over 3,000), documents",
        ),
    ],
    ids=["length", "tools", "code", "output", "told", "image", "document"],
)
def test_simple_work_is_raised_by_size_and_kind(
    request_: dict[str, Any], task: Task | None, why: str
) -> None:
    decision = decide(request_, task, PHRASES_ONLY)

    assert ("sonnet", "standard") == (decision.tier, decision.complexity)
    assert [("type", "auto", "haiku"), ("raised", "haiku", "sonnet")] == steps(decision)
    assert f"raised to standard: {why}" == decision.reasons[1].words


def test_a_long_conversation_raises() -> None:
    answer = {"role": "assistant", "content": "no"}
    turns = [{"role": "user", "content": "hi"}, answer] * 5 + [{"role": "user", "content": SPAM}]

    assert "raised to standard: 11 messages" == decide({"messages": turns}).reasons[1].words


def test_standard_work_is_raised_by_much_code() -> None:
    decision = decide(SUMMARY, Task(has_code=True, expected_output_tokens=2_000))

    assert ("opus", "complex", "raised to complex: code, 2,000 tokens out (over 1,000)") == (
        decision.tier,
        decision.complexity,
        decision.reasons[1].words,
    )


def test_forced_is_never_raised() -> None:
    assert [("forced_tier", "auto", "haiku")] == steps(decide(of(BUILD, tools=[TOOL]), Task(tier="haiku")))


def test_nothing_is_raised_to_a_tier_that_is_not_dearer() -> None:
    policy = Policy(complexity={"simple": "sonnet", "standard": "haiku", "complex": "opus"})

    assert [("type", "auto", "sonnet")] == steps(decide(of(SPAM, tools=[TOOL]), policy=policy))


# --- limit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "allowed", "task", "tier"),
    [
        (BUILD, ("haiku", "sonnet"), None, "sonnet"),
        (BUILD, ("haiku", "sonnet"), Task(instead_of=HAIKU), "sonnet"),
        (SPAM, ("sonnet", "opus"), None, "sonnet"),
        (PROOF, ("haiku",), None, "haiku"),
        (PROOF, ("haiku", "sonnet"), Task(instead_of="claude-opus-4-6"), "sonnet"),
        (BUILD, ("haiku",), Task(tier="opus"), "haiku"),
    ],
)
def test_no_text_and_no_task_leaves_the_allowed_tiers(
    prompt: str, allowed: tuple[str, ...], task: Task | None, tier: str
) -> None:
    decision = decide(prompt, task, Policy(allowed_tiers=allowed))

    assert (tier, Code.NOT_ALLOWED) == (decision.tier, decision.reasons[-1].code)
    fallback = DEFAULT_LADDER.of_model(decision.fallback)
    assert fallback is not None
    assert fallback.name in allowed


def unfit(*models: str) -> Any:
    return lambda _request, model: Fit(misfit="the prompt is too long" if model in models else "")


@pytest.mark.parametrize(
    ("request_", "no", "model", "count"),
    [
        (of(SPAM), [HAIKU], SONNET, 1),
        (of(SPAM), [HAIKU, SONNET], OPUS, 2),
        (of(SPAM), [HAIKU, SONNET, OPUS], OPUS, 3),
        (of(BUILD), [OPUS], SONNET, 1),
        (of(SPAM, OPUS), [HAIKU], SONNET, 1),
        (of(SPAM, OPUS), [HAIKU, SONNET, OPUS], OPUS, 2),
        (of(BUILD, OPUS), [OPUS], OPUS, 0),
    ],
)
def test_what_does_not_fit_goes_up(request_: dict[str, Any], no: list[str], model: str, count: int) -> None:
    decision = Router(policy=Policy("enforce"), fits=unfit(*no)).decide(request_, now=NOW)

    assert model == decision.model
    assert count == [reason.code for reason in decision.reasons].count(Code.UNFIT)


def test_what_fits_no_dearer_tier_goes_where_it_fits() -> None:
    """Such as a forced tool, which Haiku 5.5 takes and the tiers above it do not."""
    router = Router(fits=unfit(SONNET, OPUS))

    assert [HAIKU, HAIKU, HAIKU] == [router.decide(ask).model for ask in (PROOF, BUILD, SUMMARY)]
    assert "does not fit opus: the prompt is too long" == router.decide(PROOF).reasons[-1].words
    assert SONNET == Router(fits=unfit(OPUS)).decide(BUILD).model


def test_what_fits_no_tier_stays_where_it_was_forced() -> None:
    decision = Router(fits=unfit(HAIKU, SONNET, OPUS)).decide(PROOF, Task(tier="haiku"))

    assert (HAIKU, "fits no tier: the prompt is too long") == (decision.model, decision.reasons[-1].words)
    assert SONNET == Router(fits=unfit(HAIKU)).decide(PROOF, Task(tier="haiku")).model


def test_a_tier_whose_model_is_retired_is_passed_over() -> None:
    ladder = Ladder(
        (Tier("old", "claude-sonnet-4-5"), Tier("new", "claude-opus-5-5"), Tier("same", "claude-fable-5-2"))
    )
    router = Router(ladder, Policy(complexity={"simple": "old", "standard": "new", "complex": "new"}))
    before, after = datetime(2026, 11, 29, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)

    assert ["old", "new"] == [router.decide(SPAM, now=now).tier for now in (before, after)]
    words = "does not fit old: claude-sonnet-4-5 is retired"
    assert words == router.decide(SPAM, now=after).reasons[-1].words


def test_what_is_adapted_is_told_wherever_it_goes() -> None:
    router = Router(policy=Policy("enforce"), fits=lambda _request, _model: Fit(changes={"top_k": "removed"}))
    told = [
        [str(reason) for reason in decided.reasons if reason.code is Code.ADAPTED]
        for decided in (
            router.decide(SPAM),
            router.decide(of(SPAM, OPUS), now=NOW),
            router.decide(loop(OPUS), known=Known(pins={"toolu_1": HAIKU}), now=NOW),
            router.decide(of(PROOF, OPUS), now=NOW),  # stays where it was asked for
        )
    ]

    assert [["adapted: top_k removed"]] * 3 + [[]] == told


def test_a_misfit_is_explained() -> None:
    decision = Router(fits=unfit(HAIKU)).decide(SPAM)

    assert "does not fit haiku: the prompt is too long" == decision.reasons[-1].words


def test_where_nothing_dearer_fits_the_baseline_is_the_last_resort() -> None:
    router = Router(fits=unfit(SONNET, OPUS))

    assert HAIKU == router.decide(SUMMARY, Task(instead_of=HAIKU)).model


# --- modes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "asked", "model", "last"),
    [
        (SPAM, OPUS, HAIKU, Code.TYPE),
        (SUMMARY, OPUS, SONNET, Code.TYPE),
        (BUILD, OPUS, OPUS, Code.TYPE),
        (VAGUE, OPUS, OPUS, Code.UNSURE),
        (SPAM, SONNET, HAIKU, Code.TYPE),
        (SUMMARY, SONNET, SONNET, Code.TYPE),
        (BUILD, SONNET, SONNET, Code.CEILING),
        (VAGUE, SONNET, SONNET, Code.UNSURE),
        (SPAM, HAIKU, HAIKU, Code.TYPE),
        (BUILD, HAIKU, HAIKU, Code.CEILING),
        (SUMMARY, "claude-haiku-4-5", "claude-haiku-4-5", Code.CEILING),
        (SPAM, "claude-haiku-4-5", HAIKU, Code.TYPE),
        (BUILD, "claude-fable-5-2", OPUS, Code.TYPE),
        (SPAM, "my-own-model", "my-own-model", Code.CEILING),
    ],
)
def test_enforced(prompt: str, asked: str, model: str, last: Code) -> None:
    decision = decide(of(prompt, asked), policy=Policy("enforce"))

    assert (model, asked, "enforce", last) == (
        decision.model,
        decision.fallback,
        decision.mode,
        decision.reasons[-1].code,
    )
    assert Baseline(asked, "asked") == decision.baseline


def test_an_enforced_tier_that_is_not_allowed_goes_up() -> None:
    policy = Policy("enforce", allowed_tiers=("sonnet",))

    assert SONNET == decide(of(SPAM, OPUS), policy=policy).model
    assert SONNET == decide(of(SPAM, SONNET), policy=policy).model
    assert HAIKU == decide(of(SPAM, HAIKU), policy=policy).model


def test_observed() -> None:
    decision = decide(of(SPAM, OPUS))

    assert (OPUS, "opus", "observe", HAIKU, None) == (
        decision.model,
        decision.tier,
        decision.mode,
        decision.would,
        decision.max_tokens,
    )
    assert [("type", "opus", "haiku"), ("observed", "haiku", "opus")] == steps(decision)
    assert "observed: as asked, could go to haiku" == decision.reasons[-1].words


def test_observed_where_nothing_would_change() -> None:
    decision = decide(of(PROOF, OPUS))

    assert (OPUS, "observed: as asked") == (decision.would, decision.reasons[-1].words)


@pytest.mark.parametrize(
    ("request_", "model"),
    [(of(SPAM, OPUS), OPUS), (of(SPAM), OPUS), (of(BUILD, "haiku"), HAIKU), (of(SPAM, "unknown"), "unknown")],
)
def test_off_is_off_everywhere(request_: dict[str, Any], model: str) -> None:
    policy = Policy("off", switches=(Switch("t", "enforce"),), reroute=("*",))

    decision = decide(request_, Task(tag="t"), policy)

    assert (model, "") == (decision.model, decision.would)


def test_off_names_its_code() -> None:
    assert [("off", "opus", "opus")] == steps(decide(of(SPAM, OPUS), policy=Policy("off")))
    assert [("off", "auto", "opus")] == steps(decide(of(SPAM), policy=Policy("off")))


@pytest.mark.parametrize(("model", "mode"), [("auto", "auto"), (OPUS, "off")])
def test_a_task_may_opt_out(model: str, mode: str) -> None:
    decision = decide(of(SPAM, model), Task(route=False), Policy("enforce"))

    assert (OPUS, mode, Code.OPTED_OUT) == (decision.model, decision.mode, decision.reasons[0].code)


@pytest.mark.parametrize(
    ("policy", "tag", "mode"),
    [
        (Policy(reroute=("claude-opus-*",)), None, "enforce"),
        (Policy(reroute=("claude-sonnet-*", "gpt-?")), None, "observe"),
        (Policy(switches=(Switch("triage", "enforce"),)), "triage", "enforce"),
        (Policy(switches=(Switch("triage", "enforce"),)), "other", "observe"),
        (Policy("enforce", switches=(Switch("triage", "observe"),)), "triage", "observe"),
        (Policy("enforce", switches=(Switch("triage", "off"),)), "triage", "off"),
        (Policy("enforce", percent=0), None, "observe"),
    ],
)
def test_the_mode_in_force(policy: Policy, tag: str | None, mode: str) -> None:
    assert mode == decide(of(SPAM, OPUS), Task(tag=tag), policy).mode


@pytest.mark.parametrize(("draw", "model"), [(0.0, HAIKU), (0.0999, HAIKU), (0.1, OPUS), (1.0, OPUS)])
def test_a_share_is_enforced(draw: float, model: str) -> None:
    policy = Policy(switches=(Switch("t", "enforce", 10),))

    decision = decide(of(SPAM, OPUS), Task(tag="t"), policy, draw=draw)

    assert model == decision.model
    assert (model == OPUS) == (decision.reasons[-1].code == Code.NOT_IN_SHARE)


@pytest.mark.parametrize(("maker", "mode"), [(HAIKU, "enforce"), (OPUS, "observe"), (None, "observe")])
def test_a_tool_loop_stays_with_its_model_whatever_the_draw(maker: str | None, mode: str) -> None:
    turns = [
        {"role": "user", "content": "Is this spam? Win!"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
    ]
    known = Known(pins={} if maker is None else {"t1": maker})

    decision = Router(policy=Policy("enforce", percent=10)).decide(
        {"model": OPUS, "max_tokens": 64, "messages": turns}, known=known, draw=0.5
    )

    assert (maker or OPUS, mode) == (decision.model, decision.mode)


def test_a_tag_switched_off_is_off_for_auto_too() -> None:
    policy = Policy("enforce", switches=(Switch("t", "off"),))

    assert OPUS == decide(of(SPAM, "auto"), Task(tag="t"), policy).model
    assert HAIKU == decide(of(SPAM, "auto"), Task(tag="other"), policy).model


def test_the_whole_share_includes_every_draw() -> None:
    assert HAIKU == decide(of(SPAM, OPUS), policy=Policy("enforce"), draw=1.0).model


def test_prices_of_the_day_decide_what_is_cheaper() -> None:
    ladder = Ladder((Tier("new", SONNET), Tier("top", OPUS)))
    policy = Policy("enforce", complexity={"simple": "new", "standard": "new", "complex": "top"})

    decision = Router(ladder, policy, prices=load_prices()).decide(of(SPAM, "claude-sonnet-4-6"), now=NOW)

    assert (SONNET, "new") == (decision.model, decision.tier)


def test_the_same_request_gets_the_same_decision() -> None:
    router = Router(policy=Policy("enforce"))
    request = Request.of(of(SPAM, "claude-haiku-4-5"))

    first, again = (router.decide(request, now=NOW) for _ in range(2))

    assert HAIKU == first.model
    assert first == again


def test_many_asked_models_are_not_remembered_for_ever() -> None:
    router = Router(policy=Policy("enforce"))

    for number in range(300):
        router.decide(of(SPAM, f"model-{number}"), now=NOW)

    assert len(router._cheaper) <= 256


# --- sizes -------------------------------------------------------------------------------------------


def test_tokens_are_counted_as_the_chosen_model_counts_and_corrected() -> None:
    prompt = "a" * 3_796  # 999 + 4 tokens by the older tokenizer

    old = decide(of(prompt, "claude-opus-4-6"))
    new = decide(of(prompt, OPUS), known=Known(corrections={"old": 9.0, "new": 0.5}))

    assert (1003, 652) == (old.input_tokens, new.input_tokens)


def test_signals_say_their_numbers() -> None:
    assert (
        "signals: ~13 tokens in, 20 out, no code, no tools"
        == decide(VAGUE, Task(expected_output_tokens=20)).reason
    )


def test_thresholds_are_configured() -> None:
    policy = Policy(signals=Signals(small_output_tokens=10, large_output_tokens=10))

    assert "sonnet" == decide("hello", Task(expected_output_tokens=11), policy).tier


# --- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Build it.", ["build"]),
        ("rebuild the building", []),
        ("build_all", []),
        ("rébuild", []),
        ("re-build", ["build"]),
        ("YES  or\nno?", ["yes or no"]),
        ("yes, or no", []),
        ("C++ code", ["c++"]),
        ("naïve or not", ["naïve"]),
        ("what? !!! now", ["!!!"]),
        ("a build and yes or no", ["yes or no", "build"]),
        ("", []),
    ],
)
def test_phrases_are_found_as_whole_words(text: str, found: list[str]) -> None:
    lexicon = Lexicon(["yes or no", "Build", "build", "c++", "naïve", "!!!", ""])

    assert found == lexicon.find(Scan(text))


@pytest.mark.parametrize(
    ("ask", "task_type"),
    [
        ("Classify the following ticket: how do I log in?", "classify"),
        ("What is the sentiment of: great!", "sentiment"),
        ("Detect the language: guten Tag", "language"),
        ("Extract the invoice number: 17-B", "extract"),
        ("Convert this to JSON: a=1", "convert"),
        ("Is a tomato a fruit? Answer yes or no.", "yes_no"),
        ("Translate the sentence.", "translate"),
        ("Classify this and implement a filter.", ""),
        ("Classify this and explain why.", ""),
        ("Classify this and summarize the rest.", "summarise"),
        ("We build bridges. Is this it? Comprehensive research by design.", ""),
        ("Which language is best for a compiler?", ""),
    ],
)
def test_types_of_asks(ask: str, task_type: str) -> None:
    assert task_type == decide(ask, policy=PHRASES_ONLY).task_type


@pytest.mark.parametrize(
    ("description", "complexity"),
    [
        ("classify and design", "simple"),
        ("design the building", "complex"),
        ("research and summarize", "complex"),
        ("summarize", "standard"),
        ("rebuild it", None),
    ],
)
def test_a_description_ranks_simple_then_complex_then_standard(
    description: str, complexity: str | None
) -> None:
    assert complexity == decide("x", Task(description), PHRASES_ONLY).complexity


def test_word_lists_contradict_themselves_nowhere() -> None:
    words = load_words()
    doubtful = {phrase for phrase in words._types if phrase in words._doubt}

    assert set() == doubtful
    assert words._strong <= set(words._types)


def test_words_never_quote_the_prompt() -> None:
    secret = "xyzzy-4711"

    for prompt in (f"{SPAM} {secret}", f"{secret} {PROOF}", f"{secret} ```x```"):
        for task in (None, Task(expected_output_tokens=5), Task(f"classify {secret}")):
            assert secret not in decide(prompt, task).reason


# --- policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "make"),
    [
        ("at least one of match", lambda: Rule(complexity="simple")),
        ("match = ' ': give at least", lambda: Rule(match=" ", tier="haiku")),
        ("match = 'a': give either", lambda: Rule(match="a")),
        ("match = 'b': give either", lambda: Rule(match="b", tier="haiku", complexity="simple")),
        ("complexity = 'hard'", lambda: Rule(match="x", complexity="hard")),  # type: ignore[arg-type]
        ("role = 'boss': expected one of main", lambda: Rule(role="boss", tier="haiku")),  # type: ignore[arg-type]
        ("tag 't': mode = 'on'", lambda: Switch("t", "on")),  # type: ignore[arg-type]
        ("percent = 101", lambda: Switch("t", "enforce", 101)),
        ("mode: mode = 'on'", lambda: Policy("on")),  # type: ignore[arg-type]
        ("percent = -1", lambda: Policy(percent=-1)),
        ("preset = 'other'", lambda: Policy(preset="other")),  # type: ignore[arg-type]
        ("[complexity] has simple:", lambda: Policy(complexity={"simple": "haiku"})),
        ("[max_tokens] has simple:", lambda: Policy(max_tokens={"simple": 5})),
        ("allowed_tiers is empty", lambda: Policy(allowed_tiers=())),
        ("small_input_tokens = -1", lambda: Signals(small_input_tokens=-1)),
        ("small_input_tokens = True", lambda: Signals(small_input_tokens=True)),
        ("small_output_tokens = 2000 is above", lambda: Signals(small_output_tokens=2_000)),
        ("'unsure-tier'", lambda: Router(policy=Policy(unsure="unsure-tier"))),
        ("'allowed-tier'", lambda: Router(policy=Policy(allowed_tiers=("allowed-tier",)))),
        ("'rule-tier'", lambda: Router(policy=Policy(rules=(Rule(match="x", tier="rule-tier"),)))),
        (
            "no tier is named 'a'",
            lambda: Router(policy=Policy(complexity={"simple": "a", "standard": "b", "complex": "c"})),
        ),
        ("'task-tier'", lambda: Router().decide(SPAM, Task(tier="task-tier"))),
    ],
)
def test_what_cannot_be_meant_is_refused(says: str, make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        make()


def test_a_body_that_is_no_request_is_refused() -> None:
    with pytest.raises(RequestError):
        decide({"model": "auto"})


def test_the_hash_names_policy_ladder_and_words() -> None:
    rule = Rule(match="x", tier="haiku")
    routers = [
        Router(),
        Router(policy=Policy("enforce")),
        Router(policy=Policy(rules=(rule,))),
        Router(policy=Policy(llm_tier="haiku")),
        Router(Ladder((*DEFAULT_LADDER.tiers, Tier("fable", "claude-fable-5-2")))),
    ]

    hashes = [router.policy_hash for router in routers]

    assert 5 == len(set(hashes))
    assert hashes[0] == Router().policy_hash
    assert {12} == {len(each) for each in hashes}


def test_what_is_switched_on_is_said_beside_what_is_observed() -> None:
    partly = Policy(switches=(Switch("triage", "enforce"), Switch("plan", "off")), reroute=("claude-opus-*",))
    assert ("tag triage", "claude-opus-*") == partly.switched_on
    assert () == Policy(mode="enforce", switches=partly.switches).switched_on
    assert (
        "OBSERVING, but for tag triage, claude-opus-*: every other call goes to the model it asked for. "
        "Up to $0.39 of $0.40 could move, quality unknown. Switch on: leastwise on"
        == observing_line(partly.switched_on, (390_000_000, 400_000_000))
    )
    assert "OBSERVING: every call goes to the model it asked for. Switch on: leastwise on" == observing_line(
        (), None
    )


@pytest.mark.parametrize("mode", ["observe", "enforce", "off"])
def test_a_tier_that_does_not_exist_is_refused_in_every_mode(mode: Mode) -> None:
    for model in ("auto", OPUS):
        with pytest.raises(ConfigError, match="no tier is named 'opuss'; the ladder has haiku, sonnet, opus"):
            Router(policy=Policy(mode=mode)).decide(
                Request.of({"model": model, "max_tokens": 9, "messages": []}), Task(tier="opuss")
            )


# --- a small model's word ----------------------------------------------------------------------------


def advised(opinion: str, ask: Any, task: Task | None = None, **policy: Any) -> Decision:
    router = Router(policy=Policy(learned=False, **policy))
    return router.decide(ask, task, known=Known(opinion=opinion), now=NOW)


def test_a_small_models_word_counts_where_nothing_else_tells() -> None:
    decision = advised("summarise", PROOF)

    assert (SONNET, "summarise", "standard") == (decision.model, decision.task_type, decision.complexity)
    assert [(Code.ADVISED, "type: summarise (a small model says)")] == [
        (reason.code, reason.words) for reason in decision.reasons
    ]
    assert HAIKU == advised("summarise", SPAM).model  # a phrase tells
    assert Code.SIGNALS == advised("code", "hm", Task(expected_output_tokens=5)).reasons[0].code


@pytest.mark.parametrize("opinion", ["", "no such type"])
def test_no_word_is_no_word(opinion: str) -> None:
    assert Code.UNSURE == advised(opinion, PROOF).reasons[-1].code


def test_the_reference_asks_no_small_model() -> None:
    router = Router(policy=Policy.reference())

    assert SONNET == router.decide("x", known=Known(opinion="code")).model


def test_a_small_model_may_name_the_users_own_types_first() -> None:
    own = OwnType("refund", ("give my money back", "refund me", "I want a refund"), tier="opus")
    router = Router(policy=Policy(types=(own,)))
    decision = router.decide("hm", known=Known(opinion="refund"))

    assert ["refund", "classify"] == [*router.teller.kinds][:2]
    assert "such as: give my money back" == router.teller.kinds["refund"]
    assert router.teller.kinds.keys() <= router.teller.table.needs.keys()
    assert (OPUS, "complex") == (decision.model, decision.complexity)
