from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tomllib
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leastwise.errors import ConfigError
from leastwise.features import Features
from leastwise.ladder import DEFAULT_LADDER, Code, Ladder, Task, Tier
from leastwise.routing import Classifier, OwnType, Policy, Router, TypeTable, load_classifier
from leastwise.routing.classifier import Guess, Model, features_of
from leastwise.routing.types import Choice, blended, choose
from leastwise.routing.words import Scan

ROOT = Path(__file__).resolve().parents[2]
PACKED = files("leastwise").joinpath("data/types.bin").read_bytes()
VAGUE = "Grumpf zwirbel knotz"


def model(**changes: Any) -> Classifier:
    """Return a classifier of two types and three features, one of each kind."""
    given: dict[str, Any] = {
        "types": {"classify": "simple", "math": "complex"},
        "bias": [0.0, 0.0, -1.0],
        "step": 0.5,
        "damping": 0.0,
        "most_unknown": 0.5,
        "most_entropy": 0.9,
        "target": 0.9,
        "words": b"prove\nspam",
        "pairs": b"^ is",
        "shapes": b"question mark",
        #          classify, math, none
        "weights": bytes([126, 134, 128, 134, 126, 128, 129, 128, 128, 129, 127, 128]),
        "rarity": bytes([20, 20, 10, 5]),
    }
    return Classifier(zlib.compress(msgspec.msgpack.encode(Model(**{**given, **changes}))))


# --- what ships --------------------------------------------------------------------------------


def test_the_weights_are_those_that_the_provenance_describes() -> None:
    said = tomllib.loads(files("leastwise").joinpath("data/types-provenance.toml").read_text("utf-8"))

    assert (said["sha256"], said["bytes"]) == (hashlib.sha256(PACKED).hexdigest(), len(PACKED))
    assert len(PACKED) < 300_000
    assert {"Apache-2.0", "MIT", "CC-BY-3.0", "CC-BY-4.0"} == {
        licence for row in (*said["source"], *said["pasted"]) for licence in row["licence"].split(" AND ")
    }


def test_our_own_prompts_are_counted_in_the_provenance() -> None:
    said = tomllib.loads(files("leastwise").joinpath("data/types-provenance.toml").read_text("utf-8"))
    counts: dict[str, int] = {}
    texts = []
    for path in sorted((ROOT / "training" / "prompts").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            counts[row["type"]] = counts.get(row["type"], 0) + 1
            texts.append(row["text"])
    (own,) = [row for row in said["source"] if row["name"] == "own"]

    assert counts == {name: count for name, count in own.items() if name in counts}
    assert len(texts) == len(set(texts))
    assert {*load_classifier().types, "unclear"} == set(counts)


def test_none_of_the_100_prompts_with_a_tier_was_learned_from() -> None:
    tiers = (ROOT / "benchmarks" / "data" / "tiers.jsonl").read_text("utf-8").splitlines()
    learned = {
        json.loads(line)["text"]
        for path in (ROOT / "training" / "prompts").glob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    }

    assert 100 == len(tiers)
    assert set() == {json.loads(line)["text"] for line in tiers} & learned


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        ("Which of these is a mammal: shark or whale?", "classify"),
        ("List every date in the letter below.", "extract"),
        ("Put this table into YAML", "convert"),
        ("Good morning!", "chat"),
        ("Give me the gist of the minutes below", "summarise"),
        ("Please translate this to Spanish: the shop is closed.", "translate"),
        ("Rephrase this politely", "rewrite"),
        ("Write a poem about a lighthouse", "write"),
        ("Give me ten name ideas for a bakery", "brainstorm"),
        ("Why do leaves fall in autumn?", "question"),
        ("Write a Python function that parses a date", "code"),
        ("Prove that the sum of two even numbers is even", "math"),
        ("Design the architecture of a booking system and weigh the risks", "analyse"),
    ],
)
def test_types_of_plain_asks(ask: str, name: str) -> None:
    classifier = load_classifier()
    guess = classifier.guess(Scan(ask))

    assert name == list(classifier.types)[guess.shares.index(max(guess.shares))]


# --- the arithmetic ----------------------------------------------------------------------------


def test_pushes_add_up_to_the_shares() -> None:
    classifier = model()

    guess = classifier.guess(Scan("Is it spam?"))

    # is: +1; spam: +6 and -2; question mark: +1 and -1; by half, and -1 for none.
    scores = [0.5 * (6 + 1 + 1), 0.5 * (-2 - 1), -1.0]
    whole = sum(map(math.exp, scores))
    assert [pytest.approx(math.exp(score) / whole) for score in scores[:2]] == list(guess.shares)
    assert pytest.approx(2 / 3) == guess.unknown  # "is" and "it"
    assert [
        ("spam", {"classify": 3.0, "math": -1.0, "none": 0.0}),
        ("<any text>", {"classify": 0.0, "math": 0.0, "none": -1.0}),
        ("<question mark>", {"classify": 0.5, "math": -0.5, "none": 0.0}),
        ("first word: is", {"classify": 0.5, "math": 0.0, "none": 0.0}),
    ] == classifier.explain(Scan("Is it spam?"))


def test_a_long_text_counts_its_words_everywhere_and_its_pairs_at_both_ends() -> None:
    words = [f"w{number}" for number in range(60)]
    found = features_of(Scan(" ".join(words)))

    assert {word.encode() for word in words} <= set(found)
    assert {(b"^", b"w0"), (b"w22", b"w23"), (b"w44", b"w45"), (b"w58", b"w59")} <= set(found)
    assert set() == {(b"w23", b"w24"), (b"w23", b"w44"), (b"w43", b"w44")} & set(found)


def test_the_last_line_and_the_shape_are_features() -> None:
    found = set(features_of(Scan("Zürich 2024:\n- 17\n- 18\nSort these?")))

    assert {
        (b"$", b"sort"),
        "colon at the end of a line",
        "list",
        "lines 2",
        "digits 3",
        "not all ASCII",
        "question mark",
        "question mark at the end",
        "length 6",
    } <= found
    assert "mostly not ASCII" in features_of(Scan("Привет, как дела"))
    assert (b"$", b"42") not in features_of(Scan("what is it\n42 or not"))


def test_a_guess_is_clear_within_its_limits() -> None:
    classifier = model()
    unknown, spread = Guess((1.0, 0.0), 0.51, 0.0), Guess((0.5, 0.5), 0.5, 0.91)

    assert [True, False, False] == [
        classifier.is_clear(guess) for guess in (Guess((1.0, 0.0), 0.5, 0.9), unknown, spread)
    ]
    assert ["", "51% of the words are unknown (over 50%)", "spread over the types by 0.91 (over 0.90)"] == [
        classifier.why_unclear(guess) for guess in (Guess((1.0, 0.0), 0.5, 0.9), unknown, spread)
    ]


@pytest.mark.parametrize("text", ["", "?!", "\n", "\ud800", "ß" * 1000, "a\x00b", "1\n" * 400])
def test_any_text_gets_shares(text: str) -> None:
    guess = load_classifier().guess(Scan(text))

    assert 0.0 <= sum(guess.shares) <= 1.0 + 1e-9
    assert 0.0 <= guess.unknown <= 1.0
    assert isinstance(load_classifier().explain(Scan(text)), list)


# --- the table ---------------------------------------------------------------------------------


def test_a_table_begins_as_the_mapping_and_moves_slowly() -> None:
    needs = {"classify": "haiku", "write": "sonnet"}
    seen = {("write", "haiku"): (20, 1.0), ("write", "opus"): (5, 0.0)}
    table = TypeTable(("haiku", "sonnet", "opus"), needs, seen)

    assert [(1.0, 0.5), (1.0, 1.0), (1.0, 0.8)] == table.columns(("classify", "write"))
    assert 0.5 == table.quality("write", "haiku") == blended(0.0, 20, 1.0)


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ((0.95, 0.05, 0.0), Choice(0, 0.95)),
        ((0.5, 0.45, 0.05), Choice(1, 0.95)),
        ((0.1, 0.1, 0.8), Choice(2, 0.8)),
        ((0.4, 0.2, 0.4), None),  # sonnet would rather do than not
        ((0.1, 0.1, 0.1), None),  # probably no type of ours
    ],
)
def test_the_cheapest_tier_that_is_expected_to_do(shares: tuple[float, ...], chosen: Choice | None) -> None:
    columns = [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0)]
    found = choose(shares, columns, 0.9)

    assert (chosen is None) is (found is None)
    if chosen is not None and found is not None:
        assert chosen.rank == found.rank
        assert pytest.approx(chosen.quality) == found.quality


# --- in the router -----------------------------------------------------------------------------


def test_the_reason_names_the_type_and_how_sure() -> None:
    decision = Router().decide("Write a poem about a lighthouse")

    assert ("sonnet", "standard", "write", True) == (
        decision.tier,
        decision.complexity,
        decision.task_type,
        decision.is_sure,
    )
    assert "type: write (99% sure that sonnet does)" == decision.reason
    assert "type: math (99% sure that sonnet does not)" == Router().decide("Integrate x^2 by parts").reason


def test_a_description_is_weighed_instead_of_the_ask() -> None:
    decision = Router().decide("Prove that 2 is even", Task("write a short poem for the user"))

    assert ("write", "sonnet") == (decision.task_type, decision.tier)


def test_a_follow_up_inherits_the_type() -> None:
    turns = [
        {"role": "user", "content": "Write a poem about a lighthouse"},
        {"role": "assistant", "content": "Rhymed?"},
        {"role": "user", "content": "yes"},
    ]

    reason = Router().decide({"messages": turns}).reason

    assert "type: follow-up to write (99% sure that sonnet does)" == reason


def test_a_phrase_that_says_simple_is_dropped_where_the_whole_is_surely_complex() -> None:
    ask = "Write a Python function with unit tests; which category of bug does the stack trace show?"

    decision = Router().decide(ask)

    assert ("code", "opus") == (decision.task_type, decision.tier)
    assert "haiku" == Router(policy=Policy(learned=False)).decide(ask).tier


@pytest.mark.parametrize(
    ("ask", "description"),
    [
        ("Translate this Java method to Kotlin: `boolean isBlank(String s) { return s == null; }`", None),
        ("see the repository", "translate this Python code to Go, with tests"),
    ],
)
def test_so_is_one_that_says_standard_and_one_of_a_description(ask: str, description: str | None) -> None:
    task = Task(description)
    decision = Router().decide(ask, task)

    assert ("opus", "code") == (decision.tier, decision.task_type)
    assert "sonnet" == Router(policy=Policy(learned=False)).decide(ask, task).tier


def test_nothing_is_surely_simple_beside_a_phrase_of_doubt() -> None:
    plain = "yes or no: is the mail below about a refund?"
    router = Router()

    assert "haiku" == router.decide(plain).tier
    assert not router.decide(f"{plain} Derive it rigorously").is_sure
    found = router.teller.weigh(Features(fresh_ask=f"{plain} Derive it rigorously"))
    assert found is not None
    assert '"derive" asks for more thought than the rest' == found.unsure


@pytest.mark.parametrize("ask", ["Classify this: it rained all day", "Which of these is a bird: owl or cow?"])
def test_an_own_type_of_a_shipped_name_moves_phrases_and_guesses_alike(ask: str) -> None:
    examples = ("sort the fraud case", "is the fraud case grave", "which team gets the fraud case")
    own = Router(policy=Policy(types=(OwnType("classify", examples, tier="opus"),)))

    assert ("haiku", "opus") == (Router().decide(ask).tier, own.decide(ask).tier)
    assert "classify" == own.decide(ask).task_type


def test_phrases_only() -> None:
    router = Router(policy=Policy(learned=False))

    assert not router.decide("Write a poem about a lighthouse").is_sure
    assert router.teller.classifier is None
    assert router.teller.weigh(Features(fresh_ask="x")) is None
    assert Router().policy_hash != router.policy_hash


def test_the_reference_preset_does_not_weigh() -> None:
    router = Router(policy=Policy.reference())

    assert router.teller.classifier is None
    assert [Code.SIGNALS] == [each.code for each in router.decide("Write a poem about it").reasons]


def test_a_tier_that_stands_for_no_complexity_keeps_that_of_the_type() -> None:
    ladder = Ladder((*DEFAULT_LADDER.tiers, Tier("fable", "claude-fable-5-2")))
    policy = Policy(complexity={"simple": "haiku", "standard": "sonnet", "complex": "fable"})

    decision = Router(ladder, policy).decide("Prove that the sum of two even numbers is even")

    assert ("fable", "complex", "math") == (decision.tier, decision.complexity, decision.task_type)


def test_one_tier_does_everything() -> None:
    ladder = Ladder((Tier("only", "claude-opus-5-5"),))
    policy = Policy(complexity=dict.fromkeys(("simple", "standard", "complex"), "only"))

    assert "only" == Router(ladder, policy).decide("Write a poem about a lighthouse").tier


def test_what_is_weighed_is_told_in_full() -> None:
    router = Router()

    found = router.teller.weigh(Features(fresh_ask="Write a poem about a lighthouse"))
    vague = router.teller.weigh(Features(fresh_ask=VAGUE, description="the blue one or so, both"))
    strange = router.teller.weigh(Features(fresh_ask=VAGUE))

    assert found is not None
    assert vague is not None
    assert strange is not None
    assert ("ask", "write", "") == (found.text, next(iter(found.types)), found.unsure)
    assert list(found.types.values()) == sorted(found.types.values(), reverse=True)
    assert ["haiku", "sonnet", "opus"] == list(found.expected)
    assert "poem" in [feature for feature, _ in found.pushes]
    assert "description" == vague.text
    assert strange.unsure.startswith("100% of the words are unknown")
    assert {} == found.own


def test_the_pushes_and_probabilities_of_an_explanation_are_complete() -> None:
    found = Router().teller.weigh(Features(fresh_ask="Is the second one spam, or a poem?"))
    assert found is not None

    sums = {name: sum(push[name] for _, push in found.pushes) for name in found.types}
    whole = sum(map(math.exp, sums.values()))

    assert {*load_classifier().types, "none"} == set(found.types)
    assert {name: pytest.approx(math.exp(score) / whole) for name, score in sums.items()} == found.types


@pytest.mark.parametrize(
    ("ask", "unsure"),
    [
        ("Explain why our pods restart every night and what to do", "sonnet does with "),
        ("the second one", "opus does with "),
    ],
)
def test_between_the_limits_it_says_what_was_wanted(ask: str, unsure: str) -> None:
    found = Router().teller.weigh(Features(fresh_ask=ask))

    assert found is not None
    assert unsure == found.unsure[: len(unsure)]
    assert f"{load_classifier().target:.0%} is wanted" in found.unsure


def test_a_single_tier_that_is_not_expected_to_do_is_unsure() -> None:
    ladder = Ladder((Tier("only", "claude-opus-5-5"),))
    policy = Policy(complexity=dict.fromkeys(("simple", "standard", "complex"), "only"))

    found = Router(ladder, policy).teller.weigh(Features(fresh_ask="the second one"))

    assert found is not None
    assert found.unsure.startswith("only does with ")


def test_explanations_do_not_depend_on_the_process() -> None:
    code = (
        "from leastwise.routing import Router, Policy, OwnType;"
        "from leastwise.features import Features;"
        "own = OwnType('x', ('pay run for march', 'check the pay run', 'pay run: who?'), tier='opus');"
        "ask = 'Compare the pay run of march with that of april and tell me in a few words who is missing';"
        "print(Router(policy=Policy(types=(own,))).teller.weigh(Features(fresh_ask=ask)))"
    )

    told = {
        subprocess.run(  # noqa: S603 - our own interpreter and the code above
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert 1 == len(told)


# --- own types ---------------------------------------------------------------------------------

RETURNS = OwnType(
    "return slip",
    (
        "fill in the return slip for order 4711, the shoes are too small",
        "customer sends the lamp back, write the return slip",
        "return slip please: two mugs, broken on arrival",
        "make a return slip for the blue jacket, order 5522",
        "he wants to return the headphones, prepare the slip",
    ),
    complexity="simple",
)
DEEDS = OwnType(
    "land register",
    (
        "check the land register extract for open mortgages and easements",
        "does this land register entry allow building on parcel 12?",
        "compare both land register extracts and list easements that were deleted",
        "land register: who owns parcel 88 and which mortgages rest on it",
        "read the easement in the register and tell whether the path may be closed",
    ),
    tier="opus",
)
OWN = Router(policy=Policy(types=(RETURNS, DEEDS)))


@pytest.mark.parametrize(
    ("ask", "name", "tier"),
    [
        ("please write a return slip for order 9913, the vase came broken", "return slip", "haiku"),
        ("return slip for the red shoes", "return slip", "haiku"),
        ("which mortgages and easements are in the land register for parcel 7?", "land register", "opus"),
    ],
)
def test_an_ask_like_the_examples_is_of_that_type(ask: str, name: str, tier: str) -> None:
    decision = OWN.decide(ask)

    assert (name, tier, f"type: {name} (like its examples)") == (
        decision.task_type,
        decision.tier,
        decision.reason,
    )


@pytest.mark.parametrize(
    "ask",
    [
        "Is this spam? Win $1000 now!!!",
        "Write a poem about shoes",
        "please summarise the order of events",
        "What is the capital of Peru?",
        "prepare a speech for the mayor, he wants it short",
        "Compare both offers and tell which is better",
        "def total(order): return order.amount",
        "customer asks when the lamp will be back in stock",
        VAGUE,
        "",
    ],
)
def test_a_foreign_ask_is_of_no_own_type(ask: str) -> None:
    assert Router().decide(ask).task_type == OWN.decide(ask).task_type


def test_an_own_type_takes_a_description_and_beats_phrases() -> None:
    described = OWN.decide("lamp, order 12", Task("write the return slip for what the customer sends back"))

    assert "return slip" == described.task_type
    assert "return slip" == OWN.decide("write the return slip: summarize this for order 12, shoes").task_type


def test_how_near_an_ask_is_to_own_types_is_told() -> None:
    found = OWN.teller.weigh(Features(fresh_ask="return slip for the red shoes"))

    assert found is not None
    assert ["return slip", "land register"] == list(found.own)
    assert found.own["return slip"][0] >= found.own["return slip"][1]
    assert found.own["land register"][0] < found.own["land register"][1]


def test_own_types_work_without_the_classifier() -> None:
    router = Router(policy=Policy(learned=False, types=(RETURNS,)))

    assert "haiku" == router.decide("return slip for the red shoes").tier
    assert not router.decide("Write a poem about a lighthouse").is_sure


def test_the_hash_covers_own_types() -> None:
    assert (
        len({Router().policy_hash, OWN.policy_hash, Router(policy=Policy(types=(RETURNS,))).policy_hash}) == 3
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": " "}, "[[type]] name is empty"),
        ({"examples": ("a", "A ", "b")}, "give at least 3 different examples"),
        ({"complexity": None}, "give either complexity or tier"),
        ({"tier": "haiku"}, "give either complexity or tier"),
        ({"complexity": "hard"}, "complexity = 'hard': expected one of simple, standard, complex"),
    ],
)
def test_an_own_type_that_cannot_be_meant_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OwnType(**{"name": "x", "examples": ("a", "b", "c"), "complexity": "simple", **given})

    assert says in str(caught.value)


def test_two_own_types_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        Policy(types=(RETURNS, RETURNS))


def test_an_own_type_of_a_tier_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tier is named 'gold'"):
        Router(policy=Policy(types=(OwnType("x", ("a", "b", "c"), tier="gold"),)))
