"""Putting the embedded store together: lock, writer process, readers and the deletion side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearspan.files.lock import DataDirectoryLocked, DirectoryLock
from clearspan.files.vfs import open_reader
from clearspan.model.errors import Overloaded
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.port import (
    DeletionProgress,
    HideOutcome,
    PlannedTrace,
)
from clearspan.store.sqlite import erase
from clearspan.store.sqlite.client import WriterClient
from clearspan.store.sqlite.process import Options
from clearspan.store.sqlite.reader import SqliteReader

DATABASE = "traces.db"
LOCK_WAIT_S = 10.0
"""The writer process of a killed server ends within moments; a start right after it waits for that."""
LOG_EMPTY_WAIT_S = 10.0
"""How long one `settle` waits for readers that keep the write-ahead log from being emptied."""
LOG_EMPTY_PAUSE_S = 0.05
"""Between two tries: each may hold the writer for as long."""


class SqliteDeletionStore:
    """port.DeletionStore: plans and recounts on reading connections, everything else in the writer process."""

    def __init__(self, path: Path, reader: SqliteReader, writer: WriterClient) -> None:
        self.log_empty_wait_s = LOG_EMPTY_WAIT_S
        self._path = path
        self._reader = reader
        self._writer = writer

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        return self._reader.plan(scope, where, window, received_before_ns=received_before_ns, limit=limit)

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        return self._reader.plan_ids(scope, trace_ids, window)

    def count_visible(self, scope: Scope) -> int:
        return self._reader.count_traces(scope, None, Window())

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        with self._reader.snapshot() as conn:
            return erase.count_rows(conn, trace_pks)

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
    ) -> HideOutcome:
        outcome: HideOutcome = self._writer.call("hide", deletion_id, scope, where, window, list(manifest), request)
        return outcome

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        with self._reader.snapshot() as conn:
            return erase.progress(conn, deletion_id)

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        with self._reader.snapshot() as conn:
            return erase.manifest(conn, deletion_id)

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        answer: tuple[dict[str, int], bool] = self._writer.call("purge_batch", deletion_id, batch_no, rows_max)
        return answer

    def settle(self, deletion_id: str) -> None:
        """See port.DeletionStore.settle. The checkpoint that empties the log starts after the erasure's commit."""
        self._writer.call("settle", deletion_id)
        give_up_at = time.monotonic() + self.log_empty_wait_s
        while not self._writer.call("empty_log"):
            if time.monotonic() >= give_up_at:
                raise Overloaded("A long read keeps the write-ahead log from being emptied.", retry_after_s=5)
            time.sleep(LOG_EMPTY_PAUSE_S)

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        """On a connection of its own, opened for this recount only: nothing the readers hold can colour it."""
        conn = open_reader(self._path)
        try:
            pks = [
                pk
                for (pk,) in conn.execute(
                    "SELECT trace_pk FROM manifest WHERE deletion_no = "
                    "(SELECT deletion_no FROM deletion WHERE deletion_id = ?)",
                    (deletion_id,),
                )
            ]
            return dict(erase.remaining(conn, pks))
        finally:
            conn.close()


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """The three sides of the embedded store, opened together."""

    reader: SqliteReader
    writer: WriterClient
    deletions: SqliteDeletionStore
    lock: DirectoryLock

    def close(self) -> None:
        """End readers and writer; safe while nothing is in flight."""
        self.reader.close()
        self.writer.close()
        self.lock.release()


def open_store(
    data: Path,
    tombstone_secret: bytes,
    *,
    group_spans_max: int = 2000,
    checkpoint_bytes: int = 16 * 2**20,
    writer_cache_mib: int = 32,
    reader_cache_mib: int = 4,
) -> SqliteStore:
    """Open, and if need be create, the trace store of a data directory.

    Raises:
        DataDirectoryLocked: another server uses the directory.
        StoreDamaged: the file is not ours or newer than this program.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _wait_for_lock(data)
    path = data / DATABASE
    try:
        writer = WriterClient(
            Options(path, tombstone_secret, group_spans_max, checkpoint_bytes, writer_cache_mib),
            keep_fds=(lock.fileno(),),
        )
    except BaseException:
        lock.release()
        raise
    reader = SqliteReader(lambda: open_reader(path, cache_mib=reader_cache_mib))
    return SqliteStore(reader, writer, SqliteDeletionStore(path, reader, writer), lock)


def _wait_for_lock(data: Path) -> DirectoryLock:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return DirectoryLock(data)
        except DataDirectoryLocked:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
