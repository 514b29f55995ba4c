"""What checks' scores are worth, by answers of which somebody said whether they were good.

One sample for each maker and type of task, and one for all types of a maker together. Only what is made of
the judge's scores is kept: they carry a stamp (its model, the maker's, the question), and a calibration is
used while its stamp is the one in force. A sample too small for any threshold leaves what was kept before,
and for a type what stands for all types. Planted answers are known to be bad and no part of a sample; where
more of them pass than the sample says could, there is no threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from io import BufferedReader
from types import MappingProxyType
from typing import Any, Final

from leastwise.cascade import SURE, TARGET, THRESHOLD, Calibration, Rate, alarm, interval
from leastwise.cascade.calibration import Rates, calibrate, rates_at
from leastwise.cascade.calibration import Scored as Sample
from leastwise.cascade.intervals import faultless
from leastwise.report.files import OnBad
from leastwise.report.rows import number_in, rows, truth_in
from leastwise.report.table import aligned, labelled, plural, wrapped
from leastwise.stores import Scored

_ALL: Final = "all types"
_WHOLE_AND_ONE: Final = 2
_LABELS: Final = (
    "say which answers were good: leastwise feedback ID --ok, or --bad; many at once: --from FILE; "
    "client.feedback(message, ok=...); leastwise trial TAG --from FILE --score compares with a dearer tier"
)
_ONLY_SERVED: Final = (
    "no answer below the raw threshold has a label, so false accept and false reject say nothing; what "
    "is promised is promised of accepted answers"
)
#: From so many labels of all scores on it hardly matters how they were picked.
_MOST: Final = 0.9
_SOME: Final = "have a label: what is promised holds if they were picked blindly, not by praise or complaint"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be calibrated, and what a threshold has to promise.

    Attributes:
        check: The check's name.
        task_type: The only type wanted; None for each, and all together.
        by: Who gives its scores, in words.
        stamps: Those in force; scores of others are worth something else. None takes any.
        raw: The threshold where nothing is calibrated.
        target: The share of accepted answers that may be unacceptable, between 0 and 1.
        sure: How surely no more are, between 0 and 1.
        trusts_self: Whether a model's word on its own answers counts uncalibrated.
        kept: What was calibrated before, by stamp and type.
    """

    check: str
    task_type: str | None = None
    by: str = ""
    stamps: Collection[str] | None = None
    raw: float = THRESHOLD
    target: float = TARGET
    sure: float = SURE
    trusts_self: bool = False
    kept: Mapping[tuple[str, str], Calibration] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Line:
    """One sample.

    Attributes:
        calibration: What was made of it.
        raw: What the threshold that nobody calibrated does to it.
        lacking: How many answers there are too few for any threshold, all of them acceptable.
    """

    calibration: Calibration
    raw: Rates
    lacking: int


@dataclass(frozen=True, slots=True)
class Maker:
    """The scores of one maker's answers.

    Attributes:
        name: The maker's tier, or its model.
        is_self: Whether the maker is its own judge.
        scored: How many answers have a score.
        lines: The samples: all types together, then each type with a label, most first.
        planted: How many planted answers reach the threshold, or the raw one where there is none.
    """

    name: str
    is_self: bool
    scored: int
    lines: tuple[Line, ...]
    planted: Rate

    @property
    def has_rejected(self) -> bool:
        """Whether any answer with a label did not reach the raw threshold."""
        accepted = self.lines[0].raw.accepted
        return accepted.k < accepted.n


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was calibrated.

    Attributes:
        wanted: What was to be.
        makers: By whose answers.
        others: How many scores were left out, for their stamp is no longer in force.
    """

    wanted: Wanted
    makers: tuple[Maker, ...]
    others: int = 0

    @property
    def lines(self) -> Iterator[Line]:
        """All samples."""
        return (line for maker in self.makers for line in maker.lines)

    @property
    def to_keep(self) -> tuple[Calibration, ...]:
        """What the ledger keeps: calibrations of the judge, on no less than could carry a threshold."""
        return tuple(line.calibration for line in self.lines if line.calibration.stamp and not line.lacking)


# --- what is calibrated --------------------------------------------------------------------------------


def calibrated(scored: Iterable[Scored], wanted: Wanted) -> Calibrated:
    """Return what the scores in the ledger are worth; without any, of no maker."""
    groups: dict[str, list[Scored]] = {}
    others = 0
    for one in scored:
        verdict = one.verdict
        if verdict.check != wanted.check or wanted.task_type not in (None, one.task_type):
            continue
        if wanted.stamps is not None and verdict.stamp not in wanted.stamps:
            others += 1
        else:
            groups.setdefault(verdict.stamp or verdict.tier, []).append(one)
    makers = [_maker(some, wanted) for some in groups.values()]
    return Calibrated(wanted, tuple(sorted(makers, key=lambda maker: -maker.scored)), others)


def of_samples(samples: Iterable[tuple[str, Sample]], wanted: Wanted) -> Calibrated:
    """Return what scores from elsewhere are worth, each with its type; they have no stamp."""
    some = list(samples)
    lines = _lines(some, "", (), wanted)
    maker = Maker("", is_self=False, scored=len(some), lines=lines, planted=_planted((), wanted.raw))
    return Calibrated(wanted, (maker,))


def _maker(scored: Sequence[Scored], wanted: Wanted) -> Maker:
    first = scored[0].verdict
    planted = [_score(one) for one in scored if one.verdict.is_control]
    real = [one for one in scored if not one.verdict.is_control]
    told = [(one.task_type, Sample(_score(one), one.ok)) for one in real if one.ok is not None]
    lines = _lines(told, first.stamp, planted, wanted)
    found = lines[0].calibration.threshold
    least = wanted.raw if found is None else found
    return Maker(first.tier, first.is_self, len(real), lines, _planted(planted, least))


def _score(one: Scored) -> float:
    assert one.verdict.score is not None, "the ledger gives verdicts with a score"
    return one.verdict.score


def _lines(
    told: Iterable[tuple[str, Sample]], stamp: str, planted: Sequence[float], wanted: Wanted
) -> tuple[Line, ...]:
    """Return the samples: all together, then each type, most first; or that of the one type wanted."""
    whole = wanted.task_type or ""
    by_type: dict[str, list[Sample]] = {whole: []}
    for task_type, sample in told:
        for name in dict.fromkeys((whole, task_type)):
            by_type.setdefault(name, []).append(sample)
    names = sorted(by_type, key=lambda name: (name != whole, -len(by_type[name]), name))
    return tuple(_line(by_type[name], name, stamp, planted, wanted) for name in names)


def _line(
    samples: Sequence[Sample], task_type: str, stamp: str, planted: Sequence[float], wanted: Wanted
) -> Line:
    found = calibrate(samples, stamp, task_type, target=wanted.target, sure=wanted.sure)
    if found.threshold is not None and found.rates is not None:
        passed = _planted(planted, found.threshold)
        why = alarm(passed.k, passed.n, found.rates.false_accept)
        if why:
            found = replace(found, threshold=None, rates=None, why=why)
    lacking = max(0, faultless(wanted.target, wanted.sure) - len(samples))
    return Line(found, rates_at(samples, wanted.raw), lacking)


def _planted(scores: Sequence[float], threshold: float) -> Rate:
    return interval(sum(score >= threshold for score in scores), len(scores))


def read_samples(file: BufferedReader, name: str, on_bad: OnBad) -> Iterator[tuple[str, Sample]]:
    """Yield the type and the sample of each row of a table with the columns `score`, `ok`, perhaps `type`.

    Args:
        file: JSON lines or CSV, open for reading bytes.
        name: Its name, for messages.
        on_bad: Told each row that cannot be read.

    Raises:
        LogError: it is no such table.
    """
    return rows(file, name, on_bad, ("score", "ok"), _sample)


def _sample(_line: int, cells: Mapping[str, Any]) -> tuple[str, Sample]:
    kind = str(cells.get("type") or "")
    kind.encode()  # bytes that are no UTF-8 came in as lone surrogates
    return kind, Sample(number_in(cells["score"], "score"), truth_in(cells["ok"], "ok"))


# --- as text -------------------------------------------------------------------------------------------


def calibrated_lines(report: Calibrated) -> list[str]:
    """Return what was calibrated as text."""
    wanted = report.wanted
    promise = f"at most {_percent(wanted.target)} of accepted answers bad, {_percent(wanted.sure)} sure"
    lines = wrapped(
        f"leastwise tune calibrate   {wanted.check}{wanted.by and f' by {wanted.by}'}   {promise}"
    )
    for maker in report.makers:
        lines += ["", *_maker_lines(maker, wanted)]
    if report.others:
        others = f"{plural(report.others, 'score')} of another judge, maker or question than is in force now"
        lines += labelled("left out", others)
    if not report.makers:
        mend = "" if report.others else "; is [cascade] enabled?"
        lines += labelled("no score", f"{wanted.check} has scored no answer as it is now{mend}")
    elif any(line.calibration.threshold is None for line in report.lines):
        lines += labelled("for labels", _LABELS)
    return lines


def _maker_lines(maker: Maker, wanted: Wanted) -> list[str]:
    whose = f"{maker.name}'s answers" if maker.name else "answers"
    own = ", by itself" if maker.is_self else ""
    n = maker.lines[0].calibration.n
    shown = maker.lines if len(maker.lines) > _WHOLE_AND_ONE else maker.lines[:1]  # the same once more
    table = [["type", "n", "from", "accepted", "false accept", "false reject"]]
    for line in shown:
        found = line.calibration
        least = "refused" if found.threshold is None else f"{found.threshold:g}"
        table.append([found.task_type or _ALL, f"{found.n:,}", least, *_rates(found.rates)])
        table.append(["", "", f"raw {wanted.raw:g}", *_rates(line.raw)])
    lines = [f"{whose}{own}: {maker.scored:,} scored, {n:,} of them with a label"]
    if not n:
        return lines
    lines += aligned(table, "lrrrrr")
    if maker.planted.n:
        passed = f"{maker.planted} of {maker.planted.n:,} that are known to be bad would be accepted"
        lines += labelled("planted", passed)
    for line in shown:
        lines += labelled(line.calibration.task_type or _ALL, _why(line))
    if maker.lines[0].calibration.threshold is None and maker.name:
        lines += labelled("meanwhile", _meanwhile(maker, wanted))
    if n < _MOST * maker.scored and any(line.calibration.threshold is not None for line in maker.lines):
        lines += labelled("beware", f"{n:,} of {maker.scored:,} answers {_SOME}")
    if not maker.has_rejected:
        lines += labelled("beware", _ONLY_SERVED)
    return lines


def _meanwhile(maker: Maker, wanted: Wanted) -> str:
    """Return what counts where a sample gives no threshold."""
    found = maker.lines[0].calibration
    if found.stamp and not maker.lines[0].lacking:
        return "accepts nothing: the sample is large enough, and no score is good enough"
    before = wanted.kept.get((found.stamp, found.task_type)) or wanted.kept.get((found.stamp, ""))
    if before is not None:
        least = "accepts nothing" if before.threshold is None else f"accepts from {before.threshold:g} on"
        return f"what was kept before counts: {least}"
    is_barred = maker.is_self and not wanted.trusts_self
    return "accepts nothing: it is its own judge" if is_barred else f"accepts from {wanted.raw:g} on"


def _rates(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["-", "-", "-"]
    return [f"{100 * rates.accepted.share:.0f}%", str(rates.false_accept), str(rates.false_reject)]


def _why(line: Line) -> str:
    found = line.calibration
    if not line.lacking:
        return found.why
    instead = "; until then all types together count for it" if found.task_type else ""
    return f"{found.why}: {line.lacking:,} more at least{instead}"


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


# --- for machines --------------------------------------------------------------------------------------


def calibrated_json(report: Calibrated, *, is_kept: bool) -> dict[str, Any]:
    """Return what was calibrated as `--json` prints it.

    Args:
        report: What was calibrated.
        is_kept: Whether the ledger keeps it.
    """
    wanted, kept = report.wanted, report.to_keep if is_kept else ()
    return {
        "report": "calibration",
        "check": wanted.check,
        "by": wanted.by,
        "target": wanted.target,
        "sure": wanted.sure,
        "raw_threshold": wanted.raw,
        "makers": [
            {
                "maker": maker.name,
                "is_self": maker.is_self,
                "scored": maker.scored,
                "planted": _rate_json(maker.planted),
                "types": [_line_json(line, is_kept=line.calibration in kept) for line in maker.lines],
            }
            for maker in report.makers
        ],
        "left_out": report.others,
        "kept": len(kept),
    }


def _line_json(line: Line, *, is_kept: bool) -> dict[str, Any]:
    found = line.calibration
    return {
        "type": found.task_type,
        "stamp": found.stamp,
        "n": found.n,
        "threshold": found.threshold,
        "why": found.why,
        "lacking": line.lacking,
        "kept": is_kept,
        "rates": None if found.rates is None else _rates_json(found.rates),
        "raw": _rates_json(line.raw),
        "curve": asdict(found.curve),
    }


def _rates_json(rates: Rates) -> dict[str, Any]:
    return {field.name: _rate_json(getattr(rates, field.name)) for field in fields(rates)}


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {**asdict(rate), "share": rate.share if rate.n else None}
