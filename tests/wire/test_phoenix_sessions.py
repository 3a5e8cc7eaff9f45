"""Phoenix's sessions over both stores: lists, reads, filters, deletions of one and of many."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote, urlencode

from tests.wire.phoenix_requests import fill, hex_id, span
from tests.wire.phoenix_spans import annotated, item, rows

from clearspan.api.phoenix.globalids import project_gid, session_gid, trace_gid
from clearspan.catalog import KeyScope
from clearspan.model.clock import datetime_from_ns
from clearspan.testing.wire import SECOND_NS, Wire


def said(session_id: str, trace: int, wire: Wire, **rest: Any) -> dict[str, Any]:
    attributes = {"session.id": session_id, "llm.token_count.prompt": trace, "llm.token_count.completion": 1}
    return span(wire, trace, trace=trace, attributes=attributes, span_kind="LLM", **rest)


def some(wire: Wire) -> int:
    """Sessions a (traces 1, 3), b (2, which failed) and c (4), and a trace without one; the project's number."""
    fill(wire, said("a", 1, wire), said("b", 2, wire, status_code="ERROR"), said("a", 3, wire, ago_s=90))
    fill(wire, said("c", 4, wire), span(wire, 5, trace=5))
    return number_of(wire, "default")


def number_of(wire: Wire, name: str) -> int:
    project = wire.catalog.find_project(wire.catalog.first_org.id, name)
    assert project is not None
    return project.id


def listed(wire: Wire, query: str = "", *, project: str = "default", **rest: Any) -> list[str]:
    answer = wire.get(f"/v1/projects/{project}/sessions{query}", **rest)
    assert answer.status_code == 200, answer.text
    return [each["session_id"] for each in answer.json()["data"]]


def delete(wire: Wire, session: str, **rest: Any) -> Any:
    return wire.send("DELETE", f"/v1/sessions/{quote(session, safe='')}", **rest)


def bulk(wire: Wire, *sessions: str, **rest: Any) -> Any:
    return wire.post("/v1/sessions/delete", {"session_identifiers": list(sessions)}, **rest)


def test_a_session_is_told_as_phoenix_tells_it(wire: Wire) -> None:
    number = some(wire)
    now = wire.clock.now_ns()
    expected = {
        "id": session_gid(number, "a"),
        "session_id": "a",
        "project_id": project_gid(number),
        "start_time": datetime_from_ns(now - 90 * SECOND_NS).isoformat(),
        "end_time": datetime_from_ns(now - 59 * SECOND_NS).isoformat(),
        "traces": [
            {
                "id": trace_gid(number, hex_id(trace, 16)),
                "trace_id": hex_id(trace, 16),
                "start_time": datetime_from_ns(now - ago_s * SECOND_NS).isoformat(),
                "end_time": datetime_from_ns(now - (ago_s - 1) * SECOND_NS).isoformat(),
            }
            for trace, ago_s in ((3, 90), (1, 60))
        ],
        "token_count_prompt": 4,
        "token_count_completion": 2,
        "token_count_total": 6,
    }
    assert wire.get("/v1/sessions/a").json() == {"data": expected}
    assert wire.get(f"/v1/sessions/{quote(session_gid(number, 'a'), safe='')}").json() == {"data": expected}
    assert wire.get("/v1/projects/default/sessions?limit=1").json()["data"] == [expected]


def test_pages_go_by_arrival_in_both_directions(wire: Wire) -> None:
    some(wire)
    for order, expected in (("asc", ["a", "b", "c"]), ("desc", ["c", "b", "a"])):
        found: list[str] = []
        query = f"?limit=2&order={order}"
        while query:
            body = wire.get(f"/v1/projects/default/sessions{query}").json()
            found += [each["session_id"] for each in body["data"]]
            cursor = body["next_cursor"]
            query = "" if cursor is None else f"?limit=2&order={order}&cursor={quote(cursor)}"
        assert found == expected
    cursor = wire.get("/v1/projects/default/sessions?limit=1").json()["next_cursor"]
    for query in ("?cursor=garbage", f"?order=desc&cursor={quote(cursor)}"):
        answer = wire.get(f"/v1/projects/default/sessions{query}")
        assert answer.status_code == 422
        assert answer.text.startswith("Invalid cursor format: ")
    assert wire.get("/v1/projects/default/sessions?limit=0").json()["detail"][0]["type"] == "greater_than"
    answer = wire.get("/v1/projects/no-such/sessions")
    assert (answer.status_code, answer.text) == (404, "Project with name no-such not found")


def test_filters_of_sessions(wire: Wire) -> None:
    some(wire)
    for text, expected in {
        "": ["a", "b", "c"],
        "session_id == 'a'": ["a"],
        "session_id in ['a', 'c', 'x'] and num_traces == 1": ["c"],
        "'B' in session_id": ["b"],
        "session_id != 'a'": ["b", "c"],
        "num_traces > 1": ["a"],
        "num_traces_with_error > 0": ["b"],
        "not num_traces_with_error >= 1": ["a", "c"],
        "token_count_total == 6 or token_count_prompt == 2": ["a", "b"],
        "token_count_completion < 2": ["b", "c"],
        "duration_ms >= 31000": ["a"],
        "duration_ms == 1000.0": ["b", "c"],
        "llm_span_count >= 1": ["a", "b", "c"],
        "total_cost == 0": ["a", "b", "c"],
        "start_time > '2020-01-01T00:00:00Z' and end_time < '2020-01-02'": [],
        "session_id is None": [],
        "True": ["a", "b", "c"],
    }.items():
        assert listed(wire, "?" + urlencode({"filter": text})) == expected, text
        assert listed(wire, "?limit=1&order=desc&" + urlencode({"filter": text})) == expected[-1:], text
    for text in ("bogus(((", "error_count > 0", "any(t.latency_ms > 5 for t in traces)", "evals['a'].label == 'x'",
                 "user.id == 'a'", "session_id > 5", "num_traces > 'x'", "f'{session_id}' == 'a'"):  # fmt: skip
        answer = wire.get("/v1/projects/default/sessions?" + urlencode({"filter": text}))
        assert answer.status_code == 400, text
        assert answer.headers["content-type"].startswith("text/plain")


def test_filtered_pages_put_together_are_the_list(wire: Wire) -> None:
    fill(wire, *(said(f"s{n % 7}", n, wire) for n in range(20)))
    found: list[str] = []
    query = {"limit": "2", "filter": "num_traces >= 3"}
    while True:
        body = wire.get("/v1/projects/default/sessions?" + urlencode(query)).json()
        found += [each["session_id"] for each in body["data"]]
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert found == [f"s{n}" for n in range(6)]


def test_what_is_not_there_is_told_as_phoenix_tells_it(wire: Wire) -> None:
    number = some(wire)
    gid = session_gid(number, "none")
    for method, says in (
        ("GET", ("Session with session_id none not found", f"Session with ID {gid} not found")),
        ("DELETE", ("Session with session_id 'none' not found", f"Session with ID '{gid}' not found")),
    ):
        for named, text in zip(("none", gid), says, strict=True):
            answer = wire.send(method, f"/v1/sessions/{quote(named, safe='')}")
            assert (answer.status_code, answer.text) == (404, text)
    assert delete(wire, session_gid(number, "\ud800")).status_code == 404
    assert wire.get("/v1/sessions/%ED%A0%80").status_code == 404


def test_a_session_goes_with_its_traces_and_what_was_said_of_it(wire: Wire) -> None:
    some(wire)
    annotated(wire, "session", item("session", session_id="a"), item("session", session_id="b"))
    answer = delete(wire, "a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert answer.headers["clearspan-deleted-count"] == "2"
    assert wire.get(f"{answer.headers['location']}/receipt").status_code == 200
    again = delete(wire, "a")
    assert (again.status_code, again.text) == (404, "Session with session_id 'a' not found")
    assert listed(wire) == ["b", "c"]
    assert len(wire.get("/v1/projects/default/traces").json()["data"]) == 3
    assert wire.get("/v1/projects/default/session_annotations?session_ids=a").status_code == 404
    assert [each["session_id"] for each in rows(wire, "session", "session_ids=b")] == ["b"]


def test_a_session_of_several_projects_is_never_taken_across(wire: Wire) -> None:
    for number, project in enumerate(("one", "two")):
        fill(wire, said("shared", number, wire), said(f"own {project}", 10 + number, wire), project=project)
    for answer in (delete(wire, "shared"), bulk(wire, "own one", "shared")):
        assert answer.status_code == 409
        assert all(session_gid(number_of(wire, name), "shared") in answer.text for name in ("one", "two"))
    assert [listed(wire, project=name) for name in ("one", "two")] == [["shared", "own one"], ["shared", "own two"]]
    assert wire.get("/v1/sessions/shared").json()["data"]["project_id"] == project_gid(number_of(wire, "two"))
    bound = wire.key(*KeyScope, project_ids=[number_of(wire, "one")])
    assert wire.get("/v1/sessions/shared", key=bound).json()["data"]["project_id"] == project_gid(
        number_of(wire, "one")
    )
    assert delete(wire, session_gid(number_of(wire, "two"), "shared"), key=bound).status_code == 404
    assert delete(wire, session_gid(number_of(wire, "two"), "shared")).status_code == 204
    assert [listed(wire, project=name) for name in ("one", "two")] == [["shared", "own one"], ["own two"]]
    assert delete(wire, "shared", key=bound).status_code == 204
    assert listed(wire, project="one") == ["own one"]


def test_bulk_deletion_skips_and_names_what_is_not_there(wire: Wire) -> None:
    some(wire)
    answer = bulk(wire, "none such, ü", "a", "c", "a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["clearspan-deleted-count"] == "3"
    assert [unquote(each) for each in answer.headers["clearspan-absent-sessions"].split(",")] == ["none such, ü"]
    assert answer.headers["clearspan-absent-count"] == "1"
    assert wire.get(f"{answer.headers['location']}/receipt").status_code == 200
    assert listed(wire) == ["b"]
    answer = bulk(wire, *(f"x{n}" for n in range(900)))
    assert (answer.status_code, answer.headers["clearspan-absent-count"]) == (204, "900")
    assert answer.headers["clearspan-deleted-count"] == "0"
    assert "clearspan-deletion-id" not in answer.headers
    assert len(answer.headers["clearspan-absent-sessions"]) <= 4_000
    assert listed(wire) == ["b"]


def test_bulk_deletion_over_projects_is_a_deletion_for_each(wire: Wire) -> None:
    for number, project in enumerate(("one", "two")):
        fill(wire, said("shared", number, wire), said(f"own {project}", 10 + number, wire), project=project)
    one, two = number_of(wire, "one"), number_of(wire, "two")
    answer = bulk(wire, session_gid(one, "shared"), session_gid(two, "own two"), session_gid(two, "nothing"))
    assert answer.headers["clearspan-deleted-count"] == "2"
    ids = answer.headers["clearspan-deletion-id"].split(", ")
    assert len(ids) == 2
    assert all(wire.get(f"/v1/deletions/{each}/receipt").status_code == 200 for each in ids)
    assert [listed(wire, project=name) for name in ("one", "two")] == [["own one"], ["shared"]]


def test_a_wrong_list_deletes_nothing(wire: Wire) -> None:
    number = some(wire)
    for body, says in (
        ({"session_identifiers": []}, "Session identifier list must not be empty."),
        (
            {"session_identifiers": [session_gid(number, "a"), "b"]},
            "All identifiers must be the same type: either all GlobalIDs or all session_id strings.",
        ),
        ({}, None),
        (
            {"session_identifiers": ["a"] * 1001},
            "At most 1,000 sessions can be deleted at once; nothing was deleted.",
        ),
    ):
        answer = wire.post("/v1/sessions/delete", body)
        assert answer.status_code == 422
        if says is None:
            assert answer.json()["detail"][0]["loc"] == ["body", "session_identifiers"]
        else:
            assert answer.text == says
    assert listed(wire) == ["a", "b", "c"]


def test_holds_roles_and_tenants(wire: Wire) -> None:
    number = some(wire)
    held = wire.post("/v1/holds", {"trace_ids": [hex_id(4, 16)], "reason": "audit"})
    assert held.status_code in (200, 201), held.text
    assert delete(wire, "c").status_code == 409
    stranger = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("another").id)
    for named in ("a", session_gid(number, "a")):
        assert delete(wire, named, key=stranger).status_code == 404
        assert wire.get(f"/v1/sessions/{quote(named, safe='')}", key=stranger).status_code == 404
        assert bulk(wire, named, key=stranger).headers["clearspan-deleted-count"] == "0"
    assert wire.get(f"/v1/projects/{project_gid(number)}/sessions", key=stranger).status_code == 404
    viewer = wire.key(KeyScope.READ)
    for answer in (delete(wire, "a", key=viewer), bulk(wire, key=viewer)):
        assert (answer.status_code, answer.text) == (403, "Viewers cannot perform this action.")
    assert listed(wire, key=viewer) == ["a", "b", "c"]
    answer = bulk(wire, "a", "c", key=wire.key(KeyScope.READ, KeyScope.DELETE))
    assert (answer.headers["clearspan-deleted-count"], answer.headers["clearspan-held-count"]) == ("2", "1")
    assert listed(wire) == ["b", "c"]
