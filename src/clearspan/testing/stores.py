"""A store under test as one value, and everything a reader can see in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, cast

from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationReader, AnnotationWriter
from clearspan.store.memory import MemoryStore
from clearspan.store.port import DeletionStore, LogDetail, SpanDetail, TraceReader, TraceWriter
from clearspan.store.spans import SpanReader
from clearspan.store.sqlite.open import SqliteStore
from clearspan.store.transfer import TransferStore
from clearspan.testing.local_store import LocalTraceWriter

TOMBSTONE_SECRET = b"the tombstone secret of tests..."


class Stores(NamedTuple):
    """The sides of one store."""

    writer: TraceWriter
    reader: TraceReader
    deletions: DeletionStore
    annotating: AnnotationWriter
    annotations: AnnotationReader
    transfers: TransferStore
    close: Callable[[], None] = lambda: None

    @property
    def spans(self) -> SpanReader:
        """The reader, as far as it reads spans by themselves."""
        return cast("SpanReader", self.reader)

    @classmethod
    def of_memory(cls, store: MemoryStore) -> Self:
        """Of the store that is everything in one."""
        return cls(store, store, store, store, store, store)

    @classmethod
    def of_sqlite(cls, store: SqliteStore) -> Self:
        """Of an embedded store that runs in this process."""
        writer = LocalTraceWriter(store.writer)  # type: ignore[arg-type]
        return cls(writer, store.reader, store.deletions, store.annotations, store.reader, store.transfers, store.close)


class Seen(NamedTuple):
    """All that reads return of one trace, but for the store's own handle."""

    received_ns: int
    summary: TraceSummary
    spans: list[SpanDetail]
    logs: list[LogDetail]


def listed(summary: TraceSummary) -> TraceSummary:
    """A summary as list rows have it: they may leave `metadata_all` out."""
    return summary._replace(metadata_all=())


def visible(reader: TraceReader, project_ids: Sequence[int]) -> dict[tuple[int, str], Seen]:
    """(project_id, trace_id) → everything that lists and details show of it; lists and details must agree."""
    found: dict[tuple[int, str], Seen] = {}
    for project_id in project_ids:
        scope = Scope((project_id,))
        page = 1
        while rows := reader.list_traces(scope, None, Window(), NEWEST_FIRST, OffsetPage(page, 1000)).rows:
            for row in rows:
                detail = reader.get_trace(scope, row.summary.trace_id)
                assert detail is not None, "a listed trace can be opened"
                assert listed(detail.row.summary) == listed(row.summary), "list and detail tell the same"
                found[project_id, row.summary.trace_id] = Seen(
                    row.received_ns, detail.row.summary, detail.spans, detail.logs
                )
            page += 1
    return found
