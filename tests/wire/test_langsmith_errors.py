"""Which words an error of the LangSmith dialect is told in, and which paths are the dialect's."""

from __future__ import annotations

import pytest

from clearspan.api.langsmith.errors import family_of_path
from clearspan.api.langsmith.paths import classic, platform, v2
from clearspan.api.routing import RestRoute
from clearspan.testing.wire import Wire


@pytest.mark.parametrize(
    ("method", "path", "family"),
    [
        ("POST", "/runs", "ingest"),
        ("POST", "/api/v1/runs/", "ingest"),
        ("POST", "/runs/batch", "ingest"),
        ("POST", "/api/v1/runs/multipart/", "ingest"),
        ("PATCH", "/runs/01a2003e-7ead-7ce6-bd6b-0f25c5ba06d8", "ingest"),
        ("GET", "/runs/01a2003e-7ead-7ce6-bd6b-0f25c5ba06d8", "classic"),
        ("POST", "/runs/query", "classic"),
        ("DELETE", "/runs", "classic"),
        ("GET", "/api/v1/sessions", "classic"),
        ("GET", "/feedback-configs", "classic"),
        ("POST", "/v1/platform/datasets/x/examples", "classic"),
        ("POST", "/api/v1/platform/anything", "classic"),
        ("POST", "/api/v2/runs/query", "v2"),
        ("GET", "/v2/threads/x/traces", "v2"),
        ("POST", "/v1/traces", None),
        ("POST", "/api/v1/traces/ingest", None),
        ("GET", "/v1/deletions", None),
        ("POST", "/api/v2/logs", None),
        ("GET", "/api/traces/list/", None),
        ("GET", "/", None),
        ("GET", "/healthz", None),
    ],
)
def test_each_path_has_one_family_of_errors(method: str, path: str, family: str | None) -> None:
    assert family_of_path(method, path) == family


async def nothing(request: object) -> object:
    raise AssertionError


def paths(route: RestRoute) -> set[str]:
    return {route.path, *route.aliases}


def test_rows_stand_at_every_root_of_their_api() -> None:
    found = classic("GET", "/x", nothing, aliases=("/y",))  # type: ignore[arg-type]
    assert paths(found) == {"/x", "/api/v1/x", "/y", "/api/v1/y"}
    assert not found.is_described
    assert paths(platform("GET", "/x", nothing)) == {"/v1/platform/x", "/api/v1/platform/x"}  # type: ignore[arg-type]
    assert paths(v2("GET", "/x", nothing, openapi={"summary": "X"})) == {"/v2/x", "/api/v2/x"}  # type: ignore[arg-type]


def test_unknown_addresses_of_the_dialect_are_told_in_its_words(wire: Wire) -> None:
    for path in ("/sessions/x/nothing", "/api/v1/platform/nothing"):
        answer = wire.get(path)
        assert answer.status_code == 404
        assert set(answer.json()) == {"detail"}, path
    answer = wire.get("/api/v2/runs/x/y/z")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert set(answer.json()) == {"type", "title", "status", "detail", "instance", "remedy"}


def test_what_other_dialects_serve_below_a_shared_root_stays_theirs(wire: Wire) -> None:
    assert set(wire.send("POST", "/api/v2/traces", key=None).json()) == {"code", "message", "detail", "error"}
    image = "/api/v2/traces/t/spans/s/images"
    assert set(wire.send("POST", image, {}).json()) == {"detail", "error", "code"}
    assert set(wire.get("/api/v2/traces/t1").json()) == {"detail", "error", "code"}
