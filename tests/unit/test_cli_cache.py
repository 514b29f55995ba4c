"""`leastwise cache`: what is printed, what is forgotten, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import open_cache, open_store
from leastwise.cache import Stored
from leastwise.cli import main
from leastwise.config import load
from leastwise.money import NUSD_PER_USD as USD
from leastwise.steps import Record
from leastwise.stores import CacheStore
from tests.paid import row

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("home")

KEYS = tuple(f"{digit}" * 64 for digit in "abc")
STREAM = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"not "}}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"spam"}}\n\n'
)


def stored(**changes: Any) -> Stored:
    made = Stored(
        body=b'{"content":[{"type":"thinking","thinking":"..."},{"type":"text","text":"spam"}]}',
        is_stream=False,
        model="claude-haiku-5-5",
        tier="haiku",
        upstream="anthropic",
        exchange="X1",
        request_id="req_1",
        tag="triage",
        at=time.time() - 7_200,
    )
    return replace(made, **changes)


@contextmanager
def opened() -> Iterator[CacheStore]:
    """Open the cache that the commands will find."""
    with closing(open_cache(load())) as cache:
        yield cache


@pytest.fixture
def kept(home: Path) -> Path:
    """Keep an answer for each of three requests, one of them past its time."""
    with opened() as cache:
        cache.save(KEYS[0], stored())
        cache.save(KEYS[1], stored(body=STREAM, is_stream=True, tag="", tier="", request_id=""))
        cache.save(KEYS[2], stored(at=time.time() - 90_000))
    return home


def looked_up() -> None:
    """Have three hits and two misses in the ledger."""
    with closing(open_store(load())) as store:
        for number in range(5):
            is_hit = number < 3
            facts: dict[str, Any] = {"saved_nusd": USD // 4, "cache": "hit"} if is_hit else {"cache": "miss"}
            made = row(id=f"X{number}", at=time.time(), tag="triage", result="ok", **facts)
            store.write(Record(made), may_wait=True)


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["cache", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def told(capsys: Capture, *words: str) -> dict[str, Any]:
    """Run a command with --json and return what it printed."""
    code, out, _ = run(capsys, *words, "--json")
    value: dict[str, Any] = json.loads(out, parse_float=Decimal)
    assert (0, 1) == (code, value["schema"])
    return value


def test_where_nothing_was_kept_nothing_is_made(capsys: Capture, home: Path) -> None:
    code, out, err = run(capsys, "stats")

    assert (0, "next   leastwise cache list\n") == (code, err)
    assert "kept         0 answers, 0.0 of 512 MB" == out.splitlines()[0]
    assert "none yet; a request looks with Task(cache=True)" in out
    assert (0, "no answer is kept\n") == run(capsys, "list")[:2]
    assert (0, "0 answers forgotten\n") == run(capsys, "clear")[:2]
    assert (0, "0 answers forgotten\n") == run(capsys, "prune")[:2]
    assert [] == list((home / "state").rglob("*"))


@pytest.mark.usefixtures("kept")
def test_a_tag_without_answers_is_named(capsys: Capture) -> None:
    assert "no answer of tag nope is kept\n" == run(capsys, "list", "--tag", "nope")[1]


@pytest.mark.usefixtures("kept")
def test_stats_tell_what_was_saved_by_tag(capsys: Capture) -> None:
    looked_up()

    _, out, _ = run(capsys, "stats")
    lines = out.splitlines()

    assert 80 >= max(map(len, lines[:-1]))  # the last is a path
    assert "look-ups     3 of 5 answered (60.0%), saved $0.75" == lines[1]
    assert ["tag     look-ups  hits  hit rate  saved", "triage         5     3     60.0%  $0.75"] == lines[
        2:4
    ]


@pytest.mark.usefixtures("kept")
def test_stats_for_machines_have_the_references_names(capsys: Capture) -> None:
    looked_up()

    value = told(capsys, "stats")

    sums = {
        "total_hits": 3,
        "total_misses": 2,
        "hit_rate": Decimal("0.6"),
        "calls_saved": 3,
        "saved_usd": Decimal("0.75"),
    }
    assert {"entries": 3, **sums} == {name: value[name] for name in ("entries", *sums)}
    assert [{"tag": "triage", **sums}] == value["by_tag"]
    assert value["size_bytes"] > 0
    assert value["store"].endswith("leastwise-cache.db")


@pytest.mark.usefixtures("kept")
def test_answers_are_listed_without_their_text(capsys: Capture) -> None:
    code, out, err = run(capsys, "list")
    lines = out.splitlines()

    assert (0, "next   leastwise cache show KEY\n") == (code, err)
    assert "key            age  hits   kB  model             tag" == lines[0]
    assert {"aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"} == {line.split()[0] for line in lines[1:]}
    assert "spam" not in out
    assert ["triage", "triage"] == [one["tag"] for one in told(capsys, "list", "--tag", "triage")["answers"]]
    assert 1 == len(told(capsys, "list", "--limit", "1")["answers"])


@pytest.mark.usefixtures("kept")
def test_one_answer_tells_where_it_came_from(capsys: Capture) -> None:
    code, out, err = run(capsys, "show", "aaaa")

    assert (0, "next   leastwise why X1\n") == (code, err)
    assert "model        claude-haiku-5-5 (haiku)\nupstream     anthropic\n" in out
    assert "2 h ago; good for 21 h more\n" in out
    assert "tag          triage\npaid by      X1\nrequest-id   req_1\n" in out
    assert "spam" not in out
    assert "past its time" in run(capsys, "show", "cccc")[1]
    assert "text" not in told(capsys, "show", "aaaa")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(("key", "text"), [("aaaa", "spam"), ("bbbb", "not spam")])
def test_its_text_only_when_asked_for(capsys: Capture, key: str, text: str) -> None:
    assert run(capsys, "show", key, "--text")[1].endswith(f"\n\n{text}\n")
    assert text == told(capsys, "show", key, "--text")["text"]


@pytest.mark.usefixtures("kept")
def test_keys_that_name_no_answer(capsys: Capture) -> None:
    code, out, err = run(capsys, "show", "dddd")
    assert (1, "") == (code, out)
    assert "there is no answer whose key begins with dddd" in err

    code, _, err = run(capsys, "show", "a")
    assert (2, True) == (code, "give at least 4 letters" in err)


@pytest.mark.usefixtures("kept")
def test_answers_of_a_tag_are_forgotten(capsys: Capture) -> None:
    code, out, err = run(capsys, "clear", "--tag", "triage", "--dry-run")
    assert (0, "2 answers to be forgotten\n", "next   leastwise cache clear\n") == (code, out, err)
    assert (3, 3) == (told(capsys, "stats")["entries"], told(capsys, "clear", "--dry-run")["answers"])

    assert {"schema": 1, "answers": 2, "forgotten": True} == told(capsys, "clear", "--tag", "triage")
    assert [KEYS[1]] == [one["key"] for one in told(capsys, "list")["answers"]]
    assert "1 answer forgotten\n" == run(capsys, "clear")[1]
    assert 0 == told(capsys, "stats")["entries"]


@pytest.mark.usefixtures("kept")
def test_what_is_past_its_time_is_pruned(capsys: Capture) -> None:
    assert "1 answer to be forgotten\n" == run(capsys, "prune", "--dry-run")[1]
    assert 3 == told(capsys, "stats")["entries"]

    assert (0, "1 answer forgotten\n", "next   leastwise cache stats\n") == run(capsys, "prune")
    assert 2 == told(capsys, "stats")["entries"]


def test_a_dry_run_says_that_what_is_too_much_goes_too(
    capsys: Capture, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as cache:
        cache.save(KEYS[0], stored(body=b"{" + 1_100_000 * b" " + b"}"))
    monkeypatch.setenv("LEASTWISE_CACHE_MAX_MB", "1")

    assert (
        "what was not used for longest, until the rest fits into 1 MB" in run(capsys, "prune", "--dry-run")[2]
    )
    assert kept.exists()
