"""The embedded store in one process: the same writer code, called directly instead of over a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from clearspan.files.lock import DirectoryLock
from clearspan.files.vfs import open_reader
from clearspan.model.span import TraceBatch
from clearspan.store.port import WriteOutcome
from clearspan.store.sqlite.deleting import SqliteDeletionStore
from clearspan.store.sqlite.open import DATABASE, SqliteStore
from clearspan.store.sqlite.process import Options, Service, portable
from clearspan.store.sqlite.reader import SqliteReader
from clearspan.testing.empty import lay_traces


class LocalWriter:
    """What WriterClient offers, without the process: one call at a time, from any thread."""

    def __init__(self, options: Options) -> None:
        self._service = Service(options)
        self._lock = threading.Lock()
        self.is_alive = True
        self.restarts = 0

    def write_now(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        """As `write`, without waiting for anybody."""
        with self._lock, _portable_errors():
            return self._service.write(batches, received_ns=received_ns)

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        return self.write_now(batches, received_ns=received_ns)

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        future: Future[list[WriteOutcome]] = Future()
        future.set_result(self.write_now(batches, received_ns=received_ns))
        return future

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        with self._lock, _portable_errors():
            return getattr(self._service, name)(*args)

    def start(self, name: str, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(self.call(name, *args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        with self._lock:
            self.is_alive = False
            self._service.close()


@contextmanager
def _portable_errors() -> Iterator[None]:
    """What SQLite raises, as the other end of the socket would see it."""
    try:
        yield
    except apsw.Error as error:
        raise portable(error) from error


class LocalTraceWriter:
    """port.TraceWriter over a LocalWriter."""

    def __init__(self, writer: LocalWriter) -> None:
        self._writer = writer

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        return self._writer.write_now(batches, received_ns=received_ns)


def open_local_store(
    data: Path, tombstone_secret: bytes = bytes(32), *, reserve_bytes: int = 0, disk_free_min_bytes: int = 0
) -> SqliteStore:
    """As `store.sqlite.open_store`, for tests: starts in milliseconds, and faults raise in the caller's process."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / DATABASE
    lay_traces(path)
    writer = LocalWriter(Options(path, tombstone_secret, 2000, 16 * 2**20, 16, reserve_bytes, disk_free_min_bytes))
    reader = SqliteReader(lambda: open_reader(path))
    return SqliteStore(reader, writer, SqliteDeletionStore(path, reader, writer, tombstone_secret), DirectoryLock(data))  # type: ignore[arg-type]
