"""Inputs, outputs and links of spans, read from their wire records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import NO_TEXTS, SpanTexts
from clearspan.ingest.detail import decode_span, input_output, input_output_links
from clearspan.store.port import TraceDetail


def root_texts(root: bytes | None, logs: Sequence[bytes]) -> SpanTexts:
    """Input and output of a root span for a list page; its links are left to the detail."""
    if root is None:
        return NO_TEXTS
    given_in, given_out = input_output(root, logs)
    return SpanTexts(given_in, given_out, None)


def detail_texts(detail: TraceDetail) -> dict[str, SpanTexts]:
    """span_id → texts of every span; messages that came as log records are joined to the span they name."""
    logs: dict[str | None, list[bytes]] = defaultdict(list)
    for log in detail.logs:
        logs[log.log.span_id].append(log.record)
    return {each.span.span_id: _span_texts(each.record, logs.get(each.span.span_id, [])) for each in detail.spans}


def _span_texts(record: bytes, logs: Sequence[bytes]) -> SpanTexts:
    given_in, given_out, has_links = input_output_links(record, logs)
    return SpanTexts(given_in, given_out, _links(record) if has_links else None)


def _links(record: bytes) -> str:
    return dump_json([link._asdict() for link in decode_span(record).links]).decode()
