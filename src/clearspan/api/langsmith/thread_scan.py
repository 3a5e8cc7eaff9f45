"""Threads: the conversations that root runs belong to, put together from them.

Nothing of a thread is stored: it is the roots that share a thread id. A question reads the roots of its window once,
newest first, without their records; inputs and outputs are read only of the threads that are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from clearspan.api.langsmith.inputs import Json
from clearspan.api.langsmith.run_content import RunContent, read_content
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import ROOTS, all_of
from clearspan.api.langsmith.runs import run_id_at
from clearspan.api.langsmith.session_stats import feedback_stats
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Window
from clearspan.query.ast import Condition, Expr
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationRow
from clearspan.store.span_figures import quantiles
from clearspan.store.spans import SpanRow

TURNS_MAX: Final = 20_000
"""Root runs with a thread that one question looks at."""
_THREAD_ID: Final = field_named("span_thread_id")
_IN_A_THREAD: Final[Expr] = Condition(_THREAD_ID, Operator.NOT_EMPTY)
_TARGETS: Final = (AnnotationTarget.SPAN, AnnotationTarget.TRACE)


@dataclass
class Turns:
    """Some turns of one thread, newest first."""

    thread_id: str
    rows: list[SpanRow] = field(default_factory=list)

    @property
    def first(self) -> SpanRow:
        """The earliest turn."""
        return self.rows[-1]

    @property
    def last(self) -> SpanRow:
        """The latest turn."""
        return self.rows[0]

    @property
    def last_failed(self) -> SpanRow | None:
        """The latest turn that failed."""
        return next((row for row in self.rows if row.detail.span.status == "error"), None)


def thread_id_of(row: SpanRow) -> str:
    """The thread of a turn."""
    context = row.detail.context
    return (context.thread_id if context.thread_id is not None else context.session_id) or ""


def of_thread(thread_id: str) -> Expr:
    """The turns of one thread."""
    return all_of([ROOTS, make_condition("thread_id", _THREAD_ID, Operator.EQUALS, [thread_id])]) or ROOTS


def scan_threads(loader: Loader, where: Expr | None, window: Window) -> dict[str, Turns]:
    """Every thread that has a turn which matches, with these turns, by latest activity. Blocks.

    Raises:
        InvalidInput: there are more turns than one question looks at.
    Cost: about 100 µs a turn.
    """
    parts = [ROOTS, _IN_A_THREAD, *([] if where is None else [where])]
    found: dict[str, Turns] = {}
    for row in scan_turns(loader, all_of(parts), window):
        thread_id = thread_id_of(row)
        found.setdefault(thread_id, Turns(thread_id)).rows.append(row)
    return found


def scan_turns(loader: Loader, where: Expr | None, window: Window) -> Iterator[SpanRow]:
    """The runs that match, newest first, without records; bounded by TURNS_MAX. Blocks."""
    refusal = InvalidInput(
        f"More than {TURNS_MAX} turns match; narrow the time or the filter.", fields=("min_start_time",)
    )
    return loader.scan(where, window, rows_max=TURNS_MAX, refusal=refusal)


def contents_of(loader: Loader, rows: Iterable[SpanRow]) -> dict[tuple[int, str], RunContent]:
    """(trace_pk, span_id) → what the record of a turn says. Blocks."""
    ids = sorted({run_id_at(row) for row in rows})
    return {
        (row.trace.trace_pk, row.detail.span.span_id): read_content(row.detail)
        for row in (loader.spans.find_spans(loader.scope, ids) if ids else ())
    }


def content_at(contents: dict[tuple[int, str], RunContent], row: SpanRow | None) -> RunContent | None:
    """The content of a turn; None for none, and for one that was hidden meanwhile."""
    return None if row is None else contents.get((row.trace.trace_pk, row.detail.span.span_id))


def feedback_of(loader: Loader, threads: Sequence[Turns]) -> dict[str, Json]:
    """Thread id → stats of what was said about the runs of its traces. Blocks."""
    pks = {row.trace.trace_pk: turns.thread_id for turns in threads for row in turns.rows}
    said: dict[str, list[AnnotationRow]] = {}
    for pk, rows in loader.services.annotations.annotations_of(list(pks)).items():
        said.setdefault(pks[pk], []).extend(row for row in rows if row.annotation.target in _TARGETS)
    return {turns.thread_id: feedback_stats(said.get(turns.thread_id, ())) for turns in threads}


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures over turns: tokens and costs of their whole traces. None: no turn says."""

    turns: int
    errors: int
    streaming: int
    ended: int
    first_start_ns: int | None
    last_start_ns: int | None
    last_end_ns: int | None
    latency_s: tuple[float | None, float | None]
    first_token_s: tuple[float | None, float | None]
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    median_tokens: float | None
    cost_pico: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None


def figures_of(rows: Sequence[SpanRow]) -> Figures:
    """Figures over some turns."""
    spans = [row.detail.span for row in rows]
    ended = [span for span in spans if span.status != "pending"]
    p50, p99 = quantiles([(span.end_ns - span.start_ns) / 1e9 for span in ended])
    totals = [row.trace.summary.total_tokens for row in rows if row.trace.summary.total_tokens is not None]

    def added(value_of: Callable[[SpanRow], int | None]) -> int | None:
        known = [value for row in rows if (value := value_of(row)) is not None]
        return sum(known) if known else None

    return Figures(
        turns=len(rows),
        errors=sum(span.status == "error" for span in spans),
        streaming=sum(bool(span.is_streaming) for span in ended),
        ended=len(ended),
        first_start_ns=min((span.start_ns for span in spans), default=None),
        last_start_ns=max((span.start_ns for span in spans), default=None),
        last_end_ns=max((span.end_ns for span in ended), default=None),
        latency_s=(p50, p99),
        first_token_s=quantiles([span.ttft_s for span in spans if span.ttft_s is not None]),
        prompt_tokens=added(lambda row: row.trace.summary.prompt_tokens),
        completion_tokens=added(lambda row: row.trace.summary.completion_tokens),
        total_tokens=added(lambda row: row.trace.summary.total_tokens),
        median_tokens=quantiles(totals)[0],
        cost_pico=added(lambda row: row.trace.summary.cost_pico),
        cached_tokens=added(lambda row: row.trace.summary.cached_tokens),
        reasoning_tokens=added(lambda row: row.trace.summary.reasoning_tokens),
    )
