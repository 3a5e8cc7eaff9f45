"""Respan's released clients run experiments against a live server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clearspan.testing.live import LIVE_KEY, SRC, Live

RunClient = Callable[..., dict[str, Any]]


@pytest.fixture
def lab(live: Live) -> dict[str, str]:
    """Three items and an evaluator, as the programs are told of them."""
    dataset = live.http.post("/datasets", json={"name": "questions"}).json()
    items = [{"dataset_id": dataset["id"], "inputs": {"q": n}, "outputs": {"a": n}} for n in range(3)]
    assert live.http.post("/examples/bulk", json=items).status_code == 200
    said = {"name": "Accuracy", "evaluator_slug": "accuracy", "type": "code", "eval_class": "exact",
            "score_value_type": "boolean"}  # fmt: skip
    answer = live.http.post("/api/evaluators/", json=said)
    assert answer.status_code == 201, answer.text
    return {
        "CLEARSPAN_URL": live.url,
        "CLEARSPAN_KEY": LIVE_KEY,
        "CLEARSPAN_DATASET": dataset["id"],
        "CLEARSPAN_EVALUATOR": answer.json()["id"],
    }


def test_the_last_client_with_experiments(lab: dict[str, str], run_client: RunClient) -> None:
    seen = run_client("respan-api-0.1.47", "run_respan_experiments.py", **lab)
    evaluator_id = lab["CLEARSPAN_EVALUATOR"]
    assert seen["made"] == ["run", "d", 4, "wait", [evaluator_id]]
    assert seen["dataset"] == [lab["CLEARSPAN_DATASET"], "questions"]
    assert seen["waiting"] == ["pending"] * 3
    assert seen["done"] == [[f'{{"a":{n}}}', f'{{"a":{n}}}', "success"] for n in range(3)]
    assert seen["score"] == seen["score"] | {
        "evaluator_id": evaluator_id, "evaluator_slug": "accuracy", "evaluator_name": "Accuracy",
        "score_value_type": "boolean", "boolean_value": True, "avg_score": 1.0,
    }  # fmt: skip
    assert seen["listed"] == ["copy", "run"], "the pager ends"
    assert seen["counted"] == 1
    assert seen["resumed"] == [True, True, "success"]
    assert seen["found"] == ['{"a":2}', 0.01, True, 1]
    assert seen["detailed"] == [3, True]
    assert seen["summary"] == [3, 3]
    assert (seen["histogram"], seen["total"]) == ([["false", 0], ["true", 3]], 3)
    assert seen["grader"] == [[], 0]
    assert seen["exported"] == [[], 3]
    assert seen["renamed"] == ["r2", "d", "r3"]
    assert seen["deleted"] is None
    assert seen["statuses"] == {"deleted": 404, "unknown_field": 400, "no_dataset": 400}


@pytest.mark.long
@pytest.mark.parametrize("version", ["0.1.0", "0.1.20"])
def test_the_clients_of_2024(lab: dict[str, str], run_client: RunClient, version: str) -> None:
    seen = run_client(f"respan-api-{version}", "run_respan_experiments_old.py", **lab)
    assert seen["made"] == ["n", "wait", ["accuracy"], True]
    assert seen["listed"] == [[True, "n"]]
    assert seen["shown"] == [True, {"allow_submission": True, "timeout_hours": 24}]
    assert seen["resumed"] == "success"
    assert seen["span"][:2] == [{"a": 1}, "success"]
    assert seen["summary"] == 3
    assert (seen["exported"], seen["left"]) == ([], 0)


@pytest.mark.long
def test_parquet_is_read_as_it_was_written(run_client: RunClient) -> None:
    seen = run_client("parquet-26.0.1", "run_parquet.py", CLEARSPAN_SRC=str(SRC))
    assert seen == {
        "columns": True, "row_groups": 2, "sent_before_the_end": True, "ids": [f"r{n}" for n in range(7)], "same": True,
        "scores": list(range(7)),
    }  # fmt: skip
