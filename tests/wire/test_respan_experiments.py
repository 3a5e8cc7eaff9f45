"""Experiments over Respan's API: made by bodies old and new, run, listed, changed, resumed and removed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.wire.respan_experiments import (
    ALL,
    DUPLICATE,
    add_items,
    add_result,
    add_score,
    ask,
    make_dataset,
    make_evaluator,
    make_experiment,
    org_id,
)

from clearspan.catalog import KeyScope
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import ExperimentStatus
from clearspan.experiments.items import NewItem
from clearspan.testing.wire import SECOND_NS, Wire, iso

pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)
WAIT_S = 20.0
WAIT = [{"type": "wait", "config": {}}]


@pytest.fixture
def dataset(wire: Wire) -> Dataset:
    made = make_dataset(wire)
    add_items(wire, made, *[NewItem({"q": n}, {"a": n}) for n in range(3)])
    return made


def wait_for(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return found


def body(dataset: Dataset, **said: Any) -> dict[str, Any]:
    return {"dataset_id": str(uuid.UUID(dataset.uuid)), "workflow": DUPLICATE, "evaluator_ids": ["accuracy"], **said}


def create(wire: Wire, said: dict[str, Any], **rest: Any) -> dict[str, Any]:
    answer = wire.post(ALL, said, **rest)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def read(wire: Wire, experiment_id: str) -> dict[str, Any]:
    answer = wire.get(f"{ALL}{experiment_id}/")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ended(wire: Wire, experiment_id: str) -> dict[str, Any]:
    def look() -> Any:
        told = read(wire, experiment_id)
        return told if told["status"] in ("completed", "failed", "cancelled") else None

    return dict(wait_for(look))


def test_an_experiment_runs_and_shows_its_results(wire: Wire, dataset: Dataset) -> None:
    evaluator_id = make_evaluator(wire, "accuracy", "boolean")
    made = create(wire, body(dataset, name="first", description="d", concurrency=4, evaluator_ids=[evaluator_id]))
    assert (made["name"], made["description"], made["concurrency"], made["batch_size"]) == ("first", "d", 4, 100)
    assert made["dataset"] == made["dataset_id"] == str(uuid.UUID(dataset.uuid))
    assert (made["dataset_name"], made["workflow_count"], made["workflow"]) == ("questions", 1, DUPLICATE)
    assert (made["evaluator_ids"], made["evaluator_slugs"]) == ([evaluator_id], ["accuracy"])
    assert (made["enable_tracing"], made["span_workflow_name"], made["is_managed"]) == (True, "workflow", True)
    assert made["status"] in ("pending", "running", "completed")
    done = ended(wire, made["id"])
    assert (done["status"], done["progress"], done["error_message"]) == ("completed", 100.0, None)
    assert done["created_at"] <= done["started_at"] <= done["completed_at"]
    page = ask(wire, made["id"], "logs/list/")
    assert page["count"] == 3
    assert all(json.loads(each["output"]) == json.loads(each["expected_output"]) for each in page["results"])
    progress = wire.get(f"{ALL}{made['id']}/progress/").json()
    assert (progress["total"], progress["done"], progress["percent"], progress["status"]) == (3, 3, 100.0, "completed")


def test_bodies_of_the_oldest_clients_are_understood(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    old = {"dataset_id": dataset.uuid, "name": "old", "evaluator_slugs": ["accuracy"]}
    settings = {"allow_submission": True, "timeout_hours": 24}
    for steps in ([{"type": "custom", "config": settings}], [{"type": "custom", "config": {}, **settings}]):
        made = create(wire, old | {"workflows": steps})
        assert made["workflow"] == made["workflows"] == [{"type": "wait", "config": settings}]
        assert made["evaluator_slugs"] == ["accuracy"]
    plain = {"dataset_id": dataset.uuid, "name": "unscored", "workflows": [{"type": "custom"}]}
    assert create(wire, plain)["evaluator_ids"] == []
    legacy = [*DUPLICATE, {"type": "evaluator", "config": {"evaluator_id": "accuracy"}}]
    assert create(wire, {"dataset_id": dataset.uuid, "workflow": legacy})["workflow"][1]["type"] == "eval"


def test_ids_count_before_slugs_and_workflows_exclude_both(wire: Wire, dataset: Dataset) -> None:
    first, second = make_evaluator(wire, "accuracy"), make_evaluator(wire, "tone")
    made = create(wire, body(dataset, evaluator_ids=[first], evaluator_slugs=["tone"]))
    assert made["evaluator_slugs"] == ["accuracy"]
    made = create(wire, body(dataset, evaluator_ids=None, evaluator_workflow_ids=[second]))
    assert (made["evaluator_workflow_ids"], made["evaluator_slugs"]) == ([second], ["tone"])


def test_what_is_wrong_with_a_body_is_named_and_nothing_is_made(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    good = body(dataset)
    cases: list[tuple[dict[str, Any], str, int]] = [
        ({key: value for key, value in good.items() if key != "dataset_id"}, "dataset_id", 400),
        ({key: value for key, value in good.items() if key != "workflow"}, "workflow", 400),
        ({key: value for key, value in good.items() if key != "evaluator_ids"}, "evaluator_ids", 400),
        (good | {"dataset_id": "nope"}, "dataset_id", 400),
        (good | {"experiment_id": "x" * 256}, "experiment_id", 400),
        (good | {"experiment_id": "a\0b"}, "experiment_id", 400),
        (good | {"experiment_id": ".."}, "experiment_id", 400),
        (good | {"dataset_id": str(uuid.uuid4())}, "dataset_id", 404),
        (good | {"workflow": []}, "workflow", 400),
        (good | {"workflow": [{"type": "fly", "config": {}}]}, "workflow[0].type", 400),
        (good | {"evaluator_ids": ["nobody"]}, "evaluator_ids", 400),
        (good | {"evaluator_ids": "accuracy"}, "evaluator_ids", 400),
        (good | {"evaluator_workflow_ids": ["accuracy"]}, "evaluator_workflow_ids", 400),
        (good | {"batch_size": 0}, "batch_size", 400),
        (good | {"concurrency": "4"}, "concurrency", 400),
        (good | {"concurrency": 257}, "concurrency", 400),
        (good | {"enable_tracing": "yes"}, "enable_tracing", 400),
        (good | {"name": 7}, "name", 400),
        (good | {"experiment_id": "list"}, "experiment_id", 400),
        (good | {"experiment_id": "a/b"}, "experiment_id", 400),
        (good | {"concurency": 4}, "concurency", 400),
    ]
    for said, key, status in cases:
        answer = wire.post(ALL, said)
        assert (answer.status_code, key in answer.json()) == (status, True), (said, answer.text)
    assert wire.post(f"{ALL}summary/", {}).json() == {"total_count": 0}


def test_names_get_numbers_and_ids_may_be_chosen_once(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    names = [create(wire, body(dataset, name="nightly"))["name"] for _ in range(3)]
    assert names == ["nightly", "nightly (2)", "nightly (3)"]
    assert create(wire, body(dataset))["name"].startswith("questions 20")
    made = create(wire, body(dataset, experiment_id="mine"))
    assert made["id"] == "mine"
    answer = wire.post(ALL, body(dataset, experiment_id="mine"))
    assert (answer.status_code, "experiment_id" in answer.json()) == (409, True)


def test_put_and_patch_change_what_is_given_and_nothing_that_made_results(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    experiment_id = create(wire, body(dataset, name="a", description="d", experiment_id="mine"))["id"]
    ended(wire, experiment_id)
    said = {"dataset_id": str(uuid.UUID(dataset.uuid)), "name": "b"}
    told = wire.send("PUT", f"{ALL}{experiment_id}/", said).json()
    assert (told["name"], told["description"]) == ("b", "d")
    told = wire.send("PATCH", f"{ALL}{experiment_id}/", {"name": "c", "tags": ["x"], "concurrency": 2}).json()
    assert (told["name"], told["tags"], told["concurrency"]) == ("c", [{"name": "x"}], 2)
    assert wire.send("PATCH", f"{ALL}{experiment_id}/", body(dataset, name="c")).status_code == 200, "nothing is new"
    other = make_dataset(wire, "other")
    for said, key in (
        ({"workflow": WAIT}, "workflow"),
        ({"evaluator_ids": [make_evaluator(wire, "tone")]}, "evaluator_ids"),
        ({"dataset_id": other.uuid}, "dataset_id"),
        ({"status": "cancelled"}, "status"),
    ):
        answer = wire.send("PATCH", f"{ALL}{experiment_id}/", {"name": "z", **said})
        assert (answer.status_code, key in answer.json()) == (400, True), answer.text
    assert read(wire, experiment_id)["name"] == "c"
    assert wire.send("PATCH", f"{ALL}nobody/", {"name": "z"}).status_code == 404


def test_lists_are_filtered_sorted_and_paged(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    other = make_dataset(wire, "other")
    statuses = (ExperimentStatus.COMPLETED, None, ExperimentStatus.COMPLETED)
    for number, status in enumerate(statuses):
        wire.clock.advance(10)
        named = dataset if number else other
        make_experiment(
            wire, named, f"run {number}", status=status, public_id=f"e{number}", tags=[{"name": f"t{number}"}]
        )
    now = wire.clock.now_ns()
    cases: list[tuple[Any, list[str]]] = [
        (None, ["e2", "e1", "e0"]),
        ({"status": {"operator": "", "value": ["completed"]}}, ["e2", "e0"]),
        ({"status": {"operator": "not", "value": ["completed"]}}, ["e1"]),
        ({"name": {"operator": "contains", "value": ["run"]}}, ["e2", "e1", "e0"]),
        ({"name": {"operator": "endswith", "value": ["1"]}}, ["e1"]),
        ({"id": {"operator": "in", "value": ["e0", "e2", "e9"]}}, ["e2", "e0"]),
        ({"dataset_id": {"value": [str(uuid.UUID(other.uuid))]}}, ["e0"]),
        ({"dataset_id": {"operator": "not", "value": [other.uuid]}}, ["e2", "e1"]),
        ({"dataset_name": {"value": ["other"]}}, ["e0"]),
        ({"created_at": {"operator": "gte", "value": [iso(now - 10 * SECOND_NS)]}}, ["e2", "e1"]),
        ({"completed_at": {"operator": "isnull", "value": [True]}}, ["e1"]),
        ({"tags": {"value": ["t1", "t2"]}}, ["e2", "e1"]),
        ({"tags": {"operator": "not_in", "value": ["t1"]}}, ["e2", "e0"]),
        ({"workflow_count": {"operator": "gt", "value": [1]}}, []),
        ([{"field": "status", "operator": "=", "value": "completed"}, {"field": "name", "value": "run 0"}], ["e0"]),
        ({"g": {"connector": "OR", "filter_params": {"name": {"value": "run 1"}, "tags": {"value": "t0"}}}},
         ["e1", "e0"]),
    ]  # fmt: skip
    for filters, expected in cases:
        said = {} if filters is None else {"filters": filters}
        page = wire.post(f"{ALL}list/", said).json()
        assert ([each["id"] for each in page["results"]], page["count"]) == (expected, len(expected)), filters
        assert wire.post(f"{ALL}summary/", said).json() == {"total_count": len(expected)}
    for sort_by, expected in (("created_at", ["e0", "e1", "e2"]), ("-name", ["e2", "e1", "e0"]),
                              ("completed_at", ["e0", "e2", "e1"]), ("-completed_at", ["e2", "e0", "e1"])):  # fmt: skip
        page = wire.get(f"{ALL}list/?sort_by={sort_by}").json()
        assert [each["id"] for each in page["results"]] == expected, sort_by
    second = wire.post(f"{ALL}list/?page=2&page_size=2", {}).json()
    assert ([each["id"] for each in second["results"]], second["count"], second["next"]) == (["e0"], 3, None)
    past = wire.post(f"{ALL}list/?page=3&page_size=2", {}).json()
    assert (past["results"], past["count"], past["current_filters"]) == ([], 3, {})
    assert [each["id"] for each in wire.get(f"{ALL}?page_size=2").json()] == ["e2", "e1"], "a bare array"
    for filters, key in (({"nope": {"value": [1]}}, "nope"), ({"status": {"value": ["odd"]}}, "status")):
        for part in ("list/", "summary/"):
            answer = wire.post(f"{ALL}{part}", {"filters": filters})
            assert (answer.status_code, key in answer.json()) == (400, True), answer.text
    assert wire.get(f"{ALL}list/?sort_by=tags").status_code == 400
    assert wire.get(f"{ALL}summary/").json() == {"total_count": 3}


def test_an_experiment_of_a_langsmith_client_is_one_here(wire: Wire, dataset: Dataset) -> None:
    uuid_ = str(uuid.uuid4())
    said = {"id": uuid_, "name": "evaluated", "reference_dataset_id": str(uuid.UUID(dataset.uuid))}
    assert wire.post("/sessions", said).status_code == 200
    (listed,) = wire.post(f"{ALL}list/", {}).json()["results"]
    assert (listed["id"], listed["is_managed"], listed["progress"]) == (uuid_, False, None)
    assert listed["dataset_name"] == "questions"
    told = read(wire, uuid_)
    assert (told["workflow"], told["session_id"]) == ([], uuid_)
    made = wire.catalog.experiments.find(org_id(wire), uuid_)
    assert made is not None
    trace_id = add_result(wire, made, 1, item=wire.services.items.list(dataset).items[0])
    add_score(wire, 1, "correct", score=1)
    (result,) = ask(wire, uuid_, "logs/list/")["results"]
    assert (result["id"], result["expected_output"]) == (trace_id, '{"a":0}')
    assert result["scores"]["correct"]["numerical_value"] == 1.0
    assert wire.send("PATCH", f"{ALL}{uuid_}/", {"name": "renamed"}).json()["name"] == "renamed"
    for method, part, body_ in (
        ("PATCH", f"logs/{trace_id}/", {"input": 1, "output": 2}), ("POST", "cancel/", None), ("POST", "retry/", None),
        ("POST", "start/", None),
        ("GET", "progress/", None), ("PATCH", "", {"workflow": WAIT, "evaluator_ids": []}),
    ):  # fmt: skip
        assert wire.send(method, f"{ALL}{uuid_}/{part}", body_).status_code == 400, part
    assert wire.send("DELETE", f"{ALL}{uuid_}/").status_code == 204
    assert wire.get("/sessions").json() == [] or all(each["id"] != uuid_ for each in wire.get("/sessions").json())


def test_a_langsmith_client_that_is_through_or_silent_has_completed(wire: Wire, dataset: Dataset) -> None:
    reference = {"reference_dataset_id": str(uuid.UUID(dataset.uuid))}
    made = [wire.post("/sessions", {"name": name, **reference}).json()["id"] for name in ("said", "silent", "empty")]
    experiments = [wire.catalog.experiments.find(org_id(wire), each) for each in made]
    assert experiments[0] is not None and experiments[1] is not None  # noqa: PT018
    add_result(wire, experiments[0], 1)
    add_result(wire, experiments[1], 2, ago_s=10)

    def told() -> list[tuple[str, str | None]]:
        listed = wire.post(f"{ALL}list/", {}).json()["results"]
        by_id = {each["id"]: (each["status"], each["completed_at"]) for each in listed}
        assert [by_id[each] for each in made] == [
            (now["status"], now["completed_at"]) for now in (read(wire, each) for each in made)
        ]
        return [by_id[each] for each in made]

    assert told() == [("running", None)] * 3
    closing = {"extra": {"metadata": {"num_repetitions": 1, "dataset_version": None, "dataset_splits": ["base"]}}}
    assert wire.send("PATCH", f"/sessions/{made[0]}", {"end_time": None, **closing}).json()["end_time"] is None
    closed_at = iso(wire.clock.now_ns())
    wire.clock.advance(3_000)
    assert wire.send("PATCH", f"/sessions/{made[0]}", closing).status_code == 200
    states = told()
    assert [status for status, _ in states] == ["completed", "running", "running"]
    assert states[0][1] is not None
    assert states[0][1][:19] == closed_at[:19], "the first time stays"
    wire.clock.advance(660)
    filters = {"status": {"operator": "=", "value": ["running"]}}
    assert [status for status, _ in told()] == ["completed"] * 3, "nothing came for an hour"
    assert wire.post(f"{ALL}summary/", {"filters": filters}).json() == {"total_count": 0}
    add_result(wire, experiments[1], 3, ago_s=5)
    assert [status for status, _ in told()] == ["completed", "running", "completed"], "it goes on after all"


def test_a_waiting_trace_takes_its_result_once(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    experiment_id = create(wire, body(dataset, workflow=WAIT))["id"]
    pending = {"status": {"value": ["pending"]}}
    wait_for(lambda: ask(wire, experiment_id, "logs/list/", pending)["count"] == 3)
    trace = ask(wire, experiment_id, "logs/list/", pending)["results"][0]
    path = f"{ALL}{experiment_id}/logs/{trace['id']}/"
    for said, key in (
        ({"input": 1}, "output"), ({"output": 1}, "input"), ({"input": 1, "output": 1, "metrics": [1]}, "metrics"),
        ({"input": 1, "output": 1, "metrics": {"cost": "x"}}, "metrics"),
        ({"input": 1, "output": 1, "metadata": 3}, "metadata"),
        ({"input": 1, "output": 1, "metadata": {"experiment_superseded": "1"}}, "metadata"),
        ({"input": 1, "output": 1, "metadata": {"_reference_example_id": "1"}}, "metadata"),
    ):  # fmt: skip
        answer = wire.send("PATCH", path, said)
        assert (answer.status_code, key in answer.json()) == (400, True), answer.text
    said = {"input": {"q": "own"}, "output": {"a": "own"}, "metrics": {"cost": 0.01, "prompt_tokens": 7},
            "metadata": {"src": "ext"}}  # fmt: skip
    answer = wire.send("PATCH", path, said)
    assert answer.json() == {"id": trace["id"], "trace_unique_id": trace["id"], "status": "success"}
    found = wire.get(path).json()
    assert (json.loads(found["output"]), found["status"], found["metadata"]["src"]) == ({"a": "own"}, "success", "ext")
    assert (found["total_cost"], found["total_prompt_tokens"]) == (0.01, 7)
    again = wire.send("PATCH", path, said)
    assert (again.status_code, again.json()["code"]) == (400, "trace_not_waiting")
    assert wire.send("PATCH", f"{ALL}{experiment_id}/logs/{uuid.uuid4().hex}/", said).status_code == 404
    assert ask(wire, experiment_id, "logs/list/", pending)["count"] == 2
    assert wire.post(f"{ALL}{experiment_id}/cancel/").json()["status"] == "cancelled"
    assert wire.post(f"{ALL}{experiment_id}/cancel/").status_code == 200, "a repeat is harmless"


def test_a_cancelled_experiment_is_started_again_and_goes_on(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    experiment_id = create(wire, body(dataset, workflow=WAIT))["id"]
    path = f"{ALL}{experiment_id}/"
    pending = {"status": {"value": ["pending"]}}
    wait_for(lambda: ask(wire, experiment_id, "logs/list/", pending)["count"] == 3)
    ids = sorted(each["id"] for each in ask(wire, experiment_id, "logs/list/")["results"])
    assert wire.post(f"{path}cancel/").json()["status"] == "cancelled"
    said = {"input": 1, "output": 2}
    assert wire.send("PATCH", f"{path}logs/{ids[0]}/", said).json()["code"] == "experiment_cancelled"
    assert wire.post(f"{path}retry/").json()["code"] == "experiment_cancelled"
    assert wire.post(f"{path}start/").status_code == 200
    wait_for(lambda: read(wire, experiment_id)["status"] == "running")
    for trace_id in ids:
        assert wire.send("PATCH", f"{path}logs/{trace_id}/", said).json()["status"] == "success"
    done = ended(wire, experiment_id)
    assert done["status"] == "completed"
    assert wire.post(f"{path}start/").json()["status"] == "completed", "nothing is left to do"
    assert read(wire, experiment_id)["completed_at"] == done["completed_at"]
    assert sorted(each["id"] for each in ask(wire, experiment_id, "logs/list/")["results"]) == ids
    assert wire.post(f"{path}start/", key=wire.key(KeyScope.READ)).status_code == 403
    assert wire.post(f"{ALL}nobody/start/").status_code == 404


def test_removing_an_experiment_is_a_deletion_with_a_receipt(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    made = create(wire, body(dataset, name="gone soon"))
    ended(wire, made["id"])
    trace_id = ask(wire, made["id"], "logs/list/")["results"][0]["id"]
    answer = wire.send("DELETE", f"{ALL}{made['id']}/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["clearspan-deletion-state"] == "verified"
    deletion = wire.get(answer.headers["location"]).json()
    assert deletion["id"] == answer.headers["clearspan-deletion-id"]
    receipt = wire.get(f"{answer.headers['location']}/receipt")
    assert "project:removed:1" in receipt.text
    for path in (f"{ALL}{made['id']}/", f"{ALL}{made['id']}/logs/{trace_id}/", f"/api/traces/{trace_id}/"):
        assert wire.get(path).status_code == 404
    assert wire.post(f"{ALL}summary/", {}).json() == {"total_count": 0}
    assert wire.services.items.list(dataset).total == 3, "the dataset stays"
    assert create(wire, body(dataset, name="gone soon"))["name"] == "gone soon", "the name is free"
    assert wire.send("DELETE", f"{ALL}{made['id']}/").status_code == 404


def test_a_held_experiment_is_not_removed_and_runs_on(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    made = create(wire, body(dataset, workflow=WAIT, name="held"))
    wait_for(lambda: ask(wire, made["id"], "logs/list/")["count"] == 3)
    ids = [each["id"] for each in ask(wire, made["id"], "logs/list/")["results"]]
    hold = wire.post("/v1/holds", {"trace_ids": ids, "reason": "court"})
    assert hold.status_code in (200, 201), hold.text
    answer = wire.send("DELETE", f"{ALL}{made['id']}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "held")
    assert ask(wire, made["id"], "logs/list/")["count"] == 3
    assert read(wire, made["id"])["status"] in ("pending", "running")


def test_keys_see_and_do_what_they_may(wire: Wire, dataset: Dataset) -> None:
    make_evaluator(wire, "accuracy")
    experiment = make_experiment(wire, dataset, "mine")
    add_result(wire, experiment, 0)
    project = wire.catalog.create_project(org_id(wire), "elsewhere")
    beside = wire.key(*KeyScope, project_ids=[project.id])
    within = wire.key(*KeyScope, project_ids=[experiment.project_id])
    path = f"{ALL}{experiment.public_id}/"
    for method, part in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "logs/list/"), ("GET", "progress/"),
                         ("POST", "histogram/?evaluator_id=accuracy")):  # fmt: skip
        assert wire.send(method, path + part, {} if method != "GET" else None, key=beside).status_code == 404, part
    assert wire.post(f"{ALL}list/", {}, key=beside).json()["count"] == 0
    assert wire.post(f"{ALL}list/", {}, key=within).json()["count"] == 1
    assert wire.post(f"{path}logs/list/", {}, key=within).json()["count"] == 1
    assert wire.post(ALL, body(dataset), key=within).status_code == 403
    staging = wire.key(*KeyScope, environment="staging")
    assert wire.post(f"{path}logs/list/", {}, key=staging).json()["count"] == 0
    assert wire.send("DELETE", path, key=staging).status_code == 403
    assert wire.post(ALL, body(dataset), key=staging).status_code == 403, "it may use no datasets"
    other = wire.catalog.create_organisation("other")
    assert wire.get(path, key=wire.key(*KeyScope, org_id=other.id)).status_code == 404
