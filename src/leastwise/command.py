"""Runs a user's own command as a check: the answer's text on its standard input, its exit code the verdict.

0 accepts and 1 to 125 escalates. A command that was ended by a signal or by us, or left with another code,
has said nothing of the answer: then the check abstains. Where it could not be run at all (126, 127) that is
blamed on nobody, so that no dearer tier is asked for it.

It is limited in time, and all that it started in its process group ends with it; in memory, for each process
by itself; and in output, of which nothing is read, kept or logged. It gets none of the caller's environment
but `PATH`, `HOME`, `LANG` and, if set, `TMPDIR`: no keys.

It is **not isolated**: it runs as the caller, may read and write the caller's files, and may use the
network. So commands come only from trusted configuration, and what they make of an answer - running code a
model wrote, say - is for them to contain. POSIX only; where the system does not limit address space (macOS)
memory is not limited.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from leastwise.cascade import Check, CheckRow
from leastwise.ladder import Says, Verdict
from leastwise.messages import Reply, Request

_log: Final = logging.getLogger(__name__)

_SHELL: Final = "/bin/sh"
#: Limits are set by a shell that then becomes the command; its words are arguments, which no shell reads.
#: `preexec_fn` is not safe in a program with threads; `prlimit` after the start is Linux only and comes too
#: late for what the command starts first; another Python to do it takes ten times as long to start. A limit
#: that is already lower cannot be raised, and need not be. No core is dumped: answers are in it.
_LIMITED: Final = 'ulimit -c 0; ulimit -v "$0" 2>/dev/null; exec "$@"'
_KB_PER_MB: Final = 1024
_INHERITED: Final = ("HOME", "LANG", "PATH", "TMPDIR")
#: The last exit code with which a program may reject; above are the shell's own, and those of signals.
_LAST_REJECTION: Final = 125
#: What a shell answers when it cannot start a program.
_NOT_RUN: Final = frozenset({126, 127})
#: An argument that ends so names a file.
_SCRIPTS: Final = frozenset({".js", ".mjs", ".pl", ".py", ".rb", ".sh"})
#: How much longer than the command itself whoever waits for it waits: what ran too long is ended first.
_GRACE_S: Final = 5.0


def command_check(row: CheckRow) -> Check:
    """Return the check of a row with a command; it has to be called where it holds up nobody."""
    version = f"{row.command} {row.folder}"
    return Check(
        row.name, partial(run_command, row), "run", version=version, timeout_s=row.timeout_s + _GRACE_S
    )


def run_command(
    row: CheckRow, _request: Request, reply: Reply, environ: Mapping[str, str] = os.environ
) -> Verdict:
    """Run a row's command on an answer and return what its exit code says; blocks until it has ended.

    Any number of threads may call it at once.

    Args:
        row: Its command, where it runs, and its limits.
        reply: The answer. The command finds its `stop_reason` and the model that gave it in
            `LEASTWISE_STOP_REASON` and `LEASTWISE_MODEL`.
        environ: The caller's environment.
    """
    given = {name: environ[name] for name in _INHERITED if name in environ}
    given |= {"LEASTWISE_CHECK": row.name, "LEASTWISE_MODEL": reply.facts.model}
    given |= {"LEASTWISE_STOP_REASON": reply.stop_reason}
    text = reply.text.encode("utf-8", "replace")
    try:
        with nullcontext(row.folder) if row.folder else _own_folder() as folder:
            code = _exit_code(row, text, given, folder)
    except subprocess.TimeoutExpired:
        return Verdict(row.name, "abstain", f"not done in {row.timeout_s:g} s")
    except (OSError, ValueError) as error:  # no such folder; a name or value that no environment can hold
        return _not_run(row, f"cannot be started: {type(error).__name__}")
    if code in _NOT_RUN:
        return _not_run(row, f"exit code {code}: not found, or no program")
    return _verdict(row.name, code)


def missing(row: CheckRow, environ: Mapping[str, str] = os.environ) -> str:
    """Return what a row's command would not find, in words; "" where it finds all that can be told.

    Args:
        row: Its command and where it runs.
        environ: The caller's environment.
    """
    if row.folder and not Path(row.folder).is_dir():
        return f"there is no folder {row.folder}"
    program, *words = row.arguments
    if "/" not in program and shutil.which(program, path=environ.get("PATH")) is None:
        return f"there is no program {program} on PATH"
    named = [word for word in words if Path(word).suffix in _SCRIPTS] + [program] * ("/" in program)
    for word in map(Path, named):
        if not (word.exists() if word.is_absolute() else row.folder and Path(row.folder, word).exists()):
            return f"there is no {word} in {row.folder or 'the empty folder of its own that it runs in'}"
    return ""


def _not_run(row: CheckRow, words: str) -> Verdict:
    """Return that nobody was asked; that must be seen, for such answers pass without this check."""
    _log.warning(
        "check %s could not be run (%s): nothing is checked by it; leastwise doctor", row.name, words
    )
    return Verdict(row.name, "abstain", words, blames=False)


def _verdict(name: str, code: int) -> Verdict:
    if code < 0:
        return Verdict(name, "abstain", f"ended by signal {-code}")
    says: Says = "accept" if code == 0 else "escalate" if code <= _LAST_REJECTION else "abstain"
    return Verdict(name, says, f"exit code {code}")


def _own_folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="leastwise-", ignore_cleanup_errors=True)


def _exit_code(row: CheckRow, text: bytes, environ: dict[str, str], folder: str) -> int:
    """Run the command and return its exit code, below 0 for a signal; nothing of its group stays behind.

    Raises:
        TimeoutExpired: it took too long.
        OSError: it could not be started.
        ValueError: as above.
    """
    limit = str(row.memory_mb * _KB_PER_MB) if row.memory_mb else "unlimited"
    with subprocess.Popen(  # noqa: S603 - the user's own command, from trusted configuration
        [_SHELL, "-c", _LIMITED, limit, *row.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environ,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(text, row.timeout_s)
        finally:
            # While one of the group lives, its number is given to no other, and afterwards not so soon.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode
