"""Fitting a request to another model than the one it was written for, or saying why not.

`fit` changes as little as it can. The prompt itself (`system`, `tools`, `messages`) is
never touched: that would lose its cache, and thinking that is bound to it. Of the rest,
each setting that the other model takes differently is, in this order of preference,

- *translated* to what means the same there: thinking, effort, `max_tokens`;
- *stripped*, and said to be: sampling parameters, an effort or a task budget where there is
  none, betas that mean nothing there. Strict fitting refuses instead;
- *refused*: the model is not fit for this request, and the tier is not used. So is whatever
  is not known to be safe to move.

`RULES` has the members that are judged, each with its rule; a member in neither it nor
`_ANYWHERE` is refused. For a model that is not in the table the request alone is judged.

Sources: https://platform.claude.com/docs/en/about-claude/models/migration-guide,
.../build-with-claude/adaptive-thinking and .../build-with-claude/effort
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from leastwise.messages import JSON, LEFT_OUT, Request, answered_calls, blocks_of
from leastwise.models import EFFORTS, Model, Models
from leastwise.tally import block_kinds, prompt_ceiling

#: Members that every model takes alike, or that no rule has to look at.
_ANYWHERE: Final = frozenset(
    {"cache_control", "max_tokens", "messages", "metadata", "model", "stop_sequences", "stream", "system"}
)
_BLOCKS: Final = frozenset(
    {"document", "image", "redacted_thinking", "search_result", "text", "thinking", "tool_result", "tool_use"}
)
#: Blocks that the API's own tools leave in a conversation.
_SERVER_BLOCKS: Final = frozenset(
    {
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)
_MID_CONVERSATION_BLOCKS: Final = frozenset({"tool_addition", "tool_removal"})
_DEFERRING: Final = frozenset({"allowed_callers", "defer_loading", "input_examples"})
_FORCED: Final = ("any", "tool")
_THINKING: Final = ("adaptive", "between_tools", "disabled", "enabled")
_NO_THINKING: Final = ("disabled", "between_tools")
_LEAST_BUDGET: Final = 1024
#: What a budget of thinking tokens amounts to, and what an effort is worth as one.
_EFFORT_OF_BUDGET: Final = ((2_048, "low"), (10_000, "medium"), (16_000, "high"), (32_000, "xhigh"))
_BUDGET_OF_EFFORT: Final = MappingProxyType(
    {"low": 2_048, "medium": 10_000, "high": 16_000, "xhigh": 32_000, "max": 32_000}
)
#: Below this, thinking that the asked model would not have done may leave no room for the answer.
_ROOM_FOR_THINKING: Final = 1024
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_NO_SAMPLING_SINCE: Final = "2026-10-21"  # from this `anthropic-version` on no model takes any
_DEFAULTS: Final = {"temperature": 1, "top_p": 0.99}
_LEAST_WITH_THINKING: Final = {"temperature": 1, "top_p": 0.95}
_REMOVED: Final = "removed"
_MOST_WORDS: Final = 200  # of a reason


@dataclass(frozen=True, slots=True)
class Fit:
    """What has to differ in a request for one model.

    Attributes:
        members: The top-level members that differ, `model` among them; of a misfit, the best that can be
            made of it.
        betas: The betas that go along, None for those that came.
        changes: What differs beside `model`: path -> words, such as
            `output_config.effort` -> `xhigh -> high`.
        misfit: Why it may not be sent there, in words, or "" when it may.
    """

    members: Mapping[str, JSON] = field(default_factory=dict)
    betas: tuple[str, ...] | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    misfit: str = ""

    def apply(self, request: Request) -> Request:
        """Return the request as it is sent there: itself where nothing differs."""
        return request.replace(betas=self.betas, **self.members) if self.members else request

    @property
    def words(self) -> str:
        """The changes, as one text."""
        return ", ".join(f"{path} {words}" for path, words in self.changes.items())


_AS_IT_IS: Final = Fit()


def fit(request: Request, model: str, models: Models, *, is_strict: bool = False) -> Fit:
    """Return what has to differ in `request` for `model`; nothing where it asked for that very model.

    Args:
        request: As received; `model` may be `auto` or a tier's name, of which nothing is known.
        model: Where it is to go.
        models: What is known of models.
        is_strict: Refuse what would have to be stripped.
    """
    if request.model == model:
        return _AS_IT_IS
    key = f"compile.fit {model}"
    found: Fit | None = None if request.changes else request.notes.get(key)
    if found is None:
        found = _fit(request, model, models, is_strict=is_strict)
        if not request.changes:
            request.notes[key] = found
    return found


def _fit(request: Request, model: str, models: Models, *, is_strict: bool) -> Fit:
    draft = _Draft(request, models.get(request.model), is_strict=is_strict)
    special = request.names - _ANYWHERE
    for name in sorted(special - RULES.keys()):
        draft.refuse(f"not known to be safe to move: {name}")
    target = models.get(model)
    _fit_blocks(draft, target)
    if target is not None:
        _fit_limits(draft, target)
        _fit_turns(draft, target)
        for name, rule in RULES.items() if special else ():
            if name in special:
                rule(draft, target)
        if "thinking" not in request:
            _fit_default_thinking(draft, target)
    _fit_betas(draft, target)
    return Fit({"model": model, **draft.members}, draft.betas, draft.changes, draft.misfit)


@dataclass(slots=True)
class _Draft:
    """A request while it is fitted: what differs so far, in words too."""

    request: Request
    asked: Model | None
    is_strict: bool = field(kw_only=True)
    members: dict[str, JSON] = field(default_factory=dict)
    betas: tuple[str, ...] = ()
    changes: dict[str, str] = field(default_factory=dict)
    misfit: str = ""

    def get(self, name: str) -> JSON:
        """Return a member as it stands now; an object that is none counts as absent."""
        value = self.members.get(name, LEFT_OUT if name not in self.request else self.request.get(name))
        return None if value is LEFT_OUT else value

    def part(self, name: str) -> dict[str, JSON]:
        """Return a member that should be an object, as it stands now; else an empty one."""
        value = self.get(name)
        return value if isinstance(value, dict) else {}

    def refuse(self, why: str) -> None:
        """Say that the request may not go there; the first reason counts. Names in it may be the caller's."""
        self.misfit = self.misfit or why[:_MOST_WORDS]

    def set(self, name: str, value: JSON, path: str, words: str) -> None:
        """Give a member another value."""
        self.members[name] = value
        self.changes[path] = words

    def leave_out(self, path: str) -> None:
        """Leave out a member, or one part of it; strict fitting refuses."""
        name, _, part = path.partition(".")
        rest = {key: value for key, value in self.part(name).items() if key != part} if part else {}
        self.members[name] = rest or LEFT_OUT
        self.say_left_out(path)

    def say_left_out(self, path: str) -> None:
        """Note that something of the caller's is left out; strict fitting refuses."""
        self.changes[path] = _REMOVED
        if self.is_strict:
            self.refuse(f"strict: {path} would have to be left out")

    @property
    def max_tokens(self) -> int:
        """The cap as it stands now; 0 when there is none to be read."""
        value = self.get("max_tokens")
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    @property
    def effort(self) -> JSON:
        """The effort as it stands now."""
        return self.part("output_config").get("effort")

    @property
    def forces_tool(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self.part("tool_choice").get("type") in _FORCED

    def set_effort(self, effort: str) -> None:
        """Ask for another effort."""
        before = self.effort
        words = effort if before is None else f"{before} -> {effort}"
        config = {**self.part("output_config"), "effort": effort}
        self.set("output_config", config, "output_config.effort", words)

    def set_thinking(self, thinking: dict[str, JSON], words: str) -> None:
        """Ask for other thinking."""
        self.set("thinking", thinking, "thinking", words)


def _unknown(target: Model, what: str) -> str:
    return f"{target.id} is not known to take {what}"


# --- the conversation, which is taken or refused but never changed -----------------------------


def _fit_blocks(draft: _Draft, target: Model | None) -> None:
    strange = block_kinds(draft.request) - _BLOCKS
    if strange and target is not None and target.takes_deferred_tools:
        strange -= _SERVER_BLOCKS
    if strange and target is not None and target.takes_mid_system:
        strange -= _MID_CONVERSATION_BLOCKS
    if strange:
        draft.refuse(f"the conversation holds a {min(strange)} block")


def _fit_turns(draft: _Draft, target: Model) -> None:
    turns: list[dict[str, JSON]] = draft.request.get("messages")
    if turns and turns[-1].get("role") == "assistant":
        if any(block.get("type") == "server_tool_use" for block in blocks_of(turns[-1].get("content"))):
            draft.refuse("a paused answer goes on where it began")
        elif not target.takes_prefill:
            draft.refuse(_unknown(target, "a prefilled answer"))
    if not target.takes_mid_system and any(turn.get("role") == "system" for turn in turns):
        draft.refuse(_unknown(target, "a system message"))


def _fit_limits(draft: _Draft, target: Model) -> None:
    cap = draft.max_tokens
    if cap > target.max_output:
        cap = target.max_output
        draft.set("max_tokens", cap, "max_tokens", f"{draft.max_tokens:,} -> {cap:,}")
    if draft.get("max_tokens") == 0:
        draft.refuse("it only fills a prompt cache, which is the asked model's own")
    if prompt_ceiling(draft.request) + cap > target.window:
        draft.refuse(f"the prompt may exceed the window of {target.id}")


# --- members ----------------------------------------------------------------------------------------


def _fit_thinking(draft: _Draft, target: Model) -> None:
    given, kind = draft.part("thinking"), draft.part("thinking").get("type")
    if kind not in _THINKING or (kind == "enabled" and not isinstance(given.get("budget_tokens"), int)):
        draft.refuse("what it says of thinking cannot be read")
        return
    if kind not in target.accepts_thinking:
        _translate_thinking(draft, target, kind)
    elif "block_binding" in given and not target.binds_thinking_prefix:
        draft.leave_out("thinking.block_binding")
    _check_budget(draft, target)


def _translate_thinking(draft: _Draft, target: Model, kind: str) -> None:
    """Ask for what comes nearest to a kind of thinking that the target does not take."""
    given = draft.part("thinking")
    if kind == "enabled" and "adaptive" in target.accepts_thinking:
        display = {"display": given["display"]} if "display" in given else {}
        draft.set_thinking({"type": "adaptive", **display}, "enabled -> adaptive")
        if draft.effort is None and target.efforts:
            draft.set_effort(_effort_of(given["budget_tokens"], target))
    elif kind == "adaptive" and "enabled" in target.accepts_thinking:
        asked = draft.effort or (draft.asked.default_effort if draft.asked is not None else "")
        budget = _BUDGET_OF_EFFORT.get(asked, _BUDGET_OF_EFFORT["medium"])
        words = f"adaptive -> enabled, at most {budget:,} tokens"
        draft.set_thinking({"type": "enabled", "budget_tokens": budget}, words)
    elif kind in _NO_THINKING:
        off = next((other for other in _NO_THINKING if other in target.accepts_thinking), None)
        if off is not None:
            draft.set_thinking({"type": off}, f"{kind} -> {off}")
        else:
            draft.leave_out("thinking")
            _think_little(draft, target)
    else:
        draft.refuse(_unknown(target, f"thinking {kind!r}"))


def _think_little(draft: _Draft, target: Model) -> None:
    """Hold down the thinking of a model that cannot be told not to."""
    if draft.max_tokens <= _ROOM_FOR_THINKING:
        draft.refuse(f"{target.id} thinks first, and max_tokens leaves no room for it")
    elif "low" in target.efforts:
        draft.set_effort("low")


def _effort_of(budget: int, target: Model) -> str:
    wanted = next((effort for most, effort in _EFFORT_OF_BUDGET if budget <= most), "max")
    return _nearest(wanted, target)


def _nearest(effort: str, target: Model) -> str:
    """Return the level itself where it is taken, else the next lower one that is, else the lowest."""
    lower = EFFORTS[: EFFORTS.index(effort) + 1]
    taken = [level for level in EFFORTS if level in target.efforts]
    return next((level for level in reversed(lower) if level in taken), taken[0])


def _check_budget(draft: _Draft, target: Model) -> None:
    """Give up thinking where something else excludes it, or keep its budget below the cap."""
    given = draft.part("thinking")
    kind = given.get("type")
    if target.thinking != "off" or kind not in ("adaptive", "enabled"):
        return
    has_no_room = kind == "enabled" and draft.max_tokens <= _LEAST_BUDGET
    # A turn that began without thinking ends without.
    is_turned_on = kind == "enabled" and "thinking" in draft.changes
    began_without = is_turned_on and answered_calls(draft.request.messages) is not None
    if has_no_room or began_without or draft.forces_tool:
        draft.leave_out("thinking")
    elif kind == "enabled" and given["budget_tokens"] >= draft.max_tokens:
        room = max(_LEAST_BUDGET, draft.max_tokens // 2)
        draft.set_thinking({**given, "budget_tokens": room}, f"enabled, at most {room:,} tokens")


def _fit_default_thinking(draft: _Draft, target: Model) -> None:
    """Keep a model that thinks by default from using up a cap made for one that does not."""
    thinks_there = draft.asked is not None and draft.asked.thinking != "off"
    if target.thinking == "off" or thinks_there or draft.max_tokens > _ROOM_FOR_THINKING:
        return
    off = next((kind for kind in _NO_THINKING if kind in target.accepts_thinking), None)
    if off is not None:
        draft.set_thinking({"type": off}, f"{off}, for the cap leaves it no room")
        _cap_effort(draft, target)
    elif draft.asked is not None:
        _think_little(draft, target)


def _cap_effort(draft: _Draft, target: Model) -> None:
    """Lower an effort that is not taken without thinking."""
    is_off = draft.part("thinking").get("type") in _NO_THINKING
    if is_off and target.thinking == "on" and draft.effort in ("xhigh", "max"):
        draft.set_effort("high")


def _fit_output_config(draft: _Draft, target: Model) -> None:
    config = draft.part("output_config")
    for name in sorted(config.keys() - {"effort", "format", "task_budget"}):
        draft.refuse(f"not known to be safe to move: output_config.{name}")
    if "task_budget" in config and not target.takes_task_budget:
        draft.leave_out("output_config.task_budget")
    effort = config.get("effort")
    if effort is None:
        return
    if effort not in EFFORTS:
        draft.refuse("its effort is not known")
    elif not target.efforts:
        draft.leave_out("output_config.effort")
    elif effort not in target.efforts:
        draft.set_effort(_nearest(effort, target))
    _cap_effort(draft, target)


def _fit_sampling(draft: _Draft, target: Model) -> None:
    """Leave out the sampling parameters that the target, thinking as it will, does not take."""
    given = {name: draft.request.get(name) for name in _SAMPLING if name in draft.request}
    thinks = target.thinking == "off" and draft.part("thinking").get("type") in ("enabled", "adaptive")
    for name, value in given.items():
        is_taken = {
            "any": True,
            "one": name != "top_p" or "temperature" not in given,
            "defaults": _DEFAULTS.get(name) == value,
            "none": False,
        }[target.sampling]
        if thinks:
            least = _LEAST_WITH_THINKING.get(name, math.inf)
            is_taken = is_taken and isinstance(value, int | float) and value >= least
        is_taken = is_taken and draft.request.version < _NO_SAMPLING_SINCE
        if not is_taken and name not in draft.changes:
            draft.leave_out(name)


def _fit_tools(draft: _Draft, target: Model) -> None:
    tools = draft.get("tools") or []
    listed: list[JSON] = tools if isinstance(tools, list) else [None]
    for tool in listed:
        kind = tool.get("type") or "custom" if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            draft.refuse("a tool cannot be read")
        elif kind != "custom":
            if not target.takes_tool(kind):
                draft.refuse(_unknown(target, f"the tool {kind}"))
        elif not (target.takes_deferred_tools or _DEFERRING.isdisjoint(tool)):
            draft.refuse(_unknown(target, f"{min(_DEFERRING & tool.keys())} of a tool"))


def _fit_tool_choice(draft: _Draft, target: Model) -> None:
    if draft.forces_tool and not target.takes_forced_tool_choice:
        draft.refuse(_unknown(target, "a forced tool choice"))


def _fit_context_management(draft: _Draft, target: Model) -> None:
    """Leave out the clearing of thinking where there is none to be cleared; compaction is not given up."""
    if target.takes_compaction:
        return
    management = draft.part("context_management")
    edits = blocks_of(management.get("edits"))
    kept = [edit for edit in edits if not str(edit.get("type")).startswith("clear_thinking_")]
    for edit in kept:
        if not str(edit.get("type")).startswith("clear_tool_uses_"):
            draft.refuse(_unknown(target, "compaction"))
    if len(kept) < len(edits):
        draft.members["context_management"] = {**management, "edits": kept} if kept else LEFT_OUT
        draft.say_left_out("context_management")


def _fit_speed(draft: _Draft, target: Model) -> None:
    if draft.get("speed") == "fast" and not target.has_fast:
        draft.refuse(_unknown(target, "speed 'fast'"))


def _fit_service_tier(draft: _Draft, target: Model) -> None:
    if draft.get("service_tier") == "auto" and not target.has_priority:
        draft.refuse(f"{target.id} is not in the priority tier")


def _fit_geo(draft: _Draft, target: Model) -> None:
    if not target.has_geo:
        draft.refuse(_unknown(target, "inference_geo"))


def _fit_diagnostics(draft: _Draft, _target: Model) -> None:
    draft.leave_out("diagnostics")  # it compares with an answer of the asked model


_Rule = Callable[[_Draft, Model], None]
#: The members that are judged, in this order: thinking before what depends on it.
RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        "tool_choice": _fit_tool_choice,
        "tools": _fit_tools,
        "thinking": _fit_thinking,
        "output_config": _fit_output_config,
        "temperature": _fit_sampling,
        "top_p": _fit_sampling,
        "top_k": _fit_sampling,
        "context_management": _fit_context_management,
        "speed": _fit_speed,
        "service_tier": _fit_service_tier,
        "inference_geo": _fit_geo,
        "diagnostics": _fit_diagnostics,
    }
)


def _fit_betas(draft: _Draft, target: Model | None) -> None:
    """Leave out the betas that mean nothing to the target; one that nobody knows stays where it is."""
    kept = []
    for beta in draft.request.betas:
        means = target.takes_beta(beta) if target is not None else None
        if means is None:
            draft.refuse(f"not known to be safe to move: beta {beta}")
        if means is False:
            draft.say_left_out(f"anthropic-beta.{beta}")
        else:
            kept.append(beta)
    draft.betas = tuple(kept)
