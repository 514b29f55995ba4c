"""What each Claude model accepts, as dated data.

The rows live in `data/models.toml` with their sources. Nothing here is inferred
from an id: a model that is not listed is simply unknown, and callers treat it so.
What a model costs is `prices`' business.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, Literal

Line = Literal["haiku", "sonnet", "opus", "fable", "mythos"]

#: Opus 4.7 and every later model count about 13 tokens where older ones count 10.
NEW_TOKENS: Final = 13
OLD_TOKENS: Final = 10

# `us.anthropic.claude-haiku-4-5-20251001-v1:0` (Bedrock), `claude-haiku-4-5@20251001` (Vertex),
# `claude-haiku-4-5-20251001` and `claude-3-5-haiku-latest` (the API's own).
_SPELLING: Final = re.compile(
    r"(?:(?:[a-z-]+\.)?anthropic\.)?"
    r"(?P<id>claude-[a-z0-9.-]+?)"
    r"(?:-\d{8}|@\d{8}|@default|-latest)?"
    r"(?:-v\d+(?::\d+k?)*)?"
)
#: Ids whose undated form is not the dated one without its date.
_RENAMED: Final = {"claude-opus-4": "claude-opus-4-0", "claude-sonnet-4": "claude-sonnet-4-0"}


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
        takes_sampling: Whether `temperature`, `top_p`, `top_k` other than the default are accepted.
        takes_prefill: Whether the last message may be the assistant's.
        takes_forced_tool_choice: Whether `tool_choice` may be `any` or `tool`.
        cache_minimum_tokens: Shortest prefix the prompt cache stores.
        takes_mid_system: Whether a message after the first may have the role `system`.
        has_fast: Whether `speed: "fast"` is offered.
        binds_thinking_prefix: Whether replayed thinking is refused when what precedes it changed.
    """

    id: str
    line: Line
    tokenizer: Literal["old", "new"]
    window: int
    max_output: int
    released: date | None
    retires: date | None
    lifecycle: Literal["active", "deprecated", "retired"]
    thinking: Literal["off", "on", "always"]
    accepts_thinking: frozenset[str]
    efforts: frozenset[str]
    default_effort: str
    takes_sampling: bool
    takes_prefill: bool
    takes_forced_tool_choice: bool
    cache_minimum_tokens: int
    takes_mid_system: bool
    has_fast: bool
    binds_thinking_prefix: bool


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
    """Return a Claude model's plain id: without date, Bedrock's prefix and version, or Vertex's `@date`.

    Any other id comes back unchanged.

    >>> canonical("us.anthropic.claude-haiku-4-5-20251001-v1:0")
    'claude-haiku-4-5'
    >>> canonical("claude-opus-4@20250514")
    'claude-opus-4-0'
    >>> canonical("llama3.2:latest")
    'llama3.2:latest'
    """
    found = _SPELLING.fullmatch(model)
    if found is None:
        return model
    plain = found["id"]
    return _RENAMED.get(plain, plain)


@cache
def load_models() -> Models:
    """Return the models listed in the package's `data/models.toml`."""
    text = files("leastwise").joinpath("data/models.toml").read_text("utf-8")
    return Models(_model(row) for row in tomllib.loads(text)["model"])


def _model(row: Mapping[str, Any]) -> Model:
    return Model(
        **{
            "released": None,
            "retires": None,
            **row,
            "accepts_thinking": frozenset(row["accepts_thinking"]),
            "efforts": frozenset(row["efforts"]),
        }
    )
