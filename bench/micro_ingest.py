"""Microseconds a span of each stage of ingest and of reading that only computes.

    python -m bench.micro_ingest [--rounds 20]

The batches are of 512 spans: the recorded ones of 1.0 to 4.5 KB, repeated with new ids, ten to a trace. The best of
all rounds counts: it is the figure that other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from clearspan.ingest.detail import decode_span, input_output, searchable_text
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder, decode_traces_protobuf
from clearspan.ingest.payload import Block, compress_block, pack_block, parse_block, records_by_id, unpack_block
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.promote import Promoter
from clearspan.ingest.rollup import summarise
from clearspan.ingest.wire import RequestView
from clearspan.store.sqlite.text_index import signature
from clearspan.store.sqlite.wire import decode_batches, encode_batches

RECORDINGS = Path(__file__).parents[1] / "tests" / "fixtures" / "otlp-recordings"
SPANS = 512
SPANS_PER_TRACE = 10


def make_body() -> bytes:
    """An export request of 512 spans of about 2 KB."""
    recorded: list[Span] = []
    for path in sorted(RECORDINGS.glob("*/*-traces.pb")):
        request = ExportTraceServiceRequest.FromString(path.read_bytes())
        for group in request.resource_spans:
            for scope in group.scope_spans:
                recorded.extend(span for span in scope.spans if 1_000 < span.ByteSize() < 4_500)
    out = ExportTraceServiceRequest()
    group = out.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "bench"
    scope = group.scope_spans.add()
    for i, span in zip(range(SPANS), itertools.cycle(recorded), strict=False):
        added = scope.spans.add()
        added.CopyFrom(span)
        added.trace_id = (1 + i // SPANS_PER_TRACE).to_bytes(16, "big")
        added.span_id = (1 + i).to_bytes(8, "big")
        added.parent_span_id = b"" if i % SPANS_PER_TRACE == 0 else (1 + i - i % SPANS_PER_TRACE).to_bytes(8, "big")
    return bytes(out.SerializeToString())


def best(run: Callable[[], object], rounds: int) -> float:
    """CPU seconds of the quickest of some runs."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    body = make_body()
    prices = PriceBook()
    prices.warm()
    decoder = Decoder(Origin(1, "key"), prices=prices)
    decoded = decode_traces_protobuf(body, decoder)
    raws = list(RequestView.FromString(body).resources[0].scopes[0].records)
    frame = encode_batches(decoded.batches, 1)
    blocks = [parse_block(batch.block) for batch in decoded.batches]
    packed_batches = decode_batches(frame)[1]
    records = [record for block in blocks for record in records_by_id(block).values()]

    def repack(block: Block) -> bytes:
        return compress_block(pack_block(block.records, block.shared))

    def promote() -> object:
        promoter = Promoter(decoder.origin, decoder.limits, prices)  # a new one: it remembers what a request repeats
        source = promoter.source(b"", b"")
        return [promoter.span(raw, source) for raw in raws]

    stages: dict[str, Callable[[], object]] = {
        "parse the body, checked": lambda: ExportTraceServiceRequest.FromString(body),
        "split it by views": lambda: RequestView.FromString(body),
        "promote": promote,
        "pack and compress": lambda: [repack(block) for block in blocks],
        "all of it: decode_traces_protobuf": lambda: decode_traces_protobuf(body, decoder),
        "to the writer: encode_batches": lambda: encode_batches(decoded.batches, 1),
        "from the server: decode_batches": lambda: decode_batches(frame),
        "unpack and sign": lambda: [signature([unpack_block(batch.block)]) for batch in packed_batches],
        "summarise": lambda: [summarise(b.trace_id, b.spans, b.logs, b.contexts) for b in decoded.batches],
        "read: input_output": lambda: [input_output(record) for record in records],
        "read: searchable_text": lambda: [searchable_text(record) for record in records],
        "read: decode_span": lambda: [decode_span(record) for record in records],
    }
    packed = sum(len(batch.block) for batch in packed_batches)
    print(f"{SPANS} spans, {len(body) / SPANS:,.0f} bytes each, blocks {packed / len(body):.2f} of that")
    for name, run in stages.items():
        print(f"{name:36} {best(run, rounds) / SPANS * 1e6:8.1f} µs/span")


if __name__ == "__main__":
    main()
