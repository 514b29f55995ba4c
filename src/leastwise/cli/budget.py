"""`leastwise budget`: how budgets stand, where they are heading, and what may be changed about them.

`set` edits the configuration file, as `on` and `off` do; `raise` and `reconcile` write to the store.
"""

from __future__ import annotations

import getpass
import re
import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import tomlkit
from cyclopts import App, Parameter, validators
from tomlkit.exceptions import TOMLKitError

from leastwise.budget import MOST_NUSD, BudgetRule, Cap, Limits, Raise, Scope, Span, raised_at
from leastwise.build import existing_store, open_store
from leastwise.cli.config import edited_file
from leastwise.cli.console import FAILED, OK, AsJson, ConfigFile, DryRun, print_json, say, say_next
from leastwise.cli.switch import diff, text_of, write
from leastwise.config import SCHEMA, file_of, limits, load, price_book, read_budget
from leastwise.errors import ConfigError
from leastwise.forecast import Prices
from leastwise.models import load_models
from leastwise.money import show, to_nusd, to_usd
from leastwise.reconcile import Reconciled, correct_one, set_right
from leastwise.report.budgets import (
    NO_BUDGET,
    Event,
    iso,
    log_json,
    log_lines,
    lost_event,
    raise_event,
    reconciled_json,
    reconciled_lines,
    status_json,
    status_lines,
    step_down_event,
)
from leastwise.report.table import plural, wrapped
from leastwise.statement import forecasts, statements
from leastwise.stores import Query, Store

app = App(name="budget", help="See budgets and change what they allow.", help_format="plaintext")

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FROM_NOW: Final = re.compile(r"(\d{1,4})([hd])")
_WEEK_DAYS: Final = 7
_NEARLY: Final = 90  # per cent

Name = Annotated[str | None, Parameter(help="Only this budget.")]
OneName = Annotated[str, Parameter(help="The budget.")]


@app.command(sort_key=1)
def status(name: Name = None, /, *, as_json: AsJson = False, config: ConfigFile = None) -> int:
    """Show how every account stands, and where it is heading."""
    settings, now = load(config), datetime.now(UTC).timestamp()
    allowed = _only(limits(settings), name)
    prices = Prices(settings.ladder, price_book(settings), load_models())
    with existing_store(settings) as store:
        found = statements(store, allowed, settings.ladder, now) if store is not None else []
        ahead = list(forecasts(store, found, prices, now)) if store is not None else []
    pairs = list(zip(found, ahead, strict=True))
    if as_json:
        print_json(status_json(pairs))
    elif allowed.rules:
        _print(status_lines(allowed.rules, pairs, now))
    else:
        _print(NO_BUDGET)
    fullest = max(found, key=lambda one: one.percent, default=None)
    if not allowed.rules:
        say_next("leastwise budget set NAME --limit USD")
    elif fullest is not None and fullest.percent >= _NEARLY:
        say_next(f"leastwise budget raise {fullest.rule.name} USD --until mon --why REASON")
    else:
        say_next("leastwise budget log")
    return OK


def _only(allowed: Limits, name: str | None) -> Limits:
    """Return the budgets, or the one of that name alone.

    Raises:
        ConfigError: there is none.
    """
    if name is None:
        return allowed
    return Limits((_rule(allowed, name),), allowed.wait_s, allowed.unbounded, allowed.contact)


def _rule(allowed: Limits, name: str) -> BudgetRule:
    for rule in allowed.rules:
        if rule.name == name:
            return rule
    names = ", ".join(rule.name for rule in allowed.rules) or "none is configured"
    message = f"there is no budget {name!r}; budgets: {names}"
    raise ConfigError(message)


@app.command(name="set", sort_key=2)
def set_(
    name: OneName,
    /,
    *,
    limit: Annotated[str | None, Parameter(help="What one window may cost, in dollars.")] = None,
    window: Annotated[Span | None, Parameter(help="When it begins anew. [default: month]")] = None,
    scope: Annotated[
        tuple[Scope, ...],
        Parameter(
            negative=(),
            consume_multiple=True,
            show_default=False,
            help="What has an account of its own; may be repeated. [default: global]",
        ),
    ] = (),
    cap: Annotated[
        Cap | None, Parameter(help="What may go on at the limit. [default: allow_critical]")
    ] = None,
    dry_run: DryRun = False,
    config: ConfigFile = None,
) -> None:
    """Write a budget to the configuration file, or change it; running processes take it up."""
    given: dict[str, Any] = {"window": window, "scope": list(scope) or None, "cap": cap}
    if limit is not None:
        given["limit_usd"] = _dollars("--limit", limit)
    file = edited_file(config)
    before = text_of(file)
    try:
        after = budgeted(before, name, {key: value for key, value in given.items() if value is not None})
    except TOMLKitError as error:
        message = f"file {file}: not TOML: {error}"
        raise ConfigError(message) from error
    rows = tomllib.loads(after, parse_float=Decimal)["budget"]
    row = next(row for row in rows if row.get("name") == name)
    if "limit_usd" not in row:
        message = f"there is no budget {name!r} yet: say --limit USD"
        raise ConfigError(message)
    read_budget(row).check(load(config).ladder)
    sys.stdout.writelines(diff(before, after, file))
    if before == after:
        say(f"nothing to change: {file} says so already")
    elif not dry_run:
        write(file, after)
        say(f"written: {file}; running processes take it up within a second")
        load(config)  # says what else of the configuration is wrong
    say_next(f"leastwise budget status {name}" if not dry_run else f"leastwise budget set {name}")


def budgeted(text: str, name: str, given: dict[str, Any]) -> str:
    """Return a configuration file's text with settings of one `[[budget]]` changed, or the row added.

    Args:
        text: The file; "" for a new one.
        name: The budget.
        given: Its settings by key.

    Raises:
        TOMLKitError: the text is not TOML.
    """
    document = tomlkit.parse(text or f"schema = {SCHEMA}\n")
    rows = document.get("budget")
    if rows is None:
        rows = document["budget"] = tomlkit.aot()
    for row in rows:
        if row.get("name") == name:
            break
    else:
        row = tomlkit.table()
        row["name"] = name
        rows.append(row)
    for key, value in given.items():
        row[key] = _item(value) if isinstance(value, Decimal) else value
    return tomlkit.dumps(document)


def _item(value: Decimal) -> Any:
    """Return an amount as it is written: whole dollars without a point, cents exactly."""
    return int(value) if value == int(value) else tomlkit.float_(f"{value:f}")


def _dollars(option: str, text: str) -> Decimal:
    try:
        return to_usd(to_nusd(text))
    except ValueError as error:
        message = f"{option}: {error}"
        raise ConfigError(message) from None


@app.command(name="raise", sort_key=3)
def raise_(
    name: OneName,
    usd: Annotated[str, Parameter(help="How much more, in dollars.")],
    /,
    *,
    until: Annotated[str, Parameter(help="When that ends: mon, 2026-12-01, 2026-12-01T09:00, 3h or 2d.")],
    why: Annotated[str, Parameter(help="The reason; it is logged with your name.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Give a budget more money until a time; every process takes it up at once."""
    settings, now = load(config), datetime.now(UTC)
    rule = _rule(limits(settings), name)
    nusd = to_nusd(_dollars("USD", usd))
    if not 0 < nusd <= MOST_NUSD:
        message = f"{usd}: expected more than $0, at most {show(MOST_NUSD, 0)}"
        raise ConfigError(message)
    if not why.strip():
        message = "--why is empty; the log is to say what the money was for"
        raise ConfigError(message)
    end = parse_until(until, now, rule.tz)
    raised = Raise(name, nusd, end.timestamp(), why.strip(), _user(), now.timestamp())
    limit = rule.limit_nusd + nusd
    if not dry_run:
        store = open_store(settings)
        try:
            store.add_raise(raised)
            limit = rule.limit_nusd + raised_at(store.raises(), now.timestamp())[name]
        finally:
            store.close()
    if as_json:
        print_json(
            {
                "budget": name,
                "raised_usd": to_usd(nusd),
                "limit_usd": to_usd(limit),
                "until": iso(raised.until),
                "who": raised.who,
                "why": raised.why,
                "written": not dry_run,
            }
        )
    else:
        there = f"{end.astimezone(ZoneInfo(rule.tz)):%a %d %b %Y %H:%M} {rule.tz}"
        words = f"{name}: {show(nusd)} more until {there}, by {raised.who}: {raised.why}"
        _print(wrapped(words))
        _print([f"limit  {show(limit)} in each window until then"])
    say_next(f"leastwise budget status {name}")


def parse_until(text: str, now: datetime, tz: str) -> datetime:
    """Return the moment that `--until` means, in the budget's time zone.

    A day, by name or date, means its first second; a day's name the next such day, never today.

    Raises:
        ConfigError: it means nothing, or a time that is over.
    """
    zone, word = ZoneInfo(tz), text.strip().lower()
    today = now.astimezone(zone).date()
    if word[:3] in _DAYS and word in (word[:3], _day_name(word[:3])):
        ahead = (_DAYS.index(word[:3]) - today.weekday()) % _WEEK_DAYS or _WEEK_DAYS
        day = today + timedelta(days=ahead)
        return datetime(day.year, day.month, day.day, tzinfo=zone)
    found = _FROM_NOW.fullmatch(word)
    if found:
        number = int(found[1])
        end = now + (timedelta(hours=number) if found[2] == "h" else timedelta(days=number))
    else:
        try:
            end = datetime.fromisoformat(text.strip())
        except ValueError:
            message = f"--until {text}: expected mon, 2026-12-01, 2026-12-01T09:00, 3h or 2d"
            raise ConfigError(message) from None
        end = end if end.tzinfo else end.replace(tzinfo=zone)
    if end <= now:
        message = f"--until {text}: that is over already"
        raise ConfigError(message)
    return end


def _day_name(short: str) -> str:
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    return f"{monday + timedelta(days=_DAYS.index(short)):%A}".lower()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return "unknown"


@app.command(sort_key=4)
def log(
    name: Name = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many lines.", validator=validators.Number(gte=1))] = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Show what happened, newest first: calls made cheaper or refused, raises, attempts of unknown cost."""
    settings = load(config)
    if name is not None:
        _rule(limits(settings), name)
    events: list[Event] = []
    refused = 0
    with existing_store(settings) as store:
        if store is not None:
            events, refused = _events(store, name, limit)
    if as_json:
        print_json({**log_json(events), "refused_calls": refused})
    elif events:
        _print(log_lines(events))
    else:
        _print(["nothing happened: no request made cheaper, refused or lost, no budget raised"])
    if refused and not as_json:
        _print([f"{plural(refused, 'call')} refused by a budget, all in all"])
    is_lost = any(one.kind == "lost" for one in events)
    say_next("leastwise budget reconcile" if is_lost else "leastwise budget status")
    return OK


def _events(store: Store, name: str | None, limit: int) -> tuple[list[Event], int]:
    # All are asked for: those of other budgets are left out afterwards.
    asked = limit if name is None else sys.maxsize >> 1
    events = [step_down_event(*one) for one in store.step_downs(asked)]
    events += [raise_event(one) for one in store.raises()]
    events += [lost_event(entry) for entry in store.lost()]
    mine = [one for one in events if name is None or name in one.budget.split(", ")]
    mine.sort(key=lambda one: -one.at)
    refused = sum(line.calls for line in store.sums(Query(by=("result",))) if line.group == ("blocked",))
    return mine[:limit], refused


@app.command(sort_key=5)
def reconcile(
    *,
    entry: Annotated[str | None, Parameter(help="A lost entry of which you know what it cost.")] = None,
    usd: Annotated[str | None, Parameter(help="What it cost, in dollars.")] = None,
    whole_ledger: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="The ledger in this file has all that was charged."),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Settle what dead processes left, set budgets right by the ledger, list what is not known.

    Budgets on a server may be shared by machines with a ledger in a file each: then they are compared with
    this one only with --whole-ledger. Exit code 1 while calls under way keep a difference from being mended.
    """
    if (entry is None) != (usd is None):
        message = "--entry and --usd go together: which lost entry, and what it cost"
        raise ConfigError(message)
    settings = load(config)
    with existing_store(settings) as store:
        if store is None and entry is None:
            done = Reconciled()
        elif store is None:
            message = f"--entry {entry}: nothing was ever written to {settings.store.shown}"
            raise ConfigError(message)
        elif entry is not None and usd is not None:
            known_nusd = to_nusd(_dollars("--usd", usd))
            done = correct_one(store, entry, known_nusd, is_dry=dry_run)
        else:
            now = datetime.now(UTC).timestamp()
            at = settings.store
            is_whole = whole_ledger or not at.path or bool(file_of(at.budget_url))
            if not is_whole:
                say("budgets are on a server, the ledger in a file of this machine: not compared")
            done = set_right(store, limits(settings), now, is_dry=dry_run, is_whole=is_whole)
    if as_json:
        print_json({**reconciled_json(done), "written": not dry_run})
    else:
        _print(reconciled_lines(done, is_dry=dry_run))
    if entry is None and not all(one.is_pending for one in done.lost):
        say_next("leastwise budget reconcile --entry ID --usd X")
    else:
        say_next("leastwise budget reconcile" if dry_run or done.left else "leastwise budget status")
    return FAILED if done.left else OK


def _print(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
