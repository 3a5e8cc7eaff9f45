"""The rows that speak of a deletion, and the few statements that every step of one shares.

Each function works in the caller's transaction on the writer's connection, or in a reader's snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from clearspan.model.errors import Conflict
from clearspan.store.port import DeletionKind, HideOutcome, PlannedTrace, child_id_of
from clearspan.store.sqlite.rows import HOUR_NS
from clearspan.store.tombstone import manifest_salt_of, tombstone_key

STAGED, HIDDEN, CANCELLED, WAITING = 0, 1, 2, 3
"""deletion.phase; see migration 0005."""
REFUSING = f"phase IN ({HIDDEN}, {WAITING})"

CountKey = tuple[int, int, str]
"""(project_id, hour, environment or '') of trace_count."""


class DeletionRow(NamedTuple):
    """One row of `deletion`, but for the request."""

    deletion_no: int
    deletion_id: str
    phase: int
    hidden: int
    no_longer_matching: int
    already_absent: int
    held: int
    settled: int
    late_refused: int
    parent_no: int | None
    manifest_salt: bytes | None
    purged_to: int
    kind: str

    @property
    def outcome(self) -> HideOutcome:
        if self.phase == WAITING:  # it may have been hidden in part already
            return HideOutcome(0, 0, 0, 0)
        return HideOutcome(self.hidden, self.no_longer_matching, self.already_absent, self.held)

    def salt(self, secret: bytes) -> bytes:
        """What keys the leaves of its manifest."""
        return self.manifest_salt or manifest_salt_of(secret, self.deletion_id)


_COLUMNS = ", ".join(DeletionRow._fields)


def find(conn: apsw.Connection, deletion_id: str) -> DeletionRow | None:
    """A deletion by its id; None also for one that is only staged."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM deletion WHERE deletion_id = ? AND phase <> {STAGED}", (deletion_id,)
    ).fetchone()
    return None if row is None else DeletionRow._make(row)


def known(conn: apsw.Connection, deletion_id: str) -> DeletionRow:
    """As `find`. Raises ValueError if there is none."""
    row = find(conn, deletion_id)
    if row is None:
        raise ValueError("no such deletion in the store")
    return row


def by_no(conn: apsw.Connection, deletion_no: int) -> DeletionRow:
    """A deletion by its number, in any phase."""
    row: Any = conn.execute(f"SELECT {_COLUMNS} FROM deletion WHERE deletion_no = ?", (deletion_no,)).fetchone()
    return DeletionRow._make(row)


def child_of(conn: apsw.Connection, deletion_id: str) -> DeletionRow | None:
    """The child of a deletion, if a hold has made one."""
    return find(conn, child_id_of(deletion_id))


def insert(conn: apsw.Connection, deletion_id: str, phase: int, request: bytes | None, **columns: object) -> int:
    """A new row with no counts yet; its number."""
    names = ("deletion_id", "phase", "request", "hidden", "no_longer_matching", "already_absent", *columns)
    marks = ", ".join("?" * len(names))
    conn.execute(
        f"INSERT INTO deletion ({', '.join(names)}) VALUES ({marks})",
        (deletion_id, phase, request, 0, 0, 0, *columns.values()),
    )
    return conn.last_insert_rowid()


def unmark(conn: apsw.Connection, trace_pks: str) -> None:
    """Take purged traces (a JSON array) out of `hidden`. One whose row is there yet stays hidden, whatever kept it."""
    conn.execute(
        "DELETE FROM hidden WHERE trace_pk IN (SELECT value FROM json_each(?)) "
        "AND trace_pk NOT IN (SELECT trace_pk FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?)))",
        (trace_pks, trace_pks),
    )


def touch(conn: apsw.Connection, deletion_id: str) -> None:
    """Change a deletion's row into what it is: its commit waits for the disk, and so for all commits before it."""
    conn.execute("UPDATE deletion SET purged_to = purged_to WHERE deletion_id = ?", (deletion_id,))


def has_more(conn: apsw.Connection, row: DeletionRow) -> bool:
    """Whether a hidden deletion has anything left to purge."""
    if row.phase != HIDDEN:
        return False
    if row.kind == DeletionKind.ANNOTATIONS:
        return next_hidden_annotations(conn, row, 1) != []
    return next_hidden(conn, row, 1) != [] or bool(
        conn.execute("SELECT EXISTS (SELECT 1 FROM text_erase WHERE deletion_no = ?)", (row.deletion_no,)).get
    )


def next_hidden(conn: apsw.Connection, row: DeletionRow, limit: int) -> list[int]:
    """The next hidden traces of a deletion above `purged_to`, in order. Cost O(limit)."""
    found = conn.execute(
        "SELECT m.trace_pk FROM manifest m CROSS JOIN hidden h ON h.trace_pk = m.trace_pk "
        "WHERE m.deletion_no = ?1 AND m.trace_pk > ?2 AND h.deletion_no = ?1 ORDER BY m.trace_pk LIMIT ?3",
        (row.deletion_no, row.purged_to, limit),
    )
    return [pk for (pk,) in found]


def next_hidden_annotations(conn: apsw.Connection, row: DeletionRow, limit: int) -> list[int]:
    """The same of a deletion of annotations."""
    found = conn.execute(
        "SELECT m.annotation_no FROM annotation_manifest m CROSS JOIN hidden_annotation h USING (annotation_no) "
        "WHERE m.deletion_no = ?1 AND m.annotation_no > ?2 AND h.deletion_no = ?1 ORDER BY m.annotation_no LIMIT ?3",
        (row.deletion_no, row.purged_to, limit),
    )
    return [number for (number,) in found]


def add_manifest(conn: apsw.Connection, deletion_no: int, lines: Iterable[tuple[int, int, str]]) -> None:
    """Put traces into a manifest."""
    conn.executemany(
        "INSERT INTO manifest (deletion_no, trace_pk, project_id, trace_id) VALUES (?, ?, ?, ?)",
        ((deletion_no, *line) for line in lines),
    )


def add_hidden(conn: apsw.Connection, secret: bytes, deletion_no: int, lines: Sequence[PlannedTrace]) -> None:
    """Hide visible traces: marks, tombstones, and out of the counters."""
    conn.executemany(
        "INSERT INTO hidden (trace_pk, deletion_no) VALUES (?, ?)", ((line.trace_pk, deletion_no) for line in lines)
    )
    conn.executemany(
        "INSERT OR REPLACE INTO tombstone (key, deletion_no) VALUES (?, ?)",
        ((tombstone_key(secret, line.project_id, line.trace_id), deletion_no) for line in lines),
    )
    add_counts(conn, {key: -n for key, n in count_keys(conn, [line.trace_pk for line in lines]).items()})


def count_keys(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[CountKey, int]:
    """How many of the traces each row of trace_count stands for."""
    # Floor division for starts before 1970, too: SQLite's / rounds towards zero.
    hour = f"(t.start_ns - (((t.start_ns % {HOUR_NS}) + {HOUR_NS}) % {HOUR_NS})) / {HOUR_NS}"
    rows = conn.execute(
        f"SELECT t.project_id, {hour}, coalesce(t.environment, ''), count(*) FROM trace t "
        "WHERE t.trace_pk IN (SELECT value FROM json_each(?)) GROUP BY 1, 2, 3",
        (orjson.dumps(trace_pks).decode(),),
    )
    return {(project_id, at, environment): n for project_id, at, environment, n in rows}


def add_counts(conn: apsw.Connection, changes: Mapping[CountKey, int]) -> None:
    """Change the exact counters of what is visible; a row that comes down to 0 goes."""
    conn.executemany(
        "INSERT INTO trace_count (project_id, hour, environment, traces) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET traces = traces + excluded.traces",
        ((*key, n) for key, n in changes.items() if n),
    )
    conn.executemany(
        "DELETE FROM trace_count WHERE project_id = ? AND hour = ? AND environment = ? AND traces = 0",
        [key for key, n in changes.items() if n < 0],
    )


def child_no(conn: apsw.Connection, secret: bytes, parent: DeletionRow, *, phase: int = WAITING) -> int:
    """The number of a deletion's child, made with a copy of the parent's request if there is none yet."""
    child = child_of(conn, parent.deletion_id)
    if child is not None:
        assert child.phase == WAITING, "a child does not leave before its parent's purge is finished"
        return child.deletion_no
    child_id = child_id_of(parent.deletion_id)
    request = conn.execute("SELECT request FROM deletion WHERE deletion_no = ?", (parent.deletion_no,)).get
    salt = manifest_salt_of(secret, child_id)
    return insert(conn, child_id, phase, request, parent_no=parent.deletion_no, manifest_salt=salt, kind=parent.kind)


def hand_over(conn: apsw.Connection, secret: bytes, parent: DeletionRow, lines: Sequence[PlannedTrace]) -> None:
    """Give what a hold keeps to the waiting child. Lines leave the parent's manifest; marks and tombstones that they
    have already go with them. The parent's `held` rises; its `hidden` is the caller's to correct."""
    if not lines:
        return
    to_no = child_no(conn, secret, parent)
    from_no = parent.deletion_no
    conn.executemany(
        "DELETE FROM manifest WHERE deletion_no = ? AND trace_pk = ?", ((from_no, line.trace_pk) for line in lines)
    )
    add_manifest(conn, to_no, lines)
    conn.executemany(
        "UPDATE hidden SET deletion_no = ? WHERE trace_pk = ? AND deletion_no = ?",
        ((to_no, line.trace_pk, from_no) for line in lines),
    )
    conn.executemany(
        "UPDATE tombstone SET deletion_no = ? WHERE key = ? AND deletion_no = ?",
        ((to_no, tombstone_key(secret, line.project_id, line.trace_id), from_no) for line in lines),
    )
    conn.execute("UPDATE deletion SET held = held + ? WHERE deletion_no = ?", (len(lines), from_no))


def manifest_lines(conn: apsw.Connection, deletion_no: int, *, above: int = -1, limit: int = -1) -> list[PlannedTrace]:
    """The lines of a manifest whose ids are still there, by trace_pk."""
    rows = conn.execute(
        "SELECT trace_pk, project_id, trace_id FROM manifest "
        "WHERE deletion_no = ? AND trace_pk > ? AND trace_id IS NOT NULL ORDER BY trace_pk LIMIT ?",
        (deletion_no, above, limit),
    )
    return [PlannedTrace._make(row) for row in rows]


def clear_leftovers(conn: apsw.Connection, deletion_nos: Sequence[int], rows_max: int) -> bool:
    """Remove, in one transaction, the next tombstones and manifest rows of staged or cancelled deletions.

    Returns:
        Whether there is more to remove. A staged row without any goes itself.
    """
    with conn:
        for deletion_no in deletion_nos:
            # In the order of their keys, so that each page is written once.
            conn.execute(
                "DELETE FROM tombstone WHERE key IN (SELECT key FROM tombstone INDEXED BY tombstone_by_deletion "
                "WHERE deletion_no = ? ORDER BY key LIMIT ?)",
                (deletion_no, rows_max),
            )
            if conn.changes() >= rows_max:
                return True
            conn.execute(
                "DELETE FROM manifest WHERE deletion_no = ?1 AND trace_pk <= (SELECT max(trace_pk) FROM "
                "(SELECT trace_pk FROM manifest WHERE deletion_no = ?1 ORDER BY trace_pk LIMIT ?2))",
                (deletion_no, rows_max),
            )
            if conn.changes() >= rows_max or _clear_annotation_leftovers(conn, deletion_no, rows_max):
                return True
            conn.execute(f"DELETE FROM deletion WHERE deletion_no = ? AND phase = {STAGED}", (deletion_no,))
    return False


def _clear_annotation_leftovers(conn: apsw.Connection, deletion_no: int, rows_max: int) -> bool:
    numbers = [
        number
        for (number,) in conn.execute(
            "SELECT annotation_no FROM annotation_manifest WHERE deletion_no = ? ORDER BY annotation_no LIMIT ?",
            (deletion_no, rows_max),
        )
    ]
    conn.executemany(
        "DELETE FROM hidden_annotation WHERE annotation_no = ? AND deletion_no = ?",
        ((number, deletion_no) for number in numbers),
    )
    conn.executemany(
        "DELETE FROM annotation_manifest WHERE deletion_no = ? AND annotation_no = ?",
        ((deletion_no, number) for number in numbers),
    )
    return len(numbers) >= rows_max


def leftovers(conn: apsw.Connection) -> list[int]:
    """Staged deletions, and cancelled ones that still have a manifest: what a crash may leave. Scans `deletion`."""
    rows = conn.execute(
        f"SELECT deletion_no FROM deletion d WHERE phase = {STAGED} OR (phase = {CANCELLED} "
        "AND (EXISTS (SELECT 1 FROM manifest m WHERE m.deletion_no = d.deletion_no) "
        "OR EXISTS (SELECT 1 FROM annotation_manifest m WHERE m.deletion_no = d.deletion_no)))"
    )
    return [deletion_no for (deletion_no,) in rows]


def check_preview(conn: apsw.Connection, key: bytes | None) -> None:
    """Raises Conflict unless the preview is stored; no key asks for none."""
    if key is not None and not conn.execute("SELECT EXISTS (SELECT 1 FROM preview WHERE key = ?)", (key,)).get:
        raise Conflict("This plan was used before, or is not known.", code="plan_used_or_unknown")


def check_exact(exact: bool, outcome: HideOutcome) -> None:
    """Raises Conflict if a plan that must hold exactly no longer does."""
    if exact and (outcome.already_absent or outcome.no_longer_matching):
        raise Conflict("The planned traces have changed; nothing was deleted.", code="plan_mismatch")
