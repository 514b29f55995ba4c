"""What every command shares: where it prints, how JSON looks, how it ends.

stdout is the answer, stderr is talk. Text is at most 80 columns wide, `--json` prints one
object whose `schema` says which shape it has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

OK: Final = 0
FAILED: Final = 1  # the answer is no, or something went wrong on the way
BAD_INPUT: Final = 2  # an option, a file or the configuration is wrong
INTERRUPTED: Final = 130

JSON_SCHEMA: Final = 1
COLUMNS: Final = 80

#: Parameters that commands have in common, so that they read alike everywhere.
ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config", help="Configuration file; none other is read, the working directory's neither."
    ),
]
AsJson = Annotated[
    bool, Parameter(name="--json", negative=(), show_default=False, help="Print one JSON object.")
]
DryRun = Annotated[
    bool,
    Parameter(
        name="--dry-run", negative=(), show_default=False, help="Show what would change; change nothing."
    ),
]


def answer() -> Console:
    """Return the console of stdout."""
    return _console(is_talk=False)


def talk() -> Console:
    """Return the console of stderr."""
    return _console(is_talk=True)


def _console(*, is_talk: bool) -> Console:
    """Return a console that follows the current stream; nothing in text is taken for markup."""
    from rich.console import Console

    console = Console(stderr=is_talk, highlight=False, markup=False, emoji=False, soft_wrap=False)
    console.width = min(COLUMNS, console.width) if console.is_terminal else COLUMNS
    return console


def print_json(value: Mapping[str, Any]) -> None:
    """Print an object to stdout, `schema` first; exact decimals become exact numbers."""
    import msgspec

    encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
    text = encoder.encode({"schema": JSON_SCHEMA, **value})
    sys.stdout.write(msgspec.json.format(text, indent=2).decode() + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print text to stdout."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def print_either(value: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print an object, or the lines that say the same."""
    if as_json:
        print_json(value)
    else:
        print_lines(lines)


def say(text: str) -> None:
    """Print a remark to stderr; its lines are left as they are."""
    print(text, file=sys.stderr)  # noqa: T201 - talk


def say_next(text: str) -> None:
    """Name the one next command, on stderr."""
    say(f"next   {text}")


def say_error(error: object) -> None:
    """Print what went wrong to stderr, each finding on a line of its own."""
    for line in str(error).splitlines() or [type(error).__name__]:
        say(f"leastwise: error: {line}")
