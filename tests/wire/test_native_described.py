"""The description of the native API is true: its examples have its shapes, the app takes them, and answers in them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langsmith_requests import run, run_id
from native import create, hold, later

from clearspan.api.bodies import REST_BODY_BYTES_MAX
from clearspan.api.native import schema
from clearspan.api.native.problem import OWNED
from clearspan.testing.wire import Wire

JSON = "application/json"
PROBLEM = "application/problem+json"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip
KNOWN = {
    "type", "properties", "additionalProperties", "required", "items", "oneOf", "enum", "pattern", "minimum",
    "maximum", "minItems", "maxItems", "format", "description", "default",
}  # fmt: skip


def misfits(value: Any, shape: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Where a JSON value is not of a shape: the part of JSON Schema that the description uses, and no other."""
    assert set(shape) <= KNOWN, f"{where}: the checker does not know {set(shape) - KNOWN}"
    if "oneOf" in shape:
        fits = [each for each in shape["oneOf"] if not list(misfits(value, each, where))]
        if len(fits) != 1:
            yield f"{where}: fits {len(fits)} of the alternatives"
        return
    kinds = shape.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, TYPES[kind]) and _is_number(value, kind) for kind in kinds):
        yield f"{where}: {value!r} is not {kinds}"
        return
    if "enum" in shape and value not in shape["enum"]:
        yield f"{where}: {value!r} is not one of {shape['enum']}"
    if isinstance(value, str) and not re.search(shape.get("pattern", ""), value):
        yield f"{where}: {value!r} is not like {shape['pattern']}"
    if isinstance(value, int | float) and not shape.get("minimum", value) <= value <= shape.get("maximum", value):
        yield f"{where}: {value} is out of range"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from misfits(item, shape.get("items", {}), f"{where}[{number}]")
    if isinstance(value, dict):
        yield from _members(value, shape, where)


def _members(value: dict[str, Any], shape: dict[str, Any], where: str) -> Iterator[str]:
    properties, more = shape.get("properties", {}), shape.get("additionalProperties", True)
    for name in shape.get("required", []):
        if name not in value:
            yield f"{where}: {name} is missing"
    for name, item in value.items():
        if name in properties:
            yield from misfits(item, properties[name], f"{where}.{name}")
        elif more is False:
            yield f"{where}: {name} is not described"
        elif isinstance(more, dict):
            yield from misfits(item, more, f"{where}.{name}")


def _is_number(value: Any, kind: str) -> bool:
    return not (isinstance(value, bool) and kind in ("integer", "number"))


@pytest.fixture
def wire(wire: Wire) -> Wire:
    wire.ingest(
        wire.span("trace_abc123", customer_identifier="user@example.com"),
        wire.span("trace_def456"),
        wire.span("spare"),
        wire.span("kept"),
    )
    return wire


def native_operations(wire: Wire) -> dict[str, dict[str, Any]]:
    """operationId → operation, of every native path."""
    paths = wire.get("/openapi.json", key=None).json()["paths"]
    found = {}
    for path, item in paths.items():
        if path.startswith(OWNED):
            for method, operation in item.items():
                found[operation["operationId"]] = {"path": path, "method": method.upper(), **operation}
    return found


def test_every_example_has_the_shape_beside_it(wire: Wire) -> None:
    operations = native_operations(wire)
    assert len(operations) == 22
    for name, operation in operations.items():
        body = operation.get("requestBody", {}).get("content", {}).get(JSON)
        assert (body is not None) is (operation["method"] == "POST" or name == "release_hold"), name
        for example in (body or {}).get("examples", {}).values():
            assert list(misfits(example["value"], body["schema"])) == [], name
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for content in (each for answer in good for each in answer.get("content", {}).items()):
            if content[0] == JSON:
                assert list(misfits(content[1]["example"], content[1]["schema"])) == [], name
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                assert set(answer["content"]) == {PROBLEM}, (name, status)


def answered(operation: dict[str, Any], answer: Any) -> Any:
    """The JSON of an answer, which must be one that the description names, in the shape it gives."""
    described = operation["responses"].get(str(answer.status_code))
    assert described is not None, (operation["operationId"], answer.status_code, answer.text)
    kind = answer.headers["content-type"].split(";")[0]
    assert list(misfits(answer.json(), described["content"][kind]["schema"])) == [], answer.text
    for name in described.get("headers", {}):
        assert name.lower() in answer.headers
    return answer.json()


def test_the_app_takes_the_examples_and_answers_in_the_shapes(wire: Wire) -> None:
    operations = native_operations(wire)
    seen = set()

    def call(name: str, body: Any = None, query: str = "", **ids: str) -> Any:
        seen.add(name)
        path = operations[name]["path"].format(**ids)
        answer = wire.send(operations[name]["method"], path + query, body)
        assert answer.status_code < 300, (name, answer.text)
        return answered(operations[name], answer)

    def examples(name: str) -> dict[str, Any]:
        found = operations[name]["requestBody"]["content"][JSON]["examples"]
        return {key: each["value"] for key, each in found.items()}

    kept = hold(wire, trace_ids=["kept"])
    tokens = [call("preview_deletion", body)["plan_token"] for body in examples("preview_deletion").values()]
    for key, body in examples("create_deletion").items():
        if key == "plan":
            token = wire.post("/v1/deletions/preview", {"trace_ids": ["spare"]}).json()["plan_token"]
            body = body | {"plan_token": token}
        deletion = call("create_deletion", body)
    assert len(tokens) == 3
    deletion_id = deletion["id"]
    assert deletion["traces"]["hidden"] == 1
    call("list_deletions", query="?limit=2")
    call("get_deletion", deletion_id=deletion_id)
    call("get_receipt", deletion_id=deletion_id)
    call("get_membership", query="?trace_id=spare&project=default", deletion_id=deletion_id)
    call("list_tombstones", deletion_id=deletion_id)
    call("lift_tombstone", {"trace_id": "spare", "reason": "r"})
    [lift] = examples("lift_tombstone").values()
    call("lift_tombstone", lift)
    for body in examples("create_hold").values():
        call("create_hold", body)
    call("list_holds", query="?state=all")
    call("get_hold", hold_id=kept["id"])
    for body in (*examples("release_hold").values(), None):
        call("release_hold", body, hold_id=kept["id"])
    for made in wire.get("/v1/holds").json()["data"]:
        wire.send("DELETE", made["links"]["self"])
    far = create(wire, {"trace_ids": ["kept"], "not_before": later(wire)})
    [nothing] = examples("retry_deletion").values()
    call("retry_deletion", nothing, deletion_id=far["id"])
    [why] = examples("cancel_deletion").values()
    call("cancel_deletion", why, deletion_id=far["id"])
    entries = call("list_entries", query=f"?deletion_id={far['id']}")["data"]
    [noted] = [each for each in entries if each["entry"]["body"].get("private_ref")]
    call("erase_private", seq=str(noted["seq"]))
    call("get_head")
    call("get_inclusion", query="?index=1")
    call("get_consistency", query="?from=1")
    call("get_keys")
    call("compare_experiments", query=f"?{'&'.join(f'experiments={each}' for each in _experiments(wire))}")
    assert seen | {"watch_deletion"} == set(operations)


def _experiments(wire: Wire) -> list[str]:
    """Two experiments on one dataset, with a result of one item each."""
    dataset = wire.post("/api/v1/datasets", {"name": "d"}).json()["id"]
    ids = [str(uuid.UUID(int=number)) for number in (1, 2)]
    for number, own in enumerate(ids):
        wire.post("/api/v1/sessions", {"id": own, "name": own, "reference_dataset_id": dataset})
        said = run(number, session_name=own, reference_example_id=str(uuid.UUID(int=9)))
        assert wire.post("/runs", said).status_code == 202
        assert wire.post("/feedback", {"run_id": run_id(number), "key": "exact", "score": number}).status_code == 200
    return ids


def test_errors_have_the_described_shape(wire: Wire) -> None:
    operations = native_operations(wire)
    for operation in operations.values():
        path = re.sub(r"\{[^}]*\}", "x", operation["path"])
        for answer in (
            wire.send(operation["method"], path, {}, key=None),
            wire.send(operation["method"], path + "?nonsense=1", b"["),
        ):
            assert answer.headers["content-type"] == PROBLEM, path
            assert 400 <= answered(operation, answer)["status"] < 500


def test_whatever_takes_a_body_says_how_it_refuses_one(wire: Wire) -> None:
    for name, operation in native_operations(wire).items():
        if "requestBody" not in operation:
            assert not {"413", "415"} & set(operation["responses"]), name
            continue
        path = re.sub(r"\{[^}]*\}", "x", operation["path"])
        text = wire.send(operation["method"], path, b"reason", headers={"Content-Type": "text/plain"})
        assert answered(operation, text)["status"] == 415
        large = wire.send(operation["method"], path, b" " * (REST_BODY_BYTES_MAX + 1))
        assert answered(operation, large)["status"] == 413


def test_the_checker_sees_what_is_wrong() -> None:
    shape = schema.GET["responses"]["200"]["content"][JSON]["schema"]
    good = schema.EXAMPLE_DELETION
    wrong = {"state": "deleted", "progress": 2, "traces": {}, "scope_hash": "x", "new": 1, "id": None}
    for name, value in wrong.items():
        assert list(misfits(json.loads(json.dumps(good | {name: value})), shape)), name
