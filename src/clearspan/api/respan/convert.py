"""Stored traces → Respan's JSON. Only these functions know Respan's names for our fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from clearspan.api.errors import dump_json
from clearspan.api.respan.window import render_time
from clearspan.ingest.rollup import span_total_tokens, tree_parents
from clearspan.model.span import Span, SpanContext
from clearspan.model.trace import TraceSummary
from clearspan.model.usage import usd_from_pico
from clearspan.store.port import TraceRow

Json = dict[str, Any]

HIDDEN_FROM_PUBLIC = (
    "organization_name",
    "organization_key_id",
    "customer_identifier",
    "session_identifier",
    "trace_group_identifier",
    "thread_identifier",
    "metadata",
)
"""What a shared trace does not show of whom it belongs to: null, and `{}` for metadata."""


class Owner(NamedTuple):
    """The organisation whose traces are shown."""

    public_id: str
    name: str


class SpanTexts(NamedTuple):
    """What only the wire record holds of a span."""

    input: str | None
    output: str | None
    links: str | None  # JSON


NO_TEXTS = SpanTexts(None, None, None)


def render_trace(row: TraceRow, owner: Owner, texts: SpanTexts = NO_TEXTS) -> Json:
    """One item of a list; also the head of a detail. Unknown cost and tokens are null, never 0."""
    summary = row.summary
    return {
        "id": summary.trace_id,
        "trace_unique_id": summary.trace_id,
        "root_span_unique_id": summary.root_span_id,
        "unique_organization_id": owner.public_id,
        "organization_id": owner.public_id,
        "organization_name": owner.name,
        "organization_key_id": summary.key_id,
        "environment": summary.environment,
        "customer_identifier": summary.customer_identifier,
        "start_time": render_time(summary.start_ns),
        "end_time": render_time(summary.end_ns),
        "duration": _seconds(summary.duration_ns),
        "span_count": summary.span_count,
        "llm_call_count": summary.llm_call_count,
        "error_count": summary.error_count,
        "total_cost": usd_from_pico(summary.cost_pico),
        "total_prompt_tokens": summary.prompt_tokens,
        "total_completion_tokens": summary.completion_tokens,
        "total_tokens": summary.total_tokens,
        "name": summary.name,
        "input": texts.input,
        "output": texts.output,
        "metadata": visible_metadata(summary.metadata),
        "trace_group_identifier": summary.group_id,
        "session_identifier": summary.session_id,
        "model": summary.model,
        "storage_object_key": None,
    }


class Tree(NamedTuple):
    """The spans of a trace as nodes without their children, and how they hang together."""

    nodes: dict[str, Json]  # by span_id, in the order given
    children: dict[str | None, list[str]]  # parent's span_id → span_ids; None: the roots


def render_tree(
    summary: TraceSummary,
    owner: Owner,
    spans: Sequence[tuple[Span, SpanContext]],
    texts: Mapping[str, SpanTexts],
) -> Tree:
    """The forest of spans, roots and siblings in the order given.

    Args:
        spans: sorted by (start_ns, span_id), as the store gives them.
        texts: by span_id; a span that is not in it has none.
    """
    children: dict[str | None, list[str]] = {}
    for span_id, parent in tree_parents([span for span, _ in spans]).items():
        children.setdefault(parent, []).append(span_id)
    metadata: dict[int, dict[str, str]] = {}  # most spans share a context
    nodes: dict[str, Json] = {}
    for span, context in spans:
        shown = metadata.get(span.context_key)
        if shown is None:
            shown = metadata[span.context_key] = visible_metadata(context.metadata)
        nodes[span.span_id] = _render_node(summary, owner, span, context, shown, texts.get(span.span_id, NO_TEXTS))
    return Tree(nodes, children)


def dump_detail(head: Json, tree: Tree) -> bytes:
    """The JSON of a trace with its `span_tree`.

    Written out node by node, because a chain of 20,000 spans is legal and every JSON encoder gives up long before.
    """
    out = [dump_json(head)[:-1], b',"span_tree":[']
    # What is still to be written, last first: a node to open, or bytes that close one.
    pending: list[str | bytes] = _siblings(tree, None)
    while pending:
        item = pending.pop()
        if isinstance(item, bytes):
            out.append(item)
            continue
        out += (dump_json(tree.nodes[item])[:-1], b',"children":[')
        pending.append(b"]}")
        pending += _siblings(tree, item)
    out.append(b"]}")
    return b"".join(out)


def _siblings(tree: Tree, parent: str | None) -> list[str | bytes]:
    """The children of a node with commas between them, last first."""
    out: list[str | bytes] = []
    for span_id in reversed(tree.children.get(parent, ())):
        out += (span_id, b",")
    return out[:-1]


def _render_node(
    summary: TraceSummary,
    owner: Owner,
    span: Span,
    context: SpanContext,
    metadata: dict[str, str],
    texts: SpanTexts,
) -> Json:
    ended = render_time(span.end_ns)
    return {
        "id": span.span_id,
        "unique_id": span.span_id,
        "span_unique_id": span.span_id,
        "span_name": span.entity_name or span.name,
        "span_parent_id": span.parent_id,
        "trace_unique_id": summary.trace_id,
        "customer_identifier": context.customer_identifier,
        "thread_identifier": context.thread_id,
        "session_identifier": context.session_id,
        "organization_key_id": context.key_id,
        "organization_id": owner.public_id,
        "environment": context.environment,
        "log_type": span.kind,
        "timestamp": ended,
        "start_time": render_time(span.start_ns),
        "end_time": ended,
        "prompt_tokens": span.prompt_tokens,
        "completion_tokens": span.completion_tokens,
        "total_request_tokens": span_total_tokens(span),
        "cost": usd_from_pico(span.cost_pico),
        "latency": _seconds(span.end_ns - span.start_ns),
        "model": span.model or span.response_model,
        "status_code": span.status_code,
        "status": "error" if span.status == "error" else "success",
        "input": texts.input,
        "output": texts.output,
        "metadata": metadata,
        "span_links": texts.links,
        "storage_object_key": None,
        "span_workflow_name": span.workflow_name,
    }


def without_private(item: Json) -> Json:
    """A trace's head or a node as the public sees it."""
    return item | {key: {} if key == "metadata" else None for key in HIDDEN_FROM_PUBLIC if key in item}


def visible_metadata(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Metadata without the keys that start with `_`: those are the clients' own."""
    return {key: value for key, value in pairs if not key.startswith("_")}


def _seconds(ns: int) -> float:
    return ns / 1e9
