"""The payload block: wire bytes of the spans and logs of one trace that arrived together, compressed as one.

A block is zstd over msgpack of `{"shared": [[resource, scope, schema_url]…], "records": [[codec,
shared_index, id, raw]…]}`. Spans of one trace repeat each other's messages, so a block compresses several
times better than its records one by one. The raw bytes are what the client sent, or the same message
encoded anew by protobuf with unknown fields kept: nothing is lost and nothing is interpreted.

Outside a block a record travels alone, as `record_bytes`: msgpack of [codec, resource, scope, schema_url,
raw].
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
import zstandard

from clearspan.model.errors import StoreDamaged

CODEC_OTLP_SPAN: Final = 1  # raw: protobuf opentelemetry.proto.trace.v1.Span
CODEC_OTLP_LOG: Final = 2  # raw: protobuf opentelemetry.proto.logs.v1.LogRecord
CODEC_RESPAN_SPAN: Final = 3  # raw: one JSON object of Respan's legacy ingest
CODEC_LANGSMITH_RUN: Final = 4  # raw: a run document, see run_document.py

BLOCK_UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024
"""No block we write is near this: ingest caps a request at a quarter of it. Larger means a damaged block."""

_ZSTD_LEVEL: Final = 3
_PACKED_START: Final = b"\x82\xa6shared"  # msgpack: a map of two, its first key


class Shared(NamedTuple):
    """What the records of one OTLP scope have in common. Empty bytes where the wire had none."""

    resource: bytes  # protobuf Resource
    scope: bytes  # protobuf InstrumentationScope
    schema_url: str  # the scope's, else the resource's


class BlockRecord(NamedTuple):
    """One span or log record inside a block."""

    codec: int
    shared_index: int  # into Block.shared
    id: str | int  # span_id, or log_hash for a log record
    raw: bytes


class Block(NamedTuple):
    """A decoded block."""

    shared: list[Shared]
    records: list[BlockRecord]


class WireRecord(NamedTuple):
    """One span or log record by itself, as readers get it."""

    codec: int
    resource: bytes
    scope: bytes
    schema_url: str
    raw: bytes


NO_SHARED: Final = Shared(b"", b"", "")


class _Body(msgspec.Struct):
    """The msgpack map of a block."""

    shared: list[Shared]
    records: list[BlockRecord]


class _Codecs(threading.local):
    """zstd contexts are not safe to share between threads and cost 50 µs to make: one pair per thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()
_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(_Body)
_record_decoder = msgspec.msgpack.Decoder(WireRecord)


def pack_block(
    records: Iterable[BlockRecord | tuple[int, int, str | int, bytes]], shared: Iterable[Shared] = (NO_SHARED,)
) -> bytes:
    """Records in one msgpack; `BlockRecord.shared_index` counts in `shared`. Each raw stays in one piece."""
    return _encoder.encode({"shared": list(shared), "records": list(records)})


def parse_block(packed: bytes) -> Block:
    """The records of what `pack_block` made.

    Raises:
        StoreDamaged: not a block.
    """
    try:
        body = _body_decoder.decode(packed)
    except msgspec.DecodeError as error:
        raise StoreDamaged(f"a payload block cannot be read: {error}") from error
    if any(not 0 <= record.shared_index < len(body.shared) for record in body.records):
        raise StoreDamaged("a payload block names a resource that it does not hold")
    return Block(body.shared, body.records)


def compress_block(packed: bytes) -> bytes:
    """A packed block as it is stored; one that is in that form already stays. About 5 µs for 2 KB."""
    if packed.startswith(zstandard.FRAME_HEADER):
        return packed
    return _codecs.compressor.compress(packed)


def unpack_block(data: bytes) -> bytes:
    """A stored block as it was packed; one that is packed only stays.

    Raises:
        StoreDamaged: a wrong checksum, or one that claims more than `BLOCK_UNPACKED_BYTES_MAX`.
    """
    if data.startswith(_PACKED_START):
        return data
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > BLOCK_UNPACKED_BYTES_MAX:  # an unknown size reads as 2**64 - 1; we always write it
            raise StoreDamaged(f"a payload block claims {size} bytes")
        return _codecs.decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StoreDamaged(f"a payload block cannot be read: {error}") from error


def encode_block(records: Iterable[BlockRecord], shared: Iterable[Shared] = (NO_SHARED,)) -> bytes:
    """Records as a stored block."""
    return compress_block(pack_block(records, shared))


def decode_block(data: bytes) -> Block:
    """The records of a stored block. Raises StoreDamaged."""
    return parse_block(unpack_block(data))


def pick_records(block: Block, keeps: Callable[[BlockRecord], bool]) -> Block:
    """A block of some of the records, with no more shared parts than they need."""
    records = [record for record in block.records if keeps(record)]
    used = sorted({record.shared_index for record in records})
    place = {old: new for new, old in enumerate(used)}
    return Block(
        [block.shared[index] for index in used],
        [record._replace(shared_index=place[record.shared_index]) for record in records],
    )


def join_blocks(blocks: Iterable[Block]) -> Block:
    """One block of the records of several."""
    joined = Block([], [])
    for block in blocks:
        first = len(joined.shared)
        joined.shared.extend(block.shared)
        joined.records.extend(record._replace(shared_index=first + record.shared_index) for record in block.records)
    return joined


def record_bytes(block: Block, record: BlockRecord) -> bytes:
    """One record of a block, self-contained: what `port.SpanDetail.record` holds."""
    shared = block.shared[record.shared_index]
    return _encoder.encode((record.codec, shared.resource, shared.scope, shared.schema_url, record.raw))


def records_by_id(block: Block) -> dict[str | int, bytes]:
    """Every record of a block as `record_bytes`, by span_id (text) or log_hash (int)."""
    return {record.id: record_bytes(block, record) for record in block.records}


def decode_record(data: bytes) -> WireRecord:
    """The parts of `record_bytes`.

    Raises:
        StoreDamaged: the bytes are not a record.
    """
    try:
        return _record_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise StoreDamaged(f"a wire record cannot be read: {error}") from error
