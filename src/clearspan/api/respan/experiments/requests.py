"""What every request about the results of one experiment says: which experiment, which filter, which time."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request

from clearspan.api.auth import principal_of
from clearspan.api.bodies import read_json_object
from clearspan.api.respan.convert import Json
from clearspan.api.respan.experiments.finding import (
    Evaluators,
    around,
    experiment_id_of,
    find_experiment,
    results_of,
    scope_of,
)
from clearspan.api.respan.experiments.views import ResultView
from clearspan.api.respan.experiments.words import result_words
from clearspan.api.respan.filters import current_filters, parse_filters
from clearspan.api.respan.traces import owner_of
from clearspan.api.respan.window import EffectiveWindow, open_window
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.definitions import uuid_text
from clearspan.experiments.items import Item
from clearspan.experiments.result_runs import NEWEST
from clearspan.experiments.results import Result, Results
from clearspan.model.trace import Scope
from clearspan.query.ast import Expr, Group

_TRUE: Final = frozenset({"1", "true"})


class Asked(NamedTuple):
    """A request about results, understood."""

    services: Services
    principal: Principal
    experiment: Experiment
    dataset: Dataset | None  # None: it is gone, or the key may not see datasets
    evaluators: Evaluators
    scope: Scope
    body: Json
    where: Expr  # of attempts at an item the newest alone
    window: EffectiveWindow

    @property
    def results(self) -> Results:
        """The reader of results."""
        return results_of(self.services)

    @property
    def filters(self) -> Json:
        """The filter as answers repeat it."""
        return current_filters(self.body.get("filters"))

    def view(self, results: list[Result], preview_length: int | None = None) -> ResultView:
        """How those results are shown, with what was expected of them. Blocks."""
        expected = expected_outputs(self.services, self.experiment, self.dataset, results)
        return ResultView(owner_of(self.principal), self.evaluators, expected, preview_length)


async def read_asked(request: Request, *, window: EffectiveWindow | None = None) -> Asked:
    """Understand a request about the results of the experiment in its path.

    Args:
        window: instead of the one in the query.
    Raises:
        NotFound: there is no such experiment. InvalidFilter, InvalidTime.
    """
    services, principal, query = services_of(request), principal_of(request), request.query_params
    body = await read_json_object(request) if request.method == "POST" else {}
    if window is None:
        window = open_window(query.get("start_time"), query.get("end_time"))

    def look() -> Asked:
        experiment = find_experiment(services, principal, experiment_id_of(request))
        beside = around(services, principal)
        words = result_words(beside.evaluators.score_name)
        said = parse_filters(body.get("filters"), body.get("operator"), fields=words)
        where = NEWEST if said is None else Group("AND", (NEWEST, said))
        dataset = beside.datasets.get(experiment.dataset_uuid)
        scope = scope_of(principal, experiment)
        return Asked(services, principal, experiment, dataset, beside.evaluators, scope, body, where, window)

    return await services.reads.run(look)


def expected_outputs(
    services: Services, experiment: Experiment, dataset: Dataset | None, results: list[Result]
) -> dict[str, str | None]:
    """Comparison key → the reference output of the dataset item, as text. Blocks.

    Of an experiment that the server runs the items are those that it ran over; of a LangSmith client's, whose version
    of the dataset nobody said, the present ones. An item that was deleted expects nothing any more.
    """
    keys = list(dict.fromkeys(key for each in results if (key := each.comparison_key) is not None))
    if dataset is None or not keys:
        return {}
    as_of_ns = experiment.version_ns if experiment.managed else None
    page = services.items.list(dataset, ids=keys, as_of_ns=as_of_ns, limit=len(keys))
    return {uuid_text(item.id): _text_of(item) for item in page.items}


def _text_of(item: Item) -> str | None:
    if item.outputs is None or isinstance(item.outputs, str):
        return item.outputs
    return item.texts["outputs"].decode()  # as it was given: numbers keep their digits


def is_true(query: QueryParams, key: str) -> bool:
    """Whether a switch of the query is on: `1` or `true`."""
    return query.get(key, "").lower() in _TRUE


def wants_export(query: QueryParams, body: Json) -> bool:
    """Whether a list is to be exported: `export=1` in the query, or `is_exporting` in the body."""
    said: Any = body.get("is_exporting")
    return is_true(query, "export") or said is True


def preview_length(query: QueryParams) -> int | None:
    """How many characters texts are cut to; what is no number above 0 means all of them."""
    text = query.get("preview_length", "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0 else None
