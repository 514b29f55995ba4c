"""Task types by phrases: whole words, looked for in a description and, with more care, in an ask.

Phrases are data (`data/words.toml`). As a measure of difficulty they are no better than
chance; as a name for a kind of task they are right where they are specific. So an ask is
read only by phrases that hardly occur elsewhere, and nothing found means nothing known.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from leastwise.features import Features
from leastwise.ladder import Complexity

_WORD_CHARACTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_")  # of folded text
_WORD_BYTES: Final = bytes(code if code in _WORD_CHARACTERS else ord(" ") for code in range(256))


class Scan:
    """One text, prepared once to be searched by several lexicons and weighed by the classifier.

    Attributes:
        text: As given.
        sequence: Its words in order, folded: runs of ASCII letters, digits and `_`.
        words: The same, each once.
        is_ascii: Whether the text is plain ASCII.
    """

    __slots__ = ("_flat", "_folded", "is_ascii", "sequence", "text", "words")

    def __init__(self, text: str) -> None:
        self.text = text
        self._folded = text.casefold()
        self._flat: str | None = None
        self.is_ascii = text.isascii()
        self.sequence = _words(self._folded)
        self.words = frozenset(self.sequence)

    def holds(self, phrase: str) -> bool:
        """Tell whether the text holds `phrase` (folded, single spaces) with no word going on at its ends."""
        if self._flat is None:
            # What prints holds no white space but blanks.
            is_flat = self.is_ascii and "  " not in self._folded and self._folded.isprintable()
            self._flat = self._folded if is_flat else " ".join(self._folded.split())
        flat = self._flat
        start = flat.find(phrase)
        while start >= 0:
            end = start + len(phrase)
            opens = start == 0 or not (_in_word(flat[start - 1]) and _in_word(phrase[0]))
            closes = end == len(flat) or not (_in_word(flat[end]) and _in_word(phrase[-1]))
            if opens and closes:
                return True
            start = flat.find(phrase, start + 1)
        return False


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _words(folded: str) -> list[bytes]:
    """Return the runs of ASCII letters and digits; other letters end a run, in a phrase as in a text.

    In bytes, which are several times faster to translate and split than text.
    """
    return folded.encode("ascii", "replace").translate(_WORD_BYTES).split()


class Lexicon:
    """Phrases to be found in texts as whole words.

    A phrase is looked for only where all its words occur, and asked for them only where its
    longest occurs, so that most texts cost one pass over their words, however many phrases
    there are.
    """

    __slots__ = ("_always", "_by_trigger", "_order", "_triggers")

    def __init__(self, phrases: Iterable[str]) -> None:
        self._order: dict[str, int] = {}
        self._always: list[str] = []
        self._by_trigger: dict[bytes, list[tuple[frozenset[bytes], str]]] = {}
        for phrase in phrases:
            folded = " ".join(phrase.casefold().split())
            if not folded or folded in self._order:
                continue
            self._order[folded] = len(self._order)
            words = _words(folded)
            if words:
                entry = (frozenset(words), folded)
                self._by_trigger.setdefault(max(words, key=len), []).append(entry)
            else:
                self._always.append(folded)
        self._triggers = frozenset(self._by_trigger)

    def find(self, scan: Scan) -> list[str]:
        """Return the phrases that the text holds, in the order listed."""
        words = scan.words
        found = [phrase for phrase in self._always if scan.holds(phrase)]
        for trigger in self._triggers & words:
            for needed, phrase in self._by_trigger[trigger]:
                if needed <= words and (_is_settled(needed, phrase, scan) or scan.holds(phrase)):
                    found.append(phrase)
        return sorted(found, key=self._order.__getitem__) if len(found) > 1 else found


def _is_settled(needed: frozenset[bytes], phrase: str, scan: Scan) -> bool:
    """Tell whether the words alone prove the phrase: it is one word, and no other letters could adjoin it."""
    return scan.is_ascii and len(needed) == 1 and phrase.isalnum()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A task type taken from a phrase.

    Attributes:
        complexity: What the type needs.
        task_type: Its name, "" where only a complexity is known.
        phrase: The listed phrase that was found.
        place: Where: `description` or `ask`.
    """

    complexity: Complexity
    task_type: str
    phrase: str
    place: str


class Words:
    """The phrases of all task types, ready for searching.

    Attributes:
        digest: Names this very set of phrases; part of the policy's hash.
        types: The types that phrases name, and the kinds, each with its complexity.
        kinds: What a small model may answer of a request, and the work each kind stands for.
    """

    __slots__ = (
        "_ask",
        "_described",
        "_doubt",
        "_reference",
        "_strong",
        "_types",
        "digest",
        "kinds",
        "types",
    )

    def __init__(self, text: str) -> None:
        data = tomllib.loads(text)
        self.digest = sha256(text.encode()).hexdigest()
        rows = (*data["type"], *data["kind"])
        self.types: dict[str, Complexity] = {row["name"]: row["complexity"] for row in rows}
        self.kinds: dict[str, str] = {row["name"]: row["means"] for row in data["kind"]}
        self._types: dict[str, tuple[Complexity, str]] = {}
        strong: list[str] = []
        for row in data["type"]:
            for phrase in (*row["strong"], *row["weak"]):
                self._types.setdefault(phrase.casefold(), (row["complexity"], row["name"]))
            strong += [phrase.casefold() for phrase in row["strong"]]
        doubt = [phrase.casefold() for phrase in data["doubt"]["phrases"]]
        self._strong, self._doubt = frozenset(strong), frozenset(doubt)
        self._described = Lexicon(self._types)
        self._ask = Lexicon((*strong, *doubt))
        simple, hard = data["reference"]["simple"], data["reference"]["complex"]
        self._reference = (Lexicon(simple), Lexicon(hard))

    def predict(self, features: Features, description: Scan | None, ask: Scan) -> Prediction | None:
        """Return the type of task, or None where no phrase tells; the description decides before the ask."""
        if description is not None:
            found = self._of_description(self._described.find(description))
            if found is not None:
                return found
        return self._of_ask(self._ask.find(ask)) if features.ask else None

    def doubt(self, ask: Scan) -> str:
        """Return a phrase of the ask that makes a question harder than its form, "" where there is none."""
        return next((phrase for phrase in self._ask.find(ask) if phrase in self._doubt), "")

    def predict_reference(self, description: Scan | None, ask: Scan) -> Prediction | None:
        """Return what the reference's lists say: simple beats complex; the ask counts if undescribed."""
        scan, place = (description, "description") if description is not None else (ask, "ask")
        simple, hard = self._reference
        if found := simple.find(scan):
            return Prediction("simple", "", found[0], place)
        if found := hard.find(scan):
            return Prediction("complex", "", found[0], place)
        return None

    def _of_description(self, phrases: Sequence[str]) -> Prediction | None:
        for complexity in ("simple", "complex", "standard"):
            for phrase in phrases:
                if self._types[phrase][0] == complexity:
                    return Prediction(complexity, self._types[phrase][1], phrase, "description")
        return None

    def _of_ask(self, phrases: Sequence[str]) -> Prediction | None:
        """Return the dearest type among strong phrases, or None where they contradict or are in doubt."""
        found = {self._types[phrase][0]: phrase for phrase in reversed(phrases) if phrase in self._strong}
        if "simple" in found and ("complex" in found or not self._doubt.isdisjoint(phrases)):
            return None
        for complexity in ("complex", "standard", "simple"):
            if complexity in found:
                phrase = found[complexity]
                return Prediction(complexity, self._types[phrase][1], phrase, "ask")
        return None


@cache
def load_words() -> Words:
    """Return the phrases of the package's `data/words.toml`."""
    return Words(files("leastwise").joinpath("data/words.toml").read_text("utf-8"))
