"""Bad input, case by case: a clear error, nothing stored, memory bounded, and the next good request answered."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from clearspan.testing.wire import SECOND_NS, Wire

# Nothing here depends on which store is behind: the one that ships is enough.
pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)

PROTOBUF = {"Content-Type": "application/x-protobuf"}
MIB = 2**20
SEED = 20261122
CUTS = 60
CUTS_LONG = 3000


def good_request(wire: Wire, name: str = "good", value: str | bytes = "fine") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=name.encode().ljust(16, b"_")[:16],
            span_id=b"12345678",
            name="span",
            start_time_unix_nano=wire.clock.now_ns() - SECOND_NS,
            end_time_unix_nano=wire.clock.now_ns(),
        )
    )
    attribute = span.attributes.add(key="note").value
    if isinstance(value, bytes):
        attribute.bytes_value = value
    else:
        attribute.string_value = value
    return request


def still_answers(wire: Wire) -> None:
    """Nothing was stored, nothing is held, and a good request is taken."""
    assert wire.list_ids(wire.window()) == []
    assert wire.services.gateway.queued_bytes == 0
    assert wire.post("/v1/traces", good_request(wire).SerializeToString(), headers=PROTOBUF).status_code == 200
    assert wire.post("/api/traces/list/", {}).json()["count"] == 1


def nested(levels: int) -> bytes:
    """An OTLP request whose one attribute is an array in an array, `levels` deep."""
    request = good_request_value(levels)
    return request.SerializeToString()


def good_request_value(levels: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"n" * 16, span_id=b"12345678", name="deep")
    )
    value = span.attributes.add(key="deep").value
    for _ in range(levels):
        value = value.array_value.values.add()
    value.int_value = 1
    return request


LISTS: list[tuple[str, Any, int, str, str]] = [
    # query, body, status, code, key that is named
    ("?page_size=1001", {}, 400, "invalid_page", "page_size"),
    ("?page_size=0", {}, 400, "invalid_page", "page_size"),
    ("?page_size=ten", {}, 400, "invalid_page", "page_size"),
    ("?page_size=" + "9" * 5000, {}, 400, "invalid_page", "page_size"),
    ("?page=0", {}, 400, "invalid_page", "page"),
    ("?page=-1", {}, 400, "invalid_page", "page"),
    ("?page=1.5", {}, 400, "invalid_page", "page"),
    ("?sort_by=password", {}, 400, "invalid_page", "sort_by"),
    ("?sort_by=--timestamp", {}, 400, "invalid_page", "sort_by"),
    ("?start_time=now", {}, 400, "invalid_time", "start_time"),
    ("?end_time=2026-13-01", {}, 400, "invalid_time", "end_time"),
    ("?start_time=2026-01-02T00:00:00Z&end_time=2026-01-01T00:00:00Z", {}, 400, "invalid_time", "end_time"),
    ("", {"filters": {"no_such_field": {"value": [1]}}}, 400, "invalid_filter", "no_such_field"),
    ("", {"filters": {"__proto__": {"value": ["x"]}}}, 400, "invalid_filter", "__proto__"),
    ("", {"filters": {"name": {"operator": "resembles", "value": ["x"]}}}, 400, "invalid_filter", "name"),
    ("", {"filters": {"name": {"operator": "regex", "value": ["(a+)+$"]}}}, 400, "invalid_filter", "name"),
    ("", {"filters": {"error_count": {"operator": "gt", "value": ["x"]}}}, 400, "invalid_filter", "error_count"),
    ("", {"filters": {"total_cost": {"operator": "gt", "value": [{}]}}}, 400, "invalid_filter", "total_cost"),
    ("", {"filters": {"name": {"value": ["x"], "surprise": 1}}}, 400, "invalid_filter", "name"),
    ("", {"filters": {"metadata__": {"value": ["x"]}}}, 400, "invalid_filter", "metadata__"),
    ("", {"filters": 7}, 400, "invalid_filter", "filters"),
    ("", b"not json", 400, "invalid_json", "detail"),
    ("", b'"text"', 400, "invalid_json", "detail"),
    ("", b'{"filters": NaN}', 400, "invalid_json", "detail"),
    ("", b'{"filters": {"name": {"value": ["\xff\xfe"]}}}', 400, "invalid_json", "detail"),
    ("", b'{"filters": {"name": {"value": ["\\ud800"]}}}', 400, "invalid_json", "detail"),
    ("", b"[" * 100_000, 400, "invalid_json", "detail"),
    ("", b'{"a":' * 200 + b"1" + b"}" * 200, 200, "", "results"),
    ("", b'{"filters": "' + b"x" * (5 * MIB) + b'"}', 413, "payload_too_large", "detail"),
]


def test_a_list_names_what_it_does_not_understand(wire: Wire) -> None:
    for query, body, status, code, key in LISTS:
        answer = wire.post(f"/api/traces/list/{query}", body)
        assert answer.status_code == status, (query, str(body)[:100], answer.text)
        found = answer.json()
        assert key in found, (query, str(body)[:100], found)
        if status != 200:
            assert (found["code"], found["detail"]) == (code, found["error"])
    still_answers(wire)


def test_wrong_keys_are_told_the_same_whatever_they_are(wire: Wire) -> None:
    texts = {
        wire.post("/api/traces/list/", {}, key=None, headers={"Authorization": value}).text
        for value in ("", "Bearer", "Bearer ", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer " + "x" * 5000, "nonsense")
    }
    assert len(texts) == 1
    still_answers(wire)


def test_a_truncated_body_stores_nothing(wire: Wire) -> None:
    body = good_request(wire, "cut", "x" * 300).SerializeToString()
    cut_short(wire, body, CUTS)


@pytest.mark.long
def test_every_truncated_and_flipped_body_is_a_400_or_stored_whole(wire: Wire) -> None:
    cut_short(wire, good_request(wire, "cut", "x" * 300).SerializeToString(), CUTS_LONG)


def cut_short(wire: Wire, body: bytes, cuts: int) -> None:
    choose = random.Random(SEED)
    print(f"seed {SEED}")
    for _ in range(cuts):
        at = choose.randrange(1, len(body))
        answer = wire.post("/v1/traces", body[:at], headers=PROTOBUF)
        assert answer.status_code == 400, at
        assert (
            wire.post(
                "/v1/traces", gzip.compress(body)[: -at % 40 - 1], headers={**PROTOBUF, "Content-Encoding": "gzip"}
            ).status_code
            == 400
        )
    still_answers(wire)
    for _ in range(cuts):
        at = choose.randrange(len(body))
        flipped = body[:at] + bytes([body[at] ^ (1 << choose.randrange(8))]) + body[at + 1 :]
        assert wire.post("/v1/traces", flipped, headers=PROTOBUF).status_code in (200, 400), at


@pytest.mark.parametrize("kind", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_refused_in_bounded_memory(wire: Wire, kind: str) -> None:
    body = bomb(kind)
    tracemalloc.start()
    answer = wire.post("/v1/traces", body, headers={**PROTOBUF, "Content-Encoding": kind})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 80 * MIB
    still_answers(wire)


def bomb(kind: str) -> bytes:
    """200 MiB of zeros, packed without ever being held."""
    import zlib

    out = io.BytesIO()
    zeros = bytes(MIB)
    if kind == "zstd":
        with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as packer:
            for _ in range(200):
                packer.write(zeros)
        return out.getvalue()
    stream = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    return b"".join(stream.compress(zeros) for _ in range(200)) + stream.flush()


def test_a_body_over_the_limit_is_refused_by_its_length_and_while_it_streams(wire: Wire) -> None:
    limit = wire.services.settings.body_bytes_max
    announced = wire.post("/v1/traces", b"x", headers={**PROTOBUF, "Content-Length": str(limit + 1)})
    assert (announced.status_code, announced.headers["connection"]) == (413, "close")
    for length in ("-1", "many", "1" * 50):
        assert wire.post("/v1/traces", b"x", headers={**PROTOBUF, "Content-Length": length}).status_code in (400, 413)
    streamed = wire.client.post(
        "/v1/traces", content=(bytes(MIB) for _ in range(limit // MIB + 2)), headers={**PROTOBUF, **wire.headers()}
    )
    assert streamed.status_code == 413
    still_answers(wire)


def test_sixty_levels_of_nesting_cost_that_span_alone(wire: Wire) -> None:
    for levels in (60, 1000):
        answer = wire.post("/v1/traces", nested(levels), headers=PROTOBUF)
        if answer.status_code == 200:
            assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
        else:
            assert answer.status_code == 400
    value: Any = 1
    for _ in range(60):
        value = {"arrayValue": {"values": [value]}} if isinstance(value, dict) else {"intValue": "1"}
    spans = [{"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "deep", "attributes": [{"key": "k", "value": value}]}]
    answer = wire.post("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    assert answer.json()["partialSuccess"]["rejectedSpans"] == 1
    for body in (b"[" * 100_000 + b"]" * 100_000, b'{"resourceSpans":' * 5000):
        assert wire.post("/v1/traces", body, headers={"Content-Type": "application/json"}).status_code == 400
    still_answers(wire)


def test_an_attribute_of_ten_megabytes_costs_that_span_alone(wire: Wire) -> None:
    request = good_request(wire, "huge", "x" * (10 * MIB))
    answer = wire.post("/v1/traces", request.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    reply = ExportTraceServiceResponse.FromString(answer.content)
    assert reply.partial_success.rejected_spans == 1
    assert len(reply.partial_success.error_message) < 500
    still_answers(wire)


def test_too_many_attributes_cost_that_span_alone(wire: Wire) -> None:
    request = good_request(wire, "many")
    attributes = request.resource_spans[0].scope_spans[0].spans[0].attributes
    for n in range(10_001):
        attributes.add(key=f"k{n}").value.int_value = n
    answer = wire.post("/v1/traces", request.SerializeToString(), headers=PROTOBUF)
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
    still_answers(wire)


def test_nul_and_odd_text_come_back_as_they_were_sent(wire: Wire) -> None:
    odd = "a\0b\u202eright\ufeff\r\n\u2028é\U0001f600"
    wire.ingest(
        wire.span("t1", input=odd, customer_identifier=odd, metadata={"constructor": odd, "a.b": "1", "k\0": "2"})
    )
    (item,) = wire.post("/api/traces/list/", {}).json()["results"]
    assert (item["input"], item["customer_identifier"]) == (odd, odd)
    assert item["metadata"]["constructor"] == odd
    assert wire.list_ids(filters={"customer_identifier": {"value": [odd]}}) == ["t1"]
    assert (
        wire.post("/api/traces/bulk/", {"filters": {"customer_identifier": {"value": [odd]}}}).json()["deleted_count"]
        == 1
    )


LEGACY: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"null", 400),
    (b'{"data": 1}', 400),
    (b'{"spans": []}', 400),
    (b'[{"trace_unique_id": "t"}]', 400),
    (b'[{"span_unique_id": "s"}]', 400),
    (b"[1, 2, 3]", 400),
    (b'[{"trace_unique_id": "", "span_unique_id": "s"}]', 400),
    (b'[{"trace_unique_id": "t", "span_unique_id": {"a": 1}}]', 400),
    (b'[{"trace_unique_id": "t\xff", "span_unique_id": "s"}]', 400),
    (b"[" * 100_000, 400),
    (b"[]", 200),
]


def test_legacy_bodies_that_hold_no_span(wire: Wire) -> None:
    for body, status in LEGACY:
        answer = wire.post("/api/v1/traces/ingest", body)
        assert answer.status_code == status, (body[:60], answer.text)
        assert "detail" in answer.json() or status == 200
    still_answers(wire)


def test_legacy_spans_are_taken_one_by_one(wire: Wire) -> None:
    mixed = [wire.span("a"), {"trace_unique_id": "no span id"}, wire.span("b")]
    for body in (mixed, {"data": mixed}):
        answer = wire.post("/api/openai/v1/traces/ingest/", body, headers={"OpenAI-Beta": "traces=v1"})
        assert answer.status_code == 200
        assert answer.json()["message"].startswith("Successfully ingested 2 spans. 1 spans rejected: ")
    assert sorted(wire.list_ids()) == ["a", "b"]


def test_random_bytes_never_break_a_route(wire: Wire) -> None:
    choose = random.Random(SEED)
    print(f"seed {SEED}")
    for _ in range(50):
        junk = choose.randbytes(choose.randrange(0, 400))
        for path, headers in (
            ("/v1/traces", PROTOBUF),
            ("/v1/logs", PROTOBUF),
            ("/v1/traces", {"Content-Type": "application/json"}),
            ("/api/v1/traces/ingest", {"Content-Encoding": choose.choice(["gzip", "zstd", "deflate"])}),
            ("/api/traces/list/", {}),
            ("/api/traces/bulk/", {}),
        ):
            assert wire.post(path, junk, headers=headers).status_code in (200, 400, 413), (path, junk)
    assert json.loads(wire.get("/readyz").text)["status"] == "ready"


def test_a_json_resource_that_cannot_be_read_costs_its_spans_alone(wire: Wire) -> None:
    span = {"traceId": "0a" * 16, "spanId": "0b" * 8, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    for bad in (
        {"droppedAttributesCount": -1},
        {"attributes": [{"key": "k", "value": {"intValue": "99999999999999999999"}}]},
        {"attributes": [{"key": "k", "value": {"doubleValue": "abc"}}]},
        {"attributes": [{"key": "k", "value": {"doubleValue": {}}}]},
    ):
        for group in (
            {"resource": bad, "scopeSpans": [{"spans": [span]}]},
            {"scopeSpans": [{"scope": bad, "spans": [span]}]},
        ):
            answer = wire.post("/v1/traces", {"resourceSpans": [group]})
            assert (answer.status_code, answer.json()["partialSuccess"]["rejectedSpans"]) == (200, 1), answer.text
            assert "cannot be read" in answer.json()["partialSuccess"]["errorMessage"]
    still_answers(wire)


def test_too_many_groups_are_refused(wire: Wire) -> None:
    for body, headers in (
        (b"\x0a\x00" * 10_001, PROTOBUF),
        (json.dumps({"resourceSpans": [{}] * 10_001}).encode(), {"Content-Type": "application/json"}),
    ):
        answer = wire.post("/v1/traces", body, headers=headers)
        assert answer.status_code == 413, answer.content
    still_answers(wire)


def test_absurd_costs_and_counts_are_stored_and_summed(wire: Wire) -> None:
    spans = [wire.span("dear", cost=5e6, prompt_tokens=2**53) | {"span_unique_id": f"s{n}"} for n in range(2)]
    spans += [wire.span("odd", cost=cost) | {"span_unique_id": f"o{n}"} for n, cost in enumerate(ODD_COSTS)]
    answer = wire.post("/api/v1/traces/ingest", spans)
    assert (answer.status_code, "rejected" in answer.text) == (200, False), answer.text
    assert wire.get("/api/traces/dear/").status_code == 200
    assert wire.get("/api/traces/odd/").status_code == 200
    assert sorted(wire.list_ids()) == ["dear", "odd"]


ODD_COSTS = ["1e500000", "1e999999", "-1e999999", "1e-999999", "NaN", "sNaN", "Infinity"]


def test_the_earliest_window_is_answered(wire: Wire) -> None:
    answer = wire.post("/api/traces/list/?end_time=1677-09-21T00:30:00Z", {})
    assert (answer.status_code, answer.json()["results"]) == (200, [])
