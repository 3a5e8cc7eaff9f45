"""Spans by (trace_pk, span_id), with their traces, contexts and wire records: what lists of spans return."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import apsw
import orjson

from clearspan.ingest.payload import decode_block, record_bytes
from clearspan.model.span import SpanContext
from clearspan.store.port import SpanDetail, TraceRow
from clearspan.store.spans import SpanRow
from clearspan.store.sqlite.rows import SPAN_COLUMNS, TRACE_COLUMNS, block_range, context_of, span_of, trace_row

_KEYS = "SELECT value ->> 0 AS pk, value ->> 1 AS id FROM json_each(?)"
_SPAN = ", ".join(f"s.{name}" for name in SPAN_COLUMNS.split(", "))


def span_rows(conn: apsw.Connection, keys: Sequence[tuple[int, str]], *, records: bool) -> list[SpanRow]:
    """The spans of some keys, all of which are there, in their order; `record` is b"" unless `records`.

    Cost: some lookups a span; each block that holds one of the records is unpacked once.
    """
    traces = _traces(conn, {pk for pk, _ in keys})
    details: dict[tuple[int, str], tuple[SpanDetail, int]] = {}
    contexts: dict[tuple[int, int], SpanContext] = {}
    for pk, block_no, body, *columns in conn.execute(
        f"SELECT k.pk, s.block_no, c.body, {_SPAN} FROM ({_KEYS}) k "
        "CROSS JOIN span s ON s.trace_pk = k.pk AND s.span_id = k.id "
        "CROSS JOIN context c ON c.trace_pk = s.trace_pk AND c.context_key = s.context_key",
        (orjson.dumps(keys).decode(),),
    ):
        span = span_of(columns)
        context = contexts.get((pk, span.context_key))
        if context is None:
            context = contexts[pk, span.context_key] = context_of(body)
        details[pk, span.span_id] = SpanDetail(span, context, b""), block_no
    held = _records(conn, {key: block_no for key, (_, block_no) in details.items()}) if records else {}
    return [SpanRow(traces[key[0]], details[key][0]._replace(record=held.get(key, b""))) for key in keys]


def _traces(conn: apsw.Connection, pks: Iterable[int]) -> dict[int, TraceRow]:
    sql = f"SELECT {TRACE_COLUMNS} FROM trace WHERE trace_pk IN (SELECT value FROM json_each(?))"
    return {values[0]: trace_row(values) for values in conn.execute(sql, (orjson.dumps(list(pks)).decode(),))}


def _records(conn: apsw.Connection, block_of: dict[tuple[int, str], int]) -> dict[tuple[int, str], bytes]:
    wanted: dict[tuple[int, int], set[str | int]] = defaultdict(set)
    for (pk, span_id), block_no in block_of.items():
        wanted[pk, block_no].add(span_id)
    found: dict[tuple[int, str], bytes] = {}
    for (pk, block_no), span_ids in wanted.items():
        block_id = block_range(pk)[0] + block_no
        block = decode_block(conn.execute("SELECT data FROM block WHERE block_id = ?", (block_id,)).get)
        for record in block.records:
            if record.id in span_ids:
                found[pk, str(record.id)] = record_bytes(block, record)
    return found
