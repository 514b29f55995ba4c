"""Whatever the upstream does and whenever the caller leaves: the books balance, in both drivers alike."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from hypothesis import given
from hypothesis import strategies as st

from leastwise.budget import BudgetRule, Limits, Refusal
from leastwise.client import Desk, Result, run, run_async
from leastwise.errors import UpstreamFailure
from leastwise.exchange import exchange
from leastwise.ladder import Baseline
from leastwise.ledger import Entry, Exchange
from leastwise.messages import Held, Reply
from leastwise.steps import Lease, Run, Send
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, OPUS, Clock, after, call, decision, holding, reply, request, terms

Kind = Literal["ok", "clamped", "live", "broken", "left", "status", "lost", "unsent", "interrupt", "defect"]


@dataclass(frozen=True)
class Event:
    """What one `Send` meets, after so many seconds."""

    kind: Kind
    number: int
    seconds: float


events = st.builds(
    Event,
    st.sampled_from(get_args(Kind)),
    st.one_of(st.integers(0, 2_000), st.sampled_from([400, 401, 404, 408, 413, 429, 500, 529])),
    st.floats(0, 700),
)
ends = st.sampled_from(["finish", "fail", "leave", "abandon", "unread"])

STREAM = (
    b"event: message_start\n"
    b'data: {"message":{"id":"msg_1","model":"claude-haiku-5-5","usage":{"input_tokens":9}}}\n\n'
    b'event: content_block_delta\ndata: {"index":0,"delta":{"type":"text_delta","text":"some text"}}\n\n'
    b"event: message_delta\n"
    b'data: {"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


LIMITS = Limits((BudgetRule("all", 10**15), BudgetRule("day", 10**14, window="day")))


class Listening(SqliteStore):
    """A ledger that notes which leases it was asked for."""

    def __init__(self, path: str, *, clock: Clock) -> None:
        super().__init__(path, clock=clock)
        self.leased: list[str] = []

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        refusal = super().lease(lease, may_wait=may_wait)
        self.leased.append(lease.reserved.id)
        return refusal


class Upstream:
    """Plays a script, to either driver."""

    def __init__(self, script: list[Event], clock: Clock) -> None:
        self._script = list(script)
        self._clock = clock

    def __call__(self, step: Send) -> Reply:
        event = self._script.pop(0) if self._script else Event("ok", 10, 0.0)
        self._clock.sleep(event.seconds)
        match event.kind:
            case "ok":
                return reply(step.request.model, 200, event.number)
            case "clamped":
                return reply(step.request.model, 200, event.number, stop_reason="max_tokens")
            case "live" | "broken" | "left":
                return Reply(Held("live", Chunks(event)), request_id="req_1")
            case "status":
                status = event.number if 400 <= event.number < 600 else 529
                raise UpstreamFailure(OSError("refused"), status=status)
            case "lost":
                raise UpstreamFailure(OSError("lost"))
            case "unsent":
                raise UpstreamFailure(OSError("unsent"), was_sent=False)
            case "interrupt":
                raise KeyboardInterrupt
            case _:
                message = "a defect in an adapter"
                raise LookupError(message)

    async def asynchronously(self, step: Send) -> Reply:
        await asyncio.sleep(0)
        return self(step)


class Chunks:
    """The bytes of a live answer, in either driver: whole, or they break off; or whoever reads them goes."""

    def __init__(self, event: Event) -> None:
        size = event.number % 97 + 1
        pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
        self._pieces = pieces if event.kind == "live" else pieces[: event.number % len(pieces)]
        broken = UpstreamFailure(OSError("broken"))
        self._end = {"live": None, "broken": broken, "left": KeyboardInterrupt()}[event.kind]

    def __next__(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        raise self._end or StopIteration

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self._pieces = []

    async def aclose(self) -> None:
        self.close()


#: Functions of the user's that say something, or fail, at once or later.
CHECKS = (lambda: "fine", lambda: 1 // 0, partial(asyncio.sleep, 0, "fine"), partial(asyncio.wait, ()))


cascades = st.fixed_dictionaries(
    {
        "gate": st.none() | st.builds(after, st.integers(0, 500), st.sampled_from(["commit", "drop"])),
        "check": st.none() | st.sampled_from([Run(check, 30.0) for check in CHECKS]),
        "way": st.sampled_from(["done", "relay", "stored"]),
    }
)


def end(result: Result, how: str, fed: int) -> None:
    if not result.is_live or how == "unread":
        result.life.abandon()  # what the collector does when the payload goes
        return
    result.life.feed(STREAM[:fed])
    if how == "fail":
        result.life.finish(UpstreamFailure(OSError("broken")))
    else:
        getattr(result.life, how)()
    result.life.abandon()


def play(
    script: list[Event],
    retries: int,
    clamp: int | None,
    leaving: tuple[str, int],
    cascade: dict[str, Any],
    *,
    is_async: bool,
) -> tuple[list[Exchange], list[Entry], list[str], list[str]]:
    """Run one exchange; return its rows, its entries, the ids that were leased, and how its answers did."""
    clock = Clock()
    store = Listening(":memory:", clock=clock)
    desk = Desk(store, clock)
    made = decision(HAIKU, asked=OPUS, mode="enforce", baseline=Baseline(OPUS, "asked"), max_tokens=clamp)
    asked = call(request(OPUS, max_tokens=1_000), max_retries=retries)
    told: list[object] = []
    steps = holding(exchange(asked, terms(made, clock, limits=LIMITS)), told, **cascade)
    upstream = Upstream(script, clock)

    async def pause(seconds: float) -> None:
        clock.sleep(seconds)

    try:
        if is_async:
            result = asyncio.run(run_async(steps, upstream.asynchronously, desk, sleep=pause))
        else:
            result = run(steps, upstream, desk, sleep=clock.sleep)
        end(result, *leaving)
    except (OSError, LookupError, KeyboardInterrupt):
        pass
    assert 0 == desk.faults
    store.flush()
    found = [store.find(row["id"]) for row in store.database.rows("SELECT id FROM exchange")]
    stories = [one for one in found if one is not None]
    entries = [entry for one in stories for entry in one.entries]
    (count,) = store.database.rows("SELECT COUNT(*) AS n FROM entry")
    assert len(entries) == count["n"]
    books = {(one.account, one.window_key): one.standing for one in store.windows()}
    assert {key: standing.spent_nusd for key, standing in books.items()} == store.charged()
    assert all(0 == standing.leased_nusd for standing in books.values())
    assert {standing.spent_nusd for standing in books.values()} == {sum(entry.cost_nusd for entry in entries)}
    store.close()
    return [one.exchange for one in stories], entries, store.leased, [repr(one) for one in told]


@given(
    st.lists(events, max_size=6),
    st.integers(0, 3),
    st.sampled_from([None, 50]),
    st.tuples(ends, st.integers(0, len(STREAM))),
    cascades,
)
def test_the_books_balance_and_both_drivers_agree(
    script: list[Event], retries: int, clamp: int | None, leaving: tuple[str, int], cascade: dict[str, Any]
) -> None:
    rows, entries, leased, told = play(script, retries, clamp, leaving, cascade, is_async=False)

    (row,) = rows
    assert sorted(leased) == sorted(entry.id for entry in entries)
    assert len(leased) == len(set(leased)) <= 3 * (retries + 1)
    assert sum(entry.cost_nusd for entry in entries) == row.spent_nusd
    assert 0 <= row.discarded_nusd <= row.spent_nusd
    assert row.baseline_nusd - row.spent_nusd == row.saved_nusd
    assert all(0 <= entry.cost_nusd for entry in entries)
    assert all(0 == entry.cost_nusd for entry in entries if entry.status >= 400)
    assert row.result in {"ok", "cut", "error", "abandoned"}
    assert ("exact" == row.certainty) is all("exact" == entry.certainty for entry in entries)

    again = play(script, retries, clamp, leaving, cascade, is_async=True)
    assert (rows, entries, leased, told) == again


@given(
    st.lists(st.lists(events.filter(lambda event: event.kind != "interrupt"), max_size=3), max_size=6),
    st.integers(0, 12),
    st.integers(0, 3),
)
def test_the_books_balance_however_many_share_a_loop_and_whoever_leaves(
    scripts: list[list[Event]], turns: int, leave: int
) -> None:
    clock = Clock()
    store = Listening(":memory:", clock=clock)
    store.beat()
    desk = Desk(store, clock)

    async def pause(seconds: float) -> None:
        clock.sleep(min(seconds, 0.001))

    async def one(number: int, script: list[Event]) -> None:
        made = terms(decision(HAIKU, asked=OPUS), clock, limits=LIMITS)
        made.rng.seed(number)
        upstream = Upstream([replace(event, seconds=0.0) for event in script], clock).asynchronously
        result = await run_async(exchange(call(id=f"X{number}"), made), upstream, desk, sleep=pause)
        end(result, "finish", len(STREAM))

    async def main() -> None:
        tasks = [asyncio.ensure_future(one(number, script)) for number, script in enumerate(scripts)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[:leave]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert (0, set()) == (desk.faults, desk.lives)
    books = {(one.account, one.window_key): one.standing for one in store.windows()}
    assert {key: standing.spent_nusd for key, standing in books.items()} == store.charged()
    assert all(0 == standing.leased_nusd for standing in books.values())
    (counts,) = store.database.rows(
        "SELECT (SELECT COUNT(*) FROM exchange), (SELECT COUNT(DISTINCT exchange_id) FROM entry)"
    )
    assert counts[0] == counts[1] >= len(scripts) - leave
    store.close()
