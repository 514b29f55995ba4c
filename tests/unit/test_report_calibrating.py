"""What scores are worth: which samples are made, what is kept of them, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leastwise.cascade import Calibration
from leastwise.cascade.calibration import Scored as Sample
from leastwise.ladder import Verdict
from leastwise.report.calibrating import (
    Calibrated,
    Wanted,
    calibrated,
    calibrated_json,
    calibrated_lines,
    of_samples,
)
from leastwise.stores import Scored

JUDGE = Wanted("judge", by="sonnet", stamps={"s-haiku", "s-sonnet"})


def scored(score: float, *, ok: bool | None = None, task_type: str = "classify", **changes: Any) -> Scored:
    """Return a score of the judge in force."""
    given = {"tier": "haiku", "stamp": "s-haiku", **changes}
    verdict = Verdict("judge", "accept", "", score, **given)
    return Scored("X", 0.0, "triage", task_type, verdict, ok)


def good(number: int, score: float = 5.0, **changes: Any) -> list[Scored]:
    return [scored(score, ok=True, **changes)] * number


def text_of(report: Calibrated) -> str:
    lines = calibrated_lines(report)
    assert 80 >= max(map(len, lines))
    return " ".join(" ".join(lines).split())


def test_a_threshold_is_found_for_all_types_and_for_each() -> None:
    rows = [
        *good(100),
        *good(80, 4.0, task_type="extract"),
        *[scored(2.0, ok=False)] * 20,
        scored(1.0, ok=False, task_type="extract"),
        scored(3.0),
    ]

    report = calibrated(rows, JUDGE)

    (maker,) = report.makers
    assert ("haiku", False, 202) == (maker.name, maker.is_self, maker.scored)
    assert [("", 201, 4.0), ("classify", 120, 5.0), ("extract", 81, 4.0)] == [
        (found.task_type, found.n, found.threshold) for found in (line.calibration for line in maker.lines)
    ]
    assert [line.calibration for line in maker.lines] == list(report.to_keep)
    assert {"s-haiku"} == {one.stamp for one in report.to_keep}
    text = text_of(report)
    assert "judge by sonnet at most 5% of accepted answers bad, 95% sure" in text
    assert "haiku's answers: 202 scored, 201 of them with a label" in text
    assert "all types 201 4 90% 0.0% (0.0 to 16.1) 0.0% (0.0 to 2.0)" in text
    assert "raw 3 90% 0.0% (0.0 to 16.1) 0.0% (0.0 to 2.0)" in text
    assert "extract from 4 on, 0 of 80 accepted are unacceptable, so at most 3.7% of all such" in text
    assert "for labels" not in text
    assert "meanwhile" not in text
    assert "beware" not in text
    assert "planted" not in text


def test_too_few_leave_what_was_kept_and_say_how_many_are_missing() -> None:
    report = calibrated([*good(60), *good(58, task_type="extract"), scored(1.0, ok=False)], JUDGE)

    assert ["", "classify"] == [one.task_type for one in report.to_keep]
    text = text_of(report)
    assert "extract 58 refused - - -" in text
    assert "for 5% at 95%: 1 more at least; until then all types together count for it" in text
    assert "for labels say which answers were good: leastwise feedback ID --ok, or --bad" in text


def test_one_type_is_shown_once() -> None:
    report = calibrated([*good(30), scored(1.0, ok=False)], JUDGE)

    assert 2 == len(report.makers[0].lines)
    assert () == report.to_keep
    text = text_of(report)
    assert "31 answers are too few" in text
    assert "classify" not in text
    assert "meanwhile accepts from 3 on" in text


def test_what_is_refused_accepts_nothing_and_what_is_too_few_what_it_did() -> None:
    refused = calibrated([*good(60), scored(5.0, ok=False)], JUDGE)
    assert 2 == len(refused.to_keep)
    assert "meanwhile accepts nothing: the sample is large enough, and no score is good enough" in text_of(
        refused
    )
    assert "which may be 7.6% of all such: too few answers to tell for 5% at 95%" in text_of(refused)
    assert "meanwhile accepts from 3 on" in text_of(calibrated(good(3), JUDGE))


def test_labels_of_a_few_are_a_sample_only_where_nobody_chose_them() -> None:
    beware = "beware 100 of 112 answers have a label: what is promised holds if they were picked blindly"

    assert beware in text_of(calibrated([*good(100), *[scored(5.0)] * 12], JUDGE))
    assert "picked blindly" not in text_of(calibrated([*good(100), *[scored(5.0)] * 11], JUDGE))
    assert "picked blindly" not in text_of(calibrated([*good(3), *[scored(5.0)] * 90], JUDGE))


def test_only_answers_that_were_served_say_nothing_of_those_that_were_not() -> None:
    assert "beware no answer below the raw threshold has a label" in text_of(calibrated(good(100), JUDGE))


def test_planted_answers_are_no_part_of_a_sample_and_stop_a_judge_that_passes_them() -> None:
    planted = scored(5.0, ok=False, is_control=True)
    rows = [*good(300), *[scored(1.0, ok=False)] * 100]

    fine = calibrated([*rows, planted, *[scored(1.0, ok=False, is_control=True)] * 39], JUDGE)
    alarmed = calibrated([*rows, *[planted] * 20], JUDGE)

    assert [400, 400] == [report.makers[0].lines[0].calibration.n for report in (fine, alarmed)]
    assert 5.0 == fine.makers[0].lines[0].calibration.threshold
    assert "planted 2.5% (0.1 to 13.2) of 40 that are known to be bad would be accepted" in text_of(fine)
    assert {None} == {line.calibration.threshold for line in alarmed.lines}
    assert 2 == len(alarmed.to_keep)
    assert (
        "all types accepts answers that are known to be bad: 100.0% (83.2 to 100.0) of 20 planted ones, "
        "where its calibration says at most 3.6%" in text_of(alarmed)
    )


def test_scores_of_another_judge_or_question_are_left_out() -> None:
    other = Scored("X", 0.0, "", "classify", Verdict("length", "accept", "", 5.0), ok=True)

    report = calibrated([scored(5.0, ok=True, stamp="before"), scored(5.0), other], JUDGE)

    assert (1, 1) == (report.others, report.makers[0].scored)
    assert "left out 1 score of another judge, maker or question than is in force now" in text_of(report)
    alone = text_of(calibrated([scored(5.0, ok=True, stamp="before")], JUDGE))
    assert alone.endswith("no score judge has scored no answer as it is now")


@pytest.mark.parametrize(
    ("rows", "kept", "said"),
    [
        (good(30), {}, "accepts from 3 on"),
        (good(30), {"": 5.0}, "what was kept before counts: accepts from 5 on"),
        (good(30), {"": None}, "what was kept before counts: accepts nothing"),
        (
            [*good(100), *[scored(5.0, ok=False)] * 50],
            {"": 5.0},
            "accepts nothing: the sample is large enough",
        ),
    ],
)
def test_what_counts_meanwhile(rows: list[Scored], kept: dict[str, float | None], said: str) -> None:
    stamp = rows[0].verdict.stamp
    before = {(stamp, kind): Calibration(stamp, kind, least) for kind, least in kept.items()}

    assert f"meanwhile {said}" in text_of(calibrated(rows, replace(JUDGE, kept=before)))


def test_a_maker_that_is_its_own_judge_accepts_nothing_meanwhile() -> None:
    rows = [scored(5.0, ok=True, tier="sonnet", stamp="s-sonnet", is_self=True), scored(5.0)]

    report = calibrated(rows, JUDGE)
    trusted = calibrated(rows, Wanted("judge", stamps=JUDGE.stamps, trusts_self=True))

    assert ["sonnet", "haiku"] == [maker.name for maker in report.makers]
    text = text_of(report)
    assert "sonnet's answers, by itself: 1 scored, 1 of them with a label" in text
    assert "haiku's answers: 1 scored, 0 of them with a label" in text
    assert "meanwhile accepts nothing: it is its own judge" in text
    assert "meanwhile accepts from 3 on" in text_of(trusted)


def test_another_check_has_no_stamp_and_is_grouped_by_the_maker() -> None:
    verdict = Verdict("tests", "accept", "0.9", 0.9, tier="haiku")
    rows = [Scored("X", 0.0, "", "code", verdict, ok=True)] * 100

    report = calibrated(rows, Wanted("tests"))

    assert 0.9 == report.makers[0].lines[0].calibration.threshold
    assert () == report.to_keep


def test_one_type_alone_makes_nothing_for_all() -> None:
    rows = [*good(70), *good(70, task_type="extract")]

    report = calibrated(rows, Wanted("judge", "extract", stamps=JUDGE.stamps))

    assert [("extract", 70)] == [(line.calibration.task_type, line.calibration.n) for line in report.lines]
    assert 70 == report.makers[0].scored


def test_no_score_at_all() -> None:
    report = calibrated([], JUDGE)

    assert () == report.makers
    assert "no score judge has scored no answer as it is now; is [cascade] enabled?" in text_of(report)


def test_samples_from_elsewhere() -> None:
    report = of_samples([("", Sample(0.9, ok=True))] * 60 + [("a", Sample(0.1, ok=False))], Wanted("judge"))

    assert () == report.to_keep
    text = text_of(report)
    assert "answers: 61 scored, 61 of them with a label" in text
    assert "meanwhile" not in text


def test_json_has_every_number() -> None:
    report = calibrated([*good(100), *[scored(1.0, ok=False)] * 10], JUDGE)

    value = calibrated_json(report, is_kept=True)

    (maker,) = value["makers"]
    whole = maker["types"][0]
    assert (2, 0, "judge", "sonnet", 3.0) == (
        value["kept"],
        value["left_out"],
        value["check"],
        value["by"],
        value["raw_threshold"],
    )
    assert {"k": 0, "n": 0, "low": 0.0, "high": 1.0, "share": None} == maker["planted"]
    assert ("", "s-haiku", 110, 5.0, 0, True) == (
        whole["type"],
        whole["stamp"],
        whole["n"],
        whole["threshold"],
        whole["lacking"],
        whole["kept"],
    )
    assert {"accepted", "unacceptable", "false_accept", "false_reject"} == set(whole["rates"])
    assert (100, 110) == (whole["raw"]["accepted"]["k"], whole["raw"]["accepted"]["n"])
    assert whole["curve"]["points"]
    few = calibrated_json(calibrated(good(3), JUDGE), is_kept=False)
    assert (0, None) == (few["kept"], few["makers"][0]["types"][0]["rates"])
