"""How well the type of a task is told, and how sure "sure" is.

Three questions, each with prompts that the weights in question never saw. How good are our
features and learner: learned on 70 % of each public table and tested on the rest (split by a hash
of the text), beside TF-IDF on the same split. What do the shipped weights make of Dolly, of which
not one row was learned from. Which tier do 100 prompts written for this purpose go to, by the
classifier, by our phrases, by the reference's lists, and by the router as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measure import ROOT, Figure, Quiet, Result, Table, public_tables
from leastwise.features import Features, cut
from leastwise.ladder import COMPLEXITIES, Complexity
from leastwise.routing import Classifier, Router, load_classifier, load_words
from leastwise.routing.types import choose
from leastwise.routing.words import Scan

TIERS: Final = ROOT / "benchmarks" / "data" / "tiers.jsonl"

#: Table -> accuracy of TF-IDF and log-loss SGD as published in the project's notes, on another split.
_ANCHORS: Final[Mapping[str, float | None]] = {
    "banking77": 0.896,
    "clinc150": 0.917,
    "sms_spam": 0.987,
    "trec": 0.896,
    "sst2": 0.811,
    "dolly_task_types": 0.599,
    "prompt_task_types_benchmarks": 0.786,
    "prompt_task_types_misc": None,
}
_DOLLY: Final = "dolly_task_types"
_FEWEST_ROWS: Final = 10  # of a label, for it to be taken
_TO_TYPE: Final[Mapping[str, str]] = {
    "classification": "classify",
    "information_extraction": "extract",
    "closed_qa": "lookup",
    "open_qa": "question",
    "general_qa": "question",
    "brainstorming": "brainstorm",
    "creative_writing": "write",
    "summarization": "summarise",
}
#: Dolly's labels merged into types that a tier depends on. Its questions have no text beside them.
_MERGED: Final[Mapping[str, str]] = {
    "classification": "classify",
    "information_extraction": "extract",
    "closed_qa": "question",
    "open_qa": "question",
    "general_qa": "question",
    "brainstorming": "make",
    "creative_writing": "make",
    "summarization": "summarise",
}
_TARGETS: Final = (0.5, 0.6, 0.7, 0.8, 0.88, 0.92, 0.95, 0.98)
#: What a call costs at list prices, of what the dearest tier takes.
_PRICE: Final[Mapping[Complexity, float]] = {"simple": 0.025, "standard": 0.5, "complex": 1.0}

_Labelled = Sequence[tuple[str, str]]


def measure(_turns: int, quiet: Quiet) -> Result | None:
    """Return accuracy and coverage, or None where the data or scikit-learn is not there."""
    data = public_tables("types", trains=True)
    if data is None:
        return None
    from training.learn import is_test  # noqa: PLC0415 - an extra that only training needs

    tables = {name: _rows(Path(data, "text", f"{name}.parquet")) for name in _ANCHORS}
    learned = {name: _learned(rows) for name, rows in tables.items()}
    dolly = tables[_DOLLY]
    merged = _learned([(text, _MERGED[label]) for text, label in dolly])
    classifier = load_classifier()
    held = [(text, _TO_TYPE[label]) for text, label in dolly if is_test(text)]
    pure = _pure(classifier, held)
    arena = [(text, label) for text, label in tables["prompt_task_types_misc"] if label in ("coding", "math")]
    tiers = {name: _tiers(tell) for name, tell in _tellers().items()}
    return Result(
        name="types",
        title="Which type of task, and how sure",
        method=_METHOD,
        tables=(
            _table_of_tables(learned, merged),
            _pure_table(pure),
            _coverage(classifier, held, arena),
            _tiers_table(tiers),
            _confusion(tiers[_ROUTER]),
        ),
        figures=(
            Figure("Dolly, 8 types, accuracy", 0.599, learned[_DOLLY]["ours"][0], "", is_least=True),
            Figure("Dolly, merged types, accuracy", 0.75, merged["ours"][0], "", is_least=True),
            Figure(
                "100 prompts: complex ones sent to the cheapest tier",
                0.02,
                _hard_simple(tiers[_ROUTER]),
                "",
            ),
        ),
        reading=tuple(_reading(learned, pure, tiers)),
        packages=("scikit-learn", "numpy", "msgspec"),
        facts={"weights": classifier.digest[:12], **quiet.facts()},
    )


def _rows(path: Path) -> _Labelled:
    from training.sources import read_table  # noqa: PLC0415 - an extra that only training needs

    rows = [(row["text"], row["label"]) for row in read_table(path) if row["label"] != "oos"]
    counts: dict[str, int] = {}
    for _, label in rows:
        counts[label] = counts.get(label, 0) + 1
    return [(text, label) for text, label in rows if counts[label] >= _FEWEST_ROWS]


# --- our learner beside TF-IDF --------------------------------------------------------------------------


def _learned(rows: _Labelled) -> dict[str, tuple[float, float]]:
    """Return accuracy and macro-F1 on the test part, of ours and of TF-IDF, both learned on the rest."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - an extra
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - as above

    from training.learn import Sample, Settings, is_test, learn  # noqa: PLC0415 - as above

    train = [(text, label) for text, label in rows if not is_test(text)]
    texts, labels = zip(*[row for row in rows if is_test(row[0])], strict=True)
    settings = Settings(rarest=1, most=10**9)
    ours = learn([Sample(text, label, "") for text, label in train], settings).predict(texts)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0)
    model.fit(vectors.fit_transform([text for text, _ in train]), [label for _, label in train])
    theirs = list(model.predict(vectors.transform(texts)))
    return {
        "ours": _scores(labels, ours),
        "TF-IDF": _scores(labels, theirs),
        "rows": (len(train), len(texts)),
    }


def _scores(labels: Sequence[str], found: Sequence[str]) -> tuple[float, float]:
    """Return accuracy and macro-F1."""
    pairs = list(zip(labels, found, strict=True))
    parts = []
    for label in set(labels):
        both = sum(true == label == one for true, one in pairs)
        either = sum(true == label for true, _ in pairs) + sum(one == label for _, one in pairs)
        parts.append(2 * both / either)
    return sum(true == one for true, one in pairs) / len(pairs), sum(parts) / len(parts)


def _table_of_tables(
    learned: Mapping[str, Mapping[str, tuple[float, float]]], merged: Mapping[str, tuple[float, float]]
) -> Table:
    rows = []
    for name, found in [*learned.items(), ("dolly_task_types, merged", merged)]:
        anchor = _ANCHORS.get(name)
        (ours, ours_f1), (theirs, theirs_f1) = found["ours"], found["TF-IDF"]
        train, test = (int(number) for number in found["rows"])
        rows.append(
            (
                name,
                f"{train:,} / {test:,}",
                f"{ours:.3f}",
                f"{ours_f1:.3f}",
                f"{theirs:.3f}",
                f"{theirs_f1:.3f}",
                "-" if anchor is None else f"{anchor:.3f}",
            )
        )
    head = ("table", "learned / tested", "ours", "macro-F1", "TF-IDF here", "macro-F1", "TF-IDF, other split")
    return Table("Learned on 70 %, tested on 30 %: accuracy", head, tuple(rows))


# --- the shipped weights on prompts of another origin ---------------------------------------------------


def _pure(classifier: Classifier, held: _Labelled) -> dict[str, tuple[float, float]]:
    """Return accuracy and macro-F1 of the shipped weights, by type and by merged type."""
    names = list(classifier.types)
    found = []
    for text, _ in held:
        shares = classifier.guess(Scan(cut(text))).shares
        found.append(names[shares.index(max(shares))])
    labels = [label for _, label in held]
    merge = {"lookup": "question", "brainstorm": "make", "write": "make"}
    by_merged = _scores([merge.get(x, x) for x in labels], [merge.get(x, x) for x in found])
    return {"types": _scores(labels, found), "merged": by_merged}


def _pure_table(pure: Mapping[str, tuple[float, float]]) -> Table:
    rows = tuple((name, f"{accuracy:.3f}", f"{f1:.3f}") for name, (accuracy, f1) in pure.items())
    return Table(
        "The shipped weights on Dolly's test part, none of it learned from",
        ("", "accuracy", "macro-F1"),
        rows,
    )


def _coverage(classifier: Classifier, held: _Labelled, arena: _Labelled) -> Table:
    """Return what is decided and how much of that is right, by the quality wanted."""
    router = Router()
    columns = router.teller.table.columns(tuple(classifier.types))
    rows = []
    for target in _TARGETS:
        made = [(classifier.types[label], _rank(classifier, text, columns, target)) for text, label in held]
        sure = [(COMPLEXITIES.index(true), rank) for true, rank in made if rank is not None]
        hard = [_rank(classifier, text, columns, target) for text, _ in arena]
        shipped = " (shipped)" if target == classifier.target else ""
        rows.append(
            (
                f"{target:.2f}{shipped}",
                f"{len(sure) / len(made):.1%}",
                f"{sum(true == rank for true, rank in sure) / max(1, len(sure)):.1%}",
                f"{sum(true > rank for true, rank in sure) / max(1, len(sure)):.1%}",
                f"{sum(rank is not None for rank in hard) / len(hard):.1%}",
                f"{sum(rank == 0 for rank in hard) / len(hard):.1%}",
                f"{sum(rank == 1 for rank in hard) / len(hard):.1%}",
            )
        )
    head = (
        "quality wanted",
        "Dolly: decided",
        "of it right tier",
        "too cheap",
        f"{len(arena)} hard coding and math asks: decided",
        "to haiku",
        "to sonnet",
    )
    return Table("Coverage against accuracy: the shipped weights, prompts of other origin", head, tuple(rows))


def _rank(classifier: Classifier, text: str, columns: Sequence[Sequence[float]], target: float) -> int | None:
    guess = classifier.guess(Scan(cut(text)))
    choice = choose(guess.shares, columns, target) if classifier.is_clear(guess) else None
    return None if choice is None else choice.rank


# --- 100 prompts with a tier ----------------------------------------------------------------------------

_ROUTER: Final = "router: phrases, then classifier"
#: How many prompts of a complexity (first) were taken for another (second); None is unsure.
_Confusion = dict[tuple[Complexity, Complexity | None], int]


def _tellers() -> dict[str, Callable[[str], Complexity | None]]:
    """Return what tells a complexity, by name."""
    words, classifier, router = load_words(), load_classifier(), Router()
    columns = router.teller.table.columns(tuple(classifier.types))

    def by_classifier(text: str) -> Complexity | None:
        rank = _rank(classifier, text, columns, classifier.target)
        return None if rank is None else COMPLEXITIES[rank]

    def by_phrases(text: str) -> Complexity | None:
        found = words.predict(Features(fresh_ask=text), None, Scan(cut(text)))
        return None if found is None else found.complexity

    def by_reference(text: str) -> Complexity | None:
        found = words.predict_reference(None, Scan(cut(text)))
        return None if found is None else found.complexity

    def by_router(text: str) -> Complexity | None:
        decision = router.decide(text)
        return decision.complexity if decision.is_sure else None

    return {
        "reference's lists": by_reference,
        "our phrases": by_phrases,
        "classifier": by_classifier,
        _ROUTER: by_router,
    }


def _tiers(tell: Callable[[str], Complexity | None]) -> _Confusion:
    found: _Confusion = {}
    for line in TIERS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = (row["complexity"], tell(row["text"]))
        found[key] = found.get(key, 0) + 1
    return found


def _tiers_table(tiers: Mapping[str, _Confusion]) -> Table:
    rows: list[tuple[object, ...]] = []
    for name, found in tiers.items():
        total = sum(found.values())
        sure = {key: count for key, count in found.items() if key[1] is not None}
        right = sum(count for (true, told), count in found.items() if true == told)
        cheap = sum(
            count
            for (true, told), count in sure.items()
            if told is not None and COMPLEXITIES.index(told) < COMPLEXITIES.index(true)
        )
        with_top = right + sum(
            count for (true, told), count in found.items() if (true, told) == ("complex", None)
        )
        cost = sum(_PRICE[told or "complex"] * count for (_, told), count in found.items()) / total
        rows.append(
            (
                name,
                f"{sum(sure.values()) / total:.0%}",
                f"{right / max(1, sum(sure.values())):.0%}",
                f"{with_top / total:.0%}",
                f"{cheap}",
                f"{_hard_simple(found):.0%}",
                f"{cost:.2f}",
            )
        )
    rows.append(("LiteLLM's free heuristic, as published", "-", "-", "45%", "-", "-", "-"))
    rows.append(("LiteLLM's best small LLM, as published", "-", "-", "65%", "-", "-", "-"))
    head = (
        "",
        "decided",
        "of it right",
        "right, unsure = top tier",
        "too cheap",
        "complex sent to haiku",
        "cost, of always top",
    )
    return Table("100 prompts written for this, a third each simple, standard, complex", head, tuple(rows))


def _hard_simple(found: _Confusion) -> float:
    hard = sum(count for (true, _), count in found.items() if true == "complex")
    return found.get(("complex", "simple"), 0) / hard


def _confusion(found: _Confusion) -> Table:
    told: tuple[Complexity | None, ...] = (*COMPLEXITIES, None)
    rows = tuple((true, *(found.get((true, one), 0) for one in told)) for true in COMPLEXITIES)
    return Table(f"The same 100, {_ROUTER}", ("is", *(f"taken for {one or 'unsure'}" for one in told)), rows)


def _reading(
    learned: Mapping[str, Mapping[str, tuple[float, float]]],
    pure: Mapping[str, tuple[float, float]],
    tiers: Mapping[str, _Confusion],
) -> Iterator[str]:
    lost = [name for name, found in learned.items() if found["ours"][0] < found["TF-IDF"][0]]
    yield (
        "Our features and learner lose to TF-IDF on the same split on "
        f"{', '.join(lost) or 'none of the tables'}, and win on the others."
    )
    yield (
        f"Pure transfer to Dolly reaches {pure['types'][0]:.3f} over types and {pure['merged'][0]:.3f} over "
        f"merged ones; learned on Dolly itself it is {learned[_DOLLY]['ours'][0]:.3f}. Dolly's labels "
        "overlap (the same question is open, general or closed there), so nobody gets far above 0.65. Some "
        "of our short prompts were worded with its kinds of instruction in mind, though none is from it."
    )
    found = tiers[_ROUTER]
    wrong = found.get(("complex", "simple"), 0)
    yield f"Of the complex ones among the 100 prompts, {wrong} went to the cheapest tier by the whole router."
    yield (
        "Right tier means the tier its author gave a prompt, not a measured answer: a cheaper one might "
        "have done, a dearer one might have failed. LiteLLM's figures are from its own prompts."
    )


_METHOD: Final = (
    (
        "Split by the SHA-256 of the text, 30 % tested. Ours: the package's features and the softmax of "
        "`training/learn.py`; TF-IDF: words and pairs, log-loss SGD, as in the published anchors. Labels of "
        f"fewer than {_FEWEST_ROWS} rows and clinc150's `oos` are left out."
    ),
    (
        "Merged: classification; extraction; questions (open, general, closed); made texts (creative "
        "writing, brainstorming); summarization. Right tier: the one that the label's type maps to."
    ),
    "Hard asks: `coding` and `math` of Arena-Hard 2, of which no row was learned from either.",
    (
        "The 100 prompts (`benchmarks/data/tiers.jsonl`) are our own, were written by somebody else than "
        "the classifier, and were neither learned from nor tuned to. Cost: share of always asking the top "
        "tier at equal tokens, unsure counted as top."
    ),
)
