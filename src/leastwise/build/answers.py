"""What somebody says of an answer, as the ledger keeps it: of which request, and of whose answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from leastwise.errors import StoreError
from leastwise.ladder import Ladder
from leastwise.ledger import IDS, Feedback, Source
from leastwise.models import canonical
from leastwise.stores import Store, Story

_ANSWERS: Final = frozenset({"answer", "retry"})


@dataclass(frozen=True, slots=True)
class Word:
    """What is said of an answer, and all that is known of the request it was for."""

    feedback: Feedback
    story: Story


def word_on(
    store: Store,
    ladder: Ladder,
    any_id: str,
    *,
    ok: bool,
    source: Source,
    at: float,
    note: str = "",
    where: str = "",
) -> Word:
    """Return what is said of the answer that an id means; the ledger keeps it by `add_feedback`.

    Of a kept answer that was given again it is said of the request that paid for it.

    Args:
        store: The ledger.
        ladder: Names the tiers.
        any_id: An exchange id, a `msg_...` id or a `request-id`.
        ok: Whether the answer was acceptable.
        source: Who says so.
        at: When, in seconds since the epoch.
        note: What was said of it.
        where: The ledger's place, for the message where nothing is found in it.

    Raises:
        StoreError: the ledger knows no such request, or nobody answered it.
    """
    story = store.find(any_id)
    if story is not None and story.exchange.cache == "hit":
        paid_by = msgspec.json.decode(story.exchange.decision_json).get("paid_by", "")
        story = store.find(paid_by)
    if story is None:
        searched = where and f". Searched: {IDS} in {where}"
        message = f"nothing is known of {any_id!r}, so nothing can be said of it{searched}"
        raise StoreError(message)
    whose = _whose(story, any_id, ladder)
    if not whose:
        message = f"nobody answered {any_id!r}, so nothing can be said of the answer"
        raise StoreError(message)
    return Word(Feedback(story.exchange.id, ok, source, at, whose, note), story)


def _whose(story: Story, any_id: str, ladder: Ladder) -> str:
    """Return the tier, or off the ladder the model, whose answer is meant: the one that was served.

    But for an id of an answer that nobody got.
    """
    row = story.exchange
    for entry in story.entries:
        is_meant = any_id in (entry.message_id, entry.request_id) and entry.purpose in _ANSWERS
        if is_meant and canonical(entry.model) != canonical(row.served):
            tier = ladder.of_model(entry.model) or ladder.of_model(canonical(entry.model))
            return tier.name if tier is not None else entry.model
    return row.tier or row.served
