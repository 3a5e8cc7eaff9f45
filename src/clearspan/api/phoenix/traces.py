"""Traces: listed page by page, and deleted by id or by a window of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, cast

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
    render_time,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.globalids import TRACE, is_of, project_gid, session_of, span_gid, trace_gid, trace_of
from clearspan.api.phoenix.naming import find_project, scope_of, with_new_projects
from clearspan.api.phoenix.projects import DIALECT, REASON_CHARS_MAX, REASON_HEADER, deletion_headers
from clearspan.api.phoenix.span_views import SpanView
from clearspan.api.phoenix.trace_filters import parse_trace_filter
from clearspan.api.policies import policy_of
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.deletion.request import ByFilter, ByIds, BySpans, DeletionRequest
from clearspan.deletion.result import DeletionResult
from clearspan.model.errors import InvalidFilter
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import START_TIME, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import is_unicode, make_condition
from clearspan.store.port import TraceRow
from clearspan.store.sessions import SessionReader, TraceOrder, TracePosition
from clearspan.store.spans import SpanOrder, SpanPosition, SpanReader

SPANS_AT_ONCE: Final = 500
NOT_ASCENDING: Final = "`start_time` must be strictly earlier than `end_time`."

_ORDERS: Final = {
    ("start_time", "desc"): TraceOrder.START_DESC,
    ("start_time", "asc"): TraceOrder.START_ASC,
    ("latency_ms", "desc"): TraceOrder.DURATION_DESC,
    ("latency_ms", "asc"): TraceOrder.DURATION_ASC,
}
_MS_NS: Final = 1_000_000

Json = dict[str, Any]
T = TypeVar("T")
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _TraceQuery(Query):
    start_time: Moment | None = None
    end_time: Moment | None = None
    sort: Literal["start_time", "latency_ms"] = "start_time"
    order: Literal["asc", "desc"] = "desc"
    limit: Limit1000 = 100
    cursor: str | None = None
    include_spans: bool = False
    session_identifier: list[str] = Field(default_factory=list)
    error: bool | None = None
    min_latency_ms: Milliseconds | None = None
    max_latency_ms: Milliseconds | None = None
    filter: str | None = None


class _Window(Query):
    start_time: Moment
    end_time: Moment


# -- listing


@requires(Permission.READ)
async def phoenix_list_traces(request: Request) -> Response:
    """The traces of a project that match, by start or latency. A cursor names the last trace of its page, so that
    traces which come or go between two pages are neither repeated nor missed."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _TraceQuery)
    name: str = request.path_params["project"]
    return page_reply(*await services.reads.run(_page, services, principal, name, asked))


def filter_of(text: str | None, parse: Callable[[str], T]) -> T | None:
    """A parsed filter expression. Raises Refused (400)."""
    try:
        return parse(text or "")
    except InvalidFilter as error:
        raise Refused(400, error.message) from None


def token_counts(prompt: int | None, completion: int | None, total: int | None) -> Json:
    """Tokens as traces and sessions tell them: 0 where nobody said."""
    parts = (prompt or 0) + (completion or 0)
    return {
        "token_count_prompt": prompt or 0,
        "token_count_completion": completion or 0,
        "token_count_total": parts if total is None else total,
    }


def render_trace(row: TraceRow, spans: list[Json] | None) -> Json:
    """A trace as Phoenix tells it; `spans` None: they were not asked for."""
    told: TraceSummary = row.summary
    return {
        "id": trace_gid(row.project_id, told.trace_id),
        "trace_id": told.trace_id,
        "project_id": project_gid(row.project_id),
        "start_time": render_time(told.start_ns),
        "end_time": render_time(told.end_ns),
        **token_counts(told.prompt_tokens, told.completion_tokens, told.total_tokens),
        "spans": spans,
    }


def _page(services: Services, principal: Principal, name: str, asked: _TraceQuery) -> tuple[list[Any], str | None]:
    project = find_project(services, principal, name)
    scope = scope_of(principal, project)
    order = f"traces.{asked.sort}.{asked.order}"
    where = _where(project, asked)
    after = _position(asked.cursor, order)
    window = Window(bound_ns(asked.start_time), bound_ns(asked.end_time))
    found = cast(SessionReader, services.reader).walk_traces(
        scope, where, window, order=_ORDERS[asked.sort, asked.order], after=after, limit=asked.limit
    )
    spans = _spans_of(services, scope, found.rows) if asked.include_spans else {}
    rows = [
        render_trace(row, spans.get(row.summary.trace_id, []) if asked.include_spans else None) for row in found.rows
    ]
    return rows, None if found.after is None else render_cursor(order, *found.after)


def _position(cursor: str | None, order: str) -> TracePosition | None:
    if not cursor:
        return None
    values = parse_cursor(cursor, order, int, int)
    if values is None:
        raise Refused(422, "Invalid cursor")
    return TracePosition(*(int(value or 0) for value in values))


def _where(project: Project, asked: _TraceQuery) -> Expr | None:
    parts: list[Expr] = []
    if asked.session_identifier:
        refs = [(each, session_of(each)) for each in asked.session_identifier]
        named = [
            each if ref is None else ref.session_id for each, ref in refs if ref is None or ref.project_id == project.id
        ]
        parts.append(condition("session_identifier", Operator.IN, named) if named else Group("OR", ()))
    if asked.error is not None:
        parts.append(condition("error_count", Operator.GT if asked.error else Operator.EQUALS, [0]))
    for bound, operator in ((asked.min_latency_ms, Operator.GTE), (asked.max_latency_ms, Operator.LTE)):
        if bound is not None:
            found = filter_of(f"latency_ms {'>=' if operator is Operator.GTE else '<='} {bound!r}", parse_trace_filter)
            parts += [] if found is None else [found]
    told = filter_of(asked.filter, parse_trace_filter)
    parts += [] if told is None else [told]
    if len(parts) < 2:
        return parts[0] if parts else None
    return Group("AND", tuple(parts))


def condition(name: str, operator: Operator, values: Sequence[object]) -> Expr:
    """A condition from a caller's values. Raises Refused (422) for what cannot be one."""
    try:
        return make_condition(name, field_named(name), operator, values)
    except InvalidFilter as error:
        raise Refused(422, error.message) from None


def _spans_of(services: Services, scope: Scope, rows: Sequence[TraceRow]) -> dict[str, list[Json]]:
    """trace id → its spans, in order of start."""
    found: dict[str, list[Json]] = defaultdict(list)
    if not rows:
        return found
    where = condition("trace_unique_id", Operator.IN, [row.summary.trace_id for row in rows])
    after: SpanPosition | None = None
    while True:
        page = cast(SpanReader, services.reader).list_spans(
            scope, where, Window(), order=SpanOrder.START_ASC, after=after, limit=SPANS_AT_ONCE
        )
        for row in page.rows:
            view = SpanView(row)
            found[view.trace_id].append(_render_span(view))
        after = page.after
        if after is None:
            return found


def _render_span(view: SpanView) -> Json:
    span = view.row.detail.span
    return {
        "id": span_gid(view.row.trace.project_id, view.trace_id, view.span_id),
        "span_id": view.span_id,
        "parent_id": span.parent_id,
        "name": view.name,
        "span_kind": view.told.kind,
        "status_code": view.status_code,
        "start_time": render_time(span.start_ns),
        "end_time": render_time(span.end_ns),
    }


# -- deleting


@requires(Permission.DELETE)
async def phoenix_delete_trace(request: Request) -> Response:
    """Delete a trace: by its own id every copy that the key may touch, by GlobalID the one of that project. 404 when
    there is none, so also the second time."""
    services, principal = services_of(request), principal_of(request)
    named: str = request.path_params["trace"]
    ref = trace_of(named)
    missing = f"Trace with {'relay ID' if is_of(named, TRACE) else 'trace_id'} '{named}' not found"

    def find() -> tuple[Principal, Scope]:
        asker = with_new_projects(services, principal)
        scope = asker.scope_for_read()
        if ref is not None:
            scope = scope._replace(project_ids=tuple({ref.project_id} & set(scope.project_ids)))
        trace_id = named if ref is None else ref.trace_id
        if not is_exact(trace_id) or not (may_repeat(request) or _is_there(services, scope, trace_id)):
            raise Refused(404, missing)
        return asker, scope

    asker, scope = await services.reads.run(find)
    selection = ByIds((named if ref is None else ref.trace_id,))
    asked = deletion_request(request, asker, scope, selection)
    result = await run_deletion(services, asked, refuse_held=True)
    if not result.matched:
        raise Refused(404, missing, deletion_headers(result))
    return no_content(deletion_headers(result))


@requires(Permission.DELETE)
async def phoenix_delete_traces(request: Request) -> Response:
    """Delete a project's traces that start in `[start_time, end_time)`. 204 also when there are none; traces that a
    hold keeps stay, and are counted in the head."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _Window)
    if asked.start_time >= asked.end_time:
        raise Refused(422, NOT_ASCENDING)
    name: str = request.path_params["project"]
    project = await services.reads.run(find_project, services, principal, name)
    window = Window(bound_ns(asked.start_time), bound_ns(asked.end_time))
    # A deletion needs a condition of its own beside the window: this one says the same once more.
    begun = Condition(START_TIME, Operator.GTE, (window.start_ns or 0,))
    deletion = deletion_request(request, principal, scope_of(principal, project), ByFilter(begun), window=window)
    return no_content(deletion_headers(await run_deletion(services, deletion, refuse_held=False)))


def may_repeat(request: Request) -> bool:
    """Whether a deletion may be a repeat, of something that is gone by now: the engine knows by its key."""
    return bool(request.headers.get("idempotency-key"))


def deletion_request(
    request: Request,
    principal: Principal,
    scope: Scope,
    selection: ByFilter | ByIds | BySpans,
    *,
    window: Window | None = None,
    idempotency_suffix: str = "",
) -> DeletionRequest:
    """What the deletion engine is asked for; `window` None: at any time.

    Args:
        idempotency_suffix: tells the parts of one request apart that becomes several deletions.
    """
    key = request.headers.get("idempotency-key")
    return DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=scope,
        selection=selection,
        window=window or Window(),
        delete_all=window is None and isinstance(selection, ByFilter),
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        idempotency_key=f"{key}{idempotency_suffix}" if key else None,
        policy=policy_of(principal),
        strict_window=services_of(request).settings.strict_windows,
        reach=principal.scope_for_copies(),
    )


async def run_deletion(services: Services, asked: DeletionRequest, *, refuse_held: bool) -> DeletionResult:
    """Delete, and wait for the proof as long as the settings say."""
    return await services.deletes.run(
        services.deleter.delete, asked, wait_s=services.settings.delete_wait_s, refuse_held=refuse_held
    )


def _is_there(services: Services, scope: Scope, trace_id: str) -> bool:
    where = condition("trace_unique_id", Operator.EQUALS, [trace_id])
    reader = cast(SessionReader, services.reader)
    return bool(reader.walk_traces(scope, where, Window(), order=TraceOrder.START_DESC, limit=1).rows)


def is_exact(text: str) -> bool:
    """Whether an id is spelled as it is stored: hex digits in capitals name nothing."""
    try:
        return is_unicode(text) and normalise_id(text) == text
    except ValueError:
        return False


ROUTES: Final[tuple[RestRoute, ...]] = (
    phoenix("GET", "/projects/{project}/traces", phoenix_list_traces),
    phoenix("DELETE", "/projects/{project}/traces", phoenix_delete_traces),
    phoenix("DELETE", "/traces/{trace}", phoenix_delete_trace),
)
