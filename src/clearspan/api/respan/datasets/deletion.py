"""Deleting rows and datasets: ordinary deletions, with holds, proof and a receipt. A row goes in all its versions."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.policies import policy_of
from clearspan.api.respan.convert import Json
from clearspan.api.respan.datasets.finding import dataset_in_path, uuid_hex
from clearspan.api.respan.datasets.words import LOGS
from clearspan.api.respan.deletes import DIALECT, REASON_CHARS_MAX, REASON_HEADER
from clearspan.api.respan.filters import parse_filters
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.projects import RemovalRequest
from clearspan.deletion.request import ByFilter, DeletionRequest
from clearspan.deletion.result import DeletionResult
from clearspan.model.errors import InvalidFilter, InvalidInput, NotFound, Unguarded
from clearspan.model.trace import Window

ROWS_MAX: Final = 10_000
"""Rows that one deletion by filter takes; all rows at once have no limit but the key's."""
_SLACK_NS: Final = 10**9
_BODY_KEYS: Final = frozenset({"is_deleting_all_logs", "filters", "operator"})


@requires(Permission.DELETE)
async def respan_delete_dataset(request: Request) -> Response:
    """Remove a dataset with all its rows. 204: they are erased and verified; 202: hidden so far. Experiments on it
    stay: they are deleted by themselves."""
    services, principal = services_of(request), principal_of(request)
    _refuse_query(request)
    dataset = await dataset_in_path(request)
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=_reason(request),
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )

    def remove() -> DeletionResult:
        project = services.catalog.find_project_number(principal.org_id, dataset.project_id)
        if project is None:
            raise NotFound("No dataset was found under that id.")
        return services.removal.remove(project, asked, wait_s=services.settings.delete_wait_s)

    return _answer(await services.deletes.run(remove), "dataset", rows=None)


@requires(Permission.DELETE)
async def respan_delete_dataset_log(request: Request) -> Response:
    """Delete one row in all its versions. 204: erased and verified; 202: hidden so far."""
    services, principal = services_of(request), principal_of(request)
    _refuse_query(request)
    dataset = await dataset_in_path(request)
    item_id = uuid_hex(request.path_params["unique_id"])
    if item_id is None or not await services.reads.run(services.items.list_ids, dataset, ids=[item_id], limit=1):
        raise NotFound("The dataset has no log of that id; nothing was deleted.")
    result = await _delete_rows(request, services, principal, dataset, [item_id])
    return _answer(result, "log", rows=None)


@requires(Permission.DELETE)
async def respan_delete_dataset_logs(request: Request) -> Response:
    """Delete the rows that match the filters, or with `is_deleting_all_logs` and no filters every row.

    Neither is a 400, and so is a key that is not known. Rows go in all their versions, also those that match no more.
    """
    services, principal = services_of(request), principal_of(request)
    _refuse_query(request)
    dataset = await dataset_in_path(request)
    body = await read_json_object(request)
    for key in body:
        if key not in _BODY_KEYS:
            allowed = ", ".join(sorted(_BODY_KEYS))
            raise InvalidInput(f"{key} is not known here (known: {allowed}); nothing was deleted.", fields=(key,))
    where = parse_filters(body.get("filters"), body.get("operator"), fields=LOGS)
    everything = body.get("is_deleting_all_logs")
    if everything is not None and not isinstance(everything, bool):
        raise InvalidInput("is_deleting_all_logs is true or false.", fields=("is_deleting_all_logs",))
    if everything and where is not None:
        raise InvalidInput("is_deleting_all_logs goes without filters; nothing was deleted.", fields=("filters",))
    if everything:
        total = await services.reads.run(services.items.count, dataset)
        selection = services.items.deletion_of_all(dataset)
        result = await _delete(request, services, principal, dataset, selection)
        return _answer(result, "logs", rows=total)
    if where is None:
        text = "filters is required, or is_deleting_all_logs; nothing was deleted."
        raise InvalidFilter(text, code="empty_filter", fields=("filters",))
    ids = await services.reads.run(services.items.list_ids, dataset, where=where, limit=ROWS_MAX + 1)
    if len(ids) > ROWS_MAX:
        raise Unguarded(f"More than {ROWS_MAX} rows match; nothing was deleted. Narrow the filters.")
    result = await _delete_rows(request, services, principal, dataset, ids)
    return _answer(result, "logs", rows=len(ids))


async def _delete_rows(
    request: Request, services: Services, principal: Principal, dataset: Dataset, ids: list[str]
) -> DeletionResult:
    # No version of them is written meanwhile: it would be one that the deletion does not know of.
    async with services.items.holding(ids):
        return await _delete(request, services, principal, dataset, services.items.deletion_of(dataset, ids))


async def _delete(
    request: Request, services: Services, principal: Principal, dataset: Dataset, selection: ByFilter
) -> DeletionResult:
    deletion = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=services.items.scope_of(dataset),
        selection=selection,
        # Every version there is: the dataset bounds the deletion, not the time.
        window=Window(0, services.clock.now_ns() + _SLACK_NS),
        reason=_reason(request),
        idempotency_key=request.headers.get("idempotency-key") or None,
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    result = await services.deletes.run(
        services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    await services.reads.run(services.catalog.datasets.touch, principal.org_id, dataset.uuid)
    return result


def _answer(result: DeletionResult, what: str, *, rows: int | None) -> Response:
    """204 or 202 for one thing; for rows a body that counts them, as the client's model asks for."""
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": str(result.state),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    is_done = result.is_erased and not result.held
    if rows is None and is_done:
        return Response(status_code=204, headers=headers)
    counts: Json = {} if rows is None else {"matched_count": rows}
    state = (
        "deleted"
        if is_done
        else "hidden, and not erased yet"
        if not result.held
        else "deleted in part: holds keep some"
    )
    body = counts | {
        "message": f"{'1 ' if rows is None else f'{rows} '}{what} {state}",
        "versions_hidden_count": result.hidden,
        "versions_held_count": result.held,
        "deletion_id": result.deletion_id,
        "state": str(result.state),
    }
    status = 202 if rows is None else 200
    return Response(dump_json(body), status_code=status, headers=headers, media_type="application/json")


def _refuse_query(request: Request) -> None:
    """A bound that is not read here must not silently delete more."""
    for key in request.query_params:
        raise InvalidInput(f"{key} is no query parameter of this deletion; nothing was deleted.", fields=(key,))


def _reason(request: Request) -> str | None:
    return request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None
