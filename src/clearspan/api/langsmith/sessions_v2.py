"""Sessions as the v2 API says them: the same projects, in pages with a cursor."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import path_uuid, read_count, read_switch
from clearspan.api.langsmith.paths import v2
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.session_views import find_session, render_session_v2, type_of
from clearspan.api.langsmith.sessions import change_session, make_session, permitted_projects
from clearspan.api.services import services_of
from clearspan.catalog import Project
from clearspan.model.errors import InvalidInput

PAGE_MAX: Final = 100
_TYPES: Final = ("PROJECT", "AGENT", "EXPERIMENT")


@requires(Permission.INGEST)
async def create_session_v2(request: Request) -> Response:
    """A new session."""
    services, principal = services_of(request), principal_of(request)
    upsert, body = read_switch(request.query_params, "upsert"), await read_json_object(request)
    made = await services.reads.run(make_session, services, principal, body, upsert)
    return json_reply(render_session_v2(made, principal))


@requires(Permission.READ)
async def list_sessions_v2(request: Request) -> Response:
    """A page of sessions, newest first."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    size = read_count(query, "page_size", PAGE_MAX, least=1, most=PAGE_MAX)
    below = read_count(query, "cursor", 2**53)
    kind, name, part = query.get("type"), query.get("name"), query.get("name_contains", "").casefold()
    if kind and kind not in _TYPES:
        raise InvalidInput(f"type is one of {', '.join(_TYPES)}.", fields=("type",))

    def wanted(project: Project) -> bool:
        return (
            project.id < below
            and (not kind or type_of(project) == kind)
            and (not name or project.name == name)
            and part in project.name.casefold()
        )

    every = await services.reads.run(permitted_projects, services, principal)
    found = [each for each in reversed(every) if wanted(each)]
    page = found[:size]
    cursor = str(page[-1].id) if len(found) > size else None
    items = [render_session_v2(each, principal) for each in page]
    return json_reply({"items": items, "next_cursor": cursor, "has_more": cursor is not None})


@requires(Permission.READ)
async def read_session_v2(request: Request) -> Response:
    """One session."""
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_session, services, principal, path_uuid(request, "session_id"))
    return json_reply(render_session_v2(found, principal))


@requires(Permission.INGEST)
async def update_session_v2(request: Request) -> Response:
    """Change what is given of a session; null changes nothing."""
    services, principal = services_of(request), principal_of(request)
    uuid, body = path_uuid(request, "session_id"), await read_json_object(request)
    changed = await services.reads.run(change_session, services, principal, uuid, body)
    return json_reply(render_session_v2(changed, principal))


ROUTES = (
    v2("POST", "/sessions", create_session_v2),
    v2("GET", "/sessions", list_sessions_v2),
    v2("GET", "/sessions/{session_id}", read_session_v2),
    v2("PATCH", "/sessions/{session_id}", update_session_v2),
)
