"""The readable text inside JSON-like values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from clearspan.ingest.messages import parse_json

_BASE64: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/_=-]*|[A-Za-z0-9+/_-]{512,}={0,2}")
_CUT: Final = "…"
_RUN: Final = 512  # as in the pattern


def cut_base64(text: str) -> str:
    """Text without `data:` URLs and without runs of 512 or more base64 characters, each replaced by "…"."""
    return _BASE64.sub(_CUT, text) if "base64," in text or _may_hold_run(text) else text


def _may_hold_run(text: str) -> bool:
    """Whether some 512 neighbouring characters might all be of base64: there is no usual separator among them.

    A pattern would look at every character; this looks at the last of each stretch of prose.
    """
    at = 0
    while at + _RUN <= len(text):
        separator = max(text.rfind(" ", at, at + _RUN), text.rfind('"', at, at + _RUN))
        if separator < 0:
            return True
        at = separator + 1
    return False


def readable(value: Any) -> Iterator[str]:
    """Every text inside a value. A JSON text that holds escapes is decoded, so that `\\u00fc` is found as
    ü."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str):
            decoded = parse_json(each) if "\\" in each or '"blob"' in each else each
            if isinstance(decoded, str):
                if decoded:
                    yield cut_base64(decoded)
            else:
                stack.append(decoded)
        elif isinstance(each, Mapping):
            is_blob = each.get("type") == "blob"  # a part of OTel GenAI: its content is base64
            stack.extend([inner for key, inner in reversed(list(each.items())) if not (is_blob and key == "content")])
        elif isinstance(each, list):
            stack.extend(reversed(each))
