"""Projects as LangSmith's clients know them: sessions, classic and v2."""

from __future__ import annotations

from typing import Final

from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import Json, render_time, uuid_text
from clearspan.api.services import Services
from clearspan.catalog import Principal, Project
from clearspan.model.errors import NotFound

TIERS: Final = {"LONG_LIVED": "longlived", "SHORT_LIVED": "shortlived"}
"""Trace tiers: v2's word → the classic one, which is stored. Neither changes how long anything is kept here."""
EXPERIMENT: Final = "EXPERIMENT"


def find_session(services: Services, principal: Principal, uuid: str) -> Project:
    """The project of a UUID (32 hex digits), if the key may touch it. Blocks.

    Raises:
        NotFound: there is none, or the key may not; which one is not told.
    """
    found = services.catalog.find_project_uuid(principal.org_id, uuid)
    if found is None or not may_touch(principal, found):
        raise NotFound("Session not found.")
    return found


def may_touch(principal: Principal, project: Project) -> bool:
    """Whether a project of the key's organisation is one of the key's. A key without bounds has those, too, that were
    made since it was looked up."""
    return not principal.bound or project.id in principal.project_ids


def type_of(project: Project) -> str:
    """`PROJECT`, `AGENT` or `EXPERIMENT`."""
    said = (project.options or {}).get("type")
    return str(said) if said else EXPERIMENT if project.reference_dataset_id else "PROJECT"


def render_session(project: Project, principal: Principal) -> Json:
    """A session without its figures."""
    return {
        "id": uuid_text(project.uuid),
        "tenant_id": tenant_of(principal),
        "name": project.name,
        "description": project.description,
        "extra": project.extra,
        "start_time": _start(project),
        "end_time": render_time(project.end_ns),
        "reference_dataset_id": _optional_uuid(project.reference_dataset_id),
        "default_dataset_id": _optional_uuid(project.default_dataset_id),
        "trace_tier": project.trace_tier,
        **{name: (project.options or {}).get(name) for name in ("num_examples", "num_repetitions", "evaluator_keys")},
    }


def render_session_v2(project: Project, principal: Principal) -> Json:
    """The same as v2 says it."""
    words = {stored: word for word, stored in TIERS.items()}
    told = render_session(project, principal)
    return told | {
        "type": type_of(project),
        "trace_tier": words.get(project.trace_tier or ""),
        "longlived_ttl_days": (project.options or {}).get("longlived_ttl_days"),
        "created_at": render_time(project.created_at_ns),
        "updated_at": render_time(project.updated_at_ns or project.created_at_ns),
    }


def _start(project: Project) -> str | None:
    return render_time(project.created_at_ns if project.start_ns is None else project.start_ns)


def _optional_uuid(hex32: str | None) -> str | None:
    return None if hex32 is None else uuid_text(hex32)
