"""Access: which permission each route needs, and the one place where it is enforced.

    @requires(Permission.READ)              marks an endpoint (FastAPI or plain Starlette, function, class or ASGI app)
    protect(app, gate)                      last line of the app factory: puts the gate before every route

The gate stands behind the router's match and before the endpoint, so what is checked is what will run: there is no
second matching of paths that could disagree with the first. A route without a mark answers 500 and runs nothing.
After `protect` the route lists are closed: a route added later would have no gate.

FastAPI's `include_router` keeps routers as trees of its own kind that the gate cannot stand in: use `attach`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, NoReturn, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from clearspan.catalog.principal import KeyScope, Principal
from clearspan.model.clock import Clock
from clearspan.model.errors import ClearspanError, NotAuthenticated, Overloaded

E = TypeVar("E")

_MARK = "__clearspan_permission__"
_PRINCIPAL = "clearspan.principal"
_PERMISSION = "clearspan.permission"
_SCHEMES = ("bearer ", "api-key ")


class Permission(Enum):
    """What a caller needs to reach a route."""

    INGEST = "ingest"
    READ = "read"
    ANNOTATE = "annotate"
    DELETE = "delete"
    APPROVE = "approve"
    ADMIN = "admin"
    PUBLIC = "public"  # no key: the route itself shows only what somebody has shared
    NONE_NEEDED = "none-needed"  # no key and no tenant's data: health, metrics, the API's description

    @property
    def scope(self) -> KeyScope | None:
        """The key's scope it asks for; None when no key is needed."""
        return None if self in (Permission.PUBLIC, Permission.NONE_NEEDED) else KeyScope(self.value)


class UnmarkedRoute(ClearspanError):
    """This route declares no permission; it is closed."""

    code = "route_without_permission"


class Authenticator(Protocol):
    """The part of the Catalog that the gate needs."""

    def authenticate(self, key: str) -> Principal:
        """The principal of a valid key, or NotAuthenticated."""
        ...

    def was_seen(self, key: str) -> bool:
        """Whether the key was valid a moment ago."""
        ...


def requires(permission: Permission) -> Callable[[E], E]:
    """Mark an endpoint with the permission it needs. Outermost or innermost decorator: both work."""

    def mark(endpoint: E) -> E:
        setattr(endpoint, _MARK, permission)
        return endpoint

    return mark


def permission_of(endpoint: Any) -> Permission | None:
    """The mark of an endpoint, partials looked through; None when it has none."""
    while endpoint is not None:
        found = getattr(endpoint, _MARK, None)
        if isinstance(found, Permission):
            return found
        endpoint = endpoint.func if isinstance(endpoint, functools.partial) else None
    return None


def attach(app: Starlette, routes: Iterable[BaseRoute]) -> None:
    """Add routes, in their order, to the end of the app's own list; an APIRouter's `.routes` carry its prefix."""
    app.router.routes.extend(routes)


def route_permissions(app: Starlette) -> dict[tuple[str, str], Permission | None]:
    """(method, path) → permission of every route of the app, mounted ones too; None for a missing mark.

    A GET of Starlette's also answers HEAD and is listed under both; a mounted ASGI app has the method `*`, a web
    socket `WEBSOCKET`.

    Raises:
        TypeError: a kind of route that the gate cannot stand in.
    """
    return {
        (method, path): permission_of(_endpoint(route))
        for path, route in _walk(app.router.routes, "")
        for method in _methods(route)
    }


def protect(app: Starlette, gate: Gate) -> None:
    """Put the gate before every route and close the route lists.

    Raises:
        TypeError: a kind of route that the gate cannot stand in, such as FastAPI's included routers.
    """
    for _, route in list(_walk(app.router.routes, "")):
        route.app = gate.before(route.app, permission_of(_endpoint(route)))
    _close(app.router)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The API key in request headers or gRPC metadata; None when there is none.

    `Authorization: Bearer K` or `Api-Key K` comes first, then `X-API-Key`, then Phoenix's `api_key`.

    Args:
        headers: names in lower case, as ASGI and gRPC give them.
    """
    by_rank: list[str | None] = [None, None, None]
    for name, value in headers:
        if name == b"authorization":
            text = value.decode("latin-1").strip()
            for scheme in _SCHEMES:
                if text[: len(scheme)].lower() == scheme:
                    by_rank[0] = text[len(scheme) :].strip() or None
        elif name == b"x-api-key":
            by_rank[1] = value.decode("latin-1").strip() or None
        elif name == b"api_key":
            by_rank[2] = value.decode("latin-1").strip() or None
    return next((key for key in by_rank if key is not None), None)


def principal_of(connection: HTTPConnection) -> Principal:
    """Who is asking: for endpoints behind a permission that needs a key. Also a FastAPI dependency."""
    found = connection.scope.get(_PRINCIPAL)
    if not isinstance(found, Principal):
        raise NotAuthenticated
    return found


def refused_for(connection: HTTPConnection) -> tuple[Principal, Permission] | None:
    """Who asked, and which permission the route needs; for the wording of errors. None: no valid key came."""
    principal = connection.scope.get(_PRINCIPAL)
    permission = connection.scope.get(_PERMISSION)
    if isinstance(principal, Principal) and isinstance(permission, Permission):
        return principal, permission
    return None


class GuessLimit:
    """How many wrong keys an address may present: a budget that fills up evenly over a minute."""

    ADDRESSES_MAX = 10_000

    def __init__(self, per_minute: int | None, clock: Clock) -> None:
        """
        Args:
            per_minute: None: no limit.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._spent: dict[str, tuple[float, float]] = {}  # address → (wrong keys still counted, when)

    def check(self, address: str) -> None:
        """Raise Overloaded when the address has no wrong key left."""
        if self._per_minute is not None and self._level(address) >= self._per_minute:
            raise Overloaded("Too many wrong API keys from this address.", retry_after_s=5)

    def count(self, address: str) -> None:
        """One wrong key."""
        if self._per_minute is None:
            return
        if len(self._spent) >= self.ADDRESSES_MAX:
            # Forgetting all is the bounded answer to an attack from many addresses.
            self._spent.clear()
        self._spent[address] = (self._level(address) + 1, self._clock.monotonic_s())

    def _level(self, address: str) -> float:
        level, at = self._spent.get(address, (0.0, 0.0))
        elapsed = self._clock.monotonic_s() - at
        return max(0.0, level - elapsed * (self._per_minute or 0) / 60)


class Gate:
    """Decides, for each request, whether it reaches its endpoint."""

    def __init__(
        self,
        keys: Authenticator,
        guesses: GuessLimit,
        on_admitted: Callable[[Principal, Permission], None] = lambda principal, permission: None,
    ) -> None:
        """
        Args:
            on_admitted: told of every request that may pass; may still refuse it by raising (rate limits).
        """
        self._keys = keys
        self._guesses = guesses
        self._on_admitted = on_admitted

    def before(self, endpoint: ASGIApp, permission: Permission | None) -> ASGIApp:
        """The endpoint behind this gate.

        The wrapped app raises NotAuthenticated, NotPermitted, Overloaded or UnmarkedRoute; the app's exception
        handlers render them in the words of the route's dialect.
        """
        if permission is None:
            return _closed
        scope_needed = permission.scope
        if scope_needed is None:
            return endpoint

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            principal = self.admit(scope["headers"], (scope.get("client") or ("",))[0])
            # Before it may be refused: dialects word a refusal by who asked, and for what.
            scope[_PRINCIPAL], scope[_PERMISSION] = principal, permission
            principal.require(scope_needed)
            self._on_admitted(principal, permission)
            await endpoint(scope, receive, send)

        return guarded

    def admit_to(self, permission: Permission, headers: Iterable[tuple[bytes, bytes]], address: str) -> Principal:
        """Who may call what needs this permission; for transports other than ASGI. Raises as `before` says."""
        principal = self.admit(headers, address)
        assert permission.scope is not None, "a call without a key needs no gate"
        principal.require(permission.scope)
        self._on_admitted(principal, permission)
        return principal

    def admit(self, headers: Iterable[tuple[bytes, bytes]], address: str) -> Principal:
        """Who presents a key in these headers.

        Raises:
            NotAuthenticated: no key or a wrong one.
            Overloaded: too many wrong keys from that address; keys that were valid a moment ago still pass.
        """
        key = presented_key(headers)
        if key is None:
            raise NotAuthenticated
        if not self._keys.was_seen(key):
            self._guesses.check(address)
        try:
            return self._keys.authenticate(key)
        except NotAuthenticated:
            self._guesses.count(address)
            raise


async def _closed(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise UnmarkedRoute


def _walk(routes: Iterable[BaseRoute], prefix: str) -> Iterator[tuple[str, Any]]:
    """(full path, route) of every leaf: routes, web sockets, and mounted apps without routes of their own."""
    for route in routes:
        if isinstance(route, Mount) and route.routes:
            yield from _walk(route.routes, prefix + route.path)
        elif isinstance(route, (Route, WebSocketRoute, Mount)):
            yield prefix + route.path, route
        else:
            # Host would be a second way to the same paths; FastAPI's included routers rebuild their own routes.
            raise TypeError(f"no gate can stand in {type(route).__name__}: add its routes with attach()")


def _endpoint(route: Any) -> Any:
    return route.app if isinstance(route, Mount) else route.endpoint


def _methods(route: Any) -> list[str]:
    if isinstance(route, WebSocketRoute):
        return ["WEBSOCKET"]
    return sorted(getattr(route, "methods", None) or ["*"])


class _ClosedRoutes(list[BaseRoute]):
    """A route list that takes no more."""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("the routes are closed: add them before protect()")


for _name in ("append", "insert", "extend", "__setitem__", "__delitem__", "__iadd__", "remove", "pop", "clear"):
    setattr(_ClosedRoutes, _name, _refuse)


def _close(router: Router) -> None:
    if getattr(router, "_low_priority_routes", None):
        # FastAPI's app.frontend() serves files from a list of its own.
        raise TypeError("no gate can stand before app.frontend(): mount StaticFiles instead")
    for route in router.routes:
        if isinstance(route, Mount) and route.routes:
            inner: Any = route._base_app
            _close(inner if isinstance(inner, Router) else inner.router)
    router.routes = _ClosedRoutes(router.routes)
