"""What one call costs through Leastwise when the upstream answers at once.

The upstream is a function that returns a ready reply, so all that is left is ours: the
decision, the lease, the steps, pricing, and the ledger in a SQLite file on disk
(`synchronous=NORMAL`, a transaction for each call). The time of the bare
function is taken off. A second upstream is the simulator in this process.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.measure import Figure, Quiet, Result, Subject, Table, Timing, side_by_side
from leastwise import client
from leastwise.attempt import Terms
from leastwise.build import Runtime
from leastwise.client import Desk
from leastwise.config import Config, load
from leastwise.exchange import exchange
from leastwise.ladder import Task
from leastwise.messages import Facts, Reply, Request, Usage
from leastwise.simulate import Simulator
from leastwise.steps import Send
from leastwise.stores.sqlite import SqliteStore

_LIMIT_US: Final = 250.0
_CALLS: Final = 300
_HEADERS: Final = {"x-api-key": "none", "anthropic-version": "2026-10-21"}
_ASK: Final = (
    "Is this spam? Dear customer, your parcel is waiting at our depot. Pay the fee of 1.99 within two days, "
    "or it goes back to the sender. Our opening hours are Monday to Friday from eight to six. "
)
_FUNCTION, _SIMULATOR = "the bare function", "the bare simulator"
_AUTO, _OBSERVED, _ASYNC = "`auto`, sync", "a model id, observed, sync", "`auto`, async"
_SIMULATED: Final = "`auto`, sync, simulator"
#: Row -> what it is compared with.
_BARE_OF: Final = {_AUTO: _FUNCTION, _OBSERVED: _FUNCTION, _ASYNC: _FUNCTION, _SIMULATED: _SIMULATOR}


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what a call costs over its upstream."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, ExitStack() as stack:
        runtime = stack.enter_context(_runtime(Path(folder, "ledger.db")))
        # Each driver has a file of its own, so that none waits for another one's checkpoint.
        on_loop = stack.enter_context(_runtime(Path(folder, "async.db")))
        simulated = stack.enter_context(_runtime(Path(folder, "simulated.db")))
        found = side_by_side([*_subjects(runtime, on_loop, simulated)], turns=turns, quiet=quiet)
        split = _split(Path(folder, "split.db"), turns, quiet)
    over = {name: found[name].mean - found[bare].mean for name, bare in _BARE_OF.items()}
    return Result(
        name="exchange",
        title="One call: exchange and ledger",
        method=(
            (
                "`client.run` and `client.run_async` over `exchange`, with a `Runtime` of default settings; "
                f"a request of {len(_body('auto'))} bytes, parsed anew for each call, outside the timing."
            ),
            (
                "The ledger is a new SQLite file in the user's home, on disk, in WAL mode with "
                "`synchronous=NORMAL`; each call commits its entry and its row in one transaction."
            ),
            "Judged by the mean, which holds checkpoints and collections, not by the median.",
            (
                "The split comes from a run of its own with a stopwatch around each part; it adds about a "
                "microsecond to each."
            ),
        ),
        tables=(_table(found, over), split),
        figures=tuple(
            Figure(f"{name}: over {_BARE_OF[name]}, mean", _LIMIT_US, over[name], "us")
            for name in (_AUTO, _ASYNC)
        ),
        reading=tuple(_reading(found, over)),
        packages=("msgspec",),
        facts=quiet.facts(),
    )


def _defaults(folder: Path) -> Config:
    """Return the configuration where no file and no variable says anything."""
    return load(environ={"XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder)}, cwd=folder)


def _runtime(path: Path) -> Runtime:
    return Runtime(_defaults(path.parent), store=SqliteStore(path))


def _subjects(runtime: Runtime, on_loop: Runtime, simulated: Runtime) -> Iterator[Subject]:
    ready = _ready()

    def answer(_: Send) -> Reply:
        return ready

    async def answer_async(_: Send) -> Reply:
        return ready

    simulator = Simulator(keep=10)

    def simulate(step: Send) -> Reply:
        return _simulated(simulator, step.request)

    step = Send("", "anthropic", Request.parse(_body("claude-haiku-5-5")))
    yield Subject(_FUNCTION, answer, lambda: step, _CALLS)
    yield Subject(_AUTO, _through(runtime, answer), _parser("auto"), _CALLS)
    yield Subject(_OBSERVED, _through(runtime, answer), _parser("claude-opus-5-5"), _CALLS)

    async def through_async(request: Request) -> object:
        call = on_loop.call(request, Task(), max_retries=0)
        return await client.run_async(exchange(call, on_loop.terms), answer_async, on_loop.desk)

    yield Subject(_ASYNC, through_async, _parser("auto"), _CALLS, is_async=True)
    yield Subject(_SIMULATOR, simulate, lambda: step, _CALLS)
    yield Subject(_SIMULATED, _through(simulated, simulate), _parser("auto"), _CALLS)


def _through(runtime: Runtime, upstream: client.Upstream) -> Callable[[Request], object]:
    def call(request: Request) -> object:
        entering = runtime.call(request, Task(), max_retries=0)
        return client.run(exchange(entering, runtime.terms), upstream, runtime.desk)

    return call


def _parser(model: str) -> Callable[[], Request]:
    body = _body(model)
    return lambda: Request.parse(body)


def _body(model: str) -> bytes:
    turn = {"role": "user", "content": _ASK * 3}
    return msgspec.json.encode({"model": model, "max_tokens": 1024, "messages": [turn]})


def _ready() -> Reply:
    facts = Facts(
        model="claude-haiku-5-5",
        message_id="msg_ready",
        stop_reason="end_turn",
        usage=Usage(input_tokens=190, output_tokens=5),
        is_complete=True,
    )
    return Reply("ready", facts, request_id="req_ready")


def _simulated(simulator: Simulator, request: Request) -> Reply:
    response = simulator.handle("POST", request.endpoint, _HEADERS, request.body())
    message = msgspec.json.decode(response.read())
    return Reply(message, Facts.read(message), request_id=response.headers["request-id"])


# --- where it goes -------------------------------------------------------------------------------------


class _Watch:
    """Adds up nanoseconds by part."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, timed under a name."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter_ns()
            try:
                return call(*args, **kwargs)
            finally:
                taken = time.perf_counter_ns() - begin
                self.spent[part] = self.spent.get(part, 0) + taken

        return timed


class _TimedStore(SqliteStore):
    """The ledger with a stopwatch at its door."""

    def watch(self, watch: _Watch) -> None:
        """Time what an exchange asks of the ledger from now on."""
        self.known = watch.around("ledger: what is known", self.known)  # type: ignore[method-assign]
        self.write = watch.around("ledger: write entry and row", self.write)  # type: ignore[method-assign]


def _split(path: Path, turns: int, quiet: Quiet) -> Table:
    """Return where a sync call's time goes, in the turn with the least in all."""
    ready = _ready()
    store = _TimedStore(path)
    with Runtime(_defaults(path.parent), store=store) as runtime:
        watch = _Watch()
        store.watch(watch)
        terms: Terms = replace(runtime.terms, decide=watch.around("decide", runtime.terms.decide))
        desk: Desk = runtime.desk
        fresh = _parser("auto")

        def one(request: Request) -> None:
            call = runtime.call(request, Task(), max_retries=0)
            client.run(exchange(call, terms), lambda _: ready, desk)

        best: dict[str, int] = {}
        gc.collect()
        for _ in range(turns):
            quiet.wait()
            watch.spent = {}
            whole = 0
            for _ in range(_CALLS):
                request = fresh()
                begin = time.perf_counter_ns()
                one(request)
                whole += time.perf_counter_ns() - begin
            parts = {
                **watch.spent,
                "the rest: reading, leases, prices, steps": whole - sum(watch.spent.values()),
            }
            if not best or whole < sum(best.values()):
                best = parts
    whole = sum(best.values())
    rows = [
        (part, f"{taken / _CALLS / 1000:.1f}", f"{taken / whole:.0%}")
        for part, taken in sorted(best.items(), key=lambda item: -item[1])
    ]
    head = ("part", "us per call, mean", "share")
    return Table(
        "Where it goes (`auto`, sync)", head, (*rows, ("all", f"{whole / _CALLS / 1000:.1f}", "100%"))
    )


# --- what came out -------------------------------------------------------------------------------------


def _table(found: dict[str, Timing], over: dict[str, float]) -> Table:
    rows = tuple(
        (
            name,
            *(f"{us:.1f}" for us in (t.mean, t.p50, t.p95, t.p99, t.worst_p50)),
            f"{over[name]:.1f}" if name in over else "-",
            f"{t.turns} x {t.calls:,}",
        )
        for name, t in found.items()
    )
    head = ("us per call", "mean", "p50", "p95", "p99", "p50, worst turn", "mean over bare", "turns x calls")
    return Table("All in one run, turn by turn; the best turn of each", head, rows)


def _reading(found: dict[str, Timing], over: dict[str, float]) -> Iterator[str]:
    yield (
        f"Through Leastwise a call costs {over[_AUTO]:.0f} us more, sync, and {over[_ASYNC]:.0f} us async: "
        f"some {1_000_000 / found[_AUTO].mean:,.0f} calls a second on one core, where a model takes seconds."
    )
    yield "Observed calls pay the same: a decision is made and recorded, though it is not followed."
    yield (
        "Not in here: the client's own work (the SDK's objects, HTTP), other processes that write to the "
        "same ledger, and a slow disk."
    )
