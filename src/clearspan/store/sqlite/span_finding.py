"""Finding spans by their ids alone, and what came with them: the reader's part of SpanReader that needs no filter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import apsw
import orjson

from clearspan.ingest.payload import decode_block, record_bytes
from clearspan.model.errors import NotFound
from clearspan.model.runs import derived_from, is_hashed, is_run_id, may_be_hashed, run_id_of
from clearspan.model.trace import Scope
from clearspan.store.port import PlannedTrace, SpanDetail
from clearspan.store.span_deletion import parse_name, render_name
from clearspan.store.spans import AttachmentInfo, SpanRow, pieces_of
from clearspan.store.sqlite import attachments
from clearspan.store.sqlite.attachments import VISIBLE, visible_params
from clearspan.store.sqlite.rows import SPAN_COLUMNS, TRACE_COLUMNS, block_range, context_of, span_of, trace_row

Place = tuple[int, str]  # trace_pk, span_id

NOT_HEX32: Final = "(length({0}) <> 32 OR {0} GLOB '*[^0-9a-f]*')"
"""Whether a column, put in by `format`, holds something else than 32 hex digits."""
_IN_PROJECTS: Final = "t.project_id IN (SELECT value FROM json_each(?))"

BUCKET_ID_CHARS: Final = 16
BUCKET_BITS: Final = 10
"""A bucket of the index `span_by_bucket` holds the spans of 2 ** BUCKET_BITS traces, by order of arrival."""

# All buckets there are, the ids inside each: every probe of one bucket is made while its pages are at hand.
_IN_BUCKETS: Final = (
    f"WITH RECURSIVE bucket (no) AS (SELECT max(trace_pk) >> {BUCKET_BITS} FROM trace UNION ALL "
    f"SELECT no - 1 FROM bucket WHERE no > (SELECT min(trace_pk) >> {BUCKET_BITS} FROM trace)) "
    "SELECT s.trace_pk, s.span_id FROM bucket AS b CROSS JOIN json_each(?) AS w "
    f"CROSS JOIN span s INDEXED BY span_by_bucket ON s.trace_pk >> {BUCKET_BITS} = b.no AND s.span_id = w.value "
    f"AND length(s.span_id) = 16 CROSS JOIN trace t USING (trace_pk) WHERE {_IN_PROJECTS}"
)

_BY_OWN_ID: Final = (
    "SELECT s.trace_pk, s.span_id FROM json_each(?) AS w CROSS JOIN span s INDEXED BY span_by_id "
    "ON s.span_id = w.value AND length(s.span_id) <> 16 "
    f"CROSS JOIN trace t USING (trace_pk) WHERE {_IN_PROJECTS}"
)

# Where spans can be that have a UUIDv5: each statement is tried only if those before it have not found every id.
_HASHED: Final = (
    "SELECT t.trace_pk, t.trace_id, t.root_span_id, s.span_id FROM trace t INDEXED BY trace_by_id "
    f"CROSS JOIN span s USING (trace_pk) WHERE {_IN_PROJECTS} AND {NOT_HEX32.format('t.trace_id')}",
    "SELECT t.trace_pk, t.trace_id, t.root_span_id, s.span_id FROM span s INDEXED BY span_by_id "
    f"CROSS JOIN trace t USING (trace_pk) WHERE {_IN_PROJECTS} AND length(s.span_id) <> 16 "
    f"AND {NOT_HEX32.format('s.span_id')}",
    "SELECT t.trace_pk, t.trace_id, t.root_span_id, s.span_id FROM trace t INDEXED BY trace_by_id "
    f"CROSS JOIN span s USING (trace_pk) WHERE {_IN_PROJECTS} AND length(s.span_id) = 16 "
    "AND s.span_id GLOB '*[^0-9a-f]*'",
)


class SpanFinding:
    """Mixed into reader.SqliteReader."""

    _limited: Callable[[], AbstractContextManager[tuple[apsw.Connection, Callable[[], None]]]]

    def find_spans(self, scope: Scope, span_ids: Sequence[str]) -> list[SpanRow]:
        """See SpanReader.find_spans. Cost: 350 µs for one span, 100 µs each of many, mostly their blocks; a UUIDv5
        that is nowhere reads the ids of all spans in the scope that may have one. An id of 16 characters costs 1 to
        3 µs for each 1,024 traces that the store holds, of any project."""
        with self._limited() as (conn, check):
            run_ids = set(filter(is_run_id, span_ids))
            places = _places(conn, scope, run_ids, check)
            return _rows(conn, places + places_by_own_id(conn, scope.project_ids, set(span_ids) - run_ids), scope)

    def list_attachments(
        self, scope: Scope, keys: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], list[AttachmentInfo]]:
        """See SpanReader.list_attachments."""
        with self._limited() as (conn, _):
            return attachments.infos(conn, scope, keys)

    def read_attachment(
        self, scope: Scope, trace_id: str, span_id: str, name: str
    ) -> tuple[AttachmentInfo, Iterator[bytes]] | None:
        """See SpanReader.read_attachment. Each piece is a snapshot of its own: a slow download keeps nobody from
        emptying the write-ahead log."""
        with self._limited() as (conn, _):
            found = attachments.find(conn, scope, trace_id, span_id, name)
        if found is None:
            return None
        return found[0], self._pieces(*found)

    def _pieces(self, info: AttachmentInfo, trace_pk: int, first: int) -> Iterator[bytes]:
        for number in range(pieces_of(info.size_bytes)):
            with self._limited() as (conn, _):
                data = attachments.piece(conn, trace_pk, first + number)
            if data is None:
                raise NotFound("This attachment is not there any more.")
            yield data


def _places(conn: apsw.Connection, scope: Scope, wanted: set[str], check: Callable[[], None]) -> list[Place]:
    """Where the spans of those run ids are, visible or not."""
    ids, projects = orjson.dumps(sorted(wanted)).decode(), orjson.dumps(scope.project_ids).decode()
    found: dict[Place, str] = {
        (trace_pk, span_id): span_id for trace_pk, span_id in conn.execute(_BY_OWN_ID, (ids, projects))
    }
    for trace_pk, span_id, trace_id in conn.execute(
        "SELECT t.trace_pk, t.root_span_id, t.trace_id FROM trace t INDEXED BY trace_by_id "
        f"WHERE {_IN_PROJECTS} AND t.trace_id IN (SELECT value FROM json_each(?)) AND t.root_span_id IS NOT NULL",
        (projects, ids),
    ):
        if run_id_of(trace_id, span_id, True) == trace_id:
            found[trace_pk, span_id] = trace_id
    for run_id in wanted:
        found |= dict.fromkeys(derived_places(conn, projects, run_id), run_id)
    missing = {run_id for run_id in wanted - set(found.values()) if may_be_hashed(run_id)}
    for sql in _HASHED:
        if not missing:
            break
        for trace_pk, trace_id, root_id, span_id in conn.execute(sql, (projects,)):
            check()
            if is_hashed(trace_id, span_id, span_id == root_id):
                run_id = run_id_of(trace_id, span_id, span_id == root_id)
                if run_id in missing:
                    found[trace_pk, span_id] = run_id
        missing -= set(found.values())
    return list(found)


def places_by_own_id(conn: apsw.Connection, project_ids: Iterable[int], span_ids: Iterable[str]) -> list[Place]:
    """Where the spans of these projects are that are called so themselves, visible or not: (trace_pk, span_id).

    Cost: see find_spans; 10 µs for each id that is not 16 characters long.
    """
    wanted, projects = sorted(set(span_ids)), orjson.dumps(list(project_ids)).decode()
    found: list[Place] = []
    for sql, ids in (
        (_IN_BUCKETS, [each for each in wanted if len(each) == BUCKET_ID_CHARS]),
        (_BY_OWN_ID, [each for each in wanted if len(each) != BUCKET_ID_CHARS]),
    ):
        rows: Any = conn.execute(sql, (orjson.dumps(ids).decode(), projects)) if ids else ()
        found += [(trace_pk, span_id) for trace_pk, span_id in rows]
    return found


def plan_spans(conn: apsw.Connection, scope: Scope, names: Sequence[str]) -> list[PlannedTrace]:
    """See port.DeletionStore.plan_spans."""
    places: list[Place] = []
    for name in filter(None, map(parse_name, names)):
        found: Any = conn.execute(
            "SELECT t.trace_pk, s.span_id FROM json_each(?) AS p CROSS JOIN trace t ON t.project_id = p.value "
            "AND t.trace_id = ? CROSS JOIN span s ON s.trace_pk = t.trace_pk AND s.span_id = ?",
            (orjson.dumps(scope.project_ids).decode(), *name),
        )
        places += [(trace_pk, span_id) for trace_pk, span_id in found]
    places += places_by_own_id(conn, scope.project_ids, {name for name in names if parse_name(name) is None})
    rows: Any = conn.execute(
        f"SELECT t.trace_pk, t.project_id, t.trace_id FROM trace t WHERE {VISIBLE} "
        "AND t.trace_pk IN (SELECT value FROM json_each(?))",
        (*visible_params(scope), orjson.dumps(sorted({pk for pk, _ in places})).decode()),
    )
    traces = {pk: (project_id, trace_id) for pk, project_id, trace_id in rows}
    return sorted(
        PlannedTrace(pk, traces[pk][0], render_name(traces[pk][1], span_id))
        for pk, span_id in set(places)
        if pk in traces
    )


def derived_places(conn: apsw.Connection, projects: str, run_id: str) -> list[Place]:
    """The spans that a UUIDv8 of ours was worked out from, visible or not; `projects` is a JSON list."""
    derived = derived_from(run_id)
    if derived is None:
        return []
    return [
        (trace_pk, derived.span_id)
        for trace_pk, trace_id, root_id in conn.execute(
            "SELECT t.trace_pk, t.trace_id, t.root_span_id FROM trace t INDEXED BY trace_by_id CROSS JOIN span s "
            f"ON s.trace_pk = t.trace_pk AND s.span_id = ? WHERE {_IN_PROJECTS} AND t.trace_id BETWEEN ? AND ?",
            (derived.span_id, projects, derived.trace_id_min, derived.trace_id_max),
        )
        if run_id_of(trace_id, derived.span_id, derived.span_id == root_id) == run_id
    ]


def _rows(conn: apsw.Connection, places: Sequence[Place], scope: Scope) -> list[SpanRow]:
    """The visible ones of those spans with their records, by (trace_pk, span_id); each block is read once."""
    traces: dict[int, Any] = {}
    by_block: dict[int, list[tuple[int, list[Any]]]] = defaultdict(list)
    for values in conn.execute(
        f"SELECT {', '.join('t.' + name for name in TRACE_COLUMNS.split(', '))} FROM trace t "
        f"WHERE {VISIBLE} AND t.trace_pk IN (SELECT value FROM json_each(?))",
        (*visible_params(scope), orjson.dumps(sorted({pk for pk, _ in places})).decode()),
    ):
        traces[values[0]] = trace_row(values)
    for trace_pk, *values, block_no in conn.execute(
        f"SELECT s.trace_pk, {', '.join('s.' + name for name in SPAN_COLUMNS.split(', '))}, s.block_no "
        "FROM json_each(?) AS w CROSS JOIN span s ON s.trace_pk = w.value ->> 0 AND s.span_id = w.value ->> 1",
        (orjson.dumps(sorted(place for place in places if place[0] in traces)).decode(),),
    ):
        by_block[block_range(trace_pk)[0] + block_no].append((trace_pk, values))
    rows: list[SpanRow] = []
    for block_id, members in by_block.items():
        block = decode_block(conn.execute("SELECT data FROM block WHERE block_id = ?", (block_id,)).get)
        records = {record.id: record for record in block.records}
        for trace_pk, values in members:
            span = span_of(values)
            context = context_of(
                conn.execute(
                    "SELECT body FROM context WHERE trace_pk = ? AND context_key = ?", (trace_pk, span.context_key)
                ).get
            )
            detail = SpanDetail(span, context, record_bytes(block, records[span.span_id]))
            rows.append(SpanRow(traces[trace_pk], detail))
    return sorted(rows, key=lambda row: (row.trace.trace_pk, row.detail.span.span_id))
