"""Trials beside the calls of running clients: the real SDK, a port, the simulated upstream, a ledger."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.cascade.trials import MONEY, OpenTrial, Pairs
from leastwise.config import load
from leastwise.ladder import Task
from leastwise.ledger import Exchange
from leastwise.sdk.shadows import Beside, message_of
from leastwise.simulate import Ask, Server, Simulator, serve
from leastwise.simulate.rules import refuse
from leastwise.stores import Query
from tests.kit import HAIKU, OPUS, request

USD = 10**9
TRIAL = OpenTrial("T1", "triage", "haiku", HAIKU, "auto", "", 500, USD, 0.0)
ASK: Any = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]
CALL: dict[str, Any] = {"model": OPUS, "max_tokens": 2048, "messages": ASK, "task": Task(tag="triage")}
SAME = Pairs("exact", OPUS)

Make = Callable[..., Runtime]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make runtimes on one ledger."""
    made: list[Runtime] = []

    def make_one(**arguments: object) -> Runtime:
        environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
        made.append(Runtime(load(None, environ, cwd=tmp_path, arguments=arguments)))
        return made[-1]

    yield make_one
    for runtime in made:
        runtime.close()


@pytest.fixture
def runtime(make: Make) -> Runtime:
    """Return a runtime that observes, with an open trial."""
    made = make()
    assert made.store.begin_trial(TRIAL)
    return made


@pytest.fixture
def client(server: Server, runtime: Runtime) -> Iterator[leastwise.Anthropic]:
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as made:
        yield made


def sums(runtime: Runtime) -> dict[str, tuple[int, int]]:
    """Return compared and agreed pairs of the open trial, by how they were compared."""
    runtime.trials.close()  # waits for what is under way
    return {one.how: (one.n, one.agreed) for one in runtime.store.pairs_of("T1")}


def rows(runtime: Runtime, kind: str = "trial") -> list[Exchange]:
    runtime.store.flush()
    found = runtime.store.database.rows("SELECT id FROM exchange WHERE kind = ? ORDER BY id", (kind,))  # type: ignore[attr-defined]  # a file
    stories = [runtime.store.find(row[0]) for row in found]
    return [story.exchange for story in stories if story is not None]


def asked(server: Server) -> list[str]:
    return [message_of(seen.body).get("model", "") for seen in server.simulator.requests]


def test_what_is_answered_is_tried_beside_the_caller(
    server: Server, runtime: Runtime, client: leastwise.Anthropic
) -> None:
    message = client.messages.create(**CALL)

    assert OPUS == message.model
    assert {"exact": (1, 1)} == sums(runtime)
    assert [OPUS, HAIKU] == asked(server)
    (row,) = rows(runtime)
    assert ("triage", HAIKU, -row.spent_nusd) == (row.tag, row.served, row.saved_nusd)
    billed = {charge.model: charge.nusd for charge in server.simulator.books}
    (pairs,) = runtime.store.pairs_of("T1")
    assert (billed[HAIKU], billed[HAIKU], billed[OPUS]) == (
        row.spent_nusd,
        pairs.tier_nusd,
        pairs.measure_nusd,
    )
    (line,) = runtime.store.sums(Query())
    assert (1, billed[OPUS] + billed[HAIKU]) == (line.calls, line.spent_nusd)
    outcome = leastwise.outcome(row.id, client=client)
    assert outcome is not None
    assert f"trial of haiku for tag triage against {OPUS}: as good, exact" == outcome.reasons[0].words


def test_answers_that_differ_are_judged(runtime: Runtime) -> None:
    long, answers = "[simulated] " + "The delivery arrived on time. " * 4, ["Nonsense.", "[simulated] Fine."]

    def script(ask: Ask) -> str | None:
        if "output_config" in ask.body:
            return None  # the judge
        return long if ask.model.id == OPUS else answers.pop()

    with (
        serve(simulator=Simulator(answers=script)) as server,
        leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client,
    ):
        for _ in range(2):
            client.messages.create(**CALL)
            runtime.trials.close()

    assert {"judge by opus": (2, 1)} == sums(runtime)
    assert [OPUS, HAIKU, OPUS] * 2 == asked(server)


def test_a_tag_that_was_moved_is_compared_with_its_baseline(server: Server, make: Make) -> None:
    runtime = make(mode="enforce")
    runtime.store.begin_trial(TRIAL)
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        message = client.messages.create(**CALL)

    assert HAIKU == message.model
    assert {"exact": (1, 1)} == sums(runtime)
    assert [HAIKU, OPUS] == asked(server)


@pytest.mark.parametrize("how", ["stream", "create", "raw", "left", "streaming response"])
def test_streams_and_raw_responses_are_tried_when_they_have_been_read(
    runtime: Runtime, client: leastwise.Anthropic, how: str
) -> None:
    call = {**CALL, "betas": ["context-1m-2025-08-07"]} if how == "left" else CALL
    if how == "stream":
        with client.messages.stream(**call) as stream:
            stream.until_done()
    elif how == "create":
        for _ in client.messages.create(**call, stream=True):
            pass
    elif how == "raw":
        client.messages.with_raw_response.create(**call).parse()
    elif how == "left":
        events = client.beta.messages.create(**call, stream=True)
        for event in events:
            if event.type == "message_stop":
                break
        events.close()
    else:
        with client.messages.with_streaming_response.create(**call) as response:
            response.read()

    assert {"exact": (1, 1)} == sums(runtime)


def test_a_stream_that_was_not_read_to_its_end_is_not_tried(
    server: Server, runtime: Runtime, client: leastwise.Anthropic
) -> None:
    with client.messages.stream(**CALL) as stream:
        next(iter(stream))
    del stream

    assert ({}, [OPUS]) == (sums(runtime), asked(server))


def test_a_stream_that_breaks_off_is_not_tried(
    server: Server, runtime: Runtime, client: leastwise.Anthropic
) -> None:
    server.simulator.drop_next(3)
    with pytest.raises(Exception, match=r"."), client.messages.stream(**CALL) as stream:
        stream.until_done()

    assert {} == sums(runtime)


TOOL: Any = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
LOOP: Any = [
    *ASK,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}]},
]


@pytest.mark.parametrize(
    "changes",
    [
        {"task": Task(tag="other")},
        {"task": None},
        {"task": Task(tag="triage", route=False)},
        {"messages": LOOP, "tools": [TOOL]},
        {"max_tokens": 1},
        {"model": HAIKU},
    ],
    ids=["another tag", "no tag", "not to be routed", "tool loop", "cut off", "the tier itself"],
)
def test_what_is_not_tried(
    server: Server, runtime: Runtime, client: leastwise.Anthropic, changes: dict[str, Any]
) -> None:
    client.messages.create(**{**CALL, **changes})

    assert ({}, 1) == (sums(runtime), len(asked(server)))


def test_nothing_is_tried_where_all_is_off_nor_of_kept_answers(server: Server, make: Make) -> None:
    off, cached = make(mode="off"), make(mode="enforce", **{"cache.on": "all"})
    off.store.begin_trial(TRIAL)
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=off) as client:
        client.messages.create(**CALL)
        client.messages.create(**{**CALL, "model": "auto"})
    assert {} == sums(off)

    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=cached) as client:
        for _ in range(2):
            client.messages.create(**CALL)
            cached.trials.close()
    assert {"exact": (1, 1)} == sums(cached)


def test_a_callers_own_type_is_not_tried(runtime: Runtime, client: leastwise.Anthropic) -> None:
    client.post(
        "/v1/messages", body={name: CALL[name] for name in ("model", "max_tokens", "messages")}, cast_to=str
    )
    client.messages.create(**CALL)

    assert {"exact": (1, 1)} == sums(runtime)


def test_a_tier_that_is_gone_and_one_without_a_price_are_no_reason_to_fail(
    server: Server, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make()
    runtime.store.begin_trial(replace(TRIAL, tier="gone"))
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        client.messages.create(**CALL)
        assert {} == sums(runtime)

        runtime.store.end_trial("T1", lambda _: None)
        runtime.store.begin_trial(replace(TRIAL, judge="gone", compare="judge"))
        runtime.trials._looked_at = 0.0  # a second later
        server.simulator.script("[simulated] one", "[simulated] two")
        with caplog.at_level(logging.INFO, logger="leastwise"):
            client.messages.create(**CALL)
            assert {} == sums(runtime)
    assert "a pair of a trial could not be tried: ConfigError" in caplog.text


def test_a_trial_ends_when_it_has_what_it_wanted(server: Server, make: Make) -> None:
    runtime = make()
    runtime.store.begin_trial(replace(TRIAL, wanted=2))
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        for _ in range(4):
            client.messages.create(**CALL)
            runtime.trials.close()

    assert [] == runtime.store.open_trials()
    (trial,) = runtime.store.evidence("").trials.values()
    assert ("triage", "haiku", OPUS, "exact", 2, 2, HAIKU) == (
        trial.tag,
        trial.tier,
        trial.against,
        trial.compared,
        trial.n,
        trial.agreed,
        trial.model,
    )
    assert [OPUS, HAIKU] * 2 + [OPUS] * 2 == asked(server)

    enforcing = make(mode="enforce")
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=enforcing) as client:
        message = client.messages.create(**CALL)
        outcome = leastwise.outcome(message)
        assert outcome is not None
        assert ">=22.3% n 2" == outcome.same_quality
        found = leastwise.outcome(outcome.exchange, client=client)
        assert found is not None
        assert outcome.same_quality == found.same_quality


def test_a_trial_never_costs_more_than_it_may_with_several_clients(make: Make) -> None:
    """Its worst case is reserved before each call: the sum of what is billed stays below."""
    limit = 90 * 10**6
    first, second = make(), make()
    first.store.begin_trial(replace(TRIAL, limit_nusd=limit))
    simulator = Simulator(answers=lambda ask: f"[simulated] {ask.model.id} " + "words " * 30)
    with serve(simulator=simulator) as server:
        clients = [
            leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=one, max_retries=0)
            for one in (first, second) * 2
        ]

        def work(client: leastwise.Anthropic) -> None:
            for _ in range(12):
                client.messages.create(**{**CALL, "max_tokens": 1000})

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for runtime in (first, second):
            runtime.trials.close()
        for client in clients:
            client.close()

    charged = sum(
        nusd for (account, _), nusd in first.store.charged().items() if account.startswith("trial-triage")
    )
    trial_rows = sum(row.spent_nusd for row in rows(first))
    assert 0 < charged == trial_rows <= limit
    calls = sum(row.spent_nusd for row in rows(first, "message"))
    assert sum(charge.nusd for charge in simulator.books) == calls + charged


def test_a_trial_ends_when_its_money_is_used_up(server: Server, make: Make) -> None:
    runtime = make()
    runtime.store.begin_trial(replace(TRIAL, limit_nusd=1_200_000))
    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        for _ in range(20):
            client.messages.create(**CALL)
            runtime.trials.close()

    assert [] == runtime.store.open_trials()
    (trial,) = runtime.store.evidence("").trials.values()
    assert 0 < trial.n < 20
    assert trial.cost_nusd <= 1_200_000
    assert MONEY not in trial.compared


def test_what_is_wrong_with_a_trial_does_not_reach_the_caller(runtime: Runtime) -> None:
    def script(ask: Ask) -> None:
        if ask.model.id == HAIKU:
            refuse("not you", 403, "permission_error")

    with (
        serve(simulator=Simulator(answers=script)) as server,
        leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client,
    ):
        client.messages.create(**CALL)

    assert {"upstream error 403": (1, 0)} == sums(runtime)


def test_only_so_many_at_once(server: Server, runtime: Runtime, client: leastwise.Anthropic) -> None:
    taken = [runtime.trials.enter() for _ in range(5)]
    client.messages.create(**CALL)

    assert [True] * 4 + [False] == taken
    assert ({}, [OPUS]) == (sums(runtime), asked(server))
    runtime.trials.leave()
    client.messages.create(**CALL)
    assert {"exact": (1, 1)} == sums(runtime)


# --- on an event loop ------------------------------------------------------------------------------


def test_on_an_event_loop_it_is_a_task_of_its_own(server: Server, runtime: Runtime) -> None:
    async def work() -> None:
        async with leastwise.AsyncAnthropic(
            api_key="k", base_url=server.url, leastwise=runtime, max_retries=0
        ) as client:
            await client.messages.create(**CALL)
            assert 1 == len(runtime.trials.tasks)
            await asyncio.gather(*runtime.trials.tasks)
            async with client.messages.stream(**CALL) as stream:
                await stream.until_done()
            await asyncio.gather(*runtime.trials.tasks)
            await client.messages.create(**{**CALL, "messages": LOOP, "tools": [TOOL]})
            await asyncio.gather(*runtime.trials.tasks)
            assert [True, True, True, True] == [runtime.trials.enter() for _ in range(4)]
            await client.messages.create(**CALL)
            assert set() == runtime.trials.tasks

    asyncio.run(work())

    assert {"exact": (2, 2)} == sums(runtime)


def test_a_client_that_is_closed_waits_for_what_is_under_way(server: Server, runtime: Runtime) -> None:
    async def work() -> None:
        async with leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
            await client.messages.create(**CALL)
        assert set() == runtime.trials.tasks

    asyncio.run(work())
    assert {"exact": (1, 1)} == sums(runtime)

    with leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
        client.messages.create(**CALL)
    assert {"exact": (2, 2)} == sums(runtime)


def test_what_is_cancelled_is_given_up(runtime: Runtime) -> None:
    is_asked = threading.Event()

    def script(ask: Ask) -> None:
        if ask.model.id == HAIKU:
            is_asked.set()

    with serve(simulator=Simulator(answers=script, latency_s=0.05)) as server:

        async def work() -> None:
            async with leastwise.AsyncAnthropic(
                api_key="k", base_url=server.url, leastwise=runtime
            ) as client:
                await client.messages.create(**CALL)
                await asyncio.to_thread(is_asked.wait, 10)
                (task,) = runtime.trials.tasks
                task.cancel()
                await asyncio.wait({task})

        asyncio.run(work())

    assert {} == sums(runtime)
    assert [True] * 4 == [runtime.trials.enter() for _ in range(4)]
    (row,) = rows(runtime)
    assert ("abandoned", "estimated", True) == (row.result, row.certainty, row.spent_nusd > 0)


def test_what_goes_wrong_in_a_task_is_logged(
    server: Server, runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        async with leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
            await client.messages.create(**CALL)
            await asyncio.gather(*runtime.trials.tasks)

    monkeypatch.setattr(runtime.trials, "add", broken)
    with caplog.at_level(logging.INFO, logger="leastwise"):
        asyncio.run(work())
    assert "a pair of a trial could not be tried: ZeroDivisionError" in caplog.text
    assert runtime.trials.enter()


def test_without_a_loop_nothing_is_tried(runtime: Runtime) -> None:
    def unread() -> Any:
        raise AssertionError

    Beside(runtime, TRIAL, request(OPUS), lambda _steps: unread()).on_loop(unread)

    assert (set(), True) == (runtime.trials.tasks, runtime.trials.enter())


def test_of_what_nobody_knows_what_became_nothing_is_tried(runtime: Runtime) -> None:
    def untold(_steps: object) -> Any:
        raise AssertionError

    Beside(runtime, TRIAL, request(OPUS), untold).on_thread(lambda: ({}, None))

    assert {} == sums(runtime)


def test_what_is_no_message_is_empty() -> None:
    assert [{}, {}, {}, {"a": 1}] == [message_of(body) for body in (b"", b"{", b"[1]", b' {"a": 1}')]
