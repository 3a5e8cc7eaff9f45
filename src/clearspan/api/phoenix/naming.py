"""What a path names: a project by its GlobalID or its name. Phoenix's words for one that is not there."""

from __future__ import annotations

from dataclasses import replace

from clearspan.api.phoenix.conventions import Refused
from clearspan.api.phoenix.globalids import project_of
from clearspan.api.services import Services
from clearspan.catalog import Principal, Project
from clearspan.model.trace import Scope


def find_project(services: Services, principal: Principal, text: str) -> Project:
    """The project that a path segment names, if the key may touch it. Blocks.

    Args:
        text: a GlobalID of type Project; everything else is a name.
    Raises:
        Refused: 404; there is none, or the key may not, and which one is not told.
    """
    number = project_of(text)
    if number is None:
        found = services.catalog.find_project(principal.org_id, text)
        missing = f"Project with name {text} not found"
    else:
        found = next((each for each in services.catalog.projects(principal.org_id) if each.id == number), None)
        missing = f"Project with ID {text} not found"
    # A key without bounds has those, too, that were made since it was looked up.
    if found is None or (principal.bound and found.id not in principal.project_ids):
        raise Refused(404, missing)
    return found


def scope_of(principal: Principal, project: Project) -> Scope:
    """What a key sees of one of its projects."""
    return principal.scope_for_read()._replace(project_ids=(project.id,))


def with_new_projects(services: Services, principal: Principal) -> Principal:
    """The key as it is now: spans that came a moment ago may have made a project since it was looked up. Blocks."""
    if principal.bound:
        return principal
    return replace(principal, project_ids=tuple(each.id for each in services.catalog.projects(principal.org_id)))
