"""Where the LangSmith dialect lives: each operation at several addresses, which its clients build by themselves.

    classic     /runs/query      and  /api/v1/runs/query        whichever LANGSMITH_ENDPOINT ends with
    platform    /v1/platform/…   and  /api/v1/platform/…
    v2          /api/v2/…        and  /v2/…

The address below /api is the one the API's description shows.
"""

from __future__ import annotations

from typing import Any, Final

from clearspan.api.routing import Endpoint, RestRoute

TAG: Final = "langsmith"
CLASSIC_ROOT: Final = "/api/v1"
PLATFORM_ROOTS: Final = ("/api/v1/platform", "/v1/platform")
V2_ROOTS: Final = ("/api/v2", "/v2")
OTEL_PATHS: Final = ("/otel/v1/traces", "/api/v1/otel/v1/traces", "/otel", "/api/v1/otel")
"""Where OTLP comes in; earlier releases of the Python client (0.11 to 0.14) post to `/otel` itself."""


def classic(
    method: str, path: str, endpoint: Endpoint, *, aliases: tuple[str, ...] = (), openapi: dict[str, Any] | None = None
) -> RestRoute:
    """An operation of the classic API at both its roots.

    Args:
        path: without a root, such as `/runs/query`.
        aliases: further paths without a root.
        openapi: what the description says of it; None: it is not described.
    """
    others = (path, *(spelling for alias in aliases for spelling in (CLASSIC_ROOT + alias, alias)))
    return _row(method, CLASSIC_ROOT + path, endpoint, others, openapi)


def platform(method: str, path: str, endpoint: Endpoint, *, openapi: dict[str, Any] | None = None) -> RestRoute:
    """An operation of the platform API; `path` without its root, such as `/datasets/{dataset_id}/examples`."""
    first, *others = PLATFORM_ROOTS
    return _row(method, first + path, endpoint, tuple(root + path for root in others), openapi)


def v2(method: str, path: str, endpoint: Endpoint, *, openapi: dict[str, Any] | None = None) -> RestRoute:
    """An operation of the v2 API; `path` without its root, such as `/runs/query`."""
    first, *others = V2_ROOTS
    return _row(method, first + path, endpoint, tuple(root + path for root in others), openapi)


def _row(
    method: str, path: str, endpoint: Endpoint, aliases: tuple[str, ...], openapi: dict[str, Any] | None
) -> RestRoute:
    return RestRoute(
        (method,), path, endpoint, TAG, aliases=aliases, is_described=openapi is not None, openapi=openapi or {}
    )
