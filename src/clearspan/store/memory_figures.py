"""Figures over many traces of the in-memory store: obvious, not fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from clearspan.model.annotation import Annotation
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.figures import TraceFigure
from clearspan.store.memory_spans import matching_spans
from clearspan.store.memory_trace import Trace


def trace_figures(traces: Iterable[Trace], key: str, limit: int) -> list[TraceFigure]:
    """See FigureReader.trace_figures, of the traces that match."""
    found = sorted(traces, key=lambda each: (each.summary.start_ns, each.trace_pk))
    return [_figure(each, key) for each in found[:limit]]


def _figure(trace: Trace, key: str) -> TraceFigure:
    summary = trace.summary
    root = trace.spans.get(summary.root_span_id or "")
    return TraceFigure(
        summary.start_ns,
        trace.trace_pk,
        trace.trace_id,
        dict(summary.metadata).get(key),
        summary.duration_ns,
        summary.error_count,
        summary.unpriced_count,
        summary.cost_pico,
        None if root is None else root[0].status,
    )


def first_tokens(traces: Iterable[Trace]) -> tuple[int, float]:
    """See FigureReader.first_tokens, of the traces that match."""
    seconds = [span.ttft_s for each in traces for span, _ in each.spans.values() if span.ttft_s is not None]
    return len(seconds), math.fsum(seconds)


def span_statuses(
    traces: Iterable[tuple[Trace, Sequence[Annotation]]], scope: Scope, where: Expr | None, window: Window
) -> dict[str, int]:
    """See FigureReader.span_statuses. `traces` is every visible trace with its annotations."""
    return dict(Counter(span.status for _, span in matching_spans(traces, scope, where, window)))
