"""A dataset item ↔ the LangSmith run document it is stored as, one document a version. Pure.

A version is a trace of one run (docs/adr: items are traces). Its run holds the item's values each in its own JSON text,
so they come back as they came, digits and all. What filters must find stands in the run's metadata, ours first:

    dataset_item_id               of every version, 32 hex digits
    dataset_item_until            only of a superseded version: the time from which the next one holds, fixed width
    dataset_item_splits           its splits, a line each, with a line break before the first and after the last
    source_run_id                 the run whose text the item holds: whatever deletes that run finds the item by it
    …                             the item's own metadata, as far as the store indexes that many values

The item's own metadata stands whole, and apart from ours, in a field of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.ingest.metadata import flatten
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, decode_record
from clearspan.ingest.respan import parse_time
from clearspan.ingest.run_document import object_fields, run_fields
from clearspan.ingest.run_parts import RunOperation, check_json
from clearspan.ingest.semconv import METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import InvalidInput, InvalidPayload, StoreDamaged
from clearspan.store.port import TraceRow
from clearspan.store.spans import AttachmentInfo

ITEM_ID_KEY: Final = "dataset_item_id"
UNTIL_KEY: Final = "dataset_item_until"
SPLITS_KEY: Final = "dataset_item_splits"
REDACTED_KEY: Final = "dataset_item_redacted"
SOURCE_KEY: Final = "source_run_id"

_OURS: Final = "dataset_item_"
_FIELDS: Final = {
    "inputs": "inputs", "outputs": "outputs", "metadata": "item_metadata", "observed": "observed_output",
    "metrics": "metrics",
}  # fmt: skip
"""Value of an item → field of its run."""
_NULL: Final = b"null"
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class NewAttachment(NamedTuple):
    """A file to be stored with an item."""

    name: str
    mime_type: str
    data: bytes


class ItemAttachment(NamedTuple):
    """A file that is stored with an item."""

    name: str
    mime_type: str
    size_bytes: int


class NewItem(NamedTuple):
    """An item to be added. Values are plain JSON values, or `msgspec.Raw` with their JSON text, which is kept as it is.

    `outputs` is the reference: what a good answer looks like.
    """

    inputs: Any
    outputs: Any = None
    metadata: Any = None  # an object; None: {}
    splits: Sequence[str] = ()
    id: str | None = None  # a UUID; None: a new one
    source_run_id: str | None = None  # run id (model.runs) of the run it was made from
    created_ns: int | None = None  # None: now
    attachments: Sequence[NewAttachment] = ()
    observed: Any = None  # what was answered when the item was recorded, where that is not the reference
    metrics: Any = None  # what was measured then


class Item(NamedTuple):
    """One version of a dataset item."""

    id: str  # 32 hex digits; the same in all versions
    dataset_uuid: str
    trace_id: str  # of this version
    inputs: Any
    outputs: Any  # the reference output; None: there is none
    metadata: dict[str, Any]
    splits: tuple[str, ...]
    source_run_id: str | None
    created_ns: int
    modified_ns: int  # this version holds from then on
    until_ns: int | None  # … until then; None: it is the current one
    redacted: bool  # its content was erased with its source's, and this holds its place
    attachments: tuple[ItemAttachment, ...] = ()
    observed: Any = None
    metrics: Any = None
    texts: Mapping[str, bytes] = {}  # inputs, outputs, metadata, observed, metrics: JSON as it was given

    def raw(self, name: str) -> msgspec.Raw:
        """One of the values of `texts` to be written out as it was given: numbers keep their digits."""
        return msgspec.Raw(self.texts.get(name, _NULL))


class Version(NamedTuple):
    """What a version says, every value in its JSON text."""

    item_id: str
    trace_id: str
    texts: Mapping[str, bytes]
    splits: tuple[str, ...]
    source_run_id: str | None
    created_ns: int
    from_ns: int  # in whole microseconds
    redacted: bool = False


def value_text(value: Any, name: str) -> bytes:
    """The JSON text of a value.

    Raises:
        InvalidInput: it has none: a number that is not finite, half a character, something that is no JSON.
    """
    if isinstance(value, msgspec.Raw):
        try:
            return check_json(bytes(value))
        except InvalidPayload as error:
            raise InvalidInput(f"{name}: {error.message}", fields=(name,)) from None
    try:
        text = _encode(value)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidInput(f"{name} holds a value that is not JSON.", fields=(name,)) from None
    if _NULL in text and _has_infinite(value):  # the encoder writes those as null
        raise InvalidInput(f"{name} holds a number that is not finite.", fields=(name,))
    return text


def check_splits(splits: Sequence[str]) -> tuple[str, ...]:
    """Splits without repetitions, in the order given. Raises InvalidInput."""
    found = tuple(dict.fromkeys(splits))
    if not all(isinstance(each, str) and each and _is_plain(each) for each in found):
        raise InvalidInput("A split's name is printable text.", fields=("split",))
    if len(splits_text(found)) > METADATA_VALUE_CHARS_MAX:
        text = f"The names of an item's splits have at most {METADATA_VALUE_CHARS_MAX} characters together."
        raise InvalidInput(text, fields=("split",))
    return found


def splits_text(splits: Sequence[str]) -> str:
    """What `SPLITS_KEY` holds: a split is found by its name between two line breaks."""
    return "\n" + "".join(f"{each}\n" for each in splits)


def time_text(ns: int) -> str:
    """A time in whole microseconds, as text that sorts as the times do."""
    return f"{datetime_from_ns(ns):%Y-%m-%dT%H:%M:%S.%f}Z"


def whole_microseconds(ns: int) -> int:
    """Clients name versions by times in microseconds, so versions begin at such."""
    return ns // 1000 * 1000


def version_operation(version: Version) -> RunOperation:
    """The message that writes a version.

    Raises:
        InvalidInput: the metadata is no object.
    """
    texts, at = version.texts, _encode(time_text(version.from_ns))
    own = _decode_object(texts.get("metadata", b"{}"))
    item: dict[str, Any] = {"created_ns": version.created_ns, "splits": version.splits}
    if version.redacted:
        item["redacted"] = True
    fields = {
        "trace_id": _encode(version.trace_id),
        "name": _encode(version.item_id),  # a word here would be found in every item
        "run_type": b'"chain"',
        "start_time": at,
        "end_time": at,
        "extra": _encode({"metadata": dict(_indexed(version, own)), "item": item}),
        **{_FIELDS[name]: text for name, text in texts.items()},
    }
    return RunOperation(False, version.trace_id, fields)


def superseding_operation(trace_id: str, until_ns: int) -> RunOperation:
    """The message that ends a version."""
    extra = _encode({"metadata": {UNTIL_KEY: time_text(until_ns)}})
    return RunOperation(True, trace_id, {"trace_id": _encode(trace_id), "extra": extra})


def read_version(
    dataset_uuid: str, row: TraceRow, record: bytes, attachments: Sequence[AttachmentInfo] = ()
) -> Item | None:
    """A stored version; None for a trace that is none.

    Args:
        record: the wire record of its root.
    Raises:
        StoreDamaged: the record cannot be read.
    """
    wire = decode_record(record)
    if wire.codec != CODEC_LANGSMITH_RUN:
        return None
    fields = run_fields(wire.raw)
    extra = object_fields(fields.get("extra")) or {}
    marks, item = _values(extra.get("metadata")), _values(extra.get("item"))
    item_id = marks.get(ITEM_ID_KEY)
    if not isinstance(item_id, str):
        return None
    from_ns = row.summary.start_ns
    version = Version(
        item_id,
        row.summary.trace_id,
        {name: bytes(fields[field]) for name, field in _FIELDS.items() if field in fields},
        tuple(item.get("splits", ())),
        marks.get(SOURCE_KEY),
        item.get("created_ns", from_ns),
        from_ns,
        bool(item.get("redacted") or marks.get(REDACTED_KEY)),
    )
    files = [ItemAttachment(each.name, each.mime_type, each.size_bytes) for each in attachments]
    return item_of(dataset_uuid, version, files, until_ns=parse_time(marks.get(UNTIL_KEY)))


def item_of(
    dataset_uuid: str, version: Version, attachments: Sequence[ItemAttachment], *, until_ns: int | None = None
) -> Item:
    """A version with its values decoded. Raises StoreDamaged when they cannot be."""
    texts = {name: text for name, text in version.texts.items() if text != _NULL}
    return Item(
        id=version.item_id,
        dataset_uuid=dataset_uuid,
        trace_id=version.trace_id,
        inputs=_value(texts, "inputs"),
        outputs=_value(texts, "outputs"),
        metadata=_value(texts, "metadata") or {},
        splits=version.splits,
        source_run_id=version.source_run_id,
        created_ns=version.created_ns,
        modified_ns=version.from_ns,
        until_ns=until_ns,
        redacted=version.redacted,
        attachments=tuple(sorted(attachments)),
        observed=_value(texts, "observed"),
        metrics=_value(texts, "metrics"),
        texts=texts,
    )


def _indexed(version: Version, own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The run's metadata: ours, then as much of the item's own as leaves room for `UNTIL_KEY`."""
    yield ITEM_ID_KEY, version.item_id
    room = METADATA_PAIRS_MAX - 2
    if version.redacted:
        yield REDACTED_KEY, True
        room -= 1
    if version.source_run_id is not None:
        yield SOURCE_KEY, version.source_run_id
        room -= 1
    if version.splits:
        yield SPLITS_KEY, splits_text(version.splits)
        room -= 1
    for key, value in own.items():
        room -= sum(1 for _ in flatten(value, key))
        if room < 0:
            return
        if not key.startswith(_OURS) and key != SOURCE_KEY:
            yield key, value


def _decode_object(text: bytes) -> dict[str, Any]:
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput("metadata holds JSON that cannot be read, or a number too large.") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput("metadata must be an object.", fields=("metadata",))
    return found


def _values(raw: msgspec.Raw | None) -> dict[str, Any]:
    return {name: _decode(each) for name, each in (object_fields(raw) or {}).items()} if raw is not None else {}


def _value(texts: Mapping[str, bytes], name: str) -> Any:
    text = texts.get(name)
    try:
        return None if text is None else _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StoreDamaged(f"a dataset item's {name} cannot be read: {error}") from error


def _has_infinite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_infinite, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_infinite, value))


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return text.isprintable()
