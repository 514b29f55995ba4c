"""The learned classifier: which type of task an ask is, from its words, pairs of words and shape.

A linear softmax. Every feature has one weight for each type; the weights of the features that
an ask has are added up, damped by how many features it has, and made into shares that sum to 1.
The model is a file of the package, made by `training/train.py` and described beside it in
`types-provenance.toml`. What the shares mean for a tier is not decided here but by `types`.

It has to be fast in plain Python, so nothing loops over features in Python: the weights of one
feature stand in lanes of one large integer, so that `sum` adds up all types at once, and words
and pairs of words are looked up by `map`. Features are kept under their own names, not as hash
buckets: a dict hashes them anyway, none collide, and `explain` can say which ones spoke.

Unsure is an answer. What is none of the types ("the second one", a text with nothing asked) has a
share of its own, which no tier is expected to serve. Where an ask has words that training never
saw, or its shares are spread over many types, they mean little and `is_clear` says so; the limits
are fitted on held-out asks, those of other domains and such without a type among them.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import chain, pairwise, repeat
from operator import mul
from typing import Final

import msgspec

from leastwise.ladder import Complexity
from leastwise.routing.words import Scan

#: A word, two words in a row, or the name of something about the text's shape.
Feature = bytes | tuple[bytes, bytes] | str

#: Stand before the first word of the text, before that of its last line, and before a word's beginning.
START, LAST_LINE, STEM = b"^", b"$", b"~"

#: Stands for "none of the types" where pushes are explained.
NONE: Final = "none"

#: Where instructions stand; pairs and stems are looked for only there.
_HEAD_WORDS, _TAIL_WORDS = 24, 16
_STEM_LETTERS: Final = 4
_LANE_BYTES: Final = 4
_ZERO: Final = 128  # a weight is stored as a byte above 0
_DIGITS: Final = b"0123456789"
_MOST_BITS, _MOST_LINES, _MOST_TENTHS = 11, 5, 3

#: What is looked for in the text as it stands, and the name of what it shows.
_SHAPES: Final = (
    ("```", "code fence"),
    ("\n    ", "indented lines"),
    ("\n- ", "list"),
    ("\n1. ", "numbered list"),
    (":\n", "colon at the end of a line"),
    (": ", "colon"),
    ('"', "quotes"),
    ("{", "braces"),
    ("()", "call"),
    (");", "statement"),
    ("</", "markup"),
    ("=", "equals"),
    ("$", "dollar"),
    ("%", "percent"),
    ("^", "power"),
    ("+", "plus"),
    ("\\", "backslash"),
    ("@", "at sign"),
    ("!", "exclamation mark"),
    ("->", "arrow"),
    ("\nB", "options"),
    ("?", "question mark"),
)
#: The same behind one character of each, which is found many times faster than two.
_MARKS: Final = tuple((mark.strip()[:1] or mark[0], mark, name) for mark, name in _SHAPES)


class Guess(msgspec.Struct, frozen=True):
    """What the classifier makes of an ask.

    Attributes:
        shares: Probability of each type, in the order of `Classifier.types`; what is missing to 1 is
            the probability that it is none of them.
        unknown: Share of the ask's words that the model does not know, 0 to 1.
        entropy: How evenly the probability is spread, 0 for one type, 1 for all and none alike.
    """

    shares: tuple[float, ...]
    unknown: float
    entropy: float


class Model(msgspec.Struct, frozen=True):
    """What the weights file holds.

    Attributes:
        types: The types, each with the complexity it maps to at first.
        bias: What each type has without any feature, and at the end what "none of them" has.
        step: What one step of a weight's byte is worth.
        damping: The sum is divided by the number of features to this power.
        most_unknown: Above this share of unknown words a guess is not clear.
        most_entropy: Above this entropy a guess is not clear.
        target: The quality that a tier must be expected to reach, unless configured.
        words: Single words, parted by line feeds.
        pairs: Two words with a blank between, parted by line feeds.
        shapes: Names of shapes, parted by line feeds.
        weights: A byte for each type of each feature, and one for none, in the order words, pairs, shapes.
        rarity: A byte for each feature: how rare it is, a tenth of a nat each (idf).
    """

    types: dict[str, Complexity]
    bias: list[float]
    step: float
    damping: float
    most_unknown: float
    most_entropy: float
    target: float
    words: bytes
    pairs: bytes
    shapes: bytes
    weights: bytes
    rarity: bytes

    @property
    def features(self) -> list[Feature]:
        """All features, in the order of their weights."""
        halves = iter(self.pairs.replace(b"\n", b" ").split(b" "))
        pairs = zip(halves, halves, strict=True)
        return [*self.words.split(b"\n"), *pairs, *self.shapes.decode().split("\n")]


_model: Final = msgspec.msgpack.Decoder(Model).decode


class Classifier:
    """Tells the type of an ask.

    Args:
        packed: A compressed `Model`, as in `data/types.bin`.

    Attributes:
        types: The types it knows, each with the complexity it maps to at first.
        digest: Names these very weights; part of the policy's hash.
        target: The quality a tier must be expected to reach, as calibrated.
    """

    def __init__(self, packed: bytes) -> None:
        model = _model(zlib.decompress(packed))
        self.digest = sha256(packed).hexdigest()
        self.types: Mapping[str, Complexity] = model.types
        self.target = model.target
        self._names = (*model.types, NONE)
        self._bias, self._step, self._damping = model.bias, model.step, model.damping
        self._most_unknown, self._most_entropy = model.most_unknown, model.most_entropy
        self._evenest = math.log(len(self._names))
        self._lanes = struct.Struct(f"<{len(self._names) + 2}I")
        self._packed = _pack(model, len(self._names))
        self._model = model

    def guess(self, scan: Scan) -> Guess:
        """Return what `scan` looks like; without a single word, all types alike."""
        words, found = scan.words, features_of(scan)
        total = sum(filter(None, map(self._packed.get, found)))
        *sums, known_words, known = self._lanes.unpack(total.to_bytes(self._lanes.size, "little"))
        scale, zero = self._step / len(found) ** self._damping, _ZERO * known
        scores = [bias + scale * (one - zero) for bias, one in zip(self._bias, sums, strict=True)]
        top = max(scores)
        parts = [math.exp(score - top) for score in scores]
        whole = sum(parts)
        shares = tuple([part / whole for part in parts])
        # The entropy: the mean of -log(share), which is log(whole) - (score - top).
        spread = (math.log(whole) + top - sum(map(mul, shares, scores))) / self._evenest
        return Guess(shares[:-1], 1 - known_words / len(words) if words else 1.0, spread)

    def is_clear(self, guess: Guess) -> bool:
        """Tell whether the shares mean something (see the module)."""
        return not self.why_unclear(guess)

    def why_unclear(self, guess: Guess) -> str:
        """Return in words why a guess is not clear, "" for one that is."""
        if guess.unknown > self._most_unknown:
            return f"{guess.unknown:.0%} of the words are unknown (over {self._most_unknown:.0%})"
        if guess.entropy > self._most_entropy:
            return f"spread over the types by {guess.entropy:.2f} (over {self._most_entropy:.2f})"
        return ""

    def explain(self, scan: Scan) -> list[tuple[str, dict[str, float]]]:
        """Return what pushes `scan` how far towards each type: each known feature, and what every text has.

        The strongest first. Their sums are the logarithms of the shares, but for a constant.
        """
        found = features_of(scan)
        scale = self._step / len(found) ** self._damping
        pushes = {"<any text>": dict(zip(self._names, self._bias, strict=True))}
        for feature in found:
            if packed := self._packed.get(feature):
                sums = self._lanes.unpack(packed.to_bytes(self._lanes.size, "little"))
                of_type = pushes.setdefault(_shown(feature), dict.fromkeys(self._names, 0.0))
                for name, one in zip(self._names, sums, strict=False):
                    of_type[name] += scale * (one - _ZERO)
        return sorted(pushes.items(), key=lambda item: (-max(map(abs, item[1].values())), item[0]))

    def rarity(self) -> dict[Feature, float]:
        """Return how rare each feature is, in nats (idf)."""
        return {
            feature: rare / 10 for feature, rare in zip(self._model.features, self._model.rarity, strict=True)
        }


def _pack(model: Model, width: int) -> dict[Feature, int]:
    """Return each feature's weights as lanes of one integer; two more lanes count words and features."""
    features = model.features
    lanes = width + 2
    size = lanes * _LANE_BYTES
    spread = bytearray(size * len(features))
    for lane in range(width):
        spread[lane * _LANE_BYTES :: size] = model.weights[lane::width]
    words = model.words.count(b"\n") + 1
    spread[width * _LANE_BYTES : size * words : size] = b"\x01" * words
    spread[(width + 1) * _LANE_BYTES :: size] = b"\x01" * len(features)
    whole = int.from_bytes
    return {
        feature: whole(spread[place : place + size], "little")
        for feature, place in zip(features, range(0, len(spread), size), strict=True)
    }


def features_of(scan: Scan) -> list[Feature]:
    """Return every feature of a text, known or not: its words once each, pairs, stems, shapes."""
    words = scan.sequence
    if len(words) > _HEAD_WORDS + _TAIL_WORDS:
        head, tail = words[:_HEAD_WORDS], words[-_TAIL_WORDS:]
        pairs: Iterable[Feature] = chain(zip([START, *head], head, strict=False), pairwise(tail))
        words = head + tail
    else:
        pairs = zip([START, *words], words, strict=False)
    stems = zip(repeat(STEM), {word[:_STEM_LETTERS] for word in words}, strict=False)
    return [*scan.words, *pairs, *stems, *shapes_of(scan)]


def shapes_of(scan: Scan) -> list[Feature]:
    """Return the names of what a text looks like, whatever it says."""
    text = scan.text
    found: list[Feature] = [name for sign, mark, name in _MARKS if sign in text and mark in text]
    found.append(f"length {min(len(text).bit_length(), _MOST_BITS)}")
    if text.endswith("?"):
        found.append("question mark at the end")
    lines = text.count("\n")
    if lines:
        found.append(f"lines {min(lines.bit_length(), _MOST_LINES)}")
        last = text[text.rfind("\n") + 1 :].split(None, 1)
        if last and last[0].isalpha():
            found.append((LAST_LINE, last[0].casefold().encode()))
    letters = b"".join(scan.sequence)
    tenths = 10 * (len(letters) - len(letters.translate(None, _DIGITS))) // (len(letters) or 1)
    if tenths:
        found.append(f"digits {min(tenths, _MOST_TENTHS)}")
    if not scan.is_ascii:
        plain = len(text.encode("ascii", "ignore"))
        found.append("mostly not ASCII" if 2 * plain < len(text) else "not all ASCII")
    return found


def _shown(feature: Feature) -> str:
    if isinstance(feature, str):
        return f"<{feature}>"
    if isinstance(feature, bytes):
        return feature.decode()
    first, second = (word.decode() for word in feature)
    marks = {"^": f"first word: {second}", "$": f"last line: {second}", "~": f"{second}..."}
    return marks.get(first, f"{first} {second}")


@cache
def load_classifier() -> Classifier:
    """Return the classifier of the package's `data/types.bin`."""
    return Classifier(files("leastwise").joinpath("data/types.bin").read_bytes())
