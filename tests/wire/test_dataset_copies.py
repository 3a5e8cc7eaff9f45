"""Items of datasets go with the trace they were made from, whichever dialect deletes it."""

from __future__ import annotations

from typing import Any

import pytest
from langsmith_requests import run, run_id

from clearspan.catalog import KeyScope
from clearspan.testing.wire import Wire

POLICIES = ("erase", "redact", "detach")
WINDOW = "start_time=2026-11-01T00:00:00Z&end_time=2026-12-01T00:00:00Z"
COPIES = {"taken": 2, "not_covered": 0, "detached": 1, "redacted_items": 1, "of_trace": 0}


@pytest.fixture
def datasets(wire: Wire) -> dict[str, str]:
    """policy → a dataset with an item made from run 2, which is in session p."""
    assert wire.post("/runs/batch", {"post": [run(2), run(3)]}).status_code == 202
    made = {}
    for policy in POLICIES:
        answer = wire.post("/datasets", {"name": policy, "on_source_deleted": policy})
        made[policy] = str(answer.json()["id"])
        item = {"dataset_id": made[policy], "inputs": {"q": "needle"}, "source_run_id": run_id(2)}
        assert wire.post("/examples", item).status_code == 200
        assert wire.post("/examples", item | {"source_run_id": run_id(3), "inputs": {}}).status_code == 200
    return made


def sources(wire: Wire, dataset: str) -> list[Any]:
    """Of each item, what it was made from."""
    return sorted(str(each["source_run_id"]) for each in wire.get(f"/examples?dataset={dataset}").json())


@pytest.mark.parametrize("dialect", ["native", "respan", "respan one", "langsmith", "session", "phoenix", "project"])
def test_items_go_in_every_dialect_as_their_dataset_says(wire: Wire, datasets: dict[str, str], dialect: str) -> None:
    trace = run_id(2).replace("-", "")
    session = wire.get("/sessions?name=p").json()[0]["id"]
    whole = dialect in ("session", "project")  # of run 3, too: twice of everything
    if dialect == "native":
        told = wire.post("/v1/deletions/preview", {"trace_ids": [trace]}).json()
        assert (told["traces"]["matched"], told["copies"]) == (3, COPIES)
        assert sum(told["by_project"].values()) == 3
        assert len([name for name in told["by_project"] if name.startswith("dataset:")]) == 2
        body = {"plan_token": told["plan_token"], "expected_count": 3, "wait": "verified"}
        done = wire.post("/v1/deletions", body).json()
        assert (done["copies"], done["traces"]["hidden"], done["state"]) == (COPIES, 3, "verified")
        receipt = wire.get(f"/v1/deletions/{done['id']}/receipt").json()["payload"]
        assert receipt["scope"]["conditions"][1:] == ["copies:taken:2", "copies:detached:1", "copies:redacted:1"]
        assert receipt["traces"]["deleted"] == 3
    elif dialect == "respan":
        body = {"filters": {"trace_unique_id": {"operator": "=", "value": [trace]}}}
        told = wire.post(f"/api/traces/bulk/?{WINDOW}", body).json()
        assert (told["deleted_count"], told["copies"], told["copies_detached"]) == (3, 2, 1)
        assert told["copies_redacted_items"] == 1
        assert "1 dataset items made from them stay" in told["message"]
    elif dialect == "respan one":
        assert wire.send("DELETE", f"/api/traces/{trace}/").json()["copies"] == 2
    elif dialect == "langsmith":
        told = wire.post("/runs/delete", {"session_id": session, "trace_ids": [run_id(2)]}).json()
        assert (told["matched_count"], told["copies"]) == (3, COPIES)
    elif dialect == "phoenix":
        assert wire.send("DELETE", f"/v1/traces/{trace}").is_success
    elif dialect == "session":
        assert wire.send("DELETE", f"/sessions/{session}").json()["deleted_count"] == 6
    else:
        assert wire.send("DELETE", "/v1/projects/p").is_success
    other, redacted = ([], ["None"] * 2) if whole else ([run_id(3)], [run_id(3), "None"])
    assert sources(wire, datasets["erase"]) == other
    assert sources(wire, datasets["redact"]) == sorted(redacted)
    assert sources(wire, datasets["detach"]) == (["None"] * 2 if whole else [run_id(3), "None"])


@pytest.mark.parametrize("dialect", ["native", "phoenix"])
def test_items_go_with_the_span_they_were_made_from(wire: Wire, datasets: dict[str, str], dialect: str) -> None:
    """Run 2 has a child: what was made from run 2 may hold the child's text, and is only counted."""
    child = run(4, trace_id=run_id(2), parent_run_id=run_id(2), dotted_order=None)
    assert wire.post("/runs/batch", {"post": [child]}).status_code == 202
    item = {"dataset_id": datasets["redact"], "inputs": {"q": "needle"}, "source_run_id": run_id(4)}
    assert wire.post("/examples", item).status_code == 200
    span_id, copies = run_id(4).replace("-", ""), {"taken": 1, "not_covered": 0, "detached": 0, "redacted_items": 1}
    if dialect == "native":
        told = wire.post("/v1/deletions/preview", {"span_ids": [span_id]}).json()
        assert (told["traces"]["matched"], told["copies"]) == (2, copies | {"of_trace": 3})
        body = {"plan_token": told["plan_token"], "expected_count": 2, "wait": "verified"}
        done = wire.post("/v1/deletions", body).json()
    else:
        gone = wire.send("DELETE", f"/v1/spans/{span_id}")
        done = wire.get(f"/v1/deletions/{gone.headers['Clearspan-Deletion-Id']}").json()
    assert (done["kind"], done["copies"], done["state"]) == ("spans", copies | {"of_trace": 3}, "verified")
    receipt = wire.get(f"/v1/deletions/{done['id']}/receipt").json()["payload"]
    assert receipt["scope"]["conditions"][1:] == ["copies:taken:1", "copies:redacted:1", "copies:of_trace:3"]
    assert receipt["spans"]["deleted"] == 2
    assert sources(wire, datasets["redact"]) == sorted([run_id(2), run_id(3), "None"])
    assert sources(wire, datasets["erase"]) == sorted([run_id(2), run_id(3)])


def test_a_bound_key_counts_the_items_it_does_not_reach(wire: Wire, datasets: dict[str, str]) -> None:
    project = wire.catalog.find_project(wire.catalog.first_org.id, "p")
    assert project is not None
    mine = wire.key(KeyScope.DELETE, KeyScope.READ, project_ids=[project.id])
    told = wire.post("/v1/deletions", {"trace_ids": [run_id(2)], "wait": "verified"}, key=mine).json()
    assert (told["traces"]["hidden"], told["copies"]) == (
        1, {"taken": 0, "not_covered": 3, "detached": 0, "redacted_items": 0, "of_trace": 0},
    )  # fmt: skip
    assert all(len(sources(wire, each)) == 2 for each in datasets.values())


def test_a_session_with_a_dataset_is_an_experiment(wire: Wire, datasets: dict[str, str]) -> None:
    body = {"name": "run of it", "reference_dataset_id": datasets["erase"]}
    made = wire.post("/sessions", body).json()
    assert made["reference_dataset_id"] == datasets["erase"]
    [found] = wire.catalog.experiments.listed(wire.catalog.first_org.id)
    assert (found.uuid, found.managed) == (made["id"].replace("-", ""), False)
    names = {each["name"] for each in wire.get("/sessions").json()}
    assert names == {"default", "p", "run of it"}, "no dataset is a session"
    assert {each["name"] for each in wire.get("/v1/projects").json()["data"]} <= names
