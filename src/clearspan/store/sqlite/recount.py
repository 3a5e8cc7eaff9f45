"""Counting rows of traces target by target, with statements that share nothing with the purge's. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw
import orjson

from clearspan.store.sqlite import annotating, text_index
from clearspan.store.sqlite.rows import BLOCK_BITS

CHUNK = 2_000
"""Traces that one round of statements counts: bounds memory, not the number of traces."""

_ROWS_OF = {
    **{
        table: f"SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN {table} ON trace_pk = wanted.value"
        for table in ("trace", "span", "log", "context", "metadata", "annotation", "attachment", "hidden")
    },
    "block": (
        "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN block "
        f"ON block_id >= wanted.value << {BLOCK_BITS} AND block_id < (wanted.value + 1) << {BLOCK_BITS}"
    ),
    "attachment_piece": (
        "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN attachment_piece "
        f"ON piece_id >= wanted.value << {BLOCK_BITS} AND piece_id < (wanted.value + 1) << {BLOCK_BITS}"
    ),
}


_PLANNED = {target: sql for target, sql in _ROWS_OF.items() if target not in ("trace", "span")}
_TRACES_AND_SPANS = (
    "SELECT count(*), coalesce(sum(span_count), 0) FROM json_each(?) AS wanted CROSS JOIN trace "
    "ON trace_pk = wanted.value"
)


def count_planned(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    """Rows of those traces, table by table, for a plan. Spans as the rows of their traces tell them: those lie on a
    quarter of the pages. Of sealed text signatures it counts the traces, without reading bits.

    What is to be proved absent is counted by `remaining`, which believes no counter.
    Cost: 4 µs a trace of ten spans; memory for the list and one chunk.
    """
    counts = Counter({"trace": 0, "span": 0, **_count(conn, trace_pks, _PLANNED)})
    for chunk in _chunks(trace_pks):
        found: Any = conn.execute(_TRACES_AND_SPANS, (orjson.dumps(chunk).decode(),)).fetchone()
        counts["trace"] += found[0]
        counts["span"] += found[1]
    counts["annotation"] += _count_of_sessions(conn, trace_pks)
    for chunk in _chunks(trace_pks):
        counts["text_signature"] += conn.execute(
            "SELECT (SELECT count(*) FROM json_each(?1) AS wanted CROSS JOIN text_doc ON trace_pk = wanted.value) + "
            "(SELECT count(*) FROM json_each(?1) WHERE value / ?2 IN (SELECT segment FROM text_segment))",
            (orjson.dumps(chunk).decode(), text_index.SEGMENT_TRACES),
        ).get
    return dict(counts)


def _count_of_sessions(conn: apsw.Connection, trace_pks: Sequence[int]) -> int:
    """What was said of sessions that have no trace but these: the purge of their last one takes it."""
    mine: Counter[tuple[int, str]] = Counter()
    if not annotating.sessions_are_annotated(conn):
        return 0
    for chunk in _chunks(trace_pks):
        for project_id, session_id, count in conn.execute(_ANNOTATED_SESSIONS, (orjson.dumps(chunk).decode(),)):
            mine[project_id, session_id] += count
    total = 0
    for session, count in mine.items():
        annotations, traces = conn.execute(_SESSION_SIZE, session).fetchone()  # type: ignore[misc]
        total += annotations if traces == count else 0
    return total


_ANNOTATED_SESSIONS = (
    "SELECT t.project_id, t.session_id, count(*) FROM json_each(?) AS wanted CROSS JOIN trace t "
    "ON t.trace_pk = wanted.value WHERE EXISTS (SELECT 1 FROM annotation a WHERE a.session_id = t.session_id "
    "AND a.project_id = t.project_id) GROUP BY 1, 2"
)
_SESSION_SIZE = (
    "SELECT (SELECT count(*) FROM annotation WHERE project_id = ?1 AND session_id = ?2 AND trace_pk IS NULL), "
    "(SELECT count(*) FROM trace WHERE project_id = ?1 AND session_id = ?2)"
)


def _count(conn: apsw.Connection, trace_pks: Sequence[int], sql_of: Mapping[str, str]) -> Counter[str]:
    counts = Counter(dict.fromkeys(sql_of, 0))
    for chunk in _chunks(trace_pks):
        pks = orjson.dumps(chunk).decode()
        counts.update({target: int(conn.execute(sql, (pks,)).get) for target, sql in sql_of.items()})
    return counts


def remaining(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    """Rows left of those traces, table by table, with statements that share nothing with the purge's.

    Cost: 20 µs a trace, and 0.5 ms for each sealed segment of the text index, whose bits are read.
    """
    counts = dict(_count(conn, trace_pks, _ROWS_OF))
    counts["text_signature"] = sum(text_index.count(conn, chunk) for chunk in _chunks(trace_pks))
    return counts


def remaining_annotations(conn: apsw.Connection, row_nos: Sequence[int]) -> dict[str, int]:
    """The same of annotations that are deleted by themselves, by their numbers. Cost: 2 µs each."""
    counts = Counter(dict.fromkeys((*_ROWS_OF, "text_signature"), 0))
    for chunk in _chunks(row_nos):
        numbers = orjson.dumps(chunk).decode()
        for table in ("annotation", "hidden_annotation"):
            counts[table] += conn.execute(
                f"SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN {table} ON annotation_no = wanted.value",
                (numbers,),
            ).get
    return dict(counts)


def _chunks(trace_pks: Sequence[int]) -> Iterator[list[int]]:
    ordered = sorted(set(trace_pks))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
