"""A large hide, prepared in many short transactions and made to count by one.

While it is staged its rows stand under a deletion of phase STAGED, which no read and no ingest minds. Whether each
planned trace still matches is judged on a reading connection, so that the writer is not held up. From before that
snapshot on the writer notes which traces change (`touched`): only those are judged again when the stage is activated.
A stage lives as long as its process: what a crash leaves of it is removed when the store is opened.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import apsw
import orjson

from clearspan.store.port import HideOutcome, PlannedTrace, child_id_of
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite.deletion_rows import HIDDEN, STAGED, WAITING, CountKey
from clearspan.store.sqlite.judge import Question, judge
from clearspan.store.sqlite.rows import HOUR_NS
from clearspan.store.tombstone import manifest_salt_of, tombstone_key

StagedLine = tuple[int, int, str, int, str, bytes]
"""(trace_pk, project_id, trace_id, hour, environment or '', tombstone key)."""

_ADD_TOMBSTONE = (
    "INSERT INTO tombstone (key, deletion_no) VALUES (?, ?) "
    # Another deletion may have hidden the trace meanwhile: what refuses late data now goes on to do so.
    "ON CONFLICT DO UPDATE SET deletion_no = excluded.deletion_no WHERE NOT EXISTS "
    f"(SELECT 1 FROM deletion d WHERE d.deletion_no = tombstone.deletion_no AND d.{rows.REFUSING})"
)


_NOTHING = HideOutcome(0, 0, 0, 0)


@dataclass(slots=True)
class Stage:
    """What the writer process remembers of the hide in the making."""

    deletion_no: int
    child_no: int
    deletion_id: str
    question: Question
    touched: set[int] = field(default_factory=set)  # trace_pks changed since the stage began
    is_stale: bool = False  # a hold came meanwhile: everything must be judged again
    # Tombstones still to be stored, by their first byte: in order, without sorting all at once.
    keys: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(256)])
    outcome: HideOutcome = _NOTHING
    # Of each hit, in order of trace_pk: which row of trace_count it is taken from.
    pks: array[int] = field(default_factory=lambda: array("q"))
    count_ids: array[int] = field(default_factory=lambda: array("i"))
    count_keys: dict[CountKey, int] = field(default_factory=dict)
    rejudged: dict[int, CountKey] = field(default_factory=dict)  # the same of hits that were judged again


def begin(conn: apsw.Connection, secret: bytes, deletion_id: str, question: Question) -> Stage:
    """Store the two rows, of the deletion and of its possible child, that staged lines stand under."""
    child_id = child_id_of(deletion_id)
    with conn:
        deletion_no = rows.insert(conn, deletion_id, STAGED, None)
        child_no = rows.insert(
            conn, child_id, STAGED, None, parent_no=deletion_no, manifest_salt=manifest_salt_of(secret, child_id)
        )
    return Stage(deletion_no, child_no, deletion_id, question)


def add_lines(
    conn: apsw.Connection, stage: Stage, hit: Sequence[StagedLine], held: Sequence[tuple[int, int, str]]
) -> None:
    """Stage some lines, in order of trace_pk over all calls. Cost: about 4 µs a line."""
    with conn:
        rows.add_manifest(conn, stage.deletion_no, (line[:3] for line in hit))
        rows.add_manifest(conn, stage.child_no, held)
    for trace_pk, project_id, _, hour, environment, tombstone in hit:
        stage.pks.append(trace_pk)
        key = (project_id, hour, environment)
        stage.count_ids.append(stage.count_keys.setdefault(key, len(stage.count_keys)))
        stage.keys[tombstone[0]].append(tombstone)
    hidden, no_longer_matching, absent, kept = stage.outcome
    stage.outcome = HideOutcome(hidden + len(hit), no_longer_matching, absent, kept + len(held))


def add_tombstones(conn: apsw.Connection, stage: Stage, rows_max: int) -> bool:
    """Store the next tombstones, in the order of their keys so that each page is written once; whether more wait."""
    now: list[bytes] = []
    taken = 0
    for keys in stage.keys:
        if now and len(now) + len(keys) > rows_max:
            break
        now += sorted(keys)
        taken += 1
    with conn:
        conn.executemany(_ADD_TOMBSTONE, ((key, stage.deletion_no) for key in now))
    del stage.keys[:taken]
    return bool(stage.keys)


def refresh(conn: apsw.Connection, secret: bytes, stage: Stage, rows_max: int) -> bool:
    """Judge again, in one transaction, up to `rows_max` of the traces that changed; whether more did."""
    with conn:
        _judge_again(conn, secret, stage, rows_max)
    return bool(stage.touched)


def activate(
    conn: apsw.Connection,
    secret: bytes,
    stage: Stage,
    request: bytes,
    *,
    no_longer_matching: int,
    already_absent: int,
    manifest_salt: bytes,
    exact: bool,
    preview_key: bytes | None,
) -> HideOutcome:
    """The one transaction that makes a stage count. Cost: about 0.5 µs a trace."""
    with conn:
        rows.check_preview(conn, preview_key)
        _judge_again(conn, secret, stage, -1)
        hidden, changed, gone, held = stage.outcome
        outcome = HideOutcome(hidden, changed + no_longer_matching, gone + already_absent, held)
        rows.check_exact(exact, outcome)
        conn.execute("DELETE FROM preview WHERE key = ?", (preview_key,))
        conn.execute(
            "INSERT INTO hidden (trace_pk, deletion_no) SELECT trace_pk, deletion_no FROM manifest "
            "WHERE deletion_no = ?",
            (stage.deletion_no,),
        )
        rows.add_counts(conn, _count_changes(stage))
        conn.execute(
            f"UPDATE deletion SET phase = {HIDDEN}, request = ?, manifest_salt = ?, hidden = ?, "
            "no_longer_matching = ?, already_absent = ?, held = ? WHERE deletion_no = ?",
            (request, manifest_salt or manifest_salt_of(secret, stage.deletion_id), *outcome, stage.deletion_no),
        )
        if held:
            conn.execute(
                f"UPDATE deletion SET phase = {WAITING}, request = ? WHERE deletion_no = ?", (request, stage.child_no)
            )
        else:
            conn.execute("DELETE FROM deletion WHERE deletion_no = ?", (stage.child_no,))
    return outcome


def _judge_again(conn: apsw.Connection, secret: bytes, stage: Stage, rows_max: int) -> None:
    """Put touched traces where they belong now: in the manifest, in the child's, or in neither."""
    touched = list(islice(stage.touched, rows_max if rows_max >= 0 else None))
    stage.touched.difference_update(touched)
    was_hit = _lines(conn, stage.deletion_no, touched)
    was_held = _lines(conn, stage.child_no, touched)
    if not was_hit and not was_held:
        return
    judged, _ = judge(conn, stage.question, [*was_hit, *was_held])
    _forget(conn, secret, stage, was_hit, was_held)
    rows.add_manifest(conn, stage.deletion_no, judged.hit)
    conn.executemany(
        _ADD_TOMBSTONE,
        ((tombstone_key(secret, line.project_id, line.trace_id), stage.deletion_no) for line in judged.hit),
    )
    stage.rejudged.update(count_keys_by_pk(conn, [line.trace_pk for line in judged.hit]))
    rows.add_manifest(conn, stage.child_no, judged.held)
    hidden, changed, gone, held = stage.outcome
    stage.outcome = HideOutcome(
        hidden - len(was_hit) + len(judged.hit),
        changed + len(judged.no_longer_matching),
        gone + len(judged.absent),
        held - len(was_held) + len(judged.held),
    )


def _lines(conn: apsw.Connection, deletion_no: int, trace_pks: Iterable[int]) -> list[PlannedTrace]:
    found = conn.execute(
        "SELECT m.trace_pk, m.project_id, m.trace_id FROM json_each(?2) AS wanted "
        "CROSS JOIN manifest m ON m.deletion_no = ?1 AND m.trace_pk = wanted.value",
        (deletion_no, orjson.dumps(list(trace_pks)).decode()),
    )
    return [PlannedTrace._make(row) for row in found]


def _forget(
    conn: apsw.Connection,
    secret: bytes,
    stage: Stage,
    was_hit: Sequence[PlannedTrace],
    was_held: Sequence[PlannedTrace],
) -> None:
    """Take lines out of the stage as if they had never been judged."""
    conn.executemany(
        "DELETE FROM manifest WHERE deletion_no = ? AND trace_pk = ?",
        [(stage.deletion_no, line.trace_pk) for line in was_hit]
        + [(stage.child_no, line.trace_pk) for line in was_held],
    )
    conn.executemany(
        "DELETE FROM tombstone WHERE key = ? AND deletion_no = ?",
        ((tombstone_key(secret, line.project_id, line.trace_id), stage.deletion_no) for line in was_hit),
    )
    for line in was_hit:
        at = bisect_left(stage.pks, line.trace_pk)
        if at < len(stage.pks) and stage.pks[at] == line.trace_pk:
            stage.count_ids[at] = -1
        stage.rejudged.pop(line.trace_pk, None)


def _count_changes(stage: Stage) -> dict[CountKey, int]:
    """What activation takes from each row of trace_count."""
    names = list(stage.count_keys)
    taken = Counter(stage.rejudged.values())
    for count_id, n in Counter(stage.count_ids).items():
        if count_id >= 0:
            taken[names[count_id]] += n
    return {key: -n for key, n in taken.items()}


def count_keys_by_pk(conn: apsw.Connection, trace_pks: Sequence[int]) -> dict[int, CountKey]:
    """Which row of trace_count each trace is counted in. Cost: 2 µs a trace."""
    found = conn.execute(
        "SELECT trace_pk, project_id, start_ns, environment FROM trace "
        "WHERE trace_pk IN (SELECT value FROM json_each(?))",
        (orjson.dumps(trace_pks).decode(),),
    )
    return {pk: (project_id, start_ns // HOUR_NS, environment or "") for pk, project_id, start_ns, environment in found}
