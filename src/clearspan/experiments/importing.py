"""Items from traces: what went into a trace's root and what came out, and the link by which deletions find the copy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_documents import SOURCE_KEY, NewItem
from clearspan.experiments.items import OLDEST_FIRST, Items
from clearspan.ingest.detail import input_output
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, decode_record
from clearspan.ingest.run_document import run_fields
from clearspan.model.errors import InvalidInput
from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope, TraceSummary, Window
from clearspan.model.usage import usd_from_pico
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import METADATA, field_named
from clearspan.query.operators import Operator
from clearspan.query.page import PAGE_SIZE_MAX, OffsetPage
from clearspan.store.port import TraceReader, TraceRow

IMPORT_TRACES_MAX: Final = 10_000
"""Traces that one import may take: it is answered when all are stored."""
_AT_ONCE: Final = 50
_HUNDRED: Final = 100
_JSON_BEGINS: Final = ("{", "[")
_NULL: Final = msgspec.Raw(b"null")


class Selected(NamedTuple):
    """Which traces become items: those of these ids, or those that a filter matches within a window."""

    scope: Scope
    trace_ids: Sequence[str] | None = None
    where: Expr | None = None
    window: Window = Window()
    percent: int = _HUNDRED  # of them; the same ones whenever it is asked again


class Imported(NamedTuple):
    """What became of the traces that were selected; the last five add up to `matched`."""

    matched: int
    added: tuple[str, ...]  # ids of the new items
    known: int  # the dataset has an item of them already
    left_out: int  # by the percentage
    unfit: int  # without a root, with values that cannot be stored or do not fit the dataset's schema
    deleted: int  # deleted meanwhile
    reason: str | None = None  # why the first of the unfit is


async def items_from_traces(
    items: Items, reader: TraceReader, dataset: Dataset, selected: Selected, *, principal_key: str | None
) -> Imported:
    """Add an item for each selected trace that the dataset has none of: `inputs` and `outputs` (the reference) are what
    went into its root and came out, with its metadata, in the text it was sent in. `metrics` is what the trace took.

    A repeat adds nothing. A trace that is deleted meanwhile takes its item with it.

    Raises:
        InvalidInput: more than IMPORT_TRACES_MAX traces are selected (`too_many_traces`); nothing was stored.
    Cost: as reading the roots and writing the items, _AT_ONCE a transaction.
    """
    rows = await items.threads.run(_rows_of, reader, selected)
    sample = [row for row in rows if _is_drawn(dataset.uuid, row.summary.trace_id, selected.percent)]
    added: list[str] = []
    known = unfit = deleted = 0
    reason: str | None = None
    seen: set[str] = set()
    for start in range(0, len(sample), _AT_ONCE):
        part = sample[start : start + _AT_ONCE]
        new, has = await items.threads.run(_read, items, reader, dataset, part, seen)
        known += has
        unfit += len(part) - has - len(new)
        for group in await _added(items, dataset, new, principal_key):
            if isinstance(group, InvalidInput):
                unfit, reason = unfit + 1, reason or group.message
                continue
            gone = await items.threads.run(_gone, reader, selected.scope, part, group)
            if gone:
                await items.take_back(dataset, gone)
            deleted += len(gone)
            added += [item_id for item_id, _ in group if item_id not in gone]
    unfit_reason = reason or ("It has no root span." if unfit else None)
    return Imported(len(rows), tuple(added), known, len(rows) - len(sample), unfit, deleted, unfit_reason)


def span_values(record: bytes, logs: Sequence[bytes] = ()) -> tuple[Any, Any]:
    """What went into a span and what came out, for a NewItem: a run's in its own JSON text; of other spans objects and
    lists are JSON, anything else is text."""
    wire = decode_record(record)
    if wire.codec == CODEC_LANGSMITH_RUN:
        fields = run_fields(wire.raw)
        return fields.get("inputs", _NULL), fields.get("outputs", _NULL)
    given_in, given_out = input_output(record, logs)
    return _json_or_text(given_in), _json_or_text(given_out)


def _rows_of(reader: TraceReader, selected: Selected) -> list[TraceRow]:
    where = selected.where
    if selected.trace_ids is not None:
        where = Condition(field_named("trace_unique_id"), Operator.IN, tuple(selected.trace_ids))
    total = reader.count_traces(selected.scope, where, selected.window)
    if total > IMPORT_TRACES_MAX:
        text = f"{total} traces match, and one import takes at most {IMPORT_TRACES_MAX}; nothing was imported."
        raise InvalidInput(text, code="too_many_traces")
    rows: list[TraceRow] = []
    for page in range(1, -(-IMPORT_TRACES_MAX // PAGE_SIZE_MAX) + 1):
        found = reader.list_traces(
            selected.scope, where, selected.window, OLDEST_FIRST, OffsetPage(page, PAGE_SIZE_MAX)
        ).rows
        rows += found
        if len(found) < PAGE_SIZE_MAX:
            break
    return rows


def _read(
    items: Items, reader: TraceReader, dataset: Dataset, rows: Sequence[TraceRow], seen: set[str]
) -> tuple[list[NewItem], int]:
    """(new items, how many of the traces the dataset has already). Traces without a root are in neither."""
    run_ids = {row.trace_pk: _run_id(row) for row in rows}
    seen |= _sources(items, reader, dataset, [each for each in run_ids.values() if each is not None])
    records = reader.root_records(rows)
    new: list[NewItem] = []
    known = 0
    for row in rows:
        run_id = run_ids[row.trace_pk]
        record, logs = records.get(row.trace_pk, (None, []))
        if run_id is None or record is None:
            continue
        if run_id in seen:
            known += 1
            continue
        seen.add(run_id)
        inputs, outputs = span_values(record, logs)
        metadata = {key: value for key, value in row.summary.metadata if not key.startswith("_")}
        new.append(NewItem(inputs, outputs, metadata, source_run_id=run_id, metrics=_metrics(row.summary)))
    return new, known


def _sources(items: Items, reader: TraceReader, dataset: Dataset, run_ids: Sequence[str]) -> set[str]:
    """Which of these runs the dataset has items of."""
    if not run_ids:
        return set()
    where = Condition(METADATA, Operator.IN, tuple(run_ids), SOURCE_KEY)
    found: set[str] = set()
    for page in range(1, len(run_ids) + 2):
        rows = reader.list_traces(
            items.scope_of(dataset), where, Window(), OLDEST_FIRST, OffsetPage(page, PAGE_SIZE_MAX)
        ).rows
        found |= {source for row in rows if (source := dict(row.summary.metadata).get(SOURCE_KEY)) is not None}
        if len(rows) < PAGE_SIZE_MAX:
            break
    return found


async def _added(
    items: Items, dataset: Dataset, new: Sequence[NewItem], key: str | None
) -> list[list[tuple[str, str]] | InvalidInput]:
    """Groups of (item id, source run id) as they were stored: all at once, or one by one where some do not fit."""
    if not new:
        return []
    try:
        return [[(item.id, str(item.source_run_id)) for item in await items.add(key, dataset, new)]]
    except InvalidInput as error:
        if len(new) == 1:
            return [error]
    out: list[list[tuple[str, str]] | InvalidInput] = []
    for each in new:
        out += await _added(items, dataset, [each], key)
    return out


def _gone(reader: TraceReader, scope: Scope, rows: Sequence[TraceRow], group: Sequence[tuple[str, str]]) -> list[str]:
    """Items whose trace, or whose root, is not to be seen any more: what was copied of it must not outlive it."""
    where = Condition(field_named("trace_unique_id"), Operator.IN, tuple([row.summary.trace_id for row in rows]))
    there: Mapping[int, TraceRow] = {
        row.trace_pk: row
        for row in reader.list_traces(scope, where, Window(), OLDEST_FIRST, OffsetPage(1, PAGE_SIZE_MAX)).rows
    }
    missing = {_run_id(row) for row in rows if not _has_root(reader, row, there.get(row.trace_pk))}
    return [item_id for item_id, source in group if source in missing]


def _has_root(reader: TraceReader, row: TraceRow, now: TraceRow | None) -> bool:
    """Whether the span that was the root of a trace is there, even if another one is the root now."""
    if now is None or now.summary.root_span_id == row.summary.root_span_id:
        return now is not None
    found = reader.get_trace(Scope((row.project_id,)), row.summary.trace_id)
    return found is not None and any(each.span.span_id == row.summary.root_span_id for each in found.spans)


def _run_id(row: TraceRow) -> str | None:
    root = row.summary.root_span_id
    return None if root is None else run_id_of(row.summary.trace_id, root, True)


def _metrics(summary: TraceSummary) -> dict[str, Any] | None:
    """What the trace cost and took; what is not known is left out."""
    known = {
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.total_tokens,
        "cost": usd_from_pico(summary.cost_pico),
        "latency": summary.duration_ns / 1e9,
        "model": summary.model,
    }
    return {name: value for name, value in known.items() if value is not None}


def _is_drawn(salt: str, trace_id: str, percent: int) -> bool:
    if percent >= _HUNDRED:
        return True
    digest = hashlib.sha256(f"{salt}\0{trace_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % _HUNDRED < percent


def _json_or_text(text: str | None) -> Any:
    if text is None or not text.startswith(_JSON_BEGINS):
        return text
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return msgspec.Raw(text.encode())
