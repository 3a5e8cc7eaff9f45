"""Which examples a list asks for, and finding them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from starlette.datastructures import QueryParams

from clearspan.api.langsmith.dataset_access import as_of_ns, check_may_use_datasets, find_dataset
from clearspan.api.langsmith.example_bodies import SPLIT_KEY, read_splits
from clearspan.api.langsmith.grammar import parse_filter
from clearspan.api.langsmith.inputs import Json, query_object, query_uuid, read_count, read_uuids
from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_documents import ITEM_ID_KEY
from clearspan.experiments.item_queries import current, item_ids, together
from clearspan.experiments.items import OLDEST_FIRST, Item
from clearspan.model.errors import InvalidFilter, InvalidInput
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, Group, RootSpan, conditions
from clearspan.query.fields import SPAN_TEXT, START_TIME, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import PAGE_SIZE_MAX, OffsetPage, SortKey
from clearspan.query.values import make_condition

LIMIT_MAX: Final = 100
IDS_MAX: Final = 1_000
_ORDERS: Final = {"": OLDEST_FIRST, "recent": SortKey(START_TIME, descending=True)}
_FILTERED: Final = frozenset(
    field.name for field in (field_named("metadata_key"), field_named("metadata_value"), SPAN_TEXT)
)
"""Fields of a run that an example has as well."""


class ExampleQuery(NamedTuple):
    """A list of examples, as asked for. None: any."""

    dataset_uuid: str | None
    ids: list[str] | None
    as_of: str | None  # a time, or the tag of a version
    splits: list[str] | None
    metadata: Json
    where: Expr | None
    order: str
    offset: int
    limit: int

    def arguments(self, dataset: Dataset) -> dict[str, Any]:
        """What is asked of one dataset, for `Items.list`."""
        return {
            "where": self.where,
            "as_of_ns": as_of_ns(dataset, self.as_of),
            "splits": self.splits,
            "metadata": self.metadata,
            "sort": _ORDERS[self.order],
        }


def read_example_query(query: QueryParams) -> ExampleQuery:
    """The parameters of a list. Raises InvalidInput, naming the parameter."""
    ids = read_uuids(query, "id") if query.get("id") else None
    dataset = query_uuid(query, "dataset")
    if dataset is None and ids is None:
        raise InvalidInput("A list of examples needs dataset or id.", fields=("dataset",))
    if ids is not None and len(ids) > IDS_MAX:
        raise InvalidInput(f"id takes at most {IDS_MAX:,} ids.", fields=("id",))
    order = query.get("order", "")
    if order not in _ORDERS:
        raise InvalidInput("order can only be recent; without it the oldest come first.", fields=("order",))
    metadata, splits = query_object(query, "metadata") or {}, [each for each in query.getlist("splits") if each]
    if SPLIT_KEY in metadata:
        splits += read_splits(metadata.pop(SPLIT_KEY), f"metadata.{SPLIT_KEY}") or ()
    return ExampleQuery(
        dataset_uuid=dataset,
        ids=None if ids is None else list(dict.fromkeys(ids)),
        as_of=query.get("as_of") or None,
        splits=splits or None,
        metadata=metadata,
        where=_where(query.get("filter"), query.getlist("full_text_contains")),
        order=order,
        offset=read_count(query, "offset", 0),
        limit=read_count(query, "limit", LIMIT_MAX, least=1, most=LIMIT_MAX),
    )


def find_examples(
    services: Services, principal: Principal, asked: ExampleQuery
) -> tuple[list[tuple[Dataset, Item]], int]:
    """(a page of examples with their datasets, how many there are in all). Blocks. Raises NotFound, NotPermitted."""
    check_may_use_datasets(principal)
    if asked.dataset_uuid is None:
        return _anywhere(services, principal, asked)
    dataset = find_dataset(services, principal, asked.dataset_uuid)
    page = services.items.list(
        dataset, ids=asked.ids, offset=asked.offset, limit=asked.limit, **asked.arguments(dataset)
    )
    return [(dataset, item) for item in page.items], page.total


def locate_examples(
    services: Services, principal: Principal, ids: list[str], dataset: Dataset | None = None
) -> dict[str, Dataset]:
    """Example → its dataset, of those that there are; with `dataset` of its own only. Blocks. Raises NotPermitted.

    Cost: one look-up for each thousand ids, whatever the number of datasets.
    """
    check_may_use_datasets(principal)
    homes = [dataset] if dataset is not None else services.catalog.datasets.listed(principal.org_id)
    by_project = {each.project_id: each for each in homes}
    scope = Scope(tuple(sorted(by_project)))
    found: dict[str, Dataset] = {}
    for start in range(0, len(ids) if by_project else 0, PAGE_SIZE_MAX):
        where = together([current(), item_ids(ids[start : start + PAGE_SIZE_MAX])])
        page = OffsetPage(1, PAGE_SIZE_MAX)
        for row in services.reader.list_traces(scope, where, Window(), OLDEST_FIRST, page).rows:
            found[dict(row.summary.metadata)[ITEM_ID_KEY]] = by_project[row.project_id]
    return {each: found[each] for each in ids if each in found}


def _anywhere(services: Services, principal: Principal, asked: ExampleQuery) -> tuple[list[tuple[Dataset, Item]], int]:
    """Examples by id alone, dataset by dataset."""
    homes = locate_examples(services, principal, asked.ids or [])
    found: list[tuple[Dataset, Item]] = []
    for dataset in {home.uuid: home for home in homes.values()}.values():
        mine = [each for each, home in homes.items() if home.uuid == dataset.uuid]
        page = services.items.list(dataset, ids=mine, limit=IDS_MAX, **asked.arguments(dataset))
        found += [(dataset, item) for item in page.items]
    return found[asked.offset : asked.offset + asked.limit], len(found)


def _where(text: str | None, words: list[str]) -> Expr | None:
    parts: list[Expr] = []
    if text:
        said = parse_filter(text, "filter")
        for each in conditions(said):
            if each.field.name not in _FILTERED:
                raise InvalidFilter(
                    "`filter`: examples are filtered by metadata and search, as in "
                    'has(metadata, \'{"key": "value"}\'), exists(metadata, "key") or search("words").',
                    fields=("filter",),
                )
        parts.append(RootSpan(said))
    for word in filter(None, words):
        parts.append(RootSpan(make_condition("full_text_contains", SPAN_TEXT, Operator.ICONTAINS, [word])))
    if len(parts) > 1:
        return Group("AND", tuple(parts))
    return parts[0] if parts else None
