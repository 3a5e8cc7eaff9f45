"""Reading the items of datasets, as they are or as of a time, and naming them to the deletion engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.request import ByFilter
from clearspan.experiments.item_documents import ITEM_ID_KEY, Item, NewAttachment, read_version
from clearspan.experiments.item_queries import by_metadata, current, in_splits, item_ids, together, valid_at
from clearspan.model.errors import InvalidInput, NotFound, PayloadTooLarge
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.fields import START_TIME
from clearspan.query.page import PAGE_SIZE_MAX, OffsetPage, SortKey
from clearspan.store.figures import FigureReader
from clearspan.store.port import TraceReader, TraceRow
from clearspan.store.sessions import SessionReader, TraceOrder, TracePosition
from clearspan.store.spans import SpanReader

OLDEST_FIRST: Final = SortKey(START_TIME, descending=False)
"""By the time from which the version holds: items that are added meanwhile come last."""
PAGE_BYTES_MAX: Final = 64 * 2**20
_ROWS_AT_ONCE: Final = 50

ItemList: TypeAlias = list[Item]
IdList: TypeAlias = list[str]
_Rows: TypeAlias = list[TraceRow]


class ItemPage(NamedTuple):
    """Items of one page; `total` counts every match, exactly."""

    items: ItemList
    total: int


class ItemPart(NamedTuple):
    """Items of one page without a total, and the position to go on from; None: there are no more."""

    items: ItemList
    after: TracePosition | None


class ItemReader:
    """Reads the items of every dataset. Every method blocks, for a reader's thread."""

    def __init__(self, reader: TraceReader, catalog: Catalog) -> None:
        self._reader = reader
        self._catalog = catalog

    def list(
        self,
        dataset: Dataset,
        *,
        where: Expr | None = None,
        as_of_ns: int | None = None,
        ids: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        offset: int = 0,
        limit: int = 100,
        sort: SortKey = OLDEST_FIRST,
    ) -> ItemPage:
        """A page of items, as they are now or were at a time.

        Args:
            where: about the trace of the version: its `metadata__…`, `text`, `start_time` (valid from).
            as_of_ns: Unix time; None: the current versions.
            ids: only these items. splits: those in any of these. metadata: those that say all of this.
            limit: 1 to 1,000.
        Raises:
            PayloadTooLarge: the page's values are more than PAGE_BYTES_MAX: ask for fewer.
        """
        asked = self._asked(where, as_of_ns, ids, splits, metadata)
        if asked is None:
            return ItemPage([], 0)
        rows, total = self._rows(scope_of(dataset), asked, _until(as_of_ns), offset, limit, sort)
        return ItemPage(self._read({dataset.project_id: dataset}, rows), total)

    def part(
        self,
        dataset: Dataset,
        *,
        as_of_ns: int | None = None,
        ids: Sequence[str] | None = None,
        after: TracePosition | None = None,
        offset: int = 0,
        limit: int,
    ) -> ItemPart:
        """A page of items, oldest first, that begins anywhere, or after another one: such pages neither repeat nor miss
        an item when others come or go between them. Arguments and errors as of `list`.

        Cost: `offset` index entries, 1 µs each; `list` counts all others as well.

        Args:
            offset: so many items after the position are left out.
        """
        asked = self._asked(None, as_of_ns, ids, None, None)
        if asked is None:
            return ItemPart([], None)
        found = self.walks.walk_traces(
            scope_of(dataset),
            asked,
            _until(as_of_ns),
            order=TraceOrder.START_ASC,
            after=after,
            skip=offset,
            limit=limit,
        )
        return ItemPart(self._read({dataset.project_id: dataset}, found.rows), found.after)

    def list_ids(
        self,
        dataset: Dataset,
        *,
        where: Expr | None = None,
        as_of_ns: int | None = None,
        ids: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int,
    ) -> IdList:
        """The ids of at most `limit` items, oldest first; arguments as in `list`. No values are read."""
        asked = self._asked(where, as_of_ns, ids, splits, metadata)
        if asked is None or limit < 1:
            return []
        found = self.figures.trace_values(scope_of(dataset), asked, _until(as_of_ns), key=ITEM_ID_KEY, limit=limit)
        return [each for each in found if each is not None]

    def find(self, org_id: int, item_id: str, *, as_of_ns: int | None = None) -> tuple[Dataset, Item] | None:
        """An item of any dataset of the organisation, as it is now or was at a time; None: there is none."""
        datasets = {each.project_id: each for each in self._catalog.datasets.listed(org_id)}
        asked = self._asked(None, as_of_ns, [item_id], None, None)
        if not datasets or asked is None:
            return None
        rows, _ = self._rows(Scope(tuple(sorted(datasets))), asked, _until(as_of_ns), 0, 1, OLDEST_FIRST)
        for item in self._read(datasets, rows):
            return datasets[rows[0].project_id], item
        return None

    def read_attachment(self, dataset: Dataset, item: Item, name: str) -> NewAttachment:
        """A file of an item, whole. Raises NotFound."""
        found = self.spans.read_attachment(scope_of(dataset), item.trace_id, item.trace_id, name)
        if found is None:
            raise NotFound(f"The item has no attachment {name[:100]!r}.", fields=("attachments",))
        info, pieces = found
        return NewAttachment(name, info.mime_type, b"".join(pieces))

    def count(self, dataset: Dataset, *, as_of_ns: int | None = None) -> int:
        """How many items there are, exactly."""
        return self._reader.count_traces(
            scope_of(dataset), self._asked(None, as_of_ns, None, None, None), _until(as_of_ns)
        )

    def deletion_of(self, dataset: Dataset, item_ids: Sequence[str]) -> ByFilter:
        """What a deletion of these items selects within the dataset's project (`scope_of`): all their versions."""
        return ByFilter(item_ids_of(item_ids))

    def deletion_of_all(self, dataset: Dataset) -> ByFilter:
        """What a deletion of all items selects within the dataset's project."""
        return ByFilter(together([item_ids(None)]))

    def scope_of(self, dataset: Dataset) -> Scope:
        """Where a dataset's items are."""
        return scope_of(dataset)

    def _asked(
        self,
        where: Expr | None,
        as_of_ns: int | None,
        ids: Sequence[str] | None,
        splits: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Expr | None:
        """The one filter of a read; None: nothing can match it."""
        parts = [current() if as_of_ns is None else valid_at(as_of_ns)]
        if ids is None:
            parts.append(item_ids(None))
        else:
            known = [each for each in map(normal_or_none, ids) if each is not None]
            if not known:
                return None
            parts.append(item_ids(known))
        if splits is not None:
            if not splits:
                return None
            parts.append(in_splits(splits))
        if metadata:
            parts += by_metadata(metadata)
        if where is not None:
            parts.append(together([where]))  # a group of its own: which conditions share a span stays as it was
        return together(parts)

    def by_ids(self, dataset: Dataset, ids: Sequence[str]) -> ItemList:
        """The current versions of those of these items that the dataset has, any number; oldest first."""
        found: ItemList = []
        for start in range(0, len(ids), PAGE_SIZE_MAX):
            part = ids[start : start + PAGE_SIZE_MAX]
            found += self.list(dataset, ids=part, limit=len(part)).items
        return found

    def first_versions(self, dataset: Dataset, ids: Sequence[str]) -> ItemList:
        """What those of these items that the dataset has were when they were added, any number.

        Raises:
            PayloadTooLarge: a thousand of them hold more than PAGE_BYTES_MAX.
        """
        found: ItemList = []
        scope = scope_of(dataset)
        for start in range(0, len(ids), PAGE_SIZE_MAX):
            asked, wanted = item_ids(ids[start : start + PAGE_SIZE_MAX]), set(ids[start : start + PAGE_SIZE_MAX])
            page, more = 1, True
            while more:  # later versions come between
                rows = self._reader.list_traces(scope, asked, Window(), OLDEST_FIRST, OffsetPage(page, PAGE_SIZE_MAX))
                first = [row for row in rows.rows if row.summary.trace_id in wanted]
                found += self._read({dataset.project_id: dataset}, first)
                page, more = page + 1, len(rows.rows) == PAGE_SIZE_MAX
        return found

    def taken_ids(self, org_id: int, ids: Sequence[str]) -> set[str]:
        """Some of those of these ids that some version of some item of the organisation has."""
        projects = tuple(sorted(each.project_id for each in self._catalog.datasets.listed(org_id)))
        taken: set[str] = set()
        for start in range(0, len(ids), PAGE_SIZE_MAX):
            asked = item_ids(ids[start : start + PAGE_SIZE_MAX])
            listed = self._reader.list_traces(Scope(projects), asked, Window(), OLDEST_FIRST, OffsetPage(1, 1))
            taken |= {row.summary.trace_id for row in listed.rows}
        return taken

    def _rows(
        self, scope: Scope, asked: Expr, window: Window, offset: int, limit: int, sort: SortKey
    ) -> tuple[_Rows, int]:
        """The rows of one page that may begin anywhere: at most two of the store's pages."""
        assert offset >= 0
        assert 1 <= limit <= PAGE_SIZE_MAX
        first, skip = offset // limit + 1, offset % limit
        listed = self._reader.list_traces(scope, asked, window, sort, OffsetPage(first, limit))
        rows = listed.rows[skip:]
        if skip and len(listed.rows) == limit:
            rows += self._reader.list_traces(scope, asked, window, sort, OffsetPage(first + 1, limit)).rows[:skip]
        return rows, listed.total

    def _read(self, datasets: Mapping[int, Dataset], rows: Sequence[TraceRow]) -> ItemList:
        files = self.spans.list_attachments(
            Scope(tuple(sorted(datasets))), [(row.trace_pk, row.summary.trace_id) for row in rows]
        )
        out: ItemList = []
        size = 0
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            records = self._reader.root_records(part)
            for row in part:
                record, _ = records.get(row.trace_pk, (None, []))
                if record is None:
                    continue  # hidden since the page was listed
                size += len(record)
                if size > PAGE_BYTES_MAX:
                    text = "The items of this page are too large to read at once; ask for fewer."
                    raise PayloadTooLarge(text, fields=("limit",))
                attached = files.get((row.trace_pk, row.summary.trace_id), [])
                item = read_version(datasets[row.project_id].uuid, row, record, attached)
                if item is not None:
                    out.append(item)
        return out

    @property
    def spans(self) -> SpanReader:
        """The store."""
        return cast(SpanReader, self._reader)

    @property
    def walks(self) -> SessionReader:
        """The store."""
        return cast(SessionReader, self._reader)

    @property
    def figures(self) -> FigureReader:
        """The store."""
        return cast(FigureReader, self._reader)


def item_ids_of(ids: Sequence[str]) -> Expr:
    """Every version of these items. Raises InvalidInput: an id that is none."""
    return item_ids([normal_id(each) for each in ids])


def scope_of(dataset: Dataset) -> Scope:
    """Where a dataset's items are."""
    return Scope((dataset.project_id,))


def _until(as_of_ns: int | None) -> Window:
    return Window() if as_of_ns is None else Window(None, as_of_ns + 1)


def normal_id(item_id: str) -> str:
    """32 hex digits of an item's id. Raises InvalidInput: it is no UUID."""
    found = normal_or_none(item_id)
    if found is None:
        raise InvalidInput("An item's id is a UUID.", fields=("id",))
    return found


def normal_or_none(item_id: str) -> str | None:
    """As `normal_id`; None for what is no UUID."""
    try:
        found = UUID(item_id)
    except (ValueError, AttributeError, TypeError):
        return None
    return found.hex if found.int else None
