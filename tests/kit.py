"""Builders of plain values for tests of the core; no test doubles of our own code."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from msgspec import structs

from leastwise.attempt import Call, Terms
from leastwise.cache import Stored
from leastwise.cascade import GateSays
from leastwise.compile import fit
from leastwise.errors import UpstreamFailure
from leastwise.exchange import Done
from leastwise.ladder import DEFAULT_LADDER, Baseline, Code, Decision, Reason, Task
from leastwise.messages import Facts, Reply, Request, Usage
from leastwise.models import load_models
from leastwise.prices import load_prices
from leastwise.steps import Relay, Relayed, Run, Step, Steps, hold

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time it was moved to."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


def request(model: str = "auto", **members: Any) -> Request:
    """Return a small request."""
    given = {
        "model": model,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Is this spam? Win!"}],
    }
    return Request.of({**given, **members})


def decision(model: str = HAIKU, **changes: Any) -> Decision:
    """Return a decision of mode `auto`, against opus."""
    tier = DEFAULT_LADDER.of_model(model)
    made = Decision(
        model=model,
        tier=tier.name if tier else "",
        upstream="anthropic",
        fallback=OPUS,
        asked="auto",
        mode="auto",
        complexity="simple",
        task_type="classify",
        is_sure=True,
        would="",
        max_tokens=None,
        reasons=(Reason(Code.TYPE, "type classify", "", "haiku"),),
        baseline=Baseline(OPUS, "assumed"),
        input_tokens=200,
    )
    return structs.replace(made, **changes)


def terms(
    decide: Callable[..., Decision] | Decision | None = None, clock: Clock | None = None, **changes: Any
) -> Terms:
    """Return terms whose decision is given, or made by a function."""
    made = decide if callable(decide) else lambda *_: decide or decision()
    models = load_models()
    plain = Terms(
        decide=made,
        fit=partial(fit, models=models),
        ladder=DEFAULT_LADDER,
        book=load_prices(),
        models=models,
        policy_hash="p0",
        clock=clock or Clock(),
        rng=random.Random(1),
    )
    return replace(plain, **changes)


def call(asked: Request | None = None, task: Task | None = None, **changes: Any) -> Call:
    """Return a call that enters an exchange now."""
    given = {"id": "X", "at": NOW, "request": asked or request(), "task": task or Task()}
    return Call(**{**given, **changes})


def reply(model: str = HAIKU, input_tokens: int = 200, output_tokens: int = 10, **changes: Any) -> Reply:
    """Return a whole answer; 200 and 10 tokens cost $0.000025 on haiku and $0.001 on opus."""
    facts = Facts(
        model=model,
        message_id="msg_1",
        stop_reason="end_turn",
        usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        is_complete=True,
    )
    return Reply("payload", replace(facts, **changes), request_id="req_1")


def after(size: int, says: GateSays) -> Callable[[], Callable[[bytes], GateSays]]:
    """Return what makes gates that say this once so many bytes have come, and have it read on until then."""

    def make() -> Callable[[bytes], GateSays]:
        seen = 0

        def gate(chunk: bytes) -> GateSays:
            nonlocal seen
            seen += len(chunk)
            return says if seen >= size else "wait"

        return gate

    return make


def holding(
    steps: Steps[Done],
    told: list[Any],
    gate: Callable[[], Callable[[bytes], GateSays]] | None = None,
    check: Run | None = None,
    way: Literal["done", "relay", "stored"] = "done",
) -> Steps[Done]:
    """Hold each live answer of an exchange and run a check on it, as a cascade does.

    What is dropped counts as refused by the upstream, and is asked for again.

    Args:
        steps: The exchange.
        told: Is given how each answer was held, and what each check said.
        gate: Makes the gate of each live answer; None to relay it at once.
        check: Is run on every answer; None for none.
        way: How the caller gets what was held to its end: as it is, live, or from what was kept of it.
    """
    said: list[GateSays] = []
    reply, held = Reply(None), Relayed(Facts())
    with closing(steps):
        step: Step = next(steps)
        while True:
            try:
                is_over = said[-1:] == ["wait"]
                skips = is_over and isinstance(step, Relay) and way != "relay"
                answer: object = held if skips else (yield step)
                if isinstance(answer, Reply):
                    reply, said = answer, []
                    if reply.is_live and gate is not None:
                        said.append("wait")
                        held = yield from hold(reply, partial(_ask, gate(), said))
                        told.append(held)
                    if check is not None:
                        told.append((yield check))
                    if said[-1:] == ["drop"]:
                        raise UpstreamFailure(OSError("dropped"), status=529)  # noqa: TRY301 - as the upstream's
            except UpstreamFailure as failure:
                step = steps.throw(failure)
                continue
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                done: Done = stop.value
                return replace(done, reply=_stored(reply, held)) if is_over and way == "stored" else done


def _ask(gate: Callable[[bytes], GateSays], said: list[GateSays], chunk: bytes) -> GateSays:
    said.append(gate(chunk))
    return said[-1]


def _stored(reply: Reply, told: Relayed) -> Reply:
    is_stream = reply.payload.is_stream
    stored = Stored(told.body, is_stream, HAIKU, "haiku", "anthropic", "X", reply.request_id, "", NOW)
    return Reply(stored, told.facts, reply.request_id)
