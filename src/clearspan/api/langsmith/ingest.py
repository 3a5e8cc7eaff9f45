"""LangSmith's way in: runs one by one, in batches and as multipart, and OTLP with projects of its own.

Ingest is answered after what it brought is on disk. Sending a request again changes nothing, so it never answers 409.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.errors import Failure, dump_json
from clearspan.api.intake import receive
from clearspan.api.langsmith.errors import ingest_failure
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.placing import Projects, Session
from clearspan.api.langsmith.taking import PROJECT_HEADER, Taken, named, take
from clearspan.api.otlp.replies import Partial, export_reply
from clearspan.api.otlp.routes import is_protobuf
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.multipart import boundary_of
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder, decode_traces_json, decode_traces_protobuf
from clearspan.ingest.otlp_projects import split_json, split_protobuf
from clearspan.ingest.run_parts import RunRequest, read_batch, read_multipart, read_run
from clearspan.model.errors import InvalidInput, NotFound, NotPermitted

_NO_PROJECT: Final = 0
"""Of an origin whose project each part of the request names."""


@requires(Permission.INGEST)
async def create_run(request: Request) -> Response:
    """Store a new run. What it lacks to have a place (trace_id, dotted_order) comes from its parent."""
    return await _ingest(request, read_run, "Run created")


@requires(Permission.INGEST)
async def update_run(request: Request) -> Response:
    """Store what is new about a run. 404 when neither it nor the body says which trace it belongs to."""
    run_id: str = request.path_params["run_id"]
    return await _ingest(request, lambda body: read_run(body, run_id=run_id), "Run updated")


@requires(Permission.INGEST)
async def ingest_batch(request: Request) -> Response:
    """Store creates (`post`) and updates (`patch`) of any number of runs, of one project or several."""
    return await _ingest(request, read_batch, "Runs batch ingested")


@requires(Permission.INGEST)
async def ingest_multipart(request: Request) -> Response:
    """Store runs, feedback and attachments sent as parts."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    return await _ingest(request, lambda body: read_multipart(body, boundary), "Runs batch ingested")


@requires(Permission.INGEST)
async def export_langsmith_traces(request: Request) -> Response:
    """An ExportTraceServiceRequest whose spans name their project, else the header `Langsmith-Project` does."""
    services, principal = services_of(request), principal_of(request)
    protobuf = is_protobuf(request)
    split, decode_part = (split_protobuf, decode_traces_protobuf) if protobuf else (split_json, decode_traces_json)
    projects = Projects(services, principal, request.headers.get(PROJECT_HEADER))

    def decode(body: bytes, decoder: Decoder) -> DecodedRequest:
        found: list[DecodedRequest] = []
        parts = split(body)
        for part in parts:
            try:
                project_id = projects.of(Session(*part.session))
            except (InvalidInput, NotFound, NotPermitted) as error:
                if len(parts) == 1:
                    raise
                found.append(DecodedRequest([], 0, 0, part.span_count, (error.message,)))
            else:
                origin = decoder.origin._replace(project_id=project_id)
                found.append(decode_part(part.body, decoder._replace(origin=origin)))
        return _joined(found)

    origin = Origin(_NO_PROJECT, principal.key_id, principal.environment)
    received = await receive(request, decode, origin)
    partial = Partial(received.rejected + received.refused, received.message("spans"))
    return export_reply(partial, protobuf=protobuf)


def _joined(found: list[DecodedRequest]) -> DecodedRequest:
    if len(found) == 1:
        return found[0]
    return DecodedRequest(
        [batch for each in found for batch in each.batches],
        sum(each.span_count for each in found),
        sum(each.log_count for each in found),
        sum(each.rejected_count for each in found),
        tuple(dict.fromkeys(reason for each in found for reason in each.reasons)),
    )


async def _ingest(request: Request, read: Callable[[bytes], RunRequest], message: str) -> Response:
    taken = await take(request, read)
    if taken.is_nothing:
        return _nothing(taken)
    return Response(dump_json(taken.answer(message)), status_code=202, media_type="application/json")


def _nothing(taken: Taken) -> Response:
    """All that the request brought was rejected: the first says why, `details` names them."""
    first = taken.rejections[0]
    codes = {each.code for each in taken.rejections}
    status = 403 if codes == {"not_permitted"} else 404 if codes <= {"unknown_run", "not_found"} else 422
    text = f"Nothing was stored. {first.kind.capitalize()} {first.id or 'without an id'}: {first.reason}"
    return ingest_failure(Failure(status, first.code, text), {"rejected": named(taken.rejections)})


ROUTES: Final[tuple[RestRoute, ...]] = (
    classic("POST", "/runs/multipart", ingest_multipart),
    classic("POST", "/runs/batch", ingest_batch),
    classic("POST", "/runs", create_run),
    classic("PATCH", "/runs/{run_id}", update_run),
)
