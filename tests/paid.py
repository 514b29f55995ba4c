"""Requests, and attempts that budgets paid for, as a ledger has them."""

from __future__ import annotations

import random
from dataclasses import fields
from decimal import Decimal
from itertools import count
from typing import Any

from leastwise.budget import Account, BudgetRule, Claim, Window, window_of
from leastwise.ledger import Certainty, Charge, Entry, Exchange, Reserved, new_id
from leastwise.messages import Usage
from leastwise.money import to_nusd
from leastwise.steps import Lease, Settle
from leastwise.stores import BudgetStore, Store
from tests.kit import OPUS

_numbers = count()


def entry_id(at: float) -> str:
    """Return an id of that time, which no other has."""
    return new_id(at, random.Random(next(_numbers)))


def paid(
    rule: BudgetRule,
    at: float,
    usd: Decimal | str | int,
    *,
    account: str | None = None,
    certainty: Certainty = "exact",
    model: str = OPUS,
) -> Entry:
    """Return an attempt that an account of a budget paid for; $1 is 50,000 tokens out of opus."""
    nusd = to_nusd(usd)
    return Entry(
        id=entry_id(at),
        exchange_id=entry_id(at),
        purpose="answer",
        provider="anthropic",
        model=model,
        asked_at=at,
        status=200,
        usage=Usage(output_tokens=nusd // 20_000),
        price_row="" if certainty == "lost" else "row",
        cost_nusd=nusd,
        worst_nusd=nusd,
        certainty=certainty,
        charges=(Charge(account or rule.name, window_of(rule, at).key, nusd),),
    )


def row(**facts: Any) -> Exchange:
    """Return a request of which nothing is known but these facts."""
    given: dict[str, Any] = {one.name: "" if one.type == "str" else 0 for one in fields(Exchange)}
    return Exchange(**{**given, **facts})


def settle(store: Store, *entries: Entry) -> None:
    """Have a store charge attempts."""
    store.write(*(Settle(entry) for entry in entries), may_wait=True)


def reserve(store: BudgetStore, rule: BudgetRule, at: float, usd: Decimal | str | int) -> Reserved:
    """Reserve in a budget of all calls, and leave it so."""
    nusd, window = to_nusd(usd), window_of(rule, at)
    claim = Claim(Account(rule.name, Window(window.key, window.first)), rule.most_nusd, rule)
    charges = (Charge(rule.name, window.key, nusd),)
    reserved = Reserved(entry_id(at), entry_id(at), "answer", "anthropic", OPUS, at, nusd, charges)
    entry = reserved.lost()

    def abandoned(_: object) -> tuple[Settle, object]:
        return Settle(entry), None

    assert store.lease(Lease(reserved, (claim,), abandoned), may_wait=True) is None  # type: ignore[arg-type]
    return reserved
