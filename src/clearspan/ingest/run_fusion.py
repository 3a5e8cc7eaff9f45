"""The merge law where run documents are concerned: two of one run fuse, and one stays against anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, BlockRecord, decode_block, pack_block
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_document import fuse_runs
from clearspan.ingest.run_promotion import promote_run
from clearspan.model.span import Span, TraceBatch

RUN_ID_CHARS: Final = 32
"""Length of a run's id: spans with shorter or longer ids need no look at their records."""


class Fusion(NamedTuple):
    """A batch with each run as it is after what was known of it."""

    batch: TraceBatch
    stays: dict[str, bool]  # span_id → whether the batch's content replaces the known one; others go by `merge.wins`


def may_fuse(new: Span, old: Span) -> bool:
    """Whether two contents of one span have to be looked at: they differ and may be run documents."""
    return len(new.span_id) == RUN_ID_CHARS and new.content_hash != old.content_hash


def fuse_batch(batch: TraceBatch, known: Mapping[str, BlockRecord], prices: PriceBook | None) -> Fusion:
    """Lay the runs of a batch over what is known of them.

    Args:
        known: span_id → the record that the store has, for spans of the batch that `may_fuse`.
        prices: what new figures cost; they must be those that ingest knows.
    Cost: about 120 µs a run of 2 KB; the first that has to be priced loads the tables of prices, 0.5 s.
    Raises:
        StoreDamaged: a block or a document cannot be read.
    """
    block = decode_block(batch.block)
    spans = {span.span_id: span for span in batch.spans}
    contexts = dict(batch.contexts)
    records: list[BlockRecord] = []
    stays: dict[str, bool] = {}
    for record in block.records:
        old = known.get(record.id) if isinstance(record.id, str) else None
        if old is None or CODEC_LANGSMITH_RUN not in (old.codec, record.codec):
            records.append(record)
            continue
        span_id = str(record.id)
        if old.codec != record.codec:
            stays[span_id] = record.codec == CODEC_LANGSMITH_RUN
            records.append(record)
            continue
        raw = fuse_runs(old.raw, record.raw)
        stays[span_id] = raw != old.raw
        if raw not in (old.raw, record.raw):
            span, context = promote_run(raw, prices)
            spans[span_id] = span
            contexts[span.context_key] = context
        records.append(record._replace(raw=raw))
    if not any(stays.values()):
        return Fusion(batch, stays)
    return Fusion(
        batch._replace(spans=tuple(spans.values()), contexts=contexts, block=pack_block(records, block.shared)), stays
    )
