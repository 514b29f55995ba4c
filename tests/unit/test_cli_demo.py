"""`leastwise demo`: real decisions, simulated answers, every figure from what was recorded."""

from __future__ import annotations

import _thread
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.cli import main
from leastwise.ladder import Code, Outcome, Reason, Task
from leastwise.money import to_nusd
from leastwise.report.demo import Bill, Sample, bill_json, bill_lines, load_samples
from leastwise.simulate import Ask, Server, Simulator, serve
from tests.kit import HAIKU, NOW, OPUS, SONNET

#: A home of each test's own.
pytestmark = pytest.mark.usefixtures("home")

#: Nano-dollars a token, in and out: the list of 23 Nov 2026, written down a second time.
RATES = {HAIKU: (100, 500), SONNET: (2_000, 10_000), OPUS: (4_000, 20_000)}

SHOWN = """\
leastwise demo    answers SIMULATED; decisions real; list prices of 23 Nov 2026
task                   n  tier    why                           cost $   opus $
spam or not spam       6  haiku   type: classify               0.00005  0.00218
sentiment              3  haiku   type: sentiment              0.00003  0.00102
which language         3  haiku   type: language               0.00002  0.00073
what the user wants    3  haiku   type: intent                 0.00003  0.00113
sort tickets           4  haiku   type: classify               0.00010  0.00392
extract names, dates   4  haiku   type: extract                0.00008  0.00314
look up in a text      3  mixed   haiku 2, opus 1 UNSURE       0.00101  0.00402
convert a format       3  haiku   type: convert                0.00004  0.00151
summarise              4  sonnet  type: summarise              0.00915  0.01830
translate              3  sonnet  type: translate, question    0.00472  0.00944
is this proof right?   1  opus    type: math                   0.00806  0.00806
research, compare      2  opus    type: analyse; UNSURE        0.04975  0.04975
design, implement      2  opus    type: design, implement      0.06188  0.06188
debug code             2  opus    type: debug, code            0.02524  0.02524
tool loop under way    2  opus    pinned: answers a tool call  0.01070  0.01070
yes, do it             2  mixed   opus 1, sonnet 1             0.01321  0.01367
total                 47          saved 14% of the bill        0.18407  0.21470
28 of 47 calls (60%) went to haiku at 1/40 of the price: 8% of the money. 8 of
47 calls (17%) went to sonnet at 1/2 of the price: 13% of the money. 11 (23%)
stayed on opus with 79% of the money: hard, under way, or not understood (2
UNSURE). opus $: claude-opus-5-5 for the same tokens, the baseline (assumed).
quality   not measured: scripted answers.   next   leastwise report usage.csv
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        yield running


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["demo", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


# --- simulated ---------------------------------------------------------------------------------


def test_the_whole_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert (0, SHOWN, "") == run(capsys)
    assert 79 >= max(map(len, SHOWN.splitlines()))


def test_it_neither_reads_nor_writes_what_is_the_users(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "leastwise.toml").write_text('mode = "off"\nunsure = "haiku"\n', encoding="utf-8")
    monkeypatch.setenv("LEASTWISE_UNSURE", "sonnet")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")

    assert (0, SHOWN, "") == run(capsys)
    assert ["leastwise.toml"] == [path.name for path in home.iterdir()]


def test_every_request_has_a_row_and_every_figure_follows_from_its_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "--json")
    bill = json.loads(out, parse_float=Decimal)

    def price(request: dict[str, Any], model: str) -> Decimal:
        per_in, per_out = RATES[model]
        nusd = request["input_tokens"] * per_in + request["output_tokens"] * per_out
        return Decimal(nusd) / 10**9

    requests = bill["requests"]
    assert (0, 1, True, "") == (code, bill["schema"], bill["simulated"], bill["stopped"])
    assert len(requests) == bill["calls"] == 47
    assert [price(each, each["model"]) for each in requests] == [each["cost_usd"] for each in requests]
    assert [price(each, OPUS) for each in requests] == [each["baseline_usd"] for each in requests]
    for name in ("cost_usd", "baseline_usd"):
        assert bill[name] == sum(each[name] for each in requests)
        assert bill[name] == sum(each[name] for each in bill["kinds"]) == sum(t[name] for t in bill["tiers"])
    assert ("not measured", "assumed", OPUS) == (
        bill["same_quality"],
        bill["baseline_how"],
        bill["baseline_model"],
    )


def test_a_question_with_a_short_answer_and_long_thought_is_not_sent_to_a_cheap_tier(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = run(capsys, "--json")
    (proof,) = [row for row in json.loads(out)["requests"] if row["kind"] == "is this proof right?"]

    assert ("opus", "type: math") == (proof["tier"], proof["reasons"][0]["words"].partition(" (")[0])


def test_all_shows_each_request_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--all")
    lines = out.splitlines()

    assert 0 == code
    assert 79 >= max(map(len, lines))
    assert ["1"] * 47 == [line[26:28].strip() for line in lines[2:49]]
    assert "Is this spam? Win $1000 ~  1 haiku  type: classify            0.000008 0.000308" == lines[2]
    assert "total" == lines[49].split()[0]


def test_the_samples_are_of_every_kind_and_of_many_lengths() -> None:
    samples = load_samples()
    words = [len(str(sample.members["messages"][-1]["content"]).split()) for sample in samples]

    assert 16 == len({sample.kind for sample in samples})
    assert 5 <= sum(300 <= count <= 600 for count in words)
    assert 20 <= sum(count <= 40 for count in words)
    assert len(samples) == len({json.dumps(sample.members) for sample in samples})
    assert "FAILED tests/test_invoice.py::" == samples[-4].title


def test_without_the_sdk_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)

    code, out, err = run(capsys)

    assert (1, "") == (code, out)
    assert 'leastwise: error: the demo needs the anthropic SDK: pip install "leastwise[anthropic]"\n' == err


# --- for real ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--max-usd", "1"], "--max-usd and --config need --live"),
        (["--live", "--max-usd", "lots"], "--max-usd: not an amount of dollars: 'lots'"),
        (["--live", "--max-usd", "0"], "--max-usd 0: expected more than nothing"),
        (["--live", "--max-usd", "-1"], "--max-usd -1: expected more than nothing"),
    ],
)
def test_wrong_options(capsys: pytest.CaptureFixture[str], words: list[str], wrong: str) -> None:
    code, out, err = run(capsys, *words)

    assert (2, "") == (code, out)
    assert err.startswith(f"leastwise: error: {wrong}")


def test_live_needs_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        "leastwise: error: --live needs a key: ANTHROPIC_API_KEY is not set. Set it to a key of "
        "https://api.anthropic.com, or leave out --live\n"
    )

    assert (1, "", expected) == run(capsys, "--live")


def test_live_needs_no_key_where_the_config_names_none(
    capsys: pytest.CaptureFixture[str], server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "own.toml"
    file.write_text(f'[upstream.anthropic]\nbase_url = "{server.url}"\napi_key_env = ""\n', encoding="utf-8")
    monkeypatch.delenv("ANTHROPIC_API_KEY")

    code, out, _ = run(capsys, "--live", "--config", str(file))

    assert 0 == code
    assert out.startswith("leastwise demo    answers LIVE; decisions real; ")


@pytest.mark.parametrize("cap", ["0.02", "0.05", "0.3", "5"])
def test_live_never_spends_more_than_its_cap(
    capsys: pytest.CaptureFixture[str], server: Server, home: Path, cap: str
) -> None:
    code, out, err = run(capsys, "--live", "--max-usd", cap, "--json")
    bill = json.loads(out, parse_float=Decimal)
    billed = sum(charge.nusd for charge in server.simulator.books)

    assert billed == to_nusd(bill["cost_usd"]) <= to_nusd(cap)
    assert len(server.simulator.books) == bill["calls"]
    assert not bill["simulated"]
    assert [] == list(home.iterdir())
    if cap == "5":
        assert (0, "", 47, "") == (code, err, bill["calls"], bill["stopped"])
    elif cap == "0.02":
        assert (1, 0) == (code, bill["calls"])
        assert f"leastwise: error: {bill['stopped']}\n" == err
    else:
        assert (0, "") == (code, err)
        assert 0 < bill["calls"] < 47
        assert (
            f"Stopped after {bill['calls']} of 47, cheap ones first: the next could cost $" in bill["stopped"]
        )


def test_live_says_what_it_spent(capsys: pytest.CaptureFixture[str], server: Server) -> None:
    code, out, err = run(capsys, "--live")
    lines = out.splitlines()
    billed = sum(charge.nusd for charge in server.simulator.books)

    assert (0, "") == (code, err)
    assert "leastwise demo    answers LIVE; decisions real; list prices of 23 Nov 2026" == lines[0]
    assert any(line.startswith("Stopped after ") for line in lines)
    spent = f"${Decimal(billed) / 10**9:.6f}"
    assert (
        f"quality   not measured.   spent {spent} of $0.05   next   leastwise report usage.csv" == lines[-1]
    )


@pytest.mark.parametrize(
    ("key", "url", "what"),
    [
        ("invalid", None, "401 invalid x-api-key"),
        ("k", "http://127.0.0.1:9", "Connection error; check it: leastwise doctor"),
    ],
)
def test_live_tells_an_upstream_that_does_not_answer(  # noqa: PLR0917 - fixtures and a case
    capsys: pytest.CaptureFixture[str],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    url: str | None,
    what: str,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url or server.url)
    expected = (
        f"leastwise: error: Stopped after 0 of 47, cheap ones first: {url or server.url}: {what} "
        f"(spent $0.000000 of $0.05).\n"
    )

    assert (1, "", expected) == run(capsys, "--live")


def test_live_keeps_what_it_has_when_the_upstream_fails_or_the_user_leaves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(ask: Ask) -> None:
        if "plumber" in ask.text:
            _thread.interrupt_main()

    with serve(simulator=Simulator(answers=interrupt)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        left = run(capsys, "--live")
        server.simulator.script("spam")
        server.simulator.fail_next(status=529)
        failed = run(capsys, "--live")

    assert 130 == left[0]
    assert "Stopped after 1 of 47, cheap ones first: interrupted (spent $" in left[1]
    assert left[2].startswith("leastwise: error: Stopped after 1 of 47")
    assert (1, "") == failed[:2]
    assert "529 [simulated] fault on demand" in failed[2]


# --- the bill ----------------------------------------------------------------------------------


def outcome(tier: str, model: str, cost: str, baseline: str, reason: Reason) -> Outcome:
    return Outcome(
        exchange="X",
        tier=tier,
        model=model,
        asked="auto",
        mode="auto",
        complexity=None,
        reasons=(reason,),
        cost_usd=Decimal(cost),
        baseline_usd=Decimal(baseline),
        baseline_model="m-large",
        baseline_how="stated",
        saved_usd=Decimal(baseline) - Decimal(cost),
        could_save_usd=Decimal(0),
        would="",
        same_quality="not measured",
        input_tokens=1,
        output_tokens=1,
        usage_by_tier={},
        certainty="exact",
        result="ok",
    )


def test_the_bill_of_any_ladder_a_free_tier_and_a_loss() -> None:
    sample = Sample("work", {"messages": [{"role": "user", "content": "hi"}]}, Task(), "")
    told = Reason(Code.FORCED_TIER, "tier local was asked for")
    free = outcome("local", "m-local", "0", "1", told)
    dear = outcome("huge", "m-huge", "6.4", "2", Reason(Code.RAISED, "raised to complex: code"))

    lines = bill_lines(Bill(((sample, free), (sample, dear))), "head")

    assert [
        "head",
        "task   n  tier   why                     cost $  m-large $",
        "work   2  mixed  local 1, huge 1        6.40000    3.00000",
        "total  2         lost 113% of the bill  6.40000    3.00000",
        "1 of 2 calls (50%) went to local at none of the price: 33% of the money. 1 of 2",
        "calls (50%) went to huge at 3.2 times the price: 67% of the money. 0 (0%)",
        "stayed on m-large with 0% of the money: hard, under way, or not understood (0",
        "UNSURE). m-large $: m-large for the same tokens, the baseline (stated).",
    ] == [line.rstrip() for line in lines]


def test_the_bill_of_nothing() -> None:

    day = datetime.fromtimestamp(NOW, UTC).date()
    value = bill_json(Bill(()), day, is_simulated=False)

    assert (0, Decimal(0), [], "") == (
        value["calls"],
        value["cost_usd"],
        value["requests"],
        value["baseline_model"],
    )
