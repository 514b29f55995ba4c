"""How settings are put into words: what is allowed, what was meant, and nothing that looks like a secret."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

#: Sections of the plan that this version does not carry out; a key that is ignored could cost money.
_NOT_YET: Final = frozenset({"record"})
_SECRETS: Final = re.compile(
    r"(?<=://)[^\s\"]+(?=@)|\bsk-[\w-]{6,}|(?i:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=))[^&\s\"]+"
)
#: Settings that are secrets as a whole: who knows a webhook's path may post to it.
_WHOLLY_SECRET: Final = frozenset({"notify.webhook"})


def masked(text: str) -> str:
    """Return `text` with whatever looks like a key or a password blotted out.

    >>> masked("http://me:secret@host/?key=abc and sk-ant-0123456789")
    'http://***@host/?key=*** and ***'
    """
    return _SECRETS.sub("***", text)


def host_only(address: str) -> str:
    """Return an address without what may be secret in it: its path, and who asks.

    >>> host_only("https://hooks.slack.com/services/T000/B000/XXXX")
    'https://hooks.slack.com/***'
    """
    scheme, found, rest = address.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{host}/***" if found else "***"


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


def shown(value: Any, key: str = "") -> str:
    """Return a value, that of `key`, on one line, whatever looks like a secret blotted out."""
    if key in _WHOLLY_SECRET and value != "":
        value = host_only(str(value))
    return masked(json.dumps(value, default=_simple, ensure_ascii=False))


def _simple(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)
