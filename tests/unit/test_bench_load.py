"""The benchmark's generator and HTTP parser: a wrong load would make every figure wrong."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest
from bench.client import ResponseParser
from bench.generate import CJK_NEEDLE, RARE_NEEDLE, Generator, Plan, compressibility, trace_id
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PLAN = Plan(traces=1_500, templates=80, batch_spans=128, big_every=700, giant_spans=2_000)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(PLAN)


def test_bodies_are_the_same_each_time(generator: Generator) -> None:
    digests = [
        hashlib.sha256(b"".join(body.data for body in each.bodies(0, 400))).hexdigest()
        for each in (generator, generator, Generator(PLAN))
    ]
    assert len(set(digests)) == 1


def test_bodies_hold_whole_distinct_well_formed_spans(generator: Generator) -> None:
    spans_of: Counter[bytes] = Counter()
    ids, parents, roots = set(), set(), Counter[bytes]()
    first_seen = 0
    for body in generator.bodies():
        request = ExportTraceServiceRequest.FromString(body.data)
        spans = [span for r in request.resource_spans for scope in r.scope_spans for span in scope.spans]
        assert len(spans) == body.spans <= PLAN.batch_spans
        first_seen += body.first_seen
        for span in spans:
            assert (span.trace_id, span.span_id) not in ids
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            ids.add((span.trace_id, span.span_id))
            spans_of[span.trace_id] += 1
            if span.parent_span_id:
                parents.add((span.trace_id, span.parent_span_id))
            else:
                roots[span.trace_id] += 1
        assert not re.search(rb"@@[WDHCST]\d?@{3}|TRACEMARK", body.data), "a placeholder was left"
    assert parents <= ids
    assert first_seen == PLAN.traces == len(roots)
    assert set(roots.values()) == {1}
    expected = {bytes.fromhex(trace_id(PLAN, index)): generator.span_count(index) for index in range(PLAN.traces)}
    assert spans_of == expected
    assert max(expected.values()) == 2_000


def test_the_big_customer_the_late_spans_and_the_sizes_are_as_promised(generator: Generator) -> None:
    plan = Plan(traces=20_000)
    customers = [generator.facts(index)[0].customer[index % 1_024] for index in range(0, 10_240)]
    assert 0.28 < sum(number == 1 for number in customers) / len(customers) < 0.32
    assert plan.start_ns < generator.facts(0)[0].start_ns[0] + 301 * 10**9
    sample = compressibility(generator, 300)
    assert 1_500 < sample.span_bytes < 2_600
    assert 0.18 < sample.trace_ratio < 0.30


def test_needles_fit_their_slot() -> None:
    assert len(RARE_NEEDLE.encode()) == len(CJK_NEEDLE.encode()) == 12


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_responses_are_parsed_however_they_arrive(step: int) -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 206 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    empty = b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"
    parser = ResponseParser()
    seen = []
    for message in (plain, chunked, empty, plain):
        for start in range(0, len(message), step):
            if response := parser.feed(message[start : start + step]):
                seen.append((response.status, response.body))
    assert seen == [(200, b"hello"), (206, b"abcde"), (204, b""), (200, b"hello")]
