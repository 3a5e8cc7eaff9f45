"""The bodies in which LangSmith's clients send examples, as JSON and as multipart. Pure: nothing is looked up.

A multipart body has one part `{example}` with what is said about an example, and beside it `{example}.inputs`,
`{example}.outputs`, `{example}.attachments_operations` (JSON each) and `{example}.attachment.{name}` (bytes). Unlike a
batch of runs, a body of examples is taken whole or not at all: its sender waits for the answer and can mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.api.bodies import InvalidJson
from clearspan.api.langsmith.inputs import (
    Json,
    optional_object,
    optional_texts,
    optional_time,
    optional_uuid,
    read_uuid,
)
from clearspan.experiments.item_documents import NewAttachment
from clearspan.ingest.multipart import Part, split_multipart
from clearspan.ingest.run_parts import ATTACHMENT_NAME_CHARS_MAX, check_json
from clearspan.model.errors import InvalidInput, InvalidPayload, PayloadTooLarge

EXAMPLES_MAX: Final = 20_000
"""Examples in one body: clients cut theirs by bytes, at about 20 MB."""
Fields = dict[str, msgspec.Raw]
"""Fields of an example by name, each in the JSON text that the client sent."""
SPLIT_KEY: Final = "dataset_split"
"""Where clients look for the splits of an example, and write them: in its metadata."""
_CONTENT: Final = ("inputs", "outputs", "metadata")
_FIELD_PARTS: Final = frozenset({"inputs", "outputs", "attachments_operations"})
_PLAIN: Final = "application/octet-stream"
_decode: Final = msgspec.json.Decoder().decode
_decode_fields: Final = msgspec.json.Decoder(Fields).decode
_decode_list: Final = msgspec.json.Decoder(list[Fields]).decode


class ExampleBody(NamedTuple):
    """What a body says of one example, new or to be changed. None: not said.

    Inputs, outputs and metadata are JSON objects in the text that was sent: numbers keep their digits.
    """

    id: str | None  # 32 hex digits
    dataset_uuid: str | None  # 32 hex digits
    inputs: msgspec.Raw | None = None
    outputs: msgspec.Raw | None = None
    metadata: msgspec.Raw | None = None
    splits: tuple[str, ...] | None = None
    created_ns: int | None = None
    source_run_id: str | None = None  # 32 hex digits
    from_run: bool = False  # inputs and outputs are those of the source run
    run_attachments: tuple[str, ...] = ()  # those of the source run that are taken over
    attachments: tuple[NewAttachment, ...] = ()
    kept: Mapping[str, str] | None = None  # of a change: attachments that stay, old name → new; None: all


def read_example_body(body: bytes) -> ExampleBody:
    """One example as JSON. Raises InvalidInput, naming the key."""
    return _read(_fields(body))


def read_example_list(body: bytes) -> list[ExampleBody]:
    """A JSON list of examples. Raises InvalidInput, naming the place."""
    try:
        found = _decode_list(_checked(body))
    except msgspec.ValidationError:
        raise InvalidJson("The body must be a list of examples.") from None
    check_count(len(found))
    return [_placed(str(number), partial(_read, fields)) for number, fields in enumerate(found)]


def read_example_parts(body: bytes, boundary: bytes, *, attachment_bytes_max: int) -> list[ExampleBody]:
    """A multipart body of examples, in the order of their first parts.

    Raises:
        InvalidPayload: the boundary is nowhere in the body. InvalidInput: what is wrong with which part.
        PayloadTooLarge: an attachment is larger than `attachment_bytes_max`, or too many parts.
    """
    drafts: dict[str, Fields] = {}
    files: dict[str, dict[str, NewAttachment]] = {}
    for part in split_multipart(body, boundary):
        if part.fault is not None:
            raise InvalidInput(f"The part {part.name[:100]!r}: {part.fault}.", fields=(part.name[:100],))
        written, _, field = part.name.partition(".")
        example_id = read_uuid(written, part.name[:100])
        draft = drafts.setdefault(example_id, {})
        kind, _, name = field.partition(".")
        if kind == "attachment" and name:
            files.setdefault(example_id, {})[name] = _attachment(part, name, attachment_bytes_max)
        else:
            _take_part(draft, part, field)
    check_count(len(drafts))
    return [
        _placed(each, partial(_read, draft))._replace(id=each, attachments=tuple(files.get(each, {}).values()))
        for each, draft in drafts.items()
    ]


def read_operations(said: Json) -> dict[str, str]:
    """`{"retain": [names], "rename": {old: new}}` as old name → new name of every attachment that stays."""
    kept = {name: name for name in optional_texts(said, "retain") or ()}
    renamed = optional_object(said, "rename") or {}
    if not all(isinstance(new, str) for new in renamed.values()):
        raise InvalidInput("rename maps names to names.", fields=("attachments_operations",))
    for new in renamed.values():
        _check_name(new)
    kept |= renamed
    if len(set(kept.values())) < len(kept):
        raise InvalidInput("Two attachments would get one name.", fields=("attachments_operations",))
    return kept


def read_splits(value: Any, name: str = "split") -> tuple[str, ...] | None:
    """One split or a list of them; None for null. Raises InvalidInput."""
    if value is None:
        return None
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise InvalidInput(f"{name} must be a name or a list of names.", fields=(name,))
    return tuple(dict.fromkeys(found))


def check_count(count: int) -> None:
    """Raise InvalidInput for no example, PayloadTooLarge for more than one request may bring."""
    if not count:
        raise InvalidInput("There is no example in the body.")
    if count > EXAMPLES_MAX:
        raise PayloadTooLarge(f"A request takes at most {EXAMPLES_MAX:,} examples, not {count:,}; send less at once.")


def _read(fields: Fields) -> ExampleBody:
    said = {name: _value(name, raw) for name, raw in fields.items() if name not in _CONTENT}
    inputs, outputs, metadata = [_object_text(fields, name) for name in _CONTENT]
    operations = optional_object(said, "attachments_operations")
    splits = read_splits(said.get("split"))
    if metadata is not None and SPLIT_KEY.encode() in bytes(metadata):
        metadata, inner = _without_splits(metadata)
        splits = inner if splits is None else splits
    return ExampleBody(
        id=optional_uuid(said, "id"),
        dataset_uuid=optional_uuid(said, "dataset_id"),
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        splits=splits,
        created_ns=optional_time(said, "created_at"),
        source_run_id=optional_uuid(said, "source_run_id"),
        from_run=said.get("use_source_run_io") is True,
        run_attachments=tuple(optional_texts(said, "use_source_run_attachments") or ()),
        kept=None if operations is None else read_operations(operations),
    )


def _without_splits(metadata: msgspec.Raw) -> tuple[msgspec.Raw, tuple[str, ...] | None]:
    """(metadata, splits). Clients write back the metadata they read, in which the splits stand as well."""
    found = _decode_fields(metadata)
    splits = found.pop(SPLIT_KEY, None)
    if splits is None:
        return metadata, None
    return msgspec.Raw(msgspec.json.encode(found)), read_splits(_decode(splits), f"metadata.{SPLIT_KEY}")


def _object_text(fields: Fields, name: str) -> msgspec.Raw | None:
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    if bytes(raw)[:1] != b"{":
        raise InvalidInput(f"{name} must be an object.", fields=(name,))
    return raw


def _value(name: str, raw: msgspec.Raw) -> Any:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput(f"{name} cannot be read.", fields=(name[:100],)) from None


def _fields(body: bytes) -> Fields:
    try:
        return _decode_fields(_checked(body))
    except msgspec.ValidationError:
        raise InvalidJson("An example is a JSON object.") from None


def _checked(body: bytes) -> bytes:
    try:
        return check_json(body).strip()
    except InvalidPayload as error:
        raise InvalidJson(error.message) from None


def _take_part(draft: Fields, part: Part, field: str) -> None:
    name = part.name[:100]
    try:
        if not field:
            # Parts of their own win, whichever stands first.
            draft.update({key: each for key, each in _fields(part.content).items() if key not in draft})
        elif field in _FIELD_PARTS:
            draft[field] = msgspec.Raw(_checked(part.content))
        else:
            raise InvalidInput(f"{field[:100]!r} is no part of an example.")
    except InvalidInput as error:
        raise type(error)(f"The part {name!r}: {error.message}", fields=(name,)) from None


def _attachment(part: Part, name: str, bytes_max: int) -> NewAttachment:
    _check_name(name)
    if len(part.content) > bytes_max:
        raise PayloadTooLarge(f"The attachment {name!r} is larger than {bytes_max:,} bytes; nothing was stored.")
    return NewAttachment(name, part.media_type or _PLAIN, part.content)


def _check_name(name: str) -> None:
    if not 0 < len(name) <= ATTACHMENT_NAME_CHARS_MAX or not name.isprintable():
        raise InvalidInput(
            f"The name of an attachment has 1 to {ATTACHMENT_NAME_CHARS_MAX} characters, none a control one.",
            fields=("attachments",),
        )


def _placed(place: str, read: Callable[[], ExampleBody]) -> ExampleBody:
    """What `read` gives; its errors say in which example they are."""
    try:
        return read()
    except InvalidInput as error:
        fields = tuple(f"{place}.{field}" for field in error.fields) or (place,)
        raise type(error)(f"Example {place}: {error.message}", fields=fields) from None
