"""Public links to runs: under the client's token, and gone with the trace."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from clearspan.api.langsmith.shares import opened_by
from clearspan.catalog import KeyScope
from clearspan.model.errors import NotFound
from clearspan.testing.wire import Wire

ROOTS = ("", "/api/v1")
TRACE = "01a2003e8a757cbeb35cd903258c4c13"
RUN, CHILD = str(UUID(TRACE)), "01a2003e-8a75-7cbe-b35c-d903258c4c14"


@pytest.fixture(autouse=True)
def stored(wire: Wire) -> None:
    """One trace of two runs, in `default`."""
    root = wire.span(TRACE, TRACE)
    wire.ingest(root, wire.span(TRACE, CHILD.replace("-", ""), span_parent_id=TRACE))


def share(wire: Wire, run: str = RUN, token: str | None = None, **rest: Any) -> Any:
    token = token or str(uuid4())
    return wire.send("PUT", f"/runs/{run}/share", {"run_id": run, "share_token": token}, **rest)


def is_open(wire: Wire, token: str) -> bool:
    try:
        found = opened_by(wire.services, token.replace("-", ""))
    except NotFound:
        return False
    assert found.trace_id == TRACE
    return True


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_run_is_shared_under_the_token_of_the_client(wire: Wire, root: str, kind: str) -> None:
    token = str(uuid4())
    at = f"{root}/runs/{RUN}/share"
    body = json.dumps({"run_id": RUN, "share_token": token}).encode()
    assert wire.get(at).json() is None
    made = wire.send("PUT", at, body, headers={"Content-Type": kind})
    assert (made.status_code, made.json()) == (200, {"run_id": RUN, "share_token": token})
    assert wire.get(at).json() == made.json()
    assert is_open(wire, token)
    assert wire.send("DELETE", at).status_code == 200
    assert wire.get(at).json() is None
    assert not is_open(wire, token)
    assert wire.send("DELETE", at).status_code == 200, "to end it again is harmless"


def test_a_trace_has_one_link_whichever_run_asked(wire: Wire) -> None:
    first = share(wire).json()["share_token"]
    assert share(wire, CHILD).json() == {"run_id": CHILD, "share_token": first}
    assert wire.get(f"/runs/{CHILD}/share").json()["share_token"] == first


def test_v2_makes_the_token(wire: Wire) -> None:
    [session] = wire.get("/sessions").json()
    body = {"session_id": session["id"], "trace_id": RUN}
    made = wire.post(f"/api/v2/runs/{RUN}/share", body)
    assert made.status_code == 200, made.text
    token = made.json()["share_token"]
    assert UUID(token)
    assert is_open(wire, token)
    assert wire.post(f"/v2/runs/{CHILD}/share", {}).json() == {"share_token": token}
    for _ in range(2):
        ended = wire.send("DELETE", f"/api/v2/runs/{RUN}/share", {"session_id": session["id"]})
        assert (ended.status_code, ended.content) == (204, b"")
    assert not is_open(wire, token)
    for body in ({"session_id": str(uuid4())}, {"trace_id": str(uuid4())}):
        missing = wire.post(f"/api/v2/runs/{RUN}/share", body)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_what_is_not_there_or_no_token_is_refused(wire: Wire) -> None:
    unknown = share(wire, str(uuid4()))
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Run not found."})
    for token in ("", "1", "x" * 36):
        assert wire.send("PUT", f"/runs/{RUN}/share", {"share_token": token}).status_code == 422
    assert share(wire, "no-uuid").status_code == 422
    token = share(wire).json()["share_token"]
    other = uuid4()
    wire.ingest(wire.span(other.hex, other.hex))
    assert share(wire, str(other), token).status_code == 409, "a token opens one trace"


@pytest.mark.parametrize("how", ["trace", "session"])
def test_a_link_dies_with_its_trace_and_is_counted(wire: Wire, how: str) -> None:
    wire.post("/sessions", {"name": "other"})
    token = share(wire).json()["share_token"]
    session = wire.get("/sessions?name=default").json()[0]["id"]
    gone = wire.send("DELETE", f"/api/traces/{TRACE}/" if how == "trace" else f"/sessions/{session}")
    assert gone.status_code == 200, gone.text
    assert not is_open(wire, token)
    assert wire.get(f"/runs/{RUN}/share").status_code == 404
    told = wire.get(f"/v1/deletions/{gone.json()['deletion_id']}").json()
    assert (told["state"], told["counts"]["share"]["purged"]) == ("verified", 1), told["counts"]
    assert wire.get("/workspaces/current/shared").json() == {"entities": []}


def test_links_are_listed_and_ended_together(wire: Wire) -> None:
    token = share(wire).json()["share_token"]
    [entity] = wire.get("/api/v1/workspaces/current/shared").json()["entities"]
    assert (entity["type"], entity["run_id"], entity["share_token"]) == ("run", RUN, token)
    assert wire.send("DELETE", "/workspaces/current/shared", {}).status_code == 422
    ended = wire.send("DELETE", "/workspaces/current/shared", {"share_tokens": [token, str(uuid4())]})
    assert ended.json()["message"].startswith("1 ")
    assert not is_open(wire, token)


def test_links_are_their_organisations(wire: Wire) -> None:
    token = share(wire).json()["share_token"]
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    elsewhere = wire.catalog.create_project(wire.catalog.first_org.id, "elsewhere")
    bound = wire.key(*KeyScope, project_ids=[elsewhere.id])
    for key in (theirs, bound):
        assert share(wire, key=key).status_code == 404
        for method in ("GET", "DELETE"):
            assert wire.send(method, f"/runs/{RUN}/share", key=key).status_code == 404
        assert wire.get("/workspaces/current/shared", key=key).json() == {"entities": []}
        wire.send("DELETE", "/workspaces/current/shared", {"share_tokens": [token]}, key=key)
        wire.send("DELETE", f"/api/v2/runs/{RUN}/share", {}, key=key)
    assert is_open(wire, token)
    assert share(wire, key=wire.key(KeyScope.READ)).status_code == 403
