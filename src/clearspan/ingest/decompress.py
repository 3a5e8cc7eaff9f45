"""Unpacks request bodies without ever holding more than the cap: the caps are checked while bytes come out.

What a client says about sizes (`content-length`, `x-pre-compressed-size`, a zstd frame's own content size)
is never trusted: only what came out counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

import zstandard

from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

_STEP_BYTES: Final = 256 * 1024
_ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024  # what RFC 9659 lets HTTP senders use; a frame may ask for 2 GiB
_ZSTD_PIECE_BYTES: Final = 1024
"""A piece of a frame is unpacked in one go, and zstd makes at most 32 KiB of a byte: this bounds one go to 32 MiB.
The library's bounded reader would be tighter but takes a truncated frame for a whole one."""


def decompress(body: bytes, encoding: str | None, limits: IngestLimits = DEFAULT_LIMITS) -> bytes:
    """A request body as it was before its `content-encoding`.

    Args:
        body: as received.
        encoding: the header's value; None, "" and "identity" mean as is. One coding, not a list.
    Raises:
        PayloadTooLarge: more than `limits.body_bytes` would come out, or more than `limits.ratio` times
        what went in. InvalidPayload: an unknown coding, damaged or truncated data, or bytes after its end.
    """
    name = (encoding or "identity").strip().lower()
    unpack = _UNPACKERS.get(name)
    if unpack is None:
        raise InvalidPayload(f"content-encoding {name[:40]!r} is not supported: use gzip, deflate, zstd or none")
    out = bytearray()
    try:
        for part in unpack(body):
            _check(len(out) + len(part), len(body), limits)
            out += part
    except (zlib.error, zstandard.ZstdError) as error:
        raise InvalidPayload(f"the {name} body cannot be unpacked: {error}") from error
    return bytes(out)


def _check(unpacked: int, packed: int, limits: IngestLimits) -> None:
    if unpacked > limits.body_bytes:
        raise PayloadTooLarge(f"the body unpacks to more than {limits.body_bytes} bytes")
    if unpacked > limits.ratio_floor_bytes and unpacked > packed * limits.ratio:
        raise PayloadTooLarge(f"the body unpacks to more than {limits.ratio} times its size")


def _identity(body: bytes) -> Iterator[bytes]:
    yield body


def _gzip(body: bytes) -> Iterator[bytes]:
    """One or more gzip members (RFC 1952 section 2.2); zero padding after the last is legal."""
    rest = body
    while True:
        member = zlib.decompressobj(wbits=31)
        yield from _inflate(member, rest)
        rest = member.unused_data.lstrip(b"\0")
        if not rest:
            return


def _deflate(body: bytes) -> Iterator[bytes]:
    """HTTP's deflate is the zlib format; some senders leave the wrapper out."""
    wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    stream = zlib.decompressobj(wbits=15 if wrapped else -15)
    yield from _inflate(stream, body)
    if stream.unused_data:
        raise InvalidPayload("the deflate body goes on after its end")


def _inflate(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while not stream.eof:
        part = stream.decompress(data, _STEP_BYTES)
        data = stream.unconsumed_tail
        if not part and not data and not stream.eof:
            raise InvalidPayload("the compressed body is truncated")
        yield part


def _zstd(body: bytes) -> Iterator[bytes]:
    """One or more zstd frames."""
    rest = body
    while True:
        frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX).decompressobj()
        at = 0
        while not frame.eof:
            if at >= len(rest):
                raise InvalidPayload("the compressed body is truncated")
            yield frame.decompress(rest[at : at + _ZSTD_PIECE_BYTES])
            at += _ZSTD_PIECE_BYTES
        rest = frame.unused_data + rest[at:]
        if not rest:
            return


_UNPACKERS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
