"""Phoenix's query language over spans: where, select, explode, concat, rename, index; tables as the answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix import expressions
from clearspan.api.phoenix.conventions import Body, Moment, Refused, bound_ns, phoenix, read_object, render_time
from clearspan.api.phoenix.expressions import BadExpression, Comparison, Const, IsMissing, Named, Negation, Node
from clearspan.api.phoenix.naming import scope_of
from clearspan.api.phoenix.span_filters import STATUS_WORDS, FilterBuilder, condition
from clearspan.api.phoenix.span_views import KINDS, SpanView, render_span
from clearspan.api.phoenix.spans import narrow_to_traces, read_spans
from clearspan.api.phoenix.tables import Table, render_tables
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.projects import DEFAULT_PROJECT
from clearspan.ingest.openinference import KIND_KEY, columns, flatten, nested
from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.errors import ReadTooSlow
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Group, SomeEntry
from clearspan.query.fields import Collection
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationReader
from clearspan.store.spans import SpanOrder, SpanPosition, SpanReader

LIMIT_DEFAULT: Final = 1_000
LIMIT_MAX: Final = 50_000
QUERIES_MAX: Final = 20
COLUMNS_MAX: Final = 500
SPAN_ID: Final = "context.span_id"
DOCUMENTS: Final = "retrieval.documents"
_ALIASES: Final = {"span_id": SPAN_ID, "trace_id": "context.trace_id"}
_TIMES: Final = frozenset({"start_time", "end_time"})
_WHOLE: Final = ("name", "span_kind", "parent_id", "start_time", "end_time", "status_code", "status_message", "events")

Json = dict[str, Any]
Short = Annotated[str, Field(max_length=expressions.CHARS_MAX)]


class _Key(Body):
    key: Short = ""


class _Filter(Body):
    condition: Short = ""


class _Explosion(Body):
    key: Short = ""
    kwargs: dict[Short, Short] | None = None
    primary_index_key: Short = SPAN_ID


class _Concatenation(Body):
    key: Short = ""
    kwargs: dict[Short, Short] | None = None
    separator: str = "\n\n"


class _QueryBody(Body):
    select: Annotated[dict[Short, _Key], Field(max_length=COLUMNS_MAX)] | None = None
    filter: _Filter | None = None
    explode: _Explosion | None = None
    concat: _Concatenation | None = None
    rename: dict[Short, Short] | None = None
    index: _Key | None = None


class _Queries(Body):
    queries: Annotated[list[_QueryBody], Field(max_length=QUERIES_MAX)]
    start_time: Moment | None = None
    end_time: Moment | None = None
    limit: int | None = LIMIT_DEFAULT
    root_spans_only: bool | None = None
    orphan_span_as_root_span: bool = True
    project_name: str | None = None
    stop_time: Moment | None = None


Projection = Callable[[SpanView], Any]


@dataclass(frozen=True, slots=True)
class SpanTableQuery:
    """One query, checked.

    Attributes:
        select: column → what it shows.
        index: (name, what it shows) of the index.
        explode, concat: (key, column → key within each item).
    """

    where: Node | None
    select: Mapping[str, Projection]
    index: tuple[str, Projection]
    explode: tuple[str, Mapping[str, str]] | None
    concat: tuple[str, Mapping[str, str], str] | None
    rename: Mapping[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether it asks for spans as they are."""
        return not (self.select or self.explode or self.concat)


@requires(Permission.READ)
async def phoenix_query_spans(request: Request) -> Response:
    """Spans of a project as tables, one for each query. A project that does not exist has empty ones.

    Raises ReadTooSlow rather than answer with a part of what was asked for.
    """
    services, principal = services_of(request), principal_of(request)
    asked = await read_object(request, _Queries)
    project = (
        request.query_params.get("project_name")
        or request.query_params.get("project-name")
        or request.headers.get("project-name")
        or asked.project_name
        or DEFAULT_PROJECT
    )
    limit = LIMIT_DEFAULT if asked.limit is None else asked.limit
    if not 0 < limit <= LIMIT_MAX:
        raise Refused(422, f"limit is 1 to {LIMIT_MAX}: ask for a narrower time window instead")
    if not asked.queries:
        raise Refused(404, "Not Found")
    try:
        queries = [_checked(each) for each in asked.queries]
    except BadExpression as error:
        raise Refused(422, f"Invalid query: {error}") from None
    boundary = secrets.token_urlsafe(48)

    def run() -> bytes:
        scope = _scope(services, principal, project)
        tables = [_run(services, scope, each, asked, limit) for each in queries]
        return b"".join(render_tables(tables, boundary))

    return Response(await services.reads.run(run), media_type=f"multipart/mixed; boundary={boundary}")


def _checked(body: _QueryBody) -> SpanTableQuery:
    """A query as it is run. Raises BadExpression."""
    where = expressions.parse_condition(body.filter.condition) if body.filter and body.filter.condition else None
    select = {_ALIASES.get(name, name): _projection(each.key or name) for name, each in (body.select or {}).items()}
    explode = body.explode if body.explode and body.explode.key else None
    concat = body.concat if body.concat and body.concat.key else None
    index = (body.index.key if body.index else "") or (explode.primary_index_key if explode else "") or SPAN_ID
    return SpanTableQuery(
        where,
        select,
        (_ALIASES.get(index, index), _projection(index)),
        (_attribute(explode.key), explode.kwargs or {}) if explode else None,
        (_attribute(concat.key), concat.kwargs or {}, concat.separator) if concat else None,
        body.rename or {},
    )


def _projection(key: str) -> Projection:
    if key == "events":
        return lambda view: render_span(view)["events"]
    if key == "attributes":
        return lambda view: view.told.attributes
    found = expressions.parse_projection(key)
    if isinstance(found, Named) and found.name in _TIMES:
        read = expressions.FIELDS[found.name]
        return lambda view: render_time(read(view))
    return lambda view: expressions.value_of(found, view)


def _attribute(key: str) -> str:
    found = expressions.parse_projection(key)
    if not isinstance(found, expressions.Attribute):
        raise BadExpression(f"{key[:100]!r} is no attribute")
    return found.key


def _scope(services: Services, principal: Principal, project: str) -> Scope:
    found = services.catalog.find_project(principal.org_id, project)
    if found is None or (principal.bound and found.id not in principal.project_ids):
        return Scope((), principal.environment)
    return scope_of(principal, found)


def _run(services: Services, scope: Scope, query: SpanTableQuery, asked: _Queries, limit: int) -> Table:
    views = _found(services, scope, query, asked, limit)
    if query.is_whole:
        return _whole(views)
    rows: list[Json] = []
    index_rows: list[tuple[Any, ...]] = []
    for view in views:
        place = query.index[1](view)
        for at, row in _rows(query, view):
            index_rows.append((place,) if at is None else (place, at))
            rows.append(row)
    index = [query.index[0]]
    if query.explode is not None:
        index.append("document_position" if query.explode[0] == DOCUMENTS else "position")
    named = _columns(query, rows)
    renamed = [{query.rename.get(name, name): value for name, value in row.items()} for row in rows]
    times = frozenset(query.rename.get(name, name) for name in _TIMES)
    return Table(index, renamed, index_rows, [query.rename.get(name, name) for name in named], times)


def _columns(query: SpanTableQuery, rows: Sequence[Json]) -> list[str]:
    """Names of the columns: what was asked for, there or not, then what items were found to have."""
    said = [name for name in query.select if name != query.index[0] or query.explode is not None]
    if query.explode is not None:
        said += query.explode[1]
    if query.concat is not None:
        said += query.concat[1] or [query.concat[0]]
    found = [name for row in rows for name in row if name != query.index[0]]
    return list(dict.fromkeys(name for name in (*said, *found) if name != query.index[0]))


def _rows(query: SpanTableQuery, view: SpanView) -> Iterator[tuple[int | None, Json]]:
    """(position of the item, columns) of the rows that a span gives; without `explode` one at most."""
    row = {name: read(view) for name, read in query.select.items()}
    if query.concat is not None:
        key, parts, separator = query.concat
        items = expressions.attribute_of(view, key)
        if isinstance(items, list):
            row |= _joined(items, key, parts, separator)
        elif query.explode is None:
            return
    if query.explode is None:
        yield None, row
        return
    key, parts = query.explode
    items = expressions.attribute_of(view, key)
    for at, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            flat = dict(flatten(item))
            yield at, row | ({name: _within(flat, path) for name, path in parts.items()} if parts else flat)


def _joined(items: Sequence[Any], key: str, parts: Mapping[str, str], separator: str) -> Json:
    if not parts:
        return {key: separator.join(str(item) for item in items)}
    texts: dict[str, list[str]] = {name: [] for name in parts}
    for item in items:
        flat = dict(flatten(item)) if isinstance(item, dict) else {}
        for name, path in parts.items():
            value = _within(flat, path)
            if value is not None:
                texts[name].append(str(value))
    return {name: separator.join(found) for name, found in texts.items() if found}


def _within(flat: Mapping[str, Any], path: str) -> Any:
    return flat[path] if path in flat else nested(flat, path)


def _whole(views: Sequence[SpanView]) -> Table:
    """Spans as they are, a column for each attribute that one of them has."""
    rows: list[Json] = []
    for view in views:
        told = render_span(view)
        row = {name: told[name] for name in _WHOLE} | {
            SPAN_ID: view.span_id,
            "context.trace_id": view.trace_id,
        }
        attributes = columns({**view.told.attributes, KIND_KEY: view.told.kind})
        rows.append(row | {f"attributes.{name}": value for name, value in attributes.items()})
    names = list(dict.fromkeys((*_WHOLE, SPAN_ID, "context.trace_id", *(name for row in rows for name in row))))
    return Table([SPAN_ID], rows, [(view.span_id,) for view in views], names, _TIMES)


def _found(services: Services, scope: Scope, query: SpanTableQuery, asked: _Queries, limit: int) -> list[SpanView]:
    """The newest spans that match, `limit` at most."""
    builder = FilterBuilder()
    parents = _Parents(cast(SpanReader, services.reader), scope)
    if query.where is not None:
        where = query.where
        _narrow(services, scope, builder, where)
        words = _Words(services.annotations)
        builder.add(rest=lambda view: expressions.holds(where, view, parents.is_orphan, words.said) is True)
    if asked.root_spans_only:
        if asked.orphan_span_as_root_span:
            builder.add(rest=parents.is_orphan)
        else:
            builder.add(condition("span_parent_id", Operator.IS_NULL))
    window = Window(bound_ns(asked.start_time), bound_ns(asked.end_time or asked.stop_time))
    found = read_spans(services, scope, builder.finish(), window, SpanOrder.START_DESC, None, limit)
    if found.after is not None and len(found.views) < limit:
        raise ReadTooSlow("The query took longer than one read may; narrow the condition or the time window.")
    return found.views


def _narrow(services: Services, scope: Scope, builder: FilterBuilder, where: Node) -> None:
    """Give the store what it can check of a condition; everything is checked again with the record."""
    for part in where.children if isinstance(where, expressions.Every) else (where,):
        for name in _names_needed(part):
            also = condition("annotation_target", Operator.EQUALS, [AnnotationTarget.SPAN.value])
            named = condition("annotation_name", Operator.EQUALS, [name])
            builder.add(SomeEntry(Collection.ANNOTATIONS, Group("AND", (also, named))))
        match part:
            case IsMissing(child=Named(name="parent_id")):
                builder.parent("null")
            case Comparison(operator="==", left=Named(name=name), right=Const(value=str() as value)):
                _narrow_by(services, scope, builder, name, [value])
            case Comparison(operator="in", left=Named(name=name), right=Const(value=tuple() as values)):
                texts = [each for each in values if isinstance(each, str)]
                if texts and len(texts) == len(values):
                    _narrow_by(services, scope, builder, name, texts)


def _names_needed(part: Node) -> set[str]:
    """Names of which the span must have an annotation for a condition to hold."""
    match part:
        case Comparison():
            names = {expressions.name_said(part.left), expressions.name_said(part.right)}
        case Negation(child=IsMissing(child=child)):
            names = {expressions.name_said(child)}
        case _:
            names = set()
    return {name for name in names if name is not None}


def _narrow_by(services: Services, scope: Scope, builder: FilterBuilder, name: str, values: list[str]) -> None:
    match name:
        case "span_id":
            builder.ids("span_unique_id", values)
            narrow_to_traces(services, scope, builder, values)
        case "trace_id":
            builder.ids("trace_unique_id", values)
        case "parent_id":
            builder.ids("span_parent_id", values)
        case "name":
            builder.names(values)
        case "span_kind" if all(each in KINDS for each in values):
            builder.kinds(values)
        case "status_code" if all(each in STATUS_WORDS for each in values):
            builder.status_codes(values)


class _Words:
    """What was said of spans; reads each trace once."""

    def __init__(self, reader: AnnotationReader) -> None:
        self._reader = reader
        self._of: dict[int, list[Annotation]] = {}

    def said(self, view: SpanView, name: str) -> list[Annotation]:
        """The annotations of a name about the span itself."""
        trace_pk = view.row.trace.trace_pk
        if trace_pk not in self._of:
            rows = self._reader.annotations_of([trace_pk]).get(trace_pk, [])
            self._of[trace_pk] = [row.annotation for row in rows if row.annotation.target is AnnotationTarget.SPAN]
        return [each for each in self._of[trace_pk] if (each.span_id, each.name) == (view.span_id, name)]


class _Parents:
    """Which spans have a parent that is there; reads each trace once."""

    def __init__(self, reader: SpanReader, scope: Scope) -> None:
        self._reader = reader
        self._scope = scope
        self._spans: dict[int, frozenset[str]] = {}

    def is_orphan(self, view: SpanView) -> bool:
        """Whether the span has no parent that is there."""
        parent_id = view.row.detail.span.parent_id
        return parent_id is None or parent_id not in self._spans_of(view)

    def _spans_of(self, view: SpanView) -> frozenset[str]:
        trace_pk = view.row.trace.trace_pk
        found = self._spans.get(trace_pk)
        if found is None:
            where = condition("trace_unique_id", Operator.EQUALS, [view.trace_id])
            ids: set[str] = set()
            after: SpanPosition | None = None
            while True:
                page = self._reader.list_spans(self._scope, where, Window(), after=after, limit=1_000, records=False)
                ids.update(row.detail.span.span_id for row in page.rows)
                after = page.after
                if after is None:
                    break
            found = self._spans[trace_pk] = frozenset(ids)
        return found


ROUTES: Final[tuple[RestRoute, ...]] = (phoenix("POST", "/spans", phoenix_query_spans),)
