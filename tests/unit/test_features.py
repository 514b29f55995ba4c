from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leastwise.features import (
    Features,
    cut,
    estimate_last_turn,
    estimate_tokens,
    learn_correction,
    read,
    reference_tokens,
)
from leastwise.ladder import Task
from leastwise.messages import Request
from leastwise.tally import LARGEST_WINDOW, prompt_bound

CLIENTS = sorted((Path(__file__).parents[1] / "data" / "clients").glob("*.json"))
MODEL = "claude-opus-5-5"


def of(*turns: dict[str, Any] | str, **members: Any) -> Request:
    messages = [{"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in turns]
    return Request.of({"model": MODEL, "max_tokens": 100, "messages": messages, **members})


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("form", ["bytes", "members"])
def test_clients(path: Path, form: str) -> None:
    case = json.loads(path.read_text("utf-8"))
    body = case["body"]
    request = Request.parse(json.dumps(body).encode()) if form == "bytes" else Request.of(body)

    features = read(request, headers=case["headers"])

    found = {name: getattr(features, name) for name in case["expect"]}
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    assert case["expect"] == found


def test_there_are_clients() -> None:
    assert 20 < len(CLIENTS)


def test_an_injected_block_is_length_and_not_wish() -> None:
    block = "<system-reminder>" + "design a comprehensive architecture " * 50 + "</system-reminder>"

    features = read(of(user(text(block), text("fix the typo in the header"))))

    assert "fix the typo in the header" == features.fresh_ask
    assert len(block) + 26 == features.text_chars


@pytest.mark.parametrize(
    ("prompt", "ask"),
    [
        ("say <system-reminder> aloud", "say <system-reminder> aloud"),
        ("a <system-reminder>x</system-reminder> b <system-reminder>y</system-reminder>c", "a  b c"),
        ("<system-reminder>x</system-reminder>", ""),
        ("<system-reminderish>x</system-reminderish>", "<system-reminderish>x</system-reminderish>"),
        ("<task>one</task> and <task>two</task>", "<task>one</task> and <task>two</task>"),
        ("<task>one</task>", "one"),
        ("<user_query>never closed", "<user_query>never closed"),
        ("[Request interrupted by user]", ""),
        ("Could you check?", "Could you check?"),
        ("# Title\ntext", "# Title\ntext"),
    ],
)
def test_envelopes(prompt: str, ask: str) -> None:
    assert ask == read(of(prompt)).fresh_ask


def test_a_turn_without_a_wish_leaves_the_ask_before_it() -> None:
    request = of("sum the column", {"role": "assistant", "content": "ok"}, "<bash-stdout>3</bash-stdout>")

    assert "sum the column" == read(request).fresh_ask


@pytest.mark.parametrize(
    "words", ["yes", "Yes!", "continue", "ok do it", "go ahead, please", "option 2", "try again"]
)
def test_follow_ups_inherit(words: str) -> None:
    answer = {"role": "assistant", "content": "shall I?"}

    features = read(of("implement the parser", answer, "yes", answer, words))

    assert (True, "implement the parser", "implement the parser") == (
        features.is_follow_up,
        features.inherited_ask,
        features.ask,
    )


@pytest.mark.parametrize("words", ["yes, and rename the file", "why?", "write it in Rust", ""])
def test_what_has_content_is_no_follow_up(words: str) -> None:
    answer = {"role": "assistant", "content": "shall I?"}

    assert not read(of("implement the parser", answer, words)).is_follow_up


def test_a_first_yes_inherits_nothing() -> None:
    features = read(of("yes"))

    assert (True, "", "yes") == (features.is_follow_up, features.inherited_ask, features.ask)


def test_long_asks_keep_beginning_and_end_and_whole_words() -> None:
    asked = "begin " + "rebuild " * 500 + "end"

    kept = cut(asked)

    assert kept.startswith("begin rebuild")
    assert kept.endswith("rebuild end")
    assert {"begin", "rebuild", "end"} == set(kept.split())
    assert len(kept) <= 1001


def test_long_descriptions_are_cut_like_asks() -> None:
    told = "classify " + "the mail " * 500 + "at last"

    assert cut(told) == read(of("x"), Task(told)).description


def test_cut_at_a_space_keeps_both_words() -> None:
    asked = "a" * 700 + " " + "b" * 400 + " " + "c" * 300

    assert "a" * 700 + "\n" + "c" * 300 == cut(asked)


@pytest.mark.parametrize(
    ("ask", "has_code"),
    [
        ("```\nx\n```", True),
        ("why does def total(rows): fail", True),
        ("class Foo: pass", True),
        ("class Foo extends Bar", True),
        ("function add(a, b) { return a + b }", True),
        ("import os", True),
        ("from os import path", True),
        ("#include <stdio.h>", True),
        ("what is <b>bold</b> for", True),
        ("we met in class on Monday", False),
        ("the function of the heart", False),
        ("they import wine and define terms", False),
        ("is 3 < 4 or 5 > 4?", False),
    ],
)
def test_code(ask: str, *, has_code: bool) -> None:
    assert has_code == read(of(ask)).has_code


def test_what_the_task_tells_wins() -> None:
    request = of("```x```", tools=[{"name": "t", "input_schema": {}}])
    task = Task("name it", has_code=False, has_tools=False, session="s", expected_output_words=10)

    features = read(request, task)

    assert (False, False, "s", 13, "name it") == (
        features.has_code,
        features.has_tools,
        features.session,
        features.expected_output_tokens,
        features.description,
    )


def test_code_in_the_description_counts() -> None:
    assert read(of("see above"), Task("explain `x`: ```f()```")).has_code


def test_sizes_count_all_text_in_utf8() -> None:
    request = of(
        "äh",
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "i", "name": "n", "input": {"q": "wörd"}}],
        },
        user({"type": "tool_result", "tool_use_id": "i", "content": [text("日本"), "stray", 7]}),
        system="sys",
    )

    features = read(request)

    assert features.text_bytes - features.text_chars == 1 + 1 + 4
    assert features.text_chars > len("äh") + len("wörd") + len("日本") + len("sys")


def test_lone_surrogates_are_read() -> None:
    assert 3 == read(of("\ud800")).text_bytes


def test_images_and_documents_are_counted_and_not_weighed() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 9_000}}
    pdf = {"type": "document", "source": {"type": "base64", "data": "A" * 9_000}}
    plain = {"type": "document", "source": {"type": "text", "data": "B" * 50}}
    nested = {"type": "tool_result", "tool_use_id": "i", "content": [image]}

    features = read(of(user(image, pdf, plain, nested)))

    assert (2, 1, True, True) == (
        features.images,
        features.documents,
        features.has_images,
        features.has_documents,
    )
    assert 50 <= features.text_chars < 300


def test_tools_are_seen_without_decoding_them() -> None:
    tools = [{"name": "t", "description": "d" * 100, "input_schema": {"type": "object"}}]
    body = json.dumps({"model": MODEL, "messages": [], "tools": tools}).encode()

    received, given = read(Request.parse(body)), read(of(tools=tools))

    assert received.has_tools
    assert given.has_tools
    assert received.text_chars >= 100
    assert given.text_chars >= 100


@pytest.mark.parametrize("tools", [b"[]", b"null", b"[ ]"])
def test_no_tools(tools: bytes) -> None:
    assert not read(Request.parse(b'{"model":"m","messages":[],"tools":' + tools + b"}")).has_tools


def test_an_empty_conversation_has_no_features() -> None:
    features = read(of())

    assert Features(opening=features.opening) == features


def test_sessions_are_told_or_named_by_their_opening() -> None:
    first = of("hello", system=[text("x-anthropic-billing-header: cch=1;"), text("be kind")])
    later = of("hello", {"role": "assistant", "content": "hi"}, "more", system="be kind")
    other = of("hallo", system="be kind")

    names = [read(each).session for each in (first, later, other)]

    assert names[0] == names[1]
    assert names[1] != names[2]
    assert 16 == len(names[0])


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ("user_1_account_2_session_ab-3", "ab-3"),
        ('{"session_id": "cd-4"}', "cd-4"),
        ("{not json", None),
        ('{"session_id": 4}', None),
        ("someone", None),
        (17, None),
    ],
)
def test_sessions_in_metadata(user_id: object, session: str | None) -> None:
    features = read(of("hello", metadata={"user_id": user_id}))

    assert (session or "") == features.session_told


def test_a_session_name_is_cut_to_size() -> None:
    assert "s" * 200 == read(of("x"), Task(session="s" * 5000)).session


def test_billing_line_tells_a_subagent() -> None:
    line = text("x-anthropic-billing-header: cc_version=2.1.330; cc_is_subagent=true;")

    assert "subagent" == read(of("x", system=[line])).role


def test_features_shown_in_a_log_hold_no_text() -> None:
    assert "<Features 6 bytes, 1 turns>" == repr(read(of("secret")))


def test_estimates_by_hand() -> None:
    features = Features(text_chars=380, text_bytes=410, turns=5)

    assert 100 + 10 + 20 == estimate_tokens(features, "old")
    assert 169 == estimate_tokens(features, "new")
    assert 260 == estimate_tokens(features, "old", 2.0)


def test_the_last_turn_is_estimated_alone() -> None:
    photo = {"type": "image", "source": {}}
    request = of("x" * 3_800, user(text("\u00fc" * 380), photo))

    assert 100 + 127 + 1600 + 4 == estimate_last_turn(request, "old")
    assert 3662 == estimate_last_turn(request, "old", 2.0)
    assert [4, 4] == [estimate_last_turn(of(*turns), "old") for turns in ((), ({"role": "user"},))]


MARK = {"cache_control": {"type": "ephemeral"}}
TOOL = {"name": "t", "input_schema": {"type": "object"}}
ANSWER = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (of("hello", "again"), (False, 0)),
        (of("hello", system=[text("s")], tools=[TOOL]), (False, 0)),
        (of("hello", **MARK), (True, 1)),
        (of("hello", "again", system=[{**text("s"), **MARK}]), (True, 2)),
        (of("hello", tools=[{**TOOL, **MARK}]), (True, 1)),
        (of("hello", user({**text("again"), **MARK}), {"role": "assistant", "content": "Hi"}), (True, 2)),
        (of("hello", user({**ANSWER, **MARK})), (True, 1)),
        (of("hello", user({**text("again"), "cache_control": None}), cache_control=None), (False, 0)),
    ],
)
@pytest.mark.parametrize("form", ["bytes", "members"])
def test_a_prompt_cache_is_marked_anywhere_in_the_prompt(
    request_: Request, found: tuple[bool, int], form: str
) -> None:
    features = read(Request.parse(request_.body()) if form == "bytes" else request_)

    assert found == (features.marks_cache, features.human_turns)


def test_estimates_count_what_is_not_text() -> None:
    assert 350 + 1600 + 3000 == estimate_tokens(Features(has_tools=True, images=1, documents=1), "old")


@pytest.mark.parametrize(
    ("estimated", "actual", "factor"),
    [(0, 0, 1.0), (20_000, 60_000, 2.0), (80_000, 60_000, 0.8), (10**9, 10**8, 0.5), (20_000, 20_000, 1.0)],
)
def test_corrections_are_drawn_towards_one_and_bounded(estimated: int, actual: int, factor: float) -> None:
    assert factor == pytest.approx(learn_correction(estimated, actual))


def test_the_reference_counts_words() -> None:
    assert int(7 * 1.3) == reference_tokens(
        of("one two\nthree", user(text("four five"), {"type": "image"}), system="six seven")
    )


def test_a_bound_is_above_the_bytes() -> None:
    request = of("日本語" * 100, tools=[{"name": "t", "input_schema": {}}])

    assert 900 + 1_000 + 1_500 < prompt_bound(request) < 900 + 1_000 + 1_500 + 300


def test_a_bound_leaves_out_the_payload_of_images() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}

    assert 5_000 < prompt_bound(of(user(image))) < 6_000


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "n"}]},
        {
            "messages": [
                user({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}})
            ]
        },
        {"messages": [user(text("x" * 1_200_000))]},
    ],
    ids=["search", "mcp", "document", "long"],
)
def test_what_has_no_size_is_bounded_by_the_window(members: dict[str, Any]) -> None:
    assert LARGEST_WINDOW == prompt_bound(of("hello", **members))


def test_many_open_tags_are_looked_for_once() -> None:
    asked = "<system-reminder>" * 3

    assert asked == read(of(asked)).fresh_ask


def test_turns_without_content_or_a_user_are_read() -> None:
    features = read(of({"role": "assistant"}, system="be kind"))

    assert ("", 1, True, "be kind") == (features.ask, features.turns, features.is_prefill, features.opening)


def test_strange_content_is_passed_over() -> None:
    request = of(
        {"role": "user", "content": [None, 3, {"type": "text", "text": None}, {"type": ["x"]}, text("ok?")]}
    )

    assert "ok?" == read(request).fresh_ask


def test_a_body_that_is_no_json_is_bounded_by_the_largest_window() -> None:
    assert LARGEST_WINDOW == prompt_bound(of("hello", metadata={"user_id": object()}))
    assert LARGEST_WINDOW == prompt_bound(of("\ud800"))
