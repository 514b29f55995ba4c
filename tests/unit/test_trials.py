"""Trials: what pairs add up to, what they show, for whom, and how a process has to do with those open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from leastwise.build import trials
from leastwise.build.trials import Trials
from leastwise.cascade import Trial
from leastwise.cascade.trials import (
    MONEY,
    OpenTrial,
    Pairs,
    added,
    compared,
    concluded,
    how_words,
    least_words,
    quality_of,
    trial_words,
    vouches,
)
from leastwise.client import Desk
from leastwise.ladder import DEFAULT_LADDER, Ladder, Tier
from leastwise.simulate import serve
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, NOW, OPUS, SONNET, Clock

OPEN = OpenTrial("T1", "mail", "haiku", HAIKU, "auto", "", 2, 3 * 10**9, NOW)
SHOWN = Trial("mail", "haiku", OPUS, "exact", 2000, 1980, 5, NOW, HAIKU)
EXACT = Pairs("exact", OPUS, 3, 2, 30, 300, 3)
JUDGED = Pairs("judge by opus", OPUS, 4, 4, 40, 400, 4)
UNFIT = Pairs("did not fit haiku", n=5, spent_nusd=1)


def test_pairs_add_up() -> None:
    sums = added(added([UNFIT], EXACT), Pairs("exact", OPUS, agreed=1, spent_nusd=1))

    assert [UNFIT, Pairs("exact", OPUS, 4, 3, 31, 300, 3)] == sums
    assert Pairs("", n=4, agreed=3, spent_nusd=32, measure_nusd=300, tier_nusd=3) == compared(sums)
    assert "exact" == how_words(sums)
    assert "" == how_words([UNFIT])
    two = [JUDGED, EXACT, UNFIT, replace(EXACT, against=SONNET, n=1_400)]
    assert "judge by opus 4, exact 1,403" == how_words(two)


def test_what_a_trial_shows_at_its_end() -> None:
    sums = [JUDGED, EXACT, UNFIT]

    found = concluded(OPEN, sums, DEFAULT_LADDER, NOW + 9)
    assert Trial("mail", "haiku", OPUS, "judge by opus 4, exact 3", 7, 6, 71, NOW + 9, HAIKU) == found
    assert None is concluded(OPEN, [UNFIT], DEFAULT_LADDER, NOW)


@pytest.mark.parametrize(
    ("models", "against"),
    [
        ([OPUS, SONNET], SONNET),
        ([OPUS, "claude-opus-4-6"], "claude-opus-4-6"),
        (["model-b", "model-a"], "model-a"),
    ],
)
def test_it_was_compared_with_the_cheapest_of_them(models: list[str], against: str) -> None:
    found = concluded(OPEN, [replace(EXACT, against=model) for model in models], DEFAULT_LADDER, NOW)

    assert found is not None
    assert against == found.against


def test_a_bound_is_rounded_down() -> None:
    assert [">=98.5%", ">=99.8%", ">=0.0%", ">=54.9%"] == [
        least_words(1980, 2000),
        least_words(2000, 2000),
        least_words(0, 5),
        least_words(5, 5),
    ]
    assert ">=98.5% n 2,000" == trial_words(SHOWN)


@pytest.mark.parametrize(
    ("model", "against", "baseline", "tells"),
    [
        (HAIKU, OPUS, OPUS, True),
        (HAIKU, OPUS, SONNET, True),
        (HAIKU, SONNET, OPUS, False),
        (HAIKU, "claude-opus-4-6", "claude-opus-4-6", True),
        (HAIKU, "claude-opus-4-6", SONNET, False),
        (HAIKU, OPUS, "claude-opus-4-6", False),
        ("claude-haiku-4-5", OPUS, OPUS, False),
        ("claude-haiku-5-5-20261001", OPUS, OPUS, True),
    ],
)
def test_for_whom_a_trial_speaks(model: str, against: str, baseline: str, *, tells: bool) -> None:
    assert tells is vouches(replace(SHOWN, against=against), model, baseline, DEFAULT_LADDER)


@pytest.mark.parametrize(
    ("tag", "tier", "model", "known"),
    [
        ("mail", "haiku", HAIKU, ">=98.5% n 2,000"),
        ("mail", "opus", OPUS, "as asked"),
        ("mail", "sonnet", SONNET, "not measured"),
        ("chat", "haiku", HAIKU, "not measured"),
        ("", "haiku", HAIKU, "not measured"),
        ("mail", "haiku", "claude-haiku-4-5", "not measured"),
    ],
)
def test_what_is_known_of_an_answer(tag: str, tier: str, model: str, known: str) -> None:
    kept = {("mail", "haiku"): SHOWN, ("", "haiku"): SHOWN}

    assert known == quality_of(kept, DEFAULT_LADDER, tag=tag, tier=tier, model=model, baseline=OPUS)


# --- those open, and this process ------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Iterator[SqliteStore]:
    made = SqliteStore(":memory:", clock=clock)
    yield made
    made.close()


@pytest.fixture
def mine(store: SqliteStore, clock: Clock) -> Trials:
    return Trials(Desk(store, clock), clock)


def test_an_open_trial_is_found_within_a_second(store: SqliteStore, mine: Trials, clock: Clock) -> None:
    assert None is mine.of("mail")
    store.begin_trial(OPEN)
    assert [None, None, None] == [mine.of(tag) for tag in ("mail", "", None)]

    clock.now += 1
    assert (OPEN, None) == (mine.of("mail"), mine.of("chat"))
    clock.now -= 3600  # a clock set back
    store.end_trial("T1", lambda _: None)
    assert None is mine.of("mail")


def test_a_far_store_is_asked_on_a_thread(store: SqliteStore, mine: Trials) -> None:
    store.begin_trial(OPEN)
    store.is_near = False

    assert mine.of("mail") in (None, OPEN)  # the thread may have been fast
    mine.close()
    assert OPEN == mine.of("mail")


class Broken(SqliteStore):
    """A store that cannot be read."""

    def open_trials(self) -> list[OpenTrial]:
        raise ZeroDivisionError


def test_a_store_that_fails_has_no_trials(clock: Clock) -> None:
    with closing(Broken(":memory:", clock=clock)) as store:
        assert None is Trials(Desk(store, clock), clock).of("mail")


def test_without_a_thread_nothing_is_tried_and_there_is_room(
    mine: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(9):
        mine.start(lambda: None)

    assert [True] * 4 + [False] == [mine.enter() for _ in range(5)]


def test_what_there_is_no_other_thread_for_waits_for_one(
    mine: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    goes_on, done = threading.Event(), list[int]()
    mine.start(lambda: assert_set(goes_on))
    monkeypatch.setattr(threading.Thread, "start", start)
    mine.start(lambda: done.append(1))
    goes_on.set()
    mine.close()

    assert [1] == done


def test_what_fails_beside_the_calls_is_logged_by_its_name(
    mine: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        message = "secret words"
        raise ValueError(message)

    with caplog.at_level("INFO", logger="leastwise"):
        mine.start(fail)
        mine.close()

    assert ["a pair of a trial could not be tried: ValueError"] == [
        one.getMessage() for one in caplog.records
    ]
    assert [True] * 4 == [mine.enter() for _ in range(4)]


def test_a_thread_of_its_own_does_not_wait_for_itself(mine: Trials) -> None:
    is_known = threading.Event()

    def work() -> None:
        assert_set(is_known)
        mine.close()

    mine.start(work)
    is_known.set()
    mine.close()

    assert [True] * 4 == [mine.enter() for _ in range(4)]


def test_the_end_waits_a_while_and_no_longer(mine: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_PATIENCE_S", 0.0)
    goes_on = threading.Event()
    mine.start(lambda: assert_set(goes_on))
    mine.close()
    goes_on.set()
    monkeypatch.setattr(trials, "_PATIENCE_S", 10.0)
    mine.close()


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


@pytest.mark.parametrize(
    ("last", "shown"), [(Pairs("exact", OPUS), (2, 1)), (Pairs(MONEY, spent_nusd=7), (1, 1)), (UNFIT, None)]
)
def test_a_trial_ends_once_it_has_what_it_wanted(
    store: SqliteStore, mine: Trials, clock: Clock, last: Pairs, shown: tuple[int, int] | None
) -> None:
    store.begin_trial(OPEN)
    assert OPEN == mine.of("mail")
    mine.add(OPEN, Pairs("exact", OPUS, agreed=1, spent_nusd=5), DEFAULT_LADDER)
    mine.add(OPEN, last, DEFAULT_LADDER)

    found = store.evidence("").trials.get(("mail", "haiku"))
    assert shown == ((found.n, found.agreed) if found is not None else None)
    assert (mine.of("mail") is None) is (shown is not None) is (store.open_trials() == [])
    if shown is not None:
        assert found is not None
        assert (5 + last.spent_nusd, clock.now) == (found.cost_nusd, found.at)
        mine.add(OPEN, Pairs(MONEY), DEFAULT_LADDER)  # too late, and nothing comes of it
        assert {("mail", "haiku"): found} == store.evidence("").trials


def test_a_trial_without_a_pair_shows_nothing(store: SqliteStore, mine: Trials) -> None:
    store.begin_trial(OPEN)
    mine.add(OPEN, Pairs(MONEY), DEFAULT_LADDER)

    assert ([], {}) == (store.open_trials(), store.evidence("").trials)


def test_a_tier_that_is_no_longer_there_can_be_ended(store: SqliteStore) -> None:
    store.begin_trial(OPEN)
    store.add_pairs("T1", EXACT)

    found = trials.end_trial(store, OPEN, Ladder((Tier("only", OPUS),)), NOW)
    assert found is not None
    assert (HAIKU, OPUS) == (found.model, found.against)


ENDING = """
import leastwise, sys
client = leastwise.Anthropic(api_key="k", base_url=sys.argv[1], max_retries=0)
client.messages.create(model="claude-opus-5-5", max_tokens=2048, task=leastwise.Task(tag="mail"),
                       messages=[{"role": "user", "content": "Is this spam? Win!"}])
"""


def test_a_program_that_ends_waits_for_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    store.begin_trial(OPEN)
    environ = {**os.environ, "LEASTWISE_STORE_URL": f"sqlite:///{path}", "XDG_CONFIG_HOME": str(tmp_path)}
    with serve() as server:
        subprocess.run([sys.executable, "-c", ENDING, server.url], check=True, env=environ)  # noqa: S603 - ours

    assert [("exact", 1, 1)] == [(one.how, one.n, one.agreed) for one in store.pairs_of("T1")]
    assert [] == store.reserved()
    store.close()
