"""What tells the type of a task, and the tier that does it.

Asked in this order: the user's own types by their examples, phrases, the learned classifier; where
the router finds nothing else to go by, what a small model said. The description is asked before
the ask. Phrases and classifier check each other where one of them says that little is needed: a
phrase may stand in a text by chance, and a question may be harder than its form.
In the reference preset only its word lists are asked.

Nothing here knows which tiers a request may go to, or what it costs: that is the router's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final, Literal, NamedTuple

from leastwise.cascade import Rung
from leastwise.features import Features
from leastwise.ladder import COMPLEXITIES, Code, Complexity, Ladder
from leastwise.routing.classifier import NONE, Classifier, Guess, load_classifier
from leastwise.routing.examples import Examples
from leastwise.routing.policy import Policy
from leastwise.routing.types import UNLIKELY, TypeTable, choose
from leastwise.routing.words import Prediction, Scan, Words

_MOST_SURE: Final = 99  # percent; nothing is surer


class Told(NamedTuple):
    """A type of task, and where it leads.

    Attributes:
        tier: The name of the tier that does it.
        complexity: What it needs; None where only a tier is known.
        task_type: Its name, "" where only a complexity is known.
        words: What told it, for a reader; never the prompt's own.
        code: The same as a reason's code.
    """

    tier: str
    complexity: Complexity | None
    task_type: str
    words: str
    code: Code = Code.TYPE


class _Guessed(NamedTuple):
    """What the classifier chooses, how sure it is, and whether that reaches its target."""

    task_type: str
    complexity: Complexity
    tier: str
    words: str
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the classifier makes of one request, in full: for a reader, not for a decision.

    Attributes:
        text: What was weighed: `description` or `ask`.
        types: Probability of each type and of none of them, likeliest first; they sum to 1.
        unknown: Share of words that the model does not know.
        entropy: How evenly the types share, 0 to 1.
        expected: Quality expected of each tier.
        target: The quality that a tier must be expected to reach.
        unsure: Why nothing is decided by this, "" where something is.
        pushes: Each feature found, and how far it pushes each type; the strongest first. Their sums are
            the logarithms of the probabilities, but for a constant.
        own: How near the text is to the user's own types, and how near is near enough; the nearest first.
    """

    text: Literal["description", "ask"]
    types: Mapping[str, float]
    unknown: float
    entropy: float
    expected: Mapping[str, float]
    target: float
    unsure: str
    pushes: Sequence[tuple[str, Mapping[str, float]]]
    own: Mapping[str, tuple[float, float]]


class Teller:
    """Tells the types of requests under one policy.

    Args:
        ladder: The tiers, cheap to dear.
        policy: What the user configured; its tiers are on the ladder.
        words: Phrases of task types.
        classifier: Used where the policy uses one; the shipped one by default.

    Attributes:
        classifier: What tells types where no phrase does; None where only phrases do.
        table: How good each tier is expected to be at each type.
        digests: Name phrases and weights; part of the policy's hash.
    """

    def __init__(
        self, ladder: Ladder, policy: Policy, words: Words, classifier: Classifier | None = None
    ) -> None:
        self._policy = policy
        self._words = words
        weighs = policy.learned and not policy.is_reference
        weights = (classifier or load_classifier()) if weighs or policy.types else None
        self.classifier = weights if weighs else None
        self.digests = (words.digest, weights.digest if weights is not None else "")
        self._own = Examples(policy.types, weights.rarity()) if weights is not None and policy.types else None
        #: The complexity that a tier stands for; a tier of several stands for the least.
        self._complexity_at = {policy.complexity[each]: each for each in reversed(COMPLEXITIES)}
        self._owned = {own.name: own for own in policy.types}
        self._learned: Mapping[tuple[str, str], Rung] | None = None
        needs = {name: policy.complexity[complexity] for name, complexity in words.types.items()}
        for own in policy.types:
            needs[own.name] = own.tier or policy.complexity[own.complexity or "standard"]
        self.table = TypeTable([tier.name for tier in ladder], needs)
        names = tuple(self.classifier.types) if self.classifier is not None else ()
        self._names = names
        self._assumed = self._columns = self.table.columns(names)
        #: For each tier, which of the classifier's types need it.
        self._places = [
            [place for place, name in enumerate(names) if needs[name] == tier] for tier in self.table.tiers
        ]

    def learn(self, rungs: Mapping[tuple[str, str], Rung]) -> None:
        """Set what checks accepted of each tier's answers, by type, against what is taken for granted.

        Costs nothing where these are the very ones that were learned last.
        """
        if rungs is self._learned:
            return
        self._learned = rungs
        seen = {
            key: (rung.checked, rung.accepted / rung.checked) for key, rung in rungs.items() if rung.checked
        }
        table = TypeTable(self.table.tiers, self.table.needs, seen)
        self.table, self._columns = table, table.columns(self._names)

    @property
    def kinds(self) -> Mapping[str, str]:
        """What a small model may say of a request: the user's own types first, each with what it means."""
        own = {one.name: f"such as: {one.examples[0]}" for one in self._policy.types}
        return {**own, **{name: means for name, means in self._words.kinds.items() if name not in own}}

    def tell(
        self, features: Features, description: Scan | None, ask: Scan, *, is_probe: bool = False
    ) -> Told | None:
        """Return the type of a request, or None where nothing tells it.

        Args:
            features: Those of the request.
            description: The caller's words for the task, None where there are none.
            ask: The ask; of a follow-up, the one before it.
            is_probe: Whether it goes by what is taken for granted of the tiers and not by what was learned:
                where nothing went to a tier any more, nothing would be learned of it.
        """
        if self._policy.is_reference:
            return self._listed(features, description, ask)
        heading = _heading(features, is_described=description is not None)
        own = self._own.find(description or ask) if self._own is not None else None
        if own is not None:
            words = f"type: {heading}{own.name} (like its examples)"
            return Told(self.table.needs[own.name], own.complexity, own.name, words)
        found = self._words.predict(features, description, ask)
        if found is not None and found.complexity == "complex":
            return self._named(found, features)
        guessed = self._guess(description or ask, self._assumed if is_probe else self._columns)
        is_hard = guessed is not None and guessed.complexity == "complex" and guessed.is_certain
        if found is not None and not is_hard:
            return self._named(found, features)
        if guessed is None:
            return None
        words = f"type: {heading}{guessed.task_type} ({guessed.words})"
        return Told(guessed.tier, guessed.complexity, guessed.task_type, words)

    def advised(self, opinion: str) -> Told | None:
        """Return the type that a small model took an ask for; None where it named none."""
        if opinion not in self.table.needs or self._policy.is_reference:
            return None
        tier = self.table.needs[opinion]
        words = f"type: {opinion} (a small model says)"
        return Told(tier, self._complexity_at.get(tier), opinion, words, Code.ADVISED)

    def has_doubt(self, ask: Scan) -> bool:
        """Tell whether the ask holds a phrase that makes a question harder than its form."""
        return bool(self._words.doubt(ask))

    def _listed(self, features: Features, description: Scan | None, ask: Scan) -> Told | None:
        """Return what the reference's lists say; for a description they end in standard."""
        found = self._words.predict_reference(description, ask)
        if found is not None:
            return self._named(found, features)
        if description is None or features.expected_output_tokens is not None:
            return None
        words = "no listed phrase in the description: standard"
        return Told(self._policy.complexity["standard"], "standard", "", words, Code.STANDARD)

    def _named(self, found: Prediction, features: Features) -> Told:
        """Return the type that a phrase names."""
        is_described = found.place == "description"
        heading = _heading(features, is_described=is_described)
        where = " in the description" if is_described else ""
        named = found.task_type or found.complexity
        words = f'type: {heading}{named} ("{found.phrase}"{where})'
        own = self._owned.get(found.task_type)
        if own is not None:
            return Told(self.table.needs[own.name], own.complexity, own.name, words)
        return Told(self._policy.complexity[found.complexity], found.complexity, found.task_type, words)

    def _guess(self, scan: Scan, columns: Sequence[tuple[float, ...]]) -> _Guessed | None:
        """Return what the classifier chooses, or None where it is not sure."""
        classifier = self.classifier
        if classifier is None:
            return None
        guess = classifier.guess(scan)
        if not classifier.is_clear(guess):
            return None
        choice = choose(guess.shares, columns, classifier.target)
        if choice is None:
            return None
        tier = self.table.tiers[choice.rank]
        # The likeliest type that needs this tier; where none does, the likeliest of all.
        places = self._places[choice.rank] or range(len(self._names))
        name = self._names[max(places, key=guess.shares.__getitem__)]
        complexity = self._complexity_at.get(tier, classifier.types[name])
        if complexity == "simple" and self._words.doubt(scan):
            return None
        does = f"{tier} does"
        if choice.rank and choice.rank == len(self.table.tiers) - 1:
            does = f"{self.table.tiers[choice.rank - 1]} does not"
        percent = min(int(100 * choice.quality), _MOST_SURE)
        words = f"{percent}% sure that {does}"
        return _Guessed(name, complexity, tier, words, choice.quality >= classifier.target)

    def weigh(self, features: Features) -> Explanation | None:
        """Return what the classifier makes of a request, in full, or None where it is not used."""
        classifier = self.classifier
        if classifier is None:
            return None
        scan = Scan(features.description or features.ask)
        guess = classifier.guess(scan)
        expected = [sum(map(mul, guess.shares, column)) for column in self._columns]
        shares = {**dict(zip(self._names, guess.shares, strict=True)), NONE: 1 - sum(guess.shares)}
        return Explanation(
            text="description" if features.description else "ask",
            types=dict(sorted(shares.items(), key=lambda item: -item[1])),
            unknown=guess.unknown,
            entropy=guess.entropy,
            expected=dict(zip(self.table.tiers, expected, strict=True)),
            target=classifier.target,
            unsure=self._why_unsure(classifier, guess, expected, scan),
            pushes=classifier.explain(scan),
            own=self._own.nearness(scan) if self._own is not None else {},
        )

    def _why_unsure(self, classifier: Classifier, guess: Guess, expected: Sequence[float], scan: Scan) -> str:
        """Return in words why the classifier decides nothing, "" where it does."""
        unclear = classifier.why_unclear(guess)
        if unclear:
            return unclear
        choice = choose(guess.shares, self._columns, classifier.target)
        if choice is None:
            *_, below, top = ("", *self.table.tiers)
            wanted = f"{classifier.target:.0%} is wanted"
            if not below or expected[-1] < classifier.target:
                return f"{top} does with {expected[-1]:.0%}, {wanted}: probably none of the types"
            limits = f"{wanted} to take it, under {UNLIKELY:.0%} to need {top}"
            return f"{below} does with {expected[-2]:.0%}: {limits}"
        if self._guess(scan, self._columns) is None:
            return f'"{self._words.doubt(scan)}" asks for more thought than the rest'
        return ""


def _heading(features: Features, *, is_described: bool) -> str:
    """Return what stands before the type of an ask that goes on with one before it."""
    return "follow-up to " if features.inherited_ask and not is_described else ""
