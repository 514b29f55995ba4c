"""`leastwise route`: one prompt, a file of prompts, and a prompt asked for real."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import Plans, Runtime
from leastwise.cascade import Rung
from leastwise.cli import main
from leastwise.config import load
from leastwise.ladder import Code, Task, Verdict
from leastwise.report.prompts import request_of
from leastwise.report.routes import PHASES, Planner, route_lines
from leastwise.simulate import Answer, Server, serve
from leastwise.steps import Record
from leastwise.stores import Query
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, OPUS, SONNET
from tests.paid import entry_id, row

SPAM = "Is this spam? Win $1000 now!!!"
PROOF = "is this proof right? Let n be even, then n squared is even."
VAGUE = "Grumpf zwirbel knotz plimpert schnorkel wabbeln zirpel klo."


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory in a home of this test's own."""
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        yield running


Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["route", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(capsys: Capture, *words: str) -> dict[str, Any]:
    code, out, _ = run(capsys, *words, "--json")
    assert 0 == code
    value: dict[str, Any] = json.loads(out, parse_float=Decimal)
    return value


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))


# --- one prompt --------------------------------------------------------------------------------


def test_a_simple_prompt(capsys: Capture) -> None:
    shown = """\
tier         haiku, claude-haiku-5-5
why          type: classify ("is this spam")
prompt       ~16 tokens
price        $0.000152 with 300 tokens of answer (assumed)
instead of   claude-opus-5-5 $0.006064 (assumed), 40 times as much
quality      not measured
"""

    assert (0, shown, "next   leastwise route --explain PROMPT\n") == run(capsys, SPAM)


def test_a_prompt_that_stays(capsys: Capture) -> None:
    code, out, _ = run(capsys, VAGUE)

    assert 0 == code
    assert [
        "tier         opus, claude-opus-5-5",
        "why          unsure, so not cheap: baseline claude-opus-5-5",
        "instead of   the same model (assumed)",
    ] == [line for line in out.splitlines() if line.split()[0] in {"tier", "why", "instead"}]


def test_a_named_model_is_observed(capsys: Capture) -> None:
    _, out, _ = run(capsys, SPAM, "--model", OPUS)

    assert "tier         opus, claude-opus-5-5\n" in out
    assert "observed: as asked, could go to haiku prompt" in " ".join(out.split())
    assert "could be     claude-haiku-5-5 $0.000152, quality not measured\n" in out
    assert "instead of   the same model (asked)\n" in out


def test_a_model_off_the_ladder_and_the_preset_s_clamp(capsys: Capture, home: Path) -> None:
    (home / "leastwise.toml").write_text('preset = "reference"\nmode = "enforce"\n', encoding="utf-8")

    _, out, _ = run(capsys, "hello", "--task", "classify this", "--model", "claude-opus-5-5")
    assert "max_tokens   lowered to 50; a cut answer is asked for again\n" in out

    _, out, _ = run(capsys, "hello", "--task", "design it", "--model", "claude-opus-4-5")
    assert "tier         none, claude-opus-4-5\n" in out


@pytest.mark.parametrize(
    ("words", "tier", "code"),
    [
        (["--task", "classify this email"], "haiku", "type"),
        (["--complexity", "complex"], "opus", "forced_complexity"),
        (["--tier", "sonnet"], "sonnet", "forced_tier"),
        (["--model", "sonnet"], "sonnet", "forced_tier"),
        (["--expected-output-tokens", "5"], "haiku", "signals"),
        (["--expected-output-words", "5"], "haiku", "signals"),
        (["--expected-output-tokens", "5", "--has-code"], "sonnet", "signals"),
        (["--expected-output-tokens", "2000", "--has-code"], "opus", "signals"),
        (["--expected-output-tokens", "2000", "--no-has-code"], "sonnet", "signals"),
        (["--tag", "triage"], "opus", "unsure"),
    ],
)
def test_what_the_caller_tells(capsys: Capture, words: list[str], tier: str, code: str) -> None:
    value = as_json(capsys, "hello there", *words)

    assert (1, tier, code) == (value["schema"], value["tier"], value["reasons"][-1]["code"])


def test_the_price_is_that_of_estimated_input_and_told_or_assumed_output(capsys: Capture) -> None:
    told = as_json(capsys, SPAM, "--expected-output-tokens", "5")
    assumed = as_json(capsys, SPAM, "--assume-output-tokens", "1000")

    for value, tokens, is_told in ((told, 5, True), (assumed, 1000, False)):
        assert (tokens, is_told) == (value["output_tokens"], value["output_tokens_told"])
        nusd = value["input_tokens"] * 100 + tokens * 500
        assert Decimal(nusd) / 10**9 == value["cost_usd"]
        assert Decimal(40 * nusd) / 10**9 == value["baseline_usd"]


def test_explain_shows_what_was_read_and_what_each_phase_did(capsys: Capture) -> None:
    code, out, err = run(capsys, f"{SPAM} def f(): pass", "--explain")
    lines = out.splitlines()

    assert (0, "next   leastwise route --send PROMPT\n") == (code, err)
    assert 80 >= max(map(len, lines))
    assert "  fresh_ask               'Is this spam? Win $1000 now!!! def f(): pass'" in lines
    assert "  expected_output_tokens  not told" in lines
    assert "  in_tool_loop            no" in lines
    assert '  choose     type: classify ("is this spam") [type] auto > haiku' in lines
    assert "  adjust     raised to standard: code [raised] haiku > sonnet" in lines
    assert "  limit      allowed, and it fits" in lines
    assert "fresh_ask" in as_json(capsys, SPAM, "--explain")["features"]
    assert "features" not in as_json(capsys, SPAM)


def test_explain_tells_the_mode_and_does_not_pass_control_characters_on(capsys: Capture) -> None:
    _, out, _ = run(capsys, "Is this spam? \x1b[31mred", "--explain", "--model", OPUS)

    assert "\x1b" not in out
    assert "  mode       observed: as asked, could go to haiku [observed] haiku > opus\n" in out


CASCADE = '[cascade]\nenabled = true\njudge = "{judge}"\n[store]\nurl = "sqlite:///{home}/ledger.db"\n'


def test_explain_tells_where_a_checked_request_begins_and_how_far_it_may_climb(
    capsys: Capture, home: Path
) -> None:
    (home / "leastwise.toml").write_text(CASCADE.format(judge="sonnet", home=home))
    options = ("--explain", "--config", str(home / "leastwise.toml"))

    _, out, _ = run(capsys, SPAM, *options)
    value = as_json(capsys, SPAM, "--config", str(home / "leastwise.toml"))

    text = " ".join(out.split())
    assert "begin haiku pays: 75% accepted as is assumed until 20 are checked (0 so far)" in text
    assert "schema, tools, judge (sonnet, 2% of such calls) climbs to sonnet, then opus, where" in text
    assert (["sonnet", "opus"], "judge", False) == (value["climbs"], value["checks"][-1], value["is_judged"])
    assert not (home / "ledger.db").exists()


def test_explain_goes_by_how_checks_went(capsys: Capture, home: Path) -> None:
    file = home / "leastwise.toml"
    file.write_text(CASCADE.format(judge="sonnet", home=home))
    digest = Plans(load(file)).usual.digest
    rung = Rung(checked=100, accepted=3, answers_nusd=100 * 150_000, output_tokens=100 * 300)
    verdict = Verdict("judge", "escalate", "1/5", 1.0, tier="haiku")
    now = time.time()
    call = row(id=entry_id(now), at=now, task_type="classify", result="ok", tier="haiku")
    with closing(SqliteStore(home / "ledger.db")) as store:
        store.write(Record(call, verdicts=(verdict,), checks=digest, rungs={"haiku": rung}), may_wait=True)

    _, out, _ = run(capsys, SPAM, "--explain", "--config", str(file))

    text = " ".join(out.split())
    assert "begin begins at opus: haiku, 3% of 100 accepted, costs $0.0" in text
    assert "[break_even] haiku > opus" in text
    assert "\n  checks " not in out


def test_every_code_of_a_decision_belongs_to_one_phase() -> None:
    after = {Code.MISFIT, Code.UNREACHED, Code.TRUNCATED, Code.ESCAPED, Code.BUDGET_CAP, Code.CACHED}
    after |= {Code.ESCALATED, Code.NOT_ESCALATED, Code.OVERLOADED}
    after |= {Code.TRIAL}
    codes = [code for codes in PHASES.values() for code in codes]

    assert sorted(set(Code) - after) == sorted(codes)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "no prompt: leastwise route"),
        (["  "], "no prompt: leastwise route"),
        (["hi", "--tier", "gold"], "no tier is named 'gold'; the ladder has haiku, sonnet, opus"),
        (["hi", "--complexity", "hard"], 'Invalid value "hard" for --complexity'),
        (["hi", "--expected-output-tokens", "0"], "expected_output_tokens=0: expected a whole number from 1"),
        (["hi", "--max-tokens", "0"], "--max-tokens 0: expected a whole number from 1"),
        (["hi", "--assume-output-tokens", "-1"], "--assume-output-tokens -1: expected a whole number from 1"),
        (["hi", "--model", "claude-nothing-1"], "no price for model 'claude-nothing-1'"),
        (["hi", "--out", "x"], "--out needs --file"),
        (["hi", "--text-column", "x"], "--text-column needs --file"),
        (["hi", "--file", "x.txt"], "--file stands without a prompt"),
        (["--explane"], 'Invalid value "--explane" for PROMPT. unknown option --explane'),
        (["--file", "--send"], 'Invalid value "--send" for --file. unknown option --send'),
    ],
)
def test_what_cannot_be_meant(capsys: Capture, words: list[str], wrong: str) -> None:
    code, out, err = run(capsys, *words)

    assert (2, "") == (code, out)
    assert err.startswith(f"leastwise: error: {wrong}")


def test_a_ladder_that_does_not_rise_is_refused(capsys: Capture, home: Path) -> None:
    tiers = (
        '[[tier]]\nname = "a"\nmodel = "claude-opus-5-5"\n[[tier]]\nname = "b"\nmodel = "claude-haiku-5-5"\n'
    )
    (home / "leastwise.toml").write_text(tiers, encoding="utf-8")

    code, _, err = run(capsys, "hi")

    assert 2 == code
    assert "prices do not rise along the ladder: a before b" in err


def test_a_prompt_from_stdin(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"Is this spam? Gr\xfc\xdfe\n")

    assert "haiku" == as_json(capsys, "-")["tier"]


def test_nothing_is_opened_or_written(capsys: Capture, home: Path) -> None:
    assert 0 == run(capsys, SPAM)[0]
    assert ["work"] == [path.name for path in home.parent.iterdir()]


def test_three_lines_of_python_do_the_same(capsys: Capture) -> None:
    route = Planner(load(), datetime.now(UTC)).route(request_of(SPAM), Task())

    assert run(capsys, SPAM)[1].splitlines() == route_lines(route)


def test_a_dearer_choice_is_not_called_cheaper() -> None:
    planner = Planner(load(), datetime.now(UTC))
    route = planner.route(request_of(SPAM), Task(tier="opus", instead_of="haiku"))

    assert ["instead of   claude-haiku-5-5 $0.000152 (stated)", "quality      not measured"] == route_lines(
        route
    )[-2:]


# --- a file ------------------------------------------------------------------------------------


def test_a_file_of_prompts(capsys: Capture, home: Path) -> None:
    (home / "asks.txt").write_text(f"{SPAM}\n\nImplement a parser\n{VAGUE}\n{SPAM}\n", encoding="utf-8")
    shown = """\
leastwise route    4 prompts of asks.txt; nothing was sent
tier    calls  of calls  of money    cost $  baseline $
haiku       2       50%       50%  0.000303    0.012128
sonnet      0        0%        0%  0.000000    0.000000
opus        2       50%       50%  0.012152    0.012152
total       4      100%      100%  0.012455    0.024280
saved        48.7% of what the baseline costs
why          type 75%, unsure 25%
unsure       25% of calls, 25% of money
baseline     claude-opus-5-5 (assumed)
quality      not measured
Of money: of the baseline's. List prices of 23 Nov 2026, prompt tokens
estimated, answers of 300 tokens or their cap (assumed).
"""

    assert (0, shown, "next   leastwise on --percent 10\n") == run(capsys, "--file", "asks.txt")


LINES: list[tuple[object, str]] = [
    ({"prompt": SPAM}, ""),
    ({"text": "hello", "task": "classify this"}, ""),
    ({"prompt": "hello", "task": {"tier": "sonnet", "expected_output_words": 10}}, ""),
    ({"messages": [{"role": "user", "content": VAGUE}], "max_tokens": 100}, ""),
    ({"request": {"model": OPUS, "messages": [{"role": "user", "content": SPAM}]}, "response": None}, ""),
    ({"model": SONNET, "messages": [{"role": "user", "content": "Design a system"}]}, ""),
    (b"{broken", "not JSON: "),
    (b'{"prompt": "\xff"}', "not UTF-8"),
    ([1], "expected an object, got list"),
    ({"prompt": 5}, "expected messages, or prompt as a text"),
    ({"prompt": "  "}, "the prompt is empty"),
    ({"messages": ["x"]}, "messages[0]: expected an object with role and content"),
    ({"messages": [{"role": "user", "content": "x"}], "model": 7}, "model: expected a string, got 7"),
    (
        {"messages": [{"role": "user", "content": "x"}], "model": "claude-x-9"},
        "no price for model 'claude-x-9'",
    ),
    ({"prompt": "x", "task": 3}, "task: expected a text or an object, got int"),
    ({"prompt": "x", "task": {"tier": "gold"}}, "no tier is named 'gold'"),
    ({"prompt": "x", "task": {"tire": "haiku"}}, "task: 'tire' is not known; known: description, "),
    ({"prompt": "x", "task": {"description": 7}}, "task: Expected `str | null`, got `int`"),
    ({"prompt": "x", "task": {"complexity": "hard"}}, "task: Invalid enum value 'hard'"),
]


def write_lines(path: Path) -> None:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line, _ in LINES]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(encoded) + b"\n\n")


def test_bad_lines_are_told_by_number_and_the_rest_is_done(capsys: Capture, home: Path) -> None:
    write_lines(home / "asks.jsonl")

    code, out, err = run(capsys, "--file", "asks.jsonl", "--out", "routes.jsonl")

    faults = [(number, fault) for number, (_, fault) in enumerate(LINES, start=1) if fault]
    said = err.splitlines()
    assert 0 == code
    assert ["13 lines could not be read; the rest is done", "next   leastwise on --percent 10"] == said[-2:]
    assert len(faults) == len(said) - 2
    for (number, fault), line in zip(faults, said, strict=False):
        assert line.startswith(f"asks.jsonl:{number}: {fault}")
    assert "leastwise route    6 prompts of asks.jsonl; nothing was sent" == out.splitlines()[0]
    assert "Models named in the file: as if switched on." in out.replace("\n", " ")
    written = [json.loads(line) for line in (home / "routes.jsonl").read_text("utf-8").splitlines()]
    assert [
        (1, "haiku", "auto", OPUS),
        (2, "haiku", "auto", OPUS),
        (3, "sonnet", "auto", OPUS),
        (4, "opus", "auto", OPUS),
        (5, "haiku", "enforce", OPUS),
        (6, "sonnet", "enforce", SONNET),
    ] == [(row["line"], row["tier"], row["mode"], row["baseline_model"]) for row in written]
    assert "Win" not in (home / "routes.jsonl").read_text("utf-8")


def test_the_sums_of_a_file_as_json(capsys: Capture, home: Path) -> None:
    write_lines(home / "asks.jsonl")
    value = as_json(capsys, "--file", "asks.jsonl", "--out", "routes.jsonl")
    written = [
        json.loads(line, parse_float=Decimal)
        for line in (home / "routes.jsonl").read_text("utf-8").splitlines()
    ]

    assert (1, "asks.jsonl", 13, 300) == (
        value["schema"],
        value["file"],
        value["bad_lines"],
        value["assumed_output_tokens"],
    )
    for name in ("cost_usd", "baseline_usd"):
        assert value["total"][name] == sum(row[name] for row in written)
    for tier, one in value["tiers"].items():
        mine = [row for row in written if row["tier"] == tier]
        assert len(mine) == one["calls"]
        assert one["baseline_usd"] == sum(row["baseline_usd"] for row in mine)
        assert round(one["baseline_usd"] / value["total"]["baseline_usd"], 6) == one["share_of_money"]
    assert {"type": 3, "forced_tier": 1, "unsure": 1, "ceiling": 1} | {} == {
        {"asked_is_ceiling": "ceiling"}.get(code, code): one["calls"]
        for code, one in value["reasons"].items()
    }
    assert (1, 6) == (value["unsure"]["calls"], sum(each["calls"] for each in value["baselines"]))


def test_a_model_on_the_command_line_replaces_that_of_the_file(capsys: Capture, home: Path) -> None:
    write_lines(home / "asks.jsonl")

    value = as_json(capsys, "--file", "asks.jsonl", "--model", "auto")

    assert [{"model": OPUS, "how": "assumed", "calls": 8}] == value["baselines"]


def test_a_table(capsys: Capture, home: Path) -> None:
    (home / "asks.csv").write_bytes(
        b"id,text,task\n"
        b'1,"Is this spam?\nWin",\n'
        b"2,,\n"
        b"3,Summarise this \xff,\n"
        b"4,hello,classify this\n"
        b"5\n"
        b"6,a,b,c\n"
        b"7," + 140_000 * b"x" + b",\n"
        b"8,Grumpf zwirbel,\n"
    )

    code, _, err = run(capsys, "--file", "asks.csv", "--out", "routes.jsonl", "--expected-output-tokens", "5")

    written = [json.loads(line) for line in (home / "routes.jsonl").read_text("utf-8").splitlines()]
    assert 0 == code
    assert [(2, "type"), (6, "type"), (9, "signals"), (10, "signals")] == [
        (row["line"], row["reasons"][-1]["code"]) for row in written
    ]
    assert [
        "asks.csv:4: the prompt is empty",
        "asks.csv:5: not UTF-8",
        "asks.csv:7: the prompt is empty",
        "asks.csv:8: more cells than the header has",
        "4 lines could not be read; the rest is done",
    ] == err.splitlines()[:-1]


@pytest.mark.parametrize(("cap", "size"), [(10, 10), (4_000, 300), (0, 300), (-5, 300)])
def test_an_answer_is_taken_for_no_longer_than_its_cap(
    capsys: Capture, home: Path, cap: int, size: int
) -> None:
    body = {"max_tokens": cap, "messages": [{"role": "user", "content": "hello"}]}
    (home / "asks.jsonl").write_text(json.dumps(body), encoding="utf-8")

    assert 0 == run(capsys, "--file", "asks.jsonl", "--out", "routes.jsonl")[0]
    assert size == json.loads((home / "routes.jsonl").read_text("utf-8"))["output_tokens"]


@pytest.mark.parametrize("head", [b"text\ra\n", b"\xff\xfetext\n"])
def test_a_table_whose_header_is_none(capsys: Capture, home: Path, head: bytes) -> None:
    (home / "asks.csv").write_bytes(head + b"hello\n")

    code, out, err = run(capsys, "--file", "asks.csv")

    assert (2, "") == (code, out)
    assert err == "leastwise: error: asks.csv: its first line is not the header of a CSV file in UTF-8\n"


def test_a_table_with_a_column_of_another_name(capsys: Capture, home: Path) -> None:
    (home / "asks.csv").write_text("id,body\n1,Is this spam?\n", encoding="utf-8")

    assert 1 == as_json(capsys, "--file", "asks.csv", "--text-column", "body")["total"]["calls"]
    for words, wanted in ((["--text-column", "x"], "'x'"), ([], "'text' or 'prompt'")):
        expected = f"asks.csv: no column {wanted}; it has id, body. Name one: --text-column NAME"
        assert (2, "", f"leastwise: error: {expected}\n") == run(capsys, "--file", "asks.csv", *words)


@pytest.mark.parametrize(
    ("content", "form"), [(b'{"prompt": "Is this spam?"}\n', "JSON"), (b"Is this spam?\n", "text")]
)
def test_a_file_without_an_ending_and_stdin(
    capsys: Capture, home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, form: str
) -> None:
    (home / form).write_bytes(content)
    stdin(monkeypatch, content)

    assert 1 == as_json(capsys, "--file", form)["tiers"]["haiku"]["calls"]
    assert "leastwise route    1 prompt of stdin; nothing was sent\n" in run(capsys, "--file", "-")[1]


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("missing.txt", None, "missing.txt: No such file or directory; check the path and who may read it"),
        (".", None, ".: Is a directory; check the path and who may read it"),
        ("empty.jsonl", b"", "empty.jsonl: the file is empty"),
        ("blank.txt", b" \n\n", "blank.txt: the file is empty"),
        (
            "a.json",
            b'[{"prompt": "x"}]',
            "a.json: one JSON array; write one object a line: jq -c '.[]' a.json",
        ),
        ("bad.jsonl", b"{\n{\n", "bad.jsonl: not one of 2 lines could be read"),
        ("only.csv", b"text\n", "only.csv: not one of 0 lines could be read"),
    ],
)
def test_a_file_that_cannot_be_read(
    capsys: Capture, home: Path, name: str, content: bytes | None, wrong: str
) -> None:
    if content is not None:
        (home / name).write_bytes(content)

    code, out, err = run(capsys, "--file", name)

    assert (2, "") == (code, out)
    assert f"leastwise: error: {wrong}" == err.splitlines()[-1]


def test_a_tier_that_does_not_exist_is_told_once(capsys: Capture, home: Path) -> None:
    (home / "asks.txt").write_text("a\nb\n", encoding="utf-8")
    expected = "leastwise: error: no tier is named 'gold'; the ladder has haiku, sonnet, opus\n"

    assert (2, "", expected) == run(capsys, "--file", "asks.txt", "--tier", "gold")


@pytest.mark.parametrize(
    ("out", "wrong"),
    [
        ("asks.txt", "--out asks.txt: that is the file to read; name another"),
        ("no/where", "--out no/where: No such file or directory; check the path and who may write it"),
    ],
)
def test_where_decisions_cannot_be_written(capsys: Capture, home: Path, out: str, wrong: str) -> None:
    (home / "asks.txt").write_text(SPAM, encoding="utf-8")

    assert (2, "", f"leastwise: error: {wrong}\n") == run(capsys, "--file", "asks.txt", "--out", out)
    assert SPAM == (home / "asks.txt").read_text("utf-8")


def test_all_sizes_told_all_switched_off_and_a_loss(capsys: Capture, home: Path) -> None:
    (home / "asks.txt").write_text("hello\n", encoding="utf-8")

    _, out, _ = run(capsys, "--file", "asks.txt", "--expected-output-tokens", "2000", "--has-code")
    assert "answers of the size told." in out

    (home / "told.jsonl").write_text('{"prompt": "x", "task": {"instead_of": "haiku", "tier": "opus"}}\n')
    _, out, _ = run(capsys, "--file", "told.jsonl")
    assert "lost         3900.0% of what the baseline costs\n" in out
    assert "baseline     claude-haiku-5-5 (stated)\n" in out

    (home / "leastwise.toml").write_text('mode = "off"\n', encoding="utf-8")
    assert {"off": 1} == {
        code: one["calls"]
        for code, one in as_json(capsys, "--file", "asks.txt", "--model", OPUS)["reasons"].items()
    }


def test_a_reader_that_leaves_breaks_nothing(home: Path) -> None:
    (home / "asks.txt").write_text(f"{SPAM}\n" * 50, encoding="utf-8")
    program = "import sys; from leastwise.cli import main; sys.exit(main(['route', '--file', 'asks.txt']))"
    pipe = subprocess.Popen(  # noqa: S603 - this very Python
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=os.environ,
    )
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    pipe.stdout.close()

    assert b"Traceback" not in pipe.stderr.read()
    pipe.stderr.close()
    assert 1 == pipe.wait()


# --- for real ----------------------------------------------------------------------------------


def test_a_prompt_asked_for_real(capsys: Capture, server: Server) -> None:
    code, out, err = run(capsys, SPAM, "--send", "--tag", "triage", "--max-tokens", "2000")

    (billed,) = server.simulator.books
    (sent,) = server.simulator.requests
    with Runtime.open() as runtime:
        (line,) = runtime.store.sums(Query(by=("tag",)))
    line_of_outcome, following = err.splitlines()
    assert (0, "[simulated] spam\n") == (code, out)
    assert line_of_outcome.startswith(f"haiku ${Decimal(billed.nusd) / 10**9:.6f}, claude-opus-5-5 $")
    assert line_of_outcome.endswith('(assumed); type: classify ("is this spam")')
    assert following.startswith("next   leastwise why ")
    assert (("triage",), 1, billed.nusd) == (line.group, line.calls, line.spent_nusd)
    body = json.loads(sent.body)
    assert (HAIKU, 2000) == (body["model"], body["max_tokens"])
    assert 0 == main(["why", following.rpartition(" ")[2]])


def test_an_answer_that_is_checked_is_read(
    capsys: Capture, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_CASCADE_ENABLED", "true")

    code, _, err = run(capsys, SPAM, "--send")

    assert (0, "not accepted" in err) == (code, False)
    assert 1 == len(server.simulator.requests)


def test_the_answer_and_the_outcome_as_json(capsys: Capture, server: Server) -> None:
    value = as_json(capsys, SPAM, "--send")

    (billed,) = server.simulator.books
    assert "message" == value["answer"]["type"]
    assert Decimal(billed.nusd) / 10**9 == value["outcome"]["cost_usd"]
    assert "type" == value["outcome"]["reasons"][0]["code"]


def test_an_answer_without_text(capsys: Capture, server: Server) -> None:
    server.simulator.script(Answer("", stop_reason="refusal"))

    code, out, err = run(capsys, SPAM, "--send")

    assert (0, "") == (code, out)
    assert "the answer has no text; it stopped for refusal\n" in err


def test_a_missing_key(capsys: Capture) -> None:
    expected = (
        "leastwise: error: no key for upstream 'anthropic': ANTHROPIC_API_KEY is not set; "
        "set it to a key of https://api.anthropic.com\n"
    )

    assert (1, "", expected) == run(capsys, SPAM, "--send")


def test_an_upstream_that_wants_no_key(capsys: Capture, server: Server, home: Path) -> None:
    file = home / "own.toml"
    file.write_text(f'[upstream.anthropic]\nbase_url = "{server.url}"\napi_key_env = ""\n', encoding="utf-8")

    code, _, err = run(capsys, SPAM, "--send", "--config", str(file))

    assert (1, "leastwise: error: the upstream refused: 401 x-api-key header is required\n") == (code, err)


def test_a_dead_upstream(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")

    code, out, err = run(capsys, SPAM, "--send")

    assert (1, "") == (code, out)
    (line,) = err.splitlines()
    assert line.startswith("leastwise: error: no answer from http://127.0.0.1:9: Cannot connect to host ")
    assert line.endswith("; check its address: leastwise doctor")


def test_a_model_without_a_price_is_not_asked(capsys: Capture, server: Server) -> None:
    code, out, err = run(capsys, SPAM, "--send", "--model", "claude-nothing-1")

    assert (2, "", []) == (code, out, server.simulator.requests)
    assert "leastwise: error: no price for model 'claude-nothing-1'" in err


def test_explain_shows_what_was_worked_out_and_no_inner_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["route", "--explain", "Is this spam? def f(): pass"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {"has_code", "session"} <= set(names)
    assert {"opening", "has_code_told", "session_told"}.isdisjoint(names)
