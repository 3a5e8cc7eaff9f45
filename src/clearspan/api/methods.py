"""What HTTP asks of every path, whatever dialect owns it: HEAD beside GET, `Allow` in a 405, and a word before a
connection ends."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "clearspan.head"
_HELD_BYTES = 8 * 1024
"""What the server underneath has read of a body before anybody asks for it: a shorter one costs no connection."""


class HeadAsGet:
    """ASGI middleware: HEAD takes the same way as GET, its permission included, and its answer's body is left out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # In place: the router writes the route it found into this same scope, for the logs outside to read.
        scope["method"], scope[_HEAD] = "GET", True
        try:
            await self._app(scope, receive, without_body)
        finally:
            scope["method"] = "HEAD"


class UnreadBody:
    """ASGI middleware: an answer that comes before the request's body was read says `Connection: close`.

    The server underneath ends such a connection after the answer, since the rest of the body stands where the next
    request would. Unsaid, a client that keeps connections sends its next request into the closed one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_long_body(scope):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def reading() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        await self._app(scope, reading, telling)


def _has_long_body(scope: Scope) -> bool:
    if not scope.get("http_version", "1.1").startswith("1"):  # streams of their own in one connection
        return False
    headers = dict(scope["headers"])
    declared = headers.get(b"content-length", b"")
    is_long = declared.isdigit() and (len(declared) > 9 or int(declared) > _HELD_BYTES)
    return is_long or b"transfer-encoding" in headers


def is_head(connection: HTTPConnection) -> bool:
    """Whether only the head of the answer is wanted: an endless body should not be begun then."""
    return bool(connection.scope.get(_HEAD))


def allowed_methods(router: Router, path: str) -> list[str]:
    """Every method that some route answers at a path, sorted; HEAD wherever GET is."""
    found: set[str] = set()
    for route in router.routes:
        if isinstance(route, Route) and route.path_regex.match(path):
            found |= route.methods or set()
    return sorted(found | {"HEAD"} if "GET" in found else found)
