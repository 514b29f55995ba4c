"""Processes and threads that hammer one set of budgets, are killed and started again; and who judges them.

A *crew* is a process that forks the workers, kills some at random moments and starts others in their
place. Each worker's threads send calls through `exchange` and both drivers to a `bank`, which keeps the
true bill. Meanwhile the *judge*, in the process that called `hammer`, looks at the accounts, settles what
the dead have left, and raises limits that are nearly used up: calls are granted and refused to the end.
In the middle of the run a day ends.

`hammer` returns what everybody saw; `wrongs` says what of it must not be.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf
from pathlib import Path
from traceback import format_exc
from typing import Any, Final

import msgspec

from leastwise.attempt import Call
from leastwise.budget import BudgetRule, Limits, Raise, Refusal, Standing, budget_of
from leastwise.client import Desk, Result, run, run_async
from leastwise.errors import BudgetExceededError, BudgetUnavailableError, StoreError, UpstreamFailure
from leastwise.exchange import exchange
from leastwise.features import Features
from leastwise.ladder import Baseline, Decision, Task
from leastwise.ledger import Entry, new_id
from leastwise.messages import Reply, Request
from leastwise.money import NUSD_PER_USD, to_nusd
from leastwise.routing import Known
from leastwise.steps import Lease, Record, Send, Settle
from leastwise.stores import Store, WindowLine, recover
from leastwise.stores.postgres import PostgresStore
from leastwise.stores.redis import RedisBudgets
from leastwise.stores.split import Split
from leastwise.stores.sqlite import SqliteStore
from tests import postgres
from tests.bank import Ask, AsyncLine, Bill, Line, bank, bills_of
from tests.kit import HAIKU, OPUS, SONNET, decision, terms
from tests.servers import valkey_url

_databases: Final = ExitStack()  # for as long as this process lives
_TAGS: Final = ("red", "green", "blue")
_DEAD_AFTER_S: Final = 20.0
_LOOP_TASKS: Final = 4
_LONGEST_SLEEP_S: Final = 0.02
_GRACE_S: Final = 2.0  # until what is on its way has arrived, on a busy machine
_SETTLED_S: Final = 1.0  # until a settlement that a busy server did not take has been tried again
_LOOK_S: Final = 0.05
_DAY_S: Final = 86_400


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        backend: One of `BACKENDS`, or `BROKEN`.
        folder: For files and logs; nothing is in it yet.
        url: The server, where the backend is one.
        processes: How many at a time.
        threads: Of each; every fourth runs an event loop with several tasks.
        seconds: How long.
        kills: How many processes are killed meanwhile.
        seed: For what is drawn.
        limit_nusd: Of all calls together; half of it for those of one tag, and of one day.
        has_raises: Whether limits that are nearly used up are raised.
        shift_s: What the workers' clocks are ahead of the real one.
    """

    backend: str
    folder: str
    url: str = ""
    processes: int = 8
    threads: int = 16
    seconds: float = 5.0
    kills: int = 12
    seed: int = 1
    limit_nusd: int = NUSD_PER_USD
    has_raises: bool = True
    shift_s: float = 0.0

    @property
    def rules(self) -> tuple[BudgetRule, ...]:
        """The budgets that all calls are to stay within."""
        half = self.limit_nusd // 2
        return (
            BudgetRule("all", self.limit_nusd, window="total", cap="block"),
            BudgetRule("tag", half, scope=("tag",), window="month", cap="block"),
            BudgetRule("day", half, window="day", critical_limit_nusd=half // 2),
        )


def _sqlite(plan: Plan, ahead_s: float) -> Store:
    return SqliteStore(_file(plan), clock=_clock(plan, ahead_s))


def _redis(plan: Plan, ahead_s: float) -> Store:
    ledger = SqliteStore(_file(plan), keeps_budgets=False, clock=_clock(plan, ahead_s))
    patient = "&socket_timeout=10" if ahead_s > _DEAD_AFTER_S else ""
    return Split(ledger, RedisBudgets(plan.url + patient, silent_s=max(0.0, _DEAD_AFTER_S - ahead_s)))


def _postgres(plan: Plan, ahead_s: float) -> Store:
    if ahead_s > _DEAD_AFTER_S:  # its server's clock stands in nobody's hand: its owners are made older
        postgres.pass_time(plan.url, ahead_s)
    return PostgresStore(plan.url, clock=_clock(plan))


class _Careless(SqliteStore):
    """Grants what fits beside what is spent, and reserves nothing."""

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:  # noqa: ARG002 - as its base
        stands = self.standings([claim.account for claim in lease.claims])
        for claim in lease.claims:
            standing = stands.get(claim.account.id, Standing())
            if standing.spent_nusd + lease.reserved.worst_nusd > claim.limit_nusd:
                return Refusal(claim, standing)
        return None


class _Stingy(SqliteStore):
    """Refuses now and then what would fit, and says that the rest is reserved."""

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:
        (claim, *_), first = lease.claims, lease.claims[0].account
        spent_nusd = self.standings([first]).get(first.id, Standing()).spent_nusd
        if hash(lease.reserved.id) % 4 == 0 and spent_nusd < claim.limit_nusd:
            return Refusal(claim, Standing(spent_nusd, claim.limit_nusd - spent_nusd))
        return super().lease(lease, may_wait=may_wait)


class _Leaky(SqliteStore):
    """Does not hear of every twentieth settlement."""

    def write(self, *steps: Settle | Record, may_wait: bool) -> None:
        kept = [step for step in steps if not (isinstance(step, Settle) and hash(step.entry.id) % 20 == 0)]
        super().write(*kept, may_wait=may_wait)


Open = Callable[[Plan, float], Store]
#: Opens a store of its own for a process, whose owners are dead when silent for 20 s less `ahead_s`.
BACKENDS: Final[dict[str, Open]] = {"sqlite": _sqlite, "redis": _redis, "postgres": _postgres}
#: What must not pass.
BROKEN: Final[dict[str, type[SqliteStore]]] = {"careless": _Careless, "stingy": _Stingy, "leaky": _Leaky}


def _database() -> str:
    return _databases.enter_context(postgres.database())


#: Backend -> a URL that nobody used before, on a server that is started if need be.
URLS: Final[dict[str, Callable[[], str]]] = {"redis": valkey_url, "postgres": _database}


def open_store(plan: Plan, ahead_s: float = 0.0) -> Store:
    """Return a store of the plan's backend, for this process."""
    if plan.backend in BROKEN and not ahead_s:
        return BROKEN[plan.backend](_file(plan), clock=_clock(plan, ahead_s))
    return BACKENDS.get(plan.backend, _sqlite)(plan, ahead_s)


def _file(plan: Plan) -> Path:
    return Path(plan.folder, "leastwise.db")


def _clock(plan: Plan, ahead_s: float = 0.0) -> Callable[[], float]:
    shift_s = plan.shift_s + ahead_s
    return lambda: time.time() + shift_s


# --- what workers write down -----------------------------------------------------------------------------


class Ended(msgspec.Struct, frozen=True, tag=True):
    """An exchange is over, and what it reserved is settled."""

    exchange_id: str
    at: float


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A call was refused: when it began, when it was told, by which account, and how that stood."""

    begun: float
    at: float
    account: str
    window_key: str
    spent_nusd: int
    leased_nusd: int
    limit_nusd: int
    needed_nusd: int


class Unavailable(msgspec.Struct, frozen=True, tag=True):
    """A budget could not be asked."""

    words: str


class Wrong(msgspec.Struct, frozen=True, tag=True):
    """Something that must not happen."""

    words: str


class Killed(msgspec.Struct, frozen=True, tag=True):
    """A process is dead."""

    who: str
    at: float


Note = Ended | Refused | Unavailable | Wrong | Killed


class _Log:
    """One process's notes, each on the disk's side as soon as it is written."""

    def __init__(self, plan: Plan, name: str) -> None:
        path = Path(plan.folder, f"{name}.notes")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, note: Note) -> None:
        os.write(self._file, msgspec.json.encode(note) + b"\n")


def _notes(plan: Plan) -> Iterator[Note]:
    for path in sorted(Path(plan.folder).glob("*.notes")):
        for line in path.read_bytes().split(b"\n")[:-1]:  # the last may have been cut by a kill
            yield msgspec.json.decode(line, type=Note)


# --- workers ---------------------------------------------------------------------------------------------


class _Worker:
    """One process under way."""

    def __init__(self, plan: Plan, who: str, port: int, until: float) -> None:
        self._plan, self._who, self._port, self._until = plan, who, port, until
        self._log = _Log(plan, who.replace(":", "-"))
        self._clock = _clock(plan)
        self._store = _opened(plan)
        self._desk = Desk(self._store, self._clock)
        limits = Limits(plan.rules, wait_s=0.2)
        self._terms = replace(terms(_decide, limits=limits), clock=self._clock, rng=random.SystemRandom())

    def work(self) -> None:
        threads = [
            threading.Thread(target=self._thread, args=(number,)) for number in range(self._plan.threads)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with suppress(BudgetUnavailableError):
                self._store.beat()
            time.sleep(0.2)
        self._store.flush()
        if self._desk.faults:
            self._log.write(Unavailable(f"{self._desk.faults} faults"))
        self._store.close()

    def _thread(self, number: int) -> None:
        rng = random.Random(f"{self._plan.seed} {self._who} {number}")
        try:
            if number % 4 == 3:
                asyncio.run(self._loop(rng))
            else:
                self._calls(rng)
        except BaseException:  # noqa: BLE001 - whatever it is, it must be seen
            self._log.write(Wrong(format_exc()))

    def _calls(self, rng: random.Random) -> None:
        line = Line(self._port)

        def upstream(step: Send) -> Reply:
            if rng.random() < 0.03:
                raise UpstreamFailure(OSError("never sent"), was_sent=False)
            return line.ask(self._ask(step, rng.uniform(0.005, 0.05) if rng.random() < 0.1 else None))

        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, _LONGEST_SLEEP_S))

        while time.time() < self._until:
            call = self._call(rng)
            with self._noted(call):
                _end(run(exchange(call, self._terms), upstream, self._desk, sleep=sleep), rng)
            self._settled(call)

    async def _loop(self, rng: random.Random) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_LOOP_TASKS):
                group.create_task(self._tasks(rng))

    async def _tasks(self, rng: random.Random) -> None:
        line, loop = AsyncLine(self._port), asyncio.get_running_loop()
        leaves_at: float | None = None

        async def upstream(step: Send) -> Reply:
            if rng.random() < 0.03:
                raise UpstreamFailure(OSError("never sent"), was_sent=False)
            left_s = None if leaves_at is None else max(0.0, leaves_at - loop.time())
            return await line.ask(self._ask(step, left_s))

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP_S))

        while time.time() < self._until:
            call = self._call(rng)
            steps = exchange(call, self._terms)
            leaves_at = loop.time() + rng.uniform(0, 0.06) if rng.random() < 0.2 else None
            with self._noted(call):
                task = loop.create_task(run_async(steps, upstream, self._desk, sleep=sleep))
                if leaves_at is not None:
                    loop.call_at(leaves_at, task.cancel)
                with suppress(asyncio.CancelledError):
                    _end(await task, rng)
            await asyncio.to_thread(self._settled, call)

    def _settled(self, call: Call) -> None:
        """Note that nothing is reserved any more for a call that is over."""
        self._store.flush()
        self._log.write(Ended(call.id, self._clock()))

    def _call(self, rng: random.Random) -> Call:
        text: dict[str, Any] = {"type": "text", "text": "x" * rng.randint(10, 400)}
        if rng.random() < 0.3:
            text["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        asked = Request.of(
            {
                "model": rng.choice([HAIKU, SONNET, OPUS]),
                "max_tokens": rng.choice([10, 100, 500, 1000, 2000]),
                "messages": [{"role": "user", "content": [text]}],
                "stream": rng.random() < 0.4,
            }
        )
        now = self._clock()
        task = Task(tag=rng.choice(_TAGS), critical=rng.random() < 0.1)
        return Call(new_id(now, self._terms.rng), now, asked, task)

    def _ask(self, step: Send, leaves_s: float | None) -> Ask:
        (block,) = step.request.messages[0]["content"]
        return Ask(
            self._who,
            step.entry_id,
            step.request.model,
            len(block["text"]),
            "cache_control" in block,
            step.request.max_tokens or 0,
            step.request.is_stream,
            leaves_s,
        )

    def _noted(self, call: Call) -> _Noted:
        return _Noted(self._log, call, self._clock)


@dataclass
class _Noted:
    """Notes how a call ended."""

    log: _Log
    call: Call
    clock: Callable[[], float]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        match error:
            case BudgetExceededError():
                self.log.write(_refused(self.call, error, self.clock()))
            case BudgetUnavailableError():
                self.log.write(Unavailable(str(error)))
            case None | OSError():
                pass
            case _:
                return False
        return True


def _refused(call: Call, error: BudgetExceededError, at: float) -> Refused:
    sums = (error.spent_usd, error.reserved_usd, error.limit_usd, error.needed_usd)
    return Refused(call.at, at, error.account, error.window_key, *map(to_nusd, sums))


def _decide(call: Call, _read: Features, _known: Known, _draw: float) -> Decision:
    model = call.request.model
    return decision(model, asked=model, fallback=model, mode="enforce", baseline=Baseline(model, "asked"))


def _end(result: Result, rng: random.Random) -> None:
    """Read a live answer as far as it goes, or drop it unread."""
    if not result.is_live:
        return
    life = result.life
    told, body = result.payload
    if told.end == "left" and not body.count(b"content_block_delta") and rng.random() < 0.5:
        life.abandon()  # what the garbage collector does
        return
    for at in range(0, len(body), 100):
        life.feed(body[at : at + 100])
    if told.end == "cut":
        life.finish(UpstreamFailure(ConnectionResetError()))
    elif told.end == "left":
        life.leave()
    else:
        life.finish()


def _crew(plan: Plan, port: int) -> None:
    """Keep workers running, and kill some; end when all have ended."""
    rng, log = random.Random(plan.seed), _Log(plan, "crew")
    began = time.time()
    until = began + plan.seconds
    kills = sorted(rng.uniform(0.1, 0.95) * plan.seconds + began for _ in range(plan.kills))
    running: dict[int, str] = {}
    for _ in range(plan.processes):
        _fork(plan, port, until, running)
    for at in kills:
        time.sleep(max(0.0, at - time.time()))
        pid = rng.choice(list(running))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        log.write(Killed(running.pop(pid), time.time()))
        _fork(plan, port, until, running)
    for pid, who in running.items():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            log.write(Wrong(f"worker {who} ended with {code}"))


def _opened(plan: Plan) -> Store:
    """Return a store; a server may be too busy to be opened at once."""
    for _ in range(40):
        with suppress(StoreError):
            return open_store(plan)
        time.sleep(0.1)
    return open_store(plan)


def _fork(plan: Plan, port: int, until: float, running: dict[int, str]) -> None:
    pid = os.fork()
    if pid:
        running[pid] = f"?:{pid}"
        return
    who = f"{time.monotonic_ns()}:{os.getpid()}"
    crash = Path(plan.folder, f"{os.getpid()}.crash").open("w")  # noqa: SIM115 - for as long as it lives
    faulthandler.enable(crash)
    try:
        _Worker(plan, who, port, until).work()
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        _Log(plan, who.replace(":", "-")).write(Wrong(format_exc()))
        os._exit(1)
    os._exit(0)


# --- the judge -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What everybody saw.

    Attributes:
        plan: What was to be done.
        bills: What the bank billed.
        notes: What workers and crew wrote down.
        entries: All of the ledger, afterwards.
        charged: What its charges add up to.
        windows: The accounts, afterwards.
        lost: What the ledger says of processes that died, afterwards.
        open_leases: How many leases are left after recovery.
        raises: What was added, just before it was.
        overruns: Accounts that were seen over their limit.
        looks: How often the judge looked.
        took_s: How long it all took.
    """

    plan: Plan
    bills: list[Bill] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    charged: dict[tuple[str, str], int] = field(default_factory=dict)
    windows: list[WindowLine] = field(default_factory=list)
    lost: list[Entry] = field(default_factory=list)
    open_leases: int = 0
    raises: list[Raise] = field(default_factory=list)
    overruns: list[str] = field(default_factory=list)
    looks: int = 0
    took_s: float = 0.0

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the notes of one kind."""
        return [note for note in self.notes if isinstance(note, kind)]

    def limit(self, account: str, at: float = inf) -> int:
        """Return the most that all calls together may have spent by then in one window of an account."""
        name, _ = budget_of(account)
        most_nusd = next(rule.most_nusd for rule in self.plan.rules if rule.name == name)
        return most_nusd + sum(one.nusd for one in self.raises if one.budget == name and one.at <= at)

    def counts(self) -> dict[str, int]:
        """Return how often what happened."""
        kinds = Counter(f"billed: {bill.kind}" for bill in self.bills)
        kinds |= Counter(f"entries: {entry.certainty}" for entry in self.entries)
        kinds |= Counter(f"notes: {type(note).__name__}" for note in self.notes)
        return {
            **dict(sorted(kinds.items())),
            "looks": self.looks,
            "processes": len({bill.who for bill in self.bills}),
            "retries": sum(entry.purpose == "retry" for entry in self.entries),
        }


def hammer(plan: Plan) -> Seen:
    """Have it done and return what was seen; the folder is to be removed by the caller."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.hammer"]
    pipe = subprocess.PIPE
    with bank(plan.seed) as port, subprocess.Popen(command, stdin=pipe, stdout=pipe) as crew:  # noqa: S603 - ours
        try:
            assert crew.stdin is not None
            assert crew.stdout is not None
            crew.stdout.readline()  # it is ready
            middle = time.time() + plan.seconds / 2
            midnight = (int(middle) // _DAY_S + 1) * _DAY_S
            plan = replace(plan, shift_s=midnight - middle)
            seen, judge = Seen(plan), open_store(plan, _DEAD_AFTER_S - 1)
            crew.stdin.write(msgspec.json.encode((plan, port)) + b"\n")
            crew.stdin.close()
            while crew.poll() is None:
                _look(judge, seen)
                time.sleep(_LOOK_S)
        finally:
            crew.kill()
        _look(judge, seen)
        judge.close()
        seen.bills = bills_of(port)
    seen.notes = list(_notes(plan))
    crashes = (path.read_text() for path in Path(plan.folder).glob("*.crash"))
    seen.notes += [Wrong(text) for text in crashes if text]
    if crew.returncode:
        seen.notes.append(Wrong(f"the crew ended with {crew.returncode}"))
    _look_back(seen)
    seen.took_s = time.monotonic() - began
    return seen


def _look(judge: Store, seen: Seen) -> None:
    """Look at the accounts, settle what the dead have left, raise what is nearly used up."""
    seen.looks += 1
    full: set[str] = set()
    try:
        recover(judge)
        lines = judge.windows()
    except BudgetUnavailableError:
        return
    for line in lines:
        stands = line.standing
        limit = seen.limit(line.account)
        if stands.spent_nusd + stands.leased_nusd > limit or min(stands.spent_nusd, stands.leased_nusd) < 0:
            seen.overruns.append(f"{line.account} {line.window_key}: {stands} of {limit}")
        if stands.spent_nusd > 0.7 * limit and seen.looks % 4 == 0:
            full.add(budget_of(line.account)[0])
    now = _clock(seen.plan)()
    for rule in seen.plan.rules:
        if rule.name in full and seen.plan.has_raises:
            seen.raises.append(Raise(rule.name, rule.limit_nusd, now + _DAY_S, "used up", "the judge", now))
            with suppress(BudgetUnavailableError):
                judge.add_raise(seen.raises[-1])


def _look_back(seen: Seen) -> None:
    """Settle what is left, long after, and read everything."""
    store = open_store(seen.plan, 60.0)
    recover(store)
    store.flush()
    seen.open_leases = len(store.reserved())
    ledger: Any = getattr(store, "_ledger", store)
    ids = [row[0] for row in ledger.database.rows("SELECT id FROM entry ORDER BY id")]
    seen.entries = [entry for entry in map(store.entry, ids) if entry is not None]
    seen.charged = store.charged()
    seen.windows = store.windows()
    seen.lost = store.lost()
    store.close()


# --- what must not be ------------------------------------------------------------------------------------


def wrongs(seen: Seen) -> list[str]:
    """Return what must not be, each in a line; nothing where all is well."""
    found = [note.words for note in seen.of(Wrong)]
    found += seen.overruns[:5]
    if seen.open_leases:
        found.append(f"{seen.open_leases} leases are left open")
    for look in (_overspent, _unbooked, _mislaid, _miscounted, _unexplained, _apparitions):
        found += look(seen)
    return found


def _overspent(seen: Seen) -> Iterator[str]:
    """Yield accounts whose true bill was at some moment, or whose records are, above the limit."""
    charges = {entry.id: entry.charges for entry in seen.entries}
    billed: Counter[tuple[str, str]] = Counter()
    for bill in sorted(seen.bills, key=lambda bill: bill.at):
        for charge in charges.get(bill.id, ()):
            where = charge.budget_id, charge.window_key
            billed[where] += bill.nusd
            limit = seen.limit(charge.budget_id, bill.at + seen.plan.shift_s)
            if bill.nusd and billed[where] > limit:
                yield f"{where}: {billed[where]} billed of {limit}"
    for where in billed.keys() | seen.charged.keys():
        recorded, limit = seen.charged.get(where, 0), seen.limit(where[0])
        if not billed[where] <= recorded <= limit:
            yield f"{where}: {billed[where]} billed, {recorded} recorded of {limit}"


def _unbooked(seen: Seen) -> Iterator[str]:
    """Yield calls that are billed higher than recorded, or otherwise where the ledger is sure."""
    entries = {entry.id: entry for entry in seen.entries}
    for bill in seen.bills:
        entry = entries.get(bill.id)
        if entry is None:
            if bill.nusd:
                yield f"{bill}: not in the ledger"
        elif bill.nusd > entry.cost_nusd or (entry.certainty == "exact" and bill.nusd != entry.cost_nusd):
            yield f"{bill}: recorded as {entry.certainty} {entry.cost_nusd}"
    for entry in seen.entries:
        if entry.cost_nusd > entry.worst_nusd:
            yield f"{entry}: above what was reserved"


def _mislaid(seen: Seen) -> Iterator[str]:
    """Yield what is lost although its process was not killed, or is lost and not told, or for too little."""
    lost = {entry.id: entry for entry in seen.entries if entry.certainty == "lost"}
    if sorted(lost) != sorted(entry.id for entry in seen.lost):
        yield "what is lost is not told"
    dead = {_pid(note.who) for note in seen.of(Killed)}
    theirs = [bill for bill in seen.bills if bill.id in lost]
    for bill in theirs:
        if _pid(bill.who) not in dead:
            yield f"{bill}: lost, though its process was not killed"
    if sum(bill.nusd for bill in theirs) > sum(entry.cost_nusd for entry in seen.lost):
        yield "killed processes were billed for more than is recorded as lost"


def _miscounted(seen: Seen) -> Iterator[str]:
    """Yield accounts whose counter is not what their charges add up to."""
    counted = {(line.account, line.window_key): line.standing for line in seen.windows}
    for where in counted.keys() | seen.charged.keys():
        standing, charged = counted.get(where, Standing()), seen.charged.get(where, 0)
        if (standing.spent_nusd, standing.leased_nusd) != (charged, 0):
            yield f"{where}: {standing}, but its charges add up to {charged}"


def _unexplained(seen: Seen) -> Iterator[str]:
    """Yield refusals that the charges and the leases of that time do not explain."""
    ended = {note.exchange_id: note.at for note in seen.of(Ended)}
    opened: dict[tuple[str, str], list[Entry]] = {}
    for entry in seen.entries:
        for charge in entry.charges:
            opened.setdefault((charge.budget_id, charge.window_key), []).append(entry)
    slack_s = _SETTLED_S if seen.plan.url else 0.0
    sums = {where: _Sums.of(entries, ended, slack_s) for where, entries in opened.items()}
    for refused in seen.of(Refused):
        held = refused.spent_nusd + refused.leased_nusd
        if held + refused.needed_nusd <= refused.limit_nusd:
            yield f"{refused}: fits"
        if not 0 <= refused.leased_nusd <= held <= seen.limit(refused.account, refused.at):
            yield f"{refused}: more than the limit"
        known = sums.get((refused.account, refused.window_key), _Sums.of((), ended, 0.0))
        spent, leased = known.most(refused.begun, refused.at)
        if refused.leased_nusd > leased or refused.spent_nusd > spent:
            yield f"{refused}: at most {spent} were spent and {leased} reserved then"


@dataclass(frozen=True)
class _Sums:
    """What one window's entries cost and reserved, by when they began and when they had ended."""

    begun: Sequence[float]
    worst: Sequence[int]
    gone: Sequence[float]
    gone_worst: Sequence[int]

    @classmethod
    def of(cls, entries: Sequence[Entry], ended: dict[str, float], slack_s: float) -> _Sums:
        by_begin = sorted((entry.asked_at, entry.worst_nusd) for entry in entries)
        over = ((ended.get(one.exchange_id), one.worst_nusd) for one in entries if one.certainty != "lost")
        by_end = sorted((at + slack_s, worst) for at, worst in over if at is not None)
        return cls(
            [at for at, _ in by_begin],
            [0, *accumulate(worst for _, worst in by_begin)],
            [at for at, _ in by_end],
            [0, *accumulate(worst for _, worst in by_end)],
        )

    def most(self, begin: float, end: float) -> tuple[int, int]:
        """Return the most that can have been spent and reserved at some moment from `begin` to `end`."""
        begun = self.worst[bisect_right(self.begun, end)]
        return begun, begun - self.gone_worst[bisect_left(self.gone, begin)]


def _apparitions(seen: Seen) -> Iterator[str]:
    """Yield calls of processes that were dead by then."""
    dead = {_pid(note.who): note.at for note in seen.of(Killed)}
    for bill in seen.bills:
        died_at = dead.get(_pid(bill.who))
        if died_at is not None and bill.at > died_at + _GRACE_S:
            yield f"{bill}: its process died at {died_at}"


def _pid(who: str) -> str:
    return who.rpartition(":")[2]


def main() -> None:
    """Be a crew; what goes wrong is noted, not logged."""
    logging.disable()
    print("ready", flush=True)  # noqa: T201 - who started it waits for this
    _crew(*msgspec.json.decode(sys.stdin.buffer.readline(), type=tuple[Plan, int]))


if __name__ == "__main__":
    main()
