"""The rows of a dataset: add, list, read, change, import, sum up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json
from clearspan.api.respan.datasets.bodies import LOGS_MAX, item_change, new_item, read_rows
from clearspan.api.respan.datasets.definitions import PAGE_SIZE_MAX
from clearspan.api.respan.datasets.finding import as_of, dataset_in_path, find_item, uuid_hex, uuid_text
from clearspan.api.respan.datasets.taking import import_said, read_import
from clearspan.api.respan.datasets.views import chosen, measured, render_log
from clearspan.api.respan.datasets.words import LOGS, parse_log_order
from clearspan.api.respan.filters import current_filters, parse_filters
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_page
from clearspan.api.respan.traces import json_response, owner_of
from clearspan.api.services import Services, services_of
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.principal import KeyScope
from clearspan.experiments.items import ItemPage, NewItem
from clearspan.model.errors import Conflict, InvalidInput
from clearspan.query.ast import Expr
from clearspan.query.page import PAGE_SIZE_MAX as READ_MAX

_GONE: Final = "A row of that id was deleted."
SUMMED_MAX: Final = 20_000
"""Rows that a summary reads: their figures stand in the rows themselves."""


@requires(Permission.INGEST)
async def respan_add_dataset_log(request: Request) -> Response:
    """Add one row."""
    services, principal = services_of(request), principal_of(request)
    dataset = await dataset_in_path(request)
    said, raw = await read_rows(request)
    try:
        [item] = await services.items.add(principal.key_id, dataset, [new_item(raw, said)])
    except Conflict as error:
        raise _lasting(error) from None
    return _json({"message": "Log created", "unique_id": uuid_text(item.id), "id": uuid_text(item.id)}, 201)


@requires(Permission.INGEST)
async def respan_add_dataset_logs(request: Request) -> Response:
    """Add 1 to 500 rows, each for itself: 201 with the errors of those that could not be taken, 400 if none could."""
    services, principal = services_of(request), principal_of(request)
    dataset = await dataset_in_path(request)
    said, raw = await read_rows(request)
    rows = said.get("logs")
    if not isinstance(rows, list) or not 1 <= len(rows) <= LOGS_MAX:
        raise InvalidInput(f"logs is a list of 1 to {LOGS_MAX} rows.", fields=("logs",))
    new: dict[int, NewItem] = {}
    errors: dict[int, str] = {}
    for index, (row, texts) in enumerate(zip(rows, _texts_of(raw["logs"]), strict=True)):
        try:
            if not isinstance(row, dict):
                raise InvalidInput("A row must be an object.")
            new[index] = new_item(texts, row)
        except InvalidInput as error:
            errors[index] = error.message
    ids, refused = await _add_each(services, principal.key_id, dataset, new)
    errors |= refused
    body = {
        "success_count": len(ids),
        "error_count": len(errors),
        "errors": [{"index": index, "error": errors[index]} for index in sorted(errors)],
        "unique_ids": [uuid_text(ids[index]) for index in sorted(ids)],
    }
    if not ids:
        body |= {"detail": errors[min(errors)], "error": errors[min(errors)], "code": "invalid_input"}
    return _json(body, 201 if ids else 400)


@requires(Permission.READ)
async def respan_list_dataset_logs(request: Request) -> Response:
    """A page of rows that match the filters, those that changed last first; with `as_of` as they were then."""
    services, query = services_of(request), request.query_params
    dataset = await dataset_in_path(request)
    body = await read_json_object(request) if request.method == "POST" else {}
    _refuse_export(body, query.get("export"))
    where = parse_filters(body.get("filters"), body.get("operator"), fields=LOGS)
    page, sort, as_of_ns = parse_page(query, PAGE_SIZE_MAX), parse_log_order(query.get("sort_by")), as_of(request)
    owner = owner_of(principal_of(request))

    def read() -> tuple[list[Json], int]:
        found = _page(services, dataset, where, as_of_ns, page.offset, page.page_size, sort=sort,
                      splits=query.getlist("split") or None)  # fmt: skip
        return [chosen(render_log(each, owner), query.get("include_fields")) for each in found.items], found.total

    results, total = await services.reads.run(read)
    envelope = render_page(request, results, total=total, page=page.page, page_size=page.page_size)
    envelope |= {"total_count": total, "current_filters": current_filters(body.get("filters"))}
    return json_response(envelope | {"filters_data": {}, "filter_options": {}})


@requires(Permission.READ)
async def respan_retrieve_dataset_log(request: Request) -> Response:
    """One row; with `as_of` as it was then."""
    services = services_of(request)
    dataset = await dataset_in_path(request)
    item_id, as_of_ns = request.path_params["unique_id"], as_of(request)
    item = await services.reads.run(find_item, services, dataset, item_id, as_of_ns)
    return json_response(render_log(item, owner_of(principal_of(request)), is_one=True))


@requires(Permission.INGEST)
async def respan_update_dataset_log(request: Request) -> Response:
    """Write a new version of a row: PATCH changes what is given, PUT also clears what is not, but for the input."""
    services, principal = services_of(request), principal_of(request)
    dataset = await dataset_in_path(request)
    said, raw = await read_rows(request)
    before = await services.reads.run(find_item, services, dataset, request.path_params["unique_id"])
    metrics = before.metrics if isinstance(before.metrics, dict) else {}
    change = item_change(before.id, raw, said, replaces=request.method == "PUT", metrics=metrics)
    [item] = await services.items.update(dataset, [change], principal_key=principal.key_id)
    return json_response(render_log(item, owner_of(principal), is_one=True))


@requires(Permission.INGEST)
async def respan_import_dataset_logs(request: Request) -> Response:
    """Add a row for each trace of a window that matches the filters and has none: answered when all are stored.

    A row holds what went into the trace's root and what came out, whatever the granularity. Deleting the trace takes
    it along, as the dataset's `on_source_deleted` says.
    """
    services, principal = services_of(request), principal_of(request)
    dataset = await dataset_in_path(request)
    said = read_import(request, await read_json_object(request))
    assert said is not None
    principal.require(KeyScope.READ)
    return json_response(await import_said(services, principal, dataset, said))


@requires(Permission.READ)
async def respan_summarise_dataset_logs(request: Request) -> Response:
    """Sums and means over what the matching rows say they cost and took; what they do not say is left out."""
    services = services_of(request)
    dataset = await dataset_in_path(request)
    body = await read_json_object(request) if request.method == "POST" else {}
    where = parse_filters(body.get("filters"), body.get("operator"), fields=LOGS)
    return json_response(await services.reads.run(_summary, services, dataset, where, as_of(request)))


def _summary(services: Services, dataset: Dataset, where: Expr | None, as_of_ns: int | None) -> Json:
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    total = offset = 0
    while True:
        page = _page(services, dataset, where, as_of_ns, offset, READ_MAX)
        total = page.total
        if total > SUMMED_MAX:
            raise InvalidInput(f"{total} rows match, and a summary takes at most {SUMMED_MAX}; narrow the filter.")
        for item in page.items:
            for key, value in measured(item).items():
                sums[key], counts[key] = sums.get(key, 0) + value, counts.get(key, 0) + 1
        offset += READ_MAX
        if offset >= total:
            break
    latency = sums.get("latency", 0.0)
    return {
        "number_of_requests": total,
        "total_cost": sums.get("cost", 0.0),
        "total_tokens": int(sums.get("total_request_tokens", 0)),
        "total_prompt_tokens": int(sums.get("prompt_tokens", 0)),
        "total_completion_tokens": int(sums.get("completion_tokens", 0)),
        "avg_latency": latency / counts["latency"] if counts.get("latency") else 0.0,
        "avg_tps": sums.get("completion_tokens", 0.0) / latency if latency else 0.0,
        "avg_ttft": 0.0,
        "scores": {},
    }


def _page(
    services: Services, dataset: Dataset, where: Expr | None, as_of_ns: int | None, offset: int, limit: int, **rest: Any
) -> ItemPage:
    return services.items.list(dataset, where=where, as_of_ns=as_of_ns, offset=offset, limit=limit, **rest)


async def _add_each(
    services: Services, key: str | None, dataset: Dataset, new: Mapping[int, NewItem]
) -> tuple[dict[int, str], dict[int, str]]:
    """(index → id of what was added, index → why not): all in one transaction, else each in its own."""
    if not new:
        return {}, {}
    try:
        added = await services.items.add(key, dataset, list(new.values()))
        stored, left = {item.id for item in added}, iter(added)
        # A tombstone refuses only ids that were given; the rest are in the order given.
        gone = {index: _GONE for index, each in new.items() if each.id is not None and uuid_hex(each.id) not in stored}
        return {index: next(left).id for index in new if index not in gone}, gone
    except (InvalidInput, Conflict) as error:
        if len(new) == 1:
            return {}, {next(iter(new)): error.message}
    ids: dict[int, str] = {}
    errors: dict[int, str] = {}
    for index, each in new.items():
        one, refused = await _add_each(services, key, dataset, {index: each})
        ids |= one
        errors |= refused
    return ids, errors


def _texts_of(raw: msgspec.Raw) -> list[dict[str, msgspec.Raw]]:
    """Each row's members in their own texts; nothing of a row that is no object."""
    rows = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return [msgspec.json.decode(each, type=dict[str, msgspec.Raw]) if bytes(each)[:1] == b"{" else {} for each in rows]


def _refuse_export(body: Mapping[str, Any], export: str | None) -> None:
    if body.get("is_exporting") or (export or "").lower() in ("1", "true"):
        text = "Rows of datasets are not exported as files; page through the list."
        raise InvalidInput(text, code="not_offered", fields=("is_exporting",))


def _lasting(error: Conflict) -> InvalidInput:
    """A 400: the clients send what gets a 409 again, and an id would be taken again."""
    return InvalidInput(error.message, code=error.code, fields=error.fields)


def _json(body: Json, status: int) -> Response:
    return Response(dump_json(body), status_code=status, media_type="application/json")
