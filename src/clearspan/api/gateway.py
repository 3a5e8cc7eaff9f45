"""The way in: from decoded batches to a durable answer, bounded by bytes.

A request is answered only after its spans are on disk (promise P1), so everything that was accepted and is not yet
committed sits in memory. The budget counts those bytes over all requests, from the first byte of the body on; when
it is full the client is told to come back, and nothing has been taken from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from clearspan.model.clock import Clock
from clearspan.model.errors import Overloaded
from clearspan.model.span import TraceBatch
from clearspan.store.port import TraceWriter, WriteOutcome

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES_MAX = 64 * 1024
"""Bodies up to this size are decoded on the event loop: about 0.5 ms, less than a hand-over to a thread costs
the others. Larger ones would hold up every other request."""


class WriterClient(Protocol):
    """Writes batches durably; several calls may be committed as one."""

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        """Outcomes in the order of the batches, after they are on disk."""
        ...

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        """As `write`, for callers without an event loop."""
        ...


class DirectWriter:
    """A WriterClient over a TraceWriter in this process: one thread, one call at a time."""

    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        return await asyncio.wrap_future(self.submit(batches, received_ns))

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        return self._thread.submit(self._writer.write, batches, received_ns=received_ns)

    def close(self) -> None:
        """Let the running write end and stop the thread."""
        self._thread.shutdown()


class Reservation:
    """The bytes one request holds; given back when the `with` block ends."""

    __slots__ = ("_gateway", "held")

    def __init__(self, gateway: IngestGateway) -> None:
        self._gateway = gateway
        self.held = 0

    def grow(self, size: int) -> None:
        """Count `size` bytes more. Raises Overloaded when the budget of all requests is full."""
        self._gateway.take(size)
        self.held += size

    def grow_to(self, size: int) -> None:
        """Count at least `size` bytes in all."""
        if size > self.held:
            self.grow(size - self.held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gateway.give_back(self.held)
        self.held = 0


class IngestGateway:
    """Bounded, durable writing for every ingest dialect.

    Args:
        writer: where batches go; it may group calls.
        clock: stamps the time of receipt and measures commits.
        queue_bytes_max: the most bytes of bodies and batches held at once.
        on_commit: told the seconds each write took, waiting included.
    """

    def __init__(
        self,
        writer: WriterClient,
        clock: Clock,
        *,
        queue_bytes_max: int,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._bytes_max = queue_bytes_max
        self._on_commit = on_commit
        self._queued_bytes = 0
        # One thread: protobuf and zstd give the lock away, the rest of decoding does not, so more threads would
        # only take turns and slow the event loop down.
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")

    @property
    def queued_bytes(self) -> int:
        """Bytes held by requests that are not answered yet."""
        return self._queued_bytes

    def reserve(self) -> Reservation:
        """A reservation of 0 bytes, to be grown as the body arrives."""
        return Reservation(self)

    def take(self, size: int) -> None:
        """Count bytes; see Reservation.grow."""
        if self._queued_bytes + size > self._bytes_max:
            raise Overloaded("The ingest queue is full.", retry_after_s=1)
        self._queued_bytes += size

    def give_back(self, size: int) -> None:
        """Uncount bytes."""
        self._queued_bytes -= size
        assert self._queued_bytes >= 0, "more bytes given back than taken"

    async def decode(self, is_large: bool, work: Callable[[], T]) -> T:
        """Run pure decoding work: at once, or in the decoding thread when it is large."""
        if not is_large:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._decoder, work)

    async def submit(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        """Store batches; returns after they are durable, outcomes in the order of the batches.

        Raises:
            Overloaded: the store cannot take more now (queue or disk full); nothing of this call was stored.
        """
        if not batches:
            return []
        started = self._clock.monotonic_s()
        # Shielded: a client that hangs up must not cancel a commit that others share.
        outcomes = await asyncio.shield(asyncio.ensure_future(self._writer.write(batches, self._clock.now_ns())))
        if self._on_commit is not None:
            self._on_commit(self._clock.monotonic_s() - started)
        assert len(outcomes) == len(batches), "the writer answered for another number of batches"
        return outcomes

    def submit_now(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        """As `submit`, for a thread of the server's own that may wait. Not for the event loop's."""
        return self._writer.submit(batches, self._clock.now_ns()).result() if batches else []

    def close(self) -> None:
        """Stop the decoding thread."""
        self._decoder.shutdown()


class ThreadPool:
    """A few threads for blocking work of one kind, such as the store's readers."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Let running work end and stop the threads."""
        self._threads.shutdown()
