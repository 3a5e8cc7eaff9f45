"""The writer process's calls for deleting annotations by themselves: one short transaction each."""

from __future__ import annotations

from collections.abc import Sequence

from clearspan.faults import fault
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.port import HideOutcome
from clearspan.store.sqlite import annotation_hiding as hiding
from clearspan.store.sqlite.annotation_judge import AnnotationQuestion
from clearspan.store.sqlite.deletion_calls import DeletionCalls, with_room


class AnnotationDeletionCalls(DeletionCalls):
    """Mixed into process.Service; what both kinds of deletions need is inherited."""

    @with_room
    def hide_annotations(
        self,
        deletion_id: str,
        question: AnnotationQuestion,
        manifest: Sequence[PlannedAnnotation],
        request: bytes,
        manifest_salt: bytes,
        exact: bool,
        preview_key: bytes | None,
    ) -> HideOutcome:
        """See AnnotationDeletionStore.hide_annotations; for small manifests."""
        fault("store.before_hide")
        outcome = hiding.hide(
            self.conn,
            self._secret,
            deletion_id,
            question,
            manifest,
            request,
            manifest_salt=manifest_salt,
            exact=exact,
            preview_key=preview_key,
        )
        self._note_hidden(deletion_id, preview_key)
        fault("store.after_hide")
        return outcome

    def _note_hidden(self, deletion_id: str, preview_key: bytes | None) -> None:
        """Filters of traces may ask for annotations: a hide of traces in the making judges those traces again."""
        self._owes_empty_log = self._owes_empty_log or preview_key is not None
        if self._writer.touched is not None:
            self._writer.touched.update(hiding.traces_of(self.conn, deletion_id))

    @with_room
    def annotation_stage_begin(self, deletion_id: str, preview_key: bytes | None) -> HideOutcome | list[str]:
        """See annotation_hiding.begin."""
        fault("store.before_hide")
        return hiding.begin(self.conn, self._secret, deletion_id, preview_key)

    @with_room
    def annotation_stage_lines(
        self, deletion_id: str, question: AnnotationQuestion, lines: Sequence[PlannedAnnotation]
    ) -> HideOutcome:
        """See annotation_hiding.add_slice."""
        with self._lazily():
            outcome = hiding.add_slice(self.conn, deletion_id, question, lines)
        fault("store.after_stage_lines")
        return outcome

    @with_room
    def annotation_stage_refresh(self, deletion_id: str, question: AnnotationQuestion) -> bool:
        """See annotation_hiding.refresh."""
        with self._lazily():
            return hiding.refresh(self.conn, deletion_id, question)

    @with_room
    def annotation_stage_activate(
        self,
        deletion_id: str,
        question: AnnotationQuestion,
        request: bytes,
        held_by: list[str],
        manifest_salt: bytes,
        exact: bool,
        preview_key: bytes | None,
    ) -> HideOutcome | None:
        """See annotation_hiding.activate."""
        fault("store.before_activate")
        outcome = hiding.activate(
            self.conn,
            self._secret,
            deletion_id,
            question,
            request,
            held_by,
            manifest_salt=manifest_salt,
            exact=exact,
            preview_key=preview_key,
        )
        if outcome is not None:
            self._note_hidden(deletion_id, preview_key)
            fault("store.after_hide")
        return outcome

    @with_room
    def annotation_stage_drop(self) -> bool:
        """Remove some rows of a hide that was given up; whether more are left."""
        staged = hiding.staged_numbers(self.conn)
        return bool(staged) and self.clear_leftovers(staged)

    @with_room
    def hide_annotation_child_slice(
        self, deletion_id: str, question: AnnotationQuestion, above: int
    ) -> tuple[int, HideOutcome | None]:
        """See annotation_hiding.hide_child_slice."""
        answer = hiding.hide_child_slice(self.conn, self._secret, deletion_id, question, above)
        self._note_hidden(deletion_id, None)
        return answer

    @with_room
    def cancel_annotations(self, deletion_id: str) -> tuple[int, list[int]]:
        """See annotation_hiding.cancel."""
        if self._writer.touched is not None:
            self._writer.touched.update(hiding.traces_of(self.conn, deletion_id))
        answer = hiding.cancel(self.conn, deletion_id)
        self._owes_empty_log = True
        fault("store.after_cancel")
        return answer
