"""The writer process's calls of the deletion side: one short transaction each, repeated by the caller until done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import apsw

from clearspan.faults import fault
from clearspan.model.errors import Overloaded
from clearspan.store.port import DeletionKind, HideOutcome, HoldRow, PlannedTrace
from clearspan.store.span_deletion import any_span
from clearspan.store.sqlite import deletion_rows as rows
from clearspan.store.sqlite import erase, hiding, holds, private, span_cutting, survivors
from clearspan.store.sqlite import stage as staging
from clearspan.store.sqlite.deletion_rows import CountKey
from clearspan.store.sqlite.judge import Question

if TYPE_CHECKING:
    from clearspan.files.disk import Reserve
    from clearspan.files.vfs import Checkpointer
    from clearspan.store.sqlite.log_copy import LogCopy
    from clearspan.store.sqlite.writer import Writer

BUSY_S_MAX = 0.03
"""How long one transaction of a deletion works before it commits what it has."""
ROWS_A_CALL = 4_000
"""Manifest rows or tombstones that one call stores or clears: 10 to 20 ms."""


_P = ParamSpec("_P")
_T = TypeVar("_T")
_Calls = TypeVar("_Calls", bound="DeletionCalls")


def with_room(method: Callable[Concatenate[_Calls, _P], _T]) -> Callable[Concatenate[_Calls, _P], _T]:
    """A deletion must go on when the disk is full: cut the write-ahead log, then give up the reserve, and try again.
    A statement that failed so has changed nothing."""

    @wraps(method)
    def call(self: _Calls, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        for find_room in (self.shorten_log, self.spend_reserve, None):
            try:
                answer = method(self, *args, **kwargs)
                break
            except apsw.FullError:
                self._is_tight = True
                if find_room is None:
                    self.shorten_log()
                    raise
                find_room()
        if self._is_tight:
            # A log that takes up the last room could not be copied any more: the main file may have to grow for it.
            self.shorten_log()
        return answer

    return call


class DeletionCalls:
    """Mixed into process.Service, which sets these."""

    conn: apsw.Connection
    monotonic: Callable[[], float]
    _checkpointer: Checkpointer
    _reserve: Reserve
    _log: LogCopy
    _page_size: int
    _secret: bytes
    _writer: Writer
    _stage: staging.Stage | None = None
    _owes_empty_log: bool = False
    _is_tight: bool = False  # the disk was full, and the reserve has not been made again since

    @contextmanager
    def _lazily(self) -> Iterator[None]:
        """Commits inside do not wait for the disk. Only for steps that nobody counts on before a later commit or
        checkpoint, which waits for them as well: a power cut takes rows and bookkeeping back together."""
        self.conn.pragma("synchronous", "NORMAL")
        try:
            yield
        finally:
            self.conn.pragma("synchronous", "FULL")

    def _timer(self) -> Callable[[], bool]:
        """A function that says whether this transaction has worked for long enough."""
        end = self.monotonic() + BUSY_S_MAX
        return lambda: self.monotonic() >= end

    # -- room

    def empty_log(self) -> bool:
        """Copy the write-ahead log into the main file and cut it to nothing; False: a reader is in the way."""
        try:
            outcome = self._checkpointer.checkpoint("truncate")
        except apsw.FullError:
            if not self._reserve.give_up():
                raise
            outcome = self._checkpointer.checkpoint("truncate")
        self._owes_empty_log = outcome.busy  # whoever asked may have erased something
        if not outcome.busy:
            self._log.note_empty()
        return not outcome.busy

    def copy_log(self, start_bytes: int) -> bool:
        """Let a write-ahead log longer than that be copied beside the writer; whether a pass is under way."""
        try:
            return self._log.pages * self._page_size > start_bytes and self._log.go_on(start_bytes)
        except apsw.FullError:
            return False  # whoever writes next finds room

    def shorten_log(self) -> None:
        """Give back the space of the write-ahead log, as far as readers and the disk allow."""
        with suppress(apsw.FullError):
            self.empty_log()

    def spend_reserve(self) -> None:
        """Give back the reserve's space, too."""
        self.make_room()
        self.shorten_log()

    def keep_reserve(self) -> None:
        """Make the reserve again if it was given up and there is room."""
        if not self._reserve.is_wanted:
            self._is_tight = self._is_tight and not self._reserve.has_room
        elif self._reserve.keep():
            self._is_tight = False

    def make_room(self) -> bool:
        """See port.DeletionStore.make_room."""
        return self._reserve.give_up()

    # -- hiding

    @with_room
    def hide(
        self,
        deletion_id: str,
        question: Question,
        manifest: Sequence[PlannedTrace],
        request: bytes,
        manifest_salt: bytes,
        exact: bool,
        preview_key: bytes | None,
    ) -> HideOutcome:
        """See port.DeletionStore.hide; for small manifests."""
        fault("store.before_hide")
        with self._writer.pks_kept():
            outcome = hiding.hide(
                self.conn,
                self._secret,
                self._cutter(),
                deletion_id,
                question,
                manifest,
                request,
                manifest_salt=manifest_salt,
                exact=exact,
                preview_key=preview_key,
            )
        self._note_tombstones(preview_key)
        self._note_spans(deletion_id)
        if self._stage is not None:
            self._stage.touched.update(line.trace_pk for line in manifest)
        fault("store.after_hide")
        return outcome

    def _cutter(self) -> hiding.Cutter:
        now_ns = time.time_ns()
        return hiding.Cutter(
            cut=lambda lines: self._cut(lines, now_ns),
            number=lambda lines: span_cutting.number(self._writer, lines),
            put_back=lambda lines: span_cutting.put_back(self._writer, lines, now_ns),
        )

    def _cut(self, lines: Sequence[PlannedTrace], now_ns: int) -> list[PlannedTrace]:
        if not any_span(lines):
            return list(lines)
        cut = span_cutting.cut(self._writer, lines, now_ns)
        fault("store.after_cut")
        return cut

    def _note_spans(self, deletion_id: str) -> None:
        if rows.known(self.conn, deletion_id).kind == DeletionKind.SPANS:
            self._writer.span_tombstones_exist = True

    def _note_tombstones(self, preview_key: bytes | None = None) -> None:
        self._writer.tombstones_exist = True
        self._owes_empty_log = self._owes_empty_log or preview_key is not None

    @with_room
    def stage_begin(self, deletion_id: str, question: Question, preview_key: bytes | None) -> HideOutcome | None:
        """Begin to stage a large hide; the outcome instead if it has taken place already."""
        fault("store.before_hide")
        if (known := rows.find(self.conn, deletion_id)) is not None:
            return known.outcome
        rows.check_preview(self.conn, preview_key)
        self._stage = staging.begin(self.conn, self._secret, deletion_id, question)
        self._writer.touched = self._stage.touched
        return None

    @with_room
    def stage_lines(
        self, deletion_id: str, hit: Sequence[staging.StagedLine], held: Sequence[tuple[int, int, str]]
    ) -> None:
        """Stage judged lines."""
        with self._lazily():
            staging.add_lines(self.conn, self._open_stage(deletion_id), hit, held)
        fault("store.after_stage_lines")

    @with_room
    def stage_tombstones(self, deletion_id: str) -> bool:
        """Stage the next tombstones; whether more wait."""
        with self._lazily():
            more = staging.add_tombstones(self.conn, self._open_stage(deletion_id), ROWS_A_CALL)
        return more

    @with_room
    def stage_refresh(self, deletion_id: str) -> bool:
        """Judge traces again that changed; whether more did."""
        stage = self._open_stage(deletion_id)
        is_slow = stage.question.is_slow(holds.rows(self.conn))
        try:
            return staging.refresh(self.conn, self._secret, stage, hiding.SLICE_SLOW if is_slow else hiding.SLICE)
        except BaseException:
            stage.is_stale = True
            raise

    @with_room
    def stage_activate(
        self,
        deletion_id: str,
        request: bytes,
        no_longer_matching: int,
        already_absent: int,
        manifest_salt: bytes,
        exact: bool,
        preview_key: bytes | None,
    ) -> HideOutcome | None:
        """Make the stage count; None: it is stale and must be begun again."""
        stage = self._open_stage(deletion_id)
        if stage.is_stale:
            return None
        fault("store.before_activate")
        try:
            outcome = staging.activate(
                self.conn,
                self._secret,
                stage,
                request,
                no_longer_matching=no_longer_matching,
                already_absent=already_absent,
                manifest_salt=manifest_salt,
                exact=exact,
                preview_key=preview_key,
            )
        except BaseException:
            stage.is_stale = True  # what it remembers may be ahead of what is stored
            raise
        self._end_stage()
        self._note_tombstones(preview_key)
        fault("store.after_hide")
        return outcome

    @with_room
    def stage_drop(self) -> bool:
        """Forget the stage, if there is one, and remove some of its rows; whether more are left."""
        self._end_stage()
        staged = [no for (no,) in self.conn.execute(f"SELECT deletion_no FROM deletion WHERE phase = {rows.STAGED}")]
        return bool(staged) and self.clear_leftovers(staged)

    def _end_stage(self) -> None:
        self._stage = self._writer.touched = None

    def _open_stage(self, deletion_id: str) -> staging.Stage:
        if self._stage is None or self._stage.deletion_id != deletion_id:
            raise Overloaded("The deletion was interrupted before it hid anything.")
        return self._stage

    @with_room
    def hide_child_slice(self, deletion_id: str, question: Question, above: int) -> tuple[int, HideOutcome | None]:
        """See hiding.hide_child_slice."""
        with self._writer.pks_kept():
            answer = hiding.hide_child_slice(
                self.conn, self._secret, self._cutter(), deletion_id, question, above, is_over=self._timer()
            )
        self._writer.tombstones_exist = True
        self._note_spans(deletion_id)
        return answer

    @with_room
    def cancel(self, deletion_id: str, counts: Mapping[CountKey, int]) -> tuple[int, list[int]]:
        """See hiding.cancel."""
        answer = hiding.cancel(self.conn, self._secret, self._cutter(), deletion_id, counts)
        self._owes_empty_log = True
        fault("store.after_cancel")
        return answer

    @with_room
    def clear_leftovers(self, deletion_nos: Sequence[int]) -> bool:
        """Remove some rows of cancelled deletions; whether more are left."""
        with self._lazily():
            more = rows.clear_leftovers(self.conn, deletion_nos, ROWS_A_CALL)
        return more

    # -- erasing

    def purge_batch(self, deletion_id: str, batch_no: int, rows_max: int) -> tuple[dict[str, int], bool]:
        """See port.DeletionStore.purge_batch. On a full disk a smaller batch may still fit."""
        fault("store.before_purge_batch")
        for share in (1, 8, 64):
            try:
                answer = self._purge_batch(deletion_id, batch_no, max(1, rows_max // share))
                break
            except apsw.FullError:
                if share == 64:
                    raise
        fault("store.after_purge_batch")
        return answer

    @with_room
    def _purge_batch(self, deletion_id: str, batch_no: int, rows_max: int) -> tuple[dict[str, int], bool]:
        with self._lazily():
            answer = erase.purge_batch(
                self.conn, self._secret, deletion_id, batch_no, rows_max=rows_max, is_over=self._timer()
            )
        _, more = answer
        if not more:
            # The Catalog is about to be told of a child; a power cut must not take it back here and leave it there.
            with self.conn:
                rows.touch(self.conn, deletion_id)
        return answer

    @with_room
    def purge_survivors(self, deletion_id: str, above: int, rows_max: int) -> tuple[dict[str, int], int | None]:
        """See port.DeletionStore.purge_survivors."""
        with self._lazily():
            return survivors.purge_some(self.conn, deletion_id, above, rows_max=rows_max, is_over=self._timer())

    @with_room
    def settle_some(self, deletion_id: str, above: int, rows_max: int) -> int | None:
        """See erase.settle_some."""
        with self._lazily():
            done_to = erase.settle_some(
                self.conn, self._secret, deletion_id, above, rows_max=rows_max, is_over=self._timer()
            )
        if done_to is None:
            fault("store.after_settle")
        return done_to

    # -- holds, previews, tombstones, notes

    @with_room
    def add_hold(self, hold: HoldRow) -> None:
        """Store a hold; a hide that is being staged begins again."""
        with self.conn:
            holds.insert(self.conn, hold)
        if self._stage is not None:
            self._stage.is_stale = True

    @with_room
    def release_hold(self, hold_id: str, released_ns: int) -> bool:
        """See port.DeletionStore.release_hold."""
        with self.conn:
            released = holds.release(self.conn, hold_id, released_ns)
        self._owes_empty_log = self._owes_empty_log or released
        return released

    def save_preview(self, key: bytes, body: bytes, expires_ns: int) -> None:
        """See port.DeletionStore.save_preview."""
        with self.conn:
            private.save_preview(self.conn, key, body, expires_ns)

    @with_room
    def void_preview(self, key: bytes) -> bool:
        """See port.DeletionStore.void_preview."""
        with self.conn:
            voided = private.void_preview(self.conn, key)
        self._owes_empty_log = self._owes_empty_log or voided
        return voided

    @with_room
    def sweep_previews(self, now_ns: int) -> int:
        """See port.DeletionStore.sweep_previews."""
        if not self.conn.execute("SELECT EXISTS (SELECT 1 FROM preview WHERE expires_ns <= ?)", (now_ns,)).get:
            return 0
        with self.conn:
            swept = private.sweep_previews(self.conn, now_ns)
        self._owes_empty_log = True
        return swept

    @with_room
    def lift_tombstone(self, project_id: int, trace_id: str) -> str | None:
        """See port.DeletionStore.lift_tombstone."""
        with self.conn:
            lifted = private.lift_tombstone(self.conn, self._secret, project_id, trace_id)
        return lifted

    @with_room
    def put_note(self, ref: str, salt: bytes, body: bytes) -> None:
        """See port.DeletionStore.put_note."""
        with self.conn:
            private.put_note(self.conn, ref, salt, body)

    @with_room
    def erase_note(self, ref: str) -> bool:
        """See port.DeletionStore.erase_note."""
        with self.conn:
            erased = private.erase_note(self.conn, ref)
        self._owes_empty_log = self._owes_empty_log or erased
        return erased
