"""Respan's traces API, the deleting half: what is deleted, what is told, what is refused before anything happens."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from native import until

from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso, open_wire

FIVE_KEYS = {"success_count", "error_count", "errors", "deleted_count", "message"}
BULK_PATHS = ("/api/traces/bulk/", "/api/traces/bulk", "/api/traces/bulk-delete/", "/api/traces/bulk-delete")


def by_customer(customer: str) -> dict[str, Any]:
    return {"filters": {"customer_identifier": {"operator": "=", "value": [customer]}}}


def test_the_documented_call_by_customer(wire: Wire) -> None:
    wire.ingest(
        wire.span("a", customer_identifier="user@example.com"),
        wire.span("b", customer_identifier="user@example.com"),
        wire.span("c", customer_identifier="other@example.com"),
    )
    body = b'{"filters":{"customer_identifier":{"operator":"=","value":["user@example.com"]}}}'
    answer = wire.post(f"/api/traces/bulk-delete/{wire.window()}", body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert set(answer.json()) == FIVE_KEYS | {"deletion_id", "state"}
    assert answer.json() == answer.json() | {
        "success_count": 2,
        "error_count": 0,
        "errors": [],
        "deleted_count": 2,
        "message": "Successfully deleted 2 traces",
        "state": "verified",
    }
    deletion_id = answer.json()["deletion_id"]
    assert answer.headers["clearspan-deletion-id"] == deletion_id
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert answer.headers["location"] == f"/v1/deletions/{deletion_id}"
    assert answer.headers["clearspan-effective-window"].endswith("source=request")
    assert wire.list_ids() == ["c"]


def test_the_documented_call_by_ids(wire: Wire) -> None:
    wire.ingest(*(wire.span(each) for each in ("trace_abc123", "trace_def456", "trace_ghi789")))
    body = {"filters": {"trace_unique_id": {"operator": "IN", "value": ["trace_abc123", "trace_def456"]}}}
    answer = wire.post(f"/api/traces/bulk-delete/{wire.window()}", body)
    assert (answer.status_code, answer.json()["deleted_count"]) == (200, 2)
    assert wire.list_ids() == ["trace_ghi789"]


def test_the_documented_call_by_errors_in_an_environment(wire: Wire) -> None:
    for environment in ("staging", "prod"):
        wire.ingest(
            wire.span(f"{environment}-bad", environment=environment, status="error"),
            wire.span(f"{environment}-good", environment=environment),
        )
    body = {"filters": {"error_count": {"operator": "gt", "value": [0]}}}
    answer = wire.post("/api/traces/bulk-delete/?environment=staging", body)
    assert (answer.status_code, answer.json()["deleted_count"]) == (200, 1)
    assert sorted(wire.list_ids()) == ["prod-bad", "prod-good", "staging-good"]


def test_every_path_deletes_and_a_repeat_is_harmless(wire: Wire) -> None:
    wire.ingest(wire.span("left", customer_identifier="left"))
    for number, path in enumerate(BULK_PATHS):
        wire.ingest(wire.span(f"t{number}", customer_identifier=path))
        first = wire.post(path, by_customer(path))
        assert first.json()["deleted_count"] == 1
        for _ in range(2):
            again = wire.post(path, by_customer(path))
            assert again.status_code == 200
            assert (again.json()["deleted_count"], again.json()["errors"]) == (0, [])
            assert "nothing was deleted" in again.json()["message"]
    assert wire.list_ids() == ["left"]


def test_the_default_window_is_kept_and_told(wire: Wire) -> None:
    wire.ingest(wire.span("old", ago_s=7200), wire.span("new"))
    ids = {"filters": {"trace_unique_id": {"operator": "in", "value": ["old"]}}}
    missed = wire.post("/api/traces/bulk/", ids)
    assert (missed.status_code, missed.json()["deleted_count"]) == (200, 0)
    assert "no start_time was given" in missed.json()["message"]
    assert missed.headers["clearspan-effective-window"].endswith("source=default")
    hit = wire.post("/api/traces/bulk/", {"filters": {"trace_unique_id": {"value": ["new"]}}})
    assert hit.json()["message"].startswith("Successfully deleted 1 traces. No start_time was given")
    assert wire.list_ids(wire.window()) == ["old"]


NOT_UNDERSTOOD: list[tuple[Any, str, str | None]] = [
    ({}, "empty_filter", "filters"),
    ({"filters": {}}, "empty_filter", "filters"),
    ({"filters": None}, "empty_filter", "filters"),
    ({"filters": []}, "empty_filter", "filters"),
    (None, "empty_filter", "filters"),
    ({"filters": {"customer": {"value": ["u1"]}}}, "invalid_filter", "customer"),
    ({"filters": {"model": {"value": ["gpt-4o"]}}}, "invalid_filter", "model"),
    ({"filters": {"customer_identifier": {"operator": "~", "value": ["u1"]}}}, "invalid_filter", None),
    ({"filters": {"customer_identifier": {"value": []}}}, "invalid_filter", "customer_identifier"),
    ({"filters": {"error_count": {"operator": "gt", "value": ["many"]}}}, "invalid_filter", "error_count"),
    ({"filters": {"customer_identifier": "u1"}}, "invalid_filter", "customer_identifier"),
    ({"filters": "customer_identifier"}, "invalid_filter", "filters"),
    ({"filters": {"error_count": {"value": [0]}}, "operator": "XOR"}, "invalid_filter", "operator"),
    ([], "invalid_json", None),
    (b'{"filters":{"customer_identifier":{"value":["u1"]}}', "invalid_json", None),
    (b'{"filters":{"error_count":{"value":[0]},"error_count":{"value":[1]}}}', "invalid_json", "error_count"),
    (b'{"filters":{"customer_identifier":{"value":["u1\xff"]}}}', "invalid_json", None),
    (b'{"filters":' + b'{"a":' * 2000 + b"1" + b"}" * 2001, "invalid_json", None),
]


def test_what_is_not_understood_deletes_nothing(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    for body, code, field in NOT_UNDERSTOOD:
        answer = wire.post(f"/api/traces/bulk/{wire.window()}", body)
        assert answer.status_code == 400, answer.text
        assert (answer.json()["code"], answer.json()["detail"]) == (code, answer.json()["error"])
        if field is not None:
            assert field in answer.json(), answer.text
        assert "clearspan-deletion-id" not in answer.headers
        assert wire.list_ids() == ["a"]


BAD_WINDOWS = [
    ("?start_time=yesterday", "start_time"),
    ("?end_time=2026-02-30", "end_time"),
    ("?end_time=1e400", "end_time"),
    ("?start_time=9999-12-31T23:59:59Z", "start_time"),
    ("?start_time=2026-01-02&end_time=2026-01-01", "end_time"),
]


def test_a_bad_window_deletes_nothing(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    for query, field in BAD_WINDOWS:
        for answer in (
            wire.post(f"/api/traces/bulk/{query}", by_customer("u1")),
            wire.send("DELETE", f"/api/traces/a/{query}"),
            wire.post(f"/api/traces/list/{query}", {}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_time")
            assert field in answer.json()
    assert wire.list_ids() == ["a"]


def test_a_misspelt_or_doubled_bound_deletes_nothing(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1", environment="prod"))
    since = "2026-01-01T00:00:00Z"
    for query, key in (
        ("?enviroment=staging", "enviroment"),
        ("?start=2026-01-01", "start"),
        (f"?start_time={since}&start_time={since}", "start_time"),
        ("?environment=staging&environment=prod", "environment"),
        ("?page_size=1", "page_size"),
    ):
        for answer in (
            wire.post(f"/api/traces/bulk/{query}", by_customer("u1")),
            wire.send("DELETE", f"/api/traces/a/{query}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), query
            assert "nothing was deleted" in answer.json()[key][0]
    for key, value in (("filter", {}), ("end_time", since), ("environment", "staging"), ("limit", 1)):
        answer = wire.post("/api/traces/bulk/", by_customer("u1") | {key: value})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input"), key
        assert ("query string" in answer.json()[key][0]) is (key in ("end_time", "environment"))
    assert wire.list_ids() == ["a"]


def test_more_than_a_thousand_matches_delete_nothing(wire: Wire) -> None:
    wire.ingest(*(wire.span(f"t{n}", customer_identifier="u1") for n in range(1001)))
    refused = wire.post("/api/traces/bulk/", by_customer("u1"))
    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_matches")
    assert wire.post("/api/traces/list/", {}).json()["count"] == 1001
    assert wire.send("DELETE", "/api/traces/t0").json()["deleted_count"] == 1
    assert wire.post("/api/traces/bulk/", by_customer("u1")).json()["deleted_count"] == 1000
    assert wire.list_ids() == []


def test_times_in_the_body_narrow_the_window_and_never_widen_it(wire: Wire) -> None:
    wire.ingest(wire.span("old", ago_s=7200), wire.span("t50", ago_s=50), wire.span("t20", ago_s=20))
    since = iso(wire.clock.now_ns() - 10**5 * SECOND_NS)
    until = iso(wire.clock.now_ns() - 40 * SECOND_NS)
    body = {"filters": {"start_time": [{"operator": "gte", "value": [since]}, {"operator": "lt", "value": [until]}]}}
    assert wire.post("/api/traces/bulk/", body).json()["deleted_count"] == 1
    assert wire.list_ids(wire.window()) == ["t20", "old"]


def test_or_never_leaves_the_window_the_environment_or_the_tenant(wire: Wire) -> None:
    wire.ingest(
        wire.span("staging", environment="staging", customer_identifier="u1"),
        wire.span("prod", environment="prod", customer_identifier="u1"),
        wire.span("old", ago_s=7200, environment="staging", customer_identifier="u1"),
    )
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    wire.ingest(wire.span("staging", environment="staging", customer_identifier="u1"), key=theirs)
    body = by_customer("u1") | {"operator": "OR"}
    body["filters"]["span_count"] = {"operator": "gte", "value": [0]}
    assert wire.post("/api/traces/bulk/?environment=staging", body).json()["deleted_count"] == 1
    assert wire.list_ids(wire.window()) == ["prod", "old"]
    assert wire.list_ids(key=theirs) == ["staging"]


def test_delete_one(wire: Wire) -> None:
    wire.ingest(wire.span("a", ago_s=10**6), wire.span("b"))
    answer = wire.send("DELETE", "/api/traces/a/")
    assert answer.status_code == 200
    assert answer.json()["message"] == "Successfully deleted trace a", "one id without bounds has no window"
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert answer.headers["clearspan-effective-window"] == "../..; source=request"
    again = wire.send("DELETE", "/api/traces/a")
    assert (again.status_code, again.json()["deleted_count"]) == (200, 0)
    assert "nothing was deleted" in again.json()["message"]
    end = iso(wire.clock.now_ns() - 3600 * SECOND_NS)
    assert wire.send("DELETE", f"/api/traces/b/?end_time={end}").json()["deleted_count"] == 0
    assert wire.list_ids() == ["b"]


def test_delete_one_takes_every_permitted_copy(wire: Wire) -> None:
    org_id = wire.catalog.first_org.id
    second = wire.catalog.create_project(org_id, "second")
    third = wire.catalog.create_project(org_id, "third")
    wire.ingest(wire.span("a"))
    for project in (second, third):
        wire.ingest(wire.span("a"), key=wire.key(*KeyScope, project_ids=[project.id]))
    default = wire.catalog.find_project(org_id, "default")
    assert default is not None
    bound = wire.key(KeyScope.DELETE, project_ids=[default.id, second.id])
    assert wire.send("DELETE", "/api/traces/a/", key=bound).json()["deleted_count"] == 2
    assert wire.list_ids() == ["a"]


def test_a_share_dies_with_its_trace_and_late_spans_are_refused(wire: Wire) -> None:
    wire.ingest(wire.span("a"))
    wire.send("PATCH", "/api/traces/a/", {"is_public": True})
    address = f"/api/{wire.catalog.first_org.public_id}/traces/a/"
    assert wire.get(address, key=None).status_code == 200
    deletion = wire.send("DELETE", "/api/traces/a/").json()["deletion_id"]
    assert wire.get(address, key=None).status_code == 404
    late = wire.post("/api/v1/traces/ingest", [wire.span("a", "late"), wire.span("b")])
    assert late.status_code == 200
    assert late.json()["message"] == (
        f"Successfully ingested 1 spans. 1 spans refused: their trace was deleted (deletion {deletion})"
    )
    assert wire.list_ids() == ["b"]
    assert wire.get(address, key=None).status_code == 404


def test_an_idempotency_key_stands_for_one_deletion(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    window, headers = wire.window(), {"Idempotency-Key": "once"}
    first = wire.post(f"/api/traces/bulk/{window}", by_customer("u1"), headers=headers)
    wire.ingest(wire.span("b", customer_identifier="u1"))
    again = wire.post(f"/api/traces/bulk/{window}", by_customer("u1"), headers=headers)
    assert again.json() == first.json()
    other = wire.post(f"/api/traces/bulk/{window}", by_customer("u2"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert wire.list_ids() == ["b"]


def test_figures_of_deletions(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    wire.post("/api/traces/bulk/", by_customer("u1"))
    text = wire.get("/metrics", key=None).text
    assert 'clearspan_deletions{state="verified"} 1.0' in text
    assert 'clearspan_deletions{state="hidden"} 0.0' in text
    assert "clearspan_deletions_oldest_unfinished_seconds 0.0" in text
    assert "clearspan_deletions_overdue 0.0" in text
    assert 'clearspan_deletion_purged_rows_total{target="span"} 1.0' in text
    assert 'clearspan_deletion_purged_rows_total{target="share"} 0.0' in text
    assert "clearspan_deletion_late_refused_total 0.0" in text
    wire.post("/api/v1/traces/ingest", [wire.span("a", "late")])
    text = wire.get("/metrics", key=None).text
    assert "clearspan_deletion_late_refused_total 1.0" in text
    assert 'clearspan_deletion_purged_rows_total{target="span"} 1.0' in text
    assert 'clearspan_http_requests_total{method="POST",route="/api/traces/bulk/",status="200"} 1.0' in text


def test_the_location_tells_state_and_exact_counts_to_its_own_tenant_only(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="user@example.com"), wire.span("b"))
    location = wire.post(f"/api/traces/bulk/{wire.window()}", by_customer("user@example.com")).headers["location"]
    told = wire.get(location)
    assert told.status_code == 200
    body = told.json()
    assert (body["state"], body["traces"]["matched"], body["traces"]["hidden"]) == ("verified", 1, 1)
    assert body["counts"]["span"] == {
        "planned": 1, "hidden": 1, "already_absent": 0, "held": 0, "purged": 1, "failed": 0, "remaining": 0,
    }  # fmt: skip
    assert set(body["times"]) == {"planned", "hidden", "purged", "verified"}
    assert "user@example.com" not in told.text
    assert wire.get("/v1/deletions/del_unknown").status_code == 404
    stranger = wire.key(KeyScope.READ, org_id=wire.catalog.create_organisation("Other").id)
    assert wire.get(location, key=stranger).status_code == 404


def hold(wire: Wire, *trace_ids: str) -> str:
    answer = wire.post("/v1/holds", {"trace_ids": list(trace_ids), "reason": "case 12"})
    assert answer.status_code == 201, answer.text
    path: str = answer.json()["links"]["self"]
    return path


def test_what_is_held_is_an_error_of_a_bulk_delete_and_goes_on_release(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"), wire.span("b", customer_identifier="u1"))
    path = hold(wire, "a")
    answer = wire.post(f"/api/traces/bulk/{wire.window()}", by_customer("u1"))
    body = answer.json()
    assert (answer.status_code, set(body)) == (200, FIVE_KEYS | {"deletion_id", "state"})
    assert (body["success_count"], body["deleted_count"], body["error_count"]) == (1, 1, 1)
    child = wire.get(answer.headers["location"]).json()["child_id"]
    text = f"1 traces are held and were not deleted; they go when the hold does, see {child}"
    assert body["errors"] == [{"index": 0, "error": text}]
    assert body["message"] == "Successfully deleted 1 traces; 1 traces are held and were not deleted"
    assert wire.list_ids() == ["a"]
    wire.send("DELETE", path)
    assert until(wire, child, "verified")["traces"]["hidden"] == 1
    assert wire.list_ids() == []


def test_a_bulk_delete_of_held_traces_alone_deletes_nothing_now(wire: Wire) -> None:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    hold(wire, "a")
    answer = wire.post(f"/api/traces/bulk/{wire.window()}", by_customer("u1"))
    assert (answer.status_code, answer.json()["deleted_count"], answer.json()["error_count"]) == (200, 0, 1)
    assert answer.json()["message"] == "1 traces are held; nothing was deleted"
    assert wire.list_ids() == ["a"]


def test_a_single_held_trace_is_a_conflict_and_repeating_it_is_harmless(wire: Wire) -> None:
    wire.ingest(wire.span("a"))
    path = hold(wire, "a")
    for _ in range(3):  # as often as Respan's client sends what was answered 409
        answer = wire.send("DELETE", "/api/traces/a/")
        assert (answer.status_code, answer.json()["code"]) == (409, "held")
        assert answer.json()["detail"] == answer.json()["error"]
    assert wire.get("/v1/deletions").json()["data"] == []
    wire.send("DELETE", path)
    assert wire.list_ids() == ["a"]
    assert wire.send("DELETE", "/api/traces/a/").json()["deleted_count"] == 1


def test_a_keys_policy_holds_in_this_dialect_too(wire: Wire) -> None:
    wire.ingest(*(wire.span(each, customer_identifier="u1") for each in "abc"))

    def keyed(**policy: Any) -> str:
        return wire.key(*KeyScope, policy=KeyPolicy(**policy))

    few, silent, strict = keyed(max_traces=2), keyed(require_reason=True), keyed(strict_window=True)
    for key, query, code in (
        (few, wire.window(), "key_limit_exceeded"),
        (silent, wire.window(), "reason_required"),
        (strict, "", "implicit_window"),
    ):
        answer = wire.post(f"/api/traces/bulk/{query}", by_customer("u1"), key=key)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert wire.send("DELETE", "/api/traces/a/", key=silent).status_code == 422
    said = {"Clearspan-Reason": "request 4711"}
    assert wire.send("DELETE", "/api/traces/a/", key=silent, headers=said).json()["deleted_count"] == 1
    assert wire.send("DELETE", "/api/traces/b/", key=strict).json()["deleted_count"] == 1
    assert wire.post(f"/api/traces/bulk/{wire.window()}", by_customer("u1"), key=strict).json()["deleted_count"] == 1


def test_a_server_may_refuse_implicit_windows_altogether(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", strict_windows=True)
        wire.ingest(wire.span("a", customer_identifier="u1"))
        answer = wire.post("/api/traces/bulk/", by_customer("u1"))
        assert (answer.status_code, answer.json()["code"]) == (422, "implicit_window")
        assert "start_time" in answer.json()
        assert wire.post("/api/traces/list/", {}).json()["count"] == 1, "reads keep their default"
        assert wire.post(f"/api/traces/bulk/{wire.window()}", by_customer("u1")).json()["deleted_count"] == 1
