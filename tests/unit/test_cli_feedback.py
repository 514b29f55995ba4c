"""`leastwise feedback`: what is kept, what it is said to count for, and what is wrong."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leastwise.cascade import Rung
from leastwise.cli import main
from leastwise.ladder import Verdict
from leastwise.ledger import Entry, Exchange, Feedback
from leastwise.messages import Usage
from leastwise.steps import Record, Settle
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, SONNET
from tests.paid import entry_id, row

Capture = pytest.CaptureFixture[str]

NOW = time.time()  # what is older than the ledger keeps would be deleted
CALL = row(
    id="X1",
    at=NOW,
    tag="triage",
    task_type="classify",
    result="ok",
    served=SONNET,
    tier="sonnet",
    decision_json="{}",
    checked="accept",
    escalations=1,
)
VERDICTS = (
    Verdict("truncation", "accept", "not cut off", tier="haiku"),
    Verdict("judge", "escalate", "2/5 (wrong)", 2.0, tier="haiku", stamp="s1"),
    Verdict("judge", "accept", "4/5", 4.0, tier="sonnet", stamp="s2"),
    Verdict("judge", "escalate", "1/5", 1.0, tier="sonnet", stamp="s2", is_control=True),
)


def entry(model: str, message_id: str, purpose: str = "answer") -> Entry:
    """Return an attempt of the call."""
    return Entry(
        id=entry_id(NOW),
        exchange_id="X1",
        purpose=purpose,  # type: ignore[arg-type]  # one of them
        provider="anthropic",
        model=model,
        asked_at=NOW,
        status=200,
        usage=Usage(),
        price_row="row",
        cost_nusd=1,
        worst_nusd=1,
        certainty="exact",
        message_id=message_id,
        request_id=f"req_{message_id}",
    )


@pytest.fixture
def ledger(home: Path) -> Path:
    """Return the configured ledger, with a call that escalated."""
    path = home / "state/leastwise/leastwise.db"
    path.parent.mkdir(parents=True)
    store = SqliteStore(path)
    tried = (entry(HAIKU, "msg_1"), entry(SONNET, "msg_2"), entry(HAIKU, "msg_3", "judge"))
    store.write(*map(Settle, tried), may_wait=True)
    rungs = {"haiku": Rung(checked=1), "sonnet": Rung(checked=1, accepted=1)}
    store.write(Record(CALL, verdicts=VERDICTS, checks="c", rungs=rungs), may_wait=True)
    store.close()
    return path


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["feedback", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def kept(ledger: Path, id_: str = "X1") -> list[Feedback]:
    store = SqliteStore(ledger)
    story = store.find(id_)
    store.close()
    assert story is not None
    return list(story.feedback)


def write(ledger: Path, *rows: Exchange) -> None:
    store = SqliteStore(ledger)
    store.write(*map(Record, rows), may_wait=True)
    store.close()


@pytest.mark.parametrize("any_id", ["X1", " msg_2 ", "req_msg_2", "msg_3"])
def test_a_word_counts_for_the_tier_that_answered(capsys: Capture, ledger: Path, any_id: str) -> None:
    code, out, err = run(capsys, any_id, "--bad", "--note", "wrong city")

    (said,) = kept(ledger)
    assert (0, "next   leastwise why X1\n") == (code, err)
    assert ("sonnet", False, "user", "wrong city") == (said.tier, said.ok, said.source, said.note)
    text = " ".join(out.split())
    assert text.startswith("call X1 ")
    assert "UTC, sonnet answered, tag triage, type classify said bad, by user: wrong city counts" in text
    assert text.endswith(
        "counts against sonnet at classify, whose answer the checks had accepted; "
        "for calibrating judge, which gave it 4"
    )
    assert 80 >= max(map(len, out.splitlines()))


def test_an_answer_that_nobody_got_is_meant_by_its_own_id(capsys: Capture, ledger: Path) -> None:
    code, out, err = run(capsys, "msg_1", "--ok", "--source", "tests")

    (said,) = kept(ledger)
    assert ("haiku", True, "tests") == (said.tier, said.ok, said.source)
    assert (0, "next   leastwise tune calibrate --dry-run\n") == (code, err)
    assert "for haiku at classify, whose answer the checks had not accepted" in " ".join(out.split())


def test_an_answer_off_the_ladder_goes_by_its_model(capsys: Capture, ledger: Path) -> None:
    store = SqliteStore(ledger)
    store.write(Settle(entry("claude-haiku-4-5", "msg_4")), may_wait=True)
    store.close()

    assert 0 == run(capsys, "msg_4", "--ok")[0]
    assert ["claude-haiku-4-5"] == [said.tier for said in kept(ledger)]


def test_who_is_believed_more_goes_before(capsys: Capture, ledger: Path) -> None:
    run(capsys, "X1", "--bad")
    _, out, _ = run(capsys, "X1", "--ok", "--source", "agreement")
    value = json.loads(run(capsys, "X1", "--ok", "--source", "tests", "--json")[1])

    assert "counts       not yet: bad, by user goes before\n" in out
    assert {
        "schema": 1,
        "report": "feedback",
        "exchange": "X1",
        "tier": "sonnet",
        "tag": "triage",
        "task_type": "classify",
        "ok": True,
        "source": "tests",
        "note": "",
        "counts": False,
        "scores": [{"check": "judge", "score": 4.0, "stamp": "s2"}],
    } == value
    assert ["user", "agreement", "tests"] == [said.source for said in kept(ledger)]


def test_a_kept_answer_counts_for_the_call_that_paid(capsys: Capture, ledger: Path) -> None:
    hit = replace(CALL, id="X2", cache="hit", decision_json='{"paid_by":"X1"}')
    write(ledger, hit, replace(hit, id="X3", decision_json="{}"))

    assert 0 == run(capsys, "X2", "--ok")[0]
    assert 1 == len(kept(ledger))
    code, _, err = run(capsys, "X3", "--ok")
    assert (1, True) == (
        code,
        err.startswith("leastwise: error: nothing is known of 'X3', so nothing can be"),
    )
    assert err.endswith(f". Searched: exchange ids, msg_... ids and request-ids in {ledger}\n")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"task_type": "", "tag": ""}, "counts for sonnet, whose answer nothing had checked"),
        ({"tier": ""}, f"counts for {SONNET} at classify, whose answer nothing had checked"),
    ],
)
def test_what_nothing_had_checked(capsys: Capture, ledger: Path, facts: dict[str, str], words: str) -> None:
    write(ledger, replace(CALL, id="X2", **facts))  # type: ignore[arg-type]  # texts

    _, out, err = run(capsys, "X2", "--ok")

    assert words in " ".join(out.split())
    assert "next   leastwise tune table\n" == err


def test_of_what_checks_could_not_tell(capsys: Capture, ledger: Path) -> None:
    store = SqliteStore(ledger)
    verdict = Verdict("judge", "abstain", "the judge gave no score", tier="sonnet")
    store.write(Record(replace(CALL, id="X2"), verdicts=(verdict,), checks="c"), may_wait=True)
    store.close()

    assert "whose answer the checks had no word on" in " ".join(run(capsys, "X2", "--ok")[1].split())


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        ([], 2, "say of one call whether it was good"),
        (["X1"], 2, "say of one call whether it was good"),
        (["X1", "--ok", "--bad"], 2, "say of one call whether it was good"),
        (["X1", "--ok", "--from", "x.csv"], 2, "--from stands without a call, --ok, --bad and --note"),
        (["--from", "x.csv"], 2, "x.csv: No such file or directory"),
        (["X9", "--ok"], 1, "nothing is known of 'X9', so nothing can be said of it"),
        (["X0", "--ok"], 1, "nobody answered 'X0', so nothing can be said of the answer"),
        (["X1", "--ok", "--source", "me"], 2, 'Invalid value "me" for --source'),
    ],
)
def test_what_cannot_be_meant(capsys: Capture, ledger: Path, words: list[str], code: int, fault: str) -> None:
    write(ledger, replace(CALL, id="X0", served="", tier="", result="error"))

    assert (code, "") == (found := run(capsys, *words))[:2]
    assert found[2].startswith(f"leastwise: error: {fault}")
    assert [] == kept(ledger)


@pytest.mark.parametrize("words", [["X1", "--ok"], ["--from", "labels.csv"]])
def test_without_a_ledger_nothing_is_known(capsys: Capture, home: Path, words: list[str]) -> None:
    (home / "labels.csv").write_text("id,ok\nX1,1\n", "utf-8")

    code, _, err = run(capsys, *words)

    assert 1 == code
    assert err.startswith("leastwise: error: there is no ledger yet")
    assert not (home / "state").exists()


# --- a file ------------------------------------------------------------------------------------------


def test_a_file_says_many_at_once_and_every_wrong_row_is_told(
    capsys: Capture, home: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.cli.feedback._AT_ONCE", 2)
    write(ledger, *(replace(CALL, id=f"Y{number}") for number in range(5)))
    text = b"id,ok,note\nX1,yes,\nY0,0,late\nmsg_9,1,\nY1,maybe,\nY2,1,\xff\nY3,ok,\nY4,bad,\n"
    (home / "labels.csv").write_bytes(text)

    code, out, err = run(capsys, "--from", "labels.csv", "--source", "tests")

    assert (1, "4 answers: 2 ok, 2 bad; 1 of them have a score\n") == (code, out)
    assert [
        "labels.csv:4: nothing is known of 'msg_9', so nothing can be said of it",
        "labels.csv:5: ok = 'maybe': expected true or false, yes or no, 1 or 0, ok or bad",
        "labels.csv:6: not UTF-8",
        "3 rows could not be kept; the rest is",
        "next   leastwise tune calibrate --dry-run",
    ] == sorted(err.splitlines()[:3]) + err.splitlines()[3:]
    assert [("late", False, "tests")] == [(one.note, one.ok, one.source) for one in kept(ledger, "Y0")]
    assert [True] == [one.ok for one in kept(ledger, "Y3")]
    assert [] == kept(ledger, "Y2")


def test_a_file_of_which_nothing_could_be_kept(capsys: Capture, home: Path, ledger: Path) -> None:
    write(ledger)
    (home / "labels.csv").write_text("id,ok\nmsg_9,1\n", "utf-8")

    _, _, err = run(capsys, "--from", "labels.csv")

    assert "1 row could not be kept" == err.splitlines()[-2]


def test_a_file_as_json(capsys: Capture, home: Path, ledger: Path) -> None:
    write(ledger, replace(CALL, id="Y0"))
    (home / "labels.jsonl").write_text('{"id": "Y0", "ok": false}\n', "utf-8")

    code, out, err = run(capsys, "--from", "labels.jsonl", "--json")

    expected: dict[str, Any] = {"schema": 1, "report": "feedback", "kept": 1, "ok": 0, "bad": 1}
    assert (0, {**expected, "scored": 0, "wrong_lines": []}) == (code, json.loads(out))
    assert "next   leastwise tune table\n" == err
