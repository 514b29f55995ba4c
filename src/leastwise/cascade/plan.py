"""The values of a cascade: what a check is, what is to be done with its word, and what is known of it.

A *check* looks at an answer and gives a `Verdict`: accept, escalate, or abstain where it was asked and
cannot tell; None where there is nothing in the request for it to look at. A *plan* is the checks of one
request in order, cheapest first, with what follows from them. *Evidence* is what the ledger knows of how
checks went: how often a tier's answers were accepted, what that cost, and what a score was worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from operator import add
from types import MappingProxyType
from typing import Any, Final, Literal

from leastwise.cascade.calibration import Calibration, alarm
from leastwise.ladder import Streaming, Tier, Verdict
from leastwise.messages import Reply, Request

#: What a check may return: a verdict, yes or no, a score, None where there is nothing to check, or a
#: generator that yields the core's steps and returns one of these (an *inquiry*).
Ask = Callable[[Request, Reply], Any]
#: What a check says of the first words of an answer: a verdict to escalate, or None to go on.
Glance = Callable[[Request, str], Verdict | None]
Kind = Literal["free", "run", "judge"]
Unparsable = Literal["escalate", "accept"]
Overloaded = Literal["fail", "next"]

#: The name of the check that asks a model.
JUDGE: Final = "judge"
#: A judge's scores, and the reference's threshold.
LOWEST_SCORE, HIGHEST_SCORE = 1, 5
THRESHOLD: Final = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """A named check.

    Attributes:
        name: As verdicts, reports and the configuration call it.
        ask: Looks at a whole answer.
        kind: `free` takes microseconds and runs where it is; `run` is the user's own and may take time; a
            `judge` asks a model.
        glance: Looks at the first words of a stream, so that it can be let go early; None waits for the end.
        version: Changes when what it says may change; None where nobody can tell, for what a function says
            may depend on more than its code.
        timeout_s: How long a `run` may take before it abstains.
        threshold: The least of its scores that is accepted; None for the one that the task tells.
    """

    name: str
    ask: Ask
    kind: Kind = "free"
    glance: Glance | None = field(default=None, compare=False)
    version: str | None = ""
    timeout_s: float = 60.0
    threshold: float | None = None


@dataclass(frozen=True)  # without slots: what is worked out of a plan is kept with it
class Plan:
    """What is done about an answer.

    Attributes:
        checks: In order, cheapest first; without any nothing is checked.
        judge: Whose model judges; None for no judge.
        threshold: The least of a judge's scores that is accepted where it is not calibrated.
        escalate_to: The dearest tier that may answer instead; "" for as far as the request may go.
        unparsable: What becomes of an answer of which a check cannot tell.
        stream: How checked streams reach the caller.
        overloaded: Whether a tier whose upstream is overloaded (529) gives way to the next.
        controls: How often a judge is given a planted answer that is known to be bad, from 0 to 1.
        governs: Whether a cascade that does not pay for itself is passed by.
        trusts_self: Whether a model may accept its own answers without calibration, as in the reference.
        probes: How often a cascade that does not pay is tried all the same, from 0 to 1.
        floor_s: How long a session stays at the tier it escalated to, for each step down; 0 for not at all.
    """

    checks: tuple[Check, ...] = ()
    judge: Tier | None = None
    threshold: float = THRESHOLD
    escalate_to: str = ""
    unparsable: Unparsable = "escalate"
    stream: Streaming = "auto"
    overloaded: Overloaded = "fail"
    controls: float = 0.01
    governs: bool = True
    trusts_self: bool = False
    probes: float = 0.02
    floor_s: float = 600.0

    @cached_property
    def is_free(self) -> bool:
        """Whether all of its checks take microseconds."""
        return all(check.kind == "free" for check in self.checks)

    @cached_property
    def is_judged(self) -> bool:
        """Whether a model is asked."""
        return any(check.kind == "judge" for check in self.checks)

    @cached_property
    def unjudged(self) -> Plan:
        """The same without asking a model."""
        return replace(self, checks=tuple(check for check in self.checks if check.kind != "judge"))

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the checks and who judges: what was learned holds for these."""
        names = [(check.name, check.version) for check in self.checks]
        return _digest(names, self.judge and self.judge.model, self.threshold, self.unparsable)

    @property
    def key(self) -> str | None:
        """The same digits for all by which an answer is accepted; None where no name could tell it apart."""
        if any(check.version is None for check in self.checks):
            return None
        return _digest(self.digest, [check.threshold for check in self.checks], self.escalate_to, self.stream)


def _digest(*parts: object) -> str:
    return sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:12]


NO_PLAN: Final = Plan()


def stamp_of(plan: Plan, maker: str, version: str) -> str:
    """Return twelve hexadecimal digits that name what a judge's scores depend on.

    Args:
        plan: Who judges.
        maker: The model whose answers are judged.
        version: The question's.
    """
    judge = plan.judge.model if plan.judge is not None else ""
    return sha256(repr((judge, maker, version)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Rung:
    """How checks of one tier's answers to one type of task went lately, and what it cost.

    Attributes:
        checked: Answers on which the checks had a word.
        accepted: Those that were accepted.
        answers_nusd: What all these answers cost.
        checks_nusd: What checking them cost.
        output_tokens: How long they were.
        after_tokens: How long the answers of dearer tiers were where these were rejected.
    """

    checked: int = 0
    accepted: int = 0
    answers_nusd: int = 0
    checks_nusd: int = 0
    output_tokens: int = 0
    after_tokens: int = 0

    def plus(self, more: Rung) -> Rung:
        """Return both together."""
        return Rung(*map(add, astuple(self), astuple(more)))


@dataclass(frozen=True, slots=True)
class Trial:
    """How often a tier's answers agreed with those a tag had before, in a trial.

    Attributes:
        tag: Whose traffic.
        tier: The tier that was tried.
        against: The model whose answers it was compared with; of several the cheapest.
        compared: How, such as `exact`, or `exact 1,400, judge by opus 600`.
        n: Pairs compared.
        agreed: Pairs that were as good.
        cost_nusd: What the trial cost.
        at: When it ended, seconds since the epoch.
        model: The model that the tier had then.
    """

    tag: str
    tier: str
    against: str
    compared: str
    n: int
    agreed: int
    cost_nusd: int
    at: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the ledger knows of checks.

    Attributes:
        rungs: By type of task and tier, under the checks that were asked about.
        calibrations: By stamp and type of task, "" for all types.
        trials: By tag and tier, the latest of each.
        controls: By stamp, how many planted answers were judged and how many of them accepted.
    """

    rungs: Mapping[tuple[str, str], Rung] = field(default_factory=lambda: MappingProxyType({}))
    calibrations: Mapping[tuple[str, str], Calibration] = field(default_factory=lambda: MappingProxyType({}))
    trials: Mapping[tuple[str, str], Trial] = field(default_factory=lambda: MappingProxyType({}))
    controls: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))

    def calibration(self, stamp: str, task_type: str) -> Calibration | None:
        """Return what scores of this stamp are worth at a type of task, else at all; None where unknown.

        While planted answers pass too often it has no threshold: what is found out accepts nothing, and not
        what an uncalibrated judge would.
        """
        found = self.calibrations.get((stamp, task_type)) or self.calibrations.get((stamp, ""))
        if found is None or found.rates is None:
            return found
        asked, accepted = self.controls.get(stamp, (0, 0))
        why = alarm(accepted, asked, found.rates.false_accept)
        return replace(found, threshold=None, rates=None, why=why) if why else found


NO_EVIDENCE: Final = Evidence()
