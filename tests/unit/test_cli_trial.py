"""`leastwise trial`: calls from a file, trials that running clients take up, and what others say of them."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import Runtime
from leastwise.cascade import Trial
from leastwise.cascade.trials import OpenTrial, Pairs
from leastwise.cli import main
from leastwise.config import load
from leastwise.ladder import DEFAULT_LADDER, Ladder, Tier
from leastwise.report.ledger import ledger_json, ledger_lines, read_ledger
from leastwise.report.trials import TrialReport, standing_lines, trial_json, trial_lines
from leastwise.report.window import Window, read_window
from leastwise.simulate import Ask, Server, Simulator, serve
from leastwise.simulate.rules import refuse
from leastwise.steps import Record
from leastwise.stores import Query
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, NOW, OPUS, SONNET
from tests.paid import row

USAGE = {"input_tokens": 200, "output_tokens": 10}  # $0.000025 on haiku, $0.001 on opus
LONG = "The delivery arrived on time, and everything was in order. Nothing has to be done about it now."
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory in a home of this test's own."""
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start a simulated upstream that answers by a script, and have the configuration name it."""
    opened: list[Any] = []

    def start(script: Callable[[Ask], str | None] = lambda _: None) -> Server:
        running = serve(simulator=Simulator(answers=script))
        opened.append(running)
        server = running.__enter__()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        return server

    yield start
    for one in opened:
        one.__exit__(None, None, None)


def line(ask: str, answer: str, *, model: str = OPUS, **given: Any) -> dict[str, Any]:
    """Return a recorded call."""
    request = {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": ask}]}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": answer}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    }
    return {"at": "2026-11-20T12:00:00Z", "tag": "mail", "request": request, "response": message, **given}


def write(home: Path, *lines: dict[str, Any]) -> str:
    path = home / "calls.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
    return path.name


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["trial", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(capsys: Capture, *words: str) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert 0 == code, err
    value: dict[str, Any] = json.loads(out, parse_float=Decimal)
    return value


def ledger() -> SqliteStore:
    return SqliteStore(load().store.path)


# --- calls from a file -----------------------------------------------------------------------------

CALLS = [
    *(line(f"Is this spam? {number}", "spam") for number in range(40)),
    *(line(f"What happened? {number}", LONG) for number in range(20)),
]


def answers(ask: Ask) -> str | None:
    if "output_config" in ask.body:
        return '{"better": "same"}'
    if "spam" in ask.text:
        return "ham" if ask.text.endswith(" 7") else "spam"
    return "It arrived."


def test_a_file_is_tried(serving: Any, home: Path, capsys: Capture) -> None:
    server = serving(answers)
    file = write(home, *CALLS, line("x", "y", model=HAIKU), line("x", "y", tag="chat"))
    code, out, err = run(capsys, "mail", "--from", file)

    spent = sum(charge.nusd for charge in server.simulator.books)
    assert (
        """\
leastwise trial   tag mail on haiku   calls.jsonl

compared by    pairs  as good      %   95% interval
exact             40       39   97.5   86.8 to 99.9
judge by opus     20       20  100.0  83.2 to 100.0
all               60       59   98.3  91.1 to 100.0

a call       $0.001000 on claude-opus-5-5, $0.000014 on haiku
cost         $0.02 of at most $3.00
so           haiku is as good as claude-opus-5-5 in >=92.3% of the calls, 95%
             sure
"""
        == out
    )
    assert [
        "left out: 1 call, answered by claude-haiku-5-5, no dearer than haiku",
        "left out: 1 call, of tag chat",
        "next   leastwise on --tag mail",
    ] == err.splitlines()
    assert 0 == code
    with closing(ledger()) as store:
        (found,) = store.evidence("").trials.values()
        assert spent == sum(one.spent_nusd for one in store.sums(Query(by=("mode",))))
    assert ("mail", "haiku", OPUS, "exact 40, judge by opus 20", 60, 59, spent, HAIKU) == (
        found.tag,
        found.tier,
        found.against,
        found.compared,
        found.n,
        found.agreed,
        found.cost_nusd,
        found.model,
    )


def test_what_is_compared_tells_what_the_judges_scores_are_worth(
    serving: Any, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judging(ask: Ask) -> str | None:
        scores = (
            "score" in ask.body.get("output_config", {}).get("format", {}).get("schema", {})["properties"]
        )
        if not scores:
            return '{"better": "same"}'
        return json.dumps({"fault": "none", "score": 2 if '"answer": "ham"' in ask.text else 5})

    monkeypatch.setenv("LEASTWISE_CASCADE_JUDGE", "sonnet")
    server = serving(lambda ask: judging(ask) if "output_config" in ask.body else answers(ask))
    spam = [line(f"Is this spam? {number % 10}", "spam") for number in range(100)]
    code, out, err = run(capsys, "mail", "--from", write(home, *spam), "--score", "--dry-run")
    assert (0, 0) == (code, len(server.simulator.books))
    most = out.splitlines()[1]

    code, out, err = run(capsys, "mail", "--from", write(home, *spam), "--score")

    assert 0 == code, err
    assert "next   leastwise tune calibrate" == err.splitlines()[-1]
    assert [100, 100] == [
        sum(charge.model == model for charge in server.simulator.books) for model in (HAIKU, SONNET)
    ]
    code = main(["tune", "calibrate", "--json", "--target", "0.05"])
    (maker,) = json.loads(capsys.readouterr().out)["makers"]
    found = maker["types"][0]
    assert (0, "haiku", 100, 5.0) == (code, maker["maker"], found["n"], found["threshold"])
    _, plain, _ = run(capsys, "mail", "--from", write(home, *spam), "--dry-run")
    assert most != plain.splitlines()[1]  # what scoring costs is in what it can cost
    code, _, err = run(capsys, "mail", "--score")
    assert 2 == code
    assert "--score needs --from FILE" in err


def test_a_sample_is_drawn_and_drawn_again(serving: Any, home: Path, capsys: Capture) -> None:
    server = serving(answers)
    file = write(home, *CALLS)

    def asked(*words: str) -> list[bytes]:
        server.simulator.requests.clear()
        found = as_json(capsys, "mail", "--from", file, "--n", "5", "--compare", "exact", *words)
        assert (5, 5) == (found["wanted"], found["compared"])
        return sorted(seen.body for seen in server.simulator.requests)

    first = asked()
    assert first == asked("--seed", "0", "--jobs", "1")
    assert first != asked("--seed", "1")
    assert 5 == len(set(first))


def test_streams_betas_and_lines_that_cannot_be_used(serving: Any, home: Path, capsys: Capture) -> None:
    server = serving(answers)
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": {"model": OPUS, "content": [], "usage": USAGE}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "spam"}}),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 10}}),
        ("message_stop", {}),
    ]
    stream = "".join(
        f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n" for name, data in events
    )
    file = write(
        home,
        line("spam?", "", response=stream, betas=["context-1m-2025-08-07"], tag=""),
        line("spam?", "", response=None, error="APIError: no"),
        line("spam?", "spam", request={"model": OPUS}),
        line("spam?", " "),
    )
    code, out, err = run(capsys, "mail", "--from", file)

    assert (0, True) == (code, "exact            1        1  100.0" in out)
    assert [
        "calls.jsonl:3: messages: expected a list of {role, content}",
        "left out: 1 call, has no answer",
        "left out: 1 call, its answer is empty",
        "next   leastwise trial mail --tier haiku --n 500",
    ] == err.splitlines()
    assert "context-1m-2025-08-07" == server.simulator.requests[0].headers["anthropic-beta"]


def test_a_function_of_ones_own_compares(serving: Any, home: Path, capsys: Capture) -> None:
    serving(answers)
    (home / "own_checks.py").write_text(
        "class Same:\n"
        "    @staticmethod\n"
        "    def kind(request, measure, answer):\n"
        "        return measure.text[0] == answer.text[0]\n"
        "async def slow(request, measure, answer):\n"
        "    return True\n",
        "utf-8",
    )
    file = write(home, *CALLS[:10])

    found = as_json(capsys, "mail", "--from", file, "--compare", "own_checks:Same.kind")
    assert [("own_checks:Same.kind", 10, 9)] == [
        (one["compared_by"], one["n"], one["agreed"]) for one in found["by"]
    ]
    found = as_json(capsys, "mail", "--from", file, "--compare", "own_checks:slow")
    assert [10] == [one["agreed"] for one in found["by"]]


def test_it_never_costs_more_than_it_may(serving: Any, home: Path, capsys: Capture) -> None:
    server = serving(answers)
    code, out, err = run(
        capsys, "mail", "--from", write(home, *CALLS), "--max-usd", "0.03", "--compare", "judge"
    )

    spent = sum(charge.nusd for charge in server.simulator.books)
    assert 0 < spent <= 30_000_000
    assert 0 == code
    assert "the trial's money is used up" in out
    assert ": --max-usd is used up" in err


def test_what_was_done_is_kept_when_it_is_interrupted(
    serving: Any, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = asyncio.run

    def interrupted(work: Coroutine[Any, Any, None]) -> None:
        really(work)
        raise KeyboardInterrupt

    serving(answers)
    monkeypatch.setattr(asyncio, "run", interrupted)
    code, out, err = run(capsys, "mail", "--from", write(home, *CALLS[:5]))

    assert (130, True) == (code, "exact            5" in out)
    assert "stopped after 5 of 5: interrupted\n" in err
    with closing(ledger()) as store:
        assert [5] == [one.n for one in store.evidence("").trials.values()]


def test_an_upstream_that_refuses_everything_ends_it(serving: Any, home: Path, capsys: Capture) -> None:
    serving(lambda _: refuse("no", 403, "permission_error"))
    code, out, err = run(capsys, "mail", "--from", write(home, *CALLS), "--jobs", "1")

    assert 1 == code
    assert "not compared 10 upstream error 403\n" in out
    assert "so           nothing was compared, so nothing is known\n" in out
    assert "stopped after 10 of 60: 10 calls in a row without an answer: leastwise doctor\n" in err


def test_a_missing_key_is_told_before_anything_is_sent(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    code, out, err = run(capsys, "mail", "--from", write(home, *CALLS))

    assert (1, "") == (code, out)
    assert "no key for upstream 'anthropic': ANTHROPIC_API_KEY is not set" in err


def test_progress_is_shown_on_a_terminal(
    serving: Any, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    serving(answers)
    file = write(home, *CALLS[:5])
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert 0 == main(["trial", "mail", "--from", file])
    assert "5/5" in terminal.getvalue()
    capsys.readouterr()


def test_a_dry_run_sends_nothing(serving: Any, home: Path, capsys: Capture) -> None:
    server = serving(answers)
    file = write(home, *CALLS, line("x", "y", model=HAIKU))
    code, out, err = run(capsys, "mail", "--from", file, "--n", "50", "--max-usd", "0.5", "--dry-run")

    assert ("tag mail on haiku: 60 calls at hand, 50 of them would be tried\n", 0) == (
        out.splitlines(keepends=True)[0],
        code,
    )
    assert "at most: all could cost $" in out
    assert "--max-usd is $0.50" in out
    assert "left out: 1 call, answered by claude-haiku-5-5, no dearer than haiku\n" in err
    found = as_json(capsys, "mail", "--from", file, "--dry-run")
    assert (60, 60, 1) == (found["calls_at_hand"], found["would_try"], sum(found["left_out"].values()))
    assert 0 < found["most_usd"] == found["all_of_them_most_usd"] < 3
    assert [] == server.simulator.requests


def test_an_empty_file_is_refused(home: Path, capsys: Capture) -> None:
    assert (2, "", "leastwise: error: calls.jsonl: it is empty\n") == run(
        capsys, "mail", "--from", write(home)
    )


def test_a_file_without_such_calls_says_what_to_do(home: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "mail", "--from", write(home, line("x", "y", tag="chat")))

    assert (1, "") == (code, out)
    assert [
        "leastwise: error: calls.jsonl: no call of tag mail is one to try on haiku",
        "left out: 1 call, of tag chat",
        'next   leastwise.record(client, "calls.jsonl") in the program that calls',
    ] == err.splitlines()


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([" "], "the tag is empty"),
        (["mail", "--tier", "gold"], "no tier is named 'gold'"),
        (["mail", "--tier", "opus"], "--tier opus: nothing on the ladder is dearer"),
        (["mail", "--judge", "gold"], "no tier is named 'gold'"),
        (["mail", "--n", "0"], '"0" for --n'),
        (["mail", "--jobs", "65"], '"65" for --jobs'),
        (["mail", "--max-usd", "0"], "--max-usd 0: expected more than nothing"),
        (["mail", "--max-usd", "much"], "--max-usd = 'much': expected dollars"),
        (["mail", "--compare", "vibes"], "--compare vibes: expected auto, exact, json, judge, or a function"),
        (["mail", "--compare", "own:f"], "--compare own:f: running clients import nothing"),
        (["mail", "--from", "gone.jsonl"], "gone.jsonl: No such file"),
        (
            ["mail", "--from", "x", "--compare", "no_such:f"],
            "--compare no_such:f cannot be imported: ModuleNotFoundError: No module named 'no_such'",
        ),
        (["mail", "--from", "x", "--compare", "json:"], "--compare json: cannot be imported: "),
        (
            ["mail", "--from", "x", "--compare", "json:codecs"],
            "--compare json:codecs is a module: expected a function",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], wrong: str, capsys: Capture) -> None:
    code, out, err = run(capsys, *words)

    assert (2, "", True) == (code, out, wrong in err), err


# --- trials that running clients take up -----------------------------------------------------------


def test_a_trial_is_opened_shown_and_ended(capsys: Capture) -> None:
    assert (1, "") == run(capsys, "mail", "--status")[:2]

    code, out, err = run(capsys, "mail", "--n", "30", "--max-usd", "2", "--dry-run")
    assert (0, "next   leastwise trial mail --n 30 --max-usd 2\n") == (
        code,
        err.splitlines(keepends=True)[-1],
    )
    assert out.startswith("would open: clients that use ")
    assert (1, "") == run(capsys, "mail", "--status")[:2]

    code, out, err = run(capsys, "mail", "--n", "30", "--max-usd", "2", "--judge", "sonnet")
    assert 0 == code
    assert (
        "  30 calls of tag mail on haiku, for at most $2.00\n  0 calls of this tag in the last seven days\n"
        in out
    )
    assert [
        "no call of this tag was seen; calls get it by Task(tag='mail'), in running clients",
        "next   leastwise trial mail --status",
    ] == err.splitlines()
    with closing(ledger()) as store:
        (found,) = store.open_trials()
        assert ("mail", "haiku", HAIKU, "auto", "sonnet", 30, 2 * 10**9) == (
            found.tag,
            found.tier,
            found.model,
            found.compare,
            found.judge,
            found.wanted,
            found.limit_nusd,
        )
        store.add_pairs(found.id, Pairs("exact", OPUS, 20, 20, 200, 2000, 200))
        store.add_pairs(found.id, Pairs("did not fit haiku", n=3))

    code, out, err = run(capsys, "mail", "--tier", "sonnet")
    assert (1, "") == (code, out)
    assert "a trial of tag mail is open already: --status shows it, --stop ends it" in err

    code, out, err = run(capsys, "mail", "--status")
    assert (0, True, True) == (
        code,
        "on haiku   open since " in out,
        "not compared 3 did not fit haiku\n" in out,
    )
    assert ["20 of 30 compared so far", "next   leastwise trial mail --stop"] == err.splitlines()
    assert 20 == as_json(capsys, "mail", "--status")["compared"]

    code, out, err = run(capsys, "mail", "--stop")
    assert (0, True) == (code, "on haiku   ended " in out)
    assert "next   leastwise trial mail --tier haiku --n 40\n" == err
    beware = "beware       ended after 20 of 30: less than 95% sure if for what it showed\n"
    assert (True, False) == (beware in out, "before " in out)
    code, out, err = run(capsys, "mail", "--stop")
    assert (1, "") == (code, out)
    assert [
        "leastwise: error: no trial of tag mail is open",
        "next   leastwise trial mail --status",
    ] == err.splitlines()
    code, out, err = run(capsys, "mail", "--status")
    assert (0, "next   leastwise trial mail --tier haiku --n 500\n") == (code, err)
    assert "haiku as good as claude-opus-5-5 in >=86.0%, n 20 (exact)\n" in out
    assert [out.strip()] == as_json(capsys, "mail", "--status")["shown"]


def test_a_ledger_in_memory_has_no_other_clients(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASTWISE_STORE_URL", ":memory:")
    code, _, err = run(capsys, "mail")

    assert (2, True) == (code, "the ledger is in memory" in err)


def test_a_trial_of_a_tier_that_is_gone_can_be_ended(home: Path, capsys: Capture) -> None:
    run(capsys, "mail")
    tiers = ("small", HAIKU), ("big", OPUS)
    rows = (f'[[tier]]\nname = "{name}"\nmodel = "{model}"\n' for name, model in tiers)
    (home / "leastwise.toml").write_text("".join(rows), "utf-8")
    code, out, _ = run(capsys, "mail", "--stop")

    assert (0, True) == (code, "tag mail on haiku   ended" in out)


def test_opening_one_tells_of_the_calls_seen(capsys: Capture) -> None:
    with closing(ledger()) as store:
        store.write(
            Record(row(id="X", at=time.time(), tag="mail", mode="observe", asked=OPUS)), may_wait=True
        )
    found = as_json(capsys, "mail")

    assert (1, "open", None) == (found["calls_last_week"], found["state"], found["share"])


# --- what it means ---------------------------------------------------------------------------------

OPEN = OpenTrial("T1", "mail", "haiku", HAIKU, "auto", "", 500, 3 * 10**9, NOW)


def report(agreed: int, n: int, **changes: Any) -> TrialReport:
    sums = [Pairs("exact", OPUS, n, agreed, 9, 9, 9)] if n else [Pairs("did not fit haiku", n=2)]
    return TrialReport(**{"trial": OPEN, "sums": sums, "state": "x", "dearer": "sonnet", **changes})


@pytest.mark.parametrize(
    ("found", "means", "so", "following"),
    [
        (report(495, 500), "good", "of the calls, 95% sure", "leastwise on --tag mail"),
        (
            report(300, 500),
            "poor",
            "not often enough to move them there",
            "leastwise trial mail --tier sonnet",
        ),
        (
            report(300, 500, dearer=""),
            "poor",
            "not often enough to move them there",
            "leastwise report --by tag",
        ),
        (report(0, 1), "thin", "too few pairs to tell", "leastwise trial mail --tier haiku --n 500"),
        (report(440, 500), "thin", "too few pairs to tell", "leastwise trial mail --tier haiku --n 1000"),
        (
            report(430, 500),
            "poor",
            "not often enough to move them there",
            "leastwise trial mail --tier sonnet",
        ),
        (report(10, 10), "thin", "too few pairs to tell", "leastwise trial mail --tier haiku --n 500"),
        (report(640, 700), "thin", "too few pairs to tell", "leastwise trial mail --tier haiku --n 1400"),
        (report(0, 0), "thin", "nothing is known", "leastwise trial mail --tier haiku --n 500"),
        (
            report(300, 500, source="calls.jsonl"),
            "poor",
            "not often enough to move them there",
            "leastwise trial mail --tier sonnet --from calls.jsonl",
        ),
        (
            report(10, 10, source="calls.jsonl"),
            "thin",
            "too few pairs to tell",
            "leastwise trial mail --tier haiku --n 500 --from calls.jsonl",
        ),
        (
            report(0, 0, sums=[Pairs("upstream error (no answer)", n=10)]),
            "thin",
            "nothing is known",
            "leastwise doctor",
        ),
        (
            report(0, 0, sums=[Pairs("the trial's money is used up")]),
            "thin",
            "nothing is known",
            "leastwise trial mail --tier haiku --n 500 --max-usd 6",
        ),
    ],
)
def test_what_it_means(found: TrialReport, means: str, so: str, following: str) -> None:
    assert (means, following) == (found.means, found.next)
    assert so in " ".join(" ".join(trial_lines(found)).split())
    assert (means, following) == (trial_json(found)["means"], trial_json(found)["next"])
    assert all(len(one) <= 80 for one in trial_lines(found))


def test_a_trial_once_more_shows_the_one_before(serving: Any, home: Path, capsys: Capture) -> None:
    serving(answers)
    file = write(home, *CALLS[:40])
    with closing(ledger()) as store:
        store.put_trial(replace(SHOWN, model="claude-haiku-4-5"))  # of another model: no such trial
    first = as_json(capsys, "mail", "--from", file)
    assert (None, False, OPUS) == (first["before"], first["is_cut"], first["against"])
    _, out, _ = run(capsys, "mail", "--from", file, "--seed", "1")
    again = "haiku as good as claude-opus-5-5 in >=88.6%, n 40 (exact); the best of several trials is less"
    assert again in " ".join(out.split())
    assert "beware" not in out
    run(capsys, "mail")
    assert "before       trial of " in run(capsys, "mail", "--status")[1]


def test_models_and_ways_are_told_apart_only_where_there_are_several() -> None:
    sums = [Pairs("exact", OPUS, 3, 3), Pairs("exact", SONNET, 2, 1), Pairs("json", OPUS, 1, 1)]
    lines = trial_lines(replace(report(1, 1), sums=sums))

    assert [("exact", "5", "4"), ("json", "1", "1"), ("all", "6", "5")] == [
        tuple(one.split()[:3]) for one in lines[3:6]
    ]
    assert "on claude-opus-5-5 and claude-sonnet-5-5" in " ".join(lines)


SHOWN = Trial("mail", "haiku", OPUS, "exact 1,400, judge by opus 600", 2000, 1980, 5, NOW, HAIKU)


def test_what_switching_a_tag_on_stands_on() -> None:
    later = replace(SHOWN, tier="sonnet", model=SONNET, at=NOW + 86_400, compared="exact")

    assert [
        "stands on: trial of 24 Nov, sonnet as good as claude-opus-5-5 in >=98.5%, n",
        "  2,000 (exact)",
        "stands on: trial of 23 Nov, haiku as good as claude-opus-5-5 in >=98.5%, n 2,000",
        "  (exact 1,400, judge by opus 600)",
    ] == standing_lines("mail", [SHOWN, later, replace(SHOWN, tag="chat")], DEFAULT_LADDER)
    nothing = [
        "stands on nothing: quality not measured. Measure it: leastwise trial mail --n",
        "  500 --max-usd 3",
    ]
    other = Ladder((Tier("haiku", "claude-haiku-4-5"), Tier("opus", OPUS)))
    assert (
        nothing == standing_lines("mail", [], DEFAULT_LADDER) == standing_lines("mail", [SHOWN, later], other)
    )


def test_on_says_what_it_stands_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 == main(["on", "--tag", "mail", "--dry-run"])
    assert "stands on nothing: quality not measured." in capsys.readouterr().err
    with closing(ledger()) as store:
        store.put_trial(SHOWN)
    assert 0 == main(["on", "--tag", "mail", "--percent", "10"])
    words = "stands on: trial of 23 Nov, haiku as good as claude-opus-5-5 in >=98.5%, n 2,000"
    assert words in capsys.readouterr().err
    assert 0 == main(["on"])
    assert "stands on" not in capsys.readouterr().err
    monkeypatch.setenv("LEASTWISE_STORE_LEDGER", "postgresql://127.0.0.1:9/none")
    assert 0 == main(["on", "--tag", "mail"])
    assert "what it stands on cannot be told: " in capsys.readouterr().err


# --- what others say -------------------------------------------------------------------------------


def calls(store: SqliteStore, *rows: Any) -> None:
    for number, one in enumerate(rows):
        store.write(Record(replace(one, id=f"{one.tag} {number} {one.served}")), may_wait=True)


def moved(tag: str, *, served: str = HAIKU, tier: str = "haiku", **facts: Any) -> Any:
    given = {"mode": "enforce", "kind": "message", "asked": OPUS, "baseline": OPUS, "result": "ok"}
    sums = {"baseline_nusd": 10**9, "spent_nusd": 10**7, "saved_nusd": 99 * 10**7}
    return row(**{**given, **sums, "at": NOW, "tag": tag, "served": served, "tier": tier, **facts})


def week() -> Window:
    return read_window(date(2026, 11, 23), days=7, month=None, since=None, until=None)


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with closing(SqliteStore(":memory:", clock=lambda: NOW)) as made:
        yield made


def qualities(store: SqliteStore, *by: str) -> dict[str, str]:
    found = read_ledger(store, week(), by=by or ("tag",), mode="enforce", at=NOW)
    return {group.name: group.same_quality for group in found.groups}


def test_the_report_says_what_is_known_of_each_tag(store: SqliteStore) -> None:
    calls(
        store,
        moved("mail"),
        moved("chat"),
        moved("plan", served=OPUS, tier="opus"),
        moved("mixed"),
        moved("mixed", served=SONNET, tier="sonnet"),
        moved("part"),
        moved("part", served=SONNET, tier="sonnet"),
        moved("", baseline="claude-opus-4-6"),
        moved("old", asked="claude-opus-4-6", baseline="claude-opus-4-6"),
        moved("auto", asked="auto", mode="auto"),
        moved("learned", asked="auto", mode="auto", baseline=SONNET),
        moved("learned", served=SONNET, tier="sonnet", asked=SONNET, mode="observe", baseline=SONNET),
    )
    for tag in ("mail", "mixed", "part", "old", "auto", "learned"):
        store.put_trial(replace(SHOWN, tag=tag))
    store.put_trial(replace(SHOWN, tag="mixed", tier="sonnet", model=SONNET, agreed=1880))

    known, unknown = ">=98.5% n 2,000", "not measured"
    assert {
        "mail": known,
        "chat": unknown,
        "plan": "as asked",
        "mixed": ">=93.0% n 2,000",
        "part": unknown,
        "(none)": unknown,
        "old": unknown,
        "auto": known,
        "learned": known,
    } == qualities(store)
    assert {"haiku": unknown, "opus": "as asked", "sonnet": unknown} == qualities(store, "tier")

    found = read_ledger(store, week(), mode="enforce", at=NOW)
    assert unknown == ledger_json(found)["total"]["same_quality"]
    assert "! unchecked" in "\n".join(ledger_lines(found))
    assert found.next.startswith("leastwise trial ")


def test_a_trials_cost_is_told_apart_and_is_no_reason_to_switch_off(store: SqliteStore) -> None:
    cost: dict[str, Any] = {
        "kind": "trial",
        "mode": "trial",
        "baseline_nusd": 0,
        "spent_nusd": 5 * 10**9,
        "saved_nusd": -5 * 10**9,
    }
    calls(
        store,
        moved("plan", served=OPUS, tier="opus", saved_nusd=0),
        moved("plan", **cost, checks_nusd=10**9, discarded_nusd=4 * 10**9),
    )
    found = read_ledger(store, week(), mode="enforce", at=NOW)

    (group,) = found.groups
    assert (1, 5 * 10**9, -5 * 10**9, "as asked") == (
        group.sums.calls,
        group.trials_nusd,
        group.sums.saved_nusd,
        group.same_quality,
    )
    assert (("opus", 1),) == group.answered_by
    text = "\n".join(ledger_lines(found))
    assert "checks $0.00   discarded answers $0.00   lost prompt cache $0.00" in text
    assert "trials $5.00" in text
    assert "! loss" not in text
    assert "leastwise why ID" == found.next
    assert Decimal(5) == ledger_json(found)["total"]["trials_usd"]


def test_a_ledger_of_nothing_but_trials_is_not_empty(store: SqliteStore) -> None:
    calls(store, moved("mail", kind="trial", mode="trial", baseline_nusd=0, saved_nusd=-(10**7)))
    found = read_ledger(store, week(), mode="enforce", at=NOW)

    text = "\n".join(ledger_lines(found))
    assert "trials $0.01" in text
    assert "\nanswered by" not in text
    assert ("-", 0) == (found.groups[0].answered_text, found.groups[0].sums.calls)
    assert "leastwise why ID" == found.next


def test_why_tells_of_a_pair_and_of_what_a_trial_vouches_for(
    serving: Any, home: Path, capsys: Capture
) -> None:
    serving(answers)
    as_json(capsys, "mail", "--from", write(home, *CALLS[:20]))
    with closing(ledger()) as store:
        pairs = [one[0] for one in store.database.rows("SELECT id FROM exchange ORDER BY id")]
        calls(store, moved("mail", decision_json="{}", policy_hash="p"))
    assert 0 == main(["why", pairs[0]])
    out = capsys.readouterr().out
    assert "trial of haiku for tag mail against claude-opus-5-5: as good, exact" in " ".join(out.split())
    assert "trial        nobody got this answer; what it cost is lost among the savings\n" in out
    assert "do           leastwise trial mail --status    how the trial stands\n" in out

    assert 0 == main(["why", f"mail 0 {HAIKU}", "--json"])
    assert ">=78.3% n 20" == json.loads(capsys.readouterr().out)["same_quality"]


def test_an_outcome_says_what_is_known(serving: Any) -> None:
    serving()
    with Runtime(load()) as runtime:
        runtime.store.put_trial(SHOWN)
        calls(runtime.store, moved("mail", decision_json='{"reasons":[]}'))  # type: ignore[arg-type]  # a file
        outcome = runtime.outcome(f"mail 0 {HAIKU}")

    assert outcome is not None
    assert ">=98.5% n 2,000" == outcome.same_quality


def test_what_was_only_tried_out_is_done_by_the_command_that_follows(capsys: Capture) -> None:
    words = ["my mail", "--tier", "sonnet", "--n", "30", "--max-usd", "1.5", "--compare", "judge"]

    code, _, err = run(capsys, *words, "--judge", "opus", "--dry-run")

    command = "leastwise trial 'my mail' --tier sonnet --n 30 --max-usd 1.5 --compare judge --judge opus\n"
    assert (0, f"next   {command}") == (code, err.splitlines(keepends=True)[-1])
    for given, following in (
        (["on", "--tag", "my mail", "--percent", "10"], "leastwise on --tag 'my mail' --percent 10"),
        (["on"], "leastwise on"),
        (["off", "--tag", "mail"], "leastwise off --tag mail"),
    ):
        assert 0 == main([*given, "--dry-run"])
        assert f"next   {following}" == capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("agreed", "following"),
    [
        (500, "leastwise on --tag mail"),
        (300, "leastwise report --by tag"),
        (455, "leastwise trial mail --tier haiku --n 1000"),
    ],
)
def test_after_a_trial_that_is_over_comes_what_it_speaks_for(
    agreed: int, following: str, capsys: Capture
) -> None:
    with closing(ledger()) as store:
        store.put_trial(Trial("mail", "haiku", OPUS, "exact", 500, agreed, 9, NOW, HAIKU))

    assert (0, f"next   {following}\n") == run(capsys, "mail", "--status")[::2]
