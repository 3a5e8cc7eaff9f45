"""Phoenix's projects: made, listed, described, removed, with both stores behind them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from phoenix_requests import fill, names, span

from clearspan.api.phoenix.globalids import project_of, render
from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire


def make(wire: Wire, name: str, **body: Any) -> dict[str, Any]:
    answer = wire.post("/v1/projects", {"name": name, **body})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()["data"]
    return told


def listed(wire: Wire, query: str = "", **rest: Any) -> list[str]:
    answer = wire.get(f"/v1/projects{query}", **rest)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["data"]]


def test_a_project_is_made_and_read_by_name_and_by_id(wire: Wire) -> None:
    made = make(wire, "p1", description="d")
    assert made == {"name": "p1", "description": "d", "id": made["id"]}
    for address in ("p1", made["id"]):
        assert wire.get(f"/v1/projects/{quote(address, safe='')}").json() == {"data": made}
    assert make(wire, "p2")["description"] is None


def test_a_name_is_taken_once(wire: Wire) -> None:
    make(wire, "p1")
    again = wire.post("/v1/projects", {"name": "p1"})
    assert (again.status_code, again.text) == (409, "Project with name p1 already exists")
    assert again.headers["content-type"].startswith("text/plain")


def test_names_that_are_none_are_told_as_recorded(wire: Wire) -> None:
    empty = wire.post("/v1/projects", {"name": ""})
    assert empty.status_code == 422
    assert empty.json() == {
        "detail": [
            {
                "type": "string_too_short",
                "loc": ["body", "name"],
                "msg": "String should have at least 1 character",
                "input": "",
                "ctx": {"min_length": 1},
            }
        ]
    }
    missing = wire.post("/v1/projects", {})
    assert missing.json() == {
        "detail": [{"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": {}}]
    }


def test_absent_projects_are_told_by_what_was_asked(wire: Wire) -> None:
    nowhere = render("Project", 99999)
    for address, text in (
        ("no-such", "Project with name no-such not found"),
        (nowhere, f"Project with ID {nowhere} not found"),
        (render("Span", 1), f"Project with name {render('Span', 1)} not found"),
        ("1", "Project with name 1 not found"),
    ):
        answer = wire.get(f"/v1/projects/{quote(address, safe='')}")
        assert (answer.status_code, answer.text) == (404, text)
        for method in ("PUT", "DELETE"):
            answer = wire.send(method, f"/v1/projects/{quote(address, safe='')}", {"description": "x"})
            assert (answer.status_code, answer.text) == (404, text)


def test_a_name_with_a_slash_is_reached_by_its_id_only(wire: Wire) -> None:
    made = make(wire, "a/b")
    assert wire.get("/v1/projects/a%2Fb").status_code == 404
    assert wire.get(f"/v1/projects/{quote(made['id'], safe='')}").json()["data"]["name"] == "a/b"
    assert wire.send("DELETE", f"/v1/projects/{quote(made['id'], safe='')}").status_code == 204
    assert listed(wire) == ["default"]


def test_lists_go_page_by_page_newest_first(wire: Wire) -> None:
    for number in range(5):
        make(wire, f"page-{number}")
    first = wire.get("/v1/projects?limit=2").json()
    assert [each["name"] for each in first["data"]] == ["page-4", "page-3"]
    make(wire, "page-5")
    second = wire.get(f"/v1/projects?limit=2&cursor={quote(first['next_cursor'])}").json()
    assert [each["name"] for each in second["data"]] == ["page-2", "page-1"]
    last = wire.get(f"/v1/projects?limit=10&cursor={quote(second['next_cursor'])}").json()
    assert ([each["name"] for each in last["data"]], last["next_cursor"]) == (["page-0", "default"], None)
    assert listed(wire, "?name_contains=PAGE-3") == ["page-3"]
    bad = wire.get("/v1/projects?cursor=garbage")
    assert (bad.status_code, bad.text) == (422, "Invalid cursor format: garbage")
    assert wire.get("/v1/projects?limit=0").status_code == 422


def test_experiments_are_listed_only_when_asked_for(wire: Wire) -> None:
    body = {"name": "try", "reference_dataset_id": "6d1c7f0e-5a3b-4c7e-9a54-c1ea45bac0de"}
    assert wire.post("/sessions", body).status_code == 200
    assert listed(wire) == ["default"]
    assert listed(wire, "?include_experiment_projects=true") == ["try", "default"]


def test_the_description_is_changed_and_nothing_else(wire: Wire) -> None:
    made = make(wire, "p1", description="old")
    for body, expected in (({"description": "new"}, "new"), ({"name": "other"}, "new"), ({"description": None}, "new")):
        answer = wire.send("PUT", "/v1/projects/p1", body)
        assert (answer.status_code, answer.json()) == (200, {"data": made | {"description": expected}})


def test_a_project_is_removed_with_its_spans_by_a_deletion(wire: Wire) -> None:
    fill(wire, span(wire, 1), span(wire, 2), project="p1")
    fill(wire, span(wire, 1), project="p2")
    answer = wire.send("DELETE", "/v1/projects/p1", headers={"Clearspan-Reason": "asked for"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert answer.headers["clearspan-deleted-count"] == "1"
    told = wire.get(answer.headers["location"]).json()
    assert (told["id"], told["state"]) == (answer.headers["clearspan-deletion-id"], "verified")
    assert wire.send("DELETE", "/v1/projects/p1").status_code == 404
    assert wire.get("/v1/projects/p1/spans").text == "Project with name p1 not found"
    assert listed(wire) == ["p2", "default"]
    assert names(wire, project="p2") == ["span 1"]


def test_the_project_default_stays(wire: Wire) -> None:
    fill(wire, span(wire, 1))
    answer = wire.send("DELETE", "/v1/projects/default")
    assert (answer.status_code, answer.text) == (403, "The default project cannot be deleted")
    assert names(wire) == ["span 1"]


def test_removal_and_description_are_administrators(wire: Wire) -> None:
    make(wire, "p1")
    member = wire.key(KeyScope.INGEST, KeyScope.READ, KeyScope.ANNOTATE, KeyScope.DELETE)
    for method, path in (
        ("PUT", "/v1/projects/p1"), ("DELETE", "/v1/projects/p1"), ("PATCH", "/v1/projects/p1/retention"),
    ):  # fmt: skip
        answer = wire.send(method, path, {"description": "x", "policy_id": None}, key=member)
        assert (answer.status_code, answer.text) == (403, "Only admin or system users can perform this action.")
    assert wire.post("/v1/projects", {"name": "by-member"}, key=member).status_code == 200
    viewer = wire.key(KeyScope.READ)
    answer = wire.post("/v1/projects", {"name": "by-viewer"}, key=viewer)
    assert (answer.status_code, answer.text) == (403, "Viewers cannot perform this action.")
    assert wire.get("/v1/projects/p1", key=viewer).status_code == 200


def test_an_administrator_without_the_scope_delete_removes_nothing(wire: Wire) -> None:
    make(wire, "p1")
    assert wire.send("DELETE", "/v1/projects/p1", key=wire.key(KeyScope.ADMIN)).status_code == 403
    limited = wire.key(KeyScope.ADMIN, KeyScope.DELETE, environment="prod")
    assert wire.send("DELETE", "/v1/projects/p1", key=limited).status_code == 403
    assert wire.get("/v1/projects/p1").status_code == 200


def test_a_bound_key_knows_no_other_project(wire: Wire) -> None:
    number = project_of(make(wire, "mine")["id"])
    other = make(wire, "other")["id"]
    bound = wire.key(*KeyScope, project_ids=[number])
    assert listed(wire, key=bound) == ["mine"]
    for address, text in (
        ("other", "Project with name other not found"), (other, f"Project with ID {other} not found"),
    ):  # fmt: skip
        assert wire.get(f"/v1/projects/{quote(address, safe='')}", key=bound).text == text
        assert wire.send("DELETE", f"/v1/projects/{quote(address, safe='')}", key=bound).text == text
    assert wire.post("/v1/projects", {"name": "new"}, key=bound).status_code == 403


def test_another_tenant_knows_no_project_of_ours(wire: Wire) -> None:
    ours = make(wire, "ours")["id"]
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    assert "ours" not in listed(wire, key=theirs)
    for address in ("ours", ours):
        for method in ("GET", "PUT", "DELETE"):
            assert wire.send(method, f"/v1/projects/{quote(address, safe='')}", {}, key=theirs).status_code == 404
    assert make(wire, "kept")["name"] in listed(wire)


@pytest.mark.parametrize("policy", [None, render("ProjectTraceRetentionPolicy", 1)])
def test_the_one_retention_policy_keeps_everything(wire: Wire, policy: str | None) -> None:
    made = make(wire, "p1")
    answer = wire.send("PATCH", "/v1/projects/p1/retention", {"policy_id": policy})
    assert (answer.status_code, answer.json()) == (200, {"data": {"project_id": made["id"], "policy_id": None}})


def test_other_retention_policies_are_not_there(wire: Wire) -> None:
    make(wire, "p1")
    absent = render("ProjectTraceRetentionPolicy", 7)
    for body, status, text in (
        ({"policy_id": absent}, 404, f"Retention policy with ID {absent} not found"),
        ({"policy_id": "nonsense"}, 422, "Invalid retention policy ID: nonsense"),
        ({}, 422, "Field required"),
    ):
        answer = wire.send("PATCH", "/v1/projects/p1/retention", body)
        assert answer.status_code == status
        assert text in answer.text
