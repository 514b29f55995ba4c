"""Policies that can be tried on a table of outcomes: which models are asked, in what order, checked by what.

A policy is data. *Fitting* it looks at the training part only and says for each type of task which models
are asked, cheap to dear: one, or a ladder that is climbed until a check accepts. What is fitted is applied
to other rows unchanged.

A *simulated* judge is right with the same probability about every answer. Real judges are wrong about the
hard ones more often, about which a cheap model is wrong too: read its figures as what a cascade could do.
What comes of it is worked out, not drawn: a row's quality and cost are the means over all its verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from operator import mul, sub
from statistics import NormalDist, fmean
from typing import Final, Literal

from leastwise.cascade import Rung
from leastwise.cascade.governor import Leg, begin
from leastwise.errors import ConfigError
from leastwise.evaluate.outcomes import Outcomes
from leastwise.money import NUSD_PER_USD
from leastwise.routing.types import PRIOR_WEIGHT, blended

Kind = Literal["fixed", "cascade", "table"]
#: Models in the order in which they are asked.
Way = tuple[str, ...]
#: Row numbers.
Rows = Sequence[int]

#: From this score on an answer is acceptable: a judge that is right accepts it.
ACCEPTABLE: Final = 0.5
#: What a type of task may lose, in quality, where the table sends it to a cheaper model than the best.
MARGIN: Final = 0.01
#: How sure that must be, one-sided.
SURE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Column:
    """A check that was really made: a column of the table.

    Args:
        name: Of the column.
        threshold: The least that is accepted; where it said nothing the answer is not.
        cost: Of one check, as a share of what the cheapest model's answer cost on that row: it judges.
    """

    name: str
    threshold: float
    cost: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} >= {self.threshold:g}"


@dataclass(frozen=True, slots=True)
class Simulated:
    """A judge that is only imagined.

    Args:
        accuracy: How probably it is right about an answer, whichever it is.
        cost: Of one check, as a share of the mean cost of `of`.
        of: A model; "" for the one that is best on the training part.
    """

    accuracy: float
    cost: float = 0.1
    of: str = ""

    def __str__(self) -> str:
        return f"SIMULATED {self.accuracy:g}"


Check = Column | Simulated


@dataclass(frozen=True, slots=True)
class Policy:
    """How models are chosen.

    Args:
        kind: `fixed` asks one model; `cascade` asks the next one where the check does not accept; `table`
            asks one model, which the task's type decides.
        tiers: The models, in the order asked. Without any the training part decides: `fixed` asks the best,
            a cascade all that are undominated.
        check: What looks at the answers of a cascade.
        is_governed: Whether a cascade is passed by where the training part says that it does not pay.
    """

    kind: Kind
    tiers: Way = ()
    check: Check | None = None
    is_governed: bool = False

    def __post_init__(self) -> None:
        """Refuse a cascade without a check, and a check without a cascade.

        Raises:
            ValueError: it is one of these.
        """
        if (self.kind == "cascade") != (self.check is not None):
            message = (
                f"{self.kind} with the check {self.check}: a cascade has a check, and nothing else has one"
            )
            raise ValueError(message)

    def __str__(self) -> str:
        """Return its name in tables."""
        if self.kind == "fixed":
            return self.tiers[0] if self.tiers else "best fixed model"
        if self.kind == "table":
            return "type table, no check"
        return f"cascade {self.check}" + (", governed" if self.is_governed else "")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A policy as the training part made it.

    Attributes:
        otherwise: The models asked, in order.
        ways: The same for types of task that differ.
        check: Whether an answer is passed on to the next.
    """

    otherwise: Way
    ways: Mapping[str, Way] = field(default_factory=dict)
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What came of asking models in one order, by row.

    Attributes:
        quality: Of the answer that was served, 0 to 1.
        cost: Of all answers and checks, in dollars.
        escalated: How probably a second model was asked, 0 or 1 where nothing is simulated.
        answered: By model, how probably its answer was served.
        may_escalate: Whether several are asked.
    """

    quality: Sequence[float]
    cost: Sequence[float]
    escalated: Sequence[float]
    answered: Mapping[str, Sequence[float]]
    may_escalate: bool = False


# --- which models ------------------------------------------------------------------------------------


def mean(column: Sequence[float], rows: Rows) -> float:
    """Return the mean of a column over some rows, at least one."""
    return fmean(map(column.__getitem__, rows))


def undominated(outcomes: Outcomes, rows: Rows) -> Way:
    """Return the models that are better than each cheaper one by their means on these rows, the best last."""
    points = [
        (mean(outcomes.costs[model], rows), -mean(outcomes.scores[model], rows), model)
        for model in outcomes.models
    ]
    kept, least = [], 1.0
    for _, loss, model in sorted(points):
        if loss < least:
            kept.append(model)
            least = loss
    return tuple(kept)


# --- what comes of them ------------------------------------------------------------------------------


def course(outcomes: Outcomes, way: Way, check: Check | None) -> Course:
    """Return what comes of asking the models of `way` in order until the check accepts, on every row."""
    reached: Sequence[float] = [1.0] * len(outcomes)
    quality, cost = [0.0] * len(outcomes), [0.0] * len(outcomes)
    escalated: Sequence[float] = quality
    answered = {}
    for place, model in enumerate(way):
        served = reached
        asked: Sequence[float] = outcomes.costs[model]
        if place < len(way) - 1:
            assert check is not None
            accepted = acceptances(outcomes, model, check)
            served = [share * accepts for share, accepts in zip(reached, accepted, strict=True)]
            asked = [ask + fee for ask, fee in zip(asked, fees(outcomes, check), strict=True)]
        scores = outcomes.scores[model]
        quality = [sum_ + share * score for sum_, share, score in zip(quality, served, scores, strict=True)]
        cost = [sum_ + share * ask for sum_, share, ask in zip(cost, reached, asked, strict=True)]
        answered[model] = served
        reached = list(map(sub, reached, served))
        if place == 0:
            escalated = reached
    return Course(quality, cost, escalated, answered, len(way) > 1)


def acceptances(outcomes: Outcomes, model: str, check: Check) -> list[float]:
    """Return how probably the check accepts each answer of a model; errors as in `verdicts`."""
    if isinstance(check, Column):
        said = verdicts(outcomes, model, check)
        return [float(one is not None and one >= check.threshold) for one in said]
    right, wrong = check.accuracy, 1 - check.accuracy
    return [right if score >= ACCEPTABLE else wrong for score in outcomes.scores[model]]


def verdicts(outcomes: Outcomes, model: str, check: Column) -> Sequence[float | None]:
    """Return what the check said of each answer of a model.

    Raises:
        ConfigError: the table has no such check of the model's answers.
    """
    said = outcomes.checks.get(check.name, {}).get(model)
    if said is None:
        message = f"{outcomes.name}: no column {model}|{check.name}; name another check, or other tiers"
        raise ConfigError(message)
    return said


def fees(outcomes: Outcomes, check: Check) -> list[float]:
    """Return what one check of each row costs, in dollars."""
    if isinstance(check, Column):
        return [check.cost * cost for cost in outcomes.costs[outcomes.models[0]]]
    return [check.cost * fmean(outcomes.costs[check.of])] * len(outcomes)


def oracle(outcomes: Outcomes) -> Course:
    """Return what the cheapest of each row's best answers comes to: no policy can do better."""
    chosen = [
        min(outcomes.models, key=lambda model: (-outcomes.scores[model][row], outcomes.costs[model][row]))
        for row in range(len(outcomes))
    ]
    return Course(
        quality=[outcomes.scores[model][row] for row, model in enumerate(chosen)],
        cost=[outcomes.costs[model][row] for row, model in enumerate(chosen)],
        escalated=[0.0] * len(outcomes),
        answered={model: [float(model == one) for one in chosen] for model in outcomes.models},
    )


# --- fitting -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What a governor goes by: the same for every split of a table, so that it is worked out once.

    Attributes:
        way: The models of a cascade.
        accepted: By model, but for the last, how probably the check accepts each row's answer.
        fees: What a check of each row costs, in dollars.
    """

    way: Way
    accepted: Mapping[str, Sequence[float]]
    fees: Sequence[float]


def terms_of(outcomes: Outcomes, way: Way, check: Check) -> Terms:
    """Return what the governor of a cascade goes by."""
    return Terms(
        way, {model: acceptances(outcomes, model, check) for model in way[:-1]}, fees(outcomes, check)
    )


def fit(
    policy: Policy,
    outcomes: Outcomes,
    train: Rows,
    pool: Way,
    terms: Callable[[Way, Check], Terms],
) -> Fitted:
    """Return the policy as the training rows make it.

    Args:
        policy: What is to be fitted.
        outcomes: The table.
        train: The rows that may be looked at.
        pool: The undominated models of these rows, the best last.
        terms: Returns `terms_of` of this table.

    Raises:
        ConfigError: the table has no such model or check, or a model is named twice.
    """
    for model in policy.tiers:
        if model not in outcomes.models:
            message = f"{outcomes.name}: no model {model!r}; there are {', '.join(outcomes.models)}"
            raise ConfigError(message)
    if len(set(policy.tiers)) < len(policy.tiers):
        message = f"tiers {','.join(policy.tiers)}: each model may be asked once"
        raise ConfigError(message)
    if policy.kind == "fixed":
        return Fitted(policy.tiers or pool[-1:])
    if policy.kind == "table":
        return _fit_table(outcomes, train, pool[-1])
    way, check = policy.tiers or pool, policy.check
    assert check is not None
    if isinstance(check, Simulated):
        check = replace(check, of=check.of or pool[-1])
    if not policy.is_governed:
        return Fitted(way, check=check)
    found = terms(way, check)
    ways = {kind: paying(outcomes, found, rows) for kind, rows in _by_kind(outcomes, train).items()}
    return Fitted(paying(outcomes, found, train), ways, check)


def paying(outcomes: Outcomes, terms: Terms, rows: Rows) -> Way:
    """Return what the governor leaves of a cascade, by these rows: where it begins and where it goes on to.

    What a model costs where the one below was rejected is looked up: those tasks are harder than others.
    """
    way, accepted = terms.way, terms.accepted
    fee = _nusd(terms.fees, rows)
    legs = []
    for below, model in zip(("", *way), way, strict=False):
        costs = outcomes.costs[model]
        leg = Leg(model, _nusd(costs, rows), after_nusd=_after(costs, accepted.get(below), rows))
        if model in accepted:
            rung = Rung(len(rows), round(len(rows) * mean(accepted[model], rows)))
            leg = replace(leg, check_nusd=fee, rung=rung)
        legs.append(leg)
    start = begin(legs)
    return tuple(way[place] for place in (start.index, *start.onward))


def _after(costs: Sequence[float], accepted: Sequence[float] | None, rows: Rows) -> int | None:
    """Return the mean cost of the rows that the model below was rejected on; None where there are none."""
    if accepted is None:
        return None
    rejected = [1 - accepted[row] for row in rows]
    weight = sum(rejected)
    if not weight:
        return None
    spent: float = sum(map(mul, rejected, map(costs.__getitem__, rows)))
    return round(spent / weight * NUSD_PER_USD)


def _nusd(dollars: Sequence[float], rows: Rows) -> int:
    return round(mean(dollars, rows) * NUSD_PER_USD)


def _by_kind(outcomes: Outcomes, rows: Rows) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(outcomes.kinds[row], []).append(row)
    return found


def _fit_table(outcomes: Outcomes, train: Rows, best: str) -> Fitted:
    """Send each type of task to the cheapest model that surely is no worse than the best one.

    A model's gain over the best one, on the same rows, is drawn towards its gain over all types as if that
    were `PRIOR_WEIGHT` rows, and so is its variance. Where the lower bound of it is within `MARGIN` the
    model will do. With few rows the bound is wide, and the best model is asked.
    """
    by_kind = _by_kind(outcomes, train)
    least = {kind: (mean(outcomes.costs[best], rows), best) for kind, rows in by_kind.items()}
    for model in outcomes.models:
        gains = list(map(sub, outcomes.scores[model], outcomes.scores[best]))
        overall = [gains[row] for row in train]
        prior = fmean(overall)
        spread = _variance(overall, prior)
        for kind, rows in by_kind.items():
            at = (mean(outcomes.costs[model], rows), model)
            if at < least[kind] and _will_do([gains[row] for row in rows], prior, spread):
                least[kind] = at
    return Fitted((best,), {kind: (model,) for kind, (_, model) in least.items() if model != best})


_Z: Final = NormalDist().inv_cdf(SURE)


def _will_do(gains: Sequence[float], prior: float, spread: float) -> bool:
    count, seen = len(gains), fmean(gains)
    gain = blended(prior, count, seen, PRIOR_WEIGHT)
    variance = blended(spread, count, _variance(gains, seen), PRIOR_WEIGHT)
    return gain - _Z * sqrt(variance / count) >= -MARGIN


def _variance(values: Sequence[float], middle: float) -> float:
    return fmean((value - middle) ** 2 for value in values)
