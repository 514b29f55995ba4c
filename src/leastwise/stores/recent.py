"""What this process knows of the ledger without asking: pins, prompt caches, floors, and slow facts.

Rows that still wait to be written are known here already. All of it is bounded, and none of it is needed:
what is not here is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, TypeVar

from leastwise.budget import Raise, raised_at
from leastwise.routing import Warmth
from leastwise.steps import Record

T = TypeVar("T")

_MOST: Final = 10_000
_MEMORY_S: Final = 1.0  # how long a shared fact may be served from memory
_RAISES: Final = "raises"


class Recent:
    """The last pins, prompt caches and floors of sessions, and facts that change slowly."""

    def __init__(self) -> None:
        self._pins: OrderedDict[str, str] = OrderedDict()
        self._warmths: OrderedDict[tuple[str, str], dict[str, Warmth]] = OrderedDict()
        self._floors: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._facts: dict[str, tuple[float, Any]] = {}

    def add(self, step: Record) -> None:
        """Keep what a row that is about to be written tells."""
        self._pins.update(dict.fromkeys(step.tool_use_ids, step.made_by))
        while len(self._pins) > _MOST:
            self._pins.popitem(last=False)
        key = (step.exchange.tenant, step.exchange.session)
        if step.floor:
            mine = (step.exchange.at, step.floor)
            _keep(self._floors, key, max(mine, self._floors.get(key, mine), key=itemgetter(0)))
        if step.warmth is not None:
            known = self._warmths.get(key, {})
            before = known.get(step.warmth.model)
            warmth = step.warmth if before is None else before.followed_by(step.warmth)
            _keep(self._warmths, key, {**known, warmth.model: warmth})

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
            _keep(self._warmths, (tenant, session), found)
        return found

    def floor(self, tenant: str, session: str, written: tuple[float, str]) -> tuple[float, str]:
        """Return when the session escalated last and to which tier: as written, or as remembered if later."""
        return max(written, self._floors.get((tenant, session), written), key=itemgetter(0))

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


def _keep(remembered: OrderedDict[tuple[str, str], T], key: tuple[str, str], value: T) -> None:
    """Remember this last, and forget what was remembered first where that is too much."""
    remembered.pop(key, None)  # to its end; `move_to_end` fails where another thread dropped it
    remembered[key] = value
    while len(remembered) > _MOST:
        remembered.popitem(last=False)
