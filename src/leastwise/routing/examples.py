"""The user's own types of task, each known by a few examples.

An ask belongs to a type when it is near to what its examples have in common: their centroid,
over words and pairs of words that count the more the rarer they are. How near is near enough
each type tells itself, by how near each of its examples is to the others; and never below a
floor, so that examples without anything in common do not let everything in.

The factors are measured on 30 intents of a public table taken for own types, ten examples each:
three in four further asks of an intent are accepted, one in 150 of the other 149 intents, one in
2,000 asks of other kinds. Of 77 intents of one bank, which are much alike, one in 20 of the others
is: examples that have little in common let in their neighbours (`route --explain` tells how near).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from leastwise.routing.classifier import STEM, Feature, features_of
from leastwise.routing.types import OwnType
from leastwise.routing.words import Scan

_OF_MEDIAN: Final = 0.6
_FLOOR: Final = 0.15
_PAIR_WEIGHT: Final = 0.5

_Vector = dict[Feature, float]


class Examples:
    """The user's own types, ready to be compared with.

    Args:
        types: As configured.
        rarity: How rare each feature is; one that is not in it is the rarest (`Classifier.rarity`).
    """

    def __init__(self, types: Sequence[OwnType], rarity: Mapping[Feature, float]) -> None:
        self._rarity = rarity
        self._rarest = max(rarity.values(), default=1.0)
        self._types = [(each, *self._learn(each)) for each in types]
        self._words = frozenset(f for _, near, _ in self._types for f in near if isinstance(f, bytes))

    def _learn(self, each: OwnType) -> tuple[_Vector, float]:
        """Return the type's centroid, and how near is near enough."""
        vectors = [self._vector(Scan(example)) for example in each.examples]
        alone = [
            _dot(vector, _centroid(vectors[:place] + vectors[place + 1 :]))
            for place, vector in enumerate(vectors)
        ]
        return _centroid(vectors), max(_FLOOR, _OF_MEDIAN * median(alone))

    def _vector(self, scan: Scan) -> _Vector:
        """Return the words and pairs of a text as a vector of length 1."""
        get, rarest = self._rarity.get, self._rarest
        found: _Vector = {
            feature: get(feature, rarest) * (1.0 if isinstance(feature, bytes) else _PAIR_WEIGHT)
            for feature in features_of(scan)
            if isinstance(feature, bytes) or (isinstance(feature, tuple) and feature[0] != STEM)
        }
        return _scaled(found)

    def find(self, scan: Scan) -> OwnType | None:
        """Return the nearest type that `scan` is near enough to, or None."""
        if self._words.isdisjoint(scan.words):
            return None
        vector = self._vector(scan)
        best, most = None, 0.0
        for each, centroid, least in self._types:
            near = _dot(vector, centroid)
            if near >= least and near > most:
                best, most = each, near
        return best

    def nearness(self, scan: Scan) -> dict[str, tuple[float, float]]:
        """Return how near `scan` is to each type, and how near is near enough; the nearest first."""
        vector = self._vector(scan)
        found = {each.name: (_dot(vector, centroid), least) for each, centroid, least in self._types}
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _scaled(vector: _Vector) -> _Vector:
    length = math.sqrt(math.fsum(value * value for value in vector.values())) or 1.0
    return {feature: value / length for feature, value in vector.items()}


def _centroid(vectors: Sequence[_Vector]) -> _Vector:
    whole: _Vector = {}
    for vector in vectors:
        for feature, value in vector.items():
            whole[feature] = whole.get(feature, 0.0) + value
    return _scaled(whole)


def _dot(one: _Vector, other: _Vector) -> float:
    return math.fsum(value * other[feature] for feature, value in one.items() if feature in other)
