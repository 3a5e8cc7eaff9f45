"""Sessions: made, listed, changed, with both stores behind them."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from clearspan.catalog import KeyScope
from clearspan.testing.wire import SECOND_NS, Wire, iso

ROOTS = ("", "/api/v1")


def make(wire: Wire, name: str, query: str = "", **body: Any) -> dict[str, Any]:
    answer = wire.post(f"/sessions{query}", {"name": name, **body})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def names(wire: Wire, query: str = "", **rest: Any) -> list[str]:
    answer = wire.get(f"/sessions{query}", **rest)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()]


def fill(wire: Wire, project: str, *spans: dict[str, Any]) -> None:
    """Store spans in a project, with a key of its own."""
    found = wire.catalog.find_project(wire.catalog.first_org.id, project)
    assert found is not None
    wire.ingest(*spans, key=wire.key(KeyScope.INGEST, project_ids=[found.id]))


@pytest.mark.parametrize("root", ROOTS)
def test_a_session_is_made_and_read(wire: Wire, root: str) -> None:
    uuid, dataset = str(uuid4()), str(uuid4())
    body = {
        "name": "p2",
        "id": uuid,
        "extra": {"metadata": {"k": "v"}},
        "description": "d",
        "reference_dataset_id": dataset,
        "num_examples": 0,
        "num_repetitions": 1,
        "start_time": "2026-01-01T12:00:00Z",
    }
    made = wire.post(f"{root}/sessions", body)
    assert made.status_code == 200, made.text
    told = made.json()
    assert {key: told[key] for key in body} == body | {"start_time": "2026-01-01T12:00:00+00:00"}
    assert UUID(told["tenant_id"])
    assert told["end_time"] is None
    for address in (uuid, uuid.replace("-", ""), uuid.upper()):
        assert wire.get(f"{root}/sessions/{address}?limit=1&include_stats=False").json() == told
    assert wire.get(f"{root}/sessions?limit=1&name=p2&include_stats=False").json() == [told]
    assert wire.get(f"{root}/sessions?name=nope").json() == []


def test_a_fresh_server_has_a_session(wire: Wire) -> None:
    [default] = wire.get("/sessions?limit=1").json()
    assert default["name"] == "default"
    assert "reference_dataset_id" in default


def test_a_name_is_taken_once_unless_it_is_an_upsert(wire: Wire) -> None:
    first = make(wire, "p2", extra={"metadata": {"k": "v"}}, description="d", num_examples=4)
    again = wire.post("/sessions", {"name": "p2", "extra": None, "description": None, "id": str(uuid4())})
    assert (again.status_code, again.json()) == (409, {"detail": "Session already exists."})
    upserted = make(wire, "p2", "?upsert=True", extra=None, description=None, id=str(uuid4()))
    assert upserted == first
    changed = make(wire, "p2", "?upsert=true", description="new", num_repetitions=2)
    assert changed == first | {"description": "new", "num_repetitions": 2}
    assert make(wire, "p3", "?upsert=True")["name"] == "p3"
    taken = wire.post("/sessions", {"name": "p4", "id": first["id"]})
    assert taken.status_code == 409


def test_upserts_at_once_make_one_session(wire: Wire) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(make(wire, "p", "?upsert=True")["id"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_null_changes_nothing_of_a_session(wire: Wire) -> None:
    made = make(wire, "p2", extra={"metadata": {"k": "v"}}, description="d")
    at = f"/sessions/{made['id']}"
    body = {"name": None, "extra": None, "description": "new", "end_time": None, "trace_tier": None}
    assert wire.send("PATCH", at, body).json() == made | {"description": "new"}
    ended = wire.send("PATCH", at, {"end_time": "2026-01-02T00:00:00", "name": "p3", "trace_tier": "longlived"}).json()
    assert (ended["end_time"], ended["name"], ended["trace_tier"]) == ("2026-01-02T00:00:00+00:00", "p3", "longlived")
    assert wire.send("PATCH", at, {"end_time": 1_767_225_600_000}).json()["end_time"] == "2026-01-01T00:00:00+00:00"
    assert wire.send("PATCH", at, {"name": "default"}).status_code == 409
    [default] = wire.get("/sessions?name=default").json()
    assert wire.send("PATCH", f"/sessions/{default['id']}", {"name": "x"}).status_code == 409
    assert wire.send("PATCH", f"/sessions/{default['id']}", {"description": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "id": "no"}, "id"),
        ({"name": "x", "extra": []}, "extra"),
        ({"name": "x", "start_time": "soon"}, "start_time"),
        ({"name": "x", "num_examples": -1}, "num_examples"),
        ({"name": "x", "evaluator_keys": [1]}, "evaluator_keys"),
        ({"name": "x", "trace_tier": "gold"}, "trace_tier"),
    ],
)
def test_a_session_that_cannot_be_is_refused_by_name(wire: Wire, body: dict[str, Any], field: str) -> None:
    answer = wire.post("/sessions", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert names(wire) == ["default"]


def test_unknown_sessions_are_404s(wire: Wire) -> None:
    for method, path in (
        ("GET", f"/sessions/{uuid4()}"), ("PATCH", f"/sessions/{uuid4()}"), ("DELETE", f"/sessions/{uuid4()}"),
        ("GET", f"/sessions/{uuid4()}/metadata"), ("DELETE", f"/sessions?session_ids={uuid4()}"),
    ):  # fmt: skip
        answer = wire.send(method, path, {} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Session not found."})
    assert wire.get("/sessions/no-uuid").status_code == 422


def test_lists_narrow_sort_and_page(wire: Wire) -> None:
    dataset = str(uuid4())
    for number, name in enumerate(("rec-b", "rec-a", "exp")):
        wire.clock.advance(1)
        more = {"reference_dataset_id": dataset} if name == "exp" else {}
        make(wire, name, extra={"metadata": {"n": number, "dataset_version": f"v{number}"}}, **more)
    assert names(wire) == ["exp", "rec-a", "rec-b", "default"]
    assert names(wire, "?sort_by=name&sort_by_desc=False") == ["default", "exp", "rec-a", "rec-b"]
    assert names(wire, "?name_contains=REC&sort_by_desc=false") == ["rec-b", "rec-a"]
    assert names(wire, "?reference_free=True") == ["rec-a", "rec-b", "default"]
    assert names(wire, "?reference_free=False") == ["exp"]
    assert names(wire, f"?reference_dataset={dataset}&reference_dataset={uuid4()}") == ["exp"]
    assert names(wire, f"?metadata={quote(json.dumps({'n': 1}))}") == ["rec-a"]
    assert names(wire, f"?metadata={quote(json.dumps({'n': True}))}") == ["rec-a"]
    assert names(wire, "?dataset_version=v2") == ["exp"]
    ids = {each["name"]: each["id"] for each in wire.get("/sessions").json()}
    assert names(wire, f"?id={ids['exp']}&id={ids['default']}&id={uuid4()}") == ["exp", "default"]
    assert names(wire, "?offset=1&limit=2") == ["rec-a", "rec-b"]
    page = wire.get("/sessions?offset=1&limit=2")
    assert page.headers["x-pagination-total"] == "4"
    for bad in ("limit=0", "limit=101", "offset=-1", "sort_by=luck", "include_stats=maybe", "metadata=5", "id=x",
                "filter=eq(name,'a')", "stats_filter=x", "sort_by=feedback"):  # fmt: skip
        assert wire.get(f"/sessions?{bad}").status_code == 422, bad


def test_values_of_metadata_are_counted(wire: Wire) -> None:
    made = make(wire, "chat")
    for number, user in enumerate(("ann", "bob", "ann")):
        fill(wire, "chat", wire.span(f"t{number}", metadata={"user": user, "plan": "free"}))
    wire.ingest(wire.span("elsewhere", metadata={"user": "eve"}))
    at = f"/sessions/{made['id']}/metadata"
    assert wire.get(at).json() == {"metadata": {"plan": ["free"], "user": ["ann", "bob"]}}
    assert wire.get(f"{at}?metadata_keys=user&k=1&root_runs_only=true").json() == {"metadata": {"user": ["ann"]}}
    later = quote(iso(wire.clock.now_ns() + SECOND_NS))
    assert wire.get(f"{at}?start_time={later}").json() == {"metadata": {}}


def test_addresses_are_resolved(wire: Wire) -> None:
    agent = wire.post("/api/v2/sessions", {"name": "helper", "type": "AGENT"}).json()
    experiment = make(wire, "exp", reference_dataset_id=str(uuid4()))
    evaluators = make(wire, "evaluators")
    for query, wanted in (
        ("kind=AGENT&id=helper", agent),
        (f"kind=experiment&id={experiment['id']}", experiment),
        ("kind=EVALUATOR", evaluators),
    ):
        assert wire.get(f"/api/v1/sessions/resolutions?{query}").json() == {"session_id": wanted["id"]}
    for query, status in (
        ("kind=AGENT&id=exp", 404), (f"kind=EXPERIMENT&id={agent['id']}", 404), ("kind=AGENT", 422), ("kind=X", 422),
    ):  # fmt: skip
        assert wire.get(f"/sessions/resolutions?{query}").status_code == status


@pytest.mark.parametrize("root", ["/api/v2", "/v2"])
def test_v2_says_the_same_in_its_own_words(wire: Wire, root: str) -> None:
    made = wire.post(f"{root}/sessions", {"name": "p", "trace_tier": "LONG_LIVED", "longlived_ttl_days": 9}).json()
    assert (made["type"], made["trace_tier"], made["longlived_ttl_days"]) == ("PROJECT", "LONG_LIVED", 9)
    at = f"{root}/sessions/{made['id']}"
    assert wire.get(at).json() == made
    assert wire.get(f"/sessions/{made['id']}").json()["trace_tier"] == "longlived"
    assert wire.send("PATCH", at, {"description": "d"}).json()["description"] == "d"
    missing = wire.get(f"{root}/sessions/{uuid4()}")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    for number in range(4):
        make(wire, f"q{number}")
    seen, cursor = [], ""
    while cursor is not None:
        page = wire.get(f"{root}/sessions?page_size=2{cursor and '&cursor='}{cursor}").json()
        seen += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["q3", "q2", "q1", "q0", "p", "default"]
    assert [each["name"] for each in wire.get(f"{root}/sessions?name_contains=Q1&type=PROJECT").json()["items"]] == [
        "q1"
    ]
    assert wire.get(f"{root}/sessions?type=X").status_code == 422


def test_tenants_and_bounds_keep_sessions_apart(wire: Wire) -> None:
    mine, other = make(wire, "mine"), make(wire, "other")
    project = wire.catalog.find_project(wire.catalog.first_org.id, "mine")
    assert project is not None
    bound = wire.key(*KeyScope, project_ids=[project.id])
    foreign = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    assert names(wire, key=bound) == ["mine"]
    assert names(wire, key=foreign) == ["default"]
    assert [each["name"] for each in wire.get("/api/v2/sessions", key=bound).json()["items"]] == ["mine"]
    for key, uuid in ((bound, other["id"]), (foreign, mine["id"])):
        assert names(wire, "?name=" + ("other" if key == bound else "mine"), key=key) == []
        for method, path in (
            ("GET", f"/sessions/{uuid}"), ("PATCH", f"/sessions/{uuid}"), ("DELETE", f"/sessions/{uuid}"),
            ("GET", f"/sessions/{uuid}/metadata"), ("GET", f"/api/v2/sessions/{uuid}"),
            ("GET", f"/sessions/resolutions?kind=EXPERIMENT&id={uuid}"),
        ):  # fmt: skip
            assert wire.send(method, path, {} if method == "PATCH" else None, key=key).status_code == 404, path
    for name in ("other", "new"):
        refused = wire.post("/sessions?upsert=true", {"name": name}, key=bound)
        assert (refused.status_code, refused.json()) == (403, {"detail": "This API key is bound to other projects."})
    assert wire.post("/sessions?upsert=true", {"name": "mine", "description": "d"}, key=bound).status_code == 200
    assert wire.post("/sessions", {"name": "mine"}, key=foreign).status_code == 200


def test_figures_are_those_of_the_session(wire: Wire) -> None:
    made = make(wire, "chat")
    call = {"log_type": "chat", "prompt_tokens": 3, "completion_tokens": 4, "cost": 0.25, "model": "m"}
    root = wire.span("t1", ago_s=20, prompt_tokens=3, completion_tokens=4)  # repeats what its child used
    fill(wire, "chat", root, wire.span("t1", "c1", ago_s=19, span_parent_id="t1-root", **call))
    fill(wire, "chat", wire.span("t2", ago_s=10, status_code=500, error_message="x"))
    wire.ingest(wire.span("elsewhere", ago_s=1))
    for answer in (
        wire.get(f"/sessions/{made['id']}?include_stats=True"),
        wire.get("/sessions?name=chat&include_stats=true"),
    ):
        told = answer.json()
        told = told[0] if isinstance(told, list) else told
        assert (told["run_count"], told["error_rate"]) == (2, 0.5)
        assert (told["latency_p50"], told["latency_p99"]) == (1.0, 1.0)
        assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (3, 4, 7)
        assert float(told["total_cost"]) == 0.25
        assert told["last_run_start_time"][:19] == iso(wire.clock.now_ns() - 10 * SECOND_NS)[:19]
        assert (told["feedback_stats"], told["session_feedback_stats"]) == ({}, {})
    since = quote(iso(wire.clock.now_ns() - 15 * SECOND_NS))
    assert wire.get(f"/sessions/{made['id']}?include_stats=1&stats_start_time={since}").json()["run_count"] == 1
    picked = wire.get("/sessions?name=chat&include_stats=1&stats_select=run_count").json()[0]
    assert picked["run_count"] == 2
    assert "latency_p50" not in picked
    make(wire, "empty")
    assert names(wire, "?sort_by=last_run_start_time") == ["default", "chat", "empty"]
    assert names(wire, "?sort_by=error_rate&sort_by_desc=false") == ["default", "chat", "empty"]
    empty = wire.get("/sessions?name=empty&include_stats=1").json()[0]
    assert (empty["run_count"], empty["error_rate"], empty["last_run_start_time"]) == (0, None, None)
