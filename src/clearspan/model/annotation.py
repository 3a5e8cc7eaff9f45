"""What somebody said about a span, a trace, a session or a document: feedback, score and note are one thing here."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class AnnotationTarget(StrEnum):
    """What an annotation is about."""

    SPAN = "span"
    TRACE = "trace"
    SESSION = "session"  # a conversation
    DOCUMENT = "document"  # one of the documents that a span retrieved
    PROJECT = "project"


class AnnotatorKind(StrEnum):
    """Who or what gave it, in Phoenix's words."""

    LLM = "LLM"
    CODE = "CODE"
    HUMAN = "HUMAN"


class Annotation(NamedTuple):
    """One annotation. Its key is (target, trace, span, session, document, name, identifier) within its project:
    writing the key again replaces what it says and keeps `annotation_id` and `created_ns`.

    The JSON fields hold the bytes of one JSON value, None where nothing was said.
    """

    annotation_id: str  # normal form of model.ids; unique within an organisation
    target: AnnotationTarget
    trace_id: str | None  # of span, trace and document annotations
    span_id: str | None  # of span and document annotations
    session_id: str | None  # of session annotations
    document_position: int | None
    name: str  # Phoenix: name, LangSmith: key, Respan: the evaluator's slug
    identifier: str  # "" or what tells annotations of one name on one target apart
    kind: AnnotatorKind
    label: str | None
    score: float | None  # booleans as 1 and 0; `extra` keeps what was sent
    explanation: str | None  # LangSmith: comment
    value: bytes | None  # JSON of any kind: LangSmith's `value`
    correction: bytes | None  # JSON
    metadata: bytes | None  # JSON object
    source: str  # "api" | "app" | "model" | "auto_eval": LangSmith's source type; Phoenix's API and APP
    extra: bytes | None  # JSON object: what one dialect says beyond these fields, given back to it unchanged
    created_ns: int
    updated_ns: int
    key_id: str | None  # public id of the API key that wrote it last
    user_id: str | None  # public id of the user that key acts for: who owns it
