"""Jobs: taken by lease, carried on by heartbeats, lost to whoever comes after a lease ran out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.catalog import Catalog, Job, jobs
from clearspan.model.errors import Conflict, NotFound
from clearspan.testing.clock import FixedClock
from clearspan.testing.empty import lay_catalog


class Work:
    """The functions of catalog.jobs, each in a transaction of its own."""

    def __init__(self, catalog: Catalog, clock: FixedClock) -> None:
        self._database = catalog.database
        self._clock = clock

    def create(self, job_id: str, kind: str, body: dict[str, Any], **more: Any) -> Job:
        with self._database.write() as db:
            return jobs.create(db, self._clock.now_ns(), job_id, kind, body, **more)

    def get(self, job_id: str) -> Job:
        with self._database.read() as db:
            return jobs.get(db, job_id)

    def list_(self, **which: Any) -> list[Job]:
        with self._database.read() as db:
            return jobs.list_(db, **which)

    def claim(self, owner: str, *, kind: str | None = None, lease_s: float = jobs.LEASE_S) -> Job | None:
        with self._database.write() as db:
            return jobs.claim(db, self._clock.now_ns(), owner, kind=kind, lease_s=lease_s)

    def advance(self, claimed: Job, **more: Any) -> Job:
        with self._database.write() as db:
            return jobs.advance(db, self._clock.now_ns(), claimed, lease_s=jobs.LEASE_S, **more)

    def finish(self, claimed: Job, state: str, **more: Any) -> Job:
        with self._database.write() as db:
            return jobs.finish(db, self._clock.now_ns(), claimed, state, **more)

    def reopen(self, job_id: str, *, from_state: str) -> bool:
        with self._database.write() as db:
            return jobs.reopen(db, self._clock.now_ns(), job_id, from_state=from_state)

    def release_others(self, owner: str) -> int:
        with self._database.write() as db:
            return jobs.release_others(db, self._clock.now_ns(), owner)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def work(tmp_path: Path, clock: FixedClock) -> Iterator[Work]:
    lay_catalog(tmp_path)
    with Catalog.open(tmp_path, clock=clock) as catalog:
        yield Work(catalog, clock)


def test_a_job_goes_from_ready_to_done(work: Work, clock: FixedClock) -> None:
    made = work.create("del_1", "deletion", {"traces": 3}, org_id=1)
    assert work.create("del_1", "deletion", {"traces": 4}) == made, "creating is safe to repeat"
    claimed = work.claim("me")
    assert claimed is not None
    assert (claimed.state, claimed.attempt, claimed.lease_owner) == ("running", 1, "me")
    assert work.claim("you") is None
    clock.advance(10)
    claimed = work.advance(claimed, cursor="batch-2", counts={"span": 30})
    assert (claimed.cursor, claimed.counts, claimed.heartbeat_at_ns) == ("batch-2", {"span": 30}, clock.now_ns())
    clock.advance(25)
    assert work.claim("you") is None, "the heartbeat prolonged the lease"
    done = work.finish(claimed, "done")
    assert (done.state, done.lease_owner, done.counts) == ("done", None, {"span": 30})
    assert work.get("del_1") == done
    assert work.list_(states=["ready", "running"]) == []


def test_a_lost_lease_is_taken_over_and_the_loser_learns_it(work: Work, clock: FixedClock) -> None:
    work.create("del_1", "deletion", {})
    mine = work.claim("me", lease_s=30)
    assert mine is not None
    clock.advance(30)
    # The same owner's name: only the attempt tells the two claims apart.
    theirs = work.claim("me", lease_s=30)
    assert theirs is not None
    assert theirs.attempt == 2
    for change in (work.advance, lambda job: work.finish(job, "done")):
        with pytest.raises(Conflict) as raised:
            change(mine)
        assert raised.value.code == "lease_lost"
    assert work.get("del_1") == theirs


def test_a_restart_takes_back_what_the_dead_held(work: Work, clock: FixedClock) -> None:
    work.create("del_1", "deletion", {})
    work.claim("before", lease_s=3600)
    clock.jump(-86_400)
    assert work.claim("now") is None
    assert work.release_others("now") == 1
    assert work.claim("now") is not None


def test_a_job_waits_for_its_time(work: Work, clock: FixedClock) -> None:
    work.create("del_1", "deletion", {}, not_before_ns=clock.now_ns() + 5_000_000_000)
    assert work.claim("me") is None
    clock.advance(5)
    again = work.claim("me")
    assert again is not None
    assert again.attempt == 1


def test_an_ended_job_is_opened_again_by_an_act_alone(work: Work, clock: FixedClock) -> None:
    work.create("del_1", "deletion", {})
    claimed = work.claim("me")
    assert claimed is not None
    work.finish(claimed, "failed", error="survivors")
    assert work.claim("me") is None
    assert not work.reopen("del_1", from_state="done")
    assert work.reopen("del_1", from_state="failed")
    again = work.claim("me")
    assert again is not None
    assert (again.error, again.attempt) == (None, 2)


def test_jobs_are_claimed_oldest_first_and_by_kind(work: Work, clock: FixedClock) -> None:
    for name, kind in (("b", "deletion"), ("a", "deletion"), ("c", "export")):
        work.create(name, kind, {})
        clock.advance(1)
    claimed = [work.claim("me", kind="deletion"), work.claim("me"), work.claim("me")]
    assert [job and job.id for job in claimed] == ["b", "a", "c"]
    assert work.claim("me") is None
    with pytest.raises(NotFound):
        work.get("none")
