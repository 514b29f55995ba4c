"""Budgets: what a limit covers, for how long, how much of it is left, and what happens near its end.

A *rule* is one `[[budget]]` of the configuration. It may stand for many *accounts*: one for each
session, key, tag, tenant or model that its scope names. A call pays into one window of each account
that covers it: the window that its lease was taken in, whenever the answer comes.

Before a call is sent, its worst case is reserved in all of its accounts at once, or in none
(a `Claim` for each). What is reserved and what is spent never exceed the claim's limit together;
which limit that is depends on the call: a critical one may go on to the rule's second cap, and the
last share of the limit is kept for tool loops that began before it.

*Ceilings* are softer: above a share that is *spent* (what is only reserved does not count), nothing
above a tier is chosen. Critical tasks are exempt, and inside a tool loop a ceiling waits for the next
human turn.

Values and policy only: who keeps the accounts is `stores`, who asks for leases is `attempt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from functools import cache
from typing import Final, Literal, get_args
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from leastwise.errors import ConfigError
from leastwise.ladder import Held, Ladder
from leastwise.models import canonical
from leastwise.money import NUSD_PER_USD, show, to_nusd

Scope = Literal["session", "key", "tag", "tenant", "model", "global"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
Span = Literal["session", "hour", "day", "week", "month", "total"]
SPANS: Final[tuple[Span, ...]] = get_args(Span)
Cap = Literal["allow_critical", "block"]
CAPS: Final[tuple[Cap, ...]] = get_args(Cap)

#: The largest limit: Redis compares in doubles, which are exact up to here.
MOST_NUSD: Final = 9_000_000 * NUSD_PER_USD
#: The share of a limit that only tool loops may use.
DEFAULT_RESERVE: Final = Decimal("0.02")

_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
#: A rolling window: how long it looks back, and how finely, in seconds.
_ROLLING: Final[Mapping[Span, tuple[int, int]]] = {
    "hour": (_HOUR_S, 60),
    "day": (_DAY_S, _HOUR_S),
    "week": (7 * _DAY_S, 6 * _HOUR_S),
    "month": (30 * _DAY_S, _DAY_S),
}
_ALWAYS: Final = "always"  # the one window of a budget that never begins anew
_KEPT: Final = " ,:/@+"  # characters of names that need no escape in an account's id


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Above this share of the limit spent, nothing above this tier."""

    above: Decimal
    tier: str


@dataclass(frozen=True)
class BudgetRule:
    """One [[budget]].

    Args:
        name: Its name, in reports, errors and commands.
        limit_nusd: What may be spent in one window, in nano-dollars.
        scope: What has an account of its own: each session, key, tag, tenant or model; several
            names stand for each combination; `global` for one account of all calls.
        window: When it begins anew; `session` and `total`: never (a session's name is its window).
        rolling: Whether the window is the last hour, day, week or 30 days instead of the calendar's.
        tz: The time zone of calendar windows, by its IANA name.
        ceilings: Rising shares, falling tiers; None for the default of the ladder.
        cap: What may go on at the limit: critical tasks, or nothing.
        critical_limit_nusd: How much more critical tasks may spend; None for the limit once more.
        reserve: The share of the limit that is kept for tool loops begun before it.
        only: The values of the one scope that it covers; all when empty.
    """

    name: str
    limit_nusd: int
    scope: tuple[Scope, ...] = ("global",)
    window: Span = "month"
    rolling: bool = False
    tz: str = "UTC"
    ceilings: tuple[Ceiling, ...] | None = None
    cap: Cap = "allow_critical"
    critical_limit_nusd: int | None = None
    reserve: Decimal = DEFAULT_RESERVE
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError: names the budget, each key and its value; a line for each.
        """
        found = [f"[[budget]] {self.name!r}: {what}" for what in (*self._odd_sums(), *self._odd_scope())]
        if found:
            raise ConfigError("\n".join(found))

    def _odd_sums(self) -> Iterator[str]:
        if not self.name.strip():
            yield "name is empty"
        for key, value in (("limit_usd", self.limit_nusd), ("critical_limit_usd", self.critical_limit_nusd)):
            if value is not None and not 0 <= value <= MOST_NUSD:
                yield f"{key} = {show(value)}: expected from $0 to {show(MOST_NUSD, 0)}"
        if not 0 <= self.reserve < 1:
            yield f"reserve = {self.reserve}: expected a share from 0 to below 1"
        shares = [ceiling.above for ceiling in self.ceilings or ()]
        if shares != sorted(set(shares)) or not all(0 <= share < 1 for share in shares):
            yield "ceilings: expected rising shares from 0 to below 1"

    def _odd_scope(self) -> Iterator[str]:
        is_known = all(scope in SCOPES and self.scope.count(scope) == 1 for scope in self.scope)
        if not self.scope or not is_known:
            yield f"scope = {list(self.scope)}: expected each once of {', '.join(SCOPES)}"
        if "global" in self.scope and len(self.scope) > 1:
            yield f"scope = {list(self.scope)}: expected global alone, or some of the others"
        for key, value, known in (("window", self.window, SPANS), ("cap", self.cap, CAPS)):
            if value not in known:
                yield f"{key} = {value!r}: expected {', '.join(known)}"
        if self.window == "session" and "session" not in self.scope:
            yield 'window = "session" goes with scope = ["session"]'
        if self.rolling and self.window not in _ROLLING:
            yield f"rolling = true: a {self.window} window does not roll"
        if self.only and (len(self.scope) > 1 or self.scope == ("global",)):
            yield "only = ... names values of one scope; give one that has values"
        try:
            _zone(self.tz)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            yield f"tz = {self.tz!r}: no such time zone; write one such as Europe/Vienna"

    @property
    def most_nusd(self) -> int:
        """What all calls together, critical ones included, may spend in one window."""
        if self.cap == "block":
            return self.limit_nusd
        more = self.limit_nusd if self.critical_limit_nusd is None else self.critical_limit_nusd
        return self.limit_nusd + more

    def ceilings_on(self, ladder: Ladder) -> tuple[Ceiling, ...]:
        """Return the ceilings: as configured, else below the top from 70 %, the lowest from 90 %."""
        if self.ceilings is not None:
            return self.ceilings
        names = [tier.name for tier in ladder]
        if len(names) == 1:
            return ()
        return (Ceiling(Decimal("0.70"), names[-2]), Ceiling(Decimal("0.90"), names[0]))

    def kept_of(self, limit_nusd: int) -> int:
        """Return what of a limit in force only tool loops may use."""
        return int(limit_nusd * self.reserve)

    def check(self, ladder: Ladder) -> None:
        """Refuse ceilings that name no tier of `ladder`, or that rise; and tiers given for models.

        Raises:
            ConfigError: names the tier and those there are.
        """
        ranks = [ladder.rank(ceiling.tier) for ceiling in self.ceilings or ()]
        if ranks != sorted(ranks, reverse=True):
            message = f"[[budget]] {self.name!r}: ceilings: a larger share must not allow a dearer tier"
            raise ConfigError(message)
        for name in self.only if self.scope == ("model",) else ():
            if name in ladder and ladder[name].model != name:
                message = f"[[budget]] {self.name!r}: only = {name!r}: give the model, {ladder[name].model!r}"
                raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Payer:
    """Who a call is charged to, as far as budgets tell callers apart."""

    session: str = ""
    key: str = ""
    tag: str = ""
    tenant: str = "local"


def limit_of(key: str, usd: Decimal | str | float) -> int:
    """Return a limit given as dollars in nano-dollars, rounded down.

    Raises:
        ConfigError: it is none; names `key` and the value.
    """
    try:
        nusd = to_nusd(usd, ROUND_FLOOR)
    except ValueError:
        nusd = -1
    if not 0 <= nusd <= MOST_NUSD:
        message = f"{key} = {usd!r}: expected dollars from 0 to {show(MOST_NUSD, 0)}"
        raise ConfigError(message)
    return nusd


def account_of(rule: BudgetRule, payer: Payer, model: str) -> str | None:
    """Return the id of the account that pays for a call, None when the rule does not cover it.

    Args:
        rule: The rule.
        payer: Whose call.
        model: The model that is to answer, by its plain id.

    >>> account_of(BudgetRule("a", 1, scope=("tag",)), Payer(tag="triage"), "")
    'a|tag=triage'
    """
    if rule.scope == ("global",):
        return _escaped(rule.name)
    values = [_value(scope, payer, model) for scope in rule.scope]
    if not covers(rule, values):
        return None
    parts = (f"{scope}={_escaped(value)}" for scope, value in zip(rule.scope, values, strict=True))
    return "|".join((_escaped(rule.name), *parts))


def covers(rule: BudgetRule, values: Sequence[str]) -> bool:
    """Tell whether a rule covers these values of its scope; a session by its name, a model however spelt."""
    if not rule.only:
        return True
    (scope,), (value,) = rule.scope, values
    if scope == "model":
        return value in map(canonical, rule.only)
    return (value.partition("/")[2] if scope == "session" else value) in rule.only


def _value(scope: Scope, payer: Payer, model: str) -> str:
    if scope == "model":
        return model
    if scope == "session":
        return f"{payer.tenant.replace('/', '%2F')}/{payer.session}"
    value: str = getattr(payer, scope)
    return value


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _escaped(text: str) -> str:
    return quote(text, safe=_KEPT, errors="surrogatepass") if text else ""


def budget_of(account: str) -> tuple[str, dict[str, str]]:
    """Return the budget's name and the scope's values that an account's id stands for."""
    name, *parts = account.split("|")
    pairs = (part.partition("=") for part in parts)
    return unquote(name), {scope: unquote(value) for scope, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that one limit holds for.

    Attributes:
        key: Where a charge of now goes; keys of one budget sort by time.
        first: The oldest key that still counts: the same, but for a rolling window.
        began_at: Seconds since the epoch; None for one that always was.
        ends_at: When it begins anew; None for one that does not, or that rolls.
    """

    key: str
    first: str
    began_at: float | None = None
    ends_at: float | None = None


def window_of(rule: BudgetRule, at: float) -> Window:
    """Return the window of `rule` that a call at `at`, in seconds since the epoch, falls in.

    A calendar window is named by its first minute in UTC. A rolling one is made of slices, a sixtieth
    to a twenty-eighth of it, and counts the slice that its beginning falls into as a whole: it never
    forgets too early.
    """
    if rule.window in ("total", "session"):
        return Window(_ALWAYS, _ALWAYS)
    if rule.rolling:
        span_s, slice_s = _ROLLING[rule.window]
        now, first = (int(moment // slice_s) * slice_s for moment in (at, at - span_s))
        return Window(_named(now), _named(first), began_at=at - span_s)
    begin, end = _calendar(rule.window, datetime.fromtimestamp(at, UTC).astimezone(_zone(rule.tz)))
    key = _named(begin)
    return Window(key, key, begin, end)


def _named(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _calendar(span: Span, local: datetime) -> tuple[float, float]:
    """Return the first second of the calendar's hour, day, week or month, and of the next one."""
    if span == "hour":  # by the clock's own hour, whatever summer time does to its name
        offset = local.utcoffset() or timedelta(0)
        now_s = int(local.timestamp())
        begin_s = now_s - (now_s + int(offset.total_seconds())) % _HOUR_S
        return begin_s, begin_s + _HOUR_S
    day = local.date()
    if span == "week":
        day -= timedelta(days=day.weekday())
        end = day + timedelta(days=7)
    elif span == "month":
        day = day.replace(day=1)
        end = (day + timedelta(days=31)).replace(day=1)
    else:
        end = day + timedelta(days=1)
    zone = local.tzinfo
    first, last = (datetime(one.year, one.month, one.day, tzinfo=zone) for one in (day, end))
    return first.timestamp(), last.timestamp()


@dataclass(frozen=True, slots=True)
class Standing:
    """What one account's window holds: spent and reserved nano-dollars, and how many calls paid."""

    spent_nusd: int = 0
    leased_nusd: int = 0
    calls: int = 0


def percent_of(spent_nusd: int, limit_nusd: int) -> Decimal:
    """Return how much of a limit is spent, in per cent; of a limit of nothing all is."""
    return Decimal(100 * spent_nusd) / limit_nusd if limit_nusd else Decimal(100)


def last_passed(ceilings: Iterable[Ceiling], spent_nusd: int, limit_nusd: int) -> Ceiling | None:
    """Return the strictest of rising ceilings whose share of the limit is spent, and more; or None."""
    passed = [one for one in ceilings if spent_nusd > one.above * limit_nusd]
    return passed[-1] if passed else None


@dataclass(frozen=True, slots=True)
class Account:
    """One account and the window of it that counts now: what a store is asked about."""

    id: str
    window: Window


@dataclass(frozen=True, slots=True)
class Claim:
    """One account's part in a lease: granted while spent and reserved stay within `limit_nusd` together.

    `kept_nusd` is what the budget has beyond that, for tool loops alone.
    """

    account: Account
    limit_nusd: int
    rule: BudgetRule = field(compare=False, repr=False)
    kept_nusd: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lease was not granted: the first claim that it does not fit, and how that account stands."""

    claim: Claim
    standing: Standing

    def could_fit(self, worst_nusd: int) -> bool:
        """Tell whether the lease would fit once all others are settled at nothing."""
        return self.standing.spent_nusd + worst_nusd <= self.claim.limit_nusd


@dataclass(frozen=True, slots=True)
class Raise:
    """More money for one budget, until a time: who gave it, when and why."""

    budget: str
    nusd: int
    until: float
    why: str
    who: str
    at: float


def raised_at(raises: Iterable[Raise], now: float) -> dict[str, int]:
    """Return what is added to each budget now, by its name, of all that was ever given."""
    sums: dict[str, int] = {}
    for one in raises:
        if now < one.until:
            sums[one.budget] = sums.get(one.budget, 0) + one.nusd
    return sums


@dataclass(frozen=True, slots=True)
class Purse:
    """The accounts that pay for one request: what may be claimed of them, and which ceilings hold.

    Attributes:
        rules: Those that may cover it.
        payer: Whose request.
        at: When it came; its windows stay those of this moment.
        is_critical: Whether the caller marked it critical.
        in_loop: Whether it answers a tool call.
        raised: Money added to budgets for now, by name.
        standings: How its accounts stood when it came.
    """

    rules: tuple[BudgetRule, ...] = ()
    payer: Payer = Payer()
    at: float = 0.0
    is_critical: bool = False
    in_loop: bool = False
    raised: Mapping[str, int] = field(default_factory=dict)
    standings: Mapping[str, Standing] = field(default_factory=dict)

    def accounts(self, models: Iterable[str]) -> tuple[Account, ...]:
        """Return the accounts that would pay for an answer of one of these models, by their plain ids."""
        is_told_apart = any("model" in rule.scope for rule in self.rules)
        found: dict[str, Account] = {}
        for model in models if is_told_apart else ("",):
            for rule, account in self._covering(model):
                found[account] = Account(account, window_of(rule, self.at))
        return tuple(found.values())

    def _covering(self, model: str) -> Iterable[tuple[BudgetRule, str]]:
        for rule in self.rules:
            account = account_of(rule, self.payer, model)
            if account is not None:
                yield rule, account

    def claims(self, model: str) -> tuple[Claim, ...]:
        """Return what an answer of `model`, by its plain id, must be covered by; sorted by account."""
        claims = [
            Claim(Account(account, window_of(rule, self.at)), limit, rule, kept)
            for rule, account in self._covering(model)
            for limit, kept in (self._limit(rule),)
        ]
        return tuple(sorted(claims, key=lambda claim: claim.account.id))

    def _limit(self, rule: BudgetRule) -> tuple[int, int]:
        """Return how far this request may go, and what is kept from it: see the module's text."""
        more = self.raised.get(rule.name, 0)
        if self.is_critical and rule.cap == "allow_critical":
            return rule.most_nusd + more, 0
        limit = rule.limit_nusd + more
        kept = 0 if self.in_loop else rule.kept_of(limit)
        return limit - kept, kept

    def held(self, ladder: Ladder, model: str) -> Held | None:
        """Return the strictest ceiling in force for an answer of `model`; None where none is, or critical."""
        if self.is_critical:
            return None
        found: list[Held] = []
        for rule, account in self._covering(model):
            spent = self.standings.get(account, Standing()).spent_nusd
            limit = rule.limit_nusd + self.raised.get(rule.name, 0)
            passed = last_passed(rule.ceilings_on(ladder), spent, limit)
            if passed is not None:
                percent = percent_of(spent, limit)
                window = window_of(rule, self.at).key
                found.append(Held(passed.tier, rule.name, account, window, percent, passed.above))
        return min(found, key=lambda held: ladder.rank(held.tier), default=None)

    def remaining_nusd(self, model: str) -> int | None:
        """Return what was left of the account with the least left, when the request came; or None.

        Below zero where critical tasks went on after the limit.
        """
        left = []
        for rule, account in self._covering(model):
            spent = self.standings.get(account, Standing()).spent_nusd
            left.append(rule.limit_nusd + self.raised.get(rule.name, 0) - spent)
        return min(left, default=None)


@dataclass(frozen=True)
class Limits:
    """All budgets, and what is common to them.

    Attributes:
        rules: The budgets.
        wait_s: How long a request may wait for others to be settled, at all tiers together.
        unbounded: What becomes of a request whose cost has no bound under a cap: refused, or estimated.
        contact: Whom to ask when a budget blocks.
    """

    rules: tuple[BudgetRule, ...] = ()
    wait_s: float = 10.0
    unbounded: Literal["refuse", "estimate"] = "refuse"
    contact: str = ""


def named_once(rules: Sequence[BudgetRule]) -> None:
    """Refuse two budgets of one name.

    Raises:
        ConfigError: names it.
    """
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            message = f"[[budget]] {name!r}: two budgets have this name"
            raise ConfigError(message)
