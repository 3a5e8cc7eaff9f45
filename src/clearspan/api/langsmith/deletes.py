"""LangSmith's deletion of traces, by ids and by metadata. What is removed, when, and how it is proved is
`clearspan.deletion`'s.

    {"session_id": uuid, "trace_ids": [uuid, …]}       those traces of one session
    {"metadata": {"key": "value", …}}                  the traces of which a run carries any of the pairs
    both                                               both must hold

The first two are the vendor's, the second only on paper: its API refuses it. The rest of the body and of the answer is
ours. There is no window in the vendor's bodies: ids name their traces, and metadata says by itself that all times are
meant, so that it counts as `delete_all` for the policy of a key unless the body has a window of its own.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import (
    Json,
    optional_count,
    optional_object,
    optional_text,
    optional_time,
    optional_uuid,
)
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.policies import policy_of
from clearspan.api.respan.window import HEADER, EffectiveWindow
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.deletion.result import DeletionResult, render_message
from clearspan.deletion.state import DeletionState
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.ids import normalise_id
from clearspan.model.runs import is_run_id, may_be_hashed, run_id_of
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import METADATA, METADATA_PREFIX, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.spans import SpanReader

DIALECT: Final = "langsmith"
IDS_MAX: Final = 1_000
PAIRS_MAX: Final = 100
REASON_HEADER: Final = "Clearspan-Reason"
REASON_CHARS_MAX: Final = 2_000
BODY_KEYS: Final = frozenset(
    {"session_id", "trace_ids", "run_ids", "metadata", "start_time", "end_time", "expected_count", "reason"}
)
_ID_KEYS: Final = ("trace_ids", "run_ids")
_TIME_KEYS: Final = ("start_time", "end_time")


class _Asked(NamedTuple):
    """A body, understood."""

    session: str | None  # the UUID of a project, 32 hex digits
    ids: dict[str, str] | None  # as the caller wrote each → normal form
    metadata: Expr | None
    window: Window
    expected_count: int | None
    reason: str | None


@requires(Permission.DELETE)
async def delete_runs(request: Request) -> Response:
    """Delete whole traces. 200: `state` says whether they are erased and verified, or only hidden so far.

    Nothing is deleted when anything of the request cannot be understood, or its session is not known. Ids that name no
    trace are told as `unmatched_ids`. Sending the same request again is harmless.
    """
    services, principal = services_of(request), principal_of(request)
    _refuse_query(request)
    asked = _parse(await read_json_object(request), request)
    scope = await services.reads.run(_scope_of, services, principal, asked)
    traces = await services.reads.run(_trace_ids, services, scope, asked.ids or {})
    deletion = DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=scope,
        selection=_selection(asked, traces),
        window=asked.window,
        delete_all=asked.metadata is not None and asked.window == Window(),
        reason=asked.reason,
        expected_count=asked.expected_count,
        idempotency_key=request.headers.get("idempotency-key") or None,
        policy=policy_of(principal),
        strict_window=services.settings.strict_windows,
        reach=principal.scope_for_copies(),
    )
    result = await services.deletes.run(
        services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s, refuse_held=True
    )
    unmatched = await services.reads.run(_unmatched, services, scope, result, traces)
    return _answer(result, unmatched, len(traces))


# -- what is asked


def _refuse_query(request: Request) -> None:
    for key in request.query_params:
        raise InvalidInput(f"{key}: a deletion takes no query parameters; nothing was deleted.", fields=(key,))


def _parse(body: Json, request: Request) -> _Asked:
    for key in body:
        if key not in BODY_KEYS:
            allowed = ", ".join(sorted(BODY_KEYS))
            raise InvalidInput(
                f"{key} is not a key of a deletion (known: {allowed}); nothing was deleted.", fields=(key,)
            )
    session, ids, metadata = optional_uuid(body, "session_id"), _ids(body), _metadata(body)
    if ids is None and metadata is None:
        raise InvalidInput(
            "A deletion needs session_id with trace_ids, or metadata; nothing was deleted.",
            fields=("session_id", "trace_ids") if session is None else ("trace_ids",),
        )
    if ids is not None and session is None:
        raise InvalidInput("trace_ids needs session_id; nothing was deleted.", fields=("session_id",))
    if metadata is None:
        for key in _TIME_KEYS:
            if body.get(key) is not None:
                raise InvalidInput(f"{key} goes with metadata only; nothing was deleted.", fields=(key,))
    said = optional_text(body, "reason") or request.headers.get(REASON_HEADER, "")
    return _Asked(
        session=session,
        ids=ids,
        metadata=metadata,
        window=Window(optional_time(body, "start_time"), optional_time(body, "end_time")),
        expected_count=optional_count(body, "expected_count"),
        reason=said.strip()[:REASON_CHARS_MAX] or None,
    )


def _ids(body: Json) -> dict[str, str] | None:
    """The ids of a body. Raises InvalidInput for an empty list, too many, what is no id, or two lists."""
    given = [key for key in _ID_KEYS if body.get(key) is not None]
    if len(given) > 1:
        raise InvalidInput("trace_ids and run_ids mean the same: send one; nothing was deleted.", fields=_ID_KEYS)
    if not given:
        return None
    [key], values = given, body[given[0]]
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise InvalidInput(f"{key} must be a list of ids; nothing was deleted.", fields=(key,))
    if not 1 <= len(values) <= IDS_MAX:
        raise InvalidInput(
            f"{key} takes 1 to {IDS_MAX:,} ids, not {len(values):,}; nothing was deleted.", fields=(key,)
        )
    found: dict[str, str] = {}
    for number, each in enumerate(values):
        try:
            found[each] = normalise_id(each)
        except ValueError as error:
            raise InvalidInput(f"{key}: {error}; nothing was deleted.", fields=(f"{key}.{number}",)) from None
    return found


def _metadata(body: Json) -> Expr | None:
    """Any of the pairs, on any run of a trace. Raises InvalidInput for none, and for values that are no text."""
    pairs = optional_object(body, "metadata")
    if pairs is None:
        return None
    if not 1 <= len(pairs) <= PAIRS_MAX:
        raise InvalidInput(f"metadata takes 1 to {PAIRS_MAX} pairs; nothing was deleted.", fields=("metadata",))
    wanted: list[Expr] = []
    for key, value in pairs.items():
        if not key:
            raise InvalidInput("metadata: a key is empty; nothing was deleted.", fields=("metadata",))
        wanted.append(make_condition(METADATA_PREFIX + key, METADATA, Operator.EQUALS, [value], key=key))
    return wanted[0] if len(wanted) == 1 else Group("OR", tuple(wanted))


def _scope_of(services: Services, principal: Principal, asked: _Asked) -> Scope:
    """The session's project, or all that the key may touch. Raises NotFound. Blocks."""
    scope = principal.scope_for_read()
    if asked.session is None:
        return scope
    try:
        project = find_session(services, principal, asked.session)
    except NotFound:
        raise NotFound("Session not found; nothing was deleted. session_id is the id of a project.") from None
    return scope._replace(project_ids=(project.id,))


def _trace_ids(services: Services, scope: Scope, ids: dict[str, str]) -> dict[str, str]:
    """As the caller wrote each → trace id. A trace whose own id is no UUID is named by one that has to be looked up."""
    hashed = [each for each in ids.values() if is_run_id(each) and may_be_hashed(each)]
    rows = cast("SpanReader", services.reader).find_spans(scope, hashed) if hashed else []
    roots = {_root_run_id(row.trace.summary): row.trace.summary.trace_id for row in rows}
    return {written: roots.get(each, each) for written, each in ids.items()}


def _selection(asked: _Asked, traces: dict[str, str]) -> ByFilter | ByIds:
    trace_ids = tuple(dict.fromkeys(traces.values()))
    if asked.metadata is None:
        return ByIds(trace_ids)
    if not trace_ids:
        return ByFilter(asked.metadata)
    named = Condition(field_named("trace_unique_id"), Operator.IN, trace_ids)
    return ByFilter(Group("AND", (named, asked.metadata)))


# -- what is told


class _Unmatched(NamedTuple):
    """The ids that named nothing."""

    ids: list[str] | None  # as the caller wrote them; None: of a cancelled deletion nobody knows any more
    inside: dict[str, str]  # those that are runs inside a trace → its id: a deletion takes whole traces


def _unmatched(services: Services, scope: Scope, result: DeletionResult, traces: dict[str, str]) -> _Unmatched:
    if result.state is DeletionState.CANCELLED:
        return _Unmatched(None, {})
    pairs = [(project_id, trace_id) for project_id in scope.project_ids for trace_id in set(traces.values())]
    taken = {trace_id for _, trace_id in services.deleter.takes(result.deletion_id, pairs)}
    missing = {written: None for written, trace_id in traces.items() if trace_id not in taken}
    # Not the ones that only a comparison with every span could find: the deletion is done, its answer must not fail.
    runs = {
        trace_id: written
        for written, trace_id in traces.items()
        if written in missing and is_run_id(trace_id) and not may_be_hashed(trace_id)
    }
    rows = cast("SpanReader", services.reader).find_spans(scope, list(runs)) if runs else []
    inside: dict[str, str] = {}
    for row in rows:
        summary, span_id = row.trace.summary, row.detail.span.span_id
        run_id = run_id_of(summary.trace_id, span_id, span_id == summary.root_span_id)
        if run_id in runs and summary.trace_id != run_id:
            inside[runs[run_id]] = str(UUID(_root_run_id(summary)))
    return _Unmatched(list(missing), inside)


def _root_run_id(summary: TraceSummary) -> str:
    """What clients know a trace by: its id if that is a UUID, else its root's run id."""
    if is_run_id(summary.trace_id):
        return summary.trace_id
    return run_id_of(summary.trace_id, summary.root_span_id or "", True)


def _answer(result: DeletionResult, unmatched: _Unmatched, asked_ids: int) -> Response:
    path = f"/v1/deletions/{result.deletion_id}"
    message = render_message(result)
    if unmatched.ids:
        message += f". {len(unmatched.ids)} of the {asked_ids} ids named no trace of this session to delete"
    body: dict[str, Any] = {
        "message": message,
        "deletion_id": result.deletion_id,
        "state": result.state.value,
        "matched_count": result.matched,
        "deleted_count": result.hidden if result.is_erased else 0,
        "hidden_count": result.hidden,
        "held_count": result.held,
        "failed_count": result.failed,
        "copies": {
            "taken": result.copies,
            "not_covered": result.copies_not_covered,
            "detached": result.copies_detached,
            "redacted_items": result.items_redacted,
            "of_trace": result.copies_of_trace,
        },
        "unmatched_ids": unmatched.ids,
        "inside_traces": unmatched.inside,
        "child_id": result.child_id,
        "follow_up_id": result.follow_up_id,
        "status_url": path,
        "receipt_url": f"{path}/receipt" if result.is_erased else None,
    }
    headers = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": result.state.value,
        HEADER: EffectiveWindow(result.window, is_default=False).header(),
        "Location": path,
    }
    return json_reply(body, 200, headers)


ROUTES: Final = (classic("POST", "/runs/delete", delete_runs, aliases=("/runs/delete/traces",)),)
