"""Writes docs/cli.md and docs/configuration.md from the program itself: `python docs/make.py`."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

from leastwise.cli import main
from leastwise.cli.init import template

HERE = Path(__file__).resolve().parent
COMMANDS = (
    "",
    *("demo", "init", "doctor", "route", "report", "why", "on", "off"),
    *("budget", "budget status", "budget set", "budget raise", "budget log", "budget reconcile"),
    *("cache", "cache stats", "cache list", "cache show", "cache clear", "cache prune"),
    *("config", "config show", "config check", "config path"),
    *("tune", "tune table", "simulate"),
)

CLI = """\
# Command line

The answer goes to standard output, talk to standard error; `--json` wherever a table is printed, with
`"schema": 1`. Exit codes: 0 done; 1 the answer is no, or something failed; 2 an option, a file or the
configuration is wrong; 130 interrupted. This page is written by `docs/make.py`; a test compares it.
"""

CONFIGURATION = """\
# Configuration

Without a file everything works. `leastwise init` writes this one to your config directory
(`$XDG_CONFIG_HOME/leastwise/leastwise.toml`, else `~/.config/leastwise/leastwise.toml`); `leastwise config
show` prints every value with where it comes from, `leastwise config check` tells what is wrong.

What is said later wins: defaults, your file, a `leastwise.toml` in the working directory (policy only: it
cannot name upstreams, stores or prices), environment variables, arguments. `LEASTWISE_CONFIG` names another
file. Variables are `LEASTWISE_` and the key in capitals: `LEASTWISE_MODE`, `LEASTWISE_STORE_URL`. Unknown
keys are errors. This page is written by `docs/make.py`; a test compares it.

```toml
{template}```

## PostgreSQL

`pip install "leastwise[postgres]"`, and `ledger` and `budget` (or `url`) name a database: for several
hosts that share one ledger, or a ledger that others query too. All tables are in the schema `leastwise`,
which is made at the first start; until it exists, the role needs `CREATE` on the database. Limits are
exact across hosts: a lease locks its accounts first, in one order for everybody, and reads what they hold
only then, so that leases neither overspend nor lock each other out. That order has a price: what is
leased from one budget is leased one transaction after the other, some 1,000 a second, or more where
threads of one process share transactions; for more, keep budgets on Redis or Valkey. Who has died is told
by the server's clock. A server that cannot be reached at the start is an error. One that is lost later is
found out within about a second (two, where a network swallows everything): budgets then block what they
cover, rows wait in memory, 10,000 at most, and both end when it is back. Not promised: limits across a
fail-over to a replica that lacks the last transactions (`synchronous_commit` and the replication are
yours), poolers that share connections between transactions (PgBouncer's `transaction` mode; `session`
mode works), text with NUL characters.
"""


def cli_page() -> str:
    """Return docs/cli.md."""
    parts = [CLI]
    for command in COMMANDS:
        written = io.StringIO()
        with redirect_stdout(written):
            main([*command.split(), "--help"])
        text = "\n".join(line.rstrip() for line in written.getvalue().strip().splitlines())
        parts.append(f"## leastwise {command}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def configuration_page() -> str:
    """Return docs/configuration.md."""
    return CONFIGURATION.format(template=template())


if __name__ == "__main__":
    (HERE / "cli.md").write_text(cli_page(), "utf-8")
    (HERE / "configuration.md").write_text(configuration_page(), "utf-8")
