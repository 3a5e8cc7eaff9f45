"""Money: what is an amount, and what only looks like one."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clearspan.model.usage import pico_from_usd


@pytest.mark.parametrize(
    "text",
    [
        "1e500000", "1e999999", "-1e999999", "1e9999999999999999999", "NaN", "sNaN", "Infinity", "-Infinity", "",
        "a dollar", "9223373", "1e7", "9" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_amount_is_unknown(text: str) -> None:
    assert pico_from_usd(text) is None


@pytest.mark.parametrize(
    ("usd", "pico"),
    [
        ("1e-999999", 0), ("-1e-999999", 0), ("0e999999", 0), ("9223372.036854775807", 2**63 - 1),
        ("-9223372.036854775807", 1 - 2**63), (0.00015885, 158_850_000), ("0." + "0" * 100_000 + "1", 0),
        (Decimal("1e6"), 10**18), (Decimal("0.0000000000005"), 0), (Decimal("0.0000000000015"), 2),
    ],
)  # fmt: skip
def test_amounts_are_exact(usd: float | Decimal | str, pico: int) -> None:
    assert pico_from_usd(usd) == pico
