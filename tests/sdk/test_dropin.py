"""The drop-in client end to end: the real SDK, a real port, the simulated upstream, a real ledger."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.catalogue import Catalogue
from leastwise.config import load
from leastwise.ladder import Mode
from leastwise.simulate import Server, Simulator, serve
from leastwise.stores import Query, Story
from tests.kit import HAIKU, OPUS, SONNET
from tests.sdk.majors import http

ASK: Any = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]
PROOF: Any = [{"role": "user", "content": "is this proof right? Let n be even, then n squared is even."}]
WEATHER = {
    "name": "get_weather",
    "description": "Current weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


Make = Callable[..., Runtime]

_opened: list[leastwise.Anthropic] = []


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make runtimes on a ledger of the test's own."""
    made: list[Runtime] = []

    def make_one(mode: Mode = "observe", **arguments: object) -> Runtime:
        environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
        runtime = Runtime(load(None, environ, cwd=tmp_path, arguments={"mode": mode, **arguments}))
        made.append(runtime)
        return runtime

    yield make_one
    while _opened:
        _opened.pop().close()
    for runtime in made:
        runtime.close()


def sync_client(server: Server, runtime: Runtime, **arguments: Any) -> leastwise.Anthropic:
    """Return a client that is closed with its runtime's test."""
    client = leastwise.Anthropic(
        api_key="k", base_url=server.url, leastwise=runtime, max_retries=0, **arguments
    )
    _opened.append(client)
    return client


def story(runtime: Runtime, any_id: str | None) -> Story:
    assert any_id is not None
    found = runtime.store.find(any_id)
    assert found is not None
    return found


def stories(runtime: Runtime) -> list[Story]:
    runtime.store.flush()
    rows = runtime.store.database.rows("SELECT id FROM exchange ORDER BY id")  # type: ignore[attr-defined]
    return [story(runtime, row["id"]) for row in rows]


def test_ten_lines(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)

    message = client.messages.create(model="auto", max_tokens=1024, messages=ASK)

    assert isinstance(message, anthropic.types.Message)
    assert HAIKU == message.model
    outcome = leastwise.outcome(message)
    assert outcome is not None
    assert "haiku" == outcome.tier
    assert outcome.saved_usd == outcome.baseline_usd - outcome.cost_usd > 0
    assert str(outcome).startswith("haiku $0.0000")
    assert "claude-opus-5-5 $0.00" in str(outcome)
    (billed,) = [charge for charge in server.simulator.books if charge.message_id == message.id]
    assert billed.nusd == outcome.cost_usd * 10**9


def test_observing_changes_nothing_and_says_what_could_move(
    server: Server, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    with caplog.at_level(logging.WARNING, logger="leastwise"):
        message = client.messages.create(model=OPUS, max_tokens=1024, messages=ASK)
        client.messages.create(model=OPUS, max_tokens=1024, messages=ASK)

    assert OPUS == message.model
    outcome = leastwise.outcome(message)
    assert outcome is not None
    assert (Decimal(0), HAIKU) == (outcome.saved_usd, outcome.would)
    assert outcome.could_save_usd > 0
    observing = [record for record in caplog.records if record.getMessage().startswith("OBSERVING: ")]
    assert 1 == len(observing)


def test_enforcing_moves_what_is_simple_and_keeps_what_is_not(server: Server, make: Make) -> None:
    client = sync_client(server, make("enforce"))
    assert HAIKU == client.messages.create(model=OPUS, max_tokens=2048, messages=ASK).model
    assert OPUS == client.messages.create(model=OPUS, max_tokens=2048, messages=PROOF).model


def test_off_passes_everything_untouched_and_goes_on_counting(server: Server, make: Make) -> None:
    runtime = make("off")
    message = sync_client(server, runtime).messages.create(model=OPUS, max_tokens=1024, messages=ASK)
    assert OPUS == message.model
    assert "off" == story(runtime, message.id).exchange.mode


def test_the_body_is_what_the_sdk_alone_would_send(server: Server, make: Make) -> None:
    arguments: dict[str, Any] = {
        "model": OPUS,
        "max_tokens": 64,
        "messages": ASK,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "u"},
    }
    seen = server.simulator.requests
    anthropic.Anthropic(api_key="k", base_url=server.url).messages.create(**arguments)
    alone = seen[-1].body
    sync_client(server, make()).messages.create(**arguments, task=leastwise.Task(tag="t"))
    assert alone == seen[-1].body


def test_a_task_decides_and_forces(server: Server, make: Make) -> None:
    client = sync_client(server, make())
    task = leastwise.Task("classify this email as spam or not spam", expected_output_tokens=5)
    assert HAIKU == client.messages.create(model="auto", max_tokens=1024, messages=PROOF, task=task).model
    forced = leastwise.Task(tier="sonnet")
    assert SONNET == client.messages.create(model="auto", max_tokens=1024, messages=ASK, task=forced).model
    assert SONNET == client.messages.create(model="sonnet", max_tokens=1024, messages=ASK).model
    with pytest.raises(leastwise.ConfigError, match="opuss"):
        client.messages.create(model="auto", max_tokens=9, messages=ASK, task=leastwise.Task(tier="opuss"))
    with pytest.raises(TypeError, match=r"leastwise\.Task"):
        client.messages.create(model="auto", max_tokens=9, messages=ASK, task="classify")  # type: ignore[call-overload]


def test_streams_of_both_kinds(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)

    with client.messages.stream(
        model="auto", max_tokens=1024, messages=ASK, task=leastwise.Task(tag="s")
    ) as stream:
        assert leastwise.outcome(stream) is None
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "[simulated]" in text
    outcome = leastwise.outcome(stream)
    assert outcome is not None
    assert ("haiku", "exact", "ok") == (outcome.tier, outcome.certainty, outcome.result)
    assert "s" == story(runtime, final.id).exchange.tag
    assert outcome == leastwise.outcome(final, client=client)

    raw = client.messages.create(model="auto", max_tokens=1024, messages=ASK, stream=True)
    assert isinstance(raw, anthropic.Stream)
    assert "message_stop" == list(raw)[-1].type
    told = leastwise.outcome(raw)
    assert told is not None
    assert "exact" == told.certainty


def test_parse_raw_streaming_and_beta(server: Server, make: Make) -> None:
    class Verdict(pydantic.BaseModel):
        is_spam: bool

    runtime = make()
    client = sync_client(server, runtime)
    task = leastwise.Task("spam or not spam")
    parsed = client.messages.parse(
        model="auto", max_tokens=1024, messages=ASK, output_format=Verdict, task=task
    )
    assert isinstance(parsed.parsed_output, Verdict)

    messages: Any = client.messages  # `task` is typed on `create`, `stream` and `parse` only
    raw = messages.with_raw_response.create(model="auto", max_tokens=1024, messages=ASK, task=task)
    assert HAIKU == raw.parse().model
    outcome = leastwise.outcome(raw)
    assert outcome is not None
    assert "haiku" == outcome.tier

    with messages.with_streaming_response.create(
        model="auto", max_tokens=1024, messages=ASK, task=task
    ) as response:
        assert b"[simulated]" in b"".join(response.iter_bytes())
    told = leastwise.outcome(response)
    assert told is not None
    assert ("haiku", "exact") == (told.tier, told.certainty)

    beta = client.beta.messages.create(model="auto", max_tokens=1024, messages=ASK, task=task)
    assert HAIKU == beta.model
    assert ["ok"] * 4 == [one.exchange.result for one in stories(runtime)]


def test_a_tool_loop_stays_on_the_model_that_made_the_call(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    arguments: dict[str, Any] = {"model": "auto", "max_tokens": 2048, "tools": [WEATHER]}
    ask = {"role": "user", "content": "What is the weather in Paris? use the tool"}
    first = client.messages.create(**arguments, messages=[ask], task=leastwise.Task(tier="sonnet"))
    (call,) = [block for block in first.content if block.type == "tool_use"]
    result = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}],
    }
    turns = [ask, {"role": "assistant", "content": first.content}, result]

    again = sync_client(server, make())  # another client of the same ledger
    second = again.messages.create(**arguments, messages=turns)

    assert (SONNET, SONNET) == (first.model, second.model)
    outcome = leastwise.outcome(second)
    assert outcome is not None
    assert leastwise.Code.PINNED == outcome.reasons[0].code


def test_with_options_and_copies_stay_leastwise(server: Server, make: Make) -> None:
    client = sync_client(server, make())
    other = client.with_options(timeout=20)
    assert isinstance(other, leastwise.Anthropic)
    assert HAIKU == other.messages.create(model="auto", max_tokens=1024, messages=ASK).model
    assert (
        HAIKU == client.copy(max_retries=1).messages.create(model="auto", max_tokens=1024, messages=ASK).model
    )


def test_wrap_leaves_the_original_alone(server: Server, make: Make) -> None:
    plain = anthropic.Anthropic(api_key="k", base_url=server.url)
    plain.messages  # noqa: B018 - make the cached resource first
    wrapped = leastwise.wrap(plain, leastwise=make())
    assert isinstance(wrapped, anthropic.Anthropic)
    assert HAIKU == wrapped.messages.create(model="auto", max_tokens=1024, messages=ASK).model
    with pytest.raises(anthropic.NotFoundError):
        plain.messages.create(model="auto", max_tokens=1024, messages=ASK)
    with pytest.raises(TypeError, match="Leastwise client already"):
        leastwise.wrap(wrapped)
    with pytest.raises(TypeError, match="anthropic SDK"):
        leastwise.wrap("no client")


def test_errors_are_the_sdks_own_and_leave_a_row(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    server.simulator.fail_next(status=529)
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model=OPUS, max_tokens=10, messages=ASK)
    assert 529 == raised.value.status_code
    found = story(runtime, raised.value.request_id)
    assert ("error", 529, 0) == (found.exchange.result, found.exchange.status, found.exchange.spent_nusd)


def test_retries_are_ours_and_every_attempt_is_in_the_ledger(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime).with_options(max_retries=2)
    server.simulator.fail_next(2, status=529, headers={"retry-after-ms": "1"})
    message = client.messages.create(model=OPUS, max_tokens=10, messages=ASK)
    assert [529, 529, 200] == [entry.status for entry in story(runtime, message.id).entries]


def test_a_dropped_stream_leaves_a_row_and_no_connection(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    stream = client.messages.create(model=OPUS, max_tokens=1024, messages=ASK, stream=True)
    next(stream)
    del stream
    gc.collect()
    unread = client.messages.create(model=OPUS, max_tokens=1024, messages=ASK, stream=True)
    del unread
    gc.collect()
    with client.messages.stream(model=OPUS, max_tokens=1024, messages=ASK) as left:
        next(iter(left))

    assert ["abandoned"] * 3 == [one.exchange.result for one in stories(runtime)]
    assert {"estimated"} == {one.exchange.certainty for one in stories(runtime)}
    pool = client._client._transport._pool  # type: ignore[attr-defined]
    assert all(connection.is_idle() or connection.is_closed() for connection in pool.connections)


def test_what_a_client_who_left_is_charged_is_not_below_the_bill(make: Make) -> None:
    runtime = make()
    with serve(simulator=Simulator(tokens_per_s=120)) as server:
        client = sync_client(server, runtime)
        for events in (1, 4, 8):
            with client.messages.create(model=OPUS, max_tokens=1024, messages=ASK, stream=True) as stream:
                for _ in zip(range(events), stream, strict=False):
                    pass
    runtime.store.flush()
    billed = {charge.message_id: charge.nusd for charge in server.simulator.books}  # final now
    for one in stories(runtime):
        assert "estimated" == one.exchange.certainty
        assert one.exchange.spent_nusd >= billed[one.entries[0].message_id] > 0


@pytest.mark.parametrize("fault", ["drop", "truncate"])
def test_a_stream_that_breaks_is_cut_and_estimated(server: Server, make: Make, fault: str) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    if fault == "drop":
        server.simulator.drop_next(after_events=3)
    else:
        server.simulator.truncate_next()
    stream = client.messages.create(model=OPUS, max_tokens=1024, messages=ASK, stream=True)
    if fault == "drop":
        with pytest.raises(http.RemoteProtocolError):
            list(stream)
    else:
        list(stream)
    (one,) = stories(runtime)
    assert ("cut", "estimated") == (one.exchange.result, one.exchange.certainty)


def test_async_has_the_same_face(server: Server, make: Make) -> None:
    asyncio.run(use_the_async_face(server, make()))


async def use_the_async_face(server: Server, runtime: Runtime) -> None:
    client = leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0)
    async with client:
        message = await client.messages.create(model="auto", max_tokens=1024, messages=ASK)
        outcome = leastwise.outcome(message)
        assert outcome is not None
        assert "haiku" == outcome.tier
        async with client.messages.stream(model="auto", max_tokens=1024, messages=ASK) as stream:
            assert "[simulated]" in "".join([text async for text in stream.text_stream])
        told = leastwise.outcome(stream)
        assert told is not None
        assert "exact" == told.certainty
        raw = await client.messages.create(model="auto", max_tokens=1024, messages=ASK, stream=True)
        assert "message_stop" == [event.type async for event in raw][-1]
        again = await client.with_options(timeout=9).messages.create(
            model="haiku", max_tokens=1024, messages=ASK
        )
        assert HAIKU == again.model
        await client.feedback(message, ok=False, note="late")
    assert [(False, "late")] == [(one.ok, one.note) for one in story(runtime, message.id).feedback]


def test_a_cancelled_call_leaves_a_row(server: Server, make: Make) -> None:
    runtime = make()
    asyncio.run(cancel_a_call(server, runtime))
    (one,) = stories(runtime)
    assert ("abandoned", "estimated") == (one.exchange.result, one.exchange.certainty)


async def cancel_a_call(server: Server, runtime: Runtime) -> None:
    client = leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0)
    async with client:
        server.simulator.stall_next(5)
        call = asyncio.ensure_future(client.messages.create(model=OPUS, max_tokens=64, messages=ASK))
        await asyncio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


def test_one_client_many_threads(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)

    def work() -> None:
        for _ in range(10):
            client.messages.create(model="auto", max_tokens=1024, messages=ASK)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runtime.store.flush()
    (line,) = runtime.store.sums(Query())
    assert (80, 80) == (line.calls, line.moved)


def test_parent_and_forked_child_go_on_with_the_same_client(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)

    def work(calls: int) -> None:
        for _ in range(calls):
            client.messages.create(model="auto", max_tokens=1024, messages=ASK)

    with ThreadPoolExecutor(4) as pool:  # leaves several connections warm
        list(pool.map(work, [2] * 4))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(20)
            runtime.store.flush()
            status = 0
        finally:
            os._exit(status)
    work(20)
    _, status = os.waitpid(child, 0)
    assert 0 == status
    assert ["ok"] * 48 == [one.exchange.result for one in stories(runtime)]
    assert [1] * 48 == [len(one.entries) for one in stories(runtime)]


def test_a_copy_made_in_a_forked_child_has_connections_of_its_own(server: Server, make: Make) -> None:
    client = sync_client(server, make())
    client.messages.create(model="auto", max_tokens=1024, messages=ASK)
    inherited = client._client
    child = os.fork()
    if child == 0:
        os._exit(int(client.with_options(timeout=9)._client is inherited))
    _, status = os.waitpid(child, 0)
    assert 0 == status


def test_outcome_by_id_and_after_pickling(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    message = client.messages.create(model="auto", max_tokens=1024, messages=ASK)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    for any_id in (message.id, message._request_id, outcome.exchange):
        assert outcome == leastwise.outcome(any_id, client=client)
    assert outcome == leastwise.outcome(pickle.loads(pickle.dumps(message)), client=client)  # noqa: S301 - ours
    assert leastwise.outcome("msg_unknown", client=client) is None


def test_feedback_finds_the_call_by_whatever_the_sdk_gave_for_it(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    ask: Any = {"model": "auto", "max_tokens": 1024, "messages": ASK}
    message, raw = client.messages.create(**ask), client.messages.with_raw_response.create(**ask)
    events = client.messages.create(**ask, stream=True)
    with pytest.raises(leastwise.StoreError, match="nothing is known of"):
        client.feedback(events, ok=True)  # not ended, so not yet in the ledger
    list(events)
    with client.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    other, last = (client.messages.create(**ask) for _ in range(2))

    given = [
        message,
        raw,
        events,
        stream,
        final.id,
        leastwise.outcome(other),
        pickle.loads(pickle.dumps(last)),  # noqa: S301 - our own
    ]
    for number, one in enumerate(given):
        client.feedback(one, ok=number > 0, note="wrong" if number == 0 else "")

    said = [found.feedback for found in stories(runtime)]  # the stream and its message are one
    assert [("haiku", number > 0, "user") for number in range(len(given) - 1)] == [
        (one.tier, one.ok, one.source) for (one,) in said
    ]
    assert "wrong" == said[0][0].note
    for wrong in (None, 7, object()):
        with pytest.raises(TypeError, match="expected a message, a stream, an outcome or an id"):
            client.feedback(wrong, ok=True)
    with pytest.raises(leastwise.StoreError, match=r"nothing is known of 'msg_0'.* Searched: exchange ids"):
        client.feedback("msg_0", ok=True)
    with pytest.raises(TypeError, match="ok='yes': expected True or False"):
        client.feedback(message, ok="yes")  # type: ignore[arg-type]  # a word, as a form sends it


def test_feedback_of_a_kept_answer_counts_for_the_call_that_paid(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    ask: Any = {"model": "auto", "max_tokens": 1024, "messages": ASK, "task": leastwise.Task(cache=True)}
    client.messages.create(**ask)
    again = client.messages.create(**ask)
    outcome = leastwise.outcome(again)
    assert outcome is not None
    assert outcome.from_cache

    client.feedback(again, ok=False)
    client.feedback(outcome, ok=True)

    assert [[True], []] == [[one.ok for one in found.feedback] for found in stories(runtime)]


def test_what_is_no_message_passes(server: Server, make: Make) -> None:
    runtime = make()
    client = sync_client(server, runtime)
    assert client.messages.count_tokens(model=OPUS, messages=ASK).input_tokens > 0
    assert OPUS in [model.id for model in client.models.list()]
    assert [] == stories(runtime)


def test_a_named_upstream_without_its_key_is_said_and_costs_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "leastwise.toml"
    path.write_text(
        f"""
        schema = 1
        store.url = "sqlite:///{tmp_path}/other.db"
        [upstream.other]
        base_url = "{server.url}"
        api_key_env = "KEY_OF_THE_OTHER"
        [[tier]]
        name = "small"
        model = "claude-haiku-5-5"
        upstream = "other"
        [[tier]]
        name = "opus"
        model = "claude-opus-5-5"
        """,
        "utf-8",
    )
    with Runtime(load(path, {})) as runtime:
        client = sync_client(server, runtime)
        with pytest.raises(leastwise.ConfigError, match="KEY_OF_THE_OTHER is not set"):
            client.messages.create(model="small", max_tokens=1024, messages=ASK)
        (one,) = stories(runtime)
        assert ("error", 0) == (one.exchange.result, one.exchange.spent_nusd)
        client.close()


# --- what is adapted to another model, on the wire ------------------------------------------------------


def old_and_opus(make: Make, folder: Path) -> Runtime:
    """Return a runtime that routes, on a ladder of haiku 4.5 and opus 5.5; `make` closes it."""
    (folder / "leastwise.toml").write_text(
        'schema = 1\n[[tier]]\nname = "old"\nmodel = "claude-haiku-4-5"\n'
        f'[[tier]]\nname = "opus"\nmodel = "{OPUS}"\n'
    )
    return make("enforce")


def test_what_the_other_model_would_refuse_is_not_sent(server: Server, make: Make, tmp_path: Path) -> None:
    runtime = old_and_opus(make, tmp_path)
    client = sync_client(server, runtime)
    before = len(server.simulator.requests)

    message = client.beta.messages.create(
        model=OPUS,
        max_tokens=100_000,
        messages=ASK,
        betas=["effort-2025-11-24", "interleaved-thinking-2025-05-14"],
        output_config={"effort": "high"},
        timeout=60,
    )

    (seen,) = server.simulator.requests[before:]
    assert ("claude-haiku-4-5", "end_turn") == (message.model, message.stop_reason)
    assert "interleaved-thinking-2025-05-14" == seen.headers["anthropic-beta"]
    body = json.loads(seen.body)
    assert (64_000, False) == (body["max_tokens"], "output_config" in body)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    expected = "adapted: max_tokens 100,000 -> 64,000, output_config.effort removed, "
    assert f"{expected}anthropic-beta.effort-2025-11-24 removed" == outcome.reasons[-1].words


def test_the_last_beta_that_means_nothing_there_takes_its_header_along(
    server: Server, make: Make, tmp_path: Path
) -> None:
    runtime = old_and_opus(make, tmp_path)
    client = sync_client(server, runtime, default_headers={"anthropic-beta": "effort-2025-11-24"})
    before = len(server.simulator.requests)

    message = client.messages.create(model=OPUS, max_tokens=2_000, messages=ASK)

    assert "claude-haiku-4-5" == message.model
    assert "anthropic-beta" not in server.simulator.requests[before].headers


def test_a_refusal_of_a_swap_is_counted_by_model_and_member(server: Server, make: Make) -> None:
    runtime = make("enforce")
    client = sync_client(server, runtime)
    first = client.messages.create(model=HAIKU, max_tokens=2_000, messages=ASK, system="Be brief")
    turns: Any = [*ASK, {"role": "assistant", "content": [part.to_dict() for part in first.content]}, *ASK]

    # Opus does not read what haiku thought, and so does not mind that the system prompt has changed.
    message = client.messages.create(model=OPUS, max_tokens=2_000, messages=turns, system="Be long")

    assert OPUS == message.model
    assert {(HAIKU, "messages"): 1} == runtime.store.misfits(0)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    assert "refused with 400 on messages: sent as received" == outcome.reasons[-1].words


# --- what the upstream says of its models ---------------------------------------------------------------


def wait_for(what: Callable[[], bool]) -> None:
    for thread in threading.enumerate():
        if thread.name == "leastwise-models":
            thread.join(30)
    assert what()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_client_asks_once_which_models_there_are_and_nobody_waits(
    tmp_path: Path, *, is_async: bool
) -> None:
    with serve() as server:
        environ = {"XDG_CACHE_HOME": str(tmp_path), "ANTHROPIC_BASE_URL": server.url}
        config = load(None, environ, cwd=tmp_path, arguments={"store.url": ":memory:"})
        with Runtime(config) as runtime:
            for _ in range(2):
                ask_once(server, runtime, is_async=is_async)
            asked = Catalogue(config.cache_folder)
            wait_for(lambda: asked.is_fresh(server.url, time.time()))
            assert 1 == sum(seen.path.startswith("/v1/models") for seen in server.simulator.requests)


def ask_once(server: Server, runtime: Runtime, *, is_async: bool) -> None:
    if is_async:

        async def ask() -> None:
            async with leastwise.AsyncAnthropic(
                api_key="k", base_url=server.url, leastwise=runtime
            ) as client:
                await client.messages.create(model=HAIKU, max_tokens=50, messages=ASK)

        asyncio.run(ask())
    else:
        sync_client(server, runtime).messages.create(model=HAIKU, max_tokens=50, messages=ASK)


def test_a_call_needs_no_thread(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    environ = {"XDG_CACHE_HOME": str(tmp_path), "ANTHROPIC_BASE_URL": server.url}
    with Runtime(load(None, environ, cwd=tmp_path, arguments={"store.url": ":memory:"})) as runtime:
        client = sync_client(server, runtime)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert HAIKU == client.messages.create(model=HAIKU, max_tokens=50, messages=ASK).model


def test_an_upstream_that_lists_nothing_is_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "leastwise")
    with serve() as server:
        environ = {"XDG_CACHE_HOME": str(tmp_path), "ANTHROPIC_BASE_URL": server.url}
        with Runtime(load(None, environ, cwd=tmp_path, arguments={"store.url": ":memory:"})) as runtime:
            with pytest.raises(anthropic.AuthenticationError):
                sync_client(server, runtime).with_options(api_key="invalid").messages.create(
                    model=HAIKU, max_tokens=50, messages=ASK
                )
            wait_for(lambda: "did not list its models: AuthenticationError" in caplog.text)


# --- a small model is asked what a request is -----------------------------------------------------------

VAGUE: Any = [{"role": "user", "content": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich"}]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_small_model_is_asked_once_and_its_cost_counted(
    make: Make, *, is_async: bool, is_stream: bool
) -> None:
    runtime = make(**{"classifier.llm_tier": "haiku"})
    with serve() as server:
        server.simulator.script('{"kind": "extract"}', "Done", "Done")
        arguments: Any = {"model": "auto", "max_tokens": 50, "messages": VAGUE, "stream": is_stream}
        ask = asked_async if is_async else asked
        outcomes = [ask(server, runtime, arguments) for _ in range(2)]
        question, *others = [json.loads(seen.body) for seen in server.simulator.requests]
        billed = sum(charge.nusd for charge in server.simulator.books)

    kept = [story(runtime, one.exchange) for one in outcomes]
    assert ("stream" in question, [HAIKU, HAIKU]) == (False, [body["model"] for body in others])
    assert ["type: extract (a small model says)"] * 2 == [one.reasons[0].words for one in outcomes]
    assert [["classifier", "answer"], ["answer"]] == [
        [entry.purpose for entry in one.entries] for one in kept
    ]
    assert kept[0].entries[0].cost_nusd == kept[0].exchange.checks_nusd > 0
    assert billed == sum(one.exchange.spent_nusd for one in kept)
    assert [0, 0] == [one.exchange.discarded_nusd for one in kept]


def asked(server: Server, runtime: Runtime, arguments: Any) -> leastwise.Outcome:
    answer = sync_client(server, runtime, default_headers={"x-own": "1"}).messages.create(**arguments)
    if arguments["stream"]:
        list(answer)
    outcome = leastwise.outcome(answer)
    assert outcome is not None
    return outcome


def asked_async(server: Server, runtime: Runtime, arguments: Any) -> leastwise.Outcome:
    async def ask() -> leastwise.Outcome | None:
        async with leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
            answer: Any = await client.messages.create(**arguments)
            if arguments["stream"]:
                async for _ in answer:
                    pass
            return leastwise.outcome(answer)

    outcome = asyncio.run(ask())
    assert outcome is not None
    return outcome


def test_a_small_model_that_is_down_leaves_the_call_where_it_would_have_gone(make: Make) -> None:
    runtime = make(**{"classifier.llm_tier": "haiku"})
    with serve() as server:
        server.simulator.fail_next(status=529)
        answer = sync_client(server, runtime).messages.create(model="auto", max_tokens=50, messages=VAGUE)
        assert 2 == len(server.simulator.requests)

    assert OPUS == answer.model
    outcome = leastwise.outcome(answer)
    assert outcome is not None
    assert "unsure, so not cheap: baseline claude-opus-5-5" == outcome.reasons[0].words
