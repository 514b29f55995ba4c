from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

from hypothesis import given
from hypothesis import strategies as st

from leastwise.money import NUSD_PER_USD, divide_half_even, divide_up, show, to_nusd, to_usd

WIDE = Context(prec=100, rounding=ROUND_HALF_EVEN)
amounts = st.integers(-(2**63), 2**63 - 1)


@given(amounts)
def test_an_amount_survives_the_way_to_the_edge_and_back(nusd: int) -> None:
    assert nusd == to_nusd(to_usd(nusd)) == to_nusd(str(to_usd(nusd)))


@given(st.decimals(-(10**9), 10**9, places=9))
def test_dollars_survive_the_way_inside_and_back(usd: Decimal) -> None:
    assert usd == to_usd(to_nusd(usd))


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_division_rounds_as_decimal_does(numerator: int, denominator: int) -> None:
    exact = WIDE.divide(Decimal(numerator), Decimal(denominator))

    assert int(exact.to_integral_value(ROUND_HALF_EVEN, WIDE)) == divide_half_even(numerator, denominator)


@given(st.integers(-(10**15), 10**15), st.integers(1, 1000))
def test_halves_go_to_the_even_neighbour(quotient: int, denominator: int) -> None:
    half = divide_half_even(2 * quotient * denominator + denominator, 2 * denominator)

    assert 0 == half % 2
    assert half in (quotient, quotient + 1)


@given(st.integers(0, 10**30), st.integers(1, 10**12))
def test_a_reservation_holds_what_it_is_for_and_not_a_unit_more(numerator: int, denominator: int) -> None:
    held = divide_up(numerator, denominator)

    assert held * denominator >= numerator > (held - 1) * denominator


@given(amounts, st.integers(0, 9))
def test_shown_amounts_are_the_amount_rounded(nusd: int, places: int) -> None:
    digits = Decimal(show(nusd, places).replace("$", "").replace(",", ""))
    rounded = WIDE.divide(Decimal(nusd), NUSD_PER_USD).quantize(Decimal(1).scaleb(-places), context=WIDE)

    assert rounded == digits
    assert (nusd < 0 and rounded != 0) == show(nusd, places).startswith("-$")
