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
from clearspan.model.errors import InvalidInput, NotPermitted

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
    result = await _remove(request, services, principal, project)
    return _answer(_told(project, result), [result])


@requires(Permission.DELETE)
async def delete_sessions(request: Request) -> Response:
    """The same for several sessions, one after the other. With an unknown id among them nothing is removed."""
    services, principal = services_of(request), principal_of(request)
    uuids = list(dict.fromkeys(read_uuids(request.query_params, "session_ids")))
    if not 1 <= len(uuids) <= AT_ONCE_MAX:
        raise InvalidInput(f"session_ids takes 1 to {AT_ONCE_MAX} ids; nothing was deleted.", fields=("session_ids",))
    found = [await services.reads.run(find_session, services, principal, uuid) for uuid in uuids]
    results = [await _remove(request, services, principal, project) for project in found]
    told = [_told(project, result) for project, result in zip(found, results, strict=True)]
    return _answer({"message": f"{len(told)} sessions deleted", "sessions": told}, results)


async def _remove(request: Request, services: Services, principal: Principal, project: Project) -> DeletionResult:
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment: a session may hold others; nothing was deleted.")
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        policy=policy_of(principal),
        reach=principal.scope_for_read(),
    )
    return await services.deletes.run(services.removal.remove, project, asked, wait_s=services.settings.delete_wait_s)


def _told(project: Project, result: DeletionResult) -> Json:
    return {
        "id": uuid_text(project.uuid),
        "message": render_message(result),
        "deleted_count": result.hidden,
        "held_count": result.held,
        "deletion_id": result.deletion_id,
        "state": str(result.state),
    }


def _answer(body: Json, results: list[DeletionResult]) -> Response:
    headers = {
        "Clearspan-Deletion-Id": ", ".join(each.deletion_id for each in results),
        "Clearspan-Deletion-State": ", ".join(str(each.state) for each in results),
        "Location": f"/v1/deletions/{results[0].deletion_id}",
    }
    is_done = all(each.is_erased and not each.held for each in results)
    return json_reply(body, 200 if is_done else 202, headers)
