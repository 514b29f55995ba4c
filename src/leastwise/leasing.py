"""Reserving an attempt's worst case before it is sent, and saying why a budget cannot cover it.

The worst case is a bound, not an estimate: every prompt token at the dearest class it could fall in, the
whole of `max_tokens`, every search that is allowed. What has no bound - server tools without `max_uses`,
compaction, fallbacks on the API's side - is refused by name under a budget, unless the configuration
says that it may be estimated.

A lease that does not fit waits while the leases of others could still make room; what is spent does
not come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from leastwise.budget import BudgetRule, Limits, Refusal, percent_of
from leastwise.errors import BudgetExceededError, UnboundedError, UnknownPriceError
from leastwise.ladder import Ladder
from leastwise.messages import Request
from leastwise.money import places_of, show, to_usd
from leastwise.prices import Cost, PriceBook, worst_case
from leastwise.steps import Lease, Sleep, Steps, lease
from leastwise.tally import most_runs, prompt_bound, prompt_ceiling, unbounded_part

_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.5
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
#: What a request without a readable `max_tokens` is reserved for.
_UNKNOWN_MAX_TOKENS: Final = 128_000
#: What the API may add to a prompt where nothing bounds it, for an estimate: a few pages, a few searches.
_ESTIMATED_GROWTH: Final = 100_000
_ESTIMATED_SEARCHES: Final = 10


def worst_of(
    request: Request,
    provider: str,
    at: float,
    book: PriceBook,
    *,
    is_estimate: bool = False,
    is_batch: bool = False,
) -> Cost:
    """Return the most that one attempt can cost.

    Args:
        request: As it will be sent.
        provider: Who will bill it.
        at: When, in seconds since the epoch.
        book: Dated rates.
        is_estimate: Whether parts without a bound may be estimated; else they count as they do where
            nobody needs a bound, once.
        is_batch: Whether it runs in a batch.

    Raises:
        UnknownPriceError: the model has no price.
    """
    runs, searches = most_runs(request)
    prompt = prompt_bound(request) * runs
    is_guess = is_estimate and bool(unbounded_part(request))
    if is_guess:
        prompt, searches = prompt_ceiling(request) + _ESTIMATED_GROWTH, searches or _ESTIMATED_SEARCHES
    return worst_case(
        prompt,
        cap_of(request) * (1 if is_guess else runs),
        request.model,
        datetime.fromtimestamp(at, UTC),
        book,
        provider=provider,
        is_fast=request.get("speed") == "fast",
        is_batch=is_batch,
        web_searches=searches,
    )


def cap_of(request: Request) -> int:
    """Return the most tokens that an answer may have."""
    told = request.max_tokens
    return _UNKNOWN_MAX_TOKENS if told is None else max(0, told)  # below nothing would free others' money


def check_bounded(request: Request, budget: str) -> None:
    """Refuse a request that a budget cannot cover, because a part of it has no bound.

    Raises:
        UnboundedError: names the part, the budget, and what to do.
    """
    part = unbounded_part(request)
    if part:
        message = (
            f"{part}: its cost has no bound, so budget {budget!r} cannot cover it. Bound it, or have such "
            f'requests estimated with [limits] unbounded = "estimate"'
        )
        raise UnboundedError(message)


def reserve(
    step: Lease, limits: Limits, waited: list[float], mine: Mapping[str, int] = _NOTHING
) -> Steps[Refusal | None]:
    """Take the lease, waiting for others that may leave room; return why not where it cannot be had.

    Args:
        step: The lease.
        limits: How long to wait.
        waited: The pauses that its request made before: it does not wait anew for each tier.
        mine: What the same request holds already, by account: it will not leave room.
    """
    if not step.claims:
        yield step  # who abandons it has still to be known
        return None
    pause_s = _FIRST_PAUSE_S
    while True:
        refusal = yield from lease(step)
        if refusal is None or sum(waited) >= limits.wait_s:
            return refusal
        if not refusal.could_fit(step.reserved.worst_nusd + mine.get(refusal.claim.account.id, 0)):
            return refusal
        yield Sleep(pause_s)
        waited.append(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def refused(
    refusal: Refusal, worst_nusd: int, limits: Limits, ladder: Ladder, costs: Iterable[tuple[str, int]]
) -> BudgetExceededError:
    """Return the error for a lease that was refused.

    Args:
        refusal: As the store gave it.
        worst_nusd: What was to be reserved.
        limits: For whom to ask.
        ladder: For the order of tiers.
        costs: Tiers and the most that this request would cost there.
    """
    rule, standing, limit = refusal.claim.rule, refusal.standing, refusal.claim.limit_nusd
    room = limit - standing.spent_nusd - standing.leased_nusd
    works = tuple(name for name, nusd in costs if nusd <= room and name in ladder)
    window = refusal.claim.account.window
    ends = None if window.ends_at is None else datetime.fromtimestamp(window.ends_at, ZoneInfo(rule.tz))
    kept_nusd, places = refusal.claim.kept_nusd, places_of(limit)
    sums = (standing.spent_nusd, standing.leased_nusd, limit + kept_nusd, kept_nusd, worst_nusd)
    spent, held, most, kept, worst = (show(nusd, places) for nusd in sums)
    words = f"Budget {_named(refusal)}: {spent} of {most}{_when(rule, window.began_at)} spent"
    if kept_nusd:
        words += f", {kept} of it kept for tool loops"
    if standing.leased_nusd:
        words += f", {held} reserved for calls under way"
    words += f"; this call could cost {worst}."
    if ends is not None:
        words += f" Resets {ends.day} {ends:%b %H:%M} {rule.tz}."
    if limits.contact:
        words += f" Ask: {limits.contact}."
    if works:
        words += f' Still works: model="{works[-1]}".'
    return BudgetExceededError(
        words,
        budget=rule.name,
        account=refusal.claim.account.id,
        window_key=window.key,
        spent_usd=to_usd(standing.spent_nusd),
        reserved_usd=to_usd(standing.leased_nusd),
        limit_usd=to_usd(limit),
        needed_usd=to_usd(worst_nusd),
        percent=percent_of(standing.spent_nusd, rule.limit_nusd),
        resets_at=ends,
        works=works,
    )


def costs_below(
    request: Request, ladder: Ladder, at: float, book: PriceBook, *, is_estimate: bool
) -> Iterable[tuple[str, int]]:
    """Yield tiers and the most that the request would cost there, cheap to dear; none without a price."""
    for tier in ladder:
        asked = request.replace(model=tier.model)
        try:
            yield tier.name, worst_of(asked, tier.upstream, at, book, is_estimate=is_estimate).nusd
        except UnknownPriceError:
            continue


def _named(refusal: Refusal) -> str:
    _, _, values = refusal.claim.account.id.partition("|")
    return f"{refusal.claim.rule.name} ({values})" if values else refusal.claim.rule.name


def _when(rule: BudgetRule, began_at: float | None) -> str:
    """Return the window in words, such as ` for November`."""
    if rule.rolling:
        return f" in the last {'30 days' if rule.window == 'month' else rule.window}"
    if began_at is None:
        return " for this session" if rule.window == "session" else ""
    begin = datetime.fromtimestamp(began_at, ZoneInfo(rule.tz))
    match rule.window:
        case "month":
            return f" for {begin:%B}"
        case "week":
            return f" for the week of {begin.day} {begin:%b}"
        case "day":
            return f" for {begin.day} {begin:%b}"
        case _:
            return f" for the hour from {begin:%H:%M}"
