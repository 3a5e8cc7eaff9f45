"""Sessions: listed, read, and deleted with every trace in them.

A session is the traces of one project that name it (store/sessions.py). An id that is in several projects the key may
touch is several sessions: a read by the id shows the one that was active last, a deletion by it is refused.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import (
    AnyLimit,
    Body,
    Query,
    Refused,
    data_reply,
    no_content,
    page_reply,
    phoenix,
    read_object,
    read_query,
    render_time,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.globalids import SESSION, SessionRef, is_of, project_gid, session_gid, session_of, trace_gid
from clearspan.api.phoenix.naming import find_project, scope_of, with_new_projects
from clearspan.api.phoenix.projects import deletion_headers
from clearspan.api.phoenix.session_filters import named_sessions, parse_session_filter, session_matches, sum_of
from clearspan.api.phoenix.traces import condition, deletion_request, filter_of, run_deletion, token_counts
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.deletion.request import ByFilter
from clearspan.deletion.result import DeletionResult
from clearspan.model.errors import ClearspanError, ReadTooSlow
from clearspan.model.trace import Scope
from clearspan.query.ast import Expr
from clearspan.query.operators import Operator
from clearspan.query.values import is_unicode
from clearspan.store.sessions import SessionReader, SessionRow

LIMIT_MAX: Final = 1_000
"""Largest page; a larger limit is taken for it."""
READ_AT_ONCE: Final = 1_000
"""Sessions that are read in one piece when a filter decides which of them are shown."""
IDS_MAX: Final = 1_000
ABSENT_HEADER: Final = "Clearspan-Absent-Sessions"
ABSENT_CHARS_MAX: Final = 4_000

EMPTY: Final = "Session identifier list must not be empty."
MIXED: Final = "All identifiers must be the same type: either all GlobalIDs or all session_id strings."

Json = dict[str, Any]


class _SessionQuery(Query):
    cursor: str | None = None
    limit: AnyLimit = 100
    order: Literal["asc", "desc"] = "asc"
    filter: str | None = None


class _Bulk(Body):
    session_identifiers: list[str]


class _Found(NamedTuple):
    """What identifiers name."""

    asker: Principal
    rows: list[SessionRow]
    absent: list[str]


# -- reading


@requires(Permission.READ)
async def phoenix_list_sessions(request: Request) -> Response:
    """The sessions of a project in the order in which they began to arrive. Of a filter a page may hold fewer than
    `limit`: it ends when the time of a read is over, and its cursor goes on from there."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _SessionQuery)
    name: str = request.path_params["project"]

    def read() -> tuple[list[Any], str | None]:
        scope = scope_of(principal, find_project(services, principal, name))
        where = filter_of(asked.filter, parse_session_filter)
        order = f"sessions.{asked.order}"
        after = _position(asked.cursor, order)
        rows, position = _page(services, scope, where, asked.order == "desc", after, min(asked.limit, LIMIT_MAX))
        return [render_session(row) for row in rows], None if position is None else render_cursor(order, position)

    return page_reply(*await services.reads.run(read))


@requires(Permission.READ)
async def phoenix_read_session(request: Request) -> Response:
    """One session, by its id or GlobalID."""
    services, principal = services_of(request), principal_of(request)
    named: str = request.path_params["session"]
    found = await services.reads.run(_find, services, principal, [named])
    if not found.rows:
        raise Refused(404, f"Session with {'ID' if is_of(named, SESSION) else 'session_id'} {named} not found")
    return data_reply(render_session(max(found.rows, key=lambda row: (row.end_ns, row.first_pk))))


def render_session(row: SessionRow) -> Json:
    """A session as Phoenix tells it, with all its traces in order of start."""
    return {
        "id": session_gid(row.project_id, row.session_id),
        "session_id": row.session_id,
        "project_id": project_gid(row.project_id),
        "start_time": render_time(row.start_ns),
        "end_time": render_time(row.end_ns),
        "traces": [
            {
                "id": trace_gid(row.project_id, each.trace_id),
                "trace_id": each.trace_id,
                "start_time": render_time(each.start_ns),
                "end_time": render_time(each.end_ns),
            }
            for each in row.traces
        ],
        **token_counts(
            sum_of(row, "prompt_tokens"), sum_of(row, "completion_tokens"), sum_of(row, "total_tokens") or None
        ),
    }


def _page(
    services: Services, scope: Scope, where: Expr | None, descending: bool, after: int | None, limit: int
) -> tuple[list[SessionRow], int | None]:
    """Sessions that meet a filter, and the position to go on from. Blocks."""
    reader = cast(SessionReader, services.reader)
    named = named_sessions(where)
    if named is not None:
        found = [row for row in reader.find_sessions(scope, named) if session_matches(where, row)]
        found.sort(key=lambda row: row.first_pk, reverse=descending)
        rest = [row for row in found if after is None or (row.first_pk < after if descending else row.first_pk > after)]
        return rest[:limit], rest[limit - 1].first_pk if len(rest) > limit else None
    deadline = services.clock.monotonic_s() + services.settings.read_seconds_max
    rows: list[SessionRow] = []
    while True:
        at_once = limit if where is None else READ_AT_ONCE
        page = reader.list_sessions(scope, descending=descending, after=after, limit=at_once)
        for row in page.rows:
            if session_matches(where, row):
                if len(rows) == limit:  # one more than the page holds: there is a next one
                    return rows, rows[-1].first_pk
                rows.append(row)
        after = page.after
        if after is None or (where is None and len(rows) == limit):
            return rows, after
        if services.clock.monotonic_s() > deadline:
            if not rows:
                raise ReadTooSlow("No session was found in the time of one read; narrow the filter.")
            return rows, after


def _position(cursor: str | None, order: str) -> int | None:
    if not cursor:
        return None
    values = parse_cursor(cursor, order, int)
    if values is None:
        raise Refused(422, f"Invalid cursor format: {cursor}")
    return int(values[0] or 0)


def _find(services: Services, principal: Principal, named: list[str]) -> _Found:
    """What identifiers name among what the key may touch: GlobalIDs in their project, ids in every one. Blocks."""
    asker = with_new_projects(services, principal)
    scope = asker.scope_for_read()
    refs = {each: session_of(each) for each in named}
    ids = sorted(filter(is_unicode, {each if ref is None else ref.session_id for each, ref in refs.items()}))
    there = cast(SessionReader, services.reader).find_sessions(scope, ids)
    keys = {SessionRef(row.project_id, row.session_id) for row in there}
    names = {key.session_id for key in keys}
    rows = [
        row for row in there if row.session_id in refs or SessionRef(row.project_id, row.session_id) in refs.values()
    ]
    absent = [each for each, ref in refs.items() if (each not in names if ref is None else ref not in keys)]
    return _Found(asker, rows, absent)


# -- deleting


@requires(Permission.DELETE)
async def phoenix_delete_session(request: Request) -> Response:
    """Delete a session with all its traces. 404 when there is none; 409 when the id is in several projects."""
    services, principal = services_of(request), principal_of(request)
    named: str = request.path_params["session"]
    found = await services.reads.run(_find, services, principal, [named])
    if not found.rows:
        raise Refused(404, f"Session with {'ID' if is_of(named, SESSION) else 'session_id'} '{named}' not found")
    _refuse_ambiguous(found, [named])
    [result] = await _delete(request, found, refuse_held=True)
    return no_content(deletion_headers(result))


@requires(Permission.DELETE)
async def phoenix_delete_sessions(request: Request) -> Response:
    """Delete sessions with all their traces; the head names those that are not there. Sessions of several projects
    become one deletion for each project."""
    services, principal = services_of(request), principal_of(request)
    named = (await read_object(request, _Bulk)).session_identifiers
    if not named:
        raise Refused(422, EMPTY)
    if len(named) > IDS_MAX:
        raise Refused(422, f"At most {IDS_MAX:,} sessions can be deleted at once; nothing was deleted.")
    if len({session_of(each) is None for each in named}) > 1:
        raise Refused(422, MIXED)
    found = await services.reads.run(_find, services, principal, named)
    _refuse_ambiguous(found, named)
    results = await _delete(request, found, refuse_held=False)
    return no_content({**_merged(results), **_absent(found.absent)})


def _refuse_ambiguous(found: _Found, named: list[str]) -> None:
    """Raise Refused when an id, and no GlobalID, names sessions of several projects."""
    places: dict[str, list[int]] = defaultdict(list)
    for row in found.rows:
        places[row.session_id].append(row.project_id)
    for session_id, project_ids in places.items():
        if len(project_ids) > 1 and session_id in named:
            ids = ", ".join(session_gid(each, session_id) for each in project_ids)
            raise Refused(
                409,
                f"Session {session_id} is in {len(project_ids)} projects; nothing was deleted. "
                f"Name the one you mean by its ID: {ids}",
            )


async def _delete(request: Request, found: _Found, *, refuse_held: bool) -> list[DeletionResult]:
    """One deletion for each project, in the order of their numbers: a session must not be taken across."""
    by_project: dict[int, list[str]] = defaultdict(list)
    for row in found.rows:
        by_project[row.project_id].append(row.session_id)
    done: list[DeletionResult] = []
    for project_id, session_ids in sorted(by_project.items()):
        scope = found.asker.scope_for_read()._replace(project_ids=(project_id,))
        asked = deletion_request(
            request, found.asker, scope,
            ByFilter(condition("session_identifier", Operator.IN, session_ids)),
            idempotency_suffix=f":{project_id}" if len(by_project) > 1 else "",
        )  # fmt: skip
        try:
            done.append(await run_deletion(services_of(request), asked, refuse_held=refuse_held))
        except ClearspanError as error:
            if not done:
                raise
            message = f"{error.message} The sessions of {len(done)} of {len(by_project)} projects were deleted before."
            raise Refused(409, message, _merged(done)) from None
    return done


def _merged(results: list[DeletionResult]) -> dict[str, str]:
    """What a 204 says of several deletions: their ids and states one after the other, their counts added up."""
    if len(results) == 1:
        return deletion_headers(results[0])
    told = {
        "Clearspan-Deletion-Id": ", ".join(each.deletion_id for each in results),
        "Clearspan-Deletion-State": ", ".join(str(each.state) for each in results),
    }
    counts = {
        "Clearspan-Deleted-Count": str(sum(each.hidden for each in results)),
        "Clearspan-Held-Count": str(sum(each.held for each in results)),
    }
    return {**told, **counts} if results else counts


def _absent(named: list[str]) -> dict[str, str]:
    """Identifiers that named nothing, percent-encoded, as many as a head has room for; their number is exact."""
    if not named:
        return {}
    told: list[str] = []
    chars = 0
    for each in named:
        quoted = quote(each, safe="", errors="replace")
        chars += len(quoted) + 1
        if chars > ABSENT_CHARS_MAX:
            break
        told.append(quoted)
    return {ABSENT_HEADER: ",".join(told), "Clearspan-Absent-Count": str(len(named))}


ROUTES: Final[tuple[RestRoute, ...]] = (
    phoenix("GET", "/projects/{project}/sessions", phoenix_list_sessions),
    phoenix("POST", "/sessions/delete", phoenix_delete_sessions),
    phoenix("GET", "/sessions/{session}", phoenix_read_session),
    phoenix("DELETE", "/sessions/{session}", phoenix_delete_session),
)
