"""The Respan dialect's routes. Literal segments stand before `{trace_unique_id}`, which would take them."""

from __future__ import annotations

from fastapi import FastAPI

from clearspan.api.respan import schema
from clearspan.api.respan.datasets.routes import ROUTES as DATASETS
from clearspan.api.respan.deletes import bulk_delete, delete_trace
from clearspan.api.respan.evaluators import ROUTES as EVALUATORS
from clearspan.api.respan.experiments.routes import ROUTES as EXPERIMENTS
from clearspan.api.respan.ingest import ingest_spans
from clearspan.api.respan.scores import ROUTES as SCORES
from clearspan.api.respan.traces import (
    list_traces,
    public_trace,
    retrieve_trace,
    share_trace,
    summarise_traces,
)
from clearspan.api.routing import RestRoute, add_rest_routes

TAG = "respan"
_ONE = "/api/traces/{trace_unique_id}/"

ROUTES = (
    RestRoute(
        ("POST",),
        "/api/v1/traces/ingest",
        ingest_spans,
        TAG,
        aliases=("/api/openai/v1/traces/ingest",),
        openapi=schema.INGEST,
    ),
    RestRoute(("POST",), "/api/traces/list/", list_traces, TAG, openapi=schema.LIST),
    RestRoute(
        ("GET",),
        "/api/traces/list/",
        list_traces,
        TAG,
        aliases=("/api/traces/",),
        is_described=False,
    ),
    RestRoute(
        ("POST",),
        "/api/traces/bulk/",
        bulk_delete,
        TAG,
        aliases=("/api/traces/bulk-delete/",),
        openapi=schema.BULK_DELETE,
    ),
    RestRoute(("POST",), "/clickhouse/traces/summary/", summarise_traces, TAG, openapi=schema.SUMMARY),
    RestRoute(("GET", "POST"), _ONE, retrieve_trace, TAG, openapi=schema.RETRIEVE),
    RestRoute(("DELETE",), _ONE, delete_trace, TAG, openapi=schema.DELETE),
    RestRoute(("PATCH",), _ONE, share_trace, TAG, openapi=schema.SHARE),
    RestRoute(
        ("GET",),
        "/api/{unique_organization_id}/traces/{trace_unique_id}/",
        public_trace,
        TAG,
        openapi=schema.PUBLIC,
    ),
)


def add_respan_routes(app: FastAPI) -> None:
    """Register the dialect."""
    add_rest_routes(app, ROUTES)
    add_rest_routes(app, DATASETS)
    add_rest_routes(app, EXPERIMENTS)
    add_rest_routes(app, EVALUATORS)
    add_rest_routes(app, SCORES)
