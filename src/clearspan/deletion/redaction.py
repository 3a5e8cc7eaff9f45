"""Items of datasets that are replaced by empty ones when the trace that they were made from is deleted.

Which ones is frozen with the plan and stored with the request, in the transaction that hides; so it outlives any crash,
and goes with the request. The empty items are written after the purge and before the request is erased: a deletion
cannot end before they are there, and one that is cancelled never writes any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from clearspan.deletion.linked import VERSION_KEYS
from clearspan.store.port import SUMMARIES_MAX, DeletionStore, PlannedTrace, TraceRow

PLACEHOLDER_KEY: Final = "dataset_item_redacted"
"""Metadata key that an empty item carries, as experiments/item_documents.py writes it."""


class RedactedVersion(NamedTuple):
    """A version of an item that a deletion takes, and the item that is to hold its place."""

    project_id: int
    trace_id: str
    item_id: str


class Placeholder(NamedTuple):
    """An empty item to be written, unless reads show the item still."""

    project_id: int
    item_id: str


Redactor = Callable[[Sequence[Placeholder]], None]
"""Writes empty items, durably; called from a thread of the Deleter's, again after a crash or a failure."""


def versions_of(store: DeletionStore, traces: Sequence[PlannedTrace]) -> tuple[RedactedVersion, ...]:
    """Which items planned traces are versions of. Cost: one read for SUMMARIES_MAX of them."""
    return tuple(_versions(store, traces))


def _versions(store: DeletionStore, traces: Sequence[PlannedTrace]) -> Iterator[RedactedVersion]:
    [key] = VERSION_KEYS
    for row in _rows(store, traces):
        item_id = dict(row.summary.metadata).get(key)
        if item_id is not None:
            yield RedactedVersion(row.project_id, row.summary.trace_id, item_id)


def _rows(store: DeletionStore, traces: Sequence[PlannedTrace]) -> Iterator[TraceRow]:
    for start in range(0, len(traces), SUMMARIES_MAX):
        yield from store.summaries([trace.trace_pk for trace in traces[start : start + SUMMARIES_MAX]])


def empty_items(store: DeletionStore, traces: Sequence[PlannedTrace]) -> set[int]:
    """The trace_pks of those of some visible versions that are empty items. Cost: as `versions_of`."""
    return {row.trace_pk for row in _rows(store, traces) if PLACEHOLDER_KEY in dict(row.summary.metadata)}


def items_of(versions: Iterable[RedactedVersion]) -> list[Placeholder]:
    """The items, each once."""
    return sorted({Placeholder(each.project_id, each.item_id) for each in versions})


def plain_versions(versions: Iterable[RedactedVersion]) -> list[list[Any]]:
    """As JSON values: personal data, kept with the request."""
    return [list(each) for each in versions]


def parse_versions(plain: Iterable[Sequence[Any]]) -> tuple[RedactedVersion, ...]:
    """What `plain_versions` was given."""
    return tuple([RedactedVersion._make(each) for each in plain])


def placeholders_of(request: bytes | None, taken: Callable[[], Iterable[PlannedTrace]]) -> list[Placeholder]:
    """The empty items that a deletion owes.

    Args:
        request: as the store keeps it of the deletion (Plan.private_bytes).
        taken: the traces that this deletion purged; asked only when it may owe some. Its remainder, which holds keep,
            owes its own.
    """
    versions = parse_versions(orjson.loads(request).get("redacted", ())) if request else ()
    if not versions:
        return []
    gone = {(trace.project_id, trace.trace_id) for trace in taken()}
    return items_of(each for each in versions if (each.project_id, each.trace_id) in gone)
