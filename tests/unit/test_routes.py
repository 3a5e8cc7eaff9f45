"""The route inventory: every route declares a permission and holds to it; none is shadowed, none has two owners."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from clearspan.api.app import build_routes
from clearspan.api.auth import Permission, route_permissions
from clearspan.api.langsmith.errors import family_of_path
from clearspan.api.langsmith.paths import OTEL_PATHS
from clearspan.api.langsmith.routes import ROUTES as LANGSMITH_ROUTES
from clearspan.api.methods import allowed_methods
from clearspan.api.native.problem import OWNED
from clearspan.api.otlp.routes import IMAGE_PATHS, LOG_PATHS, TRACE_PATHS
from clearspan.api.phoenix.conventions import VERSION_PATH
from clearspan.api.phoenix.routes import ROUTES as PHOENIX_ROUTES
from clearspan.api.routing import spellings
from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire, open_wire

RESPAN_PATHS = (
    "/api/traces/list/", "/api/traces/bulk/", "/api/traces/bulk-delete/", "/api/traces/{trace_unique_id}/",
    "/api/{unique_organization_id}/traces/{trace_unique_id}/", "/api/v1/traces/ingest",
    "/api/openai/v1/traces/ingest", "/clickhouse/traces/summary/",
)  # fmt: skip
SCORING_PATHS = (
    "/api/evaluators/", "/api/evaluators/list/", "/api/evaluators/summary/", "/api/evaluators/{evaluator_id}/",
    "/api/scores/", "/api/scores/list/", "/api/scores/{score_id}/",
)  # fmt: skip
"""What is described; a log's own scores are below `/api/logs/{log_id}/`, too."""
EXPERIMENT = "/api/v2/experiments/{experiment_id}/"
EXPERIMENT_PATHS = (
    "/api/v2/experiments/", "/api/v2/experiments/list/", "/api/v2/experiments/summary/",
    "/api/v2/experiments/exports/{export_id}/", EXPERIMENT,
    *(f"{EXPERIMENT}{part}/" for part in ("logs/list", "logs/summary", "logs/{log_id}", "histogram", "progress")),
    *(f"{EXPERIMENT}{part}/" for part in ("cancel", "start", "retry", "exports/{export_id}")),
)  # fmt: skip
"""What is described; the oldest clients also ask `…/logs/`."""
DATASET = "/api/datasets/{dataset_id}/"
DATASET_PATHS = (
    "/api/datasets/", "/api/datasets/list/", DATASET, f"{DATASET}logs/", f"{DATASET}logs/{{unique_id}}/",
    *(f"{DATASET}logs/{part}/" for part in ("list", "bulk", "import", "summary")),
)  # fmt: skip
ONE_DELETION = "/v1/deletions/{deletion_id}"
NATIVE_PATHS = (
    "/v1/comparisons", "/v1/deletions", "/v1/deletions/preview", ONE_DELETION,
    *(f"{ONE_DELETION}/{part}" for part in ("events", "cancel", "retry", "receipt", "membership", "tombstones")),
    "/v1/tombstones/lift", "/v1/holds", "/v1/holds/{hold_id}",
    *(f"/v1/ledger/{part}" for part in ("entries", "head", "inclusion", "consistency", "keys")),
    "/v1/ledger/entries/{seq}/private",
)  # fmt: skip
LANGSMITH_OPEN = frozenset({
    "/api/v1/attachments/{token}", "/api/v1/info",
    *(f"/api/v1/public/{{share_token}}/{part}" for part in ("run", "run/{run_id}", "runs/query", "feedbacks")),
    *(f"/api/v2/public/{{share_token}}/{part}" for part in ("run/{run_id}", "runs/query")),
})  # fmt: skip
"""Canonical paths of the LangSmith dialect that need no key."""
PHOENIX_PATHS = frozenset(spellings(*(path for route in PHOENIX_ROUTES for path in (route.path, *route.aliases))))
SYSTEM_PATHS = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json")
OPEN = {Permission.PUBLIC, Permission.NONE_NEEDED}


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with ExitStack() as stack:
        opened = open_wire(stack, tmp_path / "data", "memory")
        opened.ingest(opened.span("t1"))
        yield opened


def inventory(wire: Wire) -> dict[tuple[str, str], Permission | None]:
    return route_permissions(build_routes(wire.services))


def concrete(path: str) -> str:
    """A path that the template matches, with ids that exist where that matters."""
    return re.sub(r"\{[^}]*\}", "t1", path)


def test_every_route_declares_a_permission(wire: Wire) -> None:
    assert [route for route, permission in inventory(wire).items() if permission is None] == []


def test_routes_without_a_key_are_these_and_no_others(wire: Wire) -> None:
    found = {path for (_, path), permission in inventory(wire).items() if permission in OPEN}
    langsmith = {
        path for route in LANGSMITH_ROUTES if route.path in LANGSMITH_OPEN for path in (route.path, *route.aliases)
    }
    public = "/api/{unique_organization_id}/traces/{trace_unique_id}/"
    export = "/api/v2/experiments/exports/{export_id}/"
    assert found == set(spellings(*SYSTEM_PATHS, VERSION_PATH, public, export, *langsmith))


def test_every_langsmith_operation_stands_at_two_roots() -> None:
    for route in LANGSMITH_ROUTES:
        assert route.path.startswith(("/api/v1/", "/api/v2/")), route.path
        below = route.path.removeprefix("/api/v1").removeprefix("/api/v2")
        twin = f"/v2{below}" if route.path.startswith("/api/v2/") else below
        assert twin.replace("/platform/", "/v1/platform/", 1) in route.aliases, route.path


def test_every_path_of_the_contract_is_served_in_both_spellings(wire: Wire) -> None:
    served = {path for _, path in inventory(wire)}
    assert set(spellings(*RESPAN_PATHS, *DATASET_PATHS, *NATIVE_PATHS)) <= served
    assert set(spellings(*TRACE_PATHS, *LOG_PATHS, *SYSTEM_PATHS)) <= served
    assert set(spellings(*EXPERIMENT_PATHS, f"{EXPERIMENT}logs/")) <= served
    of_log = "/api/logs/{log_id}/scores/"
    assert set(spellings(*SCORING_PATHS, of_log, f"{of_log}{{score_id}}/")) <= served


def calls(wire: Wire) -> list[tuple[str, str, Permission]]:
    return [
        (method, concrete(path), permission)
        for (method, path), permission in inventory(wire).items()
        if permission is not None and permission not in OPEN and method != "HEAD"
    ]


@pytest.mark.parametrize("key", [None, "", "wrong", "cs_00000000_" + "A" * 43, "x" * 10_000])
def test_without_a_valid_key_nothing_answers(wire: Wire, key: str | None) -> None:
    for method, path, _ in calls(wire):
        wire.clock.advance(1)  # else the limit of wrong keys is met
        answer = wire.send(method, path, {}, key=key)
        assert answer.status_code == 401, (method, path)
        assert "traces" not in answer.text or "API key" in answer.text


def test_an_expired_or_revoked_key_opens_nothing(wire: Wire) -> None:
    org_id = wire.catalog.first_org.id
    expired = wire.catalog.create_key(org_id, name="short", expires_at_ns=wire.clock.now_ns() + 1)
    revoked = wire.catalog.create_key(org_id, name="gone")
    wire.catalog.revoke_key(org_id, revoked.key.public_id)
    wire.clock.advance(10)
    for method, path, _ in calls(wire):
        wire.clock.advance(1)  # else the limit of wrong keys is met
        for key in (expired.secret, revoked.secret):
            assert wire.send(method, path, {}, key=key).status_code == 401, (method, path)


@pytest.mark.long  # tests/promises/test_tenants.py asks the same of every route by default
def test_a_key_opens_exactly_what_its_scope_allows(wire: Wire) -> None:
    keys = {scope: wire.key(scope) for scope in KeyScope}
    for (method, path, permission), (scope, key) in itertools.product(calls(wire), keys.items()):
        answer = wire.send(method, path, {"is_public": False}, key=key)
        if permission.scope is scope:
            assert answer.status_code not in (401, 403), (method, path, scope)
        else:
            assert answer.status_code == 403, (method, path, scope, answer.text)


def test_another_tenants_key_sees_and_changes_nothing(wire: Wire) -> None:
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    bodies: dict[str, Any] = {
        "/api/traces/bulk/": {"filters": {"trace_unique_id": {"value": ["t1"]}}},
        "/api/traces/t1/": {"is_public": True},
    }
    before = wire.get("/api/traces/t1/").json()
    assert wire.list_ids(key=theirs) == []
    assert wire.list_ids() == ["t1"]
    for method, path, _ in calls(wire):
        canonical = path.rstrip("/") + "/"
        answer = wire.send(method, path, bodies.get(canonical.replace("bulk-delete", "bulk"), {}), key=theirs)
        assert before["start_time"] not in answer.text, (method, path)
        if path.startswith("/api/traces") and (method == "DELETE" or "bulk" in path):
            assert answer.json().get("deleted_count") == 0, (method, path)
        if canonical == "/api/traces/t1/" and method != "DELETE":
            assert answer.status_code == 404, method
    assert wire.get("/api/traces/t1/").json() == before
    assert wire.get(f"/api/{wire.catalog.first_org.public_id}/traces/t1/", key=None).status_code == 404


def test_no_route_is_taken_by_one_before_it(wire: Wire) -> None:
    app = build_routes(wire.services)
    routes = [route for route in app.router.routes if isinstance(route, Route)]
    for route in routes:
        for method in route.methods or ():
            path = re.sub(r"\{[^}]*\}", "some-id", route.path)
            taken = next(each for each in routes if method in (each.methods or ()) and each.path_regex.fullmatch(path))
            assert taken is route, f"{method} {route.path} is shadowed by {taken.path}"


def test_no_path_and_method_has_two_owners(wire: Wire) -> None:
    app = build_routes(wire.services)
    seen: dict[tuple[str, str], object] = {}
    for route in app.router.routes:
        assert isinstance(route, Route)
        for method in route.methods or ():
            assert seen.setdefault((method, route.path), route.endpoint) is route.endpoint
            assert list(seen).count((method, route.path)) == 1


def test_no_slash_is_ever_redirected(wire: Wire) -> None:
    for method, path, _ in calls(wire):
        for spelling in spellings(path):
            answer = wire.send(method, spelling, {}, key=None, follow_redirects=False)
            assert answer.status_code == 401, (method, spelling)


def test_the_description_is_complete_and_valid(wire: Wire) -> None:
    answer = wire.get("/openapi.json", key=None)
    assert answer.status_code == 200
    api = answer.json()
    assert api["openapi"].startswith("3.1")
    operations = [(path, method, op) for path, item in api["paths"].items() for method, op in item.items()]
    assert len({op["operationId"] for _, _, op in operations}) == len(operations)
    for path, _, operation in operations:
        named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), path
        assert operation["description"]
        assert any(status.startswith("2") for status in operation["responses"]), path
    described = {path for path, _, _ in operations}
    assert described == {
        "/api/v1/traces/ingest", "/api/traces/list/", "/api/traces/bulk/", "/clickhouse/traces/summary/",
        "/api/traces/{trace_unique_id}/", "/api/{unique_organization_id}/traces/{trace_unique_id}/",
        "/healthz", "/readyz", "/metrics", "/v1/traces", "/v1/logs", *NATIVE_PATHS, *DATASET_PATHS, *EXPERIMENT_PATHS,
        *SCORING_PATHS,
        *(route.path for route in (*LANGSMITH_ROUTES, *PHOENIX_ROUTES) if route.is_described),
    }  # fmt: skip
    bulk = api["paths"]["/api/traces/bulk/"]["post"]["requestBody"]
    assert bulk["content"]["application/json"]["schema"]["required"] == ["filters"]


def test_unknown_addresses_and_methods_are_json_errors(wire: Wire) -> None:
    for method, path, status in (
        ("GET", "/nope", 404),
        ("POST", "/api/v9/traces", 404),
        ("PUT", "/api/traces/list/", 405),
        ("GET", "/v1/traces", 405),
        ("DELETE", "/healthz", 405),
    ):
        answer = wire.send(method, path)
        assert answer.status_code == status, (method, path)
        assert answer.json()["code" if path != "/v1/traces" else "message"]
        assert "detail" in answer.json()


def test_health_needs_no_key_and_the_index_leads_on(wire: Wire) -> None:
    assert wire.get("/healthz", key=None).json() == {"status": "ok"}
    assert wire.get("/readyz/", key=None).json() == {"status": "ready", "store": "ok", "writer": "ok"}
    links = wire.get("/", key=None).json()["links"]
    for address in links.values():
        assert wire.get(address, key=None).status_code == 200


def test_the_401_tells_where_to_look(wire: Wire) -> None:
    expected = "Your API key is invalid or expired, please check your API key at http://clearspan.test/ui/keys"
    answer = wire.get("/api/traces/t1/", key="wrong")
    assert answer.json() == {"detail": expected, "error": expected, "code": "not_authenticated"}
    assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Api-Key", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} owner-key-of-the-tests"}
        assert wire.get("/api/traces/t1/", key=None, headers=headers).status_code == 200
    assert wire.get("/api/traces/t1/", key=None, headers={"X-API-Key": "owner-key-of-the-tests"}).status_code == 200


def test_an_unexpected_error_tells_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret needle")

    monkeypatch.setattr(wire.services.reader, "get_trace", broken)
    answer = wire.get("/api/traces/t1/")
    assert answer.status_code == 500
    assert set(answer.json()) == {"detail", "error", "code"}
    assert answer.json()["code"] == "internal_error"
    assert "needle" not in answer.text


def test_head_is_answered_wherever_get_is_and_without_a_body(wire: Wire) -> None:
    for method, path, permission in [*calls(wire), ("GET", "/healthz", Permission.NONE_NEEDED)]:
        if method != "GET":
            continue
        got, head = wire.get(path), wire.send("HEAD", path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
        if permission is not Permission.NONE_NEEDED:
            assert wire.send("HEAD", path, key=None).status_code == 401, path
    assert wire.send("HEAD", "/nope").status_code == 404


def test_a_405_names_every_method_of_the_path(wire: Wire) -> None:
    by_path: dict[str, set[str]] = {}
    for method, path in inventory(wire):
        by_path.setdefault(concrete(path), set()).add(method)
    router = build_routes(wire.services).router
    for path, methods in by_path.items():
        taken = allowed_methods(router, path)  # also by an id's route, which a literal segment looks like
        answer = wire.send(next(each for each in ("PUT", "DELETE", "PATCH", "OPTIONS") if each not in taken), path)
        assert answer.status_code == 405, path
        assert set(answer.headers["allow"].split(", ")) >= methods | ({"HEAD"} if "GET" in methods else set()), path
    assert wire.send("PUT", "/v1/deletions").headers["allow"] == "GET, HEAD, POST"


LANGSMITH_SHAPES = {
    "classic": {"detail"},
    "ingest": {"error", "details"},
    "v2": {"type", "title", "status", "detail", "instance", "remedy"},
}


def langsmith_family(method: str, path: str) -> str | None:
    others = {concrete(each) for each in spellings(*TRACE_PATHS, *LOG_PATHS, *IMAGE_PATHS)}
    is_public_trace = method == "GET" and re.fullmatch(r"/api/\w+/traces/\w+/?", path)
    if path in others or is_public_trace:
        return None
    return family_of_path(method, path)


def test_each_dialect_has_one_shape_of_errors(wire: Wire) -> None:
    for method, path, _ in calls(wire):
        if method == "HEAD":
            continue
        wire.clock.advance(1)  # else the limit of wrong keys is met
        for answer in (wire.send(method, path, {}, key=None), wire.send(method, path, b"{", key="x" * 9)):
            assert answer.status_code == 401
            if path in {concrete(each) for each in PHOENIX_PATHS}:
                assert answer.text == "Invalid token", path
                assert answer.headers["content-type"] == "text/plain; charset=utf-8", path
                assert answer.headers["x-phoenix-server-version"], path
                continue
            body = answer.json()
            if family := langsmith_family(method, path):
                assert set(body) == LANGSMITH_SHAPES[family], path
            elif path.startswith(OWNED):
                assert answer.headers["content-type"] == "application/problem+json", path
                assert set(body) == {"type", "title", "status", "detail", "code", "fields"}, path
                assert body["type"] == "urn:clearspan:problem:not_authenticated"
                assert (body["status"], body["code"]) == (401, "not_authenticated")
            elif path.rstrip("/") in {*TRACE_PATHS, *LOG_PATHS, *OTEL_PATHS}:
                assert set(body) == {"code", "message", "detail", "error"}, path
            else:
                assert set(body) == {"detail", "error", "code"}, path
    for path in ("/v1/deletions/x/nothing", "/v1/holds/x/y", "/v1/ledger"):
        answer = wire.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["code"] == "not_found"
    answer = wire.get("/v1/nothing-here")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
