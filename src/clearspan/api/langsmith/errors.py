"""Errors in the words of the LangSmith dialect, which has three families of them.

    ingest      {"error", "details"}                   POST /runs, PATCH /runs/{id}, /runs/batch, /runs/multipart
    classic     {"detail"}; 422 with a list of faults  everything else at its two roots
    v2          problem details (RFC 9457)             /api/v2 and /v2

Its clients repeat 408, 425, 429 and 5xx by themselves, and drop a whole batch for good on any other 4xx but 409.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.errors import Failure, dump_json
from clearspan.api.langsmith.paths import CLASSIC_ROOT, PLATFORM_ROOTS, V2_ROOTS

Family = Literal["classic", "ingest", "v2"]

CLASSIC_PARTS: Final = frozenset(
    {
        "runs", "sessions", "feedback", "feedback-configs", "datasets", "examples", "info", "settings", "public",
        "workspaces", "annotation-queues", "ttl-settings", "audit-logs", "platform",
        "attachments",
    }
)  # fmt: skip
"""First segments that belong to the dialect below its classic roots."""
V2_PARTS: Final = frozenset({"runs", "traces", "threads", "sessions", "datasets", "public"})
PROBLEM_TYPE: Final = "application/problem+json"

_INGEST: Final = {
    "POST": re.compile(r"/runs(/batch|/multipart)?/?"),
    "PATCH": re.compile(r"/runs/[^/]+/?"),
}
_REMEDIES: Final = {
    400: "Correct the request and send it again.",
    401: "Send a valid API key as x-api-key.",
    403: "Use a key with the scope and the project that this needs.",
    404: "Check the id and the project.",
    413: "Send less at once.",
    422: "Correct the named fields and send the request again.",
    429: "Wait as Retry-After says and send it again.",
    503: "Wait as Retry-After says and send it again.",
}


def own(app: FastAPI, paths: Iterable[str]) -> None:
    """Tell that the routes of these paths (templates) are the dialect's."""
    app.state.langsmith_paths = frozenset(paths) | getattr(app.state, "langsmith_paths", frozenset())


def family_of(request: Request) -> Family | None:
    """Whose errors a request is answered with; None: another dialect's.

    The route that took the request decides. Where none did, the first segment below a root of the dialect does.
    """
    route = getattr(request.scope.get("route"), "path", None)
    if route is not None and route not in request.app.state.langsmith_paths:
        return None
    return family_of_path(request.method, request.scope["path"])


def family_of_path(method: str, path: str) -> Family | None:
    """The family that owns a method and path; None: none of them."""
    for root in V2_ROOTS:
        if path.startswith(root + "/"):
            return "v2" if _first(path.removeprefix(root)) in V2_PARTS else None
    if any(path.startswith(root + "/") for root in PLATFORM_ROOTS):
        return "classic"
    rest = path.removeprefix(CLASSIC_ROOT) if path.startswith(CLASSIC_ROOT + "/") else path
    if _first(rest) not in CLASSIC_PARTS:
        return None
    pattern = _INGEST.get(method)
    return "ingest" if pattern is not None and pattern.fullmatch(rest) else "classic"


def langsmith_failure(request: Request, failure: Failure, family: Family) -> Response:
    """The failure in a family's shape."""
    if family == "ingest":
        return ingest_failure(failure, {"fields": list(failure.fields)})
    # Its clients know 422 for input that is wrong, and nothing of 400.
    status = 422 if failure.status == 400 else failure.status
    if family == "v2":
        return problem(request, failure, status)
    detail: Any = failure.message
    if status == 422:
        kind = "json_invalid" if failure.code == "invalid_json" else "value_error"
        places = [["body", *field.split(".")] for field in failure.fields] or [["body"]]
        detail = [{"loc": place, "msg": failure.message, "type": kind} for place in places]
    return _json({"detail": detail}, failure, status)


def ingest_failure(failure: Failure, details: dict[str, Any]) -> Response:
    """An error of the ingest family; its `details` are JSON as text, as its clients know them."""
    text = dump_json({"code": failure.code, **details}).decode()
    return _json({"error": failure.message, "details": text}, failure, failure.status)


def problem(request: Request, failure: Failure, status: int) -> Response:
    """An error of the v2 API."""
    body = {
        "type": f"urn:clearspan:problem:{failure.code}",
        "title": failure.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": failure.message,
        "instance": request.scope["path"],
        "remedy": _REMEDIES.get(status, ""),
    }
    return Response(dump_json(body), status_code=status, headers=failure.headers, media_type=PROBLEM_TYPE)


def _json(body: dict[str, Any], failure: Failure, status: int) -> Response:
    return Response(dump_json(body), status_code=status, headers=failure.headers, media_type="application/json")


def _first(path: str) -> str:
    return path.split("/", 2)[1]
