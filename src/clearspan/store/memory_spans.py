"""Lists and figures of single spans in the in-memory store: obvious, not fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearspan.model.annotation import Annotation
from clearspan.model.span import Span
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.evaluate import SpanFacts, TraceFacts
from clearspan.query.evaluate_span import span_matches
from clearspan.store.memory_details import details_of
from clearspan.store.memory_trace import Trace, selected
from clearspan.store.port import SpanDetail
from clearspan.store.span_figures import FIGURE_COLUMNS, SpanTally
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanRow, SpanStats


def list_spans(
    traces: Iterable[tuple[Trace, Sequence[Annotation]]],
    scope: Scope,
    where: Expr | None,
    window: Window,
    order: SpanOrder,
    after: SpanPosition | None,
    limit: int,
    records: bool,
) -> SpanPage:
    """See spans.SpanReader.list_spans.

    Args:
        traces: every visible trace with its annotations.
    """
    found = [(_position(trace, span), trace) for trace, span in matching_spans(traces, scope, where, window)]
    found.sort(key=lambda each: _order_key(order, each[0]), reverse=order.endswith("_desc"))
    if after is not None:
        last = _order_key(order, after)
        is_down = order.endswith("_desc")
        found = [
            each
            for each in found
            if (_order_key(order, each[0]) < last if is_down else _order_key(order, each[0]) > last)
        ]
    rows = [_row(trace, at.span_id, records) for at, trace in found[:limit]]
    return SpanPage(rows, found[limit - 1][0] if len(found) > limit else None)


def span_stats(
    traces: Iterable[tuple[Trace, Sequence[Annotation]]], scope: Scope, where: Expr | None, window: Window
) -> SpanStats:
    """See spans.SpanReader.span_stats."""
    tally = SpanTally()
    for _, span in matching_spans(traces, scope, where, window):
        tally.add(*(getattr(span, name) for name in FIGURE_COLUMNS))
    return tally.stats()


def matching_spans(
    traces: Iterable[tuple[Trace, Sequence[Annotation]]], scope: Scope, where: Expr | None, window: Window
) -> Iterable[tuple[Trace, Span]]:
    for trace, said in traces:
        if not selected(trace, scope, None, Window()):
            continue
        facts = TraceFacts(trace.summary)
        details = [SpanFacts(span) for span, _ in trace.spans.values()]
        if where is not None:
            details = details_of(trace, said, where)
            facts = trace.facts(where, said)._replace(details=details)
        for each in details:
            if _is_within(each.span, window) and span_matches(where, each, facts):
                yield trace, each.span


def _is_within(span: Span, window: Window) -> bool:
    return (window.start_ns is None or span.start_ns >= window.start_ns) and (
        window.end_ns is None or span.start_ns < window.end_ns
    )


def _position(trace: Trace, span: Span) -> SpanPosition:
    return SpanPosition(span.start_ns, trace.trace_pk, span.span_id)


def _order_key(order: SpanOrder, at: SpanPosition) -> tuple[int, int, bytes]:
    # As SQLite compares text: by its bytes.
    span_id = at.span_id.encode()
    if order in (SpanOrder.START_DESC, SpanOrder.START_ASC):
        return at.start_ns, at.trace_pk, span_id
    return at.trace_pk, at.start_ns, span_id


def _row(trace: Trace, span_id: str, records: bool) -> SpanRow:
    span, block_no = trace.spans[span_id]
    record = trace.blocks[block_no].records[span_id] if records else b""
    row = trace.row
    # Lists leave `metadata_all` out.
    row = row._replace(summary=row.summary._replace(metadata_all=()))
    return SpanRow(row, SpanDetail(span, trace.contexts[span.context_key], record))
