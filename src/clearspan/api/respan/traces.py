"""Respan's traces API, the reading half: list, retrieve, share, public view, summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import (
    NO_TEXTS,
    Json,
    Owner,
    SpanTexts,
    dump_detail,
    render_trace,
    render_tree,
    without_private,
)
from clearspan.api.respan.filters import parse_filters
from clearspan.api.respan.paging import render_page
from clearspan.api.respan.params import parse_environment, parse_page, parse_sort_by, parse_trace_id
from clearspan.api.respan.texts import detail_texts, root_texts
from clearspan.api.respan.window import HEADER, EffectiveWindow, default_window
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.model.errors import InvalidInput, NotFound, PayloadTooLarge
from clearspan.model.trace import Scope
from clearspan.model.usage import usd_from_pico
from clearspan.query.ast import Expr
from clearspan.store.port import TraceDetail, TraceReader, TraceRow

PAGE_TEXT_BYTES_MAX = 32 * 2**20
"""Most bytes of wire records behind one page of a list; a page of 1,000 images would be gigabytes."""
_ROWS_AT_ONCE = 50


@requires(Permission.READ)
async def list_traces(request: Request) -> Response:
    """A page of traces that match the filters, newest first unless `sort_by` says otherwise."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    body = await read_json_object(request) if request.method == "POST" else {}
    where = parse_filters(body.get("filters"), body.get("operator"), fields="list")
    window = request_window(request, services)
    sort, page = parse_sort_by(query), parse_page(query, services.settings.page_size_max)
    scope = principal.scope_for_read(parse_environment(query))
    owner = owner_of(principal)

    def read() -> tuple[list[Json], int, bool]:
        found = services.reader.list_traces(scope, where, window.window, sort, page)
        texts = _page_texts(services.reader, found.rows)
        return (
            [render_trace(row, owner, texts.get(row.trace_pk, NO_TEXTS)) for row in found.rows],
            found.total,
            found.total_is_exact,
        )

    results, total, is_exact = await services.reads.run(read)
    envelope = render_page(request, results, total=total, page=page.page, page_size=page.page_size)
    notes = [window.sentence()] if window.is_default else []
    if not is_exact:
        notes.append("The text search stopped at its limit: count is a lower bound.")
    if notes:
        envelope["message"] = " ".join(notes)
    return json_response(envelope, window)


@requires(Permission.READ)
async def retrieve_trace(request: Request) -> Response:
    """One trace with all its spans as a tree; the newest copy of that id the key may see.

    The query parameters `environment`, `start_time`, `end_time` and `timestamp` of older clients are hints that the
    look-up by id does not need.
    """
    services, principal = services_of(request), principal_of(request)
    trace_id = parse_trace_id(request.path_params["trace_unique_id"])
    scope, owner = principal.scope_for_read(), owner_of(principal)

    def read() -> bytes:
        return _dump(_found(services.reader.get_trace(scope, trace_id)), owner)

    return _json_bytes(await services.reads.run(read))


@requires(Permission.ANNOTATE)
async def share_trace(request: Request) -> Response:
    """Make a trace readable by everybody who has its address, or end that. Sharing ends with the trace itself.

    What is shared is the newest copy the key may see; ending it ends the shares of every such copy.
    """
    services, principal = services_of(request), principal_of(request)
    trace_id = parse_trace_id(request.path_params["trace_unique_id"])
    is_public = (await read_json_object(request)).get("is_public")
    if not isinstance(is_public, bool):
        raise InvalidInput("is_public must be true or false.", fields=("is_public",))
    scope = principal.scope_for_read()

    def write() -> None:
        detail = _found(services.reader.get_trace(scope, trace_id))
        if is_public:
            services.catalog.set_share(principal.org_id, detail.row.project_id, trace_id, public=True)
        else:  # the copy that was shared need not be the one that is newest now
            each = [scope._replace(project_ids=(project_id,)) for project_id in scope.project_ids]
            permitted = [one.project_ids[0] for one in each if services.reader.get_trace(one, trace_id)]
            services.catalog.drop_shares([(project_id, trace_id) for project_id in permitted])

    await services.reads.run(write)
    return json_response({"trace_unique_id": trace_id, "is_public": is_public})


@requires(Permission.PUBLIC)
async def public_trace(request: Request) -> Response:
    """A shared trace, without customer, session, key and metadata. Any Authorization header is ignored."""
    services = services_of(request)
    organisation = request.path_params["unique_organization_id"]
    trace_id = parse_trace_id(request.path_params["trace_unique_id"])

    def read() -> bytes:
        shares = services.catalog.find_share(organisation, trace_id)
        if not shares:
            raise NotFound("No shared trace was found under that id.")
        scope = Scope(tuple(share.project_id for share in shares))
        return _dump(_found(services.reader.get_trace(scope, trace_id)), Owner(organisation, ""), public=True)

    response = _json_bytes(await services.reads.run(read))
    response.headers["X-Robots-Tag"] = "noindex"
    return response


@requires(Permission.READ)
async def summarise_traces(request: Request) -> Response:
    """Sums over all matching traces (respan-api 0.1.0). Unknown costs and tokens are left out of the sums."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    where = parse_filters(body.get("filters"), body.get("operator"), fields="list")
    window = request_window(request, services)
    scope = principal.scope_for_read(parse_environment(request.query_params))
    totals = await services.reads.run(_totals, services.reader, scope, where, window)
    if window.is_default:
        totals["message"] = window.sentence()
    return json_response(totals, window)


def _totals(reader: TraceReader, scope: Scope, where: Expr | None, window: EffectiveWindow) -> Json:
    sums = reader.sum_traces(scope, where, window.window)
    return {
        "total_cost": usd_from_pico(sums.cost_pico or 0),
        "total_tokens": sums.total_tokens or 0,
        "total_traces": sums.traces,
        "average_latency": sums.duration_ns / sums.traces / 1e9 if sums.traces else 0.0,
        "error_count": sums.error_count,
    }


def request_window(request: Request, services: Services) -> EffectiveWindow:
    """The window of a list or bulk delete: the last hour unless the query says otherwise."""
    query = request.query_params
    return default_window(query.get("start_time"), query.get("end_time"), services.clock.now_ns())


def owner_of(principal: Principal) -> Owner:
    """Whose traces the caller reads."""
    return Owner(principal.org_public_id, principal.org_name)


def json_response(value: Any, window: EffectiveWindow | None = None, headers: dict[str, str] | None = None) -> Response:
    """A 200 with JSON, and the window it was answered for."""
    response = _json_bytes(dump_json(value))
    response.headers.update(headers or {})
    if window is not None:
        response.headers[HEADER] = window.header()
    return response


def _json_bytes(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _found(detail: TraceDetail | None) -> TraceDetail:
    if detail is None:
        raise NotFound("No trace was found under that id.")
    return detail


def _dump(detail: TraceDetail, owner: Owner, *, public: bool = False) -> bytes:
    texts = detail_texts(detail)
    head = render_trace(detail.row, owner, texts.get(detail.row.summary.root_span_id or "", NO_TEXTS))
    tree = render_tree(detail.row.summary, owner, [(span, context) for span, context, _ in detail.spans], texts)
    if public:
        head = without_private(head)
        tree = tree._replace(nodes={span_id: without_private(node) for span_id, node in tree.nodes.items()})
    return dump_detail(head, tree)


def _page_texts(reader: TraceReader, rows: Sequence[TraceRow]) -> dict[int, SpanTexts]:
    """trace_pk → what the root of each row says.

    Raises:
        PayloadTooLarge: the page would be too large to send; the client may ask for a smaller one.
    """
    texts: dict[int, SpanTexts] = {}
    size = 0
    for part in _parts(rows):
        for trace_pk, (root, logs) in reader.root_records(part).items():
            size += len(root or b"") + sum(map(len, logs))
            if size > PAGE_TEXT_BYTES_MAX:
                raise PayloadTooLarge(
                    "The inputs and outputs of this page are too large to send at once; ask for a smaller page_size.",
                    fields=("page_size",),
                )
            texts[trace_pk] = root_texts(root, logs)
    return texts


def _parts(rows: Sequence[TraceRow]) -> Iterator[Sequence[TraceRow]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]
