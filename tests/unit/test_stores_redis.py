"""What is Redis's own: failing fast and coming back, secrets, names of keys, ends, forks and processes."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import redis

from leastwise.budget import Account, BudgetRule, Claim, Raise, Refusal, Standing, Window
from leastwise.cache import Found, Stored
from leastwise.errors import BudgetUnavailableError, StoreError
from leastwise.ledger import Charge, Entry, Reserved, new_id
from leastwise.steps import Lease, Record, Settle
from leastwise.stores import WindowLine
from leastwise.stores.redis import RedisBudgets, RedisCache, server
from tests.kit import NOW
from tests.servers import HOST, Valkey, age, free_port, prefix_of, valkey_url

DAY_S = 86_400
KEY = "2026-11-01T00:00Z"
RULE = BudgetRule("any", 10**9)
SECRET = "s3cret"
rng = Random(20261124)


@pytest.fixture
def url() -> str:
    return valkey_url()


@pytest.fixture
def budgets(url: str) -> Iterator[RedisBudgets]:
    with closing(RedisBudgets(url)) as made:
        yield made


@pytest.fixture
def cache(url: str) -> Iterator[RedisCache]:
    with closing(RedisCache(url, clock=lambda: NOW)) as made:
        yield made


@pytest.fixture
def client() -> Iterator[Any]:
    """Return a plain client of the shared server, to look inside."""
    with closing(redis.Redis.from_url(valkey_url().partition("?")[0], decode_responses=True)) as made:
        yield made


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Return a server that this test may end."""
    server = Valkey(password=SECRET)
    yield server
    server.kill()


def claim(account: str = "a", limit_nusd: int = 1000, key: str = KEY, rule: BudgetRule = RULE) -> Claim:
    return Claim(Account(account, Window(key, key)), limit_nusd, rule)


def lease(*claims: Claim, worst_nusd: int = 10) -> Lease:
    charges = tuple(Charge(one.account.id, one.account.window.key, worst_nusd) for one in claims)
    made = Reserved(new_id(NOW, rng), "X", "answer", "anthropic", "m", NOW, worst_nusd, charges)
    return Lease(made, claims, never)


def never(_: object) -> tuple[Settle, Record]:
    raise AssertionError


def settled(taken: Lease, cost_nusd: int) -> Entry:
    charges = tuple(replace(charge, nusd=cost_nusd) for charge in taken.reserved.charges)
    return replace(taken.reserved.lost(), cost_nusd=cost_nusd, certainty="exact", charges=charges)


def spend(budgets: RedisBudgets, nusd: int, *claims: Claim) -> None:
    budgets.settle(settled(lease(*claims), nusd))


def stored(body: bytes = b"{}", **given: Any) -> Stored:
    facts = Stored(body, False, "m", "haiku", "anthropic", "X", "req_1", "mail", NOW)  # noqa: FBT003
    return replace(facts, **given)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


# --- a server that is gone -------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_found_out_at_once_and_used_again_when_it_is_back(valkey: Valkey) -> None:
    with closing(RedisBudgets(valkey.url())) as budgets:
        assert None is budgets.lease(lease(claim()), may_wait=True)
        valkey.kill()
        for _ in range(2):
            with within(1), pytest.raises(BudgetUnavailableError) as caught:
                budgets.lease(lease(claim()), may_wait=True)
            assert f"{HOST}:{valkey.port}" in str(caught.value)
            assert 503 == caught.value.http_status

        valkey.start()
        assert None is budgets.lease(lease(claim()), may_wait=True)
        assert 1 == len(budgets.reserved())  # it came back with nothing


def test_a_server_that_hangs_is_not_waited_for(valkey: Valkey) -> None:
    with closing(RedisBudgets(valkey.url())) as budgets, closing(RedisCache(valkey.url())) as cache:
        valkey.pause()
        asked = lease(claim())
        with within(1), pytest.raises(BudgetUnavailableError):
            budgets.lease(asked, may_wait=True)
        with within(1), pytest.raises(StoreError):
            cache.look_up("k", leads=True)
        with within(1), pytest.raises(StoreError):
            RedisBudgets(valkey.url())
        valkey.resume()

        budgets.settle(settled(asked, 0))  # whether it was granted nobody knows
        assert [] == budgets.reserved()
        assert (
            {} == budgets.standings([claim().account])
            or Standing() == budgets.standings([claim().account])["a"]
        )


def test_many_threads_find_out_together(valkey: Valkey) -> None:
    with closing(RedisBudgets(valkey.url())) as budgets:
        valkey.pause()

        def ask(_: int) -> str:
            with pytest.raises(BudgetUnavailableError) as caught:
                budgets.lease(lease(claim()), may_wait=True)
            return str(caught.value)

        with ThreadPoolExecutor(100) as pool, within(2):
            assert 100 == len(list(pool.map(ask, range(100))))
        valkey.resume()


def test_who_waits_for_a_hanging_server_does_not_wait_in_turn(valkey: Valkey) -> None:
    with closing(RedisBudgets(valkey.url())) as budgets:
        valkey.pause()

        def ask(_: int) -> None:
            with pytest.raises(BudgetUnavailableError, match="cannot be asked"):
                budgets.lease(lease(claim()), may_wait=True)

        with ThreadPoolExecutor(2) as pool, within(1.5):  # as few threads as an event loop may have
            assert 60 == len(list(pool.map(ask, range(60))))
        valkey.resume()
        time.sleep(server._SILENCE_S)
        assert None is budgets.lease(lease(claim()), may_wait=True)


def test_a_connection_that_was_closed_is_made_anew(client: Any, budgets: RedisBudgets) -> None:
    taken = lease(claim())
    assert None is budgets.lease(taken, may_wait=True)
    client.client_kill_filter(_type="normal", skipme=True)

    budgets.settle(settled(taken, 1))
    assert {"a": Standing(1, 0, 1)} == budgets.standings([claim().account])


def test_what_cannot_be_reached_at_the_start_is_refused(valkey: Valkey) -> None:
    url = valkey.url()
    valkey.kill()
    for make in (RedisBudgets, RedisCache):
        with within(1), pytest.raises(StoreError, match=f"{HOST}:{valkey.port} cannot be asked: .*refused"):
            make(url)
    valkey.start()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace(SECRET, "wr0ng"), "invalid username-password pair"),
        (lambda url: url.replace(f":{SECRET}@", ""), "Authentication required"),
        (lambda url: url.replace(SECRET, "s3c/ret"), "cannot be read"),
        (lambda url: url.replace(SECRET, "s3c#ret"), "cannot be read"),
        (lambda url: url.replace(SECRET, "[s3c"), "cannot be read"),
        (lambda url: url.replace("/0?", "/0?db=s3cret&"), "cannot be read"),
        (lambda url: url.replace("/0?", "/team?"), "cannot be read"),
        (lambda url: url.replace("redis:", "http:"), "cannot be read"),
        (lambda url: url + "{x}", "cannot be read"),
        (lambda url: url + "&colour=blue", "a setting that does not exist: .*colour"),
        (lambda url: url.replace("/0?", "/9999?"), "DB index is out of range"),
    ],
    ids=range(11),
)
def test_what_is_wrong_is_said_without_the_password(
    valkey: Valkey, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        RedisBudgets(change(valkey.url()))

    told = "".join(traceback.format_exception(caught.value)).partition("\nTraceback")[0]
    told = "\n".join(line for line in told.splitlines() if "RedisBudgets(change(" not in line)
    for secret in ("s3c", "wr0ng", "[s3c"):
        assert secret not in told
        assert secret not in str(caught.value)


def test_a_failure_later_says_no_password_either(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with closing(RedisBudgets(valkey.url())) as budgets:
        valkey.kill()
        with pytest.raises(BudgetUnavailableError) as caught:
            budgets.beat()
    valkey.start()

    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301 - our own


def test_what_a_newer_version_wrote_is_left_alone(url: str, client: Any) -> None:
    client.set(f"{prefix_of(url)}schema", "2")

    with pytest.raises(StoreError, match=r"another version of Leastwise .*upgrade"):
        RedisBudgets(url)


def test_a_server_that_throws_counters_away_is_warned_of(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    RedisBudgets(valkey.url()).close()
    assert "" == caplog.text
    with closing(redis.Redis.from_url(valkey.url().partition("?")[0])) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")

    RedisBudgets(valkey.url()).close()
    assert "maxmemory-policy to noeviction" in caplog.text


def test_a_user_who_may_not_ask_for_the_servers_settings_can_use_it(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    admin: Any = redis.Redis.from_url(valkey.url().partition("?")[0])
    with closing(admin):
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all", "-@dangerous", "-info")
    with closing(RedisBudgets(valkey.url().replace(f":{SECRET}", "app:pass"))) as budgets:
        assert None is budgets.lease(lease(claim()), may_wait=True)
    assert "" == caplog.text


# --- keys ------------------------------------------------------------------------------------------------


def use_everything(budgets: RedisBudgets, cache: RedisCache) -> None:
    rolling = Claim(Account("roll", Window("b", "a")), 1000, RULE)
    taken = lease(claim("a"), rolling)
    assert None is budgets.lease(taken, may_wait=True)
    assert budgets.lease(lease(claim("a", 5)), may_wait=True)
    spend(budgets, 5, claim("b"), claim("c", key="always"))
    budgets.settle(lease(claim("a")).reserved.lost())
    assert budgets.first_to("a", KEY, "50%")
    budgets.add_raise(Raise("a", 1, NOW, "why", "who", NOW))
    budgets.correct("z", KEY, 3)
    budgets.beat()
    assert [] == budgets.dead()
    assert 5 == len(budgets.windows())
    assert 1 == len(budgets.raises())
    cache.save("k" * 64, stored())
    assert Found(stored()) == cache.look_up("k" * 64, leads=True)
    for key in ("f", "g"):
        assert cache.look_up(key, leads=True).is_leading
    cache.land("g", frees=True)
    assert 1 == cache.stats().entries
    assert [("k" * 64, stored(hits=1))] == cache.entries()


def test_all_keys_of_a_namespace_have_its_hash_tag(url: str, client: Any) -> None:
    before = {name for name in client.keys("*") if not name.startswith(prefix_of(url))}
    with closing(RedisBudgets(url)) as budgets, closing(RedisCache(url, clock=lambda: NOW)) as cache:
        use_everything(budgets, cache)

    assert before == {name for name in client.keys("*") if not name.startswith(prefix_of(url))}
    assert 15 < len(client.keys(f"{prefix_of(url)}*"))


def test_a_shard_of_a_cluster_will_do() -> None:
    server = Valkey(**{"cluster-enabled": "yes", "cluster-port": str(free_port())})
    try:
        client: Any = redis.Redis(HOST, server.port)
        with closing(client):
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while "ok" != client.execute_command("CLUSTER INFO")["cluster_state"]:
                time.sleep(0.01)
        url = server.url()
        with closing(RedisBudgets(url)) as budgets, closing(RedisCache(url, clock=lambda: NOW)) as cache:
            use_everything(budgets, cache)
    finally:
        server.kill()


def test_namespaces_and_databases_do_not_meet(url: str) -> None:
    others = (valkey_url(), url.replace("/0?", "/1?"))
    with closing(RedisBudgets(url)) as budgets:
        spend(budgets, 5, claim())
    for other in others:
        with closing(RedisBudgets(other)) as budgets:
            assert {} == budgets.standings([claim().account])


def test_a_url_without_a_namespace_means_the_default_one(valkey: Valkey) -> None:
    with closing(RedisBudgets(valkey.url().partition("?")[0])) as budgets:
        spend(budgets, 5, claim())
    with closing(RedisBudgets(valkey.url("default"))) as budgets:
        assert {"a": Standing(5, 0, 1)} == budgets.standings([claim().account])


def test_a_socket_will_do_and_settings_may_be_given(tmp_path: Any) -> None:
    path = tmp_path / "v.sock"
    server = Valkey(unixsocket=str(path))
    try:
        with closing(RedisBudgets(f"unix://{path}?namespace=x&socket_timeout=2")) as budgets:
            assert (str(path), 2.0) == (
                budgets._server.where,
                budgets._server.client.connection_pool.connection_kwargs["socket_timeout"],
            )
            assert None is budgets.lease(lease(claim()), may_wait=True)
    finally:
        server.kill()


# --- ends ------------------------------------------------------------------------------------------------


def test_a_settled_id_is_remembered_for_two_days(url: str, client: Any, budgets: RedisBudgets) -> None:
    late = lease(claim())
    budgets.settle(settled(late, 5))
    (name,) = client.keys(f"{prefix_of(url)}settled:*")
    assert 2 * DAY_S - 60 <= client.ttl(name) <= 2 * DAY_S

    age(url, 2 * DAY_S - 60)
    assert None is budgets.lease(late, may_wait=True)
    assert [] == budgets.reserved()
    age(url, 61)
    assert 0 == client.exists(name)


def test_windows_that_ended_long_ago_are_forgotten(url: str, client: Any, budgets: RedisBudgets) -> None:
    spend(budgets, 5, claim("a", key="2026-09"), claim("b", key="always"))
    held = lease(claim("c", key="2026-09"))
    assert None is budgets.lease(held, may_wait=True)
    ends = f"{prefix_of(url)}ends"
    now_ms = client.time()[0] * 1000
    left = {
        name.replace("\0", " "): (at - now_ms) / 1000 / DAY_S
        for name, at in client.zrange(ends, 0, -1, withscores=True)
    }
    assert {"a 2026-09": 62, "c 2026-09": 62} == {name: round(days) for name, days in left.items()}

    for name in client.zrange(ends, 0, -1):
        client.zincrby(ends, -63 * DAY_S * 1000, name)
    spend(budgets, 5, claim("a", key="2026-11"))
    assert [("a", "2026-11"), ("b", "always"), ("c", "2026-09")] == [
        (line.account, line.window_key) for line in budgets.windows()
    ]
    budgets.settle(settled(held, 5))
    spend(budgets, 5, claim("a", key="2026-12"))
    assert 3 == len(budgets.windows())
    assert {"spent": 3, "calls": 3, "leased": 0} == {
        name: client.hlen(f"{prefix_of(url)}{name}") for name in ("spent", "calls", "leased")
    }


def test_slices_of_rolling_windows_are_forgotten_sooner(url: str, client: Any, budgets: RedisBudgets) -> None:
    for span in ("hour", "day", "week", "month"):
        rule = BudgetRule(span, 10**9, window=span, rolling=True)
        assert None is budgets.lease(lease(claim(span, rule=rule)), may_wait=True)
    now_ms = client.time()[0] * 1000
    ends = client.zrange(f"{prefix_of(url)}ends", 0, -1, withscores=True)

    assert {"hour": 3, "day": 4, "week": 16, "month": 62} == {
        name.partition("\0")[0]: round((at - now_ms) / 1000 / DAY_S) for name, at in ends
    }


def test_what_was_said_is_remembered_as_long_as_its_window(
    url: str, client: Any, budgets: RedisBudgets
) -> None:
    for key in (KEY, "always"):
        assert budgets.first_to("a", key, "50%")
    prefix = f"{prefix_of(url)}said:a\0"

    assert 62 * DAY_S - 60 <= client.ttl(f"{prefix}{KEY}\x0050%") <= 62 * DAY_S
    assert -1 == client.ttl(f"{prefix}always\x0050%")


def test_a_correction_of_what_was_forgotten_changes_nothing(
    url: str, client: Any, budgets: RedisBudgets
) -> None:
    taken = lease(claim())
    budgets.settle(taken.reserved.lost())
    for name in ("spent", "calls"):
        client.delete(f"{prefix_of(url)}{name}")
    budgets.settle(settled(taken, 4))

    assert {"a": Standing(4, 0, 1)} == budgets.standings([claim().account])


def test_a_dead_lease_is_found_until_somebody_settles_it(url: str) -> None:
    with closing(RedisBudgets(url)) as silent, closing(RedisBudgets(url)) as mine:
        taken = lease(claim())
        assert None is silent.lease(taken, may_wait=True)
        age(url, 30)
        assert [taken.reserved.id] * 2 == [one.id for _ in range(2) for one in mine.dead()]
        mine.settle(taken.reserved.lost())
        assert [] == mine.dead()


def test_owners_that_hold_nothing_are_forgotten_once_they_are_silent(url: str, client: Any) -> None:
    with closing(RedisBudgets(url)) as silent, closing(RedisBudgets(url)) as mine:
        silent.beat()
        mine.beat()
        age(url, 30)
        mine.beat()
        assert [] == mine.dead()

    assert [mine._owner] == client.zrange(f"{prefix_of(url)}owners", 0, -1)


# --- numbers ---------------------------------------------------------------------------------------------


def test_sums_are_exact_to_the_largest_limit_and_refused_beyond(budgets: RedisBudgets) -> None:
    most = 2**53 - 1
    one = claim("a", 10**17)
    spend(budgets, most - 10, one)
    assert {"a": Standing(most - 10, 0, 1)} == budgets.standings([one.account])

    refused = Refusal(one, Standing(most - 10, 0, 1))
    assert refused == budgets.lease(lease(one, worst_nusd=11), may_wait=True)
    assert None is budgets.lease(lease(one, worst_nusd=9), may_wait=True)
    assert None is budgets.lease(lease(one, worst_nusd=1), may_wait=True)
    assert Refusal(one, Standing(most - 10, 10, 1)) == budgets.lease(lease(one, worst_nusd=1), may_wait=True)
    assert [WindowLine("a", KEY, Standing(most - 10, 10, 1))] == budgets.windows()


@pytest.mark.parametrize("nusd", [2**53, 2**70, -1])
def test_what_no_counter_can_take_is_refused_whole(budgets: RedisBudgets, nusd: int) -> None:
    taken = lease(claim("a"), claim("b"))
    assert None is budgets.lease(taken, may_wait=True)
    entry = replace(settled(taken, nusd), charges=(Charge("a", KEY, 1), Charge("b", KEY, nusd)))

    with pytest.raises(StoreError, match=f"cannot keep a value: {nusd} nano-dollars"):
        budgets.settle(entry)
    assert [taken.reserved] == [replace(one, owner="") for one in budgets.reserved()]


def test_names_that_cannot_be_kept_are_refused(budgets: RedisBudgets, cache: RedisCache) -> None:
    with pytest.raises(StoreError, match="cannot keep a value"):
        budgets.lease(lease(claim("\ud800")), may_wait=True)
    with pytest.raises(StoreError, match="cannot keep a value"):
        cache.save("k", stored(tag="\ud800"))


def test_a_limit_holds_among_many_threads(budgets: RedisBudgets) -> None:
    def ask(_: int) -> int:
        return sum(
            budgets.lease(lease(claim("a", 5000), worst_nusd=1), may_wait=True) is None for _ in range(375)
        )

    with ThreadPoolExecutor(16) as pool:
        assert 5000 == sum(pool.map(ask, range(16)))
    assert {"a": Standing(0, 5000, 0)} == budgets.standings([claim().account])


ANOTHER = """
import sys
from leastwise.stores.redis import RedisBudgets
from tests.unit.test_stores_redis import claim, lease, rng, settled

rng.seed(sys.argv[2])  # ids of its own
budgets = RedisBudgets(sys.argv[1])
taken = [one for one in (lease(claim("a", 600), claim("b", 10**6)) for _ in range(400))
         if budgets.lease(one, may_wait=True) is None]
budgets.settle(*(settled(one, 10) for one in taken[::2]))
print(len(taken))
"""


def test_a_limit_holds_among_processes(url: str, budgets: RedisBudgets) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", ANOTHER, url, name], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for name in ("one", "other")
    ]
    granted = [int(one.communicate(timeout=60)[0]) for one in started]
    standings = budgets.standings([claim("a").account, claim("b").account])

    assert 60 == sum(granted)
    assert [600, 600] == [one.spent_nusd + one.leased_nusd for one in standings.values()]
    assert len(budgets.reserved()) == 60 - sum(standing.calls for standing in (standings["a"],))


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_a_child_is_an_owner_of_its_own_with_connections_of_its_own(
    budgets: RedisBudgets, cache: RedisCache
) -> None:
    assert None is budgets.lease(lease(claim()), may_wait=True)
    assert cache.look_up("k", leads=True).is_leading
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which counts nothing
        rng.seed("child")  # ids of its own
        is_right = all(
            budgets.lease(lease(claim()), may_wait=True) is None
            and not cache.look_up("k", leads=True).is_leading
            for _ in range(50)
        )
        cache.land("k")  # its parent's, not its own
        os._exit(0 if is_right and not cache._flights.led else 1)
    for _ in range(49):
        assert None is budgets.lease(lease(claim()), may_wait=True)

    assert (child, 0) == os.waitpid(child, 0)
    owners = [one.owner for one in budgets.reserved()]
    assert [50, 50] == [owners.count(name) for name in sorted(set(owners))]
    assert Found() == cache.look_up("k", leads=True)


# --- answers ---------------------------------------------------------------------------------------------


def test_an_answer_ends_on_the_server_an_hour_after_its_time(url: str, client: Any) -> None:
    with closing(RedisCache(url, ttl_s=100, clock=lambda: NOW)) as cache:
        cache.save("k", stored())
        assert 3690 < client.ttl(f"{prefix_of(url)}answer:k") <= 3700
        age(url, 3701)

        assert (1, 0) == (cache.stats().entries, len(cache.entries()))
        assert None is cache.get("k")
        assert Found() == cache.look_up("k", leads=False)  # which mends what is told of it
        assert (0, 0, 0) == (cache.stats().entries, cache.stats().size_bytes, cache.stats().hits)


def test_a_lead_that_cannot_be_ended_now_is_ended_later(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey.url()
    with closing(RedisCache(url)) as cache, closing(RedisCache(url)) as other:
        assert cache.look_up("k", leads=True).is_leading
        valkey.pause()
        cache.land("k")
        cache._worker.flush()
        valkey.resume()
        time.sleep(server._SILENCE_S)
        assert "1 answers are waited for" in caplog.text
        assert Found() == other.look_up("k", leads=True)

        cache._worker.flush()
        assert other.look_up("k", leads=True).is_leading


def test_a_lead_is_ended_once(url: str) -> None:
    with closing(RedisCache(url)) as cache, closing(RedisCache(url)) as other:
        assert cache.look_up("k", leads=True).is_leading
        cache.land("k")
        cache._worker.flush()
        assert other.look_up("k", leads=True).is_leading
        cache.land("k")
        cache._flights.land(["k"])

        assert Found() == cache.look_up("k", leads=True)


def test_an_answer_that_could_not_be_saved_is_waited_for_by_nobody(valkey: Valkey) -> None:
    url = valkey.url()
    with closing(RedisCache(url)) as cache, closing(RedisCache(url)) as other:
        assert cache.look_up("k", leads=True).is_leading
        with pytest.raises(StoreError):
            cache.save("k", stored(model="\ud800"))
        cache._worker.flush()

        assert other.look_up("k", leads=True).is_leading


def test_more_answers_than_a_page_are_listed_and_cleared(cache: RedisCache) -> None:
    for number in range(1100):
        cache.save(f"{number:04}", stored(tag=str(number % 2)))

    assert [f"{number:04}" for number in range(1099, 0, -2)] == [
        key for key, _ in cache.entries(tag="1", limit=10_000)
    ]
    assert 3 == len(cache.entries(limit=3))
    assert 550 == cache.clear(tag="1")
    assert 550 == cache.clear()
