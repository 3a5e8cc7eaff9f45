"""What a result has used: sums of what is known, and figures that somebody states taken as ingest takes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clearspan.experiments.usage import NO_USAGE, Usage, stated_usage, usage_metadata_of


def test_unknown_is_not_zero() -> None:
    assert NO_USAGE.plus(NO_USAGE) == NO_USAGE
    assert Usage(latency_s=1.5).plus(Usage(cost_usd=Decimal(2))) == Usage(1.5, Decimal(2))
    assert Usage(1.0, Decimal(1), 1, 2, 3).plus(Usage(0.0, None, 0, 5, None)) == Usage(1.0, Decimal(1), 1, 7, 3)


@pytest.mark.parametrize(
    ("metrics", "used"),
    [
        (None, NO_USAGE),
        ({"speed": 3}, NO_USAGE),
        ({"cost": 0.25, "latency": 2}, Usage(2.0, Decimal("0.25"))),
        ({"cost": 9, "total_cost": 0}, Usage(cost_usd=Decimal(9))),
        ({"prompt_tokens": 3, "output_tokens": 4}, Usage(None, None, 3, 4, 7)),
        ({"input_tokens": 3, "total_tokens": 9}, Usage(None, None, 3, None, 9)),
        ({"cost": -1, "latency": -1, "total_tokens": -1, "prompt_tokens": 10**30}, NO_USAGE),
        ({"cost": True, "latency": True, "total_tokens": "many"}, NO_USAGE),
        ({"latency": float("inf")}, NO_USAGE),
        ({"latency": 10**400}, NO_USAGE),
    ],
)
def test_metrics_are_read_as_ingest_reads_a_run(metrics: dict[str, Any] | None, used: Usage) -> None:
    assert stated_usage(metrics) == used


def test_only_figures_of_a_run_become_its_own() -> None:
    assert usage_metadata_of({"cost": 1, "latency": 2, "speed": 3, "total_tokens": None}) == {"total_cost": 1}
