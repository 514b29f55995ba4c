"""`leastwise tune`: what routing goes by, and later how it learns."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from cyclopts import App

from leastwise.build import existing_store
from leastwise.cli.console import OK, AsJson, ConfigFile, print_json, say_next
from leastwise.config import load
from leastwise.report.routes import Planner
from leastwise.report.types import table_json, table_lines

app = App(name="tune", help="Show what routing goes by.", help_format="plaintext")


@app.command
def table(*, as_json: AsJson = False, config: ConfigFile = None) -> int:
    """Print the type table: quality, calls and mean cost of each tier at each type of task."""
    settings = load(config)
    router = Planner(settings, datetime.now(UTC)).router
    with existing_store(settings) as store:
        seen = store.types() if store is not None else []
    if as_json:
        print_json(table_json(router, seen))
    else:
        sys.stdout.writelines(f"{line}\n" for line in table_lines(router, seen))
    say_next("leastwise route --explain PROMPT")
    return OK
