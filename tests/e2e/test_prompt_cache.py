"""A conversation with a warm prompt cache, from the real SDK to the simulated one, which bills by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.ledger import Exchange
from leastwise.report.why import read_why, why_lines
from leastwise.simulate import Charge, serve
from leastwise.stores import Query
from tests.kit import HAIKU, OPUS

SPAM, SUMMARY = "Is this spam? Win $1000 now!!!", "Summarize this article."
PROOF = "is this proof right? Let n be even, then n squared is even."
MARK = {"cache_control": {"type": "ephemeral"}}
HANDBOOK = "x" * (60_000 * 40 // 13)  # 60,000 tokens of the simulated API


class Talk:
    """A conversation with opus about a long text, through the drop-in client; thinking is not replayed."""

    def __init__(self, client: leastwise.Anthropic, charges: list[Charge]) -> None:
        self._client = client
        self._charges = charges
        self._turns: list[Any] = []

    def say(self, words: str) -> tuple[str, Charge]:
        """Return the exchange's id and what the upstream billed."""
        asked = {"role": "user", "content": [{"type": "text", "text": words, **MARK}]}
        message = self._client.messages.create(
            model=OPUS,
            max_tokens=2048,
            system=[{"type": "text", "text": HANDBOOK, **MARK}],
            messages=[*self._turns, asked],
        )
        said = "".join(block.text for block in message.content if block.type == "text")
        plain = {"role": "user", "content": [{"type": "text", "text": words}]}
        self._turns += [plain, {"role": "assistant", "content": said}]
        outcome = leastwise.outcome(message)
        assert outcome is not None
        return outcome.exchange, next(one for one in self._charges if one.message_id == message.id)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{tmp_path}/ledger.db", "XDG_CONFIG_HOME": str(tmp_path)}
    # a long text alone does not make a task standard here, so that there is something to move to haiku
    arguments = {"mode": "enforce", "signals.large_input_tokens": 200_000}
    with Runtime(load(None, environ, cwd=tmp_path, arguments=arguments)) as made:
        yield made


@pytest.fixture
def talk(runtime: Runtime) -> Iterator[Talk]:
    with (
        serve() as server,
        leastwise.Anthropic(api_key="k", base_url=server.url, leastwise=runtime, max_retries=0) as client,
    ):
        yield Talk(client, server.simulator.books)


def row(runtime: Runtime, exchange: str) -> Exchange:
    story = runtime.store.find(exchange)
    assert story is not None
    return story.exchange


def test_a_warm_conversation_stays_for_sonnets_work_and_moves_for_haikus(
    runtime: Runtime, talk: Talk
) -> None:
    said = [talk.say(words) for words in (PROOF, SUMMARY, SPAM, PROOF)]
    rows = [row(runtime, exchange) for exchange, _ in said]
    bills = [bill for _, bill in said]

    assert [OPUS, OPUS, HAIKU, OPUS] == [bill.model for bill in bills]
    assert [bill.nusd for bill in bills] == [found.spent_nusd for found in rows]
    stayed, moved = (read_why(story) for story in map(runtime.store.find, (said[1][0], said[2][0])) if story)
    assert "stays on opus: its prompt cache of 60,0" in stayed.reasons[-1][1]
    assert "moves off opus's warm prompt cache of 60,4" in moved.reasons[-1][1]
    assert "pays from turn 1" in moved.reasons[-1][1]
    assert "of it for a lost prompt cache" in " ".join(why_lines(moved))

    left = bills[1].usage.cache_read_input_tokens + bills[1].usage.cache_write_5m_tokens
    used = bills[2].usage
    assert left * (125 - 10) == rows[2].lost_cache_nusd
    # opus would have read what it had: the rest is as haiku used it, at 4,000, 5,000 and 20,000
    assert (
        200 * left
        + 5_000 * (used.cache_write_5m_tokens - left)
        + 4_000 * used.input_tokens
        + 20_000 * used.output_tokens
    ) == rows[2].baseline_nusd
    assert [0, 0] == [rows[0].lost_cache_nusd, rows[1].lost_cache_nusd]
    # back on opus, its own cache is still warm; only what haiku heard meanwhile is read anew
    assert bills[3].usage.cache_read_input_tokens > 60_000
    assert 0 < rows[3].lost_cache_nusd < 2_000 * 4_800

    (line,) = runtime.store.sums(Query())
    assert sum(bill.nusd for bill in bills) == line.spent_nusd
    assert sum(found.lost_cache_nusd for found in rows) == line.lost_cache_nusd
    assert sum(found.baseline_nusd for found in rows) - line.spent_nusd == line.saved_nusd


def test_a_conversation_that_has_moved_stays_moved_and_loses_nothing_more(
    runtime: Runtime, talk: Talk
) -> None:
    said = [talk.say(words) for words in (PROOF, SPAM, SPAM, SPAM)]

    assert [OPUS, HAIKU, HAIKU, HAIKU] == [bill.model for _, bill in said]
    lost = [row(runtime, exchange).lost_cache_nusd for exchange, _ in said]
    assert (0, True, 0, 0) == (lost[0], lost[1] > 60_000 * 115, *lost[2:])
