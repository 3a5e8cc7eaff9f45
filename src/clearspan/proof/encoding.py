"""Reading the small values that proofs are made of, in their one spelling."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import INTEGER_MAX

_HASH = re.compile(r"[0-9a-f]{64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z")


def hash_from_hex(value: Any) -> bytes:
    """64 lower-case hex digits → 32 bytes. Raises InvalidProof."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise InvalidProof("A hash is written as 64 lower-case hex digits.")
    return bytes.fromhex(value)


def whole_number(value: Any, highest: int = INTEGER_MAX) -> int:
    """An integer, 0 … highest; true and false are none. Raises InvalidProof."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise InvalidProof(f"A count or position is a whole number from 0 to {highest}.")
    return value


def to_base64url(value: bytes) -> str:
    """Unpadded base64url, RFC 7515 appendix C."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url in its one spelling: unused last bits must be zero. Raises InvalidProof."""
    if _BASE64URL.fullmatch(text) and len(text) % 4 != 1:
        try:
            value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            value = b""
        if to_base64url(value) == text:
            return value
    raise InvalidProof("This is not base64url without padding.")


def render_time(ns: int) -> str:
    """Unix nanoseconds → RFC 3339 in UTC with nine decimals: `2026-11-22T03:20:44.000000001Z`.

    Raises ValueError outside the years 1 to 9999.
    """
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, OSError) as error:
        raise ValueError("a time that a date cannot hold") from error
    return f"{text.rjust(19, '0')}.{rest:09d}Z"


def parse_time(value: Any) -> int:
    """What render_time wrote → Unix nanoseconds. Raises InvalidProof for any other spelling."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        try:
            seconds = round(datetime.fromisoformat(match[1] + "+00:00").timestamp())
            return seconds * 1_000_000_000 + int(match[2])
        except ValueError:
            pass
    raise InvalidProof("A time is written as 2026-11-22T03:20:44.000000001Z.")
