"""Reading runs by the classic API: one, and pages of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import Json, optional_texts, path_uuid, query_uuid, read_switch
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_cursor import encode_cursor
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import RunQuery, read_run_query, scope_of, session_uuids
from clearspan.api.langsmith.run_views import ALWAYS, DEFAULT_COLUMNS, ONE_RUN_COLUMNS, needs_of, render_run
from clearspan.api.respan.paging import base_url
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.model.errors import ClearspanError, NotFound
from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanRow

_encoder = msgspec.json.Encoder()


@requires(Permission.READ)
async def read_run(request: Request) -> Response:
    """One run with everything that is known of it. `session_id` decides between copies; `start_time` and
    `exclude_s3_stored_attributes` are hints that nothing here needs."""
    services, principal = services_of(request), principal_of(request)
    run_id, query = path_uuid(request, "run_id"), request.query_params
    session = query_uuid(query, "session_id")
    columns = [*ONE_RUN_COLUMNS, *(["messages"] if read_switch(query, "include_messages") else [])]
    without_serialized = read_switch(query, "exclude_serialized")
    root = base_url(request)

    def read() -> Json:
        scope = scope_of(services, principal, [session] if session else [])
        loader = loader_for(services, principal, scope, root)
        [facts] = loader.facts([one_run(loader, run_id)], needs_of(columns))
        return render_run(facts, columns) | ({"serialized": None} if without_serialized else {})

    return run_reply(await services.reads.run(read))


@requires(Permission.READ)
async def query_runs(request: Request) -> Response:
    """A page of runs, the latest start first unless `order` says otherwise."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    query, columns, root = read_run_query(body), columns_of(body), base_url(request)
    sessions = session_uuids(body)

    def read() -> bytes:
        scope = scope_of(services, principal, sessions)
        loader = loader_for(services, principal, scope, root)
        return _encoder.encode(run_page(loader, query, columns))

    return Response(await services.reads.run(read), media_type="application/json")


@requires(Permission.READ)
async def validate_run_query(request: Request) -> Response:
    """Whether `query_runs` would understand a body, and if not, why."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    errors: list[Json] = []
    try:
        read_run_query(body)
        columns_of(body)
        await services.reads.run(scope_of, services, principal, session_uuids(body))
    except ClearspanError as error:
        fields = error.fields or ("session" if isinstance(error, NotFound) else "body",)
        errors = [{"field": field, "message": error.message} for field in fields]
    return json_reply({"valid": not errors, "errors": errors})


def run_page(loader: Loader, query: RunQuery, columns: Sequence[str]) -> Json:
    """A page as the classic API says it. Blocks."""
    needs = needs_of(columns)
    page = read_page(loader, query, records=needs.content)
    return {
        "runs": [render_run(facts, columns) for facts in loader.facts(page.rows, needs)],
        "cursors": {"next": encode_cursor(page.after, query.order), "prev": None},
        "search_cursors": None,
        "parsed_query": None,
    }


def read_page(loader: Loader, query: RunQuery, *, records: bool) -> SpanPage:
    """The spans of a page, and where the next one begins. Blocks."""
    if query.ids is not None:
        return _by_ids(loader, query)
    where = query.where(loader.services, loader.scope)
    return loader.page(where, query.window, query.order, query.after, query.limit, records=records)


def one_run(loader: Loader, run_id: str) -> SpanRow:
    """A run within the loader's scope, of several copies the newest. Blocks. Raises NotFound."""
    found = loader.spans.find_spans(loader.scope, [run_id])
    if not found:
        raise NotFound("Run not found")
    return max(found, key=_newest)


def loader_for(services: Services, principal: Principal, scope: Scope, share_root: str = "") -> Loader:
    """Loads for a key. Blocks."""
    projects = {each.id: each.uuid for each in services.catalog.projects(principal.org_id)}
    return Loader(services, scope, projects, tenant_of(principal), share_root)


def columns_of(body: Json) -> list[str]:
    """The columns that a body asks for, and those without which clients cannot read a run. Raises InvalidInput."""
    asked = optional_texts(body, "select")
    if asked is None:
        return list(DEFAULT_COLUMNS)
    return list(dict.fromkeys((*ALWAYS, *asked)))


def run_reply(value: Any) -> Response:
    """A JSON answer that may hold JSON as clients sent it."""
    return Response(_encoder.encode(value), media_type="application/json")


def _by_ids(loader: Loader, query: RunQuery) -> SpanPage:
    """The runs of some ids: nothing else is asked of them."""
    assert query.ids is not None
    newest: dict[str, SpanRow] = {}
    for row in sorted(loader.spans.find_spans(loader.scope, query.ids), key=_newest):
        newest[run_id_at(row)] = row
    is_down = query.order is SpanOrder.START_DESC
    placed = sorted(((_place(row), row) for row in newest.values()), key=lambda pair: pair[0], reverse=is_down)
    after = query.after
    if after is not None:
        placed = [pair for pair in placed if (pair[0] < after if is_down else pair[0] > after)]
    rest = placed[: query.limit]
    return SpanPage([row for _, row in rest], rest[-1][0] if len(placed) > len(rest) else None)


def run_id_at(row: SpanRow) -> str:
    """The run id (32 hex digits) of a span with its trace."""
    summary, span_id = row.trace.summary, row.detail.span.span_id
    return run_id_of(summary.trace_id, span_id, span_id == summary.root_span_id)


def _place(row: SpanRow) -> SpanPosition:
    return SpanPosition(row.detail.span.start_ns, row.trace.trace_pk, row.detail.span.span_id)


def _newest(row: SpanRow) -> tuple[int, int]:
    return row.trace.received_ns, row.trace.trace_pk


ROUTES: Final[tuple[RestRoute, ...]] = (
    classic("POST", "/runs/query", query_runs),
    classic("POST", "/runs/query/validate", validate_run_query),
    classic("GET", "/runs/{run_id}", read_run),
)
