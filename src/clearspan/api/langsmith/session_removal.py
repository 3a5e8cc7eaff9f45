"""Removing sessions. What is removed, when, and how it is proved is `clearspan.deletion`'s."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.inputs import Json, path_uuid, read_uuids, uuid_text
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.policies import policy_of
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.deletion.projects import RemovalRequest
from clearspan.deletion.result import DeletionResult, render_message
from clearspan.model.errors import ClearspanError, InvalidInput, NotPermitted

DIALECT: Final = "langsmith"
REASON_HEADER: Final = "Clearspan-Reason"
REASON_CHARS_MAX: Final = 2_000
AT_ONCE_MAX: Final = 100


@requires(Permission.DELETE)
async def delete_session(request: Request) -> Response:
    """Remove a session with everything in it. 200: its traces are erased and verified; 202: they are hidden so far.

    The session is in no list from now on, and its name is free. The project `default` is only emptied.
    """
    services, principal = services_of(request), principal_of(request)
    uuid = path_uuid(request, "session_id")
    project = await services.reads.run(find_session, services, principal, uuid)
    result = await _remove(request, services, principal, project, services.settings.delete_wait_s)
    return removal_answer(_told(project, result), [result], is_done=is_erased_whole(result))


@requires(Permission.DELETE)
async def delete_sessions(request: Request) -> Response:
    """The same for several sessions, one after the other. With an unknown id among them nothing is removed. One that
    cannot be removed, for holds or by the key's policy, keeps nobody from learning what became of the others."""
    services, principal = services_of(request), principal_of(request)
    uuids = list(dict.fromkeys(read_uuids(request.query_params, "session_ids")))
    if not 1 <= len(uuids) <= AT_ONCE_MAX:
        raise InvalidInput(f"session_ids takes 1 to {AT_ONCE_MAX} ids; nothing was deleted.", fields=("session_ids",))
    found = [await services.reads.run(find_session, services, principal, uuid) for uuid in uuids]
    results: list[DeletionResult] = []
    told: list[Json] = []
    refusals: list[ClearspanError] = []
    deadline_s = services.clock.monotonic_s() + services.settings.delete_wait_s
    for project in found:
        try:
            left_s = max(0.0, deadline_s - services.clock.monotonic_s())
            result = await _remove(request, services, principal, project, left_s)
        except ClearspanError as error:
            refusals.append(error)
            told.append({"id": uuid_text(project.uuid), "message": error.message, "error": error.code})
        else:
            results.append(result)
            told.append(_told(project, result))
    if not results:
        raise refusals[0]
    erased = sum(map(is_erased_whole, results))
    message = f"{erased} sessions deleted"
    if erased < len(told):
        message = f"{erased} of {len(told)} sessions deleted; `sessions` says of each what became of it"
    return removal_answer({"message": message, "sessions": told}, results, is_done=erased == len(told))


async def _remove(
    request: Request, services: Services, principal: Principal, project: Project, wait_s: float
) -> DeletionResult:
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment: a session may hold others; nothing was deleted.")
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=reason_of(request),
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    return await services.deletes.run(services.removal.remove, project, asked, wait_s=wait_s)


def reason_of(request: Request) -> str | None:
    """Why something is deleted, as the request's header says."""
    return request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None


def _told(project: Project, result: DeletionResult) -> Json:
    return {
        "id": uuid_text(project.uuid),
        "message": render_message(result),
        "deleted_count": result.hidden if result.is_erased else 0,
        "hidden_count": result.hidden,
        "held_count": result.held,
        "deletion_id": result.deletion_id,
        "state": str(result.state),
    }


def removal_answer(body: Json, results: list[DeletionResult], *, is_done: bool) -> Response:
    """The answer of deletions, which its headers name; 202 while something of them is only hidden."""
    headers = {
        "Clearspan-Deletion-Id": ", ".join(each.deletion_id for each in results),
        "Clearspan-Deletion-State": ", ".join(str(each.state) for each in results),
        "Location": f"/v1/deletions/{results[0].deletion_id}",
    }
    return json_reply(body, 200 if is_done else 202, headers)


def is_erased_whole(result: DeletionResult) -> bool:
    """Whether everything asked for is erased and verified, and nothing is held back."""
    return result.is_erased and not result.held
