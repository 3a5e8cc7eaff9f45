"""Hiding, letting a waiting child go, and taking a hide back: transactions of the writer's connection.

Each function is one transaction. What is large comes in slices (`hide_child_slice`) or staged (stage.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import apsw
import orjson

from clearspan.model.errors import Conflict, Overloaded
from clearspan.store.port import DeletionKind, HideOutcome, PlannedTrace
from clearspan.store.span_deletion import any_span
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.deletion_rows import CANCELLED, HIDDEN, WAITING, CountKey
from clearspan.store.sqlite.judge import Judged, Question, judge
from clearspan.store.sqlite.span_cutting import check_whole
from clearspan.store.tombstone import manifest_salt_of

SLICE = 1_000
"""Traces that one transaction hides at most."""
SLICE_SLOW = 20
"""With a text search, of the deletion's own or of a hold: each of them may take a millisecond."""


def outcome_of(judged: Judged) -> HideOutcome:
    """The counts of a judgement."""
    return HideOutcome(
        len(judged.hit), len(judged.no_longer_matching), len(judged.absent), len(judged.held)
    )  # fmt: skip


class Cutter(NamedTuple):
    """How lines of spans become lines of traces: see span_cutting.py."""

    cut: Callable[[Sequence[PlannedTrace]], list[PlannedTrace]]
    number: Callable[[Sequence[PlannedTrace]], list[PlannedTrace]]
    put_back: Callable[[Sequence[PlannedTrace]], None]


def hide(
    conn: apsw.Connection,
    secret: bytes,
    cutter: Cutter,
    deletion_id: str,
    question: Question,
    manifest: Sequence[PlannedTrace],
    request: bytes,
    *,
    manifest_salt: bytes,
    exact: bool,
    preview_key: bytes | None,
) -> HideOutcome:
    """See port.DeletionStore.hide; for a manifest of up to about SLICE traces. Cost: about 20 µs a trace."""
    with conn:
        if (known := rows.find(conn, deletion_id)) is not None:
            return known.outcome
        rows.check_preview(conn, preview_key)
        judged, _ = judge(conn, question, manifest)
        outcome = outcome_of(judged)
        rows.check_exact(exact, outcome)
        conn.execute("DELETE FROM preview WHERE key = ?", (preview_key,))
        salt = manifest_salt or manifest_salt_of(secret, deletion_id)
        kind = DeletionKind.SPANS if any_span(manifest) else DeletionKind.TRACES
        deletion_no = rows.insert(conn, deletion_id, HIDDEN, request, manifest_salt=salt, kind=kind.value)
        conn.execute(
            "UPDATE deletion SET hidden = ?, no_longer_matching = ?, already_absent = ? WHERE deletion_no = ?",
            (*outcome[:3], deletion_no),
        )
        hit = cutter.cut(judged.hit)
        rows.add_manifest(conn, deletion_no, hit)
        rows.add_hidden(conn, secret, deletion_no, hit)
        rows.hand_over(conn, secret, rows.by_no(conn, deletion_no), cutter.number(judged.held))
    return outcome


def may_go(conn: apsw.Connection, child: rows.DeletionRow) -> bool:
    """Whether the parent of a waiting child has nothing left to purge, so that the child gets no more traces."""
    if child.parent_no is None:
        return True
    parent = rows.by_no(conn, child.parent_no)
    return parent.phase != WAITING and not rows.has_more(conn, parent)


def hide_child_slice(
    conn: apsw.Connection,
    secret: bytes,
    cutter: Cutter,
    deletion_id: str,
    question: Question,
    above: int,
    is_over: Callable[[], bool],
) -> tuple[int, HideOutcome | None]:
    """Hide the next traces of a waiting child; those that are held go to a child of its own.

    A crash between two slices leaves a waiting child of which some traces are hidden; beginning again at -1 is safe.

    Args:
        above: the last trace_pk of the slice before.
    Returns:
        (the last trace_pk of this slice, the outcome once it was the last slice).
    """
    with conn:
        child = rows.known(conn, deletion_id)
        if child.phase != WAITING:
            return above, child.outcome
        lines = rows.manifest_lines(conn, child.deletion_no, above=above, limit=SLICE)
        judged, done = judge(conn, question._replace(mine_no=child.deletion_no), lines, is_over=is_over)
        marked = _hidden_among(conn, judged.hit)
        fresh = [line for line in judged.hit if line.trace_pk not in marked]
        cut = cutter.cut(fresh)
        conn.executemany(
            "UPDATE manifest SET trace_pk = ? WHERE deletion_no = ? AND trace_pk = ?",
            [
                (new.trace_pk, child.deletion_no, old.trace_pk)
                for old, new in zip(fresh, cut, strict=True)
                if new.trace_pk != old.trace_pk
            ],
        )
        rows.add_hidden(conn, secret, child.deletion_no, cut)
        dropped = [*judged.no_longer_matching, *judged.absent]
        conn.executemany(
            "DELETE FROM manifest WHERE deletion_no = ? AND trace_pk = ?",
            ((child.deletion_no, line.trace_pk) for line in dropped),
        )
        rows.hand_over(conn, secret, child, judged.held)
        is_last = done == len(lines) and len(lines) < SLICE
        conn.execute(
            "UPDATE deletion SET no_longer_matching = no_longer_matching + ?2, already_absent = already_absent + ?3 "
            "WHERE deletion_no = ?1",
            (child.deletion_no, len(judged.no_longer_matching), len(judged.absent)),
        )
        if is_last:
            conn.execute(
                f"UPDATE deletion SET phase = {HIDDEN}, "
                "hidden = (SELECT count(*) FROM manifest WHERE deletion_no = ?1) WHERE deletion_no = ?1",
                (child.deletion_no,),
            )
    return lines[done - 1].trace_pk if lines else above, rows.known(conn, deletion_id).outcome if is_last else None


def _hidden_among(conn: apsw.Connection, lines: Sequence[PlannedTrace]) -> set[int]:
    pks = orjson.dumps([line.trace_pk for line in lines]).decode()
    found = conn.execute("SELECT trace_pk FROM hidden WHERE trace_pk IN (SELECT value FROM json_each(?))", (pks,))
    return {pk for (pk,) in found}


def cancel(
    conn: apsw.Connection, secret: bytes, cutter: Cutter, deletion_id: str, counts: Mapping[CountKey, int]
) -> tuple[int, list[int]]:
    """Make the hidden traces of a deletion and of its waiting child visible again.

    Args:
        counts: of exactly those traces; taken in a snapshot before, so that the writer need not read them.
    Returns:
        (traces visible again, the deletions whose manifests and tombstones are now to be cleared).
    """
    with conn:
        row = rows.known(conn, deletion_id)
        if row.phase == CANCELLED:
            return 0, [row.deletion_no]
        check_cancel(conn, row)
        child = rows.child_of(conn, deletion_id)
        numbers = [row.deletion_no]
        if child is not None and child.phase == WAITING:
            numbers.append(child.deletion_no)
        spans = [line for number in numbers for line in _hidden_spans(conn, number)]
        check_whole(conn, secret, spans)
        freed = 0
        for number in numbers:
            conn.execute("DELETE FROM hidden WHERE deletion_no = ?", (number,))  # a scan: 0.2 µs a hidden trace
            freed += conn.changes()
            conn.execute(f"UPDATE deletion SET phase = {CANCELLED}, request = NULL WHERE deletion_no = ?", (number,))
        if freed != sum(counts.values()):
            raise Overloaded("The deletion is changing; try again.")
        rows.add_counts(conn, counts)
        cutter.put_back(spans)
    return freed, numbers


def _hidden_spans(conn: apsw.Connection, deletion_no: int) -> list[PlannedTrace]:
    """The spans that a deletion has cut out of their traces."""
    if rows.by_no(conn, deletion_no).kind != DeletionKind.SPANS:
        return []
    lines = rows.manifest_lines(conn, deletion_no)
    hidden = _hidden_among(conn, lines)
    return [line for line in lines if line.trace_pk in hidden]


def check_cancel(conn: apsw.Connection, row: rows.DeletionRow) -> None:
    """Raises Conflict if a hide cannot be taken back any more, or not now."""
    begun = conn.execute("SELECT EXISTS (SELECT 1 FROM purge_batch WHERE deletion_no = ?)", (row.deletion_no,)).get
    if row.settled or begun:
        raise Conflict("Erasure has begun; it cannot be undone.", code="purge_begun")
    if row.phase == WAITING and not may_go(conn, row):
        raise Conflict("Its parent deletion is not finished.", code="parent_unfinished")
