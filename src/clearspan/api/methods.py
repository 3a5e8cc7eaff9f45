"""What HTTP asks of every path, whatever dialect owns it: HEAD beside GET, and `Allow` in a 405."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "clearspan.head"


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
