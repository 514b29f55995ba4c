"""What it costs to start: importing the package, `--help`, and one cold `route`.

Each program is started anew as a process, turn by turn with a bare interpreter, and the
bare interpreter's time is taken off. Compiled bytecode is in place, as after an
installation. Nothing is configured; home and state are an empty folder.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import LEASTWISE, Figure, Quiet, Result, Table, environ_in

_BARE: Final = "python -c pass"
_ROUTE: Final = 'leastwise route "Is this spam?"'
_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    _BARE: (sys.executable, "-c", "pass"),
    "import leastwise": (sys.executable, "-c", "import leastwise"),
    "leastwise --help": (*LEASTWISE, "--help"),
    _ROUTE: (*LEASTWISE, "route", "Is this spam?"),
}
_LIMITS_MS: Final = dict(zip([*_COMMANDS][1:], (150.0, 300.0, 400.0), strict=True))
_LEAST_TURNS: Final = 10
_IMPORT: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)")
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class _Run:
    """One start: milliseconds from start to exit, and those that a processor worked for it."""

    wall_ms: float
    cpu_ms: float


def measure(turns: int, quiet: Quiet) -> Result:
    """Return how long each command takes over a bare interpreter."""
    turns = max(turns // 2, _LEAST_TURNS)
    with tempfile.TemporaryDirectory() as folder:
        found = _interleaved(Path(folder), turns, quiet)
        slowest = _slowest_imports(Path(folder))
    wall = {name: median(run.wall_ms for run in runs) for name, runs in found.items()}
    over = {name: wall[name] - wall[_BARE] for name in _LIMITS_MS}
    head = ("ms", "median", "least", "most", "median over bare", "CPU, median")
    return Result(
        name="start",
        title="Starting",
        method=(
            (
                f"{turns} turns; in each, every command is started once as a process of its own. "
                "The commands run what the installed `leastwise` script runs, with the same interpreter."
            ),
            (
                "One run of each before the first turn, so that bytecode and files are in memory: "
                "cold is the process, not the disk. CPU tells what a busy machine adds to wall time."
            ),
        ),
        tables=(
            Table("Wall time from start to exit", head, tuple(_rows(found, wall[_BARE]))),
            Table(
                "Where the time of `route` goes: modules by their own import time",
                ("module", "ms, itself", "ms, with what it imports"),
                slowest,
            ),
        ),
        figures=tuple(
            Figure(f"{name}, over bare", limit, over[name], "ms") for name, limit in _LIMITS_MS.items()
        ),
        reading=(
            f"The bare interpreter takes {wall[_BARE]:.0f} ms here; a user waits for both.",
            (
                f"A single `route` costs {over[_ROUTE]:.0f} ms of start for a decision of microseconds: "
                "for many prompts give a file, or use the library."
            ),
            "`-X importtime` slows what it measures; its rows tell the order, not the sum.",
        ),
        packages=("cyclopts", "rich", "msgspec"),
        facts=quiet.facts(),
    )


def _rows(found: dict[str, list[_Run]], bare_ms: float) -> Iterator[tuple[str, ...]]:
    for name, runs in found.items():
        wall = sorted(run.wall_ms for run in runs)
        cpu = median(run.cpu_ms for run in runs)
        times = (median(wall), wall[0], wall[-1], median(wall) - bare_ms, cpu)
        yield name, *(f"{ms:.0f}" for ms in times)


def _interleaved(folder: Path, turns: int, quiet: Quiet) -> dict[str, list[_Run]]:
    environ = environ_in(folder)
    for command in _COMMANDS.values():
        _start(command, folder, environ)
    found: dict[str, list[_Run]] = {name: [] for name in _COMMANDS}
    for _ in range(turns):
        quiet.wait()
        for name, command in _COMMANDS.items():
            found[name].append(_start(command, folder, environ))
    return found


def _start(command: tuple[str, ...], folder: Path, environ: dict[str, str]) -> _Run:
    cpu_s, begin = _children_s(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)  # noqa: S603 - our own
    wall_s = time.perf_counter() - begin
    return _Run(wall_s * 1000, (_children_s() - cpu_s) * 1000)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _slowest_imports(folder: Path) -> tuple[tuple[str, str, str], ...]:
    """Return the modules that `route` waits for longest."""
    python, *rest = _COMMANDS[_ROUTE]
    done = subprocess.run(  # noqa: S603 - our own command
        [python, "-X", "importtime", *rest],
        cwd=folder,
        env=environ_in(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    found = [(int(own), int(total), name) for own, total, name in _IMPORT.findall(done.stderr)]
    found.sort(reverse=True)
    return tuple((name, f"{own / 1000:.1f}", f"{total / 1000:.1f}") for own, total, name in found[:_SHOWN])
