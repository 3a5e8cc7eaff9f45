"""The application: which routes there are, in which order, and what stands around them. Assembly only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from functools import cache

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import clearspan
from clearspan.api.auth import Gate, GuessLimit, protect
from clearspan.api.errors import Failure, failure_of, json_failure
from clearspan.api.langsmith.errors import family_of, langsmith_failure
from clearspan.api.langsmith.routes import add_langsmith_routes
from clearspan.api.limits import RequestTimeout
from clearspan.api.logs import Watch
from clearspan.api.methods import HeadAsGet, UnreadBody, allowed_methods
from clearspan.api.native.problem import is_native, problem_response
from clearspan.api.native.routes import add_native_routes
from clearspan.api.otlp.routes import add_otlp_routes, is_otlp, otlp_failure
from clearspan.api.phoenix.conventions import Invalid, Refused, ServerVersion, is_phoenix, phoenix_failure
from clearspan.api.phoenix.routes import add_phoenix_routes
from clearspan.api.rates import RateLimits
from clearspan.api.respan.paging import base_url
from clearspan.api.respan.routes import add_respan_routes
from clearspan.api.route_index import RouteIndex
from clearspan.api.services import Services
from clearspan.api.system import add_system_routes
from clearspan.model.errors import ClearspanError, NotAuthenticated

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def make_gate(services: Services) -> Gate:
    """The gate before every route, with budgets of its own: one for all listeners of a server."""
    rates = RateLimits(services.settings, services.clock)
    return Gate(
        services.catalog,
        GuessLimit(services.settings.rate_limit_wrong_keys, services.clock),
        lambda principal, permission: rates.spend(principal.key_id, permission),
    )


def create_app(services: Services, gate: Gate | None = None) -> ASGIApp:
    """The ASGI app over these services. The caller owns them: it opens them before and closes them after.

    Args:
        gate: shared with another listener; None: one of its own.
    """
    app = build_routes(services)
    protect(app, gate or make_gate(services))
    app.router.middleware_stack = RouteIndex(app.router)
    return Watch(HeadAsGet(UnreadBody(ServerVersion(app, app))), services.metrics)


def build_routes(services: Services) -> FastAPI:
    """The app without the gate before its routes; for `create_app` and for tests that list the routes."""
    app = FastAPI(
        title="Clearspan",
        version=clearspan.__version__,
        summary="A self-hosted store for LLM traces that deletes on request and proves it.",
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        exception_handlers={
            ClearspanError: _on_error,
            Invalid: _on_answered,
            Refused: _on_answered,
            RequestTimeout: _on_error,
            HTTPException: _on_http_error,
            Exception: _on_error,
        },
    )
    every = _every_route()
    # Copies: the gate is put into each. What they are made of is worked out once in a process.
    app.router.routes.extend(map(copy, every.router.routes))
    for name in every.state:
        app.state[name] = every.state[name]
    app.state.services = services
    return app


@cache
def _every_route() -> FastAPI:
    """An app that has the routes and what is told about them, and serves nobody."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    # Ingest first: routes are tried in order, and these are called most.
    add_otlp_routes(app)
    add_respan_routes(app)
    add_native_routes(app)
    add_langsmith_routes(app)
    add_phoenix_routes(app)
    add_system_routes(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Experiments go on while the app is up. `clearspan serve` has no such protocol, and does the same by itself."""
    services: Services = app.state.services
    await services.runner.begin()
    try:
        yield
    finally:
        await services.runner.close()


async def _on_error(request: Request, error: Exception) -> Response:
    failure = failure_of(error)
    if isinstance(error, NotAuthenticated):
        message = f"Your API key is invalid or expired, please check your API key at {base_url(request)}/ui/keys"
        failure = Failure(failure.status, failure.code, message, headers=failure.headers)
    return _shaped(request, failure)


async def _on_answered(request: Request, error: Exception) -> Response:
    assert isinstance(error, Invalid | Refused)
    return error.response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    message = {404: "There is nothing at this address.", 405: "This method is not allowed here."}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The router names the methods of the first route that fits the path; there may be more.
        headers["Allow"] = ", ".join(allowed_methods(request.app.router, request.scope["path"]))
    return _shaped(
        request, Failure(error.status_code, code, message.get(error.status_code, error.detail), headers=headers)
    )


def _shaped(request: Request, failure: Failure) -> Response:
    """The failure in the words of the dialect that owns the path."""
    if is_native(request):
        return problem_response(failure)
    family = family_of(request)
    if family is not None:
        return langsmith_failure(request, failure, family)
    if is_phoenix(request.app, request.scope):
        return phoenix_failure(request, failure)
    return otlp_failure(request, failure) if is_otlp(request) else json_failure(failure)
