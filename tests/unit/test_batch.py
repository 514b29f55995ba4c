"""Batches as transcripts: what is reserved and settled, and what lines of results add up to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from leastwise.attempt import Call, Terms
from leastwise.batch import ENDPOINT, Accepted, Results, read, submit
from leastwise.budget import BudgetRule, Limits, Refusal, Standing
from leastwise.errors import BudgetExceededError, BudgetUnavailableError, UpstreamFailure
from leastwise.leasing import worst_of
from leastwise.ledger import Charge, Entry, Exchange
from leastwise.messages import Facts, Reply, Request, Usage
from leastwise.money import NUSD_PER_USD
from leastwise.routing import Known
from leastwise.steps import Lease, Load, Record, Send, Settle, Sleep
from tests.kit import HAIKU, NOW, OPUS, SONNET, call, terms

USD = NUSD_PER_USD
TEAM = BudgetRule("team", 10 * USD)
ACCEPTED = Reply("payload", Facts(message_id="msgbatch_1"), request_id="req_1")
REFUSED = UpstreamFailure(RuntimeError(), status=529, request_id="req_0")
UNHEARD = UpstreamFailure(RuntimeError())


def item(model: str = HAIKU, **members: Any) -> dict[str, Any]:
    given = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Spam?"}], **members}
    return {"custom_id": "a", "params": given}


def asked(*models: str, **given: Any) -> Call:
    body = {"requests": [item(model) for model in models]}
    return call(Request({}, body, None, endpoint=ENDPOINT), **given)


def paid_by(*rules: BudgetRule) -> Terms:
    return terms(limits=Limits(rules, wait_s=0))


def drive(
    of: Call,
    on: Terms,
    *answers: object,
    grant: Callable[[Lease], Refusal | BudgetUnavailableError | None] = lambda _: None,
) -> tuple[list[Any], Any]:
    """Answer each `Send` in turn; return all steps and the end."""
    steps, waiting, seen = submit(read(of, on, counts_unpriced=False)), list(answers), list[Any]()
    try:
        step = next(steps)
        while True:
            seen.append(step)
            match step:
                case Load():
                    step = steps.send(Known())
                case Lease():
                    step = steps.send(grant(step) if step.claims else None)
                case Send():
                    answer = waiting.pop(0)
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                case _:
                    step = steps.send(None)
    except StopIteration as stop:
        return seen, stop.value
    except (UpstreamFailure, BudgetExceededError, BudgetUnavailableError) as error:
        return seen, error


def of(kind: type, seen: list[Any]) -> list[Any]:
    return [step for step in seen if isinstance(step, kind)]


def entries(seen: list[Any]) -> list[Entry]:
    return [step.entry for step in of(Settle, seen)]


def row_of(seen: list[Any]) -> Exchange:
    (record,) = of(Record, seen)
    row: Exchange = record.exchange
    return row


def test_each_model_is_reserved_at_half_its_worst_case_the_dearest_first() -> None:
    seen, end = drive(asked(HAIKU, OPUS, HAIKU), paid_by(TEAM), ACCEPTED)

    leases = [step.reserved for step in of(Lease, seen)]
    params = {model: Request.of(item(model)["params"]) for model in (HAIKU, OPUS)}
    book = terms().book
    halves = {
        model: worst_of(asked_for, "anthropic", NOW, book, is_batch=True).nusd
        for model, asked_for in params.items()
    }
    wholes = {model: worst_of(one, "anthropic", NOW, book).nusd for model, one in params.items()}
    assert [(OPUS, halves[OPUS]), (HAIKU, 2 * halves[HAIKU])] == [
        (one.model, one.worst_nusd) for one in leases
    ]
    assert all(whole in (2 * halves[model], 2 * halves[model] - 1) for model, whole in wholes.items())
    assert [one.id for one in leases] == [one.id for one in entries(seen)]
    assert [("batch", "lost", "msgbatch_1", 200, one.worst_nusd, one.charges) for one in leases] == [
        (one.purpose, one.certainty, one.message_id, one.status, one.cost_nusd, one.charges)
        for one in entries(seen)
    ]
    assert [True, True] == [one.is_pending for one in entries(seen)]
    assert ([], Accepted(ACCEPTED)) == (of(Record, seen), end)


def test_without_budgets_nothing_is_claimed_and_all_is_written() -> None:
    seen, _ = drive(asked(HAIKU), terms(), ACCEPTED)
    assert [()] == [step.claims for step in of(Lease, seen)]
    assert [(True, ())] == [(one.is_pending, one.charges) for one in entries(seen)]


def test_what_is_tried_again_is_reserved_again() -> None:
    seen, _ = drive(asked(HAIKU), paid_by(TEAM), REFUSED, UNHEARD, ACCEPTED)
    first, second, third = entries(seen)
    assert [(529, "exact", 0), (0, "lost", first.worst_nusd), (200, "lost", first.worst_nusd)] == [
        (one.status, one.certainty, one.cost_nusd) for one in entries(seen)
    ]
    assert ("", first.id, first.id) == (first.parent, second.parent, third.parent)
    assert [False, False, True] == [one.is_pending for one in entries(seen)]
    assert (2, 3) == (len(of(Sleep, seen)), len({step.reserved.id for step in of(Lease, seen)}))


def test_the_last_failure_is_the_end() -> None:
    seen, end = drive(asked(HAIKU, OPUS, max_retries=0), paid_by(TEAM), UNHEARD)
    most = sum(one.worst_nusd for one in entries(seen))
    row = row_of(seen)
    assert end is UNHEARD
    assert ("batch", OPUS, "error", most, most, "lost") == (
        row.kind,
        row.asked,
        row.result,
        row.spent_nusd,
        row.discarded_nusd,
        row.certainty,
    )


def test_a_lease_that_does_not_fit_gives_back_the_others() -> None:
    def grant(lease: Lease) -> Refusal | None:
        held = lease.reserved.worst_nusd if lease.reserved.model == HAIKU else 0
        return Refusal(lease.claims[0], Standing(10 * USD, 1_000 * USD)) if held else None

    seen, end = drive(asked(HAIKU, OPUS), paid_by(TEAM), grant=grant)

    granted, refused = [step.reserved for step in of(Lease, seen)]
    assert [(granted.id, 0, "exact")] == [(one.id, one.cost_nusd, one.certainty) for one in entries(seen)]
    assert isinstance(end, BudgetExceededError)
    assert granted.worst_nusd + refused.worst_nusd == end.needed_usd * USD
    assert 1_000 * USD - granted.worst_nusd == end.reserved_usd * USD  # those of others
    (record,) = of(Record, seen)
    assert ("blocked", 402, 0) == (row_of(seen).result, row_of(seen).status, row_of(seen).spent_nusd)
    assert [("team", "cap")] == [(step.account, step.trigger) for step in record.step_downs]
    assert [] == of(Send, seen)


def test_it_does_not_wait_for_what_it_holds_itself() -> None:
    limits = Limits((TEAM,), wait_s=10)

    def grant(lease: Lease) -> Refusal | None:
        room = TEAM.limit_nusd - lease.reserved.worst_nusd  # enough for this one alone
        is_second = lease.reserved.model == HAIKU
        return Refusal(lease.claims[0], Standing(room - TEAM.limit_nusd // 50)) if is_second else None

    seen, end = drive(asked(HAIKU, OPUS), terms(limits=limits), grant=grant)
    assert isinstance(end, BudgetExceededError)
    assert [] == of(Sleep, seen)


def test_where_a_budget_cannot_be_asked_all_are_given_back() -> None:
    def grant(lease: Lease) -> BudgetUnavailableError | None:
        return BudgetUnavailableError("down") if lease.reserved.model == HAIKU else None

    seen, end = drive(asked(HAIKU, OPUS), paid_by(TEAM), grant=grant)
    assert isinstance(end, BudgetUnavailableError)
    assert [step.reserved.id for step in of(Lease, seen)] == [one.id for one in entries(seen)]
    assert [0, 0] == [one.cost_nusd for one in entries(seen)]
    assert (503, ()) == (row_of(seen).status, of(Record, seen)[0].step_downs)


@pytest.mark.parametrize(("facts", "certainty"), [(None, "exact"), (Facts(), "lost")])
def test_who_leaves_has_paid_for_what_was_sent(facts: Facts | None, certainty: str) -> None:
    seen, _ = drive(asked(HAIKU, OPUS), paid_by(TEAM), ACCEPTED)
    steps = submit(read(asked(HAIKU, OPUS), paid_by(TEAM), counts_unpriced=False))
    next(steps)
    first: Any = steps.send(Known())
    last: Any = steps.send(None)

    *settled, record = last.on_abandon(facts)

    most = sum(step.reserved.worst_nusd for step in of(Lease, seen)) if facts else 0
    assert [first.reserved.id, last.reserved.id] == [step.entry.id for step in settled]
    assert {certainty} == {step.entry.certainty for step in settled}
    assert ("abandoned", most) == (record.exchange.result, record.exchange.spent_nusd)
    assert [record] == list(last.on_abandon(facts))  # what is settled is not settled again


def pending(model: str, **given: Any) -> Entry:
    facts: dict[str, Any] = {
        "id": f"id of {model}",
        "exchange_id": "X",
        "purpose": "batch",
        "provider": "anthropic",
        "model": model,
        "asked_at": NOW,
        "status": 200,
        "usage": Usage(),
        "price_row": "",
        "cost_nusd": USD,
        "worst_nusd": USD,
        "certainty": "lost",
        "message_id": "msgbatch_1",
        "charges": (Charge("team", "2026-11", USD),),
    }
    return Entry(**{**facts, **given})


def line(model: str, **usage: Any) -> bytes:
    counts = {"input_tokens": 100, "output_tokens": 10, "service_tier": "batch", **usage}
    message = {"type": "message", "id": "msg_1", "model": model, "content": [], "usage": counts}
    return (
        json.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": message}}).encode() + b"\n"
    )


def other(kind: str) -> bytes:
    return json.dumps({"custom_id": "b", "result": {"type": kind}}).encode() + b"\n"


def settled_by(body: bytes, *lost: Entry, size: int = 1 << 20) -> tuple[list[Entry], Exchange]:
    results = Results("msgbatch_1", lost or [pending(HAIKU), pending(OPUS)], terms())
    assert results
    for start in range(0, len(body), size):
        results.feed(body[start : start + size])
    steps = list(results.finish())
    return entries(steps), row_of(steps)


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_lines_are_priced_each_and_summed_by_model(size: int) -> None:
    body = line(HAIKU) + other("errored") + line(OPUS) + other("canceled") + other("expired") + line(HAIKU)

    found, row = settled_by(body, size=size)

    # half of 100 and 10 tokens: haiku at $0.10 and $0.50, opus at $4 and $20 per million
    assert {HAIKU: 2 * 7_500, OPUS: 300_000} == {one.model: one.cost_nusd for one in found}
    assert [one.cost_nusd for one in found] == [charge.nusd for one in found for charge in one.charges]
    assert {"exact"} == {one.certainty for one in found}
    assert {HAIKU: (200, 20), OPUS: (100, 10)} == {
        one.model: (one.usage.input_tokens, one.usage.output_tokens) for one in found
    }
    assert ("ok", OPUS, "opus", 315_000, 315_000, 0) == (
        row.result,
        row.served,
        row.tier,
        row.spent_nusd,
        row.baseline_nusd,
        row.saved_nusd,
    )
    assert (300, 30) == (row.input_tokens, row.output_tokens)


def test_where_nothing_was_answered_nothing_is_paid() -> None:
    found, row = settled_by(other("expired") * 3)
    assert ([0, 0], "error", "", 0) == (
        [one.cost_nusd for one in found],
        row.result,
        row.served,
        row.spent_nusd,
    )


def test_an_answer_by_a_name_of_its_own_counts_for_the_dearest() -> None:
    found, _ = settled_by(line("anthropic/some-opus"), pending(HAIKU, worst_nusd=1), pending(OPUS))
    assert {HAIKU: 0, OPUS: 300_000} == {one.model: one.cost_nusd for one in found}


def test_parts_of_a_model_without_a_price_cost_what_the_whole_does() -> None:
    parts = [{"type": "message", "model": "unheard-of", "input_tokens": 1, "output_tokens": 1}]
    found, _ = settled_by(line(OPUS, iterations=parts), pending(OPUS))
    assert [300_000] == [one.cost_nusd for one in found]
    (unpriced,), _ = settled_by(line("x"), pending("x"))
    assert ("", 0) == (unpriced.price_row, unpriced.cost_nusd)


def test_a_try_before_of_which_nobody_heard_is_in_the_row() -> None:
    before = pending(HAIKU, id="before", message_id="", cost_nusd=7)
    stranger = pending(SONNET, id="stranger", exchange_id="Y", message_id="")
    found, row = settled_by(line(HAIKU), pending(HAIKU), before, stranger)
    assert ["id of claude-haiku-5-5"] == [one.id for one in found]
    assert (7_507, 7, 7_500, "lost") == (
        row.spent_nusd,
        row.discarded_nusd,
        row.baseline_nusd,
        row.certainty,
    )


def test_of_a_batch_of_others_or_without_results_nothing_is_settled() -> None:
    assert not Results("msgbatch_2", [pending(HAIKU)], terms())
    assert () == Results("msgbatch_1", [pending(HAIKU)], terms()).finish()


@pytest.mark.parametrize("body", [b"<html>\n", b'{"custom_id": "a"}\n', line(HAIKU)[:-9]])
def test_what_is_no_result_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        settled_by(body, pending(HAIKU))
