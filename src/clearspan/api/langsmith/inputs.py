"""Reading ids, switches, numbers and times as LangSmith's clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request

from clearspan.api.respan.window import parse_time
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import InvalidInput
from clearspan.model.ids import normalise_id

Json = dict[str, Any]

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_MS_NS: Final = 1_000_000
_NUMBER_MAX: Final = 2**53
_NS_MAX: Final = 2**63 - 1  # what the stores keep a time in


def uuid_text(hex32: str) -> str:
    """32 hex digits as the UUID that clients know."""
    return str(UUID(hex=hex32))


def read_uuid(text: object, name: str) -> str:
    """A UUID with or without dashes as 32 hex digits. Raises InvalidInput, naming the parameter."""
    if isinstance(text, str):
        try:
            found = normalise_id(text)
            UUID(hex=found)
            return found
        except ValueError:
            pass
    raise InvalidInput(f"{name} must be a UUID.", fields=(name,))


def path_uuid(request: Request, name: str) -> str:
    """The UUID in a path."""
    return read_uuid(request.path_params[name], name)


def read_uuids(query: QueryParams, name: str) -> list[str]:
    """Every UUID of a repeated parameter."""
    return [read_uuid(each, name) for each in query.getlist(name)]


def query_uuid(query: QueryParams, name: str) -> str | None:
    """A UUID of a query; absent and empty are None. Raises InvalidInput."""
    return read_uuid(query[name], name) if query.get(name) else None


def optional_uuid(body: Mapping[str, Any], name: str) -> str | None:
    """A UUID of a body; null and absent are None."""
    return None if body.get(name) is None else read_uuid(body[name], name)


def read_switch(query: QueryParams, name: str, default: bool = False) -> bool:
    """A truth value of a query: Python's clients write `True`, others `true`. Raises InvalidInput."""
    text = query.get(name, "").lower()
    if text and text not in _TRUE | _FALSE:
        raise InvalidInput(f"{name} must be true or false.", fields=(name,))
    return text in _TRUE if text else default


def read_count(query: QueryParams, name: str, default: int, *, least: int = 0, most: int = _NUMBER_MAX) -> int:
    """A whole number of a query between two bounds. Raises InvalidInput."""
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not least <= int(text) <= most:
        raise InvalidInput(f"{name} must be a whole number from {least} to {most}.", fields=(name,))
    return int(text)


def optional_count(body: Mapping[str, Any], name: str) -> int | None:
    """A whole number of a body; null and absent are None. Raises InvalidInput."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _NUMBER_MAX:
        raise InvalidInput(f"{name} must be a whole number.", fields=(name,))
    return value


def optional_text(body: Mapping[str, Any], name: str) -> str | None:
    """A text of a body; null and absent are None. Raises InvalidInput."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name} must be text.", fields=(name,))
    return value


def optional_object(body: Mapping[str, Any], name: str) -> Json | None:
    """An object of a body; null and absent are None. Raises InvalidInput."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object.", fields=(name,))
    return value


def optional_texts(body: Mapping[str, Any], name: str) -> list[str] | None:
    """A list of texts of a body; null and absent are None. Raises InvalidInput."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidInput(f"{name} must be a list of texts.", fields=(name,))
    return value


def optional_time(body: Mapping[str, Any], name: str) -> int | None:
    """A time of a body in Unix nanoseconds: ISO 8601 or, as JavaScript's clients write it, Unix milliseconds."""
    value = body.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) * _MS_NS < _NS_MAX:
        return round(value * _MS_NS)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a time.", fields=(name,))
    return parse_time(value, name)


def query_time(query: QueryParams, name: str) -> int | None:
    """A time of a query. Raises InvalidInput."""
    return parse_time(query[name], name) if query.get(name) else None


def query_object(query: QueryParams, name: str) -> Json | None:
    """A JSON object of a query. Raises InvalidInput."""
    text = query.get(name)
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be a JSON object.", fields=(name,))
    return value


def render_time(ns: int | None) -> str | None:
    """Unix nanoseconds as ISO 8601 in UTC, to the microsecond."""
    return None if ns is None else datetime_from_ns(ns).isoformat()
