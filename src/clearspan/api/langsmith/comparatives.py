"""Comparative experiments: a name for several experiments on one dataset, which pairwise evaluators speak of.

They are definitions without content, kept with their dataset. What an evaluator says of a pair is feedback on the runs.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import check_may_use_datasets, dataset_of, find_dataset
from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import (
    Json,
    optional_object,
    optional_text,
    optional_time,
    optional_uuid,
    path_uuid,
    read_count,
    read_uuids,
    render_time,
    uuid_text,
)
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_query import read_uuid_list
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.catalog.datasets import Dataset, DatasetSettings
from clearspan.model.errors import Conflict, InvalidInput, NotFound

EXPERIMENTS_MAX: Final = 20
KEPT_MAX: Final = 100
_KEY: Final = "comparative_experiments"  # in a dataset's `extra`


@requires(Permission.INGEST)
async def create_comparative(request: Request) -> Response:
    """Name some experiments on one dataset."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    experiments = read_uuid_list(body, "experiment_ids")
    if not 1 <= len(experiments) <= EXPERIMENTS_MAX:
        raise InvalidInput(f"experiment_ids takes 1 to {EXPERIMENTS_MAX} ids.", fields=("experiment_ids",))
    made: Json = {
        "id": optional_uuid(body, "id") or UUID(bytes=services.ids.token_bytes(16), version=4).hex,
        "name": optional_text(body, "name"),
        "description": optional_text(body, "description"),
        "created_ns": optional_time(body, "created_at") or services.clock.now_ns(),
        "extra": optional_object(body, "extra"),
        "experiments": experiments,
    }

    def make() -> Json:
        dataset = dataset_of(services, principal, body.get("reference_dataset_id"), "reference_dataset_id")
        for uuid in experiments:
            if find_session(services, principal, uuid).reference_dataset_id != dataset.uuid:
                raise InvalidInput("An experiment is of another dataset.", fields=("experiment_ids",))
        kept = _kept(dataset)
        if any(each["id"] == made["id"] for each in kept):
            raise Conflict("There is a comparative experiment of that id already.", fields=("id",))
        if len(kept) >= KEPT_MAX:
            raise InvalidInput(f"A dataset has at most {KEPT_MAX} comparative experiments.", fields=("name",))
        _keep(services, dataset, [*kept, made])
        return _render(services, principal, dataset, made)

    return json_reply(await services.reads.run(make))


@requires(Permission.READ)
async def list_comparatives(request: Request) -> Response:
    """The comparative experiments of a dataset, newest first."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, ids, name = path_uuid(request, "dataset_id"), read_uuids(query, "id"), query.get("name")
    contains = query.get("name_contains", "").casefold()
    offset, limit = read_count(query, "offset", 0), read_count(query, "limit", 100, least=1, most=100)

    def read() -> list[Json]:
        dataset = find_dataset(services, principal, uuid)
        found = [
            each
            for each in reversed(_kept(dataset))
            if (not ids or each["id"] in ids)
            and (not name or each["name"] == name)
            and contains in (each["name"] or "").casefold()
        ]
        return [_render(services, principal, dataset, each) for each in found[offset : offset + limit]]

    return json_reply(await services.reads.run(read))


@requires(Permission.INGEST)
async def delete_comparative(request: Request) -> Response:
    """Forget a comparative experiment. The experiments stay, and so does what was said of their runs."""
    services, principal = services_of(request), principal_of(request)
    uuid = path_uuid(request, "comparative_id")

    def forget() -> None:
        check_may_use_datasets(principal)
        for dataset in services.catalog.datasets.listed(principal.org_id):
            kept = _kept(dataset)
            rest = [each for each in kept if each["id"] != uuid]
            if len(rest) < len(kept):
                _keep(services, dataset, rest)
                return
        raise NotFound("There is no such comparative experiment.")

    await services.reads.run(forget)
    return json_reply({"message": "Comparative experiment deleted."})


def _kept(dataset: Dataset) -> list[Json]:
    return list((dataset.extra or {}).get(_KEY, ()))


def _keep(services: Services, dataset: Dataset, every: list[Json]) -> None:
    settings = DatasetSettings(extra={**(dataset.extra or {}), _KEY: every})
    services.catalog.datasets.update(dataset.org_id, dataset.uuid, settings=settings)


def _render(services: Services, principal: Principal, dataset: Dataset, kept: Json) -> Json:
    sessions = [services.catalog.find_project_uuid(principal.org_id, each) for each in kept["experiments"]]
    return {
        "id": uuid_text(kept["id"]),
        "name": kept["name"],
        "description": kept["description"],
        "tenant_id": tenant_of(principal),
        "reference_dataset_id": uuid_text(dataset.uuid),
        "created_at": render_time(kept["created_ns"]),
        "modified_at": render_time(kept["created_ns"]),
        "extra": kept["extra"],
        "experiments_info": [_info(each) for each in sessions if each is not None],
        "feedback_stats": None,
    }


def _info(session: Project) -> dict[str, Any]:
    return {"id": uuid_text(session.uuid), "name": session.name}


ROUTES: Final = (
    classic("POST", "/datasets/comparative", create_comparative),
    classic("DELETE", "/datasets/comparative/{comparative_id}", delete_comparative),
    classic("GET", "/datasets/{dataset_id}/comparative", list_comparatives),
)
