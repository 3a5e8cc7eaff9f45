"""The whole store contract in plain Python: obvious, not fast. What the other stores are held to.

Everything is kept in dictionaries under one lock, so each call is one transaction and one snapshot. Nothing is on
disk: "durable" means as long as the object lives, which lets a test drop and remake everything around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearspan.ingest.pricing import PriceBook
from clearspan.model.annotation import Annotation
from clearspan.model.span import Attachment, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.evaluate import order_key
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store import memory_figures, memory_spans
from clearspan.store.annotations import (
    AnnotationChange,
    AnnotationFigures,
    AnnotationOutcome,
    AnnotationQuery,
    AnnotationRow,
    AnnotationWrite,
)
from clearspan.store.figures import ScoreColumn, TraceFigures, columns_of
from clearspan.store.memory_annotations import newest_scores
from clearspan.store.memory_attachments import AttachmentMemory, Waiting, with_attachments
from clearspan.store.memory_sessions import SessionMemory
from clearspan.store.memory_trace import Trace, merged, root_record
from clearspan.store.memory_transfers import TransferringMemory
from clearspan.store.port import LogDetail, SpanDetail, TraceDetail, TracePage, TraceRow, TraceSums, WriteOutcome
from clearspan.store.span_deletion import parts_by_span, render_name, size_of, without_spans
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanStats
from clearspan.store.tombstone import tombstone_key


class MemoryStore(SessionMemory, AttachmentMemory, TransferringMemory):
    """TraceWriter, TraceReader and DeletionStore in one; safe to call from many threads."""

    def __init__(self, tombstone_secret: bytes, prices: PriceBook | None = None) -> None:
        """
        Args:
            prices: for runs whose parts come in several writes; as ingest has them.
        """
        super().__init__(tombstone_secret)
        self._prices = prices
        self._waiting = Waiting()

    # -- writing ----------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        with self._lock:
            return [self._write(batch, received_ns) for batch in batches]

    def _write(self, batch: TraceBatch, received_ns: int) -> WriteOutcome:
        self._waiting.sweep(received_ns)
        if not batch.trace_id:
            return self._write_homeless(batch, received_ns)
        batch = batch._replace(project_id=self.home_of(batch.project_id, batch.trace_id))
        size = len(batch.spans) + len(batch.logs) + len(batch.attachments)
        deletion_id = self._tombstones.get(tombstone_key(self._secret, batch.project_id, batch.trace_id))
        if deletion_id is not None:
            self._deletions[deletion_id].late_refused += size
            self._take_waiting(batch, [span.span_id for span in batch.spans])
            return WriteOutcome(0, 0, size, deletion_id)
        batch, refused, refused_by = self._refuse_spans(batch)
        size -= refused
        trace_pk = self._pk_of.get((batch.project_id, batch.trace_id))
        old = self._traces.get(trace_pk) if trace_pk is not None else None
        if old is None:
            old = Trace(self._next_pk, batch.project_id, batch.trace_id, received_ns)
        new, stored = merged(old, batch, self._prices)
        waited = self._take_waiting(batch, new.spans)
        if new.spans or new.logs:
            new, kept = with_attachments(new, batch.attachments)
            new, _ = with_attachments(new, waited)
            stored += kept
        else:
            stored = self._waiting.add(batch.project_id, batch.attachments, received_ns)
            return WriteOutcome(stored, size - stored, refused, refused_by)
        if stored:
            self._next_pk = max(self._next_pk, new.trace_pk + 1)
            before = self._traces.get(new.trace_pk)
            self._traces[new.trace_pk] = new
            self._pk_of[new.project_id, new.trace_id] = new.trace_pk
            self._annotations.written(before, new, received_ns)
        return WriteOutcome(stored, size - stored, refused, refused_by)

    def _refuse_spans(self, batch: TraceBatch) -> tuple[TraceBatch, int, str | None]:
        """The batch without spans that were deleted by themselves, how much that took away, and by whom."""
        known = self._traces.get(self._pk_of.get((batch.project_id, batch.trace_id), 0))
        parts = parts_by_span(batch)
        found = {
            span_id: by
            for span_id in parts.keys() - (known.spans.keys() if known is not None else set())
            for project_id in self.homes_of(batch.project_id, batch.trace_id)
            if (by := self.find_tombstone(project_id, render_name(batch.trace_id, span_id))) is not None
        }
        for span_id, deletion_id in found.items():
            self._deletions[deletion_id].late_refused += parts[span_id]
        self._take_waiting(batch, found)
        left = without_spans(batch, found) if found else batch
        return left, size_of(batch) - size_of(left), next(iter(found.values()), None)

    def _take_waiting(self, batch: TraceBatch, span_ids: Iterable[str]) -> list[Attachment]:
        """What waits for runs of the batch's trace, in whichever of its projects; it waits no more."""
        homes = self.homes_of(batch.project_id, batch.trace_id)
        return [each for home in homes for each in self._waiting.take(home, span_ids)]

    def _write_homeless(self, batch: TraceBatch, received_ns: int) -> WriteOutcome:
        """Attachments of runs whose trace the sender did not name."""
        stored = refused = 0
        refused_by: str | None = None
        for each in batch.attachments:
            homes = [
                trace
                for trace in self._traces.values()
                if each.span_id in trace.spans and batch.project_id in self.homes_of(trace.project_id, trace.trace_id)
            ]
            newest = max(homes, key=lambda t: (t.project_id == batch.project_id, t.trace_pk)) if homes else None
            trace_id = each.span_id if newest is None else newest.trace_id
            project_id = self.home_of(batch.project_id, trace_id)
            by = self._tombstones.get(tombstone_key(self._secret, project_id, trace_id))
            if by is None and not homes:
                stored += self._waiting.add(batch.project_id, [each], received_ns)
                continue
            outcome = self._write(batch._replace(trace_id=trace_id, attachments=(each,)), received_ns)
            stored, refused = stored + outcome.stored, refused + outcome.refused
            refused_by = refused_by or outcome.deletion_id
        return WriteOutcome(stored, len(batch.attachments) - stored - refused, refused, refused_by)

    def put_annotations(self, writes: Sequence[AnnotationWrite], *, received_ns: int) -> list[AnnotationOutcome]:
        with self._lock:
            outcomes = self._annotations.put(writes, received_ns, self.find_tombstone)
            for _, refused_by in outcomes:
                if refused_by is not None:
                    self._deletions[refused_by].late_refused += 1
        return [outcome for outcome, _ in outcomes]

    def patch_annotation(self, scope: Scope, annotation_id: str, change: AnnotationChange) -> AnnotationRow | None:
        with self._lock:
            return self._annotations.patch(scope, annotation_id, change)

    def purge_project_annotations(self, project_id: int) -> int:
        with self._lock:
            files = self._waiting.projects.pop(project_id, {})
            return self._annotations.purge_of_project(project_id) + len(files)

    def widen_waiting(self, project_ids: Sequence[int]) -> int:
        with self._lock:
            return self._annotations.widen(project_ids)

    def expire_annotations(self, before_ns: int) -> int:
        with self._lock:
            return self._annotations.expire(before_ns)

    # -- reading ----------------------------------------------------------------------------------------------

    def list_traces(
        self, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage
    ) -> TracePage:
        with self._lock:
            found = [trace.row for trace in self._matching(scope, where, window)]
        found.sort(key=lambda row: order_key(sort, row.summary, row.trace_pk))
        return TracePage(found[page.offset : page.offset + page.page_size], len(found))

    def count_traces(self, scope: Scope, where: Expr | None, window: Window) -> int:
        with self._lock:
            return sum(1 for _ in self._matching(scope, where, window))

    def sum_traces(self, scope: Scope, where: Expr | None, window: Window) -> TraceSums:
        with self._lock:
            found = [trace.summary for trace in self._matching(scope, where, window)]
        return TraceSums(
            traces=len(found),
            error_count=sum(each.error_count for each in found),
            duration_ns=sum(each.duration_ns for each in found),
            prompt_tokens=_sum_known(each.prompt_tokens for each in found),
            completion_tokens=_sum_known(each.completion_tokens for each in found),
            total_tokens=_sum_known(each.total_tokens for each in found),
            cost_pico=_sum_known(each.cost_pico for each in found),
        )

    def get_trace(self, scope: Scope, trace_id: str) -> TraceDetail | None:
        with self._lock:
            copies = [each for each in self._matching(scope, None, Window()) if each.trace_id == trace_id]
        if not copies:
            return None
        trace = max(copies, key=lambda each: (each.received_ns, each.trace_pk))
        spans = [
            SpanDetail(span, trace.contexts[span.context_key], trace.blocks[block_no].records[span.span_id])
            for span, block_no in trace.spans.values()
        ]
        logs = [
            LogDetail(log, trace.contexts[log.context_key], trace.blocks[block_no].records[log.log_hash])
            for log, block_no in trace.logs.values()
        ]
        spans.sort(key=lambda each: (each.span.start_ns, each.span.span_id))
        logs.sort(key=lambda each: (each.log.time_ns, each.log.log_hash))
        return TraceDetail(trace.row, spans, logs)

    def root_records(self, rows: Sequence[TraceRow]) -> dict[int, tuple[bytes | None, list[bytes]]]:
        with self._lock:
            traces = [self._traces[row.trace_pk] for row in rows if self._is_visible(row.trace_pk)]
        return {trace.trace_pk: root_record(trace) for trace in traces}

    def list_annotations(
        self, scope: Scope, query: AnnotationQuery, *, before_row: int | None = None, offset: int = 0, limit: int
    ) -> list[AnnotationRow]:
        with self._lock:
            return self._annotations.rows(scope, query, before_row, offset, limit)

    def annotations_of(self, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
        with self._lock:
            return self._annotations.by_traces(trace_pks)

    def score_columns(
        self, scope: Scope, where: Expr | None, window: Window, *, name: str | None = None, in_words: bool = False
    ) -> list[ScoreColumn]:
        with self._lock:
            roots = {each.trace_pk: each.summary.root_span_id for each in self._matching(scope, where, window)}
            rows = newest_scores(self._annotations.by_traces(list(roots)), roots, name)
        return columns_of(rows, in_words=in_words)

    def trace_figures(self, scope: Scope, where: Expr | None, window: Window, *, key: str, limit: int) -> TraceFigures:
        with self._lock:
            return memory_figures.trace_figures(self._matching(scope, where, window), key, limit)

    def trace_values(
        self, scope: Scope, where: Expr | None, window: Window, *, key: str, limit: int
    ) -> list[str | None]:
        return self.trace_figures(scope, where, window, key=key, limit=limit).values

    def first_tokens(self, scope: Scope, where: Expr | None, window: Window) -> tuple[int, float]:
        with self._lock:
            return memory_figures.first_tokens(self._matching(scope, where, window))

    def span_statuses(self, scope: Scope, where: Expr | None, window: Window) -> dict[str, int]:
        with self._lock:
            return memory_figures.span_statuses(self._told(), scope, where, window)

    def annotation_figures(self) -> AnnotationFigures:
        with self._lock:
            return self._annotations.figures()

    def list_spans(
        self,
        scope: Scope,
        where: Expr | None,
        window: Window,
        *,
        order: SpanOrder = SpanOrder.START_DESC,
        after: SpanPosition | None = None,
        limit: int,
        records: bool = True,
    ) -> SpanPage:
        with self._lock:
            return memory_spans.list_spans(self._told(), scope, where, window, order, after, limit, records)

    def span_stats(self, scope: Scope, where: Expr | None, window: Window) -> SpanStats:
        with self._lock:
            return memory_spans.span_stats(self._told(), scope, where, window)

    def _told(self) -> list[tuple[Trace, list[Annotation]]]:
        """Every visible trace with its annotations."""
        return [(each, self._said_of(pk)) for pk, each in self._traces.items() if self._is_visible(pk)]


def _sum_known(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
