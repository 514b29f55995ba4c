"""What every `CacheStore` must do; each implementation is one line of `KINDS`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from leastwise.cache import Found, Stored
from leastwise.stores import CacheStore
from leastwise.stores.answers import SqliteCache
from leastwise.stores.redis import RedisCache
from tests.servers import age, url_of

NOW = 1_795_435_200.0  # 2026-11-23 12:00 UTC
DAY_S = 86_400
LEADING, WAITING = Found(is_leading=True), Found()


class Clock:
    """The time of day, moved by hand, and that of servers with it: `passed` is told how many seconds."""

    def __init__(self) -> None:
        self._now = NOW
        self.passed: list[Callable[[float], None]] = []

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        for passed in self.passed:
            passed(now - self._now)
        self._now = now

    def __call__(self) -> float:
        return self.now


def valkey_cache(folder: Path, clock: Clock, ttl_s: float, max_mb: float) -> RedisCache:
    clock.passed[:] = [lambda seconds: age(url_of(folder), seconds)]
    return RedisCache(url_of(folder), ttl_s=ttl_s, max_mb=max_mb, clock=clock)


#: Opens the cache of that folder, with a time to live in seconds and a size in megabytes.
Kind = Callable[[Path, Clock, float, float], CacheStore]
KINDS: dict[str, Kind] = {
    "file": lambda folder, clock, ttl_s, max_mb: SqliteCache(
        folder / "cache.db", ttl_s=ttl_s, max_mb=max_mb, clock=clock
    ),
    "memory": lambda _, clock, ttl_s, max_mb: SqliteCache(
        ":memory:", ttl_s=ttl_s, max_mb=max_mb, clock=clock
    ),
    "valkey": valkey_cache,
}
#: Those that two stores, as of two processes, can share.
SHARED = [kind for kind in KINDS if kind != "memory"]


class Home:
    """Opens caches of one kind in one place, and closes them at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = KINDS[kind]
        self._folder = folder
        self.clock = Clock()
        self.opened = ExitStack()

    def open(self, *, ttl_s: float = DAY_S, max_mb: float = 512) -> CacheStore:
        return self.opened.enter_context(closing(self._kind(self._folder, self.clock, ttl_s, max_mb)))


@pytest.fixture(params=KINDS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    made = Home(request.param, tmp_path)
    with made.opened:
        yield made


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    made = Home(request.param, tmp_path)
    with made.opened:
        yield made


def key(name: object) -> str:
    return sha256(str(name).encode()).hexdigest()


def stored(body: bytes = b'{"type":"message"}', **given: object) -> Stored:
    facts = Stored(
        body=body,
        is_stream=False,
        model="claude-haiku-5-5",
        tier="haiku",
        upstream="anthropic",
        exchange="01K",
        request_id="req_1",
        tag="triage",
        at=NOW,
    )
    return replace(facts, **given)  # type: ignore[arg-type]


def kept(cache: CacheStore) -> set[str]:
    return {key for key, _ in cache.entries(limit=1_000_000)}


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        stored(),
        stored(b""),
        stored(bytes(range(256)) * 40, is_stream=True),
        stored(b"x" * 3_000_000),
        stored("ä\u2028\U0001f600".encode(), tag="", tier="", request_id="", exchange="é"),
    ],
    ids=["message", "empty", "every byte", "long", "names"],
)
def test_a_hit_is_what_was_stored_byte_for_byte(home: Home, answer: Stored) -> None:
    cache = home.open()
    cache.save(key("a"), answer)

    assert Found(answer) == cache.look_up(key("a"), leads=True)
    home.clock.now += 10  # beyond what a copy in memory is trusted for
    assert answer == replace(found(cache, "a"), hits=0)


def found(cache: CacheStore, name: object) -> Stored:
    answer = cache.look_up(key(name), leads=False).stored
    assert answer is not None
    return answer


def test_nothing_is_found_under_another_key(home: Home) -> None:
    cache = home.open()
    cache.save(key("a"), stored())

    assert WAITING == cache.look_up(key("b"), leads=False)


def test_what_is_saved_again_replaces_what_was_there(home: Home) -> None:
    cache = home.open()
    cache.save(key("a"), stored(b"first"))
    assert b"first" == found(cache, "a").body
    cache.save(key("a"), stored(b"second", tag="other"))

    assert b"second" == found(cache, "a").body
    assert [("other", 1)] == [(answer.tag, answer.hits) for _, answer in cache.entries()]


def test_an_answer_lasts_as_long_as_it_may_and_no_longer(home: Home) -> None:
    cache = home.open(ttl_s=100)
    cache.save(key("a"), stored())

    home.clock.now = NOW + 99
    assert stored().body == found(cache, "a").body
    home.clock.now = NOW + 99.9
    assert stored().body == found(cache, "a").body
    home.clock.now = NOW + 100
    assert LEADING == cache.look_up(key("a"), leads=True)


def test_an_answer_past_its_time_is_asked_for_by_one_and_replaced(home: Home) -> None:
    cache = home.open(ttl_s=100)
    cache.save(key("a"), stored(b"old"))
    home.clock.now = NOW + 200

    assert LEADING == cache.look_up(key("a"), leads=True)
    assert WAITING == cache.look_up(key("a"), leads=True)
    cache.save(key("a"), stored(b"new", at=NOW + 200))
    assert b"new" == found(cache, "a").body


def test_over_the_size_what_was_not_used_for_longest_goes(home: Home) -> None:
    cache = home.open(max_mb=1)
    for name in "abc":
        cache.save(key(name), stored(b"x" * 300_000))
        home.clock.now += 10
    found(cache, "a")
    home.clock.now += 10
    cache.save(key("d"), stored(b"x" * 300_000))

    cache.prune()
    assert {key("a"), key("c"), key("d")} == kept(cache)


def test_what_is_kept_stays_within_the_size(home: Home) -> None:
    cache = home.open(max_mb=1)
    for number in range(200):
        cache.save(key(number), stored(b"x" * 20_000))
    cache.prune()

    stats = cache.stats()
    assert 1_000_000 >= stats.size_bytes
    assert 30 < stats.entries < 50
    assert key(199) in kept(cache)


def test_an_answer_that_is_larger_than_the_cache_is_not_kept_and_nobody_waits_for_it(home: Home) -> None:
    cache = home.open(max_mb=1)
    assert cache.look_up(key("a"), leads=True).is_leading
    cache.save(key("b"), stored())
    cache.save(key("a"), stored(b"x" * 2_000_000))

    assert [LEADING] * 2 == [cache.look_up(key("a"), leads=True) for _ in range(2)]
    assert {key("b")} == kept(cache)


def test_hits_are_counted_and_misses_are_none(home: Home) -> None:
    cache = home.open()
    cache.save(key("a"), stored())
    cache.save(key("b"), stored())
    for _ in range(5):
        cache.look_up(key("a"), leads=True)
    home.clock.now += 10
    cache.look_up(key("a"), leads=False)
    cache.look_up(key("c"), leads=True)
    cache.get(key("b"))

    assert {key("a"): 6, key("b"): 0} == {key: answer.hits for key, answer in cache.entries()}
    assert (2, 6) == (cache.stats().entries, cache.stats().hits)


def test_an_empty_cache_says_so(home: Home) -> None:
    cache = home.open()
    stats = cache.stats()

    assert (0, 0, 0) == (stats.entries, stats.size_bytes, stats.hits)
    assert [] == cache.entries()
    assert (0, 0) == (cache.clear(), cache.prune())


def test_answers_are_listed_last_used_first_by_tag_and_up_to_a_limit(home: Home) -> None:
    cache = home.open()
    for name, tag in ("a", "x"), ("b", "y"), ("c", "x"):
        cache.save(key(name), stored(tag=tag))
        cache.stats()  # is written, so that they have an order
        home.clock.now += 10
    found(cache, "a")

    assert [key("a"), key("c"), key("b")] == [key for key, _ in cache.entries()]
    assert [key("a"), key("c")] == [key for key, _ in cache.entries(limit=2)]
    assert [key("a"), key("c")] == [key for key, _ in cache.entries(tag="x")]
    assert [] == cache.entries(tag="z")


def test_an_answer_is_got_by_the_beginning_of_its_key_if_that_is_one(home: Home) -> None:
    cache = home.open(ttl_s=100)
    cache.save("abc1", stored(b"1"))
    cache.save("abd2", stored(b"2"))
    home.clock.now += 1000

    shown = {begin: cache.get(begin) for begin in ("abc1", "abc", "ab", "abe", "abc12", "a%")}
    assert {"abc1": b"1", "abc": b"1"} == {begin: answer.body for begin, answer in shown.items() if answer}


def test_all_answers_are_forgotten_or_those_of_a_tag(home: Home) -> None:
    cache = home.open()
    for number in range(10):
        cache.save(key(number), stored(tag="even" if number % 2 == 0 else "odd"))
        found(cache, number)

    assert 0 == cache.clear(tag="none")
    assert 5 == cache.clear(tag="even")
    assert [WAITING, WAITING] == [cache.look_up(key(number), leads=False) for number in (0, 2)]
    found(cache, 1)
    assert 5 == cache.clear()
    assert WAITING == cache.look_up(key(1), leads=False)
    assert (0, 0) == (cache.stats().entries, cache.stats().size_bytes)


def test_what_is_past_its_time_is_pruned(home: Home) -> None:
    cache = home.open(ttl_s=100)
    for number in range(6):
        cache.save(key(number), stored(at=NOW + 10 * number))
    home.clock.now = NOW + 121

    assert 3 == cache.prune()
    assert {key(3), key(4), key(5)} == kept(cache)
    assert 0 == cache.prune()


def test_a_cache_that_was_closed_can_be_used_again(shared: Home) -> None:
    cache = shared.open()
    cache.save(key("a"), stored())
    cache.close()

    assert found(cache, "a") == stored()
    cache.close()
    assert found(shared.open(), "a") == replace(stored(), hits=1)


# --- who asks --------------------------------------------------------------------------------------------


def test_the_first_to_look_leads_and_the_others_wait_for_the_answer(home: Home) -> None:
    cache = home.open()

    assert LEADING == cache.look_up(key("a"), leads=True)
    assert [WAITING] * 3 == [cache.look_up(key("a"), leads=True) for _ in range(3)]
    assert LEADING == cache.look_up(key("b"), leads=True)
    cache.save(key("a"), stored())
    assert Found(stored()) == cache.look_up(key("a"), leads=True)


def test_who_does_not_keep_does_not_lead(home: Home) -> None:
    cache = home.open()

    assert WAITING == cache.look_up(key("a"), leads=False)
    assert LEADING == cache.look_up(key("a"), leads=True)
    assert WAITING == cache.look_up(key("a"), leads=False)


def test_when_the_leader_lands_the_next_leads(home: Home) -> None:
    cache = home.open()
    for _ in range(3):
        assert LEADING == cache.look_up(key("a"), leads=True)
        assert WAITING == cache.look_up(key("a"), leads=True)
        cache.land(key("a"))


def test_landing_what_nobody_asks_for_does_nothing(home: Home) -> None:
    cache = home.open()
    cache.land(key("a"))
    cache.land(key("a"), frees=True)

    assert LEADING == cache.look_up(key("a"), leads=True)
    assert WAITING == cache.look_up(key("a"), leads=True)


def test_when_the_answer_is_none_to_keep_nobody_waits_for_a_minute(home: Home) -> None:
    cache = home.open()
    assert cache.look_up(key("a"), leads=True).is_leading
    cache.land(key("a"), frees=True)

    home.clock.now += 50
    assert [LEADING] * 3 == [cache.look_up(key("a"), leads=True) for _ in range(3)]
    cache.land(key("a"))
    assert LEADING == cache.look_up(key("a"), leads=True)
    home.clock.now += 20
    assert [LEADING, WAITING] == [cache.look_up(key("a"), leads=True) for _ in range(2)]


def test_an_answer_that_is_kept_after_all_is_given(home: Home) -> None:
    cache = home.open()
    assert cache.look_up(key("a"), leads=True).is_leading
    cache.land(key("a"), frees=True)
    cache.save(key("a"), stored())

    assert Found(stored()) == cache.look_up(key("a"), leads=True)


def test_who_takes_longer_than_any_call_is_not_waited_for(home: Home) -> None:
    cache = home.open()
    assert cache.look_up(key("a"), leads=True).is_leading

    home.clock.now += 901
    assert [LEADING, WAITING] == [cache.look_up(key("a"), leads=True) for _ in range(2)]


def test_two_hundred_at_once_have_one_leader(home: Home) -> None:
    cache = home.open()
    start = threading.Barrier(200)

    def look(_: int) -> Found:
        start.wait()
        return cache.look_up(key("a"), leads=True)

    with ThreadPoolExecutor(200) as pool:
        looks = list(pool.map(look, range(200)))

    assert (1, 199) == (looks.count(LEADING), looks.count(WAITING))


def test_threads_that_save_and_look_get_what_was_saved(home: Home) -> None:
    cache = home.open()

    def work(worker: int) -> int:
        wrong = 0
        for number in range(60):
            name = (worker + number) % 20
            answer = cache.look_up(key(name), leads=True)
            if answer.is_leading:
                cache.save(key(name), stored(str(name).encode()))
            elif answer.stored is not None:
                wrong += answer.stored.body != str(name).encode()
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert [0] * 16 == list(pool.map(work, range(16)))
    assert {key(name) for name in range(20)} == kept(cache)


# --- several processes -----------------------------------------------------------------------------------


def test_what_one_keeps_the_other_gives(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    one.save(key("a"), stored())
    one.stats()  # is written

    assert stored() == found(other, "a")
    other.stats()
    assert 1 == one.stats().hits


def test_what_one_clears_the_other_gives_for_a_second_at_most(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    one.save(key("a"), stored())
    one.stats()
    found(other, "a")
    assert 1 == one.clear()

    shared.clock.now += 1
    assert WAITING == other.look_up(key("a"), leads=False)


def test_one_of_two_leads_until_it_saves(shared: Home) -> None:
    one, other = shared.open(), shared.open()

    assert LEADING == one.look_up(key("a"), leads=True)
    assert WAITING == other.look_up(key("a"), leads=True)
    one.save(key("a"), stored())
    one.stats()
    assert Found(stored()) == other.look_up(key("a"), leads=True)


def test_one_of_two_leads_until_it_lands(shared: Home) -> None:
    one, other = shared.open(), shared.open()

    assert LEADING == one.look_up(key("a"), leads=True)
    one.land(key("a"))
    one.stats()
    assert LEADING == other.look_up(key("a"), leads=True)
    assert WAITING == one.look_up(key("a"), leads=True)


def test_one_says_to_the_other_that_the_answer_is_none_to_keep(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    assert one.look_up(key("a"), leads=True).is_leading
    one.land(key("a"), frees=True)
    one.stats()

    assert [LEADING] * 2 == [other.look_up(key("a"), leads=True) for _ in range(2)]
    shared.clock.now += 61
    assert [LEADING, WAITING] == [store.look_up(key("a"), leads=True) for store in (other, one)]


def test_one_that_closes_leaves_its_lead_to_the_other(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    assert one.look_up(key("a"), leads=True).is_leading
    one.close()

    assert LEADING == other.look_up(key("a"), leads=True)


def test_one_that_shows_no_life_loses_its_lead(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    assert one.look_up(key("a"), leads=True).is_leading

    shared.clock.now += 19
    assert WAITING == other.look_up(key("a"), leads=True)
    shared.clock.now += 2
    assert [LEADING, WAITING] == [other.look_up(key("a"), leads=True) for _ in range(2)]
    one.land(key("a"))  # too late, and no longer its own
    one.stats()
    assert WAITING == one.look_up(key("a"), leads=True)


def test_one_that_lives_but_takes_longer_than_any_call_loses_its_lead(shared: Home) -> None:
    one, other = shared.open(), shared.open()
    assert one.look_up(key("a"), leads=True).is_leading

    for _ in range(60):
        shared.clock.now += 14.9
        one.stats()  # says that it lives
        assert WAITING == other.look_up(key("a"), leads=True)
    shared.clock.now += 14.9
    one.stats()
    assert LEADING == other.look_up(key("a"), leads=True)
