"""The type table: how good each tier is expected to be at each type of task.

It begins as a mapping: a tier at or above the one that a type's complexity names is taken to
do (quality 1), one below is not (quality 0). Such a quality is *assumed*. Seen outcomes are set
against it as if the assumption were twenty outcomes itself (`blended`), so that a few lucky
answers move nothing.

A tier is chosen by what is expected of it over all types that an ask may be: the cheapest whose
expected quality reaches the target. Where only the dearest does, and it is not clear either that
the one below would fail, nothing is decided: that is *unsure*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final, NamedTuple

from leastwise.errors import ConfigError
from leastwise.ladder import COMPLEXITIES, Complexity

#: How many outcomes an assumed quality weighs.
PRIOR_WEIGHT: Final = 20

#: The dearest tier is chosen where the one below is expected to do with less than this.
UNLIKELY: Final = 0.3
_FEWEST_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class OwnType:
    """One [[type]]: a type of task of the user's own, known by examples.

    Args:
        name: What reports call it; a shipped type of that name is replaced.
        examples: Asks or descriptions of this type, at least three; five to twenty are good.
        complexity: What it needs.
        tier: The tier that does it, instead of a complexity.
    """

    name: str
    examples: tuple[str, ...]
    complexity: Complexity | None = None
    tier: str | None = None

    def __post_init__(self) -> None:
        """Refuse a type without a name, enough examples, or exactly one choice.

        Raises:
            ConfigError: says which.
        """
        if not self.name.strip():
            message = "[[type]] name is empty"
            raise ConfigError(message)
        if len({" ".join(example.casefold().split()) for example in self.examples} - {""}) < _FEWEST_EXAMPLES:
            message = f"[[type]] {self.name}: give at least {_FEWEST_EXAMPLES} different examples, better ten"
            raise ConfigError(message)
        if (self.complexity is None) == (self.tier is None):
            message = f"[[type]] {self.name}: give either complexity or tier"
            raise ConfigError(message)
        if self.complexity is not None and self.complexity not in COMPLEXITIES:
            message = (
                f"[[type]] {self.name}: complexity = {self.complexity!r}: "
                f"expected one of {', '.join(COMPLEXITIES)}"
            )
            raise ConfigError(message)


class Choice(NamedTuple):
    """A tier by its rank on the ladder, and the quality expected of it; of the top, that the next fails."""

    rank: int
    quality: float


class TypeTable:
    """Quality by type and tier.

    Args:
        tiers: Names of the ladder's tiers, cheap to dear.
        needs: The tier that each type is mapped to.
        seen: Outcomes by type and tier: how many, and their mean quality, 0 to 1.

    Attributes:
        tiers: As given.
        needs: As given.
        seen: As given.
    """

    def __init__(
        self,
        tiers: Sequence[str],
        needs: Mapping[str, str],
        seen: Mapping[tuple[str, str], tuple[int, float]] | None = None,
    ) -> None:
        self.tiers = tuple(tiers)
        self.needs = dict(needs)
        self.seen = dict(seen or {})
        self._quality: dict[str, list[float]] = {}
        for name, tier in needs.items():
            row = [float(rank >= self.tiers.index(tier)) for rank in range(len(self.tiers))]
            for rank, at in enumerate(self.tiers):
                if (name, at) in self.seen:
                    row[rank] = blended(row[rank], *self.seen[name, at])
            self._quality[name] = row

    def quality(self, name: str, tier: str) -> float:
        """Return what is expected of `tier` at tasks of type `name`, 0 to 1."""
        return self._quality[name][self.tiers.index(tier)]

    def columns(self, names: Sequence[str]) -> list[tuple[float, ...]]:
        """Return the qualities of these types, in their order, for each tier."""
        return [tuple(self._quality[name][rank] for name in names) for rank in range(len(self.tiers))]


def blended(prior: float, count: int, mean: float, weight: float = PRIOR_WEIGHT) -> float:
    """Return a mean of `count` outcomes, drawn towards `prior` as if that were `weight` outcomes."""
    return (weight * prior + count * mean) / (weight + count)


def choose(shares: Sequence[float], columns: Sequence[Sequence[float]], target: float) -> Choice | None:
    """Return the cheapest tier that is expected to do, or None where that is not sure.

    Args:
        shares: Probability of each type.
        columns: Quality of each type for each tier, cheap to dear (`TypeTable.columns`).
        target: The quality to be reached, 0 to 1.
    """
    below = 0.0
    for rank, column in enumerate(columns):
        quality = sum(map(mul, shares, column))
        if quality >= target:
            is_last = rank == len(columns) - 1
            return (
                None
                if is_last and below > UNLIKELY
                else Choice(rank, 1 - below if is_last and rank else quality)
            )
        below = quality
    return None
