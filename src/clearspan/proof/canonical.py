"""The one JSON text of a value, as RFC 8785 has it: what is signed, and what salted hashes are taken of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from clearspan.model.errors import InvalidProof

INTEGER_MAX = 2**53 - 1
"""The largest integer, either way, that every JSON reader keeps exact."""
_DEPTH_MAX = 32


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 bytes of a value; equal values give equal bytes.

    Raises:
        ValueError: a float (its text would depend on the writer), an integer beyond ±(2^53 - 1), a lone surrogate,
            a key that is no text, a value JSON does not know, or nesting beyond 32 levels.
    """
    _check(value, 0)
    return rfc8785.dumps(value)


def parse_canonical(text: bytes) -> Any:
    """The value of canonical JSON. Raises InvalidProof for any other spelling, so that equal values are equal bytes."""
    try:
        value = json.loads(text, parse_float=_no_float, parse_constant=_no_float)
        if canonical_json(value) == text:
            return value
    except (ValueError, RecursionError):
        pass
    raise InvalidProof("This is not canonical JSON (RFC 8785).")


def _no_float(_: str) -> NoReturn:
    raise ValueError("no floats")


def _check(value: Any, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ValueError("nested too deeply")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise ValueError("an integer beyond what JSON readers keep exact")
    elif isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            _check(key, depth + 1)
            _check(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, depth + 1)
    else:
        raise ValueError(f"canonical JSON takes no {type(value).__name__}")
