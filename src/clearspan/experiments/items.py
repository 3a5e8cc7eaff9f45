"""Items of datasets: adding, changing, reading as of a time, and naming them to the deletion engine.

An item is what its versions are (item_documents.py), each a trace in the dataset's own project. A change writes a new
version and ends the one before in the same transaction, so at any time exactly one version of an item holds. Removing
an item is an ordinary deletion that takes every version: nothing of it stays in older ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar
from uuid import UUID, uuid5
from weakref import WeakValueDictionary

from msgspec import UNSET, UnsetType

from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.execute import Deleter
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.experiments.item_documents import (
    Item,
    ItemAttachment,
    NewAttachment,
    NewItem,
    Version,
    check_splits,
    item_of,
    superseding_operation,
    value_text,
    version_operation,
    whole_microseconds,
)
from clearspan.experiments.item_reading import OLDEST_FIRST, ItemList, ItemPage, ItemReader, normal_id, scope_of
from clearspan.experiments.item_repeats import is_repeat
from clearspan.experiments.item_schemas import SchemaCheck
from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs
from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_parts import RunOperation
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound, PayloadTooLarge
from clearspan.model.runs import run_id_spelt
from clearspan.model.span import Attachment, TraceBatch
from clearspan.store.port import TraceReader, WriteOutcome

__all__ = [
    "OLDEST_FIRST", "Item", "ItemAttachment", "ItemChange", "ItemPage", "Items", "NewAttachment", "NewItem",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")

_MICROSECOND_NS: Final = 1000


class ItemChange(NamedTuple):
    """What changes of an item; UNSET: stays as it is. Values as in NewItem."""

    id: str
    inputs: Any = UNSET
    outputs: Any = UNSET
    metadata: Any = UNSET
    splits: Sequence[str] | UnsetType = UNSET
    observed: Any = UNSET
    metrics: Any = UNSET
    attachments: Sequence[NewAttachment] = ()  # added, or in place of one of the same name
    kept: Mapping[str, str] | None = None  # attachments that stay, old name → new; None: all


class Gateway(Protocol):
    """The way in, as far as items need it (api.gateway.IngestGateway)."""

    async def submit(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        """Store batches in one transaction; returns after they are durable."""
        ...


class Threads(Protocol):
    """Where blocking work runs (api.gateway.ThreadPool)."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it there."""
        ...


class _Write(NamedTuple):
    """A version to be written."""

    version: Version
    attachments: tuple[Attachment, ...]


class _Prepared(NamedTuple):
    """What is to be written, in the form that the store takes, and the items that it makes current."""

    items: ItemList
    batches: list[TraceBatch]
    order: list[str]  # ids of all items of the request, in its order


class Items(ItemReader):
    """The items of every dataset: what ItemReader reads, and how they are written."""

    def __init__(
        self,
        reader: TraceReader,
        gateway: Gateway,
        catalog: Catalog,
        clock: Clock,
        ids: IdSource,
        prices: PriceBook | None,
        threads: Threads,
        *,
        deleter: Deleter | None = None,
        limits: IngestLimits = DEFAULT_LIMITS,
        attachment_bytes_max: int = 2**30,
    ) -> None:
        """
        Args:
            threads: where reads run that a write needs.
            deleter: takes back a change that a deletion overtook; None: such a change stays.
            limits: on an item's values.
        """
        super().__init__(reader, catalog)
        self._gateway = gateway
        self._clock = clock
        self._ids = ids
        self._prices = prices
        self.threads = threads
        self._deleter = deleter
        self._limits = limits
        self._attachment_bytes_max = attachment_bytes_max
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def add(self, principal_key: str | None, dataset: Dataset, new: Sequence[NewItem]) -> ItemList:
        """Add items, all in one transaction, in the order given.

        One that the dataset was given before under the same id, with the same content, is not stored again: its sender
        has lost the answer.

        Args:
            principal_key: public id of the API key that adds them.
        Returns:
            The items that were stored, now or, as they were then, before. One whose id a deletion's tombstone refuses
            is left out.
        Raises:
            InvalidInput: a value is no JSON, too large, or does not fit the dataset's schema; nothing was stored.
            Conflict: an id is given twice, or taken by other content (`item_exists`), and nothing was stored; or
                tombstones refused them all (`item_deleted`).
        """
        given = [normal_id(each.id) for each in new if each.id is not None]
        async with self.holding(given):
            prepared, repeated = await self.threads.run(self._prepare_new, principal_key, dataset, new, given)
            refused = await self._submit(prepared)
        kept = [item for item in prepared.items if not refused[item.trace_id]]
        if new and not kept and not repeated:
            raise Conflict("An item of that id was deleted.", code="item_deleted", fields=("id",))
        if kept:
            await self.threads.run(self._catalog.datasets.touch, dataset.org_id, dataset.uuid)
        if not repeated:
            return kept
        stored = repeated | {item.id: item for item in kept}
        return [stored[item_id] for item_id in prepared.order if item_id in stored]

    async def update(
        self, dataset: Dataset, changes: Sequence[ItemChange], *, principal_key: str | None = None
    ) -> ItemList:
        """Write a new version of each item and end the one before, all in one transaction.

        Changes of one item wait for each other. One that a deletion of the item overtook is taken back.

        Returns:
            The items as they are now, in the order given.
        Raises:
            NotFound: there is no such item in the dataset, or not any more. InvalidInput: as `add`. Nothing changed.
        """
        named = [normal_id(each.id) for each in changes]
        if len(set(named)) < len(named):
            raise InvalidInput("An item is named twice.", fields=("id",))
        async with self.holding(named):
            found = dict(zip(named, changes, strict=True))
            prepared, ended = await self.threads.run(self._prepare_changes, principal_key, dataset, found)
            refused = await self._submit(prepared)
            lost = [item.trace_id for item, old in zip(prepared.items, ended, strict=True) if refused[old]]
            if lost:
                await self.take_back(dataset, lost)
                raise NotFound("An item was deleted meanwhile.", fields=("id",))
        await self.threads.run(self._catalog.datasets.touch, dataset.org_id, dataset.uuid)
        return prepared.items

    @asynccontextmanager
    async def holding(self, item_ids: Iterable[str]) -> AsyncIterator[None]:
        """No version of these items is written meanwhile: for a change, and for a deletion until it is hidden."""
        async with AsyncExitStack() as stack:
            for item_id in sorted({normal_id(each) for each in item_ids}):
                await stack.enter_async_context(self._locks.setdefault(item_id, asyncio.Lock()))
            yield

    async def _submit(self, prepared: _Prepared) -> dict[str, bool]:
        """Write. Returns trace id → whether a tombstone refused something of it."""
        if not prepared.batches:
            return {}
        outcomes = await self._gateway.submit(prepared.batches)
        refused: dict[str, bool] = {}
        for batch, outcome in zip(prepared.batches, outcomes, strict=True):
            refused[batch.trace_id] = refused.get(batch.trace_id, False) or bool(outcome.refused)
        return refused

    def _prepare_new(
        self, key: str | None, dataset: Dataset, new: Sequence[NewItem], given: Sequence[str]
    ) -> tuple[_Prepared, dict[str, Item]]:
        """(what is to be written, id → item that was written before). Raises InvalidInput, Conflict."""
        now_ns = whole_microseconds(self._clock.now_ns())
        writes = [self._new(each, now_ns) for each in new]
        repeated: dict[str, Item] = {}
        if len(set(given)) < len(given):
            raise _taken()
        if given and self.taken_ids(dataset.org_id, given):
            repeated = self._repeated(dataset, writes, new)
        rest = [write for write in writes if write.version.item_id not in repeated]
        prepared = self._prepare(key, dataset, rest, [])
        return prepared._replace(order=[write.version.item_id for write in writes]), repeated

    def _repeated(self, dataset: Dataset, writes: Sequence[_Write], new: Sequence[NewItem]) -> dict[str, Item]:
        """Those of the items that were given to the dataset before. Raises Conflict: an id is another item's."""
        named = [write.version.item_id for write, each in zip(writes, new, strict=True) if each.id is not None]
        found = {item.id: item for item in self.first_versions(dataset, named)}
        for write in writes:
            old = found.get(write.version.item_id)
            if old is None:
                continue
            if not is_repeat(write.version, write.attachments, old, partial(self.read_attachment, dataset, old)):
                raise _taken()
        left = [each for each in named if each not in found]
        if left and self.taken_ids(dataset.org_id, left):  # by an item of another dataset
            raise _taken()
        return found

    def _prepare_changes(
        self, key: str | None, dataset: Dataset, changes: Mapping[str, ItemChange]
    ) -> tuple[_Prepared, list[str]]:
        """(what is to be written, the trace that each new version ends)."""
        found = self._changed(dataset, changes)
        ends = [superseding_operation(old.trace_id, write.version.from_ns) for write, old in found]
        prepared = self._prepare(key, dataset, [write for write, _ in found], ends)
        return prepared, [old.trace_id for _, old in found]

    def _prepare(
        self, key: str | None, dataset: Dataset, writes: Sequence[_Write], ends: Sequence[RunOperation]
    ) -> _Prepared:
        """Check, and make what the store takes. Raises InvalidInput."""
        checks = SchemaCheck(dataset.inputs_schema, dataset.outputs_schema)
        operations = [*(version_operation(write.version) for write in writes), *ends]
        decoded = decode_runs(operations, RunSource(self._clock.now_ns(), key, None, self._limits))
        if decoded.rejected:
            reason = decoded.rejected[0].reason
            raise InvalidInput(f"An item cannot be stored: {reason}.", fields=("items",))
        items = [_written(dataset, write) for write in writes]
        for number, item in enumerate(items):
            checks.check(item.inputs, item.outputs, f"item {number}")
        batches = batch_runs(dataset.project_id, decoded.runs, self._prices, self._limits).batches
        batches += [
            TraceBatch(dataset.project_id, write.version.trace_id, (), (), {}, b"", write.attachments)
            for write in writes
            if write.attachments
        ]
        return _Prepared(items, batches, [item.id for item in items])

    def _new(self, new: NewItem, now_ns: int) -> _Write:
        item_id = normal_id(new.id) if new.id is not None else UUID(bytes=self._ids.token_bytes(16), version=4).hex
        source = None if new.source_run_id is None else _run_id(new.source_run_id)
        values = {name: getattr(new, name) for name in ("inputs", "outputs", "metadata", "observed", "metrics")}
        created_ns = now_ns if new.created_ns is None else whole_microseconds(new.created_ns)
        version = Version(item_id, item_id, _texts(values), check_splits(new.splits), source, created_ns, now_ns)
        return _Write(version, self._files(item_id, new.attachments))

    def _changed(self, dataset: Dataset, changes: Mapping[str, ItemChange]) -> list[tuple[_Write, Item]]:
        """What is to be written of each change, and the version it supersedes."""
        found = {item.id: item for item in self.by_ids(dataset, list(changes))}
        if len(found) < len(changes):
            raise NotFound("There is no such item in this dataset.", fields=("id",))
        # One time for all: a time at which some are changed and others are not would be a version nobody made.
        latest_ns = max((item.modified_ns for item in found.values()), default=0)
        at_ns = max(whole_microseconds(self._clock.now_ns()), latest_ns + _MICROSECOND_NS)
        return [
            (self._change(dataset, found[item_id], each, at_ns), found[item_id]) for item_id, each in changes.items()
        ]

    def _change(self, dataset: Dataset, old: Item, change: ItemChange, at_ns: int) -> _Write:
        given = {name: getattr(change, name) for name in ("inputs", "outputs", "metadata", "observed", "metrics")}
        texts = {**old.texts, **_texts({name: value for name, value in given.items() if value is not UNSET})}
        splits = old.splits if isinstance(change.splits, UnsetType) else check_splits(change.splits)
        trace_id = uuid5(UUID(old.id), str(at_ns)).hex
        version = Version(old.id, trace_id, texts, splits, old.source_run_id, old.created_ns, at_ns)
        kept = {each.name: each.name for each in old.attachments} if change.kept is None else change.kept
        new = {each.name for each in change.attachments}
        files = [
            self.read_attachment(dataset, old, name)._replace(name=to) for name, to in kept.items() if to not in new
        ]
        return _Write(version, (*self._files(trace_id, change.attachments), *self._files(trace_id, files)))

    def _files(self, trace_id: str, new: Iterable[NewAttachment]) -> tuple[Attachment, ...]:
        files = tuple([Attachment(trace_id, each.name, each.mime_type, each.data) for each in new])
        for each in files:
            if len(each.data) > self._attachment_bytes_max:
                text = f"An attachment has more than {self._attachment_bytes_max} bytes."
                raise PayloadTooLarge(text, fields=("attachments",))
        return files

    async def take_back(self, dataset: Dataset, trace_ids: Sequence[str]) -> None:
        """Delete versions, or items of one version, that a deletion of what they hold has overtaken."""
        if self._deleter is None:
            return
        request = DeletionRequest(
            org_id=dataset.org_id,
            requested_by="items",
            dialect="items",
            scope=scope_of(dataset),
            selection=ByIds(tuple(trace_ids)),
        )
        await self.threads.run(self._deleter.delete, request, wait_s=0.0, wait_for="hidden")


def _taken() -> Conflict:
    return Conflict("There is an item of that id already.", code="item_exists", fields=("id",))


def _texts(values: Mapping[str, Any]) -> dict[str, bytes]:
    """JSON texts of values. A `null` stays in: over an older text it says that there is nothing now."""
    return {
        name: value_text({} if name == "metadata" and value is None else value, name) for name, value in values.items()
    }


def _run_id(text: str) -> str:
    found = run_id_spelt(text)
    if found is None:
        raise InvalidInput("source_run_id is a UUID.", fields=("source_run_id",))
    return found


def _written(dataset: Dataset, write: _Write) -> Item:
    """The item that a write makes current."""
    files = [ItemAttachment(each.name, each.mime_type, len(each.data)) for each in write.attachments]
    return item_of(dataset.uuid, write.version, files)
