"""Unpacks request bodies without ever holding more than the cap: the caps are checked while bytes come out.

What a client says about sizes (`content-length`, `x-pre-compressed-size`, a zstd frame's own content size)
is never trusted: only what came out counts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

import zstandard

from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.model.errors import InvalidPayload, PayloadTooLarge

_STEP_BYTES: Final = 256 * 1024
_PIECE_BYTES: Final = 64 * 1024
"""Packed bytes are handed over in such pieces: zlib copies what it leaves of one."""
_MEMBERS_MAX: Final = 1000
_ZEROS: Final = re.compile(rb"\0*")
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
        what went in. InvalidPayload: an unknown coding, damaged or truncated data, bytes after its end, or over
        1,000 gzip members or zstd frames.
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
    at = 0
    for _ in range(_MEMBERS_MAX):
        at = yield from _inflate(zlib.decompressobj(wbits=31), body, at)
        zeros = _ZEROS.match(body, at)
        at = zeros.end() if zeros else at
        if at == len(body):
            return
    raise InvalidPayload(f"the gzip body has more than {_MEMBERS_MAX} members")


def _deflate(body: bytes) -> Iterator[bytes]:
    """HTTP's deflate is the zlib format; some senders leave the wrapper out."""
    wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    stream = zlib.decompressobj(wbits=15 if wrapped else -15)
    if (yield from _inflate(stream, body, 0)) < len(body):
        raise InvalidPayload("the deflate body goes on after its end")


def _inflate(stream: zlib._Decompress, body: bytes, at: int) -> Generator[bytes, None, int]:
    """Unpacks one stream that starts at `at`; returns where it ends."""
    packed = memoryview(body)
    while not stream.eof:
        piece = packed[at : at + _PIECE_BYTES]
        part = stream.decompress(piece, _STEP_BYTES)
        at += len(piece) - len(stream.unused_data if stream.eof else stream.unconsumed_tail)
        if not part and not piece and not stream.eof:
            raise InvalidPayload("the compressed body is truncated")
        yield part
    return at


def _zstd(body: bytes) -> Iterator[bytes]:
    """One or more zstd frames."""
    packed, at = memoryview(body), 0
    for _ in range(_MEMBERS_MAX):
        frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX).decompressobj()
        while not frame.eof:
            piece = packed[at : at + _ZSTD_PIECE_BYTES]
            if not piece:
                raise InvalidPayload("the compressed body is truncated")
            yield frame.decompress(piece)
            at += len(piece)
        at -= len(frame.unused_data)
        if at == len(body):
            return
    raise InvalidPayload(f"the zstd body has more than {_MEMBERS_MAX} frames")


_UNPACKERS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
