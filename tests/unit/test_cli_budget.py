"""`leastwise budget`: what is printed, what is written, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.budget import BudgetRule, Limits, Raise
from leastwise.build import open_store
from leastwise.cli import main
from leastwise.cli.budget import budgeted, parse_until
from leastwise.config import load
from leastwise.errors import ConfigError
from leastwise.ladder import DEFAULT_LADDER
from leastwise.ledger import StepDown
from leastwise.money import NUSD_PER_USD as USD
from leastwise.statement import statements
from leastwise.steps import Record
from leastwise.stores import Store
from leastwise.stores.accounts import DEAD_AFTER_S
from tests.kit import NOW
from tests.paid import paid, reserve, row, settle
from tests.servers import valkey_url

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("home")

CONFIG = """\
schema = 1
# keep me
[[budget]]
name = "all"
limit_usd = 100
window = "total"

[[budget]]
name = "team-a"
limit_usd = 8000
scope = ["key"]
window = "total"
tz = "Europe/Vienna"
"""
ALL = BudgetRule("all", 100 * USD, window="total")
TEAM = BudgetRule("team-a", 8_000 * USD, scope=("key",), window="total", tz="Europe/Vienna")
ALICE = "team-a|key=alice"


@pytest.fixture
def user(home: Path) -> Path:
    file = home / "config/leastwise/leastwise.toml"
    file.parent.mkdir(parents=True)
    file.write_text(CONFIG, "utf-8")
    return file


@contextmanager
def opened() -> Iterator[Store]:
    """Open the store that the commands will find."""
    with closing(open_store(load())) as store:
        yield store


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def told(capsys: Capture, *words: str) -> dict[str, Any]:
    """Run a command with --json and return what it printed."""
    code, out, _ = run(capsys, *words, "--json")
    value: dict[str, Any] = json.loads(out, parse_float=Decimal)
    assert (0, 1) == (code, value["schema"])
    return value


def standing(name: str = "all") -> tuple[int, int]:
    """Return what the first account of a budget has spent and reserved."""
    with opened() as store:
        found = statements(store, Limits((ALL, TEAM)), DEFAULT_LADDER, time.time())
    one = next(one for one in found if one.rule.name == name)
    return one.standing.spent_nusd, one.standing.leased_nusd


# --- status ----------------------------------------------------------------------------------------------


def test_without_budgets_it_says_how_to_set_one(capsys: Capture) -> None:
    code, out, err = run(capsys, "budget", "status")

    assert 0 == code
    assert "no budget is configured; only a client's own budget_usd limits what it spends" in out
    assert "next   leastwise budget set NAME --limit USD\n" == err
    assert [] == told(capsys, "budget", "status")["accounts"]


def test_budgets_nobody_used_are_listed(capsys: Capture, user: Path) -> None:
    _, out, err = run(capsys, "budget", "status")

    assert [
        "all",
        "unused       nothing spent in this window yet, of $100.00",
        "",
        "team-a",
        "unused       nothing spent in this window yet, of $8,000.00 for each key",
    ] == out.splitlines()
    assert "next   leastwise budget log\n" == err
    assert user.exists()


@pytest.mark.usefixtures("user")
def test_an_account_tells_all_about_itself(capsys: Capture) -> None:
    now = time.time()
    with opened() as store:
        for minute in range(120):
            settle(store, paid(ALL, now - 60 * minute, "0.75"))
        settle(store, paid(TEAM, now, 6_480, account=ALICE))
        reserve(store, ALL, now, 2)
        store.add_raise(Raise("all", 10 * USD, now + 3600, "launch", "me", now - 60))

    code, out, err = run(capsys, "budget", "status")
    lines = out.splitlines()

    assert (0, 80) == (code, max(80, *map(len, lines)))
    end = lines.index("")
    said = "\n".join(lines[:end])
    assert "all\nspent        $90.00, 82% of $110.00; 120 calls\n" in said
    assert "reserved     $2.00 for calls under way\nraised       by $10.00 for now\n" in said
    assert "resets       never\n" in said
    assert "ceiling      nothing above sonnet is chosen, but for critical tasks\n" in said
    cap = "cap          at $107.80 calls are refused, tool loops under way at $110.00,\n"
    assert cap + "             critical tasks at $210.00\n" in said
    assert "forecast     $45." in said
    assert "an hour, over the last 1 h and 60 calls; at this rate reached on" in " ".join(said.split())
    assert "             on haiku the remaining $20.00 lasts until " in said
    assert "team-a (key alice)" == lines[end + 1]
    assert "next   leastwise budget log\n" == err


@pytest.mark.usefixtures("user")
def test_status_for_machines(capsys: Capture) -> None:
    now = time.time()
    with opened() as store:
        settle(store, *(paid(TEAM, now - 60 * minute, 60, account=ALICE) for minute in range(121)))

    (one,) = told(capsys, "budget", "status", "team-a")["accounts"]

    ahead = one.pop("forecast")
    assert {
        "budget": "team-a",
        "account": ALICE,
        "scope": {"key": "alice"},
        "window": "total",
        "window_key": "always",
        "resets_at": None,
        "spent_usd": 7260,
        "reserved_usd": 0,
        "limit_usd": 8000,
        "raised_usd": 0,
        "percent": Decimal("90.75"),
        "cap": "allow_critical",
        "critical_limit_usd": 16000,
        "calls": 121,
        "ceiling": "haiku",
    } == one
    assert (True, 740) == (ahead["known"], ahead["left_usd"])
    assert abs(ahead["hourly_usd"] - 3_600) < 60
    assert ["limit"] == [reach["what"] for reach in ahead["reached"]]
    assert ["haiku", "sonnet"] == [lasts["tier"] for lasts in ahead["lasts"]]


@pytest.mark.usefixtures("user")
def test_a_full_budget_names_the_raise(capsys: Capture) -> None:
    with opened() as store:
        settle(store, paid(ALL, time.time(), 95))

    _, _, err = run(capsys, "budget", "status")

    assert "next   leastwise budget raise all USD --until mon --why REASON\n" == err


@pytest.mark.usefixtures("user")
def test_many_accounts_are_cut_short_as_text_only(capsys: Capture) -> None:
    with opened() as store:
        settle(store, *(paid(TEAM, time.time(), 1, account=f"team-a|key={one}") for one in range(23)))

    _, out, _ = run(capsys, "budget", "status", "team-a")

    assert out.endswith("team-a: 3 accounts more; all: --json\n")
    assert 23 == len(told(capsys, "budget", "status")["accounts"]) - 1


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("command", ["status", "log"])
def test_a_budget_that_is_not_there_is_named(capsys: Capture, command: str) -> None:
    code, _, err = run(capsys, "budget", command, "team-b")

    expected = "leastwise: error: there is no budget 'team-b'; budgets: all, team-a\n"
    assert (2, expected) == (code, err)


# --- set ---------------------------------------------------------------------------------------------------


def test_a_budget_is_added_and_comments_stay(capsys: Capture, user: Path) -> None:
    words = ("--limit", "12.50", "--window", "day", "--scope", "key", "--scope", "tag", "--cap", "block")
    code, out, err = run(capsys, "budget", "set", "nightly", *words)

    text = user.read_text("utf-8")
    assert 0 == code
    assert text.startswith(CONFIG)
    assert {
        "name": "nightly",
        "limit_usd": 12.5,
        "window": "day",
        "scope": ["key", "tag"],
        "cap": "block",
    } == tomllib.loads(text)["budget"][2]
    assert "+limit_usd = 12.5\n" in out
    assert "running processes take it up within a second" in err
    assert err.endswith("next   leastwise budget status nightly\n")


def test_a_limit_is_changed_in_its_place(capsys: Capture, user: Path) -> None:
    _, out, _ = run(capsys, "budget", "set", "all", "--limit", "250")

    assert CONFIG.replace("limit_usd = 100", "limit_usd = 250") == user.read_text("utf-8")
    assert ["-limit_usd = 100", "+limit_usd = 250"] == [
        line for line in out.splitlines() if line.startswith(("+", "-")) and line[:3] not in {"+++", "---"}
    ]
    assert "nothing to change" in run(capsys, "budget", "set", "all", "--limit", "250")[2]


def test_a_dry_run_writes_nothing(capsys: Capture, user: Path) -> None:
    code, out, err = run(capsys, "budget", "set", "all", "--limit", "1", "--dry-run")

    assert (0, CONFIG) == (code, user.read_text("utf-8"))
    assert "+limit_usd = 1\n" in out
    assert "next   leastwise budget set all\n" == err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new",), "there is no budget 'new' yet: say --limit USD"),
        (("new", "--limit", "much"), "--limit: not an amount of dollars: 'much'"),
        (("new", "--limit", "-1"), "[[budget]] 'new': limit_usd = -$1.00: expected from $0 to $9,000,000"),
        (("all", "--window", "session"), "[[budget]] 'all': window = \"session\" goes with scope"),
    ],
)
def test_what_cannot_be_is_not_written(
    capsys: Capture, user: Path, words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(capsys, "budget", "set", *words)

    assert (2, "", CONFIG) == (code, out, user.read_text("utf-8"))
    assert f"leastwise: error: {said}" in err


def test_a_file_that_is_not_toml_is_left_alone(capsys: Capture, user: Path) -> None:
    user.write_text("mode = ", "utf-8")

    code, _, err = run(capsys, "budget", "set", "all", "--limit", "1")

    assert (2, "mode = ") == (code, user.read_text("utf-8"))
    assert f"file {user}: not TOML" in err


def test_a_new_file_gets_its_schema() -> None:
    assert 'schema = 1\n[[budget]]\nname = "a"\nlimit_usd = 0.1\n' == budgeted(
        "", "a", {"limit_usd": Decimal("0.1")}
    )


# --- raise -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("user")
def test_a_raise_is_written_with_who_and_why(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    words = ("budget", "raise", "team-a", "200", "--until", "2d", "--why", "launch")

    code, out, err = run(capsys, *words)

    assert (0, "next   leastwise budget status team-a\n") == (code, err)
    assert out.startswith("team-a: $200.00 more until ")
    assert "Europe/Vienna, by ann: launch" in " ".join(out.split())
    assert "limit  $8,200.00 in each window until then\n" in out
    value = told(capsys, *words)
    with opened() as store:
        found = store.raises()
        settle(store, paid(TEAM, time.time(), 1, account=ALICE))
        (one,) = statements(store, Limits((TEAM,)), DEFAULT_LADDER, time.time())
    assert [("team-a", 200 * USD, "launch", "ann")] * 2 == [
        (one.budget, one.nusd, one.why, one.who) for one in found
    ]
    assert 8_400 * USD == one.limit_nusd
    assert (8_400, True, "ann") == (value["limit_usd"], value["written"], value["who"])


@pytest.mark.usefixtures("user")
def test_a_dry_raise_writes_nothing(capsys: Capture) -> None:
    value = told(capsys, "budget", "raise", "all", "5", "--until", "3h", "--why", "x", "--dry-run")

    assert (False, 105) == (value["written"], value["limit_usd"])
    with opened() as store:
        assert [] == store.raises()


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("all", "0", "--until", "3h", "--why", "x"), "0: expected more than $0, at most $9,000,000"),
        (("all", "lots", "--until", "3h", "--why", "x"), "USD: not an amount of dollars: 'lots'"),
        (("all", "5", "--until", "3h", "--why", " "), "--why is empty"),
        (("all", "5", "--until", "2020-01-01", "--why", "x"), "--until 2020-01-01: that is over already"),
        (("all", "5", "--until", "soon", "--why", "x"), "--until soon: expected mon, 2026-12-01"),
        (("other", "5", "--until", "3h", "--why", "x"), "there is no budget 'other'"),
    ],
)
def test_raises_that_mean_nothing(capsys: Capture, words: tuple[str, ...], said: str) -> None:
    code, out, err = run(capsys, "budget", "raise", *words)

    assert (2, "") == (code, out)
    assert said in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mon", "2026-11-29T23:00:00+00:00"),  # NOW is a Monday: the next one, Vienna's midnight
        ("Tuesday", "2026-11-23T23:00:00+00:00"),
        ("2026-12-01", "2026-11-30T23:00:00+00:00"),
        ("2026-12-01T09:00", "2026-12-01T08:00:00+00:00"),
        ("2026-12-01T09:00+00:00", "2026-12-01T09:00:00+00:00"),
        ("3h", "2026-11-23T15:00:00+00:00"),
        ("2d", "2026-11-25T12:00:00+00:00"),
    ],
)
def test_until_when(text: str, expected: str) -> None:
    end = parse_until(text, datetime.fromtimestamp(NOW, UTC), "Europe/Vienna")

    assert expected == end.astimezone(UTC).isoformat()


@pytest.mark.parametrize("text", ["monkey", "0h", "2026-13-01", "", "99999d"])
def test_until_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match="--until"):
        parse_until(text, datetime.fromtimestamp(NOW, UTC), "UTC")


# --- log ---------------------------------------------------------------------------------------------------


def write_events() -> None:
    """Have a step-down, a raise and a lost attempt in the ledger, each a minute after the other."""
    now = time.time()
    step = StepDown(ALICE, "always", "opus", "haiku", 91.2, "above 90%")
    with opened() as store:
        store.write(Record(row(id="X1", at=now - 180), step_downs=(step,)), may_wait=True)
        store.write(Record(row(id="X2", at=now, result="blocked")), may_wait=True)
        store.add_raise(Raise("team-a", 200 * USD, now + 60, "launch\x1b[1m", "ann", now - 120))
        settle(store, paid(ALL, now - 60, "0.42", certainty="lost"))


@pytest.mark.usefixtures("user")
def test_the_log_tells_what_happened_newest_first(capsys: Capture) -> None:
    write_events()

    code, out, err = run(capsys, "budget", "log")
    events = told(capsys, "budget", "log")

    lines = out.splitlines()
    assert (0, "next   leastwise budget reconcile\n") == (code, err)
    assert 80 >= max(map(len, lines))
    assert "lost       all: claude-opus-5-5 counted at its most, $0.42; entry" in out.replace(
        "\n" + 29 * " ", " "
    )
    assert [line[18:27].strip() for line in lines if line[:2] == "20"] == ["lost", "raise", "step down"]
    assert "by ann: launch?[1m" in " ".join(out.split())
    assert "team-a: opus -> haiku at 91% (above 90%)" in " ".join(out.split())
    assert "1 call refused by a budget, all in all" == lines[-1]
    assert ["lost", "raise", "step_down"] == [one["kind"] for one in events["events"]]
    assert (1, "X1") == (events["refused_calls"], events["events"][2]["exchange"])
    assert ["raise", "step_down"] == [
        one["kind"] for one in told(capsys, "budget", "log", "team-a")["events"]
    ]
    assert ["lost"] == [one["kind"] for one in told(capsys, "budget", "log", "--limit", "1")["events"]]


@pytest.mark.usefixtures("user")
def test_a_batch_whose_results_nobody_has_read_is_pending(capsys: Capture) -> None:
    part = replace(paid(ALL, time.time(), "0.42", certainty="lost"), purpose="batch", message_id="msgbatch_1")
    with opened() as store:
        settle(store, part)

    _, out, err = run(capsys, "budget", "log")
    text = " ".join(out.split())
    assert "pending all: claude-opus-5-5 counted at its most, $0.42; entry " in text
    assert "until the results of msgbatch_1 are read" in text
    assert "next   leastwise budget status\n" == err
    (event,) = told(capsys, "budget", "log")["events"]
    assert ("pending", "msgbatch_1") == (event["kind"], event["batch"])
    _, out, err = run(capsys, "budget", "reconcile")
    assert "pending all: claude-opus-5-5" in " ".join(out.split())
    assert "next   leastwise budget status\n" == err


@pytest.mark.usefixtures("user")
def test_a_call_that_a_budget_refused_is_no_step_down(capsys: Capture) -> None:
    step = StepDown("all", "always", "haiku", "", 98.0, "cap")
    with opened() as store:
        store.write(Record(row(id="X1", at=NOW, result="blocked"), step_downs=(step,)), may_wait=True)

    assert "refused    all: haiku at 98% (cap)\n" in run(capsys, "budget", "log")[1]
    assert ["refused"] == [one["kind"] for one in told(capsys, "budget", "log")["events"]]


def test_a_log_of_less_than_one_line_is_none(capsys: Capture) -> None:
    assert 2 == run(capsys, "budget", "log", "--limit", "-1")[0]


@pytest.mark.usefixtures("user")
def test_where_nothing_happened_the_log_says_so(capsys: Capture) -> None:
    code, out, err = run(capsys, "budget", "log")

    assert (0, "next   leastwise budget status\n") == (code, err)
    assert out.startswith("nothing happened")


# --- reconcile ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("user")
def test_where_all_is_right_nothing_is_mended(capsys: Capture) -> None:
    with opened() as store:
        settle(store, paid(ALL, time.time(), 95))

    code, out, err = run(capsys, "budget", "reconcile")

    assert (0, "next   leastwise budget status\n") == (code, err)
    assert "budgets and ledger agree, and no process left anything behind\n" == out


@pytest.mark.usefixtures("user")
def test_a_budget_is_set_right_by_the_ledger(capsys: Capture) -> None:
    with opened() as store:
        settle(store, paid(ALL, time.time(), 95), paid(TEAM, time.time(), 5, account=ALICE))
        store.correct("all", "always", -88 * USD)

    code, out, _ = run(capsys, "budget", "reconcile", "--dry-run")
    assert (0, (7 * USD, 0)) == (code, standing())
    assert "all always: $7.00 in the budget, $95.00 by the ledger: to be mended\n" == out

    (one,) = told(capsys, "budget", "reconcile")["differences"]
    assert {
        "account": "all",
        "window_key": "always",
        "spent_usd": 7,
        "charged_usd": 95,
        "mended": True,
    } == one
    assert (95 * USD, 0) == standing()
    assert [] == told(capsys, "budget", "reconcile")["differences"]


@pytest.mark.usefixtures("user")
def test_what_a_dead_process_left_is_charged_at_its_most_and_corrected(capsys: Capture) -> None:
    long_ago = time.time() - 10 * DEAD_AFTER_S
    leave_a_lease(long_ago, usd=3)
    assert (0, 3 * USD) == standing()

    dry = told(capsys, "budget", "reconcile", "--dry-run")
    assert (1, 1, (0, 3 * USD)) == (len(dry["settled"]), len(dry["lost"]), standing())

    code, out, err = run(capsys, "budget", "reconcile")
    assert (0, "next   leastwise budget reconcile --entry ID --usd X\n") == (code, err)
    assert "left by a dead process: claude-opus-5-5, charged at its most, $3.00\n" in out
    assert "not known what it cost; counted at its most:\n" in out
    assert (3 * USD, 0) == standing()

    (lost,) = told(capsys, "budget", "reconcile")["lost"]
    known = ("budget", "reconcile", "--entry", lost["entry"], "--usd", "0.25")
    assert "would cost $0.25, was $3.00" in " ".join(run(capsys, *known, "--dry-run")[1].split())
    assert (3 * USD, 0) == standing()
    assert {"entry": lost["entry"], "was_usd": 3, "usd": Decimal("0.25")} == told(capsys, *known)["corrected"]
    assert (USD // 4, 0) == standing()
    assert [] == told(capsys, "budget", "reconcile")["lost"]

    code, _, err = run(capsys, *known)
    assert (2, f"leastwise: error: --entry {lost['entry']}: no lost entry has this id") == (
        code,
        err.partition(";")[0],
    )


def leave_a_lease(at: float, usd: int) -> None:
    """Have a process reserve and die, and its last sign of life be old."""
    program = (
        "import os\n"
        "from leastwise.build import open_store\n"
        "from leastwise.config import load\n"
        "from leastwise.budget import BudgetRule\n"
        "from tests.paid import reserve\n"
        f"store = open_store(load(), lambda: {at})\n"
        f"store.beat()\n"
        f"reserve(store, BudgetRule('all', 100 * 10**9, window='total'), {at}, {usd})\n"
        "os._exit(1)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert (1, "") == (ran.returncode, ran.stderr)


@pytest.mark.usefixtures("user")
def test_an_entry_goes_with_its_sum(capsys: Capture) -> None:
    code, _, err = run(capsys, "budget", "reconcile", "--entry", "E1")
    assert (2, True) == (code, "--entry and --usd go together" in err)

    code, _, err = run(capsys, "budget", "reconcile", "--entry", "E1", "--usd", "1")
    assert (2, True) == (code, "nothing was ever written to" in err)


def test_money_that_other_machines_spent_from_a_server_is_told_where_there_is_no_ledger_yet(
    capsys: Capture, user: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user.write_text(f'{CONFIG}[store]\nbudget = "{valkey_url()}"\n', "utf-8")
    with opened() as store:
        settle(store, paid(ALL, time.time(), 92))

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))

    assert "spent        $92.00, 92% of $100.00; 1 call" in run(capsys, "budget", "status", "all")[1]
