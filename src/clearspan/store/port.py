"""The store contract: what every TraceStore does, in words that MUST and MAY hold.

Two implementations pass one conformance suite (tests/conformance): `store.sqlite` and `store.memory`.

Identity. A trace is (project_id, trace_id), a span (trace, span_id), a log record (trace, log_hash). The same id in
two projects is two traces. A trace_pk is never handed out twice, not even after its trace was purged.

Merge law. Writing is commutative and idempotent: any order of any batches, each any number of times, MUST leave the
same spans, logs and summaries. Of two different contents of one span, the one with the larger
(end_ns, content_hash) stays; of two that are both LangSmith run documents their fusion stays, and a run document
stays against any other content (ingest/langsmith.py). Of two attachments of one span and name, the one with the larger
(SHA-256, mime_type) stays.

Attachments. One belongs to the trace of its run. If the run has not come it waits, unseen, under the run's id in its
project, for WAITING_NS_MAX at most; the write that brings the run gives it to the trace, or refuses it with the run.

Visibility. A write is durable before it returns and visible to every read that starts after. A hidden trace MUST
NOT show in any read from the moment `hide` returns, and its late spans and logs MUST be refused inside the
writer's transaction.

Tenancy. Every read and every selection for deletion takes a `Scope`; nothing outside it can be seen, counted or
deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage, SortKey
from clearspan.store.annotation_deletion import AnnotationDeletionStore

WAITING_NS_MAX = 24 * 3_600_000_000_000
"""How long an attachment waits for its run. No longer, because no deletion can reach it: nobody knows its trace."""


class WriteOutcome(NamedTuple):
    """What became of one TraceBatch. Spans, logs and attachments are counted alike."""

    stored: int  # now in the store and were not, or replaced an older content; attachments that wait, too
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
    prompt_tokens: int | None
    completion_tokens: int | None
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


METADATA_TRACES_MAX = 200
"""Traces of which one call of `purge_metadata` rewrites the records, in one transaction."""


class DeletionKind(StrEnum):
    """What a deletion lists, hides and counts."""

    TRACES = "traces"
    ANNOTATIONS = "annotations"
    SPANS = "spans"


class PlannedTrace(NamedTuple):
    """One line of a manifest."""

    trace_pk: int
    project_id: int
    trace_id: str


class HideOutcome(NamedTuple):
    """What the hide transaction did with a manifest; the four add up to its length."""

    hidden: int
    no_longer_matching: int  # planned, but the filter evaluated inside the transaction no longer holds
    already_absent: int  # planned, but hidden or gone by another deletion meanwhile
    held: int = 0  # planned, but kept by a hold: left to the child deletion


class DeletionProgress(NamedTuple):
    """How far the store has come with a deletion; everything here was committed with the rows it speaks of."""

    outcome: HideOutcome  # as of now: a purge batch that meets a hold moves traces from `hidden` to `held`
    request: bytes | None  # the plain request; None once settled or cancelled
    batches: int  # purge batches done: the next one carries this number
    more: bool  # whether the manifest still has rows to remove
    purged: dict[str, int]  # rows removed per target, summed over the batches
    settled: bool
    late_refused: int  # spans and logs that its tombstones refused so far
    cancelled: bool = False
    child_id: str | None = None  # the deletion that took over what a hold keeps; always `child_id_of` this one
    held_traces: int = 0  # traces handed to that child so far; equals outcome.held
    manifest_salt: bytes | None = None  # keys the leaves of the manifest
    is_waiting: bool = False  # a child that has not been hidden yet; its outcome is all zeros till then
    kind: DeletionKind = DeletionKind.TRACES


class HoldRow(NamedTuple):
    """A hold: traces that match it, now or later, are not deleted until it is released.

    It selects within `scope` and `window` by a filter, or by ids, or (neither) everything. Once released the plain
    request is erased: `where`, `trace_ids` and `reason` are None, the window and the environment are gone.
    """

    hold_id: str
    org_id: int
    scope: Scope
    where: Expr | None
    trace_ids: tuple[str, ...] | None
    window: Window
    reason: str | None
    created_ns: int
    created_by: str
    released_ns: int | None = None


class HoldOutcome(NamedTuple):
    """What a new hold covers in the first snapshot after it was set."""

    protected: int  # visible traces that no deletion can take now; -1: too many to count in the time of one read
    hidden_kept: int  # traces hidden by a deletion that it will not purge now; they stay hidden


class Breakdown(NamedTuple):
    """Where the traces of a plan lie."""

    by_day: dict[str, int]  # ISO day (UTC) of the start → traces
    by_project: dict[int, int]  # project_id → traces


def child_id_of(deletion_id: str) -> str:
    """The id of the deletion that takes over what a hold keeps of this one."""
    return "del_" + hashlib.sha256(b"held\0" + deletion_id.encode()).hexdigest()[:32]


SUMMARIES_MAX = 20
"""Most samples that one call returns."""
SETTLE_ROWS_MAX = 2_000
"""Manifest rows that one transaction of `settle` erases at most."""


class DeletionStore(AnnotationDeletionStore, Protocol):
    """Deletion side. `clearspan.deletion` decides; the store only does, each step atomically."""

    # -- planning: reads only, chunk by chunk, no writer involved

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        """At most `limit` + 1 matching, not hidden traces first received before the horizon, sorted by trace_pk."""
        ...

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        """The not hidden traces of those ids within scope and window: every permitted copy."""
        ...

    def plan_spans(self, scope: Scope, names: Sequence[str]) -> list[PlannedTrace]:
        """The spans of those names (store/span_deletion.py), or of those bare span ids, in not hidden traces within the
        scope: every permitted copy, each with the trace_pk of its trace, sorted."""
        ...

    def count_spans(self, scope: Scope) -> int:
        """How many spans reads show in that scope. Cost O(traces of its projects)."""
        ...

    def naming(self, scope: Scope, trace_pks: Sequence[int], keys: Sequence[str], *, limit: int) -> list[PlannedTrace]:
        """The not hidden traces within scope, other than those given, that name a run (model.runs) of one of those
        traces in their metadata, under one of those keys: 32 hex digits or the UUID with dashes, small or capital.

        At most `limit` + 1, sorted by trace_pk. Cost: next to nothing where no project uses the keys.
        """
        ...

    def naming_runs(
        self, scope: Scope, run_ids: Sequence[str], keys: Sequence[str], *, limit: int
    ) -> list[PlannedTrace]:
        """As `naming`, for runs that are given by their ids (model.runs), whatever trace they are of."""
        ...

    def purge_metadata(self, traces: Sequence[PlannedTrace], key: str) -> int:
        """Take a key of the metadata of LangSmith runs out of visible traces, wherever it lies: records, contexts and
        indexes are as if no run had ever said it. Durable; a repeat finds nothing.

        Args:
            traces: at most METADATA_TRACES_MAX. Those that a hold keeps stay as they are.
        Returns:
            How many were changed.
        """
        ...

    def count_visible(self, scope: Scope) -> int:
        """How many traces reads show in that scope, exactly."""
        ...

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        """Rows per registered target that belong to those traces, for a plan; `remaining` is what proves."""
        ...

    def count_held(self, trace_pks: Sequence[int]) -> dict[str, int]:
        """hold_id → how many of those traces it keeps; holds that keep none are left out. One trace may count for
        several holds: `held_among` counts it once."""
        ...

    def held_among(self, trace_pks: Sequence[int]) -> int:
        """How many of those traces some hold keeps."""
        ...

    def summaries(self, trace_pks: Sequence[int]) -> list[TraceRow]:
        """The visible ones of the first SUMMARIES_MAX of those traces, as lists show them, in the order given."""
        ...

    def breakdown(self, trace_pks: Sequence[int]) -> Breakdown:
        """Counts by day and by project of those of the traces that are visible."""
        ...

    # -- deleting

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
        *,
        manifest_salt: bytes = b"",
        exact: bool = False,
        preview_key: bytes | None = None,
    ) -> HideOutcome:
        """Store the plain request and manifest, re-check filter and holds, tombstone and hide: all or nothing.

        Until it returns, no read and no ingest minds it; a large manifest may be staged in many short transactions
        before one makes it count. The store computes the tombstones itself (store/tombstone.py) with the secret it
        was opened with. Lines of spans (store/span_deletion.py; all lines or none, SPANS_MAX at most, without `where`
        and window) are cut out of their traces by the same transaction. What a hold keeps becomes the manifest of a
        waiting child deletion (`child_id_of`), which gets a copy of the request. Repeating it with the same
        deletion_id changes nothing and returns the outcome as it stands.

        Args:
            manifest_salt: stays with the deletion and keys the leaves of its manifest (proof.manifest).
            exact: refuse if any trace is absent or no longer matches; held ones are allowed.
            preview_key: a preview that must be stored and is removed by this very transaction.
        Raises:
            Conflict: `plan_mismatch` (exact), or `plan_used_or_unknown` (the preview is not there). Nothing changed.
        """
        ...

    def hide_child(self, deletion_id: str, scope: Scope, where: Expr | None, window: Window) -> HideOutcome | None:
        """Let a waiting child go, as far as holds allow: what is free is hidden (the filter evaluated again; what is
        hidden already just goes on), what is still held moves on to a waiting child of its own.

        Returns:
            None: every trace that is left is still held, or the parent's purge is not finished: try again later.
            A repeat returns the outcome as it stands.
        Raises:
            ValueError: no such deletion.
            Conflict: it was cancelled (code `cancelled`).
        """
        ...

    def cancel(self, deletion_id: str) -> int:
        """Undo a hide, in one transaction: traces and counts are as before, late data is accepted again, request and
        manifest are erased. A waiting child of the deletion is cancelled with it.

        Returns:
            How many traces are visible again; 0 for a repeat.
        Raises:
            Conflict: a purge batch was done (code `purge_begun`), or the trace of a span was deleted meanwhile
                (`trace_deleted`).
            ValueError: no such deletion.
        """
        ...

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        """What is committed of that deletion; None if its hide transaction never was. A restart begins here."""
        ...

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        """The traces that hide hid (of a waiting child: those it waits for), sorted by trace_pk; without what moved
        to a child. Empty if unknown, settled or cancelled."""
        ...

    def leaves(self, deletion_id: str) -> list[bytes]:
        """The leaf hashes of the manifest, sorted: stored by `settle`, computed before it."""
        ...

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        """Remove the next share of a hidden manifest: (rows removed per target, whether more is left).

        One transaction of at most about `rows_max` rows, and of bounded time, that stores its own counts; repeating
        a batch number returns its first answer. Numbers run 0, 1, 2 …; a gap raises ValueError. A trace's own row,
        and with it its row in `hidden`, goes last. Traces that a hold keeps by now move to the waiting child instead
        (still hidden); a trace of which a part is gone already is not held any more. A batch may remove nothing.

        Raises:
            Conflict: the deletion was cancelled (code `cancelled`).
        """
        ...

    def purge_survivors(self, deletion_id: str, above: int, *, rows_max: int) -> tuple[dict[str, int], int | None]:
        """Remove, in one transaction, the next rows that outlived the purge, found by the manifest's trace_pks.

        It looks into every target, whatever the purge believes to have removed, before `settle` and after it. The
        counts are added to `DeletionProgress.purged`; a repeat finds nothing more to count. What a hold covers by now
        is left, so that the recount finds it. After `settle` it must
        be called again, so that the write-ahead log is emptied.

        Args:
            above: the last trace that is done with; -1 begins.
            rows_max: about how many rows to remove at most; the time is bounded as well.
        Returns:
            (rows removed per target, the last trace that is done with now; None: all are).
        Raises:
            ValueError: no such deletion, or its purge is not finished.
        """
        ...

    def settle(self, deletion_id: str, *, rows_max: int = SETTLE_ROWS_MAX) -> None:
        """Erase the request and the trace ids of a purged deletion, then empty the write-ahead log.

        In transactions of at most `rows_max` manifest rows; each row keeps its leaf hash. Only trace_pks, leaves,
        counts, the manifest's salt and tombstones stay. Safe to repeat. Raises ValueError while a purge is
        unfinished.
        """
        ...

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        """Recount what is left of the manifest in base tables, target by target, with SQL of its own.

        Not the purge's bookkeeping: rows are looked for by trace_pk, before and after `settle` alike. None: that
        target could not be counted.
        """
        ...

    # -- holds

    def add_hold(self, hold: HoldRow) -> HoldOutcome:
        """Set a hold. It counts from this call's transaction on, for every hide and every purge batch after it.

        Repeating it under the same hold_id changes nothing.
        """
        ...

    def release_hold(self, hold_id: str, released_ns: int) -> bool:
        """End a hold and erase its plain request; False if there is no such hold or it was released before."""
        ...

    def holds(self, org_id: int | None, released: bool = False) -> list[HoldRow]:
        """The holds of an organisation (None: of all), oldest first; released ones only if asked for."""
        ...

    def get_hold(self, hold_id: str) -> HoldRow | None:
        """One hold, released or not."""
        ...

    # -- previews

    def save_preview(self, key: bytes, body: bytes, expires_ns: int) -> None:
        """Keep the plain body of a preview under a key (the hash of its token). The key must be new."""
        ...

    def get_preview(self, key: bytes) -> bytes | None:
        """A stored preview's body. Whether it has expired is the caller's to say."""
        ...

    def preview_keys(self) -> list[bytes]:
        """The key of every stored preview."""
        ...

    def void_preview(self, key: bytes) -> bool:
        """Erase the body of a preview: it reads as empty from then on, until it expires. False if there is none."""
        ...

    def sweep_previews(self, now_ns: int) -> int:
        """Erase previews that expired at or before `now_ns`; how many there were."""
        ...

    # -- tombstones

    def tombstones(self, deletion_id: str, after: bytes, limit: int) -> list[bytes]:
        """The next tombstone keys of a deletion above `after`, in order; b"" begins."""
        ...

    def find_tombstone(self, project_id: int, trace_id: str) -> str | None:
        """The deletion whose tombstone refuses that trace."""
        ...

    def lift_tombstone(self, project_id: int, trace_id: str) -> str | None:
        """Accept data of that trace again; the deletion it belonged to, None if there was no tombstone.

        Counts of what was refused stay. Raises Conflict (code `still_erasing`) while the trace is not purged.
        """
        ...

    # -- private notes: plain words of people (reasons), erasable on their own

    def put_note(self, ref: str, salt: bytes, body: bytes) -> None:
        """Store a note under a reference; one that is there already stays as it is."""
        ...

    def get_note(self, ref: str) -> tuple[bytes, bytes] | None:
        """(salt, body) of a note; None if there is none, or it was erased."""
        ...

    def erase_note(self, ref: str) -> bool:
        """Erase a note; False if there was none."""
        ...

    # -- room

    def make_room(self) -> bool:
        """Give up the space kept in reserve for deletions on a full disk; False if there is none (left)."""
        ...


class TraceWriter(Protocol):
    """Write side; one writer at a time."""

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        """Store all batches in one durable transaction; outcomes in the order of the batches."""
        ...
