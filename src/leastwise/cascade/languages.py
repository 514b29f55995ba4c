"""Tells the language of a text, or that it cannot be told: by script, then by common small words.

Made to be right when it speaks: a text that is short or mixed gets "", and so do most that are in a language
that is not listed (a close relative of one that is, as Afrikaans of Dutch, may be taken for it). Lists of
words (`data/languages.toml`) settle it where languages share a script; Danish and Norwegian are told apart
only where the words that differ occur. Code in fences is left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

#: Scripts by their letters and marks (Unicode blocks), in lower case where there is one; compiled when used.
_SCRIPTS: Final = {
    "latin": r"[a-z\u00df-\u00f6\u00f8-\u024f\u1e00-\u1eff]+",
    "cyrillic": r"[\u0400-\u052f]+",
    "greek": r"[\u0370-\u03ff\u1f00-\u1fff]+",
    "arabic": r"[\u0620-\u065f\u066e-\u06d3\u06d5-\u06ff\u0750-\u077f]+",
    "hebrew": r"[\u0591-\u05ea]+",
    "devanagari": r"[\u0900-\u0963\u0971-\u097f]+",
    "thai": r"[\u0e01-\u0e4e]+",
    "hangul": r"[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]+",
    "han": r"[\u3400-\u4dbf\u4e00-\u9fff\u3041-\u30ff]+",
}
#: Scripts that tell the language; of Han and kana, kana decides.
_ALONE: Final = {"greek": "el", "hebrew": "he", "thai": "th", "hangul": "ko"}
_KANA: Final = re.compile(r"[\u3041-\u30ff]")
#: A character of these says as much as so many letters.
_WEIGHTS: Final = {"han": 3, "hangul": 2}

_CODE: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MOST_CHARS: Final = 2_000
_LEAST_LETTERS: Final = 20
_LEAST_SCRIPT: Final = 0.7  # of all letters; foreign names and terms stand in any text
_LEAST_WORDS: Final = 5
_LEAST_SCORE: Final = 1.5  # words; one that several languages have is a part of one
_LEAST_SHARE: Final = 0.12  # of words that are a language's small ones; real text has a third and more
_LEAST_LEAD: Final = 1.5  # over the next language
_LEAST_KANA: Final = 0.1


@cache
def _words() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Return by script the languages that each small word is of."""
    text = files("leastwise").joinpath("data/languages.toml").read_text(encoding="utf-8")
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for script, languages in tomllib.loads(text)["words"].items():
        of_word = found.setdefault(script, {})
        for code, listed in languages.items():
            for word in dict.fromkeys(listed.split()):
                of_word[word] = (*of_word.get(word, ()), code)
    return found


def codes() -> tuple[str, ...]:
    """Return the languages that can be told, by ISO 639-1 code, in order."""
    by_words = {code for words in _words().values() for codes in words.values() for code in codes}
    return tuple(sorted({*by_words, *_ALONE.values(), "ja", "zh"}))


def language_of(text: str) -> str:
    """Return the code of the language that `text` is in, "" when that is not certain.

    >>> language_of("The letter was sent to the office, and it has not been answered.")
    'en'
    >>> language_of("Paris, Berlin, Madrid")
    ''
    """
    plain = _CODE.sub(" ", text[:_MOST_CHARS]).lower()
    runs = {script: re.findall(pattern, plain) for script, pattern in _SCRIPTS.items()}
    sizes = {script: len("".join(found)) * _WEIGHTS.get(script, 1) for script, found in runs.items()}
    script = max(sizes, key=sizes.__getitem__)
    # Letters of scripts that are not listed count as well.
    total = max(sum(sizes.values()), sum(map(str.isalpha, plain)))
    if sizes[script] < max(_LEAST_LETTERS, _LEAST_SCRIPT * total):
        return ""
    if script == "han":
        return _chinese_or_japanese("".join(runs[script]))
    return _ALONE.get(script) or _by_words(runs[script], _words()[script])


def _chinese_or_japanese(letters: str) -> str:
    kana = len(_KANA.findall(letters)) / len(letters)
    if kana >= _LEAST_KANA:
        return "ja"
    return "" if kana else "zh"


def _by_words(words: list[str], known: Mapping[str, tuple[str, ...]]) -> str:
    """Return the language whose small words stand out; a word counts less the more languages have it."""
    scores: dict[str, float] = {}
    for word in words:
        of = known.get(word, ())
        for code in of:
            scores[code] = scores.get(code, 0) + 1 / len(of)
    first = max(scores, key=scores.__getitem__, default="")
    most = scores.pop(first, 0.0)
    least = max(_LEAST_SCORE, _LEAST_SHARE * len(words), _LEAST_LEAD * max(scores.values(), default=0.0))
    return first if len(words) >= _LEAST_WORDS and most >= least else ""
