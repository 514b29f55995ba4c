"""What came of policies on a table of outcomes, as `leastwise tune replay` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from leastwise.evaluate.outcomes import Outcomes
from leastwise.evaluate.policies import MARGIN, Check, Fitted, Policy, Simulated
from leastwise.evaluate.promise import Promise
from leastwise.evaluate.replay import Line, Replay
from leastwise.report.table import aligned, plural, wrapped

_NONE: Final = "-"
_NAME: Final = 22  # letters of a name that fit beside the figures
_TASKS: Final = 1000  # costs are shown for so many


def replay_lines(found: Replay, promises: Sequence[Promise] = ()) -> list[str]:
    """Return everything as text: policies, controls, what to know about them, and promises."""
    return [
        *_head(found),
        "",
        *_table(found),
        "",
        *(line for note in _notes(found) for line in wrapped(note, indent=2)),
        *_promise_lines(promises, found.splits),
    ]


def _head(found: Replay) -> list[str]:
    table = found.outcomes
    others = "1 other" if found.test == 1 else f"{found.test:,} others"
    parts = f"{plural(found.train, 'task')} to choose by, {others} to try on ({found.how})"
    repeated = f", {plural(found.splits, 'time')}: all figures are means" if found.splits > 1 else ""
    left = f"; {plural(table.left_out, 'task')} left out" if table.left_out else ""
    return wrapped(
        f"{table.name}: {plural(len(table), 'task')}, {plural(len(table.models), 'model')}{left}. "
        f"{parts}{repeated}."
    )


def _table(found: Replay) -> list[str]:
    is_many = found.splits > 1
    rows = [["policy", "quality", "lost" if is_many else "95%", "of best", "$/1,000", "saved"]]
    rows[0] += ["escal.", "shuffled"]
    for line in (found.best, *found.policies, *found.singles, found.oracle):
        is_plain = line.policy is None or line.policy.kind == "fixed"
        rows.append(
            [
                _shown(line.policy),
                f"{100 * line.quality:.1f}",
                _share(line.broken, 1) if is_many else f"{100 * line.low:.1f}-{100 * line.high:.1f}",
                _share(line.quality, found.best.quality, 1),
                _dollars(line.cost),
                _share(found.best.cost - line.cost, found.best.cost),
                _NONE if is_plain else _share(line.escalated, 1),
                _NONE if is_plain else f"{100 * line.shuffled:.1f}",
            ]
        )
    return aligned(rows, "l" + "r" * (len(rows[0]) - 1))


def _shown(policy: Policy | None) -> str:
    """Return a name that fits, its middle cut where it must: names of models differ at their ends."""
    if policy is not None and policy.is_governed:
        return "  governed"
    name = str(policy or "oracle")
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}~{name[1 - _NAME // 2 :]}"


def _share(part: float, whole: float, places: int = 0) -> str:
    return f"{round(100 * part / whole, places) + 0.0:.{places}f}%" if whole else _NONE  # never -0


def _dollars(cost: float) -> str:
    """Return the dollars that so many tasks cost, with three figures or more."""
    shown = cost * _TASKS
    return f"{shown:,.0f}" if shown >= 100 else f"{shown:.2f}" if shown >= 1 else f"{shown:.4f}"  # noqa: PLR2004 - where one digit fewer tells as much


# --- what to know ------------------------------------------------------------------------------------


def _notes(found: Replay) -> Iterator[str]:
    best = max(found.best_models, key=lambda model: found.best_models[model])
    last = max(found.singles, key=lambda line: line.quality)
    yield f"best fixed: {best}{_times(found.best_models[best], found.splits)}, chosen on the first part." + (
        f" On the other part {last.policy} is better: only hindsight knows."
        if last.quality > found.best.quality
        else ""
    )
    yield (
        "of best, saved: against the best fixed model. shuffled: quality of the same models dealt out at "
        "random for the same money (less where no deal costs so much); what is above that is skill."
    )
    if found.splits > 1:
        yield f"lost: how often more than {100 * MARGIN:.0f} point below the best fixed model."
    dominated = [model for model in found.outcomes.models if found.dominated.get(model, 0) * 2 > found.splits]
    if dominated:
        yield f"dominated, a cheaper model being as good on the first part: {', '.join(dominated)}."
    for line, fitted in zip(found.policies, found.fitted, strict=True):
        yield from _policy_notes(found, line, fitted)
    if any(isinstance(line.policy and line.policy.check, Simulated) for line in found.policies):
        yield (
            "SIMULATED: no judge was asked. It is as right about one answer as about any other; real judges "
            "err most on hard tasks, where cheap models err too."
        )


def _policy_notes(found: Replay, line: Line, fitted: Fitted) -> Iterator[str]:
    policy, is_one = line.policy, found.splits == 1
    assert policy is not None
    if policy.is_governed:
        yield f"  governed: runs for {_share(line.cascaded, 1)} of tasks, where it pays by the first part."
    elif policy.kind == "cascade":
        where = "" if is_one else " in the first split"
        yield f"{policy}: {' > '.join(fitted.otherwise)}{where}; a check costs {_fee(fitted.check)}."
    elif policy.kind == "table" and is_one:
        types = plural(len(set(found.outcomes.kinds)), "type")
        moved = "; ".join(_by_model(fitted.ways)) or "none, for of none it is sure"
        yield f"type table: of {types} of task these go to a cheaper model that is as good: {moved}."


def _fee(check: Check | None) -> str:
    if isinstance(check, Simulated):
        return f"{100 * check.cost:g}% of {check.of}'s mean answer"
    return f"{100 * check.cost:g}% of the cheapest model's answer" if check and check.cost else "nothing"


def _by_model(ways: Mapping[str, Sequence[str]]) -> list[str]:
    models: dict[str, list[str]] = {}
    for kind, way in sorted(ways.items()):
        models.setdefault(way[0], []).append(kind.rpartition("/")[2] or "all")
    return [f"{', '.join(kinds)} to {model}" for model, kinds in models.items()]


def _times(number: int, splits: int) -> str:
    return f" ({number} of {splits} times)" if splits > 1 else ""


# --- promises ----------------------------------------------------------------------------------------


def _promise_lines(promises: Sequence[Promise], splits: int) -> list[str]:
    if not promises:
        return []
    rows = [["check", "granted", "broken", "over", "accepts", "bad", "quality", "$/1,000", "governor"]]
    for one in promises:
        known = [
            f"{one.broken}",
            f"{one.over}",
            _share(one.accepted, 1),
            _share(one.bad, 1, 1),
            f"{100 * one.quality:.1f}",
            _dollars(one.cost_usd),
            f"{one.governor_lets} yes",
        ]
        rows.append([one.check, f"{one.granted}", *(known if one.granted else [_NONE] * len(known))])
    first = promises[0]
    return [
        "",
        *wrapped(
            f"Promise: at most {100 * first.target:g}% of the accepted answers are bad, "
            f"{100 * first.sure:g}% sure; thresholds are of one half, in each of {plural(splits, 'split')}:"
        ),
        *aligned(rows, "l" + "r" * (len(rows[0]) - 1)),
        *(line for note in _promise_notes(promises) for line in wrapped(note, indent=2)),
    ]


def _promise_notes(promises: Sequence[Promise]) -> Iterator[str]:
    first = promises[0]
    yield (
        f"granted: splits with a threshold; without one all goes to {first.models[-1]}. broken: of these, "
        "where more of what it accepts in the whole table is bad: may be "
        f"{first.allowed * first.splits:.0f} of {first.splits} at most ({100 - 100 * first.sure:g}% and two "
        "standard errors)."
    )
    yield (
        "over: the same counted on the other half alone, a small sample that is unlucky where the first was "
        "lucky; not what is promised."
    )
    for one in promises:
        if one.granted:
            yield (
                f"{one.check}: {one.models[-1]} for every task has {100 * one.dearest_quality:.1f} at "
                f"{_dollars(one.dearest_cost_usd)}. On the other half the cascade cost less in "
                f"{one.cost_less} of {one.granted}; the governor, who saw the first, was right in "
                f"{one.governor_right}."
            )


# --- for machines ------------------------------------------------------------------------------------


def replay_json(found: Replay, promises: Sequence[Promise] = ()) -> dict[str, Any]:
    """Return the same as `--json` prints it."""
    table: Outcomes = found.outcomes
    return {
        "table": table.name,
        "tasks": len(table),
        "left_out": table.left_out,
        "models": list(table.models),
        "split": {"how": found.how, "splits": found.splits, "train": found.train, "test": found.test},
        "best_models": dict(found.best_models),
        "dominated": dict(found.dominated),
        "policies": [
            {**_line_json(line, found.best), "ways": _ways_json(fitted)}
            for line, fitted in zip(found.policies, found.fitted, strict=True)
        ],
        "controls": [_line_json(line, found.best) for line in (found.best, *found.singles, found.oracle)],
        "promises": [asdict(one) for one in promises],
    }


def _line_json(line: Line, best: Line) -> dict[str, Any]:
    policy = line.policy
    return {
        "policy": str(policy) if policy else "oracle",
        "kind": policy.kind if policy else "oracle",
        "simulated": policy is not None and isinstance(policy.check, Simulated),
        "quality": line.quality,
        "quality_low": line.low,
        "quality_high": line.high,
        "quality_of_best": line.quality / best.quality if best.quality else None,
        "cost_usd": line.cost,
        "saved": 1 - line.cost / best.cost if best.cost else None,
        "escalated": line.escalated,
        "cascaded": line.cascaded,
        "shares": dict(line.shares),
        "shuffled_quality": line.shuffled,
        "shuffled_cost_usd": line.shuffled_cost,
        "lost_splits": line.broken,
    }


def _ways_json(fitted: Fitted) -> dict[str, Any]:
    return {
        "otherwise": list(fitted.otherwise),
        "types": {kind: list(way) for kind, way in fitted.ways.items()},
    }
