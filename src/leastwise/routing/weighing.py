"""Stay with the model whose prompt cache is warm, or move on: what is known of a conversation, weighed.

The arithmetic is `warmth`'s. Here it meets a request: which caches are warm and may be the
beginning of this prompt, how many turns are to come and how large they are, what each model
would charge for them, and the words for what is chosen. Which models may answer at all is the
router's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from leastwise.features import Features, estimate_last_turn, estimate_tokens
from leastwise.ladder import Tier
from leastwise.messages import Request
from leastwise.models import Models, canonical
from leastwise.money import NUSD_PER_USD, TOKENS_PER_MTOK, divide_half_even, show
from leastwise.prices import PriceBook
from leastwise.routing.policy import Known
from leastwise.routing.warmth import (
    MOST_TURNS,
    USUAL_INPUT_TOKENS,
    Card,
    Option,
    Turns,
    Warmth,
    expected_turns,
    is_prefix,
    pays_from,
)

_PLACES: Final = ((NUSD_PER_USD, 2), (NUSD_PER_USD // 100, 3), (NUSD_PER_USD // 1000, 4))


def warmths_of(
    known: Known, request: Request, features: Features, now: float, models: Models
) -> Mapping[str, Warmth]:
    """Return what is known of the session's prompt caches, or what must be taken to be so of an unknown one.

    A conversation that nobody recorded, but that marks a prompt cache and has had a human turn
    before this one, is taken to be warm on the real model it asks for, up to its last turn: the
    careful guess for traffic from before we were here.

    Args:
        known: What the ledger knows.
        request: The request.
        features: Of the request.
        now: Seconds since the epoch.
        models: Which tokenizer each model has.
    """
    asked = models.get(request.model)
    if known.warmths or not features.marks_cache or features.human_turns <= 1 or asked is None:
        return known.warmths
    correction = known.corrections.get(asked.tokenizer, 1.0)
    prompt = estimate_tokens(features, asked.tokenizer, correction)
    prefix = max(0, prompt - estimate_last_turn(request, asked.tokenizer, correction))
    guess = Warmth(asked.id, now, prefix, turns=features.human_turns - 1)
    return {asked.id: guess}


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation that marks a prompt cache, at the moment of its next request.

    Attributes:
        request: The request.
        features: Of the request.
        known: What the ledger knows of it.
        at: The moment, with its time zone.
        warmths: All its caches, warm or not, by the model's plain id.
        warm: Those that are kept, as far as they are, and may be the beginning of this prompt.
    """

    request: Request
    features: Features
    known: Known
    at: datetime
    warmths: Mapping[str, Warmth]
    warm: Mapping[str, Warmth]


def talk_of(request: Request, features: Features, known: Known, at: datetime, models: Models) -> Talk:
    """Return the conversation that `request` goes on with; arguments as in `Talk` and `warmths_of`."""
    now = at.timestamp()
    warmths = warmths_of(known, request, features, now, models)
    warm = {}
    for model, warmth in warmths.items():
        kept = warmth.kept(now)
        tokenizer = _tokenizer(models, model)
        prompt = estimate_tokens(features, tokenizer, known.corrections.get(tokenizer, 1.0))
        if kept is not None and is_prefix(kept, prompt):
            warm[model] = kept
    return Talk(request, features, known, at, warmths, warm)


@dataclass(frozen=True, slots=True)
class Scales:
    """Weighs going on with one model against going back to a dearer one that is warm.

    Attributes:
        prices: Dated rates.
        models: Tokenizers and cache minimums.
    """

    prices: PriceBook
    models: Models

    def price(self, tier: Tier, at: datetime) -> int:
        """Return input plus output, by which a ladder rises; -1 for a model without a price."""
        if not self.prices.has(tier.model, at, tier.upstream):
            return -1
        rate = self.prices.rate(tier.model, at, provider=tier.upstream)
        return rate.input + rate.output

    def weigh(self, talk: Talk, here: Tier, dearer: Sequence[Tier]) -> tuple[Tier, str]:
        """Return where the next turns cost least, and why; no words where no cache is left or kept.

        Compared is the sum over as many turns as the session has had (`expected_turns`); of
        equal sums `here` wins.

        Args:
            talk: The conversation.
            here: Where it would go.
            dearer: The tiers it may stay on instead, at least one, each of them warm.
        """
        last = max(talk.warm.values(), key=lambda warmth: warmth.at)
        count, output = expected_turns(talk.warmths, talk.features.expected_output_tokens)
        new = self._new(talk, last)
        usual = min(new, USUAL_INPUT_TOKENS)
        turns = Turns(last.prefix_tokens, usual, output, count, new - usual)
        going, *staying = (self._option(talk, tier, turns, last) for tier in (here, *dearer))
        best = min(going, *staying, key=lambda option: option.cost)  # the first of equals
        if best is not going:
            return best.tier, self._words_for_staying(talk, best, going)
        if canonical(here.model) == last.model:
            return here, ""
        left = max(staying, key=lambda option: talk.warm[canonical(option.tier.model)].at)
        return here, self._words_for_moving(talk, going, left)

    def _new(self, talk: Talk, last: Warmth) -> int:
        """Return about how many tokens of the prompt are new: the last turn, more where more is not cached.

        The prefix is known and the prompt only estimated, so that a difference of a tenth says nothing.
        """
        tokenizer = _tokenizer(self.models, last.model)
        correction = talk.known.corrections.get(tokenizer, 1.0)
        surely = last.prefix_tokens + last.prefix_tokens // 10
        return max(
            estimate_last_turn(talk.request, tokenizer, correction),
            estimate_tokens(talk.features, tokenizer, correction) - surely,
        )

    def _option(self, talk: Talk, tier: Tier, turns: Turns, last: Warmth) -> Option:
        """Return what the turns, given in the tokens of the model called last, are to `tier`."""
        model, held = self.models.get(tier.model), talk.warm.get(canonical(tier.model))
        own = turns.scaled(*self.models.token_ratio(last.model, tier.model))
        card = Card(
            lambda prompt: self.prices.rate(tier.model, talk.at, prompt, tier.upstream),
            last.ttl_s,
            model.cache_minimum_tokens if model is not None else 0,
        )
        return Option(tier, own, card, min(held.prefix_tokens, own.prefix) if held is not None else 0)

    def _words_for_staying(self, talk: Talk, best: Option, here: Option) -> str:
        count, pays = best.turns.count, pays_from(best, here)
        return (
            f"stays on {best.tier}: its prompt cache of {_size(talk, best)} "
            f"{'is' if talk.known.warmths else 'is taken to be'} warm; "
            f"{count} {'turn' if count == 1 else 'turns'} {self._money(best.cost)} "
            f"against {self._money(here.cost)} on {here.tier}, "
            f"which {f'pays from {pays} turns' if pays else f'does not pay in {MOST_TURNS} turns'}"
        )

    def _words_for_moving(self, talk: Talk, here: Option, left: Option) -> str:
        return (
            f"moves off {left.tier}'s warm prompt cache of {_size(talk, left)}: "
            f"lost {self._money(here.lost)}, pays from turn {pays_from(left, here)}"
        )

    def _money(self, cost: int) -> str:
        """Return a sum of tokens times rates as money: less the discount, to about three digits."""
        kept, of = self.prices.charged
        nusd = divide_half_even(cost * kept, TOKENS_PER_MTOK * of)
        return show(nusd, next((places for least, places in _PLACES if nusd >= least), 6))


def _tokenizer(models: Models, model: str) -> str:
    found = models.get(model)
    return found.tokenizer if found is not None else "old"


def _size(talk: Talk, option: Option) -> str:
    return f"{talk.warm[canonical(option.tier.model)].prefix_tokens:,} tokens"
