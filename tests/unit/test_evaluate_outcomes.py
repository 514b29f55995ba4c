"""Reading a table of outcomes, and what is said of a bad one."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from leastwise.errors import LogError
from leastwise.evaluate.outcomes import Outcomes, read_outcomes

HEAD = "id,benchmark,subset,prompt,fold,dear|score,dear|cost_usd,"
HEAD += "cheap|score,cheap|cost_usd,cheap|gate,cheap|note"
ROWS = (
    "1,b,x,ask,train,1,0.02,0.5,0.001,1,fine",
    "2,b,y,ask,train,0,0.02,0,0.003,,bad",
    "3,b,y,ask,test,1,0.02,1,0.002,0.2,",
)
READ = Outcomes(
    name="t.csv",
    models=("cheap", "dear"),
    scores={"dear": (1.0, 0.0, 1.0), "cheap": (0.5, 0.0, 1.0)},
    costs={"dear": (0.02, 0.02, 0.02), "cheap": (0.001, 0.003, 0.002)},
    kinds=("b/x", "b/y", "b/y"),
    folds=("train", "train", "test"),
    checks={"gate": {"cheap": (1.0, None, 0.2)}},
)


def written(folder: Path, *lines: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    found = read_outcomes(written(tmp_path, HEAD, *ROWS))

    assert READ == found
    assert 3 == len(found)


def test_json_lines(tmp_path: Path) -> None:
    lines = (
        '{"id": 1, "a|score": true, "a|cost_usd": 0.5, "b|score": 0, "b|cost_usd": 0.25}',
        "",
        '{"id": 2, "b|score": 1, "b|cost_usd": 0.25, "a|score": 0.5, "a|cost_usd": 0.5, "a|judge": 0.6}',
    )

    found = read_outcomes(written(tmp_path, *lines, name="t.jsonl"))

    assert (
        Outcomes(
            name="t.jsonl",
            models=("b", "a"),
            scores={"a": (1.0, 0.5), "b": (0.0, 1.0)},
            costs={"a": (0.5, 0.5), "b": (0.25, 0.25)},
            kinds=("", ""),
            checks={"judge": {"a": (None, 0.6)}},
        )
        == found
    )


def test_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["1", "2"],
            "subset": ["x", None],
            "prompt": ["ask", "ask"],
            "a|score": [1.0, float("nan")],
            "a|cost_usd": [0.5, 0.5],
            "b|score": [1, 0],
            "b|cost_usd": [0.25, 0.25],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")

    found = read_outcomes(tmp_path / "t.parquet")

    assert (("b", "a"), ("x",), {"a": (1.0,), "b": (1.0,)}, 1) == (
        found.models,
        found.kinds,
        found.scores,
        found.left_out,
    )


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"t\.parquet: no parquet file, or a damaged one: "):
        read_outcomes(written(tmp_path, "PAR1", name="t.parquet"))


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "leastwise.evaluate.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(
        LogError, match=r't\.parquet: reading parquet needs an extra: pip install "leastwise\[parquet\]"'
    ):
        read_outcomes(tmp_path / "t.parquet")


def test_a_broken_installation_is_no_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "leastwise.evaluate.parquet", None)

    with pytest.raises(ModuleNotFoundError, match="leastwise"):
        read_outcomes(tmp_path / "t.parquet")


def test_only_models_of_the_pool(tmp_path: Path) -> None:
    lines = (
        "id,a-1|score,a-1|cost_usd,a-2|score,a-2|cost_usd,b|score",
        "1,1,0.5,1,0.5,",
        "2,1,0.5,,0.25,oops",
        "3,1,0.5,0,0.25,",
    )

    found = read_outcomes(written(tmp_path, *lines), ["a-*", "c"])

    assert ("a-2", "a-1") == found.models
    assert {"a-1": (1.0, 1.0), "a-2": (1.0, 0.0)} == found.scores
    assert 1 == found.left_out


def test_only_the_checks_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD, *ROWS)

    assert {} == read_outcomes(path, checks=["tests"]).checks
    with pytest.raises(
        LogError, match=r"row 1: cheap\|note is 'fine'; expected a number from 0 to 1, or nothing"
    ):
        read_outcomes(path, checks=["note"])


BASE = "id,a|score,a|cost_usd,b|score,b|cost_usd"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["x"], "there is no row, or no column id. Expected is one row a task"),
        ([BASE], "there is no row, or no column id"),
        (["id,a", "1,2"], "no column ends in |score; there are id. Expected"),
        (["id,a|score,a|cost_usd", "1,1,1"], "* leaves a: there is nothing to choose between. It has a"),
        (["id,a|score,b|score,b|cost_usd", "1,1,1,1"], "there is no column a|cost_usd; add it, in dollars"),
        ([BASE, "1,1,1,1,1", "2,1.5,1,1,1"], "row 2: a|score is '1.5'; expected a number from 0 to 1, or"),
        (
            [BASE, "1,1,-1,1,1"],
            "row 1: a|cost_usd is '-1'; expected dollars, from 0 to 1,000,000,000, or nothing",
        ),
        ([BASE, "1,1,1e300,1,1"], "row 1: a|cost_usd is '1e300'; expected dollars"),
        ([f"{BASE},a|score", "1,1,1,1,1,0"], "two columns 'a|score'; which of them counts?"),
        ([BASE, "1,1,inf,1,1"], "row 1: a|cost_usd is 'inf'; expected dollars"),
        ([BASE, "1,yes,1,1,1"], "row 1: a|score is 'yes'; expected a number"),
        ([BASE, "1,1,1"], "row 1 has more or fewer cells than the header"),
        ([BASE, "1,1,1,1,1,1"], "row 1 has more or fewer cells than the header"),
        (
            [BASE, "1,,1,1,1", "2,,1,1,"],
            "no row has a score and a cost of every model; a|score has none in 2 of 2",
        ),
        (
            [f"{BASE},fold", "1,1,1,1,1,train", "2,1,1,1,1,dev"],
            "row 2: fold is 'dev'; expected train or test",
        ),
        ([f"{BASE},fold", "1,1,1,1,1,train"], "every fold is train; both parts are needed"),
        ([BASE, '1,"1' + "0" * 200_000 + "x,1"], "row 1 has more or fewer cells"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, lines: list[str], said: str) -> None:
    path = written(tmp_path, *lines)

    with pytest.raises(LogError) as caught:
        read_outcomes(path)

    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_number_that_is_too_large_for_any_is_told_in_short(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"id":1,"a|score":1,"a|cost_usd":{"9" * 400},"b|score":1,"b|cost_usd":1}}', "utf-8")

    with pytest.raises(LogError, match=r"row 1: a\|cost_usd is 9{60}; expected dollars"):
        read_outcomes(path)


def test_many_names_are_cut(tmp_path: Path) -> None:
    head = ",".join(["id", *(f"c{number}|score" for number in range(20))])

    with pytest.raises(LogError, match=r"It has c0, c1, .*, c11 \.\.\.$"):
        read_outcomes(written(tmp_path, head, ",".join("1" * 21)), ["x"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b"[1]\n", "line 1 is no JSON object: "),
        ("t.jsonl", b'{"id": 1\n', "line 1 is no JSON object: "),
        ("t.csv", b"id,\xff\n", "not UTF-8; outcomes are read from .parquet, .csv and .jsonl"),
        ("t.csv", b'id,a|score\n1,"\x00' + b"1" * (2**26 + 1), "line "),
    ],
)
def test_what_is_no_table(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(LogError) as caught:
        read_outcomes(path)

    assert str(caught.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none.jsonl"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(LogError, match="No such file or directory; check the path, and who may read it"):
        read_outcomes(tmp_path / name)
