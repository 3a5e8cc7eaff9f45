"""What a trace row shows, derived from its spans and never set by hand (ingest/rollup.py)."""

from __future__ import annotations

from typing import NamedTuple


class TraceSummary(NamedTuple):
    """One trace in a list. Equal sets of spans and logs give equal summaries, in whatever order they came."""

    trace_id: str
    root_span_id: str | None  # None: only log records have arrived so far
    name: str
    kind: str | None
    start_ns: int
    end_ns: int
    span_count: int
    llm_call_count: int
    error_count: int
    unpriced_count: int  # LLM calls with usage whose cost is unknown
    prompt_tokens: int | None  # None: no span said
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_pico: int | None  # None: unknown, 0: known to be free
    model: str | None  # the root's, else the first LLM call's
    customer_identifier: str | None
    session_id: str | None
    thread_id: str | None
    group_id: str | None
    environment: str | None
    key_id: str | None
    metadata: tuple[tuple[str, str], ...]  # displayed: the root's value, else the first span's by start
    tags: tuple[str, ...]
    metadata_all: tuple[tuple[str, str], ...]  # every distinct (key, value) of any span: what filters search

    @property
    def duration_ns(self) -> int:
        """From the first start to the last end."""
        return self.end_ns - self.start_ns


class Scope(NamedTuple):
    """What a caller may see: every read and every deletion carries one, and no store method works without it."""

    project_ids: tuple[int, ...]
    environment: str | None = None  # set: only traces of this environment exist for the caller


class Window(NamedTuple):
    """A half-open time window `[start_ns, end_ns)` on the trace's start time; None leaves that side open."""

    start_ns: int | None = None
    end_ns: int | None = None
