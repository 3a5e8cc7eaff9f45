"""Respan's datasets: definitions, rows and their versions, import from traces, deletion with its proof."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from clearspan.api.respan.datasets import taking
from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.experiments.importing import Selected, items_from_traces
from clearspan.experiments.items import ItemChange
from clearspan.model.errors import NotFound
from clearspan.model.trace import Scope
from clearspan.testing.wire import OWNER_KEY, SECOND_NS, Wire, iso

UNKNOWN = "/api/datasets/6e51d59c-b844-428b-9539-48b8a87bd433/"


def create(wire: Wire, name: str = "d", **body: Any) -> str:
    """The address of a new dataset."""
    answer = wire.post("/api/datasets/", {"name": name, "is_empty": True, **body})
    assert answer.status_code == 201, answer.text
    return f"/api/datasets/{answer.json()['id']}/"


def add(wire: Wire, dataset: str, **row: Any) -> str:
    answer = wire.post(f"{dataset}logs/", row)
    assert answer.status_code == 201, answer.text
    unique_id: str = answer.json()["unique_id"]
    return unique_id


def rows(wire: Wire, dataset: str, query: str = "", **body: Any) -> list[Any]:
    answer = wire.post(f"{dataset}logs/list/{query}", body)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["results"]
    return found


def hour(wire: Wire) -> dict[str, str]:
    now = wire.clock.now_ns()
    return {"start_time": iso(now - 3600 * SECOND_NS), "end_time": iso(now + SECOND_NS)}


def test_a_dataset_is_made_found_changed_and_listed(wire: Wire) -> None:
    first = create(wire, "first", description="one")
    wire.clock.advance(1)
    second = create(wire, "second", granularity="logs", on_source_deleted="detach")
    shown = wire.get(second).json()
    assert (shown["name"], shown["granularity"], shown["on_source_deleted"]) == ("second", "logs", "detach")
    assert (shown["log_count"], shown["status"], shown["description"]) == (0, "ready", None)
    changed = wire.send(
        "PATCH", first, {"name": "renamed", "starred": True, "tags": ["a"], "granularity": "logs"}
    ).json()
    assert (changed["name"], changed["description"], changed["starred"]) == ("renamed", "one", True)
    assert (changed["tags"], changed["granularity"]) == ([{"id": "a", "name": "a"}], "traces")
    assert wire.send("PUT", first, {"description": "two"}).json()["starred"] is True

    page = wire.post("/api/datasets/list/?page_size=1", {}).json()
    assert [each["name"] for each in page["results"]] == ["second"]
    assert (page["count"], page["total_count"], page["next"] is not None) == (2, 2, True)
    assert wire.get("/api/datasets/list/?page_size=1&page=3").json()["results"] == []
    assert [each["name"] for each in wire.get("/api/datasets?sort_by=name").json()["results"]] == ["renamed", "second"]
    asked = {"filters": {"name": {"operator": "contains", "value": "ren"}}}
    found = wire.post("/api/datasets/list/", asked).json()
    assert [each["name"] for each in found["results"]] == ["renamed"]
    assert found["current_filters"] == {"name": {"operator": "contains", "value": ["ren"]}}


def test_what_is_wrong_with_a_dataset_is_told(wire: Wire) -> None:
    create(wire, "taken")
    for body, key in (
        ({}, "name"), ({"name": 3}, "name"), ({"name": "taken"}, "name"),
        ({"name": "x", "granularity": "spans"}, "granularity"), ({"name": "x", "start_time": "2026-01-01"}, "end_time"),
        ({"name": "x", "on_source_deleted": "keep"}, "on_source_deleted"),
        ({"name": "x", "inputs_schema": {"type": "nonsense"}}, "inputs_schema"),
        ({"source_dataset_id": "x"}, "source_dataset_id"), ({"name": "x", "log_filters": {}}, "log_filters"),
    ):  # fmt: skip
        answer = wire.post("/api/datasets/", body)
        assert (answer.status_code, key in answer.json()) == (400, True), (body, answer.text)
    assert wire.post("/api/datasets/list/", {"filters": {"colour": {"value": "red"}}}).status_code == 400
    assert wire.get("/api/datasets/?sort_by=colour").status_code == 400
    for path in (UNKNOWN, "/api/datasets/_saved_logs/", f"{UNKNOWN}logs/list/"):
        assert wire.get(path).status_code == 404
    known = create(wire, "known")
    typed = wire.post("/api/datasets/", {"name": "typed", "type": "sampling", "is_empty": True})
    assert typed.status_code == 201, "the oldest clients say a type"
    window = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}
    for method, path, body in (
        ("PATCH", known, {"colour": 1}),
        ("POST", f"{known}logs/import/", window | {"filter": {}}),
    ):
        answer = wire.send(method, path, body)
        assert (answer.status_code, list(body)[-1] in answer.json()) == (400, True), answer.text
    for path in ("eval-reports/list/", "eval-reports/create/"):
        answer = wire.post(known + path, {})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_offered")
    assert wire.post(f"{known}logs/list/", {"is_exporting": True}).status_code == 400


def test_a_key_with_bounds_has_no_datasets(wire: Wire) -> None:
    dataset = create(wire)
    project = wire.catalog.project_for_ingest(wire.catalog.authenticate("owner-key-of-the-tests"), None)
    bound = wire.key(*KeyScope, project_ids=[project.id])
    other = wire.key(*KeyScope, environment="production")
    for key in (bound, other):
        for method, path in (("GET", dataset), ("POST", f"{dataset}logs/list/"), ("POST", "/api/datasets/list/"),
                             ("DELETE", dataset), ("POST", "/api/datasets/")):  # fmt: skip
            body = None if method == "GET" else {"name": "n"} if path == "/api/datasets/" else {}
            assert wire.send(method, path, body, key=key).status_code == 403, (method, path)
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    assert wire.get(dataset, key=theirs).status_code == 404
    assert wire.get("/api/datasets/", key=theirs).json()["count"] == 0


def test_rows_come_back_as_they_came(wire: Wire) -> None:
    dataset = create(wire)
    body = (
        b'{"input": {"price": 1.10, "big": 123456789012345678901234567890}, "output": "plain", '
        b'"expected_output": [0.12345678901234567890123, null, "\\ud83d\\ude00"], '
        b'"metadata": {"k": 2.50, "deep": {"a": [1]}}, "metrics": {"cost": 0.5, "latency": 2, "total_tokens": 7}}'
    )
    unique_id = wire.post(f"{dataset}logs/", body).json()["unique_id"]
    answer = wire.get(f"{dataset}logs/{unique_id}/")
    for text in (b'"price": 1.10, "big": 123456789012345678901234567890', b"0.12345678901234567890123", b"2.50"):
        assert text in answer.content
    shown = answer.json()
    assert (shown["output"], shown["expected_output"][2], shown["metadata"]["deep"]) == ("plain", "😀", {"a": [1]})
    assert (shown["cost"], shown["latency"], shown["total_request_tokens"], shown["model"]) == (0.5, 2, 7, None)
    assert shown["unique_id"] == shown["id"] == unique_id
    values: list[Any] = ["text", ["list"], 3, None, True, {}]
    for value in values:
        added = add(wire, dataset, input=value)
        assert wire.get(f"{dataset}logs/{added}").json()["input"] == value


def test_rows_are_filtered_paged_and_cut(wire: Wire) -> None:
    dataset = create(wire)
    ids = []
    for number in range(5):
        wire.clock.advance(1)
        splits = ["train"] if number < 3 else ["test"]
        ids.append(
            add(wire, dataset, input={"n": number}, metadata={"n": number, "kind": f"k{number % 2}"}, splits=splits)
        )
    assert [each["input"]["n"] for each in rows(wire, dataset)] == [4, 3, 2, 1, 0]
    assert [each["input"]["n"] for each in rows(wire, dataset, "?sort_by=start_time&page_size=2&page=2")] == [2, 3]
    assert rows(wire, dataset, "?page=4&page_size=2") == []
    odd = {"metadata__kind": {"operator": "", "value": ["k1"]}}
    assert [each["unique_id"] for each in rows(wire, dataset, filters=odd)] == [ids[3], ids[1]]
    some = [{"field": "unique_id", "operator": "in", "value": [ids[0], UUID(ids[4]).hex, str(uuid4())]}]
    assert [each["unique_id"] for each in rows(wire, dataset, filters=some)] == [ids[4], ids[0]]
    assert [each["input"]["n"] for each in rows(wire, dataset, "?split=test")] == [4, 3]
    assert rows(wire, dataset, "?include_fields=input&page_size=1")[0].keys() == {"id", "unique_id", "input"}
    page = wire.post(f"{dataset}logs/list/?page_size=2", {"filters": odd}).json()
    assert (page["count"], page["total_count"], page["next"]) == (2, 2, None)
    for query in ("?sort_by=colour", "?page_size=101", "?page=0", "?as_of=never"):
        assert wire.post(f"{dataset}logs/list/{query}", {}).status_code == 400
    assert wire.post(f"{dataset}logs/list/", {"filters": {"colour": {"value": "x"}}}).status_code == 400


def test_a_change_is_a_version(wire: Wire) -> None:
    dataset = create(wire)
    unique_id = add(wire, dataset, input="a", output="b", expected_output="c", metadata={"k": 1}, metrics={"cost": 1})
    then = iso(wire.clock.now_ns())
    wire.clock.advance(60)
    changed = wire.send("PATCH", f"{dataset}logs/{unique_id}/", {"expected_output": "C", "error_code": "e1"}).json()
    assert (changed["input"], changed["output"], changed["expected_output"]) == ("a", "b", "C")
    assert (changed["cost"], changed["error_code"], changed["metadata"]) == (1, "e1", {"k": 1})
    wire.clock.advance(60)
    replaced = wire.send("PUT", f"{dataset}logs/{unique_id}/", {"completion": "B"}).json()
    assert (replaced["input"], replaced["output"], replaced["expected_output"]) == ("a", "B", None)
    assert (replaced["cost"], replaced["metadata"]) == (None, {})
    assert [each["expected_output"] for each in rows(wire, dataset)] == [None]
    assert [each["expected_output"] for each in rows(wire, dataset, f"?as_of={then}")] == ["c"]
    assert wire.get(f"{dataset}logs/{unique_id}?as_of={then}").json()["cost"] == 1
    assert rows(wire, dataset, "?as_of=2020-01-01") == []
    assert wire.send("PATCH", f"{dataset}logs/{uuid4()}/", {"input": 1}).status_code == 404


def test_many_rows_at_once_are_taken_one_by_one(wire: Wire) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    dataset = create(wire, inputs_schema=schema)
    logs: list[Any] = [
        {"input": {"n": 1.50}},
        {"input": {"n": 1}},
        {"output": "x"},
        7,
        {"input": {"n": 2}, "metadata": []},
    ]
    answer = wire.post(f"{dataset}logs/bulk/", {"logs": logs})
    told = answer.json()
    assert (answer.status_code, told["success_count"], told["error_count"]) == (201, 1, 4)
    assert [each["index"] for each in told["errors"]] == [0, 2, 3, 4]
    assert "1.5" not in told["errors"][0]["error"]
    assert "type at /n" in told["errors"][0]["error"]
    assert [each["unique_id"] for each in rows(wire, dataset)] == told["unique_ids"]
    assert wire.post(f"{dataset}logs/bulk/", {"logs": [{"input": 1}]}).status_code == 400
    wrong: list[Any] = [{}, {"logs": []}, {"logs": [{"input": 1}] * 501}]
    for body in wrong:
        assert wire.post(f"{dataset}logs/bulk/", body).status_code == 400
    again = {"logs": [{"id": told["unique_ids"][0], "input": {"n": 3}}, {"input": {"n": 4}}]}
    told = wire.post(f"{dataset}logs/bulk/", again).json()
    assert (told["success_count"], [each["index"] for each in told["errors"]]) == (1, [0])


def test_traces_become_rows_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.ingest(
        wire.span("t1", input={"q": 1}, output="because", customer_identifier="ann", metadata={"plan": "pro"}),
        wire.span("t2", input="why", output={"a": 2}, customer_identifier="bob"),
        wire.span("t3", ago_s=7200),
    )
    run = str(uuid4())
    at = iso(wire.clock.now_ns() - 60 * SECOND_NS)
    body = f'{{"id": "{run}", "trace_id": "{run}", "name": "r", "run_type": "chain", "start_time": "{at}", '
    body += '"inputs": {"x": 1.10}, "outputs": {"y": [1e2]}}'
    assert wire.post("/runs", body.encode()).status_code == 202
    dataset = create(wire)
    told = wire.post(f"{dataset}logs/import/", hour(wire)).json()
    assert (told["matched_count"], told["imported_count"], told["known_count"]) == (3, 3, 0)
    by_input = {json.dumps(each["input"]): each for each in rows(wire, dataset)}
    assert by_input['{"q": 1}']["expected_output"] == by_input['{"q": 1}']["output"] == "because"
    assert by_input['{"q": 1}']["metadata"] == {"plan": "pro"}
    assert by_input['"why"']["expected_output"] == {"a": 2}
    assert by_input['{"x": 1.1}']["source_trace_id"] == run
    assert b'{"x": 1.10}' in wire.post(f"{dataset}logs/list/", {}).content

    again = wire.post(f"{dataset}logs/import/", hour(wire)).json()
    assert (again["imported_count"], again["known_count"]) == (0, 3)
    one = {"filters": {"customer_identifier": {"value": ["ann"]}}}
    assert wire.post(f"{create(wire, 'e')}logs/import/", hour(wire) | one).json()["imported_count"] == 1
    none = wire.post(f"{create(wire, 'f')}logs/import/", hour(wire) | {"sampling_percentage": 1}).json()
    assert none["imported_count"] + none["sampled_out_count"] == 3
    made = wire.post("/api/datasets/", {"name": "g", "initial_log_filters": one["filters"], **hour(wire)}).json()
    assert (made["imported_count"], made["log_count"], made["initial_log_filters"]) == (1, 1, {})
    for wrong in ({}, hour(wire) | {"sampling_percentage": 0}, hour(wire) | {"filters": {"colour": {"value": 1}}}):
        assert wire.post(f"{dataset}logs/import/", wrong).status_code == 400
    monkeypatch.setattr(taking, "_AT_ONCE", 2)
    copied = wire.post("/api/datasets/", {"source_dataset_id": dataset.split("/")[3]}).json()
    assert (copied["name"], copied["log_count"]) == ("d (copy)", 3)


def test_only_what_fits_the_schema_is_imported(wire: Wire) -> None:
    wire.ingest(wire.span("t1", input={"q": 1}), wire.span("t2", input="why"))
    dataset = create(wire, inputs_schema={"type": "object"})
    told = wire.post(f"{dataset}logs/import/", hour(wire)).json()
    assert (told["imported_count"], told["unfit_count"]) == (1, 1)
    assert "type at /" in told["message"]
    assert "why" not in told["message"]


def test_a_deleted_trace_takes_its_rows(wire: Wire) -> None:
    wire.ingest(wire.span("t1", input="needle"), wire.span("t2", input="other"))
    dataset = create(wire)
    wire.post(f"{dataset}logs/import/", hour(wire))
    [row] = rows(wire, dataset, filters={"text": {"operator": "contains", "value": "needle"}})
    wire.send("PATCH", f"{dataset}logs/{row['unique_id']}/", {"metadata": {"seen": "yes"}})
    deleted = wire.send("DELETE", "/api/traces/t1/").json()
    assert (deleted["deleted_count"] - deleted["copies"], deleted["state"]) == (1, "verified")
    assert [each["input"] for each in rows(wire, dataset)] == ["other"]
    assert (
        rows(
            wire,
            dataset,
            f"?as_of={iso(wire.clock.now_ns())}",
            filters={"text": {"operator": "contains", "value": "needle"}},
        )
        == []
    )


def test_a_row_goes_with_all_its_versions(wire: Wire) -> None:
    dataset = create(wire)
    gone, stays = add(wire, dataset, input="gone"), add(wire, dataset, input="stays")
    for number in range(3):
        wire.send("PATCH", f"{dataset}logs/{gone}/", {"expected_output": number})
    answer = wire.send("DELETE", f"{dataset}logs/{gone}/")
    assert (answer.status_code, answer.content, answer.headers["clearspan-deletion-state"]) == (204, b"", "verified")
    assert wire.get(answer.headers["location"]).json()["traces"]["hidden"] == 4
    assert [each["unique_id"] for each in rows(wire, dataset)] == [stays]
    assert wire.get(f"{dataset}logs/{gone}?as_of={iso(wire.clock.now_ns())}").status_code == 404
    assert wire.send("DELETE", f"{dataset}logs/{gone}/").status_code == 404
    assert wire.send("PATCH", f"{dataset}logs/{gone}/", {"input": 1}).status_code == 404
    assert wire.post(f"{dataset}logs/", {"id": gone, "input": 1}).status_code == 400
    assert wire.send("DELETE", f"{dataset}logs/{stays}/?environment=x").status_code == 400


def test_rows_go_by_filter_or_all(wire: Wire) -> None:
    dataset = create(wire)
    for number in range(4):
        add(wire, dataset, input=number, metadata={"n": number})
    path = f"{dataset}logs/import/"
    wrong: list[Any] = [
        {}, {"filters": {}}, {"is_deleting_all_logs": False}, {"is_deleting_all_logs": "yes"}, {"filter": {}},
        {"is_deleting_all_logs": True, "filters": {"metadata__n": {"value": [1]}}},
        {"filters": {"colour": {"value": "red"}}},
    ]  # fmt: skip
    for body in wrong:
        assert wire.send("DELETE", path, body).status_code == 400, body
    assert len(rows(wire, dataset)) == 4
    answer = wire.send("DELETE", path, {"filters": {"metadata__n": {"operator": "in", "value": [1, 2]}}})
    told = answer.json()
    assert (answer.status_code, told["matched_count"], told["message"]) == (200, 2, "2 logs deleted")
    assert answer.headers["clearspan-deletion-id"] == told["deletion_id"]
    assert [each["input"] for each in rows(wire, dataset, "?sort_by=timestamp")] == [0, 3]
    assert wire.send("DELETE", path, {"is_deleting_all_logs": True}).json()["matched_count"] == 2
    assert rows(wire, dataset) == []
    add(wire, dataset, input="again")
    careful = wire.key(KeyScope.DELETE, policy=KeyPolicy(require_reason=True, forbid_delete_all=True))
    assert wire.send("DELETE", path, {"is_deleting_all_logs": True}, key=careful).status_code == 422
    assert wire.send("DELETE", path, {"is_deleting_all_logs": True}, key=careful,
                     headers={"Clearspan-Reason": "why"}).status_code == 200  # fmt: skip


def test_a_held_row_stays(wire: Wire) -> None:
    dataset = create(wire)
    add(wire, dataset, input=1)
    hold = wire.post("/v1/holds", {"reason": "court", "everything": True})
    assert hold.status_code in (200, 201), hold.text
    [row] = rows(wire, dataset)
    for path in (f"{dataset}logs/{row['unique_id']}/", dataset):
        answer = wire.send("DELETE", path)
        assert (answer.status_code, answer.json()["code"]) == (409, "held"), path
    assert len(rows(wire, dataset)) == 1


def test_a_dataset_goes_with_its_rows(wire: Wire) -> None:
    dataset = create(wire)
    add(wire, dataset, input="x")
    answer = wire.send("DELETE", dataset)
    assert (answer.status_code, answer.content) == (204, b"")
    assert wire.get(answer.headers["location"]).json()["state"] == "verified"
    for path in (dataset, f"{dataset}logs/list/"):
        assert wire.get(path).status_code == 404
    assert wire.get("/api/datasets/").json()["count"] == 0
    create(wire)  # its name is free
    assert wire.send("DELETE", dataset).status_code == 404


def test_a_summary_counts_what_rows_say(wire: Wire) -> None:
    dataset = create(wire)
    add(wire, dataset, input=1, metrics={"cost": 0.5, "latency": 2, "prompt_tokens": 3, "completion_tokens": 8})
    add(wire, dataset, input=2, metrics={"cost": 0.25, "latency": 4, "total_request_tokens": 9})
    add(wire, dataset, input=3)
    told = wire.post(f"{dataset}logs/summary/", {}).json()
    assert (told["number_of_requests"], told["total_cost"], told["avg_latency"]) == (3, 0.75, 3.0)
    assert (told["total_tokens"], told["total_prompt_tokens"], told["scores"]) == (9, 3, {})


def test_no_ordinary_read_shows_a_row(wire: Wire) -> None:
    dataset = create(wire)
    add(wire, dataset, input="needle")
    assert wire.list_ids("?start_time=2020-01-01") == []
    assert [each["name"] for each in wire.get("/sessions").json()] == ["default"]


def test_a_change_that_a_deletion_overtook_is_taken_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = create(wire)
    unique_id = add(wire, dataset, input="old")
    items = wire.services.items
    found = wire.services.catalog.datasets.find(wire.catalog.first_org.id, UUID(dataset.split("/")[3]).hex)
    assert found is not None
    submit = items._submit

    async def slow(prepared: Any) -> Any:
        deletion = wire.send("DELETE", f"{dataset}logs/import/", {"is_deleting_all_logs": True})
        assert deletion.status_code == 200
        return await submit(prepared)

    monkeypatch.setattr(items, "_submit", slow)
    with pytest.raises(NotFound):
        asyncio.run(items.update(found, [ItemChange(UUID(unique_id).hex, inputs="new")]))
    assert rows(wire, dataset) == []
    assert rows(wire, dataset, f"?as_of={iso(wire.clock.now_ns() + SECOND_NS)}") == []


@pytest.mark.parametrize("what", ["trace", "root"])
def test_what_is_deleted_while_it_is_imported_leaves_no_row(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    wire.ingest(
        wire.span("t1", "first", input="needle"),
        wire.span("t1", "second", ago_s=30, input="later"),
        wire.span("t2", ago_s=20, input="other"),
    )
    dataset = create(wire)
    found = wire.services.catalog.datasets.find(wire.catalog.first_org.id, UUID(dataset.split("/")[3]).hex)
    assert found is not None
    items = wire.services.items
    add_items = items.add

    async def slow(*args: Any) -> Any:
        asked = {"trace_ids": ["t1"]} if what == "trace" else {"span_ids": ["t1/first"]}
        assert wire.post("/v1/deletions", asked | {"wait": "verified"}).json()["state"] == "verified"
        return await add_items(*args)

    monkeypatch.setattr(items, "add", slow)
    selected = Selected(Scope(wire.catalog.authenticate(OWNER_KEY).project_ids))
    told = asyncio.run(items_from_traces(items, wire.services.reader, found, selected, principal_key=None))
    assert (told.matched, len(told.added), told.deleted) == (2, 1, 1)
    assert [each["input"] for each in rows(wire, dataset)] == ["other"]
