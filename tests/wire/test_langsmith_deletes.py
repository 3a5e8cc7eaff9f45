"""LangSmith's `runs/delete`: by ids, by metadata, by both; exact answers, and nothing beyond what was asked."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langsmith_requests import ROOTS, replay, rows, run, run_id
from native import hold, until

from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.model.runs import run_id_of
from clearspan.testing.wire import OWNER_KEY, Wire, iso, open_wire

ANYTIME = "?start_time=2025-01-01T00:00:00Z&end_time=2027-01-01T00:00:00Z&page_size=1000"

COPIES = {"taken": 0, "not_covered": 0, "detached": 0, "redacted_items": 0, "of_trace": 0}


def send(wire: Wire, *runs: dict[str, Any], **rest: Any) -> None:
    answer = wire.post("/runs/batch", {"post": list(runs)}, **rest)
    assert answer.status_code == 202, answer.text
    assert "rejected" not in answer.text


def child(number: int, of: int, **fields: Any) -> dict[str, Any]:
    """A run inside the trace of another."""
    order = f"20261121T223332433523Z{run_id(of)}.20261121T223333433523Z{run_id(number)}"
    return run(number, trace_id=run_id(of), parent_run_id=run_id(of), dotted_order=order, **fields)


def metadata(**pairs: str) -> dict[str, Any]:
    return {"extra": {"metadata": pairs}}


def session(wire: Wire, name: str = "p") -> str:
    [found] = wire.get(f"/sessions?name={name}").json()
    return str(found["id"])


def delete(wire: Wire, body: Any, root: str = "", **rest: Any) -> dict[str, Any]:
    answer = wire.post(f"{root}/runs/delete", body, **rest)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["clearspan-deletion-id"] == told["deletion_id"]
    assert answer.headers["clearspan-deletion-state"] == told["state"]
    assert answer.headers["location"] == told["status_url"] == f"/v1/deletions/{told['deletion_id']}"
    assert answer.headers["clearspan-effective-window"]
    return told


def left(wire: Wire, **rest: Any) -> set[str]:
    return {str(UUID(each)) for each in wire.list_ids(ANYTIME, **rest)}


@pytest.fixture
def three(wire: Wire) -> Wire:
    """Three traces of project p, the second of two runs; the same first id in project q."""
    send(wire, run(1, **metadata(user="u1")), run(2), child(12, 2, **metadata(user="u2")), run(3))
    send(wire, run(1, session_name="q"), run(4, session_name="q", **metadata(user="u1")))
    return wire


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("path", ["/runs/delete", "/runs/delete/traces"])
def test_traces_go_by_id_within_their_session(three: Wire, root: str, path: str) -> None:
    body = {"session_id": session(three), "trace_ids": [run_id(1), run_id(2)]}
    answer = three.post(root + path, body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["message"] == "Successfully deleted 2 traces"
    assert (told["matched_count"], told["deleted_count"], told["hidden_count"], told["state"]) == (2, 2, 2, "verified")
    assert (told["unmatched_ids"], told["inside_traces"]) == ([], {})
    assert three.get(told["status_url"]).json()["dialect"] == "langsmith"
    assert three.get(told["receipt_url"]).status_code == 200
    assert len(rows(three, run_id(1), run_id(2), run_id(12), run_id(3))) == 2, "of q, and what nobody named"


@pytest.mark.parametrize("key", ["trace_ids", "run_ids"])
def test_ids_are_understood_in_any_spelling_and_counted_once(three: Wire, key: str) -> None:
    spellings = [run_id(3), run_id(3).replace("-", ""), run_id(3).upper()]
    told = delete(three, {"session_id": session(three).replace("-", ""), key: spellings})
    assert (told["matched_count"], told["unmatched_ids"]) == (1, [])


def test_ids_that_name_nothing_are_told(three: Wire) -> None:
    absent, elsewhere = str(uuid4()), run_id(4)
    ids = [absent, run_id(3), elsewhere, run_id(12), "not-a-uuid"]
    told = delete(three, {"session_id": session(three), "trace_ids": ids})
    assert (told["matched_count"], told["deleted_count"]) == (1, 1)
    assert told["unmatched_ids"] == [absent, elsewhere, run_id(12), "not-a-uuid"]
    assert told["inside_traces"] == {run_id(12): run_id(2)}, "a run inside a trace takes nobody with it"
    assert "4 of the 5 ids named no trace" in told["message"]
    assert len(rows(three, run_id(2), run_id(12), run_id(4))) == 3
    again = delete(three, {"session_id": session(three), "trace_ids": [run_id(3)]})
    assert again["message"].startswith("No traces matched; nothing was deleted")
    assert (again["matched_count"], again["unmatched_ids"]) == (0, [run_id(3)])


def test_a_wrong_session_deletes_nothing_and_says_so(three: Wire) -> None:
    other = three.catalog.create_organisation("other")
    theirs = three.key(*KeyScope, org_id=other.id)
    before = left(three)
    for wrong, key in ((str(uuid4()), OWNER_KEY), (session(three), theirs)):
        for more in ({"trace_ids": [run_id(1)]}, {"metadata": {"user": "u1"}}):
            answer = three.post("/runs/delete", {"session_id": wrong, **more}, key=key)
            assert answer.status_code == 404
            assert "nothing was deleted" in answer.json()["detail"]
    assert left(three) == before


def test_metadata_matches_any_pair_on_any_run_in_the_whole_workspace(three: Wire) -> None:
    told = delete(three, {"metadata": {"user": "u1"}})
    assert (told["matched_count"], told["unmatched_ids"]) == (2, [])
    assert left(three) == {run_id(1), run_id(2), run_id(3)}, "run 1 is q's: another trace, without the pair"
    assert delete(three, {"metadata": {"nothing": "x", "user": "u2"}})["deleted_count"] == 1
    assert left(three) == {run_id(1), run_id(3)}


def test_metadata_and_a_session_or_ids_must_both_hold(three: Wire) -> None:
    both = {"session_id": session(three, "q"), "metadata": {"user": "u1", "other": "x"}}
    assert delete(three, both)["matched_count"] == 1
    assert left(three) == {run_id(1), run_id(2), run_id(3)}
    ids = {"session_id": session(three), "trace_ids": [run_id(1), run_id(2)], "metadata": {"user": "u2"}}
    told = delete(three, ids)
    assert (told["matched_count"], told["unmatched_ids"]) == (1, [run_id(1)])
    assert told["inside_traces"] == {}


@pytest.mark.parametrize("seed", range(5))
def test_metadata_selects_what_a_plain_model_selects(wire: Wire, seed: int) -> None:
    rng = random.Random(seed)
    model: dict[tuple[str, str], list[dict[str, str]]] = {}  # (session, trace) → the metadata of its runs
    for number in range(1, 25):
        name = rng.choice("pq")
        pairs = [{rng.choice("abc"): rng.choice(["1", "2", "é"]) for _ in range(rng.randint(0, 2))} for _ in range(3)]
        runs = [run(number, session_name=name, **metadata(**pairs[0]))]
        runs += [child(100 * number + n, number, session_name=name, **metadata(**pairs[n])) for n in (1, 2)]
        send(wire, *runs)
        model[name, run_id(number)] = pairs
    sessions = {name: session(wire, name) for name in "pq"}
    for _ in range(4):
        wanted = {rng.choice("abc"): rng.choice(["1", "2", "é", "3"]) for _ in range(rng.randint(1, 2))}
        place_in = rng.choice(["p", "q", None])
        body: dict[str, Any] = {"metadata": wanted} | ({} if place_in is None else {"session_id": sessions[place_in]})
        gone = {
            place
            for place, runs_of in model.items()
            if place_in in (None, place[0]) and any(set(wanted.items()) & set(each.items()) for each in runs_of)
        }
        told = delete(wire, body)
        assert (told["matched_count"], told["deleted_count"]) == (len(gone), len(gone))
        for place in gone:
            del model[place]
        assert left(wire) == {trace for _, trace in model}


UUID_1, NAMED = str(UUID(int=1)), {"session_id": str(UUID(int=1))}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "session_id"),
        (NAMED, "trace_ids"),
        ({"trace_ids": [UUID_1]}, "session_id"),
        (NAMED | {"trace_ids": []}, "trace_ids"),
        (NAMED | {"trace_ids": [UUID_1] * 1001}, "trace_ids"),
        (NAMED | {"run_ids": [UUID_1] * 1001}, "run_ids"),
        (NAMED | {"trace_ids": UUID_1}, "trace_ids"),
        (NAMED | {"trace_ids": [1]}, "trace_ids"),
        (NAMED | {"trace_ids": ["a/b"]}, "trace_ids"),
        (NAMED | {"trace_ids": [UUID_1], "run_ids": [UUID_1]}, "trace_ids"),
        ({"session_id": "x", "trace_ids": [UUID_1]}, "session_id"),
        ({"metadata": {}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": {"user": None}}, "metadata__user"),
        ({"metadata": {"user": ["u1"]}}, "metadata__user"),
        ({"metadata": {"user": "u1"}, "filter": "eq(id, 1)"}, "filter"),
        ({"metadata": {"user": "u1"}, "expected_count": "1"}, "expected_count"),
        ({"metadata": {"user": "u1"}, "start_time": "2026-01-01"}, "start_time"),
        (NAMED | {"trace_ids": [UUID_1], "start_time": "2026-01-01"}, "start_time"),
    ],
)
def test_what_cannot_be_understood_deletes_nothing(three: Wire, body: dict[str, Any], field: str) -> None:
    before = left(three)
    answer = three.post("/runs/delete", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][:2] == ["body", field]
    assert left(three) == before
    assert three.get("/v1/deletions").json()["data"] == []


def test_a_query_string_is_refused(three: Wire) -> None:
    answer = three.post("/runs/delete?session_id=x", {"metadata": {"user": "u1"}})
    assert answer.status_code == 422
    assert len(left(three)) == 4


def test_a_count_that_was_expected_must_be_met(three: Wire) -> None:
    answer = three.post("/runs/delete", {"metadata": {"user": "u1"}, "expected_count": 1})
    assert (answer.status_code, "nothing was deleted" in answer.json()["detail"]) == (409, True)
    assert delete(three, {"metadata": {"user": "u1"}, "expected_count": 2})["deleted_count"] == 2


def test_a_repeat_under_one_idempotency_key_gets_the_first_answer(three: Wire) -> None:
    body = {"session_id": session(three), "trace_ids": [run_id(1), str(uuid4())]}
    headers = {"Idempotency-Key": "one"}
    first = delete(three, body, headers=headers)
    assert delete(three, body, headers=headers) == first
    other = three.post("/runs/delete", body | {"trace_ids": [run_id(2)]}, headers=headers)
    assert other.status_code == 409


def test_holds_win(three: Wire) -> None:
    hold(three, trace_ids=[run_id(1)], project="p")
    body = {"session_id": session(three), "trace_ids": [run_id(1)]}
    refused = three.post("/runs/delete", body)
    assert (refused.status_code, "hold" in refused.json()["detail"]) == (409, True)
    told = delete(three, body | {"trace_ids": [run_id(1), run_id(3)]})
    assert (told["matched_count"], told["hidden_count"], told["held_count"]) == (2, 1, 1)
    assert told["unmatched_ids"] == [], "what is held was found"
    assert three.get(f"/v1/deletions/{told['child_id']}").json()["state"] == "blocked"


def test_the_policy_of_the_key_bounds_it(three: Wire) -> None:
    def key(policy: KeyPolicy) -> str:
        return three.key(KeyScope.DELETE, KeyScope.READ, policy=policy)

    body = {"metadata": {"user": "u1"}}
    now = three.clock.now_ns()
    window = {"start_time": "2026-11-01T00:00:00Z", "end_time": "2026-12-01T00:00:00Z"}
    bounded = key(KeyPolicy(forbid_delete_all=True))
    refused = three.post("/runs/delete", body, key=bounded)
    assert refused.status_code == 422, "metadata alone means all times"
    assert three.post("/runs/delete", body, key=key(KeyPolicy(max_traces=1))).status_code == 422
    with_reason = key(KeyPolicy(require_reason=True))
    assert three.post("/runs/delete", body, key=with_reason).status_code == 422
    assert delete(three, body | {"reason": "case 7", **{"start_time": iso(now), "end_time": iso(now)}}, key=with_reason)
    assert delete(three, body | window, key=bounded)["deleted_count"] == 2


def test_a_bound_key_deletes_from_its_projects_only(three: Wire) -> None:
    project = three.catalog.find_project(three.catalog.first_org.id, "q")
    assert project is not None
    mine = three.key(KeyScope.DELETE, KeyScope.READ, project_ids=[project.id])
    assert (
        three.post("/runs/delete", {"session_id": session(three), "trace_ids": [run_id(1)]}, key=mine).status_code
        == 404
    )
    told = delete(three, {"metadata": {"user": "u1"}}, key=mine)
    assert told["matched_count"] == 1
    assert left(three) == {run_id(1), run_id(2), run_id(3)}
    assert len(rows(three, run_id(1))) == 2


def test_another_tenant_deletes_nothing(three: Wire) -> None:
    other = three.catalog.create_organisation("other")
    theirs = three.key(*KeyScope, org_id=other.id)
    send(three, run(1, **metadata(user="u1")), key=theirs)
    assert delete(three, {"metadata": {"user": "u1"}}, key=theirs)["matched_count"] == 1
    assert len(rows(three, run_id(1))) == 2
    assert len(left(three)) == 4


def test_a_trace_of_another_dialect_goes_by_the_id_that_clients_know(wire: Wire) -> None:
    wire.ingest(wire.span("trace_abc", "root"), wire.span("trace_abc", "leaf", span_parent_id="root"))
    root = str(UUID(run_id_of("trace_abc", "root", True)))
    leaf = str(UUID(run_id_of("trace_abc", "leaf", False)))
    told = delete(wire, {"session_id": session(wire, "default"), "trace_ids": [leaf]})
    assert (told["matched_count"], told["unmatched_ids"]) == (0, [leaf])
    told = delete(wire, {"session_id": session(wire, "default"), "trace_ids": [root]})
    assert (told["matched_count"], told["unmatched_ids"]) == (1, [])


def test_the_recorded_evaluators_go_with_what_they_judged(wire: Wire) -> None:
    """What the SDK's `evaluate()` sent: its evaluators' runs hold the judged outputs, in a project of their own."""
    replay(wire, "evaluate_bulk")
    names = {each["name"]: each["id"] for each in wire.get("/sessions").json()}
    assert "evaluators" in names
    [judged] = [name for name in names if name not in ("evaluators", "default")]
    told = delete(wire, {"session_id": names[judged], "metadata": {"nothing": "here"}})
    assert told["matched_count"] == 0
    before = left(wire)
    project = wire.catalog.find_project(wire.catalog.first_org.id, judged)
    assert project is not None
    ids = sorted(left(wire, key=wire.key(KeyScope.READ, project_ids=[project.id])))
    told = delete(wire, {"session_id": names[judged], "trace_ids": ids})
    assert told["copies"]["taken"] == told["matched_count"] - len(ids) > 0
    assert told["copies"]["not_covered"] == 0
    assert left(wire) < before
    assert told["state"] == "verified"


@pytest.mark.parametrize("dialect", ["native", "respan", "respan one", "langsmith", "session"])
def test_copies_go_in_every_dialect_as_far_as_the_key_reaches(wire: Wire, dialect: str) -> None:
    linked = metadata(target_run_id=run_id(12))
    send(wire, run(2), child(12, 2), run(5, session_name="evaluators", **linked))
    send(
        wire,
        run(6, session_name="evaluators", **metadata(reference_run_id=run_id(5))),
        run(7, session_name="far", **linked),
    )
    org_id = wire.catalog.first_org.id
    projects = {each.name: each for each in wire.catalog.projects(org_id)}
    mine = wire.key(KeyScope.DELETE, KeyScope.READ, project_ids=[projects[name].id for name in ("p", "evaluators")])
    trace = run_id(2).replace("-", "")
    if dialect == "native":
        told = wire.post("/v1/deletions/preview", {"trace_ids": [trace], "project": "p"}, key=mine).json()
        assert (told["traces"]["matched"], told["copies"]) == (3, COPIES | {"taken": 2, "not_covered": 1})
        answer = wire.post("/v1/deletions", {"plan_token": told["plan_token"], "wait": "verified"}, key=mine)
        assert answer.json()["copies"] == COPIES | {"taken": 2, "not_covered": 1}
    elif dialect == "respan":
        filters = {"trace_unique_id": {"operator": "=", "value": [trace]}}
        answer = wire.post(
            "/api/traces/bulk/?start_time=2026-11-01T00:00:00Z&end_time=2026-12-01T00:00:00Z",
            {"filters": filters},
            key=mine,
        )
        told = answer.json()
        assert (told["deleted_count"], told["copies"], told["copies_not_covered"]) == (3, 2, 1)
        assert "1 traces with copies are not covered" in told["message"]
    elif dialect == "respan one":
        answer = wire.send("DELETE", f"/api/traces/{trace}/", key=mine)
        assert (answer.json()["copies"], answer.json()["copies_not_covered"]) == (2, 1)
    elif dialect == "langsmith":
        told = delete(wire, {"session_id": session(wire), "trace_ids": [run_id(2)]}, key=mine)
        assert (told["matched_count"], told["copies"]) == (3, COPIES | {"taken": 2, "not_covered": 1})
        assert told["unmatched_ids"] == []
    else:
        answer = wire.send("DELETE", f"/sessions/{session(wire)}", key=mine)
        assert answer.json()["deleted_count"] == 3
    assert left(wire) == {run_id(7)}


def test_copies_stay_where_the_native_body_says_so(wire: Wire) -> None:
    send(wire, run(2), run(5, session_name="evaluators", **metadata(target_run_id=run_id(2))))
    body = {"trace_ids": [run_id(2)], "leave_copies": True, "wait": "verified"}
    told = wire.post("/v1/deletions", body).json()
    assert (told["traces"]["matched"], told["copies"]) == (1, COPIES | {"not_covered": 1})
    assert left(wire) == {run_id(5)}


def test_the_answer_says_hidden_while_it_is_only_that(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", delete_wait_s=0.0)
        send(wire, run(1))
        later = {"session_id": session(wire), "trace_ids": [run_id(1)]}
        told = delete(wire, later)
        if told["state"] != "verified":
            assert (told["deleted_count"], told["hidden_count"], told["receipt_url"]) == (0, 1, None)
            assert told["message"] == "1 traces hidden; erasure in progress"
        assert until(wire, told["deletion_id"], "verified")["traces"]["hidden"] == 1
