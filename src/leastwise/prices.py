"""What a call costs: dated rates, and one pure function that prices by them.

The shipped rates live in `data/prices.toml`, each row with its source; a new rate is a
new row, never an edit. Configured rates win over them. Rates are nano-dollars per
million tokens and a sum is rounded once, so the same call always costs the same.

What multiplies a rate, and what does not:

- five token classes have rates of their own: input, output, cache read, cache write for
  five minutes, cache write for an hour;
- a prompt longer than a row's `prompt_over` moves the *whole* request to that row, its
  output too; the prompt is all input, cached or not;
- batch halves, fast mode doubles, inference pinned to the US costs a tenth more; they
  multiply each other;
- a web search costs a fixed fee, which nothing but a negotiated discount changes.

Not here: what a prompt will count (`features`), who pays (`budget`), what is kept (`ledger`).

Sources: https://platform.claude.com/docs/en/about-claude/pricing and .../fast-mode,
.../data-residency, .../compaction-threshold under build-with-claude
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from itertools import pairwise
from math import lcm
from typing import Any, Final, Literal

from leastwise.errors import ConfigError, UnknownPriceError
from leastwise.ladder import Ladder, Tier
from leastwise.messages import Usage
from leastwise.models import Models, canonical
from leastwise.money import TOKENS_PER_MTOK, divide_half_even, divide_up, to_nusd

DEFAULT_PROVIDER: Final = "anthropic"
WEB_SEARCH_NUSD: Final = 10_000_000  # $10 per 1,000

# Multipliers in twentieths, so that every product of 1/2 (batch), 2 (fast) and 11/10 (US) is whole.
_WHOLE: Final = 20
_PER_TOKEN: Final = TOKENS_PER_MTOK * _WHOLE
_MESSAGE_KINDS: Final = frozenset({"message", "fallback_message"})
_ADVISOR: Final = "advisor_message"
_RATES: Final = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
_NOT_DATED: Final = date(2020, 1, 1)  # before any call a ledger or a log could hold


@dataclass(frozen=True, slots=True)
class Rate:
    """One row of a price list, in nano-dollars per million tokens.

    Attributes:
        provider: Whose price it is: `anthropic`, or the name of an upstream.
        model: The model's id, without a date.
        since: First day (UTC) it holds; rows of one day are one price list.
        until: First day it no longer holds; None when a later row, or nothing, ends it.
        prompt_over: It holds for prompts of more tokens than this; 0 for all.
        input: Prompt tokens neither read from nor written to the cache.
        output: Answer tokens, thinking included.
        cache_read: Prompt tokens read from the cache.
        cache_write_5m: Prompt tokens kept for five minutes.
        cache_write_1h: Prompt tokens kept for an hour.
        has_fast: Whether fast mode is sold at this rate's double.
        source: Where the row comes from.
        as_of: The day it was read there.
        id: The row's name in a ledger, such as `anthropic/claude-haiku-5-5@2026-10-07>100000`.
    """

    provider: str
    model: str
    since: date
    until: date | None
    prompt_over: int
    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    has_fast: bool
    source: str
    as_of: date
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse negative rates and a row that never holds.

        Raises:
            ConfigError: names the row, the field and its value.
        """
        for name in ("prompt_over", *_RATES):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise _wrong(self.model, f"{name} = {value!r} is not a whole number from 0")
        if self.until is not None and self.until <= self.since:
            raise _wrong(self.model, f"until = {self.until} is not after since = {self.since}")
        over = f">{self.prompt_over}" if self.prompt_over else ""
        object.__setattr__(self, "id", f"{self.provider}/{self.model}@{self.since}{over}")

    @classmethod
    def read(
        cls, row: Mapping[str, Any], *, source: str = "leastwise.toml", as_of: date | None = None
    ) -> Rate:
        """Read a `[[price]]` row, whose rates are dollars per million tokens.

        `model`, `input` and `output` are required. Without rates of its own the cache is
        priced as the API mostly does (writes 1.25 and 2 times the input), and a read as input.

        Args:
            row: Decoded TOML; decimals may be numbers or strings.
            source: Stands where the row names none.
            as_of: Stands where the row names none; by default the row's `since`.

        Raises:
            ConfigError: a name is missing or unknown, or a value is not what it should be.
        """
        model = row.get("model")
        known = [column.name for column in fields(cls) if column.init]
        for name in row:
            if name not in known:
                raise _wrong(model, f"unknown key {name!r}; known: {', '.join(known)}")
        for name in ("model", "input", "output"):
            if name not in row:
                raise _wrong(model, f"{name} is missing (rates: dollars per million tokens)")
        since = _day_in(row, "since") or _NOT_DATED
        paid = _nusd_in(row, "input")
        return cls(
            provider=str(row.get("provider", DEFAULT_PROVIDER)),
            model=str(model),
            since=since,
            until=_day_in(row, "until"),
            prompt_over=row.get("prompt_over", 0),
            input=paid,
            output=_nusd_in(row, "output"),
            cache_read=_nusd_in(row, "cache_read", paid),
            cache_write_5m=_nusd_in(row, "cache_write_5m", divide_up(5 * paid, 4)),
            cache_write_1h=_nusd_in(row, "cache_write_1h", 2 * paid),
            has_fast=row.get("has_fast", False) is True,
            source=str(row.get("source", source)),
            as_of=_day_in(row, "as_of") or as_of or since,
        )


def _wrong(model: object, what: str) -> ConfigError:
    return ConfigError(f"[[price]] {model!r}: {what}")


def _nusd_in(row: Mapping[str, Any], name: str, otherwise: int = 0) -> int:
    try:
        return to_nusd(row[name]) if name in row else otherwise
    except ValueError as error:
        raise _wrong(row.get("model"), f"{name} is {error}") from None


def _day_in(row: Mapping[str, Any], name: str) -> date | None:
    value = row.get(name)
    if value is not None and type(value) is not date:  # a datetime is a date, but compares with none
        raise _wrong(row.get("model"), f"{name} = {value!r} is not a day such as 2026-10-07")
    return value


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All rates, immutable.

    The newest list that holds on the day is used, and of it the row with the highest
    `prompt_over` that the prompt exceeds. Overrides come first, so one that prices a model
    without `prompt_over` holds for prompts of every length.

    A provider without any row is charged as `anthropic`, because upstreams are named by the
    user and most lead to the same API; with one row it needs a row for each of its models.

    Attributes:
        rates: The shipped rows.
        overrides: The configured rows, which win.
        discount: Share of every sum that is not charged, such as 0.15.
        unpriced: Whether a model without a price is an error, or costs nothing.
        charged: What the discount leaves of a sum, as numerator and denominator.
    """

    rates: tuple[Rate, ...]
    overrides: tuple[Rate, ...] = ()
    discount: Decimal = Decimal(0)
    unpriced: Literal["error", "allow"] = "error"
    charged: tuple[int, int] = field(init=False, repr=False, compare=False)
    _rows: Mapping[tuple[str, str], tuple[Rate, ...]] = field(init=False, repr=False, compare=False)
    _providers: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the rows in the order they are looked through.

        Raises:
            ConfigError: the discount is not a share from 0 to 1.
        """
        if not 0 <= self.discount <= 1:
            message = f"discount = {self.discount}: expected a share from 0 to 1, such as 0.15"
            raise ConfigError(message)
        rows: dict[tuple[str, str], list[Rate]] = {}
        for group in (self.overrides, self.rates):
            for rate in sorted(group, key=lambda row: (row.since, row.prompt_over), reverse=True):
                rows.setdefault((rate.provider, canonical(rate.model)), []).append(rate)
        object.__setattr__(self, "_rows", {key: tuple(found) for key, found in rows.items()})
        object.__setattr__(self, "_providers", frozenset(provider for provider, _ in rows))
        object.__setattr__(self, "charged", (1 - self.discount).as_integer_ratio())

    def with_rates(self, extra: Iterable[Rate]) -> PriceBook:
        """Return a book in which `extra` wins over shipped rows, and over overrides of the same day."""
        return PriceBook(self.rates, (*extra, *self.overrides), self.discount, self.unpriced)

    def rate(
        self, model: str, at: datetime, prompt_tokens: int = 0, provider: str = DEFAULT_PROVIDER
    ) -> Rate:
        """Return the row for a prompt of `prompt_tokens` sent to `model` at `at`.

        Args:
            model: The model's id, in any of its spellings.
            at: When the request was sent; must carry a time zone.
            prompt_tokens: All input: uncached, read from and written to the cache.
            provider: Whose prices apply.

        Raises:
            UnknownPriceError: no row holds, and unpriced models are not allowed.
            ValueError: `at` has no time zone.
        """
        found = self._find(model, at, prompt_tokens, provider)
        if found is not None:
            return found
        if self.unpriced == "allow":
            day = _day(at)
            return Rate(
                provider, model, day, None, 0, 0, 0, 0, 0, 0, has_fast=False, source="unpriced", as_of=day
            )
        raise UnknownPriceError(model, provider)

    def has(self, model: str, at: datetime, provider: str = DEFAULT_PROVIDER) -> bool:
        """Tell whether `model` has a price at `at`, whatever `unpriced` allows."""
        return self._find(model, at, 0, provider) is not None

    def reachable(
        self, model: str, at: datetime, prompt_tokens: int, provider: str = DEFAULT_PROVIDER
    ) -> tuple[Rate, ...]:
        """Return every row that a prompt of at most `prompt_tokens` may meet.

        Raises:
            UnknownPriceError: no row holds, and unpriced models are not allowed.
            ValueError: `at` has no time zone.
        """
        steps = (row.prompt_over + 1 for row in self._candidates(model, provider))
        sizes = (0, prompt_tokens, *(size for size in steps if size < prompt_tokens))
        return tuple(dict.fromkeys(self.rate(model, at, size, provider) for size in sizes))

    def _candidates(self, model: str, provider: str) -> tuple[Rate, ...]:
        owner = provider if provider in self._providers else DEFAULT_PROVIDER
        return self._rows.get((owner, model)) or self._rows.get((owner, canonical(model)), ())

    def _find(self, model: str, at: datetime, prompt_tokens: int, provider: str) -> Rate | None:
        day = _day(at)
        for row in self._candidates(model, provider):
            holds = row.since <= day and (row.until is None or day < row.until)
            if holds and (row.prompt_over == 0 or prompt_tokens > row.prompt_over):
                return row
        return None


def _day(at: datetime) -> date:
    if at.tzinfo is None:
        message = f"{at!r} has no time zone; prices change at midnight UTC"
        raise ValueError(message)
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).date()


@cache
def load_prices() -> PriceBook:
    """Return the rates listed in the package's `data/prices.toml`."""
    text = files("leastwise").joinpath("data/prices.toml").read_text("utf-8")
    table = tomllib.loads(text, parse_float=Decimal)
    return PriceBook(
        tuple(Rate.read(row, source=table["source"], as_of=table["as_of"]) for row in table["price"])
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """A price in nano-dollars, and the id of the row it was worked out by (several joined by `+`)."""

    nusd: int
    price_row: str


def cost(
    usage: Usage,
    model: str,
    at: datetime,
    book: PriceBook,
    *,
    provider: str = DEFAULT_PROVIDER,
    is_batch: bool = False,
) -> Cost:
    """Price one call, in nano-dollars, by the rates in force at `at`, rounded once, half to even.

    An answer that ran in parts (`usage.iterations`) is priced part by part, each by its own
    model and its own prompt length. Where the parts tell of the message itself they replace
    the top-level counts, which sum them up; where they tell only of compaction or an advisor
    they come on top, because the top level leaves those out. Speed, place and service tier
    are the request's, and so hold for every part.

    Args:
        usage: Token counts as the API reports them.
        model: The model that answered, which may not be the one asked for.
        at: When the request was sent; must carry a time zone.
        book: Dated rates, in nano-dollars per million tokens.
        provider: Whose prices apply.
        is_batch: Whether it ran in a batch; a usage that says so itself needs no telling.

    Raises:
        UnknownPriceError: `book` has no rate for a model at that time.
        ValueError: `at` has no time zone.
    """
    if not usage.iterations:
        rate = book.rate(model, at, usage.prompt_tokens, provider)
        return Cost(_charge(_tokens(usage, rate), usage, book, is_batch=is_batch), rate.id)
    total, rows = 0, []
    for _, name, part in _parts(usage, model):
        rate = book.rate(name, at, part.prompt_tokens, provider)
        total += _tokens(part, rate)
        rows.append(rate.id)
    return Cost(_charge(total, usage, book, is_batch=is_batch), "+".join(dict.fromkeys(rows)))


def baseline_cost(  # noqa: PLR0917 - what was used, by whom, and what it is compared with
    usage: Usage,
    served: str,
    baseline: str,
    at: datetime,
    book: PriceBook,
    models: Models,
    *,
    provider: str = DEFAULT_PROVIDER,
    is_batch: bool = False,
) -> Cost:
    """Re-price a call as if `baseline` had answered it in `served`'s place.

    The rule, stated wherever the number is shown as *re-priced*: the tokens used, scaled to
    the baseline's tokenizer and not rounded, at the baseline's rates, each in the class it
    was in - what was read from the cache counts as read, what was written as written. The
    length of the baseline's own answer and the state of its own cache are not known. An
    advisor keeps its own price: it would have been asked all the same. A fast answer is set
    against the baseline's standard price where the baseline sells no fast mode.

    Args:
        usage: Token counts as `served` reported them.
        served: The model that answered.
        baseline: The model that would have.
        at: When the request was sent; must carry a time zone.
        book: Dated rates.
        models: Which tokenizer each model has.
        provider: Whose prices apply to the baseline.
        is_batch: Whether it ran in a batch.

    Raises:
        UnknownPriceError: `book` has no rate for a model at that time.
        ValueError: `at` has no time zone.
    """
    per_part, rows = [], []
    sells_fast = True
    for kind, name, part in _parts(usage, served):
        paid = name if kind == _ADVISOR else baseline
        more, less = models.token_ratio(name, paid)
        rate = book.rate(paid, at, divide_up(part.prompt_tokens * more, less), provider)
        per_part.append((_tokens(part, rate) * more, less))
        rows.append(rate.id)
        sells_fast = sells_fast and rate.has_fast
    if not sells_fast and canonical(served) != canonical(baseline):
        usage = replace(usage, speed="standard")
    scale = lcm(*(less for _, less in per_part))
    total = sum(price * scale // less for price, less in per_part)
    return Cost(_charge(total, usage, book, is_batch=is_batch, scale=scale), "+".join(dict.fromkeys(rows)))


def worst_case(
    prompt_tokens_bound: int,
    max_tokens: int,
    model: str,
    at: datetime,
    book: PriceBook,
    *,
    provider: str = DEFAULT_PROVIDER,
    is_fast: bool = False,
    is_us: bool = True,
    is_batch: bool = False,
    web_searches: int = 0,
) -> Cost:
    """Return the most that a call can cost, rounded up: what a reservation must hold.

    Every prompt token at the dearest class, the dearest row that a prompt up to the bound
    may meet, `max_tokens` of output. It bounds an answer that runs once: compaction, advisors
    and server-side fallbacks have no bound, and are refused where one is needed.

    Args:
        prompt_tokens_bound: Most tokens the prompt can have.
        max_tokens: Most tokens the answer can have.
        model: The model that will answer.
        at: When the request is sent; must carry a time zone.
        book: Dated rates.
        provider: Whose prices apply.
        is_fast: Whether fast mode is asked for.
        is_us: Whether inference may be pinned to the US; a workspace can do so unasked.
        is_batch: Whether it runs in a batch.
        web_searches: Most searches the request allows.

    Raises:
        UnknownPriceError: `book` has no rate for `model` at that time.
        ValueError: `at` has no time zone.
    """
    total, row = max(
        (_most(rate, prompt_tokens_bound, max_tokens), rate.id)
        for rate in book.reachable(model, at, prompt_tokens_bound, provider)
    )
    share = _share(is_batch=is_batch, is_fast=is_fast, is_us=is_us)
    numerator, denominator = _sum(total * share, web_searches, book)
    return Cost(divide_up(numerator, denominator), row)


def _most(rate: Rate, prompt_tokens: int, output_tokens: int) -> int:
    dearest = max(rate.input, rate.cache_read, rate.cache_write_5m, rate.cache_write_1h)
    return prompt_tokens * dearest + output_tokens * rate.output


def _tokens(usage: Usage, rate: Rate) -> int:
    """Return what the tokens cost, in nano-dollars times a million."""
    return (
        usage.input_tokens * rate.input
        + usage.output_tokens * rate.output
        + usage.cache_read_input_tokens * rate.cache_read
        + usage.cache_write_5m_tokens * rate.cache_write_5m
        + usage.cache_write_1h_tokens * rate.cache_write_1h
    )


def _charge(tokens: int, usage: Usage, book: PriceBook, *, is_batch: bool, scale: int = 1) -> int:
    share = _share(
        is_batch=is_batch or usage.service_tier == "batch",
        is_fast=usage.speed == "fast",
        is_us=usage.inference_geo.lower() == "us",
    )
    return divide_half_even(*_sum(tokens * share, usage.web_search_requests, book, scale))


def _share(*, is_batch: bool, is_fast: bool, is_us: bool) -> int:
    """Return the product of the multipliers, in twentieths."""
    share = _WHOLE
    if is_fast:
        share *= 2
    if is_us:
        share = share * 11 // 10
    return share // 2 if is_batch else share


def _sum(tokens: int, searches: int, book: PriceBook, scale: int = 1) -> tuple[int, int]:
    """Return what is charged for multiplied `tokens` and for searches, as an exact fraction."""
    whole = _PER_TOKEN * scale
    kept, of = book.charged
    return (tokens + searches * WEB_SEARCH_NUSD * whole) * kept, whole * of


def _parts(usage: Usage, model: str) -> Iterator[tuple[str, str, Usage]]:
    """Yield the kind, model and counts of everything that ran; see `cost` for the rule."""
    if not any(part.kind in _MESSAGE_KINDS for part in usage.iterations):
        yield "message", model, usage
    for part in usage.iterations:
        yield part.kind, part.model or model, part.usage


def check_ladder(ladder: Ladder, at: datetime, book: PriceBook) -> None:
    """Refuse a ladder whose prices do not rise.

    Compared is input plus output; two tiers may cost the same only when both cost nothing.

    Raises:
        ConfigError: names the tiers, their models and rates, or the model without a price.
    """
    rates = [(tier, _rate_of(tier, at, book)) for tier in ladder]
    for (below, cheap), (above, dear) in pairwise(rates):
        low, high = cheap.input + cheap.output, dear.input + dear.output
        if high < low or high == low > 0:
            message = (
                f"prices do not rise along the ladder: {below.name} before {above.name}, but "
                f"{_shown(below, cheap)} and {_shown(above, dear)}. "
                f"Write the cheaper [[tier]] first, or leave one out"
            )
            raise ConfigError(message)


def check_judge(judge: str, ladder: Ladder, at: datetime, book: PriceBook) -> None:
    """Refuse a configured judge that is no tier, "" being the lowest, and no model with a price either.

    Raises:
        ConfigError: names it, the tiers, and the mend.
    """
    if not judge or judge in ladder or book.has(judge, at, ladder.serving(judge).upstream):
        return
    names = [tier.name for tier in ladder]
    close = difflib.get_close_matches(judge, names, n=1)
    mend = f"did you mean {close[0]!r}?" if close else "name a tier, or add a [[price]] row for the model"
    message = f"cascade.judge = {judge!r}: no tier ({', '.join(names)}), and no model with a price; {mend}"
    raise ConfigError(message)


def cheaper_tiers(ladder: Ladder, asked: str, at: datetime, book: PriceBook) -> tuple[Tier, ...]:
    """Return the tiers whose input and output rates are both below those of the model asked for.

    Raises:
        UnknownPriceError: `book` has no rate for `asked` or for a tier at that time.
        ValueError: `at` has no time zone.
    """
    ceiling = book.rate(asked, at)
    return tuple(
        tier
        for tier in ladder
        if (rate := book.rate(tier.model, at, provider=tier.upstream)).input < ceiling.input
        and rate.output < ceiling.output
    )


def _rate_of(tier: Tier, at: datetime, book: PriceBook) -> Rate:
    if not book.has(tier.model, at, tier.upstream):
        message = f"tier {tier.name!r}: {UnknownPriceError(tier.model, tier.upstream)}"
        raise ConfigError(message)
    return book.rate(tier.model, at, provider=tier.upstream)


def _shown(tier: Tier, rate: Rate) -> str:
    return f"{tier.model} costs ${_per_mtok(rate.input)} in, ${_per_mtok(rate.output)} out per million tokens"


def _per_mtok(nusd: int) -> str:
    return f"{Decimal(nusd).scaleb(-9).normalize():f}"
