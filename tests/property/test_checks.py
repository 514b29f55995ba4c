"""Checks never raise and never repeat an answer, keep their laws, and are never too quick to object."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from leastwise.cascade import BUILT_IN, Check, Unparsable, settle
from leastwise.cascade.checks import labels, language, length, regex
from leastwise.cascade.combine import all_of, first_of
from leastwise.cascade.shapes import schema_of
from leastwise.ladder import SAYS, Says, Verdict
from leastwise.messages import Reply, Request
from tests.kit import request

#: Stands in all of an answer's texts and names, and nowhere else.
MARK = "qzjx"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Rome"]}, "n": {"type": "integer", "maximum": 3}},
    "additionalProperties": {"type": "array", "items": {"type": "number"}},
    "propertyNames": {"maxLength": 8},
}
LOOK = {"name": "look", "input_schema": SCHEMA}
CHECKS: tuple[Check, ...] = (
    *BUILT_IN.values(),
    labels("spam", "not spam", "no. 1", "etc."),
    schema_of(SCHEMA),
    schema_of({"type": ["array", "string"]}),
    regex("a+b"),
    length(min_chars=2, max_chars=400),
    length(max_words=40),
    language("en"),
)
ALL = (*CHECKS, all_of(*CHECKS[:4]), first_of(*CHECKS), all_of(*CHECKS))

texts = st.text(max_size=8).map(lambda text: f"{text}{MARK}") | st.sampled_from(
    [f"Hello {MARK}", f"I'm sorry, but I can't help with that. {MARK}", f"```json\n[{MARK}]", "\ud800" + MARK]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["type", "text", "name", "input", "id", "thinking"])
kinds = st.sampled_from(["text", "tool_use", "thinking", "server_tool_use"])
blocks = st.fixed_dictionaries(
    {},
    optional={
        "type": kinds | values,
        "text": texts | values | values.map(json.dumps),
        "name": st.just("look") | texts | values,
        "input": st.fixed_dictionaries({}, optional={"city": texts, "n": values}) | values,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": st.lists(blocks | values, max_size=3) | texts | values,
        "stop_reason": st.sampled_from(["end_turn", "max_tokens", "refusal"]) | texts | values,
    },
)
members = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.just([LOOK]) | values,
        "output_config": st.just({"format": {"type": "json_schema", "schema": SCHEMA}})
        | st.fixed_dictionaries(
            {"format": st.fixed_dictionaries({"type": st.just("json_schema"), "schema": values})}
        )
        | values,
        "output_format": st.fixed_dictionaries({"type": st.just("json_schema"), "schema": values}) | values,
    },
)


@given(members, messages)
def test_no_answer_makes_a_check_raise_or_is_repeated(
    given_members: dict[str, Any], message: dict[str, Any]
) -> None:
    asked, reply = request(**given_members), Reply("payload", message=message)
    for check in ALL:
        verdict = check.ask(asked, reply)
        assert verdict is None or (check.name == verdict.check and verdict.says in SAYS)
        assert verdict is None or MARK not in verdict.words
        assert check.glance is not None
        objection = check.glance(asked, reply.text)
        assert objection is None or MARK not in objection.words


# --- first words

sentences = st.sampled_from(
    [
        "The report is due on Friday, and nobody has started to write it yet. ",
        "Der Bericht ist am Freitag fällig, und niemand hat bisher damit angefangen. ",
        "I'm sorry, but I can't help with that. ",
        "I can't help with the first part. ",
        "```python\nfor the item in the list: pass\n```\n",
    ]
)
answers = (
    st.sampled_from(
        ["spam", " Not spam.\n", "NO. 1", "no. 1. ", "etc", "etc.", '"x"', "[1, 2]", "aaab", "ab " * 39]
    )
    | st.fixed_dictionaries({}, optional={"city": st.just("Bern"), "x": st.lists(st.integers())}).map(
        json.dumps
    )
    | st.lists(sentences, max_size=8).map("".join)
    | st.text(st.sampled_from('ab.{[" `\n'), max_size=20)
).flatmap(lambda text: st.sampled_from([text, f" \n{text}\n", f"```json\n{text}\n```"]))
asks = st.sampled_from(
    [
        request(),
        request(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
        request(messages=[{"role": "user", "content": "Go."}, {"role": "assistant", "content": "["}]),
    ]
)


@given(asks, answers, st.integers(0, 1000))
@example(request(), "no. 1", 3)
@example(request(), "I'm sorry, but I can't help with that. " * 9, 39)
def test_first_words_are_never_rejected_of_an_answer_that_is_accepted(
    asked: Request, text: str, end: int
) -> None:
    reply = Reply("payload", message={"content": text, "stop_reason": "end_turn"})
    for check in ALL:
        verdict = check.ask(asked, reply)
        assert check.glance is not None
        if verdict is not None and verdict.says == "accept":
            assert check.glance(asked, text[:end]) is None, check.name


# --- laws of combinations

words = st.lists(st.none() | st.sampled_from(SAYS), min_size=1, max_size=5)
blames = st.lists(st.booleans(), min_size=5, max_size=5)


def saying(place: int, says: Says | None, *, blames: bool = True) -> Check:
    verdict = None if says is None else Verdict(str(place), says, "", cost_nusd=2**place, blames=blames)
    return Check(str(place), lambda *_: verdict)


def heard(check: Check) -> Verdict | None:
    verdict: Verdict | None = check.ask(request(), Reply("payload"))
    return verdict


def says_of(check: Check) -> Says | None:
    verdict = heard(check)
    return verdict.says if verdict is not None else None


@given(words)
def test_all_of_and_first_of_keep_their_laws(said: list[Says | None]) -> None:
    parts = [saying(place, says) for place, says in enumerate(said)]
    known = [says for says in said if says is not None]
    every, first = says_of(all_of(*parts)), says_of(first_of(*parts))

    assert every == next((says for says in ("escalate", "abstain", "accept") if says in known), None)
    assert first == next((says for says in known if says != "abstain"), "abstain" if known else None)


@given(words, blames, st.sampled_from(["accept", "escalate"]))
def test_all_of_settles_as_its_parts_do(
    said: list[Says | None], blamed: list[bool], unparsable: Unparsable
) -> None:
    parts = [saying(place, says, blames=blamed[place]) for place, says in enumerate(said)]

    assert settle(map(heard, parts), unparsable) == settle([heard(all_of(*parts))], unparsable)


@given(words, st.integers(0, 5))
def test_it_does_not_matter_how_checks_are_grouped(said: list[Says | None], at: int) -> None:
    parts = [saying(place, says) for place, says in enumerate(said)]
    groups = [group for group in (parts[:at], parts[at:]) if group]

    for combine in (all_of, first_of):
        assert says_of(combine(*parts)) == says_of(combine(*(combine(*group) for group in groups)))


@given(words)
def test_only_what_was_asked_costs(said: list[Says | None]) -> None:
    parts = [saying(place, says) for place, says in enumerate(said)]
    verdict = heard(all_of(*parts))
    last = said.index("escalate") if "escalate" in said else len(said)
    asked = sum(2**place for place, says in enumerate(said) if says is not None and place <= last)

    assert asked == (verdict.cost_nusd if verdict is not None else 0)
