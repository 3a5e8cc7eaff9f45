"""JSON logs that hold no personal data: route templates, counts, codes and durations.

Never logged: paths, query strings, headers, bodies, ids of traces, filter values, nor the text of an unexpected
exception, which may quote any of them. Of an exception the log shows its class and the lines of code it passed.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any, TextIO

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearspan.api.errors import failure_of, json_failure
from clearspan.api.metrics import Metrics

UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other word is the client's own and is neither logged nor made a label."""

_log = structlog.stdlib.get_logger("clearspan.http")


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send the logs of this process, the server's and the libraries', to `stream` (stderr) as one JSON a line."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _safe_exception,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Ten lines of its plug-ins at each first start, of use to its developers.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _safe_exception(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace `exc_info` by the exception's class and the places it came through."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = type(error).__qualname__
        event["places"] = places_of(error.__traceback__)
    return event


def places_of(trace: TracebackType | None) -> list[str]:
    """`module:line` of every frame, outermost first, at most the last 40."""
    places = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places[-40:]


class Watch:
    """Outermost ASGI middleware: one log line and one count for each request; the last catch for its errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        is_complete = False

        async def watching(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except Exception as error:
            # Not as `exc_info`: what a renderer makes of that, locals included, is up to how logging is configured.
            _log.error(
                "unexpected error",
                route=template_of(scope),
                exception=type(error).__qualname__,
                places=places_of(error.__traceback__),
            )
            if not status:
                await json_failure(failure_of(error))(scope, receive, watching)
            elif not is_complete:
                raise  # half an answer is out; closing the connection is all that is left
        finally:
            route = template_of(scope)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self._metrics.requests.labels(method, route, status).inc()
            level = logging.INFO if status < 500 else logging.WARNING
            _log.log(
                level,
                "request",
                method=method,
                route=route,
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
            )


def template_of(scope: Scope) -> str:
    """The template of the route that took the request, such as `/api/traces/{trace_id}/`."""
    route = scope.get("route")
    return getattr(route, "path", None) or UNMATCHED
