"""Respan's scores: annotations of traces and of spans, whoever wrote them and through which dialect.

There is one score of an evaluator on one log by one scorer; writing it again replaces what it says.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.policies import policy_of
from clearspan.api.respan.convert import Json
from clearspan.api.respan.deletes import DIALECT, REASON_CHARS_MAX, REASON_HEADER
from clearspan.api.respan.experiments.finding import Evaluators
from clearspan.api.respan.filters import current_filters, parse_filters
from clearspan.api.respan.operations import operation
from clearspan.api.respan.paging import page_url
from clearspan.api.respan.params import parse_page
from clearspan.api.respan.score_bodies import has_value, read_names, read_value, render_row
from clearspan.api.respan.score_queries import TARGETS, WORDS, normal, rows_of_logs, score_query
from clearspan.api.respan.traces import json_response
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.evaluators import Evaluator
from clearspan.deletion.request import ByAnnotations, DeletionRequest
from clearspan.experiments.scoring import annotation_of
from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import InvalidInput, InvalidPage, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationChange, AnnotationQuery, AnnotationRow, AnnotationWrite
from clearspan.store.spans import SpanReader

PAGE_SIZE_MAX: Final = 100
SORT: Final = "-created_at"
_ALL: Final = "/api/scores/"
_ONE: Final = "/api/scores/{score_id}/"
_OF_LOG: Final = "/api/logs/{log_id}/scores/"
_ONE_OF_LOG: Final = "/api/logs/{log_id}/scores/{score_id}/"


class _Place(NamedTuple):
    """What a score is about."""

    target: AnnotationTarget
    trace_id: str
    span_id: str | None
    project_ids: tuple[int, ...]


@requires(Permission.ANNOTATE)
async def respan_create_score(request: Request) -> Response:
    """Score a trace or a span: `log_id` is the id of either. 201: a new score; 200: it replaced this scorer's last."""
    body = await read_json_object(request)
    named = request.path_params.get("log_id")
    said = read_names(body)
    if named is not None and said.log_id not in (None, named):
        raise InvalidInput("log_id differs from the one in the path.", fields=("log_id",))
    log_id = named or said.log_id
    if log_id is None:
        raise InvalidInput("log_id is required.", fields=("log_id",))
    services, principal = services_of(request), principal_of(request)
    # On a log's own route the scorer is whom the key acts for, never what somebody says.
    scorer = (said.scorer if named is None else principal.user_id) or ""

    def write() -> tuple[AnnotationRow, bool, Evaluators]:
        evaluator = _evaluator(services, principal, said.evaluator)
        value = read_value(body, evaluator)
        place = _place(services, principal, log_id)
        made = annotation_of(
            evaluator,
            value,
            place.trace_id,
            now_ns=services.clock.now_ns(),
            key_id=principal.key_id,
            ids=services.ids,
            identifier=scorer,
            user_id=principal.user_id,
        )._replace(target=place.target, span_id=place.span_id)
        row = _put(services, principal, place, made)
        return row, row.annotation.annotation_id == made.annotation_id, _evaluators(services, principal)

    row, is_new, evaluators = await services.reads.run(write)
    return Response(
        dump_json(render_row(row, evaluators)), status_code=201 if is_new else 200, media_type="application/json"
    )


@requires(Permission.READ)
async def respan_list_scores(request: Request) -> Response:
    """A page of scores, newest first; of one log where the path names one. `count` is the number on this page."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    body = await read_json_object(request) if request.method == "POST" else {}
    page = parse_page(query, PAGE_SIZE_MAX)
    if (query.get("sort_by") or SORT) != SORT:
        raise InvalidPage(f"scores are sorted by `{SORT}` only", fields=("sort_by",))
    where = parse_filters(body.get("filters"), body.get("operator"), fields=WORDS)
    log_id = request.path_params.get("log_id")

    def read() -> tuple[list[AnnotationRow], Evaluators]:
        evaluators = _evaluators(services, principal)
        wanted = score_query(where, evaluators)
        offset, limit = (page.page - 1) * page.page_size, page.page_size + 1
        scope = principal.scope_for_read()
        asked = wanted.log_ids if log_id is None else (log_id,)
        if asked is None:
            return services.annotations.list_annotations(scope, wanted.query, offset=offset, limit=limit), evaluators
        rows = rows_of_logs(services.annotations, scope, wanted.query, asked, offset + limit)
        return rows[offset : offset + limit], evaluators

    rows, evaluators = await services.reads.run(read)
    shown = [render_row(row, evaluators) for row in rows[: page.page_size]]
    return json_response(
        {
            "count": len(shown),
            "results": shown,
            "next": page_url(request, page.page + 1) if len(rows) > page.page_size else None,
            "previous": page_url(request, page.page - 1) if page.page > 1 else None,
            "current_filters": current_filters(body.get("filters")),
        }
    )


@requires(Permission.READ)
async def respan_retrieve_score(request: Request) -> Response:
    """One score, with its evaluator."""
    services, principal = services_of(request), principal_of(request)

    def read() -> Json:
        row = _expect(services, principal, request)
        return render_row(row, _evaluators(services, principal), is_whole=True)

    return json_response(await services.reads.run(read))


@requires(Permission.ANNOTATE)
async def respan_update_score(request: Request) -> Response:
    """Change a score: its value, or its explanation alone. What it is about and whose it is stay."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    said = read_names(body)

    def change() -> Json:
        row = _expect(services, principal, request)
        evaluators = _evaluators(services, principal)
        known = row.annotation
        if said.log_id not in (None, known.trace_id, known.span_id):
            raise InvalidInput("log_id cannot change; make another score.", fields=("log_id",))
        metadata = orjson.loads(known.metadata) if known.metadata is not None else {}
        evaluator = evaluators.of_score(known.name, metadata.get("evaluator_id"))
        if said.evaluator is not None and (evaluator is None or evaluators.named(said.evaluator) != evaluator):
            raise InvalidInput("The evaluator cannot change; make another score.", fields=("evaluator_id",))
        changed = _changed(body, request.method, evaluator, known)
        asked = AnnotationChange(changed, {}, services.clock.now_ns(), principal.key_id, principal.user_id)
        done = services.annotating.patch_annotation(principal.scope_for_read(), known.annotation_id, asked)
        if done is None:
            raise NotFound("There is no such score.")
        return render_row(done, evaluators, is_whole=True)

    return json_response(await services.reads.run(change))


@requires(Permission.DELETE)
async def respan_delete_score(request: Request) -> Response:
    """Delete a score; what it is about stays. 204: erased and verified; 202: hidden so far."""
    services, principal = services_of(request), principal_of(request)
    row = await services.reads.run(_expect, services, principal, request)
    wanted = AnnotationQuery(annotation_ids=(row.annotation.annotation_id,), targets=TARGETS)
    asked = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=principal.scope_for_read(),
        selection=ByAnnotations(wanted),
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        idempotency_key=request.headers.get("idempotency-key") or None,
        policy=policy_of(principal),
    )
    result = await services.deletes.run(
        services.deleter.delete, asked, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    if not result.hidden and not result.failed:  # somebody else was faster
        raise NotFound("There is no such score.")
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": str(result.state),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    return Response(status_code=204 if result.is_erased else 202, headers=headers)


def _changed(body: Json, method: str, evaluator: Evaluator | None, known: Annotation) -> dict[str, object]:
    """Fields of the annotation that a body changes. Raises InvalidInput."""
    if not has_value(body) and method != "PUT":
        if not isinstance(body.get("explanation"), str):
            raise InvalidInput("A value or an explanation is required.", fields=("explanation",))
        return {"explanation": body["explanation"]}
    if evaluator is None:
        raise InvalidInput("The score has no evaluator here any more that would say what it may be.")
    value = read_value(body, evaluator)
    # What the former value cost is no cost of this one.
    made = annotation_of(evaluator, value, "", now_ns=0, key_id=None, ids=_NoIds())
    keeps = method != "PUT" and made.explanation is None
    return {
        "score": made.score,
        "label": made.label,
        "value": made.value,
        "metadata": made.metadata,
        "explanation": known.explanation if keeps else made.explanation,
    }


class _NoIds:
    """For an annotation that is only looked at."""

    def token_bytes(self, n: int) -> bytes:
        return bytes(n)

    def new_id(self, prefix: str) -> str:
        return prefix


def _evaluators(services: Services, principal: Principal) -> Evaluators:
    return Evaluators(services.catalog.evaluators.listed(principal.org_id))


def _evaluator(services: Services, principal: Principal, named: str | None) -> Evaluator:
    if named is None:
        raise InvalidInput("evaluator_id or evaluator_slug is required.", fields=("evaluator_id",))
    found = services.catalog.evaluators.find(principal.org_id, named)
    if found is None:  # not a 404, which would read as "no such log"
        raise InvalidInput("There is no such evaluator.", fields=("evaluator_id",))
    return found


def _place(services: Services, principal: Principal, log_id: str) -> _Place:
    """The trace of that id, else the span. Raises NotFound."""
    scope, wanted = principal.scope_for_read(), normal(log_id)
    if wanted is not None:
        is_it = make_condition("log_id", field_named("trace_unique_id"), Operator.EQUALS, [wanted])
        traces = services.reader.list_traces(scope, is_it, Window(), NEWEST_FIRST, OffsetPage(1, 1)).rows
        if traces:
            return _Place(AnnotationTarget.TRACE, wanted, None, (traces[0].project_id,))
        for row in cast(SpanReader, services.reader).find_spans(scope, [wanted]):
            trace_id, span_id = row.trace.summary.trace_id, row.detail.span.span_id
            return _Place(AnnotationTarget.SPAN, trace_id, span_id, (row.trace.project_id,))
    raise NotFound("There is no trace and no span of that log_id.")


def _put(services: Services, principal: Principal, place: _Place, made: Annotation) -> AnnotationRow:
    (outcome,) = services.annotating.put_annotations(
        [AnnotationWrite(place.project_ids, made, must_exist=True)], received_ns=services.clock.now_ns()
    )
    row = None if outcome.project_id is None else _row(services, principal.scope_for_read(), outcome.annotation_id)
    if row is None:  # deleted meanwhile
        raise NotFound("There is no trace and no span of that log_id.")
    return row


def _row(services: Services, scope: Scope, annotation_id: str) -> AnnotationRow | None:
    wanted = AnnotationQuery(annotation_ids=(annotation_id,), targets=TARGETS)
    return next(iter(services.annotations.list_annotations(scope, wanted, limit=1)), None)


def _expect(services: Services, principal: Principal, request: Request) -> AnnotationRow:
    """The score that the path names. Raises NotFound."""
    score_id = normal(str(request.path_params["score_id"]))
    row = None if score_id is None else _row(services, principal.scope_for_read(), score_id)
    if row is not None and "log_id" in request.path_params:
        log_id = normal(str(request.path_params["log_id"]))
        row = row if log_id in (row.annotation.trace_id, row.annotation.span_id) else None
    if row is None:
        raise NotFound("There is no such score.")
    return row


ROUTES: Final[tuple[RestRoute, ...]] = (
    operation("POST", f"{_ALL}list/", respan_list_scores, also=("GET",)),
    operation("POST", _ALL, respan_create_score, "201"),
    operation("GET", _ALL, respan_list_scores, is_described=False),
    operation("GET", _ONE, respan_retrieve_score),
    operation("PATCH", _ONE, respan_update_score, also=("PUT",)),
    operation("DELETE", _ONE, respan_delete_score, "204"),
    operation("GET", _OF_LOG, respan_list_scores, is_described=False),
    operation("POST", _OF_LOG, respan_create_score, "201", is_described=False),
    operation("GET", _ONE_OF_LOG, respan_retrieve_score, is_described=False),
    operation("PATCH", _ONE_OF_LOG, respan_update_score, also=("PUT",), is_described=False),
    operation("DELETE", _ONE_OF_LOG, respan_delete_score, "204", is_described=False),
)
"""Literal segments stand before the id, which would take them."""
