"""Respan's traces API, the deleting half. What is removed, when, and how it is proved is `clearspan.deletion`'s."""

from __future__ import annotations

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.policies import policy_of
from clearspan.api.respan.convert import Json
from clearspan.api.respan.filters import parse_filters
from clearspan.api.respan.params import parse_environment, parse_trace_id
from clearspan.api.respan.traces import json_response, request_window
from clearspan.api.respan.window import EffectiveWindow, open_window
from clearspan.api.services import services_of
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.deletion.result import DeletionResult, render_message, render_message_for_one
from clearspan.model.errors import InvalidFilter, InvalidInput

DIALECT = "respan"
QUERY_KEYS = frozenset({"start_time", "end_time", "environment"})
REASON_HEADER = "Clearspan-Reason"
REASON_CHARS_MAX = 2_000
BODY_KEYS = frozenset({"filters", "operator"})


@requires(Permission.DELETE)
async def bulk_delete(request: Request) -> Response:
    """Delete every trace that the filters match, at most 1,000, and answer exact counts.

    The filters are required. Nothing is deleted when one of them cannot be understood, or when more traces match.
    Sending the same request again is harmless: what is gone is not found again.
    """
    services, principal = services_of(request), principal_of(request)
    _refuse_unknown_parameters(request.query_params)
    body = await read_json_object(request)
    _refuse_unknown_keys(body)
    where = parse_filters(body.get("filters"), body.get("operator"), fields="bulk_delete")
    if where is None:
        raise InvalidFilter(
            "filters is required and must not be empty; nothing was deleted.",
            code="empty_filter",
            fields=("filters",),
        )
    window = request_window(request, services)
    deletion = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=principal.scope_for_read(parse_environment(request.query_params)),
        selection=ByFilter(where),
        window=window.window,
        window_is_implicit=window.is_default,
        end_is_implicit=not request.query_params.get("end_time"),
        matches_max=services.settings.delete_traces_max,
        reason=_reason(request),
        idempotency_key=_idempotency_key(request),
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
        strict_window=services.settings.strict_windows,
    )
    result = await services.deletes.run(services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s)
    message = render_message(result)
    if window.is_default and result.matched:
        message = f"{message}. {window.sentence()}"
    return _deletion_response(_counts(result) | {"message": message}, result, window)


@requires(Permission.DELETE)
async def delete_trace(request: Request) -> Response:
    """Delete every copy of one trace that the key may delete. An unknown id is a 200 that says so, a held one a 409."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    _refuse_unknown_parameters(query)
    trace_id = parse_trace_id(request.path_params["trace_unique_id"], for_write=True)
    window = open_window(query.get("start_time"), query.get("end_time"))
    deletion = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=principal.scope_for_read(parse_environment(query)),
        selection=ByIds((trace_id,)),
        window=window.window,
        reason=_reason(request),
        idempotency_key=_idempotency_key(request),
        policy=policy_of(principal),
        reach=principal.scope_for_copies(),
    )
    result = await services.deletes.run(
        services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    body = _counts(result) | {"message": render_message_for_one(result, trace_id)}
    return _deletion_response(body, result, window)


def _refuse_unknown_parameters(query: QueryParams) -> None:
    """A misspelt or doubled bound must not silently delete more. Raises InvalidInput, naming the parameter."""
    for key in query:
        if key not in QUERY_KEYS:
            allowed = ", ".join(sorted(QUERY_KEYS))
            raise InvalidInput(
                f"{key} is not a query parameter of a deletion (known: {allowed}); nothing was deleted.", fields=(key,)
            )
        if len(query.getlist(key)) > 1:
            raise InvalidInput(f"{key} is given more than once; nothing was deleted.", fields=(key,))


def _refuse_unknown_keys(body: Json) -> None:
    """The same for the body of a bulk deletion. Raises InvalidInput, naming the key."""
    for key in body:
        if key in QUERY_KEYS:
            raise InvalidInput(
                f"{key} belongs into the query string of the address; nothing was deleted.", fields=(key,)
            )
        if key not in BODY_KEYS:
            allowed = ", ".join(sorted(BODY_KEYS))
            raise InvalidInput(
                f"{key} is not a key of a deletion's body (known: {allowed}); nothing was deleted.", fields=(key,)
            )


def _counts(result: DeletionResult) -> Json:
    """The five keys without `message`; `deletion_id` and `state` are ours, every client model keeps them. So are the
    counts of copies, which stand there only where there are any."""
    errors = []
    if result.held:
        text = f"{result.held} traces are held and were not deleted"
        errors.append(f"{text}; they go when the hold does, see {result.child_id}" if result.child_id else text)
    if result.failed:
        errors.append(f"{result.failed} traces are hidden but could not be erased; see {result.deletion_id}")
    if result.cancelled:
        errors.append(f"{result.cancelled} traces are visible again: the deletion was cancelled")
    copies = {
        "copies": result.copies,
        "copies_not_covered": result.copies_not_covered,
        "copies_detached": result.copies_detached,
        "copies_redacted_items": result.items_redacted,
    }
    follow_up = {} if result.follow_up_id is None else {"follow_up_id": result.follow_up_id}
    return (
        {name: count for name, count in copies.items() if count}
        | follow_up
        | {
            "success_count": result.hidden,
            "error_count": result.held + result.failed + result.cancelled,
            "errors": [{"index": index, "error": text} for index, text in enumerate(errors)],
            "deleted_count": result.hidden,
            "deletion_id": result.deletion_id,
            "state": str(result.state),
        }
    )


def _deletion_response(body: Json, result: DeletionResult, window: EffectiveWindow) -> Response:
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": str(result.state),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    return json_response(body, window, headers)


def _reason(request: Request) -> str | None:
    """Why, for keys that must say so: the dialect's own bodies have no place for it."""
    return request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None


def _idempotency_key(request: Request) -> str | None:
    return request.headers.get("idempotency-key") or None
