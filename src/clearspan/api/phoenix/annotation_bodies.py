"""Phoenix's annotations ↔ the model's. Pure.

    name ↔ name     annotator_kind ↔ kind     result ↔ label, score, explanation     source ↔ source

Feedback of another dialect is shown as it is stored: what only that dialect says (`value`, `correction`) is not.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from clearspan.api.errors import dump_json
from clearspan.api.phoenix import globalids
from clearspan.api.phoenix.annotation_kinds import Kind, OfDocument, Said
from clearspan.api.phoenix.conventions import render_time
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.store.annotations import AnnotationRow

Json = dict[str, Any]
_APP: Final = "app"


class Writer(NamedTuple):
    """Who writes, and when."""

    now_ns: int
    key_id: str
    user_id: str | None  # public id of the user that the key acts for


class Target(NamedTuple):
    """The ids of what is annotated, as far as they are known."""

    trace_id: str | None = None
    span_id: str | None = None
    session_id: str | None = None


def annotation_of(kind: Kind, said: Said, target: Target, writer: Writer, new_id: str) -> Annotation:
    """What a body says, about that target."""
    result = said.result
    return Annotation(
        annotation_id=new_id,
        target=kind.target,
        trace_id=target.trace_id,
        span_id=target.span_id,
        session_id=target.session_id,
        document_position=said.document_position if isinstance(said, OfDocument) else None,
        name=said.name,
        identifier=said.identifier,
        kind=AnnotatorKind(said.annotator_kind),
        label=None if result is None else result.label,
        score=None if result is None else result.score,
        explanation=None if result is None else result.explanation,
        value=None,
        correction=None,
        metadata=dump_json(said.metadata) if said.metadata else None,
        source="api",
        extra=None,
        created_ns=writer.now_ns,
        updated_ns=writer.now_ns,
        key_id=writer.key_id,
        user_id=writer.user_id,
    )


def render_annotation(kind: Kind, row: AnnotationRow) -> Json:
    """A row as clients read it."""
    said = row.annotation
    return {
        "id": globalids.render(kind.gid, row.row_no),
        "created_at": render_time(said.created_ns),
        "updated_at": render_time(said.updated_ns),
        "source": "APP" if said.source == _APP else "API",
        "user_id": None if said.user_id is None else globalids.render(globalids.USER, said.user_id),
        "name": said.name,
        "annotator_kind": said.kind.value,
        "result": {"label": said.label, "score": said.score, "explanation": said.explanation},
        "metadata": json.loads(said.metadata) if said.metadata else {},
        "identifier": said.identifier,
        kind.id_field: _target_id(said),
    }


def _target_id(said: Annotation) -> str | None:
    match said.target:
        case AnnotationTarget.TRACE:
            return said.trace_id
        case AnnotationTarget.SESSION:
            return said.session_id
        case _:
            return said.span_id
