"""The writer process's calls about annotations: one durable transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw

from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationChange, AnnotationOutcome, AnnotationRow, AnnotationWrite
from clearspan.store.sqlite import annotating, attachments

if TYPE_CHECKING:
    from clearspan.store.sqlite.writer import Writer


class AnnotationCalls:
    """Mixed into process.Service, which sets these."""

    conn: apsw.Connection
    _secret: bytes
    _writer: Writer
    _owes_empty_log: bool

    def refuse_on_full_disk(self) -> None:
        """Raise Overloaded while what is left of the disk is kept for deletions."""

    def put_annotations(self, writes: Sequence[AnnotationWrite], received_ns: int) -> list[AnnotationOutcome]:
        """See AnnotationWriter.put_annotations."""
        self.refuse_on_full_disk()
        with self.conn:
            outcomes, touched = annotating.put(self.conn, self._secret, writes, received_ns)
        self._writer.annotations_wait = self._writer.annotations_wait or any(each.is_waiting for each in outcomes)
        if self._writer.touched is not None:
            self._writer.touched.update(touched)
        return outcomes

    def patch_annotation(self, scope: Scope, annotation_id: str, change: AnnotationChange) -> AnnotationRow | None:
        """See AnnotationWriter.patch_annotation."""
        self.refuse_on_full_disk()
        with self.conn:
            row, trace_pk = annotating.patch(self.conn, scope, annotation_id, change)
        if self._writer.touched is not None and trace_pk is not None:
            self._writer.touched.add(trace_pk)
        return row

    def purge_project_annotations(self, project_id: int) -> int:
        """See AnnotationWriter.purge_project_annotations."""
        with self.conn:
            gone = annotating.purge_of_project(self.conn, project_id)
            gone += attachments.drop_of_project(self.conn, project_id)
        self._owes_empty_log = self._owes_empty_log or gone > 0
        return gone

    def widen_waiting(self, project_ids: Sequence[int]) -> int:
        """See AnnotationWriter.widen_waiting."""
        if not self._writer.annotations_wait:
            return 0
        with self.conn:
            news = annotating.widen(self.conn, project_ids)
        return news

    def expire_annotations(self, before_ns: int) -> int:
        """See AnnotationWriter.expire_annotations."""
        with self.conn:
            gone = annotating.expire(self.conn, before_ns)
        if gone:
            self._owes_empty_log = True
            self._writer.annotations_wait = annotating.any_waiting(self.conn)
        return gone
