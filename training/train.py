"""Make the shipped classifier: `python -m training.train --data FOLDER`.

Writes `src/leastwise/data/types.bin` and, beside it, `types-provenance.toml`: what it was learned
from, under which licences, and the digest of the weights. The same data give the same bytes.

How sure a guess must be is fitted on asks that the weights in question were not learned from: our
own prompts, each fold judged by the weights of the others; our prompts that have no type; and
public tables of another domain, which are left out of those weights as a whole.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from leastwise.features import cut
from leastwise.ladder import COMPLEXITIES
from leastwise.routing.classifier import Classifier
from leastwise.routing.types import choose
from leastwise.routing.words import Scan
from training import sources
from training.learn import FOLDS, TYPES, Learned, Sample, Settings, by_source, fold, learn, pack, shares

DATA_FILES: Final = Path(__file__).resolve().parent.parent / "src" / "leastwise" / "data"
WEIGHTS: Final = "types.bin"
PROVENANCE: Final = "types-provenance.toml"

SETTINGS: Final = Settings()
_WARMTHS: Final = tuple(step / 20 for step in range(6, 50))
_TARGETS: Final = tuple(step / 100 for step in range(70, 98, 2))
_ENTROPIES: Final = tuple(step / 100 for step in range(50, 101, 5))
#: Not lower: of a short ask a name or two are unknown, and mean nothing.
_UNKNOWNS: Final = tuple(step / 100 for step in range(50, 101, 10))
#: What may go wrong, as shares: complex asks of ours, and of other domains, sent to the cheapest
#: tier; asks without a type sent below the top; and of what is decided, the part that is too cheap.
#: A tenth of our complex asks are worded like simple ones, which few are that people send.
_MOST_HARD_SIMPLE, _MOST_UNCLEAR_CHEAP, _MOST_TOO_CHEAP = 0.01, 0.15, 0.015


@dataclass(frozen=True, slots=True)
class Held:
    """An ask that was held out: its shares by type, what it has unknown, and its true complexity."""

    shares: tuple[float, ...]
    unknown: float
    entropy: float
    rank: int | None


def main() -> int:
    """Run what the command line says; return 0."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with text/ and routing/")
    parser.add_argument("--out", type=Path, default=DATA_FILES, help="folder of the two files")
    options = parser.parse_args()
    packed, samples = train(options.data)
    (options.out / WEIGHTS).write_bytes(packed)
    (options.out / PROVENANCE).write_text(provenance(packed, samples), encoding="utf-8")
    say(f"{options.out / WEIGHTS}: {len(packed):,} bytes")
    return 0


def train(data: Path) -> tuple[bytes, list[Sample]]:
    """Return the weights file, and the samples that it was learned from."""
    own, public = sources.own(), sources.public(data)
    whole = [*own, *public, *sources.pasted(own, data)]
    held: list[tuple[Learned, list[Sample]]] = []
    for number in range(FOLDS):
        kept = [sample for sample in own if fold(sample.text) != number]
        learned = learn([*kept, *public, *sources.pasted(kept, data)], SETTINGS)
        held.append((learned, [sample for sample in own if fold(sample.text) == number]))
        say(f"fold {number + 1} of {FOLDS} learned")
    warmth = fit_warmth(held)
    foreign = learn([*own, *sources.pasted(own, data)], SETTINGS)
    far = [sample for sample in public if sample.source != "clinc150"]
    learned = learn(whole, SETTINGS)
    asks = [one for weights, samples in held for one in judged(weights, samples, warmth)]
    typed, rest = ([one for one in asks if (one.rank is None) is is_unclear] for is_unclear in (False, True))
    limits = calibrate(typed, judged(foreign, far, warmth), rest)
    packed = pack(learned, TYPES, warmth, **limits)
    say(f"warmth {warmth}, {limits}, {len(learned.places):,} features, {len(whole):,} samples")
    return packed, whole


def fit_warmth(held: Sequence[tuple[Learned, Sequence[Sample]]]) -> float:
    """Return the divisor of scores under which held-out asks are likeliest."""

    def loss(warmth: float) -> float:
        total = 0.0
        for learned, samples in held:
            found = shares(learned.scores([sample.text for sample in samples]), warmth)
            places = [learned.labels.index(sample.label) for sample in samples]
            total -= float(np.log(found[range(len(samples)), places] + 1e-12).sum())
        return total

    return min(_WARMTHS, key=loss)


def judged(learned: Learned, samples: Sequence[Sample], warmth: float) -> list[Held]:
    """Return what a classifier of these weights makes of samples."""
    classifier = Classifier(pack(learned, TYPES, warmth, most_unknown=1.0, most_entropy=1.0, target=1.0))
    found = []
    for sample in samples:
        guess = classifier.guess(Scan(cut(sample.text)))
        rank = COMPLEXITIES.index(TYPES[sample.label]) if sample.label in TYPES else None
        found.append(Held(guess.shares, guess.unknown, guess.entropy, rank))
    return found


def calibrate(own: Sequence[Held], far: Sequence[Held], unclear: Sequence[Held]) -> dict[str, float]:
    """Return the limits under which most of our own asks are decided and little goes wrong.

    Args:
        own: Held-out prompts of ours.
        far: Asks of domains that were not learned from.
        unclear: Asks without a type.
    """
    best: tuple[float, dict[str, float]] | None = None
    for target in _TARGETS:
        ranks = [[decided(one, target) for one in group] for group in (own, far, unclear)]
        for most_entropy in _ENTROPIES:
            for most_unknown in _UNKNOWNS:
                limits = {"target": target, "most_entropy": most_entropy, "most_unknown": most_unknown}
                kept = [
                    [
                        rank if one.unknown <= most_unknown and one.entropy <= most_entropy else None
                        for one, rank in zip(group, of_group, strict=True)
                    ]
                    for group, of_group in zip((own, far, unclear), ranks, strict=True)
                ]
                worth = _worth(own, kept[0], far, kept[1], kept[2])
                if worth is not None and (best is None or worth > best[0]):
                    best = worth, limits
    assert best is not None, "no limits keep what may go wrong within what is allowed"
    return best[1]


def decided(one: Held, target: float) -> int | None:
    """Return the rank of the tier that an ask goes to on a ladder of three, or None where unsure."""
    choice = choose(one.shares, COLUMNS, target)
    return None if choice is None else choice.rank


def _worth(
    own: Sequence[Held],
    own_ranks: Sequence[int | None],
    far: Sequence[Held],
    far_ranks: Sequence[int | None],
    unclear_ranks: Sequence[int | None],
) -> float | None:
    """Return what is saved, as a share of what could be; None where too much goes wrong."""
    top = len(COMPLEXITIES) - 1
    for asks, ranks in ((own, own_ranks), (far, far_ranks)):
        hard = [rank for one, rank in zip(asks, ranks, strict=True) if one.rank == top]
        if sum(rank == 0 for rank in hard) > _MOST_HARD_SIMPLE * len(hard):
            return None
    cheap = sum(rank is not None and rank < top for rank in unclear_ranks)
    if cheap > _MOST_UNCLEAR_CHEAP * len(unclear_ranks):
        return None
    sure = [(one.rank, rank) for one, rank in zip(own, own_ranks, strict=True) if rank is not None]
    if sum(rank < true for true, rank in sure if true is not None) > _MOST_TOO_CHEAP * len(sure):
        return None
    # On the default ladder the middle tier saves half, the lowest nearly all.
    return sum((0.0, 0.5, 0.975)[top - rank] for _, rank in sure) / len(own)


def _columns() -> list[tuple[float, ...]]:
    needs = [COMPLEXITIES.index(complexity) for complexity in TYPES.values()]
    return [tuple(float(rank >= need) for need in needs) for rank in range(len(COMPLEXITIES))]


COLUMNS: Final = _columns()


def provenance(packed: bytes, samples: Sequence[Sample]) -> str:
    """Return the page that says what the weights were learned from."""
    counts = by_source(samples)
    lines = [
        "# What the weights in types.bin were learned from. Written by training/train.py.",
        "",
        f'file = "{WEIGHTS}"',
        f"bytes = {len(packed)}",
        f'sha256 = "{hashlib.sha256(packed).hexdigest()}"',
        f"learned_on = {_learned_on(packed)}",
        f"samples = {sum(count.total() for count in counts.values())}",
        f"folds = {FOLDS}  # by a hash of the text, for calibration; the weights are of all samples",
    ]
    for name, count in counts.items():
        licence, origin = _FACTS[name]
        lines += ["", "[[source]]", f'name = "{name}"', f'licence = "{licence}"', f'origin = "{origin}"']
        lines += [f"{label} = {number}" for label, number in sorted(count.items())]
    for table in sources.PASTED:
        lines += ["", "[[pasted]]  # below instructions of ours, and alone: without a type"]
        lines += [f'name = "{table.name}"', f'licence = "{table.licence}"', f'origin = "{table.origin}"']
        lines += [f"at_most = {table.most}"]
    return "\n".join(lines) + "\n"


_PASTED: Final = " AND ".join(sorted({table.licence for table in sources.PASTED}))
#: Licence and origin of each source of samples.
_FACTS: Final[Mapping[str, tuple[str, str]]] = {
    **{table.name: (table.licence, table.origin) for table in sources.TABLES},
    "own": ("Apache-2.0", "training/prompts of this project"),
    sources.JOINED: (f"Apache-2.0 AND {_PASTED}", "training/prompts of this project, and what is pasted"),
    sources.ALONE: (_PASTED, "what is pasted"),
}


def _learned_on(packed: bytes) -> date:
    """Return today, or the day that is written down where the weights are the same as then."""
    try:
        before: dict[str, Any] = tomllib.loads((DATA_FILES / PROVENANCE).read_text("utf-8"))
    except FileNotFoundError:
        return date.today()  # noqa: DTZ011 - the day here, for a reader
    is_same = before["sha256"] == hashlib.sha256(packed).hexdigest()
    day: date = before["learned_on"]
    return day if is_same else date.today()  # noqa: DTZ011 - as above


def say(text: str) -> None:
    """Talk, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
