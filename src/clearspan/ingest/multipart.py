"""multipart/form-data, as LangSmith's clients send runs: bytes of a whole body → its parts.

A part that says how long it is (`Content-Length: N`, or `Content-Type: …; length=N`) is taken by that length, if a
boundary follows there: what is in it may then look like a boundary and does no harm. Where none follows the part ends
at the next boundary and is faulty. A faulty part costs itself and nothing beside it. RFC 7578 and 2046.
"""

from __future__ import annotations

import re
from email.message import Message
from typing import Final, NamedTuple

from clearspan.model.errors import InvalidPayload, PayloadTooLarge

PARTS_MAX: Final = 100_000
"""Clients send 100 runs of at most 8 parts, but for a run that is larger than a body should be."""
_BOUNDARY_CHARS_MAX: Final = 200  # RFC 2046 says 70; a client that goes over is understood all the same
_HEAD_BYTES_MAX: Final = 8192
_USUAL_HEAD: Final = re.compile(
    rb'Content-Disposition: form-data; name="([^"\r\n]{1,1024})"\r\n'
    rb"Content-Type: ([^\r\n;]{1,255})(?:; length=([0-9]{1,18}))?\r\n(?:Content-Length: ([0-9]{1,18})\r\n)?\r\n"
)
"""What both SDKs write; any other header goes the slow way, `_part`."""
_PADDING_MAX: Final = 64
_AFTER_DELIMITER: Final = re.compile(rb"--|[ \t]{0,64}\r\n")
_JSON: Final = "application/json"
_RAW_JSON: Final = _JSON.encode()
_LAST: Final = -1
_TRUNCATED: Final = -2
_ESCAPED: Final = {"%22": '"', "%0D": "\r", "%0A": "\n"}  # by the HTML standard; nothing else is
_ESCAPES: Final = re.compile("%22|%0D|%0A")


class Part(NamedTuple):
    """One part, in the order of the body.

    `fault` says why its content cannot be relied on, None that it can; `name` is "" when it could not be read.
    """

    name: str
    media_type: str  # lower case, without parameters; "" when not given
    content: bytes
    fault: str | None = None


def boundary_of(content_type: str) -> bytes:
    """The boundary that a request's `Content-Type` names.

    Raises:
        InvalidPayload: it is not multipart/form-data, or names no boundary.
    """
    header = _header(content_type)
    if header.get_content_type() != "multipart/form-data":
        raise InvalidPayload("Content-Type must be multipart/form-data.")
    boundary = _parameter(header, "boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _BOUNDARY_CHARS_MAX:
        raise InvalidPayload("Content-Type names no boundary.")
    return boundary.encode("latin-1", "replace")


def split_multipart(body: bytes, boundary: bytes) -> list[Part]:
    """The parts of a body. About 1 µs a part, and a copy of its content.

    A body that ends before its last boundary loses only the part in which it ends.

    Raises:
        InvalidPayload: the boundary is nowhere in the body.
        PayloadTooLarge: more than PARTS_MAX parts.
    """
    delimiter = b"\r\n--" + boundary
    at = _delimited(b"\r\n" + body[: len(delimiter) + _PADDING_MAX], 0, delimiter)
    if at is None:
        _, at = _find_delimiter(body, 0, delimiter)
    elif at != _LAST:
        at -= 2
    if at == _TRUNCATED:
        raise InvalidPayload("the body does not hold the boundary that its Content-Type names")
    parts: list[Part] = []
    following = delimiter + b"\r\n"
    while at >= 0:
        if len(parts) == PARTS_MAX:
            raise PayloadTooLarge(f"more than {PARTS_MAX} parts")
        usual = _USUAL_HEAD.match(body, at)
        if usual is not None:
            # Nearly every part is done here: a head as the SDKs write it, one length, and the next part behind it.
            raw_name, raw_type, one_length, other_length = usual.groups()
            begin = usual.end()
            length = one_length or other_length
            if length and (not one_length or not other_length) and b"%" not in raw_name and raw_name.isascii():
                end = begin + int(length)
                if body.startswith(following, end):
                    media_type = _JSON if raw_type == _RAW_JSON else _media_type(raw_type)
                    parts.append(Part(raw_name.decode(), media_type, body[begin:end]))
                    at = end + len(following)
                    continue
        part, at = _part(body, at, delimiter)
        parts.append(part)
    return parts


def _media_type(raw: bytes) -> str:
    return raw.decode("latin-1").strip().lower()


def _part(body: bytes, at: int, delimiter: bytes) -> tuple[Part, int]:
    """The part that begins at `at`, and where the next one does, or _LAST or _TRUNCATED; for every header there may be
    and for what is wrong with one."""
    # A part without any header begins with the empty line itself: the search starts at the line end before it.
    blank = body.find(b"\r\n\r\n", at - 2, at + _HEAD_BYTES_MAX)
    limit, after = _find_delimiter(body, at - 2, delimiter)
    if not at - 2 <= blank < limit:
        return Part("", "", b"", "its header cannot be read"), after
    name, media_type, length, fault = _read_head(body[at : max(at, blank)])
    begin = blank + 4
    if length is not None:
        found = _delimited(body, begin + length, delimiter)
        if found is not None:
            return Part(name, media_type, body[begin : begin + length], fault), found
    end, after = _find_delimiter(body, begin, delimiter)
    if after == _TRUNCATED:
        fault = fault or "the body ends in the middle of it"
    elif length is not None:
        fault = fault or f"it declares {length} bytes and has {end - begin}"
    return Part(name, media_type, body[begin:end], fault), after


def _read_head(head: bytes) -> tuple[str, str, int | None, str | None]:
    """(name, media type, declared length, fault) from the lines of a part's header."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        return "", "", None, "its header is not UTF-8"
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    name = _parameter(_header(fields.get("content-disposition", "")), "name")
    kind = fields.get("content-type", "")
    told = (fields.get("content-length"), _parameter(_header(kind), "length"))
    lengths = {text for text in told if isinstance(text, str)}
    size: int | None = None
    fault = None
    if not isinstance(name, str) or not name:
        name, fault = "", "it has no name"
    elif fields.get("content-encoding", "identity").lower() != "identity":
        fault = "a part must not have a Content-Encoding of its own"
    elif len(lengths) > 1 or not all(text.isascii() and text.isdigit() and len(text) < 19 for text in lengths):
        fault = "its declared length cannot be read"
    elif lengths:
        size = int(lengths.pop())
    name = _ESCAPES.sub(lambda found: _ESCAPED[found[0]], name)
    return name, kind.partition(";")[0].strip().lower(), size, fault


def _header(value: str) -> Message:
    """A header with parameters, quoted or not; whichever it is, it is read as a Content-Type."""
    message = Message()
    message["content-type"] = value
    return message


def _parameter(header: Message, name: str) -> object:
    try:
        return header.get_param(name)
    except (TypeError, ValueError):  # of continuations (RFC 2231) that do not fit together
        return None


def _delimited(body: bytes, end: int, delimiter: bytes) -> int | None:
    """Where the next part begins (_LAST: there is none) if a delimiter stands at `end`; None: none does."""
    if not body.startswith(delimiter, end):
        return None
    line_end = _AFTER_DELIMITER.match(body, end + len(delimiter))
    if line_end is None:
        return None
    return _LAST if line_end[0] == b"--" else line_end.end()


def _find_delimiter(body: bytes, at: int, delimiter: bytes) -> tuple[int, int]:
    """(where the next delimiter at or after `at` stands, what follows it as _delimited says, or _TRUNCATED)."""
    found = body.find(delimiter, at)
    while found >= 0:
        after = _delimited(body, found, delimiter)
        if after is not None:
            return found, after
        found = body.find(delimiter, found + 1)
    return len(body), _TRUNCATED
