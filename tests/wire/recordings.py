"""The recorded bodies, decoded as the server decodes them."""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.merge import merge
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
from clearspan.model.span import LogRecord, Span, SpanContext
from clearspan.model.trace import TraceSummary

FIXTURES = Path(__file__).parent.parent / "fixtures"
OTLP = FIXTURES / "otlp-recordings"
RESPAN = FIXTURES / "respan"
FAMILIES = tuple(sorted(path.name for path in OTLP.iterdir() if path.is_dir() and path.name != "golden"))

Decode = Callable[[bytes, Decoder], DecodedRequest]


class Body(NamedTuple):
    """One recorded request body."""

    name: str
    body: bytes
    decode: Decode


class Recorded(NamedTuple):
    """A stored span with its context and wire record."""

    body: str
    trace_id: str
    span: Span
    context: SpanContext
    record: bytes
    log_records: list[bytes]


class Family(NamedTuple):
    """All that one client sent, as a store would hold it."""

    requests: dict[str, DecodedRequest]
    spans: list[Recorded]
    traces: dict[str, TraceSummary]


@cache
def decoder() -> Decoder:
    return Decoder(Origin(1, "key_1"), prices=PriceBook())


def otlp_bodies(family: str) -> Iterator[Body]:
    for path in sorted((OTLP / family).iterdir()):
        raw = path.read_bytes()
        is_logs, is_json = "-logs" in path.name, ".json" in path.name
        if is_json:
            decode: Decode = decode_logs_json if is_logs else decode_traces_json
        else:
            decode = decode_logs_protobuf if is_logs else decode_traces_protobuf
        yield Body(path.name, gzip.decompress(raw) if path.suffix == ".gz" else raw, decode)


def respan_bodies() -> Iterator[Body]:
    """The ingest requests among the recorded Respan calls."""
    for path in sorted(RESPAN.glob("*.json")):
        requests = json.loads(path.read_text())
        for i, request in enumerate(requests if isinstance(requests, list) else ()):
            name = f"{path.stem}#{i}"
            if request["path"].endswith("/v1/traces/ingest"):
                yield Body(name, json.dumps(request["json"]).encode(), decode_respan_json)
            elif request["path"].endswith("/traces") and "body_base64" in request:
                yield Body(name, base64.b64decode(request["body_base64"]), decode_traces_protobuf)
            elif request["path"].endswith("/v2/traces"):
                yield Body(name, json.dumps(request["json"]).encode(), decode_traces_json)


def decode_all(bodies: Iterator[Body]) -> Family:
    """Decode bodies and gather their traces as a store would."""
    requests = {each.name: each.decode(each.body, decoder()) for each in bodies}
    contexts: dict[int, SpanContext] = {}
    found: list[Recorded] = []
    spans: dict[str, list[Span]] = defaultdict(list)
    logs: dict[str, list[LogRecord]] = defaultdict(list)
    log_records: dict[tuple[str, str | None], list[bytes]] = defaultdict(list)
    for name, request in requests.items():
        for batch in request.batches:
            contexts.update(batch.contexts)
            records = records_by_id(parse_block(batch.block))
            assert len(records) == len(batch.spans) + len(batch.logs)
            spans[batch.trace_id] += batch.spans
            logs[batch.trace_id] += batch.logs
            for log in batch.logs:
                log_records[batch.trace_id, log.span_id].append(records[log.log_hash])
            for span in batch.spans:
                found.append(
                    Recorded(name, batch.trace_id, span, contexts[span.context_key], records[span.span_id], [])
                )
    joined = [each._replace(log_records=log_records[each.trace_id, each.span.span_id]) for each in found]
    traces = {
        trace_id: summarise(trace_id, list(merge(spans[trace_id]).values()), logs[trace_id], contexts)
        for trace_id in sorted(spans.keys() | logs.keys())
    }
    return Family(requests, joined, traces)


@cache
def family(name: str) -> Family:
    """One OTLP family, or `respan` for the ingest requests of Respan's clients."""
    return decode_all(respan_bodies() if name == "respan" else otlp_bodies(name))
