"""What holds for every answer of the Phoenix dialect: versions, errors, validation, pages.

An endpoint checks in this order, as Phoenix does:

    1. key (401) and role (403)     the gate, by the route's permission
    2. syntax (422, JSON)           read_query, read_object
    3. its own guards (422, text)   raise Refused
    4. the project (404, text)      raise Refused

Handlers' errors are plain text; those of syntax are FastAPI's `{"detail": [{"type", "loc", "msg", "input", "ctx"}]}`,
made by the same library as Phoenix's own, so that types, messages and what counts as a boolean or a time agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar, get_origin

from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearspan.api.auth import Permission, refused_for
from clearspan.api.bodies import REST_BODY_BYTES_MAX, InvalidJson, body_limits, parse_json
from clearspan.api.errors import Failure, dump_json
from clearspan.api.limits import read_body
from clearspan.api.native.problem import OWNED as NATIVE_PATHS
from clearspan.api.routing import Endpoint, RestRoute
from clearspan.api.services import services_of
from clearspan.catalog.principal import KeyScope, Principal
from clearspan.model.clock import datetime_from_ns, ns_from_datetime
from clearspan.model.errors import ClearspanError

TAG: Final = "phoenix"
VERSION: Final = "20.26.1"
"""The version of Phoenix whose API this one speaks: clients decide by it what they may call."""
VERSION_HEADER: Final = "x-phoenix-server-version"
VERSION_PATH: Final = "/arize_phoenix_version"
ROOT: Final = "/v1"
NOT_OURS: Final = (*NATIVE_PATHS, "/v1/platform", "/v1/logs", "/v1/metrics")
"""What others own below /v1, besides the routes they have there."""
DETAILS_MAX: Final = 100
"""A body of 100,000 wrong items is not answered with as many complaints."""

INVALID_TOKEN: Final = "Invalid token"
METHOD_NOT_ALLOWED: Final = "Method Not Allowed"
VIEWERS: Final = "Viewers cannot perform this action."
ADMINS_ONLY: Final = "Only admin or system users can perform this action."
WRITE_SCOPES: Final = frozenset(KeyScope) - {KeyScope.READ}

_NS_MAX: Final = 2**63 - 1


class Refused(ClearspanError):
    """An answer other than success, in the words of the dialect."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers

    def response(self) -> Response:
        """As Phoenix's own handlers answer: the bare text."""
        return text_reply(self.status, self.message, self.headers)


class Invalid(ClearspanError):
    """The request is not what the route's description asks for."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__("The request is not valid.")
        self.details = details

    def response(self) -> Response:
        """As FastAPI answers."""
        return json_reply({"detail": self.details}, 422)


def aware(at: datetime) -> datetime:
    """The time in UTC; without an offset it is UTC already."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _has_offset(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("timestamps must be timezone-aware")
    return at


Moment = Annotated[datetime, AfterValidator(aware)]
"""ISO 8601 with or without offset (then UTC), a bare date, or Unix seconds."""
OffsetMoment = Annotated[datetime, AfterValidator(_has_offset)]
"""ISO 8601 with an offset."""
Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""
AnnotatorWord = Literal["LLM", "CODE", "HUMAN"]
AnyLimit = Annotated[int, Field(gt=0)]
"""A page size without an upper bound; whoever reads it caps it."""
Limit1000 = Annotated[int, Field(gt=0, le=1000)]
Limit10000 = Annotated[int, Field(gt=0, le=10_000)]


class Query(BaseModel):
    """The query parameters of a route, one field each; of a repeated one the last counts, unless it is a list.

    Unknown parameters are ignored. Fields in the order of Phoenix's own, for the details of errors follow it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class Body(BaseModel):
    """A JSON object of a request; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=BaseModel)


def read_query(request: Request, kind: type[Q]) -> Q:
    """The query parameters. Raises Invalid. Cost: about 5 µs."""
    given: dict[str, Any] = {}
    for name, told in kind.model_fields.items():
        if name in request.query_params:
            is_list = get_origin(told.annotation) is list
            given[name] = request.query_params.getlist(name) if is_list else request.query_params[name]
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise Invalid(details_of(error, "query")) from None


async def read_object(request: Request, kind: type[B], *, bytes_max: int = REST_BODY_BYTES_MAX) -> B:
    """The JSON body.

    Args:
        bytes_max: narrower than the setting for all bodies.
    Raises:
        Invalid: no JSON (a key given twice in one object is none), or not what `kind` describes.
        PayloadTooLarge, RequestTimeout: see limits.read_body.
    """
    return parse_object(await read_body(request, body_limits(services_of(request).settings, bytes_max=bytes_max)), kind)


def parse_object(body: bytes, kind: type[B]) -> B:
    """See read_object."""
    if not body:
        raise Invalid([_detail("missing", ("body",), "Field required", None)])
    try:
        return kind.model_validate(parse_json(body), from_attributes=True)
    except InvalidJson as error:
        context = {"error": error.message}
        raise Invalid([_detail("json_invalid", ("body", 0), "JSON decode error", {}, context)]) from None
    except ValidationError as error:
        raise Invalid(details_of(error, "body")) from None


def invalid(kind: str, place: Iterable[str | int], text: str, value: object, context: object = None) -> Invalid:
    """One complaint of one's own; `place` begins with `query`, `path` or `body`."""
    return Invalid([_detail(kind, tuple(place), text, value, context)])


def details_of(error: ValidationError, place: str) -> list[dict[str, Any]]:
    """The complaints as FastAPI tells them: without links, and with `place` before each location."""
    return [_told(each, place) for each in error.errors(include_url=False)[:DETAILS_MAX]]


def _told(each: ErrorDetails, place: str) -> dict[str, Any]:
    # A parameter that is missing has no input; our model would show all the others instead.
    value = None if place == "query" and each["type"] == "missing" else each["input"]
    context = each.get("ctx")
    if context is not None:
        context = {name: {} if isinstance(said, Exception) else said for name, said in context.items()}
    return _detail(each["type"], (place, *each["loc"]), each["msg"], value, context)


def _detail(
    kind: str, place: tuple[str | int, ...], text: str, value: object, context: object = None
) -> dict[str, Any]:
    made = {"type": kind, "loc": list(place), "msg": text, "input": value}
    return made if context is None else made | {"ctx": context}


# Answers


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(
        dump_json(value), status, headers=None if headers is None else dict(headers), media_type="application/json"
    )


def data_reply(value: object, status: int = 200) -> Response:
    """`{"data": …}`."""
    return json_reply({"data": value}, status)


def page_reply(rows: list[Any], next_cursor: str | None) -> Response:
    """A page of a list; `next_cursor` None: it is the last."""
    return json_reply({"data": rows, "next_cursor": next_cursor})


def text_reply(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Plain text."""
    content = text.encode("utf-8", "replace")
    return Response(content, status, headers=None if headers is None else dict(headers), media_type="text/plain")


def no_content(headers: Mapping[str, str] | None = None) -> Response:
    """204 without a content type: Phoenix names JSON, over which clients stumble that parse by it."""
    return Response(status_code=204, headers=None if headers is None else dict(headers))


def render_time(ns: int | None) -> str | None:
    """Unix nanoseconds as Phoenix writes times: `+00:00`, microseconds only if there are any."""
    return None if ns is None else datetime_from_ns(ns).isoformat()


def bound_ns(at: datetime | None) -> int | None:
    """A bound of a window in Unix nanoseconds; one beyond what is stored becomes the last that is."""
    return None if at is None else max(-_NS_MAX, min(_NS_MAX, ns_from_datetime(at)))


# Who asks


def is_viewer(principal: Principal) -> bool:
    """Whether a key may only read: Phoenix's role VIEWER."""
    return not principal.scopes & WRITE_SCOPES


def is_admin(principal: Principal) -> bool:
    """Whether a key has the scope `admin`: Phoenix's role ADMIN."""
    return principal.permits(KeyScope.ADMIN)


def require_admin(principal: Principal) -> None:
    """Raise Refused (403) unless the key is an administrator's."""
    if not is_admin(principal):
        raise Refused(403, ADMINS_ONLY)


# Routes and the dialect's part of the addresses


def phoenix(
    method: str, path: str, endpoint: Endpoint, *, aliases: tuple[str, ...] = (), openapi: dict[str, Any] | None = None
) -> RestRoute:
    """An operation; `path` without its root, such as `/projects/{project}`.

    Args:
        openapi: what the description says of it; None: it is not described.
    """
    others = tuple(ROOT + alias for alias in aliases)
    return RestRoute(
        (method,), ROOT + path, endpoint, TAG, aliases=others, is_described=openapi is not None, openapi=openapi or {}
    )


def own(app: FastAPI, paths: Iterable[str]) -> None:
    """Tell that the routes of these paths (templates) are the dialect's."""
    app.state.phoenix_paths = frozenset(paths)


def is_phoenix(app: FastAPI, scope: Scope) -> bool:
    """Whether the dialect answers: the route that took the request decides; where none did, the path does."""
    path: str = scope["path"]
    if not path.startswith((ROOT + "/", VERSION_PATH)):
        return False
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return route in app.state.phoenix_paths
    return not any(path == owned or path.startswith(owned + "/") for owned in NOT_OURS)


class ServerVersion:
    """ASGI middleware: names the version in the head of every answer of the dialect, errors included."""

    def __init__(self, app: ASGIApp, routes: FastAPI) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith((ROOT + "/", VERSION_PATH)):
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            # Not before the answer: only then has the router written into the scope which route it was.
            if message["type"] == "http.response.start" and is_phoenix(self._routes, scope):
                headers = [*message.get("headers", ()), (VERSION_HEADER.encode(), VERSION.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, named)


def phoenix_failure(request: Request, failure: Failure) -> Response:
    """Any error of the server as the dialect tells it: the bare sentence."""
    status = 422 if failure.status == 400 else failure.status
    text = failure.message
    if status == 401:
        text = INVALID_TOKEN
    elif status == 405:
        text = METHOD_NOT_ALLOWED
    elif failure.code == "not_permitted":
        text = _not_permitted(request, text)
    return text_reply(status, text, failure.headers)


def _not_permitted(request: Request, text: str) -> str:
    asked = refused_for(request)
    if asked is None:
        return text
    principal, permission = asked
    if request.method not in ("GET", "HEAD") and is_viewer(principal):
        return VIEWERS
    return ADMINS_ONLY if permission is Permission.ADMIN and not is_admin(principal) else text
