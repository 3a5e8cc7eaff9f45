"""Attachments of runs by links that need no key: signed, for one file, and good for a while only.

LangSmith's clients fetch every attachment of a run they read, and send no key with it. A link names the project, the
run and the file, and its signature covers all of it; the store is asked on each use, so a link to a trace that was
hidden since, or to a project that is being removed, answers 404 at once.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple, cast
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from clearspan.api.auth import Permission, requires
from clearspan.api.langsmith.paths import classic
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.model.errors import NotFound, NotPermitted
from clearspan.model.trace import Scope
from clearspan.store.spans import AttachmentInfo, SpanReader

PATH: Final = "/attachments"
_MAC_BYTES: Final = 32
_TOKEN_CHARS_MAX: Final = 4096
_NS_PER_S: Final = 10**9
_PLAIN: Final = "application/octet-stream"


class AttachmentLink(NamedTuple):
    """What a link stands for."""

    project_id: int
    environment: str | None  # of the key that got the link: what it may not see the link does not show
    trace_id: str
    span_id: str
    name: str
    expires_s: int  # Unix


def attachment_url(
    services: Services, project_id: int, environment: str | None, trace_id: str, span_id: str, name: str
) -> str:
    """A link to one attachment, good for the time that the settings say. It begins with `/`: clients put their endpoint
    before it, whichever of the two roots that is."""
    expires_s = services.clock.now_ns() // _NS_PER_S + services.settings.attachment_link_s
    link = AttachmentLink(project_id, environment, trace_id, span_id, name, expires_s)
    return f"{PATH}/{sign(services.catalog.tombstone_secret, link)}"


def sign(secret: bytes, link: AttachmentLink) -> str:
    """The token of a link."""
    said = orjson.dumps(tuple(link))
    return urlsafe_b64encode(_mac(secret, said) + said).decode().rstrip("=")


def open_token(secret: bytes, token: str) -> AttachmentLink | None:
    """The link of a token; None when it was not signed here."""
    if len(token) > _TOKEN_CHARS_MAX:
        return None
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return None
    mac, said = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    return AttachmentLink(*orjson.loads(said)) if hmac.compare_digest(mac, _mac(secret, said)) else None


def _mac(secret: bytes, said: bytes) -> bytes:
    # The leading word keeps these apart from the secret's other hashes: shares, tombstones.
    return hmac.digest(secret, b"attachment\0" + said, "sha256")


@requires(Permission.PUBLIC)
async def read_attachment(request: Request) -> Response:
    """The bytes of an attachment, by a link that a run's `s3_urls` gave; the link is its own key."""
    services = services_of(request)
    link = open_token(services.catalog.tombstone_secret, request.path_params["token"])
    if link is None:
        raise NotFound("There is no such attachment.")
    if services.clock.now_ns() >= link.expires_s * _NS_PER_S:
        raise NotPermitted("This link has expired; read the run again for a new one.")
    found = await services.reads.run(_find, services, link)
    if found is None:
        raise NotFound("There is no such attachment.")
    info, pieces = found
    first = await services.reads.run(next, pieces, b"")
    headers = {
        "Content-Length": str(info.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(link.name, safe='')}",
        # Whatever it is, no browser is to run it, and nobody is to keep it: its trace may be deleted.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-store",
    }
    media_type = info.mime_type if info.mime_type.isascii() and info.mime_type.isprintable() else _PLAIN
    return StreamingResponse(_stream(services, first, pieces), headers=headers, media_type=media_type)


def _find(services: Services, link: AttachmentLink) -> tuple[AttachmentInfo, Iterator[bytes]] | None:
    if not services.catalog.is_live(link.project_id):  # what holds keep of it no read shows
        return None
    scope = Scope((link.project_id,), link.environment)
    return cast(SpanReader, services.reader).read_attachment(scope, link.trace_id, link.span_id, link.name)


async def _stream(services: Services, first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    piece = first
    while piece:
        yield piece
        piece = await services.reads.run(next, pieces, b"")


ROUTES: Final[tuple[RestRoute, ...]] = (classic("GET", PATH + "/{token}", read_attachment),)
