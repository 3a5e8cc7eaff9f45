"""Cursors: where the next page of a list begins. Opaque to clients, and good for the list they came from only."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import orjson

Value = str | int | float | None
CHARS_MAX: Final = 4096


def render_cursor(order: str, *values: Value) -> str:
    """A cursor.

    Args:
        order: which list and order it belongs to, such as `spans.start_time.desc`: in another it is refused.
        values: what the store continues from.
    """
    return base64.b64encode(orjson.dumps([order, *values])).decode()


def parse_cursor(text: str, order: str, *kinds: type) -> tuple[Value, ...] | None:
    """The values of a cursor of that order; None for any other text: each list has words of its own for that.

    Args:
        kinds: the type of each value; `float` also takes a whole number. A value that may be missing is `type(None)`
            in its own right: name the order differently then.
    """
    if not text or len(text) > CHARS_MAX:
        return None
    try:
        found = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(found, list) or len(found) != len(kinds) + 1 or found[0] != order:
        return None
    values = tuple(found[1:])
    return values if all(map(_fits, values, kinds)) else None


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind) and (kind is not int or -(2**63) <= int(str(value)) < 2**63)
