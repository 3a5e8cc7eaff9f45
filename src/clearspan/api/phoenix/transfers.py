"""Moving traces to another project."""

from __future__ import annotations

from typing import Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import Body, Refused, json_reply, phoenix, read_object
from clearspan.api.phoenix.globalids import project_gid, trace_of
from clearspan.api.phoenix.naming import find_project, with_new_projects
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.catalog.projects import check_writable
from clearspan.model.errors import Conflict, NotFound
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope
from clearspan.store.transfer import TRANSFER_MAX

_MISSING: Final = "One or more traces not found"
_SEVERAL: Final = "Cannot transfer traces from multiple projects"
_TOO_MANY: Final = f"At most {TRANSFER_MAX} traces can be transferred at once"


class _Transfer(Body):
    trace_identifiers: list[str] = Field(min_length=1)
    destination_project_identifier: str


# It takes traces out of a project, as a deletion does: a key that may only write must not.
@requires(Permission.DELETE)
async def phoenix_transfer_traces(request: Request) -> Response:
    """Move traces of one project, with their annotations, to another; data that comes late follows them.

    All or none: 404 when one is not there, 409 when a hold or a deletion keeps one where it is, or the destination
    has one of the same id. Public links stay open.
    """
    services, principal = services_of(request), principal_of(request)
    asked = await read_object(request, _Transfer)
    return await services.deletes.run(_transfer, services, principal, asked)


def _transfer(services: Services, principal: Principal, asked: _Transfer) -> Response:
    destination = find_project(services, principal, asked.destination_project_identifier)
    check_writable(principal, destination)
    scope = with_new_projects(services, principal).scope_for_read()
    trace_ids, named = _read_identifiers(asked.trace_identifiers)
    if named - set(scope.project_ids):
        raise Refused(404, _MISSING)
    if len(named) > 1:
        raise Refused(422, _SEVERAL)
    if len(trace_ids) > TRANSFER_MAX:
        raise Refused(422, _TOO_MANY)
    if named:
        scope = scope._replace(project_ids=tuple(named))
    count = _move(services, principal, scope, trace_ids, destination)
    told = {"transferred_trace_count": count, "destination_project_id": project_gid(destination.id)}
    return json_reply({"data": told})


def _read_identifiers(texts: list[str]) -> tuple[list[str], set[int]]:
    """Trace ids, and the projects that those name which are GlobalIDs."""
    trace_ids, projects = [], set()
    for text in dict.fromkeys(texts):
        ref = trace_of(text)
        if ref is not None:
            projects.add(ref.project_id)
        try:
            trace_ids.append(normalise_id(text if ref is None else ref.trace_id))
        except ValueError:
            raise Refused(404, _MISSING) from None
    return trace_ids, projects


def _move(services: Services, principal: Principal, scope: Scope, trace_ids: list[str], to: Project) -> int:
    try:
        return services.transfers.transfer(principal.org_id, scope, trace_ids, to.id, by=principal.key_id)
    except NotFound:
        raise Refused(404, _MISSING) from None
    except Conflict as error:
        if error.code == "several_projects":
            raise Refused(422, _SEVERAL) from None
        raise Refused(409, error.message) from None


ROUTES: Final[tuple[RestRoute, ...]] = (phoenix("POST", "/traces/transfer", phoenix_transfer_traces),)
