"""What a request holds, counted: text, images, documents, kinds of blocks; and how many tokens at most.

Counting takes no loop over characters: lengths are asked of the strings. A conversation is
counted once and the count kept in the request's notes, for reading (`features`), fitting
(`compile`) and reserving (`attempt`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from leastwise.messages import JSON, Request, blocks_of

# How many tokens at most: a token is at least one byte of text, and these are upper ends.
_MOST_PER_TURN: Final = 16
_MOST_FOR_TOOLS: Final = 1_000
_MOST_PER_TOOL: Final = 1_500  # tools of the API's own bring a description that is not in the body
_MOST_PER_IMAGE: Final = 5_000
_BYTES_PER_TOKEN: Final = 2  # of any script, at least
_CEILING_PER_DOCUMENT: Final = 100_000
#: No model takes a longer prompt, and a refused one costs nothing: the bound of what has no size here.
LARGEST_WINDOW: Final = 1_000_000

_GROWING_TOOLS: Final = ("web_search", "web_fetch", "code_execution", "tool_search", "advisor")
_WEB_SEARCH: Final = "web_search"
#: Members by which the API may run other models, or the same one again, as often as it sees fit.
_UNBOUNDED_MEMBERS: Final = ("mcp_servers", "fallbacks", "thread")
_COMPACTION: Final = "compact"
_GROWING_MEMBERS: Final = frozenset({"mcp_servers", "container"})

_TOOL_RESULT_CHARS: Final = 6 * 3 + 40  # three names, an id and its kind
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
MARK: Final = "cache_control"
#: Where a request's notes keep what is worked out here.
_TALLY, _BOUND, _SIZE = "tally.tally", "tally.bound", "tally.size"


def prompt_bound(request: Request) -> int:
    """Return a number of tokens that the prompt cannot exceed.

    A token is at least one byte of text, and JSON never writes text in fewer bytes than it
    has, so the body's own length bounds its text; images, tools and turns add fixed most
    values. What has no size here - the pages of a document, what a search or a program of the
    API's own brings in - is bounded by the largest window there is.
    """
    bound: int | None = request.notes.get(_BOUND)
    if bound is None:
        bound = request.notes[_BOUND] = _prompt_bound(request)
    return bound


def prompt_ceiling(request: Request) -> int:
    """Return a number of tokens that the prompt will hardly exceed: below `prompt_bound`, and no proof.

    A token of Claude's has more than two bytes in every script measured; a document counts
    as a hundred pages.
    """
    tally = tally_of(request)
    text = _text_bytes(request) // _BYTES_PER_TOKEN
    return text + _MOST_PER_IMAGE * tally.images + _CEILING_PER_DOCUMENT * tally.documents


def unbounded_part(request: Request) -> str:
    """Return the part of a request that bounds neither how often the model runs nor which, or ""."""
    for name in _UNBOUNDED_MEMBERS:
        if request.get(name):
            return name
    edits = request.get("context_management")
    edits = edits.get("edits") if isinstance(edits, dict) else None
    for edit in blocks_of(edits):
        if str(edit.get("type")).startswith(_COMPACTION):
            return f"context_management: {edit['type']}"
    for tool in _server_tools(request):
        if _uses(tool) is None:
            return f"tool {tool['type']} without max_uses"
    return ""


def most_runs(request: Request) -> tuple[int, int]:
    """Return how often the API may run the model for one answer, and how often it may search.

    Each use of a tool of the API's own runs the model once more, on the prompt and what was found.
    Parts that have no bound count as nothing: see `unbounded_part`.
    """
    uses = [(str(tool["type"]), _uses(tool) or 0) for tool in _server_tools(request)]
    searches = sum(count for kind, count in uses if kind.startswith(_WEB_SEARCH))
    return 1 + sum(count for _, count in uses), searches


def _server_tools(request: Request) -> list[dict[str, JSON]]:
    """Return the tools that the API itself runs."""
    return [
        tool for tool in blocks_of(request.get("tools")) if str(tool.get("type")).startswith(_GROWING_TOOLS)
    ]


def _uses(tool: Mapping[str, JSON]) -> int | None:
    count = tool.get("max_uses")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _prompt_bound(request: Request) -> int:
    tally = tally_of(request)
    tools = request.get("tools")
    tools = tools if isinstance(tools, list) else []
    if tally.documents or _may_grow(request, tools):
        return LARGEST_WINDOW
    bound = (
        _text_bytes(request)
        + _MOST_PER_TURN * (1 + len(request.get("messages")))
        + _MOST_PER_IMAGE * tally.images
        + (_MOST_FOR_TOOLS + _MOST_PER_TOOL * len(tools) if tools else 0)
    )
    return min(bound, LARGEST_WINDOW)


def _text_bytes(request: Request) -> int:
    """Return the size of the body without the payloads of images and documents."""
    size: int | None = request.notes.get(_SIZE)
    if size is None:
        try:
            size = len(request.body()) - tally_of(request).payload_chars
        except (TypeError, ValueError, RecursionError):
            size = LARGEST_WINDOW  # whether it can be sent is for the one who sends it
        request.notes[_SIZE] = size
    return size


def _may_grow(request: Request, tools: Sequence[JSON]) -> bool:
    """Tell whether the API itself adds to the prompt while it answers."""
    if any(request.get(name) for name in _GROWING_MEMBERS & request.names):
        return True
    if not tools:
        return False
    kinds = (str(tool.get("type")) for tool in tools if isinstance(tool, dict))
    return any(kind.startswith(_GROWING_TOOLS) for kind in kinds)


def block_kinds(request: Request) -> AbstractSet[str]:
    """Return the types of the blocks in the conversation's turns; plain text counts as none."""
    return tally_of(request).kinds


def tally_of(request: Request) -> Tally:
    """Return the tally of the conversation, added up once for all who ask."""
    tally: Tally | None = request.notes.get(_TALLY)
    if tally is None:
        tally = request.notes[_TALLY] = Tally()
        for turn in request.get("messages"):
            tally.add_content(turn.get("content"))
    return tally


class Tally:
    """Adds up text and what else a conversation holds."""

    __slots__ = ("chars", "documents", "extra", "images", "kinds", "marks_cache", "payload_chars")

    def __init__(self) -> None:
        self.chars = 0
        self.extra = 0  # UTF-8 bytes beyond one per character
        self.images = 0
        self.documents = 0
        self.payload_chars = 0  # base64 of images and documents, which is no text
        self.kinds: set[str] = set()
        self.marks_cache = False

    @property
    def has_thinking(self) -> bool:
        """Whether thinking is replayed."""
        return not _THINKING.isdisjoint(self.kinds)

    def add(self, text: str) -> None:
        """Add a text."""
        self.chars += len(text)
        if not text.isascii():
            self.extra += len(text.encode("utf-8", "surrogatepass")) - len(text)

    def add_content(self, content: JSON) -> None:
        """Add a turn's content: a string, or blocks."""
        if isinstance(content, str):
            self.add(content)
        elif isinstance(content, list):
            for block in content:
                if isinstance(block, dict):
                    self._add_block(block)

    def _add_block(self, block: dict[str, JSON]) -> None:
        kind = str(block.get("type"))
        self.kinds.add(kind)
        if block.get(MARK):
            self.marks_cache = True
        if kind == "text":
            text = block.get("text")
            if isinstance(text, str):
                self.add(text)
        elif kind == "tool_result":
            self.chars += _TOOL_RESULT_CHARS
            for part in blocks_of(block.get("content")):
                self._add_part(part)
        elif kind == "image":
            self.images += 1
            self.payload_chars += _payload_chars(block)
        elif kind == "document":
            self._add_document(block)
        else:
            self.weigh(block)

    def _add_part(self, part: dict[str, JSON]) -> None:
        """Add what is inside a tool's result: nearly always text."""
        text = part.get("text")
        if len(part) == len(("type", "text")) and isinstance(text, str):
            self.add(text)
        elif part.get("type") in ("image", "document"):
            self._add_block(part)
        else:
            self.weigh(part)

    def _add_document(self, block: dict[str, JSON]) -> None:
        source = block.get("source")
        source = source if isinstance(source, dict) else {}
        if source.get("type") in ("text", "content"):
            self.weigh(source)
        else:
            self.documents += 1
            self.payload_chars += _payload_chars(block)

    def weigh(self, value: JSON) -> None:
        """Add whatever text is inside a decoded value; images and documents in it count as such."""
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                self.add(item)
            elif isinstance(item, dict):
                kind = item.get("type")
                if item is not value and (kind == "image" or (kind == "document" and "source" in item)):
                    self._add_block(item)
                else:
                    self.chars += 6 * len(item)  # names and punctuation
                    waiting.extend(item.values())
            elif isinstance(item, list | tuple):
                waiting.extend(item)
            else:
                self.chars += 4


def _payload_chars(block: Mapping[str, JSON]) -> int:
    source = block.get("source")
    data = source.get("data") if isinstance(source, dict) else None
    return len(data) if isinstance(data, str) else 0


def add_tools(request: Request, tally: Tally) -> bool:
    """Add the tools' definitions and tell whether there are any; they are not decoded where bytes came in."""
    size = request.size("tools")
    if size is not None and size > len(b"[null]"):
        tally.chars += size
        return True
    tools = request.get("tools")
    if isinstance(tools, list) and tools:
        tally.weigh(tools)
        return True
    return False
