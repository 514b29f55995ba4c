"""What it costs to start: importing the package, `--help`, and one cold `route`.

Each program is started anew as a process, turn by turn with a bare interpreter, and the
bare interpreter's time is taken off. Compiled bytecode is in place, as after an
installation. Nothing is configured; home and state are an empty folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measure import LEASTWISE, Figure, Quiet, Result, Table, environ_in

_BARE: Final = "python -c pass"
_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    _BARE: (sys.executable, "-c", "pass"),
    "import leastwise": (sys.executable, "-c", "import leastwise"),
    "leastwise --help": (*LEASTWISE, "--help"),
    'leastwise route "Is this spam?"': (*LEASTWISE, "route", "Is this spam?"),
}
_LIMITS_MS: Final = dict(zip([*_COMMANDS][1:], (150.0, 300.0, 400.0), strict=True))
_LEAST_TURNS: Final = 10
_IMPORT: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)")
_SHOWN: Final = 8


def measure(turns: int, quiet: Quiet) -> Result:
    """Return how long each command takes over a bare interpreter."""
    turns = max(turns, _LEAST_TURNS)
    with tempfile.TemporaryDirectory() as folder:
        found = _interleaved(Path(folder), turns, quiet)
        slowest = _slowest_imports(Path(folder))
    bare = median(found[_BARE])
    over = {name: median(found[name]) - bare for name in _LIMITS_MS}
    rows = tuple(
        (name, f"{median(ms):.0f}", f"{min(ms):.0f}", f"{max(ms):.0f}", f"{median(ms) - bare:.0f}")
        for name, ms in found.items()
    )
    head = ("ms", "median", "least", "most", "median over bare")
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
                "cold is the process, not the disk."
            ),
        ),
        tables=(
            Table("Wall time from start to exit", head, rows),
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
            f"The bare interpreter takes {bare:.0f} ms here; a user waits for both.",
            (
                f"A single `route` costs {over[[*over][2]]:.0f} ms of start for a decision of microseconds: "
                "for many prompts give a file, or use the library."
            ),
            "`-X importtime` slows what it measures; its rows tell the order, not the sum.",
        ),
        packages=("leastwise", "cyclopts", "rich", "msgspec"),
        facts=quiet.facts(),
    )


def _interleaved(folder: Path, turns: int, quiet: Quiet) -> dict[str, list[float]]:
    environ = environ_in(folder)

    def start(command: tuple[str, ...]) -> None:
        subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)  # noqa: S603 - our own

    for command in _COMMANDS.values():
        start(command)
    found: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(turns):
        quiet.wait()
        for name, command in _COMMANDS.items():
            found[name].append(_ms(start, command))
    return found


def _ms(start: Callable[[tuple[str, ...]], None], command: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    start(command)
    return (time.perf_counter() - begin) * 1000


def _slowest_imports(folder: Path) -> tuple[tuple[str, str, str], ...]:
    """Return the modules that `route` waits for longest."""
    python, *rest = _COMMANDS[[*_COMMANDS][-1]]
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
