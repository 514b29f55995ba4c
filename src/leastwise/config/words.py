"""How settings are put into words: what is allowed, what was meant, and nothing that looks like a secret."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

#: Sections of the plan that this version does not carry out; a key that is ignored could cost money.
_NOT_YET: Final = frozenset({"budget", "cache", "cascade", "notify", "record"})
_SECRETS: Final = re.compile(
    r"(?<=://)[^/@\s\"]+(?=@)|\bsk-[\w-]{6,}|(?i:(?<=key=)|(?<=token=)|(?<=secret=))[^&\s\"]+"
)


def masked(text: str) -> str:
    """Return `text` with whatever looks like a key or a password blotted out.

    >>> masked("http://me:secret@host/?key=abc and sk-ant-0123456789")
    'http://***@host/?key=*** and ***'
    """
    return _SECRETS.sub("***", text)


def unknown(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return what is said of a key that is not known."""
    if name in _NOT_YET:
        return "not in this version of Leastwise, so it would have no effect; take it out"
    return f"not known{suggestion(name, known) or f'; known: {listed(tuple(dict.fromkeys(known)))}'}"


def suggestion(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return which known name was meant, "" where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(names: Sequence[str]) -> str:
    """Return names in a row, without the empty one."""
    return ", ".join(name for name in names if name)


def shown(value: Any) -> str:
    """Return a value on one line, whatever looks like a secret blotted out."""
    return masked(json.dumps(value, default=_simple, ensure_ascii=False))


def _simple(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)
