"""The native API: a deletion's state and counts, at the address that every deleting answer names.

Listing, preview, events and receipts belong to the deletion engine's own release; this is the one read that a client
needs to follow up an answer that said "erasure in progress".
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.errors import dump_json
from clearspan.api.routing import RestRoute, add_rest_routes
from clearspan.api.services import services_of
from clearspan.deletion.job import DeletionJob
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import NotFound
from clearspan.store.port import DeletionProgress

TAG = "deletions"


@requires(Permission.READ)
async def get_deletion(request: Request) -> Response:
    """State, times and exact counts per target of one deletion of the caller's organisation."""
    services, principal = services_of(request), principal_of(request)
    job, progress = await services.reads.run(services.deleter.status, request.path_params["deletion_id"])
    permitted = principal.scope_for_read(None).project_ids
    if job.org_id != principal.org_id or not set(job.project_ids) <= set(permitted):
        raise NotFound("There is no such deletion.")
    return Response(dump_json(deletion_json(job, progress)), media_type="application/json")


def deletion_json(job: DeletionJob, progress: DeletionProgress | None) -> dict[str, object]:
    """A deletion on the wire. Counts are rows per target, `traces` counts traces; null: not known yet."""
    purged = job.purged or (progress.purged if progress else {})
    return {
        "id": job.deletion_id,
        "state": job.state.value,
        "requested_by": job.requested_by,
        "dialect": job.dialect,
        "scope": list(job.shape),
        "scope_hash": job.scope_hash,
        "manifest_root": job.manifest_root,
        "effective_window": {
            "start_time": _time(job.window_start_ns),
            "end_time": _time(job.window_end_ns),
            "source": "default" if job.window_is_implicit else "request",
        },
        "traces": {
            "matched": job.matched,
            "hidden": job.hidden,
            "already_absent": job.already_absent,
            "no_longer_matching": job.no_longer_matching,
        },
        "counts": {
            target: {"planned": planned, "purged": purged.get(target), "remaining": job.remaining.get(target)}
            for target, planned in job.planned.items()
        },
        "times": {state: _time(at) for state, at in job.times_ns.items()},
        "late_refused": progress.late_refused if progress else 0,
        "problem": job.problem,
    }


def _time(ns: int | None) -> str | None:
    if ns is None:
        return None
    try:
        return datetime_from_ns(ns).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):  # a year that a date cannot hold
        return None


def add_native_routes(app: FastAPI) -> None:
    """Register the native operations."""
    told: dict[str, Any] = {
        "parameters": [{"name": "deletion_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "Success."},
            "404": {"description": "There is no such deletion, or it is another tenant's."},
        },
    }
    add_rest_routes(app, [RestRoute(("GET",), "/v1/deletions/{deletion_id}", get_deletion, TAG, openapi=told)])
