"""A user's command as a check: real commands, their limits, and what they get to see."""

from __future__ import annotations

import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leastwise.cascade import CheckRow
from leastwise.command import command_check, missing, run_command
from leastwise.ladder import Verdict
from leastwise.messages import Facts, Reply
from tests.kit import request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands run on POSIX systems only")

PLAIN = request()


def python(source: str, **given: Any) -> CheckRow:
    """Return a row whose command is this program."""
    return CheckRow("own", command=shlex.join([sys.executable, "-I", "-S", "-c", source]), **given)


def run(row: CheckRow, text: str = "Hello", **given: Any) -> tuple[str, str]:
    reply = Reply("payload", Facts(model="claude-x"), message={"content": text, "stop_reason": "end_turn"})
    verdict = run_command(row, PLAIN, reply, **given)
    assert "own" == verdict.check
    return verdict.says, verdict.words


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0, ("accept", "exit code 0")),
        (1, ("escalate", "exit code 1")),
        (125, ("escalate", "exit code 125")),
        (126, ("abstain", "exit code 126: not found, or no program")),
        (255, ("abstain", "exit code 255")),
    ],
)
def test_the_exit_code_is_the_verdict(code: int, verdict: tuple[str, str]) -> None:
    assert verdict == run(CheckRow("own", command=f"sh -c 'exit {code}'"))


def test_the_answer_is_on_standard_input() -> None:
    equals = python("import sys; sys.exit(sys.stdin.buffer.read().decode() != 'Grüezi\\n' * 100_000)")

    assert "accept" == run(equals, "Grüezi\n" * 100_000)[0]
    assert "escalate" == run(equals, "Hello")[0]
    assert "accept" == run(CheckRow("own", command="true"), "not read " * 100_000)[0]
    assert "accept" == run(CheckRow("own", command="grep -q '^?$'"), "\ud800")[0]


def test_no_shell_reads_the_command() -> None:
    assert "accept" == run(CheckRow("own", command="test '$HOME; exit 1' = '$HOME; exit 1'"))[0]


def test_a_signal_says_nothing_of_the_answer() -> None:
    assert ("abstain", "ended by signal 9") == run(CheckRow("own", command="sh -c 'kill -9 $$'"))


def test_what_cannot_be_started_makes_it_abstain(tmp_path: Path) -> None:
    missing = CheckRow("own", command="no-such-program-anywhere")
    assert ("abstain", "exit code 127: not found, or no program") == run(missing)
    assert not run_command(missing, PLAIN, Reply("payload")).blames
    assert ("abstain", "cannot be started: FileNotFoundError") == run(
        CheckRow("own", command="true", folder=str(tmp_path / "nowhere"))
    )
    assert ("abstain", "cannot be started: ValueError") == run(CheckRow("own", command="echo \0"))


def test_it_is_limited_in_time_and_so_is_all_that_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    started = time.monotonic()
    # Both hold the pipe open for writing for as long as they live.
    stays = CheckRow("own", command=f"sh -c 'exec 3<>{alive}; sleep 60 & sleep 60'", timeout_s=0.3)

    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    assert ("abstain", "not done in 0.3 s") == run(stays)
    os.set_blocking(reader, True)
    assert b"" == os.read(reader, 1)  # the end: nobody is left to write
    assert time.monotonic() - started < 30
    os.close(reader)


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)

    assert "accept" == run(CheckRow("own", command=f"sh -c 'exec 3<>{alive}; sleep 60 & exit 0'"))[0]
    os.set_blocking(reader, True)
    assert b"" == os.read(reader, 1)
    os.close(reader)


def test_a_command_that_does_not_read_is_limited_in_time_as_well() -> None:
    found = run(CheckRow("own", command="sleep 60", timeout_s=0.2), "x" * 1_000_000)

    assert ("abstain", "not done in 0.2 s") == found


@pytest.mark.skipif(sys.platform == "darwin", reason="address space is not limited there")
def test_it_is_limited_in_memory() -> None:
    takes = "x = bytearray(300_000_000)"

    assert "escalate" == run(python(takes, memory_mb=200))[0]
    assert ["accept", "accept"] == [run(python(takes, memory_mb=most))[0] for most in (1_000, 0)]


def test_its_output_goes_nowhere() -> None:
    floods = python("import sys\nfor stream in (sys.stdout, sys.stderr):\n    stream.write('x' * 5_000_000)")

    assert ("accept", "exit code 0") == run(floods)


def test_it_sees_none_of_the_callers_secrets() -> None:
    sees = {"LEASTWISE_CHECK": "own", "LEASTWISE_MODEL": "claude-x", "LEASTWISE_STOP_REASON": "end_turn"}
    sees |= {"HOME": "/", "LANG": "C.UTF-8", "PATH": os.defpath}
    shows = python(
        f"import os, sys; sees = {sees!r}; sys.exit(sees.items() - os.environ.items() != set()"
        " or 'sk-ant-secret' in os.environ.values())"
    )
    environ = {"HOME": "/", "LANG": "C.UTF-8", "PATH": os.defpath, "ANTHROPIC_API_KEY": "sk-ant-secret"}

    assert ("accept", "exit code 0") == run(shows, environ=environ)


def test_it_runs_in_a_folder_of_its_own_or_in_the_one_given(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    is_here, is_empty = (
        CheckRow("own", command="test -e here", folder=str(tmp_path)),
        python("import os, sys; sys.exit(os.listdir() != [] or not open('left', 'w'))"),
    )

    assert ["accept", "accept"] == [run(row)[0] for row in (is_here, is_empty)]


def test_many_threads_may_ask_at_once() -> None:
    row = CheckRow("own", command="grep -q 7")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: run(row, text)[0], [str(number) for number in range(20)]))

    assert ["accept" if "7" in str(number) else "escalate" for number in range(20)] == found


def test_as_a_check_it_has_time_to_end_by_itself() -> None:
    row = CheckRow("own", command="true", timeout_s=10)
    check = command_check(row)

    assert ("own", "run", True) == (check.name, check.kind, check.timeout_s > row.timeout_s)
    assert check.version != command_check(CheckRow("own", command="false")).version
    assert Verdict("own", "accept", "exit code 0") == check.ask(PLAIN, Reply("payload"))


# --- what it would not find


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("true", {}, ""),
        ("sh -c 'exit 1' file.txt", {}, ""),
        ("no-such-program -q", {}, "there is no program no-such-program on PATH"),
        ("sh look.sh", {}, "there is no look.sh in the empty folder of its own that it runs in"),
        ("./look.sh", {}, "there is no look.sh in the empty folder of its own that it runs in"),
        ("sh look.sh", {"folder": "here"}, ""),
        ("./look.sh", {"folder": "here"}, ""),
        ("sh HERE/look.sh", {}, ""),
        ("sh gone.sh", {"folder": "here"}, "there is no gone.sh in HERE"),
        ("sh HERE/gone.sh", {}, "there is no HERE/gone.sh in the empty folder"),
        ("true", {"folder": "/no/such"}, "there is no folder /no/such"),
    ],
)
def test_what_a_command_would_not_find_is_told(
    tmp_path: Path, command: str, given: dict[str, str], said: str
) -> None:
    (tmp_path / "look.sh").write_text("exit 0", "utf-8")
    if given.get("folder") == "here":
        given = {"folder": str(tmp_path)}
    row = CheckRow("own", command=command.replace("HERE", str(tmp_path)), folder=given.get("folder", ""))
    found = missing(row)

    assert found.startswith(said.replace("HERE", str(tmp_path)))
    assert bool(found) is bool(said)


@pytest.mark.parametrize(
    "row",
    [CheckRow("own", command="no-such-program"), CheckRow("own", command="true", folder="/no/such")],
)
def test_a_command_that_cannot_be_run_is_seen(row: CheckRow, caplog: pytest.LogCaptureFixture) -> None:
    assert "abstain" == run(row)[0]

    (record,) = caplog.records
    assert "check own could not be run (" in record.message
    assert "nothing is checked by it; leastwise doctor" in record.message
