"""Annotations of spans, traces, sessions and documents: writing them, notes, and lists. Deleting: annotation_delete.

What a client sends in the background (without `sync`) is on disk when it is told so, and waits there for a target that
has not come yet; Phoenix tries for ten minutes and then drops it without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix import globalids
from clearspan.api.phoenix.annotation_bodies import Writer, annotation_of, render_annotation
from clearspan.api.phoenix.annotation_kinds import (
    DOCUMENT,
    KINDS,
    NOTE_NAME,
    Kind,
    ListQuery,
    OfDocument,
    ReadKind,
    Said,
)
from clearspan.api.phoenix.annotation_targets import Place, find_spans, places_of, present, stored_id
from clearspan.api.phoenix.conventions import (
    Query,
    Refused,
    data_reply,
    json_reply,
    page_reply,
    phoenix,
    read_object,
    read_query,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.naming import find_project, scope_of, with_new_projects
from clearspan.api.routing import Endpoint, RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.store.annotations import NEW_PROJECTS, AnnotationOutcome, AnnotationQuery, AnnotationWrite

SYNC_ITEMS_MAX: Final = 10_000
"""Of one request with `sync`: they are written in one transaction, and keep the writer for half a second."""
BATCH_ITEMS: Final = 1_000
"""Of a request without `sync`, in one transaction."""
TARGETS_MAX: Final = 1_000
"""Distinct ids, and distinct identifiers, of one list."""
WAITING_HEADER: Final = "Clearspan-Waiting-Count"
REFUSED_HEADER: Final = "Clearspan-Refused-Count"


class SyncQuery(Query):
    """Whether to answer only when everything is stored at its target."""

    sync: bool = False


class Written(NamedTuple):
    """What became of the annotations of a request, in its order."""

    outcomes: list[AnnotationOutcome]
    absent: list[str]  # ids, as they were sent, of targets that had to be there and are not; then nothing is stored


def write_annotations(
    services: Services, principal: Principal, kind: Kind, items: Sequence[Said], *, must_exist: bool
) -> Written:
    """Store annotations. Blocks.

    Args:
        must_exist: in one transaction, all or none. Else in several, and what has no target yet waits for it.
    Raises:
        Refused: 422 for a document that its span does not have, or a target that no id can name.
    """
    principal = with_new_projects(services, principal)
    now_ns = services.clock.now_ns()
    writer = Writer(now_ns, principal.key_id, principal.user_id)
    places = places_of(services, principal, kind, items)
    sent = [kind.target_id(each) for each in items]
    if must_exist:
        absent = [each for each in sent if each not in places or places[each].is_there is False]
        if absent:
            return Written([], list(dict.fromkeys(absent)))
    elif unnamed := [each for each in sent if each not in places]:
        raise Refused(422, f"{unnamed[0][:100]!r} cannot be the id of anything.")
    writes = []
    for said, target_id in zip(items, sent, strict=True):
        place = places[target_id]
        made = annotation_of(kind, said, place.target, writer, services.ids.token_bytes(16).hex())
        writes.append(AnnotationWrite(_waits_in(principal, place), made, must_exist))
    step = len(writes) or 1 if must_exist else BATCH_ITEMS
    outcomes: list[AnnotationOutcome] = []
    for start in range(0, len(writes), step):
        part = writes[start : start + step]
        done = services.annotating.put_annotations(part, received_ns=now_ns)
        outcomes += _look_again(services, principal, kind, part, done, now_ns)
    services.metrics.late_refused.inc(sum(bool(each.deletion_id) for each in outcomes))
    missing = [
        target_id
        for target_id, told in zip(sent, outcomes, strict=True)
        if must_exist and (told.is_missing or told.deletion_id is not None)
    ]
    return Written(outcomes, list(dict.fromkeys(missing)))


def _look_again(
    services: Services,
    principal: Principal,
    kind: Kind,
    writes: Sequence[AnnotationWrite],
    outcomes: list[AnnotationOutcome],
    now_ns: int,
) -> list[AnnotationOutcome]:
    """A span may have come between the look-up and the write, and does not come again: what waits for one is looked
    for once more. Whatever comes later finds it waiting."""
    waiting = {
        number: write.annotation
        for number, (write, told) in enumerate(zip(writes, outcomes, strict=True))
        if told.is_waiting and write.annotation.trace_id is None and write.annotation.span_id is not None
    }
    if not waiting:
        return outcomes
    scope = principal.scope_for_read()
    found = find_spans(services, scope, [str(each.span_id) for each in waiting.values()])
    again = {
        number: AnnotationWrite(
            (found[str(each.span_id)][-1].trace.project_id,),
            each._replace(
                annotation_id=outcomes[number].annotation_id,
                trace_id=found[str(each.span_id)][-1].trace.summary.trace_id,
            ),
        )
        for number, each in waiting.items()
        if each.span_id in found
    }
    for number, told in zip(
        again,
        services.annotating.put_annotations(list(again.values()), received_ns=now_ns) if again else (),
        strict=True,
    ):
        outcomes[number] = told
    return outcomes


def _waits_in(principal: Principal, place: Place) -> tuple[int, ...]:
    """The project of a target that is there; of another, also those that its spans may make when they come."""
    if place.is_there or principal.bound:
        return place.project_ids
    return (*place.project_ids, NEW_PROJECTS)


def _gids(services: Services, principal: Principal, kind: Kind, outcomes: Sequence[AnnotationOutcome]) -> list[str]:
    """The GlobalID of each row that was written."""
    ids = tuple({each.annotation_id for each in outcomes})
    scope = with_new_projects(services, principal).scope_for_read()
    query = AnnotationQuery(annotation_ids=ids, targets=(kind.target,))
    rows = services.annotations.list_annotations(scope, query, limit=max(1, len(ids)))
    numbers = {row.annotation.annotation_id: row.row_no for row in rows}
    if not numbers.keys() >= set(ids):
        raise Refused(404, f"{kind.absent} were deleted while they were annotated.")
    return [globalids.render(kind.gid, numbers[each.annotation_id]) for each in outcomes]


def _creator(kind: Kind, reserved: ReadKind | None) -> Endpoint:
    async def create(request: Request) -> Response:
        services, principal = services_of(request), principal_of(request)
        is_sync = read_query(request, SyncQuery).sync
        items = (await read_object(request, kind.items)).data
        _check_items(items, reserved, is_sync)

        def write() -> tuple[Written, list[str]]:
            done = write_annotations(services, principal, kind, items, must_exist=is_sync)
            return done, _gids(services, principal, kind, done.outcomes) if is_sync and not done.absent else []

        done, gids = await services.reads.run(write)
        if done.absent:
            raise Refused(404, kind.absent_text(done.absent))
        counts = {
            WAITING_HEADER: sum(each.is_waiting for each in done.outcomes),
            REFUSED_HEADER: sum(each.deletion_id is not None for each in done.outcomes),
        }
        headers = {name: str(count) for name, count in counts.items() if count}
        return json_reply({"data": [{"id": each} for each in gids]}, headers=headers)

    create.__name__ = f"create_{kind.path}"
    create.__doc__ = (
        f"Write {kind.path.replace('_', ' ')}; one with the same target, name and identifier is replaced. With "
        "`sync` the ids come back, and nothing is written unless every target is there; without, they wait for theirs."
    )
    return requires(Permission.ANNOTATE)(create)


def _check_items(items: Sequence[Said], reserved: ReadKind | None, is_sync: bool) -> None:
    if is_sync and len(items) > SYNC_ITEMS_MAX:
        raise Refused(422, f"A request with sync takes {SYNC_ITEMS_MAX} annotations at most, not {len(items)}.")
    for said in items:
        if reserved is not None and said.name == NOTE_NAME:
            route = f"POST /v1/{reserved.notes}"
            raise Refused(400, f"The name 'note' is reserved for {reserved.reserved}. Use {route} instead.")
        if isinstance(said, OfDocument) and said.identifier:
            raise Refused(422, "Document annotations take no identifier.")


def _noter(read: ReadKind) -> Endpoint:
    kind = read.kind

    async def create(request: Request) -> Response:
        services, principal = services_of(request), principal_of(request)
        note = (await read_object(request, read.note)).data
        own = UUID(bytes=services.ids.token_bytes(16), version=4)
        said = kind.items.model_validate(
            {
                "data": [
                    {
                        "name": NOTE_NAME,
                        "annotator_kind": "HUMAN",
                        "result": {"explanation": note.note},
                        "identifier": note.identifier or f"{read.note_identifier}:{own}",
                        kind.id_field: kind.target_id(note),
                    }
                ]
            }
        ).data

        def write() -> list[str]:
            done = write_annotations(services, principal, kind, said, must_exist=True)
            if done.absent:
                raise Refused(404, read.no_target.format(done.absent[0]))
            return _gids(services, principal, kind, done.outcomes)

        [gid] = await services.reads.run(write)
        return data_reply({"id": gid})

    create.__name__ = f"create_{read.notes[:-1]}"
    create.__doc__ = "Add a note; with an `identifier`, replace the one that has it."
    return requires(Permission.ANNOTATE)(create)


def _lister(read: ReadKind) -> Endpoint:
    kind = read.kind

    async def list_them(request: Request) -> Response:
        services, principal = services_of(request), principal_of(request)
        asked = read_query(request, read.query)
        ids = list(dict.fromkeys(getattr(asked, read.ids_field)))
        _check_list(read, asked, ids)

        def load() -> tuple[list[dict[str, Any]], str | None]:
            return _page(services, principal, request.path_params["project"], read, asked, ids)

        return page_reply(*await services.reads.run(load))

    list_them.__name__ = f"list_{kind.path}"
    list_them.__doc__ = f"The {kind.path.replace('_', ' ')} of some targets, or with some identifiers, newest first."
    return requires(Permission.READ)(list_them)


def _check_list(read: ReadKind, asked: ListQuery, ids: Sequence[str]) -> None:
    for name, count in ((read.ids_field, len(ids)), ("identifiers", len(set(asked.identifier)))):
        if count > TARGETS_MAX:
            raise Refused(422, f"Too many {name} supplied: {count} (max {TARGETS_MAX})")
    if not ids and not asked.identifier:
        raise Refused(422, f"At least one of {read.ids_field} or identifier must be supplied")


def _page(
    services: Services, principal: Principal, named: str, read: ReadKind, asked: ListQuery, ids: Sequence[str]
) -> tuple[list[dict[str, Any]], str | None]:
    kind = read.kind
    scope = scope_of(principal, find_project(services, principal, named))
    order = f"{kind.path}.{scope.project_ids[0]}"
    before: int | None = None
    if asked.cursor:
        parsed = parse_cursor(asked.cursor, order, int)
        if parsed is None:
            raise Refused(422, "Invalid cursor value")
        before = int(str(parsed[0]))
    stored = tuple(found for each in ids if (found := stored_id(kind, each)) is not None)
    rows = []
    if stored or not ids:
        of_targets: dict[str, Any] = {read.ids_field: stored}
        query = AnnotationQuery(
            targets=(kind.target,),
            identifiers=tuple(asked.identifier),
            names=tuple(asked.include_annotation_names),
            names_not=tuple(asked.exclude_annotation_names),
            **of_targets,
        )
        rows = services.annotations.list_annotations(scope, query, before_row=before, limit=asked.limit + 1)
    if not rows and not asked.identifier and not present(services, scope, kind, stored, any_will_do=True):
        raise Refused(404, f"None of the supplied {read.ids_field} exist in this project")
    shown = rows[: asked.limit]
    more = render_cursor(order, shown[-1].row_no) if len(rows) > asked.limit else None
    return [render_annotation(kind, row) for row in shown], more


def _routes() -> list[RestRoute]:
    found = [phoenix("POST", f"/{DOCUMENT.path}", _creator(DOCUMENT, None))]
    for read in KINDS:
        found += [
            phoenix("POST", f"/{read.kind.path}", _creator(read.kind, read)),
            phoenix("POST", f"/{read.notes}", _noter(read)),
            phoenix("GET", f"/projects/{{project}}/{read.kind.path}", _lister(read)),
        ]
    return found


ROUTES: Final[tuple[RestRoute, ...]] = tuple(_routes())
