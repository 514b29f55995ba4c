"""What passed through us in some days: spent, as asked, saved, by whatever name asked for.

*As asked* is the baseline's price for the tokens used; *saved* is as asked less spent where
we chose the model, signed, and *re-priced*: no holdout measured it. Where the baseline is
only assumed, the sums that rest on it say so. Reads the ledger's hourly sums; a day is UTC's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import partial
from typing import Any, Final

from leastwise.cascade import Trial, lower_bound
from leastwise.cascade.trials import AS_ASKED, NOT_MEASURED, trial_words, vouches
from leastwise.errors import ConfigError
from leastwise.ladder import AUTO, DEFAULT_LADDER, Ladder
from leastwise.money import NUSD_PER_USD, divide_half_even, show, to_usd
from leastwise.report.budgets import Ahead, account_json, budget_words
from leastwise.report.cache import hits_words, look_ups_json
from leastwise.report.cascade import NO_CASCADE, CascadeReport, cascade_json, cascade_lines
from leastwise.report.table import (
    aligned,
    amount,
    dollars,
    fits,
    labelled,
    labelled_items,
    percent,
    plural,
    share,
    wrapped,
)
from leastwise.report.window import Window
from leastwise.routing import observing_line
from leastwise.statement import Statement
from leastwise.steps import Load
from leastwise.stores import Line, Query, Store

#: Names by which the sums can be grouped.
GROUPS: Final = ("tag", "tier", "key", "day", "served", "asked")
#: `--csv`: frozen names, after those of the grouping.
CSV_COLUMNS: Final = (
    "calls",
    "share_of_calls",
    "answered_by",
    "as_asked_usd",
    "share_of_money",
    "assumed_usd",
    "spent_usd",
    "checks_usd",
    "discarded_usd",
    "lost_cache_usd",
    "saved_usd",
    "could_save_usd",
    "moved_calls",
    "could_move_calls",
    "failed_calls",
    "estimated_calls",
    "input_tokens",
    "output_tokens",
    "p50_s",
    "p95_s",
    "same_quality",
    "checked_calls",
    "escalated_calls",
    "trials_usd",
)

_SUMS: Final = tuple(each.name for each in fields(Line) if each.name != "group")
_CHOSEN: Final = frozenset({"auto", "enforce"})
_DAY_HOURS: Final = 24
_MONTH_HOURS: Final = 30 * _DAY_HOURS
#: By these names sums are read beside those asked for: who answered stands last.
_FACTS: Final = ("mode", "tag", "asked", "tier", "served")
_FACTS_WIDTH: Final = len(_FACTS)
_TRIAL: Final = "trial"
_NONE: Final = "(none)"
_NOBODY: Final = "no answer"
_FEWER_PLACES: Final = (4, 2, 0)
_GROUPS_SHOWN: Final = 3
_STEPS: Final = 100  # the largest sum shows at least so many units of its last digit


@dataclass(frozen=True, slots=True)
class Group:
    """One line of a report: sums, who answered, and the answered requests' seconds.

    Attributes:
        names: The values it is grouped by.
        sums: Its sums.
        answered_by: Calls by tier, or model off the ladder; most calls first.
        latency: p50 and p95, None where no answered request is kept.
        same_quality: What is known of the answers: `as asked` where all are those that were asked for, the
            weakest bound of trials that tell of all others, else `not measured`.
        trials_nusd: What was spent on trials.
    """

    names: tuple[str, ...]
    sums: Line
    answered_by: tuple[tuple[str, int], ...]
    latency: tuple[float, float] | None
    same_quality: str = AS_ASKED
    trials_nusd: int = 0

    @property
    def name(self) -> str:
        """The values it is grouped by, as one."""
        return " / ".join(name or _NONE for name in self.names)

    @property
    def lost_nusd(self) -> int:
        """What was lost, trials apart: they are paid for to know, not to save."""
        return -self.sums.saved_nusd - self.trials_nusd

    @property
    def answered_text(self) -> str:
        """Who answered, such as `haiku 92 opus 8%`."""
        shares = [f"{name} {percent(calls, self.sums.calls)[:-1]}" for name, calls in self.answered_by]
        return f"{' '.join(shares)}%" if shares else "-"


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What the ledger says of some days.

    Attributes:
        window: The days.
        by: The grouping.
        mode: The mode configured now.
        switched_on: What is routed although the rest is observed.
        total: All calls.
        groups: By the grouping: days in order, else dearest first.
        by_tier: By who answered.
        by_mode: By mode.
        hours: From the first hour with a call to the last, both counted.
        has_older: The ledger holds calls of other days.
        store: Where the ledger is.
        budgets: How the fullest accounts stand now, and where they are heading.
        at: Now, in seconds since the epoch.
        cascade: Where checks cost more than they gain.
    """

    window: Window
    by: tuple[str, ...]
    mode: str
    switched_on: tuple[str, ...]
    total: Group
    groups: tuple[Group, ...]
    by_tier: tuple[Group, ...]
    by_mode: tuple[Group, ...]
    hours: int
    has_older: bool
    store: str
    budgets: tuple[tuple[Statement, Ahead], ...] = ()
    at: float = 0.0
    cascade: CascadeReport = NO_CASCADE

    @property
    def observed(self) -> Line:
        """Sums of the calls that were only observed."""
        return _of_mode(self, "observe")

    @property
    def is_observing(self) -> bool:
        """Whether nothing is switched on: the mode says so, and calls were observed."""
        return self.mode == "observe" and self.observed.calls > 0

    @property
    def shows_could(self) -> bool:
        """Whether what could be saved stands where else the savings do: there are none."""
        return self.is_observing and self.total.lost_nusd == 0

    @property
    def unchecked(self) -> list[Group]:
        """The tags that were moved although nothing is known of the answers, most saved first."""
        if self.by != ("tag",):
            return []
        found = [group for group in self.groups if group.same_quality == NOT_MEASURED and all(group.names)]
        return sorted(found, key=lambda group: -group.sums.saved_nusd)

    @property
    def month(self) -> tuple[int, int] | None:
        """Spent and saved in thirty days like these; None for less than a day of data."""
        if self.hours < _DAY_HOURS:
            return None
        spent, saved = self.total.sums.spent_nusd, self.total.sums.saved_nusd
        return (
            divide_half_even(spent * _MONTH_HOURS, self.hours),
            divide_half_even(saved * _MONTH_HOURS, self.hours),
        )

    @property
    def next(self) -> str:
        """The one next command."""
        if not self.total.sums.calls and not self.total.sums.spent_nusd:
            return "leastwise report --days 400" if self.has_older else "leastwise demo"
        if self.is_observing:
            return "leastwise on"
        losses = [group for group in self.groups if group.lost_nusd > 0 and all(group.names)]
        if losses and self.by == ("tag",):
            worst = max(losses, key=lambda group: group.lost_nusd)
            return f"leastwise off --tag {worst.name}"
        if self.unchecked:
            return f"leastwise trial {self.unchecked[0].name} --n 500 --max-usd 3"
        return "leastwise why ID"


def _of_mode(report: LedgerReport, mode: str) -> Line:
    return next((group.sums for group in report.by_mode if group.names == (mode,)), _EMPTY)


_EMPTY: Final = Line((), *([0] * len(_SUMS)))


def check_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, all of them in `GROUPS`; by default `tag`.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if name not in GROUPS:
            message = f"--by {name}: the ledger is summed by {', '.join(GROUPS)}"
            raise ConfigError(message)
    return tuple(dict.fromkeys(names)) or ("tag",)


def read_ledger(
    store: Store,
    window: Window,
    *,
    by: Sequence[str] = ("tag",),
    mode: str = "observe",
    switched_on: Sequence[str] = (),
    where: str = "",
    budgets: Sequence[tuple[Statement, Ahead]] = (),
    at: float = 0.0,
    cascade: CascadeReport = NO_CASCADE,
    ladder: Ladder = DEFAULT_LADDER,
) -> LedgerReport:
    """Return what `store` says of the days in `window`.

    Args:
        store: The ledger.
        window: Whole days, UTC.
        by: Names in `GROUPS`.
        mode: The mode configured now.
        switched_on: What is routed although the rest is observed (`Policy.switched_on`).
        where: The ledger's path, for the footer.
        budgets: The accounts to show.
        at: Now, in seconds since the epoch.
        cascade: How the cascade does.
        ladder: The tiers.
    """
    by = tuple(by)
    lines = store.sums(_query(window, (*by, *_FACTS)))
    trial_of = _trials(store, ladder, at)
    groups = _groups(lines, len(by), store.latencies(_query(window, by)), trial_of)
    if by[0] == "day":
        groups.sort(key=lambda group: group.names)
    hours = [line.group[0] for line in store.sums(_query(window, ("hour",)))]
    modes = [replace(line, group=(line.group[-_FACTS_WIDTH], *line.group[-_FACTS_WIDTH:])) for line in lines]
    tiers = [replace(line, group=(_answerer(line), *line.group[-_FACTS_WIDTH:])) for line in lines]
    totals = _groups(lines, 0, store.latencies(_query(window, ())), trial_of)
    return LedgerReport(
        window=window,
        by=by,
        mode=mode,
        switched_on=tuple(switched_on),
        total=totals[0] if totals else Group((), _EMPTY, (), None),
        groups=tuple(groups),
        by_tier=tuple(_groups(tiers, 1, {}, trial_of)),
        by_mode=tuple(_groups(modes, 1, store.latencies(_query(window, ("mode",))), trial_of)),
        hours=_span(hours),
        has_older=bool(hours) or bool(store.sums(Query())),
        store=where,
        budgets=tuple(budgets),
        at=at,
        cascade=cascade,
    )


def empty_ledger(window: Window, *, by: Sequence[str], mode: str, where: str) -> LedgerReport:
    """Return the report of a ledger that does not exist yet."""
    nothing = Group((), _EMPTY, (), None)
    return LedgerReport(
        window, tuple(by), mode, (), nothing, (), (), (), hours=0, has_older=False, store=where
    )


def _query(window: Window, by: tuple[str, ...]) -> Query:
    return Query(since=window.since, until=window.until, by=by)


def _span(hours: Sequence[str]) -> int:
    """Return the hours from the first to the last of `2026-11-03T14:00Z`, both counted."""
    if not hours:
        return 0
    first, last = min(hours), max(hours)
    days = (date.fromisoformat(last[:10]) - date.fromisoformat(first[:10])).days
    return days * _DAY_HOURS + int(last[11:13]) - int(first[11:13]) + 1


def _answerer(line: Line) -> str:
    """Return the tier, else the model, of a line whose group ends in both."""
    tier, served = line.group[-2:]
    return tier or served or _NOBODY


def _groups(
    lines: Iterable[Line],
    width: int,
    latencies: Mapping[tuple[str, ...], tuple[float, float]],
    trial_of: Callable[[Line], Trial | None],
) -> list[Group]:
    """Return lines summed by their first `width` names, dearest first; the last are `_FACTS`."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        found.setdefault(line.group[:width], []).append(line)
    groups = [_group(names, some, latencies.get(names), trial_of) for names, some in found.items()]
    return sorted(groups, key=lambda group: (-group.sums.baseline_nusd, -group.sums.calls, group.names))


def _group(
    names: tuple[str, ...],
    lines: Sequence[Line],
    latency: tuple[float, float] | None,
    trial_of: Callable[[Line], Trial | None],
) -> Group:
    sums, answered = replace(_EMPTY, group=names), dict[str, int]()
    for line in lines:
        sums = _plus(sums, line)
        if line.calls:
            answered[_answerer(line)] = answered.get(_answerer(line), 0) + line.calls
    by = sorted(answered.items(), key=lambda one: (-one[1], one[0]))
    tried = sum(line.spent_nusd for line in lines if line.group[-_FACTS_WIDTH] == _TRIAL)
    return Group(names, sums, tuple(by), latency, _quality(lines, trial_of), tried)


def _quality(lines: Iterable[Line], trial_of: Callable[[Line], Trial | None]) -> str:
    moved = [trial_of(line) for line in lines if line.moved]
    trials = [trial for trial in moved if trial is not None]
    if len(trials) < len(moved):
        return NOT_MEASURED
    weakest = min(trials, key=lambda trial: lower_bound(trial.agreed, trial.n), default=None)
    return trial_words(weakest) if weakest is not None else AS_ASKED


def _trials(store: Store, ladder: Ladder, at: float) -> Callable[[Line], Trial | None]:
    """Return what finds the trial that tells of a line's moved calls, if one does."""
    trials = store.evidence("").trials
    baselines: dict[str, str] = {}

    def trial_of(line: Line) -> Trial | None:
        _, tag, asked, tier, served = line.group[-_FACTS_WIDTH:]
        trial = trials.get((tag, tier))
        if trial is None:
            return None
        if asked in AUTO or asked in ladder:
            if tag not in baselines:
                baselines[tag] = store.known(Load(tag), at).baseline or ladder.top.model
            asked = baselines[tag]
        return trial if vouches(trial, served, asked, ladder) else None

    return trial_of


def _plus(ours: Line, other: Line) -> Line:
    return replace(ours, **{name: getattr(ours, name) + getattr(other, name) for name in _SUMS})


# --- as text ---------------------------------------------------------------------------------------------


def ledger_lines(report: LedgerReport) -> list[str]:
    """Return a report as text, the store's path in its last line."""
    sums = report.total.sums
    footer = labelled("store", report.store) if report.store else []
    head = (
        f"leastwise report   {report.window}   {plural(sums.calls, 'call')}, all keys   mode: {report.mode}"
    )
    if not sums.calls and not sums.spent_nusd:
        return [*wrapped(head), *_empty_lines(report), *footer]
    return [
        *_observing_lines(report),
        *wrapped(head),
        *_total_lines(report),
        *_table(report),
        *_share_lines(report),
        *_detail_lines(report),
        *footer,
    ]


def _empty_lines(report: LedgerReport) -> list[str]:
    if report.has_older:
        return ["no call in these days; the ledger holds calls of others: --days, --since, --month"]
    return [
        "no call recorded yet. To record, in the program that calls:",
        "  import leastwise",
        "  client = leastwise.Anthropic()     # the anthropic client, same calls",
        "or read the console's usage export: leastwise report usage.csv",
    ]


def _observing_lines(report: LedgerReport) -> list[str]:
    if not report.is_observing:
        return []
    sums = report.observed
    return wrapped(observing_line(report.switched_on, (sums.could_nusd, sums.spent_nusd)))


def _total_lines(report: LedgerReport) -> list[str]:
    sums = report.total.sums
    money = partial(amount, largest=max(sums.baseline_nusd, sums.spent_nusd))
    how_asked, how_saved = _assumed(sums, money)
    as_asked = f"as asked {money(sums.baseline_nusd)}{how_asked}"
    saved = f"saved {money(sums.saved_nusd)} ({percent(sums.saved_nusd, sums.baseline_nusd, 1)}){how_saved}"
    return [
        *wrapped(f"spent {money(sums.spent_nusd)}   {as_asked}   {saved}"),
        "re-priced at list, net of checks and retries; no holdout, so not a measured sum",
    ]


def _assumed(sums: Line, money: Callable[[int], str]) -> tuple[str, str]:
    """Return what to say beside `as asked` and `saved` of a baseline that nobody named."""
    if not sums.assumed_nusd:
        return "", ""
    if sums.assumed_nusd == sums.baseline_nusd:
        return " assumed", " assumed"
    return f" ({money(sums.assumed_nusd)} of it assumed)", " in part assumed"


def _table(report: LedgerReport) -> list[str]:
    """Return the table, with as many digits after the point as fit, and enough to tell sums apart."""
    largest = report.total.sums.baseline_nusd
    rows = _cells(report, lambda nusd: dollars(nusd, largest))
    for places in _FEWER_PLACES:
        if fits(rows) or abs(largest) * 10**places < _STEPS * NUSD_PER_USD:
            break
        rows = _cells(report, partial(_plain, places=places))
    lines = aligned(rows, "lrrlrrrrl")
    if any(group.sums.assumed_nusd for group in report.groups):
        lines += wrapped(
            "* baseline assumed: nobody said which model would have been called; the top tier stands for it"
        )
    return lines


def _plain(nusd: int, places: int) -> str:
    return show(nusd, places).replace("$", "")


def _cells(report: LedgerReport, money: Callable[[int], str]) -> list[list[str]]:
    total = report.total.sums
    gain = "could save" if report.shows_could else "saved"
    rows = [
        [",".join(report.by), "calls", "%", "answered by", "as asked", "%", "spent", gain, "same quality"]
    ]
    for group in report.groups:
        sums = group.sums
        mark = "*" if sums.assumed_nusd else ""
        rows.append(
            [
                group.name,
                f"{sums.calls:,}",
                percent(sums.calls, total.calls),
                group.answered_text,
                money(sums.baseline_nusd) + mark,
                percent(sums.baseline_nusd, total.baseline_nusd),
                money(sums.spent_nusd),
                money(sums.could_nusd if report.shows_could else sums.saved_nusd) + mark,
                group.same_quality if sums.calls else "-",  # only tried
            ]
        )
    return rows


def _share_lines(report: LedgerReport) -> list[str]:
    total = report.total.sums
    parts = [
        f"{group.name} {percent(group.sums.calls, total.calls)} of calls, "
        f"{percent(group.sums.baseline_nusd, total.baseline_nusd)} of money"
        for group in report.by_tier
        if group.sums.calls
    ]
    return labelled("answered by", "; ".join(parts)) if parts else []


def _detail_lines(report: LedgerReport) -> list[str]:
    sums = report.total.sums
    tried = [group.sums for group in report.by_mode if group.names == (_TRIAL,)]
    parts = {
        "checks": sums.checks_nusd - sum(one.checks_nusd for one in tried),
        "discarded answers": sums.discarded_nusd - sum(one.discarded_nusd for one in tried),
        "lost prompt cache": sums.lost_cache_nusd,
    }
    if tried:
        parts["trials"] = report.total.trials_nusd
    lines = labelled_items('in "spent"', [f"{name} {show(nusd)}" for name, nusd in parts.items()])
    if sums.checked:
        lines += labelled("checked", _checked_words(report))
    if sums.could_move and not report.is_observing:
        part = percent(sums.could_move, sums.calls)
        lines += labelled("could move", f"{part} of calls, worth {show(sums.could_nusd)}, quality unknown")
    lines += _latency_lines(report)
    for one, ahead in report.budgets:
        lines += labelled("budget", budget_words(one, ahead, report.at))
    if sums.cache_hits + sums.cache_misses:
        lines += labelled("cache", hits_words(sums.cache_hits, sums.cache_misses, sums.cache_nusd))
    if sums.failed:
        lines += labelled("failed", f"{plural(sums.failed, 'call')} ({percent(sums.failed, sums.calls, 1)})")
    if sums.estimated:
        part = percent(sums.estimated, sums.calls, 1)
        lines += labelled("estimated", f"{plural(sums.estimated, 'call')} ({part}), answers that broke off")
    if sums.faults:
        lines += labelled(
            "! faults", f"{plural(sums.faults, 'call')} went as asked because something of ours failed"
        )
    lost = [line for label, text in cascade_lines(report.cascade) for line in labelled(label, text)]
    return [*lines, *_month_lines(report), *_loss_lines(report), *_unchecked_lines(report), *lost]


def _checked_words(report: LedgerReport) -> str:
    """Return how many calls were checked and how many of them escalated; groups that escalate most."""
    sums = report.total.sums
    words = f"{percent(sums.checked, sums.calls)} of calls; {percent(sums.escalated, sums.calls)} escalated"
    called = [group for group in report.groups if group.sums.calls]  # a trial's tag may have had no other
    most = sorted(called, key=lambda group: -group.sums.escalated / group.sums.calls)
    named = [
        f"{group.name} {percent(group.sums.escalated, group.sums.calls)}"
        for group in most[:_GROUPS_SHOWN]
        if group.sums.escalated and len(called) > 1
    ]
    return f"{words}: {', '.join(named)}" if named else words


def _latency_lines(report: LedgerReport) -> list[str]:
    if report.total.latency is None:
        return []
    by_mode = [group for group in report.by_mode if group.latency is not None]
    parts = [_latency(report.total)]
    if len(by_mode) > 1:
        parts += [f"{group.name} {_latency(group)}" for group in by_mode]
    return labelled("latency", "p50/p95 " + "; ".join(parts))


def _latency(group: Group) -> str:
    assert group.latency is not None
    p50, p95 = group.latency
    return f"{_seconds(p50)}/{_seconds(p95)} s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def _month_lines(report: LedgerReport) -> list[str]:
    if report.month is None:
        return labelled("a month", f"not said: {plural(report.hours, 'hour')} of data, a day is needed")
    spent, saved = report.month
    return labelled("a month", f"like these days: spent {show(spent)}, saved {show(saved)}")


def _loss_lines(report: LedgerReport) -> list[str]:
    lines = []
    for group in report.groups:
        if group.lost_nusd > 0:
            wasted = max(
                (group.sums.discarded_nusd, "discarded answers"),
                (group.sums.checks_nusd, "checks"),
                (group.sums.lost_cache_nusd, "lost prompt cache"),
            )
            why = wasted[1] if wasted[0] else "dearer models than the baseline"
            lines += labelled("! loss", f"{group.name} lost {show(group.lost_nusd)}: {why}")
    return lines


def _unchecked_lines(report: LedgerReport) -> list[str]:
    names = ", ".join(group.name for group in report.unchecked)
    return labelled("! unchecked", f"{names}: check it by a trial") if names else []


# --- for machines ----------------------------------------------------------------------------------------


def ledger_json(report: LedgerReport) -> dict[str, Any]:
    """Return a report as what `--json` prints."""
    month = report.month
    return {
        "report": "ledger",
        "first_day": report.window.first,
        "last_day": report.window.last,
        "mode": report.mode,
        "by": list(report.by),
        "repriced": True,
        "total": _group_json(report.total, report.total.sums),
        "groups": [
            dict(zip(report.by, group.names, strict=True)) | _group_json(group, report.total.sums)
            for group in report.groups
        ],
        "by_tier": [
            {"tier": group.name, **_group_json(group, report.total.sums)} for group in report.by_tier
        ],
        "by_mode": [
            {"mode": group.name, **_group_json(group, report.total.sums)} for group in report.by_mode
        ],
        "hours": report.hours,
        "month": None if month is None else {"spent_usd": to_usd(month[0]), "saved_usd": to_usd(month[1])},
        "cache": look_ups_json(
            report.total.sums.cache_hits, report.total.sums.cache_misses, report.total.sums.cache_nusd
        ),
        "cascade": cascade_json(report.cascade),
        "budgets": [account_json(one, ahead) for one, ahead in report.budgets],
        "store": report.store,
        "next": report.next,
    }


def _group_json(group: Group, total: Line) -> dict[str, Any]:
    sums = group.sums
    values = (
        sums.calls,
        share(sums.calls, total.calls),
        dict(group.answered_by),
        to_usd(sums.baseline_nusd),
        share(sums.baseline_nusd, total.baseline_nusd),
        to_usd(sums.assumed_nusd),
        to_usd(sums.spent_nusd),
        to_usd(sums.checks_nusd),
        to_usd(sums.discarded_nusd),
        to_usd(sums.lost_cache_nusd),
        to_usd(sums.saved_nusd),
        to_usd(sums.could_nusd),
        sums.moved,
        sums.could_move,
        sums.failed,
        sums.estimated,
        sums.input_tokens,
        sums.output_tokens,
        group.latency[0] if group.latency else None,
        group.latency[1] if group.latency else None,
        group.same_quality,
        sums.checked,
        sums.escalated,
        to_usd(group.trials_nusd),
    )
    return dict(zip(CSV_COLUMNS, values, strict=True))


def ledger_rows(report: LedgerReport) -> Iterator[list[str]]:
    """Yield what `--csv` prints: the grouping and `CSV_COLUMNS`, then a row for each group."""
    yield [*report.by, *CSV_COLUMNS]
    for group in report.groups:
        cells = {**_group_json(group, report.total.sums), "answered_by": group.answered_text}
        yield [*group.names, *("" if cell is None else str(cell) for cell in cells.values())]
