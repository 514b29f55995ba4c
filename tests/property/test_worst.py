"""No call costs more than was reserved for it, and each is charged what the simulated API billed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from leastwise.budget import BudgetRule, Limits
from leastwise.client import Desk, run
from leastwise.exchange import exchange
from leastwise.ladder import Baseline
from leastwise.messages import Facts, Held, Reply, Request
from leastwise.simulate import Simulator
from leastwise.sqlite import MEMORY
from leastwise.steps import Send
from leastwise.stores.sqlite import SqliteStore
from leastwise.tally import unbounded_part
from tests.kit import OPUS, Clock, call, decision, terms
from tests.property.test_fit import ASK, betas, bodies, headers, status

VERSION = "2023-06-01"
LIMITS = Limits((BudgetRule("all", 10**15, window="total"),))

#: What is asked: any script, with characters that JSON escapes, and those that it does not.
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=400)


class Upstream:
    """The simulated API as an upstream, streams and all."""

    def __init__(self, clock: Clock, answer: str) -> None:
        self.simulator = Simulator(clock=clock, answers=lambda _: answer or None)

    def __call__(self, step: Send) -> Reply:
        sent = step.request
        response = self.simulator.handle("POST", "/v1/messages", headers(VERSION, sent.betas), sent.body())
        content = response.read()
        assert 200 == response.status
        if sent.is_stream:
            return Reply(Held(content))
        return Reply(content, Facts.read(json.loads(content)))


def with_text(body: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the body with another question in the place of ours."""
    return {
        **body,
        "messages": [{**turn, "content": text} if turn == ASK else turn for turn in body["messages"]],
    }


@settings(max_examples=100, deadline=None)
@given(bodies, betas, texts, st.sampled_from(["", "word " * 100, "слово 言葉 " * 100]))
@example({"model": OPUS, "max_tokens": 1, "messages": [ASK]}, [], "\U0001f600" * 400, "word " * 100)
def test_no_call_costs_more_than_was_reserved(
    body: dict[str, Any], names: list[str], text: str, answer: str
) -> None:
    received = json.dumps(with_text(body, text), ensure_ascii=False).encode()
    asked = Request.parse(received, version=VERSION, betas=names)
    assume(200 == status(received, VERSION, asked.betas))
    assume(not unbounded_part(asked))
    model = asked.model
    made = decision(model, asked=model, fallback=model, mode="enforce", baseline=Baseline(model, "asked"))
    clock = Clock()
    upstream, store = Upstream(clock, answer), SqliteStore(MEMORY, clock=clock)

    result = run(
        exchange(call(asked, max_retries=0), terms(made, clock, limits=LIMITS)), upstream, Desk(store, clock)
    )
    if result.is_live:
        result.life.feed(result.payload)
        result.life.finish()

    (bill,) = upstream.simulator.books
    (entry,) = store.entries_of("all", 0.0)
    assert ("exact", bill.nusd) == (entry.certainty, entry.cost_nusd)
    assert entry.cost_nusd <= entry.worst_nusd
    assert {("all", "always"): bill.nusd} == store.charged()
    store.close()
