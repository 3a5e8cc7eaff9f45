"""Sums and quantiles over spans: one piece of arithmetic for every store."""

from __future__ import annotations

from collections.abc import Sequence

from clearspan.store.spans import SpanStats

QUANTILES = (0.5, 0.99)

FIGURE_COLUMNS = (
    "start_ns", "end_ns", "status", "is_streaming", "ttft_s", "prompt_tokens", "completion_tokens", "total_tokens",
    "cost_pico", "usage_repeats",
)  # fmt: skip
"""What `SpanTally.add` takes of a span, in this order."""


class SpanTally:
    """Figures of spans added one by one. Tokens and cost of a span that only repeats others' are left out."""

    def __init__(self) -> None:
        self._count = self._errors = self._pending = self._streaming = 0
        self._latencies_ns: list[int] = []
        self._first_token_s: list[float] = []
        self._prompt: list[int] = []
        self._completion: list[int] = []
        self._total: list[int] = []
        self._costs: list[int] = []
        self._last_start_ns: int | None = None

    def add(
        self, start_ns: int, end_ns: int, status: str, is_streaming: bool | None, ttft_s: float | None,
        prompt_tokens: int | None, completion_tokens: int | None, total_tokens: int | None, cost_pico: int | None,
        usage_repeats: bool,
    ) -> None:  # fmt: skip
        """One span, as its row has it."""
        self._count += 1
        self._errors += status == "error"
        self._streaming += bool(is_streaming)
        if status == "pending":
            self._pending += 1
        else:
            self._latencies_ns.append(end_ns - start_ns)
        if ttft_s is not None:
            self._first_token_s.append(ttft_s)
        if self._last_start_ns is None or start_ns > self._last_start_ns:
            self._last_start_ns = start_ns
        if usage_repeats:
            return
        if prompt_tokens is not None:
            self._prompt.append(prompt_tokens)
        if completion_tokens is not None:
            self._completion.append(completion_tokens)
        if total_tokens is not None:
            self._total.append(total_tokens)
        elif prompt_tokens is not None or completion_tokens is not None:
            self._total.append((prompt_tokens or 0) + (completion_tokens or 0))
        if cost_pico is not None:
            self._costs.append(cost_pico)

    def stats(self) -> SpanStats:
        """The figures of what was added. Cost O(n log n)."""
        p50, p99 = quantiles(self._latencies_ns)
        return SpanStats(
            count=self._count,
            error_count=self._errors,
            pending_count=self._pending,
            streaming_count=self._streaming,
            latency_s=(None if p50 is None else p50 / 1e9, None if p99 is None else p99 / 1e9),
            first_token_s=quantiles(self._first_token_s),
            prompt_tokens=sum(self._prompt) if self._prompt else None,
            completion_tokens=sum(self._completion) if self._completion else None,
            total_tokens=sum(self._total) if self._total else None,
            total_tokens_quantiles=quantiles(self._total),
            cost_pico=sum(self._costs) if self._costs else None,
            cost_quantiles_pico=quantiles(self._costs),
            last_start_ns=self._last_start_ns,
        )


def quantiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    """p50 and p99, between two ranks in proportion (type 7 of Hyndman and Fan); None of nothing."""
    if not values:
        return None, None
    ordered = sorted(values)
    found = []
    for share in QUANTILES:
        rank = share * (len(ordered) - 1)
        low = int(rank)
        high = min(low + 1, len(ordered) - 1)
        found.append(ordered[low] + (ordered[high] - ordered[low]) * (rank - low))
    return float(found[0]), float(found[1])
