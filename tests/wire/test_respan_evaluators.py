"""Evaluators and scores in Respan's words, over both stores: checked when made, typed, listed, deleted with proof."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.wire.langsmith_requests import run, run_id

from clearspan.catalog import KeyScope
from clearspan.experiments.evaluator_config import Kind
from clearspan.testing.wire import Wire, open_wire

JUDGE = {
    "name": "Response Quality",
    "type": "llm",
    "score_value_type": "numerical",
    "eval_class": "keywordsai_custom_llm",
    "score_config": {"min_score": 1, "max_score": 5},
    "passing_conditions": {"primary_score": {"operator": "gte", "value": 3}},
    "llm_config": {
        "model": "gpt-4o-mini",
        "evaluator_definition": "Rate it.\n<input>{{input}}</input>\n<output>{{output}}</output>",
        "scoring_rubric": "1=Poor, 5=Excellent",
    },
}
HUMAN = {"name": "By hand", "evaluator_slug": "by_hand", "type": "human", "score_value_type": "boolean"}
CHOICES = [{"name": "good", "value": 1}, {"name": "bad", "value": 0}]


@pytest.fixture
def catalog_wire(tmp_path: Path) -> Any:
    """One store is enough for what is in the Catalog alone."""
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", "memory")


def make(wire: Wire, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = wire.post("/api/evaluators/", body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def score(wire: Wire, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = wire.post("/api/scores/", body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def listed(wire: Wire, filters: Any = None, query: str = "", **rest: Any) -> list[str]:
    answer = wire.post(f"/api/scores/list/{query}", {} if filters is None else {"filters": filters}, **rest)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["results"]]


def test_an_evaluator_comes_back_as_it_was_made(catalog_wire: Wire) -> None:
    made = make(catalog_wire, JUDGE)
    for name in ("name", "type", "score_value_type", "score_config", "passing_conditions", "llm_config"):
        assert made[name] == JUDGE[name], name
    assert made["evaluator_slug"] == "response_quality"
    for named in (made["id"], made["id"].replace("-", ""), "response_quality"):
        assert catalog_wire.get(f"/api/evaluators/{named}/").json() == made
    assert make(catalog_wire, JUDGE)["evaluator_slug"] == "response_quality_2"
    assert catalog_wire.get("/api/evaluators/none/").status_code == 404


TYPES: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "code", "eval_class": "exact", "configurations": {"ignore_case": True}}, "exact", "boolean"),
    ({"type": "code", "eval_class": "cost", "configurations": {"max_usd": 0.25}}, "cost", "boolean"),
    ({"type": "similarity"}, "similarity", "numerical"),
    ({"type": "code"}, "external", "numerical"),
    ({"type": "code", "eval_class": "custom_code", "score_value_type": "json"}, "external", "json"),
    ({"type": "human_categorical", "categorical_choices": CHOICES}, "human", "categorical"),
    ({"llm_config": {"evaluator_definition": "Good?"}, "score_value_type": "boolean"}, "llm", "boolean"),
]


def test_types_and_templates_become_kinds(catalog_wire: Wire) -> None:
    for body, kind, score_type in TYPES:
        made = make(catalog_wire, {"name": "n", **body})
        assert (made["kind"], made["score_value_type"]) == (kind, score_type)
        assert made["type"] in ("llm", "human", "code")
        again = catalog_wire.send("PATCH", f"/api/evaluators/{made['id']}/", {"type": made["type"], "name": "n"})
        assert again.json() == made, "said again it changes nothing"


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({}, "type"),
    ({"type": "llm"}, "config.prompt"),
    ({"type": "oracle"}, "type"),
    ({"type": "human", "eval_class": "exact"}, "eval_class"),
    ({"type": "code", "eval_class": "ragas_faithfulness"}, "eval_class"),
    ({"type": "code", "code_config": {"eval_code_snippet": "def main(x): return 1"}}, "code_config"),
    ({"type": "code", "configurations": {"a": 1}}, "configurations"),
    ({"type": "regex", "configurations": {"pattern": "(a"}}, "config.pattern"),
    ({"type": "human", "score_value_type": "single_select"}, "config.choices"),
    ({"type": "human", "evaluator_slug": "a b"}, "evaluator_slug"),
    ({"type": "human", "evaluator_slug": "0" * 32}, "evaluator_slug"),
    ({"type": "human", "name": ""}, "name"),
    ({"type": "human", "nmae": "x"}, "nmae"),
    ({"type": "llm", "llm_config": {"evaluator_definition": "p", "tools": [{}]}}, "config.tools"),
    ({"type": "llm", "llm_config": []}, None),
    ({"type": "human", "nmae": "x"}, "nmae"),
]


def test_what_is_wrong_with_an_evaluator_is_named(catalog_wire: Wire) -> None:
    for body, field in WRONG:
        told = make(catalog_wire, {"name": "n", **body}, 400)
        assert field is None or field in told, body
    assert catalog_wire.post("/api/evaluators/summary/", {}).json() == {"total_count": 0}


def test_a_slug_is_taken_once(catalog_wire: Wire) -> None:
    make(catalog_wire, HUMAN)
    make(catalog_wire, HUMAN, 409)
    other = make(catalog_wire, {**HUMAN, "evaluator_slug": "other"})
    answer = catalog_wire.send("PATCH", f"/api/evaluators/{other['id']}/", {"evaluator_slug": "by_hand"})
    assert answer.status_code == 409


def test_patch_changes_what_is_given_and_put_all_of_it(catalog_wire: Wire) -> None:
    path = f"/api/evaluators/{make(catalog_wire, JUDGE)['id']}/"
    patched = catalog_wire.send("PATCH", path, {"llm_config": {"temperature": 0.5}, "description": "d"}).json()
    assert patched["llm_config"] == {**JUDGE["llm_config"], "temperature": 0.5}  # type: ignore[dict-item]
    assert (patched["description"], patched["score_config"]) == ("d", JUDGE["score_config"])
    put = catalog_wire.send("PUT", path, {"name": "New", "type": "human", "score_value_type": "text"}).json()
    assert (put["kind"], put["llm_config"], put["description"], put["evaluator_slug"]) == (
        "human", None, None, "response_quality",
    )  # fmt: skip
    assert catalog_wire.send("PATCH", path, {"score_value_type": "stars"}).status_code == 400
    assert catalog_wire.get(path).json() == put
    assert catalog_wire.send("DELETE", path).status_code == 204
    assert catalog_wire.send("DELETE", path).status_code == 404


def test_lists_filter_sort_and_end(catalog_wire: Wire) -> None:
    for number, kind in enumerate(("exact", "human", "human")):
        catalog_wire.clock.advance(1)
        make(catalog_wire, {"name": f"n{number}", "type": kind})

    def names(query: str = "", **body: Any) -> list[str]:
        answer = catalog_wire.post(f"/api/evaluators/list/{query}", body)
        assert answer.status_code == 200, answer.text
        return [each["name"] for each in answer.json()["results"]]

    assert names() == ["n2", "n1", "n0"]
    assert names("?sort_by=name&page_size=2") == ["n0", "n1"]
    assert names("?page_size=2&page=2") == ["n0"]
    assert names("?page=3") == []
    assert names(filters={"type": {"value": ["human"]}, "name": {"operator": "contains", "value": "1"}}) == ["n1"]
    assert names(filters=[{"field": "kind", "operator": "not", "value": ["human"]}]) == ["n0"]
    assert len(catalog_wire.get("/api/evaluators/").json()["results"]) == 3
    for query, body in (("", {"filters": {"colour": {"value": 1}}}), ("?sort_by=colour", {}), ("?page_size=101", {})):
        assert catalog_wire.post(f"/api/evaluators/list/{query}", body).status_code == 400


VALUES = [
    ("numerical", {"numerical_value": 4.5}),
    ("percentage", {"numerical_value": 12.5}),
    ("boolean", {"boolean_value": False}),
    ("single_select", {"categorical_value": ["good"]}),
    ("categorical", {"categorical_value": ["bad"]}),
    ("multi_select", {"categorical_value": ["good", "bad"]}),
    ("text", {"string_value": "fine"}),
    ("comment", {"string_value": "fine"}),
    ("json", {"json_value": '{"a":[1]}'}),
]


def test_a_score_of_every_type_comes_back(catalog_wire: Wire) -> None:
    wire = catalog_wire
    wire.ingest(wire.span("t1"))
    for score_type, value in VALUES:
        slug = f"of_{score_type}"
        about = {"evaluator_slug": slug, "score_value_type": score_type, "categorical_choices": CHOICES}
        made = make(wire, {**HUMAN, **about})
        told = score(wire, log_id="t1", evaluator_slug=slug, explanation="why", **value)
        wanted = {name: None for _, each in VALUES for name in each} | value
        assert {name: told[name] for name in wanted} == wanted
        assert (told["explanation"], told["log_id"], told["type"]) == ("why", "t1", "human")
        assert (told["evaluator_id"], told["score_value_type"]) == (made["id"], score_type)
        whole = wire.get(f"/api/scores/{told['id']}/").json()
        assert whole == told | {"inputs": None, "evaluator": made}
        assert wire.get(f"/api/logs/t1/scores/{told['id']}/").json() == whole


def test_scores_on_traces_and_spans_replaced_listed_changed_and_deleted(wire: Wire) -> None:
    wire.ingest(wire.span("t1"), wire.span("t1", "child", span_parent_id="t1-root"), wire.span("t2"))
    make(wire, HUMAN)
    judge = make(wire, JUDGE)
    first = score(wire, log_id="t1", evaluator_slug="by_hand", boolean_value=True, scorer="ann")
    again = score(wire, 200, log_id="t1", evaluator_slug="by_hand", boolean_value=False, scorer="ann")
    assert (again["id"], again["boolean_value"]) == (first["id"], False)
    other = score(wire, log_id="t1", evaluator_slug="by_hand", boolean_value=True, scorer="bob")
    child = score(wire, log_id="child", evaluator_id=judge["id"], numerical_value=2, string_value="weak")
    assert (child["span_unique_id"], child["trace_unique_id"], child["is_passed"]) == ("child", "t1", False)
    assert child["explanation"] == "weak"
    last = wire.post("/api/logs/t2/scores/", {"evaluator_slug": "by_hand", "boolean_value": True, "scorer": "me"})
    assert last.status_code == 201
    assert last.json()["scorer"] == wire.catalog.authenticate("owner-key-of-the-tests").user_id

    ids = [last.json()["id"], child["id"], other["id"], first["id"]]
    assert listed(wire) == ids
    assert listed(wire, query="?page_size=3&page=2") == ids[3:]
    assert listed(wire, query="?page=3") == []
    assert listed(wire, {"evaluator_slug": {"value": ["by_hand"]}, "scorer": {"value": "ann"}}) == [first["id"]]
    assert listed(wire, {"evaluator_id": {"value": [judge["id"]]}}) == [child["id"]]
    assert listed(wire, {"log_id": {"operator": "in", "value": ["t2", "child"]}}) == ids[:2]
    assert listed(wire, {"type": {"value": "llm"}}) == [child["id"]]
    assert listed(wire, {"created_at": {"operator": "gt", "value": "2050-01-01"}}) == []
    assert [each["id"] for each in wire.get("/api/logs/t1/scores/").json()["results"]] == ids[2:]
    either = {"connector": "OR", "filter_params": {"type": {"value": "llm"}, "scorer": {"value": "a"}}}
    for filters in ({"score": {"value": 1}}, {"scorer": {"operator": "contains", "value": "a"}}, {"x": either}):
        assert wire.post("/api/scores/list/", {"filters": filters}).status_code == 400, filters

    changed = wire.send("PATCH", f"/api/scores/{child['id']}/", {"numerical_value": 4}).json()
    assert (changed["numerical_value"], changed["is_passed"], changed["explanation"]) == (4.0, True, "weak")
    assert wire.send("PATCH", f"/api/scores/{child['id']}/", {"explanation": "x"}).json()["explanation"] == "x"
    assert wire.send("PUT", f"/api/scores/{child['id']}/", {"numerical_value": 5}).json()["explanation"] is None
    for body in ({"numerical_value": 6}, {"boolean_value": True}, {}, {"evaluator_slug": "by_hand"}, {"log_id": "t2"}):
        assert wire.send("PATCH", f"/api/scores/{child['id']}/", body).status_code == 400, body
    assert wire.send("PATCH", f"/api/logs/t2/scores/{child['id']}/", {"numerical_value": 1}).status_code == 404

    gone = wire.send("DELETE", f"/api/scores/{child['id']}/")
    assert (gone.status_code, gone.headers["Clearspan-Deletion-State"]) == (204, "verified")
    assert wire.get(gone.headers["Location"]).json()["state"] == "verified"
    for method in ("GET", "DELETE", "PATCH"):
        assert wire.send(method, f"/api/scores/{child['id']}/", {"numerical_value": 1}).status_code == 404
    assert listed(wire) == [ids[0], *ids[2:]]
    assert wire.get("/api/traces/t1/").status_code == 200
    assert score(wire, log_id="child", evaluator_id=judge["id"], numerical_value=1)["id"] != child["id"]
    wire.post("/api/traces/bulk/" + wire.window(), {"filters": {"trace_unique_id": {"value": ["t1"]}}})
    assert listed(wire) == ids[:1], "scores go with their trace"


UNFIT: list[tuple[dict[str, Any], int]] = [
    ({"evaluator_slug": "by_hand", "boolean_value": True}, 400),
    ({"log_id": "t1", "boolean_value": True}, 400),
    ({"log_id": "t1", "evaluator_slug": "none", "boolean_value": True}, 400),
    ({"log_id": "t9", "evaluator_slug": "by_hand", "boolean_value": True}, 404),
    ({"log_id": "a/b", "evaluator_slug": "by_hand", "boolean_value": True}, 404),
    ({"log_id": "t1", "evaluator_slug": "by_hand"}, 400),
    ({"log_id": "t1", "evaluator_slug": "by_hand", "numerical_value": 1}, 400),
    ({"log_id": "t1", "evaluator_slug": "by_hand", "boolean_value": 1}, 400),
    ({"log_id": "t1", "evaluator_slug": "by_hand", "boolean_value": True, "numerical_value": 1}, 400),
    ({"log_id": "t1", "evaluator_slug": "by_hand", "boolean_value": True, "score": 1}, 400),
    ({"log_id": 1, "evaluator_slug": "by_hand", "boolean_value": True}, 400),
]


def test_a_score_that_does_not_fit_is_refused(catalog_wire: Wire) -> None:
    catalog_wire.ingest(catalog_wire.span("t1"))
    make(catalog_wire, HUMAN)
    for body, status in UNFIT:
        score(catalog_wire, status, **body)
    assert listed(catalog_wire) == []


def test_feedback_of_langsmith_is_a_score_too(wire: Wire) -> None:
    assert wire.post("/runs", run(1)).status_code == 202
    own = run_id(1)
    said = wire.post("/feedback", {"run_id": own, "trace_id": own, "key": "helpful", "score": 0.5, "comment": "c"})
    assert said.status_code == 200, said.text
    (found,) = wire.post("/api/scores/list/", {}).json()["results"]
    assert (found["id"], found["evaluator_slug"], found["numerical_value"]) == (said.json()["id"], "helpful", 0.5)
    assert found["evaluator_id"] is None
    assert wire.send("PATCH", f"/api/scores/{found['id']}/", {"numerical_value": 1}).status_code == 400
    assert wire.get(f"/api/logs/{own}/scores/").json()["count"] == 1
    assert wire.send("DELETE", f"/api/scores/{found['id']}/").status_code == 204
    assert wire.get(f"/feedback/{said.json()['id']}").status_code == 404


def test_a_key_sees_and_scores_its_own_projects_and_environment_only(wire: Wire) -> None:
    wire.ingest(wire.span("t1", environment="prod"))
    make(wire, HUMAN)
    made = score(wire, log_id="t1", evaluator_slug="by_hand", boolean_value=True)
    org_id = wire.catalog.first_org.id
    every = (KeyScope.READ, KeyScope.ANNOTATE, KeyScope.DELETE)
    elsewhere = wire.catalog.create_organisation("other")
    wire.catalog.create_project(org_id, "side")
    keys = [wire.key(*every, environment="test"), wire.key(*every, org_id=elsewhere.id)]
    body = {"log_id": "t1", "evaluator_slug": "by_hand", "boolean_value": False}
    for key in keys:
        assert listed(wire, key=key) == []
        assert wire.post("/api/scores/", body, key=key).status_code in (400, 404)
        for method in ("GET", "PATCH", "DELETE"):
            answer = wire.send(method, f"/api/scores/{made['id']}/", {"boolean_value": False}, key=key)
            assert answer.status_code == 404, method
    assert wire.get("/api/evaluators/by_hand/", key=keys[1]).status_code == 404
    assert wire.get(f"/api/scores/{made['id']}/").json()["boolean_value"] is True


def test_a_held_trace_keeps_its_scores(wire: Wire) -> None:
    wire.ingest(wire.span("t1"))
    make(wire, HUMAN)
    made = score(wire, log_id="t1", evaluator_slug="by_hand", boolean_value=True)
    held = wire.post("/v1/holds", {"reason": "case", "filters": {"trace_unique_id": {"value": ["t1"]}}})
    assert held.status_code == 201, held.text
    assert wire.send("DELETE", f"/api/scores/{made['id']}/").status_code == 409
    assert listed(wire) == [made["id"]]


def test_kinds_are_told_by_the_documents() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text()
    assert [kind for kind in Kind if f"`{kind}`" not in page] == []


def test_no_key_of_the_endpoint_is_in_any_answer(tmp_path: Path) -> None:
    """The operator's key for language models, searched for in every answer of these routes."""
    from pydantic import SecretStr

    canary = "canary-key-of-the-endpoint"
    with ExitStack() as stack:
        wire = open_wire(
            stack, tmp_path / "data", "memory", llm_base_url="http://127.0.0.1:9/v1", llm_api_key=SecretStr(canary)
        )
        made = make(wire, JUDGE)
        answers = [wire.get(path).text for path in ("/openapi.json", "/metrics", f"/api/evaluators/{made['id']}/", "/")]
        answers.append(wire.post("/api/evaluators/list/", {}).text)
        answers.append(json.dumps(make(wire, {**JUDGE, "llm_config": {"api_key": canary[:5]}}, 400)))
        assert not [answer for answer in answers if canary in answer]
