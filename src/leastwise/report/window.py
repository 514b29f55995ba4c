"""Which days a report covers: whole days and months, UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from leastwise.errors import ConfigError

_MONTH: Final = re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})")
DEFAULT_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Window:
    """Whole days, UTC: `first` to `last`, both counted."""

    first: date
    last: date

    @property
    def since(self) -> float:
        """The first second, since the epoch."""
        return _midnight(self.first)

    @property
    def until(self) -> float:
        """The first second no longer counted, since the epoch."""
        return _midnight(self.last + timedelta(days=1))

    def __str__(self) -> str:
        """Return the days in words, such as `16-22 Nov 2026 UTC`."""
        return f"{days_text(self.first, self.last)} UTC"


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def days_text(first: date, last: date) -> str:
    """Return a range of days in words, such as `16-22 Nov 2026` or `28 Sep - 3 Oct 2026`."""
    end = f"{last.day} {last:%b %Y}"
    if first == last:
        return end
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}-{end}"
    start = f"{first.day} {first:%b}" if first.year == last.year else f"{first.day} {first:%b %Y}"
    return f"{start} - {end}"


def read_window(
    today: date,
    *,
    days: int | None = None,
    month: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Window:
    """Return the days that a command's options mean; by default seven, today the last.

    Args:
        today: Today, UTC.
        days: That many days, the last of them `until` or today.
        month: A month, such as `2026-11`.
        since: First day.
        until: Last day, counted.

    Raises:
        ConfigError: options that exclude each other, or a range that ends before it begins.
    """
    if month is not None:
        if not (days is None and since is None and until is None):
            message = "--month stands alone: leave out --days, --since and --until"
            raise ConfigError(message)
        return _month(month)
    if since is not None and days is not None:
        message = "--since and --days both say where to begin: give one of them"
        raise ConfigError(message)
    if days is not None and days < 1:
        message = f"--days {days}: expected a whole number from 1"
        raise ConfigError(message)
    last = until or today
    first = since or last - timedelta(days=(days or DEFAULT_DAYS) - 1)
    if first > last:
        message = f"--since {first} is after --until {last}"
        raise ConfigError(message)
    return Window(first, last)


def _month(text: str) -> Window:
    found = _MONTH.fullmatch(text)
    try:
        first = date(int(found["year"]), int(found["month"]), 1) if found else None
    except ValueError:
        first = None
    if first is None:
        message = f"--month {text}: expected a year and a month, such as 2026-11"
        raise ConfigError(message)
    return Window(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))
