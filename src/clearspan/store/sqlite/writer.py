"""The write side of traces.db: one transaction a group of batches, summaries and indexes included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw

from clearspan.ingest.merge import wins
from clearspan.ingest.payload import BlockRecord, compress_block, decode_block, unpack_block
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.rollup import summarise
from clearspan.ingest.run_fusion import Fusion, fuse_batch, may_fuse
from clearspan.model.errors import Overloaded
from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch
from clearspan.store.port import DeletionKind, WriteOutcome
from clearspan.store.span_deletion import parts_by_span, render_name, size_of, without_spans
from clearspan.store.sqlite import annotating, attachments, moves, text_index
from clearspan.store.sqlite.deletion_rows import REFUSING
from clearspan.store.sqlite.rows import (
    BLOCK_NO_MAX,
    HOUR_NS,
    LOG_COLUMNS,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    TRACE_WIDTH,
    block_range,
    context_body,
    context_of,
    span_of,
    trace_values,
)
from clearspan.store.tombstone import tombstone_key

_PKS_RESERVED_AT_ONCE = 4096
_COLUMNS = TRACE_COLUMNS.split(", ")
_START, _RECEIVED, _ENVIRONMENT, _SESSION = (
    _COLUMNS.index(name) for name in ("start_ns", "received_ns", "environment", "session_id")
)


def _marks(n: int) -> str:
    return ", ".join("?" * n)


_INSERT_TRACE = f"INSERT OR REPLACE INTO trace ({TRACE_COLUMNS}) VALUES ({_marks(TRACE_WIDTH)})"
_INSERT_SPAN = (
    f"INSERT OR REPLACE INTO span (trace_pk, {SPAN_COLUMNS}, block_no) VALUES ({_marks(len(Span._fields) + 2)})"
)
_INSERT_LOG = f"INSERT INTO log (trace_pk, {LOG_COLUMNS}, block_no) VALUES ({_marks(len(LogRecord._fields) + 2)})"
_INSERT_METADATA = "INSERT INTO metadata (project_id, key, value, start_ns, trace_pk) VALUES (?, ?, ?, ?, ?)"
_DELETE_METADATA = (
    "DELETE FROM metadata WHERE project_id = ? AND key = ? AND value = ? AND start_ns = ? AND trace_pk = ?"
)
_ADD_COUNT = (
    "INSERT INTO trace_count (project_id, hour, environment, traces) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET traces = traces + excluded.traces"
)
_DROP_EMPTY_COUNT = "DELETE FROM trace_count WHERE project_id = ? AND hour = ? AND environment = ? AND traces = 0"


_NOTHING = WriteOutcome(0, 0, 0, None)


@dataclass(slots=True)
class StoredTrace:
    """One trace while a transaction works on it: what the store had, and what the batches add."""

    trace_pk: int
    project_id: int
    trace_id: str
    received_ns: int
    old_row: tuple[Any, ...] | None = None  # the values of TRACE_COLUMNS; None for a new trace
    old_pairs: frozenset[tuple[str, str]] = frozenset()
    spans: dict[str, tuple[Span, int]] = field(default_factory=dict)  # span_id → (content, block_no)
    logs: dict[int, tuple[LogRecord, int]] = field(default_factory=dict)
    contexts: dict[int, SpanContext] = field(default_factory=dict)
    stored_contexts: set[int] = field(default_factory=set)
    stored_blocks: set[int] = field(default_factory=set)
    next_block_no: int = 0
    dirty_spans: set[str] = field(default_factory=set)
    dirty_logs: set[int] = field(default_factory=set)
    blocks: dict[int, bytes] = field(default_factory=dict)  # new ones by block_no

    @property
    def session_id(self) -> str | None:
        """Of its row in the store."""
        return None if self.old_row is None else self.old_row[_SESSION]

    @property
    def is_dirty(self) -> bool:
        return bool(self.dirty_spans or self.dirty_logs)


class Writer:
    """The one writer of traces.db. Not thread-safe: its owner calls it from one thread (store/sqlite/process.py)."""

    def __init__(
        self, conn: apsw.Connection, tombstone_secret: bytes, prices: Callable[[], PriceBook | None] = lambda: None
    ) -> None:
        """
        Args:
            conn: a migrated database, opened with files.vfs.open_writer; the writer owns its transactions.
            prices: what runs cost whose parts come in several writes; asked for when there is the first such run.
        """
        self.conn = conn
        self._secret = tombstone_secret
        self._prices = prices
        self._next_pk = self._reserved_pk = self._read_int("SELECT value FROM store_fact WHERE name = 'next_trace_pk'")
        self.touched: set[int] | None = None
        """Collects the traces that writes change, while somebody wants to know (store/sqlite/stage.py)."""
        self.tombstones_exist = bool(self._read_int("SELECT EXISTS (SELECT 1 FROM tombstone)"))
        self.span_tombstones_exist = bool(
            self._read_int(f"SELECT EXISTS (SELECT 1 FROM deletion WHERE kind = '{DeletionKind.SPANS}' AND {REFUSING})")
        )
        self.moves_exist = moves.any_moved(conn)
        self.annotations_wait = annotating.any_waiting(conn)
        """Whether annotations may wait for what is written."""
        self.attachments_wait = attachments.any_waiting(conn)

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        """Store all batches in one durable transaction; see store/port.py for what must hold.

        Cost: about 60 µs a span for new traces, signature included; a batch for a known one reads its rows again.
        A run that comes in parts costs 220 µs for each part after the first.
        """
        by_trace: dict[tuple[int, str], list[int]] = {}
        homeless: list[int] = []
        for at, batch in enumerate(batches):
            if not batch.trace_id:
                homeless.append(at)
                continue
            by_trace.setdefault((self._home_of(batch), batch.trace_id), []).append(at)
        outcomes: list[WriteOutcome | None] = [None] * len(batches)
        admitted = list(batches)
        work: list[StoredTrace] = []
        with_files: list[tuple[StoredTrace, int]] = []
        tombstones_existed = self.tombstones_exist
        try:
            with self.pks_kept(), self.conn:
                if self.attachments_wait:
                    attachments.sweep(self.conn, received_ns)
                for at in homeless:
                    outcomes[at] = self._write_homeless(batches[at], received_ns)
                for (project_id, trace_id), positions in by_trace.items():
                    if refused_by := self._refuse(project_id, trace_id, [batches[at] for at in positions]):
                        for at in positions:
                            outcomes[at] = WriteOutcome(0, 0, size_of(batches[at]), refused_by)
                        continue
                    trace = self._load(project_id, trace_id, received_ns)
                    for at in positions:
                        admitted[at], refused, refused_by = self._refuse_spans(trace, batches[at])
                        outcome = _merge_batch(trace, *self._fuse(trace, admitted[at]))
                        outcomes[at] = outcome._replace(refused=refused, deletion_id=refused_by)
                    if trace.is_dirty:
                        work.append(trace)
                    with_files += [(trace, at) for at in positions if admitted[at].attachments]
                self.store(work)
                if with_files or self.attachments_wait:
                    self._store_attachments(work, with_files, admitted, outcomes, received_ns)
                self.settle_annotations(work, received_ns)
        except BaseException:
            self.tombstones_exist = tombstones_existed
            self.attachments_wait = True  # what was claimed waits again; the next write looks
            raise
        if self.touched is not None:
            self.touched.update(trace.trace_pk for trace in work)
        return [outcome for outcome in outcomes if outcome is not None]

    @property
    def prices(self) -> PriceBook | None:
        """What runs cost whose records change in the store."""
        return self._prices()

    def _read_int(self, sql: str) -> int:
        return int(self.conn.execute(sql).get or 0)

    def _home_of(self, batch: TraceBatch) -> int:
        """The project that a batch belongs to: its trace may have moved."""
        if not self.moves_exist:
            return batch.project_id
        return moves.home_of(self.conn, self._secret, batch.project_id, batch.trace_id)

    def _homes(self, project_id: int, trace_id: str) -> list[int]:
        """The project that a trace is in, and those that it was in before."""
        if not self.moves_exist:
            return [project_id]
        return moves.homes_of(self.conn, self._secret, project_id, trace_id)

    def _refuse(self, project_id: int, trace_id: str, batches: Iterable[TraceBatch]) -> str | None:
        """The deletion whose tombstone refuses this trace, counting what it refused; None: not tombstoned."""
        found = self._tombstone(project_id, trace_id)
        if found is None:
            return None
        if self.attachments_wait:
            ids = [span.span_id for batch in batches for span in batch.spans]
            for home in self._homes(project_id, trace_id):
                attachments.drop_waiting(self.conn, home, ids)
        self._count_refused(found[0], sum(map(size_of, batches)))
        return found[1]

    def _refuse_spans(self, trace: StoredTrace, batch: TraceBatch) -> tuple[TraceBatch, int, str | None]:
        """What a batch brings but for spans that were deleted by themselves, how much that took away, and by whom.

        Cost: nothing while no such deletion exists; then 4 µs for each span that the trace does not have.
        """
        if not self.span_tombstones_exist:
            return batch, 0, None
        parts = parts_by_span(batch)
        homes = self._homes(trace.project_id, trace.trace_id)
        found = {
            span_id: by
            for span_id in parts.keys() - trace.spans.keys()
            for project_id in homes
            if (by := self._tombstone(project_id, render_name(trace.trace_id, span_id))) is not None
        }
        if not found:
            return batch, 0, None
        for span_id, (deletion_no, _) in found.items():
            self._count_refused(deletion_no, parts[span_id])
        if self.attachments_wait:
            for project_id in homes:
                attachments.drop_waiting(self.conn, project_id, found)
        left = without_spans(batch, found)
        return left, size_of(batch) - size_of(left), next(iter(found.values()))[1]

    def _tombstone(self, project_id: int, name: str) -> tuple[int, str] | None:
        """The number and id of the deletion that refuses a trace or a span."""
        if not self.tombstones_exist:
            return None
        row: Any = self.conn.execute(
            "SELECT d.deletion_no, d.deletion_id FROM tombstone JOIN deletion d USING (deletion_no) "
            f"WHERE key = ? AND d.{REFUSING}",
            (tombstone_key(self._secret, project_id, name),),
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def _count_refused(self, deletion_no: int, refused: int) -> None:
        self.conn.execute(
            "UPDATE deletion SET late_refused = late_refused + ? WHERE deletion_no = ?", (refused, deletion_no)
        )

    def _write_homeless(self, batch: TraceBatch, received_ns: int) -> WriteOutcome:
        """Attachments of runs whose trace the sender did not name: to the trace that has the run, or they wait."""
        stored = refused = 0
        refused_by: str | None = None
        for each in batch.attachments:
            home = self._home_of_run(batch.project_id, each.span_id)
            if home is None:  # a root is named as its trace
                of_root = batch._replace(trace_id=each.span_id)
                project_id, trace_id = self._home_of(of_root), each.span_id
            else:
                project_id, trace_id = home.project_id, home.trace_id
            if by := self._refuse(project_id, trace_id, [batch._replace(attachments=(each,))]):
                refused, refused_by = refused + 1, by
            elif home is None:
                stored += attachments.wait(self.conn, batch.project_id, [each], received_ns)
                self.attachments_wait = True
            else:
                stored += attachments.put(self.conn, home.trace_pk, [each])
        return WriteOutcome(stored, len(batch.attachments) - stored - refused, refused, refused_by)

    def _home_of_run(self, project_id: int, span_id: str) -> attachments.RunPlace | None:
        """The trace that has a run and is in that project, or was when it was sent there; of several the newest."""
        places = attachments.places_of(self.conn, span_id)
        there = (each for each in places if each.project_id == project_id)
        if self.moves_exist:
            moved = (each for each in places if project_id in self._homes(each.project_id, each.trace_id))
            return next(there, None) or next(moved, None)
        return next(there, None)

    def _store_attachments(
        self,
        work: Sequence[StoredTrace],
        with_files: Sequence[tuple[StoredTrace, int]],
        batches: Sequence[TraceBatch],
        outcomes: list[WriteOutcome | None],
        received_ns: int,
    ) -> None:
        """What came with the batches, each in its outcome, and what waited for their runs."""
        for trace, at in with_files:
            given, outcome = batches[at].attachments, outcomes[at] or _NOTHING
            if trace.is_dirty or trace.old_row is not None:
                stored = attachments.put(self.conn, trace.trace_pk, given)
            else:
                stored = attachments.wait(self.conn, trace.project_id, given, received_ns)
                self.attachments_wait = True
            repeated = outcome.repeated + len(given) - stored
            outcomes[at] = outcome._replace(stored=outcome.stored + stored, repeated=repeated)
        if self.attachments_wait:
            for trace in work:
                for home in self._homes(trace.project_id, trace.trace_id):
                    attachments.claim(self.conn, home, trace.trace_pk, trace.dirty_spans)
            self.attachments_wait = attachments.any_waiting(self.conn)

    @contextmanager
    def pks_kept(self) -> Iterator[None]:
        """Around a transaction: what it took is free again if it fails."""
        state = self._next_pk, self._reserved_pk
        try:
            yield
        except BaseException:
            self._next_pk, self._reserved_pk = state
            raise

    def new_pk(self) -> int:
        """A trace_pk that was never used; inside `pks_kept`."""
        if self._next_pk >= self._reserved_pk:
            self._reserved_pk = self._next_pk + _PKS_RESERVED_AT_ONCE
            self.conn.execute("UPDATE store_fact SET value = ? WHERE name = 'next_trace_pk'", (self._reserved_pk,))
        self._next_pk += 1
        return self._next_pk - 1

    def _load(self, project_id: int, trace_id: str, received_ns: int) -> StoredTrace:
        row = self.conn.execute(
            f"SELECT {TRACE_COLUMNS} FROM trace WHERE project_id = ? AND trace_id = ?", (project_id, trace_id)
        ).fetchone()
        if row is None:
            return StoredTrace(self.new_pk(), project_id, trace_id, received_ns)
        return load_narrow(self.conn, row)

    def _fuse(self, trace: StoredTrace, batch: TraceBatch) -> Fusion:
        """The batch with what is known of its runs. Nearly every batch is new to its trace and has no such span."""
        rivals: dict[int, list[str]] = {}
        if trace.spans:
            for span in batch.spans:
                known = trace.spans.get(span.span_id)
                if known is not None and may_fuse(span, known[0]):
                    rivals.setdefault(known[1], []).append(span.span_id)
        if not rivals:
            return Fusion(batch, {})
        records: dict[str, BlockRecord] = {}
        first = block_range(trace.trace_pk)[0]
        for block_no, span_ids in rivals.items():
            data = trace.blocks.get(block_no)
            if data is None:
                data = self.conn.execute("SELECT data FROM block WHERE block_id = ?", (first + block_no,)).get
            by_id = {record.id: record for record in decode_block(data).records}
            records.update((span_id, by_id[span_id]) for span_id in span_ids)
        return fuse_batch(batch, records, self._prices())

    def store(self, work: Sequence[StoredTrace]) -> None:
        """Write what became of some traces, in the caller's transaction: rows, summaries, indexes, hour counters."""
        conn = self.conn
        span_rows, log_rows, context_rows, block_rows, text_rows = [], [], [], [], []
        trace_rows, pairs_gone, pairs_new = [], [], []
        counts: Counter[tuple[int, int, str]] = Counter()
        for trace in work:
            pk = trace.trace_pk
            live = {span.context_key for span, _ in trace.spans.values()}
            live |= {log.context_key for log, _ in trace.logs.values()}
            summary = summarise(
                trace.trace_id,
                [span for span, _ in trace.spans.values()],
                [log for log, _ in trace.logs.values()],
                {key: trace.contexts[key] for key in live},
            )
            span_rows += [(pk, *trace.spans[i][0], trace.spans[i][1]) for i in trace.dirty_spans]
            log_rows += [(pk, *trace.logs[i][0], trace.logs[i][1]) for i in trace.dirty_logs]
            context_rows += [(pk, k, context_body(trace.contexts[k])) for k in live - trace.stored_contexts]
            for block_no, block in trace.blocks.items():
                block_rows.append((block_range(pk)[0] + block_no, compress_block(block)))
                text_rows.append((pk, block_no, text_index.signature([unpack_block(block)])))
            row = trace_values(pk, trace.project_id, trace.received_ns, summary)
            if row != trace.old_row:
                trace_rows.append(row)
            pairs = new_pairs = frozenset(summary.metadata_all)
            if trace.old_row is not None:
                self._drop_dead(trace, live)
                old_start_ns = trace.old_row[_START]
                gone = trace.old_pairs
                if old_start_ns == summary.start_ns:
                    gone, new_pairs = gone - pairs, pairs - gone
                pairs_gone += [(trace.project_id, k, v, old_start_ns, pk) for k, v in gone]
                counts[trace.project_id, old_start_ns // HOUR_NS, trace.old_row[_ENVIRONMENT] or ""] -= 1
            pairs_new += [(trace.project_id, k, v, summary.start_ns, pk) for k, v in new_pairs]
            counts[trace.project_id, summary.start_ns // HOUR_NS, summary.environment or ""] += 1
        conn.executemany(_DELETE_METADATA, pairs_gone)
        conn.executemany(_INSERT_TRACE, trace_rows)
        conn.executemany(_INSERT_SPAN, span_rows)
        conn.executemany(_INSERT_LOG, log_rows)
        conn.executemany("INSERT INTO context (trace_pk, context_key, body) VALUES (?, ?, ?)", context_rows)
        conn.executemany("INSERT INTO block (block_id, data) VALUES (?, ?)", block_rows)
        conn.executemany(_INSERT_METADATA, pairs_new)
        conn.executemany(_ADD_COUNT, [(*key, n) for key, n in counts.items() if n])
        # An environment that no trace has any more is text of a client's: no deletion would ever look for it here.
        conn.executemany(_DROP_EMPTY_COUNT, [key for key, n in counts.items() if n < 0])
        text_index.add(conn, text_rows)

    def settle_annotations(self, work: Sequence[StoredTrace], now_ns: int) -> None:
        """After `store`: what waited for these traces is theirs now; what was said of a session that one of them has
        left waits."""
        left = [(trace.project_id, trace.session_id) for trace in work if trace.session_id is not None]
        for project_id, session_id in left:
            self.annotations_wait |= annotating.leave_session(self.conn, project_id, session_id, now_ns)
        if self.annotations_wait:
            annotating.attach(self.conn, [(trace.trace_pk, trace.dirty_spans) for trace in work], self._homes)

    def _drop_dead(self, trace: StoredTrace, live_contexts: set[int]) -> None:
        """Remove what no span or log of the trace refers to any more: superseded contents leave no copies."""
        live_blocks = {no for _, no in trace.spans.values()} | {no for _, no in trace.logs.values()}
        dead_blocks = trace.stored_blocks - live_blocks
        if dead_blocks:
            first = block_range(trace.trace_pk)[0]
            self.conn.executemany("DELETE FROM block WHERE block_id = ?", [(first + no,) for no in dead_blocks])
            self.conn.executemany(
                "DELETE FROM text_doc WHERE trace_pk = ? AND block_no = ?", [(trace.trace_pk, no) for no in dead_blocks]
            )
        dead_contexts = trace.stored_contexts - live_contexts
        if dead_contexts:
            self.conn.executemany(
                "DELETE FROM context WHERE trace_pk = ? AND context_key = ?",
                [(trace.trace_pk, key) for key in dead_contexts],
            )


def load_narrow(conn: apsw.Connection, row: tuple[Any, ...]) -> StoredTrace:
    """Everything narrow that the store has of a trace, from its row (TRACE_COLUMNS)."""
    trace_pk = row[0]
    trace = StoredTrace(trace_pk, row[1], row[2], row[_RECEIVED], old_row=row)
    for *values, block_no in conn.execute(f"SELECT {SPAN_COLUMNS}, block_no FROM span WHERE trace_pk = ?", (trace_pk,)):
        span = span_of(values)
        trace.spans[span.span_id] = (span, block_no)
    for *values, block_no in conn.execute(f"SELECT {LOG_COLUMNS}, block_no FROM log WHERE trace_pk = ?", (trace_pk,)):
        log = LogRecord._make(values)
        trace.logs[log.log_hash] = (log, block_no)
    for key, body in conn.execute("SELECT context_key, body FROM context WHERE trace_pk = ?", (trace_pk,)):
        trace.contexts[key] = context_of(body)
    trace.stored_contexts = set(trace.contexts)
    trace.old_pairs = frozenset(pair for context in trace.contexts.values() for pair in context.metadata)
    first, last = block_range(trace_pk)
    trace.stored_blocks = {
        block_id - first
        for (block_id,) in conn.execute("SELECT block_id FROM block WHERE block_id BETWEEN ? AND ?", (first, last))
    }
    trace.next_block_no = max(trace.stored_blocks, default=-1) + 1
    return trace


def _merge_batch(trace: StoredTrace, batch: TraceBatch, stays: Mapping[str, bool]) -> WriteOutcome:
    """Lay a batch over the trace by the merge law; its block is kept only if something of it was.

    Args:
        stays: what `_fuse` has decided already.
    """
    block_no = trace.next_block_no
    if block_no > BLOCK_NO_MAX:
        raise Overloaded("a trace may not arrive in more than a million pieces", retry_after_s=3600)
    superseded = False
    stored = repeated = 0
    for span in batch.spans:
        old = trace.spans.get(span.span_id)
        if old is not None and not stays.get(span.span_id, wins(span, old[0])):
            repeated += 1
            continue
        superseded = superseded or old is not None
        trace.spans[span.span_id] = (span, block_no)
        trace.dirty_spans.add(span.span_id)
        stored += 1
    for log in batch.logs:
        if log.log_hash in trace.logs:
            repeated += 1
            continue
        trace.logs[log.log_hash] = (log, block_no)
        trace.dirty_logs.add(log.log_hash)
        stored += 1
    if stored:
        trace.contexts.update(batch.contexts)
        trace.blocks[block_no] = batch.block
        trace.next_block_no = block_no + 1
        if superseded:
            live = {no for _, no in trace.spans.values()} | {no for _, no in trace.logs.values()}
            for block_no in trace.blocks.keys() - live:
                del trace.blocks[block_no]
    return WriteOutcome(stored, repeated, 0, None)
