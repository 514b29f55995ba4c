from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leastwise.messages import Facts
from leastwise.sse import Event, Events, Tap

NAMES = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "error",
    "ping",
)
USAGE = {"input_tokens": 25, "output_tokens": 3, "cache_read_input_tokens": None}
DATA: dict[str, dict[str, Any]] = {
    "message_start": {"message": {"id": "msg_1", "model": "claude-haiku-5-5", "usage": USAGE}},
    "content_block_start": {"content_block": {"type": "tool_use", "id": "toolu_1"}},
    "content_block_delta": {
        "index": 0,
        "delta": {"type": "text_delta", "text": "caf\u00e9 \u20ac \U0001f600"},
    },
    "message_delta": {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    "error": {"error": {"type": "overloaded_error"}},
}
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def api_events(draw: st.DrawFn) -> bytes:
    """One event as the API sends it, or as something on the way may have left it."""
    name, end = draw(st.sampled_from(NAMES)), draw(ends)
    data = json.dumps({"type": name, **DATA.get(name, {})}, ensure_ascii=draw(st.booleans())).encode()
    lines = [
        b"event: " + name.encode(),
        *(b"data: " + line for line in data.split(b", ", draw(st.integers(0, 2)))),
    ]
    if draw(st.booleans()):
        lines.insert(
            draw(st.integers(0, 2)), draw(st.sampled_from([b": comment", b"id: 7", b"data", b"event", b"x"]))
        )
    return end.join([*lines, b"", b""])


pieces = st.one_of(
    api_events(),
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"data: 1", b"data:", b"event: a", b":", b" ", b"\xef\xbb\xbf", b"\xff"]
    ),
    st.binary(max_size=4),
)
streams = st.lists(pieces, max_size=8).map(b"".join)
starts = st.sampled_from([b"", b"\xef\xbb\xbf"])


@st.composite
def splits(draw: st.DrawFn) -> list[bytes]:
    """A stream in pieces, some of them empty."""
    stream = draw(starts) + draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]


def by_the_book(stream: bytes) -> list[Event]:
    """Read events as the standard words it: from the whole stream, one line after the other."""
    lines = (
        stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    )
    events, name, data = [], "", b""
    for line in lines:
        if not line:
            if data:
                events.append(Event(name, data.removesuffix(b"\n")))
            name, data = "", b""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value.decode(errors="replace")
    return events


def facts_of(chunks: list[bytes], *, is_stream: bool) -> tuple[list[Facts], str]:
    tap = Tap(is_stream=is_stream)
    for chunk in chunks:
        tap.feed(chunk)
    return [tap.facts, tap.finish()], tap.error_type


@given(splits())
def test_any_split_gives_the_events_of_the_standard(chunks: list[bytes]) -> None:
    reader = Events()

    assert by_the_book(b"".join(chunks)) == [event for chunk in chunks for event in reader.feed(chunk)]


@given(splits(), st.booleans())
def test_any_split_gives_the_same_facts(chunks: list[bytes], is_stream: bool) -> None:  # noqa: FBT001 - drawn
    assert facts_of([b"".join(chunks)], is_stream=is_stream) == facts_of(chunks, is_stream=is_stream)


@given(splits())
def test_a_stream_is_complete_exactly_when_its_last_event_came(chunks: list[bytes]) -> None:
    names = [event.name for event in by_the_book(b"".join(chunks)) if event.name.startswith("message_st")]
    ends_well = "message_stop" in names and names[-1] != "message_start"

    facts, _ = facts_of(chunks, is_stream=True)

    assert ends_well == facts[-1].is_complete


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=60)), max_size=4))
def test_no_data_makes_a_tap_fail(events: list[tuple[str, bytes]]) -> None:
    stream = b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), data) for name, data in events)
    before, after = facts_of([stream], is_stream=True)[0]

    assert before == after
