"""Figures over many traces of the in-memory store: obvious, not fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from clearspan.model.annotation import Annotation
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.figures import TraceFigures
from clearspan.store.memory_spans import matching_spans
from clearspan.store.memory_trace import Trace


def trace_figures(traces: Iterable[Trace], key: str, limit: int) -> TraceFigures:
    """See FigureReader.trace_figures, of the traces that match."""
    found = sorted(traces, key=lambda each: (each.summary.start_ns, each.trace_pk))[:limit]
    summaries = [each.summary for each in found]
    roots = [each.spans.get(each.summary.root_span_id or "") for each in found]
    return TraceFigures(
        np.array([each.trace_pk for each in found], np.int64),
        [each.trace_id for each in found],
        [dict(each.metadata).get(key) for each in summaries],
        np.array([each.duration_ns for each in summaries], np.int64),
        np.array([each.error_count for each in summaries], np.int64),
        np.array([each.unpriced_count for each in summaries], np.int64),
        np.array([each.cost_pico or 0 for each in summaries], np.int64),
        np.array([each.cost_pico is not None for each in summaries], np.bool_),
        np.array([root is not None and root[0].status == "pending" for root in roots], np.bool_),
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
