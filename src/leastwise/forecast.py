"""Where a budget is heading: how fast it is spent, when it reaches what, how long the rest lasts on less.

A straight line: what was spent in the last quarter of the window so far, at least in its last hour, goes
on like that. For a window that rolls, what drops out at its other end is taken off. The same tokens at a
lower tier's rates tell how long the rest would last there (re-priced: the answers of another model may be
longer or shorter). Of too little data nothing is said, and what is said tells from how much.

Pure functions; who loads the entries is `notify` and the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final
from zoneinfo import ZoneInfo

from leastwise.budget import BudgetRule, Standing, Window
from leastwise.errors import UnknownPriceError
from leastwise.ladder import Ladder, Tier
from leastwise.ledger import Entry
from leastwise.models import Models
from leastwise.prices import PriceBook, baseline_cost

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
#: Less than an hour of data is enough from so many calls on, but not less than so many seconds.
ENOUGH_CALLS: Final = 20
_ENOUGH_S: Final = 300
#: How far to look back where a window has no beginning.
_LOOK_BACK_S: Final = 30 * DAY_S
_QUARTER: Final = 4
_FAR_S: Final = 100 * 365 * DAY_S  # what lasts longer lasts for good


@dataclass(frozen=True, slots=True)
class Spending:
    """What an account was charged since some time.

    Attributes:
        since: Seconds since the epoch.
        nusd: What it was charged from then on.
        entries: The last of the attempts it paid for, oldest first: all of them, or a sample.
        is_whole: Whether `entries` are all of them.
    """

    since: float
    nusd: int
    entries: tuple[Entry, ...] = ()
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Reach:
    """When a line is crossed at this rate.

    Attributes:
        what: A tier where its ceiling begins, `limit`, or `critical limit`.
        nusd: How much is spent there.
        at: Seconds since the epoch; None: not before the window begins anew.
    """

    what: str
    nusd: int
    at: float | None


@dataclass(frozen=True, slots=True)
class Lasts:
    """How long the rest lasts if a tier answered everything; `until` is None where it lasts for good."""

    tier: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where an account is heading.

    Attributes:
        hourly_nusd: What an hour costs at this rate.
        since: From when on it was measured.
        calls: From how many attempts; None where they were not counted.
        left_nusd: What is left of the limit.
        reached: What will be crossed, in order; not what is crossed already.
        lasts: How long what is left lasts on each lower tier, cheap to dear.
    """

    hourly_nusd: int
    since: float
    calls: int | None
    left_nusd: int
    reached: tuple[Reach, ...]
    lasts: tuple[Lasts, ...] = ()

    @property
    def limit_at(self) -> float | None:
        """When the limit is reached, None if it is not before the window begins anew."""
        return next((one.at for one in self.reached if one.what == LIMIT), None)


@dataclass(frozen=True, slots=True)
class TooLittle:
    """No forecast: so many calls are too few for less than an hour, or it was less than five minutes."""

    calls: int
    since: float


LIMIT: Final = "limit"
CRITICAL_LIMIT: Final = "critical limit"


def since_when(window: Window, now: float, first_at: float | None = None) -> float:
    """Return from when on spending counts: the last quarter of the window so far, at least an hour of it.

    Args:
        window: The window of now.
        now: Seconds since the epoch.
        first_at: When the first attempt of the window was made, if that is known.
    """
    began_at = now - _LOOK_BACK_S if window.began_at is None else window.began_at
    if first_at is not None:
        began_at = max(began_at, first_at)
    return max(began_at, min(now - (now - began_at) / _QUARTER, now - HOUR_S))


@dataclass(frozen=True, slots=True)
class Prices:
    """What re-pricing needs."""

    ladder: Ladder
    book: PriceBook
    models: Models = field(repr=False)


def forecast(  # noqa: PLR0917 - a budget, how it stands, what was spent on what
    rule: BudgetRule,
    window: Window,
    standing: Standing,
    spending: Spending,
    now: float,
    prices: Prices,
    *,
    raised_nusd: int = 0,
) -> Forecast | TooLittle:
    """Return where an account of `rule` is heading, or that there is too little data to say.

    Args:
        rule: The budget.
        window: The window of now.
        standing: How the account stands in it.
        spending: What it was charged since `since_when`, or earlier.
        now: Seconds since the epoch.
        prices: Ladder and rates.
        raised_nusd: What was added to the limit for now.
    """
    spending = _from_first(window, standing, spending, now)
    span_s = now - spending.since
    calls = len(spending.entries)
    if spending.is_whole and (span_s < _ENOUGH_S or (span_s < HOUR_S and calls < ENOUGH_CALLS)):
        return TooLittle(calls, spending.since)
    rate = Fraction(spending.nusd, 1) / Fraction(span_s) if span_s > 0 else Fraction(0)
    limit = rule.limit_nusd + raised_nusd
    line = _Line(standing.spent_nusd, rate, now, window)
    lines = [(one.tier, int(one.above * limit)) for one in rule.ceilings_on(prices.ladder)]
    lines += [(LIMIT, limit)]
    if standing.spent_nusd >= limit and rule.cap == "allow_critical":
        lines += [(CRITICAL_LIMIT, rule.most_nusd + raised_nusd)]
    left = max(0, limit - standing.spent_nusd)
    return Forecast(
        hourly_nusd=round(rate * HOUR_S),
        since=spending.since,
        calls=calls if spending.is_whole else None,
        left_nusd=left,
        reached=tuple(Reach(what, nusd, line.at(nusd)) for what, nusd in lines if standing.spent_nusd < nusd),
        lasts=() if "model" in rule.scope else tuple(_lasting(spending, rate, left, now, prices)),
    )


def _from_first(window: Window, standing: Standing, spending: Spending, now: float) -> Spending:
    """Return the spending from its first attempt on, where that is known: before it, there was no rate.

    What the first attempt itself cost was spent in the time before it.
    """
    if not (spending.is_whole and spending.entries and len(spending.entries) >= standing.calls):
        return spending
    since = since_when(window, now, spending.entries[0].asked_at)
    entries = tuple(one for one in spending.entries if one.asked_at >= since)
    return Spending(since, sum(one.cost_nusd for one in entries if one.asked_at > since), entries)


@dataclass(frozen=True, slots=True)
class _Line:
    """What will be spent, as a function of time."""

    spent_nusd: int
    rate: Fraction
    now: float
    window: Window

    def at(self, nusd: int) -> float | None:
        """Return when so much is spent; None if never, or not before the window begins anew."""
        slope, end = self.rate, self.window.ends_at
        if end is None and self.window.began_at is not None:  # it rolls
            span = Fraction(self.now - self.window.began_at)
            slope -= self.spent_nusd / span  # what drops out at the other end, as if spent evenly
            end = self.now + float(span)
        if slope <= 0:
            return None
        ahead = (nusd - self.spent_nusd) / slope
        at = self.now + float(min(ahead, Fraction(_FAR_S)))
        return None if ahead > _FAR_S or (end is not None and at > end) else at


def _lasting(spending: Spending, rate: Fraction, left: int, now: float, prices: Prices) -> list[Lasts]:
    """Return how long what is left lasts on each tier that costs less than what answered lately."""
    known = [one for one in spending.entries if one.price_row and one.certainty == "exact"]
    paid = [one for one in known if one.purpose != "batch"]  # whose entry is a sum of many prompts
    actual = sum(one.cost_nusd for one in paid)
    found = []
    for tier in prices.ladder:
        there = _on(tier, paid, prices)
        if there is None or not actual or there >= actual or not rate:
            continue
        seconds = left / (rate * Fraction(there, actual)) if there else Fraction(_FAR_S)
        found.append(Lasts(tier.name, None if seconds >= _FAR_S else now + float(seconds)))
    return found


def _on(tier: Tier, paid: Sequence[Entry], prices: Prices) -> int | None:
    """Return what these attempts would have cost on a tier; None where a price is missing."""
    try:
        return sum(
            baseline_cost(
                one.usage,
                one.model,
                tier.model,
                datetime.fromtimestamp(one.asked_at, UTC),
                prices.book,
                prices.models,
                provider=tier.upstream,
            ).nusd
            for one in paid
        )
    except UnknownPriceError:
        return None


# --- in words ----------------------------------------------------------------------------------------


def when(at: float, now: float, tz: str = "UTC") -> str:
    """Return a time as a day, with the hour where that is near: `Sat 28 Nov`, `Mon 23 Nov 14:10`.

    >>> when(1795870800.0, 1795442400.0)
    'Sat 28 Nov'
    """
    there = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(tz))
    day = f"{there:%a} {there.day} {there:%b}"
    if there.year != datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(tz)).year:
        day += f" {there.year}"
    return f"{day} {there:%H:%M}" if abs(at - now) < 2 * DAY_S else day


def how_long(seconds: float) -> str:
    """Return a stretch of time in words.

    >>> how_long(90), how_long(7_300), how_long(200_000)
    ('1 min', '2 h', '2 d')
    """
    if seconds < HOUR_S:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // HOUR_S)} h" if seconds < 2 * DAY_S else f"{int(seconds // DAY_S)} d"
