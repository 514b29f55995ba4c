"""What cascades and the type table are worth on public tables of outcomes, and whether promises are kept.

What `leastwise tune replay` does, on every table: policies fitted on its training part and tried on the
other, beside the best fixed model, each single model, the same money without skill, and the oracle; then
200 random halves of each, where a promise is one of many and not one draw. Judges are SIMULATED but for
one table, which has a real judge's votes and a real test's verdicts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks.measure import Figure, Quiet, Result, Table, public_tables, say
from leastwise.evaluate import (
    Column,
    Line,
    Outcomes,
    Policy,
    Promise,
    Replay,
    Simulated,
    Split,
    promise,
    read_outcomes,
    replay,
    splits_of,
)
from leastwise.evaluate.policies import MARGIN, Rows, acceptances, mean

_ALL: Final = "*"
_CLAUDE: Final = "claude-*"
_BFCL: Final = ("bfcl_claude", _CLAUDE)
#: Table and pattern of the models to choose from.
_POOLS: Final = (
    _BFCL,
    ("bfcl_claude", _ALL),
    ("zeroeval_crux", _CLAUDE),
    ("zeroeval_crux", _ALL),
    ("mmlu_pro", _ALL),
    ("coderouterbench_id", _ALL),
    ("ulab_llmrouter", _ALL),
)
_REAL: Final = "mbpp_haiku45_sonnet5"
_HALVES: Final = 200
_JUDGES: Final = (0.9, 0.8)
_TABLE: Final = Policy("table")
#: The real checks at one fixed threshold, votes of the judge free where the table's costs hold them.
_GATE: Final = Column("gate", 0.6)
_JUDGE: Final = Column("judge", 0.6)
_SURE: Final = 0.95
#: 3.82 % of what the gate accepts in the whole table is wrong: at .038 every threshold granted is a break.
_TARGETS: Final = (0.03, 0.038, 0.05, 0.10, 0.12, 0.15)
#: Mean dollars a task in the source's own run without a judge (dshakes/firstpass, mbpp-policy-974.txt), and
#: what one of five votes cost in the run with one (mbpp-974-sonnet-k5.txt, which says that its costs hold
#: them), as a share of the small model's answer: (.010912 - .001338) / 5 of .001338.
_WITHOUT_VOTES: Final[Mapping[str, float]] = {"claude-haiku-4-5": 0.001338, "claude-sonnet-5": 0.002940}
_VOTE: Final = 1.43


@dataclass(frozen=True, slots=True)
class Part:
    """One section of the result."""

    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    reading: tuple[str, ...]
    method: tuple[str, ...]


def measure(_turns: int, quiet: Quiet) -> Result | None:
    """Return what came of it, or None where the tables are not there."""
    data = public_tables("cascade")
    if data is None:
        return None
    parts = [part(Path(data, "routing")) for part in _PARTS]
    return Result(
        name="cascade",
        title="What cascades are worth, and whether promises are kept",
        method=tuple(line for part in parts for line in part.method),
        tables=tuple(table for part in parts for table in part.tables),
        figures=tuple(figure for part in parts for figure in part.figures),
        reading=tuple(line for part in parts for line in part.reading),
        packages=("pyarrow",),
        facts=quiet.facts(),
    )


def _read(folder: Path, pools: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Outcomes]:
    found = {}
    for name, pattern in pools:
        path = folder / f"{name}.parquet"
        if path.exists():
            found[name, pattern] = read_outcomes(path, [pattern])
        else:
            say(f"benchmarks: cascade: {path} is not there; left out")
    return found


def _cascades() -> list[Policy]:
    return [
        Policy("cascade", check=Simulated(accuracy), is_governed=is_governed)
        for accuracy in _JUDGES
        for is_governed in (False, True)
    ]


# --- policies and controls, on each table's own split ------------------------------------------------


def _own_splits(folder: Path) -> Part:
    found = {
        pool: replay(outcomes, [_TABLE, *_cascades()], *splits_of(outcomes))
        for pool, outcomes in _read(folder, [*_POOLS, (_REAL, _ALL)]).items()
    }
    bfcl = found[_BFCL]
    judged = bfcl.policies[1]
    worst = max(found, key=lambda pool: found[pool].best.quality - found[pool].policies[0].quality)
    lost = found[worst].best.quality - found[worst].policies[0].quality
    return Part(
        tables=tuple(
            Table(
                f"{_named(pool)}: {one.train:,} tasks to choose by, {one.test:,} to try on", _HEAD, _rows(one)
            )
            for pool, one in found.items()
        ),
        figures=(
            Figure(
                "BFCL, Claude pool, SIMULATED 0.9 judge: cost saved",
                50,
                100 - 100 * judged.cost / bfcl.best.cost,
                "%",
                is_least=True,
            ),
            Figure(
                "the same: quality, of the best model's",
                99,
                100 * judged.quality / bfcl.best.quality,
                "%",
                is_least=True,
            ),
            Figure(
                f"no check: below the best fixed model, worst table ({_named(worst)})",
                100 * MARGIN,
                100 * lost,
                "points",
            ),
        ),
        reading=tuple(_own_reading(found)),
        method=(
            (
                "Fold column where a table has one, else halves with seed 0. The best fixed model, dominated "
                "models, the type table and the governor's word come from the training part."
            ),
            (
                "SIMULATED: a judge right with the same probability about every answer, for a tenth of the "
                "best fixed model's cost; expectations, not draws. An answer is right from a score of .5 on."
            ),
            (
                "Shuffled: the policy's own models dealt to tasks at random, in shares that cost what the "
                "policy cost. Intervals: Clopper and Pearson, for rows alone, not for the choice of a table."
            ),
            (
                "Type table: a type goes to the cheapest model whose gain over the best fixed model, drawn "
                "by 20 rows towards that over all types, is above -1 point at 95 %. These numbers were "
                "written down before a test part was looked at, and not changed after."
            ),
        ),
    )


_HEAD: Final = ("policy", "quality", "95 %", "points", "$/1,000", "saved", "escalated", "shuffled")


def _rows(found: Replay) -> tuple[tuple[str, ...], ...]:
    best = found.best
    return tuple(
        (
            str(line.policy or "oracle"),
            f"{100 * line.quality:.1f}",
            f"{100 * line.low:.1f} - {100 * line.high:.1f}",
            f"{100 * (line.quality - best.quality):+.1f}",
            f"{1000 * line.cost:.4g}",
            _percent(1 - line.cost / best.cost),
            "" if _is_control(line) else _percent(line.escalated),
            "" if _is_control(line) else f"{100 * line.shuffled:.1f}",
        )
        for line in (best, *found.policies, *found.singles, found.oracle)
    )


def _is_control(line: Line) -> bool:
    return line.policy is None or line.policy.kind == "fixed"


def _percent(share: float) -> str:
    return f"{round(100 * share) + 0} %"


def _named(pool: tuple[str, str]) -> str:
    name, pattern = pool
    return name if pattern == _ALL else f"{name}, {pattern}"


def _own_reading(found: Mapping[tuple[str, str], Replay]) -> Iterator[str]:
    for pool, one in found.items():
        last = max(one.singles, key=lambda line: line.quality)
        if last.quality - one.best.quality > MARGIN:
            yield (
                f"{_named(pool)}: the best by the training part has {one.best.quality:.1%} on the other; "
                f"{last.policy} would have been {last.quality:.1%}, which only hindsight knows. Against "
                f"that one the table is {100 * (last.quality - one.policies[0].quality):.1f} points behind."
            )
    for pool, one in found.items():
        for line in one.policies[1:]:
            points = 100 * (line.quality - one.best.quality)
            if points < -100 * MARGIN or line.cost > one.best.cost:
                cost = _percent(line.cost / one.best.cost)
                yield f"{_named(pool)}: {line.policy} loses: {points:+.1f} points at {cost} of the cost."


# --- random halves -----------------------------------------------------------------------------------


def _random_halves(folder: Path) -> Part:
    rows, lost = [], 0.0
    for pool, outcomes in _read(folder, [*_POOLS, (_REAL, _ALL)]).items():
        found = replay(outcomes, [_TABLE, *_cascades()], *splits_of(outcomes, _HALVES))
        lost = max(lost, found.policies[0].broken)
        rows += [
            (
                _named(pool),
                str(line.policy),
                f"{100 * line.quality:.1f}",
                f"{100 * (line.quality - found.best.quality):+.2f}",
                _percent(line.broken),
                _percent(1 - line.cost / found.best.cost),
                f"{100 * line.shuffled:.1f}",
            )
            for line in found.policies
        ]
    head = ("table", "policy", "quality", "points", "lost", "saved", "shuffled")
    return Part(
        tables=(
            Table(f"{_HALVES} random halves: means, against each half's best fixed model", head, tuple(rows)),
        ),
        figures=(
            Figure(
                f"no check: lost more than a point, share of {_HALVES} halves, worst table", 0.0, lost, ""
            ),
        ),
        reading=(),
        method=("Lost: share of halves that are more than a point below the best fixed model.",),
    )


# --- real checks -------------------------------------------------------------------------------------


def _real_checks(folder: Path) -> Part:
    tables = _read(folder, [(_REAL, _ALL)])
    if not tables:
        return Part((), (), (), ())
    (held,) = tables.values()
    plain = replace(held, costs={model: _scaled(held, model) for model in held.models})
    splits, _ = splits_of(held, _HALVES)
    governed = [
        _governed("as they are", held, _GATE, splits),
        _governed("as they are", held, _JUDGE, splits),
        _governed("without votes", plain, _GATE, splits),
        _governed("without votes", plain, replace(_JUDGE, cost=_VOTE), splits),
        _governed("without votes", plain, replace(_JUDGE, cost=0.5), splits),
    ]
    redrawn = _redrawn(held, random.Random(0))
    checks = (_GATE, replace(_JUDGE, cost=_VOTE))
    promises = [_promises(plain, check, target, splits, redrawn) for check in checks for target in _TARGETS]
    broken = max(max(half.broken, drawn.broken) for half, drawn in promises)
    return Part(
        tables=(
            Table(
                f"{_REAL}: promises at {_SURE:.0%}, {_HALVES} times",
                _PROMISED,
                tuple(map(_promised_row, promises)),
            ),
            Table(
                f"{_REAL}: the governor, {_HALVES} random halves, thresholds of .6",
                _GOVERNED,
                tuple(map(_governed_row, governed)),
            ),
        ),
        figures=(
            Figure(
                f"promise broken, worst check, target and way of drawing, share of {_HALVES}",
                round(promises[0][0].allowed, 3),
                broken / _HALVES,
                "",
            ),
            Figure("governor lets the losing judge run, share of halves", 0.05, governed[3].lets, ""),
            Figure(
                "governor lets the paying test run, share of halves",
                0.95,
                governed[2].lets,
                "",
                is_least=True,
            ),
            Figure(
                "governor's word right about the other half, worst row",
                0.9,
                min(one.right for one in governed),
                "",
                is_least=True,
            ),
        ),
        reading=tuple(_real_reading(governed)),
        method=_REAL_METHOD,
    )


def _redrawn(outcomes: Outcomes, rng: random.Random) -> list[Split]:
    """Return as many tasks as a half has, drawn with putting back, and those that were not drawn."""
    rows = range(len(outcomes))
    drawn = [rng.choices(rows, k=(len(rows) + 1) // 2) for _ in range(_HALVES)]
    return [Split(one, sorted(set(rows).difference(one))) for one in drawn]


def _promises(
    outcomes: Outcomes, check: Column, target: float, *drawn: Sequence[Split]
) -> tuple[Promise, ...]:
    return tuple(
        promise(outcomes, check, outcomes.models, splits, target=target, sure=_SURE) for splits in drawn
    )


_PROMISED: Final = (
    *("check", "target", "halves: granted", "broken", "over", "accepts", "bad", "quality", "large", "saved"),
    *("redrawn: granted", "broken"),
)


def _promised_row(found: tuple[Promise, ...]) -> tuple[object, ...]:
    half, drawn = found
    known = (
        _percent(half.accepted),
        f"{half.bad:.1%}",
        f"{100 * half.quality:.1f}",
        f"{100 * half.dearest_quality:.1f}",
        _percent(1 - half.cost_usd / half.dearest_cost_usd) if half.granted else "",
    )
    return (
        half.check,
        f"{half.target:.1%}",
        *(half.granted, half.broken, half.over),
        *(known if half.granted else ("",) * len(known)),
        *(drawn.granted, drawn.broken),
    )


def _scaled(outcomes: Outcomes, model: str) -> tuple[float, ...]:
    costs = outcomes.costs[model]
    share = _WITHOUT_VOTES[model] / mean(costs, range(len(outcomes)))
    return tuple(share * cost for cost in costs)


@dataclass(frozen=True, slots=True)
class _Governed:
    """What the governor said of a cascade over the halves, by what the first cost, and what the other cost.

    Attributes:
        costs: Which.
        check: The check.
        lets: Share of halves in which it lets the cascade run.
        naive: The same by mean costs alone, as if rejected tasks cost the large model as much as any.
        pays: Share in which the cascade cost less than the large model for every task.
        right: Share in which the governor's word agrees with that.
        cascade: Mean quality and dollars a task of the cascade.
        large: Of the large model for every task.
    """

    costs: str
    check: Column
    lets: float
    naive: float
    pays: float
    right: float
    cascade: tuple[float, float]
    large: tuple[float, float]


def _governed(costs: str, outcomes: Outcomes, check: Column, splits: Sequence[Split]) -> _Governed:
    policies = [Policy("cascade", outcomes.models, check, is_governed) for is_governed in (False, True)]
    lets, naive, pays, right = [], [], [], []
    for split in splits:
        cascade, governed = replay(outcomes, policies, [split]).policies
        lets.append(governed.cascaded == 1)
        naive.append(_pays_by_means(outcomes, check, split.train))
        pays.append(cascade.cost < mean(outcomes.costs[outcomes.models[-1]], split.test))
        right.append(lets[-1] == pays[-1])
    whole = replay(outcomes, policies, splits)
    cascade, large = whole.policies[0], whole.singles[-1]
    return _Governed(
        costs,
        check,
        lets=fmean(lets),
        naive=fmean(naive),
        pays=fmean(pays),
        right=fmean(right),
        cascade=(cascade.quality, cascade.cost),
        large=(large.quality, large.cost),
    )


def _pays_by_means(outcomes: Outcomes, check: Column, train: Rows) -> bool:
    small, large = (mean(outcomes.costs[model], train) for model in outcomes.models)
    rejected = 1 - mean(acceptances(outcomes, outcomes.models[0], check), train)
    return small * (1 + check.cost) + rejected * large < large


_GOVERNED: Final = (
    *("costs", "check", "a check costs", "governor lets", "by means alone", "pays", "governor right"),
    *("quality", "large", "$/1,000", "large"),
)


def _governed_row(one: _Governed) -> tuple[str, ...]:
    return (
        one.costs,
        str(one.check),
        f"{one.check.cost:g} of an answer",
        *map(_percent, (one.lets, one.naive, one.pays, one.right)),
        f"{100 * one.cascade[0]:.1f}",
        f"{100 * one.large[0]:.1f}",
        f"{1000 * one.cascade[1]:.2f}",
        f"{1000 * one.large[1]:.2f}",
    )


def _real_reading(governed: Sequence[_Governed]) -> Iterator[str]:
    held, _, plain, *_ = governed
    dearer, saved = held.cascade[1] / held.large[1] - 1, 1 - plain.cascade[1] / plain.large[1]
    yield (
        "The table's costs hold five votes of a judge on each answer, the large model's too. As they are, "
        f"the test's cascade costs {_percent(dearer)} more than the large model for every task, and the "
        f"governor lets it run in {_percent(held.lets)} of halves. By mean costs alone it would in "
        f"{_percent(held.naive)}: tasks on which the small model fails cost the large one about twice as "
        "much as others."
    )
    yield (
        f"Without the votes the test's cascade saves {_percent(saved)} and loses "
        f"{100 * (plain.large[0] - plain.cascade[0]):.1f} points. The source's own run without a judge "
        "(dshakes/firstpass, all 974 tasks) measured 13 % and 1.5 points: that is the figure to quote."
    )
    yield (
        "At 10 % the judge is granted nothing: a tenth of what it accepts is wrong even where all five votes "
        "say yes. That is the promise at work, and so is 3.8 %, just below the test's true rate."
    )


_REAL_METHOD: Final = (
    (
        "Promise: on one half, the least score from which on at most the target share of accepted answers "
        "is wrong, by an exact binomial bound. Granted: halves with one. Broken: of the accepted answers of "
        "the whole table, from which the half is a sample, more are wrong than the target. Over: the same "
        "on the other half alone, which is small, and unlucky where the first was lucky. Of all 200 halves "
        "5 % may be broken, and two standard errors more; the limit is about all, not about those granted."
    ),
    (
        "A half of a finite table strays less from it than a sample would. Redrawn is the harder trial: as "
        "many tasks drawn with putting back, so that the table is exactly what they are a sample of."
    ),
    (
        "Without votes: each model's costs scaled to its mean in the source's run without a judge "
        f"({', '.join(f'{model} ${cost:.6f}' for model, cost in _WITHOUT_VOTES.items())} a task). One vote "
        f"cost {_VOTE} of a small answer there, for that judge thinks; one that does not costs about half of "
        "it at list prices. Answers were judged five times; one is paid here, which flatters the judge."
    ),
    (
        "Pays: the cascade costs less on the other half than the large model for every task of it. Governor "
        "right: it let the cascade run where that is so, and not where it is not."
    ),
)

#: The sections, in order; each is given the folder of the tables.
_PARTS: Final[tuple[Callable[[Path], Part], ...]] = (_own_splits, _random_halves, _real_checks)
