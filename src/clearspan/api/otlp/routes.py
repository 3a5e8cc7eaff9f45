"""OTLP over HTTP: traces and logs, protobuf and JSON, on every path that clients have been seen to use."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.errors import Failure, UnsupportedMedia
from clearspan.api.intake import Received, receive
from clearspan.api.otlp.placing import PROJECT_HEADER, Wire, by_header_or_resource, unplaced
from clearspan.api.otlp.replies import JSON, PROTOBUF, Partial, export_reply, failure_reply
from clearspan.api.routing import Endpoint, add_plain_routes, spellings
from clearspan.api.services import services_of
from clearspan.model.errors import NotFound

TRACE_PATHS = ("/v1/traces", "/api/v1/traces", "/api/v2/traces", "/v2/traces")
LANGSMITH_TRACE_ENDINGS = ("/otel/v1/traces", "/otel")
"""What the addresses end with at which LangSmith's exporters send; api/langsmith/ingest.py serves them."""
LOG_PATHS = ("/v1/logs", "/api/v1/logs", "/api/v2/logs", "/v2/logs")
IMAGE_PATHS = tuple(f"{path}/{{trace_id}}/spans/{{span_id}}/images" for path in TRACE_PATHS)

_OWNED = frozenset(spellings(*TRACE_PATHS, *LOG_PATHS))
_PROTOBUF_TYPES = frozenset({PROTOBUF, "application/protobuf"})


@requires(Permission.INGEST)
async def export_traces(request: Request) -> Response:
    """An ExportTraceServiceRequest. Answers 200 once the spans are on disk, with what was left out and why."""
    return await _export(request, Wire(is_protobuf(request)))


@requires(Permission.INGEST)
async def export_logs(request: Request) -> Response:
    """An ExportLogsServiceRequest; log records without a trace are not kept."""
    return await _export(request, Wire(is_protobuf(request), logs=True))


@requires(Permission.INGEST)
async def upload_image(request: Request) -> Response:
    """Where OpenLLMetry asks for a place to put images. There is none, and it goes on at once when told so."""
    raise NotFound("Images are not stored apart from their spans.")


async def _export(request: Request, wire: Wire) -> Response:
    services, principal = services_of(request), principal_of(request)
    decode = by_header_or_resource(services, principal, wire, request.headers.get(PROJECT_HEADER))
    received = await receive(request, decode, unplaced(principal))
    return export_reply(partial_of(received, wire), protobuf=wire.protobuf, logs=wire.logs)


def partial_of(received: Received, wire: Wire) -> Partial:
    """What was left out of a request, for its answer."""
    return Partial(received.rejected + received.refused, received.message("log records" if wire.logs else "spans"))


def is_protobuf(request: Request) -> bool:
    """Whether the request speaks protobuf; False: JSON.

    Raises:
        UnsupportedMedia: neither.
    """
    kind = _media_type(request)
    if kind in _PROTOBUF_TYPES:
        return True
    if kind == JSON:
        return False
    raise UnsupportedMedia(f"Content-Type must be {PROTOBUF} or {JSON}.")


def is_otlp(request: Request) -> bool:
    """Whether an OTLP route took the request, so that errors are answered in OTLP's words."""
    path = getattr(request.scope.get("route"), "path", None)
    return path in _OWNED or (path is not None and path.rstrip("/").endswith(LANGSMITH_TRACE_ENDINGS))


def otlp_failure(request: Request, failure: Failure) -> Response:
    """An error in the encoding of the request; JSON when that is unclear, for then a person may be asking."""
    return failure_reply(failure, protobuf=_media_type(request) in _PROTOBUF_TYPES)


def described_paths() -> dict[str, Any]:
    """The OTLP operations as OpenAPI path items: plain routes do not describe themselves."""
    return {
        "/v1/traces": {"post": _described(export_traces, "ExportTraceServiceRequest", TRACE_PATHS)},
        "/v1/logs": {"post": _described(export_logs, "ExportLogsServiceRequest", LOG_PATHS)},
    }


def _described(endpoint: Endpoint, message: str, paths: tuple[str, ...]) -> dict[str, Any]:
    content = {JSON: {"schema": {"type": "object"}}, PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}
    return {
        "tags": ["otlp"],
        "summary": endpoint.__name__.replace("_", " ").capitalize(),
        "description": f"{endpoint.__doc__} Also served at {', '.join(paths[1:])}.",
        "operationId": endpoint.__name__,
        "requestBody": {"required": True, "description": message, "content": content},
        "responses": {
            "200": {"description": "On disk, but for what partial_success names.", "content": content},
            **{
                status: {"description": f"{text}, as google.rpc.Status.", "content": content}
                for status, text in (
                    ("400", "Not a valid request"),
                    ("413", "Too large"),
                    ("415", "Unknown content type or encoding"),
                    ("503", "Too busy; see Retry-After"),
                )
            },
        },
    }


def add_otlp_routes(app: FastAPI) -> None:
    """Register all spellings of all paths."""
    add_plain_routes(app, "POST", TRACE_PATHS, export_traces)
    add_plain_routes(app, "POST", LOG_PATHS, export_logs)
    add_plain_routes(app, "POST", IMAGE_PATHS, upload_image)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()
