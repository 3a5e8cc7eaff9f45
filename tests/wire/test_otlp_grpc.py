"""OTLP over gRPC: the listener in this process, over the app's own services."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from clearspan.api.app import make_gate
from clearspan.api.gateway import IngestGateway
from clearspan.api.otlp.grpc_server import GrpcServer, PortTaken
from clearspan.api.otlp.replies import encode_status
from clearspan.catalog import KeyScope
from clearspan.model.errors import Overloaded
from clearspan.testing.wire import OWNER_KEY, SECOND_NS, Wire, open_wire

# Nothing here depends on which store is behind: the one that ships is enough.
pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
Call = Callable[..., Awaitable[bytes]]


def hex_id(number: int) -> str:
    return number.to_bytes(16, "big").hex()


def traces(wire: Wire, *numbers: int, project: str | None = None, text: str = "n") -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    if project is not None:
        group.resource.attributes.add(key="openinference.project.name").value.string_value = project
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS
    for number in numbers:
        group.scope_spans.add().spans.add(
            trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=text,
            start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + 1,
        )  # fmt: skip
    return bytes(request.SerializeToString())


def talk(wire: Wire, work: Callable[[Call], Awaitable[Any]], port: int = 0) -> Any:
    """Run `work` with a way to call a listener over the wire's services."""

    async def run() -> Any:
        server = GrpcServer(wire.services, make_gate(wire.services), "127.0.0.1", port)
        bound = await server.start()
        try:
            async with aio.insecure_channel(f"127.0.0.1:{bound}") as channel:

                async def call(body: bytes, method: str = TRACES, *, key: str | None = OWNER_KEY, **rest: Any) -> bytes:
                    metadata = [*rest.pop("metadata", ())]
                    if key is not None:
                        metadata.append(("authorization", f"Bearer {key}"))
                    made = channel.unary_unary(method)
                    return bytes(await made(body, metadata=metadata, timeout=rest.pop("timeout", 20), **rest))

                return await work(call)
        finally:
            await server.stop(5)

    return asyncio.run(run())


def send(wire: Wire, body: bytes, method: str = TRACES, **rest: Any) -> bytes:
    async def once(call: Call) -> bytes:
        return await call(body, method, **rest)

    return bytes(talk(wire, once))


def refusal(wire: Wire, body: bytes, method: str = TRACES, **rest: Any) -> tuple[str, str, bytes]:
    """(code, sentence, google.rpc.Status) of a call that must fail."""
    with pytest.raises(aio.AioRpcError) as caught:
        send(wire, body, method, **rest)
    error = caught.value
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    assert isinstance(details, bytes)
    return error.code().name, error.details() or "", details


@pytest.mark.parametrize("compression", list(grpc.Compression))
def test_every_compression_is_taken_and_stored(wire: Wire, compression: Any) -> None:
    assert send(wire, traces(wire, 1, text="x" * 5000), compression=compression) == b""
    assert wire.get(f"/api/traces/{hex_id(1)}/").json()["span_count"] == 1
    assert wire.services.gateway.queued_bytes == 0


def test_logs_join_their_trace(wire: Wire) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(
        trace_id=(1).to_bytes(16, "big"), span_id=(1).to_bytes(8, "big"), event_name="gen_ai.user.message"
    )  # fmt: skip
    record.time_unix_nano = wire.clock.now_ns()
    record.body.kvlist_value.values.add(key="content").value.string_value = "a question"

    async def both(call: Call) -> None:
        assert await call(traces(wire, 1)) == b""
        assert await call(request.SerializeToString(), LOGS) == b""

    talk(wire, both)
    assert "a question" in wire.get(f"/api/traces/{hex_id(1)}/").json()["input"]


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api_key"])
def test_a_key_may_come_in_each_of_three_places(wire: Wire, name: str) -> None:
    value = f"Bearer {OWNER_KEY}" if name == "authorization" else OWNER_KEY
    assert send(wire, traces(wire, 1), key=None, metadata=[(name, value)]) == b""


def test_without_a_key_for_ingest_nothing_is_read(wire: Wire) -> None:
    huge = b"x" * (wire.services.settings.body_bytes_max + 1)
    for key in (None, "wrong"):
        code, said, _ = refusal(wire, huge, key=key)
        assert (code, said) == ("UNAUTHENTICATED", "A valid API key is needed.")
    code, said, _ = refusal(wire, huge, key=wire.key(KeyScope.READ))
    assert (code, said) == ("PERMISSION_DENIED", "This API key lacks the scope `ingest`.")


def test_wrong_keys_have_the_budget_that_http_has(wire: Wire, tmp_path: Path) -> None:
    with ExitStack() as stack:
        strict = open_wire(stack, tmp_path / "strict", "memory", rate_limit_wrong_keys=2, rate_limit_ingest=3)

        async def guess(call: Call) -> list[str]:
            codes = []
            for key in ("a", "b", "c", *[OWNER_KEY] * 4):
                try:
                    await call(traces(strict, 1), key=key)
                    codes.append("OK")
                except aio.AioRpcError as error:
                    codes.append(error.code().name)
            return codes

        assert talk(strict, guess) == [
            "UNAUTHENTICATED", "UNAUTHENTICATED", "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE",
            "UNAVAILABLE",
        ]  # fmt: skip
        strict.clock.advance(60)
        strict.catalog.authenticate(OWNER_KEY)

        async def often(call: Call) -> list[str]:
            for _ in range(3):
                await call(traces(strict, 1))
            with pytest.raises(aio.AioRpcError) as caught:
                await call(traces(strict, 1))
            assert b"RetryInfo" in dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
            return [caught.value.code().name]

        assert talk(strict, often) == ["RESOURCE_EXHAUSTED"]


def test_metadata_names_the_project_before_the_resource(wire: Wire) -> None:
    async def both(call: Call) -> None:
        await call(traces(wire, 1, project="by resource"))
        await call(traces(wire, 2, project="by resource"), metadata=[("x-project-name", "by header")])

    talk(wire, both)
    names = {each.name for each in wire.catalog.projects(wire.catalog.first_org.id)}
    assert names == {"default", "by resource", "by header"}
    mine = wire.catalog.create_project(wire.catalog.first_org.id, "mine")
    bound = wire.key(KeyScope.INGEST, project_ids=[mine.id])
    code, said, _ = refusal(wire, traces(wire, 3), key=bound, metadata=[("x-project-name", "other")])
    assert (code, said) == ("PERMISSION_DENIED", "This API key is bound to other projects.")


def test_what_is_left_out_is_told(wire: Wire) -> None:
    request = ExportTraceServiceRequest.FromString(traces(wire, 1, 2))
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b"short"
    reply = ExportTraceServiceResponse.FromString(send(wire, request.SerializeToString()))
    assert reply.partial_success.rejected_spans == 1
    assert "span id of 5 bytes, not 8" in reply.partial_success.error_message
    assert wire.send("DELETE", f"/api/traces/{hex_id(2)}/").status_code == 200
    reply = ExportTraceServiceResponse.FromString(send(wire, traces(wire, 2, 3)))
    assert reply.partial_success.rejected_spans == 1
    assert "their trace was deleted (deletion del_" in reply.partial_success.error_message
    assert wire.list_ids() == [hex_id(3)]


def test_a_full_queue_and_a_full_disk_say_when_to_come_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    body = traces(wire, 1)
    with monkeypatch.context() as full:
        full.setattr(wire.services.gateway, "_bytes_max", len(body) - 1)
        code, said, details = refusal(wire, body)
        assert (code, said) == ("UNAVAILABLE", "The ingest queue is full.")
        assert details == encode_status(14, said, retry_after_s=1)
        assert b"google.rpc.RetryInfo" in details

    async def refuse(self: IngestGateway, batches: object) -> None:
        raise Overloaded("The disk is full.", retry_after_s=7)

    monkeypatch.setattr(IngestGateway, "submit", refuse)
    code, said, details = refusal(wire, body)
    assert (code, said) == ("UNAVAILABLE", "The disk is full.")
    assert details.endswith(b"\x12\x04\x0a\x02\x08\x07")
    assert wire.services.gateway.queued_bytes == 0


def test_what_cannot_be_read_is_not_asked_for_again(wire: Wire) -> None:
    bomb = b"\x0a\x80\x80\x80\x20" + bytes(64 * 2**20)
    for body in (b"\xff\xff", b"\x1f\x8bnot gzip", gzip.compress(bomb), zlib.compress(bomb)):
        assert refusal(wire, body)[0] == "INVALID_ARGUMENT"
    large = b"\x0a" * (wire.services.settings.body_bytes_max + 1)
    assert refusal(wire, large)[0] == "RESOURCE_EXHAUSTED"
    assert refusal(wire, traces(wire, 1), METRICS)[0] == "UNIMPLEMENTED"
    assert send(wire, b"") == b""
    assert wire.services.gateway.queued_bytes == 0


def test_a_message_that_never_comes_is_cut_off(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearspan.api.otlp.grpc_server.RECEIVE_S", 0.1)

    async def silent() -> str:
        server = GrpcServer(wire.services, make_gate(wire.services), "127.0.0.1", 0)
        port = await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary(TRACES)(metadata=[("x-api-key", OWNER_KEY)], timeout=20)
            code = (await call.code()).name
        await server.stop(1)
        return str(code)

    assert asyncio.run(silent()) == "DEADLINE_EXCEEDED"


def test_an_unexpected_error_tells_nothing(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: IngestGateway, batches: object) -> None:
        raise ZeroDivisionError("secret needle")

    monkeypatch.setattr(IngestGateway, "submit", broken)
    with caplog.at_level(logging.DEBUG):
        code, said, _ = refusal(wire, traces(wire, 1, text="needle too"))
    assert code == "INTERNAL"
    assert "needle" not in said + caplog.text


def test_calls_are_counted_by_method_and_status(wire: Wire) -> None:
    send(wire, traces(wire, 1))
    refusal(wire, b"", LOGS, key=None)
    text = wire.get("/metrics", key=None).text
    assert f'clearspan_grpc_requests_total{{method="{TRACES}",status="OK"}} 1.0' in text
    assert f'clearspan_grpc_requests_total{{method="{LOGS}",status="UNAUTHENTICATED"}} 1.0' in text
    assert 'clearspan_ingest_spans_total{outcome="accepted"} 1.0' in text


def test_the_reply_comes_after_the_commit_and_a_lapsed_deadline_undoes_nothing(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = wire.services.gateway._writer.write
    may_write: list[asyncio.Event] = []

    async def slow(batches: Any, received_ns: int) -> Any:
        await may_write[0].wait()
        return await write(batches, received_ns)

    monkeypatch.setattr(wire.services.gateway, "_writer", type("Slow", (), {"write": staticmethod(slow)}))

    async def work(call: Call) -> None:
        may_write.append(asyncio.Event())
        waiting = asyncio.ensure_future(call(traces(wire, 1)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        with pytest.raises(aio.AioRpcError) as caught:
            await call(traces(wire, 2), timeout=0.2)
        assert caught.value.code().name == "DEADLINE_EXCEEDED"
        may_write[0].set()
        assert await waiting == b""
        while len(wire.list_ids()) < 2:
            await asyncio.sleep(0.01)

    talk(wire, work)
    assert sorted(wire.list_ids()) == [hex_id(1), hex_id(2)]


def test_a_stop_lets_calls_at_hand_end(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    write = wire.services.gateway._writer.write

    async def slow(batches: Any, received_ns: int) -> Any:
        await asyncio.sleep(0.5)
        return await write(batches, received_ns)

    monkeypatch.setattr(wire.services.gateway, "_writer", type("Slow", (), {"write": staticmethod(slow)}))

    async def run() -> tuple[bytes, str]:
        server = GrpcServer(wire.services, make_gate(wire.services), "127.0.0.1", 0)
        port = await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = [("x-api-key", OWNER_KEY)]
            waiting = asyncio.ensure_future(channel.unary_unary(TRACES)(traces(wire, 1), metadata=metadata, timeout=20))
            await asyncio.sleep(0.2)
            await server.stop(5)
            answered = bytes(await waiting)
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary(TRACES)(traces(wire, 2), metadata=metadata, timeout=1)
            return answered, caught.value.code().name

    assert asyncio.run(run()) == (b"", "UNAVAILABLE")
    assert wire.list_ids() == [hex_id(1)]


def test_a_taken_port_is_not_shared(wire: Wire) -> None:
    async def run() -> None:
        first = GrpcServer(wire.services, make_gate(wire.services), "127.0.0.1", 0)
        port = await first.start()
        with pytest.raises(PortTaken, match=f"cannot listen for gRPC on 127.0.0.1:{port}: the port is taken"):
            await GrpcServer(wire.services, make_gate(wire.services), "127.0.0.1", port).start()
        await first.stop(1)

    asyncio.run(run())
