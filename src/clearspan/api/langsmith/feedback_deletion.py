"""Deleting one piece of feedback. What is removed, when, and how it is proved is `clearspan.deletion`'s."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.inputs import path_uuid
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.policies import policy_of
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.deletion.request import ByAnnotations, DeletionRequest
from clearspan.deletion.result import render_message
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import NotFound
from clearspan.store.annotations import AnnotationQuery

DIALECT: Final = "langsmith"
REASON_HEADER: Final = "Clearspan-Reason"
REASON_CHARS_MAX: Final = 2_000
_FEEDBACK: Final = (AnnotationTarget.SPAN, AnnotationTarget.TRACE, AnnotationTarget.PROJECT)


@requires(Permission.DELETE)
async def delete_feedback(request: Request) -> Response:
    """Delete one piece of feedback, also one that waits for its run; its run stays. 200: it is erased and verified;
    202: hidden so far. 404 for an id that is not there, or not any more."""
    services, principal = services_of(request), principal_of(request)
    feedback_id = path_uuid(request, "feedback_id")
    asked = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=principal.scope_for_read(),
        selection=ByAnnotations(AnnotationQuery(annotation_ids=(feedback_id,), targets=_FEEDBACK)),
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        policy=policy_of(principal),
    )

    def exists() -> bool:
        assert isinstance(asked.selection, ByAnnotations)
        return bool(services.annotations.list_annotations(asked.scope, asked.selection.query, limit=1))

    if not await services.reads.run(exists):  # no deletion is recorded of what is not there
        raise NotFound("There is no such feedback.")
    result = await services.deletes.run(
        services.deleter.delete, asked, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    if not result.hidden and not result.failed:  # somebody else was faster
        raise NotFound("There is no such feedback.")
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": result.state.value,
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    body = {"message": render_message(result), "deletion_id": result.deletion_id, "state": result.state.value}
    return json_reply(body, 200 if result.is_erased else 202, headers)


ROUTES: Final[tuple[RestRoute, ...]] = (classic("DELETE", "/feedback/{feedback_id}", delete_feedback),)
