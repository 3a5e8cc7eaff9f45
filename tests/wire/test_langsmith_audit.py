"""LangSmith's audit log over the ledger, and the compliance pipeline that it closes."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from langsmith_requests import ROOTS, rows, run, run_id
from native import create, hold, until

from clearspan.api.langsmith.audit_events import OPERATIONS
from clearspan.catalog import KeyScope
from clearspan.deletion.projects import is_removal
from clearspan.proof.receipt import check_receipt
from clearspan.proof.signing import parse_jwk
from clearspan.testing.wire import SECOND_NS, Wire, iso

ANYTIME = "?start_time=2025-01-01T00:00:00Z&end_time=2027-01-01T00:00:00Z&page_size=1000"
STEPS = ["deletion_verified", "deletion_purged", "deletion_hidden", "delete_runs"]


def send(wire: Wire, *runs: dict[str, Any], **rest: Any) -> None:
    assert wire.post("/runs/batch", {"post": list(runs)}, **rest).status_code == 202


def judged(number: int, of: int) -> dict[str, Any]:
    """The run of an evaluator, in its own project."""
    return run(number, session_name="evaluators", extra={"metadata": {"target_run_id": run_id(of)}})


def page(wire: Wire, query: str = "", root: str = "", **rest: Any) -> dict[str, Any]:
    answer = wire.get(f"{root}/audit-logs?start_time=2025-01-01T00:00:00Z{query}", **rest)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert set(told) == {"items", "cursor"}
    return told


def operations(wire: Wire, query: str = "&limit=100", **rest: Any) -> list[str]:
    return [each["api"]["operation"] for each in page(wire, query, **rest)["items"]]


def queried(wire: Wire, filter_text: str) -> list[str] | None:
    """The traces that `/runs/query` finds in project p; None while there is no such route."""
    answer = wire.post("/runs/query", {"session": [session(wire)], "filter": filter_text})
    if answer.status_code in (404, 405):
        return None
    assert answer.status_code == 200, answer.text
    return sorted({each["trace_id"] for each in answer.json()["runs"]})


def session(wire: Wire, name: str = "p") -> str:
    [found] = wire.get(f"/sessions?name={name}").json()
    return str(found["id"])


@pytest.fixture
def gone(wire: Wire) -> dict[str, Any]:
    """The answer to a deletion of one trace."""
    send(wire, run(1))
    told: dict[str, Any] = wire.post(
        "/runs/delete", {"session_id": session(wire), "trace_ids": [run_id(1)], "reason": "because-anna-asked"}
    ).json()
    return told


def test_the_compliance_pipeline_ends_in_seconds_with_evidence(wire: Wire) -> None:
    """Discover, delete, follow the job, verify zero in every dialect, receipt, audit entry: in one go."""
    anna = {"metadata": {"user_id": "anna"}}
    send(wire, run(1, extra=anna), run(2), run(3, extra=anna), judged(5, 3))
    wire.post("/feedback", {"run_id": run_id(3), "key": "quality", "score": 1})
    found = wire.list_ids(ANYTIME, {"metadata__user_id": {"operator": "=", "value": ["anna"]}})
    assert sorted(str(UUID(each)) for each in found) == [run_id(1), run_id(3)]
    anna_too = 'and(eq(metadata_key, "user_id"), eq(metadata_value, "anna"))'
    assert queried(wire, anna_too) in (None, [run_id(1), run_id(3)])
    body = {"session_id": session(wire), "trace_ids": [*found, str(uuid4())]}
    answer = wire.post("/api/v1/runs/delete", body)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["matched_count"], told["copies"]["taken"], len(told["unmatched_ids"])) == (3, 1, 1)
    job = until(wire, told["deletion_id"], "verified")
    assert job["counts"]["span"] == {
        "planned": 3, "hidden": 3, "already_absent": 0, "held": 0, "purged": 3, "failed": 0, "remaining": 0,
    }  # fmt: skip
    assert {str(UUID(each)) for each in wire.list_ids(ANYTIME)} == {run_id(2)}
    for trace in (run_id(1), run_id(3), run_id(5)):
        assert wire.get(f"/api/traces/{trace}/").status_code == 404
        assert rows(wire, trace) == []
    assert queried(wire, anna_too) in (None, [])
    assert wire.get(f"/feedback?run={run_id(3)}").json() == []
    again = wire.post("/runs/delete", {"session_id": session(wire), "trace_ids": found}).json()
    assert again["message"].startswith("No traces matched; nothing was deleted")
    keys = [parse_jwk(jwk) for jwk in wire.get("/v1/ledger/keys").json()["keys"]]
    receipt = check_receipt(wire.get(job["receipt_url"]).json()["receipt"], keys)
    assert receipt.ok, receipt.first_failure
    assert receipt.payload is not None
    assert receipt.payload["traces"]["deleted"] == 3
    assert "copies:taken:1" in receipt.payload["scope"]["conditions"]
    log = page(wire, "&limit=100")["items"]
    mine = [each for each in log if told["deletion_id"] in [r["uid"] for r in each["resources"]]]
    assert [each["api"]["operation"] for each in mine] == STEPS
    assert mine[0]["unmapped"]["clearspan"]["receipt_url"] == job["receipt_url"]


@pytest.mark.parametrize("root", ROOTS)
def test_an_event_has_every_member_of_the_contract(wire: Wire, gone: dict[str, Any], root: str) -> None:
    told = page(wire, "&limit=100", root)
    assert [each["api"]["operation"] for each in told["items"]] == STEPS
    assert told["cursor"] is None
    *_, asked = told["items"]
    owner = wire.get(gone["status_url"]).json()["requested_by"]
    project = session(wire)
    workspace = wire.get("/settings").json()["id"]
    common = {"class_uid": 6003, "class_name": "API Activity", "category_uid": 6, "severity_id": 99}
    for event in told["items"]:
        assert event.items() >= common.items()
        assert (event["activity_id"], event["activity_name"], event["type_uid"]) == (4, "Delete", 600304)
        assert (event["status_id"], event["status"]) == (1, "Success")
        assert event["time"] == wire.clock.now_ns() // 10**6
        assert event["resources"] == [{"uid": gone["deletion_id"]}, {"uid": project}]
        assert event["http_request"] == {"http_method": None, "url": {"path": None}}, "what is not known is null"
        assert event["http_response"] == {"code": None}
        original = event["unmapped"]["original_audit_log"]
        assert (original["workspace_id"], original["operation_succeeded"]) == (workspace, True)
        assert original["enrichments"]["response_status_code"] is None
        assert event["unmapped"]["clearspan"].items() >= {"dialect": "langsmith", "requested_by": owner}.items()
    assert asked["actor"]["user"] == {"uid": None, "credential_uid": owner}
    assert told["items"][0]["actor"]["user"]["credential_uid"] is None, "the server verified it by itself"
    assert len({each["metadata"]["uid"] for each in told["items"]}) == 4
    assert "anna" not in json.dumps(told)


def test_pages_follow_each_other_newest_first(wire: Wire, gone: dict[str, Any]) -> None:
    send(wire, run(2))
    wire.post("/runs/delete", {"session_id": session(wire), "trace_ids": [run_id(2)]})
    every = page(wire, "&limit=100")["items"]
    assert [each["api"]["operation"] for each in every] == STEPS * 2
    seen: list[Any] = []
    cursor = None
    while True:
        told = page(wire, "&limit=3" + (f"&cursor={cursor}" if cursor else ""))
        seen += told["items"]
        cursor = told["cursor"]
        if cursor is None:
            break
        assert set(json.loads(base64.urlsafe_b64decode(cursor))) == {"before"}
    assert seen == every
    assert len(page(wire)["items"]) == 8, "ten by default"


def test_the_window_includes_both_ends_and_ends_now(wire: Wire, gone: dict[str, Any]) -> None:
    at = wire.clock.now_ns()
    wire.clock.advance(60)
    for start, end, count in (
        (at, at, 4),
        (at, None, 4),
        (at + 1000, None, 0),
        (0, at - 1000, 0),
        (at - SECOND_NS, at, 4),
    ):
        query = f"start_time={iso(start)}" + ("" if end is None else f"&end_time={iso(end)}")
        assert len(wire.get(f"/audit-logs?limit=100&{query}").json()["items"]) == count, (start, end)


def test_operations_and_workspaces_filter(wire: Wire, gone: dict[str, Any]) -> None:
    assert operations(wire, "&operations=delete_runs") == ["delete_runs"]
    assert operations(wire, "&operations=delete_runs&operations=deletion_verified") == [
        "deletion_verified",
        "delete_runs",
    ]
    assert operations(wire, "&operations=query_runs") == []
    workspace = wire.get("/settings").json()["id"]
    assert operations(wire, f"&workspace_id={workspace}") == STEPS
    assert page(wire, f"&workspace_id={uuid4()}") == {"items": [], "cursor": None}
    assert wire.get("/api/v1/audit-logs/operations").json() == list(OPERATIONS)
    assert set(STEPS) < set(OPERATIONS)


def test_every_kind_of_act_has_its_own_operation(wire: Wire) -> None:
    send(wire, run(1), run(2), run(3), run(4, session_name="q"))
    kept = hold(wire, trace_ids=[run_id(2)])
    told = wire.post("/runs/delete", {"session_id": session(wire), "trace_ids": [run_id(1), run_id(2)]}).json()
    assert wire.send("DELETE", f"/v1/holds/{kept['id']}", {"reason": "over"}).is_success
    until(wire, told["child_id"], "verified")
    deletion = create(
        wire, {"trace_ids": [run_id(3)], "not_before": iso(wire.clock.now_ns() + 3600 * SECOND_NS), "wait": "hidden"}
    )
    wire.post(f"/v1/deletions/{deletion['id']}/cancel", {"reason": "no"})
    assert wire.send("DELETE", f"/sessions/{session(wire, 'q')}").status_code == 200
    found = operations(wire)
    assert set(found) == set(OPERATIONS) - {"deletion_failed", "lift_tombstone", "transfer_traces"}
    assert found[3] == "delete_tracer_session"
    assert found.count("delete_runs") == 2
    by_name = {each["api"]["operation"]: each for each in page(wire, "&limit=100")["items"]}
    owner = wire.get(told["status_url"]).json()["requested_by"]
    for name, activity in (
        ("create_hold", 1),
        ("release_hold", 3),
        ("deletion_cancelled", 3),
        ("deletion_blocked", 99),
    ):
        assert by_name[name]["activity_id"] == activity, name
    for name in ("create_hold", "release_hold", "deletion_cancelled"):
        assert by_name[name]["actor"]["user"]["credential_uid"] == owner, name
    assert by_name["create_hold"]["resources"] == [{"uid": kept["id"]}]


@pytest.mark.parametrize(
    ("dialect", "shape", "removes"),
    [
        ("respan", ("span_count:gte:1", "project:removed:1"), True),
        ("langsmith", ("span_count:gte:1", "project:removed:1", "copies:taken:2"), True),
        ("langsmith", ("span_count:gte:1",), True),  # of an older ledger
        ("respan", ("span_count:gte:1",), False),
        ("native", ("span_count:gte:1", "copies:taken:2"), False),
        ("phoenix", ("trace_ids:in:1",), False),
    ],
)
def test_a_removal_is_known_by_its_shape(dialect: str, shape: tuple[str, ...], removes: bool) -> None:
    assert is_removal(dialect, shape) is removes


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "start_time"),
        ("?start_time=never", "start_time"),
        ("?start_time=2026-01-01&end_time=x", "end_time"),
        ("?start_time=2026-01-01&limit=0", "limit"),
        ("?start_time=2026-01-01&limit=101", "limit"),
        ("?start_time=2026-01-01&workspace_id=x", "workspace_id"),
        ("?start_time=2026-01-01&cursor=x", "cursor"),
        ("?start_time=2026-01-01&cursor=" + base64.b64encode(b'{"before": -1}').decode(), "cursor"),
        ("?start_time=2026-01-01&cursor=" + base64.b64encode(b"[1]").decode(), "cursor"),
    ],
)
def test_what_cannot_be_understood_is_named(wire: Wire, query: str, field: str) -> None:
    answer = wire.get(f"/audit-logs{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][-1] == field


def test_it_is_the_organisations_own_and_for_administrators(wire: Wire, gone: dict[str, Any]) -> None:
    other = wire.catalog.create_organisation("other")
    assert operations(wire, key=wire.key(KeyScope.ADMIN, org_id=other.id)) == []
    send(wire, run(1), key=wire.key(KeyScope.INGEST, org_id=other.id))
    assert operations(wire, key=wire.key(KeyScope.ADMIN)) == STEPS
    first = wire.catalog.projects(wire.catalog.first_org.id)[0].id
    bound = (wire.key(KeyScope.ADMIN, project_ids=[first]), wire.key(KeyScope.ADMIN, environment="prod"))
    for key in (wire.key(KeyScope.READ, KeyScope.DELETE), *bound):
        for path in ("/audit-logs?start_time=2026-01-01", "/api/v1/audit-logs/operations"):
            assert wire.get(path, key=key).status_code == 403
