"""What clients say of datasets and of their rows: read and checked before anything is stored.

The values of a row are taken as the JSON text they came in, so that numbers keep their digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from starlette.requests import Request

from clearspan.api.bodies import body_limits, parse_json_object
from clearspan.api.intake import is_large
from clearspan.api.limits import read_body
from clearspan.api.respan.convert import Json
from clearspan.api.respan.datasets.finding import uuid_hex
from clearspan.api.services import services_of
from clearspan.catalog.datasets import DatasetSettings, SourcePolicy
from clearspan.experiments.item_schemas import check_schema
from clearspan.experiments.items import ItemChange, NewItem
from clearspan.ingest.run_parts import check_json
from clearspan.model.errors import InvalidInput

MEMBERS: Final = frozenset({
    "name", "description", "starred", "tags", "granularity", "on_source_deleted", "inputs_schema", "outputs_schema",
    "type",
})  # fmt: skip
"""What a body may say of a dataset itself. `type` is passed over: the oldest clients say by it how rows came."""
LOGS_MAX: Final = 500
"""Rows in one request, as the API's own limit is."""
GRANULARITIES: Final = ("logs", "traces")
OURS: Final = "respan"
"""Under which key of a dataset's `extra` stands what only this API has."""
_VALUES: Final = {"input": "inputs", "expected_output": "outputs", "output": "observed", "metadata": "metadata"}
"""Key of a row → value of an item. What the row answered is not the reference."""
_LEGACY: Final = {"prompt": "input", "completion": "output"}
_MEASURED: Final = ("error_code", "error_message")
"""Keys of a row that stand among its metrics here."""
_NULL: Final = msgspec.Raw(b"null")
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

RawRow = Mapping[str, msgspec.Raw]


class SaidOfDataset(NamedTuple):
    """What a body says of a dataset."""

    name: str | None
    settings: DatasetSettings
    own: Json  # what only this API has: see OURS


async def read_rows(request: Request) -> tuple[Json, dict[str, msgspec.Raw]]:
    """The body as an object, decoded and with each member in its own text; half a character becomes U+FFFD.

    Raises:
        InvalidInput, PayloadTooLarge, RequestTimeout: see bodies.read_json_object.
        Overloaded: too much is on its way.
    """
    services = services_of(request)
    with services.gateway.reserve() as reservation:
        body = await read_body(request, body_limits(services.settings), reservation)

        def decode() -> tuple[Json, dict[str, msgspec.Raw]]:
            text = check_json(body) if body.strip() else b"{}"
            return parse_json_object(text), _object.decode(text)

        return await services.gateway.decode(is_large(body, ""), decode)


def new_item(raw: RawRow, said: Mapping[str, Any]) -> NewItem:
    """A new row. Raises InvalidInput, naming the key."""
    values = _values(raw, said)
    if "inputs" not in values:
        raise InvalidInput("input is required.", fields=("input",))
    item_id = said.get("id")
    if item_id is not None and (not isinstance(item_id, str) or uuid_hex(item_id) is None):
        raise InvalidInput("id is a UUID.", fields=("id",))
    return NewItem(**values, id=item_id, splits=_splits(said) or ())


def item_change(item_id: str, raw: RawRow, said: Mapping[str, Any], *, replaces: bool, metrics: Json) -> ItemChange:
    """What a body changes of a row.

    Args:
        replaces: what it does not say is cleared, apart from the input.
        metrics: the row's present ones, which some keys are added to.
    Raises:
        InvalidInput: naming the key.
    """
    values = _values(raw, said, metrics={} if replaces else metrics)
    splits = _splits(said)
    if replaces:
        values = dict.fromkeys(("outputs", "observed", "metadata", "metrics")) | values
        splits = splits or []
    if splits is not None:
        values["splits"] = splits
    return ItemChange(item_id, **values)


def read_dataset(body: Mapping[str, Any]) -> SaidOfDataset:
    """Everything that a body says of a dataset itself. Raises InvalidInput, naming the key."""
    policy = _text(body, "on_source_deleted")
    if policy is not None and policy not in tuple(SourcePolicy):
        raise InvalidInput(f"on_source_deleted is one of {', '.join(SourcePolicy)}.", fields=("on_source_deleted",))
    granularity = _text(body, "granularity")
    if granularity is not None and granularity not in GRANULARITIES:
        raise InvalidInput(f"granularity is one of {', '.join(GRANULARITIES)}.", fields=("granularity",))
    starred, tags = body.get("starred"), body.get("tags")
    if starred is not None and not isinstance(starred, bool):
        raise InvalidInput("starred is true or false.", fields=("starred",))
    if tags is not None and not (isinstance(tags, list) and all(isinstance(each, str) for each in tags)):
        raise InvalidInput("tags is a list of texts.", fields=("tags",))
    own = {"granularity": granularity, "starred": starred, "tags": tags}
    return SaidOfDataset(
        _text(body, "name"),
        DatasetSettings(
            description=_text(body, "description"),
            on_source_deleted=None if policy is None else SourcePolicy(policy),
            inputs_schema=_schema(body, "inputs_schema"),
            outputs_schema=_schema(body, "outputs_schema"),
        ),
        {name: value for name, value in own.items() if value is not None},
    )


def merged_extra(extra: Mapping[str, Any] | None, own: Json) -> Json | None:
    """A dataset's `extra` with what a body says of ours laid over it; None: nothing is said."""
    if not own:
        return None
    before = (extra or {}).get(OURS)
    return {**(extra or {}), OURS: {**(before if isinstance(before, dict) else {}), **own}}


def _values(raw: RawRow, said: Mapping[str, Any], metrics: Json | None = None) -> dict[str, Any]:
    """The values of an item that a row gives, by name."""
    for key in ("metadata", "metrics"):
        if said.get(key) is not None and not isinstance(said[key], dict):
            raise InvalidInput(f"{key} must be an object.", fields=(key,))
    values: dict[str, Any] = {_VALUES[_LEGACY[key]]: raw[key] for key in _LEGACY if said.get(key) is not None}
    values |= {name: raw[key] for key, name in _VALUES.items() if key in raw}
    measured = {key: raw[key] for key in _MEASURED if key in raw}
    if measured:
        given = _object.decode(raw["metrics"]) if said.get("metrics") is not None else metrics or {}
        values["metrics"] = {**given, **measured}
    elif "metrics" in raw:
        values["metrics"] = raw["metrics"]
    return values


def _splits(said: Mapping[str, Any]) -> list[str] | None:
    splits = said.get("splits")
    if splits is not None and not (isinstance(splits, list) and all(isinstance(each, str) for each in splits)):
        raise InvalidInput("splits is a list of names.", fields=("splits",))
    return splits


def _schema(body: Mapping[str, Any], name: str) -> Json | None:
    schema = body.get(name)
    if schema is not None and not isinstance(schema, dict):
        raise InvalidInput(f"{name} must be an object.", fields=(name,))
    check_schema(schema, name)
    return schema


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{key} must be text.", fields=(key,))
    return value
