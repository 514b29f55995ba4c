"""Free checks of how an answer ended and of its text: microseconds each, no I/O.

A check has a word only where there is something to look at. Those of a text say nothing of an answer that
calls tools, which is a step on the way: what is asked of the answer is asked of the last one. Neither a
rejected answer that is a refusal nor what a check cannot tell is blamed on the tier.

`glance` judges the first words of a stream. It objects only where the whole answer would be rejected
whatever follows, and never where the request has tools, as a few words often come before a call. Where
only the end can tell (was it cut off, is it empty, does a pattern occur, are there enough words) it never
objects, so that these do not hold up a stream; what the end shows is then known too late to climb.

Words are the check's own and the configuration's, never those of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import product
from typing import Final

from leastwise.cascade.languages import codes, language_of
from leastwise.cascade.plan import Check, Glance
from leastwise.errors import ConfigError
from leastwise.ladder import Says, Verdict
from leastwise.messages import Reply, Request, blocks_of

#: What is said of an answer, and why.
Word = tuple[Says, str]
#: Judges a whole answer; None where there is nothing to look at.
Look = Callable[[Request, Reply], Word | None]
#: Returns why a text that begins so is rejected whatever follows, else "".
Early = Callable[[Request, str], str]

_REFUSED: Final = "refusal"
_CUT_OFF: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_ENDS: Final = ("end_turn", "stop_sequence", "tool_use")
#: Those that the API has; no other is repeated.
_STOP_REASONS: Final = frozenset({*_CUT_OFF, *_ENDS, _REFUSED, "compaction", "pause_turn"})
#: Content that alone is no answer.
_NO_ANSWER: Final = frozenset({"redacted_thinking", "text", "thinking"})

# --- how a refusal opens, in English: an apology or none, then one of each of these. They are few on
# --- purpose: "I cannot provide a date" may well be the answer.
_APOLOGIES: Final = (
    "i am afraid",
    "i am sorry",
    "i am very sorry",
    "i apologise",
    "i apologize",
    "i'm afraid",
    "i'm sorry",
    "i'm very sorry",
    "my apologies",
    "sorry",
    "unfortunately",
)
_CANNOT: Final = (
    "i am not able to",
    "i am unable to",
    "i can not",
    "i can't",
    "i cannot",
    "i will not",
    "i won't",
    "i'm not able to",
    "i'm unable to",
)
_HELP: Final = (
    "assist with",
    "assist you with",
    "comply with",
    "fulfil",
    "fulfill",
    "help with",
    "help you with",
)
_DO: Final = ("answer", "create", "discuss", "do", "engage with", "generate", "provide", "write")
_WHICH: Final = (
    "that",
    "this",
    *map(" ".join, product(("that", "the", "this", "your"), ("question", "request"))),
)
#: A text that opens so and is no longer than this says nothing else.
_LONGEST_APOLOGY: Final = 300


def _any(phrases: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, phrases))})".replace("'", r"['\u2019]")


_OPENS: Final = rf"\s*(?:{_any(_APOLOGIES)}[,.;:]? (?:but )?)?{_any(_CANNOT)} "
_APOLOGY: Final = re.compile(rf"{_OPENS}{_any(_HELP)}\b", re.IGNORECASE)
#: A whole sentence that refuses all of the request, so that nothing that follows answers it.
_OUTRIGHT: Final = re.compile(rf"{_OPENS}{_any((*_HELP, *_DO))} {_any(_WHICH)}[.!](?=\s)", re.IGNORECASE)

#: How many of an answer's first characters must not be in another language.
_OPENING_CHARS: Final = 200
#: Below this, hardly any text tells its language.
_LEAST_CHARS: Final = 20
_ALIASES: Final = {"nb": "no"}


def version_of(*parts: object) -> str:
    """Return eight hexadecimal digits that change with what a check was made of."""
    return sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:8]


def check_of(name: str, look: Look, early: Early | None = None, version: str = "") -> Check:
    """Return a free check that looks so at an answer, and so at its first words.

    Args:
        name: As verdicts call it.
        look: Judges a whole answer.
        early: Judges the first words; None where only the end can tell.
        version: Changes with what it was made of.
    """

    def ask(request: Request, reply: Reply) -> Verdict | None:
        word = look(request, reply)
        return None if word is None else _verdict(name, word, reply)

    return Check(name, ask, glance=_glance(name, early), version=version)


def of_text(look: Look) -> Look:
    """Return a look at the text of an answer that calls no tools."""
    return lambda request, reply: None if reply.tool_calls else look(request, reply)


def _verdict(name: str, word: Word, reply: Reply) -> Verdict:
    says, words = word
    if says == "accept":
        return Verdict(name, says, words)
    is_refused = reply.stop_reason == _REFUSED or is_apology(reply.text)
    return Verdict(name, says, words, blames=says == "escalate" and not is_refused)


def _glance(name: str, early: Early | None) -> Glance:
    if early is None:
        return lambda _request, _text: None

    def glance(request: Request, text: str) -> Verdict | None:
        words = "" if "tools" in request else early(request, text)
        return Verdict(name, "escalate", words, blames=not is_apology(text)) if words else None

    return glance


def is_apology(text: str, *, is_whole: bool = True) -> bool:
    """Tell whether a text refuses, in English, and does nothing else; in doubt it does not.

    Args:
        text: The text.
        is_whole: Whether nothing follows; else only what no more text could make an answer is a refusal.
    """
    if not is_whole:
        return _OUTRIGHT.match(text) is not None
    is_short = len(text) <= _LONGEST_APOLOGY
    return _OUTRIGHT.match(f"{text}\n") is not None or (is_short and _APOLOGY.match(text) is not None)


# --- how it ended


def _truncation(_request: Request, reply: Reply) -> Word:
    reason = reply.stop_reason
    return ("escalate", f"cut off: {reason}") if reason in _CUT_OFF else ("accept", "not cut off")


def _empty(_request: Request, reply: Reply) -> Word:
    kinds = {str(block.get("type")) for block in blocks_of(reply.message.get("content"))}
    if reply.text.strip() or kinds - _NO_ANSWER:
        return "accept", "not empty"
    return "escalate", "empty: no text and no tool call"


def _refusal(_request: Request, reply: Reply) -> Word:
    if reply.stop_reason == _REFUSED:
        return "escalate", "refused: stop reason refusal"
    if is_apology(reply.text, is_whole=not reply.tool_calls):
        return "escalate", "refused: the answer opens as a refusal does"
    return "accept", "not refused"


def _refuses(_request: Request, text: str) -> str:
    return "refused: the answer opens as a refusal does" if is_apology(text, is_whole=False) else ""


truncation: Final = check_of("truncation", _truncation)
empty: Final = check_of("empty", _empty)
refusal: Final = check_of("refusal", _refusal, _refuses)


def stop_reason(*accepted: str, name: str = "stop_reason") -> Check:
    """Return a check that an answer ended for one of these reasons.

    Args:
        accepted: As the API spells them; by default `end_turn`, `stop_sequence` and `tool_use`.
        name: The check's name.
    """
    ends = accepted or _ENDS

    def look(_request: Request, reply: Reply) -> Word:
        reason = reply.stop_reason
        if not reason:
            return "abstain", "the answer tells no stop reason"
        shown = reason if reason in _STOP_REASONS or reason in ends else "one that is not known"
        return "accept" if reason in ends else "escalate", f"stop reason: {shown}"

    return check_of(name, look, version=version_of(sorted(ends)))


# --- what its text is


def labels(*allowed: str, name: str = "labels") -> Check:
    """Return a check that an answer is exactly one of these labels.

    White space around it, its case, and a full stop at its end do not matter.

    Raises:
        ConfigError: no label is given, or an empty one.
    """
    known = {_label(label) for label in allowed}
    if not known or "" in known:
        message = f"labels={list(allowed)!r}: expected one label or more, none of them empty"
        raise ConfigError(message)
    count = f"one of the {len(known)} labels"

    def look(_request: Request, reply: Reply) -> Word:
        return ("accept", count) if _label(reply.text) in known else ("escalate", f"not {count}")

    def early(_request: Request, text: str) -> str:
        begun = text.strip().casefold()
        goes_on = any(label.startswith(begun) for label in known) or _label(text) in known
        return "" if goes_on else f"not {count}"

    return check_of(name, of_text(look), early, version_of(sorted(known)))


def _label(text: str) -> str:
    return text.strip().casefold().removesuffix(".").rstrip()


def regex(pattern: str, *, full: bool = False, name: str = "regex") -> Check:
    """Return a check that a regular expression is found in an answer, white space around it left out.

    It runs where the exchange runs: a pattern that backtracks without end holds up everything else.

    Args:
        pattern: In Python's syntax.
        full: Whether it must match the whole answer.
        name: The check's name.

    Raises:
        ConfigError: it is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        message = f"pattern={pattern!r}: no regular expression: {error}"
        raise ConfigError(message) from None
    find = compiled.fullmatch if full else compiled.search

    def look(_request: Request, reply: Reply) -> Word:
        if find(reply.text.strip()):
            return "accept", "matches the pattern"
        return "escalate", "does not match the pattern"

    return check_of(name, of_text(look), version=version_of(compiled.pattern, compiled.flags, full))


def length(
    *,
    min_chars: int | None = None,
    max_chars: int | None = None,
    min_words: int | None = None,
    max_words: int | None = None,
    name: str = "length",
) -> Check:
    """Return a check that an answer is neither too short nor too long, white space around it left out.

    Raises:
        ConfigError: no bound is given, one is no number from 0, or the least is above the most.
    """
    bounds = (("characters", min_chars, max_chars, len), ("words", min_words, max_words, _words_in))
    given = [(unit, least, most) for unit, least, most, _ in bounds if (least, most) != (None, None)]
    if not given:
        message = "length: give min_chars, max_chars, min_words or max_words"
        raise ConfigError(message)
    for unit, least, most in given:
        if not (_is_bound(least) and _is_bound(most)) or (least or 0) > (
            least or 0 if most is None else most
        ):
            message = f"length: from {least!r} to {most!r} {unit}: expected whole numbers from 0, least first"
            raise ConfigError(message)

    def fault(text: str, *, is_whole: bool) -> str:
        for unit, least, most, measure in bounds:
            size = measure(text.strip())
            if most is not None and size > most:
                return f"too long: more than {most:,} {unit}"
            if is_whole and least is not None and size < least:
                return f"too short: fewer than {least:,} {unit}"
        return ""

    def look(_request: Request, reply: Reply) -> Word:
        words = fault(reply.text, is_whole=True)
        return ("escalate", words) if words else ("accept", "neither too short nor too long")

    return check_of(
        name,
        of_text(look),
        lambda _request, text: fault(text, is_whole=False),
        version_of(min_chars, max_chars, min_words, max_words),
    )


def _words_in(text: str) -> int:
    return len(text.split())


def _is_bound(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def language(code: str, *, name: str = "language") -> Check:
    """Return a check that an answer is in a language (see `languages`), and opens in it.

    It has no word on a few characters, such as `Yes.`, and abstains where the language is not certain.

    Args:
        code: ISO 639-1, such as `de`; a region after it does not matter.
        name: The check's name.

    Raises:
        ConfigError: it is a language that cannot be told.
    """
    asked = str(code).partition("-")[0].casefold()
    wanted = _ALIASES.get(asked, asked)
    if wanted not in codes():
        message = f"language={code!r}: not one that can be told; known: {', '.join(codes())}"
        raise ConfigError(message)

    def early(_request: Request, text: str) -> str:
        found = language_of(text[:_OPENING_CHARS]) if len(text) >= _OPENING_CHARS else ""
        return f"opens in {found}, not in {wanted}" if found not in {"", wanted} else ""

    def look(request: Request, reply: Reply) -> Word | None:
        opening = early(request, reply.text)
        if opening:
            return "escalate", opening
        found = language_of(reply.text)
        if not found:
            is_short = len(reply.text.strip()) < _LEAST_CHARS
            return None if is_short else ("abstain", "its language is not certain")
        return ("accept", f"in {wanted}") if found == wanted else ("escalate", f"in {found}, not in {wanted}")

    return check_of(name, of_text(look), early, version_of(wanted))
