"""A full disk: the reserve is given up once, and what failed for want of room is done again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.deletion.job import DeletionQuery
from clearspan.deletion.room import is_disk_full, with_room
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import Overloaded
from clearspan.store.memory import MemoryStore
from clearspan.testing.deletions import World, by_ids, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=False) as made:
        yield made


def full() -> OSError:
    return OSError(errno.ENOSPC, "no space left on device")


def test_a_full_disk_is_known_by_the_error_or_its_cause() -> None:
    wrapped = RuntimeError("the catalog failed")
    wrapped.__cause__ = full()
    for error in (full(), wrapped, RuntimeError("(x) database or disk is full"), OSError(errno.EDQUOT, "quota")):
        assert is_disk_full(error)
    for other in (OSError(errno.EIO, "io"), Overloaded(), ValueError("full of it"), None):
        assert not is_disk_full(other)


@pytest.mark.parametrize(("reserve", "calls"), [(True, 2), (False, 1)])
def test_what_failed_is_done_once_more_if_there_was_a_reserve(
    monkeypatch: pytest.MonkeyPatch, reserve: bool, calls: int
) -> None:
    store, done = MemoryStore(b""), []
    monkeypatch.setattr(store, "make_room", lambda: reserve)

    def act() -> None:
        done.append(1)
        raise full()

    with pytest.raises(OSError, match="no space"):
        with_room(store, act)
    assert len(done) == calls


@pytest.mark.parametrize("method", ["create_deletion", "move_deletion", "drop_shares"])
def test_a_deletion_ends_although_the_catalogs_disk_is_full(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    room = False
    act = getattr(world.catalog, method)

    def on_a_full_disk(*args: Any, **options: Any) -> Any:
        if not room:
            raise full()
        return act(*args, **options)

    def make_room() -> bool:
        nonlocal room
        room, had = True, not room
        return had

    monkeypatch.setattr(world.catalog, method, on_a_full_disk)
    monkeypatch.setattr(world.store, "make_room", make_room)
    deleter = world.deleter()
    deleter.delete(by_ids("t1"))
    for _ in range(3):
        world.clock.advance(1)
        deleter.run_due()
    (job,) = world.catalog.list_deletions(DeletionQuery(1, (1,))).jobs
    assert job.state is DeletionState.VERIFIED


@pytest.mark.parametrize("refused", [False, True])
def test_a_catalog_that_fails_in_the_middle_of_accepting_leaves_nothing_unseen(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """The hide is committed or refused, and then the Catalog cannot be written to for a while."""

    def fail(*_: object, **__: object) -> Any:
        raise OSError(errno.EIO, "input/output error")

    def refuse(*_: object, **__: object) -> Any:
        raise Overloaded

    deleter = world.deleter()
    with monkeypatch.context() as patch:
        patch.setattr(world.catalog, "move_deletion", fail)
        if refused:
            patch.setattr(world.store, "hide", refuse)
        with pytest.raises(OSError, match="input/output"):
            deleter.delete(by_ids("t1"))
        for _ in range(6):
            world.clock.advance(61)
            deleter.run_due()
        assert [why for _, why in deleter.overdue()] == ["no_progress"]
    for _ in range(6):
        world.clock.advance(61)
        deleter.run_due()
    assert deleter.overdue() == []
    (job,) = world.catalog.list_deletions(DeletionQuery(1, (1,))).jobs
    assert job.state is (DeletionState.CANCELLED if refused else DeletionState.VERIFIED)
    assert ("t1" in world.ids_left()) is refused
