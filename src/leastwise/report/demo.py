"""The demo: what it asks, and the bill of what became of it.

The requests are our own (`data/demo.toml`): realistic ones of every kind of task, sent as
they are through a client that somebody else holds. The bill is worked out from the
outcomes alone; nothing in it is known beforehand.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import cycle, islice
from typing import Any, Final

from leastwise.ladder import Code, Outcome, Task, deciding
from leastwise.messages import blocks_of
from leastwise.report.table import aligned, percent, wrapped
from leastwise.report.window import days_text

#: What to do after the demo.
NEXT: Final = "leastwise report usage.csv"

_WIDTH: Final = 79
_MAX_TOKENS: Final = 1024
_TITLE_CHARS: Final = 30
_MANY: Final = 10
_UNSURE, _TYPE = "UNSURE", "type: "
_FILLER: Final = (
    "This is filler: it stands for an answer of the length that such a request usually gets, so that the "
    "bill below is that of real work, and it says nothing, because nobody has thought about the question. "
    "Read the column beside it, which is about money, and not this text, which is about nothing at all."
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of the demo.

    Attributes:
        kind: The sort of task.
        members: The Messages request but for its model: `create(model="auto", **members)`.
        task: What the caller tells of it.
        answer: What a simulated model answers.
    """

    kind: str
    members: Mapping[str, Any]
    task: Task
    answer: str

    @property
    def title(self) -> str:
        """How the last turn begins, on one line."""
        turn = self.members["messages"][-1]["content"]
        texts = (str(block.get("text", block.get("content"))) for block in blocks_of(turn))
        return " ".join(" ".join(texts).split())[:_TITLE_CHARS].strip()


def load_samples() -> tuple[Sample, ...]:
    """Return the requests of the package's `data/demo.toml`."""
    data = tomllib.loads(files("leastwise").joinpath("data/demo.toml").read_text("utf-8"))
    tools = {tool["name"]: tool for tool in data["tool"]}
    return tuple(_sample(kind["name"], row, tools) for kind in data["kind"] for row in kind["request"])


def _sample(kind: str, row: Mapping[str, Any], tools: Mapping[str, Any]) -> Sample:
    members: dict[str, Any] = {"max_tokens": row.get("max_tokens", _MAX_TOKENS)}
    if "tools" in row:
        members["tools"] = [tools[name] for name in row["tools"]]
    if "description" in row:
        members["system"] = row["description"]
    members["messages"] = row.get("messages") or [{"role": "user", "content": row["prompt"].strip()}]
    task = Task(row.get("description"), expected_output_tokens=row.get("expected_output_tokens"))
    answer = row.get("says") or " ".join(islice(cycle(_FILLER.split()), row["answer_words"]))
    return Sample(kind, members, task, answer)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the bill: some requests, who answered, why, and both prices."""

    title: str
    calls: int
    tier: str
    why: str
    cost_usd: Decimal
    baseline_usd: Decimal


@dataclass(frozen=True, slots=True)
class Bill:
    """What became of the requests that were sent."""

    results: tuple[tuple[Sample, Outcome], ...]

    @property
    def cost_usd(self) -> Decimal:
        """Everything spent."""
        return _cost(self._outcomes)

    @property
    def baseline_usd(self) -> Decimal:
        """What the baseline would have cost."""
        return _baseline(self._outcomes)

    @property
    def _outcomes(self) -> list[Outcome]:
        return [outcome for _, outcome in self.results]

    def kinds(self) -> list[Row]:
        """Return one row per kind of task, in the order asked."""
        groups: dict[str, list[Outcome]] = {}
        for sample, outcome in self.results:
            groups.setdefault(sample.kind, []).append(outcome)
        return [_row(kind, outcomes) for kind, outcomes in groups.items()]

    def requests(self) -> list[Row]:
        """Return one row per request."""
        return [_row(sample.title, [outcome]) for sample, outcome in self.results]

    def tiers(self) -> list[Row]:
        """Return one row per tier that answered, the one with most calls first."""
        groups = _by_tier(self._outcomes)
        return sorted((_row(tier, group) for tier, group in groups.items()), key=lambda row: -row.calls)


def _cost(outcomes: Iterable[Outcome]) -> Decimal:
    return sum((each.cost_usd for each in outcomes), Decimal(0))


def _baseline(outcomes: Iterable[Outcome]) -> Decimal:
    return sum((each.baseline_usd for each in outcomes), Decimal(0))


def _by_tier(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.tier or outcome.model, []).append(outcome)
    return groups


def _row(title: str, outcomes: Sequence[Outcome]) -> Row:
    groups = _by_tier(outcomes)
    if len(groups) == 1:
        tier, why = next(iter(groups)), _why(outcomes)
    else:
        tier = "mixed"
        parts = (f"{name} {len(group)}{_mark(group)}" for name, group in groups.items())
        why = ", ".join(parts)
    return Row(title, len(outcomes), tier, why, _cost(outcomes), _baseline(outcomes))


def _mark(outcomes: Sequence[Outcome]) -> str:
    return f" {_UNSURE}" if any(_is_unsure(outcome) for outcome in outcomes) else ""


def _is_unsure(outcome: Outcome) -> bool:
    return any(reason.code is Code.UNSURE for reason in outcome.reasons)


def _why(outcomes: Sequence[Outcome]) -> str:
    """Return the reasons of calls that went one way, each once, types joined."""
    words = list(dict.fromkeys(_short(outcome) for outcome in outcomes))
    if words == [_UNSURE]:
        return f"{_UNSURE}, so not cheap"
    types = [word for word in words if word.startswith(_TYPE)]
    others = [word for word in words if word not in types]
    joined = [_TYPE + ", ".join(word.removeprefix(_TYPE) for word in types)] if types else []
    return "; ".join(joined + others)


def _short(outcome: Outcome) -> str:
    """Return the reason that decided, without the phrase it was read from."""
    if _is_unsure(outcome):
        return _UNSURE
    last = deciding(outcome.reasons)
    return last.words.partition(" (")[0] if last.code is Code.TYPE else last.words


def bill_lines(bill: Bill, head: str, *, each: bool = False) -> list[str]:
    """Return the bill: a row per kind, or per request; both shares; what was not measured."""
    rows = bill.requests() if each else bill.kinds()
    places = 6 if each else 5
    name = _baseline_name(bill)
    table = [["request" if each else "task", "n", "tier", "why", "cost $", f"{name} $"]]
    table += [
        [
            row.title,
            str(row.calls),
            row.tier,
            row.why,
            f"{row.cost_usd:.{places}f}",
            f"{row.baseline_usd:.{places}f}",
        ]
        for row in rows
    ]
    total = ["total", str(len(bill.results)), "", f"{_saved(bill)} of the bill"]
    table.append([*total, f"{bill.cost_usd:.{places}f}", f"{bill.baseline_usd:.{places}f}"])
    return [head, *aligned(table, "lrllrr", width=_WIDTH), *wrapped(_shares(bill, name), width=_WIDTH)]


def _baseline_name(bill: Bill) -> str:
    """Return the baseline's tier where one of its calls shows it, else its model."""
    named = {outcome.model: outcome.tier for _, outcome in bill.results if outcome.tier}
    model = bill.results[0][1].baseline_model
    return named.get(model, model)


def _saved(bill: Bill) -> str:
    saved = bill.baseline_usd - bill.cost_usd
    return f"{'saved' if saved >= 0 else 'lost'} {_share(abs(saved), bill.baseline_usd)}"


def _share(part: Decimal, whole: Decimal) -> str:
    return percent(round(part * 10**9), round(whole * 10**9))


def _shares(bill: Bill, name: str) -> str:
    """Return share of calls beside share of money, of the tiers that took calls over and of what stayed."""
    outcomes = [outcome for _, outcome in bill.results]
    model, how = outcomes[0].baseline_model, outcomes[0].baseline_how
    stayed = [outcome for outcome in outcomes if outcome.model == outcome.baseline_model]
    unsure = sum(_is_unsure(outcome) for outcome in outcomes)
    parts = [
        f"{row.calls} of {len(outcomes)} calls ({percent(row.calls, len(outcomes))}) went to {row.tier} at "
        f"{_fraction(row)} the price: {_share(row.baseline_usd, bill.baseline_usd)} of the money."
        for row in bill.tiers()
        if row.tier != name
    ]
    parts.append(
        f"{len(stayed)} ({percent(len(stayed), len(outcomes))}) stayed on {name} with "
        f"{_share(_baseline(stayed), bill.baseline_usd)} of the money: hard, under way, or not understood "
        f"({unsure} {_UNSURE})."
    )
    parts.append(f"{name} $: {model} for the same tokens, the baseline ({how}).")
    return " ".join(parts)


def _fraction(row: Row) -> str:
    """Return a tier's price beside the baseline's, such as `1/40 of`."""
    if not row.cost_usd:
        return "none of"
    if row.cost_usd > row.baseline_usd:
        return f"{row.cost_usd / row.baseline_usd:.1f} times" if row.baseline_usd else "more than"
    times = row.baseline_usd / row.cost_usd
    return f"1/{times:.0f} of" if times >= _MANY else f"1/{times:.1f}".removesuffix(".0") + " of"


def head_line(answers: str, list_day: date) -> str:
    """Return the first line: what is simulated and what is not."""
    return (
        f"leastwise demo    answers {answers}; decisions real; list prices of {days_text(list_day, list_day)}"
    )


def bill_json(bill: Bill, list_day: date, *, is_simulated: bool) -> dict[str, Any]:
    """Return the bill as `--json` prints it."""

    def plain(row: Row) -> dict[str, Any]:
        return {
            "title": row.title,
            "calls": row.calls,
            "tier": row.tier,
            "why": row.why,
            "cost_usd": row.cost_usd,
            "baseline_usd": row.baseline_usd,
        }

    first = bill.results[0][1] if bill.results else None
    return {
        "simulated": is_simulated,
        "prices_of": list_day,
        "baseline_model": first.baseline_model if first else "",
        "baseline_how": first.baseline_how if first else "",
        "same_quality": "not measured",
        "calls": len(bill.results),
        "cost_usd": bill.cost_usd,
        "baseline_usd": bill.baseline_usd,
        "tiers": [plain(row) for row in bill.tiers()],
        "kinds": [plain(row) for row in bill.kinds()],
        "requests": [
            {
                "kind": sample.kind,
                **plain(_row(sample.title, [outcome])),
                "model": outcome.model,
                "reasons": [{"code": each.code.value, "words": each.words} for each in outcome.reasons],
                "input_tokens": outcome.input_tokens,
                "output_tokens": outcome.output_tokens,
            }
            for sample, outcome in bill.results
        ],
    }
