"""`leastwise on` and `leastwise off`: edit the mode in the configuration file, and show the edit.

Comments and order stay as they are. Running processes see the change within a second.
"""

from __future__ import annotations

import difflib
import os
import shlex
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import tomlkit
from cyclopts import Parameter, validators
from tomlkit.exceptions import TOMLKitError

from leastwise.build import existing_store
from leastwise.cli.config import edited_file
from leastwise.cli.console import ConfigFile, DryRun, say, say_next
from leastwise.config import SCHEMA, load
from leastwise.errors import ConfigError, LeastwiseError
from leastwise.ladder import Mode
from leastwise.report.trials import standing_lines

_ALL: Final = 100
_PRIVATE: Final = 0o600

Tag = Annotated[str | None, Parameter(help="Only calls with this tag.")]
Percent = Annotated[
    float, Parameter(help="Share of the calls to send on.", validator=validators.Number(gt=0, lte=_ALL))
]


def on(
    *, tag: Tag = None, percent: Percent = _ALL, dry_run: DryRun = False, config: ConfigFile = None
) -> None:
    """Send calls to the tier that should do, from now on.

    Calls that name a real model may be answered by a cheaper one; `auto` always was.
    """
    _switch("enforce", tag, percent, config, is_dry=dry_run)
    if tag is not None:
        _say_standing(tag, config)
    share = f" --percent {percent:g}" if percent != _ALL else ""
    say_next("leastwise report" if not dry_run else f"leastwise on{_of(tag)}{share}")


def off(*, tag: Tag = None, dry_run: DryRun = False, config: ConfigFile = None) -> None:
    """Pass every call through untouched, from now on; the ledger goes on counting."""
    _switch("off", tag, None, config, is_dry=dry_run)
    say_next("leastwise report" if not dry_run else f"leastwise off{_of(tag)}")


def _of(tag: str | None) -> str:
    return "" if tag is None else f" --tag {shlex.quote(tag)}"


def _say_standing(tag: str, given: Path | None) -> None:
    """Tell what is known of the answers that a tag will get."""
    try:
        settings = load(given)
        with existing_store(settings) as store:
            trials = list(store.evidence("").trials.values()) if store is not None else []
    except LeastwiseError as error:
        say(f"what it stands on cannot be told: {error}")
        return
    for line in standing_lines(tag, trials, settings.ladder):
        say(line)


def _switch(mode: Mode, tag: str | None, percent: float | None, given: Path | None, *, is_dry: bool) -> None:
    if tag is not None and not tag.strip():
        message = "--tag is empty; name a tag, or leave --tag out for all calls"
        raise ConfigError(message)
    file = edited_file(given)
    before = text_of(file)
    try:
        after = switched(before, mode, tag=tag, percent=percent)
    except TOMLKitError as error:
        message = f"file {file}: not TOML: {error}. At once, without the file: LEASTWISE_MODE={mode}"
        raise ConfigError(message) from error
    sys.stdout.writelines(diff(before, after, file))
    if before == after:
        say(f"nothing to change: {file} says so already")
    elif not is_dry:
        write(file, after)
        say(f"written: {file}; running processes take it up within a second")
    if not is_dry:
        _say_if_overruled(mode, tag, given)


def switched(text: str, mode: Mode, *, tag: str | None = None, percent: float | None = None) -> str:
    """Return a configuration file's text with another mode, for all calls or for one tag.

    Args:
        text: The file; "" for a new one.
        mode: What to set.
        tag: Whose `[[switch]]` row to write; None: the mode of all calls.
        percent: Share of the calls; None leaves what is there.

    Raises:
        TOMLKitError: the text is not TOML.
    """
    document = tomlkit.parse(text or f"schema = {SCHEMA}\n")
    if tag is None:
        _set(document, mode, percent)
        return tomlkit.dumps(document)
    if mode == "enforce" and document.get("mode") == "off":
        document["mode"] = "observe"  # off stands above the switches of tags
    rows = document.get("switch")
    if rows is None:
        rows = document["switch"] = tomlkit.aot()
    for row in rows:
        if row.get("tag") == tag:
            break
    else:
        row = tomlkit.table()
        row["tag"] = tag
        rows.append(row)
    _set(row, mode, percent)
    return tomlkit.dumps(document)


def _set(table: tomlkit.TOMLDocument | tomlkit.items.Table, mode: Mode, percent: float | None) -> None:
    table["mode"] = mode
    if percent is not None and (percent != _ALL or "percent" in table):
        table["percent"] = int(percent) if percent == int(percent) else percent


def text_of(file: Path) -> str:
    """Return a file's text, "" where there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {file}: {error}"
        raise ConfigError(message) from error


def diff(before: str, after: str, file: Path) -> list[str]:
    """Return what changes as lines."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return [f"{line.rstrip()}\n" for line in difflib.unified_diff(old, new, str(file), str(file))]


def write(file: Path, text: str) -> None:
    """Replace a file in one step; a new one can be read by its owner only, an old one keeps its mode.

    Raises:
        ConfigError: it cannot be written.
    """
    target = file.resolve()  # a link stays a link
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else _PRIVATE
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(mode)
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise ConfigError(message) from error


def _say_if_overruled(mode: Mode, tag: str | None, given: Path | None) -> None:
    """Tell when something stronger than the file, such as a variable, says otherwise.

    Raises:
        ConfigError: another part of the configuration is wrong, so nobody takes it up.
    """
    try:
        config = load(given)
    except ConfigError:
        say(f"nobody takes it up before this is mended; at once, without the file: LEASTWISE_MODE={mode}")
        raise
    says = f'leastwise: warning: {config.origins.get("mode")} says mode = "{config.mode}"'
    if tag is None and config.mode != mode:
        say(f"{says} and wins over this file")
    if tag is not None and mode == "enforce" and config.mode == "off":
        say(f"{says}, which stands above every tag")
