"""Purging and settling in traces.db: each function is one transaction of the writer's connection.

What is planned, in which order and whether it worked is decided in clearspan.deletion; here rows go.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import apsw
import orjson

from clearspan.model.errors import Conflict
from clearspan.proof.manifest import manifest_leaves
from clearspan.store.port import DeletionKind, DeletionProgress, HoldRow, PlannedTrace
from clearspan.store.sqlite import annotating, annotation_erasing, holds, text_index
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.deletion_rows import CANCELLED, HIDDEN, WAITING, DeletionRow
from clearspan.store.sqlite.rows import BLOCK_BITS, BLOCK_NO_MAX, block_range

_IN_PKS = "IN (SELECT value FROM json_each(?))"

# Children before the trace's own row; each is one statement over a set of trace_pks.
_CHILDREN = {
    "span": f"DELETE FROM span WHERE trace_pk {_IN_PKS}",
    "log": f"DELETE FROM log WHERE trace_pk {_IN_PKS}",
    "context": f"DELETE FROM context WHERE trace_pk {_IN_PKS}",
    "metadata": f"DELETE FROM metadata WHERE trace_pk {_IN_PKS}",
    "annotation": f"DELETE FROM annotation WHERE trace_pk {_IN_PKS}",
    "attachment": f"DELETE FROM attachment WHERE trace_pk {_IN_PKS}",
}

# The next rows of one trace, by its key and how many at most; of blocks by the range of their numbers.
_PARTS = {
    "span": "DELETE FROM span WHERE trace_pk = ?1 "
    "AND span_id IN (SELECT span_id FROM span WHERE trace_pk = ?1 LIMIT ?2)",
    "log": "DELETE FROM log WHERE trace_pk = ?1 "
    "AND log_hash IN (SELECT log_hash FROM log WHERE trace_pk = ?1 LIMIT ?2)",
    "metadata": "DELETE FROM metadata WHERE (project_id, key, value, start_ns, trace_pk) IN "
    "(SELECT project_id, key, value, start_ns, trace_pk FROM metadata WHERE trace_pk = ?1 LIMIT ?2)",
    "context": "DELETE FROM context WHERE trace_pk = ?1 "
    "AND context_key IN (SELECT context_key FROM context WHERE trace_pk = ?1 LIMIT ?2)",
    "annotation": "DELETE FROM annotation WHERE annotation_no IN "
    "(SELECT annotation_no FROM annotation WHERE trace_pk = ?1 LIMIT ?2)",
    "attachment_piece": "DELETE FROM attachment_piece WHERE piece_id IN "
    "(SELECT piece_id FROM attachment_piece WHERE piece_id BETWEEN ?1 AND ?2 LIMIT ?3)",
    "attachment": "DELETE FROM attachment WHERE trace_pk = ?1 "
    "AND (span_id, name) IN (SELECT span_id, name FROM attachment WHERE trace_pk = ?1 LIMIT ?2)",
    "block": "DELETE FROM block WHERE block_id IN (SELECT block_id FROM block WHERE block_id BETWEEN ? AND ? LIMIT ?)",
}
_ROWS_AS = {"block": 4, "attachment_piece": 128}
"""Targets by range, and how many rows one of theirs weighs: a block is some KB, a piece of an attachment 1 MiB."""

_PIECE_TRACES = 200
_PIECE_ROWS = 250
"""Rows removed between two looks at the clock, but for one trace at least."""


def purge_batch(
    conn: apsw.Connection,
    secret: bytes,
    deletion_id: str,
    batch_no: int,
    *,
    rows_max: int,
    is_over: Callable[[], bool],
) -> tuple[dict[str, int], bool]:
    """See port.DeletionStore.purge_batch. One transaction of pieces, until `rows_max` are gone or the time is over."""
    with conn:
        row = rows.known(conn, deletion_id)
        if row.phase != HIDDEN:
            code = "cancelled" if row.phase == CANCELLED else None
            raise Conflict("This deletion has nothing to purge.", code=code)
        stored = conn.execute(
            "SELECT counts, more FROM purge_batch WHERE deletion_no = ? AND batch_no = ?", (row.deletion_no, batch_no)
        ).fetchone()
        if stored is not None:
            return orjson.loads(stored[0]), bool(stored[1])
        done = conn.execute("SELECT count(*) FROM purge_batch WHERE deletion_no = ?", (row.deletion_no,)).get
        if batch_no != done:
            raise ValueError(f"purge batch {batch_no} cannot follow {done} batches")
        counts: Counter[str] = Counter()
        of_annotations = row.kind == DeletionKind.ANNOTATIONS
        purge = annotation_erasing.purge if of_annotations else _purge_traces
        row = purge(conn, secret, row, counts, rows_max=rows_max, is_over=is_over)
        if not counts and not of_annotations:
            counts = _purge_sealed_text(conn, row.deletion_no, is_over)
        more = rows.has_more(conn, row)
        conn.execute(
            "INSERT INTO purge_batch VALUES (?, ?, ?, ?)",
            (row.deletion_no, batch_no, orjson.dumps(dict(counts)).decode(), more),
        )
    return dict(counts), more


def _purge_traces(
    conn: apsw.Connection,
    secret: bytes,
    row: DeletionRow,
    counts: Counter[str],
    *,
    rows_max: int,
    is_over: Callable[[], bool],
) -> DeletionRow:
    """Purge pieces of the manifest into `counts`; the row as it is then."""
    active = holds.rows(conn)
    left, is_full = rows_max, False
    while not is_full and (pks := rows.next_hidden(conn, row, _PIECE_TRACES)):
        sizes, begun = _sizes(conn, pks, rows_max)  # once for several pieces: it costs as much as removing one
        while pks and not is_full:
            to = _purge_piece(conn, secret, row, pks, counts, active, sizes, begun, min(left, _PIECE_ROWS), rows_max)
            if to is not None:
                row = row._replace(purged_to=to)
                pks = pks[bisect_right(pks, to) :]
            left = rows_max - counts.total()
            is_full = to is None or left <= 0 or is_over()
    conn.execute("UPDATE deletion SET purged_to = ? WHERE deletion_no = ?", (row.purged_to, row.deletion_no))
    return row


def _purge_piece(
    conn: apsw.Connection,
    secret: bytes,
    row: DeletionRow,
    pks: Sequence[int],
    counts: Counter[str],
    active: Sequence[HoldRow],
    sizes: Mapping[int, int],
    begun: set[int],
    rows_wanted: int,
    rows_max: int,
) -> int | None:
    """Move what is held to the child, and remove the first whole traces that fit; a trace larger than a whole batch
    loses a share of its rows.

    Args:
        sizes, begun: of `_sizes`, for all of `pks`.
    Returns:
        The last trace that the deletion is done with; None: none is, because a large one is in hand.
    """
    taken: list[int] = []
    size = 0
    for trace_pk in pks:
        if taken and size + sizes[trace_pk] > rows_wanted:
            break
        taken.append(trace_pk)
        size += sizes[trace_pk]
    kept = holds.kept(conn, active, [pk for pk in taken if pk not in begun])
    if kept:
        _move_held(conn, secret, row, kept)
    whole = [pk for pk in taken if pk not in kept]
    if whole and sizes[whole[0]] > rows_max:
        part, is_gone = _purge_part(conn, whole[0], rows_max)
        counts.update(part)
        return whole[0] if is_gone else None
    counts.update(_purge_whole(conn, whole))
    return taken[-1]


def _sizes(conn: apsw.Connection, pks: Sequence[int], rows_max: int) -> tuple[dict[int, int], set[int]]:
    """About how many rows each hidden trace has (a piece of an attachment counts as _ROWS_AS; logs, pairs,
    annotations and attachments are counted up to `rows_max` + 1 of each), and those of which a part is gone already."""
    sizes: dict[int, int] = {}
    begun: set[int] = set()
    for trace_pk, size, is_begun in conn.execute(
        "SELECT h.trace_pk, t.span_count + 4"
        " + (SELECT count(*) FROM (SELECT 1 FROM log l WHERE l.trace_pk = h.trace_pk LIMIT ?1))"
        " + (SELECT count(*) FROM (SELECT 1 FROM metadata m WHERE m.trace_pk = h.trace_pk LIMIT ?1))"
        " + (SELECT count(*) FROM (SELECT 1 FROM annotation a WHERE a.trace_pk = h.trace_pk LIMIT ?1))"
        " + (SELECT count(*) FROM (SELECT 1 FROM attachment f WHERE f.trace_pk = h.trace_pk LIMIT ?1))"
        f" + {_ROWS_AS['attachment_piece']} * (SELECT count(*) FROM attachment_piece p WHERE p.piece_id "
        f"BETWEEN h.trace_pk << {BLOCK_BITS} AND h.trace_pk << {BLOCK_BITS} | {BLOCK_NO_MAX}), h.begun "
        "FROM hidden h JOIN trace t USING (trace_pk) WHERE h.trace_pk IN (SELECT value FROM json_each(?2))",
        (rows_max + 1, orjson.dumps(pks).decode()),
    ):
        sizes[trace_pk] = size
        if is_begun:
            begun.add(trace_pk)
    return sizes, begun


def _move_held(conn: apsw.Connection, secret: bytes, row: DeletionRow, kept: set[int]) -> None:
    """Hidden traces that a hold keeps by now wait in the child, still hidden."""
    lines = [line for line in _lines_of(conn, row.deletion_no, kept) if line.trace_pk in kept]
    rows.hand_over(conn, secret, row, lines)
    conn.execute("UPDATE deletion SET hidden = hidden - ? WHERE deletion_no = ?", (len(lines), row.deletion_no))


def _lines_of(conn: apsw.Connection, deletion_no: int, pks: Iterable[int]) -> list[PlannedTrace]:
    found = conn.execute(
        f"SELECT trace_pk, project_id, trace_id FROM manifest WHERE deletion_no = ? AND trace_pk {_IN_PKS}",
        (deletion_no, orjson.dumps(sorted(pks)).decode()),
    )
    return [PlannedTrace._make(each) for each in found]


def _purge_part(conn: apsw.Connection, trace_pk: int, rows_max: int) -> tuple[dict[str, int], bool]:
    """A bounded share of one large trace: one target after the other, and in the end the rest as a whole.

    Returns:
        The rows removed, and whether that was the end.
    """
    conn.execute("UPDATE hidden SET begun = 1 WHERE trace_pk = ?", (trace_pk,))
    for target, sql in _PARTS.items():
        limit = max(1, rows_max // _ROWS_AS.get(target, 1))
        if gone := _run(conn, sql, (*block_range(trace_pk), limit) if target in _ROWS_AS else (trace_pk, limit)):
            return {target: gone}, False
    return _purge_whole(conn, [trace_pk]), True


def _purge_whole(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    if not trace_pks:
        return {}
    pks = orjson.dumps(trace_pks).decode()
    annotating.bind_sessions(conn, pks)
    counts = {target: _run(conn, sql, (pks,)) for target, sql in _CHILDREN.items()}
    ranges = [block_range(pk) for pk in trace_pks]
    counts["block"] = _run_many(conn, "DELETE FROM block WHERE block_id BETWEEN ? AND ?", ranges)
    sql = "DELETE FROM attachment_piece WHERE piece_id BETWEEN ? AND ?"
    counts["attachment_piece"] = _run_many(conn, sql, ranges)
    counts["text_signature"] = _run(conn, f"DELETE FROM text_doc WHERE trace_pk {_IN_PKS}", (pks,))
    conn.execute(
        f"INSERT INTO text_erase SELECT h.deletion_no, h.trace_pk FROM hidden h WHERE h.trace_pk {_IN_PKS} "
        "AND h.trace_pk / ? IN (SELECT segment FROM text_segment)",
        (pks, text_index.SEGMENT_TRACES),
    )
    counts["trace"] = _run(conn, f"DELETE FROM trace WHERE trace_pk {_IN_PKS}", (pks,))
    rows.unmark(conn, pks)
    return counts


def _purge_sealed_text(conn: apsw.Connection, deletion_no: int, is_over: Callable[[], bool]) -> Counter[str]:
    """Clear the bits of purged traces in the next sealed segments, after all their rows are gone.

    A segment is rewritten once for all of its traces, so a deletion scattered over the store costs 4 ms a segment.
    """
    cleared = 0
    while True:
        first = conn.execute("SELECT min(trace_pk) FROM text_erase WHERE deletion_no = ?", (deletion_no,)).get
        if first is None:
            break
        end = (first // text_index.SEGMENT_TRACES + 1) * text_index.SEGMENT_TRACES
        bounds = (deletion_no, end)
        pks = [
            pk
            for (pk,) in conn.execute("SELECT trace_pk FROM text_erase WHERE deletion_no = ? AND trace_pk < ?", bounds)
        ]
        cleared += text_index.purge(conn, pks)
        conn.execute("DELETE FROM text_erase WHERE deletion_no = ? AND trace_pk < ?", bounds)
        if is_over():
            break
    return Counter({"text_signature": cleared} if cleared else {})


def _run(conn: apsw.Connection, sql: str, params: Sequence[object]) -> int:
    conn.execute(sql, params)
    return conn.changes()


def _run_many(conn: apsw.Connection, sql: str, rows: Iterable[Sequence[object]]) -> int:
    before = conn.total_changes()
    conn.executemany(sql, rows)
    return conn.total_changes() - before


def settle_some(
    conn: apsw.Connection, secret: bytes, deletion_id: str, above: int, *, rows_max: int, is_over: Callable[[], bool]
) -> int | None:
    """One transaction of port.DeletionStore.settle: the next manifest rows lose their ids and get their leaves; the
    last one erases the request. Emptying the write-ahead log is the caller's next step.

    Args:
        above: the last trace_pk of the transaction before; -1 begins.
    Returns:
        The last trace_pk that is done; None when all are. A repeat changes and writes nothing.
    """
    with conn:
        row = rows.known(conn, deletion_id)
        if row.settled:
            return None
        if row.phase != HIDDEN or rows.has_more(conn, row):
            raise ValueError("the purge of that deletion is not finished")
        if row.kind == DeletionKind.ANNOTATIONS:
            done_to = annotation_erasing.settle_some(conn, secret, row, above, rows_max=rows_max)
        else:
            done_to = _settle_traces(conn, secret, row, above, rows_max=rows_max, is_over=is_over)
        if done_to is None:
            conn.execute(
                "UPDATE deletion SET request = NULL, settled = 1, manifest_salt = ? WHERE deletion_no = ?",
                (row.salt(secret), row.deletion_no),
            )
    return done_to


def _settle_traces(
    conn: apsw.Connection, secret: bytes, row: DeletionRow, above: int, *, rows_max: int, is_over: Callable[[], bool]
) -> int | None:
    salt = row.salt(secret)
    lines = rows.manifest_lines(conn, row.deletion_no, above=above, limit=rows_max)
    done = 0
    while done < len(lines):
        piece = lines[done : done + _PIECE_ROWS]
        conn.executemany(
            "UPDATE manifest SET project_id = NULL, trace_id = NULL, leaf = ? WHERE deletion_no = ? AND trace_pk = ?",
            (
                (leaf, row.deletion_no, line.trace_pk)
                for leaf, line in zip(manifest_leaves(salt, _names(piece)), piece, strict=True)
            ),
        )
        done += len(piece)
        if is_over():
            break
    if done < len(lines) or len(lines) == rows_max:
        return lines[done - 1].trace_pk
    return None


def progress(conn: apsw.Connection, secret: bytes, deletion_id: str) -> DeletionProgress | None:
    """See port.DeletionStore.progress."""
    row = rows.find(conn, deletion_id)
    if row is None:
        return None
    purged: Counter[str] = Counter()
    batches = 0
    for (counts,) in conn.execute("SELECT counts FROM purge_batch WHERE deletion_no = ?", (row.deletion_no,)):
        purged.update(orjson.loads(counts))
        batches += 1
    child = rows.child_of(conn, deletion_id)
    return DeletionProgress(
        outcome=row.outcome,
        request=conn.execute("SELECT request FROM deletion WHERE deletion_no = ?", (row.deletion_no,)).get,
        batches=batches,
        more=rows.has_more(conn, row),
        purged=dict(purged),
        settled=bool(row.settled),
        late_refused=row.late_refused,
        cancelled=row.phase == CANCELLED,
        child_id=None if child is None else child.deletion_id,
        held_traces=row.outcome.held,
        manifest_salt=row.salt(secret),
        is_waiting=row.phase == WAITING,
        kind=DeletionKind(row.kind),
    )


def manifest(conn: apsw.Connection, deletion_id: str) -> list[PlannedTrace]:
    """See port.DeletionStore.manifest."""
    row = rows.find(conn, deletion_id)
    if row is None or row.settled or row.phase == CANCELLED:
        return []
    return rows.manifest_lines(conn, row.deletion_no)


def leaves(conn: apsw.Connection, secret: bytes, deletion_id: str) -> list[bytes]:
    """See port.DeletionStore.leaves. Cost: 1 µs a trace once settled, 4 µs before."""
    row = rows.known(conn, deletion_id)
    if row.phase == CANCELLED:
        return []
    if row.kind == DeletionKind.ANNOTATIONS:
        return annotation_erasing.leaves(conn, secret, row)
    salt = row.salt(secret)
    found = manifest_leaves(salt, _names(rows.manifest_lines(conn, row.deletion_no)))
    stored = conn.execute("SELECT leaf FROM manifest WHERE deletion_no = ? AND leaf IS NOT NULL", (row.deletion_no,))
    return sorted([*found, *(leaf for (leaf,) in stored)])


def _names(lines: Sequence[PlannedTrace]) -> list[tuple[int, str]]:
    return [(line.project_id, line.trace_id) for line in lines]
