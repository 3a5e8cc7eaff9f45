"""Which traces may contain a text: bit-sliced signatures of 4-byte grams.

A signature is a bitmap of 16,384 bits; a bit is set when some four neighbouring bytes of the records (ASCII letters in
lower case) hash to it. A trace is a candidate for a needle when all bits of the needle's grams are set; the reader
then looks at its text. There are false candidates and, by the rules of `query_bits`, no missed ones.

New signatures are staged as they come, one a block. Later a segment of 248 neighbouring traces is sealed: transposed,
so that a search reads 31 bytes a bit and segment instead of 2 KiB a trace. Late signatures of a sealed segment are
staged, too, until they are merged. In every transaction each signature is in exactly one of the two places, and a
deletion clears both: a staged row goes, a column of a sealed segment is zeroed.

The signature of a large trace would have every bit set. So sealing leaves those of its blocks as rows, merged only as
far as they stay telling: its pieces. A search then knows which blocks of it to look at.

Every function takes a connection and works in its open transaction, or in one of its own.
Why not FTS5, and what was measured: docs/adr/0010-text-signatures.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import compress, groupby, islice
from typing import Any, Final

import apsw
import numpy as np
from numpy.typing import NDArray

from clearspan.model.errors import StoreDamaged
from clearspan.store.sqlite.rows import BLOCK_BITS, BLOCK_NO_MAX

GRAM_BYTES: Final = 4
BITS: Final = 16_384
SIGNATURE_BYTES: Final = BITS // 8
SEGMENT_TRACES: Final = 248  # 31 bytes a row, so that 256 rows make a value of 8 KB
_ROW_BYTES: Final = SEGMENT_TRACES // 8
_GROUP_ROWS: Final = 256
_GROUPS: Final = BITS // _GROUP_ROWS
_SLICE_BYTES: Final = _GROUP_ROWS * _ROW_BYTES

SETTLED_TRACES: Final = 4_096
"""A segment is sealed when this many traces are newer than its last: by then late spans are rare."""
LATE_ROWS_MAX: Final = 32_768
"""Late signatures may wait until there are so many: each costs a search about 1 µs, merging a few of them into a
segment costs as much as sealing it."""
LARGE_BITS: Final = BITS * 5 // 8
"""A trace whose signature would have more bits set than this keeps pieces."""
PIECE_BITS: Final = BITS // 2
"""Signatures of neighbouring blocks become one piece up to so many bits: about 64 KB of text."""
PIECE: Final = 1 << BLOCK_BITS
"""Added to the block_no of a piece, which is its first block's; it reaches to the next row of its trace."""
QUERY_BITS_MAX: Final = 10
SAMPLE_SEGMENTS: Final = 16
STAGED_AT_ONCE: Final = 512

Bits = NDArray[np.uint8]

_MULTIPLIER: Final = 0x9E3779B1  # 2^32 / golden ratio, odd
_SHIFT: Final = 32 - BITS.bit_length() + 1
_JSON_ESCAPE_START: Final = re.compile(rb"\\[u/]")
# In lower-cased bytes, at any depth of nesting: a pair of surrogates, one code unit, an escaped slash. It starts with
# a literal, which `re` looks for ten times faster than for a repetition. A run of backslashes is taken whole from its
# first one, or not at all: one without an escape behind it costs a step a backslash, however long it is.
_JSON_ESCAPE: Final = re.compile(
    rb"\\(?<!\\\\)\\*+(?:u(d[89ab][0-9a-f]{2})\\++u(d[c-f][0-9a-f]{2})|u([0-9a-f]{4})|(/))"
)


@cache
def _folds_to_ascii() -> dict[bytes, bytes]:
    """UTF-8 of each non-ASCII character whose case folding has ASCII in it (ß: ss, the Kelvin sign: k)."""
    folded = {chr(c): chr(c).casefold() for c in (*range(0x80, 0x2200), *range(0xFB00, 0xFB07))}
    return {c.encode(): f.encode() for c, f in folded.items() if min(f) < "\x80"}


@cache
def _fold_pattern() -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(c) for c in _folds_to_ascii()))


@cache
def _fold_leads() -> NDArray[np.bool_]:
    """Whether two bytes, as a number, begin one of those characters."""
    leads = np.zeros(1 << 16, np.bool_)
    leads[[int.from_bytes(char[:2], "big") for char in _folds_to_ascii()]] = True
    return leads


def _folds_anywhere(data: bytes) -> bool:
    """Whether one of those characters is in the data. Few bytes can begin one: only they are looked at.

    Cost: 1 ms a MiB, a tenth of a pattern's search.
    """
    codes = np.frombuffer(data, np.uint8)
    first = np.flatnonzero(codes[:-1] >= 0xC3)
    pairs = codes[first].astype(np.uint16) << 8 | codes[first + 1]
    chars = _folds_to_ascii()
    return any(data[at : at + 2] in chars or data[at : at + 3] in chars for at in first[_fold_leads()[pairs]].tolist())


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
    """The bitmap of all 4-byte grams of a batch of one trace.

    Args:
        records: raw wire bytes (protobuf or JSON) of its spans and logs. Their texts need not be valid UTF-8.
    Returns:
        SIGNATURE_BYTES bytes; bit n is bit n % 8 of byte n // 8.
    Cost: 15 µs and 7 µs a KiB.
    """
    data = b"\n".join(records).lower()  # ASCII letters only
    bits = np.zeros(BITS, np.bool_)
    bits[_hashes(data)] = True
    for variant in _variants(data):
        bits[_hashes(variant)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def _hashes(data: bytes) -> NDArray[np.intp]:
    """The bit of each gram of `data`; a few at the end may be of padding."""
    words = (len(data) + GRAM_BYTES - 1) // GRAM_BYTES
    padded = np.frombuffer(data + bytes(2 * GRAM_BYTES), np.uint8)
    codes = np.empty((GRAM_BYTES, words), "<u4")
    for start in range(GRAM_BYTES):  # copied as bytes: numpy copies words that are not aligned one by one
        codes[start].view(np.uint8)[:] = padded[start : start + GRAM_BYTES * words]
    codes *= np.uint32(_MULTIPLIER)
    codes >>= np.uint32(_SHIFT)
    return codes.reshape(-1).astype(np.intp)


def _hash(gram: bytes) -> int:
    """The bit of one gram; `_hashes` is the same for many."""
    return int.from_bytes(gram, "little") * _MULTIPLIER % (1 << 32) >> _SHIFT


def _variants(data: bytes) -> Iterator[bytes]:
    """The same text as a reader may see it: JSON escapes resolved, and case-folded where that yields ASCII."""
    if _JSON_ESCAPE_START.search(data):
        data = _JSON_ESCAPE.sub(_unescape, data)
        yield data
    if _folds_anywhere(data):
        yield _fold_pattern().sub(lambda match: _folds_to_ascii()[match[0]], data)


def _unescape(match: re.Match[bytes]) -> bytes:
    high, low, unit, slash = match.groups()
    if slash:
        return b"/"
    code = int(unit, 16) if unit else 0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00
    return chr(code).encode("utf-8", "surrogatepass").lower()


def query_bits(needle: str, *, phrase: bool = False) -> list[int]:
    """The bits that every trace with this text has set.

    Left out is each gram that touches a character whose stored bytes may differ from what a reader sees: quotes,
    backslashes and control characters (JSON escapes), non-ASCII letters with case, and U+FFFD (stands for bytes that
    were no text).

    Args:
        phrase: the needle occurs as written; else its words, cut at white space, may be anywhere in the trace.
    Returns:
        At most QUERY_BITS_MAX bits, spread over the needle; none: every trace is a candidate.
    """
    return list(dict.fromkeys(bit for group in _bits_by_word(needle, phrase) for bit in group))


def _bits_by_word(needle: str, phrase: bool) -> list[list[int]]:
    """`query_bits` of each part of a needle that lies within one record: of a phrase, or of each word."""
    words = [needle] if phrase else dict.fromkeys(needle.casefold().split())
    groups = [bits for word in words if (bits := _bits_of(word))]
    each = max(1, QUERY_BITS_MAX // max(1, len(groups)))
    return [_spread(bits, each) for bits in groups[:QUERY_BITS_MAX]]


def _bits_of(word: str) -> list[int]:
    folded = word.casefold()
    data = folded.encode("utf-8", "surrogatepass")
    usable = [_is_stable(char) for char in folded for _ in range(len(char.encode("utf-8", "surrogatepass")))]
    starts = [n for n in range(len(data) - GRAM_BYTES + 1) if all(usable[n : n + GRAM_BYTES])]
    return list(dict.fromkeys(_hash(data[n : n + GRAM_BYTES]) for n in starts))


def _spread(bits: list[int], limit: int) -> list[int]:
    """Up to `limit` of the bits, from all over them; a search may stop early, and neighbours tell the same thing."""
    if len(bits) > limit:
        bits = [bits[n] for n in np.linspace(0, len(bits) - 1, limit).astype(int)]
    return bits[::2] + bits[1::2]


def stable_runs(word: str) -> list[bytes]:
    """The pieces of a text whose bytes a reader sees just as they are stored, in lower case."""
    runs = "".join(char if _is_stable(char) else "\0" for char in word.casefold()).split("\0")
    return [run.encode("utf-8", "surrogatepass") for run in runs if run]


def may_hold(data: bytes, runs: Sequence[bytes]) -> bool:
    """Whether wire bytes may show a text with these runs: False is certain.

    Args:
        data: wire bytes, ASCII letters in lower case (`bytes.lower`).
    Cost: 1 µs a KiB if they hold the runs as they are, else 4 µs.
    """
    missing = [run for run in runs if run not in data]
    return not missing or all(any(run in variant for variant in _variants(data)) for run in missing)


def _is_stable(char: str) -> bool:
    """Whether a reader sees the character just as it is stored."""
    return char >= " " and char not in '"\\\x7f\ufffd' and char not in _varying_characters()


Ranges = tuple[tuple[int, int], ...]
"""First and last block_no of each run of blocks."""


@dataclass(frozen=True)
class Candidates:
    """Traces that may contain a needle. `trace_pk in candidates` is True for each of them."""

    trace_pks: NDArray[np.int64]  # newest first; empty when unfiltered
    unfiltered: bool = False  # the needle has no usable gram: every trace is a candidate
    blocks: Mapping[int, Ranges] = field(default_factory=dict)  # of traces with rows: where the needle may be

    def __contains__(self, trace_pk: int) -> bool:
        if self.unfiltered:
            return True
        return trace_pk < len(self._flags) and self._flags[trace_pk] == 1

    @cached_property
    def _flags(self) -> bytes:
        """A byte for each trace_pk: a common needle leaves too many of them for a set."""
        flags = np.zeros(int(self.trace_pks[0]) + 1 if len(self.trace_pks) else 0, np.uint8)
        flags[self.trace_pks] = 1
        return flags.tobytes()


def candidates(conn: apsw.Connection, needle: str, *, phrase: bool = False, limit: int | None = None) -> Candidates:
    """The traces whose signatures have every bit of the needle: a superset of those that contain it.

    Args:
        phrase: see `query_bits`; True leaves far fewer candidates for several words.
        limit: at most so many, the newest.
    Cost: 20 µs a thousand traces for each bit that is read of all of them, the two or three rarest; 2 µs a staged
        signature or piece.
    """
    words = _bits_by_word(needle, phrase)
    bits = list(dict.fromkeys(bit for word in words for bit in word))
    if not bits:
        return Candidates(np.zeros(0, np.int64), unfiltered=True)
    segments = np.array([s for (s,) in conn.execute("SELECT segment FROM text_segment ORDER BY 1")], np.int64)
    hit, read = _sealed_hits(conn, segments, bits)
    at, column = np.nonzero(np.unpackbits(hit, axis=1, bitorder="little"))
    sealed = segments[at] * SEGMENT_TRACES + column
    staged = _Staged.read(conn, bits)
    found, blocks = staged.candidates(words, staged.sealed_bits(segments, read))
    return Candidates(_newest_first(sealed, found)[:limit], blocks=blocks)


def _newest_first(sealed: NDArray[np.int64], staged: NDArray[np.int64]) -> NDArray[np.int64]:
    """Both, each in order without repeats, as one. Sorting a million sealed ones would cost more than finding them."""
    extra = np.setdiff1d(staged, sealed, assume_unique=True)
    return np.insert(sealed, np.searchsorted(sealed, extra), extra)[::-1]


def _sealed_hits(
    conn: apsw.Connection, segments: NDArray[np.int64], bits: Sequence[int]
) -> tuple[Bits, dict[int, Bits]]:
    """Which sealed traces have all bits: [segments, 31]; and each bit that was read, of each segment.

    The rarest bits come first, and a segment without a candidate is not read any further: its other bits, and the
    bits that nobody had to read, are said to be set, or are missing.
    """
    hit = np.full((len(segments), _ROW_BYTES), 0xFF, np.uint8)
    read: dict[int, Bits] = {}
    alive = np.arange(len(segments))
    for bit in _rarest_first(conn, segments, bits):
        if not len(alive):
            break
        read[bit] = np.full_like(hit, 0xFF)
        read[bit][alive] = _sealed_rows(conn, bit, segments[alive])
        hit &= read[bit]
        alive = alive[hit[alive].any(axis=1)]
    return hit, read


def _rarest_first(conn: apsw.Connection, segments: NDArray[np.int64], bits: Sequence[int]) -> list[int]:
    """The bits in order of how many traces of a few segments have them: from 0.05 to 0.9 of all, in one word."""
    sample = segments[np.linspace(0, len(segments) - 1, SAMPLE_SEGMENTS).astype(int)] if len(segments) else segments
    if len(segments) <= SAMPLE_SEGMENTS or len(bits) < 2:
        return list(bits)
    return sorted(bits, key=lambda bit: _bit_count(_sealed_rows(conn, bit, sample)))


def _sealed_rows(conn: apsw.Connection, bit: int, segments: NDArray[np.int64]) -> Bits:
    """One bit of every sealed trace of some segments, in order: [segments, 31]."""
    group, nth = divmod(bit, _GROUP_ROWS)
    parts = conn.execute(
        "SELECT substr(l.data, ?, ?) FROM carray(?) wanted CROSS JOIN text_slice l ON l.slice_id = wanted.value",
        (nth * _ROW_BYTES + 1, _ROW_BYTES, apsw.carray(segments * _GROUPS + group)),
    )
    data = b"".join([part for (part,) in parts])
    if len(data) != len(segments) * _ROW_BYTES:
        raise StoreDamaged("a segment of the text index is incomplete")
    return np.frombuffer(data, np.uint8).reshape(len(segments), _ROW_BYTES)


@dataclass(frozen=True)
class _Staged:
    """Some bits of every row of text_doc, in order of trace and block."""

    trace_pks: NDArray[np.int64]  # of each row
    block_nos: NDArray[np.int64]  # the first block of each
    is_set: dict[int, NDArray[np.bool_]]  # bit → of each row
    first: NDArray[np.intp]  # the first row of each trace

    @classmethod
    def read(cls, conn: apsw.Connection, bits: Sequence[int]) -> _Staged:
        rows = conn.execute("SELECT trace_pk, block_no, bits FROM text_doc")
        keys: list[tuple[int, int]] = []
        parts: list[Bits] = []
        columns = np.array([bit // 8 for bit in bits])
        while some := list(islice(rows, STAGED_AT_ONCE)):  # whole signatures cost less than a few bytes of each
            keys += [(trace_pk, block_no) for trace_pk, block_no, _ in some]
            whole = np.frombuffer(b"".join([each for _, _, each in some]), np.uint8)
            parts.append(whole.reshape(-1, SIGNATURE_BYTES)[:, columns])
        trace_pks, block_nos = np.array(keys, np.int64).reshape(-1, 2).T
        block_nos = block_nos % PIECE
        values = np.concatenate(parts) if parts else np.zeros((0, len(bits)), np.uint8)
        order = np.lexsort((block_nos, trace_pks))
        is_set = {bit: (values[order, n] >> bit % 8 & 1).astype(np.bool_) for n, bit in enumerate(bits)}
        _, first = np.unique(trace_pks[order], return_index=True)
        return cls(trace_pks[order], block_nos[order], is_set, first)

    def sealed_bits(self, segments: NDArray[np.int64], read: Mapping[int, Bits]) -> dict[int, NDArray[np.bool_]]:
        """The bits of what is sealed of the same traces; those that were not read are taken to be set."""
        segment, column = np.divmod(self.trace_pks[self.first], SEGMENT_TRACES)
        if not len(segments):
            return {bit: np.zeros(len(segment), np.bool_) for bit in self.is_set}
        at = np.minimum(np.searchsorted(segments, segment), len(segments) - 1)
        is_sealed = (segments[at] == segment) & (self.block_nos[self.first] > 0)  # else its rows are all there is
        shift = (column % 8).astype(np.uint8)
        return {
            bit: is_sealed & (read[bit][at, column // 8] >> shift & 1).astype(np.bool_) if bit in read else is_sealed
            for bit in self.is_set
        }

    def candidates(
        self, words: Sequence[Sequence[int]], sealed: Mapping[int, NDArray[np.bool_]]
    ) -> tuple[NDArray[np.int64], dict[int, Ranges]]:
        """Traces that have all bits of each word in some row or in what is sealed; and in which blocks they have any.

        A word, or a phrase, lies within one record, so within one row.
        """
        if not len(self.first):
            return np.zeros(0, np.int64), {}
        trace_hit = np.ones(len(self.first), np.bool_)
        row_any = np.zeros(len(self.trace_pks), np.bool_)
        sealed_any = np.zeros(len(self.first), np.bool_)
        for bits in words:
            in_row = np.logical_and.reduce([self.is_set[bit] for bit in bits])
            in_sealed = np.logical_and.reduce([sealed[bit] for bit in bits])
            trace_hit &= np.logical_or.reduceat(in_row, self.first) | in_sealed
            row_any |= in_row
            sealed_any |= in_sealed
        ends = np.append(self.first[1:], len(self.trace_pks))
        blocks = {
            int(self.trace_pks[self.first[n]]): self._ranges(self.first[n], ends[n], row_any, bool(sealed_any[n]))
            for n in np.flatnonzero(trace_hit & (ends - self.first > 1)).tolist()
        }
        return self.trace_pks[self.first[trace_hit]], blocks

    def _ranges(self, first: int, end: int, row_any: NDArray[np.bool_], sealed: bool) -> Ranges:
        """The blocks of one trace whose rows, or whose sealed bits, have any word."""
        starts = self.block_nos[first:end].tolist()
        ranges = [(0, starts[0] - 1)] if sealed else []
        lasts = [start - 1 for start in starts[1:]] + [BLOCK_NO_MAX]
        return (*ranges, *compress(zip(starts, lasts, strict=True), row_any[first:end]))


def add(conn: apsw.Connection, rows: Iterable[tuple[int, int, bytes]]) -> None:
    """Stage signatures: (trace_pk, block_no, signature)."""
    conn.executemany("INSERT INTO text_doc (trace_pk, block_no, bits) VALUES (?, ?, ?)", rows)


def seal_next(conn: apsw.Connection) -> bool:
    """Seal one segment if one is due; False if none is. One transaction: see `seal` for its length."""
    segment = segment_to_seal(conn)
    if segment is None:
        return False
    seal(conn, segment)
    return True


def segment_to_seal(conn: apsw.Connection) -> int | None:
    """The next complete segment, oldest first; else, if too many late signatures wait, the one where most wait.

    Cost: 30 ns a late signature; some ms when they are too many.
    """
    sealed_end = conn.execute("SELECT (coalesce(max(segment), -1) + 1) * ? FROM text_segment", (SEGMENT_TRACES,)).get
    oldest = conn.execute(
        f"SELECT trace_pk FROM text_doc WHERE trace_pk >= ? AND block_no < {PIECE} ORDER BY 1 LIMIT 1", (sealed_end,)
    ).get
    if oldest is not None:
        newest = conn.execute("SELECT max(trace_pk) FROM text_doc").get
        segment = int(oldest) // SEGMENT_TRACES
        if (segment + 1) * SEGMENT_TRACES + SETTLED_TRACES <= newest:
            return segment
    is_late = f"trace_pk < ? AND block_no < {PIECE}"
    if conn.execute(f"SELECT count(*) FROM text_doc WHERE {is_late}", (sealed_end,)).get <= LATE_ROWS_MAX:
        return None
    most = conn.execute(
        f"SELECT trace_pk / ? FROM text_doc WHERE {is_late} GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
        (SEGMENT_TRACES, sealed_end),
    ).get
    return int(most)


def seal(conn: apsw.Connection, segment: int) -> None:
    """Merge the staged signatures of a segment into its slices; readers see each in exactly one place.

    Cost: one transaction of about 10 ms; 508 KiB written.
    """
    first = segment * SEGMENT_TRACES
    bounds = (first, first + SEGMENT_TRACES - 1)
    with conn:
        slices = _read_slices(conn, segment)
        sealed = np.frombuffer(b"".join(slices), np.uint8).reshape(BITS, _ROW_BYTES) if slices else None
        by_trace = np.zeros((SEGMENT_TRACES, SIGNATURE_BYTES), np.uint8)
        kept: list[tuple[int, int, bytes]] = []
        for trace_pk, staged in groupby(_staged_rows(conn, bounds), key=lambda row: row[0]):
            signatures = [(block_no, bits) for _, block_no, bits in staged]
            pieces = _pieces(signatures, None if sealed is None else _column(sealed, trace_pk - first))
            kept += [(trace_pk, PIECE + block_no, bits.tobytes()) for block_no, bits in pieces]
            if not pieces:
                by_trace[trace_pk - first] = np.bitwise_or.reduce([bits for _, bits in signatures])
        rows = _transposed(by_trace)
        if sealed is not None:
            rows |= sealed
        _write_segment(conn, segment, rows, sealed)
        conn.execute("DELETE FROM text_doc WHERE trace_pk BETWEEN ? AND ?", bounds)
        add(conn, kept)


def _staged_rows(conn: apsw.Connection, bounds: tuple[int, int]) -> Iterator[tuple[int, int, Bits]]:
    """(trace_pk, first block_no, signature) of what is staged of some traces, in that order."""
    rows = conn.execute(
        f"SELECT trace_pk, block_no % {PIECE}, bits FROM text_doc WHERE trace_pk BETWEEN ? AND ? ORDER BY 1, 2", bounds
    )
    for trace_pk, block_no, bits in rows:
        yield trace_pk, block_no, np.frombuffer(bits, np.uint8)


def _pieces(staged: Sequence[tuple[int, Bits]], sealed: Bits | None) -> list[tuple[int, Bits]]:
    """What a large trace keeps of its staged signatures as rows: (first block_no, bits).

    Args:
        staged: in order of blocks.
        sealed: what is sealed of the trace already.
    Returns:
        Neighbours merged as far as they stay telling; nothing for a trace whose one signature tells enough.
    """
    whole = np.bitwise_or.reduce([bits for _, bits in staged])
    if _bit_count(whole if sealed is None else whole | sealed) <= LARGE_BITS:
        return []
    pieces: list[tuple[int, Bits]] = []
    for block_no, bits in staged:
        if pieces and _bit_count(pieces[-1][1] | bits) <= PIECE_BITS:
            pieces[-1] = pieces[-1][0], pieces[-1][1] | bits
        else:
            pieces.append((block_no, bits))
    return pieces if len(pieces) > 1 or (sealed is not None and sealed.any()) else []


def _bit_count(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum())


def _column(rows: Bits, column: int) -> Bits:
    """The signature of one trace of a sealed segment."""
    return np.packbits(rows[:, column // 8] >> np.uint8(column % 8) & 1, bitorder="little")


def _transposed(by_trace: Bits) -> Bits:
    """[traces, SIGNATURE_BYTES] → [BITS, 31]: one row a bit, one column a trace."""
    by_byte = np.ascontiguousarray(by_trace.T)
    rows = np.empty((SIGNATURE_BYTES, 8, _ROW_BYTES), np.uint8)
    for bit in range(8):
        rows[:, bit] = np.packbits(by_byte & np.uint8(1 << bit), axis=1, bitorder="little")
    return rows.reshape(BITS, _ROW_BYTES)


def _slice_ids(segment: int) -> tuple[int, int]:
    """First and last."""
    return segment * _GROUPS, segment * _GROUPS + _GROUPS - 1


def _read_slices(conn: apsw.Connection, segment: int) -> list[bytes]:
    """The slices of a sealed segment, in order; none if it is not sealed."""
    sql = "SELECT data FROM text_slice WHERE slice_id BETWEEN ? AND ? ORDER BY slice_id"
    slices: list[bytes] = [data for (data,) in conn.execute(sql, _slice_ids(segment))]
    if slices and [len(data) for data in slices] != [_SLICE_BYTES] * _GROUPS:
        raise StoreDamaged("a segment of the text index is incomplete")
    return slices


def _write_segment(conn: apsw.Connection, segment: int, rows: Bits, before: Bits | None) -> None:
    """Store the slices that changed; a segment without any bit goes away."""
    if not rows.any():
        _drop_segment(conn, segment)
        return
    slices = rows.reshape(_GROUPS, _SLICE_BYTES)
    differs = np.ones(_GROUPS, np.bool_) if before is None else (rows != before).reshape(_GROUPS, -1).any(axis=1)
    changed = [(segment * _GROUPS + group, slices[group].tobytes()) for group in np.flatnonzero(differs).tolist()]
    conn.execute("INSERT OR IGNORE INTO text_segment VALUES (?)", (segment,))
    conn.executemany("INSERT INTO text_slice VALUES (?, ?) ON CONFLICT DO UPDATE SET data = excluded.data", changed)


def _drop_segment(conn: apsw.Connection, segment: int) -> None:
    conn.execute("DELETE FROM text_slice WHERE slice_id BETWEEN ? AND ?", _slice_ids(segment))
    conn.execute("DELETE FROM text_segment WHERE segment = ?", (segment,))


def _purge_sealed(conn: apsw.Connection, segment: int, columns: Bits) -> int:
    """Clear some columns (a row of 31 bytes) of a segment, if it is sealed; how many of them had a bit.

    One slice after the other: they stay in the processor's cache, a copy of the segment would not.
    """
    stored = _read_slices(conn, segment)
    slices = [np.frombuffer(data, np.uint8) for data in stored]
    union = np.zeros(_SLICE_BYTES, np.uint8)
    for each in slices:
        np.bitwise_or(union, each, out=union)
    have_bits = np.bitwise_or.reduce(union.reshape(_GROUP_ROWS, _ROW_BYTES))
    gone = have_bits & columns
    if not gone.any():
        return 0
    if not (have_bits & ~columns).any():
        _drop_segment(conn, segment)
    else:
        kept = np.tile(~columns, _GROUP_ROWS)
        new = [((each & kept).tobytes(), segment * _GROUPS + group) for group, each in enumerate(slices)]
        changed = [row for row, data in zip(new, stored, strict=True) if row[0] != data]
        conn.executemany("UPDATE text_slice SET data = ? WHERE slice_id = ?", changed)
    return int(np.unpackbits(gone).sum())


def _columns(trace_pks: Iterable[int]) -> Iterator[tuple[int, Bits]]:
    """(segment, the columns of those traces as a row of 31 bytes) of each segment, in order."""
    for segment, members in groupby(sorted(set(trace_pks)), key=lambda trace_pk: trace_pk // SEGMENT_TRACES):
        flags = np.zeros(SEGMENT_TRACES, np.bool_)
        flags[[trace_pk % SEGMENT_TRACES for trace_pk in members]] = True
        yield segment, np.packbits(flags, bitorder="little")


def purge(conn: apsw.Connection, trace_pks: Sequence[int]) -> int:
    """Remove every signature of the traces, staged and sealed, in one transaction.

    Returns:
        How many were there: staged rows and traces with a sealed bit.
    Cost: about 2 ms and 508 KiB written for each sealed segment with one of the traces; traces that arrived together
        share a segment. Bound the traces of one call to bound the transaction.
    """
    with conn:
        before = conn.total_changes()
        conn.executemany("DELETE FROM text_doc WHERE trace_pk = ?", [(trace_pk,) for trace_pk in trace_pks])
        removed = conn.total_changes() - before
        removed += sum(_purge_sealed(conn, segment, columns) for segment, columns in _columns(trace_pks))
    return removed


def count(conn: apsw.Connection, trace_pks: Sequence[int]) -> int:
    """How many signatures of the traces are left: staged rows and traces with a sealed bit.

    Reads the stored bytes anew and shares no code with `purge`, whose work it is to check.
    Cost: about 0.5 ms for each sealed segment with one of the traces.
    """
    left = 0
    wanted: dict[int, list[int]] = {}
    for trace_pk in set(trace_pks):
        left += conn.execute("SELECT count(*) FROM text_doc WHERE trace_pk = ?", (trace_pk,)).get
        wanted.setdefault(trace_pk // SEGMENT_TRACES, []).append(trace_pk % SEGMENT_TRACES)
    for segment, places in wanted.items():
        union = _traces_with_bits(conn, segment)
        left += sum(union >> place & 1 for place in places)
    return left


def _traces_with_bits(conn: apsw.Connection, segment: int) -> int:
    """All rows of a segment OR-ed, as a number: bit n is set when trace n of the segment has a bit."""
    all_slices = np.zeros(_SLICE_BYTES, np.uint8)
    for (data,) in conn.execute("SELECT data FROM text_slice WHERE slice_id BETWEEN ? AND ?", _slice_ids(segment)):
        rows = np.frombuffer(data, np.uint8)[: len(data) // _ROW_BYTES * _ROW_BYTES]
        for start in range(0, len(rows), _SLICE_BYTES):  # one turn, but for a slice that is too long
            part = rows[start : start + _SLICE_BYTES]
            all_slices[: len(part)] |= part
    return int.from_bytes(np.bitwise_or.reduce(all_slices.reshape(-1, _ROW_BYTES)).tobytes(), "little")


def check(conn: apsw.Connection) -> Iterator[tuple[str, int, str]]:
    """Invariants of the index that do not hold: (which, how often, where). For `fsck`."""
    for invariant, sql in _INVARIANTS.items():
        if found := conn.execute(sql).get:
            yield invariant, int(found), ""
    segments: list[Any] = conn.execute("SELECT segment FROM text_segment").fetchall()
    for (segment,) in segments:
        union, first = _traces_with_bits(conn, segment), segment * SEGMENT_TRACES
        known: list[Any] = conn.execute(
            "SELECT trace_pk FROM trace WHERE trace_pk BETWEEN ? AND ?", (first, first + SEGMENT_TRACES - 1)
        ).fetchall()
        stray = (union & ~sum(1 << trace_pk - first for (trace_pk,) in known)).bit_count()
        if stray:
            yield "sealed text signatures belong to a trace", stray, f"segment {segment}"


_INVARIANTS: Final = {
    "staged text signatures belong to a trace": "SELECT count(*) FROM text_doc "
    "WHERE trace_pk NOT IN (SELECT trace_pk FROM trace)",
    "text signatures are whole": f"SELECT count(*) FROM text_doc WHERE length(bits) <> {SIGNATURE_BYTES}",
    "text slices are whole": f"SELECT count(*) FROM text_slice WHERE length(data) <> {_SLICE_BYTES}",
    "text slices belong to a segment": "SELECT count(*) FROM text_slice WHERE slice_id / "
    f"{_GROUPS} NOT IN (SELECT segment FROM text_segment)",
    "text segments are complete": "SELECT count(*) FROM text_segment s WHERE (SELECT count(*) FROM text_slice "
    f"WHERE slice_id BETWEEN s.segment * {_GROUPS} AND s.segment * {_GROUPS} + {_GROUPS - 1}) <> {_GROUPS}",
}
