"""Which experiment a request means, and what of it the caller's key may see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from starlette.requests import Request

from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.evaluators import Evaluator
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.definitions import Known
from clearspan.experiments.quiet import settled
from clearspan.experiments.results import Results, StoreReader
from clearspan.model.errors import NotFound, NotPermitted
from clearspan.model.trace import Scope

GRADER_MARK = ":"
"""Stands between an evaluator and one of its graders."""


class Evaluators:
    """The evaluators of an organisation, by id and by slug, as they are now."""

    def __init__(self, listed: Iterable[Evaluator]) -> None:
        self._by_slug: dict[str, Evaluator] = {}
        self._by_uuid: dict[str, Evaluator] = {}
        for each in listed:
            self._by_slug[each.slug] = each
            self._by_uuid[each.uuid] = each

    def named(self, id_or_slug: str) -> Evaluator | None:
        """The evaluator of a UUID, with or without dashes, or of a slug; a UUID comes first."""
        return self._by_uuid.get(id_or_slug.replace("-", "").lower()) or self._by_slug.get(id_or_slug)

    def of_score(self, name: str, evaluator_id: str | None = None) -> Evaluator | None:
        """Whose a score of that name is."""
        if evaluator_id is not None and (found := self.named(evaluator_id)) is not None:
            return found
        return self._by_slug.get(name) or self._by_slug.get(name.partition(GRADER_MARK)[0])

    def score_name(self, asked: str) -> str:
        """Under which name the scores are that a caller means: `evaluator`, `evaluator:grader`, or the name itself.

        The evaluator is an id or a slug; what names none is taken as the name of scores, such as a feedback key.
        """
        if (found := self.named(asked)) is not None:
            return found.slug
        evaluator, mark, grader = asked.partition(GRADER_MARK)
        found = self.named(evaluator) if mark else None
        return asked if found is None else f"{found.slug}{GRADER_MARK}{grader}"


class Around(NamedTuple):
    """What the Catalog says around experiments."""

    datasets: dict[str, Dataset]  # by UUID, 32 hex digits
    evaluators: Evaluators

    def known(self, experiment: Experiment) -> Known:
        """An experiment with the names of what it names."""
        dataset = self.datasets.get(experiment.dataset_uuid)
        named = (self.evaluators.named(each) for each in experiment.evaluator_ids)
        slugs = tuple(each.slug for each in named if each is not None)
        return Known(experiment, None if dataset is None else dataset.name, slugs)


def around(services: Services, principal: Principal) -> Around:
    """What stands around the experiments of the caller's organisation. Blocks.

    A key that is bound to projects or to an environment learns nothing of datasets.
    """
    datasets = services.catalog.datasets.listed(principal.org_id) if principal.is_whole else []
    evaluators = Evaluators(services.catalog.evaluators.listed(principal.org_id))
    return Around({each.uuid: each for each in datasets}, evaluators)


def find_experiment(services: Services, principal: Principal, experiment_id: str) -> Experiment:
    """The experiment of an id, if the key may touch it. Blocks.

    Raises:
        NotFound: there is none, or the key may not; which one is not told.
    """
    found = services.catalog.experiments.find(principal.org_id, experiment_id)
    if found is None or not may_touch(principal, found):
        raise NotFound("No experiment was found under that id.")
    return settled(cast(StoreReader, services.reader), found, services.clock.now_ns())


def find_whole(services: Services, principal: Principal, experiment_id: str) -> Experiment:
    """The experiment of an id, for what counts, changes, steers or removes all of it. Blocks.

    Raises:
        NotFound: as `find_experiment`. NotPermitted: the key is limited to an environment, the results are not.
    """
    found = find_experiment(services, principal, experiment_id)
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment: an experiment may hold others.")
    return found


def may_touch(principal: Principal, experiment: Experiment) -> bool:
    """Whether an experiment of the key's organisation is one of the key's."""
    return not principal.bound or experiment.project_id in principal.project_ids


def experiment_id_of(request: Request) -> str:
    """The id in the path."""
    return str(request.path_params["experiment_id"])


def scope_of(principal: Principal, experiment: Experiment) -> Scope:
    """Where the results of an experiment are, as the key sees them."""
    return principal.scope_for_read()._replace(project_ids=(experiment.project_id,))


def results_of(services: Services) -> Results:
    """The reader of results."""
    return Results(
        cast(StoreReader, services.reader),
        seconds_max=services.settings.read_seconds_max,
        monotonic_s=services.clock.monotonic_s,
    )
