"""Needles: marked random words planted in trace data, and a scan that finds them in any file, decoded too.

A needle is `ndl` and 24 hex digits. The scan knows nothing of the store: it reads each file of a folder as raw
bytes, and wherever a zstd frame begins it unpacks as much as can be unpacked, so that a frame cut by a page border
or half overwritten still shows what its rest holds. A frame that goes on in another page shows only its beginning
that way: `scan_values` reads every value of every table instead, and pages.scan_database shows that no other bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard

from clearspan.files.vfs import open_reader

_NEEDLE = re.compile(rb"ndl[0-9a-f]{24}")
_NEEDLE_UTF16 = re.compile(rb"n\x00d\x00l\x00(?:[0-9a-f]\x00){24}")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_FRAME_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 64 << 20
_OVERLAP = 64


class Hit(NamedTuple):
    """A needle in a file."""

    file: str
    needle: str
    how: str  # "raw", "utf-16" or "zstd"


def needle_of(random_bytes: bytes) -> str:
    """A needle from 12 random bytes."""
    return f"ndl{random_bytes[:12].hex()}"


def scan_folder(folder: Path, wanted: set[str]) -> list[Hit]:
    """Every wanted needle that any file below the folder holds, each once a file and way.

    Cost: about 5 s a GiB, and the unpacking of every frame.
    """
    hits: dict[Hit, None] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for needle, how in _scan_file(path):
                if needle in wanted:
                    hits[Hit(str(path.relative_to(folder)), needle, how)] = None
    return list(hits)


def scan_values(database: Path, wanted: set[str]) -> list[Hit]:
    """Every wanted needle in any value of any table, zstd frames unpacked whole."""
    hits: dict[Hit, None] = {}
    conn = open_reader(database)
    try:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            query = f'SELECT * FROM "{table}"'  # noqa: S608 - a name of our own schema
            for row in conn.execute(query):
                for value in row:
                    for needle in _needles_of(value):
                        if needle in wanted:
                            hits[Hit(f"{database.name}:{table}", needle, "value")] = None
    finally:
        conn.close()
    return list(hits)


def _needles_of(value: object) -> Iterator[str]:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if isinstance(data, bytes):
        unpacked = zstandard.ZstdDecompressor().decompress(data) if data.startswith(_ZSTD_MAGIC) else data
        yield from (found.decode() for found in _NEEDLE.findall(unpacked))


def _scan_file(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(_CHUNK_BYTES):
            data = tail + chunk
            yield from ((found.decode(), "raw") for found in _NEEDLE.findall(data))
            yield from ((found[::2].decode(), "utf-16") for found in _NEEDLE_UTF16.findall(data))
            at = data.find(_ZSTD_MAGIC)
            while at >= 0:
                unpacked = _unpack(data[at : at + _FRAME_BYTES_MAX])
                yield from ((found.decode(), "zstd") for found in _NEEDLE.findall(unpacked))
                at = data.find(_ZSTD_MAGIC, at + 1)
            tail = data[-_OVERLAP:]


def _unpack(frame: bytes) -> bytes:
    """What a frame, whole or cut, still gives."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    out = []
    try:
        # In small steps: what was unpacked before the damage is kept.
        for at in range(0, len(frame), 512):
            out.append(unpacker.decompress(frame[at : at + 512]))
            if unpacker.eof:
                break
    except zstandard.ZstdError:
        pass
    return b"".join(out)
