"""Datasets themselves: create, list, read, change, and where there is nothing behind an address."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import check_members, read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json
from clearspan.api.respan.datasets.bodies import MEMBERS, SaidOfDataset, merged_extra, read_dataset
from clearspan.api.respan.datasets.finding import check_may_use_datasets, dataset_in_path, find_dataset, uuid_hex
from clearspan.api.respan.datasets.taking import WITH_TRACES, copy_items, import_said, read_import
from clearspan.api.respan.datasets.views import render_dataset
from clearspan.api.respan.filters import Vocabulary, current_filters, parse_filters
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_page
from clearspan.api.respan.traces import json_response, owner_of
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.principal import KeyScope
from clearspan.experiments.dataset_definitions import find_dataset_field, matches, sorted_by
from clearspan.model.errors import Conflict, InvalidInput, NotFound

PAGE_SIZE_MAX: Final = 100
_WORDS: Final = Vocabulary(find_dataset_field)
_DEFAULT_SORT: Final = "-created_at"


@requires(Permission.INGEST)
async def respan_create_dataset(request: Request) -> Response:
    """Make a dataset: empty, with rows imported from the traces of a window, or with those of another dataset."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    check_may_use_datasets(principal)
    check_members(body, MEMBERS | WITH_TRACES | {"is_empty", "source_dataset_id"}, "a dataset")
    said = read_dataset(body)
    source = await _source(services, principal, body.get("source_dataset_id"))
    wanted = None if body.get("is_empty") or source is not None else read_import(request, body, is_required=False)
    if source is not None or wanted is not None:
        principal.require(KeyScope.READ)
    made = await services.reads.run(_create, services, principal, said, source)
    told: Json = {}
    if source is not None:
        await copy_items(services, principal, source, made)
    elif wanted is not None:
        told = await import_said(services, principal, made, wanted)
    return await _answer(services, principal, made, 201, told)


@requires(Permission.READ)
async def respan_list_datasets(request: Request) -> Response:
    """A page of the organisation's datasets, newest first unless `sort_by` says otherwise."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    body = await read_json_object(request) if request.method == "POST" else {}
    check_may_use_datasets(principal)
    where = parse_filters(body.get("filters"), body.get("operator"), fields=_WORDS)
    page = parse_page(query, PAGE_SIZE_MAX)

    def read() -> tuple[list[Json], int]:
        listed = [each for each in services.catalog.datasets.listed(principal.org_id) if matches(where, each)]
        ordered = sorted_by(query.get("sort_by") or _DEFAULT_SORT, listed)
        shown = ordered[page.offset : page.offset + page.page_size]
        return [_shown(services, principal, each) for each in shown], len(ordered)

    results, total = await services.reads.run(read)
    envelope = render_page(request, results, total=total, page=page.page, page_size=page.page_size)
    envelope |= {"total_count": total, "current_filters": current_filters(body.get("filters")), "filters_data": {}}
    return json_response(envelope)


@requires(Permission.READ)
async def respan_retrieve_dataset(request: Request) -> Response:
    """One dataset, with how many rows it has."""
    return await _answer(services_of(request), principal_of(request), await dataset_in_path(request), 200)


@requires(Permission.INGEST)
async def respan_update_dataset(request: Request) -> Response:
    """Change what is given of a dataset; its granularity stays. PUT does the same: nothing of a dataset is required."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    check_members(body, MEMBERS, "a dataset that is there")
    said = read_dataset(body)
    dataset = await dataset_in_path(request)

    def write() -> Dataset:
        own = {name: value for name, value in said.own.items() if name != "granularity"}
        settings = said.settings._replace(extra=merged_extra(dataset.extra, own))
        try:
            return services.catalog.datasets.update(principal.org_id, dataset.uuid, name=said.name, settings=settings)
        except Conflict as error:
            raise _taken(error) from None

    return await _answer(services, principal, await services.reads.run(write), 200)


@requires(Permission.READ)
async def respan_dataset_eval_reports(request: Request) -> Response:
    """Runs of evaluators over a dataset are experiments here: 404, which says so."""
    await dataset_in_path(request)
    # Not a 501: the clients send whatever gets a 5xx again.
    raise NotFound("Eval reports are not offered: run evaluators over a dataset as an experiment.", code="not_offered")


def _create(services: Services, principal: Principal, said: SaidOfDataset, source: Dataset | None) -> Dataset:
    name = said.name or (f"{source.name} (copy)" if source is not None else None)
    if not name:
        raise InvalidInput("name is required.", fields=("name",))
    settings = said.settings
    if source is not None:
        own = settings._asdict()
        settings = settings._replace(**{key: own[key] or getattr(source, key) for key in _COPIED})
    extra = merged_extra(None if source is None else source.extra, said.own)
    try:
        return services.catalog.datasets.create(principal.org_id, name, settings=settings._replace(extra=extra))
    except Conflict as error:
        raise _taken(error) from None


_COPIED: Final = ("description", "data_type", "inputs_schema", "outputs_schema", "on_source_deleted")


async def _source(services: Services, principal: Principal, dataset_id: Any) -> Dataset | None:
    if dataset_id is None:
        return None
    if not isinstance(dataset_id, str) or uuid_hex(dataset_id) is None:
        raise InvalidInput("source_dataset_id names no dataset.", fields=("source_dataset_id",))
    return await services.reads.run(find_dataset, services, principal, dataset_id)


def _taken(error: Conflict) -> InvalidInput:
    """A 400: the clients send what gets a 409 again, and a name would be taken again."""
    return InvalidInput(error.message, code=error.code, fields=error.fields)


async def _answer(
    services: Services, principal: Principal, dataset: Dataset, status: int, told: Json | None = None
) -> Response:
    shown = await services.reads.run(_shown, services, principal, dataset)
    return Response(dump_json(shown | (told or {})), status_code=status, media_type="application/json")


def _shown(services: Services, principal: Principal, dataset: Dataset) -> Json:
    return render_dataset(dataset, owner_of(principal), services.items.count(dataset))
