"""How every account of every budget stands now, and where it is heading, as the stores know it.

What `budget status`, `report` and notifications show. Only reads: nothing here is asked for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from leastwise.budget import (
    BudgetRule,
    Ceiling,
    Limits,
    Payer,
    Standing,
    Window,
    account_of,
    budget_of,
    covers,
    last_passed,
    raised_at,
    window_of,
)
from leastwise.forecast import (
    DAY_S,
    ENOUGH_CALLS,
    Forecast,
    Prices,
    Spending,
    TooLittle,
    forecast,
    how_long,
    since_when,
    when,
)
from leastwise.ladder import Ladder
from leastwise.money import places_of, show
from leastwise.stores import BudgetStore, Store, WindowLine

#: So many attempts tell well enough what the same tokens cost on other tiers.
_SAMPLE: Final = 500
_LOCAL: Final = "local/"
_FULLEST: Final = 3


@dataclass(frozen=True, slots=True)
class Statement:
    """How one account stands.

    Attributes:
        rule: Its budget.
        account: Its id.
        window: The window of now.
        standing: Spent and reserved in it, and how many calls paid.
        ceilings: Those of its budget on the ladder in force.
        raised_nusd: What was added to the limit for now.
    """

    rule: BudgetRule
    account: str
    window: Window
    standing: Standing
    ceilings: tuple[Ceiling, ...] = ()
    raised_nusd: int = 0

    @property
    def name(self) -> str:
        """The budget, and whose account of it: `team-a (key alice)`; what callers chose, on one line."""
        values = budget_of(self.account)[1]
        whose = ", ".join(
            f"{scope} {value.removeprefix(_LOCAL) or '(none)'}" for scope, value in values.items()
        )
        text = f"{self.rule.name} ({whose})" if whose else self.rule.name
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    @property
    def limit_nusd(self) -> int:
        """The limit in force."""
        return self.rule.limit_nusd + self.raised_nusd

    @property
    def most_nusd(self) -> int:
        """What all calls together, critical ones included, may spend."""
        return self.rule.most_nusd + self.raised_nusd

    @property
    def usual_nusd(self) -> int:
        """Where calls that are neither critical nor in a tool loop end: the limit less the reserve."""
        return self.limit_nusd - self.rule.kept_of(self.limit_nusd)

    def show(self, nusd: int) -> str:
        """Return a sum as text, with as many digits as its limit needs."""
        return show(nusd, places_of(self.limit_nusd))

    @property
    def percent(self) -> Decimal:
        """How much of the limit is spent."""
        spent = self.standing.spent_nusd
        return Decimal(100 * spent) / self.limit_nusd if self.limit_nusd else Decimal(100 if spent else 0)

    @property
    def tier(self) -> str:
        """The dearest tier that its ceilings allow now; "" where none is in force."""
        passed = last_passed(self.ceilings, self.standing.spent_nusd, self.limit_nusd)
        return passed.tier if passed is not None else ""

    def resets(self) -> str:
        """Return when the window begins anew, in words: `1 Dec 00:00 Europe/Vienna`; "" if it does not."""
        if self.window.ends_at is None:
            return ""
        there = datetime.fromtimestamp(self.window.ends_at, ZoneInfo(self.rule.tz))
        return f"{there.day} {there:%b %H:%M} {self.rule.tz}"


def statements(store: BudgetStore, limits: Limits, ladder: Ladder, now: float) -> list[Statement]:
    """Return how the accounts stand that were used in the windows of now: by budget, the fullest first.

    An account of all calls is there even if nobody used it yet; of others nothing is known before.
    """
    if not limits.rules:
        return []
    raised = raised_at(store.raises(), now)
    windows = {rule: window_of(rule, now) for rule in limits.rules}
    lines = _by_budget(store.windows(since=min(window.first for window in windows.values())))
    found: list[Statement] = []
    for rule, window in windows.items():
        sums: dict[str, Standing] = (
            {account_of(rule, Payer(), "") or "": Standing()} if rule.scope == ("global",) else {}
        )
        for line in lines.get(rule.name, ()):
            if window.first <= line.window_key <= window.key and _covers(rule, line.account):
                sums[line.account] = _plus(sums.get(line.account, Standing()), line.standing)
        ceilings, more = rule.ceilings_on(ladder), raised.get(rule.name, 0)
        mine = [
            Statement(rule, account, window, standing, ceilings, more) for account, standing in sums.items()
        ]
        found += sorted(mine, key=lambda one: (-one.standing.spent_nusd, one.account))
    return found


def fullest(found: Iterable[Statement]) -> list[Statement]:
    """Return the few accounts of which the largest part is spent."""
    return sorted(found, key=lambda one: -one.percent)[:_FULLEST]


def _by_budget(lines: Iterable[WindowLine]) -> dict[str, list[WindowLine]]:
    found: dict[str, list[WindowLine]] = {}
    for line in lines:
        found.setdefault(budget_of(line.account)[0], []).append(line)
    return found


def _covers(rule: BudgetRule, account: str) -> bool:
    """Tell whether an account is one of the rule as it is now: its scope may have been another before."""
    values = budget_of(account)[1]
    scope = () if rule.scope == ("global",) else rule.scope
    return tuple(values) == scope and covers(rule, tuple(values.values()))


def _plus(ours: Standing, other: Standing) -> Standing:
    return Standing(
        ours.spent_nusd + other.spent_nusd, ours.leased_nusd + other.leased_nusd, ours.calls + other.calls
    )


def forecasts(
    store: Store, found: Sequence[Statement], prices: Prices, now: float
) -> Iterator[Forecast | TooLittle]:
    """Yield where each of these accounts is heading."""
    charged = cache(lambda since: store.charged(since=since))  # accounts of one budget have one window
    for one in found:
        spending = _spending(store, one, charged, now)
        yield forecast(one.rule, one.window, one.standing, spending, now, prices, raised_nusd=one.raised_nusd)


def _spending(
    store: Store, one: Statement, charged: Callable[[float], dict[tuple[str, str], int]], now: float
) -> Spending:
    """Return what the account was charged lately: of many attempts the sum, and the last of them."""
    since, calls = since_when(one.window, now), one.standing.calls
    began_at = one.window.began_at or now - 30 * DAY_S
    sampled = max(since, now - (now - began_at) * _SAMPLE / calls) if calls > _SAMPLE else since
    entries = tuple(store.entries_of(one.account, sampled))
    if sampled <= since or len(entries) >= calls:
        return Spending(since, sum(entry.cost_nusd for entry in entries), entries)
    sums = charged(since).items()
    keys = one.window.first, one.window.key
    nusd = sum(paid for (account, key), paid in sums if account == one.account and keys[0] <= key <= keys[1])
    return Spending(since, nusd, entries, is_whole=False)


# --- in words ----------------------------------------------------------------------------------------


def usage_words(one: Statement) -> str:
    """Return how much is spent, such as `81% of $8,000.00`."""
    return f"{one.percent:.0f}% of {one.show(one.limit_nusd)}"


def heading_words(one: Statement, ahead: Forecast | TooLittle, now: float) -> str:
    """Return when the limit is reached, such as `at this rate reached on Sat 28 Nov`, "" if unknown."""
    if isinstance(ahead, TooLittle):
        return ""
    if one.standing.spent_nusd >= one.limit_nusd:
        return "used up"
    if ahead.limit_at is None:
        return (
            "at this rate not reached before it resets" if one.window.ends_at else "at this rate not reached"
        )
    return f"at this rate reached on {when(ahead.limit_at, now, one.rule.tz)}"


def measured_words(ahead: Forecast | TooLittle, now: float) -> str:
    """Return how fast money is spent and from how much data that is known, or why nothing is."""
    span = how_long(now - ahead.since)
    if isinstance(ahead, TooLittle):
        return f"no forecast: {_calls(ahead.calls)} in {span}; an hour or {ENOUGH_CALLS} calls are needed"
    calls = "" if ahead.calls is None else f" and {_calls(ahead.calls)}"
    return f"{show(ahead.hourly_nusd)} an hour, over the last {span}{calls}"


def _calls(number: int) -> str:
    return f"{number:,} call{'s'[: number != 1]}"


def lasting_words(one: Statement, ahead: Forecast | TooLittle, now: float) -> list[str]:
    """Return how long the rest lasts on lower tiers: `on haiku the remaining $800.00 lasts until 9 Dec`."""
    if isinstance(ahead, TooLittle) or not ahead.left_nusd:
        return []
    return [
        f"on {lasts.tier} the remaining {one.show(ahead.left_nusd)} "
        + ("lasts for good" if lasts.until is None else f"lasts until {when(lasts.until, now, one.rule.tz)}")
        for lasts in ahead.lasts
    ]
