"""The configuration: one frozen value with the origin of each of its settings.

Arguments win over `LEASTWISE_*`, those over the file, the file over defaults; without a
file everything works. Files are looked for in this order, and an explicit one is the only one:

1. an explicit path, or `LEASTWISE_CONFIG`;
2. `leastwise.toml` of the user's config directory, `$XDG_CONFIG_HOME/leastwise`;
3. `leastwise.toml` of the working directory, over the user's. Anybody may have put it
   there, so it may set policy only: no upstream, which would be sent the key, and no store.

Every setting is checked where it is read, and all that is wrong is told at once: where, which
key, which value, what is allowed. A key that is not known is an error, because a typing error
in a money setting must not pass for a default. Secrets are not settings: an upstream names
the environment variable that holds its key.

Nothing here edits a file, opens a store or asks an upstream.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

from leastwise.errors import ConfigError
from leastwise.ladder import (
    COMPLEXITIES,
    DEFAULT_LADDER,
    MODES,
    REFERENCE_LADDER,
    Complexity,
    Ladder,
    Mode,
    Tier,
)
from leastwise.money import to_usd
from leastwise.prices import DEFAULT_PROVIDER, PriceBook, Rate, load_prices
from leastwise.routing import BASELINE, OwnType, Policy, Preset, Rule, Signals, Switch

SCHEMA: Final = 1
FILE_NAME: Final = "leastwise.toml"
_log: Final = logging.getLogger(__name__)

_PREFIX: Final = "LEASTWISE_"
CONFIG_VARIABLE: Final = "LEASTWISE_CONFIG"
MEMORY: Final = ":memory:"

Kind = Literal["anthropic"]
Durability = Literal["process", "power"]
Unpriced = Literal["error", "allow"]

#: Sections of the plan that this version does not carry out; a key that is ignored could cost money.
_NOT_YET: Final = frozenset({"budget", "cache", "cascade", "notify", "record"})
#: What a file found in the working directory may not set.
_NOT_POLICY: Final = frozenset({"upstream", "store", "price", "discount", "unpriced", "refresh_models"})

#: The origin of a setting that nobody gave.
DEFAULT: Final = "default"
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_API: Final = "https://api.anthropic.com"
_SECRETS: Final = re.compile(
    r"(?<=://)[^/@\s\"]+(?=@)|\bsk-[\w-]{6,}|(?i:(?<=key=)|(?<=token=)|(?<=secret=))[^&\s\"]+"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*")
_WHOLE: Final = 100  # percent
_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")


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
    """Where the ledger is kept, for how long, and what it must survive.

    Attributes:
        url: `sqlite:////absolute/path.db`, or `:memory:`.
        keep_days: Requests older than this are deleted; hourly sums stay.
        durability: `process` survives a kill of any process, `power` a power cut too.
    """

    url: str = MEMORY
    keep_days: int = 400
    durability: Durability = "process"

    @property
    def path(self) -> str:
        """The SQLite file, or `:memory:`."""
        return self.url.removeprefix("sqlite:///")


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
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    watched: tuple[Path, ...] = field(default=(), compare=False)
    cache_folder: Path | None = field(default=None, compare=False)

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses of the upstreams."""
        return tuple(upstream.base_url for upstream in self.upstreams.values())


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of `config show`: a key, its value in plain types, and where that comes from."""

    key: str
    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value on one line, whatever looks like a secret blotted out."""
        return _shown(self.value)

    @property
    def plain(self) -> Any:
        """The value as JSON would hold it, whatever looks like a secret blotted out."""
        return json.loads(self.text)


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    arguments: Mapping[str, object] = _NOTHING,
) -> Config:
    """Return the configuration; nothing is opened but its files.

    Args:
        path: A file to read instead of those looked for.
        environ: The environment; by default the process's own.
        cwd: The working directory; by default the process's own.
        arguments: Settings by key, such as `{"mode": "enforce", "store.url": ":memory:"}`;
            None stands for "not given".

    Raises:
        ConfigError: a file cannot be read, or settings are wrong; one line for each.
    """
    environ = os.environ if environ is None else environ
    for name, meant in misspelt(environ).items():
        _log.warning("%s means nothing here; %s would", name, meant)
    of_files, watched = _of_files(path, environ, cwd or Path.cwd())
    layers = [*_of_defaults(environ), *of_files]
    upstreams = {key.split(".")[1] for layer in layers for key in layer.values if key.startswith("upstream.")}
    layers += _of_environment(environ, sorted(upstreams))
    layers.append(_of_arguments(arguments))
    _raise_all([finding for layer in layers for finding in layer.wrong])
    given = {
        key: Setting(key, value, layer.origin) for layer in layers for key, value in layer.values.items()
    }
    files = tuple(layer.file for layer in layers if layer.file is not None)
    folder = _folder(environ, ("XDG_CACHE_HOME", "LOCALAPPDATA"), ".cache")
    return replace(_Assembly(given).config(files, watched), cache_folder=folder)


def user_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the user's own configuration file, there or not; None when there is no home directory."""
    folder = _folder(os.environ if environ is None else environ, ("XDG_CONFIG_HOME", "APPDATA"), ".config")
    return folder and folder / FILE_NAME


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
    for section in ("store", "complexity", "signals", "classifier"):
        options = getattr(config, section)
        given = (
            options
            if isinstance(options, Mapping)
            else {one.name: getattr(options, one.name) for one in fields(options)}
        )
        for name, value in given.items():
            yield _setting(config, f"{section}.{name}", value)
    rows_of = {"rule": config.rules, "type": config.types, "switch": config.switches, "price": config.prices}
    for name, rows in rows_of.items():
        for number, row in enumerate(rows, 1):
            yield _setting(config, f"{name}.{number}", _plain(row), name)


def _setting(config: Config, key: str, value: Any, origin_of: str | None = None) -> Setting:
    return Setting(key, value, config.origins.get(origin_of or key, DEFAULT))


def _plain(row: Any) -> dict[str, Any]:
    """Return a row as it would be written; rates as dollars per million tokens."""
    given = {one.name: getattr(row, one.name) for one in fields(row) if one.name != "id"}
    if isinstance(row, Rate):
        for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
            given[name] = to_usd(given[name])
    return {name: value for name, value in given.items() if value not in (None, "")}


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `LEASTWISE_*` variables that mean nothing here but look like one that does, with that one.

    Others may be anybody's: a cluster names variables after its services.
    """
    known = [name.removeprefix(_PREFIX) for name in (*_variables((DEFAULT_PROVIDER,)), CONFIG_VARIABLE)]
    found: dict[str, str] = {}
    for variable in environ:
        name = variable.removeprefix(_PREFIX)
        if name != variable and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            if close:
                found[variable] = _PREFIX + close[0]
    return found


def masked(text: str) -> str:
    """Return `text` with whatever looks like a key or a password blotted out.

    >>> masked("http://me:secret@host/?key=abc and sk-ant-0123456789")
    'http://***@host/?key=*** and ***'
    """
    return _SECRETS.sub("***", text)


# --- reading one value ---------------------------------------------------------------------

Read = Callable[[Any], Any]


def _one_of(*allowed: str) -> Read:
    def read(value: Any) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        close = difflib.get_close_matches(str(value), allowed, n=1)
        message = f"expected {_listed(allowed)}" + (f"; did you mean {close[0]!r}?" if close else "")
        raise ValueError(message)

    return read


def _schema(value: Any) -> int:
    if value is True or value != SCHEMA:
        message = f"this version of Leastwise reads schema = {SCHEMA} only; write that, or upgrade"
        raise ValueError(message)
    return SCHEMA


def _text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    message = "expected text"
    raise ValueError(message)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    message = "expected true or false"
    raise ValueError(message)


def _name_or_none(value: Any) -> str:
    return "" if value == "" else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(one, str) and one for one in value)
    ):
        return tuple(value)
    message = 'expected a list of texts, such as ["one", "another"]'
    raise ValueError(message)


def _whole(least: int) -> Read:
    def read(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        message = f"expected a whole number from {least}"
        raise ValueError(message)

    return read


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = Decimal(str(value))
    return number if number.is_finite() else None


def _percent(value: Any) -> float:
    number = _number(value)
    if number is not None and 0 <= number <= _WHOLE:
        return int(number) if number == int(number) else float(number)
    message = "expected a number from 0 to 100"
    raise ValueError(message)


def _share(value: Any) -> Decimal:
    number = _number(value)
    if number is not None and 0 <= number <= 1:
        return number
    message = "expected a share from 0 to 1, such as 0.15"
    raise ValueError(message)


def _variable(value: Any) -> str:
    if value == "" or (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        return str(value)
    message = 'expected the name of an environment variable, never a key itself, or "" for no key'
    raise ValueError(message)


def _base_url(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"expected an address such as {_API}"
        raise ValueError(message)
    if parts.username or parts.password:
        message = "an address must not hold a password: name a variable in api_key_env"
        raise ValueError(message)
    return str(value).rstrip("/").removesuffix("/v1")


def _store_url(value: Any) -> str:
    if not isinstance(value, str) or not value:
        message = "expected an address such as sqlite:////var/lib/leastwise/leastwise.db"
        raise ValueError(message)
    if value.removeprefix("sqlite://").strip("/") == MEMORY:
        return MEMORY
    scheme, found, path = value.partition("://")
    if not found:
        message = f"write a file as sqlite:/// and its absolute path, such as {_example(value)}"
        raise ValueError(message)
    if scheme != "sqlite":
        message = f"{scheme} is not in this version; use sqlite:////absolute/path.db, or {MEMORY}"
        raise ValueError(message)
    if not path.startswith("//") and not _DRIVE.match(path.removeprefix("/")):
        message = (
            "a relative path would be another ledger in every folder; write the whole path, "
            f"with four slashes, such as {_example(path)}"
        )
        raise ValueError(message)
    return value


def _example(path: str) -> str:
    return f"sqlite:////absolute/path/{path.rpartition('/')[2] or 'leastwise.db'}"


@dataclass(frozen=True, slots=True)
class _Setting:
    """How one setting is read, and how the text of an environment variable becomes its value."""

    read: Read
    parse: Callable[[str], Any] = str


def _parse_number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _parse_flag(text: str) -> Any:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)


def _parse_texts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_SETTINGS: Final[Mapping[str, _Setting]] = MappingProxyType(
    {
        "schema": _Setting(_schema, _parse_number),
        "mode": _Setting(_one_of(*MODES)),
        "percent": _Setting(_percent, _parse_number),
        "reroute": _Setting(_texts, _parse_texts),
        "unsure": _Setting(_text),
        "preset": _Setting(_one_of("", "reference")),
        "strict": _Setting(_flag, _parse_flag),
        "refresh_models": _Setting(_flag, _parse_flag),
        "unpriced": _Setting(_one_of(*get_args(Unpriced))),
        "discount": _Setting(_share, _parse_number),
        "store.url": _Setting(_store_url),
        "store.keep_days": _Setting(_whole(1), _parse_number),
        "store.durability": _Setting(_one_of(*get_args(Durability))),
        **{f"complexity.{name}": _Setting(_text) for name in COMPLEXITIES},
        **{f"signals.{one.name}": _Setting(_whole(0), _parse_number) for one in fields(Signals)},
        "classifier.learned": _Setting(_flag, _parse_flag),
        "classifier.llm_tier": _Setting(_name_or_none),
    }
)
_OF_UPSTREAM: Final[Mapping[str, _Setting]] = MappingProxyType(
    {
        "base_url": _Setting(_base_url),
        "api_key_env": _Setting(_variable),
        "kind": _Setting(_one_of(*get_args(Kind))),
    }
)
_SECTIONS: Final = frozenset(key.partition(".")[0] for key in _SETTINGS if "." in key)


# --- reading rows ---------------------------------------------------------------------------


def _tier(row: Mapping[str, Any]) -> Tier:
    return Tier(
        **_columns(row, {"name": _text, "model": _text, "upstream": _text}, required=("name", "model"))
    )


def _rule(row: Mapping[str, Any]) -> Rule:
    texts = dict.fromkeys(("match", "tag", "header", "tier"), _text)
    roles = _one_of("main", "subagent", "background")
    return Rule(**_columns(row, {**texts, "role": roles, "complexity": _one_of(*COMPLEXITIES)}))


def _type(row: Mapping[str, Any]) -> OwnType:
    known = {"name": _text, "examples": _texts, "complexity": _one_of(*COMPLEXITIES), "tier": _text}
    return OwnType(**_columns(row, known, required=("name", "examples")))


def _switch(row: Mapping[str, Any]) -> Switch:
    known = {"tag": _text, "mode": _one_of(*MODES), "percent": _percent}
    return Switch(**_columns(row, known, required=("tag", "mode")))


def _price(row: Mapping[str, Any]) -> Rate:
    return Rate.read(row)


_ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = MappingProxyType(
    {"tier": _tier, "rule": _rule, "type": _type, "switch": _switch, "price": _price}
)


class _RowError(Exception):
    """Everything that is wrong with one row."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(found)
        self.found = found


def _columns(
    row: Mapping[str, Any], known: Mapping[str, Read], required: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a row's values, read; raise `_RowError` with all that is wrong with them."""
    found, read = [], {}
    for name, value in row.items():
        if name not in known:
            found.append(f"{name} is {_unknown(name, known)}")
            continue
        try:
            read[name] = known[name](value)
        except ValueError as error:
            found.append(f"{name} = {_shown(value)}: {error}")
    found += [f"{name} is missing" for name in required if name not in row]
    if found:
        raise _RowError(found)
    return read


# --- one layer: a file, the environment, arguments ------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    """Settings of one origin, flat, and what was wrong with the others."""

    origin: str
    file: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, read: Read) -> None:
        try:
            self.values[key] = read(value)
        except ValueError as error:
            self.wrong.append(f"{self.origin}: {key} = {_shown(value)}: {error}")

    def refuse(self, key: str, why: str) -> None:
        self.wrong.append(f"{self.origin}: {key}: {why}")

    def add_table(self, table: Mapping[str, Any]) -> None:
        """Read a decoded file."""
        for name, value in table.items():
            if name in _SETTINGS:
                self.add(name, value, _SETTINGS[name].read)
            elif name in _ROWS:
                self._add_rows(name, value)
            elif name == "upstream":
                self._add_upstreams(value)
            elif name in _SECTIONS:
                self._add_section(name, value)
            else:
                self.refuse(name, _unknown(name, (*_SETTINGS, *_ROWS, "upstream", *_SECTIONS)))

    def _add_section(self, section: str, value: Any) -> None:
        for name, one in self._table(section, value):
            key = f"{section}.{name}"
            if key in _SETTINGS:
                self.add(key, one, _SETTINGS[key].read)
            else:
                known = [key.partition(".")[2] for key in _SETTINGS if key.startswith(f"{section}.")]
                self.refuse(key, _unknown(name, known))

    def _add_upstreams(self, value: Any) -> None:
        for upstream, table in self._table("upstream", value):
            for name, one in self._table(f"upstream.{upstream}", table):
                key = f"upstream.{upstream}.{name}"
                if name in _OF_UPSTREAM:
                    self.add(key, one, _OF_UPSTREAM[name].read)
                else:
                    self.refuse(key, _unknown(name, _OF_UPSTREAM))

    def _table(self, key: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, Mapping):
            return list(value.items())
        self.refuse(key, f"{_shown(value)} is not a table; write [{key}]")
        return []

    def _add_rows(self, name: str, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
            self.refuse(name, f"write each as [[{name}]]")
            return
        rows = []
        for number, row in enumerate(value, 1):
            try:
                rows.append(_ROWS[name](row))
            except _RowError as error:
                self.wrong.extend(f"{self.origin}: [[{name}]] {number}: {one}" for one in error.found)
            except ConfigError as error:
                self.refuse(f"[[{name}]] {number}", str(error).removeprefix(f"[[{name}]] "))
        self.values[name] = tuple(rows)


def _of_file(path: Path) -> _Layer:
    layer = _Layer(f"file {path}", path)
    try:
        table = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror}. Write one with: leastwise init"
        raise ConfigError(message) from error
    except UnicodeDecodeError as error:
        message = f"file {path}: not UTF-8 text: {error.reason} at byte {error.start}"
        raise ConfigError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"file {path}: not TOML: {error}"
        raise ConfigError(message) from error
    layer.add_table(table)
    return layer


def _of_files(
    path: Path | None, environ: Mapping[str, str], cwd: Path
) -> tuple[list[_Layer], tuple[Path, ...]]:
    """Return the files' layers, weakest first, and every file that is read when it exists."""
    explicit = path or environ.get(CONFIG_VARIABLE)
    if explicit:
        return [_of_file(cwd / explicit)], (cwd / explicit,)
    user, found = user_file(environ), cwd / FILE_NAME
    layers = []
    if user is not None and user.is_file():
        layers.append(_of_file(user))
    if user is None or user.resolve() != found.resolve():
        layers += [_policy_of(found, user)] if found.is_file() else []
        return layers, (found,) if user is None else (user, found)
    return layers, (user,)


def _policy_of(path: Path, user: Path | None) -> _Layer:
    """Return the layer of a file found in the working directory; what is not policy is refused."""
    layer = _of_file(path)
    mend = f"move it to {user}, or pass --config {path}" if user is not None else f"pass --config {path}"
    for key in [key for key in layer.values if key.partition(".")[0] in _NOT_POLICY]:
        del layer.values[key]
        layer.refuse(key, f"a file found in the working directory may set policy only; {mend}")
    return layer


def _of_defaults(environ: Mapping[str, str]) -> list[_Layer]:
    """Return what holds where nothing is set, as far as it depends on the environment."""
    folder = _folder(environ, ("XDG_STATE_HOME", "LOCALAPPDATA"), ".local/state")
    file = "" if folder is None else str(folder / "leastwise.db")
    default = _Layer(
        DEFAULT,
        values={
            f"upstream.{DEFAULT_PROVIDER}.base_url": _API,
            f"upstream.{DEFAULT_PROVIDER}.api_key_env": "ANTHROPIC_API_KEY",
            "store.url": f"sqlite:///{file}" if file else MEMORY,
        },
    )
    sdk = _Layer("ANTHROPIC_BASE_URL")  # where the official SDK sends requests, unless told otherwise
    if environ.get(sdk.origin):
        sdk.add(f"upstream.{DEFAULT_PROVIDER}.base_url", environ[sdk.origin], _base_url)
    return [default, sdk]


def _folder(environ: Mapping[str, str], variables: Sequence[str], below_home: str) -> Path | None:
    """Return our folder below the first of the variables that is set, else below the home directory."""
    homes = [f"{environ[name]}/{below_home}" for name in ("HOME", "USERPROFILE") if environ.get(name)]
    for text in (*(environ.get(name, "") for name in variables), *homes):
        if text and Path(text).is_absolute():  # the XDG specification: a relative path is to be ignored
            return Path(text) / "leastwise"
    return None


def _of_environment(environ: Mapping[str, str], upstreams: Sequence[str]) -> list[_Layer]:
    """Return a layer for each variable, so that each is its own origin."""
    layers = []
    for name, (key, setting) in _variables(upstreams).items():
        if environ.get(name):
            layers.append(layer := _Layer(name))
            layer.add(key, setting.parse(environ[name]), setting.read)
    return layers


def _variables(upstreams: Sequence[str]) -> dict[str, tuple[str, _Setting]]:
    keys = dict(_SETTINGS)
    for upstream in upstreams:
        keys |= {f"upstream.{upstream}.{name}": setting for name, setting in _OF_UPSTREAM.items()}
    return {
        f"{_PREFIX}{re.sub(r'[^A-Za-z0-9]', '_', key).upper()}": (key, setting)
        for key, setting in keys.items()
        if key != "schema"
    }


def _of_arguments(arguments: Mapping[str, object]) -> _Layer:
    layer = _Layer("argument")
    for key, value in arguments.items():
        if value is None:
            continue
        if key in _SETTINGS:
            layer.add(key, value, _SETTINGS[key].read)
        else:
            layer.refuse(key, _unknown(key, _SETTINGS))
    return layer


# --- all layers together ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Assembly:
    """The settings that won, and what does not fit together among them."""

    given: Mapping[str, Setting]
    wrong: list[str] = field(default_factory=list)

    def config(self, files: tuple[Path, ...], watched: tuple[Path, ...]) -> Config:
        """Return the configuration; raise ConfigError with everything that does not fit together."""
        ladder, upstreams = self._ladder(), self._upstreams()
        names = [tier.name for tier in ladder]
        rules, types, prices = (self._get(name, ()) for name in ("rule", "type", "price"))
        complexity = _complexity(ladder)
        complexity |= {name: self._get(f"complexity.{name}", complexity[name]) for name in COMPLEXITIES}
        for name in COMPLEXITIES:
            self._check(f"complexity.{name}", complexity[name], names)
        self._check("unsure", self._get("unsure", BASELINE), (BASELINE, *names))
        self._check("classifier.llm_tier", self._get("classifier.llm_tier", ""), ("", *names))
        for tier in ladder:
            self._check("tier", tier.upstream, tuple(upstreams), f"{tier.name}: upstream")
        for number, rule in enumerate(rules, 1):
            self._check("rule", rule.tier or names[0], names, f"{number}: tier")
        for own in types:
            self._check("type", own.tier or names[0], names, f"{own.name}: tier")
        for number, rate in enumerate(prices, 1):
            self._check("price", rate.provider, tuple(upstreams), f"{number}: provider")
        self._check_once("switch", "tag")
        self._check_once("type", "name")
        signals = self._signals()
        _raise_all(self.wrong)
        scalars = ("mode", "percent", "reroute", "preset", "unsure", "strict", "refresh_models")
        return Config(
            **{key: self.given[key].value for key in (*scalars, "discount", "unpriced") if key in self.given},
            ladder=ladder,
            upstreams=MappingProxyType(upstreams),
            store=StoreAt(**self._below("store")),
            complexity=MappingProxyType(complexity),
            signals=signals,
            rules=rules,
            classifier=ClassifierOptions(**self._below("classifier")),
            types=types,
            switches=self._get("switch", ()),
            prices=prices,
            origins=MappingProxyType(self._origins()),
            files=files,
            watched=watched,
        )

    def _get(self, key: str, otherwise: Any) -> Any:
        return self.given[key].value if key in self.given else otherwise

    def _below(self, section: str) -> dict[str, Any]:
        """Return the settings of a section by their last name."""
        start = f"{section}."
        return {
            key.removeprefix(start): one.value for key, one in self.given.items() if key.startswith(start)
        }

    def _refuse(self, key: str, why: str) -> None:
        origin = self.given[key].origin if key in self.given else DEFAULT
        self.wrong.append(f"{origin}: {why}")

    def _check(self, key: str, value: str, allowed: Sequence[str], part: str = "") -> None:
        """Refuse a name that is none of those allowed; `part` tells which in a row of `key`."""
        if value not in allowed:
            where = f"[[{key}]] {part}" if part else key
            self._refuse(
                key, f"{where} = {_shown(value)}: expected {_listed(allowed)}{_suggestion(value, allowed)}"
            )

    def _ladder(self) -> Ladder:
        tiers = self._get("tier", None)
        if tiers is None:
            return REFERENCE_LADDER if self._get("preset", "") else DEFAULT_LADDER
        try:
            return Ladder(tiers)
        except ConfigError as error:
            self._refuse("tier", str(error))
            return DEFAULT_LADDER

    def _upstreams(self) -> dict[str, Upstream]:
        found: dict[str, Upstream] = {}
        for name in dict.fromkeys(key.split(".")[1] for key in self.given if key.startswith("upstream.")):
            parts = self._below(f"upstream.{name}")
            if "base_url" not in parts:
                key = next(key for key in self.given if key.startswith(f"upstream.{name}."))
                self._refuse(key, f"upstream.{name}.base_url is missing")
            found[name] = Upstream(**{"base_url": "", **parts})
        return found

    def _signals(self) -> Signals:
        given = self._below("signals")
        try:
            return Signals(**given)
        except ConfigError as error:
            self._refuse(f"signals.{next(iter(given))}", str(error))
            return Signals()

    def _check_once(self, key: str, column: str) -> None:
        """Refuse rows of `key` that have the same value in a column."""
        values = [getattr(row, column) for row in self._get(key, ())]
        for value in dict.fromkeys(value for value in values if values.count(value) > 1):
            self._refuse(key, f"[[{key}]] {column} = {_shown(value)}: given twice; keep one of them")

    def _origins(self) -> dict[str, str]:
        origins = {key: one.origin for key, one in self.given.items()}
        if self._get("preset", ""):
            origins.setdefault("tier", 'preset "reference"')
        return origins


def _complexity(ladder: Ladder) -> dict[Complexity, str]:
    """Return the tier of each complexity where none is set: by name, else by place on the ladder."""
    names = [tier.name for tier in ladder]
    if all(tier.name in names for tier in DEFAULT_LADDER):
        names = [tier.name for tier in DEFAULT_LADDER]
    return dict(zip(COMPLEXITIES, (names[0], names[len(names) // 2], names[-1]), strict=True))


def _raise_all(found: Sequence[str]) -> None:
    if found:
        raise ConfigError("\n".join(found))


# --- words ------------------------------------------------------------------------------------


def _unknown(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    if name in _NOT_YET:
        return "not in this version of Leastwise, so it would have no effect; take it out"
    return f"not known{_suggestion(name, known) or f'; known: {_listed(tuple(dict.fromkeys(known)))}'}"


def _suggestion(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name for name in names if name)


def _shown(value: Any) -> str:
    return masked(json.dumps(value, default=_simple, ensure_ascii=False))


def _simple(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)
