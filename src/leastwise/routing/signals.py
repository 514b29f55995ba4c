"""Way 2: sizes and kinds of content, set against thresholds; no word of the prompt is weighed.

Signals say *how much*, not *how hard*. They choose a tier only where the caller told the
size of the answer (in the reference preset always), and they raise a tier that was chosen
as simple when the request is bigger or richer than simple work is.

The rule outside the preset:

- simple: fewer than `small_input_tokens` in, at most `small_output_tokens` expected, and no
  code, tools, images, documents or long history;
- complex: code, and more than `large_output_tokens` expected;
- standard: everything else.

In the preset the reference's own: simple as above but blind to images, documents and
history; everything else, of whatever size, standard. An answer of untold size is not small.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from leastwise.errors import ConfigError
from leastwise.features import Features
from leastwise.ladder import Complexity

#: More messages than this is a conversation, whatever its last line says.
LONG_HISTORY_TURNS: Final = 10


@dataclass(frozen=True, slots=True)
class Signals:
    """Thresholds, in tokens.

    Attributes:
        small_input_tokens: A prompt below this is small.
        large_input_tokens: A prompt above this is large.
        small_output_tokens: An answer up to this is small.
        large_output_tokens: An answer above this is large.
    """

    small_input_tokens: int = 500
    large_input_tokens: int = 3000
    small_output_tokens: int = 100
    large_output_tokens: int = 1000

    def __post_init__(self) -> None:
        """Refuse thresholds that are no numbers or out of order.

        Raises:
            ConfigError: names the key and its value.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                message = f"[signals] {field.name} = {value!r}: expected a whole number of tokens from 0"
                raise ConfigError(message)
        for kind in ("input", "output"):
            small, large = getattr(self, f"small_{kind}_tokens"), getattr(self, f"large_{kind}_tokens")
            if small > large:
                message = f"[signals] small_{kind}_tokens = {small} is above large_{kind}_tokens = {large}"
                raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the signals say: a complexity, and the numbers behind it in words."""

    complexity: Complexity
    words: str


def read_signals(features: Features, tokens: int, limits: Signals, *, is_reference: bool = False) -> Reading:
    """Return the complexity that sizes and kinds of content speak for (see the module's rule)."""
    told = features.expected_output_tokens
    kinds = _kinds(features, is_reference=is_reference)
    is_small = tokens < limits.small_input_tokens and told is not None and told <= limits.small_output_tokens
    complexity: Complexity = "standard"
    if is_small and not kinds:
        complexity = "simple"
    elif not is_reference and features.has_code and told is not None and told > limits.large_output_tokens:
        complexity = "complex"
    out = "answer of untold size" if told is None else f"{told:,} out"
    return Reading(complexity, f"~{tokens:,} tokens in, {out}, {', '.join(kinds) or 'no code, no tools'}")


def too_much_for_simple(features: Features, tokens: int, limits: Signals) -> str:
    """Return, in words, what speaks against simple work in this request; "" when nothing does."""
    told = features.expected_output_tokens
    found = _kinds(features, is_reference=False)
    if tokens > limits.large_input_tokens:
        found.insert(0, f"~{tokens:,} tokens in (over {limits.large_input_tokens:,})")
    if told is not None and told > limits.large_output_tokens:
        found.append(f"{told:,} tokens out (over {limits.large_output_tokens:,})")
    return ", ".join(found)


def too_much_for_standard(features: Features, limits: Signals) -> str:
    """Return, in words, what makes standard work complex: code of large size; "" when it is not."""
    told = features.expected_output_tokens
    if told is not None and told > limits.large_output_tokens and features.has_code:
        return f"code, {told:,} tokens out (over {limits.large_output_tokens:,})"
    return ""


def _kinds(features: Features, *, is_reference: bool) -> list[str]:
    found = []
    if features.has_code:
        found.append("code")
    if features.has_tools:
        found.append("tools")
    if is_reference:
        return found
    if features.images:
        found.append("images")
    if features.documents:
        found.append("documents")
    if features.turns > LONG_HISTORY_TURNS:
        found.append(f"{features.turns} messages")
    return found
