"""Trials: a fair judge's word does not depend on which answer comes first; comparisons are fair."""

from __future__ import annotations

import json
import random
import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leastwise.cascade.trials import OpenTrial, Pairs, added, compared
from leastwise.ladder import DEFAULT_LADDER
from leastwise.messages import Facts, Reply
from leastwise.routing import Known
from leastwise.steps import Load, Send
from leastwise.trial import Pair, try_pair
from tests.kit import HAIKU, NOW, OPUS, call, request, terms

TRIAL = OpenTrial("T1", "mail", "haiku", HAIKU, "judge", "", 500, 3 * 10**9, NOW)
texts = st.text(min_size=1).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reply(text: str, model: str) -> Reply:
    told: dict[str, Any] = {
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }
    return Reply(told, Facts.read(told), message=told)


def tried(measure: str, own: str, how: str = "judge", *, seed: int = 0) -> Pairs:
    """Return what a pair comes to, before a judge who finds the longer text better."""
    trial = OpenTrial("T1", "mail", "haiku", HAIKU, how, "", 500, 3 * 10**9, NOW)
    made, tier = terms(rng=random.Random(seed)), DEFAULT_LADDER["haiku"]
    steps = try_pair(Pair(trial, call(request(OPUS)), made, reply(measure, OPUS), tier, tier))
    asked = 0
    try:
        step = next(steps)
        while True:
            answer: object = Known() if isinstance(step, Load) else None
            if isinstance(step, Send):
                asked += 1
                answer = reply(own, HAIKU) if asked == 1 else reply(judged(step), OPUS)
            step = steps.send(answer)
    except StopIteration as stop:
        found: Pairs = stop.value.reply.payload
        return found


def judged(step: Send) -> str:
    data = json.loads(step.request.messages[0]["content"])
    first, second = len(data["first"]), len(data["second"])
    better = "same" if first == second else "first" if first > second else "second"
    return json.dumps({"better": better})


@given(texts, texts)
def test_which_answer_comes_first_does_not_matter_to_a_fair_judge(measure: str, own: str) -> None:
    found = {tried(measure, own, seed=seed).agreed for seed in range(6)}

    is_same = " ".join(unicodedata.normalize("NFC", own).split()) == " ".join(
        unicodedata.normalize("NFC", measure).split()
    )
    assert {int(is_same or len(own) >= len(measure))} == found


@given(values, st.randoms())
def test_json_agrees_with_itself_however_it_is_spelt(value: Any, rng: random.Random) -> None:
    def shuffled(inner: Any) -> Any:
        if isinstance(inner, dict):
            names = list(inner)
            rng.shuffle(names)
            return {name: shuffled(inner[name]) for name in names}
        return [shuffled(one) for one in inner] if isinstance(inner, list) else inner

    spelt = f"```json\n{json.dumps(shuffled(value), indent=2, ensure_ascii=False)}\n```"
    assert 1 == tried(json.dumps(value), spelt, "json").agreed
    assert 0 == tried(json.dumps([value]), spelt, "json").agreed


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["exact", "json", "did not fit"]), st.sampled_from(["", OPUS]), st.booleans()
        )
    )
)
def test_sums_do_not_depend_on_the_order(all_of_them: list[tuple[str, str, bool]]) -> None:
    sums: list[Pairs] = []
    back: list[Pairs] = []
    made = [Pairs(how, against, agreed=int(agreed), spent_nusd=3) for how, against, agreed in all_of_them]
    for one in made:
        sums = added(sums, one)
    for one in reversed(made):
        back = added(back, one)

    assert sums == back
    assert 3 * len(made) == compared(sums).spent_nusd
    assert sum(against != "" for _, against, _ in all_of_them) == compared(sums).n
