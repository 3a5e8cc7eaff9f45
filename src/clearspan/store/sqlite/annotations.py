"""The write side of annotations as the server sees it: calls to the writer process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationChange, AnnotationOutcome, AnnotationRow, AnnotationWrite


class Caller(Protocol):
    """The writer, wherever it runs."""

    def call(self, name: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run a method of process.Service."""
        ...


class SqliteAnnotationWriter:
    """annotations.AnnotationWriter; safe to call from many threads."""

    def __init__(self, writer: Caller) -> None:
        self._writer = writer

    def put_annotations(self, writes: Sequence[AnnotationWrite], *, received_ns: int) -> list[AnnotationOutcome]:
        if not writes:
            return []
        outcomes: list[AnnotationOutcome] = self._writer.call("put_annotations", list(writes), received_ns)
        return outcomes

    def patch_annotation(self, scope: Scope, annotation_id: str, change: AnnotationChange) -> AnnotationRow | None:
        row: AnnotationRow | None = self._writer.call("patch_annotation", scope, annotation_id, change)
        return row

    def purge_project_annotations(self, project_id: int) -> int:
        total = 0
        while gone := self._writer.call("purge_project_annotations", project_id):
            total += gone
        if total:
            self._writer.call("empty_log")
        return total

    def widen_waiting(self, project_ids: Sequence[int]) -> int:
        news: int = self._writer.call("widen_waiting", list(project_ids))
        return news

    def expire_annotations(self, before_ns: int) -> int:
        gone: int = self._writer.call("expire_annotations", before_ns)
        if gone:
            self._writer.call("empty_log")
        return gone
