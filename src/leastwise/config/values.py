"""The settings as one frozen value, and what is made of them: the policy, the price book, `config show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from leastwise.budget import BudgetRule, Limits
from leastwise.cascade import THRESHOLD, CheckRow, Overloaded, Unparsable
from leastwise.config.words import masked, shown
from leastwise.ladder import DEFAULT_LADDER, Complexity, Ladder, Mode, Streaming
from leastwise.money import to_usd
from leastwise.prices import DEFAULT_PROVIDER, PriceBook, Rate, load_prices
from leastwise.routing import BASELINE, OwnType, Policy, Preset, Rule, Signals, Switch

MEMORY: Final = ":memory:"
#: The origin of a setting that nobody gave.
DEFAULT: Final = "default"

Kind = Literal["anthropic"]
Durability = Literal["process", "power"]
Unpriced = Literal["error", "allow"]
CacheOn = Literal["asked", "all", "off"]
Unbounded = Literal["refuse", "estimate"]

_SQLITE: Final = "sqlite:///"
_SECTIONS: Final = ("store", "complexity", "signals", "classifier", "cascade", "cache", "limits", "notify")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that speaks the Messages API.

    Attributes:
        base_url: Where it listens, without `/v1`.
        api_key_env: The environment variable that holds its key; "" for one that wants none.
        kind: What it speaks.
    """

    base_url: str
    api_key_env: str = ""
    kind: Kind = "anthropic"


@dataclass(frozen=True, slots=True)
class StoreAt:
    """Where the ledger, the budgets and the cache are kept, for how long, and what they must survive.

    An address is `sqlite:////absolute/path.db`, `:memory:`, or a server's: `postgresql://` for the
    ledger, `redis://`, `rediss://` or `unix://` for the cache, either for budgets. It may hold a
    password: show it by `shown_place` only.

    Attributes:
        url: The ledger, and the budgets where nothing else is said.
        keep_days: Requests older than this are deleted; hourly sums stay.
        durability: `process` survives a kill of any process, `power` a power cut too.
        cache: The cache's own address, or "".
        budget: The budgets' own address, or "".
        ledger: The ledger's own address, or "".
    """

    url: str = MEMORY
    keep_days: int = 400
    durability: Durability = "process"
    cache: str = ""
    budget: str = ""
    ledger: str = ""

    @property
    def ledger_url(self) -> str:
        """Where the ledger is."""
        return self.ledger or self.url

    @property
    def budget_url(self) -> str:
        """Where the budgets are: with the ledger, if nothing else is said."""
        return self.budget or self.ledger_url

    @property
    def path(self) -> str:
        """The ledger's SQLite file, or `:memory:`; "" where a server keeps it."""
        return file_of(self.ledger_url)

    @property
    def shown(self) -> str:
        """The ledger's place as it may be shown."""
        return shown_place(self.ledger_url)


def file_of(url: str) -> str:
    """Return the SQLite file that an address names, `:memory:`, or "" for a server's.

    >>> file_of("sqlite:////var/lib/leastwise.db")
    '/var/lib/leastwise.db'
    """
    is_server = url != MEMORY and not url.startswith(_SQLITE)
    return "" if is_server else url.removeprefix(_SQLITE)


def shown_place(url: str) -> str:
    """Return an address as it may be shown: the file, or the server without who asks.

    >>> shown_place("redis://:secret@10.0.0.5:6379/0")
    'redis://***@10.0.0.5:6379/0'
    """
    return file_of(url) or masked(url)


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """How the type of a task is told.

    Attributes:
        learned: Whether the learned classifier is asked where no phrase tells.
        llm_tier: The tier whose model is asked where nothing else tells; "" to ask none.
    """

    learned: bool = True
    llm_tier: str = ""


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Which requests look for a kept answer, and how long and how many answers are kept.

    Attributes:
        on: `asked` for classification and tasks that say so, `all`, or `off`.
        tags: Tags whose requests look as well.
        ttl_s: How long an answer is good for, in seconds.
        max_mb: How large all answers together may grow, in megabytes.
        normalise: Whether the texts of a classification count as equal but for Unicode forms and spaces.
    """

    on: CacheOn = "asked"
    tags: tuple[str, ...] = ()
    ttl_s: int = 86_400
    max_mb: int = 512
    normalise: bool = False


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """Which answers are checked, by what, and what follows.

    Attributes:
        enabled: Whether the answers of requests that are routed are checked; a task's own check always is.
        checks: Names of checks, in the order they are asked: built-in ones, those of [[check]], and `judge`.
        judge: The tier, or the model, that judges; "" for the lowest tier.
        threshold: The least of a judge's scores, 1 to 5, that is accepted where it is not calibrated.
        unparsable: What becomes of an answer of which a check cannot tell: `escalate` or `accept`.
        escalate_to: The dearest tier that may answer instead; "" for as far as the request may go.
        stream: Whether a checked stream is held to its end (`buffer`), let go when its first words pass
            (`commit`), or either by what its checks need (`auto`).
        overloaded: What a tier does whose upstream is overloaded (529): `fail`, or give way to the `next`.
        controls: The share of judgements beside which a planted bad answer is judged, 0 to 1.
        probes: The share of requests for which a cascade that does not pay is tried all the same, 0 to 1.
        floor_s: How long a session stays at the tier it escalated to, and then at each below it, in seconds.
    """

    enabled: bool = False
    checks: tuple[str, ...] = ("truncation", "empty", "refusal", "schema", "tools", "judge")
    judge: str = ""
    threshold: float = THRESHOLD
    unparsable: Unparsable = "escalate"
    escalate_to: str = ""
    stream: Streaming = "auto"
    overloaded: Overloaded = "fail"
    controls: float = 0.01
    probes: float = 0.02
    floor_s: float = 600.0


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What is common to all budgets.

    Attributes:
        lease_wait_s: How long a call may wait for others to be settled before a budget refuses it.
        unbounded: What becomes of a call whose cost has no bound under a cap: `refuse` or `estimate`.
        contact: Whom to ask when a budget refuses, as shown to the caller.
    """

    lease_wait_s: float = 10.0
    unbounded: Unbounded = "refuse"
    contact: str = ""


@dataclass(frozen=True, slots=True)
class NotifyOptions:
    """Who is told of thresholds and forecasts; the log always is.

    Attributes:
        webhook: The address to post to, or "".
    """

    webhook: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    Attributes:
        mode: What happens to requests that name a real model.
        percent: The share of them that `mode = "enforce"` routes.
        reroute: Patterns of model ids that are routed even while the rest is observed.
        unsure: Where a request goes when nothing tells its tier: `baseline`, or a tier.
        preset: Whose lists and thresholds stand where nothing else is set.
        ladder: The tiers, cheap to dear.
        upstreams: By the name that tiers use.
        store: Where the ledger is.
        complexity: The tier of each complexity.
        signals: Thresholds of routing by size.
        rules: The user's own rules, in order.
        classifier: How the type of a task is told.
        types: The user's own types of task.
        switches: Modes of single tags.
        prices: Rates that win over the shipped ones.
        discount: Share of list prices that is not charged.
        strict: Whether a request from which something would have to be left out stays where it is.
        refresh_models: Whether the upstream is asked once a day which models it has.
        unpriced: Whether a model without a price may be called.
        budgets: What may be spent, and by whom.
        limits: What is common to them.
        cache: Which answers are kept.
        notify: Who is told when money runs short.
        cascade: Which answers are checked.
        checks: The user's own checks.
        origins: Where each setting comes from, by its key.
        files: The files that were read.
        watched: The files that are read when they exist, so that a change can be seen.
        cache_folder: Where what can be had again is kept; None where there is no home.
    """

    mode: Mode = "observe"
    percent: float = 100
    reroute: tuple[str, ...] = ()
    unsure: str = BASELINE
    preset: Preset = ""
    ladder: Ladder = DEFAULT_LADDER
    upstreams: Mapping[str, Upstream] = field(default_factory=lambda: MappingProxyType({}))
    store: StoreAt = field(default_factory=StoreAt)
    complexity: Mapping[Complexity, str] = field(default_factory=lambda: MappingProxyType({}))
    signals: Signals = field(default_factory=Signals)
    rules: tuple[Rule, ...] = ()
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)
    types: tuple[OwnType, ...] = ()
    switches: tuple[Switch, ...] = ()
    prices: tuple[Rate, ...] = ()
    discount: Decimal = Decimal(0)
    strict: bool = False
    refresh_models: bool = True
    unpriced: Unpriced = "error"
    budgets: tuple[BudgetRule, ...] = ()
    limits: LimitOptions = field(default_factory=LimitOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    notify: NotifyOptions = field(default_factory=NotifyOptions)
    cascade: CascadeOptions = field(default_factory=CascadeOptions)
    checks: tuple[CheckRow, ...] = ()
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    watched: tuple[Path, ...] = field(default=(), compare=False)
    cache_folder: Path | None = field(default=None, compare=False)

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses whose listings of models are believed: other servers have limits of their own."""
        return tuple(one.base_url for name, one in self.upstreams.items() if name == DEFAULT_PROVIDER)

    @property
    def cache_url(self) -> str:
        """Where answers are kept: by default in a file beside the ledger's, else in the user's cache folder.

        A file of its own: answers may be lost and make a file large, money must not and does not.
        """
        if self.store.cache:
            return self.store.cache
        ledger = self.store.path
        if ledger == MEMORY or not (ledger or self.cache_folder):
            return MEMORY
        file = Path(ledger) if ledger else Path(str(self.cache_folder), "leastwise.db")
        return f"{_SQLITE}{file.with_name(f'{file.stem}-cache{file.suffix}')}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of `config show`: a key, its value in plain types, and where that comes from."""

    key: str
    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value on one line, whatever looks like a secret blotted out."""
        return shown(self.value, self.key)

    @property
    def plain(self) -> Any:
        """The value as JSON would hold it, whatever looks like a secret blotted out."""
        return json.loads(self.text)


def policy(config: Config) -> Policy:
    """Return what routing goes by.

    Raises:
        ConfigError: the parts contradict each other.
    """
    parts: dict[str, Any] = {
        "mode": config.mode,
        "percent": config.percent,
        "switches": config.switches,
        "reroute": config.reroute,
        "unsure": config.unsure,
        "strict": config.strict,
        "complexity": config.complexity,
        "signals": config.signals,
        "rules": config.rules,
        "learned": config.classifier.learned,
        "llm_tier": config.classifier.llm_tier,
        "types": config.types,
    }
    return Policy.reference(**parts) if config.preset == "reference" else Policy(**parts)


def limits(config: Config) -> Limits:
    """Return the budgets, and what is common to them."""
    options = config.limits
    return Limits(config.budgets, options.lease_wait_s, options.unbounded, options.contact)


def price_book(config: Config) -> PriceBook:
    """Return the shipped prices with the configured ones before them."""
    return PriceBook(load_prices().rates, config.prices, config.discount, config.unpriced)


def settings(config: Config) -> Iterator[Setting]:
    """Yield every setting with its origin, in the order of the documentation; rows one by one."""
    for key in (
        "mode",
        "percent",
        "reroute",
        "unsure",
        "preset",
        "strict",
        "refresh_models",
        "unpriced",
        "discount",
    ):
        yield _setting(config, key, getattr(config, key))
    for tier in config.ladder:
        yield _setting(config, f"tier.{tier.name}.model", tier.model, "tier")
        yield _setting(config, f"tier.{tier.name}.upstream", tier.upstream, "tier")
    for name, upstream in config.upstreams.items():
        for one in fields(upstream):
            yield _setting(config, f"upstream.{name}.{one.name}", getattr(upstream, one.name))
    for section in _SECTIONS:
        options = getattr(config, section)
        given = (
            options
            if isinstance(options, Mapping)
            else {one.name: getattr(options, one.name) for one in fields(options)}
        )
        for name, value in given.items():
            yield _setting(config, f"{section}.{name}", value)
    rows_of = {
        "rule": config.rules,
        "type": config.types,
        "switch": config.switches,
        "price": config.prices,
        "budget": config.budgets,
        "check": config.checks,
    }
    for name, rows in rows_of.items():
        for number, row in enumerate(rows, 1):
            yield _setting(config, f"{name}.{number}", _plain(row), name)


def _setting(config: Config, key: str, value: Any, origin_of: str | None = None) -> Setting:
    return Setting(key, value, config.origins.get(origin_of or key, DEFAULT))


def _plain(row: Any) -> dict[str, Any]:
    """Return a row as it would be written; rates as dollars per million tokens."""
    given = {one.name: getattr(row, one.name) for one in fields(row) if one.name != "id"}
    if isinstance(row, CheckRow):
        given = {one.name: given[one.name] for one in fields(row) if given[one.name] != one.default}
    if isinstance(row, Rate):
        for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
            given[name] = to_usd(given[name])
    if isinstance(row, BudgetRule):
        given = {name.replace("_nusd", "_usd"): _usd(name, value) for name, value in given.items()}
        given["ceilings"] = row.ceilings and [asdict(one) for one in row.ceilings]
    return {name: value for name, value in given.items() if value not in (None, "")}


def _usd(name: str, value: Any) -> Any:
    return to_usd(value) if name.endswith("_nusd") and value is not None else value
