"""Shared traces, read by their token and without a key.

What is shown is what the trace did: not whom it belongs to. Customer, conversation, keys, project, tags and metadata
are left out, and no filter can ask for them. A hidden trace answers 404 at once, whatever the link says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.feedback_convert import render_feedback
from clearspan.api.langsmith.inputs import Json, path_uuid, read_count, uuid_text
from clearspan.api.langsmith.paths import classic, v2
from clearspan.api.langsmith.run_cursor import encode_cursor
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import ROOTS, RunQuery, all_of, read_run_query
from clearspan.api.langsmith.run_views import (
    ONE_RUN_COLUMNS,
    RunFacts,
    needs_of,
    render_run,
    render_run_v2,
    shown_trace_id,
)
from clearspan.api.langsmith.runs import columns_of, read_page, run_id_at, run_reply
from clearspan.api.langsmith.shares import opened_by
from clearspan.api.langsmith.v2_inputs import declined, query_selects, read_selects
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import InvalidFilter, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.spans import SpanOrder, SpanRow

FEEDBACK_MAX: Final = 100
_LEFT_OUT: Final[Json] = {
    "extra": {}, "metadata": {}, "tags": [], "serialized": None, "manifest": None, "session_id": None,
    "project_id": None, "thread_id": None, "app_path": None, "reference_example_id": None, "ls_user_id": None,
}  # fmt: skip
_MAY_ASK: Final = frozenset(
    {
        "run_id", "parent_run_id", "trace_unique_id", "is_root", "span_name", "log_type", "span_status", "span_error",
        "span_start_time", "span_end_time", "span_latency", "time_to_first_token", "span_total_tokens",
        "prompt_tokens", "completion_tokens", "cost", "span_input", "span_output", "input_key", "input_value",
        "output_key", "output_value",
    }
)  # fmt: skip
"""Fields that a filter of the public may name: what is shown."""


class _Shared:
    """The trace that a token opens. Methods block."""

    def __init__(self, services: Services, token: str) -> None:
        """Raises NotFound."""
        share = opened_by(services, token)
        self.loader = Loader(services, Scope((share.project_id,)), {})
        self.trace_id = share.trace_id
        self.where: Expr = make_condition("trace", field_named("trace_unique_id"), Operator.EQUALS, [share.trace_id])

    def root(self, *, records: bool) -> SpanRow:
        """The root of the trace. Raises NotFound: it is hidden."""
        where = all_of([self.where, ROOTS])
        rows = self.loader.page(where, Window(), SpanOrder.START_ASC, None, 1, records=records).rows
        if not rows:
            raise NotFound("Shared run not found.")
        return rows[0]

    def run(self, run_id: str) -> SpanRow:
        """One of its runs. Raises NotFound."""
        found = [row for row in self.loader.spans.find_spans(self.loader.scope, [run_id]) if self._is_here(row)]
        if not found:
            raise NotFound("Shared run not found.")
        return found[0]

    def also(self, query: RunQuery) -> RunQuery:
        """A query within the trace. Raises InvalidFilter: it asks for what is not shown."""
        for part in query.parts:
            for condition in conditions(part):
                if condition.field.name not in _MAY_ASK:
                    raise InvalidFilter("A shared trace cannot be filtered by that field.", fields=("filter",))
        return query.also(self.where)

    def _is_here(self, row: SpanRow) -> bool:
        return row.trace.summary.trace_id == self.trace_id


@requires(Permission.PUBLIC)
async def read_shared_run(request: Request) -> Response:
    """The root run of a shared trace, or the run that is named."""
    services = services_of(request)
    token, wanted = path_uuid(request, "share_token"), request.path_params.get("run_id")
    run_id = path_uuid(request, "run_id") if wanted is not None else None

    def read() -> Json:
        shared = _Shared(services, token)
        row = shared.root(records=True) if run_id is None else shared.run(run_id)
        return _public(_render(shared.loader, [row], ONE_RUN_COLUMNS)[0])

    return _unindexed(run_reply(await services.reads.run(read)))


@requires(Permission.PUBLIC)
async def query_shared_runs(request: Request) -> Response:
    """A page of the runs of a shared trace."""
    services, token = services_of(request), path_uuid(request, "share_token")
    body = await read_json_object(request)
    query, columns = read_run_query(body), columns_of(body)

    def read() -> Json:
        shared = _Shared(services, token)
        asked = shared.also(query)
        page = _page(shared, asked, columns)
        runs = [_public(each) for each in _render(shared.loader, page[0], columns)]
        cursors = {"next": page[1], "prev": None}
        return {"runs": runs, "cursors": cursors, "search_cursors": None, "parsed_query": None}

    return _unindexed(run_reply(await services.reads.run(read)))


@requires(Permission.PUBLIC)
async def list_shared_feedback(request: Request) -> Response:
    """What was said about the runs of a shared trace, newest first, without who said it."""
    services, query = services_of(request), request.query_params
    token, run_ids = path_uuid(request, "share_token"), set(query.getlist("run"))
    limit, offset = read_count(query, "limit", FEEDBACK_MAX, least=1), read_count(query, "offset", 0)

    def read() -> list[Json]:
        shared = _Shared(services, token)
        root = shared.root(records=False)
        trace = root.trace
        rows = shared.loader.every(shared.where, Window(), SpanOrder.START_ASC, records=False)
        names = {row.detail.span.span_id: uuid_text(run_id_at(row)) for row in rows}
        told, trace_id = [], uuid_text(shown_trace_id(root))
        for row in reversed(services.annotations.annotations_of([trace.trace_pk]).get(trace.trace_pk, [])):
            said = row.annotation
            is_of_run = said.target is AnnotationTarget.SPAN
            run_id = names.get(said.span_id or "") if is_of_run else None
            if (is_of_run or said.target is AnnotationTarget.TRACE) and (not run_ids or run_id in run_ids):
                told.append(_public_feedback(render_feedback(said, None, None), run_id, trace_id))
        return told[offset : offset + min(limit, FEEDBACK_MAX)]

    return _unindexed(run_reply(await services.reads.run(read)))


@requires(Permission.PUBLIC)
async def query_shared_runs_v2(request: Request) -> Response:
    """Every run of a shared trace, in order of start."""
    services, token = services_of(request), path_uuid(request, "share_token")
    body = await read_json_object(request)
    if (refusal := declined(request, body)) is not None:
        return refusal
    columns = read_selects(body)

    def read() -> Json:
        shared = _Shared(services, token)
        needs = needs_of(columns)
        rows = shared.loader.every(shared.where, Window(), SpanOrder.START_ASC, records=needs.content)
        if not rows:
            raise NotFound("Shared run not found.")
        return {"items": [_public(render_run_v2(each, columns)) for each in shared.loader.facts(rows, needs)]}

    return _unindexed(run_reply(await services.reads.run(read)))


@requires(Permission.PUBLIC)
async def read_shared_run_v2(request: Request) -> Response:
    """One run of a shared trace."""
    services = services_of(request)
    token, run_id = path_uuid(request, "share_token"), path_uuid(request, "run_id")
    columns = query_selects(request.query_params)

    def read() -> Json:
        shared = _Shared(services, token)
        [facts] = shared.loader.facts([shared.run(run_id)], needs_of(columns))
        return _public(render_run_v2(facts, columns))

    return _unindexed(run_reply(await services.reads.run(read)))


def _page(shared: _Shared, query: RunQuery, columns: Sequence[str]) -> tuple[list[SpanRow], str | None]:
    if query.ids is not None:
        page = read_page(shared.loader, query, records=True)
        rows = [row for row in page.rows if row.trace.summary.trace_id == shared.trace_id]
        shared.root(records=False)
        return rows, encode_cursor(page.after, query.order)
    page = read_page(shared.loader, query, records=needs_of(columns).content)
    if not page.rows:
        shared.root(records=False)
    return page.rows, encode_cursor(page.after, query.order)


def _render(loader: Loader, rows: Sequence[SpanRow], columns: Sequence[str]) -> list[Json]:
    facts: list[RunFacts] = loader.facts(rows, needs_of(columns))
    return [render_run(each, columns) for each in facts]


def _public(run: Json) -> Json:
    """A run without whom it belongs to."""
    return {name: _LEFT_OUT.get(name, value) for name, value in run.items()}


def _public_feedback(said: Json, run_id: str | None, trace_id: str) -> Json:
    source: dict[str, Any] = {"type": said["feedback_source"]["type"], "metadata": {}}
    return said | {
        "run_id": run_id,
        "trace_id": trace_id,
        "session_id": None,
        "feedback_source": source | {"user_id": None, "user_name": None},
        "extra": None,
    }


def _unindexed(response: Response) -> Response:
    response.headers["X-Robots-Tag"] = "noindex"
    return response


ROUTES: Final[tuple[RestRoute, ...]] = (
    classic("GET", "/public/{share_token}/run", read_shared_run),
    classic("GET", "/public/{share_token}/run/{run_id}", read_shared_run),
    classic("POST", "/public/{share_token}/runs/query", query_shared_runs),
    classic("GET", "/public/{share_token}/feedbacks", list_shared_feedback),
    v2("POST", "/public/{share_token}/runs/query", query_shared_runs_v2),
    v2("GET", "/public/{share_token}/run/{run_id}", read_shared_run_v2),
)
