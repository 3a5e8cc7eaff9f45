"""How far a deletion has come, how long it may take, and who is alarmed when it does not go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from clearspan.catalog import tables
from clearspan.catalog.bodies import parse_body, render_body
from clearspan.deletion import records
from clearspan.deletion.execute import Deleter
from clearspan.deletion.job import JOB_VERSION, DeletionQuery
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import BATCH_S, LOG_PATIENCE_S, ROWS_MAX, next_rows
from clearspan.deletion.watch import AGE_S, why_overdue
from clearspan.deletion.worker import Task
from clearspan.model.clock import SystemClock
from clearspan.model.errors import Conflict, InvalidPage, NotFound, Overloaded
from clearspan.model.trace import Scope
from clearspan.proof.manifest import parse_claim, render_claim
from clearspan.proof.receipt import check_receipt
from clearspan.testing.deletions import ANNA, SECRET, World, by_filter, by_ids, hold_on, open_world

S = DeletionState


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=True) as made:
        yield made


def query(**fields: Any) -> DeletionQuery:
    return DeletionQuery(1, (1, 2))._replace(**fields)


# -- progress -----------------------------------------------------------------------------------------------------


def test_progress_only_grows_and_is_whole_at_the_end(world: World) -> None:
    deleter = world.deleter(rows_max=1)
    result = deleter.delete(by_filter(ANNA), wait_s=0)
    seen = [deleter.status(result.deletion_id).fraction]
    assert deleter.status(result.deletion_id).eta_s(world.clock.now_ns()) is None
    for _ in range(7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deleter._worker, "_keep_house", lambda: None)
            task = deleter._worker._next_due()
            assert task is not None
            world.clock.advance(1)
            deleter._worker._step(task)
        status = deleter.status(result.deletion_id)
        seen.append(status.fraction)
        assert status.eta_s(world.clock.now_ns()) == pytest.approx(8 - len(seen) + 1, abs=1.01)
    assert seen == sorted(seen)
    assert 0 < seen[1] < seen[-1] < 1
    deleter.run_due()
    status = deleter.status(result.deletion_id)
    assert (status.fraction, status.eta_s(world.clock.now_ns())) == (1.0, 0.0)


def test_a_watcher_is_told_of_each_change(world: World) -> None:
    deleter = Deleter(world.store, world.catalog, SystemClock(), world.ids, secret=SECRET, rows_max=5)
    result = deleter.delete(by_filter(ANNA), wait_s=0)
    seen: list[tuple[int, int]] = []

    def watch() -> None:
        status = deleter.wait_change(result.deletion_id, None, 60)
        while status.job.state is not S.VERIFIED:
            seen.append(status.seen)
            status = deleter.wait_change(result.deletion_id, status.seen, 60)
        seen.append(status.seen)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    deleter.start()
    watcher.join(60)
    deleter.close()
    assert not watcher.is_alive()
    assert seen == sorted(set(seen))
    assert seen[-1][0] == 3
    assert deleter.wait_change(result.deletion_id, seen[-1], 0).seen == seen[-1]
    with pytest.raises(NotFound):
        deleter.wait_change("del_unknown", None, 0)


# -- lists --------------------------------------------------------------------------------------------------------


def test_lists_filter_and_page_newest_first(world: World) -> None:
    deleter = world.deleter()
    made = []
    for n in range(7):
        made.append(deleter.delete(replace(by_ids(f"t{n}"), requested_by=f"key_{n % 2}")).deletion_id)
        world.clock.advance(n % 2)  # some share their time
    waiting = deleter.delete(by_ids("t7", not_before_ns=world.clock.now_ns() + 10**12)).deletion_id
    elsewhere = deleter.delete(replace(by_ids("t1"), scope=Scope((3,)))).deletion_id
    foreign = deleter.delete(replace(by_ids("t1"), org_id=2)).deletion_id

    def ids(**fields: Any) -> list[str]:
        found, asked = [], query(**{"limit": 3, **fields})
        while True:
            page = deleter.list_deletions(asked)
            assert len(page.jobs) <= asked.limit
            found += [job.deletion_id for job in page.jobs]
            if page.next_cursor is None:
                return found
            asked = asked._replace(after=page.next_cursor)

    everything = ids()
    assert set(everything) == {*made, waiting}
    assert len(everything) == 8
    times = [world.job(each).created_ns for each in everything]
    assert times == sorted(times, reverse=True)
    assert ids(states=(S.HIDDEN,)) == [waiting]
    assert len(ids(states=(S.VERIFIED,))) == 7
    assert set(ids(requested_by="key_0")) == set(made[::2])
    assert ids(project_ids=(1, 2, 3), project_id=3) == [elsewhere]
    assert ids(project_ids=(2,)) == []
    assert deleter.list_deletions(DeletionQuery(2, (1,))).jobs[0].deletion_id == foreign
    cut = world.job(made[4]).created_ns
    assert set(ids(start_ns=cut)) | set(ids(end_ns=cut)) == set(everything)
    assert not set(ids(start_ns=cut)) & set(ids(end_ns=cut))
    for odd in ("x", "12", "12.", ".x", "1" * 30 + ".x", "٣.x"):
        with pytest.raises(InvalidPage):
            deleter.list_deletions(query(after=odd))


# -- alarms -------------------------------------------------------------------------------------------------------


def test_what_does_not_go_on_is_said_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("anna's data")

    deleter = world.deleter()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="clearspan"):
        patch.setattr(world.store, "purge_batch", fail)
        result = deleter.delete(by_ids("t1"), wait_s=0)
        for _ in range(8):
            deleter.run_due()
            world.clock.advance(61)
        assert deleter.overdue() == [(result.deletion_id, "blocked:OSError")]
    overdue = [record.message for record in caplog.records if "is overdue" in record.message]
    assert [each for each in overdue if "blocked" in each] == [
        f"deletion {result.deletion_id} is overdue: blocked:OSError"
    ]
    assert "anna" not in caplog.text
    deleter.run_due()
    assert deleter.overdue() == []


def test_reasons_of_being_overdue(world: World) -> None:
    deleter = world.deleter()
    result = deleter.delete(by_filter(ANNA), wait_s=0)
    job = world.job(result.deletion_id)
    now_ns = world.clock.now_ns()

    def why(seconds: float, *, moved_s: float | None = None, waiting: bool = False, **changes: object) -> str | None:
        task = Task(replace(job, **changes), moved_s=moved_s, is_waiting=waiting)  # type: ignore[arg-type]
        return why_overdue(task, now_ns + round(seconds * 1e9), seconds)

    assert why(59, moved_s=0.0) is None
    assert why(61, moved_s=0.0) == "no_progress"
    assert why(61, moved_s=0.0, waiting=True) is None
    assert why(AGE_S, moved_s=AGE_S) is None
    assert why(AGE_S + 1, moved_s=AGE_S + 1) == "too_old"
    assert why(AGE_S + 1, moved_s=AGE_S + 1, planned={"span": 2_000}) is None
    assert why(AGE_S + 1, moved_s=AGE_S + 1, not_before_ns=now_ns + 10**10) is None
    assert why(1, state=S.BLOCKED, problem="uncounted:span") == "blocked:uncounted:span"
    assert why(1, state=S.BLOCKED, problem="held", waiting=True) is None
    assert why(10**6, state=S.VERIFIED) is None
    failing = Task(replace(job, state=S.BLOCKED, problem="held"), attempts=3)
    assert why_overdue(failing, now_ns, 0.0) == "held_remainder_failing"


def test_a_long_reader_holds_up_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settle = world.store.settle
    slow = ""

    def settle_but_one(deletion_id: str) -> None:
        settle(deletion_id)
        if deletion_id == slow:
            raise Overloaded("a reader")

    monkeypatch.setattr(world.store, "settle", settle_but_one)
    deleter = world.deleter()
    first = deleter.delete(by_ids("t1"), wait_s=0)
    slow = first.deletion_id
    deleter.run_due()
    assert deleter.delete(by_ids("t2")).state is S.VERIFIED
    for _ in range(int(LOG_PATIENCE_S) - 1):
        world.clock.advance(1)
        deleter.run_due()
    assert world.moves(slow) == ["planned", "hidden"], "so long it is not even a failure"
    slow = ""
    world.clock.advance(1)
    deleter.run_due()
    assert world.job(first.deletion_id).state is S.VERIFIED


def test_batches_keep_to_their_time() -> None:
    assert next_rows(2000, BATCH_S, most=ROWS_MAX) == 2000
    assert next_rows(2000, 2 * BATCH_S, most=ROWS_MAX) == 1000
    assert next_rows(2000, 100.0, most=ROWS_MAX) == 500
    assert next_rows(60, 100.0, most=ROWS_MAX) == 50
    assert next_rows(500, BATCH_S / 10, most=ROWS_MAX) == 1000
    assert next_rows(10, 100.0, most=10) == 10
    assert next_rows(10, 0.0, most=ROWS_MAX) == ROWS_MAX


def test_waiting_ingest_gets_air_between_batches(world: World) -> None:
    deleter = world.deleter(rows_max=1, is_ingest_waiting=lambda: True)
    purge = world.store.purge_batch

    def take_time(*args: object, **options: object) -> object:
        world.clock.advance(0.04)
        return purge(*args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "purge_batch", take_time)
        result = deleter.delete(by_ids("t1", "t2", "t3"), wait_s=0)
        deleter.run_due()
        progress = world.store.progress(result.deletion_id)
        assert progress is not None
        assert progress.batches == 1, "the next one is not due yet"
        for _ in range(4):
            world.clock.advance(0.03)
            deleter.run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


# -- versions -----------------------------------------------------------------------------------------------------


def test_a_deletion_of_a_newer_program_is_left_alone_and_alarmed(world: World) -> None:
    assert world.real is not None
    result = world.deleter().delete(by_ids("t1"), wait_s=0)
    with world.real.database.write() as db:
        body = parse_body(db.execute(tables.job.select()).first().body)  # type: ignore[union-attr]
        newer = render_body({**body, "version": JOB_VERSION + 1})
        db.execute(update(tables.job).values(body=newer))
    deleter = world.restarted()
    deleter.run_due()
    assert deleter.overdue() == [(result.deletion_id, "newer_version")]
    with pytest.raises(Conflict) as caught:
        deleter.status(result.deletion_id)
    assert caught.value.code == "newer_version"
    assert deleter.list_deletions(query()).jobs == []
    assert deleter.delete(by_ids("t2")).state is S.VERIFIED


def test_a_state_of_a_newer_program_is_left_alone_too(world: World) -> None:
    assert world.real is not None
    result = world.deleter().delete(by_ids("t1"), wait_s=0)
    with world.real.database.write() as db:
        db.execute(update(tables.job).values(cursor="awaiting_approval"))
    assert world.restarted().overdue() == [(result.deletion_id, "newer_version")]


def test_a_deletion_of_the_first_version_is_carried_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row knows nothing of holds, children and times to wait for, and its ledger rows neither."""
    new = {"parent_id", "not_before_ns", "version", "held", "child_id"}
    with monkeypatch.context() as patch:
        for name in ("_FIXED", "_MOVING"):
            patch.setattr(records, name, tuple(each for each in getattr(records, name) if each not in new))
        result = world.deleter().delete(by_ids("t1"), wait_s=0)
    job = world.job(result.deletion_id)
    assert (job.version, job.state, job.held) == (1, S.HIDDEN, 0)
    world.restarted().run_due()
    assert world.job(result.deletion_id).state is S.VERIFIED


# -- proofs of membership -----------------------------------------------------------------------------------------


def test_who_was_deleted_can_be_shown_of_one_at_a_time(world: World) -> None:
    assert world.real is not None
    deleter = world.deleter()
    world.holds(deleter).create(hold_on("t4"))
    result = deleter.delete(by_ids("t1", "t2", "t3", "t4"), wait_s=0)
    with pytest.raises(NotFound):
        deleter.membership(result.deletion_id, 1, "t1")
    deleter.run_due()
    claim = deleter.membership(result.deletion_id, 1, "t1")
    assert claim is not None
    assert deleter.membership(result.deletion_id, 1, "t4") is None, "it was held"
    assert deleter.membership(result.deletion_id, 1, "t5") is None
    keys = [key.key for key in world.real.signing_keys()]
    found = check_receipt(deleter.receipt(result.deletion_id), keys, member=render_claim(claim))
    assert found.ok, found
    assert parse_claim(render_claim(claim)) == claim
    assert "t2" not in str(render_claim(claim))
