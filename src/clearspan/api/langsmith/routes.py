"""The LangSmith dialect's routes. Each module lists its own; a module that adds operations adds a line to `ROUTES`.

A module's rows are made with `paths.classic`, `paths.platform` and `paths.v2`. Literal segments must stand before a
`{run_id}` that would take them, across modules too: tests/unit/test_routes.py tells when one is shadowed.
"""

from __future__ import annotations

from fastapi import FastAPI

from clearspan.api.langsmith import (
    attachments,
    audit_logs,
    comparatives,
    configs,
    dataset_files,
    dataset_splits,
    dataset_versions,
    datasets,
    deletes,
    example_deletion,
    examples,
    experiment_runs,
    feedback,
    feedback_deletion,
    info,
    ingest,
    public_runs,
    run_stats,
    runs,
    runs_v2,
    sessions,
    sessions_v2,
    shares,
    threads,
    threads_v2,
)
from clearspan.api.langsmith.errors import own
from clearspan.api.langsmith.paths import OTEL_PATHS
from clearspan.api.routing import RestRoute, add_plain_routes, add_rest_routes, spellings

ROUTES: tuple[RestRoute, ...] = (
    *ingest.ROUTES,
    *feedback.ROUTES,
    *feedback_deletion.ROUTES,
    *attachments.ROUTES,
    *info.ROUTES,
    *sessions.ROUTES,
    *sessions_v2.ROUTES,
    *shares.ROUTES,
    *configs.ROUTES,
    *runs.ROUTES,
    *run_stats.ROUTES,
    *threads.ROUTES,
    *runs_v2.ROUTES,
    *threads_v2.ROUTES,
    *public_runs.ROUTES,
    *deletes.ROUTES,
    *audit_logs.ROUTES,
    *comparatives.ROUTES,
    *dataset_files.ROUTES,
    *datasets.ROUTES,
    *dataset_versions.ROUTES,
    *dataset_splits.ROUTES,
    *examples.ROUTES,
    *example_deletion.ROUTES,
    *experiment_runs.ROUTES,
)


def add_langsmith_routes(app: FastAPI) -> None:
    """Register the dialect."""
    add_plain_routes(app, "POST", OTEL_PATHS, ingest.export_langsmith_traces)
    add_rest_routes(app, ROUTES)
    own(app, spellings(*(path for route in ROUTES for path in (route.path, *route.aliases))))
