"""The write-ahead log is copied beside the writer, to its end, and no more often than it is worth."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from clearspan.files.vfs import Checkpointer, CheckpointOutcome, create_database, open_reader, open_writer
from clearspan.store.sqlite import log_copy
from clearspan.store.sqlite.log_copy import LogCopy

PAGE = 4096
START = 1 << 20


class Store:
    """A database with a writer, and the copying of its log."""

    def __init__(self, path: Path) -> None:
        create_database(path, page_size=PAGE)
        self.path = path
        self.checkpointer = Checkpointer(path)
        self.conn = open_writer(path)
        self.copy = LogCopy(path, self.checkpointer, PAGE)
        self.conn.set_wal_hook(self._note)
        self.conn.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)")

    def _note(self, _conn: apsw.Connection, _name: str, pages: int) -> int:
        self.copy.note_pages(pages)
        return apsw.SQLITE_OK

    def write(self, megabytes: float) -> None:
        self.conn.execute("INSERT INTO t (data) VALUES (randomblob(?))", (int(megabytes * 2**20),))

    def wait(self) -> None:
        while self.copy.is_running():
            pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "t.db")


def test_a_short_log_is_left_alone_and_a_long_one_is_copied_and_begun_anew(store: Store) -> None:
    store.write(0.5)
    assert not store.copy.go_on(START)
    store.write(4)
    assert store.copy.go_on(START)
    store.wait()
    assert not store.copy.go_on(START)  # nothing is left: the writer finishes
    assert store.copy.pages == 0
    store.write(0.1)
    assert 0 < store.copy.pages * PAGE < START  # from the start of the log


def test_commits_go_on_while_the_log_is_copied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go, plain = threading.Event(), store.checkpointer.checkpoint

    def slow(mode: str = "passive") -> CheckpointOutcome:
        assert may_go.wait(30)
        return plain(mode)

    monkeypatch.setattr(store.checkpointer, "checkpoint", slow)
    store.write(2)
    assert store.copy.go_on(START)
    store.write(3)  # returns, though the pass has not
    assert store.copy.go_on(START)
    may_go.set()
    while store.copy.go_on(START):
        pass
    assert store.copy.pages == 0
    reader = open_reader(store.path)
    assert reader.execute("SELECT count(*) FROM t").get == 2
    reader.close()


def test_what_is_written_beside_a_pass_is_copied_by_the_next(store: Store) -> None:
    store.write(4)
    assert store.copy.go_on(START)
    store.wait()
    store.write(4)
    assert store.copy.go_on(START)
    store.wait()
    assert not store.copy.go_on(START)
    assert store.copy.pages == 0


def test_a_long_read_does_not_make_passes_follow_each_other(store: Store) -> None:
    store.write(0.1)
    reader = open_reader(store.path)
    reader.execute("BEGIN").fetchall()
    assert reader.execute("SELECT count(*) FROM t").get == 1
    store.write(4)
    assert store.copy.go_on(START)
    store.wait()
    store.write(0.1)
    assert not store.copy.go_on(START)  # the read stops it still: nothing would be copied
    store.write(2)
    assert store.copy.go_on(START)  # worth a look
    store.wait()
    reader.close()
    store.write(2)
    while store.copy.go_on(START):
        pass
    assert store.copy.pages == 0


def test_what_a_pass_failed_with_is_raised_once_and_copying_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> CheckpointOutcome:
        raise apsw.FullError("full")

    store.write(4)
    with monkeypatch.context() as patch:
        patch.setattr(store.checkpointer, "checkpoint", fail)
        assert store.copy.go_on(START)
        with pytest.raises(apsw.FullError):
            store.wait()
    store.write(2)
    while store.copy.go_on(START):
        pass
    assert store.copy.pages == 0


def test_a_main_file_that_cannot_be_synced_ends_the_writer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "I/O error")

    fdatasync: Callable[[int], None] = fail
    monkeypatch.setattr(log_copy.os, "fdatasync", fdatasync)
    store.write(4)
    assert store.copy.go_on(START)
    with pytest.raises(apsw.IOError):  # which the process ends on
        store.wait()
