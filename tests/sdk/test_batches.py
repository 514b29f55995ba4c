"""Message batches end to end: the real SDK, a real port, the simulated upstream, a ledger with budgets."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest

import leastwise
from leastwise.batch import ENDPOINT, Results
from leastwise.budget import BudgetRule
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.errors import UnboundedError
from leastwise.ladder import Mode
from leastwise.ledger import Entry, Reserved
from leastwise.money import NUSD_PER_USD
from leastwise.sdk.results import hear
from leastwise.simulate import Charge, Server, serve
from leastwise.stores import Query
from tests.kit import HAIKU, OPUS, SONNET, terms
from tests.sdk.majors import http

ASK: Any = [{"role": "user", "content": "Is this spam? Win $1000 now!"}]
ALL = BudgetRule("all", 100 * NUSD_PER_USD)
#: Another model pays from another account; the two share the one above.
EACH = BudgetRule("each", 100 * NUSD_PER_USD, scope=("model",))
ENTRY = Reserved("id", "X", "batch", "anthropic", HAIKU, 0.0, 1).lost()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


Make = Callable[..., Runtime]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make runtimes on one ledger, as several processes have them."""
    made: list[Runtime] = []

    def make_one(*rules: BudgetRule, mode: Mode = "observe") -> Runtime:
        environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
        config = load(None, environ, cwd=tmp_path, arguments={"mode": mode})
        made.append(Runtime(replace(config, budgets=rules)))
        return made[-1]

    yield make_one
    for runtime in made:
        runtime.close()


class Caller:
    """A client, sync or async, plain or beta, called in one way."""

    def __init__(self, kind: str) -> None:
        self._is_async, self._is_beta = "async" in kind, "beta" in kind
        self._runner = asyncio.Runner()
        self._clients: list[Any] = []

    def client(self, server: Server, runtime: Runtime, **arguments: Any) -> Any:
        kind: Any = leastwise.AsyncAnthropic if self._is_async else leastwise.Anthropic
        given = {"api_key": "k", "base_url": server.url, "leastwise": runtime, "max_retries": 0, **arguments}
        self._clients.append(kind(**given))
        return self._clients[-1]

    def plain(self, server: Server) -> Any:
        kind: Any = anthropic.AsyncAnthropic if self._is_async else anthropic.Anthropic
        self._clients.append(kind(api_key="k", base_url=server.url))
        return self._clients[-1]

    def batches(self, client: Any) -> Any:
        return (client.beta if self._is_beta else client).messages.batches

    def now(self, value: Any) -> Any:
        """Return what a call gave, waited for where it is to be awaited."""

        async def waited() -> Any:
            return await value

        return self._runner.run(waited()) if inspect.isawaitable(value) else value

    def create(self, client: Any, *models: str, **members: Any) -> Any:
        asked = [item(f"r{index}", model, **members) for index, model in enumerate(models)]
        return self.now(self.batches(client).create(requests=asked))

    def results(self, client: Any, id_: str, most: int | None = None) -> list[Any]:
        """Read results, all of them or the first few, and then close."""
        found: list[Any] = []

        async def read() -> list[Any]:
            lines = await self.batches(client).results(id_)
            async for line in lines:
                found.append(line)
                if len(found) == most:
                    break
            await lines.close()
            return found

        if self._is_async:
            return self._runner.run(read())
        lines = self.batches(client).results(id_)
        for line in lines:
            found.append(line)
            if len(found) == most:
                break
        lines.close()
        return found

    def close(self) -> None:
        for client in self._clients:
            self.now(client.close())
        self._runner.close()


@pytest.fixture(params=["sync", "async", "sync beta", "async beta"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def sync() -> Iterator[Caller]:
    made = Caller("sync")
    yield made
    made.close()


def item(name: str, model: str = HAIKU, **members: Any) -> Any:
    given = {"model": model, "max_tokens": 1000, "messages": ASK, **members}
    return {"custom_id": name, "params": given}


def spent(runtime: Runtime) -> dict[str, int]:
    """Return what each account has spent; nothing may be reserved, and the ledger says the same."""
    runtime.store.flush()
    assert [] == runtime.store.reserved()
    found = {line.account: line.standing.spent_nusd for line in runtime.store.windows()}
    assert found == {account: nusd for (account, _), nusd in runtime.store.charged().items()}
    return found


def pending(runtime: Runtime) -> list[Entry]:
    return [entry for entry in runtime.store.lost() if entry.is_pending]


def bill(books: list[Charge], model: str = "") -> int:
    """Return what the upstream billed."""
    nusd = sum(charge.nusd for charge in books if not model or charge.model == model)
    assert nusd > 0
    return nusd


def posts(server: Server) -> int:
    return sum(seen.path.partition("?")[0] == ENDPOINT for seen in server.simulator.requests)


def test_a_batch_costs_its_most_until_its_results_pass_and_then_what_was_billed(
    server: Server, make: Make, caller: Caller
) -> None:
    runtime = make(ALL, EACH)
    client = caller.client(server, runtime)
    made = caller.create(client, HAIKU, OPUS, HAIKU)

    worst = {entry.model: entry.cost_nusd for entry in pending(runtime)}
    books = server.simulator.books
    most = {"all": sum(worst.values()), **{f"each|model={model}": worst[model] for model in (HAIKU, OPUS)}}
    assert most == spent(runtime)
    assert all(bill(books, model) <= worst[model] for model in (HAIKU, OPUS))
    assert {(made.id, "batch", 200)} == {
        (one.message_id, one.purpose, one.status) for one in pending(runtime)
    }
    assert (None, []) == (runtime.store.find(made.id), runtime.store.sums(Query()))

    lines = caller.results(client, made.id)

    assert ["r0", "r1", "r2"] == [line.custom_id for line in lines]
    exact = {"all": bill(books), **{f"each|model={model}": bill(books, model) for model in (HAIKU, OPUS)}}
    assert exact == spent(runtime)
    story = runtime.store.find(made.id)
    assert story is not None
    row = story.exchange
    assert ("batch", "ok", OPUS, OPUS, OPUS, "exact") == (
        row.kind,
        row.result,
        row.asked,
        row.served,
        row.baseline,
        row.certainty,
    )
    assert (bill(books), bill(books), 0, 0) == (
        row.spent_nusd,
        row.baseline_nusd,
        row.saved_nusd,
        row.discarded_nusd,
    )
    assert {"exact"} == {entry.certainty for entry in story.entries}
    for entry in story.entries:
        used = [charge.usage for charge in books if charge.model == entry.model]
        assert (sum(one.prompt_tokens for one in used), sum(one.output_tokens for one in used)) == (
            entry.usage.prompt_tokens,
            entry.usage.output_tokens,
        )
    outcome = leastwise.outcome(made.id, client=client)
    assert outcome is not None
    assert outcome.cost_usd * NUSD_PER_USD == bill(books)


def test_half_of_what_a_message_costs(server: Server, make: Make, sync: Caller) -> None:
    client = sync.client(server, make())
    client.messages.create(model=OPUS, max_tokens=1000, messages=ASK)
    sync.create(client, OPUS)
    whole, half = (charge.nusd for charge in server.simulator.books)
    assert whole == 2 * half > 0


def test_reading_results_again_changes_nothing(server: Server, make: Make, caller: Caller) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime)
    made = caller.create(client, HAIKU)
    caller.results(client, made.id)
    before = runtime.store.find(made.id)
    caller.results(client, made.id)
    assert before == runtime.store.find(made.id)
    assert {"all": bill(server.simulator.books)} == spent(runtime)
    assert 1 == runtime.store.sums(Query())[0].calls


def test_results_read_in_part_leave_the_most_charged(server: Server, make: Make, caller: Caller) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime)
    made = caller.create(client, HAIKU, HAIKU)
    before = pending(runtime)
    assert 1 == len(caller.results(client, made.id, most=1))
    assert before == pending(runtime)
    assert {"all": before[0].worst_nusd} == spent(runtime)
    caller.results(client, made.id)
    assert {"all": bill(server.simulator.books)} == spent(runtime)


def test_so_do_results_that_break_off(
    server: Server, make: Make, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime)
    made = caller.create(client, HAIKU, HAIKU, HAIKU)
    before = pending(runtime)
    server.simulator.drop_next()
    with pytest.raises((anthropic.APIError, http.HTTPError)):
        caller.results(client, made.id)
    server.simulator.truncate_next()
    with pytest.raises(json.JSONDecodeError):
        caller.results(client, made.id)
    assert before == pending(runtime)
    assert "it stays charged at its most" in caplog.text


def test_once_a_line_is_no_result_the_rest_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    response = http.Response(200, content=b"<html>\n{}\n")
    found: list[object] = []
    lost = [replace(ENTRY, message_id="msgbatch_1")]
    hear(response, response, Results("msgbatch_1", lost, terms()), lambda *steps: found.extend(steps))
    assert b"<html>\n{}\n" == b"".join(response.iter_bytes(1))
    assert ([], 1) == (found, len(caplog.records))


def test_another_process_settles(server: Server, make: Make, caller: Caller) -> None:
    here, there = make(ALL), make(ALL)
    made = caller.create(caller.client(server, here), HAIKU, SONNET)
    caller.results(caller.client(server, there), made.id)
    assert [] == pending(here)
    assert {"all": bill(server.simulator.books)} == spent(here) == spent(there)


def test_a_cap_that_is_too_small_refuses_and_nothing_is_sent(
    server: Server, make: Make, caller: Caller
) -> None:
    runtime = make(replace(ALL, limit_nusd=10_000_000))
    client = caller.client(server, runtime)
    with pytest.raises(leastwise.BudgetExceededError, match="Budget all: ") as raised:
        caller.create(client, *[OPUS] * 20)
    assert isinstance(raised.value, anthropic.APIStatusError)
    assert 402 == raised.value.status_code
    assert (0, {}) == (posts(server), {name: nusd for name, nusd in spent(runtime).items() if nusd})
    (line,) = runtime.store.sums(Query(by=("result",)))
    assert (("blocked",), 0) == (line.group, line.spent_nusd)
    assert ["cap"] == [step.trigger for _, _, step in runtime.store.step_downs()]


def test_what_one_model_was_granted_is_given_back_where_another_does_not_fit(
    server: Server, make: Make, caller: Caller
) -> None:
    wide = make(ALL)
    caller.create(caller.client(server, wide), HAIKU, OPUS)
    worst = {entry.model: entry.worst_nusd for entry in pending(wide)}
    runtime = make(BudgetRule("tight", worst[OPUS], reserve=Decimal(0)))

    with pytest.raises(leastwise.BudgetExceededError) as raised:
        caller.create(caller.client(server, runtime), HAIKU, OPUS)

    assert sum(worst.values()) == raised.value.needed_usd * NUSD_PER_USD
    assert 0 == raised.value.reserved_usd  # but for its own
    assert (1, 0) == (posts(server), spent(runtime)["tight"])


def test_without_budgets_it_is_in_the_ledger_all_the_same(server: Server, make: Make, caller: Caller) -> None:
    runtime = make()
    client = caller.client(server, runtime)
    made = caller.create(client, HAIKU)
    (entry,) = pending(runtime)
    assert bill(server.simulator.books) <= entry.cost_nusd
    caller.results(client, made.id)
    story = runtime.store.find(made.id)
    assert story is not None
    assert bill(server.simulator.books) == story.exchange.spent_nusd
    assert {} == spent(runtime)


@pytest.mark.parametrize("status", [400, 529])
def test_a_batch_that_was_not_accepted_costs_nothing(
    server: Server, make: Make, caller: Caller, status: int
) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime)
    server.simulator.fail_next(status=status)
    with pytest.raises(anthropic.APIStatusError):
        caller.create(client, HAIKU)
    assert {"all": 0} == spent(runtime)
    (line,) = runtime.store.sums(Query(by=("result",)))
    assert (("error",), 0) == (line.group, line.spent_nusd)


def test_it_is_tried_again_with_a_lease_of_its_own(server: Server, make: Make, caller: Caller) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime, max_retries=1)
    server.simulator.fail_next(status=529, headers={"retry-after-ms": "1"})
    made = caller.create(client, HAIKU)
    (entry,) = pending(runtime)
    first = runtime.store.entry(entry.parent)
    assert first is not None
    assert (529, 0) == (first.status, first.cost_nusd)
    caller.results(client, made.id)
    assert {"all": bill(server.simulator.books)} == spent(runtime)


def test_one_of_which_nobody_heard_whether_it_was_accepted_stays_charged(
    server: Server, make: Make, caller: Caller
) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime, max_retries=1)
    server.simulator.drop_next()
    made = caller.create(client, HAIKU)
    unknown = [entry for entry in runtime.store.lost() if not entry.is_pending]
    assert 1 == len(unknown) == len(pending(runtime))
    caller.results(client, made.id)
    story = runtime.store.find(made.id)
    assert story is not None
    assert (unknown[0].cost_nusd, "lost") == (story.exchange.discarded_nusd, story.exchange.certainty)
    # both were accepted, and both were billed
    assert 2 == len(server.simulator.books)
    assert bill(server.simulator.books) <= story.exchange.spent_nusd == spent(runtime)["all"]


@pytest.mark.parametrize("way", ["with_raw_response", "with_streaming_response"])
def test_raw_responses(server: Server, make: Make, sync: Caller, way: str) -> None:
    runtime = make(ALL)
    plain = sync.batches(sync.client(server, runtime))
    raw = getattr(plain, way)
    if way == "with_raw_response":
        id_ = raw.create(requests=[item("a")]).parse().id
    else:
        with raw.create(requests=[item("a")]) as response:
            id_ = json.loads(response.read())["id"]
    assert [id_] == [entry.message_id for entry in pending(runtime)]
    if not hasattr(raw, "results"):  # SDK 0.x
        lines = list(plain.results(id_))
    elif way == "with_raw_response":
        lines = list(raw.results(id_).parse())
    else:
        with raw.results(id_) as response:
            lines = list(response.iter_lines())
    assert 1 == len(lines)
    assert {"all": bill(server.simulator.books)} == spent(runtime)


def test_raw_responses_on_an_event_loop(server: Server, make: Make) -> None:
    runtime = make(ALL)

    async def ask() -> list[Any]:
        async with leastwise.AsyncAnthropic(api_key="k", base_url=server.url, leastwise=runtime) as client:
            plain: Any = client.messages.batches
            raw = plain.with_streaming_response
            async with raw.create(requests=[item("a")]) as response:
                id_ = (await response.parse()).id
            if not hasattr(raw, "results"):  # SDK 0.x
                return [line async for line in await plain.results(id_)]
            async with raw.results(id_) as response:
                return (await response.read()).splitlines()  # type: ignore[no-any-return]

    assert 1 == len(asyncio.run(ask()))
    assert {"all": bill(server.simulator.books)} == spent(runtime)


def test_requests_may_come_from_a_generator(server: Server, make: Make, caller: Caller) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime)
    made = caller.now(caller.batches(client).create(requests=(item(name) for name in "abc")))
    assert 3 == made.request_counts.processing
    assert 1 == len(pending(runtime))


def test_requests_that_the_api_refuses_cost_nothing(server: Server, make: Make, sync: Caller) -> None:
    runtime = make(ALL)
    client = sync.client(server, runtime)
    made = sync.create(client, HAIKU, HAIKU, temperature=7)
    assert ["errored"] * 2 == [line.result.type for line in sync.results(client, made.id)]
    story = runtime.store.find(made.id)
    assert story is not None
    assert ("error", 0, {"all": 0}) == (story.exchange.result, story.exchange.spent_nusd, spent(runtime))


def test_what_has_no_bound_is_refused_under_a_cap(server: Server, make: Make, sync: Caller) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch"}
    strange = {"messages": [{"role": "user", "content": [image]}], "tools": [fetch]}
    with pytest.raises(UnboundedError, match="budget 'all'"):
        sync.create(sync.client(server, make(ALL)), HAIKU, **strange)
    assert 0 == posts(server)


def test_a_model_without_a_price(server: Server, make: Make, sync: Caller) -> None:
    with pytest.raises(leastwise.UnknownPriceError):
        sync.create(sync.client(server, make()), "mistral-x")
    assert 0 == posts(server)
    client = sync.client(server, make(mode="off"))
    made = sync.create(client, "mistral-x")
    assert "errored" == sync.results(client, made.id)[0].result.type


def test_what_cannot_be_read_passes_unless_a_budget_would_pay(
    server: Server, make: Make, sync: Caller
) -> None:
    odd = [{"custom_id": "a", "params": {"model": HAIKU, "max_tokens": 9, "messages": 7}}]
    free = make()
    made = sync.batches(sync.client(server, free)).create(requests=odd)
    assert [] == pending(free)
    assert made.id.startswith("msgbatch_")
    with pytest.raises(leastwise.RequestError):
        sync.batches(sync.client(server, make(ALL))).create(requests=odd)
    with pytest.raises(leastwise.RequestError, match="no budget can cover them"):
        sync.batches(sync.client(server, make(ALL))).create(requests=[{"custom_id": "a"}])
    assert 1 == posts(server)


@pytest.mark.parametrize("is_ours", [True, False], ids=["leastwise", "plain"])
def test_a_recording_holds_no_batches(
    server: Server, make: Make, caller: Caller, tmp_path: Path, *, is_ours: bool
) -> None:
    runtime = make(ALL)
    client = caller.client(server, runtime) if is_ours else caller.plain(server)
    recording = leastwise.record(client, tmp_path / "log.jsonl")
    made = caller.create(recording, HAIKU)
    assert 1 == len(caller.results(recording, made.id))
    assert b"" == (tmp_path / "log.jsonl").read_bytes()
    assert ({"all": bill(server.simulator.books)} if is_ours else {}) == spent(runtime)


def test_other_calls_of_batches_pass(server: Server, make: Make, caller: Caller) -> None:
    client = caller.client(server, make(ALL))
    batches = caller.batches(client)
    made = caller.create(client, HAIKU)
    assert "ended" == caller.now(batches.retrieve(made.id)).processing_status
    assert [made.id] == [one.id for one in caller.now(batches.list(limit=1)).data]
    with pytest.raises(anthropic.BadRequestError, match="has ended"):
        caller.now(batches.cancel(made.id))
    assert made.id == caller.now(batches.delete(made.id)).id
    with pytest.raises(anthropic.NotFoundError):
        caller.now(batches.retrieve(made.id))
