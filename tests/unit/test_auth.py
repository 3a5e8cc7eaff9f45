"""The gate: every route declares its permission, and without one nothing runs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from httpx import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from clearspan.api.auth import (
    Gate,
    GuessLimit,
    Permission,
    UnmarkedRoute,
    attach,
    permission_of,
    presented_key,
    principal_of,
    protect,
    requires,
    route_permissions,
)
from clearspan.catalog import Catalog, KeyScope, Principal
from clearspan.model.errors import ClearspanError, NotAuthenticated, NotPermitted, Overloaded
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog

STATUS = {NotAuthenticated: 401, NotPermitted: 403, Overloaded: 429, UnmarkedRoute: 500}


class World:
    """An app with one route of each kind, its keys, and a note of which endpoints ran."""

    def __init__(self, data: Path) -> None:
        self.clock = FixedClock()
        lay_catalog(data)
        self.catalog = Catalog.open(data, clock=self.clock, ids=CountingIds())
        org = self.catalog.first_org
        self.read_key = self.catalog.create_key(org.id, name="r", scopes=[KeyScope.READ]).secret
        self.all_key = self.catalog.create_key(org.id, name="a").secret
        self.ran: list[str] = []
        self.app = self.make_app()

    def make_app(self) -> FastAPI:
        ran = self.ran

        @requires(Permission.READ)
        async def plain(request: Request) -> StarletteResponse:
            ran.append("plain")
            return JSONResponse(principal_of(request).key_name)

        @requires(Permission.NONE_NEEDED)
        async def health(_request: Request) -> StarletteResponse:
            return PlainTextResponse("ok")

        async def unmarked(_request: Request) -> StarletteResponse:
            ran.append("unmarked")
            return PlainTextResponse("open to all")

        @requires(Permission.DELETE)
        class AsClass(HTTPEndpoint):
            async def delete(self, _request: Request) -> StarletteResponse:
                ran.append("class")
                return PlainTextResponse("gone")

        router = APIRouter(prefix="/v1")

        @router.get("/who")
        @requires(Permission.READ)
        def who(caller: Annotated[Principal, Depends(principal_of)]) -> dict[str, str]:
            ran.append("who")
            return {"key": caller.key_name}

        @requires(Permission.ADMIN)
        @router.post("/projects/{name}")
        def make(name: str, size: int) -> str:
            ran.append("make")
            return f"{name} {size}"

        @router.get("/forgotten")
        def forgotten() -> str:
            ran.append("forgotten")
            return "open to all"

        app = FastAPI(openapi_url=None)
        attach(app, [Route("/plain", plain, methods=["GET", "POST"]), Route("/healthz", health)])
        attach(app, [Route("/unmarked", unmarked), Route("/class", AsClass)])
        attach(app, router.routes)
        attach(app, [Mount("/in", Starlette(routes=[Route("/deep", plain), Route("/hole", unmarked)]))])
        attach(app, [Mount("/asgi", requires(Permission.PUBLIC)(functools.partial(PlainTextResponse("static"))))])
        app.add_exception_handler(ClearspanError, self.render)
        protect(app, Gate(self.catalog, GuessLimit(3, self.clock)))
        return app

    @staticmethod
    def render(_request: Request, error: Exception) -> StarletteResponse:
        assert isinstance(error, ClearspanError)
        return JSONResponse({"detail": error.message, "code": error.code}, STATUS[type(error)])

    async def call(self, method: str, path: str, key: str | None = None, **options: Any) -> Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        transport = ASGITransport(self.app, raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_a_key_with_the_scope_passes_and_is_known_to_the_endpoint(world: World) -> None:
    assert (await world.call("GET", "/plain", world.read_key)).json() == "r"
    assert (await world.call("GET", "/v1/who", world.all_key)).json() == {"key": "a"}
    assert (await world.call("POST", "/v1/projects/x?size=3", world.all_key)).json() == "x 3"
    assert (await world.call("DELETE", "/class", world.all_key)).text == "gone"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/plain"), ("HEAD", "/plain"), ("POST", "/v1/projects/x"), ("DELETE", "/class")]
)
async def test_without_a_valid_key_nothing_runs(world: World, method: str, path: str) -> None:
    for key in (None, "wrong", world.read_key + "x"):
        assert (await world.call(method, path, key)).status_code == 401
    assert world.ran == []


async def test_without_the_scope_nothing_runs_not_even_validation(world: World) -> None:
    for method, path in (("POST", "/v1/projects/x?size=none"), ("DELETE", "/class")):
        answer = await world.call(method, path, world.read_key)
        assert answer.status_code == 403
        assert "lacks the scope" in answer.json()["detail"]
    assert world.ran == []


@pytest.mark.parametrize("path", ["/unmarked", "/v1/forgotten", "/in/hole"])
async def test_a_route_without_a_mark_is_closed_to_everybody(world: World, path: str) -> None:
    for key in (None, world.all_key):
        assert (await world.call("GET", path, key)).status_code == 500
    assert world.ran == []


async def test_what_needs_no_key_ignores_a_wrong_one(world: World) -> None:
    for path, body in (("/healthz", "ok"), ("/asgi/x", "static")):
        for key in (None, "wrong"):
            assert (await world.call("GET", path, key)).text == body


async def test_a_revoked_key_stops_at_once(world: World) -> None:
    assert (await world.call("GET", "/plain", world.read_key)).status_code == 200
    org = world.catalog.first_org
    world.catalog.revoke_key(org.id, world.read_key[:11])
    assert (await world.call("GET", "/plain", world.read_key)).status_code == 401


async def test_every_route_is_listed_with_its_permission(world: World) -> None:
    assert route_permissions(world.app) == {
        ("GET", "/plain"): Permission.READ,
        ("HEAD", "/plain"): Permission.READ,
        ("POST", "/plain"): Permission.READ,
        ("GET", "/healthz"): Permission.NONE_NEEDED,
        ("HEAD", "/healthz"): Permission.NONE_NEEDED,
        ("GET", "/unmarked"): None,
        ("HEAD", "/unmarked"): None,
        ("*", "/class"): Permission.DELETE,
        ("GET", "/v1/who"): Permission.READ,
        ("POST", "/v1/projects/{name}"): Permission.ADMIN,
        ("GET", "/v1/forgotten"): None,
        ("GET", "/in/deep"): Permission.READ,
        ("HEAD", "/in/deep"): Permission.READ,
        ("GET", "/in/hole"): None,
        ("HEAD", "/in/hole"): None,
        ("*", "/asgi"): Permission.PUBLIC,
    }


async def test_no_route_can_be_added_behind_the_gate(world: World) -> None:
    async def late(_request: Request) -> StarletteResponse:
        return PlainTextResponse("open to all")

    inner = world.app.router.routes[-2]
    assert isinstance(inner, Mount)
    assert isinstance(inner.app, Starlette)
    for app in (world.app, inner.app):
        with pytest.raises(RuntimeError, match="closed"):
            app.router.add_route("/late", late)
    with pytest.raises(RuntimeError, match="closed"):
        attach(world.app, [Route("/late", late)])
    with pytest.raises(RuntimeError, match="closed"):
        world.app.get("/late")(late)


async def test_what_no_gate_can_stand_in_is_refused() -> None:
    gate = Gate(None, GuessLimit(None, FixedClock()))  # type: ignore[arg-type]
    included = FastAPI(openapi_url=None)
    included.include_router(APIRouter())
    with pytest.raises(TypeError, match="attach"):
        protect(included, gate)
    with pytest.raises(TypeError, match="attach"):
        protect(Starlette(routes=[Host("other.test", Router())]), gate)


async def test_a_web_socket_is_guarded_too(world: World) -> None:
    ran = []

    @requires(Permission.READ)
    async def socket(websocket: WebSocket) -> None:
        ran.append(principal_of(websocket).key_name)

    app = Starlette(routes=[WebSocketRoute("/ws", socket)])
    assert route_permissions(app) == {("WEBSOCKET", "/ws"): Permission.READ}
    protect(app, Gate(world.catalog, GuessLimit(None, world.clock)))

    async def connect(headers: list[tuple[bytes, bytes]]) -> None:
        scope = {"type": "websocket", "path": "/ws", "headers": headers, "query_string": b"", "root_path": ""}

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(_message: object) -> None:
            """Nobody listens."""

        await app.router(scope, receive, send)  # type: ignore[arg-type]

    with pytest.raises(NotAuthenticated):
        await connect([])
    await connect([(b"x-api-key", world.read_key.encode())])
    assert ran == ["r"]


async def test_guessing_is_slowed_and_those_who_know_pass(world: World) -> None:
    assert (await world.call("GET", "/plain", world.read_key)).status_code == 200
    for number in range(3):
        assert (await world.call("GET", "/plain", f"guess-{number}")).status_code == 401
    assert (await world.call("GET", "/plain", "guess-4")).status_code == 429
    assert (await world.call("GET", "/plain", world.read_key)).status_code == 200
    world.clock.advance(20)
    assert (await world.call("GET", "/plain", "guess-5")).status_code == 401
    assert (await world.call("GET", "/plain", "guess-6")).status_code == 429


async def test_the_memory_of_guesses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuessLimit, "ADDRESSES_MAX", 10)
    limit = GuessLimit(5, FixedClock())
    for number in range(100):
        limit.count(f"10.0.0.{number}")
    assert len(limit._spent) <= 10


async def test_no_key_reaches_a_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for key in (world.read_key, "canary-of-a-wrong-key"):
        answer = await world.call("GET", "/plain", key)
        assert key not in answer.text
        assert key not in caplog.text


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"authorization", b"Bearer K")], "K"),
        ([(b"authorization", b"bearer  K ")], "K"),
        ([(b"authorization", b"Api-Key K")], "K"),
        ([(b"x-api-key", b"K")], "K"),
        ([(b"api_key", b"K")], "K"),
        ([(b"authorization", b"Basic abc"), (b"x-api-key", b"K")], "K"),
        ([(b"authorization", b"Bearer "), (b"api_key", b"K")], "K"),
        ([(b"api_key", b"3"), (b"x-api-key", b"2"), (b"authorization", b"Bearer 1")], "1"),
        ([(b"api_key", b"3"), (b"x-api-key", b"2")], "2"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"K")], None),
        ([(b"x-api-key", b"\xff\x00")], "\xff\x00"),
    ],
)
async def test_keys_are_found_in_every_header_clients_use(headers: list[tuple[bytes, bytes]], key: str | None) -> None:
    assert presented_key(headers) == key


async def test_marks_are_seen_through_partials_and_on_methods() -> None:
    @requires(Permission.INGEST)
    def endpoint(size: int) -> int:
        return size

    class Holder:
        @requires(Permission.APPROVE)
        def method(self) -> None:
            """Marked."""

    assert permission_of(functools.partial(functools.partial(endpoint), 3)) is Permission.INGEST
    assert permission_of(Holder().method) is Permission.APPROVE
    assert permission_of(len) is None
    assert {each.scope for each in Permission} - {None} == set(KeyScope)
