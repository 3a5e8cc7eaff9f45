"""The kinds of annotations, and what differs between them: names of fields, words of errors, shapes of bodies."""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator, Field

from clearspan.api.phoenix import globalids
from clearspan.api.phoenix.conventions import AnnotatorWord, Body, Limit10000, Query, Text
from clearspan.model.annotation import AnnotationTarget

_POSITION_MAX: Final = 2**31 - 1


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


Note = Annotated[Text, BeforeValidator(_stripped)]
"""A text that is not blank, without the blanks around it."""


# Bodies. Fields in the order in which errors name them.


class Result(Body):
    """What was found."""

    label: str | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    explanation: str | None = None


class Said(Body):
    """One annotation, without its target."""

    name: str
    annotator_kind: AnnotatorWord
    result: Result | None = None
    metadata: dict[str, Any] | None = None
    identifier: str = ""


class OfSpan(Said):
    """Of a span."""

    span_id: str


class OfTrace(Said):
    """Of a trace."""

    trace_id: str


class OfSession(Said):
    """Of a session."""

    session_id: str


class OfDocument(OfSpan):
    """Of a document that a span retrieved, the first of them at 0."""

    document_position: Annotated[int, Field(ge=0, le=_POSITION_MAX)]


class Items(Body):
    """The body of a request that writes annotations."""

    data: list[Any]


class SpanItems(Items):
    """See OfSpan."""

    data: list[OfSpan]


class TraceItems(Items):
    """See OfTrace."""

    data: list[OfTrace]


class SessionItems(Items):
    """See OfSession."""

    data: list[OfSession]


class DocumentItems(Items):
    """See OfDocument."""

    data: list[OfDocument]


class NoteOfSpan(Body):
    """A note on a span."""

    span_id: str
    note: Note
    identifier: str | None = None


class NoteOfTrace(Body):
    """A note on a trace."""

    trace_id: str
    note: Note
    identifier: str | None = None


class NoteOfSession(Body):
    """A note on a session."""

    session_id: str
    note: Note
    identifier: str | None = None


class NoteItem(Body):
    """The body of a request that writes a note."""

    data: Any


class SpanNote(NoteItem):
    """See NoteOfSpan."""

    data: NoteOfSpan


class TraceNote(NoteItem):
    """See NoteOfTrace."""

    data: NoteOfTrace


class SessionNote(NoteItem):
    """See NoteOfSession."""

    data: NoteOfSession


# Parameters


class ListQuery(Query):
    """Of a list; the kinds add the ids of their targets."""

    identifier: list[Text] = Field(default_factory=list)
    include_annotation_names: list[str] = Field(default_factory=list)
    exclude_annotation_names: list[str] = Field(default_factory=list)
    cursor: str | None = None
    limit: Limit10000 = 10


class SpanListQuery(ListQuery):
    """Of spans."""

    span_ids: list[str] = Field(default_factory=list)


class TraceListQuery(ListQuery):
    """Of traces."""

    trace_ids: list[str] = Field(default_factory=list)


class SessionListQuery(ListQuery):
    """Of sessions."""

    session_ids: list[str] = Field(default_factory=list)


class Kind(NamedTuple):
    """What tells one kind from the others."""

    target: AnnotationTarget
    path: str  # of the routes: span_annotations
    id_field: str  # of bodies and rows: span_id
    gid: str  # type of the GlobalIDs
    absent: str  # what several targets are called in a 404
    items: type[Items]

    def target_id(self, said: Body) -> str:
        """The id that a body names."""
        return str(getattr(said, self.id_field))

    def absent_text(self, ids: list[str]) -> str:
        """Of targets that must be there and are not."""
        return f"{self.absent} with IDs {', '.join(ids)} do not exist."


class ReadKind(NamedTuple):
    """What the three kinds have that can also be listed, noted and deleted by filter."""

    kind: Kind
    ids_field: str  # of a list: span_ids
    query: type[ListQuery]
    notes: str  # path of the notes' route
    note: type[NoteItem]
    no_target: str  # 404 of a note, with {} for the id
    reserved: str  # what the name `note` is reserved for
    note_identifier: str  # of a note that brings none, before its UUID


SPAN: Final = ReadKind(
    Kind(AnnotationTarget.SPAN, "span_annotations", "span_id", globalids.SPAN_ANNOTATION, "Spans", SpanItems),
    "span_ids",
    SpanListQuery,
    "span_notes",
    SpanNote,
    "Span with ID {} not found",
    "trace and span notes",
    "px-span-note",
)
TRACE: Final = ReadKind(
    Kind(AnnotationTarget.TRACE, "trace_annotations", "trace_id", globalids.TRACE_ANNOTATION, "Traces", TraceItems),
    "trace_ids",
    TraceListQuery,
    "trace_notes",
    TraceNote,
    "Trace with ID {} not found",
    "trace and span notes",
    "px-trace-note",
)
SESSION: Final = ReadKind(
    Kind(
        AnnotationTarget.SESSION,
        "session_annotations",
        "session_id",
        globalids.SESSION_ANNOTATION,
        "Sessions",
        SessionItems,
    ),
    "session_ids",
    SessionListQuery,
    "session_notes",
    SessionNote,
    "Session with session_id {} not found",
    "session notes",
    "px-session-note",
)
DOCUMENT: Final = Kind(
    AnnotationTarget.DOCUMENT, "document_annotations", "span_id", globalids.DOCUMENT_ANNOTATION, "Spans", DocumentItems
)
KINDS: Final = (SPAN, TRACE, SESSION)
NOTE_NAME: Final = "note"
