"""Lists of experiments, and how many there are."""

from __future__ import annotations

from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.respan.convert import Json
from clearspan.api.respan.experiments.finding import around, may_touch
from clearspan.api.respan.experiments.progress import percents_of
from clearspan.api.respan.experiments.views import render_summary
from clearspan.api.respan.experiments.words import DEFINITIONS
from clearspan.api.respan.filters import current_filters, parse_filters
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_page
from clearspan.api.respan.traces import json_response
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.experiments.definitions import Known, matches, sorted_by
from clearspan.experiments.quiet import settled
from clearspan.query.ast import Expr
from clearspan.query.page import OffsetPage
from clearspan.store.sessions import SessionReader

PAGE_SIZE_MAX: Final = 100
DEFAULT_SORT: Final = "-created_at"


@requires(Permission.READ)
async def list_experiments(request: Request) -> Response:
    """A page of experiments that match the filters, newest first unless `sort_by` says otherwise.

    Experiments that LangSmith's clients run are listed, too: `is_managed` is false for them. `is_exporting` changes
    nothing here.
    """
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request) if request.method == "POST" else {}
    where = parse_filters(body.get("filters"), body.get("operator"), fields=DEFINITIONS)
    page = parse_page(request.query_params, PAGE_SIZE_MAX)
    sort_by = request.query_params.get("sort_by") or DEFAULT_SORT
    results, total = await services.reads.run(_page, services, principal, where, sort_by, page)
    envelope = render_page(request, results, total=total, page=page.page, page_size=page.page_size)
    return json_response(envelope | {"current_filters": current_filters(body.get("filters"))})


@requires(Permission.READ)
async def list_experiment_items(request: Request) -> Response:
    """A page of experiments, newest first, as a bare array: the shape of the oldest list."""
    services, principal = services_of(request), principal_of(request)
    page = parse_page(request.query_params, PAGE_SIZE_MAX)
    sort_by = request.query_params.get("sort_by") or DEFAULT_SORT
    results, _ = await services.reads.run(_page, services, principal, None, sort_by, page)
    return json_response(results)


@requires(Permission.READ)
async def summarise_experiments(request: Request) -> Response:
    """How many experiments match the filters."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request) if request.method == "POST" else {}
    where = parse_filters(body.get("filters"), body.get("operator"), fields=DEFINITIONS)
    found = await services.reads.run(_matching, services, principal, where)
    return json_response({"total_count": len(found)})


def _matching(services: Services, principal: Principal, where: Expr | None) -> list[Known]:
    beside = around(services, principal)
    listed = services.catalog.experiments.listed(principal.org_id)
    reader, now_ns = cast(SessionReader, services.reader), services.clock.now_ns()
    known = [beside.known(settled(reader, each, now_ns)) for each in listed if may_touch(principal, each)]
    return [each for each in known if matches(where, each)]


def _page(
    services: Services, principal: Principal, where: Expr | None, sort_by: str, page: OffsetPage
) -> tuple[list[Json], int]:
    found = sorted_by(sort_by, _matching(services, principal, where))
    shown = found[page.offset : page.offset + page.page_size]
    percents = percents_of(services, principal, [each.experiment for each in shown])
    return [render_summary(each, percent) for each, percent in zip(shown, percents, strict=True)], len(found)
