"""Experiments beside their dataset: examples with the runs of sessions, classic and v2, and comparative experiments."""

from __future__ import annotations

import uuid
from typing import Any

from langsmith_requests import run, run_id

from clearspan.testing.wire import Wire

NOBODY = str(uuid.UUID(int=7))


def experiment(wire: Wire, dataset: str, name: str) -> str:
    answer = wire.post("/sessions", {"name": name, "reference_dataset_id": dataset, "num_examples": 3})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def result(wire: Wire, number: int, session: str, example: str, **fields: Any) -> None:
    said = run(number, session_name=session, reference_example_id=example, outputs={"a": number}, **fields)
    assert wire.post("/runs", said).status_code == 202


def planted(wire: Wire) -> tuple[str, list[str], list[str]]:
    """(dataset, its three examples, two experiments): A has two runs of the first and one of the second; B one that
    failed, of the first."""
    dataset = wire.post("/datasets", {"name": "ds"}).json()["id"]
    body = [{"dataset_id": dataset, "inputs": {"x": number}} for number in range(3)]
    examples = [each["id"] for each in wire.post("/examples/bulk", body).json()]
    sessions = [experiment(wire, dataset, name) for name in "AB"]
    result(wire, 1, "A", examples[0])
    result(wire, 2, "A", examples[0].replace("-", ""))
    result(wire, 3, "A", examples[1], end_time="2026-11-21T22:33:33+00:00")
    result(wire, 4, "B", examples[0], error="boom")
    wire.post("/runs", run(5, session_name="elsewhere", reference_example_id=examples[2]))
    return dataset, examples, sessions


def test_examples_come_with_the_runs_of_the_sessions_asked_for(wire: Wire) -> None:
    dataset, examples, (a, b) = planted(wire)

    def read(**body: Any) -> list[Any]:
        answer = wire.post(f"/datasets/{dataset}/runs", {"session_ids": [a, b], **body})
        assert answer.status_code == 200, answer.text
        return [(each["id"], [each["id"] for each in each["runs"]]) for each in answer.json()]

    first, second, third = examples
    ids = [run_id(number) for number in range(6)]
    assert read() == [(first, [ids[1], ids[2], ids[4]]), (second, [ids[3]]), (third, [])]
    assert read(session_ids=[b]) == [(first, [ids[4]]), (second, []), (third, [])]
    assert read(limit=1, offset=1) == [(second, [ids[3]])]
    assert read(example_ids=[third, NOBODY]) == [(third, [])]
    assert read(filters={b: ["eq(error, true)"]}) == [(first, [ids[1], ids[2], ids[4]])]
    assert read(filters={a: [f'eq(id, "{ids[3]}")'], b: []}) == [(second, [ids[3]])]
    [whole] = wire.post(f"/api/v1/datasets/{dataset}/runs", {"session_ids": [b], "limit": 1, "preview": True}).json()
    [told] = whole["runs"]
    assert (whole["inputs"], told["session_id"], told["error"]) == ({"x": 0}, b, "boom")
    assert told["reference_example_id"] == first
    assert "inputs" not in told
    assert told["outputs_preview"] == "4"


def test_v2_pages_them_with_a_cursor_and_chosen_properties(wire: Wire) -> None:
    dataset, examples, (a, b) = planted(wire)
    path = f"/api/v2/datasets/{dataset}/experiment-runs"
    body = {"experiment_ids": [a, b], "page_size": 2, "selects": ["OUTPUTS", "PROJECT_ID"]}
    page = wire.post(path, body).json()
    assert [each["id"] for each in page["items"]] == examples[:2]
    assert page["items"][1]["runs"] == [{"id": run_id(3), "outputs": {"a": 3}, "project_id": a}]
    rest = wire.post(path, body | {"cursor": page["next_cursor"]}).json()
    assert ([each["id"] for each in rest["items"]], rest["next_cursor"]) == (examples[2:], None)
    assert [sorted(each) for each in wire.post(path, {"experiment_ids": [a]}).json()["items"][0]["runs"]] == [
        ["id"]
    ] * 2


def test_what_is_wrong_is_told_in_the_words_of_its_api(wire: Wire) -> None:
    dataset, _, (a, b) = planted(wire)
    for body, status in (
        ({}, 422),
        ({"session_ids": [NOBODY]}, 404),
        ({"session_ids": [a], "filters": {b: ["eq(error, true)"]}}, 422),
        ({"session_ids": [a], "filters": {a: ["nonsense("]}}, 422),
        ({"session_ids": [a], "filters": {a: "eq(error, true)"}}, 422),
        ({"session_ids": [a], "sort_params": {"sort_by": "x"}}, 422),
    ):
        assert wire.post(f"/datasets/{dataset}/runs", body).status_code == status, body
    assert wire.post(f"/datasets/{NOBODY}/runs", {"session_ids": [a]}).status_code == 404
    assert wire.post(f"/datasets/{dataset}/runs?format=csv", {"session_ids": [a]}).status_code == 422
    refused = wire.post(f"/v2/datasets/{dataset}/experiment-runs", {"experiment_ids": [a], "cursor": "x"})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_deleting_an_example_takes_the_results_that_hold_it(wire: Wire) -> None:
    dataset, examples, (a, _) = planted(wire)
    told = wire.send("DELETE", f"/examples/{examples[0]}").json()
    assert (told["state"], told["deleted_count"]) == ("verified", 4)
    left = wire.post(f"/datasets/{dataset}/runs", {"session_ids": [a]}).json()
    assert [(each["id"], len(each["runs"])) for each in left] == [(examples[1], 1), (examples[2], 0)]
    assert wire.get(f"/runs/{run_id(1)}").status_code == 404


def test_comparative_experiments_are_named_listed_and_forgotten(wire: Wire) -> None:
    dataset, _, (a, b) = planted(wire)
    said = {"name": "pair", "experiment_ids": [a, b], "reference_dataset_id": dataset, "extra": {"metadata": {"k": 1}}}
    made = wire.post("/datasets/comparative", said).json()
    assert (made["name"], made["reference_dataset_id"], made["extra"]) == ("pair", dataset, {"metadata": {"k": 1}})
    assert [each["name"] for each in made["experiments_info"]] == ["A", "B"]
    assert wire.post("/datasets/comparative", said | {"id": made["id"]}).status_code == 409
    wire.send("PATCH", f"/datasets/{dataset}", {"metadata": {"m": 1}})
    assert wire.get(f"/datasets/{dataset}/comparative?name_contains=PAI").json() == [made]
    other = wire.post("/datasets", {"name": "other"}).json()["id"]
    for wrong in ({"experiment_ids": []}, {"experiment_ids": [NOBODY]}, {"reference_dataset_id": other}):
        assert wire.post("/datasets/comparative", said | wrong).status_code in (404, 422)
    assert wire.send("DELETE", f"/datasets/comparative/{made['id']}").status_code == 200
    assert wire.send("DELETE", f"/datasets/comparative/{made['id']}").status_code == 404
    assert wire.get(f"/datasets/{dataset}/comparative").json() == []
