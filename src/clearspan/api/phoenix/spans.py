"""Lists of spans, page by page."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, cast

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import (
    Limit1000,
    Moment,
    Query,
    Refused,
    bound_ns,
    no_content,
    page_reply,
    phoenix,
    read_query,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.globalids import SPAN, is_of, span_of
from clearspan.api.phoenix.naming import find_project, scope_of, with_new_projects
from clearspan.api.phoenix.projects import deletion_headers
from clearspan.api.phoenix.span_filters import FilterBuilder, SpanFilter, condition
from clearspan.api.phoenix.span_views import SpanView, render_otlp_span, render_span
from clearspan.api.phoenix.traces import deletion_request, is_exact, may_repeat, run_deletion
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.deletion.request import BySpans
from clearspan.model.errors import ReadTooSlow
from clearspan.model.trace import Scope, Window
from clearspan.query.operators import Operator
from clearspan.store.span_deletion import render_name
from clearspan.store.spans import SpanOrder, SpanPosition, SpanReader

READ_AT_ONCE: Final = 1_000
"""Most spans that are read in one piece."""

_ORDERS: Final = {
    ("id", "desc"): SpanOrder.ARRIVAL_DESC,
    ("id", "asc"): SpanOrder.ARRIVAL_ASC,
    ("start_time", "desc"): SpanOrder.START_DESC,
    ("start_time", "asc"): SpanOrder.START_ASC,
}


class _OtlpQuery(Query):
    cursor: str | None = None
    limit: Limit1000 = 100
    start_time: Moment | None = None
    end_time: Moment | None = None
    trace_id: list[str] = Field(default_factory=list)
    span_id: list[str] = Field(default_factory=list)
    parent_id: str | None = None
    name: list[str] = Field(default_factory=list)
    status_code: list[str] = Field(default_factory=list)
    attribute: list[str] = Field(default_factory=list)


class _SpanQuery(_OtlpQuery):
    sort: Literal["id", "start_time"] = "id"
    order: Literal["asc", "desc"] = "desc"
    span_kind: list[str] = Field(default_factory=list)


class Found(NamedTuple):
    """Spans, and the position to go on from; None: there are no more."""

    views: list[SpanView]
    after: SpanPosition | None


@requires(Permission.READ)
async def phoenix_list_spans(request: Request) -> Response:
    """The spans of a project that match. Of a filter by attributes a page may hold fewer than `limit`: it ends when the
    time of a read is over, and its cursor goes on from there."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _SpanQuery)

    def read() -> tuple[list[Any], str | None]:
        found = _page(services, principal, request.path_params["project"], asked, asked.sort, asked.order)
        return [render_span(view) for view in found.views], _cursor(found.after, asked.sort, asked.order)

    return page_reply(*await services.reads.run(read))


@requires(Permission.READ)
async def phoenix_list_otlp_spans(request: Request) -> Response:
    """The same, newest first, in a form like OTLP's."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _OtlpQuery)

    def read() -> tuple[list[Any], str | None]:
        found = _page(services, principal, request.path_params["project"], asked, "id", "desc")
        return [render_otlp_span(view) for view in found.views], _cursor(found.after, "id", "desc")

    return page_reply(*await services.reads.run(read))


@requires(Permission.DELETE)
async def phoenix_delete_span(request: Request) -> Response:
    """Delete a span, whose children stay: by its own id every copy that the key may touch, by GlobalID the one of that
    trace. 404 when there is none, so also the second time, unless that says the same Idempotency-Key."""
    services, principal = services_of(request), principal_of(request)
    named: str = request.path_params["span"]
    ref = span_of(named)
    missing = f"Span with {'relay ID' if is_of(named, SPAN) else 'span_id'} '{named}' not found"

    def find() -> tuple[Principal, Scope]:
        asker = with_new_projects(services, principal)
        scope = asker.scope_for_read()
        if ref is not None:
            scope = scope._replace(project_ids=tuple({ref.project_id} & set(scope.project_ids)))
        trace_id, span_id = (None, named) if ref is None else (ref.trace_id, ref.span_id)
        if not is_exact(span_id) or not (may_repeat(request) or _is_there(services, scope, trace_id, span_id)):
            raise Refused(404, missing)
        return asker, scope

    asker, scope = await services.reads.run(find)
    selection = BySpans((named if ref is None else render_name(ref.trace_id, ref.span_id),))
    result = await run_deletion(services, deletion_request(request, asker, scope, selection), refuse_held=True)
    if not result.matched:
        raise Refused(404, missing, deletion_headers(result))
    return no_content(deletion_headers(result))


def _is_there(services: Services, scope: Scope, trace_id: str | None, span_id: str) -> bool:
    """Whether the scope has a span that is called so itself; `trace_id` None: in whatever trace."""
    rows = cast(SpanReader, services.reader).find_spans(scope, [span_id])
    return any(row.detail.span.span_id == span_id and trace_id in (None, row.trace.summary.trace_id) for row in rows)


def read_spans(
    services: Services,
    scope: Scope,
    asked: SpanFilter,
    window: Window,
    order: SpanOrder,
    after: SpanPosition | None,
    limit: int,
) -> Found:
    """Up to `limit` spans that match. Blocks.

    With conditions on records it reads until so many are found, or for `read_seconds_max`.
    Raises:
        ReadTooSlow: the time was over before one was found.
    """
    reader = cast(SpanReader, services.reader)
    views: list[SpanView] = []
    if asked.is_empty:
        return Found(views, None)
    deadline = services.clock.monotonic_s() + services.settings.read_seconds_max
    at_once = min(READ_AT_ONCE, limit + 1)
    while True:
        at_once = at_once if asked.rest else min(READ_AT_ONCE, limit - len(views))
        page = reader.list_spans(scope, asked.where, window, order=order, after=after, limit=at_once)
        for row in page.rows:
            view = SpanView(row)
            if asked.accepts(view):
                if len(views) == limit:  # one more than the page holds: there is a next one
                    return Found(views, position_of(views[-1]))
                views.append(view)
        after = page.after
        if after is None or (not asked.rest and len(views) == limit):
            return Found(views, after)
        at_once = min(READ_AT_ONCE, 2 * at_once)  # the next piece is larger: few of these matched
        if services.clock.monotonic_s() > deadline:
            if not views:
                raise ReadTooSlow("No span was found in the time of one read; narrow the filter or the time window.")
            return Found(views, after)


def position_of(view: SpanView) -> SpanPosition:
    """Where a page ends whose last span this is."""
    return SpanPosition(view.row.detail.span.start_ns, view.row.trace.trace_pk, view.span_id)


def narrow_to_traces(services: Services, scope: Scope, builder: FilterBuilder, span_ids: list[str]) -> None:
    """Where the spans of these ids are: the store then reads their traces only. Blocks."""
    if span_ids:
        rows = cast(SpanReader, services.reader).find_spans(scope, span_ids)
        traces = sorted({row.trace.summary.trace_id for row in rows})
        if traces:
            builder.add(condition("trace_unique_id", Operator.IN, traces))
        else:
            builder.nothing()


def _page(services: Services, principal: Principal, project: str, asked: _OtlpQuery, sort: str, order: str) -> Found:
    scope = scope_of(principal, find_project(services, principal, project))
    after = _position(asked.cursor, sort, order)
    builder = FilterBuilder()
    builder.ids("trace_unique_id", asked.trace_id)
    builder.ids("span_unique_id", asked.span_id)
    builder.parent(asked.parent_id)
    builder.names(asked.name)
    if isinstance(asked, _SpanQuery):
        builder.kinds(asked.span_kind)
    builder.status_codes(asked.status_code)
    builder.attributes(asked.attribute)
    narrow_to_traces(services, scope, builder, asked.span_id)
    window = Window(bound_ns(asked.start_time), bound_ns(asked.end_time))
    return read_spans(services, scope, builder.finish(), window, _ORDERS[sort, order], after, asked.limit)


def _cursor(after: SpanPosition | None, sort: str, order: str) -> str | None:
    return None if after is None else render_cursor(f"spans.{sort}.{order}", *after)


def _position(cursor: str | None, sort: str, order: str) -> SpanPosition | None:
    if not cursor:
        return None
    values = parse_cursor(cursor, f"spans.{sort}.{order}", int, int, str)
    if values is None:
        raise Refused(422, "Invalid cursor")
    start_ns, trace_pk, span_id = values
    return SpanPosition(int(start_ns or 0), int(trace_pk or 0), str(span_id))


ROUTES: Final[tuple[RestRoute, ...]] = (
    phoenix("GET", "/projects/{project}/spans/otlpv1", phoenix_list_otlp_spans),
    phoenix("GET", "/projects/{project}/spans", phoenix_list_spans),
    phoenix("DELETE", "/spans/{span}", phoenix_delete_span),
)
