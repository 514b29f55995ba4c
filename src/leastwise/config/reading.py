"""How each setting is read: what its value may be, and what is said of one that may not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from math import inf
from types import MappingProxyType
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from leastwise.budget import CAPS, SCOPES, SPANS, BudgetRule, Ceiling
from leastwise.cascade import HIGHEST_SCORE, LOWEST_SCORE, CheckRow, Overloaded, Unparsable
from leastwise.config.values import MEMORY, CacheOn, Durability, Kind, Unbounded, Unpriced
from leastwise.config.words import listed, shown, suggestion, unknown
from leastwise.errors import ConfigError
from leastwise.ladder import COMPLEXITIES, MODES, STREAMINGS, Tier
from leastwise.money import to_nusd
from leastwise.prices import Rate
from leastwise.routing import OwnType, Rule, Signals, Switch

SCHEMA: Final = 1
API: Final = "https://api.anthropic.com"
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*")
_WHOLE: Final = 100  # percent
_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")
#: Which servers may keep what, besides SQLite.
_LEDGERS: Final = ("postgresql",)
_CACHES: Final = ("redis", "rediss", "unix")
_ADDRESSES: Final = {
    "postgresql": "postgresql://user@host/name",
    "redis": "redis://host:6379/0",
    "rediss": "rediss://host:6379/0",
    "unix": "unix:///run/redis.sock",
}

Read = Callable[[Any], Any]


def _one_of(*allowed: str) -> Read:
    def read(value: Any) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        close = difflib.get_close_matches(str(value), allowed, n=1)
        message = f"expected {listed(allowed)}" + (f"; did you mean {close[0]!r}?" if close else "")
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


def _between(least: float, most: float, words: str) -> Callable[[Any], Decimal]:
    def read(value: Any) -> Decimal:
        number = _number(value)
        if number is not None and least <= number <= most:
            return number
        message = f"expected {words}"
        raise ValueError(message)

    return read


def _float(read: Callable[[Any], Decimal]) -> Read:
    return lambda value: float(read(value))


_share: Final = _between(0, 1, "a share from 0 to 1, such as 0.15")
_fraction: Final = _float(_share)
_score: Final = _float(
    _between(LOWEST_SCORE, HIGHEST_SCORE, f"a score from {LOWEST_SCORE} to {HIGHEST_SCORE}")
)
_seconds: Final = _float(_between(0, inf, "seconds, such as 10"))
_any_number: Final = _float(_between(-inf, inf, "a number"))
_of_hundred: Final = _between(0, _WHOLE, "a number from 0 to 100")


def _percent(value: Any) -> float:
    number = _of_hundred(value)
    return int(number) if number == int(number) else float(number)


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        found: Mapping[str, Any] = _floats(value)
        return found
    message = 'expected a JSON Schema as a table, such as {type = "object"}'
    raise ValueError(message)


def _floats(value: Any) -> Any:
    """Return what TOML holds as JSON would hold it: its numbers are read as decimals."""
    if isinstance(value, Mapping):
        return {str(name): _floats(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_floats(one) for one in value]
    return float(value) if isinstance(value, Decimal) else value


def _dollars(value: Any) -> int:
    number = _number(value)
    if number is None:
        message = "expected dollars, such as 8000 or 12.50"
        raise ValueError(message)
    return to_nusd(number)


def _each_of(*allowed: str) -> Read:
    one_of = _one_of(*allowed)

    def read(value: Any) -> tuple[str, ...]:
        return tuple(map(one_of, _texts(value)))

    return read


def _ceilings(value: Any) -> tuple[Ceiling, ...]:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        message = 'expected a list such as [{above = 0.70, tier = "sonnet"}], or [] for none'
        raise ValueError(message)
    known = {"above": _share, "tier": _text}
    try:
        return tuple(Ceiling(**_columns(one, known, required=("above", "tier"))) for one in value)
    except RowError as error:
        raise ValueError("; ".join(error.found)) from None


def _variable(value: Any) -> str:
    if value == "" or (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        return str(value)
    message = 'expected the name of an environment variable, never a key itself, or "" for no key'
    raise ValueError(message)


def base_url(value: Any) -> str:
    """Read an address, without a path of the API's; a password in it is refused."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"expected an address such as {API}"
        raise ValueError(message)
    if parts.username or parts.password:
        message = "an address must not hold a password: name a variable in api_key_env"
        raise ValueError(message)
    return str(value).rstrip("/").removesuffix("/v1")


def _place(*schemes: str, is_optional: bool = True) -> Read:
    """Return what reads the address of a store: a SQLite file, or a server by one of these schemes."""
    known = ("sqlite", *schemes)

    def read(value: Any) -> str:
        if value == "" and is_optional:
            return ""
        if not isinstance(value, str) or not value:
            message = "expected an address such as sqlite:////var/lib/leastwise/leastwise.db"
            raise ValueError(message)
        if value.removeprefix("sqlite://").strip("/") == MEMORY:
            return MEMORY
        scheme, found, path = value.partition("://")
        if not found:
            message = f"write a file as sqlite:/// and its absolute path, such as {_example(value)}"
            raise ValueError(message)
        if scheme not in known:
            servers = "".join(f", {_ADDRESSES[name]}" for name in schemes)
            message = f"expected sqlite:////absolute/path.db{servers}, or {MEMORY}{suggestion(scheme, known)}"
            raise ValueError(message)
        if scheme == "sqlite" and not path.startswith("//") and not _DRIVE.match(path.removeprefix("/")):
            message = (
                "a relative path would be another one in every folder; write the whole path, "
                f"with four slashes, such as {_example(path)}"
            )
            raise ValueError(message)
        if scheme != "sqlite" and not _is_address(value):
            message = f"expected an address such as {_ADDRESSES[scheme]}"
            raise ValueError(message)
        return value

    return read


def _is_address(url: str) -> bool:
    """Tell whether the address of a server can be one; variables in it are not yet put in."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return parts.path.startswith("/") and not parts.hostname
    if parts.scheme == "postgresql":  # libpq takes a host from its variables, or from the query
        return True
    return bool(parts.hostname) and port != 0 and (parts.path.strip("/") or "0").isdigit()


def _webhook(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    is_address = parts is not None and parts.scheme in ("http", "https") and parts.hostname
    if value == "" or (is_address and parts is not None and parts.username is None):
        return str(value)
    message = 'expected an address such as https://hooks.example.com/leastwise, or "" for none'
    raise ValueError(message)


def _example(path: str) -> str:
    return f"sqlite:////absolute/path/{path.rpartition('/')[2] or 'leastwise.db'}"


@dataclass(frozen=True, slots=True)
class How:
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


SETTINGS: Final[Mapping[str, How]] = MappingProxyType(
    {
        "schema": How(_schema, _parse_number),
        "mode": How(_one_of(*MODES)),
        "percent": How(_percent, _parse_number),
        "reroute": How(_texts, _parse_texts),
        "unsure": How(_text),
        "preset": How(_one_of("", "reference")),
        "strict": How(_flag, _parse_flag),
        "refresh_models": How(_flag, _parse_flag),
        "unpriced": How(_one_of(*get_args(Unpriced))),
        "discount": How(_share, _parse_number),
        "store.url": How(_place(*_LEDGERS, is_optional=False)),
        "store.cache": How(_place(*_CACHES)),
        "store.budget": How(_place(*_CACHES, *_LEDGERS)),
        "store.ledger": How(_place(*_LEDGERS)),
        "store.keep_days": How(_whole(1), _parse_number),
        "store.durability": How(_one_of(*get_args(Durability))),
        **{f"complexity.{name}": How(_text) for name in COMPLEXITIES},
        **{f"signals.{one.name}": How(_whole(0), _parse_number) for one in fields(Signals)},
        "classifier.learned": How(_flag, _parse_flag),
        "classifier.llm_tier": How(_name_or_none),
        "cascade.enabled": How(_flag, _parse_flag),
        "cascade.checks": How(_texts, _parse_texts),
        "cascade.judge": How(_name_or_none),
        "cascade.threshold": How(_score, _parse_number),
        "cascade.unparsable": How(_one_of(*get_args(Unparsable))),
        "cascade.escalate_to": How(_name_or_none),
        "cascade.stream": How(_one_of(*STREAMINGS)),
        "cascade.overloaded": How(_one_of(*get_args(Overloaded))),
        "cascade.controls": How(_fraction, _parse_number),
        "cascade.probes": How(_fraction, _parse_number),
        "cascade.floor_s": How(_seconds, _parse_number),
        "cache.on": How(_one_of(*get_args(CacheOn))),
        "cache.tags": How(_texts, _parse_texts),
        "cache.ttl_s": How(_whole(1), _parse_number),
        "cache.max_mb": How(_whole(1), _parse_number),
        "cache.normalise": How(_flag, _parse_flag),
        "limits.lease_wait_s": How(_seconds, _parse_number),
        "limits.unbounded": How(_one_of(*get_args(Unbounded))),
        "limits.contact": How(_name_or_none),
        "notify.webhook": How(_webhook),
    }
)
OF_UPSTREAM: Final[Mapping[str, How]] = MappingProxyType(
    {
        "base_url": How(base_url),
        "api_key_env": How(_variable),
        "kind": How(_one_of(*get_args(Kind))),
    }
)
SECTIONS: Final = frozenset(key.partition(".")[0] for key in SETTINGS if "." in key)


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


def _budget(row: Mapping[str, Any]) -> BudgetRule:
    known = {
        "name": _text,
        "limit_usd": _dollars,
        "scope": _each_of(*SCOPES),
        "window": _one_of(*SPANS),
        "rolling": _flag,
        "tz": _text,
        "ceilings": _ceilings,
        "cap": _one_of(*CAPS),
        "critical_limit_usd": _dollars,
        "reserve": _share,
        "only": _texts,
    }
    read = _columns(row, known, required=("name", "limit_usd"))
    return BudgetRule(**{name.replace("_usd", "_nusd"): value for name, value in read.items()})


def _check(row: Mapping[str, Any]) -> CheckRow:
    texts = dict.fromkeys(("name", "pattern", "language", "command", "function", "folder"), _text)
    bounds = dict.fromkeys(("min_chars", "max_chars", "min_words", "max_words", "memory_mb"), _whole(0))
    others = {"labels": _texts, "full": _flag, "schema": _object, "threshold": _any_number}
    return CheckRow(**_columns(row, {**texts, **bounds, **others, "timeout_s": _seconds}, required=("name",)))


def read_budget(row: Mapping[str, Any]) -> BudgetRule:
    """Return one `[[budget]]`.

    Raises:
        ConfigError: says everything that is wrong with it.
    """
    try:
        return _budget(row)
    except RowError as error:
        raise ConfigError("\n".join(f"[[budget]] {one}" for one in error.found)) from None


ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = MappingProxyType(
    {"tier": _tier, "rule": _rule, "type": _type, "switch": _switch, "price": _price, "budget": _budget}
    | {"check": _check}
)


class RowError(Exception):
    """Everything that is wrong with one row."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(found)
        self.found = found


def _columns(
    row: Mapping[str, Any], known: Mapping[str, Read], required: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a row's values, read; raise `RowError` with all that is wrong with them."""
    found, read = [], {}
    for name, value in row.items():
        if name not in known:
            found.append(f"{name} is {unknown(name, known)}")
            continue
        try:
            read[name] = known[name](value)
        except ValueError as error:
            found.append(f"{name} = {shown(value)}: {error}")
    found += [f"{name} is missing" for name in required if name not in row]
    if found:
        raise RowError(found)
    return read
