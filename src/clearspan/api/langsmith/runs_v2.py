"""Reading runs and traces by v2: enums in upper case, costs as numbers, problem details, and a day as the window."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import Json, optional_uuid, path_uuid, query_time, read_uuid, uuid_text
from clearspan.api.langsmith.paths import v2
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_cursor import encode_cursor
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import (
    MICROSECOND_NS,
    ROOTS,
    RunQuery,
    all_of,
    read_run_query_v2,
    read_uuid_list,
    scope_of,
    traces_are,
)
from clearspan.api.langsmith.run_views import RunFacts, needs_of, render_run_v2
from clearspan.api.langsmith.runs import loader_for, one_run, read_page, run_reply
from clearspan.api.langsmith.v2_inputs import declined, query_selects, read_project, read_selects
from clearspan.api.respan.paging import base_url
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.model.usage import usd_from_pico
from clearspan.query.ast import Expr
from clearspan.store.spans import SpanOrder

RUNS_MAX: Final = 1_000
RUNS_DEFAULT: Final = 100
TRACES_MAX: Final = 100
TRACES_DEFAULT: Final = 20
AGGREGATES: Final = ("TOTAL_TOKENS", "TOTAL_COST", "FIRST_TOKEN_TIME")
"""What of a trace is told beside its root."""


@requires(Permission.READ)
async def query_runs_v2(request: Request) -> Response:
    """A page of runs, the latest start first."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    if (refusal := declined(request, body)) is not None:
        return refusal
    query = read_run_query_v2(body, services.clock.now_ns(), default_size=RUNS_DEFAULT, most=RUNS_MAX)
    columns, root = read_selects(body), base_url(request)
    projects, dataset = read_uuid_list(body, "project_ids"), optional_uuid(body, "reference_dataset_id")
    if bool(projects) == (dataset is not None):
        raise InvalidInput("Give either project_ids or reference_dataset_id.", fields=("project_ids",))

    def read() -> Json:
        if dataset is not None:
            scope = _of_dataset(services, principal, dataset)
        else:
            scope = scope_of(services, principal, projects)
        return _page(loader_for(services, principal, scope, root), query, columns)

    return run_reply(await services.reads.run(read))


@requires(Permission.READ)
async def read_run_v2(request: Request) -> Response:
    """One run of a project."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    run_id, project = path_uuid(request, "run_id"), read_project(query)
    columns, root = query_selects(query), base_url(request)

    def read() -> Json:
        loader = loader_for(services, principal, _in_project(services, principal, project), root)
        [facts] = loader.facts([one_run(loader, run_id)], needs_of(columns))
        return render_run_v2(facts, columns)

    return run_reply(await services.reads.run(read))


@requires(Permission.READ)
async def locate_run_v2(request: Request) -> Response:
    """The address of a run in the web interface."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    run_id, project = path_uuid(request, "run_id"), read_project(query)
    trace_id = read_uuid(query.get("trace_id"), "trace_id")
    columns, root = ["APP_PATH", "START_TIME"], base_url(request)

    def read() -> Json:
        loader = loader_for(services, principal, _in_project(services, principal, project))
        [facts] = loader.facts([one_run(loader, run_id)], needs_of(columns))
        told = render_run_v2(facts, columns)
        more = urlencode({"trace_id": uuid_text(trace_id), "start_time": told["start_time"]})
        return {"url": f"{root}{told['app_path']}?{more}"}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def query_traces_v2(request: Request) -> Response:
    """A page of traces, the latest start first: each its root run, and figures of the whole trace."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    if (refusal := declined(request, body)) is not None:
        return refusal
    project, trace_ids = read_project(body), read_uuid_list(body, "trace_ids")
    known = {name: value for name, value in body.items() if name not in ("filter", "ids", "trace_id", "is_root")}
    query = read_run_query_v2(known, services.clock.now_ns(), default_size=TRACES_DEFAULT, most=TRACES_MAX).also(ROOTS)
    columns, root = read_selects(body), base_url(request)
    of_root = [name for name in columns if name not in AGGREGATES]

    def read() -> Json:
        scope = _in_project(services, principal, project)
        loader = loader_for(services, principal, scope, root)
        asked = query.also(traces_are(services, scope, trace_ids)) if trace_ids else query
        needs = needs_of(of_root)
        page = read_page(loader, asked, records=needs.content)
        items = [
            {"root_run": render_run_v2(facts, of_root), "trace_aggregates": _aggregates(facts, columns)}
            for facts in loader.facts(page.rows, needs)
        ]
        return {"items": items, "next_cursor": encode_cursor(page.after, query.order)}

    return run_reply(await services.reads.run(read))


@requires(Permission.READ)
async def list_trace_runs_v2(request: Request) -> Response:
    """Every run of a trace, in order of start; in one answer."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    trace_id, project = path_uuid(request, "trace_id"), read_project(query)
    columns, root = query_selects(query), base_url(request)
    start_ns, end_ns = query_time(query, "min_start_time"), query_time(query, "max_start_time")
    if (start_ns is None) is not (end_ns is None):
        raise InvalidInput("Give both min_start_time and max_start_time, or neither.", fields=("min_start_time",))
    window = Window(start_ns, None if end_ns is None else end_ns + MICROSECOND_NS)
    asked = read_run_query_v2({"filter": query.get("filter")}, 0, default_size=1, most=1)

    def read() -> Json:
        scope = _in_project(services, principal, project)
        loader = loader_for(services, principal, scope, root)
        items = every_run_v2(loader, all_of([traces_are(services, scope, [trace_id]), *asked.parts]), window, columns)
        return {"items": items, "next_cursor": None}

    return run_reply(await services.reads.run(read))


def every_run_v2(loader: Loader, where: Expr | None, window: Window, columns: list[str]) -> list[Json]:
    """Every run that matches, in order of start. Blocks. Raises PayloadTooLarge."""
    needs = needs_of(columns)
    rows = loader.every(where, window, SpanOrder.START_ASC, records=needs.content)
    return [render_run_v2(facts, columns) for facts in loader.facts(rows, needs)]


def _page(loader: Loader, query: RunQuery, columns: list[str]) -> Json:
    needs = needs_of(columns)
    page = read_page(loader, query, records=needs.content)
    cursor = encode_cursor(page.after, query.order)
    items = [render_run_v2(facts, columns) for facts in loader.facts(page.rows, needs)]
    return {"items": items, "next_cursor": cursor, "has_more": cursor is not None}


def _aggregates(facts: RunFacts, columns: list[str]) -> Json | None:
    summary = facts.row.trace.summary
    told = {
        "TOTAL_TOKENS": summary.total_tokens,
        "TOTAL_COST": usd_from_pico(summary.cost_pico),
        # Of the root alone: the summary of a trace has no first token.
        "FIRST_TOKEN_TIME": render_run_v2(facts, ["FIRST_TOKEN_TIME"])["first_token_time"],
    }
    return {name.lower(): told[name] for name in AGGREGATES if name in columns} or None


def _in_project(services: Services, principal: Principal, uuid: str) -> Scope:
    return scope_of(services, principal, [uuid])


def _of_dataset(services: Services, principal: Principal, dataset: str) -> Scope:
    """The projects whose runs are of a dataset's examples. Raises NotFound."""
    scope = principal.scope_for_read()
    found = [
        each.id
        for each in services.catalog.projects(principal.org_id)
        if each.reference_dataset_id == dataset and each.id in scope.project_ids
    ]
    if not found:
        raise NotFound("No project refers to this dataset.")
    return scope._replace(project_ids=tuple(found))


ROUTES: Final[tuple[RestRoute, ...]] = (
    v2("POST", "/runs/query", query_runs_v2),
    v2("GET", "/runs/{run_id}", read_run_v2),
    v2("GET", "/runs/{run_id}/url", locate_run_v2),
    v2("POST", "/traces/query", query_traces_v2),
    v2("GET", "/traces/{trace_id}/runs", list_trace_runs_v2),
)
