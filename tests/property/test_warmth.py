"""Staying or moving is never the dearer choice: by the formulas, and by the simulated API's own bill."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from leastwise.ladder import Code
from leastwise.messages import Request
from leastwise.models import load_models
from leastwise.prices import load_prices
from leastwise.routing import Known, Policy, Router, Warmth, warmth_of
from leastwise.simulate import Simulator
from tests.kit import HAIKU, NOW, OPUS, SONNET, Clock

BOOK, MODELS = load_prices(), load_models()
AT = datetime.fromtimestamp(NOW, UTC)
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
MARK = {"cache_control": {"type": "ephemeral"}}
ASK = "Summarize this article."
#: By the model that a summary is meant for.
ROUTERS = {
    model: Router(
        policy=Policy("enforce", complexity={"simple": "haiku", "standard": tier, "complex": "opus"})
    )
    for model, tier in ((HAIKU, "haiku"), (SONNET, "sonnet"))
}


def body(ask: str, *before: tuple[str, str], system: str) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for asked, said in before:
        turns += [
            {"role": "user", "content": [{"type": "text", "text": asked}]},
            {"role": "assistant", "content": said},
        ]
    last = {"role": "user", "content": [{"type": "text", "text": ask, **MARK}]}
    marked = [{"type": "text", "text": system, **MARK}]
    return {
        "model": OPUS,
        "max_tokens": 9_000,
        "output_config": {"effort": "medium"},  # by default sonnet thinks longer, which is not what is tested
        "system": marked,
        "messages": [*turns, last],
    }


# --- by the formulas ---------------------------------------------------------------------------------


def turns_cost(model: str, cached: int, prefix: int, fresh: int, *, output: int, count: int) -> int:
    """Return what the turns cost, as the table of a session's bill: written apart from the code.

    What is new in the first turn beyond 500 tokens is taken to be a paste that later ones do not have.
    """
    total, usual = 0, min(fresh, 500)
    for turn in range(count):
        prompt = prefix + fresh + turn * (usual + output)
        rate = BOOK.rate(model, AT, prompt)
        read = cached if turn == 0 else prompt - usual
        total += read * rate.cache_read + (prompt - read) * rate.cache_write_5m + output * rate.output
    return total


prefixes = st.integers(1_000, 200_000)


@given(
    meant=st.sampled_from([HAIKU, SONNET]),
    prefixes=st.fixed_dictionaries({OPUS: prefixes}, optional={SONNET: prefixes, HAIKU: prefixes}),
    ages=st.permutations([10, 20, 30]),
    turns=st.integers(1, 20),
    output=st.integers(1, 3_000),
)
@example(
    meant=SONNET, prefixes={OPUS: 2_000, SONNET: 1_000, HAIKU: 1_287}, ages=[20, 30, 10], turns=1, output=1
)
def test_no_option_that_was_compared_is_cheaper_than_the_one_chosen(
    meant: str, prefixes: dict[str, int], ages: list[int], *, turns: int, output: int
) -> None:
    longest = max(prefixes.values())
    request = Request.of(body(ASK, system="x" * (longest * 38 // 13)))
    warmths = {
        model: Warmth(model, NOW - age, prefix, 0, output * turns, turns)
        for age, (model, prefix) in zip(ages, prefixes.items(), strict=False)
        if 2 * prefix > longest  # what is much shorter is no beginning of this prompt
    }

    decision = ROUTERS[meant].decide(request, known=Known(warmths=warmths), now=AT)

    count = min(turns * len(warmths), 50)
    if decision.reasons[-1].code is not Code.CACHE:
        assert meant == decision.model
        return
    last = max(warmths.values(), key=lambda warmth: warmth.at)
    ask_tokens = 13 * (len(ASK) / 3.8 + 4) / 10
    fresh = max(-(-ask_tokens // 1), decision.input_tokens - last.prefix_tokens - last.prefix_tokens // 10)
    dear = [model for model in (HAIKU, SONNET, OPUS) if model in warmths and _price(model) > _price(meant)]
    costs = {
        model: turns_cost(
            model,
            min(warmths[model].prefix_tokens, last.prefix_tokens) if model in warmths else 0,
            last.prefix_tokens,
            int(fresh),
            output=output,
            count=count,
        )
        for model in (meant, *dear)
    }
    event("stays" if decision.model != meant else "moves")
    assert min(costs.values()) == costs[decision.model]


def _price(model: str) -> int:
    return BOOK.rate(model, AT).input


# --- by the bill -------------------------------------------------------------------------------------


class Talk:
    """One conversation, by some way to choose a model, with a simulated API of its own."""

    def __init__(self, prefix_tokens: int, output_tokens: int, *, meant: str, always: str = "") -> None:
        self._clock = Clock()
        self._api = Simulator(clock=self._clock)
        self._system = "x" * (prefix_tokens * 40 // 13)
        self._said = "y" * (output_tokens * 40 // 13)
        self._meant = meant
        self.always = always
        self._before: list[tuple[str, str]] = []
        self._warmths: dict[str, Warmth] = {}
        self.models: list[str] = []

    def say(self) -> None:
        """Have one turn, a minute after the one before."""
        self._clock.now += 60
        asked = body(ASK, *self._before, system=self._system)
        asked["model"] = self.always or self._decided(asked)
        self._api.script(self._said)
        response = self._api.handle("POST", "/v1/messages", HEADERS, json.dumps(asked).encode())
        assert response.status == 200
        response.read()
        charge = self._api.books[-1]
        found = warmth_of(charge.usage, charge.model, self._clock.now, self._warmths.get(charge.model))
        if found is not None:
            before = self._warmths.get(charge.model)
            self._warmths[charge.model] = found if before is None else before.followed_by(found)
        self._before.append((ASK, self._said))
        self.models.append(charge.model)

    def _decided(self, asked: dict[str, Any]) -> str:
        if not self._before:
            return OPUS
        now = datetime.fromtimestamp(self._clock.now, UTC)
        return (
            ROUTERS[self._meant].decide(Request.of(asked), known=Known(warmths=self._warmths), now=now).model
        )

    @property
    def nusd(self) -> int:
        """What the API billed after the first turn, which is opus's in any case."""
        return sum(charge.nusd for charge in self._api.books[1:])


@given(
    meant=st.sampled_from([HAIKU, SONNET]),
    prefix_tokens=st.integers(2_000, 120_000),
    output_tokens=st.integers(10, 1_500),
    turns=st.integers(1, 14),
)
@settings(max_examples=25)
def test_a_session_is_never_dearer_than_the_worse_of_always_staying_and_moving_at_once(
    meant: str, prefix_tokens: int, output_tokens: int, turns: int
) -> None:
    ours, stays, moves = (
        Talk(prefix_tokens, output_tokens, meant=meant, always=always) for always in ("", OPUS, meant)
    )
    moves.always = OPUS
    for talk in (ours, stays, moves):
        talk.say()
    moves.always = meant
    for _ in range(turns):
        for talk in (ours, stays, moves):
            talk.say()

    moved_at = ours.models.index(meant) if meant in ours.models else None
    event(f"moves at {moved_at}")
    # one that moves and then ends sooner than expected has paid one reading anew too many, and no more
    is_as_long_as_expected = moved_at is None or turns + 1 >= 2 * moved_at
    anew = (
        0
        if is_as_long_as_expected
        else 2 * prefix_tokens * BOOK.rate(meant, AT, 10**6).cache_write_5m // 10**6
    )
    assert ours.nusd <= max(stays.nusd, moves.nusd) + anew
    assert [OPUS] == sorted(set(ours.models[: moved_at if moved_at is not None else None]))
