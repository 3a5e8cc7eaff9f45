"""Removing what a purge has left behind: rows of a deletion's manifest, looked for by trace_pk in every target.

The purge goes by the marks of hiding, which are gone when it is through. Should rows have outlived it, somebody says
"retry", and they are removed from here, a share at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import apsw
import orjson

from clearspan.store.port import DeletionKind
from clearspan.store.sqlite import annotating, annotation_erasing, holds, text_index
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.rows import BLOCK_BITS


def _of_traces(table: str, *key: str) -> str:
    columns = ", ".join(key)
    wanted = ", ".join(f"t.{name}" for name in key)
    return (
        f"DELETE FROM {table} WHERE ({columns}) IN "
        f"(SELECT {wanted} FROM json_each(?) AS w CROSS JOIN {table} t ON t.trace_pk = w.value LIMIT ?)"
    )


_TARGETS = (
    ("span", _of_traces("span", "trace_pk", "span_id")),
    ("log", _of_traces("log", "trace_pk", "log_hash")),
    ("context", _of_traces("context", "trace_pk", "context_key")),
    ("annotation", _of_traces("annotation", "annotation_no")),
    ("metadata", _of_traces("metadata", "project_id", "key", "value", "start_ns", "trace_pk")),
    (
        "block",
        "DELETE FROM block WHERE block_id IN (SELECT b.block_id FROM json_each(?) AS w CROSS JOIN block b "
        f"ON b.block_id >= w.value << {BLOCK_BITS} AND b.block_id < (w.value + 1) << {BLOCK_BITS} LIMIT ?)",
    ),
    (
        "attachment_piece",
        "DELETE FROM attachment_piece WHERE piece_id IN (SELECT p.piece_id FROM json_each(?) AS w "
        "CROSS JOIN attachment_piece p ON p.piece_id >= w.value << "
        f"{BLOCK_BITS} AND p.piece_id < (w.value + 1) << {BLOCK_BITS} LIMIT ?)",
    ),
    ("attachment", _of_traces("attachment", "trace_pk", "span_id", "name")),
    ("text_signature", _of_traces("text_doc", "trace_pk", "block_no")),
)
"""Target, and a statement that removes at most so many of its rows. The trace's own row comes after all of them."""


def purge_some(
    conn: apsw.Connection, deletion_id: str, above: int, *, rows_max: int, is_over: Callable[[], bool]
) -> tuple[dict[str, int], int | None]:
    """See port.DeletionStore.purge_survivors. One transaction; it looks at one segment of traces at a time.

    Cost: some 20 µs a trace of the manifest, and 0.5 ms for each sealed segment of the text index, whose bits are read.
    """
    counts: Counter[str] = Counter()
    done_to: int | None = above
    active = holds.rows(conn)
    with conn:
        row = rows.known(conn, deletion_id)
        if row.phase != rows.HIDDEN or rows.has_more(conn, row):
            raise ValueError("the purge of that deletion is not finished")
        while row.kind == DeletionKind.ANNOTATIONS and done_to is not None:
            left = rows_max - counts.total()
            done_to = annotation_erasing.purge_survivors(conn, row, done_to, counts, rows_max=left)
            if counts.total() >= rows_max or is_over():
                break
        while row.kind != DeletionKind.ANNOTATIONS and done_to is not None:
            pks = _next_piece(conn, row.deletion_no, done_to)
            kept = holds.kept(conn, active, pks)
            if pks and not _purge_piece(conn, [pk for pk in pks if pk not in kept], counts, rows_max):
                break
            done_to = pks[-1] if pks else None
            if counts.total() >= rows_max or is_over():
                break
        counts = +counts
        if counts:
            conn.execute(
                "INSERT INTO purge_batch SELECT ?1, count(*), ?2, 0 FROM purge_batch WHERE deletion_no = ?1",
                (row.deletion_no, orjson.dumps(dict(counts)).decode()),
            )
    return dict(counts), done_to


def _next_piece(conn: apsw.Connection, deletion_no: int, above: int) -> list[int]:
    """The next traces of a manifest that share a segment of the text index."""
    found = [
        pk
        for (pk,) in conn.execute(
            "SELECT trace_pk FROM manifest WHERE deletion_no = ? AND trace_pk > ? ORDER BY trace_pk LIMIT ?",
            (deletion_no, above, text_index.SEGMENT_TRACES),
        )
    ]
    return [pk for pk in found if pk // text_index.SEGMENT_TRACES == found[0] // text_index.SEGMENT_TRACES]


def _purge_piece(conn: apsw.Connection, pks: Sequence[int], counts: Counter[str], rows_max: int) -> bool:
    """Remove what is left of some traces; False: the batch is full and there may be more of them."""
    wanted = orjson.dumps(pks).decode()
    for target, sql in _TARGETS:
        left = rows_max - counts.total()
        if left <= 0:
            return False
        conn.execute(sql, (wanted, left))
        gone = conn.changes()
        counts[target] += gone
        if gone >= left:
            return False
    if sealed := text_index.count(conn, pks):
        text_index.purge(conn, pks)
        counts["text_signature"] += sealed - text_index.count(conn, pks)
    annotating.bind_sessions(conn, wanted)
    conn.execute("DELETE FROM annotation WHERE trace_pk IN (SELECT value FROM json_each(?))", (wanted,))
    counts["annotation"] += conn.changes()
    conn.execute("DELETE FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?))", (wanted,))
    counts["trace"] += conn.changes()
    rows.unmark(conn, wanted)
    return True
