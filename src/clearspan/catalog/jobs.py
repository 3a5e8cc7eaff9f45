"""Jobs that survive a crash: a row each, taken by lease.

    ready ──claim──► running ──finish──► done | failed | cancelled ──reopen──► ready (an explicit act)
                 (a lease that ran out, or whose owner is known to be dead, is claimed anew)

A worker that lost its lease learns it at its next `advance`, which then changes nothing: `attempt` is the fencing
token. Steps are safe to repeat, so a lease that a jump of the clock ended too early costs work, not correctness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from clearspan.catalog.bodies import parse_body, render_body
from clearspan.catalog.tables import job
from clearspan.model.errors import Conflict, NotFound

LEASE_S = 30.0
FINAL_STATES = ("done", "failed", "cancelled")


class Job(NamedTuple):
    """One job as it stands."""

    id: str
    org_id: int | None
    kind: str
    state: str
    body: dict[str, Any]
    cursor: str | None  # how far it got, in the worker's own words
    counts: dict[str, int]
    error: str | None  # a code, when failed
    attempt: int  # how often it was claimed
    not_before_ns: int
    lease_owner: str | None
    lease_until_ns: int | None
    heartbeat_at_ns: int | None
    created_at_ns: int
    updated_at_ns: int


_JOB = select(*(job.c[name] for name in Job._fields))


def create(
    db: Connection,
    now_ns: int,
    job_id: str,
    kind: str,
    body: Mapping[str, Any],
    *,
    org_id: int | None = None,
    not_before_ns: int = 0,
) -> Job:
    """Add a ready job; one that exists under this id is returned as it is, so that creating is safe to repeat."""
    found = db.execute(_JOB.where(job.c.id == job_id)).first()
    if found is not None:
        return _job(found)
    values = dict(
        id=job_id,
        org_id=org_id,
        kind=kind,
        state="ready",
        body=render_body(body),
        counts="{}",
        attempt=0,
        not_before_ns=not_before_ns,
        created_at_ns=now_ns,
        updated_at_ns=now_ns,
    )
    db.execute(insert(job).values(values))
    return get(db, job_id)


def get(db: Connection, job_id: str) -> Job:
    """The job. Raises NotFound."""
    row = db.execute(_JOB.where(job.c.id == job_id)).first()
    if row is None:
        raise NotFound
    return _job(row)


def list_(
    db: Connection, *, states: Sequence[str] = (), kind: str | None = None, org_id: int | None = None, limit: int = 1000
) -> list[Job]:
    """Jobs, oldest first."""
    query = _JOB.order_by(job.c.created_at_ns, job.c.id).limit(limit)
    if states:
        query = query.where(job.c.state.in_(states))
    if kind is not None:
        query = query.where(job.c.kind == kind)
    if org_id is not None:
        query = query.where(job.c.org_id == org_id)
    return [_job(row) for row in db.execute(query)]


def claim(
    db: Connection, now_ns: int, owner: str, *, kind: str | None = None, job_id: str | None = None, lease_s: float
) -> Job | None:
    """Take the oldest job that is due and not leased by another; None when there is none."""
    free = or_(job.c.state == "ready", and_(job.c.state == "running", job.c.lease_until_ns <= now_ns))
    query = select(job.c.id).where(free, job.c.not_before_ns <= now_ns)
    if kind is not None:
        query = query.where(job.c.kind == kind)
    if job_id is not None:
        query = query.where(job.c.id == job_id)
    found = db.execute(query.order_by(job.c.created_at_ns, job.c.id).limit(1)).scalar()
    if found is None:
        return None
    db.execute(
        update(job)
        .where(job.c.id == found)
        .values(
            state="running",
            attempt=job.c.attempt + 1,
            lease_owner=owner,
            lease_until_ns=now_ns + round(lease_s * 1e9),
            heartbeat_at_ns=now_ns,
            updated_at_ns=now_ns,
        )
    )
    return get(db, found)


def advance(
    db: Connection,
    now_ns: int,
    claimed: Job,
    *,
    lease_s: float,
    cursor: str | None = None,
    counts: Mapping[str, int] | None = None,
) -> Job:
    """Heartbeat: prolong the lease and record how far the job is; what is not given stays as it was.

    Raises:
        Conflict: the lease was lost; stop working.
    """
    values: dict[str, Any] = {
        "lease_until_ns": now_ns + round(lease_s * 1e9),
        "heartbeat_at_ns": now_ns,
        "updated_at_ns": now_ns,
    }
    if cursor is not None:
        values["cursor"] = cursor
    if counts is not None:
        values["counts"] = render_body(counts)
    return _change(db, claimed, values)


def finish(
    db: Connection,
    now_ns: int,
    claimed: Job,
    state: str,
    *,
    error: str | None = None,
    counts: Mapping[str, int] | None = None,
) -> Job:
    """End a job for good in one of FINAL_STATES. Raises Conflict when the lease was lost."""
    assert state in FINAL_STATES, "a job ends in a final state"
    values: dict[str, Any] = {
        "state": state,
        "error": error,
        "lease_owner": None,
        "lease_until_ns": None,
        "updated_at_ns": now_ns,
    }
    if counts is not None:
        values["counts"] = render_body(counts)
    return _change(db, claimed, values)


def reopen(db: Connection, now_ns: int, job_id: str, *, from_state: str) -> bool:
    """Make an ended job ready again, by somebody's explicit act; False when it is not in that state."""
    return bool(
        db.execute(
            update(job)
            .where(job.c.id == job_id, job.c.state == from_state)
            .values(
                state="ready", error=None, not_before_ns=0, lease_owner=None, lease_until_ns=None, updated_at_ns=now_ns
            )
        ).rowcount
    )


def release_others(db: Connection, now_ns: int, owner: str) -> int:
    """At a start: give back the jobs of every other owner; how many.

    The lock on the data directory says that those owners are dead, so nobody has to wait for their leases.
    """
    return db.execute(
        update(job)
        .where(job.c.state == "running", job.c.lease_owner != owner)
        .values(state="ready", lease_owner=None, lease_until_ns=None, updated_at_ns=now_ns)
    ).rowcount


def _change(db: Connection, claimed: Job, values: dict[str, Any]) -> Job:
    if db.execute(update(job).where(_held(claimed)).values(values)).rowcount != 1:
        raise Conflict("The lease of this job was lost.", code="lease_lost")
    return get(db, claimed.id)


def _held(claimed: Job) -> ColumnElement[bool]:
    return and_(
        job.c.id == claimed.id,
        job.c.state == "running",
        job.c.lease_owner == claimed.lease_owner,
        job.c.attempt == claimed.attempt,
    )


def _job(row: Any) -> Job:
    found = Job(*row)
    return found._replace(body=parse_body(row.body), counts=parse_body(row.counts))
