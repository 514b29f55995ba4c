"""`leastwise why`: one call explained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from leastwise.build import existing_store
from leastwise.cascade import Trial
from leastwise.cli.console import FAILED, OK, AsJson, ConfigFile, print_json, say_error, say_next
from leastwise.config import Config, load
from leastwise.ledger import IDS
from leastwise.report.why import read_why, why_json, why_lines
from leastwise.stores import Story


def why(
    call: Annotated[str, Parameter(help="Its exchange id, msg_... id or request-id.")],
    /,
    *,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Explain one call: who answered, why, what it cost, what is not known."""
    settings = load(config)
    story, trials = _find(settings, call.strip())
    if story is None:
        say_error(f"nothing is known of {call!r}. Searched: {IDS} in {settings.store.shown}")
        say_next("leastwise report --by day")
        return FAILED
    found = read_why(story, trials, settings.ladder)
    if as_json:
        print_json(why_json(found))
    else:
        sys.stdout.writelines(f"{line}\n" for line in why_lines(found))
        say_next(found.next)
    return OK


def _find(settings: Config, call: str) -> tuple[Story | None, Mapping[tuple[str, str], Trial]]:
    with existing_store(settings) as store:
        return (store.find(call), store.evidence("").trials) if store is not None else (None, {})
