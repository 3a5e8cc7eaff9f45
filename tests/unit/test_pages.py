"""The page parser finds a planted byte wherever nothing may be, and nothing in sound files."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from clearspan.files.pages import ResidueReport, scan_database
from clearspan.files.vfs import open_database
from clearspan.model.errors import StoreDamaged

PAGE = 1024
PLANT = b"PLANTED"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with every kind of page: both trees, interior and leaf, overflow chains and free pages."""
    database = open_database(tmp_path / "a.db", page_size=PAGE)
    database.execute("""
        CREATE TABLE doc (id INTEGER PRIMARY KEY, body BLOB);
        CREATE TABLE part (name TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
    """)
    rng = random.Random(5)
    with database:
        for n in range(400):
            database.execute("INSERT INTO doc VALUES (?, ?)", (n, rng.randbytes(rng.choice((30, 200, 5_000)))))
            database.execute("INSERT INTO part VALUES (?, ?)", (f"{rng.random()}", rng.randbytes(n * 3)))
    database.execute("DELETE FROM doc WHERE id BETWEEN 100 AND 300 OR id % 7 = 0")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()
    return tmp_path / "a.db"


def plant(path: Path, at: int, data: bytes = PLANT) -> ResidueReport:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return scan_database(path)


def page_at(path: Path, number: int) -> bytes:
    return path.read_bytes()[(number - 1) * PAGE : number * PAGE]


def first_page(path: Path, kind: int, *, at_least: int = 40) -> int:
    """The first page of a b-tree type with room in its gap."""
    for number in range(2, path.stat().st_size // PAGE + 1):
        page = page_at(path, number)
        start = (12 if kind in (2, 5) else 8) + 2 * int.from_bytes(page[3:5], "big")
        if page[0] == kind and int.from_bytes(page[5:7], "big") - start >= at_least:
            return number
    raise AssertionError(f"no page of type {kind}")


def test_a_sound_file_is_clean(path: Path) -> None:
    report = scan_database(path)
    assert report.is_clean
    assert report.pages * PAGE == path.stat().st_size
    assert report.wal_bytes == report.journal_bytes == 0


@pytest.mark.parametrize("kind", [2, 5, 10, 13])
def test_a_byte_in_the_gap_is_found(path: Path, kind: int) -> None:
    number = first_page(path, kind)
    content = int.from_bytes(page_at(path, number)[5:7], "big")
    report = plant(path, (number - 1) * PAGE + content - len(PLANT))
    assert report.residue == {"gap": len(PLANT)}
    assert report.residue_pages == [number]
    assert not report.is_clean


def test_a_byte_in_a_free_block_is_found(path: Path) -> None:
    for number in range(2, path.stat().st_size // PAGE + 1):
        page = page_at(path, number)
        start = int.from_bytes(page[1:3], "big")
        if page[0] == 13 and start and int.from_bytes(page[start + 2 : start + 4], "big") >= 12:
            report = plant(path, (number - 1) * PAGE + start + 4)
            assert report.residue == {"free_block": len(PLANT)}
            return
    raise AssertionError("no free block")


def test_a_byte_on_a_free_page_is_found(path: Path) -> None:
    trunk = int.from_bytes(path.read_bytes()[32:36], "big")
    leaf = int.from_bytes(page_at(path, trunk)[8:12], "big")
    assert plant(path, (leaf - 1) * PAGE + 500).residue == {"free_page": len(PLANT)}
    assert plant(path, trunk * PAGE - 8).residue == {"free_page": 2 * len(PLANT)}


def test_old_page_numbers_on_a_trunk_are_no_residue(path: Path) -> None:
    trunk = int.from_bytes(path.read_bytes()[32:36], "big")
    report = plant(path, trunk * PAGE - 8, bytes((0, 0, 0, 7)))
    assert report.is_clean
    assert report.stale_numbers == 1


def overflow_page(path: Path, body: bytes) -> tuple[int, int]:
    """Store `body`; (offset of its last byte in the raw file, end of that page)."""
    database = open_database(path)
    database.execute("INSERT INTO doc VALUES (1000000, ?)", (body,))
    database.close()
    last = path.read_bytes().index(body[-20:]) + 19
    return last, (last // PAGE + 1) * PAGE


def test_a_byte_after_the_end_of_an_overflow_chain_is_found(path: Path) -> None:
    last, end = overflow_page(path, b"x" * 2_888 + bytes(range(1, 201)))
    assert scan_database(path).is_clean
    assert last + 20 < end
    assert plant(path, last + 5).residue == {"overflow_tail": len(PLANT)}


def test_bytes_between_cells_are_found(path: Path) -> None:
    """A cell that a pointer no longer names is a deleted row that was not zeroed."""
    number = first_page(path, 13)
    page = page_at(path, number)
    cells = int.from_bytes(page[3:5], "big")
    pointers = [page[8 + 2 * n : 10 + 2 * n] for n in range(cells)]
    inner = sorted(pointers)[1]
    kept = b"".join(pointer for pointer in pointers if pointer != inner)
    head = page[:3] + (cells - 1).to_bytes(2, "big") + page[5:8] + kept + bytes(2)
    report = plant(path, (number - 1) * PAGE, head)
    assert report.residue.keys() == {"between_cells"}


def test_a_byte_after_the_last_page_is_found(path: Path) -> None:
    assert plant(path, path.stat().st_size).residue == {"beyond_end": len(PLANT)}


def test_a_page_that_belongs_to_nothing_is_found(path: Path) -> None:
    """Unlink the free list: its pages are now lost."""
    report = plant(path, 32, bytes(8))
    assert report.malformed_pages
    before = report.residue["unknown_page"]  # the trunks' page numbers
    leaf = next(n for n in report.malformed_pages if not any(page_at(path, n)))
    assert plant(path, (leaf - 1) * PAGE + 512).residue == {"unknown_page": before + len(PLANT)}


def test_reserved_space_must_be_blank(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = apsw.Connection(str(path))
    database.reserve_bytes("main", 16)
    database.pragma("secure_delete", True)
    database.execute("PRAGMA page_size=1024").fetchall()
    database.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    database.close()
    assert scan_database(path).is_clean
    assert plant(path, 2 * PAGE - 16).residue == {"reserved": len(PLANT)}


def test_a_wal_with_content_is_not_clean(path: Path) -> None:
    database = open_database(path)
    database.execute("INSERT INTO doc VALUES (-1, 'late')")
    report = scan_database(path)
    assert report.wal_bytes > PAGE
    assert not report.is_clean
    database.close()
    assert scan_database(path).is_clean


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5_000])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(StoreDamaged):
        scan_database(tmp_path / "a.db")


def test_damage_does_not_crash_the_scan(path: Path) -> None:
    """Random bytes over random pages: always a report, never an error or an endless loop."""
    rng = random.Random(6)
    sound = path.read_bytes()
    for _ in range(60):
        at = rng.randrange(100, len(sound) - 200)
        report = plant(path, at, rng.randbytes(rng.choice((1, 4, 200))))
        assert report.pages == len(sound) // PAGE
        path.write_bytes(sound)
