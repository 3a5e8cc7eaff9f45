"""Where a run stands in its trace: its ancestors, its descendants, and the text that puts runs in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clearspan.ingest.rollup import tree_parents
from clearspan.ingest.run_promotion import dotted_segment
from clearspan.model.runs import run_id_of
from clearspan.model.span import Span
from clearspan.model.trace import TraceSummary

DEPTH_MAX: Final = 100
"""Segments of a dotted order that is made here: of a deeper run the root and its nearest ancestors."""


class RunTree:
    """The runs of one trace, whatever dialect they came by. A span without a parent that is not the root stands below
    the root: LangSmith knows one root a trace."""

    def __init__(self, summary: TraceSummary, spans: Sequence[Span]) -> None:
        """
        Args:
            spans: every span of the trace, one per span_id.
        """
        self._trace_id = summary.trace_id
        self._root_id = summary.root_span_id
        self._starts = {span.span_id: span.start_ns for span in spans}
        self._parents = tree_parents(spans)
        for span_id, parent in self._parents.items():
            if parent is None and span_id != self._root_id and self._root_id in self._parents:
                self._parents[span_id] = self._root_id
        self._children: dict[str, list[str]] | None = None

    def run_id(self, span_id: str) -> str:
        """The run id (32 hex digits) of a span of this trace."""
        return run_id_of(self._trace_id, span_id, span_id == self._root_id)

    def path(self, span_id: str) -> list[str]:
        """Span ids from the root to a span, both included; shortened to DEPTH_MAX by leaving out the middle."""
        found = [span_id]
        while (parent := self._parents.get(found[-1])) is not None:
            found.append(parent)
        found.reverse()
        return found if len(found) <= DEPTH_MAX else [found[0], *found[1 - DEPTH_MAX :]]

    def dotted_order(self, span_id: str) -> str:
        """The text by which clients put runs in order and find a run's ancestors."""
        return ".".join(dotted_segment(self._starts.get(each, 0), self.run_id(each)) for each in self.path(span_id))

    def descendants(self, span_id: str) -> list[str]:
        """Span ids of everything below a span, by start. Cost O(size of the trace) once, then of the answer."""
        if self._children is None:
            self._children = {}
            for child, parent in self._parents.items():
                if parent is not None:
                    self._children.setdefault(parent, []).append(child)
        found: list[str] = []
        open_ids = [span_id]
        while open_ids:
            below = self._children.get(open_ids.pop(), ())
            found += below
            open_ids += below
        return sorted(found, key=lambda each: (self._starts[each], each))
