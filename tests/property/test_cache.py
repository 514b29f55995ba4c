"""The cache's key: equal for what must be answered alike, and for nothing else."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leastwise.cache import key_of, normalised
from leastwise.ladder import Task
from leastwise.messages import Request

#: Values in spellings that a parser would take for one another.
SPELLINGS = [
    b"1",
    b"1.0",
    b"1e0",
    b"-0",
    b"0",
    b"12345678901234567890123",
    b"12345678901234567890124",
    b'"A"',
    b'"\\u0041"',
    b'"a"',
    b'"A "',
    '"é"'.encode(),
    '"e\u0301"'.encode(),
    b"[1,2]",
    b"[1, 2]",
    b"[2,1]",
    b'{"a":1,"b":2}',
    b'{"b":2,"a":1}',
    b'{"a":1,"a":2}',
    b"null",
    b'"null"',
    b"[]",
    b"{}",
]
TURNS = [
    b'[{"role":"user","content":"Is this spam?"}]',
    b'[{"role": "user", "content": "Is this spam?"}]',
    b'[{"content":"Is this spam?","role":"user"}]',
    b'[{"role":"user","content":"Is this spam? "}]',
    b'[{"role":"user","content":[{"type":"text","text":"Is this spam?"}]}]',
]
MODELS = [b'"auto"', b'"haiku"', b'"claude-haiku-5-5"', b'"claude-opus-5-5"']

words = st.sampled_from(["", "a", "b", "ab", "\ud800"])


@dataclass(frozen=True)
class Ask:
    """Everything that an answer may depend on."""

    tenant: str
    origin: str
    endpoint: str
    version: str
    betas: tuple[str, ...]
    policy: str
    description: str | None
    tag: str | None
    header: str | None
    members: tuple[tuple[str, bytes], ...]

    def means(self) -> object:
        """Return the same for two requests that may have one answer."""
        return replace(self, betas=tuple(sorted(self.betas)), members=tuple(sorted(self.members)))

    def body(self, space: bytes = b"") -> bytes:
        pairs = (b'"' + name.encode() + b'":' + space + value for name, value in self.members)
        return b"{" + space + (b"," + space).join(pairs) + space + b"}"

    def key(self, space: bytes = b"") -> str:
        return key_of(
            Request.parse(self.body(space), endpoint=self.endpoint, version=self.version, betas=self.betas),
            Task(self.description, tag=self.tag),
            tenant=self.tenant,
            origin=self.origin,
            policy_hash=self.policy,
            headers={} if self.header is None else {"x-team": self.header},
            named=("x-team",),
        )


others = st.dictionaries(
    st.sampled_from(["system", "temperature", "x", "y"]), st.sampled_from(SPELLINGS), max_size=3
)


@st.composite
def members(draw: st.DrawFn) -> tuple[tuple[str, bytes], ...]:
    named = {"model": draw(st.sampled_from(MODELS)), "messages": draw(st.sampled_from(TURNS)), **draw(others)}
    return tuple(draw(st.permutations(list(named.items()))))


PARTS: dict[str, st.SearchStrategy[Any]] = {
    "tenant": words,
    "origin": words,
    "endpoint": words,
    "version": words,
    "betas": st.lists(words, max_size=3).map(tuple),
    "policy": words,
    "description": st.none() | words,
    "tag": st.none() | words,
    "header": st.none() | words,
    "members": members(),
}
asks = st.builds(Ask, **PARTS)


@given(asks, asks)
def test_two_requests_have_one_key_only_if_they_mean_the_same(one: Ask, other: Ask) -> None:
    assert (one.means() == other.means()) == (one.key() == other.key())


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
def test_each_part_that_differs_changes_the_key(part: str, data: st.DataObject) -> None:
    one = data.draw(asks)
    other = replace(one, **{part: data.draw(PARTS[part])})

    assert (one.means() == other.means()) == (one.key() == other.key())


@given(asks, st.data())
def test_one_value_in_another_spelling_changes_the_key(ask: Ask, data: st.DataObject) -> None:
    (name, value), *rest = ask.members
    pool = {"model": MODELS, "messages": TURNS}.get(name, SPELLINGS)
    other = data.draw(st.sampled_from([spelling for spelling in pool if spelling != value]))

    assert ask.key() != replace(ask, members=((name, other), *rest)).key()


@given(asks, st.data(), st.sampled_from([b"", b" ", b"\n\t"]))
def test_the_order_of_top_level_names_and_space_between_them_do_not(
    ask: Ask, data: st.DataObject, space: bytes
) -> None:
    ordered = data.draw(st.permutations(ask.members))

    assert ask.key() == replace(ask, members=tuple(ordered)).key(space)


@pytest.mark.parametrize(
    ("told", "is_part"),
    [
        ({"description": "classify"}, True),
        ({"complexity": "simple"}, True),
        ({"tier": "haiku"}, True),
        ({"tag": "mail"}, True),
        ({"expected_output_tokens": 5}, True),
        ({"expected_output_words": 5}, True),
        ({"has_code": False}, True),
        ({"has_tools": True}, True),
        ({"route": False}, True),
        ({"critical": True}, True),
        ({"session": "s"}, False),
        ({"instead_of": "claude-opus-5-5"}, True),
        ({"cache": True}, False),
    ],
)
def test_what_the_caller_tells_is_part_of_the_key_where_it_may_change_the_answer(
    told: dict[str, Any], *, is_part: bool
) -> None:
    request = Request.of({"model": "auto", "messages": []})
    plain, other = (
        key_of(request, task, tenant="t", policy_hash="p", headers={}) for task in (Task(), Task(**told))
    )

    assert is_part == (plain != other)


def test_headers_that_no_rule_looks_at_are_no_part_of_the_key() -> None:
    request = Request.of({"model": "auto", "messages": []})
    keys = {
        key_of(request, Task(), tenant="t", policy_hash="p", headers=headers, named=("x-team",))
        for headers in ({"x-team": "a"}, {"x-team": "a", "authorization": "b"})
    }

    assert 1 == len(keys)


@given(st.text())
@example("\u00b4\u00a0\u0301 x \u3000")
@example("\ufdfa")
def test_normalised_text_has_single_spaces_and_one_spelling(text: str) -> None:
    found = normalised(text)

    assert found == " ".join(unicodedata.normalize("NFKC", text).split())
    assert found == normalised(found)
    assert not re.search(r"^\s|\s\s|\s$", found)
    assert found == normalised(f" \n{unicodedata.normalize('NFD', text)}\t ")
