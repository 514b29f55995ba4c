"""Free checks: what each says of an answer and of its first words, put together, and from a row."""

from __future__ import annotations

import json as stdlib_json
import subprocess
import sys
from collections.abc import Generator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from leastwise.cascade import BUILT_IN, Check, CheckRow, as_check, inquire, made_of, read_finding, settle
from leastwise.cascade.checks import empty, labels, language, length, refusal, regex, stop_reason, truncation
from leastwise.cascade.combine import all_of, first_of
from leastwise.cascade.plan import JUDGE, Kind
from leastwise.cascade.shapes import json, schema, schema_of, tools
from leastwise.errors import ConfigError
from leastwise.ladder import Says, Verdict
from leastwise.messages import Facts, Reply, Request
from tests.kit import request

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city"],
    "additionalProperties": False,
}
VALID = '{"city": "Bern"}'
ASKS_FOR_SCHEMA: dict[str, Any] = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
LOOK = {"name": "look", "input_schema": SCHEMA}
PLAIN = request()


def answer(text: str = "", *content: dict[str, Any], stop: str = "end_turn") -> Reply:
    blocks = [{"type": "text", "text": text}, *content] if text else list(content)
    return Reply("payload", message={"content": blocks, "stop_reason": stop})


def call(name: str = "look", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}


def said(check: Check, reply: Reply | str, asked: Request = PLAIN) -> str | None:
    """Return `says: words`."""
    verdict = check.ask(asked, answer(reply) if isinstance(reply, str) else reply)
    if verdict is None:
        return None
    assert verdict.check == check.name
    return f"{verdict.says}: {verdict.words}"


def objects(check: Check, text: str, asked: Request = PLAIN) -> bool:
    assert check.glance is not None
    verdict = check.glance(asked, text)
    assert verdict is None or verdict.says == "escalate"
    return verdict is not None


def saying(says: Says | None, name: str = "told", kind: Kind = "free", **changes: Any) -> Check:
    """Return a check that always says this."""
    verdict = None if says is None else Verdict(name, says, f"because {name}", **changes)
    return Check(name, lambda *_: verdict, kind, glance=lambda *_: None)


# --- how it ended


@pytest.mark.parametrize(
    ("stop", "found"),
    [
        ("end_turn", "accept: not cut off"),
        ("", "accept: not cut off"),
        ("max_tokens", "escalate: cut off: max_tokens"),
        ("model_context_window_exceeded", "escalate: cut off: model_context_window_exceeded"),
    ],
)
def test_an_answer_that_was_cut_off_is_escalated(stop: str, found: str) -> None:
    assert found == said(truncation, answer("Hello", stop=stop))


def test_the_stop_reason_may_be_known_from_the_facts_alone() -> None:
    reply = Reply("payload", Facts(stop_reason="max_tokens"))

    assert "escalate: cut off: max_tokens" == said(truncation, reply)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (answer("Hello"), "accept: not empty"),
        (answer("", call()), "accept: not empty"),
        (answer("", {"type": "server_tool_use"}), "accept: not empty"),
        (answer(" \n"), "escalate: empty: no text and no tool call"),
        (answer(""), "escalate: empty: no text and no tool call"),
        (answer("", {"type": "thinking", "thinking": "Hm."}), "escalate: empty: no text and no tool call"),
        (Reply("payload"), "escalate: empty: no text and no tool call"),
    ],
)
def test_an_answer_without_content_is_escalated(reply: Reply, found: str) -> None:
    assert found == said(empty, reply)


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "Sorry, I cannot help you with breaking into the neighbour's house.",
        "Unfortunately, I am unable to comply with this.",
        "I won't write that! " + "Here is why I think so. " * 40,
        "I'm sorry, but I can't help with your request. " + "Let me say why. " * 40,
    ],
)
def test_an_apology_is_a_refusal_and_not_the_tiers_fault(text: str) -> None:
    verdict = refusal.ask(PLAIN, answer(text))

    assert ("escalate", False) == (verdict.says, verdict.blames)


@pytest.mark.parametrize(
    "text",
    [
        "I can't help but admire the design.",
        "I cannot provide an exact date; it was about 1850.",
        "I'm sorry, but the train has left.",
        "The assistant said: I can't help with that.",
        "I can't help with the first part, but here is the second. " + "It goes on. " * 40,
        "I can't help without more detail: which city do you mean?",
    ],
)
def test_what_only_resembles_a_refusal_is_none(text: str) -> None:
    assert "accept: not refused" == said(refusal, text)


def test_a_refusal_of_the_api_is_one_whatever_the_text() -> None:
    verdict = refusal.ask(PLAIN, answer("Once upon", stop="refusal"))

    assert ("escalate", False) == (verdict.says, verdict.blames)


def test_an_apology_before_a_tool_call_is_none_unless_it_refuses_outright() -> None:
    assert "accept: not refused" == said(refusal, answer("I can't help with dates by heart:", call()))
    assert said(refusal, answer("I can't help with that. Look:", call())) is not None


def test_no_check_blames_the_tier_for_a_refusal() -> None:
    of_text, by_api = answer("I can't help with that."), answer("", stop="refusal")

    assert [False, False] == [json.ask(PLAIN, reply).blames for reply in (of_text, by_api)]
    assert not empty.ask(PLAIN, by_api).blames
    assert json.ask(PLAIN, answer("{")).blames


def test_outright_refusals_are_seen_early_and_others_at_the_end() -> None:
    assert objects(refusal, "I'm sorry, but I can't help with that. If")
    assert not objects(refusal, "I'm sorry, but I can't help with that.")
    assert not objects(refusal, "I can't help with the first part")


@pytest.mark.parametrize(
    ("check", "stop", "found"),
    [
        (stop_reason(), "tool_use", "accept: stop reason: tool_use"),
        (stop_reason(), "pause_turn", "escalate: stop reason: pause_turn"),
        (stop_reason(), "because", "escalate: stop reason: one that is not known"),
        (stop_reason("because"), "because", "accept: stop reason: because"),
        (stop_reason("end_turn"), "tool_use", "escalate: stop reason: tool_use"),
        (stop_reason(), "", "abstain: the answer tells no stop reason"),
    ],
)
def test_stop_reasons_that_are_accepted(check: Check, stop: str, found: str) -> None:
    assert found == said(check, answer("Hello", stop=stop))


def test_what_only_the_end_can_tell_holds_up_no_stream() -> None:
    for check in (truncation, empty, stop_reason(), tools, regex("x")):
        assert not objects(check, "Hello")


# --- what its text is


@pytest.mark.parametrize("text", ["spam", " Spam.\n", "NOT SPAM", "not spam ."])
def test_a_label_of_the_set_is_accepted(text: str) -> None:
    assert "accept: one of the 2 labels" == said(labels("spam", "not spam"), text)


@pytest.mark.parametrize("text", ["", "spam!", "It is spam", "spa", "notspam"])
def test_anything_off_the_list_is_escalated(text: str) -> None:
    assert "escalate: not one of the 2 labels" == said(labels("spam", "not spam"), text)


def test_labels_are_told_by_their_first_letters() -> None:
    check = labels("spam", "not spam")

    assert [False] * 5 == [objects(check, text) for text in ("", " ", "No", "not ", "Spam. ")]
    assert [True] * 2 == [objects(check, text) for text in ("The", "spamm")]


@pytest.mark.parametrize("given", [(), ("",), ("spam", " . ")])
def test_labels_that_cannot_be_meant_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="labels="):
        labels(*given)


def test_a_pattern_is_searched_or_must_match_all() -> None:
    assert "accept: matches the pattern" == said(regex(r"\d+"), "about 7 days")
    assert "escalate: does not match the pattern" == said(regex(r"\d+"), "a week")
    assert "escalate: does not match the pattern" == said(regex(r"\d+", full=True), "about 7 days")
    assert "accept: matches the pattern" == said(regex(r"\d+", full=True), " 7\n")


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern='\(': no regular expression"):
        regex("(")


@pytest.mark.parametrize(
    ("bounds", "text", "found"),
    [
        ({"max_chars": 5}, " 12345 ", "accept: neither too short nor too long"),
        ({"max_chars": 5}, "123456", "escalate: too long: more than 5 characters"),
        ({"min_chars": 5}, "1234", "escalate: too short: fewer than 5 characters"),
        ({"min_words": 2, "max_words": 3}, "one two three", "accept: neither too short nor too long"),
        ({"min_words": 2, "max_words": 3}, "one", "escalate: too short: fewer than 2 words"),
        ({"min_words": 2, "max_words": 3}, "a b c d", "escalate: too long: more than 3 words"),
    ],
)
def test_length_is_counted_in_characters_or_words(bounds: dict[str, Any], text: str, found: str) -> None:
    assert found == said(length(**bounds), text)


def test_too_long_is_seen_early_and_too_short_is_not() -> None:
    assert objects(length(max_words=2), "one two three")
    assert not objects(length(min_words=2, max_words=5), "one")


@pytest.mark.parametrize(
    "bounds",
    [{}, {"min_chars": -1}, {"max_words": 2.5}, {"max_chars": True}, {"min_words": 3, "max_words": 2}],
)
def test_bounds_that_cannot_be_meant_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="length: "):
        length(**bounds)


GERMAN = "Der Bericht ist am Freitag fällig, und niemand hat bisher damit angefangen. "
ENGLISH = "The report is due on Friday, and nobody has started to write it yet. "


def test_an_answer_is_to_be_in_a_language_and_to_open_in_it() -> None:
    german = language("de-AT")

    assert "accept: in de" == said(german, GERMAN)
    assert "escalate: in en, not in de" == said(german, ENGLISH)
    assert "escalate: opens in en, not in de" == said(german, ENGLISH * 3 + GERMAN * 9)
    assert "abstain: its language is not certain" == said(german, "Paris, Berlin, Madrid, Rome and Bern")
    assert said(german, "Ja.") is None


def test_a_language_is_seen_early_once_there_is_enough_text() -> None:
    assert not objects(language("de"), ENGLISH)
    assert objects(language("de"), ENGLISH * 3)
    assert not objects(
        language("nb"), "Hva ble det av den siste delen av møtet, og hva skal vi gjøre etter det? " * 3
    )


def test_a_language_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigError, match="language='tlh': not one that can be told; known: ar, "):
        language("tlh")


def test_checks_of_a_text_have_no_word_on_a_step_that_calls_tools() -> None:
    step = answer("Let me look.", call(city="Bern"), stop="tool_use")
    asked = request(**ASKS_FOR_SCHEMA, tools=[LOOK])
    checks = (json, schema, schema_of(SCHEMA), labels("a"), regex("x"), length(max_chars=1), language("de"))

    assert [None] * 7 == [check.ask(asked, step) for check in checks]
    assert not any(objects(check, ENGLISH * 3, asked) for check in checks)


def test_versions_change_with_what_a_check_was_made_of() -> None:
    assert labels("a", "b").version == labels("b", "a").version != labels("a").version
    assert length(max_chars=1).version != length(max_words=1).version


# --- JSON


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (VALID, "accept: JSON"),
        (" 7 ", "accept: JSON"),
        (f"```json\n{VALID}\n```", "accept: JSON, in a code fence"),
        (f"```\n{VALID}```", "accept: JSON, in a code fence"),
        (f"Here it is: {VALID}", "escalate: not JSON"),
        ("", "escalate: not JSON"),
        ("NaN", "escalate: not JSON"),
        ("\ud800", "escalate: not JSON"),
        ("[" * 100_000, "escalate: not JSON"),
        (f"```json\n{VALID}\n```\nDone.", "escalate: not JSON"),
    ],
)
def test_json_parses_in_a_fence_or_not(text: str, found: str) -> None:
    assert found == said(json, text)


def test_json_that_the_caller_began_is_read_from_there() -> None:
    begun = {"role": "assistant", "content": "```json\n{"}
    asked = request(messages=[{"role": "user", "content": "Where?"}, begun])

    assert "accept: JSON, in a code fence" == said(
        json, answer('"city": "Bern"}\n', stop="stop_sequence"), asked
    )
    assert not objects(json, '"city', asked)
    assert objects(json, "Here")
    assert "escalate: not JSON" == said(json, "Here", request(messages=[]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (VALID, "accept: valid by the schema"),
        ("Bern", "escalate: not JSON"),
        ("[]", "escalate: not valid by the schema at #/type"),
        ("{}", "escalate: not valid by the schema at #/required"),
        (
            '{"city": "Bern", "tags": [1, "x"]}',
            "escalate: not valid by the schema at #/properties/tags/items/type",
        ),
        ('{"city": "Bern", "secret": 1}', "escalate: not valid by the schema at #/additionalProperties"),
        (
            f"```json\n{VALID}\n```",
            "escalate: JSON, but in a code fence, where the request asks for nothing else",
        ),
    ],
)
def test_the_requests_own_schema_is_used_without_asking(text: str, found: str) -> None:
    newer = request(**ASKS_FOR_SCHEMA)
    older = request(output_format={"type": "json_schema", "schema": SCHEMA})
    received = Request.parse(
        stdlib_json.dumps({"model": "auto", "messages": [], **ASKS_FOR_SCHEMA}, indent=1).encode()
    )

    assert [found] * 3 == [said(schema, text, asked) for asked in (newer, older, received)]


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"output_config": {"effort": "low"}},
        {"output_config": "strange"},
        {"output_config": {"format": {"type": "grammar"}}},
        {"output_format": {"type": "json_schema"}},
        {"output_format": int},
    ],
)
def test_a_request_without_a_schema_gives_nothing_to_look_at(members: dict[str, Any]) -> None:
    asked = request(**members)

    assert said(schema, "Hello", asked) is None
    assert not objects(schema, "Hello", asked)


def test_a_member_that_cannot_be_read_asks_for_nothing() -> None:
    asked = Request.parse(b'{"model": "auto", "messages": [], "output_config": {"n": 1e999}}')

    assert said(schema, "Hello", asked) is None


UNUSABLE: list[Any] = [
    {"type": "strange"},
    {"$ref": "#/nowhere"},
    {"$ref": "https://example.com/schema.json"},
    {"$schema": "https://example.com/dialect"},
    {"pattern": "("},
    [],
    7,
    {"a": object()},
    {"a": "\ud800"},
]


@pytest.mark.parametrize("wanted", UNUSABLE)
def test_a_schema_that_cannot_be_used_makes_the_check_abstain(wanted: Any) -> None:
    asked = request(output_config={"format": {"type": "json_schema", "schema": wanted}})

    words = "the schema is not valid, or refers to another document, which is never fetched"
    assert f"abstain: {words}" == said(schema, VALID, asked)
    with pytest.raises(ConfigError, match="schema of check 'mine': the schema is not valid"):
        schema_of(wanted, name="mine")


def test_a_schema_that_refers_to_itself_can_be_used() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}

    assert "accept: valid by the schema" == said(schema_of(tree), "[[], [[]]]")
    assert "escalate: not valid by the schema at #/items/$ref/type" == said(schema_of(tree), "[7]")


def test_no_other_document_is_read_even_where_it_is_at_hand(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"type": "object"}', encoding="utf-8")

    with pytest.raises(ConfigError, match="never fetched"):
        schema_of({"$ref": other.as_uri()})


def test_a_pattern_that_backtracks_without_end_is_given_up() -> None:
    check = schema_of({"type": "string", "pattern": "^(a|a)*(?=b)$"})

    assert "abstain: cannot be held against the schema" == said(check, f'"{"a" * 60}"')


def test_a_schema_of_ones_own_is_kept_as_it_was_and_may_be_fenced() -> None:
    mine: dict[str, Any] = {"type": "object"}
    check = schema_of(mine, name="mine")
    mine["type"] = "array"

    assert "accept: valid by the schema" == said(check, f"```json\n{VALID}\n```")
    assert ("mine", True) == (check.name, check.version != schema_of(mine).version)


@pytest.mark.parametrize(
    ("wanted", "begins", "begins_not"),
    [
        ({"type": "object"}, " {", "["),
        ({"type": ["array", "null"]}, "n", "{"),
        ({"type": "number"}, "-1", '"'),
        ({"anyOf": [{"type": "string"}]}, "{", "Here"),
        ({"type": []}, "{", "Here"),
        (True, "{", "Here"),
    ],
)
def test_the_first_character_tells_whether_it_can_be_the_schemas(
    wanted: Any, begins: str, begins_not: str
) -> None:
    asked = request(output_config={"format": {"type": "json_schema", "schema": wanted}})

    assert [False, False] == [objects(schema, text, asked) for text in ("\n", begins)]
    assert [True, True] == [objects(schema, text, asked) for text in (begins_not, "```json")]


def test_a_fence_may_open_an_answer_where_the_schema_is_ones_own() -> None:
    assert not objects(schema_of({"type": "object"}), "```json\n[")


def test_the_validator_is_loaded_by_the_first_schema_only() -> None:
    source = "import sys, leastwise.cascade; sys.exit('jsonschema_rs' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", source], check=False).returncode  # noqa: S603 - ours


# --- tool calls


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([call(city="Bern")], "accept: tool calls are valid"),
        (
            [call(city="Bern"), call(town="Bern")],
            "escalate: a tool's input is not valid at #/additionalProperties",
        ),
        ([call(city=7)], "escalate: a tool's input is not valid at #/properties/city/type"),
        ([{"type": "tool_use", "name": "look"}], "escalate: a tool's input is not valid at #/type"),
        ([call("jump")], "escalate: calls a tool that the request does not have"),
        ([call("bash", command="ls")], "accept: calls a tool whose input is not described"),
        ([call("broken"), call(city="Bern")], "abstain: a tool's input cannot be held against its schema"),
        ([call("broken"), call("jump")], "escalate: calls a tool that the request does not have"),
        ([call(city="Bern", tags=["\ud800"])], "abstain: a tool's input cannot be held against its schema"),
        ([call(city=object())], "abstain: a tool's input cannot be held against its schema"),
    ],
)
def test_tool_calls_are_held_against_their_tools(calls: list[dict[str, Any]], found: str) -> None:
    bash, broken = {"type": "bash_20250124", "name": "bash"}, {"name": "broken", "input_schema": UNUSABLE[0]}

    assert found == said(tools, answer("", *calls), request(tools=[LOOK, bash, broken]))


def test_an_answer_without_tool_calls_gives_nothing_to_look_at() -> None:
    assert said(tools, "Hello", request(tools=[LOOK])) is None


def test_a_tool_may_have_been_added_in_mid_conversation() -> None:
    added = {"role": "system", "content": [{"type": "tool_addition"}]}
    asked = request(messages=[{"role": "user", "content": "Look."}, added])

    assert said(tools, answer("", call("jump")), asked) is None


# --- what a check may return, and be


class Short:
    def __call__(self, _request: Request, reply: Reply) -> bool:
        return len(reply.text) < 5

    def with_one(self, reply: Reply) -> bool:
        return len(reply.text) < 5

    def with_more(self, _request: Request, reply: Reply, most: int = 5) -> bool:
        return len(reply.text) < most


class bool_:  # noqa: N801 - as NumPy calls its own
    def __init__(self, value: int) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value == 1


@pytest.mark.parametrize(
    ("found", "threshold", "verdict"),
    [
        (None, 3.0, None),
        (True, None, Verdict("mine", "accept", "returned True")),
        (False, None, Verdict("mine", "escalate", "returned False")),
        (4, 3, Verdict("mine", "accept", "score 4, 3 wanted", score=4.0)),
        (0.5, 0.75, Verdict("mine", "escalate", "score 0.5, 0.75 wanted", score=0.5)),
        (Decimal("0.8"), 0.75, Verdict("mine", "accept", "score 0.8, 0.75 wanted", score=0.8)),
        (
            Decimal("sNaN"),
            3,
            Verdict("mine", "abstain", "returned a number that no score can be"),
        ),
        (bool_(1), None, Verdict("mine", "accept", "returned True")),
        (bool_(0), None, Verdict("mine", "escalate", "returned False")),
        (
            4,
            None,
            Verdict(
                "mine",
                "abstain",
                "score 4, and no threshold to hold it against: give one, threshold=...",
                score=4.0,
            ),
        ),
        (
            "yes",
            3,
            Verdict("mine", "abstain", "returned a str, which is neither yes or no nor a score"),
        ),
        (
            float("nan"),
            3,
            Verdict("mine", "abstain", "returned a number that no score can be"),
        ),
        (10**400, 3, Verdict("mine", "abstain", "returned a number that no score can be")),
        (Verdict("own", "accept", "good"), None, Verdict("own", "accept", "good")),
        (
            Verdict("own", "fine", "good"),  # type: ignore[arg-type]  # what a user's function may do
            None,
            Verdict("mine", "abstain", "returned a Verdict that says none of accept, escalate, abstain"),
        ),
    ],
)
def test_what_a_check_found_is_read_as_a_verdict(
    found: Any, threshold: float | None, verdict: Verdict | None
) -> None:
    assert verdict == read_finding(found, "mine", threshold)


def test_a_function_is_named_by_its_code_unless_more_decides_what_it_says() -> None:
    def limited(most: int) -> Any:
        return lambda _request, reply: len(reply.text) < most

    class Own:
        def __call__(self, *_: object) -> bool:
            return True

        def look(self, *_: object) -> bool:
            return True

    def tells(*_: object, known: frozenset[str] = frozenset()) -> bool:
        return bool(known)

    one, other = as_check(lambda *_: _ in {"a", "b"}), as_check(lambda *_: _ in {"a", "c"})
    assert None not in (one.version, other.version)
    assert one.version != other.version
    for strange in (limited(5), Own(), Own().look, tells, partial(tells)):
        assert as_check(strange).version is None
        assert all_of("json", strange).version is None


@pytest.mark.parametrize(
    "odd",
    [
        {"words": None},
        {"words": 5},
        {"check": None},
        {"score": "high"},
        {"score": float("nan")},
        {"cost_nusd": "1"},
        {"blames": [1]},
        {"tier": 5},
        {"stamp": b"s"},
    ],
    ids=str,
)
def test_a_verdict_of_odd_parts_cannot_tell(odd: dict[str, Any]) -> None:
    """It would stand in rows, sums and reasons, where it could cost the caller the answer."""
    found = read_finding(structs.replace(Verdict("own", "accept", "good"), **odd), "mine")

    assert found is not None
    assert ("accept" if "score" in odd else "abstain") == found.says  # no score is as good as none given
    assert found.score is None
    assert isinstance(found.words, str)


def test_a_verdicts_words_can_be_written_down_and_are_not_without_end() -> None:
    found = read_finding(Verdict("own", "escalate", "\ud800\0" + 1_000 * "w", 4, is_control=True), "mine")

    assert Verdict("own", "escalate", "??" + 298 * "w", 4.0) == found


def test_whatever_can_be_called_with_request_and_reply_is_a_check() -> None:
    for one in (
        Short(),
        Short().with_more,
        partial(Short.with_more, Short()),
        lambda *both: len(both) == 2,
        lambda _request, *_reply: True,
        lambda _request, _reply, *, c=1, **_more: c,
    ):
        assert "run" == as_check(one).kind
    homeless = eval("lambda request, reply: True", {})  # noqa: S307 - its module is None, as in a notebook
    assert "run" == as_check(homeless).kind


def test_a_function_a_name_and_a_check_are_checks() -> None:
    def is_short(_request: Request, reply: Reply) -> bool:
        return len(reply.text) < 5

    assert json is as_check("json") is as_check(json)
    own = as_check(is_short)
    assert ("is_short", is_short, "run") == (own.name, own.ask, own.kind)
    assert "brief" == as_check(is_short, name="brief").name
    assert "lambda" == as_check(lambda *_: True).name
    assert json is as_check("mine", known={"mine": json})


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ("jsn", "no check is named 'jsn'; did you mean 'json'?"),
        ("?", "no check is named '[?]'; there are truncation, empty, "),
        (7, "check=7: expected a check, the name of one, or a function"),
        (dict, "check=<class 'dict'>: expected a check"),
        (JUDGE, "the judge is no part of another check: name it beside it"),
        (regex, r"check=regex: it makes a check, so call it: checks.regex"),
        (labels, r"check=labels: it makes a check, so call it: checks.labels"),
        (all_of, r"check=all_of: it makes a check, so call it: checks.all_of"),
        (lambda reply: reply, r"check=lambda: it takes \(reply\), and is called with \(request, reply\)"),
        (lambda: True, r"check=lambda: it takes \(\), and is called with"),
        (lambda _a, _b, _c: True, r"it takes \(_a, _b, _c\), and is called with"),
        (lambda _a, _b, *, c: c, r"it takes \(_a, _b, \*, c\), and is called with"),
        (Short().with_one, r"check=with_one: it takes \(reply\), and is called with"),
    ],
)
def test_what_is_no_check_is_refused(thing: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_check(thing)


def test_built_in_checks_go_by_their_own_names() -> None:
    names = ["truncation", "empty", "refusal", "stop_reason", "json", "schema", "tools"]

    assert names == list(BUILT_IN) == [check.name for check in BUILT_IN.values()]


# --- put together


@pytest.mark.parametrize(
    ("words", "of_all", "of_first"),
    [
        ([None, None], None, None),
        (["accept", None], "accept", "accept"),
        (["accept", "escalate"], "escalate", "accept"),
        (["abstain", "accept"], "abstain", "accept"),
        (["abstain", "escalate"], "escalate", "escalate"),
        (["abstain", None], "abstain", "abstain"),
        (["escalate", "accept"], "escalate", "escalate"),
        ([None, "abstain", "accept", "escalate"], "escalate", "accept"),
    ],
)
def test_all_of_accepts_what_all_accept_and_first_of_what_the_first_that_can_tell_does(
    words: list[Says | None], of_all: Says | None, of_first: Says | None
) -> None:
    parts = [saying(says, f"check{place}") for place, says in enumerate(words)]
    found = [combined.ask(PLAIN, answer("Hello")) for combined in (all_of(*parts), first_of(*parts))]

    assert [of_all, of_first] == [verdict and verdict.says for verdict in found]


def test_the_part_that_decides_speaks_and_all_that_were_asked_cost() -> None:
    parts = (
        saying("accept", "cheap", cost_nusd=3),
        saying("escalate", "dear", cost_nusd=4, score=2.0, blames=False),
        saying("escalate", "dearer", cost_nusd=5),
    )
    words = "dear: because dear"

    assert Verdict(
        "all_of(cheap, dear, dearer)", "escalate", words, score=2.0, cost_nusd=7, blames=False
    ) == all_of(*parts).ask(PLAIN, answer("Hello"))
    assert Verdict("mine", "escalate", words, score=2.0, cost_nusd=4, blames=False) == first_of(
        *parts[1:], name="mine"
    ).ask(PLAIN, answer("Hello"))


def test_a_combination_is_as_dear_as_its_dearest_part() -> None:
    run, judge = saying("accept", "run", "run"), saying("accept", "judge", "judge")

    assert "free" == all_of(json, "tools").kind
    assert "run" == first_of(json, run).kind
    assert "judge" == all_of(judge, run, json).kind
    assert all_of(json).version != all_of(json, threshold=3).version


def test_parts_that_cannot_be_asked_here_are_asked_by_who_carries_it_out() -> None:
    run, judge = saying("accept", "run", "run"), Check("judge", json.ask, "judge")
    steps = all_of(json, run, judge, threshold=3).ask(PLAIN, answer("7"))

    assert run is next(steps)
    assert judge is steps.send(Verdict("run", "accept", "right"))
    with pytest.raises(StopIteration) as done:
        steps.send(2)
    assert ("escalate", "judge: score 2, 3 wanted") == (done.value.value.says, done.value.value.words)


def asks(_request: Request, _reply: Reply) -> Generator[str, Any, Any]:
    """Ask with a step of the core's, which may fail."""
    try:
        return (yield "a step")
    except ValueError:
        return (yield "another step")


def test_an_inquiry_is_carried_out_with_the_checks_it_asks_for() -> None:
    asked = []

    def ask(part: Check) -> Generator[str, Any, Any]:
        asked.append(part.name)
        found = part.ask(PLAIN, answer("7"))
        return (yield from found) if isinstance(found, Generator) else found

    steps = inquire(all_of(saying("accept", "run", "run"), asks, threshold=1).ask(PLAIN, answer("7")), ask)

    assert "a step" == next(steps)
    assert "another step" == steps.throw(ValueError())
    with pytest.raises(StopIteration) as done:
        steps.send(0.0)
    assert (["run", "asks"], "escalate") == (asked, done.value.value.says)


def test_what_an_inquiry_cannot_help_is_raised() -> None:
    def fails(_part: Check) -> Generator[None]:
        yield
        raise KeyError

    steps = inquire(first_of(asks).ask(PLAIN, answer("7")), fails)
    next(steps)

    with pytest.raises(KeyError):
        next(steps)


def test_an_inquiry_that_is_called_free_is_still_one() -> None:
    steps = all_of(json, Check("asks", asks)).ask(PLAIN, answer("7"))

    assert "a step" == next(steps)
    assert "another step" == steps.throw(ValueError())
    with pytest.raises(StopIteration) as done:
        steps.send("strange")
    assert "abstain" == done.value.value.says


def test_combinations_object_early_where_that_is_their_last_word() -> None:
    object_only, label = schema_of({"type": "object"}), labels("yes", "no")

    assert objects(all_of(truncation, label, object_only), "yes")
    assert not objects(all_of(truncation, label), "yes")
    assert objects(first_of(label, object_only), "{")
    assert not objects(first_of(label, object_only), "yes")
    assert first_of(label, Check("end", json.ask)).glance is None


def test_nothing_cannot_be_combined() -> None:
    with pytest.raises(ConfigError, match="no check is given"):
        all_of()


OK, NO, UNSURE = (Verdict("a", says, "") for says in ("accept", "escalate", "abstain"))
UNASKED = Verdict("a", "abstain", "", blames=False)
CONTROL = Verdict("a", "escalate", "", is_control=True)


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ([OK, None, CONTROL], "accept"),
        ([OK, UNSURE], "escalate"),
        ([OK, UNSURE, UNASKED], "abstain"),
        ([UNASKED, NO], "escalate"),
        ([None, CONTROL], "abstain"),
        ([], "abstain"),
    ],
)
def test_what_follows_from_all_verdicts(verdicts: list[Verdict | None], found: Says) -> None:
    assert found == settle(verdicts, "escalate")


def test_who_cannot_tell_may_count_as_content() -> None:
    assert "accept" == settle([OK, UNSURE], "accept")
    assert "escalate" == settle([NO, UNSURE], "accept")


def test_what_could_not_be_asked_speaks_before_what_could_not_be_told() -> None:
    unsure, unasked = saying("abstain", "unsure"), saying("abstain", "unasked", blames=False)

    for combine in (all_of, first_of):
        assert "unasked: because unasked" == combine(unsure, unasked).ask(PLAIN, answer("Hello")).words


def test_what_a_free_check_cannot_tell_is_blamed_on_nobody() -> None:
    broken = request(output_config={"format": {"type": "json_schema", "schema": UNUSABLE[0]}})

    assert not schema.ask(broken, answer(VALID)).blames
    assert not stop_reason().ask(PLAIN, answer("Hello", stop="")).blames


# --- rows of the configuration


@pytest.mark.parametrize(
    ("row", "good", "bad"),
    [
        (CheckRow("team", labels=("red", "blue")), "red", "green"),
        (CheckRow("digits", pattern=r"\d+", full=True), "7", "7 days"),
        (CheckRow("brief", max_words=2), "two words", "three more words"),
        (CheckRow("german", language="de"), GERMAN, ENGLISH),
        (CheckRow("city", schema=SCHEMA), VALID, "{}"),
    ],
)
def test_a_row_makes_a_check_of_its_name(row: CheckRow, good: str, bad: str) -> None:
    check = made_of(row)

    found = [check.ask(PLAIN, answer(text)) for text in (good, bad)]
    assert [(row.name, "accept"), (row.name, "escalate")] == [
        (verdict.check, verdict.says) for verdict in found
    ]


def test_rows_of_commands_and_functions_are_only_looked_at() -> None:
    command = CheckRow("own-tests", command="pytest -q 'a b'")

    assert ("command", ["pytest", "-q", "a b"]) == (command.kind, command.arguments)
    assert "function" == CheckRow("mine", function="checks.own:is_right", threshold=3).kind


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "", "pattern": "x"}, "check '': give it a name of letters"),
        ({"name": "a, b", "pattern": "x"}, "check 'a, b': give it a name of letters"),
        ({"name": "json", "pattern": "x"}, "check 'json': that name is built in"),
        ({"name": "a"}, "check 'a': give exactly one of labels, .*; it has none"),
        ({"name": "a", "pattern": "x", "max_chars": 0}, "exactly one of .*; it has pattern, length"),
        ({"name": "a", "pattern": "("}, "no regular expression"),
        ({"name": "a", "labels": ("",)}, "labels="),
        ({"name": "a", "language": "tlh"}, "not one that can be told"),
        ({"name": "a", "schema": {"type": "strange"}}, "schema of check 'a'"),
        ({"name": "a", "command": "pytest '"}, "command = .*: expected a program and its arguments"),
        ({"name": "a", "command": " "}, "expected a program and its arguments"),
        ({"name": "a", "command": "-x"}, "expected a program and its arguments"),
        ({"name": "a", "function": "own.is_right"}, 'expected "module:name"'),
        ({"name": "a", "command": "true", "timeout_s": 0}, "timeout_s = 0, memory_mb = 4096"),
        ({"name": "a", "command": "true", "memory_mb": -1}, "memory_mb = -1"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CheckRow(**given)
