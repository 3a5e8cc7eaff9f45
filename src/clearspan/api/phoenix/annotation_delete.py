"""Phoenix's deletion of annotations by filter: one operation for spans, traces and sessions.

`check_bounds` decides whether a request says clearly enough what it means; what is removed, when, and how it is proved
is `clearspan.deletion`'s. The window is on the creation of the annotation, `[start_time, end_time)` to the microsecond,
which is how times are shown: an annotation whose `created_at` equals a bound is inside if that is the start.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.annotation_kinds import KINDS, Kind
from clearspan.api.phoenix.conventions import (
    AnnotatorWord,
    Moment,
    Query,
    Refused,
    Text,
    bound_ns,
    is_admin,
    no_content,
    phoenix,
    read_query,
)
from clearspan.api.phoenix.naming import find_project, scope_of
from clearspan.api.phoenix.projects import DIALECT, REASON_CHARS_MAX, REASON_HEADER
from clearspan.api.policies import policy_of
from clearspan.api.respan.window import HEADER as WINDOW_HEADER
from clearspan.api.respan.window import EffectiveWindow
from clearspan.api.routing import Endpoint, RestRoute
from clearspan.api.services import services_of
from clearspan.catalog import Principal
from clearspan.deletion.request import ByAnnotations, DeletionRequest
from clearspan.deletion.result import DeletionResult
from clearspan.model.annotation import AnnotatorKind
from clearspan.model.trace import Scope, Window
from clearspan.store.annotations import AnnotationQuery

UNBOUNDED: Final = (
    "Delete is unbounded. Set delete_all=true to acknowledge, or supply both start_time and end_time to bound the time "
    "range."
)
NOT_ASCENDING: Final = "`start_time` must be strictly earlier than `end_time`."
_NS_MAX: Final = 2**63 - 1


class DeleteQuery(Query):
    """What may be said of the annotations that shall go; all of it must hold."""

    name: Text | None = None
    identifier: Text | None = None
    annotator_kind: AnnotatorWord | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    delete_all: bool = False


def check_bounds(start: datetime | None, end: datetime | None, delete_all: bool) -> None:
    """Let a request pass that is bounded in time at both ends, or says `delete_all`; nothing else makes up for either.

    Raises:
        Refused: 422. Also for a window that ends before it begins, or is empty, whatever else is said.
    """
    if start is not None and end is not None:
        if start >= end:
            raise Refused(422, NOT_ASCENDING)
    elif not delete_all:
        raise Refused(422, UNBOUNDED)


def window_of(start: datetime | None, end: datetime | None) -> Window:
    """The bounds in nanoseconds; of a window beyond every time that can be stored the nearest that is not empty."""
    start_ns, end_ns = bound_ns(start), bound_ns(end)
    if start_ns is not None:
        start_ns = min(start_ns, _NS_MAX - 1)
    if start_ns is not None and end_ns is not None:
        end_ns = max(end_ns, start_ns + 1)
    return Window(start_ns, end_ns)


def selection_of(kind: Kind, asked: DeleteQuery, principal: Principal) -> ByAnnotations:
    """What shall go: for administrators everybody's annotations, for others what their user wrote last, or, where a
    key acts for nobody, what was written with it last."""
    mine: dict[str, tuple[str, ...]] = {}
    if not is_admin(principal):
        mine = {"key_ids": (principal.key_id,)} if principal.user_id is None else {"user_ids": (principal.user_id,)}
    return ByAnnotations(
        AnnotationQuery(
            targets=(kind.target,),
            names=() if asked.name is None else (asked.name,),
            identifiers=() if asked.identifier is None else (asked.identifier,),
            kinds=() if asked.annotator_kind is None else (AnnotatorKind(asked.annotator_kind),),
            user_ids=mine.get("user_ids", ()),
            key_ids=mine.get("key_ids", ()),
        )
    )


def _deleter(kind: Kind) -> Endpoint:
    async def delete(request: Request) -> Response:
        services, principal = services_of(request), principal_of(request)
        asked = read_query(request, DeleteQuery)
        check_bounds(asked.start_time, asked.end_time, asked.delete_all)

        def scope() -> Scope:
            return scope_of(principal, find_project(services, principal, request.path_params["project"]))

        window = window_of(asked.start_time, asked.end_time)
        deletion = DeletionRequest(
            org_id=principal.org_id,
            requested_by=principal.key_id,
            dialect=DIALECT,
            scope=await services.reads.run(scope),
            selection=selection_of(kind, asked, principal),
            window=window,
            delete_all=None in window,
            reason=request.headers.get(REASON_HEADER, "").strip()[:REASON_CHARS_MAX] or None,
            idempotency_key=request.headers.get("idempotency-key") or None,
            policy=policy_of(principal),
        )
        result = await services.deletes.run(
            services.deleter.delete, deletion, wait_s=services.settings.delete_wait_s, refuse_held=True
        )
        return no_content(_headers(result))

    delete.__name__ = f"delete_{kind.path}"
    delete.__doc__ = (
        f"Delete {kind.path.replace('_', ' ')} by filter: with both ends of a time window, or with `delete_all`. "
        "Administrators' keys take everybody's, others only their own."
    )
    return requires(Permission.DELETE)(delete)


def _headers(result: DeletionResult) -> dict[str, str]:
    """What a 204 has no body for. `Deleted` is said of what is erased and verified, `Hidden` of what only will be."""
    done, hidden = (result.hidden, 0) if result.is_erased else (0, result.hidden)
    told = {
        "Clearspan-Deletion-Id": result.deletion_id,
        "Clearspan-Deletion-State": result.state.value,
        WINDOW_HEADER: EffectiveWindow(result.window, is_default=False).header(),
        "Clearspan-Deleted-Count": str(done),
        "Location": f"/v1/deletions/{result.deletion_id}",
    }
    counts = {"Clearspan-Hidden-Count": hidden, "Clearspan-Held-Count": result.held}
    return told | {name: str(count) for name, count in counts.items() if count}


ROUTES: Final[tuple[RestRoute, ...]] = tuple(
    phoenix("DELETE", f"/projects/{{project}}/{read.kind.path}", _deleter(read.kind)) for read in KINDS
)
