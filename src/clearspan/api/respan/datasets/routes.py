"""The routes of datasets. Literal segments stand before ids, which would take them."""

from __future__ import annotations

from typing import Final

from clearspan.api.respan.datasets import definitions, deletion, logs
from clearspan.api.respan.operations import operation
from clearspan.api.routing import RestRoute

_ALL: Final = "/api/datasets/"
_ONE: Final = "/api/datasets/{dataset_id}/"
_LOGS: Final = f"{_ONE}logs/"
_LOG: Final = f"{_LOGS}{{unique_id}}/"

ROUTES: Final[tuple[RestRoute, ...]] = (
    operation("POST", f"{_ALL}list/", definitions.respan_list_datasets, also=("GET",)),
    operation("POST", _ALL, definitions.respan_create_dataset, "201"),
    operation("GET", _ALL, definitions.respan_list_datasets, is_described=False),
    operation("GET", f"{_ONE}eval-reports/list/", definitions.respan_dataset_eval_reports, is_described=False,
           also=("POST",)),
    operation("POST", f"{_ONE}eval-reports/create/", definitions.respan_dataset_eval_reports, is_described=False),
    operation("POST", f"{_LOGS}list/", logs.respan_list_dataset_logs, also=("GET",)),
    operation("POST", f"{_LOGS}bulk/", logs.respan_add_dataset_logs, "201"),
    operation("POST", f"{_LOGS}import/", logs.respan_import_dataset_logs),
    operation("DELETE", f"{_LOGS}import/", deletion.respan_delete_dataset_logs),
    operation("POST", f"{_LOGS}summary/", logs.respan_summarise_dataset_logs, also=("GET",)),
    operation("POST", _LOGS, logs.respan_add_dataset_log, "201"),
    operation("GET", _LOGS, logs.respan_list_dataset_logs, is_described=False),
    operation("GET", _LOG, logs.respan_retrieve_dataset_log),
    operation("PATCH", _LOG, logs.respan_update_dataset_log, also=("PUT",)),
    operation("DELETE", _LOG, deletion.respan_delete_dataset_log, "204"),
    operation("GET", _ONE, definitions.respan_retrieve_dataset),
    operation("PATCH", _ONE, definitions.respan_update_dataset, also=("PUT",)),
    operation("DELETE", _ONE, deletion.respan_delete_dataset, "204"),
)  # fmt: skip
