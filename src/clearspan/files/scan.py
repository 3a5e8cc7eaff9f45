"""Searching a data directory for what should not be in it: every byte of every file, and what lies in it packed.

The scan knows nothing of tables or of deletions. It reads files as raw bytes; wherever a zstd frame begins it unpacks
as much as can be unpacked, so that a frame cut by a page border or half overwritten still shows what its rest holds.
A frame that goes on in another page shows only its beginning that way, so `scan_values` also reads every value of
every table of a database; that no other bytes are in a database file is `pages.scan_database`'s to show.

What is looked for is the caller's: a `Find` is given bytes and says what it sees in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import apsw
import zstandard

from clearspan.files.vfs import BUSY_MS

Find = Callable[[bytes], Iterable[tuple[str, str]]]
"""Bytes → (needle, how it is written) for each occurrence."""

SQLITE_MAGIC = b"SQLite format 3\0"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_FRAME_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_BETWEEN = b"\xff\x00\xff"  # in no text, so that two values never make one needle
_OVERLAP = _FRAME_BYTES_MAX
"""What lies across two chunks, a needle or a frame, is whole in the second."""


class Hit(NamedTuple):
    """A needle in a file or a table."""

    file: str  # relative to the folder; `file:table` for a value
    needle: str
    how: str  # the writing, after "zstd " when it was packed; "value …" when read from a table


@dataclass(slots=True)
class Scan:
    """What was read, and every needle found: each once a file, needle and writing."""

    files: int = 0
    bytes: int = 0
    frames: int = 0  # zstd frames unpacked
    values: int = 0  # values of tables read
    unreadable: list[str] = field(default_factory=list)  # files that could not be read: nothing is known of them
    found: dict[Hit, None] = field(default_factory=dict)

    @property
    def hits(self) -> list[Hit]:
        return list(self.found)

    def note(self, place: str, seen: Iterable[tuple[str, str]], prefix: str = "") -> None:
        for needle, how in seen:
            self.found[Hit(place, needle, prefix + how)] = None


def scan_all(folder: Path, find: Find) -> Scan:
    """Every file below a folder raw and unpacked, then every value of every database in it.

    Databases are opened as readers: they may be in use. A file that vanishes meanwhile was not there; one that
    cannot be read is named in `unreadable`.
    Cost: with the drill's needles about three minutes a GiB on two busy cores, half of it for the tables; 110 MiB.
    """
    scan = Scan()
    scan_files(folder, find, scan)
    for path in sorted(folder.rglob("*")):
        if is_database(path):
            try:
                scan_values(path, find, scan)
            except (apsw.Error, zstandard.ZstdError) as error:
                scan.unreadable.append(f"{path.relative_to(folder)}: {type(error).__name__}")
    return scan


def scan_files(folder: Path, find: Find, scan: Scan | None = None) -> Scan:
    """Every file below the folder, or the one file: raw bytes, and what zstd frames in them unpack to."""
    scan = Scan() if scan is None else scan
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        place = path.name if path == folder else str(path.relative_to(folder))
        try:
            _scan_file(path, place, find, scan)
        except FileNotFoundError:
            continue
        except OSError as error:
            scan.unreadable.append(f"{place}: {error.strerror}")
            continue
        scan.files += 1
    return scan


def scan_values(database: Path, find: Find, scan: Scan | None = None) -> Scan:
    """Every value of every table, zstd frames unpacked whole: a value that spans pages is seen in one piece.

    Any SQLite file will do, not only Clearspan's: a copy that somebody put into the folder is searched as well.
    Raises apsw.Error, ZstdError: a table or a value cannot be read.
    """
    scan = Scan() if scan is None else scan
    conn = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    conn.set_busy_timeout(BUSY_MS)
    try:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            place = f"{database.name}:{table}"
            query = f'SELECT * FROM "{table}"'  # noqa: S608 - a name of the database's own schema
            for data in _pieces(conn.execute(query), scan):
                scan.note(place, find(data), "value ")
    finally:
        conn.close()
    return scan


def _pieces(rows: Iterable[Sequence[object]], scan: Scan) -> Iterator[bytes]:
    """Every value of the rows, and what is packed in it, many in one piece: one by one each would cost a search."""
    held: list[bytes] = []
    size = 0
    for row in rows:
        for value in row:
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            if not isinstance(data, bytes):
                continue
            scan.values += 1
            held.append(data)
            size += len(data)
            if data.startswith(_ZSTD_MAGIC):
                scan.frames += 1
                held.append(zstandard.ZstdDecompressor().decompress(data))
                size += len(held[-1])
        if size > _PIECE_BYTES:
            yield _BETWEEN.join(held)
            held, size = [], 0
    yield _BETWEEN.join(held)


def is_database(path: Path) -> bool:
    """Whether a file begins as a SQLite database does."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False


def _scan_file(path: Path, place: str, find: Find, scan: Scan) -> None:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(_CHUNK_BYTES):
            scan.bytes += len(chunk)
            data = tail + chunk
            tail = data[-_OVERLAP:]
            if not data.strip(b"\0"):
                continue  # a file kept for its size alone is nothing but zeros, and searching those is slowest
            scan.note(place, find(data))
            for frame in _frames(data):
                scan.frames += 1
                scan.note(place, find(frame), "zstd ")


def _frames(data: bytes) -> Iterator[bytes]:
    """What the zstd frames in the bytes unpack to, wherever they begin."""
    at = data.find(_ZSTD_MAGIC)
    while at >= 0:
        yield _unpack(data[at : at + _FRAME_BYTES_MAX])
        at = data.find(_ZSTD_MAGIC, at + 1)


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
