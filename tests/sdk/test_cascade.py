"""Cheap first, checked, over a real port: what the caller gets, and what ledger and upstream say of it."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest

import leastwise
from leastwise import Task
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.ladder import Code
from leastwise.messages import Reply, Request
from leastwise.simulate import Server, Simulator, serve
from leastwise.simulate.answers import MARK, WRONG, Answer
from leastwise.simulate.rules import Ask
from tests.kit import HAIKU, OPUS, SONNET
from tests.sdk.majors import http
from tests.sdk.test_replay import CALL, EVENTS, FORMS, WHOLE, Chunks

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),  # the SDK's own parse
]
EASY, HARD = "Zwirbel knotz, easy", "Grumpf zwirbel, hard"
GOOD = f"{MARK} it is good: " + "and so on " * 60
OPEN: dict[str, Any] = {"max_tokens": 2_000, "model": "auto"}


def script(ask: Ask) -> Answer | str | None:
    """Answer wrongly on the smaller models what is hard; judges judge."""
    if "output_config" in ask.body:
        return None
    if "refuse" in ask.text and ask.model.id == HAIKU:
        return Answer("I can't help with that. " + "Sorry. " * 100)
    is_hard = "hard" in ask.text and ask.model.id != OPUS
    return WRONG + " so" * 100 if is_hard else GOOD


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(simulator=Simulator(answers=script)) as running:
        yield running


@pytest.fixture
def make(tmp_path: Path, server: Server) -> Iterator[Callable[..., Runtime]]:
    made: list[Runtime] = []

    def open_runtime(**arguments: Any) -> Runtime:
        environ = {
            "LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db",
            "XDG_CONFIG_HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": server.url,
        }
        usual = {"mode": "enforce", "cascade.enabled": True, "cascade.judge": "sonnet", "cascade.controls": 0}
        given = {**usual, "cascade.probes": 0, "classifier.learned": False, **arguments}
        runtime = Runtime(load(None, environ, cwd=tmp_path, arguments=given))
        made.append(runtime)
        return runtime

    yield open_runtime
    for runtime in made:
        runtime.close()


def client_of(server: Server, runtime: Runtime) -> leastwise.Anthropic:
    return leastwise.Anthropic(base_url=server.url, api_key="k", leastwise=runtime)


def ask(client: Any, text: str, task: Task | None = None, **members: Any) -> Any:
    turn = [{"role": "user", "content": text}]
    return client.messages.create(messages=turn, task=task, **{**OPEN, **members})


def told(message: Any) -> leastwise.Outcome:
    outcome = leastwise.outcome(message)
    assert outcome is not None
    return outcome


def models(server: Server) -> list[str]:
    return [line.model for line in server.simulator.books]


@pytest.fixture(autouse=True)
def fresh(server: Server) -> None:
    server.simulator.books.clear()


def test_a_good_answer_is_haikus_and_a_bad_one_climbs_until_a_judge_accepts(
    server: Server, make: Callable[..., Runtime]
) -> None:
    runtime = make()
    with client_of(server, runtime) as client:
        good, bad = ask(client, EASY), ask(client, HARD)

    assert (HAIKU, OPUS) == (good.model, bad.model)
    # each of haiku's answers is judged by sonnet, which would be its own judge, and so is passed by
    assert [HAIKU, SONNET, HAIKU, SONNET, OPUS] == models(server)
    outcome = told(bad)
    assert outcome.escalated
    assert ["haiku", "opus"] == list(dict.fromkeys(verdict.tier for verdict in outcome.checks))
    assert [Code.ESCALATED] == [r.code for r in outcome.reasons if r.code is Code.ESCALATED]
    billed = sum(line.nusd for line in server.simulator.books[2:])
    assert Decimal(billed) / 10**9 == outcome.cost_usd
    assert told(good).cost_usd < told(good).baseline_usd
    story = runtime.store.find(bad.id)
    assert story is not None
    assert outcome.checks == story.verdicts
    assert (1, "accept") == (story.exchange.escalations, story.exchange.checked)


@pytest.mark.parametrize("text", [EASY, HARD])
def test_a_stream_is_held_until_the_judge_has_spoken_and_is_then_whole(
    server: Server, make: Callable[..., Runtime], text: str
) -> None:
    runtime = make()
    with client_of(server, runtime) as client:
        with client.messages.stream(messages=[{"role": "user", "content": text}], **OPEN) as stream:
            final: Any = stream.get_final_message()
        events = list(ask(client, text, stream=True))
        with client.messages.with_streaming_response.create(
            messages=[{"role": "user", "content": text}], **OPEN
        ) as response:
            raw = response.parse()

    expected = HAIKU if text == EASY else OPUS
    assert [expected] * 3 == [final.model, events[0].message.model, raw.model]
    assert GOOD == final.content[-1].text
    assert "message_stop" == events[-1].type
    assert [HAIKU, SONNET] == models(server)[:2]


def test_the_same_on_an_event_loop(server: Server, make: Callable[..., Runtime]) -> None:
    async def both(runtime: Runtime) -> list[Any]:
        async with leastwise.AsyncAnthropic(base_url=server.url, api_key="k", leastwise=runtime) as client:
            hard = [{"role": "user", "content": HARD}]
            plain = client.messages.create(messages=hard, **OPEN)
            async with client.messages.stream(messages=hard, **OPEN) as stream:
                streamed = await stream.get_final_message()

            async def is_good(_request: Request, reply: Reply) -> bool:
                await asyncio.sleep(0)
                return WRONG not in reply.text

            own = await client.messages.create(messages=hard, task=Task(check=is_good), **OPEN)
            return [await plain, streamed, own]

    assert [OPUS] * 3 == [message.model for message in asyncio.run(both(make()))]


def test_with_free_checks_only_a_stream_is_let_go_when_its_first_words_pass(
    server: Server, make: Callable[..., Runtime]
) -> None:
    runtime = make(**{"cascade.checks": ["truncation", "refusal"]})
    with client_of(server, runtime) as client:
        passed = ask(client, EASY, stream=True)
        assert leastwise.outcome(passed) is None  # it is still under way: it was let go
        deltas = [event.delta for event in passed if event.type == "content_block_delta"]
        refused = list(ask(client, "Zwirbel, refuse", stream=True))

    assert GOOD == "".join(delta.text for delta in deltas if delta.type == "text_delta")
    outcome = told(passed)
    assert [("truncation", "accept"), ("refusal", "accept")] == [(v.check, v.says) for v in outcome.checks]
    assert SONNET == refused[0].message.model
    assert [HAIKU, HAIKU, SONNET] == models(server)
    story = runtime.store.find(refused[0].message.id)
    assert story is not None
    assert "estimated" == story.entries[0].certainty  # the refusal was not read to its end


def test_what_was_let_go_stays_what_it_was(server: Server, make: Callable[..., Runtime]) -> None:
    runtime = make(**{"cascade.checks": ["truncation"]})
    with client_of(server, runtime) as client:
        stream = ask(client, EASY, stream=True, max_tokens=100)
        assert "message_stop" == [event.type for event in stream][-1]

    assert [HAIKU] == models(server)
    assert ["escalate"] == [verdict.says for verdict in told(stream).checks]
    assert not told(stream).escalated


def test_the_callers_own_function_and_threshold(server: Server, make: Callable[..., Runtime]) -> None:
    runtime = make(**{"cascade.enabled": False})

    def score(_request: Request, reply: Reply) -> float:
        return 0.0 if WRONG in reply.text else 0.9

    with client_of(server, runtime) as client:
        assert HAIKU == ask(client, EASY, Task(check=score, threshold=0.5)).model
        assert OPUS == ask(client, HARD, Task(check=score, threshold=0.5)).model
        capped = ask(client, HARD, Task(check=score, threshold=0.5, escalate_to="sonnet"))
        assert SONNET == capped.model
        unsure = told(ask(client, EASY, Task(check=score)))  # a score that says nothing without a threshold
        assert "abstain" == next(v.says for v in unsure.checks if v.check == "score")
        assert OPUS == ask(client, EASY).model  # nothing is checked by itself
    with pytest.raises(leastwise.ConfigError, match="did you mean 'schema'"):
        ask(client_of(server, runtime), EASY, Task(check="shema"))


def test_a_command_is_a_check(server: Server, make: Callable[..., Runtime], tmp_path: Path) -> None:
    (tmp_path / "leastwise").mkdir()
    (tmp_path / "leastwise" / "leastwise.toml").write_text(
        '[[check]]\nname = "greps"\ncommand = "grep -q good"\ntimeout_s = 10\n'
    )
    with client_of(server, make()) as client:
        assert [HAIKU, OPUS] == [ask(client, text, Task(check="greps")).model for text in (EASY, HARD)]


def test_a_budget_that_cannot_cover_the_dearer_tier_leaves_the_answer_there_is(
    server: Server, make: Callable[..., Runtime]
) -> None:
    runtime = make(**{"limits.lease_wait_s": 0})
    small = leastwise.Runtime(runtime.config, store=runtime.store, budget_usd="0.006")
    message = ask(client_of(server, small), HARD)

    outcome = told(message)
    assert HAIKU == message.model
    assert Code.NOT_ESCALATED in [reason.code for reason in outcome.reasons] or "abstain" in [
        verdict.says for verdict in outcome.checks
    ]
    assert sum(line.nusd for line in server.simulator.books) <= 6_000_000


def test_only_what_is_accepted_is_kept_and_what_climbed_is_kept_as_it_ended(
    server: Server, make: Callable[..., Runtime]
) -> None:
    runtime = make(**{"cache.on": "all", "cascade.checks": ["truncation"]})
    with client_of(server, runtime) as client:
        first, again = ask(client, EASY, max_tokens=100), ask(client, EASY, max_tokens=100)
        whole, kept = ask(client, EASY), ask(client, EASY)

    assert "max_tokens" == first.stop_reason == again.stop_reason
    assert [False, False, False, True] == [told(m).from_cache for m in (first, again, whole, kept)]
    assert whole.content[-1].text == kept.content[-1].text


def test_a_conversation_stays_where_it_escalated_to(server: Server, make: Callable[..., Runtime]) -> None:
    runtime = make(**{"cascade.checks": ["truncation", "judge"]})
    with client_of(server, runtime) as client:
        assert OPUS == ask(client, HARD, Task(session="s")).model
        stays = ask(client, EASY, Task(session="s"))
        other = ask(client, EASY, Task(session="t"))

    assert (OPUS, HAIKU) == (stays.model, other.model)
    assert Code.FLOOR in [reason.code for reason in told(stays).reasons]


def test_what_is_only_observed_is_not_checked(server: Server, make: Callable[..., Runtime]) -> None:
    runtime = make(mode="observe")
    with client_of(server, runtime) as client:
        message = ask(client, HARD, model=OPUS)

    assert (OPUS, ()) == (message.model, told(message).checks)
    assert [OPUS] == models(server)


def test_an_enforced_model_is_the_last_that_may_answer(server: Server, make: Callable[..., Runtime]) -> None:
    with client_of(server, make()) as client:
        message = ask(client, HARD, model=SONNET)

    assert SONNET == message.model
    assert [HAIKU, SONNET, SONNET] == models(server)  # the answer, its judge, the model asked for


# --- every form of asking ---------------------------------------------------------------------------------


class Tiers:
    """An upstream whose tiers all answer the same, but for those with a status of their own."""

    def __init__(self, statuses: Mapping[str, int] | None = None, *, only: str = "") -> None:
        self._only = only
        self._statuses = statuses or {}

    def __call__(self, request: Any) -> Any:
        body = json.loads(request.content)
        model = self._only or body["model"]
        status = self._statuses.get(model.split("-")[1], 200)
        if status != 200:
            return http.Response(
                status, json={"type": "error", "error": {"type": "api_error", "message": ""}}
            )
        kind = "text/event-stream" if body.get("stream") else "application/json"
        chunks = EVENTS if body.get("stream") else [WHOLE]
        stream = Chunks(*(chunk.replace(HAIKU.encode(), model.encode()) for chunk in chunks))
        return http.Response(200, headers={"content-type": kind, "request-id": "req_1"}, stream=stream)

    def given(self, *, is_async: bool = False) -> dict[str, Any]:
        kind = anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient
        return {"api_key": "k", "http_client": kind(transport=http.MockTransport(self)), "max_retries": 0}


NEVER = """
mode = "enforce"
[[check]]
name = "never"
pattern = "zzz"
[cascade]
enabled = true
checks = ["never"]
stream = "buffer"
floor_s = 0
controls = 0
"""


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("statuses", "served"),
    [({"sonnet": 500}, HAIKU), ({"opus": 529}, SONNET), ({}, OPUS)],
    ids=["below", "between", "last"],
)
def test_whoever_answers_in_the_end_every_form_is_what_the_sdk_alone_gives(
    tmp_path: Path, name: str, statuses: dict[str, int], served: str
) -> None:
    file, form = tmp_path / "leastwise.toml", FORMS[name]
    file.write_text(NEVER)
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db"}

    async def later(kind: Any, tiers: Tiers, **more: Any) -> Any:
        async with kind(**tiers.given(is_async=True), **more) as client:
            return await form.later(client)

    alone, tiers = Tiers(only=served), Tiers(statuses)
    with Runtime(load(file, environ, cwd=tmp_path)) as runtime:
        with leastwise.Anthropic(**tiers.given(), leastwise=runtime) as client:
            assert form.sync(anthropic.Anthropic(**alone.given())) == form.sync(client)
        ours = asyncio.run(later(leastwise.AsyncAnthropic, tiers, leastwise=runtime))
        assert asyncio.run(later(anthropic.AsyncAnthropic, alone)) == ours
        stories = [runtime.store.find(row["id"]) for row in rows_of(runtime)]
    assert 2 == len(stories)
    for story in stories:
        assert story is not None
        assert (served, "ok") == (story.exchange.served, story.exchange.result)
        assert sum(entry.cost_nusd for entry in story.entries) == story.exchange.spent_nusd
        kept = sum(entry.cost_nusd for entry in story.entries if entry.model == served)
        assert story.exchange.discarded_nusd == story.exchange.spent_nusd - kept


def rows_of(runtime: Runtime) -> list[Any]:
    runtime.store.flush()
    return list(runtime.store.database.rows("SELECT id FROM exchange ORDER BY id"))  # type: ignore[attr-defined]


def test_looking_at_an_answer_warns_nobody_and_a_plain_dict_can_be_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "leastwise.toml"
    file.write_text(NEVER.replace("zzz", "is_spam"))
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db"}
    with (
        Runtime(load(file, environ, cwd=tmp_path)) as runtime,
        leastwise.Anthropic(**Tiers().given(), leastwise=runtime) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        assert HAIKU == client.messages.create(**CALL).model
        assert HAIKU == client.post("/v1/messages", body=CALL, cast_to=dict[str, Any])["model"]


JUDGE_ELSEWHERE = """
[upstream.local]
base_url = "{url}"
api_key_env = ""
[[price]]
provider = "local"
model = "claude-sonnet-5-5"
input = 1
output = 1
source = "ours"
as_of = 2026-11-23
[[tier]]
name = "haiku"
model = "claude-haiku-5-5"
[[tier]]
name = "sonnet"
model = "claude-sonnet-5-5"
upstream = "local"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[cascade]
enabled = true
judge = "sonnet"
controls = 0
[classifier]
learned = false
"""


def test_a_judge_elsewhere_gets_nothing_of_the_callers_but_the_task(tmp_path: Path, server: Server) -> None:
    own = {
        "anthropic-beta": "oauth-2025-04-20,context-1m-2025-08-07",
        "x-own": "SECRET",
        "cookie": "SECRET",
        "leastwise-session": "SECRET",
    }
    file = tmp_path / "leastwise.toml"
    with serve() as local:
        file.write_text(JUDGE_ELSEWHERE.format(url=local.url))
        environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db"}
        with Runtime(load(file, environ, cwd=tmp_path)) as runtime:
            client = leastwise.Anthropic(
                base_url=server.url, api_key="SECRET", default_headers=own, leastwise=runtime
            )
            with client:
                message = ask(client, EASY, extra_headers={"x-extra": "SECRET"}, extra_query={"q": "SECRET"})
        (seen,) = local.simulator.requests
    assert HAIKU == message.model
    assert ["accept"] == [one.says for one in told(message).checks if one.check == "judge"]
    assert "SECRET" not in repr(seen)
    assert "anthropic-beta" not in seen.headers
