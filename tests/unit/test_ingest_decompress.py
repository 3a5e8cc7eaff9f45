"""Unpacking request bodies: every coding, and every way in which one can be a trap."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from clearspan.ingest.decompress import decompress
from clearspan.ingest.limits import MIB, IngestLimits
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

TEXT = b"".join(b"span %d of a trace\n" % i for i in range(5_000))
LIMITS = IngestLimits(body_bytes=4 * MIB)
SEED = 20261122


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def zstd_stream(data: bytes) -> bytes:
    """A frame that does not state its content's size, as streaming clients make."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_packed_body_comes_out_as_it_was(encoding: str) -> None:
    assert decompress(PACKERS[encoding](TEXT), encoding) == TEXT
    assert decompress(PACKERS[encoding](b""), encoding.upper()) == b""


def test_variants_that_real_senders_write() -> None:
    assert decompress(TEXT, None) == TEXT
    assert decompress(TEXT, "") == TEXT
    assert decompress(raw_deflate(TEXT), "deflate") == TEXT
    assert decompress(zstd_stream(TEXT), "zstd") == TEXT
    assert decompress(gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]), "gzip") == TEXT
    assert decompress(gzip.compress(TEXT) + b"\0" * 7, "gzip") == TEXT
    frames = zstd_stream(TEXT[:100]) + zstd_stream(TEXT[100:])
    assert decompress(frames, "zstd") == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_of_a_body_are_bounded(encoding: str) -> None:
    pack = PACKERS[encoding]
    assert decompress(pack(b"ab") * 1000, encoding) == b"ab" * 1000
    with pytest.raises(InvalidPayload, match="more than 1000"):
        decompress(pack(b"ab") * 1001, encoding)
    with pytest.raises(InvalidPayload, match="more than 1000"):
        decompress(pack(b"") * 500_000, encoding)


def test_members_end_anywhere_in_a_piece() -> None:
    random.seed(SEED)
    print(f"seed {SEED}")
    parts = [random.randbytes(random.choice([0, 1, 1000, 65_520, 65_536, 200_000])) for _ in range(12)]
    for encoding in ("gzip", "zstd"):
        assert decompress(b"".join(map(PACKERS[encoding], parts)), encoding) == b"".join(parts)
    whole = b"".join(parts)
    assert decompress(zlib.compress(whole), "deflate") == decompress(raw_deflate(whole), "deflate") == whole
    assert decompress(gzip.compress(whole) + bytes(300_000) + gzip.compress(b"x"), "gzip") == whole + b"x"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("size", [5 * MIB, 200 * MIB])
def test_a_bomb_is_refused_with_bounded_memory(encoding: str, size: int) -> None:
    bomb = PACKERS[encoding](b"\0" * size)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, encoding, LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LIMITS.body_bytes * 2 + 33 * MIB


def test_a_bomb_in_many_gzip_members_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        decompress(gzip.compress(b"\0" * 100_000) * 50, "gzip", LIMITS)


def test_the_ratio_counts_only_for_large_bodies() -> None:
    padded = b"a" * (MIB - 1)
    assert decompress(gzip.compress(padded), "gzip", LIMITS) == padded
    with pytest.raises(PayloadTooLarge, match="times its size"):
        decompress(gzip.compress(b"a" * (2 * MIB)), "gzip", LIMITS)


def test_an_unpacked_body_over_the_cap_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=str(LIMITS.body_bytes)):
        decompress(b"x" * (LIMITS.body_bytes + 1), None, LIMITS)


def test_a_zstd_frame_that_asks_for_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = packer.compress(TEXT) + packer.flush()
    with pytest.raises(InvalidPayload, match="zstd"):
        decompress(frame, "zstd")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_every_truncation_is_refused(encoding: str) -> None:
    packed = PACKERS[encoding](TEXT[:400])
    for size in range(len(packed)):
        with pytest.raises(InvalidPayload):
            decompress(packed[:size], encoding)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_bytes_after_the_end_are_refused(encoding: str) -> None:
    with pytest.raises(InvalidPayload):
        decompress(PACKERS[encoding](TEXT) + b"more", encoding)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "snappy", "x" * 1000])
def test_an_unknown_coding_is_named(encoding: str) -> None:
    with pytest.raises(InvalidPayload, match="not supported") as caught:
        decompress(TEXT, encoding)
    assert len(caught.value.message) < 200


def test_a_wrong_coding_is_refused() -> None:
    for encoding in ("gzip", "deflate", "zstd"):
        with pytest.raises(InvalidPayload):
            decompress(TEXT, encoding)
