"""Damaged and random bytes raise our own errors or nothing, from every decoder; what is accepted can be read."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.decompress import decompress
from clearspan.ingest.detail import decode_log, decode_span, input_output, searchable_text
from clearspan.ingest.merge import merge
from clearspan.ingest.messages import parse_messages, unflatten
from clearspan.ingest.metadata import canonical_pairs, flatten
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import (
    Decoder,
    decode_logs_json,
    decode_logs_protobuf,
    decode_traces_json,
    decode_traces_protobuf,
)
from clearspan.ingest.payload import parse_block, records_by_id
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.respan import decode_respan_json
from clearspan.ingest.rollup import summarise
from clearspan.ingest.wire import any_scalar, any_value, attribute_key, json_like
from clearspan.model.errors import ClearspanError
from clearspan.model.span import KINDS
from clearspan.store.sqlite.wire import decode_batches, encode_batches

FLIPS = 60
FLIPS_LONG = 5_000
RECORDINGS = Path(__file__).parent.parent / "fixtures" / "otlp-recordings"
DECODER = Decoder(Origin(1, "key"), prices=PriceBook(), received_ns=1)

Decode = Callable[[bytes, Decoder], DecodedRequest]
SAMPLES: list[tuple[str, Decode]] = [
    ("openinference/009-traces.pb", decode_traces_protobuf),
    ("openllmetry/002-traces.pb", decode_traces_protobuf),
    ("langsmith-otel/007-traces.pb", decode_traces_protobuf),
    ("pydantic-ai-logfire/001-traces.pb", decode_traces_protobuf),
    ("otel-genai-v2-events/013-logs.pb.gz", decode_logs_protobuf),
    ("respan-native/009-traces.wire.json", decode_traces_json),
    ("vercel-ai-sdk-json/003-traces.wire.json", decode_traces_json),
]
LEGACY = json.dumps([
    {"trace_unique_id": "t", "span_unique_id": "s", "start_time": "2026-01-01T00:00:00Z", "input": {"a": ["ü\n", 1]},
     "metadata": {"k": "v"}, "usage": {"prompt_tokens": 3}, "model": "gpt-4o-mini", "status": "error"}
]).encode()  # fmt: skip


def sample(name: str) -> bytes:
    body = (RECORDINGS / name).read_bytes()
    return gzip.decompress(body) if name.endswith(".gz") else body


def survives(decode: Decode, body: bytes) -> DecodedRequest | None:
    """Decodes, and reads all that was accepted; None when the body was refused in our own words."""
    try:
        decoded = decode(body, DECODER)
    except ClearspanError:
        return None
    stored = sum(len(batch.spans) + len(batch.logs) for batch in decoded.batches)
    assert stored <= decoded.span_count + decoded.log_count
    sent = decode_batches(encode_batches(decoded.batches, 1))[1]
    assert [each._replace(block=b"") for each in sent] == [each._replace(block=b"") for each in decoded.batches]
    for batch in decoded.batches:
        records = records_by_id(parse_block(batch.block))
        summarise(batch.trace_id, list(merge(batch.spans).values()), batch.logs, batch.contexts)
        logs = [records[log.log_hash] for log in batch.logs]
        for record in logs:
            decode_log(record)
            searchable_text(record)
        for span in batch.spans:
            record = records[span.span_id]
            detail = decode_span(record, logs)
            assert (detail.input, detail.output) == input_output(record, logs)
            searchable_text(record)
            assert span.kind in KINDS
            assert 0 <= span.start_ns <= span.end_ns < 2**63
            json.dumps(batch.contexts[span.context_key]).encode()
    return decoded


def flip(body: bytes, rng: random.Random) -> bytes:
    """One to four bytes changed, taken out or put in."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 3)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 3))
    return bytes(data)


def damage(name: str, decode: Decode, rounds: int) -> None:
    body = LEGACY if name == "legacy" else sample(name)
    assert survives(decode, body) is not None
    for seed in range(rounds):
        rng = random.Random(f"{name} {seed}")
        try:
            survives(decode, flip(body, rng))
            survives(decode, body[: rng.randrange(len(body))])
        except Exception as error:
            raise AssertionError(f"seed {name} {seed}") from error


@pytest.mark.promise("P10", "F14")
@pytest.mark.parametrize(("name", "decode"), [*SAMPLES, ("legacy", decode_respan_json)])
def test_damaged_recordings_raise_only_our_errors(name: str, decode: Decode) -> None:
    damage(name, decode, FLIPS)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("pydantic-ai-logfire/001-traces.pb", 1147),  # system instructions and no other message
        ("vercel-ai-sdk-json/003-traces.wire.json", 3088),  # a part of type text without a text
    ],
)
def test_damage_that_once_went_wrong(name: str, seed: int) -> None:
    assert survives(dict(SAMPLES)[name], flip(sample(name), random.Random(f"{name} {seed}"))) is not None


@pytest.mark.promise("P10", "F14")
@pytest.mark.long
@pytest.mark.parametrize(("name", "decode"), [*SAMPLES, ("legacy", decode_respan_json)])
def test_damaged_recordings_raise_only_our_errors_long(name: str, decode: Decode) -> None:
    damage(name, decode, FLIPS_LONG)


@pytest.mark.promise("P10", "F14", runs=100)
@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_raise_only_our_errors(body: bytes) -> None:
    for decode in (
        decode_traces_protobuf, decode_logs_protobuf, decode_traces_json, decode_logs_json, decode_respan_json,
    ):  # fmt: skip
        survives(decode, body)


@pytest.mark.promise("P10", "F14", runs=100)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd", "identity"]))
def test_random_bytes_never_unpack_wrongly(body: bytes, encoding: str) -> None:
    try:
        out = decompress(body, encoding)
    except ClearspanError:
        return
    assert encoding != "identity" or out == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
span_keys = st.sampled_from([
    "traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes", "events",
    "links", "status", "flags", "trace_unique_id", "span_unique_id", "input", "output", "metadata", "usage", "model",
    "timestamp", "start_time", "latency", "cost", "tags", "properties", "status_code", "log_type", "customer_params",
])  # fmt: skip


@pytest.mark.promise("P10", "F14", runs=100)
@given(st.dictionaries(span_keys, json_values, max_size=8))
@settings(deadline=None)
def test_spans_of_random_json_raise_only_our_errors(fields: dict[str, Any]) -> None:
    ids = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "trace_unique_id": "t", "span_unique_id": "s"}
    span = ids | fields
    otlp = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    survives(decode_traces_json, otlp)
    survives(decode_respan_json, json.dumps([span | {"start_time": 1}]).encode())


scalars = st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.none()


@given(st.text(), scalars)
def test_values_read_in_place_are_what_protobuf_reads(key: str, value: str | int | float | bool | None) -> None:
    pair = KeyValue(key=key)
    if isinstance(value, bool):
        pair.value.bool_value = value
    elif isinstance(value, int):
        pair.value.int_value = value
    elif isinstance(value, float):
        pair.value.double_value = value
    elif value is not None:
        pair.value.string_value = value
    raw = pair.SerializeToString()
    found, at = attribute_key(raw)
    if found:
        assert found == key.encode()
        assert repr(any_scalar(raw, at)) == repr(value)
        assert repr(any_value(raw)) == repr(json_like(pair.value))


@given(st.binary(max_size=40), st.integers(2, 20))
def test_any_bytes_as_an_attribute_read_as_protobuf_reads_them(tail: bytes, size: int) -> None:
    raw = bytes([0x0A, size]) + b"k" * size + tail
    try:
        value = KeyValue.FromString(raw).value
    except Exception:
        return  # never reaches the reader: the whole span was checked before
    which = value.WhichOneof("value")
    scalar = which in ("string_value", "int_value", "double_value", "bool_value")
    assert repr(any_scalar(raw, size + 2)) == repr(getattr(value, which) if scalar else None)


@pytest.mark.promise("P10", "F14", runs=100)
@given(json_values)
def test_messages_and_metadata_take_anything(value: Any) -> None:
    for message in parse_messages(value):
        assert isinstance(message["role"], str)
        assert "content" in message
    pairs = canonical_pairs(flatten(value, "k"))
    assert len(dict(pairs)) == len(pairs) <= 64
    attributes = {f"llm.input_messages.{key}": 1 for key in ("0", "0.a", "0.a.b", "0.1.2", "x", "99999999", "0..", "")}
    unflatten(attributes, "llm.input_messages.")
    assert AnyValue() is not None
