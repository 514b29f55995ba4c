"""Learning a classifier's weights: a softmax over the features that the package reads off a text.

The features are the package's own (`leastwise.routing.classifier.features_of`), so training and
use cannot differ. What is learned is cut to the features that matter, rounded to a byte each and
learned once more; everything is deterministic, so that the same samples give the same bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from leastwise.features import cut
from leastwise.ladder import Complexity
from leastwise.routing.classifier import Feature, Model, features_of
from leastwise.routing.words import Scan

#: Types and the complexity each maps to at first.
TYPES: Final[Mapping[str, Complexity]] = {
    **dict.fromkeys(("classify", "extract", "convert", "lookup", "chat"), "simple"),
    **dict.fromkeys(("summarise", "translate", "rewrite", "write", "brainstorm", "question"), "standard"),
    **dict.fromkeys(("code", "math", "analyse"), "complex"),
}

#: The label of texts that are of none of the types.
UNCLEAR: Final = "unclear"

FOLDS: Final = 5
_TEST_PERCENT: Final = 30
_LARGEST: Final = 127
_PASSES: Final = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """A text of a known type, where it is from, and how much it counts."""

    text: str
    label: str
    source: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How to learn.

    Args:
        damping: Texts count by their number of features to minus this power.
        freedom: The inverse of the penalty on large weights.
        rarest: Features of fewer samples are left out.
        most: How many features are kept.
    """

    damping: float = 0.5
    freedom: float = 30.0
    rarest: int = 2
    most: int = 14_000


@dataclass(frozen=True, slots=True)
class Learned:
    """Weights by feature (rows) and label (columns), and how rare each feature is, in nats."""

    labels: tuple[str, ...]
    places: Mapping[Feature, int]
    weights: np.ndarray[Any, np.dtype[np.float64]]
    bias: np.ndarray[Any, np.dtype[np.float64]]
    rarity: np.ndarray[Any, np.dtype[np.float64]]
    damping: float

    def scores(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the scores of each text (rows) by label."""
        found: np.ndarray[Any, np.dtype[np.float64]] = (
            _matrix([read(text) for text in texts], self.places, self.damping) @ self.weights + self.bias
        )
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest label of each text."""
        return [self.labels[place] for place in self.scores(texts).argmax(axis=1)]


def draw(text: str) -> int:
    """Return a number from 0 to 99 that only the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big") % 100


def is_test(text: str) -> bool:
    """Tell whether a text belongs to the 30 % that are kept for tests."""
    return draw(text) < _TEST_PERCENT


def fold(text: str) -> int:
    """Return which of the folds a text is in."""
    return draw("fold " + text) % FOLDS


def read(text: str) -> list[Feature]:
    """Return the features of a text as the package sees it: cut to its beginning and end."""
    return features_of(Scan(cut(text)))


def _order(feature: Feature) -> tuple[int, str]:
    """Return words first, then pairs, then shapes: the order of the file."""
    if isinstance(feature, bytes):
        return 0, feature.decode()
    return (1, " ".join(part.decode() for part in feature)) if isinstance(feature, tuple) else (2, feature)


def _matrix(texts: Sequence[Sequence[Feature]], places: Mapping[Feature, int], damping: float) -> csr_matrix:
    ends, columns, values = [0], [], []
    for features in texts:
        found = sorted([places[feature] for feature in features if feature in places])
        columns += found
        values += [len(features) ** -damping] * len(found)
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(texts), len(places)))


def learn(samples: Sequence[Sample], settings: Settings) -> Learned:
    """Return the weights that samples teach."""
    texts = [read(sample.text) for sample in samples]
    counts: Counter[Feature] = Counter()
    for features in texts:
        counts.update(set(features))
    kept = sorted((f for f, count in counts.items() if count >= settings.rarest), key=_order)
    learned = _fit(samples, texts, kept, counts, settings)
    if len(kept) > settings.most:
        often = np.sqrt([min(counts[feature], 50) for feature in kept])
        worth = np.abs(learned.weights).max(axis=1) * often
        best = sorted(np.argsort(-worth, kind="stable")[: settings.most])
        learned = _fit(samples, texts, [kept[place] for place in best], counts, settings)
    return learned


def _fit(
    samples: Sequence[Sample],
    texts: Sequence[Sequence[Feature]],
    kept: Sequence[Feature],
    counts: Mapping[Feature, int],
    settings: Settings,
) -> Learned:
    places = {feature: place for place, feature in enumerate(kept)}
    model = LogisticRegression(C=settings.freedom, max_iter=_PASSES, tol=1e-4)
    labels = [sample.label for sample in samples]
    model.fit(
        _matrix(texts, places, settings.damping), labels, sample_weight=[sample.weight for sample in samples]
    )
    weights, bias = model.coef_.T, model.intercept_
    if len(bias) == 1:  # of two labels, the second over the first
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]]) / 2
    rarity = np.log((1 + len(samples)) / np.array([1 + counts[feature] for feature in kept]))
    weights = weights - weights.mean(axis=1, keepdims=True)  # only differences between labels matter
    return Learned(tuple(model.classes_), places, weights, bias, rarity, settings.damping)


def shares(scores: np.ndarray[Any, Any], warmth: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return probabilities of scores, softened by `warmth`."""
    parts = np.exp((scores - scores.max(axis=1, keepdims=True)) / warmth)
    found: np.ndarray[Any, np.dtype[np.float64]] = parts / parts.sum(axis=1, keepdims=True)
    return found


def pack(
    learned: Learned,
    types: Mapping[str, Complexity],
    warmth: float,
    *,
    most_unknown: float,
    most_entropy: float,
    target: float,
) -> bytes:
    """Return the weights file: a compressed `Model`, the same for the same weights."""
    columns = [learned.labels.index(name) for name in (*types, UNCLEAR)]
    weights = learned.weights[:, columns] / warmth
    step = float(np.abs(weights).max()) / _LARGEST
    as_bytes = (np.rint(weights / step).astype(int) + 128).clip(0, 255).astype(np.uint8)
    groups: list[list[str]] = [[], [], []]
    for feature in learned.places:
        group, name = _order(feature)
        groups[group].append(name)
    words, pairs, shapes = ("\n".join(group).encode() for group in groups)
    model = Model(
        types=dict(types),
        bias=[round(float(one), 4) for one in learned.bias[columns] / warmth],
        step=round(step, 8),
        damping=learned.damping,
        most_unknown=most_unknown,
        most_entropy=most_entropy,
        target=target,
        words=words,
        pairs=pairs,
        shapes=shapes,
        weights=as_bytes.tobytes(),
        rarity=np.rint(learned.rarity * 10).clip(0, 255).astype(np.uint8).tobytes(),
    )
    return zlib.compress(msgspec.msgpack.encode(model), 9)


def by_source(samples: Iterable[Sample]) -> dict[str, Counter[str]]:
    """Return how many samples of each label each source gave."""
    found: dict[str, Counter[str]] = {}
    for sample in samples:
        found.setdefault(sample.source, Counter())[sample.label] += 1
    return found
