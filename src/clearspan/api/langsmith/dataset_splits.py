"""Splits of a dataset, and changes of metadata to many examples at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import as_of_ns, find_dataset
from clearspan.api.langsmith.dataset_versions import rows_as_of
from clearspan.api.langsmith.example_bodies import SPLIT_KEY, Fields
from clearspan.api.langsmith.example_views import BASE_SPLIT
from clearspan.api.langsmith.inputs import Json, optional_text, optional_texts, path_uuid, read_uuid
from clearspan.api.langsmith.paths import classic, platform
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_documents import SPLITS_KEY
from clearspan.experiments.items import Item, ItemChange
from clearspan.model.errors import InvalidInput

IDS_MAX: Final = 10_000
OPERATIONS_MAX: Final = 50
VALUES_MAX: Final = 1_000
KEY_BYTES_MAX: Final = 255
_decode_fields: Final = msgspec.json.Decoder(Fields).decode


class Operation(NamedTuple):
    """One change of metadata."""

    key: str
    kind: str  # "SET" | "ARRAY_ADD" | "ARRAY_REMOVE"
    value: Any = None  # of SET
    values: tuple[str, ...] = ()  # of the others


@requires(Permission.READ)
async def list_splits(request: Request) -> Response:
    """The names of a dataset's splits, now or as of a version."""
    services, principal = services_of(request), principal_of(request)
    uuid, as_of = path_uuid(request, "dataset_id"), request.query_params.get("as_of")

    def read() -> list[str]:
        dataset = find_dataset(services, principal, uuid)
        found: set[str] = set()
        for row in rows_as_of(services, dataset, as_of_ns(dataset, as_of)):
            found.update(_splits_of(dict(row.summary.metadata)))
        return sorted(found)

    return json_reply(await services.reads.run(read))


@requires(Permission.INGEST)
async def update_splits(request: Request) -> Response:
    """Put examples into a split, or with `remove` take them out of it. Answers with the splits of the dataset."""
    body = await read_json_object(request)
    name = optional_text(body, "split_name")
    if not name:
        raise InvalidInput("split_name is required.", fields=("split_name",))
    kind = "ARRAY_REMOVE" if body.get("remove") is True else "ARRAY_ADD"
    await _apply(request, _ids(body, "examples"), [Operation(SPLIT_KEY, kind, values=(name,))])
    return await list_splits(request)


@requires(Permission.INGEST)
async def update_example_metadata(request: Request) -> Response:
    """Apply the same changes of metadata to every listed example. 207 with a status for each id."""
    body = await read_json_object(request)
    ids = _ids(body, "example_ids")
    changed = await _apply(request, ids, _operations(body))
    statuses = [
        {"id": written, "status": "UPDATED"}
        if example_id in changed
        else {"id": written, "status": "NOT_FOUND", "description": "There is no such example in the dataset."}
        for written, example_id in ids.items()
    ]
    return json_reply({"statuses": statuses}, 207)


async def _apply(request: Request, ids: Mapping[str, str], operations: Sequence[Operation]) -> set[str]:
    """Change what there is of some examples. Returns the ids of those."""
    services, principal = services_of(request), principal_of(request)
    uuid = path_uuid(request, "dataset_id")
    dataset, items = await services.reads.run(_load, services, principal, uuid, list(dict.fromkeys(ids.values())))
    changes = [_change(item, operations) for item in items]
    await services.items.update(dataset, changes, principal_key=principal.key_id)
    return {item.id for item in items}


def _load(services: Services, principal: Principal, uuid: str, ids: Sequence[str]) -> tuple[Dataset, list[Item]]:
    dataset = find_dataset(services, principal, uuid)
    return dataset, services.items.by_ids(dataset, ids)


def _change(item: Item, operations: Sequence[Operation]) -> ItemChange:
    metadata: dict[str, Any] = dict(_decode_fields(item.texts.get("metadata", b"{}")))
    splits = list(item.splits or (BASE_SPLIT,))
    for each in operations:
        if each.key == SPLIT_KEY:
            splits = _joined(splits, each)
        elif each.kind == "SET":
            metadata[each.key] = each.value
        else:
            old = msgspec.json.decode(metadata[each.key]) if isinstance(metadata.get(each.key), msgspec.Raw) else None
            old = metadata.get(each.key) if old is None else old
            metadata[each.key] = _joined(old if isinstance(old, list) else [], each)
    changes_metadata = any(each.key != SPLIT_KEY for each in operations)
    return ItemChange(
        item.id,
        metadata=msgspec.Raw(msgspec.json.encode(metadata)) if changes_metadata else UNSET,
        splits=tuple(splits),
    )


def _joined(old: list[Any], operation: Operation) -> list[Any]:
    if operation.kind == "ARRAY_REMOVE":
        return [each for each in old if each not in operation.values]
    return [*old, *(each for each in operation.values if each not in old)]


def _ids(body: Json, name: str) -> dict[str, str]:
    """As the caller wrote each → 32 hex digits. Raises InvalidInput."""
    found = body.get(name)
    if not isinstance(found, list) or not 1 <= len(found) <= IDS_MAX:
        raise InvalidInput(f"{name} is a list of 1 to {IDS_MAX:,} UUIDs.", fields=(name,))
    return {str(each): read_uuid(each, name) for each in found}


def _operations(body: Json) -> list[Operation]:
    found = body.get("operations")
    if not isinstance(found, list) or not 1 <= len(found) <= OPERATIONS_MAX:
        raise InvalidInput(f"operations is a list of 1 to {OPERATIONS_MAX}.", fields=("operations",))
    return [_operation(each, f"operations.{number}") for number, each in enumerate(found)]


def _operation(said: Any, place: str) -> Operation:
    if not isinstance(said, dict):
        raise InvalidInput(f"{place} must be an object.", fields=(place,))
    key, kind = optional_text(said, "key"), (optional_text(said, "operation") or "").upper()
    if not key or len(key.encode()) > KEY_BYTES_MAX:
        raise InvalidInput(f"{place}.key has 1 to {KEY_BYTES_MAX} bytes.", fields=(f"{place}.key",))
    if kind not in ("SET", "ARRAY_ADD", "ARRAY_REMOVE") or (kind == "SET" and key == SPLIT_KEY):
        raise InvalidInput(
            f"{place}.operation is SET, ARRAY_ADD or ARRAY_REMOVE; splits are added and removed.",
            fields=(f"{place}.operation",),
        )
    values = optional_texts(said, "values") or []
    if kind != "SET" and not 1 <= len(values) <= VALUES_MAX:
        raise InvalidInput(f"{place}.values is a list of 1 to {VALUES_MAX:,} texts.", fields=(f"{place}.values",))
    return Operation(key, kind, said.get("value"), tuple(values))


def _splits_of(metadata: Mapping[str, str]) -> list[str]:
    return list(filter(None, metadata.get(SPLITS_KEY, "").split("\n"))) or [BASE_SPLIT]


ROUTES: Final = (
    classic("GET", "/datasets/{dataset_id}/splits", list_splits),
    classic("PUT", "/datasets/{dataset_id}/splits", update_splits),
    platform("PATCH", "/datasets/{dataset_id}/examples/metadata", update_example_metadata),
)
