"""Native bodies: JSON that says so, or says nothing; packed as ingest takes it, or not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request

from clearspan.api.bodies import REST_BODY_BYTES_MAX, body_limits, parse_json_object
from clearspan.api.errors import UnsupportedMedia
from clearspan.api.intake import ENCODINGS, ingest_limits
from clearspan.api.limits import read_body
from clearspan.api.services import services_of
from clearspan.ingest.decompress import decompress

_JSON: Final = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json")
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]*)")
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii"})


async def read_native_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object, whatever its headers say.

    Raises:
        UnsupportedMedia: another content type than JSON in UTF-8 (none at all is taken), or an unknown encoding.
        InvalidPayload: it cannot be unpacked. PayloadTooLarge: it is over 4 MiB, as sent or unpacked.
        InvalidJson, RequestTimeout: as bodies.read_json_object.
    """
    services = services_of(request)
    body = await read_body(request, body_limits(services.settings, bytes_max=REST_BODY_BYTES_MAX))
    if not body:
        return {}
    check_content_type(", ".join(request.headers.getlist("content-type")))
    encoding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in ENCODINGS:
        raise UnsupportedMedia("Content-Encoding must be gzip, deflate, zstd or none; nothing was done.")
    if encoding not in ("", "identity"):
        limits = ingest_limits(services.settings)
        limits = replace(limits, body_bytes=min(limits.body_bytes, REST_BODY_BYTES_MAX))
        body = await services.reads.run(decompress, body, encoding, limits)
    return parse_json_object(body)


def check_content_type(text: str) -> None:
    """Raises UnsupportedMedia for what is not JSON in UTF-8; no type at all is taken for it."""
    kind, _, rest = text.strip().lower().partition(";")
    charset = _CHARSET.search(";" + rest)
    if kind and not _JSON.fullmatch(kind.strip()):
        raise UnsupportedMedia("Content-Type must be application/json, or absent; nothing was done.")
    if charset is not None and charset[1] not in _UTF_8:
        raise UnsupportedMedia("Content-Type must be application/json in UTF-8; nothing was done.")
