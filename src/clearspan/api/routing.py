"""Adding routes: each path once with and once without its trailing slash, neither ever redirected.

curl does not follow redirects, and a client that does may turn a POST into a GET on the way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class RestRoute:
    """One operation of a REST dialect; `path` is its canonical spelling, the one the API's description shows.

    Attributes:
        aliases: other paths of the same operation, not described.
        openapi: what the description says beyond the endpoint's docstring: parameters, requestBody, responses.
    """

    methods: tuple[str, ...]
    path: str
    endpoint: Endpoint
    tag: str
    aliases: tuple[str, ...] = ()
    is_described: bool = True
    openapi: dict[str, Any] = field(default_factory=dict)


class PlainRoute(Route):
    """A Starlette route that puts itself into the scope, as FastAPI's own do: logs and errors ask which it was."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self} if match is not Match.NONE else child_scope


def add_rest_routes(app: FastAPI, routes: Sequence[RestRoute]) -> None:
    """Register REST operations in their order: the first that matches a path takes it."""
    _told(app).update({(route.path, route.methods[0]): route.openapi for route in routes if route.is_described})
    for route in routes:
        for spelling in spellings(route.path, *route.aliases):
            for method in route.methods:
                if not route.is_described or spelling != route.path or method != route.methods[0]:
                    app.router.routes.append(_plain(spelling, route.endpoint, method))
                    continue
                app.add_api_route(
                    spelling,
                    route.endpoint,
                    methods=[method],
                    tags=[route.tag],
                    response_class=Response,
                    response_model=None,
                    operation_id=route.endpoint.__name__,
                    openapi_extra=route.openapi or None,
                )


def description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of every REST operation, with what each route says of itself kept to the letter:
    FastAPI drops every null, also those of examples, where it is a value."""
    made = app.openapi()
    told = _told(app)
    paths = {
        path: {method: operation | told.get((path, method.upper()), {}) for method, operation in item.items()}
        for path, item in made["paths"].items()
    }
    return made | {"paths": paths}


def _told(app: FastAPI) -> dict[tuple[str, str], dict[str, Any]]:
    """(path, method) → what its route says beyond the docstring."""
    if not hasattr(app.state, "told"):
        app.state.told = {}
    found: dict[tuple[str, str], dict[str, Any]] = app.state.told
    return found


def add_plain_routes(app: FastAPI, method: str, paths: Sequence[str], endpoint: Endpoint) -> None:
    """Register a plain Starlette endpoint, past FastAPI's layers: for ingest, where they would cost."""
    app.router.routes.extend(_plain(spelling, endpoint, method) for spelling in spellings(*paths))


def _plain(path: str, endpoint: Endpoint, method: str) -> PlainRoute:
    """What is not described needs nothing of FastAPI, whose routes take a millisecond each to make."""
    route = PlainRoute(path, endpoint, methods=[method])
    route.methods = {method}  # without the HEAD that Starlette adds to GET: methods.HeadAsGet sees to that
    return route


def spellings(*paths: str) -> list[str]:
    """Every path as given, and with its trailing slash added or taken away."""
    out: list[str] = []
    for path in paths:
        other = path.rstrip("/") if path.endswith("/") else path + "/"
        out += [path] if path == "/" else [path, other]
    return out
