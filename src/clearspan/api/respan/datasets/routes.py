"""The routes of datasets. Literal segments stand before ids, which would take them."""

from __future__ import annotations

import re
from typing import Any, Final

from clearspan.api.respan.datasets import definitions, deletion, logs
from clearspan.api.routing import Endpoint, RestRoute

_TAG: Final = "respan"
_ALL: Final = "/api/datasets/"
_ONE: Final = "/api/datasets/{dataset_id}/"
_LOGS: Final = f"{_ONE}logs/"
_LOG: Final = f"{_LOGS}{{unique_id}}/"
_OBJECT: Final = {"content": {"application/json": {"schema": {"type": "object"}}}}


def _route(
    method: str, path: str, endpoint: Endpoint, status: str = "200", *, also: tuple[str, ...] = (), **more: Any
) -> RestRoute:
    """One operation; `also` are methods besides, which the description leaves out."""
    names = re.findall(r"\{(\w+)\}", path)
    openapi: dict[str, Any] = {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {status: {"description": "Success.", **({} if status == "204" else _OBJECT)}},
    }
    if method in ("POST", "PATCH"):
        openapi["requestBody"] = {"required": False, **_OBJECT}
    return RestRoute((method, *also), path, endpoint, _TAG, openapi=openapi, **more)


ROUTES: Final[tuple[RestRoute, ...]] = (
    _route("POST", f"{_ALL}list/", definitions.respan_list_datasets, also=("GET",)),
    _route("POST", _ALL, definitions.respan_create_dataset, "201"),
    _route("GET", _ALL, definitions.respan_list_datasets, is_described=False),
    _route("GET", f"{_ONE}eval-reports/list/", definitions.respan_dataset_eval_reports, is_described=False,
           also=("POST",)),
    _route("POST", f"{_ONE}eval-reports/create/", definitions.respan_dataset_eval_reports, is_described=False),
    _route("POST", f"{_LOGS}list/", logs.respan_list_dataset_logs, also=("GET",)),
    _route("POST", f"{_LOGS}bulk/", logs.respan_add_dataset_logs, "201"),
    _route("POST", f"{_LOGS}import/", logs.respan_import_dataset_logs),
    _route("DELETE", f"{_LOGS}import/", deletion.respan_delete_dataset_logs),
    _route("POST", f"{_LOGS}summary/", logs.respan_summarise_dataset_logs, also=("GET",)),
    _route("POST", _LOGS, logs.respan_add_dataset_log, "201"),
    _route("GET", _LOGS, logs.respan_list_dataset_logs, is_described=False),
    _route("GET", _LOG, logs.respan_retrieve_dataset_log),
    _route("PATCH", _LOG, logs.respan_update_dataset_log, also=("PUT",)),
    _route("DELETE", _LOG, deletion.respan_delete_dataset_log, "204"),
    _route("GET", _ONE, definitions.respan_retrieve_dataset),
    _route("PATCH", _ONE, definitions.respan_update_dataset, also=("PUT",)),
    _route("DELETE", _ONE, deletion.respan_delete_dataset, "204"),
)  # fmt: skip
