"""Staying with a warm prompt cache or moving off it, as the router decides and says it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from leastwise.cascade import Check, Plan
from leastwise.compile import Fit
from leastwise.ladder import Code, Decision, Ladder, Task, Tier
from leastwise.messages import Request
from leastwise.prices import Rate, load_prices
from leastwise.routing import Known, Policy, Router, Rule, Signals, Warmth
from tests.kit import HAIKU, OPUS, SONNET

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SPAM = "Is this spam? Win $1000 now!!!"
PROOF = "is this proof right?"
SUMMARY = "Summarize this article."
BUILD = "Implement a queue."
MARK = {"cache_control": {"type": "ephemeral"}}
AT = NOW.timestamp()
#: Long prompts alone do not make a task standard here, so that there is something to move to haiku.
LONG = Signals(large_input_tokens=200_000)
ENFORCE = Policy("enforce", signals=LONG)


def steps(decision: Decision) -> list[tuple[str, str, str]]:
    return [(reason.code, reason.before, reason.after) for reason in decision.reasons]


def unfit(*models: str) -> Any:
    return lambda _request, model: Fit(misfit="the prompt is too long" if model in models else "")


def talk(ask: str, model: str = OPUS, *, tokens: int = 60_500, turns: int = 1, **members: Any) -> Request:
    """Return a conversation of so many estimated tokens, marked for the cache; `ask` and 500 are its last."""
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}] * turns
    chars = (tokens * 10 // 13 - 4 * (2 * turns + 1)) * 38 // 10 - 7 * turns - 1_445
    system = [{"type": "text", "text": "x" * chars, **MARK}]
    given = {"model": model, "max_tokens": 500, "system": system, **members}
    return Request.of(
        {**given, "messages": [*said, {"role": "user", "content": f"{ask}\n{'-' * (1_444 - len(ask))}"}]}
    )


def warm(model: str = OPUS, prefix: int = 60_000, **given: Any) -> dict[str, Warmth]:
    facts = {"at": AT - 60, "output_tokens": 1_200, "turns": 3, **given}
    return {model: Warmth(model, prefix_tokens=prefix, **facts)}


def weigh(
    request: Request, *known: dict[str, Warmth], policy: Policy | None = None, **given: Any
) -> Decision:
    warmths = {model: warmth for each in known for model, warmth in each.items()}
    router = Router(policy=policy or ENFORCE)
    return router.decide(request, known=Known(warmths=warmths), now=NOW, **given)


def test_who_stays_for_the_cache_above_what_may_answer_next_does_not_climb_down() -> None:
    fable = "claude-fable-5-2"
    ladder = Ladder((Tier("haiku", HAIKU), Tier("sonnet", SONNET), Tier("opus", OPUS), Tier("fable", fable)))
    checked = Plan((Check("long", lambda *_: None),), escalate_to="opus", probes=0.0)

    def decide(**warmths: Any) -> Decision:
        known = Known(warmths=warmths.get("known", {}))
        router = Router(ladder, ENFORCE)
        return router.decide(talk(SUMMARY, "auto"), known=known, now=NOW, plan=checked)

    assert ("sonnet", ["opus"]) == (decide().tier, [tier.name for tier in decide().climbs])
    stays = decide(known=warm(fable))
    assert ("fable", ()) == (stays.tier, stays.climbs)


def test_the_test_conversation_has_the_size_it_says() -> None:
    assert 60_500 == weigh(talk(SPAM, HAIKU)).input_tokens


def test_a_warm_conversation_moves_where_reading_anew_is_cheaper_than_the_cache() -> None:
    decision = weigh(talk(SPAM), warm())

    assert (HAIKU, [("type", "opus", "haiku"), ("prompt_cache", "haiku", "haiku")]) == (
        decision.model,
        steps(decision),
    )
    # 60,000 x (125 - 10)
    assert (
        "moves off opus's warm prompt cache of 60,000 tokens: lost $0.0069, pays from turn 1"
        == decision.reasons[-1].words
    )


def test_a_warm_conversation_stays_where_a_move_would_not_pay_in_time() -> None:
    decision = weigh(talk(SUMMARY), warm())

    assert (OPUS, [("type", "opus", "sonnet"), ("prompt_cache", "sonnet", "opus")]) == (
        decision.model,
        steps(decision),
    )
    # opus: 200 x (60,000 + 60,900 + 61,800) + 3 x (500 x 5,000 + 400 x 20,000) = 68,040,000
    # sonnet: 2,500 x 60,500 + 100 x (60,900 + 61,800) + 2 x 500 x 2,500 + 3 x 400 x 10,000 = 178,020,000
    assert (
        "stays on opus: its prompt cache of 60,000 tokens is warm; "
        "3 turns $0.068 against $0.178 on sonnet, which pays from 13 turns" == decision.reasons[-1].words
    )


@pytest.mark.parametrize(("turns", "model"), [(12, OPUS), (13, SONNET)])
def test_a_conversation_that_has_lasted_is_expected_to_last(turns: int, model: str) -> None:
    assert model == weigh(talk(SUMMARY), warm(turns=turns, output_tokens=400 * turns)).model


@pytest.mark.parametrize(("tokens", "money"), [(66_500, "$0.022"), (67_000, "$0.025")])
def test_more_than_the_last_turn_is_new_where_the_estimate_is_sure_of_it(tokens: int, money: str) -> None:
    # 66,500 are a tenth and 500 above the prefix: 60,000 x 200 + 500 x 5,000 + 400 x 20,000 = 22,500,000
    decision = weigh(talk(SUMMARY, tokens=tokens), warm(turns=1, output_tokens=400))

    assert f"1 turn {money} against" in decision.reason


def test_what_is_pasted_now_is_not_expected_of_every_turn() -> None:
    # opus: $0.128 for the first, $0.0348 or so for the next; sonnet: $0.304 and $0.0174
    decision = weigh(talk(SUMMARY, tokens=130_000), warm(prefix=100_000, turns=5, output_tokens=2_000))

    assert OPUS == decision.model
    assert "5 turns $0.267 against $0.374 on sonnet" in decision.reason


def test_what_never_pays_is_said() -> None:
    dear = load_prices().with_rates(
        [Rate.read({"model": SONNET, "input": 3, "output": 15, "cache_read": "0.3"})]
    )

    decision = Router(policy=ENFORCE, prices=dear).decide(
        talk(SUMMARY), known=Known(warmths=warm(turns=1, output_tokens=40)), now=NOW
    )

    assert decision.reason.endswith("1 turn $0.015 against $0.227 on sonnet, which does not pay in 50 turns")


def test_the_money_of_a_reason_has_the_discount_off() -> None:
    prices = replace(load_prices(), discount=Decimal("0.5"))
    router = Router(policy=ENFORCE, prices=prices)
    found = router.decide(talk(SPAM), known=Known(warmths=warm()), now=NOW)

    assert "lost $0.0034, pays from turn 1" == found.reason.rpartition(": ")[2]  # 0.00345, half to even


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({}, "nothing is known, and there was no human turn before"),
        (warm(at=AT - 300), "it has expired"),
        (warm(SONNET), "sonnet itself is warm"),
        (warm(HAIKU), "a move up from a cheap model is never vetoed"),
        (warm(prefix=121_001), "the conversation was cut to less than half"),
        (warm("claude-opus-4-6"), "this model is not to be had here"),
    ],
)
def test_a_move_is_weighed_only_against_a_warm_cache_of_a_dearer_model(
    known: dict[str, Warmth], why: str
) -> None:
    decision = weigh(talk(SUMMARY, turns=0), known)

    assert (why, SONNET, ["type"]) == (why, decision.model, [step[0] for step in steps(decision)])


def test_an_hour_is_longer_than_five_minutes() -> None:
    # written for an hour costs 4,000 on sonnet: three turns do not pay it back either
    assert OPUS == weigh(talk(SUMMARY), warm(at=AT - 3_000, hour_tokens=60_000)).model


def test_without_marks_no_cache_is_read_and_none_is_lost() -> None:
    assert SONNET == weigh(talk(SUMMARY, system="x" * 100_000), warm()).model


@pytest.mark.parametrize(
    ("task", "policy", "code"),
    [
        (Task(tier="sonnet"), Policy("enforce"), Code.FORCED_TIER),
        (Task(complexity="standard"), Policy("enforce"), Code.FORCED_COMPLEXITY),
        (Task(tag="t"), Policy("enforce", rules=(Rule(tag="t", tier="sonnet"),)), Code.RULE),
        (Task(), Policy.reference(mode="enforce"), Code.SIGNALS),
    ],
)
def test_what_is_forced_is_not_weighed(task: Task, policy: Policy, code: Code) -> None:
    decision = weigh(talk(SUMMARY), warm(), policy=policy, task=task)

    assert [code] == [reason.code for reason in decision.reasons if reason.code is not Code.CEILING]


def test_a_rule_that_names_a_complexity_is_weighed() -> None:
    policy = Policy("enforce", rules=(Rule(tag="t", complexity="standard"),))
    assert [Code.RULE, Code.CACHE] == [
        r.code for r in weigh(talk(SUMMARY), warm(), policy=policy, task=Task(tag="t")).reasons
    ]


def test_a_tool_loop_is_not_weighed() -> None:
    made = {"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}
    done = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}
    turns = [
        {"role": "user", "content": SPAM},
        {"role": "assistant", "content": [made]},
        {"role": "user", "content": [done]},
    ]
    asked = Request.of({"model": OPUS, "max_tokens": 500, "messages": turns, **MARK})
    assert [Code.PINNED] == [reason.code for reason in weigh(asked, warm()).reasons]


def test_an_unknown_conversation_is_taken_to_be_warm_on_the_model_it_asks_for() -> None:
    decision = weigh(talk(SUMMARY, turns=2))

    assert OPUS == decision.model
    assert (
        "stays on opus: its prompt cache of 60,000 tokens is taken to be warm; 2 turns"
        == decision.reasons[-1].words[:77]
    )
    assert HAIKU == weigh(talk(SPAM, turns=2)).model


def test_an_unknown_conversation_with_auto_or_an_unknown_model_is_not() -> None:
    assert ["type"] == [step[0] for step in steps(weigh(talk(SUMMARY, "auto", turns=2)))]
    assert ["type", "asked_is_ceiling"] == [
        step[0] for step in steps(weigh(talk(SUMMARY, "my-own-model", turns=2)))
    ]


def test_auto_stays_with_the_model_it_was_on() -> None:
    stays, moves = weigh(talk(SUMMARY, "auto"), warm()), weigh(talk(SPAM, "auto"), warm(SONNET))

    assert (OPUS, HAIKU) == (stays.model, moves.model)
    assert "moves off sonnet's warm prompt cache of 60,000 tokens" in moves.reason


def test_auto_stays_with_a_baseline_off_the_ladder() -> None:
    older = "claude-opus-4-6"
    decision = weigh(talk(SUMMARY, "auto"), warm(older, 46_000), task=Task(instead_of=older))

    assert (older, "") == (decision.model, decision.tier)
    assert "stays on claude-opus-4-6: its prompt cache of 46,000 tokens" in decision.reason


def test_only_allowed_tiers_that_fit_are_stayed_on() -> None:
    allowed = Policy("enforce", allowed_tiers=("haiku", "sonnet"))
    assert SONNET == weigh(talk(SUMMARY, "auto"), warm(), policy=allowed).model
    router = Router(policy=ENFORCE, fits=unfit(OPUS))
    decision = router.decide(talk(SUMMARY, "auto"), known=Known(warmths=warm()), now=NOW)
    assert SONNET == decision.model


def test_a_move_that_does_not_fit_where_it_would_pay_is_weighed_where_it_goes() -> None:
    router = Router(policy=ENFORCE, fits=unfit(HAIKU))

    decision = router.decide(talk(SPAM), known=Known(warmths=warm()), now=NOW)

    assert [Code.TYPE, Code.UNFIT, Code.CACHE] == [reason.code for reason in decision.reasons]
    assert OPUS == decision.model


def test_a_conversation_that_has_moved_does_not_look_back() -> None:
    moved = weigh(talk(SPAM), warm(), warm(HAIKU, 60_200, at=AT - 5))
    assert (HAIKU, ["type"]) == (moved.model, [step[0] for step in steps(moved)])


def test_of_two_warm_models_the_cheaper_to_stay_on_is_kept() -> None:
    # back to haiku, which has had the first 20,000 tokens: 40,000 x (125 - 10)
    decision = weigh(talk(SPAM), warm(at=AT - 9), warm(SONNET, at=AT - 8), warm(HAIKU, 20_000, at=AT - 200))

    assert HAIKU == decision.model
    assert "moves off sonnet's warm prompt cache of 60,000 tokens: lost $0.0046" in decision.reason


def test_a_model_without_a_price_is_neither_weighed_nor_stayed_on() -> None:
    local = Ladder((Tier("local", "qwen"), Tier("opus", OPUS)))
    policy = Policy("enforce", complexity={"simple": "local", "standard": "local", "complex": "opus"})
    router = Router(local, policy)

    assert "qwen" == router.decide(talk(SUMMARY, "auto"), known=Known(warmths=warm()), now=NOW).model
    assert OPUS == router.decide(talk(BUILD, "auto"), known=Known(warmths=warm("qwen")), now=NOW).model


def test_while_observing_what_could_go_is_weighed_too() -> None:
    stays, moves = (weigh(talk(ask), warm(), policy=Policy(signals=LONG)) for ask in (SUMMARY, SPAM))

    assert (OPUS, HAIKU) == (stays.would, moves.would)
    assert [Code.TYPE, Code.CACHE, Code.OBSERVED] == [reason.code for reason in stays.reasons]
