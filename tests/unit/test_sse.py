from __future__ import annotations

import json

import pytest

from leastwise.messages import Facts, Usage
from leastwise.sse import Event, Events, Tap, assemble, encode

STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
    b'"role":"assistant","model":"claude-haiku-5-5","content":[],"stop_reason":null,"usage":{"input_tokens":25,'
    b'"output_tokens":1,"cache_creation_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,'
    b'"ephemeral_1h_input_tokens":200}}}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":'
    b'{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    b'"text":"Hello"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":'
    b'{"type":"tool_use","id":"toolu_1","name":"weather","input":{}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":'
    b'null},"usage":{"output_tokens":15}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
USAGE = Usage(25, 15, cache_write_5m_tokens=100, cache_write_1h_tokens=200)


def tapped(*chunks: bytes, is_stream: bool = True) -> Tap:
    tap = Tap(is_stream=is_stream)
    for chunk in chunks:
        tap.feed(chunk)
    return tap


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"event: a\ndata: 1\n\n", [Event("a", b"1")], id="plain"),
        pytest.param(b"event:a\ndata:1\n\n", [Event("a", b"1")], id="no space"),
        pytest.param(b"event:  a\ndata:  1\n\n", [Event(" a", b" 1")], id="one space is dropped, not two"),
        pytest.param(b"data: 1\r\n\r\ndata: 2\r\r", [Event("", b"1"), Event("", b"2")], id="line ends"),
        pytest.param(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n", [Event("", b"1")], id="BOM"),
        pytest.param(b": hello\ndata: 1\n:\n\n", [Event("", b"1")], id="comments"),
        pytest.param(b"data: 1\ndata:\ndata: 3\n\n", [Event("", b"1\n\n3")], id="lines of data"),
        pytest.param(b"data\n\n", [Event("", b"")], id="data without a colon"),
        pytest.param(b"event: a\n\ndata: 1\n\n", [Event("", b"1")], id="event without data"),
        pytest.param(b"id: 7\nretry: 10\nfoo: bar\ndata: a:b\n\n", [Event("", b"a:b")], id="other fields"),
        pytest.param(b"event: a\nevent: b\ndata: 1\n\n", [Event("b", b"1")], id="the last name counts"),
        pytest.param(b"event: a\ndata: 1", [], id="cut in a line"),
        pytest.param(b"event: a\ndata: 1\n", [], id="no blank line at the end"),
        pytest.param(b"\n\n\n", [], id="blank"),
        pytest.param(b"event: \xff\ndata: \xff\n\n", [Event("\ufffd", b"\xff")], id="no UTF-8"),
    ],
)
def test_bytes_become_events(stream: bytes, events: list[Event]) -> None:
    assert events == Events().feed(stream)
    byte_by_byte = Events()
    assert events == [event for at in range(len(stream)) for event in byte_by_byte.feed(stream[at : at + 1])]


def test_an_encoded_event_is_read_back() -> None:
    assert [Event("ping", b"{}"), Event("x", b"1")] == Events().feed(
        encode("ping", b"{}") + encode("x", b"1")
    )


def test_a_tap_gathers_what_the_ledger_needs() -> None:
    tap = tapped(STREAM)

    assert (
        Facts("claude-haiku-5-5", "msg_1", "tool_use", USAGE, ("toolu_1",), visible_bytes=5, is_complete=True)
        == tap.finish()
    )
    assert "" == tap.error_type


def test_input_counts_from_the_first_event() -> None:
    tap = tapped(STREAM[: STREAM.index(b"event: ping")])

    assert Usage(25, 1, cache_write_5m_tokens=100, cache_write_1h_tokens=200) == tap.facts.usage
    assert tap.facts == tap.finish()
    assert not tap.facts.is_complete


@pytest.mark.parametrize(
    "cut", [STREAM.index(b"event: message_stop"), len(STREAM) - 1], ids=["before", "within"]
)
def test_a_stream_without_its_last_event_is_not_complete(cut: int) -> None:
    facts = tapped(STREAM[:cut]).finish()

    assert ("tool_use", USAGE, False) == (facts.stop_reason, facts.usage, facts.is_complete)


def test_an_error_in_a_stream_is_noted() -> None:
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    tap = tapped(STREAM[: STREAM.index(b"event: message_stop")], encode("error", error))

    assert ("overloaded_error", False) == (tap.error_type, tap.finish().is_complete)


@pytest.mark.parametrize("data", [b"{}", b'{"error":"x"}', b'{"error":{"type":5}}', b"no JSON"], ids=repr)
def test_an_error_that_says_nothing_is_noted_too(data: bytes) -> None:
    assert "error" == tapped(encode("error", data)).error_type


@pytest.mark.parametrize(
    "event",
    [
        encode("message_start", b"[]"),
        encode("message_start", b'{"message":[1]}'),
        encode("message_start", b'{"message":{"usage":[],"content":5,"model":{},"id":[]}}'),
        encode("content_block_start", b'{"content_block":[]}'),
        encode("content_block_start", b'{"content_block":{"type":"tool_use","id":null}}'),
        encode("content_block_delta", b""),
        encode("message_delta", b'{"delta":"x","usage":"y"}'),
        encode("message_delta", b'{"delta":{"stop_reason":5},"usage":{"output_tokens":-1,"iterations":3}}'),
        encode("message_delta", b'{"usage":{"output_tokens":1e999}}'),
        encode("message_delta", b'{"usage":' + b"[" * 9000 + b"]" * 9000 + b"}"),
        encode("message_delta", b'{"usage":{"output_tokens":' + b"9" * 5000 + b"}}"),
        encode("message_delta", b'{"usage":{"service_tier":"\xff"}}'),
    ],
    ids=range(12),
)
def test_garbage_counts_as_nothing(event: bytes) -> None:
    tap = tapped(event)

    assert (Facts(), "") == (tap.finish(), tap.error_type)


def test_a_whole_answer_is_read_at_its_end() -> None:
    body = b'{"id":"msg_1","model":"m","stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}}'
    tap = tapped(body[:9], body[9:], is_stream=False)

    assert Facts() == tap.facts
    assert Facts("m", "msg_1", "end_turn", Usage(3, 4), is_complete=True) == tap.finish() == tap.finish()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"<html>", b"\xff", b"[" * 9000], ids=range(6))
def test_an_answer_that_is_no_message_says_nothing(body: bytes) -> None:
    tap = tapped(body, is_stream=False)

    assert (Facts(), "") == (tap.finish(), tap.error_type)


def test_a_whole_error_is_noted() -> None:
    tap = tapped(b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', is_stream=False)

    assert (Facts(), "overloaded_error") == (tap.finish(), tap.error_type)


def _event(name: str, **members: object) -> bytes:
    return encode(name, json.dumps({"type": name, **members}).encode())


def test_a_stream_is_assembled_into_the_message_it_tells() -> None:
    started = {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 3}}
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    body = b"".join(
        [
            _event("message_start", message=started),
            _event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
            _event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
            _event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
            _event("ping"),
            _event("content_block_start", index=1, content_block={"type": "text", "text": "a"}),
            _event("content_block_delta", index=1, delta={"type": "text_delta", "text": "b"}),
            _event("content_block_delta", index=1, delta={"type": "text_delta", "text": "c"}),
            _event("content_block_start", index=2, content_block=call),
            _event(
                "content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"x"'}
            ),
            _event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ":1}"}),
            _event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 9}),
            _event("message_stop"),
        ]
    )

    assert {
        "id": "msg_1",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "abc"},
            {"type": "tool_use", "id": "t", "name": "look", "input": {"x": 1}},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 9},
        "stop_reason": "tool_use",
    } == assemble(body)


def test_what_is_no_stream_is_assembled_into_nothing_and_odd_parts_are_left_as_they_are() -> None:
    assert {} == assemble(b"")
    assert {} == assemble(b'{"type": "message"}')
    odd = b"".join(
        [
            _event("message_start", message={"id": "msg_1"}),
            _event("content_block_delta", index="?", delta={"type": "input_json_delta", "partial_json": "{"}),
            _event("content_block_delta", index=3, delta={"type": "input_json_delta", "partial_json": ""}),
            _event("message_delta"),
        ]
    )
    assert {"id": "msg_1", "usage": {}, "content": [{"input": "{"}, {}]} == assemble(odd)
