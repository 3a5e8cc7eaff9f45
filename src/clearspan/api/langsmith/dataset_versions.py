"""Versions of a dataset: which there are, their tags, and what differs between two.

A version is a time at which examples changed; reading a dataset as of it shows the examples as they were, but for those
that were deleted since: of them nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import LATEST, as_of_ns, find_dataset
from clearspan.api.langsmith.dataset_views import render_version
from clearspan.api.langsmith.inputs import Json, optional_text, optional_time, path_uuid, read_count, uuid_text
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog.datasets import Dataset, DatasetSettings
from clearspan.experiments.item_documents import ITEM_ID_KEY
from clearspan.experiments.item_queries import current, item_ids, together, valid_at
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.trace import Window
from clearspan.query.ast import Expr
from clearspan.query.fields import START_TIME
from clearspan.query.page import PAGE_SIZE_MAX, OffsetPage, SortKey
from clearspan.store.port import TraceRow

TAG_CHARS_MAX: Final = 255
TAGS_MAX: Final = 1_000
_NEWEST_FIRST: Final = SortKey(START_TIME, descending=True)


@requires(Permission.READ)
async def list_versions(request: Request) -> Response:
    """A dataset's versions, newest first. `search` finds those with a tag that holds this text."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, search = path_uuid(request, "dataset_id"), query.get("search", "").casefold()
    offset = read_count(query, "offset", 0)
    limit = read_count(query, "limit", 100, least=1, most=100)

    def read() -> list[Json]:
        dataset = find_dataset(services, principal, uuid)
        found = [
            render_version(ns, tags)
            for ns in version_times(services, dataset)
            if not search or any(search in tag.casefold() for tag in _tags_at(dataset, ns))
            for tags in [_tags_at(dataset, ns)]
        ]
        if found and (not search or search in LATEST) and offset == 0:
            found[0]["tags"] = [LATEST, *found[0]["tags"]]
        return found[offset : offset + limit]

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def read_version(request: Request) -> Response:
    """The version of a tag, or the one that held at `as_of`."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, tag, as_of = path_uuid(request, "dataset_id"), query.get("tag") or None, query.get("as_of") or None
    if (tag is None) == (as_of is None):
        raise InvalidInput("Either as_of or tag is needed.", fields=("as_of", "tag"))

    def read() -> Json:
        dataset = find_dataset(services, principal, uuid)
        if tag not in (None, LATEST) and tag not in (dataset.tags or {}):
            raise NotFound("The dataset has no version of that tag.")
        found = version_at(services, dataset, as_of_ns(dataset, tag or as_of))
        return render_version(found, _tags_at(dataset, found))

    return json_reply(await services.reads.run(read))


@requires(Permission.INGEST)
async def tag_version(request: Request) -> Response:
    """Put a tag on the version that held at `as_of`; another version loses it."""
    services, principal = services_of(request), principal_of(request)
    uuid, body = path_uuid(request, "dataset_id"), await read_json_object(request)
    tag, at_ns = optional_text(body, "tag"), optional_time(body, "as_of")
    if not tag or len(tag) > TAG_CHARS_MAX or tag == LATEST:
        raise InvalidInput(f"tag is a text of 1 to {TAG_CHARS_MAX} characters other than {LATEST}.", fields=("tag",))
    if at_ns is None:
        raise InvalidInput("as_of is required.", fields=("as_of",))

    def write() -> Json:
        dataset = find_dataset(services, principal, uuid)
        found = version_at(services, dataset, at_ns)
        tags = {**(dataset.tags or {}), tag: found}
        if len(tags) > TAGS_MAX:
            raise InvalidInput(f"A dataset has at most {TAGS_MAX} tags.", fields=("tag",))
        changed = services.catalog.datasets.update(principal.org_id, uuid, settings=DatasetSettings(tags=tags))
        return render_version(found, _tags_at(changed, found))

    return json_reply(await services.reads.run(write))


@requires(Permission.READ)
async def diff_versions(request: Request) -> Response:
    """Which examples were added, changed and removed between two versions, by time or tag. What was deleted since is
    in neither."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    uuid, names = path_uuid(request, "dataset_id"), ("from_version", "to_version")
    for name in names:
        if not query.get(name):
            raise InvalidInput(f"{name} is required.", fields=(name,))

    def read() -> Json:
        dataset = find_dataset(services, principal, uuid)
        before, after = [
            {_item_id(row): row.summary.trace_id for row in rows_as_of(services, dataset, at)}
            for at in [as_of_ns(dataset, query[name], name) for name in names]
        ]
        changed = [each for each in before.keys() & after.keys() if before[each] != after[each]]
        return {
            "examples_modified": sorted(map(uuid_text, changed)),
            "examples_added": sorted(map(uuid_text, after.keys() - before.keys())),
            "examples_removed": sorted(map(uuid_text, before.keys() - after.keys())),
        }

    return json_reply(await services.reads.run(read))


def version_times(services: Services, dataset: Dataset) -> list[int]:
    """The times (ns) at which examples that there are came or changed, newest first. Cost: a pass over all of them."""
    rows = _rows(services, dataset, item_ids(None), Window())
    return list(dict.fromkeys(row.summary.start_ns for row in rows))


def version_at(services: Services, dataset: Dataset, at_ns: int | None) -> int:
    """The time of the version that held then; None: of the newest. Blocks. Raises NotFound."""
    window = Window() if at_ns is None else Window(None, at_ns + 1)
    for row in _rows(services, dataset, item_ids(None), window, size=1):
        return row.summary.start_ns
    raise NotFound("The dataset has no version of that time.")


def newest_version(services: Services, dataset: Dataset) -> int:
    """As `version_at`, of a dataset without examples 0."""
    try:
        return version_at(services, dataset, None)
    except NotFound:
        return 0


def rows_as_of(services: Services, dataset: Dataset, at_ns: int | None) -> Iterator[TraceRow]:
    """The versions of all examples that held then; None: that hold now. Blocks; no values are read."""
    if at_ns is None:
        return _rows(services, dataset, together([current(), item_ids(None)]), Window())
    return _rows(services, dataset, together([valid_at(at_ns), item_ids(None)]), Window(None, at_ns + 1))


def _rows(
    services: Services, dataset: Dataset, where: Expr, window: Window, size: int = PAGE_SIZE_MAX
) -> Iterator[TraceRow]:
    scope, number = services.items.scope_of(dataset), 1
    while True:
        page = OffsetPage(number, size)
        rows = services.reader.list_traces(scope, where, window, _NEWEST_FIRST, page).rows
        yield from rows
        if len(rows) < size:
            return
        number += 1


def _tags_at(dataset: Dataset, at_ns: int) -> list[str]:
    return sorted(tag for tag, ns in (dataset.tags or {}).items() if ns == at_ns)


def _item_id(row: TraceRow) -> str:
    return dict(row.summary.metadata)[ITEM_ID_KEY]


ROUTES: Final = (
    classic("GET", "/datasets/{dataset_id}/versions/diff", diff_versions),
    classic("GET", "/datasets/{dataset_id}/versions", list_versions),
    classic("GET", "/datasets/{dataset_id}/version", read_version),
    classic("PUT", "/datasets/{dataset_id}/tags", tag_version),
)
