"""The index of routes finds what a walk over all of them finds, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router

from clearspan.api.app import _every_route
from clearspan.api.route_index import RouteIndex

EVERY = _every_route().router
SEGMENTS = sorted({each for route in EVERY.routes if isinstance(route, Route) for each in route.path.split("/")})
INDEX = RouteIndex(EVERY)


def matching(routes: Sequence[BaseRoute], method: str, path: str) -> list[tuple[BaseRoute, Match]]:
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    found = ((route, route.matches(dict(scope))[0]) for route in routes)
    return [(route, match) for route, match in found if match is not Match.NONE]


@given(
    st.lists(st.sampled_from(SEGMENTS) | st.sampled_from(["", "*", "x", ".", "a b", "é"]), max_size=7),
    st.sampled_from(["GET", "POST", "DELETE"]),
)
@example([], "GET")
@example(["*", "*", "*"], "GET")
def test_any_path_finds_what_a_walk_finds(segments: list[str], method: str) -> None:
    path = "/" + "/".join(segments)
    assert matching(INDEX._near(path).routes, method, path) == matching(EVERY.routes, method, path)


def test_every_route_is_found_among_few() -> None:
    for route in EVERY.routes:
        assert isinstance(route, Route)
        path = route.path.replace("{", "").replace("}", "")
        near = INDEX._near(path).routes
        assert route in near
        assert len(near) < 60, path
    assert len(INDEX._routers) < len(EVERY.routes)


def test_a_route_of_any_length_is_always_tried() -> None:
    async def endpoint(request: Request) -> Response:
        return Response()

    inner = Router([Route("/b", endpoint)])
    router = Router([Route("/a/b", endpoint), Mount("/static", inner), Route("/{rest:path}", endpoint)])
    near = RouteIndex(router)._near("/a/b/c/d")
    assert [getattr(route, "path", None) for route in near.routes] == ["/static", "/{rest:path}"]
