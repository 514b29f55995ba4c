"""What a checked request is expected to cost on each tier, and so where it begins.

The arithmetic is the governor's (`cascade.governor`). Here it meets a request: how long its answer may
be, what each tier and the judge would charge, how each tier's answers to this type of task have fared,
and whether a tier's own model would be its judge, whose word accepts nothing before it is calibrated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from leastwise.cascade import Evidence, Plan, Rung, stamp_of
from leastwise.cascade.governor import LEAST_CHECKED, Leg, Start, begin
from leastwise.ladder import Tier
from leastwise.messages import Usage
from leastwise.models import Models, canonical
from leastwise.prices import PriceBook, cost
from leastwise.routing.policy import Known

#: Tokens of an answer that nobody said the size of, until answers to such tasks have been seen.
_USUAL_OUTPUT_TOKENS: Final = 300
#: What a judge reads besides task and answer, and what it writes.
_JUDGE_INPUT_TOKENS, _JUDGE_OUTPUT_TOKENS = 350, 30
#: Where routing is sure of a tier it takes so many of its answers to be good, as the type table does.
_WANTED: Final = 0.92
_REFUSED: Final = "its judge keeps no promise, calibrated"
_OWN_JUDGE: Final = "it would be its own judge, not calibrated"
_UNSEEN: Final = "the judge is not shown images or documents"
#: From so many rejected answers on it counts how long those were that followed.
_LEAST_REJECTED: Final = 5
_NEW: Final = Rung()


def is_doubted(evidence: Evidence, task_type: str, tier: Tier) -> bool:
    """Tell whether a tier that routing is sure of was found out: too few of its answers were accepted."""
    rung = evidence.rungs.get((task_type, tier.name), _NEW)
    return rung.checked >= LEAST_CHECKED and rung.accepted < _WANTED * rung.checked


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is going to be checked.

    Attributes:
        plan: What its answer has to pass.
        known: How its checks fared so far.
        task_type: Its type of task, or "".
        input_tokens: Returns the size of its prompt in a tokenizer's tokens.
        output_tokens: The size of its answer as the caller told, or None.
        at: When; its prices count.
        is_unseen: Whether it holds what a judge is not shown, so that a judge cannot tell.
        cap: Its `max_tokens`; no answer is longer.
    """

    plan: Plan
    known: Known
    task_type: str
    input_tokens: Callable[[str], int]
    output_tokens: int | None
    at: datetime
    is_unseen: bool = False
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class Climber:
    """Says where checked requests begin.

    Attributes:
        prices: Dated rates.
        models: Which tokenizer each model has.
    """

    prices: PriceBook
    models: Models

    def begin(self, asked: Asked, tiers: Sequence[Tier], draw: float) -> Start:
        """Return where a request begins.

        Args:
            asked: The request.
            tiers: Where it may go, cheap to dear; the first is the one chosen for it.
            draw: From 0 to 1; below the plan's share of probes a cascade that does not pay is tried.
        """
        found = asked.known.evidence.rungs
        rungs = [found.get((asked.task_type, tier.name or tier.model), _NEW) for tier in tiers]
        seen = _mean(rungs[0].output_tokens, rungs[0].checked)  # of all tasks, not of those that climbed
        cap = asked.cap or sys.maxsize
        output = asked.output_tokens or min(seen or _USUAL_OUTPUT_TOKENS, cap)
        legs, after = [], 0
        for tier, rung, below in zip(tiers, rungs, (_NEW, *rungs), strict=False):
            rejected = below.checked - below.accepted
            if rejected >= _LEAST_REJECTED:  # else as long as after the tier below that, if that is known
                after = min(_mean(below.after_tokens, rejected), cap)
            leg = Leg(
                tier=str(tier),
                answer_nusd=self._price(asked, tier, 0, output),
                check_nusd=self._judging(asked, rung, output),
                rung=rung,
                barred=self._barred(asked, tier),
                after_nusd=self._price(asked, tier, 0, after) if after else None,
            )
            legs.append(leg)
        return begin(legs, draw=draw, probes=asked.plan.probes)

    def _judging(self, asked: Asked, rung: Rung, output_tokens: int) -> int:
        """Return what a judge costs: as it did lately, or, where it has not been asked yet, as it would."""
        judge = asked.plan.judge
        if judge is None or not asked.plan.is_judged:
            return 0
        seen = _mean(rung.checks_nusd, rung.checked)
        return seen or self._price(asked, judge, _JUDGE_INPUT_TOKENS + output_tokens, _JUDGE_OUTPUT_TOKENS)

    def _price(self, asked: Asked, tier: Tier, more: int, output_tokens: int) -> int:
        model = self.models.get(tier.model)
        prompt = asked.input_tokens(model.tokenizer if model is not None else "old")
        usage = Usage(input_tokens=prompt + more, output_tokens=output_tokens)
        return cost(usage, tier.model, asked.at, self.prices, provider=tier.upstream).nusd

    def _barred(self, asked: Asked, tier: Tier) -> str:
        """Return why a judge accepts nothing of this tier's, "" where it may."""
        plan = asked.plan
        if not plan.is_judged or plan.trusts_self or plan.unparsable == "accept" or plan.judge is None:
            return ""
        if asked.is_unseen:
            return _UNSEEN
        stamp = stamp_of(plan, tier.model, _version(plan))
        known = asked.known.evidence.calibration(stamp, asked.task_type)
        if known is not None:
            return "" if known.threshold is not None else _REFUSED
        return _OWN_JUDGE if canonical(plan.judge.model) == canonical(tier.model) else ""


def _version(plan: Plan) -> str:
    return next(check.version for check in plan.checks if check.kind == "judge") or ""


def _mean(total: int, count: int) -> int:
    return total // count if count else 0
