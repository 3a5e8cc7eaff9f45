"""The gap-zeroing VFS page by page, the kinds of connection, and the lock of a data directory."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from clearspan.files import vfs
from clearspan.files.lock import DataDirectoryLocked, DirectoryLock
from clearspan.files.pages import scan_database
from clearspan.files.vfs import Checkpointer, create_database, open_database, open_reader, open_writer
from clearspan.model.errors import StoreDamaged

SIZE = 512


def leaf_page(cells: list[int], *, content: int, fragments: int = 0, free_block: int = 0, filler: int = 0x41) -> bytes:
    """A table leaf whose every other byte is `filler`."""
    header = struct.pack(">BHHHB", 13, free_block, len(cells), content, fragments)
    head = header + b"".join(struct.pack(">H", cell) for cell in cells)
    return head + bytes([filler]) * (SIZE - len(head))


def test_the_gap_lies_between_pointers_and_content() -> None:
    assert vfs.unallocated_gap(leaf_page([400, 450], content=400), is_first=False) == (12, 400)
    assert vfs.unallocated_gap(leaf_page([], content=SIZE), is_first=False) == (8, SIZE)


def test_content_offset_zero_means_65536() -> None:
    page = struct.pack(">BHHHB", 10, 0, 0, 0, 0) + bytes(65_536 - 8)
    assert vfs.unallocated_gap(page, is_first=False) == (8, 65_536)
    assert vfs.unallocated_gap(page[:4_096], is_first=False) is None


def test_page_one_has_its_header_after_the_file_header() -> None:
    page = b"S" * 100 + leaf_page([400], content=400)[: SIZE - 100]
    assert vfs.unallocated_gap(page, is_first=True) == (110, 400)
    assert vfs.unallocated_gap(page, is_first=False) is None


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"\0\0\0\7" + b"A" * 508, id="overflow page"),
        pytest.param(b"\1\xff\xff\xff" + b"\r" * 508, id="overflow page, largest next page"),
        pytest.param(b"\5" + b"A" * 511, id="text"),
        pytest.param(bytes(SIZE), id="blank"),
        pytest.param(leaf_page([300], content=400), id="cell before content"),
        pytest.param(leaf_page([511], content=400), id="cell over the end"),
        pytest.param(leaf_page([400], content=400, fragments=61), id="too many fragments"),
        pytest.param(leaf_page([400], content=400, free_block=200), id="free block before content"),
        pytest.param(leaf_page([400], content=9), id="content inside pointers"),
        pytest.param(leaf_page([400], content=513), id="content over the end"),
    ],
)
def test_what_is_not_certainly_a_btree_page_is_left_alone(page: bytes) -> None:
    assert vfs.unallocated_gap(page, is_first=False) is None


@pytest.mark.parametrize("size", [512, 4_096, 32_768, 65_536])
def test_every_cell_pointer_is_looked_at(size: int) -> None:
    """Whatever the place and the number of the pointers, one out of bounds makes a page that is left alone."""
    draw = random.Random(size)
    for _ in range(200):
        cells = draw.randint(1, 90)
        content = draw.randint(8 + 2 * cells, size - 4)
        pointers = [draw.choice((content, size - 4, draw.randint(content, size - 4))) for _ in range(cells)]

        def page(at: list[int], content: int = content) -> bytes:
            header = struct.pack(">BHHHB", 10, 0, len(at), content, 0)
            return (header + struct.pack(f">{len(at)}H", *at)).ljust(size, b"A")

        assert vfs.unallocated_gap(page(pointers), is_first=False) == (8 + 2 * cells, content)
        outside = [content - 1, 0, draw.randint(0, content - 1), size - 3, 0xFFFF, draw.randint(size - 3, 0xFFFF)]
        for wrong in outside:
            pointers[draw.randrange(cells)] = wrong
            assert vfs.unallocated_gap(page(pointers), is_first=False) is None
            pointers = [content] * cells


def test_payload_that_imitates_btree_pages_survives(tmp_path: Path) -> None:
    """Overflow pages are full of what looks like page headers, at every alignment."""
    database = open_database(tmp_path / "a.db", page_size=SIZE)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
    bodies = {n: b"x" * n + leaf_page([500], content=490) * 30 for n in range(0, 520, 7)}
    with database:
        database.executemany("INSERT INTO t VALUES (?, ?)", list(bodies.items()))
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert dict(database.execute("SELECT id, body FROM t")) == bodies
    assert database.pragma("integrity_check") == "ok"
    database.close()


def test_only_the_checkpointer_writes_the_main_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    create_database(path)
    before = path.read_bytes()
    writer = open_writer(path)
    writer.execute("CREATE TABLE t (x)")
    for n in range(2_000):
        writer.execute("INSERT INTO t VALUES (?)", (f"{n:0500d}",))
    reader = open_reader(path, mmap_mib=1)
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(2_000,)]
    reader.close()
    writer.close()  # the last connection: an ordinary one would check-point now
    assert path.read_bytes() == before
    checkpointer = Checkpointer(path)
    assert checkpointer.checkpoint().checkpointed > 200
    assert path.read_bytes() != before
    assert checkpointer.checkpoint("truncate") == (False, 0, 0)
    checkpointer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db"]


def test_a_wal_left_by_a_crash_reaches_the_main_file_zeroed(tmp_path: Path) -> None:
    path, crashed = tmp_path / "a.db", tmp_path / "b.db"
    create_database(path)
    writer = open_writer(path)
    writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE INDEX tx ON t (x)")
    with writer:
        for n in range(1_500):
            writer.execute("INSERT INTO t VALUES (?, ?)", (n * 7 % 1_500, f"{n:04d}needle" * (1 + n % 40)))
    writer.execute("DELETE FROM t WHERE id % 2")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{crashed}{end}")
    writer.close()
    database = open_database(crashed)
    assert database.execute("SELECT count(*) FROM t").fetchall() == [(750,)]
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert scan_database(crashed).is_clean
    database.close()


def test_a_truncate_waits_for_readers_no_longer_than_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    create_database(path)
    checkpointer, writer, reader = Checkpointer(path, busy_ms=1), open_writer(path), open_reader(path)
    writer.execute("CREATE TABLE t (x)")
    with reader:
        reader.execute("SELECT * FROM t").fetchall()
        writer.execute("INSERT INTO t VALUES (1)")
        assert checkpointer.checkpoint("truncate").busy
    assert checkpointer.checkpoint("truncate") == (False, 0, 0)
    with pytest.raises(ValueError, match="no such checkpoint mode"):
        checkpointer.checkpoint("restart")
    for connection in (reader, writer, checkpointer):
        connection.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    create_database(tmp_path / "a.db")
    reader = open_reader(tmp_path / "a.db")
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("CREATE TABLE t (x)")
    reader.close()


def test_sorts_and_temporary_tables_stay_in_memory(tmp_path: Path) -> None:
    create_database(tmp_path / "a.db")
    for connection in (open_writer(tmp_path / "a.db"), open_reader(tmp_path / "a.db")):
        assert connection.pragma("temp_store") == 2
        assert connection.pragma("secure_delete") == 1
        connection.close()


def test_an_existing_database_is_left_alone(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db", page_size=8192)
    database.execute("CREATE TABLE t (x)")
    database.close()
    create_database(tmp_path / "a.db", page_size=1024)
    database = open_database(tmp_path / "a.db")
    assert database.pragma("page_size") == 8192
    assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]
    database.close()


@pytest.mark.parametrize("pragmas", [["journal_mode=DELETE"], ["auto_vacuum=FULL", "journal_mode=WAL"]])
def test_a_file_made_otherwise_is_refused(tmp_path: Path, pragmas: list[str]) -> None:
    path = tmp_path / "a.db"
    foreign = apsw.Connection(str(path))
    for pragma in pragmas:
        foreign.execute(f"PRAGMA {pragma}").fetchall()
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    for opened in (open_writer, open_reader, open_database, Checkpointer):
        with pytest.raises(StoreDamaged):
            opened(path)


def test_a_file_too_large_to_tell_pages_apart_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    create_database(path)
    checkpointer, writer = Checkpointer(path), open_writer(path)
    assert writer.pragma("max_page_count") == vfs.PAGES_MAX == 2**25 - 1
    writer.execute("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000))")
    monkeypatch.setattr(vfs, "PAGES_MAX", 5)
    with pytest.raises(apsw.FullError):
        checkpointer.checkpoint()
    monkeypatch.undo()
    assert checkpointer.checkpoint().checkpointed > 5
    writer.close()
    checkpointer.close()


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from clearspan.files.lock import DirectoryLock\n"
        "lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DataDirectoryLocked, match=f"in use by the process with pid {holder.pid};"):
        DirectoryLock(tmp_path)
    holder.kill()
    holder.communicate()
    with DirectoryLock(tmp_path) as lock:
        with pytest.raises(DataDirectoryLocked):
            DirectoryLock(tmp_path)
        lock.release()
        DirectoryLock(tmp_path).release()
