"""Datasets: make, list, read and change them. Removing one is example_deletion.py's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import check_may_use_datasets, find_dataset
from clearspan.api.langsmith.dataset_bodies import (
    LIMIT_MAX,
    DatasetQuery,
    read_dataset_name,
    read_dataset_query,
    read_dataset_settings,
)
from clearspan.api.langsmith.dataset_views import DatasetFigures, figure_of, render_dataset
from clearspan.api.langsmith.inputs import Json, optional_uuid, path_uuid, read_count
from clearspan.api.langsmith.paths import classic, v2
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_reading import ItemPart
from clearspan.experiments.item_schemas import SchemaCheck
from clearspan.model.errors import InvalidInput

_NOT_SHARED: Final = (
    "Datasets are not shared here: their examples may be copies of traces, which are shared one by one."
)


@requires(Permission.INGEST)
async def create_dataset(request: Request) -> Response:
    """A new dataset."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)

    def make() -> Json:
        check_may_use_datasets(principal)
        name, uuid, settings = read_dataset_name(body), optional_uuid(body, "id"), read_dataset_settings(body)
        made = services.catalog.datasets.create(principal.org_id, name, uuid=uuid, settings=settings)
        return render_dataset(made, DatasetFigures(0, 0, None), principal)

    return json_reply(await services.reads.run(make))


@requires(Permission.READ)
async def list_datasets(request: Request) -> Response:
    """A page of datasets, the newest first unless `sort_by` says otherwise; `X-Pagination-Total` counts all."""
    services, principal = services_of(request), principal_of(request)
    asked = read_dataset_query(request.query_params)
    told, total = await services.reads.run(_list, services, principal, asked)
    return json_reply(told, headers={"X-Pagination-Total": str(total)})


@requires(Permission.READ)
async def list_datasets_v2(request: Request) -> Response:
    """The same with a cursor, which is the place of the next page."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    size = read_count(query, "page_size", 20, least=1, most=LIMIT_MAX)
    offset = read_count(query, "cursor", 0)
    asked = read_dataset_query(query, offset=offset, limit=size)
    told, total = await services.reads.run(_list, services, principal, asked)
    return json_reply({"items": told, "next_cursor": str(offset + size) if offset + size < total else None})


@requires(Permission.READ)
async def read_dataset(request: Request) -> Response:
    """One dataset."""
    services, principal = services_of(request), principal_of(request)
    uuid = path_uuid(request, "dataset_id")

    def read() -> Json:
        found = find_dataset(services, principal, uuid)
        return render_dataset(found, _figures(services, principal)(found), principal)

    return json_reply(await services.reads.run(read))


@requires(Permission.INGEST)
async def update_dataset(request: Request) -> Response:
    """Change what is given of a dataset; null changes nothing. A schema must fit the examples that there are."""
    services, principal = services_of(request), principal_of(request)
    uuid, body = path_uuid(request, "dataset_id"), await read_json_object(request)

    def write() -> Json:
        found = find_dataset(services, principal, uuid)
        name = None if body.get("name") is None else read_dataset_name(body)
        settings = read_dataset_settings(body, found)
        if settings.inputs_schema is not None or settings.outputs_schema is not None:
            _check_items(services, found, SchemaCheck(settings.inputs_schema or None, settings.outputs_schema or None))
        changed = services.catalog.datasets.update(principal.org_id, uuid, name=name, settings=settings)
        return render_dataset(changed, _figures(services, principal)(changed), principal)

    return json_reply(await services.reads.run(write))


@requires(Permission.READ)
async def read_dataset_share(request: Request) -> Response:
    """The token of a dataset: there is none, null."""
    services, principal = services_of(request), principal_of(request)
    await services.reads.run(find_dataset, services, principal, path_uuid(request, "dataset_id"))
    return json_reply(None)


@requires(Permission.ANNOTATE)
async def share_dataset(request: Request) -> Response:
    """Links to whole datasets are not made here: 501."""
    return json_reply({"detail": _NOT_SHARED}, 501)


@requires(Permission.ANNOTATE)
async def unshare_dataset(request: Request) -> Response:
    """There is no link to take back."""
    return json_reply({"message": "This dataset is not shared."})


def _list(services: Services, principal: Principal, asked: DatasetQuery) -> tuple[list[Json], int]:
    check_may_use_datasets(principal)
    if asked.name is not None:  # what clients ask most: no need to read all of them
        one = services.catalog.datasets.find_name(principal.org_id, asked.name)
        candidates = [] if one is None else [one]
    else:
        candidates = services.catalog.datasets.listed(principal.org_id)
    found = [each for each in candidates if asked.wants(each)]
    figures = _figures(services, principal)
    ordered = asked.sorted(found, lambda dataset, name: figure_of(dataset, figures(dataset), name))
    page = ordered[asked.offset : asked.offset + asked.limit]
    return [render_dataset(each, figures(each), principal) for each in page], len(found)


def _figures(services: Services, principal: Principal) -> Callable[[Dataset], DatasetFigures]:
    """What to ask for a dataset's figures; each dataset is counted once. Blocks."""
    sessions: dict[str, list[Project]] = {}
    for each in services.catalog.projects(principal.org_id):
        if each.reference_dataset_id is not None:
            sessions.setdefault(each.reference_dataset_id, []).append(each)
    known: dict[str, DatasetFigures] = {}

    def figures(dataset: Dataset) -> DatasetFigures:
        if dataset.uuid not in known:
            mine = sessions.get(dataset.uuid, [])
            latest = max((each.start_ns or each.created_at_ns for each in mine), default=None)
            known[dataset.uuid] = DatasetFigures(services.items.count(dataset), len(mine), latest)
        return known[dataset.uuid]

    return figures


def _check_items(services: Services, dataset: Dataset, check: SchemaCheck) -> None:
    """Raise InvalidInput when an example there is does not fit. Cost: a read of all of them."""
    page: ItemPart | None = None
    while page is None or page.after is not None:
        page = services.items.part(dataset, after=None if page is None else page.after, limit=100)
        for item in page.items:
            try:
                check.check(item.inputs, item.outputs, f"example {item.id}")
            except InvalidInput as error:
                raise InvalidInput(f"{error.message[:-1]}; the schema was not changed.", fields=error.fields) from None


ROUTES: Final = (
    classic("POST", "/datasets", create_dataset),
    classic("GET", "/datasets", list_datasets),
    classic("GET", "/datasets/{dataset_id}", read_dataset),
    classic("PATCH", "/datasets/{dataset_id}", update_dataset),
    classic("GET", "/datasets/{dataset_id}/share", read_dataset_share),
    classic("PUT", "/datasets/{dataset_id}/share", share_dataset),
    classic("DELETE", "/datasets/{dataset_id}/share", unshare_dataset),
    v2("GET", "/datasets", list_datasets_v2),
)
