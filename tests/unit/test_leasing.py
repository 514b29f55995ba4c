"""Leases before calls: how much, how long to wait, what is refused and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from leastwise.attempt import Terms, moment
from leastwise.budget import Account, BudgetRule, Claim, Limits, Refusal, Standing, Window
from leastwise.errors import (
    BudgetExceededError,
    BudgetUnavailableError,
    UnboundedError,
    UnknownPriceError,
    UpstreamFailure,
)
from leastwise.exchange import Done, exchange
from leastwise.ladder import DEFAULT_LADDER, Baseline, Code, Decision, Task, Tier, deciding
from leastwise.leasing import worst_of
from leastwise.ledger import Exchange
from leastwise.messages import Request
from leastwise.money import NUSD_PER_USD
from leastwise.prices import load_prices
from leastwise.routing import Known, Router
from leastwise.steps import Lease, Load, Record, Send, Settle, Sleep
from tests.kit import HAIKU, NOW, OPUS, SONNET, call, decision, reply, request, terms

USD = NUSD_PER_USD
RULE = BudgetRule("team", 10 * USD)
Grant = Callable[[Lease], Refusal | BudgetUnavailableError | None]


def budgeted(*rules: BudgetRule, made: Decision | None = None, **given: Any) -> Terms:
    return terms(made, limits=Limits(rules or (BudgetRule("team", 10 * USD),), **given))


def below(*tiers: str) -> Callable[..., Tier | None]:
    """Return a ladder walk for `Terms.below` that goes down these tiers, whatever is asked."""
    waiting = [DEFAULT_LADDER[name] for name in tiers]
    return lambda *_: waiting.pop(0) if waiting else None


def refusing(spent: int, leased: int = 0, times: int = 10**6) -> Grant:
    """Refuse the first so many leases."""
    left = [times]

    def grant(lease: Lease) -> Refusal | None:
        left[0] -= 1
        return Refusal(lease.claims[0], Standing(spent, leased)) if left[0] >= 0 else None

    return grant


def drive(
    steps: Any, *answers: object, grant: Grant = lambda _: None, known: Known | None = None
) -> tuple[list[Any], Done | Exception]:
    """Answer leases by `grant` and each `Send` in turn; return all steps, and the end."""
    waiting, seen = list(answers), []
    try:
        step = next(steps)
        while True:
            seen.append(step)
            match step:
                case Load():
                    step = steps.send(known or Known())
                case Lease():
                    step = steps.send(grant(step) if step.claims else None)
                case Send():
                    answer = waiting.pop(0)
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                case _:
                    step = steps.send(None)
    except StopIteration as stop:
        return seen, stop.value
    except (BudgetExceededError, BudgetUnavailableError, UnboundedError) as error:
        return seen, error


def of(kind: type, seen: Sequence[Any]) -> list[Any]:
    return [step for step in seen if isinstance(step, kind)]


def row_of(seen: Sequence[Any]) -> Exchange:
    (record,) = of(Record, seen)
    row: Exchange = record.exchange
    return row


def test_without_a_budget_nothing_is_claimed() -> None:
    seen, _ = drive(exchange(call(), terms()), reply())
    (lease,) = of(Lease, seen)
    assert () == lease.claims
    assert () == of(Settle, seen)[0].entry.charges


def test_the_worst_case_is_claimed_and_the_actual_cost_charged_to_the_same_windows() -> None:
    rules = BudgetRule("team", 10 * USD), BudgetRule("daily", USD, window="day")
    seen, _ = drive(exchange(call(), budgeted(*rules)), reply())

    (load,), (lease,), (settle,) = of(Load, seen), of(Lease, seen), of(Settle, seen)
    assert {"team", "daily"} == {account.id for account in load.accounts}
    assert ["daily", "team"] == [claim.account.id for claim in lease.claims]
    assert [980_000_000, 9_800_000_000] == [claim.limit_nusd for claim in lease.claims]
    worst = lease.reserved.worst_nusd
    assert [worst, worst] == [charge.nusd for charge in lease.reserved.charges]
    windows = ["2026-11-23T00:00Z", "2026-11-01T00:00Z"]
    assert windows == [charge.window_key for charge in lease.reserved.charges]
    assert [25_000, 25_000] == [charge.nusd for charge in settle.entry.charges]
    assert windows == [charge.window_key for charge in settle.entry.charges]
    assert 25_000 < worst


def test_a_lease_that_others_may_make_room_for_waits_and_then_goes() -> None:
    seen, end = drive(
        exchange(call(), budgeted()), reply(), grant=refusing(spent=0, leased=10 * USD, times=3)
    )
    assert isinstance(end, Done)
    assert [0.01, 0.02, 0.04] == [step.seconds for step in of(Sleep, seen)]
    assert 4 == len(of(Lease, seen))
    assert 1 == len({lease.reserved.id for lease in of(Lease, seen)})


def test_nobody_waits_for_what_is_spent() -> None:
    seen, end = drive(exchange(call(), budgeted()), grant=refusing(spent=10 * USD))
    assert isinstance(end, BudgetExceededError)
    assert [] == of(Sleep, seen)


def test_nobody_waits_longer_than_configured() -> None:
    seen, end = drive(exchange(call(), budgeted(wait_s=2)), grant=refusing(spent=0, leased=10 * USD))
    assert isinstance(end, BudgetExceededError)
    assert 2 <= sum(step.seconds for step in of(Sleep, seen)) < 2.5


def test_what_does_not_fit_goes_to_cheaper_tiers_and_is_logged() -> None:
    limits = replace(budgeted(made=decision(OPUS)), below=below("sonnet", "haiku"))
    seen, end = drive(exchange(call(), limits), reply(), grant=refusing(spent=9 * USD + 800_000_000, times=2))

    assert isinstance(end, Done)
    assert [OPUS, SONNET, HAIKU] == [lease.reserved.model for lease in of(Lease, seen)]
    assert [HAIKU] == [step.request.model for step in of(Send, seen)]
    (record,) = of(Record, seen)
    assert [("opus", "sonnet", "cap", 98.0), ("sonnet", "haiku", "cap", 98.0)] == [
        (step.before, step.after, step.trigger, step.percent) for step in record.step_downs
    ]
    assert "haiku" == end.outcome.tier
    assert "budget team cannot cover sonnet: stepped down to haiku" == deciding(end.outcome.reasons).words


def test_what_fits_nowhere_is_blocked_with_a_row_and_nothing_is_sent() -> None:
    seen, end = drive(
        exchange(call(task=Task(tag="triage")), budgeted(contact="ops@example.com")),
        grant=refusing(spent=9 * USD + 800_000_000),
    )
    assert isinstance(end, BudgetExceededError)
    assert [] == of(Send, seen)
    row = row_of(seen)
    assert ("blocked", 402, 0, "") == (row.result, row.status, row.spent_nusd, row.served)
    assert (402, "billing_error", "false") == (end.http_status, end.api_type, end.headers["x-should-retry"])
    assert ("team", Decimal("9.8"), Decimal("9.8")) == (end.budget, end.spent_usd, end.limit_usd)
    said = str(end)
    assert said.startswith(
        "Budget team: $9.80 of $10.00 for November spent, $0.20 of it kept for tool loops;"
    )
    assert "; this call could cost $" in said
    assert said.endswith(" Resets 1 Dec 00:00 UTC. Ask: ops@example.com.")
    (record,) = of(Record, seen)
    assert [("haiku", "", "cap")] == [(one.before, one.after, one.trigger) for one in record.step_downs]


def test_the_error_names_the_dearest_tier_that_would_still_work() -> None:
    asked = request(OPUS, max_tokens=10_000)
    made = decision(OPUS, asked=OPUS, mode="observe", baseline=Baseline(OPUS, "asked"))
    room = worst_of(asked.replace(model=SONNET), "anthropic", NOW, load_prices()).nusd
    limit = BudgetRule("team", 10 * USD, reserve=Decimal(0))
    _, end = drive(exchange(call(asked), budgeted(limit, made=made)), grant=refusing(spent=10 * USD - room))
    assert isinstance(end, BudgetExceededError)
    assert ("haiku", "sonnet") == end.works
    assert 'Still works: model="sonnet".' in str(end)


def test_a_budget_that_cannot_be_asked_blocks_and_releases_what_it_may_hold() -> None:
    gone = BudgetUnavailableError("budget team cannot be asked")
    seen, end = drive(exchange(call(), budgeted()), grant=lambda _: gone)
    assert end is gone
    (lease,), (settle,) = of(Lease, seen), of(Settle, seen)
    assert (lease.reserved.id, 0) == (settle.entry.id, settle.entry.cost_nusd)
    assert [0] == [charge.nusd for charge in settle.entry.charges]
    assert ("blocked", 503) == (row_of(seen).result, row_of(seen).status)


def test_leaving_before_anything_was_sent_releases_all() -> None:
    steps = exchange(call(), budgeted())
    next(steps)
    lease = steps.send(Known())
    assert isinstance(lease, Lease)
    left: Any = lease.on_abandon(None)
    settle, record = left
    assert [0] == [charge.nusd for charge in settle.entry.charges]
    assert ("abandoned", 0) == (record.exchange.result, record.exchange.spent_nusd)


def test_every_retry_has_a_lease_of_its_own() -> None:
    failed = UpstreamFailure(RuntimeError(), status=529, headers={})
    seen, _ = drive(exchange(call(), budgeted()), failed, reply())
    leases, settled = of(Lease, seen), of(Settle, seen)
    assert [lease.reserved.id for lease in leases] == [step.entry.id for step in settled]
    assert [0, 25_000] == [step.entry.charges[0].nusd for step in settled]
    assert seen.index(settled[0]) < seen.index(leases[1])


def test_an_answer_that_was_paid_for_is_given_although_the_next_attempt_cannot_be() -> None:
    clamped = budgeted(made=decision(HAIKU, max_tokens=10))
    cut = replace(reply(), facts=replace(reply().facts, stop_reason="max_tokens"))
    granted = iter([False, True])

    def grant(lease: Lease) -> Refusal | None:
        return Refusal(lease.claims[0], Standing(10 * USD, 0)) if next(granted) else None

    seen, end = drive(exchange(call(), clamped), cut, grant=grant)
    assert isinstance(end, Done)
    assert "ok" == row_of(seen).result
    assert 1 == len(of(Send, seen))


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
UNBOUNDED = [
    ({"tools": [SEARCH]}, "tool web_search_20250305 without max_uses"),
    ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
    ({"fallbacks": [{"model": HAIKU}]}, "fallbacks"),
    (
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        "context_management: compact_20260112",
    ),
]


@pytest.mark.parametrize(("members", "part"), UNBOUNDED)
def test_what_has_no_bound_is_refused_by_name_under_a_budget_only(members: dict[str, Any], part: str) -> None:
    asked = request(HAIKU, **members)
    seen, end = drive(exchange(call(asked), budgeted()))
    assert isinstance(end, UnboundedError)
    assert str(end).startswith(f"{part}: its cost has no bound, so budget 'team' cannot cover it.")
    assert [] == of(Send, seen)
    assert isinstance(drive(exchange(call(asked), terms()), reply())[1], Done)
    assert isinstance(drive(exchange(call(asked), budgeted(unbounded="estimate")), reply())[1], Done)


def worst(asked: Request, **given: bool) -> int:
    return worst_of(asked, "anthropic", NOW, load_prices(), **given).nusd


def test_each_use_of_a_tool_of_the_apis_own_runs_the_model_once_more() -> None:
    plain = worst(request(HAIKU))
    none, two = (worst(request(HAIKU, tools=[{**SEARCH, "max_uses": uses}])) for uses in (0, 2))
    assert plain < none
    # Two searches at $0.01 each, untouched by the tenth for inference in the US.
    assert 3 * none + 2 * 10_000_000 == two


def test_an_estimate_is_no_bound_but_more_than_nothing() -> None:
    asked = request(HAIKU, tools=[SEARCH])
    assert worst(request(HAIKU)) < worst(asked, is_estimate=True) < worst(asked)
    assert worst(request(HAIKU)) == worst(request(HAIKU), is_estimate=True)


def test_a_critical_call_may_go_on_and_is_told_so_by_its_claim() -> None:
    def limit_of(task: Task) -> int:
        seen, _ = drive(exchange(call(task=task), budgeted()), reply())
        limit: int = of(Lease, seen)[0].claims[0].limit_nusd
        return limit

    assert 9_800_000_000 == limit_of(Task())
    assert 20 * USD == limit_of(Task(critical=True))


def test_a_tool_loop_may_use_the_reserve_and_is_never_stepped_down() -> None:
    turns = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]},
    ]
    limits = replace(budgeted(made=decision(OPUS)), below=below("haiku"))
    seen, end = drive(exchange(call(request(messages=turns)), limits), grant=refusing(spent=10 * USD))
    assert isinstance(end, BudgetExceededError)
    assert 10 * USD == of(Lease, seen)[0].claims[0].limit_nusd


def test_what_is_left_is_in_the_outcome() -> None:
    known = Known(standings={"team": Standing(spent_nusd=4 * USD, leased_nusd=USD)})
    _, end = drive(exchange(call(), budgeted()), reply(), known=known)
    assert isinstance(end, Done)
    assert Decimal("5.999975") == end.outcome.budget_remaining_usd


@pytest.mark.parametrize(
    ("rule", "when"),
    [
        (BudgetRule("b", USD, window="day"), " of $1.0000 for 23 Nov spent, $0.0200 of it kept"),
        (BudgetRule("b", USD, window="week"), " for the week of 23 Nov spent"),
        (BudgetRule("b", USD, window="hour", tz="Europe/Vienna"), " for the hour from 13:00 spent"),
        (BudgetRule("b", USD, window="month", rolling=True), " in the last 30 days spent"),
        (BudgetRule("b", USD, window="day", rolling=True), " in the last day spent"),
        (BudgetRule("b", USD, window="total"), "$1.0000 of $1.0000 spent"),
        (BudgetRule("b", USD, scope=("session",), window="session"), " for this session spent"),
        (BudgetRule("b", USD, scope=("tag",)), "Budget b (tag=): "),
    ],
)
def test_the_window_is_said_in_words(rule: BudgetRule, when: str) -> None:
    _, end = drive(exchange(call(), budgeted(rule)), grant=refusing(spent=USD))
    assert when in str(end)


def test_reserved_money_is_said_apart() -> None:
    _, end = drive(exchange(call(), budgeted(wait_s=0)), grant=refusing(spent=0, leased=10 * USD))
    assert " $0.20 of it kept for tool loops, $10.00 reserved for calls under way;" in str(end)


def test_the_reason_of_a_block_is_on_the_row() -> None:
    seen, _ = drive(exchange(call(), budgeted()), grant=refusing(spent=10 * USD))
    assert Code.BUDGET_CAP.value in row_of(seen).decision_json
    assert isinstance(of(Lease, seen)[0].claims[0], Claim)


def test_a_tier_that_did_not_take_a_request_is_not_gone_back_to_for_want_of_money() -> None:
    refused = UpstreamFailure(RuntimeError(), status=400, headers={"x-should-retry": "false"})
    router = Router()
    known = Known(standings={"team": Standing(9 * USD)})
    limits = replace(
        budgeted(made=decision(OPUS)),
        below=lambda asked, made: router.below(asked.request, asked.task, made, moment(NOW)),
    )

    def grant(lease: Lease) -> Refusal | None:
        return Refusal(lease.claims[0], Standing(10 * USD)) if lease.reserved.model == OPUS else None

    seen, end = drive(exchange(call(), limits), refused, grant=grant, known=known)
    assert isinstance(end, BudgetExceededError)
    assert [SONNET] == [step.request.model for step in of(Send, seen)]
    assert "blocked" == row_of(seen).result


def test_a_cap_below_nothing_reserves_nothing_of_others() -> None:
    assert 0 < worst_of(request(OPUS, max_tokens=-100_000), "anthropic", NOW, load_prices()).nusd


def test_what_is_bounded_is_not_estimated() -> None:
    asked = request(OPUS, tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}])
    book = load_prices()
    assert worst_of(asked, "anthropic", NOW, book) == worst_of(
        asked, "anthropic", NOW, book, is_estimate=True
    )


def test_an_answer_that_no_budget_lets_be_asked_again_is_told_as_what_it_was() -> None:
    cut = reply(HAIKU, stop_reason="max_tokens")
    made = budgeted(made=decision(HAIKU, max_tokens=50))
    granted = [
        None,
        Refusal(Claim(Account("team", Window("always", "always")), 10 * USD, RULE), Standing(10 * USD)),
    ]
    seen, end = drive(exchange(call(), made), cut, grant=lambda _: granted.pop(0))
    assert isinstance(end, Done)
    assert ("haiku", HAIKU) == (end.outcome.tier, end.outcome.model)
    assert Code.TRUNCATED not in [reason.code for reason in end.outcome.reasons]
    (record,) = of(Record, seen)
    assert HAIKU == record.made_by


def test_what_has_no_price_is_not_asked_at_a_budgets_cost_even_when_switched_off() -> None:
    asked = request("claude-unheard-of-9")
    off = decision(asked.model, asked=asked.model, fallback=asked.model, mode="off", upstream="anthropic")
    with pytest.raises(UnknownPriceError):
        drive(exchange(call(asked), budgeted(made=off)), reply(asked.model))
    seen, end = drive(exchange(call(asked), terms(off)), reply(asked.model))
    assert isinstance(end, Done)
    assert 1 == len(of(Send, seen))


def test_a_request_does_not_wait_anew_for_each_tier() -> None:
    limits = replace(budgeted(made=decision(OPUS), wait_s=2), below=below("sonnet", "haiku"))
    seen, end = drive(exchange(call(), limits), grant=refusing(spent=0, leased=10 * USD))
    assert isinstance(end, BudgetExceededError)
    assert [OPUS, SONNET, HAIKU] == list(dict.fromkeys(lease.reserved.model for lease in of(Lease, seen)))
    assert 2 <= sum(step.seconds for step in of(Sleep, seen)) < 2.5
