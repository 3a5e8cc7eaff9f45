"""Payload blocks: what goes in comes out, and damage is found."""

from __future__ import annotations

import threading

import msgspec
import pytest
import zstandard

from clearspan.ingest.payload import (
    BLOCK_UNPACKED_BYTES_MAX,
    CODEC_OTLP_LOG,
    CODEC_OTLP_SPAN,
    BlockRecord,
    Shared,
    WireRecord,
    decode_block,
    decode_record,
    encode_block,
    record_bytes,
    records_by_id,
)
from clearspan.model.errors import StoreDamaged

SHARED = [Shared(b"resource", b"scope", "https://example.com/schema"), Shared(b"", b"", "")]
RECORDS = [
    BlockRecord(CODEC_OTLP_SPAN, 0, "0af7651916cd43dd", b"a span \x00\xff" * 20),
    BlockRecord(CODEC_OTLP_SPAN, 1, "trace_abc/1", b""),
    BlockRecord(CODEC_OTLP_LOG, 0, -(2**63), b"a log"),
]


def test_a_block_holds_its_records() -> None:
    block = decode_block(encode_block(RECORDS, SHARED))
    assert block.shared == SHARED
    assert block.records == RECORDS
    assert records_by_id(block).keys() == {"0af7651916cd43dd", "trace_abc/1", -(2**63)}


def test_a_record_is_self_contained() -> None:
    block = decode_block(encode_block(RECORDS, SHARED))
    record = decode_record(record_bytes(block, block.records[2]))
    assert record == WireRecord(CODEC_OTLP_LOG, b"resource", b"scope", "https://example.com/schema", b"a log")


def test_an_empty_block_is_a_block() -> None:
    assert decode_block(encode_block([])).records == []


def test_any_damage_is_found() -> None:
    packed = encode_block(RECORDS, SHARED)
    for i in range(len(packed)):
        for damaged in (packed[:i], packed[:i] + bytes([packed[i] ^ 0x10]) + packed[i + 1 :]):
            try:
                block = decode_block(damaged)
            except StoreDamaged:
                continue
            assert (block.shared, block.records) == (SHARED, RECORDS), i


def test_a_block_that_claims_too_much_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"\0" * (BLOCK_UNPACKED_BYTES_MAX + 1))
    with pytest.raises(StoreDamaged, match="claims"):
        decode_block(bomb)


def test_a_record_of_a_missing_resource_is_damage() -> None:
    body = msgspec.msgpack.encode({"shared": [], "records": [(1, 0, "a", b"")]})
    with pytest.raises(StoreDamaged, match="does not hold"):
        decode_block(zstandard.ZstdCompressor().compress(body))


def test_what_is_no_record_is_damage() -> None:
    for data in (b"", b"\xc0", b"junk"):
        with pytest.raises(StoreDamaged):
            decode_record(data)


def test_threads_do_not_share_codecs() -> None:
    failures: list[Exception] = []

    def work(seed: int) -> None:
        try:
            for i in range(200):
                records = [BlockRecord(1, 0, str(i), bytes([seed]) * 5_000)]
                assert decode_block(encode_block(records)).records == records
        except Exception as error:  # a thread's edge
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
