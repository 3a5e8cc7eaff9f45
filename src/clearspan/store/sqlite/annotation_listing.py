"""Reading annotations: what of them a scope may see, and the index that each question enters by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import apsw
import orjson

from clearspan.model.trace import Scope
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.annotations import AnnotationFigures, AnnotationQuery, AnnotationRow
from clearspan.store.sqlite.annotation_rows import ROW_COLUMNS, row_of

_VISIBLE_TRACE = (
    "t.trace_pk NOT IN (SELECT trace_pk FROM hidden) AND (:environment IS NULL OR t.environment = :environment)"
)
_VISIBLE = f"""(NOT {HIDDEN_ANNOTATION}) AND (
    (a.target = 'project' AND :environment IS NULL)
    OR (a.target = 'session' AND a.trace_pk IS NULL AND (
        EXISTS (SELECT 1 FROM trace t INDEXED BY trace_by_session WHERE t.project_id = a.project_id
            AND t.session_id = a.session_id AND t.session_id IS NOT NULL AND {_VISIBLE_TRACE})
        OR (a.waits_ns IS NOT NULL AND :environment IS NULL)))
    OR (a.target NOT IN ('project', 'session') AND a.trace_pk IS NOT NULL
        AND EXISTS (SELECT 1 FROM trace t WHERE t.trace_pk = a.trace_pk AND {_VISIBLE_TRACE}))
    OR (a.target NOT IN ('project', 'session') AND a.trace_pk IS NULL AND :environment IS NULL)
)"""

# Query field → (column, index that finds it); the first one that is asked for is the way in.
_LISTS = {
    "annotation_ids": ("annotation_id", "annotation_by_id"),
    "span_ids": ("span_id", "annotation_by_span"),
    "trace_ids": ("trace_id", "annotation_by_trace_id"),
    "session_ids": ("session_id", "annotation_by_session"),
    "names": ("name", "annotation_by_name"),
    "identifiers": ("identifier", ""),
    "targets": ("target", ""),
    "kinds": ("kind", ""),
    "sources": ("source", ""),
    "user_ids": ("user_id", ""),
    "key_ids": ("key_id", ""),
}


def rows(
    conn: apsw.Connection,
    scope: Scope,
    query: AnnotationQuery,
    *,
    before_row: int | None = None,
    offset: int = 0,
    limit: int,
) -> list[AnnotationRow]:
    """See AnnotationReader.list_annotations. Cost: that of the rows which the narrowest condition finds."""
    if not scope.project_ids:
        return []
    parts, params = matching(scope, query)
    params |= {"before": before_row, "limit": limit, "offset": offset}
    if before_row is not None:
        parts.append("a.annotation_no < :before")
    if not query.annotation_ids:
        parts.append("a.waits_ns IS NULL")
    found = conn.execute(
        f"SELECT {ROW_COLUMNS} FROM annotation a {entry_of(scope, query)} WHERE {' AND '.join(parts)} "
        "ORDER BY a.annotation_no DESC LIMIT :limit OFFSET :offset",
        params,
    )
    return [row_of(values) for values in found]


def matching(scope: Scope, query: AnnotationQuery) -> tuple[list[str], dict[str, Any]]:
    """What must hold of an annotation `a` that matches and shows, those that wait included; with its parameters."""
    parts, params = _conditions(query)
    params |= {"environment": scope.environment, "projects": orjson.dumps(scope.project_ids).decode()}
    return [*parts, "a.project_id IN (SELECT value FROM json_each(:projects))", _VISIBLE], params


def _conditions(query: AnnotationQuery) -> tuple[list[str], dict[str, Any]]:
    parts: list[str] = []
    params: dict[str, Any] = {}
    for field, (column, _) in _LISTS.items():
        if wanted := getattr(query, field):
            parts.append(f"a.{column} IN (SELECT value FROM json_each(:{field}))")
            params[field] = orjson.dumps(sorted(set(wanted))).decode()
    if query.names_not:
        parts.append("a.name NOT IN (SELECT value FROM json_each(:names_not))")
        params["names_not"] = orjson.dumps(query.names_not).decode()
    for column, wanted in (("explanation", query.has_comment), ("score", query.has_score)):
        if wanted is not None:
            parts.append(f"a.{column} IS {'NOT ' if wanted else ''}NULL")
    for sign, bound, name in ((">=", query.created.start_ns, "since"), ("<", query.created.end_ns, "until")):
        if bound is not None:
            parts.append(f"a.created_ns {sign} :{name}")
            params[name] = bound
    return parts, params


def entry_of(scope: Scope, query: AnnotationQuery) -> str:
    """The index to enter by. SQLite has no statistics here and would guess, so each query names its way in."""
    for field, (_, index) in _LISTS.items():
        if index and getattr(query, field):
            return f"INDEXED BY {index}"
    # By the row number, downwards, until the page is full.
    return "INDEXED BY annotation_by_project" if len(scope.project_ids) == 1 else "NOT INDEXED"


def by_traces(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
    """See AnnotationReader.annotations_of. Cost: 3 µs a trace, 10 µs an annotation."""
    found: defaultdict[int, list[AnnotationRow]] = defaultdict(list)
    for trace_pk, *values in conn.execute(
        f"SELECT a.trace_pk, {ROW_COLUMNS} FROM json_each(?) AS w "
        "CROSS JOIN annotation a INDEXED BY annotation_by_trace ON a.trace_pk = w.value "
        "WHERE a.waits_ns IS NULL AND a.target <> 'session' AND a.trace_pk NOT IN (SELECT trace_pk FROM hidden) "
        f"AND NOT {HIDDEN_ANNOTATION} "
        "ORDER BY a.annotation_no",
        (orjson.dumps(sorted(set(trace_pks))).decode(),),
    ):
        found[trace_pk].append(row_of(values))
    return dict(found)


def figures(conn: apsw.Connection) -> AnnotationFigures:
    """See AnnotationReader.annotation_figures. Cost: O(waiting)."""
    row: Any = conn.execute(
        f"SELECT (SELECT count(*) FROM annotation a WHERE a.waits_ns IS NOT NULL AND NOT {HIDDEN_ANNOTATION}), "
        "(SELECT value FROM store_fact WHERE name = 'annotations_expired')"
    ).fetchone()
    return AnnotationFigures(*row)
