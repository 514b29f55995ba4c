"""Telling people in time that a budget runs short: in the log, and by POST to a webhook.

Once for each threshold and window, whichever process sees it first: at 50, 70, 90 and 100 %, where a
ceiling begins, at the critical tasks' own limit, and when the forecast crosses the limit before the window
ends. 100 % is where calls begin to be refused, the reserve of tool loops aside.

`watch` is called every few seconds by a thread beside the calls: no call waits for it, and nothing that
goes wrong in it reaches one. The webhook's address is a secret, its host is not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from leastwise.budget import Limits, budget_of, window_of
from leastwise.config import host_only
from leastwise.errors import StoreError
from leastwise.forecast import Forecast, Prices, TooLittle
from leastwise.ladder import Ladder
from leastwise.models import load_models
from leastwise.money import show, to_usd
from leastwise.prices import PriceBook
from leastwise.statement import (
    Statement,
    forecasts,
    heading_words,
    lasting_words,
    measured_words,
    statements,
    usage_words,
)
from leastwise.stores import Store

_log: Final = logging.getLogger(__name__)

SCHEMA: Final = 1
FORECAST: Final = "forecast"
LIMIT: Final = "100%"
CRITICAL_LIMIT: Final = "critical limit"
_SHARES: Final = (Decimal("0.5"), Decimal("0.7"), Decimal("0.9"))
_PATIENCE_S: Final = 5.0
#: The forecast is worked out anew when so much more of the limit is spent, in per cent.
_STEP: Final = 1
#: An alarm looks ahead at most so many times the stretch that the rate was measured over.
_AHEAD: Final = 10


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say of an account.

    Attributes:
        what: A threshold such as `70%`, `100%`, `critical limit`, or `forecast`.
        of: How the account stands.
        ahead: Where it is heading.
        text: It in words.
    """

    what: str
    of: Statement
    ahead: Forecast | TooLittle
    text: str


@dataclass(slots=True)
class Seen:
    """What was seen of an account, so that looking again costs nothing while it is as it was.

    Attributes:
        window_key: The window it was seen in.
        limit_nusd: The limit then.
        spent_nusd: Spent then.
        said: What is known to be said.
        forecast_at: The per cent spent when the forecast was last worked out.
    """

    window_key: str
    limit_nusd: int
    spent_nusd: int = -1
    said: set[str] = field(default_factory=set)
    forecast_at: Decimal = Decimal(-_STEP)


def watch(  # noqa: PLR0917 - what is watched, by which terms, and who is told
    store: Store,
    limits: Limits,
    ladder: Ladder,
    book: PriceBook,
    webhook: str,
    now: float,
    *,
    seen: dict[str, Seen] | None = None,
) -> list[Message]:
    """Say what is due of every account, and return it; never raises.

    Args:
        store: The ledger with its budgets.
        limits: The budgets.
        ladder: The tiers.
        book: Dated rates.
        webhook: Where to post; "" for nowhere.
        now: Seconds since the epoch.
        seen: What was seen before, by account; changed in place.
    """
    if not limits.rules:
        return []
    try:
        prices = Prices(ladder, book, load_models())
        due = list(_due(store, limits, prices, {} if seen is None else seen, now))
    except StoreError as error:
        _log.info("budgets could not be looked at: %s", error)
        return []
    for one in due:
        _log.warning("%s", one.text)
    if due and webhook:
        # On a thread of its own: a name that is not resolved takes longer than any time-out allows.
        posting = threading.Thread(target=_post, args=(webhook, due), name="leastwise-webhook", daemon=True)
        posting.start()
        posting.join(_PATIENCE_S)
    return due


def _due(
    store: Store, limits: Limits, prices: Prices, seen: dict[str, Seen], now: float
) -> Iterator[Message]:
    found = statements(store, limits, prices.ladder, now)
    for gone in seen.keys() - {one.account for one in found}:
        del seen[gone]
    for one in found:
        # In a window that rolls, a thing is said once in each of the calendar's.
        window_key = window_of(replace(one.rule, rolling=False), now).key
        before = seen.get(one.account)
        if before is None or (before.window_key, before.limit_nusd) != (window_key, one.limit_nusd):
            before = seen[one.account] = Seen(window_key, one.limit_nusd)
        if before.spent_nusd != one.standing.spent_nusd:
            before.spent_nusd = one.standing.spent_nusd
            yield from _of_account(store, one, prices, before, now)


def _of_account(store: Store, one: Statement, prices: Prices, seen: Seen, now: float) -> Iterator[Message]:
    def is_first_to(what: str) -> bool:
        """Tell whether nobody said it; of a limit that was changed it may be said again."""
        seen.said.add(what)
        return store.first_to(one.account, seen.window_key, f"{what} of {one.limit_nusd}")

    passed = [what for what in _passed(one) if what not in seen.said]
    unsaid = [what for what in passed if is_first_to(what)]
    is_early = FORECAST not in seen.said and one.standing.spent_nusd < one.usual_nusd
    if not unsaid and not (is_early and one.percent >= seen.forecast_at + _STEP):
        return
    seen.forecast_at = one.percent
    (ahead,) = forecasts(store, [one], prices, now)
    if is_early and _is_alarming(ahead, now) and is_first_to(FORECAST):
        unsaid = unsaid or [FORECAST]  # a threshold's words tell of the forecast anyway
    if unsaid:
        yield Message(unsaid[-1], one, ahead, _text(one, ahead, now))


def _passed(one: Statement) -> Iterator[str]:
    """Yield the thresholds that an account is above, the highest last."""
    spent, limit = one.standing.spent_nusd, one.limit_nusd
    shares = {*_SHARES, *(ceiling.above for ceiling in one.ceilings)}
    for share in sorted(shares):
        if spent > share * limit:
            yield f"{(100 * share).normalize():f}%"
    if spent and spent >= one.usual_nusd:
        yield LIMIT
    if spent and spent >= one.most_nusd > limit:
        yield CRITICAL_LIMIT


def _is_alarming(ahead: Forecast | TooLittle, now: float) -> bool:
    """Tell whether the limit is reached before the window ends, not too far ahead for what is known."""
    if isinstance(ahead, TooLittle) or ahead.limit_at is None:
        return False
    return ahead.limit_at - now <= _AHEAD * (now - ahead.since)


def _text(one: Statement, ahead: Forecast | TooLittle, now: float) -> str:
    parts = [f"Budget {one.name}: {usage_words(one)} spent"]
    spent, tier = one.standing.spent_nusd, one.tier
    if spent >= one.most_nusd:
        parts += ["Every call is refused"]
    elif spent >= one.usual_nusd:
        parts += [f"Only critical tasks go on, up to {show(one.most_nusd - spent)} more"]
        if one.rule.cap == "block":
            parts[-1] = "Only tool loops that began before go on"
    elif tier:
        parts += [f"Nothing above {tier} is chosen, but for critical tasks"]
    heading = heading_words(one, ahead, now)
    if heading and spent < one.limit_nusd:
        parts += [f"{heading[0].upper()}{heading[1:]} ({measured_words(ahead, now)})"]
    parts += [f"{words[0].upper()}{words[1:]}" for words in lasting_words(one, ahead, now)]
    resets = one.resets()
    return ". ".join([*parts, *([f"Resets {resets}"] if resets else [])]) + "."


# --- the webhook -------------------------------------------------------------------------------------


class _Staying(HTTPRedirectHandler):
    """Follows no redirection: a POST would become a GET, and be lost without a word."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def _post(webhook: str, due: Sequence[Message]) -> None:
    """Post all messages at once; where that fails, say so without the address."""
    value = {
        "schema": SCHEMA,
        "text": "\n".join(one.text for one in due),
        "messages": [_json(one) for one in due],
    }
    data = msgspec.json.Encoder(decimal_format="number").encode(value)
    headers = {"content-type": "application/json", "user-agent": "leastwise"}
    try:
        request = Request(webhook, data, headers)  # noqa: S310 - the configuration takes http(s) only
        with build_opener(_Staying).open(request, timeout=_PATIENCE_S):
            pass
    except HTTPError as error:
        error.close()
        _say_failed(webhook, f"HTTP {error.code}")
    except URLError as error:
        _say_failed(webhook, str(error.reason))
    except (OSError, HTTPException, ValueError) as error:  # whose words may quote the address
        _say_failed(webhook, type(error).__name__)


def _say_failed(webhook: str, why: str) -> None:
    _log.warning("the webhook %s did not take what there is to say: %s", host_only(webhook), why)


def _json(one: Message) -> dict[str, Any]:
    standing, ahead = one.of.standing, one.ahead
    return {
        "what": one.what,
        "budget": one.of.rule.name,
        "account": one.of.account,
        "scope": budget_of(one.of.account)[1],
        "window": one.of.window.key,
        "percent": round(float(one.of.percent), 2),
        "spent_usd": to_usd(standing.spent_nusd),
        "reserved_usd": to_usd(standing.leased_nusd),
        "limit_usd": to_usd(one.of.limit_nusd),
        "resets_at": _iso(one.of.window.ends_at),
        "hourly_usd": to_usd(ahead.hourly_nusd) if isinstance(ahead, Forecast) else None,
        "limit_reached_at": _iso(ahead.limit_at) if isinstance(ahead, Forecast) else None,
        "text": one.text,
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
