"""What was spent, what it is compared with, and what was saved: by hand, to the nano-dollar.

Rates, in nano-dollars per token (input, output): haiku-5-5 100, 500; sonnet-5-5 2,000,
10,000; opus-5-5 4,000, 20,000; haiku-4-5 1,000, 5,000; opus-4-6 5,000, 25,000.
Models from 4.7 on count 13 tokens where older ones count 10.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from leastwise.account import Teller, outcome_of
from leastwise.attempt import Answer, Call, Terms
from leastwise.errors import UpstreamFailure
from leastwise.exchange import exchange
from leastwise.features import Features
from leastwise.ladder import Baseline, Code, Decision, Reason, Task
from leastwise.ledger import Entry, Exchange, Measured
from leastwise.messages import Facts, Held, Reply, Request, Usage
from leastwise.routing import Known, Warmth
from leastwise.steps import Lease, Load, Record, Relay, Relayed, Send, Steps
from tests.kit import HAIKU, NOW, OPUS, SONNET, Clock, call, decision, reply, request, terms


def run(asked: Call, under: Terms, *answers: object) -> Record:
    """Drive an exchange; return its one record."""
    waiting = list(answers)
    steps: Steps[Any] = exchange(asked, under)
    records: list[Record] = []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Record):
                records.append(step)
            if isinstance(step, Send | Relay):
                answer = waiting.pop(0)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            else:
                step = steps.send(Known() if isinstance(step, Load) else None)
    except (StopIteration, UpstreamFailure):
        (record,) = records
        return record


def row(made: Decision, *answers: object, clock: Clock | None = None) -> Exchange:
    return run(call(), terms(made, clock), *answers).exchange


def sums(found: Exchange) -> tuple[int, int, int, int, int]:
    return found.spent_nusd, found.discarded_nusd, found.baseline_nusd, found.saved_nusd, found.could_nusd


def test_saved_is_the_baselines_price_less_what_was_spent() -> None:
    # haiku: 1,000 x 100 + 50 x 500; opus: 1,000 x 4,000 + 50 x 20,000
    assert (125_000, 0, 5_000_000, 4_875_000, 0) == sums(row(decision(), reply(HAIKU, 1_000, 50)))


def test_a_baseline_of_another_tokenizer_counts_fewer_tokens() -> None:
    made = decision(baseline=Baseline("claude-opus-4-6", "stated"))
    # haiku-5-5: 1,300 x 100 + 130 x 500; opus-4-6 counts 1,000 and 100: 1,000 x 5,000 + 100 x 25,000
    assert (195_000, 0, 7_500_000, 7_305_000, 0) == sums(row(made, reply(HAIKU, 1_300, 130)))


def test_a_baseline_of_another_tokenizer_counts_more_tokens() -> None:
    made = decision("claude-haiku-4-5", baseline=Baseline(OPUS, "assumed"))
    # haiku-4-5: 1,000 x 1,000 + 100 x 5,000; opus-5-5 counts 1,300 and 130: 1,300 x 4,000 + 130 x 20,000
    found = row(made, reply("claude-haiku-4-5", 1_000, 100))
    assert (1_500_000, 0, 7_800_000, 6_300_000, 0) == sums(found)


def test_a_retry_that_may_have_been_billed_is_spent_and_discarded() -> None:
    clock = Clock()
    asked = call(request(max_tokens=10))
    found = run(asked, terms(clock=clock), UpstreamFailure(OSError()), reply(HAIKU, 200, 10)).exchange
    lost, answer = asked.spent
    assert lost.cost_nusd == 100 * lost.usage.input_tokens > 0
    assert (25_000, 1_000_000) == (answer.cost_nusd, found.baseline_nusd)
    assert lost.cost_nusd + 25_000 == found.spent_nusd
    assert (lost.cost_nusd, 975_000 - lost.cost_nusd) == (found.discarded_nusd, found.saved_nusd)
    assert "estimated" == found.certainty


def test_an_answer_our_clamp_cut_off_is_discarded() -> None:
    found = row(
        decision(max_tokens=50),
        reply(HAIKU, 200, 50, stop_reason="max_tokens"),
        reply(HAIKU, 200, 90),
    )
    # 20,000 + 25,000, then 20,000 + 45,000; opus for the second: 800,000 + 1,800,000
    assert (110_000, 45_000, 2_600_000, 2_490_000, 0) == sums(found)


def test_a_misfit_costs_nothing_and_leaves_nothing_saved() -> None:
    enforced = decision(asked=OPUS, mode="enforce", baseline=Baseline(OPUS, "asked"))
    refused = UpstreamFailure(RuntimeError(), status=400)
    found = run(call(request(OPUS)), terms(enforced), refused, reply(OPUS, 200, 10)).exchange
    assert (1_000_000, 0, 1_000_000, 0, 0) == sums(found)
    assert ("opus", OPUS) == (found.tier, found.served)


def observed(**changes: Any) -> Decision:
    made = decision(OPUS, asked=OPUS, mode="observe", would=HAIKU, baseline=Baseline(OPUS, "asked"))
    return structs.replace(made, **changes)


def test_observing_saves_nothing_and_says_what_could_move() -> None:
    # opus 800,000 + 200,000; haiku 20,000 + 5,000
    assert (1_000_000, 0, 1_000_000, 0, 975_000) == sums(row(observed(), reply(OPUS, 200, 10)))
    assert (1_000_000, 0, 1_000_000, 0, 0) == sums(row(observed(would=""), reply(OPUS, 200, 10)))


def test_what_could_move_from_an_older_tokenizer_is_counted_in_the_newer() -> None:
    made = observed(model="claude-opus-4-6", tier="", baseline=Baseline("claude-opus-4-6", "asked"))
    # opus-4-6: 1,000 x 5,000 + 100 x 25,000; haiku-5-5 counts 1,300 and 130: 130,000 + 65,000
    found = row(made, reply("claude-opus-4-6", 1_000, 100))
    assert (7_500_000, 0, 7_500_000, 0, 7_305_000) == sums(found)


def test_could_is_negative_where_routing_would_have_cost_more() -> None:
    made = observed(model=HAIKU, asked=HAIKU, would=OPUS, baseline=Baseline(HAIKU, "asked"))
    assert (25_000, 0, 25_000, 0, -975_000) == sums(row(made, reply(HAIKU, 200, 10)))


def test_off_saves_nothing() -> None:
    made = observed(mode="off", would="")
    assert (1_000_000, 0, 1_000_000, 0, 0) == sums(row(made, reply(OPUS, 200, 10)))


def test_savings_are_signed() -> None:
    made = decision(OPUS, baseline=Baseline(HAIKU, "stated"))
    assert (1_000_000, 0, 25_000, -975_000, 0) == sums(row(made, reply(OPUS, 200, 10)))


def test_a_failed_request_saves_nothing_and_has_no_baseline() -> None:
    found = row(decision(), UpstreamFailure(RuntimeError(), status=401))
    assert (0, 0, 0, 0, 0) == sums(found)
    assert ("error", 401, "", "") == (found.result, found.status, found.served, found.tier)


def test_a_model_spelled_with_its_date_is_the_baseline_itself() -> None:
    made = observed(
        model="claude-haiku-4-5-20251001", would="", baseline=Baseline("claude-haiku-4-5", "asked")
    )
    found = row(made, reply("claude-haiku-4-5-20251001", 200, 10))
    assert (250_000, 250_000) == (found.spent_nusd, found.baseline_nusd)
    assert ("claude-haiku-4-5", "claude-haiku-4-5") == (found.served, found.baseline)


def test_without_a_price_for_the_baseline_nothing_is_saved_nor_lost() -> None:
    made = decision(baseline=Baseline("no-such-model", "stated"))
    assert (25_000, 0, 25_000, 0, 0) == sums(row(made, reply(HAIKU, 200, 10)))


def test_cache_classes_are_repriced_in_their_class() -> None:
    usage = Usage(
        input_tokens=100, output_tokens=10, cache_read_input_tokens=1_000, cache_write_5m_tokens=200
    )
    # haiku-5-5: 100 x 100 + 10 x 500 + 1,000 x 10 + 200 x 125
    # opus-5-5: 100 x 4,000 + 10 x 20,000 + 1,000 x 200 + 200 x 5,000
    assert (50_000, 0, 1_800_000, 1_750_000, 0) == sums(row(decision(), reply(usage=usage)))


def teller(made: Decision | None = None, **known: Any) -> Teller:
    return Teller(call(), terms(), Features(), Known(**known), made or decision(), "")


def test_a_row_never_holds_the_opening_of_a_prompt() -> None:
    marker = "the-marker"
    told = Teller(call(request(system=marker)), terms(), Features(opening=marker), Known(), decision(), "")
    record = told.failed(UpstreamFailure(RuntimeError(marker), status=500))
    assert marker not in repr(record)


def test_reasons_are_kept_as_codes_and_words() -> None:
    refused = UpstreamFailure(RuntimeError(), status=400, message="thinking.type: 'x' is not supported")
    sent = request(max_tokens=9)
    told = teller(decision(fallback=SONNET, max_tokens=9)).refused(refused).truncated(sent, limit=100)
    kept = json.loads(told.failed(UpstreamFailure(RuntimeError())).exchange.decision_json)
    assert [
        ["type", "type classify", "", "haiku"],
        ["misfit", f"refused with 400 on thinking.type: sent to {SONNET}", HAIKU, SONNET],
        ["adapted", "adapted: thinking between_tools, for the cap leaves it no room", SONNET, SONNET],
        ["truncated", "our cap of 9 cut it off: asked again with yours", SONNET, SONNET],
    ] == kept["reasons"]
    assert ("sonnet", "thinking.type", None) == (
        told.decision.tier,
        told.misfit_field,
        told.decision.max_tokens,
    )


def test_what_a_models_own_limit_cut_off_is_asked_of_the_fallback() -> None:
    told = teller().truncated(request(max_tokens=9), limit=9)
    assert f"our cap of 9 cut it off: asked again of {OPUS} with yours" == told.decision.reasons[-1].words
    assert OPUS == told.decision.model


def test_a_model_off_the_ladder_has_no_tier() -> None:
    told = teller(decision(fallback="claude-opus-4-6")).refused(UpstreamFailure(RuntimeError(), status=404))
    assert ("", "anthropic") == (told.decision.tier, told.decision.upstream)


def answer_of(facts: Facts) -> Answer:
    entry = Entry(
        id="E", exchange_id="X", purpose="answer", provider="anthropic", model=facts.model, asked_at=NOW,
        status=200, usage=facts.usage, price_row="", cost_nusd=0, worst_nusd=0, certainty="exact",
    )  # fmt: skip
    return Answer(Reply("payload", facts), facts, entry)


def test_estimates_are_measured_without_their_correction() -> None:
    told = teller(structs.replace(decision(), input_tokens=300), corrections={"new": 1.5})
    assert Measured("new", 200, 260) == told.answered(answer_of(reply(HAIKU, 260).facts)).measured
    assert told.answered(answer_of(reply("unheard-of", 260).facts)).measured is None
    assert told.answered(answer_of(reply(HAIKU, 0).facts)).measured is None


def test_what_is_outside_the_share_is_told_apart() -> None:
    kept = decision(reasons=(Reason(Code.NOT_IN_SHARE, "not in the 10%", "", ""),))
    assert "kept" == row(kept, reply()).arm
    assert "treated" == row(decision(), reply()).arm


def test_the_outcome_agrees_with_the_row_and_counts_every_attempt() -> None:
    clock = Clock()
    asked = call(task=Task(tag="t"))
    under = terms(decision(max_tokens=50), clock)
    record = run(asked, under, reply(HAIKU, 200, 50, stop_reason="max_tokens"), reply(HAIKU, 200, 90))
    outcome = outcome_of(record.exchange, asked.spent, (), under)
    assert Decimal("0.000110") == outcome.cost_usd
    assert Decimal("0.0026") == outcome.baseline_usd
    assert outcome.baseline_usd - outcome.cost_usd == outcome.saved_usd
    assert {"haiku": {"input_tokens": 400, "output_tokens": 140}} == outcome.usage_by_tier
    assert ("not measured", "exact") == (outcome.same_quality, outcome.certainty)


@pytest.mark.parametrize(("model", "same"), [(OPUS, "as asked"), (HAIKU, "not measured")])
def test_quality_is_as_asked_only_where_the_baseline_answered(model: str, same: str) -> None:
    asked, under = call(), terms(decision(model))
    record = run(asked, under, reply(model))
    assert same == outcome_of(record.exchange, asked.spent, (), under).same_quality


def test_a_stream_that_broke_is_cut_and_measures_nothing() -> None:
    facts = Facts(HAIKU, "msg_1", usage=Usage(200, 1), visible_bytes=60)
    record = run(call(), terms(), Reply(Held("live")), Relayed(facts, UpstreamFailure(OSError())))
    assert ("cut", "estimated", None) == (record.exchange.result, record.exchange.certainty, record.measured)


# --- the prompt cache; per token read and written (5 minutes): haiku 10, 125; opus 200, 5,000 ---------

TURN = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
MARKED: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}


def cached(read: int = 0, written: int = 0, plain: int = 500, output: int = 400) -> Usage:
    return Usage(plain, output, read, written)


def told(
    made: Decision, used: Usage, *known: Warmth, served: str = "", asked: Request | None = None
) -> Record:
    """Return the record of a call in a session that has these caches."""
    steps = exchange(call(asked or request(**MARKED)), terms(made))
    step = next(steps)
    while not isinstance(step, Record):
        answer: object = None
        if isinstance(step, Load):
            assert step.session
            answer = Known(warmths={each.model: each for each in known})
        elif isinstance(step, Send):
            answer = reply(served or step.request.model, usage=used)
        step = steps.send(answer)
    return step


def left(model: str = OPUS, prefix: int = 60_000, at: float = NOW - 60, hour: int = 0) -> Warmth:
    return Warmth(model, at, prefix, hour, 400, 3)


def cache_sums(found: Exchange) -> tuple[int, int, int, int]:
    return found.spent_nusd, found.lost_cache_nusd, found.baseline_nusd, found.saved_nusd


def test_a_move_off_a_warm_cache_saves_against_a_baseline_that_would_have_read() -> None:
    # haiku: 500 x 100 + 60,000 x 125 + 400 x 500 = 7,750,000; of it lost 60,000 x (125 - 10)
    # opus: 500 x 4,000 + 60,000 x 200 + 400 x 20,000 = 22,000,000
    found = told(decision(), cached(written=60_000), left()).exchange
    assert (7_750_000, 6_900_000, 22_000_000, 14_250_000) == cache_sums(found)


def test_a_move_off_a_warm_cache_may_save_less_than_nothing() -> None:
    # sonnet: 500 x 2,000 + 60,000 x 2,500 + 400 x 10,000 = 155,000,000; lost 60,000 x (2,500 - 100)
    found = told(decision(SONNET), cached(written=60_000), left()).exchange
    assert (155_000_000, 144_000_000, 22_000_000, -133_000_000) == cache_sums(found)


def test_what_is_new_in_the_prompt_is_written_by_the_baseline_too() -> None:
    # haiku: 62,000 x 125 + 200,000; opus: 60,000 x 200 + 2,000 x 5,000 + 400 x 20,000
    found = told(decision(), cached(written=62_000, plain=0), left()).exchange
    assert (7_950_000, 6_900_000, 30_000_000, 22_050_000) == cache_sums(found)


def test_what_was_read_all_the_same_is_not_lost() -> None:
    # haiku: 45,000 x 10 + 15,000 x 125 + 50,000 + 200,000 = 2,575,000; lost 15,000 x 115
    found = told(decision(), cached(45_000, 15_000), left()).exchange
    assert (2_575_000, 1_725_000, 22_000_000, 19_425_000) == cache_sums(found)


def test_a_way_back_that_has_to_be_read_anew_is_our_loss_too() -> None:
    # opus answers what haiku had; 60,000 x (5,000 - 200) lost: spent 310,000,000, as asked 22,000,000
    found = told(decision(OPUS), cached(written=60_000), left(HAIKU)).exchange
    assert (310_000_000, 288_000_000, 22_000_000, -288_000_000) == cache_sums(found)


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(
            (left(HAIKU),), id="the same model answered before: it had to read anew for its own sake"
        ),
        pytest.param((left(at=NOW - 300),), id="expired"),
        pytest.param((left(prefix=130_000),), id="the conversation was cut"),
        pytest.param((), id="unknown"),
    ],
)
def test_where_nothing_was_left_behind_the_baseline_used_the_same_classes(known: tuple[Warmth, ...]) -> None:
    # opus: 500 x 4,000 + 60,000 x 5,000 + 400 x 20,000
    found = told(decision(), cached(written=60_000), *known).exchange
    assert (7_750_000, 0, 310_000_000, 302_250_000) == cache_sums(found)


def test_an_unknown_conversation_is_taken_to_have_been_warm_on_the_model_it_asks_for() -> None:
    system = [{"type": "text", "text": "x" * 3_800, **MARKED}]  # 1,300 tokens
    asked = request(OPUS, system=system, messages=[*TURN, {"role": "user", "content": "y" * 100}])
    made = decision(asked=OPUS, mode="enforce", baseline=Baseline(OPUS, "asked"))
    # before the last turn: (3,800 + 7) / 3.8 + 8 = 1,009.8, by 1.3 and up: 1,313 tokens
    found = told(made, cached(written=2_000, plain=0), asked=asked).exchange

    assert 2_000 * 125 + 400 * 500 == found.spent_nusd
    assert 1_313 * (125 - 10) == found.lost_cache_nusd
    assert 1_313 * 200 + 687 * 5_000 + 400 * 20_000 == found.baseline_nusd


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_where_the_caller_chose_the_caller_lost(mode: Any) -> None:
    made = observed(model=SONNET, asked=SONNET, mode=mode, would=HAIKU, baseline=Baseline(SONNET, "asked"))
    # 500 x 2,000 + 60,000 x 2,500 + 400 x 10,000; haiku in the same classes: 7,750,000
    found = told(made, cached(written=60_000), left()).exchange
    assert (155_000_000, 0, 155_000_000, 0) == cache_sums(found)
    assert 155_000_000 - 7_750_000 == found.could_nusd


def test_without_marks_there_is_no_session_to_ask_for_and_none_to_remember() -> None:
    record = run(call(), terms(decision()), reply(usage=cached(60_000)))
    assert (None, 0) == (record.warmth, record.exchange.lost_cache_nusd)


def test_a_model_without_a_price_lost_nothing_that_has_one() -> None:
    found = told(decision(), cached(written=60_000), left(), served="my-own-model").exchange
    assert 0 == found.lost_cache_nusd


def test_a_whole_answer_tells_what_its_session_has_cached() -> None:
    found = told(decision(), cached(59_000, 1_000), left(HAIKU, hour=59_000)).warmth
    assert Warmth(HAIKU, NOW, 60_000, 59_000, 400, 1) == found
    assert Warmth(HAIKU, NOW, 59_000, 0, 400, 1) == told(decision(), cached(59_000), left(HAIKU)).warmth
    assert None is told(decision(), cached()).warmth


def test_an_answer_cut_short_has_used_the_cache_as_it_said_at_its_start() -> None:
    facts = Facts(HAIKU, "msg_1", usage=cached(written=60_000), visible_bytes=60)
    answer = Relayed(facts, UpstreamFailure(OSError()))
    record = run(call(request(**MARKED)), terms(), Reply(Held("live")), answer)
    assert ("cut", Warmth(HAIKU, NOW, 60_000, 0, 400, 1)) == (record.exchange.result, record.warmth)


@pytest.mark.parametrize(
    ("seen", "found"),
    [(Facts(HAIKU, usage=cached(59_000, 1_000)), Warmth(HAIKU, NOW, 60_000, 0, 400, 1)), (Facts(), None)],
)
def test_so_has_one_whose_caller_left_after_its_start(seen: Facts, found: Warmth | None) -> None:
    steps = exchange(call(request(**MARKED)), terms())
    next(steps)
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    left: Any = lease.on_abandon(seen)
    _, record = left
    assert ("abandoned", found) == (record.exchange.result, record.warmth)


def test_a_request_that_could_not_be_read_has_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leastwise.features.read", lambda *_: 1 / 0)
    assert Load("", ()) == next(exchange(call(request(**MARKED)), terms()))
