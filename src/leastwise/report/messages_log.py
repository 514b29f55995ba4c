"""A file of Messages requests: what would move where, what that could save, and what cannot.

Each line is a request with its answer, as `leastwise.record` writes them, or a bare request
body. Every request is put to the router as if its model were switched on; nothing is sent.
What was spent is priced at the list price of the call's day, what would have been at that
of today, in the other model's tokenizer. Whether the other model would have done as well
is not known, and is said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from leastwise.compile import fit
from leastwise.errors import ConfigError, LogError, RequestError, UnknownPriceError
from leastwise.features import Features, estimate_tokens, read
from leastwise.ladder import AUTO, Code, Decision, Ladder, deciding
from leastwise.messages import JSON, Facts, Request, Usage, text_of
from leastwise.models import Models, canonical
from leastwise.money import show, to_usd
from leastwise.prices import PriceBook, baseline_cost, cheaper_tiers, cost
from leastwise.report.files import OnBad, unreadable
from leastwise.report.table import aligned, dollars, labelled, percent, plural, share, wrapped
from leastwise.report.window import days_text
from leastwise.routing import Known, Policy, Router
from leastwise.sse import assemble

#: What to do after such a report.
NEXT: Final = "leastwise on --percent 10"
#: `--csv`: frozen names.
CSV_COLUMNS: Final = (
    "asked",
    "goes_to",
    "why",
    "calls",
    "share_of_calls",
    "spent_usd",
    "share_of_money",
    "could_save_usd",
)

_CHEAP: Final = "its model is cheap enough"
#: Why a request stays where it is, by the last word of its decision.
_STAYS: Final[Mapping[Code, str]] = {
    Code.UNSURE: "unsure",
    Code.PINNED: "answers a tool call",
    Code.UNFIT: "does not fit",
    Code.CACHE: "its prompt cache is warm",
    Code.CEILING: _CHEAP,
    Code.NOT_ALLOWED: "no cheaper tier is allowed",
}
_NEEDS_IT: Final = "the task needs it"
_MOST_PINS: Final = 10_000  # tool calls remembered: those of the conversations still going on
_MOST_FAULTS: Final = 100  # different reasons kept; they hold figures, so they could be many
_FAULTS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Flow:
    """Calls that asked for one model and end at one place for one cause.

    `goes_to` is a tier, or "" for calls that stay, and then `why` says why.
    """

    asked: str
    goes_to: str
    why: str
    calls: int = 0
    spent_nusd: int = 0
    could_nusd: int = 0


@dataclass(frozen=True, slots=True)
class MessagesReport:
    """What a file of requests says.

    Attributes:
        first: Day of the first dated call, None when none is dated.
        last: Day of the last.
        flows: All priced calls, those that move first, most money first.
        unfit: Why calls cannot move, and how many; the most frequent first.
        estimated: Calls without an answer: priced by their prompts alone.
        undated: Calls without a time: priced at today's list.
        failed: Calls that ended in an error; in no flow.
        unpriced: Calls by model without a price; in no flow.
        bad_lines: Lines that could not be read.
        priced_at: The day of the other models' prices.
    """

    first: date | None
    last: date | None
    flows: tuple[Flow, ...]
    unfit: tuple[tuple[str, int], ...]
    estimated: int
    undated: int
    failed: int
    unpriced: tuple[tuple[str, int], ...]
    bad_lines: int
    priced_at: date

    @property
    def total(self) -> Flow:
        """All priced calls."""
        return _sum(self.flows)

    @property
    def moved(self) -> Flow:
        """Those that would move."""
        return _sum(flow for flow in self.flows if flow.goes_to)

    @property
    def unsure(self) -> Flow:
        """Those that nothing tells about."""
        return _sum(flow for flow in self.flows if flow.why == _STAYS[Code.UNSURE])


def _sum(flows: Iterator[Flow] | Sequence[Flow]) -> Flow:
    flows = list(flows)
    return Flow(
        "",
        "",
        "",
        sum(flow.calls for flow in flows),
        sum(flow.spent_nusd for flow in flows),
        sum(flow.could_nusd for flow in flows),
    )


@dataclass(frozen=True, slots=True)
class Logged:
    """One line: a request and what became of it; `message` is empty where no answer is told."""

    request: Request
    message: Mapping[str, JSON]
    facts: Facts
    at: datetime | None
    is_failed: bool
    tag: str = ""

    @property
    def served(self) -> str:
        """The model that answered, else the one asked for."""
        return canonical(self.facts.model or self.request.model)


def read_messages(
    path: Path,
    on_bad: OnBad,
    *,
    ladder: Ladder,
    policy: Policy,
    book: PriceBook,
    models: Models,
    now: datetime,
) -> MessagesReport:
    """Put every request of a file to the router, line by line.

    Args:
        path: JSON lines.
        on_bad: Told each line that cannot be read.
        ladder: The tiers.
        policy: What is configured; read as if every model were switched on.
        book: Dated prices.
        models: Lines, tokenizers and limits.
        now: The moment whose prices and tiers count for what would be.

    Raises:
        ConfigError: the policy names a tier that the ladder lacks.
        LogError: the file cannot be read, or not one line of it.
    """
    on = replace(policy, mode="enforce", percent=100, switches=())
    fits = partial(fit, models=models, is_strict=on.strict)
    router = Router(ladder, on, prices=book, models=models, fits=fits)
    sums = _Sums(router, book, models, now)

    def count_bad(number: int, fault: str) -> None:
        sums.bad_lines += 1
        on_bad(number, fault)

    for call in calls_in(path, count_bad):
        sums.count(call)
    return sums.report()


def calls_in(path: Path, on_bad: OnBad) -> Iterator[Logged]:
    """Yield what each line of a file says.

    Args:
        path: JSON lines.
        on_bad: Told each line that cannot be read.

    Raises:
        LogError: the file cannot be read, or not one line of it.
    """
    good, bad = 0, 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    call = _call(line)
                except ValueError as error:
                    bad += 1
                    on_bad(number, str(error))
                else:
                    good += 1
                    yield call
    except OSError as error:
        raise unreadable(path, error) from None
    if not good:
        message = f"{path}: not one of {plural(bad, 'line')} could be read" if bad else f"{path}: it is empty"
        raise LogError(message)


def _call(line: bytes) -> Logged:
    """Return what a line says.

    Raises:
        ValueError: it says nothing we know.
    """
    try:
        value = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"not JSON: {error}"
        raise ValueError(message) from None
    if not isinstance(value, dict):
        message = f"expected an object, got {type(value).__name__}"
        raise ValueError(message)  # noqa: TRY004 - the line's value is wrong, not a caller's type
    body = value.get("request", value)
    if not isinstance(body, dict):
        message = f"request: expected an object, got {type(body).__name__}"
        raise ValueError(message)  # noqa: TRY004 - as above
    answer: JSON = value.get("response") if "request" in value else None
    if isinstance(answer, str):  # a stream's events, as they came
        answer = assemble(answer.encode("utf-8", "replace"))
    betas = value.get("betas")
    try:
        request = Request.of(body, betas=[str(beta) for beta in betas] if isinstance(betas, list) else ())
    except RequestError as error:
        raise ValueError(str(error)) from None
    told: dict[str, JSON] = answer if isinstance(answer, dict) else {}
    return Logged(
        request,
        told,
        Facts.read(told) if told else Facts(),
        _moment(value.get("at")),
        value.get("error") is not None,
        text_of(value, "tag"),
    )


def _moment(at: JSON) -> datetime | None:
    """Return a line's time, None when it has none.

    Raises:
        ValueError: it is not an ISO 8601 time.
    """
    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at)
    except (TypeError, ValueError):
        message = f"at: expected a time such as 2026-11-03T14:02:11Z, got {at!r}"
        raise ValueError(message) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Sums:
    """Running sums: as large as the number of models and causes, however long the file."""

    router: Router
    book: PriceBook
    models: Models
    now: datetime
    bad_lines: int = 0
    estimated: int = 0
    undated: int = 0
    failed: int = 0
    first: date | None = None
    last: date | None = None
    flows: dict[tuple[str, str, str], Flow] = field(default_factory=dict)
    unfit: dict[str, int] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)

    def count(self, call: Logged) -> None:
        """Count one line."""
        if call.is_failed:
            self.failed += 1
        else:
            self._add(call)

    def _add(self, call: Logged) -> None:
        request = call.request
        if request.model in AUTO or request.model in self.router.ladder:
            # What routing did then is done; the question is what it would do with the model that answered.
            request = request.replace(model=call.facts.model or self.router.ladder.top.model)
        features = read(request)
        decision = self.router.decide(request, known=Known(pins=self.pins), now=self.now, features=features)
        self._pin(call, decision)
        served = call.served if call.facts.model else canonical(request.model)
        usage = call.facts.usage if call.facts.model else self._prompt(features, served)
        try:
            spent, could = self._priced(usage, served, decision, call.at or self.now)
        except UnknownPriceError as error:
            self.unpriced[error.model] = self.unpriced.get(error.model, 0) + 1
            return
        self._note(call)
        flow = self._flow(served, decision)
        key = (flow.asked, flow.goes_to, flow.why)
        known = self.flows.get(key, flow)
        self.flows[key] = replace(
            known,
            calls=known.calls + 1,
            spent_nusd=known.spent_nusd + spent,
            could_nusd=known.could_nusd + could,
        )

    def _prompt(self, features: Features, model: str) -> Usage:
        """Return what is known of a request without an answer: its prompt, estimated."""
        known = self.models.get(model)
        return Usage(input_tokens=estimate_tokens(features, known.tokenizer if known is not None else "old"))

    def _pin(self, call: Logged, decision: Decision) -> None:
        """Remember who would have made the answer's tool calls: the rest of the loop stays there."""
        self.pins.update(dict.fromkeys(call.facts.tool_use_ids, decision.model))
        while len(self.pins) > _MOST_PINS:
            self.pins.pop(next(iter(self.pins)))

    def _priced(self, usage: Usage, served: str, decision: Decision, at: datetime) -> tuple[int, int]:
        """Return what a call cost, and what it would have cost less.

        Raises:
            UnknownPriceError: a model has no price, whatever the configuration allows.
        """
        if not self.book.has(served, at):
            raise UnknownPriceError(served)
        spent = cost(usage, served, at, self.book).nusd
        if canonical(decision.model) == served or not self.book.has(
            decision.model, self.now, decision.upstream
        ):
            return spent, 0
        would = baseline_cost(
            usage, served, decision.model, self.now, self.book, self.models, provider=decision.upstream
        )
        return spent, spent - would.nusd

    def _note(self, call: Logged) -> None:
        self.estimated += not call.facts.model
        if call.at is None:
            self.undated += 1
            return
        day = call.at.astimezone(UTC).date()
        self.first = min(self.first or day, day)
        self.last = max(self.last or day, day)

    def _flow(self, served: str, decision: Decision) -> Flow:
        if canonical(decision.model) != served:
            return Flow(served, decision.tier or decision.model, "")
        if self._is_cheapest(served):
            return Flow(served, "", _CHEAP)
        last = deciding(decision.reasons)
        if last.code is Code.UNFIT and (last.words in self.unfit or len(self.unfit) < _MOST_FAULTS):
            self.unfit[last.words] = self.unfit.get(last.words, 0) + 1
        return Flow(served, "", _STAYS.get(last.code, _NEEDS_IT))

    def _is_cheapest(self, model: str) -> bool:
        try:
            return not cheaper_tiers(self.router.ladder, model, self.now, self.book)
        except UnknownPriceError:
            return False  # no longer sold: nothing to compare with

    def report(self) -> MessagesReport:
        """Return the sums as a report."""
        order = sorted(
            self.flows.values(), key=lambda flow: (not flow.goes_to, -flow.spent_nusd, flow.asked, flow.why)
        )
        return MessagesReport(
            first=self.first,
            last=self.last,
            flows=tuple(order),
            unfit=tuple(sorted(self.unfit.items(), key=lambda found: (-found[1], found[0]))),
            estimated=self.estimated,
            undated=self.undated,
            failed=self.failed,
            unpriced=tuple(sorted(self.unpriced.items())),
            bad_lines=self.bad_lines,
            priced_at=self.now.date(),
        )


def refuse_groups(names: Sequence[str]) -> None:
    """Refuse `--by`, which says nothing here.

    Raises:
        ConfigError: a name was given.
    """
    if names:
        message = (
            f"--by {','.join(names)}: a file of requests is summed by where they would go; leave out --by"
        )
        raise ConfigError(message)


def messages_lines(report: MessagesReport, name: str) -> list[str]:
    """Return a report as text; `name` is the file's, for the first line."""
    total, moved, unsure = report.total, report.moved, report.unsure
    days = (
        f"{days_text(report.first, report.last)} UTC"
        if report.first and report.last
        else "no dates, so at today's list"
    )
    lines = wrapped(f"leastwise report   {name}   {days}   {plural(total.calls, 'call')}")
    lines += wrapped(
        f"spent {show(total.spent_nusd)} at list; could save {show(moved.could_nusd)} "
        f"({percent(moved.could_nusd, total.spent_nusd)}) "
        f"at list of {report.priced_at:%d %b %Y}, quality unknown"
    )
    lines += labelled("could move", _shares(moved, total))
    lines += labelled("unsure", f"{_shares(unsure, total)}: stays as asked")
    rows = [["asked", "would go to", "calls", "%", "spent $", "%", "could save $"]]
    rows += [
        [
            flow.asked,
            flow.goes_to or f"stays: {flow.why}",
            f"{flow.calls:,}",
            percent(flow.calls, total.calls),
            dollars(flow.spent_nusd, total.spent_nusd),
            percent(flow.spent_nusd, total.spent_nusd),
            dollars(flow.could_nusd, total.spent_nusd),
        ]
        for flow in report.flows
    ]
    return [*lines, "", *aligned(rows, "llrrrrr"), *_caution_lines(report)]


def _shares(flow: Flow, total: Flow) -> str:
    calls, money = percent(flow.calls, total.calls), percent(flow.spent_nusd, total.spent_nusd)
    return f"{calls} of calls, {money} of the money"


def _caution_lines(report: MessagesReport) -> list[str]:
    lines: list[str] = []
    for words, calls in report.unfit[:_FAULTS_SHOWN]:
        lines += labelled("cannot move", f"{plural(calls, 'call')}: {words}")
    if len(report.unfit) > _FAULTS_SHOWN:
        lines += labelled(
            "", f"and {plural(len(report.unfit) - _FAULTS_SHOWN, 'reason')} more: --json has all"
        )
    if report.estimated:
        lines += labelled(
            "! estimated",
            f"{plural(report.estimated, 'call')} without an answer in the file, priced by the prompt alone: "
            f"real sums are higher",
        )
    if report.undated and report.first:
        lines += labelled("! undated", f"{plural(report.undated, 'call')}, priced at today's list")
    if report.failed:
        lines += labelled("! failed", f"{plural(report.failed, 'call')} ended in an error, in no sum above")
    for model, calls in report.unpriced:
        lines += labelled(
            "! no price",
            f"{model}: {plural(calls, 'call')} in no sum above. Add a [[price]] row to leastwise.toml",
        )
    if report.bad_lines:
        lines += labelled("! unread", f"{plural(report.bad_lines, 'line')}, named on stderr with the reason")
    return ["", *lines] if lines else []


def messages_json(report: MessagesReport, name: str) -> dict[str, Any]:
    """Return a report as what `--json` prints."""
    total = report.total
    return {
        "report": "messages",
        "file": name,
        "first_day": report.first,
        "last_day": report.last,
        "total": _flow_json(total, total),
        "could_move": _flow_json(report.moved, total),
        "unsure": _flow_json(report.unsure, total),
        "flows": [
            {"asked": flow.asked, "goes_to": flow.goes_to, "why": flow.why, **_flow_json(flow, total)}
            for flow in report.flows
        ],
        "cannot_move": [{"why": words, "calls": calls} for words, calls in report.unfit],
        "estimated_calls": report.estimated,
        "undated_calls": report.undated,
        "failed_calls": report.failed,
        "unpriced": [{"model": model, "calls": calls} for model, calls in report.unpriced],
        "bad_lines": report.bad_lines,
        "priced_at": report.priced_at,
        "same_quality": "not measured",
        "next": NEXT,
    }


def _flow_json(flow: Flow, total: Flow) -> dict[str, Any]:
    return {
        "calls": flow.calls,
        "share_of_calls": share(flow.calls, total.calls),
        "spent_usd": to_usd(flow.spent_nusd),
        "share_of_money": share(flow.spent_nusd, total.spent_nusd),
        "could_save_usd": to_usd(flow.could_nusd),
    }


def messages_rows(report: MessagesReport) -> Iterator[list[str]]:
    """Yield what `--csv` prints: `CSV_COLUMNS`, then a row for each flow."""
    yield list(CSV_COLUMNS)
    for flow in report.flows:
        cells = _flow_json(flow, report.total).values()
        yield [flow.asked, flow.goes_to, flow.why, *("" if cell is None else str(cell) for cell in cells)]
