"""A small world for tests of copies: datasets, items, judges and results over either store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from clearspan.catalog import Catalog, DatasetSettings, ProjectSettings, SourcePolicy
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.execute import Deleter
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.deletion.result import DeletionResult
from clearspan.experiments.items import ItemChange, Items, NewItem
from clearspan.experiments.redaction import ItemRedactor
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope
from clearspan.proof.receipt import check_receipt
from clearspan.store.memory import MemoryStore
from clearspan.store.port import TraceWriter, WriteOutcome
from clearspan.testing.build import T0_NS, make_batch, make_span, with_metadata
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import Stores

P = ParamSpec("P")
T = TypeVar("T")

APP = 1
"""The project that sources lie in."""
WORD = "word-that-nobody-else-says"
_PROOF = b"s" * 32


class _Straight:
    """A gateway and threads without any of their own."""

    def __init__(self, writer: TraceWriter, clock: FixedClock) -> None:
        self._writer = writer
        self._clock = clock

    def submit_now(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        return self._writer.write(batches, received_ns=self._clock.now_ns())

    async def submit(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        return self.submit_now(batches)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)


@dataclass
class DatasetWorld:
    """A store with a Catalog, and the Deleters that come and go."""

    catalog: Catalog
    stores: Stores
    clock: FixedClock
    ids: CountingIds
    data: Path
    deleter: Deleter | None = None

    @property
    def items(self) -> Items:
        """The items of its datasets."""
        straight = _Straight(self.stores.writer, self.clock)
        return Items(self.stores.reader, straight, self.catalog, self.clock, self.ids, None, straight)

    def start(self, *, redacts: bool = True) -> Deleter:
        """A new process: what was leased is taken over, nothing in memory is left."""
        records = CatalogRecords(self.catalog, self.clock, self.ids)
        made = Deleter(self.stores.deletions, records, self.clock, self.ids, secret=_PROOF, rows_max=3)
        if redacts:
            write = _Straight(self.stores.writer, self.clock).submit_now
            made.redact_with(ItemRedactor(self.stores.reader, write, self.catalog, self.clock))
        made.resume()
        self.deleter = made
        return made

    def dataset(self, name: str, policy: SourcePolicy) -> Dataset:
        """A new dataset."""
        org_id = self.catalog.first_org.id
        return self.catalog.datasets.create(org_id, name, settings=DatasetSettings(on_source_deleted=policy))

    def add(self, dataset: Dataset, source: str | None, *, versions: int = 1, said: str = WORD) -> str:
        """An item, changed as often as it takes to have so many versions."""
        new = NewItem({"q": said}, {"a": said}, {"k": said}, source_run_id=source)
        [item] = asyncio.run(self.items.add("key_1", dataset, [new]))
        for n in range(1, versions):
            asyncio.run(self.items.update(dataset, [ItemChange(item.id, inputs={"q": said, "n": n})]))
        return item.id

    def trace(self, trace_id: str, project_id: int = APP, **pairs: str) -> None:
        """Write a trace of one span with these pairs of metadata."""
        span = make_span(trace_id, context=with_metadata(pairs))
        self.stores.writer.write([make_batch(trace_id, [span], project_id=project_id)], received_ns=T0_NS)

    def experiment(self, dataset: Dataset) -> int:
        """The project of a new experiment."""
        settings = ProjectSettings(reference_dataset_id=dataset.uuid)
        return self.catalog.create_project(self.catalog.first_org.id, f"run of {dataset.name}", settings=settings).id

    def request(self, *trace_ids: str, **more: Any) -> DeletionRequest:
        """For traces of the first project, and copies everywhere, unless `more` says something else."""
        reach = Scope(CatalogRecords(self.catalog, self.clock, self.ids).project_ids(1))
        return replace(DeletionRequest(1, "key_1", "native", Scope((APP,)), ByIds(trace_ids), reach=reach), **more)

    def delete(self, *trace_ids: str, **more: Any) -> DeletionResult:
        """Delete traces of the first project, and wait for the proof."""
        return (self.deleter or self.start()).delete(self.request(*trace_ids, **more))

    def left(self, dataset: Dataset) -> dict[str, bool]:
        """Current items → whether they are redacted."""
        return {item.id: item.redacted for item in self.items.list(dataset).items}

    def conditions(self, deletion_id: str) -> list[str]:
        """What the receipt says of the deletion's scope."""
        jws = self.catalog.receipt(deletion_id)
        assert jws is not None
        found = check_receipt(jws, [each.key for each in self.catalog.signing_keys()])
        assert found.ok, found.checks
        assert found.payload is not None
        told: list[str] = found.payload["scope"]["conditions"]
        return told

    def bytes_left(self) -> bytes:
        """All files of the trace store."""
        return b"".join(path.read_bytes() for path in sorted(self.data.iterdir()) if path.name.startswith("traces.db"))


@contextmanager
def open_dataset_world(kind: str, folder: Path) -> Iterator[DatasetWorld]:
    """Over a store of this kind (`memory`, `sqlite`)."""
    clock, ids = FixedClock(), CountingIds()
    with ExitStack() as stack:
        lay_catalog(folder)
        catalog = stack.enter_context(Catalog.open(folder, clock=clock, ids=ids))
        if kind == "memory":
            stores = Stores.of_memory(MemoryStore(catalog.tombstone_secret))
        else:
            stores = Stores.of_sqlite(open_local_store(folder, catalog.tombstone_secret))
        stack.callback(stores.close)
        yield DatasetWorld(catalog, stores, clock, ids, folder)
