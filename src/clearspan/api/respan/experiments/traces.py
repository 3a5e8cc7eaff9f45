"""The traces of an experiment: pages by filter, one with its spans, figures over all, and waiting ones resumed."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json, dump_detail
from clearspan.api.respan.experiments.exports import begin_export
from clearspan.api.respan.experiments.finding import experiment_id_of, find_experiment, scope_of
from clearspan.api.respan.experiments.requests import Asked, is_true, preview_length, read_asked, wants_export
from clearspan.api.respan.experiments.views import render_result_summary, shows_words
from clearspan.api.respan.experiments.words import parse_result_order
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_page, parse_trace_id
from clearspan.api.respan.traces import json_response
from clearspan.api.respan.window import HEADER
from clearspan.api.services import services_of
from clearspan.experiments.results import PAGE_BYTES_MAX, Order, Result, ResultSummary
from clearspan.model.errors import Conflict, InvalidInput, NotFound, PayloadTooLarge
from clearspan.query.page import OffsetPage

PAGE_SIZE_MAX: Final = 100


@requires(Permission.READ)
async def list_experiment_traces(request: Request) -> Response:
    """A page of an experiment's traces, newest first unless `sort_by` says otherwise; with `export=1` a job instead.

    All of them without start_time and end_time. `detail=1` adds the spans, `preview_length` cuts texts.
    """
    query = request.query_params
    asked = await read_asked(request)
    page = parse_page(query, PAGE_SIZE_MAX)
    order = parse_result_order(query.get("sort_by"), asked.evaluators.score_name)
    if wants_export(query, asked.body):
        return await begin_export(request, asked)
    cut = preview_length(query)
    results, total, is_exact = await asked.services.reads.run(_page, asked, order, page, is_true(query, "detail"), cut)
    envelope = render_page(request, [], total=total, page=page.page, page_size=page.page_size)
    envelope |= {"current_filters": asked.filters}
    del envelope["results"]
    if not is_exact:
        envelope["message"] = "The text search stopped at its limit: count is a lower bound."
    content = b"".join((dump_json(envelope)[:-1], b',"results":[', b",".join(results), b"]}"))
    return Response(content, media_type="application/json", headers={HEADER: asked.window.header()})


@requires(Permission.READ)
async def retrieve_experiment_trace(request: Request) -> Response:
    """One trace of an experiment with all its spans as a tree."""
    trace_id = parse_trace_id(request.path_params["log_id"])
    asked = await read_asked(request)

    def read() -> bytes:
        found = asked.results.find(asked.scope, trace_id)
        if found is None:
            raise NotFound("No trace was found under that id in this experiment.")
        result, detail = found
        return dump_detail(*asked.view([result]).tree(result, detail))

    return Response(await asked.services.reads.run(read), media_type="application/json")


@requires(Permission.INGEST)
async def resume_experiment_trace(request: Request) -> Response:
    """Give a waiting trace its input and output: its workflow goes on, and its evaluators score it.

    `metrics` are numbers: cost, latency and tokens of what was done meanwhile count among the trace's own, and
    evaluators see them. `metadata` is attached to the trace.
    """
    services, principal = services_of(request), principal_of(request)
    trace_id = parse_trace_id(request.path_params["log_id"])
    body = await read_json_object(request)
    for key in ("input", "output"):
        if key not in body:
            raise InvalidInput(f"{key} is required.", fields=(key,))
    metrics = _numbers(body, "metrics")
    metadata = _object(body, "metadata")

    def look() -> Any:
        experiment = find_experiment(services, principal, experiment_id_of(request))
        if services.reader.get_trace(scope_of(principal, experiment), trace_id) is None:
            raise NotFound("No trace was found under that id in this experiment.")
        if not experiment.managed:
            raise InvalidInput("A LangSmith client runs this experiment: none of its traces waits for a result.")
        return experiment

    experiment = await services.reads.run(look)
    try:
        status = await services.runner.resume_trace(
            experiment,
            trace_id,
            input=body["input"],
            output=body["output"],
            metrics=metrics or None,
            metadata=metadata or None,
        )
    except Conflict as error:  # Respan's clients would repeat a 409 twice, and nothing would be different
        raise InvalidInput(error.message, code=error.code) from None
    return json_response({"id": trace_id, "trace_unique_id": trace_id, "status": str(status)})


@requires(Permission.READ)
async def summarise_experiment_traces(request: Request) -> Response:
    """Counts, costs, tokens, mean times and scores over every trace that matches. `is_exporting` changes nothing."""
    asked = await read_asked(request)
    summary = await asked.services.reads.run(_summary, asked)
    return json_response(render_result_summary(summary, asked.evaluators), asked.window)


def _summary(asked: Asked) -> ResultSummary:
    in_words = shows_words(asked.evaluators)
    return asked.results.summary(asked.scope, asked.where, asked.window.window, in_words=in_words)


def _page(
    asked: Asked, order: Order, page: OffsetPage, with_detail: bool, cut: int | None
) -> tuple[list[bytes], int, bool]:
    found = asked.results.page(asked.scope, asked.where, asked.window.window, order, page)
    view = asked.view(found.results, cut)
    if not with_detail:
        return [dump_json(view.render(each)) for each in found.results], found.total, found.total_is_exact
    out: list[bytes] = []
    for each in found.results:
        out += _detail(asked, each)
        if sum(map(len, out)) > PAGE_BYTES_MAX:
            raise PayloadTooLarge(
                "The spans of this page are too large to send at once; ask for a smaller page_size.",
                fields=("page_size",),
            )
    return out, found.total, found.total_is_exact


def _detail(asked: Asked, result: Result) -> list[bytes]:
    """The trace with its spans; nothing if it was deleted since the page was read."""
    detail = asked.services.reader.get_trace(asked.scope, result.row.summary.trace_id)
    return [] if detail is None else [dump_detail(*asked.view([result]).tree(result, detail))]


def _object(body: Json, key: str) -> Json:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(f"{key} must be an object.", fields=(key,))
    return value or {}


def _numbers(body: Json, key: str) -> Json:
    given = _object(body, key)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise InvalidInput(f"{key}.{name[:100]} must be a number.", fields=(key,))
    return {name: value for name, value in given.items() if value is not None}
