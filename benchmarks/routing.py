"""What routing by predicted type is worth on public tables of outcomes, per prompt and model.

Our features and learner tell a prompt's task among the table's own; the type table holds the mean
outcome of each model on each, drawn towards the model's mean (`routing.types.blended`); a prompt's
score is the gain expected of the stronger model. Prompts that are unlike what was learned from
(spread over the types) are given the mean gain: the guard. All of that and the threshold come from
the train part and are applied unchanged to the test part.

*Same* is the table's own split. *Unseen* leaves a third of the categories out of learning, whole,
and tests on them: there a router can know nothing, and must do no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import Figure, Quiet, Result, Table, say
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
_GROUPS: Final = 3  # of categories; each is left out once
_FOLDS: Final = 3
_ABOUT_EQUAL: Final = 0.02
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
        curve: Of the prompts as routed, those outside the guard at the mean gain.
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
    data = os.environ.get("LEASTWISE_DATA")
    if not data:
        say("benchmarks: routing is skipped: LEASTWISE_DATA names no folder with the tables")
        return None
    try:
        import sklearn  # noqa: F401, PLC0415 - an extra that only training needs
    except ImportError as error:
        say(f"benchmarks: routing is skipped: {error}; it is in the extra `train`")
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
                0.48,
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
        if len({row["subset"] for row in rows}) < 2 * _GROUPS - 2:
            continue
        for group in range(_GROUPS):
            out = {subset for subset in {row["subset"] for row in rows} if _group(rows, subset) == group}
            rest = [row for row in train if row["subset"] not in out]
            name = f"unseen {group + 1}: {', '.join(sorted(out)[:3])}" + (" ..." if len(out) > 3 else "")
            yield from _tested(name, pairs, rest, [row for row in rows if row["subset"] in out])


def _group(rows: Sequence[_Row], subset: str) -> int:
    """Return which group a category is in: dealt out in an order that only names decide."""
    names = sorted({row["subset"] for row in rows}, key=lambda name: sha256(name.encode()).hexdigest())
    return names.index(subset) % _GROUPS


# --- the router ----------------------------------------------------------------------------------------


def _tested(
    kind: str, pairs: Sequence[tuple[str, str, str]], train: Sequence[_Row], test: Sequence[_Row]
) -> Iterator[Found]:
    """Yield what the router does on `test` for each pair, all of it learned from `train`."""
    held = [(fold, _learn([row for row in train if _fold(row) != fold])) for fold in range(_FOLDS)]
    # In the order of `train`, each prompt told by weights that did not see it.
    told_train: list[_Told] = [_NOTHING_TOLD] * len(train)
    for fold, learned in held:
        places = [place for place, row in enumerate(train) if _fold(row) == fold]
        for place, told in zip(places, _tell(learned, [train[place] for place in places]), strict=True):
            told_train[place] = told
    guard = _guard([told.entropy for told in told_train], [told.entropy for told in _strange(train)])
    told_test = _tell(_learn(train), test)
    covered = [told.entropy <= guard for told in told_test]
    in_train = [told.entropy <= guard for told in told_train]
    types = {row["subset"] for row in train}
    right = [told.best == row["subset"] for told, row in zip(told_test, test, strict=True)]
    for pair in pairs:
        _, weak, strong = pair
        table, mean = _gains(train, weak, strong)
        plain = [told.expected(table) for told in told_test]
        scores = [score if is_in else mean for score, is_in in zip(plain, covered, strict=True)]
        trained = [
            told.expected(table) if is_in else mean for told, is_in in zip(told_train, in_train, strict=True)
        ]
        threshold = _threshold(trained, train, weak, strong)
        saved, kept = _applied([score >= threshold for score in scores], test, weak, strong)
        yield Found(
            kind=kind,
            pair=pair,
            count=len(test),
            gap=(_mean(test, weak, "score"), _mean(test, strong, "score")),
            accuracy=fmean(right) if types & {row["subset"] for row in test} else None,
            covered=fmean(covered),
            curve=_curve(scores, test, weak, strong),
            deviation=_deviation(scores, test, weak, strong),
            unguarded=_curve(plain, test, weak, strong),
            saved=saved,
            kept=kept,
        )


def _strange(train: Sequence[_Row]) -> list[_Told]:
    """Return what is told of train prompts by weights that never saw their category."""
    found = []
    for group in range(_GROUPS):
        out = {row["subset"] for row in train if _group(train, row["subset"]) == group}
        rest = [row for row in train if row["subset"] not in out]
        if len({row["subset"] for row in rest}) > 1:
            found += _tell(_learn(rest), [row for row in train if row["subset"] in out])
    return found


def _guard(known: Sequence[float], strange: Sequence[float]) -> float:
    """Return the entropy up to which most prompts of known and fewest of strange categories pass.

    Of limits that do so about equally well the loosest: each prompt that it stops is one less to route.
    """

    def told_apart(limit: float) -> float:
        passing = [sum(value <= limit for value in values) / len(values) for values in (known, strange)]
        return passing[0] - passing[1]

    if not strange:
        return max(known)
    limits = sorted(known)[:: max(1, len(known) // 100)]
    best = max(map(told_apart, limits))
    return max(limit for limit in limits if told_apart(limit) >= best - _ABOUT_EQUAL)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the classifier says of one prompt: probability by type, and how evenly it is spread, 0 to 1."""

    shares: Mapping[str, float]
    entropy: float

    @property
    def best(self) -> str:
        return max(self.shares, key=self.shares.__getitem__)

    def expected(self, gains: Mapping[str, float]) -> float:
        return sum(share * gains[name] for name, share in self.shares.items())


_NOTHING_TOLD: Final = _Told({}, 1.0)


def _fold(row: _Row) -> int:
    return int(sha256(f"fold {row['prompt']}".encode("utf-8", "replace")).hexdigest()[:8], 16) % _FOLDS


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
        entropy = float(-(part * np.log(part + 1e-12)).sum() / np.log(len(part)))
        found.append(_Told(dict(zip(learned.labels, map(float, part), strict=True)), entropy))
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
    area = sum((b[0] - a[0]) * ((a[1] + b[1]) / 2 - points[0][1]) for a, b in pairs)
    wanted = _WANTED * points[-1][1]
    costs = [cost for _, quality, cost in points if quality >= wanted]
    return Curve(
        apgr=area / gap,
        cpt50=_reached(pairs, points[0][1] + gap / 2),
        cpt80=_reached(pairs, points[0][1] + gap * 0.8),
        save95=1 - min(costs) / points[-1][2],
    )


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
    best = (float("inf"), min(scores))
    ordered = [float("inf"), *sorted(set(scores), reverse=True)]
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
    for one in same:
        verdict = "better than random" if one.curve.apgr > 0.5 else "no better than random"
        yield (
            f"{one.pair[0]}, {one.pair[1]} > {one.pair[2]}: APGR {one.curve.apgr:.3f}, {verdict}; the "
            f"threshold of train saves {one.saved:.0%} and keeps {one.kept:.1%} of the quality."
        )
    missed = [one for one in same if one.kept < _WANTED]
    yield (
        f"Wanted were {_WANTED:.0%} of the quality; {len(missed)} of {len(same)} thresholds kept less on "
        "the test part."
    )
    harmed = [one for one in unseen if one.curve.apgr < 0.48]
    surely = [one for one in harmed if one.curve.apgr + 2 * one.deviation < 0.48]
    yield (
        f"Of {len(unseen)} unseen rows {len(harmed)} fall below .48 with the guard ({len(surely)} by more "
        f"than two deviations), {sum(one.unguarded.apgr < 0.48 for one in unseen)} without. On prompts "
        "outside the guard the router knows nothing and is random by design: low coverage buys safety, "
        "not skill."
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
        f"prompts told by weights of other folds ({_FOLDS} folds), and is applied unchanged."
    ),
    (
        "Guard: the entropy that best tells held-out train prompts of known categories from those of "
        f"categories left out of learning (the loosest within {_ABOUT_EQUAL} of the best difference of "
        "shares); above it a prompt gets the mean gain. Type table: prior weight "
        f"20. +- is the standard deviation over {_DRAWS} bootstrap draws of the test part."
    ),
    (
        f"Unseen: categories are dealt into {_GROUPS} groups by a hash of their names; each group is left "
        "out whole. Tables of too few categories have no such row, nor those whose prompts are not there. "
        "Costs as the table has them, some estimated."
    ),
)
