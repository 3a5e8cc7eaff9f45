"""Public shares. Their key is a keyed hash of the trace's id, so that a share says nothing once its trace is gone."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from clearspan.catalog.projects import ProjectState
from clearspan.catalog.tables import organisation, project, share
from clearspan.model.errors import NotFound

_CHUNK = 1_000  # bound values in one statement, of which SQLite takes 32,766


class Share(NamedTuple):
    """One trace that everybody with the link may read."""

    project_id: int
    visible_fields: tuple[str, ...]  # shown beyond the plain view: customer, session, metadata …


def share_key(secret: bytes, trace_id: str) -> bytes:
    """HMAC-SHA-256 of a trace id.

    Args:
        secret: the instance's 32 bytes; the leading word keeps these hashes apart from the tombstones'.
        trace_id: in normal form.
    """
    return hmac.digest(secret, b"share\0" + trace_id.encode("utf-8", "surrogatepass"), "sha256")


def set_share(
    db: Connection,
    secret: bytes,
    now_ns: int,
    org_id: int,
    project_id: int,
    trace_id: str,
    *,
    public: bool,
    fields: Sequence[str] = (),
) -> None:
    """Make a trace public, with these fields and no others, or private. Raises NotFound for a foreign project."""
    owner = db.execute(select(project.c.org_id).where(project.c.id == project_id)).scalar()
    if owner != org_id:
        raise NotFound
    key = share_key(secret, trace_id)
    db.execute(delete(share).where(share.c.trace_key == key, share.c.project_id == project_id))
    if public:
        db.execute(
            insert(share).values(
                trace_key=key,
                project_id=project_id,
                visible_fields=orjson.dumps(sorted(set(fields))).decode(),
                created_at_ns=now_ns,
            )
        )


def find_share(db: Connection, secret: bytes, org_public_id: str, trace_id: str) -> list[Share]:
    """The public copies of a trace id in an organisation, by project; empty when there are none."""
    rows = db.execute(
        select(share.c.project_id, share.c.visible_fields)
        .join(project, project.c.id == share.c.project_id)
        .join(organisation, organisation.c.id == project.c.org_id)
        .where(
            share.c.trace_key == share_key(secret, trace_id),
            organisation.c.public_id == org_public_id,
            project.c.state == ProjectState.LIVE,
        )
        .order_by(share.c.project_id)
    )
    return [Share(row.project_id, tuple(orjson.loads(row.visible_fields))) for row in rows]


def drop_shares(db: Connection, secret: bytes, traces: Sequence[tuple[int, str]]) -> int:
    """Remove the shares of (project_id, trace_id) pairs; how many there were. Safe to repeat."""
    return sum(db.execute(delete(share).where(which)).rowcount for which in _chunks(secret, traces))


def move_shares(
    db: Connection, secret: bytes, from_project_id: int, trace_ids: Sequence[str], to_project_id: int
) -> int:
    """Let the shares of traces that moved name their new project; how many there were. Safe to repeat."""
    there = _chunks(secret, [(to_project_id, trace_id) for trace_id in trace_ids])
    moved = 0
    for here, stale in zip(_chunks(secret, [(from_project_id, each) for each in trace_ids]), there, strict=True):
        keys = select(share.c.trace_key).where(here).scalar_subquery()
        db.execute(delete(share).where(stale, share.c.trace_key.in_(keys)))  # of a trace that is there no more
        moved += db.execute(update(share).where(here).values(project_id=to_project_id)).rowcount
    return moved


def count_shares(db: Connection, secret: bytes, traces: Sequence[tuple[int, str]]) -> int:
    """How many of (project_id, trace_id) pairs are shared: what a verifier asks after drop_shares."""
    query = select(func.count()).select_from(share)
    return sum(db.execute(query.where(which)).scalar_one() for which in _chunks(secret, traces))


def _chunks(secret: bytes, traces: Sequence[tuple[int, str]]) -> Iterator[ColumnElement[bool]]:
    keys: dict[int, list[bytes]] = {}
    for project_id, trace_id in traces:
        keys.setdefault(project_id, []).append(share_key(secret, trace_id))
    for project_id, all_keys in keys.items():
        for start in range(0, len(all_keys), _CHUNK):
            yield and_(share.c.project_id == project_id, share.c.trace_key.in_(all_keys[start : start + _CHUNK]))
