"""Running experiments: how far one is, stopping it, and trying again what failed. These routes are ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.respan.convert import Json
from clearspan.api.respan.experiments.finding import experiment_id_of, find_whole
from clearspan.api.respan.experiments.views import shown_id
from clearspan.api.respan.traces import json_response
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.model.errors import Conflict, InvalidInput

COUNTING_S: Final = 1.0
"""How long a page of experiments may count: some 20 µs a result."""


@requires(Permission.READ)
async def experiment_progress(request: Request) -> Response:
    """How many of an experiment's items are done, failed, waiting, running and deleted, counted now."""
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_whole, services, principal, experiment_id_of(request))
    _check_managed(found)
    return json_response(await services.reads.run(_progress, services, found))


@requires(Permission.INGEST)
async def cancel_experiment(request: Request) -> Response:
    """Stop an experiment: what runs ends, nothing new begins, results stay. One that has ended stays as it is."""
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_whole, services, principal, experiment_id_of(request))
    _check_managed(found)
    await stop(services, found)
    again = await services.reads.run(find_whole, services, principal, found.public_id)
    return json_response(await services.reads.run(_progress, services, again))


@requires(Permission.INGEST)
async def start_experiment(request: Request) -> Response:
    """Go on with an experiment that was cancelled or failed: items that have a result are not run again.

    One that runs, waits or is completed stays as it is.
    """
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_whole, services, principal, experiment_id_of(request))
    _check_managed(found)
    if found.status in (ExperimentStatus.CANCELLED, ExperimentStatus.FAILED):
        await services.runner.start(found)
    again = await services.reads.run(find_whole, services, principal, found.public_id)
    return json_response(await services.reads.run(_progress, services, again))


@requires(Permission.INGEST)
async def retry_experiment(request: Request) -> Response:
    """Run again the items whose result failed."""
    services, principal = services_of(request), principal_of(request)
    found = await services.reads.run(find_whole, services, principal, experiment_id_of(request))
    _check_managed(found)
    retried = await services.runner.retry_failed(found)
    again = await services.reads.run(find_whole, services, principal, found.public_id)
    return json_response(await services.reads.run(_progress, services, again) | {"retried_count": retried})


async def stop(services: Services, experiment: Experiment) -> bool:
    """Stop an experiment that runs; whether it did."""
    if not experiment.managed or experiment.status not in (ExperimentStatus.PENDING, ExperimentStatus.RUNNING):
        return False
    try:
        await services.runner.cancel(experiment)
    except Conflict:  # it has ended by itself since it was looked up
        return False
    return True


def percents_of(services: Services, principal: Principal, experiments: Sequence[Experiment]) -> list[float | None]:
    """How far each experiment of a page is; None as well for those that cannot be counted in COUNTING_S. Blocks."""
    until_s = services.clock.monotonic_s() + COUNTING_S
    told: list[float | None] = []
    for experiment in experiments:
        is_counted = experiment.status not in (ExperimentStatus.PENDING, ExperimentStatus.COMPLETED)
        is_late = is_counted and services.clock.monotonic_s() > until_s
        told.append(None if is_late else percent_of(services, principal, experiment))
    return told


def percent_of(services: Services, principal: Principal, experiment: Experiment) -> float | None:
    """How far an experiment is, in percent. Blocks.

    None: a LangSmith client runs it, and only it knows; or the key is limited to an environment, and may not count all.
    """
    if not experiment.managed or principal.environment is not None:
        return None
    if experiment.status is ExperimentStatus.COMPLETED:
        return 100.0
    return 0.0 if experiment.status is ExperimentStatus.PENDING else services.runner.progress(experiment).percent


def _progress(services: Services, experiment: Experiment) -> Json:
    counted = services.runner.progress(experiment)
    return {"id": shown_id(experiment), "status": str(experiment.status)} | counted._asdict()


def _check_managed(experiment: Experiment) -> None:
    if not experiment.managed:
        raise InvalidInput("A LangSmith client runs this experiment: the server neither counts nor stops its items.")
