"""Which checks a request's answer has to pass: as configured, or as its task says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leastwise.build.plans import Plans, in_force_hash
from leastwise.cascade import BUILT_IN, JUDGE, NO_PLAN, Check, CheckRow, Plan
from leastwise.config import CascadeOptions, Config, load
from leastwise.errors import ConfigError
from leastwise.ladder import REFERENCE_LADDER, Task
from leastwise.messages import Reply, Request
from tests.kit import HAIKU, SONNET

GATES = ["truncation", "empty", "refusal", "schema", "tools"]
ON = CascadeOptions(enabled=True)


def plans(options: CascadeOptions = ON, **config: Any) -> Plans:
    return Plans(Config(cascade=options, **config))


def names(plan: Plan) -> list[str]:
    return [check.name for check in plan.checks]


def is_fine(_request: Request, _reply: Reply) -> bool:
    return True


def test_nothing_is_checked_where_the_cascade_is_off_and_the_task_says_nothing() -> None:
    off = plans(CascadeOptions())
    assert () == off(Task()).checks
    assert () == off(Task(threshold=4, escalate_to="sonnet", stream="buffer")).checks
    assert "fail" == plans(CascadeOptions(overloaded="next"))(Task()).overloaded
    assert "policy" == in_force_hash("policy", off.usual)


def test_where_it_is_on_the_configured_checks_are_asked_in_order() -> None:
    usual = plans()(Task())
    assert [*GATES, "judge"] == names(usual)
    assert usual.judge is not None
    assert HAIKU == usual.judge.model
    assert ["refusal", "judge"] == names(
        plans(CascadeOptions(enabled=True, checks=("refusal", "judge")))(Task())
    )
    assert "policy" != in_force_hash("policy", usual)
    assert len("policy") == len(in_force_hash("policy", usual))
    with pytest.raises(ConfigError, match="no check is named 'shema'; did you mean 'schema'"):
        plans(CascadeOptions(enabled=True, checks=("shema",)))


def test_a_plans_key_tells_apart_all_by_which_an_answer_is_accepted() -> None:
    made = plans()
    tasks = [
        Task(),
        Task(check=False),
        Task(threshold=4),
        Task(escalate_to="sonnet"),
        Task(stream="commit"),  # what was let go is not judged
        Task(check="json"),
        Task(check=is_fine),
        Task(check=lambda *_: False),
        Task(check=Check("is_fine", is_fine, threshold=4)),
        Task(check=Check("is_fine", is_fine, threshold=5)),
    ]
    keys = [made(task).key for task in tasks]

    assert None not in keys
    assert len(keys) == len(set(keys))
    assert keys == [plans()(task).key for task in tasks]
    assert made(Task()).digest == made(Task(escalate_to="sonnet")).digest  # what was learned holds for both
    assert made(Task(check=partial(is_fine))).key is None


@pytest.mark.parametrize("options", [ON, CascadeOptions()])
def test_a_tasks_own_check_comes_after_the_free_ones_and_in_the_judges_place(options: CascadeOptions) -> None:
    made = plans(options)
    own = Check("own", is_fine)
    assert [*GATES, "is_fine"] == names(made(Task(check=is_fine)))
    assert [*GATES, "own"] == names(made(Task(check=own)))
    assert [*GATES, "json", "own"] == names(made(Task(check=["json", own])))
    assert [*GATES, JUDGE] == names(made(Task(check=JUDGE))) == names(made(Task(check=True)))
    assert GATES == names(made(Task(check="schema")))  # it is there already
    assert NO_PLAN == made(Task(check=False))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task(check="shema"), "no check is named 'shema'; did you mean 'schema'"),
        (Task(check=7), "check=7: expected a check, the name of one, or a function"),
        (Task(escalate_to="x"), "no tier is named 'x'"),
        (Task(check="judge", threshold=7), "threshold=7: the judge's scores go from 1 to 5"),
    ],
)
def test_what_a_task_cannot_mean_is_refused(task: Task, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plans()(task)
    assert said in str(refused.value)


def test_a_function_has_a_scale_of_its_own() -> None:
    assert 70 == plans()(Task(check=["judge", is_fine], threshold=70)).threshold
    assert 0.5 == plans()(Task(check="json", threshold=0.5)).threshold


def test_a_task_says_how_high_how_good_and_how_streamed() -> None:
    told = plans()(Task(threshold=4, escalate_to="sonnet", stream="buffer"))
    assert (4, "sonnet", "buffer") == (told.threshold, told.escalate_to, told.stream)
    assert plans()(Task()).digest != told.digest  # what passes at 4 says nothing of what passes at 3
    assert plans()(Task()).digest == plans()(Task(threshold=3)).digest  # as configured: 3.0


def test_what_tasks_ask_for_again_is_made_once() -> None:
    made, own = plans(), Check("own", is_fine)
    for check in ("json", own, is_fine, ["json", own]):
        assert made(Task(check=check)) is made(Task(check=check))

    class Changing:
        __hash__ = None  # type: ignore[assignment]  # as of a dataclass

        def __call__(self, _request: Request, _reply: Reply) -> bool:
            return True

    task = Task(check=Changing())
    assert made(task) is not made(task)
    assert [*GATES, "Changing"] == [check.name for check in made(task).checks]


def test_the_judge_is_a_tier_or_any_model() -> None:
    for judge, model in (("sonnet", SONNET), ("claude-x", "claude-x"), ("", HAIKU)):
        usual = plans(CascadeOptions(enabled=True, judge=judge)).usual
        assert usual.judge is not None
        assert model == usual.judge.model


def test_the_preset_does_as_the_reference_does() -> None:
    usual = plans(preset="reference", ladder=REFERENCE_LADDER).usual
    assert (3, "sonnet", "accept", 0.0, False, True) == (
        usual.threshold,
        usual.escalate_to,
        usual.unparsable,
        usual.controls,
        usual.governs,
        usual.trusts_self,
    )
    environ = {
        "LEASTWISE_PRESET": "reference",
        "LEASTWISE_CASCADE_ENABLED": "true",
        "LEASTWISE_CASCADE_UNPARSABLE": "escalate",
    }
    told = load(None, environ, cwd=Path("/nowhere"))
    assert "escalate" == Plans(told).usual.unparsable


def test_the_users_own_checks_are_called_by_name() -> None:
    rows = (
        CheckRow("short", max_words=9),
        CheckRow("tests", command="true", timeout_s=5),
        CheckRow("fine", function="tests.unit.test_plans:is_fine", threshold=0.5),
    )
    options = CascadeOptions(enabled=True, checks=("short", "tests", "fine"))
    short, tests, fine = plans(options, checks=rows).usual.checks
    assert ("free", "run", "run") == (short.kind, tests.kind, fine.kind)
    assert (0.5, is_fine.__name__) == (fine.threshold, fine.ask.__name__)
    for missing in ("tests.unit.test_plans:gone", "gone_module:is_fine"):
        row = CheckRow("fine", function=missing)
        with pytest.raises(ConfigError, match=r"\[\[check\]\] fine: function = .* cannot be imported"):
            plans(options, checks=(*rows[:2], row))
        assert ("run", row.function) == _told(Plans(Config(checks=(row,)), imports=False)(Task(check="fine")))


def _told(plan: Plan) -> tuple[str, str | None]:
    return plan.checks[-1].kind, plan.checks[-1].version


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("os:sep", "is a str: expected a function"),
        ("builtins:dict", "check=<class 'dict'>: expected a check"),
        (
            "tests.unit.test_plans:names",
            "check=names: it takes (plan), and is called with",
        ),
        ("tests.unit.raises:check", "cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_function_of_request_and_reply_is_refused(
    function: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "raising.py").write_text("1 / 0\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = function.replace("tests.unit.raises", "raising")
    with pytest.raises(ConfigError) as refused:
        plans(checks=(CheckRow("fine", function=function),))
    assert f"[[check]] fine: function = '{function}'" in str(refused.value)
    assert said in str(refused.value)


def test_what_was_learned_holds_for_the_same_checks_and_the_same_judge() -> None:
    one = Plan((BUILT_IN["schema"],))
    assert one.digest == Plan((BUILT_IN["schema"],), stream="buffer", controls=0.5).digest
    others = [Plan(()), Plan((BUILT_IN["json"],)), Plan((BUILT_IN["schema"],), judge=REFERENCE_LADDER.top)]
    assert 4 == len({one.digest, *(other.digest for other in others)})
