"""LangSmith's audit log, read from the ledger. Its events come from audit_events.py."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.audit_events import OPERATIONS, Facts, event_of, meaning_of
from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import Json, query_time, read_count, read_uuids, uuid_text
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Catalog, Principal
from clearspan.catalog.ledger import LedgerEntry
from clearspan.catalog.projects import ProjectPurpose, ProjectState
from clearspan.deletion.records import KIND
from clearspan.model.errors import InvalidInput, InvalidPage, NotPermitted

LIMIT_MAX: Final = 100
_LIMIT: Final = 10
_CHUNK: Final = 200
_SEQ_MAX: Final = 2**53


class _Query(NamedTuple):
    start_ns: int
    end_ns: int
    operations: frozenset[str]  # empty: all
    limit: int
    before_seq: int | None


@requires(Permission.ADMIN)
async def list_audit_logs(request: Request) -> Response:
    """What was deleted, held and lifted in the organisation from `start_time` to `end_time` (now, if absent), newest
    first: each request, and each step that a deletion went on by itself until it was verified."""
    services, principal = services_of(request), principal_of(request)
    _need_all(principal)
    query = _parse(request, services.clock.now_ns())
    workspaces = {uuid_text(each) for each in read_uuids(request.query_params, "workspace_id")}
    if workspaces and tenant_of(principal) not in workspaces:
        return json_reply({"items": [], "cursor": None})
    return json_reply(await services.reads.run(_page, services, principal, query))


@requires(Permission.ADMIN)
async def list_operations(request: Request) -> Response:
    """The operations that events can have."""
    _need_all(principal_of(request))
    return json_reply(list(OPERATIONS))


def _need_all(principal: Principal) -> None:
    """The log is the whole organisation's. Raises NotPermitted for a key that sees a part of it."""
    if principal.bound or principal.environment is not None:
        raise NotPermitted("The audit log needs a key that is limited to no project and no environment.")


def _parse(request: Request, now_ns: int) -> _Query:
    query = request.query_params
    start_ns, end_ns = query_time(query, "start_time"), query_time(query, "end_time")
    if start_ns is None:
        raise InvalidInput("start_time is required.", fields=("start_time",))
    cursor = query.get("cursor")
    return _Query(
        start_ns=start_ns,
        end_ns=now_ns if end_ns is None else end_ns,
        operations=frozenset(query.getlist("operations")),
        limit=read_count(query, "limit", _LIMIT, least=1, most=LIMIT_MAX),
        before_seq=_parse_cursor(cursor) if cursor else None,
    )


def render_cursor(before_seq: int) -> str:
    """Where a page ended: JSON in base64, as LangSmith's."""
    return base64.urlsafe_b64encode(orjson.dumps({"before": before_seq})).decode()


def _parse_cursor(text: str) -> int:
    try:
        said = orjson.loads(base64.urlsafe_b64decode(text))
        before = said["before"]
    except (binascii.Error, ValueError, LookupError, TypeError):
        before = None
    if isinstance(before, bool) or not isinstance(before, int) or not 0 <= before <= _SEQ_MAX:
        raise InvalidPage("The cursor is not one of this list.", fields=("cursor",))
    return before


def _page(services: Services, principal: Principal, query: _Query) -> Json:
    workspace = tenant_of(principal)
    catalog = services.catalog
    every = catalog.projects(principal.org_id, states=tuple(ProjectState), purposes=tuple(ProjectPurpose))
    projects = {each.id: each.uuid for each in every}
    found: list[LedgerEntry] = []
    first = _Firsts(catalog)
    for entry in _newest_first(catalog, principal.org_id, query):
        operation = meaning_of(entry, first.of(entry))
        if operation is None or (query.operations and operation not in query.operations):
            continue
        found.append(entry)
        if len(found) > query.limit:
            break
    page = found[: query.limit]
    items = [event_of(entry, Facts(first.of(entry), workspace, projects)) for entry in page]
    return {"items": items, "cursor": render_cursor(page[-1].seq) if len(found) > query.limit else None}


def _newest_first(catalog: Catalog, org_id: int, query: _Query) -> Iterator[LedgerEntry]:
    before = query.before_seq
    while True:
        chunk = catalog.ledger_newest(
            org_id, start_ns=query.start_ns, end_ns=query.end_ns, before_seq=before, limit=_CHUNK
        )
        yield from chunk
        if len(chunk) < _CHUNK:
            return
        before = chunk[-1].seq


class _Firsts:
    """The first entry of each deletion, which says what was asked, and by whom; remembered for one page."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Mapping[str, Any]] = {}

    def of(self, entry: LedgerEntry) -> Mapping[str, Any]:
        """The body of the first entry of the same deletion; empty for an entry of anything else."""
        if entry.kind != KIND or entry.deletion_id is None:
            return {}
        if entry.deletion_id not in self._known:
            [first, *_] = self._catalog.ledger(deletion_id=entry.deletion_id, limit=1)
            self._known[entry.deletion_id] = first.body
        return self._known[entry.deletion_id]


ROUTES: Final = (
    classic("GET", "/audit-logs/operations", list_operations),
    classic("GET", "/audit-logs", list_audit_logs),
)
