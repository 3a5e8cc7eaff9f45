"""Taking a key out of the metadata of runs that stay: what it said is gone from every place that held it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw
import orjson

from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, BlockRecord, decode_block, pack_block
from clearspan.ingest.run_document import without_metadata
from clearspan.ingest.run_promotion import promote_run
from clearspan.store.port import METADATA_TRACES_MAX, PlannedTrace
from clearspan.store.sqlite import holds
from clearspan.store.sqlite.span_cutting import index_anew, live_blocks, read_blocks, replace_blocks, row_at
from clearspan.store.sqlite.writer import StoredTrace, Writer, load_narrow


class MetadataCalls:
    """Mixed into process.Service, which sets these."""

    conn: apsw.Connection
    _writer: Writer

    if TYPE_CHECKING:
        _owes_empty_log: bool

    def purge_metadata(self, traces: Sequence[PlannedTrace], key: str) -> int:
        """See port.DeletionStore.purge_metadata. Cost: some 0.3 ms a trace of one run."""
        assert len(traces) <= METADATA_TRACES_MAX, "the caller bounds it"
        with self.conn:
            changed = purge_metadata(self._writer, traces, key)
        if changed:
            self._owes_empty_log = True
            if self._writer.touched is not None:  # a hide in the making judges them again
                self._writer.touched.update(changed)
        return len(changed)


def purge_metadata(writer: Writer, traces: Sequence[PlannedTrace], key: str) -> set[int]:
    """The trace_pks of those that were changed; in an open transaction of the writer's connection."""
    conn = writer.conn
    pks = [trace.trace_pk for trace in traces]
    left = holds.kept(conn, holds.rows(conn), pks) | {
        pk
        for (pk,) in conn.execute(
            "SELECT trace_pk FROM hidden WHERE trace_pk IN (SELECT value FROM json_each(?))",
            (orjson.dumps(pks).decode(),),
        )
    }
    work = [
        done
        for pk in sorted(set(pks) - left)
        if (row := row_at(conn, pk)) is not None and (done := _without(writer, load_narrow(conn, row), key)) is not None
    ]
    index_anew(conn, work)
    writer.store([trace for trace, _ in work])
    return {trace.trace_pk for trace, _ in work}


def _without(writer: Writer, trace: StoredTrace, key: str) -> tuple[StoredTrace, dict[int, bytes]] | None:
    """A trace with new records in place of those that had the key, and the blocks that it had; None if none had."""
    packed = read_blocks(writer.conn, trace)
    changed: dict[int, bytes] = {}
    for block_no in live_blocks(trace):
        block = decode_block(packed[block_no])
        records = [_record_without(writer, trace, block_no, record, key) for record in block.records]
        if any(new is not old for new, old in zip(records, block.records, strict=True)):
            changed[block_no] = pack_block(records, block.shared)
    if not changed:
        return None
    replace_blocks(writer.conn, trace, changed)
    return trace, packed


def _record_without(writer: Writer, trace: StoredTrace, block_no: int, record: BlockRecord, key: str) -> BlockRecord:
    if record.codec != CODEC_LANGSMITH_RUN:
        return record
    raw = without_metadata(record.raw, key)
    if raw == record.raw:
        return record
    span_id = str(record.id)
    if trace.spans[span_id][1] == block_no:  # not a copy that a later one has superseded
        span, context = promote_run(raw, writer.prices)
        trace.spans[span_id] = (span, block_no)
        trace.contexts[span.context_key] = context
        trace.dirty_spans.add(span_id)
    return record._replace(raw=raw)
