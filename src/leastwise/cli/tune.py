"""`leastwise tune`: what routing and its checks go by, and how they learn."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter, validators

from leastwise.build import Plans, existing_store
from leastwise.cascade import JUDGE, SURE, TARGET, stamp_of
from leastwise.cli.console import BAD_INPUT, OK, AsJson, ConfigFile, DryRun, print_either, say, say_next
from leastwise.config import Config, load
from leastwise.errors import ConfigError
from leastwise.judge import VERSION
from leastwise.report.calibrating import (
    Calibrated,
    Wanted,
    calibrated,
    calibrated_json,
    calibrated_lines,
    of_samples,
    read_samples,
)
from leastwise.report.files import unreadable
from leastwise.report.routes import Planner
from leastwise.report.table import plural
from leastwise.report.types import table_json, table_lines

app = App(name="tune", help="Show what routing goes by, and calibrate its checks.", help_format="plaintext")
app.command(
    "leastwise.cli.replay:replay",
    name="replay",
    help="Replay policies over a table of what models did, and print them beside honest controls.",
    sort_key=3,
)

_DAY_S: Final = 24 * 3600
_Share = validators.Number(gt=0, lt=1)


@app.command(sort_key=1)
def table(*, as_json: AsJson = False, config: ConfigFile = None) -> int:
    """Print the type table: quality, calls and mean cost of each tier at each type of task."""
    settings = load(config)
    planner = Planner(settings, datetime.now(UTC))
    router = planner.router
    with existing_store(settings) as store:
        seen = store.types() if store is not None else []
        rungs = store.evidence(planner.plans.usual.digest).rungs if store is not None else {}
    router.teller.learn(rungs)
    print_either(table_json(router, seen), table_lines(router, seen), as_json=as_json)
    say_next("leastwise route --explain PROMPT")
    return OK


@app.command(sort_key=2)
def calibrate(
    *,
    check: Annotated[str, Parameter(help="Whose scores.")] = JUDGE,
    tag: Annotated[str | None, Parameter(help="Only calls with this tag.")] = None,
    task_type: Annotated[str | None, Parameter(name="--type", help="Only tasks of this type.")] = None,
    target: Annotated[
        float, Parameter(help="The share of accepted answers that may be bad.", validator=_Share)
    ] = TARGET,
    sure: Annotated[float, Parameter(help="How surely no more are.", validator=_Share)] = SURE,
    since: Annotated[float | None, Parameter(help="Only calls of so many days.")] = None,
    file: Annotated[
        Path | None,
        Parameter(name="--from", help="CSV or JSON lines with score, ok and perhaps type; nothing is kept."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Find what a check's scores are worth, by answers of which somebody said whether they were good.

    A threshold is kept where it is proved that no more than the target of what it accepts is bad.
    """
    settings = load(config)
    wanted = _wanted(settings, Wanted(check, task_type, target=target, sure=sure))
    if file is not None:
        if tag is not None or task_type is not None or since is not None:
            message = "--from stands without --tag, --type and --since: it is read whole"
            raise ConfigError(message)
        return _of_file(file, replace(wanted, by=""), as_json=as_json)
    with existing_store(settings) as store:
        first = 0.0 if since is None else time.time() - since * _DAY_S
        scored = store.scored(since=first) if store is not None else []
        rows = [row for row in scored if tag in (None, row.tag)]
        if store is not None:
            wanted = replace(wanted, kept=store.evidence("").calibrations)
        report = calibrated(rows, wanted)
        if store is not None and not dry_run:
            for one in report.to_keep:
                store.put_calibration(one, time.time())
    why_not = "" if check == JUDGE else "give others their threshold: in their [[check]], or Task(threshold=)"
    _show(report, as_json=as_json, is_kept=not dry_run, why_not=why_not)
    tags = {row.tag for row in rows if row.ok is not None and not row.verdict.is_control}
    if len(tags) == 1 and any(tags) and report.to_keep:
        say(f"it stands on calls of tag {''.join(tags)}, and counts for those of other tags, too")
    if report.to_keep and dry_run:
        told = {"check": check, "tag": tag, "type": task_type, "target": target, "sure": sure, "since": since}
        usual = {"check": JUDGE, "target": TARGET, "sure": SURE}
        options = (
            f" --{name} {shlex.quote(f'{value:g}' if isinstance(value, float) else value)}"
            for name, value in told.items()
            if value is not None and value != usual.get(name)
        )
        say_next(f"leastwise tune calibrate{''.join(options)}")
    else:
        say_next("leastwise report" if report.to_keep else "leastwise feedback ID --ok")
    return OK


def _wanted(settings: Config, wanted: Wanted) -> Wanted:
    """Return what is to be calibrated, under the configuration in force."""
    plan = Plans(settings, imports=False).usual
    if wanted.check != JUDGE:
        told = next((row.threshold for row in settings.checks if row.name == wanted.check), None)
        return wanted if told is None else replace(wanted, raw=told)
    return replace(
        wanted,
        by=str(plan.judge),
        stamps={stamp_of(plan, tier.model, VERSION) for tier in settings.ladder},
        raw=plan.threshold,
        trusts_self=plan.trusts_self,
    )


def _of_file(file: Path, wanted: Wanted, *, as_json: bool) -> int:
    bad: list[int] = []

    def on_bad(line: int, fault: str) -> None:
        bad.append(line)
        say(f"{file.name}:{line}: {fault}")

    try:
        with file.open("rb") as opened:
            report = of_samples(read_samples(opened, file.name, on_bad), wanted)
    except OSError as error:
        raise unreadable(file, error) from None
    _show(report, as_json=as_json, is_kept=False, why_not="whose scores a file has is not known")
    if bad:
        say(f"{plural(len(bad), 'row')} could not be read; the rest is counted")
    say_next("leastwise tune calibrate")
    return OK if report.makers[0].scored else BAD_INPUT


def _show(report: Calibrated, *, as_json: bool, is_kept: bool, why_not: str) -> None:
    """Print what was calibrated, and say what becomes of it; `why_not` where it cannot be kept."""
    print_either(calibrated_json(report, is_kept=is_kept), calibrated_lines(report), as_json=as_json)
    number = plural(len(report.to_keep), "calibration")
    if not report.to_keep:
        say(f"nothing is kept{why_not and f': {why_not}'}")
    elif is_kept:
        say(f"{number} kept; checks go by it within a second")
    else:
        say(f"{number} would be kept")
