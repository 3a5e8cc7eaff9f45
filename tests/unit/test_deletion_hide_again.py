"""A hide that fails, and nobody knows why: it is tried again by itself, alarmed meanwhile, and never forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.deletion import accept
from clearspan.deletion.execute import Deleter
from clearspan.deletion.job import DeletionJob, DeletionQuery
from clearspan.deletion.state import DeletionState
from clearspan.deletion.steps import ATTEMPTS_MAX, RETRY_S
from clearspan.model.errors import Conflict
from clearspan.store.port import HideOutcome
from clearspan.testing.deletions import ANNA, World, by_filter, by_ids, open_world

S = DeletionState


class Broken:
    """Stands for the store's `hide`; fails as long as it is told to. Its words hold personal data."""

    def __init__(self, world: World, error: Exception | None = None) -> None:
        self.error = error or OSError("anna's data")
        self.calls = 0
        self._hide = world.store.hide

    def __call__(self, *args: Any, **options: Any) -> HideOutcome:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self._hide(*args, **options)

    def mend(self) -> None:
        self.error = None  # type: ignore[assignment]


@pytest.fixture(params=[False, True], ids=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path, real=request.param) as made:
        yield made


@pytest.fixture
def broken(world: World, monkeypatch: pytest.MonkeyPatch) -> Broken:
    made = Broken(world)
    monkeypatch.setattr(world.store, "hide", made)
    return made


def only_job(world: World) -> DeletionJob:
    (job,) = world.catalog.list_deletions(DeletionQuery(1, (1,))).jobs
    return job


def pass_time(world: World, deleter: Deleter, seconds: float) -> None:
    world.clock.advance(seconds)
    deleter.run_due()


def test_it_is_hidden_by_itself_as_soon_as_it_can_be(world: World, broken: Broken) -> None:
    deleter = world.deleter()
    with pytest.raises(OSError, match="anna"):
        deleter.delete(by_filter(ANNA))
    assert (only_job(world).state, broken.calls) == (S.PLANNED, accept.HIDE_TRIES)
    pass_time(world, deleter, RETRY_S[0])
    assert broken.calls == accept.HIDE_TRIES + 1
    deleter.run_due()
    assert broken.calls == accept.HIDE_TRIES + 1, "not before its time"
    broken.mend()
    pass_time(world, deleter, RETRY_S[1])
    job = only_job(world)
    assert (job.state, job.hidden) == (S.VERIFIED, 8)
    assert world.moves(job.deletion_id) == ["planned", "hidden", "purged", "verified"]
    assert deleter.overdue() == []
    assert deleter.receipt(job.deletion_id)


def test_after_the_usual_attempts_it_is_blocked_alarmed_and_still_tried(
    world: World, broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    deleter = world.deleter()
    with caplog.at_level(logging.WARNING, logger="clearspan"):
        with pytest.raises(OSError, match="anna"):
            deleter.delete(by_ids("t1"))
        for seconds in RETRY_S[:ATTEMPTS_MAX]:
            pass_time(world, deleter, seconds)
        job = only_job(world)
        assert (job.state, job.problem) == (S.BLOCKED, "hide_unconfirmed")
        for _ in range(3):
            calls = broken.calls
            pass_time(world, deleter, RETRY_S[-1])
            assert broken.calls == calls + 1
            assert deleter.overdue() == [(job.deletion_id, "blocked:hide_unconfirmed")]
    assert "OSError" in caplog.text
    assert "anna" not in caplog.text
    assert "t1" in world.ids_left()
    broken.mend()
    deleter.retry(job.deletion_id, by="key_1")  # at once, instead of within the minute
    deleter.run_due()
    assert world.moves(job.deletion_id) == ["planned", "blocked", "hidden", "purged", "verified"]
    assert "t1" not in world.ids_left()
    assert deleter.overdue() == []


def test_a_refusal_at_last_cancels(world: World, broken: Broken) -> None:
    deleter = world.deleter()
    told = deleter.preview(by_ids("t1", "t2"))
    with pytest.raises(OSError, match="anna"):
        deleter.delete_planned(told.token, org_id=1, requested_by="key_1")
    broken.error = Conflict("The planned traces have changed.", code="plan_mismatch")
    pass_time(world, deleter, RETRY_S[0])
    assert (only_job(world).state, only_job(world).problem) == (S.CANCELLED, "plan_mismatch")
    assert deleter.overdue() == []
    assert {"t1", "t2"} <= world.ids_left()


def test_what_is_not_hidden_yet_can_be_called_off(world: World, broken: Broken) -> None:
    deleter = world.deleter()
    with pytest.raises(OSError, match="anna"):
        deleter.delete(by_ids("t1", idempotency_key="once"))
    job = only_job(world)
    for _ in range(2):
        status = deleter.cancel(job.deletion_id, by="key_1", reason="a mistake")
        assert (status.job.state, status.job.problem) == (S.CANCELLED, "cancelled")
    broken.mend()
    for _ in range(3):
        pass_time(world, deleter, 61)
    assert "t1" in world.ids_left()
    assert world.moves(job.deletion_id) == ["planned", "cancelled"]
    assert deleter.delete(by_ids("t1", idempotency_key="once")).state is S.VERIFIED


def test_a_restart_gives_it_up(world: World, broken: Broken) -> None:
    deleter = world.deleter()
    with pytest.raises(OSError, match="anna"):
        deleter.delete(by_ids("t1"))
    for seconds in RETRY_S[:ATTEMPTS_MAX]:
        pass_time(world, deleter, seconds)
    broken.mend()
    world.restarted().run_due()
    assert (only_job(world).state, only_job(world).problem) == (S.CANCELLED, "interrupted_before_hiding")
    assert "t1" in world.ids_left()


def test_plans_that_wait_for_their_hide_do_not_fill_the_memory(
    world: World, broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "KEPT_TRACES_MAX", 3)
    deleter = world.deleter()
    for trace_ids in (("t1", "t2"), ("t3", "t4"), ("t5",)):
        with pytest.raises(OSError, match="anna"):
            deleter.delete(by_ids(*trace_ids))
        world.clock.advance(0.01)
    broken.mend()
    pass_time(world, deleter, 1)
    states = sorted(job.state for job in world.catalog.list_deletions(DeletionQuery(1, (1,))).jobs)
    assert states == [S.CANCELLED, S.VERIFIED, S.VERIFIED]
    assert world.ids_left() == {"t0", "t3", "t4", "t6", "t7"}
