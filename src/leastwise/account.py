"""What the ledger and the caller are told of a request, however it ended.

A request is *answered*, *failed* or *abandoned*; each gives one row. Savings are
re-priced: the baseline's price for the tokens that were used, in the baseline's
own tokenizer, less everything spent on the request. Where we chose nothing
(observe, off) nothing is saved; what could move is told apart, quality unknown.

The baseline's prompt cache is taken to have stood as the session's own would have without
us. Where another model answered the session's last call, as much of this prompt as that call
had read or written, and as is still kept, counts as read - what was written now first, then
plain input - and the rest stays in its class. Where the same model answered
both, or the session is unknown, the classes are as they were used: what that model had to
read anew, the baseline would have had to. So a move away from a warm cache is set against a
baseline that would only have read, and its first turn may well save less than nothing.
*Lost prompt cache* is the same tokens' price on the model that answered, over what reading
them from its cache would have cost: a part of what was spent, shown apart. What could move
is priced as if the other model had had the session all along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import msgspec
from msgspec import structs

from leastwise.attempt import MISFITS, Answer, Call, Terms, fitted, moment
from leastwise.cache import NO_CACHE, Caching, Stored
from leastwise.cascade import NO_EVIDENCE, Plan, Rung, Trial
from leastwise.cascade.trials import quality_of
from leastwise.errors import BudgetError, LeastwiseError, UnknownPriceError, UpstreamFailure
from leastwise.features import Features
from leastwise.ladder import Code, Decision, Outcome, Reason, Says, Tier, Verdict
from leastwise.ledger import Entry, Exchange, Measured, StepDown
from leastwise.messages import Facts, Request, Usage
from leastwise.models import canonical
from leastwise.money import show, to_usd
from leastwise.prices import baseline_cost, cost
from leastwise.routing import Known, Warmth, as_read, lost_tokens, warmth_of, warmths_of
from leastwise.steps import Record

#: Modes in which we chose the model; elsewhere nothing is saved and no tool call is pinned.
_CHOSEN: Final = ("auto", "enforce")
_CHECKS: Final = frozenset({"classifier", "judge"})
#: After these another model may have answered than the one in whose tokens the prompt was estimated.
_MOVED: Final = frozenset(
    {Code.MISFIT, Code.UNREACHED, Code.TRUNCATED, Code.ESCALATED, Code.OVERLOADED, Code.BUDGET_CAP}
)


@dataclass(frozen=True, slots=True)
class Teller:
    """Builds the request's row and outcome, however it ends."""

    call: Call
    terms: Terms
    read: Features
    known: Known
    decision: Decision
    fault: str
    caching: Caching = NO_CACHE
    misfit_field: str = ""
    capped: tuple[StepDown, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    checked: Says | Literal[""] = ""
    rungs: Mapping[str, Rung] = field(default_factory=dict)
    escalations: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether we chose the model."""
        return self.decision.mode in _CHOSEN

    @property
    def plan(self) -> Plan:
        """What its answer has to pass."""
        return self.call.plan if self.decision.is_judged else self.call.plan.unjudged

    def judged(self, verdicts: tuple[Verdict, ...], said: Says, entry: Entry, *, is_all: bool) -> Teller:
        """Return a teller that knows what checks said of the answer of `entry`.

        Args:
            verdicts: What each said.
            said: What follows from them.
            entry: The attempt that brought the answer.
            is_all: Whether all checks were asked, so that it counts for the tier or against it.
        """
        blamed = is_all and any(verdict.blames for verdict in verdicts if verdict.says == said)
        rungs = self.rungs
        if blamed and said in ("accept", "escalate"):
            rung = Rung(
                checked=1,
                accepted=int(said == "accept"),
                answers_nusd=entry.cost_nusd,
                checks_nusd=sum(verdict.cost_nusd for verdict in verdicts if not verdict.is_control),
                output_tokens=entry.usage.output_tokens,
            )
            rungs = {**rungs, self.decision.tier or self.decision.model: rung}
        return replace(self, verdicts=(*self.verdicts, *verdicts), checked=said, rungs=rungs)

    def escalated(self, entry: Entry) -> Teller:
        """Return a teller for the next tier, where the answer of `entry` was not accepted."""
        here = self.decision.tier or self.decision.model
        why = next((one for one in reversed(self.verdicts) if not one.is_control), None)
        said = f"{why.check} {why.words}" if why is not None else "not accepted"
        following = self.decision.climbs[0]
        words = f"{here} not accepted ({said}): {following} asked, {show(entry.cost_nusd)} discarded"
        told = self._upward(Code.ESCALATED, words)
        return replace(told, checked="", escalations=self.escalations + 1)

    def overloaded(self) -> Teller:
        """Return a teller for the next tier, where this one's upstream is overloaded."""
        here = self.decision.tier or self.decision.model
        return self._upward(Code.OVERLOADED, f"{here} is overloaded: {self.decision.climbs[0]} asked")

    def unanswered_above(self, failed: Teller, failure: LeastwiseError | None = None) -> Teller:
        """Return a teller for the answer there is, where it was not accepted and a dearer tier gave none.

        One that a cap cut off is told as what it was before it was asked for again.

        Args:
            failed: The dearer tier's.
            failure: Why it gave none; None where its answer broke off.
        """
        if not self.checked:
            return self
        there = failed.decision.tier or failed.decision.model
        here = self.decision.tier or self.decision.model
        why = "its answer broke off" if failure is None else "no answer"
        if isinstance(failure, BudgetError):
            why = _uncovered(failure)
        words = f"{there}: {why}; {here}'s answer is served, not accepted"
        reasons = (*failed.decision.reasons, Reason(Code.NOT_ESCALATED, words, there, here))
        return replace(self, decision=structs.replace(self.decision, reasons=reasons))

    def refused(self, failure: UpstreamFailure, *, upward: bool = False) -> Teller:
        """Return a teller for where else to go: what was taken to fit did not, or its server is out of reach.

        Args:
            failure: What the upstream said.
            upward: Whether to go to the next tier, for there is an answer of a cheaper one; else to the
                fallback.
        """
        instead = self.decision.climbs[0].model if upward else self.decision.fallback
        go = self._upward if upward else partial(self._instead, instead)
        what = "sent as received" if instead == self.call.request.model else f"sent to {instead}"
        if failure.status not in MISFITS:
            how = f"answers {failure.status}" if failure.status else "cannot be reached"
            return go(Code.UNREACHED, f"{self.decision.upstream} {how}: {what}")
        where = f" on {failure.field}" if failure.field else ""
        told = go(Code.MISFIT, f"refused with {failure.status}{where}: {what}")
        return replace(told, misfit_field=failure.field)

    def truncated(self, sent: Request, limit: int | None) -> Teller:
        """Return a teller without our cap, which cut `sent` off; where `limit` did, for the fallback."""
        model, where = self.decision.model, ""
        if sent.max_tokens == limit:
            model = self.decision.fallback
            where = f" of {model}" if model != self.decision.model else ""
        words = f"our cap of {sent.max_tokens:,} cut it off: asked again{where} with yours"
        told = self._instead(model, Code.TRUNCATED, words)
        if model != self.decision.model:
            return told
        return replace(told, decision=structs.replace(told.decision, climbs=self.decision.climbs))

    def stepped_down(self, tier: Tier, short: BudgetError) -> Teller:
        """Return a teller for a cheaper tier, for what a budget could not cover at this one."""
        here = self.decision.tier or self.decision.model
        words = f"budget {short.budget} cannot cover {here}: stepped down to {tier.name}"
        step = _capped(short, here, tier.name)
        return replace(self._instead(tier.model, Code.BUDGET_CAP, words), capped=(*self.capped, step))

    def _blocked(self, short: BudgetError) -> Record:
        words = _uncovered(short)
        here = self.decision.tier or self.decision.model
        reasons = (*self.decision.reasons, Reason(Code.BUDGET_CAP, f"{words}: blocked", here, here))
        told = replace(self, decision=structs.replace(self.decision, reasons=reasons))
        row = told._row("blocked", short.http_status, None)  # noqa: SLF001 - one of its own
        blocked = (_capped(short, here, ""),) if short.account else ()
        return Record(row, step_downs=(*self._step_downs(), *blocked))

    def recalled(self, stored: Stored, facts: Facts) -> Record:
        """Return the row for an answer given again: it cost nothing, and saves the baseline's price."""
        row = self._row("ok", 200, None)
        at, book, models = moment(self.call.at), self.terms.book, self.terms.models
        baseline = self.decision.baseline.model
        provider = self.terms.ladder.serving(baseline).upstream
        try:
            saved = baseline_cost(
                facts.usage, facts.model or stored.model, baseline, at, book, models, provider=provider
            )
            saved_nusd = saved.nusd
        except UnknownPriceError:
            saved_nusd = 0  # nothing to compare with
        served = canonical(facts.model or stored.model)
        return Record(
            replace(
                row,
                served=served,
                tier=stored.tier,
                decision_json=_decision_json(self.decision, paid_by=stored.exchange),
                baseline_nusd=saved_nusd,
                saved_nusd=saved_nusd,
                cache="hit",
            )
        )

    def _step_downs(self) -> tuple[StepDown, ...]:
        """Return what budgets did to this request, or put off."""
        decision, held = self.decision, self.decision.held
        if held is None or decision.mode not in _CHOSEN:
            return self.capped
        reason = next(r for r in decision.reasons if r.code in (Code.BUDGET_CEILING, Code.BUDGET_DEFERRED))
        trigger = "deferred" if reason.code is Code.BUDGET_DEFERRED else f"above {100 * held.above:.0f}%"
        percent = float(held.percent)
        step = StepDown(held.account, held.window, reason.before, reason.after, percent, trigger)
        return (step, *self.capped)

    def _instead(self, model: str, code: Code, words: str) -> Teller:
        """Return a teller for that model, with the reason why, and no clamp."""
        tier = self.terms.ladder.serving(model)
        reasons = (*self.decision.reasons, Reason(code, words, self.decision.model, model))
        adapted = fitted(self.call, self.terms, model).words
        if adapted and model != self.decision.model:
            reasons += (Reason(Code.ADAPTED, f"adapted: {adapted}", model, model),)
        changed = structs.replace(
            self.decision,
            model=model,
            tier=tier.name,
            upstream=tier.upstream,
            reasons=reasons,
            max_tokens=None,
            climbs=(),
        )
        return replace(self, decision=changed)

    def _upward(self, code: Code, words: str) -> Teller:
        """Return a teller for the next tier that may answer, with the reason why."""
        following, *rest = self.decision.climbs
        told = self._instead(following.model, code, words)
        return replace(told, decision=structs.replace(told.decision, climbs=tuple(rest)))

    def abandoned(self, entry: Entry) -> Record:
        """Return the row for a caller who left while `entry` was under way."""
        row, steps = self._row("abandoned", 0, entry), self._step_downs()
        return Record(row, warmth=self._warmth(entry), step_downs=steps, **self._checks(entry))

    def unanswered(self, _entry: Entry) -> Record:
        """Return the row for a caller who left before anything of theirs was sent."""
        return Record(self._row("abandoned", 0, None))

    def failed(self, failure: LeastwiseError) -> Record:
        """Return the row for a request that nobody answered, or that a budget did not allow."""
        if isinstance(failure, BudgetError):
            return self._blocked(failure)
        status = failure.status or 0 if isinstance(failure, UpstreamFailure) else failure.http_status
        return Record(self._row("error", status, None), step_downs=self._step_downs())

    def answered(self, answer: Answer) -> Record:
        """Return the row for an answer, whole or cut short."""
        is_whole = answer.facts.is_complete and answer.failure is None
        is_ours = self.decision.mode in _CHOSEN
        row = self._row("ok" if is_whole else "cut", 200, answer.entry)
        pins = answer.facts.tool_use_ids if is_ours else ()
        asked_now = bool(self.known.ask_key)
        return Record(
            row,
            pins,
            self.decision.model,
            self._measured(answer) if is_whole else None,
            self._warmth(answer.entry),
            self.known.ask_key,
            self.known.opinion if asked_now else "",
            self._step_downs(),
            **self._checks(answer.entry),
        )

    def _checks(self, entry: Entry) -> dict[str, Any]:
        """Return what a row says of checks; `entry` brought the last answer."""
        if not self.verdicts:
            return {}
        is_floor = self.escalations and self.call.plan.floor_s and talk_of(self.read)
        return {
            "verdicts": self.verdicts,
            "checks": self.call.plan.digest,
            "rungs": self._with_what_followed(entry),
            "floor": self.decision.tier if is_floor else "",
        }

    def _with_what_followed(self, entry: Entry) -> dict[str, Rung]:
        """Return the rungs; those whose answer was rejected know how long the next tier's was."""
        here = self.decision.tier or self.decision.model
        followed = [*(rung.output_tokens for rung in self.rungs.values()), entry.usage.output_tokens][1:]
        return {
            tier: rung if rung.accepted or tier == here else replace(rung, after_tokens=tokens)
            for (tier, rung), tokens in zip(self.rungs.items(), followed, strict=True)
        }

    def _warmth(self, entry: Entry) -> Warmth | None:
        if not self.read.marks_cache:
            return None  # nor was the session looked up
        before = self.known.warmths.get(canonical(entry.model))
        return warmth_of(entry.usage, entry.model, entry.asked_at, before)

    def _measured(self, answer: Answer) -> Measured | None:
        model = self.terms.models.get(answer.entry.model)
        actual = answer.entry.usage.prompt_tokens
        is_moved = any(reason.code in _MOVED for reason in self.decision.reasons)
        if model is None or not self.decision.input_tokens or not actual or is_moved:
            return None
        correction = self.known.corrections.get(model.tokenizer, 1.0)
        return Measured(model.tokenizer, round(self.decision.input_tokens / correction), actual)

    def _row(self, result: str, status: int, entry: Entry | None) -> Exchange:
        call, decision, spent = self.call, self.decision, self.call.spent
        usage = entry.usage if entry is not None else Usage()
        served = canonical(entry.model) if entry is not None else ""
        kept = self._with_cache_kept(entry) if entry is not None else usage
        baseline_nusd, could_nusd = self._compared(entry, kept)
        spent_nusd = sum(one.cost_nusd for one in spent)
        checks_nusd = sum(one.cost_nusd for one in spent if one.purpose in _CHECKS)
        refused = next((r.before for r in decision.reasons if r.code is Code.MISFIT), "")
        return Exchange(
            id=call.id,
            at=call.at,
            tenant=call.tenant,
            key=call.key,
            session=self.read.session,
            tag=call.task.tag or "",
            kind="message",
            mode=decision.mode,
            asked=decision.asked,
            served=served,
            tier=decision.tier if served else "",
            upstream=decision.upstream,
            would=decision.would,
            result=result,
            status=status,
            decision_json=_decision_json(decision),
            policy_hash=self.terms.policy_hash,
            baseline=canonical(decision.baseline.model),
            baseline_how=decision.baseline.how,
            baseline_nusd=baseline_nusd,
            spent_nusd=spent_nusd,
            discarded_nusd=spent_nusd - checks_nusd - (entry.cost_nusd if entry is not None else 0),
            saved_nusd=baseline_nusd - spent_nusd if decision.mode in _CHOSEN else 0,
            could_nusd=could_nusd,
            arm="kept" if any(r.code is Code.NOT_IN_SHARE for r in decision.reasons) else "treated",
            complexity=decision.complexity or "",
            task_type=decision.task_type,
            certainty=certainty_of(spent),
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            latency_s=max(0.0, self.terms.clock() - call.at),
            fault=self.fault,
            misfit=refused if result != "error" else "",  # else nobody can tell who was wrong
            misfit_field=self.misfit_field if result != "error" else "",
            checks_nusd=checks_nusd,
            lost_cache_nusd=self._lost(entry, kept) if entry is not None else 0,
            cache="miss" if self.caching.reads else "",
            checked=self.checked,
            escalations=self.escalations,
        )

    def _with_cache_kept(self, entry: Entry) -> Usage:
        """Return what `entry` used as if the session's prompt cache had come along; see the module."""
        if self.decision.mode not in _CHOSEN or not self.read.marks_cache:
            return entry.usage
        at, models = self.call.at, self.terms.models
        warmths = warmths_of(self.known, self.call.request, self.read, at, models)
        return as_read(entry.usage, lost_tokens(warmths, entry.usage, entry.model, at, models))

    def _lost(self, entry: Entry, kept: Usage) -> int:
        """Return what the prompt cost for want of the session's cache."""
        at, book = moment(entry.asked_at), self.terms.book
        if kept == entry.usage or not book.has(entry.model, at, entry.provider):
            return 0
        paid, read = (
            cost(usage, entry.model, at, book, provider=entry.provider).nusd for usage in (entry.usage, kept)
        )
        return paid - read

    def _compared(self, entry: Entry | None, kept: Usage) -> tuple[int, int]:
        """Return the baseline's price for the tokens used, and what the routed model would have saved."""
        if entry is None:
            return 0, 0
        decision = self.decision
        is_its_own = canonical(entry.model) == canonical(decision.baseline.model) and kept == entry.usage
        if is_its_own or entry.cost_nusd == 0 == entry.usage.output_tokens:
            baseline_nusd = entry.cost_nusd
        else:
            baseline_nusd = self._repriced(entry, kept, decision.baseline.model)
        if not decision.would:
            return baseline_nusd, 0
        return baseline_nusd, baseline_nusd - self._repriced(entry, kept, decision.would)

    def _repriced(self, entry: Entry, used: Usage, model: str) -> int:
        provider = self.terms.ladder.serving(model).upstream
        at, book, models = moment(entry.asked_at), self.terms.book, self.terms.models
        if not entry.price_row or not book.has(model, at, provider):
            return entry.cost_nusd  # nothing to compare with: neither saved nor lost
        try:
            return baseline_cost(used, entry.model, model, at, book, models, provider=provider).nusd
        except UnknownPriceError:
            return entry.cost_nusd  # as above, for a part of the answer

    def outcome(self, record: Record) -> Outcome:
        """Return what was recorded as the outcome for the caller."""
        left = self.known.purse.remaining_nusd(canonical(self.decision.model))
        row, spent = record.exchange, self.call.spent
        remaining = None if left is None else left - row.spent_nusd
        return outcome_of(
            row,
            spent,
            self.decision.reasons,
            self.terms,
            remaining_nusd=remaining,
            verdicts=self.verdicts,
            trials=self.known.evidence.trials,
        )


def _uncovered(short: BudgetError) -> str:
    return f"budget {short.budget} cannot cover it" if short.account else "budgets cannot be asked"


def _capped(short: BudgetError, before: str, after: str) -> StepDown:
    return StepDown(short.account, short.window_key, before, after, float(short.percent), "cap")


def outcome_of(
    row: Exchange,
    entries: list[Entry],
    reasons: tuple[Reason, ...],
    terms: Terms,
    *,
    remaining_nusd: int | None = None,
    verdicts: tuple[Verdict, ...] = (),
    trials: Mapping[tuple[str, str], Trial] = NO_EVIDENCE.trials,
) -> Outcome:
    """Return a row and its entries as an `Outcome`."""
    used: dict[str, Usage] = {}
    for entry in entries:
        tier = terms.ladder.of_model(entry.model) or terms.ladder.of_model(canonical(entry.model))
        name = tier.name if tier is not None else entry.model
        used[name] = used[name].plus(entry.usage) if name in used else entry.usage
    return Outcome(
        exchange=row.id,
        tier=row.tier,
        model=row.served,
        asked=row.asked,
        mode=row.mode,
        complexity=row.complexity or None,  # type: ignore[arg-type]  # written from a Complexity
        reasons=reasons,
        cost_usd=to_usd(row.spent_nusd),
        baseline_usd=to_usd(row.baseline_nusd),
        baseline_model=row.baseline,
        baseline_how=row.baseline_how,  # type: ignore[arg-type]  # written from a HowBaseline
        saved_usd=to_usd(row.saved_nusd),
        could_save_usd=to_usd(row.could_nusd),
        would=row.would,
        same_quality=quality_of(
            trials, terms.ladder, tag=row.tag, tier=row.tier, model=row.served, baseline=row.baseline
        ),
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        usage_by_tier={
            name: {"input_tokens": usage.prompt_tokens, "output_tokens": usage.output_tokens}
            for name, usage in used.items()
        },
        certainty=row.certainty,
        result=row.result,
        escalated=row.escalations > 0,
        checks=verdicts,
        from_cache=row.cache == "hit",
        budget_remaining_usd=None if remaining_nusd is None else to_usd(remaining_nusd),
    )


def talk_of(read: Features) -> str:
    """Return the session of a conversation; "" for a call that only begins like others."""
    return read.session if read.session_told or read.human_turns > 1 else ""


def certainty_of(spent: list[Entry]) -> str:
    """Return how sure the cost of these attempts is: as sure as the least sure of them."""
    found = {entry.certainty for entry in spent}
    return next((certainty for certainty in ("lost", "estimated") if certainty in found), "exact")


def _decision_json(decision: Decision, **more: str) -> str:
    return msgspec.json.encode(
        {
            **more,
            "complexity": decision.complexity,
            "type": decision.task_type,
            "sure": decision.is_sure,
            "input_tokens": decision.input_tokens,
            "max_tokens": decision.max_tokens,
            "reasons": [[r.code.value, r.words, r.before, r.after] for r in decision.reasons],
        }
    ).decode()
