"""`leastwise report` and `leastwise why`: what is printed where, and how they end."""

from __future__ import annotations

import csv
import io
import json
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from leastwise.budget import BudgetRule
from leastwise.cli import main
from leastwise.ledger import Entry, Exchange
from leastwise.messages import Usage
from leastwise.report.ledger import CSV_COLUMNS
from leastwise.steps import Record, Settle
from leastwise.stores.sqlite import SqliteStore
from tests.paid import paid, settle

DATA = Path(__file__).parents[1] / "data"
OPUS = "claude-opus-5-5"
CALL = Exchange(
    id="X1",
    at=datetime(2026, 11, 18, 14, tzinfo=UTC).timestamp(),
    tenant="local",
    key="prod",
    session="",
    tag="triage",
    kind="message",
    mode="observe",
    asked=OPUS,
    served=OPUS,
    tier="opus",
    upstream="anthropic",
    would="claude-haiku-5-5",
    result="ok",
    status=200,
    decision_json='{"sure":true,"reasons":[["observed","observed: as asked","",""]]}',
    policy_hash="7f3a",
    baseline=OPUS,
    baseline_how="asked",
    baseline_nusd=4_000_000_000,
    spent_nusd=4_000_000_000,
    discarded_nusd=0,
    saved_nusd=0,
    could_nusd=3_900_000_000,
    arm="treated",
    complexity="simple",
    task_type="classify",
    certainty="exact",
    input_tokens=1_000_000,
    output_tokens=0,
    latency_s=2.0,
    fault="",
)
ENTRY = Entry(
    id="E1",
    exchange_id="X1",
    purpose="answer",
    provider="anthropic",
    model=OPUS,
    asked_at=CALL.at,
    status=200,
    usage=Usage(input_tokens=1_000_000),
    price_row="anthropic/claude-opus-5-5@2026-09-22",
    cost_nusd=4_000_000_000,
    worst_nusd=5_000_000_000,
    certainty="exact",
    message_id="msg_01Ab",
    request_id="req_7",
)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the configured ledger; no file is there yet."""
    path = tmp_path / "state" / "leastwise.db"
    monkeypatch.setenv("LEASTWISE_STORE_URL", f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def kept(ledger: Path) -> Path:
    """The path of the configured ledger, with one call in it."""
    store = SqliteStore(ledger)
    store.write(Settle(ENTRY), may_wait=True)
    store.write(Record(CALL), may_wait=True)
    store.close()
    return ledger


def test_a_report_is_printed_and_the_next_command_is_talk(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["report", "--month", "2026-11"])

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert code == 0
    assert lines[:2] == [
        "OBSERVING: every call goes to the model it asked for. Up to $3.90 of $4.00 could",
        "move, quality unknown. Switch on: leastwise on",
    ]
    assert lines[2] == "leastwise report   1-30 Nov 2026 UTC   1 call, all keys   mode: observe"
    assert lines[-1] == f"store        {kept}"
    assert err == "next   leastwise on\n"


def test_a_report_tells_how_full_budgets_are(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kept.parent / "leastwise.toml"
    file.write_text('[[budget]]\nname = "job"\nlimit_usd = 5\nwindow = "total"\n', "utf-8")
    monkeypatch.setenv("LEASTWISE_CONFIG", str(file))
    with closing(SqliteStore(kept)) as store:
        settle(store, paid(BudgetRule("job", 1, window="total"), time.time(), 4))

    assert main(["report", "--month", "2026-11"]) == 0

    assert "budget       job 80% of $5.00" in capsys.readouterr().out.splitlines()


def test_a_report_by_several_names_as_csv(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--month", "2026-11", "--by", "tag, key", "--csv"]) == 0

    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["tag", "key", *CSV_COLUMNS]
    assert row[:3] == ["triage", "prod", "1"]
    assert kept.exists()


def test_a_report_as_json_names_its_schema(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--since", "2026-11-18", "--until", "2026-11-18", "--json"]) == 0

    value = json.loads(capsys.readouterr().out)
    assert (value["schema"], value["report"], value["store"]) == (1, "ledger", str(kept))
    assert value["total"]["could_save_usd"] == 3.9
    assert value["first_day"] == "2026-11-18"


def test_a_ledger_that_does_not_exist_is_not_made(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 0

    out, err = capsys.readouterr()
    assert "no call recorded yet. To record, in the program that calls:" in out.splitlines()
    assert err == "next   leastwise demo\n"
    assert not ledger.exists()


@pytest.mark.usefixtures("ledger")
def test_a_usage_export_with_bad_lines_is_reported_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    path = DATA / "usage/broken.csv"

    code = main(["report", str(path), "--by", "key"])

    out, err = capsys.readouterr()
    assert code == 0
    assert out.splitlines()[1] == "spent $12.00 at list, each row at the price of its day"
    assert (
        err.splitlines()[0] == f"{path}:3: usage_date_utc: expected a day such as 2026-11-03, got 'yesterday'"
    )
    assert err.splitlines()[-1] == "next   leastwise report calls.jsonl"


@pytest.mark.usefixtures("ledger")
def test_a_file_of_requests_goes_through_the_router(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(DATA / "logs/calls.jsonl"), "--json"]) == 0

    out, err = capsys.readouterr()
    value = json.loads(out)
    assert (value["report"], value["could_move"]["calls"]) == ("messages", 3)
    assert err == "next   leastwise on --percent 10\n"


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--csv", "--json"], "--csv and --json: give one of them"),
        (["--by", "colour"], "--by colour: the ledger is summed by tag, tier, key, day, served, asked"),
        (["--month", "May"], "--month May: expected a year and a month, such as 2026-11"),
        (["missing.csv"], "missing.csv: No such file or directory; check the path and who may read it"),
        ([str(DATA / "usage/november.csv"), "--days", "3"], "a file is read whole: leave out --days"),
        ([str(DATA / "usage/november.csv"), "--by", "tag"], "--by tag: a usage export is summed by model"),
        ([str(DATA / "logs/calls.jsonl"), "--by", "tag"], "--by tag: a file of requests is summed by where"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *words]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"leastwise: error: {fault}")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("call", ["X1", "msg_01Ab", " req_7 "])
def test_a_call_is_found_by_any_of_its_ids(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", call]) == 0

    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "call X1   18 Nov 2026 14:00:00 UTC",
        "asked        claude-opus-5-5    answered claude-opus-5-5 (opus)",
    ]
    assert err == "next   leastwise on --tag triage --percent 10\n"


@pytest.mark.usefixtures("kept")
def test_a_call_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "X1", "--json"]) == 0

    value = json.loads(capsys.readouterr().out)
    assert (value["schema"], value["report"], value["same_quality"]) == (1, "why", "as asked")
    assert value["attempts"][0]["reserved_usd"] == 5


def test_an_unknown_call_says_what_was_searched(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "msg_nope"]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == (
        f"leastwise: error: nothing is known of 'msg_nope'. "
        f"Searched: exchange ids, msg_... ids and request-ids in {kept}"
    )


def test_without_a_ledger_nothing_is_known_and_none_is_made(ledger: Path) -> None:
    assert main(["why", "X1"]) == 1
    assert not ledger.exists()


def test_a_later_call_of_the_same_message_id_is_not_mixed_up(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SqliteStore(kept)
    store.write(
        Settle(replace(ENTRY, id="E2", exchange_id="X2", message_id="msg_02", request_id="")), may_wait=True
    )
    store.write(Record(replace(CALL, id="X2")), may_wait=True)
    store.close()

    assert main(["why", "msg_02"]) == 0
    assert capsys.readouterr().out.startswith("call X2")
