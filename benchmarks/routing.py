"""What routing by predicted type is worth on public tables of outcomes, per prompt and model.

Our features and learner tell a prompt's task among the table's own; the type table holds the mean
outcome of each model on each, drawn towards the model's mean (`routing.types.blended`); a prompt's
score is the gain expected of the stronger model. Prompts that the guard holds back are given the
mean gain: it routes only what train shows to gain by it (`_guard`). All of that and the threshold
come from the train part and are applied unchanged to the test part.

*Same* is the table's own split. *Unseen* leaves a third of the categories out of learning, whole,
and tests on them: there a router can know nothing, and must do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from math import inf
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import Figure, Quiet, Result, Table, public_tables, say
from leastwise.routing.types import blended

if TYPE_CHECKING:
    from training.learn import Learned

_MMLU: Final = "routellm_mmlu"
#: Table, weaker and stronger model.
_PAIRS: Final = (
    (_MMLU, "mixtral-8x7b", "gpt-4-1106"),
    ("mmlu_pro", "llama-3.1-8b", "llama-3.1-70b"),
    ("mmlu_pro", "gemini-1.5-flash-002", "gemini-1.5-pro-002"),
    ("ulab_llmrouter", "llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct"),
    ("bfcl_claude", "claude-3-haiku-20240307", "claude-3-opus-20240229"),
    ("zeroeval_crux", "claude-3-haiku-20240307", "claude-3-5-sonnet-20240620"),
)
_PARTS: Final = 3  # of the prompts and of the categories; each is left out once
_HARMLESS: Final = 0.48  # APGR of unseen categories
_MOST_STRANGE: Final = 0.05  # of the prompts of left-out categories that may pass for known ones
_DRAWS: Final = 200  # of the bootstrap
_WANTED: Final = 0.95  # of the stronger model's quality

_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Curve:
    """A ranking of prompts by the gain expected of the stronger model, and what came of it.

    Attributes:
        apgr: Mean share of the gap that is won, over all shares of strong calls; random is .5.
        cpt50: Share of strong calls that wins half the gap.
        cpt80: Share of strong calls that wins four fifths.
        save95: Cost saved at the cheapest point that keeps 95 % of the stronger model's quality.
    """

    apgr: float
    cpt50: float | None
    cpt80: float | None
    save95: float


@dataclass(frozen=True, slots=True)
class Found:
    """What one router did on one test part.

    Attributes:
        kind: `same`, or `unseen` and which group was left out.
        pair: Table and models.
        count: Prompts tested.
        gap: Quality of the weaker and of the stronger model.
        accuracy: Of the type, None where none of the types can be right.
        covered: Share of prompts that the guard let pass.
        curve: Of the prompts as routed, those that the guard held back at the mean gain.
        deviation: Of the area of that curve, over bootstrap draws.
        unguarded: The same without the guard.
        saved: Cost saved by the threshold that was chosen on the train part.
        kept: Quality kept by it, of the stronger model's.
    """

    kind: str
    pair: tuple[str, str, str]
    count: int
    gap: tuple[float, float]
    accuracy: float | None
    covered: float
    curve: Curve
    deviation: float
    unguarded: Curve
    saved: float
    kept: float


def measure(_turns: int, quiet: Quiet) -> Result | None:
    """Return the value of routing, or None where the data or scikit-learn is not there."""
    data = public_tables("routing", trains=True)
    if data is None:
        return None
    found = list(_all(Path(data, "routing")))
    same = [one for one in found if one.kind == "same"]
    unseen = [one for one in found if one.kind != "same"]
    (mmlu,) = (one for one in same if one.pair[0] == _MMLU)
    worst = min(unseen, key=lambda one: one.curve.apgr)
    return Result(
        name="routing",
        title="What routing by predicted type is worth",
        method=_METHOD,
        tables=(_table("Same categories, other prompts", same), _table("Unseen categories", unseen)),
        figures=(
            Figure("MMLU, same subjects, APGR", 0.68, mmlu.curve.apgr, "", is_least=True),
            Figure(
                f"worst unseen categories ({worst.pair[0]}, {worst.covered:.0%} covered), APGR",
                _HARMLESS,
                worst.curve.apgr,
                "",
                is_least=True,
            ),
        ),
        reading=tuple(_reading(same, unseen)),
        packages=("scikit-learn", "numpy", "pyarrow"),
        facts=quiet.facts(),
    )


def _all(folder: Path) -> Iterator[Found]:
    from training.sources import read_table  # noqa: PLC0415 - an extra that only training needs

    for table in dict.fromkeys(name for name, _, _ in _PAIRS):
        path = folder / f"{table}.parquet"
        if not path.exists():
            say(f"benchmarks: routing: {path} is not there; left out")
            continue
        rows = read_table(path)
        pairs = [pair for pair in _PAIRS if pair[0] == table]
        train = [row for row in rows if row["fold"] == "train"]
        yield from _tested("same", pairs, train, [row for row in rows if row["fold"] == "test"])
        groups = _groups(rows)
        if len(groups) <= _PARTS:
            continue
        for group in range(_PARTS):
            out = {subset for subset in groups if groups[subset] == group}
            rest = [row for row in train if row["subset"] not in out]
            name = f"unseen {group + 1}: {', '.join(sorted(out)[:3])}" + (" ..." if len(out) > 3 else "")
            yield from _tested(name, pairs, rest, [row for row in rows if row["subset"] in out])


def _groups(rows: Sequence[_Row]) -> dict[str, int]:
    """Return which group each category is in: dealt out in an order that only names decide."""
    names = sorted({row["subset"] for row in rows}, key=lambda name: sha256(name.encode()).hexdigest())
    return {name: place % _PARTS for place, name in enumerate(names)}


# --- the router ----------------------------------------------------------------------------------------


def _tested(
    kind: str, pairs: Sequence[tuple[str, str, str]], train: Sequence[_Row], test: Sequence[_Row]
) -> Iterator[Found]:
    """Yield what the router does on `test` for each pair, all of it learned from `train`."""
    group = _groups(train)
    known = _left_out(train, _fold)
    strange = _left_out(train, lambda row: group[row["subset"]])
    told_test = _tell(_learn(train), test)
    types = {row["subset"] for row in train}
    right = [told.best == row["subset"] for told, row in zip(told_test, test, strict=True)]
    for pair in pairs:
        _, weak, strong = pair
        table, mean = _gains(train, weak, strong)
        guard = _guard(known, strange, weak, strong)
        plain = [told.expected(table) for told in told_test]
        scores = _guarded(told_test, table, mean, guard)
        trained = [score for part in known for score in _guarded(part.told, table, mean, guard)]
        threshold = _threshold(trained, [row for part in known for row in part.rows], weak, strong)
        saved, kept = _applied([score >= threshold for score in scores], test, weak, strong)
        yield Found(
            kind=kind,
            pair=pair,
            count=len(test),
            gap=(_mean(test, weak, "score"), _mean(test, strong, "score")),
            accuracy=fmean(right) if types & {row["subset"] for row in test} else None,
            covered=fmean(told.evidence > guard for told in told_test),
            curve=_curve(scores, test, weak, strong),
            deviation=_deviation(scores, test, weak, strong),
            unguarded=_curve(plain, test, weak, strong),
            saved=saved,
            kept=kept,
        )


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Train prompts that were left out of learning, the rest, and what that taught of them."""

    rows: Sequence[_Row]
    rest: Sequence[_Row]
    told: Sequence[_Told]


def _left_out(train: Sequence[_Row], part_of: Callable[[_Row], int]) -> list[_LeftOut]:
    """Return each part left out once, with what the rest teaches of it."""
    found = []
    for part in range(_PARTS):
        rows = [row for row in train if part_of(row) == part]
        rest = [row for row in train if part_of(row) != part]
        if rows and rest:
            found.append(_LeftOut(rows, rest, _tell(_learn(rest), rows)))
    return found


def _guard(known: Sequence[_LeftOut], strange: Sequence[_LeftOut], weak: str, strong: str) -> float:
    """Return the evidence above which prompts are routed.

    Nothing is routed unless prompts of known categories gain by it; everything is, where prompts of
    strange categories gain too; else that for which there is more evidence than for strange prompts.
    """
    if not _pays(known, weak, strong) or len(strange) < _PARTS:
        return inf
    if _pays(strange, weak, strong):
        return -inf
    return max(
        sorted(told.evidence for told in part.told)[int((1 - _MOST_STRANGE) * len(part.told))]
        for part in strange
    )


def _pays(parts: Sequence[_LeftOut], weak: str, strong: str) -> bool:
    """Tell whether each part, told and valued by the rest alone, does better routed than at random."""

    def won(part: _LeftOut) -> float:
        table, _ = _gains(part.rest, weak, strong)
        return _won(list(_points([told.expected(table) for told in part.told], part.rows, weak, strong)))

    return len(parts) == _PARTS and all(won(part) > 0 for part in parts)


def _guarded(told: Sequence[_Told], table: Mapping[str, float], mean: float, guard: float) -> list[float]:
    return [one.expected(table) if one.evidence > guard else mean for one in told]


@dataclass(frozen=True, slots=True)
class _Told:
    """What the classifier says of one prompt.

    Attributes:
        shares: Probability by type.
        evidence: How firmly types are ruled out: the mean over them of -log(share), in nats, over what
            even shares have (0).
    """

    shares: Mapping[str, float]
    evidence: float

    @property
    def best(self) -> str:
        return max(self.shares, key=self.shares.__getitem__)

    def expected(self, gains: Mapping[str, float]) -> float:
        return sum(share * gains[name] for name, share in self.shares.items())


def _fold(row: _Row) -> int:
    return int(sha256(f"fold {row['prompt']}".encode("utf-8", "replace")).hexdigest()[:8], 16) % _PARTS


def _learn(rows: Sequence[_Row]) -> Learned | None:
    """Return weights that tell the tables' own categories, or None where there is only one."""
    from training.learn import Sample, Settings, learn  # noqa: PLC0415 - an extra that only training needs

    if len({row["subset"] for row in rows}) == 1:
        return None
    settings = Settings(most=10**9)
    return learn([Sample(row["prompt"], row["subset"], "") for row in rows], settings)


def _tell(learned: Learned | None, rows: Sequence[_Row]) -> list[_Told]:
    import numpy as np  # noqa: PLC0415 - an extra that only training needs

    from training.learn import shares  # noqa: PLC0415 - as above

    if learned is None:
        return [_Told({row["subset"]: 1.0}, 0.0) for row in rows]
    found = []
    for part in shares(learned.scores([row["prompt"] for row in rows])):
        evidence = float(-np.log(part + 1e-12).mean() - np.log(len(part)))
        found.append(_Told(dict(zip(learned.labels, map(float, part), strict=True)), evidence))
    return found


def _gains(train: Sequence[_Row], weak: str, strong: str) -> tuple[dict[str, float], float]:
    """Return the gain of the stronger model by type, drawn towards the mean one, and that mean."""
    means = {model: _mean(train, model, "score") for model in (weak, strong)}
    gains = {}
    for subset in {row["subset"] for row in train}:
        rows = [row for row in train if row["subset"] == subset]
        quality = {
            model: blended(mean, len(rows), _mean(rows, model, "score")) for model, mean in means.items()
        }
        gains[subset] = quality[strong] - quality[weak]
    return gains, means[strong] - means[weak]


# --- what it is worth ----------------------------------------------------------------------------------


def _mean(rows: Sequence[_Row], model: str, what: str) -> float:
    return fmean(row[f"{model}|{what}"] for row in rows)


def _curve(scores: Sequence[float], rows: Sequence[_Row], weak: str, strong: str) -> Curve:
    """Return the curve of a ranking; prompts of one score count as in random order."""
    points = list(_points(scores, rows, weak, strong))
    gap = points[-1][1] - points[0][1]
    pairs = list(pairwise(points))
    wanted = _WANTED * points[-1][1]
    costs = [cost for _, quality, cost in points if quality >= wanted]
    return Curve(
        apgr=0.5 + _won(points) / gap,
        cpt50=_reached(pairs, points[0][1] + gap / 2),
        cpt80=_reached(pairs, points[0][1] + gap * 0.8),
        save95=1 - min(costs) / points[-1][2],
    )


def _won(points: Sequence[tuple[float, float, float]]) -> float:
    """Return the area between a curve and that of random order, in quality."""
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return area - (points[0][1] + points[-1][1]) / 2


def _deviation(scores: Sequence[float], rows: Sequence[_Row], weak: str, strong: str) -> float:
    rng = Random(20261124)
    areas = []
    for _ in range(_DRAWS):
        drawn = [rng.randrange(len(rows)) for _ in rows]
        part = [rows[place] for place in drawn]
        if _mean(part, strong, "score") != _mean(part, weak, "score"):
            areas.append(_curve([scores[place] for place in drawn], part, weak, strong).apgr)
    return pstdev(areas)


def _points(
    scores: Sequence[float], rows: Sequence[_Row], weak: str, strong: str
) -> Iterator[tuple[float, float, float]]:
    """Yield share of strong calls, mean quality and mean cost, from none to all, one point a score."""
    quality, cost = _mean(rows, weak, "score"), _mean(rows, weak, "cost_usd")
    yield 0.0, quality, cost
    ordered = sorted(zip(scores, range(len(rows)), strict=True), reverse=True)
    for done, (score, place) in enumerate(ordered, 1):
        row = rows[place]
        quality += (row[f"{strong}|score"] - row[f"{weak}|score"]) / len(rows)
        cost += (row[f"{strong}|cost_usd"] - row[f"{weak}|cost_usd"]) / len(rows)
        if done == len(ordered) or ordered[done][0] != score:
            yield done / len(rows), quality, cost


def _reached(
    pairs: Sequence[tuple[tuple[float, float, float], tuple[float, float, float]]], quality: float
) -> float | None:
    for before, after in pairs:
        if before[1] < quality <= after[1]:
            return before[0] + (after[0] - before[0]) * (quality - before[1]) / (after[1] - before[1])
    return None


def _threshold(scores: Sequence[float], rows: Sequence[_Row], weak: str, strong: str) -> float:
    """Return the score from which on calls go to the stronger model: the cheapest that keeps 95 %."""
    wanted = _WANTED * _mean(rows, strong, "score")
    best = (inf, min(scores))
    ordered = [inf, *sorted(set(scores), reverse=True)]
    for score, (_, quality, cost) in zip(ordered, _points(scores, rows, weak, strong), strict=True):
        if quality >= wanted and cost < best[0]:
            best = cost, score
    return best[1]


def _applied(to_strong: Sequence[bool], rows: Sequence[_Row], weak: str, strong: str) -> tuple[float, float]:
    """Return the cost saved and the quality kept, against always the stronger model."""
    models = [strong if is_strong else weak for is_strong in to_strong]
    cost = fmean(row[f"{model}|cost_usd"] for row, model in zip(rows, models, strict=True))
    quality = fmean(row[f"{model}|score"] for row, model in zip(rows, models, strict=True))
    return 1 - cost / _mean(rows, strong, "cost_usd"), quality / _mean(rows, strong, "score")


# --- what came out -------------------------------------------------------------------------------------


def _table(title: str, found: Sequence[Found]) -> Table:
    rows = tuple(
        (
            one.pair[0] if one.kind == "same" else f"{one.pair[0]} {one.kind}",
            f"{one.pair[1]} > {one.pair[2]}",
            f"{one.gap[0]:.1%} > {one.gap[1]:.1%}",
            f"{one.count:,}",
            "-" if one.accuracy is None else f"{one.accuracy:.0%}",
            f"{one.covered:.0%}",
            f"{one.curve.apgr:.3f} +- {one.deviation:.3f}",
            f"{one.unguarded.apgr:.3f}",
            f"{_percent(one.curve.cpt50)} / {_percent(one.curve.cpt80)}",
            f"{one.curve.save95:.0%}",
            f"{one.saved:.0%} at {one.kept:.1%}",
        )
        for one in found
    )
    head = (
        "table",
        "pair",
        "quality",
        "n",
        "type right",
        "covered",
        "APGR",
        "without guard",
        "CPT50 / 80",
        "save95, read off",
        "saved at quality kept, threshold of train",
    )
    return Table(title, head, rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _reading(same: Sequence[Found], unseen: Sequence[Found]) -> Iterator[str]:
    missed = [sum(one.kept < _WANTED for one in found) for found in (same, unseen)]
    yield (
        f"Wanted were {_WANTED:.0%} of the quality; the thresholds of train kept less on {missed[0]} of "
        f"{len(same)} test parts of the same categories and on {missed[1]} of {len(unseen)} of unseen ones: "
        "it does not carry over, and what is held back goes, all of it, to the side its mean gain is on."
    )
    harmed = [one for one in unseen if one.curve.apgr < _HARMLESS]
    surely = [one for one in harmed if one.curve.apgr + 2 * one.deviation < _HARMLESS]
    yield (
        f"Of {len(unseen)} unseen rows {len(harmed)} fall below {_HARMLESS} with the guard ({len(surely)} by "
        f"more than two deviations), {sum(one.unguarded.apgr < _HARMLESS for one in unseen)} without. It "
        f"routes nothing on {sum(not one.covered for one in unseen)} of them and everything on "
        f"{sum(one.covered == 1 for one in unseen)}. What it holds back is random by design: low coverage "
        "buys safety, not skill."
    )
    for one in harmed:
        weak, strong = one.gap
        yield (
            f"{one.pair[0]} {one.kind}, {one.pair[2]}: the models are {strong - weak:.1%} apart, and routing "
            f"gives {(0.5 - one.curve.apgr) * (strong - weak):.2%} of quality away against random order."
        )
    yield (
        "An earlier guard (one limit on entropy, for all pairs of a table) had been looked at on these test "
        "parts: MMLU .696 at 78 % covered, worst unseen row .308 at 32 %, 4 of 15 below .48."
    )
    yield (
        "On MMLU every fold and every left-out group gains on train (.531, .612 and .566), so its guard "
        "lifts entirely. That each group gains is a rule of signs, and was chosen after these train numbers "
        "were seen; by their lower bounds it would not lift, and 28 % would be covered, at .642 on train."
    )


_METHOD: Final = (
    (
        "Q(c) is the mean quality when the share c of prompts with the highest score goes to the stronger "
        "model; APGR the area under (Q - Qweak) / (Qstrong - Qweak), random .500; CPT50 and CPT80 the share "
        "of strong calls for 50 and 80 % of the gap; save95 the cost saved at the cheapest point of the "
        "test curve that keeps 95 % of the stronger model's quality."
    ),
    (
        "The last column is what can be deployed: the threshold is the cheapest that keeps 95 % on train "
        f"prompts told by weights of other folds ({_PARTS} folds), and is applied unchanged."
    ),
    (
        f"Guard, for each pair, from train alone. Known: each of {_PARTS} folds of the prompts, told and "
        f"valued by the rest; strange: each of {_PARTS} groups of the categories, likewise. Unless every "
        "fold does better routed than at random, nothing is routed; if every group does too, everything "
        f"is; else what has more evidence than all but {_MOST_STRANGE:.0%} of the strange prompts of each "
        "group. Where no groups can be left out, nothing is. Evidence: how firmly the types are ruled out, "
        "mean -log(share) over that of even shares. The rest gets the mean gain."
    ),
    (
        "The rule was written down from leave-out numbers of train parts and kept as the test parts "
        "found it. Those train parts hold, for one unseen row, categories that another tests on: it is "
        f"not blind to them. Type table: prior weight 20. +- is the standard deviation over {_DRAWS} "
        "bootstrap draws of the test part."
    ),
    (
        f"Unseen: categories are dealt into {_PARTS} groups by a hash of their names; each group is left "
        "out whole. Tables of too few categories have no such row, nor those whose prompts are not there. "
        "Costs as the table has them, some estimated."
    ),
)
