"""Deterministic OTLP protobuf bodies: the traces that every benchmark sends.

Trace number i is a pure function of (seed, i, plan): the same ids, customer, environment, times and text each time,
so a later phase can name traces that an earlier one sent. As in life: one customer has 30 % of the traces, one trace
in twenty gets its last spans in a later batch, one trace in 5,000 has 1,000 spans and one has 20,000.

    python -m bench.generate --traces 2000 --out bench/out/bodies     writes the bodies as files
    python -m bench.generate --traces 20000 --report                  prints rate, sizes and compressibility
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from bench.templates import (
    CUSTOMER,
    DIGITS,
    FAMILIES,
    HEXES,
    PARENT,
    PER_SPAN,
    TRACE_ID,
    WORD_SLOTS,
    WORDS,
    TraceTemplate,
    build_template,
    varint,
)
from bench.words import TextSampler

ENVIRONMENTS = ("production", "staging")
BIG_CUSTOMER = "cust-00000001"
RARE_NEEDLE = "zyphrontiqal"  # in one trace of 20,000
CJK_NEEDLE = "麒麟腾跃"  # in one trace of 10,000
COMMON_WORD = "refund"
ABSENT_WORD = "xqzzyvkwpfhj"

DAY_NS = 86_400 * 10**9
END_NS = 1_794_700_800 * 10**9  # 2026-11-15T00:00:00Z
CHUNK = 1_024
SERVICES = {"genai": "support-assistant", "openinference": "research-bot"}
SCOPES = {
    "genai": ("opentelemetry.instrumentation.genai.openai", "1.3b0", "https://opentelemetry.io/schemas/1.37.0"),
    "openinference": ("openinference.instrumentation.openai", "0.1.66", ""),
}


@dataclass(frozen=True)
class Plan:
    """What to generate. `traces` sets the spread over time; numbers beyond it may be used, and start later."""

    traces: int
    seed: int = 1
    templates: int = 2_000
    batch_spans: int = 512
    mean_spans: float = 10.0
    message_mean: int = 500
    days: int = 30
    late_share: float = 0.05
    big_every: int = 5_000  # one trace in so many has 1,000 spans
    giant_spans: int = 20_000  # spans of the one giant trace; 0: none

    @property
    def start_ns(self) -> int:
        return END_NS - self.days * DAY_NS

    @property
    def customers(self) -> int:
        """How many customers share the 70 % that the big one leaves."""
        return max(40, min(20_000, self.traces // 50))

    @property
    def tenants(self) -> int:
        return max(20, min(5_000, self.traces // 200))

    @property
    def giant_index(self) -> int:
        """Number of the giant trace."""
        return (self.traces * 2) // 5

    def is_big(self, index: int) -> bool:
        """Whether trace `index` is one of 1,000 spans."""
        return self.big_every > 0 and index % self.big_every == 17


class Body(NamedTuple):
    """One request body. `first_seen` counts the traces whose first span is in it."""

    data: bytes
    spans: int
    first_seen: int


class _Piece(NamedTuple):
    group: int
    template: TraceTemplate
    data: bytes
    first: int  # span numbers [first, last) of the template
    last: int


def trace_id(plan: Plan, index: int) -> str:
    """The 32 hex digits of trace `index`."""
    return hashlib.blake2b(b"%d:%d" % (plan.seed, index), digest_size=16).hexdigest()


def customer_name(number: int) -> str:
    return f"cust-{number:08d}"


class Chunk:
    """The facts of 1,024 neighbouring traces, drawn at once."""

    def __init__(self, plan: Plan, number: int, templates: int) -> None:
        rng = np.random.Generator(np.random.PCG64([plan.seed, number]))
        index = np.arange(number * CHUNK, (number + 1) * CHUNK)
        self.template = rng.integers(0, templates, CHUNK)
        self.environment = (rng.random(CHUNK) < 0.2).astype(int)
        other = 2 + (rng.random(CHUNK) ** 2.5 * plan.customers).astype(int)
        self.customer = np.where(rng.random(CHUNK) < 0.3, 1, other)
        self.tenant = (rng.random(CHUNK) ** 2 * plan.tenants).astype(int)
        jitter = rng.integers(-300 * 10**9, 300 * 10**9, CHUNK)
        in_plan = plan.start_ns + index * (plan.days * DAY_NS // plan.traces)
        beyond = END_NS + 3_600 * 10**9 + (index - plan.traces) * 10**8
        self.start_ns = np.where(index < plan.traces, in_plan, beyond) + jitter
        self.stretch = rng.lognormal(0.0, 0.5, CHUNK)
        self.late = rng.random(CHUNK) < plan.late_share
        self.needle = rng.integers(0, 20_000, CHUNK)


class _Noise:
    """The random part of the records of some traces, drawn at once: one at a time they would cost ten times as much."""

    def __init__(self, seed: list[int], counts: np.ndarray, words: np.ndarray) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        total = int(counts.sum())
        self._starts = np.concatenate(([0], np.cumsum(counts))).tolist()
        fixed = rng.integers(0, 256, (len(counts), PER_SPAN), np.uint8)
        fixed[:, WORDS:DIGITS] = words[rng.integers(0, len(words), (len(counts), WORD_SLOTS))].reshape(len(counts), -1)
        fixed[:, DIGITS:HEXES] = 48 + fixed[:, DIGITS:HEXES] % 10
        fixed[:, HEXES:] = _HEX[fixed[:, HEXES:] & 15]
        tokens = rng.integers(0, 256, (total, 4), np.uint8)
        tokens[:, 0] |= 0x80  # two-byte varints: 128..16,383 in, 128..1,023 out
        tokens[:, 1] = tokens[:, 1] % 127 + 1
        tokens[:, 2] |= 0x80
        tokens[:, 3] = tokens[:, 3] % 7 + 1
        self._fixed, self._tokens = fixed, tokens.ravel()
        self._span_ids = rng.integers(0, 256, total * 8, np.uint8)

    def of(self, row: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fixed part (to be filled in), token counts and span ids of one trace; views, not copies."""
        start = self._starts[row]
        stop = start + count
        return self._fixed[row], self._tokens[4 * start : 4 * stop], self._span_ids[8 * start : 8 * stop]


class Generator:
    """Renders traces and packs them into bodies. Building it costs about 2 ms a template."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rng = random.Random(plan.seed)
        sampler = TextSampler(rng)
        self.templates = [
            build_template(rng, sampler, self._span_count(rng), message_mean=plan.message_mean)
            for _ in range(plan.templates)
        ]
        self._sampler = sampler
        words = sampler.twelve_letter_words(4_096)
        self._words = np.frombuffer("".join(words).encode(), np.uint8).reshape(4_096, 12)
        self._single = build_template(rng, sampler, 1, message_mean=plan.message_mean)
        self._heads = [self._head(family, environment) for family in FAMILIES for environment in ENVIRONMENTS]
        self._counts = np.array([template.span_count for template in self.templates])
        self._chunk_number = self._noise_number = -1
        self._chunk: Chunk | None = None
        self._chunk_noise: _Noise | None = None

    def _span_count(self, rng: random.Random) -> int:
        return max(1, min(150, round(rng.lognormvariate(0, 0.75) * (self.plan.mean_spans - 0.25) * 0.76)))

    @cached_property
    def big(self) -> TraceTemplate:
        """The template of 1,000 spans."""
        return self._thousand(subtree=False)

    @cached_property
    def subtree(self) -> TraceTemplate:
        """1,000 spans that hang below a span of another piece."""
        return self._thousand(subtree=True)

    def _thousand(self, *, subtree: bool) -> TraceTemplate:
        rng = random.Random(self.plan.seed + 7 + subtree)
        return build_template(rng, self._sampler, 1_000, subtree=subtree, message_mean=self.plan.message_mean)

    def span_count(self, index: int) -> int:
        """How many spans trace `index` has in all."""
        if index == self.plan.giant_index and self.plan.giant_spans:
            return max(1, self.plan.giant_spans // 1_000) * 1_000
        if self.plan.is_big(index):
            return 1_000
        return self.templates[int(self.facts(index)[0].template[index % CHUNK])].span_count

    def facts(self, index: int) -> tuple[Chunk, int]:
        """The chunk of trace `index`, and its place there."""
        number, place = divmod(index, CHUNK)
        if number != self._chunk_number:
            self._chunk_number, self._chunk = number, Chunk(self.plan, number, len(self.templates))
        assert self._chunk is not None
        return self._chunk, place

    def _noise(self, index: int) -> _Noise:
        number = index // CHUNK
        if number != self._noise_number:
            counts = self._counts[self.facts(index)[0].template]
            self._noise_number, self._chunk_noise = number, _Noise([self.plan.seed, number, 1], counts, self._words)
        assert self._chunk_noise is not None
        return self._chunk_noise

    def pieces(self, index: int) -> Iterator[_Piece]:
        """Trace `index`, whole: one piece, or one for each 1,000 spans of the giant."""
        chunk, place = self.facts(index)
        if index == self.plan.giant_index and self.plan.giant_spans:
            root = b"giant.id"
            yield self._render(index, chunk, place, self.big, root_id=root)
            for part in range(1, self.plan.giant_spans // 1_000):
                yield self._render(index, chunk, place, self.subtree, part=part, parent=root)
        elif self.plan.is_big(index):
            yield self._render(index, chunk, place, self.big)
        else:
            yield self._render(index, chunk, place, self.templates[chunk.template[place]])

    def _render(
        self,
        index: int,
        chunk: Chunk,
        place: int,
        template: TraceTemplate,
        *,
        part: int = 0,
        root_id: bytes = b"",
        parent: bytes = b"",
    ) -> _Piece:
        count = template.span_count
        if count >= 1_000:
            noise, row = _Noise([self.plan.seed, index, part, 2], np.array([count]), self._words), 0
        else:
            noise, row = self._noise(index), place
        fixed, tokens, span_ids = noise.of(row, count)
        fixed[TRACE_ID : TRACE_ID + 16] = np.frombuffer(bytes.fromhex(trace_id(self.plan, index)), np.uint8)
        if parent:
            fixed[PARENT : PARENT + 8] = np.frombuffer(parent, np.uint8)
        customer = int(chunk.customer[place])
        text = b"cust-%08dsess-%05d-%05dtenant-%05d" % (
            customer, customer % 100_000, index // 4 % 100_000, chunk.tenant[place],
        )  # fmt: skip
        fixed[CUSTOMER:WORDS] = np.frombuffer(text, np.uint8)
        needle = chunk.needle[place]
        if needle < 3:
            word = RARE_NEEDLE if needle == 0 else CJK_NEEDLE
            fixed[WORDS : WORDS + 12] = np.frombuffer(word.encode(), np.uint8)
        if root_id:
            span_ids[-8:] = np.frombuffer(root_id, np.uint8)
        times = chunk.start_ns[place] + (template.time_offsets * chunk.stretch[place]).astype(np.int64)
        record = np.concatenate((fixed, tokens, span_ids, times.astype("<i8", copy=False).view(np.uint8)))
        body = template.body.copy()
        body[template.destinations] = record.take(template.sources)
        group = FAMILIES.index(template.family) * 2 + int(chunk.environment[place])
        return _Piece(group, template, body.tobytes(), 0, count)

    def bodies(self, first: int = 0, last: int | None = None) -> Iterator[Body]:
        """Bodies of `batch_spans` spans for traces [first, last), late spans in their place; the same each time."""
        packer = _Packer(self._heads, self.plan.batch_spans)
        late: deque[tuple[int, _Piece]] = deque()
        for index in range(first, self.plan.traces if last is None else last):
            chunk, place = self.facts(index)
            started = 1
            for piece in self.pieces(index):
                if chunk.late[place] and 3 <= piece.last <= 150:
                    cut = piece.last - max(1, piece.last // 3)
                    late.append((packer.made + 8 + index % 57, piece._replace(first=cut)))
                    piece = piece._replace(last=cut)
                yield from packer.add(piece, started)
                started = 0
            while late and late[0][0] <= packer.made:
                yield from packer.add(late.popleft()[1], 0)
        for _, piece in late:
            yield from packer.add(piece, 0)
        yield from packer.rest()

    def single_span_bodies(self, first: int) -> Iterator[Body]:
        """Endless bodies of one trace of one span each, numbered from `first`."""
        index = first
        while True:
            chunk, place = self.facts(index)
            packer = _Packer(self._heads, 1)
            yield from packer.add(self._render(index, chunk, place, self._single), 1)
            index += 1

    def _head(self, family: str, environment: str) -> tuple[bytes, bytes, bytes]:
        """Resource field, scope field and schema field, serialised with their tags."""
        values = {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.45.2",
            "service.instance.id": "48187e89-0144-4b41-a54e-902e99812e2c",
            "service.name": SERVICES[family],
            "deployment.environment.name": environment,
        }
        resource = Resource(
            attributes=[KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in values.items()]
        ).SerializeToString()
        name, version, schema = SCOPES[family]
        scope = InstrumentationScope(name=name, version=version).SerializeToString()
        schema_field = b"\x1a" + varint(len(schema)) + schema.encode() if schema else b""
        return b"\x0a" + varint(len(resource)) + resource, b"\x0a" + varint(len(scope)) + scope, schema_field


_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


class _Packer:
    """Cuts pieces into bodies of exactly `batch_spans` spans, one ResourceSpans for each (family, environment)."""

    def __init__(self, heads: list[tuple[bytes, bytes, bytes]], batch_spans: int) -> None:
        self._heads, self._batch_spans = heads, batch_spans
        self.made = 0
        self._reset()

    def _reset(self) -> None:
        self._groups: list[list[bytes]] = [[] for _ in self._heads]
        self._spans = self._started = 0

    def add(self, piece: _Piece, started: int) -> Iterator[Body]:
        self._started += started
        first = piece.first
        while first < piece.last:
            last = min(piece.last, first + self._batch_spans - self._spans)
            start = piece.template.ends[first - 1] if first else 0
            self._groups[piece.group].append(piece.data[start : piece.template.ends[last - 1]])
            self._spans += last - first
            first = last
            if self._spans == self._batch_spans:
                yield from self.rest()

    def rest(self) -> Iterator[Body]:
        """The body begun, if it has spans."""
        if not self._spans:
            return
        out: list[bytes] = []
        for (resource, scope, schema), parts in zip(self._heads, self._groups, strict=True):
            if not parts:
                continue
            scope_length = len(scope) + sum(map(len, parts)) + len(schema)
            scope_head = b"\x12" + varint(scope_length)
            out += [b"\x0a", varint(len(resource) + len(scope_head) + scope_length), resource, scope_head, scope]
            out += [*parts, schema]
        body = Body(b"".join(out), self._spans, self._started)
        self.made += 1
        self._reset()
        yield body


# ---- what the output is like ------------------------------------------------------------------------------------


class Compressibility(NamedTuple):
    """Sizes of a sample: bytes of a span as sent, and zstd level 3 over the spans of one trace, as a share of them."""

    spans: int
    span_bytes: float
    trace_ratio: float
    span_ratio: float


def compressibility(generator: Generator, traces: int = 1_000) -> Compressibility:
    """Measure `traces` traces, each compressed as one block with no dictionary and nothing else in it."""
    codec = zstandard.ZstdCompressor(level=3)
    raw = whole = alone = spans = 0
    for index in range(traces):
        if generator.plan.is_big(index) or index == generator.plan.giant_index:
            continue
        for piece in generator.pieces(index):
            starts = (0, *piece.template.ends)
            parts = [piece.data[a:b] for a, b in zip(starts, piece.template.ends, strict=False)]
            raw += len(piece.data)
            spans += len(parts)
            whole += len(codec.compress(piece.data))
            alone += sum(len(codec.compress(part)) for part in parts)
    return Compressibility(spans, raw / spans, whole / raw, alone / raw)


def _report(plan: Plan) -> None:
    began = time.perf_counter()
    generator = Generator(plan)
    built = time.perf_counter() - began
    sizes: list[int] = []
    began = time.perf_counter()
    spans = traces = 0
    for body in generator.bodies():
        spans += body.spans
        traces += body.first_seen
        sizes.append(len(body.data))
    took = time.perf_counter() - began
    parsed = ExportTraceServiceRequest.FromString(next(Generator(plan).bodies()).data)
    lengths = np.array([s.ByteSize() for r in parsed.resource_spans for c in r.scope_spans for s in c.spans])
    found = compressibility(generator)
    print(f"templates       {plan.templates} in {built:.1f} s")
    print(f"traces, spans   {traces:,} traces, {spans:,} spans, {spans / traces:.2f} a trace, {len(sizes):,} bodies")
    print(f"rate            {spans / took:,.0f} spans/s, {sum(sizes) / took / 1e6:,.0f} MB/s")
    print(f"span size       mean {sum(sizes) / spans:,.0f} B; first body p5/p50/p95 "
          + "/".join(f"{value:,.0f}" for value in np.percentile(lengths, (5, 50, 95))))  # fmt: skip
    print(f"zstd-3          {found.trace_ratio:.3f} of the bytes a trace, {found.span_ratio:.3f} a span alone"
          f" ({found.spans:,} spans)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--traces", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templates", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--giant-spans", type=int, default=0)
    parser.add_argument("--message-mean", type=int, default=Plan.message_mean)
    parser.add_argument("--out", type=Path, help="write the bodies into this directory")
    parser.add_argument("--report", action="store_true", help="print rate, sizes and compressibility")
    options = parser.parse_args()
    plan = Plan(
        traces=options.traces, seed=options.seed, templates=options.templates, batch_spans=options.batch,
        giant_spans=options.giant_spans, message_mean=options.message_mean,
    )  # fmt: skip
    if options.report:
        _report(plan)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for number, body in enumerate(Generator(plan).bodies()):
            (options.out / f"{number:06d}.pb").write_bytes(body.data)


if __name__ == "__main__":
    main()
