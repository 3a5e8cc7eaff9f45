"""The writer process: the only one that writes traces.db, so that SQLite and decoding never share a lock.

It takes requests in order from one socket. Writes that have arrived while a commit ran are committed together
(group commit without a timer: a lone request never waits for company), any other call is a barrier. It ends when
its server does: the socket closes. client.py starts it and passes the socket's number.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from clearspan.faults import fault
from clearspan.files import disk
from clearspan.files.vfs import Checkpointer, create_database, open_writer
from clearspan.ingest.pricing import PriceBook
from clearspan.model.errors import ClearspanError, Overloaded
from clearspan.model.span import TraceBatch
from clearspan.store.port import WriteOutcome
from clearspan.store.sqlite import attachments, text_index, textsearch, wire
from clearspan.store.sqlite.annotation_calls import AnnotationCalls
from clearspan.store.sqlite.annotation_deletion_calls import AnnotationDeletionCalls
from clearspan.store.sqlite.deletion_rows import leftovers
from clearspan.store.sqlite.log_copy import LogCopy
from clearspan.store.sqlite.metadata_purging import MetadataCalls
from clearspan.store.sqlite.schema import migrate
from clearspan.store.sqlite.transfers import TransferCalls
from clearspan.store.sqlite.writer import Writer

PAGE_SIZE = 4096
"""Small, because most pages of a commit are index pages with one new entry, and each is written whole, twice. A block
of some KB fills its overflow pages exactly, so it wastes less here than on pages of its own size."""
IDLE_S = 0.05
"""How long the socket must be silent before the process looks for background work."""
GC_THRESHOLDS = (50_000, 20, 20)
"""A commit makes tens of thousands of tuples and hardly a cycle: with the default of 700 the collector walks them a
hundred times and frees nothing."""
COMMITS_A_SEAL = 2
"""Under load, one segment of the text index (248 traces) may be sealed every so many commits of up to 2,000 spans."""

COMMITS_A_RESERVE = 256
"""Under load, a reserve that was given up may be made again every so many commits."""
COMMITS_A_TRY = 64
"""Under load, emptying the log of what was erased is tried again every so many commits: a try may wait for readers."""


class Options(NamedTuple):
    """What the server tells the process first."""

    path: Path
    tombstone_secret: bytes
    group_spans_max: int
    checkpoint_bytes: int  # copy the write-ahead log into the main file when it is longer than this
    cache_mib: int
    reserve_bytes: int = 0  # of the file that a deletion on a full disk gives up; 0: none
    disk_free_min_bytes: int = 0  # with less free than this, writes are refused
    is_priced: bool = False  # whether runs that come in parts are priced as ingest does
    prices_file: Path | None = None  # the operator's own prices


def _prices(options: Options) -> PriceBook | None:
    """Read when the first run that comes in parts needs them; most writers never see one."""
    return PriceBook(options.prices_file) if options.is_priced else None


class Service(AnnotationDeletionCalls, AnnotationCalls, TransferCalls, MetadataCalls):
    """The writer's calls, by name, on one database. Also used in-process, by tests and small tools."""

    def __init__(self, options: Options, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Create or open the database, bring it to this version's schema and tidy up after a crash.

        Args:
            monotonic: seconds; bounds what one transaction of a deletion takes on.
        """
        self.monotonic = monotonic
        create_database(options.path, page_size=PAGE_SIZE)
        # First of all connections: it recovers a log that a crash left behind (files/vfs.py).
        self._checkpointer = Checkpointer(options.path)
        self.conn = open_writer(options.path, cache_mib=options.cache_mib)
        migrate(self.conn)
        textsearch.register(self.conn)
        self._options = options
        self._secret = options.tombstone_secret
        self._writer = Writer(self.conn, options.tombstone_secret, cache(lambda: _prices(options)))
        self._commits = 0
        self._page_size = int(self.conn.pragma("page_size"))
        self._log = LogCopy(options.path, self._checkpointer, self._page_size)
        self.conn.set_wal_hook(self._note_log_size)
        self._folder = options.path.parent
        self._reserve = disk.Reserve(self._folder, options.reserve_bytes, floor=options.disk_free_min_bytes)
        if left := leftovers(self.conn):
            while self.clear_leftovers(left):
                pass
        self.shorten_log()  # what the last process erased may still be in it
        self.keep_reserve()

    def _note_log_size(self, _conn: apsw.Connection, _name: str, pages: int) -> int:
        self._log.note_pages(pages)
        return apsw.SQLITE_OK

    def write(self, batches: Sequence[TraceBatch], *, received_ns: int) -> list[WriteOutcome]:
        """See port.TraceWriter.write. Raises Overloaded while the disk is nearly full: what is left is for deleting."""
        self.refuse_on_full_disk()
        self._commits += 1
        return self._writer.write(batches, received_ns=received_ns)

    def refuse_on_full_disk(self) -> None:
        """Raises Overloaded while what is left of the disk is kept for deletions."""
        if self._options.disk_free_min_bytes and disk.free_bytes(self._folder) < self._options.disk_free_min_bytes:
            raise Overloaded("The disk is nearly full.", retry_after_s=30)

    def keep_up(self) -> None:
        """The upkeep that must go on under load, a bounded piece after each commit; on a full disk it waits."""
        with suppress(apsw.FullError):
            if self._commits % COMMITS_A_SEAL == 0:
                text_index.seal_next(self.conn)
            if self._commits % COMMITS_A_RESERVE == 0:
                self.keep_reserve()
            self.checkpoint_if_long()

    def checkpoint_if_long(self) -> None:
        """Keep the write-ahead log short; readers may delay it, but not for ever."""
        size = self._log.pages * self._page_size
        if (self._owes_empty_log and self._commits % COMMITS_A_TRY == 0) or size > 16 * self._options.checkpoint_bytes:
            self.empty_log()
        else:
            self._log.go_on(self._options.checkpoint_bytes)

    def work_when_idle(self) -> bool:
        """One bounded piece of background work; False when there is none, or no room for it."""
        with suppress(apsw.FullError):
            if text_index.seal_next(self.conn):
                return True
            if self._writer.attachments_wait:
                attachments.sweep(self.conn, time.time_ns())
            if self._owes_empty_log:
                self.empty_log()
            elif self._log.pages and not self._log.is_running():
                self._log.finish()
            self.keep_reserve()
        return False

    def ping(self) -> bool:
        """Whether the database answers."""
        return bool(self.conn.execute("SELECT 1").get == 1)

    def close(self) -> None:
        """Close both connections; the checkpointer last, so that it tidies the log away."""
        self.conn.close()
        self._log.close()
        self._checkpointer.close()


class Loop:
    """Requests from the socket, one group of writes or one call at a time."""

    def __init__(self, sock: socket.socket, service: Service, group_spans_max: int) -> None:
        self._sock = sock
        self._service = service
        self._group_spans_max = group_spans_max
        self._group: list[tuple[int, int, list[TraceBatch]]] = []

    def run(self) -> None:
        """Serve until the other end closes."""
        busy_when_idle = True
        while True:
            if not self._readable(IDLE_S if busy_when_idle else 1.0):
                busy_when_idle = self._service.work_when_idle()
                continue
            busy_when_idle = True
            spans = 0
            while spans < self._group_spans_max and self._readable(0):
                frame = wire.receive_frame(self._sock)
                if frame is None:
                    self._commit_group()
                    return
                request_id, kind, body = frame
                if kind == wire.WRITE:
                    try:
                        received_ns, batches = wire.decode_batches(body)
                    except msgspec.DecodeError as error:  # not what the model says: that request alone fails
                        self._answer_error(request_id, error)
                        continue
                    self._group.append((request_id, received_ns, batches))
                    spans += sum(len(batch.spans) + len(batch.logs) for batch in batches)
                else:
                    self._commit_group()
                    self._call(request_id, body)
            self._commit_group()
            self._service.keep_up()

    def _readable(self, timeout_s: float) -> bool:
        return bool(select.select((self._sock,), (), (), timeout_s)[0])

    def _commit_group(self) -> None:
        """One transaction for all requests of the group; if it fails, each gets its own try and its own answer."""
        group, self._group = self._group, []
        if not group:
            return
        fault("writer.before_commit")
        try:
            outcomes = self._service.write([b for _, _, batches in group for b in batches], received_ns=group[0][1])
        except Exception as error:
            _die_if_disk_failed(error)
            for request in group:
                self._commit_alone(*request)
            return
        fault("writer.after_commit")
        at = 0
        for request_id, _, batches in group:
            wire.send_frame(self._sock, request_id, wire.ANSWER, wire.encode_outcomes(outcomes[at : at + len(batches)]))
            at += len(batches)
        fault("writer.after_answer")

    def _commit_alone(self, request_id: int, received_ns: int, batches: list[TraceBatch]) -> None:
        try:
            outcomes = self._service.write(batches, received_ns=received_ns)
        except Exception as error:
            self._answer_error(request_id, error)
        else:
            wire.send_frame(self._sock, request_id, wire.ANSWER, wire.encode_outcomes(outcomes))

    def _call(self, request_id: int, body: bytearray) -> None:
        name, args = pickle.loads(body)
        try:
            answer = pickle.dumps(getattr(self._service, name)(*args))
        except Exception as error:
            self._answer_error(request_id, error)
        else:
            wire.send_frame(self._sock, request_id, wire.ANSWER, answer)

    def _answer_error(self, request_id: int, error: Exception) -> None:
        _die_if_disk_failed(error)
        wire.send_frame(self._sock, request_id, wire.ERROR, pickle.dumps(portable(error)))


def _die_if_disk_failed(error: Exception) -> None:
    """After a failed write or sync nobody knows what is on the disk: end, and let the next start read the log."""
    if isinstance(error, apsw.IOError | apsw.CorruptError):
        print(f"clearspan writer: {type(error).__name__}, ending", file=sys.stderr, flush=True)
        os._exit(70)


def portable(error: Exception) -> Exception:
    """An error that the server can unpickle and that holds no stored text."""
    if isinstance(error, apsw.FullError):
        return Overloaded("The disk is full.", retry_after_s=30)
    if isinstance(error, apsw.BusyError):
        return Overloaded("The store is busy.")
    if isinstance(error, ClearspanError | ValueError):
        return error
    return RuntimeError(f"the writer failed: {type(error).__name__}")


def main() -> None:
    """Serve the socket whose number is the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the server decides when to end, and closes the socket
        signal.signal(ignored, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    frame = wire.receive_frame(sock)
    if frame is None:
        return
    options: Options = pickle.loads(frame[2])
    try:
        service = Service(options)
    except Exception as error:
        wire.send_frame(sock, 0, wire.ERROR, pickle.dumps(portable(error)))
        return
    wire.send_frame(sock, 0, wire.ANSWER, pickle.dumps(time.time_ns()))
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    Loop(sock, service, options.group_spans_max).run()
    service.close()


if __name__ == "__main__":
    main()
