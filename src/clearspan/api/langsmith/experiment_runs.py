"""Experiments beside their dataset: examples, each with the runs that sessions made of it, classic and v2.

A session is an experiment when it refers to a dataset; its root runs name their example. Every example is listed, also
one that a session has no run of: what is missing is seen. With filters it is those of which some run matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.dataset_access import find_dataset
from clearspan.api.langsmith.example_views import ATTACHMENT_URLS, FIELDS, render_example
from clearspan.api.langsmith.grammar import parse_filters
from clearspan.api.langsmith.inputs import Json, optional_count, optional_object, optional_text, path_uuid, read_uuid
from clearspan.api.langsmith.paths import classic, v2
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import ROOTS, all_of, optional_flag, read_page_size, read_uuid_list
from clearspan.api.langsmith.run_views import DEFAULT_COLUMNS, RunFacts, needs_of, render_run, render_run_v2
from clearspan.api.langsmith.runs import loader_for, run_reply
from clearspan.api.langsmith.session_views import find_session
from clearspan.api.langsmith.v2_inputs import read_selects
from clearspan.api.respan.paging import base_url
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.items import Item
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.errors import InvalidInput, InvalidPage
from clearspan.model.trace import Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import METADATA, START_TIME, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import PAGE_SIZE_MAX, OffsetPage, SortKey
from clearspan.store.spans import SpanOrder

EXPERIMENTS_MAX: Final = 20
LIMIT_MAX: Final = 100
FILTERED_MAX: Final = 10_000
"""Most examples that filters may leave: each is named when the page is read."""
_LARGE: Final = frozenset({"inputs", "outputs", "events", "extra", "serialized"})
_PREVIEW: Final = (*(each for each in DEFAULT_COLUMNS if each not in _LARGE), "inputs_preview", "outputs_preview")
_BY_START: Final = SortKey(START_TIME, descending=False)
_EXAMPLE_FIELDS: Final = (*FIELDS, ATTACHMENT_URLS)


class _Asked(NamedTuple):
    """A page of examples with runs."""

    sessions: tuple[str, ...]  # 32 hex digits each
    filters: Mapping[str, Expr]  # session → what its runs must be
    example_ids: tuple[str, ...] | None
    columns: tuple[str, ...]
    offset: int
    limit: int


class _Page(NamedTuple):
    """Examples with the facts of their runs."""

    examples: list[tuple[Item, list[RunFacts]]]
    more: bool  # whether there are examples behind it


@requires(Permission.READ)
async def read_examples_with_runs(request: Request) -> Response:
    """A page of a dataset's examples with the runs of some sessions."""
    body = await read_json_object(request)
    if request.query_params.get("format"):
        raise InvalidInput("format is not available here; the answer is JSON.", fields=("format",))
    columns = _PREVIEW if optional_flag(body, "preview") else tuple(DEFAULT_COLUMNS)
    asked = _read(body, "session_ids", columns)._replace(
        offset=optional_count(body, "offset") or 0,
        limit=min(optional_count(body, "limit") or LIMIT_MAX, LIMIT_MAX),
    )
    dataset, page = await _load(request, asked)
    services = services_of(request)
    return run_reply(
        [
            render_example(services, dataset, item, _EXAMPLE_FIELDS)
            | {"runs": [render_run(facts, columns) for facts in runs]}
            for item, runs in page.examples
        ]
    )


@requires(Permission.READ)
async def query_experiment_runs(request: Request) -> Response:
    """The same with a cursor, and the properties of runs that `selects` names."""
    body = await read_json_object(request)
    columns, size = read_selects(body), read_page_size(body, 20, LIMIT_MAX)
    offset = _read_cursor(optional_text(body, "cursor"))
    asked = _read(body, "experiment_ids", tuple(columns))._replace(offset=offset, limit=size)
    dataset, page = await _load(request, asked)
    services = services_of(request)
    items = [
        render_example(services, dataset, item, _EXAMPLE_FIELDS)
        | {"runs": [render_run_v2(facts, columns) for facts in runs]}
        for item, runs in page.examples
    ]
    return run_reply({"items": items, "next_cursor": str(offset + size) if page.more else None})


def _read(body: Json, sessions: str, columns: tuple[str, ...]) -> _Asked:
    found = tuple(dict.fromkeys(read_uuid_list(body, sessions)))
    if not 1 <= len(found) <= EXPERIMENTS_MAX:
        raise InvalidInput(f"{sessions} takes 1 to {EXPERIMENTS_MAX} ids.", fields=(sessions,))
    for name in ("sort", "sort_params"):
        if body.get(name):  # to answer in another order would show other examples than the ones meant
            raise InvalidInput(f"{name} is not available here; the examples come in their own order.", fields=(name,))
    example_ids = None if body.get("example_ids") is None else tuple(read_uuid_list(body, "example_ids"))
    return _Asked(found, _read_filters(body), example_ids, columns, 0, LIMIT_MAX)


def _read_filters(body: Json) -> dict[str, Expr]:
    found: dict[str, Expr] = {}
    for session, texts in (optional_object(body, "filters") or {}).items():
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise InvalidInput("filters maps ids of sessions to lists of filters.", fields=("filters",))
        parts = [part for text in texts if (part := parse_filters(text or None)) is not None]
        if (where := all_of(parts)) is not None:
            found[read_uuid(session, "filters")] = where
    return found


def _read_cursor(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidPage("cursor is not one that this server gave.", fields=("cursor",))
    return int(text)


async def _load(request: Request, asked: _Asked) -> tuple[Dataset, _Page]:
    services, principal = services_of(request), principal_of(request)
    uuid, root = path_uuid(request, "dataset_id"), base_url(request)

    def load() -> tuple[Dataset, _Page]:
        dataset = find_dataset(services, principal, uuid)
        return dataset, _load_page(services, principal, dataset, asked, root)

    return await services.reads.run(load)


def _load_page(services: Services, principal: Principal, dataset: Dataset, asked: _Asked, root: str) -> _Page:
    """A page. Cost: finding where it begins, a read of its items, and for each session a look-up of their runs."""
    loaders: dict[str, Loader] = {}
    for uuid in asked.sessions:
        scope = principal.scope_for_read()._replace(project_ids=(find_session(services, principal, uuid).id,))
        loaders[uuid] = loader_for(services, principal, scope, root)
    ids = None if asked.example_ids is None else list(asked.example_ids)
    if asked.filters:
        matching = _matching(loaders, asked)
        ids = sorted(matching if ids is None else matching & set(ids))
    page = services.items.part(dataset, ids=ids, offset=asked.offset, limit=asked.limit)
    runs: dict[str, list[RunFacts]] = {item.id: [] for item in page.items}
    needs = needs_of(asked.columns)
    for uuid, loader in loaders.items():
        named = _traces_of(loader, list(runs))
        if not named:
            continue
        trace_is = Condition(field_named("trace_unique_id"), Operator.IN, tuple(named))
        parts: list[Expr] = [ROOTS, trace_is, *([asked.filters[uuid]] if uuid in asked.filters else [])]
        rows = loader.every(all_of(parts), Window(), SpanOrder.START_ASC, records=needs.content)
        for facts in loader.facts(rows, needs):
            runs[named[facts.row.trace.summary.trace_id]].append(facts)
    return _Page([(item, runs[item.id]) for item in page.items], page.after is not None)


def _traces_of(loader: Loader, example_ids: Sequence[str]) -> dict[str, str]:
    """Trace → example, of the traces of some examples within the loader's scope."""
    if not example_ids:
        return {}
    spellings = tuple(text for each in example_ids for text in (each, _dashed(each)))
    where = Condition(METADATA, Operator.IN, spellings, REFERENCE_EXAMPLE_KEY)
    found: dict[str, str] = {}
    number = 1
    while True:
        page = OffsetPage(number, PAGE_SIZE_MAX)
        rows = loader.services.reader.list_traces(loader.scope, where, Window(), _BY_START, page).rows
        for row in rows:
            example = dict(row.summary.metadata).get(REFERENCE_EXAMPLE_KEY, "").replace("-", "").lower()
            if example in example_ids:
                found[row.summary.trace_id] = example
        if len(rows) < PAGE_SIZE_MAX:
            return found
        number += 1


def _matching(loaders: Mapping[str, Loader], asked: _Asked) -> set[str]:
    """The examples of which a root run of some session matches the filter of that session."""
    refusal = InvalidInput(f"More than {FILTERED_MAX:,} runs match the filters; narrow them.", fields=("filters",))
    found: set[str] = set()
    for uuid, where in asked.filters.items():
        if uuid not in loaders:
            raise InvalidInput("filters names a session that is not asked for.", fields=("filters",))
        rows = loaders[uuid].scan(all_of([ROOTS, where]), Window(), rows_max=FILTERED_MAX, refusal=refusal)
        for row in rows:
            example: Any = dict(row.trace.summary.metadata).get(REFERENCE_EXAMPLE_KEY)
            if example:
                found.add(example.replace("-", "").lower())
    return found


def _dashed(plain: str) -> str:
    return f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"


ROUTES: Final = (
    classic("POST", "/datasets/{dataset_id}/runs", read_examples_with_runs),
    v2("POST", "/datasets/{dataset_id}/experiment-runs", query_experiment_runs),
)
