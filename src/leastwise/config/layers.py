"""Where settings come from: defaults, files, the environment, arguments; and how they make one `Config`."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from leastwise.budget import BudgetRule
from leastwise.cascade import BUILT_IN, JUDGE
from leastwise.config.reading import API, OF_UPSTREAM, ROWS, SECTIONS, SETTINGS, How, Read, RowError, base_url
from leastwise.config.values import (
    DEFAULT,
    MEMORY,
    CacheOptions,
    CascadeOptions,
    ClassifierOptions,
    Config,
    LimitOptions,
    NotifyOptions,
    Setting,
    StoreAt,
    Upstream,
    file_of,
)
from leastwise.config.words import listed, shown, suggestion, unknown
from leastwise.errors import ConfigError
from leastwise.ladder import COMPLEXITIES, DEFAULT_LADDER, REFERENCE_LADDER, Complexity, Ladder
from leastwise.prices import DEFAULT_PROVIDER
from leastwise.routing import BASELINE, Signals

FILE_NAME: Final = "leastwise.toml"
CONFIG_VARIABLE: Final = "LEASTWISE_CONFIG"
_log: Final = logging.getLogger(__name__)
_PREFIX: Final = "LEASTWISE_"
#: What a file found in the working directory may not set.
_NOT_POLICY: Final = frozenset(
    {"upstream", "store", "price", "discount", "unpriced", "refresh_models", "notify"}
)
#: A variable whose value is put into a server's address, so that a password need not stand in a file.
_IN_ADDRESS: Final = re.compile(r"\$\{(\w+)\}")
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


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
    return replace(_Assembly(given, environ).config(files, watched), cache_folder=folder)


def user_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the user's own configuration file, there or not; None when there is no home directory."""
    folder = _folder(os.environ if environ is None else environ, ("XDG_CONFIG_HOME", "APPDATA"), ".config")
    return folder and folder / FILE_NAME


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
            self.wrong.append(f"{self.origin}: {key} = {shown(value, key)}: {error}")

    def refuse(self, key: str, why: str) -> None:
        self.wrong.append(f"{self.origin}: {key}: {why}")

    def add_table(self, table: Mapping[str, Any]) -> None:
        """Read a decoded file."""
        for name, value in table.items():
            if name in SETTINGS:
                self.add(name, value, SETTINGS[name].read)
            elif name in ROWS:
                self._add_rows(name, value)
            elif name == "upstream":
                self._add_upstreams(value)
            elif name in SECTIONS:
                self._add_section(name, value)
            else:
                self.refuse(name, unknown(name, (*SETTINGS, *ROWS, "upstream", *SECTIONS)))

    def _add_section(self, section: str, value: Any) -> None:
        for name, one in self._table(section, value):
            key = f"{section}.{name}"
            if key in SETTINGS:
                self.add(key, one, SETTINGS[key].read)
            else:
                known = [key.partition(".")[2] for key in SETTINGS if key.startswith(f"{section}.")]
                self.refuse(key, unknown(name, known))

    def _add_upstreams(self, value: Any) -> None:
        for upstream, table in self._table("upstream", value):
            for name, one in self._table(f"upstream.{upstream}", table):
                key = f"upstream.{upstream}.{name}"
                if name in OF_UPSTREAM:
                    self.add(key, one, OF_UPSTREAM[name].read)
                else:
                    self.refuse(key, unknown(name, OF_UPSTREAM))

    def _table(self, key: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, Mapping):
            return list(value.items())
        self.refuse(key, f"{shown(value)} is not a table; write [{key}]")
        return []

    def _add_rows(self, name: str, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
            self.refuse(name, f"write each as [[{name}]]")
            return
        rows = []
        for number, row in enumerate(value, 1):
            try:
                rows.append(ROWS[name](row))
            except RowError as error:
                self.wrong.extend(f"{self.origin}: [[{name}]] {number}: {one}" for one in error.found)
            except ConfigError as error:
                for line in str(error).splitlines():
                    self.refuse(f"[[{name}]] {number}", line.removeprefix(f"[[{name}]] "))
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
        if found.is_file():
            layers.append(_policy_of(found, user))
            _add_budgets(layers)
        return layers, (found,) if user is None else (user, found)
    return layers, (user,)


def _policy_of(path: Path, user: Path | None) -> _Layer:
    """Return the layer of a file found in the working directory; what is not policy is refused."""
    layer = _of_file(path)
    mend = f"move it to {user}, or pass --config {path}" if user is not None else f"pass --config {path}"
    for key in [key for key in layer.values if key.partition(".")[0] in _NOT_POLICY]:
        del layer.values[key]
        layer.refuse(key, f"a file found in the working directory may set policy only; {mend}")
    for row in layer.values.get("check", ()):
        if row.command or row.function:
            layer.refuse(
                f"[[check]] {row.name}", f"a file found in the working directory may run nothing; {mend}"
            )
    return layer


def _add_budgets(layers: Sequence[_Layer]) -> None:
    """Have the last layer keep the budgets of the one before: none is lifted by changing the folder."""
    *before, last = layers
    if "budget" in last.values and before:
        last.values["budget"] = before[-1].values.get("budget", ()) + last.values["budget"]


def _of_defaults(environ: Mapping[str, str]) -> list[_Layer]:
    """Return what holds where nothing is set, as far as it depends on the environment."""
    folder = _folder(environ, ("XDG_STATE_HOME", "LOCALAPPDATA"), ".local/state")
    file = "" if folder is None else str(folder / "leastwise.db")
    default = _Layer(
        DEFAULT,
        values={
            f"upstream.{DEFAULT_PROVIDER}.base_url": API,
            f"upstream.{DEFAULT_PROVIDER}.api_key_env": "ANTHROPIC_API_KEY",
            "store.url": f"sqlite:///{file}" if file else MEMORY,
        },
    )
    sdk = _Layer("ANTHROPIC_BASE_URL")  # where the official SDK sends requests, unless told otherwise
    if environ.get(sdk.origin):
        sdk.add(f"upstream.{DEFAULT_PROVIDER}.base_url", environ[sdk.origin], base_url)
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


def _variables(upstreams: Sequence[str]) -> dict[str, tuple[str, How]]:
    keys = dict(SETTINGS)
    for upstream in upstreams:
        keys |= {f"upstream.{upstream}.{name}": setting for name, setting in OF_UPSTREAM.items()}
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
        if key in SETTINGS:
            layer.add(key, value, SETTINGS[key].read)
        else:
            layer.refuse(key, unknown(key, SETTINGS))
    return layer


# --- all layers together ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Assembly:
    """The settings that won, and what does not fit together among them."""

    given: Mapping[str, Setting]
    environ: Mapping[str, str]
    wrong: list[str] = field(default_factory=list)

    def config(self, files: tuple[Path, ...], watched: tuple[Path, ...]) -> Config:
        """Return the configuration; raise ConfigError with everything that does not fit together."""
        ladder, upstreams = self._ladder(), self._upstreams()
        names = [tier.name for tier in ladder]
        rules, types, prices, budgets = (self._get(name, ()) for name in ("rule", "type", "price", "budget"))
        checks = self._get("check", ())
        complexity = _complexity(ladder)
        complexity |= {name: self._get(f"complexity.{name}", complexity[name]) for name in COMPLEXITIES}
        for name in COMPLEXITIES:
            self._check(f"complexity.{name}", complexity[name], names)
        self._check("unsure", self._get("unsure", BASELINE), (BASELINE, *names))
        for key in ("classifier.llm_tier", "cascade.escalate_to"):
            self._check(key, self._get(key, ""), ("", *names))
        for tier in ladder:
            self._check("tier", tier.upstream, tuple(upstreams), f"{tier.name}: upstream")
        for number, rule in enumerate(rules, 1):
            self._check("rule", rule.tier or names[0], names, f"{number}: tier")
        for own in types:
            self._check("type", own.tier or names[0], names, f"{own.name}: tier")
        for number, rate in enumerate(prices, 1):
            self._check("price", rate.provider, tuple(upstreams), f"{number}: provider")
        for budget in budgets:
            self._check_budget(budget, ladder)
        self._check_once("budget", "name")
        self._check_once("switch", "tag")
        self._check_once("type", "name")
        self._check_once("check", "name")
        for name in self._get("cascade.checks", ()):
            known = (*BUILT_IN, JUDGE, *(row.name for row in checks))
            self._check("cascade.checks", name, known, others=", or the name of a [[check]]")
        signals, store = self._signals(), self._store()
        _raise_all(self.wrong)
        scalars = ("mode", "percent", "reroute", "preset", "unsure", "strict", "refresh_models")
        return Config(
            **{key: self.given[key].value for key in (*scalars, "discount", "unpriced") if key in self.given},
            ladder=ladder,
            upstreams=MappingProxyType(upstreams),
            store=store,
            complexity=MappingProxyType(complexity),
            signals=signals,
            rules=rules,
            classifier=ClassifierOptions(**self._below("classifier")),
            types=types,
            switches=self._get("switch", ()),
            prices=prices,
            budgets=budgets,
            checks=checks,
            limits=LimitOptions(**self._below("limits")),
            cache=CacheOptions(**self._below("cache")),
            notify=NotifyOptions(**self._below("notify")),
            cascade=CascadeOptions(**self._below("cascade")),
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

    def _check(self, key: str, value: str, allowed: Sequence[str], part: str = "", others: str = "") -> None:
        """Refuse a name that is none of those allowed; `part` tells which in a row of `key`."""
        if value not in allowed:
            where = f"[[{key}]] {part}" if part else key
            self._refuse(
                key,
                f"{where} = {shown(value)}: expected {listed(allowed)}{others}{suggestion(value, allowed)}",
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

    def _check_budget(self, budget: BudgetRule, ladder: Ladder) -> None:
        names = [tier.name for tier in ladder]
        tiers = [ceiling.tier for ceiling in budget.ceilings or ()]
        for tier in tiers:
            self._check("budget", tier, names, f"{budget.name!r}: ceilings: tier")
        if all(tier in names for tier in tiers):
            try:
                budget.check(ladder)
            except ConfigError as error:
                self._refuse("budget", str(error))

    def _store(self) -> StoreAt:
        """Return where things are kept, the variables in servers' addresses put in."""
        parts = self._below("store")
        for name in ("url", "cache", "budget", "ledger"):
            url = parts.get(name, "")
            if not url or file_of(url):
                continue
            for variable in _IN_ADDRESS.findall(url):
                if not self.environ.get(variable):
                    self._refuse(f"store.{name}", f"store.{name}: the variable {variable} is not set")
            parts[name] = _IN_ADDRESS.sub(lambda found: quote(self.environ.get(found[1], ""), safe=""), url)
        return StoreAt(**parts)

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
            self._refuse(key, f"[[{key}]] {column} = {shown(value)}: given twice; keep one of them")

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
