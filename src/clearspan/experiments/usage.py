"""What a result has used so far: time, money and tokens. Pure.

It comes from two sides: calls of models that the server made, and the `metrics` that somebody gave to a trace that
waited, for what was done elsewhere. Both are added up. None is unknown, and never a stand-in for zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

from clearspan.ingest.rollup import span_total_tokens
from clearspan.ingest.run_promotion import parse_usage
from clearspan.model.span import Span
from clearspan.model.usage import PICO_PER_USD

LATENCY: Final = "latency"
"""What `metrics` call the seconds that the work took."""
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "total_cost": ("total_cost", "cost"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
    "total_tokens": ("total_tokens",),
}
"""Figures of a run → what `metrics` may call them; the last that is there counts."""
_SECONDS_MAX: Final = 2**33
N = TypeVar("N", float, Decimal, int)


class Usage(NamedTuple):
    """Sums; of each what is known."""

    latency_s: float | None = None
    cost_usd: Decimal | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            _added(self.latency_s, other.latency_s),
            _added(self.cost_usd, other.cost_usd),
            _added(self.prompt_tokens, other.prompt_tokens),
            _added(self.completion_tokens, other.completion_tokens),
            _added(self.total_tokens, other.total_tokens),
        )


NO_USAGE: Final = Usage()


def usage_of_calls(spans: Iterable[Span]) -> Usage:
    """What calls of models have used, as ingest read it from them."""
    used = NO_USAGE
    for span in spans:
        cost = None if span.cost_pico is None else Decimal(span.cost_pico) / PICO_PER_USD
        took_s = (span.end_ns - span.start_ns) / 1e9
        used = used.plus(Usage(took_s, cost, span.prompt_tokens, span.completion_tokens, span_total_tokens(span)))
    return used


def stated_usage(metrics: Mapping[str, Any] | None) -> Usage:
    """What `metrics` say; what ingest takes for no figure (below zero, out of range) is not known here either."""
    if not metrics:
        return NO_USAGE
    said = parse_usage(usage_metadata_of(metrics))
    counts = [each for each in (said.prompt_tokens, said.completion_tokens) if each is not None]
    return Usage(
        latency_s=_seconds(metrics.get(LATENCY)),
        cost_usd=None if said.cost_pico is None else Decimal(said.cost_pico) / PICO_PER_USD,
        prompt_tokens=said.prompt_tokens,
        completion_tokens=said.completion_tokens,
        total_tokens=said.total_tokens if said.total_tokens is not None else sum(counts) if counts else None,
    )


def usage_metadata_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that are a run's own figures, under the names by which ingest takes them; {} if there are none."""
    return {name: metrics[word] for name, words in _WORDS.items() for word in words if metrics.get(word) is not None}


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < _SECONDS_MAX else None


def _added(one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
