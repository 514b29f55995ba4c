"""Leastwise sends every LLM call to the cheapest model tier that should do it.

It says what it has proved and what it has not. Importing this package opens
nothing; what it exports is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leastwise import checks
    from leastwise.alone import Budget, Cache
    from leastwise.build import Runtime
    from leastwise.cascade import Cascade, Check
    from leastwise.config import Config
    from leastwise.errors import (
        BudgetExceededError,
        BudgetUnavailableError,
        ConfigError,
        LeastwiseError,
        LogError,
        RequestError,
        StoreError,
        UnknownPriceError,
    )
    from leastwise.ladder import Code, Decision, Ladder, Outcome, Reason, Task, Tier, Verdict
    from leastwise.messages import Reply, Request, Usage
    from leastwise.routing import Policy, Router
    from leastwise.sdk import Anthropic, AsyncAnthropic, outcome, record, wrap

__all__ = [
    "Anthropic",
    "AsyncAnthropic",
    "Budget",
    "BudgetExceededError",
    "BudgetUnavailableError",
    "Cache",
    "Cascade",
    "Check",
    "Code",
    "Config",
    "ConfigError",
    "Decision",
    "Ladder",
    "LeastwiseError",
    "LogError",
    "Outcome",
    "Policy",
    "Reason",
    "Reply",
    "Request",
    "RequestError",
    "Router",
    "Runtime",
    "StoreError",
    "Task",
    "Tier",
    "UnknownPriceError",
    "Usage",
    "Verdict",
    "checks",
    "outcome",
    "record",
    "wrap",
]

_HOMES = {
    "leastwise.alone": ("Budget", "Cache"),
    "leastwise.build": ("Runtime",),
    "leastwise.cascade": ("Cascade", "Check"),
    "leastwise.config": ("Config",),
    "leastwise.errors": (
        "BudgetExceededError",
        "BudgetUnavailableError",
        "ConfigError",
        "LeastwiseError",
        "LogError",
        "RequestError",
        "StoreError",
        "UnknownPriceError",
    ),
    "leastwise.ladder": ("Code", "Decision", "Ladder", "Outcome", "Reason", "Task", "Tier", "Verdict"),
    "leastwise.messages": ("Reply", "Request", "Usage"),
    "leastwise.routing": ("Policy", "Router"),
    "leastwise.sdk": ("Anthropic", "AsyncAnthropic", "outcome", "record", "wrap"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load an exported name when it is first used.

    Raises:
        ImportError: the name needs the `anthropic` extra, which is not installed.
    """
    if name == "__version__":
        return import_module("importlib.metadata").version("leastwise")
    if name == "checks":
        return import_module("leastwise.checks")
    home = _HOME_OF.get(name)
    if home is None:
        message = f"module 'leastwise' has no attribute {name!r}"
        raise AttributeError(message)
    try:
        module = import_module(home)
    except ModuleNotFoundError as error:
        if error.name != "anthropic":
            raise
        message = f'leastwise.{name} needs the anthropic SDK: pip install "leastwise[anthropic]"'
        raise ImportError(message) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    """List the exported names."""
    return sorted([*__all__, "__version__"])
