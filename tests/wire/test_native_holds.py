"""The native API: holds, what they keep, what waits for them, and who may see them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from native import by_customer, create, hold, later, preview, refused, until

from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire, open_wire


@pytest.fixture
def two(wire: Wire) -> Wire:
    wire.ingest(
        wire.span("a", customer_identifier="u1", environment="prod"),
        wire.span("b", customer_identifier="u1", environment="staging"),
        wire.span("c", customer_identifier="u2"),
    )
    return wire


def test_a_hold_is_set_shown_and_released(two: Wire) -> None:
    filters = {"customer_identifier": {"value": ["u1"]}}
    made = hold(two, filters=filters, environment="prod", reason="case 12 of Mrs Smith")
    assert made["traces"] == {"protected": 1, "hidden_kept": 0}
    assert (made["state"], made["environment"], made["projects"]) == ("active", "prod", ["default"])
    assert made["scope"] == ["customer_identifier:equals:1"]
    shown = {name: value for name, value in made.items() if name != "traces"}
    path = made["links"]["self"]
    assert two.get(path).json() == shown
    assert two.get("/v1/holds").json() == {"data": [shown], "next_cursor": None}
    released = two.send("DELETE", path, {"reason": "case closed"}).json()
    assert (released["state"], released["reason"], released["scope"]) == ("released", None, None)
    assert two.send("DELETE", path).json() == released, "a repeat changes nothing"
    assert two.get("/v1/holds").json()["data"] == []
    assert two.get("/v1/holds?state=released").json()["data"] == [released]
    assert two.get("/v1/holds?state=all").json()["data"] == [released]
    kinds = [each["entry"]["kind"] for each in two.get("/v1/ledger/entries").json()["data"] if each["entry"]]
    assert kinds.count("hold.created") == kinds.count("hold.released") == 1


def test_holds_come_in_pages(two: Wire) -> None:
    ids = []
    for number in range(3):
        ids.append(hold(two, trace_ids=[f"t{number}"])["id"])
        two.clock.advance(1)
    seen, query = [], "?limit=2"
    while query:
        page = two.get(f"/v1/holds{query}").json()
        seen += [each["id"] for each in page["data"]]
        query = f"?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == ids


def test_active_holds_of_an_organisation_are_bounded(tmp_path: Path) -> None:
    """Each is asked about in every transaction that hides or purges, and every page of the list reads them all."""
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", holds_active_max=2)
        first = hold(wire, trace_ids=["a"])
        hold(wire, trace_ids=["b"])
        answer = wire.post("/v1/holds", {"trace_ids": ["c"], "reason": "r"})
        refused(answer, 409, "too_many_holds")
        assert "holds_active_max" in answer.json()["detail"]
        assert len(wire.get("/v1/holds?state=all").json()["data"]) == 2
        assert [each["entry"]["kind"] for each in wire.get("/v1/ledger/entries").json()["data"]].count(
            "hold.created"
        ) == 2
        stranger = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("Other").id)
        assert wire.post("/v1/holds", {"everything": True, "reason": "r"}, key=stranger).status_code == 201
        wire.send("DELETE", first["links"]["self"])
        assert hold(wire, trace_ids=["c"])["state"] == "active"
        refused(wire.post("/v1/holds", {"trace_ids": ["d"], "reason": "r"}), 409, "too_many_holds")


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"reason": "r"}, 400, "missing_selection", None),
    ({"trace_ids": ["a"]}, 400, "missing_key", "reason"),
    ({"trace_ids": ["a"], "reason": ""}, 400, "invalid_input", "reason"),
    ({"trace_ids": ["a"], "everything": True, "reason": "r"}, 400, "several_selections", None),
    ({"everything": "yes", "reason": "r"}, 400, "invalid_input", "everything"),
    ({"filters": {}, "reason": "r"}, 400, "empty_filter", "filters"),
    ({"filters": {"nope": {"value": [1]}}, "reason": "r"}, 400, "invalid_filter", "nope"),
    ({"trace_ids": ["a"], "reason": "r", "until": "2027"}, 400, "unknown_key", "until"),
    ({"trace_ids": ["a"], "reason": "r", "project": "nowhere"}, 404, "project_not_found", "project"),
]


def test_what_is_refused_holds_nothing(two: Wire) -> None:
    for body, status, code, field in REFUSED:
        refused(two.post("/v1/holds", body), status, code, field)
    refused(two.get("/v1/holds?state=open"), 400, "invalid_input", "state")
    refused(two.get("/v1/holds/hold_x"), 404, "not_found")
    refused(two.send("DELETE", "/v1/holds/hold_x"), 404, "not_found")
    assert two.get("/v1/holds?state=all").json()["data"] == []


def test_setting_and_releasing_need_admin_and_the_same_organisation(two: Wire) -> None:
    made = hold(two, everything=True)
    path = made["links"]["self"]
    deleter = two.key(KeyScope.READ, KeyScope.DELETE)
    assert two.get(path, key=deleter).status_code == 200
    assert two.send("DELETE", path, key=deleter).status_code == 403
    assert two.post("/v1/holds", {"everything": True, "reason": "r"}, key=deleter).status_code == 403
    stranger = two.key(*KeyScope, org_id=two.catalog.create_organisation("Other").id)
    staging = two.key(*KeyScope, environment="staging")
    second = two.catalog.create_project(two.catalog.first_org.id, "second")
    inside = two.key(*KeyScope, project_ids=[second.id])
    for key in (stranger, staging, inside):
        refused(two.get(path, key=key), 404, "not_found")
        refused(two.send("DELETE", path, key=key), 404, "not_found")
        assert two.get("/v1/holds", key=key).json()["data"] == []
    assert two.get(path).json()["state"] == "active"


def test_what_is_held_goes_on_by_itself_on_release(two: Wire) -> None:
    kept = hold(two, trace_ids=["a"])
    told = preview(two, by_customer(two))
    assert (told["traces"], told["holds"]) == ({"matched": 2, "held": 1}, [{"id": kept["id"], "traces": 1}])
    parent = create(two, {"plan_token": told["plan_token"]})
    assert (parent["state"], parent["traces"]["hidden"], parent["traces"]["held"]) == ("verified", 1, 1)
    assert parent["counts"]["trace"]["held"] == 1
    assert sorted(two.list_ids()) == ["a", "c"]
    child = two.get(f"/v1/deletions/{parent['child_id']}").json()
    assert (child["state"], child["waits_for"], child["blocked_by"]) == ("blocked", "held", [kept["id"]])
    assert (child["parent_id"], child["alarm"]) == (parent["id"], None)
    two.send("DELETE", kept["links"]["self"])
    done = until(two, child["id"], "verified")
    assert (done["traces"]["hidden"], done["blocked_by"]) == (1, [])
    assert two.list_ids() == ["c"]
    for each in (parent, done):
        assert two.get(f"/v1/deletions/{each['id']}/receipt").json()["payload"]["traces"]["deleted"] == 1


def test_a_held_remainder_can_be_cancelled(two: Wire) -> None:
    kept = hold(two, trace_ids=["a"])
    parent = create(two, by_customer(two))
    path = f"/v1/deletions/{parent['child_id']}"
    assert two.post(f"{path}/cancel", {"reason": "keep it"}).json()["state"] == "cancelled"
    two.send("DELETE", kept["links"]["self"])
    assert sorted(two.list_ids()) == ["a", "c"]


def test_a_hold_set_meanwhile_beats_a_deletion_that_waits(two: Wire) -> None:
    told = create(two, by_customer(two, not_before=later(two)))
    kept = hold(two, trace_ids=["a"])
    assert kept["traces"] == {"protected": 0, "hidden_kept": 1}
    two.clock.advance(3601)
    two.post(f"/v1/deletions/{told['id']}/retry")
    done = until(two, told["id"], "verified")
    assert (done["traces"]["hidden"], done["traces"]["held"]) == (1, 1)
    assert two.list_ids() == [], "hidden stays hidden"
    child = done["child_id"]
    assert until(two, child, "blocked")["blocked_by"] == [kept["id"]]
    two.send("DELETE", kept["links"]["self"])
    assert until(two, child, "verified")["traces"]["hidden"] == 1


def test_a_deletion_of_nothing_but_held_traces_is_refused(two: Wire) -> None:
    kept = hold(two, filters={"customer_identifier": {"value": ["u1"]}})
    for body in (by_customer(two), {"trace_ids": ["a", "b"]}, {"trace_ids": ["a"]}):
        refused(two.post("/v1/deletions", body), 423, "held")
    assert two.get("/v1/deletions").json()["data"] == [], "nothing was recorded that would delete them later"
    assert preview(two, by_customer(two))["traces"] == {"matched": 2, "held": 2}
    two.send("DELETE", kept["links"]["self"])
    assert sorted(two.list_ids()) == ["a", "b", "c"]
    assert create(two, {"trace_ids": ["a", "b"]})["traces"]["hidden"] == 2


def test_holds_are_not_looked_up_without_bound(two: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = hold(two, trace_ids=["a"])
    parent = create(two, by_customer(two))
    monkeypatch.setattr("clearspan.api.native.deletions.BLOCKED_BY_TRACES_MAX", 0)
    child = two.get(f"/v1/deletions/{parent['child_id']}").json()
    assert (child["waits_for"], child["blocked_by"]) == ("held", None)
    assert [each["blocked_by"] for each in two.get("/v1/deletions").json()["data"]] == [None, []]
    two.send("DELETE", kept["links"]["self"])
    until(two, parent["child_id"], "verified")
