"""The store contract: what every TraceStore does, in words that MUST and MAY hold.

Two implementations pass one conformance suite (tests/conformance): `store.sqlite` and `store.memory`.

Identity. A trace is (project_id, trace_id), a span (trace, span_id), a log record (trace, log_hash). The same id in
two projects is two traces. A trace_pk is never handed out twice, not even after its trace was purged.

Merge law. Writing is commutative and idempotent: any order of any batches, each any number of times, MUST leave the
same spans, logs and summaries. Of two different contents of one span, the one with the larger
(end_ns, content_hash) stays.

Visibility. A write is durable before it returns and visible to every read that starts after. A hidden trace MUST
NOT show in any read from the moment `hide` returns, and its late spans and logs MUST be refused inside the
writer's transaction.

Tenancy. Every read and every selection for deletion takes a `Scope`; nothing outside it can be seen, counted or
deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey


class WriteOutcome(NamedTuple):
    """What became of one TraceBatch."""

    stored: int  # spans and logs that are now in the store and were not, or replaced an older content
    repeated: int  # already there with this or a winning content; nothing changed
    refused: int  # refused by a tombstone
    deletion_id: str | None  # whose tombstone refused them


class TraceRow(NamedTuple):
    """One trace as lists and details need it."""

    trace_pk: int  # the store's own handle: stable for the life of the trace, meaningless outside
    project_id: int
    received_ns: int
    summary: TraceSummary


class TracePage(NamedTuple):
    """One page of a list. `total` counts every match, exactly, in the same snapshot."""

    rows: list[TraceRow]
    total: int
    total_is_exact: bool = True  # False only for text search that stopped at its limit: then `total` is a floor


class TraceSums(NamedTuple):
    """Sums over traces. Unknown costs and tokens are left out; None: none was known."""

    traces: int
    error_count: int
    duration_ns: int
    total_tokens: int | None
    cost_pico: int | None


class SpanDetail(NamedTuple):
    """One span with its context and its wire record."""

    span: Span
    context: SpanContext
    record: bytes  # see ingest/payload.py


class LogDetail(NamedTuple):
    log: LogRecord
    context: SpanContext
    record: bytes


class TraceDetail(NamedTuple):
    """A whole trace; spans sorted by (start_ns, span_id), logs by (time_ns, log_hash)."""

    row: TraceRow
    spans: list[SpanDetail]
    logs: list[LogDetail]


class TraceReader(Protocol):
    """Read side; safe to call from many threads at once. Each call sees one snapshot."""

    def list_traces(
        self, scope: Scope, where: Expr | None, window: Window, sort: SortKey, page: OffsetPage
    ) -> TracePage:
        """Rows of one page, ties broken by trace_pk in the direction of the sort; a page past the end is empty."""
        ...

    def count_traces(self, scope: Scope, where: Expr | None, window: Window) -> int:
        """How many traces match, exactly."""
        ...

    def sum_traces(self, scope: Scope, where: Expr | None, window: Window) -> TraceSums:
        """Sums over every trace that matches, exactly. Cost O(matches)."""
        ...

    def get_trace(self, scope: Scope, trace_id: str) -> TraceDetail | None:
        """The newest received copy of that id within the scope, with all its spans and logs; None if unseen."""
        ...

    def root_records(self, rows: Sequence[TraceRow]) -> dict[int, tuple[bytes | None, list[bytes]]]:
        """trace_pk → (wire record of the root span or None, wire records of the root's logs), for list pages."""
        ...


class PlannedTrace(NamedTuple):
    """One line of a manifest."""

    trace_pk: int
    project_id: int
    trace_id: str


class HideOutcome(NamedTuple):
    """What the hide transaction did with a manifest."""

    hidden: int
    no_longer_matching: int  # planned, but the filter evaluated inside the transaction no longer holds
    already_absent: int  # planned, but hidden or gone by another deletion meanwhile


class DeletionProgress(NamedTuple):
    """How far the store has come with a deletion; everything here was committed with the rows it speaks of."""

    outcome: HideOutcome
    request: bytes | None  # the plain request; None once settled
    batches: int  # purge batches done: the next one carries this number
    more: bool  # whether the manifest still has rows to remove
    purged: dict[str, int]  # rows removed per target, summed over the batches
    settled: bool
    late_refused: int  # spans and logs that its tombstones refused so far


class DeletionStore(Protocol):
    """Deletion side. `clearspan.deletion` decides; the store only does, in single transactions."""

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        """At most `limit` + 1 matching, not hidden traces first received before the horizon, sorted by trace_pk."""
        ...

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        """The not hidden traces of those ids within scope and window: every permitted copy."""
        ...

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        """Rows per registered target that belong to those traces, read from base tables."""
        ...

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
    ) -> HideOutcome:
        """One transaction: store the plain request and manifest, re-check the filter, tombstone and hide.

        The store computes the tombstones itself (store/tombstone.py) with the secret it was opened with.
        Repeating it with the same deletion_id returns the first outcome and changes nothing.
        """
        ...

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        """What is committed of that deletion; None if its hide transaction never was. A restart begins here."""
        ...

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        """The traces that hide hid, sorted by trace_pk; empty if unknown or settled."""
        ...

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        """Remove the next share of a hidden manifest: (rows removed per target, whether more is left).

        One transaction of at most about `rows_max` rows that stores its own counts; repeating a batch number
        returns its first answer. Numbers run 0, 1, 2 …; a gap raises ValueError. A trace's own row, and with it
        its row in `hidden`, goes last.
        """
        ...

    def settle(self, deletion_id: str) -> None:
        """Erase the request and the trace ids of a purged deletion, then empty the write-ahead log.

        Only trace_pks, counts and tombstones stay. Safe to repeat. Raises ValueError while a purge is unfinished.
        """
        ...

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        """Recount what is left of the manifest in base tables, target by target, with SQL of its own.

        Not the purge's bookkeeping: rows are looked for by trace_pk, before and after `settle` alike. None: that
        target could not be counted.
        """
        ...


class TraceWriter(Protocol):
    """Write side; one writer at a time."""

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        """Store all batches in one durable transaction; outcomes in the order of the batches."""
        ...
