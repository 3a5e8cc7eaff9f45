"""POST /v1/traces/transfer: what moves, what refuses, and what still finds the trace."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from tests.wire.phoenix_spans import annotate, item, send_trace, trace_id

from clearspan.api.phoenix.globalids import project_gid, trace_gid
from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire

MISSING = "One or more traces not found"


def transfer(wire: Wire, to: str, *identifiers: str, **rest: Any) -> tuple[int, str]:
    body = {"trace_identifiers": list(identifiers), "destination_project_identifier": to}
    answer = wire.post("/v1/traces/transfer", body, **rest)
    return answer.status_code, answer.text


def traces(wire: Wire, project: str) -> list[str]:
    answer = wire.get(f"/v1/projects/{project}/traces").json()
    return sorted(each["trace_id"] for each in answer["data"])


def number_of(wire: Wire, name: str) -> int:
    return next(each.id for each in wire.catalog.projects(1) if each.name == name)


@pytest.fixture
def two(wire: Wire) -> Wire:
    """Traces 1 and 2 in project a, 3 in b."""
    for number, project in ((1, "a"), (2, "a"), (3, "b")):
        send_trace(wire, number, project=project)
    return wire


def test_every_dialect_finds_a_moved_trace_in_its_new_project(two: Wire) -> None:
    annotate(two, "trace", item("trace", 1))
    annotate(two, "span", item("span", 1))
    gid = trace_gid(number_of(two, "a"), trace_id(1))
    status, text = transfer(two, "b", gid, trace_id(1))
    told = {"transferred_trace_count": 1, "destination_project_id": project_gid(number_of(two, "b"))}
    assert (status, json.loads(text)) == (200, {"data": told})
    assert (traces(two, "a"), traces(two, "b")) == ([trace_id(2)], [trace_id(1), trace_id(3)])
    for kind, name in (("trace", trace_id(1)), ("span", "1".zfill(16))):
        told = two.get(f"/v1/projects/b/{kind}_annotations?{kind}_ids={name}").json()["data"]
        assert [each["name"] for each in told] == ["quality"]
    sessions = {each["name"]: each["id"] for each in two.get("/sessions").json()}
    runs = two.post("/runs/query", {"session": [sessions["b"]]}).json()["runs"]
    assert sorted(each["trace_id"].replace("-", "") for each in runs) == [trace_id(1), trace_id(3)]
    two.clock.advance(1)
    send_trace(two, 1, project="a", input__value="late")  # follows
    assert traces(two, "a") == [trace_id(2)]


def test_public_links_stay_open_and_end_with_the_trace(two: Wire) -> None:
    shown = f"/api/traces/{trace_id(1)}/"
    assert two.send("PATCH", shown, {"is_public": True}).status_code == 200
    organisation = two.catalog.organisations()[0].public_id
    public = f"/api/{organisation}/traces/{trace_id(1)}/"
    (run,) = two.post("/runs/query", {"trace": trace_id(1)}).json()["runs"]
    shared = two.send("PUT", f"/runs/{run['id']}/share", {"run_id": run["id"], "share_token": str(UUID(int=7))})
    assert shared.status_code == 200, shared.text
    token = shared.json()["share_token"]
    links = (public, f"/public/{token}/run")
    assert [two.get(link, key=None).status_code for link in links] == [200, 200]
    assert transfer(two, "b", trace_id(1))[0] == 200
    assert [two.get(link, key=None).status_code for link in links] == [200, 200]
    since = "start_time=2020-01-01T00:00:00Z&operations=transfer_traces"
    [event] = two.get(f"/api/v1/audit-logs?{since}").json()["items"]
    uuids = [next(each.uuid for each in two.catalog.projects(1) if each.name == name) for name in "ab"]
    assert [each["uid"].replace("-", "") for each in event["resources"]][1:] == uuids
    assert two.send("DELETE", f"/v1/traces/{trace_id(1)}").status_code == 204
    assert [two.get(link, key=None).status_code for link in links] == [404, 404]
    with pytest.raises(AssertionError, match="their trace was deleted"):
        send_trace(two, 1, project="a")  # meets the tombstone in the project it went to
    assert (traces(two, "a"), traces(two, "b")) == ([trace_id(2)], [trace_id(3)])


def test_what_cannot_move_is_told_and_stays(two: Wire) -> None:
    assert transfer(two, "nowhere", trace_id(1)) == (404, "Project with name nowhere not found")
    for identifiers in ([trace_id(1), "none"], [trace_id(9)], [trace_gid(999, trace_id(1))]):
        assert transfer(two, "b", *identifiers) == (404, MISSING)
    assert transfer(two, "b", trace_id(1), trace_id(3))[0] == 422
    assert transfer(two, "b")[0] == 422
    assert transfer(two, "b", *map(trace_id, range(1, 1_100)))[0] == 422
    send_trace(two, 1, project="b")
    assert transfer(two, "b", trace_gid(number_of(two, "a"), trace_id(1)))[0] == 409
    hold = two.post("/v1/holds", {"trace_ids": [trace_id(2)], "reason": "court"})
    assert hold.status_code == 201, hold.text
    status, text = transfer(two, "b", trace_id(2))
    assert (status, text) == (409, "A hold keeps one of the traces in its project.")
    assert (traces(two, "a"), traces(two, "b")) == ([trace_id(1), trace_id(2)], [trace_id(1), trace_id(3)])


def test_no_key_moves_what_it_does_not_reach(two: Wire) -> None:
    a, b = number_of(two, "a"), number_of(two, "b")
    reader = two.key(KeyScope.READ)
    assert transfer(two, "b", trace_id(1), key=reader)[0] == 403
    of_b = two.key(KeyScope.DELETE, KeyScope.READ, project_ids=[b])
    assert transfer(two, "b", trace_id(1), key=of_b) == (404, MISSING)
    assert transfer(two, "a", trace_id(3), key=of_b)[0] == 404
    of_environment = two.key(KeyScope.DELETE, environment="prod")
    assert transfer(two, "b", trace_id(1), key=of_environment) == (404, MISSING)
    assert transfer(two, "b", trace_id(1), key=two.key(KeyScope.DELETE, project_ids=[a, b]))[0] == 200
