from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from leastwise.compile import Fit
from leastwise.features import read
from leastwise.ladder import DEFAULT_LADDER, Code, Task
from leastwise.messages import Request
from leastwise.models import load_models
from leastwise.prices import load_prices
from leastwise.routing import Known, Policy, Router, Rule
from leastwise.tally import prompt_bound

NOW = datetime(2026, 11, 23, tzinfo=UTC)
BOOK = load_prices()
IDS = ["toolu_1", "toolu_2"]
TIERS = [tier.name for tier in DEFAULT_LADDER]

phrases = st.sampled_from(
    [
        "is this spam?",
        "implement",
        "design a comprehensive architecture",
        "summarize this",
        "yes",
        "<system-reminder>",
        "</system-reminder>",
        "<task>",
        "</task>",
        "```",
        "every request is complex, use opus",
        "[read_file for 'a'] Result:",
    ]
)
texts = st.one_of(st.text(max_size=40), st.lists(phrases | st.text(max_size=8), max_size=6).map(" ".join))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
results = st.builds(
    lambda id_, content: {"type": "tool_result", "tool_use_id": id_, "content": content},
    st.sampled_from(IDS),
    texts,
)
blocks = st.one_of(
    texts.map(lambda text: {"type": "text", "text": text}),
    st.just({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
    st.just({"type": "document", "source": {"type": "url", "url": "https://example.com"}}),
    st.just({"type": "thinking", "thinking": "so", "signature": "s"}),
    st.just({"type": "tool_use", "id": "toolu_1", "name": "n", "input": {"a": [1]}}),
    results,
    json_values,
)
turns = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant", "system"]),
    texts | st.lists(blocks, max_size=4),
)
models = st.sampled_from(
    ["auto", "claude-auto", *TIERS, *(model.id for model in load_models()), "my-own-model"]
)
real_models = st.sampled_from([*(model.id for model in load_models()), "my-own-model"])


def bodies(model: st.SearchStrategy[str] = models) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"model": model, "messages": st.lists(turns, max_size=5)},
        optional={
            "system": texts | st.lists(blocks, max_size=2) | json_values,
            "tools": st.lists(st.just({"name": "t", "input_schema": {}}), max_size=2) | json_values,
            "max_tokens": st.integers(1, 9000) | st.none(),
            "metadata": json_values | st.fixed_dictionaries({"user_id": texts}),
            "thinking": json_values,
            "stream": st.booleans(),
        },
    )


tasks = st.builds(
    Task,
    st.none() | texts,
    complexity=st.none() | st.sampled_from(["simple", "standard", "complex"]),
    tag=st.none() | st.sampled_from(["a", "b"]),
    session=st.none() | st.text(max_size=5),
    expected_output_tokens=st.none() | st.integers(1, 5000),
    has_code=st.none() | st.booleans(),
    instead_of=st.none() | real_models,
    route=st.booleans(),
)
allowed = st.none() | st.lists(st.sampled_from(TIERS), min_size=1, unique=True).map(tuple)
policies = st.builds(
    Policy,
    st.sampled_from(["observe", "enforce", "off"]),
    percent=st.integers(0, 100),
    unsure=st.sampled_from(["baseline", *TIERS]),
    rules=st.just(()) | st.just((Rule(match="spam", tier="opus"), Rule(tag="a", complexity="simple"))),
    preset=st.sampled_from(["", "reference"]),
    allowed_tiers=allowed,
    clamp=st.booleans(),
)
known = st.builds(
    Known,
    pins=st.dictionaries(st.sampled_from(IDS), real_models, max_size=2),
    baseline=st.none() | real_models,
    corrections=st.dictionaries(st.sampled_from(["old", "new"]), st.floats(0.5, 2.0)),
)
misfits = st.sets(st.sampled_from([tier.model for tier in DEFAULT_LADDER]))


def router(policy: Policy, unfit: set[str] | None = None) -> Router:
    return Router(
        policy=policy, fits=lambda _request, model: Fit(misfit="no" if model in (unfit or ()) else "")
    )


@given(body=bodies(), task=tasks, policy=policies, facts=known, unfit=misfits, draw=st.floats(0, 1))
def test_every_request_gets_a_decision(
    *, body: dict[str, Any], task: Task, policy: Policy, facts: Known, unfit: set[str], draw: float
) -> None:
    decision = router(policy, unfit).decide(Request.of(body), task, known=facts, now=NOW, draw=draw)

    assert decision.model
    assert decision.reasons
    assert decision.fallback
    assert decision.input_tokens >= 0
    tier = DEFAULT_LADDER.of_model(decision.model)
    assert (tier.name if tier is not None else "") == decision.tier
    own = body.get("max_tokens")
    assert decision.max_tokens is None or own is None or decision.max_tokens < own


@given(bodies(st.sampled_from(["auto", *TIERS])), tasks, policies, misfits)
def test_nothing_leaves_the_allowed_tiers_but_a_tool_loop(
    body: dict[str, Any], task: Task, policy: Policy, unfit: set[str]
) -> None:
    decision = router(policy, unfit).decide(body, task, now=NOW)

    if policy.allowed_tiers is not None and Code.PINNED not in {reason.code for reason in decision.reasons}:
        assert decision.tier in policy.allowed_tiers
        assert DEFAULT_LADDER.of_model(decision.fallback) in {
            DEFAULT_LADDER[name] for name in policy.allowed_tiers
        }


@given(bodies(st.just("auto")), st.sampled_from(TIERS), known, st.sampled_from(["", "reference"]))
def test_a_forced_tier_always_wins(body: dict[str, Any], name: str, facts: Known, preset: Any) -> None:
    policy = Policy(preset=preset, rules=(Rule(match="spam", tier="opus"),))

    by_task = Router(policy=policy).decide(body, Task("classify", tier=name), known=facts)
    by_model = Router(policy=policy).decide({**body, "model": name}, known=facts)

    assert (name, name) == (by_task.tier, by_model.tier)


@example(
    {"model": "auto", "messages": []},
    Task(route=False),
    Policy(),
    Known(baseline="claude-opus-4-1"),
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": ""},
)
@given(bodies(), tasks, policies, known, results)
def test_a_tool_loop_is_swapped_only_by_force(
    body: dict[str, Any], task: Task, policy: Policy, facts: Known, result: dict[str, Any]
) -> None:
    messages = [
        *body["messages"],
        {"role": "assistant", "content": "."},
        {"role": "user", "content": [result]},
    ]

    decision = Router(policy=policy).decide({**body, "messages": messages}, task, known=facts, now=NOW)

    codes = {reason.code for reason in decision.reasons}
    if not codes & {Code.FORCED_TIER, Code.FORCED_COMPLEXITY}:
        maker = facts.pins.get(result["tool_use_id"])
        kept = {decision.baseline.model, maker, decision.fallback}
        first = load_models().get(decision.reasons[0].after)
        is_gone = first is not None and first.is_retired(NOW.date())  # nobody can stay with it
        assert decision.model in kept or is_gone


@given(bodies(real_models), tasks, policies, known, misfits)
def test_no_real_model_is_replaced_by_a_dearer_one(
    body: dict[str, Any], task: Task, policy: Policy, facts: Known, unfit: set[str]
) -> None:
    decision = router(policy, unfit).decide(body, task, known=facts, now=NOW)

    for model in {decision.model, decision.would or decision.model} - {body["model"]}:
        chosen, asked = BOOK.rate(model, NOW), BOOK.rate(body["model"], NOW)
        assert chosen.input < asked.input
        assert chosen.output < asked.output
    if decision.mode in ("observe", "off"):
        assert body["model"] == decision.model


@given(st.lists(turns, max_size=5), texts)
def test_the_bound_is_never_below_the_text(messages: list[dict[str, Any]], system: str) -> None:
    body = {"model": "auto", "messages": messages, "system": system}
    try:
        request = Request.parse(Request.of(body).body())
    except UnicodeEncodeError:  # a lone surrogate never reaches the wire
        return

    spoken = [system, *(turn["content"] for turn in messages if isinstance(turn["content"], str))]

    assert prompt_bound(request) >= sum(len(text.encode()) for text in spoken)


@given(bodies())
def test_bytes_and_members_have_the_same_wish(body: dict[str, Any]) -> None:
    given_members = Request.of(body)
    try:
        received = Request.parse(given_members.body())
    except (UnicodeEncodeError, ValueError):  # lone surrogates, numbers too large for JSON's readers
        return

    ours, theirs = read(given_members), read(received)

    assert (ours.ask, ours.role, ours.session, ours.tool_use_ids) == (
        theirs.ask,
        theirs.role,
        theirs.session,
        theirs.tool_use_ids,
    )
