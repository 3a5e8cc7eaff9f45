"""Collects the rows of one request and hands them on as one or more TraceBatch per trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from clearspan.ingest.merge import wins
from clearspan.ingest.payload import Shared, pack_block
from clearspan.model.span import LogRecord, Span, SpanContext, TraceBatch

BATCH_RECORDS_MAX: Final = 256
BATCH_BYTES_MAX: Final = 64 * 1024
"""Of raw records: a block is unpacked whole to read one span, so it must not grow with the trace; and it has one
text signature, which tells the less the more text it stands for."""


class DecodedRequest(NamedTuple):
    """What one ingest request became."""

    batches: list[TraceBatch]
    span_count: int  # accepted, repeats within the request included
    log_count: int  # accepted; log records outside any trace are neither accepted nor rejected
    rejected_count: int  # spans or log records
    reasons: tuple[str, ...]  # distinct, the first few: "span 01ab…: more than 10000 attributes"


_Entry = tuple[Span | LogRecord, str | int, int, Shared, bytes]
"""Row, record id, codec, shared part, raw record: a plain tuple, for one is made for every span."""


class Collector:
    """Gathers accepted records and rejections of one request."""

    def __init__(self, project_id: int, reasons_max: int) -> None:
        self._project_id = project_id
        self._reasons_max = reasons_max
        self._traces: dict[str, dict[str | int, _Entry]] = {}
        self._reasons: dict[str, None] = {}
        self._span_count = 0
        self._log_count = 0
        self._rejected_count = 0

    def add_span(self, trace_id: str, span: Span, codec: int, shared: Shared, raw: bytes) -> None:
        """Accepts a span; of two under one id the winner of the merge law stays."""
        self._span_count += 1
        entries = self._traces.get(trace_id)
        if entries is None:
            entries = self._traces[trace_id] = {}
        span_id = span.span_id
        old = entries.get(span_id)
        if old is None or wins(span, old[0]):  # type: ignore[arg-type]
            entries[span_id] = (span, span_id, codec, shared, raw)

    def add_log(self, trace_id: str, log: LogRecord, codec: int, shared: Shared, raw: bytes) -> None:
        """Accepts a log record; equal ones are one."""
        self._log_count += 1
        self._traces.setdefault(trace_id, {})[log.log_hash] = (log, log.log_hash, codec, shared, raw)

    def reject(self, reason: str, count: int = 1) -> None:
        """Counts records that are not stored, and says why for the first few reasons."""
        self._rejected_count += count
        if len(self._reasons) < self._reasons_max:
            self._reasons.setdefault(reason)

    def finish(self, contexts: Mapping[int, SpanContext]) -> DecodedRequest:
        """The request as batches; `contexts` holds every context the rows name."""
        batches = [
            self._batch(trace_id, part, contexts)
            for trace_id, entries in self._traces.items()
            for part in _parts(entries)
        ]
        return DecodedRequest(batches, self._span_count, self._log_count, self._rejected_count, tuple(self._reasons))

    def _batch(self, trace_id: str, entries: Sequence[_Entry], contexts: Mapping[int, SpanContext]) -> TraceBatch:
        indexes: dict[Shared, int] = {}
        records: list[tuple[int, int, str | int, bytes]] = []  # of BlockRecord's fields: msgpack knows no difference
        rows: list[Any] = []
        has_logs = False
        for row, record_id, codec, shared, raw in entries:
            index = indexes.get(shared)
            if index is None:
                index = indexes[shared] = len(indexes)
            records.append((codec, index, record_id, raw))
            rows.append(row)
            has_logs = has_logs or type(record_id) is int
        return TraceBatch(
            project_id=self._project_id,
            trace_id=trace_id,
            spans=tuple([row for row in rows if isinstance(row, Span)] if has_logs else rows),
            logs=tuple([row for row in rows if isinstance(row, LogRecord)]) if has_logs else (),
            contexts={key: contexts[key] for key in {row.context_key for row in rows}},
            block=pack_block(records, indexes),
        )


def _parts(entries: Mapping[str | int, _Entry]) -> Iterator[list[_Entry]]:
    """Splits the records of one trace at BATCH_RECORDS_MAX or BATCH_BYTES_MAX, whichever comes first."""
    if len(entries) <= BATCH_RECORDS_MAX:
        whole = list(entries.values())
        if sum([len(entry[4]) for entry in whole]) <= BATCH_BYTES_MAX:
            yield whole
            return
    part: list[_Entry] = []
    size = 0
    for entry in entries.values():
        length = len(entry[4])
        if part and (len(part) == BATCH_RECORDS_MAX or size + length > BATCH_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part
