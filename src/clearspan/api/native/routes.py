"""The native API's routes. Literal segments stand before `{deletion_id}`, which would take them."""

from __future__ import annotations

from fastapi import FastAPI

from clearspan.api.native import comparison_schema, comparisons, deletions, evidence, holds, ledger, schema
from clearspan.api.routing import RestRoute, add_rest_routes

TAG = "deletions"
_ONE = "/v1/deletions/{deletion_id}"
_HOLD = "/v1/holds/{hold_id}"
_LEDGER = "/v1/ledger"

ROUTES = (
    RestRoute(
        ("GET",), "/v1/comparisons", comparisons.compare_experiments, "experiments", openapi=comparison_schema.COMPARE
    ),
    RestRoute(("POST",), "/v1/deletions/preview", deletions.preview_deletion, TAG, openapi=schema.PREVIEW),
    RestRoute(("POST",), "/v1/deletions", deletions.create_deletion, TAG, openapi=schema.CREATE),
    RestRoute(("GET",), "/v1/deletions", deletions.list_deletions, TAG, openapi=schema.LIST),
    RestRoute(("GET",), _ONE, deletions.get_deletion, TAG, openapi=schema.GET),
    RestRoute(("GET",), f"{_ONE}/events", evidence.watch_deletion, TAG, openapi=schema.EVENTS),
    RestRoute(("POST",), f"{_ONE}/cancel", deletions.cancel_deletion, TAG, openapi=schema.CANCEL),
    RestRoute(("POST",), f"{_ONE}/retry", deletions.retry_deletion, TAG, openapi=schema.RETRY),
    RestRoute(("GET",), f"{_ONE}/receipt", evidence.get_receipt, TAG, openapi=schema.RECEIPT),
    RestRoute(("GET",), f"{_ONE}/membership", evidence.get_membership, TAG, openapi=schema.MEMBERSHIP),
    RestRoute(("GET",), f"{_ONE}/tombstones", evidence.list_tombstones, TAG, openapi=schema.TOMBSTONES),
    RestRoute(("POST",), "/v1/tombstones/lift", evidence.lift_tombstone, TAG, openapi=schema.LIFT),
    RestRoute(("POST",), "/v1/holds", holds.create_hold, "holds", openapi=schema.CREATE_HOLD),
    RestRoute(("GET",), "/v1/holds", holds.list_holds, "holds", openapi=schema.LIST_HOLDS),
    RestRoute(("GET",), _HOLD, holds.get_hold, "holds", openapi=schema.GET_HOLD),
    RestRoute(("DELETE",), _HOLD, holds.release_hold, "holds", openapi=schema.RELEASE_HOLD),
    RestRoute(("GET",), f"{_LEDGER}/entries", ledger.list_entries, "ledger", openapi=schema.ENTRIES),
    RestRoute(("GET",), f"{_LEDGER}/head", ledger.get_head, "ledger", openapi=schema.HEAD),
    RestRoute(("GET",), f"{_LEDGER}/inclusion", ledger.get_inclusion, "ledger", openapi=schema.INCLUSION),
    RestRoute(("GET",), f"{_LEDGER}/consistency", ledger.get_consistency, "ledger", openapi=schema.CONSISTENCY),
    RestRoute(("GET",), f"{_LEDGER}/keys", ledger.get_keys, "ledger", openapi=schema.KEYS),
    RestRoute(
        ("DELETE",), f"{_LEDGER}/entries/{{seq}}/private", ledger.erase_private, "ledger", openapi=schema.ERASE_PRIVATE
    ),
)


def add_native_routes(app: FastAPI) -> None:
    """Register the native operations."""
    add_rest_routes(app, ROUTES)
