"""OTLP over HTTP: every path, encoding and compression; partial success; errors in the encoding of the request."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from clearspan.api.gateway import IngestGateway
from clearspan.api.otlp.replies import encode_status
from clearspan.api.otlp.routes import LOG_PATHS, TRACE_PATHS
from clearspan.api.routing import spellings
from clearspan.catalog import KeyScope
from clearspan.model.errors import Overloaded
from clearspan.testing.wire import SECOND_NS, Wire

# Nothing here depends on which store is behind: the one that ships is enough.
pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}

ENCODERS: dict[str, Any] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def hex_id(name: str, size: int = 16) -> str:
    return name.encode().hex().ljust(size * 2, "0")


def request_of(wire: Wire, *names: str, spans_each: int = 1) -> ExportTraceServiceRequest:
    """Traces whose ids spell the names."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS
    for name in names:
        for n in range(spans_each):
            span = scope.spans.add(
                trace_id=bytes.fromhex(hex_id(name)),
                span_id=(n + 1).to_bytes(8, "big"),
                parent_span_id=b"" if n == 0 else (1).to_bytes(8, "big"),
                name=f"span of {name}",
                start_time_unix_nano=start_ns + n,
                end_time_unix_nano=start_ns + SECOND_NS,
            )
            span.attributes.add(key="user.id").value.string_value = name
    return request


def as_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    return {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": span.trace_id.hex(),
                                "spanId": span.span_id.hex(),
                                "name": span.name,
                                "startTimeUnixNano": str(span.start_time_unix_nano),
                                "endTimeUnixNano": str(span.end_time_unix_nano),
                            }
                            for span in scope.spans
                        ]
                    }
                    for scope in group.scope_spans
                ]
            }
            for group in request.resource_spans
        ]
    }


def test_every_path_takes_both_encodings(wire: Wire) -> None:
    expected = []
    for n, path in enumerate(spellings(*TRACE_PATHS)):
        sent = request_of(wire, f"pb-{n}")
        answer = wire.post(path, sent.SerializeToString(), headers=PROTOBUF)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/x-protobuf"
        answer = wire.post(path, as_json(request_of(wire, f"js-{n}")))
        assert (answer.status_code, answer.json()) == (200, {})
        expected += [hex_id(f"pb-{n}"), hex_id(f"js-{n}")]
    assert sorted(wire.list_ids()) == sorted(expected)


def test_every_compression_is_taken(wire: Wire) -> None:
    for name, encode in ENCODERS.items():
        for kind, body in (
            ("pb", request_of(wire, f"{name}-pb").SerializeToString()),
            ("js", json.dumps(as_json(request_of(wire, f"{name}-js"))).encode()),
        ):
            headers = (PROTOBUF if kind == "pb" else JSON) | {"Content-Encoding": name}
            answer = wire.post("/v1/traces", encode(body), headers=headers)
            assert answer.status_code == 200, (name, kind, answer.content)
    assert len(wire.list_ids()) == 2 * len(ENCODERS)


def test_a_client_that_marks_its_requests_is_served(wire: Wire) -> None:
    headers = PROTOBUF | {"X-Respan-Dogfood": "1", "X-Pre-Compressed-Size": "999999999999"}
    assert wire.post("/v2/traces", request_of(wire, "a").SerializeToString(), headers=headers).status_code == 200
    assert wire.list_ids() == [hex_id("a")]


def test_an_empty_request_is_a_valid_one(wire: Wire) -> None:
    assert wire.post("/v1/traces", b"", headers=PROTOBUF).status_code == 200
    assert wire.post("/v1/traces", {}).json() == {}
    assert wire.list_ids() == []


def test_one_bad_span_is_left_out_and_told(wire: Wire) -> None:
    request = request_of(wire, "good", "bad", "fine")
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    body = request.SerializeToString()
    answer = wire.post("/v1/traces", body, headers=PROTOBUF)
    assert answer.status_code == 200
    reply = ExportTraceServiceResponse.FromString(answer.content)
    assert reply.partial_success.rejected_spans == 1
    assert "1 spans rejected" in reply.partial_success.error_message
    partial = wire.post("/api/v2/traces", as_json(request)).json()["partialSuccess"]
    assert partial["rejectedSpans"] == 1
    assert sorted(wire.list_ids()) == sorted([hex_id("good"), hex_id("fine")])


def test_one_bad_string_costs_one_span_not_the_batch(wire: Wire) -> None:
    body = request_of(wire, "good", "BADBAD", "fine").SerializeToString()
    broken = body.replace(b"span of BADBAD", b"span of BAD\xff\xfe\xfd")
    answer = wire.post("/v1/traces", broken, headers=PROTOBUF)
    reply = ExportTraceServiceResponse.FromString(answer.content)
    assert (answer.status_code, reply.partial_success.rejected_spans) == (200, 1)
    assert sorted(wire.list_ids()) == sorted([hex_id("good"), hex_id("fine")])


def test_late_spans_of_a_deleted_trace_are_refused_and_told(wire: Wire) -> None:
    body = request_of(wire, "gone", "here").SerializeToString()
    wire.post("/v1/traces", body, headers=PROTOBUF)
    deletion = wire.send("DELETE", f"/api/traces/{hex_id('gone')}/").json()["deletion_id"]
    reply = ExportTraceServiceResponse.FromString(wire.post("/v1/traces", body, headers=PROTOBUF).content)
    assert reply.partial_success.rejected_spans == 1
    assert reply.partial_success.error_message == f"1 spans refused: their trace was deleted (deletion {deletion})"
    assert wire.list_ids() == [hex_id("here")]
    text = wire.get("/metrics").text
    for outcome, count in (("accepted", 2), ("repeated", 1), ("refused", 1), ("rejected", 0)):
        assert f'clearspan_ingest_spans_total{{outcome="{outcome}"}} {count}.0' in text


def test_logs_join_their_trace(wire: Wire) -> None:
    wire.post("/v1/traces", request_of(wire, "a").SerializeToString(), headers=PROTOBUF)
    for n, path in enumerate(LOG_PATHS):
        request = ExportLogsServiceRequest()
        record = (
            request.resource_logs.add()
            .scope_logs.add()
            .log_records.add(
                trace_id=bytes.fromhex(hex_id("a")), span_id=(1).to_bytes(8, "big"), event_name="gen_ai.user.message"
            )
        )
        record.time_unix_nano = wire.clock.now_ns() - n
        body = record.body.kvlist_value.values.add(key="content").value
        body.string_value = f"question {n}"
        answer = wire.post(path, request.SerializeToString(), headers=PROTOBUF)
        assert (answer.status_code, answer.content) == (200, b"")
    asked = wire.get(f"/api/traces/{hex_id('a')}/").json()["input"]
    assert all(f"question {n}" in asked for n in range(len(LOG_PATHS)))


def test_rejected_logs_are_counted_as_logs(wire: Wire) -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(trace_id=b"short")
    reply = ExportLogsServiceResponse.FromString(
        wire.post("/v1/logs", request.SerializeToString(), headers=PROTOBUF).content
    )
    assert reply.partial_success.rejected_log_records == 1


def test_errors_come_in_the_encoding_of_the_request(wire: Wire) -> None:
    broken = wire.post("/v1/traces", b"\x0a\xff", headers=PROTOBUF)
    assert broken.status_code == 400
    assert broken.headers["content-type"] == "application/x-protobuf"
    assert broken.content == encode_status(3, "the body is not an OTLP protobuf request, or is truncated")
    no_json = wire.post("/v1/traces", b"{", headers=JSON)
    assert (no_json.status_code, no_json.json()["code"]) == (400, 3)
    assert no_json.json()["message"] == no_json.json()["detail"] == no_json.json()["error"]
    assert wire.post("/v1/traces", b"", headers=PROTOBUF, key="wrong").content.startswith(b"\x08\x10\x12")
    assert wire.post("/v1/traces", b"", headers=PROTOBUF, key=wire.key(KeyScope.READ)).status_code == 403
    for content_type in ("text/plain", "", "application/x-www-form-urlencoded"):
        refused = wire.post("/v1/traces", b"x", headers={"Content-Type": content_type})
        assert (refused.status_code, refused.headers["content-type"]) == (415, "application/json")
    for encoding in ("br", "gzip, gzip", "x" * 1000):
        refused = wire.post("/v1/traces", b"x", headers=PROTOBUF | {"Content-Encoding": encoding})
        assert refused.status_code == 415


def test_images_are_refused_at_once(wire: Wire) -> None:
    answer = wire.post("/v2/traces/123/spans/456/images", {"image_name": "x.png"})
    assert answer.status_code == 404


def test_a_full_queue_says_when_to_come_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    body = request_of(wire, "a").SerializeToString()
    with monkeypatch.context() as full:
        full.setattr(wire.services.gateway, "_bytes_max", len(body) - 1)
        for answer in (
            wire.post("/v1/traces", body, headers=PROTOBUF),
            wire.post("/api/v1/traces/ingest", [wire.span("x" * len(body))]),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
        assert wire.services.gateway.queued_bytes == 0
    assert wire.post("/v1/traces", body, headers=PROTOBUF).status_code == 200
    assert wire.services.gateway.queued_bytes == 0
    assert wire.list_ids() == [hex_id("a")]


def test_a_writer_that_cannot_write_is_a_503(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: IngestGateway, batches: object) -> None:
        raise Overloaded("The disk is full.", retry_after_s=7)

    monkeypatch.setattr(IngestGateway, "submit", refuse)
    answer = wire.post("/v1/traces", request_of(wire, "a").SerializeToString(), headers=PROTOBUF)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert wire.services.gateway.queued_bytes == 0


def test_a_large_body_is_decoded_off_the_loop(wire: Wire) -> None:
    request = request_of(wire, "big", spans_each=1000)
    body = request.SerializeToString()
    assert len(body) > 64 * 1024
    assert wire.post("/v1/traces", body, headers=PROTOBUF).status_code == 200
    assert wire.get(f"/api/traces/{hex_id('big')}").json()["span_count"] == 1000


def test_a_keys_environment_overrides_the_spans(wire: Wire) -> None:
    key = wire.key(KeyScope.INGEST, environment="prod")
    request = request_of(wire, "a")
    attribute = request.resource_spans[0].resource.attributes.add(key="deployment.environment.name")
    attribute.value.string_value = "staging"
    wire.post("/v1/traces", request.SerializeToString(), headers=PROTOBUF, key=key)
    assert wire.post("/api/traces/list/", {}).json()["results"][0]["environment"] == "prod"
