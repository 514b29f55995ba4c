"""Whether a request may run on another model than the one it was written for.

Conservative: it knows a short list of what is safe everywhere, asks the model table
about what differs, and refuses the rest. It changes nothing in a request and strips
nothing; a tier that does not fit is not used.

Source: https://docs.claude.com/en/docs/about-claude/models/migrating-to-claude-4
"""

from __future__ import annotations

from typing import Final

from leastwise.features import prompt_bound
from leastwise.ladder import AUTO
from leastwise.messages import JSON, Request, blocks_of
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
_SAFE_BLOCKS: Final = frozenset({"text", "image", "document", "tool_use", "tool_result"})
_SAMPLING: Final = ("temperature", "top_p", "top_k")
#: Below this, thinking that the asked model would not have done may leave no room for the answer.
_ROOM_FOR_THINKING: Final = 1024


def misfit(request: Request, model: str, models: Models) -> str | None:
    """Return why `request` may not be sent to `model` instead, in words, or None when it may."""
    if request.model == model:
        return None
    unknown = sorted(set(request) - _SAFE_MEMBERS)
    if unknown:
        return f"not known to be safe to move: {', '.join(unknown)}"
    if request.betas:
        return f"not known to be safe to move: beta {', '.join(request.betas)}"
    reason = _misfit_of_history(request)
    target = models.get(model)
    if reason is None and target is not None:
        reason = _misfit_of_settings(request, target) or _misfit_of_size(request, target)
        reason = reason or _misfit_of_thinking(request, target, models.get(request.model))
    return reason


def _misfit_of_history(request: Request) -> str | None:
    is_named = request.model not in AUTO
    human_turns = 0
    for turn in request.messages:
        blocks = blocks_of(turn.get("content"))
        for block in blocks:
            kind = block.get("type")
            if kind not in _SAFE_BLOCKS:
                return f"the conversation holds a {kind} block"
        human_turns += turn.get("role") == "user" and any(b.get("type") != "tool_result" for b in blocks)
    if is_named and human_turns > 1 and _marks_cache(request):
        return "the conversation has a prompt cache on the model it asks for"
    return None


def _marks_cache(request: Request) -> bool:
    places = [
        request.get("system"),
        request.get("tools"),
        *(turn.get("content") for turn in request.messages),
    ]
    return any("cache_control" in block for place in places for block in blocks_of(place))


def _misfit_of_settings(request: Request, target: Model) -> str | None:
    effort = (request.get("output_config") or {}).get("effort")
    choice = (request.get("tool_choice") or {}).get("type")
    turns = request.messages
    checks: tuple[tuple[bool, str], ...] = (
        (effort is not None and effort not in target.efforts, f"effort {effort!r}"),
        (any(name in request for name in _SAMPLING) and not target.takes_sampling, "sampling parameters"),
        (choice in ("any", "tool") and not target.takes_forced_tool_choice, "a forced tool choice"),
        (
            bool(turns) and turns[-1].get("role") == "assistant" and not target.takes_prefill,
            "a prefilled answer",
        ),
        (
            any(turn.get("role") == "system" for turn in turns) and not target.takes_mid_system,
            "a system message",
        ),
        (any(_is_server_tool(tool) for tool in request.get("tools") or ()), "a server tool"),
    )
    return next((f"{target.id} is not known to take {what}" for is_so, what in checks if is_so), None)


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
