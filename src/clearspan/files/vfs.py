"""SQLite files that keep no copy of what was deleted.

`secure_delete=ON` zeroes freed cells and freed pages, but when SQLite re-balances a b-tree it packs the cells
of a page anew and leaves the former ones in the unallocated gap between the cell-pointer array and the first
cell. Copies of deleted rows stay there. The VFS "clearspan" zeroes that gap in every b-tree page written to
the main file.

Zeroing needs Python, commits should not. So a store has two kinds of connection:

    writer        plain "unix" VFS; commits append to the WAL in C and never touch the main file
    checkpointer  through "clearspan"; the only one that copies pages from the WAL to the main file

A WAL left by a crash is copied by the checkpointer, too: open it first, let nobody else check-point.

Why a page is never damaged. A page is changed only when its first byte (page 1: its 101st) is a b-tree type
and its header and every cell pointer are consistent. Other kinds of page cannot look like that:
  - overflow pages and free-list trunks start with a page number, whose first byte is 0 or 1 below 2^25 pages;
    larger files are refused (PRAGMA max_page_count and `xWrite`);
  - pointer-map pages exist only with auto_vacuum, and a file that has it is refused;
  - free-list leaves hold nothing that SQLite will read again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import apsw

from clearspan.files import disk
from clearspan.model.errors import StoreDamaged

PAGES_MAX = (1 << 25) - 1
PAGE_SIZES = frozenset(1 << power for power in range(9, 17))
BUSY_MS = 5_000
LANES_KEPT = 1_024
"""Of how many numbers of cells the constants of `_lanes` are kept: 1 KB each for a page of 4 KiB with many cells."""

_BASE = "unix"
_NAME = "clearspan"
# b-tree type → bytes of the page header; interior pages carry a right-most child.
_HEADER_SIZES = {2: 12, 5: 12, 10: 8, 13: 8}
_FRAGMENTS_MAX = 60
_ZEROS = bytes(65_536)
_HEADER = Struct(">BHHHB")  # type, first free block, cells, content offset, fragmented bytes


class _Lanes(NamedTuple):
    """Numbers of 16 bits, side by side in one number."""

    ones: int  # 1 in each lane
    tops: int  # the top bit of each
    most: int  # the largest value allowed in each, with the top bit


@lru_cache(LANES_KEPT)
def _lanes(count: int, most: int) -> _Lanes:
    ones = int.from_bytes(b"\0\1" * count, "big")
    return _Lanes(ones, ones << 15, ones * (0x8000 + most))


class Gap(NamedTuple):
    """The unallocated bytes [start, end) of a b-tree page."""

    start: int
    end: int


def unallocated_gap(page: bytes, *, is_first: bool) -> Gap | None:
    """Where a b-tree page holds nothing, or None if it is not certainly a b-tree page.

    Args:
        page: a whole page, as SQLite writes it.
        is_first: page 1 of the file, whose b-tree header comes after the 100 bytes of the file header.
    Returns:
        The bytes between the cell-pointer array and the first cell; possibly empty.
    Cost: 1 µs and 10 ns a cell.
    """
    at = 100 if is_first else 0
    kind, free_block, cells, content, fragments = _HEADER.unpack_from(page, at)
    header_size = _HEADER_SIZES.get(kind)
    if header_size is None or fragments > _FRAGMENTS_MAX:
        return None
    size = len(page)
    pointers_at = at + header_size
    start = pointers_at + 2 * cells
    end = content or 65_536
    if not start <= end <= size:
        return None
    if free_block and not end <= free_block <= size - 4:
        return None
    if cells and not _all_between(page[pointers_at:start], end, size - 4):
        return None
    return Gap(start, end)


def _all_between(pointers: bytes, least: int, most: int) -> bool:
    """Whether every cell pointer, 16 bits big endian, lies in [least, most].

    All of them are lanes of one number, because a Python number for each takes three times as long and every page that
    is copied is asked. The top bit of a lane is free, but in pages of 64 KiB; set before a subtraction, it tells
    whether the lane would have come out negative.
    """
    count = len(pointers) // 2
    if most >= 0x8000:
        each: tuple[int, ...] = Struct(f">{count}H").unpack(pointers)
        return least <= min(each) and max(each) <= most
    ones, tops, mosts = _lanes(count, most)
    lanes = int.from_bytes(pointers, "big")
    if lanes & tops:
        return False
    return ((lanes | tops) - least * ones) & (mosts - lanes) & tops == tops


class _ZeroingFile(apsw.VFSFile):
    """The main database file; every other method is the base VFS's own."""

    def xWrite(self, data: bytes, offset: int) -> None:
        size = len(data)
        if size in PAGE_SIZES and offset % size == 0:
            if offset >= PAGES_MAX * size:
                raise apsw.FullError(f"a database file may have at most {PAGES_MAX} pages")
            if offset == 0 and data[52:56] != b"\0\0\0\0":
                raise apsw.CantOpenError("auto_vacuum must be NONE: pointer maps can look like b-tree pages")
            gap = unallocated_gap(data, is_first=offset == 0)
            if gap is not None:
                start, end = gap
                blank = _ZEROS[: end - start]
                if data[start:end] != blank:
                    data = b"".join((data[:start], blank, data[end:]))
        super().xWrite(data, offset)


class _ZeroingVFS(apsw.VFS):
    def __init__(self, name: str, base: str) -> None:
        super().__init__(name, base)
        self._base_name = base

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        kind = _ZeroingFile if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else apsw.VFSFile
        return kind(self._base_name, name, flags)


class _SmallDiskFile(apsw.VFSFile):
    """A file that cannot grow beyond the pretended disk of a test (files/disk.py)."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(_BASE, name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._folder = Path(path).parent if path else None

    def xWrite(self, data: bytes, offset: int) -> None:
        growth = offset + len(data) - self.xFileSize()
        small = disk.small()
        if growth > 0 and small is not None and self._folder is not None and growth > small.free(self._folder):
            raise apsw.FullError("the pretended disk is full")
        super().xWrite(data, offset)


class _SmallDiskVFS(apsw.VFS):
    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _SmallDiskFile(name, flags)


@cache
def _register(*, zeroing: bool, on_small_disk: bool) -> str | apsw.VFS:
    """A VFS by its name or as an object that must live as long as SQLite may call it: for ever."""
    if on_small_disk:
        base = "clearspan-small-disk"
        if not zeroing:
            return _SmallDiskVFS(base, _BASE)
        _register(zeroing=False, on_small_disk=True)
        return _ZeroingVFS(f"{base}-zeroing", base)
    return _ZeroingVFS(_NAME, _BASE) if zeroing else _BASE


def _vfs(*, zeroing: bool) -> str:
    """The name of the VFS for a new connection."""
    on_small_disk = disk.small() is not None
    _register(zeroing=zeroing, on_small_disk=on_small_disk)
    if on_small_disk:
        return "clearspan-small-disk-zeroing" if zeroing else "clearspan-small-disk"
    return _NAME if zeroing else _BASE


def _connect(path: Path, *, zeroing: bool, flags: int, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """A connection with what all of ours share: no temporary files, no deleted bytes left, no surprises."""
    connection = apsw.Connection(str(path), flags=flags, vfs=_vfs(zeroing=zeroing))
    connection.set_busy_timeout(busy_ms)
    if not zeroing:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.wal_autocheckpoint(0)
    for pragma in (
        "temp_store=MEMORY",  # a sort that spills would write rows to a file that nobody zeroes
        "secure_delete=ON",
        "synchronous=FULL",
        "mmap_size=0",
        "trusted_schema=OFF",
        f"max_page_count={PAGES_MAX}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _check_format(connection: apsw.Connection, path: Path) -> apsw.Connection:
    """Refuse a file that our connections did not create."""
    if connection.pragma("journal_mode") != "wal" or connection.pragma("auto_vacuum") != 0:
        connection.close()
        raise StoreDamaged(f"{path.name} is not a write-ahead-log database without auto_vacuum")
    return connection


def create_database(path: Path, *, page_size: int = 4096) -> None:
    """Make an empty database file: WAL, no auto_vacuum. An existing one is left alone.

    Args:
        page_size: bytes, a power of two from 512 to 65536.
    """
    if path.exists() and path.stat().st_size:
        return
    connection = _connect(path, zeroing=True, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        connection.execute(f"PRAGMA page_size={int(page_size)}").fetchall()
        connection.execute("PRAGMA auto_vacuum=NONE").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA user_version=0").fetchall()
        _check_format(connection, path)
    finally:
        connection.close()


def open_writer(path: Path, *, cache_mib: int = 64, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """The connection that commits. It appends to the WAL and never writes the main file: see `Checkpointer`.

    Raises:
        StoreDamaged: the file was not made by `create_database`.
        apsw.CantOpenError: there is no such file.
    """
    connection = _connect(path, zeroing=False, flags=apsw.SQLITE_OPEN_READWRITE, busy_ms=busy_ms)
    connection.execute(f"PRAGMA cache_size={-1024 * cache_mib}").fetchall()
    return _check_format(connection, path)


def open_reader(path: Path, *, mmap_mib: int = 0, cache_mib: int = 16, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """A connection that can only read, and never check-points.

    Args:
        mmap_mib: how much of the main file is read through a memory map; 0 for none.
    Raises:
        StoreDamaged, apsw.CantOpenError: as `open_writer`.
    """
    connection = _connect(path, zeroing=False, flags=apsw.SQLITE_OPEN_READONLY, busy_ms=busy_ms)
    connection.execute("PRAGMA query_only=ON").fetchall()
    connection.execute(f"PRAGMA cache_size={-1024 * cache_mib}").fetchall()
    connection.execute(f"PRAGMA mmap_size={mmap_mib << 20}").fetchall()
    return _check_format(connection, path)


def open_database(path: Path, *, page_size: int = 4096, busy_ms: int = BUSY_MS) -> apsw.Connection:
    """One connection for a small file, created if missing: reads, writes and check-points, all zeroing.

    After erasing something call `PRAGMA wal_checkpoint(TRUNCATE)`: until then the WAL holds what was there.
    """
    create_database(path, page_size=page_size)
    connection = _connect(path, zeroing=True, flags=apsw.SQLITE_OPEN_READWRITE, busy_ms=busy_ms)
    return _check_format(connection, path)


class CheckpointOutcome(NamedTuple):
    """What one checkpoint did."""

    busy: bool  # a reader or the writer kept it from finishing; try again
    log_pages: int  # frames in the WAL; 0 after a truncate
    checkpointed: int  # frames of them that are in the main file


class Checkpointer:
    """The only writer of a store's main file.

    Open it before any other connection. Safe to call from many threads.
    """

    def __init__(self, path: Path, *, busy_ms: int = 50) -> None:
        """
        Args:
            busy_ms: how long a truncate may wait for readers. The writer waits as long.
        Raises:
            StoreDamaged, apsw.CantOpenError: as `open_writer`.
        """
        self._lock = threading.Lock()
        self._connection = _check_format(
            _connect(path, zeroing=True, flags=apsw.SQLITE_OPEN_READWRITE, busy_ms=busy_ms), path
        )
        self._connection.wal_autocheckpoint(0)
        # Recovers a WAL left by a crash under this connection's lock, before anybody else sees the file.
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    def checkpoint(self, mode: str = "passive") -> CheckpointOutcome:
        """Copy committed pages from the WAL to the main file, each gap zeroed.

        Args:
            mode: "passive" copies what it can and disturbs nobody. "truncate" then also takes the write lock,
                copies the rest and cuts the WAL to nothing, so that no older content is left in it.
        Cost: about 12, 17 or 30 µs a page of 4, 8 or 16 KiB, of which zeroing takes 4, 7 or 11.
            A truncate copies passively first: the writer waits only for the few pages written meanwhile, at most
            `busy_ms` for readers of an older state, and for the file system to cut the file (85-140 ms for
            150-300 MB: keep the WAL short).
        """
        if mode not in ("passive", "truncate"):
            raise ValueError(f"no such checkpoint mode: {mode!r}")
        with self._lock:
            outcome = self._run("PASSIVE")
            return self._run("TRUNCATE") if mode == "truncate" else outcome

    def _run(self, mode: str) -> CheckpointOutcome:
        row = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()[0]
        busy, log_pages, checkpointed = (int(str(number)) for number in row)
        return CheckpointOutcome(bool(busy), log_pages, checkpointed)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the main file as it is, so that its pages can be parsed while the writer goes on."""
        with self._lock:
            yield

    def close(self) -> None:
        """Close; if no other connection is open, the WAL is copied and removed."""
        with self._lock:
            self._connection.close()
