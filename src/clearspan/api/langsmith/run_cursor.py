"""Cursors of lists of runs: the place after which the next page begins.

A cursor is opaque to clients and names a place, not a page: what arrives between two pages moves nothing, so a walk
shows every run that was there when it began exactly once. It is not signed, because it says nothing that a caller may
not say: what is shown is decided by the key, each time.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import orjson

from clearspan.model.errors import InvalidPage
from clearspan.store.spans import SpanOrder, SpanPosition

_CHARS_MAX: Final = 1_024
_WORDS: Final = {SpanOrder.START_DESC: "d", SpanOrder.START_ASC: "a"}
_INT_MAX: Final = 2**63


def encode_cursor(after: SpanPosition | None, order: SpanOrder) -> str | None:
    """The cursor of a place; None for the end."""
    return None if after is None else encode_place(_WORDS[order], *after)


def decode_cursor(text: str | None, order: SpanOrder) -> SpanPosition | None:
    """The place of a cursor; None for none. Raises InvalidPage: it is not one of this order."""
    if not text:
        return None
    kind, *place = decode_place(text)
    if kind == _WORDS[order] and len(place) == 3:
        start_ns, trace_pk, span_id = place
        if _is_number(start_ns) and _is_number(trace_pk) and isinstance(span_id, str):
            return SpanPosition(start_ns, trace_pk, span_id)  # type: ignore[arg-type]
    raise _invalid()


def encode_place(*place: str | int) -> str:
    """Some texts and numbers as one opaque text."""
    return urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def decode_place(text: str) -> list[object]:
    """What `encode_place` was given. Raises InvalidPage."""
    try:
        if len(text) <= _CHARS_MAX:
            value = orjson.loads(urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
            if isinstance(value, list) and value:
                return value
    except (binascii.Error, ValueError):
        pass
    raise _invalid()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT_MAX <= value < _INT_MAX


def _invalid() -> InvalidPage:
    return InvalidPage("This cursor does not belong to this query; begin without one.", fields=("cursor",))
