"""What filters may ask of the single spans of a trace in the in-memory store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.span import Span
from clearspan.model.trace import TraceSummary
from clearspan.query.ast import Condition, Expr, RootSpan, SomeEntry, SomeSpan, children_of
from clearspan.query.evaluate import SpanFacts
from clearspan.store.span_payload import payload_of

if TYPE_CHECKING:
    from clearspan.store.memory_trace import Trace


def details_of(trace: Trace, annotations: Sequence[Annotation], where: Expr) -> list[SpanFacts]:
    """What an expression may ask of the spans of a trace; wire records are decoded only if it asks for them."""
    reads = _reads_payload(where)
    found = []
    for span, block_no in trace.spans.values():
        record = trace.blocks[block_no].records[span.span_id]
        mine = [each for each in annotations if _is_about(each, span, trace)]
        found.append(SpanFacts(span, trace.contexts[span.context_key], mine, payload_of(record) if reads else None))
    return found


def looks_into_spans(expr: Expr) -> bool:
    """Whether a filter of traces turns to single spans."""
    return isinstance(expr, RootSpan | SomeSpan | SomeEntry) or any(map(looks_into_spans, children_of(expr)))


def scores_of(annotations: Sequence[Annotation], summary: TraceSummary) -> list[tuple[str, float]]:
    """What `scores__<name>` may ask of a trace: (name, score) of each annotation about it or its root span."""
    return [
        (each.name, each.score)
        for each in annotations
        if each.score is not None
        and (
            each.target is AnnotationTarget.TRACE
            or (each.target is AnnotationTarget.SPAN and each.span_id == summary.root_span_id)
        )
    ]


def _is_about(annotation: Annotation, span: Span, trace: Trace) -> bool:
    if annotation.target is AnnotationTarget.TRACE:
        return span.span_id == trace.summary.root_span_id
    return annotation.target is AnnotationTarget.SPAN and annotation.span_id == span.span_id


def _reads_payload(expr: Expr) -> bool:
    return expr.field.payload if isinstance(expr, Condition) else any(map(_reads_payload, children_of(expr)))
