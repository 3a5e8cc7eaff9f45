"""What may stand in the JSON columns of the catalog: ids, numbers and words of ours; never a person's text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

TEXT_CHARS_MAX = 256
# Ids, hashes, codes, field names and operators pass. Blanks, `@` and anything beyond ASCII do not, so that neither a
# sentence nor an address gets in by mistake: nothing zeroes the pages of a PostgreSQL catalog.
_PLAIN = re.compile(r"[A-Za-z0-9_:.\-+/=!<>~,]*")


def render_body(body: Mapping[str, Any]) -> str:
    """The one JSON text of a body: keys sorted, no blanks; equal bodies give equal bytes.

    Raises:
        ValueError: a text that could be personal data, a float, or a value JSON does not know.
    """
    _check(body)
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()


def parse_body(text: str) -> dict[str, Any]:
    """The body of a stored JSON text."""
    parsed: dict[str, Any] = orjson.loads(text)
    return parsed


def _check(value: Any) -> None:
    if value is None or isinstance(value, (bool, int)):
        return
    if isinstance(value, str):
        if len(value) > TEXT_CHARS_MAX or not _PLAIN.fullmatch(value):
            raise ValueError("the catalog takes no free text")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check(key)
            _check(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item)
    else:
        raise ValueError(f"the catalog takes no {type(value).__name__}")
