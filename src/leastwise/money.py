"""Money as whole nano-dollars.

Every sum inside Leastwise is an `int` of nano-dollars (1e-9 $, names end in
`_nusd`), every rate an `int` of nano-dollars per million tokens, so that the
ledger and a budget's counter agree to the last digit. `Decimal` and text exist
only at the edge: configuration in, `cost_usd` and tables out.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

NUSD_PER_USD = 1_000_000_000
TOKENS_PER_MTOK = 1_000_000

_SMALL_NUSD = NUSD_PER_USD // 100
_USD_PLACES = 9

# Our own, so that the caller's `decimal` context never rounds money.
_EXACT = Context(prec=40, Emin=-40, Emax=40, traps=[Inexact, InvalidOperation, Overflow])


def to_nusd(usd: Decimal | str | float, rounding: str | None = None) -> int:
    """Return dollars as nano-dollars.

    A float counts as the number it prints as, so 0.1 is exactly ten cents.

    Args:
        usd: The amount.
        rounding: What becomes of parts of a nano-dollar, in `decimal`'s words; None to refuse them.

    Raises:
        ValueError: not a finite number, or finer than a nano-dollar.
    """
    try:
        nusd = _EXACT.multiply(Decimal(str(usd)), NUSD_PER_USD)
        whole = int(nusd if rounding is None else nusd.to_integral_value(rounding))
    except (ArithmeticError, ValueError):
        message = f"not an amount of dollars: {usd!r}"
        raise ValueError(message) from None
    if rounding is None and nusd != whole:
        message = f"finer than a nano-dollar: {usd!r}"
        raise ValueError(message)
    return whole


def to_usd(nusd: int) -> Decimal:
    """Return nano-dollars as an exact Decimal of dollars."""
    return _EXACT.divide(Decimal(nusd), NUSD_PER_USD)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return `numerator / denominator` rounded half to even, in whole numbers throughout."""
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        quotient += 1
    return quotient


def divide_up(numerator: int, denominator: int) -> int:
    """Return `numerator / denominator` rounded up: what a reservation must hold."""
    return -(-numerator // denominator)


def places_of(limit_nusd: int) -> int:
    """Return how many digits after the point tell sums within a limit apart: 2, 4 or 6."""
    return 2 if limit_nusd >= NUSD_PER_USD else 4 if limit_nusd >= NUSD_PER_USD // 10 else 6


def show(nusd: int, places: int | None = None) -> str:
    """Return `nusd` as text such as `$2,035.39`, `-$17.30` or `$0.000021`.

    Args:
        nusd: The amount.
        places: Digits after the point, 0 to 9, rounded half to even; by default six below a cent, else two.
    """
    if places is None:
        places = 6 if 0 < abs(nusd) < _SMALL_NUSD else 2
    rounded = divide_half_even(abs(nusd), 10 ** (_USD_PLACES - places))
    whole, part = divmod(rounded, 10**places)
    sign = "-" if nusd < 0 < rounded else ""
    return f"{sign}${whole:,}.{part:0{places}}" if places else f"{sign}${whole:,}"
