"""Holds: set, look at, release. What a hold keeps, no deletion takes, also none that is under way."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.native import inputs
from clearspan.api.native.bodies import read_native_object
from clearspan.api.native.bounds import Bounds, bounds_of, no_such
from clearspan.api.native.deletions import json_reply
from clearspan.api.native.requests import parse_hold
from clearspan.api.native.views import Json, hold_json
from clearspan.api.services import Services, services_of
from clearspan.model.errors import InvalidInput
from clearspan.store.port import HoldRow

_CURSOR: Final = "holds"
_WHICH: Final = ("active", "released", "all")


@requires(Permission.ADMIN)
async def create_hold(request: Request) -> Response:
    """Keep what a filter matches, what ids name, or everything: now and later, until the hold is released.

    It counts at once. Traces that a deletion has hidden already stay hidden, but are not purged.
    """
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    bounds = await services.reads.run(bounds_of, services, principal)
    asked = parse_hold(body, bounds)
    hold, outcome = await services.deletes.run(services.holds.create, asked)
    told = hold_json(hold, bounds) | {"traces": {"protected": outcome.protected, "hidden_kept": outcome.hidden_kept}}
    return json_reply(told, 201, {"Location": f"/v1/holds/{hold.hold_id}"})


@requires(Permission.READ)
async def list_holds(request: Request) -> Response:
    """The holds within the key's bounds, oldest first; `state` is active (as if absent), released or all."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    inputs.check_query(query, {"state", "limit", "cursor"})
    which = query.get("state") or _WHICH[0]
    if which not in _WHICH:
        raise InvalidInput(f"state must be one of {', '.join(_WHICH)}.", fields=("state",))
    limit, after = inputs.read_limit(query), inputs.read_cursor(query, _CURSOR, str)
    bounds = await services.reads.run(bounds_of, services, principal)

    def read() -> Json:
        found = services.holds.list_holds(org_id=principal.org_id, released=which != "active")
        found = [hold for hold in found if _sees(bounds, hold) and (which != "released" or hold.released_ns)]
        ids = [hold.hold_id for hold in found]
        begin = ids.index(after) + 1 if after in ids else 0
        page = found[begin : begin + limit]
        more = begin + limit < len(found)
        return {
            "data": [hold_json(hold, bounds) for hold in page],
            "next_cursor": inputs.render_cursor(_CURSOR, page[-1].hold_id) if more else None,
        }

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def get_hold(request: Request) -> Response:
    """One hold. What it kept and why is erased when it is released."""
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    bounds = await services.reads.run(bounds_of, services, principal)
    hold = await services.reads.run(_permitted, services, bounds, request.path_params["hold_id"])
    return json_reply(hold_json(hold, bounds))


@requires(Permission.ADMIN)
async def release_hold(request: Request) -> Response:
    """End a hold. Deletions that waited for it go on by themselves. Repeating it changes nothing."""
    services, principal = services_of(request), principal_of(request)
    inputs.check_query(request.query_params)
    body = await read_native_object(request)
    inputs.check_keys(body, {"reason"})
    reason = inputs.read_text(body, "reason")
    bounds = await services.reads.run(bounds_of, services, principal)
    hold = await services.reads.run(_permitted, services, bounds, request.path_params["hold_id"])
    released = await services.deletes.run(
        services.holds.release, hold.hold_id, org_id=principal.org_id, by=principal.key_id, reason=reason
    )
    return json_reply(hold_json(released, bounds))


def _permitted(services: Services, bounds: Bounds, hold_id: str) -> HoldRow:
    hold = services.holds.get(hold_id, org_id=bounds.principal.org_id)
    if not _sees(bounds, hold):
        raise no_such("hold")
    return hold


def _sees(bounds: Bounds, hold: HoldRow) -> bool:
    """As for deletions; a released hold has lost its environment with the rest, so who set it decides."""
    if not set(hold.scope.project_ids) <= set(bounds.principal.known_project_ids):
        return False
    return bounds.askers is None or hold.created_by in bounds.askers
