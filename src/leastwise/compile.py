"""Whether a request may run on another model than the one it was written for.

Conservative: it knows a short list of what is safe everywhere, asks the model table
about what differs, and refuses the rest. It changes nothing in a request and strips
nothing; a tier that does not fit is not used.

Source: https://docs.claude.com/en/docs/about-claude/models/migrating-to-claude-4
"""

from __future__ import annotations

from typing import Final

from leastwise.features import block_kinds, prompt_bound
from leastwise.messages import JSON, Request
from leastwise.models import Model, Models

_SAFE_MEMBERS: Final = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
#: Of these, the ones that every model takes alike.
_SAME_EVERYWHERE: Final = frozenset(
    {"max_tokens", "messages", "metadata", "model", "stop_sequences", "stream", "system", "thinking"}
)
_SAFE_BLOCKS: Final = frozenset({"text", "image", "document", "tool_use", "tool_result"})
_FORCED: Final = ("any", "tool")
_MOST_EFFORT: Final = ("xhigh", "max")
_NO_THINKING: Final = ("disabled", "between_tools")
_SAMPLING: Final = ("temperature", "top_p", "top_k")
#: Below this, thinking that the asked model would not have done may leave no room for the answer.
_ROOM_FOR_THINKING: Final = 1024


def misfit(request: Request, model: str, models: Models) -> str | None:
    """Return why `request` may not be sent to `model` instead, in words, or None when it may."""
    if request.model == model:
        return None
    names = request.names
    if not names <= _SAFE_MEMBERS:
        return f"not known to be safe to move: {', '.join(sorted(names - _SAFE_MEMBERS))}"
    if request.betas:
        return f"not known to be safe to move: beta {', '.join(request.betas)}"
    reason = _misfit_of_history(request)
    target = models.get(model)
    if reason is None and target is not None:
        reason = _misfit_of_turns(request.messages, target) or _misfit_of_size(request, target)
        if reason is None and not names <= _SAME_EVERYWHERE:
            reason = _misfit_of_settings(request, target)
        reason = reason or _misfit_of_thinking(request, target, models.get(request.model))
    return reason


def _misfit_of_history(request: Request) -> str | None:
    strange = block_kinds(request) - _SAFE_BLOCKS
    if strange:
        return f"the conversation holds a {min(strange)} block"
    return None


def _misfit_of_turns(turns: list[dict[str, JSON]], target: Model) -> str | None:
    if turns and turns[-1].get("role") == "assistant" and not target.takes_prefill:
        return _unknown(target, "a prefilled answer")
    if not target.takes_mid_system and any(turn.get("role") == "system" for turn in turns):
        return _unknown(target, "a system message")
    return None


def _misfit_of_settings(request: Request, target: Model) -> str | None:
    effort = (request.get("output_config") or {}).get("effort")
    choice = (request.get("tool_choice") or {}).get("type")
    if effort is not None and effort not in target.efforts:
        return _unknown(target, f"effort {effort!r}")
    if not target.takes_sampling and any(name in request for name in _SAMPLING):
        return _unknown(target, "sampling parameters")
    if choice in _FORCED and not target.takes_forced_tool_choice:
        return _unknown(target, "a forced tool choice")
    if any(_is_server_tool(tool) for tool in request.get("tools") or ()):
        return _unknown(target, "a server tool")
    return _misfit_of_pairs(request, target)


def _misfit_of_pairs(request: Request, target: Model) -> str | None:
    """Refuse what is taken alone, but not on every model together."""
    thinking = (request.get("thinking") or {}).get("type")
    effort = (request.get("output_config") or {}).get("effort")
    choice = (request.get("tool_choice") or {}).get("type")
    if "temperature" in request and "top_p" in request:
        return _unknown(target, "temperature with top_p")
    if thinking in _NO_THINKING and effort in _MOST_EFFORT:
        return _unknown(target, f"effort {effort!r} with thinking {thinking!r}")
    if target.thinking == "off" and thinking is not None and thinking not in _NO_THINKING:
        if choice in _FORCED:
            return _unknown(target, "a forced tool choice while it thinks")
        if any(name in request for name in _SAMPLING):
            return _unknown(target, "sampling parameters while it thinks")
    return None


def _unknown(target: Model, what: str) -> str:
    return f"{target.id} is not known to take {what}"


def _is_server_tool(tool: JSON) -> bool:
    return not isinstance(tool, dict) or tool.get("type", "custom") != "custom"


def _misfit_of_size(request: Request, target: Model) -> str | None:
    max_tokens = request.max_tokens or 0
    if max_tokens > target.max_output:
        return f"max_tokens {max_tokens:,} is above the {target.max_output:,} of {target.id}"
    if prompt_bound(request) + max_tokens > target.window:
        return f"the prompt may exceed the window of {target.id}"
    return None


def _misfit_of_thinking(request: Request, target: Model, asked: Model | None) -> str | None:
    thinking = request.get("thinking")
    if isinstance(thinking, dict):
        kind = thinking.get("type")
        return None if kind in target.accepts_thinking else f"{target.id} does not take thinking {kind!r}"
    thinks_more = target.thinking != "off" and asked is not None and asked.thinking == "off"
    if thinks_more and (request.max_tokens or 0) <= _ROOM_FOR_THINKING:
        return f"{target.id} thinks first, and max_tokens leaves no room for it"
    return None
