"""A cascade as its user sees it: cheap first, judged, told whether it was right, calibrated, explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.cli import main
from leastwise.config import load
from leastwise.simulate import Simulator, serve

Capture = pytest.CaptureFixture[str]

#: The top tier is so dear that judging pays even for such small answers.
CONFIG = """
mode = "enforce"
[store]
url = "sqlite:///{home}/ledger.db"
[cascade]
enabled = true
judge = "sonnet"
controls = 0.5
[[price]]
model = "claude-opus-5-5"
input = 500
output = 2500
since = 2026-01-01
"""
CALLS = 90


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration whose ledger holds calls: a quarter of haiku's answers are wrong.

    The judge sees that; what was served is said to be good, but for the first answer.
    """
    monkeypatch.setenv("LEASTWISE_CONFIG", "")
    path = tmp_path / "leastwise.toml"
    path.write_text(CONFIG.format(home=tmp_path), "utf-8")
    runtime = Runtime(load(path))
    labels = []
    with serve(simulator=Simulator(error_rate={"haiku": 0.25})) as server:
        client = leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0)
        with client:
            for number in range(CALLS):
                message = client.messages.create(
                    model="auto",
                    max_tokens=1024,
                    messages=[{"role": "user", "content": f"Is this spam? Win ${number} now!!!"}],
                    task=leastwise.Task(tag="triage", check="judge"),
                )
                labels.append({"id": message.id, "ok": number > 0})
        client.feedback(labels[0]["id"], ok=False, note="wrong")
    runtime.close()
    lines = "".join(f"{json.dumps(label)}\n" for label in labels)
    (tmp_path / "labels.jsonl").write_text(lines, "utf-8")
    return path


def run(capsys: Capture, file: Path, *words: str) -> dict[str, Any]:
    code = main([*words, "--config", str(file), "--json"])
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert 0 == code
    return value


def test_a_cascade_from_feedback_to_a_threshold(file: Path, capsys: Capture) -> None:
    said = run(capsys, file, "feedback", "--from", str(file.parent / "labels.jsonl"))
    assert (CALLS, CALLS - 1, 1) == (said["kept"], said["ok"], said["bad"])

    total = run(capsys, file, "report")["total"]
    assert CALLS == total["checked_calls"]
    assert total["calls"] / 10 < total["escalated_calls"] < total["calls"] / 2
    assert total["checks_usd"] > 0 < total["discarded_usd"]

    before = run(capsys, file, "tune", "calibrate", "--dry-run")
    found = run(capsys, file, "tune", "calibrate", "--target", "0.1")
    haiku = next(maker for maker in found["makers"] if maker["maker"] == "haiku")
    whole = haiku["types"][0]
    assert CALLS == haiku["scored"]
    assert CALLS - total["escalated_calls"] == whole["n"]
    assert (5.0, 2) == (whole["threshold"], found["kept"])
    assert 0 == before["kept"] or before["target"] < found["target"]
    assert 0 == haiku["planted"]["k"] < haiku["planted"]["n"]

    row = next(
        row
        for row in run(capsys, file, "tune", "table")["rows"]
        if (row["type"], row["tier"]) == ("classify", "haiku")
    )
    assert CALLS == row["checked"]
    assert CALLS - total["escalated_calls"] == row["told"]


def test_why_an_answer_escalated(file: Path, capsys: Capture) -> None:
    labels = [json.loads(line) for line in (file.parent / "labels.jsonl").read_text("utf-8").splitlines()]
    told = [run(capsys, file, "why", label["id"]) for label in labels[:20]]

    climbed = next(one for one in told if one["escalations"])
    plain = next(one for one in told if not one["escalations"] and not one["feedback"])

    first = climbed["escalations"][0]
    assert ("claude-haiku-5-5", "claude-opus-5-5") == (first["before"], climbed["served"])
    assert 0 < first["discarded_usd"] <= climbed["discarded_usd"]
    judged = [one for one in climbed["checks"] if one["check"] == "judge" and not one["is_control"]]
    assert ("haiku", "escalate", 1.0) == tuple(judged[0][name] for name in ("tier", "says", "score"))
    assert all(one["cost_usd"] > 0 and one["stamp"] for one in judged)
    assert f"leastwise feedback {plain['exchange']} --bad" == plain["next"]
    assert [(False, "wrong")] == [(one["ok"], one["note"]) for one in told[0]["feedback"]]
