"""A live server with OTLP over gRPC: what a start says of the port, the stock protocol, a stop in the middle."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.settings import GRPC_PORT
from clearspan.testing.live import LIVE_KEY, READY_S, SRC, Live, start_server, stop_server

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METADATA = [("authorization", f"Bearer {LIVE_KEY}")]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    server = start_server(tmp_path / "data", "--grpc-port", "0")
    with suppress(ProcessLookupError):
        yield server
    if server.process.poll() is None:
        stop_server(server)


def one_span() -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=b"t" * 16, span_id=b"s" * 8, name="n", start_time_unix_nano=1_780_000_000_000_000_000,
        end_time_unix_nano=1_780_000_001_000_000_000,
    )  # fmt: skip
    return bytes(request.SerializeToString())


def test_both_listeners_serve_one_store_and_stop_together(live: Live) -> None:
    assert live.grpc is not None
    assert live.grpc.startswith("127.0.0.1:")
    with grpc.insecure_channel(live.grpc) as channel:
        assert channel.unary_unary(EXPORT)(one_span(), metadata=METADATA, timeout=20) == b""
        assert [each["id"] for each in live.traces()] == [(b"t" * 16).hex()]
        # A call whose message never comes and an open connection do not keep the server from ending.
        ended = threading.Event()

        def never() -> Iterator[bytes]:
            ended.wait(READY_S)
            yield from ()

        hanging = channel.stream_unary(EXPORT).future(never(), metadata=METADATA)
        stop_server(live)
        ended.set()
        assert hanging.exception(READY_S) is not None


def refused_start(*options: str, data: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
    return subprocess.run(
        [sys.executable, "-m", "clearspan.cli.main", "serve", "--port", "0", "--data", str(data), *options],
        env={**inherited, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=READY_S,
    )


def test_a_port_that_was_asked_for_and_is_taken_refuses_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = refused_start("--grpc-port", str(port), data=tmp_path / "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen for gRPC on 127.0.0.1:{port}: the port is taken" in done.stderr
    assert "--grpc-port" in done.stderr


def take_usual_port() -> socket.socket:
    """Taken by this process: another that has it may let it go in the middle of the test."""
    give_up_at = time.monotonic() + READY_S
    while True:
        try:
            return socket.create_server(("127.0.0.1", GRPC_PORT))
        except OSError:
            assert time.monotonic() < give_up_at, f"port {GRPC_PORT} is in use"
            time.sleep(0.1)


def test_the_usual_port_taken_by_another_program_is_a_warning(tmp_path: Path) -> None:
    with take_usual_port():
        server = start_server(tmp_path / "data", "--grpc-port", "auto")
        try:
            assert server.grpc is None
            assert f"OTLP over gRPC is off: port {GRPC_PORT} is taken" in (tmp_path / "data.log").read_text()
        finally:
            stop_server(server)
