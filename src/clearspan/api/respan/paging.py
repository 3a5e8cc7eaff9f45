"""The page envelope: `count`, `results`, `next`, `previous`.

`count` is the number of all matches. The Fern pager ignores `next` and asks for page after page until one is empty,
so a page past the end is an empty 200; people and scripts follow `next`, so it keeps every query parameter.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from clearspan.api.services import services_of

_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


def render_page(request: Request, results: list[Any], *, total: int, page: int, page_size: int) -> dict[str, Any]:
    """The envelope of one page.

    Args:
        page: the page's number, from 1.
        total: how many match in all.
    """
    has_next = page * page_size < total
    previous = min(page - 1, max(1, -(-total // page_size)))  # from far past the end, back to the last page
    return {
        "count": total,
        "results": results,
        "next": page_url(request, page + 1) if has_next else None,
        "previous": page_url(request, previous) if page > 1 else None,
    }


def page_url(request: Request, page: int) -> str:
    """The address of another page of the same request: every other query parameter stays, in its order."""
    query = [(key, value) for key, value in _query(request) if key != "page"]
    query.append(("page", str(page)))
    return f"{base_url(request)}{_path(request)}?{urlencode(query)}"


def base_url(request: Request) -> str:
    """Scheme and host as the client sees them: the setting, a proxy's X-Forwarded-Proto and -Host, the request's own.

    A host that does not look like one falls back to the address the server listens on: it ends up in links.
    """
    if public_url := services_of(request).settings.public_url:
        return public_url.rstrip("/")
    scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    if scheme not in ("http", "https"):
        scheme = request.url.scheme
    for header in ("x-forwarded-host", "host"):
        host = request.headers.get(header, "").split(",")[0].strip()
        if _HOST.fullmatch(host):
            return f"{scheme}://{host}"
    server_host, server_port = request.scope.get("server") or ("127.0.0.1", 80)
    return f"{scheme}://{server_host}:{server_port}"


def _query(request: Request) -> list[tuple[str, str]]:
    return parse_qsl(request.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _path(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.split(b"?")[0].decode("latin-1")
