"""The console's usage export: what was spent, and the most that moving could save.

A row holds one day's tokens of one model, key and workspace. It is priced at the list
price of its own day, batch, fast and US rows at theirs. The export counts tokens, not
calls, and no prompt: so no share of calls, no mix of tasks, and where a model's price
steps up with a prompt's length, only as much as `context_window` tells.

The *ceiling* re-prices the same tokens, in the other model's tokenizer, at the other
model's list price of today. It is a ceiling because nothing says that the cheaper model
would do.

Columns as exported under Analytics > Usage: https://platform.claude.com/usage
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from leastwise.errors import ConfigError, LogError
from leastwise.ladder import Ladder
from leastwise.messages import Usage
from leastwise.models import Models, canonical
from leastwise.money import divide_half_even, show, to_usd
from leastwise.prices import DEFAULT_PROVIDER, PriceBook, Rate, baseline_cost, cost
from leastwise.report.files import ACCEPTED, OnBad, unreadable
from leastwise.report.table import aligned, dollars, labelled, percent, plural, share, wrapped
from leastwise.report.window import days_text

#: Names by which the sums can be grouped.
GROUPS: Final = ("model", "key", "day", "workspace")
#: Shares of a line's tokens, in per cent, for which the ceiling is shown.
SHARES: Final = (10, 25, 50, 100)
#: `--csv`: frozen names.
CSV_COLUMNS: Final = (
    "by",
    "name",
    "rows",
    "input_tokens",
    "output_tokens",
    "spent_usd",
    "batch_usd",
    "share_of_money",
)

_REQUIRED: Final = ("usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens")
_COUNTS: Final = {
    "usage_input_tokens_no_cache": "input_tokens",
    "usage_input_tokens_cache_write_5m": "cache_write_5m_tokens",
    "usage_input_tokens_cache_write_1h": "cache_write_1h_tokens",
    "usage_input_tokens_cache_read": "cache_read_input_tokens",
    "usage_output_tokens": "output_tokens",
    "web_search_count": "web_search_requests",
}
_TOLD_TOKENS: Final = 200_000  # `context_window` tells only on which side of this a prompt was
_LONG_PROMPT: Final = _TOLD_TOKENS + 1  # stands for every prompt that `context_window` puts above 200k
_TOP: Final = 8  # groups shown where nobody asked for that grouping


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over one group of rows; `batch_nusd` is the part that ran in batches."""

    name: str
    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nusd: int = 0
    batch_nusd: int = 0

    def plus(self, row: _Row, nusd: int) -> Spent:
        """Return the sums with one more row."""
        return replace(
            self,
            rows=self.rows + 1,
            input_tokens=self.input_tokens + row.usage.prompt_tokens,
            output_tokens=self.output_tokens + row.usage.output_tokens,
            nusd=self.nusd + nusd,
            batch_nusd=self.batch_nusd + (nusd if row.is_batch else 0),
        )


@dataclass(frozen=True, slots=True)
class Move:
    """A group of rows, what they cost, and what their tokens would cost on another model."""

    source: str
    target: str
    spent_nusd: int = 0
    would_nusd: int = 0

    @property
    def saved_nusd(self) -> int:
        """What all of them on the other model would save; negative when it would cost more."""
        return self.spent_nusd - self.would_nusd


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A move to the newest model of the same line, whose tokenizer counts otherwise.

    `rate_change` is that of the list price of input, `tokens_ratio` how many tokens the
    new model counts for one of the old.
    """

    move: Move
    rate_change: float
    tokens_ratio: float


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What a usage export says.

    Attributes:
        first: First day with a priced row, None when there is none.
        last: Last day with one.
        bad_lines: Lines that could not be read.
        total: Sums over the priced rows.
        groups: The same by each of `GROUPS`, dearest first, days in order.
        unpriced: Rows of models without a price, which no sum includes.
        upgrades: What newer models of the same line would change.
        ceilings: What moving down would save, at most; by line and tier.
        steps: Models in the file whose price steps up at a prompt length that the file does not tell.
        priced_at: The day of the other models' prices.
    """

    first: date | None
    last: date | None
    bad_lines: int
    total: Spent
    groups: Mapping[str, tuple[Spent, ...]]
    unpriced: tuple[Spent, ...]
    upgrades: tuple[Upgrade, ...]
    ceilings: tuple[Move, ...]
    steps: tuple[str, ...]
    priced_at: date


@dataclass(frozen=True, slots=True)
class _Row:
    day: date
    model: str
    key: str
    workspace: str
    is_batch: bool
    is_long: bool
    usage: Usage

    @property
    def at(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)

    @property
    def prompt_tokens(self) -> int:
        return _LONG_PROMPT if self.is_long else 0

    def name(self, group: str) -> str:
        if group == "day":
            return self.day.isoformat()
        return str(getattr(self, group)) or "(none)"


def read_usage(
    path: Path, on_bad: OnBad, *, book: PriceBook, models: Models, ladder: Ladder, now: datetime
) -> UsageReport:
    """Read an export row by row.

    Args:
        path: The CSV file.
        on_bad: Told each line that cannot be read.
        book: Dated prices.
        models: Lines and tokenizers.
        ladder: The tiers that tokens could move to.
        now: Prices of the models moved to are those of this moment.

    Raises:
        LogError: the file cannot be read, or lacks a column.
    """
    sums = _Sums(book, models, ladder, now)
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            for row in _rows(file, path, sums.bad(on_bad)):
                sums.add(row)
    except OSError as error:
        raise unreadable(path, error) from None
    return sums.report(path)


def _rows(lines: Iterable[str], path: Path, on_bad: OnBad) -> Iterator[_Row]:
    reader = csv.reader(lines)
    names = [name.strip() for name in next(reader, [])]
    if "cost_usd" in names:
        message = (
            f"{path}: the console's cost export; download the usage export, which has tokens. {ACCEPTED}"
        )
        raise LogError(message)
    for name in _REQUIRED:
        if name not in names:
            message = f"{path}: the column {name} is missing; there are {', '.join(names)}. {ACCEPTED}"
            raise LogError(message)
    while True:
        try:
            cells = next(reader)
            if cells:
                yield _row(dict(zip(names, cells, strict=False)))
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            on_bad(reader.line_num, str(error))


def _row(cells: Mapping[str, str]) -> _Row:
    """Return one row.

    Raises:
        ValueError: a day, a model or a count is missing or wrong.
    """
    model = cells.get("model_version", "").strip()
    if not model:
        message = "model_version is empty"
        raise ValueError(message)
    window = cells.get("context_window", "").strip().lower()
    return _Row(
        day=_day(cells["usage_date_utc"]),
        model=canonical(model),
        key=cells.get("api_key", "").strip(),
        workspace=cells.get("workspace", "").strip(),
        is_batch="batch" in cells.get("usage_type", "").lower(),
        is_long=window.startswith((">", "200k-", "200k -", "200k–")),  # noqa: RUF001 - exports vary
        usage=Usage(
            **{ours: _count(cells, theirs) for theirs, ours in _COUNTS.items()},  # type: ignore[arg-type]  # all are counts
            speed=cells.get("speed", "").strip().lower() or "standard",
            inference_geo=cells.get("inference_geo", "").strip().lower(),
        ),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        message = f"usage_date_utc: expected a day such as 2026-11-03, got {text!r}"
        raise ValueError(message) from None


def _count(cells: Mapping[str, str], name: str) -> int:
    text = cells.get(name)
    if text is None and name in _REQUIRED:
        message = f"the line ends before {name}"
        raise ValueError(message)
    text = (text or "").strip()
    if not text:
        return 0
    if not text.isdecimal():
        message = f"{name}: expected a whole number from 0, got {text!r}"
        raise ValueError(message)
    return int(text)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a row's tokens could go: the name its sums are kept by, the model, and its one rate."""

    name: str
    model: str
    rate: Rate
    book: PriceBook


@dataclass(frozen=True, slots=True)
class _Terms:
    """What all rows of one model, day and side of the long-prompt step are priced by.

    `long_unknown` names the models that cost more from a length on that the export does not tell.
    """

    book: PriceBook
    line: str
    newest: _Target | None
    below: tuple[_Target, ...]
    long_unknown: frozenset[str]


@dataclass(slots=True)
class _Sums:
    """Running sums: as large as the number of models, keys and days, however long the file."""

    book: PriceBook
    models: Models
    ladder: Ladder
    now: datetime
    bad_lines: int = 0
    total: Spent = field(default_factory=lambda: Spent("total"))
    groups: dict[str, dict[str, Spent]] = field(default_factory=lambda: {name: {} for name in GROUPS})
    unpriced: dict[str, Spent] = field(default_factory=dict)
    upgrades: dict[str, Move] = field(default_factory=dict)
    ceilings: dict[tuple[str, str], Move] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)
    terms: dict[tuple[str, date, bool], _Terms | None] = field(default_factory=dict)

    def bad(self, on_bad: OnBad) -> OnBad:
        """Return `on_bad`, counting."""

        def told(line: int, fault: str) -> None:
            self.bad_lines += 1
            on_bad(line, fault)

        return told

    def add(self, row: _Row) -> None:
        """Count one row."""
        key = (row.model, row.day, row.is_long)
        if key not in self.terms:
            self.terms[key] = self._terms(row)
        terms = self.terms[key]
        if terms is None:
            self.unpriced[row.model] = self.unpriced.get(row.model, Spent(row.model)).plus(row, 0)
            return
        nusd = cost(row.usage, row.model, row.at, terms.book, is_batch=row.is_batch).nusd
        self.total = self.total.plus(row, nusd)
        for group, sums in self.groups.items():
            name = row.name(group)
            sums[name] = sums.get(name, Spent(name)).plus(row, nusd)
        self.steps |= terms.long_unknown
        if terms.newest is not None:
            move = self.upgrades.get(row.model, Move(row.model, terms.newest.name))
            self.upgrades[row.model] = self._moved(move, row, nusd, terms.newest)
        for target in terms.below:
            move = self.ceilings.get((terms.line, target.name), Move(terms.line, target.name))
            self.ceilings[terms.line, target.name] = self._moved(move, row, nusd, target)

    def _moved(self, move: Move, row: _Row, nusd: int, target: _Target) -> Move:
        """Return a move with one more row in it, its tokens re-priced."""
        usage = row.usage if target.rate.has_fast else replace(row.usage, speed="standard")
        would = baseline_cost(
            usage,
            row.model,
            target.model,
            self.now,
            target.book,
            self.models,
            provider=target.rate.provider,
            is_batch=row.is_batch,
        )
        return replace(move, spent_nusd=move.spent_nusd + nusd, would_nusd=move.would_nusd + would.nusd)

    def _terms(self, row: _Row) -> _Terms | None:
        """Return what rows like this one are priced by, None when their model has no price."""
        if not self.book.has(row.model, row.at):
            return None
        rate = self.book.rate(row.model, row.at, row.prompt_tokens)
        line = self._line(row.model)
        successor = _newest(self.models, row.model, self.now.date())
        newest = self._target(row, successor, successor)
        below = tuple(
            target
            for tier in self.ladder
            if (target := self._target(row, tier.name, tier.model, tier.upstream)) is not None
            and self._line(tier.model) != line
            and target.rate.input < rate.input
            and target.rate.output < rate.output
        )
        stepped = [(row.model, row.at, DEFAULT_PROVIDER)]
        stepped += [(to.model, self.now, to.rate.provider) for to in (newest, *below) if to is not None]
        unknown = frozenset(
            model
            for model, at, provider in stepped
            if not row.is_long and len(self.book.reachable(model, at, _TOLD_TOKENS, provider)) > 1
        )
        return _Terms(self._only(rate), line, newest, below, unknown)

    def _target(self, row: _Row, name: str, model: str, provider: str = DEFAULT_PROVIDER) -> _Target | None:
        if not self.book.has(model, self.now, provider):
            return None
        rate = self.book.rate(model, self.now, row.prompt_tokens, provider)
        return _Target(name, model, rate, self._only(rate))

    def _only(self, rate: Rate) -> PriceBook:
        """Return a book of this one rate, for any prompt: a row's tokens are those of many prompts."""
        return PriceBook((replace(rate, prompt_over=0),), discount=self.book.discount)

    def _line(self, model: str) -> str:
        known = self.models.get(model)
        return known.line if known is not None else model

    def report(self, path: Path) -> UsageReport:
        """Return the sums as a report.

        Raises:
            LogError: there was not one row.
        """
        if not self.total.rows and not self.unpriced:
            message = f"{path}: no row could be read"
            raise LogError(message)
        days = sorted(self.groups["day"])
        return UsageReport(
            first=date.fromisoformat(days[0]) if days else None,
            last=date.fromisoformat(days[-1]) if days else None,
            bad_lines=self.bad_lines,
            total=self.total,
            groups={group: _ordered(group, sums) for group, sums in self.groups.items()},
            unpriced=tuple(sorted(self.unpriced.values(), key=lambda spent: spent.name)),
            upgrades=tuple(
                self._compared(move)
                for move in sorted(self.upgrades.values(), key=lambda move: -move.spent_nusd)
            ),
            ceilings=tuple(sorted(self.ceilings.values(), key=lambda move: -move.spent_nusd)),
            steps=tuple(sorted(self.steps)),
            priced_at=self.now.date(),
        )

    def _compared(self, move: Move) -> Upgrade:
        last = datetime.fromisoformat(max(self.groups["day"])).replace(tzinfo=UTC)
        before = self.book.rate(move.source, last).input
        after = self.book.rate(move.target, self.now).input
        more, less = self.models.token_ratio(move.source, move.target)
        return Upgrade(move, after / before - 1 if before else 0.0, more / less)


def _newest(models: Models, model: str, today: date) -> str:
    """Return the newest active model of the same line, "" when this is it or its line is not known."""
    known = models.get(model)
    if known is None or known.released is None:
        return ""
    newer = [
        (other.released, other.id)
        for other in models
        if other.line == known.line
        and other.lifecycle == "active"
        and other.released is not None
        and known.released < other.released <= today
    ]
    return max(newer)[1] if newer else ""


def _ordered(group: str, sums: Mapping[str, Spent]) -> tuple[Spent, ...]:
    if group == "day":
        return tuple(sums[day] for day in sorted(sums))
    return tuple(sorted(sums.values(), key=lambda spent: (-spent.nusd, spent.name)))


def check_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, all of them in `GROUPS`.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if name not in GROUPS:
            message = f"--by {name}: a usage export is summed by {', '.join(GROUPS)}"
            raise ConfigError(message)
    return tuple(names)


def usage_lines(report: UsageReport, name: str, by: Sequence[str] = ()) -> list[str]:
    """Return a report as text.

    Args:
        report: What to show.
        name: The file's name, for the first line.
        by: Groupings to show in full; by default models, keys and days, the dearest of each.
    """
    days = f"{days_text(report.first, report.last)} UTC" if report.first and report.last else "no priced row"
    total = report.total
    batch = f", {show(total.batch_nusd)} of it in batches" if total.batch_nusd else ""
    lines = wrapped(f"leastwise report   {name}   {days}   console usage export")
    lines += wrapped(f"spent {show(total.nusd)} at list, each row at the price of its day{batch}")
    lines += ["share of calls: unknown, this export counts tokens, not calls"]
    for group in by or GROUPS[:3]:
        lines += ["", *_spent_table(group, report.groups[group], total.nusd, None if by else _TOP)]
    lines += _upgrade_lines(report) + _ceiling_lines(report) + _caution_lines(report)
    return [
        *lines,
        "",
        "no prompts here, so no task mix: record a day, in the program that calls:",
        '  leastwise.record(client, "calls.jsonl")',
    ]


#: What to do after a usage export.
NEXT: Final = "leastwise report calls.jsonl"


def _spent_table(group: str, sums: Sequence[Spent], total_nusd: int, top: int | None) -> list[str]:
    shown = sums
    if top is not None and len(sums) > top:
        dearest = sorted(sums, key=lambda spent: -spent.nusd)[:top]
        shown = [spent for spent in sums if spent in dearest]
    rows = [[group, "tokens in", "tokens out", "spent $", "of money"]]
    rows += [
        [
            spent.name,
            f"{spent.input_tokens:,}",
            f"{spent.output_tokens:,}",
            dollars(spent.nusd, total_nusd),
            percent(spent.nusd, total_nusd),
        ]
        for spent in shown
    ]
    lines = aligned(rows, "lrrrr")
    if len(shown) < len(sums):
        rest = sum(spent.nusd for spent in sums) - sum(spent.nusd for spent in shown)
        lines.append(
            f"... and {plural(len(sums) - len(shown), group)} more, {show(rest)}: --by {group} shows all"
        )
    return lines


def _upgrade_lines(report: UsageReport) -> list[str]:
    if not report.upgrades:
        return []
    rows = [
        [
            upgrade.move.source,
            f"-> {upgrade.move.target}",
            f"{upgrade.rate_change:+.0%}",
            f"x{upgrade.tokens_ratio:g}",
            dollars(upgrade.move.would_nusd, report.total.nusd),
            _verdict(upgrade.move),
        ]
        for upgrade in report.upgrades
    ]
    rows.insert(0, ["newest of its line", "", "list", "tokens", "would be $", "the same text"])
    return ["", *aligned(rows, "llrrrl")]


def _verdict(move: Move) -> str:
    change = percent(abs(move.saved_nusd), move.spent_nusd, 1)
    if move.saved_nusd <= 0:
        return f"+{change}: no saving"
    return f"-{change}"


def _ceiling_lines(report: UsageReport) -> list[str]:
    if not report.ceilings:
        return []
    rows = [["tokens of", "to", *(f"{part}%" for part in SHARES), "of the bill"]]
    rows += [
        [
            move.source,
            move.target,
            *(dollars(divide_half_even(move.saved_nusd * part, 100), report.total.nusd) for part in SHARES),
            percent(move.saved_nusd, report.total.nusd),
        ]
        for move in report.ceilings
    ]
    title = (
        f"ceiling: $ saved if this share of the tokens moved down, at list of "
        f"{report.priced_at:%d %b %Y}; quality unknown"
    )
    return ["", *wrapped(title), *aligned(rows, "llrrrrr")]


def _caution_lines(report: UsageReport) -> list[str]:
    lines: list[str] = []
    for spent in report.unpriced:
        tokens = spent.input_tokens + spent.output_tokens
        lines += labelled(
            "! no price",
            f"{spent.name}: {plural(spent.rows, 'row')}, {tokens:,} tokens, in no sum above. Add "
            f"a [[price]] row to leastwise.toml",
        )
    if report.steps:
        lines += labelled(
            "! prompts",
            f"{', '.join(report.steps)}: long prompts cost more there, and the export does not "
            f"tell their length. Priced as short ones",
        )
    if report.bad_lines:
        lines += labelled("! unread", f"{plural(report.bad_lines, 'line')}, named on stderr with the reason")
    return ["", *lines] if lines else []


def usage_json(report: UsageReport, name: str) -> dict[str, Any]:
    """Return a report as what `--json` prints."""
    return {
        "report": "usage",
        "file": name,
        "first_day": report.first,
        "last_day": report.last,
        "bad_lines": report.bad_lines,
        "share_of_calls": None,
        "total": _spent_json(report.total, report.total.nusd),
        "groups": {
            f"by_{group}": [_spent_json(spent, report.total.nusd) for spent in sums]
            for group, sums in report.groups.items()
        },
        "unpriced": [_spent_json(spent, 0) for spent in report.unpriced],
        "upgrades": [
            {
                **_move_json(upgrade.move),
                "list_price_change": round(upgrade.rate_change, 4),
                "tokens_ratio": upgrade.tokens_ratio,
            }
            for upgrade in report.upgrades
        ],
        "ceilings": [_move_json(move) for move in report.ceilings],
        "prompt_length_unknown": list(report.steps),
        "priced_at": report.priced_at,
        "same_quality": "not measured",
        "next": NEXT,
    }


def _spent_json(spent: Spent, total_nusd: int) -> dict[str, Any]:
    return {
        "name": spent.name,
        "rows": spent.rows,
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "spent_usd": to_usd(spent.nusd),
        "batch_usd": to_usd(spent.batch_nusd),
        "share_of_money": share(spent.nusd, total_nusd),
    }


def _move_json(move: Move) -> dict[str, Any]:
    return {
        "from": move.source,
        "to": move.target,
        "spent_usd": to_usd(move.spent_nusd),
        "would_usd": to_usd(move.would_nusd),
        "saved_usd": to_usd(move.saved_nusd),
    }


def usage_rows(report: UsageReport, by: Sequence[str] = ()) -> Iterator[list[str]]:
    """Yield what `--csv` prints: `CSV_COLUMNS`, then a row for each group of each grouping."""
    yield list(CSV_COLUMNS)
    for group in by or GROUPS[:3]:
        for spent in report.groups[group]:
            cells = _spent_json(spent, report.total.nusd)
            yield [group, *("" if value is None else str(value) for value in cells.values())]
