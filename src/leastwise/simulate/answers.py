"""What the simulated models say: scripted answers, which say so, of a plausible length.

Nothing is understood. Words in the last user turn, or else in the system prompt, pick
an answer from a small table; a tool call and structured output fit the schema given. Two things are beyond
a haiku, so that a cascade has something to do. Asked to judge an answer, it finds out those that were
wrong on purpose; and it is gullible: where a text has broken out of the data it was put in, it gives the
score that the text asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from leastwise.messages import JSON, blocks_of
from leastwise.simulate.rules import Ask

MARK: Final = "[simulated]"
_CANNOT: Final = "wrong on purpose: I cannot say."
WRONG: Final = f"{MARK} {_CANNOT}"

_SCORE: Final = re.compile(r"score\D{0,12}([1-5])", re.IGNORECASE)
_PREFERRED: Final = re.compile(r"(first|second|same) is better", re.IGNORECASE)
_READ_BYTES: Final = 600  # enough to recognise a task by its words
_SHORT_BYTES: Final = 160
_DEPTH: Final = 12
#: Thinking tokens for a short answer, by effort; a long one takes four times as many.
_THINKING: Final = {"low": 0, "medium": 24, "high": 60, "xhigh": 160, "max": 400}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model is to answer.

    Attributes:
        text: The text block; none when empty.
        tool_calls: Name and input of each call, after the text.
        thinking_tokens: Tokens of thinking before it, where the model thinks; None: by effort and length.
        stop_reason: Instead of the one that follows from the content, such as `refusal`.
    """

    text: str = ""
    tool_calls: tuple[tuple[str, Mapping[str, JSON]], ...] = ()
    thinking_tokens: int | None = None
    stop_reason: str = ""


#: A user's own script: may pass (None) and leave the answer to the table.
Script = Callable[[Ask], Answer | str | None]


def _long(title: str, paragraph: str, sections: int) -> str:
    return "\n\n".join([title, *(f"## {number}\n{paragraph}" for number in range(1, sections + 1))])


_DESIGN: Final = _long(
    "# Design",
    "Keep one writer and let readers work from a snapshot. Each step has an owner, a limit and a way back: "
    "what enters is checked at the edge, what leaves is logged with its id, and what fails is retried once "
    "and then set aside for a person to look at. The state that must survive lives in one store; all else "
    "can be built again from it. Measure first, at the size expected in two years, then choose the parts.",
    16,
)
_CODE: Final = (
    "```python\n"
    + "\n\n".join(
        f"def step_{number}(items: list[int]) -> list[int]:\n"
        f'    """Return the items of step {number}, each once, in order."""\n'
        f"    seen: set[int] = set()\n"
        f"    return [item for item in items if not (item in seen or seen.add(item))]"
        for number in range(1, 13)
    )
    + "\n```\nEach step keeps the order and drops what it has seen."
)
_REASON: Final = _long(
    "Let us go through it.",
    "Suppose the claim holds for the case before this one. Then the new case adds a term that is bounded "
    "by what is already known, so the sum stays below the limit and the claim holds here as well.",
    6,
)
_SUMMARY: Final = (
    "The text makes three points. First, most of the cost comes from a small share of the requests, and "
    "these are easy to name. Second, the teams that looked at their traffic found simple work where they "
    "expected hard work. Third, nobody had measured the quality before moving it. It closes with advice: "
    "start small, watch the answers, and keep a way back."
)
_MEAN: Final = "```python\ndef mean(numbers):\n    return sum(numbers) / len(numbers)\n```"
_MEDIAN: Final = (
    "```python\ndef median(numbers):\n    ordered, half = sorted(numbers), len(numbers) // 2\n"
    "    return (ordered[half] + ordered[~half]) / 2\n```"
)
_HASTY_MEDIAN: Final = "```python\ndef median(numbers):\n    return sorted(numbers)[len(numbers) // 2]\n```"
_TABLE: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("mean of",), _MEAN),
    (("median",), _MEDIAN),
    (("prove that",), _REASON),
    (("design", "architect", "comprehensive", "in depth", "multi-step"), _DESIGN),
    (("implement", "refactor", "write a function", "debug", "unit test", "traceback", "```"), _CODE),
    (("proof", "prove", "reason", "compare", "analy"), _REASON),
    (("summar",), _SUMMARY),
    (("spam",), "spam"),
    (("sentiment", "positive or negative"), "positive"),
    (("which language", "what language", "detect the language", "language is"), "English"),
    (("yes or no", "true or false", "is this", "is it"), "Yes."),
    (("intent",), "cancel_subscription"),
    (("classify", "categor", "label", "tag this"), "billing"),
    (("extract",), "name: R. Example\ndate: 2026-11-23\namount: $42.00"),
    (("convert", "to json", "to csv", "format"), '{"id": 7, "status": "open", "total": 42}'),
    (("translate",), "The delivery arrived on time, and everything was in order."),
    (("weather",), "It is 18 degrees and dry."),
)
_WORDS: Final = tuple((word, answer) for words, answer in _TABLE for word in words)
#: What a haiku says instead, whatever the error rate is.
_BEYOND_HAIKU: Final = {"median": _HASTY_MEDIAN, "prove that": _CANNOT}
_OTHERWISE: Final = (
    "Here is a short answer. It depends on two things: how often the case comes up, and what a mistake "
    "would cost. Where both are small, take the simple way and look again in a month."
)


def scripted(ask: Ask, *, is_wrong: bool = False) -> Answer:
    """Return the built-in answer."""
    form = ask.body.get("output_config", {}).get("format")
    tool = _tool_for(ask)
    if tool is not None:
        return Answer(tool_calls=((tool["name"], _instance(tool["input_schema"])),))
    if form is not None and {"score", "fault"} <= form["schema"].get("properties", {}).keys():
        return Answer(json.dumps(_judged(ask.text, is_wrong=is_wrong)))
    if form is not None and "better" in form["schema"].get("properties", {}):
        return Answer(json.dumps({"better": _better(ask.text, is_wrong=is_wrong)}))
    if form is not None:
        return Answer(json.dumps(_instance(form["schema"], is_wrong=is_wrong)))
    if is_wrong:
        return Answer(WRONG)
    if ask.has_tool_results:
        return Answer(f"{MARK} The tool says: {_tool_result(ask)}")
    return Answer(f"{MARK} {_say(ask)}")


def _judged(text: str, *, is_wrong: bool) -> dict[str, JSON]:
    """Return a judge's word on the answer in the data it is given; the opposite where it is to be wrong."""
    data = _data_in(text)
    if data is None or not isinstance(data.get("answer"), str):
        asked_for = _SCORE.search(text)
        return {"fault": "none", "score": int(asked_for[1]) if asked_for else 1}
    is_good = _is_good(data["answer"])
    return {"fault": "none", "score": 5} if is_good is not is_wrong else {"fault": "wrong", "score": 1}


def _better(text: str, *, is_wrong: bool) -> str:
    """Return which of two answers a judge prefers; the other one where it is to be wrong."""
    data = _data_in(text)
    if data is None or not {"first", "second"} <= data.keys():
        asked_for = _PREFERRED.search(text)
        return asked_for[1].lower() if asked_for else "second"
    goods = [name for name in ("first", "second") if _is_good(str(data[name]))]
    if len(goods) != 1:
        return "first" if is_wrong else "same"
    return goods[0] if not is_wrong else "second" if goods[0] == "first" else "first"


def _data_in(text: str) -> dict[str, JSON] | None:
    try:
        data = json.loads(text)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _is_good(answer: str) -> bool:
    said = answer.removeprefix(MARK).strip()
    return bool(said) and WRONG not in answer and answer.startswith((MARK, "{", "["))


def thinking_tokens(ask: Ask, answer: Answer) -> int:
    """Return how many tokens the model thinks before this answer; 0 when it does not think."""
    model, asked = ask.model, ask.thinking
    is_on = asked in {"adaptive", "enabled"} or (model.thinking != "off" and asked == "")
    is_on = is_on or (asked == "between_tools" and ask.has_tool_results)
    if ask.tool_choice in {"any", "tool"} or not (is_on or model.thinking == "always"):
        return 0
    if answer.thinking_tokens is not None:
        return answer.thinking_tokens
    tokens = _THINKING[ask.effort or model.default_effort or "high"]
    return tokens if len(answer.text) <= _SHORT_BYTES else 4 * tokens


def _say(ask: Ask) -> str:
    for text in filter(None, (ask.text, ask.system)):
        start = text[:_READ_BYTES].lower()
        for word, answer in _WORDS:
            if word in start:
                return _BEYOND_HAIKU.get(word, answer) if ask.model.line == "haiku" else answer
    return _OTHERWISE


def _tool_for(ask: Ask) -> dict[str, JSON] | None:
    """Return the tool that the answer calls, or None when it calls none."""
    own: list[dict[str, JSON]] = [tool for tool in ask.body.get("tools") or () if "input_schema" in tool]
    if not own or ask.tool_choice == "none":
        return None
    if ask.tool_choice == "tool":
        return next((tool for tool in own if tool["name"] == ask.body["tool_choice"]["name"]), None)
    if ask.tool_choice == "any":
        return own[0]
    if ask.has_tool_results:
        return None
    text = ask.text[:_READ_BYTES].lower()
    named = [tool for tool in own if tool["name"].lower() in text]
    return (named or own)[0] if named or "use the tool" in text or "weather" in text else None


def _tool_result(ask: Ask) -> str:
    results = (block for block in blocks_of(ask.messages[-1]["content"]) if block["type"] == "tool_result")
    inner = blocks_of(next(results).get("content"))
    return " ".join(block["text"] for block in inner if block["type"] == "text")[:_SHORT_BYTES]


def _instance(schema: JSON, *, is_wrong: bool = False) -> Any:
    """Return the smallest value a schema allows; of several choices the first, or the last if wrong."""
    return _Instances(schema, is_wrong=is_wrong).of(schema, 0)


class _Instances:
    def __init__(self, root: JSON, *, is_wrong: bool) -> None:
        self._root = root
        self._pick = -1 if is_wrong else 0
        self._text = WRONG if is_wrong else MARK

    def of(self, schema: JSON, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _DEPTH:
            return None
        if "$ref" in schema:
            return self.of(self._at(schema["$ref"]), depth + 1)
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self.of(choices[self._pick], depth + 1)
        if "allOf" in schema:
            merged: dict[str, JSON] = {}
            for part in schema["allOf"]:
                merged |= self._at(part["$ref"]) if "$ref" in part else part
            return self.of({**merged, **{n: v for n, v in schema.items() if n != "allOf"}}, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self._pick]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, schema, depth)

    def _of_kind(self, kind: str, schema: dict[str, JSON], depth: int) -> Any:
        match kind:
            case "object":
                known = schema.get("properties", {})
                return {name: self.of(known.get(name, {}), depth + 1) for name in schema.get("required", ())}
            case "array":
                return [self.of(schema.get("items", {}), depth + 1)] * schema.get("minItems", 0)
            case "integer" | "number":
                return schema.get("minimum", 0)
            case "boolean":
                return self._pick == 0
            case "null":
                return None
            case _:
                return self._string(schema)

    def _string(self, schema: dict[str, JSON]) -> str:
        known = {"date": "2026-11-23", "date-time": "2026-11-23T12:00:00Z", "email": "r@example.com"}
        return known.get(str(schema.get("format")), self._text)

    def _at(self, reference: str) -> dict[str, JSON]:
        found = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(name, {}) if name and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}
