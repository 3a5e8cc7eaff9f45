"""The bodies in which LangSmith's clients send runs → one piece for each message about a run.

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

from clearspan.ingest.langsmith import FIELD_PARTS, RunPiece
from clearspan.ingest.multipart import Part, split_multipart
from clearspan.ingest.run_document import Op
from clearspan.ingest.run_promotion import run_uuid
from clearspan.model.errors import InvalidPayload

ATTACHMENT_NAME_CHARS_MAX: Final = 255

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ID_SHOWN_CHARS: Final = 64
_INLINE: Final = b'"attachments"'
_value = msgspec.json.Decoder(msgspec.Raw)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPS: Final[dict[str, Op]] = {"post": "create", "patch": "update"}


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
    """A request, taken apart. The order of pieces is that of the body."""

    pieces: list[RunPiece]
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
        InvalidPayload: not JSON.
    """
    request = RunRequest([], [], [], [])
    _add(request, "create" if run_id is None else "update", run_id, check_json(body), {})
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
    for name, runs in (("post", found.post), ("patch", found.patch)):
        for raw in runs or ():
            _add(request, _OPS[name], None, bytes(raw), {})
    return request


def read_multipart(body: bytes, boundary: bytes) -> RunRequest:
    """The body of POST /runs/multipart. 10 to 15 µs a run of five parts.

    Raises:
        InvalidPayload: the boundary is nowhere in the body. PayloadTooLarge: too many parts.
    """
    request = RunRequest([], [], [], [])
    drafts: list[_Draft] = []
    last: dict[tuple[str, str], _Draft] = {}
    for part in split_multipart(body, boundary):
        kind, _, rest = part.name.partition(".")
        if kind in _OPS:
            _take_run_part(kind, rest, part, drafts, last)
        elif kind == "attachment":
            _take_attachment(request, rest, part)
        elif kind == "feedback":
            _take_feedback(request, rest, part)
        else:
            fault = part.fault or "a part's name begins with post, patch, feedback or attachment"
            request.rejections.append(Rejection("run", shown(part.name), fault))
    for draft in drafts:
        if draft.fault is not None:
            request.rejections.append(Rejection("run", shown(draft.run_id), draft.fault))
        else:
            _add(request, draft.op, draft.run_id, draft.main, draft.fields)
    return request


def check_json(body: bytes) -> bytes:
    """The same bytes. Raises InvalidPayload when they are not one JSON value in UTF-8."""
    try:
        if not body.isascii():
            body.decode()
        _value.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload("not valid JSON") from error
    return body


class _Draft:
    """One message about a run while its parts come."""

    __slots__ = ("fault", "fields", "main", "op", "run_id")

    def __init__(self, op: Op, run_id: str) -> None:
        self.op = op
        self.run_id = run_id
        self.main: bytes | None = None
        self.fields: dict[str, bytes] = {}
        self.fault: str | None = None


def _take_run_part(kind: str, rest: str, part: Part, drafts: list[_Draft], last: dict[tuple[str, str], _Draft]) -> None:
    """A main part begins a message, unless only fields of one have come; a field joins the last of its run and kind."""
    run_id, dot, name = rest.partition(".")
    draft = last.get((kind, run_id))
    if draft is None or (not dot and draft.main is not None):
        draft = last[kind, run_id] = _Draft(_OPS[kind], run_id)
        drafts.append(draft)
    if part.fault:
        draft.fault = draft.fault or f"{shown(name) or 'its main part'}: {part.fault}"
    if not dot:
        draft.main = part.content
    elif name in FIELD_PARTS:
        draft.fields[name] = part.content
    else:
        draft.fault = draft.fault or f"{shown(name)} is no field that may come in a part of its own"


def _add(request: RunRequest, op: Op, run_id: str | None, main: bytes | None, fields: dict[str, bytes]) -> None:
    """One piece, and the attachments that its JSON may hold."""
    if main is not None and _INLINE in main:
        try:
            members = _members.decode(main)
        except (ValueError, RecursionError):
            members = {}  # whoever reads the run says what is wrong with it
        attached = members.pop("attachments", None)
        if attached is not None:
            main = msgspec.json.encode(members)
            _take_inline(request, run_id or _text(members.get("id")), bytes(attached))
    request.pieces.append(RunPiece(op, run_id, main, fields))


def _text(raw: msgspec.Raw | None) -> str:
    value: Any = None if raw is None else msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""


def _take_attachment(request: RunRequest, rest: str, part: Part) -> None:
    run_id, _, name = rest.partition(".")
    try:
        if part.fault:
            raise InvalidPayload(part.fault)
        _attach(request, run_id, name, part.media_type, part.content)
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
    found = run_uuid(run_id, "the run's id")
    request.attachments.append(AttachmentPart(found, name, mime_type or "application/octet-stream", data))


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
