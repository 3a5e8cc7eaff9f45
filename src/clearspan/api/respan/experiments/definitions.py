"""One experiment: make it and start it, read it, change it, remove it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.policies import policy_of
from clearspan.api.respan.convert import Json
from clearspan.api.respan.deletes import DIALECT, REASON_CHARS_MAX, REASON_HEADER
from clearspan.api.respan.experiments.bodies import Said, changes_to, check_new, read_experiment
from clearspan.api.respan.experiments.finding import Around, around, experiment_id_of, find_experiment, find_whole
from clearspan.api.respan.experiments.progress import percent_of, stop
from clearspan.api.respan.experiments.views import render_experiment
from clearspan.api.respan.traces import json_response
from clearspan.api.respan.window import render_time
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment, ExperimentDefinition
from clearspan.catalog.projects import NAME_CHARS_MAX
from clearspan.deletion.projects import RemovalRequest
from clearspan.model.errors import ClearspanError, Conflict, NotFound, NotPermitted

NAMES_TRIED: Final = 1_000


@requires(Permission.INGEST)
async def create_experiment(request: Request) -> Response:
    """Make an experiment over the dataset as it is now, and start it.

    Evaluators are named by id or slug. The body of the oldest clients (`workflows`, `custom` steps) is taken as well.
    A name that is taken gets a number behind it: names are those of projects, which are unique.
    """
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    made = await services.reads.run(_make, services, principal, body)
    await services.runner.start(made)
    return json_of(await services.reads.run(_shown, services, principal, made.public_id), 201)


@requires(Permission.READ)
async def retrieve_experiment(request: Request) -> Response:
    """One experiment, with its workflow and evaluators."""
    services, principal = services_of(request), principal_of(request)
    return json_response(await services.reads.run(_shown, services, principal, experiment_id_of(request)))


@requires(Permission.INGEST)
async def update_experiment(request: Request) -> Response:
    """Change what is given of an experiment: its name, description and tags, and how many items run at once.

    What its results were made by (dataset, workflow, evaluators) cannot change: make a new experiment. PUT and PATCH
    do the same: what is left out stays as it is.
    """
    services, principal = services_of(request), principal_of(request)
    experiment_id = experiment_id_of(request)
    body = await read_json_object(request)

    def change() -> Json:
        found = find_whole(services, principal, experiment_id)
        changes = changes_to(found, _read(services, principal, body, around(services, principal)))
        if changes:
            services.catalog.experiments.update(principal.org_id, found.public_id, **changes)
        return _shown(services, principal, found.public_id)

    return json_response(await services.reads.run(change))


@requires(Permission.DELETE)
async def delete_experiment(request: Request) -> Response:
    """Remove an experiment with all its results, and prove it: 204, with the deletion in the head of the answer.

    Its traces are gone from every read when this answers; `Clearspan-Deletion-State` says whether they are erased and
    verified already, and the address in `Location` says so later. The experiment's own dataset stays.
    """
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_whole, services, principal, experiment_id_of(request))
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        idempotency_key=request.headers.get("idempotency-key") or None,
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    project = await services.reads.run(services.catalog.find_project_uuid, principal.org_id, found.uuid)
    if project is None:
        raise NotFound("No experiment was found under that id.")
    was_running = await stop(services, found)  # nothing writes into what is going
    try:
        wait_s = services.settings.delete_wait_s
        result = await services.deletes.run(services.removal.remove, project, asked, wait_s=wait_s)
    except ClearspanError:  # held, or a guard refused: it goes on as if nobody had asked
        if was_running:
            await services.runner.start(found)
        raise
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": str(result.state),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    return Response(status_code=204, headers=headers)


def json_of(value: Json, status: int) -> Response:
    """JSON under a status of its own."""
    return Response(dump_json(value), status_code=status, media_type="application/json")


def _shown(services: Services, principal: Principal, experiment_id: str) -> Json:
    found = find_experiment(services, principal, experiment_id)
    return render_experiment(around(services, principal).known(found), percent_of(services, principal, found))


def _make(services: Services, principal: Principal, body: Json) -> Experiment:
    if principal.bound:
        raise NotPermitted("This API key is bound to projects: it can use no datasets, and make no experiments.")
    if principal.environment is not None:  # which results have none of
        raise NotPermitted(
            "This API key is limited to an environment: it can use no datasets, and make no experiments."
        )
    beside = around(services, principal)
    said = _read(services, principal, body, beside)
    check_new(body, said)
    dataset = beside.datasets.get(said.dataset_id or "")
    if dataset is None:
        raise NotFound("No dataset was found under that dataset_id.", fields=("dataset_id",))
    return _create(services, principal, dataset, said)


def _read(services: Services, principal: Principal, body: Json, beside: Around) -> Said:
    return read_experiment(body, beside.evaluators, partial(services.runner.check, principal.org_id))


def _create(services: Services, principal: Principal, dataset: Dataset, said: Said) -> Experiment:
    now_ns = services.clock.now_ns()
    wanted = said.values.get("name") or f"{dataset.name[:200]} {render_time(now_ns)}"
    rest = {name: value for name, value in said.values.items() if name not in ("name", "workflow")}
    experiments = services.catalog.experiments
    if said.experiment_id is not None and experiments.find(principal.org_id, said.experiment_id) is not None:
        raise Conflict("There is an experiment of that id already.", fields=("experiment_id",))
    for name in _names(wanted):
        if services.catalog.find_project(principal.org_id, name) is not None:
            continue
        definition = ExperimentDefinition(
            name=name,
            dataset_uuid=dataset.uuid,
            workflow=said.values["workflow"],
            version_ns=now_ns,
            public_id=said.experiment_id,
            **rest,
        )
        try:
            return experiments.create(principal.org_id, definition)
        except Conflict as error:
            if error.fields != ("name",):
                raise
    raise Conflict("There are too many experiments of that name.", fields=("name",))


def _names(wanted: str) -> Iterator[str]:
    """The name, then the name with numbers behind it."""
    yield wanted
    for number in itertools.islice(itertools.count(2), NAMES_TRIED):
        mark = f" ({number})"
        yield wanted[: NAME_CHARS_MAX - len(mark)] + mark
