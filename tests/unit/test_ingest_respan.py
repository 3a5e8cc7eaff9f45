"""Respan's legacy ingest: every field and alias, and every way to be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.detail import decode_span, input_output, searchable_text
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder
from clearspan.ingest.payload import decode_record, parse_block, records_by_id
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.respan import decode_respan_json, parse_time
from clearspan.model.errors import InvalidPayload
from clearspan.model.span import Span, SpanContext

DECODER = Decoder(Origin(1))
MINIMAL: dict[str, Any] = {
    "trace_unique_id": "trace_abc 1",
    "span_unique_id": "s 1",
    "start_time": "2026-01-01T00:00:00Z",
}
JANUARY_NS = 1_767_225_600 * 10**9


def decode(*spans: Any, decoder: Decoder = DECODER) -> DecodedRequest:
    return decode_respan_json(json.dumps(list(spans)).encode(), decoder)


def become(fields: dict[str, Any] | None = None, decoder: Decoder = DECODER) -> tuple[Span, SpanContext, bytes]:
    decoded = decode(MINIMAL | (fields or {}), decoder=decoder)
    assert decoded.reasons == ()
    (batch,) = decoded.batches
    (span,) = batch.spans
    return span, batch.contexts[span.context_key], records_by_id(parse_block(batch.block))[span.span_id]


def test_both_forms_of_the_body_are_one() -> None:
    body = [MINIMAL, MINIMAL | {"span_unique_id": "s2", "span_parent_id": "s 1"}]
    wrapped = decode_respan_json(json.dumps({"data": body}).encode(), DECODER)
    assert wrapped == decode(*body)
    assert [span.parent_id for span in wrapped.batches[0].spans] == [None, "s 1"]
    assert decode() == DecodedRequest([], 0, 0, 0, ())


def test_every_field_of_a_span() -> None:
    span, context, _ = become({
        "span_name": "x" * 300, "span_workflow_name": "flow", "span_path": "a.b", "log_type": "completion",
        "model": "gpt-4o", "provider_id": "openai", "cost": 0.25, "latency": 1.5, "status": "error", "status_code": 500,
        "error_message": "boom 17", "timestamp": "2026-01-01T00:00:02", "prompt_tokens": 10, "completion_tokens": "5",
        "total_request_tokens": 15, "prompt_cache_hit_tokens": 4, "prompt_cache_creation_tokens": 2, "ttft": 0.3,
        "routing_time": 0.01, "stream": True, "deployment_name": "d", "prompt_id": "p", "prompt_name": "pn",
        "prompt_version_number": 3, "log_method": "python_tracing", "customer_identifier": "ada",
        "customer_params": {"email": "a@example.com", "name": "Ada", "customer_identifier": "other"},
        "thread_identifier": "t", "session_identifier": "s", "trace_group_identifier": "g", "environment": "dev",
        "tags": ["a", "b"], "metadata": {"k": "v", "n": 7, "deep": {"x": True}}, "properties": {"typed": 1.5},
        "custom_identifier": "c9", "group_identifier": "gi", "temperature": 0.2, "encoding_format": "float",
        "unheard_of": "yes", "span_parent_id": "p1",
    })  # fmt: skip
    assert (len(span.name), span.workflow_name, span.path, span.kind) == (255, "flow", "a.b", "completion")
    assert (span.start_ns, span.end_ns) == (JANUARY_NS, JANUARY_NS + 2 * 10**9)
    assert (span.status, span.status_code) == ("error", 500)
    assert span.error_fingerprint == become({"status": "error", "error_message": "boom 4"})[0].error_fingerprint
    assert (span.model, span.provider, span.cost_pico, span.cost_source) == ("gpt-4o", "openai", 25 * 10**10, "source")
    assert (span.prompt_tokens, span.completion_tokens, span.total_tokens) == (10, 5, 15)
    assert (span.cached_tokens, span.cache_creation_tokens, span.ttft_s, span.routing_time_s) == (4, 2, 0.3, 0.01)
    assert (span.is_streaming, span.deployment_name, span.prompt_id) == (True, "d", "p")
    assert (span.prompt_name, span.prompt_version, span.log_method, span.parent_id) == (
        "pn",
        "3",
        "python_tracing",
        "p1",
    )
    assert context == SpanContext(
        customer_identifier="ada", customer_email="a@example.com", customer_name="Ada", session_id="g", thread_id="t",
        group_id="g", environment="dev", tags=("a", "b"),
        metadata=(
            ("custom_identifier", "c9"), ("deep.x", "true"), ("group_identifier", "gi"), ("k", "v"), ("n", "7"),
            ("typed", "1.5"), ("unheard_of", "yes"),
        ),
    )  # fmt: skip


def test_aliases() -> None:
    span, context, _ = become({"generation_time": 2, "time_to_first_token": 0.5, "thread_identifier": "t"})
    assert span.end_ns - span.start_ns == 2 * 10**9
    assert (span.ttft_s, context.session_id) == (0.5, "t")
    assert become({"thread_identifier": "t", "session_identifier": "s"})[1].session_id == "s"
    nested = {"respan_params": {"customer_identifier": "inner", "environment": "dev"}, "environment": "staging"}
    assert become(nested)[1][0] == "inner"
    assert become(nested)[1].environment == "staging"


def test_usage_objects_of_openai_and_anthropic() -> None:
    openai = {
        "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    assert become({"usage": openai})[0][21:27] == (9, 3, 12, 4, None, 2)
    anthropic = {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 6}
    assert become({"usage": anthropic})[0][21:27] == (9, 3, None, 5, 6, None)
    assert become({"usage": "none", "prompt_tokens": 1})[0].prompt_tokens == 1


def test_a_span_without_a_cost_is_priced() -> None:
    fields = {"model": "gpt-4o-mini", "prompt_tokens": 1187, "completion_tokens": 96, "log_type": "chat"}
    assert become(fields, Decoder(Origin(1), prices=PriceBook()))[0].cost_pico == 235_650_000
    assert become(fields)[0].cost_pico is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": "success"}, "ok"), ({"status": "error"}, "error"), ({"status_code": 200}, "ok"),
        ({"status_code": 404}, "error"), ({"error_message": "x"}, "error"),
        ({"status": "success", "status_code": 500}, "ok"), ({}, "unset"),
    ],
)  # fmt: skip
def test_status(fields: dict[str, Any], status: str) -> None:
    assert become(fields)[0].status == status


def test_kinds() -> None:
    words = {"chat": "chat", "AGENT": "agent", "score": "score", "made_up": "custom", None: "span"}
    assert [become({"log_type": word})[0].kind for word in words] == list(words.values())


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("2026-01-01T00:00:00Z", JANUARY_NS), ("2026-01-01T00:00:00", JANUARY_NS), ("2026-01-01", JANUARY_NS),
        ("2026-01-01T02:00:00.5+02:00", JANUARY_NS + 5 * 10**8), (1_767_225_600, JANUARY_NS),
        (1_767_225_600.25, JANUARY_NS + 25 * 10**7), (1_767_225_600_000, JANUARY_NS),
        (JANUARY_NS // 1000, JANUARY_NS), (JANUARY_NS, JANUARY_NS), (None, None), ("", None),
    ],
)  # fmt: skip
def test_times_of_every_form(value: Any, ns: int | None) -> None:
    assert parse_time(value) == ns


def test_a_missing_time_follows_from_the_other() -> None:
    late = {"start_time": None, "timestamp": "2026-01-01T00:00:10Z"}
    assert become(late)[0][8:10] == (JANUARY_NS + 10**10, JANUARY_NS + 10**10)
    assert become(late | {"latency": 4})[0][8:10] == (JANUARY_NS + 6 * 10**9, JANUARY_NS + 10**10)
    assert become({"timestamp": "2025-01-01"})[0][8:10] == (JANUARY_NS, JANUARY_NS)
    received = Decoder(Origin(1), received_ns=77)
    assert become({"start_time": None}, received)[0][8:10] == (77, 77)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_unique_id": None}, "trace_unique_id is missing"),
        ({"span_unique_id": ""}, "span_unique_id is missing"),
        ({"trace_unique_id": "x" * 257}, "1 to 256 characters"), ({"trace_unique_id": "a\nb"}, "control characters"),
        ({"span_unique_id": ["s"]}, "span_unique_id is not text"), ({"start_time": "yesterday"}, "not ISO 8601"),
        ({"start_time": None}, "neither start_time nor timestamp"), ({"start_time": "1969-01-01"}, "1970"),
        ({"start_time": True}, "neither text nor a number"), ({"start_time": 10**400}, "neither text nor a number"),
        ({"trace_unique_id": "a/b"}, "must not hold slashes"), ({"span_unique_id": "a/b"}, "must not hold slashes"),
        ({"start_time": 1e30}, "1970"),
        ({"input": json.loads("[" * 60 + "]" * 60)}, "nested too deep"),
    ],
)  # fmt: skip
def test_a_wrong_span_is_rejected_alone(fields: dict[str, Any], reason: str) -> None:
    decoded = decode(MINIMAL, MINIMAL | {"span_unique_id": "s2"} | fields)
    assert (decoded.span_count, decoded.rejected_count) == (1, 1)
    assert reason in decoded.reasons[0]
    assert decoded.reasons[0].startswith("span at index 1: ")


def test_limits() -> None:
    limits = Decoder(Origin(1), IngestLimits(attribute_bytes=500, attributes_per_span=30))
    assert "500 bytes" in decode(MINIMAL | {"input": "x" * 600}, decoder=limits).reasons[0]
    assert "30 fields" in decode(MINIMAL | {f"k{i}": 1 for i in range(30)}, decoder=limits).reasons[0]
    assert decode(5, "x", [], decoder=limits).rejected_count == 3


@pytest.mark.parametrize(
    "body",
    [b"", b"5", b"{}", b'{"data": {}}', b"[{]", b"[1,", b"\xff", b"[" * 200_000, b'{"data": 1}'],
)
def test_a_body_that_is_no_list_of_spans_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        decode_respan_json(body, DECODER)


def test_the_record_is_the_spans_own_text() -> None:
    text = b'{"trace_unique_id":"t","span_unique_id":"s", "start_time": 1, "big": 123456789012345678901234567890}'
    (batch,) = decode_respan_json(b"[ " + text + b" ]", DECODER).batches
    record = records_by_id(parse_block(batch.block))["s"]
    assert decode_record(record).raw == text
    assert decode_span(record).attributes["big"] == 123456789012345678901234567890


def test_input_and_output_of_every_type() -> None:
    def given(**fields: Any) -> tuple[str | None, str | None]:
        record = become(fields)[2]
        detail = decode_span(record)
        assert (detail.input, detail.output) == input_output(record)
        return input_output(record)

    assert given(input="hi", output={"a": 1}) == ("hi", '{"a": 1}')
    assert given(input=[1, None], output=0) == ("[1, null]", "0")
    assert given(input=None, output="") == (None, None)
    messages = [{"role": "user", "content": "Grüezi"}]
    assert given(prompt_messages=messages) == (json.dumps(messages), None)
    assert given(messages=messages, completion_message={"role": "assistant", "content": "x"})[1] is not None


def test_messages_and_text() -> None:
    record = become({
        "prompt_messages": [{"role": "user", "content": "Grüezi"}], "error_message": "bad \u0000 thing",
        "completion_message": {"role": "assistant", "content": "Salü"}, "status": "error",
    })[2]  # fmt: skip
    detail = decode_span(record)
    assert detail.input_messages == [{"role": "user", "content": "Grüezi"}]
    assert detail.output_messages == [{"role": "assistant", "content": "Salü"}]
    assert detail.error_message == "bad \0 thing"
    assert "Grüezi" in searchable_text(record)


def test_ids_of_one_number_meet() -> None:
    dashed = become({"trace_unique_id": "0AF76519-16CD-43DD-8448-EB211C80319C"})
    assert decode(MINIMAL | {"trace_unique_id": "0af7651916cd43dd8448eb211c80319c"}).batches[0].trace_id
    assert dashed is not None
    traces = {
        decode(MINIMAL | {"trace_unique_id": text}).batches[0].trace_id
        for text in ("0AF76519-16CD-43DD-8448-EB211C80319C", "0af7651916cd43dd8448eb211c80319c")
    }
    assert len(traces) == 1


def test_lone_surrogates_cost_nothing_else() -> None:
    half = MINIMAL | {"span_unique_id": "s 2", "input": "half \ud83d", "metadata": {"k\udc00": "\\ud800 😀"}}
    decoded = decode(MINIMAL, half)
    assert (decoded.span_count, decoded.reasons) == (2, ())
    (batch,) = decoded.batches
    assert ("k\ufffd", "\\ud800 😀") in batch.contexts[batch.spans[1].context_key].metadata
    record = records_by_id(parse_block(batch.block))["s 2"]
    assert input_output(record) == ("half \ufffd", None)
