"""The command line. A command parses, calls one library function, and prints.

Commands are named here by import path, so that `leastwise --help` imports none of them.

Exit codes: 0 done; 1 the answer is no, or something failed; 2 an option, a file or the
configuration is wrong; 130 interrupted.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, UnknownCommandError, UnusedCliTokensError

from leastwise.cli.console import BAD_INPUT, FAILED, INTERRUPTED, OK, say_error
from leastwise.errors import ConfigError, LeastwiseError, LogError, RequestError, UnknownPriceError

_IS_INPUT = (ConfigError, LogError, RequestError, UnknownPriceError)


def _version() -> str:
    from importlib.metadata import version

    return version("leastwise")


_START = Group("Start", sort_key=1)
_SEE = Group("See", sort_key=2)
_CONTROL = Group("Control", sort_key=4)
_IMPROVE = Group("Improve", sort_key=5)
_OPTIONS = Group("Options", sort_key=9)

app = App(
    name="leastwise",
    help="Send every LLM call to the cheapest model tier that should do it.",
    help_format="plaintext",
    version=_version,
    group_arguments=Group("Arguments", sort_key=7),
    group_parameters=_OPTIONS,
)
app["--help"].group = _OPTIONS
app["--version"].group = _OPTIONS

_COMMANDS = (
    ("demo", "demo:demo", _START, "Route sample requests on a simulated upstream and show the bill."),
    ("init", "init:init", _START, "Write a commented configuration file."),
    ("doctor", "doctor:doctor", _START, "Check configuration, prices, store, key and upstream."),
    ("route", "route:route", _SEE, "Show which tier a prompt, or a file of prompts, goes to and why."),
    ("report", "report:report", _SEE, "Show what was spent and saved, from the ledger or a usage file."),
    ("why", "why:why", _SEE, "Explain one call, by any of its ids."),
    ("on", "switch:on", _CONTROL, "Send calls to the tier that should do, from now on."),
    ("off", "switch:off", _CONTROL, "Pass every call through untouched, from now on."),
    ("budget", "budget:app", _CONTROL, "See budgets and change what they allow."),
    ("cache", "cache:app", _CONTROL, "See kept answers and forget them."),
    ("config", "config:app", _CONTROL, "Show or check the configuration."),
    ("feedback", "feedback:feedback", _IMPROVE, "Say whether an answer was good."),
    ("trial", "trial:trial", _IMPROVE, "Measure whether a cheaper tier does as well on a tag's calls."),
    ("tune", "tune:app", _IMPROVE, "Show what routing goes by, and calibrate its checks."),
    ("simulate", "simulate:simulate", _IMPROVE, "Serve a simulated Messages API on this machine."),
)
for _place, (_name, _target, _group, _help) in enumerate(_COMMANDS):
    app.command(f"leastwise.cli.{_target}", name=_name, group=_group, help=_help, sort_key=_place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The words after `leastwise`; by default those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        say_error(_told(error))
        return BAD_INPUT
    except LeastwiseError as error:
        say_error(error)
        return BAD_INPUT if isinstance(error, _IS_INPUT) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone
        _drop_output()
        return FAILED
    except OSError as error:  # such as a full disk
        _drop_output()
        say_error(error)
        return FAILED
    return code if isinstance(code, int) else OK


def _drop_output() -> None:
    """Write out what is buffered; where that fails drop it, or it would fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: CycloptsError) -> str:
    """Return what is wrong with the arguments; a wrong command must not import all the right ones."""
    if isinstance(error, UnusedCliTokensError):
        return (
            f"not understood: {' '.join(error.unused_tokens or ())}. A prompt of several words goes in quotes"
        )
    if not (isinstance(error, UnknownCommandError) and error.app is app and error.unused_tokens):
        return str(error)
    given, known = error.unused_tokens[0], [name for name, *_ in _COMMANDS]
    close = difflib.get_close_matches(given, known, n=1)
    mend = f"did you mean {close[0]!r}?" if close else "see leastwise --help"
    return f"there is no command {given!r}; {mend}"
