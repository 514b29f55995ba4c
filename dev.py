"""Everything a developer runs, on a machine with Python and nothing else.

    python3 dev.py demo [ARGS]       the demo, against a simulated upstream
    python3 dev.py test [ARGS]       format, lint, types, tests, coverage; ARGS go to pytest,
                                     and leave out the environments of other SDK majors
    python3 dev.py test-all [ARGS]   the same, then what needs more than pip can install
    python3 dev.py lint [--fix]      format, lint and types only
    python3 dev.py lock [--upgrade]  write requirements/*.txt anew
    python3 dev.py bench [ARGS]      the benchmarks

Standard library only. Each command makes `.venv` (and `test` one in `.venv-sdk` for each
other SDK) when it is missing or when the requirements have changed since, from pinned
requirements; uv does the installing, and pip where uv cannot be had.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
NO_TESTS = 5  # pytest's exit code when it found none
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"

#: Set in an environment of its own -> the tests that run there.
SDKS = {
    "sdk-0.93": ("tests/sdk", "tests/frameworks/test_instructor.py"),
    "sdk-1.17": ("tests/sdk",),
    "sdk-langchain": ("tests/frameworks/test_langchain.py",),
}
#: Set -> its locks. `test` holds all that `demo` holds, at the same versions.
LOCKS = {"demo": ("demo.txt",), "test": ("test.txt", "test-nodeps.txt")}
LOCKS |= {name: (f"{name}.txt",) for name in SDKS}
#: Set -> the extras that its lock covers.
EXTRAS = {"demo": ("anthropic",), "test": ("anthropic", "parquet", "postgres", "redis", "uvloop")}
EXTRAS["test"] += ("test", "servers", "dev")
EXTRAS |= dict.fromkeys(SDKS, ("anthropic", "test"))
SOURCES = ("src", "tests", "benchmarks", "training", "examples", "dev.py", "conftest.py")
#: Marker -> program it needs besides Python, and how to get it.
NEEDS = {
    "slow": (None, ""),
    "browser": ("chromium", "apt-get install chromium"),
    "node": ("node", "apt-get install nodejs"),
}


def main(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if sys.version_info[:2] < OLDEST:
        return refuse(
            f"Python {'.'.join(map(str, OLDEST))} or newer is needed, this is {sys.version.split()[0]}. "
            f"Call a newer one by name, such as: python3.12 dev.py {' '.join(argv)}"
        )
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(argv[:1]).command
    return COMMANDS[command](argv[1:])


def demo(args: list[str]) -> int:
    """Run `leastwise demo`."""
    return prepare("demo") or run([str(python().with_name("leastwise")), "demo", *args])


def lint(args: list[str]) -> int:
    """Check format, lint and types; with --fix, mend what ruff can mend first."""
    parser = argparse.ArgumentParser(prog="dev.py lint")
    parser.add_argument("--fix", action="store_true", help="format, and apply ruff's safe fixes")
    options = parser.parse_args(args)
    failed = prepare("test")
    if failed:
        return failed
    if options.fix:
        run(tool("ruff", "check", "--fix", "--quiet", *sources()))
        run(tool("ruff", "format", "--quiet", *sources()))
    return summary(check_sources(is_fail_fast=False))


def test(args: list[str]) -> int:
    """Check format, lint and types, run the tests, print the coverage."""
    parser = argparse.ArgumentParser(prog="dev.py test", allow_abbrev=False)
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first step that fails")
    options, rest = parser.parse_known_args(args)
    failed = prepare("test")
    if failed:
        return failed
    results = check_sources(is_fail_fast=options.fail_fast)
    if not (options.fail_fast and any(results.values())):
        results |= run_pytest(rest)
    return summary(results)


def test_all(args: list[str]) -> int:
    """Run `test`, then the tests that it leaves out; list at the very end what was not run and why."""
    parser = argparse.ArgumentParser(prog="dev.py test-all", allow_abbrev=False)
    parser.add_argument("--rest", action="store_true", help="leave out what `test` runs")
    options, rest = parser.parse_known_args(args)
    failed = prepare("test")
    if failed:
        return failed
    failed = 0 if options.rest else test(rest)
    chosen, missing = [], []
    for marker, (program, mend) in NEEDS.items():
        count = count_tests(marker)
        if count == 0:
            continue
        if program is None or shutil.which(program) or install(program, mend):
            chosen.append(marker)
        else:
            missing.append(f"not run: {count} {marker} tests: no {program} found ({mend})")
    live = count_tests("live")
    if live:
        missing.append(f"not run: {live} live tests: they cost money (python -m pytest -m live)")
    results = {}
    if chosen:
        expression = " or ".join(chosen)
        results["tests (" + expression + ")"] = run(tool("pytest", "-m", expression, "--timeout=900", *rest))
    code = summary(results) if results else 0
    for line in missing:
        say(line)
    if not chosen and not missing:
        say("nothing more to run: no test needs more than pip can install")
    return failed or code


def lock(args: list[str]) -> int:
    """Write requirements/*.txt anew from pyproject.toml, without the address of any registry."""
    parser = argparse.ArgumentParser(prog="dev.py lock")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    options = parser.parse_args(args)
    if not python().exists():
        failed = make_venv(VENV)
        if failed:
            return failed
    if not has_uv():
        return refuse("`lock` needs uv, and pip could not install it; see its message above")
    upgrade = ["--upgrade"] if options.upgrade else []
    base = [*tool("uv", "pip", "compile", "--quiet", "--python-version", ".".join(map(str, OLDEST)))]
    base += ["--universal", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    base += ["--custom-compile-command", "python3 dev.py lock", *upgrade]
    # `test` first: the versions of `demo` are its own, and those of the others where their `.in` says so.
    for name in ("test", "demo", *SDKS):
        extras = [word for extra in EXTRAS[name] for word in ("--extra", extra)]
        held = ["--constraints", "requirements/test.txt"] if name == "demo" else []
        more = [f"requirements/{name}.in"] if name in SDKS else []
        target = f"requirements/{name}.txt"
        code = run([*base, *extras, *held, "--output-file", target, "pyproject.toml", *more])
        if code:
            return code
    source, target = "requirements/test-nodeps.in", "requirements/test-nodeps.txt"
    return run([*base, "--no-deps", "--output-file", target, source])


def bench(args: list[str]) -> int:
    """Run the benchmarks."""
    return prepare("test") or run(tool("benchmarks", *args))


def check_sources(*, is_fail_fast: bool) -> dict[str, int]:
    """Run the checks that do not run our code; return step -> exit code."""
    steps = {
        "format (python3 dev.py lint --fix)": tool("ruff", "format", "--check", *sources()),
        "lint": tool("ruff", "check", *sources()),
        "types": tool("mypy", *sources()),
    }
    results: dict[str, int] = {}
    for name, command in steps.items():
        results[name] = run(command)
        if results[name] and is_fail_fast:
            break
    return results


def run_pytest(args: list[str]) -> dict[str, int]:
    """Run the tests under coverage, then print it; no tests at all is a failure (pytest's exit code 5)."""
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    results = {"tests": run(tool("coverage", "run", "-m", "pytest", *args))}
    for name in () if args else SDKS:
        results[f"tests ({name})"] = prepare(name) or run_in(name)
    run(tool("coverage", "combine", "--quiet"))
    return results | {"coverage": run(tool("coverage", "report"))}


def run_in(name: str) -> int:
    """Run a set's tests in its environment, under coverage; return pytest's exit code."""
    say(f"{name}: {' '.join(SDKS[name])}")
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *SDKS[name])
    return run(tool("coverage", "run", *pytest, home=home_of(name)))


def count_tests(marker: str) -> int:
    """Return how many tests carry a marker."""
    command = tool("pytest", "--collect-only", "-q", "-m", marker)
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode not in {0, NO_TESTS}:
        sys.exit(f"{done.stdout}{done.stderr}dev.py: pytest could not collect the {marker} tests")
    return sum("::" in line for line in done.stdout.splitlines())


def install(program: str, mend: str) -> bool:
    """Try the system's package manager, in CI and as root only; tell whether the program is there now."""
    if os.environ.get("CI") != "true" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    run(["apt-get", "update", "-qq"])
    run([*mend.split(), "-y", "-qq", "--no-install-recommends"])
    return shutil.which(program) is not None


def prepare(name: str) -> int:
    """Make its environment hold the set `name`; return 0, or an exit code when it cannot."""
    home = home_of(name)
    stamp = home / "leastwise-stamp.txt"
    held = stamp.read_text(encoding="utf-8").splitlines() if stamp.exists() else []
    if stamp_of(name) in held:
        return 0
    if any(line.startswith("test ") for line in held):
        name = "test"  # what `.venv` held before it went stale, and more than `demo` needs
    say(f"installing what `{name}` needs into {home.relative_to(ROOT)} ...")
    start = time.monotonic()
    failed = make_venv(home) or install_locks(name)
    if failed:
        return failed
    holds = {"demo", name} if home == VENV else {name}
    stamp.write_text("\n".join(map(stamp_of, holds)), encoding="utf-8")
    say(f"installed in {time.monotonic() - start:.0f} s")
    return 0


def home_of(name: str) -> Path:
    """Return the environment of a set."""
    return ROOT / ".venv-sdk" / name.removeprefix("sdk-") if name in SDKS else VENV


def stamp_of(name: str) -> str:
    """Return a line that changes with the set's requirements, the interpreter and the checkout's place."""
    digest = hashlib.sha256(f"{ROOT} {sys.version}".encode())
    project, _, _ = (ROOT / "pyproject.toml").read_bytes().partition(b"\n[tool.")  # settings need no install
    digest.update(project)
    for lock in ("uv.txt", *LOCKS[name]):
        digest.update((REQUIREMENTS / lock).read_bytes())
    return f"{name} {digest.hexdigest()}"


def make_venv(home: Path) -> int:
    """Make an empty environment; return 0, or an exit code when it cannot."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        return refuse(
            f"this Python has no venv module. On Debian and Ubuntu: apt-get install python{version}-venv"
        )
    bare = [] if home == VENV else ["--without-pip"]  # the installers of `.venv` fill the others
    return run([sys.executable, "-m", "venv", "--clear", *bare, str(home)])


def install_locks(name: str) -> int:
    """Install the locks of a set, and the checkout itself; return an exit code."""
    locks = [f"requirements/{lock}" for lock in LOCKS[name]]
    # What builds the package is pinned too; the three names are uv's, newer pip's and older pip's.
    pins = str(REQUIREMENTS / "test.txt")
    env = {"UV_BUILD_CONSTRAINT": pins, "PIP_BUILD_CONSTRAINT": pins, "PIP_CONSTRAINT": pins}
    files = [word for lock in locks for word in ("-r", lock)]
    own = ["--no-deps", "--editable", "."]
    into = ["--python", str(python(home_of(name)))]
    if has_uv():
        install = tool("uv", "pip", "install", "--quiet", "--compile-bytecode", *into)
        if not run([*install, "--no-deps", *files], env) and not run([*install, *own], env):
            return 0
        say("uv could not install; trying pip")
    pip = tool("pip", *into, "install", "--quiet", "--disable-pip-version-check")
    return run([*pip, "--no-deps", *files]) or run([*pip, *own], env)


def has_uv() -> bool:
    """Tell whether the pinned uv is in `.venv`, after trying to install it."""
    wanted = ["-r", "requirements/uv.txt"]
    return run(tool("pip", "install", "--quiet", "--disable-pip-version-check", *wanted)) == 0


def python(home: Path = VENV) -> Path:
    """Return the interpreter of an environment."""
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def tool(module: str, *args: str, home: Path = VENV) -> list[str]:
    """Return the command that runs an installed module with these arguments."""
    return [str(python(home)), "-m", module, *args]


def sources() -> list[str]:
    """Return those of our source folders that exist."""
    return [name for name in SOURCES if (ROOT / name).exists()]


def run(command: list[str], env: dict[str, str] | None = None) -> int:
    """Run a command in the checkout, its output shown; return its exit code."""
    sys.stdout.flush()
    return subprocess.run(command, cwd=ROOT, check=False, env=os.environ | (env or {})).returncode


def summary(results: dict[str, int]) -> int:
    """Say which steps failed; return 0 when none did."""
    failed = [name for name, code in results.items() if code]
    say(f"FAILED: {', '.join(failed)}" if failed else f"passed: {', '.join(results)}")
    return 1 if failed else 0


def refuse(message: str) -> int:
    """Say why nothing can be done; return the exit code of wrong use."""
    say(message)
    return 2


def say(message: str) -> None:
    """Talk, on stderr: stdout is the answer of what was run."""
    print(f"dev.py: {message}", file=sys.stderr, flush=True)


COMMANDS = {"demo": demo, "test": test, "test-all": test_all, "lint": lint, "lock": lock, "bench": bench}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
