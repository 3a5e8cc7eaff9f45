"""What all of v2's reads have in common: problem details, projects, columns, and the parts of v2 that are not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.errors import Failure
from clearspan.api.langsmith.errors import problem
from clearspan.api.langsmith.inputs import Json, optional_texts, read_uuid
from clearspan.model.errors import InvalidInput

ELSEWHERE: Final = ("ai_search", "sem_filter", "thread_filter")
_DATED_FEEDBACK: Final = ("min_feedback_modified_at", "max_feedback_modified_at", "include_subtree_usage")


def declined(request: Request, body: Mapping[str, Any]) -> Response | None:
    """The answer to a request for something that v2 has and this server has not; None: it asks for nothing of it.

    To answer as if it had not been asked for would show other runs than the ones that were meant.
    """
    accept = request.headers.get("accept", "")
    if "text/event-stream" in accept and "application/json" not in accept and "*/*" not in accept:
        return _problem(request, 406, "not_acceptable", "Answers come as application/json, not as a stream of patches.")
    for name in (*ELSEWHERE, *_DATED_FEEDBACK):
        if body.get(name) not in (None, "", False):
            return _problem(request, 501, "not_available", f"{name} is not available here; leave it out.")
    return None


def not_available(request: Request, why: str) -> Response:
    """501: v2 has it, this server has not."""
    return _problem(request, 501, "not_available", why)


def read_project(body: Mapping[str, Any], name: str = "project_id") -> str:
    """The project that v2 insists on (32 hex digits). Raises InvalidInput."""
    if not body.get(name):
        raise InvalidInput(f"{name} is required.", fields=(name,))
    return read_uuid(body[name], name)


def read_selects(body: Json, name: str = "selects") -> list[str]:
    """The properties that a body asks for; `ID` alone when it does not say. Raises InvalidInput."""
    return _with_id(optional_texts(body, name))


def query_selects(query: QueryParams, name: str = "selects") -> list[str]:
    """The same of a query."""
    return _with_id(query.getlist(name))


def _with_id(asked: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys(("ID", *(name.upper() for name in asked or ()))))


def _problem(request: Request, status: int, code: str, why: str) -> Response:
    return problem(request, Failure(status, code, why), status)
