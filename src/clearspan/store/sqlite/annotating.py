"""Writing annotations to traces.db: functions inside a transaction of the writer's connection.

Where an annotation belongs is decided when it is written, and again whenever a trace is: so its row always carries the
trace_pk of its trace, and what a deletion does by trace_pk reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.trace import Scope
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.annotations import (
    CHANGEABLE,
    EXPIRE_MAX,
    NEW_PROJECTS,
    AnnotationChange,
    AnnotationOutcome,
    AnnotationQuery,
    AnnotationRow,
    AnnotationWrite,
)
from clearspan.store.span_deletion import render_name
from clearspan.store.sqlite import annotation_listing, moves
from clearspan.store.sqlite.annotation_rows import ANNOTATION_COLUMNS, annotation_of, key_of, retire_keys
from clearspan.store.sqlite.deletion_rows import REFUSING
from clearspan.store.sqlite.span_finding import places_by_own_id
from clearspan.store.tombstone import tombstone_key

_T = AnnotationTarget
_FIELDS = Annotation._fields
_INSERT = (
    f"INSERT INTO annotation (project_id, key, trace_pk, waits_ns, waits_in, {ANNOTATION_COLUMNS}) "
    f"VALUES ({', '.join('?' * (len(_FIELDS) + 5))})"
)
_UPDATE = (
    "UPDATE annotation SET project_id = ?, key = ?, trace_pk = ?, waits_ns = ?, waits_in = ?, "
    f"{', '.join(f'{name} = ?' for name in _FIELDS)} WHERE annotation_no = ?"
)


class _Place(NamedTuple):
    """Where an annotation belongs now."""

    project_id: int
    trace_pk: int | None = None
    waits: bool = False
    deletion_no: int | None = None  # whose tombstone refuses it


class _Stored(NamedTuple):
    trace_pk: int
    project_id: int
    trace_id: str
    session_id: str | None


def any_waiting(conn: apsw.Connection) -> bool:
    """Whether any annotation waits for its target."""
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM annotation WHERE waits_ns IS NOT NULL)").get)


def put(
    conn: apsw.Connection, secret: bytes, writes: Sequence[AnnotationWrite], received_ns: int
) -> tuple[list[AnnotationOutcome], set[int]]:
    """See AnnotationWriter.put_annotations. Cost: about 50 µs each.

    Returns:
        Outcomes, and the traces whose annotations changed.
    """
    if moves.any_moved(conn):
        writes = [_followed(conn, secret, write) for write in writes]
    places = [_place(conn, secret, write) for write in writes]
    is_void = any(
        write.must_exist and (place.waits or place.deletion_no is not None)
        for write, place in zip(writes, places, strict=True)
    )
    outcomes = []
    touched: set[int] = set()
    for write, place in zip(writes, places, strict=True):
        annotation_id = write.annotation.annotation_id
        if place.deletion_no is not None:
            conn.execute("UPDATE deletion SET late_refused = late_refused + 1 WHERE deletion_no = ?", (place[3],))
            deletion_id = conn.execute("SELECT deletion_id FROM deletion WHERE deletion_no = ?", (place[3],)).get
            outcomes.append(AnnotationOutcome(annotation_id, None, deletion_id=deletion_id))
        elif is_void:
            outcomes.append(AnnotationOutcome(annotation_id, None, is_missing=write.must_exist and place.waits))
        else:
            waits = (received_ns, orjson.dumps(write.project_ids).decode()) if place.waits else (None, None)
            stored = _store(conn, place.project_id, place.trace_pk, waits, write)
            outcomes.append(AnnotationOutcome(stored, place.project_id, is_waiting=place.waits))
            touched |= {place.trace_pk} - {None}  # type: ignore[arg-type]
    return outcomes, touched


def _followed(conn: apsw.Connection, secret: bytes, write: AnnotationWrite) -> AnnotationWrite:
    """The write in the projects that data of its trace belongs to by now."""
    trace_id = write.annotation.trace_id
    if trace_id is None:
        return write
    homes = [moves.home_of(conn, secret, project_id, trace_id) for project_id in write.project_ids]
    return write._replace(project_ids=tuple(dict.fromkeys(homes)))


def _place(conn: apsw.Connection, secret: bytes, write: AnnotationWrite) -> _Place:
    annotation, projects = write.annotation, write.project_ids
    if annotation.target is _T.PROJECT:
        return _Place(projects[0])
    if annotation.target is _T.SESSION:
        return _session_place(conn, projects, annotation.session_id)
    if annotation.trace_id is None:
        return _Place(projects[0], waits=True)
    known: list[_Place] = []
    for project_id in projects:
        found: Any = conn.execute(
            "SELECT t.trace_pk, (SELECT h.deletion_no FROM hidden h WHERE h.trace_pk = t.trace_pk), "
            "EXISTS (SELECT 1 FROM span s WHERE s.trace_pk = t.trace_pk AND s.span_id = ?3) "
            "FROM trace t WHERE t.project_id = ?1 AND t.trace_id = ?2",
            (project_id, annotation.trace_id, annotation.span_id),
        ).fetchone()
        trace_pk, hidden_by, has_span = found or (None, None, False)
        waits = annotation.target is not _T.TRACE and not has_span
        if (trace_pk is None or waits) and hidden_by is None:
            refused_by = _refusing(conn, secret, project_id, annotation)
            if refused_by is not None:
                known.append(_Place(project_id, deletion_no=refused_by))
                continue
        if trace_pk is None:
            continue
        known.append(_Place(project_id, trace_pk, waits, hidden_by))
    # Whole targets before traces that still lack the span, before what was deleted.
    nowhere = _Place(projects[0], waits=True)
    return min(known, key=lambda place: (place.deletion_no is not None, place.waits), default=nowhere)


def _session_place(conn: apsw.Connection, projects: Sequence[int], session_id: str | None) -> _Place:
    refused: list[_Place] = []
    for project_id in projects:
        found = conn.execute(
            "SELECT h.deletion_no FROM trace t LEFT JOIN hidden h USING (trace_pk) "
            "WHERE t.project_id = ? AND t.session_id = ? ORDER BY h.deletion_no IS NOT NULL LIMIT 1",
            (project_id, session_id),
        ).fetchone()
        if found is not None and found[0] is None:
            return _Place(project_id)
        if found is not None:
            refused.append(_Place(project_id, deletion_no=found[0]))
    return refused[0] if refused else _Place(projects[0], waits=True)


def _refusing(conn: apsw.Connection, secret: bytes, project_id: int, annotation: Annotation) -> int | None:
    """The deletion that refuses an annotation: of its trace, or of its span by itself, wherever the trace was then."""
    trace_id = annotation.trace_id or ""
    found = _tombstone(conn, secret, project_id, trace_id)
    if found is not None or annotation.span_id is None:
        return found
    name = render_name(trace_id, annotation.span_id)
    by_home = (_tombstone(conn, secret, home, name) for home in moves.homes_of(conn, secret, project_id, trace_id))
    return next((each for each in by_home if each is not None), None)


def _tombstone(conn: apsw.Connection, secret: bytes, project_id: int, trace_id: str) -> int | None:
    row = conn.execute(
        f"SELECT deletion_no FROM tombstone JOIN deletion d USING (deletion_no) WHERE key = ? AND d.{REFUSING}",
        (tombstone_key(secret, project_id, trace_id),),
    ).fetchone()
    return None if row is None else int(row[0])


def _store(
    conn: apsw.Connection,
    project_id: int,
    trace_pk: int | None,
    waits: tuple[int | None, str | None],
    write: AnnotationWrite,
) -> str:
    """Write one row over the one that has its key, or else its id; the id that it has now."""
    annotation = write.annotation
    key = key_of(annotation)
    retire_keys(conn, project_id, key)
    old: Any = conn.execute(
        "SELECT annotation_no, annotation_id, created_ns FROM annotation WHERE project_id = ? AND key = ?",
        (project_id, key),
    ).fetchone()
    if old is None:
        old = conn.execute(
            "SELECT annotation_no, annotation_id, created_ns FROM annotation a WHERE annotation_id = ? "
            "AND project_id IN (SELECT value FROM json_each(?)) "
            f"AND NOT {HIDDEN_ANNOTATION} AND coalesce(trace_pk, -1) NOT IN (SELECT trace_pk FROM hidden) "
            "ORDER BY annotation_no LIMIT 1",
            (annotation.annotation_id, orjson.dumps(write.project_ids).decode()),
        ).fetchone()
    place = (project_id, key, trace_pk, *waits)
    if old is None:
        conn.execute(_INSERT, (*place, *annotation))
        return annotation.annotation_id
    row_no, annotation_id, created_ns = old
    kept = annotation._replace(annotation_id=annotation_id, created_ns=created_ns)
    conn.execute(_UPDATE, (*place, *kept, row_no))
    return str(annotation_id)


def only_there(project_id: int, _trace_id: str) -> Sequence[int]:
    """What `attach` asks where nothing was ever moved."""
    return (project_id,)


def attach(
    conn: apsw.Connection,
    written: Iterable[tuple[int, Iterable[str]]],
    homes: Callable[[int, str], Sequence[int]] = only_there,
) -> None:
    """Give what waits to the traces that were just written. Cost: about 10 µs a trace if nothing waits for it.

    Args:
        written: (trace_pk, the ids of its spans that were written).
        homes: (project, trace id) → the projects in which something may wait for a trace: see moves.homes_of.
    """
    for trace_pk, span_ids in written:
        found: Any = conn.execute(
            "SELECT project_id, trace_id, session_id FROM trace WHERE trace_pk = ?", (trace_pk,)
        ).fetchone()
        trace = _Stored(trace_pk, *found)
        places = orjson.dumps(list(homes(trace.project_id, trace.trace_id))).decode()
        waiting = [
            *conn.execute(f"{_WAITING} trace_id = ?2", (places, trace.trace_id)),
            *conn.execute(
                f"{_WAITING} trace_id IS NULL AND span_id IN (SELECT value FROM json_each(?2))",
                (places, orjson.dumps(list(span_ids)).decode()),
            ),
            *conn.execute(f"{_WAITING} session_id = ?2", (places, trace.session_id)),
        ]
        for (row_no,) in waiting:
            row: Any = conn.execute(
                f"SELECT waits_ns, waits_in, {ANNOTATION_COLUMNS} FROM annotation WHERE annotation_no = ?", (row_no,)
            ).fetchone()
            if row is None or row[0] is None:
                continue  # one of the others had its key
            waits_ns, waits_in, *values = row
            annotation = annotation_of(values)
            if annotation.target is _T.SESSION:
                place: tuple[Any, ...] = (trace.project_id, None, None, None)
            elif annotation.target is _T.TRACE or _has_span(conn, trace.trace_pk, annotation.span_id):
                place = (trace.project_id, trace.trace_pk, None, None)
            else:
                place = (trace.project_id, trace.trace_pk, waits_ns, waits_in)
            if annotation.target is not _T.SESSION:
                annotation = annotation._replace(trace_id=trace.trace_id)
            settle_in(conn, row_no, place, annotation)


_WAITING = (
    f"SELECT annotation_no FROM annotation a WHERE waits_ns IS NOT NULL AND NOT {HIDDEN_ANNOTATION} "
    "AND EXISTS (SELECT 1 FROM json_each(waits_in) AS w WHERE w.value IN (SELECT value FROM json_each(?1))) AND"
)


def _has_span(conn: apsw.Connection, trace_pk: int, span_id: str | None) -> bool:
    return bool(
        conn.execute("SELECT EXISTS (SELECT 1 FROM span WHERE trace_pk = ? AND span_id = ?)", (trace_pk, span_id)).get
    )


def settle_in(conn: apsw.Connection, row_no: int, place: tuple[Any, ...], annotation: Annotation) -> None:
    """Move a waiting row to its place. If its key is taken there, the later word stays, in the older row."""
    key = key_of(annotation)
    retire_keys(conn, place[0], key)
    rival: Any = conn.execute(
        "SELECT annotation_no, annotation_id, created_ns, updated_ns FROM annotation "
        "WHERE project_id = ? AND key = ? AND annotation_no <> ?",
        (place[0], key, row_no),
    ).fetchone()
    if rival is None:
        conn.execute(_UPDATE, (place[0], key, *place[1:], *annotation, row_no))
        return
    conn.execute("DELETE FROM annotation WHERE annotation_no = ?", (row_no,))
    rival_no, annotation_id, created_ns, updated_ns = rival
    if annotation.updated_ns >= updated_ns:
        kept = annotation._replace(annotation_id=annotation_id, created_ns=created_ns)
        conn.execute(_UPDATE, (place[0], key, *place[1:], *kept, rival_no))


def leave_session(conn: apsw.Connection, project_id: int, session_id: str, now_ns: int) -> bool:
    """If no trace is part of that session any more, what was said of it waits; whether anything does."""
    conn.execute(
        "UPDATE annotation SET waits_ns = ?3, waits_in = json_array(?1) WHERE project_id = ?1 AND session_id = ?2 "
        "AND waits_ns IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM trace t WHERE t.project_id = ?1 AND t.session_id = ?2)",
        (project_id, session_id, now_ns),
    )
    return conn.changes() > 0


def sessions_are_annotated(conn: apsw.Connection) -> bool:
    """Whether anything was said of any session."""
    return bool(conn.execute("SELECT EXISTS (SELECT 1 FROM annotation WHERE session_id IS NOT NULL)").get)


def bind_sessions(conn: apsw.Connection, trace_pks: str) -> None:
    """Before traces are purged: what was said of sessions of which they are the last traces is theirs from now on.

    Args:
        trace_pks: a JSON array.
    """
    if not sessions_are_annotated(conn):
        return
    conn.execute(
        "UPDATE annotation SET trace_pk = last.trace_pk FROM ("
        "SELECT t.project_id, t.session_id, max(t.trace_pk) AS trace_pk FROM json_each(?1) AS w "
        "CROSS JOIN trace t ON t.trace_pk = w.value WHERE t.session_id IS NOT NULL GROUP BY 1, 2) AS last "
        "WHERE annotation.session_id = last.session_id AND annotation.project_id = last.project_id "
        "AND annotation.trace_pk IS NULL AND NOT EXISTS (SELECT 1 FROM trace o WHERE o.project_id = last.project_id "
        "AND o.session_id = last.session_id AND o.trace_pk NOT IN (SELECT value FROM json_each(?1)))",
        (trace_pks,),
    )


def patch(
    conn: apsw.Connection, scope: Scope, annotation_id: str, change: AnnotationChange
) -> tuple[AnnotationRow | None, int | None]:
    """See AnnotationWriter.patch_annotation. Returns also the trace whose annotation changed."""
    found = annotation_listing.rows(conn, scope, AnnotationQuery(annotation_ids=(annotation_id,)), limit=1)
    if not found:
        return None, None
    row = found[0]
    unknown = change.fields.keys() - CHANGEABLE
    if unknown:
        raise ValueError(f"fields that cannot be changed: {sorted(unknown)}")
    annotation = row.annotation._replace(
        **dict(change.fields),  # type: ignore[arg-type]
        extra=merged_extra(row.annotation.extra, change),
        updated_ns=change.updated_ns,
        key_id=change.key_id,
        user_id=change.user_id,
    )
    columns = ", ".join(f"{name} = ?" for name in _FIELDS)
    trace_pk = conn.execute(
        f"UPDATE annotation SET {columns} WHERE annotation_no = ? RETURNING trace_pk", (*annotation, row.row_no)
    ).get
    return row._replace(annotation=annotation), trace_pk


def merged_extra(old: bytes | None, change: AnnotationChange) -> bytes | None:
    """`extra` with a change laid over it."""
    merged = {**(orjson.loads(old) if old else {}), **change.extra}
    left = {name: value for name, value in merged.items() if value is not None}
    return orjson.dumps(left) if left else None


def widen(conn: apsw.Connection, project_ids: Sequence[int]) -> int:
    """See AnnotationWriter.widen_waiting. Cost: O(waiting)."""
    projects = orjson.dumps([*project_ids, NEW_PROJECTS]).decode()
    widened: Any = conn.execute(
        "UPDATE annotation SET waits_in = ?1 WHERE waits_ns IS NOT NULL AND trace_pk IS NULL AND waits_in <> ?1 "
        "AND project_id IN (SELECT value FROM json_each(?1)) "
        f"AND {NEW_PROJECTS} IN (SELECT value FROM json_each(waits_in)) RETURNING trace_id, session_id, span_id",
        (projects,),
    ).fetchall()
    trace_ids, session_ids = ([row[n] for row in widened if row[n] is not None] for n in (0, 1))
    came: dict[int, list[str]] = {
        trace_pk: []
        for column, index, wanted in (
            ("trace_id", "trace_by_id", trace_ids),
            ("session_id", "trace_by_session", session_ids),
        )
        for (trace_pk,) in conn.execute(
            "SELECT t.trace_pk FROM json_each(?1) AS p CROSS JOIN json_each(?2) AS w "
            f"CROSS JOIN trace t INDEXED BY {index} ON t.project_id = p.value AND t.{column} = w.value "
            f"AND t.{column} IS NOT NULL",
            (projects, orjson.dumps(wanted).decode()),
        )
    }
    own_ids = {span_id for trace_id, _, span_id in widened if trace_id is None and span_id is not None}
    for trace_pk, span_id in places_by_own_id(conn, project_ids, own_ids):
        came.setdefault(trace_pk, []).append(span_id)
    attach(conn, came.items())
    return len(widened)


def purge_of_project(conn: apsw.Connection, project_id: int) -> int:
    """See AnnotationWriter.purge_project_annotations."""
    conn.execute(
        "DELETE FROM annotation WHERE annotation_no IN (SELECT annotation_no FROM annotation "
        "INDEXED BY annotation_by_project WHERE project_id = ? AND trace_pk IS NULL LIMIT ?)",
        (project_id, EXPIRE_MAX),
    )
    return conn.changes()


def expire(conn: apsw.Connection, before_ns: int) -> int:
    """See AnnotationWriter.expire_annotations."""
    conn.execute(
        "DELETE FROM annotation WHERE annotation_no IN "
        "(SELECT annotation_no FROM annotation WHERE waits_ns < ? ORDER BY waits_ns LIMIT ?)",
        (before_ns, EXPIRE_MAX),
    )
    gone = conn.changes()
    conn.execute("UPDATE store_fact SET value = value + ? WHERE name = 'annotations_expired'", (gone,))
    return gone
