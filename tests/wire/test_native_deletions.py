"""The native API: asking for deletions, looking at them, calling them off; what is refused, and whose they are."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from native import by_customer, create, later, preview, refused, until

from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.deletion.targets import NAMES
from clearspan.testing.wire import SECOND_NS, Wire, iso, open_wire


@pytest.fixture
def three(wire: Wire) -> Wire:
    wire.ingest(
        wire.span("a", customer_identifier="u1"),
        wire.span("b", customer_identifier="u1", ago_s=90_000),
        wire.span("c", customer_identifier="u1", ago_s=30),
        wire.span("d", customer_identifier="u2"),
    )
    return wire


def test_a_deletion_by_filter(three: Wire) -> None:
    answer = three.post("/v1/deletions", by_customer(three, wait="verified", expected_count=2, reason="on request"))
    assert answer.status_code == 202
    told = answer.json()
    assert (told["state"], told["progress"], told["eta_s"]) == ("verified", 1.0, 0.0)
    assert told["traces"] == {
        "matched": 2, "hidden": 2, "already_absent": 0, "no_longer_matching": 0, "held": 0, "failed": 0,
    }  # fmt: skip
    assert told["counts"]["span"] == {
        "planned": 2, "hidden": 2, "already_absent": 0, "held": 0, "purged": 2, "failed": 0, "remaining": 0,
    }  # fmt: skip
    assert list(told["counts"]) == list(NAMES)
    assert told["counts"]["share"]["purged"] == told["counts"]["share"]["remaining"] == 0
    assert told["effective_window"]["source"] == "request"
    assert told["scope"] == ["customer_identifier:equals:1"]
    assert (told["reason"], told["alarm"], told["problem"], told["projects"]) == (None, None, None, ["default"])
    assert list(told["times"]) == ["planned", "hidden", "purged", "verified"]
    assert told["receipt_url"] == f"/v1/deletions/{told['id']}/receipt"
    assert answer.headers["location"] == told["links"]["self"] == f"/v1/deletions/{told['id']}"
    assert answer.headers["clearspan-deletion-id"] == told["id"]
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert answer.headers["clearspan-effective-window"].endswith("source=request")
    assert "u1" not in answer.text
    assert three.get(told["links"]["self"]).json() == told
    assert three.list_ids(three.window(48)) == ["d", "b"]


def test_a_deletion_by_ids_has_no_window_unless_one_is_given(three: Wire) -> None:
    start = iso(three.clock.now_ns() - 3600 * SECOND_NS)
    bounded = create(three, {"trace_ids": ["b", "d"], "start_time": start})
    assert bounded["traces"]["matched"] == 1
    assert create(three, {"trace_ids": ["b", "b"]})["traces"]["hidden"] == 1
    assert sorted(three.list_ids(three.window(48))) == ["a", "c"]


def test_the_wait_may_end_at_hidden(three: Wire) -> None:
    for number, wait in enumerate(("none", "hidden")):
        body = {"trace_ids": ["ac"[number]], "wait": wait, "not_before": later(three)}
        told = three.post("/v1/deletions", body).json()
        assert (told["state"], told["waits_for"], told["receipt_url"]) == ("hidden", "not_before", None)
        assert told["not_before"] is not None
    assert three.list_ids(three.window(48)) == ["d", "b"]


def test_nothing_is_answered_before_it_is_hidden(three: Wire) -> None:
    """What is answered outlives the server, and a deletion that is only planned would not: none waits, too."""
    told = three.post("/v1/deletions", by_customer(three, wait="none")).json()
    assert told["traces"]["hidden"] == 2
    assert told["times"]["hidden"] is not None
    assert three.list_ids(three.window(48)) == ["d", "b"]
    assert until(three, told["id"], "verified")["traces"]["hidden"] == 2


def test_not_before_lies_a_year_ahead_at_most(three: Wire) -> None:
    """Until then the traces are hidden and not erased: a mistyped year must not leave them so for centuries."""
    day = 86_400
    for body in ({"trace_ids": ["a"]}, by_customer(three)):
        for path in ("/v1/deletions", "/v1/deletions/preview"):
            for late in (later(three, 366 * day + 1), "2206-01-01T00:00:00Z"):
                answer = three.post(path, body | {"not_before": late})
                refused(answer, 422, "not_before_too_late", "not_before")
                assert "2027-01-02T00:00:00Z" in answer.json()["detail"]
    assert sorted(three.list_ids(three.window(48))) == ["a", "b", "c", "d"]
    told = create(three, {"trace_ids": ["a"], "not_before": later(three, 366 * day)})
    assert (told["state"], told["waits_for"]) == ("hidden", "not_before")
    assert create(three, {"trace_ids": ["b"], "not_before": "2001-01-01T00:00:00Z"})["state"] == "verified"


def test_the_reason_can_be_read_until_it_is_erased(three: Wire) -> None:
    told = create(three, {"trace_ids": ["a"], "reason": "Mrs Smith asked", "not_before": later(three)})
    assert told["reason"] == "Mrs Smith asked"
    three.clock.advance(3601)
    three.post(f"/v1/deletions/{told['id']}/retry", {})
    assert until(three, told["id"], "verified")["reason"] is None


def test_a_preview_changes_nothing_and_its_token_deletes_exactly_that(three: Wire) -> None:
    told = preview(three, by_customer(three, reason="on request"))
    assert told["traces"] == {"matched": 2, "held": 0}
    assert (told["counts"]["trace"], told["counts"]["span"]) == ({"planned": 2}, {"planned": 2})
    assert sorted(each["trace_id"] for each in told["samples"]) == ["a", "c"]
    assert told["samples"][0]["customer_identifier"] == "u1"
    assert sum(told["by_day"].values()) == 2
    assert (told["by_project"], told["holds"], told["projects"]) == ({"default": 2}, [], ["default"])
    assert three.get("/v1/deletions").json()["data"] == []
    three.ingest(three.span("late", customer_identifier="u1"))
    done = create(three, {"plan_token": told["plan_token"], "expected_count": 2})
    assert (done["traces"]["hidden"], done["manifest_root"]) == (2, told["manifest_root"])
    assert sorted(three.list_ids(three.window(48))) == ["b", "d", "late"]


def test_a_plan_token_works_once_for_its_own_key_and_time(three: Wire) -> None:
    token = preview(three, by_customer(three))["plan_token"]
    other = three.key(*KeyScope)
    stranger = three.key(*KeyScope, org_id=three.catalog.create_organisation("Other").id)
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    for body, key in (
        ({"plan_token": altered}, None),
        ({"plan_token": token}, other),
        ({"plan_token": token}, stranger),
    ):
        rest = {} if key is None else {"key": key}
        refused(three.post("/v1/deletions", body, **rest), 409, "plan_used_or_unknown", "plan_token")
    wrong = three.post("/v1/deletions", {"plan_token": token, "expected_count": 3})
    refused(wrong, 409, "expected_count_mismatch", "expected_count")
    assert len(three.list_ids(three.window(48))) == 4, "nothing was deleted so far"
    create(three, {"plan_token": token})
    refused(three.post("/v1/deletions", {"plan_token": token}), 409, "plan_used_or_unknown", "plan_token")
    expired = preview(three, {"trace_ids": ["d"]})["plan_token"]
    three.clock.advance(15 * 60 + 1)
    answer = three.post("/v1/deletions", {"plan_token": expired})
    assert (answer.status_code, answer.json()["code"]) in {(409, "plan_expired"), (409, "plan_used_or_unknown")}
    assert sorted(three.list_ids(three.window(48))) == ["b", "d"]


def test_a_plan_whose_traces_have_changed_is_refused_whole(three: Wire) -> None:
    token = preview(three, by_customer(three))["plan_token"]
    create(three, {"trace_ids": ["a"]})
    refused(three.post("/v1/deletions", {"plan_token": token}), 409, "plan_mismatch")
    assert three.list_ids(three.window()) == ["c", "d"]


def test_open_plan_tokens_of_a_key_are_bounded(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", plans_open_max=2)
        wire.ingest(wire.span("a"))
        told = [preview(wire, {"trace_ids": ["a"]}) for _ in range(2)]
        answer = wire.post("/v1/deletions/preview", {"trace_ids": ["a"]})
        refused(answer, 409, "too_many_plans")
        assert "plans_open_max" in answer.json()["detail"]
        preview(wire, {"trace_ids": ["a"]}, key=wire.key(KeyScope.DELETE))
        create(wire, {"plan_token": told[0]["plan_token"]})
        assert preview(wire, {"trace_ids": ["a"]})["traces"]["matched"] == 0


def test_a_preview_shows_samples_to_readers_only(three: Wire) -> None:
    told = preview(three, by_customer(three), key=three.key(KeyScope.DELETE))
    assert (told["samples"], told["traces"]["matched"]) == (None, 2)


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({}, 400, "missing_selection", None),
    ({"filters": {"error_count": {"value": [0]}}, "trace_ids": ["a"]}, 400, "several_selections", None),
    ({"trace_ids": ["a"], "plan_token": "plan_x"}, 400, "several_selections", None),
    ({"subject": {"customer_identifier": "u1"}}, 400, "not_available", "subject"),
    ({"annotations": {"kind": "x"}}, 400, "invalid_input", "annotations"),
    ({"annotations": {"annotator_kind": "ROBOT"}}, 400, "invalid_input", "annotations"),
    ({"annotations": {"target": []}}, 400, "invalid_input", "annotations"),
    ({"annotations": ["quality"]}, 400, "invalid_input", "annotations"),
    ({"annotations": {"name": "quality"}, "operator": "AND"}, 400, "invalid_input", "operator"),
    ({"annotations": {"name": "quality"}}, 422, "unbounded_window", None),
    ({"annotations": {}, "delete_all": True}, 400, "empty_filter", "annotations"),
    ({"trace_ids": ["a"], "webhook_url": "https://example.com"}, 400, "not_available", "webhook_url"),
    ({"trace_ids": ["a"], "approve": True}, 400, "not_available", "approve"),
    ({"trace_ids": ["a"], "enviroment": "prod"}, 400, "unknown_key", "enviroment"),
    ({"trace_ids": []}, 400, "invalid_input", "trace_ids"),
    ({"trace_ids": "a"}, 400, "invalid_input", "trace_ids"),
    ({"trace_ids": ["a", 1]}, 400, "invalid_input", "trace_ids"),
    ({"trace_ids": ["a/b"]}, 400, "invalid_input", "trace_ids"),
    ({"trace_ids": ["a"], "operator": "OR"}, 400, "invalid_input", "operator"),
    ({"trace_ids": ["a"], "wait": "for ever"}, 400, "invalid_input", "wait"),
    ({"trace_ids": ["a"], "expected_count": -1}, 400, "invalid_input", "expected_count"),
    ({"trace_ids": ["a"], "expected_count": True}, 400, "invalid_input", "expected_count"),
    ({"trace_ids": ["a"], "expected_count": "1"}, 400, "invalid_input", "expected_count"),
    ({"trace_ids": ["a"], "delete_all": 1}, 400, "invalid_input", "delete_all"),
    ({"trace_ids": ["a"], "delete_all": True, "start_time": "2026-01-01"}, 400, "invalid_input", "delete_all"),
    ({"trace_ids": ["a"], "reason": "  "}, 400, "invalid_input", "reason"),
    ({"trace_ids": ["a"], "reason": "x" * 2001}, 400, "invalid_input", "reason"),
    ({"trace_ids": ["a"], "not_before": "soon"}, 400, "invalid_time", "not_before"),
    ({"trace_ids": ["a"], "start_time": ""}, 400, "invalid_time", "start_time"),
    ({"trace_ids": ["a"], "start_time": 17}, 400, "invalid_input", "start_time"),
    ({"trace_ids": ["a"], "start_time": "2026-01-02", "end_time": "2026-01-01"}, 400, "invalid_time", "end_time"),
    ({"trace_ids": ["a"], "project": "nowhere"}, 404, "project_not_found", "project"),
    ({"filters": {}}, 400, "empty_filter", "filters"),
    ({"filters": []}, 400, "empty_filter", "filters"),
    ({"filters": {"customer": {"value": ["u1"]}}}, 400, "invalid_filter", "customer"),
    ({"filters": {"error_count": {"operator": "~", "value": [1]}}}, 400, "invalid_filter", "error_count"),
    ({"filters": {"error_count": {"value": [0]}}, "operator": "XOR"}, 400, "invalid_filter", "operator"),
    ({"filters": {"error_count": {"value": [0]}}}, 422, "unbounded_window", None),
    ({"filters": {"error_count": {"value": [0]}}, "start_time": "2020-01-01"}, 422, "unbounded_window", None),
    ({"trace_ids": ["a"], "expected_count": 2}, 409, "expected_count_mismatch", "expected_count"),
    ({"plan_token": "plan_x", "reason": "why"}, 400, "invalid_input", "reason"),
    ({"plan_token": "plan_x", "start_time": "2026-01-01"}, 400, "invalid_input", "start_time"),
    ({"plan_token": "plan_x"}, 409, "plan_used_or_unknown", "plan_token"),
]


def test_what_is_refused_deletes_nothing(three: Wire) -> None:
    for body, status, code, field in REFUSED:
        answer = three.post("/v1/deletions", body)
        refused(answer, status, code, field)
        assert "clearspan-deletion-id" not in answer.headers
        if code not in {"plan_used_or_unknown", "missing_selection", "several_selections"} and "wait" not in body:
            if "plan_token" in body:
                refused(three.post("/v1/deletions/preview", body), 400, "unknown_key")
            else:
                refused(three.post("/v1/deletions/preview", body), status, code, field)
    refused(three.post("/v1/deletions", b"{"), 400, "invalid_json")
    refused(three.post("/v1/deletions", b'{"trace_ids":["a"],"trace_ids":["b"]}'), 400, "invalid_json", "trace_ids")
    refused(three.post("/v1/deletions?wait=none", {"trace_ids": ["a"]}), 400, "unknown_parameter", "wait")
    assert len(three.list_ids(three.window(48))) == 4
    assert three.get("/v1/deletions").json()["data"] == []


def test_delete_all_says_that_no_window_is_meant(three: Wire) -> None:
    body = {"filters": {"customer_identifier": {"value": ["u1"]}}, "delete_all": True}
    assert create(three, body)["effective_window"] == {"start_time": None, "end_time": None, "source": "request"}
    assert three.list_ids(three.window(48)) == ["d"]


def test_span_fields_and_texts_may_select(three: Wire) -> None:
    three.ingest(
        three.span("m", log_type="chat", model="gpt-4o", span_name="llm"),
        three.span("t", input="the needle in the haystack"),
    )
    bounds = {"delete_all": True}
    assert create(three, {"filters": {"model": {"value": ["gpt-4o"]}}, **bounds})["traces"]["hidden"] == 1
    text = {"text": {"operator": "full_text_search", "value": ["needle"]}}
    assert create(three, {"filters": text, **bounds})["traces"]["hidden"] == 1
    assert sorted(three.list_ids(three.window(48))) == ["a", "b", "c", "d"]


def test_a_keys_policy_is_held(three: Wire) -> None:
    def keyed(**policy: Any) -> str:
        return three.key(*KeyScope, policy=KeyPolicy(**policy))

    everything = {"filters": {"customer_identifier": {"value": ["u1"]}}, "delete_all": True}
    for key, code in (
        (keyed(max_traces=2), "key_limit_exceeded"),
        (keyed(max_share_ppm=500_000), "key_share_exceeded"),
        (keyed(require_reason=True), "reason_required"),
        (keyed(forbid_delete_all=True), "delete_all_forbidden"),
    ):
        refused(three.post("/v1/deletions", everything, key=key), 422, code)
        refused(three.post("/v1/deletions/preview", everything, key=key), 422, code)
    assert len(three.list_ids(three.window(48))) == 4
    assert create(three, everything | {"reason": "r"}, key=keyed(require_reason=True))["traces"]["hidden"] == 3


def test_an_idempotency_key_in_body_or_header_stands_for_one_deletion(three: Wire) -> None:
    first = create(three, {"trace_ids": ["a"], "idempotency_key": "once"})
    again = three.post("/v1/deletions", {"trace_ids": ["a"]}, headers={"Idempotency-Key": "once"})
    assert again.json()["id"] == first["id"]
    other = three.post("/v1/deletions", {"trace_ids": ["d"], "idempotency_key": "once"})
    refused(other, 409, "idempotency_key_reused", "idempotency_key")
    both = three.post(
        "/v1/deletions", {"trace_ids": ["a"], "idempotency_key": "once"}, headers={"Idempotency-Key": "2"}
    )
    refused(both, 400, "invalid_input", "idempotency_key")
    token = preview(three, {"trace_ids": ["c"]})["plan_token"]
    planned = create(three, {"plan_token": token, "idempotency_key": "plan"})
    assert create(three, {"plan_token": token, "idempotency_key": "plan"})["id"] == planned["id"]
    assert three.list_ids(three.window(48)) == ["d", "b"]


def test_cancel_makes_hidden_traces_visible_again(three: Wire) -> None:
    told = create(three, by_customer(three, not_before=later(three)))
    path = told["links"]["cancel"]
    assert three.list_ids(three.window()) == ["d"]
    undone = three.post(path, {"reason": "wrong customer"})
    assert (undone.status_code, undone.json()["state"]) == (200, "cancelled"), undone.text
    assert undone.headers["clearspan-deletion-state"] == "cancelled"
    assert sorted(three.list_ids(three.window())) == ["a", "c", "d"]
    again = three.post(path)
    assert (again.status_code, again.json()["times"]) == (200, undone.json()["times"])
    three.ingest(three.span("a", "more", customer_identifier="u1"))
    assert create(three, by_customer(three))["traces"]["hidden"] == 2


def test_cancel_is_refused_once_purging_has_begun(three: Wire) -> None:
    told = create(three, by_customer(three))
    path = f"/v1/deletions/{told['id']}"
    assert "cancel" not in told["links"]
    refused(three.post(f"{path}/cancel"), 409, "purge_begun")
    refused(three.post(f"{path}/retry"), 409, "deletion_over")
    refused(three.post(f"{path}/cancel", {"because": "x"}), 400, "unknown_key", "because")
    refused(three.post("/v1/deletions/del_x/cancel"), 404, "not_found")
    refused(three.post("/v1/deletions/del_x/retry"), 404, "not_found")


def test_a_failed_deletion_can_be_tried_again(three: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    deleter: Any = three.services.deleter
    store = deleter._store
    real = store.remaining
    monkeypatch.setattr(store, "remaining", lambda deletion_id: {**real(deletion_id), "span": 1})
    told = create(three, {"trace_ids": ["a"]})
    assert (told["state"], told["problem"]) == ("failed", "survivors:span")
    assert (told["traces"]["failed"], told["counts"]["span"]["remaining"]) == (1, 1)
    assert told["links"]["retry"].endswith("/retry")
    assert "cancel" not in told["links"]
    refused(three.post(f"/v1/deletions/{told['id']}/cancel"), 409, "purge_begun")
    refused(three.get(f"/v1/deletions/{told['id']}/receipt"), 409, "receipt_not_ready")
    monkeypatch.undo()
    assert three.post(told["links"]["retry"], {}).status_code == 202
    assert until(three, told["id"], "verified")["traces"]["failed"] == 0


def test_the_list_can_be_filtered_and_paged(three: Wire) -> None:
    reader = three.key(KeyScope.READ, KeyScope.DELETE)
    ids = []
    for trace_id, key in (("a", reader), ("b", None), ("c", None)):
        ids.append(create(three, {"trace_ids": [trace_id]}, **({"key": key} if key else {}))["id"])
        three.clock.advance(60)
    waiting = create(three, {"trace_ids": ["d"], "not_before": later(three)})["id"]

    def listed(query: str = "") -> list[str]:
        answer = three.get(f"/v1/deletions{query}")
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["data"]]

    assert listed() == [waiting, *reversed(ids)]
    assert listed("?state=hidden") == [waiting]
    assert listed("?state=verified,failed") == ids[::-1]
    assert listed("?project=default") == listed()
    asker = three.get(f"/v1/deletions/{ids[0]}").json()["requested_by"]
    assert listed(f"?requested_by={asker}") == [ids[0]]
    since = iso(three.clock.now_ns() - 90 * SECOND_NS)
    assert listed(f"?start_time={since}") == [waiting, ids[2]]
    assert listed(f"?end_time={since}") == [ids[1], ids[0]]
    seen, query = [], "?limit=1"
    while query:
        page = three.get(f"/v1/deletions{query}").json()
        seen += [each["id"] for each in page["data"]]
        query = f"?limit=1&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == listed()
    for query, code, field in (
        ("?state=gone", "invalid_input", "state"),
        ("?limit=0", "invalid_page", "limit"),
        ("?limit=201", "invalid_page", "limit"),
        ("?page=2", "unknown_parameter", "page"),
        ("?state=hidden&state=failed", "invalid_input", "state"),
        ("?start_time=yesterday", "invalid_time", "start_time"),
    ):
        refused(three.get(f"/v1/deletions{query}"), 400, code, field)
    assert three.get("/v1/deletions?cursor=@@@").status_code == 400


def test_bounds_of_keys(three: Wire) -> None:
    org_id = three.catalog.first_org.id
    second = three.catalog.create_project(org_id, "second")
    inside = three.key(*KeyScope, project_ids=[second.id])
    staging, prod = (three.key(*KeyScope, environment=name) for name in ("staging", "prod"))
    three.ingest(three.span("s"), key=inside)
    three.ingest(three.span("e"), key=staging)
    everywhere = create(three, {"trace_ids": ["a"]})["id"]
    in_second = create(three, {"trace_ids": ["s"]}, key=inside)["id"]
    in_staging = create(three, {"trace_ids": ["e", "d"]}, key=staging)
    assert in_staging["traces"]["hidden"] == 1
    stranger = three.key(*KeyScope, org_id=three.catalog.create_organisation("Other").id)
    ids = (everywhere, in_second, in_staging["id"])
    for key, seen in ((inside, {in_second}), (staging, {in_staging["id"]}), (prod, set()), (stranger, set())):
        listed = {each["id"] for each in three.get("/v1/deletions", key=key).json()["data"]}
        assert listed == seen
        for deletion_id in ids:
            path = f"/v1/deletions/{deletion_id}"
            status = 200 if deletion_id in seen else 404
            for part in ("", "/receipt", "/tombstones", "/events"):
                assert three.send("HEAD", path + part, key=key).status_code == status, (part, deletion_id)
            if deletion_id not in seen:
                refused(three.post(f"{path}/cancel", key=key), 404, "not_found")
                refused(three.post(f"{path}/retry", key=key), 404, "not_found")
                refused(three.get(f"/v1/ledger/entries?deletion_id={deletion_id}", key=key), 404, "not_found")
    refused(
        three.post("/v1/deletions", {"trace_ids": ["a"], "project": "default"}, key=inside), 404, "project_not_found"
    )
    wrong = three.post("/v1/deletions", {"trace_ids": ["a"], "environment": "prod"}, key=staging)
    refused(wrong, 403, "not_permitted", "environment")
    one = create(three, {"trace_ids": ["c"], "project": "default", "environment": "nowhere"})
    assert (one["traces"]["matched"], one["projects"]) == (0, ["default"])


def test_of_anothers_deletion_nothing_is_read_that_takes_longer_than_of_none(
    three: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletion_id = create(three, {"trace_ids": ["a"]})["id"]
    stranger = three.key(*KeyScope, org_id=three.catalog.create_organisation("Other").id)
    store, asked = three.services.deleter._store, []
    progress = store.progress

    def ask(each: str) -> Any:
        asked.append(each)
        return progress(each)

    monkeypatch.setattr(store, "progress", ask)
    for each in (deletion_id, "del_" + "0" * 32):
        refused(three.get(f"/v1/deletions/{each}", key=stranger), 404, "not_found")
    assert asked == []
    assert three.get(f"/v1/deletions/{deletion_id}").status_code == 200
    assert set(asked) == {deletion_id}


def test_spans_go_by_themselves(wire: Wire) -> None:
    spans = [
        {**wire.span(trace_id), "span_unique_id": f"{number:016x}", "span_name": f"s{number}"}
        for trace_id, number in (("a", 1), ("a", 2), ("b", 2), ("b", 3))
    ]
    wire.ingest(*spans)
    seen = preview(wire, {"span_ids": [f"{2:016X}", "no such span"]})
    assert (seen["kind"], seen["traces"]["matched"], len(seen["samples"])) == ("spans", 2, 2)
    one = create(wire, {"span_ids": [f"b/{2:016x}", f"a/{3:016x}"], "wait": "verified"})
    assert (one["kind"], one["state"], one["traces"]["hidden"]) == ("spans", "verified", 1)
    used = wire.post("/v1/deletions", {"plan_token": seen["plan_token"]})
    refused(used, 409, "plan_mismatch")
    assert wire.list_ids() == ["b", "a"]
    rest = create(wire, {"span_ids": [f"{1:016x}", f"{2:016x}"], "wait": "verified", "expected_count": 2})
    assert rest["counts"]["span"]["purged"] == 2
    assert wire.list_ids() == ["b"]


@pytest.mark.parametrize(
    "body",
    [
        {"span_ids": []}, {"span_ids": "a"}, {"span_ids": [1]}, {"span_ids": ["a/b/c"]}, {"span_ids": ["/a"]},
        {"span_ids": ["a\n"]}, {"span_ids": [str(n) for n in range(501)]}, {"span_ids": ["a"], "trace_ids": ["a"]},
        {"span_ids": ["a"], "start_time": "2026-01-01T00:00:00Z"}, {"span_ids": ["a"], "leave_copies": 1},
        {"span_ids": ["a"], "annotations": {"name": "x"}}, {"span_ids": ["a"], "filters": {}},
    ],
    ids=range(12),
)  # fmt: skip
def test_what_names_no_spans_is_refused(three: Wire, body: dict[str, Any]) -> None:
    before = three.list_ids()
    for path in ("/v1/deletions", "/v1/deletions/preview"):
        assert three.post(path, body).status_code == 400
    assert three.list_ids() == before
