"""LangSmith's datasets and examples: what is taken, what is refused, what versions show, and what deletions take."""

from __future__ import annotations

import csv
import io
import json
import uuid
from typing import Any

import pytest
from langsmith_requests import multipart, run, run_id

from clearspan.catalog import KeyPolicy, KeyScope
from clearspan.catalog.projects import ProjectSettings
from clearspan.experiments import item_reading
from clearspan.testing.wire import OWNER_KEY, Wire

NOBODY = str(uuid.UUID(int=7))


def dataset(wire: Wire, name: str = "ds", **fields: Any) -> str:
    answer = wire.post("/datasets", {"name": name, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def add(wire: Wire, dataset_id: str, *examples: dict[str, Any]) -> list[str]:
    answer = wire.post("/examples/bulk", [{"dataset_id": dataset_id, **each} for each in examples])
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()]


def listed(wire: Wire, dataset_id: str, **query: Any) -> list[Any]:
    answer = wire.get("/examples", params={"dataset": dataset_id, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def values(wire: Wire, dataset_id: str, **query: Any) -> list[Any]:
    return [each["inputs"]["x"] for each in listed(wire, dataset_id, **query)]


def upload(wire: Wire, dataset_id: str, *parts: tuple[str, Any], method: str = "POST", kind: str = "") -> Any:
    body, headers = multipart(*parts, **({"kind": kind} if kind else {}))
    return wire.send(method, f"/v1/platform/datasets/{dataset_id}/examples", body, headers=headers)


# -- datasets


def test_a_dataset_is_made_found_changed_and_listed(wire: Wire) -> None:
    own = str(uuid.uuid4())
    first = wire.post("/datasets", {"id": own, "name": "one", "extra": {"metadata": {"k": 1}, "source": "sdk"}}).json()
    assert (first["id"], first["data_type"], first["metadata"]) == (own, "kv", {"k": 1})
    assert (first["example_count"], first["session_count"], first["on_source_deleted"]) == (0, 0, "erase")
    wire.clock.advance(1)
    second = dataset(wire, "Two", description="d", data_type="chat")
    wire.catalog.create_project(
        wire.catalog.first_org.id, "exp", settings=ProjectSettings(reference_dataset_id=second.replace("-", ""))
    )

    def names(query: str = "") -> list[str]:
        return [each["name"] for each in wire.get(f"/datasets{query}").json()]

    assert names() == ["Two", "one"]
    assert names("?sort_by=name&sort_by_desc=false") == ["Two", "one"]
    assert names("?name=one") == names(f"?id={own}") == names('?metadata={"k":1}') == ["one"]
    assert names("?name_contains=TW") == names("?data_type=chat") == names("?limit=1") == ["Two"]
    assert names("?offset=1") == ["one"]
    assert names("?sort_by=last_session_start_time") == ["Two", "one"]
    page = wire.get("/api/v2/datasets?page_size=1").json()
    assert [each["name"] for each in page["items"]] == ["Two"]
    assert wire.get(f"/v2/datasets?page_size=1&cursor={page['next_cursor']}").json()["next_cursor"] is None
    changed = wire.send("PATCH", f"/datasets/{own}", {"name": "uno", "description": None, "metadata": {"k": 2}}).json()
    assert (changed["name"], changed["metadata"]) == ("uno", {"k": 2})
    assert wire.get(f"/datasets/{second}").json()["session_count"] == 1
    assert wire.get(f"/datasets/{own}/share").json() is None
    assert wire.send("PUT", f"/datasets/{own}/share", {}).status_code == 501


WRONG_DATASETS: list[tuple[dict[str, Any], str]] = [
    ({}, "name"),
    ({"name": "ds", "data_type": "kv2"}, "data_type"),
    ({"name": "ds", "id": "x"}, "id"),
    ({"name": "ds", "inputs_schema_definition": {"type": "nothing"}}, "inputs_schema_definition"),
    ({"name": "ds", "transformations": [1]}, "transformations"),
    ({"name": "ds", "on_source_deleted": "keep"}, "on_source_deleted"),
]


def test_a_wrong_dataset_is_a_422_that_names_the_field(wire: Wire) -> None:
    for body, field in WRONG_DATASETS:
        answer = wire.post("/datasets", body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert wire.get("/datasets").json() == []


def test_a_taken_name_is_a_409_and_an_unknown_dataset_a_404(wire: Wire) -> None:
    dataset(wire)
    assert wire.post("/datasets", {"name": "ds"}).status_code == 409
    for method, path in (
        ("GET", f"/datasets/{NOBODY}"),
        ("PATCH", f"/datasets/{NOBODY}"),
        ("DELETE", f"/datasets/{NOBODY}"),
        ("GET", f"/examples?dataset={NOBODY}"),
        ("GET", f"/examples/{NOBODY}"),
        ("DELETE", f"/examples/{NOBODY}"),
        ("GET", f"/datasets/{NOBODY}/versions"),
        ("GET", f"/datasets/{NOBODY}/splits"),
        ("GET", f"/datasets/{NOBODY}/csv"),
    ):
        assert wire.send(method, path, {} if method == "PATCH" else None).status_code == 404, (method, path)
    assert "dataset not found" in wire.get(f"/datasets/{NOBODY}").text.lower()  # clients look for these words


# -- examples in


def test_values_come_back_in_the_text_that_was_sent(wire: Wire) -> None:
    ds = dataset(wire)
    text = '{"x":1.10,"big":123456789012345678901234567890,"z":"\\u00e9","a":null}'
    body = f'[{{"dataset_id":"{ds}","inputs":{text},"outputs":{{"y":2.0}}}}]'.encode()
    told = wire.post("/examples/bulk", body, headers={"Content-Type": "application/json"}).text
    assert text in told
    assert '{"y":2.0}' in told
    assert text in wire.get(f"/examples?dataset={ds}").text


BAD_EXAMPLES: list[dict[str, Any]] = [
    {"inputs": [1]},
    {"outputs": "text", "inputs": {}},
    {"inputs": {}, "metadata": 1},
    {"inputs": {}, "split": [1]},
    {"inputs": {}, "id": "x"},
    {"inputs": {}, "source_run_id": 1},
    {"inputs": {}, "created_at": []},
    {},
    {"inputs": {}, "dataset_id": NOBODY},
    {"use_source_run_io": True},
    {"use_source_run_io": True, "source_run_id": NOBODY},
]


def test_with_one_bad_example_nothing_of_its_request_is_stored(wire: Wire) -> None:
    ds = dataset(wire)
    for bad in BAD_EXAMPLES:
        body = [{"dataset_id": ds, "inputs": {"x": 1}}, {"dataset_id": ds, **bad}]
        answer = wire.post("/examples/bulk", body)
        assert answer.status_code == (404 if bad.get("source_run_id") == NOBODY else 422), answer.text
    assert listed(wire, ds) == []


def test_what_is_no_list_of_examples_is_a_422(wire: Wire) -> None:
    for body in [b"{", b"[]", b"{}", b'"x"', b"[1]", b'[{"inputs":{"x":NaN}}]']:
        assert wire.post("/examples/bulk", body).status_code == 422, body


def test_parts_of_an_example_come_in_any_order_and_are_stored_once(wire: Wire) -> None:
    ds, one, two = dataset(wire), str(uuid.uuid4()), str(uuid.uuid4())
    answer = upload(
        wire, ds, (f"{one}.inputs", {"x": 1}), (one, {"inputs": {"x": 0}, "split": "test"}), (two, {"inputs": {"x": 2}})
    )
    assert (answer.status_code, answer.json()["count"], answer.json()["example_ids"]) == (201, 2, [one, two])
    assert values(wire, ds) == [1, 2]
    assert values(wire, ds, splits="test") == [1]
    again = upload(wire, ds, (one, {"inputs": {"x": 1}}))
    assert again.status_code == 409


def test_examples_that_are_sent_again_are_stored_once(wire: Wire) -> None:
    """A client that lost the answer sends the same ids again: each way in answers as it did the first time."""
    ds, other, one, two, three = dataset(wire), dataset(wire, "other"), *[str(uuid.uuid4()) for _ in range(3)]
    said = {"inputs": {"x": 1}, "outputs": {"y": 1.50}, "metadata": {"k": "v"}, "split": ["a", "b"]}
    parts: list[tuple[str, Any]] = [(one, said), (f"{one}.attachment.f", b"bytes"), (two, {"inputs": {"x": 2}})]
    first = upload(wire, ds, *parts)
    listing = [{"id": three, "dataset_id": ds, "inputs": {"x": 3}, "created_at": "2026-01-01T00:00:00Z"}]
    of_list = wire.post("/examples/bulk", listing)
    wire.clock.advance(1)
    # Somebody changed one in between: what was sent is still what was stored.
    assert wire.send("PATCH", f"/examples/{two}", {"inputs": {"x": 20}}).status_code == 200
    version = wire.get(f"/datasets/{ds}").json()["modified_at"]
    again = upload(wire, ds, *parts)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    twice = wire.post("/examples/bulk", listing)
    assert (of_list.status_code, twice.status_code, twice.json()) == (200, 200, of_list.json())
    assert wire.post("/examples", listing[0]).json() == of_list.json()[0]
    assert wire.get(f"/datasets/{ds}").json()["modified_at"] == version, "nothing was written"
    assert sorted(values(wire, ds)) == [1, 3, 20]
    four = str(uuid.uuid4())
    more = upload(wire, ds, (four, {"inputs": {"x": 4}}), *parts)
    assert (more.status_code, more.json()["example_ids"]) == (201, [four, one, two]), "what is new is stored"
    # The client says the present time where its caller says none: another one when a script runs again.
    timed = upload(wire, ds, (one, said | {"created_at": "2020-01-01T00:00:00Z"}), parts[1])
    assert (timed.status_code, timed.json()["example_ids"]) == (201, [one])
    for changed in ({"inputs": {"x": 9}}, {"outputs": {}}, {"metadata": {}}, {"split": "a"}):
        assert upload(wire, ds, (one, said | changed), parts[1]).status_code == 409, changed
    for files in ([], [(f"{one}.attachment.f", b"byteZ")], [(f"{one}.attachment.g", b"bytes")]):
        assert upload(wire, ds, (one, said), *files).status_code == 409, files
    assert upload(wire, other, *parts).status_code == 409, "the ids are those of another dataset's"
    assert wire.send("DELETE", f"/examples/{two}").status_code == 200
    assert upload(wire, ds, *parts[:2]).status_code == 201
    assert upload(wire, ds, parts[2]).status_code == 409, "what was deleted does not come back"


FAULTY_PARTS: list[tuple[str, Any]] = [
    ("x", {}),
    ("{id}.nothing", {}),
    ("{id}", []),
    ("{id}.inputs", []),
    ("{id}.inputs", b"{"),
    ("{id}.attachment.", b"x"),
    ("{id}.attachments_operations", {"rename": {"a": 1}}),
    ("{id}.attachments_operations", {"rename": {"a": "c"}, "retain": ["c"]}),
]


def test_a_faulty_part_refuses_the_body(wire: Wire) -> None:
    ds, own = dataset(wire), str(uuid.uuid4())
    for part in FAULTY_PARTS:
        answer = upload(wire, ds, (own, {"inputs": {"x": 1}}), (part[0].replace("{id}", own), part[1]))
        assert answer.status_code == 422, answer.text
    assert listed(wire, ds) == []


def test_upsert_adds_what_is_new_and_changes_what_is_there(wire: Wire) -> None:
    ds = dataset(wire)
    [old] = add(wire, ds, {"inputs": {"x": 1}})
    new = str(uuid.uuid4())
    body, headers = multipart(
        (old, {"dataset_id": ds}), (f"{old}.inputs", {"x": 10}), (new, {"dataset_id": ds, "inputs": {"x": 2}})
    )
    answer = wire.post("/v1/platform/examples/multipart", body, headers=headers)
    assert (answer.status_code, answer.json()["count"]) == (201, 2)
    assert sorted(values(wire, ds)) == [2, 10]


def test_a_schema_is_held_by_new_changed_and_earlier_examples(wire: Wire) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    ds = dataset(wire, inputs_schema_definition=schema)
    refused = wire.post("/examples", {"dataset_id": ds, "inputs": {"x": "secret"}})
    assert refused.status_code == 422
    assert "schema" in refused.text
    assert "secret" not in refused.text
    [one] = add(wire, ds, {"inputs": {"x": 1}, "outputs": {"y": 1}})
    assert wire.send("PATCH", f"/examples/{one}", {"inputs": {}}).status_code == 422
    narrow = {"outputs_schema_definition": {"properties": {"y": {"type": "string"}}}}
    assert wire.send("PATCH", f"/datasets/{ds}", narrow).status_code == 422
    assert wire.get(f"/datasets/{ds}").json()["outputs_schema_definition"] is None
    assert values(wire, ds) == [1]


# -- examples out


def test_lists_know_ids_splits_metadata_filters_and_fields(wire: Wire) -> None:
    ds = dataset(wire)
    ids = add(
        wire, ds,
        {"inputs": {"x": "red apple"}, "metadata": {"k": "v", "dataset_split": ["test"]}},
        {"inputs": {"x": "green pear"}, "metadata": {"n": {"m": 1}}, "split": ["train", "test"]},
        {"inputs": {"x": "plum"}},
    )  # fmt: skip
    apple, pear, plum = "red apple", "green pear", "plum"
    assert values(wire, ds) == [apple, pear, plum]
    assert values(wire, ds, order="recent", limit=1) in ([plum], [pear], [apple])  # of one moment
    assert values(wire, ds, limit=1, offset=1) == [pear]
    assert values(wire, ds, splits="test") == [apple, pear]
    assert values(wire, ds, splits="base") == [plum]
    assert (
        values(wire, ds, metadata='{"n":{"m":1}}') == values(wire, ds, filter="has(metadata, '{\"n.m\": 1}')") == [pear]
    )
    assert values(wire, ds, filter='and(not(exists(metadata, "k")), search("plum"))') == [plum]
    assert values(wire, ds, full_text_contains="PEAR") == [pear]
    assert values(wire, ds, id=[ids[0], ids[2]]) == [apple, plum]
    assert [each["id"] for each in wire.get("/examples", params={"id": [NOBODY, ids[1]]}).json()] == [ids[1]]
    assert wire.get(f"/examples/count?dataset={ds}&splits=test").json() == 2
    narrow = listed(wire, ds, select="inputs", exclude_default_fields="true", limit=1)
    assert narrow == [{"id": ids[0], "dataset_id": ds, "inputs": {"x": apple}}]
    for query in ("", "?dataset=x", f"?dataset={ds}&filter=eq(name,%20%22a%22)", f"?dataset={ds}&order=random"):
        assert wire.get(f"/examples{query}").status_code == 422, query
    assert wire.get(f"/examples?dataset={ds}&select=nothing").status_code == 422


def test_versions_show_examples_as_they_were(wire: Wire) -> None:
    ds = dataset(wire)
    [one] = add(wire, ds, {"inputs": {"x": 1}, "outputs": {"y": 1}})
    wire.clock.advance(10)
    told = wire.send("PATCH", f"/examples/{one}", {"inputs": {"x": 2}}).json()
    assert (told["inputs"], told["outputs"], told["id"]) == ({"x": 2}, {"y": 1}, one)
    wire.clock.advance(10)
    [two] = add(wire, ds, {"inputs": {"x": 3}})
    newest, middle, oldest = wire.get(f"/datasets/{ds}/versions").json()
    assert [newest["tags"], oldest["tags"]] == [["latest"], []]
    assert wire.send("PUT", f"/datasets/{ds}/tags", {"as_of": oldest["as_of"], "tag": "prod"}).json()["tags"] == [
        "prod"
    ]
    assert [values(wire, ds, as_of=each) for each in ("prod", middle["as_of"], "latest")] == [[1], [2], [2, 3]]
    assert wire.get(f"/examples/{one}", params={"as_of": oldest["as_of"]}).json()["inputs"] == {"x": 1}
    diff = wire.get(f"/datasets/{ds}/versions/diff?from_version=prod&to_version=latest").json()
    assert diff == {"examples_modified": [one], "examples_added": [two], "examples_removed": []}
    assert wire.get(f"/datasets/{ds}/version?tag=prod").json() == {"as_of": oldest["as_of"], "tags": ["prod"]}
    assert [each["tags"] for each in wire.get(f"/datasets/{ds}/versions?search=PRO").json()] == [["prod"]]
    assert wire.get(f"/datasets/{ds}/versions?limit=1&offset=1").json() == [middle]
    for path in (f"/examples?dataset={ds}&as_of=nobody", f"/datasets/{ds}/version?tag=nobody",
                 f"/datasets/{ds}/version?as_of=2020-01-01"):  # fmt: skip
        assert wire.get(path).status_code == 404, path
    assert wire.send("PUT", f"/datasets/{ds}/tags", {"as_of": oldest["as_of"], "tag": "latest"}).status_code == 422


def test_splits_and_metadata_change_for_many_at_once(wire: Wire) -> None:
    ds = dataset(wire)
    one, two = add(wire, ds, {"inputs": {"x": 1}, "metadata": {"a": 1.50, "l": ["p"]}}, {"inputs": {"x": 2}})
    assert wire.get(f"/datasets/{ds}/splits").json() == ["base"]
    body = {"split_name": "test", "examples": [one]}
    assert wire.send("PUT", f"/datasets/{ds}/splits", body).json() == ["base", "test"]
    assert wire.send("PUT", f"/datasets/{ds}/splits", body | {"remove": True}).json() == ["base"]
    operations = [
        {"key": "dataset_split", "operation": "array_add", "values": ["late"]},
        {"key": "dataset_split", "operation": "ARRAY_REMOVE", "values": ["base"]},
        {"key": "b", "operation": "SET", "value": {"c": None}},
        {"key": "l", "operation": "ARRAY_ADD", "values": ["q", "p"]},
    ]
    path = f"/v1/platform/datasets/{ds}/examples/metadata"
    answer = wire.send("PATCH", path, {"example_ids": [one, NOBODY], "operations": operations})
    assert answer.status_code == 207
    assert [each["status"] for each in answer.json()["statuses"]] == ["UPDATED", "NOT_FOUND"]
    metadata = wire.get(f"/examples/{one}").json()["metadata"]
    assert metadata == {"a": 1.5, "l": ["p", "q"], "b": {"c": None}, "dataset_split": ["late"]}
    assert wire.get(f"/examples/{two}").json()["metadata"] == {"dataset_split": ["base"]}
    for wrong in ([], [{"key": "", "operation": "SET"}], [{"key": "a", "operation": "ADD"}],
                  [{"key": "dataset_split", "operation": "SET", "value": []}]):  # fmt: skip
        assert wire.send("PATCH", path, {"example_ids": [one], "operations": wrong}).status_code == 422


def test_attachments_go_in_are_renamed_and_come_out_by_links(wire: Wire) -> None:
    ds, own = dataset(wire), str(uuid.uuid4())
    data = bytes(range(256)) + b"\r\n--0570"
    made = upload(wire, ds, (own, b'{"inputs":{}}'), (f"{own}.attachment.face", data), kind="image/png")
    assert made.status_code == 201, made.text

    def files() -> dict[str, bytes]:
        urls = wire.get(f"/examples/{own}").json()["attachment_urls"] or {}
        return {name: wire.get(each["presigned_url"], key=None).content for name, each in urls.items()}

    [told] = listed(wire, ds, select="attachment_urls")
    link = told["attachment_urls"]["attachment.face"]
    assert (link["mime_type"], wire.get(link["presigned_url"], key=None).content) == ("image/png", data)
    upload(wire, ds, (own, {}), (f"{own}.attachment.note", b"hi"), method="PATCH")
    assert files() == {"attachment.face": data, "attachment.note": b"hi"}
    kept = {"rename": {"face": "front"}}
    upload(wire, ds, (own, {}), (f"{own}.attachments_operations", kept), method="PATCH")
    assert files() == {"attachment.front": data}
    missing = upload(wire, ds, (own, {}), (f"{own}.attachments_operations", {"retain": ["x"]}), method="PATCH")
    assert missing.status_code == 404
    assert wire.send("DELETE", f"/examples/{own}").json()["state"] == "verified"
    assert wire.get(link["presigned_url"], key=None).status_code == 404


def test_csv_and_json_lines_go_out_and_csv_comes_in(wire: Wire) -> None:
    table = b'q,a,other\r\n"one, two",2,x\r\nthree,4,y\r\n'
    parts = [("input_keys", b"q"), ("output_keys", b"a"), ("name", b"up"), ("file", table)]
    body, headers = multipart(*parts, kind="text/csv")
    made = wire.post("/datasets/upload", body, headers=headers)
    assert (made.status_code, made.json()["example_count"]) == (200, 2), made.text
    ds = made.json()["id"]
    rows = list(csv.DictReader(io.StringIO(wire.get(f"/datasets/{ds}/csv").text)))
    assert [json.loads(each["inputs"]) for each in rows] == [{"q": "one, two"}, {"q": "three"}]
    lines = [json.loads(each) for each in wire.get(f"/datasets/{ds}/jsonl").text.splitlines()]
    assert [each["outputs"] for each in lines] == [{"a": "2"}, {"a": "4"}]
    for wrong in ([("file", table)], [("input_keys", b"q")], [("input_keys", b"z"), ("file", table)]):
        body, headers = multipart(*wrong, kind="text/csv")
        assert wire.post("/datasets/upload", body, headers=headers).status_code == 422


def test_an_export_of_large_examples_is_read_in_smaller_parts(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = dataset(wire)
    add(wire, ds, *({"inputs": {"x": "a" * 2000}} for _ in range(7)))
    monkeypatch.setattr(item_reading, "PAGE_BYTES_MAX", 6000)
    assert len(wire.get(f"/datasets/{ds}/jsonl").text.splitlines()) == 7


# -- deletion


def test_deleting_examples_takes_every_version_and_says_so(wire: Wire) -> None:
    ds, other = dataset(wire), dataset(wire, "other")
    one, two = add(wire, ds, {"inputs": {"x": 1}}, {"inputs": {"x": 2}})
    [three] = add(wire, other, {"inputs": {"x": 3}})
    wire.clock.advance(1)
    wire.send("PATCH", f"/examples/{one}", {"inputs": {"x": 10}})
    before = wire.get(f"/datasets/{ds}/versions").json()
    answer = wire.send("DELETE", f"/examples?example_ids={one}&example_ids={three}&example_ids={NOBODY}")
    told = answer.json()
    assert (answer.status_code, told["state"], told["deleted_count"]) == (200, "verified", 3), told
    assert (told["example_ids"], told["unmatched_ids"]) == ([one, three], [NOBODY])
    assert answer.headers["clearspan-deletion-id"] == told["deletion_id"]
    assert wire.get(f"/v1/deletions/{told['deletion_id']}/receipt").status_code == 200
    assert [values(wire, ds), values(wire, other), values(wire, ds, as_of=before[1]["as_of"])] == [[2], [], [2]]
    assert wire.post("/examples", {"dataset_id": ds, "id": one, "inputs": {}}).status_code == 409
    gone = wire.post("/v1/platform/datasets/examples/delete", {"example_ids": [two], "hard_delete": True})
    assert gone.json()["deleted_count"] == 1
    assert wire.send("DELETE", f"/v1/platform/datasets/{ds}/examples/{two}").status_code == 404


def test_a_removed_dataset_frees_its_name_and_leaves_nothing(wire: Wire) -> None:
    ds, empty = dataset(wire), dataset(wire, "empty")
    [one] = add(wire, ds, {"inputs": {"x": 1}})
    answer = wire.send("DELETE", f"/datasets/{ds}")
    assert (answer.status_code, answer.json()["datasets"][0]["deleted_count"]) == (200, 1)
    assert answer.headers["location"] == f"/v1/deletions/{answer.json()['datasets'][0]['deletion_id']}"
    assert [wire.get(path).status_code for path in (f"/datasets/{ds}", f"/examples/{one}")] == [404, 404]
    assert wire.send("DELETE", f"/datasets?dataset_ids={empty}&dataset_ids={NOBODY}").status_code == 404
    assert wire.send("DELETE", f"/datasets?dataset_ids={empty}").status_code == 200
    assert wire.get("/datasets").json() == []
    dataset(wire)


def test_of_several_datasets_one_that_is_refused_keeps_none_from_going(wire: Wire) -> None:
    small, large = dataset(wire), dataset(wire, "large")
    add(wire, small, {"inputs": {"x": 1}})
    add(wire, large, {"inputs": {"x": 1}}, {"inputs": {"x": 2}})
    key = wire.key(*KeyScope, policy=KeyPolicy(max_traces=1))
    answer = wire.send("DELETE", f"/datasets?dataset_ids={large}&dataset_ids={small}", key=key)
    assert answer.status_code == 202, answer.text
    refused, gone = answer.json()["datasets"]
    assert (refused["id"], refused["error"], gone["state"]) == (large, "key_limit_exceeded", "verified")
    assert wire.send("DELETE", f"/datasets/{large}", key=key).status_code == 422
    assert [each["id"] for each in wire.get("/datasets").json()] == [large]


@pytest.mark.parametrize(("policy", "left"), [("erase", []), ("redact", [{}]), ("detach", [{"q": 1}])])
def test_an_example_made_from_a_run_goes_with_it_as_the_dataset_says(wire: Wire, policy: str, left: list[Any]) -> None:
    wire.post("/runs", run(1, outputs={"a": 1.50}))
    ds = dataset(wire, on_source_deleted=policy)
    made = wire.post("/examples", {"dataset_id": ds, "source_run_id": run_id(1), "use_source_run_io": True}).json()
    assert (made["inputs"], made["outputs"], made["source_run_id"]) == ({"q": 1}, {"a": 1.5}, run_id(1))
    session = wire.get("/sessions?name=p").json()[0]["id"]
    deleted = wire.post("/runs/delete", {"session_id": session, "trace_ids": [run_id(1)]})
    assert deleted.json()["state"] == "verified", deleted.text
    assert [each["inputs"] or {} for each in listed(wire, ds)] == left


def test_files_of_the_source_run_come_along_when_named(wire: Wire) -> None:
    body, headers = multipart(("post." + run_id(1), run(1)), (f"attachment.{run_id(1)}.img", b"picture"))
    assert wire.post("/runs/multipart", body, headers=headers).status_code == 202
    ds = dataset(wire)
    said = {"dataset_id": ds, "source_run_id": run_id(1), "use_source_run_io": True}
    assert wire.post("/examples", said | {"use_source_run_attachments": ["x"]}).status_code == 404
    made = wire.post("/examples", said | {"use_source_run_attachments": ["img"]}).json()
    link = made["attachment_urls"]["attachment.img"]["presigned_url"]
    assert wire.get(link, key=None).content == b"picture"


# -- who may


def test_datasets_are_their_organisations_and_not_of_bounded_keys(wire: Wire) -> None:
    ds = dataset(wire)
    [one] = add(wire, ds, {"inputs": {"x": "needle"}})
    org = wire.catalog.first_org.id
    project = wire.catalog.create_project(org, "bounds")
    other = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    bound = wire.key(*KeyScope, project_ids=[project.id])
    placed = wire.key(*KeyScope, environment="prod")
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"/datasets/{ds}", None),
        ("PATCH", f"/datasets/{ds}", {"name": "mine"}),
        ("DELETE", f"/datasets/{ds}", None),
        ("GET", f"/examples?dataset={ds}", None),
        ("GET", f"/examples/{one}", None),
        ("PATCH", f"/examples/{one}", {"inputs": {}}),
        ("DELETE", f"/examples/{one}", None),
        ("DELETE", f"/examples?example_ids={one}", None),
        ("POST", "/examples", {"dataset_id": ds, "inputs": {}}),
        ("POST", f"/datasets/{ds}/runs", {"session_ids": [NOBODY]}),
        ("POST", f"/api/v2/datasets/{ds}/experiment-runs", {"experiment_ids": [NOBODY]}),
        ("GET", f"/datasets/{ds}/jsonl", None),
        ("GET", f"/datasets/{ds}/versions", None),
    ]
    for key, status in ((other, 404), (bound, 403), (placed, 403)):
        for method, path, body in asked:
            answer = wire.send(method, path, body, key=key)
            assert (answer.status_code, "needle" in answer.text) == (status, False), (method, path, answer.text)
    assert wire.get("/datasets", key=other).json() == wire.get(f"/examples?id={one}", key=other).json() == []
    assert (
        wire.get("/datasets", key=bound).status_code
        == wire.post("/datasets", {"name": "x"}, key=bound).status_code
        == 403
    )
    assert wire.post("/datasets", {"name": "ds"}, key=other).status_code == 200  # names are each organisation's own
    assert values(wire, ds) == ["needle"]


def test_no_ordinary_read_shows_an_example_or_its_project(wire: Wire) -> None:
    ds = dataset(wire)
    [one] = add(wire, ds, {"inputs": {"x": "needle"}})
    assert wire.get(f"/runs/{one}").status_code == 404
    assert wire.post("/runs/query", {"query": "needle"}).json()["runs"] == []
    assert "dataset:" not in wire.get("/sessions").text
    assert wire.list_ids(wire.window()) == []
    assert wire.get(f"/api/traces/{one.replace('-', '')}/").status_code == 404
    assert wire.send("GET", "/sessions", key=OWNER_KEY, params={"name": f"dataset:{ds.replace('-', '')}"}).json() == []
