"""One server to a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from clearspan.model.errors import Conflict


class DataDirectoryLocked(Conflict):
    """Another process uses this data directory."""

    code = "data_directory_locked"


class DirectoryLock:
    """An exclusive lock on a data directory, held until `release` or the end of the process.

    The lock is the kernel's (flock), so a killed process leaves none behind; the file tells who holds it.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            DataDirectoryLocked: another process holds it; the message names its pid.
        """
        self.path = directory / "clearspan.lock"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise DataDirectoryLocked(
                f"the data directory {directory} is in use by the process with pid {holder}; stop it first"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def fileno(self) -> int:
        """The open lock file, for a child process that must hold the lock as long as it lives."""
        return self._fd

    def release(self) -> None:
        """Give the lock back, once. The file stays: removing it would race with a new holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
