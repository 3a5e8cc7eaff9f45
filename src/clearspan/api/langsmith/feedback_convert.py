"""Feedback ↔ annotations. Pure: what a client sent comes back as it was sent, whatever the model makes of it.

    key ↔ name     comment ↔ explanation     feedback_source.type ↔ source     feedback_source.metadata ↔ metadata

`score` is stored as a number; a truth value or a whole number is kept beside it, in `extra`. A `value` that is text is
also the label, and a label of another dialect is shown as the value. The feedback's id is its identifier, so that
several of one key on one run stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from clearspan.api.langsmith.inputs import Json, optional_time, read_uuid, render_time, uuid_text
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidInput
from clearspan.store.annotations import AnnotationChange

KEY_CHARS_MAX: Final = 180
SOURCES: Final = {
    "api": AnnotatorKind.HUMAN,
    "app": AnnotatorKind.HUMAN,
    "model": AnnotatorKind.LLM,
    "auto_eval": AnnotatorKind.LLM,
}
"""Source type → who gave it, in the model's words."""

_KEPT: Final = (
    "feedback_config", "feedback_group_id", "comparative_experiment_id", "error", "extra", "extend_trace_retention",
    "start_time",
)  # fmt: skip
_CHANGED: Final = ("feedback_config", "error", "extra")
_ABSENT: Final = msgspec.Raw(b"null")
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Feedback(NamedTuple):
    """What a body says, before it is known where its run is."""

    feedback_id: str  # 32 hex digits
    run_id: str | None
    trace_id: str | None
    session_uuid: str | None  # of the project
    annotation: Annotation  # without its target's ids


class Writer(NamedTuple):
    """Who writes, and when."""

    now_ns: int
    new_id: str  # for feedback that comes without an id
    key_id: str
    user_id: str | None = None


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a body, each as its own JSON text. Raises InvalidInput."""
    try:
        return _raw.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("Feedback must be a JSON object.") from None


def read_feedback(body: bytes, writer: Writer) -> Feedback:
    """A body of POST /feedback, or of a part `feedback.{id}`. Raises InvalidInput, naming the field."""
    raw = read_fields(body)
    said = {name: _plain(text, name) for name, text in raw.items() if name not in ("value", "correction")}
    ids = {name: _uuid(said, name) for name in ("id", "run_id", "trace_id", "session_id")}
    feedback_id = ids["id"] or writer.new_id
    if ids["run_id"] is None and ids["trace_id"] is None and ids["session_id"] is None:
        raise InvalidInput("Feedback must name a run_id, a trace_id or a session_id.", fields=("run_id",))
    source = _object(said, "feedback_source") or {}
    source_type = source.get("type", "api")
    kind = SOURCES.get(source_type) if isinstance(source_type, str) else None
    if kind is None:
        raise InvalidInput(f"feedback_source.type must be one of {', '.join(SOURCES)}.", fields=("feedback_source",))
    metadata = _object(source, "metadata")
    score, extra = _score(said.get("score"))
    extra |= {name: said[name] for name in _KEPT if said.get(name) is not None}
    extra |= {"feedback_source": _without(source, "type", "metadata")} if _without(source, "type", "metadata") else {}
    value, label = _value(raw.get("value", _ABSENT))
    annotation = Annotation(
        annotation_id=feedback_id,
        target=_target(ids),
        trace_id=None,
        span_id=None,
        session_id=None,
        document_position=None,
        name=_key(said),
        identifier=feedback_id,
        kind=kind,
        label=label,
        score=score,
        explanation=_comment(said),
        value=value,
        correction=_json(raw.get("correction", _ABSENT), "correction"),
        metadata=_dump(metadata, "feedback_source"),
        source=source_type,
        extra=_dump(extra, *_KEPT),
        created_ns=_time(said, "created_at", writer.now_ns),
        updated_ns=_time(said, "modified_at", writer.now_ns),
        key_id=writer.key_id,
        user_id=writer.user_id,
    )
    return Feedback(feedback_id, ids["run_id"], ids["trace_id"], ids["session_id"], annotation)


def read_change(body: bytes, writer: Writer) -> AnnotationChange:
    """A body of PATCH /feedback/{id}: what it names changes, null clears. Raises InvalidInput."""
    raw = read_fields(body)
    fields: dict[str, object] = {}
    extra: dict[str, object] = {}
    if "score" in raw:
        fields["score"], sent = _score(_plain(raw["score"], "score"))
        extra["score"] = sent.get("score")
    if "value" in raw:
        fields["value"], fields["label"] = _value(raw["value"])
    if "comment" in raw:
        fields["explanation"] = _comment({"comment": _plain(raw["comment"], "comment")})
    if "correction" in raw:
        fields["correction"] = _json(raw["correction"], "correction")
    extra |= {name: _plain(raw[name], name) for name in _CHANGED if name in raw}
    _dump(extra, *_CHANGED)
    return AnnotationChange(fields, extra, writer.now_ns, writer.key_id, writer.user_id)


def render_feedback(annotation: Annotation, run_id: str | None, session_uuid: str | None) -> Json:
    """Feedback as clients read it, with every key that their models insist on."""
    extra = orjson.loads(annotation.extra) if annotation.extra else {}
    value = msgspec.Raw(annotation.value) if annotation.value is not None else annotation.label
    metadata = msgspec.Raw(annotation.metadata) if annotation.metadata is not None else {}
    trace_id = annotation.trace_id
    return {
        "id": _shown(annotation.annotation_id),
        "created_at": render_time(annotation.created_ns),
        "modified_at": render_time(annotation.updated_ns),
        "key": annotation.name,
        "score": extra.get("score", annotation.score),
        "value": value,
        "comment": annotation.explanation,
        "correction": None if annotation.correction is None else msgspec.Raw(annotation.correction),
        "run_id": _shown(run_id),
        "trace_id": _shown(trace_id),
        "session_id": _shown(session_uuid),
        "start_time": extra.get("start_time"),
        "feedback_source": {
            "type": annotation.source,
            "metadata": metadata,
            "user_id": annotation.user_id,
            "user_name": None,
            **extra.get("feedback_source", {}),
        },
        "feedback_config": extra.get("feedback_config"),
        "feedback_group_id": extra.get("feedback_group_id"),
        "feedback_thread_id": None,
        "comparative_experiment_id": extra.get("comparative_experiment_id"),
        "extend_trace_retention": extra.get("extend_trace_retention", True),
        "error": extra.get("error"),
        "extra": extra.get("extra"),
    }


def _shown(id_text: str | None) -> str | None:
    """An id as a UUID, where it is one: another dialect's may not be."""
    if id_text is None:
        return None
    try:
        return uuid_text(id_text)
    except ValueError:
        return id_text


def _target(ids: Mapping[str, str | None]) -> AnnotationTarget:
    if ids["run_id"] is not None:
        return AnnotationTarget.SPAN
    return AnnotationTarget.PROJECT if ids["trace_id"] is None else AnnotationTarget.TRACE


def _plain(text: msgspec.Raw, name: str) -> Any:
    try:
        return orjson.loads(bytes(text))
    except ValueError:
        raise InvalidInput(f"{name} is not valid JSON.", fields=(name,)) from None


def _json(text: msgspec.Raw, name: str) -> bytes | None:
    """The bytes of a JSON value as they were sent; None for null."""
    sent = bytes(text)
    _plain(text, name)
    return None if sent == b"null" else sent


def _value(text: msgspec.Raw) -> tuple[bytes | None, str | None]:
    """(value, label)."""
    sent = _json(text, "value")
    plain = None if sent is None else orjson.loads(sent)
    return sent, plain if isinstance(plain, str) else None


def _score(sent: Any) -> tuple[float | None, dict[str, Any]]:
    """(the score as a number, what of `extra` keeps it as it was sent)."""
    if sent is None:
        return None, {}
    if not isinstance(sent, bool | int | float) or not math.isfinite(sent):
        raise InvalidInput("score must be a number, true, false or null.", fields=("score",))
    return float(sent), {} if isinstance(sent, float) else {"score": sent}


def _key(said: Mapping[str, Any]) -> str:
    key = said.get("key")
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARS_MAX:
        raise InvalidInput(f"key must be a text of 1 to {KEY_CHARS_MAX} characters.", fields=("key",))
    return key


def _comment(said: Mapping[str, Any]) -> str | None:
    comment = said.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise InvalidInput("comment must be text.", fields=("comment",))
    return comment


def _object(said: Mapping[str, Any], name: str) -> Json | None:
    value = said.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object.", fields=(name,))
    return value


def _uuid(said: Mapping[str, Any], name: str) -> str | None:
    return None if said.get(name) is None else read_uuid(said[name], name)


def _time(said: Mapping[str, Any], name: str, default_ns: int) -> int:
    found = optional_time(said, name)
    return default_ns if found is None else found


def _without(source: Json, *names: str) -> Json:
    return {name: value for name, value in source.items() if name not in names}


def _dump(said: Mapping[str, object] | None, *names: str) -> bytes | None:
    """As JSON. What can be read can be nested too deep to be written."""
    try:
        return orjson.dumps(said) if said else None
    except TypeError:
        raise InvalidInput(f"{', '.join(names)}: nested too deep.", fields=names) from None
