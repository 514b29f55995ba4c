"""What every `BudgetStore` must do; each implementation is one line of `KINDS`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from leastwise.budget import (
    Account,
    BudgetRule,
    Claim,
    Payer,
    Purse,
    Raise,
    Refusal,
    Standing,
    Window,
)
from leastwise.ledger import Certainty, Charge, Entry, Reserved, new_id
from leastwise.messages import Usage
from leastwise.sqlite import MEMORY
from leastwise.steps import Lease, Record, Settle
from leastwise.stores import BudgetStore, WindowLine
from leastwise.stores.postgres import PostgresStore
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.sql import SqlStore
from leastwise.stores.sqlite import SqliteStore
from tests import postgres
from tests.servers import age, valkey_url

NOW = 1_795_435_200.0  # 2026-11-23 12:00 UTC
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SILENCE_S = 21.0  # longer than any owner that lives is silent


@dataclass
class Clock:
    """The time of day, moved by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """Where budgets are kept, for one test, and the owners that use them.

    Attributes:
        make: Opens another owner on the same data.
        clock: What owners take for the time.
        pass_time: Lets time pass, by the clock that tells who is silent for too long.
    """

    make: Callable[[Clock], BudgetStore]
    clock: Clock = field(default_factory=Clock)
    pass_time: Callable[[float], None] = lambda _: None
    owners: list[BudgetStore] = field(default_factory=list)

    def another(self) -> BudgetStore:
        self.owners.append(self.make(self.clock))
        return self.owners[-1]


@contextmanager
def sqlite_file() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(lambda clock: SqliteStore(Path(folder, "leastwise.db"), clock=clock))
        yield moved(place)
        for owner in place.owners:
            owner.close()


@contextmanager
def sqlite_memory() -> Iterator[Place]:
    first = SqliteStore(MEMORY)  # another store in memory would have budgets of its own
    place = Place(lambda clock: SqlStore(first.database, first._dialect, clock=clock))
    yield moved(place)
    for owner in (*place.owners, first):
        owner.close()


@contextmanager
def in_postgres() -> Iterator[Place]:
    with postgres.database() as url:
        place = Place(lambda clock: PostgresStore(url, clock=clock))

        def pass_time(seconds: float) -> None:
            place.clock.now += seconds
            postgres.pass_time(url, seconds)

        place.pass_time = pass_time
        yield place
        for owner in place.owners:
            owner.close()


@contextmanager
def valkey() -> Iterator[Place]:
    url = valkey_url()
    place = Place(lambda _: RedisBudgets(url), pass_time=lambda seconds: age(url, seconds))
    yield place
    for owner in place.owners:
        owner.close()


def moved(place: Place) -> Place:
    """Have time pass by moving the clock that the owners use."""

    def pass_time(seconds: float) -> None:
        place.clock.now += seconds

    place.pass_time = pass_time
    return place


KINDS: dict[str, Callable[[], AbstractContextManager[Place]]] = {
    "sqlite file": sqlite_file,
    "sqlite memory": sqlite_memory,
    "postgres": in_postgres,
    "valkey": valkey,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with KINDS[request.param]() as made:
        yield made


@pytest.fixture
def store(place: Place) -> BudgetStore:
    return place.another()


rng = Random(20261124)
RULE = BudgetRule("any", 10**9)


def claim(account: str, limit_nusd: int, key: str = "2026-11-01T00:00Z", first: str = "") -> Claim:
    return Claim(Account(account, Window(key, first or key)), limit_nusd, RULE)


def lease(*claims: Claim, worst_nusd: int = 10, id_: str = "") -> Lease:
    charges = tuple(Charge(one.account.id, one.account.window.key, worst_nusd) for one in claims)
    made = Reserved(
        id_ or new_id(NOW, rng), "X", "answer", "anthropic", "claude-haiku-5-5", NOW, worst_nusd, charges
    )
    return Lease(made, claims, never)


def never(_: object) -> tuple[Settle, Record]:
    raise AssertionError


def settled(taken: Lease, cost_nusd: int, certainty: Certainty = "exact") -> Entry:
    """Return the entry of an attempt that cost this."""
    held = taken.reserved
    return replace(
        held.lost(),
        cost_nusd=cost_nusd,
        certainty=certainty,
        usage=Usage(7, 2),
        charges=tuple(replace(charge, nusd=cost_nusd) for charge in held.charges),
    )


def grant(store: BudgetStore, *claims: Claim, worst_nusd: int = 10) -> Lease:
    taken = lease(*claims, worst_nusd=worst_nusd)
    assert None is store.lease(taken, may_wait=True)
    return taken


def spend(store: BudgetStore, cost_nusd: int, *claims: Claim) -> Entry:
    entry = settled(grant(store, *claims, worst_nusd=cost_nusd), cost_nusd)
    store.settle(entry)
    return entry


def stands(store: BudgetStore, *claims: Claim) -> list[Standing | None]:
    found = store.standings([one.account for one in claims])
    return [found.get(one.account.id) for one in claims]


def held_windows(store: BudgetStore) -> dict[tuple[str, str], Standing]:
    """Return the windows that hold anything."""
    return {
        (line.account, line.window_key): line.standing
        for line in store.windows()
        if line.standing != Standing()
    }


def test_of_an_account_nobody_charged_nothing_is_known(store: BudgetStore) -> None:
    spend(store, 3, claim("b", 100))

    assert {"b": Standing(3, 0, 1)} == store.standings(
        [Account(id_, Window("2026-11-01T00:00Z", "2026-11-01T00:00Z")) for id_ in ("a", "b")]
    )
    assert {} == store.standings([])


def test_a_lease_may_fill_a_limit_and_not_exceed_it(store: BudgetStore) -> None:
    one = claim("a", 100)
    spend(store, 30, one)
    grant(store, one, worst_nusd=40)
    too_much, just_enough = lease(one, worst_nusd=31), lease(one, worst_nusd=30)

    assert Refusal(one, Standing(30, 40, 1)) == store.lease(too_much, may_wait=True)
    assert None is store.lease(just_enough, may_wait=True)
    assert [Standing(30, 70, 1)] == stands(store, one)
    assert Refusal(one, Standing(30, 70, 1)) == store.lease(lease(one, worst_nusd=1), may_wait=True)
    assert None is store.lease(lease(one, worst_nusd=0), may_wait=True)


def test_a_limit_of_nothing_lets_only_what_is_free_through(store: BudgetStore) -> None:
    one = claim("a", 0)

    assert Refusal(one, Standing()) == store.lease(lease(one, worst_nusd=1), may_wait=True)
    assert None is store.lease(lease(one, worst_nusd=0), may_wait=True)


def test_a_lease_is_granted_in_all_accounts_or_in_none(store: BudgetStore) -> None:
    wide, narrow, also_narrow = claim("a", 100), claim("b", 5), claim("c", 5)

    for claims in ((wide, narrow, also_narrow), (wide, also_narrow, narrow), (also_narrow, narrow, wide)):
        assert Refusal(narrow, Standing()) == store.lease(lease(*claims), may_wait=True)
    assert ({}, []) == (held_windows(store), store.reserved())

    grant(store, wide, narrow, also_narrow, worst_nusd=5)
    assert [Standing(0, 5, 0)] * 3 == stands(store, wide, narrow, also_narrow)


def test_each_caller_has_a_limit_of_its_own(store: BudgetStore) -> None:
    ordinary, critical = claim("a", 10), claim("a", 20)
    grant(store, ordinary)

    assert Refusal(ordinary, Standing(0, 10, 0)) == store.lease(lease(ordinary), may_wait=True)
    assert None is store.lease(lease(critical), may_wait=True)


def test_a_refused_lease_may_be_asked_for_again(store: BudgetStore) -> None:
    one = claim("a", 10)
    first, second = grant(store, one), lease(one)
    assert store.lease(second, may_wait=True)
    store.settle(settled(first, 0))

    assert None is store.lease(second, may_wait=True)
    assert [Standing(0, 10, 0)] == stands(store, one)


def test_what_was_leased_is_given_back_and_what_it_cost_is_charged(store: BudgetStore) -> None:
    one, other = claim("a", 100), claim("b", 100)
    taken, released = grant(store, one, other), grant(store, one)
    store.settle(settled(taken, 4), settled(released, 0))

    assert [Standing(4, 0, 1), Standing(4, 0, 1)] == stands(store, one, other)
    assert [] == store.reserved()


def test_what_cost_more_than_was_leased_is_charged_in_full(store: BudgetStore) -> None:
    one = claim("a", 10)
    store.settle(settled(grant(store, one), 25))

    assert [Standing(25, 0, 1)] == stands(store, one)
    assert Refusal(one, Standing(25, 0, 1)) == store.lease(lease(one, worst_nusd=1), may_wait=True)


def test_settling_gives_back_even_where_nobody_is_charged(store: BudgetStore) -> None:
    one = claim("a", 10)
    store.settle(replace(settled(grant(store, one), 0), charges=()))

    assert {} == held_windows(store)


def test_what_was_never_leased_is_charged_all_the_same(store: BudgetStore) -> None:
    one = claim("a", 10)
    store.settle(settled(lease(one), 4))

    assert [Standing(4, 0, 1)] == stands(store, one)


def test_twice_is_as_good_as_once(store: BudgetStore) -> None:
    one = claim("a", 100)
    taken = grant(store, one)
    assert None is store.lease(taken, may_wait=True)
    assert [Standing(0, 10, 0)] == stands(store, one)

    entry = settled(taken, 4)
    store.settle(entry, entry)
    store.settle(entry, replace(entry, cost_nusd=9, charges=(replace(entry.charges[0], nusd=9),)))

    assert [Standing(4, 0, 1)] == stands(store, one)


@pytest.mark.parametrize("cost_nusd", [0, 4])
def test_a_lease_that_comes_after_its_settlement_holds_nothing(store: BudgetStore, cost_nusd: int) -> None:
    one, other = claim("a", 100), claim("b", 1)
    late = lease(one)
    store.settle(settled(late, cost_nusd))

    assert None is store.lease(late, may_wait=True)
    assert None is store.lease(replace(late, claims=(one, other)), may_wait=True)
    assert [cost_nusd] == [standing.spent_nusd for standing in held_windows(store).values()] or not cost_nusd
    assert [] == store.reserved()


def test_a_rolling_window_counts_its_slices_from_the_first_to_the_last(store: BudgetStore) -> None:
    for key, cost_nusd in (
        ("2026-11-23T10:00Z", 1),
        ("2026-11-23T10:01Z", 20),
        ("2026-11-23T10:02Z", 300),
        ("2026-11-23T10:03Z", 4000),
    ):
        spend(store, cost_nusd, claim("a", 10**6, key))
        spend(store, 7, claim("aa", 10**6, key))
    grant(store, claim("a", 10**6, "2026-11-23T10:02Z"), worst_nusd=50_000)
    rolling = claim("a", 60_000, key="2026-11-23T10:02Z", first="2026-11-23T10:01Z")

    assert [Standing(320, 50_000, 2)] == stands(store, rolling)
    assert Refusal(rolling, Standing(320, 50_000, 2)) == store.lease(
        lease(rolling, worst_nusd=9_681), may_wait=True
    )
    assert None is store.lease(lease(rolling, worst_nusd=9_680), may_wait=True)


def test_the_window_of_the_lease_is_charged_whenever_it_is_settled(store: BudgetStore) -> None:
    before, after = claim("a", 10, "2026-11-01T00:00Z"), claim("a", 10, "2026-12-01T00:00Z")
    taken = grant(store, before)
    grant(store, after)
    store.settle(settled(taken, 3))

    assert [
        WindowLine("a", "2026-11-01T00:00Z", Standing(3, 0, 1)),
        WindowLine("a", "2026-12-01T00:00Z", Standing(0, 10, 0)),
    ] == store.windows()
    assert store.windows()[1:] == store.windows(since="2026-12-01T00:00Z")
    assert [] == store.windows(since="2026-12-01T00:01Z")


def test_what_is_reserved_tells_all_that_its_entry_needs(store: BudgetStore) -> None:
    late, early = lease(claim("a", 99), claim("b", 99)), lease(claim("a b|tag=%C3%A4", 99))
    early = replace(early, reserved=replace(early.reserved, at=NOW - 5, purpose="judge", exchange_id="E"))
    for taken in (late, early):
        store.lease(taken, may_wait=True)
    found = store.reserved()

    assert [early.reserved, late.reserved] == [replace(one, owner="") for one in found]
    assert [early.reserved.lost(), late.reserved.lost()] == [one.lost() for one in found]
    assert [True] == list({one.owner != "" for one in found})


def test_a_lost_entry_is_corrected_by_who_knows_better(store: BudgetStore) -> None:
    one, other = claim("a", 100), claim("b", 100)
    taken = grant(store, one)
    store.settle(taken.reserved.lost())
    assert [Standing(10, 0, 1)] == stands(store, one)

    elsewhere = replace(settled(taken, 4), charges=(Charge("a", "2026-11-01T00:00Z", 4), *charges(other, 4)))
    store.settle(elsewhere)
    store.settle(replace(settled(taken, 7)))

    assert [Standing(4, 0, 1), Standing(4, 0, 1)] == stands(store, one, other)


def charges(one: Claim, nusd: int) -> tuple[Charge, ...]:
    return (Charge(one.account.id, one.account.window.key, nusd),)


def test_a_lost_entry_that_cost_nothing_was_no_call(store: BudgetStore) -> None:
    taken = grant(store, claim("a", 100))
    store.settle(taken.reserved.lost())
    store.settle(settled(taken, 0))

    assert {} == held_windows(store)


def test_a_lost_entry_never_overrides_what_is_known(store: BudgetStore) -> None:
    one = claim("a", 100)
    taken = grant(store, one)
    store.settle(settled(taken, 4, "estimated"))
    store.settle(taken.reserved.lost())

    assert [Standing(4, 0, 1)] == stands(store, one)


def test_a_limit_holds_when_many_ask_at_once(store: BudgetStore) -> None:
    accounts = [claim("a", 1000), claim("b", 10**6), claim("c", 700)]

    def work(number: int) -> int:
        mine = Random(number)
        granted = 0
        for _ in range(40):
            taken = lease(*accounts, worst_nusd=7)
            refusal = store.lease(taken, may_wait=True)
            if refusal is None:
                granted += 1
                if mine.random() < 0.5:
                    store.settle(settled(taken, 7))
            else:
                assert accounts[2] == refusal.claim
                standing = refusal.standing
                assert standing.spent_nusd + standing.leased_nusd + 7 > 700
        return granted

    with ThreadPoolExecutor(8) as pool:
        granted = sum(pool.map(work, range(8)))

    assert 100 == granted
    assert [700] * 3 == [one.spent_nusd + one.leased_nusd for one in stands(store, *accounts) if one]


def test_leases_and_settlements_of_many_at_once_add_up(place: Place) -> None:
    owners = [place.another(), place.another()]

    def work(number: int) -> int:
        mine, spent = Random(number), 0
        for turn in range(25):
            claims = mine.sample([claim("a", 10**9), claim("b", 10**9), claim("c", 10**9)], 2)
            taken = grant(owners[turn % 2], *claims, worst_nusd=100)
            cost_nusd = mine.randrange(100)
            owners[number % 2].settle(settled(taken, cost_nusd))
            spent += cost_nusd
        return spent

    with ThreadPoolExecutor(6) as pool:
        spent = sum(pool.map(work, range(6)))
    lines = [line.standing for line in owners[0].windows()]

    assert 2 * spent == sum(standing.spent_nusd for standing in lines)
    assert {0} == {standing.leased_nusd for standing in lines}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sqlite memory"])
def test_leases_outlast_the_store_that_made_them(kind: str) -> None:
    with KINDS[kind]() as place:
        store = place.another()
        taken = grant(store, claim("a", 10))
        store.close()
        other = place.another()

        assert [taken.reserved] == [replace(one, owner="") for one in other.reserved()]
        other.settle(settled(taken, 1))
        assert [Standing(1, 0, 1)] == stands(other, claim("a", 10))


def test_the_leases_of_who_is_silent_for_too_long_are_dead(place: Place) -> None:
    silent, mine = place.another(), place.another()
    lost = grant(silent, claim("a", 100))
    grant(mine, claim("a", 100))
    mine.settle(settled(grant(silent, claim("a", 100)), 1))
    assert [] == mine.dead()

    place.pass_time(SILENCE_S)
    mine.beat()
    assert [lost.reserved] == [replace(one, owner="") for one in mine.dead()]

    silent.beat()
    assert [] == mine.dead()


def test_nobody_is_dead_to_itself(place: Place) -> None:
    mine, other = place.another(), place.another()
    grant(mine, claim("a", 100))
    place.pass_time(SILENCE_S)

    assert ([], 1) == (mine.dead(), len(other.dead()))


def test_a_lease_says_that_its_owner_lives(place: Place) -> None:
    mine, other = place.another(), place.another()
    grant(mine, claim("a", 100))
    place.pass_time(SILENCE_S)
    grant(mine, claim("a", 100))

    assert [] == other.dead()


def test_each_store_is_an_owner(place: Place) -> None:
    owners = [place.another(), place.another()]
    for owner in owners:
        for _ in range(2):
            grant(owner, claim("a", 100))

    assert [2, 2] == sorted(
        [one.owner for one in owners[0].reserved()].count(name)
        for name in {one.owner for one in owners[0].reserved()}
    )


def test_a_thing_is_said_once_of_each_window(store: BudgetStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: store.first_to("a", "2026-11", "50%"), range(24)))

    assert 1 == said.count(True)
    assert [True, True, True, False] == [
        store.first_to(*one)
        for one in (
            ("a", "2026-12", "50%"),
            ("a", "2026-11", "70%"),
            ("b", "2026-11", "50%"),
            ("b", "2026-11", "50%"),
        )
    ]


def test_all_that_was_given_is_kept_oldest_first(store: BudgetStore) -> None:
    assert [] == store.raises()
    late = Raise("team a", 5 * 10**9, NOW + DAY_S, "end of the quarter — ok", "ann", NOW + 1)
    early = replace(late, nusd=-1, at=NOW)
    for one in (late, early, late):
        store.add_raise(one)

    assert [early, late, late] == store.raises()


def test_what_a_window_has_spent_can_be_corrected(store: BudgetStore) -> None:
    one = claim("a", 10)
    spend(store, 8, one)
    grant(store, one, worst_nusd=2)
    store.correct("a", "2026-11-01T00:00Z", -3)
    store.correct("new", "2026-11-01T00:00Z", 3)

    assert [Standing(5, 2, 1)] == stands(store, one)
    assert [Standing(3, 0, 0)] == stands(store, claim("new", 10))
    assert None is store.lease(lease(one, worst_nusd=3), may_wait=True)


def test_more_accounts_than_a_statement_has_parameters(store: BudgetStore) -> None:
    store.settle(*(settled(lease(claim(f"session {number}", 10)), number) for number in range(1, 300)))
    asked = [claim(f"session {number}", 10) for number in range(1200)]

    assert [Standing(number, 0, 1) if 0 < number < 300 else None for number in range(1200)] == stands(
        store, *asked
    )


RULES = (
    BudgetRule("day", 60, scope=("tag",), window="day", reserve=cast("Any", 0)),
    BudgetRule("hour", 50, window="hour", rolling=True, cap="block", reserve=cast("Any", 0)),
    BudgetRule("ever", 200, window="total", critical_limit_nusd=50, reserve=cast("Any", 0)),
)
amounts = st.integers(0, 40)


class Budgets(RuleBasedStateMachine):
    """Owners that lease, settle, die and are recovered, beside a plain model of the same."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._entered = KINDS[kind]()
        self.place = self._entered.__enter__()
        self.owners = [self.place.another(), self.place.another()]
        self.names = count()
        self.raised: dict[str, int] = {}
        self.accounts: dict[tuple[str, str], list[int]] = {}  # spent, reserved, calls
        self.open: dict[str, tuple[Lease, BudgetStore]] = {}
        self.made: dict[str, Lease] = {}
        self.entries: dict[str, Entry] = {}

    def teardown(self) -> None:
        self._entered.__exit__(None, None, None)

    def add(self, charge: Charge, at: int, nusd: int) -> None:
        window = self.accounts.setdefault((charge.budget_id, charge.window_key), [0, 0, 0])
        window[at] += nusd

    def standing(self, account: Account) -> Standing:
        window = account.window
        slices = [
            sums
            for (id_, key), sums in self.accounts.items()
            if id_ == account.id and window.first <= key <= window.key
        ]
        return Standing(*(sum(sums[at] for sums in slices) for at in range(3)))

    def refusal(self, taken: Lease) -> Refusal | None:
        worst_nusd = taken.reserved.worst_nusd
        for one in taken.claims:
            held = self.standing(one.account)
            if held.spent_nusd + held.leased_nusd + worst_nusd > one.limit_nusd:
                return Refusal(one, held)
        return None

    @rule(
        who=st.integers(0, 1),
        worst_nusd=amounts,
        tag=st.sampled_from("ab"),
        critical=st.booleans(),
        covered=st.sets(st.sampled_from(RULES), min_size=1),
    )
    def lease(self, who: int, worst_nusd: int, tag: str, *, critical: bool, covered: set[BudgetRule]) -> None:
        rules = tuple(one for one in RULES if one in covered)
        purse = Purse(rules, Payer(tag=tag), self.place.clock.now, is_critical=critical, raised=self.raised)
        taken = lease(*purse.claims("m"), worst_nusd=worst_nusd, id_=self.name())
        expected = self.refusal(taken)
        self.made[taken.reserved.id] = taken

        assert expected == self.owners[who].lease(taken, may_wait=True)
        if expected is None:
            self.hold(taken, self.owners[who])

    def name(self) -> str:
        return f"{new_id(NOW, rng)[:10]}{next(self.names):016d}"  # of that time, and the same in each run

    def hold(self, taken: Lease, owner: BudgetStore) -> None:
        self.open[taken.reserved.id] = (taken, owner)
        for charge in taken.reserved.charges:
            self.add(charge, 1, taken.reserved.worst_nusd)

    @precondition(lambda self: self.made)
    @rule(
        data=st.data(),
        who=st.integers(0, 1),
        cost_nusd=amounts,
        certainty=st.sampled_from(["exact", "estimated", "lost"]),
    )
    def settle(self, data: st.DataObject, who: int, cost_nusd: int, certainty: Certainty) -> None:
        taken = self.made[data.draw(st.sampled_from(list(self.made)))]
        self.write(self.owners[who], settled(taken, cost_nusd, certainty))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), who=st.integers(0, 1))
    def release(self, data: st.DataObject, who: int) -> None:
        taken, _ = self.open[data.draw(st.sampled_from(list(self.open)))]
        self.write(self.owners[who], settled(taken, 0))

    def write(self, store: BudgetStore, entry: Entry) -> None:
        store.settle(entry)
        before = self.entries.get(entry.id)
        if before and (before.certainty != "lost" or entry.certainty == "lost"):
            return
        if entry.id in self.open:
            taken, _ = self.open.pop(entry.id)
            for charge in taken.reserved.charges:
                self.add(charge, 1, -taken.reserved.worst_nusd)
        for sign, each in ((-1, before), (1, entry)):
            for charge in each.charges if each else ():
                self.add(charge, 0, sign * charge.nusd)
                self.add(charge, 2, sign * (charge.nusd > 0))
        self.entries[entry.id] = entry

    @precondition(lambda self: self.made)
    @rule(data=st.data(), who=st.integers(0, 1))
    def lease_again(self, data: st.DataObject, who: int) -> None:
        taken = self.made[data.draw(st.sampled_from(list(self.made)))]
        is_done = taken.reserved.id in self.open or taken.reserved.id in self.entries
        expected = None if is_done else self.refusal(taken)

        assert expected == self.owners[who].lease(taken, may_wait=True)
        if expected is None and not is_done:
            self.hold(taken, self.owners[who])

    @rule(who=st.integers(0, 1))
    def crash_and_recover(self, who: int) -> None:
        gone, survivor = self.owners[who], self.owners[1 - who]
        self.place.pass_time(SILENCE_S)
        survivor.beat()
        dead = survivor.dead()

        assert {id_ for id_, (_, owner) in self.open.items() if owner is gone} == {one.id for one in dead}
        for one in dead:
            self.write(survivor, one.lost())
        self.owners[who] = self.place.another()

    @rule(hours=st.floats(-3, 30))
    def step_the_clock(self, hours: float) -> None:
        self.place.clock.now += hours * HOUR_S
        for owner in self.owners:
            owner.beat()

    @rule(budget=st.sampled_from([one.name for one in RULES]), nusd=amounts)
    def raise_a_limit(self, budget: str, nusd: int) -> None:
        self.raised = {**self.raised, budget: self.raised.get(budget, 0) + nusd}

    @invariant()
    def windows_are_as_in_the_model(self) -> None:
        expected = {at: Standing(*sums) for at, sums in self.accounts.items() if any(sums)}

        assert expected == held_windows(self.owners[0])
        assert set(self.open) == {one.id for one in self.owners[1].reserved()}


@kinds
def test_whatever_happens_accounts_are_as_in_a_plain_model(kind: str) -> None:
    run_state_machine_as_test(
        cast("Any", lambda: Budgets(kind)),  # takes any function that makes one
        settings=settings(max_examples=25 if "sqlite" in kind else 10, stateful_step_count=25),
    )
