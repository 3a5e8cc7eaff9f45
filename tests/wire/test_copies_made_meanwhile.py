"""Copies that are written while a deletion is under way, as the dialects tell of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from langsmith_requests import run, run_id
from native import until

from clearspan.store.port import HideOutcome
from clearspan.testing.wire import Wire

WINDOW = "start_time=2026-11-01T00:00:00Z&end_time=2026-12-01T00:00:00Z"


@pytest.fixture
def dataset(wire: Wire) -> str:
    """A dataset; run 2 is there."""
    assert wire.post("/runs/batch", {"post": [run(2)]}).status_code == 202
    return str(wire.post("/datasets", {"name": "golden"}).json()["id"])


def before_hide(wire: Wire, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something before the next hide."""
    store = wire.services.deleter._store
    hide, left = store.hide, [act]

    def act_first(*args: Any, **rest: Any) -> HideOutcome:
        if left:
            left.pop()()
        return hide(*args, **rest)

    monkeypatch.setattr(store, "hide", act_first)


@pytest.mark.parametrize("dialect", ["native", "respan", "langsmith"])
def test_the_answer_names_the_follow_up(
    wire: Wire, dataset: str, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    item = {"dataset_id": dataset, "inputs": {"q": "needle"}, "source_run_id": run_id(2)}
    before_hide(wire, monkeypatch, lambda: wire.post("/examples", item))
    trace = run_id(2).replace("-", "")
    if dialect == "native":
        told = wire.post("/v1/deletions", {"trace_ids": [trace], "wait": "verified"}).json()
    elif dialect == "respan":
        body = {"filters": {"trace_unique_id": {"operator": "=", "value": [trace]}}}
        told = wire.post(f"/api/traces/bulk/?{WINDOW}", body).json()
        assert told["follow_up_id"] in told["message"]
    else:
        session = wire.get("/sessions?name=p").json()[0]["id"]
        told = wire.post("/runs/delete", {"session_id": session, "trace_ids": [run_id(2)]}).json()
        assert told["follow_up_id"] in told["message"]
    first = until(wire, told.get("id") or told["deletion_id"], "verified")
    follow_up = until(wire, told["follow_up_id"], "verified")
    assert first["follow_up_id"] == follow_up["id"]
    assert (follow_up["copies"]["taken"], follow_up["traces"]["hidden"]) == (1, 1)
    assert follow_up["scope"] == ["trace_ids:in:1", "copies:taken:1", f"copies:made_since:{first['id']}"]
    conditions = wire.get(f"/v1/deletions/{first['id']}/receipt").json()["payload"]["scope"]["conditions"]
    assert conditions[-1] == f"copies:follow_up:{follow_up['id']}"
    assert wire.get(f"/v1/deletions/{follow_up['id']}/receipt").status_code == 200
    assert wire.get(f"/examples?dataset={dataset}").json() == []


def test_a_plan_token_is_refused_in_clear_words(wire: Wire, dataset: str) -> None:
    token = wire.post("/v1/deletions/preview", {"trace_ids": [run_id(2).replace("-", "")]}).json()["plan_token"]
    item = {"dataset_id": dataset, "inputs": {"q": "needle"}, "source_run_id": run_id(2)}
    assert wire.post("/examples", item).status_code == 200
    answer = wire.post("/v1/deletions", {"plan_token": token})
    assert (answer.status_code, "plan_mismatch" in answer.text) == (409, True)
    assert "Copies of these traces were made since the preview" in answer.text
    assert len(wire.get(f"/examples?dataset={dataset}").json()) == 1


def test_a_change_of_an_example_waits_for_its_deletion(
    wire: Wire, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no version is written that the deletion does not know of."""
    item = wire.post("/examples", {"dataset_id": dataset, "inputs": {"q": "needle"}}).json()["id"]
    answers: list[Any] = []
    change = threading.Thread(
        target=lambda: answers.append(wire.send("PATCH", f"/examples/{item}", {"inputs": {"q": "needle too"}}))
    )

    def begin() -> None:
        change.start()
        change.join(0.3)
        assert change.is_alive(), "it waits"

    before_hide(wire, monkeypatch, begin)
    told = wire.send("DELETE", f"/examples/{item}").json()
    change.join(10)
    assert (told["state"], told["hidden_count"]) == ("verified", 1)
    assert answers[0].status_code == 404
    assert wire.get(f"/examples?dataset={dataset}").json() == []
