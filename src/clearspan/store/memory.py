"""The whole store contract in plain Python: obvious, not fast. What the other stores are held to.

Everything is kept in dictionaries under one lock, so each call is one transaction and one snapshot. Nothing is on
disk: "durable" means as long as the object lives, which lets a test drop and remake everything around it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from clearspan.ingest.detail import searchable_text
from clearspan.ingest.merge import wins
from clearspan.ingest.payload import parse_block, records_by_id
from clearspan.ingest.rollup import summarise
from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.evaluate import TraceFacts, matches, order_key
from clearspan.query.fields import FieldType
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.port import (
    DeletionProgress,
    HideOutcome,
    LogDetail,
    PlannedTrace,
    SpanDetail,
    TraceDetail,
    TracePage,
    TraceRow,
    TraceSums,
    WriteOutcome,
)
from clearspan.store.tombstone import tombstone_key


@dataclass
class _Block:
    """The records of one batch, and whether its text can be searched."""

    records: dict[str | int, bytes]


@dataclass(frozen=True)
class _Trace:
    """One trace at one moment. Every write that changes it makes a new one, so its summary is worked out once."""

    trace_pk: int
    project_id: int
    trace_id: str
    received_ns: int
    spans: dict[str, tuple[Span, int]] = field(default_factory=dict)  # span_id → (row, block number)
    logs: dict[int, tuple[LogRecord, int]] = field(default_factory=dict)
    contexts: dict[int, SpanContext] = field(default_factory=dict)
    blocks: dict[int, _Block] = field(default_factory=dict)

    @cached_property
    def summary(self) -> TraceSummary:
        spans = [span for span, _ in self.spans.values()]
        return summarise(self.trace_id, spans, [log for log, _ in self.logs.values()], self.contexts)

    @property
    def row(self) -> TraceRow:
        return TraceRow(self.trace_pk, self.project_id, self.received_ns, self.summary)

    def facts(self, where: Expr) -> TraceFacts:
        """What `where` may ask of the trace; text is decoded only for a search."""
        searches = any(condition.field.type is FieldType.SEARCH for condition in conditions(where))
        texts = [searchable_text(record) for record in self.live_records()] if searches else []
        return TraceFacts(self.summary, [span for span, _ in self.spans.values()], texts)

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
            "text_signature": len(self.blocks),
        }


@dataclass
class _Deletion:
    outcome: HideOutcome
    request: bytes | None
    manifest: list[PlannedTrace]
    batches: list[tuple[dict[str, int], bool]] = field(default_factory=list)
    settled: bool = False
    late_refused: int = 0


class MemoryStore:
    """TraceWriter, TraceReader and DeletionStore in one; safe to call from many threads."""

    def __init__(self, tombstone_secret: bytes) -> None:
        self._secret = tombstone_secret
        self._lock = threading.RLock()
        self._next_pk = 1
        self._traces: dict[int, _Trace] = {}
        self._pk_of: dict[tuple[int, str], int] = {}
        self._hidden: dict[int, str] = {}  # trace_pk → deletion_id
        self._tombstones: dict[bytes, str] = {}  # key → deletion_id
        self._deletions: dict[str, _Deletion] = {}

    # -- writing ----------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        with self._lock:
            return [self._write(batch, received_ns) for batch in batches]

    def _write(self, batch: TraceBatch, received_ns: int) -> WriteOutcome:
        deletion_id = self._tombstones.get(tombstone_key(self._secret, batch.project_id, batch.trace_id))
        if deletion_id is not None:
            refused = len(batch.spans) + len(batch.logs)
            self._deletions[deletion_id].late_refused += refused
            return WriteOutcome(0, 0, refused, deletion_id)
        trace_pk = self._pk_of.get((batch.project_id, batch.trace_id))
        old = self._traces.get(trace_pk) if trace_pk is not None else None
        if old is None:
            old = _Trace(self._next_pk, batch.project_id, batch.trace_id, received_ns)
        new, stored = _merged(old, batch)
        if stored:
            self._next_pk = max(self._next_pk, new.trace_pk + 1)
            self._traces[new.trace_pk] = new
            self._pk_of[new.project_id, new.trace_id] = new.trace_pk
        return WriteOutcome(stored, len(batch.spans) + len(batch.logs) - stored, 0, None)

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
        tokens = [each.total_tokens for each in found if each.total_tokens is not None]
        costs = [each.cost_pico for each in found if each.cost_pico is not None]
        return TraceSums(
            traces=len(found),
            error_count=sum(each.error_count for each in found),
            duration_ns=sum(each.duration_ns for each in found),
            total_tokens=sum(tokens) if tokens else None,
            cost_pico=sum(costs) if costs else None,
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
        return {trace.trace_pk: _root_record(trace) for trace in traces}

    def _is_visible(self, trace_pk: int) -> bool:
        return trace_pk in self._traces and trace_pk not in self._hidden

    def _matching(self, scope: Scope, where: Expr | None, window: Window) -> Iterator[_Trace]:
        for trace in self._traces.values():
            if self._is_visible(trace.trace_pk) and _selected(trace, scope, where, window):
                yield trace

    # -- deleting ---------------------------------------------------------------------------------------------

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        with self._lock:
            found = [
                PlannedTrace(trace.trace_pk, trace.project_id, trace.trace_id)
                for trace in self._matching(scope, where, window)
                if trace.received_ns < received_before_ns
            ]
        return sorted(found)[: limit + 1]

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        with self._lock:
            return sorted(
                PlannedTrace(trace.trace_pk, trace.project_id, trace.trace_id)
                for trace in self._matching(scope, None, window)
                if trace.trace_id in trace_ids
            )

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        with self._lock:
            return self._count(trace_pks)

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
    ) -> HideOutcome:
        with self._lock:
            if deletion_id in self._deletions:
                return self._deletions[deletion_id].outcome
            present = [line for line in manifest if self._is_visible(line.trace_pk)]
            hit = [line for line in present if _selected(self._traces[line.trace_pk], scope, where, window)]
            outcome = HideOutcome(len(hit), len(present) - len(hit), len(manifest) - len(present))
            self._deletions[deletion_id] = _Deletion(outcome, request, sorted(hit))
            for line in hit:
                self._hidden[line.trace_pk] = deletion_id
                self._tombstones[tombstone_key(self._secret, line.project_id, line.trace_id)] = deletion_id
            return outcome

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        with self._lock:
            deletion = self._deletions.get(deletion_id)
            if deletion is None:
                return None
            purged: Counter[str] = Counter()
            for counts, _ in deletion.batches:
                purged.update(counts)
            return DeletionProgress(
                outcome=deletion.outcome,
                request=deletion.request,
                batches=len(deletion.batches),
                more=deletion_id in self._hidden.values(),
                purged=dict(purged),
                settled=deletion.settled,
                late_refused=deletion.late_refused,
            )

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        with self._lock:
            deletion = self._deletions.get(deletion_id)
            return [] if deletion is None or deletion.settled else list(deletion.manifest)

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        with self._lock:
            deletion = self._known(deletion_id)
            if batch_no < len(deletion.batches):
                return deletion.batches[batch_no]
            if batch_no != len(deletion.batches):
                raise ValueError(f"purge batch {batch_no} cannot follow {len(deletion.batches)} batches")
            counts: Counter[str] = Counter()
            for trace_pk in [pk for pk, by in self._hidden.items() if by == deletion_id]:
                rows = self._count([trace_pk])
                if counts and counts.total() + sum(rows.values()) > rows_max:
                    break
                counts.update(rows)
                trace = self._traces.pop(trace_pk)
                del self._pk_of[trace.project_id, trace.trace_id]
                del self._hidden[trace_pk]
            deletion.batches.append((dict(counts), deletion_id in self._hidden.values()))
            return deletion.batches[-1]

    def settle(self, deletion_id: str) -> None:
        with self._lock:
            deletion = self._known(deletion_id)
            if deletion_id in self._hidden.values():
                raise ValueError("the purge of that deletion is not finished")
            deletion.request = None
            deletion.settled = True

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        with self._lock:
            manifest = self._known(deletion_id).manifest
            return {**self._count([line.trace_pk for line in manifest])}

    def _known(self, deletion_id: str) -> _Deletion:
        if deletion_id not in self._deletions:
            raise ValueError("no such deletion in the store")
        return self._deletions[deletion_id]

    def _count(self, trace_pks: Sequence[int]) -> dict[str, int]:
        counts = Counter(dict.fromkeys(_NO_TRACE, 0))
        for trace_pk in trace_pks:
            if trace_pk in self._traces:
                counts.update(self._traces[trace_pk].target_counts())
        return dict(counts)


_NO_TRACE = ("trace", "span", "log", "context", "metadata", "block", "text_signature")


def _selected(trace: _Trace, scope: Scope, where: Expr | None, window: Window) -> bool:
    """Whether scope, window and filter all let a trace through."""
    summary = trace.summary
    return (
        trace.project_id in scope.project_ids
        and (scope.environment is None or summary.environment == scope.environment)
        and (window.start_ns is None or summary.start_ns >= window.start_ns)
        and (window.end_ns is None or summary.start_ns < window.end_ns)
        and (where is None or matches(where, trace.facts(where)))
    )


def _merged(old: _Trace, batch: TraceBatch) -> tuple[_Trace, int]:
    """The trace with a batch laid over it by the merge law, and how many spans and logs that changed."""
    spans, logs = dict(old.spans), dict(old.logs)
    block_no = max(old.blocks, default=-1) + 1
    stored = 0
    for span in batch.spans:
        known = spans.get(span.span_id)
        if known is None or wins(span, known[0]):
            spans[span.span_id] = (span, block_no)
            stored += 1
    for log in batch.logs:
        if log.log_hash not in logs:
            logs[log.log_hash] = (log, block_no)
            stored += 1
    block = _Block(records_by_id(parse_block(batch.block)))
    rows: list[tuple[Span | LogRecord, int]] = [*spans.values(), *logs.values()]
    contexts = {**batch.contexts, **old.contexts}
    blocks = {**old.blocks, block_no: block}
    new = _Trace(
        old.trace_pk,
        old.project_id,
        old.trace_id,
        old.received_ns,
        spans,
        logs,
        {key: contexts[key] for key in {row.context_key for row, _ in rows}},
        {number: blocks[number] for number in {number for _, number in rows}},
    )
    return new, stored


def _root_record(trace: _Trace) -> tuple[bytes | None, list[bytes]]:
    root_id = trace.summary.root_span_id
    root = None
    if root_id is not None:
        root = trace.blocks[trace.spans[root_id][1]].records[root_id]
    logs = [(log.time_ns, log.log_hash, number) for log, number in trace.logs.values() if log.span_id == root_id]
    return root, [trace.blocks[number].records[log_hash] for _, log_hash, number in sorted(logs)]
