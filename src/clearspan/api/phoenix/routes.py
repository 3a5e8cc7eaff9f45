"""The Phoenix dialect's routes. Each module lists its own; a module that adds operations adds a line to `ROUTES`.

Rows are made with `conventions.phoenix`. Literal segments must stand before a parameter that would take them, across
modules too: tests/unit/test_routes.py tells when one is shadowed.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, requires
from clearspan.api.phoenix.annotation_delete import ROUTES as ANNOTATION_DELETE_ROUTES
from clearspan.api.phoenix.annotations import ROUTES as ANNOTATION_ROUTES
from clearspan.api.phoenix.configs import ROUTES as CONFIG_ROUTES
from clearspan.api.phoenix.conventions import TAG, VERSION, VERSION_PATH, own, text_reply
from clearspan.api.phoenix.keys import ROUTES as KEY_ROUTES
from clearspan.api.phoenix.projects import ROUTES as PROJECT_ROUTES
from clearspan.api.phoenix.sessions import ROUTES as SESSION_ROUTES
from clearspan.api.phoenix.span_bodies import ROUTES as SPAN_BODY_ROUTES
from clearspan.api.phoenix.span_query import ROUTES as SPAN_QUERY_ROUTES
from clearspan.api.phoenix.spans import ROUTES as SPAN_ROUTES
from clearspan.api.phoenix.traces import ROUTES as TRACE_ROUTES
from clearspan.api.phoenix.transfers import ROUTES as TRANSFER_ROUTES
from clearspan.api.phoenix.users import ROUTES as USER_ROUTES
from clearspan.api.routing import RestRoute, add_rest_routes, spellings


@requires(Permission.NONE_NEEDED)
async def phoenix_version(request: Request) -> Response:
    """Which version of Phoenix this API speaks. Needs no key: clients ask before anything else."""
    return text_reply(200, VERSION)


ROUTES: tuple[RestRoute, ...] = (
    RestRoute(("GET",), VERSION_PATH, phoenix_version, TAG, is_described=False),
    *ANNOTATION_ROUTES,
    *ANNOTATION_DELETE_ROUTES,
    *CONFIG_ROUTES,
    *PROJECT_ROUTES,
    *SESSION_ROUTES,
    *SPAN_ROUTES,
    *SPAN_BODY_ROUTES,
    *SPAN_QUERY_ROUTES,
    *TRANSFER_ROUTES,
    *TRACE_ROUTES,
    *USER_ROUTES,
    *KEY_ROUTES,
)  # fmt: skip


def add_phoenix_routes(app: FastAPI) -> None:
    """Register the dialect."""
    add_rest_routes(app, ROUTES)
    own(app, spellings(*(path for route in ROUTES for path in (route.path, *route.aliases))))
