"""The deletion side of the embedded store, as the server sees it: reads on connections of its own, writes by calls
to the writer process, each of them short."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw
import orjson

from clearspan.files.vfs import open_reader
from clearspan.model.errors import Conflict, Overloaded, ReadTooSlow
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.port import (
    SETTLE_ROWS_MAX,
    SUMMARIES_MAX,
    Breakdown,
    DeletionKind,
    DeletionProgress,
    HideOutcome,
    HoldOutcome,
    HoldRow,
    PlannedTrace,
    TraceRow,
)
from clearspan.store.span_deletion import any_span
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite import erase, hiding, holds, linking, listing, private, recount, span_finding, textsearch
from clearspan.store.sqlite.annotation_deleting import SqliteAnnotationDeletions
from clearspan.store.sqlite.attachments import VISIBLE, visible_params
from clearspan.store.sqlite.judge import Question, judge
from clearspan.store.sqlite.log_copy import REST_BYTES
from clearspan.store.sqlite.reader import SqliteReader
from clearspan.store.sqlite.rows import TRACE_COLUMNS, trace_row
from clearspan.store.sqlite.stage import StagedLine, count_keys_by_pk
from clearspan.store.tombstone import tombstone_keys

LOG_EMPTY_WAIT_S = 0.5
"""How long one `settle` waits for readers that keep the write-ahead log from being emptied; it is called again."""
LOG_EMPTY_PAUSE_S = 0.05
"""Between two tries: each may hold the writer for as long."""
LOG_AHEAD_BYTES = 64 * 2**20
"""How long the write-ahead log gets before a purge lets the copying of it catch up."""
LOG_COPY_PAUSE_S = 0.01
LOG_COPY_WAIT_S = 2.0
CHUNK = 2_000
"""Traces that are judged and staged at a time."""
CHUNKS_AHEAD = 4
"""Of a stage: how many may be on their way to the writer."""
STAGE_TRIES = 5
REFRESHES_MAX = 50
_Item = TypeVar("_Item")
_DAY_NS = 86_400_000_000_000


class Caller(Protocol):
    """The writer, wherever it runs."""

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run a method of process.Service."""
        ...

    def start(self, name: str, *args: Any) -> Future[Any]:
        """As `call`, without waiting."""
        ...


class SqliteDeletionStore(SqliteAnnotationDeletions):
    """port.DeletionStore; safe to call from many threads."""

    def __init__(self, path: Path, reader: SqliteReader, writer: Caller, secret: bytes) -> None:
        """
        Args:
            secret: the tombstone secret, the same as the writer's.
        """
        super().__init__(reader, writer)
        self.log_empty_wait_s = LOG_EMPTY_WAIT_S
        self._path = path
        self._reader = reader
        self._writer = writer
        self._secret = secret
        self._long = threading.Lock()  # one hide, cancel or release of many traces at a time

    # -- planning ---------------------------------------------------------------------------------------------

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        return self._reader.plan(scope, where, window, received_before_ns=received_before_ns, limit=limit)

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        return self._reader.plan_ids(scope, trace_ids, window)

    def plan_spans(self, scope: Scope, names: Sequence[str]) -> list[PlannedTrace]:
        with self._reader.snapshot() as conn:
            return span_finding.plan_spans(conn, scope, names)

    def count_spans(self, scope: Scope) -> int:
        with self._reader.snapshot() as conn:
            return int(
                conn.execute(
                    f"SELECT coalesce(sum(t.span_count), 0) FROM trace t WHERE {VISIBLE}", visible_params(scope)
                ).get
            )

    def naming(self, scope: Scope, trace_pks: Sequence[int], keys: Sequence[str], *, limit: int) -> list[PlannedTrace]:
        with self._reader.snapshot() as conn:
            return linking.naming(conn, scope, trace_pks, keys, limit=limit)

    def naming_runs(
        self, scope: Scope, run_ids: Sequence[str], keys: Sequence[str], *, limit: int
    ) -> list[PlannedTrace]:
        with self._reader.snapshot() as conn:
            return linking.naming_runs(conn, scope, run_ids, keys, limit=limit)

    def purge_metadata(self, traces: Sequence[PlannedTrace], key: str) -> int:
        changed: int = self._writer.call("purge_metadata", list(traces), key)
        return changed

    def count_visible(self, scope: Scope) -> int:
        with self._reader.snapshot() as conn:
            return listing.count_visible(conn, scope, Window())

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        with self._reader.snapshot() as conn:
            return recount.count_planned(conn, trace_pks)

    def count_held(self, trace_pks: Sequence[int]) -> dict[str, int]:
        pks = sorted(set(trace_pks))
        with self._reader.snapshot() as conn:
            counts = {hold.hold_id: len(holds.kept_by(conn, hold, pks)) for hold in holds.rows(conn)}
        return {hold_id: count for hold_id, count in counts.items() if count}

    def held_among(self, trace_pks: Sequence[int]) -> int:
        with self._reader.snapshot() as conn:
            return len(holds.kept(conn, holds.rows(conn), sorted(set(trace_pks))))

    def summaries(self, trace_pks: Sequence[int]) -> list[TraceRow]:
        wanted = list(trace_pks[:SUMMARIES_MAX])
        with self._reader.snapshot() as conn:
            found = {
                values[0]: trace_row(values)
                for values in conn.execute(
                    f"SELECT {TRACE_COLUMNS} FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?)) "
                    "AND trace_pk NOT IN (SELECT trace_pk FROM hidden)",
                    (orjson.dumps(wanted).decode(),),
                )
            }
        return [found[pk] for pk in wanted if pk in found]

    def breakdown(self, trace_pks: Sequence[int]) -> Breakdown:
        days: Counter[int] = Counter()
        projects: Counter[int] = Counter()
        with self._reader.snapshot() as conn:
            for chunk in _chunks(sorted(set(trace_pks))):
                found = conn.execute(
                    "SELECT project_id, start_ns FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?)) "
                    "AND trace_pk NOT IN (SELECT trace_pk FROM hidden)",
                    (orjson.dumps(chunk).decode(),),
                )
                for project_id, start_ns in found:
                    projects[project_id] += 1
                    days[start_ns // _DAY_NS] += 1
        epoch = date(1970, 1, 1)
        return Breakdown({str(epoch + timedelta(days=day)): n for day, n in sorted(days.items())}, dict(projects))

    # -- hiding -----------------------------------------------------------------------------------------------

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
        *,
        manifest_salt: bytes = b"",
        exact: bool = False,
        preview_key: bytes | None = None,
    ) -> HideOutcome:
        """See port.DeletionStore.hide. Cost: about 10 µs a trace, of which the writer is held up for short pieces."""
        question = Question(scope, where, window)
        with self._reader.snapshot() as conn:
            is_slow = question.is_slow(holds.rows(conn))
        if any_span(manifest) or len(manifest) <= min(
            self.direct_max, hiding.SLICE_SLOW if is_slow else self.direct_max
        ):
            outcome: HideOutcome = self._writer.call(
                "hide", deletion_id, question, list(manifest), request, manifest_salt, exact, preview_key
            )
            return outcome
        with self._long:
            for _ in range(STAGE_TRIES):
                try:
                    staged = self._stage(
                        deletion_id, question, sorted(manifest), request, manifest_salt, exact, preview_key
                    )
                except Exception:
                    with suppress(Exception):  # what is left of it counts for nothing, and goes at the next start
                        self._drop_stage()
                    raise
                if staged is not None:
                    return staged
                self._drop_stage()
        raise Overloaded("Holds keep being set; nothing was deleted. Try again.")

    def _stage(
        self,
        deletion_id: str,
        question: Question,
        manifest: Sequence[PlannedTrace],
        request: bytes,
        manifest_salt: bytes,
        exact: bool,
        preview_key: bytes | None,
    ) -> HideOutcome | None:
        """Stage and activate a large hide; None: a hold was set meanwhile."""
        call = self._writer.call
        self._drop_stage()
        known: HideOutcome | None = call("stage_begin", deletion_id, question, preview_key)
        if known is not None:
            return known
        changed = absent = 0
        running: deque[Future[None]] = deque()
        # The snapshot begins after the writer has begun to note what changes. While the writer stores one chunk, the
        # next is judged here.
        with self._reader.snapshot() as conn, textsearch.searching(conn, unlimited=True):
            for chunk in _chunks(manifest):
                judged, _ = judge(conn, question, chunk)
                rows.check_exact(exact, hiding.outcome_of(judged))
                hit = self._staged_lines(conn, judged.hit)
                running.append(
                    self._writer.start("stage_lines", deletion_id, hit, [tuple(line) for line in judged.held])
                )
                if len(running) > CHUNKS_AHEAD:
                    running.popleft().result()
                changed += len(judged.no_longer_matching)
                absent += len(judged.absent)
        for each in running:
            each.result()
        while call("stage_tombstones", deletion_id):
            pass
        for _ in range(REFRESHES_MAX):
            if not call("stage_refresh", deletion_id):
                break
        outcome: HideOutcome | None = call(
            "stage_activate", deletion_id, request, changed, absent, manifest_salt, exact, preview_key
        )
        return outcome

    def _staged_lines(self, conn: apsw.Connection, hit: Sequence[PlannedTrace]) -> list[StagedLine]:
        keys = count_keys_by_pk(conn, [line.trace_pk for line in hit])
        tombstones = tombstone_keys(self._secret, [(line.project_id, line.trace_id) for line in hit])
        return [(*line, *keys[line.trace_pk][1:], tombstone) for line, tombstone in zip(hit, tombstones, strict=True)]

    def _drop_stage(self) -> None:
        while self._writer.call("stage_drop"):
            pass

    def hide_child(self, deletion_id: str, scope: Scope, where: Expr | None, window: Window) -> HideOutcome | None:
        question = Question(scope, where, window)
        with self._long:
            with self._reader.snapshot() as conn:
                row = rows.known(conn, deletion_id)
                if row.phase == rows.CANCELLED:
                    raise Conflict("This deletion was cancelled.", code="cancelled")
                if row.phase != rows.WAITING:
                    return row.outcome
                if not hiding.may_go(conn, row) or not _any_can_go(conn, row, question):
                    return None
            above = -1
            outcome: HideOutcome | None = None
            while outcome is None:
                above, outcome = self._writer.call("hide_child_slice", deletion_id, question, above)
            return outcome

    def cancel(self, deletion_id: str) -> int:
        with self._long:
            with self._reader.snapshot() as conn:
                row = rows.known(conn, deletion_id)
                if row.phase != rows.CANCELLED:
                    hiding.check_cancel(conn, row)
                counts: Counter[rows.CountKey] = Counter()
                for chunk in _chunks(_hidden_of_both(conn, row)):
                    counts.update(rows.count_keys(conn, chunk))
            if row.kind == DeletionKind.ANNOTATIONS:
                freed, numbers = self._writer.call("cancel_annotations", deletion_id)
            else:
                freed, numbers = self._writer.call("cancel", deletion_id, dict(counts))
            while self._writer.call("clear_leftovers", numbers):
                pass
        self._writer.call("empty_log")
        return int(freed)

    # -- erasing ----------------------------------------------------------------------------------------------

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        with self._reader.snapshot() as conn:
            return erase.progress(conn, self._secret, deletion_id)

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        with self._reader.snapshot() as conn:
            return erase.manifest(conn, deletion_id)

    def leaves(self, deletion_id: str) -> list[bytes]:
        with self._reader.snapshot() as conn:
            return erase.leaves(conn, self._secret, deletion_id)

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        self._wait_for_log_copy(LOG_AHEAD_BYTES)  # a purge makes log faster than it can be copied
        answer: tuple[dict[str, int], bool] = self._writer.call("purge_batch", deletion_id, batch_no, rows_max)
        return answer

    def purge_survivors(self, deletion_id: str, above: int, *, rows_max: int) -> tuple[dict[str, int], int | None]:
        answer: tuple[dict[str, int], int | None] = self._writer.call("purge_survivors", deletion_id, above, rows_max)
        return answer

    def settle(self, deletion_id: str, *, rows_max: int = SETTLE_ROWS_MAX) -> None:
        """See port.DeletionStore.settle. The checkpoint that empties the log starts after the erasure's commit."""
        done_to: int | None = -1
        while done_to is not None:
            done_to = self._writer.call("settle_some", deletion_id, done_to, rows_max)
        self._wait_for_log_copy(REST_BYTES)
        give_up_at = time.monotonic() + self.log_empty_wait_s
        while not self._writer.call("empty_log"):
            if time.monotonic() >= give_up_at:
                raise Overloaded("A long read keeps the write-ahead log from being emptied.", retry_after_s=5)
            time.sleep(LOG_EMPTY_PAUSE_S)

    def _wait_for_log_copy(self, start_bytes: int) -> None:
        """Give the copying of a log longer than that the time to catch up; nobody else waits meanwhile."""
        give_up_at = time.monotonic() + LOG_COPY_WAIT_S
        while self._writer.call("copy_log", start_bytes) and time.monotonic() < give_up_at:
            time.sleep(LOG_COPY_PAUSE_S)

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        """On a connection of its own, opened for this recount only: nothing the readers hold can colour it."""
        conn = open_reader(self._path)
        try:
            wanted = "WHERE deletion_no = (SELECT deletion_no FROM deletion WHERE deletion_id = ?)"
            row_nos = [
                number
                for (number,) in conn.execute(f"SELECT annotation_no FROM annotation_manifest {wanted}", (deletion_id,))
            ]
            if row_nos:
                return dict(recount.remaining_annotations(conn, row_nos))
            pks = [pk for (pk,) in conn.execute(f"SELECT trace_pk FROM manifest {wanted}", (deletion_id,))]
            return dict(recount.remaining(conn, pks))
        finally:
            conn.close()

    # -- holds, previews, tombstones, notes -------------------------------------------------------------------

    def add_hold(self, hold: HoldRow) -> HoldOutcome:
        """See port.DeletionStore.add_hold. Counted on a reading connection after the hold is set. Cost O(matches)."""
        self._writer.call("add_hold", hold)
        stored = self.get_hold(hold.hold_id)
        if stored is None or stored.released_ns is not None:
            return HoldOutcome(0, 0)
        with self._reader.snapshot() as conn:
            hidden = holds.count_hidden(conn, stored)
        scope, where, window = stored.scope, stored.where, stored.window
        if stored.trace_ids is None:
            try:
                return HoldOutcome(self._reader.count_traces(scope, where, window), hidden)
            except ReadTooSlow:
                return HoldOutcome(-1, hidden)
        lines = self._reader.plan_ids(scope, stored.trace_ids, window)
        with self._reader.snapshot() as conn:
            return HoldOutcome(len(holds.kept_by(conn, stored, [line.trace_pk for line in lines])), hidden)

    def release_hold(self, hold_id: str, released_ns: int) -> bool:
        released: bool = self._writer.call("release_hold", hold_id, released_ns)
        if released:
            self._writer.call("empty_log")
        return released

    def holds(self, org_id: int | None, released: bool = False) -> list[HoldRow]:
        with self._reader.snapshot() as conn:
            return holds.rows(conn, org_id, released=released)

    def get_hold(self, hold_id: str) -> HoldRow | None:
        with self._reader.snapshot() as conn:
            return holds.get(conn, hold_id)

    def save_preview(self, key: bytes, body: bytes, expires_ns: int) -> None:
        self._writer.call("save_preview", key, body, expires_ns)

    def get_preview(self, key: bytes) -> bytes | None:
        with self._reader.snapshot() as conn:
            return private.get_preview(conn, key)

    def preview_keys(self) -> list[bytes]:
        with self._reader.snapshot() as conn:
            return private.preview_keys(conn)

    def void_preview(self, key: bytes) -> bool:
        voided: bool = self._writer.call("void_preview", key)
        if voided:
            self._writer.call("empty_log")
        return voided

    def sweep_previews(self, now_ns: int) -> int:
        swept: int = self._writer.call("sweep_previews", now_ns)
        if swept:
            self._writer.call("empty_log")
        return swept

    def tombstones(self, deletion_id: str, after: bytes, limit: int) -> list[bytes]:
        with self._reader.snapshot() as conn:
            return private.tombstones(conn, deletion_id, after, limit)

    def find_tombstone(self, project_id: int, trace_id: str) -> str | None:
        with self._reader.snapshot() as conn:
            return private.find_tombstone(conn, self._secret, project_id, trace_id)

    def lift_tombstone(self, project_id: int, trace_id: str) -> str | None:
        lifted: str | None = self._writer.call("lift_tombstone", project_id, trace_id)
        return lifted

    def put_note(self, ref: str, salt: bytes, body: bytes) -> None:
        self._writer.call("put_note", ref, salt, body)

    def get_note(self, ref: str) -> tuple[bytes, bytes] | None:
        with self._reader.snapshot() as conn:
            return private.get_note(conn, ref)

    def erase_note(self, ref: str) -> bool:
        erased: bool = self._writer.call("erase_note", ref)
        if erased:
            self._writer.call("empty_log")
        return erased

    def make_room(self) -> bool:
        room: bool = self._writer.call("make_room")
        return room


def _any_can_go(conn: apsw.Connection, row: rows.DeletionRow, question: Question) -> bool:
    """Whether a waiting child can hide anything, or has nothing that is held."""
    any_held = False
    for chunk in _chunks(rows.manifest_lines(conn, row.deletion_no)):
        judged, _ = judge(conn, question._replace(mine_no=row.deletion_no), chunk)
        if judged.hit:
            return True
        any_held = any_held or bool(judged.held)
    return not any_held


def _hidden_of_both(conn: apsw.Connection, row: rows.DeletionRow) -> list[int]:
    """The hidden traces of a deletion and of its waiting child."""
    numbers = [row.deletion_no]
    child = rows.child_of(conn, row.deletion_id)
    if child is not None and child.phase == rows.WAITING:
        numbers.append(child.deletion_no)
    found = conn.execute(
        "SELECT m.trace_pk FROM manifest m CROSS JOIN hidden h ON h.trace_pk = m.trace_pk "
        "WHERE m.deletion_no IN (SELECT value FROM json_each(?)) AND h.deletion_no = m.deletion_no",
        (orjson.dumps(numbers).decode(),),
    )
    return [pk for (pk,) in found]


def _chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    for start in range(0, len(items), CHUNK):
        yield list(items[start : start + CHUNK])
