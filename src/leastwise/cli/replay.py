"""`leastwise tune replay`: policies tried on a table of outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter, validators

from leastwise import evaluate
from leastwise.cli.console import OK, AsJson, print_either, say, say_next
from leastwise.errors import ConfigError
from leastwise.evaluate import CHECKS, Check, Column, Outcomes, Policy, Simulated, Way
from leastwise.report.replay import replay_json, replay_lines

#: A check of this name is a test that runs on one's own machine.
_FREE: Final = "gate"
#: At list prices a token read costs a fifth of one written. A judge of the cheapest tier reads the task, the
#: answer and its instructions, and writes a line: half of what a task of 150 and an answer of 300 tokens
#: cost that tier. Longer answers make it less, long prompts and judges that think first make it more.
_CHECK_COST: Final = 0.5
_ACCURACIES: Final = (0.9, 0.8)
_FIXED: Final = "fixed:"

_SHARE: Final = validators.Number(gte=0, lte=1)
_BETWEEN: Final = validators.Number(gt=0, lt=1)
_POSITIVE: Final = validators.Number(gte=0, lte=1000)


def replay(
    outcomes: Annotated[
        Path,
        Parameter(
            help="Parquet, CSV or JSON lines: id, perhaps benchmark, subset and fold (train, test), and for "
            "each model M the columns M|score (0 to 1), M|cost_usd and perhaps checks such as M|gate."
        ),
    ],
    /,
    *,
    models: Annotated[
        list[str] | None,
        Parameter(help="Pattern of the models to choose from, such as 'claude-*'.", negative=()),
    ] = None,
    policy: Annotated[
        list[str] | None,
        Parameter(help="table, cascade, or fixed:MODEL. [default: table and cascade]", negative=()),
    ] = None,
    tiers: Annotated[
        str | None, Parameter(help="Models of the cascade, cheap to dear: a,b,c. [default: the undominated]")
    ] = None,
    check: Annotated[
        list[str] | None,
        Parameter(help="Column M|NAME with a check's verdicts. [default: gate, judge]", negative=()),
    ] = None,
    threshold: Annotated[float, Parameter(help="The least verdict to accept.", validator=_SHARE)] = 0.6,
    check_cost: Annotated[
        float,
        Parameter(
            help="Cost of a check, as a share of the cheapest model's answer; gate costs nothing.",
            validator=_POSITIVE,
        ),
    ] = _CHECK_COST,
    judge_accuracy: Annotated[
        list[float] | None,
        Parameter(
            help="Simulate a judge that is right so often. [default: 0.9 and 0.8 without a check]",
            negative=(),
            validator=_SHARE,
        ),
    ] = None,
    judge_cost: Annotated[
        float, Parameter(help="Cost of a simulated check, as a share of the best model.", validator=_POSITIVE)
    ] = 0.1,
    splits: Annotated[
        int, Parameter(help="Try on so many random halves.", validator=validators.Number(gte=1, lte=10_000))
    ] = 1,
    seed: Annotated[int, Parameter(help="Of the halves.")] = 0,
    target: Annotated[
        float | None,
        Parameter(
            help="Choose each check's threshold: at most this share of bad answers.", validator=_BETWEEN
        ),
    ] = None,
    sure: Annotated[float, Parameter(help="How surely no more.", validator=_BETWEEN)] = 0.95,
    as_json: AsJson = False,
) -> int:
    """Try policies on a table of outcomes, beside the best fixed model, each model, chance and the oracle."""
    table = evaluate.read_outcomes(outcomes, models or ("*",), check or CHECKS)
    for name in check or ():
        if name not in table.checks:
            message = f"--check {name}: {table.name} has no column that ends in |{name}"
            raise ConfigError(message)
    way = tuple(tiers.split(",")) if tiers else ()
    names = check or (table.checks if way else _complete(table))
    checks = [Column(name, threshold, 0.0 if name == _FREE else check_cost) for name in names]
    accuracies = judge_accuracy or (() if checks else _ACCURACIES)
    judges: list[Check] = [*checks, *(Simulated(accuracy, judge_cost) for accuracy in accuracies)]
    parts, how = evaluate.splits_of(table, splits, seed)
    found = evaluate.replay(table, list(_policies(policy or ["table", "cascade"], way, judges)), parts, how)
    promises = []
    if target is not None:
        ends = _ends(table, way, checks)
        promises = [evaluate.promise(table, one, ends, parts, target=target, sure=sure) for one in checks]
    print_either(replay_json(found, promises), replay_lines(found, promises), as_json=as_json)
    is_next = checks and target is None
    say_next(
        f"leastwise tune replay {outcomes} --splits 200 --target 0.1" if is_next else "leastwise tune table"
    )
    return OK


def _complete(table: Outcomes) -> list[str]:
    """Return the checks that all tiers below the last have; those that some lack are told, not tried."""
    asked = evaluate.undominated(table, range(len(table)))[:-1]
    complete = []
    for name, of in table.checks.items():
        lacking = [f"{model}|{name}" for model in asked if model not in of]
        if lacking:
            say(f"left out: {name}, for there is no column {', '.join(lacking)}")
        else:
            complete.append(name)
    return complete


def _policies(names: Sequence[str], way: Way, checks: Sequence[Check]) -> Iterator[Policy]:
    for name in names:
        if name.startswith(_FIXED):
            yield Policy("fixed", (name.removeprefix(_FIXED),))
        elif name == "table":
            yield Policy("table")
        elif name == "cascade":
            for check in checks:
                yield Policy("cascade", way, check)
                yield Policy("cascade", way, check, is_governed=True)
        else:
            message = f"--policy {name}: expected table, cascade or fixed:MODEL"
            raise ConfigError(message)


def _ends(table: Outcomes, way: Way, checks: Sequence[Check]) -> Way:
    """Return the models between which a check decides: the first tier and the last."""
    if not checks:
        message = "--target: the table has no check; name its column, M|NAME: --check NAME"
        raise ConfigError(message)
    whole = way or evaluate.undominated(table, range(len(table)))
    if len(whole) == 1:
        message = (
            f"--target: {whole[0]} is the only tier, and nothing is asked instead; name two: --tiers a,b"
        )
        raise ConfigError(message)
    return (whole[0], whole[-1])
