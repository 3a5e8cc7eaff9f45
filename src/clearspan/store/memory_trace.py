"""One trace of the in-memory store: immutable, with its summary, its facts and its rows per target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from clearspan.ingest import run_document
from clearspan.ingest.detail import searchable_text
from clearspan.ingest.merge import wins
from clearspan.ingest.payload import (
    CODEC_LANGSMITH_RUN,
    BlockRecord,
    Shared,
    decode_block,
    decode_record,
    pack_block,
    records_by_id,
)
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.rollup import summarise
from clearspan.ingest.run_fusion import Fusion, fuse_batch, may_fuse
from clearspan.ingest.run_promotion import promote_run
from clearspan.model.annotation import Annotation
from clearspan.model.span import Attachment, LogRecord, Span, SpanContext, TraceBatch
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.evaluate import TraceFacts, matches
from clearspan.query.fields import FieldType
from clearspan.store.memory_details import details_of, looks_into_spans, scores_of
from clearspan.store.port import TraceRow
from clearspan.store.spans import pieces_of

TARGETS = (
    "trace", "span", "log", "context", "metadata", "annotation", "block", "attachment", "attachment_piece",
    "text_signature",
)  # fmt: skip


@dataclass
class Block:
    """The records of one batch, and whether its text can be searched."""

    records: dict[str | int, bytes]


@dataclass(frozen=True)
class Trace:
    """One trace at one moment. Every write that changes it makes a new one, so its summary is worked out once."""

    trace_pk: int
    project_id: int
    trace_id: str
    received_ns: int
    spans: dict[str, tuple[Span, int]] = field(default_factory=dict)  # span_id → (row, block number)
    logs: dict[int, tuple[LogRecord, int]] = field(default_factory=dict)
    contexts: dict[int, SpanContext] = field(default_factory=dict)
    blocks: dict[int, Block] = field(default_factory=dict)
    attachments: dict[tuple[str, str], Attachment] = field(default_factory=dict)  # (span_id, name) → it

    @cached_property
    def summary(self) -> TraceSummary:
        spans = [span for span, _ in self.spans.values()]
        return summarise(self.trace_id, spans, [log for log, _ in self.logs.values()], self.contexts)

    @property
    def row(self) -> TraceRow:
        return TraceRow(self.trace_pk, self.project_id, self.received_ns, self.summary)

    def facts(self, where: Expr, said: Sequence[Annotation] = ()) -> TraceFacts:
        """What `where` may ask of the trace; text is decoded only for a search.

        Args:
            said: the trace's annotations.
        """
        searches = any(condition.field.type is FieldType.SEARCH for condition in conditions(where))
        texts = [searchable_text(record) for record in self.live_records()] if searches else []
        details = details_of(self, said, where) if looks_into_spans(where) else []
        return TraceFacts(
            self.summary, [span for span, _ in self.spans.values()], texts, details, scores_of(said, self.summary)
        )

    def live_records(self) -> Iterator[bytes]:
        """The wire records that some row still stands for."""
        for span_id, (_, block_no) in self.spans.items():
            yield self.blocks[block_no].records[span_id]
        for log_hash, (_, block_no) in self.logs.items():
            yield self.blocks[block_no].records[log_hash]

    def target_counts(self) -> dict[str, int]:
        """Rows per target, named as in deletion/targets.py."""
        return {
            "trace": 1,
            "span": len(self.spans),
            "log": len(self.logs),
            "context": len(self.contexts),
            "metadata": len(self.summary.metadata_all),
            "block": len(self.blocks),
            "attachment": len(self.attachments),
            "attachment_piece": sum(pieces_of(len(each.data)) for each in self.attachments.values()),
            "text_signature": len(self.blocks),
        }


def selected(trace: Trace, scope: Scope, where: Expr | None, window: Window, said: Sequence[Annotation] = ()) -> bool:
    """Whether scope, window and filter all let a trace through; `said` are its annotations."""
    summary = trace.summary
    return (
        trace.project_id in scope.project_ids
        and (scope.environment is None or summary.environment == scope.environment)
        and (window.start_ns is None or summary.start_ns >= window.start_ns)
        and (window.end_ns is None or summary.start_ns < window.end_ns)
        and (where is None or matches(where, trace.facts(where, said)))
    )


def merged(old: Trace, batch: TraceBatch, prices: PriceBook | None = None) -> tuple[Trace, int]:
    """The trace with a batch laid over it by the merge law, and how many spans and logs that changed."""
    batch, stays = _fused(old, batch, prices)
    spans, logs = dict(old.spans), dict(old.logs)
    block_no = max(old.blocks, default=-1) + 1
    stored = 0
    for span in batch.spans:
        known = spans.get(span.span_id)
        if known is None or stays.get(span.span_id, wins(span, known[0])):
            spans[span.span_id] = (span, block_no)
            stored += 1
    for log in batch.logs:
        if log.log_hash not in logs:
            logs[log.log_hash] = (log, block_no)
            stored += 1
    block = Block(records_by_id(decode_block(batch.block)) if batch.block else {})
    rows: list[tuple[Span | LogRecord, int]] = [*spans.values(), *logs.values()]
    contexts = {**batch.contexts, **old.contexts}
    blocks = {**old.blocks, block_no: block}
    new = Trace(
        old.trace_pk,
        old.project_id,
        old.trace_id,
        old.received_ns,
        spans,
        logs,
        {key: contexts[key] for key in {row.context_key for row, _ in rows}},
        {number: blocks[number] for number in {number for _, number in rows}},
        old.attachments,
    )
    return new, stored


def _fused(old: Trace, batch: TraceBatch, prices: PriceBook | None) -> Fusion:
    """The batch with what is known of its runs, and which of them changed by that."""
    known: dict[str, BlockRecord] = {}
    for span in batch.spans:
        if span.span_id in old.spans and may_fuse(span, old.spans[span.span_id][0]):
            record = decode_record(old.blocks[old.spans[span.span_id][1]].records[span.span_id])
            known[span.span_id] = BlockRecord(record.codec, 0, span.span_id, record.raw)
    return fuse_batch(batch, known, prices) if known else Fusion(batch, {})


def root_record(trace: Trace) -> tuple[bytes | None, list[bytes]]:
    root_id = trace.summary.root_span_id
    root = None
    if root_id is not None:
        root = trace.blocks[trace.spans[root_id][1]].records[root_id]
    logs = [(log.time_ns, log.log_hash, number) for log, number in trace.logs.values() if log.span_id == root_id]
    return root, [trace.blocks[number].records[log_hash] for _, log_hash, number in sorted(logs)]


def without_metadata(trace: Trace, key: str, prices: PriceBook | None = None) -> Trace:
    """The trace as if no LangSmith run of it had said that key; the trace itself if none did."""
    spans, blocks, contexts = dict(trace.spans), dict(trace.blocks), dict(trace.contexts)
    for span_id, (_, number) in trace.spans.items():
        wire = decode_record(blocks[number].records[span_id])
        raw = run_document.without_metadata(wire.raw, key) if wire.codec == CODEC_LANGSMITH_RUN else wire.raw
        if raw == wire.raw:
            continue
        span, context = promote_run(raw, prices)
        spans[span_id], contexts[span.context_key] = (span, number), context
        shared = Shared(wire.resource, wire.scope, wire.schema_url)
        packed = pack_block([(wire.codec, 0, span_id, raw)], [shared])
        blocks[number] = Block({**blocks[number].records, **records_by_id(decode_block(packed))})
    if spans == trace.spans:
        return trace
    used = {row.context_key for row, _ in spans.values()} | {row.context_key for row, _ in trace.logs.values()}
    return replace(trace, spans=spans, blocks=blocks, contexts={each: contexts[each] for each in used})
