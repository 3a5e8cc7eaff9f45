"""Putting the embedded store together: lock, writer process, readers and the deletion side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from clearspan.files.lock import DataDirectoryLocked, DirectoryLock
from clearspan.files.vfs import open_reader
from clearspan.store.sqlite.annotations import SqliteAnnotationWriter
from clearspan.store.sqlite.client import WriterClient
from clearspan.store.sqlite.deleting import SqliteDeletionStore
from clearspan.store.sqlite.process import Options
from clearspan.store.sqlite.reader import SqliteReader
from clearspan.store.sqlite.transfers import SqliteTransfers

DATABASE = "traces.db"
LOCK_WAIT_S = 10.0
"""The writer process of a killed server ends within moments; a start right after it waits for that."""


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """The three sides of the embedded store, opened together."""

    reader: SqliteReader
    writer: WriterClient
    deletions: SqliteDeletionStore
    lock: DirectoryLock

    @property
    def annotations(self) -> SqliteAnnotationWriter:
        """The write side of annotations; the reader reads them."""
        return SqliteAnnotationWriter(self.writer)

    @property
    def transfers(self) -> SqliteTransfers:
        """Moves traces between projects."""
        return SqliteTransfers(self.writer)

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
    reserve_bytes: int = 0,
    disk_free_min_bytes: int = 0,
    is_priced: bool = False,
    prices_file: Path | None = None,
) -> SqliteStore:
    """Open, and if need be create, the trace store of a data directory.

    Args:
        is_priced, prices_file: as the server's own PriceBook: the writer prices runs that come in several parts.
    Raises:
        DataDirectoryLocked: another server uses the directory.
        StoreDamaged: the file is not ours or newer than this program.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _wait_for_lock(data)
    path = data / DATABASE
    try:
        writer = WriterClient(
            Options(
                path,
                tombstone_secret,
                group_spans_max,
                checkpoint_bytes,
                writer_cache_mib,
                reserve_bytes,
                disk_free_min_bytes,
                is_priced,
                prices_file,
            ),
            keep_fds=(lock.fileno(),),
        )
    except BaseException:
        lock.release()
        raise
    reader = SqliteReader(lambda: open_reader(path, cache_mib=reader_cache_mib))
    return SqliteStore(reader, writer, SqliteDeletionStore(path, reader, writer, tombstone_secret), lock)


def _wait_for_lock(data: Path) -> DirectoryLock:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return DirectoryLock(data)
        except DataDirectoryLocked:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)
