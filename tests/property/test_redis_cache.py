"""Answers on a server, beside a plain model of them: whatever is asked of the scripts, both say the same."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from leastwise.cache import Found, Stored
from leastwise.stores import CacheStats
from leastwise.stores.redis import RedisCache
from tests.kit import Clock
from tests.servers import valkey_url

TTL_S = 100.0
ROW_BYTES = 700
MOST_BYTES = 10_000
KEYS = ("a1", "a2", "b1", "c1")
keys = st.sampled_from(KEYS)


class Answers(RuleBasedStateMachine):
    """Two caches of one place; `kept` is what they should hold, the longest unused first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        url = valkey_url()
        self.caches = [
            RedisCache(url, ttl_s=TTL_S, max_mb=MOST_BYTES / 1e6, clock=self.clock) for _ in range(2)
        ]
        self.kept: OrderedDict[str, Stored] = OrderedDict()
        self.leads: dict[str, int] = {}
        self.free: set[str] = set()

    @initialize(sizes=st.lists(st.integers(0, 3000), min_size=2, max_size=4))
    def begin(self, sizes: list[int]) -> None:
        for key, size in zip(KEYS, sizes, strict=False):
            self.save(0, key, size, "x", 0.0)

    def teardown(self) -> None:
        for cache in self.caches:
            cache.close()

    def size(self) -> int:
        return sum(ROW_BYTES + len(one.body) for one in self.kept.values())

    def is_stale(self, stored: Stored) -> bool:
        return stored.at + TTL_S <= self.clock.now

    def prune(self) -> int:
        before = len(self.kept)
        for key in [key for key, stored in self.kept.items() if self.is_stale(stored)]:
            del self.kept[key]
        while self.size() > MOST_BYTES:
            self.kept.popitem(last=False)
        return before - len(self.kept)

    @rule(who=st.integers(0, 1), key=keys, leads=st.booleans())
    def look_up(self, who: int, key: str, *, leads: bool) -> None:
        stored = self.kept.get(key)
        if stored and not self.is_stale(stored):
            expected = Found(stored)
            self.kept[key] = replace(stored, hits=stored.hits + 1)
            self.kept.move_to_end(key)
        else:
            expected = Found(is_leading=leads and (key in self.free or key not in self.leads))
            if expected.is_leading and key not in self.free:
                self.leads[key] = who

        assert expected == self.caches[who].look_up(key, leads=leads)

    @rule(
        who=st.integers(0, 1),
        key=keys,
        size=st.sampled_from([0, 1, 2000, 4000, 9_300, 9_301]),
        tag=st.sampled_from(["x", "y", ""]),
        age_s=st.just(0.0) | st.sampled_from([50.0, 99.0, 100.0]),
    )
    def save(self, who: int, key: str, size: int, tag: str, age_s: float) -> None:
        at = self.clock.now - age_s
        stored = Stored(b"x" * size, bool(size % 2), "m", "t", "u", "e", "r", tag, at, hits=7)
        self.caches[who].save(key, stored)
        self.kept.pop(key, None)
        self.leads.pop(key, None)
        if size + ROW_BYTES > MOST_BYTES:
            self.free.add(key)
        else:
            self.free.discard(key)
            self.kept[key] = replace(stored, hits=0)
            self.prune()

    @rule(who=st.integers(0, 1), key=keys, frees=st.booleans())
    def land(self, who: int, key: str, *, frees: bool) -> None:
        self.caches[who].land(key, frees=frees)
        self.caches[who].stats()  # has it done
        if self.leads.get(key) == who:
            del self.leads[key]
            if frees:
                self.free.add(key)

    @precondition(lambda self: self.kept)
    @rule(who=st.integers(0, 1), data=st.data())
    def look_up_what_is_kept(self, who: int, data: st.DataObject) -> None:
        self.look_up(who, data.draw(st.sampled_from(sorted(self.kept))), leads=True)

    @rule(seconds=st.sampled_from([1.0, 10.0, 49.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(who=st.integers(0, 1))
    def prune_now(self, who: int) -> None:
        assert self.prune() == self.caches[who].prune()

    @rule(who=st.integers(0, 1), tag=st.sampled_from([None, "x", ""]))
    def clear(self, who: int, tag: str | None) -> None:
        gone = [key for key, stored in self.kept.items() if tag in (None, stored.tag)]
        for key in gone:
            del self.kept[key]

        assert len(gone) == self.caches[who].clear(tag=tag)

    @rule(who=st.integers(0, 1), begin=st.sampled_from(["a", "a1", "b", "z", "c?", ""]))
    def get(self, who: int, begin: str) -> None:
        found = [stored for key, stored in self.kept.items() if key.startswith(begin)]

        assert (found[0] if len(found) == 1 else None) == self.caches[who].get(begin)

    @invariant()
    def both_hold_the_same(self) -> None:
        assert list(reversed(self.kept.items())) == self.caches[0].entries()
        hits = sum(stored.hits for stored in self.kept.values())
        assert CacheStats(len(self.kept), self.size(), hits) == self.caches[1].stats()


def test_whatever_is_asked_answers_are_as_in_a_plain_model() -> None:
    run_state_machine_as_test(
        cast("Any", Answers), settings=settings(max_examples=20, stateful_step_count=30)
    )
