"""Lists of deletions, newest first, filtered by what the Catalog knows of them; pages by position, not by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select

from clearspan.catalog.bodies import parse_body
from clearspan.catalog.jobs import Job
from clearspan.catalog.tables import job
from clearspan.deletion.job import DeletionQuery
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import InvalidPage

_CHUNK: Final = 200
_ENDED: Final = {
    "done": DeletionState.VERIFIED.value,
    "failed": DeletionState.FAILED.value,
    "cancelled": DeletionState.CANCELLED.value,
}


def page(
    db: Connection, kind: str, query: DeletionQuery, *, is_readable: Callable[[Job], bool]
) -> tuple[list[Job], str | None]:
    """The rows of one page, and the cursor of the next one.

    Cost: 20 µs for each deletion that is looked at and not shown, 0.2 ms for each that is.
    """
    found: list[Job] = []
    for row in _newest_first(db, kind, query):
        if not is_readable(row) or not _is_meant(row, query):
            continue
        if len(found) == query.limit:
            return found, render_cursor(found[-1])
        found.append(row)
    return found, None


def render_cursor(row: Job) -> str:
    """Where a page ended."""
    return f"{row.created_at_ns}.{row.id}"


def parse_cursor(text: str) -> tuple[int, str]:
    """(time, id) of a cursor. Raises InvalidPage for anything that is none."""
    at, _, deletion_id = text.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 20 and int(at) < 2**63 and deletion_id):
        raise InvalidPage("The cursor is not one of this list.", fields=("cursor",))
    return int(at), deletion_id


def _newest_first(db: Connection, kind: str, query: DeletionQuery) -> Iterator[Job]:
    base = select(*(job.c[name] for name in Job._fields)).where(job.c.kind == kind, job.c.org_id == query.org_id)
    if query.start_ns is not None:
        base = base.where(job.c.created_at_ns >= query.start_ns)
    if query.end_ns is not None:
        base = base.where(job.c.created_at_ns < query.end_ns)
    base = base.order_by(job.c.created_at_ns.desc(), job.c.id.desc()).limit(_CHUNK)
    after = None if query.after is None else parse_cursor(query.after)
    while True:
        chunk = db.execute(base if after is None else base.where(_older_than(after))).all()
        for row in chunk:
            found = Job(*row)
            yield found._replace(body=parse_body(row.body), counts=parse_body(row.counts))
        if len(chunk) < _CHUNK:
            return
        after = (chunk[-1].created_at_ns, chunk[-1].id)


def _older_than(after: tuple[int, str]) -> Any:
    at_ns, deletion_id = after
    return or_(job.c.created_at_ns < at_ns, and_(job.c.created_at_ns == at_ns, job.c.id < deletion_id))


def _is_meant(row: Job, query: DeletionQuery) -> bool:
    body = row.body
    projects = set(body["project_ids"])
    state = _ENDED.get(row.state, row.cursor or DeletionState.PLANNED.value)
    return (
        projects <= set(query.project_ids)
        and (not query.states or state in {each.value for each in query.states})
        and (query.project_id is None or query.project_id in projects)
        and (query.requested_by is None or body["requested_by"] == query.requested_by)
    )
