"""Projects: made, listed, described, removed."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import (
    AnyLimit,
    Body,
    Query,
    Refused,
    Text,
    data_reply,
    no_content,
    page_reply,
    phoenix,
    read_object,
    read_query,
)
from clearspan.api.phoenix.globalids import project_gid, project_of, row_of
from clearspan.api.phoenix.naming import find_project
from clearspan.api.policies import policy_of
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import KeyScope, Principal, Project
from clearspan.catalog.projects import DEFAULT_PROJECT, ProjectSettings, check_writable
from clearspan.deletion.projects import RemovalRequest
from clearspan.deletion.result import DeletionResult
from clearspan.model.errors import Conflict, NotPermitted

DIALECT: Final = "phoenix"
REASON_HEADER: Final = "Clearspan-Reason"
REASON_CHARS_MAX: Final = 2_000
LIMIT_MAX: Final = 10_000
"""Largest page; a larger limit is taken for it."""
RETENTION_POLICY: Final = "ProjectTraceRetentionPolicy"
KEEP_POLICY: Final = 1
"""Phoenix's number of the default policy; here it means what every project has: traces are kept until deleted."""

Json = dict[str, Any]


class _ListQuery(Query):
    cursor: str | None = None
    limit: AnyLimit = 100
    include_experiment_projects: bool = False
    include_dataset_evaluator_projects: bool = False
    name_contains: str | None = None


class _NewProject(Body):
    name: Text
    description: str | None = None


class _ProjectChange(Body):
    description: str | None = None


class _Retention(Body):
    policy_id: str | None


def render_project(project: Project) -> Json:
    """A project as Phoenix tells it."""
    return {"name": project.name, "description": project.description, "id": project_gid(project.id)}


@requires(Permission.READ)
async def phoenix_list_projects(request: Request) -> Response:
    """The key's projects, newest first; experiments of LangSmith's dialect only if asked for."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _ListQuery)
    highest = None
    if asked.cursor:
        highest = project_of(asked.cursor)
        if highest is None:
            raise Refused(422, f"Invalid cursor format: {asked.cursor}")
    limit = min(asked.limit, LIMIT_MAX)
    found = [each for each in await services.reads.run(_projects, services, principal) if _is_asked_for(each, asked)]
    found = [each for each in reversed(found) if highest is None or each.id <= highest][: limit + 1]
    after = project_gid(found[limit].id) if len(found) > limit else None
    return page_reply([render_project(each) for each in found[:limit]], after)


@requires(Permission.READ)
async def phoenix_read_project(request: Request) -> Response:
    """One project."""
    services, principal = services_of(request), principal_of(request)
    return data_reply(render_project(await services.reads.run(find_project, services, principal, _named(request))))


@requires(Permission.INGEST)
async def phoenix_create_project(request: Request) -> Response:
    """A new project. 409 when there is one of that name."""
    services, principal = services_of(request), principal_of(request)
    body = await read_object(request, _NewProject)

    def make() -> Project:
        check_writable(principal, None)
        settings = ProjectSettings(description=body.description)
        try:
            return services.catalog.create_project(principal.org_id, body.name, settings=settings)
        except Conflict:
            raise Refused(409, f"Project with name {body.name} already exists") from None

    return data_reply(render_project(await services.reads.run(make)))


@requires(Permission.ADMIN)
async def phoenix_update_project(request: Request) -> Response:
    """Change the description; null changes nothing, and a name is ignored."""
    services, principal = services_of(request), principal_of(request)
    body = await read_object(request, _ProjectChange)

    def change() -> Project:
        found = find_project(services, principal, _named(request))
        settings = ProjectSettings(description=body.description)
        return services.catalog.update_project(principal.org_id, found.id, settings=settings)

    return data_reply(render_project(await services.reads.run(change)))


@requires(Permission.ADMIN)
async def phoenix_set_retention(request: Request) -> Response:
    """Which retention policy a project has. There is one, which keeps traces until they are deleted: null or Phoenix's
    default policy name it, and any other is 404."""
    services, principal = services_of(request), principal_of(request)
    body = await read_object(request, _Retention)
    number = None
    if body.policy_id is not None:
        number = row_of(body.policy_id, RETENTION_POLICY)
        if number is None:
            raise Refused(422, f"Invalid retention policy ID: {body.policy_id}")
    found = await services.reads.run(find_project, services, principal, _named(request))
    if number not in (None, KEEP_POLICY):
        raise Refused(404, f"Retention policy with ID {body.policy_id} not found")
    return data_reply({"project_id": project_gid(found.id), "policy_id": None})


@requires(Permission.ADMIN)
async def phoenix_delete_project(request: Request) -> Response:
    """Remove a project with everything in it, by an ordinary deletion that the answer's head names. The project
    `default` stays."""
    services, principal = services_of(request), principal_of(request)
    project = await services.reads.run(find_project, services, principal, _named(request))
    if project.name == DEFAULT_PROJECT:
        raise Refused(403, "The default project cannot be deleted")
    principal.require(KeyScope.DELETE)
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment: a project may hold others; nothing was deleted.")
    asked = RemovalRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    result = await services.deletes.run(services.removal.remove, project, asked, wait_s=services.settings.delete_wait_s)
    return no_content(deletion_headers(result))


def deletion_headers(result: DeletionResult) -> dict[str, str]:
    """What a 204 says of the deletion behind it: clients of Phoenix know no body here."""
    return {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": str(result.state),
        "Clearspan-Deleted-Count": str(result.hidden),
        "Clearspan-Held-Count": str(result.held),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }


def _named(request: Request) -> str:
    name: str = request.path_params["project"]
    return name


def _projects(services: Services, principal: Principal) -> list[Project]:
    """Every project that the key may touch, oldest first. Blocks."""
    found = services.catalog.projects(principal.org_id)
    return [each for each in found if not principal.bound or each.id in principal.project_ids]


def _is_asked_for(project: Project, asked: _ListQuery) -> bool:
    if asked.name_contains is not None and asked.name_contains.casefold() not in project.name.casefold():
        return False
    return asked.include_experiment_projects or project.reference_dataset_id is None


ROUTES: Final[tuple[RestRoute, ...]] = (
    phoenix("GET", "/projects", phoenix_list_projects),
    phoenix("POST", "/projects", phoenix_create_project),
    phoenix("GET", "/projects/{project}", phoenix_read_project),
    phoenix("PUT", "/projects/{project}", phoenix_update_project),
    phoenix("DELETE", "/projects/{project}", phoenix_delete_project),
    phoenix("PATCH", "/projects/{project}/retention", phoenix_set_retention),
)
