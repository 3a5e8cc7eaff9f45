"""Holds: what they keep is theirs; each is in the ledger once, without a word of why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clearspan import faults
from clearspan.deletion.request import ByFilter, ByIds
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import InvalidFilter, NotFound
from clearspan.query.ast import Group
from clearspan.testing.build import T0_NS, make_trace
from clearspan.testing.deletions import ANNA, World, by_filter, by_ids, hold_on, open_world

S = DeletionState


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param) as made:
        yield made


def test_a_hold_is_recorded_without_what_it_says(world: World) -> None:
    holds = world.holds(world.deleter())
    hold, _ = holds.create(hold_on("t1", reason="anna sues us"))
    assert holds.list_holds(org_id=1) == [hold]
    assert holds.list_holds(org_id=2) == []
    (event,) = world.events("hold.created")
    assert (event["by"], event["project_ids"], event["selection"]) == ("key_2", [1], "ids")
    assert len(str(event["scope_hash"])) == len(str(event["private_hash"])) == 64
    assert world.store.get_note(str(event["private_ref"])) is not None
    holds.release(hold.hold_id, org_id=1, by="key_3", reason="anna gave up")
    assert world.store.get_note(str(event["private_ref"])) is None
    released = holds.get(hold.hold_id, org_id=1)
    assert released.released_ns == world.clock.now_ns()
    assert (released.reason, released.trace_ids) == (None, None), "its words are erased"
    (event,) = world.events("hold.released")
    assert event["by"] == "key_3"
    assert not any("anna" in str(each) for kind in ("hold.created", "hold.released") for each in world.events(kind))
    holds.release(hold.hold_id, org_id=1, by="key_3")
    assert len(world.events("hold.released")) == 1
    assert holds.list_holds(org_id=1) == []
    assert [each.hold_id for each in holds.list_holds(org_id=1, released=True)] == [hold.hold_id]


def test_a_hold_belongs_to_its_organisation(world: World) -> None:
    holds = world.holds(world.deleter())
    hold, _ = holds.create(hold_on("t1"))
    with pytest.raises(NotFound):
        holds.release(hold.hold_id, org_id=2, by="key_9")
    with pytest.raises(NotFound):
        holds.get("hold_unknown", org_id=1)
    assert world.deleter().delete(by_ids("t1")).held == 1


def test_a_hold_covers_what_comes_to_match_it(world: World) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    holds.create(replace(hold_on("x"), selection=ByFilter(ANNA)))
    holds.create(hold_on("new"))
    world.store.write([make_trace("new")], received_ns=T0_NS)
    result = deleter.delete(by_ids("new", "t1"))
    assert (result.hidden, result.held) == (0, 2)


def test_a_hold_without_a_filter_keeps_everything(world: World) -> None:
    deleter = world.deleter()
    world.holds(deleter).create(replace(hold_on("x"), selection=ByFilter(None)))
    assert deleter.delete(by_filter(ANNA)).held == 8
    assert world.events("hold.created")[0]["selection"] == "all"


@pytest.mark.parametrize(
    "selection", [ByIds(()), ByFilter(Group("AND", ())), ByFilter(Group("OR", (Group("AND", ()),)))]
)
def test_a_hold_that_says_nothing_is_refused(world: World, selection: ByFilter | ByIds) -> None:
    holds = world.holds(world.deleter())
    with pytest.raises(InvalidFilter, match="nothing is held"):
        holds.create(replace(hold_on("x"), selection=selection))
    assert holds.list_holds(org_id=1) == []


@pytest.mark.parametrize("point", ["hold.before_add", "hold.after_add"])
def test_a_hold_that_was_set_is_in_the_ledger_after_a_crash(world: World, point: str) -> None:
    holds = world.holds(world.deleter())
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        holds.create(hold_on("t1", reason="r"))
    for _ in range(2):
        deleter = world.restarted()
    was_set = point == "hold.after_add"
    assert len(world.events("hold.created")) == was_set
    assert deleter.delete(by_ids("t1")).held == was_set


@pytest.mark.parametrize("point", ["hold.before_release", "hold.after_release"])
def test_a_release_is_in_the_ledger_and_wakes_what_waits_after_a_crash(world: World, point: str) -> None:
    deleter = world.deleter()
    hold, _ = world.holds(deleter).create(hold_on("t1"))
    child_id = deleter.delete(by_ids("t1")).child_id
    assert child_id is not None
    with faults.armed(f"{point}:1:crash"), pytest.raises(faults.Crash):
        world.holds(deleter).release(hold.hold_id, org_id=1, by="key_3", reason="r")
    deleter = world.restarted()
    deleter.run_due()
    released = point == "hold.after_release"
    assert len(world.events("hold.released")) == released
    assert world.job(child_id).state is (S.VERIFIED if released else S.BLOCKED)
    if released:
        assert world.events("hold.released")[0]["private_hash"] is not None
        assert world.store.get_note(f"{hold.hold_id}.hold.created") is None


def failing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No audit row can be written until the patch is undone."""

    def fail(*_: object) -> int:
        raise OSError("the disk of the Catalog")

    monkeypatch.setattr(world.catalog, "record_event", fail)


def test_a_hold_whose_row_could_not_be_written_gets_it_while_the_server_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    failing(world, monkeypatch)
    with pytest.raises(OSError, match="Catalog"):
        holds.create(hold_on("t1", reason="r"))
    assert deleter.delete(by_ids("t1")).held == 1, "it counts all the same"
    world.clock.advance(61)
    deleter.run_due()
    assert world.events("hold.created") == [], "not yet"
    monkeypatch.undo()
    world.clock.advance(61)
    deleter.run_due()
    (body,) = world.events("hold.created")
    assert body["private_hash"] is not None


def test_a_release_whose_row_could_not_be_written_gets_it_and_wakes_what_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleter = world.deleter()
    holds = world.holds(deleter)
    hold, _ = holds.create(hold_on("t1", reason="r"))
    child_id = deleter.delete(by_ids("t1")).child_id
    assert child_id is not None
    failing(world, monkeypatch)
    with pytest.raises(OSError, match="Catalog"):
        holds.release(hold.hold_id, org_id=1, by="key_3", reason="r")
    monkeypatch.undo()
    world.clock.advance(61)
    deleter.run_due()
    assert len(world.events("hold.released")) == 1
    assert world.store.get_note(f"{hold.hold_id}.hold.created") is None
    assert world.job(child_id).state is S.VERIFIED
