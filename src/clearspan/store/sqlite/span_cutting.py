"""Cutting spans out of their traces, and putting them back: see store/span_deletion.py.

Each function works in an open transaction of the writer's connection. What a trace is afterwards is written by the code
that writes every trace, so it is as if the span had never come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import apsw

from clearspan.ingest.payload import (
    Block,
    BlockRecord,
    decode_block,
    join_blocks,
    pack_block,
    pick_records,
    unpack_block,
)
from clearspan.model.errors import Conflict
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.port import PlannedTrace
from clearspan.store.span_deletion import SpanName, parse_name, render_name
from clearspan.store.sqlite import annotating, attachments, deletion_rows, text_index
from clearspan.store.sqlite.annotation_rows import ANNOTATION_COLUMNS, KEY_BYTES, annotation_of
from clearspan.store.sqlite.rows import TRACE_COLUMNS, block_range
from clearspan.store.sqlite.writer import StoredTrace, Writer, load_narrow
from clearspan.store.tombstone import tombstone_key

_Group = dict[tuple[int, str], list[tuple[PlannedTrace, SpanName]]]


def cut(writer: Writer, lines: Sequence[PlannedTrace], now_ns: int) -> list[PlannedTrace]:
    """Make a trace of its own, still visible, of each span among the lines; all of them must be there.

    Returns:
        The lines in their order, those of spans with the trace_pk of that new trace.
    Cost: of each trace one unpacking of its blocks, its rows read and its summary written as when a span comes: 20 µs a
        span in all; 4 ms for each sealed segment of the text index with one of the traces, and its text is read anew.
    """
    pk_of: dict[PlannedTrace, int] = {}
    work: list[StoredTrace] = []
    left: list[tuple[StoredTrace, dict[int, bytes]]] = []
    for (project_id, trace_id), members in _by_trace(lines).items():
        trace = load_narrow(writer.conn, _row(writer.conn, project_id, trace_id))
        *parted, last = members
        if len(members) < len(trace.spans):
            parted.append(last)
        else:
            pk_of[last[0]] = trace.trace_pk
        if parted:
            packed = read_blocks(writer.conn, trace)
            blocks = {block_no: decode_block(data) for block_no, data in packed.items()}
            for line, name in parted:
                part = _part(writer, trace, name, blocks)
                pk_of[line] = part.trace_pk
                work.append(part)
            changed = _without(trace, blocks, {name.span_id for _, name in parted})
            left.append((trace, packed))
            replace_blocks(writer.conn, trace, changed)
        if len(parted) < len(members):
            trace.trace_id = last[0].trace_id
            _take_along(writer.conn, trace.trace_pk)
        work.append(trace)
    index_anew(writer.conn, left)
    _write(writer, work, now_ns)
    return [line._replace(trace_pk=pk_of.get(line, line.trace_pk)) for line in lines]


def number(writer: Writer, lines: Iterable[PlannedTrace]) -> list[PlannedTrace]:
    """Give spans that are not cut out, for a hold keeps them, a trace_pk each: a manifest has one line for each."""
    return [line if parse_name(line.trace_id) is None else line._replace(trace_pk=writer.new_pk()) for line in lines]


def check_whole(conn: apsw.Connection, secret: bytes, lines: Sequence[PlannedTrace]) -> None:
    """Raises Conflict (`trace_deleted`) if a span could not be put back: its trace was deleted meanwhile."""
    for project_id, trace_id in _by_trace(lines):
        key = tombstone_key(secret, project_id, trace_id)
        refused = conn.execute(
            f"SELECT EXISTS (SELECT 1 FROM tombstone JOIN deletion d USING (deletion_no) WHERE key = ? "
            f"AND d.{deletion_rows.REFUSING})",
            (key,),
        ).get
        if refused:
            raise Conflict("The trace of a span was deleted meanwhile; it cannot be undone.", code="trace_deleted")


def put_back(writer: Writer, lines: Sequence[PlannedTrace], now_ns: int) -> None:
    """Undo `cut`, of traces that are visible again and counted as such. Where nothing is left of the trace that a span
    came from, the first one is that trace."""
    conn = writer.conn
    work: list[StoredTrace] = []
    sessions: set[tuple[int, str]] = set()
    said: list[tuple[int, StoredTrace]] = []
    for (project_id, trace_id), members in _by_trace(lines).items():
        parts = [row for line, _ in members if (row := row_at(conn, line.trace_pk)) is not None]
        home = _find_row(conn, project_id, trace_id)
        if home is None and not parts:
            continue
        trace = load_narrow(conn, home or parts.pop(0))
        trace.trace_id = trace_id
        said += [(trace.trace_pk, trace)]
        for row in parts:
            part = load_narrow(conn, row)
            _join(conn, trace, part)
            said.append((part.trace_pk, trace))
            if (session_id := part.session_id) is not None:
                sessions.add((project_id, session_id))
        work.append(trace)
    _write(writer, work, now_ns)
    for trace_pk, trace in said:
        _give_back(conn, trace_pk, trace)
    for project_id, session_id in sessions:
        writer.annotations_wait |= annotating.leave_session(conn, project_id, session_id, now_ns)


def _write(writer: Writer, work: Sequence[StoredTrace], now_ns: int) -> None:
    writer.store(work)
    writer.settle_annotations(work, now_ns)
    if writer.touched is not None:
        writer.touched.update(trace.trace_pk for trace in work)


# -- reading


def _by_trace(lines: Iterable[PlannedTrace]) -> _Group:
    """(project, trace id) → its spans among the lines."""
    found: _Group = defaultdict(list)
    for line in lines:
        name = parse_name(line.trace_id)
        if name is not None:
            found[line.project_id, name.trace_id].append((line, name))
    return found


def _find_row(conn: apsw.Connection, project_id: int, trace_id: str) -> tuple[Any, ...] | None:
    return conn.execute(
        f"SELECT {TRACE_COLUMNS} FROM trace WHERE project_id = ? AND trace_id = ?", (project_id, trace_id)
    ).fetchone()


def _row(conn: apsw.Connection, project_id: int, trace_id: str) -> tuple[Any, ...]:
    row = _find_row(conn, project_id, trace_id)
    assert row is not None, "only spans that were judged to be there are cut out"
    return row


def row_at(conn: apsw.Connection, trace_pk: int) -> tuple[Any, ...] | None:
    return conn.execute(f"SELECT {TRACE_COLUMNS} FROM trace WHERE trace_pk = ?", (trace_pk,)).fetchone()


def read_blocks(conn: apsw.Connection, trace: StoredTrace) -> dict[int, bytes]:
    first, last = block_range(trace.trace_pk)
    found = conn.execute("SELECT block_id, data FROM block WHERE block_id BETWEEN ? AND ?", (first, last))
    return {block_id - first: data for block_id, data in found}


# -- cutting


def _part(writer: Writer, trace: StoredTrace, name: SpanName, blocks: Mapping[int, Block]) -> StoredTrace:
    """Move a span with its logs, attachments and annotations from one trace in hand to a new one."""
    conn, span_id = writer.conn, name.span_id
    part = StoredTrace(writer.new_pk(), trace.project_id, render_name(*name), trace.received_ns)
    span, block_no = trace.spans.pop(span_id)
    wanted: dict[int, set[str | int]] = defaultdict(set, {block_no: {span_id}})
    part.spans, part.dirty_spans = {span_id: (span, 0)}, {span_id}
    for log_hash in [key for key, (log, _) in trace.logs.items() if log.span_id == span_id]:
        log, log_block_no = trace.logs.pop(log_hash)
        wanted[log_block_no].add(log_hash)
        part.logs[log_hash] = (log, 0)
        part.dirty_logs.add(log_hash)
    used = {span.context_key, *(log.context_key for log, _ in part.logs.values())}
    part.contexts = {key: trace.contexts[key] for key in used}
    picked = join_blocks(pick_records(blocks[no], _is_among(ids)) for no, ids in wanted.items())
    part.blocks = {0: pack_block(picked.records, picked.shared)}
    conn.execute("DELETE FROM span WHERE trace_pk = ? AND span_id = ?", (trace.trace_pk, span_id))
    conn.executemany(
        "DELETE FROM log WHERE trace_pk = ? AND log_hash = ?", [(trace.trace_pk, each) for each in part.logs]
    )
    attachments.move(conn, trace.trace_pk, part.trace_pk, span_id)
    conn.execute(
        "UPDATE annotation SET trace_pk = ? WHERE trace_pk = ? AND span_id = ?",
        (part.trace_pk, trace.trace_pk, span_id),
    )
    return part


def _is_among(ids: Container[str | int]) -> Callable[[BlockRecord], bool]:
    return lambda record: record.id in ids


def _without(trace: StoredTrace, blocks: Mapping[int, Block], span_ids: Container[str]) -> dict[int, bytes]:
    """The blocks that a trace still needs and that change: without any record of those spans, and not of a copy either
    that a later one had superseded."""
    changed: dict[int, bytes] = {}
    for block_no in live_blocks(trace):
        kept = pick_records(
            blocks[block_no],
            lambda record: record.id not in span_ids if isinstance(record.id, str) else record.id in trace.logs,
        )
        if len(kept.records) < len(blocks[block_no].records):
            changed[block_no] = pack_block(kept.records, kept.shared)
    return changed


def replace_blocks(conn: apsw.Connection, trace: StoredTrace, changed: Mapping[int, bytes]) -> None:
    """Take blocks of a trace and their signatures away, and lay the new ones ready for `Writer.store`."""
    first = block_range(trace.trace_pk)[0]
    conn.executemany("DELETE FROM block WHERE block_id = ?", [(first + block_no,) for block_no in changed])
    conn.executemany(
        "DELETE FROM text_doc WHERE trace_pk = ? AND block_no = ?", [(trace.trace_pk, block_no) for block_no in changed]
    )
    trace.stored_blocks -= changed.keys()
    trace.blocks = dict(changed)


def index_anew(conn: apsw.Connection, left: Sequence[tuple[StoredTrace, Mapping[int, bytes]]]) -> None:
    """Where the index has merged what the blocks of a trace say, say it again of those that stay as they are: what the
    others said cannot be taken out of it."""
    merged = {
        trace.trace_pk
        for trace, _ in left
        if conn.execute(
            "SELECT 1 FROM text_segment WHERE segment = ?", (trace.trace_pk // text_index.SEGMENT_TRACES,)
        ).get
    }
    text_index.purge(conn, sorted(merged))
    for trace, packed in left:
        if trace.trace_pk in merged:
            kept = (trace.stored_blocks & packed.keys()) & live_blocks(trace)
            text_index.add(
                conn,
                [(trace.trace_pk, no, text_index.signature([unpack_block(packed[no])])) for no in sorted(kept)],
            )


def live_blocks(trace: StoredTrace) -> set[int]:
    return {no for _, no in trace.spans.values()} | {no for _, no in trace.logs.values()}


def _take_along(conn: apsw.Connection, trace_pk: int) -> None:
    """The last span takes what was said of the trace: the same may be said anew of one that comes under its id. What
    waits for other spans of it goes on waiting."""
    conn.execute("UPDATE annotation SET trace_pk = NULL WHERE trace_pk = ? AND waits_ns IS NOT NULL", (trace_pk,))
    found: list[Any] = conn.execute(
        "SELECT annotation_no, key FROM annotation WHERE trace_pk = ? AND length(key) = ?", (trace_pk, KEY_BYTES)
    ).fetchall()
    conn.executemany(
        "UPDATE annotation SET key = ? WHERE annotation_no = ?",
        [(key + number.to_bytes(8, "big"), number) for number, key in found],
    )


# -- putting back


def _join(conn: apsw.Connection, trace: StoredTrace, part: StoredTrace) -> None:
    """Lay a part that was cut out over the trace in hand, and remove its own rows."""
    place: dict[int, int] = {}
    for block_no, data in sorted(read_blocks(conn, part).items()):
        place[block_no] = trace.next_block_no
        trace.blocks[trace.next_block_no] = data
        trace.next_block_no += 1
    for span_id, (span, block_no) in part.spans.items():
        trace.spans[span_id] = (span, place[block_no])
        trace.dirty_spans.add(span_id)
    for log_hash, (log, block_no) in part.logs.items():
        trace.logs[log_hash] = (log, place[block_no])
        trace.dirty_logs.add(log_hash)
    trace.contexts.update(part.contexts)
    for span_id in part.spans:
        attachments.move(conn, part.trace_pk, trace.trace_pk, span_id)
    gone = deletion_rows.count_keys(conn, [part.trace_pk])
    deletion_rows.add_counts(conn, {key: -count for key, count in gone.items()})
    for table in ("span", "log", "context", "metadata", "trace"):
        conn.execute(f"DELETE FROM {table} WHERE trace_pk = ?", (part.trace_pk,))
    conn.execute("DELETE FROM block WHERE block_id BETWEEN ? AND ?", block_range(part.trace_pk))
    text_index.purge(conn, [part.trace_pk])


def _give_back(conn: apsw.Connection, trace_pk: int, trace: StoredTrace) -> None:
    """What was said of a part is said of the trace again; where the same was said anew, the later word stays."""
    conn.execute("UPDATE annotation SET trace_pk = ? WHERE trace_pk = ?", (trace.trace_pk, trace_pk))
    found: list[Any] = conn.execute(
        f"SELECT annotation_no, {ANNOTATION_COLUMNS} FROM annotation a WHERE trace_pk = ? AND waits_ns IS NULL "
        f"AND (length(key) <> ? OR trace_id <> ?) AND NOT {HIDDEN_ANNOTATION}",
        (trace.trace_pk, KEY_BYTES, trace.trace_id),
    ).fetchall()
    place = (trace.project_id, trace.trace_pk, None, None)
    for number, *values in found:
        annotating.settle_in(conn, number, place, annotation_of(values)._replace(trace_id=trace.trace_id))
