"""Budgets as `leastwise budget` and `leastwise report` show them: how they stand, and what happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from leastwise.budget import BudgetRule, Raise, budget_of
from leastwise.forecast import LIMIT, Forecast, TooLittle, when
from leastwise.ledger import Entry, StepDown
from leastwise.money import show, to_usd
from leastwise.reconcile import Reconciled
from leastwise.report.table import labelled, plural, wrapped
from leastwise.statement import Statement, heading_words, lasting_words, measured_words, usage_words

Ahead = Forecast | TooLittle

#: Where the words of an event go on.
_EVENT: Final = 29
#: So many accounts of a budget are shown as text; `--json` has all.
SHOWN: Final = 20
NO_BUDGET: Final = (
    "no budget is configured; only a client's own budget_usd limits what it spends",
    "to set one: leastwise budget set all --limit 100",
)


# --- how they stand ----------------------------------------------------------------------------------


def status_lines(
    rules: Sequence[BudgetRule],
    found: Sequence[tuple[Statement, Ahead]],
    now: float,
) -> list[str]:
    """Return every account's standing as text, budgets in the order of the configuration."""
    lines: list[str] = []
    for rule in rules:
        mine = [(one, ahead) for one, ahead in found if one.rule.name == rule.name]
        for one, ahead in mine[:SHOWN]:
            lines += ["", *_account_lines(one, ahead, now)]
        if len(mine) > SHOWN:
            lines += ["", *wrapped(f"{rule.name}: {plural(len(mine) - SHOWN, 'account')} more; all: --json")]
        if not mine:
            words = f"nothing spent in this window yet, of {show(rule.limit_nusd)} for each {_each(rule)}"
            lines += ["", rule.name, *labelled("unused", words.removesuffix(" for each "))]
    return lines[1:]


def _each(rule: BudgetRule) -> str:
    return "" if rule.scope == ("global",) else " and ".join(rule.scope)


def _account_lines(one: Statement, ahead: Ahead, now: float) -> Iterator[str]:
    standing = one.standing
    yield one.name
    spent = f"{one.show(standing.spent_nusd)}, {usage_words(one)}; {plural(standing.calls, 'call')}"
    yield from labelled("spent", spent)
    if standing.leased_nusd:
        yield from labelled("reserved", f"{one.show(standing.leased_nusd)} for calls under way")
    if one.raised_nusd:
        yield from labelled("raised", f"by {one.show(one.raised_nusd)} for now")
    yield from labelled("resets", one.resets() or _no_reset(one))
    if one.tier:
        yield from labelled("ceiling", f"nothing above {one.tier} is chosen, but for critical tasks")
    yield from labelled("cap", _cap(one))
    yield from labelled("forecast", "; ".join(_heading(one, ahead, now)))
    for words in lasting_words(one, ahead, now):
        yield from labelled("", words)


def _no_reset(one: Statement) -> str:
    if one.rule.rolling:
        return f"never: it is the last {'30 days' if one.rule.window == 'month' else one.rule.window}"
    return "never"


def _cap(one: Statement) -> str:
    usual = f"at {one.show(one.usual_nusd)} calls are refused"
    if one.rule.reserve:
        usual += f", tool loops under way at {one.show(one.limit_nusd)}"
    return usual if one.rule.cap == "block" else f"{usual}, critical tasks at {one.show(one.most_nusd)}"


def _heading(one: Statement, ahead: Ahead, now: float) -> Iterator[str]:
    if isinstance(ahead, TooLittle):
        yield measured_words(ahead, now).removeprefix("no forecast: ")
        return
    yield measured_words(ahead, now)
    yield heading_words(one, ahead, now)
    for reach in ahead.reached:
        if reach.what != LIMIT and reach.at is not None:
            what = reach.what if reach.what.endswith("limit") else f"ceiling {reach.what}"
            yield f"{what} at {one.show(reach.nusd)} on {when(reach.at, now, one.rule.tz)}"


def status_json(found: Sequence[tuple[Statement, Ahead]]) -> dict[str, Any]:
    """Return every account's standing as `--json` prints it."""
    return {"accounts": [account_json(one, ahead) for one, ahead in found]}


def account_json(one: Statement, ahead: Ahead) -> dict[str, Any]:
    """Return how one account stands, for machines."""
    return {
        "budget": one.rule.name,
        "account": one.account,
        "scope": budget_of(one.account)[1],
        "window": one.rule.window,
        "window_key": one.window.key,
        "resets_at": iso(one.window.ends_at),
        "spent_usd": to_usd(one.standing.spent_nusd),
        "reserved_usd": to_usd(one.standing.leased_nusd),
        "limit_usd": to_usd(one.limit_nusd),
        "raised_usd": to_usd(one.raised_nusd),
        "percent": round(float(one.percent), 2),
        "cap": one.rule.cap,
        "critical_limit_usd": to_usd(one.most_nusd),
        "calls": one.standing.calls,
        "ceiling": one.tier or None,
        "forecast": _ahead_json(ahead),
    }


def _ahead_json(ahead: Ahead) -> dict[str, Any]:
    if isinstance(ahead, TooLittle):
        return {"known": False, "since": iso(ahead.since), "calls": ahead.calls}
    return {
        "known": True,
        "since": iso(ahead.since),
        "calls": ahead.calls,
        "hourly_usd": to_usd(ahead.hourly_nusd),
        "left_usd": to_usd(ahead.left_nusd),
        "reached": [{"what": one.what, "usd": to_usd(one.nusd), "at": iso(one.at)} for one in ahead.reached],
        "lasts": [{"tier": one.tier, "until": iso(one.until)} for one in ahead.lasts],
    }


def budget_words(one: Statement, ahead: Ahead, now: float) -> str:
    """Return an account on one line: `team-a 81% of $8,000.00; at this rate reached on Sat 28 Nov`."""
    heading = heading_words(one, ahead, now)
    return f"{one.name} {usage_words(one)}" + (f"; {heading}" if heading else "")


# --- what happened -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a budget.

    Attributes:
        at: When, seconds since the epoch.
        kind: A request made cheaper or refused, a sum added, an attempt whose cost nobody knows, or not yet.
        budget: The budget's name, "" where several paid.
        words: What happened.
        call: The request, or "".
        facts: The same for machines.
    """

    at: float
    kind: Literal["step_down", "refused", "raise", "lost", "pending"]
    budget: str
    words: str
    call: str
    facts: dict[str, Any]


def step_down_event(at: float, call: str, step: StepDown) -> Event:
    """Return one time that a budget made a request cheaper, or refused it."""
    budget, scope = budget_of(step.account)
    way = f"{step.before} -> {step.after}" if step.before != step.after else f"{step.before} kept"
    facts = {
        "account": step.account,
        "scope": scope,
        "window_key": step.window_key,
        "before": step.before,
        "after": step.after,
        "percent": step.percent,
        "trigger": step.trigger,
    }
    end = f"at {step.percent:.0f}% ({step.trigger})"
    if not step.after:
        return Event(at, "refused", budget, f"{step.before} {end}", call, facts)
    return Event(at, "step_down", budget, f"{way} {end}", call, facts)


def raise_event(one: Raise) -> Event:
    """Return one sum that was added to a budget."""
    words = f"+{show(one.nusd)} until {_minute(one.until)} by {one.who}: {one.why}"
    facts = {"usd": to_usd(one.nusd), "until": iso(one.until), "why": one.why, "who": one.who}
    return Event(one.at, "raise", one.budget, words, "", facts)


def lost_event(entry: Entry) -> Event:
    """Return one attempt whose process died before it told what it cost, or a batch's part of one model."""
    budgets = list(dict.fromkeys(budget_of(charge.budget_id)[0] for charge in entry.charges))
    words = f"{entry.model} counted at its most, {show(entry.cost_nusd)}; entry {entry.id}"
    if entry.is_pending:
        words += f"; until the results of {entry.message_id} are read"
    facts = {
        "entry": entry.id,
        "batch": entry.message_id or None,
        "model": entry.model,
        "counted_usd": to_usd(entry.cost_nusd),
        "accounts": [charge.budget_id for charge in entry.charges],
    }
    kind: Literal["lost", "pending"] = "pending" if entry.is_pending else "lost"
    return Event(entry.asked_at, kind, ", ".join(budgets), words, entry.exchange_id, facts)


def log_lines(events: Sequence[Event]) -> list[str]:
    """Return events as text, in their order."""
    lines: list[str] = []
    for one in events:
        what = one.kind.replace("_", " ")
        text = printable(f"{_minute(one.at)}  {what:<9}  {one.budget}: {one.words}")
        lines += wrapped(text, indent=_EVENT)
    return lines


def log_json(events: Sequence[Event]) -> dict[str, Any]:
    """Return events as `--json` prints them."""
    return {
        "events": [
            {
                "at": iso(one.at),
                "kind": one.kind,
                "budget": one.budget,
                "exchange": one.call or None,
                **one.facts,
            }
            for one in events
        ]
    }


def printable(text: str) -> str:
    """Return text whose control characters, which callers may have chosen, show as `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def iso(at: float | None) -> str | None:
    """Return a time for machines."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


# --- what was set right ------------------------------------------------------------------------------


def reconciled_lines(done: Reconciled, *, is_dry: bool) -> list[str]:
    """Return what was set right, or with `is_dry` would be, as text."""
    lines: list[str] = []
    if done.corrected is not None:
        before, after = done.corrected
        would = "would cost" if is_dry else "costs"
        lines += wrapped(f"entry {after.id} {would} {show(after.cost_nusd)}, was {show(before.cost_nusd)}")
    for entry in done.settled:
        what = "is to be charged" if is_dry else "charged"
        lines += wrapped(
            f"left by a dead process: {entry.model}, {what} at its most, {show(entry.cost_nusd)}"
        )
    for one in done.found:
        sums = f"{show(one.spent_nusd)} in the budget, {show(one.charged_nusd)} by the ledger"
        end = (
            "to be mended" if is_dry else "not mended, calls are under way" if one in done.left else "mended"
        )
        lines += wrapped(printable(f"{one.account} {one.window_key}: {sums}: {end}"))
    if not lines:
        agree = "budgets and ledger agree, and" if done.is_compared else "not compared;"
        lines.append(f"{agree} no process left anything behind")
    if done.lost:
        lines += ["", "not known what it cost; counted at its most:"]
        lines += [line for entry in done.lost for line in log_lines([lost_event(entry)])]
    return lines


def reconciled_json(done: Reconciled) -> dict[str, Any]:
    """Return what was set right as `--json` prints it."""
    return {
        "settled": [lost_event(entry).facts for entry in done.settled],
        "differences": [
            {
                "account": one.account,
                "window_key": one.window_key,
                "spent_usd": to_usd(one.spent_nusd),
                "charged_usd": to_usd(one.charged_nusd),
                "mended": one not in done.left,
            }
            for one in done.found
        ],
        "lost": [lost_event(entry).facts for entry in done.lost],
        "corrected": None
        if done.corrected is None
        else {
            "entry": done.corrected[1].id,
            "was_usd": to_usd(done.corrected[0].cost_nusd),
            "usd": to_usd(done.corrected[1].cost_nusd),
        },
    }
