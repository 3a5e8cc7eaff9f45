"""JSON bodies of the REST dialects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import orjson
from starlette.requests import Request

from clearspan.api.limits import BodyLimits, read_body
from clearspan.api.services import services_of
from clearspan.model.errors import InvalidInput
from clearspan.settings import Settings

REST_BODY_BYTES_MAX = 4 * 2**20
"""A filter with its 10,000 longest values fits; ingest has a limit of its own."""


class InvalidJson(InvalidInput):
    """The body is not valid JSON."""

    code = "invalid_json"


def body_limits(settings: Settings, *, bytes_max: int | None = None) -> BodyLimits:
    """The limits of a request body; `bytes_max` narrows the setting."""
    limit = settings.body_bytes_max if bytes_max is None else min(bytes_max, settings.body_bytes_max)
    return BodyLimits(limit, settings.body_first_byte_s, settings.body_bytes_per_s_min)


async def read_json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object.

    Raises:
        InvalidJson: it is no JSON object, or says one key twice: to drop one of the two could widen a deletion.
        PayloadTooLarge, RequestTimeout: see read_body.
    """
    limits = body_limits(services_of(request).settings, bytes_max=REST_BODY_BYTES_MAX)
    return parse_json_object(await read_body(request, limits))


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The object that a body is; nothing but blanks is an empty one. Raises InvalidJson."""
    if not body.strip():
        return {}
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidJson("The body must be a JSON object.")
    return value


def check_members(body: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raise InvalidInput for a key that nothing reads: to pass it over would do something else than was asked.

    Args:
        what: whose members they are, with its article.
    """
    if unknown := set(body) - set(known):
        name = min(unknown)[:100]
        raise InvalidInput(f"{name!r} is not a member of {what}.", fields=(name,))


def parse_json(body: bytes) -> Any:
    """Strict JSON: UTF-8 without lone surrogates, no NaN, nesting below 1,024, no key twice in one object."""
    try:
        orjson.loads(body)
        return json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidJson from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidJson(f"The key {twice[:100]!r} is given twice in one object.", fields=(twice[:100],))
    return found
