"""Ingest load over HTTP: N keep-alive connections, each with one request under way, in one asyncio process.

    python -m bench.load --url http://127.0.0.1:8321 --key KEY --traces 10000 --clients 4 [--gzip] [--seconds 30]

The figure that counts is spans acknowledged a second, together with how long each acknowledgement took.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bench.client import Address, Response, ResponseParser, render_request
from bench.generate import Body, Generator, Plan

WINDOW_SPANS = 1_000_000
PROTOBUF = "application/x-protobuf"


@dataclass
class LoadResult:
    """What a run of the driver saw."""

    spans: int = 0
    traces: int = 0
    requests: int = 0
    sent_bytes: int = 0  # bodies before compression
    rejected_spans: int = 0
    waits: int = 0  # answers 429 and 503, each followed by a wait and the same body again
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    ack_ms: list[float] = field(default_factory=list)
    windows: list[tuple[int, float]] = field(default_factory=list)  # (spans so far, spans/s since the last)

    @property
    def rate(self) -> float:
        """Spans acknowledged a second."""
        return self.spans / self.seconds if self.seconds else 0.0

    def percentiles(self) -> dict[str, float]:
        """Acknowledgement times in ms."""
        if not self.ack_ms:
            return {}
        values = np.percentile(self.ack_ms, (50, 95, 99))
        return {f"p{name}": round(float(value), 2) for name, value in zip((50, 95, 99), values, strict=True)}

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "spans": self.spans, "traces": self.traces, "requests": self.requests, "sent_bytes": self.sent_bytes,
            "seconds": round(self.seconds, 3), "spans_per_s": round(self.rate), "ack_ms": self.percentiles(),
            "rejected_spans": self.rejected_spans, "waits": self.waits,
            "client_cpu_seconds": round(self.client_cpu_seconds, 2),
            "windows": [[spans, round(rate)] for spans, rate in self.windows],
        }  # fmt: skip


class _Client(asyncio.Protocol):
    """One connection. asyncio's streams would cost three times the processor time of this."""

    def __init__(self) -> None:
        self._parser = ResponseParser()
        self._waiter: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        response = self._parser.feed(data)
        if response is not None and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionResetError("the server closed the connection"))

    async def send(self, raw: bytes) -> Response:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class LoadFailed(Exception):
    """The server answered something that a healthy one does not answer to these bodies."""


async def drive(
    address: Address,
    bodies: Iterable[Body],
    *,
    clients: int = 4,
    compress: bool = False,
    path: str = "/v1/traces",
    content_type: str = PROTOBUF,
    deadline_s: float | None = None,
    on_ack: Callable[[int], None] = lambda spans: None,
) -> LoadResult:
    """Send all bodies, in order of their start, over `clients` connections.

    Args:
        content_type: other than protobuf: an answer of 202, in JSON, whose `rejected_count` says what was left out.
        compress: send `content-encoding: gzip` (level 1; the work is the driver's and counted as its CPU time).
        deadline_s: stop taking new bodies after so many seconds, as SIGTERM does; those under way are finished.
        on_ack: called with the number of spans of each acknowledged body.
    Raises:
        LoadFailed: an answer other than 200, 202, 429 and 503.
    """
    result = LoadResult()
    queue = iter(bodies)
    headers = {"content-type": content_type} | ({"content-encoding": "gzip"} if compress else {})
    began, cpu = time.perf_counter(), time.process_time()
    window = [0, began]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    async def worker() -> None:
        _, client = await asyncio.get_running_loop().create_connection(_Client, address.host, address.port)
        for body in _until(queue, began, deadline_s, stopped):
            data = gzip.compress(body.data, 1) if compress else body.data
            raw = render_request(address, "POST", path, data, headers)
            sent = time.perf_counter()
            while (response := await client.send(raw)).status in (429, 503):
                result.waits += 1
                await asyncio.sleep(float(response.headers.get("retry-after", "0.1")))
            now = time.perf_counter()
            if response.status not in (200, 202):
                raise LoadFailed(f"{response.status} {response.body[:300]!r}")
            if content_type != PROTOBUF:
                result.rejected_spans += response.json().get("rejected_count", 0)
            elif response.body:
                answer = ExportTraceServiceResponse.FromString(response.body)
                result.rejected_spans += answer.partial_success.rejected_spans
            result.ack_ms.append((now - sent) * 1e3)
            result.requests += 1
            result.spans += body.spans
            result.traces += body.first_seen
            result.sent_bytes += len(body.data)
            on_ack(body.spans)
            if result.spans - window[0] >= WINDOW_SPANS:
                result.windows.append((result.spans, (result.spans - window[0]) / (now - window[1])))
                window[:] = [result.spans, now]
        client.close()

    await asyncio.gather(*(worker() for _ in range(clients)))
    result.seconds = time.perf_counter() - began
    result.client_cpu_seconds = time.process_time() - cpu
    if result.spans > window[0] and (not result.windows or result.spans - window[0] >= WINDOW_SPANS // 4):
        result.windows.append((result.spans, (result.spans - window[0]) / (began + result.seconds - window[1])))
    return result


def _until(bodies: Iterator[Body], began: float, deadline_s: float | None, stopped: asyncio.Event) -> Iterator[Body]:
    for body in bodies:
        yield body
        if stopped.is_set() or (deadline_s is not None and time.perf_counter() - began > deadline_s):
            return


def address_of(url: str, key: str | None) -> Address:
    """Take a base URL apart."""
    parts = urlsplit(url)
    return Address(parts.hostname or "127.0.0.1", parts.port or 80, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8321")
    parser.add_argument("--key", default=os.environ.get("CLEARSPAN_API_KEY"))
    parser.add_argument("--path", default="/v1/traces")
    parser.add_argument("--traces", type=int, default=10_000, help="traces of the plan; sets the spread over time")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templates", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--giant-spans", type=int, default=0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--single", type=int, help="send so many bodies of one span instead")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    plan = Plan(
        traces=options.traces, seed=options.seed, templates=options.templates, batch_spans=options.batch,
        giant_spans=options.giant_spans,
    )  # fmt: skip
    generator = Generator(plan)
    if options.single:
        bodies: Iterator[Body] = itertools.islice(generator.single_span_bodies(options.first), options.single)
    else:
        bodies = generator.bodies(options.first, options.last)
    result = asyncio.run(
        drive(
            address_of(options.url, options.key), bodies, clients=options.clients, compress=options.gzip,
            path=options.path, deadline_s=options.seconds,
        )
    )  # fmt: skip
    print(json.dumps(result.summary()))
    if options.json:
        options.json.write_text(json.dumps(result.summary()))


if __name__ == "__main__":
    main()
