"""What a trial shows: how often the cheaper tier's answers were as good, how sure that is, what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import Any, Final, Literal

from leastwise.cascade import Trial, interval, lower_bound
from leastwise.cascade.intervals import upper_bound
from leastwise.cascade.trials import MONEY, UNANSWERED, OpenTrial, Pairs, compared, least_words
from leastwise.ladder import Ladder
from leastwise.models import canonical
from leastwise.money import divide_half_even, show, to_usd
from leastwise.report.table import aligned, labelled, wrapped

#: With 95 % confidence at least so many answers as good: enough to switch it on.
GOOD: Final = 0.90

Means = Literal["good", "poor", "thin"]


@dataclass(frozen=True, slots=True)
class TrialReport:
    """A trial, under way or over.

    Attributes:
        trial: What was tried.
        sums: How its pairs went.
        state: What it is about, such as `calls.jsonl` or `open since 24 Nov 12:00 UTC`.
        dearer: The tier above the one on trial, or "" where it is the top.
        source: The file of calls, as a shell takes it, where it has more of them; else "".
        before: The last trial of this tag and tier that is over, if there is one.
        is_cut: Whether somebody ended it who could see what it showed.
    """

    trial: OpenTrial
    sums: Sequence[Pairs]
    state: str
    dearer: str = ""
    source: str = ""
    before: Trial | None = None
    is_cut: bool = False

    @property
    def total(self) -> Pairs:
        """All that was compared, and all that was spent."""
        return compared(self.sums)

    @property
    def means(self) -> Means:
        """Whether the tier is good enough, is not, or too few pairs tell."""
        return means_of(self.total.agreed, self.total.n)

    @property
    def against(self) -> str:
        """The models whose answers were the measure."""
        return " and ".join(sorted({pairs.against for pairs in self.sums if pairs.is_compared}))

    @property
    def next(self) -> str:
        """The one next command."""
        trial, tag, whence = self.trial, quote(self.trial.tag), self.source and f" --from {self.source}"
        match self.means:
            case "good":
                return f"leastwise on --tag {tag}"
            case "poor" if self.dearer:
                return f"leastwise trial {tag} --tier {self.dearer}{whence}"
            case "poor":
                return "leastwise report --by tag"
            case _:
                return self._again(f"leastwise trial {tag} --tier {trial.tier}", whence)

    def _again(self, command: str, whence: str) -> str:
        """Return how to come to more pairs."""
        causes = {pairs.how for pairs in self.sums}
        if MONEY in causes:
            return f"{command} --n {self.trial.wanted} --max-usd {to_usd(2 * self.trial.limit_nusd)}{whence}"
        if not self.total.n and any(cause.startswith(UNANSWERED) for cause in causes):
            return "leastwise doctor"
        return f"{command} --n {max(2 * self.total.n, self.trial.wanted)}{whence}"


def means_of(agreed: int, n: int) -> Means:
    """Return what so many pairs as good of so many mean: enough to switch it on, not, or too few to tell."""
    if lower_bound(agreed, n) >= GOOD:
        return "good"
    return "poor" if upper_bound(agreed, n) < GOOD else "thin"


def trial_lines(report: TrialReport) -> list[str]:
    """Return a trial as text."""
    trial, total = report.trial, report.total
    lines = wrapped(f"leastwise trial   tag {trial.tag} on {trial.tier}   {report.state}")
    if total.n:
        lines += ["", *_table(report.sums, total), ""]
    left_out = [f"{pairs.n:,} {pairs.how}" for pairs in report.sums if not pairs.is_compared]
    if left_out:
        lines += labelled("not compared", ", ".join(left_out))
    if total.n:
        now, would = (divide_half_even(nusd, total.n) for nusd in (total.measure_nusd, total.tier_nusd))
        lines += labelled("a call", f"{show(now, 6)} on {report.against}, {show(would, 6)} on {trial.tier}")
    lines += labelled("cost", f"{show(total.spent_nusd)} of at most {show(trial.limit_nusd)}")
    lines += labelled("so", _so(report))
    if total.n and report.is_cut and total.n < trial.wanted:
        cut = f"ended after {total.n:,} of {trial.wanted:,}: less than 95% sure if for what it showed"
        lines += labelled("beware", cut)
    if report.before is not None:
        again = "the best of several trials is less than 95% sure"
        lines += labelled("before", f"{standing_words(report.before)}; {again}")
    return lines


def _table(sums: Sequence[Pairs], total: Pairs) -> list[str]:
    rows = [["compared by", "pairs", "as good", "%", "95% interval"]]
    ways: dict[str, Pairs] = {}
    for pairs in sums:
        if pairs.is_compared:
            ways[pairs.how] = ways[pairs.how].plus(pairs) if pairs.how in ways else pairs
    rows += [_row(how, pairs) for how, pairs in ways.items()]
    if len(ways) > 1:
        rows.append(_row("all", total))
    return aligned(rows, "lrrrr")


def _row(name: str, pairs: Pairs) -> list[str]:
    rate = interval(pairs.agreed, pairs.n)
    low, high = 100 * rate.low, 100 * rate.high
    return [name, f"{rate.n:,}", f"{rate.k:,}", f"{100 * rate.share:.1f}", f"{low:.1f} to {high:.1f}"]


def _so(report: TrialReport) -> str:
    trial, total = report.trial, report.total
    if not total.n:
        return "nothing was compared, so nothing is known"
    share = least_words(total.agreed, total.n)
    least = f"{trial.tier} is as good as {report.against} in {share} of the calls, 95% sure"
    match report.means:
        case "good":
            return least
        case "poor":
            return f"{least}: not often enough to move them there"
        case _:
            return f"{least}: too few pairs to tell"


def trial_json(report: TrialReport) -> dict[str, Any]:
    """Return a trial as what `--json` prints."""
    trial, total = report.trial, report.total
    rate = interval(total.agreed, total.n)
    per_call = (
        [to_usd(divide_half_even(nusd, total.n)) for nusd in (total.measure_nusd, total.tier_nusd)]
        if total.n
        else [None, None]
    )
    return {
        "report": "trial",
        "tag": trial.tag,
        "tier": trial.tier,
        "state": report.state,
        "wanted": trial.wanted,
        "compared": total.n,
        "agreed": total.agreed,
        "share": round(rate.share, 6) if total.n else None,
        "interval": [round(rate.low, 6), round(rate.high, 6)] if total.n else None,
        "same_quality": f"{least_words(total.agreed, total.n)} n {total.n:,}" if total.n else "not measured",
        "means": report.means,
        "against": report.against,
        "is_cut": report.is_cut,
        "before": standing_words(report.before) if report.before is not None else None,
        "by": [_pairs_json(pairs) for pairs in report.sums if pairs.is_compared],
        "not_compared": [{"why": pairs.how, "n": pairs.n} for pairs in report.sums if not pairs.is_compared],
        "mean_cost_usd": per_call[0],
        "mean_cost_on_tier_usd": per_call[1],
        "cost_usd": to_usd(total.spent_nusd),
        "max_usd": to_usd(trial.limit_nusd),
        "next": report.next,
    }


def _pairs_json(pairs: Pairs) -> dict[str, Any]:
    rate = interval(pairs.agreed, pairs.n)
    return {
        "compared_by": pairs.how,
        "against": pairs.against,
        "n": pairs.n,
        "agreed": pairs.agreed,
        "interval": [round(rate.low, 6), round(rate.high, 6)],
        "cost_usd": to_usd(pairs.spent_nusd),
    }


def standing_lines(tag: str, trials: Iterable[Trial], ladder: Ladder) -> list[str]:
    """Return what switching a tag on stands on: trials of its tiers as they are now, or nothing."""
    found = [trial for trial in trials if trial.tag == tag and _is_of(trial, ladder)]
    if not found:
        measure = f"leastwise trial {tag} --n 500 --max-usd 3"
        return wrapped(f"stands on nothing: quality not measured. Measure it: {measure}", indent=2)
    latest = sorted(found, key=lambda one: one.at, reverse=True)
    return [line for one in latest for line in wrapped(f"stands on: {standing_words(one)}", indent=2)]


def _is_of(trial: Trial, ladder: Ladder) -> bool:
    return trial.tier in ladder and canonical(ladder[trial.tier].model) == trial.model


def standing_words(trial: Trial) -> str:
    """Return a trial in words: `trial of 24 Nov, haiku as good as MODEL in >=98.4%, n 2,000 (exact)`."""
    day, least = datetime.fromtimestamp(trial.at, UTC), least_words(trial.agreed, trial.n)
    good = f"{trial.tier} as good as {trial.against} in {least}, n {trial.n:,}"
    return f"trial of {day.day} {day:%b}, {good} ({trial.compared})"
