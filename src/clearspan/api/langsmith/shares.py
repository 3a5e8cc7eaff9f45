"""Public links to traces. A run shares its whole trace: the link is the trace's, whichever of its runs asked for it.

What a token opens is read without a key; the routes for that ask `opened_by`, then the store: a hidden trace is gone.
"""

from __future__ import annotations

from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import Json, optional_texts, path_uuid, read_uuid, render_time, uuid_text
from clearspan.api.langsmith.paths import classic, v2
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, RunShare
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope, Window
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import OffsetPage, parse_sort
from clearspan.query.values import make_condition
from clearspan.store.port import TraceRow
from clearspan.store.spans import SpanReader

LIST_TRACES_MAX: Final = 20_000
"""Traces of one project, newest first, that a list of links looks through: the Catalog does not know their ids."""
_PAGE: Final = 1_000


@requires(Permission.ANNOTATE)
async def share_run(request: Request) -> Response:
    """Link a run's trace under the token that the client made; one that is linked already keeps its token."""
    services, principal = services_of(request), principal_of(request)
    run_id, body = path_uuid(request, "run_id"), await read_json_object(request)
    token = read_uuid(body.get("share_token"), "share_token")

    def write() -> str:
        trace = trace_of_run(services, principal.scope_for_read(), run_id)
        return _link(services, principal, trace, token)

    return json_reply(_v1(run_id, await services.reads.run(write)))


@requires(Permission.READ)
async def read_run_share(request: Request) -> Response:
    """The token of a run's trace; null when it has none."""
    services, principal = services_of(request), principal_of(request)
    run_id = path_uuid(request, "run_id")

    def read() -> str | None:
        trace = trace_of_run(services, principal.scope_for_read(), run_id)
        return services.catalog.run_shares.token_of(trace.project_id, trace.summary.trace_id)

    token = await services.reads.run(read)
    return json_reply(None if token is None else _v1(run_id, token))


@requires(Permission.ANNOTATE)
async def unshare_run(request: Request) -> Response:
    """End the link of a run's trace."""
    services, principal = services_of(request), principal_of(request)
    run_id = path_uuid(request, "run_id")

    def write() -> None:
        trace = trace_of_run(services, principal.scope_for_read(), run_id)
        services.catalog.run_shares.remove(trace.project_id, trace.summary.trace_id)

    await services.reads.run(write)
    return json_reply({"message": "The run is not shared any more."})


@requires(Permission.ANNOTATE)
async def share_run_v2(request: Request) -> Response:
    """Link a run's trace, or tell the token it has."""
    services, principal = services_of(request), principal_of(request)
    run_id, body = path_uuid(request, "run_id"), await read_json_object(request)

    def write() -> str:
        scope = _scope(services, principal, body)
        trace = trace_of_run(services, scope, read_uuid(body.get("trace_id") or run_id, "trace_id"))
        return _link(services, principal, trace, _new_token(services))

    return json_reply({"share_token": uuid_text(await services.reads.run(write))})


@requires(Permission.ANNOTATE)
async def unshare_run_v2(request: Request) -> Response:
    """End the link of a trace, if it has one."""
    services, principal = services_of(request), principal_of(request)
    run_id, body = path_uuid(request, "run_id"), await read_json_object(request)

    def write() -> None:
        try:
            trace = trace_of_run(services, _scope(services, principal, body), run_id)
        except NotFound:
            return  # nothing is linked that cannot be read
        services.catalog.run_shares.remove(trace.project_id, trace.summary.trace_id)

    await services.reads.run(write)
    return Response(status_code=204)


@requires(Permission.READ)
async def list_shared(request: Request) -> Response:
    """Every link of the key's projects, newest trace first."""
    services, principal = services_of(request), principal_of(request)
    return json_reply({"entities": await services.reads.run(_shared, services, principal)})


@requires(Permission.ANNOTATE)
async def unshare_all(request: Request) -> Response:
    """End the links of these tokens. Unknown ones, and those of other projects, are passed over."""
    services, principal = services_of(request), principal_of(request)
    tokens = [
        read_uuid(each, "share_tokens")
        for each in optional_texts(await read_json_object(request), "share_tokens") or ()
    ]
    if not tokens:
        raise InvalidInput("share_tokens must name at least one token.", fields=("share_tokens",))

    def write() -> int:
        return sum(_end(services, principal, token) for token in tokens)

    return json_reply({"message": f"{await services.reads.run(write)} runs are not shared any more."})


def opened_by(services: Services, token: str) -> RunShare:
    """What a share token (32 hex digits) opens. The caller reads the trace itself, which may be hidden by now. Blocks.

    Raises NotFound.
    """
    found = services.catalog.run_shares.find(token)
    if found is None:
        raise NotFound("Shared run not found.")
    return found


def trace_of_run(services: Services, scope: Scope, run_id: str) -> TraceRow:
    """The trace that a run (32 hex digits) belongs to, the newest copy within the scope. Blocks. Raises NotFound."""
    found = cast(SpanReader, services.reader).find_spans(scope, [run_id])
    if not found:
        raise NotFound("Run not found.")
    return max((each.trace for each in found), key=lambda trace: (trace.received_ns, trace.trace_pk))


def _link(services: Services, principal: Principal, trace: TraceRow, token: str) -> str:
    shares, trace_id = services.catalog.run_shares, trace.summary.trace_id
    made = shares.create(principal.org_id, trace.project_id, trace_id, token)
    # A deletion that dropped the trace's links just now did not see this one.
    is_it = make_condition("trace_unique_id", field_named("trace_unique_id"), Operator.EQUALS, [trace_id])
    if not services.reader.count_traces(Scope((trace.project_id,)), is_it, Window()):
        shares.remove(trace.project_id, trace_id)
        raise NotFound("Run not found.")
    return made


def _end(services: Services, principal: Principal, token: str) -> bool:
    found = services.catalog.run_shares.find(token)
    if found is None or found.org_id != principal.org_id or found.project_id not in principal.project_ids:
        return False
    return services.catalog.run_shares.remove(found.project_id, found.trace_id)


def _shared(services: Services, principal: Principal) -> list[Json]:
    told: list[Json] = []
    shares, scope = services.catalog.run_shares, principal.scope_for_read()
    for project_id, count in shares.projects_that_share(scope.project_ids).items():
        for number in range(1, LIST_TRACES_MAX // _PAGE + 1):
            one, page = scope._replace(project_ids=(project_id,)), OffsetPage(number, _PAGE)
            rows = services.reader.list_traces(one, None, Window(), parse_sort("-timestamp"), page).rows
            roots = {row.summary.trace_id: row.summary.root_span_id for row in rows}
            for trace_id, token, made_ns in shares.links_of(project_id, list(roots)):
                count -= 1
                told.append(_entity(trace_id, roots[trace_id], token, made_ns))
            if count <= 0 or len(rows) < _PAGE:
                break
    return told


def _entity(trace_id: str, root_id: str | None, token: str, made_ns: int) -> Json:
    run_id = run_id_of(trace_id, root_id or trace_id, True)
    return {
        "type": "run",
        "share_token": uuid_text(token),
        "run_id": uuid_text(run_id),
        "created_at": render_time(made_ns),
    }


def _scope(services: Services, principal: Principal, body: Json) -> Scope:
    """What a v2 body may mean: the session it names, else every project of the key."""
    scope = principal.scope_for_read()
    if body.get("session_id") is None:
        return scope
    project = find_session(services, principal, read_uuid(body["session_id"], "session_id"))
    return scope._replace(project_ids=(project.id,))


def _new_token(services: Services) -> str:
    return services.ids.token_bytes(16).hex()


def _v1(run_id: str, token: str) -> Json:
    return {"run_id": uuid_text(run_id), "share_token": uuid_text(token)}


ROUTES = (
    classic("GET", "/workspaces/current/shared", list_shared),
    classic("DELETE", "/workspaces/current/shared", unshare_all),
    classic("PUT", "/runs/{run_id}/share", share_run),
    classic("GET", "/runs/{run_id}/share", read_run_share),
    classic("DELETE", "/runs/{run_id}/share", unshare_run),
    v2("POST", "/runs/{run_id}/share", share_run_v2),
    v2("DELETE", "/runs/{run_id}/share", unshare_run_v2),
)
