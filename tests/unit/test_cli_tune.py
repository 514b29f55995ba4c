"""`leastwise tune`, and what `route --explain` says of the classifier."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import Plans
from leastwise.cascade import Rung, stamp_of
from leastwise.cli import main
from leastwise.config import load
from leastwise.judge import VERSION
from leastwise.ladder import DEFAULT_LADDER, Verdict
from leastwise.ledger import Feedback
from leastwise.routing import load_classifier, load_words
from leastwise.steps import Record
from leastwise.stores.sqlite import SqliteStore
from tests import paid

#: A home of each test's own.
pytestmark = pytest.mark.usefixtures("home")

Capture = pytest.CaptureFixture[str]
OWN = """
[[type]]
name = "return slip"
complexity = "simple"
examples = ["return slip for shoes", "fill in the return slip", "prepare a return slip, broken lamp"]
"""


REJECTED = (Verdict("json", "escalate", "no JSON", tier="haiku"),)


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def record(path: Path, *, verdicts: tuple[Verdict, ...] = REJECTED, accepted: int = 0, **given: Any) -> None:
    """Keep a call, by default one whose answer by haiku was not accepted."""
    now = time.time()  # what is older than the ledger keeps would be deleted
    call = paid.row(id=paid.entry_id(now), at=now, result="ok", **given)
    path.parent.mkdir(parents=True, exist_ok=True)
    rungs = {verdicts[0].tier: Rung(checked=1, accepted=accepted)}
    with closing(SqliteStore(path)) as store:
        store.write(Record(call, verdicts=verdicts, checks="c", rungs=rungs), may_wait=True)


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
        "checked": 0,
        "accepted": 0,
        "told": 0,
        "told_ok": 0,
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


def test_the_table_tells_how_answers_fared(capsys: Capture, home: Path) -> None:
    path = home / "state/leastwise/leastwise.db"
    for tier, accepted, number in (("sonnet", 1, 3), ("haiku", 1, 2), ("haiku", 0, 1), ("gone", 1, 1)):
        for _ in range(number):
            judged(path, accepted=accepted, tier=tier)
    with closing(SqliteStore(path)) as store:
        told = [id_ for (id_,) in store.database.rows("SELECT id FROM exchange WHERE tier = 'haiku'")]
        store.add_feedback(*(Feedback(id_, id_ == told[0], "user", 1.0) for id_ in told[:2]))

    _, out, _ = run(capsys, "tune", "table")
    value = json.loads(run(capsys, "tune", "table", "--json")[1])

    text = " ".join(out.split())
    assert "measured: how many answers checks accepted, and how many were said to be ok classify" in text
    assert "classify haiku 67% of 3 checked, ok 1 of 2 told; sonnet 100% of 3 checked; gone 100% of 1" in text
    assert 80 >= max(map(len, out.splitlines()))
    rows = {(row["type"], row["tier"]): row for row in value["rows"]}
    found = rows["classify", "haiku"]
    assert (3, 2, 2, 1) == tuple(found[name] for name in ("checked", "accepted", "told", "told_ok"))
    assert ("assumed", 1.0) == (found["quality_is"], found["quality"])  # by other checks than are in force
    with closing(SqliteStore(path)) as store:
        lately = {"haiku": Rung(checked=1, accepted=0)}
        usual = Plans(load()).usual.digest
        now = time.time()
        facts = paid.row(id=paid.entry_id(now), at=now, task_type="classify", tier="haiku")
        store.write(Record(facts, verdicts=REJECTED, rungs=lately, checks=usual), may_wait=True)
    rows = json.loads(run(capsys, "tune", "table", "--json")[1])["rows"]
    found = next(one for one in rows if ("classify", "haiku") == (one["type"], one["tier"]))
    assert ("assumed, and checked", 20 / 21) == (found["quality_is"], found["quality"])


# --- tune calibrate ----------------------------------------------------------------------------


def judged(path: Path, *, score: float = 5.0, accepted: int = 1, **facts: Any) -> None:
    """Keep a call whose answer the judge in force scored."""
    plan = Plans(load()).usual
    given = {"task_type": "classify", "tier": "haiku", "tag": "triage", **facts}
    model = next((tier.model for tier in DEFAULT_LADDER if tier.name == given["tier"]), "")
    stamp, is_self = stamp_of(plan, model, VERSION), given["tier"] == "haiku"
    verdict = Verdict("judge", "accept", "", score, tier=given["tier"], stamp=stamp, is_self=is_self)
    record(path, verdicts=(verdict,), accepted=accepted, **given)


@pytest.fixture
def labelled(home: Path) -> Path:
    """Return a ledger whose calls were judged; what somebody said of the answers is kept, too."""
    path = home / "state/leastwise/leastwise.db"
    for number in range(64):
        kind = "extract" if number % 8 == 0 else "classify"
        judged(path, score=5.0 if number < 62 else 1.0, task_type=kind, tag="a" if number < 60 else "b")
    with closing(SqliteStore(path)) as store:
        rows = store.database.rows("SELECT exchange_id, score FROM verdict")
        store.add_feedback(*(Feedback(id_, score > 3, "user", 1.0) for id_, score in rows))
    return path


def kept(path: Path) -> dict[str, float | None]:
    """Return the thresholds that the ledger keeps, by type."""
    with closing(SqliteStore(path)) as store:
        found = store.evidence("c").calibrations
    return {task_type: one.threshold for (_, task_type), one in found.items()}


def test_calibrate_keeps_what_it_finds(capsys: Capture, labelled: Path) -> None:
    code, out, err = run(capsys, "tune", "calibrate", "--dry-run")
    assert (0, {}) == (code, kept(labelled))
    assert "1 calibration would be kept\nnext   leastwise tune calibrate\n" == err

    code, shown, err = run(capsys, "tune", "calibrate")

    assert (0, out) == (code, shown)
    assert "haiku's answers, by itself: 64 scored, 64 of them with a label" in out
    assert {"": 5.0} == kept(labelled)
    assert "1 calibration kept; checks go by it within a second\nnext   leastwise report\n" == err


def test_calibrate_as_json(capsys: Capture, labelled: Path) -> None:
    value = json.loads(run(capsys, "tune", "calibrate", "--json", "--target", "0.5")[1])

    assert ("calibration", "judge", "haiku", 0.5) == tuple(
        value[name] for name in ("report", "check", "by", "target")
    )
    assert 3 == value["kept"]
    assert {"": 1.0, "classify": 1.0, "extract": 5.0} == kept(labelled)


def test_calibrate_of_some_calls_only(capsys: Capture, labelled: Path) -> None:
    _, out, err = run(capsys, "tune", "calibrate", "--tag", "a")
    assert "60 scored, 60 of them with a label" in out
    assert "it stands on calls of tag a, and counts for those of other tags, too" in err
    assert {"": 5.0} == kept(labelled)

    _, out, err = run(capsys, "tune", "calibrate", "--type", "extract")
    assert "8 scored, 8 of them with a label" in out
    assert "nothing is kept\nnext   leastwise feedback ID --ok\n" == err

    _, out, _ = run(capsys, "tune", "calibrate", "--since", "0")
    assert "judge has scored no answer" in out


def test_calibrate_another_check(capsys: Capture, labelled: Path) -> None:
    code, out, err = run(capsys, "tune", "calibrate", "--check", "tests")

    assert (0, True) == (code, labelled.exists())
    assert "tests has scored no answer" in out
    assert "nothing is kept: give others their threshold: in their [[check]], or Task(threshold=)" in err


def test_the_threshold_of_a_check_is_its_own(capsys: Capture, home: Path) -> None:
    mine = home / "mine.toml"
    mine.write_text('[[check]]\nname = "fn"\nfunction = "not.here:fn"\nthreshold = 0.7\n', "utf-8")

    _, out, _ = run(capsys, "tune", "calibrate", "--check", "fn", "--config", str(mine), "--json")

    assert 0.7 == json.loads(out)["raw_threshold"]


def test_what_was_only_tried_out_is_kept_by_the_command_that_follows(capsys: Capture, labelled: Path) -> None:
    _, _, err = run(capsys, "tune", "calibrate", "--tag", "a", "--target", "0.1", "--dry-run")

    assert "next   leastwise tune calibrate --tag a --target 0.1" == err.splitlines()[-1]
    assert {} == kept(labelled)


def test_calibrate_without_a_ledger(capsys: Capture, home: Path) -> None:
    assert 0 == run(capsys, "tune", "calibrate")[0]
    assert not (home / "state").exists()


def test_calibrate_from_a_file_keeps_nothing(capsys: Capture, home: Path, labelled: Path) -> None:
    (home / "scores.csv").write_text("score,ok,type\n" + "5,1,a\n" * 60 + "x,1,\n,1,\n" + "1,0,b\n" * 9)

    code, out, err = run(capsys, "tune", "calibrate", "--from", "scores.csv")

    assert (0, {}) == (code, kept(labelled))
    assert out.startswith("leastwise tune calibrate   judge   at most 5%")
    assert "answers: 69 scored, 69 of them with a label" in out
    assert [
        "scores.csv:62: score = 'x': expected a finite number",
        "scores.csv:63: score missing",
        "nothing is kept: whose scores a file has is not known",
        "2 rows could not be read; the rest is counted",
        "next   leastwise tune calibrate",
    ] == err.splitlines()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--from", "x.csv"], "x.csv: No such file or directory"),
        (["--from", "x.csv", "--tag", "a"], "--from stands without --tag, --type and --since"),
        (["--target", "1"], 'Invalid value "1.0" for --target'),
        (["--sure", "0"], 'Invalid value "0.0" for --sure'),
    ],
)
def test_what_cannot_be_calibrated(capsys: Capture, words: list[str], fault: str) -> None:
    code, out, err = run(capsys, "tune", "calibrate", *words)

    assert (2, "") == (code, out)
    assert err.startswith(f"leastwise: error: {fault}")


def test_a_file_without_a_score_is_bad_input(capsys: Capture, home: Path) -> None:
    (home / "scores.csv").write_text("score,ok\nnan,1\n")

    code, _, err = run(capsys, "tune", "calibrate", "--from", "scores.csv")

    assert 2 == code
    assert err.startswith("scores.csv:2: score = 'nan': expected a finite number\n")


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
