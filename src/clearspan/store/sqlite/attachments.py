"""Files that came with spans: a row of facts each, and the bytes in pieces. Every function works in the caller's
transaction or snapshot.

An attachment belongs to a trace, is hidden and purged with it and refused by its tombstone. One whose run has not come
waits under the run's id and is the trace's in the transaction that brings the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import apsw
import orjson

from clearspan.model.errors import Overloaded
from clearspan.model.runs import is_run_id
from clearspan.model.span import Attachment
from clearspan.model.trace import Scope
from clearspan.store.port import WAITING_NS_MAX
from clearspan.store.spans import PIECE_BYTES, AttachmentInfo, pieces_of
from clearspan.store.sqlite.rows import BLOCK_BITS, BLOCK_NO_MAX, block_range

VISIBLE: Final = (
    "t.project_id IN (SELECT value FROM json_each(?)) AND (? IS NULL OR t.environment = ?) "
    "AND t.trace_pk NOT IN (SELECT trace_pk FROM hidden)"
)
"""Of `trace t`; its parameters are `visible_params`."""

_DROPPED_AT_ONCE: Final = 10


def visible_params(scope: Scope) -> tuple[Any, ...]:
    """The parameters of VISIBLE."""
    return orjson.dumps(scope.project_ids).decode(), scope.environment, scope.environment


def piece_range(trace_pk: int) -> tuple[int, int]:
    """First and last piece_id a trace can have."""
    return block_range(trace_pk)


# -- writing


def put(conn: apsw.Connection, trace_pk: int, attachments: Iterable[Attachment]) -> int:
    """Store attachments of a trace; how many were new or won. Of two of one span and name the one with the larger
    (SHA-256, mime_type) stays, in whatever order they come.

    Raises:
        Overloaded: the trace has a million pieces already.
    """
    stored = 0
    for each in attachments:
        rank = _rank(each.data, each.mime_type)
        known = conn.execute(
            "SELECT digest, mime_type, first_piece, size_bytes FROM attachment "
            "WHERE trace_pk = ? AND span_id = ? AND name = ?",
            (trace_pk, each.span_id, each.name),
        ).fetchone()
        if known is not None:
            if rank <= known[:2]:
                continue
            start = piece_range(trace_pk)[0] + known[2]
            conn.execute(
                "DELETE FROM attachment_piece WHERE piece_id >= ? AND piece_id < ?",
                (start, start + pieces_of(known[3])),
            )
        first = _next_piece(conn, trace_pk)
        if first + pieces_of(len(each.data)) > BLOCK_NO_MAX + 1:
            raise Overloaded("a trace may not have more than a million pieces of attachments", retry_after_s=3600)
        conn.execute(
            "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?, ?, ?, ?)",
            (trace_pk, each.span_id, each.name, each.mime_type, len(each.data), rank[0], first),
        )
        view = memoryview(each.data)
        for number in range(pieces_of(len(view))):
            conn.execute(
                "INSERT INTO attachment_piece VALUES (?, ?)",
                (
                    piece_range(trace_pk)[0] + first + number,
                    bytes(view[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]),
                ),
            )
        stored += 1
    return stored


def move(conn: apsw.Connection, from_pk: int, to_pk: int, span_id: str) -> None:
    """Give the attachments of a span to another trace, which has none of that span. Cost: their bytes, written anew."""
    found: list[Any] = conn.execute(
        "SELECT name, size_bytes, first_piece FROM attachment WHERE trace_pk = ? AND span_id = ?", (from_pk, span_id)
    ).fetchall()
    for name, size_bytes, first in found:
        to = _next_piece(conn, to_pk)
        start = piece_range(from_pk)[0] + first
        conn.execute(
            "UPDATE attachment_piece SET piece_id = piece_id + ? WHERE piece_id >= ? AND piece_id < ?",
            (piece_range(to_pk)[0] + to - start, start, start + pieces_of(size_bytes)),
        )
        conn.execute(
            "UPDATE attachment SET trace_pk = ?, first_piece = ? WHERE trace_pk = ? AND span_id = ? AND name = ?",
            (to_pk, to, from_pk, span_id, name),
        )


def _next_piece(conn: apsw.Connection, trace_pk: int) -> int:
    first, last = piece_range(trace_pk)
    newest = conn.execute(
        "SELECT max(piece_id) FROM attachment_piece WHERE piece_id BETWEEN ? AND ?", (first, last)
    ).get
    return 0 if newest is None else int(newest) - first + 1


class RunPlace(NamedTuple):
    """A trace that has a run."""

    trace_pk: int
    project_id: int
    trace_id: str


def places_of(conn: apsw.Connection, span_id: str) -> list[RunPlace]:
    """The traces that have that run, of any project, hidden or not; the newest first."""
    if not is_run_id(span_id):
        return []
    found = conn.execute(
        "SELECT t.trace_pk, t.project_id, t.trace_id FROM span s INDEXED BY span_by_id JOIN trace t USING (trace_pk) "
        "WHERE s.span_id = ? AND length(s.span_id) <> 16 ORDER BY t.trace_pk DESC",
        (span_id,),
    )
    return [RunPlace._make(row) for row in found]


# -- waiting


def any_waiting(conn: apsw.Connection) -> bool:
    """Whether any attachment waits."""
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM attachment_waiting)").get)


def wait(conn: apsw.Connection, project_id: int, attachments: Iterable[Attachment], received_ns: int) -> int:
    """Keep attachments until their runs come; how many were new or won."""
    stored = 0
    for each in attachments:
        key = (project_id, each.span_id, each.name)
        known: Any = conn.execute(
            "SELECT waiting_no, data, mime_type FROM attachment_waiting "
            "WHERE project_id = ? AND span_id = ? AND name = ?",
            key,
        ).fetchone()
        if known is not None:
            if _rank(each.data, each.mime_type) <= _rank(*known[1:]):
                continue
            conn.execute("DELETE FROM attachment_waiting WHERE waiting_no = ?", (known[0],))
        conn.execute(
            "INSERT INTO attachment_waiting (project_id, span_id, name, mime_type, received_ns, data) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (*key, each.mime_type, received_ns, each.data),
        )
        stored += 1
    return stored


def claim(conn: apsw.Connection, project_id: int, trace_pk: int, span_ids: Iterable[str]) -> None:
    """Give a trace what waited for its runs. Cost: 2 µs a run."""
    for span_id in filter(is_run_id, span_ids):
        waiting: Any = conn.execute(
            "SELECT name, mime_type, data FROM attachment_waiting WHERE project_id = ? AND span_id = ?",
            (project_id, span_id),
        ).fetchall()
        for name, mime_type, data in waiting:
            put(conn, trace_pk, [Attachment(span_id, name, mime_type, data)])
    drop_waiting(conn, project_id, span_ids)


def drop_waiting(conn: apsw.Connection, project_id: int, span_ids: Iterable[str]) -> None:
    """Remove what waits for runs: they are stored with it, or were refused."""
    conn.executemany(
        "DELETE FROM attachment_waiting WHERE project_id = ? AND span_id = ?",
        [(project_id, span_id) for span_id in filter(is_run_id, span_ids)],
    )


def drop_of_project(conn: apsw.Connection, project_id: int) -> int:
    """Remove the next of what waits in a project that is gone; how many, 0 when none is left."""
    conn.execute(
        "DELETE FROM attachment_waiting WHERE waiting_no IN "
        "(SELECT waiting_no FROM attachment_waiting WHERE project_id = ? LIMIT ?)",
        (project_id, _DROPPED_AT_ONCE),
    )
    return conn.changes()


def sweep(conn: apsw.Connection, now_ns: int) -> int:
    """Remove what has waited for WAITING_NS_MAX; how many there were."""
    conn.execute("DELETE FROM attachment_waiting WHERE received_ns <= ?", (now_ns - WAITING_NS_MAX,))
    return conn.changes()


def _rank(data: bytes, mime_type: str) -> tuple[bytes, str]:
    return hashlib.sha256(data).digest(), mime_type


# -- reading

_INFO = "a.name, a.mime_type, a.size_bytes, a.digest"


def infos(
    conn: apsw.Connection, scope: Scope, keys: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], list[AttachmentInfo]]:
    """See SpanReader.list_attachments. Cost: 3 µs a key."""
    found: dict[tuple[int, str], list[AttachmentInfo]] = {}
    for trace_pk, span_id, *info in conn.execute(
        f"SELECT a.trace_pk, a.span_id, {_INFO} FROM json_each(?) AS w CROSS JOIN trace t "
        "ON t.trace_pk = w.value ->> 0 CROSS JOIN attachment a ON a.trace_pk = t.trace_pk AND "
        f"a.span_id = w.value ->> 1 WHERE {VISIBLE} ORDER BY a.trace_pk, a.span_id, a.name",
        (orjson.dumps(sorted(set(keys))).decode(), *visible_params(scope)),
    ):
        found.setdefault((trace_pk, span_id), []).append(AttachmentInfo._make(info))
    return found


def find(
    conn: apsw.Connection, scope: Scope, trace_id: str, span_id: str, name: str
) -> tuple[AttachmentInfo, int, int] | None:
    """An attachment by its names: (info, trace_pk, number of its first piece); of several copies the newest trace's."""
    row: Any = conn.execute(
        f"SELECT {_INFO}, a.trace_pk, a.first_piece FROM trace t CROSS JOIN attachment a USING (trace_pk) "
        f"WHERE {VISIBLE} AND t.trace_id = ? AND a.span_id = ? AND a.name = ? "
        "ORDER BY t.received_ns DESC, t.trace_pk DESC LIMIT 1",
        (*visible_params(scope), trace_id, span_id, name),
    ).fetchone()
    return None if row is None else (AttachmentInfo._make(row[:4]), row[4], row[5])


def piece(conn: apsw.Connection, trace_pk: int, piece_no: int) -> bytes | None:
    """One piece of a visible trace; None if there is none to see any more."""
    found: bytes | None = conn.execute(
        "SELECT data FROM attachment_piece WHERE piece_id = ? AND ? NOT IN (SELECT trace_pk FROM hidden)",
        (piece_range(trace_pk)[0] + piece_no, trace_pk),
    ).get
    return found


# -- checking


def faults(conn: apsw.Connection) -> Iterator[tuple[str, int, str]]:
    """For fsck: every attachment has exactly its pieces, and they hash to its digest."""
    bad: list[int] = []
    pieces = 0
    for trace_pk, size_bytes, digest, first in conn.execute(
        "SELECT trace_pk, size_bytes, digest, first_piece FROM attachment"
    ):
        start = piece_range(trace_pk)[0] + first
        hashed, size = hashlib.sha256(), 0
        for (data,) in conn.execute(
            "SELECT data FROM attachment_piece WHERE piece_id >= ? AND piece_id < ?",
            (start, start + pieces_of(size_bytes)),
        ):
            hashed.update(data)
            size += len(data)
            pieces += 1
        if size != size_bytes or hashed.digest() != digest:
            bad.append(trace_pk)
    if bad:
        yield "bytes of attachments are those that came", len(bad), "trace_pk " + ", ".join(map(str, bad[:5]))
    stray = conn.execute("SELECT count(*) FROM attachment_piece").get - pieces
    if stray:
        yield "pieces of attachments belong to one", abs(stray), ""
    for table, key in (("attachment", "trace_pk"), ("attachment_piece", f"piece_id >> {BLOCK_BITS}")):
        orphans = conn.execute(f"SELECT count(*) FROM {table} WHERE {key} NOT IN (SELECT trace_pk FROM trace)").get
        if orphans:
            yield f"{table} without trace", orphans, ""
