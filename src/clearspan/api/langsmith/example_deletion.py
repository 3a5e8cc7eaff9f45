"""Deleting examples and datasets. What is removed, when, and how it is proved is `clearspan.deletion`'s.

An example goes with all its versions. The vendor keeps them and has a `hard_delete` for what is really meant to go;
here every deletion is one, so that flag changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import find_dataset
from clearspan.api.langsmith.example_query import IDS_MAX, locate_examples
from clearspan.api.langsmith.inputs import Json, path_uuid, read_uuid, read_uuids, uuid_text
from clearspan.api.langsmith.paths import classic, platform
from clearspan.api.langsmith.session_removal import DIALECT, is_erased_whole, reason_of, removal_answer
from clearspan.api.policies import policy_of
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.projects import RemovalRequest
from clearspan.deletion.request import DeletionRequest
from clearspan.deletion.result import DeletionResult, render_message
from clearspan.model.errors import ClearspanError, InvalidInput, NotFound
from clearspan.model.trace import Scope, Window

_SLACK_NS: Final = 10**9


@requires(Permission.DELETE)
async def delete_example(request: Request) -> Response:
    """Delete one example with all its versions. 200: erased and verified; 202: hidden so far."""
    return await _delete(request, [path_uuid(request, "example_id")])


@requires(Permission.DELETE)
async def delete_dataset_example(request: Request) -> Response:
    """The same for an example of one dataset."""
    services, principal = services_of(request), principal_of(request)
    dataset = await services.reads.run(find_dataset, services, principal, path_uuid(request, "dataset_id"))
    return await _delete(request, [path_uuid(request, "example_id")], dataset)


@requires(Permission.DELETE)
async def delete_examples(request: Request) -> Response:
    """The same for several. Ids of no example are told as `unmatched_ids`; with such ids only it is a 404."""
    return await _delete(request, read_uuids(request.query_params, "example_ids"))


@requires(Permission.DELETE)
async def delete_listed_examples(request: Request) -> Response:
    """The same with the ids in the body. Every deletion here is what `hard_delete` means elsewhere."""
    said = (await read_json_object(request)).get("example_ids")
    if not isinstance(said, list):
        raise InvalidInput("example_ids must be a list of UUIDs; nothing was deleted.", fields=("example_ids",))
    return await _delete(request, [read_uuid(each, "example_ids") for each in said])


@requires(Permission.DELETE)
async def delete_dataset(request: Request) -> Response:
    """Remove a dataset with all its examples and the results of experiments on them. The experiments stay, empty."""
    return await _remove(request, [path_uuid(request, "dataset_id")])


@requires(Permission.DELETE)
async def delete_datasets(request: Request) -> Response:
    """The same for several. With an unknown id among them nothing is removed."""
    return await _remove(request, read_uuids(request.query_params, "dataset_ids"))


async def _delete(request: Request, ids: list[str], dataset: Dataset | None = None) -> Response:
    ids = list(dict.fromkeys(ids))
    if not 1 <= len(ids) <= IDS_MAX:
        raise InvalidInput(f"A deletion takes 1 to {IDS_MAX:,} examples; nothing was deleted.", fields=("example_ids",))
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(locate_examples, services, principal, ids, dataset)
    if not found:
        raise NotFound("Example not found; nothing was deleted")
    # No version of them is written meanwhile: it would be one that the deletion does not know of.
    async with services.items.holding(found):
        result = await _delete_found(request, services, principal, found)
    body = _told(result, f"{len(found)} examples with all their versions: ") | {
        "example_ids": [uuid_text(each) for each in found],
        "unmatched_ids": [uuid_text(each) for each in ids if each not in found],
    }
    return removal_answer(body, [result], is_done=is_erased_whole(result))


async def _delete_found(
    request: Request, services: Services, principal: Principal, found: Mapping[str, Dataset]
) -> DeletionResult:
    datasets = {each.uuid: each for each in found.values()}
    deletion = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=Scope(tuple(sorted(each.project_id for each in datasets.values()))),
        selection=services.items.deletion_of(next(iter(datasets.values())), list(found)),
        # Every version there is: ids bound the deletion, and a key that may not say `delete_all` may name examples.
        window=Window(0, services.clock.now_ns() + _SLACK_NS),
        reason=reason_of(request),
        idempotency_key=request.headers.get("idempotency-key") or None,
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    result = await services.deletes.run(
        services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    for each in datasets.values():
        await services.reads.run(services.catalog.datasets.touch, principal.org_id, each.uuid)
    return result


async def _remove(request: Request, uuids: list[str]) -> Response:
    uuids = list(dict.fromkeys(uuids))
    if not 1 <= len(uuids) <= 100:
        raise InvalidInput("dataset_ids takes 1 to 100 ids; nothing was deleted.", fields=("dataset_ids",))
    services, principal = services_of(request), principal_of(request)
    found = [await services.reads.run(find_dataset, services, principal, each) for each in uuids]
    deadline_s = services.clock.monotonic_s() + services.settings.delete_wait_s
    reason = reason_of(request)
    results: list[DeletionResult] = []
    told: list[Json] = []
    refusals: list[ClearspanError] = []
    for dataset in found:
        own: Json = {"id": uuid_text(dataset.uuid)}
        try:
            result = await services.deletes.run(_remove_one, services, principal, dataset, reason, deadline_s)
        except ClearspanError as error:  # one that is held keeps nobody from learning what became of the others
            refusals.append(error)
            told.append(own | {"message": error.message, "error": error.code})
        else:
            results.append(result)
            told.append(own | _told(result, f"Dataset {dataset.name}: "))
    if not results:
        raise refusals[0]
    is_done = not refusals and all(map(is_erased_whole, results))
    message = told[0]["message"]
    if len(told) > 1:
        message = f"{len(results)} of {len(told)} datasets deleted; `datasets` says of each what became of it"
    return removal_answer({"message": message, "datasets": told}, results, is_done=is_done)


def _remove_one(
    services: Services, principal: Principal, dataset: Dataset, reason: str | None, deadline_s: float
) -> DeletionResult:
    project = services.catalog.find_project_number(principal.org_id, dataset.project_id)
    if project is None:
        raise NotFound("Dataset not found")
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=reason,
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    return services.removal.remove(project, asked, wait_s=max(0.0, deadline_s - services.clock.monotonic_s()))


def _told(result: DeletionResult, what: str) -> Json:
    told: dict[str, Any] = {
        "message": what + render_message(result),
        "deletion_id": result.deletion_id,
        "state": str(result.state),
        "deleted_count": result.hidden if result.is_erased else 0,
        "hidden_count": result.hidden,
        "held_count": result.held,
    }
    return told


ROUTES: Final = (
    classic("DELETE", "/examples", delete_examples),
    classic("DELETE", "/examples/{example_id}", delete_example),
    platform("POST", "/datasets/examples/delete", delete_listed_examples),
    platform("DELETE", "/datasets/{dataset_id}/examples/{example_id}", delete_dataset_example),
    classic("DELETE", "/datasets", delete_datasets),
    classic("DELETE", "/datasets/{dataset_id}", delete_dataset),
)
