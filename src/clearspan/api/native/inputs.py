"""Reading native bodies and query strings: every key is known and of its type, or the request is refused by name."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

import orjson
from starlette.datastructures import QueryParams

from clearspan.api.respan.window import parse_time
from clearspan.model.errors import InvalidInput, InvalidPage

E = TypeVar("E", bound=Enum)
C = TypeVar("C", int, str)

TEXT_CHARS_MAX: Final = 2_000
LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
_COUNT_MAX: Final = 2**53

LATER: Final = frozenset({"subject", "webhook_url", "approve"})
"""Keys of the design that this version does not act on: taken silently, they would promise something."""


def check_keys(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse what is not understood: a misspelt bound must not silently widen a deletion.

    Raises:
        InvalidInput: `not_available` for keys of a later version, `unknown_key` for any other; names the key.
    """
    for key in body:
        if key in LATER:
            raise InvalidInput(
                f"{key} is not available in this version; nothing was done.", code="not_available", fields=(key,)
            )
        if key not in known:
            raise InvalidInput(
                f"{key[:100]} is not a key of this body (known: {', '.join(sorted(known))}); nothing was done.",
                code="unknown_key",
                fields=(key[:100],),
            )


def check_query(query: QueryParams, known: Collection[str] = ()) -> None:
    """The same for a query string, where a parameter may also be given twice. Raises InvalidInput."""
    for key in query:
        if key not in known:
            told = f"known: {', '.join(sorted(known))}" if known else "there are none"
            raise InvalidInput(
                f"{key[:100]} is not a query parameter of this address ({told}); nothing was done.",
                code="unknown_parameter",
                fields=(key[:100],),
            )
        if len(query.getlist(key)) > 1:
            raise InvalidInput(f"{key} is given more than once; nothing was done.", fields=(key,))


def read_text(body: Mapping[str, Any], key: str, *, chars_max: int = TEXT_CHARS_MAX) -> str | None:
    """A text that says something; absent and null are None. Raises InvalidInput."""
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, "text that is not empty")
    if len(value) > chars_max:
        raise _wrong(key, f"text of at most {chars_max} characters")
    return value


def need_text(body: Mapping[str, Any], key: str, *, chars_max: int = TEXT_CHARS_MAX) -> str:
    """The same, required."""
    value = read_text(body, key, chars_max=chars_max)
    if value is None:
        raise InvalidInput(f"{key} is required.", code="missing_key", fields=(key,))
    return value


def read_flag(body: Mapping[str, Any], key: str) -> bool:
    """true or false; absent is false. Raises InvalidInput."""
    value = body.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def read_count(body: Mapping[str, Any], key: str) -> int | None:
    """A whole number from 0. Raises InvalidInput."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
        raise _wrong(key, "a whole number from 0")
    return value


def read_time(values: Mapping[str, Any], key: str) -> int | None:
    """An ISO 8601 time as Unix nanoseconds; an empty text is none, and not the same as saying nothing.

    Raises:
        InvalidTime, or InvalidInput for what is no text.
    """
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(key, "an ISO 8601 time as text")
    return parse_time(value, key)


def read_word(values: Mapping[str, Any], key: str, words: type[E], default: E) -> E:
    """One of the words of an enumeration. Raises InvalidInput."""
    value = values.get(key)
    if value is None:
        return default
    for word in words:
        if word.value == value:
            return word
    raise _wrong(key, "one of " + ", ".join(str(word.value) for word in words))


def read_number(query: QueryParams, key: str, default: int | None = None, *, most: int = _COUNT_MAX) -> int | None:
    """A whole number in a query string. Raises InvalidInput."""
    text = query.get(key)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise _wrong(key, f"a whole number from 0 to {most}" if most < _COUNT_MAX else "a whole number from 0")
    return int(text)


def need_number(query: QueryParams, key: str) -> int:
    """The same, required."""
    value = read_number(query, key)
    if value is None:
        raise InvalidInput(f"{key} is required.", code="missing_parameter", fields=(key,))
    return value


def read_limit(query: QueryParams) -> int:
    """`limit` of a list: 1 to LIMIT_MAX. Raises InvalidPage."""
    text = query.get("limit") or str(LIMIT_DEFAULT)
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LIMIT_MAX):
        raise InvalidPage(f"limit must be a whole number from 1 to {LIMIT_MAX}.", fields=("limit",))
    return int(text)


def render_cursor(kind: str, value: int | str) -> str:
    """An opaque cursor. `kind` keeps a cursor of one list from being taken for another's."""
    return base64.urlsafe_b64encode(orjson.dumps([kind, value])).rstrip(b"=").decode()


def read_cursor(query: QueryParams, kind: str, of: type[C]) -> C | None:
    """The value inside `cursor`; None without one. Raises InvalidPage."""
    text = query.get("cursor")
    if not text:
        return None
    try:
        found = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        found = None
    if not (isinstance(found, list) and len(found) == 2 and found[0] == kind and type(found[1]) is of):
        raise InvalidPage("The cursor is not one of this list's.", code="invalid_cursor", fields=("cursor",))
    value: C = found[1]
    return value


def _wrong(key: str, needed: str) -> InvalidInput:
    return InvalidInput(f"{key} must be {needed}; nothing was done.", fields=(key,))
