"""Hiding and purging in traces.db: each function is one transaction of the writer's connection.

What is planned, in which order and whether it worked is decided in clearspan.deletion; here rows go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import orjson

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.port import DeletionProgress, HideOutcome, PlannedTrace
from clearspan.store.sqlite import select, text_index
from clearspan.store.sqlite.rows import BLOCK_BITS, HOUR_NS, block_range
from clearspan.store.tombstone import tombstone_key

_IN_PKS = "IN (SELECT value FROM json_each(?))"

# Children before the trace's own row; each is one statement over a set of trace_pks.
_CHILDREN = {
    "span": f"DELETE FROM span WHERE trace_pk {_IN_PKS}",
    "log": f"DELETE FROM log WHERE trace_pk {_IN_PKS}",
    "context": f"DELETE FROM context WHERE trace_pk {_IN_PKS}",
    "metadata": f"DELETE FROM metadata WHERE trace_pk {_IN_PKS}",
}

_TRACES_LOOKED_AT = 1_000
_SEGMENTS_A_BATCH = 12
"""Of the text index: about 50 ms of the writer's time."""


def hide(
    conn: apsw.Connection,
    secret: bytes,
    deletion_id: str,
    scope: Scope,
    where: Expr | None,
    window: Window,
    manifest: Sequence[PlannedTrace],
    request: bytes,
) -> HideOutcome:
    """See port.DeletionStore.hide. Cost: about 5 µs a trace."""
    with conn:
        if (known := _outcome(conn, deletion_id)) is not None:
            return known
        pks = orjson.dumps([planned.trace_pk for planned in manifest]).decode()
        present = _count_present(conn, pks)
        hidden_pks = _still_matching(conn, scope, where, window, pks)
        outcome = HideOutcome(
            hidden=len(hidden_pks),
            no_longer_matching=present - len(hidden_pks),
            already_absent=len(manifest) - present,
        )
        conn.execute(
            "INSERT INTO deletion (deletion_id, request, hidden, no_longer_matching, already_absent) "
            "VALUES (?, ?, ?, ?, ?)",
            (deletion_id, request, *outcome[:3]),
        )
        deletion_no = conn.last_insert_rowid()
        hit = [planned for planned in manifest if planned.trace_pk in hidden_pks]
        conn.executemany(
            "INSERT INTO manifest (deletion_no, trace_pk, project_id, trace_id) VALUES (?, ?, ?, ?)",
            [(deletion_no, *planned) for planned in hit],
        )
        conn.executemany("INSERT INTO hidden VALUES (?, ?)", [(planned.trace_pk, deletion_no) for planned in hit])
        conn.executemany(
            "INSERT OR REPLACE INTO tombstone VALUES (?, ?)",
            [(tombstone_key(secret, planned.project_id, planned.trace_id), deletion_no) for planned in hit],
        )
        _uncount(conn, deletion_no)
    return outcome


def _still_matching(conn: apsw.Connection, scope: Scope, where: Expr | None, window: Window, pks: str) -> set[int]:
    found: set[int] = set()
    for project_id in scope.project_ids:
        plan = select.plan(scope, project_id, where, window, entry=select.Entry.GIVEN)
        rows = conn.execute(
            f"SELECT t.trace_pk FROM {plan.table} WHERE t.trace_pk {_IN_PKS} AND {plan.sql}", (pks, *plan.params)
        )
        found.update(pk for (pk,) in rows)
    return found


def _outcome(conn: apsw.Connection, deletion_id: str) -> HideOutcome | None:
    row = conn.execute(
        "SELECT hidden, no_longer_matching, already_absent FROM deletion WHERE deletion_id = ?", (deletion_id,)
    ).fetchone()
    return None if row is None else HideOutcome._make(row)


def _count_present(conn: apsw.Connection, pks: str) -> int:
    sql = f"SELECT count(*) FROM trace t WHERE t.trace_pk {_IN_PKS} AND t.trace_pk NOT IN (SELECT trace_pk FROM hidden)"
    return int(conn.execute(sql, (pks,)).get)


def _uncount(conn: apsw.Connection, deletion_no: int) -> None:
    """Take the traces of a manifest out of the exact counters of what is visible."""
    # Floor division for starts before 1970, too: SQLite's / rounds towards zero.
    hour = f"(t.start_ns - (((t.start_ns % {HOUR_NS}) + {HOUR_NS}) % {HOUR_NS})) / {HOUR_NS}"
    conn.execute(
        f"INSERT INTO trace_count (project_id, hour, environment, traces) "
        f"SELECT t.project_id, {hour}, coalesce(t.environment, ''), -count(*) "
        "FROM manifest m JOIN trace t USING (trace_pk) WHERE m.deletion_no = ? GROUP BY 1, 2, 3 "
        "ON CONFLICT DO UPDATE SET traces = traces + excluded.traces",
        (deletion_no,),
    )
    conn.execute("DELETE FROM trace_count WHERE traces = 0")


def purge_batch(
    conn: apsw.Connection, deletion_id: str, batch_no: int, *, rows_max: int
) -> tuple[dict[str, int], bool]:
    """See port.DeletionStore.purge_batch. Cost: about 40 µs a row, in one transaction."""
    with conn:
        deletion_no = _deletion_no(conn, deletion_id)
        row = conn.execute(
            "SELECT counts, more FROM purge_batch WHERE deletion_no = ? AND batch_no = ?", (deletion_no, batch_no)
        ).fetchone()
        if row is not None:
            return orjson.loads(row[0]), bool(row[1])
        done = conn.execute("SELECT count(*) FROM purge_batch WHERE deletion_no = ?", (deletion_no,)).get
        if batch_no != done:
            raise ValueError(f"purge batch {batch_no} cannot follow {done} batches")
        counts = _purge_some(conn, deletion_no, rows_max) or _purge_sealed_text(conn, deletion_no)
        more = _is_unfinished(conn, deletion_no)
        conn.execute(
            "INSERT INTO purge_batch VALUES (?, ?, ?, ?)",
            (deletion_no, batch_no, orjson.dumps(counts).decode(), more),
        )
    return counts, more


def _deletion_no(conn: apsw.Connection, deletion_id: str) -> int:
    row = conn.execute("SELECT deletion_no FROM deletion WHERE deletion_id = ?", (deletion_id,)).fetchone()
    if row is None:
        raise ValueError("no such deletion in the store")
    return int(row[0])


def _purge_some(conn: apsw.Connection, deletion_no: int, rows_max: int) -> dict[str, int]:
    """Remove whole traces up to `rows_max` rows; a larger trace loses that many spans at a time."""
    whole: list[int] = []
    rows = 0
    hidden: list[Any] = conn.execute(
        "SELECT h.trace_pk, t.span_count + 4 FROM hidden h JOIN trace t USING (trace_pk) "
        "WHERE h.deletion_no = ? ORDER BY h.trace_pk LIMIT ?",
        (deletion_no, _TRACES_LOOKED_AT),
    ).fetchall()
    for trace_pk, size in hidden:
        if rows + size > rows_max and whole:
            break
        if size > rows_max:
            return _purge_part(conn, trace_pk, rows_max)
        whole.append(trace_pk)
        rows += size
    return _purge_whole(conn, whole)


def _purge_part(conn: apsw.Connection, trace_pk: int, rows_max: int) -> dict[str, int]:
    """A bounded share of one large trace: spans first, then logs, blocks, and in the end the rest as a whole."""
    first, last = block_range(trace_pk)
    for target, sql, params in (
        (
            "span",
            "DELETE FROM span WHERE trace_pk = ?1 "
            "AND span_id IN (SELECT span_id FROM span WHERE trace_pk = ?1 LIMIT ?2)",
            (trace_pk, rows_max),
        ),
        (
            "log",
            "DELETE FROM log WHERE trace_pk = ?1 "
            "AND log_hash IN (SELECT log_hash FROM log WHERE trace_pk = ?1 LIMIT ?2)",
            (trace_pk, rows_max),
        ),
        (
            "block",
            "DELETE FROM block WHERE block_id IN (SELECT block_id FROM block WHERE block_id BETWEEN ? AND ? LIMIT ?)",
            (first, last, max(1, rows_max // 4)),  # a block is many times the size of a row
        ),
    ):
        if gone := _run(conn, sql, params):
            return {target: gone}
    return _purge_whole(conn, [trace_pk])


def _purge_whole(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    if not trace_pks:
        return {}
    pks = orjson.dumps(trace_pks).decode()
    counts = {target: _run(conn, sql, (pks,)) for target, sql in _CHILDREN.items()}
    counts["block"] = _run_many(
        conn, "DELETE FROM block WHERE block_id BETWEEN ? AND ?", [block_range(pk) for pk in trace_pks]
    )
    counts["text_signature"] = _run(conn, f"DELETE FROM text_doc WHERE trace_pk {_IN_PKS}", (pks,))
    conn.execute(
        f"INSERT INTO text_erase SELECT h.deletion_no, h.trace_pk FROM hidden h WHERE h.trace_pk {_IN_PKS} "
        "AND h.trace_pk / ? IN (SELECT segment FROM text_segment)",
        (pks, text_index.SEGMENT_TRACES),
    )
    counts["trace"] = _run(conn, f"DELETE FROM trace WHERE trace_pk {_IN_PKS}", (pks,))
    conn.execute(f"DELETE FROM hidden WHERE trace_pk {_IN_PKS}", (pks,))
    return counts


def _purge_sealed_text(conn: apsw.Connection, deletion_no: int) -> dict[str, int]:
    """Clear the bits of purged traces in the next few sealed segments, after all their rows are gone.

    A segment is rewritten once for all of its traces, so a deletion scattered over the store costs 4 ms a segment.
    """
    pks = [
        pk for (pk,) in conn.execute("SELECT trace_pk FROM text_erase WHERE deletion_no = ? ORDER BY 1", (deletion_no,))
    ]
    if not pks:
        return {}
    segments = sorted({pk // text_index.SEGMENT_TRACES for pk in pks})[:_SEGMENTS_A_BATCH]
    now = [pk for pk in pks if pk // text_index.SEGMENT_TRACES <= segments[-1]]
    cleared = text_index.purge(conn, now)
    conn.execute("DELETE FROM text_erase WHERE deletion_no = ? AND trace_pk <= ?", (deletion_no, now[-1]))
    return {"text_signature": cleared}


def _is_unfinished(conn: apsw.Connection, deletion_no: int) -> bool:
    return bool(
        conn.execute(
            "SELECT EXISTS (SELECT 1 FROM hidden WHERE deletion_no = ?1) "
            "OR EXISTS (SELECT 1 FROM text_erase WHERE deletion_no = ?1)",
            (deletion_no,),
        ).get
    )


def _run(conn: apsw.Connection, sql: str, params: Sequence[object]) -> int:
    conn.execute(sql, params)
    return conn.changes()


def _run_many(conn: apsw.Connection, sql: str, rows: Iterable[Sequence[object]]) -> int:
    before = conn.total_changes()
    conn.executemany(sql, rows)
    return conn.total_changes() - before


def settle(conn: apsw.Connection, deletion_id: str) -> None:
    """The transaction of port.DeletionStore.settle; emptying the write-ahead log is the caller's next step.

    A repeat changes nothing and writes nothing.
    """
    with conn:
        deletion_no = _deletion_no(conn, deletion_id)
        if conn.execute("SELECT settled FROM deletion WHERE deletion_no = ?", (deletion_no,)).get:
            return
        if _is_unfinished(conn, deletion_no):
            raise ValueError("the purge of that deletion is not finished")
        conn.execute("UPDATE deletion SET request = NULL, settled = 1 WHERE deletion_no = ?", (deletion_no,))
        conn.execute("UPDATE manifest SET project_id = NULL, trace_id = NULL WHERE deletion_no = ?", (deletion_no,))


def progress(conn: apsw.Connection, deletion_id: str) -> DeletionProgress | None:
    """See port.DeletionStore.progress."""
    row = conn.execute(
        "SELECT deletion_no, hidden, no_longer_matching, already_absent, request, settled, late_refused "
        "FROM deletion WHERE deletion_id = ?",
        (deletion_id,),
    ).fetchone()
    if row is None:
        return None
    deletion_no, hidden, no_longer_matching, already_absent, request, settled, late_refused = row
    purged: Counter[str] = Counter()
    batches = 0
    for (counts,) in conn.execute("SELECT counts FROM purge_batch WHERE deletion_no = ?", (deletion_no,)):
        purged.update(orjson.loads(counts))
        batches += 1
    return DeletionProgress(
        outcome=HideOutcome(hidden, no_longer_matching, already_absent),
        request=request,
        batches=batches,
        more=_is_unfinished(conn, deletion_no),
        purged=dict(purged),
        settled=bool(settled),
        late_refused=late_refused,
    )


def manifest(conn: apsw.Connection, deletion_id: str) -> list[PlannedTrace]:
    """See port.DeletionStore.manifest."""
    rows = conn.execute(
        "SELECT m.trace_pk, m.project_id, m.trace_id FROM manifest m JOIN deletion d USING (deletion_no) "
        "WHERE d.deletion_id = ? AND d.settled = 0 ORDER BY m.trace_pk",
        (deletion_id,),
    )
    return [PlannedTrace._make(row) for row in rows]


_ROWS_OF = {
    **{
        table: f"SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN {table} ON trace_pk = wanted.value"
        for table in ("trace", "span", "log", "context", "metadata", "hidden")
    },
    "block": (
        "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN block "
        f"ON block_id >= wanted.value << {BLOCK_BITS} AND block_id < (wanted.value + 1) << {BLOCK_BITS}"
    ),
}


def count_rows(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    """Rows of those traces, table by table. Of sealed text signatures it counts the traces, without reading bits."""
    pks = orjson.dumps(sorted(set(trace_pks))).decode()
    counts = {target: int(conn.execute(sql, (pks,)).get) for target, sql in _ROWS_OF.items()}
    counts["text_signature"] = conn.execute(
        "SELECT (SELECT count(*) FROM json_each(?1) AS wanted CROSS JOIN text_doc ON trace_pk = wanted.value) + "
        "(SELECT count(*) FROM json_each(?1) WHERE value / ?2 IN (SELECT segment FROM text_segment))",
        (pks, text_index.SEGMENT_TRACES),
    ).get
    return counts


def remaining(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[str, int]:
    """Rows left of those traces, table by table, with statements that share nothing with the purge's.

    Cost: 20 µs a trace, and 1 ms for each sealed segment of the text index, whose bits are read.
    """
    return {**count_rows(conn, trace_pks), "text_signature": text_index.count(conn, trace_pks)}
