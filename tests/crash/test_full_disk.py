"""A full disk stops ingest and never a deletion, and nothing is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clearspan.files import disk
from clearspan.files.disk import Reserve, free_bytes, small_disk, used_bytes
from clearspan.model.errors import Overloaded
from clearspan.model.trace import Scope, Window
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.open import SqliteStore, open_store
from clearspan.testing.build import T0_NS, make_trace
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, visible

MIB = 2**20
ONE = Scope((1,))
TRACES = 400


@pytest.fixture
def big() -> Iterator[disk.SmallDisk]:
    """A pretended disk, large at first."""
    with small_disk(1000 * MIB) as made:
        yield made


def open_filled(folder: Path, *, reserve: int = 0, floor: int = 0) -> SqliteStore:
    """A store of TRACES traces whose log is empty."""
    store = open_local_store(folder, TOMBSTONE_SECRET, reserve_bytes=reserve, disk_free_min_bytes=floor)
    for start in range(0, TRACES, 50):
        batches = [make_trace(f"t{n}", span_count=6, text="x" * 300) for n in range(start, start + 50)]
        store.writer.submit(batches, T0_NS).result()
    store.writer.call("empty_log")
    return store


def delete_all(store: SqliteStore) -> None:
    """Every trace, through the whole course of a deletion."""
    deletions = store.deletions
    lines = deletions.plan(ONE, None, Window(), received_before_ns=2**62, limit=10**6)
    assert deletions.hide("del_1", ONE, None, Window(), lines, b"why").hidden == TRACES
    batch_no, more = 0, True
    while more:
        _, more = deletions.purge_batch("del_1", batch_no, rows_max=500)
        batch_no += 1
    deletions.settle("del_1")
    assert not any(deletions.remaining("del_1").values())


def ingest_until_full(store: SqliteStore) -> int:
    """Write small traces until the store refuses; how many it took."""
    for n in range(100_000):
        try:
            store.writer.submit([make_trace(f"more{n}", text="y" * 2000)], T0_NS).result()
        except Overloaded:
            return n
    raise AssertionError("the disk never got full")


@pytest.mark.promise("P5", "F5")
@pytest.mark.parametrize("staged", [False, True])
def test_a_deletion_ends_on_a_full_disk(tmp_path: Path, big: disk.SmallDisk, staged: bool) -> None:
    store = open_filled(tmp_path, reserve=2 * MIB)
    store.deletions.direct_max = 0 if staged else 10**6
    assert (tmp_path / disk.NAME).stat().st_size == 2 * MIB
    big.size = used_bytes(tmp_path)
    assert free_bytes(tmp_path) == 0
    with pytest.raises(Overloaded):
        store.writer.submit([make_trace("late", text="z" * 100_000)], T0_NS).result()
    delete_all(store)
    assert not (tmp_path / disk.NAME).exists()
    assert visible(store.reader, [1]) == {}
    store.close()
    assert fsck.check(tmp_path).violations == []


@pytest.mark.promise("P5", "F5")
def test_without_a_reserve_it_fails_whole_and_goes_on_later(tmp_path: Path, big: disk.SmallDisk) -> None:
    store = open_filled(tmp_path)
    big.size = used_bytes(tmp_path)
    before = visible(store.reader, [1])
    with pytest.raises(Overloaded):
        delete_all(store)
    assert visible(store.reader, [1]) == before
    assert store.deletions.progress("del_1") is None
    big.size += 20 * MIB
    delete_all(store)
    store.close()
    assert fsck.check(tmp_path).violations == []


@pytest.mark.promise("P5", "F5")
def test_ingest_stops_first_and_a_deletion_makes_room(tmp_path: Path, big: disk.SmallDisk) -> None:
    store = open_filled(tmp_path, reserve=MIB, floor=3 * MIB)
    big.size = used_bytes(tmp_path) + 4 * MIB
    assert ingest_until_full(store) > 0
    assert 2 * MIB < free_bytes(tmp_path) < 3 * MIB
    kept = len(visible(store.reader, [1]))
    lines = store.deletions.plan(ONE, None, Window(), received_before_ns=2**62, limit=10**6)
    assert store.deletions.hide("del_1", ONE, None, Window(), lines[:TRACES], b"why").hidden == TRACES
    batch_no, more = 0, True
    while more:
        _, more = store.deletions.purge_batch("del_1", batch_no, rows_max=500)
        batch_no += 1
    store.deletions.settle("del_1")
    assert len(visible(store.reader, [1])) == kept - TRACES
    store.close()
    assert fsck.check(tmp_path).violations == []


def test_a_store_can_be_opened_on_a_full_disk(tmp_path: Path, big: disk.SmallDisk) -> None:
    open_filled(tmp_path, reserve=MIB).close()
    big.size = used_bytes(tmp_path)
    store = open_local_store(tmp_path, TOMBSTONE_SECRET, reserve_bytes=MIB)
    assert (tmp_path / disk.NAME).exists()
    delete_all(store)
    store.close()
    assert fsck.check(tmp_path).violations == []


def test_the_reserve_is_made_again_when_there_is_room(tmp_path: Path, big: disk.SmallDisk) -> None:
    reserve = Reserve(tmp_path, MIB, floor=MIB)
    assert reserve.keep()
    assert reserve.keep()
    assert reserve.give_up()
    assert not reserve.give_up()
    big.size = 2 * MIB - 1
    assert not reserve.keep()
    assert not reserve.exists
    big.size = 2 * MIB
    assert reserve.keep()
    assert not Reserve(tmp_path, 0, floor=0).keep()  # a setting of 0 removes it
    assert not reserve.exists


def test_the_writer_keeps_a_reserve_without_being_asked(tmp_path: Path, big: disk.SmallDisk) -> None:
    store = open_filled(tmp_path, reserve=MIB)
    assert store.deletions.make_room()
    assert not store.deletions.make_room()
    store.writer.call("work_when_idle")
    assert (tmp_path / disk.NAME).exists()
    store.close()
    del big


@pytest.mark.promise("P5", "F5")
def test_the_writer_process_lives_through_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a process of its own, started on a small disk: it refuses, deletes, and takes writes again."""
    monkeypatch.setenv(disk.VARIABLE, str(12 * MIB))
    store = open_store(tmp_path, TOMBSTONE_SECRET, reserve_bytes=2 * MIB, disk_free_min_bytes=3 * MIB)
    pid = store.writer.pid
    taken = ingest_until_full(store)
    lines = store.deletions.plan(ONE, None, Window(), received_before_ns=2**62, limit=10**6)
    assert len(lines) == taken
    assert store.deletions.hide("del_1", ONE, None, Window(), lines, b"why").hidden == taken
    batch_no, more = 0, True
    while more:
        _, more = store.deletions.purge_batch("del_1", batch_no, rows_max=500)
        batch_no += 1
    store.deletions.settle("del_1")
    assert not any(store.deletions.remaining("del_1").values())
    assert (store.writer.pid, store.writer.restarts) == (pid, 0)
    store.close()
    assert fsck.check(tmp_path).violations == []
