"""`leastwise report`: what was spent and saved, from the ledger or from a file."""

from __future__ import annotations

import csv as csv_format
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from leastwise.build import Plans, existing_store
from leastwise.cascade import NO_EVIDENCE
from leastwise.cli.console import OK, AsJson, ConfigFile, print_json, say, say_next
from leastwise.config import Config, limits, load, policy, price_book
from leastwise.errors import ConfigError
from leastwise.forecast import Prices
from leastwise.models import load_models
from leastwise.report import ledger, messages_log, usage_csv
from leastwise.report.cascade import read_cascade
from leastwise.report.files import kind_of
from leastwise.report.window import Window, read_window
from leastwise.statement import forecasts, fullest, statements

By = Annotated[
    str | None,
    Parameter(
        help="What to sum by, commas between: tag, tier, key, day, served, asked. A usage file: model, "
        "key, day, workspace."
    ),
]
Csv = Annotated[bool, Parameter(name="--csv", negative=(), help="Print comma-separated values.")]


def report(
    file: Annotated[
        Path | None, Parameter(help="A usage export (CSV) or Messages requests (JSON lines).")
    ] = None,
    /,
    *,
    by: By = None,
    days: Annotated[int | None, Parameter(help="That many days, today the last. [default: 7]")] = None,
    month: Annotated[str | None, Parameter(help="A month, such as 2026-11.")] = None,
    since: Annotated[date | None, Parameter(help="First day, UTC.")] = None,
    until: Annotated[date | None, Parameter(help="Last day, UTC, counted.")] = None,
    as_csv: Csv = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Show what was spent and saved, from the ledger or a usage file.

    Without a file: the ledger. With one: what the file says was spent, and how much could move.
    """
    if as_csv and as_json:
        message = "--csv and --json: give one of them"
        raise ConfigError(message)
    now = datetime.now(UTC)
    settings = load(config)
    groups = tuple(name.strip() for name in (by or "").split(",") if name.strip())
    if file is None:
        window = read_window(now.date(), days=days, month=month, since=since, until=until)
        lines, table, value, following = _of_ledger(settings, window, groups)
    else:
        if not (days is None and month is None and since is None and until is None):
            message = "a file is read whole: leave out --days, --month, --since and --until"
            raise ConfigError(message)
        lines, table, value, following = _of_file(file, settings, groups, now)
    if as_json:
        print_json(value)
    elif as_csv:
        csv_format.writer(sys.stdout, lineterminator="\n").writerows(table)
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
    say_next(following)
    return OK


_Shown = tuple[Iterable[str], Iterable[Iterable[str]], Mapping[str, Any], str]


def _of_ledger(settings: Config, window: Window, groups: tuple[str, ...]) -> _Shown:
    by = ledger.check_groups(groups)
    where = settings.store.shown
    with existing_store(settings) as store:
        if store is None:
            found = ledger.empty_ledger(window, by=by, mode=settings.mode, where=where)
        else:
            at, plan = datetime.now(UTC), Plans(settings, imports=False).usual
            now = at.timestamp()
            accounts = fullest(statements(store, limits(settings), settings.ladder, now))
            prices = Prices(settings.ladder, price_book(settings), load_models())
            evidence = store.evidence(plan.digest) if plan.checks else NO_EVIDENCE
            found = ledger.read_ledger(
                store,
                window,
                by=by,
                mode=settings.mode,
                switched_on=policy(settings).switched_on,
                where=where,
                budgets=list(zip(accounts, forecasts(store, accounts, prices, now), strict=True)),
                at=now,
                cascade=read_cascade(evidence, plan, prices, at),
                ladder=settings.ladder,
            )
    return ledger.ledger_lines(found), ledger.ledger_rows(found), ledger.ledger_json(found), found.next


def _of_file(file: Path, settings: Config, groups: tuple[str, ...], now: datetime) -> _Shown:
    def on_bad(line: int, fault: str) -> None:
        say(f"{file}:{line}: {fault}")

    book, models, ladder = price_book(settings), load_models(), settings.ladder
    if kind_of(file) == "usage":
        by = usage_csv.check_groups(groups)
        usage = usage_csv.read_usage(file, on_bad, book=book, models=models, ladder=ladder, now=now)
        return (
            usage_csv.usage_lines(usage, file.name, by),
            usage_csv.usage_rows(usage, by),
            usage_csv.usage_json(usage, file.name),
            usage_csv.NEXT,
        )
    messages_log.refuse_groups(groups)
    calls = messages_log.read_messages(
        file, on_bad, ladder=ladder, policy=policy(settings), book=book, models=models, now=now
    )
    return (
        messages_log.messages_lines(calls, file.name),
        messages_log.messages_rows(calls),
        messages_log.messages_json(calls, file.name),
        messages_log.NEXT,
    )
