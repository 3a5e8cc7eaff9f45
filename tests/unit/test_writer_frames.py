"""What the server sends its writer process arrives as it was."""

from __future__ import annotations

from clearspan.ingest.payload import BlockRecord, Shared, compress_block, pack_block
from clearspan.model.span import Attachment, LogRecord, Span, SpanContext, TraceBatch
from clearspan.store.sqlite.wire import decode_batches, encode_batches

LEAST, MOST = -(2**63), 2**63 - 1
BARE = Span(*("" if field in ("span_id", "name", "kind", "status") else None for field in Span._fields))
SPANS = (
    BARE._replace(span_id="a", start_ns=0, end_ns=MOST, usage_repeats=False, context_key=LEAST, content_hash=MOST),
    BARE._replace(
        span_id="ü\n", name="名", start_ns=1, end_ns=2, usage_repeats=True, is_streaming=False, ttft_s=0.1,
        cost_pico=MOST, context_key=7, content_hash=0,
    ),
)  # fmt: skip
LOGS = (LogRecord(LEAST, None, 1, "event", 9, 7),)
CONTEXTS = {LEAST: SpanContext(), 7: SpanContext("c", tags=("x", "y"), metadata=(("k", "v"), ("k2", "")))}


def test_batches_arrive_as_they_were_with_their_blocks_compressed() -> None:
    packed = pack_block([BlockRecord(1, 0, "a", b"\0\xff" * 99)], [Shared(b"r", b"", "u")])
    batches = [TraceBatch(3, "t", SPANS, LOGS, CONTEXTS, packed), TraceBatch(MOST, "t2", (), LOGS, {}, b"")]
    batches.append(TraceBatch(1, "", (), (), {}, b"", (Attachment("a", "ü", "image/png", b"\0\xff" * 9),)))
    received_ns, found = decode_batches(encode_batches(batches, MOST))
    assert received_ns == MOST
    assert found == [batch._replace(block=compress_block(batch.block)) for batch in batches]
    assert [type(span) for span in found[0].spans] == [Span, Span]
    assert [type(span.usage_repeats) for span in found[0].spans] == [bool, bool]
    assert isinstance(found[0].contexts[7], SpanContext)
    assert isinstance(found[0].logs[0], LogRecord)
    assert isinstance(found[2].attachments[0], Attachment)
