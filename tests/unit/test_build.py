"""The runtime: configuration that follows its file, what it says of itself, other upstreams."""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import Runtime, open_store
from leastwise.cache import NO_CACHE, Caching
from leastwise.client import run
from leastwise.config import Upstream, load
from leastwise.errors import ConfigError, StoreError
from leastwise.exchange import exchange
from leastwise.ladder import Task
from leastwise.messages import Reply
from leastwise.steps import Send
from leastwise.stores import Line, Query, WindowLine
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, OPUS, Clock, reply, request

FILE = "schema = 1\nmode = {mode!r}\n"
OBSERVING = "OBSERVING: every call goes to the model it asked for."


class House:
    """A configuration file, a ledger in memory and a clock."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.path = folder / "leastwise.toml"
        self.runtimes: list[Runtime] = []

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def open(self, **given: Any) -> Runtime:
        environ = {"LEASTWISE_STORE_URL": ":memory:", "XDG_CONFIG_HOME": str(self.folder)}
        read = partial(load, self.path if self.path.exists() else None, environ, cwd=self.folder)
        runtime = Runtime(read(), **{"reload": read, "clock": self.clock, **given})
        self.runtimes.append(runtime)
        return runtime


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, Clock())
    yield made
    for runtime in made.runtimes:
        runtime.close()


class Slow(SqliteStore):
    """A ledger in which it takes long to look at all budgets."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.beats = 0
        self.has_beaten = threading.Event()

    def beat(self) -> None:
        super().beat()
        self.beats += 1
        if self.beats == 3:
            self.has_beaten.set()

    def windows(self, *, since: str = "") -> list[WindowLine]:
        self.has_beaten.wait(20)
        return super().windows(since=since)


def test_a_long_look_at_budgets_keeps_no_process_from_saying_that_it_lives(house: House) -> None:
    store = Slow()
    runtime = house.open(store=store, budget_usd=1)
    for heart in (runtime._heart, runtime._watch):
        heart._every_s = 0.01
    ask(runtime)
    assert store.has_beaten.wait(10)


def ask(runtime: Runtime, model: str = OPUS, input_tokens: int = 200, output_tokens: int = 10) -> Any:
    """Run one request; return its outcome."""

    def upstream(step: Send) -> Reply:
        return reply(step.request.model, input_tokens, output_tokens)

    asked = runtime.call(request(model, max_tokens=2_000), Task(), max_retries=0)
    return run(exchange(asked, runtime.terms), upstream, runtime.desk).life.outcome


def test_a_changed_file_is_in_force_within_a_second(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.write(FILE.format(mode="observe"))
    runtime = house.open()
    assert OPUS == ask(runtime).model
    before = runtime.terms.policy_hash

    house.write(FILE.format(mode="enforce"))
    house.clock.sleep(0.5)
    assert OPUS == ask(runtime).model
    house.clock.sleep(0.5)
    with caplog.at_level(logging.INFO, logger="leastwise"):
        assert HAIKU == ask(runtime).model
    assert before != runtime.terms.policy_hash
    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert f"configuration read again: mode enforce, policy {runtime.terms.policy_hash}" == told


def test_a_clock_that_is_set_back_does_not_stop_the_reading(house: House) -> None:
    house.write(FILE.format(mode="observe"))
    runtime = house.open()
    house.write(FILE.format(mode="enforce"))
    house.clock.sleep(-3600)
    assert HAIKU == ask(runtime).model


@pytest.mark.parametrize(
    "wrong",
    [
        "schema = 1\nmode = 'enfroce'\n",
        "not toml at all",
        '[[tier]]\nname = "a"\nmodel = "claude-opus-5-5"\n[[tier]]\nname = "b"\nmodel = "claude-haiku-5-5"\n',
        '[[tier]]\nname = "a"\nmodel = "nobody-knows"\n',
    ],
)
def test_a_wrong_change_keeps_the_old_and_is_said_once(
    house: House, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    house.write(FILE.format(mode="enforce"))
    runtime = house.open()
    house.write(wrong)
    with caplog.at_level(logging.INFO, logger="leastwise"):
        for _ in range(3):
            house.clock.sleep(2)
            assert HAIKU == ask(runtime).model
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the changed configuration is not used, the one before stays in force: ")

    house.write(FILE.format(mode="off"))
    house.clock.sleep(2)
    assert OPUS == ask(runtime).model


def test_a_file_that_goes_is_read_as_none(house: House) -> None:
    house.write(FILE.format(mode="enforce"))
    environ = {"LEASTWISE_STORE_URL": ":memory:", "XDG_CONFIG_HOME": str(house.folder)}
    read = partial(load, None, environ, cwd=house.folder)
    with Runtime(read(), reload=read, clock=house.clock) as runtime:
        assert HAIKU == ask(runtime).model
        house.path.unlink()
        house.clock.sleep(2)
        assert OPUS == ask(runtime).model


def test_without_reload_the_configuration_is_for_good(house: House) -> None:
    house.write(FILE.format(mode="enforce"))
    runtime = house.open(reload=None)
    house.write(FILE.format(mode="off"))
    house.clock.sleep(60)
    assert HAIKU == ask(runtime).model


def test_an_exchange_keeps_the_policy_it_began_with(house: House) -> None:
    house.write(FILE.format(mode="enforce"))
    runtime = house.open()
    asked, begun = runtime.call(request(OPUS, max_tokens=2_000), Task(), max_retries=0), runtime.terms
    house.write(FILE.format(mode="off"))
    house.clock.sleep(2)
    ask(runtime)
    steps = exchange(asked, begun)
    result = run(steps, lambda step: reply(step.request.model), runtime.desk)
    assert result.life.outcome is not None
    assert HAIKU == result.life.outcome.model


def test_a_ladder_whose_prices_fall_is_refused(house: House) -> None:
    house.write(
        '[[tier]]\nname = "a"\nmodel = "claude-opus-5-5"\n[[tier]]\nname = "b"\nmodel = "claude-haiku-5-5"\n'
    )
    with pytest.raises(ConfigError, match="prices do not rise along the ladder: a before b"):
        house.open()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("OBSERVING")]


def test_observing_is_said_once_by_each_runtime_with_its_sums(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = house.open()
    assert HAIKU == ask(runtime, "auto").model
    assert [] == said(caplog)  # nothing was observed yet
    for _ in range(4):
        ask(runtime, OPUS, 20_000, 1_000)
    assert 1 == len(said(caplog))

    # four calls of opus at $0.10, which haiku would have answered for $0.0025
    line = f"{OBSERVING} Up to $0.39 of $0.40 could move, quality unknown. Switch on: leastwise on"
    again = Runtime(runtime.config, store=runtime.store, clock=house.clock)
    ask(again)
    ask(again)
    assert [line] == said(caplog)[1:]


@pytest.mark.parametrize("mode", ["enforce", "off"])
def test_who_does_not_observe_does_not_say_so(
    house: House, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    house.write(FILE.format(mode=mode))
    ask(house.open())
    assert [] == said(caplog)


class Broken(SqliteStore):
    """A ledger whose sums cannot be read."""

    def sums(self, query: Query) -> list[Line]:
        message = f"no such table: hourly {query.by}"
        raise sqlite3.OperationalError(message)


def test_a_ledger_that_cannot_be_read_is_no_reason_not_to_answer(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = house.open(store=Broken(":memory:"))
    assert OPUS == ask(runtime).model
    assert [f"{OBSERVING} Switch on: leastwise on"] == said(caplog)
    assert 1 == runtime.desk.faults


def test_a_ledger_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    config = load(None, {"LEASTWISE_STORE_URL": f"sqlite:///{blocked}/ledger.db"}, cwd=tmp_path)
    with pytest.raises(StoreError, match="ledger"):
        open_store(config)


def test_where_no_ledger_can_be_kept_and_none_was_asked_for_it_is_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with Runtime(load(None, {"XDG_STATE_HOME": str(blocked)}, cwd=tmp_path), clock=Clock()) as runtime:
        outcome = ask(runtime, "auto")
        assert outcome == runtime.outcome(outcome.exchange)
    (told,) = [one for one in caplog.messages if not one.startswith("OBSERVING")]
    assert told.startswith("the ledger is kept in memory and ends with this process: ")

    asked_for = load(None, {"LEASTWISE_STORE_URL": f"sqlite:///{blocked}/ledger.db"}, cwd=tmp_path)
    with pytest.raises(StoreError):
        Runtime(asked_for)


class Owner:
    """Whose connections are used."""


def test_another_upstream_has_one_client_for_each_owner(house: House) -> None:
    house.write('[upstream.local]\nbase_url = "http://127.0.0.1:11434"\n')
    runtime = house.open()
    made: list[Upstream] = []

    def make(upstream: Upstream) -> object:
        made.append(upstream)
        return object()

    one, two = Owner(), Owner()
    assert runtime.other_client("anthropic", one, make) is None
    first = runtime.other_client("local", one, make)
    assert first is runtime.other_client("local", one, make)
    assert first is not runtime.other_client("local", two, make)
    assert ["http://127.0.0.1:11434"] * 2 == [upstream.base_url for upstream in made]

    house.write('[upstream.local]\nbase_url = "http://127.0.0.1:8000"\n')
    house.clock.sleep(2)
    runtime.call(request(), Task(), max_retries=0)
    assert first is not runtime.other_client("local", one, make)
    assert "http://127.0.0.1:8000" == made[-1].base_url

    del one, two
    gc.collect()
    assert 0 == len(runtime._others)


def test_the_ledger_is_asked_for_what_became_of_an_id(house: House) -> None:
    runtime = house.open()
    outcome = ask(runtime, "auto")
    assert (
        outcome == runtime.outcome(outcome.exchange) == runtime.outcome("msg_1") == runtime.outcome("req_1")
    )
    assert runtime.outcome("msg_none") is None


def test_the_configured_runtime_is_opened_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEASTWISE_STORE_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with Runtime.open(mode="off") as runtime:
        assert "off" == runtime.config.mode
    monkeypatch.setenv("LEASTWISE_MODE", "enfroce")
    with pytest.raises(ConfigError, match="enfroce"):
        Runtime.open()


def test_ids_are_told_apart_and_sorted_by_time(house: House) -> None:
    runtime = house.open()
    ids = []
    for _ in range(50):
        ids.append(runtime.call(request(), Task(), max_retries=0).id)
        house.clock.sleep(0.002)
    assert sorted(ids) == ids
    assert 50 == len(set(ids))


# --- the cache -------------------------------------------------------------------------------------------

LOCAL = """
[upstream.local]
base_url = "http://127.0.0.1:{port}"
[[tier]]
name = "local"
model = "qwen"
upstream = "local"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[[price]]
provider = "local"
model = "qwen"
input = {price}
output = {price}
source = "ours"
as_of = 2026-11-23
"""
BY_ROLE = '[[rule]]\nrole = "subagent"\ntier = "haiku"\n'


def caching(house: House, text: str, model: str = OPUS, **told: Any) -> Caching:
    """Return what a request does with the cache under that configuration."""
    house.write("schema = 1\n" + text)
    runtime = house.open()
    task = told.pop("task", Task(cache=True))
    return runtime.terms.caching(runtime.call(request(model), task, max_retries=0, **told))


def test_where_servers_or_prices_change_answers_are_asked_for_anew(house: House) -> None:
    keys = [
        caching(house, LOCAL.format(port=port, price=price)).key
        for port, price in ((1, 0), (2, 0), (1, 1), (1, 0))
    ]

    assert 3 == len(set(keys))
    assert keys[0] == keys[3]


@pytest.mark.parametrize(("rules", "number"), [(BY_ROLE, 2), ("", 1)])
def test_who_calls_is_part_of_the_key_where_a_rule_asks(house: House, rules: str, number: int) -> None:
    headers: list[dict[str, str]] = [{}, {"x-claude-code-agent-id": "a"}]

    assert number == len({caching(house, rules, "auto", headers=given).key for given in headers})


def test_what_was_accepted_by_other_checks_is_not_given_again(house: House) -> None:
    def of(**told: Any) -> Caching:
        return caching(house, "[cascade]\nenabled = true\n", "auto", task=Task(cache=True, **told))

    told: list[dict[str, Any]] = [
        {},
        {"check": lambda *_: True},
        {"check": lambda *_: False},
        {"escalate_to": "sonnet"},
        {"threshold": 4},
        {"check": False},
    ]
    assert len(told) == len({of(**one).key for one in told})
    assert NO_CACHE == of(check=partial(print))  # nobody can tell what it would say


@pytest.mark.parametrize(
    ("text", "model", "task", "is_checked"),
    [
        ("", "auto", Task(), True),
        ("", OPUS, Task(), False),
        ('mode = "enforce"\n', OPUS, Task(), True),
        ('mode = "off"\n', "auto", Task(check="json"), False),
        ('mode = "off"\n', "haiku", Task(check="json"), False),
        ("", "auto", Task(check="json", route=False), False),
    ],
)
def test_where_nothing_is_chosen_nothing_is_checked(
    house: House, text: str, model: str, task: Task, *, is_checked: bool
) -> None:
    house.write(f"schema = 1\n{text}[cascade]\nenabled = true\n")

    asked = house.open().call(request(model), task, max_retries=0)
    assert is_checked == bool(asked.plan.checks)


TAGGED = '[[switch]]\ntag = "mail"\nmode = "{mode}"\npercent = {percent}\n'
MAIL = Task(tag="mail", cache=True)


@pytest.mark.parametrize(
    ("text", "model", "is_used"),
    [
        (TAGGED.format(mode="enforce", percent=10), OPUS, False),
        (TAGGED.format(mode="enforce", percent=10), "auto", True),
        (TAGGED.format(mode="enforce", percent=100), OPUS, True),
        (TAGGED.format(mode="enforce", percent=0), OPUS, True),
        (TAGGED.format(mode="observe", percent=10), OPUS, True),
        (TAGGED.format(mode="off", percent=100), OPUS, False),
        ('mode = "off"\n', "auto", False),
        ('[cache]\non = "off"\n', "auto", False),
    ],
)
def test_a_share_that_is_routed_answers_for_nobody_else_and_off_is_off(
    house: House, text: str, model: str, *, is_used: bool
) -> None:
    assert is_used == (NO_CACHE != caching(house, text, model, task=MAIL))


@pytest.mark.parametrize(
    ("said", "reads", "keeps"),
    [
        ("true", True, True),
        ("WRITE ", True, True),
        ("read", True, False),
        ("refresh", False, True),
        ("false", False, False),
        ("off", False, False),
        ("yes please", False, False),
    ],
)
def test_a_header_says_what_a_task_says(house: House, said: str, *, reads: bool, keeps: bool) -> None:
    use = caching(house, "", task=Task(), headers={"leastwise-cache": said})

    assert (reads, keeps) == (use.reads, use.keeps)


def test_the_cache_may_be_switched_on_while_the_process_runs(house: House) -> None:
    house.write('schema = 1\n[cache]\non = "off"\n')
    runtime = house.open()
    house.write('schema = 1\n[cache]\non = "all"\n')
    house.clock.sleep(2)
    body = b'{"type":"message","stop_reason":"end_turn","content":[]}'

    def upstream(step: Send) -> Reply:
        return replace(reply(step.request.model), body=lambda: body)

    def is_hit() -> bool:
        asked = runtime.call(request("auto"), Task(), max_retries=0)
        outcome = run(exchange(asked, runtime.terms), upstream, runtime.desk).life.outcome
        assert outcome is not None
        return outcome.from_cache

    assert [False, True] == [is_hit(), is_hit()]
