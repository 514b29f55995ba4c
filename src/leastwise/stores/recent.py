"""What this process knows of the ledger without asking: the last pins and prompt caches, and slow facts.

Rows that still wait to be written are known here already. All of it is bounded, and none of it is needed:
what is not here is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from leastwise.budget import Raise, raised_at
from leastwise.routing import Warmth
from leastwise.steps import Record

_MOST: Final = 10_000
_MEMORY_S: Final = 1.0  # how long a shared fact may be served from memory
_RAISES: Final = "raises"


class Recent:
    """The last pins and prompt caches, and facts that change slowly."""

    def __init__(self) -> None:
        self._pins: OrderedDict[str, str] = OrderedDict()
        self._warmths: OrderedDict[tuple[str, str], dict[str, Warmth]] = OrderedDict()
        self._facts: dict[str, tuple[float, Any]] = {}

    def add(self, step: Record) -> None:
        """Keep what a row that is about to be written tells."""
        self._pins.update(dict.fromkeys(step.tool_use_ids, step.made_by))
        while len(self._pins) > _MOST:
            self._pins.popitem(last=False)
        if step.warmth is not None:
            key = (step.exchange.tenant, step.exchange.session)
            known = self._warmths.get(key, {})
            before = known.get(step.warmth.model)
            mine = step.warmth if before is None else before.followed_by(step.warmth)
            self._keep_warmths(key, {**known, mine.model: mine})

    def pins(self, tool_use_ids: Iterable[str]) -> dict[str, str]:
        """Return who made these tool calls, as far as it is remembered."""
        remembered = ((id_, self._pins.get(id_)) for id_ in tool_use_ids)
        return {id_: model for id_, model in remembered if model is not None}

    def warmths(self, tenant: str, session: str, written: Mapping[str, Warmth]) -> dict[str, Warmth]:
        """Return the session's caches: as written, but what this process knows better.

        Of two states of one cache the one used last is the later, then the one with more turns.
        """
        found = dict(written)
        for model, mine in self._warmths.get((tenant, session), {}).items():
            theirs = found.get(model)
            if theirs is None or (theirs.at, theirs.turns) < (mine.at, mine.turns):
                found[model] = mine
        if found:
            self._keep_warmths((tenant, session), found)
        return found

    def _keep_warmths(self, key: tuple[str, str], warmths: dict[str, Warmth]) -> None:
        self._warmths.pop(key, None)  # to its end; `move_to_end` fails where another thread dropped it
        self._warmths[key] = warmths
        while len(self._warmths) > _MOST:
            self._warmths.popitem(last=False)

    def fact(self, name: str, now: float, read: Callable[[], Any]) -> Any:
        """Return what `read` returned within the last second, else what it returns now."""
        until, value = self._facts.get(name, (0.0, None))
        if not until - _MEMORY_S <= now < until:
            if len(self._facts) > _MOST:  # tags come from callers: bound what they can fill
                self._facts.clear()
            value = read()
            self._facts[name] = (now + _MEMORY_S, value)
        return value

    def raised(self, now: float, read: Callable[[], Iterable[Raise]]) -> dict[str, int]:
        """Return what is added to budgets now, by name, of all that was ever given."""
        return raised_at(self.fact(_RAISES, now, read), now)

    def forget_raises(self) -> None:
        """Have what was given read anew."""
        self._facts.pop(_RAISES, None)
