"""Every stored invariant of traces.db, checked from the base tables. Reads only; the server may run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from clearspan.files.pages import scan_database
from clearspan.files.vfs import open_reader
from clearspan.ingest.payload import decode_block
from clearspan.ingest.rollup import summarise
from clearspan.model.errors import StoreDamaged
from clearspan.model.span import LogRecord, Span
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.sqlite import attachments, text_index
from clearspan.store.sqlite.deletion_rows import CANCELLED, REFUSING
from clearspan.store.sqlite.rows import (
    BLOCK_BITS,
    HOUR_NS,
    LOG_COLUMNS,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    context_of,
    span_of,
    trace_values,
)
from clearspan.store.sqlite.schema import migrations

_SHOWN = 5

# Rows of one table that point to nothing in another.
_DANGLING = {
    "span without trace": "SELECT count(*) FROM span WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "log without trace": "SELECT count(*) FROM log WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "context without trace": "SELECT count(*) FROM context WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "metadata without trace": "SELECT count(*) FROM metadata WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "block without trace": (
        f"SELECT count(*) FROM block WHERE block_id >> {BLOCK_BITS} NOT IN (SELECT trace_pk FROM trace)"
    ),
    "hidden mark without trace": "SELECT count(*) FROM hidden WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "hidden mark without deletion": (
        "SELECT count(*) FROM hidden WHERE deletion_no NOT IN (SELECT deletion_no FROM deletion)"
    ),
    "tombstone without deletion": (
        "SELECT count(*) FROM tombstone WHERE deletion_no NOT IN (SELECT deletion_no FROM deletion)"
    ),
    "settled deletion with plain request": "SELECT count(*) FROM deletion WHERE settled AND request IS NOT NULL",
    "settled deletion with trace ids": (
        "SELECT count(*) FROM manifest JOIN deletion USING (deletion_no) WHERE settled AND trace_id IS NOT NULL"
    ),
    "settled manifest of annotations with ids or without leaf": (
        "SELECT count(*) FROM annotation_manifest JOIN deletion USING (deletion_no) "
        "WHERE settled AND (annotation_id IS NOT NULL OR leaf IS NULL)"
    ),
    "settled manifest without leaf": (
        "SELECT count(*) FROM manifest JOIN deletion USING (deletion_no) "
        "WHERE settled AND manifest_salt IS NOT NULL AND leaf IS NULL"
    ),
    "hidden mark without manifest": (
        "SELECT count(*) FROM hidden h WHERE NOT EXISTS "
        "(SELECT 1 FROM manifest m WHERE m.deletion_no = h.deletion_no AND m.trace_pk = h.trace_pk)"
    ),
    "hidden mark of a staged or cancelled deletion": (
        f"SELECT count(*) FROM hidden JOIN deletion USING (deletion_no) WHERE NOT {REFUSING}"
    ),
    "hidden mark that the purge has passed": (
        "SELECT count(*) FROM hidden JOIN deletion USING (deletion_no) WHERE trace_pk <= purged_to"
    ),
    "cancelled deletion with plain request": (
        f"SELECT count(*) FROM deletion WHERE phase = {CANCELLED} AND request IS NOT NULL"
    ),
    "deletion that hid another number than its manifest has": (
        "SELECT count(*) FROM deletion d WHERE phase = 1 AND hidden <> "
        "(SELECT count(*) FROM manifest m WHERE m.deletion_no = d.deletion_no) + "
        "(SELECT count(*) FROM annotation_manifest m WHERE m.deletion_no = d.deletion_no)"
    ),
    "hidden mark of an annotation without a line of its deletion's manifest": (
        "SELECT count(*) FROM hidden_annotation h WHERE NOT EXISTS (SELECT 1 FROM annotation_manifest m "
        "WHERE m.deletion_no = h.deletion_no AND m.annotation_no = h.annotation_no)"
    ),
    "hidden mark of an annotation of a staged or cancelled deletion": (
        f"SELECT count(*) FROM hidden_annotation JOIN deletion USING (deletion_no) WHERE NOT {REFUSING}"
    ),
    # A child accounts for every trace that its parent gave it.
    "child with another number of traces or annotations than its parent gave": (
        "SELECT count(*) FROM deletion c JOIN deletion p ON p.deletion_no = c.parent_no "
        f"WHERE c.{REFUSING} AND p.held <> c.no_longer_matching + c.already_absent + c.held + "
        "(SELECT count(*) FROM manifest m WHERE m.deletion_no = c.deletion_no) + "
        "(SELECT count(*) FROM annotation_manifest m WHERE m.deletion_no = c.deletion_no)"
    ),
    "child without parent": ("SELECT count(*) FROM deletion WHERE parent_no NOT IN (SELECT deletion_no FROM deletion)"),
    "released hold with plain request": (
        "SELECT count(*) FROM hold WHERE (released_ns IS NULL) <> (request IS NOT NULL)"
    ),
    "annotation of a trace that is not there": (
        "SELECT count(*) FROM annotation WHERE trace_pk IS NOT NULL AND trace_pk NOT IN (SELECT trace_pk FROM trace)"
    ),
    "annotation in another project or trace than it says": (
        "SELECT count(*) FROM annotation a JOIN trace t USING (trace_pk) WHERE a.target <> 'session' "
        "AND (a.project_id <> t.project_id OR a.trace_id <> t.trace_id) "
        # A span that was deleted by itself is a hidden trace, named after both: store/span_deletion.py.
        "AND substr(t.trace_id, 1, length(a.trace_id) + 1) <> a.trace_id || '/'"
    ),
    "annotation that is wrong about whether its span is the root": (
        "SELECT count(*) FROM annotation a LEFT JOIN trace t USING (trace_pk) "
        "WHERE a.of_root <> coalesce(a.target = 'span' AND a.span_id = t.root_span_id, 0)"
    ),
    "annotation that waits for what is there, or does not wait for what is not": (
        # A hidden one is passed over while its target comes: it is looked for if the deletion is cancelled.
        f"SELECT count(*) FROM annotation a LEFT JOIN trace t USING (trace_pk) WHERE NOT {HIDDEN_ANNOTATION} "
        "AND (waits_ns IS NOT NULL) <> "
        "CASE target WHEN 'project' THEN 0 WHEN 'trace' THEN t.trace_pk IS NULL "
        "WHEN 'session' THEN NOT EXISTS (SELECT 1 FROM trace s WHERE s.project_id = a.project_id "
        "AND s.session_id = a.session_id) ELSE NOT EXISTS "
        "(SELECT 1 FROM span s WHERE s.trace_pk = a.trace_pk AND s.span_id = a.span_id) END"
    ),
    "trace_pk that may be handed out again": (
        "SELECT count(*) FROM trace WHERE trace_pk >= (SELECT value FROM store_fact WHERE name = 'next_trace_pk')"
    ),
}


class Violation(NamedTuple):
    """One invariant that does not hold; `where` names store handles, never content."""

    invariant: str
    count: int  # type: ignore[assignment]  # of rows or bytes; hides tuple.count, which nobody needs here
    where: str = ""


class Report(NamedTuple):
    """The outcome of one check."""

    traces: int
    spans: int
    blocks: int
    violations: list[Violation]


def check(data: Path, *, pages: bool = True) -> Report:
    """Check the trace store of a data directory.

    Args:
        pages: also parse every page of the file for bytes that deletion should have zeroed; right only when no
            server writes meanwhile.
    Cost: reads everything once; about 40 µs a span.
    Raises:
        apsw.CantOpenError: there is no store.
    """
    path = data / "traces.db"
    conn = open_reader(path, cache_mib=64)
    conn.execute("BEGIN")
    try:
        violations = list(_whole_file(conn))
        for name, sql in _DANGLING.items():
            if found := conn.execute(sql).get:
                violations.append(Violation(name, found))
        violations += _traces(conn)
        violations += _counters(conn)
        violations += [Violation(*each) for each in (*text_index.check(conn), *attachments.faults(conn))]
        traces, spans, blocks = (conn.execute(f"SELECT count(*) FROM {t}").get for t in ("trace", "span", "block"))
    finally:
        conn.close()
    if pages:
        violations += _pages(path)
    return Report(traces, spans, blocks, violations)


def _whole_file(conn: apsw.Connection) -> Iterator[Violation]:
    version = int(conn.pragma("user_version"))
    if version != migrations()[-1].number:
        yield Violation("schema version is this program's", 1, f"it is {version}")
    messages = [text for (text,) in conn.execute("PRAGMA integrity_check(10)")]
    if messages != ["ok"]:
        yield Violation("SQLite integrity check", len(messages), messages[0][:200])


def _traces(conn: apsw.Connection) -> Iterator[Violation]:
    """Each summary equals the one its spans give; each row's bytes are in its block."""
    bad: dict[str, list[int]] = {}
    reading = conn.execute(f"SELECT {TRACE_COLUMNS} FROM trace ORDER BY trace_pk")
    for row in reading:
        for invariant in _trace_faults(conn, row):
            bad.setdefault(invariant, []).append(row[0])
    for invariant, pks in bad.items():
        yield Violation(invariant, len(pks), "trace_pk " + ", ".join(map(str, pks[:_SHOWN])))


def _trace_faults(conn: apsw.Connection, row: tuple[object, ...]) -> Iterator[str]:
    trace_pk, project_id, trace_id, received_ns = row[0], row[1], row[2], row[6]
    contexts = {
        key: context_of(body)
        for key, body in conn.execute("SELECT context_key, body FROM context WHERE trace_pk = ?", (trace_pk,))
    }
    spans: list[Span] = []
    logs: list[LogRecord] = []
    wanted = Counter[tuple[Any, object]]()
    for *values, block_no in conn.execute(f"SELECT {SPAN_COLUMNS}, block_no FROM span WHERE trace_pk = ?", (trace_pk,)):
        spans.append(span_of(values))
        wanted[block_no, spans[-1].span_id] += 1
    for *values, block_no in conn.execute(f"SELECT {LOG_COLUMNS}, block_no FROM log WHERE trace_pk = ?", (trace_pk,)):
        logs.append(LogRecord._make(values))
        wanted[block_no, logs[-1].log_hash] += 1
    if {span.context_key for span in spans} | {log.context_key for log in logs} != contexts.keys():
        yield "contexts are those that spans and logs name"
        return
    if not spans and not logs:
        yield "a trace has spans or logs"
        return
    summary = summarise(str(trace_id), spans, logs, contexts)
    if trace_values(trace_pk, project_id, received_ns, summary) != row:  # type: ignore[arg-type]
        yield "summary equals the one recomputed from spans"
    pairs = conn.execute("SELECT key, value FROM metadata WHERE trace_pk = ? ORDER BY 1, 2", (trace_pk,)).fetchall()
    if sorted(summary.metadata_all) != sorted(pairs):
        yield "metadata index holds exactly the pairs of the spans"
    held: set[tuple[int, object]] = set()
    for block_id, data in conn.execute(
        "SELECT block_id, data FROM block "
        f"WHERE block_id >= ?1 << {BLOCK_BITS} AND block_id < (?1 + 1) << {BLOCK_BITS}",
        (trace_pk,),
    ):
        try:
            held |= {(block_id & ((1 << BLOCK_BITS) - 1), record.id) for record in decode_block(data).records}
        except StoreDamaged:
            yield "blocks can be read"
    if not wanted.keys() <= held:
        yield "wire bytes of every span and log are in its block"


def _counters(conn: apsw.Connection) -> Iterator[Violation]:
    counted = Counter[tuple[int, int, str]]()
    for project_id, start_ns, environment in conn.execute(
        "SELECT project_id, start_ns, coalesce(environment, '') FROM trace "
        "WHERE trace_pk NOT IN (SELECT trace_pk FROM hidden)"
    ):
        counted[project_id, start_ns // HOUR_NS, environment] += 1
    stored = {row[:3]: row[3] for row in conn.execute("SELECT project_id, hour, environment, traces FROM trace_count")}
    wrong = sum(counted.get(key, 0) != stored.get(key, 0) for key in counted.keys() | stored.keys())
    if wrong:
        yield Violation("hour counters equal the visible traces", wrong)


def _pages(path: Path) -> Iterator[Violation]:
    report = scan_database(path)
    for kind, count in report.residue.items():
        yield Violation(f"no bytes left in {kind}", count)
    if report.malformed_pages:
        yield Violation("pages can be parsed", len(report.malformed_pages))
