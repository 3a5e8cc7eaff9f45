"""Room on the disk: how much is free, and a ballast file that is given up when a deletion needs some.

Deleting from a database file writes before it frees: each changed page goes to the write-ahead log first. On a full
disk that would fail, so a data directory keeps a file of blank blocks, `reserve`, for just this case.

Tests make a small disk of a folder: see `small_disk`. Only growth of the files in it is limited, and only for
connections that were opened (files/vfs.py) while the small disk was there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLE = "CLEARSPAN_FAULT_DISK_BYTES"
"""In a test: the size of the pretended disk, for a process started with it."""
NAME = "reserve"


class SmallDisk:
    """A pretended disk that holds the files of one folder; `size` may change at any time."""

    def __init__(self, size: int) -> None:
        self.size = size

    def free(self, folder: Path) -> int:
        """Bytes that files of the folder may still grow by."""
        return self.size - used_bytes(folder)


_small: SmallDisk | None = SmallDisk(int(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else None


def small() -> SmallDisk | None:
    """The pretended disk of this process, if a test made one."""
    return _small


@contextmanager
def small_disk(size: int) -> Iterator[SmallDisk]:
    """Pretend, for the length of a `with` block, that each data directory has so many bytes."""
    global _small
    before, _small = _small, SmallDisk(size)
    try:
        yield _small
    finally:
        _small = before


def used_bytes(folder: Path) -> int:
    """Sum of the sizes of the files in a folder, but for shared memory, which is not written by anybody."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if not entry.name.endswith("-shm"):
                    total += entry.stat().st_size
    return total


def free_bytes(folder: Path) -> int:
    """What this user may still write to the file system of a folder. Cost: 2 µs."""
    if _small is not None:
        return _small.free(folder)
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Reserve:
    """The ballast file of a data directory."""

    def __init__(self, folder: Path, size: int, *, floor: int) -> None:
        """
        Args:
            size: bytes; 0 keeps none.
            floor: bytes that must be free besides when the file is made.
        """
        self._path = folder / NAME
        self._folder = folder
        self._size = size
        self._floor = floor

    @property
    def exists(self) -> bool:
        """Whether there is something to give up."""
        return self._path.exists()

    @property
    def is_wanted(self) -> bool:
        """Whether there should be one."""
        return self._size > 0

    @property
    def has_room(self) -> bool:
        """Whether there is room for the file and the floor besides."""
        return free_bytes(self._folder) >= self._size + self._floor

    def keep(self) -> bool:
        """Make the file if it is wanted, not there and there is room for it; whether it is there now."""
        if not self.is_wanted:
            self.give_up()
            return False
        if self.exists:
            return True
        if not self.has_room:
            return False
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._size)
        except OSError:  # somebody else was faster, or the file system cannot set blocks aside
            self.give_up()
            return False
        finally:
            os.close(file)
        return True

    def give_up(self) -> bool:
        """Remove the file; False if there was none. The space is free at once."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
