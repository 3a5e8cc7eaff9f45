"""Token counts and cost.

Money is an integer number of pico-dollars (10⁻¹² USD): sums are exact whatever the order of the spans, and
`total_cost = 0.1` finds what was stored as 0.1. Unknown cost is None, never 0.
"""

from __future__ import annotations

import math
from decimal import Decimal

PICO_PER_USD = 10**12
_MAX_PICO = 2**63 - 1
_USD_EXPONENT_MAX = 6  # 9.2 million dollars has seven digits before the point


def pico_from_usd(usd: float | Decimal | str) -> int | None:
    """US dollars → pico-dollars, rounded half to even; None for a value that is not a finite amount below 9.2 M USD.

    A float is read through its shortest decimal form, so that 0.00015885 is exactly 158,850,000.
    """
    try:
        amount = usd if isinstance(usd, Decimal) else Decimal(repr(usd) if isinstance(usd, float) else usd)
        # The size first: "1e500000" as an integer would have half a million digits.
        if not amount.is_finite() or (amount and amount.adjusted() > _USD_EXPONENT_MAX):
            return None
        pico = round(amount * PICO_PER_USD)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return pico if abs(pico) <= _MAX_PICO else None


def usd_from_pico(pico: int | None) -> float | None:
    """Pico-dollars → US dollars as the nearest float; None stays None."""
    return None if pico is None else pico / PICO_PER_USD


def is_count(value: object) -> bool:
    """Whether a value can be a token count: a whole number from 0 to 2⁵³, given as int or integral float."""
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return math.isfinite(value) and value.is_integer() and 0 <= value <= 2**53
    return isinstance(value, int) and 0 <= value <= 2**53
