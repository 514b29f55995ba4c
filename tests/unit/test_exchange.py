"""The page, as transcripts: expect this step, feed that answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leastwise.attempt import Terms
from leastwise.errors import ConfigError, UpstreamFailure
from leastwise.exchange import Done, exchange
from leastwise.ladder import Baseline, Code, Ladder, Task, Tier
from leastwise.messages import Facts, Held, Reply, Usage
from leastwise.prices import Rate, load_prices
from leastwise.routing import Known
from leastwise.steps import Lease, Load, Record, Relay, Relayed, Send, Settle, Sleep, Steps
from tests.kit import HAIKU, NOW, OPUS, SONNET, Clock, call, decision, reply, request, terms


def returned(steps: Steps[Done], answer: object) -> Done:
    """Return what the exchange returns on this answer."""
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    done = stop.value.value
    assert isinstance(done, Done)
    return done


def failure(status: int | None = 529, **headers: str) -> UpstreamFailure:
    return UpstreamFailure(RuntimeError("upstream"), status=status, headers=headers, request_id="req_9")


def test_the_order_of_the_product() -> None:
    steps = exchange(call(task=Task(tag="triage")), terms())

    assert next(steps) == Load("triage", ())
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    assert lease.reserved.exchange_id == "X"
    send = steps.send(None)
    assert isinstance(send, Send)
    assert (lease.reserved.id, "anthropic", HAIKU) == (send.entry_id, send.upstream, send.request.model)
    settle = steps.send(reply())
    assert isinstance(settle, Settle)
    assert lease.reserved.id == settle.entry.id
    # 200 x $0.10 + 10 x $0.50 per million; opus: 200 x $4 + 10 x $20
    assert 25_000 == settle.entry.cost_nusd
    record = steps.send(None)
    assert isinstance(record, Record)
    row = record.exchange
    assert ("ok", HAIKU, "haiku", "triage") == (row.result, row.served, row.tier, row.tag)
    assert (1_000_000, 25_000, 975_000) == (row.baseline_nusd, row.spent_nusd, row.saved_nusd)
    done = returned(steps, None)
    assert "payload" == done.reply.payload
    assert "haiku $0.000025, claude-opus-5-5 $0.001000 (assumed); type classify" == str(done.outcome)


def drive(steps: Steps[Done], *answers: object, known: Known | None = None) -> tuple[list[Any], Done | None]:
    """Answer each `Send` in turn (an exception is thrown); return all steps and the end."""
    waiting = list(answers)
    seen: list[Any] = []
    try:
        step = next(steps)
        while True:
            seen.append(step)
            match step:
                case Load():
                    step = steps.send(known or Known())
                case Send():
                    answer = waiting.pop(0)
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                case Relay():
                    step = steps.send(waiting.pop(0))
                case _:
                    step = steps.send(None)
    except StopIteration as stop:
        return seen, stop.value
    except UpstreamFailure:
        return seen, None


def row_of(seen: list[Any]) -> Any:
    (record,) = [step for step in seen if isinstance(step, Record)]
    return record.exchange


def sent(seen: list[Any]) -> list[str]:
    return [step.request.model for step in seen if isinstance(step, Send)]


def test_a_real_model_that_is_observed_is_not_changed_and_saves_nothing() -> None:
    asked = request(OPUS)
    observed = decision(
        OPUS, asked=OPUS, mode="observe", tier="opus", would=HAIKU, baseline=Baseline(OPUS, "asked")
    )
    seen, _ = drive(exchange(call(asked), terms(observed)), reply(OPUS))

    (send,) = [step for step in seen if isinstance(step, Send)]
    assert asked is send.request
    row = row_of(seen)
    assert (1_000_000, 1_000_000, 0) == (row.spent_nusd, row.baseline_nusd, row.saved_nusd)
    assert (HAIKU, 975_000) == (row.would, row.could_nusd)


def test_retries_are_ours_each_an_entry_and_wait_as_told() -> None:
    seen, done = drive(exchange(call(), terms()), failure(529, **{"retry-after": "3"}), failure(500), reply())

    entries = [step.entry for step in seen if isinstance(step, Settle)]
    assert ["answer", "retry", "retry"] == [entry.purpose for entry in entries]
    assert ["", entries[0].id, entries[0].id] == [entry.parent for entry in entries]
    assert [529, 500, 200] == [entry.status for entry in entries]
    assert [0, 0, 25_000] == [entry.cost_nusd for entry in entries]
    pauses = [step.seconds for step in seen if isinstance(step, Sleep)]
    assert pauses[0] == 3.0
    assert 0.75 <= pauses[1] <= 1.0
    assert done is not None
    assert 25_000 == row_of(seen).spent_nusd


@pytest.mark.parametrize("status", [401, 403, 422])
def test_errors_that_a_repeat_cannot_mend_are_not_repeated(status: int) -> None:
    seen, done = drive(exchange(call(), terms()), failure(status))

    assert done is None
    assert ("error", status, 0) == (row_of(seen).result, row_of(seen).status, row_of(seen).spent_nusd)
    assert [HAIKU] == sent(seen)


def test_the_upstreams_word_on_retrying_comes_first() -> None:
    seen, _ = drive(exchange(call(), terms()), failure(529, **{"x-should-retry": "false"}))
    assert [HAIKU] == sent(seen)

    seen, _ = drive(exchange(call(), terms()), failure(403, **{"x-should-retry": "true"}), reply())
    assert [HAIKU, HAIKU] == sent(seen)


def test_no_more_retries_than_the_caller_allows() -> None:
    seen, done = drive(exchange(call(max_retries=1), terms()), failure(), failure())

    assert done is None
    assert [HAIKU, HAIKU] == sent(seen)
    assert "error" == row_of(seen).result


@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_swapped_request_that_does_not_fit_is_sent_once_as_received(status: int) -> None:
    enforced = decision(asked=OPUS, mode="enforce", max_tokens=50, baseline=Baseline(OPUS, "asked"))
    asked = request(OPUS)
    seen, done = drive(exchange(call(asked), terms(enforced)), failure(status), reply(OPUS))

    assert [HAIKU, OPUS] == sent(seen)
    second = [step for step in seen if isinstance(step, Send)][1]
    assert asked is second.request
    assert done is not None
    assert Code.MISFIT == done.outcome.reasons[-1].code
    assert ("opus", 0, HAIKU) == (row_of(seen).tier, row_of(seen).saved_nusd, row_of(seen).misfit)


def test_what_the_asked_model_refuses_as_well_was_no_misfit() -> None:
    enforced = decision(asked=OPUS, mode="enforce", baseline=Baseline(OPUS, "asked"))
    seen, done = drive(exchange(call(request(OPUS)), terms(enforced)), failure(400), failure(400))

    assert done is None
    assert [HAIKU, OPUS] == sent(seen)
    assert ("error", 400, "", "") == (
        row_of(seen).result,
        row_of(seen).status,
        row_of(seen).misfit,
        row_of(seen).misfit_field,
    )


LOCAL = Ladder((Tier("local", "qwen", "local"), Tier("opus", OPUS)))


@pytest.mark.parametrize(
    ("met", "words"),
    [
        (UpstreamFailure(OSError(), was_sent=False), "local cannot be reached: sent as received"),
        (UpstreamFailure(RuntimeError(), status=401), "local answers 401: sent as received"),
        (UpstreamFailure(RuntimeError(), status=503), "local answers 503: sent as received"),
    ],
)
def test_a_swap_whose_server_is_out_of_reach_goes_where_it_was_asked_for(
    met: UpstreamFailure, words: str
) -> None:
    seen, done = drive(exchange(call(request(OPUS), max_retries=0), local_terms()), met, reply(OPUS))

    assert [("local", "qwen"), ("anthropic", OPUS)] == [
        (step.upstream, step.request.model) for step in seen if isinstance(step, Send)
    ]
    assert done is not None
    assert (Code.UNREACHED, words) == (done.outcome.reasons[-1].code, done.outcome.reasons[-1].words)
    assert ("", 0) == (row_of(seen).misfit, row_of(seen).saved_nusd)


@pytest.mark.parametrize(
    ("met", "mode"),
    [
        (UpstreamFailure(TimeoutError()), "enforce"),  # it may be billed, and answer yet
        (UpstreamFailure(RuntimeError(), status=429), "enforce"),
        (UpstreamFailure(ConfigError("no key"), was_sent=False), "enforce"),
        (UpstreamFailure(OSError(), was_sent=False), "auto"),  # nobody named a model that is up
    ],
)
def test_other_failures_of_a_swap_are_the_callers_to_see(met: UpstreamFailure, mode: Any) -> None:
    seen, done = drive(exchange(call(request(OPUS), max_retries=0), local_terms(mode)), met)

    assert (["qwen"], None) == (sent(seen), done)


def local_terms(mode: Any = "enforce") -> Terms:
    swapped = decision(
        "qwen", tier="local", upstream="local", asked=OPUS, mode=mode, baseline=Baseline(OPUS, "asked")
    )
    book = load_prices().with_rates(
        [Rate.read({"provider": "local", "model": "qwen", "input": 0, "output": 0})]
    )
    return replace(terms(swapped), ladder=LOCAL, book=book)


def test_an_unswapped_request_that_does_not_fit_is_the_callers_to_mend() -> None:
    plain = decision(OPUS, asked=OPUS, mode="off", tier="opus", baseline=Baseline(OPUS, "asked"))
    seen, done = drive(exchange(call(request(OPUS)), terms(plain)), failure(400))

    assert done is None
    assert [OPUS] == sent(seen)


def test_an_answer_cut_by_our_own_clamp_is_asked_for_again_with_the_callers_cap() -> None:
    clamped = decision(max_tokens=50)
    seen, done = drive(
        exchange(call(), terms(clamped)),
        reply(output_tokens=50, stop_reason="max_tokens"),
        reply(output_tokens=90),
    )

    assert [50, 100] == [step.request.max_tokens for step in seen if isinstance(step, Send)]
    row = row_of(seen)
    # 200 x 100 + 50 x 500, then 200 x 100 + 90 x 500 nano-dollars
    assert (45_000 + 65_000, 45_000) == (row.spent_nusd, row.discarded_nusd)
    assert done is not None
    assert Code.TRUNCATED == done.outcome.reasons[-1].code


def test_an_answer_cut_by_one_cap_of_ours_after_the_other_is_asked_for_till_the_cap_is_the_callers() -> None:
    old = "claude-haiku-4-5"
    moved = decision(
        old, asked=OPUS, mode="enforce", tier="", max_tokens=50, baseline=Baseline(OPUS, "asked")
    )
    seen, done = drive(
        exchange(call(request(OPUS, max_tokens=128_000)), terms(moved)),
        reply(old, output_tokens=50, stop_reason="max_tokens"),
        reply(old, output_tokens=64_000, stop_reason="max_tokens"),
        reply(OPUS, output_tokens=70_000, stop_reason="max_tokens"),
    )

    caps = [(step.request.model, step.request.max_tokens) for step in seen if isinstance(step, Send)]
    assert [(old, 50), (old, 64_000), (OPUS, 128_000)] == caps
    assert done is not None
    assert OPUS == done.outcome.model


def test_an_answer_cut_by_a_models_own_limit_is_asked_of_the_asked_model() -> None:
    old = "claude-haiku-4-5"
    moved = decision(old, asked=OPUS, mode="enforce", tier="", baseline=Baseline(OPUS, "asked"))
    asked = request(OPUS, max_tokens=128_000)
    seen, done = drive(
        exchange(call(asked), terms(moved)),
        reply(old, output_tokens=64_000, stop_reason="max_tokens"),
        reply(OPUS, output_tokens=70_000),
    )

    first, second = [step.request for step in seen if isinstance(step, Send)]
    assert (old, 64_000) == (first.model, first.max_tokens)
    assert asked is second
    assert done is not None
    words = f"our cap of 64,000 cut it off: asked again of {OPUS} with yours"
    assert words == done.outcome.reasons[-1].words


def test_each_attempt_is_fitted_to_its_model() -> None:
    asked = request("auto", max_tokens=2_000, thinking={"type": "disabled"}, temperature=1)
    sonnet = decision(SONNET, fallback=OPUS)
    seen, done = drive(exchange(call(asked), terms(sonnet)), failure(400), reply(OPUS))

    first, second = [step.request for step in seen if isinstance(step, Send)]
    assert {"type": "between_tools"} == first.get("thinking")
    assert ("thinking" in second, {"effort": "low"}) == (False, second.get("output_config"))
    assert "temperature" not in first.names | second.names
    assert done is not None
    words = "adapted: thinking removed, output_config.effort low, temperature removed"
    assert words == done.outcome.reasons[-1].words


def test_when_fitting_fails_the_request_goes_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    seen, done = drive(exchange(call(request(temperature=1)), replace(terms(), fit=broken)), reply())

    (sent_,) = [step.request for step in seen if isinstance(step, Send)]
    assert (HAIKU, 1) == (sent_.model, sent_.get("temperature"))
    assert done is not None
    assert "fitting failed (ZeroDivisionError at" in caplog.text


def test_an_answer_cut_by_the_callers_own_cap_is_the_callers() -> None:
    seen, _ = drive(exchange(call(), terms()), reply(stop_reason="max_tokens"))
    assert [HAIKU] == sent(seen)


def test_a_stream_is_settled_from_what_the_tap_counted() -> None:
    facts = reply(output_tokens=40).facts
    live = Reply(Held("stream"), request_id="req_2")
    seen, done = drive(exchange(call(request(stream=True)), terms()), live, Relayed(facts))

    assert ["Load", "Lease", "Send", "Relay", "Settle", "Record"] == [type(step).__name__ for step in seen]
    assert ("exact", "ok", 40_000) == (
        row_of(seen).certainty,
        row_of(seen).result,
        row_of(seen).spent_nusd,
    )
    assert done is not None


def test_a_stream_that_breaks_is_charged_for_at_least_what_was_produced() -> None:
    clock = Clock()
    started = Facts(
        model=HAIKU, message_id="msg_1", usage=Usage(input_tokens=200, output_tokens=1), visible_bytes=60
    )
    steps = exchange(call(request(stream=True)), terms(clock=clock))
    live = Reply(Held("stream"))
    seen, _ = drive(steps, live, Relayed(started, failure(None)))

    row = row_of(seen)
    assert ("cut", "estimated", 30) == (row.result, row.certainty, row.output_tokens)


def abandoned(lease: Lease, facts: Facts) -> Any:
    return lease.on_abandon(facts)


def test_a_caller_who_leaves_is_charged_by_the_bound_that_binds() -> None:
    clock = Clock()
    steps = exchange(call(), terms(clock=clock))
    next(steps)
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    steps.send(None)
    clock.sleep(0.2)

    settle, record = abandoned(lease, Facts())
    steps.close()

    # nothing was seen of the answer: the whole prompt at its bound, and what 0.2 s may have produced
    assert "estimated" == settle.entry.certainty
    assert 50 == settle.entry.usage.output_tokens
    assert settle.entry.usage.input_tokens >= len("Is this spam? Win!")
    assert ("abandoned", settle.entry.cost_nusd) == (record.exchange.result, record.exchange.spent_nusd)
    assert settle.entry.cost_nusd <= lease.reserved.worst_nusd


def test_a_caller_who_leaves_while_waiting_to_retry_is_not_charged_twice() -> None:
    steps = exchange(call(), terms())
    next(steps)
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    steps.send(None)
    settled = steps.throw(failure())
    assert isinstance(steps.send(None), Sleep)

    again, record = abandoned(lease, Facts())

    assert settled == again
    assert 0 == record.exchange.spent_nusd


def test_output_of_a_lost_answer_is_never_estimated_above_the_cap() -> None:
    clock = Clock()
    steps = exchange(call(), terms(clock=clock))
    next(steps)
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    clock.sleep(3600)
    settle, _ = abandoned(lease, Facts())
    assert 100 == settle.entry.usage.output_tokens


def test_when_routing_fails_the_request_is_still_answered_and_the_fault_is_seen() -> None:
    def broken(*_: object) -> Any:
        message = "a defect of ours"
        raise KeyError(message)

    seen, done = drive(exchange(call(request(SONNET)), terms(broken)), reply(SONNET))
    assert [SONNET] == sent(seen)
    assert done is not None
    assert "routing: KeyError" == row_of(seen).fault
    assert Code.ESCAPED == done.outcome.reasons[0].code

    seen, _ = drive(exchange(call(request("auto")), terms(broken)), reply(OPUS))
    assert [OPUS] == sent(seen)

    for name in (SONNET, "sonnet"):
        stated = call(request("auto"), Task(instead_of=name))
        seen, _ = drive(exchange(stated, terms(broken)), reply(SONNET))
        assert [SONNET] == sent(seen)

    learned = exchange(call(request("auto")), terms(broken))
    seen, _ = drive(learned, reply(SONNET), known=Known(baseline=SONNET))
    assert [SONNET] == sent(seen)
    assert "learned" == row_of(seen).baseline_how


def test_what_the_caller_wrote_wrong_is_said_and_nothing_is_sent() -> None:
    def refuse(*_: object) -> Any:
        message = "no tier is named 'opuss'"
        raise ConfigError(message)

    steps = exchange(call(), terms(refuse))
    next(steps)
    with pytest.raises(ConfigError, match="opuss"):
        steps.send(Known())


def test_tool_calls_are_pinned_only_where_we_chose() -> None:
    seen, _ = drive(exchange(call(), terms()), reply(tool_use_ids=("toolu_1",), stop_reason="tool_use"))
    (record,) = [step for step in seen if isinstance(step, Record)]
    assert ("toolu_1",) == record.tool_use_ids

    plain = decision(OPUS, asked=OPUS, mode="observe", tier="opus", baseline=Baseline(OPUS, "asked"))
    seen, _ = drive(exchange(call(request(OPUS)), terms(plain)), reply(OPUS, tool_use_ids=("toolu_1",)))
    (record,) = [step for step in seen if isinstance(step, Record)]
    assert () == record.tool_use_ids


def test_a_failed_attempt_that_may_have_been_billed_counts_against_savings() -> None:
    clock = Clock()
    steps = exchange(call(max_retries=0), terms(clock=clock))
    seen, done = drive(steps, failure(None))
    row = row_of(seen)
    assert done is None
    assert row.spent_nusd > 0
    assert -row.spent_nusd == row.saved_nusd
    assert "estimated" == row.certainty
    assert NOW == row.at


def test_a_connection_that_was_never_made_costs_nothing() -> None:
    never = UpstreamFailure(ConnectionError(), was_sent=False)
    seen, _ = drive(exchange(call(max_retries=0), terms()), never)
    assert (0, "exact") == (row_of(seen).spent_nusd, row_of(seen).certainty)


MIXED = Ladder((Tier("local", "llama3", "ollama"), Tier("opus", OPUS)))
FREE = Rate.read({"provider": "ollama", "model": "llama3", "input": 0, "output": 0})
OFF_LADDER = "claude-opus-4-6"


def mixed(**changes: Any) -> Terms:
    """Return terms that send a request for a model off the ladder to a local tier."""
    enforced = decision(
        "llama3",
        tier="local",
        upstream="ollama",
        asked=OFF_LADDER,
        fallback=OFF_LADDER,
        mode="enforce",
        baseline=Baseline(OFF_LADDER, "asked"),
    )
    given = terms(enforced)
    return replace(given, ladder=MIXED, book=replace(given.book, overrides=(FREE,)), **changes)


def test_what_a_local_tier_refuses_goes_to_the_asked_models_own_upstream() -> None:
    seen, _ = drive(exchange(call(request(OFF_LADDER)), mixed()), failure(400), reply(OFF_LADDER))

    sends = [step for step in seen if isinstance(step, Send)]
    assert [("ollama", "llama3"), ("anthropic", OFF_LADDER)] == [
        (step.upstream, step.request.model) for step in sends
    ]


def test_a_baseline_off_the_ladder_is_priced_where_it_would_have_been_served() -> None:
    seen, _ = drive(exchange(call(request(OFF_LADDER)), mixed()), reply("llama3"))

    row = row_of(seen)
    # 200 x $5 + 10 x $25 per million
    assert (1_250_000, 0, 1_250_000) == (row.baseline_nusd, row.spent_nusd, row.saved_nusd)


def test_without_both_prices_nothing_is_saved_or_lost() -> None:
    given = terms(decision(baseline=Baseline("nobody-knows", "stated")))
    given = replace(given, book=replace(given.book, unpriced="allow"))
    seen, _ = drive(exchange(call(), given), reply())
    assert (25_000, 0) == (row_of(seen).spent_nusd, row_of(seen).saved_nusd)

    given = replace(given, decide=lambda *_: decision("nobody-knows"))
    seen, _ = drive(exchange(call(), given), reply("nobody-knows"))
    assert (0, 0) == (row_of(seen).spent_nusd, row_of(seen).saved_nusd)


def test_fast_mode_is_reserved_and_estimated_at_its_own_price() -> None:
    plain, _ = drive(exchange(call(request(OPUS), max_retries=0), terms(decision(OPUS))), failure(None))
    fast, _ = drive(
        exchange(call(request(OPUS, speed="fast"), max_retries=0), terms(decision(OPUS))), failure(None)
    )

    assert fast[1].reserved.worst_nusd >= 2 * plain[1].reserved.worst_nusd
    assert row_of(fast).spent_nusd >= 2 * row_of(plain).spent_nusd


# --- the share switched on ---------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
GO_ON = {"role": "user", "content": "go on"}
MARKED: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}


def draws(session: str | None = None, tenant: str = "local", **members: Any) -> list[float]:
    """Return what is drawn for twenty calls of the same session."""
    found: list[float] = []

    def decide(*given: Any) -> Any:
        found.append(given[-1])
        return decision()

    known = terms(decide)
    for number in range(20):
        asked = call(request(OPUS, **members), Task(session=session), id=f"x{number}", tenant=tenant)
        drive(exchange(asked, known), reply())
    return found


@pytest.mark.parametrize(
    ("session", "members"),
    [
        pytest.param("s", MARKED, id="named"),
        pytest.param(None, {**MARKED, "messages": [*HELLO, GO_ON]}, id="known by its beginning"),
    ],
)
def test_a_conversation_with_a_prompt_cache_stays_on_its_side_of_the_share(
    session: str | None, members: dict[str, Any]
) -> None:
    (one,) = set(draws(session, **members))

    assert 0 <= one < 1
    assert [one] * 20 != draws(session, "another", **members)


def test_sessions_are_spread_evenly_over_the_share() -> None:
    shares = sorted(draws(f"s{number}", **MARKED)[0] for number in range(400))

    assert all(abs(share - rank / 400) < 0.1 for rank, share in enumerate(shares))


@pytest.mark.parametrize(
    ("session", "members"),
    [
        pytest.param("s", {}, id="no cache to lose"),
        pytest.param(None, MARKED, id="one template, many callers"),
    ],
)
def test_other_calls_are_drawn_one_by_one(session: str | None, members: dict[str, Any]) -> None:
    assert 20 == len(set(draws(session, **members)))
