from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leastwise.errors import RequestError
from leastwise.messages import MOST_TOKENS, Facts, Held, Iteration, Reply, Request, Usage, blocks_of

BODY = (
    b'{"model":"claude-opus-5-5","max_tokens":1024,"messages":[{"role":"user","content":"Hi"}],"stream":true}'
)
SPACED = b"""{
  "model": "claude-opus-5-5" , "x_new": [1, 2.50, 1e3],
  "messages": [ {"role": "user", "content": "caf\\u00e9 \xe2\x82\xac"} ],
  "metadata": {"user_id": 12345678901234567890123}
}"""


def test_a_request_is_read_by_its_members() -> None:
    request = Request.parse(BODY, version="2023-06-01", betas=["b", "a"])

    assert ("claude-opus-5-5", 1024, True) == (request.model, request.max_tokens, request.is_stream)
    assert [{"role": "user", "content": "Hi"}] == request.messages
    assert ("/v1/messages", "2023-06-01", ("a", "b")) == (request.endpoint, request.version, request.betas)
    assert ["model", "max_tokens", "messages", "stream"] == list(request)
    assert "stream" in request
    assert "system" not in request
    assert (None, 7) == (request.get("system"), request.get("system", 7))
    assert (4, None) == (request.size("max_tokens"), request.size("system"))


def test_an_untouched_request_goes_out_as_it_came() -> None:
    request = Request.parse(SPACED)
    assert 12345678901234567890123 == request.get("metadata")["user_id"]

    assert SPACED == request.body()
    assert {} == dict(request.changes)


def test_a_changed_request_keeps_every_other_values_bytes_and_the_order() -> None:
    request = Request.parse(SPACED).replace(model="claude-haiku-5-5", max_tokens=50)

    assert (
        b'{"model":"claude-haiku-5-5","x_new":[1, 2.50, 1e3],'
        b'"messages":[ {"role": "user", "content": "caf\\u00e9 \xe2\x82\xac"} ],'
        b'"metadata":{"user_id": 12345678901234567890123},"max_tokens":50}'
    ) == request.body()
    assert {"model": "claude-haiku-5-5", "max_tokens": 50} == dict(request.changes)
    assert ("claude-haiku-5-5", 50) == (request.model, request.max_tokens)


def test_replace_leaves_the_original_and_adds_up() -> None:
    original = Request.parse(BODY, endpoint="/v1/x", version="v", betas=["b"])
    changed = original.replace(model="a").replace(model="b", max_tokens=1)

    assert ("claude-opus-5-5", BODY) == (original.model, original.body())
    assert {"model": "b", "max_tokens": 1} == dict(changed.changes)
    assert ("/v1/x", "v", ("b",)) == (changed.endpoint, changed.version, changed.betas)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","max_tokens":1,"messages":[],"max_tokens":9}',
        b'{"model":"a","messages":[],"\\u006dodel":"b"}',
        b'{ "model": "a", "messages": [], "messages": [] }',
        b'{"model":"a","messages":[],"":1,"":2}',
        b'{"messages":[],"caf\xc3\xa9":1,"caf\\u00e9":2,"model":"a"}',
    ],
    ids=["compact", "escaped", "spaced", "empty name", "accent"],
)
def test_a_name_that_occurs_twice_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="occurs twice; send it once"):
        Request.parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model": "a", "Model": "b", "messages": [{"content": "x", "content": "y"}] }',
        b'{"model":"a","messages":[],"metadata":{"a":1,"a":2}}',
    ],
    ids=["case", "nested"],
)
def test_names_below_the_top_level_are_the_upstreams_business(body: bytes) -> None:
    assert body == Request.parse(body).body()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'"text"',
        b'[{"model":"a","messages":[]}]',
        b'{"model":"a","messages":[]',
        b'{"model":"a","messages":[]}{}',
        b'{"model":"a","messages":[],}',
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        b'{"model":"a","messages":[],"x":NaN}',
        b'{"model":"a","messages":[],"x":"\xff"}',
        b'{"model":"a","messages":[],"x":"\xed\xa0\x80"}',
        b'{"model":"a","messages":[],"x":"\\ud800"}',
        b'{"model":"a","messages":[],"\\udc00":1}',
        b'{"model":"a","messages":[],"\xff":1}',
        b'{"model":"a","messages":[],"x":"\x01"}',
        b'{"model":"a","messages":[],"x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"model":"a","messages":[{"content":[' + b"[" * 9000 + b"]" * 9000 + b"]}]}",
        b'{"model":"a","messages":[1e999]}',
    ],
    ids=[
        "empty", "null", "text", "list", "cut", "two", "comma", "BOM", "UTF-16", "NaN", "bad byte", "CESU",
        "surrogate", "surrogate name", "bad name", "control", "deep", "deep messages", "infinite",
    ],
)  # fmt: skip
def test_what_is_no_json_object_in_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        Request.parse(body)

    assert (400, "invalid_request_error") == (refused.value.http_status, refused.value.api_type)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"messages":[]}', "model: expected a string, got None"),
        (b'{"model":5,"messages":[]}', "model: expected a string, got 5"),
        (b'{"model":"a"}', "messages: expected a list"),
        (b'{"model":"a","messages":"Hi"}', "messages: expected a list"),
        (b'{"model":"a","messages":[{"content":"x"},"Hi"]}', r"messages\[1\]: expected an object"),
        (b'{"model":"a","messages":[{"content":5}]}', r"messages\[0\]: expected an object"),
    ],
    ids=["no model", "model", "no messages", "messages", "turn", "content"],
)
def test_a_field_of_the_wrong_kind_is_named(body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Request.parse(body)
    with pytest.raises(RequestError, match=words):
        Request.of(msgspec.json.decode(body))


def test_a_member_that_nobody_reads_may_be_strange_and_passes() -> None:
    body = b'{"model":"a","messages":[],"x":1e999}'
    request = Request.parse(body)

    assert body == request.body()
    assert b'{"model":"b","messages":[],"x":1e999}' == request.replace(model="b").body()
    with pytest.raises(RequestError, match=r"^x: cannot be read: "):
        request.get("x")


@pytest.mark.parametrize("value", [b"true", b'"5"', b"5.0", b"null"], ids=["bool", "text", "float", "null"])
def test_a_cap_that_is_no_whole_number_is_no_cap(value: bytes) -> None:
    request = Request.parse(b'{"model":"a","messages":[],"stream":1,"max_tokens":' + value + b"}")

    assert (None, False) == (request.max_tokens, request.is_stream)


def test_a_request_given_as_arguments_keeps_them_and_tells_what_changed() -> None:
    params: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "x": 1}
    request = Request.of(params, betas=("z", "y"))
    changed = request.replace(model="b", system="s")

    assert ("a", ("y", "z"), None) == (params["model"], request.betas, request.size("model"))
    assert {"model": "b", "system": "s"} == dict(changed.changes)
    assert ["model", "messages", "x", "system"] == list(changed)
    assert {**params, "model": "b", "system": "s"} == msgspec.json.decode(changed.body())


def test_a_printed_request_shows_no_text() -> None:
    assert "<Request 'claude-opus-5-5' ['max_tokens', 'messages', 'model', 'stream']>" == repr(
        Request.parse(BODY)
    )


def test_content_is_read_as_blocks_and_strange_items_left_out() -> None:
    new = {"type": "not_yet_known", "x": 1}

    assert [{"type": "text", "text": "Hi"}] == blocks_of("Hi")
    assert [new] == blocks_of([new, "Hi", None])
    assert [] == blocks_of(None)


FULL = {
    "input_tokens": 2095, "output_tokens": 503, "cache_read_input_tokens": 1800,
    "cache_creation_input_tokens": 2500,
    "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 2000},
    "output_tokens_details": {"thinking_tokens": 120},
    "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
    "service_tier": "priority", "speed": "fast", "inference_geo": "us", "of_tomorrow": {"x": 1},
}  # fmt: skip


def test_usage_with_all_classes() -> None:
    usage = Usage.read(FULL)

    assert Usage(2095, 503, 1800, 500, 2000, 120, 3, "priority", "fast", "us") == usage
    assert 2095 + 1800 + 2500 == usage.prompt_tokens


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        pytest.param(None, Usage(), id="absent"),
        pytest.param({}, Usage(), id="empty"),
        pytest.param({"input_tokens": 12, "output_tokens": 6}, Usage(12, 6), id="plain"),
        pytest.param(dict.fromkeys(FULL), Usage(), id="nulls"),
        pytest.param(
            {"cache_creation_input_tokens": 100}, Usage(cache_write_5m_tokens=100), id="only the sum"
        ),
        pytest.param(
            {"cache_creation_input_tokens": 100, "cache_creation": None},
            Usage(cache_write_5m_tokens=100),
            id="null split",
        ),
        pytest.param(
            {"cache_creation_input_tokens": 100, "cache_creation": {}},
            Usage(cache_write_5m_tokens=100),
            id="empty split",
        ),
        pytest.param(
            {"cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_1h_input_tokens": 60}},
            Usage(cache_write_5m_tokens=40, cache_write_1h_tokens=60),
            id="half a split",
        ),
        pytest.param(
            {"cache_creation": {"ephemeral_1h_input_tokens": 60}},
            Usage(cache_write_1h_tokens=60),
            id="only the split",
        ),
        pytest.param(
            {
                "input_tokens": -1,
                "output_tokens": 2.5,
                "cache_read_input_tokens": True,
                "cache_creation_input_tokens": "9",
                "cache_creation": [1],
                "server_tool_use": 7,
                "output_tokens_details": "x",
                "service_tier": 5,
                "speed": {},
                "inference_geo": [],
                "iterations": {"a": 1},
            },
            Usage(),
            id="garbage",
        ),
        pytest.param(
            {"input_tokens": MOST_TOKENS, "output_tokens": MOST_TOKENS + 1}, Usage(MOST_TOKENS), id="immense"
        ),
        pytest.param(5, Usage(), id="a number"),
        pytest.param(["input_tokens"], Usage(), id="a list"),
    ],
)
def test_usage_that_is_incomplete_or_garbage(given: Any, usage: Usage) -> None:
    assert usage == Usage.read(given)


def test_the_parts_of_an_answer_name_their_own_models() -> None:
    usage = Usage.read(
        {
            "input_tokens": 10,
            "iterations": [
                {"type": "message", "model": "claude-opus-5-5", "input_tokens": 10, "output_tokens": 1},
                {"type": "compaction", "input_tokens": 50, "iterations": [{"input_tokens": 1}]},
                "strange",
                {"type": 5, "model": 6},
            ],
        }
    )

    assert (
        Iteration("message", "claude-opus-5-5", Usage(10, 1)),
        Iteration("compaction", None, Usage(50)),
        Iteration("message", None, Usage()),
    ) == usage.iterations


START = Usage.read(
    {"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 300,
     "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}}
)  # fmt: skip


@pytest.mark.parametrize(
    ("later", "merged"),
    [
        pytest.param(None, START, id="none"),
        pytest.param({}, START, id="empty"),
        pytest.param({"output_tokens": 15}, Usage(25, 15, 7, 100, 200), id="output only"),
        pytest.param(
            {
                "input_tokens": 25,
                "output_tokens": 15,
                "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": 300,
            },
            Usage(25, 15, 7, 100, 200),
            id="repeated",
        ),
        pytest.param(
            {"input_tokens": None, "output_tokens": 15, "cache_creation_input_tokens": None},
            Usage(25, 15, 7, 100, 200),
            id="nulls",
        ),
        pytest.param(
            {"output_tokens": 15, "input_tokens": -4, "cache_read_input_tokens": 0.5},
            Usage(25, 15, 7, 100, 200),
            id="garbage",
        ),
        pytest.param(
            {"input_tokens": 900, "output_tokens": 15, "cache_creation_input_tokens": 450},
            Usage(900, 15, 7, 250, 200),
            id="grown",
        ),
        pytest.param(
            {"output_tokens": 15, "cache_creation_input_tokens": 150},
            Usage(25, 15, 7, 0, 150),
            id="less than was for an hour",
        ),
        pytest.param(
            {"output_tokens": 15, "cache_read_input_tokens": 0}, Usage(25, 15, 0, 100, 200), id="zero"
        ),
        pytest.param(
            {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 400}},
            Usage(25, 1, 7, 0, 400),
            id="new split",
        ),
        pytest.param(
            {"output_tokens_details": {"thinking_tokens": 9}, "server_tool_use": {"web_search_requests": 2}},
            Usage(25, 1, 7, 100, 200, 9, 2),
            id="details",
        ),
    ],
)
def test_a_later_report_replaces_what_it_gives_and_nothing_else(later: Any, merged: Usage) -> None:
    assert merged == START.merge(later)


def test_usage_adds_up_over_attempts() -> None:
    total = Usage.read(FULL).plus(
        Usage.read({**FULL, "iterations": [{"input_tokens": 1}], "speed": "standard"})
    )

    assert Usage(4190, 1006, 3600, 1000, 4000, 240, 6, "priority", "fast", "us") == total


def test_an_answer_says_who_answered_what_it_used_and_which_tools_it_calls() -> None:
    message = {
        "id": "msg_1", "type": "message", "model": "claude-haiku-5-5", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "..."}, {"type": "text", "text": "x"},
            {"type": "tool_use", "id": "toolu_1"}, {"type": "server_tool_use", "id": "srvtoolu_2"},
            {"type": "tool_use", "id": None}, {"type": "tool_use", "id": "toolu_3"},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }  # fmt: skip

    assert Facts(
        "claude-haiku-5-5", "msg_1", "tool_use", Usage(3, 4), ("toolu_1", "toolu_3"), is_complete=True
    ) == Facts.read(message)
    assert Facts(is_complete=True) == Facts.read({"id": 5, "model": None, "content": 7, "usage": "x"})


def test_a_live_reply_gives_its_payload_away_once() -> None:
    stream = object()
    held = Held(stream)

    assert (True, False) == (Reply(held).is_live, Reply(stream).is_live)
    assert (stream, None) == (held.take(), held.take())


def test_what_was_handed_over_is_not_kept_by_its_bytes() -> None:
    held = Held(object(), iter([b""]), is_stream=False)
    held.take()

    assert (None, False) == (held.chunks, held.is_stream)


def test_values_of_a_subclass_are_written_as_json_and_others_refused() -> None:
    class Text(str):
        __slots__ = ()

    class Share(float):
        __slots__ = ()

    class Count(int):
        __slots__ = ()

    turn = {"role": "user", "content": Text("hi")}
    asked = Request.of({"model": "auto", "messages": [turn], "top_p": Share(0.5), "top_k": Count(3)})
    assert (
        b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"top_p":0.5,"top_k":3}' == asked.body()
    )

    with pytest.raises(TypeError, match="object is no JSON"):
        Request.of({"model": "auto", "messages": [], "metadata": object()}).body()
