"""Trace and span ids: opaque text with one normal form each.

`trace_abc123` is as good an id as 32 hex digits. Only spellings of the same number are made one: hex digits are
lower-cased, and a UUID loses its dashes, so that an OTLP trace id and the UUID that LangSmith shows for it meet.
A slash is refused: an id is one segment of a path, and a trace that no path can name could not be read or deleted.
"""

from __future__ import annotations

import re

ID_MAX_CHARS = 256

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"[0-9a-fA-F]{16}(?:[0-9a-fA-F]{16})?")
_FORBIDDEN = re.compile(r"[/\x00-\x1f\x7f\ud800-\udfff]")


def normalise_id(text: str) -> str:
    """The stored form of a trace or span id.

    Args:
        text: as the client wrote it.
    Returns:
        Lower-case hex for 16 or 32 hex digits and for UUIDs (dashes removed); anything else unchanged.
    Raises:
        ValueError: empty, over 256 characters, or with slashes, control characters or lone surrogates.
    """
    if not text or len(text) > ID_MAX_CHARS:
        raise ValueError(f"an id must have 1 to {ID_MAX_CHARS} characters")
    if _UUID.fullmatch(text):
        return text.replace("-", "").lower()
    if _HEX.fullmatch(text):
        return text.lower()
    if _FORBIDDEN.search(text):
        raise ValueError("an id must not hold slashes, control characters or lone surrogates")
    return text
