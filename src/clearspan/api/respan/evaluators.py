"""Respan's evaluators: definitions in the Catalog. What they score, and how, is `clearspan.experiments`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json
from clearspan.api.respan.evaluator_bodies import read_evaluator, render_evaluator, slug_of, type_of
from clearspan.api.respan.filters import Vocabulary, current_filters, parse_filters
from clearspan.api.respan.operations import operation
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_page
from clearspan.api.respan.traces import json_response
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.definition_lists import parse_sort_by, satisfies
from clearspan.experiments.definitions import uuid_text
from clearspan.experiments.evaluator_config import Kind
from clearspan.model.errors import Conflict, InvalidFilter, NotFound
from clearspan.query.ast import Condition
from clearspan.query.evaluate import holds
from clearspan.query.fields import Field, FieldType, Level

TAG: Final = "respan"
PAGE_SIZE_MAX: Final = 100
SLUGS_TRIED: Final = 1_000
_ALL: Final = "/api/evaluators/"
_ONE: Final = "/api/evaluators/{evaluator_id}/"


def _field(name: str, type: FieldType = FieldType.TEXT) -> Field:
    return Field(f"evaluator.{name}", type, Level.TRACE, "")  # no SQL: never compiled


_FIELDS: Final[Mapping[str, tuple[Field, Callable[[Evaluator], str | int | None]]]] = {
    "id": (_field("id"), lambda each: uuid_text(each.uuid)),
    "name": (_field("name"), lambda each: each.name),
    "evaluator_slug": (_field("evaluator_slug"), lambda each: each.slug),
    "type": (_field("type"), lambda each: type_of(Kind(each.kind))),
    "eval_class": (_field("eval_class"), lambda each: each.kind),
    "kind": (_field("kind"), lambda each: each.kind),
    "score_value_type": (_field("score_value_type"), lambda each: each.score_type),
    "description": (_field("description"), lambda each: each.description),
    "created_at": (_field("created_at", FieldType.TIME), lambda each: each.created_at_ns),
    "updated_at": (_field("updated_at", FieldType.TIME), lambda each: each.updated_at_ns),
}
_SORTABLE: Final = ("created_at", "updated_at", "name", "evaluator_slug", "type")


def _find(name: str) -> tuple[Field, None]:
    if name not in _FIELDS:
        raise InvalidFilter(f"unknown filter field `{name[:100]}`; allowed: {', '.join(_FIELDS)}", fields=(name,))
    return _FIELDS[name][0], None


_WORDS: Final = Vocabulary(_find)


@requires(Permission.ANNOTATE)
async def respan_create_evaluator(request: Request) -> Response:
    """Make an evaluator; its configuration is checked now. Without a slug it gets one made of its name."""
    services, principal = services_of(request), principal_of(request)
    said = read_evaluator(await read_json_object(request))

    def make() -> Evaluator:
        rest = {name: value for name, value in said._asdict().items() if name != "slug"}
        if said.slug is not None:
            return services.catalog.evaluators.create(principal.org_id, slug=said.slug, **rest)
        wanted = slug_of(said.name)
        for number in range(1, SLUGS_TRIED):
            slug = wanted if number == 1 else f"{wanted}_{number}"
            if services.catalog.evaluators.find(principal.org_id, slug) is None:
                try:
                    return services.catalog.evaluators.create(principal.org_id, slug=slug, **rest)
                except Conflict:  # somebody else was faster
                    continue
        raise Conflict("There are too many evaluators of that name.", fields=("name",))

    made = render_evaluator(await services.reads.run(make))
    return Response(dump_json(made), status_code=201, media_type="application/json")


@requires(Permission.READ)
async def respan_list_evaluators(request: Request) -> Response:
    """A page of evaluators that match the filters, newest first unless `sort_by` says otherwise."""
    query = request.query_params
    body = await read_json_object(request) if request.method == "POST" else {}
    page = parse_page(query, PAGE_SIZE_MAX)
    found = _sorted(await _matching(request, body), query.get("sort_by") or "-created_at")
    first = (page.page - 1) * page.page_size
    shown = [render_evaluator(each) for each in found[first : first + page.page_size]]
    told = render_page(request, shown, total=len(found), page=page.page, page_size=page.page_size)
    return json_response(told | {"current_filters": current_filters(body.get("filters"))})


@requires(Permission.READ)
async def respan_count_evaluators(request: Request) -> Response:
    """How many evaluators match the filters."""
    return json_response({"total_count": len(await _matching(request, await read_json_object(request)))})


@requires(Permission.READ)
async def respan_retrieve_evaluator(request: Request) -> Response:
    """One evaluator, by its id or its slug."""
    services, principal = services_of(request), principal_of(request)
    return json_response(
        render_evaluator(
            await services.reads.run(lambda: _expect(services.catalog.evaluators.find(principal.org_id, _id(request))))
        )
    )


@requires(Permission.ANNOTATE)
async def respan_update_evaluator(request: Request) -> Response:
    """Change an evaluator: PATCH what is given, PUT all of it. Scores that are there stay as they are; those of another
    slug are another's."""
    services, principal = services_of(request), principal_of(request)
    body, evaluator_id = await read_json_object(request), _id(request)

    def change() -> Evaluator:
        known = _expect(services.catalog.evaluators.find(principal.org_id, evaluator_id))
        changes = read_evaluator(body, known, is_whole=request.method == "PUT").changes(known)
        return services.catalog.evaluators.update(principal.org_id, known.uuid, **changes) if changes else known

    return json_response(render_evaluator(await services.reads.run(change)))


@requires(Permission.ANNOTATE)
async def respan_delete_evaluator(request: Request) -> Response:
    """Remove an evaluator. The scores that it gave stay: they belong to their traces."""
    services, principal = services_of(request), principal_of(request)
    await services.reads.run(services.catalog.evaluators.remove, principal.org_id, _id(request))
    return Response(status_code=204)


async def _matching(request: Request, body: Json) -> list[Evaluator]:
    services, principal = services_of(request), principal_of(request)
    where = parse_filters(body.get("filters"), body.get("operator"), fields=_WORDS)
    every = await services.reads.run(services.catalog.evaluators.listed, principal.org_id)
    return [each for each in every if satisfies(where, partial(_holds, each))]


def _holds(evaluator: Evaluator, condition: Condition) -> bool:
    return holds(condition, _FIELDS[condition.field.name.removeprefix("evaluator.")][1](evaluator))


def _sorted(found: list[Evaluator], sort_by: str) -> list[Evaluator]:
    """In an order, ties by creation. Raises InvalidPage."""
    name, descending = parse_sort_by(sort_by, _SORTABLE)
    value_of: Any = _FIELDS[name][1]
    return sorted(found, key=lambda each: (value_of(each), each.id), reverse=descending)


def _id(request: Request) -> str:
    return str(request.path_params["evaluator_id"])


def _expect(found: Evaluator | None) -> Evaluator:
    if found is None:
        raise NotFound("There is no such evaluator.")
    return found


ROUTES: Final[tuple[RestRoute, ...]] = (
    operation("POST", f"{_ALL}list/", respan_list_evaluators, also=("GET",)),
    operation("POST", f"{_ALL}summary/", respan_count_evaluators),
    operation("POST", _ALL, respan_create_evaluator, "201"),
    operation("GET", _ALL, respan_list_evaluators, is_described=False),
    operation("GET", _ONE, respan_retrieve_evaluator),
    operation("PATCH", _ONE, respan_update_evaluator, also=("PUT",)),
    operation("DELETE", _ONE, respan_delete_evaluator, "204"),
)
"""Literal segments stand before the id, which would take them."""
