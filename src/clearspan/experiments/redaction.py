"""Empty items in place of those whose content a deletion took (deletion/redaction.py says when and why)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final
from uuid import UUID, uuid5

from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.deletion.redaction import Placeholder
from clearspan.experiments.item_documents import Version, version_operation, whole_microseconds
from clearspan.experiments.item_reading import ItemReader
from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs
from clearspan.ingest.limits import DEFAULT_LIMITS
from clearspan.model.clock import Clock
from clearspan.model.span import TraceBatch
from clearspan.store.port import TraceReader, WriteOutcome

AT_ONCE: Final = 200
"""Empty items of one transaction."""
_EMPTY: Final = {"inputs": b"{}", "metadata": b"{}"}


class ItemRedactor:
    """deletion.redaction.Redactor over the store; safe from any thread, and safe to repeat."""

    def __init__(
        self,
        reader: TraceReader,
        write: Callable[[Sequence[TraceBatch]], list[WriteOutcome]],
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        """
        Args:
            write: stores batches durably; blocks.
        """
        self._items = ItemReader(reader, catalog)
        self._write = write
        self._catalog = catalog
        self._clock = clock

    def __call__(self, owed: Sequence[Placeholder]) -> None:
        """Write an empty item for each that reads do not show any more: neither itself nor an empty one.

        Those of a dataset that is being removed, or gone, are not written.
        Raises:
            Overloaded: the store cannot take it now; some may be written.
        """
        datasets = self._catalog.datasets.of_projects([each.project_id for each in owed])
        for project_id, group in groupby(sorted(owed), key=lambda each: each.project_id):
            dataset = datasets.get(project_id)
            if dataset is not None:
                self._redact(dataset, [each.item_id for each in group])

    def _redact(self, dataset: Dataset, item_ids: Sequence[str]) -> None:
        for part in _parts(item_ids):
            there = set(self._items.list_ids(dataset, ids=part, limit=len(part)))
            missing = [item_id for item_id in part if item_id not in there]
            if missing:
                now_ns = whole_microseconds(self._clock.now_ns())
                operations = [version_operation(empty_version(item_id, now_ns)) for item_id in missing]
                decoded = decode_runs(operations, RunSource(self._clock.now_ns(), None, None, DEFAULT_LIMITS))
                assert not decoded.rejected, "an empty item can be stored"
                # A tombstone refuses one that somebody deleted since: then nothing is to stand there.
                self._write(batch_runs(dataset.project_id, decoded.runs, None, DEFAULT_LIMITS).batches)
        self._catalog.datasets.touch(dataset.org_id, dataset.uuid)


def empty_version(item_id: str, at_ns: int) -> Version:
    """The version that stands for an item whose content was erased: under an id that follows from the item's, so that
    there is one however often it is written. Nothing in it comes from the item but its id."""
    trace_id = uuid5(UUID(item_id), "redacted").hex
    return Version(item_id, trace_id, _EMPTY, (), None, at_ns, at_ns, redacted=True)


def _parts(item_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(item_ids), AT_ONCE):
        yield item_ids[start : start + AT_ONCE]
