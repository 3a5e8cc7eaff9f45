"""The store contract for reading single spans (LangSmith: runs); `store.sqlite` and `store.memory` pass one suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.port import SpanDetail, TraceRow


class SpanOrder(StrEnum):
    """Orders of a span list; ties by (trace_pk, span_id) in the same direction."""

    START_DESC = "start_desc"
    START_ASC = "start_asc"
    ARRIVAL_DESC = "arrival_desc"  # by trace_pk, then start: newest trace first
    ARRIVAL_ASC = "arrival_asc"


class SpanPosition(NamedTuple):
    """Where a page ends: the next one begins strictly after it."""

    start_ns: int
    trace_pk: int
    span_id: str


class SpanRow(NamedTuple):
    """One span in a list, with the trace it belongs to."""

    trace: TraceRow
    detail: SpanDetail  # `record` is b"" where records were not asked for


class SpanPage(NamedTuple):
    """Rows, and the position to go on from; None: there are no more."""

    rows: list[SpanRow]
    after: SpanPosition | None


class SpanStats(NamedTuple):
    """Over the spans that match; None: no span said."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    error_count: int
    pending_count: int
    streaming_count: int
    latency_s: tuple[float | None, float | None]  # p50 and p99 of the spans that ended
    first_token_s: tuple[float | None, float | None]  # p50 and p99
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    total_tokens_quantiles: tuple[float | None, float | None]
    cost_pico: int | None
    cost_quantiles_pico: tuple[float | None, float | None]
    last_start_ns: int | None


PIECE_BYTES = 1 << 20
"""Attachments are stored and handed out in pieces of this size."""


def pieces_of(size_bytes: int) -> int:
    """How many pieces an attachment has."""
    return -(-size_bytes // PIECE_BYTES)


class AttachmentInfo(NamedTuple):
    """One attachment of a span."""

    name: str
    mime_type: str
    size_bytes: int
    digest: bytes  # SHA-256


class SpanReader(Protocol):
    """Reads spans by themselves. `where` is an expression about the span itself (query/ast.py)."""

    def list_spans(
        self,
        scope: Scope,
        where: Expr | None,
        window: Window,
        *,
        order: SpanOrder = SpanOrder.START_DESC,
        after: SpanPosition | None = None,
        limit: int,
        records: bool = True,
    ) -> SpanPage:
        """One page. `window` is on the span's own start."""
        ...

    def span_stats(self, scope: Scope, where: Expr | None, window: Window) -> SpanStats:
        """Sums and quantiles over every span that matches."""
        ...

    def find_spans(self, scope: Scope, span_ids: Sequence[str]) -> list[SpanRow]:
        """The visible spans with one of those ids, whatever their trace, records included; of copies in several
        projects, or traces, all. By (trace_pk, span_id).

        32 hex digits in lower case are a run id (model.runs); anything else is the span's own id.
        """
        ...

    def list_attachments(
        self, scope: Scope, keys: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], list[AttachmentInfo]]:
        """(trace_pk, span_id) → its attachments by name; those without any are left out."""
        ...

    def read_attachment(
        self, scope: Scope, trace_id: str, span_id: str, name: str
    ) -> tuple[AttachmentInfo, Iterator[bytes]] | None:
        """An attachment and its bytes in pieces of at most 1 MiB; None if there is none to see.

        Each piece is read when it is asked for, and raises NotFound if the trace was hidden meanwhile.
        """
        ...
