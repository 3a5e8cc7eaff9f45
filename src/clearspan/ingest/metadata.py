"""Metadata pairs: what is said about a span in an application's own words, as text that an index can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from clearspan.ingest.semconv import (
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    SCRUBBED,
    UNKNOWN_VALUE_CHARS_MAX,
)

Pair = tuple[str, str]

_OBJECT_DEPTH_MAX: Final = 8
_decode_json = msgspec.json.Decoder().decode
_encode_json = msgspec.json.Encoder().encode


def scalar_text(value: str | int | float | bool) -> str:
    """A scalar in its JSON form, text as it is: 3 → "3", True → "true"; NaN and infinities by their names."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def json_text(value: Any) -> str:
    """A JSON-like value as compact JSON; not-a-number and infinities are already names here
    (wire.json_like)."""
    return _encode_json(value).decode()


def parse_object(text: str) -> dict[str, Any] | None:
    """The object that a JSON text holds; None when it holds anything else or is not JSON."""
    if text[:1] not in ("{", " ", "\n", "\t"):
        return None
    try:
        value = _decode_json(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def flatten(value: Any, name: str = "", depth: int = 0) -> Iterator[Pair]:
    """Pairs of a JSON-like value under a name: objects with dots, lists as JSON text, null not at all."""
    if value is None:
        return
    if isinstance(value, Mapping) and depth < _OBJECT_DEPTH_MAX:
        for key, each in value.items():
            yield from flatten(each, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, str | int | float | bool):
        yield name, scalar_text(value)
    else:
        yield name, json_text(value)


def unknown_pair(key: str, value: str | int | float | bool | None) -> Pair | None:
    """The pair of an attribute that nobody knows, None when its value is not a short scalar."""
    if value is None or value == "":
        return None
    text = scalar_text(value)
    return (key, text) if len(text) <= UNKNOWN_VALUE_CHARS_MAX else None


def canonical_pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """What is kept of a span's pairs: sorted, one value per key, within the bounds of semconv.py.

    Of a repeated key the first stands, for the wire's own metadata comes before what is taken from elsewhere.
    """
    kept: dict[str, str] = {}
    for key, value in pairs:
        if len(kept) == METADATA_PAIRS_MAX:
            break
        if key and len(key) <= METADATA_KEY_CHARS_MAX and key not in kept and not value.startswith(SCRUBBED):
            kept[key] = value[:METADATA_VALUE_CHARS_MAX]
    return tuple(sorted(kept.items()))
