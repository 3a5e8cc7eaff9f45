"""Copying the write-ahead log into the main file beside the writer, so that no commit waits for it.

A copy of 16 MiB takes 50 ms on an idle disk and 0.7 s on a busy one, most of it waiting. A thread of the writer process
takes it over; SQLite lets commits go on meanwhile and append to the log. What they appended is copied by a next pass,
and once little is left the writer copies the rest itself: only a log that is copied whole is written anew from its
start.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import apsw

from clearspan.files.vfs import Checkpointer, CheckpointOutcome

REST_BYTES = 512 * 1024
REST_SHARE = 32
"""So much of the log, or one part in so many if that is more, the writer copies itself: a few ms. The longer the log,
the more it is worth: writes that never pause would keep it growing."""


class LogCopy:
    """How far the log has been copied, and the pass that runs. For the writer's one thread; passes have their own."""

    def __init__(self, path: Path, checkpointer: Checkpointer, page_size: int) -> None:
        self._path = path
        self._checkpointer = checkpointer
        self._page_size = page_size
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="log-copy")  # makes its thread with the first pass
        self._pass: Future[CheckpointOutcome] | None = None
        self._file: int | None = None
        self._tried = 0  # pages of the log when the last pass began
        self._copied = 0
        self.pages = 0
        """Of the log."""

    def note_pages(self, pages: int) -> None:
        """What a commit says: how long the log is now. A shorter one was begun anew."""
        if pages < self.pages:
            self._tried = self._copied = 0
        self.pages = pages

    def note_empty(self) -> None:
        """The log is empty, or all of it is copied and the next commit begins it anew."""
        self.pages = self._tried = self._copied = 0

    def is_running(self) -> bool:
        """Whether a pass runs. Raises what a pass has failed with: apsw.FullError, apsw.IOError."""
        if self._pass is None:
            return False
        if not self._pass.done():
            return True
        done, self._pass = self._pass, None
        # The log may have been begun anew beside it: then the pages are of the former one.
        self._copied = max(self._copied, min(done.result().checkpointed, self._tried))
        return False

    def go_on(self, start_bytes: int) -> bool:
        """Begin or finish whatever is due; whether a pass is under way. Cost: a few ms at most.

        Args:
            start_bytes: the length of the log at which copying begins.
        """
        if self.is_running():
            return True
        if self.pages * self._page_size <= start_bytes:
            return False
        left = (self.pages - self._copied) * self._page_size
        if left <= max(REST_BYTES, self.pages * self._page_size // REST_SHARE):
            self.finish()
            return False
        # A pass that a long read stopped is worth a repeat only when the log has grown by as much again.
        is_stopped = self._copied < self._tried
        if is_stopped and (self.pages - self._tried) * self._page_size <= start_bytes:
            return False
        self._tried = self.pages
        self._pass = self._pool.submit(self._copy)
        return True

    def _copy(self) -> CheckpointOutcome:
        """One pass. SQLite waits for the disk only at the end of a log that is copied whole, so for all passes in the
        writer's own thread: wait for this one's part here."""
        outcome = self._checkpointer.checkpoint()
        if self._file is None:
            # Never closed: closing any descriptor of a file ends the process's POSIX locks on it, SQLite's too.
            self._file = os.open(self._path, os.O_RDONLY)
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise apsw.IOError("the main file could not be synced") from error
        return outcome

    def finish(self) -> None:
        """Copy what is left in this thread, after the pass that runs."""
        outcome = self._checkpointer.checkpoint()
        if outcome.checkpointed == outcome.log_pages:
            self.note_empty()
        else:
            self._tried, self._copied = outcome.log_pages, outcome.checkpointed

    def close(self) -> None:
        """Wait for the pass that runs."""
        self._pool.shutdown()
