"""LangSmith's ingest: every recorded client is understood, a bad run costs itself, and tenants never meet."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from langsmith_requests import FOLDERS, ROOTS, exchanges, multipart, replay, rows, run, run_id, stored

from clearspan.api.langsmith.paths import OTEL_PATHS
from clearspan.api.limits import RequestTimeout
from clearspan.catalog import KeyScope
from clearspan.model.trace import Scope
from clearspan.testing.wire import Wire


def traces(wire: Wire) -> list[str]:
    return sorted(wire.list_ids("?start_time=2025-01-01T00:00:00Z&end_time=2027-01-01T00:00:00Z&page_size=100"))


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recorded_request_is_taken_at_both_roots(wire: Wire, folder: str, root: str) -> None:
    answers = replay(wire, folder, root)
    assert answers
    for answer in answers:
        assert answer.status_code in (200, 202), answer.text
        assert b"rejected" not in answer.content
    kept = traces(wire)
    assert kept
    assert [each.status_code for each in replay(wire, folder, root)] == [each.status_code for each in answers]
    assert traces(wire) == kept


@pytest.mark.parametrize("folder", ["plain", "late", "zstd", "batch"])
def test_recorded_runs_are_whole_in_the_project_they_name(wire: Wire, folder: str) -> None:
    replay(wire, folder)
    project = wire.catalog.find_project(wire.catalog.first_org.id, "rec-project")
    assert project is not None
    assert {each.name for each in wire.catalog.projects(wire.catalog.first_org.id)} == {"default", "rec-project"}
    found = [wire.get(f"/api/traces/{each}/").json() for each in traces(wire)]
    assert sum(each["span_count"] for each in found) == 9


@pytest.mark.parametrize("empty", [{}, [], "", 0, False, None])
def test_ids_that_are_nothing_cost_no_batch(wire: Wire, empty: Any) -> None:
    nothing = {name: empty for name in ("reference_example_id", "session_id", "parent_run_id")}
    answer = wire.post("/runs/batch", {"post": [run(1), run(2, **nothing)], "patch": [run(2, **nothing)]})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)


def test_a_bad_run_costs_itself_and_is_named(wire: Wire) -> None:
    body = {"post": [run(1), run(2, run_type="agent"), run(3, start_time="never"), {"id": "x"}, run(4)]}
    answer = wire.post("/runs/batch", body)
    assert answer.status_code == 202
    said = answer.json()
    assert (said["accepted"], said["rejected_count"]) == (2, 3)
    assert {each["id"] for each in said["rejected"]} == {run_id(2).replace("-", ""), run_id(3).replace("-", ""), "x"}
    assert all(each["kind"] == "run" and each["reason"] for each in said["rejected"])
    assert len(rows(wire, run_id(1), run_id(2), run_id(3), run_id(4))) == 2
    figures = wire.get("/metrics", key=None).text
    assert 'clearspan_ingest_spans_total{outcome="rejected"} 3.0' in figures
    assert 'clearspan_ingest_rejections_total{kind="run",reason="invalid_payload"} 3.0' in figures


def test_a_request_fails_only_when_nothing_in_it_can_be_stored(wire: Wire) -> None:
    for path, sent in (("/runs/batch", {"post": [run(1, run_type="agent")]}), ("/runs", run(1, run_type="agent"))):
        answer = wire.post(path, sent)
        assert answer.status_code == 422
        assert set(answer.json()) == {"error", "details"}
        assert "run_type" in answer.json()["error"]
        assert json.loads(answer.json()["details"])["rejected"][0]["id"] == run_id(1).replace("-", "")
    body, headers = multipart((f"post.{run_id(1)}", run(1, run_type="agent")), (f"post.{run_id(2)}", run(2)))
    assert wire.post("/runs/multipart", body, headers=headers).status_code == 202
    for nothing in ({}, {"post": []}, {"patch": None}):
        assert wire.post("/runs/batch", nothing).status_code == 202
    for broken in (b"", b"{", b"[]", b"\xff"):
        answer = wire.post("/runs/batch", broken)
        assert (answer.status_code, set(answer.json())) == (400, {"error", "details"})
    assert wire.post("/runs/multipart", b"{}", headers={"Content-Type": "application/json"}).status_code == 400


def test_runs_of_several_projects_in_one_body_go_each_to_its_own(wire: Wire) -> None:
    made = wire.catalog.create_project(wire.catalog.first_org.id, "there already")
    answer = wire.post(
        "/runs/batch",
        {"post": [run(1, session_name="a"), run(2, session_name="b"), run(3, session_name=None, session_id=made.uuid)]},
    )
    assert answer.json() == {"message": "Runs batch ingested", "accepted": 3}
    assert [project_name(wire, number) for number in (1, 2, 3)] == ["a", "b", "there already"]
    wire.post("/runs", run(4, session_name=None))
    wire.post("/runs", run(5, session_name=None), headers={"Langsmith-Project": "by header"})
    assert [project_name(wire, number) for number in (4, 5)] == ["default", "by header"]


def project_name(wire: Wire, number: int) -> str:
    (found,) = rows(wire, run_id(number))
    return next(
        each.name for each in wire.catalog.projects(wire.catalog.first_org.id) if each.id == found.trace.project_id
    )


def test_a_key_of_one_project_writes_to_no_other(wire: Wire) -> None:
    org_id = wire.catalog.first_org.id
    mine, other = wire.catalog.create_project(org_id, "mine"), wire.catalog.create_project(org_id, "other")
    key = wire.key(KeyScope.INGEST, project_ids=[mine.id])
    sent = [run(1, session_name="mine"), run(2, session_name="other"), run(3, session_name="new")]
    answer = wire.post("/runs/batch", {"post": [*sent, run(4, session_name=None, session_id=other.uuid)]}, key=key)
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert {each["code"] for each in answer.json()["rejected"]} == {"not_permitted", "not_found"}
    assert len(rows(wire, *map(run_id, range(1, 5)))) == 1
    assert wire.catalog.find_project(org_id, "new") is None
    assert wire.post("/runs", run(5, session_name="other"), key=key).status_code == 403


def test_organisations_never_meet(wire: Wire) -> None:
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    wire.post("/runs", run(1, session_name="same"))
    wire.post("/runs", run(1, session_name="same", inputs={"theirs": 1}), key=theirs)
    ours = next(each for each in wire.catalog.projects(wire.catalog.first_org.id) if each.name == "same")
    answer = wire.post("/runs", run(2, session_name=None, session_id=ours.uuid), key=theirs)
    assert answer.status_code == 404
    answer = wire.send("PATCH", f"/runs/{run_id(3)}", {"outputs": {"x": 1}}, key=theirs)
    assert answer.status_code == 404
    assert stored(wire, 1)["inputs"] == {"q": 1}
    (found,) = rows(wire, run_id(1), org_id=other.id)
    assert found.trace.project_id != ours.id


def test_an_update_that_names_no_project_or_trace_finds_its_run(wire: Wire) -> None:
    wire.post("/runs", run(1))
    answer = wire.send("PATCH", f"/api/v1/runs/{run_id(1)}", {"outputs": {"a": 1}, "end_time": "2026-11-21T22:33:33Z"})
    assert (answer.status_code, answer.json()) == (202, {"message": "Run updated", "accepted": 1})
    assert project_name(wire, 1) == "p"
    assert stored(wire, 1)["outputs"] == {"a": 1}
    assert stored(wire, 1)["inputs"] == {"q": 1}
    unknown = wire.send("PATCH", f"/runs/{run_id(9)}", {"outputs": {"a": 1}})
    assert (unknown.status_code, set(unknown.json())) == (404, {"error", "details"})


def test_a_child_without_a_trace_gets_its_parents(wire: Wire) -> None:
    wire.post("/runs", run(1))
    bare = {
        key: value for key, value in run(2, parent_run_id=run_id(1)).items() if key not in ("trace_id", "dotted_order")
    }
    assert wire.post("/runs", {**bare, "session_name": None}).status_code == 202
    child = stored(wire, 2)
    assert child["trace_id"] == run_id(1)
    assert child["dotted_order"].split(".")[0] == run(1)["dotted_order"]
    assert child["dotted_order"].endswith(run_id(2))
    assert project_name(wire, 2) == "p"
    lost = wire.post("/runs", {**bare, "id": run_id(3), "parent_run_id": run_id(8)})
    assert lost.status_code == 404


def test_sending_again_changes_nothing_and_is_no_conflict(wire: Wire) -> None:
    before = None
    for _ in range(3):
        assert wire.post("/runs", run(1)).status_code == 202
        before = before or stored(wire, 1)
        assert stored(wire, 1) == before


def test_attachments_come_beside_their_run_in_it_and_before_it(wire: Wire) -> None:
    image = b"\x89PNG\r\n--" + b"x" * 100
    body, headers = multipart(
        (f"post.{run_id(1)}", run(1)), (f"attachment.{run_id(1)}.a.png", image), (f"attachment.{run_id(2)}.b", image)
    )
    answer = wire.post("/runs/multipart", body, headers=headers)
    assert answer.json() == {"message": "Runs batch ingested", "accepted": 1, "attachments_accepted": 2}
    wire.post("/runs", run(2, attachments={"c": ["text/plain", "aGVsbG8="]}))
    assert attachment_names(wire, 1) == ["a.png"]
    assert attachment_names(wire, 2) == ["b", "c"]


def attachment_names(wire: Wire, number: int) -> list[str]:
    (found,) = rows(wire, run_id(number))
    reader: Any = wire.services.reader
    key = (found.trace.trace_pk, found.detail.span.span_id)
    return [each.name for each in reader.list_attachments(Scope((found.trace.project_id,)), [key]).get(key, [])]


def test_late_runs_of_a_deleted_trace_are_refused_and_told(wire: Wire) -> None:
    wire.post("/runs", run(1))
    trace_id = run_id(1).replace("-", "")
    assert wire.send("DELETE", f"/api/traces/{trace_id}/").status_code == 200
    answer = wire.post("/runs/batch", {"post": [run(1, outputs={"late": 1}), run(2)]})
    assert answer.status_code == 202
    said = answer.json()
    assert (said["accepted"], said["refused_count"]) == (1, 1)
    assert said["refused"][0]["trace_id"] == trace_id
    assert said["refused"][0]["deletion_id"].startswith("del_")
    assert wire.post("/runs", run(1)).status_code == 202
    assert rows(wire, run_id(1)) == []
    assert "clearspan_deletion_late_refused_total 2.0" in wire.get("/metrics", key=None).text


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_packed_bodies_are_unpacked_and_bombs_are_not(wire: Wire, encoding: str) -> None:
    def pack(data: bytes) -> bytes:
        if encoding == "zstd":
            stream = zstandard.ZstdCompressor().compressobj()  # a frame without its content's size
            return stream.compress(data) + stream.flush()
        return gzip.compress(data) if encoding == "gzip" else zlib.compress(data)

    body, headers = multipart((f"post.{run_id(1)}", run(1)))
    headers["Content-Encoding"] = encoding
    assert wire.post("/runs/multipart", pack(body), headers=headers).json()["accepted"] == 1
    bomb = wire.post("/runs/multipart", pack(body + b"\0" * (80 * 2**20)), headers=headers)
    assert (bomb.status_code, set(bomb.json())) == (413, {"error", "details"})
    broken = wire.post("/runs/multipart", pack(body)[:-20], headers=headers)
    assert (broken.status_code, set(broken.json())) == (400, {"error", "details"})


def test_bodies_in_chunks_without_a_length_are_read(wire: Wire) -> None:
    exchange = next(each for each in exchanges("js") if each.path == "/runs/multipart")
    pieces = (exchange.body[at : at + 97] for at in range(0, len(exchange.body), 97))
    answer = wire.client.post("/runs/multipart", content=pieces, headers={**exchange.headers, **wire.headers()})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 3)


def test_otlp_spans_go_to_the_project_that_they_or_the_header_name(wire: Wire) -> None:
    def span(number: int, **attributes: str) -> dict[str, Any]:
        return {
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "name": "s",
            "startTimeUnixNano": "1763764412433523000",
            "endTimeUnixNano": "1763764413433523000",
            "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
        }

    named = {"langsmith.trace.session_name": "named"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span(1, **named), span(2), span(3, **named)]}]}]}
    for path in OTEL_PATHS:
        answer = wire.post(path, body, headers={"langsmith-project": "by header"})
        assert (answer.status_code, answer.json()) == (200, {})
    projects = {each.id: each.name for each in wire.catalog.projects(wire.catalog.first_org.id)}
    found = {number: projects[row.trace.project_id] for number in (1, 2, 3) for row in rows(wire, f"{number:032x}")}
    assert found == {1: "named", 2: "by header", 3: "named"}
    key = wire.key(KeyScope.INGEST, project_ids=[next(id_ for id_, name in projects.items() if name == "named")])
    foreign = span(4, **{"langsmith.trace.session_name": "by header"})
    mixed = {"resourceSpans": [{"scopeSpans": [{"spans": [span(5, **named), foreign]}]}]}
    answer = wire.post("/otel/v1/traces", mixed, key=key)
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedSpans"] == 1
    only = {"resourceSpans": [{"scopeSpans": [{"spans": [foreign]}]}]}
    refused = wire.post("/otel/v1/traces", only, key=key)
    assert (refused.status_code, set(refused.json())) == (403, {"code", "message", "detail", "error"})


def test_pressure_is_told_so_that_the_client_comes_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.services.gateway, "_bytes_max", 10)
    for path, body in (("/runs/batch", {"post": [run(1)]}), ("/api/v1/runs", run(1))):
        answer = wire.post(path, body)
        assert (answer.status_code, set(answer.json())) == (503, {"error", "details"})
        assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert wire.post("/runs", run(1)).status_code == 202


def test_a_body_that_does_not_come_is_told_in_the_ingests_words(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object) -> bytes:
        raise RequestTimeout

    monkeypatch.setattr("clearspan.api.langsmith.taking.read_body", slow)
    answer = wire.post("/runs/batch", {"post": [run(1)]})
    assert (answer.status_code, set(answer.json())) == (408, {"error", "details"})
    assert answer.headers["connection"] == "close"


def test_files_without_a_trace_are_counted_one_by_one(wire: Wire) -> None:
    assert wire.post("/runs", run(1, session_name=None)).status_code == 202
    assert wire.send("DELETE", f"/api/traces/{run_id(1).replace('-', '')}/").status_code == 200
    body, headers = multipart(*((f"attachment.{run_id(number)}.a", b"x") for number in (1, 2, 3)))
    answer = wire.post("/runs/multipart", body, headers=headers)
    assert answer.status_code == 202
    assert (answer.json()["attachments_accepted"], answer.json()["refused_count"]) == (2, 1)


def test_both_halves_of_a_run_whose_update_named_no_project_are_deleted_by_the_trace(wire: Wire) -> None:
    update = {"trace_id": run_id(1), "outputs": {"x": 1}}
    assert wire.send("PATCH", f"/runs/{run_id(1)}", update).status_code == 202
    assert wire.post("/runs", run(1, session_name="p")).status_code == 202
    assert len(rows(wire, run_id(1))) == 2
    told = wire.post("/v1/deletions", {"trace_ids": [run_id(1)], "wait": "verified"}).json()
    assert told["traces"]["matched"] == 2
    assert rows(wire, run_id(1)) == []
