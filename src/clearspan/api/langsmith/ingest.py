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
from clearspan.api.langsmith.taking import PROJECT_HEADER, Taken, named, take
from clearspan.api.otlp.placing import Wire, by_project, unplaced
from clearspan.api.otlp.replies import Partial, export_reply
from clearspan.api.otlp.routes import is_protobuf
from clearspan.api.placing import Projects, Session
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.ingest.multipart import boundary_of
from clearspan.ingest.otlp_projects import LANGSMITH
from clearspan.ingest.run_parts import RunRequest, read_batch, read_multipart, read_run


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
    projects = Projects(services, principal, request.headers.get(PROJECT_HEADER))
    decode = by_project(Wire(protobuf), LANGSMITH, lambda key: projects.of(Session(*key)))
    received = await receive(request, decode, unplaced(principal))
    partial = Partial(received.rejected + received.refused, received.message("spans"))
    return export_reply(partial, protobuf=protobuf)


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
