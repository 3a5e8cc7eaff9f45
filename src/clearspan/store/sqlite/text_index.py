"""Which traces may contain a text: signatures of byte trigrams, bit-sliced.

A signature is a bitmap of 16,384 bits; a bit is set when some trigram of the records' bytes (ASCII letters in lower
case) hashes to it. A trace is a candidate for a needle when all bits of the needle's trigrams are set; the reader
then looks at its text. There are false candidates and, by the rules of `query_bits`, no missed ones.

New signatures are staged as they come. Later a segment of 248 neighbouring traces is sealed: transposed, so that a
search reads 31 bytes a bit and segment instead of 2 KiB a trace. Late signatures of a sealed segment are staged, too,
until they are merged. In every transaction each signature is in exactly one of the two places, and a deletion clears
both: a staged row goes, a column of a sealed segment is zeroed.

Every function takes a connection and works in its open transaction, or in one of its own.
Why not FTS5, and what was measured: docs/adr/0010-text-signatures.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from clearspan.model.errors import StoreDamaged

BITS: Final = 16_384
SIGNATURE_BYTES: Final = BITS // 8
SEGMENT_TRACES: Final = 248  # 31 bytes a row, so that 256 rows fill a page of 8 KiB but for its header
_ROW_BYTES: Final = SEGMENT_TRACES // 8
_GROUP_ROWS: Final = 256
_GROUPS: Final = BITS // _GROUP_ROWS
_SLICE_BYTES: Final = _GROUP_ROWS * _ROW_BYTES

SETTLED_TRACES: Final = 2_048
"""A segment is sealed when this many traces are newer than its last: by then late spans are rare."""
LATE_ROWS_MAX: Final = 8_192
"""Late signatures may wait until there are so many; each costs a search about 1 µs."""
QUERY_BITS_MAX: Final = 8
"""More would cost a search more than the false candidates they spare."""

Bits = NDArray[np.uint8]

_LOWER: Final = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))
_MULTIPLIER: Final = 0x9E3779B1  # 2^32 / golden ratio, odd
_SHIFT: Final = 32 - BITS.bit_length() + 1
_JSON_ESCAPE: Final = re.compile(rb"\\+(?:u([0-9a-f]{4})|(/))")  # in lower-cased bytes, at any depth of nesting


@cache
def _folds_to_ascii() -> dict[bytes, bytes]:
    """UTF-8 of each non-ASCII character whose case folding has ASCII in it (ß: ss, the Kelvin sign: k)."""
    folded = {chr(c): chr(c).casefold() for c in (*range(0x80, 0x2200), *range(0xFB00, 0xFB07))}
    return {c.encode(): f.encode() for c, f in folded.items() if min(f) < "\x80"}


@cache
def _fold_pattern() -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(c) for c in _folds_to_ascii()))


@cache
def _fold_leads() -> tuple[bytes, ...]:
    """First two bytes of those characters: cheap to look for, rarely there."""
    return tuple({c[:2] for c in _folds_to_ascii()})


@cache
def _varying_characters() -> frozenset[str]:
    """Non-ASCII characters that case folding changes or yields: stored and searched bytes may differ in them."""
    varying: set[str] = set()
    for code in range(0x80, 0x20000):
        char = chr(code)
        folded = char.casefold()
        if folded != char:
            varying.add(char)
            varying.update(folded)
    return frozenset(char for char in varying if char >= "\x80")


def signature(records: Sequence[bytes]) -> bytes:
    """The bitmap of all byte trigrams of a batch of one trace.

    Args:
        records: raw wire bytes (protobuf or JSON) of its spans and logs. Their texts need not be valid UTF-8.
    Returns:
        SIGNATURE_BYTES bytes; bit n is bit n % 8 of byte n // 8.
    Cost: 15 µs and 4 µs a KiB.
    """
    data = b"\n".join(records).translate(_LOWER)
    bits = np.zeros(BITS, np.bool_)
    bits[_hashes(data)] = True
    for variant in _variants(data):
        bits[_hashes(variant)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def _hashes(data: bytes) -> NDArray[np.intp]:
    """The bit of each trigram of `data`; a few at the end may be of padding."""
    words = (len(data) + 3) // 4
    padded = data + bytes(8)
    codes = np.concatenate([np.frombuffer(padded, "<u4", count=words, offset=k) for k in range(4)])
    codes <<= np.uint32(8)  # of four bytes the last one falls out
    codes *= np.uint32(_MULTIPLIER)
    codes >>= np.uint32(_SHIFT)
    return codes.astype(np.intp)


def _variants(data: bytes) -> Iterator[bytes]:
    """The same text as a reader may see it: JSON escapes resolved, and case-folded where that yields ASCII."""
    if b"\\u" in data or b"\\/" in data:
        data = _JSON_ESCAPE.sub(_unescape, data)
        # Escaped surrogates become one character; what is no UTF-8 (protobuf framing) stays as it is.
        data = data.decode("utf-16-surrogates" if False else "utf-8", "surrogateescape").encode("utf-8", "replace") if False else data
        yield data
    if any(lead in data for lead in _fold_leads()):
        yield _fold_pattern().sub(lambda match: _folds_to_ascii()[match[0]], data)


def _unescape(match: re.Match[bytes]) -> bytes:
    return b"/" if match[2] else chr(int(match[1], 16)).encode("utf-8", "surrogatepass")
