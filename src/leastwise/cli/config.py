"""`leastwise config`: which settings are in force, and whether they can work."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import App
from rich.table import Table

from leastwise.cli.console import (
    BAD_INPUT,
    OK,
    AsJson,
    ConfigFile,
    answer,
    print_json,
    say,
    say_error,
    say_next,
)
from leastwise.config import CONFIG_VARIABLE, Config, load, misspelt, policy, price_book, settings, user_file
from leastwise.errors import ConfigError
from leastwise.prices import check_judge, check_ladder

app = App(name="config", help="Show or check the configuration.", help_format="plaintext")


@app.command(sort_key=1)
def show(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print every setting and where it comes from."""
    found = load(config)
    rows = list(settings(found))
    if as_json:
        print_json(
            {
                "files": found.files,
                "settings": [{"key": row.key, "value": row.plain, "origin": row.origin} for row in rows],
            }
        )
        return
    console = answer()
    short = {f"file {path}": f"file {number}" for number, path in enumerate(found.files, 1)}
    for origin, name in short.items():
        console.print(f"{name}  {origin.removeprefix('file ')}", soft_wrap=True)
    table = Table("setting", box=None, pad_edge=False)
    table.add_column("value", overflow="fold")
    table.add_column("origin", overflow="fold")
    for row in rows:
        table.add_row(row.key, row.text, short.get(row.origin, row.origin))
    console.print(table)
    say_next("leastwise config check")


@app.command(sort_key=2)
def path(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print the file that holds your settings, there or not."""
    file = edited_file(config)
    if as_json:
        print_json({"path": file, "exists": file.is_file()})
        return
    sys.stdout.write(f"{file}\n")
    say_next("leastwise config show" if file.is_file() else "leastwise init")


@app.command(sort_key=3)
def check(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Read the configuration and say what is wrong with it."""
    wrong = []
    try:
        verify(load(config), datetime.now(UTC))
    except ConfigError as error:
        wrong = str(error).splitlines()
    typos = [f"{name} means nothing here; {meant} would" for name, meant in misspelt(os.environ).items()]
    if as_json:
        print_json({"ok": not wrong, "wrong": wrong, "warnings": typos})
        return BAD_INPUT if wrong else OK
    for one in typos:
        say(f"leastwise: warning: {one}")
    if wrong:
        say_error("\n".join(wrong))
        say_next("leastwise config path")
        return BAD_INPUT
    sys.stdout.write("the configuration is right\n")
    say_next("leastwise doctor")
    return OK


def verify(config: Config, at: datetime) -> None:
    """Check what can only be judged with prices and all parts together.

    Raises:
        ConfigError: says what does not fit.
    """
    verify_ladder(config, at)
    check_judge(config.cascade.judge, config.ladder, at, price_book(config))


def verify_ladder(config: Config, at: datetime) -> None:
    """Check the ladder, and that the policy's tiers are on it.

    Raises:
        ConfigError: says what does not fit.
    """
    policy(config).check(config.ladder)
    check_ladder(config.ladder, at, price_book(config))


def edited_file(given: Path | None) -> Path:
    """Return the file that commands write to: the one given, `LEASTWISE_CONFIG`, or the user's own.

    Raises:
        ConfigError: none is given and there is no home directory.
    """
    explicit = given or os.environ.get(CONFIG_VARIABLE)
    file = Path(explicit).absolute() if explicit else user_file()
    if file is None:
        message = "no home directory to keep a configuration in; name a file with --config"
        raise ConfigError(message)
    return file
