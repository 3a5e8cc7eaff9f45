"""Hiding annotations, letting a waiting child of such a deletion go, and taking a hide back.

Manifest and marks are written under a deletion in the making (phase 0), whose marks no read minds; one change of its
phase hides all of them, however many they are. A small hide does all of that in one transaction, a large one in many
short ones (`begin`, `add_slice`, `refresh`, `activate`); what a crash leaves of it is removed when the store is opened.
Only one is in the making at a time: the caller sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apsw
import orjson

from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.port import DeletionKind, HideOutcome, child_id_of
from clearspan.store.sqlite import annotating, hiding, holds
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.annotation_judge import AnnotationQuestion, Judged, judge
from clearspan.store.sqlite.annotation_rows import ANNOTATION_COLUMNS, KEY_BYTES, annotation_of, key_of, retire_keys
from clearspan.store.sqlite.deletion_rows import CANCELLED, HIDDEN, STAGED, WAITING
from clearspan.store.tombstone import manifest_salt_of

SLICE: Final = 1_000
"""Annotations that one transaction judges and marks at most."""
_ANNOTATIONS: Final = DeletionKind.ANNOTATIONS.value


def manifest_lines(
    conn: apsw.Connection, deletion_no: int, *, above: int = -1, limit: int = -1
) -> list[PlannedAnnotation]:
    """The lines of a manifest whose ids are still there, by number."""
    found = conn.execute(
        "SELECT annotation_no, project_id, annotation_id FROM annotation_manifest "
        "WHERE deletion_no = ? AND annotation_no > ? AND annotation_id IS NOT NULL ORDER BY annotation_no LIMIT ?",
        (deletion_no, above, limit),
    )
    return [PlannedAnnotation._make(row) for row in found]


def hold_ids(conn: apsw.Connection) -> list[str]:
    """The active holds: whether they are the same when a hide in the making is made to count."""
    return [hold.hold_id for hold in holds.rows(conn)]


def traces_of(conn: apsw.Connection, deletion_id: str) -> set[int]:
    """The traces, trace_pks, of which a deletion hides annotations."""
    found = conn.execute(
        "SELECT DISTINCT a.trace_pk FROM annotation_manifest m CROSS JOIN annotation a USING (annotation_no) "
        "WHERE m.deletion_no = (SELECT deletion_no FROM deletion WHERE deletion_id = ?) AND a.trace_pk IS NOT NULL",
        (deletion_id,),
    )
    return {pk for (pk,) in found}


def hide(
    conn: apsw.Connection,
    secret: bytes,
    deletion_id: str,
    question: AnnotationQuestion,
    manifest: Sequence[PlannedAnnotation],
    request: bytes,
    *,
    manifest_salt: bytes,
    exact: bool,
    preview_key: bytes | None,
) -> HideOutcome:
    """See AnnotationDeletionStore.hide_annotations; for up to about SLICE annotations, in one transaction."""
    with conn:
        if (known := rows.find(conn, deletion_id)) is not None:
            return known.outcome
        rows.check_preview(conn, preview_key)
        _begin(conn, secret, deletion_id)
        _add(conn, deletion_id, question, manifest)
        outcome = _activate(
            conn, secret, deletion_id, request, manifest_salt=manifest_salt, exact=exact, preview_key=preview_key
        )
    return outcome


def begin(conn: apsw.Connection, secret: bytes, deletion_id: str, preview_key: bytes | None) -> HideOutcome | list[str]:
    """Begin a large hide; the outcome instead if it has taken place already, else the active holds."""
    with conn:
        if (known := rows.find(conn, deletion_id)) is not None:
            return known.outcome
        rows.check_preview(conn, preview_key)
        _begin(conn, secret, deletion_id)
        held_by = hold_ids(conn)
    return held_by


def add_slice(
    conn: apsw.Connection, deletion_id: str, question: AnnotationQuestion, lines: Sequence[PlannedAnnotation]
) -> HideOutcome:
    """Judge and mark some more lines; the counts of these alone."""
    with conn:
        judged = _add(conn, deletion_id, question, lines)
    return judged.outcome


def refresh(conn: apsw.Connection, deletion_id: str, question: AnnotationQuestion) -> bool:
    """Judge again some of what was written since it was judged; whether there was any."""
    with conn:
        any_stale = _judge_stale(conn, _staged(conn, deletion_id), deletion_id, question, SLICE)
    return any_stale


def activate(
    conn: apsw.Connection,
    secret: bytes,
    deletion_id: str,
    question: AnnotationQuestion,
    request: bytes,
    held_by: list[str],
    *,
    manifest_salt: bytes,
    exact: bool,
    preview_key: bytes | None,
) -> HideOutcome | None:
    """Make a large hide count, in one transaction; None: holds were set meanwhile, and it must be begun again."""
    with conn:
        if hold_ids(conn) != held_by:
            return None
        rows.check_preview(conn, preview_key)
        _judge_stale(conn, _staged(conn, deletion_id), deletion_id, question, -1)
        outcome = _activate(
            conn, secret, deletion_id, request, manifest_salt=manifest_salt, exact=exact, preview_key=preview_key
        )
    return outcome


def staged_numbers(conn: apsw.Connection) -> list[int]:
    """Deletions of annotations in the making: of a hide that failed, for their rows are one's to remove."""
    found = conn.execute("SELECT deletion_no FROM deletion WHERE phase = ? AND kind = ?", (STAGED, _ANNOTATIONS))
    return [number for (number,) in found]


def _begin(conn: apsw.Connection, secret: bytes, deletion_id: str) -> None:
    number = rows.insert(conn, deletion_id, STAGED, None, kind=_ANNOTATIONS)
    child_id = child_id_of(deletion_id)
    salt = manifest_salt_of(secret, child_id)
    rows.insert(conn, child_id, STAGED, None, parent_no=number, manifest_salt=salt, kind=_ANNOTATIONS)


def _staged(conn: apsw.Connection, deletion_id: str) -> int:
    return int(
        conn.execute("SELECT deletion_no FROM deletion WHERE deletion_id = ? AND phase = ?", (deletion_id, STAGED)).get
    )


def _add(
    conn: apsw.Connection, deletion_id: str, question: AnnotationQuestion, lines: Sequence[PlannedAnnotation]
) -> Judged:
    judged = judge(conn, question, lines)
    number, child_no = _staged(conn, deletion_id), _staged(conn, child_id_of(deletion_id))
    _add_lines(conn, number, judged.hit)
    _mark(conn, number, judged.hit)
    _add_lines(conn, child_no, judged.held)
    _count(conn, number, judged.outcome)
    return judged


def _count(conn: apsw.Connection, deletion_no: int, more: HideOutcome) -> None:
    conn.execute(
        "UPDATE deletion SET hidden = hidden + ?, no_longer_matching = no_longer_matching + ?, "
        "already_absent = already_absent + ?, held = held + ? WHERE deletion_no = ?",
        (*more, deletion_no),
    )


def _add_lines(conn: apsw.Connection, deletion_no: int, lines: Sequence[PlannedAnnotation]) -> None:
    conn.executemany(
        "INSERT INTO annotation_manifest (deletion_no, annotation_no, project_id, annotation_id) VALUES (?, ?, ?, ?)",
        ((deletion_no, *line) for line in lines),
    )


def _mark(conn: apsw.Connection, deletion_no: int, lines: Sequence[PlannedAnnotation]) -> None:
    conn.executemany(
        "INSERT OR REPLACE INTO hidden_annotation (annotation_no, deletion_no) VALUES (?, ?)",
        ((line.row_no, deletion_no) for line in lines),
    )


def _judge_stale(
    conn: apsw.Connection, deletion_no: int, deletion_id: str, question: AnnotationQuestion, limit: int
) -> bool:
    """Take lines that were written since back, as if they had never been judged, and judge them. What was held stays
    held: it was taken from nobody, and its child is judged anew before it goes."""
    found: list[Any] = conn.execute(
        "SELECT m.annotation_no, m.project_id, m.annotation_id FROM hidden_annotation h "
        "CROSS JOIN annotation_manifest m ON m.deletion_no = h.deletion_no AND m.annotation_no = h.annotation_no "
        "WHERE h.deletion_no = ? AND h.stale = 1 LIMIT ?",
        (deletion_no, limit),
    ).fetchall()
    lines = [PlannedAnnotation._make(row) for row in found]
    for line in lines:
        conn.execute("DELETE FROM hidden_annotation WHERE annotation_no = ?", (line.row_no,))
        conn.execute(
            "DELETE FROM annotation_manifest WHERE deletion_no = ? AND annotation_no = ?", (deletion_no, line.row_no)
        )
    if lines:
        _count(conn, deletion_no, HideOutcome(-len(lines), 0, 0, 0))
        _add(conn, deletion_id, question, lines)
    return bool(lines)


def _activate(
    conn: apsw.Connection,
    secret: bytes,
    deletion_id: str,
    request: bytes,
    *,
    manifest_salt: bytes,
    exact: bool,
    preview_key: bytes | None,
) -> HideOutcome:
    row = rows.by_no(conn, _staged(conn, deletion_id))
    rows.check_exact(exact, row.outcome)
    conn.execute("DELETE FROM preview WHERE key = ?", (preview_key,))
    conn.execute(
        "UPDATE deletion SET phase = ?, request = ?, manifest_salt = ? WHERE deletion_no = ?",
        (HIDDEN, request, manifest_salt or manifest_salt_of(secret, deletion_id), row.deletion_no),
    )
    child_no = _staged(conn, child_id_of(deletion_id))
    if row.held:
        conn.execute("UPDATE deletion SET phase = ?, request = ? WHERE deletion_no = ?", (WAITING, request, child_no))
    else:
        conn.execute("DELETE FROM deletion WHERE deletion_no = ?", (child_no,))
    return row.outcome


# -- what holds keep


def hand_over(
    conn: apsw.Connection, secret: bytes, parent: rows.DeletionRow, lines: Sequence[PlannedAnnotation]
) -> None:
    """Give what a hold keeps to the waiting child; marks that it has already go with it. The parent's `held` rises; its
    `hidden` is the caller's to correct."""
    if not lines:
        return
    to_no, from_no = rows.child_no(conn, secret, parent), parent.deletion_no
    conn.executemany(
        "DELETE FROM annotation_manifest WHERE deletion_no = ? AND annotation_no = ?",
        ((from_no, line.row_no) for line in lines),
    )
    _add_lines(conn, to_no, lines)
    conn.executemany(
        "UPDATE hidden_annotation SET deletion_no = ? WHERE annotation_no = ? AND deletion_no = ?",
        ((to_no, line.row_no, from_no) for line in lines),
    )
    conn.execute("UPDATE deletion SET held = held + ? WHERE deletion_no = ?", (len(lines), from_no))


def hide_child_slice(
    conn: apsw.Connection, secret: bytes, deletion_id: str, question: AnnotationQuestion, above: int
) -> tuple[int, HideOutcome | None]:
    """As hiding.hide_child_slice, of annotations."""
    with conn:
        child = rows.known(conn, deletion_id)
        if child.phase != WAITING:
            return above, child.outcome
        lines = manifest_lines(conn, child.deletion_no, above=above, limit=SLICE)
        judged = judge(conn, question._replace(mine_no=child.deletion_no), lines)
        _mark(conn, child.deletion_no, judged.hit)
        free = {line.row_no for line in (*judged.hit, *judged.held)}
        conn.executemany(
            "DELETE FROM annotation_manifest WHERE deletion_no = ? AND annotation_no = ?",
            ((child.deletion_no, line.row_no) for line in lines if line.row_no not in free),
        )
        hand_over(conn, secret, child, judged.held)
        _count(conn, child.deletion_no, judged.outcome._replace(hidden=0, held=0))
        is_last = len(lines) < SLICE
        if is_last:
            conn.execute(
                f"UPDATE deletion SET phase = {HIDDEN}, hidden = "
                "(SELECT count(*) FROM annotation_manifest WHERE deletion_no = ?1) WHERE deletion_no = ?1",
                (child.deletion_no,),
            )
    return lines[-1].row_no if lines else above, rows.known(conn, deletion_id).outcome if is_last else None


# -- taking it back


def cancel(conn: apsw.Connection, deletion_id: str) -> tuple[int, list[int]]:
    """As hiding.cancel, of annotations. Where the same was said anew meanwhile that stays, and the older row, which it
    would have replaced, is removed. Cost: 2 µs a hidden annotation, in one transaction."""
    with conn:
        row = rows.known(conn, deletion_id)
        if row.phase == CANCELLED:
            return 0, [row.deletion_no]
        hiding.check_cancel(conn, row)
        child = rows.child_of(conn, deletion_id)
        numbers = [row.deletion_no]
        if child is not None and child.phase == WAITING:
            numbers.append(child.deletion_no)
        freed: list[Any] = conn.execute(
            "SELECT a.annotation_no, a.waits_ns IS NOT NULL, length(a.key) FROM annotation_manifest m "
            "CROSS JOIN hidden_annotation h ON h.annotation_no = m.annotation_no AND h.deletion_no = m.deletion_no "
            "CROSS JOIN annotation a ON a.annotation_no = m.annotation_no "
            "WHERE m.deletion_no IN (SELECT value FROM json_each(?)) ORDER BY a.annotation_no",
            (orjson.dumps(numbers).decode(),),
        ).fetchall()
        for number in numbers:
            conn.execute("UPDATE deletion SET phase = ?, request = NULL WHERE deletion_no = ?", (CANCELLED, number))
        for number, waits, key_length in freed:
            if key_length != KEY_BYTES:
                _give_key_back(conn, number)
            if waits:
                _look_for_target(conn, number)
    return len(freed), numbers


def _give_key_back(conn: apsw.Connection, row_no: int) -> None:
    project_id, *values = conn.execute(  # type: ignore[misc]
        f"SELECT project_id, {ANNOTATION_COLUMNS} FROM annotation WHERE annotation_no = ?", (row_no,)
    ).fetchone()
    key = key_of(annotation_of(values))
    retire_keys(conn, project_id, key)
    is_taken = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM annotation WHERE project_id = ? AND key = ?)", (project_id, key)
    ).get
    if is_taken:
        conn.execute("DELETE FROM annotation WHERE annotation_no = ?", (row_no,))
    else:
        conn.execute("UPDATE annotation SET key = ? WHERE annotation_no = ?", (key, row_no))


def _look_for_target(conn: apsw.Connection, row_no: int) -> None:
    """A hidden one was passed over while its target came."""
    found = conn.execute(
        "SELECT t.trace_pk FROM annotation a CROSS JOIN trace t ON t.project_id IN (SELECT value FROM "
        "json_each(a.waits_in)) AND (t.trace_id = a.trace_id OR t.session_id = a.session_id) "
        "WHERE a.annotation_no = ? ORDER BY t.trace_pk LIMIT 1",
        (row_no,),
    ).fetchone()
    if found is not None:
        annotating.attach(conn, [(int(found[0]), ())])
