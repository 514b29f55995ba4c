from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import assume, example, given
from hypothesis import strategies as st

from leastwise.errors import RequestError
from leastwise.messages import Facts, Request, Usage

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
turns = st.lists(
    st.fixed_dictionaries({"role": texts, "content": texts | st.lists(values, max_size=2)}), max_size=3
)
others = st.lists(st.tuples(texts, values), max_size=5, unique_by=lambda member: member[0])
spaces = st.sampled_from([b"", b" ", b"\n  ", b"\t\r\n"])


@st.composite
def members(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Names and values of a request as somebody might write them: order, escapes and spaces are theirs."""
    named: dict[str, Any] = dict(draw(others))
    named |= {"model": draw(texts), "messages": draw(turns)}
    order = draw(st.permutations(list(named)))
    written = []
    for name in order:
        ascii_only, separators = draw(st.booleans()), draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        value = json.dumps(named[name], ensure_ascii=ascii_only, separators=separators, allow_nan=False)
        written.append((json.dumps(name, ensure_ascii=draw(st.booleans())).encode(), value.encode()))
    return written


def put_together(pairs: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    inner = (space + b"," + space).join(name + space + b":" + space + value for name, value in pairs)
    return space + b"{" + inner + b"}" + space


def spans(body: bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


@given(members(), spaces)
def test_an_untouched_request_is_byte_for_byte_what_was_received(
    pairs: list[tuple[bytes, bytes]], space: bytes
) -> None:
    body = put_together(pairs, space)
    request = Request.parse(body)
    read = {name: request.get(name) for name in request}

    assert body == request.body()
    assert json.loads(body) == read


@given(members(), spaces, st.dictionaries(texts | st.just("model"), values, min_size=1, max_size=3))
def test_a_changed_request_keeps_the_bytes_of_every_other_value_and_the_order(
    pairs: list[tuple[bytes, bytes]], space: bytes, changes: dict[str, Any]
) -> None:
    request = Request.parse(put_together(pairs, space))
    before, after = (
        {json.loads(name): value for name, value in pairs},
        spans(request.replace(**changes).body()),
    )

    assert [*before, *(name for name in changes if name not in before)] == list(after)
    assert {name: value for name, value in before.items() if name not in changes} == {
        name: value for name, value in after.items() if name not in changes
    }
    assert changes == {name: json.loads(after[name]) for name in changes}
    assert changes == dict(request.replace(**changes).changes)


def escaped(name: str) -> bytes:
    """Write a name with nothing but escapes, as JSON allows."""
    units = name.encode("utf-16-be").hex()
    return b'"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)).encode() + b'"'


@given(members(), spaces, st.data())
def test_a_name_that_occurs_twice_is_refused_however_it_is_written(
    pairs: list[tuple[bytes, bytes]], space: bytes, data: st.DataObject
) -> None:
    name, value = data.draw(st.sampled_from(pairs))
    again = data.draw(st.sampled_from([name, escaped(json.loads(name))]))
    place = data.draw(st.integers(0, len(pairs)))
    body = put_together([*pairs[:place], (again, value), *pairs[place:]], space)

    try:
        Request.parse(body)
    except RequestError as error:
        refused = str(error)
    else:
        refused = ""
    assert f"the top-level name {json.loads(name)!r} occurs twice; send it once" == refused


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"model":"a","messages":[],"x":' + b"9" * 5000 + b"}")
@example(b'{"model":' + b"9" * 5000 + b',"messages":[]}')
@example(b'{"model":"a","messages":[],"x":1.9e308}')
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(RequestError):
        assert body == Request.parse(body).body()


@given(members(), st.data())
def test_a_damaged_request_is_read_or_refused(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    body = bytearray(put_together(pairs, b" "))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        assume(body)
    with suppress(RequestError):
        request = Request.parse(bytes(body))

        assert bytes(body) == request.body()
        assert list(spans(bytes(body))) == list(request)  # names alone: a damaged number may be out of range


counts = st.integers(-5, 10**10) | values
names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
reports = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(names, counts),
        "cache_creation": values
        | st.dictionaries(
            st.sampled_from(["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]), counts
        ),
        "output_tokens_details": values | st.fixed_dictionaries({"thinking_tokens": counts}),
        "server_tool_use": values | st.fixed_dictionaries({"web_search_requests": counts}),
        "service_tier": values,
        "iterations": values | st.lists(st.dictionaries(st.sampled_from([*names, "model", "type"]), counts)),
    },
)


@given(values | reports)
def test_any_usage_is_read_as_counts_from_zero(report: Any) -> None:
    usage = Usage.read(report)

    numbers = [getattr(usage, name) for name in Usage.__slots__ if isinstance(getattr(usage, name), int)]
    assert 7 == len(numbers)
    assert min(numbers) >= 0
    assert usage == Usage.read(report)


@given(reports, reports)
def test_a_report_said_twice_is_said_once(first: dict[str, Any], later: dict[str, Any]) -> None:
    merged = Usage.read(first).merge(later)

    assert merged == merged.merge(later)
    assert merged == merged.merge({}) == merged.merge(dict.fromkeys(later))


@given(st.dictionaries(st.sampled_from(["model", "id", "content", "usage", "stop_reason"]), values))
def test_any_answer_is_read(message: dict[str, Any]) -> None:
    assert Facts.read(message).is_complete
