"""The embedded store in one process: the same writer code, called directly instead of over a socket."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from clearspan.files.lock import DirectoryLock
from clearspan.files.vfs import open_reader
from clearspan.model.span import TraceBatch
from clearspan.store.port import WriteOutcome
from clearspan.store.sqlite.open import DATABASE, SqliteDeletionStore, SqliteStore
from clearspan.store.sqlite.process import Options, Service
from clearspan.store.sqlite.reader import SqliteReader


class LocalWriter:
    """What WriterClient offers, without the process."""

    def __init__(self, options: Options) -> None:
        self.service = Service(options)
        self.is_alive = True
        self.restarts = 0

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        return self.service.write(list(batches), received_ns)

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        future: Future[list[WriteOutcome]] = Future()
        future.set_result(self.service.write(list(batches), received_ns))
        return future

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        return getattr(self.service, name)(*args)

    def close(self) -> None:
        self.is_alive = False
        self.service.close()


def open_local_store(data: Path, tombstone_secret: bytes = bytes(32)) -> SqliteStore:
    """As `store.sqlite.open_store`, for tests: starts in milliseconds, and faults raise in the caller's process."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / DATABASE
    writer = LocalWriter(Options(path, tombstone_secret, 2000, 16 * 2**20, 16))
    reader = SqliteReader(lambda: open_reader(path))
    return SqliteStore(reader, writer, SqliteDeletionStore(path, reader, writer), DirectoryLock(data))  # type: ignore[arg-type]
