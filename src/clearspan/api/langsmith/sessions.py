"""Sessions, which are projects: make, list, change, remove; and what their runs say most often."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import (
    Json,
    optional_uuid,
    path_uuid,
    query_time,
    read_count,
    read_switch,
    uuid_text,
)
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.session_bodies import closes_experiment, read_name, read_settings
from clearspan.api.langsmith.session_listing import SessionQuery, parse_session_query
from clearspan.api.langsmith.session_removal import delete_session, delete_sessions
from clearspan.api.langsmith.session_stats import session_stats
from clearspan.api.langsmith.session_views import EXPERIMENT, find_session, may_touch, render_session, type_of
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.catalog.experiments import CLOSED_KEY
from clearspan.catalog.projects import check_writable
from clearspan.model.errors import Conflict, InvalidInput, NotFound
from clearspan.model.trace import Window
from clearspan.query.page import OffsetPage, parse_sort

EVALUATORS: Final = "evaluators"
"""The project that LangSmith's evaluators write to."""
METADATA_TRACES_MAX: Final = 10_000
"""Traces, newest first, whose metadata one answer looks at."""
_PAGE: Final = 1_000


@requires(Permission.INGEST)
async def create_session(request: Request) -> Response:
    """A new session; with `upsert` an existing one of that name is changed by what is given."""
    services, principal = services_of(request), principal_of(request)
    upsert = read_switch(request.query_params, "upsert")
    body = await read_json_object(request)
    made = await services.reads.run(make_session, services, principal, body, upsert)
    return json_reply(render_session(made, principal))


@requires(Permission.READ)
async def list_sessions(request: Request) -> Response:
    """Sessions that match, newest first unless `sort_by` says otherwise. Figures only with `include_stats`."""
    services, principal = services_of(request), principal_of(request)
    asked = parse_session_query(request.query_params)
    told, total = await services.reads.run(_list, services, principal, asked)
    return json_reply(told, headers={"X-Pagination-Total": str(total)})


@requires(Permission.READ)
async def read_session(request: Request) -> Response:
    """One session."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, since_ns = path_uuid(request, "session_id"), query_time(query, "stats_start_time")
    with_stats = read_switch(query, "include_stats")

    def read() -> Json:
        found = find_session(services, principal, uuid)
        stats = session_stats(services, principal, found, since_ns) if with_stats else {}
        return render_session(found, principal) | stats

    return json_reply(await services.reads.run(read))


@requires(Permission.INGEST)
async def update_session(request: Request) -> Response:
    """Change what is given of a session; null changes nothing."""
    services, principal = services_of(request), principal_of(request)
    uuid, body = path_uuid(request, "session_id"), await read_json_object(request)
    changed = await services.reads.run(change_session, services, principal, uuid, body)
    return json_reply(render_session(changed, principal))


@requires(Permission.READ)
async def session_metadata(request: Request) -> Response:
    """The `k` most frequent values of each metadata key, over the newest traces of a session.

    A trace counts once for a key: with its root's value, or the first span's that has one, whatever `root_runs_only`.
    """
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, keys = path_uuid(request, "session_id"), frozenset(query.getlist("metadata_keys"))
    k, since_ns = read_count(query, "k", 10, least=1, most=100), query_time(query, "start_time")

    def read() -> Json:
        scope = principal.scope_for_read()._replace(project_ids=(find_session(services, principal, uuid).id,))
        counted: dict[str, Counter[str]] = {}
        for number in itertools.count(1):
            page = OffsetPage(number, _PAGE)
            rows = services.reader.list_traces(scope, None, Window(since_ns), parse_sort("-timestamp"), page).rows
            for row in rows:
                for key, value in row.summary.metadata:
                    if not keys or key in keys:
                        counted.setdefault(key, Counter())[value] += 1
            if len(rows) < _PAGE or number * _PAGE >= METADATA_TRACES_MAX:
                break
        return {key: [value for value, _ in values.most_common(k)] for key, values in sorted(counted.items())}

    return json_reply({"metadata": await services.reads.run(read)})


@requires(Permission.READ)
async def resolve_session(request: Request) -> Response:
    """The session that an address means: an agent by name, an experiment by id, or the evaluators' project."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    kind, id_ = query.get("kind", "").upper(), query.get("id")
    if kind not in ("AGENT", EXPERIMENT, "EVALUATOR"):
        raise InvalidInput("kind is AGENT, EXPERIMENT or EVALUATOR.", fields=("kind",))
    if kind != "EVALUATOR" and not id_:
        raise InvalidInput(f"An address of kind {kind} needs id.", fields=("id",))

    def read() -> str:
        for each in permitted_projects(services, principal):
            name = id_ if kind == "AGENT" else EVALUATORS
            is_it = id_ == uuid_text(each.uuid) if kind == EXPERIMENT else each.name == name
            if is_it and (kind == "EVALUATOR" or type_of(each) == kind):
                return each.uuid
        raise NotFound("No session has this address.")

    return json_reply({"session_id": uuid_text(await services.reads.run(read))})


def make_session(services: Services, principal: Principal, body: Json, upsert: bool) -> Project:
    """Make a project, or with `upsert` change the one of that name. Blocks.

    Raises:
        Conflict: the name or the id is taken. NotPermitted: the key is bound to other projects. InvalidInput.
    """
    name, uuid = read_name(body), optional_uuid(body, "id")
    settings = read_settings(body)
    catalog = services.catalog
    known = catalog.find_project(principal.org_id, name)
    check_writable(principal, known if upsert else None)
    if known is None:
        try:
            return catalog.create_project(principal.org_id, name, uuid=uuid, settings=settings)
        except Conflict:
            known = catalog.find_project(principal.org_id, name)  # another request was first
            if known is None:
                raise
    if not upsert:
        raise Conflict("Session already exists.", fields=("name",))
    return catalog.update_project(principal.org_id, known.id, settings=read_settings(body, known))


def change_session(services: Services, principal: Principal, uuid: str, body: Json) -> Project:
    """Change a project by what a body gives. Blocks. Raises NotFound, Conflict, InvalidInput."""
    found = find_session(services, principal, uuid)
    name, settings = body.get("name"), read_settings(body, found)
    if name is not None:
        name = read_name(body)
    if found.reference_dataset_id is not None and closes_experiment(body):
        options = settings.options or found.options or {}
        settings = settings._replace(options={CLOSED_KEY: services.clock.now_ns(), **options})  # the first time stays
    return services.catalog.update_project(principal.org_id, found.id, name=name, settings=settings)


def permitted_projects(services: Services, principal: Principal) -> list[Project]:
    """Every project that the key may touch, oldest first. Blocks."""
    return [each for each in services.catalog.projects(principal.org_id) if may_touch(principal, each)]


def _list(services: Services, principal: Principal, asked: SessionQuery) -> tuple[list[Json], int]:
    known: dict[int, Json] = {}

    def stats_of(project: Project) -> Json:
        if project.id not in known:
            known[project.id] = session_stats(services, principal, project, asked.stats_since_ns)
        return known[project.id]

    if asked.name is not None:  # what clients ask most: no need to read all of them
        one = services.catalog.find_project(principal.org_id, asked.name)
        candidates = [one] if one is not None and may_touch(principal, one) else []
    else:
        candidates = permitted_projects(services, principal)
    found = [each for each in candidates if asked.wants(each)]
    page = asked.sorted(found, stats_of)[asked.offset : asked.offset + asked.limit]
    told = [render_session(each, principal) for each in page]
    if asked.with_stats:
        told = [each | asked.selected(stats_of(project)) for each, project in zip(told, page, strict=True)]
    return told, len(found)


ROUTES = (
    classic("POST", "/sessions", create_session),
    classic("GET", "/sessions", list_sessions),
    classic("DELETE", "/sessions", delete_sessions),
    classic("GET", "/sessions/resolutions", resolve_session),
    classic("GET", "/sessions/{session_id}/metadata", session_metadata),
    classic("GET", "/sessions/{session_id}", read_session),
    classic("PATCH", "/sessions/{session_id}", update_session),
    classic("DELETE", "/sessions/{session_id}", delete_session),
)
