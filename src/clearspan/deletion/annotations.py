"""Annotations as what a deletion lists: the words of a request for them, and its plain form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from clearspan.deletion.request import ByAnnotations, DeletionRequest
from clearspan.deletion.spans import is_of_spans
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.trace import Scope
from clearspan.proof.manifest import manifest_leaves, manifest_root
from clearspan.store.annotation_deletion import PlannedAnnotation, named
from clearspan.store.annotations import AnnotationQuery
from clearspan.store.port import DeletionKind, DeletionStore

WORDS: Final = {
    "ids": "annotation_ids",
    "target": "targets",
    "name": "names",
    "identifier": "identifiers",
    "annotator_kind": "kinds",
    "user": "user_ids",
    "key": "key_ids",
}
"""What a request may say of annotations: word → field of AnnotationQuery. All of them must hold."""
_PREFIX: Final = "annotation."
_SELECTION: Final = "annotations"


def says_nothing(selection: ByAnnotations) -> bool:
    """Whether no condition is given at all."""
    return not any(getattr(selection.query, field) for field in WORDS.values())


def shape_of(selection: ByAnnotations) -> tuple[str, ...]:
    """The conditions without their values, fit for the Catalog and the ledger."""
    counts = {word: len(getattr(selection.query, field)) for word, field in WORDS.items()}
    return tuple(f"{_PREFIX}{word}:in:{count}" for word, count in counts.items() if count)


def kind_of(shape: Sequence[str]) -> DeletionKind:
    """What a deletion lists, by the shape of its job."""
    if is_of_spans(shape):
        return DeletionKind.SPANS
    is_of_annotations = any(each.startswith(_PREFIX) for each in shape)
    return DeletionKind.ANNOTATIONS if is_of_annotations else DeletionKind.TRACES


def plain_selection(selection: ByAnnotations) -> dict[str, Any]:
    """The conditions as JSON values, in one order. Personal data."""
    said = {word: sorted(set(getattr(selection.query, field))) for word, field in WORDS.items()}
    return {_SELECTION: {word: values for word, values in said.items() if values}}


def parse_selection(plain: object) -> ByAnnotations | None:
    """What `plain_selection` was given; None for anything else. Raises ValueError for words that are none."""
    if not isinstance(plain, Mapping) or set(plain) != {_SELECTION}:
        return None
    return ByAnnotations(query_of(plain[_SELECTION]))


def query_of(said: Mapping[str, Sequence[str]]) -> AnnotationQuery:
    """The query that words and their values mean. Raises KeyError or ValueError for what means none."""
    fields: dict[str, Any] = {WORDS[word]: tuple(values) for word, values in said.items()}
    fields |= {"targets": tuple(map(AnnotationTarget, fields.get("targets", ())))}
    fields |= {"kinds": tuple(map(AnnotatorKind, fields.get("kinds", ())))}
    return AnnotationQuery(**fields)


def list_annotations(
    store: DeletionStore, request: DeletionRequest, selection: ByAnnotations, *, limit: int
) -> list[PlannedAnnotation]:
    """What the request lists, at most `limit` + 1."""
    return store.plan_annotations(request.scope, selection.bounded(request.window), limit=limit)


def root_of_annotations(salt: bytes, lines: Sequence[PlannedAnnotation]) -> str:
    """The commitment of proof.manifest to a set of annotations, hex."""
    return manifest_root(manifest_leaves(salt, named(lines))).hex()


def count_visible(store: DeletionStore, scope: Scope, kind: DeletionKind) -> int:
    """How much of what a deletion of that kind lists is visible in a scope."""
    match kind:
        case DeletionKind.ANNOTATIONS:
            return store.count_annotations(scope)
        case DeletionKind.SPANS:
            return store.count_spans(scope)
        case DeletionKind.TRACES:
            return store.count_visible(scope)
