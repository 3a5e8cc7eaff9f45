"""OTLP over gRPC: TraceService and LogsService on a port of their own, in the loop that serves HTTP.

The same way in as over HTTP: keys, limits, budget, decoding and the durable answer are shared. What gRPC's core would
do by itself and we do not let it:

    unpack        a packed message is unpacked by ingest.decompress, whose limits stop a bomb; the core has none
    read ahead    a message is read after the key was found good and a slot is free, not before
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

# What its core logs may name addresses of clients; ours do not. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import structlog
from grpc import aio

from clearspan.api.auth import Gate, Permission
from clearspan.api.errors import Failure, failure_of
from clearspan.api.intake import take_in
from clearspan.api.limits import RequestTimeout
from clearspan.api.logs import places_of
from clearspan.api.otlp.placing import PROJECT_HEADER, Wire, by_header_or_resource, unplaced
from clearspan.api.otlp.replies import encode_status, export_message, grpc_code
from clearspan.api.otlp.routes import partial_of
from clearspan.api.services import Services
from clearspan.model.errors import InvalidPayload

SERVICES: Final = {
    "opentelemetry.proto.collector.trace.v1.TraceService": Wire(),
    "opentelemetry.proto.collector.logs.v1.LogsService": Wire(logs=True),
}
METHOD: Final = "Export"
READING_MAX: Final = 32
"""Messages that are being received at once: their bytes are the core's, and counted only when they are complete.
Others wait, held back by HTTP/2's flow control."""
STREAMS_MAX: Final = 128
"""Calls at once over one connection."""
RECEIVE_S: Final = 60.0
"""How long a message may take to arrive. HTTP judges the rate; here only the whole can be seen."""
DETAILS_KEY: Final = "grpc-status-details-bin"

_GZIP: Final = b"\x1f\x8b"
_DEFLATE: Final = 0x78
_log = structlog.stdlib.get_logger("clearspan.grpc")
_Export = Callable[[Any, Any], Awaitable[bytes]]


class PortTaken(OSError):
    """Something else listens on the port."""


class _Answer(NamedTuple):
    """How a call ends: `code` 0 with the reply, else with the sentence."""

    code: int
    body: bytes = b""
    failure: Failure | None = None


class GrpcServer:
    """The listener; `start` and `stop` once each, in one loop."""

    def __init__(self, services: Services, gate: Gate, host: str, port: int) -> None:
        """
        Args:
            gate: the one of HTTP, so that budgets of keys and guesses are shared.
            port: 0 takes a free one.
        """
        self._services = services
        self._gate = gate
        self._address = f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"
        self._reading = asyncio.Semaphore(READING_MAX)
        self._server: Any = None

    async def start(self) -> int:
        """Listen; the port. Raises PortTaken."""
        settings = self._services.settings
        self._server = aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # else a second server would share the port, and calls, with the first
                ("grpc.per_message_decompression", 0),
                ("grpc.max_receive_message_length", settings.body_bytes_max),
                ("grpc.max_concurrent_streams", STREAMS_MAX),
            ],
            maximum_concurrent_rpcs=settings.connections_max,
        )
        for name, wire in SERVICES.items():
            # As a stream of one message: the same on the wire, but the call begins before the message is read.
            handler = grpc.stream_unary_rpc_method_handler(self._endpoint(name, wire))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {METHOD: handler}),))
        try:
            port: int = self._server.add_insecure_port(self._address)
        except RuntimeError:
            raise PortTaken(f"cannot listen for gRPC on {self._address}: the port is taken") from None
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; those at hand are answered, or ended after so many seconds."""
        await self._server.stop(grace_s)

    def _endpoint(self, service: str, wire: Wire) -> _Export:
        route = f"/{service}/{METHOD}"

        async def export(_: Any, context: Any) -> bytes:
            started = time.perf_counter()
            answer = _Answer(_code("CANCELLED"))
            try:
                answer = await self._answer(context, wire)
            finally:
                self._tell(route, answer.code, started)
            if answer.failure is not None:
                await _abort(context, answer.code, answer.failure)
            return answer.body

        return export

    async def _answer(self, context: Any, wire: Wire) -> _Answer:
        try:
            return _Answer(0, await self._export(context, wire))
        except Exception as error:
            failure = failure_of(error)
            if failure.status == 500:
                _log.error(
                    "unexpected error", exception=type(error).__qualname__, places=places_of(error.__traceback__)
                )
            return _Answer(grpc_code(failure), b"", failure)

    async def _export(self, context: Any, wire: Wire) -> bytes:
        services = self._services
        metadata = [(key.encode(), _bytes(value)) for key, value in context.invocation_metadata() or ()]
        principal = self._gate.admit_to(Permission.INGEST, metadata, _address_of(context.peer()))
        header = dict(metadata).get(PROJECT_HEADER.encode(), b"").decode("utf-8", "replace")
        decode = by_header_or_resource(services, principal, wire, header or None)
        with services.gateway.reserve() as reservation:
            async with self._reading:
                body = await _read(context)
                reservation.grow(len(body))
            origin = unplaced(principal)
            received = await take_in(services, body, _encoding_of(body), decode, origin, reservation)
        return export_message(partial_of(received, wire), logs=wire.logs)

    def _tell(self, route: str, code: int, started: float) -> None:
        name = _CODES[code].name
        self._services.metrics.grpc_requests.labels(route, name).inc()
        level = "warning" if name in ("INTERNAL", "UNAVAILABLE") else "info"
        getattr(_log, level)(
            "request", method="gRPC", route=route, status=name,
            duration_ms=round((time.perf_counter() - started) * 1000, 1),
        )  # fmt: skip


_CODES: Final[dict[int, Any]] = {each.value[0]: each for each in grpc.StatusCode}


def _code(name: str) -> int:
    return int(grpc.StatusCode[name].value[0])


async def _read(context: Any) -> bytes:
    try:
        async with asyncio.timeout(RECEIVE_S):
            body = await context.read()
    except TimeoutError:
        raise RequestTimeout from None
    if not isinstance(body, bytes):
        raise InvalidPayload("The call brought no message, or one over the limit of its size.")
    return body


async def _abort(context: Any, code: int, failure: Failure) -> None:
    wait = failure.headers.get("Retry-After")
    details = encode_status(code, failure.message, retry_after_s=None if wait is None else int(wait))
    await context.abort(_CODES[code], failure.message, ((DETAILS_KEY, details),))


def _encoding_of(body: bytes) -> str:
    """How a message is packed, told by its first bytes: the core keeps the header to itself.

    No export request begins like either: 0x1f is a wire type that does not exist, and field 15 (0x78) is in neither
    message.
    """
    if body[:2] == _GZIP:
        return "gzip"
    is_zlib = len(body) > 2 and body[0] == _DEFLATE and int.from_bytes(body[:2], "big") % 31 == 0
    return "deflate" if is_zlib else ""


def _bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _address_of(peer: str) -> str:
    """The address in `ipv4:127.0.0.1:54321` or `ipv6:%5B::1%5D:54321`."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]") or peer
