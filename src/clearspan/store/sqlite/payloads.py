"""The wire records of spans inside SQL: what the functions `span_part` and `span_entries` of compiled filters read."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import orjson

from clearspan.ingest.payload import Block, BlockRecord, decode_block, record_bytes
from clearspan.store.span_payload import entries_of, part_of
from clearspan.store.sqlite.rows import block_range


class SpanPayloads:
    """Records read for one query, inside its snapshot. Spans of one block come one after the other: it is kept."""

    def __init__(self, conn: apsw.Connection, check: Callable[[], None]) -> None:
        self._conn = conn
        self._check = check
        self._block_id = -1
        self._block = Block([], [])
        self._records: dict[str | int, BlockRecord] = {}

    def part(self, trace_pk: int, span_id: str, block_no: int, what: str) -> str | None:
        """See compile_span."""
        return part_of(self._record(trace_pk, span_id, block_no), what)

    def entries(self, trace_pk: int, span_id: str, block_no: int, what: str) -> str:
        """See compile_span."""
        return orjson.dumps(entries_of(self._record(trace_pk, span_id, block_no), what)).decode()

    def _record(self, trace_pk: int, span_id: str, block_no: int) -> bytes:
        block_id = block_range(trace_pk)[0] + block_no
        if block_id != self._block_id:
            self._check()
            data = self._conn.execute("SELECT data FROM block WHERE block_id = ?", (block_id,)).get
            self._block = decode_block(data)
            self._records = {record.id: record for record in self._block.records}
            self._block_id = block_id
        return record_bytes(self._block, self._records[span_id])
