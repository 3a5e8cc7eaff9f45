"""Every request about experiments that Respan's clients were recorded to send is answered as they expect."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from tests.wire.respan_experiments import add_items, ask, make_dataset, make_evaluator
from tests.wire.test_respan_experiments import create, wait_for
from tests.wire.test_respan_recorded import recorded, replay

from clearspan.experiments.items import NewItem
from clearspan.testing.wire import Wire

pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)
WINDOW = "start_time=2025-12-01T00%3A00%3A00Z&end_time=2027-01-01T00%3A00%3A00Z"


def world(wire: Wire) -> tuple[str, str, str]:
    """What the recordings name: (dataset, experiment, waiting trace)."""
    dataset = make_dataset(wire, "ds1")
    add_items(wire, dataset, NewItem({"q": 1}, {"a": 1}))
    make_evaluator(wire, "ev1")
    make_evaluator(wire, "e")
    dataset_id = str(uuid.UUID(dataset.uuid))
    step = [{"type": "wait", "config": {}}]
    made = create(wire, {"dataset_id": dataset_id, "workflow": step, "evaluator_ids": ["ev1"], "experiment_id": "exp1"})
    (trace,) = wait_for(lambda: ask(wire, "exp1", "logs/list/")["results"])
    return dataset_id, made["id"], trace["id"]


def about_experiments(name: str) -> list[dict[str, Any]]:
    """The recorded requests, the deletion last: the recordings read on after it."""
    found = [each for each in recorded(name) if "/experiments/" in each["path"]]
    return [each for each in found if each["method"] != "DELETE"] + [
        each for each in found if each["method"] == "DELETE"
    ]


def sent(request: dict[str, Any], dataset_id: str, trace_id: str) -> dict[str, Any]:
    """A recorded request about what is there; its window holds the clock of the tests."""
    request["path"] = request["path"].replace("/t1/", f"/{trace_id}/")
    body = request.get("json")
    if isinstance(body, dict) and "dataset_id" in body:
        body["dataset_id"] = dataset_id
    head, mark, _ = request["query"].partition("start_time=")
    tail = "&detail=1&preview_length=80" if "detail=1" in request["query"] else ""
    request["query"] = f"{head}{WINDOW}{tail}" if mark else request["query"]
    return request


@pytest.mark.parametrize("name", ["respan_api_0.1.47_experiments.json", "respan_api_0.1.0_legacy_paths.json"])
def test_recorded_calls_of_the_experiments_api_are_answered(wire: Wire, name: str) -> None:
    dataset_id, experiment_id, trace_id = world(wire)
    seen: set[tuple[str, str]] = set()
    for request in about_experiments(name):
        expected = request["answered"]["status"]
        is_export = "export=1" in request["query"]
        answer = replay(wire, sent(request, dataset_id, trace_id))
        assert answer.status_code == (202 if is_export else expected), (request["method"], request["path"], answer.text)
        assert (answer.content == b"") == (expected == 204)
        seen.add((request["method"], request["path"].replace(trace_id, "t1")))
        if "page=2" in request["query"] or is_export:
            assert answer.json()["results"] == [], "a pager goes on until a page is empty"
    assert len(seen) == (12 if "0.1.47" in name else 3)
    assert wire.get(f"/api/v2/experiments/{experiment_id}/").status_code == (404 if "0.1.47" in name else 200)


def test_recorded_resumption_and_reading_agree(wire: Wire) -> None:
    dataset_id, _, trace_id = world(wire)
    by_path = {
        (each["method"], each["path"].rpartition("exp1/")[2]): each
        for each in about_experiments("respan_api_0.1.47_experiments.json")
    }

    def send(method: str, part: str) -> Any:
        return replay(wire, sent(by_path[method, part], dataset_id, trace_id)).json()

    assert send("PATCH", "logs/t1/") == {"id": trace_id, "trace_unique_id": trace_id, "status": "success"}
    trace = wire.get(f"/api/v2/experiments/exp1/logs/{trace_id}/").json()
    assert (trace["input"], trace["output"], trace["status"]) == ('{"q":1}', '{"a":2}', "success")
    assert (trace["total_cost"], trace["metadata"]["src"]) == (0.01, "ext")
    histogram = send("POST", "histogram/")
    assert (histogram["evaluator_id"], histogram["bins"]) == ("ev1:grader", [])
    assert send("POST", "logs/summary/")["number_of_requests"] == 1
