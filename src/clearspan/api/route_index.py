"""Which routes a path may mean, by its first segments.

A router tries one route after the other, 4 µs each: the last of some 800 took 3 ms of processor to reach, more than
most requests take themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Final

from fastapi import APIRouter
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

DEPTH: Final = 3
ANY: Final = "*"

Key = tuple[str, ...]


class RouteIndex:
    """ASGI app: answers as `router` would, and tries only the routes whose first segments agree with the path's.

    The routes are those that the router has when this is made; their order is kept.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._lasting: list[tuple[int, BaseRoute]] = []
        self._by_key: dict[Key, list[tuple[int, BaseRoute]]] = {}
        for place, route in enumerate(router.routes):
            key = _key_of_route(route)
            (self._lasting if key is None else self._by_key.setdefault(key, [])).append((place, route))
        # One for each set of keys that some path has, of which there are about as many as keys.
        self._routers: dict[tuple[Key, ...], APIRouter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("root_path"):
            await self._router.app(scope, receive, send)
        else:
            await self._near(scope["path"]).app(scope, receive, send)

    def _near(self, path: str) -> APIRouter:
        keys = tuple(key for key in product(*((each, ANY) for each in _segments(path))) if key in self._by_key)
        router = self._routers.get(keys)
        if router is None:
            routes = sorted([*self._lasting, *(each for key in keys for each in self._by_key[key])], key=_place)
            router = APIRouter(routes=[route for _, route in routes], redirect_slashes=False)
            self._routers[keys] = router
        return router


def _place(placed: tuple[int, BaseRoute]) -> int:
    return placed[0]


def _key_of_route(route: BaseRoute) -> Key | None:
    """Its first segments, `*` for what a path may fill; None: paths of any length or kind may be meant."""
    if not isinstance(route, Route) or ":path}" in route.path:
        return None
    return tuple(ANY if "{" in each else each for each in _segments(route.path))


def _segments(path: str) -> Iterable[str]:
    """The first segments, with "" for those that a shorter path lacks; a last slash changes nothing."""
    segments = path.split("/")[1 : DEPTH + 1]
    return [*segments, *[""] * (DEPTH - len(segments))]
