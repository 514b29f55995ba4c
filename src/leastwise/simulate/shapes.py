"""The shape of a request body, declared once; what does not fit is refused.

Only what people send by hand is declared in full. Blocks that the API itself hands
out (results of its own tools, compaction) are known by their type and pass as they are.

Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Union

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, convert, defstruct

from leastwise.messages import JSON

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Strict(Struct, forbid_unknown_fields=True):
    """Takes the members declared, and no other."""


class CacheControl(Strict, tag_field="type", tag="ephemeral"):
    """A breakpoint of the prompt cache."""

    ttl: Literal["5m", "1h"] = "5m"


class Block(Strict, tag_field="type"):
    """A content block."""

    cache_control: CacheControl | None = None


class Text(Block, tag="text", kw_only=True):
    """Text, never empty."""

    text: Annotated[str, Meta(min_length=1)]
    citations: JSON = None


class Image(Block, tag="image", kw_only=True):
    """An image."""

    source: dict[str, JSON]


class Document(Block, tag="document", kw_only=True):
    """A file or a text given as a source."""

    source: dict[str, JSON]
    title: str | None = None
    context: str | None = None
    citations: JSON = None


_NESTED: Final = [
    defstruct(f"Nested_{name}", [], tag_field="type", tag=name)
    for name in ("search_result", "tool_reference")
]


class ToolResult(Block, tag="tool_result", kw_only=True):
    """What a tool answered."""

    tool_use_id: str
    content: str | list[Union[Text, Image, Document, *_NESTED]] = ""  # type: ignore[valid-type]  # made of a list
    is_error: bool = False


class ToolUse(Block, tag="tool_use", kw_only=True):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, JSON]
    caller: JSON = None
    toolset_name: str | None = None


class Thinking(Strict, tag_field="type", tag="thinking"):
    """Replayed thinking; it takes no breakpoint."""

    thinking: str
    signature: str


_PASSING: Final = {
    name: defstruct(f"Any_{name}", [], tag_field="type", tag=name)
    for name in (
        "advisor_tool_result",
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "compaction",
        "container_upload",
        "fallback",
        "mcp_tool_listing",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "search_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_addition",
        "tool_removal",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    )
}
_ASSISTANT_ONLY: Final = {"redacted_thinking", "server_tool_use", "mcp_tool_use"}
_for_user = [shape for name, shape in _PASSING.items() if name not in _ASSISTANT_ONLY]
UserBlock: Any = Union[Text, Image, Document, ToolResult, *_for_user]
AssistantBlock: Any = Union[Text, Document, ToolUse, Thinking, *_PASSING.values()]


class UserTurn(Strict, tag_field="role", tag="user"):
    """A turn of the user's."""

    content: str | list[UserBlock]


class AssistantTurn(Strict, tag_field="role", tag="assistant"):
    """A turn of the model's."""

    content: str | list[AssistantBlock]


class SystemTurn(Strict, tag_field="role", tag="system"):
    """Instructions given in mid-conversation."""

    content: str | list[Text]


class Adaptive(Strict, tag_field="type", tag="adaptive"):
    """Thinking as the model sees fit."""

    display: Literal["summarized", "omitted"] | None = None
    block_binding: JSON = None


class Enabled(Adaptive, tag="enabled", kw_only=True):
    """Thinking within a budget."""

    budget_tokens: Annotated[int, Meta(ge=1024)]


class BetweenTools(Adaptive, tag="between_tools"):
    """Thinking after tool results only."""


class Disabled(Strict, tag_field="type", tag="disabled"):
    """No thinking."""


_SOME: Final = Meta(min_length=1)


class Schema(Struct, rename={"ref": "$ref", "defs": "$defs"}):
    """A JSON schema, as far as an answer is made from it."""

    type: str | Annotated[list[str], _SOME] | UnsetType = UNSET
    properties: dict[str, Schema | bool] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    items: Schema | bool | UnsetType = UNSET
    minItems: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET  # noqa: N815 - JSON schema's spelling
    enum: Annotated[list[JSON], _SOME] | UnsetType = UNSET
    anyOf: Annotated[list[Schema], _SOME] | UnsetType = UNSET  # noqa: N815 - as above
    oneOf: Annotated[list[Schema], _SOME] | UnsetType = UNSET  # noqa: N815 - as above
    allOf: Annotated[list[Schema], _SOME] | UnsetType = UNSET  # noqa: N815 - as above
    additionalProperties: Schema | bool | UnsetType = UNSET  # noqa: N815 - as above
    ref: str | UnsetType = UNSET
    defs: dict[str, Schema] | UnsetType = UNSET


class JsonSchema(Strict, tag_field="type", tag="json_schema"):
    """Structured output."""

    schema: Schema


class OutputConfig(Strict):
    """How the answer is to be."""

    effort: Effort | None = None
    format: JsonSchema | None = None


class BetaOutputConfig(OutputConfig):
    """The same, with what betas add."""

    task_budget: JSON = None


class Tool(Struct):
    """A tool; the API's own bring further members."""

    name: str = ""
    type: str | None = None
    input_schema: Schema | UnsetType = UNSET
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ToolChoice(Strict, kw_only=True):
    """Which tool to call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Metadata(Strict):
    """Who asks."""

    user_id: str | None = None


class Count(Strict, kw_only=True):
    """The body of a token count."""

    model: str
    messages: Annotated[list[UserTurn | AssistantTurn | SystemTurn], Meta(min_length=1)]
    cache_control: CacheControl | None = None
    output_config: OutputConfig | UnsetType = UNSET
    speed: Literal["standard", "fast"] | None = None
    system: str | list[Text] = ""
    thinking: Adaptive | Enabled | BetweenTools | Disabled | UnsetType = UNSET
    tool_choice: ToolChoice | None = None
    tools: list[Tool] = []


class Message(Count, kw_only=True):
    """The body of a message."""

    max_tokens: Annotated[int, Meta(ge=0)]  # 0 warms the prompt cache and asks for nothing else
    container: JSON = None
    diagnostics: dict[str, JSON] | None = None
    inference_geo: str | None = None
    metadata: Metadata | UnsetType = UNSET
    service_tier: Literal["auto", "standard_only"] = "auto"
    stop_sequences: list[Annotated[str, Meta(pattern=r"\S")]] = []
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class BetaMessage(Message, kw_only=True):
    """The same, with what betas add."""

    output_config: BetaOutputConfig | UnsetType = UNSET
    billing_policy: JSON = None
    compaction: JSON = None
    context_management: JSON = None
    fallback_credit_token: JSON = None
    fallbacks: JSON = None
    mcp_servers: JSON = None
    thread: JSON = None


class BatchItem(Strict):
    """One request of a batch; its members are judged when it is answered."""

    custom_id: str
    params: dict[str, JSON]


class Batch(Strict):
    """The body of a batch."""

    requests: Annotated[list[BatchItem], Meta(min_length=1, max_length=100_000)]


# msgspec works a type out when it is first used, and ends the process when threads do so together.
for _shape in (Count, Message, BetaMessage, Batch):
    msgspec.json.Decoder(_shape)

_AT: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`")
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")


def misfit(body: JSON, shape: type[Struct]) -> str:
    """Return what is wrong with a body, the field first, as the API puts it; "" when it fits."""
    try:
        convert(body, shape)
    except msgspec.ValidationError as error:
        text = str(error)
    else:
        return ""
    found = _AT.search(text)
    where = re.sub(r"\[(\d+)\]", r".\1", found["path"]) if found else ""
    what = _AT.sub("", text)
    for pattern, words in ((_UNKNOWN, "Extra inputs are not permitted"), (_MISSING, "Field required")):
        if named := pattern.match(what):
            return f"{where}.{named['name']}: {words}".lstrip(".")
    return f"{where}: {what}" if where else what
