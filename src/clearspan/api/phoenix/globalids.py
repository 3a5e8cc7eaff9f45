"""GlobalIDs: standard base64 of `Type:payload`, as Phoenix's clients hand them back.

Clients take them as they come. What stands behind the colon is ours: the numbers and ids by which a thing is found
again, nothing secret. One that is well made proves nothing: whoever reads it looks the thing up in what the caller
may see, and answers as if there were none otherwise.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

PROJECT: Final = "Project"
TRACE: Final = "Trace"
SPAN: Final = "Span"
SESSION: Final = "ProjectSession"
SPAN_ANNOTATION: Final = "SpanAnnotation"
TRACE_ANNOTATION: Final = "TraceAnnotation"
SESSION_ANNOTATION: Final = "ProjectSessionAnnotation"
DOCUMENT_ANNOTATION: Final = "DocumentAnnotation"
CATEGORICAL_CONFIG: Final = "CategoricalAnnotationConfig"
CONTINUOUS_CONFIG: Final = "ContinuousAnnotationConfig"
FREEFORM_CONFIG: Final = "FreeformAnnotationConfig"
USER: Final = "User"
USER_KEY: Final = "UserApiKey"
SYSTEM_KEY: Final = "SystemApiKey"

CHARS_MAX: Final = 4096
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_NUMBER_MAX: Final = 2**63 - 1


class TraceRef(NamedTuple):
    """Which trace."""

    project_id: int
    trace_id: str


class SpanRef(NamedTuple):
    """Which span."""

    project_id: int
    trace_id: str
    span_id: str


class SessionRef(NamedTuple):
    """Which session of which project."""

    project_id: int
    session_id: str


def render(kind: str, payload: str | int) -> str:
    """The GlobalID of a thing."""
    return base64.b64encode(f"{kind}:{payload}".encode("utf-8", "surrogatepass")).decode()


def parse(text: str) -> tuple[str, str] | None:
    """(type, payload); None for a text that is no GlobalID: a name, say."""
    if not text or len(text) > CHARS_MAX or not text.isascii():
        return None
    try:
        kind, colon, payload = base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (kind, payload) if colon and kind and payload else None


def payload_of(text: str, *kinds: str) -> str | None:
    """The payload of a GlobalID of one of these types; None for any other text."""
    found = parse(text)
    return found[1] if found is not None and found[0] in kinds else None


def is_of(text: str, kind: str) -> bool:
    """Whether a text is a GlobalID of that type, be it one that this server could have made or not."""
    return payload_of(text, kind) is not None


def row_of(text: str, *kinds: str) -> int | None:
    """The number in a GlobalID of one of these types; None for any other text."""
    return _number(payload_of(text, *kinds))


def project_gid(project_id: int) -> str:
    """The GlobalID of a project."""
    return render(PROJECT, project_id)


def trace_gid(project_id: int, trace_id: str) -> str:
    """The GlobalID of a trace."""
    return render(TRACE, f"{project_id}.{_escaped(trace_id)}")


def span_gid(project_id: int, trace_id: str, span_id: str) -> str:
    """The GlobalID of a span."""
    return render(SPAN, f"{project_id}.{_escaped(trace_id)}.{_escaped(span_id)}")


def session_gid(project_id: int, session_id: str) -> str:
    """The GlobalID of a session."""
    return render(SESSION, f"{project_id}.{_escaped(session_id)}")


def project_of(text: str) -> int | None:
    """The project's number in a GlobalID; None for any other text, such as a name."""
    return row_of(text, PROJECT)


def trace_of(text: str) -> TraceRef | None:
    """The trace that a GlobalID names; None for any other text."""
    found = _parts(text, TRACE, 2)
    return None if found is None else TraceRef(found[0], found[1][0])


def span_of(text: str) -> SpanRef | None:
    """The span that a GlobalID names; None for any other text."""
    found = _parts(text, SPAN, 3)
    return None if found is None else SpanRef(found[0], *found[1])


def session_of(text: str) -> SessionRef | None:
    """The session that a GlobalID names; None for any other text."""
    found = _parts(text, SESSION, 2)
    return None if found is None else SessionRef(found[0], found[1][0])


def _parts(text: str, kind: str, count: int) -> tuple[int, list[str]] | None:
    payload = payload_of(text, kind)
    if payload is None:
        return None
    first, *rest = payload.split(".")
    number = _number(first)
    if number is None or len(rest) != count - 1 or not all(rest):
        return None
    return number, [_unescaped(each) for each in rest]


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= _NUMBER_MAX else None


def _escaped(part: str) -> str:
    # Ids are text of any kind here: the dot between the parts must not occur in one.
    return part.replace("%", "%25").replace(".", "%2E")


def _unescaped(part: str) -> str:
    return part.replace("%2E", ".").replace("%25", "%")
