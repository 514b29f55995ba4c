from __future__ import annotations

from decimal import Decimal, localcontext

import pytest

from leastwise.money import divide_half_even, divide_up, show, to_nusd, to_usd


@pytest.mark.parametrize(
    ("usd", "nusd"),
    [
        ("0.1", 100_000_000),
        (0.1, 100_000_000),
        (Decimal("0.000000001"), 1),
        (1e-9, 1),
        (8000, 8_000_000_000_000),
        ("-17.30", -17_300_000_000),
        ("9007199254.740993", 9_007_199_254_740_993_000),
    ],
    ids=repr,
)
def test_dollars_become_exact_nano_dollars(usd: str | float | Decimal, nusd: int) -> None:
    assert nusd == to_nusd(usd)


@pytest.mark.parametrize(
    "usd", ["", "a lot", "$5", "NaN", "sNaN", "inf", "-Infinity", "1e999999", "1e-999999", True, float("nan")]
)
def test_what_is_no_amount_is_refused(usd: str | float) -> None:
    with pytest.raises(ValueError, match=r"^not an amount of dollars: "):
        to_nusd(usd)


@pytest.mark.parametrize("usd", ["0.0000000001", 1e-10, "1.0000000005", "1e-50"], ids=repr)
def test_what_is_finer_than_a_nano_dollar_is_refused_rather_than_rounded(usd: str | float) -> None:
    with pytest.raises(ValueError, match=r"^finer than a nano-dollar: "):
        to_nusd(usd)


def test_the_callers_decimal_context_does_not_round_money() -> None:
    with localcontext() as context:
        context.prec = 3

        assert 12_345_678_901 == to_nusd("12.345678901")
        assert "12.345678901" == str(to_usd(12_345_678_901))
        assert "$12,345.68" == show(12_345_678_901_000)


@pytest.mark.parametrize(
    ("numerator", "denominator", "nearest", "up"),
    [
        (5, 10, 0, 1),
        (15, 10, 2, 2),
        (25, 10, 2, 3),
        (26, 10, 3, 3),
        (-5, 10, 0, 0),
        (-15, 10, -2, -1),
        (0, 7, 0, 0),
    ],
)
def test_divisions_in_whole_numbers(numerator: int, denominator: int, nearest: int, up: int) -> None:
    assert nearest == divide_half_even(numerator, denominator)
    assert up == divide_up(numerator, denominator)


@pytest.mark.parametrize(
    ("nusd", "text"),
    [
        (0, "$0.00"),
        (21_000, "$0.000021"),
        (9_999_999, "$0.010000"),
        (10_000_000, "$0.01"),
        (2_035_390_000_000, "$2,035.39"),
        (-17_300_000_000, "-$17.30"),
        (-1_000, "-$0.000001"),
        (-1, "$0.000000"),
        (125_000_000, "$0.12"),
        (135_000_000, "$0.14"),
    ],
)
def test_amounts_as_people_read_them(nusd: int, text: str) -> None:
    assert text == show(nusd)


@pytest.mark.parametrize(
    ("nusd", "places", "text"),
    [
        (2_035_390_000_000, 0, "$2,035"),
        (-400_000_000, 0, "$0"),
        (-17_300_000_000, 0, "-$17"),
        (1_500_000_000, 0, "$2"),
        (21_000, 2, "$0.00"),
        (5, 9, "$0.000000005"),
    ],
)
def test_amounts_with_a_given_number_of_places(nusd: int, places: int, text: str) -> None:
    assert text == show(nusd, places)
