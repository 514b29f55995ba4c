"""Checks put together, and what follows from what they found.

A check may be a plain function, so what it finds is read here: a verdict, yes or no, a score, or nothing. It
may also be an *inquiry*, which returns a generator of the core's steps.

Put together, free checks are a free check. With others they are an inquiry, which yields those that it
cannot ask where it is, functions that take time and judges, as `Check` values: whoever carries it out
(`inquire`) asks them and answers with their verdicts.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from decimal import Decimal
from functools import partial
from numbers import Real
from types import CodeType
from typing import Any, Final

import msgspec
from msgspec import structs

from leastwise.cascade.checks import version_of
from leastwise.cascade.plan import JUDGE, Check, Glance, Kind, Unparsable
from leastwise.cascade.rows import BUILT_IN
from leastwise.errors import ConfigError
from leastwise.ladder import SAYS, Says, Verdict
from leastwise.messages import Reply, Request

_KINDS: Final[tuple[Kind, ...]] = ("free", "run", "judge")  # cheapest first
_BOOLS: Final = frozenset({"bool", "bool_"})  # NumPy's are no bool of Python's
_GIVEN: Final = 2  # arguments: request and reply
#: Characters of a verdict's words that are kept: they stand in reasons and rows.
_MOST_WORDS: Final = 300


def as_check(thing: Any, name: str = "", known: Mapping[str, Check] = BUILT_IN) -> Check:
    """Return what a caller gave as a check, as a `Check`.

    Args:
        thing: A check, the name of one, or a function of (request, reply).
        name: For a function; by default its own name.
        known: Checks by name.

    Raises:
        ConfigError: no check has this name, or it is none of these.
    """
    if isinstance(thing, Check):
        return thing
    if isinstance(thing, str):
        if thing in known:
            return known[thing]
        close = difflib.get_close_matches(thing, known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        if thing == JUDGE:
            mend = "the judge is no part of another check: name it beside it, Task(check=[..., 'judge'])"
        message = f"no check is named {thing!r}; {mend}"
        raise ConfigError(message)
    if not callable(thing) or isinstance(thing, type):
        message = (
            f"check={thing!r}: expected a check, the name of one, or a function of (request, reply); "
            "or a list of these"
        )
        raise ConfigError(message)
    own_name = getattr(thing, "__name__", type(thing).__name__).strip("<>")
    why_not = _why_not(thing)
    if why_not:
        message = f"check={own_name}: {why_not}"
        raise ConfigError(message)
    return Check(name or own_name, thing, kind="run", version=_version(thing))


def _why_not(thing: Callable[..., Any]) -> str:
    """Return why a function cannot be a check, "" where it may be one; each of its answers would fail."""
    home = getattr(thing, "__module__", None) or ""
    if home.startswith(f"{__package__}.") and "." not in thing.__qualname__:
        return f"it makes a check, so call it: checks.{thing.__name__}(...)"
    code = getattr(thing, "__code__", None)
    if code is None:
        return ""
    given = _GIVEN + hasattr(thing, "__self__")
    named = code.co_argcount, code.co_kwonlyargcount
    free = len(thing.__defaults__ or ()), len(thing.__kwdefaults__ or ())
    takes_all = code.co_flags & inspect.CO_VARARGS or named[0] >= given
    if takes_all and named[0] - free[0] <= given and named[1] <= free[1]:
        return ""
    takes = [one.replace(annotation=one.empty) for one in inspect.signature(thing).parameters.values()]
    return f"it takes {inspect.Signature(takes)}, and is called with (request, reply)"


def _version(function: Any) -> str | None:
    """Return what changes with a function's code; None where more than its code decides what it says."""
    code = getattr(function, "__code__", None)
    has_more = (
        getattr(function, name, None)
        for name in ("__self__", "__closure__", "__defaults__", "__kwdefaults__")
    )
    if code is None or any(has_more):
        return None
    return version_of(function.__module__, function.__qualname__, _told_by(code))


def _told_by(code: CodeType) -> tuple[object, ...]:
    """Return what a piece of code does, without where it stands; constants in one order in all processes."""
    constants = [_told_by(one) if isinstance(one, CodeType) else _in_order(one) for one in code.co_consts]
    return code.co_code, code.co_names, constants


def _in_order(constant: object) -> object:
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant


def read_finding(found: Any, name: str, threshold: float | None = None) -> Verdict | None:
    """Return what a check found as a verdict; None where it had nothing to look at.

    Args:
        found: True or False, a score, a verdict or None. Anything else counts as not being able to tell.
        name: The check's name.
        threshold: The least score that is accepted.
    """
    if found is None:
        return None
    if isinstance(found, Verdict) and found.says in SAYS:
        return _legal(found, name)
    if isinstance(found, bool) or type(found).__name__ in _BOOLS:
        return (
            Verdict(name, "accept", "returned True") if found else Verdict(name, "escalate", "returned False")
        )
    score = _score(found)
    if score is None:
        return Verdict(name, "abstain", f"returned {_odd(found)}")
    if threshold is None:
        words = f"score {score:g}, and no threshold to hold it against: give one, threshold=..."
        return Verdict(name, "abstain", words, score=score)
    says: Says = "accept" if score >= threshold else "escalate"
    return Verdict(name, says, f"score {score:g}, {threshold:g} wanted", score=score)


def _odd(found: Any) -> str:
    if isinstance(found, Verdict):
        return f"a Verdict that says none of {', '.join(SAYS)}"
    if isinstance(found, Real | Decimal):
        return "a number that no score can be"
    return f"a {type(found).__name__}, which is neither yes or no nor a score"


def _legal(found: Verdict, name: str) -> Verdict:
    """Return a verdict as it can be written down; one that holds something else cannot tell.

    Whether an answer was planted is ours to say.
    """
    try:
        words = found.words[:_MOST_WORDS].encode("utf-8", "replace").decode().replace("\0", "?")
        score = None if found.score is None else _score(found.score)
        told = {**structs.asdict(found), "words": words, "score": score, "is_control": False}
        return msgspec.convert(told, Verdict)
    except (AttributeError, TypeError, msgspec.ValidationError):
        return Verdict(name, "abstain", "returned a Verdict of which a part is not of its type")


def _score(found: Any) -> float | None:
    """Return a finite number as a score."""
    try:
        score = float(found) if isinstance(found, Real | Decimal) else math.nan
    except (OverflowError, ValueError):
        return None
    return score if math.isfinite(score) else None


def all_of(*checks: Any, threshold: float | None = None, name: str = "") -> Check:
    """Return a check that accepts what all of these accept.

    They are asked in order, so put the cheapest first. The first that escalates decides, and no other is
    asked; else one that cannot tell makes all of it abstain. Those with nothing to look at do not count.

    Args:
        checks: Checks, names of built-in ones, or functions of (request, reply).
        threshold: The least score that is accepted of those that return one.
        name: By default made of theirs.

    Raises:
        ConfigError: none is given, or one is no check.
    """
    parts = _parts(checks)
    name = name or f"all_of({', '.join(part.name for part in parts)})"
    return _combined(name, parts, parts, frozenset({"escalate"}), threshold)


def first_of(*checks: Any, threshold: float | None = None, name: str = "") -> Check:
    """Return a check that says what the first of these says that can tell.

    They are asked in order until one accepts or escalates. Where none does, it abstains if one of them did.

    Args:
        checks: As for `all_of`.
        threshold: As for `all_of`.
        name: By default made of theirs.

    Raises:
        ConfigError: none is given, or one is no check.
    """
    parts = _parts(checks)
    name = name or f"first_of({', '.join(part.name for part in parts)})"
    return _combined(name, parts, parts[:1], frozenset({"accept", "escalate"}), threshold)


def _parts(checks: tuple[Any, ...]) -> tuple[Check, ...]:
    if not checks:
        message = "no check is given; give one or more"
        raise ConfigError(message)
    return tuple(as_check(check) for check in checks)


def _combined(
    name: str,
    parts: tuple[Check, ...],
    early: tuple[Check, ...],
    decisive: frozenset[Says],
    threshold: float | None,
) -> Check:
    """Return the parts as one check.

    Args:
        name: Its name.
        parts: The checks, in order.
        early: Those of them whose objection to the first words is the whole check's.
        decisive: What a part has to say to have the last word.
        threshold: For scores.
    """
    kind = max((part.kind for part in parts), key=_KINDS.index)
    named = [(part.name, part.version) for part in parts]

    def steps(request: Request, reply: Reply) -> Generator[Any, Any, Verdict | None]:
        heard: list[Verdict] = []
        for part in parts:
            found = yield from _asked(part, request, reply)
            verdict = read_finding(found, part.name, threshold)
            heard += [verdict] if verdict is not None else []
            if verdict is not None and verdict.says in decisive:
                return _under(name, verdict, heard)
        # As in `settle`, what could not be asked comes before what could not be told.
        doubts = sorted((verdict for verdict in heard if verdict.says == "abstain"), key=_blames)
        return _under(name, (doubts or heard[-1:])[0], heard) if heard else None

    def ask(request: Request, reply: Reply) -> Any:
        if kind != "free":
            return steps(request, reply)
        try:
            next(steps(request, reply))
        except StopIteration as done:
            return done.value
        # One is an inquiry and does not say so: all are asked anew by who carries out its steps.
        return steps(request, reply)

    return Check(
        name,
        ask,
        kind,
        _glance(name, parts, early),
        None if any(part.version is None for part in parts) else version_of(threshold, named),
        sum(part.timeout_s for part in parts if part.kind == "run") or parts[0].timeout_s,
    )


def _asked(part: Check, request: Request, reply: Reply) -> Generator[Any, Any, Any]:
    """Ask a free check, and have any other asked."""
    found = part.ask(request, reply) if part.kind == "free" else (yield part)
    return (yield from found) if isinstance(found, Generator) else found


def _blames(verdict: Verdict) -> bool:
    return verdict.blames


def inquire(
    steps: Generator[Any, Any, Any],
    ask: Callable[[Check], Generator[Any, Any, Any]],
    kinds: Any = object,
) -> Generator[Any, Any, Any]:
    """Carry out an inquiry and return what it found.

    Args:
        steps: What a check's `ask` returned.
        ask: Asks another check of the same answer; returns what that found. All other steps are passed on.
        kinds: What may be passed on; whoever yields something else is told by a `TypeError`.
    """
    resume = partial(next, steps)
    while True:
        try:
            step = resume()
        except StopIteration as done:
            return done.value
        try:
            answer = (yield from ask(step)) if isinstance(step, Check) else (yield _one_of(kinds, step))
        except Exception as error:  # noqa: BLE001 - an inquiry may know what to do about any
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, answer)


def _one_of(kinds: Any, step: Any) -> Any:
    if not isinstance(step, kinds):
        message = f"an inquiry yielded a {type(step).__name__}: expected a step or a check"
        raise TypeError(message)
    return step


def _under(name: str, verdict: Verdict, heard: Iterable[Verdict] = ()) -> Verdict:
    """Return a part's verdict as the whole's, which cost what all that were asked cost."""
    cost_nusd = sum(other.cost_nusd for other in heard)
    words = f"{verdict.check}: {verdict.words}"
    return structs.replace(verdict, check=name, words=words, cost_nusd=cost_nusd)


def _glance(name: str, parts: tuple[Check, ...], early: tuple[Check, ...]) -> Glance | None:
    """Return the first objection of those that count; None where one of all has to wait for the end."""
    if any(part.glance is None for part in parts):
        return None

    def glance(request: Request, text: str) -> Verdict | None:
        for part in early:
            found = part.glance(request, text) if part.glance is not None else None
            if found is not None:
                return _under(name, found)
        return None

    return glance


def settle(verdicts: Iterable[Verdict | None], unparsable: Unparsable) -> Says:
    """Return what follows from all that was said of an answer.

    One that escalates decides. What could not be asked, an abstention that blames nobody, is no objection,
    and accepts nothing either; any other abstention counts as `unparsable` says. Where nothing had a word,
    there is none. Controls are of other answers.
    """
    said = {(verdict.says, verdict.blames) for verdict in verdicts if verdict and not verdict.is_control}
    if any(says == "escalate" for says, _ in said):
        return "escalate"
    if not said or ("abstain", False) in said:
        return "abstain"
    return unparsable if ("abstain", True) in said else "accept"
