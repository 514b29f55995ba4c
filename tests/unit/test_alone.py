"""`leastwise.Cache` and `leastwise.Budget`, as who takes nothing else uses them."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

import leastwise
from leastwise import Budget, BudgetExceededError, Cache, Ladder, Request, Task, Tier, alone
from leastwise.alone import Given, StepDownLine
from leastwise.budget import Ceiling
from leastwise.errors import ConfigError, StoreError
from leastwise.stores.answers import SqliteCache
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, Clock

ZERO, ONE = Decimal(0), Decimal(1)

ASK = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Spam?"}]}


def message(text: str = "spam", **given: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 1},
        **given,
    }


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- cache -----------------------------------------------------------------------------------------------


@pytest.fixture(params=[":memory:", "answers.db"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Cache]:
    path = request.param if request.param == ":memory:" else tmp_path / request.param
    with Cache(path, ttl_s=100, clock=clock) as made:
        yield made


@pytest.mark.parametrize(
    "answer", [message(), "spam", ["a", 1, None, 1.5], {"label": "spam"}, b"", b"event: x\ndata: {}\n\n"]
)
def test_an_answer_is_given_again(cache: Cache, answer: Any) -> None:
    assert cache.get(ASK) is None
    assert cache.set(ASK, answer)

    assert answer == cache.get(ASK)
    assert type(answer) is type(cache.get(ASK))


def test_a_request_is_known_in_any_form_and_by_all_of_its_members(cache: Cache) -> None:
    cache.set(ASK, "spam")
    as_bytes = json.dumps(ASK, separators=(",", ":")).encode()
    same: list[Request | dict[str, Any]] = [
        dict(reversed(ASK.items())),
        Request.of(ASK),
        Request.parse(as_bytes),
    ]
    others = [{**ASK, "max_tokens": 10}, {**ASK, "system": "Answer in German."}, {**ASK, "temperature": 0.0}]

    assert ["spam"] * 3 == [cache.get(request) for request in same]
    assert [None] * 3 == [cache.get(request) for request in others]


def test_what_is_told_beside_the_request_is_part_of_it(cache: Cache) -> None:
    cache.set(ASK, "spam", Task(tier="haiku"))

    assert "spam" == cache.get(ASK, Task(tier="haiku"))
    assert cache.get(ASK) is None


def test_any_mapping_is_a_request(cache: Cache) -> None:
    cache.set({"q": "Win $1000"}, "spam")

    assert ("spam", None) == (cache.get({"q": "Win $1000"}), cache.get({"q": "Win $100"}))


def test_an_answer_lasts_for_its_time(cache: Cache, clock: Clock) -> None:
    cache.set(ASK, "spam")
    clock.now += 99
    assert "spam" == cache.get(ASK)
    clock.now += 1
    assert cache.get(ASK) is None
    assert (1, 0) == (cache.prune(), cache.prune())


@pytest.mark.parametrize(
    "odd",
    [
        {"stop_reason": "max_tokens"},
        {"stop_reason": "refusal"},
        {"stop_reason": "tool_use", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
        {"stop_reason": None},
    ],
)
def test_a_message_that_is_no_whole_answer_is_not_kept(cache: Cache, odd: dict[str, Any]) -> None:
    assert not cache.set(ASK, message(**odd))
    assert cache.get(ASK) is None
    answers = [cache.call(ASK, lambda: message(**odd)) for _ in range(2)]
    assert [Given(message(**odd), from_cache=False)] * 2 == answers


def test_a_call_asks_once_and_says_where_its_answer_is_from(cache: Cache) -> None:
    asked = iter(["spam", "never"])
    answers = [cache.call(ASK, lambda: next(asked)) for _ in range(3)]

    assert [Given("spam", from_cache=False), *[Given("spam", from_cache=True)] * 2] == answers
    assert "never" == next(asked)


def test_the_totals_have_the_names_that_people_know(cache: Cache) -> None:
    assert (0.0, 0) == (cache.stats().hit_rate, cache.stats().calls_saved)
    for number in (1, 2, 1, 3, 1):
        cache.call({"q": number}, lambda: "spam")
    cache.get({"q": 2})
    stats = cache.stats()

    assert (3, 3, 3) == (stats.entries, stats.total_hits, stats.total_misses)
    assert (0.5, 3) == (stats.hit_rate, stats.calls_saved)
    assert 0 < stats.size_bytes
    assert 3 == cache.clear()
    assert 0 == cache.stats().entries


def test_many_at_once_cost_one_call(cache: Cache) -> None:
    asked = []
    start = threading.Barrier(50)

    def ask() -> str:
        asked.append(1)
        threading.Event().wait(0.02)
        return "spam"

    def call(_: int) -> Given:
        start.wait()
        return cache.call(ASK, ask)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(call, range(50)))

    assert [1] == asked
    assert ["spam"] * 50 == [given.answer for given in answers]
    assert (49, 1) == (cache.stats().total_hits, cache.stats().total_misses)


def test_where_a_call_fails_the_next_one_asks(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.call(ASK, lambda: 1 // 0)

    assert Given("spam", from_cache=False) == cache.call(ASK, lambda: "spam")


def test_what_json_cannot_hold_is_refused_and_holds_nobody_up(cache: Cache) -> None:
    with pytest.raises(TypeError):
        cache.call(ASK, object)
    with pytest.raises(TypeError):
        cache.get({"q": object()})

    assert Given("spam", from_cache=False) == cache.call(ASK, lambda: "spam")


def test_a_file_that_cannot_be_used_is_no_reason_not_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StoreError

    with Cache(tmp_path / "answers.db") as cache:
        monkeypatch.setattr(SqliteCache, "look_up", fails)
        assert Given("spam", from_cache=False) == cache.call(ASK, lambda: "spam")

    assert [logging.WARNING] == [record.levelno for record in caplog.records]


def test_answers_are_shared_by_their_file(tmp_path: Path) -> None:
    with Cache(tmp_path / "answers.db") as cache:
        cache.set(ASK, message())
    with Cache(tmp_path / "answers.db") as other:
        assert message() == other.get(ASK)


# --- budget ----------------------------------------------------------------------------------------------


@pytest.fixture
def budget(clock: Clock) -> Iterator[Budget]:
    with Budget(1.00, clock=clock, wait_s=0) as made:
        yield made


def test_it_steps_down_as_it_runs_short_and_spares_critical_calls(budget: Budget) -> None:
    """The reference's session, as its thresholds have it."""
    seen = []
    for cost in ("0.70", "0.01", "0.19", "0.01"):
        budget.add(cost)
        tiers = [budget.recommended_tier(tier) for tier in ("haiku", "sonnet", "opus")]
        seen.append((budget.percent, tiers, budget.recommended_tier("opus", critical=True)))

    assert [
        (70.0, ["haiku", "sonnet", "opus"], "opus"),
        (71.0, ["haiku", "sonnet", "sonnet"], "opus"),
        (90.0, ["haiku", "sonnet", "sonnet"], "opus"),
        (91.0, ["haiku", "haiku", "haiku"], "opus"),
    ] == seen
    assert (
        StepDownLine(NOW, "opus", "sonnet", 71.0, "above 70%"),
        StepDownLine(NOW, "opus", "sonnet", 90.0, "above 70%"),
        StepDownLine(NOW, "sonnet", "haiku", 91.0, "above 90%"),
        StepDownLine(NOW, "opus", "haiku", 91.0, "above 90%"),
    ) == budget.log
    assert "opus -> sonnet at 71% (above 70%)" == str(budget.log[0])


def test_it_says_what_is_spent_left_and_reserved(budget: Budget) -> None:
    assert (ZERO, ONE, 0.0, 0) == (budget.spent_usd, budget.remaining_usd, budget.percent, budget.calls)
    budget.add(0.25)
    with budget.reserve(Decimal("0.5")) as held:
        assert (Decimal("0.25"), Decimal("0.5")) == (budget.spent_usd, budget.reserved_usd)
        held.settle("0.05")

    assert (Decimal("0.3"), Decimal("0.7")) == (budget.spent_usd, budget.remaining_usd)
    assert (ZERO, 30.0, 2) == (budget.reserved_usd, budget.percent, budget.calls)


def test_what_does_not_fit_is_refused_with_the_facts(budget: Budget) -> None:
    budget.add("0.6")
    with budget.reserve("0.3"):
        with pytest.raises(BudgetExceededError) as refused, budget.reserve("0.100000001"):
            raise AssertionError
        with budget.reserve("0.1") as fits:
            fits.release()

    error = refused.value
    assert ("budget", Decimal("0.6"), Decimal("0.3")) == (error.budget, error.spent_usd, error.reserved_usd)
    assert (ONE, Decimal("0.100000001")) == (error.limit_usd, error.needed_usd)
    assert Decimal("0.9") == budget.spent_usd


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 2),
        ({"critical_limit_usd": 0.5}, Decimal("1.5")),
        ({"critical_limit_usd": 0}, 1),
        ({"cap": "block"}, 1),
    ],
)
def test_critical_calls_go_on_to_their_own_cap(options: dict[str, Any], most: Decimal) -> None:
    with Budget(1, wait_s=0, **options) as budget:
        budget.add(1)
        with pytest.raises(BudgetExceededError), budget.reserve("0.000000001"):
            raise AssertionError
        with suppress(BudgetExceededError):
            while True:
                with budget.reserve("0.1", critical=True) as held:
                    held.settle("0.1")

        assert most == budget.spent_usd
        assert 1 - most == budget.remaining_usd


def test_a_block_that_does_not_settle_is_charged_the_whole(budget: Budget) -> None:
    with budget.reserve(0.1):
        pass
    with pytest.raises(ZeroDivisionError), budget.reserve(0.2):
        raise ZeroDivisionError

    assert (Decimal("0.3"), ZERO, 2) == (budget.spent_usd, budget.reserved_usd, budget.calls)


def test_a_block_that_releases_costs_nothing_whatever_comes_after(budget: Budget) -> None:
    with suppress(ZeroDivisionError), budget.reserve(0.2) as held:
        held.release()
        raise ZeroDivisionError

    assert (ZERO, ZERO, 0) == (budget.spent_usd, budget.reserved_usd, budget.calls)


def test_a_reservation_is_settled_once(budget: Budget) -> None:
    with budget.reserve(0.2) as held:
        held.settle(0.1)
        for again in held.release, lambda: held.settle(0.2):
            with pytest.raises(ValueError, match="settled already"):
                again()

    assert Decimal("0.1") == budget.spent_usd


def test_what_costs_more_than_was_reserved_is_charged_in_full(budget: Budget) -> None:
    with budget.reserve(0.1) as held:
        held.settle(3)

    assert 3 == budget.spent_usd


def test_amounts_are_rounded_up_to_whole_nano_dollars(budget: Budget) -> None:
    budget.add(1 / 3)
    budget.add("0.0000000001")

    assert Decimal("0.333333335") == budget.spent_usd


@pytest.mark.parametrize("odd", [-0.1, "much", float("nan"), float("inf")])
def test_what_is_no_amount_is_refused(budget: Budget, odd: Any) -> None:
    with pytest.raises(ValueError, match="not an amount of dollars"):
        budget.add(odd)
    with pytest.raises(ValueError, match="not an amount of dollars"), budget.reserve(odd):
        raise AssertionError
    with pytest.raises(ValueError, match="not an amount of dollars"), budget.reserve(0.1) as held:
        held.settle(odd)

    assert Decimal("0.1") == budget.spent_usd


def test_a_window_begins_anew(clock: Clock) -> None:
    with Budget(1, window="day", tz="Europe/Vienna", wait_s=0, clock=clock) as budget:
        budget.add(0.95)
        assert "haiku" == budget.recommended_tier("opus")
        clock.now += 12 * 3600

        assert ("opus", ZERO) == (budget.recommended_tier("opus"), budget.spent_usd)


def test_what_was_reserved_in_one_window_is_charged_to_it(clock: Clock) -> None:
    with Budget(1, window="hour", clock=clock) as budget:
        with budget.reserve(0.5) as held:
            clock.now += 3600
            held.settle(0.4)

        assert 0 == budget.spent_usd
        clock.now -= 3600
        assert Decimal("0.4") == budget.spent_usd


def test_ladder_and_ceilings_are_ones_own() -> None:
    ladder = Ladder((Tier("small", "a"), Tier("large", "b")))
    ceilings = [Ceiling(Decimal("0.5"), "small")]
    with Budget(10, ladder=ladder, ceilings=ceilings) as budget:
        assert "large" == budget.recommended_tier("large")
        budget.add(6)
        assert "small" == budget.recommended_tier("large")
        with pytest.raises(ConfigError, match="no tier is named 'opus'"):
            budget.recommended_tier("opus")
    with pytest.raises(ConfigError, match="no tier is named 'small'"):
        Budget(10, ceilings=ceilings)


def test_a_budget_of_nothing_allows_nothing() -> None:
    with Budget(0, cap="block", wait_s=0) as budget:
        assert 100.0 == budget.percent
        with pytest.raises(BudgetExceededError), budget.reserve("0.000000001"):
            raise AssertionError


def test_threads_never_overspend_it() -> None:
    with Budget(1, wait_s=0) as budget:

        def spend(_: int) -> bool:
            with suppress(BudgetExceededError), budget.reserve("0.01") as held:
                assert 1 >= budget.spent_usd + budget.reserved_usd
                held.settle("0.01")
                return True
            return False

        with ThreadPoolExecutor(8) as pool:
            assert 100 == sum(pool.map(spend, range(150)))

        assert (ONE, ZERO, 100) == (budget.spent_usd, budget.reserved_usd, budget.calls)


def test_a_reservation_waits_for_others_that_may_leave_room() -> None:
    with Budget(1) as budget, ThreadPoolExecutor(1) as pool:
        with budget.reserve(0.9) as held:

            def second() -> bool:
                with budget.reserve(0.5) as also:
                    also.release()
                return True

            waiting = pool.submit(second)
            assert not waiting.done()
            held.settle(0.2)

        assert waiting.result(5)


def test_processes_share_it_by_its_file_and_name(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    program = """
        import sys
        from contextlib import suppress
        from leastwise import Budget, BudgetExceededError
        with Budget(1, path=sys.argv[1], wait_s=0) as budget:
            for _ in range(60):
                with suppress(BudgetExceededError), budget.reserve("0.01") as held:
                    held.settle("0.01")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    processes = [subprocess.Popen(command) for _ in range(3)]  # noqa: S603 - ourselves
    assert [0] * 3 == [process.wait() for process in processes]

    with Budget(1, path=path) as budget, Budget(1, path=path, name="other") as other:
        assert (ONE, 100, ZERO) == (budget.spent_usd, budget.calls, other.spent_usd)


def test_what_a_killed_process_held_is_charged_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    program = """
        import os, signal, sys
        from leastwise import Budget
        with Budget(1, path=sys.argv[1]).reserve(0.25):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    assert -9 == subprocess.run(command, check=False).returncode  # noqa: S603 - ourselves

    with closing(SqliteStore(path)) as store:
        at = store.reserved()[0].at
    clock = Clock(at)
    with Budget(1, path=path, clock=clock) as budget:
        budget._beat()
        assert (ZERO, Decimal("0.25")) == (budget.spent_usd, budget.reserved_usd)
        clock.now += 21
        budget._beat()
        assert (Decimal("0.25"), ZERO) == (budget.spent_usd, budget.reserved_usd)


def test_who_holds_something_for_long_shows_life(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "budget.db"
    with Budget(1, path=path, clock=clock) as one, Budget(1, path=path, clock=clock) as other:
        with one.reserve(0.5) as held:
            for _ in range(10):
                clock.now += 15
                one._beat()
                other._beat()
            held.settle(0.1)

        assert Decimal("0.1") == other.spent_usd


def test_both_are_exported_and_bring_nothing_of_the_sdk() -> None:
    assert (alone.Budget, alone.Cache) == (leastwise.Budget, leastwise.Cache)
    program = "import sys; from leastwise import Budget, Cache; print('anthropic' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603

    assert "False\n" == printed.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit_usd": "much"}, "limit_usd = 'much': expected dollars from 0 to"),
        ({"limit_usd": float("nan")}, "limit_usd = nan: expected dollars"),
        ({"limit_usd": -1}, "limit_usd = -1: expected dollars"),
        (
            {"limit_usd": 1, "critical_limit_usd": None, "cap": "Block"},
            "cap = 'Block': expected allow_critical",
        ),
        ({"limit_usd": 1, "critical_limit_usd": -1}, "critical_limit_usd = -1: expected dollars"),
        ({"limit_usd": 1, "window": "year"}, "window = 'year': expected session, hour"),
        ({"limit_usd": 1, "tz": None}, "tz = None: no such time zone"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Budget(**given)


def test_a_limit_is_rounded_down_and_no_context_of_the_callers_counts() -> None:
    with localcontext() as context, Budget(1 / 3) as budget:
        context.prec = 3
        assert 333_333_333 == budget.rule.limit_nusd
        with budget.reserve("0.123456") as held:
            held.settle("0.123456")
        assert 123_456_000 == budget._standing.spent_nusd


def test_who_is_interrupted_between_reserving_and_the_block_holds_nothing(
    budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = budget._store.lease

    def interrupted(*given: Any, **named: Any) -> None:
        grant(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(budget._store, "lease", interrupted)
    with pytest.raises(KeyboardInterrupt), budget.reserve(0.5):
        raise AssertionError
    assert (ZERO, ZERO) == (budget.spent_usd, budget.reserved_usd)
