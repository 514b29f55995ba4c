"""Free checks of an answer's shape: is it JSON, is it what the schema asks for, are its tool calls valid.

Schemas are JSON Schema, carried out by `jsonschema-rs`. Nothing is ever fetched: a schema that refers to
another document cannot be used, and a check that cannot use its schema abstains. Words give the place in
the *schema* that an answer did not keep to, as a JSON pointer; names in the answer are the answer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import msgspec

from leastwise.cascade.checks import Early, Word, check_of, of_text, version_of
from leastwise.cascade.plan import Check
from leastwise.errors import ConfigError, RequestError
from leastwise.ladder import Says
from leastwise.messages import JSON, Reply, Request, blocks_of, text_of

#: Finds where a value does not keep to a schema: returns a pointer into the schema, "" where it does, and
#: None where that cannot be told.
_Fault = Callable[[JSON], str | None]

_MOST_SCHEMAS: Final = 256
_BACKTRACKS: Final = 20_000  # half a millisecond for one pattern; the default is fifty times that
_MOST_POINTER: Final = 120
_FENCE: Final = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?(?:```)?", re.DOTALL | re.IGNORECASE)
_FENCE_OPENS: Final = "`"
#: With what a value of each of the schema's types begins.
_BEGINS: Final = {
    "array": "[",
    "boolean": "tf",
    "integer": "-0123456789",
    "null": "n",
    "number": "-0123456789",
    "object": "{",
    "string": '"',
}
_ANY_VALUE: Final = "".join(_BEGINS.values())
_UNUSABLE: Final = "the schema is not valid, or refers to another document, which is never fetched"
_NOT_JSON: Final = "not JSON"


def _json(request: Request, reply: Reply) -> Word:
    try:
        _, is_fenced = _parsed(request, reply)
    except ValueError:
        return "escalate", _NOT_JSON
    return "accept", "JSON, in a code fence" if is_fenced else "JSON"


def _parsed(request: Request, reply: Reply) -> tuple[JSON, bool]:
    """Return an answer as a JSON value, and whether it stood in a code fence.

    Raises:
        ValueError: it is none.
    """
    text = f"{_begun(request)}{reply.text}".strip()
    fenced = _FENCE.fullmatch(text) if text.startswith(_FENCE_OPENS) else None
    try:
        return msgspec.json.decode(fenced[1] if fenced else text), fenced is not None
    except RecursionError as error:
        raise ValueError(_NOT_JSON) from error


def _begun(request: Request) -> str:
    """Return the text with which the caller began the answer (a last turn of the assistant's), or ""."""
    last = request.messages[-1] if request.messages else {}
    if last.get("role") != "assistant":
        return ""
    return "".join(text_of(block, "text") for block in blocks_of(last.get("content")))


def _begins(allowed: str) -> Early:
    """Return a look at whether a text's first character can begin a value."""

    def early(request: Request, text: str) -> str:
        first = f"{_begun(request)}{text}".lstrip()[:1]
        return "" if first in allowed else _NOT_JSON  # nothing is in any text

    return early


json: Final = check_of("json", of_text(_json), _begins(_ANY_VALUE + _FENCE_OPENS))


# --- schemas


@lru_cache(maxsize=_MOST_SCHEMAS)
def _fault_in(schema: bytes) -> _Fault | None:
    """Return what finds faults by a schema; None where it cannot be used."""
    # Loading it takes 26 ms, which only those should wait who use schemas.
    library: Any = import_module("jsonschema_rs")
    options = library.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
    try:
        validator = library.validator_for(schema.decode(), offline=True, pattern_options=options)
    except (ValueError, library.ReferencingError):
        return None

    def fault(value: JSON) -> str | None:
        try:
            error = next(validator.iter_errors(value), None)
        except (ValueError, TypeError):
            return None  # a value that JSON cannot hold
        if error is None:
            return ""
        if type(error.kind).__name__ in {"BacktrackLimitExceeded", "RegexEngineFailure"}:
            return None
        return f"#/{'/'.join(map(str, error.evaluation_path))}"[-_MOST_POINTER:]

    return fault


def _fault_by(schema: JSON) -> _Fault | None:
    try:
        return _fault_in(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError):
        return None  # not JSON: it came as Python objects


def _member(request: Request, name: str) -> JSON:
    try:
        return request.get(name)
    except RequestError:
        return None


def _asked_schema(request: Request) -> JSON:
    """Return the schema that a request asks its answer to keep to; None where it asks for none.

    Source: https://docs.claude.com/en/docs/build-with-claude/structured-outputs; `output_format` is the
    older spelling of `output_config.format`.
    """
    config = _member(request, "output_config")
    newer = config.get("format") if isinstance(config, Mapping) else None
    for asked in (newer, _member(request, "output_format")):
        if isinstance(asked, Mapping) and asked.get("type") == "json_schema":
            return asked.get("schema")
    return None


def _schema(request: Request, reply: Reply) -> Word | None:
    asked = _asked_schema(request)
    return None if asked is None else _keeps_to(asked, request, reply, may_fence=False)


def _keeps_to(schema: JSON, request: Request, reply: Reply, *, may_fence: bool) -> Word:
    try:
        value, is_fenced = _parsed(request, reply)
    except ValueError:
        return "escalate", _NOT_JSON
    if is_fenced and not may_fence:
        return "escalate", "JSON, but in a code fence, where the request asks for nothing else"
    fault_in = _fault_by(schema)
    fault = fault_in(value) if fault_in is not None else None
    if fault is None:
        return "abstain", _UNUSABLE if fault_in is None else "cannot be held against the schema"
    return ("escalate", f"not valid by the schema at {fault}") if fault else ("accept", "valid by the schema")


def _begins_of(schema: JSON) -> str:
    """Return the characters with which a value of a schema's type can begin."""
    told = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = [str(kind) for kind in (told if isinstance(told, list) else [told])]
    if not kinds or not _BEGINS.keys() >= set(kinds):
        return _ANY_VALUE
    return "".join(_BEGINS[kind] for kind in kinds)


def _begins_as_asked(request: Request, text: str) -> str:
    asked = _asked_schema(request)
    return "" if asked is None else _begins(_begins_of(asked))(request, text)


schema: Final = check_of("schema", of_text(_schema), _begins_as_asked)


def schema_of(wanted: Mapping[str, JSON], *, name: str = "schema") -> Check:
    """Return a check that an answer is JSON, in a code fence or not, and valid by a schema of one's own.

    Raises:
        ConfigError: the schema is not valid, or refers to another document.
    """
    if _fault_by(wanted) is None:
        message = f"schema of check {name!r}: {_UNUSABLE}"
        raise ConfigError(message)
    kept = msgspec.json.encode(wanted)
    own = msgspec.json.decode(kept)  # the caller may change theirs

    def look(request: Request, reply: Reply) -> Word:
        return _keeps_to(own, request, reply, may_fence=True)

    return check_of(name, of_text(look), _begins(_begins_of(own) + _FENCE_OPENS), version_of(kept))


# --- tool calls


def _tools(request: Request, reply: Reply) -> Word | None:
    calls = reply.tool_calls
    if not calls:
        return None  # before the request's tools are decoded: they may be long
    known = {text_of(tool, "name"): tool for tool in blocks_of(_member(request, "tools"))}
    words = [_call(request, call, known.get(text_of(call, "name"))) for call in calls]
    told: dict[Says, Word] = {word[0]: word for word in words if word is not None}
    return told.get("escalate") or told.get("abstain") or told.get("accept")


def _call(request: Request, call: Mapping[str, JSON], tool: Mapping[str, JSON] | None) -> Word | None:
    if tool is None:
        # A turn of the system's may have added tools in mid-conversation.
        may_be_added = any(turn.get("role") == "system" for turn in request.messages)
        return None if may_be_added else ("escalate", "calls a tool that the request does not have")
    if "input_schema" not in tool:
        return "accept", "calls a tool whose input is not described"  # one of the API's own
    fault_in = _fault_by(tool["input_schema"])
    fault = fault_in(call.get("input")) if fault_in is not None else None
    if fault is None:
        return "abstain", "a tool's input cannot be held against its schema"
    return (
        ("escalate", f"a tool's input is not valid at {fault}")
        if fault
        else ("accept", "tool calls are valid")
    )


tools: Final = check_of("tools", _tools)
