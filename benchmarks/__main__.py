"""Run one benchmark, or all: `python -m benchmarks NAME [--write] [--turns N] [--wait S]`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benchmarks import index
from benchmarks.measure import Quiet, markdown, say, write

#: Modules with a `measure`; each is imported when it runs, for some need packages that others do not.
BENCHMARKS = (
    "cache",
    "cascade",
    "checks",
    "decision",
    "exchange",
    "hammer",
    "start",
    "state",
    "prompts",
    "routing",
    "types",
)


def main() -> int:
    """Run what the command line names; return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", *BENCHMARKS])
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results")
    parser.add_argument("--turns", type=int, default=40, help="how often each program takes its turn")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for a quiet machine, in all")
    options = parser.parse_args()
    names = BENCHMARKS if options.name == "all" else (options.name,)
    for name in names:
        say(f"benchmarks: {name} ...")
        result = import_module(f"benchmarks.{name}").measure(options.turns, Quiet(options.wait))
        if result is None:
            continue
        print(markdown(result), flush=True)
        if options.write:
            for path in [*write(result), index.refresh()]:
                say(f"benchmarks: wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
