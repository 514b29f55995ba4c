"""Timing side by side, and writing down what came out, on which machine.

Programs that are compared run in one process, turn by turn, so that a busy moment of
the machine hits all of them. Before each turn the machine should be quiet; how busy
others kept it is written beside the result.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results"

#: What the installed `leastwise` command runs.
LEASTWISE: Final = (sys.executable, "-c", "import sys; from leastwise.cli import main; sys.exit(main())")

_QUIET: Final = 0.10  # share of all cores that others may keep busy
_LOOK_S: Final = 0.1
_LOOP_TURNS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Subject:
    """One program to be timed.

    Args:
        name: What the table calls it.
        call: What is timed; given what `fresh` made.
        fresh: Makes the argument of one call; not timed.
        calls: How often a turn calls it.
        is_async: Whether `call` returns an awaitable, which is awaited on one event loop.
    """

    name: str
    call: Callable[[Any], Any]
    fresh: Callable[[], Any] = lambda: None
    calls: int = 300
    is_async: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds per call, of the turn with the lowest median; `worst_p50` is the highest median."""

    p50: float
    p95: float
    p99: float
    mean: float
    worst_p50: float
    turns: int
    calls: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A promised figure beside what was measured; `value` None where it could not be.

    `limit` is the most that it may be, or with `is_least` the least.
    """

    what: str
    limit: float
    value: float | None
    unit: str
    is_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether it was met."""
        if self.value is None:
            return "not measured"
        is_met = self.value >= self.limit if self.is_least else self.value <= self.limit
        return "met" if is_met else "NOT MET"

    @property
    def promise(self) -> str:
        """The limit in words."""
        return f"{'>=' if self.is_least else '<='} {self.limit:g} {self.unit}".rstrip()

    @property
    def measured(self) -> str:
        """What was measured, with its unit; shares and ratios, which have none, to three places."""
        if self.value is None:
            return "-"
        return f"{self.value:.1f} {self.unit}" if self.unit else f"{self.value:.3f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; numbers are written as given, so round them first."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: Of the benchmark, and of its files.
        title: One line.
        method: What was measured, and how.
        tables: The numbers.
        figures: Promises and whether they held.
        reading: What the numbers say, losses beside gains.
        packages: Those whose versions matter.
        facts: Further facts, such as how busy the machine was.
    """

    name: str
    title: str
    method: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    reading: tuple[str, ...]
    packages: tuple[str, ...]
    facts: Mapping[str, str]


class Quiet:
    """Waits for a quiet machine, for a limited time in all, and remembers how busy it was."""

    def __init__(self, patience_s: float) -> None:
        self._left_s = patience_s
        self._began = os.getloadavg()
        self._seen: list[float] = []

    def wait(self) -> None:
        """Return when others keep the machine less than a tenth busy, or when patience has run out."""
        while True:
            busy = _busy_share()
            if busy <= _QUIET or self._left_s <= 0:
                self._seen.append(busy)
                return
            time.sleep(1)
            self._left_s -= 1 + _LOOK_S

    def facts(self) -> dict[str, str]:
        """Return how fast the machine is, and how busy it was: at both ends, and others between turns."""
        seen = sorted(self._seen)
        began, ended = (
            ", ".join(f"{load:.2f}" for load in loads) for loads in (self._began, os.getloadavg())
        )
        found = {
            "speed": f"{loop_ns():.0f} ns for one turn of a plain loop, afterwards",
            "load average": f"{began} at the start, {ended} at the end",
        }
        if seen:
            busy = f"{_at(seen, 0.5):.0%} of all cores before the median turn, {seen[-1]:.0%} at most"
            found["busy with other work"] = busy
        return found


def _busy_share() -> float:
    """Return which share of all cores was busy while this process slept; 0 where nothing tells."""
    before = _ticks()
    time.sleep(_LOOK_S)
    after = _ticks()
    if before is None or after is None or after[1] == before[1]:
        return 0.0
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Return idle and all ticks of all cores since the start, as Linux counts them."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    ticks = [int(word) for word in words[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def side_by_side(subjects: Sequence[Subject], *, turns: int, quiet: Quiet) -> dict[str, Timing]:
    """Time every subject once per turn, and return its best turn by name."""
    found: dict[str, list[list[int]]] = {subject.name: [] for subject in subjects}
    with asyncio.Runner() as loop:
        for subject in subjects:
            _turn(subject, max(10, subject.calls // 10), loop)
        gc.collect()
        gc.freeze()  # what others imported shall not lengthen our collections
        for _ in range(turns):
            quiet.wait()
            for subject in subjects:
                found[subject.name].append(_turn(subject, subject.calls, loop))
        gc.unfreeze()
    return {name: timing_of(rounds) for name, rounds in found.items()}


def _turn(subject: Subject, calls: int, loop: asyncio.Runner) -> list[int]:
    """Return sorted nanoseconds of each call."""
    return sorted(loop.run(_timed_async(subject, calls)) if subject.is_async else _timed(subject, calls))


def _timed(subject: Subject, calls: int) -> list[int]:
    call, fresh, clock = subject.call, subject.fresh, time.perf_counter_ns
    taken = []
    for _ in range(calls):
        argument = fresh()
        begin = clock()
        call(argument)
        taken.append(clock() - begin)
    return taken


async def _timed_async(subject: Subject, calls: int) -> list[int]:
    call, fresh, clock = subject.call, subject.fresh, time.perf_counter_ns
    taken = []
    for _ in range(calls):
        argument = fresh()
        begin = clock()
        await call(argument)
        taken.append(clock() - begin)
    return taken


def timing_of(turns: Sequence[Sequence[int]]) -> Timing:
    """Return the best of several turns, given sorted nanoseconds of the calls of each."""
    best = min(turns, key=lambda taken: _at(taken, 0.5))
    return Timing(
        p50=_at(best, 0.50) / 1000,
        p95=_at(best, 0.95) / 1000,
        p99=_at(best, 0.99) / 1000,
        mean=sum(best) / len(best) / 1000,
        worst_p50=max(_at(taken, 0.5) for taken in turns) / 1000,
        turns=len(turns),
        calls=len(best),
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def loop_ns() -> float:
    """Return what one turn of a plain loop takes at best: how fast this machine runs Python just now."""
    best = min(_timed(Subject("loop", _loop), 50))
    return best / _LOOP_TURNS


def _loop(_: None) -> int:
    total = 0
    for number in range(_LOOP_TURNS):
        total += number
    return total


def clock_us() -> float:
    """Return what reading the clock twice costs; it is inside every timing."""
    return _at(sorted(_timed(Subject("nothing", lambda _: None), 2_000)), 0.5) / 1000


def environ_in(folder: Path) -> dict[str, str]:
    """Return the environment of a program that finds no configuration and keeps its files in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEASTWISE_", "XDG_"))}
    own = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    return {**kept, **own, "PYTHONPATH": str(ROOT / "src")}


def write(result: Result) -> list[Path]:
    """Write a result as JSON and as Markdown; return the files."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "schema": 1,
        **_where(result),
        **asdict(result),
        "verdicts": [f.verdict for f in result.figures],
    }
    as_json, as_text = RESULTS / f"{result.name}.json", RESULTS / f"{result.name}.md"
    as_json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    as_text.write_text(markdown(result), encoding="utf-8")
    return [as_json, as_text]


def markdown(result: Result) -> str:
    """Return a result as a page."""
    lines = [f"# {result.title}", ""]
    lines += [f"- {name}: {value}" for name, value in {**_where(result), **result.facts}.items()]
    for table in result.tables:
        lines += ["", f"## {table.title}", "", *_rows(table.head, table.rows)]
    if result.figures:
        rows = [(f.what, f.promise, f.measured, f.verdict) for f in result.figures]
        lines += ["", "## Figures", "", *_rows(("what", "promised", "measured", ""), rows)]
    lines += ["", "## How", "", *(f"- {line}" for line in result.method)]
    lines += ["", "## Reading", "", *(f"- {line}" for line in result.reading), ""]
    return "\n".join(lines)


def _rows(head: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _where(result: Result) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {installed(name) or 'not installed'}" for name in result.packages),
    }


def installed(package: str) -> str:
    """Return the installed version of a package, or ""."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit, `uncommitted` where there is none yet, marked where files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "uncommitted"
    return f"{head} with changes" if _git("status", "--porcelain", "--", "src", "benchmarks/*.py") else head


def _git(*words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            ["git", *words],  # noqa: S607 - whichever git the user has
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def public_tables(name: str, *, trains: bool = False) -> Path | None:
    """Return the folder of public tables that a benchmark needs; None, said why, where it has to be skipped.

    Args:
        name: Of the benchmark.
        trains: Whether it needs scikit-learn, too.
    """
    folder = os.environ.get("LEASTWISE_DATA")
    if not folder:
        say(f"benchmarks: {name} is skipped: LEASTWISE_DATA names no folder with the tables")
        return None
    if trains:
        try:
            import sklearn  # noqa: F401, PLC0415 - an extra that only training needs
        except ImportError as error:
            say(f"benchmarks: {name} is skipped: {error}; it is in the extra `train`")
            return None
    return Path(folder)


def say(text: str) -> None:
    """Talk, on stderr: stdout is the result."""
    print(text, file=sys.stderr, flush=True)
