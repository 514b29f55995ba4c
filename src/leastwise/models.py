"""What each Claude model accepts, as dated data.

The rows live in `data/models.toml` with their sources; `refreshed` lays over them what
`GET /v1/models` tells an account. Nothing here is inferred from an id: a model that
neither lists is simply unknown, and callers treat it so. What a model costs is
`prices`' business, and who asks the API, when, and keeps the answer is `catalogue`'s.

Source of the listing's shape: https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, get_args

Line = Literal["haiku", "sonnet", "opus", "fable", "mythos"]
Lifecycle = Literal["active", "deprecated", "retired"]
Sampling = Literal["any", "one", "defaults", "none"]

#: Levels of `output_config.effort`, least first.
EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")

#: Opus 4.7 and every later model count about 13 tokens where older ones count 10.
NEW_TOKENS: Final = 13
OLD_TOKENS: Final = 10

# `us.anthropic.claude-haiku-4-5-20251001-v1:0`, or an ARN that ends so (Bedrock),
# `claude-haiku-4-5@20251001` (Vertex), `anthropic/claude-haiku-4.5:beta` (OpenRouter, LiteLLM),
# `claude-haiku-4-5-20251001` and `claude-3-5-haiku-latest` (the API's own).
_SPELLING: Final = re.compile(
    r"(?:(?:[a-z0-9_.:-]+/)*(?:[a-z-]+\.)?anthropic[./](?:models/)?|(?:bedrock|vertex_ai)/)?"
    r"(?P<id>claude-[a-z0-9.-]+?)"
    r"(?:-\d{8}|@\d{8}|@default|-latest)?"
    r"(?:-v\d+(?::\d+k?)*|:[a-z]+|\[1m\])?"
)
_DOTTED: Final = re.compile(r"(?<=\d)\.(?=\d)")
#: Ids whose undated form is not the dated one without its date.
_RENAMED: Final = {"claude-opus-4": "claude-opus-4-0", "claude-sonnet-4": "claude-sonnet-4-0"}
_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_LONG_WINDOW: Final = 1_000_000
_MOST: Final = 10**9  # a larger limit is garbage


@dataclass(frozen=True, slots=True)
class Model:
    """One model's abilities and limits.

    Attributes:
        id: The API's id, without a date.
        line: The family it is sold under.
        tokenizer: `new` counts about 1.3 times the tokens of `old` for the same text.
        window: Most prompt and output tokens together.
        max_output: Most output tokens.
        released: First day it could be called, None when not published.
        retires: Day from which calls fail, None when none is announced.
        lifecycle: As `GET /v1/models` spells it, on the day of the data.
        thinking: What happens when a request says nothing of thinking.
        accepts_thinking: Values of `thinking.type` that are not refused.
        efforts: Levels of `output_config.effort` that are not refused; empty: the field itself is.
        default_effort: The level in force when none is given, "" when it has no levels.
        sampling: Which of `temperature`, `top_p`, `top_k` are accepted: `any`; `one` of the first two
            at a time; `defaults`, which are 1 and .99, and no `top_k`; `none`.
        takes_prefill: Whether the last message may be the assistant's.
        takes_forced_tool_choice: Whether `tool_choice` may be `any` or `tool`.
        cache_minimum_tokens: Shortest prefix the prompt cache stores.
        takes_mid_system: Whether a message after the first may have the role `system`.
        has_fast: Whether `speed: "fast"` is offered.
        binds_thinking_prefix: Whether replayed thinking is refused when what precedes it changed.
        takes_task_budget: Whether `output_config.task_budget` is accepted.
        takes_compaction: Whether `context_management` may clear thinking and compact.
        has_priority: Whether a commitment to the priority tier covers it.
        has_geo: Whether `inference_geo` is accepted.
        tools: Types of the API's own tools that are accepted, as patterns.
    """

    id: str
    line: Line
    tokenizer: Literal["old", "new"]
    window: int
    max_output: int
    released: date | None
    retires: date | None
    lifecycle: Lifecycle
    thinking: Literal["off", "on", "always"]
    accepts_thinking: frozenset[str]
    efforts: frozenset[str]
    default_effort: str
    sampling: Sampling
    takes_prefill: bool
    takes_forced_tool_choice: bool
    cache_minimum_tokens: int
    takes_mid_system: bool
    has_fast: bool
    binds_thinking_prefix: bool
    takes_task_budget: bool
    takes_compaction: bool
    has_priority: bool
    has_geo: bool
    tools: tuple[str, ...]

    @property
    def has_long_window(self) -> bool:
        """Whether prompts of a million tokens are taken."""
        return self.window >= _LONG_WINDOW

    @property
    def takes_deferred_tools(self) -> bool:
        """Whether tools may be found, called or shown by others (`defer_loading`, `allowed_callers`)."""
        return self.takes_tool("tool_search_")

    def is_retired(self, day: date) -> bool:
        """Tell whether calls fail on that day."""
        return self.lifecycle == "retired" or (self.retires is not None and self.retires <= day)

    def takes_tool(self, kind: str) -> bool:
        """Tell whether one of the API's own tools, by its `type`, is known to be accepted."""
        return any(fnmatchcase(kind, pattern) for pattern in self.tools)

    def takes_beta(self, beta: str) -> bool | None:
        """Tell whether an `anthropic-beta` value means something here; None when it is not known."""
        need = load_betas().get(_DATED.sub("", beta))
        return None if need is None else not need or bool(getattr(self, need))


class Models:
    """The known models, immutable, in the order of the data."""

    __slots__ = ("_by_id",)

    def __init__(self, rows: Iterable[Model]) -> None:
        self._by_id: Mapping[str, Model] = {row.id: row for row in rows}

    def __iter__(self) -> Iterator[Model]:
        """Iterate the models, in the order of the data."""
        return iter(self._by_id.values())

    def __len__(self) -> int:
        """Return how many models are known."""
        return len(self._by_id)

    def __contains__(self, model: str) -> bool:
        """Tell whether a model is known, in any of its spellings."""
        return self.get(model) is not None

    def get(self, model: str) -> Model | None:
        """Return the model of this id in any of its spellings, or None when it is unknown."""
        return self._by_id.get(model) or self._by_id.get(canonical(model))

    def refreshed(self, listing: Iterable[Mapping[str, Any]]) -> Models:
        """Return these models with what `GET /v1/models` says of them, and with those that only it names.

        Args:
            listing: Its rows, decoded. What is missing or garbled in one is passed over. Of a model
                that only the listing names, all that it does not tell counts as not accepted.
        """
        rows = dict(self._by_id)
        for told in listing:
            id_ = canonical(str(told.get("id")))
            known = rows.get(id_) or _unheard_of(id_, told)
            if known is not None:
                rows[id_] = replace(known, **_told(told))
        return Models(rows.values())

    def token_ratio(self, served: str, other: str) -> tuple[int, int]:
        """Return how many tokens `other` counts for what `served` counted, as numerator and denominator.

        1/1 when both count alike, or when either is unknown.
        """
        ours, theirs = self.get(served), self.get(other)
        if ours is None or theirs is None or ours.tokenizer == theirs.tokenizer:
            return 1, 1
        return (NEW_TOKENS, OLD_TOKENS) if theirs.tokenizer == "new" else (OLD_TOKENS, NEW_TOKENS)


@lru_cache(maxsize=1024)  # asked several times for each call, and a pure function
def canonical(model: str) -> str:
    """Return a Claude model's plain id: without date, a cloud's or a router's prefix, or a version suffix.

    Any other id comes back unchanged.

    >>> canonical("us.anthropic.claude-haiku-4-5-20251001-v1:0")
    'claude-haiku-4-5'
    >>> canonical("claude-opus-4@20250514")
    'claude-opus-4-0'
    >>> canonical("openrouter/anthropic/claude-opus-4.6")
    'claude-opus-4-6'
    >>> canonical("llama3.2:latest")
    'llama3.2:latest'
    """
    found = _SPELLING.fullmatch(model)
    if found is None:
        return model
    plain = _DOTTED.sub("-", found["id"])
    return _RENAMED.get(plain, plain)


@cache
def load_models() -> Models:
    """Return the models listed in the package's `data/models.toml`."""
    data = _load()
    return Models(_model(row, data["tools"]) for row in data["model"])


@cache
def load_betas() -> Mapping[str, str]:
    """Return the known betas by name without a date, each with the `Model` attribute it needs, or ""."""
    betas: Mapping[str, str] = _load()["betas"]
    return betas


@cache
def _load() -> dict[str, Any]:
    return tomllib.loads(files("leastwise").joinpath("data/models.toml").read_text("utf-8"))


def _model(row: Mapping[str, Any], tools: Mapping[str, list[str]]) -> Model:
    return Model(
        **{
            "released": None,
            "retires": None,
            **row,
            "accepts_thinking": frozenset(row["accepts_thinking"]),
            "efforts": frozenset(row["efforts"]),
            "tools": tuple(pattern for name in row["tools"] for pattern in tools[name]),
        }
    )


# --- what a listing tells ------------------------------------------------------------------------


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that a row of the listing gives, as far as they can be read."""
    found: dict[str, Any] = {}
    if row.get("lifecycle") in get_args(Lifecycle):
        found["lifecycle"] = row["lifecycle"]
    if isinstance(row.get("retires_at"), str):
        with suppress(ValueError):
            found["retires"] = date.fromisoformat(row["retires_at"][:10])
    limits = {"window": row.get("max_input_tokens"), "max_output": row.get("max_tokens")}
    found |= {name: limit for name, limit in limits.items() if type(limit) is int and 0 < limit < _MOST}
    thinking = _supported(row, "thinking", "types")
    if "adaptive" in thinking or "enabled" in thinking:
        found["accepts_thinking"] = frozenset(thinking)
        if found["accepts_thinking"] == {"adaptive"}:
            found["thinking"] = "always"
    efforts = _supported(row, "effort") & set(EFFORTS)
    if efforts:
        found["efforts"] = frozenset(efforts)
    if clears := _supported(row, "context_management"):
        found["takes_compaction"] = "clear_thinking_20251015" in clears
    return found


def _supported(row: Mapping[str, Any], *path: str) -> set[str]:
    """Return the names under `capabilities` and `path` that are said to be supported."""
    part: Any = row.get("capabilities")
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping):
        return set()
    return {
        name for name, value in part.items() if isinstance(value, Mapping) and value.get("supported") is True
    }


def _unheard_of(id_: str, row: Mapping[str, Any]) -> Model | None:
    """Return a model of which nothing is known but its line; None when even that is not told."""
    if row.get("line") not in get_args(Line):
        return None
    return Model(
        id=id_,
        line=row["line"],
        tokenizer="new",
        window=200_000,
        max_output=32_000,
        released=None,
        retires=None,
        lifecycle="active",
        thinking="on",
        accepts_thinking=frozenset({"adaptive"}),
        efforts=frozenset(),
        default_effort="",
        sampling="none",
        takes_prefill=False,
        takes_forced_tool_choice=False,
        cache_minimum_tokens=4096,
        takes_mid_system=False,
        has_fast=False,
        binds_thinking_prefix=True,
        takes_task_budget=False,
        takes_compaction=False,
        has_priority=False,
        has_geo=False,
        tools=(),
    )
