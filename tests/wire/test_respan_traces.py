"""Respan's traces API, the reading half: fields, paging, windows, sorting, sharing, summary."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from clearspan.catalog import KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso, open_wire

LIST_FIELDS = [
    "id", "trace_unique_id", "root_span_unique_id", "unique_organization_id", "organization_id",
    "organization_name", "organization_key_id", "environment", "customer_identifier", "start_time",
    "end_time", "duration", "span_count", "llm_call_count", "error_count", "total_cost",
    "total_prompt_tokens", "total_completion_tokens", "total_tokens", "name", "input", "output", "metadata",
    "trace_group_identifier", "session_identifier", "model", "storage_object_key",
]  # fmt: skip
NODE_FIELDS = [
    "id", "unique_id", "span_unique_id", "span_name", "span_parent_id", "trace_unique_id",
    "customer_identifier", "thread_identifier", "session_identifier", "organization_key_id",
    "organization_id", "environment", "log_type", "timestamp", "start_time", "end_time", "prompt_tokens",
    "completion_tokens", "total_request_tokens", "cost", "latency", "model", "status_code", "status",
    "input", "output", "metadata", "span_links", "storage_object_key", "span_workflow_name", "children",
]  # fmt: skip


def test_a_list_item_has_exactly_the_fields_of_the_contract(wire: Wire) -> None:
    wire.ingest(
        wire.span(
            "t1",
            input={"question": "why"},
            output="because",
            span_workflow_name="support",
            customer_identifier="user-1",
            session_identifier="session-1",
            environment="staging",
            metadata={"plan": "pro", "n": 3, "_sdk": "2.24.0"},
        ),
        wire.span(
            "t1",
            "t1-call",
            span_parent_id="t1-root",
            log_type="chat",
            model="gpt-4o-mini",
            prompt_tokens=11,
            completion_tokens=7,
            cost=0.5,
            status="error",
        ),
    )
    answer = wire.post("/api/traces/list/", {})
    assert answer.status_code == 200
    page = answer.json()
    assert set(page) == {"count", "results", "next", "previous", "message"}
    assert (page["count"], page["next"], page["previous"]) == (1, None, None)
    (item,) = page["results"]
    assert sorted(item) == sorted(LIST_FIELDS)
    org = wire.catalog.first_org
    assert item == item | {
        "id": "t1",
        "trace_unique_id": "t1",
        "root_span_unique_id": "t1-root",
        "organization_id": org.public_id,
        "unique_organization_id": org.public_id,
        "organization_name": org.name,
        "environment": "staging",
        "customer_identifier": "user-1",
        "session_identifier": "session-1",
        "duration": 1.0,
        "span_count": 2,
        "llm_call_count": 1,
        "error_count": 1,
        "total_cost": 0.5,
        "total_prompt_tokens": 11,
        "total_completion_tokens": 7,
        "total_tokens": 18,
        "name": "support",
        "output": "because",
        "metadata": {"plan": "pro", "n": "3"},
        "model": "gpt-4o-mini",
    }
    assert json.loads(item["input"]) == {"question": "why"}
    assert item["start_time"] == iso(wire.clock.now_ns() - 60 * SECOND_NS)


def test_retrieve_adds_the_span_tree(wire: Wire) -> None:
    wire.ingest(
        wire.span("t1", input="in", metadata={"_sdk": "x"}),
        wire.span("t1", "late", ago_s=10, span_parent_id="t1-root"),
        wire.span("t1", "early", ago_s=50, span_parent_id="t1-root", log_type="tool", status_code=200),
        wire.span("t1", "inner", ago_s=45, span_parent_id="early"),
        wire.span("t1", "orphan", ago_s=30, span_parent_id="never-came"),
    )
    for method, path in (("GET", "/api/traces/t1/"), ("GET", "/api/traces/t1"), ("POST", "/api/traces/t1/")):
        trace = wire.send(method, path).json()
        assert sorted(trace) == sorted([*LIST_FIELDS, "span_tree"])
        first, second = trace["span_tree"]
        assert sorted(first) == sorted(NODE_FIELDS)
        assert (first["id"], second["id"]) == ("t1-root", "orphan")
        assert [child["id"] for child in first["children"]] == ["early", "late"]
        assert [child["id"] for child in first["children"][0]["children"]] == ["inner"]
        assert first["metadata"] == {}, "keys with a leading _ are the client's own"
        assert (first["span_parent_id"], second["span_parent_id"]) == (None, "never-came")
        assert first["children"][0]["log_type"] == "tool"
        assert first["timestamp"] == first["end_time"]


def test_retrieve_takes_the_hints_of_old_clients_and_knows_no_other_trace(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    assert wire.get("/api/traces/t1/?environment=prod&start_time=nonsense&timestamp=x").status_code == 200
    unknown = wire.get("/api/traces/t2/")
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == "No trace was found under that id."


def test_a_chain_of_thousands_of_spans_is_told_whole(wire: Wire) -> None:
    depth = 3000
    wire.ingest(
        wire.span("t1", "0"),
        *(wire.span("t1", str(n), span_parent_id=str(n - 1)) for n in range(1, depth)),
    )
    text = wire.get("/api/traces/t1/").text
    assert text.count('"children":[') == depth
    assert text.endswith("]}" * depth + "]}")


def test_the_default_window_is_the_last_hour_and_is_told(wire: Wire) -> None:
    wire.ingest(wire.span("new", ago_s=3599), wire.span("old", ago_s=3601))
    answer = wire.post("/api/traces/list/", {})
    assert [each["id"] for each in answer.json()["results"]] == ["new"]
    now = wire.clock.now_ns()
    hour_ago = iso(now - 3600 * SECOND_NS)
    assert answer.headers["clearspan-effective-window"] == f"{hour_ago}/{iso(now)}; source=default"
    assert hour_ago in answer.json()["message"]


def test_a_window_is_half_open_on_the_start_time(wire: Wire) -> None:
    for n in (30, 20, 10):
        wire.ingest(wire.span(f"ago-{n}", ago_s=n))
    start, end = (iso(wire.clock.now_ns() - n * SECOND_NS) for n in (30, 10))
    answer = wire.post(f"/api/traces/list/?start_time={start}&end_time={end}", {})
    assert [each["id"] for each in answer.json()["results"]] == ["ago-20", "ago-30"]
    assert answer.headers["clearspan-effective-window"] == f"{start}/{end}; source=request"
    assert "message" not in answer.json()


TIME_FORMS = [
    ("2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z"),
    ("2025-12-31T00%3A00%3A00Z", "2026-01-01T00%3A00%3A00%2B00:00"),
    ("2025-12-31", "2026-01-01"),
    ("2025-12-31T02:00:00+02:00", "2026-01-01T00:00:00.000001"),
    ("2025-12-31 00:00", "2026-01-01T00:00:00.123456789Z"),
]


def test_times_in_every_form(wire: Wire) -> None:
    wire.ingest(wire.span("t1", ago_s=7200))
    for start, end in TIME_FORMS:
        assert wire.list_ids(f"?start_time={start}&end_time={end}") == ["t1"]


def test_the_start_defaults_to_an_hour_before_the_end(wire: Wire) -> None:
    wire.ingest(wire.span("t1", ago_s=7200))
    end = iso(wire.clock.now_ns() - 5400 * SECOND_NS)
    answer = wire.post(f"/api/traces/list/?end_time={end}", {})
    assert [each["id"] for each in answer.json()["results"]] == ["t1"]
    assert answer.headers["clearspan-effective-window"].endswith("source=default")


def test_pages_link_to_each_other_and_end(wire: Wire) -> None:
    wire.ingest(*(wire.span(f"t{n}", ago_s=100 - n, environment="prod") for n in range(5)))
    address = f"/api/traces/list/{wire.window()}&page_size=2&sort_by=timestamp&environment=prod&custom=a%26b"
    seen, links = [], []
    url = f"http://clearspan.test{address}"
    while url:
        page = wire.post(url.removeprefix("http://clearspan.test"), {}).json()
        assert page["count"] == 5
        seen += [each["id"] for each in page["results"]]
        links.append(page["previous"])
        url = page["next"]
        if url:
            query = parse_qs(urlsplit(url).query)
            assert query["custom"] == ["a&b"]
            assert (query["environment"], query["page_size"]) == (["prod"], ["2"])
            assert len(query["page"]) == 1
    assert seen == ["t0", "t1", "t2", "t3", "t4"]
    assert [bool(link) for link in links] == [False, True, True]


def test_a_page_past_the_end_is_an_empty_200(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    for page in (2, 99, 10**12):
        answer = wire.post(f"/api/traces/list/?page={page}", {})
        assert answer.status_code == 200
        assert (answer.json()["results"], answer.json()["count"], answer.json()["next"]) == ([], 1, None)
        assert parse_qs(urlsplit(answer.json()["previous"]).query)["page"] == ["1"]


def test_links_carry_the_address_that_the_client_used(wire: Wire) -> None:
    wire.ingest(wire.span("t1"), wire.span("t2"))

    def link(**headers: str) -> str:
        found = wire.post("/api/traces/list?page_size=1", {}, headers=headers).json()["next"]
        assert isinstance(found, str)
        return found

    assert link().startswith("http://clearspan.test/api/traces/list?")
    assert link(**{"X-Forwarded-Proto": "https", "Host": "traces.example.com"}).startswith(
        "https://traces.example.com/api/traces/list?"
    )
    assert link(Host="[::1]:8321").startswith("http://[::1]:8321/")
    assert "evil" not in link(Host="a.example/evil?x=")
    assert link(**{"X-Forwarded-Proto": "javascript"}).startswith("http://")


def test_links_and_pages_follow_the_settings(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", public_url="https://traces.example.com/", page_size_max=2)
        wire.ingest(*(wire.span(f"t{n}") for n in range(3)))
        page = wire.post("/api/traces/list/", {}).json()
        assert len(page["results"]) == 2
        assert page["next"] == "https://traces.example.com/api/traces/list/?page=2"
        assert wire.post("/api/traces/list/?page_size=3", {}).status_code == 400
        assert "https://traces.example.com/ui/keys" in wire.get("/api/traces/t0", key=None).text


def test_sorting(wire: Wire) -> None:
    costs = {"a": 0.3, "b": None, "c": 0.1}
    for n, (trace_id, cost) in enumerate(costs.items()):
        wire.ingest(wire.span(trace_id, ago_s=100 - n, log_type="chat", **({} if cost is None else {"cost": cost})))
    assert wire.list_ids() == ["c", "b", "a"]
    assert wire.list_ids("?sort_by=start_time") == ["a", "b", "c"]
    assert wire.list_ids("?sort_by=-total_cost") == ["a", "c", "b"], "unknown cost is last either way"
    assert wire.list_ids("?sort_by=total_cost") == ["c", "a", "b"]
    assert wire.list_ids("?sort_by=") == ["c", "b", "a"]


def test_lists_by_get_and_without_a_body(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    for answer in (
        wire.get("/api/traces/list/"),
        wire.get("/api/traces"),
        wire.post("/api/traces/list"),
        wire.post("/api/traces/list/", {"filters": {}, "something": "unknown"}),
        wire.post("/api/traces/list/", {"filters": None, "operator": None}),
    ):
        assert answer.status_code == 200, answer.text
        assert [each["id"] for each in answer.json()["results"]] == ["t1"]


def test_filters_narrow_a_list(wire: Wire) -> None:
    wire.ingest(
        wire.span("a", customer_identifier="u1", log_type="chat", cost=0.5, metadata={"plan": "pro"}),
        wire.span("b", customer_identifier="u2", log_type="chat", cost=0.001, status="error"),
        wire.span("c", customer_identifier="u3", log_type="chat", cost=0.001),
    )
    costly = {"total_cost": {"operator": "gt", "value": [0.01]}}
    failed = {"error_count": {"operator": "gt", "value": [0]}}
    assert wire.list_ids(filters=costly) == ["a"]
    assert sorted(wire.list_ids(filters={"customer_identifier": {"operator": "IN", "value": ["u1", "u2"]}})) == [
        "a",
        "b",
    ]
    assert wire.list_ids(filters={"metadata__plan": {"operator": "", "value": ["pro"]}}) == ["a"]
    either = wire.post("/api/traces/list/", {"filters": costly | failed, "operator": "OR"}).json()
    assert sorted(each["id"] for each in either["results"]) == ["a", "b"]
    assert wire.post("/api/traces/list/", {"filters": costly | failed, "operator": "AND"}).json()["count"] == 0


def test_the_environment_narrows_and_a_keys_environment_rules(wire: Wire) -> None:
    wire.ingest(wire.span("s", environment="staging"), wire.span("p", environment="prod"))
    assert wire.list_ids("?environment=staging") == ["s"]
    assert sorted(wire.list_ids("?environment=")) == ["p", "s"]
    bound = wire.key(KeyScope.READ, KeyScope.INGEST, environment="prod")
    wire.ingest(wire.span("written", environment="staging"), key=bound)
    assert sorted(wire.list_ids(key=bound)) == ["p", "written"]
    assert wire.get("/api/traces/s/", key=bound).status_code == 404
    assert wire.post("/api/traces/list/?environment=staging", {}, key=bound).status_code == 403
    anything = {"filters": {"environment": {"value": ["staging"]}, "span_count": {"operator": "gt", "value": [0]}}}
    loosened = wire.post("/api/traces/list/", anything | {"operator": "OR"}, key=bound).json()
    assert sorted(each["id"] for each in loosened["results"]) == ["p", "written"], "OR never leaves the scope"


def test_a_shared_trace_is_public_without_what_is_private(wire: Wire) -> None:
    wire.ingest(
        wire.span("t1", input="question", customer_identifier="u1", session_identifier="s1", metadata={"plan": "pro"}),
        wire.span("t1", "child", span_parent_id="t1-root", customer_identifier="u1", metadata={"plan": "pro"}),
    )
    org = wire.catalog.first_org.public_id
    address = f"/api/{org}/traces/t1/"
    assert wire.get(address, key=None).status_code == 404
    shared = wire.send("PATCH", "/api/traces/t1/", {"is_public": True})
    assert (shared.status_code, shared.json()) == (200, {"trace_unique_id": "t1", "is_public": True})
    for key in (None, "wrong-key"):
        public = wire.get(address, key=key)
        assert public.status_code == 200
        assert public.headers["x-robots-tag"] == "noindex"
        trace = public.json()
        assert trace["input"] == "question"
        assert trace["metadata"] == {}
        (root,) = trace["span_tree"]
        for item in (trace, root, *root["children"]):
            for field in ("customer_identifier", "session_identifier", "organization_key_id"):
                assert item[field] is None
        assert "u1" not in public.text
        assert wire.catalog.list_keys(wire.catalog.first_org.id)[0].public_id not in public.text
    assert wire.get("/api/org_of_somebody_else/traces/t1/", key=None).status_code == 404
    assert wire.get(f"/api/{org}/traces/t2/", key=None).status_code == 404
    wire.send("PATCH", "/api/traces/t1/", {"is_public": False})
    assert wire.get(address, key=None).status_code == 404


def test_ending_a_share_reaches_every_copy_the_key_may_see(wire: Wire) -> None:
    org = wire.catalog.first_org
    address = f"/api/{org.public_id}/traces/t1/"
    second, third = (wire.catalog.create_project(org.id, name) for name in ("second", "third"))
    keys = [wire.key(*KeyScope, project_ids=[project.id]) for project in (second, third)]
    wire.ingest(wire.span("t1", ago_s=900), key=keys[1])
    wire.send("PATCH", "/api/traces/t1/", {"is_public": True}, key=keys[1])
    wire.ingest(wire.span("t1", ago_s=600), key=keys[0])
    wire.send("PATCH", "/api/traces/t1/", {"is_public": True}, key=keys[0])
    wire.ingest(wire.span("t1", ago_s=60))  # the newest copy, and never shared
    default = wire.catalog.find_project(org.id, "default")
    assert default is not None
    both = wire.key(*KeyScope, project_ids=[default.id, second.id])
    wire.send("PATCH", "/api/traces/t1/", {"is_public": False}, key=both)
    assert wire.get(address, key=None).status_code == 200, "the third project is not this key's to change"
    wire.send("PATCH", "/api/traces/t1/", {"is_public": False})
    assert wire.get(address, key=None).status_code == 404


def test_sharing_needs_a_trace_and_a_plain_yes_or_no(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    assert wire.send("PATCH", "/api/traces/unknown/", {"is_public": True}).status_code == 404
    for body in ({}, {"is_public": "true"}, {"is_public": 1}, {"is_public": None}):
        refused = wire.send("PATCH", "/api/traces/t1/", body)
        assert refused.status_code == 400
        assert refused.json()["is_public"] == ["is_public must be true or false."]


def test_the_summary_adds_up_what_matches(wire: Wire) -> None:
    wire.ingest(
        wire.span("a", log_type="chat", cost=0.25, prompt_tokens=10, completion_tokens=5, status="error"),
        wire.span("b", log_type="chat", cost=0.5, prompt_tokens=1, completion_tokens=1),
        wire.span("c"),
    )
    answer = wire.post("/clickhouse/traces/summary/", {"filters": {}})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("message")
    assert body == {
        "total_cost": 0.75,
        "total_tokens": 17,
        "total_traces": 3,
        "average_latency": 1.0,
        "error_count": 1,
    }
    assert wire.post("/clickhouse/traces/summary", {"filters": {"error_count": {"value": [9]}}}).json() == {
        "total_cost": 0.0, "total_tokens": 0, "total_traces": 0, "average_latency": 0.0, "error_count": 0,
        "message": wire.post("/api/traces/list/", {}).json()["message"],
    }  # fmt: skip


def test_ids_are_found_in_every_spelling(wire: Wire) -> None:
    plain = "0af7651916cd43dd8448eb211c80319c"
    wire.ingest(wire.span(plain), wire.span("trace_ABC ünï"))
    for spelling in (plain, plain.upper(), "0af76519-16cd-43dd-8448-eb211c80319c"):
        assert wire.get(f"/api/traces/{spelling}/").json()["id"] == plain
    assert wire.get("/api/traces/trace_abc").status_code == 404


def test_another_tenant_changes_no_byte_of_what_one_sees(wire: Wire) -> None:
    def seen_by_first() -> list[str]:
        span = {"model": {"value": ["gpt-4o"]}}
        return [
            wire.post("/api/traces/list/", {}).text,
            wire.post("/api/traces/list/?sort_by=-total_cost&page_size=1", {"filters": span}).text,
            wire.post("/clickhouse/traces/summary/", {}).text,
            wire.get("/api/traces/t1/").text,
            wire.get("/api/traces/only-theirs/").text,
            wire.get(f"/api/{wire.catalog.first_org.public_id}/traces/t1/", key=None).text,
        ]

    wire.ingest(wire.span("t1", model="gpt-4o", cost=1, log_type="chat", input="mine"))
    alone = seen_by_first()
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    for trace_id in ("t1", "only-theirs"):
        wire.ingest(wire.span(trace_id, model="gpt-4o", cost=7, log_type="chat", input="theirs"), key=theirs)
    wire.send("PATCH", "/api/traces/t1/", {"is_public": True}, key=theirs)
    assert seen_by_first() == alone
    assert wire.send("DELETE", "/api/traces/t1/", key=theirs).json()["deleted_count"] == 1
    assert seen_by_first() == alone
    wire.ingest(wire.span("t1", "late", model="gpt-4o"))
    assert wire.get("/api/traces/t1/").json()["span_count"] == 2, "a tombstone binds its own tenant only"


HOSTILE = ["../list", "..%2f..%2fetc", "%252e%252e", "a%00b", "a;b", "//", "\\..\\", "x" * 300, "%ff", "a%0ab"]


def test_hostile_ids_are_never_more_than_unknown(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    for path in HOSTILE:
        for method in ("GET", "DELETE", "PATCH"):
            body = {"is_public": True} if method == "PATCH" else None
            answer = wire.send(method, f"/api/traces/{path}/", body)
            assert answer.status_code in (200, 400, 404, 405), (method, path)
            if answer.status_code == 200:
                assert answer.json().get("deleted_count", 0) == 0
    assert wire.list_ids() == ["t1"]
