"""The routes of the experiments API. Literal segments stand before the ids that would take them."""

from __future__ import annotations

from typing import Any, Final

from clearspan.api.respan.experiments import schema
from clearspan.api.respan.experiments.definitions import (
    create_experiment,
    delete_experiment,
    retrieve_experiment,
    update_experiment,
)
from clearspan.api.respan.experiments.exports import DOWNLOAD, download_export, read_export
from clearspan.api.respan.experiments.histograms import score_histogram
from clearspan.api.respan.experiments.lists import list_experiment_items, list_experiments, summarise_experiments
from clearspan.api.respan.experiments.progress import (
    cancel_experiment,
    experiment_progress,
    retry_experiment,
    start_experiment,
)
from clearspan.api.respan.experiments.traces import (
    list_experiment_traces,
    resume_experiment_trace,
    retrieve_experiment_trace,
    summarise_experiment_traces,
)
from clearspan.api.routing import Endpoint, RestRoute

TAG: Final = "respan experiments"
_ALL: Final = "/api/v2/experiments/"
_ONE: Final = f"{_ALL}{{experiment_id}}/"
_LOGS: Final = f"{_ONE}logs/"


def _route(
    methods: tuple[str, ...], path: str, endpoint: Endpoint, openapi: dict[str, Any], *aliases: str
) -> RestRoute:
    return RestRoute(methods, path, endpoint, TAG, aliases=aliases, openapi=openapi)


def _quiet(path: str, endpoint: Endpoint, *aliases: str) -> RestRoute:
    """The GET form of what is described as a POST."""
    return RestRoute(("GET",), path, endpoint, TAG, aliases=aliases, is_described=False)


ROUTES: Final = (
    _route(("POST",), _ALL, create_experiment, schema.CREATE),
    _route(("GET",), _ALL, list_experiment_items, schema.LIST_ITEMS),
    _route(("POST",), f"{_ALL}list/", list_experiments, schema.LIST),
    _quiet(f"{_ALL}list/", list_experiments),
    _route(("POST",), f"{_ALL}summary/", summarise_experiments, schema.COUNT),
    _quiet(f"{_ALL}summary/", summarise_experiments),
    _route(("GET",), f"{DOWNLOAD}/{{export_id}}/", download_export, schema.DOWNLOAD),
    _route(("GET",), _ONE, retrieve_experiment, schema.RETRIEVE),
    _route(("PATCH", "PUT"), _ONE, update_experiment, schema.UPDATE),
    _route(("DELETE",), _ONE, delete_experiment, schema.DELETE),
    _route(("POST",), f"{_LOGS}list/", list_experiment_traces, schema.TRACES),
    _quiet(f"{_LOGS}list/", list_experiment_traces, _LOGS),
    _route(("POST",), f"{_LOGS}summary/", summarise_experiment_traces, schema.TRACE_SUMMARY),
    _quiet(f"{_LOGS}summary/", summarise_experiment_traces),
    _route(("GET",), f"{_LOGS}{{log_id}}/", retrieve_experiment_trace, schema.TRACE),
    _route(("PATCH",), f"{_LOGS}{{log_id}}/", resume_experiment_trace, schema.RESUME),
    _route(("POST",), f"{_ONE}histogram/", score_histogram, schema.HISTOGRAM),
    _quiet(f"{_ONE}histogram/", score_histogram),
    _route(("GET",), f"{_ONE}exports/{{export_id}}/", read_export, schema.EXPORT),
    _route(("GET",), f"{_ONE}progress/", experiment_progress, schema.PROGRESS),
    _route(("POST",), f"{_ONE}cancel/", cancel_experiment, schema.PROGRESS),
    _route(("POST",), f"{_ONE}start/", start_experiment, schema.PROGRESS),
    _route(("POST",), f"{_ONE}retry/", retry_experiment, schema.PROGRESS),
)
"""In the order in which they are tried."""
