"""Notifications: what is said when, once, and posted to a real server."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from leastwise.budget import BudgetRule, Ceiling, Limits
from leastwise.forecast import DAY_S, HOUR_S
from leastwise.ladder import DEFAULT_LADDER
from leastwise.money import NUSD_PER_USD as USD
from leastwise.notify import Message, Seen, watch
from leastwise.prices import load_prices
from leastwise.sqlite import MEMORY
from leastwise.stores import Store
from leastwise.stores.sqlite import SqliteStore
from tests.kit import NOW, Clock
from tests.paid import paid, settle

MONTH = BudgetRule("team-a", 8_000 * USD, tz="Europe/Vienna")
DAY = BudgetRule("day", 100 * USD, window="day", ceilings=(), cap="block")


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(SqliteStore(MEMORY, clock=Clock())) as opened:
        yield opened


def look(
    store: Store, *rules: BudgetRule, now: float = NOW, webhook: str = "", seen: dict[str, Seen] | None = None
) -> list[Message]:
    return watch(store, Limits(rules), DEFAULT_LADDER, load_prices(), webhook, now, seen=seen)


class Hook:
    """What a webhook was sent, and how it answers."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.url = ""


@contextmanager
def serving(hook: Hook) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            hook.got.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(hook.status)
            for name, value in hook.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.url = f"http://127.0.0.1:{server.server_port}/services/secret"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    with serving(made):
        yield made


def test_without_budgets_nothing_is_asked(store: Store) -> None:
    store.close()

    assert [] == look(store)


def test_each_threshold_is_said_once_in_a_window(store: Store) -> None:
    said = []
    for usd in (3_900, 200, 1_600, 1_000, 600, 700):  # 49, 51, 71, 84, 91, 100 %
        settle(store, paid(MONTH, NOW - 60, usd))
        said.append([one.what for one in (*look(store, MONTH), *look(store, MONTH))])

    assert [[], ["50%"], ["70%"], [], ["90%"], ["100%"]] == said

    december = NOW + 10 * DAY_S
    settle(store, paid(MONTH, december - 60, 4_100))
    assert ["50%"] == [one.what for one in look(store, MONTH, now=december)]


def test_of_several_thresholds_at_once_the_highest_is_said(store: Store) -> None:
    settle(store, paid(MONTH, NOW - 60, 7_300))

    assert ["90%"] == [one.what for one in look(store, MONTH)]
    assert [] == look(store, MONTH)


def test_two_processes_say_it_once(store: Store) -> None:
    settle(store, paid(MONTH, NOW - 60, 7_300))
    ours: dict[str, Seen] = {}
    theirs: dict[str, Seen] = {}

    assert [1, 0] == [len(look(store, MONTH, seen=seen)) for seen in (ours, theirs)]


def test_ceilings_are_thresholds_too(store: Store) -> None:
    rule = replace(MONTH, ceilings=(Ceiling((MONTH.reserve + 60) / 100, "haiku"),))
    settle(store, paid(rule, NOW - 60, 4_850))

    (said,) = look(store, rule)

    assert "60.02%" == said.what
    assert "Nothing above haiku is chosen, but for critical tasks" in said.text


def test_after_the_limit_was_changed_it_is_said_again(store: Store) -> None:
    settle(store, paid(MONTH, NOW - 60, 7_300))
    assert ["90%"] == [one.what for one in look(store, MONTH)]

    assert ["70%"] == [one.what for one in look(store, replace(MONTH, limit_nusd=10_000 * USD))]


def test_the_limit_is_reached_where_calls_begin_to_be_refused(store: Store) -> None:
    settle(store, paid(DAY, NOW - 60, 98), paid(MONTH, NOW - 60, 15_999))

    day, month = look(store, DAY, MONTH)

    assert ("100%", "100%") == (day.what, month.what)
    assert "98% of $100.00 spent. Only tool loops that began before go on" in day.text
    assert "Only critical tasks go on, up to $1.00 more" in month.text
    assert month.text.endswith("Resets 1 Dec 00:00 Europe/Vienna.")

    settle(store, paid(MONTH, NOW - 60, 1), paid(DAY, NOW - 60, 3))
    (said,) = look(store, DAY, MONTH)
    assert ("critical limit", True) == (said.what, "Every call is refused" in said.text)


def test_in_a_window_that_rolls_it_is_said_once_in_each_of_the_calendars(store: Store) -> None:
    rolling = replace(DAY, rolling=True)
    settle(store, paid(rolling, NOW - 60, 60))

    times = [NOW, NOW + 2 * HOUR_S, NOW + 11 * HOUR_S, NOW + 13 * HOUR_S]
    assert [1, 0, 0, 1] == [len(look(store, rolling, now=now)) for now in times]


def test_a_forecast_that_crosses_the_limit_is_said_once_before_a_threshold_is(store: Store) -> None:
    settle(store, *(paid(DAY, NOW - 60 * minute, "0.5") for minute in range(61)))  # $30 an hour, 30 %
    seen: dict[str, Seen] = {}

    (said,) = look(store, DAY, seen=seen)

    assert "forecast" == said.what
    assert (
        "Budget day: 30% of $100.00 spent. At this rate reached on Mon 23 Nov 14:19 ($30.00 an hour, over "
        "the last 1 h and 61 calls). On haiku the remaining $69.50 lasts until Fri 27 Nov. On sonnet the "
        "remaining $69.50 lasts until Mon 23 Nov 16:38. Resets 24 Nov 00:00 UTC."
    ) == said.text
    settle(store, paid(DAY, NOW, 5))
    assert [] == look(store, DAY, seen=seen)
    assert [] == look(store, DAY)  # another process


def test_a_threshold_tells_the_forecast_with_it(store: Store) -> None:
    settle(store, *(paid(DAY, NOW - 60 * minute, 1) for minute in range(61)))

    (said,) = look(store, DAY)

    assert ("50%", True) == (said.what, "At this rate reached on" in said.text)
    settle(store, paid(DAY, NOW, 5))
    assert [] == look(store, DAY)


@pytest.mark.parametrize(
    ("rule", "calls", "usd"),
    [
        pytest.param(DAY, 10, "1", id="too-little-data"),
        pytest.param(DAY, 61, "0.01", id="not-before-it-resets"),
        pytest.param(replace(MONTH, ceilings=()), 61, "0.9", id="too-far-ahead-for-an-hour-of-data"),
        pytest.param(replace(DAY, window="total"), 61, "0.01", id="never-ends-and-is-far"),
    ],
)
def test_no_alarm_without_reason(store: Store, rule: BudgetRule, calls: int, usd: str) -> None:
    settle(store, *(paid(rule, NOW - 60 * minute, usd) for minute in range(calls)))

    assert [] == look(store, rule)


def test_what_is_as_it_was_is_not_looked_at_again(store: Store) -> None:
    settle(store, paid(DAY, NOW, 40), paid(MONTH, NOW, 10))
    seen: dict[str, Seen] = {}
    look(store, DAY, MONTH, seen=seen)
    before = {account: replace(one) for account, one in seen.items()}

    look(store, DAY, MONTH, seen=seen)

    assert before == seen
    assert {"day", "team-a"} == set(seen)
    look(store, DAY, seen=seen)
    assert {"day"} == set(seen)


def test_it_is_logged_as_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    settle(store, paid(DAY, NOW, 60))

    (said,) = look(store, DAY)

    assert [("leastwise.notify", logging.WARNING, said.text)] == caplog.record_tuples


def test_a_webhook_is_posted_everything_at_once(store: Store, hook: Hook) -> None:
    settle(store, paid(DAY, NOW, 60), paid(MONTH, NOW, "7300.5", account="team-a"))

    said = look(store, MONTH, DAY, webhook=hook.url)

    ((path, body),) = hook.got
    assert "/services/secret" == path
    assert (1, "\n".join(one.text for one in said)) == (body["schema"], body["text"])
    team, day = body["messages"]
    assert {
        "what": "90%",
        "budget": "team-a",
        "account": "team-a",
        "scope": {},
        "window": "2026-10-31T23:00Z",
        "percent": 91.26,
        "spent_usd": 7300.5,
        "reserved_usd": 0,
        "limit_usd": 8000,
        "resets_at": "2026-11-30T23:00:00+00:00",
        "hourly_usd": None,
        "limit_reached_at": None,
        "text": said[0].text,
    } == team
    assert ("50%", "day") == (day["what"], day["budget"])

    look(store, MONTH, DAY, webhook=hook.url)
    assert 1 == len(hook.got)


@pytest.mark.parametrize(
    ("status", "headers"), [(500, {}), (404, {}), (302, {"location": "https://elsewhere.example/secret"})]
)
def test_a_webhook_that_refuses_is_told_without_its_address(
    store: Store, hook: Hook, caplog: pytest.LogCaptureFixture, status: int, headers: dict[str, str]
) -> None:
    hook.status, hook.headers = status, headers
    settle(store, paid(DAY, NOW, 60))

    assert 1 == len(look(store, DAY, webhook=hook.url))

    port = hook.url.split(":")[2].split("/")[0]
    expected = f"the webhook http://127.0.0.1:{port}/*** did not take what there is to say: HTTP {status}"
    assert expected == caplog.messages[-1]
    assert 1 == len(hook.got)
    assert "secret" not in caplog.text


def test_a_webhook_that_is_gone_is_told_without_its_address(
    store: Store, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(gone := Hook()):
        pass
    settle(store, paid(DAY, NOW, 60), paid(MONTH, NOW, 4_001))

    look(store, DAY, webhook=gone.url)
    look(store, MONTH, webhook=f"http://127.0.0.1:{hook.url.split(':')[2].split('/')[0]}/a secret")

    assert "refused" in caplog.messages[1]
    assert caplog.messages[3].endswith("did not take what there is to say: InvalidURL")
    assert "secret" not in caplog.text


def test_a_store_that_cannot_be_asked_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "leastwise.db"
    with closing(SqliteStore(file)) as store, closing(sqlite3.connect(file)) as other:
        settle(store, paid(DAY, NOW, 60))
        other.execute("DROP TABLE account")

        assert [] == look(store, DAY)

    assert caplog.messages[-1].startswith("budgets could not be looked at: ")
