"""A small world for tests of deletions: a store, a Catalog and a clock that outlive the Deleters that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearspan.catalog.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.holds import HoldRequest, Holds
from clearspan.deletion.job import DeletionCatalog, DeletionJob
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.request import ByAnnotations, ByFilter, ByIds, DeletionRequest
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import BY_NAME
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationQuery
from clearspan.store.memory import MemoryStore
from clearspan.testing.build import T0_NS, make_trace, with_metadata
from clearspan.testing.catalog import FakeCatalog
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.stores import TOMBSTONE_SECRET, visible

SECRET = b"k" * 32
SCOPE = Scope((1,))
DAY = Window(T0_NS - 10**13, T0_NS + 10**14)
ANNA = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, ("anna",))
BERT = Condition(BY_NAME["customer_identifier"], Operator.EQUALS, ("bert",))


@dataclass
class World:
    """What survives the processes of a test."""

    store: MemoryStore
    catalog: DeletionCatalog
    clock: FixedClock
    ids: CountingIds
    real: Catalog | None = None

    def deleter(self, **options: Any) -> Deleter:
        return Deleter(self.store, self.catalog, self.clock, self.ids, secret=SECRET, **{"rows_max": 10, **options})

    def restarted(self) -> Deleter:
        """A new process: the Catalog's records of leases are made anew, nothing in memory is left."""
        if self.real is not None:
            self.catalog = CatalogRecords(self.real, self.clock, self.ids)
        deleter = self.deleter()
        self.holds(deleter).reconcile()
        deleter.resume()
        return deleter

    def holds(self, deleter: Deleter) -> Holds:
        return Holds(self.store, self.catalog, deleter, self.clock, self.ids)

    def ids_left(self) -> set[str]:
        """Trace ids that reads show."""
        return {trace_id for _, trace_id in visible(self.store, [1])}

    def job(self, deletion_id: str) -> DeletionJob:
        found = self.catalog.get_deletion(deletion_id)
        assert found is not None
        return found

    def moves(self, deletion_id: str) -> list[str]:
        """The states that the ledger says a deletion went through."""
        if self.real is not None:
            entries = self.real.ledger(deletion_id=deletion_id)
            return [entry.body["after"] for entry in entries if entry.kind == "deletion"]
        assert isinstance(self.catalog, FakeCatalog)
        return [row.after.value for row in self.catalog.ledger if row.deletion_id == deletion_id]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the ledger's audit rows of one kind."""
        if self.real is not None:
            return [entry.body for entry in self.real.ledger() if entry.kind == kind]
        assert isinstance(self.catalog, FakeCatalog)
        return [dict(row.body) for row in self.catalog.events if row.kind == kind]


@contextmanager
def open_world(folder: Path, *, real: bool, traces: int = 8) -> Iterator[World]:
    """Traces t0, t1 … of the customer anna in project 1, of four spans each; a plain Catalog or a real one."""
    clock, ids = FixedClock(), CountingIds()
    store = MemoryStore(TOMBSTONE_SECRET)
    context = with_metadata({"k": "v"}, customer_identifier="anna")
    for n in range(traces):
        store.write([make_trace(f"t{n}", span_count=4, context=context)], received_ns=clock.now_ns())
    clock.advance(60)
    if not real:
        yield World(store, FakeCatalog(clock), clock, ids)
        return
    lay_catalog(folder)
    with Catalog.open(folder, clock=clock, ids=ids) as catalog:
        yield World(store, CatalogRecords(catalog, clock, ids), clock, ids, catalog)


def by_ids(*trace_ids: str, **fields: Any) -> DeletionRequest:
    return DeletionRequest(1, "key_1", "native", SCOPE, ByIds(trace_ids), **fields)


def by_annotations(**fields: Any) -> DeletionRequest:
    """Fields of AnnotationQuery, and of DeletionRequest."""
    said = {name: fields.pop(name) for name in AnnotationQuery._fields if name in fields}
    return DeletionRequest(1, "key_1", "native", SCOPE, ByAnnotations(AnnotationQuery(**said)), **fields)


def by_filter(where: Expr, **fields: Any) -> DeletionRequest:
    return DeletionRequest(1, "key_1", "respan", SCOPE, ByFilter(where), **{"window": DAY, **fields})


def ids_in(*trace_ids: str) -> Condition:
    return Condition(BY_NAME["trace_unique_id"], Operator.IN, trace_ids)


def hold_on(*trace_ids: str, **fields: Any) -> HoldRequest:
    return HoldRequest(1, "key_2", SCOPE, ByIds(trace_ids), **fields)
