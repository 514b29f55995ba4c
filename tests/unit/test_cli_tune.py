"""`leastwise tune table`, and what `route --explain` says of the classifier."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest

from leastwise.cli import main
from leastwise.ledger import Exchange, new_id
from leastwise.routing import load_classifier, load_words
from leastwise.steps import Record
from leastwise.stores.sqlite import SqliteStore

#: A home of each test's own.
pytestmark = pytest.mark.usefixtures("home")

Capture = pytest.CaptureFixture[str]
OWN = """
[[type]]
name = "return slip"
complexity = "simple"
examples = ["return slip for shoes", "fill in the return slip", "prepare a return slip, broken lamp"]
"""


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def record(path: Path, **given: Any) -> None:
    facts: dict[str, Any] = {each.name: "" for each in fields(Exchange)}
    facts |= {each.name: 0 for each in fields(Exchange) if each.type in ("int", "float")}
    now = time.time()  # what is older than the ledger keeps would be deleted
    facts |= {"id": new_id(now, Random(given["spent_nusd"])), "at": now, "result": "ok", **given}
    path.parent.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(path)
    store.write(Record(Exchange(**facts)), may_wait=True)
    store.close()


# --- tune table --------------------------------------------------------------------------------


def test_the_table_begins_as_the_mapping(capsys: Capture) -> None:
    code, out, err = run(capsys, "tune", "table")
    lines = out.splitlines()

    assert (0, "next   leastwise route --explain PROMPT\n") == (code, err)
    assert 80 >= max(map(len, lines))
    assert "type        haiku  calls  mean  sonnet  calls  mean  opus  calls  mean" == lines[0]
    assert "classify     1.00      -     -    1.00      -     -  1.00      -     -" == lines[1]
    assert "write        0.00      -     -    1.00      -     -  1.00      -     -" in lines
    assert "math         0.00      -     -    0.00      -     -  1.00      -     -" in lines
    assert "Quality is assumed: " in out
    assert f"Weights {load_classifier().digest[:12]}." in " ".join(out.split())


def test_calls_and_mean_cost_come_from_the_ledger(capsys: Capture, home: Path) -> None:
    for spent in (100_000, 200_000):
        record(home / "ledger.db", task_type="write", tier="sonnet", spent_nusd=spent)
    file = home / "mine.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{home}/ledger.db"\n{OWN}', encoding="utf-8")

    _, out, _ = run(capsys, "tune", "table", "--config", str(file))
    value = json.loads(run(capsys, "tune", "table", "--config", str(file), "--json")[1])

    assert ["write", "0.00", "-", "-", "1.00", "2", "$0.000150", "1.00", "-", "-"] in [
        line.split() for line in out.splitlines()
    ]
    rows = {(row["type"], row["tier"]): row for row in value["rows"]}
    assert {
        "type": "write",
        "needs": "sonnet",
        "tier": "sonnet",
        "quality": 1.0,
        "quality_is": "assumed",
        "calls": 2,
        "mean_cost_usd": 0.00015,
    } == rows["write", "sonnet"]
    assert (0, None) == (rows["write", "opus"]["calls"], rows["write", "opus"]["mean_cost_usd"])
    assert "haiku" == rows["return slip", "opus"]["needs"]
    types = {*load_classifier().types, *load_words().types, "return slip"}
    assert types == {row["type"] for row in value["rows"]}
    assert (["haiku", "sonnet", "opus"], load_classifier().digest) == (value["tiers"], value["weights"])


def test_phrases_only(capsys: Capture, home: Path) -> None:
    (home / "leastwise.toml").write_text("[classifier]\nlearned = false\n", encoding="utf-8")

    _, out, _ = run(capsys, "tune", "table")
    value = json.loads(run(capsys, "tune", "table", "--json")[1])

    assert "Types are told by phrases only" in out
    assert set(load_words().types) == {row["type"] for row in value["rows"]}
    assert (None, None) == (value["target"], value["weights"])


# --- route --explain ---------------------------------------------------------------------------


def test_explain_shows_each_feature_and_its_push(capsys: Capture) -> None:
    ask = "Write a poem about a lighthouse that was left by its keeper in the year of the great flood"
    _, out, _ = run(capsys, "route", "--explain", ask)
    value = json.loads(run(capsys, "route", "--explain", "--json", ask)[1])
    weighed = value["classifier"]

    assert 80 >= max(map(len, out.splitlines()))
    part = out[out.index("weighed by the classifier") :]
    assert part.splitlines()[2].split()[:2] == ["ask", "write"]
    assert part.splitlines()[2].split()[-1] == "none"
    assert "\n  write " in part
    assert "more features, all in --json" in part
    assert "\n  unsure     no\n" in part
    assert pytest.approx(1.0) == sum(weighed["types"].values())
    assert {"haiku", "sonnet", "opus"} == set(weighed["expected"])
    assert len(weighed["pushes"]) > 12
    assert {*load_classifier().types, "none"} == set(weighed["pushes"][0][1])
    assert "classifier" not in json.loads(run(capsys, "route", "--json", ask)[1])


def test_explain_tells_how_near_own_types_are(capsys: Capture, home: Path) -> None:
    (home / "leastwise.toml").write_text(OWN, encoding="utf-8")

    _, out, _ = run(capsys, "route", "--explain", "return slip for the red shoes")
    value = json.loads(run(capsys, "route", "--explain", "--json", "return slip for the red shoes")[1])
    near, least = value["classifier"]["own"]["return slip"]

    assert f"\n  own types  return slip {near:.2f} (near from {least:.2f})\n" in out


def test_explain_says_why_unsure(capsys: Capture) -> None:
    _, out, _ = run(capsys, "route", "--explain", "Grumpf zwirbel knotz")

    assert "\n  unsure     100% of the words are unknown (over " in out
    assert "more feature" not in out


def test_explain_without_the_classifier_has_no_such_part(capsys: Capture, home: Path) -> None:
    (home / "leastwise.toml").write_text('preset = "reference"\n', encoding="utf-8")

    _, out, _ = run(capsys, "route", "--explain", "Grumpf zwirbel knotz")
    value = json.loads(run(capsys, "route", "--explain", "--json", "Grumpf zwirbel knotz")[1])

    assert "weighed by" not in out
    assert "classifier" not in value
