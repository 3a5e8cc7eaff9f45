"""The bodies in which LangSmith's clients send runs → one operation per run, with each field's own JSON text.

Four shapes: one run (POST /runs), a part of one (PATCH /runs/{id}), `{"post": […], "patch": […]}`, and multipart,
where large fields travel in parts of their own (`post.{run}.inputs`) beside feedback and attachments. What cannot be
read rejects the run it belongs to and nothing else. What the fields mean is ingest/langsmith.py's to say.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Any, Final, Literal, NamedTuple

import msgspec

from clearspan.ingest.multipart import Part, split_multipart
from clearspan.ingest.surrogates import without_lone_surrogates
from clearspan.model.errors import InvalidPayload
from clearspan.model.ids import normalise_id

FIELD_PARTS: Final = frozenset({"inputs", "outputs", "events", "extra", "error", "serialized"})
"""Fields that may travel in a part of their own."""
ATTACHMENT_NAME_CHARS_MAX: Final = 255

_UUID: Final = re.compile(r"[0-9a-f]{32}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ID_SHOWN_CHARS: Final = 64
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder(msgspec.Raw)
_text = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder()


class RunOperation(NamedTuple):
    """What one request says about one run."""

    is_update: bool  # a patch; else a create
    run_id: str  # 32 hex digits
    fields: dict[str, bytes]  # name → JSON text; without `id` and `attachments`
    values: dict[str, Any] | None = None  # the same fields decoded, where checking them has done it; None: not yet


class AttachmentPart(NamedTuple):
    """Bytes that belong to a run."""

    run_id: str  # 32 hex digits
    name: str
    mime_type: str
    data: bytes


class Rejection(NamedTuple):
    """Something of a request that was not stored."""

    kind: Literal["run", "feedback", "attachment"]
    id: str  # of the run or the feedback, as the sender wrote it, cut; "" when it could not be read
    reason: str  # for the sender; may quote what it sent
    code: str = "invalid_payload"  # of a closed set: for logs and figures
    name: str = ""  # of the attachment


class RunRequest(NamedTuple):
    """A request, taken apart. The order of operations is that of the body."""

    operations: list[RunOperation]
    feedback: list[tuple[str, bytes]]  # (id in the part's name, JSON text)
    attachments: list[AttachmentPart]
    rejections: list[Rejection]


class _Batch(msgspec.Struct):
    post: list[msgspec.Raw] | None = None
    patch: list[msgspec.Raw] | None = None


_batch = msgspec.json.Decoder(_Batch)


def read_run(body: bytes, *, run_id: str | None = None) -> RunRequest:
    """The body of POST /runs, or with `run_id` (from the path) that of PATCH /runs/{run_id}.

    Raises:
        InvalidPayload: not JSON. A JSON object that cannot be a run is a rejection.
    """
    request = RunRequest([], [], [], [])
    _add_run(request, check_json(body), run_id is not None, run_id)
    return request


def read_batch(body: bytes) -> RunRequest:
    """The body of POST /runs/batch.

    Raises:
        InvalidPayload: not JSON, or no object with lists under `post` and `patch`.
    """
    try:
        found = _batch.decode(check_json(body))
    except msgspec.ValidationError as error:
        raise InvalidPayload('the body must be {"post": [runs], "patch": [runs]}') from error
    request = RunRequest([], [], [], [])
    for is_update, runs in ((False, found.post), (True, found.patch)):
        for raw in runs or ():
            _add_run(request, bytes(raw), is_update, None)
    return request


def read_multipart(body: bytes, boundary: bytes) -> RunRequest:
    """The body of POST /runs/multipart. 20 to 30 µs for a run of 2 KB in five parts.

    Raises:
        InvalidPayload: the boundary is nowhere in the body. PayloadTooLarge: too many parts.
    """
    request = RunRequest([], [], [], [])
    drafts: list[_Draft] = []
    open_drafts: dict[tuple[str, str], _Draft] = {}
    for part in split_multipart(body, boundary):
        kind, _, rest = part.name.partition(".")
        if kind in ("post", "patch"):
            _take_run_part(kind, rest, part, drafts, open_drafts)
        elif kind == "attachment":
            _take_attachment(request, rest, part)
        elif kind == "feedback":
            _take_feedback(request, rest, part)
        else:
            fault = part.fault or "a part's name begins with post, patch, feedback or attachment"
            request.rejections.append(Rejection("run", shown(part.name), fault))
    for draft in drafts:
        _finish(request, draft)
    return request


def check_json(body: bytes) -> bytes:
    """The same bytes, U+FFFD for lone surrogates. Raises InvalidPayload when they are not one JSON value in UTF-8."""
    try:
        if not body.isascii():
            body.decode()
        _value.decode(body)
    except (ValueError, RecursionError) as error:
        mended = without_lone_surrogates(body)
        if mended is not body:
            return check_json(mended)
        raise InvalidPayload(f"not valid JSON: {error}" if str(error) else "not valid JSON") from error
    return body


class _Draft:
    """The parts of one run while they come."""

    __slots__ = ("fault", "fields", "is_update", "main", "run_id")

    def __init__(self, is_update: bool, run_id: str) -> None:
        self.is_update = is_update
        self.run_id = run_id
        self.main: bytes | None = None
        self.fields: dict[str, bytes] = {}
        self.fault: str | None = None


def _take_run_part(
    kind: str, rest: str, part: Part, drafts: list[_Draft], open_drafts: dict[tuple[str, str], _Draft]
) -> None:
    run_id, dot, name = rest.partition(".")
    key = (kind, run_id)
    draft = open_drafts.get(key)
    if draft is None or (not dot and draft.main is not None):
        draft = open_drafts[key] = _Draft(kind == "patch", run_id)
        drafts.append(draft)
    if part.fault:
        draft.fault = draft.fault or f"{name or 'its main part'}: {part.fault}"
        # The main part is there, though unreadable: the next one of that name is another operation.
        draft.main = draft.main if dot else b""
    elif not dot:
        draft.main = part.content
    elif name in FIELD_PARTS:
        draft.fields[name] = part.content
    else:
        draft.fault = draft.fault or f"{shown(name)} is no field that may come in a part of its own"


def _finish(request: RunRequest, draft: _Draft) -> None:
    fault = draft.fault
    if fault is None and draft.main is None:
        fault = "it has no main part"
    if fault is not None:
        request.rejections.append(Rejection("run", shown(draft.run_id), fault))
        return
    assert draft.main is not None
    _add_run(request, draft.main, draft.is_update, draft.run_id, draft.fields)


def _add_run(
    request: RunRequest, raw: bytes, is_update: bool, run_id: str | None, parts: dict[str, bytes] | None = None
) -> None:
    """Add one run to the request, or the reason why not."""
    sent_id = run_id or ""
    try:
        fields, values = _fields(raw), _values(raw)
        own = fields.pop("id", None)
        own_id = None if own is None or own == b"null" else _decode_text(own)
        sent_id = sent_id or own_id or ""
        found_id = None if run_id is None else check_run_id(run_id)
        if own_id is not None and own_id != run_id:
            other_id = check_run_id(own_id)
            if found_id is not None and found_id != other_id:
                raise InvalidPayload("its id is another than the one it is sent under")
            found_id = other_id
        if found_id is None:
            raise InvalidPayload("it has no id")
        if parts:
            values = _add_parts(fields, values, parts)
    except InvalidPayload as error:
        request.rejections.append(Rejection("run", shown(sent_id), error.message))
        return
    attached = fields.pop("attachments", None)
    request.operations.append(RunOperation(is_update, found_id, fields, values))
    if attached is not None:
        _take_inline(request, found_id, attached)


def _add_parts(
    fields: dict[str, bytes], values: dict[str, Any] | None, parts: dict[str, bytes]
) -> dict[str, Any] | None:
    """Adds the fields that came by themselves, and their values: decoding a text costs what checking it does."""
    for name, content in parts.items():
        try:
            value = _any.decode(content)
            fields[name] = content
            if values is not None:
                values[name] = value
        except (ValueError, RecursionError):
            values = None  # it may be JSON all the same, with something that cannot be decoded
            try:
                fields[name] = check_json(content)
            except InvalidPayload as error:
                raise InvalidPayload(f"{name}: {error.message}") from error
    return values


def _values(raw: bytes) -> dict[str, Any] | None:
    """The members of a run's object but `id`, decoded; None where that cannot be."""
    if b'"attachments"' in raw:
        return None  # files in base64 are decoded once, as files
    try:
        found = _any.decode(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "attachments" in found:
        return None
    found.pop("id", None)
    return found


def _fields(raw: bytes) -> dict[str, bytes]:
    try:
        if not raw.isascii():
            raw.decode()
        return {name: bytes(value) for name, value in _object.decode(raw).items()}
    except msgspec.ValidationError as error:
        raise InvalidPayload("a run must be a JSON object") from error
    except (ValueError, RecursionError) as error:
        mended = without_lone_surrogates(raw)
        if mended is not raw:
            return _fields(mended)
        raise InvalidPayload("not valid JSON") from error


def _decode_text(raw: bytes) -> str:
    try:
        return _text.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidPayload("an id must be text") from error


def check_run_id(text: str) -> str:
    """The normal form of a run's id. Raises InvalidPayload: it is no UUID."""
    try:
        found = normalise_id(text)
    except ValueError:
        found = ""
    if not _UUID.fullmatch(found):
        raise InvalidPayload("its id is not a UUID")
    return found


def _take_attachment(request: RunRequest, rest: str, part: Part) -> None:
    run_id, _, name = rest.partition(".")
    try:
        if part.fault:
            raise InvalidPayload(part.fault)
        _attach(request, check_run_id(run_id), name, part.media_type, part.content)
    except InvalidPayload as error:
        _reject_attachment(request, run_id, name, error.message)


def _take_inline(request: RunRequest, run_id: str, raw: bytes) -> None:
    """Attachments inside of a run's JSON: name → [MIME type, base64]."""
    if raw == b"null":
        return
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        _reject_attachment(request, run_id, "", "attachments must be an object")
        return
    for name, each in found.items():
        try:
            mime_type, text = msgspec.json.decode(each, type=tuple[str, str])
            _attach(request, run_id, name, mime_type.lower(), b64decode(text, validate=True))
        except (msgspec.ValidationError, binascii.Error, ValueError):
            _reject_attachment(request, run_id, name, "it must be [MIME type, base64]")
        except InvalidPayload as error:
            _reject_attachment(request, run_id, name, error.message)


def _attach(request: RunRequest, run_id: str, name: str, mime_type: str, data: bytes) -> None:
    if not 0 < len(name) <= ATTACHMENT_NAME_CHARS_MAX or _CONTROL.search(name):
        raise InvalidPayload(f"its name must have 1 to {ATTACHMENT_NAME_CHARS_MAX} characters, none a control one")
    request.attachments.append(AttachmentPart(run_id, name, mime_type or "application/octet-stream", data))


def _reject_attachment(request: RunRequest, run_id: str, name: str, reason: str) -> None:
    request.rejections.append(Rejection("attachment", shown(run_id), reason, name=shown(name)))


def _take_feedback(request: RunRequest, rest: str, part: Part) -> None:
    try:
        if part.fault:
            raise InvalidPayload(part.fault)
        request.feedback.append((rest, check_json(part.content)))
    except InvalidPayload as error:
        request.rejections.append(Rejection("feedback", shown(rest), error.message))


def shown(text: str) -> str:
    """Enough of what the sender wrote to find it again."""
    return _CONTROL.sub("�", text[:_ID_SHOWN_CHARS])
