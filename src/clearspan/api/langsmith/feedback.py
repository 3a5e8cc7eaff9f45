"""Feedback: what was said about runs and sessions. `feedback_write` is also the way in of what comes with runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import REST_BODY_BYTES_MAX, body_limits
from clearspan.api.langsmith.feedback_convert import (
    SOURCES,
    Feedback,
    Writer,
    read_change,
    read_feedback,
    render_feedback,
)
from clearspan.api.langsmith.inputs import Json, path_uuid, query_time, read_count, read_switch, read_uuids
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.placing import look_up
from clearspan.api.limits import read_body
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog.principal import Principal
from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import ClearspanError, InvalidInput, NotFound
from clearspan.model.runs import is_run_id, run_id_of
from clearspan.model.trace import Scope, Window
from clearspan.store.annotations import (
    NEW_PROJECTS,
    AnnotationOutcome,
    AnnotationQuery,
    AnnotationRow,
    AnnotationWrite,
)
from clearspan.store.spans import SpanReader

LIMIT_MAX: Final = 100
_TARGETS: Final = {
    "run": (AnnotationTarget.SPAN, AnnotationTarget.TRACE),
    "session": (AnnotationTarget.PROJECT,),
}
_MICROSECOND_NS: Final = 1_000
_encoder = msgspec.json.Encoder()


class FeedbackOutcome(NamedTuple):
    """What became of one piece of feedback: an error, or the store's word."""

    feedback_id: str
    error: ClearspanError | None = None
    stored: AnnotationOutcome | None = None


async def feedback_write(
    services: Services, principal: Principal, bodies: Sequence[bytes], *, must_exist: bool = False
) -> list[FeedbackOutcome]:
    """Store feedback in one transaction; outcomes in order. Call it after the runs that came with it are on disk.

    Args:
        bodies: JSON objects as the client sent them.
        must_exist: refuse feedback on a run that is not there, instead of letting it wait for its run.
    Raises:
        Overloaded: nothing was stored, and sending it again is safe.
    """
    now_ns = services.clock.now_ns()
    read: list[Feedback | ClearspanError] = []
    for body in bodies:
        writer = Writer(now_ns, services.ids.token_bytes(16).hex(), principal.key_id, principal.user_id)
        try:
            read.append(read_feedback(body, writer))
        except ClearspanError as error:
            read.append(error)
    return await look_up(services, _write, services, principal, read, must_exist)


def _write(
    services: Services, principal: Principal, read: Sequence[Feedback | ClearspanError], must_exist: bool
) -> list[FeedbackOutcome]:
    principal = _with_new_projects(services, principal)
    places = _places(services, principal.scope_for_read(), [each for each in read if isinstance(each, Feedback)])
    writes: list[AnnotationWrite] = []
    outcomes: list[FeedbackOutcome] = []
    for each in read:
        if isinstance(each, ClearspanError):
            outcomes.append(FeedbackOutcome("", each))
            continue
        try:
            writes.append(_placed(services, principal, each, places, must_exist))
            outcomes.append(FeedbackOutcome(each.feedback_id))
        except ClearspanError as error:
            outcomes.append(FeedbackOutcome(each.feedback_id, error))
    stored = iter(services.annotating.put_annotations(writes, received_ns=services.clock.now_ns()))
    told = [each if each.error is not None else each._replace(stored=next(stored)) for each in outcomes]
    services.metrics.late_refused.inc(sum(each.stored is not None and bool(each.stored.deletion_id) for each in told))
    return told


def _with_new_projects(services: Services, principal: Principal) -> Principal:
    """The key as it is now: the runs that the feedback came with may have made a project since it was looked up."""
    if principal.bound:
        return principal
    return replace(principal, project_ids=tuple(each.id for each in services.catalog.projects(principal.org_id)))


def _places(services: Services, scope: Scope, feedback: Iterable[Feedback]) -> dict[str, list[tuple[int, str, str]]]:
    """Run id → (project, trace, span) of every copy that the key may see."""
    wanted = {each.run_id for each in feedback if each.run_id is not None}
    found: dict[str, list[tuple[int, str, str]]] = {}
    for row in cast(SpanReader, services.reader).find_spans(scope, sorted(wanted)) if wanted else ():
        trace_id, span_id = row.trace.summary.trace_id, row.detail.span.span_id
        place = (row.trace.project_id, trace_id, span_id)
        is_root = span_id == row.trace.summary.root_span_id
        for name in {span_id, run_id_of(trace_id, span_id, is_root), run_id_of(trace_id, span_id, False)} & wanted:
            found.setdefault(name, []).append(place)
    return found


def _placed(
    services: Services,
    principal: Principal,
    feedback: Feedback,
    places: dict[str, list[tuple[int, str, str]]],
    must_exist: bool,
) -> AnnotationWrite:
    """Where a piece of feedback belongs. Raises NotFound for feedback on a project the key may not see, and for a
    run that must be there. A run or trace is found by its own id: naming a wrong session loses nothing."""
    annotation = feedback.annotation
    session = _session(services, principal, feedback.session_uuid)
    if annotation.target is AnnotationTarget.PROJECT:
        if session is None and feedback.session_uuid is not None:
            raise NotFound("There is no such session.", fields=("session_id",))
        return AnnotationWrite(_projects(principal, session)[:1], annotation)
    projects = _projects(principal, session)
    if annotation.target is AnnotationTarget.TRACE:
        return AnnotationWrite(projects, annotation._replace(trace_id=feedback.trace_id), must_exist)
    assert feedback.run_id is not None
    found = places.get(feedback.run_id, [])
    # A session that is named decides between copies.
    here = [place for place in found if place[0] in projects[:1]] or found
    if here:
        project_id, trace_id, span_id = here[0]
        placed = annotation._replace(trace_id=trace_id, span_id=span_id)
        return AnnotationWrite((project_id,), placed, must_exist)
    if must_exist:
        raise NotFound("There is no such run.", fields=("run_id",))
    waiting = annotation._replace(trace_id=feedback.trace_id, span_id=feedback.run_id)
    # The project may be made by the run that is still on its way.
    is_open = session is None and not principal.bound
    return AnnotationWrite((*projects, NEW_PROJECTS) if is_open else projects, waiting)


def _session(services: Services, principal: Principal, session_uuid: str | None) -> int | None:
    """The project that is named, if there is such a one for this key."""
    project = None if session_uuid is None else services.catalog.find_project_uuid(principal.org_id, session_uuid)
    return project.id if project is not None and project.id in principal.project_ids else None


def _projects(principal: Principal, session: int | None) -> tuple[int, ...]:
    """The projects in which the target may be, the likeliest first."""
    first = principal.default_project_id if session is None else session
    rest = [each for each in principal.project_ids if each != first]
    if not rest and first not in principal.project_ids:
        raise NotFound("This key has no project.", fields=("session_id",))
    return tuple([first, *rest] if first in principal.project_ids else rest)


@requires(Permission.ANNOTATE)
async def create_feedback(request: Request) -> Response:
    """Say something about a run, a trace or a session. 404 while there is no such run; its clients try again."""
    services, principal = services_of(request), principal_of(request)
    limits = body_limits(services.settings, bytes_max=REST_BODY_BYTES_MAX)
    body = await read_body(request, limits)
    (outcome,) = await feedback_write(services, principal, [body], must_exist=True)
    if outcome.error is not None:
        raise outcome.error
    stored = outcome.stored
    if stored is None or stored.project_id is None:
        raise NotFound("There is no such run.", fields=("run_id",))
    row = await services.reads.run(_row, services, principal.scope_for_read(), stored.annotation_id)
    return _reply(_rendered(services, principal, [row])[0])


@requires(Permission.READ)
async def list_feedback(request: Request) -> Response:
    """Feedback on runs and sessions, newest first."""
    services, principal = services_of(request), principal_of(request)
    return _reply(await services.reads.run(_list, services, principal, request))


def _list(services: Services, principal: Principal, request: Request) -> list[Json]:
    query, scope = request.query_params, principal.scope_for_read()
    limit, offset = read_count(query, "limit", LIMIT_MAX, least=1), read_count(query, "offset", 0)
    level = query.get("level") or None
    if level is not None and level not in _TARGETS:
        raise InvalidInput("level must be run or session.", fields=("level",))
    if unknown := set(query.getlist("source")) - SOURCES.keys():
        raise InvalidInput(f"source must be one of {', '.join(SOURCES)}, not {min(unknown)!r}.", fields=("source",))
    if sessions := read_uuids(query, "session"):
        known = [services.catalog.find_project_uuid(principal.org_id, each) for each in sessions]
        scope = scope._replace(project_ids=tuple(p.id for p in known if p is not None and p.id in scope.project_ids))
    wanted = AnnotationQuery(
        targets=_TARGETS[level] if level else (*_TARGETS["run"], *_TARGETS["session"]),
        names=tuple(query.getlist("key")),
        sources=tuple(query.getlist("source")),
        user_ids=tuple(query.getlist("user")),
        has_comment=read_switch(query, "has_comment") if query.get("has_comment") else None,
        has_score=read_switch(query, "has_score") if query.get("has_score") else None,
        created=Window(query_time(query, "min_created_at"), _after(query_time(query, "max_created_at"))),
    )
    if run_ids := read_uuids(query, "run"):
        places = _find_runs(services, scope, run_ids)
        if not places:
            return []
        wanted = wanted._replace(
            trace_ids=tuple({trace_id for _, trace_id, _ in places}), span_ids=tuple({span for *_, span in places})
        )
    rows = services.annotations.list_annotations(scope, wanted, offset=offset, limit=min(limit, LIMIT_MAX))
    return _rendered(services, principal, rows)


def _after(ns: int | None) -> int | None:
    """The bound is inclusive, at the resolution of the dialect's times."""
    return None if ns is None else ns + _MICROSECOND_NS


def _find_runs(services: Services, scope: Scope, run_ids: Sequence[str]) -> list[tuple[int, str, str]]:
    rows = cast(SpanReader, services.reader).find_spans(scope, sorted(set(run_ids)))
    return [(row.trace.project_id, row.trace.summary.trace_id, row.detail.span.span_id) for row in rows]


@requires(Permission.READ)
async def get_feedback(request: Request) -> Response:
    """One piece of feedback; also one that still waits for its run."""
    services, principal = services_of(request), principal_of(request)
    feedback_id = path_uuid(request, "feedback_id")
    row = await services.reads.run(_row, services, principal.scope_for_read(), feedback_id)
    return _reply(_rendered(services, principal, [row])[0])


@requires(Permission.ANNOTATE)
async def update_feedback(request: Request) -> Response:
    """Change what the body names; null clears."""
    services, principal = services_of(request), principal_of(request)
    feedback_id = path_uuid(request, "feedback_id")
    body = await read_body(request, body_limits(services.settings, bytes_max=REST_BODY_BYTES_MAX))
    change = read_change(body, Writer(services.clock.now_ns(), "", principal.key_id, principal.user_id))
    row = await services.reads.run(
        services.annotating.patch_annotation, principal.scope_for_read(), feedback_id, change
    )
    if row is None:
        raise NotFound("There is no such feedback.")
    return _reply(_rendered(services, principal, [row])[0])


def _row(services: Services, scope: Scope, annotation_id: str) -> AnnotationRow:
    rows = services.annotations.list_annotations(scope, AnnotationQuery(annotation_ids=(annotation_id,)), limit=1)
    if not rows:
        raise NotFound("There is no such feedback.")
    return rows[0]


def _rendered(services: Services, principal: Principal, rows: Sequence[AnnotationRow]) -> list[Json]:
    """Feedback with the ids of its run and its session."""
    uuids = {project.id: project.uuid for project in services.catalog.projects(principal.org_id)}
    derived = _derived_run_ids(services, principal.scope_for_read(), [row.annotation for row in rows])
    return [
        render_feedback(row.annotation, _run_id(row.annotation, derived), uuids.get(row.project_id)) for row in rows
    ]


def _run_id(annotation: Annotation, derived: dict[tuple[str, str], str]) -> str | None:
    if annotation.span_id is None or annotation.target is not AnnotationTarget.SPAN:
        return None
    return derived.get((annotation.trace_id or "", annotation.span_id), annotation.span_id)


def _derived_run_ids(services: Services, scope: Scope, annotations: Iterable[Annotation]) -> dict[tuple[str, str], str]:
    """(trace, span) → run id, of spans whose own id is none: it hangs on whether the span is its trace's root."""
    keys = {(a.trace_id, a.span_id) for a in annotations if a.trace_id and a.span_id and not is_run_id(a.span_id)}
    if not keys:
        return {}
    names = {run_id_of(trace_id, span_id, False): (trace_id, span_id) for trace_id, span_id in keys}
    found = {key: name for name, key in names.items()}
    # A root is found by the id that it is known by: its trace's.
    for row in cast(SpanReader, services.reader).find_spans(scope, sorted(names.keys() | {t for t, _ in keys})):
        trace, span_id = row.trace.summary, row.detail.span.span_id
        key = (trace.trace_id, span_id)
        if key in found:
            found[key] = run_id_of(*key, span_id == trace.root_span_id)
    return found


def _reply(value: Any) -> Response:
    return Response(_encoder.encode(value), media_type="application/json")


ROUTES: Final[tuple[RestRoute, ...]] = (
    classic("POST", "/feedback/eager", create_feedback),
    classic("POST", "/feedback", create_feedback),
    classic("GET", "/feedback", list_feedback),
    classic("GET", "/feedback/{feedback_id}", get_feedback),
    classic("PATCH", "/feedback/{feedback_id}", update_feedback),
)
