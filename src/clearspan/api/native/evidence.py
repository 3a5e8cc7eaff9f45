"""What shows that a deletion took place: its events, its receipt, who was in it, and the tombstones it left."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from clearspan.api.auth import Permission, presented_key, principal_of, requires
from clearspan.api.methods import is_head
from clearspan.api.native import inputs
from clearspan.api.native.bodies import read_native_object
from clearspan.api.native.bounds import bounds_of
from clearspan.api.native.deletions import json_reply, permitted, state_headers
from clearspan.api.native.events import parse_mark
from clearspan.api.native.views import Json, path_of, sight_of
from clearspan.api.services import Services, services_of
from clearspan.deletion.watch import DeletionStatus
from clearspan.model.errors import Conflict, InvalidInput, NotFound
from clearspan.proof.encoding import from_base64url
from clearspan.proof.manifest import render_claim
from clearspan.store.span_deletion import normalise_name

JOSE: Final = "application/jose"
EVENT_STREAM: Final = "text/event-stream"
_CURSOR: Final = "tombstones"
LIFT_KEYS: Final = frozenset({"project", "trace_id", "reason"})


@requires(Permission.READ)
async def watch_deletion(request: Request) -> Response:
    """Server-sent events: `state` for each move, `progress` with the counts so far, `end` at the last one.

    Each has an id; a client that comes back with `Last-Event-ID` gets the moves it has missed. 204 when it has missed
    nothing and nothing more will come. It ends when its key is revoked or expires.
    """
    services = services_of(request)
    inputs.check_query(request.query_params)
    principal = principal_of(request)
    bounds = await services.reads.run(bounds_of, services, principal)
    status = await services.reads.run(permitted, services, bounds, request.path_params["deletion_id"])
    now = sight_of(status, services.clock.now_ns())
    seen = parse_mark(request.headers.get("last-event-id"))
    headers = state_headers(status.job) | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if now.has_ended and seen == now.mark:
        return Response(status_code=204, headers=headers)
    if is_head(request):
        return Response(headers=headers, media_type=EVENT_STREAM)
    events = services.events.stream(
        status.job.deletion_id, principal.key_id, now, seen, is_valid=lambda: _is_key_valid(services, request)
    )
    return StreamingResponse(events, headers=headers, media_type=EVENT_STREAM)


@requires(Permission.READ)
async def get_receipt(request: Request) -> Response:
    """The signed receipt of a verified deletion: a JWS, or with `Accept: application/jose` nothing but that.

    The JSON form repeats what is signed, for people to read; only the JWS proves anything.
    """
    services = services_of(request)
    inputs.check_query(request.query_params)
    bounds = await services.reads.run(bounds_of, services, principal_of(request))

    def read() -> tuple[DeletionStatus, str]:
        status = permitted(services, bounds, request.path_params["deletion_id"])
        return status, _receipt(services, status)

    status, jws = await services.reads.run(read)
    headers = state_headers(status.job) | {"Vary": "Accept"}
    if _wants_jose(request):
        return Response(jws, headers=headers, media_type=JOSE)
    return json_reply({"id": status.job.deletion_id, "receipt": jws, "payload": payload_of(jws)}, headers=headers)


@requires(Permission.READ)
async def get_membership(request: Request) -> Response:
    """The proof that one trace is among those that a verified deletion removed; it says nothing of any other.

    Check it beside the receipt: `clearspan verify RECEIPT --member FILE`.
    """
    services, query = services_of(request), request.query_params
    inputs.check_query(query, {"project", "trace_id"})
    bounds = await services.reads.run(bounds_of, services, principal_of(request))
    trace_id = _trace_id(query.get("trace_id"))
    project_id = bounds.one_project(query.get("project") or None)

    def read() -> Json:
        status = permitted(services, bounds, request.path_params["deletion_id"])
        _receipt(services, status)
        claim = services.deleter.membership(status.job.deletion_id, project_id, trace_id)
        if claim is None:
            raise NotFound(
                "That trace is not among those which this deletion removed.", code="not_a_member", fields=("trace_id",)
            )
        return render_claim(claim)

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def list_tombstones(request: Request) -> Response:
    """Keyed hashes of the traces whose late data this deletion refuses. Nobody can turn one back into an id."""
    services, query = services_of(request), request.query_params
    inputs.check_query(query, {"limit", "cursor"})
    limit, after = inputs.read_limit(query), _after(inputs.read_cursor(query, _CURSOR, str))
    bounds = await services.reads.run(bounds_of, services, principal_of(request))

    def read() -> Json:
        status = permitted(services, bounds, request.path_params["deletion_id"])
        found = services.deleter.tombstones(status.job.deletion_id, after, limit + 1)
        page = found[:limit]
        more = len(found) > limit
        return {
            "data": [{"key": key.hex()} for key in page],
            "next_cursor": inputs.render_cursor(_CURSOR, page[-1].hex()) if more else None,
        }

    return json_reply(await services.reads.run(read))


@requires(Permission.ADMIN)
async def lift_tombstone(request: Request) -> Response:
    """Accept data of a deleted trace again. The ledger keeps that it was lifted, by whom, and a hash of why.

    A key lifts only tombstones of deletions that it sees; of others it is told nothing.
    """
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    inputs.check_keys(body, LIFT_KEYS)
    trace_id = _trace_id(inputs.need_text(body, "trace_id"))
    reason = inputs.need_text(body, "reason")
    bounds = await services.reads.run(bounds_of, services, principal)
    project_id = bounds.one_project(inputs.read_text(body, "project"))

    def lift() -> str:
        deletion_id = services.deleter.lift_tombstone(
            principal.org_id,
            project_id,
            trace_id,
            by=principal.key_id,
            reason=reason,
            sees=None if bounds.is_whole else bounds.sees,
        )
        if deletion_id is None:
            raise NotFound("No tombstone stands for that trace.", code="no_tombstone", fields=("trace_id",))
        return deletion_id

    deletion_id = await services.deletes.run(lift)
    return json_reply({"lifted": True, "deletion_id": deletion_id, "links": {"deletion": path_of(deletion_id)}})


async def _is_key_valid(services: Services, request: Request) -> bool:
    """Whether the request's key would still be let in: it may be revoked or expire while a stream is open."""
    try:
        await services.reads.run(services.catalog.authenticate, presented_key(request.scope["headers"]) or "")
    except Exception:  # also when it cannot be told just now: the client comes back, and is told
        return False
    return True


def payload_of(jws: str) -> Any:
    """What a receipt or head of our own says; not a check of its signature."""
    return orjson.loads(from_base64url(jws.split(".")[1]))


def _receipt(services: Services, status: DeletionStatus) -> str:
    try:
        return services.deleter.receipt(status.job.deletion_id)
    except NotFound:
        raise Conflict(
            f"This deletion is {status.job.state.value}; there is a receipt once it is verified.",
            code="receipt_not_ready",
        ) from None


def _wants_jose(request: Request) -> bool:
    """Whether the JWS alone is preferred: named in Accept, before JSON if that is named too."""
    kinds = [part.split(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    return JOSE in kinds and ("application/json" not in kinds or kinds.index(JOSE) < kinds.index("application/json"))


def _trace_id(text: str | None) -> str:
    """Of a trace, or TRACE/SPAN of a span that was deleted by itself."""
    if not text:
        raise InvalidInput("trace_id is required.", code="missing_parameter", fields=("trace_id",))
    try:
        return normalise_name(text)
    except ValueError as error:
        raise InvalidInput(f"trace_id is not valid: {error}.", fields=("trace_id",)) from None


def _after(text: str | None) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        raise InvalidInput("The cursor is not one of this list's.", code="invalid_cursor", fields=("cursor",)) from None
