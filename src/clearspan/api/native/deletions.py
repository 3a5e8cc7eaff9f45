"""Deletions: preview, ask for, look at, cancel, retry. What happens inside is `clearspan.deletion`'s."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.errors import dump_json
from clearspan.api.native import inputs, requests
from clearspan.api.native.bodies import read_native_object
from clearspan.api.native.bounds import Bounds, bounds_of
from clearspan.api.native.requests import limits_of
from clearspan.api.native.views import Json, deletion_json, path_of, preview_json, window_of
from clearspan.api.policies import policy_of
from clearspan.api.respan.window import HEADER, EffectiveWindow
from clearspan.api.services import Services, services_of
from clearspan.catalog import KeyScope
from clearspan.deletion.job import HELD, DeletionJob, DeletionQuery
from clearspan.deletion.state import DeletionState
from clearspan.deletion.watch import DeletionStatus
from clearspan.model.errors import InvalidInput

BLOCKED_BY_TRACES_MAX = 100_000
"""Held traces whose holds one answer looks up, at 10 µs each; of more it does not say which holds they are."""
LIST_KEYS = frozenset({"state", "project", "requested_by", "start_time", "end_time", "limit", "cursor"})


@requires(Permission.DELETE)
async def preview_deletion(request: Request) -> Response:
    """What a deletion would remove, without removing it: exact counts, holds in the way, samples, and a plan token.

    The token deletes exactly the traces that were listed, once, within a quarter of an hour, for the same key only.
    """
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    bounds = await services.reads.run(bounds_of, services, principal)
    asked = requests.parse_preview(body, bounds, limits_of(services.settings, services.clock.now_ns()))
    preview = await services.deletes.run(services.deleter.preview, asked)
    window = requests.window_of(asked)
    told = preview_json(preview, bounds, window, with_samples=principal.permits(KeyScope.READ))
    return json_reply(told, headers={HEADER: window.header()})


@requires(Permission.DELETE)
async def create_deletion(request: Request) -> Response:
    """Delete what a filter matches, what ids name, or what a preview listed.

    Nothing is deleted when anything about the request cannot be understood, or a precondition does not hold.
    """
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    execution = requests.parse_execution(body, request)
    bounds = await services.reads.run(bounds_of, services, principal)
    waiting: dict[str, Any] = {"wait_s": services.settings.delete_wait_s, "wait_for": execution.wait.value}
    if execution.plan_token is not None:
        result = await services.deletes.run(
            services.deleter.delete_planned,
            execution.plan_token,
            org_id=principal.org_id,
            requested_by=principal.key_id,
            project_ids=principal.scope_for_copies().project_ids,
            policy=policy_of(principal),
            expected_count=execution.expected_count,
            idempotency_key=execution.idempotency_key,
            **waiting,
        )
    else:
        asked = requests.parse_deletion(
            body,
            bounds,
            limits_of(services.settings, services.clock.now_ns()),
            idempotency_key=execution.idempotency_key,
        )
        result = await services.deletes.run(services.deleter.delete, asked, refuse_held=True, **waiting)
    return await _told(services, bounds, result.deletion_id, status=202)


@requires(Permission.READ)
async def list_deletions(request: Request) -> Response:
    """Deletions of the caller's organisation that lie within the key's bounds, newest first.

    A page may hold fewer than `limit` while there are more: go on until `next_cursor` is null.
    """
    services, principal, query = services_of(request), principal_of(request), request.query_params
    inputs.check_query(query, LIST_KEYS)
    bounds = await services.reads.run(bounds_of, services, principal)
    asked = DeletionQuery(
        org_id=principal.org_id,
        project_ids=principal.known_project_ids,
        states=_states(query.get("state")),
        project_id=bounds.project_id(query["project"]) if query.get("project") else None,
        requested_by=query.get("requested_by") or None,
        start_ns=inputs.read_time(query, "start_time"),
        end_ns=inputs.read_time(query, "end_time"),
        after=query.get("cursor") or None,
        limit=inputs.read_limit(query),
    )

    def read() -> Json:
        page, teller = services.deleter.list_deletions(asked), _Teller(services, bounds)
        seen = [services.deleter.status(job.deletion_id) for job in page.jobs if bounds.sees(job)]
        return {"data": [teller.tell(status) for status in seen], "next_cursor": page.next_cursor}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def get_deletion(request: Request) -> Response:
    """State, times, progress and exact counts of one deletion."""
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    bounds = await services.reads.run(bounds_of, services, principal)
    return await _told(services, bounds, request.path_params["deletion_id"])


@requires(Permission.DELETE)
async def cancel_deletion(request: Request) -> Response:
    """Undo a deletion that has not begun to purge: its traces are as before. Repeating it changes nothing."""
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    inputs.check_keys(body, {"reason"})
    reason = inputs.read_text(body, "reason")
    bounds = await services.reads.run(bounds_of, services, principal)
    status = await services.reads.run(permitted, services, bounds, request.path_params["deletion_id"])
    await services.deletes.run(services.deleter.cancel, status.job.deletion_id, by=principal.key_id, reason=reason)
    return await _told(services, bounds, status.job.deletion_id)


@requires(Permission.DELETE)
async def retry_deletion(request: Request) -> Response:
    """Try a failed deletion again from where it stopped. Its traces have stayed hidden meanwhile."""
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    inputs.check_keys(await read_native_object(request), ())
    bounds = await services.reads.run(bounds_of, services, principal)
    status = await services.reads.run(permitted, services, bounds, request.path_params["deletion_id"])
    await services.deletes.run(services.deleter.retry, status.job.deletion_id, by=principal.key_id)
    return await _told(services, bounds, status.job.deletion_id, status=202)


def permitted(services: Services, bounds: Bounds, deletion_id: str) -> DeletionStatus:
    """A deletion within the key's bounds. Raises NotFound for any other, whoever's it is. Blocks."""
    return services.deleter.status(deletion_id, sees=bounds.sees)


def json_reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(dump_json(value), status_code=status, headers=headers, media_type="application/json")


def state_headers(job: DeletionJob) -> dict[str, str]:
    """What every answer about one deletion says in its head as well."""
    return {
        "Clearspan-Deletion-Id": job.deletion_id,
        "Clearspan-Deletion-State": job.state.value,
        HEADER: EffectiveWindow(window_of(job), job.window_is_implicit).header(),
        "Location": path_of(job.deletion_id),
    }


async def _told(services: Services, bounds: Bounds, deletion_id: str, status: int = 200) -> Response:
    def read() -> tuple[DeletionStatus, Json]:
        found = permitted(services, bounds, deletion_id)
        return found, _Teller(services, bounds).tell(found)

    found, told = await services.reads.run(read)
    return json_reply(told, status, state_headers(found.job))


class _Teller:
    """Deletions as JSON, for one answer. Blocks."""

    def __init__(self, services: Services, bounds: Bounds) -> None:
        self._services = services
        self._bounds = bounds
        self._alarms = dict(services.deleter.overdue())
        self._traces_left = BLOCKED_BY_TRACES_MAX

    def tell(self, status: DeletionStatus) -> Json:
        """One of them."""
        return deletion_json(
            status,
            self._bounds,
            self._services.clock.now_ns(),
            alarm=self._alarms.get(status.job.deletion_id),
            blocked_by=self._blocked_by(status.job),
        )

    def _blocked_by(self, job: DeletionJob) -> list[str] | None:
        if job.state is not DeletionState.BLOCKED or job.problem != HELD:
            return []
        if job.matched > self._traces_left:
            return None
        self._traces_left -= job.matched
        return sorted(self._services.deleter.blocked_by(job.deletion_id))


def _states(text: str | None) -> tuple[DeletionState, ...]:
    if not text:
        return ()
    try:
        return tuple(DeletionState(word) for word in text.split(","))
    except ValueError:
        known = ", ".join(state.value for state in DeletionState)
        raise InvalidInput(f"state must be one or several, with commas, of {known}.", fields=("state",)) from None
