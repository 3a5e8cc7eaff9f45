"""v2's runs, traces and threads, the classic threads, and what the public reads by a link."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from langsmith_requests import run_id
from test_langsmith_runs import at, plant_foreign, project, query, tree

from clearspan.api.langsmith.run_views import COLUMNS, COLUMNS_V2
from clearspan.testing.wire import Wire

ROOTS_V2 = ("/api/v2", "/v2")


@pytest.fixture(autouse=True)
def planted(wire: Wire) -> None:
    tree(wire)


def v2(wire: Wire, path: str, root: str = "/api/v2", **body: Any) -> dict[str, Any]:
    answer = wire.post(f"{root}{path}", body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("root", ROOTS_V2)
def test_runs_by_v2(wire: Wire, root: str) -> None:
    mine = {"project_ids": [project(wire, "p")]}
    assert v2(wire, "/runs/query", root, **mine)["items"][0] == {"id": run_id(4)}, "ID alone unless selected"
    [model] = v2(wire, "/runs/query", root, **mine, run_type="LLM", selects=list(COLUMNS_V2))["items"]
    assert (model["run_type"], model["status"], model["total_cost"]) == ("LLM", "SUCCESS", 2.6e-6)
    assert (model["project_id"], model["latency_seconds"]) == (str(UUID(project(wire, "p"))), 1.0)
    assert model["prompt_token_details"] == {"raw": {"cache_read": 2}}
    assert "session_id" not in model
    page = v2(wire, "/runs/query", root, **mine, page_size=3)
    rest = v2(wire, "/runs/query", root, **mine, page_size=3, cursor=page["next_cursor"])
    assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
    assert [each["id"] for each in page["items"] + rest["items"]] == [run_id(n) for n in (4, 3, 2, 1)]
    assert [each["id"] for each in v2(wire, "/runs/query", **mine, has_error=True)["items"]] == [run_id(3)]
    assert v2(wire, "/runs/query", **mine, max_start_time=at(wire, 86_500))["items"] == []
    one = wire.get(
        f"{root}/runs/{run_id(3)}?project_id={project(wire, 'p')}&selects=ERROR_PREVIEW&selects=STATUS"
    ).json()
    assert one == {"id": run_id(3), "error_preview": "ValueError('x')", "status": "ERROR"}
    located = wire.get(f"{root}/runs/{run_id(3)}/url?project_id={project(wire, 'p')}&trace_id={run_id(1)}").json()[
        "url"
    ]
    assert f"/r/{run_id(3)}?trace_id={run_id(1)}" in located


def test_traces_by_v2(wire: Wire) -> None:
    mine = {"project_id": project(wire, "p"), "selects": ["NAME", "TOTAL_TOKENS", "TOTAL_COST"]}
    first, second = v2(wire, "/traces/query", **mine)["items"]
    assert (first["root_run"]["name"], second["root_run"]["name"]) == ("open", "chain")
    assert second["trace_aggregates"] == {"total_tokens": 4, "total_cost": 2.6e-6}
    [only] = v2(wire, "/traces/query", **mine, trace_ids=[run_id(1)], tree_filter="neq(error, null)")["items"]
    assert only == second
    at_trace = f"/api/v2/traces/{run_id(1)}/runs?project_id={project(wire, 'p')}&selects=NAME"
    assert [each["name"] for each in wire.get(at_trace).json()["items"]] == ["chain", "model", "tool"]
    filtered = wire.get(f"{at_trace}&filter=eq(run_type,%22llm%22)").json()["items"]
    assert [each["name"] for each in filtered] == ["model"]
    assert wire.get(f"{at_trace}&min_start_time={at(wire, 1)}").status_code == 422


def test_threads_by_v2(wire: Wire) -> None:
    mine = project(wire, "p")
    [thread] = v2(wire, "/threads/query", project_id=mine)["items"]
    assert (thread["thread_id"], thread["count"], thread["num_errored_turns"]) == ("th-1", 2, 0)
    assert (thread["first_trace_id"], thread["last_trace_id"]) == (run_id(1), run_id(4))
    assert (thread["total_tokens"], thread["total_cost"]) == (4, 2.6e-6)
    assert v2(wire, "/threads/query", project_id=mine, tree_filter="neq(error, null)")["items"][0]["count"] == 2
    assert v2(wire, "/threads/query", project_id=mine, filter='eq(name, "chain")')["items"][0]["count"] == 1
    turns = f"/api/v2/threads/th-1/traces?project_id={mine}&selects=TURN_NUMBER&selects=TRACE_ID&page_size=1"
    page = wire.get(turns).json()
    assert page["items"] == [{"turn_number": 1, "trace_id": run_id(1)}]
    assert wire.get(f"{turns}&cursor={page['next_cursor']}").json()["items"][0]["turn_number"] == 2
    stats = wire.get(f"/api/v2/threads/th-1/stats?session_id={mine}&selects=TURNS&selects=TOTAL_TOKENS").json()
    assert stats == {"turns": 2, "total_tokens": 4}
    every = v2(wire, "/threads/stats", project_id=mine, select=["THREAD_COUNT", "TRACE_COUNT", "LATENCY_P50"])
    assert every == {"thread_count": 1, "trace_count": 2, "latency_p50_seconds": 10.0}
    shared = wire.post("/api/v2/threads/th-1/share", {"project_id": mine})
    assert (shared.status_code, shared.headers["content-type"]) == (501, "application/problem+json")
    assert wire.get(f"/api/v2/threads/th-1/share?project_id={mine}").status_code == 404
    assert wire.send("DELETE", f"/api/v2/threads/th-1/share?project_id={mine}").status_code == 204


def test_threads_hold_still_while_they_are_paged(wire: Wire) -> None:
    for number in range(5):
        wire.ingest(wire.span(f"t{number}", thread_identifier=f"th-{number % 3}-{number}", ago_s=20 + number))
    seen, cursor = [], None
    while True:
        body = {"project_id": project(wire, "default"), "page_size": 2, "cursor": cursor}
        page = v2(wire, "/threads/query", **body)
        seen += [each["thread_id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 5


def test_classic_threads(wire: Wire) -> None:
    body = {"session_id": project(wire, "p"), "group_by": "conversation"}
    told = wire.post("/runs/group", body).json()
    assert told["total"] == 1
    [group] = told["groups"]
    assert (group["group_key"], group["count"], group["total_cost"]) == ("th-1", 2, "0.0000026")
    assert len(query(wire, filter=group["filter"])) == 2
    preview = wire.get(f"/runs/threads/th-1?session_id={project(wire, 'p')}").json()
    assert preview["thread_id"] == "th-1"
    assert preview["previews"]["all_messages"].startswith("human: 1")
    assert wire.get("/runs/threads/nothing").status_code == 404


def test_what_v2_has_elsewhere_is_declined_in_words(wire: Wire) -> None:
    mine = {"project_ids": [project(wire, "p")]}
    for body in ({"ai_search": "x"}, {"sem_filter": "x"}, {"include_subtree_usage": True}):
        answer = wire.post("/api/v2/runs/query", {**mine, **body})
        assert (answer.status_code, answer.json()["status"]) == (501, 501)
        assert next(iter(body)) in answer.json()["detail"]
    stream = wire.post("/api/v2/runs/query", mine, headers={"Accept": "text/event-stream"})
    assert (stream.status_code, stream.headers["content-type"]) == (406, "application/problem+json")
    for body in ({}, {**mine, "reference_dataset_id": str(uuid4())}, {**mine, "page_size": 1001}):
        answer = wire.post("/api/v2/runs/query", body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert wire.post("/api/v2/runs/query", {"reference_dataset_id": str(uuid4())}).status_code == 404
    assert wire.get(f"/api/v2/runs/{run_id(1)}").status_code == 422


def share(wire: Wire, run: str) -> str:
    token = str(uuid4())
    assert wire.send("PUT", f"/runs/{run}/share", {"share_token": token}).status_code == 200
    return token


PRIVATE = ("u1", "th-1", '"k"', "key_")


def test_the_public_sees_what_a_trace_did_and_not_whose_it_is(wire: Wire) -> None:
    token = share(wire, run_id(2))
    source = {"type": "api", "metadata": {"by": "u1"}}
    body = {"run_id": run_id(2), "key": "kk", "score": 1, "comment": "good", "feedback_source": source}
    assert wire.post("/feedback", body).status_code == 200
    root = wire.get(f"/public/{token}/run", key=None)
    assert (root.json()["id"], root.json()["outputs"], root.json()["extra"]) == (run_id(1), {"a": 1}, {})
    model = wire.get(f"/api/v1/public/{token}/run/{run_id(2)}", key=None)
    assert model.json()["total_cost"] == "0.0000026"
    listed = wire.post(f"/public/{token}/runs/query", {"select": list(COLUMNS)}, key=None)
    assert {each["id"] for each in listed.json()["runs"]} == {run_id(n) for n in (1, 2, 3)}
    [one] = wire.post(f"/public/{token}/runs/query", {"id": [run_id(3), run_id(4)]}, key=None).json()["runs"]
    assert one["id"] == run_id(3), "of the shared trace only"
    second = wire.post(f"/api/v2/public/{token}/runs/query", {"selects": list(COLUMNS_V2)}, key=None)
    assert [each["name"] for each in second.json()["items"]] == ["chain", "model", "tool"]
    selects = "&".join(f"selects={name}" for name in COLUMNS_V2)
    by_id = wire.get(f"/v2/public/{token}/run/{run_id(1)}?start_time={at(wire, 60)}&{selects}", key=None)
    said = wire.get(f"/public/{token}/feedbacks", key=None)
    assert [(each["key"], each["comment"], each["run_id"]) for each in said.json()] == [("kk", "good", run_id(2))]
    for answer in (root, model, listed, second, by_id, said):
        assert answer.status_code == 200
        assert answer.headers["x-robots-tag"] == "noindex"
        assert [word for word in PRIVATE if word in answer.text] == []
        assert project(wire, "p") not in answer.text.replace("-", "")
    for text in ('eq(metadata_value, "u1")', 'eq(thread_id, "th-1")', 'search("u1")', 'has(tags, "t1")'):
        assert wire.post(f"/public/{token}/runs/query", {"filter": text}, key=None).status_code == 422, text
    assert wire.post(f"/public/{token}/runs/query", {"query": "u1"}, key=None).status_code == 422
    ok = wire.post(f"/public/{token}/runs/query", {"filter": 'eq(run_type, "llm")'}, key=None).json()["runs"]
    assert [each["id"] for each in ok] == [run_id(2)]
    assert wire.get(f"/public/{token}/run/{run_id(4)}", key=None).status_code == 404


def test_a_link_is_dead_at_once_when_its_trace_is_hidden_or_it_is_ended(wire: Wire) -> None:
    first, second = share(wire, run_id(1)), share(wire, run_id(4))
    wire.send("DELETE", f"/runs/{run_id(4)}/share")
    deleted = wire.send("DELETE", f"/api/traces/{run_id(1).replace('-', '')}/")
    assert deleted.status_code == 200
    for token in (first, second, str(uuid4())):
        for answer in (
            wire.get(f"/public/{token}/run", key=None),
            wire.get(f"/public/{token}/run/{run_id(1)}", key=None),
            wire.post(f"/public/{token}/runs/query", {}, key=None),
            wire.post(f"/public/{token}/runs/query", {"id": [run_id(1)]}, key=None),
            wire.get(f"/public/{token}/feedbacks", key=None),
            wire.post(f"/api/v2/public/{token}/runs/query", {"selects": ["NAME"]}, key=None),
            wire.get(f"/api/v2/public/{token}/run/{run_id(1)}", key=None),
        ):
            assert answer.status_code == 404, answer.text


def test_foreign_traces_are_shared_and_threaded_too(wire: Wire) -> None:
    otlp, respan, _ = plant_foreign(wire)
    for trace_id in (otlp, respan):
        token = share(wire, trace_id)
        assert wire.get(f"/public/{token}/run", key=None).json()["id"] == trace_id
        runs = wire.get(f"/api/v2/traces/{trace_id}/runs?project_id={project(wire, 'default')}").json()["items"]
        assert len(runs) == 3
    [thread] = v2(wire, "/threads/query", project_id=project(wire, "default"))["items"]
    assert (thread["thread_id"], thread["last_trace_id"]) == ("th-1", otlp)
