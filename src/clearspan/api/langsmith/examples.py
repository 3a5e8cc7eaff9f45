"""Examples, which are the items of datasets: store, read, count and change them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.dataset_access import check_may_use_datasets, find_dataset
from clearspan.api.langsmith.example_bodies import (
    ExampleBody,
    read_example_body,
    read_example_list,
    read_example_parts,
)
from clearspan.api.langsmith.example_query import find_examples, read_example_query
from clearspan.api.langsmith.example_taking import add_examples, change_examples, check_dataset_said, take_examples
from clearspan.api.langsmith.example_views import read_example_fields, render_example
from clearspan.api.langsmith.inputs import Json, path_uuid, query_time, render_time, uuid_text
from clearspan.api.langsmith.paths import classic, platform
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.items import Item
from clearspan.ingest.multipart import boundary_of
from clearspan.model.errors import InvalidInput, NotFound

_encoder = msgspec.json.Encoder()


@requires(Permission.INGEST)
async def create_example(request: Request) -> Response:
    """Store one example; `dataset_id` in its body says where."""

    async def store(bodies: list[ExampleBody]) -> Response:
        dataset = await _one_dataset(request, bodies)
        [item] = await add_examples(request, dataset, bodies)
        return example_reply(render_example(services_of(request), dataset, item))

    return await take_examples(request, lambda body: [read_example_body(body)], store)


@requires(Permission.INGEST)
async def create_examples(request: Request) -> Response:
    """Store a list of examples, all of one dataset."""

    async def store(bodies: list[ExampleBody]) -> Response:
        dataset = await _one_dataset(request, bodies)
        items = await add_examples(request, dataset, bodies)
        return example_reply([render_example(services_of(request), dataset, each) for each in items])

    return await take_examples(request, read_example_list, store)


@requires(Permission.INGEST)
async def upload_examples(request: Request) -> Response:
    """Store examples with attachments, sent as parts."""
    dataset = await _path_dataset(request)

    async def store(bodies: list[ExampleBody]) -> Response:
        check_dataset_said(dataset, bodies)
        return _stored(await add_examples(request, dataset, bodies), 201)

    return await take_examples(request, _parts_of(request), store)


@requires(Permission.INGEST)
async def update_uploaded_examples(request: Request) -> Response:
    """Change examples by what was sent as parts; what they do not say stays."""
    dataset = await _path_dataset(request)

    async def store(bodies: list[ExampleBody]) -> Response:
        check_dataset_said(dataset, bodies)
        return _stored(await change_examples(request, dataset, bodies), 200)

    return await take_examples(request, _parts_of(request), store)


@requires(Permission.INGEST)
async def upsert_examples(request: Request) -> Response:
    """Store the examples that are not there, change those that are; each main part names the dataset."""

    async def store(bodies: list[ExampleBody]) -> Response:
        services = services_of(request)
        dataset = await _one_dataset(request, bodies)
        known = await services.reads.run(_known, services, dataset, bodies)
        changed = [each for each in bodies if each.id in known]
        items = await add_examples(request, dataset, [each for each in bodies if each.id not in known])
        if changed:
            items += await change_examples(request, dataset, changed)
        return _stored(items, 201)

    return await take_examples(request, _parts_of(request), store)


@requires(Permission.INGEST)
async def update_example(request: Request) -> Response:
    """Change one example; what the body does not say stays."""
    example_id = path_uuid(request, "example_id")
    services, principal = services_of(request), principal_of(request)
    dataset, _ = await services.reads.run(find_example, services, principal, example_id, None)

    async def store(bodies: list[ExampleBody]) -> Response:
        check_dataset_said(dataset, bodies)
        items = await change_examples(request, dataset, [bodies[0]._replace(id=example_id)])
        told = render_example(services, dataset, items[0])
        return example_reply({"message": f"Example {uuid_text(example_id)} updated", **told})

    return await take_examples(request, lambda body: [read_example_body(body)], store)


@requires(Permission.INGEST)
async def update_examples(request: Request) -> Response:
    """Change a list of examples, all of one dataset."""

    async def store(bodies: list[ExampleBody]) -> Response:
        services, principal = services_of(request), principal_of(request)
        first = bodies[0]
        if first.dataset_uuid is None and first.id is not None:
            dataset, _ = await services.reads.run(find_example, services, principal, first.id, None)
        else:
            dataset = await _one_dataset(request, bodies)
        check_dataset_said(dataset, bodies)
        return _stored(await change_examples(request, dataset, bodies), 200)

    return await take_examples(request, read_example_list, store)


@requires(Permission.READ)
async def list_examples(request: Request) -> Response:
    """A page of examples: of a dataset, or of given ids; as they are now or, with `as_of`, were."""
    services, principal = services_of(request), principal_of(request)
    asked, fields = read_example_query(request.query_params), read_example_fields(request.query_params)

    def read() -> bytes:
        found, _ = find_examples(services, principal, asked)
        return _encoder.encode([render_example(services, dataset, item, fields) for dataset, item in found])

    return Response(await services.reads.run(read), media_type="application/json")


@requires(Permission.READ)
async def count_examples(request: Request) -> Response:
    """How many examples a list with these parameters has in all."""
    services, principal = services_of(request), principal_of(request)
    asked = read_example_query(request.query_params)

    def read() -> int:
        return find_examples(services, principal, asked._replace(offset=0, limit=1))[1]

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def read_example(request: Request) -> Response:
    """One example; with `as_of` the version that held then."""
    services, principal = services_of(request), principal_of(request)
    example_id, as_of = path_uuid(request, "example_id"), query_time(request.query_params, "as_of")
    dataset, item = await services.reads.run(find_example, services, principal, example_id, as_of)
    return example_reply(render_example(services, dataset, item))


def find_example(
    services: Services, principal: Principal, example_id: str, as_of_ns: int | None
) -> tuple[Dataset, Item]:
    """An example of the key's organisation and its dataset. Blocks. Raises NotFound, NotPermitted."""
    check_may_use_datasets(principal)
    found = services.items.find(principal.org_id, example_id, as_of_ns=as_of_ns)
    if found is None:
        raise NotFound("Example not found")
    return found


def example_reply(value: object, status: int = 200) -> Response:
    """An answer whose values may be JSON text of senders."""
    return Response(_encoder.encode(value), status, media_type="application/json")


def _stored(items: Sequence[Item], status: int) -> Response:
    """What clients read of a body that was stored. `as_of` is the version of the dataset that it made."""
    body: Json = {
        "count": len(items),
        "example_ids": [uuid_text(each.id) for each in items],
        "as_of": render_time(max((each.modified_ns for each in items), default=None)),
    }
    return json_reply(body, status)


def _parts_of(request: Request) -> Any:
    boundary = boundary_of(request.headers.get("content-type", ""))
    bytes_max = services_of(request).settings.attachment_bytes_max
    return partial(read_example_parts, boundary=boundary, attachment_bytes_max=bytes_max)


async def _path_dataset(request: Request) -> Dataset:
    services, principal = services_of(request), principal_of(request)
    return await services.reads.run(find_dataset, services, principal, path_uuid(request, "dataset_id"))


async def _one_dataset(request: Request, bodies: Sequence[ExampleBody]) -> Dataset:
    """The dataset that all of a body's examples name. Raises InvalidInput, NotFound."""
    services, principal = services_of(request), principal_of(request)
    named = {each.dataset_uuid for each in bodies}
    uuid = bodies[0].dataset_uuid
    if uuid is None or len(named) > 1:
        raise InvalidInput("The examples of a request name one dataset, all the same.", fields=("dataset_id",))
    return await services.reads.run(find_dataset, services, principal, uuid)


def _known(services: Services, dataset: Dataset, bodies: Sequence[ExampleBody]) -> set[str]:
    ids = [each.id for each in bodies if each.id is not None]
    return set(services.items.list_ids(dataset, ids=ids, limit=len(ids))) if ids else set()


ROUTES: Final = (
    classic("POST", "/examples", create_example),
    classic("POST", "/examples/bulk", create_examples),
    classic("PATCH", "/examples/bulk", update_examples),
    classic("GET", "/examples", list_examples),
    classic("GET", "/examples/count", count_examples),
    classic("GET", "/examples/{example_id}", read_example),
    classic("PATCH", "/examples/{example_id}", update_example),
    platform("POST", "/examples/multipart", upsert_examples),
    platform("POST", "/datasets/{dataset_id}/examples", upload_examples),
    platform("PATCH", "/datasets/{dataset_id}/examples", update_uploaded_examples),
)
