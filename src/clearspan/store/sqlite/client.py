"""The server's end of the writer process: starts it, talks to it, starts it again should it die."""

from __future__ import annotations

import asyncio
import pickle
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from clearspan.model.errors import Overloaded
from clearspan.model.span import TraceBatch
from clearspan.store.port import WriteOutcome
from clearspan.store.sqlite import wire
from clearspan.store.sqlite.process import Options

START_S = 60.0
"""A start may have a long log to recover."""
DEATHS_MAX = 3
"""Deaths in a row without one answer between; from then on requests are refused and readiness is red until a new
process has started, and each start waits longer than the one before."""
WAIT_S_MAX = 30.0
_RUN = "from clearspan.store.sqlite.process import main; main()"


class WriterDied(Overloaded):
    """The writer process ended; what was not answered may or may not be stored. Sending it again is safe."""


class WriterClient:
    """Requests to the writer process; safe to call from any thread."""

    def __init__(self, options: Options, *, keep_fds: Sequence[int] = ()) -> None:
        """
        Args:
            keep_fds: open files the process inherits, such as the lock of the data directory: it must be held
                for as long as anybody may write.
        Raises:
            ClearspanError, RuntimeError: the database cannot be opened.
        """
        self._options = options
        self._keep_fds = tuple(keep_fds)
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[Future[Any], Callable[[bytearray], Any]]] = {}
        self._next_id = 1
        self._outbox: queue.SimpleQueue[tuple[int, int, Callable[[], bytes]] | None] = queue.SimpleQueue()
        self._closing = False
        self._closed = threading.Event()
        self._deaths = 0  # in a row, without an answer between
        self._is_broken = False
        self.restarts = 0
        self._sock, self._process = self._start()
        self._sender = threading.Thread(target=self._send, name="writer-send", daemon=True)
        self._receiver = threading.Thread(target=self._receive, name="writer-receive", daemon=True)
        self._sender.start()
        self._receiver.start()

    @property
    def pid(self) -> int:
        """Of the writer process that runs now."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether requests can be answered."""
        threads = self._sender.is_alive() and self._receiver.is_alive()
        return threads and not self._closing and not self._is_broken and self._process.poll() is None

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        """Store batches; returns when they are on disk."""
        return await asyncio.wrap_future(self.submit(batches, received_ns))

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        """As `write`, for callers without an event loop."""
        return self._enqueue(wire.WRITE, lambda: wire.encode_batches(batches, received_ns), wire.decode_outcomes)

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run a method of process.Service there and wait for its answer or its error."""
        return self.start(name, *args).result(timeout_s)

    def start(self, name: str, *args: Any) -> Future[Any]:
        """As `call`, without waiting: calls are carried out in the order they were started in."""
        return self._enqueue(wire.CALL, lambda: pickle.dumps((name, args)), pickle.loads)

    def close(self) -> None:
        """Let the process finish what it was sent, and wait for its end."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._closed.set()
        self._outbox.put(None)
        self._sender.join()
        self._receiver.join(START_S)
        self._process.wait(START_S)
        self._sock.close()

    def _enqueue(self, kind: int, encode: Callable[[], bytes], decode: Callable[[bytearray], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closing or self._is_broken:
                raise WriterDied("The store is not writable.", retry_after_s=5)
            request_id = self._next_id
            self._next_id += 1
            self._pending[request_id] = (future, decode)
            self._outbox.put((request_id, kind, encode))
        return future

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
        try:
            process = subprocess.Popen(
                # Not `-m`: the package imports the module first, and runpy would warn of that on every start.
                [sys.executable, "-c", _RUN, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *self._keep_fds),
                stdin=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        ours.settimeout(START_S)
        wire.send_frame(ours, 0, wire.CALL, pickle.dumps(self._options))
        frame = wire.receive_frame(ours)
        if frame is None or frame[1] == wire.ERROR:
            process.wait()
            ours.close()
            if frame is None:
                raise RuntimeError(f"the writer process ended with exit code {process.returncode}")
            raise pickle.loads(frame[2])
        ours.settimeout(None)
        return ours, process

    def _send(self) -> None:
        while (item := self._outbox.get()) is not None:
            request_id, kind, encode = item
            with self._lock:
                if request_id not in self._pending:
                    continue  # its future has failed with the process it was meant for
            try:
                body = encode()
            except Exception as error:  # whatever one request holds, the next one must be sent
                self._fail(request_id, error)
                continue
            try:
                wire.send_frame(self._sock, request_id, kind, body)
            except OSError:
                # The receiver may have failed its own share before this one was queued.
                self._fail(request_id, WriterDied(retry_after_s=1))
        with suppress(OSError):  # the other end may be gone already
            self._sock.shutdown(socket.SHUT_WR)

    def _fail(self, request_id: int, error: Exception) -> None:
        """End a request that never reached a living process."""
        with self._lock:
            future, _ = self._pending.pop(request_id, (None, None))
        if future is not None and future.set_running_or_notify_cancel():
            future.set_exception(error)

    def _receive(self) -> None:
        while True:
            frame = wire.receive_frame(self._sock)
            if frame is None:
                if not self._restart():
                    return
                continue
            self._deaths = 0
            request_id, kind, body = frame
            with self._lock:
                future, decode = self._pending.pop(request_id)
            if not future.set_running_or_notify_cancel():
                continue  # from here on it cannot be cancelled under our hands
            try:
                answer = pickle.loads(body) if kind == wire.ERROR else decode(body)
            except Exception as error:  # an answer that cannot be read is the loss of its own request only
                future.set_exception(error)
                continue
            if kind == wire.ERROR:
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _restart(self) -> bool:
        """Fail what was pending and start a new process, however often that takes. False: we are closing."""
        self._process.wait()
        with self._lock:
            lost, self._pending = self._pending, {}
            self._deaths += 1
            self._is_broken = self._deaths >= DEATHS_MAX
        for future, _ in lost.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(WriterDied(retry_after_s=1))
        while not self._closed.wait(_wait_s(self._deaths)):
            try:
                started = self._start()
            except Exception:  # the disk may have room again, or memory, at the next try
                self._deaths += 1
                self._is_broken = True
                continue
            ended = self._sock
            self._sock, self._process = started
            ended.close()
            self._is_broken = False
            self.restarts += 1
            if self._closed.is_set():  # meanwhile: the sender has said goodbye to the old process only
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)
            return True
        return False


def _wait_s(deaths: int) -> float:
    """How long to wait before the next start after so many deaths in a row: not at all for the first ones, then
    1 s, 2 s, 4 s … up to WAIT_S_MAX."""
    return 0.0 if deaths < DEATHS_MAX else float(min(2 ** min(deaths - DEATHS_MAX, 10), WAIT_S_MAX))
