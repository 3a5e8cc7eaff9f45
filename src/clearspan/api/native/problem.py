"""Errors of the native API: RFC 9457 problem details with a stable `code`."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.errors import Failure, dump_json

MEDIA_TYPE: Final = "application/problem+json"
OWNED: Final = ("/v1/comparisons", "/v1/deletions", "/v1/holds", "/v1/ledger", "/v1/tombstones")
"""What the native API owns below /v1; the rest of it belongs to OTLP and other dialects."""
HELD_STATUS: Final = 423
_TYPE: Final = "urn:clearspan:problem:"


def is_native(request: Request) -> bool:
    """Whether the path lies in the native API's part, a route of it or none."""
    path: str = request.scope["path"]
    return any(path == owned or path.startswith(owned + "/") for owned in OWNED)


def problem_response(failure: Failure) -> Response:
    """An error as problem details.

    `type` names the kind and does not resolve; `title` says it in words that never change; `detail` is about this one
    request; `fields` names the keys of the request that it is about.
    """
    status = HELD_STATUS if failure.code == "held" else failure.status
    body: dict[str, Any] = {
        "type": _TYPE + failure.code,
        "title": failure.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": failure.message,
        "code": failure.code,
        "fields": list(failure.fields),
    }
    return Response(dump_json(body), status_code=status, headers=failure.headers, media_type=MEDIA_TYPE)
