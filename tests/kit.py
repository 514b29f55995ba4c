"""Builders of plain values for tests of the core; no test doubles of our own code."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import structs

from leastwise.attempt import Call, Terms
from leastwise.compile import fit
from leastwise.ladder import DEFAULT_LADDER, Baseline, Code, Decision, Reason, Task
from leastwise.messages import Facts, Reply, Request, Usage
from leastwise.models import load_models
from leastwise.prices import load_prices

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
