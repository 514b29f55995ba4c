"""What every `Store` must do; each implementation is one line of `KINDS`."""

from __future__ import annotations

import gc
import math
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leastwise.budget import Account, BudgetRule, Claim, Raise, Standing, Window
from leastwise.cascade import Calibration, Evidence, Rung, Trial
from leastwise.cascade.calibration import Scored as Outcome
from leastwise.cascade.calibration import calibrate
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.errors import StoreError
from leastwise.ladder import SAYS, Verdict
from leastwise.ledger import (
    SOURCES,
    Charge,
    Entry,
    Exchange,
    Feedback,
    Measured,
    Reserved,
    StepDown,
    new_id,
    strongest,
)
from leastwise.messages import Usage
from leastwise.routing import Warmth
from leastwise.steps import Lease, Load, Record, Settle
from leastwise.stores import GROUPS, Line, Query, Scored, Store, Story, TypeLine, recover
from leastwise.stores.postgres import PostgresStore
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.split import Split
from leastwise.stores.sql import SqlStore
from leastwise.stores.sqlite import SqliteStore
from tests import postgres
from tests.servers import age, valkey_url

NOW = 1_795_435_200.0  # 2026-11-23 12:00 UTC
HOUR_S = 3600
DAY_S = 86_400


@dataclass
class Clock:
    """The time of day, moved by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """Where a store is: what opens it, and what lets time pass by a server's clock."""

    open: Callable[[Clock], Store]
    pass_time: Callable[[float], None] = lambda _: None


@contextmanager
def in_file() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "leastwise.db")
        yield Place(lambda clock: SqliteStore(path, keep_days=30, clock=clock))


@contextmanager
def in_memory() -> Iterator[Place]:
    yield Place(lambda clock: SqliteStore(":memory:", keep_days=30, clock=clock))


@contextmanager
def in_two() -> Iterator[Place]:
    url = valkey_url()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "leastwise.db")
        yield Place(
            lambda clock: Split(
                SqliteStore(path, keep_days=30, clock=clock, keeps_budgets=False), RedisBudgets(url)
            ),
            lambda seconds: age(url, seconds),
        )


@contextmanager
def in_postgres() -> Iterator[Place]:
    with postgres.database() as url:
        yield Place(
            lambda clock: PostgresStore(url, keep_days=30, clock=clock),
            lambda seconds: postgres.pass_time(url, seconds),
        )


KINDS: dict[str, Callable[[], AbstractContextManager[Place]]] = {
    "file": in_file,
    "memory": in_memory,
    "split": in_two,
    "postgres": in_postgres,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def opened(kind: str, clock: Clock | None = None) -> Iterator[Store]:
    with KINDS[kind]() as place, closing(place.open(clock or Clock())) as store:
        yield store


Two = tuple[Store, Store, Callable[[float], None]]


@pytest.fixture(params=KINDS)
def kind_of_two(request: pytest.FixtureRequest) -> Iterator[Two]:
    """Return two owners of one ledger, and what lets time pass for them."""
    clock = Clock()
    with KINDS[request.param]() as place, closing(place.open(clock)) as first:
        second = (
            SqlStore(first.database, first._dialect, clock=clock)  # another in memory were empty
            if isinstance(first, SqlStore)
            else place.open(clock)
        )

        def pass_time(seconds: float) -> None:
            clock.now += seconds
            place.pass_time(seconds)

        with closing(second):
            yield first, second, pass_time


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with opened(request.param) as made:
        yield made


rng = Random(20261123)
numbers = count()


def exchange(**given: Any) -> Exchange:
    """Return a row, complete but for what the test is about."""
    facts: dict[str, Any] = {each.name: "" for each in fields(Exchange)}
    facts |= {each.name: 0 for each in fields(Exchange) if each.type == "int"}
    facts |= {"at": NOW, "latency_s": 0.5, "kind": "message", "mode": "auto", "asked": "auto", "result": "ok"}
    facts |= {"served": "claude-haiku-5-5", "tier": "haiku", "status": 200, "decision_json": '{"reasons":[]}'}
    facts |= given
    return Exchange(**{**facts, "id": given.get("id") or new_id(facts["at"], rng)})


def entry(row: Exchange, **given: Any) -> Entry:
    facts: dict[str, Any] = {
        "id": new_id(row.at, rng),
        "exchange_id": row.id,
        "purpose": "answer",
        "provider": "anthropic",
        "model": "claude-haiku-5-5",
        "asked_at": row.at,
        "status": 200,
        "usage": Usage(100, 20),
        "price_row": "claude-haiku-5-5 2026-10-01",
        "cost_nusd": 200_000,
        "worst_nusd": 900_000,
        "certainty": "exact",
    }
    return Entry(**{**facts, **given})


def write(store: Store, *steps: Settle | Record) -> None:
    for step in steps:
        store.write(step, may_wait=True)


def sums_of(store: Store, *by: str, **given: Any) -> dict[tuple[str, ...], Line]:
    return {line.group: line for line in store.sums(Query(by=by, **given))}


def test_a_request_is_found_as_it_was_written(store: Store) -> None:
    row = exchange(tag="mail", session="s", saved_nusd=-17, latency_s=0.25, fault="cache", would="x")
    row = replace(row, lost_cache_nusd=5, misfit_field="thinking", cache="miss", checked="accept")
    usage = Usage(1, 2, 3, 4, 5, 6, 7, "priority", "fast", "us")
    paid = (Charge("team-a", "2026-11", 150_000), Charge("team-a", "session s", 50_000))
    attempt = entry(row, usage=usage, message_id="msg_1", request_id="req_1", charges=paid, parent="p")
    write(store, Settle(attempt), Record(row))

    assert Story(row, (attempt,)) == store.find(row.id) == store.find("msg_1") == store.find("req_1")


def test_what_is_unknown_is_not_found(store: Store) -> None:
    row = exchange()
    write(store, Settle(entry(row)), Record(row))

    assert [None] * 3 == [store.find(""), store.find("msg_1"), store.find(new_id(NOW, rng))]


def test_a_retried_request_is_found_by_the_id_of_its_failed_attempt_too(store: Store) -> None:
    row = exchange()
    failed = entry(row, status=529, usage=Usage(), price_row="", cost_nusd=0, request_id="req_failed")
    late = entry(
        row, parent=failed.id, purpose="retry", asked_at=NOW + 2, message_id="msg_2", request_id="req_2"
    )
    write(store, Settle(late), Settle(failed), Record(row))

    assert (
        Story(row, (failed, late)) == store.find("req_failed") == store.find("msg_2") == store.find("req_2")
    )


def test_of_two_requests_with_one_upstream_id_the_later_is_found(store: Store) -> None:
    earlier, later = exchange(at=NOW - 5), exchange()
    for row in (later, earlier):
        write(store, Settle(entry(row, message_id="msg_same")), Record(row))

    story = store.find("msg_same")

    assert story is not None
    assert later == story.exchange


def test_an_attempt_whose_request_was_never_recorded_is_no_story(store: Store) -> None:
    write(store, Settle(entry(exchange(), message_id="msg_lost")))

    assert None is store.find("msg_lost")


def test_an_exchange_without_an_attempt_is_a_story(store: Store) -> None:
    row = exchange(served="", tier="", result="error", status=0)
    write(store, Record(row))

    assert Story(row, ()) == store.find(row.id)


def test_twice_is_as_good_as_once(store: Store) -> None:
    row = exchange(tag="mail", spent_nusd=200_000)
    attempt = entry(row, charges=(Charge("b", "w", 200_000),))
    steps = (Settle(attempt), Record(row, ("toolu_1",), "m1", Measured("new", 20_000, 30_000)))
    write(store, *steps, *steps)
    for step in steps:
        store.post(step)
    store.flush()

    assert Story(row, (attempt,)) == store.find(row.id)
    assert [(1, 200_000)] == [(line.calls, line.spent_nusd) for line in store.sums(Query())]
    assert {"new": 1.25} == store.known(Load("mail"), NOW).corrections  # (30 + 20) / (20 + 20), not 80 / 60


def test_misfits_are_counted_by_the_model_that_refused(store: Store) -> None:
    rows = [
        exchange(misfit=model, misfit_field=member, at=at)
        for model, member, at in (
            ("m1", "thinking.type", NOW),
            ("m1", "thinking.type", NOW),
            ("m1", "", NOW),
            ("m2", "tools", NOW),
            ("m1", "", NOW - 9),
            ("", "", NOW),
        )
    ]
    write(store, *map(Record, rows))

    assert {("m1", "thinking.type"): 2, ("m1", ""): 1, ("m2", "tools"): 1} == store.misfits(NOW)


def test_a_small_models_word_is_kept_for_its_ask(store: Store) -> None:
    assert "" == store.known(Load(ask_key="k1"), NOW).opinion

    write(store, Record(exchange(), ask_key="k1", opinion="classify"), Record(exchange(), ask_key="k2"))
    write(store, Record(exchange(), ask_key="k1", opinion="extract"))

    assert ["extract", "", ""] == [store.known(Load(ask_key=key), NOW).opinion for key in ("k1", "k2", "")]


def test_a_lease_reserves_nothing_without_a_budget(store: Store) -> None:
    row = exchange()
    held = Reserved(new_id(NOW, rng), row.id, "answer", "anthropic", "claude-haiku-5-5", NOW, 900_000)
    lease = Lease(held, (), lambda _: (Settle(entry(row)), Record(row)))

    assert None is store.lease(lease, may_wait=False)
    assert ([], [], None) == (store.reserved(), store.windows(), store.find(row.id))


def reserve(store: Store, row: Exchange, *budgets: str, worst_nusd: int = 900_000) -> Reserved:
    """Hold this for a request in windows of these budgets."""
    paid = tuple(Charge(budget, "2026-11-01T00:00Z", worst_nusd) for budget in budgets)
    id_ = new_id(row.at, rng)
    held = Reserved(id_, row.id, "answer", "anthropic", "claude-haiku-5-5", row.at, worst_nusd, paid)
    claims = tuple(Claim(account_of(budget), 10**9, BudgetRule(budget, 10**9)) for budget in budgets)
    assert None is store.lease(
        Lease(held, claims, lambda _: (Settle(held.lost()), Record(row))), may_wait=True
    )
    return held


WINDOW = "2026-11-01T00:00Z"


def account_of(budget: str) -> Account:
    return Account(budget, Window(WINDOW, WINDOW))


def paid_by(held: Reserved, cost_nusd: int) -> Entry:
    paid = tuple(replace(charge, nusd=cost_nusd) for charge in held.charges)
    return replace(held.lost(), cost_nusd=cost_nusd, certainty="exact", charges=paid)


def in_accounts(store: Store) -> dict[tuple[str, str], int]:
    return {(line.account, line.window_key): line.standing.spent_nusd for line in store.windows()}


@pytest.mark.parametrize("way", ["write", "write soon", "post"])
def test_a_row_settles_its_lease(store: Store, way: str) -> None:
    row = exchange(spent_nusd=400)
    attempt = paid_by(reserve(store, row, "a", "b"), 400)
    for step in (Settle(attempt), Record(row)):
        if way == "post":
            store.post(step)
        else:
            store.write(step, may_wait=way == "write")
    store.flush()

    assert Story(row, (attempt,)) == store.find(row.id)
    assert {"a": Standing(400, 0, 1), "b": Standing(400, 0, 1)} == store.known(
        Load(
            accounts=(
                account_of("a"),
                account_of("b"),
                account_of("c"),
            )
        ),
        NOW,
    ).standings
    assert in_accounts(store) == store.charged()


def test_routing_knows_what_was_added_to_budgets_for_now(store: Store) -> None:
    def raised(at: float) -> dict[str, int]:
        return dict(store.known(Load(accounts=(account_of("a"),)), at).raised)

    assert {} == raised(NOW)
    for nusd, until in ((5, NOW + 1), (7, NOW + 9), (11, NOW)):
        store.add_raise(Raise("a", nusd, until, "why", "who", NOW - 1))
    store.add_raise(Raise("b", 1, NOW + 9, "why", "who", NOW - 1))

    assert [{"a": 12, "b": 1}, {"a": 7, "b": 1}, {}] == [raised(at) for at in (NOW, NOW + 1, NOW + 9)]
    assert {} == store.known(Load(), NOW).raised


def test_charges_add_up_to_what_accounts_hold(store: Store) -> None:
    early, late = exchange(at=NOW - HOUR_S), exchange()
    for row, cost_nusd, budgets in ((early, 5, "ab"), (late, 70, "a"), (late, 0, "c")):
        write(store, Settle(paid_by(reserve(store, row, *budgets), cost_nusd)))
    november = "2026-11-01T00:00Z"

    assert {("a", november): 75, ("b", november): 5, ("c", november): 0} == store.charged()
    assert in_accounts(store) == store.charged()
    assert {("a", november): 70, ("c", november): 0} == store.charged(since=NOW - 60)


def test_the_entries_that_an_account_paid_for(store: Store) -> None:
    early, late = exchange(at=NOW - HOUR_S), exchange()
    of_both, of_one, free = (
        paid_by(reserve(store, row, *budgets), cost_nusd)
        for row, cost_nusd, budgets in ((late, 5, "ab"), (early, 70, "a"), (late, 0, "a"))
    )
    write(store, *map(Settle, (of_both, of_one, free)))

    assert [of_one, of_both] == store.entries_of("a", NOW - DAY_S)
    assert [of_both] == store.entries_of("a", NOW - 60) == store.entries_of("b", 0.0)
    assert [] == store.entries_of("c", 0.0)


def test_an_attempt_is_found_before_its_request_is(store: Store) -> None:
    row = exchange()
    held = reserve(store, row, "a", "b")
    assert None is store.entry(held.id)
    for cost_nusd, known in ((held.worst_nusd, held.lost()), (0, paid_by(held, 0)), (0, held.lost())):
        store.post(Settle(known))
        found = store.entry(held.id)
        assert found is not None
        assert ([cost_nusd] * 2, row.id) == ([one.nusd for one in found.charges], found.exchange_id)

    assert paid_by(held, 0) == store.entry(held.id)
    assert None is store.find(row.id)


def test_what_dead_processes_had_reserved_is_lost_until_somebody_knows_better(kind_of_two: Two) -> None:
    store, other, pass_time = kind_of_two
    row, also = exchange(), exchange(at=NOW + 1)
    held, and_held = reserve(other, row, "a"), reserve(other, also, "a", worst_nusd=7)
    reserve(store, exchange(), "b")
    pass_time(21)
    store.beat()
    lost = [held.lost(), and_held.lost()]

    assert lost == recover(store) == store.lost()
    assert [] == recover(store)
    assert {"a": Standing(900_007, 0, 2), "b": Standing(0, 900_000, 0)} == store.standings(
        [account_of("a"), account_of("b")]
    )
    known = paid_by(held, 400)
    other.write(Settle(known), Record(row), may_wait=True)
    assert [and_held.lost()] == store.lost()
    assert Story(row, (known,)) == store.find(row.id)
    assert {"a": Standing(407, 0, 2)} == store.standings([account_of("a")])
    assert in_accounts(store) == {**store.charged(), ("b", "2026-11-01T00:00Z"): 0}


def test_an_accepted_batch_costs_its_most_until_another_process_has_read_its_results(
    kind_of_two: Two,
) -> None:
    store, other, _ = kind_of_two
    row = exchange(kind="batch", mode="off")
    held = [reserve(other, row, "a"), reserve(other, row, "a", "b", worst_nusd=7)]
    most = [replace(one.lost(), purpose="batch", message_id="msgbatch_1", status=200) for one in held]
    other.write(*map(Settle, most), may_wait=True)

    assert sorted(most, key=lambda one: one.id) == store.lost()
    assert ([], [True, True]) == (store.reserved(), [one.is_pending for one in store.lost()])
    assert {("a", WINDOW): 900_007, ("b", WINDOW): 7} == in_accounts(store) == store.charged()
    assert None is store.find("msgbatch_1")

    known = [
        replace(one, cost_nusd=nusd, certainty="exact", charges=paid_by(held_, nusd).charges)
        for one, held_, nusd in zip(most, held, (400, 5), strict=True)
    ]
    for who in (store, other, store):  # read again, it is as it was
        who.write(*map(Settle, known), Record(row), may_wait=True)
        assert {("a", WINDOW): 405, ("b", WINDOW): 5} == in_accounts(store) == store.charged()
    other.write(Settle(most[0]), may_wait=True)
    assert [] == store.lost()
    assert Story(row, tuple(sorted(known, key=lambda one: one.id))) == store.find("msgbatch_1")
    assert 1 == store.sums(Query())[0].calls


def test_what_budgets_made_cheaper_is_kept_the_newest_first(store: Store) -> None:
    down = StepDown("a|tag=x", "2026-11-01T00:00Z", "opus", "sonnet", 72.5, "above 70%")
    put_off = replace(down, after="opus", trigger="deferred")
    early, late, plain = exchange(at=NOW - 5), exchange(), exchange()
    for step in (
        Record(late, step_downs=(down,)),
        Record(early, step_downs=(put_off,)),
        Record(plain),
        Record(late, step_downs=(put_off,)),
    ):
        store.write(step, may_wait=True)

    assert [(NOW, late.id, down), (NOW - 5, early.id, put_off)] == store.step_downs()
    assert [(NOW, late.id, down)] == store.step_downs(1)


names = st.sampled_from(["", "a", "b"])
amounts = st.integers(-(10**9), 10**12)
rows = st.lists(
    st.builds(
        exchange,
        at=st.floats(NOW - 3 * DAY_S, NOW + DAY_S),
        tenant=names,
        key=names,
        tag=names,
        mode=st.sampled_from(["auto", "observe", "enforce", "off"]),
        asked=names,
        served=names,
        tier=names,
        would=names,
        kind=st.sampled_from(["message", "message", "batch"]),
        result=st.sampled_from(["ok", "error", "cut", "abandoned"]),
        baseline=names,
        baseline_how=st.sampled_from(["asked", "assumed"]),
        certainty=st.sampled_from(["exact", "estimated", "lost"]),
        fault=names,
        cache=st.sampled_from(["", "hit", "miss"]),
        checked=st.sampled_from(["", "accept", "escalate", "abstain"]),
        escalations=st.integers(0, 2),
        latency_s=st.floats(0, 600),
        **dict.fromkeys(
            ("spent_nusd", "baseline_nusd", "saved_nusd", "could_nusd", "discarded_nusd", "lost_cache_nusd"),
            amounts,
        ),
        **dict.fromkeys(("input_tokens", "output_tokens"), st.integers(0, 10**6)),
    ),
    max_size=12,
)
times = st.none() | st.integers(-3 * 24, 24).map(lambda hours: NOW + hours * HOUR_S)
queries = st.builds(
    Query,
    since=times,
    until=times,
    by=st.lists(st.sampled_from(GROUPS), max_size=3, unique=True).map(tuple),
    tag=st.none() | names,
)


def shown(at: float, name: str) -> str:
    hours = math.floor(at / HOUR_S)
    day = f"2026-11-{23 + math.floor((at - (NOW - DAY_S / 2)) / DAY_S):02d}"
    return day if name == "day" else f"{day}T{hours % 24:02d}:00Z"


def group_of(row: Exchange, by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(shown(row.at, name) if name in ("day", "hour") else getattr(row, name) for name in by)


def chosen(query: Query, found: list[Exchange]) -> dict[tuple[str, ...], list[Exchange]]:
    """Return the rows that a query is about, by group; times are whole hours here."""
    groups: dict[tuple[str, ...], list[Exchange]] = defaultdict(list)
    for row in found:
        is_in_time = (query.since or 0) <= row.at < (query.until or math.inf)
        if is_in_time and query.tag in (None, row.tag):
            groups[group_of(row, query.by)].append(row)
    return groups


def summed(group: tuple[str, ...], of: list[Exchange]) -> Line:
    """Add rows up one by one, as the words of `Line` say it."""
    return Line(
        group,
        calls=len(of),
        moved=sum(row.served not in ("", row.baseline) for row in of),
        could_move=sum(row.would not in ("", row.asked) for row in of),
        failed=sum(row.result == "error" for row in of),
        estimated=sum(row.certainty == "estimated" for row in of),
        faults=sum(row.fault != "" for row in of),
        spent_nusd=sum(row.spent_nusd for row in of),
        baseline_nusd=sum(row.baseline_nusd for row in of),
        saved_nusd=sum(row.saved_nusd for row in of),
        could_nusd=sum(row.could_nusd for row in of),
        discarded_nusd=sum(row.discarded_nusd for row in of),
        checks_nusd=sum(row.checks_nusd for row in of),
        lost_cache_nusd=sum(row.lost_cache_nusd for row in of),
        assumed_nusd=sum(row.baseline_nusd for row in of if row.baseline_how == "assumed"),
        cache_hits=sum(row.cache == "hit" for row in of),
        cache_misses=sum(row.cache == "miss" for row in of),
        cache_nusd=sum(row.saved_nusd for row in of if row.cache == "hit"),
        input_tokens=sum(row.input_tokens for row in of),
        output_tokens=sum(row.output_tokens for row in of),
        checked=sum(row.checked != "" for row in of),
        escalated=sum(row.escalations > 0 for row in of),
    )


@kinds
@given(found=rows, asked=st.lists(queries, min_size=1, max_size=4))
@example(found=[], asked=[Query(), Query(by=("tag",))])
@settings(max_examples=40)
def test_sums_by_any_group_are_the_sums_over_the_rows(
    kind: str, found: list[Exchange], asked: list[Query]
) -> None:
    with opened(kind) as store:
        for at, row in enumerate(found):
            if at % 2:
                store.post(Record(row))
            else:
                store.write(Record(row), may_wait=True)
        for query in asked:
            lines = store.sums(query)
            by_size = sorted(lines, key=lambda line: (-line.baseline_nusd, -line.calls))

            assert {group: summed(group, of) for group, of in chosen(query, found).items()} == {
                line.group: line for line in lines
            }
            assert [line.baseline_nusd for line in by_size] == [line.baseline_nusd for line in lines]


@kinds
@given(found=rows, query=queries)
@settings(max_examples=30)
def test_latencies_are_quantiles_of_what_was_answered(kind: str, found: list[Exchange], query: Query) -> None:
    expected = {}
    for group, of in chosen(query, found).items():
        answered = sorted(row.latency_s for row in of if row.result == "ok" and row.kind == "message")
        if answered:
            expected[group] = tuple(answered[math.ceil(share * len(answered)) - 1] for share in (0.50, 0.95))
    with opened(kind) as store:
        write(store, *map(Record, found))

        assert expected == store.latencies(query)


def test_sums_count_hours_that_begin_within_the_time_asked_for(store: Store) -> None:
    write(store, *(Record(exchange(at=NOW + minutes * 60)) for minutes in (-1, 0, 59, 60)))

    assert [3, 1, 3] == [
        store.sums(query)[0].calls
        for query in (Query(since=NOW - 1), Query(since=NOW + 1), Query(since=NOW - HOUR_S, until=NOW + 1))
    ]


def test_sums_cannot_be_grouped_by_what_is_unknown() -> None:
    with pytest.raises(
        ValueError, match="cannot group by 'model'; expected one of asked, day, hour, key, mode"
    ):
        Query(by=("tag", "model"))


def test_pins_tell_which_model_made_a_tool_call(store: Store) -> None:
    write(store, Record(exchange(), ("toolu_1", "toolu_2"), "m1"), Record(exchange(), ("toolu_3",), "m2"))
    store.post(Record(exchange(), ("toolu_4",), "m3"))
    store.flush()

    assert {"toolu_1": "m1", "toolu_3": "m2", "toolu_4": "m3"} == store.known(
        Load("", ("toolu_1", "toolu_3", "toolu_4", "toolu_5")), NOW
    ).pins
    assert {} == store.known(Load(), NOW).pins


def test_a_long_conversation_has_more_tool_calls_than_a_statement_has_parameters(store: Store) -> None:
    odd = "'; DROP TABLE pin; --"
    store.post(Record(exchange(), ("toolu_1", odd), "m1"))
    store.flush()

    assert {odd: "m1"} == store.known(
        Load("", (*(f"toolu_{number}" for number in range(2, 40_000)), odd)), NOW
    ).pins


def test_who_made_a_call_is_remembered_for_the_last_ten_thousand_and_longer_in_the_store(
    store: Store,
) -> None:
    for start in range(0, 12_000, 3_000):
        ids = tuple(f"toolu_{number}" for number in range(start, start + 3_000))
        write(store, Record(exchange(), ids, f"m{start}"))

    assert {"toolu_0": "m0", "toolu_11999": "m9000"} == store.known(
        Load("", ("toolu_0", "toolu_11999")), NOW
    ).pins


def test_a_tags_baseline_is_the_model_it_asked_for_most(store: Store) -> None:
    asked = {"mode": "observe", "tag": "mail"}
    usual = [exchange(asked="opus", **asked), exchange(asked="opus", **asked, at=NOW - DAY_S)]
    others = [
        exchange(asked="sonnet", **asked),
        *(exchange(asked="auto", mode="auto", tag="mail") for _ in range(3)),
        *(exchange(asked="broken", **asked, result="error") for _ in range(3)),
        *(exchange(asked="old", **asked, at=NOW - 15 * DAY_S) for _ in range(3)),
        *(exchange(asked="other", mode="observe", tag="chat") for _ in range(3)),
    ]
    write(store, *map(Record, usual + others))

    assert ["opus", "other", None, None] == [
        store.known(Load(tag), NOW).baseline for tag in ("mail", "chat", "new", "")
    ]


def test_what_changes_slowly_is_remembered_for_a_second(store: Store) -> None:
    learned = Record(
        exchange(tag="mail", mode="observe", asked="opus"), measured=Measured("new", 20_000, 30_000)
    )
    before = store.known(Load("mail"), NOW)
    write(store, learned)

    assert [before, before] == [store.known(Load("mail"), NOW), store.known(Load("mail"), NOW + 0.9)]
    for at in (NOW + 1.1, NOW + 0.05):  # later, or after the clock was set back
        assert ("opus", {"new": 1.25}) == (
            store.known(Load("mail"), at).baseline,
            store.known(Load("mail"), at).corrections,
        )


def test_many_tags_do_not_fill_the_memory_and_each_is_answered(store: Store) -> None:
    write(store, Record(exchange(tag="mail", mode="observe", asked="opus")))
    assert [None] * 10_100 == [store.known(Load(f"tag {number}"), NOW).baseline for number in range(10_100)]

    assert "opus" == store.known(Load("mail"), NOW).baseline


def warm(model: str = "m1", **given: Any) -> Warmth:
    facts = {"at": NOW, "prefix_tokens": 60_000, "output_tokens": 40, "turns": 1, **given}
    return Warmth(model, **facts)


def warmths(store: Store, session: str = "s", tenant: str = "local") -> dict[str, Warmth]:
    return dict(store.known(Load(tenant=tenant, session=session), NOW).warmths)


def in_session(warmth: Warmth, session: str = "s", tenant: str = "local") -> Record:
    return Record(exchange(tenant=tenant, session=session), warmth=warmth)


def test_a_session_knows_what_it_has_in_prompt_caches(store: Store) -> None:
    later = warm(at=NOW + 9, hour_tokens=61_000, prefix_tokens=61_000, output_tokens=2)
    write(store, in_session(warm()), in_session(warm("m2", prefix_tokens=7)), in_session(later))
    write(store, in_session(warm("m3"), session="other"), in_session(warm("m4"), tenant="another"))
    write(store, Record(exchange(tenant="local", session="s")))

    added = replace(later, output_tokens=42, turns=2)
    assert {"m1": added, "m2": warm("m2", prefix_tokens=7)} == warmths(store)
    assert [{"m3": warm("m3")}, {"m4": warm("m4")}, {}, {}] == [
        warmths(store, "other"),
        warmths(store, tenant="another"),
        warmths(store, "new"),
        warmths(store, ""),
    ]


def test_of_answers_that_end_in_another_order_the_one_asked_last_tells_the_cache(store: Store) -> None:
    long, short = warm(at=NOW, prefix_tokens=60_000), warm(at=NOW + 100, prefix_tokens=61_000, hour_tokens=5)
    write(store, in_session(short))
    write(store, in_session(long))
    both = replace(short, output_tokens=80, turns=2)

    assert {"m1": both} == warmths(store)
    store.post(in_session(replace(long, at=NOW + 1)))  # as another process would: nothing is remembered
    store.flush()
    assert {"m1": replace(both, output_tokens=120, turns=3)} == warmths(store)


def test_what_is_posted_warms_as_well_and_twice_is_as_good_as_once(store: Store) -> None:
    first, second = in_session(warm()), in_session(warm(at=NOW + 1))
    for step in (first, first, second, first):
        store.post(step)
    store.flush()
    write(store, second)

    assert {"m1": warm(at=NOW + 1, output_tokens=80, turns=2)} == warmths(store)


def test_the_prompt_caches_of_many_sessions_are_kept_in_the_store(store: Store) -> None:
    for number in range(10_050):
        store.post(in_session(warm(prefix_tokens=number), session=f"s{number}"))
    store.flush()
    for number in (0, 10_049, 0):
        assert {"m1": warm(prefix_tokens=number)} == warmths(store, f"s{number}")


@kinds
def test_prompt_caches_of_days_ago_are_forgotten(kind: str) -> None:
    clock = Clock()
    with opened(kind, clock) as store:
        old, young = warm(at=NOW - 3 * DAY_S), warm("m2", at=NOW - DAY_S)
        store.post(in_session(old))
        store.post(in_session(young))
        store.flush()
        clock.now += 120
        write(store, Record(exchange()))
        store.flush()

        assert {"m2": young} == warmths(store)


@pytest.mark.parametrize(
    ("measured", "corrections"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([("new", 20_000, 30_000)], {"new": 1.25}, id="drawn towards 1 by 20,000 tokens"),
        pytest.param([("new", 12_000, 20_000), ("new", 8_000, 20_000)], {"new": 1.5}, id="added up"),
        pytest.param(
            [("new", 20_000, 30_000), ("old", 20_000, 20_000)],
            {"new": 1.25, "old": 1.0},
            id="each tokenizer alone",
        ),
        pytest.param([("new", 0, 900_000)], {"new": 2.0}, id="never more than twice"),
    ],
)
def test_token_ratios_are_learned_from_what_was_counted(
    store: Store, measured: list[tuple[str, int, int]], corrections: dict[str, float]
) -> None:
    write(store, *(Record(exchange(), measured=Measured(*each)) for each in measured))

    assert corrections == store.known(Load(), NOW).corrections


@kinds
def test_what_is_past_its_time_goes_but_sums_stay(kind: str) -> None:
    clock = Clock()
    with opened(kind, clock) as store:
        old, young = exchange(at=NOW - 31 * DAY_S, served="m1"), exchange(at=NOW - 29 * DAY_S, served="m2")
        lost = entry(exchange(at=NOW - 31 * DAY_S), message_id="msg_lost", charges=(Charge("b", "w", 1),))
        for row in (old, young):
            attempt = entry(row, message_id=f"msg {row.served}", charges=(Charge("b", "w", 1),))
            write(store, Settle(attempt), Record(row, (f"toolu_{row.served}",), row.served))
        write(store, Settle(lost))
        clock.now += 120
        write(store, Settle(entry(young, id=new_id(NOW, rng), message_id="msg_any")))
        store.flush()

        assert [None, young] == [story and story.exchange for story in map(store.find, (old.id, young.id))]
        assert 2 == store.sums(Query())[0].calls
        assert in_accounts(store) == store.charged()  # an account's sum outlasts the entries it is of
        assert {("b", "w"): 1} == store.charged(since=NOW - 30 * DAY_S)
        again = exchange(id=old.id, at=old.at)  # its entries and charges went with it
        write(store, Record(again))
        assert Story(again, ()) == store.find(old.id)
        assert None is store.find("msg m1")
        write(store, Record(exchange(id=lost.exchange_id)))
        assert None is store.find("msg_lost")


def test_the_garbage_collector_may_post(store: Store) -> None:
    class Stream:
        """Something whose loss is recorded."""

        me: Stream

    row = exchange(result="abandoned")
    attempt = entry(row, certainty="estimated")
    stream = Stream()
    stream.me = stream
    weakref.finalize(stream, store.post, Settle(attempt))
    weakref.finalize(stream, store.post, Record(row))
    del stream
    gc.collect()

    assert Story(row, (attempt,)) == store.find(row.id)


def test_the_garbage_collector_may_post_in_the_middle_of_a_write(store: Store) -> None:
    posted: list[Exchange] = []

    def collected(phase: str, _: dict[str, int]) -> None:
        if phase == "start" and len(posted) < 100:
            posted.append(exchange())
            store.post(Record(posted[-1]))

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(3, 1, 1)
    try:
        while len(posted) < 100:
            store.write(Record(exchange()), may_wait=True)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
    store.flush()

    assert [] == [row for row in posted if store.find(row.id) is None]


@kinds
def test_threads_write_each_row_once(kind: str) -> None:
    with opened(kind) as store:

        def work(thread: int) -> list[Exchange]:
            mine = []
            for turn in range(200):
                row = exchange(tag=f"t{thread % 3}", spent_nusd=thread * 1000 + turn, input_tokens=turn)
                mine.append(row)
                attempt = entry(row)
                if turn % 10 == 9:
                    store.post(Settle(attempt))
                    store.post(Record(row))
                else:
                    store.write(Settle(attempt), may_wait=turn % 2 == 0)
                    store.write(Record(row), may_wait=turn % 2 == 0)
                if turn % 50 == 0:
                    store.known(Load("t0", ("toolu_1",)), NOW)
            return mine

        with ThreadPoolExecutor(16) as pool:
            written = [row for mine in pool.map(work, range(16)) for row in mine]
        store.flush()

        assert {("t0",), ("t1",), ("t2",)} == set(sums_of(store, "tag"))
        for tag in ("t0", "t1", "t2"):
            mine = [row for row in written if row.tag == tag]
            assert summed((tag,), mine) == sums_of(store, "tag")[tag,]
        for row in written[:: len(written) // 50]:
            story = store.find(row.id)
            assert story is not None
            assert (row, 1) == (story.exchange, len(story.entries))


@pytest.mark.parametrize("given_", [{"tag": "\ud800"}, {"spent_nusd": 2**63}, {"asked": None}], ids=repr)
def test_a_row_that_cannot_be_stored_is_refused_and_takes_no_other_with_it(
    store: Store, given_: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    bad = exchange(session="a secret", **given_)
    with pytest.raises(StoreError):
        store.write(Record(bad), may_wait=True)
    good = [exchange() for _ in range(4)]
    for row in (*good[:2], bad, *good[2:]):
        store.post(Record(row))
    store.flush()
    after = exchange()
    store.post(Record(after))

    assert [(Story(row, ())) for row in (*good, after)] == [store.find(row.id) for row in (*good, after)]
    assert None is store.find(bad.id)
    assert 5 == store.sums(Query())[0].calls
    assert ["1 ledger rows were not written to"] == [record.getMessage()[:33] for record in caplog.records]
    assert "a secret" not in caplog.text


def test_a_closed_store_can_be_used_and_closed_again(store: Store) -> None:
    store.close()
    row = exchange()
    write(store, Record(row))
    store.post(Record(replace(row, id=new_id(NOW, rng))))

    assert Story(row, ()) == store.find(row.id)
    assert 2 == store.sums(Query())[0].calls
    store.close()
    store.close()


def test_calls_and_money_are_summed_by_type_and_tier(store: Store) -> None:
    rows = [
        exchange(task_type="summarise", tier="sonnet", spent_nusd=30),
        exchange(task_type="summarise", tier="sonnet", spent_nusd=50),
        exchange(task_type="summarise", tier="opus", spent_nusd=70),
        exchange(task_type="classify", tier="haiku", spent_nusd=1),
        exchange(task_type="classify", tier="haiku", spent_nusd=9, result="error"),
        exchange(task_type="", tier="haiku", spent_nusd=9),
        exchange(task_type="classify", tier="", spent_nusd=9),
    ]
    write(store, *map(Record, rows))

    assert [
        TypeLine("classify", "haiku", 1, 1),
        TypeLine("summarise", "opus", 1, 70),
        TypeLine("summarise", "sonnet", 2, 80),
    ] == sorted(store.types(), key=lambda line: (line.task_type, line.tier))


# --- what was checked, and what came of it ---------------------------------------------------------------

CHECKS = "5eed5eed5eed"


def verdict(**given: Any) -> Verdict:
    return Verdict(**{"check": "judge", "says": "accept", "words": "4 of 5", "tier": "haiku", **given})


def checked(row: Exchange, accepted: dict[str, bool], **given: Any) -> Record:
    """Return the row of a request of which these tiers' answers were checked, and which were accepted."""
    verdicts = tuple(verdict(tier=tier, says=SAYS[not is_ok]) for tier, is_ok in accepted.items())
    rungs = {tier: Rung(1, int(is_ok), 70, 5, 20) for tier, is_ok in accepted.items()}
    return Record(row, **{"verdicts": verdicts, "checks": CHECKS, "rungs": rungs, **given})


def word(row: Exchange, *, ok: bool, **given: Any) -> Feedback:
    return Feedback(**{"exchange_id": row.id, "ok": ok, "source": "user", "at": NOW, **given})


def accepted(store: Store, tier: str = "haiku", task_type: str = "extract") -> tuple[int, int]:
    rung = store.evidence(CHECKS).rungs[task_type, tier]
    return rung.accepted, rung.checked


def test_what_checks_said_is_found_with_its_request_in_order(store: Store) -> None:
    row, plain = exchange(checked="accept", escalations=1), exchange()
    said = (
        verdict(score=2, says="escalate", cost_nusd=900, blames=False, stamp="judge:low"),
        verdict(check="json", tier="sonnet", words=""),
        verdict(tier="claude-x", score=4.5, probability=0.75, is_self=True, says="abstain"),
        verdict(tier="sonnet", score=1.0, is_control=True),
    )
    for step in (Record(row, verdicts=said), Record(row, verdicts=said[:1]), Record(plain)):
        write(store, step)

    assert [Story(row, (), said), Story(plain, ())] == [store.find(row.id), store.find(plain.id)]


def test_planted_answers_are_counted_by_what_their_scores_depend_on(store: Store) -> None:
    planted = [verdict(is_control=True, says=says, stamp="s1") for says in ("accept", "escalate", "escalate")]
    other = verdict(is_control=True, says="accept", stamp="s2")
    for one in (*planted, other, verdict(stamp="s1")):
        write(store, Record(exchange(), verdicts=(one,)))

    assert {"s1": (3, 1), "s2": (1, 1)} == store.evidence(CHECKS).controls
    assert {"s1": (3, 1), "s2": (1, 1)} == store.known(Load(checks=CHECKS), NOW).evidence.controls


def test_evidence_adds_up_by_type_and_tier_under_the_same_checks(store: Store) -> None:
    extract, other = exchange(task_type="extract"), exchange(task_type="classify")
    steps = [
        checked(extract, {"haiku": False, "sonnet": True}),
        checked(other, {"haiku": True}),
        checked(extract, {"haiku": True}),  # written already
        checked(exchange(task_type="extract"), {"haiku": True}),
        checked(exchange(task_type="extract"), {"haiku": True}, checks="0ther0ther00"),
        Record(exchange(task_type="extract")),
    ]
    write(store, *steps[:2])
    for step in steps[2:]:
        store.post(step)

    once = Rung(1, 1, 70, 5, 20)
    assert {
        ("extract", "haiku"): Rung(2, 1, 140, 10, 40),
        ("extract", "sonnet"): once,
        ("classify", "haiku"): once,
    } == store.evidence(CHECKS).rungs
    assert {("extract", "haiku"): once} == store.evidence("0ther0ther00").rungs
    assert Evidence() == store.evidence("unknown")


def test_routing_is_given_evidence_where_it_asks_and_remembers_it_for_a_second(store: Store) -> None:
    def known(at: float, checks: str = CHECKS) -> Evidence:
        return store.known(Load(checks=checks), at).evidence

    assert [Evidence()] * 2 == [known(NOW), known(NOW, "")]
    write(store, checked(exchange(task_type="extract"), {"haiku": True}))
    store.put_calibration(Calibration("s", "", 3.0), NOW)
    store.put_trial(TRIAL)

    assert [Evidence(), store.evidence(CHECKS), Evidence()] == [
        known(NOW + 0.9),
        known(NOW + 1.1),
        known(NOW + 1.1, ""),
    ]
    assert store.evidence("new") == known(NOW + 1.1, "new")


def test_evidence_fades(store: Store) -> None:
    def post(count: int, *, is_ok: bool) -> None:
        for _ in range(count):
            store.post(checked(exchange(task_type="extract"), {"haiku": is_ok}))
            store.flush()

    post(255, is_ok=True)
    assert Rung(255, 255, 255 * 70, 255 * 5, 255 * 20) == store.evidence(CHECKS).rungs["extract", "haiku"]
    post(1, is_ok=False)
    assert Rung(128, 127, 128 * 70, 128 * 5, 128 * 20) == store.evidence(CHECKS).rungs["extract", "haiku"]
    post(128, is_ok=False)
    assert (63, 128) == accepted(store)
    post(2, is_ok=True)
    assert (65, 130) == accepted(store)


def test_of_what_two_write_at_once_no_evidence_is_lost(kind_of_two: Two) -> None:
    stores, tiers = kind_of_two[:2], ("haiku", "sonnet", "opus")

    def work(number: int) -> None:
        for turn in range(25):
            order = tiers[turn % 3 :] + tiers[: turn % 3]
            row = exchange(task_type="extract")
            step = checked(row, dict.fromkeys(order, turn % 5 > 0))
            if turn % 4:
                stores[number % 2].write(step, may_wait=True)
            else:
                stores[number % 2].post(step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for store in stores:
        store.flush()

    assert [(80, 100)] * 3 == [accepted(stores[0], tier) for tier in tiers]


def floor_of(store: Store, session: str = "s", tenant: str = "local") -> tuple[str, float]:
    known = store.known(Load(tenant=tenant, talk=session), NOW)
    return known.floor, known.floor_at


def escalated(to: str, at: float, session: str = "s", tenant: str = "local") -> Record:
    return Record(exchange(at=at, session=session, tenant=tenant), floor=to)


def test_a_session_stays_where_it_escalated_to_last(kind_of_two: Two) -> None:
    store, other, _ = kind_of_two
    assert ("", 0.0) == floor_of(store)
    store.write(escalated("sonnet", NOW - 5), may_wait=True)
    store.post(escalated("opus", NOW - 9, "other"))
    store.write(escalated("opus", NOW - 7, "s", "another"), Record(exchange(session="s")), may_wait=True)
    store.flush()
    for who in (store, other):
        assert ("sonnet", NOW - 5) == floor_of(who)
        assert ("opus", NOW - 9) == floor_of(who, "other")
        assert ("opus", NOW - 7) == floor_of(who, "s", "another")
        assert ("", 0.0) == floor_of(who, "")

    other.write(escalated("opus", NOW), may_wait=True)
    store.write(escalated("haiku", NOW - 1), may_wait=True)  # began earlier, ended later
    assert [("opus", NOW)] * 2 == [floor_of(store), floor_of(other)]
    store.write(escalated("sonnet", NOW), may_wait=True)
    assert [("sonnet", NOW)] * 2 == [floor_of(store), floor_of(other)]


def test_what_was_said_of_an_answer_is_found_with_it(store: Store) -> None:
    row = exchange()
    write(store, Record(row))
    later = word(row, ok=False, at=NOW + 2, note="wrong total", source="tests")
    store.add_feedback(later, word(row, ok=True), word(row, ok=True, tier="sonnet", at=NOW + 3))
    store.add_feedback(word(row, ok=False, at=NOW - 1, note="came late"), word(row, ok=False, note="no"))

    story = store.find(row.id)
    assert story is not None
    assert (
        word(row, ok=False, tier="haiku", note="no"),
        replace(later, tier="haiku"),
        word(row, ok=True, tier="sonnet", at=NOW + 3),
    ) == story.feedback


def test_feedback_on_what_the_ledger_does_not_have_is_refused_as_a_whole(store: Store) -> None:
    row, unknown = exchange(), exchange()
    store.post(Record(row))  # what waits to be written is there
    with pytest.raises(StoreError, match=f"has no request '{unknown.id}', or not yet"):
        store.add_feedback(word(row, ok=False), word(unknown, ok=False))
    with pytest.raises(StoreError):
        store.add_feedback(word(row, ok=False, note="\ud800"))
    assert Story(row, ()) == store.find(row.id)

    store.add_feedback(word(row, ok=False))
    story = store.find(row.id)
    assert story is not None
    assert 1 == len(story.feedback)


def test_an_answer_found_bad_no_longer_counts_as_accepted_however_often_it_is_said(store: Store) -> None:
    good, bad = exchange(task_type="extract"), exchange(task_type="extract")
    write(store, checked(good, {"haiku": True}), checked(bad, {"haiku": False}))
    for ok, expected in ((False, 0), (False, 0), (True, 1), (False, 0)):
        store.add_feedback(word(good, ok=ok))
        assert (expected, 2) == accepted(store)
    store.add_feedback(word(bad, ok=True), word(bad, ok=True, tier="haiku"), word(good, ok=True))
    assert (2, 2) == accepted(store)

    for source in ("tests", "agreement"):  # the user has spoken
        store.add_feedback(word(good, ok=False, source=source))
    store.add_feedback(word(bad, ok=False, at=NOW - 1))
    assert (2, 2) == accepted(store)


def test_of_what_two_say_at_once_of_an_answer_one_word_counts(kind_of_two: Two) -> None:
    stores, rows = kind_of_two[:2], [exchange(task_type="extract") for _ in range(20)]
    write(stores[0], *(checked(row, {"haiku": True}) for row in rows))

    def say(number: int) -> None:
        for row in rows[:: number % 2 * 2 - 1]:
            stores[number % 2].add_feedback(word(row, ok=False, source=SOURCES[number % 3]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(say, range(4)))

    assert (0, 20) == accepted(stores[0])


def test_feedback_goes_to_the_tier_whose_answer_is_meant(store: Store) -> None:
    row = exchange(task_type="extract", tier="sonnet")
    off = exchange(task_type="extract", tier="", served="claude-x")
    write(store, checked(row, {"haiku": False, "sonnet": True}), checked(off, {"claude-x": True}))
    store.add_feedback(word(row, ok=True, tier="haiku"), word(row, ok=False), word(off, ok=False))

    assert [(1, 1), (0, 1), (0, 1)] == [accepted(store, tier) for tier in ("haiku", "sonnet", "claude-x")]


def test_what_has_faded_is_not_corrected(store: Store) -> None:
    old, young = (exchange(task_type="extract", at=at) for at in (NOW - 9, NOW + 9))
    full = checked(exchange(task_type="extract"), {"haiku": True}, rungs={"haiku": Rung(300, 10)})
    for step in (checked(old, {"haiku": True}), full, checked(young, {"haiku": True})):
        write(store, step)
    assert (6, 151) == accepted(store)

    store.add_feedback(word(old, ok=False), word(young, ok=False))
    assert (5, 151) == accepted(store)


def test_there_are_never_fewer_accepted_than_none(store: Store) -> None:
    row, less = exchange(task_type="extract"), {"haiku": Rung(0, -1)}  # as where its part was lost
    write(store, checked(row, {"haiku": True}), checked(exchange(task_type="extract"), {}, rungs=less))
    store.add_feedback(word(row, ok=False))

    assert (0, 1) == accepted(store)


accepted_or_not = st.lists(st.booleans(), min_size=1, max_size=3)
words = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.booleans(), st.sampled_from(SOURCES), st.integers(0, 3), st.booleans()
        ),
        max_size=4,
    ),
    max_size=6,
)


@kinds
@given(first=accepted_or_not, said=words)
@settings(max_examples=40)
def test_evidence_follows_the_word_that_counts_in_whatever_order_words_come(
    kind: str, first: list[bool], said: list[list[tuple[int, bool, Any, int, bool]]]
) -> None:
    rows = [exchange(task_type="extract") for _ in first]
    counts: dict[tuple[int, str], Feedback] = {}
    with opened(kind) as store:
        write(store, *(checked(row, {"haiku": is_ok}) for row, is_ok in zip(rows, first, strict=True)))
        for some in said:
            together = []
            for number, ok, source, after_s, is_named in some:
                which = number % len(rows)
                tier = "haiku" if is_named else ""
                said_ = word(rows[which], ok=ok, source=source, at=NOW + after_s, tier=tier)
                together.append(said_)
                earlier = counts.get((which, source))
                if earlier is None or earlier.at <= said_.at:
                    counts[which, source] = said_
            store.add_feedback(*together)

            ends = [
                strongest(one for (which, _), one in counts.items() if which == number)
                for number in range(len(rows))
            ]
            expected = sum(is_ok if end is None else end.ok for is_ok, end in zip(first, ends, strict=True))
            assert (expected, len(rows)) == accepted(store)


def test_scores_are_paired_with_what_became_known_of_their_answers(store: Store) -> None:
    early, late = exchange(at=NOW - 60, tag="mail"), exchange(task_type="extract", tier="sonnet")
    scores = (
        verdict(score=2.0, says="escalate", stamp="s"),
        verdict(check="json", tier="sonnet"),
        verdict(score=4.0, tier="sonnet"),
        verdict(score=5.0, tier="sonnet", is_control=True),
    )
    write(store, Record(late, verdicts=scores), Record(early, verdicts=(verdict(score=3.0),)))
    store.add_feedback(word(late, ok=False, source="agreement"), word(late, ok=True, source="tests"))

    told = [
        Scored(late.id, NOW, "", "extract", scores[0]),
        Scored(late.id, NOW, "", "extract", scores[2], ok=True),
        Scored(late.id, NOW, "", "extract", scores[3], ok=False),
    ]
    assert told == store.scored(since=NOW - 1)
    assert [Scored(early.id, NOW - 60, "mail", "", verdict(score=3.0)), *told] == store.scored()


def test_quality_is_counted_by_type_and_tier(store: Store) -> None:
    row = exchange(task_type="extract", tier="sonnet", spent_nusd=30)
    control = verdict(is_control=True, says="escalate")
    step = checked(row, {"haiku": False, "sonnet": True})
    both = (control, *step.verdicts, *step.verdicts)
    plain = exchange(task_type="extract", spent_nusd=2)
    nameless = exchange(task_type="")
    write(store, replace(step, verdicts=both), Record(plain), checked(nameless, {"haiku": True}))
    untyped = Record(exchange(task_type="extract"), verdicts=(verdict(),))  # in no evidence
    write(store, checked(exchange(task_type="extract", result="error"), {"haiku": True}), untyped)
    store.add_feedback(word(row, ok=False), word(row, ok=True, source="tests"), word(plain, ok=True))
    store.add_feedback(word(nameless, ok=True))

    assert [
        TypeLine("extract", "haiku", 2, 2, checked=2, accepted=1, told=1, told_ok=1),
        TypeLine("extract", "sonnet", 1, 30, checked=1, accepted=1, told=1, told_ok=0),
    ] == sorted(store.types(), key=lambda line: line.tier)


TRIAL = Trial("mail", "haiku", "claude-opus-5-5", "judge", 200, 188, 90_000, NOW)


def test_of_calibrations_and_trials_the_last_is_known(store: Store) -> None:
    sample = [Outcome(float(number % 5 + 1), ok=number % 5 > 1) for number in range(400)]
    kept = [
        Calibration("s", "", 3.0),
        Calibration("s", "extract", 4.0),
        Calibration("t", "", None, why="too few"),
        calibrate(sample, "s"),
    ]
    assert kept[3].rates is not None
    for at, one in enumerate(kept):
        store.put_calibration(one, NOW + at)
    later = replace(TRIAL, at=NOW + 9, agreed=120)
    for trial in (replace(TRIAL, tier="sonnet"), later, TRIAL, replace(TRIAL, tag="chat")):
        store.put_trial(trial)
    found = store.evidence(CHECKS)

    assert {("s", ""): kept[3], ("s", "extract"): kept[1], ("t", ""): kept[2]} == found.calibrations
    assert {
        ("mail", "sonnet"): replace(TRIAL, tier="sonnet"),
        ("mail", "haiku"): later,
        ("chat", "haiku"): replace(TRIAL, tag="chat"),
    } == found.trials


def test_a_tag_alone_makes_its_trials_known(store: Store) -> None:
    store.put_trial(TRIAL)

    assert {("mail", "haiku"): TRIAL} == store.known(Load("mail"), NOW).evidence.trials
    assert {} == store.known(Load(), NOW).evidence.trials


OPEN = OpenTrial("T1", "mail", "haiku", "claude-haiku-5-5", "auto", "opus", 500, 3 * 10**9, NOW)
SONNET = "claude-sonnet-5-5"


def concluded(sums: list[Pairs]) -> Trial | None:
    """Return what sums show, for a test: how many agreed of how many."""
    n, agreed = sum(pairs.n for pairs in sums), sum(pairs.agreed for pairs in sums)
    return replace(TRIAL, n=n, agreed=agreed) if n else None


def test_a_trial_is_open_until_somebody_ends_it(store: Store) -> None:
    chat = replace(OPEN, id="T0", tag="chat", at=NOW + 1)
    assert [True, True, False] == [
        store.begin_trial(one) for one in (chat, OPEN, replace(OPEN, id="T2", tier="sonnet"))
    ]
    assert [OPEN, chat] == store.open_trials()

    exact = Pairs("exact", SONNET, agreed=1, spent_nusd=5, measure_nusd=7, tier_nusd=3)
    judged = Pairs("judge by opus", SONNET, spent_nusd=9)
    store.add_pairs("T1", judged)
    store.add_pairs("T1", Pairs("did not fit haiku"))
    store.add_pairs("T0", exact)
    sums = store.add_pairs("T1", exact)
    assert store.add_pairs("T1", exact) == store.pairs_of("T1")
    assert [exact, Pairs("did not fit haiku"), judged] == sorted(
        sums, key=lambda pairs: (-pairs.agreed, pairs.how)
    )
    assert [Pairs("exact", SONNET, 2, 2, 10, 14, 6)] == store.pairs_of("T1")[:1]

    assert replace(TRIAL, n=4, agreed=2) == store.end_trial("T1", concluded)
    assert (None, []) == (store.end_trial("T1", concluded), store.add_pairs("T1", exact))
    assert ([chat], []) == (store.open_trials(), store.pairs_of("T1"))
    assert {("mail", "haiku"): replace(TRIAL, n=4, agreed=2)} == store.evidence("").trials
    assert store.begin_trial(replace(OPEN, id="T3"))


def test_a_trial_that_shows_nothing_leaves_nothing(store: Store) -> None:
    store.begin_trial(OPEN)

    assert None is store.end_trial("T1", concluded)
    assert ([], {}) == (store.open_trials(), store.evidence("").trials)


def test_many_add_to_one_trial_and_nothing_is_lost(kind_of_two: Two) -> None:
    first, second, _ = kind_of_two
    first.begin_trial(OPEN)
    ways = [
        Pairs(how, against, agreed=1, spent_nusd=3) for how in ("exact", "json") for against in (SONNET, "")
    ]
    with ThreadPoolExecutor(4) as pool:
        for store in (first, second):
            for pairs in ways * 5:
                pool.submit(store.add_pairs, "T1", pairs)

    assert [(10, 10, 30)] * 4 == [(one.n, one.agreed, one.spent_nusd) for one in second.pairs_of("T1")]
    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(store.end_trial, "T1", concluded) for store in (first, second) * 2]
    assert [None] * 3 == sorted((one.result() for one in ended), key=lambda one: one is not None)[:3]
    assert {("mail", "haiku"): replace(TRIAL, n=40, agreed=40)} == first.evidence("").trials


def test_a_trials_row_is_money_and_no_call(store: Store) -> None:
    row = exchange(tag="mail", kind="trial", mode="trial", baseline=SONNET, baseline_how="assumed")
    spent = replace(row, spent_nusd=9, saved_nusd=-9, discarded_nusd=7, checks_nusd=2, result="error")
    write(store, Record(row), Record(replace(spent, id=new_id(NOW, rng))))

    (line,) = store.sums(Query(by=("mode",)))
    assert Line(("trial",), *[0] * 21) == replace(
        line, spent_nusd=0, saved_nusd=0, discarded_nusd=0, checks_nusd=0
    )
    assert (9, -9, 7, 2) == (line.spent_nusd, line.saved_nusd, line.discarded_nusd, line.checks_nusd)
    assert (None, {}) == (store.known(Load("mail"), NOW).baseline, store.latencies(Query()))


@kinds
def test_what_was_said_of_old_requests_goes_with_them(kind: str) -> None:
    clock = Clock()
    with opened(kind, clock) as store:
        old = exchange(at=NOW - 31 * DAY_S, task_type="old", session="s")
        young = exchange(at=NOW - 29 * DAY_S, task_type="extract", session="t")
        for row in (old, young):
            store.post(checked(row, {"haiku": True}, floor="opus"))
        store.add_feedback(word(old, ok=True), word(young, ok=True))
        store.post(escalated("opus", NOW - DAY_S, "today"))
        store.put_trial(replace(TRIAL, at=0.0))
        store.put_calibration(Calibration("s", "", 3.0), 0.0)
        clock.now += 120
        write(store, Record(exchange()))
        store.flush()

        found = store.evidence(CHECKS)
        assert ([("extract", "haiku")], 1, 1) == ([*found.rungs], len(found.trials), len(found.calibrations))
        assert [("", 0.0), ("", 0.0), ("opus", NOW - DAY_S)] == [
            floor_of(store, session, tenant) for session, tenant in (("s", ""), ("t", ""), ("today", "local"))
        ]
        again, kept = exchange(id=old.id, at=old.at), store.find(young.id)
        write(store, Record(again))
        assert Story(again, ()) == store.find(old.id)
        assert kept is not None
        assert (1, 1) == (len(kept.verdicts), len(kept.feedback))
