"""Purging, settling and recounting annotations that are deleted by themselves; erase.py and deleting.py call this for
deletions of that kind. Each function works in the caller's transaction or snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import apsw
import orjson

from clearspan.proof.manifest import manifest_leaves
from clearspan.store.annotation_deletion import PlannedAnnotation, named
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite import holds
from clearspan.store.sqlite.annotation_hiding import hand_over, manifest_lines
from clearspan.store.sqlite.annotation_judge import kept
from clearspan.store.sqlite.deletion_rows import DeletionRow

_PIECE = 250
"""Annotations removed between two looks at the clock."""
_AMONG = "annotation_no IN (SELECT value FROM json_each(?))"


def purge(
    conn: apsw.Connection,
    secret: bytes,
    row: DeletionRow,
    counts: Counter[str],
    *,
    rows_max: int,
    is_over: Callable[[], bool],
) -> DeletionRow:
    """Remove the next annotations of a manifest; what a hold keeps by now goes to the child. The row as it is then."""
    active = holds.rows(conn)
    while (left := rows_max - counts.total()) > 0:
        numbers = rows.next_hidden_annotations(conn, row, min(left, _PIECE))
        if not numbers:
            break
        stay = kept(conn, active, numbers)
        lines = _lines(conn, row.deletion_no, stay)
        hand_over(conn, secret, row, lines)
        conn.execute("UPDATE deletion SET hidden = hidden - ? WHERE deletion_no = ?", (len(lines), row.deletion_no))
        _remove(conn, [number for number in numbers if number not in stay], counts)
        row = row._replace(purged_to=numbers[-1])
        if is_over():
            break
    conn.execute("UPDATE deletion SET purged_to = ? WHERE deletion_no = ?", (row.purged_to, row.deletion_no))
    return row


def _lines(conn: apsw.Connection, deletion_no: int, numbers: Iterable[int]) -> list[PlannedAnnotation]:
    found = conn.execute(
        f"SELECT annotation_no, project_id, annotation_id FROM annotation_manifest WHERE deletion_no = ? AND {_AMONG}",
        (deletion_no, orjson.dumps(sorted(numbers)).decode()),
    )
    return [PlannedAnnotation._make(line) for line in found]


def _remove(conn: apsw.Connection, numbers: Sequence[int], counts: Counter[str]) -> None:
    wanted = orjson.dumps(numbers).decode()
    conn.execute(f"DELETE FROM annotation WHERE {_AMONG}", (wanted,))
    counts["annotation"] += conn.changes()
    # One whose row is there yet stays hidden, whatever kept it.
    conn.execute(
        f"DELETE FROM hidden_annotation WHERE {_AMONG} AND annotation_no NOT IN (SELECT annotation_no FROM annotation)",
        (wanted,),
    )


def purge_survivors(
    conn: apsw.Connection, row: DeletionRow, above: int, counts: Counter[str], *, rows_max: int
) -> int | None:
    """As survivors.purge_some, of annotations: the number that is done, None when all are."""
    numbers = [
        number
        for (number,) in conn.execute(
            "SELECT annotation_no FROM annotation_manifest WHERE deletion_no = ? AND annotation_no > ? "
            "ORDER BY annotation_no LIMIT ?",
            (row.deletion_no, above, rows_max),
        )
    ]
    stay = kept(conn, holds.rows(conn), numbers)
    _remove(conn, [number for number in numbers if number not in stay], counts)
    return numbers[-1] if numbers else None


def settle_some(conn: apsw.Connection, secret: bytes, row: DeletionRow, above: int, *, rows_max: int) -> int | None:
    """As erase.settle_some, of annotations: the last number that is done, None when all are."""
    salt = row.salt(secret)
    lines = manifest_lines(conn, row.deletion_no, above=above, limit=rows_max)
    conn.executemany(
        "UPDATE annotation_manifest SET project_id = NULL, annotation_id = NULL, leaf = ? "
        "WHERE deletion_no = ? AND annotation_no = ?",
        (
            (leaf, row.deletion_no, line.row_no)
            for leaf, line in zip(manifest_leaves(salt, named(lines)), lines, strict=True)
        ),
    )
    return lines[-1].row_no if len(lines) == rows_max else None


def leaves(conn: apsw.Connection, secret: bytes, row: DeletionRow) -> list[bytes]:
    """As erase.leaves, of annotations."""
    found = manifest_leaves(row.salt(secret), named(manifest_lines(conn, row.deletion_no)))
    stored = conn.execute(
        "SELECT leaf FROM annotation_manifest WHERE deletion_no = ? AND leaf IS NOT NULL", (row.deletion_no,)
    )
    return sorted([*found, *(leaf for (leaf,) in stored)])
