"""The store contract for what Phoenix's lists need: traces after a position, and sessions.

A session is nothing stored: it is the visible traces of one project whose summary names it. It begins to exist with
the first of them and is gone with the last. `store.sqlite` and `store.memory` pass one suite.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.port import TraceRow


class TraceOrder(StrEnum):
    """Orders of a list of traces; ties by trace_pk in the same direction."""

    START_DESC = "start_desc"
    START_ASC = "start_asc"
    DURATION_DESC = "duration_desc"
    DURATION_ASC = "duration_asc"

    @property
    def is_descending(self) -> bool:
        """Largest first."""
        return self.endswith("_desc")

    @property
    def is_by_start(self) -> bool:
        """By start_ns; otherwise by duration_ns."""
        return self.startswith("start")


class TracePosition(NamedTuple):
    """Where a page ends: the next one begins strictly after it."""

    value: int  # start_ns or duration_ns, as the order has it
    trace_pk: int


class TraceWalk(NamedTuple):
    """Rows, and the position to go on from; None: there are no more."""

    rows: list[TraceRow]
    after: TracePosition | None


class SessionTrace(NamedTuple):
    """One trace of a session."""

    trace_pk: int
    trace_id: str
    start_ns: int
    end_ns: int
    error_count: int
    llm_call_count: int
    prompt_tokens: int | None  # None: no span said
    completion_tokens: int | None
    total_tokens: int | None
    cost_pico: int | None


class SessionRow(NamedTuple):
    """One session of one project."""

    project_id: int
    session_id: str
    traces: tuple[SessionTrace, ...]  # by (start_ns, trace_pk); never empty

    @property
    def first_pk(self) -> int:
        """Its place in lists: of its visible traces the one that arrived first."""
        return min(each.trace_pk for each in self.traces)

    @property
    def start_ns(self) -> int:
        """The first start."""
        return self.traces[0].start_ns

    @property
    def end_ns(self) -> int:
        """The last end."""
        return max(each.end_ns for each in self.traces)


class SessionPage(NamedTuple):
    """Rows, and the `first_pk` to go on from; None: there are no more."""

    rows: list[SessionRow]
    after: int | None


class SessionReader(Protocol):
    """Each call sees one snapshot."""

    def walk_traces(
        self,
        scope: Scope,
        where: Expr | None,
        window: Window,
        *,
        order: TraceOrder,
        after: TracePosition | None = None,
        skip: int = 0,
        limit: int,
    ) -> TraceWalk:
        """The next `limit` traces of a filter after a position, without a total: other than the pages of `list_traces`,
        these neither repeat nor miss a trace when others come or go between them.

        Args:
            skip: so many after the position are left out.
        """
        ...

    def list_sessions(
        self, scope: Scope, *, descending: bool = False, after: int | None = None, limit: int
    ) -> SessionPage:
        """The sessions of a scope in the order of their `first_pk`; one that is in two projects is two sessions.

        A session whose first trace goes between two pages takes the place of its next one.
        """
        ...

    def find_sessions(self, scope: Scope, session_ids: Sequence[str]) -> list[SessionRow]:
        """The sessions with one of those ids, by (project_id, session_id)."""
        ...


def grouped(traces: Iterable[tuple[int, str, SessionTrace]]) -> list[SessionRow]:
    """(project_id, session_id, trace) in any order → sessions by (project_id, session_id)."""
    found: dict[tuple[int, str], list[SessionTrace]] = defaultdict(list)
    for project_id, session_id, trace in traces:
        found[project_id, session_id].append(trace)
    return [
        SessionRow(*key, tuple(sorted(found[key], key=lambda each: (each.start_ns, each.trace_pk))))
        for key in sorted(found)
    ]
