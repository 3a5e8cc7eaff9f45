"""Annotations ↔ rows of traces.db, and the key under which each is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import apsw
import orjson

from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.query.compile_condition import HIDDEN_ANNOTATION
from clearspan.store.annotations import AnnotationRow

ANNOTATION_COLUMNS = ", ".join(Annotation._fields)
_TARGET, _KIND = Annotation._fields.index("target"), Annotation._fields.index("kind")
KEY_BYTES = 16


def key_of(annotation: Annotation) -> bytes:
    """What tells an annotation from every other one of its project: a hash, so that one narrow index holds it."""
    parts = (
        annotation.target,
        annotation.trace_id,
        annotation.span_id,
        annotation.session_id,
        annotation.document_position,
        annotation.name,
        annotation.identifier,
    )
    return hashlib.blake2b(orjson.dumps(parts), digest_size=KEY_BYTES).digest()


def annotation_of(values: Sequence[Any]) -> Annotation:
    """The values of ANNOTATION_COLUMNS as an Annotation."""
    fields = list(values)
    fields[_TARGET] = AnnotationTarget(fields[_TARGET])
    fields[_KIND] = AnnotatorKind(fields[_KIND])
    return Annotation._make(fields)


ROW_COLUMNS = "a.annotation_no, a.project_id, a.waits_ns IS NOT NULL, " + ", ".join(
    f"a.{name}" for name in Annotation._fields
)
"""What `row_of` reads, of a table called `a`."""


def row_of(values: Sequence[Any]) -> AnnotationRow:
    """The values of ROW_COLUMNS as an AnnotationRow."""
    row_no, project_id, waits, *rest = values
    return AnnotationRow(row_no, project_id, annotation_of(rest), bool(waits))


def retire_keys(conn: apsw.Connection, project_id: int, key: bytes) -> None:
    """Let go of a key that a hidden annotation holds, so that the same thing can be said anew: its own gets longer."""
    found: list[Any] = conn.execute(
        f"SELECT annotation_no FROM annotation a WHERE project_id = ? AND key = ? AND {HIDDEN_ANNOTATION}",
        (project_id, key),
    ).fetchall()
    for (number,) in found:
        retired = key + int(number).to_bytes(8, "big")
        conn.execute("UPDATE annotation SET key = ? WHERE annotation_no = ?", (retired, number))
