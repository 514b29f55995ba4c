"""How sure a count makes us: exact binomial bounds (Clopper and Pearson), in plain Python.

Of n answers k had a property; what may its true share be? A bound at 95 % is wrong in at most 5 % of
samples, whatever the share is and however small n is: it asks which shares would still give such a
count with that probability, and approximates nothing.

Source: Clopper and Pearson, Biometrika 26 (1934); the tail of a binomial is an incomplete beta function
(https://dlmf.nist.gov/8.17#E5), and that a continued fraction (https://dlmf.nist.gov/8.17#E22).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: How sure an interval is where nothing else is said.
SURE: Final = 0.95

_EPSILON: Final = 1e-14  # a few roundings
_TINY: Final = 1e-300  # keeps a denominator of the continued fraction from being 0
_HALVINGS: Final = 50  # to 1e-15, as far as the beta function is exact


@dataclass(frozen=True, slots=True)
class Rate:
    """`k` of `n`, and between which shares the truth lies.

    Attributes:
        k: How many had it.
        n: Of how many.
        low: The lower end of the interval, from 0 to 1; 0 where n is 0.
        high: Its upper end; 1 where n is 0.
    """

    k: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """How many of them had it, from 0 to 1; 0 of none."""
        return self.k / self.n if self.n else 0.0

    def __str__(self) -> str:
        """Return it in per cent, such as `3.1% (1.2 to 6.4)`; `none` where there was nothing to count."""
        if not self.n:
            return "none"
        return f"{100 * self.share:.1f}% ({100 * self.low:.1f} to {100 * self.high:.1f})"


def interval(k: int, n: int, sure: float = SURE) -> Rate:
    """Return `k` of `n` with the interval that holds the true share so surely; arguments as in `upper_bound`.

    Each side errs with half of the rest, so that its ends are one-sided bounds at (1 + sure) / 2.

    >>> print(interval(5, 160))
    3.1% (1.0 to 7.1)
    """
    side = (1 + sure) / 2
    high = upper_bound(k, n, side)
    return Rate(k, n, lower_bound(k, n, side), high)


def upper_bound(k: int, n: int, sure: float = SURE) -> float:
    """Return the share that the true one is surely not above, from 0 to 1.

    >>> round(upper_bound(0, 59), 4)
    0.0495

    Args:
        k: How many had it.
        n: Of how many; of none everything is possible.
        sure: How surely, between 0 and 1.

    Raises:
        ValueError: no such count, or no such certainty.
    """
    if not 0 <= k <= n:
        message = f"{k!r} of {n!r}: a count is from 0 to as many as there are"
        raise ValueError(message)
    _check_share("sure", sure)
    if k == n:
        return 1.0
    low, high = k / n, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        if at_most(k, n, share) > 1 - sure:
            low = share
        else:
            high = share
    return high


def lower_bound(k: int, n: int, sure: float = SURE) -> float:
    """Return the share that the true one is surely not below; arguments and errors as in `upper_bound`."""
    return 1 - upper_bound(n - k, n, sure)


def at_most(k: int, n: int, share: float) -> float:
    """Return how probable it is that at most `k` of `n` have what each has with probability `share`."""
    if k < 0:
        return 0.0
    rest = 1 - share
    if k >= n or rest >= 1:
        return 1.0
    return _incomplete_beta(n - k, k + 1, rest) if rest > 0 else 0.0


def at_least(k: int, n: int, share: float) -> float:
    """Return how probable it is that at least `k` of `n` have what each has with probability `share`."""
    return at_most(n - k, n, 1 - share)


def faultless(target: float, sure: float = SURE) -> int:
    """Return how many answers without a single fault show that at most `target` are faulty.

    >>> faultless(0.05)
    59

    Args:
        target: The share that may be faulty, between 0 and 1.
        sure: How surely, between 0 and 1.

    Raises:
        ValueError: one of them is not between 0 and 1.
    """
    _check_share("target", target)
    _check_share("sure", sure)
    return math.ceil(math.log(1 - sure) / math.log1p(-target))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        message = f"{name}={value!r}: expected a number between 0 and 1, such as 0.95"
        raise ValueError(message)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for 0 < x < 1."""
    is_other = x > (a + 1) / (a + b + 2)  # there the fraction of the other tail converges faster
    if is_other:
        a, b, x = b, a, 1 - x
    size = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))  # Lentz's method, modified
    fraction, change, m = d, 0.0, 0
    while abs(change - 1) > _EPSILON:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            c, d = _apart(1 + term / c), 1 / _apart(1 + term * d)
            change *= c * d
        fraction *= change
    tail = math.exp(size) * fraction / a
    return 1 - tail if is_other else tail


def _apart(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
