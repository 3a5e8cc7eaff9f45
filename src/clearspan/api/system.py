"""Routes of the server itself: health, readiness, figures, the description of the API, an index."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

import clearspan
from clearspan.api.auth import Permission, requires
from clearspan.api.errors import dump_json
from clearspan.api.metrics import CONTENT_TYPE
from clearspan.api.otlp.routes import described_paths
from clearspan.api.routing import RestRoute, add_rest_routes, description
from clearspan.api.services import services_of
from clearspan.model.trace import Scope, Window

TAG = "server"


@requires(Permission.NONE_NEEDED)
async def index(request: Request) -> Response:
    """What this server is and where to go from here."""
    links = {"openapi": "/openapi.json", "health": "/healthz", "readiness": "/readyz", "metrics": "/metrics"}
    return _json({"name": "clearspan", "version": clearspan.__version__, "links": links})


@requires(Permission.NONE_NEEDED)
async def health(request: Request) -> Response:
    """200 while the process answers at all."""
    return _json({"status": "ok"})


@requires(Permission.NONE_NEEDED)
async def readiness(request: Request) -> Response:
    """200 when traces can be read and written, else 503; says which of the two cannot."""
    services = services_of(request)
    checks = {"store": await _can_read(request), "writer": services.is_writing()}
    is_ready = all(checks.values())
    body = {"status": "ready" if is_ready else "not ready", **{k: "ok" if v else "failed" for k, v in checks.items()}}
    return _json(body, 200 if is_ready else 503)


@requires(Permission.NONE_NEEDED)
async def metrics(request: Request) -> Response:
    """Prometheus figures: counts and durations of the whole server, nothing of any tenant."""
    services = services_of(request)
    return Response(await services.status.run(services.metrics.render), headers={"Content-Type": CONTENT_TYPE})


@requires(Permission.NONE_NEEDED)
async def openapi(request: Request) -> Response:
    """The description of the API."""
    app = request.app
    assert isinstance(app, FastAPI)
    told = description(app)
    return _json(told | {"paths": described_paths() | told["paths"]})


def add_system_routes(app: FastAPI) -> None:
    """Register the server's own routes."""
    routes = {"/healthz": health, "/readyz": readiness, "/metrics": metrics}
    add_rest_routes(app, [RestRoute(("GET",), path, endpoint, TAG) for path, endpoint in routes.items()])
    hidden = {"/": index, "/openapi.json": openapi}
    add_rest_routes(
        app, [RestRoute(("GET",), path, endpoint, TAG, is_described=False) for path, endpoint in hidden.items()]
    )


async def _can_read(request: Request) -> bool:
    services = services_of(request)
    try:
        # A project number that cannot exist: the query runs, and finds nothing of anybody.
        await services.status.run(services.reader.count_traces, Scope((0,)), None, Window(0, 1))
    except Exception:
        return False
    return True


def _json(value: object, status: int = 200) -> Response:
    return Response(dump_json(value), status_code=status, media_type="application/json")
