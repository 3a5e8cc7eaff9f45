"""Nothing deleted is left in the raw file, whatever the row sizes, page size, order and share of the deletion."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from clearspan.files.pages import scan_database
from clearspan.files.vfs import Checkpointer, create_database, open_database, open_writer

ROWS = 1_000
ROWS_LONG = 5_000
KILLS = 5
KILLS_LONG = 40
NEEDLE = re.compile(rb"N(\d{6})v(\d)N")

SCHEMA = """
CREATE TABLE doc (id INTEGER PRIMARY KEY, owner TEXT, body BLOB, note TEXT);
CREATE INDEX doc_owner ON doc (owner);
CREATE INDEX doc_note ON doc (note, id);
CREATE TABLE part (id INTEGER, place TEXT, body BLOB, PRIMARY KEY (place, id)) WITHOUT ROWID;
CREATE INDEX part_id ON part (id);
"""


def needle(number: int, version: int) -> str:
    return f"N{number:06d}v{version}N"


def text_of(rng: random.Random, number: int, version: int) -> str:
    """20 bytes to 30 KB, the needle repeated all over."""
    size = min(30_000, max(20, int(rng.lognormvariate(5.5, 1.8))))
    return (needle(number, version) + "." * rng.randrange(12)) * (size // 16 + 1)


def stray_needles(path: Path, live: dict[int, int]) -> set[tuple[int, int]]:
    """Needles in the raw file that no live row has."""
    found = {(int(m[1]), int(m[2])) for m in NEEDLE.finditer(path.read_bytes())}
    assert set(live.items()) <= found  # the search itself works
    return found - set(live.items())


class Rows:
    """A store of needles and what must be in it: row number → version."""

    def __init__(self, connection: apsw.Connection, seed: int) -> None:
        self.connection = connection
        self.rng = random.Random(seed)
        self.live: dict[int, int] = {}
        connection.execute(SCHEMA)

    def insert(self, number: int) -> None:
        self.live[number] = 0
        mark = needle(number, 0)
        big = text_of(self.rng, number, 0)
        self.connection.execute("INSERT INTO doc VALUES (?, ?, ?, ?)", (number, mark, big.encode(), mark * 3))
        for _ in range(self.rng.randrange(4)):
            self.late(number)

    def late(self, number: int) -> None:
        version = self.live[number]
        place = f"{self.rng.getrandbits(40):x}{needle(number, version)}"
        body = text_of(self.rng, number, version)[: self.rng.choice((20, 90, 700, 9_000))]
        self.connection.execute("INSERT INTO part VALUES (?, ?, ?)", (number, place, body))

    def update(self, number: int) -> None:
        self.live[number] = version = self.live[number] + 1
        mark = needle(number, version)
        big = text_of(self.rng, number, version)
        self.connection.execute(
            "UPDATE doc SET owner = ?, body = ?, note = ? WHERE id = ?", (mark, big, mark * 2, number)
        )
        self.connection.execute(
            "UPDATE part SET place = place || ?, body = ? WHERE id = ?", (mark, big[:5_000], number)
        )
        self.connection.execute("DELETE FROM part WHERE id = ?", (number,))
        self.late(number)

    def delete(self, number: int) -> None:
        del self.live[number]
        self.connection.execute("DELETE FROM part WHERE id = ?", (number,))
        self.connection.execute("DELETE FROM doc WHERE id = ?", (number,))

    def transaction(self, step: Callable[[int], None], numbers: list[int]) -> None:
        with self.connection:
            for number in numbers:
                step(number)

    def fill(self, rows: int, pause: Callable[[], object]) -> None:
        """Batches with late rows and updates of earlier ones between them."""
        for first in range(0, rows, 50):
            self.transaction(self.insert, list(range(first, min(first + 50, rows))))
            known = list(self.live)
            self.transaction(self.late, self.rng.sample(known, len(known) // 3))
            self.transaction(self.update, [n for n in self.rng.sample(known, len(known) // 5) if self.live[n] < 9])
            pause()


def victims(rows: Rows, order: str, share: float) -> list[int]:
    numbers = sorted(rows.live)
    chosen = rows.rng.sample(numbers, max(1, int(len(numbers) * share)))
    if order == "insertion":
        return sorted(chosen)
    return sorted(chosen, reverse=True) if order == "reverse" else chosen


def erase_and_check(path: Path, page_size: int, order: str, share: float, rows_max: int, seed: int) -> None:
    create_database(path, page_size=page_size)
    checkpointer, writer = Checkpointer(path), open_writer(path)
    rows = Rows(writer, seed)
    rows.fill(rows_max, checkpointer.checkpoint)
    chosen = victims(rows, order, share)
    for first in range(0, len(chosen), 40):
        rows.transaction(rows.delete, chosen[first : first + 40])
    assert checkpointer.checkpoint("truncate") == (False, 0, 0)
    report = scan_database(path)
    assert report.is_clean, report
    assert report.page_size == page_size
    assert stray_needles(path, rows.live) == set()
    assert writer.pragma("integrity_check") == "ok"
    kept = dict(writer.execute("SELECT id, substr(owner, 9, 1) FROM doc"))
    assert {number: int(str(version)) for number, version in kept.items()} == rows.live
    writer.close()
    checkpointer.close()


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_every_page_size_is_clean_after_half_is_deleted(tmp_path: Path, page_size: int) -> None:
    erase_and_check(tmp_path / "a.db", page_size, "random", 0.5, ROWS, seed=page_size)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("order", ["insertion", "reverse", "random"])
def test_every_order_and_share_is_clean(tmp_path: Path, order: str, share: float) -> None:
    erase_and_check(tmp_path / "a.db", 4096, order, share, ROWS, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("page_size", [512, 4096, 8192, 65536])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("order", ["insertion", "reverse", "random"])
def test_large_stores_are_clean(tmp_path: Path, order: str, share: float, page_size: int) -> None:
    erase_and_check(tmp_path / "a.db", page_size, order, share, ROWS_LONG, seed=page_size + 1)


def test_without_the_vfs_residue_is_found(tmp_path: Path) -> None:
    """The control: secure_delete alone leaves needles, and both checks see them."""
    path = tmp_path / "a.db"
    create_database(path, page_size=4096)
    plain = apsw.Connection(str(path), vfs="unix")
    assert plain.pragma("secure_delete", True) == 1
    rows = Rows(plain, seed=2)
    rows.fill(ROWS, lambda: None)
    chosen = victims(rows, "random", 0.5)
    rows.transaction(rows.delete, chosen)
    plain.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    report = scan_database(path)
    assert report.residue.keys() == {"gap"}
    assert not report.malformed_pages
    assert stray_needles(path, rows.live)
    plain.close()


class Store(RuleBasedStateMachine):
    """Any sequence of writes, checkpoints, crashes of the writer and reopenings equals a dict, and is clean."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ["ERASURE_DIR"]) / f"{id(self):x}.db"
        create_database(self.path, page_size=512)
        self.checkpointer, self.writer = Checkpointer(self.path), open_writer(self.path)
        self.rows = Rows(self.writer, seed=len(str(self.path)))
        self.top = 0

    @rule(count=st.integers(1, 30))
    def insert(self, count: int) -> None:
        self.rows.transaction(self.rows.insert, list(range(self.top, self.top + count)))
        self.top += count

    @rule(data=st.data(), step=st.sampled_from(["late", "update", "delete"]))
    def change(self, data: st.DataObject, step: str) -> None:
        numbers = sorted(n for n, version in self.rows.live.items() if version < 9)
        if numbers:
            some = data.draw(st.lists(st.sampled_from(numbers), unique=True))
            self.rows.transaction(getattr(self.rows, step), some)

    @rule(mode=st.sampled_from(["passive", "truncate"]))
    def checkpoint(self, mode: str) -> None:
        assert not self.checkpointer.checkpoint(mode).busy
        if mode == "truncate":
            assert stray_needles(self.path, self.rows.live) == set()
            assert scan_database(self.path).is_clean

    @rule()
    def reopen(self) -> None:
        """The writer is the last to close, so the WAL is left for the next start."""
        self.checkpointer.close()
        self.writer.close()
        self.checkpointer, self.writer = Checkpointer(self.path), open_writer(self.path)
        self.rows.connection = self.writer

    @invariant()
    def content_is_right(self) -> None:
        kept = {int(str(n)): int(str(v)) for n, v in self.writer.execute("SELECT id, substr(owner, 9, 1) FROM doc")}
        assert kept == self.rows.live

    def teardown(self) -> None:
        assert self.writer.pragma("integrity_check") == "ok"
        self.writer.close()
        self.checkpointer.close()
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink()


@pytest.fixture
def machine_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERASURE_DIR", str(tmp_path))


def run_machine(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Store,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.usefixtures("machine_directory")
def test_any_sequence_keeps_content_and_leaves_nothing() -> None:
    run_machine(examples=30, steps=30)


@pytest.mark.long
@pytest.mark.usefixtures("machine_directory")
def test_any_long_sequence_keeps_content_and_leaves_nothing() -> None:
    run_machine(examples=300, steps=60)


# Writes, deletes and check-points for ever; tells after each commit which batch is durable.
CHILD = """
import sys
from pathlib import Path
from clearspan.files.vfs import Checkpointer, open_writer

path, batch = Path(sys.argv[1]), int(sys.argv[2])
checkpointer, writer = Checkpointer(path), open_writer(path)
while True:
    with writer:
        for n in range(batch * 20, batch * 20 + 20):
            writer.execute("INSERT INTO doc VALUES (?, ?, ?, ?)", (n, f"N{n:06d}v0N", f"N{n:06d}v0N" * (n % 700), ""))
        writer.execute("DELETE FROM doc WHERE id < ? AND id % 3", (batch * 20 - 100,))
    print(batch, flush=True)
    checkpointer.checkpoint("truncate" if batch % 5 == 0 else "passive")
    batch += 1
"""


def kill_and_check(path: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    create_database(path, page_size=1024)
    with_schema = open_database(path)
    with_schema.execute(SCHEMA)
    with_schema.close()
    batch = 0
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(batch)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(rng.randrange(2, 12)):
            batch = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        child.stdout.read()
        child.stdout.close()
        child.wait()
        checkpointer, writer = Checkpointer(path), open_writer(path)
        assert writer.pragma("integrity_check") == "ok"
        live = {int(str(n)): 0 for (n,) in writer.execute("SELECT id FROM doc")}
        assert max(live) // 20 >= batch  # what was told is there
        batch = max(live) // 20 + 1
        assert not checkpointer.checkpoint("truncate").busy
        assert scan_database(path).is_clean
        assert stray_needles(path, live) == set()
        writer.close()
        checkpointer.close()


def test_killed_at_any_moment_the_file_is_sound_and_clean(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "a.db", KILLS, seed=3)


@pytest.mark.long
def test_killed_many_times_the_file_is_sound_and_clean(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "a.db", KILLS_LONG, seed=4)
