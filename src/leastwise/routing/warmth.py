"""What a conversation's prompt cache is worth: stay with the model that has it, or leave it behind.

A prompt cache belongs to one model. A conversation that moves is read by the other model
from the start; the one left behind had only to read its cache. So moving costs once, and
pays back with every turn that is cheaper afterwards. Here are the facts (`Warmth`, from real
usage) and the arithmetic; what is chosen by it is the router's business.

In the formulas P is the cached prefix, d the new input and y the output of a turn, k how many
tokens the other model counts for one of the first; i, o, r, w are rates for input, output,
cache read and cache write; A is the model to stay on, B the one to move to. All is exact:
whole tokens, whole rates, sums in nano-dollars times a million, as rates are per million.

What a turn answers is taken to be read from the cache by the next, as the bulk of it is. Not
seen: that `speed`, and for the turns `effort`, have caches of their own.

Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import Final

from leastwise.ladder import Tier
from leastwise.messages import Usage
from leastwise.models import Models, canonical
from leastwise.money import divide_up
from leastwise.prices import Rate

FIVE_MINUTES_S: Final = 300
HOUR_S: Final = 3600

#: Turns looked ahead at most: by then every move down the default ladder has paid, or never will.
MOST_TURNS: Final = 50
_USUAL_OUTPUT_TOKENS: Final = 400
#: New input of a turn to come, at most: the next turns are not all as long as one with a paste.
USUAL_INPUT_TOKENS: Final = 500
#: A prompt with less than half of the cached prefix does not begin with it: compacted, or a side talk.
_MOST_SHRUNK: Final = 2


@dataclass(frozen=True, slots=True)
class Warmth:
    """What one model's prompt cache holds of a session, and how the session went there.

    Attributes:
        model: The model's plain id (`canonical`).
        at: When the cache was last used, seconds since the epoch.
        prefix_tokens: What was read from it and written to it in that call, in the model's own tokens.
        hour_tokens: How many of these, from the first on, are kept for an hour; the others for five minutes.
        output_tokens: Of all answers this model gave in the session.
        turns: How many these were.
    """

    model: str
    at: float
    prefix_tokens: int
    hour_tokens: int = 0
    output_tokens: int = 0
    turns: int = 1

    @property
    def ttl_s(self) -> int:
        """For how long from its last use the whole prefix is kept, in seconds."""
        return HOUR_S if self.hour_tokens >= self.prefix_tokens else FIVE_MINUTES_S

    def kept(self, now: float) -> Warmth | None:
        """Return what is still cached: all of it, then what is kept for an hour; None for nothing."""
        if now < self.at + self.ttl_s:
            return self
        if self.hour_tokens and now < self.at + HOUR_S:
            return replace(self, prefix_tokens=self.hour_tokens)
        return None

    def followed_by(self, other: Warmth) -> Warmth:
        """Return the session's state after another of this model's turns, which may have begun before."""
        output, turns = self.output_tokens + other.output_tokens, self.turns + other.turns
        return replace(other if other.at >= self.at else self, output_tokens=output, turns=turns)


def warmth_of(usage: Usage, model: str, at: float, before: Warmth | None) -> Warmth | None:
    """Return what an answer says of its model's cache, as one turn; None when it used no cache.

    What is kept for an hour comes before what is kept for five minutes, so all that precedes
    what was written for an hour is kept as long. What was only read tells no time: it is what
    was known `before`, else five minutes.

    Args:
        usage: Of the answer, whole or cut short.
        model: Who answered, in any spelling.
        at: When it was asked.
        before: What was known of this model in the session.
    """
    read, for_an_hour = usage.cache_read_input_tokens, usage.cache_write_1h_tokens
    prefix = read + for_an_hour + usage.cache_write_5m_tokens
    if not prefix:
        return None
    known = before.hour_tokens if before is not None else 0
    hour_tokens = read + for_an_hour if for_an_hour else min(read, known)
    return Warmth(canonical(model), at, prefix, hour_tokens, usage.output_tokens)


def is_prefix(warmth: Warmth, prompt_tokens: int) -> bool:
    """Tell whether a prompt of so many tokens may begin with what the cache holds."""
    return warmth.prefix_tokens <= _MOST_SHRUNK * prompt_tokens


def lost_tokens(warmths: Mapping[str, Warmth], usage: Usage, served: str, now: float, models: Models) -> int:
    """Return how many tokens of an answer's prompt the session had in another model's cache, unread here.

    That is what is still kept of the prefix of the session's last call, where another model
    answered that call; less what was read from the cache all the same.

    Args:
        warmths: The session's, before the call.
        usage: What the answer used, in the tokens of `served`.
        served: Who answered, in any spelling.
        now: When the call began, seconds since the epoch.
        models: Which tokenizer each model has.
    """
    latest = max(warmths.values(), key=lambda warmth: warmth.at, default=None)
    last = latest.kept(now) if latest is not None else None
    if last is None or last.model == canonical(served) or usage.iterations:
        return 0
    more, less = models.token_ratio(last.model, served)
    prefix = divide_up(last.prefix_tokens * more, less)
    if not is_prefix(replace(last, prefix_tokens=prefix), usage.prompt_tokens):
        return 0
    return max(0, min(prefix, usage.prompt_tokens) - usage.cache_read_input_tokens)


def as_read(usage: Usage, tokens: int) -> Usage:
    """Return `usage` with so many tokens read from the cache: those written to it first, then plain ones."""
    left = tokens
    taken = {}
    for name in ("cache_write_5m_tokens", "cache_write_1h_tokens", "input_tokens"):
        taken[name] = min(left, getattr(usage, name))
        left -= taken[name]
    rest = {name: getattr(usage, name) - count for name, count in taken.items()}
    return replace(usage, cache_read_input_tokens=usage.cache_read_input_tokens + tokens - left, **rest)


# --- the arithmetic ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turns:
    """What the next turns of a conversation are expected to be, in one model's tokens.

    Attributes:
        prefix: P, cached before the first of them.
        fresh: d, new input of each.
        output: y, answered in each.
        count: How many.
        extra: New input of the first beyond d: what is pasted now is not pasted in every turn.
    """

    prefix: int
    fresh: int
    output: int
    count: int = 1
    extra: int = 0

    def scaled(self, more: int, less: int) -> Turns:
        """Return the same turns in the tokens of a model that counts `more` for every `less` (k)."""
        prefix, fresh, output, extra = (
            divide_up(size * more, less) for size in (self.prefix, self.fresh, self.output, self.extra)
        )
        return Turns(prefix, fresh, output, self.count, extra)

    @property
    def prompt(self) -> int:
        """The prompt of the first turn."""
        return self.prefix + self.fresh + self.extra


@dataclass(frozen=True, slots=True)
class Card:
    """What a model charges a conversation.

    Attributes:
        rate: The row for a prompt of so many tokens.
        ttl_s: How long what it caches is kept.
        minimum: Shortest prompt it caches; a shorter one is plain input.
    """

    rate: Callable[[int], Rate]
    ttl_s: int = FIVE_MINUTES_S
    minimum: int = 0

    def write(self, rate: Rate) -> int:
        """Return the rate for writing to the cache."""
        return rate.cache_write_1h if self.ttl_s == HOUR_S else rate.cache_write_5m


def expected_turns(warmths: Mapping[str, Warmth], told_output: int | None) -> tuple[int, int]:
    """Return how many turns a session is expected to go on for, and the output of each.

    As many as it has had, at least one: what has lasted so long lasts on average as long again
    (Lindy). The output is the mean of the session; told or usual where no answer is known.
    """
    turns = sum(warmth.turns for warmth in warmths.values())
    output = sum(warmth.output_tokens for warmth in warmths.values())
    mean = divide_up(output, turns) if output else told_output or _USUAL_OUTPUT_TOKENS
    return min(max(turns, 1), MOST_TURNS), mean


def turn_costs(turns: Turns, card: Card, cached: int) -> Iterator[int]:
    """Yield what one turn after the other costs, without end, in nano-dollars times a million.

    Turn t has a prompt of P + d + (t-1)(d + y), and the extra of the first. The first reads what
    is cached and writes the rest, a later one reads all but d; a prompt too short for the cache
    is input.

    Args:
        turns: The turns, in the model's own tokens.
        card: What the model charges.
        cached: How many tokens of the prefix are in its cache: P for staying, 0 for moving.
    """
    prompt, read = turns.prompt, cached
    while True:
        rate = card.rate(prompt)
        output = turns.output * rate.output
        is_cached = prompt >= card.minimum
        if is_cached:
            yield read * rate.cache_read + (prompt - read) * card.write(rate) + output
        else:
            yield prompt * rate.input + output
        prompt += turns.fresh + turns.output
        read = prompt - turns.fresh if is_cached else 0


def cost_of_turns(turns: Turns, card: Card, cached: int = 0) -> int:
    """Return what the turns cost on A, staying, or on B, moved to.

    Staying, whose whole prefix is cached: r_A(P + (t-1)(d+y)) + w_A d + o_A y each. On B:
    w_B k(P+d) + o_B k y first, later as staying there.

    Args:
        turns: In the model's own tokens (`Turns.scaled`).
        card: What it charges; a `minimum` that is never reached prices a move without a cache.
        cached: What its cache holds of the prefix: P for staying.
    """
    return sum(islice(turn_costs(turns, card, cached), turns.count))


@dataclass(frozen=True, slots=True)
class Option:
    """One model that the conversation may go on with.

    Attributes:
        tier: The model.
        turns: What is to come, in the model's own tokens.
        card: What it charges.
        cached: What its own cache holds of the prefix.
    """

    tier: Tier
    turns: Turns
    card: Card
    cached: int

    @property
    def cost(self) -> int:
        """What the turns cost, in nano-dollars times a million."""
        return cost_of_turns(self.turns, self.card, self.cached)

    @property
    def lost(self) -> int:
        """What the first turn costs over reading the whole prefix from the cache."""
        prompt = self.turns.prompt
        rate = self.card.rate(prompt)
        paid = self.card.write(rate) if prompt >= self.card.minimum else rate.input
        return (self.turns.prefix - self.cached) * (paid - rate.cache_read)


def pays_from(stay: Option, switch: Option) -> int | None:
    """Return the first number of turns for which switching costs no more; None when not within 50."""
    ahead = 0
    costs = zip(*(turn_costs(one.turns, one.card, one.cached) for one in (stay, switch)), strict=False)
    for turn, (ours, others) in enumerate(islice(costs, MOST_TURNS), start=1):
        ahead += ours - others
        if ahead >= 0:
            return turn
    return None


def break_even_output(
    prefix: int, stay: Rate, switch: Rate, k: Fraction = Fraction(1), *, writes: bool = False
) -> Fraction:
    """Return y* = P (i_B k - r_A) / (o_A - o_B): a detour of one turn to B pays above so much output.

    Args:
        prefix: P, in A's tokens.
        stay: A's rates; its output must cost more than B's.
        switch: B's rates for a prompt of that length.
        k: B's tokens for one of A's.
        writes: Whether B writes its cache, so that w_B stands for i_B.
    """
    paid = switch.cache_write_5m if writes else switch.input
    return prefix * (paid * k - stay.cache_read) / (stay.output - switch.output)


def break_even_turns(turns: Turns, stay: Rate, switch: Rate, k: Fraction = Fraction(1)) -> Fraction | None:
    """Return N* = (w_B - r_B) k P / ((r_A - r_B k) P + (o_A - o_B) y + (w_A - w_B k) d); None for never.

    The growth of the prefix is left out: a rule of thumb beside `pays_from`.

    Args:
        turns: P, d and y in A's tokens.
        stay: A's rates.
        switch: B's rates for a prompt of that length.
        k: B's tokens for one of A's.
    """
    gained = (
        (stay.cache_read - switch.cache_read * k) * turns.prefix
        + (stay.output - switch.output) * turns.output
        + (stay.cache_write_5m - switch.cache_write_5m * k) * turns.fresh
    )
    paid = (switch.cache_write_5m - switch.cache_read) * k * turns.prefix
    return paid / gained if gained > 0 else None
