"""A trace's summary from its spans and logs: pure, iterative, the same in whatever order they come.

The tree. A span's parent is the span its parent_id names, if that span is here and following parents ends;
in a cycle the earliest (start_ns, span_id) counts as having none. The root is the best of the parentless
spans: one that named no parent before one whose parent is missing, a workflow or agent before others, the
earliest start, the smallest span_id.

Sums. Instrumentations repeat tokens on outer spans, so tokens count on a span only if no descendant carries
tokens of its own, and a span whose `usage_repeats` is set never counts nor covers. Cost follows the same
rule by itself. A sum past 64 bits stays at the largest number they hold. An LLM call is a span of a kind in
LLM_KINDS with no such span below it.

Who it belongs to. Each field is the first non-empty one, the root's before the others' by (start_ns,
span_id), log records last. Metadata is shown key by key under that rule; `metadata_all` keeps every
distinct pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from clearspan.model.span import LLM_KINDS, LogRecord, Span, SpanContext
from clearspan.model.trace import TraceSummary

_ENTRY_KINDS = frozenset({"workflow", "agent"})
NAME_WITHOUT_SPANS = "unknown"
_SUM_MAX = 2**63 - 1


def summarise(
    trace_id: str, spans: Sequence[Span], logs: Sequence[LogRecord], contexts: Mapping[int, SpanContext]
) -> TraceSummary:
    """The summary row of one trace.

    Args:
        trace_id: normal form.
        spans: every span of the trace, one per span_id (merge.py), in any order.
        logs: every log record of the trace, in any order.
        contexts: holds every context_key that spans and logs name.
    Raises:
        ValueError: neither spans nor logs.
    """
    if not spans:
        return _summarise_logs(trace_id, logs, contexts)
    parents = tree_parents(spans)
    root = choose_root(spans, parents)
    ordered = sorted(spans, key=_by_start)
    if ordered[0] is not root:
        ordered.remove(root)
        ordered.insert(0, root)
    usage = _innermost([s for s in ordered if not s.usage_repeats and _states_tokens(s)], parents)
    priced = _innermost([s for s in ordered if not s.usage_repeats and s.cost_pico is not None], parents)
    calls = _innermost([s for s in ordered if s.kind in LLM_KINDS], parents)
    return TraceSummary(
        trace_id=trace_id,
        root_span_id=root.span_id,
        name=root.workflow_name or root.entity_name or root.name,
        kind=root.kind,
        start_ns=min([span.start_ns for span in spans]),
        end_ns=max([span.end_ns for span in spans]),
        span_count=len(spans),
        llm_call_count=len(calls),
        error_count=len([span for span in spans if span.status == "error"]),
        unpriced_count=len([span for span in usage if span.cost_pico is None]),
        prompt_tokens=_sum([span.prompt_tokens for span in usage]),
        completion_tokens=_sum([span.completion_tokens for span in usage]),
        total_tokens=_sum([span_total_tokens(span) for span in usage]),
        cached_tokens=_sum([span.cached_tokens for span in usage]),
        reasoning_tokens=_sum([span.reasoning_tokens for span in usage]),
        cost_pico=_sum([span.cost_pico for span in priced]),
        model=_model(root, ordered),
        **_fold_contexts(_distinct_contexts(ordered, logs, contexts)),
    )


_by_start = attrgetter("start_ns", "span_id")


def tree_parents(spans: Sequence[Span]) -> dict[str, str | None]:
    """span_id → parent span_id within the trace, None for parentless; never a cycle. Cost O(n)."""
    starts = {span.span_id: span.start_ns for span in spans}
    parents = {span.span_id: span.parent_id if span.parent_id in starts else None for span in spans}
    # Nearly always: every child starts after its parent, and then there is no cycle to look for.
    if all([up is None or starts[up] < starts[span_id] for span_id, up in parents.items()]):
        return parents
    settled: set[str] = set()
    for span_id in parents:
        path: list[str] = []
        on_path: set[str] = set()
        at: str | None = span_id
        while at is not None and at not in settled and at not in on_path:
            path.append(at)
            on_path.add(at)
            at = parents[at]
        if at is not None and at in on_path:
            first = min(path[path.index(at) :], key=lambda each: (starts[each], each))
            parents[first] = None
        settled.update(path)
    return parents


def choose_root(spans: Sequence[Span], parents: Mapping[str, str | None]) -> Span:
    """The root of a non-empty trace, `parents` from `tree_parents`; see the module's text for the order."""
    return min(
        (span for span in spans if parents[span.span_id] is None),
        key=lambda each: (
            each.parent_id is not None,
            each.kind not in _ENTRY_KINDS,
            each.start_ns,
            each.span_id,
        ),
    )


def span_total_tokens(span: Span) -> int | None:
    """The total a span states, else the sum of its two parts, None if it states nothing."""
    if span.total_tokens is not None:
        return span.total_tokens
    if span.prompt_tokens is None and span.completion_tokens is None:
        return None
    return (span.prompt_tokens or 0) + (span.completion_tokens or 0)


def _states_tokens(span: Span) -> bool:
    return span.total_tokens is not None or span.prompt_tokens is not None or span.completion_tokens is not None


def _innermost(carriers: list[Span], parents: Mapping[str, str | None]) -> list[Span]:
    """Those of the spans that have no other of them below. O(n): each is marked once."""
    if len(carriers) < 2:
        return carriers
    covered: set[str] = set()
    for span in carriers:
        at = parents[span.span_id]
        while at is not None and at not in covered:
            covered.add(at)
            at = parents[at]
    return [span for span in carriers if span.span_id not in covered]


def _sum(values: list[int | None]) -> int | None:
    """Sum of what is known, at most 2⁶³ - 1, for a store holds no more; None when nothing is known."""
    known = [value for value in values if value is not None]
    return min(sum(known), _SUM_MAX) if known else None


def _model(root: Span, ordered: Sequence[Span]) -> str | None:
    """The root's model, else the first LLM call's, else the first of any span."""
    if model := root.model or root.response_model:
        return model
    first: str | None = None
    for span in ordered:
        if model := span.model or span.response_model:
            if span.kind in LLM_KINDS:
                return model
            first = first or model
    return first


def _distinct_contexts(
    ordered: Sequence[Span], logs: Sequence[LogRecord], contexts: Mapping[int, SpanContext]
) -> list[SpanContext]:
    """Each context once, in the order in which their first owners count."""
    keys = dict.fromkeys([span.context_key for span in ordered])
    if logs:
        by_time = sorted(logs, key=lambda log: (log.time_ns, log.log_hash))
        keys.update(dict.fromkeys([log.context_key for log in by_time]))
    return [contexts[key] for key in keys]


def _fold_contexts(contexts: Sequence[SpanContext]) -> dict[str, Any]:
    """The context fields of a TraceSummary, the first non-empty value of each."""

    if len(contexts) == 1:
        only = contexts[0]
        return {**{name: getattr(only, name) or None for name in _WHO}, "metadata": only.metadata,
                "tags": only.tags, "metadata_all": only.metadata}  # fmt: skip
    shown: dict[str, str] = {}
    for context in contexts:
        for key, value in context.metadata:
            shown.setdefault(key, value)
    return {
        **{name: next((v for context in contexts if (v := getattr(context, name))), None) for name in _WHO},
        "metadata": tuple(sorted(shown.items())),
        "tags": next((context.tags for context in contexts if context.tags), ()),
        "metadata_all": tuple(sorted({pair for context in contexts for pair in context.metadata})),
    }


_WHO = ("customer_identifier", "session_id", "thread_id", "group_id", "environment", "key_id")


def _summarise_logs(trace_id: str, logs: Sequence[LogRecord], contexts: Mapping[int, SpanContext]) -> TraceSummary:
    """A trace of which only log records have come: named by its first event, nothing counted."""
    if not logs:
        raise ValueError("a trace has at least one span or log record")
    ordered = sorted(logs, key=lambda log: (log.time_ns, log.log_hash))
    who = _fold_contexts(_distinct_contexts((), ordered, contexts))
    return TraceSummary(
        trace_id=trace_id,
        root_span_id=None,
        name=next((log.event_name for log in ordered if log.event_name), NAME_WITHOUT_SPANS),
        kind=None,
        start_ns=ordered[0].time_ns,
        end_ns=ordered[-1].time_ns,
        span_count=0,
        llm_call_count=0,
        error_count=0,
        unpriced_count=0,
        prompt_tokens=None,
        completion_tokens=None,
        total_tokens=None,
        cached_tokens=None,
        reasoning_tokens=None,
        cost_pico=None,
        model=None,
        **who,
    )
