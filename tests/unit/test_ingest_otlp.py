"""OTLP bodies at their edges: what is refused whole, what is rejected alone, what is stored all the same."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from clearspan.ingest.batch import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DecodedRequest
from clearspan.ingest.detail import decode_log, decode_span
from clearspan.ingest.limits import DEFAULT_LIMITS, MIB, IngestLimits
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import (
    Decoder,
    decode_logs_json,
    decode_logs_protobuf,
    decode_traces_json,
    decode_traces_protobuf,
)
from clearspan.ingest.payload import parse_block, records_by_id
from clearspan.model.errors import InvalidPayload, PayloadTooLarge
from clearspan.model.span import Span, SpanContext

TRACE = bytes(range(1, 17))
DECODER = Decoder(Origin(1))
SECOND = 10**9


def request_of(*spans: WireSpan, resource: dict[str, str] | None = None) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (resource or {}).items():
        group.resource.attributes.add(key=key).value.string_value = value
    group.scope_spans.add().spans.extend(spans)
    return request


def wire_span(number: int = 1, **fields: Any) -> WireSpan:
    attributes = fields.pop("attributes", {})
    span = WireSpan(
        **{"trace_id": TRACE, "span_id": number.to_bytes(8, "big"), "name": f"span {number}"}
        | {"start_time_unix_nano": SECOND, "end_time_unix_nano": 2 * SECOND}
        | fields
    )
    for key, value in attributes.items():
        added = span.attributes.add(key=key).value
        if isinstance(value, bool):
            added.bool_value = value
        elif isinstance(value, int):
            added.int_value = value
        elif isinstance(value, float):
            added.double_value = value
        elif isinstance(value, list):
            added.array_value.values.extend(AnyValue(string_value=each) for each in value)
        else:
            added.string_value = value
    return span


def decode(*spans: WireSpan, decoder: Decoder = DECODER, **fields: Any) -> DecodedRequest:
    return decode_traces_protobuf(request_of(*spans, **fields).SerializeToString(), decoder)


def only(decoded: DecodedRequest) -> tuple[Span, SpanContext, bytes]:
    """The single span of a request, its context and its record."""
    assert (decoded.span_count, decoded.rejected_count, decoded.reasons) == (1, 0, ())
    (batch,) = decoded.batches
    (span,) = batch.spans
    return span, batch.contexts[span.context_key], records_by_id(parse_block(batch.block))[span.span_id]


def attributes_become(attributes: dict[str, Any], **fields: Any) -> tuple[Span, SpanContext]:
    return only(decode(wire_span(attributes=attributes, **fields)))[:2]


def rejected(decoded: DecodedRequest) -> str:
    assert (decoded.span_count, decoded.rejected_count, len(decoded.reasons)) == (0, 1, 1)
    return decoded.reasons[0]


def break_utf8(body: bytes, text: bytes) -> bytes:
    assert body.count(text) == 1
    return body.replace(text, b"\xff" * len(text))


# What is rejected alone


def test_one_span_with_bad_text_is_rejected_and_511_are_stored() -> None:
    spans = [wire_span(i + 1, attributes={"k": "v"}) for i in range(512)]
    spans[100].status.message = "BADTEXT"
    decoded = decode_traces_protobuf(break_utf8(request_of(*spans).SerializeToString(), b"BADTEXT"), DECODER)
    assert (decoded.span_count, decoded.rejected_count) == (511, 1)
    assert decoded.reasons == (
        "span 0000000000000065: text that is not UTF-8, values nested too deep, or damaged bytes",
    )
    stored = {span.span_id for batch in decoded.batches for span in batch.spans}
    assert len(stored) == 511
    assert "0000000000000065" not in stored


def test_a_bad_resource_rejects_its_own_spans_only() -> None:
    request = request_of(wire_span(1), wire_span(2), resource={"service.name": "BADTEXT"})
    request.resource_spans.add().scope_spans.add().spans.append(wire_span(3))
    decoded = decode_traces_protobuf(break_utf8(request.SerializeToString(), b"BADTEXT"), DECODER)
    assert (decoded.span_count, decoded.rejected_count) == (1, 2)
    assert decoded.reasons == ("its resource cannot be read",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "missing trace id"),
        ({"span_id": b""}, "missing span id"),
        ({"trace_id": b"\0" * 16}, "all-zero trace id"),
        ({"span_id": b"\0" * 8}, "all-zero span id"),
        ({"trace_id": b"\1" * 8}, "trace id of 8 bytes, not 16"),
        ({"end_time_unix_nano": 2**64 - 1}, "a time after the year 2262"),
    ],
)
def test_a_span_that_cannot_be_identified_or_timed_is_rejected(fields: dict[str, Any], reason: str) -> None:
    assert reason in rejected(decode(wire_span(**fields)))
    beside = decode(wire_span(7), wire_span(**fields))
    assert (beside.span_count, beside.rejected_count) == (1, 1)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, prefix = len(content), bytearray()
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *prefix, size]) + content


def nested_request(number: int, levels: int) -> bytes:
    """A request of one span whose attribute holds that many lists in each other; the generated classes refuse to."""
    value = field(1, b"x")
    for _ in range(levels):
        value = field(5, field(1, value))
    span = wire_span(number).SerializeToString() + field(9, field(1, b"deep") + field(2, value))
    return field(1, field(2, field(2, span)))


def test_deep_values_are_rejected_alone() -> None:
    decoded = decode_traces_protobuf(nested_request(1, 60) + nested_request(2, 40), DECODER)
    assert (decoded.span_count, decoded.rejected_count) == (1, 1)
    assert decoded.reasons[0].startswith("span 0000000000000001: ")
    assert "nested too deep" in decoded.reasons[0]
    assert rejected(decode_traces_protobuf(nested_request(1, 5_000), DECODER))


def test_limits_of_one_span_are_named() -> None:
    limits = Decoder(Origin(1), IngestLimits(attribute_bytes=1000, attributes_per_span=5, events_per_span=3))
    assert "more than 5 attributes" in rejected(
        decode(wire_span(attributes=dict.fromkeys("abcdef", "v")), decoder=limits)
    )
    assert "1000 bytes" in rejected(decode(wire_span(attributes={"k": "v" * 1001}), decoder=limits))
    busy = wire_span()
    for _ in range(4):
        busy.events.add(name="tick")
    assert "more than 3 events" in rejected(decode(busy, decoder=limits))
    loud = wire_span()
    loud.events.add(name="exception").attributes.add(key="k").value.string_value = "v" * 1001
    assert "1000 bytes" in rejected(decode(loud, decoder=limits))


def test_a_ten_megabyte_attribute_is_rejected_with_bounded_memory() -> None:
    body = request_of(wire_span(1, attributes={"input": "x" * 10 * MIB}), wire_span(2)).SerializeToString()
    tracemalloc.start()
    try:
        decoded = decode_traces_protobuf(body, DECODER)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (decoded.span_count, decoded.rejected_count) == (1, 1)
    assert f"more than {8 * MIB} bytes" in decoded.reasons[0]
    assert peak < 4 * len(body)


def test_reasons_are_few_and_hold_no_content() -> None:
    spans = [wire_span(i + 1, trace_id=b"\1" * (i + 1), attributes={"secret": "needle"}) for i in range(10)]
    decoded = decode(*spans)
    assert (decoded.rejected_count, len(decoded.reasons)) == (10, 5)
    assert not any("needle" in reason or "secret" in reason for reason in decoded.reasons)


# What is refused whole


def test_every_truncation_of_a_body_is_refused() -> None:
    body = request_of(wire_span(1, attributes={"k": "v"})).SerializeToString()
    for size in range(1, len(body)):
        with pytest.raises(InvalidPayload):
            decode_traces_protobuf(body[:size], DECODER)


def test_an_empty_protobuf_body_is_an_empty_request() -> None:
    assert decode_traces_protobuf(b"", DECODER) == DecodedRequest([], 0, 0, 0, ())


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b'"text"', b"{", b'{"resourceSpans": 5}', b'{"resourceSpans": [5]}',
        b'{"resourceSpans": [{"scopeSpans": {}}]}', b'{"resourceSpans": [{"resource": [], "scopeSpans": []}]}',
        b"\xef\xbb\xbf{}\xff",
        b'{"a":' * 100_000, b"[" * 100_000, b'{"resourceSpans": NaN}',
    ],
)  # fmt: skip
def test_json_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        decode_traces_json(body, DECODER)


# What is stored all the same


def test_a_reversed_or_missing_time_is_made_whole() -> None:
    def times(start: int, end: int) -> tuple[int, int]:
        span = only(decode(wire_span(start_time_unix_nano=start, end_time_unix_nano=end)))[0]
        return span.start_ns, span.end_ns

    assert times(5, 3) == (5, 5)
    assert times(0, 3) == (3, 3)
    assert times(5, 0) == (5, 5)
    assert times(0, 0) == (0, 0)


def test_an_all_zero_parent_is_none() -> None:
    assert only(decode(wire_span(parent_span_id=b"\0" * 8)))[0].parent_id is None
    assert only(decode(wire_span(parent_span_id=b"\1" * 8)))[0].parent_id == "01" * 8


def test_names_are_cut_and_nul_is_kept() -> None:
    span, _, record = only(decode(wire_span(name="ä\0" * 200)))
    assert (len(span.name), span.name[:2]) == (255, "ä\0")
    assert decode_span(record).name == "ä\0" * 200


def test_the_record_is_the_wires_own_bytes_and_lossless() -> None:
    wire = wire_span(attributes={"a": "text", "b": 2**62, "c": -1, "d": 0.5, "e": True, "f": ["x", "y"]})
    wire.attributes.add(key="bytes").value.bytes_value = b"\0\xff"
    wire.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.double_value = float("nan")
    wire.attributes.add(key="none")
    wire.links.add(trace_id=TRACE, span_id=b"\2" * 8).attributes.add(key="l").value.int_value = 1
    unknown = wire.SerializeToString() + b"\xaa\x1f\x03new"  # field 501, which nobody knows
    body = ExportTraceServiceRequest()
    body.resource_spans.add().scope_spans.add().spans.append(WireSpan.FromString(unknown))
    _, _, record = only(decode_traces_protobuf(body.SerializeToString(), DECODER))
    assert b"\xaa\x1f\x03new" in record
    detail = decode_span(record)
    assert detail.attributes == {
        "a": "text", "b": 2**62, "c": -1, "d": 0.5, "e": True, "f": ["x", "y"],
        "bytes": {"bytesValue": "AP8="}, "map": {"k": "NaN"}, "none": None,
    }  # fmt: skip
    assert detail.links[0].attributes == {"l": 1}


def test_repeats_within_a_request_follow_the_merge_law() -> None:
    early, late = wire_span(1, end_time_unix_nano=2 * SECOND), wire_span(1, end_time_unix_nano=3 * SECOND)
    for order in ((early, late, early), (late, early)):
        (batch,) = decode(*order).batches
        assert [span.end_ns for span in batch.spans] == [3 * SECOND]
        assert len(parse_block(batch.block).records) == 1


def test_equal_content_has_equal_hashes_and_another_key_is_another_content() -> None:
    def content_hash(decoder: Decoder, **resource: str) -> int:
        return only(decode(wire_span(attributes={"k": "v"}), decoder=decoder, resource=resource))[0].content_hash

    assert content_hash(DECODER) == content_hash(Decoder(Origin(2)))
    others = [
        content_hash(DECODER), content_hash(Decoder(Origin(1, "key_2"))), content_hash(Decoder(Origin(1, None, "dev"))),
        content_hash(DECODER, service="x"),
    ]  # fmt: skip
    assert len(set(others)) == 4


def test_a_keys_environment_overrides_the_spans() -> None:
    span = wire_span(attributes={"respan.environment": "staging"})
    resource = {"deployment.environment.name": "dev"}
    assert only(decode(span, resource=resource))[1].environment == "staging"
    assert only(decode(wire_span(), resource=resource))[1].environment == "dev"
    assert only(decode(span, decoder=Decoder(Origin(1, "k", "production"))))[1] == SpanContext(
        environment="production", key_id="k"
    )


def test_a_large_trace_comes_in_several_batches() -> None:
    small = decode(*(wire_span(i + 1) for i in range(2 * BATCH_RECORDS_MAX + 1)))
    assert [len(batch.spans) for batch in small.batches] == [BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 1]
    big = decode(*(wire_span(i + 1, attributes={"input": "x" * (BATCH_BYTES_MAX // 2)}) for i in range(3)))
    assert [len(batch.spans) for batch in big.batches] == [1, 1, 1]
    for batch in (*small.batches, *big.batches):
        assert len(parse_block(batch.block).records) == len(batch.spans)
        assert {span.context_key for span in batch.spans} == set(batch.contexts)


JSON_SPAN: dict[str, Any] = {
    "traceId": TRACE.hex(), "spanId": "00000000000000aa", "name": "json", "startTimeUnixNano": "1000000000",
    "endTimeUnixNano": "2000000000",
}  # fmt: skip


def decode_json_span(fields: dict[str, Any], **scope: Any) -> DecodedRequest:
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [JSON_SPAN | fields]} | scope]}]}
    return decode_traces_json(json.dumps(document).encode(), DECODER)


def test_json_spellings_of_one_span_are_one_span() -> None:
    plain = only(decode_json_span({"kind": 3, "status": {"code": 2, "message": "m"}}))
    spellings: list[dict[str, Any]] = [
        {"kind": "SPAN_KIND_CLIENT", "status": {"code": "STATUS_CODE_ERROR", "message": "m"}},
        {"kind": "CLIENT", "status": {"code": "ERROR", "message": "m"}, "unknown": {"x": [1]}, "parentSpanId": None},
        {"kind": 3, "status": {"code": 2, "message": "m"}, "startTimeUnixNano": 1_000_000_000},
        {"kind": "3", "status": {"code": "2", "message": "m"}, "traceId": TRACE.hex().upper()},
        {"kind": 3, "status": {"code": 2, "message": "m"}, "parentSpanId": "", "attributes": None, "events": []},
    ]
    for fields in spellings:
        assert only(decode_json_span(fields)) == plain, fields
    snake = {
        "trace_id": TRACE.hex(), "span_id": "00000000000000aa", "name": "json", "start_time_unix_nano": "1000000000",
        "end_time_unix_nano": 2_000_000_000, "kind": 3, "status": {"code": 2, "message": "m"},
    }  # fmt: skip
    document = {"resource_spans": [{"scope_spans": [{"spans": [snake]}]}]}
    assert only(decode_traces_json(json.dumps(document).encode(), DECODER)) == plain


def test_json_values_of_every_kind() -> None:
    values: list[tuple[dict[str, Any], Any]] = [
        ({"stringValue": "ü"}, "ü"), ({"intValue": "9007199254740993"}, 9007199254740993), ({"intValue": -5}, -5),
        ({"doubleValue": 0.25}, 0.25), ({"doubleValue": "NaN"}, "NaN"), ({"doubleValue": 3}, 3.0),
        ({"boolValue": False}, False), ({"bytesValue": "AP8="}, {"bytesValue": "AP8="}),
        ({"bytesValue": "-_8"}, {"bytesValue": "+/8="}), ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"intValue": 1}, {}]}}, [1, None]),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}, {"k": "v"}), ({}, None),
        ({"string_value": "snake"}, "snake"),
    ]  # fmt: skip
    pairs = [{"key": f"k{i}", "value": value} for i, (value, _) in enumerate(values)]
    record = only(decode_json_span({"attributes": pairs}))[2]
    assert list(decode_span(record).attributes.values()) == [expected for _, expected in values]


def test_texts_that_langsmiths_client_sends_as_bytes_are_texts() -> None:
    prompt = AnyValue(bytes_value='{"q":"ü"}'.encode())
    span = wire_span()
    span.attributes.append(KeyValue(key="gen_ai.prompt", value=prompt))
    assert decode_span(only(decode(span))[2]).attributes == {"gen_ai.prompt": '{"q":"ü"}'}
    span.attributes[0].value.bytes_value = b"\x00\xff"
    assert decode_span(only(decode(span))[2]).attributes == {"gen_ai.prompt": {"bytesValue": "AP8="}}


def test_lone_surrogates_cost_nothing_else() -> None:
    """Neither in OTLP/JSON itself nor in JSON that an attribute holds as text."""
    said = json.dumps([{"role": "user", "content": "half \ud83d"}])
    pairs = [{"key": "half \udc00", "value": {"stringValue": "😀 \ud83d"}}]
    pairs.append({"key": "gen_ai.input.messages", "value": {"stringValue": said}})
    span = decode_span(only(decode_json_span({"attributes": pairs}))[2])
    assert span.attributes == {"half \ufffd": "😀 \ufffd", "gen_ai.input.messages": said}
    assert span.input_messages == [{"role": "user", "content": "half \ufffd"}]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": 5}, {"traceId": "xyz"}, {"traceId": 5}, {"startTimeUnixNano": "soon"}, {"startTimeUnixNano": -1},
        {"startTimeUnixNano": 2**64}, {"attributes": {}}, {"attributes": [5]}, {"status": []},
        {"attributes": [{"key": "k", "value": "plain"}]}, {"attributes": [{"key": "k", "value": {"intValue": "x"}}]},
        {"attributes": [{"key": "k", "value": {"intValue": 2**63}}]}, {"events": [{"name": []}]},
        {"attributes": [{"key": "k", "value": {"bytesValue": "*"}}]}, {"attributes": [{"key": 1}]},
        {"attributes": [{"key": "k", "value": {"boolValue": "yes"}}]}, {"flags": 2**40}, {"startTimeUnixNano": True},
    ],
)  # fmt: skip
def test_a_json_span_with_a_wrong_field_is_rejected_alone(fields: dict[str, Any]) -> None:
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [JSON_SPAN | fields, JSON_SPAN, 5]}]}]}
    decoded = decode_traces_json(json.dumps(document).encode(), DECODER)
    assert (decoded.span_count, decoded.rejected_count) == (1, 2)


BAD_SHARED = [
    {"droppedAttributesCount": -1}, {"attributes": [{"key": "k", "value": {"intValue": "99999999999999999999"}}]},
    {"attributes": [{"key": "k", "value": {"doubleValue": "abc"}}]}, {"attributes": {}},
    {"attributes": [{"key": "k", "value": {"doubleValue": {}}}]}, {"attributes": [{"key": 1}]},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_SHARED)
@pytest.mark.parametrize("what", ["resource", "scope"])
def test_a_bad_json_resource_or_scope_rejects_its_own_spans_only(what: str, bad: dict[str, Any]) -> None:
    broken: dict[str, Any] = {"spans": [JSON_SPAN, JSON_SPAN]}
    group: dict[str, Any] = {"scopeSpans": [broken]}
    (group if what == "resource" else broken)[what] = bad
    document = {"resourceSpans": [group, {"scopeSpans": [{"spans": [JSON_SPAN]}]}]}
    decoded = decode_traces_json(json.dumps(document).encode(), DECODER)
    assert (decoded.span_count, decoded.rejected_count) == (1, 2)
    assert decoded.reasons == (f"span: its {what} cannot be read",)


def groups_of(resources: int, scopes_each: int) -> bytes:
    return field(1, field(2, b"") * scopes_each) * resources


@pytest.mark.parametrize(("resources", "scopes_each"), [(6, 0), (3, 1), (1, 4), (2, 2), (7, 0), (3, 2), (1, 6)])
def test_groups_of_a_request_are_bounded(resources: int, scopes_each: int) -> None:
    decoder = Decoder(Origin(1), IngestLimits(groups=6))
    document: dict[str, Any] = {"resourceSpans": [{"scopeSpans": [{}] * scopes_each}] * resources}
    for decode_body, body in (
        (decode_traces_protobuf, groups_of(resources, scopes_each)),
        (decode_logs_protobuf, groups_of(resources, scopes_each)),
        (decode_traces_json, json.dumps(document).encode()),
    ):
        if resources * (1 + scopes_each) <= 6:
            assert decode_body(body, decoder).span_count == 0
        else:
            with pytest.raises(PayloadTooLarge, match="more than 6 resource and scope groups"):
                decode_body(body, decoder)


@pytest.mark.parametrize(
    "padding", [b"\x18\x01", b"\x19" + bytes(8), b"\x1d" + bytes(4), b"\x1a\x00", field(1, b"\x1a\x00")]
)
def test_other_fields_do_not_hide_groups(padding: bytes) -> None:
    decoder = Decoder(Origin(1), IngestLimits(groups=6))
    decode_traces_protobuf(padding * 3 + groups_of(1, 1), decoder)
    with pytest.raises(PayloadTooLarge):
        decode_traces_protobuf(padding * 2 + groups_of(7, 0), decoder)
    with pytest.raises(PayloadTooLarge):
        decode_traces_protobuf(padding * 100, decoder)
    with pytest.raises(InvalidPayload):
        decode_traces_protobuf(b"\x1b\x1c" + padding, decoder)


def test_eight_million_empty_groups_are_refused_in_bounded_memory() -> None:
    body = b"\x0a\x00" * (8 * MIB)
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        decode_traces_protobuf(body, DECODER)
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


def test_parts_of_a_cost_never_add_up_past_64_bits() -> None:
    span, _ = attributes_become({"llm.cost.prompt": 9e6, "llm.cost.completion": 9e6})
    assert span.cost_pico == 2**63 - 1


def test_json_values_nested_too_deep_are_rejected_alone() -> None:
    def value(levels: int) -> dict[str, Any]:
        inner: dict[str, Any] = {"stringValue": "x"}
        for _ in range(levels):
            inner = {"arrayValue": {"values": [inner]}}
        return inner

    assert only(decode_json_span({"attributes": [{"key": "k", "value": value(DEFAULT_LIMITS.depth)}]}))
    assert "nested too deep" in rejected(
        decode_json_span({"attributes": [{"key": "k", "value": value(DEFAULT_LIMITS.depth + 1)}]})
    )


def test_resource_and_scope_in_any_order_or_absent() -> None:
    body = (
        '{"resourceSpans": [{"scopeSpans": [{"spans": [S], "scope": {"name": "s", "version": "1"}, "schemaUrl": "u"}],'
        '"resource": {"attributes": [{"key": "deployment.environment", "value": {"stringValue": "dev"}}]}}]}'
    ).replace("[S]", f"[{json.dumps(JSON_SPAN)}]")
    _, context, record = only(decode_traces_json(body.encode(), DECODER))
    detail = decode_span(record)
    assert (context.environment, detail.scope_name, detail.schema_url) == ("dev", "s", "u")
    assert decode_span(only(decode_json_span({}))[2]).scope_name == ""


# Logs


def test_log_records_join_their_trace_and_others_are_left_out() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(trace_id=TRACE, span_id=b"\1" * 8, event_name="e", observed_time_unix_nano=5, severity_number=9)
    records.add(time_unix_nano=6)
    records.add(trace_id=b"\0" * 16)
    records.add(trace_id=b"\1")
    records[0].body.string_value = "body"
    decoded = decode_logs_protobuf(request.SerializeToString(), DECODER)
    assert (decoded.log_count, decoded.rejected_count) == (1, 1)
    (batch,) = decoded.batches
    (log,) = batch.logs
    assert (log.span_id, log.time_ns, log.event_name, log.severity) == ("01" * 8, 5, "e", 9)
    assert decode_log(records_by_id(parse_block(batch.block))[log.log_hash]).body == "body"


def test_json_logs_are_the_same_records() -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(trace_id=TRACE, time_unix_nano=7)
    record.body.kvlist_value.values.add(key="content").value.string_value = "hi"
    record.attributes.add(key="event.name").value.string_value = "gen_ai.user.message"
    body = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "hi"}}]}}
    attributes = [{"key": "event.name", "value": {"stringValue": "gen_ai.user.message"}}]
    wire = {"traceId": TRACE.hex(), "timeUnixNano": "7", "body": body, "attributes": attributes}
    document = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [wire]}]}]}).encode()
    from_json, from_protobuf = (
        decode_logs_json(document, DECODER),
        decode_logs_protobuf(request.SerializeToString(), DECODER),
    )
    assert from_json == from_protobuf
    assert from_json.batches[0].logs[0].event_name == "gen_ai.user.message"
