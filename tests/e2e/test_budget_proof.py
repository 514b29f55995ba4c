"""The proof that budgets hold: processes hammer them, are killed, and nothing is lost or spent twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from leastwise.money import NUSD_PER_USD
from tests.hammer import BACKENDS, URLS, Killed, Plan, Unavailable, hammer, wrongs


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_budget_is_overspent_and_no_call_refused_without_a_reason(backend: str, tmp_path: Path) -> None:
    plan = Plan(backend, str(tmp_path), URLS.get(backend, str)(), processes=8, threads=16, kills=10)
    seen = hammer(plan)

    assert [] == wrongs(seen)
    assert plan.kills == len(seen.of(Killed))
    assert plan.url or not seen.of(Unavailable)
    counts = seen.counts()
    kinds = ("plain", "stream", "left", "cut", "hung up", "hasty", "429", "5xx")
    wanted = [*(f"billed: {kind}" for kind in kinds), "entries: estimated", "entries: lost", "notes: Refused"]
    assert [] == [what for what in [*wanted, "retries"] if not counts.get(what)], counts
    assert 2 == len({line.window_key for line in seen.windows if line.account == "day"})  # midnight passed


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("careless", ("recorded of", "more than the limit")),  # by the books at the end, or while it happens
        ("stingy", ("were spent and",)),
        ("leaky", ("not killed",)),
    ],
    ids=["careless", "stingy", "leaky"],
)
def test_a_store_that_is_wrong_is_found_out(broken: str, words: tuple[str, ...], tmp_path: Path) -> None:
    threads, limit_nusd = (16, NUSD_PER_USD // 50) if broken == "careless" else (4, NUSD_PER_USD // 2)
    plan = Plan(broken, str(tmp_path), "", 2, threads, 1.5, 0, limit_nusd=limit_nusd, has_raises=False)
    found = wrongs(hammer(plan))

    assert [line for line in found if any(one in line for one in words)], found
