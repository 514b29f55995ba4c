"""`leastwise tune replay`: what is printed, for people and for machines, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leastwise.cli import main

#: A home of each test's own.
pytestmark = pytest.mark.usefixtures("home")

Capture = pytest.CaptureFixture[str]
HEAD = "id,subset,fold,small|score,small|cost_usd,worse|score,worse|cost_usd,a-large-model-of-2026-11|score"
HEAD += ",a-large-model-of-2026-11|cost_usd"
LARGE = "a-large-model-of-2026-11"


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["tune", "replay", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def written(folder: Path, *, checks: str = "", folds: bool = True, name: str = "t.csv") -> Path:
    """Write 400 tasks: the small model does the even ones, the large one all, and checks are never wrong."""
    lines = [HEAD + "".join(f",small|{check},worse|{check}" for check in checks.split())]
    for row in range(400):
        right = int(row % 2 == 0)
        fold = "train" if row % 4 < 2 else "test"
        cells = [row, "even" if right else "odd", fold, right, 0.001, 0, 0.002, 1, 0.01 + 0.002 * right]
        lines.append(",".join(map(str, cells + [right, 0] * len(checks.split()))))
    if not folds:
        lines = [",".join(cell for place, cell in enumerate(line.split(",")) if place != 2) for line in lines]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cells(out: str, name: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.strip().startswith(name) and ":" not in line]
    return line.removeprefix(name).split()


def test_what_is_simulated_says_so(capsys: Capture, tmp_path: Path) -> None:
    code, out, err = run(capsys, str(written(tmp_path)))
    plain = " ".join(out.split())

    assert (0, "next   leastwise tune table\n") == (code, err)
    assert 80 >= max(map(len, out.splitlines()))
    assert plain.startswith(
        "t.csv: 400 tasks, 3 models. 200 tasks to choose by, 200 others to try on (the table's own fold"
    )
    # 1 and a tenth of 11 for the check; then 12 for a tenth of the even tasks, 10 for nine of ten odd ones.
    # The same 7.2, between 1 and 11 a task, buys the large model for 62 of 100 tasks.
    assert ["95.0", "91.0-97.6", "95.0%", "7.20", "35%", "50%", "81.0"] == cells(out, "cascade SIMULATED 0.9")
    assert ["100.0", "98.2-100.0", "100.0%", "11.00", "0%", "-", "-"] == cells(out, "a-large-mod~of-2026-11")
    assert ["50.0", "42.9-57.1", "50.0%", "1.00", "91%", "-", "-"] == cells(out, "small")
    assert ["100.0", "98.2-100.0", "100.0%", "5.50", "50%", "-", "-"] == cells(out, "oracle")
    assert ["100.0", "98.2-100.0", "100.0%", "11.00", "0%", "-", "-"] == cells(out, "best fixed model")
    assert "best fixed: a-large-model-of-2026-11, chosen on the first part. of best" in plain
    assert "dominated, a cheaper model being as good on the first part: worse." in plain
    assert f"cascade SIMULATED 0.8: small > {LARGE}; a check costs 10% of {LARGE}'s mean answer." in plain
    assert "SIMULATED: no judge was asked." in plain


def test_the_type_table_says_what_it_moves(capsys: Capture, tmp_path: Path) -> None:
    _, out, _ = run(capsys, str(written(tmp_path)), "--policy", "table")

    # Of 100 even tasks the gain is 0, drawn by 20/120 towards -0.5: -0.083, so that it is not sure.
    assert "these go to a cheaper model that is as good: none, for of none it is sure." in " ".join(
        out.split()
    )
    assert "SIMULATED" not in out
    path = tmp_path / "better.csv"
    rows = [f"{row},{'x' if row < 60 else 'y'},{int(row >= 60)},3,{int(row < 60)},2" for row in range(200)]
    path.write_text("\n".join(["id,subset,a|score,a|cost_usd,b|score,b|cost_usd", *rows]), encoding="utf-8")

    _, out, _ = run(capsys, str(path), "--policy", "table", "--policy", "fixed:b")

    assert "of 2 types of task these go to a cheaper model that is as good: x to b." in " ".join(out.split())
    assert 2 == sum(line.startswith("b ") for line in out.splitlines())


def test_real_checks_take_the_place_of_simulated_ones(capsys: Capture, tmp_path: Path) -> None:
    path = written(tmp_path, checks="gate judge")

    _, out, err = run(capsys, str(path))
    plain = " ".join(out.split())

    assert f"next   leastwise tune replay {path} --splits 200 --target 0.1\n" == err
    assert ["100.0", "98.2-100.0", "100.0%", "6.00", "45%", "50%", "75.0"] == cells(
        out, "cascade gate >= 0.6"
    )
    assert ["100.0", "98.2-100.0", "100.0%", "6.50", "41%", "50%", "77.5"] == cells(
        out, "cascade judge >= 0.6"
    )
    assert f"cascade gate >= 0.6: small > {LARGE}; a check costs nothing." in plain
    assert (
        f"cascade judge >= 0.6: small > {LARGE}; a check costs 50% of the cheapest model's answer." in plain
    )
    assert "governed: runs for 50% of tasks, where it pays by the first part." in plain
    assert "SIMULATED" not in out

    _, out, _ = run(capsys, str(path), "--check", "judge", "--judge-accuracy", "1", "--judge-cost", "0")

    assert "cascade gate" not in out
    assert ["100.0", "98.2-100.0", "100.0%", "6.00", "45%", "50%", "75.0"] == cells(
        out, "cascade SIMULATED 1"
    )


def test_promises_over_splits(capsys: Capture, tmp_path: Path) -> None:
    path = written(tmp_path, checks="gate judge", folds=False)
    words = (str(path), "--splits", "5", "--target", "0.1", "--check-cost", "20")

    code, out, err = run(capsys, *words)
    plain = " ".join(out.split())

    assert (0, "next   leastwise tune table\n") == (code, err)
    assert 80 >= max(map(len, out.splitlines()))
    assert "(random halves, seed 0), 5 times: all figures are means." in plain
    assert "lost: how often more than 1 point below the best fixed model." in plain
    assert ["100%"] == cells(out, "small")[1:2]
    assert f"best fixed: {LARGE} (5 of 5 times), chosen" in plain
    assert f"small > {LARGE} in the first split; a check costs nothing." in plain
    assert "type table:" not in plain
    assert (
        "Promise: at most 10% of the accepted answers are bad, 95% sure; thresholds are of one half" in plain
    )
    for name, lets in ("gate", "5"), ("judge", "0"):
        granted, broken, over, _, bad, quality, _, governor, _ = cells(out, name)
        assert ("5", "0", "0", "0.0%", "100.0", lets) == (granted, broken, over, bad, quality, governor)
    assert "broken: of these, where more of what it accepts in the whole table is bad: may be 1 of 5" in plain
    assert f"gate: {LARGE} for every task has 100.0 at 10.96." in plain  # in these halves
    assert "cost less in 0 of 5; the governor, who saw the first, was right in 5." in plain

    _, out, _ = run(capsys, *words[:-4], "--target", "0.01")

    assert ["0", *"-------"] == cells(out, "gate")


def test_for_machines(capsys: Capture, tmp_path: Path) -> None:
    path = written(tmp_path, checks="gate")

    code, out, _ = run(capsys, str(path), "--json", "--target", "0.1", "--judge-accuracy", "0.9")
    value: dict[str, Any] = json.loads(out)

    assert (0, 1, "t.csv", 400, 0) == (
        code,
        value["schema"],
        value["table"],
        value["tasks"],
        value["left_out"],
    )
    assert ["small", "worse", LARGE] == value["models"]
    assert {"how": "the table's own fold column", "splits": 1, "train": 200, "test": 200} == value["split"]
    assert ({LARGE: 1}, {"worse": 1}) == (value["best_models"], value["dominated"])
    names = [line["policy"] for line in value["policies"]]
    assert ["type table, no check", "cascade gate >= 0.6", "cascade gate >= 0.6, governed"] == names[:3]
    assert [False, False, False, True, True] == [line["simulated"] for line in value["policies"]]
    gate = value["policies"][1]
    assert {"otherwise": ["small", LARGE], "types": {}} == gate["ways"]
    assert pytest.approx((1.0, 1.0, 0.006, 1 - 6 / 11, 0.5, 0.75, 0.006)) == (
        gate["quality"],
        gate["quality_of_best"],
        gate["cost_usd"],
        gate["saved"],
        gate["escalated"],
        gate["shuffled_quality"],
        gate["shuffled_cost_usd"],
    )
    assert ["best fixed model", "small", "worse", LARGE, "oracle"] == [
        line["policy"] for line in value["controls"]
    ]
    assert [("gate", 1, {"1": 1}, 0, 1)] == [
        (one["check"], one["granted"], one["thresholds"], one["broken"], one["governor_lets"])
        for one in value["promises"]
    ]


def test_models_that_cost_nothing_and_do_nothing(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {f"{model}|{what}": 0 for model in "ab" for what in ("score", "cost_usd")}
    path.write_text("\n".join(json.dumps({"id": 1, **row}) for _ in range(2)), encoding="utf-8")

    _, out, _ = run(capsys, str(path), "--policy", "table")
    value = json.loads(run(capsys, str(path), "--json")[1])

    assert ["0.0", "0.0-97.5", "-", "0.0000", "-", "-", "-"] == cells(out, "oracle")
    assert (None, None) == (value["controls"][0]["quality_of_best"], value["controls"][0]["saved"])


def test_rows_that_do_not_count_are_told(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["1,1,200,0,1", "2,1,200,1,1", "3,,200,1,1"]
    path.write_text("\n".join(["id,a|score,a|cost_usd,b|score,b|cost_usd", *rows]), encoding="utf-8")

    _, out, _ = run(capsys, str(path), "--policy", "table")

    assert out.startswith("t.csv: 2 tasks, 2 models; 1 task left out.")
    assert "200,000" == cells(out, "a")[3]


def test_hindsight_is_told(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["1,train,1,1,0,2", "2,test,0,1,1,2"]
    path.write_text("\n".join(["id,fold,a|score,a|cost_usd,b|score,b|cost_usd", *rows]), encoding="utf-8")

    _, out, _ = run(capsys, str(path), "--policy", "table")

    assert "On the other part b is better: only hindsight knows." in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--models", "x*"), "x* leaves no model: there is nothing to choose between"),
        (
            ("--tiers", "small,huge"),
            "t.csv: no model 'huge'; there are small, worse, a-large-model-of-2026-11",
        ),
        (("--check", "tests"), "--check tests: t.csv has no column that ends in |tests"),
        (("--judge-cost", "inf"), "--judge-cost"),
        (("--policy", "magic"), "--policy magic: expected table, cascade or fixed:MODEL"),
        (("--target", "0.1"), "--target: the table has no check; name its column, M|NAME: --check NAME"),
        (("--tiers", "small,small"), "tiers small,small: each model may be asked once"),
        (("--threshold", "6"), "--threshold"),
        (("--judge-accuracy", "90"), "--judge-accuracy"),
        (("--splits", "0"), "--splits"),
        (("--target", "1"), "--target"),
    ],
)
def test_what_is_wrong_is_said(capsys: Capture, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    code, out, err = run(capsys, str(written(tmp_path)), *words)

    assert (2, "") == (code, out)
    assert said in err


def test_tiers_are_taken_as_named(capsys: Capture, tmp_path: Path) -> None:
    path = written(tmp_path, checks="gate")

    _, out, _ = run(capsys, str(path), "--tiers", f"worse,{LARGE}", "--target", "0.1", "--models", "*")

    # The gate accepts none of its answers: 2 and the large model's 11.
    assert ["100.0", "98.2-100.0", "100.0%", "13.00", "-18%", "100%", "100.0"] == cells(
        out, "cascade gate >= 0.6"
    )
    assert ["0", *"-------"] == cells(out, "gate")


def test_a_promise_needs_two_tiers_and_a_check_of_the_first(capsys: Capture, tmp_path: Path) -> None:
    path = written(tmp_path, checks="gate")
    words = (str(path), "--policy", "table", "--target", "0.1", "--tiers")

    one, other = run(capsys, *words, "small"), run(capsys, *words, f"{LARGE},small")

    assert (2, "") == one[:2] == other[:2]
    assert "--target: small is the only tier, and nothing is asked instead; name two: --tiers a,b" in one[2]
    assert f"t.csv: no column {LARGE}|gate; name another check, or other tiers" in other[2]


def test_a_check_that_some_tiers_lack_is_left_out_and_told(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    head = "id,a|score,a|cost_usd,a|gate,a|judge,b|score,b|cost_usd,b|gate,c|score,c|cost_usd"
    rows = [f"{n},{n % 2},1,{n % 2},1,{int(n % 4 > 0)},2,1,1,9" for n in range(40)]
    path.write_text("\n".join([head, *rows]), encoding="utf-8")

    code, out, err = run(capsys, str(path), "--policy", "cascade")

    assert (0, True, False) == (code, "cascade gate" in out, "cascade judge" in out)
    assert "left out: judge, for there is no column b|judge" == err.splitlines()[0]
    assert "no column b|judge" in run(capsys, str(path), "--check", "judge")[2]


def test_one_task_cannot_be_parted(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,a|score,a|cost_usd,b|score,b|cost_usd\n1,1,1,1,1\n", encoding="utf-8")

    assert (2, "") == run(capsys, str(path))[:2]
